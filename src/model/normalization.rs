//! What is done to signals before they are coded, and undone in what comes out.

use crate::error::{Error, Result};
use crate::kernels::sparse::to_host;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named normalisation of each signal, stored in the model. Off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Normalization {
    /// Signals are coded as they come.
    #[default]
    None,
    /// The mean over all values of a signal is subtracted.
    Center,
    /// The mean is subtracted and the rest divided by its standard deviation (at least 0.01).
    Contrast,
    /// A smooth component is subtracted from every channel, which leaves edges and texture: (I + 5 GᵀG)⁻¹ along columns and along
    /// rows, G taking differences of neighbouring samples; borders are mirrored.
    HighPass,
}

/// Smallest standard deviation that [`Normalization::Contrast`] divides by: flat signals stay flat.
const MIN_DEVIATION: f32 = 1e-2;

/// Weight of the differences in [`Normalization::HighPass`], as is usual for pictures in convolutional sparse coding (B. Wohlberg,
/// "SPORCO: A Python package for standard and convolutional sparse representations", SciPy 2017). A sample's weight falls by a
/// factor of 0.64 with every sample of distance: what is wider than some eight samples is smooth.
const SMOOTHNESS: f64 = 5.0;

/// Per-signal offset and scale that undo a normalisation: x = scale·z + offset.
#[derive(Debug, Clone)]
pub struct Undo {
    /// One number a signal, `[n, 1, 1, 1]`, or signals.
    offset: Option<Tensor<4>>,
    scale: Option<Tensor<4>>,
}

impl Normalization {
    /// Normalises signals and returns what undoes it.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`, the same out.
    pub fn apply(self, signals: Tensor<4>) -> (Tensor<4>, Undo) {
        let (offset, scale) = match self {
            Self::None => (None, None),
            Self::Center => (Some(mean_per_signal(signals.clone())), None),
            Self::Contrast => {
                let mean = mean_per_signal(signals.clone());
                let power = mean_per_signal((signals.clone() - mean.clone()).square());
                (Some(mean), Some(power.sqrt().clamp_min(MIN_DEVIATION)))
            }
            Self::HighPass => (Some(smooth(signals.clone())), None),
        };
        let signals = offset.iter().fold(signals, |signals, offset| signals - offset.clone());
        let signals = scale.iter().fold(signals, |signals, scale| signals / scale.clone());
        (signals, Undo { offset, scale })
    }
}

impl Undo {
    /// Leaves signals as they are.
    pub fn nothing() -> Self {
        Self { offset: None, scale: None }
    }

    /// What brings signals back that were normalised as x = scale·z + mean, from one mean and one scale for each, or as
    /// x = scale·z + smooth, from smooth components `[n, channels, height, width]`, where there are any.
    ///
    /// # Errors
    /// Not as many scales or smooth components as means.
    pub fn from_parts(means: Vec<f32>, scales: Vec<f32>, smooth: Option<Tensor<4>>, device: &Device) -> Result<Self> {
        for (what, found) in
            [("scales", Some(scales.len())), ("smooth components", smooth.as_ref().map(|s| s.dims()[0]))]
        {
            if let Some(found) = found.filter(|found| *found != means.len()) {
                let expected = format!("{}, one a mean", means.len());
                return Err(Error::shape(format!("{what} of normalised signals"), expected, found));
            }
        }
        let rows = |values: Vec<f32>| {
            let dims = [values.len(), 1, 1, 1];
            Tensor::from_data(TensorData::new(values, dims), device)
        };
        let means = rows(means);
        let offset = match smooth {
            Some(smooth) => smooth + means,
            None => means,
        };
        Ok(Self { offset: Some(offset), scale: Some(rows(scales)) })
    }

    /// What undoes the normalisation of one signal of the batch.
    pub fn of_signal(&self, index: usize) -> Self {
        let one = |values: &Tensor<4>| values.clone().narrow(0, index, 1);
        Self { offset: self.offset.as_ref().map(one), scale: self.scale.as_ref().map(one) }
    }

    /// The mean that was taken from each of `count` signals; 0 where none was, or something smooth.
    pub fn means(&self, count: usize) -> Vec<f32> {
        match self.offset.as_ref().filter(|offset| is_per_signal(offset)) {
            Some(means) => to_host(means.clone()),
            None => vec![0.0; count],
        }
    }

    /// The smooth components that were taken from signals, `[n, channels, height, width]`, where they were.
    pub fn smooth(&self) -> Option<Tensor<4>> {
        self.offset.clone().filter(|offset| !is_per_signal(offset))
    }

    /// What errors of each of `count` coded signals are multiplied by when they are brought back to the scale of the signals.
    pub fn scales(&self, count: usize) -> Vec<f32> {
        match &self.scale {
            Some(deviation) => to_host(deviation.clone()),
            None => vec![1.0; count],
        }
    }

    /// Brings signals (or their reconstructions) back to the scale in which they came.
    ///
    /// # Shapes
    /// - signals: as they were given to [`Normalization::apply`].
    pub fn undo(&self, signals: Tensor<4>) -> Tensor<4> {
        let signals = self.scale.iter().fold(signals, |signals, scale| signals * scale.clone());
        self.offset.iter().fold(signals, |signals, offset| signals + offset.clone())
    }
}

/// Whether there is one number for each signal.
fn is_per_signal(values: &Tensor<4>) -> bool {
    values.dims()[1..] == [1; 3]
}

