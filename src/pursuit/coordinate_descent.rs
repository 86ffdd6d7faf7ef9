//! Coordinate descent for basis pursuit with the atoms' inner products at hand, one signal per task: from the Gram matrix, or from
//! the correlations of the filters where D^(L) is a convolution.
//!
//! A learned dictionary's ‖D‖² is in the hundreds, so proximal gradient steps are tiny and FISTA needs hundreds of products with
//! the whole Gram matrix. Coordinate descent (J. Friedman, T. Hastie, R. Tibshirani, "Regularization paths for generalized
//! linear models via coordinate descent", J. Stat. Software 33(1), 2010) minimises exactly over one coefficient at a time.
//! It sweeps over a small working set with a Gram matrix of its own, which stays in the fastest cache, until that settles; then
//! looks at all atoms and at the duality gap, and takes in those that violate optimality most (M. Massias, A. Gramfort,
//! J. Salmon, "Celer: a fast solver for the lasso with dual extrapolation", ICML 2018, without the extrapolation).
//!
//! It runs on the host's cores whatever the device; each signal is computed on its own, so results do not depend on the
//! number of threads or on the rest of the batch.

use super::duality::Certificate;
use super::greedy::solve_normal_equations;
use super::threshold::soft_threshold_value;
use super::{BasisPursuitConfig, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::{Error, Result};
use crate::model::correlation::{CorrelationTable, reach};
use crate::model::geometry::{LayerGeometry, SignalShape};
use crate::model::sparse::HostFilters;
use crate::model::{Application, Operator};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Parameters of [`CoordinateDescent`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinateDescentConfig {
    /// Gap, sweeps, sign.
    pub basis: BasisPursuitConfig,
}

impl CoordinateDescentConfig {
    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn init(self) -> Result<CoordinateDescent> {
        self.basis.check()?;
        Ok(CoordinateDescent { config: self })
    }
}

/// Coordinate descent with checked parameters.
#[derive(Debug, Clone)]
pub struct CoordinateDescent {
    config: CoordinateDescentConfig,
}

/// A sweep ends the work on the working set when no coefficient moved the objective by more than this part of what the gap
/// asked for still allows.
const SWEEP_TOLERANCE: f64 = 0.1;

/// Signals that are correlated with the atoms in one matrix product. Always as many, the last ones being zero, so that a
/// signal's correlations are rounded in the same way whatever the size of the batch.
const BLOCK: usize = 64;

/// Atoms that a working set starts with at most, and takes in at least where so many violate optimality.
const GROWTH: usize = 32;

/// Sweeps after which the linear system on the support is solved.
const SWEEPS_PER_SOLUTION: usize = 3;

/// Non-zeros up to which a linear system is worth its cost.
const MAX_SUPPORT: usize = 512;

/// Coefficients that may become zero in one attempt to solve it.
const SIGN_CHANGES: usize = 8;

/// Working sets' rows are padded with zeros to a multiple of this, so that loops over them have no remainder.
const LANES: usize = 16;

/// The dictionary on the host, shared by all signals.
struct Columns {
    form: Form,
    code_len: usize,
    signal_len: usize,
}

enum Form {
    /// Atoms (row j: effective atom j) and Gram matrix in full.
    Dense { atoms: Vec<f32>, gram: Vec<f32> },
    /// A convolution that crops nothing: filters and what they have in common at every shift.
    Convolution {
        filters: HostFilters,
        geometry: LayerGeometry,
        /// Code positions by which two atoms that overlap can be apart.
        reach: [usize; 2],
        /// `[atom, moved atom, vertical shift + reach, horizontal shift + reach]`.
        shared: Vec<f32>,
    },
}

impl Pursuit for CoordinateDescent {
    fn name(&self) -> &'static str {
        "coordinate-descent"
    }

    /// Takes λ, weights of the deepest layer's atoms, one mask for all signals, and codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        problem.refuse_separate_masks(self.name())?;
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let signals = problem.signals();
        let weights = problem.weights(problem.depth()).map(to_host);
        // Weights are atoms of other lengths: Σ w_j|γ_j| is ‖γ'‖₁ with γ'_j = w_j γ_j over the atoms d_j/w_j.
        let unweighted = |values: &mut [f32]| {
            if let Some(weights) = &weights {
                for row in values.chunks_exact_mut(weights.len()) {
                    row.iter_mut().zip(weights).for_each(|(value, weight)| *value /= weight);
                }
            }
        };
        let mut correlations = correlate(operator, signals.clone());
        unweighted(&mut correlations);
        let signals = to_host(signals);
        let columns = Columns::new(operator, problem.shared_mask(), weights.as_deref())?;
        let start = problem.has_start().then(|| {
            let mut start = to_host(problem.start());
            for row in start.chunks_exact_mut(columns.code_len) {
                for (place, value) in row.iter_mut().enumerate() {
                    *value *= weights.as_ref().map_or(1.0, |weights| weights[place]);
                    *value = if self.config.basis.nonnegative { value.max(0.0) } else { *value };
                }
            }
            start
        });
        let nonnegative = self.config.basis.nonnegative;
        let largest: Vec<f32> =
            correlations.chunks_exact(columns.code_len).map(|row| largest(row, nonnegative)).collect();
        let lambda = lambda.resolve(&largest)?;
        let mut codes = start.unwrap_or_else(|| vec![0.0f32; correlations.len()]);
        let reports: Vec<SignalReport> = codes
            .par_chunks_exact_mut(columns.code_len)
            .zip(correlations.par_chunks_exact(columns.code_len))
            .zip(signals.par_chunks_exact(columns.signal_len))
            .zip(&lambda)
            .map(|(((code, correlations), signal), &lambda)| {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || self.pursue_one(&columns, signal, correlations, lambda, code),
                )
            })
            .collect();
        unweighted(&mut codes);
        let data = TensorData::new(codes, operator.code().batched(reports.len()));
        Ok(Pursued::consistent(Tensor::from_data(data, &operator.device()), reports))
    }
}

