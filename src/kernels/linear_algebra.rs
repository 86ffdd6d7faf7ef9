//! Least squares on a support: small positive semi-definite systems in `f64`. And diagonals.

use burn::tensor::{Int, Tensor};

/// G_jj, `[k]`.
pub(crate) fn diagonal(gram: &Tensor<2>) -> Tensor<1> {
    let atoms = gram.dims()[0];
    let places = Tensor::<1, Int>::arange(0..atoms as i64, &gram.device()).unsqueeze_dim::<2>(1);
    gram.clone().gather(1, places).squeeze_dim::<1>(1)
}

/// Solves Gx = b in place for a symmetric positive semi-definite `matrix` G in row-major order, with a ridge of 1e-7 of its largest
/// diagonal entry, which keeps dependent atoms finite. `values` holds b, then x; `matrix` is used up.
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
        let row = &mut row[i..size];
        row[0] += ridge;
        let mut column = i;
        while column < size {
            let rest = &mut row[column - i..];
            column += match rest.len() {
                16.. => eliminate::<16>(above, size, [i, column], rest),
                4.. => eliminate::<4>(above, size, [i, column], rest),
                3 => eliminate::<3>(above, size, [i, column], rest),
                2 => eliminate::<2>(above, size, [i, column], rest),
                _ => eliminate::<1>(above, size, [i, column], rest),
            };
        }
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

/// Solves UᵀUx = b in place for `count` right-hand sides.
#[inline(always)]
fn solve_factorized(matrix: &[f64], values: &mut [f64], count: usize) {
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

/// Subtracts from `WIDTH` entries of row `i`, from `column` on, what the rows of U above, `size` long each, explain of them. Returns
/// `WIDTH`.
#[inline(always)]
fn eliminate<const WIDTH: usize>(above: &[f64], size: usize, [i, column]: [usize; 2], out: &mut [f64]) -> usize {
    let mut sums = [0.0f64; WIDTH];
    for row in above.chunks_exact(size) {
        let scale = row[i];
        for (sum, entry) in sums.iter_mut().zip(&row[column..][..WIDTH]) {
            *sum += scale * entry;
        }
    }
    out.iter_mut().zip(&sums).for_each(|(out, sum)| *out -= sum);
    WIDTH
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
