//! The fully connected winner-take-all auto-encoder: every unit is active for a few signals of a batch only.
//!
//! A. Makhzani, B. Frey, "Winner-Take-All Autoencoders", NIPS 2015 (arXiv 1409.2752). Units are rectified; of the values that a unit
//! takes over a batch, the largest few per cent are kept (*lifetime sparsity*), so that no unit can be dead. The decoder is linear and
//! shares its weights with the encoder: with weights of its own it reconstructs better, but digits are told worse from the codes. Features for
//! a classifier are the rectified values, without any constraint.
//!
//! Several layers are *stacked*: each is such an auto-encoder of the features of the layer below. The training is divided evenly among
//! them, from the first to the last; while one learns, those below it stay as they are. Codes are those of the last layer.

use super::layers::{
    TiedLayer, ascend, centred_bias, check_layers, check_part, check_units, count_of, edited, half_squared_error,
    held_out_progress, is_last_turn, keep_largest, outcome, reseeded_encoder, rows, seeds, shaped, tied_layers, turn,
    units_shape,
};
use crate::autoencoder::training::used;
use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch};
use crate::error::Result;
use crate::geometry::SignalShape;
use crate::kernels::product::product;
use crate::model::leaf;
use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a [`WinnerTakeAll`] auto-encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WinnerTakeAllConfig {
    /// The layers, the first one first, from 1 to 16. Default one.
    pub layers: Vec<WinnerTakeAllLayerConfig>,
}

/// Settings of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WinnerTakeAllLayerConfig {
    /// Hidden units, at least 1. Default 2000.
    pub units: usize,
    /// Part of a batch, in (0, 1], that a unit is active for. Default 0.05.
    pub lifetime: f32,
}

impl Default for WinnerTakeAllLayerConfig {
    fn default() -> Self {
        Self { units: 2000, lifetime: 0.05 }
    }
}

impl Default for WinnerTakeAllConfig {
    fn default() -> Self {
        Self { layers: vec![WinnerTakeAllLayerConfig::default()] }
    }
}

impl WinnerTakeAllConfig {
    /// Two layers as the authors stacked them: 2000 units each, active for 5% and for 2% of a batch.
    pub fn stacked() -> Self {
        let second = WinnerTakeAllLayerConfig { lifetime: 0.02, ..WinnerTakeAllLayerConfig::default() };
        Self { layers: vec![WinnerTakeAllLayerConfig::default(), second] }
    }

    /// Units of every layer.
    pub fn units(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.units).collect()
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        check_layers("layers", self.layers.len())?;
        self.layers.iter().try_for_each(|layer| {
            check_units(layer.units)?;
            check_part("lifetime", layer.lifetime)
        })
    }

    /// With random weights of a seed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<WinnerTakeAll> {
        self.check()?;
        let layers = tied_layers(signal.len(), &self.units(), seed, device);
        Ok(WinnerTakeAll { layers, signal, config: self.clone() })
    }
}

/// A fully connected winner-take-all auto-encoder.
#[derive(Module, Debug)]
pub struct WinnerTakeAll {
    /// The layers, the first one first.
    pub layers: Vec<TiedLayer>,
    #[module(skip)]
    signal: SignalShape,
    #[module(skip)]
    config: WinnerTakeAllConfig,
}

impl WinnerTakeAll {
    /// With the first layer's b' at the middle of signals, `[signal values]`, and b such that it is taken off before the weights.
    pub(super) fn centred(mut self, middle: &[f32]) -> Self {
        if let Some(layer) = self.layers.first_mut() {
            layer.bias = centred_bias(layer.bias.clone(), leaf(layer.weight.val()), middle);
            layer.decoder_bias = edited(layer.decoder_bias.clone(), |values| values.copy_from_slice(middle));
        }
        self
    }

    /// The layer that learns at a batch's step, from 0.
    fn learning(&self, batch: &TrainingBatch) -> usize {
        turn(batch.progress(), self.layers.len())
    }

    /// What the layers below one, from 0, make of a batch, and the layer's winners.
    fn winners(&self, batch: &TrainingBatch, index: usize) -> Result<(Tensor<2>, Tensor<2>)> {
        let signals = rows("signals", self.signal, batch.signals.clone())?;
        let count = count_of(self.config.layers[index].lifetime, signals.dims()[0]);
        let below = self.up(signals, index);
        let codes = keep_largest(relu(self.layers[index].encode(below.clone())), count, 0);
        Ok((below, codes))
    }

    /// Codes of the first `layers` layers.
    fn up(&self, signals: Tensor<2>, layers: usize) -> Tensor<2> {
        self.layers[..layers].iter().fold(signals, |below, layer| relu(layer.encode(below)))
    }

    /// Signals from what the first `layers` layers have as codes, which are rectified in between.
    fn down(&self, codes: Tensor<2>, layers: usize) -> Tensor<2> {
        let below = |layer: usize, above: Tensor<2>| self.layers[layer].synthesize(above);
        match layers {
            0 => codes,
            _ => (0..layers - 1).rev().fold(below(layers - 1, codes), |above, layer| below(layer, relu(above))),
        }
    }

