//! The effective atoms on the host, with their inner products at hand: what pursuits that work signal by signal share.

use super::to_host;
use crate::device;
use crate::error::{Error, Result};
use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::correlation::{CorrelationTable, inner_products};
use crate::kernels::panels;
use crate::kernels::product::product;
use crate::kernels::simd::{subtract_rows, vectorised};
use crate::kernels::sparse::HostFilters;
use crate::model::{Operator, OperatorForm};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Signals that are correlated with the atoms in one matrix product.
const BLOCK: usize = 64;

/// Rows that the last product of a batch has a multiple of on the host. Products of fewer rows are computed in other ways, which
/// round in other ways; products of so many add up in the same order as those of [`BLOCK`].
const TILE: usize = 16;

/// Correlations that are held at a time, so that memory beside signals and codes does not grow with the number of signals.
const HELD: usize = 1 << 22;

/// Signals, in whole products, that a pursuit is to take at a time where it holds `code_len` correlations for each.
pub(super) fn signals_at_once(code_len: usize) -> usize {
    (HELD / code_len.max(1)).next_multiple_of(BLOCK).max(4 * BLOCK)
}

/// Lanes that loops over correlations keep apart, so that they vectorise.
pub(super) const LANES: usize = 16;

/// The dictionary on the host, shared by all signals.
pub(super) struct Columns<'a> {
    form: Form<'a>,
    code_len: usize,
    signal_len: usize,
}

enum Form<'a> {
    /// Atoms (row j: effective atom j) and Gram matrix in full; the operator's own where there are neither weights nor masks, because copying
    /// them takes longer than to code a signal. Without a Gram matrix inner products are computed as they are needed.
    Dense { atoms: Cow<'a, [f32]>, gram: Option<Cow<'a, [f32]>> },
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

/// The geometry of D^(L) where it is a convolution that crops nothing and has several positions, so that atoms of all positions
/// have their filters' correlations in common.
fn shift_invariant(operator: &Operator) -> Option<LayerGeometry> {
    let layer = operator.geometry().effective_layer()?;
    (layer.padding == [0, 0] && !layer.code.is_single_position()).then_some(layer)
}

/// Code values up to which a signal's working set may be expected to stay small.
const MAX_CODE: usize = 1 << 16;

/// Code values up to which a Gram matrix is built for a pursuit where the operator itself does without.
const MAX_DENSE_CODE: usize = 1 << 13;

/// Code values up to which coordinate descent builds one for vectors. It wants little of it: of a larger dictionary, which changes from
/// batch to batch while it is learned, it computes what it wants in less time.
const MAX_DESCENT_CODE: usize = 1 << 12;

/// Inner products that are held at most (2²⁸ values: 1 GiB): all of 16,384 atoms.
const MAX_INNER_PRODUCTS: usize = 1 << 28;

/// Whether all inner products of an operator's atoms should be at hand: few where a convolution's positions share them, else the square
/// of the code. `plain` says that there are neither weights nor masks, which take away what positions share.
pub(super) fn suits(operator: &Operator, plain: bool) -> bool {
    let len = operator.code().len();
    match (operator.application(), shift_invariant(operator).filter(|_| plain)) {
        (_, Some(layer)) => len <= MAX_CODE && inner_products(&layer) <= MAX_INNER_PRODUCTS,
        (OperatorForm::Gram, _) => len.saturating_mul(len) <= MAX_INNER_PRODUCTS,
        (OperatorForm::Matrix, _) => len <= MAX_DENSE_CODE,
        _ => false,
    }
}

/// Whether the inner products of all atoms, one by one, can be held.
pub(super) fn holds_all(operator: &Operator) -> bool {
    suits(operator, true) && shift_invariant(operator).is_none()
}

/// Whether coordinate descent is what an operator should be given to: inner products should be at hand, or can be done without.
pub(super) fn suits_descent(operator: &Operator, plain: bool) -> bool {
    suits(operator, plain)
        || (is_dense(operator) && matches!(operator.application(), OperatorForm::Matrix | OperatorForm::Gram))
}

