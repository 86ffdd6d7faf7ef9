//! The stacked denoising auto-encoder: layers of sigmoids, each trained to undo noise on what the layer below gives.
//!
//! P. Vincent et al., "Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising
//! Criterion", JMLR 11, 2010. Masking noise sets a part of a layer's input to zero; encoder and decoder share their weights; the loss is
//! the cross-entropy between the clean input and what is synthesized from the corrupted one. The training is divided evenly among the
//! layers, from the first to the last; while one learns, those below it stay as they are. Codes are those of the last layer.
//!
//! Signals are taken for values in [0, 1]; what lies outside is cut off in the loss.

use super::layers::{
    TiedLayer, ascend, check_layers, check_units, held_out_progress, is_last_turn, outcome, rows, shaped, sum_rows,
    tied_layers, turn, units_shape,
};
use crate::autoencoder::{Autoencoder, Outcome, Trainable, TrainingBatch};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::random::{Purpose, stream};
use burn::module::Module;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a [`StackedDenoising`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StackedDenoisingConfig {
    /// Units of every layer, from 1 to 16 layers. Default three layers of 1000.
    pub units: Vec<usize>,
    /// Part of every layer's input, in [0, 1), that is set to zero. Default 0.25.
    pub noise: f32,
}

impl Default for StackedDenoisingConfig {
    fn default() -> Self {
        Self { units: vec![1000; 3], noise: 0.25 }
    }
}

impl StackedDenoisingConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_layers("units", self.units.len())?;
        self.units.iter().try_for_each(|&units| check_units(units))?;
        match (0.0..1.0).contains(&self.noise) {
            true => Ok(()),
            false => Err(Error::parameter("noise", self.noise, "a part in [0, 1)")),
        }
    }

    /// With random weights of a seed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<StackedDenoising> {
        self.check()?;
        let layers = tied_layers(signal.len(), &self.units, seed, device);
        Ok(StackedDenoising { layers, signal, config: self.clone() })
    }
}

/// A stacked denoising auto-encoder.
#[derive(Module, Debug)]
pub struct StackedDenoising {
    /// The layers, the first one first.
    pub layers: Vec<TiedLayer>,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: StackedDenoisingConfig,
}

impl StackedDenoising {
    /// Codes of the first `layers` layers.
    fn up(&self, signals: Tensor<2>, layers: usize) -> Tensor<2> {
        self.layers[..layers].iter().fold(signals, |below, layer| sigmoid(layer.encode(below)))
    }

    /// Signals from codes of the first `layers` layers.
    fn down(&self, codes: Tensor<2>, layers: usize) -> Tensor<2> {
        self.layers[..layers].iter().rev().fold(codes, |above, layer| sigmoid(layer.synthesize(above)))
    }

    /// Zeros and ones that let the part of the inputs through that noise leaves.
    fn mask(&self, dims: [usize; 2], batch: &TrainingBatch) -> Tensor<2> {
        let mut generator = stream(batch.seed, Purpose::Noise, batch.number());
        let noise = self.config.noise;
        let values: Vec<f32> = (0..dims[0] * dims[1]).map(|_| f32::from(generator.random::<f32>() >= noise)).collect();
        Tensor::from_data(TensorData::new(values, dims), &batch.signals.device())
    }

    fn outcome(&self, batch: &TrainingBatch, progress: f32, noisy: bool) -> Result<Outcome> {
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let index = turn(progress, self.layers.len());
        let layer = &self.layers[index];
        // What does not learn now is computed without gradients: no graph is recorded.
        let still = self.clone().no_grad();
        let clean = still.up(signals, index);
        let corrupted = match noisy {
            true => clean.clone() * self.mask(clean.dims(), batch),
            false => clean.clone(),
        };
        let synthesized = layer.synthesize(sigmoid(layer.encode(corrupted)));
        let target = clean.clone().clamp(0.0, 1.0);
        // −t·ln σ(p) − (1 − t)·ln(1 − σ(p)), with 1 − σ(p) = σ(−p).
        let present = log_sigmoid(synthesized.clone()) * target.clone();
        let absent = log_sigmoid(synthesized.clone().neg()) * (target.neg() + 1.0);
        let loss = sum_rows(present + absent).neg();
        // To look at: all layers, those that have not learned yet included, without noise and gradients.
        let codes = still.layers[index..].iter().fold(clean, |below, layer| sigmoid(layer.encode(below)));
        let reconstruction = still.down(codes.clone(), self.layers.len());
        Ok(outcome(loss, codes, reconstruction, self.code(), self.signal))
    }
}

impl Autoencoder for StackedDenoising {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        units_shape(self.config.units[self.config.units.len() - 1])
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.up(rows("signals", self.signal, signals)?, self.layers.len()), self.code()))
    }

    fn layers(&self) -> Vec<SignalShape> {
        self.config.units.iter().copied().map(units_shape).collect()
    }

    fn representations(&self, signals: Tensor<4>) -> Result<Vec<Tensor<4>>> {
        ascend(signals, self.signal, &self.layers, sigmoid)
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.down(rows("codes", self.code(), codes)?, self.layers.len()), self.signal))
    }

    /// The weights of the first layer's units, which are the ones that act on signals.
    fn atoms(&self) -> Tensor<4> {
        shaped(self.layers[0].weight.val().transpose(), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

impl Trainable for StackedDenoising {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.outcome(batch, batch.progress(), true)
    }

    /// Without noise. Since layers take turns, losses of different layers stand side by side.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.outcome(batch, held_out_progress(batch), false)
    }

    /// Layers take turns: only what the last one makes of signals can be compared.
    fn is_admissible(&self, progress: f32) -> bool {
        is_last_turn(progress, self.layers.len())
    }
}
