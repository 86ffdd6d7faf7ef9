//! Subspace pursuit over a convolutional dictionary, for codes of which a good guess is at hand.
//!
//! W. Dai, O. Milenkovic, "Subspace Pursuit for Compressive Sensing Signal Reconstruction", IEEE Trans. Information Theory 55(5),
//! 2009: to the current support add the atoms most correlated with the residual, project onto the union, keep the largest
//! coefficients, project again. One call is one such exchange; it never makes the approximation worse.

use crate::kernels::correlation::CorrelationTable;
use crate::kernels::linear_algebra::{dot, solve_normal_equations};
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::nonzeros;

/// Added to the diagonal of Gram matrices, as a part of its largest entry: more than the rounding of inner products in
/// `f32`, which makes the matrix of nearly dependent atoms indefinite. Atoms that outnumber the signal's samples always
/// are dependent.
const RIDGE: f64 = 1e-5;

/// Subspace pursuit with a fixed number of non-zeros.
#[derive(Debug)]
pub struct SubspacePursuit<'a> {
    table: &'a CorrelationTable,
    inverse_norms: Vec<f32>,
    rows: usize,
    columns: usize,
    nonzeros: usize,
    exchange: usize,
}

/// A support with the least squares coefficients on it and the energy that they explain.
struct Projection {
    support: Vec<usize>,
    coefficients: Vec<f64>,
    explained: f64,
}

impl<'a> SubspacePursuit<'a> {
    /// For codes of shape `[atoms, rows, columns]` with at most `nonzeros` non-zeros, of which up to `exchange` (at least 1) may
    /// be exchanged in one call.
    pub fn new(
        table: &'a CorrelationTable,
        [atoms, rows, columns]: [usize; 3],
        nonzeros: usize,
        exchange: usize,
    ) -> Self {
        let inverse_norms = (0..atoms)
            .map(|atom| table.energy(atom))
            .map(|energy| if energy > 0.0 { energy.sqrt().recip() } else { 0.0 })
            .collect();
        Self { table, inverse_norms, rows, columns, nonzeros: nonzeros.max(1), exchange: exchange.max(1) }
    }

