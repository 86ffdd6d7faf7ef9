//! Signals in the model, drawn with all their representations.
//!
//! A sparse γ_L alone makes no signal of M_λ: with dense D_2 … D_L its γ_{L−1} is dense, and the model holds next to nothing. The
//! *dictionary sparsity condition* says when every sparse γ_L will do (J. Sulam, V. Papyan, Y. Romano, M. Elad, "Multi-Layer
//! Convolutional Sparse Modeling: Pursuit and Dictionary Learning", IEEE Trans. Signal Processing 66(15), 2018); where it does not
//! hold, [`Sampler`] looks for those that will, place by place, and says what it has tried where it finds none.
//!
//! Supports are propagated as if no two entries ever cancelled. What is drawn therefore keeps its limits; what is not found may exist
//! all the same, as a combination of atoms in which entries cancel.

use super::stripe::{own_radius, stripe_norm};
use super::{Mlcsc, operator::Operator};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerGeometry, SignalShape};
use crate::kernels::sparse::{HostFilters, SparseDictionary, nonzeros, to_host};
use burn::tensor::{Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The dictionary sparsity condition of one layer i > 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SparsityCondition {
    /// i.
    pub layer: usize,
    /// ‖D_i‖₀, the most non-zeros in an atom.
    pub atom_nonzeros: usize,
    /// λ_{i−1}/(λ_i c_i), the most that there may be.
    pub limit: f64,
}

impl SparsityCondition {
    /// Whether the layer satisfies it.
    pub fn holds(&self) -> bool {
        self.atom_nonzeros as f64 <= self.limit
    }
}

/// ‖D_i‖₀ ≤ λ_{i−1}/(λ_i c_i) for every layer i > 1: if all hold, every γ_L with ‖γ_L‖ˢ_{0,∞} ≤ λ_L makes a signal of M_λ.
///
/// A stripe of γ_{i−1} is touched by atoms at no more than ⌊(2r_{i−1} + k_i − 1)/s_i⌋ + 1 positions of γ_i per axis; c_i is the number of
/// stripes of γ_i that cover these. (The paper's ⌈(2n_{i−1} − 1)/n_i⌉, for one dimension without stride, is never smaller.)
///
/// # Errors
/// Not as many limits as layers, or a limit of 0; a geometry of other layers than the model's.
pub fn sparsity_conditions(model: &Mlcsc, geometry: &Geometry, limits: &[usize]) -> Result<Vec<SparsityCondition>> {
    let layers = geometry.layers();
    let filters: Vec<HostFilters> = model.filters().into_iter().map(HostFilters::from_tensor).collect();
    if !filters.iter().map(HostFilters::dims).eq(layers.iter().map(LayerGeometry::filter_dims)) {
        return Err(Error::shape("geometry", "the layers of the model", "other ones"));
    }
    if limits.len() != layers.len() || limits.contains(&0) {
        let expected = format!("{}, one ≥ 1 for each layer", layers.len());
        return Err(Error::shape("limits of stripes", expected, format!("{limits:?}")));
    }
    let conditions = (1..layers.len())
        .map(|index| {
            let [above, below] = [own_radius(&layers[index]), own_radius(&layers[index - 1])];
            let touching = layers[index].touching(below.map(|radius| 2 * radius + 1));
            let covering: usize = (0..2).map(|axis| touching[axis].div_ceil(2 * above[axis] + 1)).product();
            let atoms = &filters[index];
            let count = |atom: usize| atoms.atom(atom).iter().filter(|value| **value != 0.0).count();
            SparsityCondition {
                layer: index + 1,
                atom_nonzeros: (0..atoms.atoms()).map(count).max().unwrap_or(0),
                limit: limits[index - 1] as f64 / (limits[index] * covering) as f64,
            }
        })
        .collect();
    Ok(conditions)
}

/// What signals are to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// Non-zeros of γ_L, at least 1. Default: as many as it takes until the fullest stripe of γ_L holds its limit.
    #[serde(default)]
    pub nonzeros: Option<usize>,
    /// λ_1 … λ_L: the most non-zeros in a stripe of every layer's own atoms, each at least 1. Default: no limits.
    #[serde(default)]
    pub limits: Option<Vec<usize>>,
    /// Least and largest magnitude of the non-zeros of γ_L, 0 < least ≤ largest; uniform between. Default 1 to 2.
    #[serde(default = "default_amplitudes")]
    pub amplitudes: [f32; 2],
    /// Whether all non-zeros are positive. Default: signs are drawn.
    #[serde(default)]
    pub nonnegative: bool,
}

