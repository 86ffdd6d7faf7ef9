//! Pictures of filters and of batches of images: a near-square grid of tiles with thin lines between them.

use crate::data::png::{self, AFTER_HEADER};
use crate::error::{Error, Result};
use crate::files;
use crate::kernels::sparse::to_host;
use burn::tensor::{Int, Tensor, TensorData};
use image::{ImageFormat, Rgb, RgbImage};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// What a tile's colours mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    /// 0 is mid-grey and the tile's own largest magnitude black or white.
    Symmetric,
    /// 0 is black and 1 is white.
    Unit,
}

/// Side that tiles are enlarged to, where the mosaic stays below [`LARGEST_SIDE`].
const LEGIBLE_TILE: usize = 48;

/// Side, in pixels, up to which tiles are enlarged.
const LARGEST_SIDE: usize = 2048;

/// Side, in pixels, beyond which tiles are left out.
const LAST_SIDE: usize = 1 << 14;

/// Colour of the lines and of empty places.
const LINE: Rgb<u8> = Rgb([255; 3]);

/// Values in one row from which on they are drawn as a curve.
const LEAST_CURVE: usize = 8;

/// Height of a curve's picture, and its least and its largest width.
const CURVE_HEIGHT: usize = 48;
const CURVE_WIDTH: [usize; 2] = [64, 256];

/// Part of half a curve's height that it takes at most: curves one below the other stay apart.
const CURVE_REACH: f32 = 0.9;

/// How dark the line of zero is on a curve's picture, whose ground is 0 and whose curve is 1.
const ZERO_LINE: f32 = -0.4;

/// Channels of signals in time that are drawn one below the other, at most.
const MOST_CURVES: usize = 8;

/// Pixels of all curves that are drawn at once, at most.
const CURVE_PIXELS: usize = 1 << 25;

/// Whether images are better drawn as curves: vectors and signals in time of few channels, which as pictures would be lines of grey one
/// pixel high.
pub(super) fn are_curves([_, channels, height, width]: [usize; 4]) -> bool {
    height == 1 && channels * width >= LEAST_CURVE && (width == 1 || channels <= MOST_CURVES)
}

/// Shape `[n, 1, h, w]` of the pictures of images as curves.
pub(super) fn dims_of_curves([count, channels, _, width]: [usize; 4]) -> [usize; 4] {
    let [rows, samples] = if width == 1 { [1, channels] } else { [channels, width] };
    [count, 1, rows * CURVE_HEIGHT, samples.clamp(CURVE_WIDTH[0], CURVE_WIDTH[1])]
}

/// Pictures `[n, 1, h, w]` of images of one row as curves, one below the other where several channels have several samples each. Each is
/// scaled by the largest magnitude of its own or, where there are some, of `scales`.
pub(super) fn curves(images: Tensor<4>, scales: Option<&Tensor<4>>) -> Tensor<4> {
    let (dims, device) = (dims_of_curves(images.dims()), images.device());
    let [_, channels, _, width] = images.dims();
    let samples = if width == 1 { channels } else { width };
    let [_, _, tall, across] = dims;
    let values = to_host(images);
    let scales = scales.map(|scales| to_host(scales.clone()));
    let len = channels * width;
    let mut pictures = vec![0.0f32; dims.iter().product()];
    let parts = pictures.chunks_exact_mut(tall * across).zip(values.chunks_exact(len)).enumerate();
    for (index, (picture, image)) in parts {
        let of = scales.as_ref().map_or(image, |scales| &scales[index * len..][..len]);
        let largest = of.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        for (picture, row) in picture.chunks_exact_mut(CURVE_HEIGHT * across).zip(image.chunks_exact(samples)) {
            let middle = (CURVE_HEIGHT - 1) as f32 / 2.0;
            let reach = CURVE_REACH * middle;
            let place = |value: f32| (middle - reach * (value / largest).clamp(-1.0, 1.0)).round() as usize;
            picture[place(0.0) * across..][..across].fill(ZERO_LINE);
            let mut before: Option<usize> = None;
            for column in 0..across {
                // All samples that fall into a column of pixels, and the line to the one before.
                let first = column * samples / across;
                let last = ((column + 1) * samples).div_ceil(across).clamp(first + 1, samples);
                let known = row[first..last].iter().filter(|value| !value.is_nan());
                let places = known.map(|&value| place(value));
                let ends = places.chain(before).fold((usize::MAX, 0), |(top, end), at| (top.min(at), end.max(at)));
                (ends.0..=ends.1).for_each(|at| picture[at * across + column] = 1.0);
                before = Some(row[last - 1]).filter(|value| !value.is_nan()).map(place);
            }
        }
    }
    Tensor::from_data(TensorData::new(pictures, dims), &device)
}

