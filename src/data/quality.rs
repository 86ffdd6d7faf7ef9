//! How well reconstructions match their signals.

use burn::tensor::Tensor;

/// Smallest mean squared error that [`Quality`] tells apart from none: 100 dB.
const MIN_SQUARED_ERROR: f64 = 1e-10;

/// Sums over signals and their reconstructions, batch by batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    signals: usize,
    decibels: f64,
    error: f64,
    /// Per sample of the signal.
    sums: Vec<f64>,
    energy: f64,
}

impl Quality {
    /// For signals of `len` values.
    pub fn new(len: usize) -> Self {
        Self { signals: 0, decibels: 0.0, error: 0.0, sums: vec![0.0; len], energy: 0.0 }
    }

    /// Takes a batch into account.
    ///
    /// # Shapes
    /// - signals, reconstructions: `[n, channels, height, width]`.
    ///
    /// # Panics
    /// If a signal has another number of values than was announced.
    pub fn add(&mut self, signals: &Tensor<4>, reconstructions: &Tensor<4>) {
        let host = |tensor: &Tensor<4>| tensor.to_data().iter::<f32>().map(f64::from).collect::<Vec<f64>>();
        let len = self.sums.len();
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
        let mean = error * scale * scale / self.sums.len() as f64;
        self.signals += 1;
        self.error += error;
        self.decibels += -10.0 * mean.max(MIN_SQUARED_ERROR).log10();
        for (sum, value) in self.sums.iter_mut().zip(signal) {
            *sum += value;
            self.energy += value * value;
        }
    }

    /// Adds the sums over other signals.
    pub fn merge(&mut self, other: &Self) {
        self.signals += other.signals;
        self.decibels += other.decibels;
        self.error += other.error;
        self.energy += other.energy;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum += other);
    }

    /// All sums as numbers in a row.
    pub(crate) fn to_values(&self) -> Vec<f64> {
        [&[self.signals as f64, self.decibels, self.error, self.energy], &self.sums[..]].concat()
    }

    /// The inverse of [`Self::to_values`].
    pub(crate) fn from_values(values: &[f64]) -> Option<Self> {
        let (&[signals, decibels, error, energy], sums) = values.split_first_chunk()?;
        Some(Self { signals: signals as usize, decibels, error, sums: sums.to_vec(), energy })
    }

    /// Values of a signal.
    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    /// Number of signals.
    pub fn signals(&self) -> usize {
        self.signals
    }

    /// Peak signal-to-noise ratio in decibels, mean over the signals: 10·log₁₀(peak² / mean squared error) with a peak of 1,
    /// 100 dB at most. `None` without signals.
    pub fn psnr(&self) -> Option<f64> {
        (self.signals > 0).then(|| self.decibels / self.signals as f64)
    }

    /// Fraction of variance unexplained: Σ‖y − x‖² / Σ‖y − ȳ‖² with ȳ the mean signal. `None` where signals don't vary, as a
    /// single one.
    pub fn variance_unexplained(&self) -> Option<f64> {
        let mean_energy: f64 = self.sums.iter().map(|sum| sum * sum).sum::<f64>() / self.signals.max(1) as f64;
        let variance = self.energy - mean_energy;
        // Below this the variance is rounding of the two sums.
        (variance > 1e-12 * self.energy).then(|| self.error / variance)
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
        // Nothing is better than 100 dB.
        let mut exact = Quality::new(4);
        let signal = tensor([0.5; 4]).reshape([1, 1, 2, 2]);
        exact.add(&signal, &signal);
        assert!((exact.psnr().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(exact.variance_unexplained(), None);
    }
}
