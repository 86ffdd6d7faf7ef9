//! Models made to order: a geometry, so many non-zeros in the atoms of D_2 … D_L, and low coherence.
//!
//! The guarantees speak where stripes hold fewer than ½(1 + 1/μ) non-zeros. Random dictionaries have coherences at which that is one or
//! two; here the filters are moved, layer by layer, to make the largest correlation small, of D_i and of the effective dictionary D^(i)
//! at once: gradient steps on Σ|〈d_i, d_j〉|^p over all pairs of columns and shifts, with p growing, on unit atoms with fixed supports
//! (after J. Tropp, I. Dhillon, R. Heath, T. Strohmer, "Designing structured tight frames via an alternating projection method", IEEE
//! Trans. Information Theory 51(1), 2005, who approach the same bound by projections).
//!
//! The supports of sparse atoms are spread so that as few columns as possible share an entry: two atoms of z non-zeros that share one
//! correlate by about 1/z, which no choice of amplitudes mends.

use super::sample::generator;
use super::{Mlcsc, ModelConfig, dictionary, filters_as_codes};
use crate::device::scalar;
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerGeometry, SignalShape, reach_within};
use crate::kernels::correlation::for_each_shift;
use crate::kernels::product::product;
use crate::kernels::sparse::HostFilters;
use crate::random;
use burn::tensor::{Device, Tensor};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// A model to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesignConfig {
    /// Geometry.
    pub model: ModelConfig,
    /// Non-zeros of every atom of D_2 … D_L, each from 1 to the atom's values. D_1 is dense.
    pub atom_nonzeros: Vec<usize>,
    /// Gradient steps for every layer. Default 400; 0 leaves the filters as they are drawn.
    #[serde(default = "default_steps")]
    pub steps: usize,
    /// Seed of the random filters and supports. Default 0.
    #[serde(default)]
    pub seed: u64,
}

fn default_steps() -> usize {
    400
}

/// First length of a step, on atoms of unit norm.
const STEP: f32 = 0.2;

/// First and last power of the correlations.
const POWERS: [f32; 2] = [4.0, 40.0];

impl DesignConfig {
    /// With the defaults.
    pub fn new(model: ModelConfig, atom_nonzeros: Vec<usize>) -> Self {
        Self { model, atom_nonzeros, steps: default_steps(), seed: 0 }
    }

    /// Makes the model.
    ///
    /// # Errors
    /// A geometry that does not fit itself; not one number of non-zeros per layer after the first; a number that atoms don't have.
    pub fn init(&self, device: &Device) -> Result<Mlcsc> {
        let geometry = self.model.geometry()?;
        if self.atom_nonzeros.len() + 1 != geometry.depth() {
            let expected = format!("{}, one per layer after the first", geometry.depth() - 1);
            return Err(Error::shape("non-zeros of atoms", expected, self.atom_nonzeros.len()));
        }
        let mut rng = generator(self.seed);
        let mut filters: Vec<Tensor<4>> = Vec::with_capacity(geometry.depth());
        for (index, layer) in geometry.layers().iter().enumerate() {
            let drawn = match index {
                0 => dense(layer, &mut rng),
                _ => {
                    let nonzeros = self.atom_nonzeros[index - 1];
                    if !(1..=layer.atom_len()).contains(&nonzeros) {
                        let expected = format!("1 to {}, the values of an atom", layer.atom_len());
                        return Err(Error::parameter(
                            format!("non-zeros of atoms of layer {}", index + 1),
                            nonzeros,
                            expected,
                        ));
                    }
                    sparse(layer, nonzeros, &mut rng)
                }
            };
            let drawn = drawn.to_tensor(device);
            let support = drawn.clone().not_equal_scalar(0.0).float();
            let below = Below::new(&geometry, &filters, drawn.dims());
            filters.push(optimize(layer, drawn, support, &below, self.steps));
        }
        Mlcsc::from_filters(self.model.clone(), filters)
    }
}

/// Atoms with Gaussian entries.
fn dense(layer: &LayerGeometry, rng: &mut impl Rng) -> HostFilters {
    let dims = layer.filter_dims();
    let values = random::normal(rng, dims.iter().product());
    HostFilters::new(dims, values)
}