/// A mosaic of filters, each scaled by its own largest magnitude with mid-grey for 0; those of one row are drawn as curves, as many as
/// there is room for.
///
/// Filters over three channels are shown in colour, those over any other number with their channels side by side. With
/// `order` the filters of these indices are shown, in that order; unknown indices are passed over.
///
/// # Shapes
/// - filters: `[atoms, channels, height, width]`.
pub fn filters(filters: Tensor<4>, order: Option<&[usize]>) -> RgbImage {
    let dims = filters.dims();
    if !are_curves(dims) {
        return draw(filters, order, Scaling::Symmetric);
    }
    let [_, _, tall, across] = dims_of_curves(dims);
    let most = (CURVE_PIXELS / (tall * across)).max(1);
    let shown: Vec<i32> = match order {
        Some(order) => order.iter().filter(|&&index| index < dims[0]).map(|&index| index as i32).take(most).collect(),
        None => (0..dims[0].min(most) as i32).collect(),
    };
    let shown = Tensor::<1, Int>::from_data(shown.as_slice(), &filters.device());
    draw(curves(filters.select(0, shown), None), None, Scaling::Symmetric)
}

/// A mosaic of images with values in [0, 1]; others are clipped.
///
/// # Shapes
/// - images: `[n, channels, height, width]`.
pub fn images(images: Tensor<4>) -> RgbImage {
    draw(images, None, Scaling::Unit)
}

/// Rows of so many images, each scaled by its own largest magnitude with mid-grey for 0. Images beyond the last whole row are left out.
///
/// # Shapes
/// - images: `[n, channels, height, width]`.
pub fn table(images: Tensor<4>, columns: usize) -> RgbImage {
    let [count, channels, height, width] = images.dims();
    let rows = count / columns.max(1);
    let shown: Vec<usize> = (0..rows * columns).collect();
    let grid = Grid::with_columns(rows, columns.max(1), tile(channels, height, width));
    paint(images, &shown, &grid, Scaling::Symmetric)
}

/// One image with values in [0, 1] as a PNG of 8 or, if it is to be `deep`, of 16 bits: grey for one channel, colour for three. Returns how
/// many values were clipped; what rounding alone takes does not count.
///
/// # Errors
/// Another number of channels; a path that cannot be written.
///
/// # Panics
/// If `values` is not `[channels, height, width]`.
pub fn save_image(path: &Path, [channels, height, width]: [usize; 3], values: &[f32], deep: bool) -> Result<usize> {
    assert_eq!(values.len(), channels * height * width, "values of one image");
    let plane = height * width;
    let colour = match (channels, deep) {
        (1, false) => image::ExtendedColorType::L8,
        (1, true) => image::ExtendedColorType::L16,
        (3, false) => image::ExtendedColorType::Rgb8,
        (3, true) => image::ExtendedColorType::Rgb16,
        (other, _) => return Err(Error::shape("image to write as PNG", "1 or 3 channels", other)),
    };
    let white = if deep { f32::from(u16::MAX) } else { f32::from(u8::MAX) };
    let ordered = (0..values.len()).map(|at| values[at % channels * plane + at / channels]);
    let bytes: Vec<u8> = match deep {
        false => ordered.map(to_byte).collect(),
        true => ordered.flat_map(|value| ((value * white).round() as u16).to_ne_bytes()).collect(),
    };
    let mut png = Cursor::new(Vec::new());
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    image::ImageEncoder::write_image(encoder, &bytes, width as u32, height as u32, colour)
        .map_err(|error| Error::format(path, error.to_string()))?;
    files::write_bytes(path, &signed(png.into_inner()))?;
    Ok(values.iter().filter(|value| !(0.0..=white).contains(&(*value * white).round())).count())
}

/// A chunk of text that says which program made a picture, as the PNG specification has it: keyword, text.
fn signature() -> Vec<u8> {
    png::chunk(b"tEXt", b"Software\0mlcsc")
}

