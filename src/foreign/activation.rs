//! What makes codes of an encoder's values, where it is more than a threshold. All of it is decided on the host: of equal values the
//! first counts on every device.

use crate::kernels::product::product;
use crate::kernels::sparse::{norm, to_host};
use crate::kernels::threshold::hard_threshold_rows;
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

/// Rows that a core takes at a time.
const ROWS: usize = 16;

/// Keeps the `k` values of largest magnitude of every row; of equal ones the first.
///
/// # Shapes
/// - values: `[n, m]`, the same out.
pub(super) fn keep_largest(values: Tensor<2>, k: usize) -> Tensor<2> {
    let (dims, device) = (values.dims(), values.device());
    let mut values = to_host(values);
    values.par_chunks_mut(dims[1] * ROWS).for_each(|rows| hard_threshold_rows(rows, dims[1], k));
    Tensor::from_data(TensorData::new(values, dims), &device)
}

/// Keeps the largest of each of `k` groups of neighbours in every row; of equal ones the first.
///
/// # Shapes
/// - values ≥ 0: `[n, m]`, m a multiple of `k`; the same out.
pub(super) fn keep_largest_of_groups(values: Tensor<2>, k: usize) -> Tensor<2> {
    let (dims, device) = (values.dims(), values.device());
    let len = dims[1] / k;
    let mut values = to_host(values);
    values.par_chunks_mut(len).for_each(|group| {
        let largest =
            group.iter().enumerate().fold(0, |best, (at, value)| if *value > group[best] { at } else { best });
        group.iter_mut().enumerate().filter(|(at, _)| *at != largest).for_each(|(_, value)| *value = 0.0);
    });
    Tensor::from_data(TensorData::new(values, dims), &device)
}

/// Matching pursuit as SAELens runs it: the atom of the largest positive correlation with the residual, the first of equal ones, is added
/// with that correlation, however long it is, and may be picked again.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatchingPursuit {
    pub max_iterations: usize,
    pub residual_threshold: f32,
    pub stop_on_duplicate_support: bool,
}

impl MatchingPursuit {
    /// # Shapes
    /// - signals: `[n, d]`; atoms: `[m, d]`; out: `[n, m]`.
    pub fn code(self, signals: Tensor<2>, atoms: Tensor<2>) -> Tensor<2> {
        let (device, [count, len], units) = (signals.device(), signals.dims(), atoms.dims()[0]);
        let mut residuals = to_host(signals);
        let rows = to_host(atoms.clone());
        let mut codes = vec![0.0f32; count * units];
        let mut active: Vec<usize> = (0..count).collect();
        let analysis = atoms.transpose();
        for _ in 0..self.max_iterations {
            if active.is_empty() {
                break;
            }
            let left: Vec<f32> = active.iter().flat_map(|&row| &residuals[row * len..][..len]).copied().collect();
            let left = Tensor::<2>::from_data(TensorData::new(left, [active.len(), len]), &device);
            // The first of equal maxima, as `argmax` has it on every host.
            let picks = first_largest(product(left, analysis.clone()));
            let mut is_active = vec![None; count];
            active.iter().zip(picks).for_each(|(&row, pick)| is_active[row] = Some(pick));
            let states = residuals.par_chunks_exact_mut(len).zip(codes.par_chunks_exact_mut(units)).zip(is_active);
            let goes_on: Vec<bool> = states
                .map(|((residual, code), pick)| {
                    pick.is_some_and(|pick| self.pick(residual, code, &rows[pick * len..][..len], pick))
                })
                .collect();
            active.retain(|&row| goes_on[row]);
        }
        Tensor::from_data(TensorData::new(codes, [count, units]), &device)
    }

    /// Adds an atom to a signal's code and says whether there may be more.
    fn pick(self, residual: &mut [f32], code: &mut [f32], atom: &[f32], index: usize) -> bool {
        let value: f64 = residual.iter().zip(atom).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let value = value.max(0.0) as f32;
        // Nothing that follows would differ.
        if value == 0.0 {
            return false;
        }
        let is_new = code[index] == 0.0;
        code[index] += value;
        residual.iter_mut().zip(atom).for_each(|(left, &atom)| *left -= value * atom);
        let is_short = self.residual_threshold > 0.0 && norm(residual) < self.residual_threshold;
        !(is_short || (self.stop_on_duplicate_support && !is_new))
    }
}

/// Index of the largest value of every row, the first of equal ones.
fn first_largest(values: Tensor<2>) -> Vec<usize> {
    let indices: Tensor<2, Int> = values.argmax(1);
    crate::device::read(indices).iter::<i64>().map(|index| index as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<const N: usize>(rows: &[[f32; N]]) -> Tensor<2> {
        let values: Vec<f32> = rows.iter().flatten().copied().collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), N]), &crate::device::named(None).unwrap())
    }

    #[test]
    fn the_first_of_equal_values_stays() {
        let values = tensor(&[[1.0, 2.0, 2.0, 2.0, 0.5, -3.0], [0.0; 6]]);
        assert_eq!(to_host(keep_largest(values.clone(), 2))[..6], [0.0, 2.0, 0.0, 0.0, 0.0, -3.0]);
        assert_eq!(to_host(keep_largest(values.clone(), 6)), to_host(values.clone()));
        let grouped = to_host(keep_largest_of_groups(values.clamp_min(0.0), 3));
        assert_eq!(grouped[..6], [0.0, 2.0, 2.0, 0.0, 0.5, 0.0]);
        assert_eq!(grouped[6..], [0.0; 6]);
    }

    /// Worked out by hand, for y = (3, 1) over (1, 0), (0, 1) and (0.6, 0.8).
    #[test]
    fn matching_pursuit_stops_as_it_is_told() {
        let (signal, atoms) = (tensor(&[[3.0, 1.0]]), tensor(&[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]));
        let code = |max_iterations, residual_threshold, stop_on_duplicate_support| {
            let pursuit = MatchingPursuit { max_iterations, residual_threshold, stop_on_duplicate_support };
            to_host(pursuit.code(signal.clone(), atoms.clone()))
        };
        let close = |found: Vec<f32>, expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} for {expected:?}");
        };
        // Correlations 3, 1 and 2.6; then 0, 1 and 0.8; then nothing is left.
        close(code(1, 0.0, true), [3.0, 0.0, 0.0]);
        close(code(2, 0.0, true), [3.0, 1.0, 0.0]);
        close(code(9, 0.0, true), [3.0, 1.0, 0.0]);
        // Shorter than 1.5 after the first pick.
        close(code(9, 1.5, false), [3.0, 0.0, 0.0]);
        // Atoms that are not of unit norm overshoot, and are picked again: 4, then −4.
        let long = tensor(&[[2.0, 0.0], [-2.0, 0.0]]);
        let pursuit = MatchingPursuit { max_iterations: 2, residual_threshold: 0.0, stop_on_duplicate_support: true };
        assert_eq!(to_host(pursuit.code(tensor(&[[2.0, 0.0]]), long)), [4.0, 12.0]);
        // A second pick of the same atom ends it, or does not: 2, then 2·0.5, then 2·0.25.
        let short = tensor(&[[0.70710677, 0.0]]);
        for (stops, expected) in [(true, 2.1213203), (false, 2.4748737)] {
            let pursuit =
                MatchingPursuit { max_iterations: 3, residual_threshold: 0.0, stop_on_duplicate_support: stops };
            let found = to_host(pursuit.code(tensor(&[[2.0, 0.0]]), short.clone()))[0];
            assert!((found - expected).abs() < 1e-5, "{found}");
        }
    }
}
