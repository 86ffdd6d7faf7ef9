//! Signals on which one algorithm stalls are handed to another one.

use super::observer::Share;
use super::{Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, SignalReport, StopReason, take_rows, to_host};
use crate::error::Result;
use crate::model::Operator;
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
    go_on(problem, heir, rows, found, |part| heir.init(config, problem.operator())?.solve(part))
}

/// [`hand_over`] to a pursuit of that name.
///
/// # Errors
/// Those of the pursuit.
pub(super) fn go_on(
    problem: &Problem,
    heir: Algorithm,
    rows: &[usize],
    found: Pursued,
    pursue: impl FnOnce(&Problem) -> Result<Pursued>,
) -> Result<Pursued> {
    if rows.is_empty() {
        return Ok(found);
    }
    let operator = problem.operator();
    let Pursued { codes, reports, .. } = found;
    let flat = operator.flat(codes);
    let lambda = Lambda::PerSignal(rows.iter().map(|&row| reports[row].lambda).collect());
    let start = operator.code_shaped(take_rows(&flat, rows));
    let mut part = problem.part(rows, lambda)?.with_start(start)?;
    // They were told to be done.
    let share = problem.observer().map(|observer| Share { observer, from: 1.0, part: 0.0 });
    if let Some(share) = &share {
        part = part.with_observer(share);
    }
    let continued = pursue(&part)?;
    Ok(with_rows(
        operator,
        Pursued::consistent(operator.code_shaped(flat), reports),
        rows,
        continued,
        |before, report| {
            // Rounding may keep it from where this one came to; one that knows that it is done says more than one that gave up.
            let nearer = report.relative_gap < before.relative_gap || report.objective < before.objective;
            let surer = report.stop != StopReason::MaxIterations
                && before.stop == StopReason::MaxIterations
                && report.relative_gap <= before.relative_gap
                && report.objective <= before.objective;
            (nearer || surer).then(|| {
                let iterations = before.iterations + report.iterations;
                let finished_by = report.finished_by.or(Some(heir));
                SignalReport { iterations, finished_by, ..report }
            })
        },
    ))
}

/// What was found, with other codes in those of the rows for which `accept`, told both reports, has one to put in place.
pub(super) fn with_rows(
    operator: &Operator,
    found: Pursued,
    rows: &[usize],
    others: Pursued,
    accept: impl Fn(&SignalReport, SignalReport) -> Option<SignalReport>,
) -> Pursued {
    let Pursued { codes, mut reports, .. } = found;
    let len = operator.code().len();
    let (mut values, of_others) = (to_host(operator.flat(codes)), to_host(others.codes));
    for ((&row, report), code) in rows.iter().zip(others.reports).zip(of_others.chunks_exact(len)) {
        if let Some(report) = accept(&reports[row], report) {
            values[row * len..][..len].copy_from_slice(code);
            reports[row] = report;
        }
    }
    let data = TensorData::new(values, operator.code().batched(reports.len()));
    Pursued::consistent(Tensor::from_data(data, &operator.device()), reports)
}
