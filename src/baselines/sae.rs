//! The sparse auto-encoder: one hidden layer whose activity costs something.
//!
//! With the penalty `kl` its units are sigmoids and their mean activity over the batch is drawn towards a small target by the
//! Kullback–Leibler divergence Σ_j KL(ρ‖ρ̂_j) (H. Lee, C. Ekanadham, A. Ng, "Sparse deep belief net model for visual area V2",
//! NIPS 2007; A. Ng, "Sparse autoencoder", CS294A lecture notes, 2011). No such unit is ever exactly zero. With the penalty `l1` units
//! are rectified and cost their activity, against decoder rows of unit norm, without which the cost could be evaded by scaling
//! (H. Cunningham et al., "Sparse Autoencoders Find Highly Interpretable Features in Language Models", ICLR 2024).

use super::layers::{
    RESEEDED_LENGTH, centred_bias, check_units, dense, edited, half_squared_error, normalized_rows, outcome,
    reseeded_encoder, rows, seeds, shaped, sum_rows, transposed, unit_rows, units_shape,
};
use crate::autoencoder::{Autoencoder, Outcome, Trainable, TrainingBatch};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::model::leaf;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What activity costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// Its sum.
    #[default]
    L1,
    /// The divergence of its mean from a target.
    Kl,
}

/// Settings of a [`PenalizedAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PenalizedAutoencoderConfig {
    /// Hidden units, at least 1. Default 1000.
    pub units: usize,
    /// What activity costs: `l1` or `kl`. Default `l1`.
    pub penalty: Penalty,
    /// Weight ≥ 0 of the penalty beside ½‖y − x‖². Default 0.3, for pixels in [0, 1].
    pub weight: f32,
    /// Target of mean activity for `kl`, in (0, 1). Default 0.05.
    pub target: f32,
}

impl Default for PenalizedAutoencoderConfig {
    fn default() -> Self {
        Self { units: 1000, penalty: Penalty::default(), weight: 0.3, target: 0.05 }
    }
}

impl PenalizedAutoencoderConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_units(self.units)?;
        if !(self.weight.is_finite() && self.weight >= 0.0) {
            return Err(Error::parameter("weight", self.weight, "a finite number ≥ 0"));
        }
        match self.target > 0.0 && self.target < 1.0 {
            true => Ok(()),
            false => Err(Error::parameter("target", self.target, "a number in (0, 1)")),
        }
    }

    /// With random weights of a seed, the decoder's those of the encoder transposed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<PenalizedAutoencoder> {
        self.check()?;
        let encoder = dense(signal.len(), self.units, seed, 0, device);
        let decoder = transposed(&encoder, device);
        Ok(PenalizedAutoencoder { encoder, decoder, signal, config: self.clone() }.constrained(0, 1))
    }
}

/// An auto-encoder with a penalty on its codes.
#[derive(Module, Debug)]
pub struct PenalizedAutoencoder {
    /// From signals to units.
    pub encoder: Linear,
    /// From units to signals.
    pub decoder: Linear,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: PenalizedAutoencoderConfig,
}

impl PenalizedAutoencoder {
    /// With the decoder's bias at the middle of signals, `[signal values]`, which leaves units as active as they would be around zero.
    pub(super) fn centred(mut self, middle: &[f32]) -> Self {
        self.encoder.bias = self.encoder.bias.map(|bias| centred_bias(bias, leaf(self.encoder.weight.val()), middle));
        self.decoder.bias = self.decoder.bias.map(|bias| edited(bias, |values| values.copy_from_slice(middle)));
        self
    }

    fn code_rows(&self, signals: Tensor<2>) -> Tensor<2> {
        let values = self.encoder.forward(signals);
        match self.config.penalty {
            Penalty::L1 => relu(values),
            Penalty::Kl => sigmoid(values),
        }
    }
}

impl Autoencoder for PenalizedAutoencoder {
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
        Ok(shaped(self.decoder.forward(rows("codes", self.code(), codes)?), self.signal))
    }

    fn atoms(&self) -> Tensor<4> {
        shaped(self.decoder.weight.val(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

impl Trainable for PenalizedAutoencoder {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let codes = self.code_rows(signals.clone());
        let synthesized = match self.config.penalty {
            Penalty::L1 => {
                // Not as a layer of its own: the gradient goes through the norms.
                let bias = self.decoder.bias.as_ref().map(|bias| bias.val());
                linear(codes.clone(), normalized_rows(self.decoder.weight.val()), bias)
            }
            Penalty::Kl => self.decoder.forward(codes.clone()),
        };
        let error = half_squared_error(signals, synthesized.clone());
        let PenalizedAutoencoderConfig { weight, target, penalty, .. } = self.config;
        let loss = match penalty {
            Penalty::L1 => error + sum_rows(codes.clone()) * weight,
            Penalty::Kl => {
                let mean = codes.clone().mean_dim(0).clamp(1e-6, 1.0 - 1e-6);
                // KL(ρ‖ρ̂) but for its constant part, which is added for the sake of its value.
                let entropy = target * target.ln() + (1.0 - target) * (1.0 - target).ln();
                let idle = mean.clone().neg() + 1.0;
                let divergence = (mean.log() * target + idle.log() * (1.0 - target)).neg() + entropy;
                error + divergence.sum() * weight
            }
        };
        Ok(outcome(loss, codes, synthesized, self.code(), self.signal))
    }

    /// Rectified units can die; sigmoids are never zero.
    fn mortal_units(&self) -> usize {
        match self.config.penalty {
            Penalty::L1 => self.config.units,
            Penalty::Kl => 0,
        }
    }

    fn reseeded(mut self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let still = self.valid();
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let found = still.decoder.forward(still.code_rows(signals.clone()));
        let seeds = seeds(signals.clone() - found, units.len(), batch);
        let (Some(bias), Some(middle)) = (self.encoder.bias.take(), &still.decoder.bias) else { return Ok(self) };
        let (weight, bias) = reseeded_encoder(
            (self.encoder.weight, bias),
            true,
            (units, &seeds),
            RESEEDED_LENGTH,
            false,
            (signals, middle.val()),
        );
        (self.encoder.weight, self.encoder.bias) = (weight, Some(bias));
        let len = self.signal.len();
        self.decoder.weight = edited(self.decoder.weight, |values| {
            for (&unit, seed) in units.iter().zip(&seeds) {
                values[unit * len..][..len].copy_from_slice(&seed.direction);
            }
        });
        Ok(self)
    }

    fn constrained(mut self, _: usize, _: usize) -> Self {
        if self.config.penalty == Penalty::L1 {
            self.decoder.weight = unit_rows(self.decoder.weight);
        }
        self
    }
}
