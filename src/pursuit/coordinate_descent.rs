//! Coordinate descent for basis pursuit with the atoms' inner products at hand, one signal per task: from the Gram matrix, or from
//! the correlations of the filters where D^(L) is a convolution.
//!
//! A learned dictionary's ‖D‖² is in the hundreds, so proximal gradient steps are tiny and FISTA needs hundreds of products with
//! the whole Gram matrix. Coordinate descent (J. Friedman, T. Hastie, R. Tibshirani, "Regularization paths for generalized
//! linear models via coordinate descent", J. Stat. Software 33(1), 2010) minimises exactly over one coefficient at a time.
//! It sweeps over a small working set with a Gram matrix of its own, which stays in the fastest cache, until that settles; then
//! looks at all atoms and at the duality gap, and takes in those that violate optimality most (M. Massias, A. Gramfort,
//! J. Salmon, "Celer: a fast solver for the lasso with dual extrapolation", ICML 2018, without the extrapolation).
//!
//! Where atoms are coherent or more of them are wanted than a signal has values, sweeps creep and the support's linear system is
//! singular. A step that would raise the objective is refused, and a signal on which it stalls is handed to the exact
//! active-set method (`active_set.rs`); its report says so. Where its support may become large, so that a factor costs much, FISTA
//! is tried first, for about as long as the active set would take, and where it is too large for a factor FISTA goes on.
//!
//! Of a large dictionary of vectors the Gram matrix is never made: working sets compute the inner products that they have, and the
//! correlations of all atoms with the residuals of many signals are one matrix product. Those signals then take turns, one round of
//! all that are open after the other.
//!
//! It runs on the host's cores; each signal is computed on its own, so results do not depend on the number of threads or on the rest of
//! the batch. On a GPU that can hold the inner products of all atoms, a kernel moves the coefficient that gains most in place of sweeps
//! (`on_gpu.rs`), one workgroup a signal, and the host finishes what it leaves open.

use super::active_set;
use super::duality::{Certificate, Sums};
use super::handover::hand_over;
use super::observer::{Work, interrupted};
use super::{Algorithm, BasisPursuitConfig, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::Result;
use crate::kernels::linear_algebra::solve_normal_equations;
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::energy;
use crate::kernels::threshold::soft_threshold_value;
use crate::pursuit::columns::{Columns, LANES, correlate, correlate_known, largest, signals_at_once};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Coordinate descent with checked parameters.
#[derive(Debug, Clone)]
pub struct CoordinateDescent {
    config: BasisPursuitConfig,
    /// What a signal may cost before it is handed over, as a part of what the active set is expected to cost.
    patience: f64,
}

/// [`CoordinateDescent::patience`] of coordinate descent: all in all at most about twice the better of the two. Operation for operation
/// the active set, which keeps its factor, is much the faster of them.
const PATIENCE: f64 = 0.05;

/// Sweeps after which a signal that has not converged is handed over, whatever they cost.
const MANY_SWEEPS: usize = 100;

/// Moves and looks at all atoms that an active set is expected to take to finish what sweeps have begun.
const EXPECTED_MOVES: f64 = 20.0;

/// Non-zeros from which FISTA is tried before the active set, and how much faster an operation is in its products.
const MANY_NONZEROS: usize = 128;
const PRODUCTS_ARE_FASTER: f64 = 16.0;

/// Part of the permitted iterations that are tried at most.
const MOST_TRIED: usize = 4;

/// Part of the objective by which it may seem to rise from one look at all atoms to the next, by rounding in `f32`.
const RISE: f64 = 1e-5;

/// A sweep ends the work on the working set when no coefficient moved the objective by more than this part of what the gap
/// asked for still allows.
const SWEEP_TOLERANCE: f64 = 0.03;

/// Atoms that a working set starts with at most, and takes in at least where so many violate optimality.
const LEAST_GROWTH: usize = 16;

/// Part of its size by which a working set may grow at once.
const GROWTH: f32 = 0.5;

/// Part of the present gap to which a working set that may not be the last is solved.
const AHEAD: f64 = 0.1;

/// A residual of less than this part of the signal's energy is computed from the atoms: as a difference it would be rounding.
const SMALL: f64 = 1e-2;

/// Correlations that are looked at together.
const CHUNK: usize = LANES;

/// Sweeps after which the linear system on the support is solved.
const SWEEPS_PER_SOLUTION: usize = 2;

/// Non-zeros up to which a linear system is worth its cost.
const MAX_SUPPORT: usize = 512;

/// Coefficients that may become zero in one attempt to solve it.
const SIGN_CHANGES: usize = 3;

impl Pursuit for CoordinateDescent {
    fn name(&self) -> &'static str {
        if self.patience > 0.0 { "coordinate-descent" } else { "active-set" }
    }

    /// Takes λ, weights of the deepest layer's atoms, one mask for all signals, and codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        problem.refuse_separate_masks(self.name())?;
        #[cfg(feature = "cube")]
        if !crate::device::is_host(&problem.operator().device()) {
            problem.check_values()?;
            return super::magnitude::at_fair_size(problem, |problem| self.on_gpu(problem));
        }
        problem.check_start()?;
        self.on_host(problem)
    }
}

