//! Products of vectors of which few values are not zero with a matrix, on the host: they cost what those values cost.
//!
//! A vector that is zero where a picture is black has nothing to do with those rows of the matrix. The matrix is kept in panels of few
//! columns, each of which stays in the cache while all vectors pass by; the sums of a panel are held in registers.

use crate::kernels::sparse::nonzeros;
use pulp::{Arch, Simd, WithSimd};

/// Columns of a panel.
const WIDTH: usize = 64;

/// What a multiplication by a non-zero costs at most, in multiplications of a dense product.
const COST: usize = 3;

/// Whether a vector has so few non-zeros that [`Panels::multiply`] is faster than a dense product. It depends on that vector alone.
pub(crate) fn are_few(vector: &[f32]) -> bool {
    COST * vector.iter().filter(|value| **value != 0.0).count() <= vector.len()
}

/// The transpose of a matrix, cut into panels.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    columns: usize,
    rows: usize,
    /// `[panel, row, column of the panel]`, zeros beyond the last column.
    values: Vec<f32>,
}

impl Panels {
    /// Of the transpose of `matrix`, `[columns, rows]`.
    pub(crate) fn of_transposed(matrix: &[f32], rows: usize) -> Self {
        let columns = matrix.len() / rows.max(1);
        let mut values = vec![0.0; columns.next_multiple_of(WIDTH) * rows];
        for (panel, matrix) in values.chunks_mut((rows * WIDTH).max(1)).zip(matrix.chunks((rows * WIDTH).max(1))) {
            for (column, entries) in matrix.chunks_exact(rows).enumerate() {
                panel.iter_mut().skip(column).step_by(WIDTH).zip(entries).for_each(|(value, entry)| *value = *entry);
            }
        }
        Self { columns, rows, values }
    }

    /// Products of some vectors with the matrix, one row each. A product is the same whatever stands beside it.
    ///
    /// # Shapes
    /// - vectors: each `rows` long; out: `[vectors, columns]`
    pub(crate) fn multiply(&self, vectors: &[&[f32]], out: &mut [&mut [f32]]) {
        let mut ends = Vec::with_capacity(vectors.len());
        let mut few: Vec<(usize, f32)> = Vec::new();
        for vector in vectors {
            few.extend(nonzeros(vector));
            ends.push(few.len());
        }
        let panels = self.values.chunks_exact((self.rows * WIDTH).max(1));
        for (first, panel) in (0..self.columns).step_by(WIDTH).zip(panels) {
            let (rows, _) = panel.as_chunks::<WIDTH>();
            let last = (first + WIDTH).min(self.columns);
            let mut begin = 0;
            for (out, &end) in out.iter_mut().zip(&ends) {
                let sums = Arch::new().dispatch(WeightedSum { rows, weights: &few[begin..end] });
                out[first..last].copy_from_slice(&sums[..last - first]);
                begin = end;
            }
        }
    }
}

/// Σ weight · row.
struct WeightedSum<'a> {
    rows: &'a [[f32; WIDTH]],
    weights: &'a [(usize, f32)],
}

impl WithSimd for WeightedSum<'_> {
    type Output = [f32; WIDTH];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; WIDTH] {
        match S::F32_LANES {
            16 => self.add_up::<S, { WIDTH / 16 }>(simd),
            8 => self.add_up::<S, { WIDTH / 8 }>(simd),
            4 => self.add_up::<S, { WIDTH / 4 }>(simd),
            _ => self.add_up::<S, WIDTH>(simd),
        }
    }
}

impl WeightedSum<'_> {
    /// In `VECTORS` sums at a time: as many as `WIDTH` values are.
    #[inline(always)]
    fn add_up<S: Simd, const VECTORS: usize>(self, simd: S) -> [f32; WIDTH] {
        let mut sums = [simd.splat_f32s(0.0); VECTORS];
        for &(row, weight) in self.weights {
            let (entries, _) = S::as_simd_f32s(&self.rows[row]);
            let weight = simd.splat_f32s(weight);
            if let Some(entries) = entries.first_chunk::<VECTORS>() {
                for (sum, entry) in sums.iter_mut().zip(entries) {
                    *sum = simd.mul_add_f32s(weight, *entry, *sum);
                }
            }
        }
        let mut out = [0.0; WIDTH];
        let (vectors, _) = S::as_mut_simd_f32s(&mut out);
        vectors.copy_from_slice(&sums);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_matrix() {
        for (rows, columns) in [(1, 1), (3, 64), (7, 65), (40, 200)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|place| (place * 37 % 101) as f32 - 50.0).collect();
            let vectors: Vec<f32> = (0..5 * rows)
                .map(|place| if place * 7 % 5 < 3 { 0.0 } else { (place * 11 % 13) as f32 - 6.0 })
                .collect();
            let panels = Panels::of_transposed(&matrix, rows);
            let mut out = vec![f32::NAN; 5 * columns];
            let vectors: Vec<&[f32]> = vectors.chunks_exact(rows).collect();
            panels.multiply(&vectors, &mut out.chunks_exact_mut(columns).collect::<Vec<_>>());
            // Whole numbers below 2²⁴: no rounding.
            for (vector, out) in vectors.iter().zip(out.chunks_exact(columns)) {
                for (column, found) in matrix.chunks_exact(rows).zip(out) {
                    let expected: f32 = column.iter().zip(*vector).map(|(a, b)| a * b).sum();
                    assert_eq!(*found, expected, "{rows}x{columns}");
                }
            }
        }
    }

    #[test]
    fn few_are_a_third() {
        assert!(are_few(&[0.0, 0.0, 1.0]) && are_few(&[0.0; 5]));
        assert!(!are_few(&[0.0, 1.0, 1.0]) && !are_few(&[f32::NAN]));
    }
}
