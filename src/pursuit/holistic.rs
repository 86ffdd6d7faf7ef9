//! Holistic pursuit: the zeros of the intermediate representations as an analysis prior on the deepest.
//!
//! A. Aberdam, J. Sulam, M. Elad, "Multi-Layer Sparse Coding: The Holistic Way", SIAM J. Mathematics of Data Science 1(1), 2019.
//! With A_i = D_{i+1} … D_L every zero of γ_i = A_i γ_L, i < L, is a linear equation that γ_L satisfies; the places of these zeros are
//! the co-support Λ_i. Two steps take turns: the smallest entries of the estimate of every γ_i join Λ_i, and γ_L is estimated anew
//! among the codes with A_i\[Λ_i\] γ_L = 0: its support by basis pursuit under these equations (the splitting of
//! [`super::multi_layer`]), its values by least squares on that support within the null space of the equations.

use super::greedy::{codes_of, least_squares, left_by, support_columns};
use super::layered::data_terms;
use super::magnitude::at_fair_size;
use super::observer::Work;
use super::splitting::with_zeros;
use super::{
    BasisPursuitConfig, MultiLayerSplittingConfig, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host,
};
use crate::error::{Error, Result};
use crate::kernels::linear_algebra::dot;
use crate::model::Operator;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Parameters of [`HolisticPursuit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolisticPursuitConfig {
    /// Most non-zeros of γ_1 … γ_{L−1}, each from 1 to the number of values of that γ_i; all others join its co-support.
    pub nonzeros: Vec<usize>,
    /// Rounds in which the co-supports grow to their sizes, at least 1. Default 5.
    #[serde(default = "default_rounds")]
    pub rounds: usize,
    /// Iterations of the splitting in every round, at least 1. Default 100.
    #[serde(default = "default_iterations")]
    pub iterations: usize,
    /// Gap and iterations of the first estimate, which knows no zeros; the sign of γ_L.
    #[serde(default)]
    pub basis: BasisPursuitConfig,
}

fn default_rounds() -> usize {
    5
}

fn default_iterations() -> usize {
    100
}

impl HolisticPursuitConfig {
    /// With the defaults.
    pub fn new(nonzeros: Vec<usize>) -> Self {
        Self {
            nonzeros,
            rounds: default_rounds(),
            iterations: default_iterations(),
            basis: BasisPursuitConfig::default(),
        }
    }

    /// Checks the parameters as far as they don't depend on the model.
    ///
    /// # Errors
    /// A number that is 0; non-negative codes; as [`BasisPursuitConfig::check`].
    pub fn init(self) -> Result<HolisticPursuit> {
        self.basis.check()?;
        if self.basis.nonnegative {
            return Err(Error::parameter("nonnegative", true, "false: least squares in a null space knows no sign"));
        }
        for (name, value) in [("rounds", self.rounds), ("iterations", self.iterations)] {
            if value == 0 {
                return Err(Error::parameter(name, value, "at least 1"));
            }
        }
        Ok(HolisticPursuit { config: self })
    }
}

/// Holistic pursuit with checked parameters.
///
/// Where the null space of the equations holds nothing but zero on the support found, a signal keeps the estimate of the round
/// before, the first of which is least squares on the support of multi-layer basis pursuit.
#[derive(Debug, Clone)]
pub struct HolisticPursuit {
    config: HolisticPursuitConfig,
}

/// The estimate of one signal.
#[derive(Clone)]
struct Estimate {
    support: Vec<usize>,
    coefficients: Vec<f64>,
}

impl HolisticPursuit {
    /// Sizes of the shallower representations, checked against the numbers of non-zeros.
    pub(super) fn check_for(&self, operator: &Operator) -> Result<Vec<usize>> {
        let layers = operator.geometry().layers();
        if layers.len() < 2 {
            return Err(Error::parameter("number of layers", layers.len(), "at least 2 with holistic pursuit"));
        }
        let lens: Vec<usize> = layers[..layers.len() - 1].iter().map(|layer| layer.code.len()).collect();
        if self.config.nonzeros.len() != lens.len() {
            return Err(Error::shape(
                "nonzeros of the shallower layers",
                format!("{}, one per layer before the deepest", lens.len()),
                self.config.nonzeros.len(),
            ));
        }
        for (index, (&nonzeros, &len)) in self.config.nonzeros.iter().zip(&lens).enumerate() {
            if !(1..=len).contains(&nonzeros) {
                let parameter = format!("nonzeros of layer {}", index + 1);
                return Err(Error::parameter(parameter, nonzeros, format!("1 to {len}, the values of its code")));
            }
        }
        Ok(lens)
    }
}

impl Pursuit for HolisticPursuit {
    fn name(&self) -> &'static str {
        "holistic"
    }

    /// Takes λ and weights of every layer, a mask and codes to start from.
    ///
    /// The report's objective is the data term; the reason is [`StopReason::Nonzeros`] where every co-support reached its size,
    /// else [`StopReason::Exhausted`].
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        let lens = self.check_for(problem.operator())?;
        at_fair_size(problem, |problem| self.pursue_all(problem, lens))
    }
}

impl HolisticPursuit {
    /// [`Pursuit::solve`] of what was checked; `lens` are the numbers of values of the layers' codes.
    fn pursue_all(&self, problem: &Problem, lens: Vec<usize>) -> Result<Pursued> {
        let operator = problem.operator();
        let config = MultiLayerSplittingConfig { basis: self.config.basis.clone(), ..Default::default() };
        let first = config.init()?.solve(problem)?;
        let count = problem.count();
        let (signals, mask) = (to_host(problem.signals()), problem.mask().map(to_host));
        let mut codes = operator.flat(first.codes.clone());
        // No equations yet.
        let none: Vec<Vec<bool>> = lens.iter().map(|&len| vec![false; count * len]).collect();
        let work = problem.work();
        let mut estimates: Vec<Estimate> =
            restricted(operator, &to_host(codes.clone()), &signals, mask.as_deref(), &none, &work)?
                .into_iter()
                .map(|estimate| estimate.unwrap_or_else(|| Estimate { support: Vec::new(), coefficients: Vec::new() }))
                .collect();
        let mut open = vec![true; count];
        for round in 1..=self.config.rounds {
            if count == 0 || !open.contains(&true) {
                break;
            }
            let values = codes_of(
                operator,
                estimates.iter().map(|estimate| (estimate.support.as_slice(), estimate.coefficients.as_slice())),
            );
            let representations = operator.propagate(values);
            let zeros: Vec<Vec<bool>> = lens
                .iter()
                .zip(&self.config.nonzeros)
                .zip(representations)
                .map(|((&len, &nonzeros), gamma)| {
                    let size = (len - nonzeros) * round / self.config.rounds;
                    smallest(&to_host(operator.flat(gamma)), len, size)
                })
                .collect();
            let tensors = zeros.iter().zip(&lens).map(|(zeros, &len)| {
                let values: Vec<f32> = zeros.iter().map(|&zero| f32::from(zero)).collect();
                let values = Tensor::<2>::from_data(TensorData::new(values, [count, len]), &operator.device());
                Some(values.greater_scalar(0.5))
            });
            let asked = problem.clone().with_start(operator.code_shaped(codes))?;
            codes = with_zeros(&asked, tensors.collect(), self.config.iterations)?;
            let found = restricted(operator, &to_host(codes.clone()), &signals, mask.as_deref(), &zeros, &work)?;
            for ((estimate, open), found) in estimates.iter_mut().zip(&mut open).zip(found) {
                match found {
                    Some(found) if *open => *estimate = found,
                    _ => *open = false,
                }
            }
        }
        let supports = estimates.iter().map(|estimate| (estimate.support.as_slice(), estimate.coefficients.as_slice()));
        let codes = codes_of(operator, supports);
        let reports = data_terms(problem, &codes)
            .into_iter()
            .zip(first.reports)
            .zip(open)
            .map(|(((data_term, nonzeros), first), open)| SignalReport {
                lambda: first.lambda,
                iterations: first.iterations + self.config.rounds * self.config.iterations,
                objective: data_term,
                relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
                data_term,
                nonzeros,
                stop: if open { StopReason::Nonzeros } else { StopReason::Exhausted },
                finished_by: None,
            })
            .collect();
        Ok(Pursued::consistent(codes, reports))
    }
}

/// Marks the `size` entries of smallest magnitude of every row; of equal ones the earlier.
fn smallest(values: &[f32], len: usize, size: usize) -> Vec<bool> {
    let mut marks = vec![false; values.len()];
    if size == 0 {
        return marks;
    }
    for (row, marks) in values.chunks_exact(len).zip(marks.chunks_exact_mut(len)) {
        let mut order: Vec<usize> = (0..len).collect();
        let smaller = |a: &usize, b: &usize| row[*a].abs().total_cmp(&row[*b].abs()).then(a.cmp(b));
        order.select_nth_unstable_by(size - 1, smaller);
        order[..size].iter().for_each(|&place| marks[place] = true);
    }
    marks
}

/// Least squares on the support of every code, within the null space of the rows of A_1 … A_{L−1} that `zeros` marks.
///
/// `None` where that holds nothing but zero.
///
/// # Errors
/// [`Error::Interrupted`].
fn restricted(
    operator: &Operator,
    codes: &[f32],
    signals: &[f32],
    mask: Option<&[f32]>,
    zeros: &[Vec<bool>],
    work: &Work,
) -> Result<Vec<Option<Estimate>>> {
    let (len, signal_len) = (operator.code().len(), operator.signal().len());
    codes
        .chunks_exact(len)
        .enumerate()
        .map(|(row, code)| {
            let support: Vec<usize> = (0..len).filter(|&place| code[place] != 0.0).collect();
            let size = support.len();
            if size == 0 {
                return Ok(Some(Estimate { support, coefficients: Vec::new() }));
            }
            let mask = mask.map(|mask| &mask[row * signal_len..][..signal_len]);
            let columns = support_columns(operator, mask, &support, work)?;
            let basis = match zeros.iter().any(|zeros| zeros.contains(&true)) {
                true => null_space(&equations(operator, &support, row, zeros), size, work)?,
                false => identity(size),
            };
            let columns: Vec<&[f64]> = columns.chunks_exact(signal_len).collect();
            let (mut combined, mut directions) = (Vec::new(), Vec::new());
            for direction in basis.chunks_exact(size) {
                let mut sum = vec![0.0; signal_len];
                let mut parts = 0.0;
                for (column, &part) in columns.iter().zip(direction) {
                    sum.iter_mut().zip(*column).for_each(|(sum, entry)| *sum += part * entry);
                    parts += part * part * dot(column, column);
                }
                // What atoms that are copies of each other leave is rounding.
                if dot(&sum, &sum) > CANCELLED * parts {
                    combined.extend(sum);
                    directions.push(direction);
                }
            }
            if combined.is_empty() {
                return Ok(None);
            }
            let signal = &signals[row * signal_len..][..signal_len];
            let parts = least_squares(&combined, signal, work)?;
            let mut coefficients = vec![0.0; size];
            for (direction, part) in directions.into_iter().zip(parts) {
                coefficients.iter_mut().zip(direction).for_each(|(value, entry)| *value += part * entry);
            }
            let left = left_by(&columns, &coefficients, signal);
            let energy = signal.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>();
            let left = dot(&left, &left);
            if left.is_nan() || left > energy {
                return Ok(None);
            }
            // What the equations rule out is zero, not rounding.
            let floor = 1e-6 * coefficients.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            let (support, coefficients) =
                support.into_iter().zip(coefficients).filter(|(_, value)| value.abs() > floor).unzip();
            Ok(Some(Estimate { support, coefficients }))
        })
        .collect()
}

/// Part of the energy of all its parts below which a combination of atoms is what their rounding leaves.
const CANCELLED: f64 = 1e-10;

/// CᵀC for the rows C of A_1 … A_{L−1}, restricted to the support, that `zeros` marks for signal `row`; and the largest energy of a
/// column of any whole A_i, which says what is small.
fn equations(operator: &Operator, support: &[usize], row: usize, zeros: &[Vec<bool>]) -> (Vec<f64>, f64) {
    let size = support.len();
    let mut gram = vec![0.0f64; size * size];
    let mut largest = 0.0f64;
    let unit: Vec<[f64; 1]> = vec![[1.0]; size];
    let impulses = codes_of(
        operator,
        support
            .iter()
            .zip(&unit)
            .map(|(place, unit)| (std::slice::from_ref(place), unit.as_slice()))
            .collect::<Vec<_>>()
            .into_iter(),
    );
    for (gamma, zeros) in operator.propagate(impulses).into_iter().zip(zeros) {
        let values = to_host(operator.flat(gamma));
        let len = values.len() / size;
        let zeros = &zeros[row * len..][..len];
        let rows: Vec<Vec<f64>> = values
            .chunks_exact(len)
            .map(|column| {
                column.iter().zip(zeros).filter(|(_, zero)| **zero).map(|(&entry, _)| f64::from(entry)).collect()
            })
            .collect();
        for column in values.chunks_exact(len) {
            largest = largest.max(column.iter().map(|&entry| f64::from(entry) * f64::from(entry)).sum());
        }
        gram.par_chunks_exact_mut(size).zip(rows.par_iter()).for_each(|(sums, left)| {
            for (sum, right) in sums.iter_mut().zip(&rows) {
                *sum += dot(left, right);
            }
        });
    }
    (gram, largest)
}

fn identity(size: usize) -> Vec<f64> {
    (0..size * size).map(|index| f64::from(u8::from(index / size == index % size))).collect()
}

/// Part of the largest energy below which a direction is taken to satisfy the equations: filters are `f32`.
const NULL: f64 = 1e-10;

/// A basis of the null space of a positive semi-definite matrix, one vector of length `size` after the other, by Cholesky's
/// factorisation with pivoting.
///
/// # Errors
/// [`Error::Interrupted`].
fn null_space((gram, scale): &(Vec<f64>, f64), size: usize, work: &Work) -> Result<Vec<f64>> {
    let mut matrix = gram.clone();
    let mut order: Vec<usize> = (0..size).collect();
    let mut rank = 0;
    // Row-major lower factor in pivoted order, in place.
    while rank < size {
        work.check()?;
        let pivot = (rank..size).max_by(|&a, &b| matrix[a * size + a].total_cmp(&matrix[b * size + b])).unwrap_or(rank);
        if matrix[pivot * size + pivot] <= NULL * scale {
            break;
        }
        order.swap(rank, pivot);
        for k in 0..size {
            matrix.swap(rank * size + k, pivot * size + k);
        }
        for k in 0..size {
            matrix.swap(k * size + rank, k * size + pivot);
        }
        let root = matrix[rank * size + rank].sqrt();
        matrix[rank * size + rank] = root;
        for i in rank + 1..size {
            matrix[i * size + rank] /= root;
        }
        for i in rank + 1..size {
            for j in rank + 1..=i {
                let value = matrix[i * size + j] - matrix[i * size + rank] * matrix[j * size + rank];
                matrix[i * size + j] = value;
                matrix[j * size + i] = value;
            }
        }
        rank += 1;
    }
    let mut basis = vec![0.0; (size - rank) * size];
    for (free, direction) in (rank..size).zip(basis.chunks_exact_mut(size.max(1))) {
        work.check()?;
        // L₁₁ᵀ x = −L₂₁ᵀ, so that the pivots' equations hold with this free variable at 1.
        direction[order[free]] = 1.0;
        let mut solution = vec![0.0; rank];
        for i in (0..rank).rev() {
            let known: f64 = (i + 1..rank).map(|k| matrix[k * size + i] * solution[k]).sum();
            solution[i] = (-matrix[free * size + i] - known) / matrix[i * size + i];
            direction[order[i]] = solution[i];
        }
    }
    Ok(basis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_spaces_are_annihilated() {
        // Rows (1, 1, 0, 2) and (0, 1, −1, 0): rank 2 in four dimensions.
        let rows = [[1.0, 1.0, 0.0, 2.0], [0.0, 1.0, -1.0, 0.0]];
        let gram: Vec<f64> =
            (0..16).map(|index| rows.iter().map(|row| row[index / 4] * row[index % 4]).sum()).collect();
        let work = Work::new(None, 1);
        let basis = null_space(&(gram, 4.0), 4, &work).unwrap();
        assert_eq!(basis.len(), 8);
        for direction in basis.chunks_exact(4) {
            // A free coefficient is 1.
            assert!(direction.contains(&1.0));
            for row in rows {
                let inner: f64 = row.iter().zip(direction).map(|(a, b)| a * b).sum();
                assert!(inner.abs() < 1e-12, "{direction:?}");
            }
        }
        assert_eq!(null_space(&(identity(3), 1.0), 3, &work).unwrap(), Vec::<f64>::new());
        assert_eq!(null_space(&(vec![0.0; 4], 1.0), 2, &work).unwrap(), identity(2));
    }

    #[test]
    fn the_smallest_are_marked() {
        assert_eq!(smallest(&[3.0, -1.0, 0.0, 2.0, 1.0, 1.0], 3, 1), [false, false, true, false, true, false]);
        assert_eq!(smallest(&[1.0], 1, 0), [false]);
    }
}