impl CoordinateDescent {
    /// By a kernel where one takes the problem.
    #[cfg(feature = "cube")]
    fn on_gpu(&self, problem: &Problem) -> Result<Pursued> {
        let found = if self.patience > 0.0 { super::on_gpu::lasso(problem, &self.config)? } else { None };
        let Some(found) = found else { return self.on_host(problem) };
        let budget = super::on_gpu::budget(problem, &self.config);
        let open = |report: &SignalReport| report.stop != StopReason::DualityGap && report.iterations < budget;
        let open: Vec<usize> = (0..problem.count()).filter(|&row| open(&found.reports[row])).collect();
        hand_over(problem, &self.config, Algorithm::ActiveSet, &open, found)
    }

    /// On the host's cores, whatever the device.
    fn on_host(&self, problem: &Problem) -> Result<Pursued> {
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let signals = problem.signals();
        let weights = problem.weights(problem.depth()).map(to_host);
        // Weights are atoms of other lengths: Σ w_j|γ_j| is ‖γ'‖₁ with γ'_j = w_j γ_j over the atoms d_j/w_j.
        let unweighted = |values: &mut [f32]| {
            if let Some(weights) = &weights {
                for row in values.chunks_exact_mut(weights.len()) {
                    row.iter_mut().zip(weights).for_each(|(value, weight)| *value /= weight);
                }
            }
        };
        let columns = Columns::for_descent(operator, problem.shared_mask(), weights.as_deref())?;
        let (code_len, signal_len) = (columns.code_len(), columns.signal_len());
        let nonnegative = self.config.nonnegative;
        let started = problem.has_start();
        let mut codes = match started {
            true => to_host(problem.start()),
            false => vec![0.0f32; problem.count() * code_len],
        };
        if started {
            for row in codes.chunks_exact_mut(code_len) {
                for (place, value) in row.iter_mut().enumerate() {
                    *value *= weights.as_ref().map_or(1.0, |weights| weights[place]);
                    *value = if nonnegative { value.max(0.0) } else { *value };
                }
            }
        }
        let mut reports = Vec::with_capacity(problem.count());
        let work = problem.work();
        for codes in codes.chunks_mut(signals_at_once(code_len) * code_len) {
            work.check()?;
            let (first, count) = (reports.len(), codes.len() / code_len);
            let signals = signals.clone().slice([first..first + count, 0..signal_len]);
            let values = to_host(signals.clone());
            problem.check_rows(&values, first)?;
            let mut correlations = correlate_known(operator, signals, &values);
            let signals = values;
            unweighted(&mut correlations);
            let largest: Vec<f32> = correlations
                .par_chunks_exact(code_len)
                .map(|row| {
                    vectorised(
                        #[inline(always)]
                        || largest(row, nonnegative),
                    )
                })
                .collect();
            let lambda = lambda.batch(first, count).resolve(&largest)?;
            let given = correlations.par_chunks_exact(code_len).zip(signals.par_chunks_exact(signal_len)).zip(&lambda);
            let given = given.map(|((correlations, signal), &lambda)| Given {
                signal,
                correlations,
                lambda,
                started,
                work: &work,
            });
            let given = codes.par_chunks_exact_mut(code_len).zip(given);
            let found: Option<Vec<SignalReport>> = match columns.has_inner_products() {
                true => given
                    .map_init(
                        || Workspace::new(code_len),
                        |workspace, (code, given)| {
                            vectorised(
                                #[inline(always)]
                                || self.pursue_one(&columns, &given, code, workspace),
                            )
                        },
                    )
                    .collect(),
                false => self.pursue_together(&columns, given, &work, |residuals, rows| {
                    let residuals =
                        Tensor::from_data(TensorData::new(residuals, [rows, signal_len]), &operator.device());
                    let mut correlations = correlate(operator, residuals);
                    unweighted(&mut correlations);
                    correlations
                }),
            };
            reports.extend(found.ok_or_else(interrupted)?);
        }
        // Sizes that other pursuits refuse are coded as long as there is an objective of them.
        if reports.iter().any(|report| !report.objective.is_finite()) {
            operator.check_size()?;
        }
        unweighted(&mut codes);
        let data = TensorData::new(codes, operator.code().batched(reports.len()));
        let codes = Tensor::from_data(data, &operator.device());
        let mut pursued = Pursued::consistent(codes, reports);
        // Given up, and of a large support.
        let most_of = |reports: &[SignalReport], of: fn(&SignalReport) -> usize, rows: &[usize]| {
            rows.iter().map(|&row| of(&reports[row])).max().unwrap_or(0)
        };
        let open = |reports: &[SignalReport]| -> Vec<usize> {
            let open = |report: &SignalReport| {
                report.stop == StopReason::MaxIterations && report.iterations < self.config.max_iterations
            };
            (0..reports.len()).filter(|&row| open(&reports[row])).collect()
        };
        let mut rows = open(&pursued.reports);
        if self.patience > 0.0 {
            // The support may still grow on the way, and with it what the active set would take.
            let mut tried = 0;
            while !rows.is_empty() {
                let nonzeros = most_of(&pursued.reports, |report| report.nonzeros, &rows);
                let wanted = self.trial_iterations(&columns, nonzeros);
                if wanted <= 2 * tried {
                    break;
                }
                let trial = BasisPursuitConfig { max_iterations: wanted - tried, ..self.config };
                pursued = hand_over(problem, &trial, Algorithm::Fista, &rows, pursued)?;
                tried = wanted;
                rows = open(&pursued.reports);
            }
            let left = self.config.max_iterations - most_of(&pursued.reports, |report| report.iterations, &rows);
            let rest = BasisPursuitConfig { max_iterations: left, ..self.config };
            pursued = hand_over(problem, &rest, Algorithm::ActiveSet, &rows, pursued)?;
            rows.clear();
        }
        // Of too large a support for the active set.
        hand_over(problem, &self.config, Algorithm::Fista, &rows, pursued)
    }
}

