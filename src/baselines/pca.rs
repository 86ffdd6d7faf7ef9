//! Principal components: the best linear code of so many dimensions, and a floor for everything that is not linear.
//!
//! Found by orthogonal iteration on the covariance (H. Hotelling, 1933; G. Golub, C. Van Loan, "Matrix Computations", section 8.2).

use super::layers::{check_units, rows, shaped, units_shape};
use crate::autoencoder::Autoencoder;
use crate::data::Source;
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
use crate::model::sparse::to_host;
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
        let (mut sum, mut products) = (Tensor::<2>::zeros([1, len], device), Tensor::<2>::zeros([len, len], device));
        for start in (0..source.len()).step_by(BATCH) {
            let indices: Vec<usize> = (start..(start + BATCH).min(source.len())).collect();
            let mut values = vec![0.0; indices.len() * len];
            source.read(&indices, &mut values)?;
            let batch = Tensor::<2>::from_data(TensorData::new(values, [indices.len(), len]), device);
            sum = sum + batch.clone().sum_dim(0);
            products = products + batch.clone().transpose().matmul(batch);
        }
        let count = source.len() as f32;
        let mean = sum / count;
        let covariance = products / count - mean.clone().transpose().matmul(mean.clone());
        let units = self.units.min(len);
        let width = (units + OVERSAMPLING).min(len);
        let start = uniform(&mut stream(0, Purpose::Weights, 0), width * len, 1.0);
        let mut basis = orthonormal(start, len);
        for _ in 0..ITERATIONS {
            let rows = Tensor::<2>::from_data(TensorData::new(basis, [width, len]), device);
            basis = orthonormal(to_host(rows.matmul(covariance.clone())), len);
        }
        basis.truncate(units * len);
        let components = Tensor::from_data(TensorData::new(basis, [units, len]), device);
        Ok(PrincipalComponents {
            components: Param::from_tensor(components),
            mean: Param::from_tensor(mean.squeeze_dim(0)),
            signal,
        })
    }
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
        Ok(shaped(centred.matmul(self.components.val().transpose()), self.code()))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        let painted = rows("codes", self.code(), codes)?.matmul(self.components.val());
        Ok(shaped(painted + self.mean.val().unsqueeze(), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.components.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}