fn default_amplitudes() -> [f32; 2] {
    [1.0, 2.0]
}

impl SampleConfig {
    /// With that many non-zeros of γ_L, without limits.
    pub fn new(nonzeros: usize) -> Self {
        Self { nonzeros: Some(nonzeros), limits: None, amplitudes: default_amplitudes(), nonnegative: false }
    }

    /// With those limits of all layers, and as full as the deepest one allows in one stripe.
    pub fn within(limits: Vec<usize>) -> Self {
        Self { nonzeros: None, limits: Some(limits), amplitudes: default_amplitudes(), nonnegative: false }
    }

    /// A sampler for a model on signals of one shape.
    ///
    /// # Errors
    /// Numbers out of range; not one limit per layer; neither non-zeros nor limits; more non-zeros than γ_L has places; limits that
    /// no single atom of D_L keeps, its entries counted as if none cancelled.
    pub fn init(self, operator: &Operator) -> Result<Sampler<'_>> {
        let geometry = operator.geometry();
        let code = operator.code();
        if let Some(nonzeros) = self.nonzeros
            && !(1..=code.len()).contains(&nonzeros)
        {
            let expected = format!("1 to {}, the places of γ_{}", code.len(), geometry.depth());
            return Err(Error::parameter("nonzeros", nonzeros, expected));
        }
        if let Some(limits) = &self.limits {
            if limits.len() != geometry.depth() {
                let expected = format!("{}, one per layer", geometry.depth());
                return Err(Error::shape("limits of the stripe norms", expected, limits.len()));
            }
            if let Some(layer) = limits.iter().position(|&limit| limit == 0) {
                return Err(Error::parameter(format!("limit of layer {}", layer + 1), 0, "at least 1"));
            }
        } else if self.nonzeros.is_none() {
            return Err(Error::missing("nonzeros", "a number of non-zeros, or limits of the stripe norms"));
        }
        let [least, largest] = self.amplitudes;
        if !(least > 0.0 && largest >= least && largest.is_finite()) {
            let found = format!("{least} to {largest}");
            return Err(Error::parameter("amplitudes", found, "finite magnitudes, 0 < least ≤ largest"));
        }
        let mut sampler = Sampler { operator, config: self, magnitudes: Vec::new(), admitted: Vec::new() };
        if sampler.config.limits.is_some() {
            sampler.magnitudes = magnitudes(operator);
        }
        sampler.admit()?;
        Ok(sampler)
    }
}

/// |D_2| … |D_L| by their non-zeros: what they reach.
fn magnitudes(operator: &Operator) -> Vec<SparseDictionary> {
    let layers = operator.geometry().layers();
    operator.layer_filters()[1..]
        .iter()
        .zip(&layers[1..])
        .map(|(filters, layer)| SparseDictionary::new(&HostFilters::from_tensor(filters.clone().abs()), layer))
        .collect()
}

/// Places that are tried for one signal, at most, per wanted non-zero.
const TRIES: usize = 200;

/// Signals that are begun anew, at most, before one is given up.
const ATTEMPTS: usize = 20;

/// Draws signals of a model; see [`SampleConfig`].
#[derive(Debug)]
pub struct Sampler<'a> {
    operator: &'a Operator,
    config: SampleConfig,
    magnitudes: Vec<SparseDictionary>,
    /// Places whose atom alone keeps all limits, without cancellation.
    admitted: Vec<usize>,
}

/// Signals with their representations.
#[derive(Debug, Clone)]
pub struct Samples {
    /// x, `[n, channels, height, width]`.
    pub signals: Tensor<4>,
    /// γ_1 … γ_L, γ_i as `[n, m_i, h_i, w_i]`, γ_{i−1} = D_i γ_i.
    pub representations: Vec<Tensor<4>>,
    /// ‖γ_i‖ˢ_{0,∞} on the stripe of the layer's own atoms: one list per layer, one norm per signal.
    pub stripe_norms: Vec<Vec<usize>>,
}

/// What the support of a code reaches in every layer, and how full the stripes are.
#[derive(Clone)]
struct Reached {
    /// Supports of γ_1 … γ_L as zeros and ones.
    supports: Vec<Vec<f32>>,
}

