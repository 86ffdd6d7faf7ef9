//! Local norms of representations: non-zeros in stripes.
//!
//! V. Papyan, J. Sulam, M. Elad, "Working Locally Thinking Globally: Theoretical Guarantees for Convolutional Sparse Coding",
//! IEEE Trans. Signal Processing 65(21), 2017, with windows in two dimensions and strides.
//!
//! A *stripe* of γ at a position holds all coefficients whose atoms overlap an atom at that position: a window of radius ⌈k/s⌉ − 1
//! code positions, over all channels. Two kinds must be kept apart: the stripe of the layer's *own* atoms (kernel k_i, stride s_i),
//! on which the limits λ_i of the model and the bounds that name μ(D_i) lie, and the wider one of the *effective* atoms (k^(i),
//! s^(i)), which the bounds that name μ(D^(i)) need.

use super::correlation::reach;
use super::geometry::{Geometry, LayerGeometry, SignalShape};
use super::sparse::to_host;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Radius of the stripe of a layer's own atoms, in code positions per axis.
pub fn own_radius(layer: &LayerGeometry) -> [usize; 2] {
    reach(layer.kernel, layer.stride)
}

/// Radius of the stripe of the effective atoms of D^(i), i = `depth` in 1..=L, in code positions per axis.
///
/// # Panics
/// If `depth` is 0 or larger than the number of layers.
pub fn effective_radius(geometry: &Geometry, depth: usize) -> [usize; 2] {
    let effective = geometry.effective(depth);
    reach(effective.kernel, effective.stride)
}

/// ‖γ‖ˢ_{0,∞} of one code: the most non-zeros in any window of that radius, over all channels.
///
/// # Panics
/// If the number of values is not that of `shape`.
pub fn stripe_norm(code: &[f32], shape: SignalShape, radius: [usize; 2]) -> usize {
    assert_eq!(code.len(), shape.len(), "values of a code of shape {shape}");
    let [rows, columns] = [shape.height, shape.width];
    let mut counts = vec![0u32; rows * columns];
    for channel in code.chunks_exact(rows * columns) {
        for (count, &value) in counts.iter_mut().zip(channel) {
            *count += u32::from(value != 0.0);
        }
    }
    // Sums over windows by two passes of running sums, along rows and then along columns.
    let mut along = vec![0u32; rows * columns];
    for (sums, counts) in along.chunks_exact_mut(columns).zip(counts.chunks_exact(columns)) {
        windows(counts, radius[1], sums);
    }
    let (mut column, mut sums) = (vec![0u32; rows], vec![0u32; rows]);
    let mut most = 0;
    for x in 0..columns {
        (0..rows).for_each(|y| column[y] = along[y * columns + x]);
        windows(&column, radius[0], &mut sums);
        most = sums.iter().fold(most, |most, &sum| most.max(sum));
    }
    most as usize
}

/// Sums of `values` over all windows that reach `radius` to both sides; as many sums as values.
fn windows(values: &[u32], radius: usize, sums: &mut [u32]) {
    let mut sum: u32 = values[..radius.min(values.len())].iter().sum();
    for (place, out) in sums.iter_mut().enumerate() {
        if let Some(entering) = place.checked_add(radius).and_then(|place| values.get(place)) {
            sum += entering;
        }
        *out = sum;
        if let Some(leaving) = place.checked_sub(radius) {
            sum -= values[leaving];
        }
    }
}

/// ‖γ‖ˢ_{0,∞} of every code of a batch, as [`stripe_norm`].
///
/// # Shapes
/// - codes: `[n, channels, height, width]`; out: n norms.
pub fn stripe_norms(codes: Tensor<4>, radius: [usize; 2]) -> Vec<usize> {
    let [count, channels, height, width] = codes.dims();
    let shape = SignalShape::new(channels, height, width);
    if count == 0 {
        return Vec::new();
    }
    let values: Vec<f32> = to_host(codes);
    values.par_chunks_exact(shape.len()).map(|code| stripe_norm(code, shape, radius)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, over every window, on a scattered code.
    #[test]
    fn counts_the_fullest_window() {
        let shape = SignalShape::new(2, 5, 7);
        let mut state = 3u32;
        let code: Vec<f32> = (0..shape.len())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from(state >> 29 == 0) * -1.5
            })
            .collect();
        for radius in [[0, 0], [1, 0], [0, 2], [2, 1], [4, 6], [100, 100]] {
            let mut most = 0;
            for y in 0..5i64 {
                for x in 0..7i64 {
                    let inside = |index: usize| {
                        let (row, column) = ((index / 7 % 5) as i64, (index % 7) as i64);
                        (row - y).abs() <= radius[0] as i64 && (column - x).abs() <= radius[1] as i64
                    };
                    most = most.max((0..code.len()).filter(|&index| inside(index) && code[index] != 0.0).count());
                }
            }
            assert_eq!(stripe_norm(&code, shape, radius), most, "{radius:?}");
        }
        assert_eq!(stripe_norm(&[0.0; 6], SignalShape::new(1, 2, 3), [1, 1]), 0);
    }

    #[test]
    fn own_and_effective_stripes_differ() {
        use crate::model::geometry::LayerShape;
        let layers = [LayerShape::new(2, 7, 2), LayerShape::new(3, 5, 1)];
        let geometry = Geometry::new(SignalShape::new(1, 28, 28), &layers).unwrap();
        assert_eq!(own_radius(&geometry.layers()[0]), [3, 3]);
        assert_eq!(own_radius(&geometry.layers()[1]), [4, 4]);
        // k^(2) = 7 + 4·2 = 15 with stride 2.
        assert_eq!(effective_radius(&geometry, 2), [7, 7]);
    }
}
