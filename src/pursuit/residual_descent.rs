//! Basis pursuit over convolutional dictionaries by descent on the residual: for images, whose codes are too long for tables of
//! inner products.
//!
//! The residual y − Dγ is kept up to date, so that looking at a coefficient is one inner product with a window of it and moving
//! one is adding an atom to it, whatever the number of atoms. The code is cut into small blocks, and work is done block by block,
//! on a working set of coefficients each:
//!
//! 1. Dᵀ(y − Dγ) on the block ([`Convolution`](crate::kernels::convolution::Convolution)) says which coefficients violate optimality.
//!    The strongest of every small cell join the set: neighbours of a violator mostly violate for the same reason.
//! 2. Coordinate descent passes over the set, forth and back (J. Friedman, T. Hastie, R. Tibshirani, "Regularization paths for
//!    generalized linear models via coordinate descent", J. Stat. Software 33(1), 2010).
//! 3. Shifted atoms are so alike that this alone settles slowly: conjugate gradients minimise over the non-zeros with their signs
//!    held, and the step is taken up to where coefficients would change sign, which become zero (R. Byrd, G. Chin, J. Nocedal,
//!    F. Oztoprak, "A family of second-order methods for convex ℓ1-regularized optimization", Math. Programming 159, 2016).
//!
//! How long that takes depends on what a block shows, not on how large the picture around it is: each has steps of its own, and is
//! left alone when its part of the duality gap is small enough. From round to round the blocks move, so that what
//! is split by a border in one is together in another. When the parts are small enough in sum, the gap of the whole is computed from
//! scratch, and it alone decides whether the pursuit ends.
//!
//! Blocks of the same colour of a chessboard share no sample with each other and are worked on in parallel, with results that do
//! not depend on the number of threads. All that runs on the host's cores. On a GPU a kernel works by coordinate descent on the correlations
//! first (`on_gpu`), and what is open after it is done here. Should it come to a standstill before the
//! gap is reached, as it may where many atoms are nearly equal, another algorithm goes on from there, which the report names:
//! coordinate descent where the atoms' inner products are few enough for it, else FISTA.

mod dictionary;
mod member;
mod picture;

use self::dictionary::Dictionary;
use self::member::WorkingSet;
use self::picture::{Newcomers, Picture, Progress, look_everywhere};
#[cfg(feature = "cube")]
use super::handover::go_on;
use super::handover::hand_over;
use super::observer::{Closing, Work, interrupted};
use super::{Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::{Error, Result};
use crate::kernels::sparse::{HostFilters, nonzeros};
use crate::model::Operator;
use crate::pursuit::columns;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Descent on the residual with checked parameters.
#[derive(Debug, Clone)]
pub struct ResidualDescent {
    config: BasisPursuitConfig,
}

/// Whether descent on the residual can work with an operator, and positions share enough for it to be worth it.
pub(super) fn suits(operator: &Operator) -> bool {
    operator.geometry().effective_is_convolution() && !operator.code().is_single_position()
}

/// Code positions from which on descent on the residual is faster than coordinate descent with the atoms' inner products:
/// `cargo bench --bench convolution -- coding` has it slower with 9 positions and faster with 49.
const MANY_POSITIONS: usize = 36;

/// Whether it is what an operator should be given to though the atoms' inner products could be had.
pub(super) fn pays(operator: &Operator) -> bool {
    suits(operator) && operator.code().height * operator.code().width >= MANY_POSITIONS
}

/// Passes, each forth and back, between two looks at all coefficients.
const PASSES: usize = 2;

/// Iterations of conjugate gradients at most, and the part of the squared gradient at which they end: while the working set grows,
/// and when it has settled.
const GROWING: (usize, f64) = (20, 1e-2);
const SETTLED: (usize, f64) = (100, 1e-4);

/// Rounds in a row, of a working set that has settled, in which conjugate gradients are given more iterations: twice as many as in
/// the one before, for a tenth of what they left.
const EFFORTS: u32 = 4;

/// Passes forth or back on a block between two looks at most.
const MOST_SWEEPS: usize = 12;

/// The working set has settled when fewer than one in so many members are new.
const NEWCOMERS: usize = 64;

/// Rounds after which the pursuit has come to a standstill if the gap has not fallen to this part of what it was, and the objective
/// has not fallen by this part of the gap: for a single block, and for larger pictures, where giving up costs most.
const STANDSTILL: [(usize, f64); 2] = [(30, 0.7), (64, 0.8)];
const LESS_OBJECTIVE: f64 = 0.02;

/// What was found for one signal.
struct Found {
    report: SignalReport,
    /// Whether it came to a standstill.
    stands_still: bool,
}

impl Pursuit for ResidualDescent {
    fn name(&self) -> &'static str {
        "residual-descent"
    }

    /// Takes λ, weights of the deepest layer's atoms, masks, and codes to start from; an operator that is one convolution.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        problem.check_values()?;
        #[cfg(feature = "cube")]
        if !crate::device::is_host(&problem.operator().device()) {
            return super::magnitude::at_fair_size(problem, |problem| {
                match super::on_gpu::pictures(problem, &self.config)? {
                    Some((found, open)) => {
                        go_on(problem, Algorithm::ResidualDescent, &open, found, |part| self.on_host(part))
                    }
                    None => self.on_host(problem),
                }
            });
        }
        self.on_host(problem)
    }
}