    /// Improves `code`, the current approximation of a signal u, given the correlations Dᵀ(u − D·code).
    ///
    /// Both are as long as the code. A code that has more non-zeros than allowed is cut first; one that is empty is filled.
    pub fn refine(&self, residual_correlations: &[f32], code: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || self.exchange_once(residual_correlations, code),
        );
    }

    #[inline(always)]
    fn exchange_once(&self, residual_correlations: &[f32], code: &mut [f32]) {
        let full: Vec<usize> = nonzeros(code).map(|(place, _)| place).collect();
        let scale = |place: usize| self.inverse_norms[place / (self.rows * self.columns)];
        let mut kept = full.clone();
        keep_largest(&mut kept, self.nonzeros, |place| contribution(code[place].abs(), scale(place)));
        let additions = self.exchange + self.nonzeros - kept.len();
        let mut union = self.strongest(residual_correlations, code, additions);
        union.extend(&kept);
        union.sort_unstable();
        // Dᵀu on the union: what the residual has, plus what the code explains.
        let places: Vec<(usize, usize, usize)> = union.iter().map(|&place| self.unravel(place)).collect();
        let size = union.len();
        let mut gram = vec![0.0f64; size * size];
        for i in 0..size {
            for j in 0..=i {
                let inner = f64::from(self.table.between(places[i], places[j]));
                gram[i * size + j] = inner;
                gram[j * size + i] = inner;
            }
        }
        let values: Vec<f64> = union.iter().map(|&place| f64::from(code[place])).collect();
        let mut correlations: Vec<f64> = union
            .iter()
            .zip(gram.chunks_exact(size.max(1)))
            .map(|(&place, row)| f64::from(residual_correlations[place]) + dot(row, &values))
            .collect();
        // What was cut off explains something too.
        for &other in full.iter().filter(|place| kept.len() < full.len() && union.binary_search(place).is_err()) {
            let (value, other) = (f64::from(code[other]), self.unravel(other));
            for (correlation, &place) in correlations.iter_mut().zip(&places) {
                *correlation += value * f64::from(self.table.between(place, other));
            }
        }
        let all: Vec<usize> = (0..size).collect();
        let wide = project(&gram, &correlations, size, all);
        let mut chosen = wide.support.clone();
        keep_largest(&mut chosen, self.nonzeros, |index| {
            contribution((wide.coefficients[index] as f32).abs(), scale(union[index]))
        });
        chosen.sort_unstable();
        let mut best = project(&gram, &correlations, size, chosen);
        let before: Vec<usize> = kept.iter().filter_map(|place| union.binary_search(place).ok()).collect();
        if before.len() == self.nonzeros {
            let mut before = before;
            before.sort_unstable();
            let same = project(&gram, &correlations, size, before);
            if same.explained > best.explained {
                best = same;
            }
        }
        code.fill(0.0);
        for (&index, &value) in best.support.iter().zip(&best.coefficients) {
            code[union[index]] = value as f32;
        }
    }

    /// The `count` places outside the code's support of largest correlation relative to the atom's norm; of equal ones the earlier.
    #[inline(always)]
    fn strongest(&self, correlations: &[f32], code: &[f32], count: usize) -> Vec<usize> {
        let positions = self.rows * self.columns;
        // The best so far, the strongest first.
        let mut best: Vec<(f32, usize)> = Vec::with_capacity(count + 1);
        let maps = correlations.chunks_exact(positions).zip(code.chunks_exact(positions)).zip(&self.inverse_norms);
        for (atom, ((correlations, code), &scale)) in maps.enumerate() {
            let least = if best.len() < count { 0.0 } else { best[best.len() - 1].0 };
            let largest = correlations.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            if count == 0 || largest * scale <= least {
                continue;
            }
            for (position, (correlation, &value)) in correlations.iter().zip(code).enumerate() {
                let score = correlation.abs() * scale;
                let least = if best.len() < count { 0.0 } else { best[best.len() - 1].0 };
                if score > least && value == 0.0 {
                    let rank = best.partition_point(|&(other, _)| other >= score);
                    best.insert(rank, (score, atom * positions + position));
                    best.truncate(count);
                }
            }
        }
        best.into_iter().map(|(_, place)| place).collect()
    }

    fn unravel(&self, place: usize) -> (usize, usize, usize) {
        (place / (self.rows * self.columns), place / self.columns % self.rows, place % self.columns)
    }
}

/// Least squares on some of the rows of a Gram matrix.
#[inline(always)]
fn project(gram: &[f64], correlations: &[f64], size: usize, support: Vec<usize>) -> Projection {
    let mut matrix: Vec<f64> = support.iter().flat_map(|&i| support.iter().map(move |&j| gram[i * size + j])).collect();
    let mut coefficients: Vec<f64> = support.iter().map(|&index| correlations[index]).collect();
    let count = support.len();
    let ridge = RIDGE * (0..count).map(|index| matrix[index * count + index]).fold(0.0, f64::max);
    (0..count).for_each(|index| matrix[index * count + index] += ridge);
    solve_normal_equations(&mut matrix, &mut coefficients);
    let explained = support.iter().zip(&coefficients).map(|(&index, value)| correlations[index] * value).sum();
    Projection { support, coefficients, explained }
}

/// What a coefficient contributes to the signal, the inverse of its atom's norm given; an atom that is zero contributes nothing.
fn contribution(size: f32, inverse_norm: f32) -> f32 {
    if inverse_norm > 0.0 { size / inverse_norm } else { 0.0 }
}

