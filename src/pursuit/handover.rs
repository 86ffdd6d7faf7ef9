//! Signals on which one algorithm stalls are handed to another one.

use super::observer::Share;
use super::{Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, SignalReport, take_rows, to_host};
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};

/// Goes on with the signals in `rows`, from the codes that were found, by the algorithm `heir`; their reports say so.
///
/// # Errors
/// As [`super::Pursuit::solve`].
pub(super) fn hand_over(
    problem: &Problem,
    config: &BasisPursuitConfig,
    heir: Algorithm,
    rows: &[usize],
    found: Pursued,
) -> Result<Pursued> {
    if rows.is_empty() {
        return Ok(found);
    }
    let operator = problem.operator();
    let Pursued { codes, mut reports, .. } = found;
    let flat = operator.flat(codes);
    let lambda = Lambda::PerSignal(rows.iter().map(|&row| reports[row].lambda).collect());
    let start = operator.code_shaped(take_rows(&flat, rows));
    let mut part = problem.part(rows, lambda)?.with_start(start)?;
    // They were told to be done.
    let share = problem.observer().map(|observer| Share { observer, from: 1.0, part: 0.0 });
    if let Some(share) = &share {
        part = part.with_observer(share);
    }
    let continued = heir.init(config, operator)?.solve(&part)?;
    let len = operator.code().len();
    let (mut values, continued_codes) = (to_host(flat), to_host(continued.codes));
    for ((&row, report), code) in rows.iter().zip(continued.reports).zip(continued_codes.chunks_exact(len)) {
        // Rounding may keep it from where this one came to.
        let before = &reports[row];
        if report.relative_gap < before.relative_gap || report.objective < before.objective {
            values[row * len..][..len].copy_from_slice(code);
            let iterations = before.iterations + report.iterations;
            let finished_by = report.finished_by.or(Some(heir));
            reports[row] = SignalReport { iterations, finished_by, ..report };
        }
    }
    let data = TensorData::new(values, operator.code().batched(reports.len()));
    Ok(Pursued::consistent(Tensor::from_data(data, &operator.device()), reports))
}
