//! Basis pursuit over convolutional dictionaries by descent on the residual: for images, whose codes are too long for tables of
//! inner products.
//!
//! The residual y − Dγ is kept up to date, so that looking at a coefficient is one inner product with a window of it and moving
//! one is adding an atom to it, whatever the number of atoms. Work is done on a working set of coefficients:
//!
//! 1. Dᵀ(y − Dγ) in full ([`Convolution`]) gives the duality gap and the coefficients that violate optimality, of which the
//!    strongest of every small cell join the set: neighbours of a violator mostly violate for the same reason.
//! 2. Coordinate descent passes over the set, forth and back (J. Friedman, T. Hastie, R. Tibshirani, "Regularization paths for
//!    generalized linear models via coordinate descent", J. Stat. Software 33(1), 2010).
//! 3. Shifted atoms are so alike that this alone settles slowly: conjugate gradients minimise over the non-zeros with their signs
//!    held, and the step is taken up to where coefficients would change sign, which become zero (R. Byrd, G. Chin, J. Nocedal,
//!    F. Oztoprak, "A family of second-order methods for convex ℓ1-regularized optimization", Math. Programming 159, 2016).
//!
//! Rows of the code are divided into strips; those of even number share no sample with each other, nor do those of odd number,
//! so that they are worked on in parallel, with results that do not depend on the number of threads. It runs on the host's
//! cores whatever the device.

use super::duality::Certificate;
use super::threshold::soft_threshold_value;
use super::{BasisPursuitConfig, Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::{Error, Result};
use crate::model::Operator;
use crate::model::convolution::Convolution;
use crate::model::geometry::{LayerGeometry, SignalShape};
use crate::model::simd::vectorised;
use crate::model::sparse::{HostFilters, energy, nonzeros};
use burn::tensor::{Tensor, TensorData};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Descent on the residual with checked parameters.
#[derive(Debug, Clone)]
pub struct ResidualDescent {
    config: BasisPursuitConfig,
}

/// Whether descent on the residual can work with an operator, and positions share enough for it to be worth it.
pub(super) fn suits(operator: &Operator) -> bool {
    operator.geometry().effective_is_convolution() && !operator.code().is_single_position()
}

/// Code positions from which on descent on the residual is faster than coordinate descent with the atoms' inner products:
/// `cargo bench --bench convolution -- coding` has it slower with 9 positions and faster with 49.
const MANY_POSITIONS: usize = 36;

/// Whether it is what an operator should be given to though the atoms' inner products could be had.
pub(super) fn pays(operator: &Operator) -> bool {
    suits(operator) && operator.code().height * operator.code().width >= MANY_POSITIONS
}

/// Code positions of a strip's height and of a tile's width at least.
const TILE: usize = 16;

/// Extent of the cells whose strongest violators join the working set.
const CELL: usize = 4;

/// Violators of a cell that join at a time.
const PER_CELL: usize = 2;

/// Passes, each forth and back, between two looks at all coefficients.
const PASSES: usize = 2;

/// Sweeps that a coefficient stays in the working set while it is zero.
const IDLE: u32 = 4;

/// Iterations of conjugate gradients at most, and the part of the squared gradient at which they end: while the working set grows,
/// and when it has settled.
const GROWING: (usize, f64) = (20, 1e-2);
const SETTLED: (usize, f64) = (100, 1e-4);

/// Rounds in a row, of a working set that has settled, in which conjugate gradients are given more iterations: twice as many as in
/// the one before, for a tenth of what they left.
const EFFORTS: u32 = 4;

/// What a derivative may be in units of λ, and of the root mean square of the signal, so that conjugate gradients see but rounding.
const NEGLIGIBLE: [f64; 2] = [1e-6, 3e-7];

/// The working set has settled when fewer than one in so many members are new.
const NEWCOMERS: usize = 64;

/// Attempts at a step over the non-zeros, each half as long as the one before.
const HALVINGS: usize = 4;

/// Rounding of an objective that is summed in `f64` from `f32`, as a part of it.
const ROUNDING: f64 = 1e-8;

impl Pursuit for ResidualDescent {
    fn name(&self) -> &'static str {
        "residual-descent"
    }

    /// Takes λ, weights of the deepest layer's atoms, masks, and codes to start from; an operator that is one convolution.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let Some(geometry) = operator.geometry().effective_layer() else {
            let expected = "another one where a layer after the first has padding, so that D^(L) is no convolution";
            return Err(Error::parameter("algorithm", self.name(), expected));
        };
        let weights = problem.atom_weights(problem.depth());
        let dictionary = Dictionary::new(&HostFilters::from_tensor(operator.effective_filters()), &geometry, weights);
        let (signals, mask, count) = (to_host(problem.signals()), problem.mask().map(to_host), problem.count());
        let (signal_len, code_len) = (geometry.signal.len(), geometry.code.len());
        let BasisPursuitConfig { nonnegative, .. } = self.config;
        let signal = |row: usize| &signals[row * signal_len..][..signal_len];
        let largest: Vec<f32> = match lambda {
            Lambda::Relative(_) => (0..count)
                .into_par_iter()
                .map(|row| dictionary.look(&dictionary.image(signal(row)), f32::INFINITY, nonnegative, None).largest)
                .collect(),
            _ => vec![0.0; count],
        };
        let lambda = lambda.resolve(&largest)?;
        let mut codes = match problem.has_start() {
            true => to_host(problem.start()),
            false => vec![0.0; count * code_len],
        };
        if nonnegative {
            codes.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        // Inside the pool, for from outside every one of thousands of short parallel loops would wake it up.
        let reports = rayon::scope(|_| {
            codes
                .par_chunks_exact_mut(code_len)
                .enumerate()
                .map(|(row, code)| {
                    let mask = mask.as_ref().map(|mask| &mask[row * signal_len..][..signal_len]);
                    self.pursue_one(&dictionary, signal(row), mask, lambda[row], code)
                })
                .collect()
        });
        let data = TensorData::new(codes, operator.code().batched(count));
        Ok(Pursued::consistent(Tensor::from_data(data, &operator.device()), reports))
    }
}

