//! Orthogonal matching pursuit and least squares on a support, for one signal, from correlations and a Gram matrix.
//!
//! The building block of greedy pursuits: Y. Pati, R. Rezaiifar, P. Krishnaprasad, "Orthogonal matching pursuit", Asilomar 1993;
//! R. Rubinstein, M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm using batch orthogonal matching
//! pursuit", Technion CS-2008-08.

/// A symmetric positive semi-definite matrix in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Gram<'a> {
    values: &'a [f32],
    size: usize,
}

impl<'a> Gram<'a> {
    /// Wraps the `size` × `size` values.
    ///
    /// # Panics
    /// If the number of values is not `size` squared.
    pub fn new(values: &'a [f32], size: usize) -> Self {
        assert_eq!(values.len(), size * size, "a Gram matrix is square");
        Self { values, size }
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.size..][..self.size]
    }
}

/// A direction whose energy falls below this part of its atom's is taken to depend on the atoms already chosen.
const DEPENDENT: f32 = 1e-5;

/// Orthogonal matching pursuit: picks the atom most correlated with the residual (relative to the atom's norm), projects onto
/// all atoms picked so far, and repeats, up to `nonzeros` atoms.
///
/// - `gram`: DᵀD; `correlations`: Dᵀy
/// - out: (atom, coefficient) in the order in which they were picked. Fewer than `nonzeros` where the residual is orthogonal
///   to all other atoms.
pub fn orthogonal_matching_pursuit(gram: Gram, correlations: &[f32], nonzeros: usize) -> Vec<(usize, f32)> {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || pursue(gram, correlations, nonzeros),
    )
}

#[inline(always)]
fn pursue(gram: Gram, correlations: &[f32], nonzeros: usize) -> Vec<(usize, f32)> {
    let size = gram.size;
    let mut residual_correlations = correlations.to_vec();
    let inverse_norms: Vec<f32> = (0..size)
        .map(|atom| gram.row(atom)[atom])
        .map(|energy| if energy > 0.0 { energy.sqrt().recip() } else { 0.0 })
        .collect();
    let mut available = inverse_norms;
    let mut support: Vec<usize> = Vec::with_capacity(nonzeros);
    // Correlations of all atoms with the k-th orthonormal direction, one after the other.
    let mut directions: Vec<f32> = Vec::with_capacity(nonzeros * size);
    // Upper triangular: each picked atom in terms of the directions; and the signal's coefficients on the directions.
    let mut triangle: Vec<Vec<f32>> = Vec::with_capacity(nonzeros);
    let mut coefficients: Vec<f32> = Vec::with_capacity(nonzeros);
    let start = residual_correlations.iter().zip(&available).map(|(c, n)| (c * n).abs()).fold(0.0, f32::max);
    while support.len() < nonzeros.min(size) {
        let (mut best, mut score) = (usize::MAX, 0.0f32);
        for (atom, (correlation, scale)) in residual_correlations.iter().zip(&available).enumerate() {
            let candidate = (correlation * scale).abs();
            if candidate > score {
                (best, score) = (atom, candidate);
            }
        }
        // Nothing left but rounding.
        if best == usize::MAX || score <= 1e-6 * start {
            break;
        }
        available[best] = 0.0;
        let mut direction = gram.row(best).to_vec();
        let mut column = Vec::with_capacity(support.len() + 1);
        for earlier in directions.chunks_exact(size) {
            let overlap = earlier[best];
            column.push(overlap);
            for (value, &other) in direction.iter_mut().zip(earlier) {
                *value -= overlap * other;
            }
        }
        let energy = direction[best];
        if energy <= DEPENDENT * gram.row(best)[best] {
            continue;
        }
        let norm = energy.sqrt();
        for value in &mut direction {
            *value /= norm;
        }
        let coefficient = residual_correlations[best] / norm;
        for (correlation, &value) in residual_correlations.iter_mut().zip(&direction) {
            *correlation -= coefficient * value;
        }
        column.push(norm);
        triangle.push(column);
        coefficients.push(coefficient);
        directions.extend_from_slice(&direction);
        support.push(best);
    }
    // Back substitution: atoms' coefficients from the directions'.
    for last in (0..support.len()).rev() {
        let value = coefficients[last] / triangle[last][last];
        coefficients[last] = value;
        for row in 0..last {
            coefficients[row] -= triangle[last][row] * value;
        }
    }
    support.into_iter().zip(coefficients).collect()
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
fn dot(left: &[f64], right: &[f64]) -> f64 {
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

    /// Three atoms in the plane and in space, not normalised, and a signal made of two of them.
    #[test]
    fn recovers_a_planted_combination() {
        let atoms = [[2.0f32, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]];
        let signal = [2.0f32 * 1.5, -2.0, -2.0];
        let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let gram: Vec<f32> = atoms.iter().flat_map(|a| atoms.iter().map(move |b| inner(a, b))).collect();
        let correlations: Vec<f32> = atoms.iter().map(|a| inner(a, &signal)).collect();
        let mut found = orthogonal_matching_pursuit(Gram::new(&gram, 3), &correlations, 2);
        found.sort_by_key(|&(atom, _)| atom);
        assert_eq!(found.iter().map(|&(atom, _)| atom).collect::<Vec<_>>(), [0, 1]);
        assert!((found[0].1 - 1.5).abs() < 1e-6 && (found[1].1 + 2.0).abs() < 1e-6, "{found:?}");
        // Asking for more than the signal needs adds nothing.
        assert_eq!(orthogonal_matching_pursuit(Gram::new(&gram, 3), &correlations, 3).len(), 2);
        let mut solved: Vec<f64> = correlations[..2].iter().map(|&value| f64::from(value)).collect();
        let mut matrix: Vec<f64> = [gram[0], gram[1], gram[3], gram[4]].map(f64::from).to_vec();
        solve_normal_equations(&mut matrix, &mut solved);
        assert!((solved[0] - 1.5).abs() < 1e-5 && (solved[1] + 2.0).abs() < 1e-5, "{solved:?}");
    }

    #[test]
    fn least_squares_survives_dependent_atoms() {
        let mut solved = [2.0, 2.0];
        solve_normal_equations(&mut [1.0, 1.0, 1.0, 1.0], &mut solved);
        assert!((solved[0] + solved[1] - 2.0).abs() < 1e-3, "{solved:?}");
    }
}
