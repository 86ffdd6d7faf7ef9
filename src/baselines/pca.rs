//! Principal components: the best linear code of so many dimensions, and a floor for everything that is not linear.
//!
//! Found by orthogonal iteration on the covariance of centred signals (H. Hotelling, 1933; G. Golub, C. Van Loan, "Matrix Computations", section 8.2).

use super::layers::{check_units, rows, shaped, units_shape};
use crate::autoencoder::Autoencoder;
use crate::data::Source;
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use crate::random::{Purpose, stream, uniform};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Largest number of signal values for which the covariance is formed (2¹³).
pub const MAX_VALUES: usize = 1 << 13;

/// Steps of orthogonal iteration, and dimensions beyond those that are asked for: together they let neighbouring eigenvalues drift
/// apart.
const ITERATIONS: usize = 60;
const OVERSAMPLING: usize = 16;

/// Settings of [`PrincipalComponents`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrincipalComponentsConfig {
    /// Components, at least 1; no more than there are signal values are found. Default 40.
    pub units: usize,
}

impl Default for PrincipalComponentsConfig {
    fn default() -> Self {
        Self { units: 40 }
    }
}

impl PrincipalComponentsConfig {
    /// The components of training signals, the one of largest variance first.
    ///
    /// # Errors
    /// No units, no signals, signals of more than [`MAX_VALUES`] values; signals that cannot be read.
    pub fn fit(&self, source: &dyn Source, device: &Device) -> Result<PrincipalComponents> {
        check_units(self.units)?;
        let (signal, len) = (source.shape(), source.shape().len());
        if source.is_empty() {
            return Err(Error::shape(format!("signals of {}", source.describe()), "at least one", 0));
        }
        if len > MAX_VALUES {
            return Err(Error::shape("signals for principal components", format!("at most {MAX_VALUES} values"), len));
        }
        const BATCH: usize = 1024;
        let count = source.len();
        let mut mean = vec![0.0f64; len];
        for start in (0..count).step_by(BATCH) {
            for signal in read(source, start..(start + BATCH).min(count))?.chunks_exact(len) {
                mean.iter_mut().zip(signal).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        // Centred before they are multiplied: from products of values far from zero no digit of the covariance would be left.
        let mut covariance = vec![0.0f64; len * len];
        for start in (0..count).step_by(BATCH) {
            let mut values = read(source, start..(start + BATCH).min(count))?;
            for signal in values.chunks_exact_mut(len) {
                signal.iter_mut().zip(&mean).for_each(|(value, mean)| *value = (f64::from(*value) - mean) as f32);
            }
            let size = values.len() / len;
            let batch = Tensor::<2>::from_data(TensorData::new(values, [size, len]), device);
            let products = to_host(product(batch.clone().transpose(), batch));
            covariance.iter_mut().zip(products).for_each(|(sum, product)| *sum += f64::from(product));
        }
        let covariance: Vec<f32> = covariance.into_iter().map(|sum| (sum / count as f64) as f32).collect();
        let covariance = Tensor::<2>::from_data(TensorData::new(covariance, [len, len]), device);
        let units = self.units.min(len);
        let width = (units + OVERSAMPLING).min(len);
        let start = uniform(&mut stream(0, Purpose::Weights, 0), width * len, 1.0);
        let mut basis = orthonormal(start, len);
        for _ in 0..ITERATIONS {
            let rows = Tensor::<2>::from_data(TensorData::new(basis, [width, len]), device);
            basis = orthonormal(to_host(product(rows, covariance.clone())), len);
        }
        basis.truncate(units * len);
        let components = Tensor::from_data(TensorData::new(basis, [units, len]), device);
        let mean: Vec<f32> = mean.into_iter().map(|mean| mean as f32).collect();
        Ok(PrincipalComponents {
            components: Param::from_tensor(components),
            mean: Param::from_tensor(Tensor::from_data(TensorData::new(mean, [len]), device)),
            signal,
        })
    }
}

/// Some signals, one after the other.
fn read(source: &dyn Source, indices: std::ops::Range<usize>) -> Result<Vec<f32>> {
    let indices: Vec<usize> = indices.collect();
    let mut values = vec![0.0; indices.len() * source.shape().len()];
    source.read(&indices, &mut values)?;
    Ok(values)
}

/// Rows made orthonormal, one after the other, twice for the sake of rounding; a row that lies in the span of those before becomes
/// zero.
fn orthonormal(rows: Vec<f32>, len: usize) -> Vec<f32> {
    let mut rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
    for index in 0..rows.len() / len {
        let (before, rest) = rows.split_at_mut(index * len);
        let row = &mut rest[..len];
        let norm = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>().sqrt();
        let original = norm(row);
        for _ in 0..2 {
            for other in before.chunks_exact(len) {
                let inner: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(value, other)| *value -= inner * other);
            }
        }
        let left = norm(row);
        let scale = if left > 1e-9 * original { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|value| *value *= scale);
    }
    rows.into_iter().map(|value| value as f32).collect()
}

/// Principal components.
#[derive(Module, Debug)]
pub struct PrincipalComponents {
    /// Orthonormal rows, `[components, signal values]`.
    pub components: Param<Tensor<2>>,
    /// The mean signal, `[signal values]`.
    pub mean: Param<Tensor<1>>,
    #[module(skip)]
    signal: SignalShape,
}

impl Autoencoder for PrincipalComponents {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        units_shape(self.components.val().dims()[0])
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let centred = rows("signals", self.signal, signals)? - self.mean.val().unsqueeze();
        Ok(shaped(product(centred, self.components.val().transpose()), self.code()))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        let synthesized = product(rows("codes", self.code(), codes)?, self.components.val());
        Ok(shaped(synthesized + self.mean.val().unsqueeze(), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.components.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// Vectors whose values have deviations 1, 1/2, …, 1/8, turned, far from zero.
    struct Cloud {
        values: Vec<f32>,
    }

    const LEN: usize = 8;

    impl Cloud {
        fn new(offset: f64) -> Self {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
            let mut values = Vec::new();
            for _ in 0..3000 {
                let own: Vec<f64> = (0..LEN)
                    .map(|index| (0..12).map(|_| random.random::<f64>() - 0.5).sum::<f64>() / (index + 1) as f64)
                    .collect();
                // A reflection, I − 2uuᵀ with all u alike.
                let mean = own.iter().sum::<f64>() / LEN as f64;
                values.extend(own.iter().map(|value| (value - 2.0 * mean + offset) as f32));
            }
            Self { values }
        }
    }

    impl Source for Cloud {
        fn len(&self) -> usize {
            self.values.len() / LEN
        }

        fn shape(&self) -> SignalShape {
            SignalShape::new(LEN, 1, 1)
        }

        fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
            for (&index, out) in indices.iter().zip(out.chunks_exact_mut(LEN)) {
                out.copy_from_slice(&self.values[index * LEN..][..LEN]);
            }
            Ok(())
        }

        fn describe(&self) -> String {
            "a cloud".into()
        }
    }

    /// What three components leave does not depend on where the data lie, but for the rounding of the data themselves, of which the
    /// spacing is 2⁻¹⁰ at 10,000.
    #[test]
    fn an_offset_changes_nothing() {
        let device = crate::device::named(None).unwrap();
        let found = [0.0, 100.0, 1000.0, 10_000.0].map(|offset| {
            let cloud = Cloud::new(offset);
            let pca = PrincipalComponentsConfig { units: 3 }.fit(&cloud, &device).unwrap();
            let found = crate::autoencoder::diagnostics::diagnose(&pca, &cloud, 500, &device, |_| true);
            found.unwrap().unwrap().fvu.unwrap()
        });
        // Eigenvalues 1/k²: those of the five that are left, up to sampling. Measured: 0.002 off, and 4e-6 by offsets.
        let part = |from: usize| (from..=LEN).map(|index| 1.0 / (index * index) as f64).sum::<f64>();
        assert!((found[0] - part(4) / part(1)).abs() < 0.005, "{found:?}");
        assert!(found.iter().all(|fvu| (fvu - found[0]).abs() < 2e-5), "{found:?}");
    }
}