impl ResidualDescent {
    /// With that gap, that many sweeps at most, and that sign.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn new(config: BasisPursuitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }

    /// Codes one signal, from the code that is there.
    fn pursue_one(
        &self,
        dictionary: &Dictionary,
        signal: &[f32],
        mask: Option<&[f32]>,
        lambda: f32,
        code: &mut [f32],
    ) -> SignalReport {
        let BasisPursuitConfig { gap, max_iterations, nonnegative } = self.config;
        let mut set = WorkingSet::new(dictionary, signal, mask, lambda, nonnegative);
        set.admit(nonzeros(code));
        let mut sweeps = 0;
        let mut settled = 0;
        loop {
            // Moves accumulate rounding; what the gap is computed from starts afresh.
            set.refresh();
            let look = dictionary.look(&set.residual, lambda, nonnegative, Some(&set.inside));
            let (certificate, nonzeros) = set.certify(look.largest);
            let converged = certificate.relative_gap() <= f64::from(gap);
            if converged || sweeps >= max_iterations {
                code.fill(0.0);
                set.members().for_each(|member| code[member.place as usize] = member.value);
                return SignalReport {
                    lambda,
                    iterations: sweeps,
                    objective: certificate.objective as f32,
                    relative_gap: certificate.relative_gap() as f32,
                    data_term: certificate.data_term as f32,
                    nonzeros,
                    stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                    finished_by: None,
                };
            }
            let is_settled = look.violators.len() * NEWCOMERS < set.members().count();
            settled = if is_settled { settled + 1 } else { 0 };
            set.admit(look.violators.into_iter().map(|place| (place, 0.0)));
            for pass in 0..PASSES {
                let turns = (max_iterations - sweeps).min(2);
                set.pass(pass > 0, turns);
                sweeps += turns;
            }
            let effort = EFFORTS.min(settled.max(1) - 1);
            let (iterations, tolerance) = if is_settled { SETTLED } else { GROWING };
            if !set.minimize_on_support(iterations << effort, tolerance * 0.1f64.powi(effort as i32)) {
                settled = 0;
            }
            set.forget();
        }
    }
}

