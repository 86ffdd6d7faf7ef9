//! What is done to signals before they are coded, and undone in what comes out.

use super::sparse::to_host;
use crate::error::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named normalisation of each signal, stored in the model. Off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Signals are coded as they come.
    #[default]
    None,
    /// The mean over all values of a signal is subtracted.
    Center,
    /// The mean is subtracted and the rest divided by its standard deviation (at least 0.01).
    Contrast,
}

/// Smallest standard deviation that [`Normalization::Contrast`] divides by: flat signals stay flat.
const MIN_DEVIATION: f32 = 1e-2;

/// Per-signal offset and scale that undo a normalisation.
#[derive(Debug, Clone)]
pub struct Undo(Option<(Tensor<4>, Option<Tensor<4>>)>);

impl Normalization {
    /// Normalises signals and returns what undoes it.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`, the same out.
    pub fn apply(self, signals: Tensor<4>) -> (Tensor<4>, Undo) {
        if self == Self::None {
            return (signals, Undo::nothing());
        }
        let mean = mean_per_signal(signals.clone());
        let centred = signals - mean.clone();
        match self {
            Self::Contrast => {
                let deviation = mean_per_signal(centred.clone().square()).sqrt().clamp_min(MIN_DEVIATION);
                (centred / deviation.clone(), Undo(Some((mean, Some(deviation)))))
            }
            _ => (centred, Undo(Some((mean, None)))),
        }
    }
}

impl Undo {
    /// Leaves signals as they are.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// What brings signals back that were normalised as y = scale·z + mean, from one mean and one scale for each.
    ///
    /// # Errors
    /// Not as many scales as means.
    pub fn from_parts(means: Vec<f32>, scales: Vec<f32>, device: &Device) -> Result<Self> {
        if means.len() != scales.len() {
            return Err(Error::shape(
                "scales of normalised signals",
                format!("{}, one a mean", means.len()),
                scales.len(),
            ));
        }
        let rows = |values: Vec<f32>| {
            let dims = [values.len(), 1, 1, 1];
            Tensor::from_data(TensorData::new(values, dims), device)
        };
        Ok(Self(Some((rows(means), Some(rows(scales))))))
    }

    /// What undoes the normalisation of one signal of the batch.
    pub fn of_signal(&self, index: usize) -> Self {
        let one = |values: &Tensor<4>| values.clone().narrow(0, index, 1);
        Self(self.0.as_ref().map(|(mean, deviation)| (one(mean), deviation.as_ref().map(one))))
    }

    /// The mean that was taken from each of `count` signals; 0 where none was.
    pub fn means(&self, count: usize) -> Vec<f32> {
        match &self.0 {
            Some((mean, _)) => to_host(mean.clone()),
            None => vec![0.0; count],
        }
    }

    /// What errors of each of `count` coded signals are multiplied by when they are brought back to the scale of the signals.
    pub fn scales(&self, count: usize) -> Vec<f32> {
        match &self.0 {
            Some((_, Some(deviation))) => to_host(deviation.clone()),
            _ => vec![1.0; count],
        }
    }

    /// Brings signals (or their reconstructions) back to the scale in which they came.
    ///
    /// # Shapes
    /// - signals: as they were given to [`Normalization::apply`].
    pub fn undo(&self, signals: Tensor<4>) -> Tensor<4> {
        match &self.0 {
            None => signals,
            Some((mean, None)) => signals + mean.clone(),
            Some((mean, Some(deviation))) => signals * deviation.clone() + mean.clone(),
        }
    }
}

/// Mean of each signal, `[n, 1, 1, 1]`.
fn mean_per_signal(signals: Tensor<4>) -> Tensor<4> {
    let [count, channels, height, width] = signals.dims();
    signals.reshape([count, channels * height * width]).mean_dim(1).reshape([count, 1, 1, 1])
}