impl Sampler<'_> {
    /// Finds the places whose atom alone keeps all limits, without cancellation.
    fn admit(&mut self) -> Result<()> {
        let code = self.operator.code();
        let Some(limits) = self.config.limits.clone() else {
            self.admitted = (0..code.len()).collect();
            return Ok(());
        };
        let positions = code.height * code.width;
        // Whole atoms are alike wherever they are: only padding makes it necessary to look at every place.
        let alike = self.operator.geometry().layers().iter().all(|layer| layer.padding == [0, 0]);
        let middle = code.height / 2 * code.width + code.width / 2;
        let mut least: Option<(usize, usize)> = None;
        for place in 0..code.len() {
            let (atom, position) = (place / positions, place % positions);
            if alike && position != middle {
                continue;
            }
            match self.exceeded(&self.reach(&[place]), &limits) {
                None if alike => self.admitted.extend(atom * positions..(atom + 1) * positions),
                None => self.admitted.push(place),
                Some(found) => least = Some(least.map_or(found, |least| least.min(found))),
            }
        }
        match (self.admitted.is_empty(), least) {
            (true, Some((layer, norm))) => {
                let depth = self.operator.geometry().depth();
                Err(Error::parameter(
                    format!("limit of layer {layer}"),
                    limits[layer - 1],
                    format!(
                        "at least {norm}, the fewest that an atom of D_{depth} within the deeper limits reaches in one stripe of \
                         γ_{layer}; every atom was tried alone, as if no entries cancelled, and no combination of atoms in which \
                         some do"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    /// What non-zeros at these places of γ_L reach.
    fn reach(&self, places: &[usize]) -> Reached {
        let layers = self.operator.geometry().layers();
        let mut support = vec![0.0; self.operator.code().len()];
        places.iter().for_each(|&place| support[place] = 1.0);
        let mut supports = vec![support];
        for (dictionary, layer) in self.magnitudes.iter().zip(&layers[1..]).rev() {
            let mut below = vec![0.0; layer.signal.len()];
            dictionary.synthesize_into(nonzeros(&supports[supports.len() - 1]), &mut below);
            below.iter_mut().for_each(|value| *value = f32::from(*value > 0.0));
            supports.push(below);
        }
        supports.reverse();
        Reached { supports }
    }

    /// The deepest layer whose limit is exceeded, with its stripe norm.
    fn exceeded(&self, reached: &Reached, limits: &[usize]) -> Option<(usize, usize)> {
        let layers = self.operator.geometry().layers();
        (0..layers.len()).rev().find_map(|index| {
            let norm = stripe_norm(&reached.supports[index], layers[index].code, own_radius(&layers[index]));
            (norm > limits[index]).then_some((index + 1, norm))
        })
    }

    /// Draws `count` signals.
    ///
    /// # Errors
    /// Limits that leave no room for so many non-zeros, as far as random search can tell.
    pub fn sample(&self, count: usize, rng: &mut impl Rng) -> Result<Samples> {
        self.sample_while(count, rng, || Ok(()))
    }

    /// As [`Self::sample`]; `go_on` is asked before every signal, since a search for supports within limits can take long, and its
    /// error ends it.
    ///
    /// # Errors
    /// As [`Self::sample`]; that of `go_on`.
    pub fn sample_while(
        &self,
        count: usize,
        rng: &mut impl Rng,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Samples> {
        let code = self.operator.code();
        let mut values = vec![0.0f32; count * code.len()];
        for values in values.chunks_exact_mut(code.len()) {
            go_on()?;
            let [least, largest] = self.config.amplitudes;
            for place in self.support(rng)? {
                let magnitude = least + (largest - least) * rng.random::<f32>();
                let negative = !self.config.nonnegative && rng.random::<bool>();
                values[place] = if negative { -magnitude } else { magnitude };
            }
        }
        let codes = Tensor::from_data(TensorData::new(values, code.batched(count)), &self.operator.device());
        self.complete(codes)
    }

    /// The signals and representations of given deepest codes, checked against the limits.
    ///
    /// # Shapes
    /// - codes: γ_L as `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// Another shape; values that are not finite; a layer that exceeds its limit.
    pub fn complete(&self, codes: Tensor<4>) -> Result<Samples> {
        let operator = self.operator;
        let expected = operator.code().batched(codes.dims()[0]);
        if codes.dims() != expected {
            return Err(Error::shape("codes", format!("{expected:?}"), format!("{:?}", codes.dims())));
        }
        if codes.dims()[0] == 0 {
            let layers = operator.geometry().layers();
            let empty = |shape: SignalShape| Tensor::zeros(shape.batched(0), &operator.device());
            return Ok(Samples {
                signals: empty(operator.signal()),
                representations: layers.iter().map(|layer| empty(layer.code)).collect(),
                stripe_norms: vec![Vec::new(); layers.len()],
            });
        }
        if let Some(value) = to_host(codes.clone()).iter().find(|value| !value.is_finite()) {
            return Err(Error::parameter("codes", value, "finite values"));
        }
        let representations = operator.propagate(codes.clone());
        let stripe_norms: Vec<Vec<usize>> = representations
            .iter()
            .zip(operator.geometry().layers())
            .map(|(gamma, layer)| super::stripe::stripe_norms(gamma.clone(), own_radius(layer)))
            .collect();
        for (index, (norms, &limit)) in stripe_norms.iter().zip(self.config.limits.iter().flatten()).enumerate() {
            if let Some(norm) = norms.iter().find(|norm| **norm > limit) {
                let name = format!("non-zeros in a stripe of γ_{}", index + 1);
                return Err(Error::parameter(name, norm, format!("at most {limit}")));
            }
        }
        Ok(Samples { signals: operator.synthesize(codes), representations, stripe_norms })
    }

    /// A random support of γ_L.
    fn support(&self, rng: &mut impl Rng) -> Result<Vec<usize>> {
        let Some(limits) = &self.config.limits else {
            let nonzeros = self.config.nonzeros.unwrap_or(1);
            return Ok(rand::seq::index::sample(rng, self.admitted.len(), nonzeros).into_vec());
        };
        let layers = self.operator.geometry().layers();
        let (deepest, radius) = (self.operator.code(), own_radius(&layers[layers.len() - 1]));
        let most = self.config.nonzeros.unwrap_or(deepest.len());
        let (mut fewest_missing, mut stopped_by) = (usize::MAX, layers.len());
        for _ in 0..ATTEMPTS {
            let mut places = self.admitted.clone();
            let tries =
                TRIES.saturating_mul(self.config.nonzeros.unwrap_or(limits[layers.len() - 1])).min(places.len());
            let (tried, _) = places.partial_shuffle(rng, tries);
            let mut support: Vec<usize> = Vec::new();
            let mut blocked = layers.len();
            for &mut place in tried {
                support.push(place);
                let reached = self.reach(&support);
                if let Some((layer, _)) = self.exceeded(&reached, limits) {
                    support.pop();
                    blocked = layer;
                    continue;
                }
                let full = match self.config.nonzeros {
                    Some(nonzeros) => support.len() == nonzeros,
                    None => {
                        let filled = stripe_norm(&reached.supports[layers.len() - 1], deepest, radius);
                        filled == limits[layers.len() - 1]
                    }
                };
                if full {
                    return Ok(support);
                }
            }
            // Where there is no number to be reached, what fits is a signal of the model.
            if self.config.nonzeros.is_none() && !support.is_empty() {
                return Ok(support);
            }
            if most - support.len() < fewest_missing {
                (fewest_missing, stopped_by) = (most - support.len(), blocked);
            }
        }
        Err(Error::parameter(
            "nonzeros",
            most,
            format!(
                "at most {}, of which the limit {} of layer {stopped_by} still leaves room for a support ({ATTEMPTS} random ones \
                 were tried, as if no entries cancelled)",
                most.saturating_sub(fewest_missing),
                limits[stopped_by - 1],
            ),
        ))
    }
}

/// Random numbers that are the same on every platform.
pub fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Gaussian noise for every signal, exactly that part of the signal's length.
///
/// # Shapes
/// - signals: `[n, channels, height, width]`, the same out.
pub fn relative_noise(signals: &Tensor<4>, part: f32, rng: &mut impl Rng) -> Tensor<4> {
    let lengths = signals.clone().square().sum_dims(&[1, 2, 3]).sqrt();
    add_noise(signals.zeros_like(), part, rng) * lengths
}

/// Adds Gaussian noise of exactly that length to every signal.
///
/// # Shapes
/// - signals: `[n, channels, height, width]`, the same out.
pub fn add_noise(signals: Tensor<4>, length: f32, rng: &mut impl Rng) -> Tensor<4> {
    let dims = signals.dims();
    let len = dims[1] * dims[2] * dims[3];
    let mut values = Vec::with_capacity(dims[0] * len);
    for _ in 0..dims[0] {
        let noise = crate::random::normal(rng, len);
        let norm = crate::kernels::sparse::norm(&noise).max(f32::MIN_POSITIVE);
        values.extend(noise.into_iter().map(|value| value * length / norm));
    }
    let noise = Tensor::from_data(TensorData::new(values, dims), &signals.device());
    signals + noise
}
