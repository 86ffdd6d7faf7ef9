//! Whether a dictionary found the features that signals were made of.
//!
//! A small error does not say so: a pursuit reconstructs well with atoms that mix features. The measures are those of SAELens's
//! evaluation on synthetic data, so that numbers can be compared.

use crate::error::{Error, Result};
use crate::kernels::sparse::norm;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How well atoms and codes match features and their activity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Mean |cosine| over the pairs of the best one-to-one matching of atoms and features (mean correlation coefficient, MCC).
    pub mcc: f64,
    /// Features that are some atom's most alike one, as a part of the number of atoms.
    pub uniqueness: f64,
    /// Of the signals at which an atom is active, the part at which its most alike feature is; mean over atoms, 0 for one that never is.
    pub precision: f64,
    /// Of the signals at which that feature is active, the part at which the atom is; mean over atoms.
    pub recall: f64,
    /// Harmonic mean of both, atom by atom; mean over atoms.
    pub f1: f64,
    /// Mean number of non-zeros of a code.
    pub nonzeros: f64,
}

/// Compares a dictionary and its codes with the truth.
///
/// # Shapes
/// One row after the other: `atoms` `[m, d]`, `features` `[f, d]`, `codes` `[n, m]`, `truth` `[n, f]`, with d = `dimensions`. What is
/// not zero is active.
///
/// # Errors
/// Numbers of values that do not fit each other; nothing to compare.
pub fn recovery(dimensions: usize, atoms: &[f32], features: &[f32], codes: &[f32], truth: &[f32]) -> Result<Recovery> {
    let rows = |what: &str, values: &[f32], len: usize| match len > 0
        && !values.is_empty()
        && values.len().is_multiple_of(len)
    {
        true => Ok(values.len() / len),
        false => Err(Error::shape(what, format!("whole rows of {len} values"), values.len())),
    };
    let (count, of_features) = (rows("atoms", atoms, dimensions)?, rows("features", features, dimensions)?);
    let (signals, known) = (rows("codes", codes, count)?, rows("true codes", truth, of_features)?);
    if signals != known {
        return Err(Error::shape("true codes", format!("{signals} rows, as codes"), known));
    }
    let cosines: Vec<f64> = atoms
        .par_chunks_exact(dimensions)
        .flat_map_iter(|atom| {
            features.chunks_exact(dimensions).map(|feature| {
                let inner: f64 = atom.iter().zip(feature).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let lengths = f64::from(norm(atom)) * f64::from(norm(feature));
                if lengths > 0.0 { (inner / lengths).abs() } else { 0.0 }
            })
        })
        .collect();
    let pairs = best_matching(&cosines, count, of_features);
    let mcc = pairs.iter().map(|&(row, column)| cosines[row * of_features + column]).sum::<f64>() / pairs.len() as f64;
    // Of equal ones the first.
    let best: Vec<usize> = cosines
        .chunks_exact(of_features)
        .map(|row| (1..of_features).fold(0, |best, at| if row[at] > row[best] { at } else { best }))
        .collect();
    let mut tracked = vec![false; of_features];
    best.iter().for_each(|&feature| tracked[feature] = true);
    let (mut both, mut active, mut wanted) = (vec![0u64; count], vec![0u64; count], vec![0u64; count]);
    for (code, truth) in codes.chunks_exact(count).zip(truth.chunks_exact(of_features)) {
        for (atom, value) in code.iter().enumerate() {
            let (fires, is_there) = (*value != 0.0, truth[best[atom]] != 0.0);
            both[atom] += u64::from(fires && is_there);
            active[atom] += u64::from(fires);
            wanted[atom] += u64::from(is_there);
        }
    }
    let part = |of: u64, all: u64| if all > 0 { of as f64 / all as f64 } else { 0.0 };
    let mean = |value: &dyn Fn(usize) -> f64| (0..count).map(value).sum::<f64>() / count as f64;
    let (precision, recall) =
        (|atom: usize| part(both[atom], active[atom]), |atom: usize| part(both[atom], wanted[atom]));
    let f1 = |atom: usize| {
        let (precision, recall) = (precision(atom), recall(atom));
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    };
    Ok(Recovery {
        mcc,
        uniqueness: tracked.iter().filter(|tracked| **tracked).count() as f64 / count as f64,
        precision: mean(&precision),
        recall: mean(&recall),
        f1: mean(&f1),
        nonzeros: active.iter().sum::<u64>() as f64 / signals as f64,
    })
}

