//! Mutual coherence of convolutional dictionaries, from correlations of their filters.

use crate::model::correlation::{for_each_shift, reach};
use crate::model::geometry::LayerGeometry;
use burn::tensor::Tensor;

/// Mutual coherence μ(D): the largest |〈d_i, d_j〉|/(‖d_i‖‖d_j‖) over distinct columns, all shifts included.
///
/// Columns are the filters at every code position, so two of them differ by a relative shift that is a multiple of the stride
/// and fits between two code positions. Atoms that padding crops at the border are counted whole. A dictionary with a single
/// column, or one whose atoms never overlap another, has coherence 0; atoms that are all zero count as orthogonal to
/// everything (D. Donoho, M. Elad, "Optimally sparse representation in general dictionaries via ℓ1 minimization", PNAS 100(5), 2003).
///
/// # Shapes
/// - filters: `[atoms, channels, kernel height, kernel width]` as `geometry.filter_dims()`.
pub fn mutual_coherence(filters: Tensor<4>, geometry: &LayerGeometry) -> f32 {
    let atoms = filters.dims()[0];
    let norms = filters.clone().square().sum_dims(&[1, 2, 3]).sqrt().clamp_min(f32::MIN_POSITIVE);
    let filters = filters / norms;
    let positions = [geometry.code.height, geometry.code.width];
    let overlap = reach(geometry.kernel, geometry.stride);
    let reach: [usize; 2] = std::array::from_fn(|axis| overlap[axis].min(positions[axis] - 1));
    let mut largest = 0.0f32;
    for_each_shift(&filters, geometry.stride, reach, |vertical, horizontal, inner| {
        let inner = inner.abs();
        let inner = if vertical == 0 && horizontal == 0 {
            inner * (Tensor::ones([atoms, atoms], &filters.device()) - Tensor::eye(atoms, &filters.device()))
        } else {
            inner
        };
        largest = largest.max(inner.max().into_scalar::<f32>());
    });
    largest
}
