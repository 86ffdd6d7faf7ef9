//! The convolutional winner-take-all auto-encoder: every feature map is active in one place, and for a part of a batch only.
//!
//! A. Makhzani, B. Frey, "Winner-Take-All Autoencoders", NIPS 2015 (arXiv 1409.2752): rectified convolutions that keep the size; of the
//! last one's maps the single largest value is kept (*spatial sparsity*), and of these winners, over a batch, the largest few per cent
//! (*lifetime sparsity*). The decoder is one transposed convolution with large kernels. Features for a classifier are the rectified
//! maps, without any constraint.

use super::layers::{check_part, check_units, count_of, edited, keep_largest, mean_norm, seeds, weights, zeros};
use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch, check_batch};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::sparse::{norm, to_host};
use crate::model::leaf;
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::module::{conv_transpose2d, conv2d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a [`ConvolutionalWinnerTakeAll`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConvolutionalWinnerTakeAllConfig {
    /// Feature maps of every layer, at least 1. Default 128.
    pub units: usize,
    /// Convolutions, from 1 to 16. Default 2.
    pub layers: usize,
    /// Side of their kernels, odd. Default 5.
    pub kernel: usize,
    /// Side of the decoder's kernels, odd. Default 11.
    pub decoder_kernel: usize,
    /// Part of a batch, in (0, 1], that a map is active for. Default 0.2.
    pub lifetime: f32,
}

impl Default for ConvolutionalWinnerTakeAllConfig {
    fn default() -> Self {
        Self { units: 128, layers: 2, kernel: 5, decoder_kernel: 11, lifetime: 0.2 }
    }
}

impl ConvolutionalWinnerTakeAllConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_units(self.units)?;
        if !(1..=16).contains(&self.layers) {
            return Err(Error::parameter("layers", self.layers, "a number from 1 to 16"));
        }
        for (name, side) in [("kernel", self.kernel), ("decoder_kernel", self.decoder_kernel)] {
            if side.is_multiple_of(2) || side > 99 {
                return Err(Error::parameter(name, side, "an odd number up to 99"));
            }
        }
        check_part("lifetime", self.lifetime)
    }

    /// With random weights of a seed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<ConvolutionalWinnerTakeAll> {
        self.check()?;
        let (units, side) = (self.units, self.kernel);
        let layers = (0..self.layers).map(|layer| {
            let channels = if layer == 0 { signal.channels } else { units };
            let fan_in = channels * side * side;
            Convolution {
                weight: weights([units, channels, side, side], fan_in, seed, layer as u64, device),
                bias: zeros([units], device),
            }
        });
        let side = self.decoder_kernel;
        Ok(ConvolutionalWinnerTakeAll {
            layers: layers.collect(),
            // Small: while kernels are random, what they reconstruct is an error, and the encoder would learn to reconstruct nothing.
            decoder: weights(
                [units, signal.channels, side, side],
                units * side * side,
                seed,
                self.layers as u64,
                device,
            ),
            decoder_bias: zeros([signal.channels], device),
            signal,
            config: self.clone(),
        })
    }
}

/// One convolution that keeps the size.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[units, channels, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[units]`.
    pub bias: Param<Tensor<1>>,
}

/// A convolutional winner-take-all auto-encoder.
#[derive(Module, Debug)]
pub struct ConvolutionalWinnerTakeAll {
    /// The encoder's convolutions.
    pub layers: Vec<Convolution>,
    /// The decoder's kernels, `[units, channels, kernel, kernel]`.
    pub decoder: Param<Tensor<4>>,
    /// `[channels]`.
    pub decoder_bias: Param<Tensor<1>>,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: ConvolutionalWinnerTakeAllConfig,
}

impl ConvolutionalWinnerTakeAll {
    /// With the decoder's bias at the middle of every channel's values, `[channels]`, which leaves maps as active as they would be
    /// around zero.
    pub(super) fn centred(mut self, middle: &[f32]) -> Self {
        if let Some(first) = self.layers.first_mut() {
            let kernels = to_host(leaf(first.weight.val()));
            let len = self.config.kernel * self.config.kernel;
            first.bias = edited(first.bias.clone(), |values| {
                for (value, kernel) in values.iter_mut().zip(kernels.chunks_exact(middle.len() * len)) {
                    let channels = kernel.chunks_exact(len).zip(middle);
                    *value = -channels.map(|(kernel, middle)| middle * kernel.iter().sum::<f32>()).sum::<f32>();
                }
            });
        }
        self.decoder_bias = edited(self.decoder_bias, |values| values.copy_from_slice(middle));
        self
    }

    /// What the last convolution sees.
    fn below(&self, signals: Tensor<4>) -> Tensor<4> {
        self.up(signals, self.layers.len() - 1)
    }

    fn maps(&self, signals: Tensor<4>) -> Tensor<4> {
        self.up(signals, self.layers.len())
    }

    /// What the first `layers` convolutions make of signals.
    fn up(&self, signals: Tensor<4>, layers: usize) -> Tensor<4> {
        let padding = self.config.kernel / 2;
        let options = || ConvOptions::new([1, 1], [padding, padding], [1, 1], 1);
        self.layers[..layers]
            .iter()
            .fold(signals, |below, layer| relu(conv2d(below, layer.weight.val(), Some(layer.bias.val()), options())))
    }

