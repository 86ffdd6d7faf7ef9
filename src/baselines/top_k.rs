//! The TopK auto-encoder with an auxiliary loss that revives dead units.
//!
//! L. Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024 (arXiv 2406.04093): z = TopK(W_e(y − b)), rectified,
//! x = W_d z + b, decoder rows of unit norm, the encoder at first the decoder's transpose. Units that no signal has used for a number of
//! steps are dead; the auxiliary loss (AuxK) lets the k_aux largest of them reconstruct what is left over, e = y − x, so that they find
//! something to do: ½‖e‖² + α·½‖e − W_d z_aux‖².

use super::layers::{
    RESEEDED_LENGTH, check_units, dense, edited, half_squared_error, keep_largest, normalized_rows, outcome,
    reseeded_encoder, rows, seeds, shaped, transposed, unit_rows, units_shape, zeros,
};
use crate::autoencoder::training::used;
use crate::autoencoder::{Autoencoder, Outcome, Trainable, TrainingBatch};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::few;
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use crate::model::leaf;
use crate::text::counted;
use burn::module::{Module, Param, RunningState};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a [`TopK`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TopKConfig {
    /// Hidden units, at least 1. Default 1000.
    pub units: usize,
    /// Values kept, from 1 to `units`. Default 25.
    pub k: usize,
    /// Dead units that reconstruct what is left over, at least 1; all of them where there are fewer. Default 512, as its authors have it.
    pub auxiliary_k: usize,
    /// Weight α ≥ 0 of the auxiliary loss. Default 1/32.
    pub auxiliary_weight: f32,
    /// Steps without use after which a unit is dead, at least 1. Default 20: what is left over has structure early on, and units that
    /// are revived later find little to do.
    pub dead_after: usize,
}

impl Default for TopKConfig {
    fn default() -> Self {
        Self { units: 1000, k: 25, auxiliary_k: 512, auxiliary_weight: 1.0 / 32.0, dead_after: 20 }
    }
}

impl TopKConfig {
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
        if self.auxiliary_k == 0 {
            return Err(Error::parameter("auxiliary_k", 0, "at least 1 unit"));
        }
        if !(self.auxiliary_weight.is_finite() && self.auxiliary_weight >= 0.0) {
            return Err(Error::parameter("auxiliary_weight", self.auxiliary_weight, "a finite number ≥ 0"));
        }
        match self.dead_after {
            0 => Err(Error::parameter("dead_after", 0, "at least 1 step")),
            _ => Ok(()),
        }
    }

    /// With random weights of a seed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<TopK> {
        self.check()?;
        let encoder = dense(signal.len(), self.units, seed, 0, device);
        let decoder = unit_rows(transposed(&encoder, device).weight);
        let mut encoder = encoder;
        encoder.weight = Param::from_tensor(leaf(decoder.val()).transpose() + 0.0);
        Ok(TopK {
            encoder: encoder.weight,
            encoder_bias: zeros([self.units], device),
            decoder,
            bias: zeros([signal.len()], device),
            idle: RunningState::new(Tensor::zeros([self.units], device)),
            signal,
            config: self.clone(),
        })
    }
}

/// A TopK auto-encoder.
#[derive(Module, Debug)]
pub struct TopK {
    /// W_e transposed, `[signal values, units]`.
    pub encoder: Param<Tensor<2>>,
    /// Bias of the units, `[units]`.
    pub encoder_bias: Param<Tensor<1>>,
    /// W_d transposed, `[units, signal values]`.
    pub decoder: Param<Tensor<2>>,
    /// b, `[signal values]`.
    pub bias: Param<Tensor<1>>,
    /// Steps since every unit was last used, `[units]`.
    pub idle: RunningState<Tensor<1>>,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: TopKConfig,
}

impl TopK {
    /// With b at the middle of signals, `[signal values]`.
    pub(super) fn centred(mut self, middle: &[f32]) -> Self {
        self.bias = edited(self.bias, |values| values.copy_from_slice(middle));
        self
    }

    /// Rectified activities of all units.
    fn activities(&self, signals: Tensor<2>) -> Tensor<2> {
        let centred = signals - self.bias.val().unsqueeze();
        relu(few::scores(centred, self.encoder.val().transpose()) + self.encoder_bias.val().unsqueeze())
    }

