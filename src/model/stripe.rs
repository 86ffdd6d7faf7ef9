//! Local norms of representations: non-zeros and energies in stripes and patches.
//!
//! V. Papyan, J. Sulam, M. Elad, "Working Locally Thinking Globally: Theoretical Guarantees for Convolutional Sparse Coding",
//! IEEE Trans. Signal Processing 65(21), 2017, with windows in two dimensions and strides.
//!
//! A *stripe* of γ at a position holds all coefficients whose atoms overlap an atom at that position: a window of radius ⌈k/s⌉ − 1
//! code positions, over all channels. Two kinds must be kept apart: the stripe of the layer's *own* atoms (kernel k_i, stride s_i),
//! on which the limits λ_i of the model and the bounds that name μ(D_i) lie, and the wider one of the *effective* atoms (k^(i),
//! s^(i)), which the bounds that name μ(D^(i)) need.
//!
//! A *patch* of γ_i is a window as large as an atom of D_{i+1}, the dictionary that reads γ_i as its signal (of the signal itself: an
//! atom of D_1), over all channels, anywhere. The deepest representation is read by no dictionary; its patch is what one patch of
//! γ_{L−1} sees of it.

use crate::geometry::{Geometry, LayerGeometry, SignalShape, reach};
use crate::kernels::sparse::to_host;
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

/// Height and width of a patch of γ_i, i = `depth` in 0..=L (0: the signal).
///
/// # Panics
/// If `depth` is larger than the number of layers.
pub fn patch_extent(geometry: &Geometry, depth: usize) -> [usize; 2] {
    match geometry.layers().get(depth) {
        Some(reader) => reader.kernel,
        None => {
            let deepest = &geometry.layers()[depth - 1];
            deepest.touching(deepest.kernel)
        }
    }
}

