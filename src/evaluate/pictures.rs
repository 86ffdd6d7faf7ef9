//! How close a picture is to a reference: PSNR and SSIM, defined as scikit-image defines them.

use crate::error::{Error, Result};

/// Side of SSIM's windows.
const WINDOW: usize = 7;

/// 10·log₁₀(range² / mean squared error) in decibels over all values; infinite for equal pictures (`peak_signal_noise_ratio`).
///
/// # Errors
/// Pictures of different lengths.
pub fn psnr(reference: &[f32], picture: &[f32], range: f32) -> Result<f64> {
    if reference.len() != picture.len() {
        return Err(Error::shape("reference", picture.len(), reference.len()));
    }
    let squared = reference.iter().zip(picture).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    Ok(10.0 * (f64::from(range).powi(2) / (squared.sum::<f64>() / reference.len() as f64)).log10())
}

/// Mean structural similarity over windows of 7×7 that lie inside of the picture, with unbiased variances, K₁ = 0.01 and K₂ = 0.03, mean
/// over channels (`structural_similarity` with its defaults; Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment: from
/// error visibility to structural similarity", IEEE Trans. Image Processing 13(4), 2004). `None` for pictures smaller than a window.
///
/// # Errors
/// Values that are not of pictures `[channels, height, width]`.
pub fn ssim(
    reference: &[f32],
    picture: &[f32],
    [channels, height, width]: [usize; 3],
    range: f32,
) -> Result<Option<f64>> {
    let len = channels * height * width;
    if reference.len() != len || picture.len() != len {
        return Err(Error::shape("reference", len, reference.len()));
    }
    if height < WINDOW || width < WINDOW || channels == 0 {
        return Ok(None);
    }
    let (c1, c2) = ((0.01 * f64::from(range)).powi(2), (0.03 * f64::from(range)).powi(2));
    let samples = (WINDOW * WINDOW) as f64;
    let unbiased = samples / (samples - 1.0);
    let (rows, columns) = (height + 1 - WINDOW, width + 1 - WINDOW);
    let mut total = 0.0;
    for (a, b) in reference.chunks_exact(height * width).zip(picture.chunks_exact(height * width)) {
        // Sums over the columns of a band of rows, which moves down; of x, y, x², y², xy.
        let mut bands = vec![[0.0f64; 5]; width];
        let terms = |place: usize| {
            let (x, y) = (f64::from(a[place]), f64::from(b[place]));
            [x, y, x * x, y * y, x * y]
        };
        for row in 0..rows {
            bands.iter_mut().enumerate().for_each(|(column, band)| {
                *band = [0.0; 5];
                for down in 0..WINDOW {
                    band.iter_mut().zip(terms((row + down) * width + column)).for_each(|(sum, term)| *sum += term);
                }
            });
            for band in bands.windows(WINDOW) {
                let mut means = [0.0; 5];
                band.iter().for_each(|band| means.iter_mut().zip(band).for_each(|(mean, sum)| *mean += sum / samples));
                let [x, y, xx, yy, xy] = means;
                let (vx, vy, vxy) = (unbiased * (xx - x * x), unbiased * (yy - y * y), unbiased * (xy - x * y));
                total += (2.0 * x * y + c1) * (2.0 * vxy + c2) / ((x * x + y * y + c1) * (vx + vy + c2));
            }
        }
    }
    Ok(Some(total / (channels * rows * columns) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that any language can make: fractional parts of multiples.
    fn pictures() -> (Vec<f32>, Vec<f32>) {
        let value = |place: usize, step: usize| ((place * step) % 251) as f32;
        let reference: Vec<f32> = (0..2 * 12 * 15).map(|place| value(place, 37)).collect();
        let picture = reference.iter().enumerate().map(|(place, &x)| 0.8 * x + 0.1 * value(place, 91)).collect();
        (reference, picture)
    }

    /// scikit-image 0.26.0: `peak_signal_noise_ratio(a, b, data_range=255)` and `structural_similarity(a, b, data_range=255,
    /// channel_axis=0)` of these pictures.
    #[test]
    fn they_are_scikit_images() {
        let (reference, picture) = pictures();
        assert!((psnr(&reference, &picture, 255.0).unwrap() - 21.890910748041).abs() < 1e-6);
        assert!((ssim(&reference, &picture, [2, 12, 15], 255.0).unwrap().unwrap() - 0.963081716344).abs() < 1e-6);
    }

    #[test]
    fn equal_pictures_are_equal() {
        let (reference, _) = pictures();
        assert_eq!(psnr(&reference, &reference, 1.0).unwrap(), f64::INFINITY);
        assert!((ssim(&reference, &reference, [2, 12, 15], 255.0).unwrap().unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(ssim(&[0.0; 6], &[0.0; 6], [1, 2, 3], 1.0).unwrap(), None);
        assert!(psnr(&[0.0; 6], &[0.0; 5], 1.0).is_err());
    }
}
