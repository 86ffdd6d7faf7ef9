//! Image files: PNG, JPEG, PNM, TIFF, BMP and WebP, decoded once and held as bytes.
//!
//! Pictures come as viewers show them: turned and mirrored as their EXIF data (in TIFF: their tag) say. Colours are turned grey
//! as Pillow's `convert("L")` does it, by the luma of ITU-R BT.601 in fixed point.

use super::folder::{Skipped, name_below, name_of};
use super::integrity;
use super::jpeg;
use super::pictures::{Pictures, Window};
use super::resolution::Resolution;
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::geometry::SignalShape;
use crate::text::beginning;
use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::pnm::PnmEncoder;
use image::codecs::tiff::TiffEncoder;
use image::codecs::webp::WebPEncoder;
use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// The formats, for messages.
pub(super) const FORMATS: &str = "PNG, JPEG, PNM, TIFF, BMP or WebP";
/// Most rows or columns of an image.
const MAX_EXTENT: u32 = 1 << 16;
/// Most bytes of one decoded image.
const MAX_DECODED: u64 = 1 << 30;
/// Most bytes of pixels that one byte of a file can stand for, where there is such a number. A deflate stream reaches 1032, TIFF's LZW
/// some more; a progressive JPEG of one colour with coarse chroma likewise. A header that asks for more is a lie.
const MAX_RATIO: u64 = 4096;

/// Pixels as decoded, `[height, width, channels]`.
enum Pixels {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
}

struct Image {
    path: PathBuf,
    /// 1 (grey) or 3 (red, green, blue).
    channels: usize,
    height: usize,
    width: usize,
    pixels: Pixels,
}

/// Images of a folder, or a single one.
pub(super) struct Images {
    path: PathBuf,
    images: Vec<Image>,
    /// 3 if any image has colours: grey ones then repeat their values.
    channels: usize,
    /// What was passed over and why.
    skipped: Option<String>,
}

impl Images {
    /// Decodes one file.
    pub fn open_file(path: &Path, grey: bool) -> Result<Self> {
        Ok(Self::new(path, vec![decode(path, grey)?], Skipped::default()))
    }

    /// Decodes images of a folder; what it holds beside them was `skipped`.
    pub fn open_files(folder: &Path, paths: &[PathBuf], grey: bool, skipped: Skipped) -> Result<Self> {
        // Collected before the first error is looked for, so that it is always the same one.
        let images: Vec<Result<(Image, integrity::Rest)>> = paths.par_iter().map(|path| decode(path, grey)).collect();
        Ok(Self::new(folder, images.into_iter().collect::<Result<_>>()?, skipped))
    }

    fn new(path: &Path, images: Vec<(Image, integrity::Rest)>, mut skipped: Skipped) -> Self {
        let mut kept = Vec::with_capacity(images.len());
        for (image, rest) in images {
            skipped.rests.extend(rest.map(|rest| format!("{rest} in {}", name_of(&image.path))));
            kept.push(image);
        }
        let channels = kept.iter().map(|image| image.channels).max().unwrap_or(1);
        Self { path: path.into(), images: kept, channels, skipped: skipped.describe(path) }
    }
}

impl Pictures for Images {
    fn count(&self) -> usize {
        self.images.len()
    }

    fn shape(&self, index: usize) -> SignalShape {
        SignalShape::new(self.channels, self.images[index].height, self.images[index].width)
    }

    fn name(&self, index: usize) -> String {
        name_below(&self.images[index].path, &self.path)
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let image = &self.images[index];
        match &image.pixels {
            Pixels::Eight(pixels) => copy(image, pixels, window, out, |value| f32::from(value) / 255.0),
            Pixels::Sixteen(pixels) => copy(image, pixels, window, out, |value| f32::from(value) / 65535.0),
        }
        Ok(())
    }

    fn file(&self, index: usize) -> Option<&Path> {
        Some(&self.images[index].path)
    }

    fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// Copies a window, channel by channel; a grey image fills as many channels as `out` has.
fn copy<T: Copy>(image: &Image, pixels: &[T], window: Window, out: &mut [f32], convert: impl Fn(T) -> f32) {
    for (channel, out) in out.chunks_exact_mut(window.height * window.width).enumerate() {
        let channel = channel.min(image.channels - 1);
        for (row, out) in out.chunks_exact_mut(window.width).enumerate() {
            let start = ((window.top + row) * image.width + window.left) * image.channels + channel;
            for (out, &value) in out.iter_mut().zip(pixels[start..].iter().step_by(image.channels)) {
                *out = convert(value);
            }
        }
    }
}

/// The format of a file by its first bytes, if it is one of those read here.
pub(super) fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    // BigTIFF.
    if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
        return Some(ImageFormat::Tiff);
    }
    let format = image::guess_format(bytes).ok()?;
    name_of_format(format).map(|_| format)
}

fn name_of_format(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Png => Some("PNG"),
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Pnm => Some("PNM"),
        ImageFormat::Tiff => Some("TIFF"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::WebP => Some("WebP"),
        _ => None,
    }
}

/// Whether a file is a picture with more than 8 bits a value, by its header.
pub fn is_deep(path: &Path) -> bool {
    let file = open_with_length(path).ok().map(|(file, _)| ImageReader::new(BufReader::new(file)));
    let reader = file.and_then(|reader| reader.with_guessed_format().ok());
    let colour = reader.and_then(|reader| reader.into_decoder().ok()).map(|decoder| decoder.color_type());
    colour.is_some_and(|colour| colour.bytes_per_pixel() > colour.channel_count())
}

fn bytes_of_sample(image: &DynamicImage) -> usize {
    usize::from(image.color().bytes_per_pixel() / image.color().channel_count())
}

/// A picture as its file has it, to be written back in the same type and depth: 8 or 16 bits, grey or colour, with or without alpha.
pub struct Still {
    path: PathBuf,
    image: DynamicImage,
    /// What its colours mean (ICC), where the file says so.
    profile: Option<Vec<u8>>,
    /// How large it is meant to be shown, likewise.
    resolution: Option<Resolution>,
}

impl std::fmt::Debug for Still {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut told = formatter.debug_struct("Still");
        told.field("path", &self.path).field("colours", &self.image.color()).field("shape", &self.shape()).finish()
    }
}

impl Still {
    /// Reads a file that holds one picture and nothing else.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or is none of these; several pages or frames; inks, which could not be written back.
    pub fn open(path: &Path) -> Result<Self> {
        let Decoded { image, rest, inks, profile, resolution, .. } = decode_whole(path)?;
        if inks {
            let expected = "expected a picture in grey or in red, green and blue, found one in inks (CMYK)";
            return Err(Error::format(path, expected));
        }
        match rest {
            Some(rest) => Err(Error::format(path, format!("expected a single picture, found {rest} beside it"))),
            None => Ok(Self { path: path.into(), image, profile, resolution }),
        }
    }

    /// The same made larger by a factor, alpha too, by cubic interpolation.
    #[must_use]
    pub fn enlarged(&self, factor: usize) -> Self {
        let [width, height] = [self.image.width(), self.image.height()].map(|len| len * factor as u32);
        let image = match factor {
            1 => self.image.clone(),
            _ => self.image.resize_exact(width, height, image::imageops::FilterType::CatmullRom),
        };
        let resolution = self.resolution.map(|resolution| resolution.times(factor));
        Self { path: self.path.clone(), image, profile: self.profile.clone(), resolution }
    }

    /// Channels without alpha, rows and columns.
    pub fn shape(&self) -> SignalShape {
        let channels = if self.image.color().has_color() { 3 } else { 1 };
        SignalShape::new(channels, self.image.height() as usize, self.image.width() as usize)
    }

    /// Value of white: 255 or 65,535.
    pub fn white(&self) -> f32 {
        if self.depth() == 1 { 255.0 } else { 65_535.0 }
    }

    /// Bytes of a sample.
    fn depth(&self) -> usize {
        bytes_of_sample(&self.image)
    }