impl ResidualDescent {
    /// On the host's cores, whatever the device.
    fn on_host(&self, problem: &Problem) -> Result<Pursued> {
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let Some(geometry) = operator.geometry().effective_layer() else {
            let expected = "another one where a layer after the first has padding, so that D^(L) is no convolution";
            return Err(Error::parameter("algorithm", self.name(), expected));
        };
        let weights = problem.atom_weights(problem.depth());
        let dictionary = Dictionary::new(&HostFilters::from_tensor(operator.effective_filters()), &geometry, weights);
        let (signals, mask, count) = (to_host(problem.signals()), problem.mask().map(to_host), problem.count());
        let (signal_len, code_len) = (geometry.signal.len(), geometry.code.len());
        let BasisPursuitConfig { nonnegative, .. } = self.config;
        let signal = |row: usize| &signals[row * signal_len..][..signal_len];
        let largest: Vec<f32> = match lambda {
            Lambda::Relative(_) => (0..count)
                .into_par_iter()
                .map(|row| largest_correlation(&dictionary, signal(row), nonnegative))
                .collect(),
            _ => vec![0.0; count],
        };
        let lambda = lambda.resolve(&largest)?;
        let mut codes = match problem.has_start() {
            true => to_host(problem.start()),
            false => vec![0.0; count * code_len],
        };
        if nonnegative {
            codes.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        let work = problem.work();
        // Inside the pool, for from outside every one of thousands of short parallel loops would wake it up.
        let found = rayon::scope(|_| {
            codes
                .par_chunks_exact_mut(code_len)
                .enumerate()
                .map(|(row, code)| {
                    let mask = mask.as_ref().map(|mask| &mask[row * signal_len..][..signal_len]);
                    self.pursue_one(&dictionary, signal(row), mask, lambda[row], code, &work)
                })
                .collect::<Option<Vec<Found>>>()
        });
        let found = found.ok_or_else(interrupted)?;
        let still: Vec<usize> = (0..count).filter(|&row| found[row].stands_still).collect();
        let reports: Vec<SignalReport> = found.into_iter().map(|found| found.report).collect();
        let data = TensorData::new(codes, operator.code().batched(reports.len()));
        let found = Pursued::consistent(Tensor::from_data(data, &operator.device()), reports);
        let held = columns::suits_descent(operator, problem.is_plain()) || columns::can_be_held(operator);
        let table = held && !problem.has_separate_masks();
        let heir = if table { Algorithm::CoordinateDescent } else { Algorithm::Fista };
        hand_over(problem, &self.config, heir, &still, found)
    }
}

/// λ_max.
fn largest_correlation(dictionary: &Dictionary, signal: &[f32], nonnegative: bool) -> f32 {
    let of_look = [f32::INFINITY, if nonnegative { 0.0 } else { -1.0 }];
    let seen = look_everywhere(dictionary, &dictionary.image(signal), of_look);
    seen.iter().flatten().fold(0.0, |largest, seen| seen.largest.max(largest))
}

impl ResidualDescent {
    /// With that gap, that many sweeps at most, and that sign.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn new(config: BasisPursuitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }

