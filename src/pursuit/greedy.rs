//! Orthogonal matching pursuit on the effective dictionary, batched, and least squares on a support.
//!
//! Y. Pati, R. Rezaiifar, P. Krishnaprasad, "Orthogonal matching pursuit", Asilomar Conference on Signals, Systems and Computers,
//! 1993. The atom most correlated with the residual, in units of the atoms' norms, joins the support, and the signal is projected
//! onto all atoms of the support; the Cholesky factor of their Gram matrix grows by one row an atom (R. Rubinstein,
//! M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit", Technion
//! CS-2008-08).
//!
//! Correlations of a whole batch are one analysis on the device. Columns of D^(L) are made when an atom is picked and kept by their
//! non-zeros, so that nothing grows with the square of the code; masks, paddings and strides need no case of their own. What
//! follows for each signal is done on the host in `f64`.

use super::{Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::{Error, Result};
use crate::model::Operator;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Parameters of [`OrthogonalMatchingPursuit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrthogonalMatchingPursuitConfig {
    /// Most non-zeros of γ_L, from 1 to the smaller of the numbers of code and of signal values.
    pub nonzeros: usize,
    /// Length ‖y − D^(L)γ‖₂ of the residual at which a signal is finished, at least 0. Default 0: only the non-zeros count.
    #[serde(default)]
    pub residual: f32,
}

impl OrthogonalMatchingPursuitConfig {
    /// With that many non-zeros, whatever the residual.
    pub fn new(nonzeros: usize) -> Self {
        Self { nonzeros, residual: 0.0 }
    }

    /// Checks the parameters as far as they don't depend on the model.
    ///
    /// # Errors
    /// No non-zeros; a residual that is negative or not finite.
    pub fn init(self) -> Result<OrthogonalMatchingPursuit> {
        if self.nonzeros == 0 {
            return Err(Error::parameter("nonzeros", 0, "at least 1"));
        }
        check_residual(self.residual)?;
        Ok(OrthogonalMatchingPursuit { config: self })
    }
}

pub(super) fn check_residual(residual: f32) -> Result<()> {
    if residual.is_finite() && residual >= 0.0 {
        return Ok(());
    }
    Err(Error::parameter("residual", residual, "a finite length ≥ 0"))
}

/// Refuses more non-zeros than the code has values or the signal has dimensions.
pub(super) fn check_nonzeros(operator: &Operator, nonzeros: usize) -> Result<()> {
    let most = operator.code().len().min(operator.signal().len());
    if (1..=most).contains(&nonzeros) {
        return Ok(());
    }
    let expected = format!(
        "1 to {most}, the smaller of {} code values and {} signal values",
        operator.code().len(),
        operator.signal().len()
    );
    Err(Error::parameter("nonzeros", nonzeros, expected))
}

/// Orthogonal matching pursuit with checked parameters.
#[derive(Debug, Clone)]
pub struct OrthogonalMatchingPursuit {
    config: OrthogonalMatchingPursuitConfig,
}

impl Pursuit for OrthogonalMatchingPursuit {
    fn name(&self) -> &'static str {
        "orthogonal-matching-pursuit"
    }

    /// Takes a mask; ignores λ.
    ///
    /// # Errors
    /// More non-zeros than dimensions; weights, penalties of shallower layers or codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        check_nonzeros(problem.operator(), self.config.nonzeros)?;
        refuse_penalties(problem, self.name())?;
        let level = f64::from(self.config.residual).powi(2);
        let mut growth = Growth::new(problem);
        let mut open: Vec<usize> = (0..problem.count()).collect();
        let mut stops = vec![StopReason::Nonzeros; problem.count()];
        loop {
            open.retain(|&row| {
                let approximation = &growth.approximations[row];
                if approximation.residual_energy <= level {
                    stops[row] = StopReason::Residual;
                    return false;
                }
                approximation.support.len() < self.config.nonzeros
            });
            if open.is_empty() {
                break;
            }
            for row in growth.grow(&open) {
                stops[row] = StopReason::Exhausted;
                open.retain(|&other| other != row);
            }
        }
        let reports = growth.approximations.iter().zip(stops).map(|(state, stop)| state.report(stop)).collect();
        Ok(Pursued::consistent(growth.codes(), reports))
    }
}

/// Refuses what greedy pursuits don't take.
pub(super) fn refuse_penalties(problem: &Problem, pursuit: &str) -> Result<()> {
    problem.refuse_shallower(pursuit)?;
    problem.refuse_weights(pursuit)?;
    problem.refuse_start(pursuit)
}

/// A direction whose energy falls below this part of its atom's is taken to depend on the atoms already chosen.
const DEPENDENT: f64 = 1e-5;

/// A batch of signals that are approximated by ever more atoms.
pub(super) struct Growth<'a> {
    operator: &'a Operator,
    mask: Option<Vec<f32>>,
    /// 1/‖atom‖, or 0 for atoms that are zero: for all signals alike, or, where there is a mask, for each.
    inverse_norms: Vec<f32>,
    pub(super) approximations: Vec<Approximation>,
}

/// One signal on the atoms picked so far.
pub(super) struct Approximation {
    signal: Vec<f32>,
    /// Correlation, in units of the atom's norm, of the first pick.
    first_score: f32,
    unavailable: Vec<bool>,
    pub(super) support: Vec<usize>,
    pub(super) coefficients: Vec<f64>,
    /// The picked atoms' non-zeros.
    columns: Vec<Vec<(u32, f32)>>,
    /// Rows of the Cholesky factor of the picked atoms' Gram matrix.
    factor: Vec<Vec<f64>>,
    /// The factor's inverse times the picked atoms' correlations with the signal.
    projected: Vec<f64>,
    residual: Vec<f32>,
    pub(super) residual_energy: f64,
}

impl<'a> Growth<'a> {
    pub(super) fn new(problem: &Problem<'a>) -> Self {
        let operator = problem.operator();
        let inverse_norms = to_host(operator.atom_energies(problem.mask()))
            .into_iter()
            .map(|energy| if energy > 0.0 { energy.sqrt().recip() } else { 0.0 })
            .collect();
        let approximations = to_host(problem.signals())
            .chunks_exact(operator.signal().len())
            .map(|signal| Approximation::new(signal, operator.code().len()))
            .collect();
        Self { operator, mask: problem.mask().map(to_host), inverse_norms, approximations }
    }

    /// Adds one atom to each of the signals in `rows` (in ascending order) and projects them anew. Where the best atom depends on
    /// those picked already it is ruled out and nothing is added. Returns the signals for which no atom is left.
    pub(super) fn grow(&mut self, rows: &[usize]) -> Vec<usize> {
        let (code_len, signal_len) = (self.operator.code().len(), self.operator.signal().len());
        let residuals: Vec<f32> =
            rows.iter().flat_map(|&row| self.approximations[row].residual.iter().copied()).collect();
        let residuals =
            Tensor::from_data(TensorData::new(residuals, [rows.len(), signal_len]), &self.operator.device());
        let correlations = to_host(self.operator.analyze_rows(residuals));
        let shared = self.mask.is_none();
        let norms = &self.inverse_norms;
        let approximations = &mut self.approximations;
        let mut chosen: Vec<&mut Approximation> = select(approximations, rows);
        let picks: Vec<Option<usize>> = chosen
            .par_iter_mut()
            .zip(correlations.par_chunks_exact(code_len))
            .zip(rows.par_iter())
            .map(|((state, correlations), &row)| {
                state.pick(correlations, &norms[if shared { 0 } else { row * code_len }..][..code_len])
            })
            .collect();
        let places: Vec<usize> = picks.iter().flatten().copied().collect();
        let columns = to_host(self.operator.columns(&places));
        let mask = &self.mask;
        let mut columns = columns.chunks_exact(signal_len);
        let work: Vec<(&mut Approximation, usize, &[f32], usize)> = chosen
            .into_iter()
            .zip(&picks)
            .zip(rows)
            .filter_map(|((state, pick), &row)| pick.and_then(|pick| Some((state, pick, columns.next()?, row))))
            .collect();
        work.into_par_iter().for_each(|(state, place, column, row)| {
            let mask = mask.as_ref().map(|mask| &mask[row * signal_len..][..signal_len]);
            state.extend(place, column, mask);
        });
        rows.iter().zip(&picks).filter(|(_, pick)| pick.is_none()).map(|(&row, _)| row).collect()
    }

    /// The codes as they stand, `[n, m_L, h_L, w_L]`.
    pub(super) fn codes(&self) -> Tensor<4> {
        let supports =
            self.approximations.iter().map(|state| (state.support.as_slice(), state.coefficients.as_slice()));
        codes_of(self.operator, supports)
    }
}

/// Codes from supports and coefficients, `[n, m_L, h_L, w_L]`.
pub(super) fn codes_of<'a>(
    operator: &Operator,
    supports: impl ExactSizeIterator<Item = (&'a [usize], &'a [f64])>,
) -> Tensor<4> {
    let len = operator.code().len();
    let dims = operator.code().batched(supports.len());
    let mut codes = vec![0.0f32; dims[0] * len];
    for (row, (support, coefficients)) in supports.enumerate() {
        for (&place, &value) in support.iter().zip(coefficients) {
            codes[row * len + place] = value as f32;
        }
    }
    Tensor::from_data(TensorData::new(codes, dims), &operator.device())
}

/// Those of the items that `rows`, in ascending order, names.
fn select<'a, T>(items: &'a mut [T], rows: &[usize]) -> Vec<&'a mut T> {
    let mut wanted = rows.iter().copied().peekable();
    items.iter_mut().enumerate().filter_map(|(index, item)| wanted.next_if_eq(&index).map(|_| item)).collect()
}

impl Approximation {
    fn new(signal: &[f32], code_len: usize) -> Self {
        Self {
            residual_energy: energy(signal),
            residual: signal.to_vec(),
            signal: signal.to_vec(),
            first_score: 0.0,
            unavailable: vec![false; code_len],
            support: Vec::new(),
            coefficients: Vec::new(),
            columns: Vec::new(),
            factor: Vec::new(),
            projected: Vec::new(),
        }
    }

    /// The available atom of largest correlation relative to its norm; of equal ones the first.
    fn pick(&mut self, correlations: &[f32], inverse_norms: &[f32]) -> Option<usize> {
        let (mut best, mut score) = (None, 0.0f32);
        for (place, (correlation, scale)) in correlations.iter().zip(inverse_norms).enumerate() {
            let candidate = (correlation * scale).abs();
            if candidate > score && !self.unavailable[place] {
                (best, score) = (Some(place), candidate);
            }
        }
        self.first_score = self.first_score.max(score);
        // Nothing left but rounding.
        best.filter(|_| score > 1e-6 * self.first_score)
    }

    /// Takes an atom into the support, given its column of D^(L).
    fn extend(&mut self, place: usize, column: &[f32], mask: Option<&[f32]>) {
        self.unavailable[place] = true;
        let column: Vec<f32> = match mask {
            Some(mask) => column.iter().zip(mask).map(|(entry, mask)| entry * mask).collect(),
            None => column.to_vec(),
        };
        let energy_of_atom = energy(&column);
        // One more row of the factor: the triangular system that gives the overlaps with the earlier directions.
        let mut row: Vec<f64> = Vec::with_capacity(self.support.len() + 1);
        for (other, earlier) in self.columns.iter().zip(&self.factor) {
            let inner: f64 = other.iter().map(|&(at, entry)| f64::from(entry) * f64::from(column[at as usize])).sum();
            let known: f64 = row.iter().zip(earlier).map(|(a, b)| a * b).sum();
            row.push((inner - known) / earlier[row.len()]);
        }
        let left = energy_of_atom - row.iter().map(|value| value * value).sum::<f64>();
        if left <= DEPENDENT * energy_of_atom {
            return;
        }
        let known: f64 = row.iter().zip(&self.projected).map(|(a, b)| a * b).sum();
        let correlation: f64 = column.iter().zip(&self.signal).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        self.projected.push((correlation - known) / left.sqrt());
        row.push(left.sqrt());
        self.factor.push(row);
        self.support.push(place);
        let nonzeros = column.iter().enumerate().filter(|(_, entry)| **entry != 0.0);
        self.columns.push(nonzeros.map(|(at, &entry)| (at as u32, entry)).collect());
        // Back substitution.
        let mut coefficients = self.projected.clone();
        for last in (0..coefficients.len()).rev() {
            coefficients[last] /= self.factor[last][last];
            for earlier in 0..last {
                coefficients[earlier] -= self.factor[last][earlier] * coefficients[last];
            }
        }
        let mut residual: Vec<f64> = self.signal.iter().map(|&sample| f64::from(sample)).collect();
        for (column, value) in self.columns.iter().zip(&coefficients) {
            column.iter().for_each(|&(at, entry)| residual[at as usize] -= value * f64::from(entry));
        }
        self.coefficients = coefficients;
        self.residual_energy = residual.iter().map(|sample| sample * sample).sum();
        self.residual = residual.into_iter().map(|sample| sample as f32).collect();
    }

    pub(super) fn report(&self, stop: StopReason) -> SignalReport {
        let data_term = (0.5 * self.residual_energy) as f32;
        SignalReport {
            lambda: 0.0,
            iterations: self.support.len(),
            objective: data_term,
            relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
            data_term,
            nonzeros: self.support.len(),
            stop,
        }
    }
}

fn energy(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

/// Columns of D^(L) that are made at once for a least squares problem.
const COLUMNS_AT_ONCE: usize = 64;

/// The columns of D^(L) on a support, masked, in `f64`, one after the other.
pub(super) fn support_columns(operator: &Operator, mask: Option<&[f32]>, support: &[usize]) -> Vec<f64> {
    let len = operator.signal().len();
    let mut columns: Vec<f64> = Vec::with_capacity(support.len() * len);
    for places in support.chunks(COLUMNS_AT_ONCE) {
        columns.extend(to_host(operator.columns(places)).into_iter().map(f64::from));
    }
    if let Some(mask) = mask {
        for column in columns.chunks_exact_mut(len) {
            column.iter_mut().zip(mask).for_each(|(entry, &mask)| *entry *= f64::from(mask));
        }
    }
    columns
}

/// Least squares coefficients of a signal on columns as long as itself.
pub(super) fn least_squares(columns: &[f64], signal: &[f32]) -> Vec<f64> {
    let columns: Vec<&[f64]> = columns.chunks_exact(signal.len().max(1)).collect();
    let size = columns.len();
    let signal: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
    let mut gram = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..=i {
            let inner = dot(columns[i], columns[j]);
            gram[i * size + j] = inner;
            gram[j * size + i] = inner;
        }
    }
    let mut values: Vec<f64> = columns.iter().map(|column| dot(column, &signal)).collect();
    solve_normal_equations(&mut gram, &mut values);
    values
}

/// Solves Gx = b in place for a symmetric positive semi-definite `matrix` G in row-major order, with a ridge of 1e-7 of its largest
/// diagonal entry, which keeps dependent atoms finite. `values` holds b, then x; `matrix` is used up.
#[inline(always)]
pub(crate) fn solve_normal_equations(matrix: &mut [f64], values: &mut [f64]) {
    let size = values.len();
    let ridge = 1e-7 * (0..size).map(|i| matrix[i * size + i]).fold(f64::MIN_POSITIVE, f64::max);
    // Cholesky factorisation in place, then two triangular solves.
    for i in 0..size {
        matrix[i * size + i] += ridge;
        for j in 0..=i {
            let inner = dot(&matrix[i * size..][..j], &matrix[j * size..][..j]);
            let value = matrix[i * size + j] - inner;
            matrix[i * size + j] = if i == j { value.max(ridge * 1e-3).sqrt() } else { value / matrix[j * size + j] };
        }
    }
    for i in 0..size {
        values[i] = (values[i] - dot(&matrix[i * size..][..i], &values[..i])) / matrix[i * size + i];
    }
    for i in (0..size).rev() {
        let value = values[i] / matrix[i * size + i];
        values[i] = value;
        for k in 0..i {
            values[k] -= matrix[i * size + k] * value;
        }
    }
}

/// Inner product with eight partial sums, so that it vectorises and rounds the same way on every run.
#[inline(always)]
pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for (a, b) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_recovers_a_combination() {
        // Atoms (2, 0, 0) and (0, 1, 1).
        let found = least_squares(&[2.0, 0.0, 0.0, 0.0, 1.0, 1.0], &[3.0, -2.0, -2.0]);
        assert!((found[0] - 1.5).abs() < 1e-6 && (found[1] + 2.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn least_squares_survives_dependent_atoms() {
        let mut solved = [2.0, 2.0];
        solve_normal_equations(&mut [1.0, 1.0, 1.0, 1.0], &mut solved);
        assert!((solved[0] + solved[1] - 2.0).abs() < 1e-3, "{solved:?}");
    }
}