/// The dictionary on the host, and how images are laid out for it, shared by all signals.
///
/// An image holds the signal with its padding, rows of all channels one after the other: `[rows, channels, pitch]`. A line ends
/// with so many zeros that whole vectors of an atom's line stay inside it.
struct Dictionary {
    /// The layer as if its signals had their padding.
    geometry: LayerGeometry,
    /// What the signal itself is like.
    signal: SignalShape,
    padding: [usize; 2],
    convolution: Convolution,
    /// Atoms as `[atom, rows, channels, line]`, lines ending with zeros.
    atoms: Vec<f32>,
    /// Lines of an atom.
    lines: usize,
    /// Length of an atom's line: whole vectors.
    line: usize,
    /// Length of an image's line.
    pitch: usize,
    /// Code positions of a strip's height and of a tile's width.
    tile: [usize; 2],
    /// One per atom.
    energies: Vec<f32>,
    weights: Vec<f32>,
}

/// What all correlations with a residual say.
struct Look {
    /// Largest correlation in units of the weights.
    largest: f32,
    /// Places that should join the working set, cell by cell.
    violators: Vec<usize>,
}

impl Dictionary {
    fn new(filters: &HostFilters, geometry: &LayerGeometry, weights: Option<&[f32]>) -> Self {
        let LayerGeometry { signal, kernel, stride, padding, .. } = geometry.clone();
        let padded = SignalShape::new(signal.channels, signal.height + 2 * padding[0], signal.width + 2 * padding[1]);
        let geometry = LayerGeometry { signal: padded, padding: [0, 0], ..geometry.clone() };
        let line = kernel[1].next_multiple_of(pulp::Arch::new().dispatch(Lanes));
        let lines = kernel[0] * signal.channels;
        let mut atoms = vec![0.0; filters.atoms() * lines * line];
        for (atom, packed) in atoms.chunks_exact_mut(lines * line).enumerate() {
            for (index, values) in filters.atom(atom).chunks_exact(kernel[1]).enumerate() {
                let (channel, row) = (index / kernel[0], index % kernel[0]);
                packed[(row * signal.channels + channel) * line..][..kernel[1]].copy_from_slice(values);
            }
        }
        Self {
            convolution: Convolution::new(filters, &geometry),
            signal,
            padding,
            atoms,
            lines,
            line,
            // An odd number of cache lines: rows that lie a power of two apart would contend for the same places in the cache.
            pitch: ((padded.width + line - kernel[1]).div_ceil(LANES) | 1) * LANES,
            tile: std::array::from_fn(|axis| TILE.max(kernel[axis].div_ceil(stride[axis]))),
            energies: (0..filters.atoms()).map(|atom| energy(filters.atom(atom)) as f32).collect(),
            weights: weights.map_or_else(|| vec![1.0; filters.atoms()], <[f32]>::to_vec),
            geometry,
        }
    }

    /// A signal as an image.
    fn image(&self, signal: &[f32]) -> Vec<f32> {
        let SignalShape { channels, height, width } = self.signal;
        let mut image = vec![0.0; self.geometry.signal.height * channels * self.pitch];
        for (index, line) in signal.chunks_exact(width).enumerate() {
            let (channel, row) = (index / height, index % height + self.padding[0]);
            image[(row * channels + channel) * self.pitch + self.padding[1]..][..width].copy_from_slice(line);
        }
        image
    }

