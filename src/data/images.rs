//! Image files: PNG, JPEG and PNM, decoded once and held as bytes.

use super::pictures::{Pictures, Window};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::model::geometry::SignalShape;
use crate::text::beginning;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Endings of the names of image files, in lower case.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "pgm", "ppm", "pnm", "pbm", "pam"];
/// Most rows or columns of an image.
const MAX_EXTENT: u32 = 1 << 16;
/// Most bytes of one decoded image.
const MAX_DECODED: u64 = 1 << 30;
/// Most bytes of pixels that one byte of a file can stand for. A deflate stream reaches 1032; a progressive JPEG of one
/// colour with coarse chroma some more. A header that asks for more is a lie.
const MAX_RATIO: u64 = 4096;

/// Pixels as decoded, `[height, width, channels]`.
enum Pixels {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
}

struct Image {
    name: String,
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
}

impl Images {
    /// Decodes one file.
    pub fn open_file(path: &Path, grey: bool) -> Result<Self> {
        Ok(Self::new(path, vec![decode(path, grey)?]))
    }

    /// Decodes the images of a folder in the order of their names, without its subfolders.
    ///
    /// Files are taken by the ending of their names; `None` where none of them is an image's.
    pub fn open_folder(folder: &Path, grey: bool) -> Result<Option<Self>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            if has_image_extension(&path) && path.is_file() {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Ok(None);
        }
        paths.sort();
        // Collected before the first error is looked for, so that it is always the same one.
        let images: Vec<Result<Image>> = paths.par_iter().map(|path| decode(path, grey)).collect();
        Ok(Some(Self::new(folder, images.into_iter().collect::<Result<_>>()?)))
    }

    fn new(path: &Path, images: Vec<Image>) -> Self {
        let channels = images.iter().map(|image| image.channels).max().unwrap_or(1);
        Self { path: path.into(), images, channels }
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
        self.images[index].name.clone()
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let image = &self.images[index];
        match &image.pixels {
            Pixels::Eight(pixels) => copy(image, pixels, window, out, |value| f32::from(value) / 255.0),
            Pixels::Sixteen(pixels) => copy(image, pixels, window, out, |value| f32::from(value) / 65535.0),
        }
        Ok(())
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

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

/// The format of a file by its first bytes, if it is one of those read here.
pub(super) fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(bytes).ok()?;
    matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Pnm).then_some(format)
}

fn decode(path: &Path, grey: bool) -> Result<Image> {
    let (mut file, _) = open_with_length(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::read(path))?;
    let format = format_of(&bytes).ok_or_else(|| {
        let start = beginning(&bytes);
        Error::format(path, format!("expected a PNG, JPEG or PNM image, found a file that begins with {start}"))
    })?;
    let name = match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        _ => "PNM",
    };
    let damaged = |error: image::ImageError| {
        let reason = error.to_string().replace('\n', " ");
        Error::format(path, format!("expected a {name} image, found a damaged or unsupported one ({reason})"))
    };
    // The decoder fills what is missing with grey.
    if format == ImageFormat::Jpeg && !bytes.windows(2).any(|marker| marker == [0xff, 0xd9]) {
        return Err(Error::format(path, "expected a JPEG image, found one that is cut short (no end marker)"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EXTENT);
    limits.max_image_height = Some(MAX_EXTENT);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::format(path, format!("expected an image with pixels, found {height}x{width}")));
    }
    if width > MAX_EXTENT || height > MAX_EXTENT || decoder.total_bytes() > MAX_DECODED {
        let limits = format!("expected at most {MAX_EXTENT} rows and columns and {MAX_DECODED} bytes of pixels");
        return Err(Error::format(path, format!("{limits}, found {height}x{width}")));
    }
    if decoder.total_bytes() / MAX_RATIO > bytes.len() as u64 {
        let found = format!("found {} bytes, far too few for them", bytes.len());
        return Err(Error::format(path, format!("expected {height}x{width} pixels, as its header says, {found}")));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let colour = image.color().has_color() && !grey;
    // Transparency is dropped.
    let (channels, pixels) = match (image.color().bytes_per_pixel() / image.color().channel_count(), colour) {
        (1, false) => (1, Pixels::Eight(image.into_luma8().into_raw())),
        (1, true) => (3, Pixels::Eight(image.into_rgb8().into_raw())),
        (2, false) => (1, Pixels::Sixteen(image.into_luma16().into_raw())),
        (2, true) => (3, Pixels::Sixteen(image.into_rgb16().into_raw())),
        _ => return Err(Error::format(path, "expected pixels of 8 or 16 bits, found floating-point ones")),
    };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Image { name, channels, height: height as usize, width: width as usize, pixels })
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
        // Luminance of red and a little blue: 0.2126 + 0.2·0.0722.
        assert!((read(&data, 0)[0] - 0.227).abs() < 0.004);
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
                &["expected a PNG, JPEG or PNM image", "begins with \"this is \""],
            ),
            ("empty.png", vec![], &["PNG"]),
            ("gif.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;".to_vec(), &["expected a PNG, JPEG or PNM image"]),
            ("short.png", png[..png.len() / 2].to_vec(), &["expected a PNG image"]),
            ("header.png", png[..12].to_vec(), &["expected a PNG image"]),
            ("wide.png", absurd(1 << 30, 16), &["image"]),
            ("many.png", absurd(60_000, 60_000), &["60000x60000"]),
            ("bomb.png", absurd(16_000, 16_000), &["16000x16000 pixels", "far too few"]),
            ("short.jpg", jpeg[..jpeg.len() - 20].to_vec(), &["JPEG", "cut short"]),
            ("header.jpg", jpeg[..20].to_vec(), &["JPEG"]),
            ("short.pgm", pnm[..pnm.len() - 1].to_vec(), &["expected a PNM image"]),
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
