//! Inner products of a convolutional dictionary's atoms at all relative shifts: its Gram matrix without the repetitions.

use crate::geometry::{LayerGeometry, reach_within};
#[cfg(feature = "cube")]
use crate::kernels::dictionary::analysis;
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use burn::tensor::Tensor;

/// Calls `visit` with (vertical shift, horizontal shift, inner products) for one shift of every pair of opposite ones, the zero
/// shift first, up to `reach` code positions.
///
/// The matrix of shift δ holds at (j, k) the inner product of atom j and atom k moved by δ code positions; that of −δ is its
/// transpose.
///
/// # Shapes
/// - filters: `[atoms, channels, kernel height, kernel width]`; inner products: `[atoms, atoms]`.
pub fn for_each_shift(
    filters: &Tensor<4>,
    stride: [usize; 2],
    reach: [usize; 2],
    mut visit: impl FnMut(isize, isize, Tensor<2>),
) {
    let [atoms, channels, height, width] = filters.dims();
    let part = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
        let len = channels * rows.len() * columns.len();
        filters.clone().slice([0..atoms, 0..channels, rows, columns]).reshape([atoms, len])
    };
    for vertical in 0..=reach[0] {
        let down = vertical * stride[0];
        let from = if vertical == 0 { 0 } else { -(reach[1] as isize) };
        for horizontal in from..=reach[1] as isize {
            let across = horizontal.unsigned_abs() * stride[1];
            let (left, right) = (0..width - across, across..width);
            let (fixed, moved) = if horizontal < 0 { (left, right) } else { (right, left) };
            let inner = product(part(down..height, fixed), part(0..height - down, moved).transpose());
            visit(vertical as isize, horizontal, inner);
        }
    }
}

/// Number of inner products that a convolution's atoms have at all relative shifts; saturates.
pub fn inner_products(layer: &LayerGeometry) -> usize {
    layer.shifts().into_iter().fold(layer.code.channels.saturating_mul(layer.code.channels), usize::saturating_mul)
}

/// All inner products, on the filters' device.
///
/// # Shapes
/// - filters: those of `layer`, `[atoms, channels, kernel height, kernel width]`; out: `[atom, moved atom, vertical shift + reach,
///   horizontal shift + reach]` for all [`LayerGeometry::shifts`].
#[cfg(feature = "cube")]
pub(crate) fn table(filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    // The correlations of all atoms with every one that lies alone in a signal.
    let around = layer.around_one();
    let [atoms, channels, height, width] = filters.dims();
    let [top, left] = [0, 1].map(|axis| layer.reach()[axis] * layer.stride[axis]);
    let alone = Tensor::zeros(around.signal.batched(atoms), &filters.device());
    let alone = alone.slice_assign([0..atoms, 0..channels, top..top + height, left..left + width], filters.clone());
    analysis(alone, filters, &around)
}

/// All inner products, on the host, for looking them up pair by pair.
#[derive(Debug, Clone)]
pub struct CorrelationTable {
    atoms: usize,
    reach: [usize; 2],
    /// `[vertical shift + reach, horizontal shift + reach, atom, moved atom]`.
    values: Vec<f32>,
}

impl CorrelationTable {
    /// The table for shifts between any two of `positions` code positions (rows and columns).
    ///
    /// # Shapes
    /// - filters: `[atoms, channels, kernel height, kernel width]`.
    pub fn new(filters: &Tensor<4>, stride: [usize; 2], positions: [usize; 2]) -> Self {
        let [atoms, _, height, width] = filters.dims();
        let reach = reach_within([height, width], stride, positions);
        let columns = 2 * reach[1] + 1;
        let mut values = vec![0.0; (2 * reach[0] + 1) * columns * atoms * atoms];
        for_each_shift(filters, stride, reach, |vertical, horizontal, inner| {
            let inner: Vec<f32> = to_host(inner);
            let place = |vertical: isize, horizontal: isize| {
                let row = (vertical + reach[0] as isize) as usize;
                (row * columns + (horizontal + reach[1] as isize) as usize) * atoms * atoms
            };
            values[place(vertical, horizontal)..][..atoms * atoms].copy_from_slice(&inner);
            let opposite = &mut values[place(-vertical, -horizontal)..][..atoms * atoms];
            for j in 0..atoms {
                for k in 0..atoms {
                    opposite[k * atoms + j] = inner[j * atoms + k];
                }
            }
        });
        Self { atoms, reach, values }
    }

    /// Inner product of the atom `first` = (atom, row, column) and the atom `second` in code positions.
    #[inline(always)]
    pub fn between(&self, first: (usize, usize, usize), second: (usize, usize, usize)) -> f32 {
        let vertical = second.1.wrapping_sub(first.1).wrapping_add(self.reach[0]);
        let horizontal = second.2.wrapping_sub(first.2).wrapping_add(self.reach[1]);
        if vertical > 2 * self.reach[0] || horizontal > 2 * self.reach[1] {
            return 0.0;
        }
        let shift = vertical * (2 * self.reach[1] + 1) + horizontal;
        self.values[(shift * self.atoms + first.0) * self.atoms + second.0]
    }

    /// Largest shift that the table knows, per axis.
    pub fn reach(&self) -> [usize; 2] {
        self.reach
    }

    /// Squared norm of an atom.
    pub fn energy(&self, atom: usize) -> f32 {
        self.between((atom, 0, 0), (atom, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn matches_inner_products_of_shifted_atoms() {
        let device = crate::device::named(None).unwrap();
        let (dims, stride) = ([3usize, 2, 3, 5], [2usize, 2]);
        let values: Vec<f32> =
            (0..dims.iter().product::<usize>()).map(|i| ((i * 37 % 23) as f32) / 23.0 - 0.4).collect();
        let filters = Tensor::<4>::from_data(TensorData::new(values.clone(), dims), &device);
        let table = CorrelationTable::new(&filters, stride, [3, 4]);
        let at = |atom: usize, channel: usize, row: isize, column: isize| {
            let inside = (0..3).contains(&row) && (0..5).contains(&column);
            let index = ((atom * 2 + channel) * 3) as isize;
            if inside { values[((index + row) * 5 + column) as usize] } else { 0.0 }
        };
        for (first, second) in (0..3 * 12).flat_map(|a| (0..3 * 12).map(move |b| (a, b))) {
            let place = |index: usize| (index / 12, index / 4 % 3, index % 4);
            let (a, b) = (place(first), place(second));
            let down = (b.1 as isize - a.1 as isize) * 2;
            let across = (b.2 as isize - a.2 as isize) * 2;
            let mut expected = 0.0;
            for channel in 0..2 {
                for row in 0..3 {
                    for column in 0..5 {
                        expected += at(a.0, channel, row, column) * at(b.0, channel, row - down, column - across);
                    }
                }
            }
            assert!((table.between(a, b) - expected).abs() < 1e-5, "{a:?} {b:?}");
        }
    }
}
