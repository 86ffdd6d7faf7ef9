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

#[cfg(test)]
mod tests {
    use super::*;

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