impl CoordinateDescent {
    /// Codes one signal, from the code that is there.
    #[inline(always)]
    fn pursue_one(
        &self,
        columns: &Columns,
        signal: &[f32],
        correlations: &[f32],
        lambda: f32,
        code: &mut [f32],
    ) -> SignalReport {
        let BasisPursuitConfig { gap, max_iterations, nonnegative } = self.config.basis;
        // Dᵀ(y − Dγ).
        let mut residual_correlations = correlations.to_vec();
        columns.refresh(correlations, code, &mut residual_correlations);
        let mut working = WorkingSet::new(columns.code_len);
        let used: Vec<usize> = (0..columns.code_len).filter(|&atom| code[atom] != 0.0).collect();
        working.admit(used.into_iter(), columns);
        let mut violators: Vec<(f32, usize)> = Vec::new();
        let mut sweeps = 0;
        loop {
            let (certificate, nonzeros) = columns.certify(signal, code, &residual_correlations, lambda, nonnegative);
            let converged = certificate.relative_gap() <= f64::from(gap);
            if converged || sweeps >= max_iterations {
                return SignalReport {
                    lambda,
                    iterations: sweeps,
                    objective: certificate.objective as f32,
                    relative_gap: certificate.relative_gap() as f32,
                    data_term: certificate.data_term as f32,
                    nonzeros,
                    stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                };
            }
            violators.clear();
            violators.extend(residual_correlations.iter().enumerate().filter_map(|(atom, &correlation)| {
                let excess = (if nonnegative { correlation } else { correlation.abs() }) - lambda;
                (excess > 0.0 && !working.has(atom)).then_some((excess, atom))
            }));
            let room = working.members.len().max(GROWTH);
            if violators.len() > room {
                violators.select_nth_unstable_by(room, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                violators.truncate(room);
                violators.sort_unstable_by_key(|&(_, atom)| atom);
            }
            working.admit(violators.iter().map(|&(_, atom)| atom), columns);
            working.gather(code, &residual_correlations);
            let tolerance =
                SWEEP_TOLERANCE * f64::from(gap) * certificate.objective / working.members.len().max(1) as f64;
            loop {
                let progress = working.sweep(lambda, nonnegative);
                sweeps += 1;
                if f64::from(progress) <= tolerance || sweeps >= max_iterations {
                    break;
                }
                // Correlated atoms settle slowly, yet once their signs are known the rest is a linear system.
                if sweeps.is_multiple_of(SWEEPS_PER_SOLUTION) {
                    (0..SIGN_CHANGES).any(|_| working.solve_on_support(lambda));
                }
            }
            working.scatter(code);
            // Moves accumulate rounding; what the gap is computed from starts afresh.
            columns.refresh(correlations, code, &mut residual_correlations);
        }
    }
}

/// The geometry of D^(L) where it is a convolution that crops nothing and has several positions, so that atoms of all positions
/// have their filters' correlations in common.
fn shift_invariant(operator: &Operator) -> Option<LayerGeometry> {
    let layer = operator.geometry().effective_layer()?;
    (layer.padding == [0, 0] && !layer.code.is_single_position()).then_some(layer)
}

/// Code values up to which a signal's working set may be expected to stay small.
const MAX_CODE: usize = 1 << 16;

/// Code values up to which a Gram matrix is built for coordinate descent where the operator itself does without.
const MAX_DENSE_CODE: usize = 1 << 13;

/// Inner products that are held at most.
const MAX_INNER_PRODUCTS: usize = 1 << 27;

/// Whether coordinate descent is what an operator should be given to. It needs the atoms' inner products: few where a convolution's
/// positions share them, else the square of the code. `plain` says that there are neither weights nor masks, which take away
/// what positions share.
pub(super) fn suits(operator: &Operator, plain: bool) -> bool {
    let len = operator.code().len();
    match (operator.application(), shift_invariant(operator).filter(|_| plain)) {
        (_, Some(layer)) => len <= MAX_CODE && shared_len(&layer) <= MAX_INNER_PRODUCTS,
        (Application::Gram, _) => len.saturating_mul(len) <= MAX_INNER_PRODUCTS,
        (Application::Matrix, _) => len <= MAX_DENSE_CODE,
        _ => false,
    }
}

/// Inner products that a convolution's positions share: of all pairs of filters at all shifts.
fn shared_len(layer: &LayerGeometry) -> usize {
    let overlap = reach(layer.kernel, layer.stride);
    let shifts = [layer.code.height, layer.code.width].into_iter().zip(overlap);
    let shifts = shifts.map(|(positions, overlap)| 2 * overlap.min(positions - 1) + 1);
    shifts.fold(layer.code.channels.saturating_mul(layer.code.channels), usize::saturating_mul)
}

/// Dᵀy for all signals, one row each.
fn correlate(operator: &Operator, signals: Tensor<2>) -> Vec<f32> {
    let [count, len] = signals.dims();
    let padded = count.next_multiple_of(BLOCK);
    let rows = Tensor::zeros([padded, len], &signals.device()).slice_assign([0..count, 0..len], signals);
    let mut correlations = Vec::with_capacity(padded * operator.code().len());
    for start in (0..padded).step_by(BLOCK) {
        let block = rows.clone().slice([start..start + BLOCK, 0..len]);
        correlations.extend(to_host(operator.analyze_rows(block)));
    }
    correlations.truncate(count * operator.code().len());
    correlations
}

/// Some of the atoms with a Gram matrix of their own.
struct WorkingSet {
    members: Vec<usize>,
    /// Whether an atom is a member.
    inside: Vec<bool>,
    /// Length of a row of `gram`, a multiple of [`LANES`].
    stride: usize,
    /// `[stride, stride]`, zero beyond the members.
    gram: Vec<f32>,
    code: Vec<f32>,
    /// Correlations with the residual.
    correlations: Vec<f32>,
}

impl WorkingSet {
    #[inline(always)]
    fn new(atoms: usize) -> Self {
        Self {
            members: Vec::new(),
            inside: vec![false; atoms],
            stride: 0,
            gram: Vec::new(),
            code: Vec::new(),
            correlations: Vec::new(),
        }
    }