    /// Values as they are stored, `[channels, height, width]`, without alpha.
    pub fn values(&self) -> Vec<f32> {
        let (shape, samples) = (self.shape(), usize::from(self.image.color().channel_count()));
        let (bytes, depth) = (self.image.as_bytes(), self.depth());
        let value = |at: usize| match depth {
            1 => f32::from(bytes[at]),
            _ => f32::from(u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]])),
        };
        let pixels = shape.height * shape.width;
        (0..shape.len()).map(|at| value(at % pixels * samples + at / pixels)).collect()
    }

    /// Whether a transparency channel comes with it.
    pub fn has_alpha(&self) -> bool {
        self.image.color().has_alpha()
    }

    /// Which pixels can be seen, where a file has some that are wholly transparent and others that are not.
    pub fn seen(&self) -> Option<Vec<bool>> {
        let (samples, depth) = (usize::from(self.image.color().channel_count()), self.depth());
        let pixels = self.image.as_bytes().chunks_exact(samples * depth);
        let alpha = pixels.map(|pixel| pixel[(samples - 1) * depth..].iter().any(|byte| *byte != 0));
        let seen: Vec<bool> = self.has_alpha().then(|| alpha.collect())?;
        (seen.contains(&true) && seen.contains(&false)).then_some(seen)
    }

    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// A name that says none, or one that cannot hold a picture of this type and depth.
    fn output_format(&self, out: &Path) -> Result<ImageFormat> {
        let refused = |expected: String| Err(Error::parameter("out", out.display(), expected));
        let ending = out.extension().unwrap_or_default().to_ascii_lowercase();
        let named = if ending == "jpe" { Some(ImageFormat::Jpeg) } else { ImageFormat::from_path(out).ok() };
        let named = named.filter(|format| name_of_format(*format).is_some());
        let Some(format) = named else { return refused(format!("a file name with the ending of {FORMATS}")) };
        let (sixteen, colour, alpha) = (self.depth() == 2, self.image.color().has_color(), self.has_alpha());
        let expected = match format {
            ImageFormat::Pnm if ending == "pbm" => ".pgm or .ppm: a bitmap holds no shades",
            ImageFormat::Pnm if ending == "pgm" && colour => ".ppm: a .pgm holds no colours",
            ImageFormat::Pnm if alpha && ending != "pam" => "the ending of PNG, or .pam, which hold transparency",
            ImageFormat::Jpeg if alpha => "the ending of PNG, which holds transparency",
            ImageFormat::Tiff | ImageFormat::Bmp if alpha && !colour => {
                "the ending of PNG, which holds transparency of grey pictures"
            }
            ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::WebP if sixteen => {
                "the ending of PNG, PNM or TIFF, which hold 16 bits, as --data has"
            }
            _ => return Ok(format),
        };
        refused(expected.into())
    }

    /// Whether [`Self::encode`] can write a file of that name.
    ///
    /// # Errors
    /// As there.
    pub fn check_output(&self, out: &Path) -> Result<()> {
        self.output_format(out).map(drop)
    }

    /// The bytes of a file with these values in place of its own, rounded; alpha stays, and what a PNG, JPEG or WebP file says
    /// of its colours (ICC), and a PNG or JPEG file of its size on paper. The format is that of the file's name. Returns how many values
    /// were beyond black or white, too.
    ///
    /// # Errors
    /// A name that says no format, or a format without this type and depth.
    ///
    /// # Panics
    /// If `values` is not as [`Self::values`].
    pub fn encode(&self, out: &Path, values: &[f32]) -> Result<(Vec<u8>, usize)> {
        let (shape, samples) = (self.shape(), usize::from(self.image.color().channel_count()));
        assert_eq!(values.len(), shape.len(), "values of the picture");
        let format = self.output_format(out)?;
        let (mut bytes, depth, white) = (self.image.as_bytes().to_vec(), self.depth(), self.white());
        let (pixels, mut clipped) = (shape.height * shape.width, 0);
        for (at, &value) in values.iter().enumerate() {
            let place = at % pixels * samples + at / pixels;
            let rounded = value.round();
            clipped += usize::from(!(0.0..=white).contains(&rounded));
            match depth {
                1 => bytes[place] = rounded.clamp(0.0, white) as u8,
                _ => bytes[2 * place..2 * place + 2].copy_from_slice(&(rounded.clamp(0.0, white) as u16).to_ne_bytes()),
            }
        }
        let mut file = Cursor::new(Vec::new());
        let written = match format {
            // The default loses more than the noise did.
            ImageFormat::Jpeg => {
                let mut encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
                if let Some(resolution) = self.resolution {
                    encoder.set_pixel_density(resolution.in_jpeg());
                }
                self.encode_by(encoder, &bytes)
            }
            ImageFormat::Png => self.encode_by(PngEncoder::new(&mut file), &bytes),
            ImageFormat::Tiff => self.encode_by(TiffEncoder::new(&mut file), &bytes),
            ImageFormat::WebP => self.encode_by(WebPEncoder::new_lossless(&mut file), &bytes),
            ImageFormat::Bmp => self.encode_by(BmpEncoder::new(&mut file), &bytes),
            _ => {
                let (width, height, colour) = (self.image.width(), self.image.height(), self.image.color());
                let words = || bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_ne_bytes(*bytes));
                if out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pam")) {
                    let mut encoder = PnmEncoder::new(&mut file);
                    match depth {
                        1 => encoder.encode(&bytes[..], width, height, colour.into()),
                        _ => encoder.encode(&words().collect::<Vec<u16>>()[..], width, height, colour.into()),
                    }
                } else {
                    // Maps of 16 bits are beyond the encoder.
                    let pixmap = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ppm"));
                    // Grey is three times the same in a map of colours.
                    let times = if pixmap && !colour.has_color() { 3 } else { 1 };
                    let kind = if pixmap || colour.has_color() { "P6" } else { "P5" };
                    let file = file.get_mut();
                    file.extend(format!("{kind}\n{width} {height}\n{white}\n").into_bytes());
                    match depth {
                        1 => file.extend(bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, times))),
                        _ => file
                            .extend(words().flat_map(|word| [word.to_be_bytes(); 3].into_iter().take(times).flatten())),
                    }
                    Ok(())
                }
            }
        };
        let reason = |error: image::ImageError| error.to_string().replace('\n', " ");
        written.map_err(|error| Error::format(out, format!("{} as it is: {}", self.path.display(), reason(error))))?;
        let file = file.into_inner();
        let file = match (format, self.resolution) {
            (ImageFormat::Png, Some(resolution)) => resolution.in_png(file),
            _ => file,
        };
        Ok((file, clipped))
    }

    /// Encodes pixels as these are stored, with the colour profile.
    fn encode_by(&self, mut encoder: impl ImageEncoder, bytes: &[u8]) -> image::ImageResult<()> {
        if let Some(profile) = &self.profile {
            // Formats that have no room for it refuse it.
            encoder.set_icc_profile(profile.clone()).ok();
        }
        encoder.write_image(bytes, self.image.width(), self.image.height(), self.image.color().into())
    }
}

