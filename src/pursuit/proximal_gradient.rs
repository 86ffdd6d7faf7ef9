//! ISTA and FISTA for basis pursuit on the effective dictionary, batched.
//!
//! γ ← S_{λ/ℓ}(z − Dᵀ(Dz − y)/ℓ) with ℓ a certified bound of ‖D‖². ISTA takes z = γ; FISTA extrapolates
//! (A. Beck, M. Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sciences 2(1), 2009) and
//! restarts a signal's momentum when it points uphill (B. O'Donoghue, E. Candès, "Adaptive restart for accelerated gradient
//! schemes", Found. Comput. Math. 15, 2015). Every few iterations the duality gap of every signal is computed from its true
//! residual; finished signals leave the batch, so that they cost nothing any more.

use super::duality::{Certificate, Sums};
use super::magnitude::at_fair_size;
use super::observer::{Closing, Work};
use super::{
    BasisPursuitConfig, Learned, Problem, Pursued, Pursuit, SignalReport, StopReason, Unrolled, in_order, largest,
    masked, take_rows, to_host, weighted,
};
use crate::error::{Error, Result};
use crate::kernels::proximal::{accelerated_step, extrapolation, proximal_step};
use crate::model::{Operator, OperatorForm, leaf};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Plain or accelerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceleration {
    /// ISTA.
    Ista,
    /// FISTA.
    Fista,
}

/// Parameters of [`ProximalGradient`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProximalGradientConfig {
    /// Plain or accelerated.
    pub acceleration: Acceleration,
    /// Gap, iterations, sign.
    pub basis: BasisPursuitConfig,
    /// Iterations between two looks at the duality gap, at least 1. Default 10: a look costs about one iteration.
    pub check_every: usize,
    /// Whether FISTA's momentum restarts when it points uphill. Default yes.
    pub restart: bool,
}