/// Whether the code has one position, so that all atoms can be correlated with many residuals by a matrix product, and a working set
/// is no larger than a signal has dimensions.
fn is_dense(operator: &Operator) -> bool {
    operator.code().is_single_position() && can_hold_atoms(operator)
}

fn can_hold_atoms(operator: &Operator) -> bool {
    operator.code().len().saturating_mul(operator.signal().len()) <= MAX_INNER_PRODUCTS
}

/// Whether coordinate descent can take an operator that it does not suit, where others came to a standstill: all its atoms can be
/// held, cut out by a mask or divided by weights as they may be.
pub(super) fn can_be_held(operator: &Operator) -> bool {
    operator.code().len() <= MAX_DENSE_CODE || is_dense(operator)
}

/// Signals that are correlated together, and whose multiple there have to be, such that products round a signal's correlations in
/// the same way whatever the batch.
fn blocks(operator: &Operator, on_host: bool) -> [usize; 2] {
    match operator.application() {
        // A GPU chooses its kernel by the shape: there every product has one shape.
        OperatorForm::Matrix | OperatorForm::Gram => [BLOCK, if on_host { TILE } else { BLOCK }],
        _ => [1, 1],
    }
}

/// Dᵀy for some of the signals and, in rows beyond theirs, for zeros up to a multiple of `tile`.
fn correlate_some(operator: &Operator, signals: &Tensor<2>, rows: Range<usize>, tile: usize) -> Tensor<2> {
    let (count, len) = (rows.len(), signals.dims()[1]);
    let part = signals.clone().slice([rows, 0..len]);
    let padded = count.next_multiple_of(tile);
    operator.analyze_rows(match count == padded {
        true => part,
        false => Tensor::zeros([padded, len], &part.device()).slice_assign([0..count, 0..len], part),
    })
}

/// Of every signal the atom of largest correlation times its scale, in magnitude or positive only, and that score, without those
/// that are `unavailable` to it: found where correlations are computed, of which only this comes to the host.
///
/// # Shapes
/// - signals: `[n, signal values]`; scales: `[1, code values]`
pub(super) fn best_atoms(
    operator: &Operator,
    signals: &Tensor<2>,
    scales: &Tensor<2>,
    unavailable: &[&[usize]],
    nonnegative: bool,
) -> Vec<(usize, f32)> {
    let ([count, _], [_, code_len]) = (signals.dims(), scales.dims());
    let device = signals.device();
    let [block, tile] = blocks(operator, false);
    let found = (0..count).step_by(block).flat_map(|first| {
        let rows = first..(first + block).min(count);
        let scores = correlate_some(operator, signals, rows.clone(), tile).slice([0..rows.len(), 0..code_len]);
        let scores = if nonnegative { scores.clamp_min(0.0) } else { scores.abs() } * scales.clone();
        let (out, most) = (&unavailable[rows.clone()], unavailable[rows.clone()].iter().map(|out| out.len()).max());
        let most = most.unwrap_or(0);
        let scores = match most {
            0 => scores,
            _ => {
                // Rows with fewer are filled up with what changes nothing.
                let place = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(0) as i64;
                let places: Vec<i64> = out.iter().flat_map(|row| (0..most).map(|at| place(row, at))).collect();
                let taken = |row: &[usize], at: usize| if at < row.len() { -1.0f32 } else { 0.0 };
                let taken: Vec<f32> = out.iter().flat_map(|row| (0..most).map(|at| taken(row, at))).collect();
                let dims = [rows.len(), most];
                let places = Tensor::<2, Int>::from_data(TensorData::new(places, dims), &device);
                let taken = Tensor::from_data(TensorData::new(taken, dims), &device);
                let free = Tensor::<2>::ones([rows.len(), code_len], &device);
                scores * free.scatter(1, places, taken, IndexingUpdateOp::Add).clamp_min(0.0)
            }
        };
        // A NaN might be taken for the largest.
        let scores = scores.clone().mask_fill(scores.is_nan(), 0.0);
        let (scores, places) = scores.max_dim_with_indices(1);
        let places: Vec<i64> = crate::device::read(places).iter::<i64>().collect();
        places.into_iter().map(|place| place as usize).zip(to_host(scores)).collect::<Vec<_>>()
    });
    found.collect()
}