impl CoordinateDescent {
    /// With that gap, that many sweeps at most, and that sign.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn new(config: BasisPursuitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, patience: PATIENCE })
    }

    /// The active-set method alone, without sweeps: slower where coordinate descent converges quickly.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn active_set(config: BasisPursuitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, patience: 0.0 })
    }

    /// Iterations of FISTA that take about as long as an active set of so many non-zeros is expected to.
    fn trial_iterations(&self, columns: &Columns, nonzeros: usize) -> usize {
        let product = (columns.code_len() * columns.atom_len()).max(1) as f64;
        let iterations = PRODUCTS_ARE_FASTER * expected_work(columns, nonzeros) / product;
        (iterations as usize).min(self.config.max_iterations / MOST_TRIED).max(1)
    }

    /// Codes one signal, from the code that is there. `None` where the pursuit was ended.
    #[inline(always)]
    fn pursue_one(
        &self,
        columns: &Columns,
        given: &Given,
        code: &mut [f32],
        workspace: &mut Workspace,
    ) -> Option<SignalReport> {
        workspace.start(code, given.started, columns);
        let mut progress = self.begin(given);
        loop {
            workspace.describe(code);
            let Workspace { residual_correlations, support, values, .. } = workspace;
            columns.subtract_explained(given.correlations, support, values, residual_correlations);
            if let Some(report) = self.round(columns, given, code, workspace, &mut progress)? {
                return Some(report);
            }
        }
    }

    /// Codes all signals, round by round: `correlate` finds the correlations of all atoms with so many residuals, one after the other.
    /// `None` where the pursuit was ended.
    fn pursue_together<'g>(
        &self,
        columns: &Columns,
        signals: impl IndexedParallelIterator<Item = (&'g mut [f32], Given<'g>)>,
        work: &Work,
        correlate: impl Fn(Vec<f32>, usize) -> Vec<f32>,
    ) -> Option<Vec<SignalReport>> {
        struct Turn<'g> {
            row: usize,
            code: &'g mut [f32],
            given: Given<'g>,
            workspace: Workspace,
            progress: Progress,
            /// What the round came to: `None` where the pursuit was ended.
            found: Option<Option<SignalReport>>,
        }
        let (code_len, signal_len) = (columns.code_len(), columns.signal_len());
        let mut open: Vec<Turn> = signals
            .enumerate()
            .map(|(row, (code, given))| {
                let mut workspace = Workspace::new(code_len);
                workspace.start(code, given.started, columns);
                let progress = self.begin(&given);
                Turn { row, code, given, workspace, progress, found: Some(None) }
            })
            .collect();
        let mut reports: Vec<Option<SignalReport>> = open.iter().map(|_| None).collect();
        while !open.is_empty() {
            if work.is_cancelled() {
                return None;
            }
            open.par_iter_mut().for_each(|turn| turn.workspace.describe(turn.code));
            let first = open.iter().all(|turn| turn.workspace.support.is_empty());
            let correlations = if first {
                // The residuals are the signals.
                None
            } else {
                let mut residuals = vec![0.0; open.len() * signal_len];
                residuals.par_chunks_exact_mut(signal_len).zip(&open).for_each(|(residual, turn)| {
                    let Workspace { support, values, .. } = &turn.workspace;
                    residual.copy_from_slice(&columns.residual(turn.given.signal, support, values));
                });
                Some(correlate(residuals, open.len()))
            };
            open.par_iter_mut().enumerate().for_each(|(index, turn)| {
                let Turn { code, given, workspace, progress, found, .. } = turn;
                workspace.residual_correlations.copy_from_slice(match &correlations {
                    Some(correlations) => &correlations[index * code_len..][..code_len],
                    None => given.correlations,
                });
                *found = vectorised(
                    #[inline(always)]
                    || self.round(columns, given, code, workspace, progress),
                );
            });
            if open.iter().any(|turn| turn.found.is_none()) {
                return None;
            }
            open.retain_mut(|turn| {
                reports[turn.row] = turn.found.take().flatten();
                reports[turn.row].is_none()
            });
        }
        reports.into_iter().collect()
    }

    fn begin(&self, given: &Given) -> Progress {
        let effort = Effort { sweeps: 0, work: 0.0, stalled: self.patience == 0.0 };
        Progress { effort, lowest: f64::INFINITY, energy: energy(given.signal) }
    }

    /// Looks at a code whose correlations with all atoms have been found, and goes on with it: returns the report where it is finished.
    /// `None` where the pursuit was ended.
    #[inline(always)]
    fn round(
        &self,
        columns: &Columns,
        given: &Given,
        code: &mut [f32],
        workspace: &mut Workspace,
        progress: &mut Progress,
    ) -> Option<Option<SignalReport>> {
        let BasisPursuitConfig { gap, max_iterations, nonnegative } = self.config;
        let (gap, &Given { signal, lambda, work: watched, .. }) = (f64::from(gap), given);
        let Progress { effort, lowest, energy: energy_of_signal } = progress;
        let energy_of_signal = *energy_of_signal;
        let Look { sums, explained } = workspace.look(given, nonnegative);
        let certify = |residual_energy| Certificate::from(Sums { residual_energy, ..sums });
        // ‖y − Dγ‖² = ‖y‖² − 〈γ, Dᵀy + Dᵀ(y − Dγ)〉 costs nothing; what is reported comes from the residual itself.
        let mut certificate = certify((energy_of_signal - explained).max(0.0));
        let last = effort.sweeps >= max_iterations;
        if last || certificate.relative_gap() <= gap || energy_of_signal - explained < SMALL * energy_of_signal {
            certificate = certify(energy(&columns.residual(signal, &workspace.support, &workspace.values)));
        }
        let converged = certificate.relative_gap() <= gap;
        if !converged && certificate.objective > *lowest * (1.0 + RISE) {
            // What the last round did is taken back.
            code.fill(0.0);
            workspace.best.iter().for_each(|&(place, value)| code[place] = value);
            effort.stalled = true;
        }
        let given_up = !converged && !last && (effort.stalled || effort.sweeps >= MANY_SWEEPS);
        if watched.is_cancelled() {
            return None;
        }
        if given_up
            && !(self.patience > 0.0 && workspace.may_be_many(columns, lambda))
            && let Some(report) = active_set::finish(columns, signal, lambda, &self.config, effort.sweeps, code, || {
                watched.is_cancelled()
            })
        {
            // It may have ended early, at what it had.
            if watched.is_cancelled() {
                return None;
            }
            watched.advance(1.0);
            let finished_by = (self.patience > 0.0).then_some(Algorithm::ActiveSet);
            return Some(Some(SignalReport { finished_by, ..report }));
        }
        if converged || last || given_up {
            watched.advance(1.0);
            return Some(Some(SignalReport {
                lambda,
                iterations: effort.sweeps,
                objective: certificate.objective as f32,
                relative_gap: certificate.relative_gap() as f32,
                data_term: certificate.data_term as f32,
                nonzeros: workspace.support.len(),
                stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                finished_by: None,
            }));
        }
        *lowest = lowest.min(certificate.objective);
        workspace.keep_best();
        workspace.admit(columns, lambda, nonnegative);
        let working = &mut workspace.working;
        working.gather(code, &workspace.residual_correlations);
        let wanted = gap.max(AHEAD * certificate.relative_gap());
        let tolerance = SWEEP_TOLERANCE * wanted * certificate.objective / working.members.len().max(1) as f64;
        self.settle(working, columns, lambda, tolerance, effort);
        working.scatter(code);
        Some(None)
    }

    /// Sweeps over the working set until it moves the objective by no more than `tolerance` in a sweep, until it stalls, or until what is
    /// permitted is used up.
    #[inline(always)]
    fn settle(&self, working: &mut WorkingSet, columns: &Columns, lambda: f32, tolerance: f64, effort: &mut Effort) {
        loop {
            let (progress, changed) = working.sweep(lambda, self.config.nonnegative);
            effort.sweeps += 1;
            effort.work += (changed * working.members.len()) as f64;
            if f64::from(progress) <= tolerance || effort.sweeps >= self.config.max_iterations {
                return;
            }
            effort.stalled |= effort.work > self.patience * expected_work(columns, working.nonzeros());
            if effort.stalled || effort.sweeps >= MANY_SWEEPS {
                return;
            }
            // Correlated atoms settle slowly, yet once their signs are known the rest is a linear system.
            if effort.sweeps.is_multiple_of(SWEEPS_PER_SOLUTION) {
                self.solve_on_support(working, columns, lambda, effort);
                if effort.stalled {
                    return;
                }
            }
        }
    }

    /// Solves the linear system on the support, anew whenever a coefficient becomes zero.
    #[inline(always)]
    fn solve_on_support(&self, working: &mut WorkingSet, columns: &Columns, lambda: f32, effort: &mut Effort) {
        for _ in 0..SIGN_CHANGES {
            let nonzeros = working.nonzeros();
            effort.work += (nonzeros as f64).powi(3) / 3.0;
            effort.stalled = nonzeros > MANY_NONZEROS && effort.work > self.patience * expected_work(columns, nonzeros);
            if effort.stalled {
                return;
            }
            match working.solve_on_support(lambda) {
                Solved::Reached => return,
                Solved::SignChanged => {}
                Solved::Refused => {
                    effort.stalled = true;
                    return;
                }
            }
        }
    }
}