    /// Correlates an image with all atoms.
    ///
    /// - `inside`: places that are no violators any more; `None` where nobody asks for violators
    fn look(&self, image: &[f32], lambda: f32, nonnegative: bool, inside: Option<&Bits>) -> Look {
        let SignalShape { channels, height, width } = self.geometry.signal;
        let mut signal = vec![0.0; self.geometry.signal.len()];
        for (index, line) in signal.chunks_exact_mut(width).enumerate() {
            line.copy_from_slice(&image[(index % height * channels + index / height) * self.pitch..][..width]);
        }
        let bands = self.convolution.analyze_bands(&signal, |first, values| {
            vectorised(
                #[inline(always)]
                || self.look_at_band(first, values, lambda, nonnegative, inside),
            )
        });
        Look {
            largest: bands.iter().fold(0.0, |largest, band| band.largest.max(largest)),
            violators: bands.into_iter().flat_map(|band| band.violators).collect(),
        }
    }

    #[inline(always)]
    fn look_at_band(
        &self,
        first: usize,
        values: &[f32],
        lambda: f32,
        nonnegative: bool,
        inside: Option<&Bits>,
    ) -> Look {
        let SignalShape { channels, height, width } = self.geometry.code;
        let (rows, cells) = (values.len() / (channels * width), width.div_ceil(CELL));
        let mut largest = 0.0f32;
        let mut strongest = vec![[(0.0f32, 0usize); PER_CELL]; cells * rows.div_ceil(CELL)];
        for (line, values) in values.chunks_exact(width).enumerate() {
            let (atom, row) = (line / rows, line % rows);
            let scale = 1.0 / self.weights[atom];
            let place = (atom * height + first + row) * width;
            for (index, chunk) in values.chunks(LANES).enumerate() {
                let mut sizes = [0.0f32; LANES];
                for (size, value) in sizes.iter_mut().zip(chunk) {
                    *size = scale * if nonnegative { *value } else { value.abs() };
                }
                let most = sizes.iter().fold(0.0f32, |most, &size| if size > most { size } else { most });
                largest = if most > largest { most } else { largest };
                let Some(inside) = inside.filter(|_| most > lambda) else { continue };
                for (column, &size) in (index * LANES..).zip(&sizes) {
                    if size > lambda && !inside.get(place + column) {
                        let mut candidate = (size - lambda, place + column);
                        for slot in &mut strongest[row / CELL * cells + column / CELL] {
                            if candidate.0 > slot.0 {
                                std::mem::swap(slot, &mut candidate);
                            }
                        }
                    }
                }
            }
        }
        let violators = strongest.iter().flatten().filter(|(excess, _)| *excess > 0.0).map(|&(_, place)| place);
        Look { largest, violators: violators.collect() }
    }

    /// Vectors of an atom's line: `V`, or as many as there are where that is 0.
    #[inline(always)]
    fn vectors<S: Simd, const V: usize>(&self) -> usize {
        if V == 0 { self.line / S::F32_LANES } else { V }
    }

    #[inline(always)]
    fn atom(&self, member: &Member) -> &[f32] {
        &self.atoms[member.atom as usize * self.lines * self.line..][..self.lines * self.line]
    }

