//! Loops compiled for the instruction sets of the machine at hand, chosen at run time.

use pulp::{Arch, Simd, WithSimd};

/// Runs `operation` as compiled for the widest instruction set that this machine has.
///
/// Only what is inlined into it is compiled so: `operation` itself has to be a closure marked `#[inline(always)]`, as has to be
/// every function with loops that it calls. It is taken as `FnMut` because a closure that is called as `FnOnce` goes through a
/// function that the compiler makes, and which it does not inline.
#[inline]
pub(crate) fn vectorised<R>(operation: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Operation(operation))
}

struct Operation<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Operation<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// out = from − Σ_i values_i · row(rows_i) of a matrix whose rows are `from.len()` long.
///
/// What takes the time is to bring the rows from memory, which goes fastest by long pieces of few rows at once; the sums stay in the
/// nearest cache meanwhile.
#[inline]
pub(crate) fn subtract_rows(matrix: &[f32], rows: &[usize], values: &[f32], from: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(SubtractRows { matrix, rows, values, from, out });
}

struct SubtractRows<'a> {
    matrix: &'a [f32],
    rows: &'a [usize],
    values: &'a [f32],
    from: &'a [f32],
    out: &'a mut [f32],
}

/// Rows that are subtracted at once, and entries of them in one go.
const ROWS_AT_ONCE: usize = 4;
const PIECE: usize = 1024;

impl WithSimd for SubtractRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { matrix, rows, values, from, out } = self;
        let len = from.len();
        for (index, out) in out.chunks_mut(PIECE).enumerate() {
            let piece = index * PIECE..index * PIECE + out.len();
            out.copy_from_slice(&from[piece.clone()]);
            let row = |row: usize| &matrix[row * len..][piece.clone()];
            let ((rows, rest), (values, values_of_rest)) =
                (rows.as_chunks::<ROWS_AT_ONCE>(), values.as_chunks::<ROWS_AT_ONCE>());
            for (&rows, &values) in rows.iter().zip(values) {
                subtract(simd, out, rows.map(row), values);
            }
            for (&place, &value) in rest.iter().zip(values_of_rest) {
                subtract(simd, out, [row(place)], [value]);
            }
        }
    }
}

/// Subtracts multiples of some rows.
#[inline(always)]
fn subtract<S: Simd, const R: usize>(simd: S, out: &mut [f32], rows: [&[f32]; R], values: [f32; R]) {
    let (out_vectors, out_rest) = S::as_mut_simd_f32s(out);
    let rows = rows.map(|row| {
        let (vectors, rest) = S::as_simd_f32s(row);
        (&vectors[..out_vectors.len()], &rest[..out_rest.len()])
    });
    let factors = values.map(|value| simd.splat_f32s(-value));
    for (place, out) in out_vectors.iter_mut().enumerate() {
        let mut sum = *out;
        for ((row, _), factor) in rows.iter().zip(factors) {
            sum = simd.mul_add_f32s(factor, row[place], sum);
        }
        *out = sum;
    }
    for (place, out) in out_rest.iter_mut().enumerate() {
        for ((_, row), value) in rows.iter().zip(values) {
            *out -= value * row[place];
        }
    }
}

/// Inner products of vectors with the rows of a matrix whose rows are `len` long: `out[v · rows + r]` is that of vector `v` with row
/// `r`. A product does not depend on what else is asked for.
#[inline]
pub(crate) fn inner_products(vectors: &[&[f32]], matrix: &[f32], len: usize, out: &mut [f32]) {
    out.fill(0.0);
    if len > 0 && !matrix.is_empty() {
        Arch::new().dispatch(InnerProducts { vectors, matrix, len, out });
    }
}

struct InnerProducts<'a> {
    vectors: &'a [&'a [f32]],
    matrix: &'a [f32],
    len: usize,
    out: &'a mut [f32],
}

/// Entries of a row that stay in the cache while all vectors pass by.
const STRIP: usize = 1024;

/// Vectors that are multiplied at once, so that an entry of the matrix is loaded once for all of them.
const VECTORS: usize = 4;

/// Rows that are multiplied at once.
const ROWS: usize = 2;

impl WithSimd for InnerProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { vectors, matrix, len, out } = self;
        let rows = matrix.len() / len;
        for first in (0..len).step_by(STRIP) {
            let strip = first..(first + STRIP).min(len);
            let (fours, rest) = vectors.as_chunks::<VECTORS>();
            let (out_of_fours, out_of_rest) = out.split_at_mut(fours.len() * VECTORS * rows);
            for (vectors, out) in fours.iter().zip(out_of_fours.chunks_exact_mut(VECTORS * rows)) {
                add_strip(simd, vectors, matrix, len, strip.clone(), out);
            }
            for (vector, out) in rest.iter().zip(out_of_rest.chunks_exact_mut(rows)) {
                add_strip(simd, &[*vector], matrix, len, strip.clone(), out);
            }
        }
    }
}