/// Mean of each signal, `[n, 1, 1, 1]`.
fn mean_per_signal(signals: Tensor<4>) -> Tensor<4> {
    let [count, channels, height, width] = signals.dims();
    signals.reshape([count, channels * height * width]).mean_dim(1).reshape([count, 1, 1, 1])
}

/// The smooth component of every channel of signals. On the host, in `f64`: a system is solved in a few operations a sample, and
/// memory grows with the signals alone. No gradient goes through it.
fn smooth(signals: Tensor<4>) -> Tensor<4> {
    let (dims, device) = (signals.dims(), signals.device());
    let [_, _, height, width] = dims;
    let (columns, rows) = (pivots(height), pivots(width));
    let mut values = to_host(signals);
    values.par_chunks_mut((height * width).max(1)).for_each(|plane| {
        let mut line = vec![0.0; height.max(width)];
        for row in 0..height {
            smooth_line(plane, row * width, 1, &rows, &mut line);
        }
        for column in 0..width {
            smooth_line(plane, column, width, &columns, &mut line);
        }
    });
    Tensor::from_data(TensorData::new(values, dims), &device)
}

/// Diagonal of I + 5 GᵀG for so many samples in a row after elimination from the first one on.
fn pivots(extent: usize) -> Vec<f64> {
    let mut pivots: Vec<f64> = Vec::with_capacity(extent);
    for index in 0..extent {
        let neighbours = usize::from(index > 0) + usize::from(index + 1 < extent);
        let eliminated = pivots.last().map_or(0.0, |pivot| SMOOTHNESS * SMOOTHNESS / pivot);
        pivots.push(1.0 + SMOOTHNESS * neighbours as f64 - eliminated);
    }
    pivots
}

/// Solves (I + 5 GᵀG) s = y in place for samples `step` apart, a tridiagonal system.
fn smooth_line(plane: &mut [f32], first: usize, step: usize, pivots: &[f64], line: &mut [f64]) {
    let mut before = 0.0;
    for (index, pivot) in pivots.iter().enumerate() {
        before = (f64::from(plane[first + index * step]) + SMOOTHNESS * before) / pivot;
        line[index] = before;
    }
    let mut after = 0.0;
    for (index, pivot) in pivots.iter().enumerate().rev() {
        after = line[index] + SMOOTHNESS * after / pivot;
        plane[first + index * step] = after as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_smooth_solves_its_equations() {
        for extent in [1, 2, 5, 40] {
            let y: Vec<f32> = (0..extent).map(|index| ((index * 37) % 11) as f32 / 5.0 - 1.0).collect();
            // As the second of two columns.
            let mut plane: Vec<f32> = y.iter().flat_map(|&value| [9.0, value]).collect();
            smooth_line(&mut plane, 1, 2, &pivots(extent), &mut vec![0.0; extent]);
            let at = |index: usize| f64::from(plane[2 * index + 1]);
            for (index, value) in y.iter().enumerate() {
                let neighbours = [index.wrapping_sub(1), index + 1].into_iter().filter(|other| *other < extent);
                let found = at(index) + neighbours.map(|other| SMOOTHNESS * (at(index) - at(other))).sum::<f64>();
                assert!((found - f64::from(*value)).abs() < 1e-5, "{extent}: {index} {found} {value}");
                assert_eq!(plane[2 * index], 9.0);
            }
        }
    }

    #[test]
    fn every_normalisation_is_undone() {
        let device = crate::device::named(None).unwrap();
        let values: Vec<f32> = (0..2 * 3 * 7 * 5).map(|index| ((index * 37) % 101) as f32 / 50.0 - 0.3).collect();
        let signals: Tensor<4> = Tensor::from_data(TensorData::new(values.clone(), [2, 3, 7, 5]), &device);
        for normalization in
            [Normalization::None, Normalization::Center, Normalization::Contrast, Normalization::HighPass]
        {
            let (normalized, undo) = normalization.apply(signals.clone());
            let parts = (undo.means(2), undo.scales(2), undo.smooth());
            assert_eq!(parts.2.is_some(), normalization == Normalization::HighPass);
            let again = Undo::from_parts(parts.0, parts.1, parts.2, &device).unwrap();
            for undo in [undo, again] {
                let back = to_host(undo.undo(normalized.clone()));
                let second = to_host(undo.of_signal(1).undo(normalized.clone().narrow(0, 1, 1)));
                assert!(back.iter().zip(&values).all(|(back, value)| (back - value).abs() < 1e-5), "{normalization:?}");
                assert!(second.iter().zip(&values[105..]).all(|(back, value)| (back - value).abs() < 1e-5));
            }
        }
        // Nothing is left of a flat channel, and an edge stays. Measured: ±0.391, and −0.012 at the border.
        let (flat, _) = Normalization::HighPass.apply(Tensor::ones([1, 2, 6, 9], &device) * 0.7);
        assert!(to_host(flat).iter().all(|value| value.abs() < 1e-6));
        let edge: Vec<f32> = (0..400).map(|index| f32::from(u8::from(index % 20 >= 10))).collect();
        let (edge, _) =
            Normalization::HighPass.apply(Tensor::from_data(TensorData::new(edge, [1, 1, 20, 20]), &device));
        let edge = to_host(edge);
        assert!(edge[10] > 0.38 && edge[9] < -0.38 && edge[0].abs() < 0.015, "{:?}", &edge[..20]);
    }
}