    /// Inner product of an atom and the window that starts there.
    #[inline(always)]
    fn correlate<S: Simd, const V: usize>(&self, simd: S, member: &Member, samples: &[f32]) -> f32 {
        let vectors = self.vectors::<S, V>();
        let mut sums = [simd.splat_f32s(0.0); 2];
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let samples = S::as_simd_f32s(&samples[at..at + vectors * S::F32_LANES]).0;
            for v in 0..vectors {
                sums = [sums[1], simd.mul_add_e_f32s(samples[v], entries[v], sums[0])];
            }
            at += self.pitch;
        }
        simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
    }

    /// Squared norm of what a mask leaves of an atom.
    #[inline(always)]
    fn energy<S: Simd, const V: usize>(&self, simd: S, member: &Member, mask: &[f32]) -> f32 {
        let vectors = self.vectors::<S, V>();
        let mut sum = simd.splat_f32s(0.0);
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let mask = S::as_simd_f32s(&mask[at..at + vectors * S::F32_LANES]).0;
            for v in 0..vectors {
                sum = simd.mul_add_e_f32s(simd.mul_f32s(mask[v], entries[v]), entries[v], sum);
            }
            at += self.pitch;
        }
        simd.reduce_sum_f32s(sum)
    }

    /// Adds a multiple of an atom to the window that starts there, where the mask lets it.
    #[inline(always)]
    fn add<S: Simd, const V: usize>(
        &self,
        simd: S,
        member: &Member,
        scale: f32,
        samples: &mut [f32],
        mask: Option<&[f32]>,
    ) {
        let vectors = self.vectors::<S, V>();
        let scale = simd.splat_f32s(scale);
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let samples = S::as_mut_simd_f32s(&mut samples[at..at + vectors * S::F32_LANES]).0;
            match mask {
                None => {
                    for v in 0..vectors {
                        samples[v] = simd.mul_add_e_f32s(scale, entries[v], samples[v]);
                    }
                }
                Some(mask) => {
                    let mask = S::as_simd_f32s(&mask[at..at + vectors * S::F32_LANES]).0;
                    for v in 0..vectors {
                        samples[v] = simd.mul_add_e_f32s(simd.mul_f32s(scale, mask[v]), entries[v], samples[v]);
                    }
                }
            }
            at += self.pitch;
        }
    }
}

/// Values that are looked at together.
const LANES: usize = 16;

/// How many values a vector of this machine holds.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// A set of places.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    #[inline(always)]
    fn get(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn remove(&mut self, place: usize) {
        self.0[place / 64] &= !(1 << (place % 64));
    }
}

/// A coefficient of the working set.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// Index into the code.
    place: u32,
    /// Where its atom starts in the strip.
    start: u32,
    atom: u32,
    /// Sweeps that it has been zero for.
    idle: u32,
    value: f32,
    /// Squared norm of what the mask leaves of its atom.
    energy: f32,
    /// Negative derivative of the objective, for its sign.
    slope: f32,
    /// Direction of conjugate gradients, and the step so far.
    direction: f32,
    step: f32,
}

/// Members that lie together.
#[derive(Clone, Default)]
struct Tile {
    members: Vec<Member>,
    /// How many of the first are not zero, once the others have been moved behind them.
    support: usize,
}

/// Rows of the code, tile after tile.
struct Strip {
    tiles: Vec<Tile>,
    /// What the members' last visit summed up to.
    sum: f64,
}

/// Coefficients that may be non-zero, and the residual.
struct WorkingSet<'a> {
    dictionary: &'a Dictionary,
    lambda: f32,
    nonnegative: bool,
    /// Images: the signal, its mask where there is one, the residual, and room for another.
    signal: Vec<f32>,
    mask: Option<Vec<f32>>,
    residual: Vec<f32>,
    scratch: Vec<f32>,
    strips: Vec<Strip>,
    inside: Bits,
}

/// What is done with every member of a tile.
#[derive(Clone, Copy)]
enum Task {
    /// The objective is minimised over each, forth and back.
    Sweep { only_nonzeros: bool, turns: usize },
    /// Atoms are added to the image: as the code says, against the direction of conjugate gradients, as the step says.
    Subtract(Part),
    /// Slopes of the non-zeros from the residual; the sum of their squares.
    Slopes,
    /// Energies of new members.
    Energies,
}

/// Which multiple of a member's atom.
#[derive(Clone, Copy)]
enum Part {
    Value,
    Direction,
    Step,
}