/// Adds what a part of the entries gives.
#[inline(always)]
fn add_strip<S: Simd, const V: usize>(
    simd: S,
    vectors: &[&[f32]; V],
    matrix: &[f32],
    len: usize,
    strip: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let rows = matrix.len() / len;
    let mut parts = [&[][..]; V];
    for (part, vector) in parts.iter_mut().zip(vectors) {
        *part = &vector[strip.clone()];
    }
    let mut first = 0;
    while first < rows {
        let row = |row: usize| &matrix[row * len..][strip.clone()];
        if first + ROWS <= rows {
            add_products(simd, parts, [row(first), row(first + 1)], rows, &mut out[first..]);
            first += ROWS;
        } else {
            add_products(simd, parts, [row(first)], rows, &mut out[first..]);
            first += 1;
        }
    }
}

/// Adds products of a few vectors with a few rows, all of one length; those of the next vector are `stride` further on in `out`.
#[inline(always)]
fn add_products<S: Simd, const V: usize, const R: usize>(
    simd: S,
    vectors: [&[f32]; V],
    rows: [&[f32]; R],
    stride: usize,
    out: &mut [f32],
) {
    let (mut left, mut right) = ([(&[][..], &[][..]); V], [(&[][..], &[][..]); R]);
    for (left, vector) in left.iter_mut().zip(vectors) {
        *left = S::as_simd_f32s(vector);
    }
    for (right, row) in right.iter_mut().zip(rows) {
        *right = S::as_simd_f32s(row);
    }
    let mut sums = [[simd.splat_f32s(0.0); R]; V];
    for place in 0..right[0].0.len() {
        for vector in 0..V {
            let value = left[vector].0[place];
            for row in 0..R {
                sums[vector][row] = simd.mul_add_f32s(value, right[row].0[place], sums[vector][row]);
            }
        }
    }
    for vector in 0..V {
        for row in 0..R {
            let mut sum = simd.reduce_sum_f32s(sums[vector][row]);
            for (left, right) in left[vector].1.iter().zip(right[row].1) {
                sum += left * right;
            }
            out[vector * stride + row] += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_the_same_whatever_stands_beside_them() {
        for (len, rows, count) in [(1, 1, 1), (7, 3, 2), (64, 10, 9), (1500, 5, 7), (3000, 10, 4)] {
            let values = |count: usize, by: usize| -> Vec<f32> {
                (0..count).map(|place| (place * by % 103) as f32 / 103.0 - 0.5).collect()
            };
            let (matrix, all) = (values(rows * len, 37), values(count * len, 59));
            let vectors: Vec<&[f32]> = all.chunks_exact(len).collect();
            let mut out = vec![f32::NAN; count * rows];
            inner_products(&vectors, &matrix, len, &mut out);
            for (vector, out) in vectors.iter().zip(out.chunks_exact(rows)) {
                let mut alone = vec![f32::NAN; rows];
                inner_products(&[vector], &matrix, len, &mut alone);
                assert_eq!(out, alone);
                for (row, product) in matrix.chunks_exact(len).zip(out) {
                    let expected: f64 = row.iter().zip(*vector).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    assert!((f64::from(*product) - expected).abs() < 1e-3, "{len}: {product} {expected}");
                }
            }
        }
    }

    #[test]
    fn rows_are_subtracted_whatever_their_length() {
        for len in [1, 7, 64, 261, 2100] {
            let matrix: Vec<f32> = (0..7 * len).map(|place| (place * 37 % 101) as f32 / 101.0 - 0.4).collect();
            let from: Vec<f32> = (0..len).map(|place| (place % 13) as f32).collect();
            let mut out = vec![f32::NAN; len];
            let (rows, values) = ([3, 0, 4, 6, 1, 5], [0.5, -2.0, 0.25, 1.0, -1.5, 3.0]);
            subtract_rows(&matrix, &rows, &values, &from, &mut out);
            for (place, out) in out.iter().enumerate() {
                let explained = rows.iter().zip(values).map(|(row, value)| value * matrix[row * len + place]);
                let expected = from[place] - explained.sum::<f32>();
                assert!((out - expected).abs() < 1e-5, "{len}, {place}: {out} {expected}");
            }
        }
    }
}