/// Operations that an active set of so many non-zeros is expected to take.
fn expected_work(columns: &Columns, nonzeros: usize) -> f64 {
    let (nonzeros, atom, atoms) = (nonzeros as f64, columns.atom_len() as f64, columns.code_len() as f64);
    let start = nonzeros * nonzeros * (atom + nonzeros);
    start + EXPECTED_MOVES * (3.0 * nonzeros * atom + 2.0 * nonzeros * nonzeros + atoms * atom)
}

/// How a signal stands between two rounds.
struct Progress {
    effort: Effort,
    /// The lowest objective so far.
    lowest: f64,
    /// ‖y‖².
    energy: f64,
}

/// What a signal has cost so far.
struct Effort {
    sweeps: usize,
    /// Operations on the working set.
    work: f64,
    /// Whether sweeps no longer pay, or lead nowhere.
    stalled: bool,
}

/// What a look at all atoms tells.
struct Look {
    /// All but the residual's energy.
    sums: Sums,
    /// ‖y‖² − ‖y − Dγ‖².
    explained: f64,
}

/// What is known of one signal.
struct Given<'a> {
    signal: &'a [f32],
    /// Dᵀy.
    correlations: &'a [f32],
    lambda: f32,
    /// Whether there is a code to start from.
    started: bool,
    work: &'a Work<'a>,
}

