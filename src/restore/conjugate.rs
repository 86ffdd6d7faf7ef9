//! Conjugate gradients: Ax = b of a symmetric positive semidefinite operator A that is known by its products.

use crate::kernels::sparse::energy;

/// x from zero on, until ‖b − Ax‖ ≤ tolerance ‖b‖ or after `most` steps. `product` writes A of its first argument to its second.
pub(super) fn solve(
    mut product: impl FnMut(&[f32], &mut [f32]),
    mut residual: Vec<f32>,
    most: usize,
    tolerance: f64,
) -> Vec<f32> {
    let (mut solution, mut made) = (vec![0.0; residual.len()], vec![0.0; residual.len()]);
    let mut direction = residual.clone();
    let first = energy(&residual);
    let mut present = first;
    for _ in 0..most {
        if present <= tolerance.powi(2) * first {
            break;
        }
        product(&direction, &mut made);
        let curvature: f64 = direction.iter().zip(&made).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        if curvature <= 0.0 {
            break;
        }
        let step = (present / curvature) as f32;
        solution.iter_mut().zip(&direction).for_each(|(value, direction)| *value += step * direction);
        residual.iter_mut().zip(&made).for_each(|(value, made)| *value -= step * made);
        let next = energy(&residual);
        let momentum = (next / present) as f32;
        direction.iter_mut().zip(&residual).for_each(|(value, residual)| *value = residual + momentum * *value);
        present = next;
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many steps as there are unknowns solve the second difference of a line; a right-hand side of zeros is solved by zeros.
    #[test]
    fn a_small_system_is_solved() {
        let product = |from: &[f32], into: &mut [f32]| {
            for at in 0..from.len() {
                let beside = |near: Option<usize>| near.and_then(|near| from.get(near)).copied().unwrap_or(0.0);
                into[at] = 2.0 * from[at] - beside(at.checked_sub(1)) - beside(Some(at + 1));
            }
        };
        let truth = [1.0, -2.0, 0.5, 3.0, 0.0, 1.5];
        let mut seen = vec![0.0; truth.len()];
        product(&truth, &mut seen);
        for (found, truth) in solve(product, seen, truth.len(), 1e-7).iter().zip(truth) {
            assert!((found - truth).abs() < 1e-4, "{found} instead of {truth}");
        }
        assert_eq!(solve(product, vec![0.0; 3], 3, 1e-7), [0.0; 3]);
    }
}
