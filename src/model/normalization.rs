//! What is done to signals before they are coded, and undone in what comes out.
//!
//! [`Normalization`] is the name of it, which stands in configurations. Some kinds need nothing but the signal itself. Others take the
//! same off every signal: these are fitted to the training signals once, and what was found, [`ChannelStatistics`], is stored in the model.
//! Statistics are those of channels, over all positions, so that a model can be applied to signals of other sizes; of vectors (d
//! channels, 1×1) every value has its own.

use crate::error::{Error, Result};
use crate::kernels::sparse::to_host;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A named normalisation of signals, stored in the model. Off by default.
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
    /// The mean is subtracted and the rest divided by its standard deviation, which counts as at least 0.01, or as 0.01 of the signal's largest
    /// magnitude where that is less: what hardly varies stays flat.
    Contrast,
    /// A smooth component is subtracted from every channel, which leaves edges and texture: (I + 5 GᵀG)⁻¹ along columns and along
    /// rows, G taking differences of neighbouring samples; borders are mirrored.
    HighPass,
    /// The mean of the training signals is subtracted, channel by channel: what sparse auto-encoders learn as the decoder's bias.
    Mean,
    /// The same, and all is divided by one number, so that training signals have a root mean square length of √(values of a signal).
    MeanAndScale,
    /// The mean of the training signals is subtracted and the rest divided by their standard deviation, channel by channel; channels that
    /// don't vary are not divided.
    Standardise,
}

/// Smallest standard deviation that [`Normalization::Contrast`] divides by, of signals of magnitudes below 1 as a part of the largest.
const MIN_DEVIATION: f32 = 1e-2;

/// Magnitude below which a signal counts as zero there.
const NOTHING: f32 = 1e-30;

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
    /// What all signals have in common.
    channels: Option<Arc<ChannelStatistics>>,
}

impl Normalization {
    /// Whether it is fitted to the training signals, so that the model stores [`ChannelStatistics`] with it.
    pub fn is_fitted(self) -> bool {
        matches!(self, Self::Mean | Self::MeanAndScale | Self::Standardise)
    }
}

/// Mean and scale of every channel of training signals: x is coded as (x − `mean`)/`scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelStatistics {
    /// What is subtracted, one finite number for each channel.
    pub mean: Vec<f32>,
    /// What the rest is divided by, one positive number for each channel.
    pub scale: Vec<f32>,
}

impl ChannelStatistics {
    /// A mean that is subtracted, and nothing else.
    pub fn of_mean(mean: Vec<f32>) -> Self {
        Self { scale: vec![1.0; mean.len()], mean }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// Not one number a channel; a mean that is not finite; a scale that is not positive.
    pub fn check(&self, channels: usize) -> Result<()> {
        for (name, values) in [("mean", &self.mean), ("scale", &self.scale)] {
            if values.len() != channels {
                let expected = format!("{channels} numbers, one for each channel");
                return Err(Error::parameter(format!("statistics.{name}"), values.len(), expected));
            }
        }
        if let Some(value) = self.mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::parameter("statistics.mean", value, "finite numbers"));
        }
        match self.scale.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
            Some(value) => Err(Error::parameter("statistics.scale", value, "positive numbers")),
            None => Ok(()),
        }
    }

    /// The same, `[1, channels, 1, 1]` each.
    fn tensors(&self, device: &Device) -> [Tensor<4>; 2] {
        [&self.mean, &self.scale]
            .map(|values| Tensor::from_data(TensorData::new(values.clone(), [1, values.len(), 1, 1]), device))
    }
}