impl<'a> WorkingSet<'a> {
    fn new(dictionary: &'a Dictionary, signal: &[f32], mask: Option<&[f32]>, lambda: f32, nonnegative: bool) -> Self {
        let code = dictionary.geometry.code;
        let tiles = code.width.div_ceil(dictionary.tile[1]);
        let strips = (0..code.height.div_ceil(dictionary.tile[0]))
            .map(|_| Strip { tiles: vec![Tile::default(); tiles], sum: 0.0 })
            .collect();
        let image = dictionary.image(signal);
        // Padding is cropped as if it were unknown.
        let mask = match mask {
            Some(mask) => Some(dictionary.image(mask)),
            None if dictionary.padding != [0, 0] => Some(dictionary.image(&vec![1.0; signal.len()])),
            None => None,
        };
        Self {
            dictionary,
            lambda,
            nonnegative,
            residual: image.clone(),
            scratch: vec![0.0; image.len()],
            signal: image,
            mask,
            strips,
            inside: Bits::new(code.len()),
        }
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.strips.iter().flat_map(|strip| strip.tiles.iter().flat_map(|tile| &tile.members))
    }

    /// Takes in (place, value).
    fn admit(&mut self, places: impl Iterator<Item = (usize, f32)>) {
        let Dictionary { geometry, tile, pitch, energies, .. } = self.dictionary;
        for (place, value) in places {
            self.inside.insert(place);
            let [atom, row, column] = geometry.place(place);
            let line = row % tile[0] * geometry.stride[0] * geometry.signal.channels;
            self.strips[row / tile[0]].tiles[column / tile[1]].members.push(Member {
                place: place as u32,
                start: (line * pitch + column * geometry.stride[1]) as u32,
                atom: atom as u32,
                idle: 0,
                value,
                energy: if self.mask.is_some() { f32::NAN } else { energies[atom] },
                slope: 0.0,
                direction: 0.0,
                step: 0.0,
            });
        }
        if self.mask.is_some() {
            self.visit(Image::Scratch, Task::Energies);
        }
    }

    /// Drops members that have long been zero.
    fn forget(&mut self) {
        let inside = &mut self.inside;
        for tile in self.strips.iter_mut().flat_map(|strip| &mut strip.tiles) {
            tile.members.retain(|member| {
                let stays = member.value != 0.0 || member.idle < IDLE;
                if !stays {
                    inside.remove(member.place as usize);
                }
                stays
            });
        }
    }

    /// Moves zeros behind the others.
    fn gather_support(&mut self) {
        self.strips.par_iter_mut().flat_map_iter(|strip| &mut strip.tiles).for_each(|tile| {
            tile.members.sort_by_key(|member| member.value == 0.0);
            tile.support = tile.members.partition_point(|member| member.value != 0.0);
        });
    }

    /// The residual from scratch.
    fn refresh(&mut self) {
        self.gather_support();
        self.residual.copy_from_slice(&self.signal);
        self.visit(Image::Residual, Task::Subtract(Part::Value));
    }

    /// Sweeps over all members, or those that are not zero: forth, and back if there are two turns.
    fn pass(&mut self, only_nonzeros: bool, turns: usize) {
        self.visit(Image::Residual, Task::Sweep { only_nonzeros, turns });
    }

    /// Objective and gap, and the number of non-zeros.
    fn certify(&self, largest: f32) -> (Certificate, usize) {
        let nonzeros = self.members().filter(|member| member.value != 0.0).count();
        // 〈γ, Dᵀr〉 = 〈Dγ, r〉, and Dγ = y − r where the mask is one.
        let correlation = self
            .signal
            .iter()
            .zip(&self.residual)
            .map(|(&signal, &residual)| (f64::from(signal) - f64::from(residual)) * f64::from(residual))
            .sum();
        let energy = energy_of(&self.residual);
        (Certificate::new(f64::from(self.lambda), energy, self.one_norm(), correlation, f64::from(largest)), nonzeros)
    }