/// Whether the host finds correlations by products with a matrix.
fn multiplies_on_host(operator: &Operator) -> bool {
    device::is_host(&operator.device()) && matches!(operator.application(), OperatorForm::Matrix | OperatorForm::Gram)
}

fn is_zero(signal: &[f32]) -> bool {
    signal.iter().all(|value| *value == 0.0)
}

/// Dᵀy of some signals on the host, into zeros, by a dense product of those that are not mostly zero.
fn correlate_block(operator: &Operator, values: &[f32], tile: usize, out: &mut [f32]) {
    let (signal_len, code_len) = (operator.signal().len(), operator.code().len());
    let rows = values.chunks_exact(signal_len).zip(out.chunks_exact_mut(code_len));
    // Correlations are zero already.
    let rows = rows.filter(|(signal, _)| !is_zero(signal));
    let (few, many): (Vec<_>, Vec<_>) = rows.partition(|(signal, _)| panels::are_few(signal));
    if !few.is_empty() {
        let (signals, mut out): (Vec<&[f32]>, Vec<&mut [f32]>) = few.into_iter().unzip();
        operator.panels().multiply(&signals, &mut out);
    }
    if !many.is_empty() {
        let padded = many.len().next_multiple_of(tile);
        let mut values = Vec::with_capacity(padded * signal_len);
        many.iter().for_each(|(signal, _)| values.extend_from_slice(signal));
        values.resize(padded * signal_len, 0.0);
        let signals = Tensor::from_data(TensorData::new(values, [padded, signal_len]), &operator.device());
        let found = to_host(operator.analyze_rows(signals));
        many.into_iter().zip(found.chunks_exact(code_len)).for_each(|((_, out), found)| out.copy_from_slice(found));
    }
}

/// Dᵀy for all signals, one row each. Where the host multiplies by a matrix, signals that are mostly zero cost what is not zero of them.
pub(super) fn correlate(operator: &Operator, signals: Tensor<2>) -> Vec<f32> {
    match multiplies_on_host(operator) {
        true => correlate_known(operator, signals.clone(), &to_host(signals)),
        false => correlate_known(operator, signals, &[]),
    }
}

/// [`correlate`] where the host has the values, too, which are not looked at on a GPU or by convolutions.
pub(super) fn correlate_known(operator: &Operator, signals: Tensor<2>, values: &[f32]) -> Vec<f32> {
    let [count, signal_len] = signals.dims();
    let code_len = operator.code().len();
    let [block, tile] = blocks(operator, device::is_host(&signals.device()));
    let mut correlations = vec![0.0; count * code_len];
    let by_values = multiplies_on_host(operator);
    if by_values && values.chunks_exact(signal_len).any(|signal| panels::are_few(signal) && !is_zero(signal)) {
        operator.panels();
    }
    let fill = |(index, out): (usize, &mut [f32])| {
        let (start, rows) = (index * block, out.len() / code_len);
        if by_values {
            let values = &values[start * signal_len..][..rows * signal_len];
            return correlate_block(operator, values, tile, out);
        }
        let found = to_host(correlate_some(operator, &signals, start..start + rows, tile));
        out.copy_from_slice(&found[..out.len()]);
    };
    let mut parts = correlations.chunks_mut(block * code_len).enumerate();
    // The first makes what all others use: a thread that waits for another to make it might be given one of them to do.
    parts.by_ref().take(1).for_each(fill);
    if device::is_host(&operator.device()) {
        parts.collect::<Vec<_>>().into_par_iter().for_each(fill);
    } else {
        parts.for_each(fill);
    }
    correlations
}

impl<'a> Columns<'a> {
    /// The dictionary on the samples of the mask `[1, signal values]`, every atom divided by its weight, with all inner products.
    ///
    /// # Errors
    /// More inner products than can be held.
    pub(super) fn new(operator: &'a Operator, mask: Option<Tensor<2>>, weights: Option<&[f32]>) -> Result<Self> {
        Self::build(operator, mask, weights, true)
    }