/// A PNG file with the [`signature`] in it.
fn signed(mut png: Vec<u8>) -> Vec<u8> {
    png.splice(AFTER_HEADER..AFTER_HEADER, signature());
    png
}

/// Whether this program wrote a picture.
fn is_signed(path: &Path) -> bool {
    let signature = signature();
    let mut start = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take((AFTER_HEADER + signature.len()) as u64).read_to_end(&mut start));
    read.is_ok() && start.get(AFTER_HEADER..).is_some_and(|chunk| chunk == signature)
}

/// The name of the file of signal number `place`, a picture's or a recording's by its ending, where it has no other.
pub fn numbered(place: usize, ending: &str) -> String {
    format!("{place:06}.{ending}")
}

/// Pictures of earlier runs in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Those that were removed.
    pub removed: usize,
    /// Those that are still there.
    pub kept: usize,
}

/// Clears a folder of numbered pictures that an earlier run left there, so that they do not stay among those of this run, which
/// wrote `written`. Only pictures that this program wrote are removed, and only where this run's are `numbered_too`: those that are
/// named after files belong to other files.
///
/// # Errors
/// A picture that cannot be removed.
pub fn remove_earlier(folder: &Path, written: &[PathBuf], numbered_too: bool) -> Result<Earlier> {
    let is_numbered = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.parse::<usize>()
            .is_ok_and(|place| path.file_name().is_some_and(|name| name == numbered(place, "png").as_str()))
    };
    if !folder.exists() {
        return Ok(Earlier::default());
    }
    let folders: BTreeSet<&Path> = written.iter().filter_map(|path| path.parent()).chain([folder]).collect();
    let written: HashSet<&Path> = written.iter().map(PathBuf::as_path).collect();
    let mut entries = Vec::new();
    for folder in folders {
        entries.extend(std::fs::read_dir(folder).map_err(Error::read(folder))?.flatten().map(|entry| entry.path()));
    }
    let mut earlier = Earlier::default();
    for path in entries {
        let is_png = path.extension().is_some_and(|ending| ending == "png");
        if !is_png || written.contains(path.as_path()) || !is_signed(&path) {
            continue;
        }
        match numbered_too && is_numbered(&path) {
            true => {
                std::fs::remove_file(&path).map_err(Error::write(&path))?;
                earlier.removed += 1;
            }
            false => earlier.kept += 1,
        }
    }
    Ok(earlier)
}

/// Writes a mosaic as PNG, whole or not at all.
///
/// # Errors
/// A path that cannot be written, a full disk.
pub fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    // Mosaics of one channel are grey: a third of the bytes.
    let grey = image.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]);
    let written = if grey {
        image::DynamicImage::ImageRgb8(image.clone()).into_luma8().write_to(&mut png, ImageFormat::Png)
    } else {
        image.write_to(&mut png, ImageFormat::Png)
    };
    written.map_err(|error| Error::format(path, error.to_string()))?;
    files::write_bytes(path, &signed(png.into_inner()))
}

fn draw(tiles: Tensor<4>, order: Option<&[usize]>, scaling: Scaling) -> RgbImage {
    let [count, channels, height, width] = tiles.dims();
    let shown: Vec<usize> = match order {
        Some(order) => order.iter().copied().filter(|&index| index < count).collect(),
        None => (0..count).collect(),
    };
    let grid = Grid::new(shown.len(), tile(channels, height, width));
    paint(tiles, &shown, &grid, scaling)
}

/// Height and width of a tile: channels are side by side unless they are three.
fn tile(channels: usize, height: usize, width: usize) -> [usize; 2] {
    [height, if channels == 3 { width } else { width * channels }]
}