/// What the work on one signal needs for a while, kept for the next.
struct Workspace {
    working: WorkingSet,
    /// By how much atoms violate optimality, and which.
    violators: Vec<(f32, usize)>,
    /// The largest correlation of every chunk, and the same in another order.
    maxima: Vec<f32>,
    ordered: Vec<f32>,
    /// Dᵀ(y − Dγ).
    residual_correlations: Vec<f32>,
    support: Vec<usize>,
    values: Vec<f32>,
    /// The non-zeros before the last round.
    best: Vec<(usize, f32)>,
}

impl Workspace {
    fn new(atoms: usize) -> Self {
        Self {
            working: WorkingSet::default(),
            violators: Vec::new(),
            maxima: Vec::new(),
            ordered: Vec::new(),
            residual_correlations: vec![0.0; atoms],
            support: Vec::new(),
            values: Vec::new(),
            best: Vec::new(),
        }
    }

    /// Begins with a signal: from its code, where it has `started`, else from zero.
    #[inline(always)]
    fn start(&mut self, code: &mut [f32], started: bool, columns: &Columns) {
        self.working.clear();
        self.violators.clear();
        if started {
            self.violators.extend((0..code.len()).filter(|&atom| code[atom] != 0.0).map(|atom| (0.0, atom)));
        } else {
            // It is zero, but memory that is read before it is written to is fetched twice, and the second time halts all threads.
            code.fill(0.0);
        }
        self.working.admit(&self.violators, columns);
    }

    /// Support and values of the code.
    #[inline(always)]
    fn describe(&mut self, code: &[f32]) {
        let Self { working, support, values, .. } = self;
        support.clear();
        support.extend(working.members.iter().copied().filter(|&atom| code[atom] != 0.0));
        values.clear();
        values.extend(support.iter().map(|&atom| code[atom]));
    }

    /// Looks at all atoms, of which the correlations with the residual have been computed afresh: moves accumulate rounding.
    #[inline(always)]
    fn look(&mut self, given: &Given, nonnegative: bool) -> Look {
        let Self { residual_correlations, support, values, .. } = self;
        let largest = f64::from(largest(residual_correlations, nonnegative));
        let (mut one_norm, mut code_correlation, mut explained) = (0.0f64, 0.0f64, 0.0f64);
        for (&place, &value) in support.iter().zip(&*values) {
            let (value, correlation) = (f64::from(value), f64::from(residual_correlations[place]));
            one_norm += value.abs();
            code_correlation += value * correlation;
            explained += value * (f64::from(given.correlations[place]) + correlation);
        }
        let lambda = f64::from(given.lambda);
        let sums = Sums { lambda, one_norm, code_correlation, largest_correlation: largest, ..Sums::default() };
        Look { sums, explained }
    }

    /// Whether the support may become so large that products of whole batches, at the speed of the machine, are tried before a factor:
    /// that its factor takes longer than the products that FISTA is expected to need.
    #[inline(always)]
    fn may_be_many(&self, columns: &Columns, lambda: f32) -> bool {
        let (signal_len, size) = (columns.signal_len(), self.support.len());
        let excess = self.residual_correlations.iter().filter(|value| value.abs() > lambda).count();
        let many = (size + excess).min(signal_len) > MANY_NONZEROS;
        let (expected, atom) = ((size + excess.min(size / 2)).min(signal_len), columns.atom_len());
        let factor = (expected * expected) as f64 * (atom + expected) as f64;
        many && factor > EXPECTED_MOVES * (columns.code_len() * atom) as f64
    }

    /// Remembers the code, in case that the next round makes it worse.
    #[inline(always)]
    fn keep_best(&mut self) {
        self.best.clear();
        self.best.extend(self.support.iter().copied().zip(self.values.iter().copied()));
    }

