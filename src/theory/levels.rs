//! What the theorems need to know of a signal's representations, and errors measured in the norms that they bound.

use super::profile::{DictionaryProfile, ModelProfile};
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
use crate::model::sparse::{energy, nonzeros, to_host};
use crate::model::stripe::{patch_extent, patch_nonzeros, patch_norm, stripe_norm};
use burn::tensor::Tensor;
use serde::Serialize;

/// Part of what an entry could have been at most, below which it counts as cancelled: a few hundred roundings of `f32`.
const CANCELLED: f32 = 1e-5;

/// One representation γ_i in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerLevels {
    /// ‖γ_i‖₀.
    pub nonzeros: usize,
    /// ‖γ_i‖ˢ_{0,∞} on the stripe of the layer's own atoms: what bounds that name μ(D_i) need.
    pub own_stripe: usize,
    /// ‖γ_i‖ˢ_{0,∞} on the wider stripe of the effective atoms: what bounds that name μ(D^(i)) need.
    pub effective_stripe: usize,
    /// ‖γ_i‖ᵖ_{0,∞} on the patches that layer i + 1 reads.
    pub patch: usize,
    /// As [`Self::own_stripe`], of all entries that the support of γ_L reaches through the non-zeros of the atoms, whether or not
    /// they cancel: no smaller than `own_stripe`, and equal to it where nothing does.
    pub reached_stripe: usize,
    /// Entries that are reached but cancel. The non-vanishing-support property (N.V.S.) is that there are none.
    pub vanished: usize,
    /// Least |γ|·‖d‖ over the non-zeros, with the columns of D_i; 0 where there are none.
    pub own_least: f64,
    /// Largest |γ|·‖d‖ over the non-zeros, with the columns of D_i.
    pub own_largest: f64,
    /// Least |γ|·‖d‖ over the non-zeros, with the columns of D^(i).
    pub effective_least: f64,
    /// Largest |γ| over the non-zeros.
    pub largest: f64,
    /// ‖γ_i‖₂.
    pub norm: f64,
}

/// The representations γ_1 … γ_L of one signal in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Levels {
    /// γ_1 first.
    pub layers: Vec<LayerLevels>,
}

impl Levels {
    /// Of representations γ_1 … γ_L of a batch of signals, one [`Levels`] for each. Entries that cancel to less than a hundred-thousandth
    /// of what they could have been count as zero.
    ///
    /// # Shapes
    /// - representations: L tensors, γ_i as `[n, m_i, h_i, w_i]`, with γ_{i−1} = D_i γ_i.
    ///
    /// # Errors
    /// Representations of other shapes than the model's.
    pub fn of(profile: &ModelProfile, representations: &[Tensor<4>]) -> Result<Vec<Self>> {
        let geometry = profile.geometry();
        let count = representations.first().map_or(0, |codes| codes.dims()[0]);
        let found: Vec<[usize; 4]> = representations.iter().map(Tensor::dims).collect();
        let expected: Vec<[usize; 4]> = geometry.layers().iter().map(|layer| layer.code.batched(count)).collect();
        if found != expected {
            return Err(Error::shape("representations", format!("{expected:?}"), format!("{found:?}")));
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let values: Vec<Vec<f32>> = representations.iter().cloned().map(to_host).collect();
        let deepest = representations[representations.len() - 1].clone().abs();
        let magnitudes: Vec<Vec<f32>> = profile.magnitudes().propagate(deepest).into_iter().map(to_host).collect();
        let of_signal = |row: usize| {
            let layers = (1..=profile.depth()).map(|depth| {
                let shape = profile.layer(depth).code;
                let part = |all: &[f32]| all[row * shape.len()..][..shape.len()].to_vec();
                layer(profile, depth, part(&values[depth - 1]), &part(&magnitudes[depth - 1]))
            });
            Self { layers: layers.collect() }
        };
        Ok((0..count).map(of_signal).collect())
    }

    /// Whether no entry that an active atom reaches cancels.
    pub fn supports_survive(&self) -> bool {
        self.layers.iter().all(|layer| layer.vanished == 0)
    }
}

fn layer(profile: &ModelProfile, depth: usize, mut values: Vec<f32>, magnitudes: &[f32]) -> LayerLevels {
    let shape = profile.layer(depth).code;
    let reached = magnitudes.iter().filter(|magnitude| **magnitude > 0.0).count();
    for (value, magnitude) in values.iter_mut().zip(magnitudes) {
        if value.abs() <= CANCELLED * magnitude {
            *value = 0.0;
        }
    }
    let nonzeros = nonzeros(&values).count();
    let (own, effective) = (&profile.own[depth - 1], &profile.effective[depth - 1]);
    let (own_least, own_largest) = amplitudes(&values, own);
    LayerLevels {
        nonzeros,
        own_stripe: stripe_norm(&values, shape, own.radius),
        effective_stripe: stripe_norm(&values, shape, effective.radius),
        patch: patch_nonzeros(&values, shape, patch_extent(profile.geometry(), depth)),
        reached_stripe: stripe_norm(magnitudes, shape, own.radius),
        vanished: reached.saturating_sub(nonzeros),
        own_least,
        own_largest,
        effective_least: amplitudes(&values, effective).0,
        largest: values.iter().fold(0.0, |largest, value| value.abs().max(largest)).into(),
        norm: energy(&values).sqrt(),
    }
}

/// Least and largest |γ|·‖d‖ over the non-zeros; zeros where there are none.
fn amplitudes(values: &[f32], dictionary: &DictionaryProfile) -> (f64, f64) {
    let weighted = values
        .iter()
        .zip(&dictionary.norms)
        .filter(|(value, _)| **value != 0.0)
        .map(|(&value, &norm)| f64::from(value.abs()) * f64::from(norm));
    let (least, largest) =
        weighted.fold((f64::INFINITY, 0.0f64), |(least, largest), value| (least.min(value), largest.max(value)));
    if least.is_finite() { (least, largest) } else { (0.0, 0.0) }
}

/// How far an estimate of one representation is from the true one, in the norms that theorems bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// ‖γ̂_i − γ_i‖₂.
    pub global: f64,
    /// ‖γ̂_i − γ_i‖ᵖ_{2,∞}.
    pub local: f64,
    /// ‖γ̂_i − γ_i‖_∞.
    pub largest: f64,
    /// Whether the estimate is non-zero nowhere but on the true support.
    pub contained: bool,
    /// Whether both supports are equal.
    pub equal: bool,
}

impl Errors {
    /// Of estimates of γ_1 … γ_L of one signal, layer by layer.
    ///
    /// # Panics
    /// If their lengths are not those of the model's codes.
    pub fn of(profile: &ModelProfile, estimates: &[Vec<f32>], truths: &[Vec<f32>]) -> Vec<Self> {
        let layers = estimates.iter().zip(truths).enumerate();
        let of_layer = |(index, (estimate, truth)): (usize, (&Vec<f32>, &Vec<f32>))| {
            let shape: SignalShape = profile.layer(index + 1).code;
            let difference: Vec<f32> = estimate.iter().zip(truth).map(|(found, value)| found - value).collect();
            let pairs = || estimate.iter().zip(truth).map(|(found, value)| (*found != 0.0, *value != 0.0));
            Self {
                global: energy(&difference).sqrt(),
                local: patch_norm(&difference, shape, patch_extent(profile.geometry(), index + 1)),
                largest: difference.iter().fold(0.0, |largest, value| value.abs().max(largest)).into(),
                contained: pairs().all(|(found, value)| value || !found),
                equal: pairs().all(|(found, value)| value == found),
            }
        };
        layers.map(of_layer).collect()
    }
}
