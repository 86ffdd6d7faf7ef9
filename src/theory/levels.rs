//! What the theorems need to know of a signal's representations, and errors measured in the norms that they bound.

use super::cascade::{Cancelled, Map};
use super::profile::{DictionaryProfile, ModelProfile};
use super::rounding::{down, up};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::sparse::{energy, to_host};
use crate::model::stripe::{patch_extent, patch_nonzeros, patch_norm, stripe_norm};
use burn::tensor::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// One representation γ_i in numbers, rounded outwards: counts are at least the exact ones, least values at most, largest at least.
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
    /// Least |γ|·‖d‖ over the non-zeros, with the columns of D_i; 0 where there are none, or where one of them may be nearly so.
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
    /// Of representations γ_1 … γ_L of a batch of signals, one [`Levels`] for each.
    ///
    /// γ_L is taken as it is, and the others are computed from it anew: an entry counts as zero if nothing reaches it or if what does
    /// cancels exactly, not if it is small.
    ///
    /// # Shapes
    /// - representations: L tensors, γ_i as `[n, m_i, h_i, w_i]`, with γ_{i−1} = D_i γ_i.
    ///
    /// # Errors
    /// Representations of other shapes than the model's; codes that are not finite.
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
        let codes = to_host(representations[representations.len() - 1].clone());
        if let Some(value) = codes.iter().find(|value| !value.is_finite()) {
            return Err(Error::parameter(format!("γ_{}", profile.depth()), value, "finite values"));
        }
        Ok(codes.par_chunks_exact(geometry.code().len()).map(|code| Self::of_code(profile, code)).collect())
    }

    fn of_code(profile: &ModelProfile, code: &[f32]) -> Self {
        let maps = profile.cascade().propagate(code);
        let mut cancelled = Cancelled::new(profile.cascade(), &maps);
        let layers = (1..=profile.depth()).map(|depth| {
            let map = &maps[profile.depth() - depth];
            let supported = (0..map.values.len()).map(|index| f32::from(!cancelled.is_zero(depth, index))).collect();
            layer(profile, depth, map, supported)
        });
        Self { layers: layers.collect() }
    }

    /// Whether no entry that an active atom reaches cancels.
    pub fn supports_survive(&self) -> bool {
        self.layers.iter().all(|layer| layer.vanished == 0)
    }
}

/// A representation from its values and its support in zeros and ones.
fn layer(profile: &ModelProfile, depth: usize, map: &Map, support: Vec<f32>) -> LayerLevels {
    let shape = profile.layer(depth).code;
    let reached: Vec<f32> = map.magnitudes.iter().map(|magnitude| f32::from(*magnitude > 0.0)).collect();
    let count = |support: &[f32]| support.iter().filter(|value| **value != 0.0).count();
    let nonzeros = count(&support);
    let error = profile.cascade().error(depth);
    // Bounds of the magnitude of every non-zero, from below and above.
    let magnitudes: Vec<Option<[f64; 2]>> = map
        .values
        .iter()
        .zip(&map.magnitudes)
        .zip(&support)
        .map(|((value, magnitude), supported)| {
            let (value, error) = (value.abs(), error * magnitude);
            (*supported != 0.0).then(|| [down((value - error).max(0.0), 4), up(value + error, 4)])
        })
        .collect();
    let (own, effective) = (&profile.own[depth - 1], &profile.effective[depth - 1]);
    let (own_least, own_largest) = amplitudes(&magnitudes, own);
    LayerLevels {
        nonzeros,
        own_stripe: stripe_norm(&support, shape, own.radius),
        effective_stripe: stripe_norm(&support, shape, effective.radius),
        patch: patch_nonzeros(&support, shape, patch_extent(profile.geometry(), depth)),
        reached_stripe: stripe_norm(&reached, shape, own.radius),
        vanished: count(&reached) - nonzeros,
        own_least,
        own_largest,
        effective_least: amplitudes(&magnitudes, effective).0,
        largest: magnitudes.iter().flatten().fold(0.0, |largest, magnitude| magnitude[1].max(largest)),
        norm: map.values.iter().map(|value| value * value).sum::<f64>().sqrt(),
    }
}

/// Least and largest |γ|·‖d‖ over the non-zeros; zeros where there are none.
fn amplitudes(magnitudes: &[Option<[f64; 2]>], dictionary: &DictionaryProfile) -> (f64, f64) {
    let weighted = magnitudes.iter().zip(&dictionary.norms).filter_map(|(magnitude, norm)| {
        magnitude.map(|[least, most]| [down(least * norm[0], 2), up(most * norm[1], 2)])
    });
    let (least, largest) =
        weighted.fold((f64::INFINITY, 0.0f64), |(least, largest), value| (least.min(value[0]), largest.max(value[1])));
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