/// Sums over signals that a fitted normalisation follows from.
#[derive(Debug, Clone)]
pub struct ChannelSums {
    /// Close to the mean, so that nothing is lost where signals lie far from zero.
    shift: Vec<f64>,
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl ChannelSums {
    /// Of nothing yet, `like` being any signal, `[channels, positions]`.
    pub fn new(channels: usize, like: &[f32]) -> Self {
        let positions = (like.len() / channels.max(1)).max(1);
        let mean = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        let shift = like.chunks_exact(positions).map(mean).collect();
        Self { shift, count: 0.0, sums: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Takes a signal into account, `[channels, positions]`.
    pub fn add(&mut self, signal: &[f32]) {
        let positions = (signal.len() / self.shift.len().max(1)).max(1);
        self.count += positions as f64;
        let sums = self.sums.iter_mut().zip(&mut self.squares).zip(&self.shift);
        for (((sum, square), shift), values) in sums.zip(signal.chunks_exact(positions)) {
            for value in values {
                let value = f64::from(*value) - shift;
                *sum += value;
                *square += value * value;
            }
        }
    }

    /// What a normalisation stores; `None` for one that stores nothing. Signals that are all the same are only centred.
    pub fn statistics(&self, normalization: Normalization) -> Option<ChannelStatistics> {
        if !normalization.is_fitted() {
            return None;
        }
        let count = self.count.max(1.0);
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / count).collect();
        let variances = self.squares.iter().zip(&mean).map(|(square, mean)| (square / count - mean * mean).max(0.0));
        let deviations: Vec<f64> = variances.map(f64::sqrt).collect();
        let largest = deviations.iter().copied().fold(0.0, f64::max);
        let or_one = |scale: f64| if scale > f64::from(f32::MIN_POSITIVE) { scale as f32 } else { 1.0 };
        let scale = match normalization {
            Normalization::MeanAndScale => {
                let mean_square =
                    deviations.iter().map(|value| value * value).sum::<f64>() / deviations.len().max(1) as f64;
                vec![or_one(mean_square.sqrt()); mean.len()]
            }
            Normalization::Standardise => {
                let scale = |deviation: &f64| if *deviation > CONSTANT * largest { or_one(*deviation) } else { 1.0 };
                deviations.iter().map(scale).collect()
            }
            _ => vec![1.0; mean.len()],
        };
        let mean = mean.iter().zip(&self.shift).map(|(mean, shift)| (mean + shift) as f32).collect();
        Some(ChannelStatistics { mean, scale })
    }
}

/// Part of the largest standard deviation of a channel up to which another's is rounding.
const CONSTANT: f64 = 1e-6;

/// A normalisation with what it needs: [`ModelConfig::normalizer`](super::ModelConfig::normalizer) makes one.
#[derive(Debug, Clone)]
pub struct Normalizer {
    kind: Normalization,
    statistics: Option<Arc<ChannelStatistics>>,
}

impl Normalizer {
    /// A normalisation with what it was fitted to; without statistics a fitted one does nothing.
    pub(super) fn new(kind: Normalization, statistics: Option<ChannelStatistics>) -> Self {
        Self { kind, statistics: statistics.filter(|_| kind.is_fitted()).map(Arc::new) }
    }

    /// Its name.
    pub fn kind(&self) -> Normalization {
        self.kind
    }

    /// Normalises signals and returns what undoes it.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`, the same out.
    pub fn apply(&self, signals: Tensor<4>) -> (Tensor<4>, Undo) {
        let (offset, scale) = match self.kind {
            Normalization::Center => (Some(mean_per_signal(signals.clone())), None),
            Normalization::Contrast => {
                let mean = mean_per_signal(signals.clone());
                let [count, channels, height, width] = signals.dims();
                let largest = signals.clone().abs().reshape([count, channels * height * width]).max_dim(1);
                let largest = largest.reshape([count, 1, 1, 1]);
                let largest = largest.clamp_min(NOTHING);
                // In parts of it, since squares of small values vanish.
                let power = mean_per_signal(((signals.clone() - mean.clone()) / largest.clone()).square());
                (Some(mean), Some((power.sqrt() * largest.clone()).max_pair(largest.clamp_max(1.0) * MIN_DEVIATION)))
            }
            Normalization::HighPass => (Some(smooth(signals.clone())), None),
            _ => (None, None),
        };
        let signals = offset.iter().fold(signals, |signals, offset| signals - offset.clone());
        let signals = scale.iter().fold(signals, |signals, scale| signals / scale.clone());
        let signals = match &self.statistics {
            Some(statistics) => {
                let [mean, scale] = statistics.tensors(&signals.device());
                (signals - mean) / scale
            }
            None => signals,
        };
        (signals, Undo { offset, scale, channels: self.statistics.clone() })
    }
}

impl Undo {
    /// Leaves signals as they are.
    pub fn nothing() -> Self {
        Self { offset: None, scale: None, channels: None }
    }

    /// What brings signals back that were normalised by these statistics.
    pub fn from_channels(statistics: ChannelStatistics) -> Self {
        Self { channels: Some(Arc::new(statistics)), ..Self::nothing() }
    }

    /// The statistics that all signals were normalised by, where that was so.
    pub fn channels(&self) -> Option<&ChannelStatistics> {
        self.channels.as_deref()
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
        Ok(Self { offset: Some(offset), scale: Some(rows(scales)), channels: None })
    }

    /// For how many signals it is, where each has a mean, a scale or a smooth component of its own.
    pub fn count(&self) -> Option<usize> {
        self.offset.iter().chain(&self.scale).map(|values| values.dims()[0]).next()
    }

    /// What undoes the normalisation of one signal of the batch.
    pub fn of_signal(&self, index: usize) -> Self {
        let one = |values: &Tensor<4>| values.clone().narrow(0, index, 1);
        let (offset, scale) = (self.offset.as_ref().map(one), self.scale.as_ref().map(one));
        Self { offset, scale, channels: self.channels.clone() }
    }

    /// The mean that was taken from each of `count` signals; 0 where none was, or something smooth, or the mean of other signals.
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

    /// What errors of each of `count` coded signals are multiplied by when they are brought back to the scale of the signals; where
    /// channels have scales of their own, their root mean square.
    pub fn error_scales(&self, count: usize) -> Vec<f32> {
        match &self.channels {
            Some(statistics) => {
                let squares = statistics.scale.iter().map(|scale| f64::from(*scale).powi(2)).sum::<f64>();
                vec![(squares / statistics.scale.len().max(1) as f64).sqrt() as f32; count]
            }
            None => self.scales(count),
        }
    }

    /// What each of `count` signals alone was divided by; 1 where it was not.
    pub fn scales(&self, count: usize) -> Vec<f32> {
        match &self.scale {
            Some(deviation) => to_host(deviation.clone()),
            None => vec![1.0; count],
        }
    }

    /// Brings signals (or their reconstructions) back to the scale in which they came.
    ///
    /// # Shapes
    /// - signals: as they were given to [`Normalizer::apply`].
    pub fn undo(&self, signals: Tensor<4>) -> Tensor<4> {
        let signals = match &self.channels {
            Some(statistics) => {
                let [mean, scale] = statistics.tensors(&signals.device());
                signals * scale + mean
            }
            None => signals,
        };
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
            let (normalized, undo) = Normalizer::new(normalization, None).apply(signals.clone());
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
        let high_pass = Normalizer::new(Normalization::HighPass, None);
        let (flat, _) = high_pass.apply(Tensor::ones([1, 2, 6, 9], &device) * 0.7);
        assert!(to_host(flat).iter().all(|value| value.abs() < 1e-6));
        let edge: Vec<f32> = (0..400).map(|index| f32::from(u8::from(index % 20 >= 10))).collect();
        let (edge, _) = high_pass.apply(Tensor::from_data(TensorData::new(edge, [1, 1, 20, 20]), &device));
        let edge = to_host(edge);
        assert!(edge[10] > 0.38 && edge[9] < -0.38 && edge[0].abs() < 0.015, "{:?}", &edge[..20]);
    }

    /// Against the definitions, on channels far from zero of which one does not vary, and there and back.
    #[test]
    fn fitted_normalisations_follow_their_definitions() {
        let device = crate::device::named(None).unwrap();
        // Two signals of three channels and two positions.
        let values = [1001.0f32, 1003.0, -2.0, -2.0, 0.5, 0.1, 1005.0, 1007.0, -2.0, -2.0, 0.3, 0.3];
        let mut sums = ChannelSums::new(3, &values[..6]);
        values.chunks_exact(6).for_each(|signal| sums.add(signal));
        assert_eq!(sums.statistics(Normalization::Center), None);
        let mean = [1004.0f32, -2.0, 0.3];
        let deviations = [5f32.sqrt(), 0.0, 0.02f32.sqrt()];
        let mean_square = deviations.iter().map(|value| value * value).sum::<f32>() / 3.0;
        for (normalization, scale) in [
            (Normalization::Mean, [1.0; 3]),
            (Normalization::MeanAndScale, [mean_square.sqrt(); 3]),
            (Normalization::Standardise, [deviations[0], 1.0, deviations[2]]),
        ] {
            let found = sums.statistics(normalization).unwrap();
            found.check(3).unwrap();
            let close =
                |found: &[f32], wanted: &[f32]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs());
            assert!(close(&found.mean, &mean) && close(&found.scale, &scale), "{normalization}: {found:?}");
            let signals: Tensor<4> = Tensor::from_data(TensorData::new(values.to_vec(), [2, 3, 2, 1]), &device);
            let (normalized, undo) = Normalizer::new(normalization, Some(found)).apply(signals);
            let energy = to_host(normalized.clone()).iter().map(|value| value * value).sum::<f32>();
            if normalization == Normalization::MeanAndScale {
                // Twice √6 squared.
                assert!((energy - 12.0).abs() < 1e-3, "{energy}");
            }
            for undo in [undo.clone(), undo.of_signal(1)] {
                let back = to_host(undo.undo(normalized.clone()));
                assert!(back.iter().zip(&values).all(|(back, value)| (back - value).abs() < 1e-3), "{back:?}");
            }
        }
        assert!(ChannelStatistics::of_mean(vec![1.0, f32::NAN]).check(2).is_err());
        assert!(ChannelStatistics::of_mean(vec![1.0]).check(2).is_err());
        assert!(ChannelStatistics { mean: vec![0.0], scale: vec![0.0] }.check(1).is_err());
    }
}