/// Quality of JPEG files that are written.
const JPEG_QUALITY: u8 = 98;

/// The picture, and what its file holds beside it.
fn decode(path: &Path, grey: bool) -> Result<(Image, integrity::Rest)> {
    let Decoded { image, rest, spread, .. } = decode_whole(path)?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let has_colour = image.color().has_color();
    // Transparency is dropped.
    let (channels, pixels) = match (image.color().bytes_per_pixel() / image.color().channel_count(), has_colour) {
        (1, false) => (1, Pixels::Eight(image.into_luma8().into_raw())),
        (1, true) => (3, Pixels::Eight(image.into_rgb8().into_raw())),
        (_, false) => (1, Pixels::Sixteen(image.into_luma16().into_raw())),
        (_, true) => (3, Pixels::Sixteen(image.into_rgb16().into_raw())),
    };
    let is_grey = |colours: &[u8]| {
        let apart = |colour: &[u8]| colour.iter().max().zip(colour.iter().min()).map(|(most, least)| most - least);
        spread.is_some() && colours.chunks_exact(3).all(|colour| apart(colour) <= spread)
    };
    let (channels, pixels) = match pixels {
        Pixels::Eight(pixels) if has_colour && (grey || is_grey(&pixels)) => (1, Pixels::Eight(luma(&pixels))),
        Pixels::Sixteen(pixels) if has_colour && grey => (1, Pixels::Sixteen(luma(&pixels))),
        pixels => (channels, pixels),
    };
    Ok((Image { path: path.into(), channels, height, width, pixels }, rest))
}

/// A picture of 8 or 16 bits as it is shown.
struct Decoded {
    image: DynamicImage,
    /// What its file holds beside it.
    rest: integrity::Rest,
    /// How far apart the colours of a pixel can be that was grey before it was compressed.
    spread: Option<u8>,
    /// Whether the file has inks (CMYK), and what is shown was made from them.
    inks: bool,
    /// What its colours mean (ICC).
    profile: Option<Vec<u8>>,
    resolution: Option<Resolution>,
}