    /// Codes one signal, from the code that is there. `None` if it was cancelled.
    fn pursue_one(
        &self,
        dictionary: &Dictionary,
        signal: &[f32],
        mask: Option<&[f32]>,
        lambda: f32,
        code: &mut [f32],
        work: &Work,
    ) -> Option<Found> {
        let BasisPursuitConfig { gap, max_iterations, nonnegative } = self.config;
        let gap = f64::from(gap);
        let cancelled = || work.is_cancelled();
        let mut picture = Picture::new(dictionary, signal, mask, lambda, nonnegative);
        picture.admit(nonzeros(code));
        // What the tiles' parts of the gap may come to.
        let mut goal = gap;
        let (mut sweeps, mut round) = (0, 0);
        let (mut last_look, mut closing) = (None, Closing::default());
        loop {
            let blocks = dictionary.blocks(round);
            // What the gap is computed from starts afresh; a single block is all that there is to be certified.
            let mut fresh = round == 0 || dictionary.is_one_block();
            let last = sweeps >= max_iterations;
            let estimate = loop {
                if fresh {
                    picture.refresh();
                }
                if !picture.look(&cancelled) {
                    return None;
                }
                let estimate = picture.estimate();
                if fresh || !(last || estimate.gap <= goal * estimate.objective) {
                    break estimate;
                }
                fresh = true;
            };
            let relative = estimate.gap / estimate.objective.max(f64::MIN_POSITIVE);
            let (looked_at, before) = *last_look.get_or_insert((round, (relative, estimate.objective)));
            let (rounds, factor) = STANDSTILL[usize::from(!dictionary.is_one_block())];
            let mut stands_still = false;
            // Without a penalty the gap says nothing until the signal is explained.
            if lambda > 0.0 && round >= looked_at + rounds {
                let fallen = before.1 - estimate.objective;
                stands_still = relative > factor * before.0 && fallen < LESS_OBJECTIVE * estimate.gap;
                last_look = Some((round, (relative, estimate.objective)));
            }
            if fresh || last || stands_still {
                if !fresh {
                    picture.refresh();
                    if !picture.look(&cancelled) {
                        return None;
                    }
                }
                let close = relative <= goal || last || stands_still;
                let certificate = picture.certify(gap, close);
                let converged = certificate.relative_gap() <= gap;
                if converged || last || stands_still {
                    picture.write(code);
                    work.advance(closing.finish());
                    let report = SignalReport {
                        lambda,
                        iterations: sweeps,
                        objective: certificate.objective as f32,
                        relative_gap: certificate.relative_gap() as f32,
                        data_term: certificate.data_term as f32,
                        nonzeros: picture.nonzeros(),
                        stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                        finished_by: None,
                    };
                    return Some(Found { report, stands_still: stands_still && !converged });
                }
                // The parts promised more than the whole keeps.
                while relative > 0.0 && relative <= goal {
                    goal *= 0.5;
                }
            }
            work.advance(closing.to(relative, gap));
            let left = max_iterations - sweeps;
            let mut most = 0;
            for colour in 0..4 {
                let open: Vec<_> = blocks
                    .iter()
                    .filter(|block| block.colour == colour && (relative == 0.0 || picture.is_open(block, goal)))
                    .collect();
                let worked: Vec<_> = open
                    .par_iter()
                    .with_max_len(1)
                    .map(|block| {
                        let round = |set: &mut WorkingSet, newcomers| improve(set, newcomers, left);
                        (!cancelled()).then(|| picture.work(block, round))
                    })
                    .collect();
                for (block, worked) in open.into_iter().zip(worked) {
                    most = most.max(picture.accept(block, worked?));
                }
            }
            sweeps += most.max(1);
            round += 1;
        }
    }
}

/// The work on a block between two looks: passes, then conjugate gradients, and that again as long as it costs less than a look;
/// `left` passes forth or back at most. Returns the number of times in a row that the working set was settled, and that of passes.
fn improve(set: &mut WorkingSet, newcomers: Newcomers, left: usize) -> Progress {
    let is_settled = newcomers.count * NEWCOMERS < set.members.len() - newcomers.count;
    let settled = if is_settled { newcomers.settled + 1 } else { 0 };
    let effort = EFFORTS.min(settled.max(1) - 1);
    let (iterations, tolerance) = if is_settled { SETTLED } else { GROWING };
    let (iterations, tolerance) = (iterations << effort, tolerance * 0.1f64.powi(effort as i32));
    let (mut progress, mut products) = (Progress { settled, sweeps: 0 }, 0);
    loop {
        for pass in 0..PASSES {
            let turns = (left - progress.sweeps).min(2);
            set.pass(pass > 0, turns);
            progress.sweeps += turns;
            products += turns * set.members.len();
        }
        let (moved, steps) = set.minimize_on_support(iterations, tolerance);
        products += 2 * steps * set.members.len();
        if !moved {
            progress.settled = 0;
        }
        if !moved || progress.sweeps >= left.min(MOST_SWEEPS) || 2 * products > newcomers.looked_at {
            set.forget();
            return progress;
        }
    }
}