/// Keeps the `count` places of largest score; of equal ones the earlier.
fn keep_largest(places: &mut Vec<usize>, count: usize, score: impl Fn(usize) -> f32) {
    if places.len() > count {
        places.select_nth_unstable_by(count, |&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        places.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Tensor, TensorData};

    /// A planted code over random filters is found from nothing in a few exchanges.
    #[test]
    fn recovers_a_planted_code() {
        let device = crate::device::named(None).unwrap();
        let dims = [4usize, 1, 5, 5];
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..100).map(|_| random()).collect();
        let filters = Tensor::<4>::from_data(TensorData::new(values, dims), &device);
        let (rows, columns) = (4, 3);
        let table = CorrelationTable::new(&filters, [2, 2], [rows, columns]);
        let len = 4 * rows * columns;
        let mut planted = vec![0.0f32; len];
        for (place, value) in [(3, 1.0), (17, -0.7), (30, 0.5), (41, 2.0)] {
            planted[place] = value;
        }
        let place = |index: usize| (index / (rows * columns), index / columns % rows, index % columns);
        let pursuit = SubspacePursuit::new(&table, [4, rows, columns], 4, 4);
        let mut code = vec![0.0f32; len];
        for _ in 0..4 {
            let residual: Vec<f32> = (0..len)
                .map(|i| (0..len).map(|j| table.between(place(i), place(j)) * (planted[j] - code[j])).sum())
                .collect();
            pursuit.refine(&residual, &mut code);
            assert!(code.iter().filter(|value| **value != 0.0).count() <= 4);
        }
        for (found, planted) in code.iter().zip(&planted) {
            assert!((found - planted).abs() < 1e-4, "{found} {planted}");
        }
    }

    /// More non-zeros than samples: the fit becomes exact, and never worse on the way.
    #[test]
    fn dependent_atoms_do_no_harm() {
        let device = crate::device::named(None).unwrap();
        let mut state = 3u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let (atoms, kernel, extent) = (12usize, 3usize, 3usize);
        let side = kernel + extent - 1;
        let filters: Vec<f32> = (0..atoms * kernel * kernel).map(|_| random()).collect();
        let tensor = Tensor::<4>::from_data(TensorData::new(filters.clone(), [atoms, 1, kernel, kernel]), &device);
        let table = CorrelationTable::new(&tensor, [1, 1], [extent, extent]);
        let len = atoms * extent * extent;
        let target: Vec<f32> = (0..side * side).map(|_| random()).collect();
        // Entry `sample` of the atom at `place`.
        let entry = |place: usize, sample: usize| {
            let (atom, row, column) = (place / (extent * extent), place / extent % extent, place % extent);
            let (down, across) = ((sample / side).wrapping_sub(row), (sample % side).wrapping_sub(column));
            if down < kernel && across < kernel { filters[(atom * kernel + down) * kernel + across] } else { 0.0 }
        };
        for nonzeros in [20, 25, 40, len] {
            let pursuit = SubspacePursuit::new(&table, [atoms, extent, extent], nonzeros, nonzeros.div_ceil(2));
            let mut code = vec![0.0f32; len];
            let mut before = f32::INFINITY;
            for _ in 0..6 {
                let residual: Vec<f32> = (0..side * side)
                    .map(|sample| {
                        target[sample] - (0..len).map(|place| code[place] * entry(place, sample)).sum::<f32>()
                    })
                    .collect();
                let energy: f32 = residual.iter().map(|value| value * value).sum();
                assert!(energy <= 1.01 * before + 1e-5, "{nonzeros}: {before} {energy}");
                before = energy;
                let correlations: Vec<f32> = (0..len)
                    .map(|place| (0..side * side).map(|sample| residual[sample] * entry(place, sample)).sum())
                    .collect();
                pursuit.refine(&correlations, &mut code);
            }
            let energy: f32 = target.iter().map(|value| value * value).sum();
            // Measured: 5e-6 with 25 non-zeros, less with more.
            assert!(before < 1e-4 * energy || nonzeros < 25, "{nonzeros}: {before} of {energy}");
        }
    }
}
