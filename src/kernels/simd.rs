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
/// A few registers of sums stay where they are while all rows pass by.
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

/// Registers of sums.
const REGISTERS: usize = 8;

impl WithSimd for SubtractRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { matrix, rows, values, from, out } = self;
        let len = from.len();
        let lanes = S::F32_LANES;
        let block = REGISTERS * lanes;
        let (from_vectors, _) = S::as_simd_f32s(from);
        let (out_vectors, _) = S::as_mut_simd_f32s(out);
        let blocks = from_vectors.len() / REGISTERS;
        for index in 0..blocks {
            let mut sums: [S::f32s; REGISTERS] =
                std::array::from_fn(|register| from_vectors[index * REGISTERS + register]);
            for (&row, &value) in rows.iter().zip(values) {
                let row = &matrix[row * len + index * block..][..block];
                let (row, _) = S::as_simd_f32s(row);
                let value = simd.splat_f32s(-value);
                if let Ok(row) = <&[S::f32s; REGISTERS]>::try_from(row) {
                    for register in 0..REGISTERS {
                        sums[register] = simd.mul_add_f32s(value, row[register], sums[register]);
                    }
                }
            }
            out_vectors[index * REGISTERS..][..REGISTERS].copy_from_slice(&sums);
        }
        let rest = blocks * block;
        out[rest..].copy_from_slice(&from[rest..]);
        for (&row, &value) in rows.iter().zip(values) {
            let row = &matrix[row * len + rest..][..len - rest];
            out[rest..].iter_mut().zip(row).for_each(|(out, entry)| *out -= value * entry);
        }
    }
}

/// Steps that [`subtract_rows_in_steps`] looks at in one pass over the rows.
pub(crate) const STEPS: usize = 4;

/// [`subtract_rows`] for several lists of values at once, from_s = from − Σ_i values_is · row(rows_i): a row is loaded once for all of
/// them. `out` becomes the last; of every one the largest entry times its scale is returned, in magnitude or, with `nonnegative`,
/// as it is, at least 0.
#[inline]
pub(crate) fn subtract_rows_in_steps(
    matrix: &[f32],
    (rows, values): (&[usize], &[[f32; STEPS]]),
    (from, scales): (&[f32], &[f32]),
    nonnegative: bool,
    out: &mut [f32],
) -> [f32; STEPS] {
    Arch::new().dispatch(SubtractInSteps { matrix, rows, values, from, scales, nonnegative, out })
}

struct SubtractInSteps<'a> {
    matrix: &'a [f32],
    rows: &'a [usize],
    values: &'a [[f32; STEPS]],
    from: &'a [f32],
    scales: &'a [f32],
    nonnegative: bool,
    out: &'a mut [f32],
}

/// Registers of sums for every step.
const REGISTERS_PER_STEP: usize = 3;

impl WithSimd for SubtractInSteps<'_> {
    type Output = [f32; STEPS];

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Self::Output {
        let vectors = self.from.len() / S::F32_LANES;
        // The largest and the smallest.
        let mut extremes = [[simd.splat_f32s(0.0); 2]; STEPS];
        let mut first = 0;
        while first + REGISTERS_PER_STEP <= vectors {
            self.strip::<S, REGISTERS_PER_STEP>(simd, first, &mut extremes);
            first += REGISTERS_PER_STEP;
        }
        while first < vectors {
            self.strip::<S, 1>(simd, first, &mut extremes);
            first += 1;
        }
        let mut largest = extremes.map(|[largest, smallest]| {
            let (largest, smallest) = (simd.reduce_max_f32s(largest), simd.reduce_min_f32s(smallest));
            if self.nonnegative { largest } else { largest.max(-smallest) }
        });
        for place in vectors * S::F32_LANES..self.from.len() {
            let mut sums = [self.from[place]; STEPS];
            for (&row, values) in self.rows.iter().zip(self.values) {
                let entry = self.matrix[row * self.from.len() + place];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum -= value * entry);
            }
            for (largest, sum) in largest.iter_mut().zip(sums) {
                let score = sum * self.scales[place];
                *largest = largest.max(if self.nonnegative { score } else { score.abs() });
            }
            self.out[place] = sums[STEPS - 1];
        }
        largest
    }
}