    /// With the winners of the layer, from 0, among the signals that are given together.
    fn constrained_outcome(&self, signals: Tensor<4>, index: usize) -> Result<Outcome> {
        let signals = rows("signals", self.signal, signals)?;
        let count = count_of(self.config.layers[index].lifetime, signals.dims()[0]);
        // What does not learn now is computed without gradients: no graph is recorded.
        let still = self.clone().no_grad();
        let layer = &self.layers[index];
        let below = still.up(signals, index);
        let codes = keep_largest(relu(layer.encode(below.clone())), count, 0);
        let synthesized = layer.synthesize(codes.clone());
        let loss = half_squared_error(below, synthesized.clone());
        // To look at: codes of the last layer, though it may not have learned yet, and what the winners synthesise.
        let reconstruction = match index {
            0 => synthesized,
            _ => still.down(relu(synthesized.detach()), index),
        };
        let codes = match &still.layers[index + 1..] {
            [] => codes,
            above => above.iter().fold(codes.detach(), |below, layer| relu(layer.encode(below))),
        };
        Ok(outcome(loss, codes, reconstruction, self.code(), self.signal))
    }
}

impl Autoencoder for WinnerTakeAll {
    fn signal(&self) -> SignalShape {
        self.signal
    }

    fn code(&self) -> SignalShape {
        units_shape(self.config.layers[self.layers.len() - 1].units)
    }

    /// Features: rectified values.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.up(rows("signals", self.signal, signals)?, self.layers.len()), self.code()))
    }

    fn layers(&self) -> Vec<SignalShape> {
        self.config.units().into_iter().map(units_shape).collect()
    }

    fn representations(&self, signals: Tensor<4>) -> Result<Vec<Tensor<4>>> {
        ascend(signals, self.signal, &self.layers, relu)
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        Ok(shaped(self.down(rows("codes", self.code(), codes)?, self.layers.len()), self.signal))
    }

    /// What units of the last layer synthesise where nothing in between is cut off.
    fn atoms(&self) -> Tensor<4> {
        let weight = |layer: usize| self.layers[layer].weight.val().transpose();
        let last = self.layers.len() - 1;
        shaped((0..last).rev().fold(weight(last), |above, layer| product(above, weight(layer))), self.signal)
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    /// With the winners among the signals that are given together.
    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        Ok(self.constrained_outcome(signals, self.layers.len() - 1)?.coded)
    }
}

impl Trainable for WinnerTakeAll {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.constrained_outcome(batch.signals.clone(), self.learning(batch))
    }

    /// Since layers take turns, losses of different layers stand side by side.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.constrained_outcome(batch.signals.clone(), turn(held_out_progress(batch), self.layers.len()))
    }

    fn mortal_units(&self) -> usize {
        self.config.units().iter().sum()
    }

    fn used_units(&self, batch: &TrainingBatch, outcome: &Outcome) -> Result<Tensor<1>> {
        let (index, last) = (self.learning(batch), self.layers.len() - 1);
        let codes = match index == last {
            true => outcome.coded.codes.clone(),
            false => {
                let (_, codes) = self.clone().no_grad().winners(batch, index)?;
                shaped(codes, units_shape(self.config.layers[index].units))
            }
        };
        let learning = used(leaf(codes));
        let others = |layers: &[WinnerTakeAllLayerConfig]| {
            Tensor::ones([layers.iter().map(|layer| layer.units).sum::<usize>()], &learning.device())
        };
        let (below, above) = (&self.config.layers[..index], &self.config.layers[index + 1..]);
        let mut parts = vec![learning.clone()];
        if !below.is_empty() {
            parts.insert(0, others(below));
        }
        if !above.is_empty() {
            parts.push(others(above));
        }
        Ok(Tensor::cat(parts, 0))
    }

    fn reseeded(mut self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let (still, index) = (self.valid(), self.learning(batch));
        let first: usize = self.config.layers[..index].iter().map(|layer| layer.units).sum();
        // At the turn of a layer, units of the one before are past help.
        let own = first..first + self.config.layers[index].units;
        let units: Vec<usize> = units.iter().filter(|unit| own.contains(unit)).map(|unit| unit - first).collect();
        let (below, codes) = still.winners(batch, index)?;
        let seeds = seeds(below.clone() - still.layers[index].synthesize(codes), units.len(), batch);
        let layer = self.layers[index].clone();
        let inputs = (below, still.layers[index].decoder_bias.val());
        let (weight, bias) = reseeded_encoder((layer.weight, layer.bias), true, (&units, &seeds), 1.0, false, inputs);
        (self.layers[index].weight, self.layers[index].bias) = (weight, bias);
        Ok(self)
    }

    /// Layers take turns: only what the last one makes of signals can be compared.
    fn is_admissible(&self, progress: f32) -> bool {
        is_last_turn(progress, self.layers.len())
    }
}
