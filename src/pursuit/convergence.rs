//! How many signals of a set were coded to the gap that was asked for.

use super::{SignalReport, StopReason};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// Tally over coded signals. Only pursuits that are told a duality gap can end above it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    /// Signals that ended above the gap asked for.
    pub above: usize,
    /// Signals that were coded.
    pub of: usize,
    /// Largest relative gap of those above, 0 where there are none.
    pub worst_gap: f32,
    /// Those of `above` that had used up their iterations. The others had stopped moving: more iterations would not have helped.
    pub used_up: usize,
}

impl Convergence {
    /// The tally of these signals.
    pub fn of(reports: &[SignalReport]) -> Self {
        let mut tally = Self::default();
        tally.add(reports);
        tally
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.above += other.above;
        self.of += other.of;
        self.worst_gap = self.worst_gap.max(other.worst_gap);
        self.used_up += other.used_up;
    }

    /// Takes more signals into account.
    pub fn add(&mut self, reports: &[SignalReport]) {
        self.of += reports.len();
        for report in reports.iter().filter(|report| report.is_above_gap()) {
            self.above += 1;
            self.worst_gap = self.worst_gap.max(report.relative_gap);
            self.used_up += usize::from(report.stop == StopReason::MaxIterations);
        }
    }
}

/// A [`Convergence`] that grows while an encoder codes.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Convergence>);

impl Tally {
    /// Takes more signals into account.
    pub fn add(&self, reports: &[SignalReport]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(reports);
    }

    /// The tally so far.
    pub fn get(&self) -> Convergence {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignalReport {
    /// Whether the pursuit was to reach a gap and ended above it. Pursuits that end for reasons of their own, such as a number of
    /// non-zeros, are told no gap.
    pub fn is_above_gap(&self) -> bool {
        use StopReason::{Direct, DualityGap, Exhausted, Limit, Nonzeros, Residual};
        !matches!(self.stop, DualityGap | Nonzeros | Residual | Limit | Exhausted | Direct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_ended_above_the_gap() {
        let report = |stop, relative_gap| SignalReport {
            lambda: 0.1,
            iterations: 1,
            objective: 1.0,
            relative_gap,
            data_term: 0.5,
            nonzeros: 1,
            stop,
            finished_by: None,
        };
        let ends = [
            report(StopReason::DualityGap, 1e-5),
            report(StopReason::MaxIterations, 0.25),
            report(StopReason::FixedPoint, 0.5),
            report(StopReason::Nonzeros, 1.0),
            report(StopReason::Direct, 1.0),
        ];
        let mut tally = Convergence::of(&ends[..2]);
        assert_eq!(tally, Convergence { above: 1, of: 2, worst_gap: 0.25, used_up: 1 });
        tally.merge(&Convergence::of(&ends[2..]));
        assert_eq!(tally, Convergence { above: 2, of: 5, worst_gap: 0.5, used_up: 1 });
    }
}