/// Reads and checks a file.
fn decode_whole(path: &Path) -> Result<Decoded> {
    let (mut file, _) = open_with_length(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::read(path))?;
    if bytes.is_empty() {
        return Err(Error::format(path, format!("expected a {FORMATS} image, found an empty file")));
    }
    let known = format_of(&bytes).and_then(|format| name_of_format(format).map(|name| (format, name)));
    let (format, name) = known.ok_or_else(|| {
        let start = beginning(&bytes);
        Error::format(path, format!("expected a {FORMATS} image, found a file that begins with {start}"))
    })?;
    let damaged = |error: image::ImageError| {
        if let image::ImageError::Unsupported(error) = &error
            && let UnsupportedErrorKind::Color(ExtendedColorType::Unknown(bits)) = error.kind()
        {
            let found = format!("found ones of {bits} bits; an array .npy holds those");
            return Error::format(path, format!("expected pixels of 8 or 16 bits in each of 1 to 4 channels, {found}"));
        }
        let reason = error.to_string().replace('\n', " ");
        Error::format(path, format!("expected a {name} image, found a damaged or unsupported one ({reason})"))
    };
    let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EXTENT);
    limits.max_image_height = Some(MAX_EXTENT);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::format(path, format!("expected an image with pixels, found {height}x{width}")));
    }
    if width > MAX_EXTENT || height > MAX_EXTENT || decoder.total_bytes() > MAX_DECODED {
        let limits = format!("expected at most {MAX_EXTENT} rows and columns and {MAX_DECODED} bytes of pixels");
        return Err(Error::format(path, format!("{limits}, found {height}x{width}")));
    }
    let bounded = !integrity::length_says_nothing(format, &bytes);
    if bounded && decoder.total_bytes() / MAX_RATIO > bytes.len() as u64 {
        let found = format!("found {} bytes, far too few for them", bytes.len());
        return Err(Error::format(path, format!("expected {height}x{width} pixels, as its header says, {found}")));
    }
    let rest = integrity::check(format, &bytes)
        .map_err(|found| Error::format(path, format!("expected a whole {name} image, found {found}")))?;
    // A picture whose EXIF data make no sense is shown as it is stored.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let inks = matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16)
        || (format == ImageFormat::Jpeg && jpeg::components(&bytes) == Some(4));
    let profile = decoder.icc_profile().ok().flatten().filter(|profile| !profile.is_empty());
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    if !matches!(image.color().bytes_per_pixel() / image.color().channel_count(), 1 | 2) {
        return Err(Error::format(path, "expected pixels of 8 or 16 bits, found floating-point ones"));
    }
    let resolution = Resolution::of(format, &bytes);
    Ok(Decoded { image, rest, spread: integrity::spread_of_grey(format, &bytes), inks, profile, resolution })
}

