//! Signals whose squares single precision has no place for.
//!
//! Energies of values below 1e-19 are less than the smallest number of `f32`: an objective would be 0, and so would its gap. A pursuit
//! with ℓ1 penalties is homogeneous: for s > 0 the codes of sy at weights sλ are s times those of y at λ, and objectives s² times
//! as large. Such signals are therefore pursued at a size near 1, and what is found is brought back. Factors are powers of 2,
//! so that nothing is rounded.

use super::{Lambda, Problem, Pursued, SignalReport, scale_rows, to_host};
use crate::error::Result;

/// Largest magnitude of a signal's values below which it is brought to a size near 1.
const TINY: f32 = 1e-12;

/// The largest power of 2: times it even the largest subnormal number stays below 1.
const MOST: i32 = 100;

/// Solves a problem with its tiny signals brought to a size near 1, or as it is where it has none.
///
/// # Errors
/// As `solve`.
pub(super) fn at_fair_size(problem: &Problem, solve: impl FnOnce(&Problem) -> Result<Pursued>) -> Result<Pursued> {
    let count = problem.count();
    if count == 0 {
        return solve(problem);
    }
    let largest = to_host(problem.signals().abs().max_dim(1));
    let is_tiny = |largest: &f32| *largest > 0.0 && *largest < TINY;
    if !largest.iter().any(is_tiny) {
        return solve(problem);
    }
    let power = |largest: &f32| if is_tiny(largest) { (-largest.log2()).ceil().min(MOST as f32) as i32 } else { 0 };
    let factors: Vec<f32> = largest.iter().map(|largest| 2.0f32.powi(power(largest))).collect();
    let Pursued { codes, shallower, reports } = solve(&problem.scaled(&factors))?;
    let inverse: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
    let back = |codes| scale_rows(codes, &inverse);
    let given = problem.lambda().ok();
    let reports = reports.into_iter().zip(&inverse).enumerate().map(|(row, (report, &inverse))| {
        let squared = |value: f32| (f64::from(value) * f64::from(inverse).powi(2)) as f32;
        SignalReport {
            lambda: match given {
                Some(Lambda::Absolute(value)) => *value,
                Some(Lambda::PerSignal(values)) => values[row],
                _ => report.lambda * inverse,
            },
            objective: squared(report.objective),
            data_term: squared(report.data_term),
            ..report
        }
    });
    let reports = reports.collect();
    Ok(Pursued { codes: back(codes), shallower: shallower.into_iter().map(back).collect(), reports })
}
