//! Orthogonal matching pursuit on the effective dictionary, batched, and least squares on a support.
//!
//! Y. Pati, R. Rezaiifar, P. Krishnaprasad, "Orthogonal matching pursuit", Asilomar Conference on Signals, Systems and Computers,
//! 1993. The atom most correlated with the residual, in units of the atoms' norms, joins the support, and the signal is projected
//! onto all atoms of the support; the Cholesky factor of their Gram matrix grows by one row an atom (R. Rubinstein,
//! M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit", Technion
//! CS-2008-08).
//!
//! The atom can also be chosen by what it leaves: that whose joining makes the residual shortest, the one most correlated with it in
//! units of the norms of what the atoms have outside the span of the support (orthogonal least squares: S. Chen, S. Billings,
//! W. Luo, "Orthogonal least squares methods and their application to non-linear system identification", International Journal of
//! Control 50(5), 1989; L. Rebollo-Neira, D. Lowe, "Optimized orthogonal matching pursuit approach", IEEE Signal Processing
//! Letters 9(4), 2002). Every direction that the support gains is kept with its inner products with all atoms.
//!
//! Where codes are kept non-negative the atom of largest positive correlation joins, and the coefficients are those of non-negative
//! least squares on the support: the step towards the unconstrained ones ends where the first of them becomes zero, that atom
//! leaves, and so on until all that are left are positive (A. Bruckstein, M. Elad, M. Zibulevsky, "On the uniqueness of nonnegative
//! sparse solutions to underdetermined systems of equations", IEEE Trans. Information Theory 54(11), 2008; M. Yaghoobi, D. Wu,
//! M. Davies, "Fast non-negative orthogonal matching pursuit", IEEE Signal Processing Letters 22(9), 2015; C. Lawson, R. Hanson,
//! "Solving least squares problems", Prentice-Hall 1974, chapter 23). An atom that leaves takes its row out of the Cholesky factor
//! by rotations, and may come back. Every step makes the residual shorter; one that would not is taken back, and its atom ruled
//! out until another step has succeeded, so that no support occurs twice.
//!
//! Where the atoms' inner products are few enough to be held, correlations with the residual follow from them, signal by signal.
//! Else they are one analysis of all residuals on the device, and columns of D^(L) are made when an atom is picked and kept by
//! their non-zeros (on a GPU only the best atom of each signal comes to the host): nothing grows with the square of the code; masks,
//! paddings and strides need no case of their own. The
//! triangular systems are solved on the host in `f64`. Inner products of single precision say too little of atoms that are nearly in
//! the span of others: from the first of them on those of the support are computed in `f64`, and an atom stays only where the code as
//! it is written, in `f32`, leaves less with it than without. On a GPU that can hold the inner products of all atoms, a kernel grows all
//! supports by correlations (`on_gpu.rs`), one workgroup a signal, and the host takes those whose atoms are too nearly dependent for `f32`.

