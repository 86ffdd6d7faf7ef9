//! The k-sparse auto-encoder: a linear code of which the k largest values are kept.
//!
//! A. Makhzani, B. Frey, "k-Sparse Autoencoders", ICLR 2014 (arXiv 1312.5663). Encoder and decoder share their weights:
//! z = Wᵀy + b, Γ = the k largest of z, x = W z_Γ + b'. While k is small from the beginning, some units are never chosen; so k comes
//! down from a large value over the first part of the training. Codes that serve as features for a classifier keep α·k values.

use super::layers::{
    centred_bias, check_part, check_units, edited, half_squared_error, keep_largest, outcome, reseeded_encoder, rows,
    seeds, shaped, units_shape, weights, zeros,
};
use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::few;
use crate::kernels::product::product;
use crate::model::leaf;
use crate::text::counted;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a [`KSparse`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KSparseConfig {
    /// Hidden units, at least 1. Default 1000.
    pub units: usize,
    /// Values kept, from 1 to `units`. Default 25.
    pub k: usize,
    /// Values kept at the beginning, from `k` to `units`. Default 200.
    pub initial_k: usize,
    /// Part of the training, in (0, 1], over which it comes down to `k`. Default 0.5.
    pub annealed_over: f32,
    /// α ≥ 1: features keep α·k values. Default 3.
    pub alpha: f32,
}

impl Default for KSparseConfig {
    fn default() -> Self {
        Self { units: 1000, k: 25, initial_k: 200, annealed_over: 0.5, alpha: 3.0 }
    }
}

impl KSparseConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_units(self.units)?;
        if !(1..=self.units).contains(&self.k) {
            return Err(Error::parameter(
                "k",
                self.k,
                format!("a number from 1 to the {}", counted(self.units, "unit")),
            ));
        }
        if !(self.k..=self.units).contains(&self.initial_k) {
            let expected = format!("a number from k, {}, to the {}", self.k, counted(self.units, "unit"));
            return Err(Error::parameter("initial_k", self.initial_k, expected));
        }
        check_part("annealed_over", self.annealed_over)?;
        match self.alpha.is_finite() && self.alpha >= 1.0 {
            true => Ok(()),
            false => Err(Error::parameter("alpha", self.alpha, "a finite number ≥ 1")),
        }
    }

    /// k when that part of the training is done.
    pub fn k_at(&self, progress: f32) -> usize {
        let left = 1.0 - (progress / self.annealed_over).clamp(0.0, 1.0);
        self.k + ((self.initial_k - self.k) as f32 * left).round() as usize
    }

    /// With random weights of a seed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<KSparse> {
        self.check()?;
        Ok(KSparse {
            weight: weights([self.units, signal.len()], signal.len(), seed, 0, device),
            bias: zeros([self.units], device),
            decoder_bias: zeros([signal.len()], device),
            signal,
            config: self.clone(),
        })
    }
}

/// A k-sparse auto-encoder.
#[derive(Module, Debug)]
pub struct KSparse {
    /// W, `[units, signal values]`.
    pub weight: Param<Tensor<2>>,
    /// b, `[units]`.
    pub bias: Param<Tensor<1>>,
    /// b', `[signal values]`.
    pub decoder_bias: Param<Tensor<1>>,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: KSparseConfig,
}

impl KSparse {
    /// With b' at the middle of signals, `[signal values]`, and b such that it is taken off before the weights.
    pub(super) fn centred(mut self, middle: &[f32]) -> Self {
        self.bias = centred_bias(self.bias, leaf(self.weight.val()).transpose(), middle);
        self.decoder_bias = edited(self.decoder_bias, |values| values.copy_from_slice(middle));
        self
    }

    fn code_rows(&self, signals: Tensor<2>, k: usize) -> Tensor<2> {
        let values = few::scores(signals, self.weight.val()) + self.bias.val().unsqueeze();
        keep_largest(values, k, 1)
    }

    fn synthesize(&self, codes: Tensor<2>) -> Tensor<2> {
        few::synthesis(codes, self.weight.val()) + self.decoder_bias.val().unsqueeze()
    }

    fn with_k(&self, signals: Tensor<4>, k: usize) -> Result<Outcome> {
        let signals = rows("signals", self.signal, signals)?;
        let codes = self.code_rows(signals.clone(), k);
        let synthesized = self.synthesize(codes.clone());
        let loss = half_squared_error(signals, synthesized.clone());
        Ok(outcome(loss, codes, synthesized, self.code(), self.signal))
    }
}

impl Autoencoder for KSparse {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        units_shape(self.config.units)
    }

    /// Features: the α·k largest values.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let k = (self.config.alpha * self.config.k as f32).round() as usize;
        Ok(shaped(self.code_rows(rows("signals", self.signal, signals)?, k), self.code()))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        // Of any codes, with gradients for those that are zero, too.
        let codes = rows("codes", self.code(), codes)?;
        Ok(shaped(product(codes, self.weight.val()) + self.decoder_bias.val().unsqueeze(), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.weight.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    /// By the k largest values.
    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        Ok(self.with_k(signals, self.config.k)?.coded)
    }
}

impl Trainable for KSparse {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.with_k(batch.signals.clone(), self.config.k_at(batch.progress()))
    }

    /// With the final k, so that epochs can be compared.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.with_k(batch.signals.clone(), self.config.k)
    }

    fn mortal_units(&self) -> usize {
        self.config.units
    }

    fn reseeded(mut self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let still = self.valid();
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let found = rows("signals", self.signal, still.training(batch)?.coded.reconstruction)?;
        let seeds = seeds(signals.clone() - found, units.len(), batch);
        let inputs = (signals, still.decoder_bias.val());
        (self.weight, self.bias) =
            reseeded_encoder((self.weight, self.bias), false, (units, &seeds), 1.0, true, inputs);
        Ok(self)
    }
}