    #[inline(always)]
    fn has(&self, atom: usize) -> bool {
        self.inside[atom]
    }

    #[inline(always)]
    fn admit(&mut self, atoms: impl Iterator<Item = usize>, columns: &Columns) {
        let before = self.members.len();
        self.members.extend(atoms);
        self.members[before..].iter().for_each(|&atom| self.inside[atom] = true);
        let stride = self.members.len().next_multiple_of(LANES);
        if stride > self.stride {
            // Twice what is needed, so that growing costs little.
            let stride = (2 * stride).min(columns.code_len.next_multiple_of(LANES));
            let mut gram = vec![0.0; stride * stride];
            for row in 0..before {
                gram[row * stride..][..before].copy_from_slice(&self.gram[row * self.stride..][..before]);
            }
            (self.stride, self.gram) = (stride, gram);
            self.code.resize(stride, 0.0);
            self.correlations.resize(stride, 0.0);
        }
        for (row, &atom) in self.members.iter().enumerate().skip(before) {
            for (column, &other) in self.members[..=row].iter().enumerate() {
                let inner = columns.inner(atom, other);
                self.gram[row * self.stride + column] = inner;
                self.gram[column * self.stride + row] = inner;
            }
        }
    }

    #[inline(always)]
    fn gather(&mut self, code: &[f32], correlations: &[f32]) {
        for (place, &atom) in self.members.iter().enumerate() {
            self.code[place] = code[atom];
            self.correlations[place] = correlations[atom];
        }
    }