    /// Takes the atoms that violate optimality most into the working set.
    #[inline(always)]
    fn admit(&mut self, columns: &Columns, lambda: f32, nonnegative: bool) {
        let Self { working, violators, maxima, ordered, residual_correlations, .. } = self;
        violators.clear();
        let room = ((working.members.len() as f32 * GROWTH) as usize).max(LEAST_GROWTH);
        // Nearly all members lie at λ, and each would have to be told from a violator.
        working.hide(residual_correlations);
        maxima.clear();
        maxima.extend(residual_correlations.chunks(CHUNK).map(|chunk| largest(chunk, nonnegative)));
        // As many atoms as there is room for are at least as large as that many maxima, so that no smaller one has to be looked at.
        let mut least = lambda;
        if maxima.len() > room {
            ordered.clone_from(maxima);
            least = least.max(*ordered.select_nth_unstable_by(room - 1, |a, b| b.total_cmp(a)).1);
        }
        for ((chunk, correlations), &most) in residual_correlations.chunks(CHUNK).enumerate().zip(&*maxima) {
            if most <= lambda || most < least {
                continue;
            }
            for (place, &correlation) in correlations.iter().enumerate() {
                let size = if nonnegative { correlation } else { correlation.abs() };
                if size > lambda && size >= least {
                    violators.push((size - lambda, chunk * CHUNK + place));
                }
            }
        }
        working.show(residual_correlations);
        if violators.len() > room {
            violators.select_nth_unstable_by(room, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            violators.truncate(room);
            violators.sort_unstable_by_key(|&(_, atom)| atom);
        }
        working.admit(violators, columns);
    }
}

/// What solving the linear system on the support came to.
enum Solved {
    /// The minimiser for the present signs was reached, or there is nothing to solve.
    Reached,
    /// A coefficient became zero on the way.
    SignChanged,
    /// The objective would not have fallen: the support is not linearly independent in `f32`. Nothing was changed.
    Refused,
}

/// Some of the atoms with a Gram matrix of their own.
#[derive(Default)]
struct WorkingSet {
    members: Vec<usize>,
    /// Length of a row of `gram`, a multiple of [`LANES`].
    stride: usize,
    /// `[stride, stride]`, zero beyond the members.
    gram: Vec<f32>,
    code: Vec<f32>,
    /// Correlations with the residual.
    correlations: Vec<f32>,
    /// Memory for the next Gram matrix, and for the linear system.
    spare: Vec<f32>,
    /// The correlations before a move that may be taken back, or that are hidden.
    saved: Vec<f32>,
    system: System,
}

/// The linear system on the support.
#[derive(Default)]
struct System {
    support: Vec<usize>,
    matrix: Vec<f64>,
    change: Vec<f64>,
    /// Minus the gradient of the objective.
    slopes: Vec<f64>,
}

impl WorkingSet {
    #[inline(always)]
    fn clear(&mut self) {
        self.members.clear();
        self.stride = 0;
    }

    /// Puts zeros in the members' places.
    #[inline(always)]
    fn hide(&mut self, correlations: &mut [f32]) {
        self.saved.clear();
        self.saved.extend(self.members.iter().map(|&atom| std::mem::take(&mut correlations[atom])));
    }

    /// Puts back what [`Self::hide`] took.
    #[inline(always)]
    fn show(&self, correlations: &mut [f32]) {
        self.members.iter().zip(&self.saved).for_each(|(&atom, &value)| correlations[atom] = value);
    }

    #[inline(always)]
    fn admit(&mut self, atoms: &[(f32, usize)], columns: &Columns) {
        let before = self.members.len();
        self.members.extend(atoms.iter().map(|&(_, atom)| atom));
        let stride = self.members.len().next_multiple_of(LANES);
        if stride > self.stride {
            // More than what is needed, so that growing costs little.
            let stride = (stride + stride / 2).next_multiple_of(LANES);
            self.spare.clear();
            self.spare.resize(stride * stride, 0.0);
            for row in 0..before {
                self.spare[row * stride..][..before].copy_from_slice(&self.gram[row * self.stride..][..before]);
            }
            std::mem::swap(&mut self.spare, &mut self.gram);
            self.stride = stride;
            self.code.clear();
            self.code.resize(stride, 0.0);
            self.correlations.clear();
            self.correlations.resize(stride, 0.0);
        }
        for (row, &atom) in self.members.iter().enumerate().skip(before) {
            columns.inner_with(atom, &self.members[..=row], &mut self.gram[row * self.stride..][..=row]);
            for column in 0..row {
                self.gram[column * self.stride + row] = self.gram[row * self.stride + column];
            }
        }
    }

    #[inline(always)]
    fn gather(&mut self, code: &[f32], correlations: &[f32]) {
        for (place, &atom) in self.members.iter().enumerate() {
            self.code[place] = code[atom];
            self.correlations[place] = correlations[atom];
        }
    }

    #[inline(always)]
    fn scatter(&self, code: &mut [f32]) {
        self.members.iter().zip(&self.code).for_each(|(&atom, &value)| code[atom] = value);
    }

    /// Number of members whose coefficient is not zero.
    #[inline(always)]
    fn nonzeros(&self) -> usize {
        self.code[..self.members.len()].iter().filter(|value| **value != 0.0).count()
    }

