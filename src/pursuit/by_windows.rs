//! Signals whose positions share no sample: every window of a signal is a signal of its own, with a dense dictionary.
//!
//! With D^(L) disjoint ([`Geometry::window`](crate::geometry::Geometry::window)) ½‖y − D^(L)γ‖² + Σ_i λ_i‖γ_i‖₁ is a sum of
//! problems, one for each position, so that its minimisers, objectives and duality gaps are theirs, put together. A batch of
//! vectors is what the algorithms are fastest at, and each vector is given as many iterations as it needs.

use super::{BasisPursuitConfig, Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, largest, to_host};
use crate::error::Result;
use crate::kernels::sparse::energy;
use crate::kernels::windows::Windows;
use burn::tensor::Tensor;

/// The windows of a problem's signals as a problem of their own.
pub(super) struct Parts<'a> {
    pub problem: Problem<'a>,
    windows: Windows,
}

impl<'a> Parts<'a> {
    /// The windows and the weights of all layers' atoms, without penalties or codes to start from; `None` where signals have no
    /// windows, or a mask makes them differ.
    pub fn of(whole: &Problem<'a>) -> Result<Option<Self>> {
        let operator = whole.operator();
        if whole.has_mask() || whole.count() == 0 {
            return Ok(None);
        }
        let Some(window) = operator.window() else { return Ok(None) };
        let Some(windows) = operator.geometry().effective_layer().as_ref().and_then(Windows::of) else {
            return Ok(None);
        };
        let cut = windows.cut(operator.signal_shaped(whole.signals()));
        let mut problem = Problem::new(window, cut)?.with_observer_of(whole);
        for layer in 1..=whole.depth() {
            if let Some(weights) = whole.atom_weights(layer) {
                problem = problem.with_weights(layer, weights.to_vec())?;
            }
        }
        Ok(Some(Self { problem, windows }))
    }

    /// Windows of a signal.
    pub fn positions(&self) -> usize {
        self.windows.positions()
    }

    /// For every signal, the energy of the samples that no window holds: part of the residual whatever the code.
    pub fn energies_beyond(&self, whole: &Problem) -> Vec<f64> {
        if self.windows.cover() {
            return vec![0.0; whole.count()];
        }
        let (signals, parts) = (to_host(whole.signals()), to_host(self.problem.signals()));
        let parts = parts.chunks_exact(self.positions() * self.problem.operator().signal().len());
        let signals = signals.chunks_exact(whole.operator().signal().len()).zip(parts);
        signals.map(|(signal, parts)| (energy(signal) - energy(parts)).max(0.0)).collect()
    }

    /// The codes of signals, of those of their windows.
    pub fn join(&self, codes: Tensor<4>) -> Tensor<4> {
        self.windows.join_codes(codes)
    }
}

/// A basis pursuit that codes windows one by one.
pub(super) struct ByWindows {
    /// The algorithm for windows.
    pub window: Box<dyn Pursuit>,
    /// The algorithm for whole signals, where a mask makes a signal's windows differ.
    pub whole: Box<dyn Pursuit>,
    pub basis: BasisPursuitConfig,
}

impl Pursuit for ByWindows {
    fn name(&self) -> &'static str {
        self.window.name()
    }

    /// Takes what the algorithm takes.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        match solve(problem, &self.basis, |parts| self.window.solve(parts))? {
            Some(pursued) => Ok(pursued),
            None => self.whole.solve(problem),
        }
    }
}

