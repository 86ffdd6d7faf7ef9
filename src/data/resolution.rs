//! How large a picture is meant to be shown: pixels a metre, as PNG (`pHYs`) and JPEG (JFIF) files say it.

use super::png::{AFTER_HEADER, chunk};
use image::ImageFormat;
use image::codecs::jpeg::{PixelDensity, PixelDensityUnit};

/// Inches in a metre.
const INCHES: f64 = 1.0 / 0.0254;

/// Most that PNG has room for.
const MOST: u64 = (1 << 31) - 1;

/// Pixels a metre, across and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolution([u32; 2]);

impl Resolution {
    /// What a file says, if it is of a format that does, and says it in metres or inches.
    pub fn of(format: ImageFormat, bytes: &[u8]) -> Option<Self> {
        let found = match format {
            ImageFormat::Png => of_png(bytes)?,
            ImageFormat::Jpeg => of_jpeg(bytes)?,
            _ => return None,
        };
        (found[0] > 0 && found[1] > 0).then_some(Self(found))
    }

    /// That of a picture with so many times as many pixels across and down.
    pub fn times(self, factor: usize) -> Self {
        Self(self.0.map(|density| (u64::from(density) * factor as u64).min(MOST) as u32))
    }

    /// A PNG file that says so.
    pub fn in_png(self, mut png: Vec<u8>) -> Vec<u8> {
        let [across, down] = self.0.map(u32::to_be_bytes);
        let content = [&across[..], &down[..], &[1]].concat();
        png.splice(AFTER_HEADER..AFTER_HEADER, chunk(b"pHYs", &content));
        png
    }

    /// The same for JPEG's encoder, in pixels an inch.
    pub fn in_jpeg(self) -> PixelDensity {
        let [across, down] = self.0.map(|density| (f64::from(density) / INCHES).round().clamp(1.0, 65_535.0) as u16);
        PixelDensity { density: (across, down), unit: PixelDensityUnit::Inches }
    }
}

fn of_png(bytes: &[u8]) -> Option<[u32; 2]> {
    let mut rest = bytes.get(AFTER_HEADER..)?;
    loop {
        let length = number(rest, 0)? as usize;
        let content = rest.get(8..8usize.checked_add(length)?)?;
        match &rest[4..8] {
            b"pHYs" => {
                return (content.get(8) == Some(&1)).then_some([number(content, 0)?, number(content, 4)?]);
            }
            b"IDAT" | b"IEND" => return None,
            _ => rest = rest.get(length.checked_add(12)?..)?,
        }
    }
}

fn of_jpeg(bytes: &[u8]) -> Option<[u32; 2]> {
    // JFIF's segment is the first one.
    let segment = bytes.get(2..18)?;
    if segment[..2] != [0xff, 0xe0] || segment[4..9] != *b"JFIF\0" {
        return None;
    }
    let density = |at: usize| f64::from(u16::from_be_bytes([segment[at], segment[at + 1]]));
    let to_metres = match segment[11] {
        1 => INCHES,
        2 => 100.0,
        _ => return None,
    };
    Some([density(12), density(14)].map(|density| (density * to_metres).round() as u32))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageEncoder;
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;

    #[test]
    fn what_is_written_is_read() {
        // 300 pixels an inch.
        let resolution = Resolution([11_811, 11_811]);
        let (mut png, mut jpeg) = (Vec::new(), Vec::new());
        PngEncoder::new(&mut png).write_image(&[0; 6], 3, 2, image::ExtendedColorType::L8).unwrap();
        assert_eq!(Resolution::of(ImageFormat::Png, &png), None);
        let png = resolution.in_png(png);
        assert_eq!(Resolution::of(ImageFormat::Png, &png), Some(resolution));
        assert!(image::load_from_memory(&png).is_ok());
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_pixel_density(resolution.in_jpeg());
        encoder.write_image(&[0; 6], 3, 2, image::ExtendedColorType::L8).unwrap();
        assert_eq!(Resolution::of(ImageFormat::Jpeg, &jpeg), Some(resolution));
        assert_eq!(resolution.times(2), Resolution([23_622; 2]));
        // What is cut short says nothing.
        assert!((0..AFTER_HEADER + 17).all(|cut| Resolution::of(ImageFormat::Png, &png[..cut]).is_none()));
        assert!((0..18).all(|cut| Resolution::of(ImageFormat::Jpeg, &jpeg[..cut]).is_none()));
    }
}