    /// Minimises the objective exactly over one coefficient after the other. Returns a bound on the most that one move gained,
    /// ½ G_jj δ², and the number of coefficients that moved.
    #[inline(always)]
    fn sweep(&mut self, lambda: f32, nonnegative: bool) -> (f32, usize) {
        let (mut progress, mut changed) = (0.0f32, 0);
        let used = self.members.len().next_multiple_of(LANES);
        let correlations = &mut self.correlations[..used];
        for place in 0..self.members.len() {
            let row = &self.gram[place * self.stride..][..used];
            let energy = row[place];
            if energy <= 0.0 {
                continue;
            }
            let before = self.code[place];
            let after = soft_threshold_value(correlations[place] + energy * before, lambda, nonnegative) / energy;
            let change = after - before;
            if change == 0.0 {
                continue;
            }
            self.code[place] = after;
            changed += 1;
            subtract_scaled(correlations, change, row);
            progress = progress.max(0.5 * energy * change * change);
        }
        (progress, changed)
    }
}

impl WorkingSet {
    /// Moves the non-zeros towards the minimiser of the objective for their present signs, up to the first sign that would
    /// change: that coefficient becomes zero. A move that does not lower the objective is taken back.
    ///
    /// The step of feature-sign search (H. Lee, A. Battle, R. Raina, A. Ng, "Efficient sparse coding algorithms", NIPS 2006).
    #[inline(always)]
    fn solve_on_support(&mut self, lambda: f32) -> Solved {
        let System { support, matrix, change, slopes } = &mut self.system;
        support.clear();
        support.extend((0..self.members.len()).filter(|&place| self.code[place] != 0.0));
        if support.len() > MAX_SUPPORT {
            return Solved::Reached;
        }
        matrix.clear();
        slopes.clear();
        matrix.resize(support.len() * support.len(), 0.0);
        for (index, &row) in support.iter().enumerate() {
            let own = &self.gram[row * self.stride..][..self.stride];
            // Its upper half is all that is looked at.
            let upper = &mut matrix[index * (support.len() + 1)..][..support.len() - index];
            upper.iter_mut().zip(&support[index..]).for_each(|(value, &column)| *value = f64::from(own[column]));
            slopes.push(f64::from(self.correlations[row]) - f64::from(lambda.copysign(self.code[row])));
        }
        change.clone_from(slopes);
        solve_normal_equations(matrix, change);
        let (mut part, mut blocking) = (1.0, None);
        for (&place, change) in support.iter().zip(&*change) {
            let value = f64::from(self.code[place]);
            if value * (value + change) <= 0.0 && -value / change < part {
                (part, blocking) = (-value / change, Some(place));
            }
        }
        let used = self.members.len().next_multiple_of(LANES);
        self.saved.clear();
        self.saved.extend_from_slice(&self.correlations[..used]);
        // Along a line the objective is a parabola: what a move gains is its mean slope times its length.
        let mut gain = 0.0;
        for (index, (&place, change)) in support.iter().zip(&mut *change).enumerate() {
            let before = self.code[place];
            let after = if blocking == Some(place) { 0.0 } else { (f64::from(before) + part * *change) as f32 };
            *change = f64::from(before);
            gain += slopes[index] * f64::from(after - before);
            self.code[place] = after;
            let row = &self.gram[place * self.stride..][..used];
            subtract_scaled(&mut self.correlations[..used], after - before, row);
        }
        for (&place, before) in support.iter().zip(&*change) {
            let slope = f64::from(self.correlations[place]) - f64::from(lambda.copysign(*before as f32));
            gain += slope * (f64::from(self.code[place]) - before);
        }
        if gain >= 0.0 {
            return if blocking.is_none() { Solved::Reached } else { Solved::SignChanged };
        }
        support.iter().zip(&*change).for_each(|(&place, before)| self.code[place] = *before as f32);
        self.correlations[..used].copy_from_slice(&self.saved);
        Solved::Refused
    }
}

/// target −= scale · row, both a multiple of [`LANES`] long.
#[inline(always)]
fn subtract_scaled(target: &mut [f32], scale: f32, row: &[f32]) {
    let (targets, _) = target.as_chunks_mut::<LANES>();
    let (rows, _) = row.as_chunks::<LANES>();
    for (target, row) in targets.iter_mut().zip(rows) {
        // All are read before one is written, or else the compiler, which cannot tell that the two never overlap, takes them one by one.
        let mut next = *target;
        for lane in 0..LANES {
            next[lane] -= scale * row[lane];
        }
        *target = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{LayerShape, SignalShape};
    use crate::model::{ModelConfig, OperatorForm};
    use crate::pursuit::Lambda;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// A tenth as many random atoms as a signal has samples: sweeps converge by themselves, and no signal is handed over. What is handed
    /// over has the same answer, so that no other test sees rounds that are wrong.
    #[test]
    fn what_is_easy_is_not_handed_over() {
        let device = crate::device::named(None).unwrap();
        let shape = SignalShape::new(1, 20, 20);
        let model = ModelConfig::new(shape, vec![LayerShape::new(40, 20, 1)]).init_random(3, &device).unwrap();
        let operator = model.operator(shape, OperatorForm::Gram).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let values = crate::random::normal(&mut random, 20 * shape.len());
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(20)), &device);
        for nonnegative in [false, true] {
            let config = BasisPursuitConfig { gap: 1e-5, nonnegative, ..BasisPursuitConfig::default() };
            let pursuit = CoordinateDescent::new(config).unwrap();
            let found = pursuit.pursue(&operator, signals.clone(), &Lambda::Relative(0.3)).unwrap();
            for report in &found.reports {
                assert_eq!((report.stop, report.finished_by), (StopReason::DualityGap, None), "{report:?}");
                // Measured: 6 on the average.
                assert!(report.iterations <= 20, "{report:?}");
            }
        }
    }