/// The tiles of these indices in their places.
fn paint(tiles: Tensor<4>, shown: &[usize], grid: &Grid, scaling: Scaling) -> RgbImage {
    let [_, channels, height, width] = tiles.dims();
    let values = to_host(tiles);
    let [mosaic_height, mosaic_width] = grid.pixels();
    let mut image = RgbImage::from_pixel(mosaic_width as u32, mosaic_height as u32, LINE);
    let (plane, len) = (height * width, channels * height * width);
    for (place, &index) in shown.iter().enumerate().take(grid.rows * grid.columns) {
        let values = &values[index * len..][..len];
        let (scale, offset) = match scaling {
            Scaling::Unit => (1.0, 0.0),
            Scaling::Symmetric => {
                let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                (0.5 / largest.max(f32::MIN_POSITIVE), 0.5)
            }
        };
        let [top, left] = grid.corner(place);
        for row in 0..height {
            for column in 0..grid.tile[1] {
                let (panel, across) = (column / width, column % width);
                let at = |channel: usize| to_byte(values[channel * plane + row * width + across] * scale + offset);
                let pixel = if channels == 3 { Rgb([at(0), at(1), at(2)]) } else { Rgb([at(panel); 3]) };
                for down in 0..grid.scale {
                    for right in 0..grid.scale {
                        let (x, y) = (left + column * grid.scale + right, top + row * grid.scale + down);
                        image.put_pixel(x as u32, y as u32, pixel);
                    }
                }
            }
        }
    }
    image
}

/// [0, 1] to 0..=255, values beyond clipped, NaN as 0.
fn to_byte(value: f32) -> u8 {
    (value * 255.0).round() as u8
}

/// Where tiles lie.
struct Grid {
    rows: usize,
    columns: usize,
    /// Height and width of a tile before it is enlarged.
    tile: [usize; 2],
    scale: usize,
}

impl Grid {
    /// The grid for `count` tiles whose mosaic is closest to a square.
    fn new(count: usize, tile: [usize; 2]) -> Self {
        let ideal = (count as f64 * (tile[0] + 1) as f64 / (tile[1] + 1) as f64).sqrt();
        let most = |extent: usize| (LAST_SIDE / (extent + 1)).max(1);
        let columns = (ideal.ceil() as usize).clamp(1, count.max(1)).min(most(tile[1]));
        Self::with_columns(count.div_ceil(columns).clamp(1, most(tile[0])), columns, tile)
    }

    /// The grid of so many rows and columns, enlarged as far as that is legible.
    fn with_columns(rows: usize, columns: usize, tile: [usize; 2]) -> Self {
        let side = |tiles: usize, extent: usize, scale: usize| tiles * (extent * scale + 1) + 1;
        let largest = tile[0].max(tile[1]).max(1);
        let fits = |scale: &usize| side(rows, tile[0], *scale).max(side(columns, tile[1], *scale)) <= LARGEST_SIDE;
        let scale = (1..=LEGIBLE_TILE.div_ceil(largest)).rev().find(fits).unwrap_or(1);
        Self { rows, columns, tile, scale }
    }

    /// Height and width of the mosaic.
    fn pixels(&self) -> [usize; 2] {
        let side = |tiles: usize, extent: usize| tiles * (extent * self.scale + 1) + 1;
        [side(self.rows, self.tile[0]), side(self.columns, self.tile[1])]
    }