impl SubtractInSteps<'_> {
    /// A few vectors of entries.
    #[inline(always)]
    fn strip<S: Simd, const R: usize>(&mut self, simd: S, first: usize, extremes: &mut [[S::f32s; 2]; STEPS]) {
        let (len, at, width) = (self.from.len(), first * S::F32_LANES, R * S::F32_LANES);
        let (from, _) = S::as_simd_f32s(&self.from[at..at + width]);
        let mut sums: [[S::f32s; R]; STEPS] = [std::array::from_fn(|register| from[register]); STEPS];
        for (&row, values) in self.rows.iter().zip(self.values) {
            let (row, _) = S::as_simd_f32s(&self.matrix[row * len + at..][..width]);
            let Ok(row) = <&[S::f32s; R]>::try_from(row) else { return };
            for step in 0..STEPS {
                let value = simd.splat_f32s(-values[step]);
                for register in 0..R {
                    sums[step][register] = simd.mul_add_f32s(value, row[register], sums[step][register]);
                }
            }
        }
        let (scales, _) = S::as_simd_f32s(&self.scales[at..at + width]);
        for step in 0..STEPS {
            for register in 0..R {
                let score = simd.mul_f32s(sums[step][register], scales[register]);
                let [largest, smallest] = &mut extremes[step];
                *largest = simd.max_f32s(*largest, score);
                *smallest = simd.min_f32s(*smallest, score);
            }
        }
        let (out, _) = S::as_mut_simd_f32s(&mut self.out[at..at + width]);
        out.copy_from_slice(&sums[STEPS - 1]);
    }
}

/// Inner products of vectors with the rows of a matrix whose rows are `len` long: `out[v · rows + r]` is that of vector `v` with row
/// `r`. A product does not depend on what else is asked for.
#[inline]
pub(crate) fn inner_products(vectors: &[&[f32]], matrix: &[f32], len: usize, out: &mut [f32]) {
    out.fill(0.0);
    if len > 0 {
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
    fn steps_are_subtracted_as_one_by_one() {
        for len in [1, 7, 24, 64, 200, 261] {
            let matrix: Vec<f32> = (0..5 * len).map(|place| (place * 37 % 101) as f32 / 101.0 - 0.4).collect();
            let from: Vec<f32> = (0..len).map(|place| (place % 13) as f32 - 9.0).collect();
            let scales: Vec<f32> = (0..len).map(|place| (place % 5) as f32).collect();
            let (rows, values) = ([3, 0, 4], [[0.5, 1.0, 0.0, 0.0], [-2.0, 0.0, 3.0, 0.0], [0.25, 0.0, 0.0, 20.0]]);
            for nonnegative in [false, true] {
                let mut out = vec![f32::NAN; len];
                let sides = (from.as_slice(), scales.as_slice());
                let found = subtract_rows_in_steps(&matrix, (&rows, &values), sides, nonnegative, &mut out);
                for (step, found) in found.into_iter().enumerate() {
                    let mut alone = vec![f32::NAN; len];
                    subtract_rows(&matrix, &rows, &values.map(|values| values[step]), &from, &mut alone);
                    let scores = alone.iter().zip(&scales).map(|(value, scale)| value * scale);
                    let largest = scores.map(|score| if nonnegative { score } else { score.abs() }).fold(0.0, f32::max);
                    assert!((found - largest).abs() <= 1e-5 * largest.max(1.0), "{len}, {step}: {found} {largest}");
                    if step + 1 == STEPS {
                        let near = out.iter().zip(&alone).all(|(out, alone)| (out - alone).abs() < 1e-5);
                        assert!(near, "{len}: {out:?} {alone:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_subtracted_whatever_their_length() {
        for len in [1, 7, 64, 200, 261] {
            let matrix: Vec<f32> = (0..5 * len).map(|place| (place * 37 % 101) as f32 / 101.0 - 0.4).collect();
            let from: Vec<f32> = (0..len).map(|place| (place % 13) as f32).collect();
            let mut out = vec![f32::NAN; len];
            subtract_rows(&matrix, &[3, 0, 4], &[0.5, -2.0, 0.25], &from, &mut out);
            for (place, out) in out.iter().enumerate() {
                let row = |row: usize| matrix[row * len + place];
                let expected = from[place] - 0.5 * row(3) + 2.0 * row(0) - 0.25 * row(4);
                assert!((out - expected).abs() < 1e-5, "{len}, {place}: {out} {expected}");
            }
        }
    }
}