impl ProximalGradientConfig {
    /// With the defaults.
    pub fn new(acceleration: Acceleration) -> Self {
        Self { acceleration, basis: BasisPursuitConfig::default(), check_every: 10, restart: true }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`]; `check_every` of 0.
    pub fn init(self) -> Result<ProximalGradient> {
        self.basis.check()?;
        if self.check_every == 0 {
            return Err(Error::parameter("check_every", 0, "at least 1"));
        }
        Ok(ProximalGradient { config: self })
    }
}

/// ISTA or FISTA with checked parameters.
#[derive(Debug, Clone)]
pub struct ProximalGradient {
    config: ProximalGradientConfig,
}

/// What the iterations compute with: tensors alone, so that a step takes no decision on the host.
struct State {
    signals: Tensor<2>,
    mask: Option<Tensor<2>>,
    /// Weights of the atoms, `[1, code values]`.
    weights: Option<Tensor<2>>,
    /// Dᵀy.
    correlations: Tensor<2>,
    /// λ/ℓ, `[n, 1]`, or times the weights, `[n, code values]`.
    thresholds: Tensor<2>,
    codes: Tensor<2>,
    /// The point that the gradient is taken at.
    point: Tensor<2>,
    /// Whether the pursuit starts from nothing, so that the first step has no product to compute.
    from_zero: bool,
    /// FISTA's t, `[n, 1]`.
    momentum: Tensor<2>,
    /// 1/ℓ.
    step: f32,
}

impl Pursuit for ProximalGradient {
    fn name(&self) -> &'static str {
        match self.config.acceleration {
            Acceleration::Ista => "ista",
            Acceleration::Fista => "fista",
        }
    }

    /// Takes λ, weights of the deepest layer's atoms, a mask and codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        at_fair_size(problem, |problem| self.to_gap(problem))
    }
}

impl ProximalGradient {
    /// Iterates until every signal has the gap.
    fn to_gap(&self, problem: &Problem) -> Result<Pursued> {
        let learned = Learned::default();
        let (mut state, lambda) = self.start(problem, &learned)?;
        let (operator, count) = (problem.operator(), problem.count());
        if count == 0 {
            return Ok(Pursued::consistent(Tensor::zeros(operator.code().batched(0), &operator.device()), Vec::new()));
        }
        let work = problem.work();
        let mut closing = vec![Closing::default(); count];
        // Rows of the caller's batch that are still being coded, and their λ.
        let mut rows: Vec<usize> = (0..count).collect();
        let mut lambda = to_host(lambda);
        let mut finished: Vec<(Vec<usize>, Tensor<2>)> = Vec::new();
        let mut reports: Vec<Option<SignalReport>> = vec![None; count];
        // The code to start from is looked at first: the zero code is the solution from λ_max on.
        let mut iterations = 0;
        loop {
            let certificates = self.certify(operator, &state, &lambda, &work)?;
            let last = iterations >= self.config.basis.max_iterations;
            let (mut done, mut open) = (Vec::new(), Vec::new());
            for (position, (certificate, nonzeros)) in certificates.into_iter().enumerate() {
                let converged = certificate.relative_gap() <= f64::from(self.config.basis.gap);
                if !converged && !last {
                    let further = closing[rows[position]].to(certificate.relative_gap(), self.config.basis.gap.into());
                    work.advance(further);
                    open.push(position);
                    continue;
                }
                work.advance(closing[rows[position]].finish());
                reports[rows[position]] = Some(SignalReport {
                    lambda: lambda[position],
                    iterations,
                    objective: certificate.objective as f32,
                    relative_gap: certificate.relative_gap() as f32,
                    data_term: certificate.data_term as f32,
                    nonzeros,
                    stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                    finished_by: None,
                });
                done.push(position);
            }
            if !done.is_empty() {
                finished.push((done.iter().map(|&position| rows[position]).collect(), take_rows(&state.codes, &done)));
                if open.is_empty() {
                    break;
                }
                state = state.keep(&open);
                rows = open.iter().map(|&position| rows[position]).collect();
                lambda = open.iter().map(|&position| lambda[position]).collect();
            }
            let until = (iterations + self.config.check_every).min(self.config.basis.max_iterations);
            while iterations < until {
                work.check()?;
                self.step(operator, &mut state, &learned, iterations, &work)?;
                iterations += 1;
            }
        }
        let codes = in_order(finished, count);
        Ok(Pursued::consistent(operator.code_shaped(codes), reports.into_iter().flatten().collect()))
    }
}

impl Unrolled for ProximalGradient {
    fn unrolled_with(&self, problem: &Problem, iterations: usize, learned: &Learned) -> Result<Tensor<4>> {
        learned.check(problem.operator(), iterations, 1)?;
        let (mut state, _) = self.start(problem, learned)?;
        if problem.count() > 0 {
            for iteration in 0..iterations {
                self.step(problem.operator(), &mut state, learned, iteration, &problem.work())?;
                if learned.ends_gradients(iteration, iterations) {
                    state = state.constant();
                }
            }
        }
        Ok(problem.operator().code_shaped(state.codes))
    }
}

impl ProximalGradient {
    /// The state before the first iteration, and λ of every signal, `[n, 1]`.
    fn start(&self, problem: &Problem, learned: &Learned) -> Result<(State, Tensor<2>)> {
        problem.refuse_shallower(self.name())?;
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let (signals, mask, weights) = (problem.signals(), problem.mask(), problem.weights(problem.depth()));
        let correlations = learned.analysis_of(0).unwrap_or(operator).analyze_rows(signals.clone());
        let lambda = if problem.count() == 0 {
            Tensor::zeros([0, 1], &operator.device())
        } else {
            lambda.rows(largest(correlations.clone(), &weights, self.config.basis.nonnegative))?
        };
        // The smallest bound that is not zero: an all-zero dictionary has nothing to step along.
        let step = 1.0 / operator.squared_norm_bound().max(f64::from(f32::MIN_POSITIVE)) as f32;
        let codes = problem.start();
        let codes = if self.config.basis.nonnegative && problem.has_start() { codes.clamp_min(0.0) } else { codes };
        let state = State {
            momentum: lambda.ones_like(),
            thresholds: weighted(lambda.clone() * step, &weights),
            signals,
            mask,
            weights,
            correlations,
            point: codes.clone(),
            from_zero: !problem.has_start(),
            codes,
            step,
        };
        Ok((state, lambda))
    }

    /// One iteration. On pictures of several megapixels half of one takes a good part of a second.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    fn step(
        &self,
        operator: &Operator,
        state: &mut State,
        learned: &Learned,
        iteration: usize,
        work: &Work,
    ) -> Result<()> {
        let analysis = learned.analysis_of(iteration);
        if iteration > 0 && !learned.analyses.is_empty() {
            // Of the signals themselves, since every iteration looks at them in its own way.
            state.correlations = analysis.unwrap_or(operator).analyze_rows(state.signals.clone());
        }
        let mut explained = match (&state.mask, analysis) {
            _ if iteration == 0 && state.from_zero => state.point.zeros_like(),
            (None, None) if operator.application() == OperatorForm::Gram => operator.gram_rows(state.point.clone()),
            (mask, analysis) => {
                let made = masked(operator.synthesize_rows(state.point.clone()), mask);
                work.check()?;
                analysis.unwrap_or(operator).analyze_rows(made)
            }
        };
        let (mut correlations, mut thresholds) = (state.correlations.clone(), state.thresholds.clone());
        if let Some(factor) = learned.step(iteration, 0) {
            (explained, correlations) = (explained * factor.clone(), correlations * factor.clone());
            thresholds = thresholds * factor;
        }
        if let Some(factors) = learned.threshold(iteration, 0, operator.code()) {
            thresholds = thresholds * factors;
        }
        let point = state.point.clone();
        let nonnegative = self.config.basis.nonnegative;
        if self.config.acceleration == Acceleration::Fista && learned.momentum_after(iteration).is_none() {
            let operands = [point.clone(), explained.clone(), correlations.clone(), state.codes.clone()];
            let of_rows = [thresholds.clone(), state.momentum.clone()];
            let found = accelerated_step(operands, of_rows, state.step, nonnegative, self.config.restart);
            if let Some([codes, point, momentum]) = found {
                (state.codes, state.point, state.momentum) = (codes, point, momentum);
                return Ok(());
            }
        }
        let codes = proximal_step(point, explained, correlations, thresholds, state.step, nonnegative);
        let before = std::mem::replace(&mut state.codes, codes.clone());
        if let Some(momentum) = learned.momentum_after(iteration) {
            state.point = codes.clone() + (codes - before) * momentum;
            return Ok(());
        }
        match self.config.acceleration {
            Acceleration::Ista => state.point = codes,
            Acceleration::Fista => {
                let momentum = state.momentum.clone();
                (state.point, state.momentum) =
                    extrapolate(&codes, before, &state.point, momentum, self.config.restart);
            }
        }
        Ok(())
    }

    /// Objective, gap and non-zeros of every signal, from its true residual.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    fn certify(
        &self,
        operator: &Operator,
        state: &State,
        lambda: &[f32],
        work: &Work,
    ) -> Result<Vec<(Certificate, usize)>> {
        let State { signals, codes, mask, weights, .. } = state;
        let nonnegative = self.config.basis.nonnegative;
        Ok(look(operator, [signals, codes], mask, weights, lambda, nonnegative, work)?.certificates)
    }
}

/// What codes leave.
pub(super) struct Looked {
    /// Dᵀ(y − Dγ), `[n, k]`.
    #[cfg_attr(not(feature = "cube"), expect(dead_code, reason = "kernels go on from there"))]
    pub correlations: Tensor<2>,
    /// What is certain of every signal, and its non-zeros.
    pub certificates: Vec<(Certificate, usize)>,
}

impl Looked {
    /// As reports, which give no reason but the most iterations.
    pub fn reports(&self, lambda: &[f32], iterations: usize) -> Vec<SignalReport> {
        let each = self.certificates.iter().zip(lambda);
        let reports = each.map(|((certificate, nonzeros), &lambda)| SignalReport {
            lambda,
            iterations,
            objective: certificate.objective as f32,
            relative_gap: certificate.relative_gap() as f32,
            data_term: certificate.data_term as f32,
            nonzeros: *nonzeros,
            stop: StopReason::MaxIterations,
            finished_by: None,
        });
        reports.collect()
    }
}

/// Looks at codes `[n, k]` of signals `[n, d]`: their residuals from scratch, and duality gaps.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn look(
    operator: &Operator,
    [signals, codes]: [&Tensor<2>; 2],
    mask: &Option<Tensor<2>>,
    weights: &Option<Tensor<2>>,
    lambda: &[f32],
    nonnegative: bool,
    work: &Work,
) -> Result<Looked> {
    let made = operator.synthesize_rows(codes.clone());
    work.check()?;
    let residuals = signals.clone() - masked(made, mask);
    let correlations = operator.analyze_rows(residuals.clone());
    // One transfer for the five numbers of every signal.
    let columns = vec![
        residuals.square().sum_dim(1),
        weighted(codes.clone().abs(), weights).sum_dim(1),
        (codes.clone() * correlations.clone()).sum_dim(1),
        largest(correlations.clone(), weights, nonnegative),
        codes.clone().not_equal_scalar(0.0).float().sum_dim(1),
    ];
    let certificates = to_host(Tensor::cat(columns, 1))
        .chunks_exact(5)
        .zip(lambda)
        .map(|(sums, &lambda)| {
            let [residual_energy, one_norm, code_correlation, largest_correlation, nonzeros] =
                std::array::from_fn(|index| f64::from(sums[index]));
            let lambda = f64::from(lambda);
            let sums =
                Sums { lambda, residual_energy, one_norm, code_correlation, largest_correlation, ..Sums::default() };
            (Certificate::from(sums), nonzeros as usize)
        })
        .collect();
    Ok(Looked { correlations, certificates })
}

impl State {
    /// With what the iterations have found as constants.
    fn constant(self) -> Self {
        Self { codes: leaf(self.codes), point: leaf(self.point), momentum: leaf(self.momentum), ..self }
    }

    fn keep(self, positions: &[usize]) -> Self {
        Self {
            signals: take_rows(&self.signals, positions),
            mask: self.mask.map(|mask| take_rows(&mask, positions)),
            weights: self.weights,
            correlations: take_rows(&self.correlations, positions),
            thresholds: take_rows(&self.thresholds, positions),
            codes: take_rows(&self.codes, positions),
            point: take_rows(&self.point, positions),
            from_zero: self.from_zero,
            momentum: take_rows(&self.momentum, positions),
            step: self.step,
        }
    }
}

/// What can be said of any codes, whoever found them, as of a basis pursuit on the effective dictionary: objective and duality
/// gap by the codes' true residuals, for the λ and weights of the deepest layer.
///
/// # Shapes
/// - codes: `[n, m_L, h_L, w_L]`; out: one report per signal, which names `iterations` and no reason but those.
///
/// # Errors
/// As [`Pursuit::solve`]; codes of another shape.
pub fn report_on(
    problem: &Problem,
    codes: Tensor<4>,
    nonnegative: bool,
    iterations: usize,
) -> Result<Vec<SignalReport>> {
    let basis = BasisPursuitConfig { nonnegative, ..BasisPursuitConfig::default() };
    let pursuit = ProximalGradientConfig { basis, ..ProximalGradientConfig::new(Acceleration::Ista) }.init()?;
    let problem = problem.clone().with_start(codes)?;
    let (state, lambda) = pursuit.start(&problem, &Learned::default())?;
    if problem.count() == 0 {
        return Ok(Vec::new());
    }
    let lambda = to_host(lambda);
    let State { signals, codes, mask, weights, .. } = &state;
    let looked = look(problem.operator(), [signals, codes], mask, weights, &lambda, nonnegative, &problem.work())?;
    Ok(looked.reports(&lambda, iterations))
}

/// FISTA's extrapolation: the point that the next gradient is taken at, and the next t.
///
/// - `codes`, `before`: the new and the former code; `point`: where the step to `codes` was taken; `momentum`: t, `[n, 1]`
pub(super) fn extrapolate(
    codes: &Tensor<2>,
    before: Tensor<2>,
    point: &Tensor<2>,
    mut momentum: Tensor<2>,
    restart: bool,
) -> (Tensor<2>, Tensor<2>) {
    let mut next = ((momentum.clone().square() * 4.0 + 1.0).sqrt() + 1.0) * 0.5;
    if restart {
        // Momentum points uphill where the step from z and the step from γ disagree.
        let change = codes.clone() - before.clone();
        let uphill = ((point.clone() - codes.clone()) * change).sum_dim(1).greater_scalar(0.0);
        momentum = momentum.mask_fill(uphill.clone(), 1.0);
        next = next.mask_fill(uphill, 1.0);
    }
    (extrapolation(codes.clone(), before, (momentum - 1.0) / next.clone()), next)
}
