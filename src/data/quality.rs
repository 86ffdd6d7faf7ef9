//! How well reconstructions match their signals.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Smallest mean squared error that [`Quality`] tells apart from none: 100 dB.
const MIN_SQUARED_ERROR: f64 = 1e-10;

/// Magnitude up to which values may have a peak of 1, noise and all.
const BEYOND_PEAK: f64 = 4.0;

/// Sums over signals and their reconstructions, batch by batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    signals: usize,
    #[serde(with = "crate::exact::number")]
    decibels: f64,
    #[serde(with = "crate::exact::number")]
    error: f64,
    /// The mean signal so far.
    #[serde(with = "crate::exact::numbers")]
    mean: Vec<f64>,
    /// Σ‖y − ȳ‖² so far. Kept up to date (B. Welford, 1962): the difference of Σ‖y‖² and n‖ȳ‖² has no digits left where signals lie
    /// far from zero.
    #[serde(with = "crate::exact::number")]
    variance: f64,
    /// Largest magnitude of a signal's value, in the scale in which their peak is 1.
    #[serde(with = "crate::exact::number", default)]
    largest: f64,
}

impl Quality {
    /// For signals of `len` values.
    pub fn new(len: usize) -> Self {
        Self { signals: 0, decibels: 0.0, error: 0.0, mean: vec![0.0; len], variance: 0.0, largest: 0.0 }
    }

    /// Takes a batch into account.
    ///
    /// # Shapes
    /// - signals, reconstructions: `[n, channels, height, width]`.
    ///
    /// # Panics
    /// If a signal has another number of values than was announced.
    pub fn add(&mut self, signals: &Tensor<4>, reconstructions: &Tensor<4>) {
        let host =
            |tensor: &Tensor<4>| crate::device::read(tensor.clone()).iter::<f32>().map(f64::from).collect::<Vec<f64>>();
        let len = self.mean.len();
        let (signals, reconstructions) = (host(signals), host(reconstructions));
        assert_eq!(signals.len() % len, 0, "values of whole signals");
        for (signal, reconstruction) in signals.chunks_exact(len).zip(reconstructions.chunks_exact(len)) {
            let error = signal.iter().zip(reconstruction).map(|(y, x)| (y - x).powi(2)).sum();
            self.add_error(signal.iter().copied(), error, 1.0);
        }
    }

    /// Takes a signal into account whose reconstruction misses it by the squared error ‖y − x‖² = `error`.
    ///
    /// `scale` is what signals are multiplied by to bring them back to the scale in which their peak is 1.
    pub fn add_error(&mut self, signal: impl Iterator<Item = f64>, error: f64, scale: f64) {
        let mean = error * scale * scale / self.mean.len() as f64;
        self.signals += 1;
        self.error += error;
        // NaN stays NaN, which `max` would turn into the smallest error.
        self.decibels += -10.0 * if mean < MIN_SQUARED_ERROR { MIN_SQUARED_ERROR } else { mean }.log10();
        let count = self.signals as f64;
        for (mean, value) in self.mean.iter_mut().zip(signal) {
            self.largest = self.largest.max(value.abs() * scale);
            let before = value - *mean;
            *mean += before / count;
            self.variance += before * (value - *mean);
        }
    }

    /// Adds the sums over other signals.
    pub fn merge(&mut self, other: &Self) {
        if other.signals == 0 {
            return;
        }
        let [own, others] = [self.signals as f64, other.signals as f64];
        let weight = others / (own + others);
        for (mean, other) in self.mean.iter_mut().zip(&other.mean) {
            let apart = other - *mean;
            *mean += apart * weight;
            self.variance += apart * apart * own * weight;
        }
        self.variance += other.variance;
        self.signals += other.signals;
        self.decibels += other.decibels;
        self.largest = self.largest.max(other.largest);
        self.error += other.error;
    }

    /// All sums but [`Self::largest`] as numbers in a row.
    pub(crate) fn to_values(&self) -> Vec<f64> {
        [&[self.signals as f64, self.decibels, self.error, self.variance], &self.mean[..]].concat()
    }

    /// The inverse of [`Self::to_values`].
    pub(crate) fn from_values(values: &[f64]) -> Option<Self> {
        let (&[signals, decibels, error, variance], mean) = values.split_first_chunk()?;
        Some(Self { signals: signals as usize, decibels, error, mean: mean.to_vec(), variance, largest: 0.0 })
    }

    /// Largest magnitude of a signal's value, in the scale in which their peak is 1.
    pub(crate) fn largest(&self) -> f64 {
        self.largest
    }