    /// The k largest activities of every signal.
    fn code_rows(&self, signals: Tensor<2>) -> Tensor<2> {
        let centred = signals - self.bias.val().unsqueeze();
        few::largest_scores(centred, self.encoder.val().transpose(), self.encoder_bias.val(), self.config.k)
    }

    fn synthesize(&self, codes: Tensor<2>) -> Tensor<2> {
        few::synthesis(codes, self.decoder.val()) + self.bias.val().unsqueeze()
    }

    /// Units that no signal has used for as long as it takes to be dead, as ones, `[1, units]`.
    fn dead(&self) -> Tensor<2> {
        self.idle.value_sync().greater_equal_scalar(self.config.dead_after as f32).float().unsqueeze()
    }
}

impl Autoencoder for TopK {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        units_shape(self.config.units)
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.code_rows(rows("signals", self.signal, signals)?), self.code()))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        // Of any codes, with gradients for those that are zero, too.
        let codes = rows("codes", self.code(), codes)?;
        Ok(shaped(product(codes, self.decoder.val()) + self.bias.val().unsqueeze(), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.decoder.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

impl Trainable for TopK {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let codes = self.code_rows(signals.clone());
        let decoder = normalized_rows(self.decoder.val());
        let synthesized = few::synthesis(codes.clone(), decoder.clone()) + self.bias.val().unsqueeze();
        let mut loss = half_squared_error(signals.clone(), synthesized.clone());
        if self.config.auxiliary_weight > 0.0 {
            // What is left over is a target, not something to be changed.
            let left_over = leaf(signals.clone() - synthesized.clone());
            let dead = self.dead();
            let auxiliary = match to_host(leaf(dead.clone())).contains(&1.0) {
                true => {
                    let revived = keep_largest(self.activities(signals) * dead, self.config.auxiliary_k, 1);
                    half_squared_error(left_over, few::synthesis(revived, decoder))
                }
                false => half_squared_error(left_over.clone(), left_over.zeros_like()),
            };
            loss = loss + auxiliary * self.config.auxiliary_weight;
        }
        let used = used(leaf(shaped(codes.clone(), self.code())));
        self.idle.update(leaf(self.idle.value_sync() + 1.0) * (used.neg() + 1.0));
        Ok(outcome(loss, codes, synthesized, self.code(), self.signal))
    }

    /// A unit that one of the copies has used was used.
    fn take_over(&self, copies: &[Self]) {
        let device = leaf(self.idle.value_sync()).device();
        // A copy was updated on another thread; `valid` merges that update into its value.
        let idle = copies.iter().map(|copy| copy.idle.valid().value().to_device(&device));
        if let Some(least) = idle.reduce(Tensor::min_pair) {
            self.idle.update(least);
        }
    }

    /// Without the auxiliary loss.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let codes = self.code_rows(signals.clone());
        let synthesized = self.synthesize(codes.clone());
        let loss = half_squared_error(signals, synthesized.clone());
        Ok(outcome(loss, codes, synthesized, self.code(), self.signal))
    }

    fn mortal_units(&self) -> usize {
        self.config.units
    }

    fn reseeded(mut self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let still = self.valid();
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let found = rows("signals", self.signal, still.validation(batch)?.coded.reconstruction)?;
        let seeds = seeds(signals.clone() - found, units.len(), batch);
        let bias = still.bias.val();
        let inputs = (signals - bias.clone().unsqueeze(), bias * 0.0);
        (self.encoder, self.encoder_bias) =
            reseeded_encoder((self.encoder, self.encoder_bias), true, (units, &seeds), RESEEDED_LENGTH, true, inputs);
        let len = self.signal.len();
        self.decoder = edited(self.decoder, |values| {
            for (&unit, seed) in units.iter().zip(&seeds) {
                values[unit * len..][..len].copy_from_slice(&seed.direction);
            }
        });
        Ok(self)
    }

    fn constrained(mut self, _: usize, _: usize) -> Self {
        self.decoder = unit_rows(self.decoder);
        self
    }
}