/// Atoms with entries of magnitude ½ to 1 in places that as few other columns as possible use.
fn sparse(layer: &LayerGeometry, nonzeros: usize, rng: &mut impl Rng) -> HostFilters {
    let mut filters = HostFilters::zeros(layer.filter_dims());
    let [atoms, _, height, width] = filters.dims();
    let positions = [layer.code.height, layer.code.width];
    // Entries that a shift by whole strides brings together are rivals, where there is more than one position to shift between.
    let residue = |axis: usize, place: usize| if positions[axis] == 1 { place } else { place % layer.stride[axis] };
    let rivals = |entry: usize| {
        let (channel, row, column) = (entry / (height * width), entry / width % height, entry % width);
        (channel * height + residue(0, row)) * width + residue(1, column)
    };
    let mut uses = vec![0u32; layer.atom_len()];
    for atom in 0..atoms {
        let mut order: Vec<(u32, usize)> = (0..layer.atom_len()).map(|entry| (rng.random(), entry)).collect();
        order.sort_unstable();
        for _ in 0..nonzeros {
            let free = |entry: usize| filters.atom(atom)[entry] == 0.0;
            let best = order
                .iter()
                .map(|&(_, entry)| entry)
                .filter(|&entry| free(entry))
                .min_by_key(|&entry| uses[rivals(entry)]);
            if let Some(entry) = best {
                uses[rivals(entry)] += 1;
                let magnitude = 0.5 + 0.5 * rng.random::<f32>();
                filters.atom_mut(atom)[entry] = if rng.random() { magnitude } else { -magnitude };
            }
        }
    }
    filters
}

/// The layers between an atom and the signal.
struct Below {
    /// Filters and geometry of D_{i−1} … D_1, with the filters of D_i for codes.
    layers: Vec<(Tensor<4>, LayerGeometry)>,
    stride: [usize; 2],
    positions: [usize; 2],
}

impl Below {
    fn new(geometry: &Geometry, filters: &[Tensor<4>], dims: [usize; 4]) -> Self {
        let depth = filters.len() + 1;
        let mut codes = dims;
        let mut layers = Vec::with_capacity(filters.len());
        for (filters, layer) in filters.iter().zip(geometry.layers()).rev() {
            let padded = filters_as_codes(codes, filters.dims(), layer.stride);
            codes = padded.signal.batched(dims[0]);
            layers.push((filters.clone(), padded));
        }
        let SignalShape { height, width, .. } = geometry.layers()[depth - 1].code;
        Self { layers, stride: geometry.effective(depth).stride, positions: [height, width] }
    }

    /// The effective atoms.
    fn synthesize(&self, filters: Tensor<4>) -> Tensor<4> {
        self.layers
            .iter()
            .fold(filters, |codes, (filters, layer)| dictionary::synthesize(codes, filters.clone(), layer))
    }

    /// Its adjoint.
    fn analyze(&self, gradient: Tensor<4>) -> Tensor<4> {
        let layers = self.layers.iter().rev();
        layers.fold(gradient, |below, (filters, layer)| dictionary::analyze(below, filters.clone(), layer))
    }
}

/// Moves the filters of one layer to where the largest correlation of its columns and of the effective ones is small.
fn optimize(layer: &LayerGeometry, filters: Tensor<4>, support: Tensor<4>, below: &Below, steps: usize) -> Tensor<4> {
    let positions = [layer.code.height, layer.code.width];
    let mut current = unit(filters);
    let (mut best, mut least) = (current.clone(), f32::INFINITY);
    for step in 0..=steps {
        let part = step as f32 / steps.max(1) as f32;
        let own = Correlations::of(&current, layer.stride, positions);
        let effective = (!below.layers.is_empty())
            .then(|| Correlations::of(&below.synthesize(current.clone()), below.stride, below.positions));
        let largest = effective.iter().fold(own.largest, |largest, effective| largest.max(effective.largest));
        if largest < least {
            (best, least) = (current.clone(), largest);
        }
        if step == steps || largest == 0.0 {
            break;
        }
        let power = POWERS[0] * (POWERS[1] / POWERS[0]).powf(part);
        let mut gradient = own.gradient(power, largest);
        if let Some(effective) = effective {
            gradient = gradient + below.analyze(effective.gradient(power, largest));
        }
        // Along the sphere and on the support.
        let gradient = gradient * support.clone();
        let radial = (gradient.clone() * current.clone()).sum_dims(&[1, 2, 3]);
        let gradient = gradient - current.clone() * radial;
        let length = scalar::<1, _, f32>(gradient.clone().square().sum_dims(&[1, 2, 3]).max()).sqrt();
        if length <= f32::MIN_POSITIVE {
            break;
        }
        let step = STEP * (1.0 - part).powi(2);
        current = unit(current - gradient * (step / length));
    }
    best
}

