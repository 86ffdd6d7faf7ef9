//! The convolutional winner-take-all auto-encoder: every feature map is active in one place, and for a part of a batch only.
//!
//! A. Makhzani, B. Frey, "Winner-Take-All Autoencoders", NIPS 2015 (arXiv 1409.2752): rectified convolutions that keep the size; of the
//! last one's maps the single largest value is kept (*spatial sparsity*), and of these winners, over a batch, the largest few per cent
//! (*lifetime sparsity*). The decoder is one transposed convolution with large kernels. Features for a classifier are the rectified
//! maps, without any constraint.

use super::layers::{check_part, check_units, count_of, keep_largest, weights, zeros};
use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch, check_batch};
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
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
            // Small: while kernels are random, what they paint is an error, and the encoder would learn to paint nothing.
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
    fn maps(&self, signals: Tensor<4>) -> Tensor<4> {
        let padding = self.config.kernel / 2;
        let options = || ConvOptions::new([1, 1], [padding, padding], [1, 1], 1);
        self.layers
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

    fn paint(&self, codes: Tensor<4>) -> Tensor<4> {
        let padding = self.config.decoder_kernel / 2;
        let options = ConvTransposeOptions::new([1, 1], [padding, padding], [0, 0], [1, 1], 1);
        conv_transpose2d(codes, self.decoder.val(), Some(self.decoder_bias.val()), options)
    }

    fn constrained_outcome(&self, signals: Tensor<4>) -> Result<Outcome> {
        check_batch("signals", self.signal, &signals)?;
        let codes = self.winners(self.maps(signals.clone()));
        let reconstruction = self.paint(codes.clone());
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
        Ok(self.paint(codes))
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
}