use super::by_windows::Parts;
#[cfg(feature = "cube")]
use super::observer::Share;
use super::observer::{Work, interrupted};
use super::{Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::device::is_host;
use crate::error::{Error, Result};
use crate::kernels::linear_algebra::{dot, solve_factorized, solve_normal_equations_until};
use crate::kernels::simd::{subtract_rows, vectorised};
use crate::kernels::sparse::energy;
use crate::model::Operator;
use crate::pursuit::columns::{self, Columns, LANES};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Parameters of [`OrthogonalMatchingPursuit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrthogonalMatchingPursuitConfig {
    /// Most non-zeros of γ_L, from 1 to the smaller of the numbers of code and of signal values.
    pub nonzeros: usize,
    /// Length ‖y − D^(L)γ‖₂ of the residual at which a signal is finished, at least 0. Default 0: only the non-zeros count.
    #[serde(default)]
    pub residual: f32,
    /// Whether γ_L is kept non-negative. Default no.
    #[serde(default)]
    pub nonnegative: bool,
    /// What the next atom is chosen by. Default: its correlation with the residual.
    #[serde(default)]
    pub selection: Selection,
}

/// What a greedy pursuit chooses the next atom by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Its correlation with the residual: orthogonal matching pursuit.
    #[default]
    Correlation,
    /// The residual that is left once it has joined: orthogonal least squares. Shorter residuals for some more time, where inner
    /// products of all atoms can be held, and a signal has no windows.
    Residual,
}

impl OrthogonalMatchingPursuitConfig {
    /// With that many non-zeros of both signs, whatever the residual.
    pub fn new(nonzeros: usize) -> Self {
        Self { nonzeros, residual: 0.0, nonnegative: false, selection: Selection::Correlation }
    }

    /// The same with the next atom chosen in another way.
    #[must_use]
    pub fn with_selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// The same with codes kept non-negative or not.
    #[must_use]
    pub fn with_nonnegative(self, nonnegative: bool) -> Self {
        Self { nonnegative, ..self }
    }

    /// Checks the parameters as far as they don't depend on the model.
    ///
    /// # Errors
    /// No non-zeros; a residual that is negative or not finite.
    pub fn init(self) -> Result<OrthogonalMatchingPursuit> {
        if self.nonzeros == 0 {
            return Err(Error::parameter("nonzeros", 0, "at least 1"));
        }
        check_residual(self.residual)?;
        Ok(OrthogonalMatchingPursuit { config: self })
    }
}

/// Refuses to choose atoms by residuals where not all inner products of atoms are held.
pub(super) fn check_selection(operator: &Operator, selection: Selection) -> Result<()> {
    match selection {
        Selection::Residual if !columns::holds_all(operator) => Err(not_held()),
        _ => Ok(()),
    }
}

fn not_held() -> Error {
    let expected = "omp: residuals are compared where every value of a code has an atom of its own, as of vectors, and all inner products can be held";
    Error::parameter("pursuit", "ols", expected)
}

pub(super) fn check_residual(residual: f32) -> Result<()> {
    if residual.is_finite() && residual >= 0.0 {
        return Ok(());
    }
    Err(Error::parameter("residual", residual, "a finite length ≥ 0"))
}

/// Refuses more non-zeros than the code has values or the signal has dimensions.
pub(super) fn check_nonzeros(operator: &Operator, nonzeros: usize) -> Result<()> {
    let most = operator.code().len().min(operator.signal().len());
    if (1..=most).contains(&nonzeros) {
        return Ok(());
    }
    let expected = format!(
        "1 to {most}, the smaller of {} code values and {} signal values",
        operator.code().len(),
        operator.signal().len()
    );
    Err(Error::parameter("nonzeros", nonzeros, expected))
}

/// Orthogonal matching pursuit with checked parameters.
///
/// The coefficients are least squares on the support, or, where they are kept non-negative, non-negative least squares: they are
/// positive, and the residual is orthogonal to all atoms of the support. From step to step the residual never becomes longer. A
/// signal that correlates positively with no atom has a zero code ([`StopReason::Exhausted`]).
#[derive(Debug, Clone)]
pub struct OrthogonalMatchingPursuit {
    config: OrthogonalMatchingPursuitConfig,
}

impl Pursuit for OrthogonalMatchingPursuit {
    fn name(&self) -> &'static str {
        match self.config.selection {
            Selection::Correlation => "orthogonal-matching-pursuit",
            Selection::Residual => "orthogonal-least-squares",
        }
    }

    /// Takes a mask; ignores λ.
    ///
    /// # Errors
    /// More non-zeros than dimensions; weights, penalties of shallower layers or codes to start from; a selection by residuals where
    /// inner products of all atoms are not held.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        check_nonzeros(problem.operator(), self.config.nonzeros)?;
        check_selection(problem.operator(), self.config.selection)?;
        refuse_penalties(problem, self.name())?;
        problem.check_values()?;
        #[cfg(feature = "cube")]
        if let Some((found, open)) = super::on_gpu::greedy(problem, &self.config)? {
            if open.is_empty() {
                return Ok(found);
            }
            let mut part = problem.part(&open, Lambda::Absolute(0.0))?;
            let left = open.len() as f64 / problem.count() as f64;
            let share = problem.observer().map(|observer| Share { observer, from: 1.0 - left, part: left });
            if let Some(share) = &share {
                part = part.with_observer(share);
            }
            let others = self.on_host(&part)?;
            return Ok(super::handover::with_rows(problem.operator(), found, &open, others, |_, report| Some(report)));
        }
        self.on_host(problem)
    }
}

impl OrthogonalMatchingPursuit {
    /// [`Pursuit::solve`] of what was checked, on the host.
    fn on_host(&self, problem: &Problem) -> Result<Pursued> {
        let level = f64::from(self.config.residual).powi(2);
        let (rows, operator) = ((0..problem.count()).collect::<Vec<_>>(), problem.operator());
        let (mut found, mut reports) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let mut by_windows = Vec::new();
        for rows in rows.chunks(columns::signals_at_once(operator.code().len())) {
            let part = problem.part(rows, Lambda::Absolute(0.0))?;
            let by_correlation = self.config.selection == Selection::Correlation;
            if by_correlation && let Some((codes, of_part)) = self.solve_by_windows(&part, level)? {
                by_windows.push(codes);
                reports.extend(of_part);
                continue;
            }
            let mut growth = GreedySelection::new(&part, self.config.nonnegative)?;
            let stops = match self.config.selection {
                Selection::Correlation => growth.grow_to(self.config.nonzeros, level)?,
                Selection::Residual => growth.grow_by_residuals(self.config.nonzeros, level)?,
            };
            let of_part = stops.into_par_iter().enumerate().map(|(row, stop)| growth.report(row, stop));
            reports.extend(of_part.collect::<Vec<_>>());
            found.extend(growth.approximations.into_iter().map(|state| (state.support, state.coefficients)));
        }
        if !by_windows.is_empty() {
            // All signals have windows, or none has.
            return Ok(Pursued::consistent(Tensor::cat(by_windows, 0), reports));
        }
        let supports = found.iter().map(|(support, values)| (support.as_slice(), values.as_slice()));
        Ok(Pursued::consistent(codes_of(operator, supports), reports))
    }

    /// Codes and reports where a signal is a batch of windows, whose atoms' inner products can be held; `None` elsewhere. The atoms
    /// that a signal would pick are those of its windows, in the order of their scores.
    fn solve_by_windows(&self, problem: &Problem, level: f64) -> Result<Option<(Tensor<4>, Vec<SignalReport>)>> {
        let Some(parts) = Parts::of(problem)? else { return Ok(None) };
        let window = parts.problem.operator();
        if !columns::suits(window, true) {
            return Ok(None);
        }
        let (positions, beyond) = (parts.positions(), parts.energies_beyond(problem));
        let mut growth = GreedySelection::new(&parts.problem, self.config.nonnegative)?;
        let stops = growth.grow_together(positions, &beyond, self.config.nonzeros, level)?;
        let of_windows: Vec<SignalReport> =
            (0..parts.problem.count()).into_par_iter().map(|row| growth.report(row, stops[row / positions])).collect();
        let reports = of_windows.chunks_exact(positions).zip(&beyond).map(|(parts, beyond)| {
            let data_term = parts.iter().map(|part| f64::from(part.data_term)).sum::<f64>() + 0.5 * beyond;
            let nonzeros = parts.iter().map(|part| part.nonzeros).sum();
            SignalReport {
                iterations: parts.iter().map(|part| part.iterations).sum(),
                objective: data_term as f32,
                relative_gap: if data_term as f32 == 0.0 { 0.0 } else { 1.0 },
                data_term: data_term as f32,
                nonzeros,
                ..parts[0].clone()
            }
        });
        let reports = reports.collect();
        let supports =
            growth.approximations.iter().map(|state| (state.support.as_slice(), state.coefficients.as_slice()));
        Ok(Some((parts.join(codes_of(window, supports)), reports)))
    }
}

/// Refuses what greedy pursuits don't take.
pub(super) fn refuse_penalties(problem: &Problem, pursuit: &str) -> Result<()> {
    problem.refuse_shallower(pursuit)?;
    problem.refuse_weights(pursuit)?;
    problem.refuse_start(pursuit)
}

/// A direction whose energy falls below this part of its atom's is taken to depend on the atoms already chosen: what `f32` atoms say of it
/// is rounding.
const DEPENDENT: f64 = 1e-13;

/// Below this part inner products in `f32` say too little: an error of 1e-7 in them would be one of 1e-5 in coefficients.
const CLOSE: f64 = 1e-2;

/// Below this part what an atom has outside the span of the support is computed in `f64` when atoms are compared by what they leave.
const BARELY_OUTSIDE: f32 = 1e-4;

/// A residual of less than this part of the signal's energy is computed from the atoms: as a difference it would be rounding.
const SMALL_RESIDUAL: f64 = 1e-2;

/// A residual of less than this part of the signal's energy is also correlated with the atoms as it is.
const TINY_RESIDUAL: f64 = 1e-6;

/// A score of less than this part of the first one is nothing but rounding. Where the residual is that of the code as it is written, a score is
/// compared with the residual's length in place of the first score.
const NEGLIGIBLE_SCORE: f32 = 1e-6;

/// Rounding of a number of single precision, as a part of it, at most.
const ROUNDING: f32 = f32::EPSILON / 2.0;

/// Part of the length of all parts of a reconstruction below which a residual is correlated with the atoms as it is, where atoms are close.
const SMALL_LEFT: f32 = 1e-2;

/// Atoms in a row, where some are close, that leave no less than there was, after which a pursuit is at its end.
const REFUSALS: usize = 16;

/// Least squares problems that correct each other's ridge, at most.
const CORRECTIONS: usize = 8;

/// Part of the explained energy by which an exchange of atoms has to raise it: less is rounding.
const GAIN: f64 = 1e-12;

/// A batch of signals that are approximated by ever more atoms.
pub(super) struct GreedySelection<'a> {
    operator: &'a Operator,
    means: Correlations<'a>,
    /// One signal after the other, missing samples being zero.
    signals: Vec<f32>,
    /// 1/‖atom‖, or 0 for atoms that are zero: for all signals alike, or, where there is a mask, for each.
    inverse_norms: Vec<f32>,
    pub(super) approximations: Vec<Approximation>,
    work: Work<'a>,
}

/// How correlations with residuals and among atoms are found.
enum Correlations<'a> {
    /// From the atoms' inner products, signal by signal.
    InnerProducts {
        columns: Box<Columns<'a>>,
        /// Dᵀy of all signals.
        correlations: Vec<f32>,
    },
    /// By analysing the residuals of the whole batch, and from the picked atoms themselves.
    Analysis { mask: Option<Vec<f32>> },
}

/// One signal on the atoms picked so far.
#[derive(Clone)]
pub(super) struct Approximation {
    energy: f64,
    pub(super) nonnegative: bool,
    /// Atoms taken into the support, those included that have left it since.
    pub(super) picks: usize,
    /// Correlation, in units of the atom's norm, of the first pick.
    pub(super) first_score: f32,
    /// Atoms of the support, and those that depend on it.
    unavailable: Vec<usize>,
    pub(super) support: Vec<usize>,
    pub(super) coefficients: Vec<f64>,
    /// Rows of the Cholesky factor of the picked atoms' Gram matrix, one after the other.
    factor: Vec<f64>,
    /// The factor's inverse times the picked atoms' correlations with the signal.
    projected: Vec<f64>,
    pub(super) residual_energy: f64,
    /// Whether an atom of the support is nearly in the span of the others: inner products are then computed in `f64`, and residuals
    /// from the code as it is written.
    is_close: bool,
    /// Whether such an atom was taken, so that directions computed in `f32` say too little.
    has_close: bool,
    /// Lengths, in sum, of the parts that atoms have in the reconstruction: rounding of the code may leave a small part of that.
    parts: f32,
    /// Atoms that were refused since the last one that was taken.
    refusals: usize,
    /// The residual and the picked atoms' non-zeros, where inner products are not at hand.
    residual: Vec<f32>,
    picked: Vec<Vec<(u32, f32)>>,
}

impl<'a> GreedySelection<'a> {
    /// # Errors
    /// As [`Columns::new`].
    pub(super) fn new(problem: &Problem<'a>, nonnegative: bool) -> Result<Self> {
        let operator = problem.operator();
        let signals = to_host(problem.signals());
        let (means, energies): (Correlations<'a>, Vec<f32>) =
            if !problem.has_separate_masks() && columns::suits(operator, problem.is_plain()) {
                let correlations = columns::correlate(operator, problem.signals());
                let columns = Box::new(Columns::new(operator, problem.shared_mask(), None)?);
                let energies = columns.energies().collect();
                (Correlations::InnerProducts { columns, correlations }, energies)
            } else {
                let energies = to_host(operator.atom_energies(problem.mask()));
                (Correlations::Analysis { mask: problem.mask().map(to_host) }, energies)
            };
        let inverse = |energy: f32| if energy > 0.0 { energy.sqrt().recip() } else { 0.0 };
        let inverse_norms = energies.into_iter().map(inverse).collect();
        let approximation = |signal| Approximation::new(signal, &means, nonnegative);
        let approximations = signals.chunks_exact(operator.signal().len()).map(approximation).collect();
        Ok(Self { operator, means, signals, inverse_norms, approximations, work: problem.work() })
    }

    /// Adds atoms to all signals until they have `nonzeros` or a residual of no more energy than `level`.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn grow_to(&mut self, nonzeros: usize, level: f64) -> Result<Vec<StopReason>> {
        let finished = |state: &Approximation| match state.residual_energy <= level {
            true => Some(StopReason::Residual),
            false => (state.support.len() >= nonzeros).then_some(StopReason::Nonzeros),
        };
        if let Correlations::InnerProducts { columns, correlations } = &self.means {
            // Signal by signal, so that what one needs stays in the cache.
            let (norms, code_len, signal_len) = (&self.inverse_norms, columns.code_len(), columns.signal_len());
            let work = &self.work;
            return self
                .approximations
                .par_iter_mut()
                .zip(correlations.par_chunks_exact(code_len).zip(self.signals.par_chunks_exact(signal_len)))
                .map_init(Vec::new, |scratch, (state, (correlations, signal))| {
                    vectorised(
                        #[inline(always)]
                        || {
                            loop {
                                if let Some(stop) = finished(state) {
                                    work.advance(1.0);
                                    return Some(stop);
                                }
                                if work.is_cancelled() {
                                    return None;
                                }
                                if !state.grow_by_inner_products(columns, correlations, signal, norms, scratch) {
                                    work.advance(1.0);
                                    return Some(StopReason::Exhausted);
                                }
                            }
                        },
                    )
                })
                .collect::<Option<_>>()
                .ok_or_else(interrupted);
        }
        let mut open: Vec<usize> = (0..self.approximations.len()).collect();
        let mut stops = vec![StopReason::Nonzeros; open.len()];
        let mut rounds = 0;
        loop {
            open.retain(|&row| match finished(&self.approximations[row]) {
                Some(stop) => {
                    stops[row] = stop;
                    false
                }
                None => true,
            });
            if open.is_empty() {
                return Ok(stops);
            }
            if rounds < nonzeros {
                self.work.advance(open.len() as f64 / nonzeros as f64);
                rounds += 1;
            }
            for row in self.grow(&open)? {
                stops[row] = StopReason::Exhausted;
                open.retain(|&other| other != row);
            }
        }
    }

    /// [`Self::grow_to`] by the atoms that leave the shortest residuals.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; inner products that are not at hand in full.
    fn grow_by_residuals(&mut self, nonzeros: usize, level: f64) -> Result<Vec<StopReason>> {
        let columns = match &self.means {
            Correlations::InnerProducts { columns, correlations } => {
                columns.gram().map(|gram| (columns, correlations, gram))
            }
            Correlations::Analysis { .. } => None,
        };
        let Some((columns, correlations, gram)) = columns else { return Err(not_held()) };
        let (norms, code_len, signal_len) = (&self.inverse_norms, columns.code_len(), columns.signal_len());
        let work = &self.work;
        self.approximations
            .par_iter_mut()
            .zip(correlations.par_chunks_exact(code_len).zip(self.signals.par_chunks_exact(signal_len)))
            .map_init(Directions::default, |directions, (state, (correlations, signal))| {
                vectorised(
                    #[inline(always)]
                    || {
                        directions.start(correlations, norms);
                        loop {
                            if work.is_cancelled() {
                                return None;
                            }
                            let stop = match state.residual_energy <= level {
                                true => Some(StopReason::Residual),
                                false => (state.support.len() >= nonzeros).then_some(StopReason::Nonzeros),
                            };
                            let stop = match stop {
                                None if !state.grow_by_residual(
                                    columns,
                                    correlations,
                                    signal,
                                    (norms, gram),
                                    directions,
                                ) =>
                                {
                                    Some(StopReason::Exhausted)
                                }
                                stop => stop,
                            };
                            if stop.is_some() {
                                work.advance(1.0);
                                return stop;
                            }
                        }
                    },
                )
            })
            .collect::<Option<_>>()
            .ok_or_else(interrupted)
    }

    /// [`Self::grow_to`] where every `positions` signals are the windows of one, which has `nonzeros` at most and a residual that also
    /// holds what is beyond its windows: the best atom of all its windows comes next. Inner products are at hand.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    fn grow_together(
        &mut self,
        positions: usize,
        beyond: &[f64],
        nonzeros: usize,
        level: f64,
    ) -> Result<Vec<StopReason>> {
        let Correlations::InnerProducts { columns, correlations } = &self.means else {
            unreachable!("windows grow together where inner products are at hand");
        };
        let (norms, code_len, signal_len) = (&self.inverse_norms, columns.code_len(), columns.signal_len());
        let work = &self.work;
        self.approximations
            .par_chunks_exact_mut(positions)
            .zip(correlations.par_chunks_exact(positions * code_len))
            .zip(self.signals.par_chunks_exact(positions * signal_len))
            .zip(beyond)
            .map(|(((states, correlations), signals), &beyond)| {
                let of_window =
                    |at: usize| (&correlations[at * code_len..][..code_len], &signals[at * signal_len..][..signal_len]);
                vectorised(
                    #[inline(always)]
                    || grow_windows(states, columns, of_window, norms, beyond, (nonzeros, level), work),
                )
            })
            .collect::<Option<_>>()
            .ok_or_else(interrupted)
    }

    /// Adds one atom to each of the signals in `rows` (in ascending order) and projects them anew. Where the best atom depends on
    /// those picked already it is ruled out and nothing is added. Returns the signals for which no atom is left.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn grow(&mut self, rows: &[usize]) -> Result<Vec<usize>> {
        self.work.check()?;
        let (code_len, signal_len) = (self.operator.code().len(), self.operator.signal().len());
        let (norms, signals) = (&self.inverse_norms, &self.signals);
        let mut chosen: Vec<&mut Approximation> = select(&mut self.approximations, rows);
        match &self.means {
            Correlations::InnerProducts { columns, correlations } => {
                let left = chosen.par_iter_mut().zip(rows).map_init(Vec::new, |scratch, (state, &row)| {
                    let correlations = &correlations[row * code_len..][..code_len];
                    let signal = &signals[row * signal_len..][..signal_len];
                    state.grow_by_inner_products(columns, correlations, signal, norms, scratch)
                });
                let left: Vec<bool> = left.collect();
                Ok(rows.iter().zip(left).filter(|(_, left)| !left).map(|(&row, _)| row).collect())
            }
            Correlations::Analysis { mask } => {
                let residuals: Vec<f32> = chosen.iter().flat_map(|state| state.residual.iter().copied()).collect();
                let device = self.operator.device();
                let residuals = Tensor::from_data(TensorData::new(residuals, [rows.len(), signal_len]), &device);
                let picks: Vec<Option<(usize, f32)>> = if mask.is_none() && !is_host(&device) {
                    let scales = Tensor::from_data(TensorData::new(norms.clone(), [1, code_len]), &device);
                    let unavailable: Vec<&[usize]> = chosen.iter().map(|state| state.unavailable.as_slice()).collect();
                    let nonnegative = chosen.first().is_some_and(|state| state.nonnegative);
                    let best = columns::best_atoms(self.operator, &residuals, &scales, &unavailable, nonnegative);
                    let best = chosen.iter_mut().zip(best);
                    best.map(|(state, (place, score))| state.picked(place, score)).collect()
                } else {
                    let mut correlations = columns::correlate(self.operator, residuals);
                    chosen
                        .par_iter_mut()
                        .zip(correlations.par_chunks_exact_mut(code_len))
                        .zip(rows)
                        .map(|((state, correlations), &row)| {
                            let first = if mask.is_none() { 0 } else { row * code_len };
                            state.pick(correlations, &norms[first..][..code_len])
                        })
                        .collect()
                };
                self.work.check()?;
                let picks: Vec<Option<usize>> = picks.into_iter().map(|pick| pick.map(|(place, _)| place)).collect();
                let places: Vec<usize> = picks.iter().flatten().copied().collect();
                let atoms = to_host(self.operator.columns(&places));
                let mut atoms = atoms.chunks_exact(signal_len);
                let work: Vec<(&mut Approximation, usize, &[f32], usize)> = chosen
                    .into_iter()
                    .zip(&picks)
                    .zip(rows)
                    .filter_map(|((state, pick), &row)| pick.and_then(|pick| Some((state, pick, atoms.next()?, row))))
                    .collect();
                work.into_par_iter().for_each(|(state, place, atom, row)| {
                    let mask = mask.as_ref().map(|mask| &mask[row * signal_len..][..signal_len]);
                    state.grow_by_atom(place, atom, mask, &signals[row * signal_len..][..signal_len]);
                });
                Ok(rows.iter().zip(&picks).filter(|(_, pick)| pick.is_none()).map(|(&row, _)| row).collect())
            }
        }
    }

    /// What there is to say of a signal as it stands, the residual's energy from the residual itself.
    pub(super) fn report(&self, row: usize, stop: StopReason) -> SignalReport {
        let state = &self.approximations[row];
        let residual_energy = match &self.means {
            Correlations::InnerProducts { columns, .. } => {
                let signal = &self.signals[row * columns.signal_len()..][..columns.signal_len()];
                vectorised(
                    #[inline(always)]
                    || energy(&state.residual_by(columns, signal)),
                )
            }
            Correlations::Analysis { .. } => state.residual_energy,
        };
        let data_term = (0.5 * residual_energy) as f32;
        SignalReport {
            lambda: 0.0,
            iterations: state.picks,
            objective: data_term,
            relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
            data_term,
            nonzeros: state.support.len(),
            stop,
            finished_by: None,
        }
    }
}

/// Adds the best atom of all windows of a signal until they have `nonzeros` or a residual of no more energy than `level`.
///
/// - of_window: correlations with the atoms, and samples, of a window
/// - beyond: energy of the samples that no window holds
///
/// `None` where the observer ended it.
#[inline(always)]
fn grow_windows<'a>(
    states: &mut [Approximation],
    columns: &Columns,
    of_window: impl Fn(usize) -> (&'a [f32], &'a [f32]),
    norms: &[f32],
    beyond: f64,
    (nonzeros, level): (usize, f64),
    work: &Work,
) -> Option<StopReason> {
    // Scores are not negative, so that they are in the order of their bits; of equal ones the first window comes first.
    let mut next: BinaryHeap<(u32, Reverse<usize>, usize)> = BinaryHeap::new();
    let mut scratch = Vec::new();
    let mut candidate = |state: &mut Approximation, at: usize, next: &mut BinaryHeap<_>| {
        let (correlations, signal) = of_window(at);
        if let Some((place, score)) = state.candidate(columns, correlations, signal, norms, &mut scratch) {
            next.push((score.to_bits(), Reverse(at), place));
        }
    };
    for (at, state) in states.iter_mut().enumerate() {
        if work.is_cancelled() {
            return None;
        }
        candidate(state, at, &mut next);
    }
    // The whole is as much work as all windows are; atoms are told of in groups.
    let windows = states.len() as f64;
    let (group, mut told) = ((nonzeros / 64).max(1), 0.0);
    let first_score = next.peek().map_or(0.0, |&(score, ..)| f32::from_bits(score));
    let all = |states: &[Approximation]| beyond + states.iter().map(|state| state.residual_energy).sum::<f64>();
    let mut residual_energy = all(states);
    let (energy, mut count, mut most) = (residual_energy, 0, 0);
    let stop = loop {
        if residual_energy <= level {
            break StopReason::Residual;
        }
        if count >= nonzeros {
            break StopReason::Nonzeros;
        }
        if work.is_cancelled() {
            return None;
        }
        let Some((score, Reverse(at), place)) = next.pop() else { break StopReason::Exhausted };
        // A window whose atoms are close has judged for itself.
        if !states[at].is_close && f32::from_bits(score) <= NEGLIGIBLE_SCORE * first_score {
            break StopReason::Exhausted;
        }
        let state = &mut states[at];
        let (correlations, signal) = of_window(at);
        let (before, size) = (state.residual_energy, state.support.len());
        if state.take(place, columns, correlations, signal) {
            // Where codes are non-negative, others may have left.
            count = count + state.support.len() - size;
            if count > most && count % group == 0 {
                most = count;
                let part = windows * group as f64 / nonzeros as f64;
                work.advance(part.min(windows - told));
                told += part;
            }
        }
        candidate(state, at, &mut next);
        residual_energy += state.residual_energy - before;
        if residual_energy < SMALL_RESIDUAL * energy {
            // As a difference it would be rounding.
            residual_energy = all(states);
        }
    };
    work.advance(windows - told);
    Some(stop)
}

/// Codes from supports and coefficients, `[n, m_L, h_L, w_L]`.
pub(super) fn codes_of<'a>(
    operator: &Operator,
    supports: impl ExactSizeIterator<Item = (&'a [usize], &'a [f64])>,
) -> Tensor<4> {
    let len = operator.code().len();
    let dims = operator.code().batched(supports.len());
    let mut codes = vec![0.0f32; dims[0] * len];
    for (row, (support, coefficients)) in supports.enumerate() {
        for (&place, &value) in support.iter().zip(coefficients) {
            codes[row * len + place] = value as f32;
        }
    }
    Tensor::from_data(TensorData::new(codes, dims), &operator.device())
}

/// Those of the items that `rows`, in ascending order, names.
fn select<'a, T>(items: &'a mut [T], rows: &[usize]) -> Vec<&'a mut T> {
    let mut wanted = rows.iter().copied().peekable();
    items.iter_mut().enumerate().filter_map(|(index, item)| wanted.next_if_eq(&index).map(|_| item)).collect()
}

impl Approximation {
    fn new(signal: &[f32], means: &Correlations, nonnegative: bool) -> Self {
        let energy = energy(signal);
        Self {
            energy,
            nonnegative,
            picks: 0,
            residual_energy: energy,
            is_close: false,
            has_close: false,
            parts: 0.0,
            refusals: 0,
            first_score: 0.0,
            unavailable: Vec::new(),
            support: Vec::new(),
            coefficients: Vec::new(),
            factor: Vec::new(),
            projected: Vec::new(),
            residual: match means {
                Correlations::InnerProducts { .. } => Vec::new(),
                Correlations::Analysis { .. } => signal.to_vec(),
            },
            picked: Vec::new(),
        }
    }

    /// The available atom of largest correlation relative to its norm, in magnitude or positive only, and that score; of equal ones
    /// the first. Correlations of unavailable ones become zero.
    #[inline(always)]
    pub(super) fn pick(&mut self, correlations: &mut [f32], inverse_norms: &[f32]) -> Option<(usize, f32)> {
        self.unavailable.iter().for_each(|&place| correlations[place] = 0.0);
        // The largest score of a chunk first, by lanes: that vectorises, and few chunks are looked at more closely.
        let (mut best, mut score) = (None, 0.0f32);
        let mut start = 0;
        for (correlations, scales) in correlations.chunks(4 * LANES).zip(inverse_norms.chunks(4 * LANES)) {
            if largest_score(correlations, scales, self.nonnegative) > score {
                for (place, (correlation, scale)) in correlations.iter().zip(scales).enumerate() {
                    let candidate = score_of(*correlation, *scale, self.nonnegative);
                    if candidate > score {
                        (best, score) = (Some(start + place), candidate);
                    }
                }
            }
            start += correlations.len();
        }
        best.and_then(|best| self.picked(best, score))
    }

    /// The atom that was found to have the largest score, unless that is nothing but rounding.
    fn picked(&mut self, place: usize, score: f32) -> Option<(usize, f32)> {
        self.first_score = self.first_score.max(score);
        (score > 0.0 && !self.is_negligible(score)).then_some((place, score))
    }

    /// Picks the next atom and takes it into the support. Returns whether there was one.
    #[inline(always)]
    fn grow_by_inner_products(
        &mut self,
        columns: &Columns,
        correlations: &[f32],
        signal: &[f32],
        inverse_norms: &[f32],
        scratch: &mut Vec<f32>,
    ) -> bool {
        let Some((place, _)) = self.candidate(columns, correlations, signal, inverse_norms, scratch) else {
            return false;
        };
        self.take(place, columns, correlations, signal);
        true
    }

    /// Picks the atom that leaves the shortest residual and takes it into the support. Returns whether there was one.
    #[inline(always)]
    fn grow_by_residual(
        &mut self,
        columns: &Columns,
        correlations: &[f32],
        signal: &[f32],
        (norms, gram): (&[f32], &[f32]),
        directions: &mut Directions,
    ) -> bool {
        if self.is_tiny() || self.is_close {
            self.correlate(columns, correlations, signal, &mut directions.correlations);
        }
        self.look_closely(columns, signal, norms, directions);
        let mut found = self.pick(&mut directions.correlations, &directions.scales);
        if found.is_none() {
            found = self.look_again(columns, signal, |state| {
                columns.correlate_with(&state.residual_by(columns, signal), &mut directions.correlations);
                state.look_closely(columns, signal, norms, directions);
                state.pick(&mut directions.correlations, &directions.scales)
            });
        }
        let Some((place, _)) = found else { return false };
        self.take(place, columns, correlations, signal);
        if !self.support.starts_with(&directions.atoms) {
            // Some have left for it: what is kept belongs to another support.
            directions.start(correlations, norms);
        }
        for index in directions.atoms.len()..self.support.len() {
            let row = &self.factor[row_of(index)..][..=index];
            directions.add(self.support[index], gram, row, self.projected[index], norms);
        }
        true
    }

    /// Correlations and norms, in `f64`, of what atoms have outside the span of the support, for those that have hardly any; for all where
    /// such an atom was taken. Atoms that have nothing outside are not available any more.
    fn look_closely(&mut self, columns: &Columns, signal: &[f32], norms: &[f32], directions: &mut Directions) {
        let all = self.has_close;
        let near = |(place, (outside, norm)): (usize, (&f32, &f32))| {
            (*norm > 0.0 && (all || outside * norm * norm <= BARELY_OUTSIDE)).then_some(place)
        };
        let near: Vec<usize> = directions.outside.iter().zip(norms).enumerate().filter_map(near).collect();
        let near: Vec<usize> = near.into_iter().filter(|place| !self.unavailable.contains(place)).collect();
        if near.is_empty() {
            return;
        }
        let before = (!self.is_close).then(|| self.clone());
        if before.is_some() {
            self.factorize_closely(columns, signal);
        }
        let signal: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        let mut dependent = Vec::new();
        let looked_at = near.len();
        for place in near {
            let close = CloseAtom::new(place, columns, &self.support, &signal);
            let row = self.overlaps(|index, _| close.inner[index]);
            let outside = close.energy - dot(&row, &row);
            let correlation = close.correlation - dot(&row, &self.projected);
            let some = outside > DEPENDENT * close.energy;
            if !some {
                dependent.push(place);
            }
            directions.scales[place] = if some { outside.sqrt().recip() as f32 } else { 0.0 };
            directions.correlations[place] = correlation as f32;
        }
        if let Some(before) = before.filter(|_| dependent.len() == looked_at) {
            // Copies of what is there already: nothing has to be known any better.
            *self = before;
        }
        self.unavailable.extend(dependent);
    }

    /// The atom that is to be taken next, and its score.
    #[inline(always)]
    fn candidate(
        &mut self,
        columns: &Columns,
        correlations: &[f32],
        signal: &[f32],
        inverse_norms: &[f32],
        scratch: &mut Vec<f32>,
    ) -> Option<(usize, f32)> {
        scratch.resize(correlations.len(), 0.0);
        self.correlate(columns, correlations, signal, scratch);
        let found = self.pick(scratch, inverse_norms);
        if found.is_some() {
            return found;
        }
        self.look_again(columns, signal, |state| {
            columns.correlate_with(&state.residual_by(columns, signal), scratch);
            state.pick(scratch, inverse_norms)
        })
    }

    /// The atom that `pick` finds once all is known in `f64`: what looks like rounding may be one that is nearly in the span of the others.
    /// Where there is none all stays as it was.
    fn look_again(
        &mut self,
        columns: &Columns,
        signal: &[f32],
        pick: impl FnOnce(&mut Self) -> Option<(usize, f32)>,
    ) -> Option<(usize, f32)> {
        if self.support.is_empty() {
            return None;
        }
        let before = (!self.is_close).then(|| self.clone());
        if before.is_some() {
            self.factorize_closely(columns, signal);
        }
        let found = pick(self);
        if let (None, Some(before)) = (found, before) {
            *self = before;
        }
        found
    }

    /// Correlations of all atoms with the residual.
    #[inline(always)]
    pub(super) fn correlate(&self, columns: &Columns, correlations: &[f32], signal: &[f32], out: &mut [f32]) {
        if self.is_tiny() || (self.is_close && self.is_small()) {
            columns.correlate_with(&self.residual_by(columns, signal), out);
        } else {
            columns.subtract_explained(correlations, &self.support, &self.rounded(), out);
        }
    }

    /// Whether so little is left that differences of correlations would be rounding.
    pub(super) fn is_tiny(&self) -> bool {
        self.residual_energy < TINY_RESIDUAL * self.energy
    }

    /// Whether so little is left beside the parts of the reconstruction, which cancel each other where atoms are close, that differences of
    /// correlations say little.
    fn is_small(&self) -> bool {
        (self.residual_energy.sqrt() as f32) < SMALL_LEFT * self.parts
    }

    /// Whether a score is no more than rounding.
    pub(super) fn is_negligible(&self, score: f32) -> bool {
        // Where inner products are not at hand the residual is.
        if !self.is_close && self.residual.is_empty() {
            return score <= NEGLIGIBLE_SCORE * self.first_score;
        }
        let left = self.residual_energy.sqrt() as f32;
        left <= ROUNDING * self.parts || score <= NEGLIGIBLE_SCORE * left || self.refusals >= REFUSALS
    }

    /// Takes an atom into the support. Returns whether it made the residual shorter: not where it depends on the support.
    #[inline(always)]
    pub(super) fn take(&mut self, place: usize, columns: &Columns, correlations: &[f32], signal: &[f32]) -> bool {
        if self.is_close {
            return self.take_closely(place, columns, signal);
        }
        // Rows of the support are at hand already.
        let admission = self.admit(
            place,
            f64::from(columns.inner(place, place)),
            f64::from(correlations[place]),
            #[inline(always)]
            |_, other| f64::from(columns.inner(other, place)),
        );
        match admission {
            Admission::Close => {
                self.factorize_closely(columns, signal);
                return self.take_closely(place, columns, signal);
            }
            Admission::Refused => return false,
            Admission::Admitted { .. } => {}
        }
        let explained: f64 = self.projected.iter().map(|value| value * value).sum();
        self.residual_energy = self.energy - explained;
        if self.residual_energy < SMALL_RESIDUAL * self.energy {
            self.residual_energy = energy(&self.residual_by(columns, signal));
        }
        true
    }

    /// [`Self::take`] with inner products in `f64`. An atom whose code, as it is written, would leave no less than the one before is
    /// ruled out.
    fn take_closely(&mut self, place: usize, columns: &Columns, signal: &[f32]) -> bool {
        let wide: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        let atom = CloseAtom::new(place, columns, &self.support, &wide);
        let before = self.clone();
        let admission = self.admit(place, atom.energy, atom.correlation, |index, _| atom.inner[index]);
        if matches!(admission, Admission::Admitted { .. }) {
            self.measure_closely(columns, signal);
            if self.residual_energy < (1.0 - GAIN) * before.residual_energy {
                // What gained nothing beside the others may do so now.
                self.unavailable.clone_from(&self.support);
                self.refusals = 0;
                self.has_close |= self.factor.last().is_some_and(|outside| outside * outside <= CLOSE * atom.energy);
                return true;
            }
            *self = before;
            self.unavailable.push(place);
        }
        self.refusals += 1;
        false
    }

    /// Factor and coefficients of the support anew, by inner products in `f64`.
    fn factorize_closely(&mut self, columns: &Columns, signal: &[f32]) {
        self.is_close = true;
        let wide: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        let support = std::mem::take(&mut self.support);
        self.factor.clear();
        self.projected.clear();
        for (index, &place) in support.iter().enumerate() {
            let atom = CloseAtom::new(place, columns, &support[..index], &wide);
            let row = self.overlaps(|index, _| atom.inner[index]);
            // What single precision has taken for independent is.
            let outside = (atom.energy - dot(&row, &row)).max(DEPENDENT * atom.energy).sqrt();
            self.projected.push((atom.correlation - dot(&row, &self.projected)) / outside);
            self.factor.extend(row);
            self.factor.push(outside);
            self.support.push(place);
        }
        let before = std::mem::take(&mut self.coefficients);
        self.solve();
        // Where coefficients are kept non-negative they may have been so by rounding only.
        if self.nonnegative {
            self.make_feasible(before);
        }
        self.measure_closely(columns, signal);
    }

    /// The residual that the code leaves as it is written, and how long the parts of the reconstruction are.
    fn measure_closely(&mut self, columns: &Columns, signal: &[f32]) {
        self.residual_energy = energy(&self.residual_by(columns, signal));
        let part = |(&place, value): (&usize, &f64)| value.abs() as f32 * columns.inner(place, place).sqrt();
        self.parts = self.support.iter().zip(&self.coefficients).map(part).sum();
    }

    pub(super) fn rounded(&self) -> Vec<f32> {
        self.coefficients.iter().map(|&value| value as f32).collect()
    }

    #[inline(always)]
    fn residual_by(&self, columns: &Columns, signal: &[f32]) -> Vec<f32> {
        if !self.is_close {
            return columns.residual(signal, &self.support, &self.rounded());
        }
        let mut residual: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        let negative = self.coefficients.iter().map(|&value| -f64::from(value as f32));
        columns.add_wide(self.support.iter().copied().zip(negative), &mut residual);
        residual.into_iter().map(|sample| sample as f32).collect()
    }

    /// Takes an atom into the support, given its column of D^(L).
    fn grow_by_atom(&mut self, place: usize, atom: &[f32], mask: Option<&[f32]>, signal: &[f32]) {
        let atom: Vec<f32> = match mask {
            Some(mask) => atom.iter().zip(mask).map(|(entry, mask)| entry * mask).collect(),
            None => atom.to_vec(),
        };
        let correlation = atom.iter().zip(signal).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let picked = std::mem::take(&mut self.picked);
        let inner = |index: usize, _| {
            picked[index].iter().map(|&(at, entry)| f64::from(entry) * f64::from(atom[at as usize])).sum()
        };
        let mut before = None;
        let mut admission = match self.is_close {
            true => Admission::Close,
            false => self.admit(place, energy(&atom), correlation, inner),
        };
        if matches!(admission, Admission::Close) {
            // Inner products are in `f64` already.
            self.is_close = true;
            before = Some(Self { picked: picked.clone(), ..self.clone() });
            admission = self.admit(place, energy(&atom), correlation, inner);
        }
        self.picked = picked;
        let Admission::Admitted { left } = admission else {
            self.refusals += usize::from(self.is_close);
            return;
        };
        let nonzeros = atom.iter().enumerate().filter(|(_, entry)| **entry != 0.0);
        self.picked.push(nonzeros.map(|(at, &entry)| (at as u32, entry)).collect());
        left.into_iter().for_each(|index| drop(self.picked.remove(index)));
        let mut residual: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        for (atom, value) in self.picked.iter().zip(&self.coefficients) {
            // As it is written.
            let value = f64::from(*value as f32);
            atom.iter().for_each(|&(at, entry)| residual[at as usize] -= value * f64::from(entry));
        }
        self.residual_energy = residual.iter().map(|sample| sample * sample).sum();
        if let Some(before) = before {
            if self.residual_energy >= (1.0 - GAIN) * before.residual_energy {
                *self = before;
                self.unavailable.push(place);
                self.refusals += 1;
                return;
            }
            self.unavailable.clone_from(&self.support);
        }
        self.refusals = 0;
        let part = |(atom, value): (&Vec<(u32, f32)>, &f64)| {
            let energy: f64 = atom.iter().map(|&(_, entry)| f64::from(entry).powi(2)).sum();
            (value.abs() * energy.sqrt()) as f32
        };
        self.parts = self.picked.iter().zip(&self.coefficients).map(part).sum();
        self.residual = residual.into_iter().map(|sample| sample as f32).collect();
    }

    /// Takes an atom of that energy and correlation with the signal into the support and solves for all coefficients; `inner` gives
    /// its inner product with an atom of the support, by index and place. Where it is refused all is as it was, but that the atom is
    /// unavailable.
    #[inline(always)]
    fn admit(&mut self, place: usize, energy: f64, correlation: f64, inner: impl Fn(usize, usize) -> f64) -> Admission {
        let start = self.factor.len();
        self.push_overlaps(inner);
        let row = &self.factor[start..];
        let left = energy - dot(row, row);
        if !self.is_close && left <= CLOSE * energy {
            self.factor.truncate(start);
            return Admission::Close;
        }
        self.unavailable.push(place);
        if left <= DEPENDENT * energy {
            self.factor.truncate(start);
            return Admission::Refused;
        }
        self.projected.push((correlation - dot(row, &self.projected)) / left.sqrt());
        self.factor.push(left.sqrt());
        self.support.push(place);
        let before = if self.nonnegative { self.coefficients.clone() } else { Vec::new() };
        self.solve();
        let left = match self.nonnegative && self.coefficients.iter().any(|value| *value <= 0.0) {
            true => match self.keep_nonnegative(before) {
                Some(left) => left,
                None => return Admission::Refused,
            },
            false => Vec::new(),
        };
        self.picks += 1;
        Admission::Admitted { left }
    }

    /// One more row of the factor, but for its last entry: the overlaps of an atom with the directions of the support, which a
    /// triangular system gives.
    #[inline(always)]
    fn push_overlaps(&mut self, inner: impl Fn(usize, usize) -> f64) {
        let start = self.factor.len();
        for (index, &other) in self.support.iter().enumerate() {
            let earlier = row_of(index);
            let known = dot(&self.factor[start..], &self.factor[earlier..][..index]);
            let value = (inner(index, other) - known) / self.factor[earlier + index];
            self.factor.push(value);
        }
    }

    /// [`Self::push_overlaps`], the row taken out again.
    fn overlaps(&mut self, inner: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let start = self.factor.len();
        self.push_overlaps(inner);
        self.factor.split_off(start)
    }

    /// Least squares coefficients on the support, by back substitution.
    #[inline(always)]
    fn solve(&mut self) {
        self.coefficients.clone_from(&self.projected);
        for last in (0..self.support.len()).rev() {
            let row = &self.factor[row_of(last)..][..=last];
            let value = self.coefficients[last] / row[last];
            self.coefficients[last] = value;
            self.coefficients[..last].iter_mut().zip(row).for_each(|(earlier, entry)| *earlier -= entry * value);
        }
    }

    /// Energy of the signal in the span of the support.
    fn explained(&self) -> f64 {
        dot(&self.projected, &self.projected)
    }

    /// Non-negative least squares once an atom has joined the support, `before` being the coefficients of the others until then. Returns
    /// the places in the support that became free, in the order in which they were left; `None`, and all as it was before, where
    /// the residual would not become shorter.
    fn keep_nonnegative(&mut self, before: Vec<f64>) -> Option<Vec<usize>> {
        let (support, factor, projected) = (self.support.clone(), self.factor.clone(), self.projected.clone());
        let mut feasible = before.clone();
        feasible.push(0.0);
        let left = self.make_feasible(feasible);
        let size = support.len() - 1;
        if self.explained() > (1.0 + GAIN) * dot(&projected[..size], &projected[..size]) {
            // What depended on atoms that have left need not any more.
            self.unavailable.clone_from(&self.support);
            return Some(left);
        }
        (self.support, self.factor, self.projected) = (support, factor, projected);
        self.support.truncate(size);
        self.factor.truncate(row_of(size));
        self.projected.truncate(size);
        self.coefficients = before;
        None
    }

    /// Non-negative least squares on the support: from coefficients that are not negative towards the unconstrained ones, atoms leaving
    /// where they become zero. Returns the places in the support that became free, in the order in which they were left.
    fn make_feasible(&mut self, mut feasible: Vec<f64>) -> Vec<usize> {
        let mut left = Vec::new();
        loop {
            // How far towards the unconstrained coefficients the first becomes zero.
            let part = |present: f64, wanted: f64| if present > 0.0 { present / (present - wanted) } else { 0.0 };
            let pairs = feasible.iter().zip(&self.coefficients).enumerate().filter(|(_, (_, wanted))| **wanted <= 0.0);
            let parts = pairs.map(|(index, (&present, &wanted))| (index, part(present, wanted)));
            let Some((first, step)) = parts.min_by(|a, b| a.1.total_cmp(&b.1)) else { return left };
            for (present, &wanted) in feasible.iter_mut().zip(&self.coefficients) {
                *present += step * (wanted - *present);
            }
            for index in (0..self.support.len()).rev() {
                if index == first || (self.coefficients[index] <= 0.0 && feasible[index] <= 0.0) {
                    self.remove(index);
                    feasible.remove(index);
                    self.coefficients.remove(index);
                    left.push(index);
                }
            }
            self.solve();
        }
    }

    /// Takes an atom out of the support, by its index there. Without its row the factor has one column too many, which rotations of
    /// neighbouring columns make zero.
    fn remove(&mut self, index: usize) {
        let size = self.support.len();
        let mut rows: Vec<Vec<f64>> =
            (index + 1..size).map(|row| self.factor[row_of(row)..][..=row].to_vec()).collect();
        self.factor.truncate(row_of(index));
        for first in 0..rows.len() {
            let column = index + first;
            let (one, other) = (rows[first][column], rows[first][column + 1]);
            let length = one.hypot(other);
            let (cosine, sine) = (one / length, other / length);
            let rotate = |values: &mut [f64]| {
                let (one, other) = (values[column], values[column + 1]);
                values[column] = cosine * one + sine * other;
                values[column + 1] = cosine * other - sine * one;
            };
            rows[first..].iter_mut().for_each(|row| rotate(row));
            rotate(&mut self.projected);
            self.factor.extend_from_slice(&rows[first][..=column]);
        }
        self.support.remove(index);
        self.projected.truncate(size - 1);
    }
}

/// The orthonormal directions that a support has gained, as all atoms see them.
#[derive(Default)]
struct Directions {
    /// The atoms that they were gained by, in turn.
    atoms: Vec<usize>,
    /// Inner products of every direction with all atoms, one row each.
    rows: Vec<f32>,
    /// Squared norms of what the atoms have outside the span of the support.
    outside: Vec<f32>,
    /// 1/√ of these, 0 where nothing but rounding is outside.
    scales: Vec<f32>,
    /// Correlations with the residual.
    correlations: Vec<f32>,
    factors: Vec<f32>,
    /// 0, 1, …, as many.
    places: Vec<usize>,
}

impl Directions {
    /// Begins with no direction.
    #[inline(always)]
    fn start(&mut self, correlations: &[f32], norms: &[f32]) {
        self.atoms.clear();
        self.places.clear();
        self.correlations.clear();
        self.correlations.extend_from_slice(correlations);
        self.outside.clear();
        self.outside.extend(norms.iter().map(|norm| if *norm > 0.0 { 1.0 / (norm * norm) } else { 0.0 }));
        self.scales.clear();
        self.scales.extend_from_slice(norms);
    }

    /// One more: that of an atom whose row of the Cholesky factor is `row`; `projected` is the signal's inner product with it.
    #[inline(always)]
    fn add(&mut self, atom: usize, gram: &[f32], row: &[f64], projected: f64, norms: &[f32]) {
        let (len, count) = (norms.len(), self.atoms.len());
        let inner = &gram[atom * len..][..len];
        let Some((&length, overlaps)) = row.split_last() else { return };
        self.factors.clear();
        self.factors.extend(overlaps.iter().map(|value| *value as f32));
        self.rows.resize(self.rows.len().max((count + 1) * len), 0.0);
        let (earlier, new) = self.rows.split_at_mut(count * len);
        let new = &mut new[..len];
        subtract_rows(earlier, &self.places, &self.factors, inner, new);
        let (inverse, projected) = ((1.0 / length) as f32, projected as f32);
        let atoms = new.iter_mut().zip(&mut self.outside).zip(self.scales.iter_mut().zip(&mut self.correlations));
        for (((new, outside), (scale, correlation)), norm) in atoms.zip(norms) {
            *new *= inverse;
            *outside -= *new * *new;
            *correlation -= projected * *new;
            let some = *outside * norm * norm > BARELY_OUTSIDE;
            *scale = if some { 1.0 / outside.max(f32::MIN_POSITIVE).sqrt() } else { 0.0 };
        }
        self.places.push(count);
        self.atoms.push(atom);
    }
}

/// What became of an atom that was to join the support.
enum Admission {
    /// It was taken in.
    Admitted {
        /// The places in the support that atoms have left for it, in the order in which they did.
        left: Vec<usize>,
    },
    /// It is not independent of the support, or non-negative coefficients gain nothing by it.
    Refused,
    /// It is nearly in the span of the support: inner products have to be known better. Nothing has changed.
    Close,
}

/// An atom's inner products with itself, the signal and the support, in `f64`.
struct CloseAtom {
    energy: f64,
    correlation: f64,
    inner: Vec<f64>,
}

impl CloseAtom {
    fn new(place: usize, columns: &Columns, support: &[usize], signal: &[f64]) -> Self {
        let mut samples = vec![0.0; signal.len()];
        columns.add_wide([(place, 1.0)].into_iter(), &mut samples);
        let mut inner = vec![0.0; support.len()];
        columns.inner_wide_each(support, &samples, &mut inner);
        Self { energy: dot(&samples, &samples), correlation: dot(&samples, signal), inner }
    }
}

/// Correlation relative to the atom's norm: in magnitude, or as it is where codes are non-negative.
#[inline(always)]
pub(super) fn score_of(correlation: f32, scale: f32, nonnegative: bool) -> f32 {
    let score = correlation * scale;
    if nonnegative { score } else { score.abs() }
}

/// Largest correlation relative to the atom's norm; 0 where none is positive.
#[inline(always)]
fn largest_score(correlations: &[f32], scales: &[f32], nonnegative: bool) -> f32 {
    let ((correlations, rest), (scales, rest_of_scales)) =
        (correlations.as_chunks::<LANES>(), scales.as_chunks::<LANES>());
    let mut largest = [0.0f32; LANES];
    for (correlations, scales) in correlations.iter().zip(scales) {
        for (largest, (correlation, scale)) in largest.iter_mut().zip(correlations.iter().zip(scales)) {
            let score = score_of(*correlation, *scale, nonnegative);
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let rest = rest.iter().zip(rest_of_scales).map(|(correlation, scale)| score_of(*correlation, *scale, nonnegative));
    rest.chain(largest).fold(0.0, f32::max)
}

/// Where a row of a packed triangle starts.
fn row_of(index: usize) -> usize {
    index * (index + 1) / 2
}

/// Columns of D^(L) that are made at once for a least squares problem.
const COLUMNS_AT_ONCE: usize = 64;

/// The columns of D^(L) on a support, masked, in `f64`, one after the other.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn support_columns(
    operator: &Operator,
    mask: Option<&[f32]>,
    support: &[usize],
    work: &Work,
) -> Result<Vec<f64>> {
    let len = operator.signal().len();
    let mut columns: Vec<f64> = Vec::with_capacity(support.len() * len);
    for places in support.chunks(COLUMNS_AT_ONCE) {
        work.check()?;
        columns.extend(to_host(operator.columns(places)).into_iter().map(f64::from));
    }
    if let Some(mask) = mask {
        for column in columns.chunks_exact_mut(len) {
            column.iter_mut().zip(mask).for_each(|(entry, &mask)| *entry *= f64::from(mask));
        }
    }
    Ok(columns)
}

/// Least squares coefficients of a signal on columns as long as itself; never such that, written as `f32`, they leave more than zeros do.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn least_squares(columns: &[f64], signal: &[f32], work: &Work) -> Result<Vec<f64>> {
    let columns: Vec<&[f64]> = columns.chunks_exact(signal.len().max(1)).collect();
    let size = columns.len();
    let mut left: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
    let mut gram = vec![0.0; size * size];
    for i in 0..size {
        work.check()?;
        for j in 0..=i {
            let inner = dot(columns[i], columns[j]);
            gram[i * size + j] = inner;
            gram[j * size + i] = inner;
        }
    }
    let mut values = vec![0.0; size];
    let mut before = dot(&left, &left);
    // The ridge that keeps dependent columns finite holds back what nearly dependent ones explain: what is left is solved for again.
    for round in 0..CORRECTIONS {
        let mut change: Vec<f64> = columns.iter().map(|column| dot(column, &left)).collect();
        match round {
            0 => solve_normal_equations_until(&mut gram, &mut change, || work.is_cancelled()),
            _ => solve_factorized(&gram, &mut change, 1),
        }
        work.check()?;
        let changed: Vec<f64> = values.iter().zip(&change).map(|(value, change)| value + change).collect();
        let rest = left_by(&columns, &changed, signal);
        let energy = dot(&rest, &rest);
        // NaN is no less, either.
        if energy.partial_cmp(&before) != Some(std::cmp::Ordering::Less) {
            break;
        }
        values = changed;
        if energy >= (1.0 - GAIN) * before {
            break;
        }
        (left, before) = (rest, energy);
    }
    Ok(values)
}

/// What coefficients leave of a signal once they are written as `f32`.
pub(super) fn left_by(columns: &[&[f64]], values: &[f64], signal: &[f32]) -> Vec<f64> {
    let mut left: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
    for (column, value) in columns.iter().zip(values) {
        let value = f64::from(*value as f32);
        left.iter_mut().zip(*column).for_each(|(sample, entry)| *sample -= value * entry);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{LayerShape, Pair, SignalShape};
    use crate::model::{Mlcsc, ModelConfig, OperatorForm};

    /// Of atoms that correlate equally the first is taken, by inner products and by analysis. All numbers are exact.
    #[test]
    fn of_equal_atoms_the_first_is_taken() {
        let device = crate::device::named(None).unwrap();
        let shape = SignalShape::new(1, 1, 3);
        // e_1, e_2, e_2 again, −e_2, e_3.
        let atoms = [[1.0f32, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]];
        let filters = Tensor::from_data(TensorData::new(atoms.concat(), [5, 1, 1, 3]), &device);
        let config = ModelConfig::new(shape, vec![LayerShape::new(5, Pair([1, 3]), 1)]);
        let model = Mlcsc::from_filters(config, vec![filters]).unwrap();
        for way in [OperatorForm::Gram, OperatorForm::Cascade] {
            let operator = model.operator(shape, way).unwrap();
            for (signal, nonzeros, expected) in [
                ([0.0f32, 2.0, 0.0], 1, [0.0f32, 2.0, 0.0, 0.0, 0.0]),
                ([0.0, 2.0, 1.0], 2, [0.0, 2.0, 0.0, 0.0, 1.0]),
                ([1.0, 1.0, -1.0], 1, [1.0, 0.0, 0.0, 0.0, 0.0]),
                ([0.5, 1.0, -1.0], 2, [0.0, 1.0, 0.0, 0.0, -1.0]),
            ] {
                let signals = Tensor::from_data(TensorData::new(signal.to_vec(), [1, 1, 1, 3]), &device);
                let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap();
                let found = pursuit.pursue(&operator, signals, &Lambda::Absolute(0.0)).unwrap();
                assert_eq!(to_host(found.codes), expected, "{way}: {nonzeros} non-zeros of {signal:?}");
            }
        }
    }

    /// Coefficients that cancel beyond the digits of `f32` are not taken.
    #[test]
    fn least_squares_on_copies_leave_no_more_than_zeros() {
        for apart in [0.0, 1e-17, 1e-12, 1e-9, 1e-7, 1e-4] {
            let columns = [1.0, 0.0, 0.0, 1.0, apart, 0.0];
            for signal in [[0.0f32, 1.0, 0.0], [1.0, 1.0, 0.5], [3.0, 0.0, 0.0]] {
                let found = least_squares(&columns, &signal, &Work::new(None, 1)).unwrap();
                let left = left_by(&[&columns[..3], &columns[3..]], &found, &signal);
                let energy: f64 = signal.iter().map(|&sample| f64::from(sample).powi(2)).sum();
                assert!(dot(&left, &left) <= energy, "{apart:e}: {found:?}");
            }
        }
    }

    #[test]
    fn least_squares_recovers_a_combination() {
        // Atoms (2, 0, 0) and (0, 1, 1).
        let found = least_squares(&[2.0, 0.0, 0.0, 0.0, 1.0, 1.0], &[3.0, -2.0, -2.0], &Work::new(None, 1)).unwrap();
        assert!((found[0] - 1.5).abs() < 1e-6 && (found[1] + 2.0).abs() < 1e-6, "{found:?}");
    }
}