/// ‖γ‖ˢ_{0,∞} of one code: the most non-zeros in any window of that radius, over all channels.
///
/// # Panics
/// If the number of values is not that of `shape`.
pub fn stripe_norm(code: &[f32], shape: SignalShape, radius: [usize; 2]) -> usize {
    let [rows, columns] = [shape.height, shape.width];
    let counts = nonzeros_by_position(code, shape);
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

/// Non-zeros of one code at every position, over all channels.
///
/// # Panics
/// If the number of values is not that of `shape`.
pub fn nonzeros_by_position(code: &[f32], shape: SignalShape) -> Vec<u32> {
    assert_eq!(code.len(), shape.len(), "values of a code of shape {shape}");
    let mut counts = vec![0u32; shape.height * shape.width];
    for channel in code.chunks_exact(shape.height * shape.width) {
        for (count, &value) in counts.iter_mut().zip(channel) {
            *count += u32::from(value != 0.0);
        }
    }
    counts
}

/// ‖v‖ᵖ_{0,∞} of one representation: the most non-zeros in any window of that height and width, over all channels.
///
/// # Panics
/// If the number of values is not that of `shape`; a window without extent.
pub fn patch_nonzeros(values: &[f32], shape: SignalShape, extent: [usize; 2]) -> usize {
    let counts: Vec<f64> = nonzeros_by_position(values, shape).into_iter().map(f64::from).collect();
    largest_window(&counts, [shape.height, shape.width], extent) as usize
}

/// ‖v‖ᵖ_{2,∞} of one signal or representation: the root of the largest energy in any window of that height and width, over all
/// channels.
///
/// # Panics
/// As [`patch_nonzeros`].
pub fn patch_norm(values: &[f32], shape: SignalShape, extent: [usize; 2]) -> f64 {
    assert_eq!(values.len(), shape.len(), "values of shape {shape}");
    let mut energies = vec![0.0; shape.height * shape.width];
    for channel in values.chunks_exact(shape.height * shape.width) {
        for (energy, &value) in energies.iter_mut().zip(channel) {
            *energy += f64::from(value) * f64::from(value);
        }
    }
    largest_window(&energies, [shape.height, shape.width], extent).max(0.0).sqrt()
}

/// ‖γ‖ˢ_{2,∞} of one code: the root of the largest energy in any window of that radius, over all channels.
///
/// # Panics
/// If the number of values is not that of `shape`.
pub fn stripe_energy_norm(code: &[f32], shape: SignalShape, radius: [usize; 2]) -> f64 {
    // A window around a position near the border is part of one that lies within.
    let extent = [0, 1].map(|axis| radius[axis].saturating_mul(2).saturating_add(1));
    patch_norm(code, shape, extent)
}

/// Largest sum of non-negative `values` over a window of that extent; one larger than all is all.
fn largest_window(values: &[f64], [rows, columns]: [usize; 2], extent: [usize; 2]) -> f64 {
    assert!(extent[0] > 0 && extent[1] > 0, "a window without extent");
    let extent = [extent[0].min(rows), extent[1].min(columns)];
    // Windows of one row, then of all rows. Added up anew, not by differences, so that sums of nothing are nothing.
    let across = columns + 1 - extent[1];
    let along: Vec<f64> = values
        .chunks_exact(columns)
        .flat_map(|row| (0..across).map(move |start| row[start..start + extent[1]].iter().sum::<f64>()))
        .collect();
    let mut largest = 0.0f64;
    for top in 0..=rows - extent[0] {
        for start in 0..across {
            largest = largest.max((top..top + extent[0]).map(|row| along[row * across + start]).sum());
        }
    }
    largest
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

    /// Against the definition, over every window that lies within.
    #[test]
    fn the_fullest_patch_is_found() {
        let shape = SignalShape::new(2, 4, 5);
        let values: Vec<f32> = (0..shape.len()).map(|index| ((index * 7 % 11) as f32 - 5.0).max(0.0)).collect();
        for extent in [[1, 1], [2, 3], [4, 1], [9, 9]] {
            let (mut nonzeros, mut energy) = (0, 0.0f64);
            for top in 0..=4 - extent[0].min(4) {
                for left in 0..=5 - extent[1].min(5) {
                    let inside = |index: &usize| {
                        let (row, column) = (index / 5 % 4, index % 5);
                        (top..top + extent[0]).contains(&row) && (left..left + extent[1]).contains(&column)
                    };
                    let window: Vec<f64> =
                        (0..values.len()).filter(inside).map(|index| f64::from(values[index])).collect();
                    nonzeros = nonzeros.max(window.iter().filter(|value| **value != 0.0).count());
                    energy = energy.max(window.iter().map(|value| value * value).sum());
                }
            }
            assert_eq!(patch_nonzeros(&values, shape, extent), nonzeros, "{extent:?}");
            assert!((patch_norm(&values, shape, extent) - energy.sqrt()).abs() < 1e-12, "{extent:?}");
        }
        assert_eq!(stripe_energy_norm(&values, shape, [1, 2]), patch_norm(&values, shape, [3, 5]));
        assert_eq!(patch_nonzeros(&[0.0; 40], shape, [2, 2]), 0);
    }

    /// A single entry is in some window wherever it lies, at the borders too.
    #[test]
    fn one_entry_is_found_everywhere() {
        let shape = SignalShape::new(2, 4, 5);
        for place in 0..shape.len() {
            let mut values = vec![0.0f32; shape.len()];
            values[place] = -3.0;
            for extent in [[1, 1], [3, 2], [2, 4], [4, 5]] {
                assert_eq!(patch_nonzeros(&values, shape, extent), 1, "{place} {extent:?}");
                assert_eq!(patch_norm(&values, shape, extent), 3.0, "{place} {extent:?}");
            }
            assert_eq!(stripe_norm(&values, shape, [1, 1]), 1, "{place}");
            assert_eq!(stripe_energy_norm(&values, shape, [1, 1]), 3.0, "{place}");
        }
    }

    #[test]
    fn own_and_effective_stripes_differ() {
        use crate::geometry::LayerShape;
        let layers = [LayerShape::new(2, 7, 2), LayerShape::new(3, 5, 1)];
        let geometry = Geometry::new(SignalShape::new(1, 28, 28), &layers).unwrap();
        assert_eq!(own_radius(&geometry.layers()[0]), [3, 3]);
        assert_eq!(own_radius(&geometry.layers()[1]), [4, 4]);
        // k^(2) = 7 + 4·2 = 15 with stride 2.
        assert_eq!(effective_radius(&geometry, 2), [7, 7]);
    }
}