    #[inline(always)]
    fn scatter(&self, code: &mut [f32]) {
        self.members.iter().zip(&self.code).for_each(|(&atom, &value)| code[atom] = value);
    }

    /// Minimises the objective exactly over one coefficient after the other. Returns a bound on the most that one move gained:
    /// ½ G_jj δ².
    #[inline(always)]
    fn sweep(&mut self, lambda: f32, nonnegative: bool) -> f32 {
        let mut progress = 0.0f32;
        let used = self.members.len().next_multiple_of(LANES);
        let correlations = &mut self.correlations[..used];
        for place in 0..self.members.len() {
            let row = &self.gram[place * self.stride..][..used];
            let energy = row[place];
            if energy <= 0.0 {
                continue;
            }
            let before = self.code[place];
            let after = soft_threshold_value(correlations[place] + energy * before, lambda, nonnegative) / energy;
            let change = after - before;
            if change == 0.0 {
                continue;
            }
            self.code[place] = after;
            subtract_scaled(correlations, change, row);
            progress = progress.max(0.5 * energy * change * change);
        }
        progress
    }
}

impl WorkingSet {
    /// Moves the non-zeros towards the minimiser of the objective for their present signs, up to the first sign that would
    /// change: that coefficient becomes zero. Returns whether the minimiser was reached.
    ///
    /// The step of feature-sign search (H. Lee, A. Battle, R. Raina, A. Ng, "Efficient sparse coding algorithms", NIPS 2006).
    #[inline(always)]
    fn solve_on_support(&mut self, lambda: f32) -> bool {
        let support: Vec<usize> = (0..self.members.len()).filter(|&place| self.code[place] != 0.0).collect();
        if support.len() > MAX_SUPPORT {
            return true;
        }
        let (gram, stride) = (&self.gram, self.stride);
        let mut matrix: Vec<f64> = support
            .iter()
            .flat_map(|&row| support.iter().map(move |&column| f64::from(gram[row * stride + column])))
            .collect();
        let mut change: Vec<f64> = support
            .iter()
            .map(|&place| f64::from(self.correlations[place]) - f64::from(lambda.copysign(self.code[place])))
            .collect();
        solve_normal_equations(&mut matrix, &mut change);
        let (mut part, mut blocking) = (1.0, None);
        for (&place, change) in support.iter().zip(&change) {
            let value = f64::from(self.code[place]);
            if value * (value + change) <= 0.0 && -value / change < part {
                (part, blocking) = (-value / change, Some(place));
            }
        }
        let used = self.members.len().next_multiple_of(LANES);
        for (&place, change) in support.iter().zip(&change) {
            let before = self.code[place];
            let after = if blocking == Some(place) { 0.0 } else { (f64::from(before) + part * change) as f32 };
            self.code[place] = after;
            let row = &self.gram[place * self.stride..][..used];
            subtract_scaled(&mut self.correlations[..used], after - before, row);
        }
        blocking.is_none()
    }
}

/// target −= scale · row, both a multiple of [`LANES`] long.
#[inline(always)]
fn subtract_scaled(target: &mut [f32], scale: f32, row: &[f32]) {
    let (targets, _) = target.as_chunks_mut::<LANES>();
    let (rows, _) = row.as_chunks::<LANES>();
    for (target, row) in targets.iter_mut().zip(rows) {
        for lane in 0..LANES {
            target[lane] -= scale * row[lane];
        }
    }
}

impl Columns {
    /// The dictionary on the samples of the mask `[1, signal values]`, every atom divided by its weight.
    ///
    /// # Errors
    /// More inner products than can be held.
    fn new(operator: &Operator, mask: Option<Tensor<2>>, weights: Option<&[f32]>) -> Result<Self> {
        let (code_len, signal_len) = (operator.code().len(), operator.signal().len());
        let shift_invariant = shift_invariant(operator).filter(|_| mask.is_none() && weights.is_none());
        let held = shift_invariant.as_ref().map_or(code_len.saturating_mul(code_len), shared_len);
        if held > MAX_INNER_PRODUCTS {
            let expected = format!(
                "fista for a code of {code_len} values: more than {MAX_INNER_PRODUCTS} inner products of atoms"
            );
            return Err(Error::parameter("algorithm", "coordinate-descent", expected));
        }
        if let Some(geometry) = shift_invariant {
            let filters = operator.effective_filters();
            let positions = [geometry.code.height, geometry.code.width];
            let table = CorrelationTable::new(&filters, geometry.stride, positions);
            let (reach, atoms) = (table.reach(), geometry.code.channels);
            let shared = (0..atoms * atoms)
                .flat_map(|pair| {
                    let (table, first) = (&table, (pair / atoms, reach[0], reach[1]));
                    (0..=2 * reach[0]).flat_map(move |row| {
                        (0..=2 * reach[1]).map(move |column| table.between(first, (pair % atoms, row, column)))
                    })
                })
                .collect();
            let filters = HostFilters::from_tensor(filters);
            return Ok(Self { form: Form::Convolution { filters, geometry, reach, shared }, code_len, signal_len });
        }
        let (mut atoms, mut gram) = match mask {
            None => (to_host(operator.atoms()), to_host(operator.gram())),
            Some(mask) => {
                let atoms = operator.atoms() * mask;
                (to_host(atoms.clone()), to_host(atoms.clone().matmul(atoms.transpose())))
            }
        };
        if let Some(weights) = weights {
            for (atom, weight) in atoms.chunks_exact_mut(signal_len).zip(weights) {
                atom.iter_mut().for_each(|entry| *entry /= weight);
            }
            for (row, weight) in gram.chunks_exact_mut(code_len).zip(weights) {
                row.iter_mut().zip(weights).for_each(|(inner, other)| *inner /= weight * other);
            }
        }
        Ok(Self { form: Form::Dense { atoms, gram }, code_len, signal_len })
    }