/// Codes the windows of a problem's signals by a pursuit that minimises a data term and penalties, where that is another problem.
///
/// - basis: gap and sign that the pursuit has
pub(super) fn solve(
    problem: &Problem,
    basis: &BasisPursuitConfig,
    pursuit: impl FnOnce(&Problem) -> Result<Pursued>,
) -> Result<Option<Pursued>> {
    let lambdas = problem.lambdas()?;
    let Some(mut parts) = Parts::of(problem)? else { return Ok(None) };
    problem.check_values()?;
    let (positions, depth) = (parts.positions(), problem.depth());
    let relative = lambdas.iter().any(|lambda| matches!(lambda, Lambda::Relative(_)));
    // λ_max is the whole signal's, of every layer's λ.
    let largest: Vec<f32> = match relative {
        true => {
            let correlations = parts.problem.operator().analyze_rows(parts.problem.signals());
            let largest = to_host(largest(correlations, &parts.problem.weights(depth), basis.nonnegative));
            largest.chunks_exact(positions).map(|parts| parts.iter().copied().fold(0.0, f32::max)).collect()
        }
        false => Vec::new(),
    };
    let mut of_windows = Vec::with_capacity(depth);
    for lambda in lambdas {
        of_windows.push(match lambda {
            Lambda::Absolute(value) => Lambda::Absolute(value),
            Lambda::PerSignal(values) => repeated(&values, positions),
            relative => repeated(&relative.resolve(&largest)?, positions),
        });
    }
    if let Some(deepest) = of_windows.pop() {
        parts.problem = parts.problem.with_lambda(deepest)?;
    }
    if depth > 1 && problem.has_shallower_lambda() {
        parts.problem = parts.problem.with_shallower_lambda(of_windows)?;
    }
    if problem.has_start() {
        let start = problem.operator().code_shaped(problem.start());
        parts.problem = parts.problem.with_start(parts.windows.cut_codes(start))?;
    }
    let Pursued { codes, reports, .. } = pursuit(&parts.problem)?;
    let beyond = parts.energies_beyond(problem);
    let reports = reports.chunks_exact(positions).zip(beyond);
    let reports = reports.map(|(parts, beyond)| together(parts, 0.5 * beyond, basis.gap)).collect();
    Ok(Some(Pursued::consistent(parts.join(codes), reports)))
}

/// Every signal's λ for each of its windows.
fn repeated(values: &[f32], positions: usize) -> Lambda {
    Lambda::PerSignal(values.iter().flat_map(|&value| std::iter::repeat_n(value, positions)).collect())
}

/// The report on a signal, from those on its windows.
///
/// - beyond: data term of the samples that no window holds
fn together(parts: &[SignalReport], beyond: f64, wanted: f32) -> SignalReport {
    let sum = |value: fn(&SignalReport) -> f64| parts.iter().map(value).sum::<f64>();
    let gap_of = |part: &SignalReport| f64::from(part.relative_gap) * f64::from(part.objective);
    let gap: f64 = parts.iter().map(gap_of).sum();
    let objective = sum(|part| f64::from(part.objective)) + beyond;
    let relative_gap = if gap == 0.0 { 0.0 } else { gap / objective.max(f64::MIN_POSITIVE) };
    // Where the whole is not there yet, it is for the reason of the window that lacks most.
    let lacking = parts.iter().filter(|part| part.stop != StopReason::DualityGap);
    let worst = lacking.max_by(|a, b| gap_of(a).total_cmp(&gap_of(b)));
    let reached = relative_gap <= f64::from(wanted);
    let stop = worst.filter(|_| !reached).map_or(StopReason::DualityGap, |part| part.stop);
    SignalReport {
        iterations: parts.iter().map(|part| part.iterations).max().unwrap_or(0),
        objective: objective as f32,
        relative_gap: relative_gap as f32,
        data_term: (sum(|part| f64::from(part.data_term)) + beyond) as f32,
        nonzeros: parts.iter().map(|part| part.nonzeros).sum(),
        stop,
        finished_by: parts.iter().find_map(|part| part.finished_by),
        ..parts[0].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_are_put_together() {
        let part = |objective: f32, relative_gap: f32, iterations: usize, stop: StopReason| -> SignalReport {
            let (data_term, nonzeros) = (0.5 * objective, iterations);
            let report = json!({
                "lambda": 0.25, "iterations": iterations, "objective": objective, "relative_gap": relative_gap,
                "data_term": data_term, "nonzeros": nonzeros, "stop": stop,
            });
            serde_json::from_value(report).unwrap()
        };
        let near = part(8.0, 0.0, 3, StopReason::DualityGap);
        let far = part(2.0, 0.25, 5, StopReason::MaxIterations);
        let found = together(&[near.clone(), far.clone()], 10.0, 0.01);
        // The gaps' sum, ½, of the objectives' and of what no window holds, 20.
        let whole = SignalReport { data_term: 15.0, nonzeros: 8, ..part(20.0, 0.025, 5, StopReason::MaxIterations) };
        assert_eq!(found, whole);
        // A window that lacks its gap does not matter where the signal has its own.
        assert_eq!(together(&[near.clone(), far], 10.0, 0.05).stop, StopReason::DualityGap);
        let zero = part(0.0, 0.0, 0, StopReason::DualityGap);
        assert_eq!(together(&[zero.clone(), zero.clone()], 0.0, 0.05), zero);
        // Nothing can be said of what is no number.
        let unknown = SignalReport { objective: f32::NAN, ..part(1.0, 1.0, 1, StopReason::MaxIterations) };
        assert_eq!(together(&[near, unknown], 0.0, 0.05).stop, StopReason::MaxIterations);
    }
}