    /// The winner of every map, of the signals for which it is largest.
    fn winners(&self, maps: Tensor<4>) -> Tensor<4> {
        let [count, units, height, width] = maps.dims();
        let flat = maps.clone().reshape([count * units, height * width]);
        let spatial = keep_largest(flat, 1, 1);
        let peaks = spatial.clone().detach().max_dim(1).reshape([count, units]);
        let kept = keep_largest(peaks, count_of(self.config.lifetime, count), 0).greater_scalar(0.0).float();
        (spatial * kept.reshape([count * units, 1])).reshape([count, units, height, width])
    }

    fn synthesize(&self, codes: Tensor<4>) -> Tensor<4> {
        let padding = self.config.decoder_kernel / 2;
        let options = ConvTransposeOptions::new([1, 1], [padding, padding], [0, 0], [1, 1], 1);
        conv_transpose2d(codes, self.decoder.val(), Some(self.decoder_bias.val()), options)
    }

    fn constrained_outcome(&self, signals: Tensor<4>) -> Result<Outcome> {
        check_batch("signals", self.signal, &signals)?;
        let codes = self.winners(self.maps(signals.clone()));
        let reconstruction = self.synthesize(codes.clone());
        let error = (signals - reconstruction.clone()).square().flatten::<2>(1, 3);
        let loss = error.sum_dim(1).squeeze_dim::<1>(1) * 0.5;
        Ok(Outcome { loss, coded: Coded { codes, reconstruction } })
    }
}

impl Autoencoder for ConvolutionalWinnerTakeAll {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        SignalShape::new(self.config.units, self.signal.height, self.signal.width)
    }

    /// Features: rectified maps.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("signals", self.signal, &signals)?;
        Ok(self.maps(signals))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("codes", self.code(), &codes)?;
        Ok(self.synthesize(codes))
    }

    /// The decoder's kernels.
    fn atoms(&self) -> Tensor<4> {
        self.decoder.val()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    /// With the winners among the signals that are given together.
    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        Ok(self.constrained_outcome(signals)?.coded)
    }
}

impl Trainable for ConvolutionalWinnerTakeAll {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.constrained_outcome(batch.signals.clone())
    }

    fn mortal_units(&self) -> usize {
        self.config.units
    }

    /// A map starts again at the place where its signal leaves most over: the decoder's kernel is what is left over there, the last
    /// convolution's what it sees there.
    fn reseeded(mut self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let (still, signals) = (self.valid(), batch.signals.clone());
        let left_over = signals.clone() - still.constrained_outcome(signals.clone())?.coded.reconstruction;
        let seeds = seeds(left_over.flatten(1, 3), units.len(), batch);
        let SignalShape { channels, height, width } = self.signal;
        let below = still.below(signals);
        let [_, inputs, ..] = below.dims();
        let below = to_host(below);
        let plane = height * width;
        let places: Vec<[usize; 2]> = seeds.iter().map(|seed| peak(&seed.direction, self.signal)).collect();
        let unit_windows = |values: &dyn Fn(usize) -> Vec<f32>, length: f32| -> Vec<Vec<f32>> {
            let windows = (0..seeds.len()).map(values).map(|mut window| {
                let scale = length / norm(&window).max(f32::MIN_POSITIVE);
                window.iter_mut().for_each(|value| *value *= scale);
                window
            });
            windows.collect()
        };
        let (side, decoder_side) = (self.config.kernel, self.config.decoder_kernel);
        self.decoder = edited(self.decoder, |values| {
            let length = mean_norm(values, still.config.units, units, false);
            let window =
                |index: usize| window(&seeds[index].direction, [channels, height, width], places[index], decoder_side);
            replace(values, units, &unit_windows(&window, length));
        });
        if let Some(last) = self.layers.last_mut() {
            last.weight = edited(last.weight.clone(), |values| {
                let length = mean_norm(values, still.config.units, units, false);
                let window = |index: usize| {
                    let maps = &below[seeds[index].signal * inputs * plane..][..inputs * plane];
                    window(maps, [inputs, height, width], places[index], side)
                };
                replace(values, units, &unit_windows(&window, length));
            });
            last.bias = edited(last.bias.clone(), |values| {
                units.iter().take(seeds.len()).for_each(|&unit| values[unit] = 0.0);
            });
        }
        Ok(self)
    }
}

/// Where a signal has most energy, all channels together.
fn peak(signal: &[f32], shape: SignalShape) -> [usize; 2] {
    let plane = shape.height * shape.width;
    let energy = |place: usize| signal[place..].iter().step_by(plane).map(|value| value * value).sum::<f32>();
    let best = (0..plane).max_by(|&a, &b| energy(a).total_cmp(&energy(b)).then(b.cmp(&a))).unwrap_or(0);
    [best / shape.width, best % shape.width]
}

/// The square window of maps `[channels, height, width]` around a place, `[channels, side, side]`; zeros outside.
fn window(maps: &[f32], [channels, height, width]: [usize; 3], [row, column]: [usize; 2], side: usize) -> Vec<f32> {
    let mut out = vec![0.0; channels * side * side];
    for (index, value) in out.iter_mut().enumerate() {
        let (channel, place) = (index / (side * side), index % (side * side));
        let (row, column) = ((row + place / side).checked_sub(side / 2), (column + place % side).checked_sub(side / 2));
        if let (Some(row), Some(column)) = (row, column)
            && row < height
            && column < width
        {
            *value = maps[(channel * height + row) * width + column];
        }
    }
    out
}

/// Replaces the kernels of some units; there may be fewer kernels than units.
fn replace(values: &mut [f32], units: &[usize], kernels: &[Vec<f32>]) {
    for (&unit, kernel) in units.iter().zip(kernels) {
        values[unit * kernel.len()..][..kernel.len()].copy_from_slice(kernel);
    }
}