/// Atoms of unit norm.
fn unit(filters: Tensor<4>) -> Tensor<4> {
    filters.clone() / norms(&filters)
}

fn norms(filters: &Tensor<4>) -> Tensor<4> {
    filters.clone().square().sum_dims(&[1, 2, 3]).sqrt().clamp_min(f32::MIN_POSITIVE)
}

/// Correlations of the normalised columns at every shift.
struct Correlations {
    unit: Tensor<4>,
    norms: Tensor<4>,
    stride: [usize; 2],
    /// (vertical shift, horizontal shift, correlations), the diagonal of shift 0 being zero.
    shifts: Vec<(isize, isize, Tensor<2>)>,
    largest: f32,
}

impl Correlations {
    fn of(filters: &Tensor<4>, stride: [usize; 2], positions: [usize; 2]) -> Self {
        let [atoms, _, height, width] = filters.dims();
        let norms = norms(filters);
        let unit = filters.clone() / norms.clone();
        let reach = reach_within([height, width], stride, positions);
        let device = filters.device();
        let others = Tensor::<2>::ones([atoms, atoms], &device) - Tensor::eye(atoms, &device);
        let mut shifts = Vec::new();
        for_each_shift(&unit, stride, reach, |vertical, horizontal, inner| {
            let inner = if (vertical, horizontal) == (0, 0) { inner * others.clone() } else { inner };
            shifts.push((vertical, horizontal, inner));
        });
        let all = Tensor::cat(shifts.iter().map(|(_, _, inner)| inner.clone()).collect(), 0);
        let largest = scalar::<1, _, f32>(all.abs().max());
        Self { unit, norms, stride, shifts, largest }
    }

    /// Gradient of Σ|c/s|^p, up to a factor, with respect to the filters.
    fn gradient(&self, power: f32, scale: f32) -> Tensor<4> {
        let [atoms, channels, height, width] = self.unit.dims();
        let mut gradient = self.unit.zeros_like();
        for (vertical, horizontal, inner) in &self.shifts {
            let relative = inner.clone() / scale;
            let pull = relative.clone().sign() * relative.abs().powf_scalar(power - 1.0);
            let down = vertical.unsigned_abs() * self.stride[0];
            let across = horizontal.unsigned_abs() * self.stride[1];
            let (left, right) = (0..width - across, across..width);
            let (fixed, moved) = if *horizontal < 0 { (left, right) } else { (right, left) };
            let fixed = [0..atoms, 0..channels, down..height, fixed];
            let moved = [0..atoms, 0..channels, 0..height - down, moved];
            let rows = |part: &[std::ops::Range<usize>; 4]| {
                let len = channels * part[2].len() * part[3].len();
                self.unit.clone().slice(part.clone()).reshape([atoms, len])
            };
            let shape = [atoms, channels, height - down, width - across];
            for (pull, of, by) in [(pull.clone(), &fixed, &moved), (pull.transpose(), &moved, &fixed)] {
                let added = gradient.clone().slice(of.clone()) + product(pull, rows(by)).reshape(shape);
                gradient = gradient.slice_assign(of.clone(), added);
            }
        }
        // Through the normalisation.
        let radial = (gradient.clone() * self.unit.clone()).sum_dims(&[1, 2, 3]);
        (gradient - self.unit.clone() * radial) / self.norms.clone()
    }
}
