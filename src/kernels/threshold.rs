//! The thresholds of sparse coding: the proximal maps of ‖·‖₁ and ‖·‖₀.

use burn::tensor::Tensor;

/// Soft threshold S_t(x) = sign(x)·max(|x| − t, 0), or max(x − t, 0) for non-negative codes.
///
/// # Shapes
/// - values: `[n, k]`; thresholds ≥ 0: `[n, 1]`, one per row, or `[n, k]`; out: `[n, k]`.
pub fn soft_threshold(values: Tensor<2>, thresholds: Tensor<2>, nonnegative: bool) -> Tensor<2> {
    if nonnegative {
        return (values - thresholds).clamp_min(0.0);
    }
    // x − clamp(x, −t, t): fewer passes over memory than the definition.
    let dims = values.dims();
    let upper = thresholds.expand(dims);
    let clamped = values.clone().min_pair(upper.clone()).max_pair(upper.neg());
    values - clamped
}

/// Hard threshold: x where |x| > t, else 0.
///
/// # Shapes
/// - values: `[n, k]`; thresholds ≥ 0: `[n, 1]`, one per row, or `[n, k]`; out: `[n, k]`.
pub fn hard_threshold(values: Tensor<2>, thresholds: Tensor<2>) -> Tensor<2> {
    let dims = values.dims();
    let small = values.clone().abs().lower_equal(thresholds.expand(dims));
    values.mask_fill(small, 0.0)
}

/// Soft threshold of one number, as [`soft_threshold`]. NaN stays NaN.
#[inline]
pub fn soft_threshold_value(value: f32, threshold: f32, nonnegative: bool) -> f32 {
    if value > threshold {
        value - threshold
    } else if value < -threshold && !nonnegative {
        value + threshold
    } else if value.is_nan() {
        value
    } else {
        0.0
    }
}

/// Keeps the `keep` entries of largest magnitude of every row and zeroes the others (the projection onto ‖·‖₀ ≤ `keep`).
///
/// Of equal magnitudes the earlier entry stays. Rows are `row_len` long.
///
/// # Panics
/// If `row_len` is 0.
pub fn hard_threshold_rows(values: &mut [f32], row_len: usize, keep: usize) {
    let mut order: Vec<u32> = Vec::with_capacity(row_len);
    for row in values.chunks_exact_mut(row_len) {
        if keep >= row_len {
            continue;
        }
        order.clear();
        order.extend(0..row_len as u32);
        let larger = |a: &u32, b: &u32| row[*b as usize].abs().total_cmp(&row[*a as usize].abs()).then(a.cmp(b));
        order.select_nth_unstable_by(keep, larger);
        for &index in &order[keep..] {
            row[index as usize] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_threshold_matches_its_definition() {
        let device = crate::device::named(None).unwrap();
        let values = [-2.0f32, -0.5, 0.0, 0.4, 3.0, 0.5];
        let tensor = Tensor::<1>::from_floats(values, &device).reshape([2, 3]);
        let thresholds = [0.5f32, 1.0];
        let rows = Tensor::<1>::from_floats(thresholds, &device).reshape([2, 1]);
        for nonnegative in [false, true] {
            let out: Vec<f32> =
                soft_threshold(tensor.clone(), rows.clone(), nonnegative).into_data().try_to_vec().unwrap();
            let expected: Vec<f32> = values
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    let shrunk = value.signum() * (value.abs() - thresholds[index / 3]).max(0.0);
                    if nonnegative { shrunk.max(0.0) } else { shrunk }
                })
                .collect();
            assert_eq!(out, expected);
            for (index, &value) in values.iter().enumerate() {
                assert_eq!(soft_threshold_value(value, thresholds[index / 3], nonnegative), expected[index]);
            }
        }
    }

    #[test]
    fn hard_threshold_keeps_the_largest() {
        let mut values = [1.0, -3.0, 2.0, 0.0, 5.0, 5.0, -5.0, 0.1];
        hard_threshold_rows(&mut values, 4, 2);
        assert_eq!(values, [0.0, -3.0, 2.0, 0.0, 5.0, 5.0, 0.0, 0.0]);
    }
}
