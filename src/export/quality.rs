//! How well reconstructions match their signals.

use burn::tensor::Tensor;

/// Smallest mean squared error that [`Quality`] tells apart from none: 100 dB.
const MIN_SQUARED_ERROR: f64 = 1e-10;

/// Sums over signals and their reconstructions, batch by batch.
#[derive(Debug, Clone)]
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
            let error: f64 = signal.iter().zip(reconstruction).map(|(y, x)| (y - x).powi(2)).sum();
            self.signals += 1;
            self.error += error;
            self.decibels += -10.0 * (error / len as f64).max(MIN_SQUARED_ERROR).log10();
            self.energy += signal.iter().map(|y| y * y).sum::<f64>();
            self.sums.iter_mut().zip(signal).for_each(|(sum, y)| *sum += y);
        }
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