/// Pairs of rows and columns, each at most once, as many as there are of the fewer, of the largest sum of `values` `[rows, columns]`.
///
/// The Hungarian algorithm by shortest augmenting paths (R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and
/// sparse linear assignment problems", Computing 38, 1987): exact, in rows²·columns operations.
pub fn best_matching(values: &[f64], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    if rows > columns {
        let transposed: Vec<f64> = (0..columns * rows).map(|at| values[at % rows * columns + at / rows]).collect();
        return best_matching(&transposed, columns, rows).into_iter().map(|(column, row)| (row, column)).collect();
    }
    // Costs are −values; row and column 0 of the potentials stand for none.
    let (mut of_rows, mut of_columns) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut matched = vec![0usize; columns + 1];
    for row in 1..=rows {
        matched[0] = row;
        let mut column = 0;
        let mut least = vec![f64::INFINITY; columns + 1];
        let mut from = vec![0usize; columns + 1];
        let mut done = vec![false; columns + 1];
        while matched[column] != 0 {
            done[column] = true;
            let (at, mut step, mut next) = (matched[column], f64::INFINITY, 0);
            for other in 1..=columns {
                if done[other] {
                    continue;
                }
                let reduced = -values[(at - 1) * columns + other - 1] - of_rows[at] - of_columns[other];
                if reduced < least[other] {
                    (least[other], from[other]) = (reduced, column);
                }
                if least[other] < step {
                    (step, next) = (least[other], other);
                }
            }
            for other in 0..=columns {
                if done[other] {
                    of_rows[matched[other]] += step;
                    of_columns[other] -= step;
                } else {
                    least[other] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            matched[column] = matched[from[column]];
            column = from[column];
        }
    }
    let mut pairs: Vec<(usize, usize)> =
        (1..=columns).filter(|&column| matched[column] > 0).map(|column| (matched[column] - 1, column - 1)).collect();
    pairs.sort_unstable();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all permutations, of square and oblong values.
    #[test]
    fn the_matching_is_the_best_of_all() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / f64::from(1u32 << 24)
        };
        fn best(values: &[f64], rows: usize, columns: usize, row: usize, used: u32) -> f64 {
            if row == rows {
                return 0.0;
            }
            let free = (0..columns).filter(|column| used >> column & 1 == 0);
            free.map(|column| values[row * columns + column] + best(values, rows, columns, row + 1, used | 1 << column))
                .fold(f64::NEG_INFINITY, f64::max)
        }
        for (rows, columns) in [(1, 1), (2, 2), (3, 5), (5, 3), (6, 6), (4, 7)] {
            for _ in 0..20 {
                let values: Vec<f64> = (0..rows * columns).map(|_| random()).collect();
                let pairs = best_matching(&values, rows, columns);
                assert_eq!(pairs.len(), rows.min(columns));
                let found: f64 = pairs.iter().map(|&(row, column)| values[row * columns + column]).sum();
                let expected = if rows <= columns {
                    best(&values, rows, columns, 0, 0)
                } else {
                    let transposed: Vec<f64> =
                        (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect();
                    best(&transposed, columns, rows, 0, 0)
                };
                assert!((found - expected).abs() < 1e-12, "{rows}x{columns}: {found} {expected}");
            }
        }
    }

    /// Features in another order, sign and length are found; of an atom that is active too often and too rarely the parts are right.
    #[test]
    fn measures_follow_their_definitions() {
        let features = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let atoms = [0.0, -2.0, 0.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0];
        let truth = [1.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let codes: Vec<f32> = truth.chunks_exact(3).flat_map(|row| [row[1], row[2], row[0]]).collect();
        let found = recovery(3, &atoms, &features, &codes, &truth).unwrap();
        let exact = Recovery { mcc: 1.0, uniqueness: 1.0, precision: 1.0, recall: 1.0, f1: 1.0, nonzeros: 1.25 };
        assert_eq!(found, exact);
        // One atom between the first two features, nearer to the first: cosine 0.8. It is active at signals 0, 1 and 3, the feature at 0
        // and 2.
        let found = recovery(3, &[4.0, 3.0, 0.0], &features, &[1.0, 1.0, 0.0, 1.0], &truth).unwrap();
        assert!((found.mcc - 0.8).abs() < 1e-7 && found.uniqueness == 1.0, "{found:?}");
        assert!((found.precision - 1.0 / 3.0).abs() < 1e-12 && found.recall == 0.5, "{found:?}");
        assert!((found.f1 - 0.4).abs() < 1e-12 && found.nonzeros == 0.75, "{found:?}");
        assert!(recovery(3, &atoms, &features, &codes, &truth[3..]).is_err());
        assert!(recovery(2, &atoms, &features, &codes, &truth).is_err());
        assert!(recovery(3, &[], &features, &codes, &truth).is_err());
    }
}