    /// Top and left of a tile.
    fn corner(&self, place: usize) -> [usize; 2] {
        let at = |index: usize, extent: usize| index * (extent * self.scale + 1) + 1;
        [at(place / self.columns, self.tile[0]), at(place % self.columns, self.tile[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn tensor(values: Vec<f32>, dims: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, dims), &crate::device::named(None).unwrap())
    }

    #[test]
    fn filters_are_scaled_one_by_one_around_grey() {
        // Two filters 1×2: (1, −1) and (0, 0.001).
        let image = filters(tensor(vec![1.0, -1.0, 0.0, 0.001], [2, 1, 1, 2]), None);
        let grid = Grid::new(2, [1, 2]);
        let pixel = |place: usize, column: usize| {
            let [top, left] = grid.corner(place);
            image.get_pixel((left + column * grid.scale) as u32, top as u32).0
        };
        assert_eq!([pixel(0, 0), pixel(0, 1)], [[255; 3], [0; 3]]);
        assert_eq!([pixel(1, 0), pixel(1, 1)], [[128; 3], [255; 3]]);
        assert_eq!(image.get_pixel(0, 0), &LINE);
    }

    #[test]
    fn one_row_is_a_curve() {
        assert!(are_curves([1, 8, 1, 1]) && are_curves([1, 1, 1, 8]) && !are_curves([1, 1, 8, 8]));
        let values: Vec<f32> = (0..64).map(|at| if at < 32 { 1.0 } else { -0.5 }).collect();
        let drawn = curves(tensor(values.clone(), [1, 64, 1, 1]), None);
        assert_eq!(drawn.dims(), [1, 1, CURVE_HEIGHT, 64]);
        let drawn = to_host(drawn);
        let row_of = |column: usize| (0..CURVE_HEIGHT).find(|row| drawn[row * 64 + column] == 1.0);
        assert!(row_of(3).is_some_and(|row| row < 4), "{:?}", row_of(3));
        assert!(row_of(40).is_some_and(|row| row > CURVE_HEIGHT / 2 && row < CURVE_HEIGHT - 1));
        // By another signal's scale it is half as high.
        let scales = tensor(values.iter().map(|value| 2.0 * value).collect(), [1, 64, 1, 1]);
        let drawn = to_host(curves(tensor(values, [1, 64, 1, 1]), Some(&scales)));
        assert!((0..CURVE_HEIGHT).find(|row| drawn[row * 64 + 3] == 1.0).is_some_and(|row| row > 8));
    }

    #[test]
    fn a_ranking_orders_the_tiles() {
        let values = tensor(vec![0.0, 1.0, 2.0], [3, 1, 1, 1]);
        let image = draw(values, Some(&[2, 0, 9]), Scaling::Unit);
        let grid = Grid::new(2, [1, 1]);
        let at = |place: usize| {
            let [top, left] = grid.corner(place);
            image.get_pixel(left as u32, top as u32).0[0]
        };
        assert_eq!([at(0), at(1)], [255, 0]);
    }

    #[test]
    fn tables_have_whole_rows() {
        let image = table(tensor(vec![1.0; 7], [7, 1, 1, 1]), 3);
        let side = |tiles: u32| tiles * (LEGIBLE_TILE as u32 + 1) + 1;
        assert_eq!(image.dimensions(), (side(3), side(2)));
    }

    #[test]
    fn three_channels_are_colour_and_two_side_by_side() {
        let colour = images(tensor(vec![1.0, 0.0, 0.5], [1, 3, 1, 1]));
        assert_eq!(colour.get_pixel(1, 1).0, [255, 0, 128]);
        let pair = images(tensor(vec![1.0, 0.0], [1, 2, 1, 1]));
        let scale = LEGIBLE_TILE as u32 / 2;
        assert_eq!([pair.get_pixel(1, 1).0[0], pair.get_pixel(1 + scale, 1).0[0]], [255, 0]);
    }

    #[test]
    fn grids_are_near_square_and_bounded() {
        for (count, tile) in [(16, [7, 7]), (1024, [27, 27]), (5, [8, 8]), (10, [3, 30]), (1, [5, 5])] {
            let grid = Grid::new(count, tile);
            assert!(grid.rows * grid.columns >= count, "{count}");
            let [height, width] = grid.pixels();
            let limit = 2 * (tile[0].max(tile[1]) * grid.scale + 1);
            assert!(height.abs_diff(width) <= limit, "{count} tiles: {height}×{width}");
            assert!(height.max(width) <= LARGEST_SIDE);
        }
        let [height, width] = Grid::new(usize::MAX >> 20, [100, 100]).pixels();
        assert!(height.max(width) <= LAST_SIDE + 1);
    }

    #[test]
    fn numbered_pictures_of_an_earlier_run_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let save = |names: &[&str]| -> Vec<PathBuf> {
            let save = |name: &&str| {
                save_image(&path(name), [1, 1, 2], &[0.0, 1.0], false).unwrap();
                path(name)
            };
            names.iter().map(save).collect()
        };
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        save(&["000000.png", "000001.png", "1000000.png", "00001.png", "boat.png"]);
        // Not the program's own.
        image::GrayImage::new(2, 2).save(path("000002.png")).unwrap();
        std::fs::write(path("000003.png"), "short").unwrap();
        assert_eq!(image::open(path("boat.png")).unwrap().into_luma8().into_raw(), [0, 255]);
        // Named pictures leave all others where they are.
        let written = save(&["house.png"]);
        assert_eq!(remove_earlier(folder.path(), &written, false).unwrap(), Earlier { removed: 0, kept: 5 });
        let written = save(&["000000.png"]);
        assert_eq!(remove_earlier(folder.path(), &written, true).unwrap(), Earlier { removed: 2, kept: 3 });
        assert_eq!(names(), ["000000.png", "000002.png", "000003.png", "00001.png", "boat.png", "house.png"]);
    }
}