    /// [`Self::new`] for coordinate descent, without a Gram matrix of all atoms where it does not pay or does not fit.
    ///
    /// # Errors
    /// More inner products than can be held, and atoms that are too many as well.
    pub(super) fn for_descent(
        operator: &'a Operator,
        mask: Option<Tensor<2>>,
        weights: Option<&[f32]>,
    ) -> Result<Self> {
        let len = operator.code().len();
        let fits = len.saturating_mul(len) <= MAX_INNER_PRODUCTS;
        let pays = len <= MAX_DESCENT_CODE || operator.application() == OperatorForm::Gram || !is_dense(operator);
        Self::build(operator, mask, weights, fits && pays || !can_hold_atoms(operator))
    }

    fn build(
        operator: &'a Operator,
        mask: Option<Tensor<2>>,
        weights: Option<&[f32]>,
        with_gram: bool,
    ) -> Result<Self> {
        let (code_len, signal_len) = (operator.code().len(), operator.signal().len());
        let shift_invariant = shift_invariant(operator).filter(|_| mask.is_none() && weights.is_none());
        let all = if with_gram { code_len.saturating_mul(code_len) } else { 0 };
        let held = shift_invariant.as_ref().map_or(all, inner_products);
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
            None => {
                let gram = with_gram.then(|| Cow::Borrowed(operator.host_gram()));
                (Cow::Borrowed(operator.host_atoms()), gram)
            }
            Some(mask) => {
                let atoms = operator.atoms() * mask;
                let gram = with_gram.then(|| to_host(product(atoms.clone(), atoms.clone().transpose())));
                (Cow::Owned(to_host(atoms)), gram.map(Cow::Owned))
            }
        };
        if let Some(weights) = weights {
            for (atom, weight) in atoms.to_mut().chunks_exact_mut(signal_len).zip(weights) {
                atom.iter_mut().for_each(|entry| *entry /= weight);
            }
            if let Some(gram) = &mut gram {
                for (row, weight) in gram.to_mut().chunks_exact_mut(code_len).zip(weights) {
                    row.iter_mut().zip(weights).for_each(|(inner, other)| *inner /= weight * other);
                }
            }
        }
        Ok(Self { form: Form::Dense { atoms, gram }, code_len, signal_len })
    }

    /// Whether inner products are looked up, not computed.
    pub(super) fn has_inner_products(&self) -> bool {
        !matches!(&self.form, Form::Dense { gram: None, .. })
    }

    /// The Gram matrix, where it is held.
    pub(super) fn gram(&self) -> Option<&[f32]> {
        match &self.form {
            Form::Dense { gram, .. } => gram.as_deref(),
            Form::Convolution { .. } => None,
        }
    }

    /// Inner product of the atoms of two code values.
    #[inline(always)]
    pub(super) fn inner(&self, first: usize, second: usize) -> f32 {
        match &self.form {
            Form::Dense { gram: Some(gram), .. } => gram[first * self.code_len + second],
            Form::Dense { atoms, .. } => {
                let atom = |place: usize| &atoms[place * self.signal_len..][..self.signal_len];
                dot(atom(first), atom(second))
            }
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

    /// Inner products of an atom with some others.
    #[inline(always)]
    pub(super) fn inner_with(&self, atom: usize, others: &[usize], out: &mut [f32]) {
        match &self.form {
            Form::Dense { gram: Some(gram), .. } => {
                let row = &gram[atom * self.code_len..][..self.code_len];
                out.iter_mut().zip(others).for_each(|(out, &other)| *out = row[other]);
            }
            _ => {
                out.iter_mut().zip(others).for_each(|(out, &other)| *out = self.inner(atom, other));
            }
        }
    }

    /// Squared norms of all atoms.
    pub(super) fn energies(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.code_len).map(|place| self.inner(place, place))
    }

    /// Subtracts `value` times a row of the Gram matrix.
    #[inline(always)]
    fn subtract_row(&self, place: usize, value: f32, correlations: &mut [f32]) {
        match &self.form {
            Form::Dense { .. } => {
                for (other, correlation) in correlations.iter_mut().enumerate() {
                    *correlation -= value * self.inner(place, other);
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

    /// Dᵀy − Gγ for a sparse γ, given Dᵀy.
    #[inline(always)]
    pub(super) fn subtract_explained(&self, correlations: &[f32], support: &[usize], values: &[f32], out: &mut [f32]) {
        match &self.form {
            Form::Dense { gram: Some(gram), .. } => subtract_rows(gram, support, values, correlations, out),
            _ => {
                out.copy_from_slice(correlations);
                for (&place, &value) in support.iter().zip(values) {
                    self.subtract_row(place, value, out);
                }
            }
        }
    }

    /// y − Dγ for a sparse γ.
    #[inline(always)]
    pub(super) fn residual(&self, signal: &[f32], support: &[usize], values: &[f32]) -> Vec<f32> {
        let mut residual = signal.to_vec();
        match &self.form {
            Form::Dense { atoms, .. } => subtract_rows(atoms, support, values, signal, &mut residual),
            Form::Convolution { .. } => {
                for (&place, &value) in support.iter().zip(values) {
                    self.for_each_line(place, |first, entries| {
                        let samples = residual[first..].iter_mut();
                        samples.zip(entries).for_each(|(sample, &entry)| *sample -= value * entry);
                    });
                }
            }
        }
        residual
    }

    /// The stretches of the signal that an atom covers: where one begins, and the atom's entries there.
    #[inline(always)]
    pub(super) fn for_each_line(&self, place: usize, mut line: impl FnMut(usize, &[f32])) {
        match &self.form {
            Form::Dense { atoms, .. } => line(0, &atoms[place * self.signal_len..][..self.signal_len]),
            Form::Convolution { filters, geometry, .. } => {
                let SignalShape { height, width, .. } = geometry.signal;
                let [atom, top, left] = geometry.corner(place);
                for (index, entries) in filters.atom(atom).chunks_exact(geometry.kernel[1]).enumerate() {
                    let (channel, y) = (index / geometry.kernel[0], top + index % geometry.kernel[0]);
                    line((channel * height + y) * width + left, entries);
                }
            }
        }
    }

    /// Dᵀr, straight from the atoms.
    pub(super) fn correlate_with(&self, residual: &[f32], out: &mut [f32]) {
        for (place, out) in out.iter_mut().enumerate() {
            *out = 0.0;
            self.for_each_line(place, |first, entries| *out += dot(entries, &residual[first..][..entries.len()]));
        }
    }

    /// Dᵀr, straight from the atoms, in `f64`.
    pub(super) fn correlate_wide(&self, residual: &[f64], out: &mut [f64]) {
        vectorised(
            #[inline(always)]
            || {
                for (place, out) in out.iter_mut().enumerate() {
                    *out = self.inner_wide(place, residual);
                }
            },
        );
    }

    /// Inner products of some atoms with samples, in `f64`.
    pub(super) fn inner_wide_each(&self, places: &[usize], samples: &[f64], out: &mut [f64]) {
        vectorised(
            #[inline(always)]
            || {
                for (out, &place) in out.iter_mut().zip(places) {
                    *out = self.inner_wide(place, samples);
                }
            },
        );
    }

    /// Inner product of an atom with samples, in `f64`.
    #[inline(always)]
    pub(super) fn inner_wide(&self, place: usize, samples: &[f64]) -> f64 {
        let mut sum = 0.0;
        self.for_each_line(
            place,
            #[inline(always)]
            |first, entries| sum += dot_wide(entries, &samples[first..][..entries.len()]),
        );
        sum
    }

    /// samples += Σ values · atoms, in `f64`.
    pub(super) fn add_wide(&self, atoms: impl Iterator<Item = (usize, f64)> + Clone, samples: &mut [f64]) {
        vectorised(
            #[inline(always)]
            || {
                for (place, value) in atoms.clone() {
                    self.for_each_line(
                        place,
                        #[inline(always)]
                        |first, entries| {
                            let samples = &mut samples[first..][..entries.len()];
                            for (sample, &entry) in samples.iter_mut().zip(entries) {
                                *sample += value * f64::from(entry);
                            }
                        },
                    );
                }
            },
        );
    }

    /// Values of an atom that are not zero by construction.
    pub(super) fn atom_len(&self) -> usize {
        match &self.form {
            Form::Dense { .. } => self.signal_len,
            Form::Convolution { geometry, .. } => geometry.atom_len(),
        }
    }

    /// Number of code values.
    pub(super) fn code_len(&self) -> usize {
        self.code_len
    }

    /// Number of signal values.
    pub(super) fn signal_len(&self) -> usize {
        self.signal_len
    }
}

/// Inner product with [`LANES`] partial sums, so that it vectorises and rounds the same way on every run.
#[inline(always)]
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += left * right;
        }
    }
    sums.iter().sum::<f32>() + left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum::<f32>()
}

/// Inner product in `f64` with partial sums, so that it vectorises and rounds the same way on every run.
#[inline(always)]
fn dot_wide(left: &[f32], right: &[f64]) -> f64 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut sums = [0.0f64; LANES];
    for (left, right) in left.iter().zip(right) {
        for ((sum, &left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += f64::from(left) * right;
        }
    }
    let rest = left_rest.iter().zip(right_rest).map(|(&left, right)| f64::from(left) * right);
    let halves: [f64; 8] = std::array::from_fn(|lane| sums[lane] + sums[lane + 8]);
    sum_of_lanes(halves) + rest.sum::<f64>()
}

/// Their sum, by halves: one after the other takes longer than a short inner product.
#[inline(always)]
pub(super) fn sum_of_lanes(sums: [f64; 8]) -> f64 {
    let sums: [f64; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

/// Largest correlation: in magnitude, or positive only.
#[inline(always)]
pub(super) fn largest(correlations: &[f32], nonnegative: bool) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::LayerShape;
    use crate::model::{Mlcsc, ModelConfig};
    use burn::tensor::Distribution;

    /// Bit for bit, on dictionaries small and large.
    #[test]
    fn correlations_do_not_depend_on_the_batch() {
        let device = device::named(None).unwrap();
        for (side, atoms) in [(3, 5), (8, 64), (13, 512), (28, 1024), (28, 1000)] {
            let signal = SignalShape::new(1, side, side);
            let filters = Tensor::random([atoms, 1, side, side], Distribution::Normal(0.0, 1.0), &device);
            let config = ModelConfig::new(signal, vec![LayerShape::new(atoms, side, 1)]);
            let operator = Mlcsc::from_filters(config, vec![filters]).unwrap();
            let operator = operator.operator(signal, OperatorForm::Gram).unwrap();
            let (count, len) = (150, signal.len());
            let signals = Tensor::<2>::random([count, len], Distribution::Normal(0.0, 1.0), &device);
            // Every third is mostly zero.
            let mostly_zero = |value: f32, place: usize| {
                if place % (3 * len) < len && !place.is_multiple_of(5) { 0.0 } else { value }
            };
            let values = to_host(signals).into_iter().enumerate().map(|(place, value)| mostly_zero(value, place));
            let values: Vec<f32> = values.collect();
            let signals = Tensor::<2>::from_data(TensorData::new(values, [count, len]), &device);
            let dense = to_host(operator.analyze_rows(signals.clone()));
            let together = correlate(&operator, signals.clone());
            for size in [1, 7, 16, 17, 50, 64, 100] {
                for start in (0..count).step_by(size).take(4) {
                    let end = (start + size).min(count);
                    let alone = correlate(&operator, signals.clone().slice([start..end, 0..len]));
                    assert!(alone == together[start * atoms..end * atoms], "{size} of {side}x{side}, {atoms} atoms");
                }
            }
            let off = dense.iter().zip(&together).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off < 1e-3, "{off} of {side}x{side}, {atoms} atoms");
        }
    }
}