    /// Inner product of the atoms of two code values.
    #[inline(always)]
    fn inner(&self, first: usize, second: usize) -> f32 {
        match &self.form {
            Form::Dense { gram, .. } => gram[first * self.code_len + second],
            Form::Convolution { geometry, reach, shared, .. } => {
                let (a, b) = (geometry.place(first), geometry.place(second));
                let [rows, columns] = reach.map(|reach| 2 * reach + 1);
                let down = b[1].wrapping_sub(a[1]).wrapping_add(reach[0]);
                let across = b[2].wrapping_sub(a[2]).wrapping_add(reach[1]);
                if down < rows && across < columns {
                    shared[((a[0] * geometry.code.channels + b[0]) * rows + down) * columns + across]
                } else {
                    0.0
                }
            }
        }
    }

    /// Subtracts `value` times a row of the Gram matrix.
    #[inline(always)]
    fn subtract_row(&self, place: usize, value: f32, correlations: &mut [f32]) {
        match &self.form {
            Form::Dense { gram, .. } => {
                let row = &gram[place * self.code_len..][..self.code_len];
                for (correlation, &inner) in correlations.iter_mut().zip(row) {
                    *correlation -= value * inner;
                }
            }
            Form::Convolution { geometry, reach, shared, .. } => {
                let [atom, row, column] = geometry.place(place);
                let (height, width) = (geometry.code.height, geometry.code.width);
                let [shifts, shifts_across] = reach.map(|reach| 2 * reach + 1);
                let (top, bottom) = (row.saturating_sub(reach[0]), (row + reach[0] + 1).min(height));
                let (left, right) = (column.saturating_sub(reach[1]), (column + reach[1] + 1).min(width));
                let maps = correlations.chunks_exact_mut(height * width);
                let pairs = shared.chunks_exact(shifts * shifts_across).skip(atom * geometry.code.channels);
                for (map, shared) in maps.zip(pairs) {
                    for y in top..bottom {
                        let shared = &shared[(y + reach[0] - row) * shifts_across + left + reach[1] - column..];
                        let line = &mut map[y * width + left..y * width + right];
                        for (correlation, &inner) in line.iter_mut().zip(shared) {
                            *correlation -= value * inner;
                        }
                    }
                }
            }
        }
    }