    /// The same with that largest magnitude.
    pub(crate) fn with_largest(self, largest: f64) -> Self {
        Self { largest, ..self }
    }

    /// Values of a signal.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) fn values(&self) -> usize {
        self.mean.len()
    }

    /// Number of signals.
    pub fn signals(&self) -> usize {
        self.signals
    }

    /// Peak signal-to-noise ratio in decibels, mean over the signals: 10·log₁₀(peak² / mean squared error) with a peak of 1,
    /// 100 dB at most. `None` without signals, and where their values are far beyond such a peak, as those of integers from 0 to 255 are.
    pub fn psnr(&self) -> Option<f64> {
        (self.signals > 0 && self.largest <= BEYOND_PEAK).then(|| self.decibels / self.signals as f64)
    }

    /// Fraction of variance unexplained: Σ‖y − x‖² / Σ‖y − ȳ‖² with ȳ the mean signal. `None` where signals don't vary, as a
    /// single one.
    pub fn variance_unexplained(&self) -> Option<f64> {
        // Equal signals leave it at zero exactly.
        (self.variance > 0.0).then(|| self.error / self.variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn agrees_with_the_definitions() {
        let tensor = |values: [f32; 4]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [2, 1, 1, 2]), &crate::device::named(None).unwrap())
        };
        let mut quality = Quality::new(2);
        assert_eq!((quality.psnr(), quality.variance_unexplained()), (None, None));
        quality.add(&tensor([0.0, 1.0, 1.0, 1.0]), &tensor([0.1, 1.0, 1.0, 0.8]));
        // Mean squared errors 0.005 and 0.02; the only variance is in the first sample, 2·0.5².
        let expected = -5.0 * (0.005f64.log10() + 0.02f64.log10());
        assert!((quality.psnr().unwrap() - expected).abs() < 1e-5);
        assert!((quality.variance_unexplained().unwrap() - 0.05 / 0.5).abs() < 1e-6);
        let mut bytes = Quality::new(2);
        bytes.add_error([0.0, 255.0].into_iter(), 1.0, 1.0);
        assert_eq!(bytes.psnr(), None);
        bytes.merge(&quality);
        assert_eq!(bytes.psnr(), None);
        // Where they are brought to a peak of 1 there is.
        let mut scaled = Quality::new(2);
        scaled.add_error([0.0, 255.0].into_iter(), 1.0, 1.0 / 255.0);
        assert!((scaled.psnr().unwrap() - 20.0 * 255f64.log10() - 10.0 * 2f64.log10()).abs() < 1e-9);
        // Nothing is better than 100 dB.
        let mut exact = Quality::new(4);
        let signal = tensor([0.5; 4]).reshape([1, 1, 2, 2]);
        exact.add(&signal, &signal);
        assert!((exact.psnr().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(exact.variance_unexplained(), None);
        let mut broken = Quality::new(1);
        broken.add_error([0.0].into_iter(), f64::NAN, 1.0);
        broken.add_error([1.0].into_iter(), 0.0, 1.0);
        assert!(broken.psnr().unwrap().is_nan() && broken.variance_unexplained().unwrap().is_nan());
    }

    /// Values of 1, 2, 3, … around an offset, each missed by 0.1: the variance does not depend on the offset.
    #[test]
    fn an_offset_changes_nothing() {
        for offset in [0.0, 1e3, 1e6, 1e9] {
            let mut parts = [Quality::new(2), Quality::new(2), Quality::new(2), Quality::new(2)];
            for index in 0..40 {
                let value = offset + f64::from(index);
                parts[index as usize % 3].add_error([value, offset].into_iter(), 0.01, 1.0);
            }
            let mut all = Quality::new(2);
            parts.iter().for_each(|part| all.merge(part));
            // Σ(k − 19.5)² = n(n² − 1)/12.
            let expected = 40.0 * 0.01 / (40.0 * (1600.0 - 1.0) / 12.0);
            let found = all.variance_unexplained().unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "{offset}: {found} {expected}");
            assert_eq!(Quality::from_values(&all.to_values()).unwrap().with_largest(all.largest()), all);
            // Far beyond a peak of 1 there is no ratio to it.
            assert_eq!(all.psnr().is_some(), offset + 39.0 <= BEYOND_PEAK);
        }
        let mut same = [Quality::new(1), Quality::new(1)];
        for index in 0..1001 {
            same[index % 2].add_error([0.1].into_iter(), 0.5, 1.0);
        }
        let [mut all, other] = same;
        all.merge(&other);
        assert_eq!((all.signals(), all.variance_unexplained()), (1001, None));
    }
}