    /// Σ_j w_j|γ_j|.
    fn one_norm(&self) -> f64 {
        let weights = &self.dictionary.weights;
        self.members().map(|member| f64::from(weights[member.atom as usize] * member.value.abs())).sum()
    }

    /// Conjugate gradients over the non-zeros with their signs held, then a step there, along which coefficients that would change
    /// sign become zero, as long as it makes the objective smaller. Returns whether a step was taken.
    fn minimize_on_support(&mut self, iterations: usize, tolerance: f64) -> bool {
        self.gather_support();
        let before = 0.5 * energy_of(&self.residual) + f64::from(self.lambda) * self.one_norm();
        let kept = self.residual.clone();
        let first = self.visit(Image::Residual, Task::Slopes);
        let support: usize = self.strips.iter().flat_map(|strip| &strip.tiles).map(|tile| tile.support).sum();
        let negligible = (NEGLIGIBLE[0] * f64::from(self.lambda)).powi(2)
            + NEGLIGIBLE[1].powi(2) * energy_of(&self.signal) / self.signal.len() as f64;
        let enough = (tolerance * first).max(negligible * support as f64);
        let mut slopes = first;
        self.on_support(|member| (member.direction, member.step) = (member.slope, 0.0));
        for _ in 0..iterations {
            self.scratch.fill(0.0);
            self.visit(Image::Scratch, Task::Subtract(Part::Direction));
            let curvature = energy_of(&self.scratch);
            if curvature <= 0.0 {
                break;
            }
            let length = (slopes / curvature) as f32;
            // What was subtracted from nothing is minus the direction's signal.
            let samples = self.residual.par_chunks_mut(CHUNK).zip(self.scratch.par_chunks(CHUNK));
            samples.for_each(|(residual, moved)| {
                residual.iter_mut().zip(moved).for_each(|(residual, moved)| *residual += length * moved);
            });
            let next = {
                self.on_support(|member| member.step += length * member.direction);
                self.visit(Image::Residual, Task::Slopes)
            };
            let ratio = (next / slopes) as f32;
            self.on_support(|member| member.direction = member.slope + ratio * member.direction);
            slopes = next;
            if slopes <= enough {
                break;
            }
        }
        // Steps are kept as directions while their lengths are tried.
        self.on_support(|member| member.direction = member.step);
        let mut length = 1.0;
        for _ in 0..HALVINGS {
            self.on_support(|member| {
                let after = member.value + length * member.direction;
                member.step = if after * member.value > 0.0 { after - member.value } else { -member.value };
            });
            let weights = &self.dictionary.weights;
            let one_norm: f64 = self
                .members()
                .filter(|member| member.value != 0.0)
                .map(|member| f64::from(weights[member.atom as usize] * (member.value + member.step).abs()))
                .sum();
            self.residual.copy_from_slice(&kept);
            self.visit(Image::Residual, Task::Subtract(Part::Step));
            let after = 0.5 * energy_of(&self.residual) + f64::from(self.lambda) * one_norm;
            if after <= before * (1.0 + ROUNDING) {
                self.on_support(|member| member.value += member.step);
                return true;
            }
            length *= 0.5;
        }
        self.residual = kept;
        false
    }

    fn on_support(&mut self, work: impl Fn(&mut Member) + Sync) {
        self.strips.par_iter_mut().flat_map_iter(|strip| &mut strip.tiles).for_each(|tile| {
            tile.members[..tile.support].iter_mut().for_each(&work);
        });
    }