/// Grey values of colours, `[pixels, 3]`: 0.299 R + 0.587 G + 0.114 B in units of 2⁻¹⁶, rounded, as Pillow computes them.
fn luma<T: Copy + Into<u32> + TryFrom<u32>>(colours: &[T]) -> Vec<T> {
    let grey = |colour: &[T]| {
        let [red, green, blue] = [colour[0], colour[1], colour[2]].map(T::into);
        // The weights add up to 2¹⁶: the mean is in the range of T, and 16 bits more fit into 32 with it.
        T::try_from((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16).unwrap_or(colour[0])
    };
    colours.chunks_exact(3).map(grey).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, Dataset, open};
    use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage};

    fn config(path: &Path) -> DataConfig {
        DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
    }

    fn open_path(path: &Path) -> Result<Dataset> {
        open(&config(path))
    }

    fn grey(height: u32, width: u32, first: u8) -> GrayImage {
        GrayImage::from_fn(width, height, |x, y| Luma([first + (10 * y + x) as u8]))
    }

    fn read(data: &Dataset, index: usize) -> Vec<f32> {
        let mut out = vec![0.0; data.all.shape().len()];
        data.all.read(&[index], &mut out).unwrap();
        out
    }

    #[test]
    fn a_folder_is_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        grey(3, 4, 100).save(folder.path().join("b.PNG")).unwrap();
        grey(3, 4, 0).save(folder.path().join("a.pgm")).unwrap();
        grey(3, 4, 200).save(folder.path().join("c.png")).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "not an image").unwrap();
        std::fs::create_dir(folder.path().join("d.png")).unwrap();
        let data = open_path(folder.path()).unwrap();
        assert_eq!((data.all.len(), data.train.len(), data.test.len()), (3, 2, 1));
        assert_eq!(data.all.shape(), SignalShape::new(1, 3, 4));
        for (index, first) in [0u8, 100, 200].into_iter().enumerate() {
            let expected: Vec<f32> = grey(3, 4, first).into_raw().iter().map(|&v| f32::from(v) / 255.0).collect();
            assert_eq!(read(&data, index), expected);
        }
    }

    #[test]
    fn colours_stay_or_are_turned_grey() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::from_pixel(2, 1, Rgb([255, 0, 51])).save(folder.path().join("colour.png")).unwrap();
        grey(1, 2, 51).save(folder.path().join("grey.png")).unwrap();
        let data = open_path(folder.path()).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(3, 1, 2));
        assert_eq!(read(&data, 0), [1.0, 1.0, 0.0, 0.0, 0.2, 0.2]);
        assert_eq!(read(&data, 1), [[0.2, 52.0 / 255.0]; 3].concat());
        let data = open(&DataConfig { grey: true, ..config(folder.path()) }).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(1, 1, 2));
        // 0.299·255 + 0.114·51 = 82.06, as Pillow has it.
        assert_eq!(read(&data, 0), [82.0 / 255.0; 2]);
    }

    /// A flat picture takes hardly a byte in some formats, whatever its size. Written by Pillow.
    #[test]
    fn flat_pictures_take_few_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        let bytes_of = |hex: &str| -> Vec<u8> {
            let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
            hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
        };
        // 1024×1024 pixels of one colour, without loss.
        let webp = bytes_of(
            "5249464650000000574542505650384c430000002fffc3ff00075085fe17b9ff018140b2bff90445f43fe33ffff9cf7ffef39ffffce73f\
             fff9cf7ffef39ffffce73ffff9cf7ffef39ffffce73ffff9cf7ffef39ffffcdf00",
        );
        std::fs::write(&path, &webp).unwrap();
        let data = open_path(&path).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(3, 1024, 1024));
        let values = read(&data, 0);
        let expected = [255.0, 10.0, 200.0].map(|value: f32| value / 255.0);
        assert!(values.chunks(1 << 20).zip(expected).all(|(plane, value)| plane.iter().all(|&found| found == value)));
        // Cut short it is refused.
        std::fs::write(&path, &webp[..webp.len() - 20]).unwrap();
        assert!(open_path(&path).is_err());
        // A white fax page of 64×40,000 pixels (group 4), in five strips.
        let fax = bytes_of(
            "49492a00ae00000026a03e03e03e03e03e03e03e03e03e03e03e03e03e03e03e05b0dffffffc00400426a03e03e03e03e03e03e03e03\
             e03e03e03e03e03e03e03e05b0dffffffc00400426a03e03e03e03e03e03e03e03e03e03e03e03e03e03e03e05b0dffffffc00400426\
             a03e03e03e03e03e03e03e03e03e03e03e03e03e03e03e05b0dffffffc00400426a03e03e03e03e03e03e03e03e03e03e03e03e03e03\
             e03e05b0dffffff00100100009000001030001000000409c000001010300010000004000000002010300010000000100000003010300\
             010000000400000006010300010000000100000011010400050000003401000016010300010000000d00000017010400050000002001\
             00001c010300010000000100000000000000210000002100000021000000210000002100000008000000290000004a0000006b000000\
             8c000000",
        );
        std::fs::write(&path, fax).unwrap();
        let data = open_path(&path).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(1, 64, 40_000));
        assert!(read(&data, 0).iter().all(|&value| value == 1.0));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        grey(3, 4, 0).save(folder.path().join("a.png")).unwrap();
        std::os::unix::fs::symlink("nowhere.png", folder.path().join("b.png")).unwrap();
        let data = open_path(folder.path()).unwrap();
        assert_eq!(data.all.len(), 1);
        let skipped = data.all.skipped().unwrap();
        assert!(skipped.ends_with("1 link or pipe without a file behind (b.png)"), "{skipped}");
        std::fs::write(folder.path().join("c.png"), "").unwrap();
        let message = open_path(folder.path()).err().unwrap().to_string();
        assert!(message.contains("c.png: expected") && message.ends_with("found an empty file"), "{message}");
    }

    #[test]
    fn grey_pictures_of_formats_that_do_not_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        let colours = RgbImage::from_fn(9, 7, |x, y| Rgb([20 * x as u8, 30 * y as u8, 90]));
        let dull = RgbImage::from_fn(9, 7, |x, y| Rgb([(9 * x + y) as u8; 3]));
        let nearly = RgbImage::from_fn(9, 7, |x, y| Rgb([(9 * x + y) as u8, (9 * x + y) as u8, (9 * x + y + 9) as u8]));
        for (image, channels) in [(&colours, 3), (&dull, 1), (&nearly, 3)] {
            image.save_with_format(&path, ImageFormat::WebP).unwrap();
            assert_eq!(open_path(&path).unwrap().all.shape(), SignalShape::new(channels, 7, 9));
        }
        // Colours as such stay colours.
        dull.save_with_format(&path, ImageFormat::Png).unwrap();
        assert_eq!(open_path(&path).unwrap().all.shape(), SignalShape::new(3, 7, 9));
        // A BMP file of grey values has a palette of them.
        grey(7, 9, 3).save_with_format(&path, ImageFormat::Bmp).unwrap();
        let data = open_path(&path).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(1, 7, 9));
        assert_eq!(read(&data, 0), grey(7, 9, 3).iter().map(|&value| f32::from(value) / 255.0).collect::<Vec<_>>());
    }

    /// The eight orientations of EXIF, in a TIFF tag of the same meaning: where the pixel at the upper left of the stored 2×3 pixels is
    /// shown.
    #[test]
    fn pictures_are_turned_as_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        let jpeg = {
            let mut bytes = Cursor::new(Vec::new());
            let mut image = GrayImage::from_pixel(24, 16, Luma([0]));
            (0..8).for_each(|y| (0..8).for_each(|x| image.put_pixel(x, y, Luma([255]))));
            image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
            bytes.into_inner()
        };
        // Height and width as shown, and the bright corner: bottom? right?
        let cases = [
            (1u8, [16, 24], [false, false]),
            (2, [16, 24], [false, true]),
            (3, [16, 24], [true, true]),
            (4, [16, 24], [true, false]),
            (5, [24, 16], [false, false]),
            (6, [24, 16], [false, true]),
            (7, [24, 16], [true, true]),
            (8, [24, 16], [true, false]),
            // No such orientation: as it is stored.
            (9, [16, 24], [false, false]),
        ];
        for (orientation, [height, width], [bottom, right]) in cases {
            // One entry: tag 0x112, a short, once.
            let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
            let exif = [&b"Exif\0\0II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat();
            let segment = [&[0xff, 0xe1, 0, exif.len() as u8 + 2], &exif[..]].concat();
            std::fs::write(&path, [&jpeg[..2], &segment, &jpeg[2..]].concat()).unwrap();
            let data = open_path(&path).unwrap();
            assert_eq!(data.all.shape(), SignalShape::new(1, height, width), "{orientation}");
            let pixels = read(&data, 0);
            let at = |bottom: bool, right: bool| {
                pixels[if bottom { height - 1 } else { 0 } * width + if right { width - 1 } else { 0 }]
            };
            for corner in [[false, false], [false, true], [true, false], [true, true]] {
                let expected = if corner == [bottom, right] { 1.0 } else { 0.0 };
                let found = at(corner[0], corner[1]);
                assert!((found - expected).abs() < 0.05, "{orientation}: {corner:?} is {found}");
            }
        }
    }

    #[test]
    fn sixteen_bits_transparency_and_jpeg() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.png");
        ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![1u16, 65535]).unwrap().save(&path).unwrap();
        assert_eq!(read(&open_path(&path).unwrap(), 0), [1.0 / 65535.0, 1.0]);
        let path = folder.path().join("transparent.png");
        ImageBuffer::<LumaA<u8>, _>::from_raw(1, 1, vec![255u8, 0]).unwrap().save(&path).unwrap();
        let data = open_path(&path).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (1, 1, 1));
        assert_eq!(read(&data, 0), [1.0]);
        // The ending does not matter for a file that is named itself.
        let path = folder.path().join("photograph");
        GrayImage::from_pixel(16, 16, Luma([128])).save_with_format(&path, ImageFormat::Jpeg).unwrap();
        assert!(read(&open_path(&path).unwrap(), 0).iter().all(|value| (value - 128.0 / 255.0).abs() < 0.01));
    }

    #[test]
    fn shapes_that_differ_name_two_files() {
        let folder = tempfile::tempdir().unwrap();
        grey(3, 4, 0).save(folder.path().join("a.png")).unwrap();
        grey(4, 5, 0).save(folder.path().join("b.png")).unwrap();
        let message = open_path(folder.path()).err().unwrap().to_string();
        for part in ["a.png 1x3x4", "b.png 1x4x5", "`patch`"] {
            assert!(message.contains(part), "{message}");
        }
        let data = open(&DataConfig { patch: Some(3.into()), patches: Some(20), ..config(folder.path()) }).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (18, 2));
        assert_eq!(data.all.shape(), SignalShape::new(1, 3, 3));
        let patch = read(&data, 0);
        assert!((patch[4] - patch[0] - 11.0 / 255.0).abs() < 1e-6);
        let message = open(&DataConfig { patch: Some(4.into()), ..config(folder.path()) }).err().unwrap().to_string();
        assert!(message.contains("a.png is 3x4"), "{message}");
    }

    #[test]
    fn damaged_images_are_refused_in_one_line() {
        let encode = |format| {
            let mut bytes = Cursor::new(Vec::new());
            grey(16, 16, 0).write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        };
        let (png, jpeg, pnm) = (encode(ImageFormat::Png), encode(ImageFormat::Jpeg), encode(ImageFormat::Pnm));
        // The extents stand at bytes 16 to 24 of a PNG file, and their checksum at 29.
        let absurd = |width: u32, height: u32| {
            let mut bytes = png.clone();
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let mut checksum = flate2::Crc::new();
            checksum.update(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
            bytes
        };
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            (
                "text.png",
                b"this is no image".to_vec(),
                &["expected a PNG, JPEG, PNM, TIFF, BMP or WebP image", "begins with \"this is \""],
            ),
            ("empty.png", vec![], &["PNG"]),
            (
                "gif.png",
                b"GIF89a\x01\x00\x01\x00\x00\x00\x00;".to_vec(),
                &["expected a PNG, JPEG, PNM, TIFF, BMP or WebP image"],
            ),
            ("short.png", png[..png.len() / 2].to_vec(), &["expected a whole PNG image", "cut short"]),
            ("header.png", png[..12].to_vec(), &["expected a PNG image"]),
            ("wide.png", absurd(1 << 30, 16), &["image"]),
            ("many.png", absurd(60_000, 60_000), &["60000x60000"]),
            ("bomb.png", absurd(16_000, 16_000), &["16000x16000 pixels", "far too few"]),
            ("short.jpg", jpeg[..jpeg.len() - 20].to_vec(), &["expected a whole JPEG image", "data that end after"]),
            ("header.jpg", jpeg[..20].to_vec(), &["JPEG"]),
            ("short.pgm", pnm[..pnm.len() - 1].to_vec(), &["expected a whole PNM image", "255 bytes"]),
            ("promise.pgm", b"P5 30000 30000 255\n0".to_vec(), &["30000x30000 pixels", "far too few"]),
            ("zero.pgm", b"P5 0 5 255\n".to_vec(), &["image"]),
            ("numbers.pgm", b"P5 x y 255\n".to_vec(), &["PNM"]),
        ];
        for (name, bytes, parts) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            // Named itself, a file is recognised by content; in a folder, by its ending.
            let message = open_path(&path).err().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(!message.contains('\n') && message.contains(path.to_str().unwrap()), "{message}");
            let message = open_path(folder.path()).err().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(!message.contains('\n'), "{message}");
            for part in parts.iter().chain(&[path.to_str().unwrap()]) {
                assert!(message.contains(part), "{name}: {message}");
            }
        }
    }

    #[test]
    fn natural_images() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/images/Set12");
        if !folder.is_dir() {
            println!("skipped: no images in {}", folder.display());
            return;
        }
        assert!(open_path(&folder).err().unwrap().to_string().contains("`patch`"));
        let data = open(&DataConfig { patch: Some(32.into()), ..config(&folder) }).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (18_000, 2_000, 20_000));
        let indices: Vec<usize> = (0..200).collect();
        let mut out = vec![0.0; 200 * 1024];
        data.train.read(&indices, &mut out).unwrap();
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        assert!((0.2..0.8).contains(&mean), "{mean}");
    }
}
