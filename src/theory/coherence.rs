//! Mutual coherence of convolutional dictionaries, from correlations of their filters.

use crate::model::geometry::LayerGeometry;
use burn::tensor::Tensor;

/// Mutual coherence μ(D): the largest |〈d_i, d_j〉|/(‖d_i‖‖d_j‖) over distinct columns, all shifts included.
///
/// Columns are the filters at every code position, so two of them differ by a relative shift that is a multiple of the stride
/// and fits between two code positions. Atoms that padding crops at the border are counted whole. A dictionary with a single
/// column, or one whose atoms never overlap another, has coherence 0; atoms that are all zero count as orthogonal to
/// everything (PAPER §1, local norms; Donoho and Elad 2003).
///
/// # Shapes
/// - filters: `[atoms, channels, kernel height, kernel width]` as `geometry.filter_dims()`.
pub fn mutual_coherence(filters: Tensor<4>, geometry: &LayerGeometry) -> f32 {
    let [atoms, channels, height, width] = filters.dims();
    let norms = filters.clone().square().sum_dims(&[1, 2, 3]).sqrt().clamp_min(f32::MIN_POSITIVE);
    let filters = filters / norms;
    let positions = [geometry.code.height, geometry.code.width];
    let extent = [height, width];
    // Shifts at which supports overlap and both positions exist.
    let reach: [usize; 2] =
        std::array::from_fn(|axis| (extent[axis].div_ceil(geometry.stride[axis]) - 1).min(positions[axis] - 1));
    let part = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
        let len = channels * rows.len() * columns.len();
        filters.clone().slice([0..atoms, 0..channels, rows, columns]).reshape([atoms, len])
    };
    let mut largest = 0.0f32;
    for vertical in 0..=reach[0] {
        let down = vertical * geometry.stride[0];
        // A shift and its opposite give the same correlations: one of each pair is enough.
        let from = if vertical == 0 { 0 } else { -(reach[1] as isize) };
        for horizontal in from..=reach[1] as isize {
            let across = horizontal.unsigned_abs() * geometry.stride[1];
            let (left, right) = (0..width - across, across..width);
            let (first, second) = if horizontal < 0 { (left, right) } else { (right, left) };
            let correlations = part(down..height, first).matmul(part(0..height - down, second).transpose()).abs();
            let correlations = if vertical == 0 && horizontal == 0 {
                correlations * (Tensor::ones([atoms, atoms], &filters.device()) - Tensor::eye(atoms, &filters.device()))
            } else {
                correlations
            };
            largest = largest.max(correlations.max().into_scalar::<f32>());
        }
    }
    largest
}