    /// Subtracts `value` times an atom.
    #[inline(always)]
    fn subtract_atom(&self, place: usize, value: f32, residual: &mut [f32]) {
        match &self.form {
            Form::Dense { atoms, .. } => {
                let row = &atoms[place * self.signal_len..][..self.signal_len];
                for (sample, &entry) in residual.iter_mut().zip(row) {
                    *sample -= value * entry;
                }
            }
            Form::Convolution { filters, geometry, .. } => {
                let [atom, row, column] = geometry.place(place);
                let SignalShape { height, width, .. } = geometry.signal;
                let (top, left) = (row * geometry.stride[0], column * geometry.stride[1]);
                let lines = filters.atom(atom).chunks_exact(geometry.kernel[1]);
                for (line, entries) in lines.enumerate() {
                    let (channel, y) = (line / geometry.kernel[0], top + line % geometry.kernel[0]);
                    let samples = &mut residual[(channel * height + y) * width + left..];
                    for (sample, &entry) in samples.iter_mut().zip(entries) {
                        *sample -= value * entry;
                    }
                }
            }
        }
    }

    /// Dᵀy − Gγ from scratch.
    #[inline(always)]
    fn refresh(&self, correlations: &[f32], code: &[f32], out: &mut [f32]) {
        out.copy_from_slice(correlations);
        for (place, &value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            self.subtract_row(place, value, out);
        }
    }

    /// Objective and gap from the residual itself, and the number of non-zeros.
    #[inline(always)]
    fn certify(
        &self,
        signal: &[f32],
        code: &[f32],
        correlations: &[f32],
        lambda: f32,
        nonnegative: bool,
    ) -> (Certificate, usize) {
        let mut residual = signal.to_vec();
        let (mut one_norm, mut code_correlation, mut nonzeros) = (0.0f64, 0.0f64, 0);
        for (atom, &value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            self.subtract_atom(atom, value, &mut residual);
            one_norm += f64::from(value.abs());
            code_correlation += f64::from(value) * f64::from(correlations[atom]);
            nonzeros += 1;
        }
        let energy = residual.iter().map(|&sample| f64::from(sample) * f64::from(sample)).sum();
        let largest = f64::from(largest(correlations, nonnegative));
        (Certificate::new(f64::from(lambda), energy, one_norm, code_correlation, largest), nonzeros)
    }
}

/// Largest correlation: in magnitude, or positive only.
#[inline(always)]
fn largest(correlations: &[f32], nonnegative: bool) -> f32 {
    let size = |value: f32| if nonnegative { value } else { value.abs() };
    let (chunks, rest) = correlations.as_chunks::<LANES>();
    let mut largest = [0.0f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            let value = size(chunk[lane]);
            largest[lane] = if value > largest[lane] { value } else { largest[lane] };
        }
    }
    rest.iter().map(|&value| size(value)).chain(largest).fold(0.0, f32::max)
}
