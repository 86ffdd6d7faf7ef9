//! The fully connected winner-take-all auto-encoder: every unit is active for a few signals of a batch only.
//!
//! A. Makhzani, B. Frey, "Winner-Take-All Autoencoders", NIPS 2015 (arXiv 1409.2752). Units are rectified; of the values that a unit
//! takes over a batch, the largest few per cent are kept (*lifetime sparsity*), so that no unit can be dead. The decoder is linear.
//! Features for a classifier are the rectified values, without any constraint.

use super::layers::{
    check_part, check_units, count_of, dense, half_squared_error, keep_largest, outcome, rows, shaped, transposed,
};
use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch};
use crate::error::Result;
use crate::model::geometry::SignalShape;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of a [`WinnerTakeAll`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WinnerTakeAllConfig {
    /// Hidden units, at least 1. Default 2000.
    pub units: usize,
    /// Part of a batch, in (0, 1], that a unit is active for. Default 0.05.
    pub lifetime: f32,
}

impl Default for WinnerTakeAllConfig {
    fn default() -> Self {
        Self { units: 2000, lifetime: 0.05 }
    }
}

impl WinnerTakeAllConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_units(self.units)?;
        check_part("lifetime", self.lifetime)
    }

    /// With random weights of a seed, the decoder's those of the encoder transposed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<WinnerTakeAll> {
        self.check()?;
        let encoder = dense(signal.len(), self.units, seed, 0, device);
        let decoder = transposed(&encoder, device);
        Ok(WinnerTakeAll { encoder, decoder, signal, config: self.clone() })
    }
}

/// A fully connected winner-take-all auto-encoder.
#[derive(Module, Debug)]
pub struct WinnerTakeAll {
    /// From signals to units.
    pub encoder: Linear,
    /// From units to signals.
    pub decoder: Linear,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: WinnerTakeAllConfig,
}

impl WinnerTakeAll {
    fn constrained_outcome(&self, signals: Tensor<4>) -> Result<Outcome> {
        let signals = rows("signals", self.signal, signals)?;
        let count = count_of(self.config.lifetime, signals.dims()[0]);
        let codes = keep_largest(relu(self.encoder.forward(signals.clone())), count, 0);
        let painted = self.decoder.forward(codes.clone());
        let loss = half_squared_error(signals, painted.clone());
        Ok(outcome(loss, codes, painted, self.code(), self.signal))
    }
}

impl Autoencoder for WinnerTakeAll {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        SignalShape::new(self.config.units, 1, 1)
    }

    /// Features: rectified values.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(relu(self.encoder.forward(rows("signals", self.signal, signals)?)), self.code()))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.decoder.forward(rows("codes", self.code(), codes)?), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.decoder.weight.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    /// With the winners among the signals that are given together.
    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        Ok(self.constrained_outcome(signals)?.coded)
    }
}

impl Trainable for WinnerTakeAll {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.constrained_outcome(batch.signals.clone())
    }
}