    /// Does a task with all members, strips that share samples one after the other. Returns the sum of what it summed up.
    fn visit(&mut self, image: Image, task: Task) -> f64 {
        let Self { dictionary, lambda, nonnegative, strips, mask, residual, scratch, .. } = self;
        let (dictionary, lambda, nonnegative) = (*dictionary, *lambda, *nonnegative);
        let samples = match image {
            Image::Residual => residual,
            Image::Scratch => scratch,
        };
        let Dictionary { geometry, tile, pitch, .. } = dictionary;
        let len = tile[0] * geometry.stride[0] * geometry.signal.channels * pitch;
        for parity in 0..2.min(strips.len()) {
            let masks = |strip: usize| mask.as_ref().map(|mask| &mask[strip * len..]);
            strips[parity..]
                .par_chunks_mut(2)
                .zip(samples[parity * len..].par_chunks_mut(2 * len))
                .enumerate()
                .for_each(|(pair, (strips, samples))| {
                    let (strip, mask) = (&mut strips[0], masks(2 * pair + parity));
                    let visit = Visit { dictionary, strip, samples, mask, lambda, nonnegative, task };
                    pulp::Arch::new().dispatch(visit);
                });
        }
        strips.iter().map(|strip| strip.sum).sum()
    }
}

/// Which image a task is about.
#[derive(Clone, Copy)]
enum Image {
    Residual,
    Scratch,
}

/// Samples that a thread works on at a time.
const CHUNK: usize = 1 << 13;

/// ‖image‖², by all cores.
fn energy_of(image: &[f32]) -> f64 {
    let parts = image.par_chunks(CHUNK).map(|chunk| {
        vectorised(
            #[inline(always)]
            || energy(chunk),
        )
    });
    parts.collect::<Vec<f64>>().iter().sum()
}

/// A task on one strip, for whichever instruction set there is.
struct Visit<'a, 'b> {
    dictionary: &'a Dictionary,
    strip: &'b mut Strip,
    samples: &'b mut [f32],
    mask: Option<&'a [f32]>,
    lambda: f32,
    nonnegative: bool,
    task: Task,
}

impl WithSimd for Visit<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.dictionary.line / S::F32_LANES {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            3 => self.run::<S, 3>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 0>(simd),
        }
    }
}

impl Visit<'_, '_> {
    /// The task for atoms whose lines are `V` vectors long, or of any length where that is 0.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { dictionary, strip, samples, mask, lambda, nonnegative, task } = self;
        strip.sum = 0.0;
        for Tile { members, support } in &mut strip.tiles {
            match task {
                Task::Sweep { only_nonzeros, turns } => {
                    let count = members.len();
                    for turn in 0..turns * count {
                        let member = &mut members[if turn < count { turn } else { 2 * count - 1 - turn }];
                        if member.energy <= 0.0 || (only_nonzeros && member.value == 0.0) {
                            continue;
                        }
                        let correlation =
                            dictionary.correlate::<S, V>(simd, member, samples) + member.energy * member.value;
                        let threshold = lambda * dictionary.weights[member.atom as usize];
                        let after = soft_threshold_value(correlation, threshold, nonnegative) / member.energy;
                        let change = after - member.value;
                        member.idle = if after == 0.0 { member.idle + 1 } else { 0 };
                        if change != 0.0 {
                            member.value = after;
                            dictionary.add::<S, V>(simd, member, -change, samples, mask);
                        }
                    }
                }
                Task::Subtract(part) => {
                    for member in &members[..*support] {
                        let scale = match part {
                            Part::Value => member.value,
                            Part::Direction => member.direction,
                            Part::Step => member.step,
                        };
                        dictionary.add::<S, V>(simd, member, -scale, samples, mask);
                    }
                }
                Task::Slopes => {
                    for member in &mut members[..*support] {
                        let threshold = lambda * dictionary.weights[member.atom as usize];
                        member.slope =
                            dictionary.correlate::<S, V>(simd, member, samples) - threshold.copysign(member.value);
                        strip.sum += f64::from(member.slope) * f64::from(member.slope);
                    }
                }
                Task::Energies => {
                    let Some(mask) = mask else { continue };
                    for member in members.iter_mut().filter(|member| member.energy.is_nan()) {
                        member.energy = dictionary.energy::<S, V>(simd, member, mask);
                    }
                }
            }
        }
    }
}