    /// A working set that grows keeps what it has of its atoms' inner products.
    #[test]
    fn a_working_set_has_its_gram_matrix() {
        let device = crate::device::named(None).unwrap();
        let shape = SignalShape::new(1, 7, 7);
        let model = ModelConfig::new(shape, vec![LayerShape::new(40, 7, 1)]).init_random(3, &device).unwrap();
        let operator = model.operator(shape, OperatorForm::Gram).unwrap();
        let columns = Columns::new(&operator, None, None).unwrap();
        let mut set = WorkingSet::default();
        for atoms in
            [&[5, 2, 30][..], &[0], &[1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], &[39]]
        {
            let admitted: Vec<(f32, usize)> = atoms.iter().map(|&atom| (0.0, atom)).collect();
            set.admit(&admitted, &columns);
            for (row, &one) in set.members.iter().enumerate() {
                for (column, &other) in set.members.iter().enumerate() {
                    let difference = set.gram[row * set.stride + column] - columns.inner(one, other);
                    // A table's two halves may differ by rounding.
                    assert!(difference.abs() < 1e-6, "{one} {other}: {difference}");
                }
            }
        }
        assert_eq!(set.members.len(), 24);
    }

    /// Two atoms with that Gram matrix, that code and those correlations of the signal.
    fn two_atoms([[a, b], [c, d]]: [[f32; 2]; 2], code: [f32; 2], of_signal: [f32; 2]) -> WorkingSet {
        let mut set = WorkingSet { members: vec![0, 1], stride: LANES, ..Default::default() };
        set.gram = vec![0.0; LANES * LANES];
        (set.gram[0], set.gram[1], set.gram[LANES], set.gram[LANES + 1]) = (a, b, c, d);
        set.code = vec![0.0; LANES];
        set.code[..2].copy_from_slice(&code);
        set.correlations = vec![0.0; LANES];
        set.correlations[0] = of_signal[0] - a * code[0] - b * code[1];
        set.correlations[1] = of_signal[1] - c * code[0] - d * code[1];
        set
    }

    /// By hand, in numbers that `f32` holds exactly: S_λ(c_j + G_jj γ_j)/G_jj for one atom after the other.
    #[test]
    fn a_sweep_minimises_over_one_coefficient_after_the_other() {
        let gram = [[2.0, 0.5], [0.5, 1.0]];
        let mut set = two_atoms(gram, [0.0; 2], [3.0, -2.0]);
        // S(3)/2 = 1.25, which leaves −2 − ½·1.25 = −2.625 for the second: S(−2.625) = −2.125. The second gains the most, ½·2.125².
        assert_eq!(set.sweep(0.5, false), (2.257_812_5, 2));
        assert_eq!(set.code[..2], [1.25, -2.125]);
        assert_eq!(set.correlations[..2], [1.5625, -0.5]);
        // From there S(1.5625 + 2·1.25)/2 = 1.78125.
        set.sweep(0.5, false);
        assert_eq!(set.code[0], 1.781_25);
        // Of one sign, the second stays at zero.
        let mut set = two_atoms(gram, [0.0; 2], [3.0, -2.0]);
        assert_eq!(set.sweep(0.5, true), (1.5625, 1));
        assert_eq!((&set.code[..2], &set.correlations[..2]), (&[1.25, 0.0][..], &[0.5, -2.625][..]));
    }

    /// By hand: Gγ = Dᵀy − λ·signs, all the way or to the first zero on it.
    #[test]
    fn the_support_is_solved_for_up_to_a_change_of_sign() {
        // A few units in the last place of numbers near 1.
        let close = |found: &[f32], expected: [f64; 2]| {
            let near = found.iter().zip(expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-6);
            assert!(near, "{found:?} {expected:?}");
        };
        let mut set = two_atoms([[2.0, 0.5], [0.5, 1.0]], [1.25, -2.125], [3.0, -2.0]);
        assert!(matches!(set.solve_on_support(0.5), Solved::Reached));
        // (2.5, −1.5) by the inverse of the Gram matrix, whose determinant is 1.75.
        close(&set.code[..2], [3.25 / 1.75, -4.25 / 1.75]);
        // At the minimum correlations are λ, with the code's signs.
        close(&set.correlations[..2], [0.5, -0.5]);
        // Towards (−0.09, 0.29)/0.19 the first coefficient is zero after 0.5/(0.5 + 0.09/0.19) of the way.
        let mut set = two_atoms([[1.0, 0.9], [0.9, 1.0]], [0.5, 0.2], [1.0, 1.2]);
        assert!(matches!(set.solve_on_support(0.1), Solved::SignChanged));
        let part = 0.5 / (0.5 + 0.09 / 0.19);
        let second = 0.2 + part * (0.29 / 0.19 - 0.2);
        assert_eq!(set.code[0], 0.0);
        close(&set.code[..2], [0.0, second]);
        close(&set.correlations[..2], [1.0 - 0.9 * second, 1.2 - second]);
    }
}
