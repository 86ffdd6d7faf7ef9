//! Least squares on a support: small positive semi-definite systems in `f64`; the diagonal of a matrix.

use burn::tensor::{Int, Tensor};
use std::ops::Range;

/// G_jj, `[k]`.
pub(crate) fn diagonal(gram: &Tensor<2>) -> Tensor<1> {
    let atoms = gram.dims()[0];
    let places = Tensor::<1, Int>::arange(0..atoms as i64, &gram.device()).unsqueeze_dim::<2>(1);
    gram.clone().gather(1, places).squeeze_dim::<1>(1)
}

/// Solves Gx = b in place for a symmetric positive semi-definite `matrix` G in row-major order, of which the upper half is read, with a
/// ridge of 1e-7 of its largest diagonal entry, which keeps dependent atoms finite. `values` holds b, then x; `matrix` is used up.
#[inline(always)]
pub(crate) fn solve_normal_equations(matrix: &mut [f64], values: &mut [f64]) {
    solve_normal_equations_until(
        matrix,
        values,
        #[inline(always)]
        || false,
    );
}

/// [`solve_normal_equations`] until `cancelled` says so, which leaves `values` half done.
#[inline(always)]
pub(crate) fn solve_normal_equations_until(matrix: &mut [f64], values: &mut [f64], cancelled: impl Fn() -> bool) {
    if factorize(matrix, values.len(), cancelled) {
        solve_factorized(matrix, values, 1);
    }
}

/// Solves Gx = b in place for several b at once, whose values `[size, count]` are replaced by those of x; otherwise as
/// [`solve_normal_equations`].
#[inline(always)]
pub(crate) fn solve_many(matrix: &mut [f64], values: &mut [f64], count: usize) {
    let size = values.len() / count.max(1);
    factorize(
        matrix,
        size,
        #[inline(always)]
        || false,
    );
    solve_factorized(matrix, values, count);
}

/// G = UᵀU in place; false where it was cancelled.
#[inline(always)]
fn factorize(matrix: &mut [f64], size: usize, cancelled: impl Fn() -> bool) -> bool {
    let ridge = 1e-7 * (0..size).map(|i| matrix[i * size + i]).fold(f64::MIN_POSITIVE, f64::max);
    // Row after row of U: a row loses as a whole what the rows above explain of it, so that no sum has to be finished before the next
    // one is begun, which for the few atoms of a code takes longer than the arithmetic.
    for i in 0..size {
        if cancelled() {
            return false;
        }
        let (above, row) = matrix.split_at_mut(i * size);
        let row = &mut row[..size];
        row[i] += ridge;
        // From the end on, in as few passes over the rows above as there can be: a pass takes as long whatever its width, up to 32
        // entries. What it computes of entries before the diagonal, or twice, is left out.
        let mut end = size;
        while end > i {
            end = match (size, end - i) {
                (32.., 17..) => eliminate::<32>(above, i..end, row),
                (16.., 9..) => eliminate::<16>(above, i..end, row),
                (8.., 5..) => eliminate::<8>(above, i..end, row),
                (4.., _) => eliminate::<4>(above, i..end, row),
                _ => eliminate::<1>(above, i..end, row),
            };
        }
        let row = &mut row[i..];
        let pivot = row[0].max(ridge * 1e-3).sqrt();
        row.iter_mut().for_each(|entry| *entry /= pivot);
        row[0] = pivot;
    }
    true
}

/// out −= factor · from.
#[inline(always)]
fn subtract(out: &mut [f64], factor: f64, from: &[f64]) {
    out.iter_mut().zip(from).for_each(|(out, value)| *out -= factor * value);
}

/// Solves UᵀUx = b in place for `count` right-hand sides, U being what [`solve_normal_equations`] leaves in its matrix.
#[inline(always)]
pub(crate) fn solve_factorized(matrix: &[f64], values: &mut [f64], count: usize) {
    let size = values.len() / count.max(1);
    if count == 1 {
        for i in 0..size {
            let row = &matrix[i * size + i..][..size - i];
            let value = values[i] / row[0];
            values[i..].iter_mut().zip(row).for_each(|(other, entry)| *other -= entry * value);
            values[i] = value;
        }
        for i in (0..size).rev() {
            let row = &matrix[i * size..][..size];
            values[i] = (values[i] - dot(&row[i + 1..], &values[i + 1..])) / row[i];
        }
        return;
    }
    for i in 0..size {
        let row = &matrix[i * size..][..size];
        let (own, below) = values[i * count..].split_at_mut(count);
        own.iter_mut().for_each(|value| *value /= row[i]);
        for (other, entry) in below.chunks_exact_mut(count).zip(&row[i + 1..]) {
            subtract(other, *entry, own);
        }
    }
    for i in (0..size).rev() {
        let row = &matrix[i * size..][..size];
        let (own, below) = values[i * count..].split_at_mut(count);
        for (other, entry) in below.chunks_exact(count).zip(&row[i + 1..]) {
            subtract(own, *entry, other);
        }
        own.iter_mut().for_each(|value| *value /= row[i]);
    }
}

/// Subtracts from the last `WIDTH` entries of row i, or as many as there are, what the rows of U above explain of them; `open` begins with i
/// and ends where entries have had theirs. Returns where these begin now. Rows are at least `WIDTH` long.
#[inline(always)]
fn eliminate<const WIDTH: usize>(above: &[f64], open: Range<usize>, own: &mut [f64]) -> usize {
    let start = open.end.saturating_sub(WIDTH);
    let mut sums = [0.0f64; WIDTH];
    for row in above.chunks_exact(own.len()) {
        let scale = row[open.start];
        for (sum, entry) in sums.iter_mut().zip(&row[start..][..WIDTH]) {
            *sum += scale * entry;
        }
    }
    let first = start.max(open.start);
    own[first..open.end].iter_mut().zip(&sums[first - start..]).for_each(|(own, sum)| *own -= sum);
    first
}

/// Inner product with eight partial sums, so that it vectorises and rounds the same way on every run.
#[inline(always)]
pub(crate) fn dot(left: &[f64], right: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for (a, b) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_are_solved_as_one_by_one() {
        let random = |at: usize| ((at * 7919 + 13) % 101) as f64 / 101.0 - 0.5;
        let size = 21;
        let root: Vec<f64> = (0..size * size).map(random).collect();
        let mut matrix: Vec<f64> = (0..size * size)
            .map(|at| dot(&root[at / size * size..][..size], &root[at % size * size..][..size]))
            .collect();
        (0..size).for_each(|i| matrix[i * size + i] += 0.5);
        let values: Vec<f64> = (0..3 * size).map(|at| random(at + 1000)).collect();
        let mut together = values.clone();
        solve_many(&mut matrix.clone(), &mut together, 3);
        for column in 0..3 {
            let mut alone: Vec<f64> = values.iter().skip(column).step_by(3).copied().collect();
            solve_normal_equations(&mut matrix.clone(), &mut alone);
            let found = together.iter().skip(column).step_by(3);
            assert!(found.zip(&alone).all(|(a, b)| (a - b).abs() < 1e-9), "{together:?} {alone:?}");
        }
    }

    #[test]
    fn least_squares_survives_dependent_atoms() {
        let mut solved = [2.0, 2.0];
        solve_normal_equations(&mut [1.0, 1.0, 1.0, 1.0], &mut solved);
        assert!((solved[0] + solved[1] - 2.0).abs() < 1e-3, "{solved:?}");
    }
}
