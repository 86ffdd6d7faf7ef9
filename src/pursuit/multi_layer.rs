//! Multi-layer basis pursuit: min over γ_L of ½‖M(y − D^(L)γ_L)‖² + Σ_i λ_i‖γ_i‖₁ with γ_{i−1} = D_i γ_i.
//!
//! J. Sulam, A. Aberdam, A. Beck, M. Elad, "On Multi-Layer Basis Pursuit, Efficient Algorithms and Convolutional Neural Networks",
//! IEEE Trans. Pattern Analysis and Machine Intelligence 42(8), 2020. [`MultiLayerProximalGradient`] is their ML-ISTA and
//! ML-FISTA, whose fixed point differs from the minimiser by what is proportional to the step; [`super::splitting`] minimises
//! to any gap.
//!
//! Every λ_i is in [`Problem`]; a relative one is, for every layer, a fraction of ‖D^(L)ᵀy‖_∞. Weights of every layer's atoms, a
//! mask and codes to start from are heeded. The objective of the reports is that of the problem above.
//!
//! # Certificate
//!
//! With A_i = D_{i+1} … D_L, so that γ_i = A_i γ_L, any u_i with |u_i| ≤ λ_i w_i for i < L, the residual r = M(y − D^(L)γ_L) and
//! v = D^(L)ᵀr − Σ_{i<L} A_iᵀu_i, the pair s·r, s·u_i is dual feasible for s = min(1, λ_L/‖v‖_∞). Since 〈r, D^(L)γ_L〉 =
//! 〈v, γ_L〉 + Σ_{i<L} 〈u_i, γ_i〉, the duality gap is
//!
//! ```text
//! ½(1 − s)²‖r‖² + (λ_L‖γ_L‖₁ − s〈v, γ_L〉) + Σ_{i<L} (λ_i‖γ_i‖₁ − s〈u_i, γ_i〉),
//! ```
//!
//! a sum of terms that are not negative, as for one layer in `super::duality`.

use super::duality::{Certificate, Sums};
use super::magnitude::at_fair_size;
use super::observer::Closing;
use super::proximal_gradient::extrapolate;
use super::{
    Acceleration, BasisPursuitConfig, Learned, Problem, Pursued, Pursuit, SignalReport, StopReason, Unrolled,
    by_windows, in_order, largest, masked, take_rows, to_host, weighted,
};
use crate::error::{Error, Result};
use crate::geometry::LayerGeometry;
use crate::kernels::threshold::soft_threshold;
use crate::model::{Operator, leaf};
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

/// A multi-layer problem as tensors.
pub(super) struct Cascade<'a> {
    pub(super) layers: &'a [Operator],
    pub(super) signals: Tensor<2>,
    pub(super) mask: Option<Tensor<2>>,
    /// λ_L, `[n, 1]`.
    pub(super) lambda: Tensor<2>,
    /// λ_i times the weights, `[n, 1]` or `[n, values of γ_i]`; `None` where layer i < L has no penalty.
    pub(super) penalties: Vec<Option<Tensor<2>>>,
    /// Weights of the deepest layer's atoms.
    pub(super) weights: Option<Tensor<2>>,
    /// Entries of γ_i that must be zero.
    pub(super) zeros: Vec<Option<Tensor<2, Bool>>>,
    pub(super) nonnegative: bool,
}

impl<'a> Cascade<'a> {
    pub(super) fn new(problem: &Problem<'a>, nonnegative: bool) -> Result<Self> {
        let operator = problem.operator();
        let (signals, weights) = (problem.signals(), problem.weights(problem.depth()));
        let lambdas = problem.lambdas()?;
        let (mut penalties, mut lambda) = (Vec::new(), Tensor::zeros([0, 1], &operator.device()));
        if problem.count() > 0 {
            let largest = largest(operator.analyze_rows(signals.clone()), &weights, nonnegative);
            for (index, of_layer) in lambdas.iter().enumerate() {
                lambda = of_layer.rows(largest.clone())?;
                let penalised = index + 1 == lambdas.len() || !of_layer.is_zero();
                penalties.push(penalised.then(|| weighted(lambda.clone(), &problem.weights(index + 1))));
            }
        }
        let zeros = vec![None; lambdas.len()];
        let (layers, mask) = (operator.layers(), problem.mask());
        Ok(Self { layers, signals, mask, lambda, penalties, weights, zeros, nonnegative })
    }

    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// x, γ_1 … γ_L for γ_L.
    pub(super) fn down(&self, codes: Tensor<2>) -> Vec<Tensor<2>> {
        let mut all = vec![codes];
        for layer in self.layers.iter().rev() {
            all.push(layer.synthesize_rows(all[all.len() - 1].clone()));
        }
        all.reverse();
        all
    }

    /// D_Lᵀ(… D_2ᵀ(D_1ᵀ s + t_1) + t_2 …) + t_L.
    pub(super) fn up(&self, signal: Tensor<2>, terms: &[Option<Tensor<2>>]) -> Tensor<2> {
        self.layers.iter().zip(terms).fold(signal, |below, (layer, term)| {
            let above = layer.analyze_rows(below);
            match term {
                Some(term) => above + term.clone(),
                None => above,
            }
        })
    }

    /// M(y − x).
    pub(super) fn residual(&self, made: Tensor<2>) -> Tensor<2> {
        self.signals.clone() - masked(made, &self.mask)
    }

    /// Certificates and non-zeros of codes, given u_1 … u_{L−1} within their bounds.
    pub(super) fn certify(&self, codes: &Tensor<2>, duals: &[Option<Tensor<2>>]) -> Vec<Looked> {
        let all = self.down(codes.clone());
        let residual = self.residual(all[0].clone());
        let mut terms: Vec<Option<Tensor<2>>> = duals.iter().map(|dual| dual.clone().map(Tensor::neg)).collect();
        terms.push(None);
        let correlations = self.up(residual.clone(), &terms);
        let zero = self.lambda.zeros_like();
        let (mut penalty, mut dual_correlation) = (zero.clone(), zero);
        for ((gamma, dual), bound) in all[1..].iter().zip(duals).zip(&self.penalties) {
            if let Some(bound) = bound {
                penalty = penalty + (gamma.clone().abs() * bound.clone()).sum_dim(1);
            }
            if let Some(dual) = dual {
                dual_correlation = dual_correlation + (gamma.clone() * dual.clone()).sum_dim(1);
            }
        }
        let columns = vec![
            self.lambda.clone(),
            residual.square().sum_dim(1),
            weighted(codes.clone().abs(), &self.weights).sum_dim(1),
            (codes.clone() * correlations.clone()).sum_dim(1),
            largest(correlations, &self.weights, self.nonnegative),
            penalty,
            dual_correlation,
            codes.clone().not_equal_scalar(0.0).float().sum_dim(1),
        ];
        to_host(Tensor::cat(columns, 1))
            .chunks_exact(8)
            .map(|columns| {
                let [
                    lambda,
                    residual_energy,
                    one_norm,
                    code_correlation,
                    largest_correlation,
                    shallower_penalty,
                    dual_correlation,
                    nonzeros,
                ] = std::array::from_fn(|column| f64::from(columns[column]));
                let sums = Sums {
                    lambda,
                    residual_energy,
                    one_norm,
                    code_correlation,
                    largest_correlation,
                    shallower_penalty,
                    dual_correlation,
                };
                // λ came as `f32`, and counts are exact.
                Looked { lambda: lambda as f32, certificate: sums.into(), nonzeros: nonzeros as usize, still: false }
            })
            .collect()
    }

    pub(super) fn keep(self, rows: &[usize]) -> Self {
        Self {
            signals: take_rows(&self.signals, rows),
            mask: self.mask.map(|mask| take_rows(&mask, rows)),
            lambda: take_rows(&self.lambda, rows),
            penalties: keep_each(self.penalties, rows),
            zeros: self
                .zeros
                .into_iter()
                .map(|zeros| zeros.map(|zeros| take_rows(&zeros.float(), rows).greater_scalar(0.5)))
                .collect(),
            ..self
        }
    }
}

pub(super) fn keep_each(tensors: Vec<Option<Tensor<2>>>, rows: &[usize]) -> Vec<Option<Tensor<2>>> {
    tensors.into_iter().map(|tensor| tensor.map(|tensor| take_rows(&tensor, rows))).collect()
}

/// What a look at a signal's code tells.
pub(super) struct Looked {
    pub(super) lambda: f32,
    pub(super) certificate: Certificate,
    pub(super) nonzeros: usize,
    /// Whether the code has stopped moving.
    pub(super) still: bool,
}

/// What an iteration needs, so that one loop serves both algorithms.
pub(super) trait Iteration: Sized {
    fn step(&mut self);
    fn codes(&self) -> Tensor<2>;
    fn look(&self) -> Vec<Looked>;
    fn keep(self, rows: &[usize]) -> Self;
}

/// Iterates until every signal has its gap, has stopped moving, or has used up its iterations.
pub(super) fn run(
    problem: &Problem,
    basis: &BasisPursuitConfig,
    check_every: usize,
    mut state: impl Iteration,
) -> Result<Pursued> {
    let (operator, count) = (problem.operator(), problem.count());
    if count == 0 {
        let none = Tensor::zeros(operator.code().batched(0), &operator.device());
        return Ok(Pursued::consistent(none, Vec::new()));
    }
    let work = problem.work();
    let mut closing = vec![Closing::default(); count];
    let mut rows: Vec<usize> = (0..count).collect();
    let mut finished: Vec<(Vec<usize>, Tensor<2>)> = Vec::new();
    let mut reports: Vec<Option<SignalReport>> = vec![None; count];
    let mut iterations = 0;
    loop {
        let last = iterations >= basis.max_iterations;
        let (mut done, mut open) = (Vec::new(), Vec::new());
        for (position, Looked { lambda, certificate, nonzeros, still }) in state.look().into_iter().enumerate() {
            let converged = certificate.relative_gap() <= f64::from(basis.gap);
            if !converged && !still && !last {
                work.advance(closing[rows[position]].to(certificate.relative_gap(), basis.gap.into()));
                open.push(position);
                continue;
            }
            work.advance(closing[rows[position]].finish());
            reports[rows[position]] = Some(SignalReport {
                lambda,
                iterations,
                objective: certificate.objective as f32,
                relative_gap: certificate.relative_gap() as f32,
                data_term: certificate.data_term as f32,
                nonzeros,
                stop: match (converged, still) {
                    (true, _) => StopReason::DualityGap,
                    (_, true) => StopReason::FixedPoint,
                    _ => StopReason::MaxIterations,
                },
                finished_by: None,
            });
            done.push(position);
        }
        if !done.is_empty() {
            finished.push((done.iter().map(|&position| rows[position]).collect(), take_rows(&state.codes(), &done)));
            if open.is_empty() {
                break;
            }
            state = state.keep(&open);
            rows = open.iter().map(|&position| rows[position]).collect();
        }
        let until = (iterations + check_every).min(basis.max_iterations);
        while iterations < until {
            work.check()?;
            state.step();
            iterations += 1;
        }
    }
    let codes = operator.code_shaped(in_order(finished, count));
    Ok(Pursued::consistent(codes, reports.into_iter().flatten().collect()))
}

/// Parameters of [`MultiLayerProximalGradient`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiLayerProximalGradientConfig {
    /// Plain (ML-ISTA) or accelerated (ML-FISTA).
    pub acceleration: Acceleration,
    /// Gap, iterations, and the sign of γ_L.
    #[serde(default)]
    pub basis: BasisPursuitConfig,
    /// Step of the first layer as a fraction of 1/‖D_1‖², in (0, 1]. Default 1. Smaller ones lead nearer to the minimum, more
    /// slowly.
    #[serde(default = "one")]
    pub step: f32,
    /// A signal is finished when its code moves, in one iteration, by less than this part of its length times the step; at least 0.
    /// Default 1e-5.
    #[serde(default = "default_tolerance")]
    pub tolerance: f32,
}

fn one() -> f32 {
    1.0
}

fn default_tolerance() -> f32 {
    1e-5
}

impl MultiLayerProximalGradientConfig {
    /// With the defaults.
    pub fn new(acceleration: Acceleration) -> Self {
        Self { acceleration, basis: BasisPursuitConfig::default(), step: one(), tolerance: default_tolerance() }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`]; a step outside (0, 1]; a tolerance that is negative or not finite.
    pub fn init(self) -> Result<MultiLayerProximalGradient> {
        self.basis.check()?;
        if !(self.step > 0.0 && self.step <= 1.0) {
            return Err(Error::parameter("step", self.step, "a fraction in (0, 1] of 1/‖D_1‖²"));
        }
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(Error::parameter("tolerance", self.tolerance, "a finite number ≥ 0"));
        }
        Ok(MultiLayerProximalGradient { config: self })
    }
}

/// ML-ISTA or ML-FISTA with checked parameters.
///
/// One iteration propagates γ̃_i down from γ_L and then steps upwards, γ_0 = y:
/// γ_i = S_{τ_i}(γ̃_i − μ_i D_iᵀ(γ̃_{i−1} − γ_{i−1})) with τ_i = λ_i μ_1 … μ_i, the threshold that belongs to a step which is the
/// product of all steps below. In terms of g_i = (γ̃_i − γ_i)/(μ_1 … μ_i), which is what is computed, for small steps lose nothing
/// to rounding that way, this is
///
/// ```text
/// g_0 = D^(L)γ_L − y,   u_i = clip(γ̃_i/(μ_1 … μ_i) − D_iᵀ g_{i−1}, ±λ_i),   g_i = D_iᵀ g_{i−1} + u_i,
/// ```
///
/// and a proximal step of length μ_1 … μ_L on γ_L along D_Lᵀ g_{L−1}. The u_i are the dual point of the gap that is reported. At the
/// fixed point they are subgradients at γ_i instead of γ̃_i, which differ by as much as the step: that gap does not close, and the
/// iteration ends when the code stops moving.
#[derive(Debug, Clone)]
pub struct MultiLayerProximalGradient {
    config: MultiLayerProximalGradientConfig,
}

/// State of ML-ISTA and ML-FISTA.
struct Gradient<'a> {
    cascade: Cascade<'a>,
    config: &'a MultiLayerProximalGradientConfig,
    /// μ_1 … μ_i.
    steps: Vec<f32>,
    learned: Learned<'a>,
    iteration: usize,
    codes: Tensor<2>,
    before: Tensor<2>,
    /// Whether `before` holds the codes of a step before.
    stepped: bool,
    point: Tensor<2>,
    momentum: Tensor<2>,
}

impl Gradient<'_> {
    /// With what the iterations have found as constants.
    fn constant(self) -> Self {
        Self {
            codes: leaf(self.codes),
            before: leaf(self.before),
            point: leaf(self.point),
            momentum: leaf(self.momentum),
            ..self
        }
    }
}

impl MultiLayerProximalGradient {
    fn start<'a>(&'a self, problem: &Problem<'a>, learned: &Learned<'a>) -> Result<Gradient<'a>> {
        let cascade = Cascade::new(problem, self.config.basis.nonnegative)?;
        let mut product = self.config.step;
        let steps = cascade
            .layers
            .iter()
            .map(|layer| {
                product /= layer.squared_norm_bound().max(f64::from(f32::MIN_POSITIVE)) as f32;
                product
            })
            .collect();
        let codes = problem.start();
        let codes = if self.config.basis.nonnegative && problem.has_start() { codes.clamp_min(0.0) } else { codes };
        Ok(Gradient {
            momentum: cascade.lambda.ones_like(),
            cascade,
            config: &self.config,
            steps,
            learned: learned.clone(),
            iteration: 0,
            before: codes.clone(),
            stepped: false,
            point: codes.clone(),
            codes,
        })
    }
}

impl Gradient<'_> {
    /// μ_1 … μ_i of this iteration, `layer` = i − 1.
    fn step_size(&self, layer: usize) -> StepSize {
        let factors = (0..=layer).filter_map(|layer| self.learned.step(self.iteration, layer));
        StepSize { fixed: self.steps[layer], learned: factors.reduce(|product, factor| product * factor) }
    }

    /// λ_i times the weights as of this iteration, `layer` = i − 1; `None` where there is no penalty.
    fn penalty(&self, layer: usize) -> Option<Tensor<2>> {
        let penalty = self.cascade.penalties.get(layer)?.clone()?;
        let code = self.cascade.layers[layer].code();
        Some(match self.learned.threshold(self.iteration, layer, code) {
            Some(factors) => penalty * factors,
            None => penalty,
        })
    }

    /// D_Lᵀ g_{L−1} and u_1 … u_{L−1} at a point.
    fn gradient(&self, point: &Tensor<2>) -> (Tensor<2>, Vec<Option<Tensor<2>>>) {
        let all = self.cascade.down(point.clone());
        let mut below = self.cascade.residual(all[0].clone()).neg();
        let mut duals = Vec::new();
        let depth = self.cascade.depth();
        let analysis = self.learned.analysis.map_or(self.cascade.layers, Operator::layers);
        for (index, layer) in analysis.iter().enumerate() {
            below = layer.analyze_rows(below);
            if index + 1 == depth {
                break;
            }
            let dual = self.penalty(index).map(|bound| {
                let inside = self.step_size(index).divide(all[index + 1].clone()) - below.clone();
                let bound = bound.expand(inside.dims());
                inside.min_pair(bound.clone()).max_pair(bound.neg())
            });
            if let Some(dual) = &dual {
                below = below + dual.clone();
            }
            duals.push(dual);
        }
        (below, duals)
    }
}

/// A product of steps, with the learned factors on it, `[1, 1]`.
struct StepSize {
    fixed: f32,
    learned: Option<Tensor<2>>,
}

impl StepSize {
    fn times(&self, values: Tensor<2>) -> Tensor<2> {
        match &self.learned {
            Some(factor) => values * self.fixed * factor.clone(),
            None => values * self.fixed,
        }
    }

    fn divide(&self, values: Tensor<2>) -> Tensor<2> {
        match &self.learned {
            Some(factor) => values / self.fixed / factor.clone(),
            None => values / self.fixed,
        }
    }
}

impl Iteration for Gradient<'_> {
    fn step(&mut self) {
        let (gradient, _) = self.gradient(&self.point);
        let deepest = self.steps.len() - 1;
        let Some(bound) = self.penalty(deepest) else { return };
        let step = self.step_size(deepest);
        let codes =
            soft_threshold(self.point.clone() - step.times(gradient), step.times(bound), self.cascade.nonnegative);
        match self.config.acceleration {
            Acceleration::Ista => self.point = codes.clone(),
            Acceleration::Fista => {
                (self.point, self.momentum) =
                    extrapolate(&codes, self.codes.clone(), &self.point, self.momentum.clone(), true);
            }
        }
        self.before = std::mem::replace(&mut self.codes, codes);
        self.stepped = true;
        self.iteration += 1;
    }

    fn codes(&self) -> Tensor<2> {
        self.codes.clone()
    }

    fn look(&self) -> Vec<Looked> {
        let (_, duals) = self.gradient(&self.codes);
        let moved = (self.codes.clone() - self.before.clone()).square().sum_dim(1);
        let length = self.codes.clone().square().sum_dim(1);
        let moves = to_host(Tensor::cat(vec![moved, length], 1));
        let part = f64::from(self.config.tolerance * self.config.step);
        // Before the first step nothing has moved yet.
        let stepped = self.stepped;
        let mut looked = self.cascade.certify(&self.codes, &duals);
        for (looked, moves) in looked.iter_mut().zip(moves.chunks_exact(2)) {
            let [moved, length] = std::array::from_fn(|column| f64::from(moves[column]).sqrt());
            looked.still = stepped && moved <= part * length;
        }
        looked
    }

    fn keep(self, rows: &[usize]) -> Self {
        Self {
            cascade: self.cascade.keep(rows),
            codes: take_rows(&self.codes, rows),
            before: take_rows(&self.before, rows),
            stepped: self.stepped,
            point: take_rows(&self.point, rows),
            momentum: take_rows(&self.momentum, rows),
            ..self
        }
    }
}

/// Iterations between two looks at the certificates.
pub(super) const CHECK_EVERY: usize = 10;

impl Pursuit for MultiLayerProximalGradient {
    fn name(&self) -> &'static str {
        match self.config.acceleration {
            Acceleration::Ista => "ml-ista",
            Acceleration::Fista => "ml-fista",
        }
    }

    /// Takes λ and weights of every layer, a mask and codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        let basis = &self.config.basis;
        // Where a layer overlaps with itself its norm, and with it the fixed point, is not that of its windows.
        let disjoint = problem.operator().geometry().layers().iter().all(LayerGeometry::is_disjoint);
        if disjoint && let Some(found) = by_windows::solve(problem, basis, |parts| self.solve(parts))? {
            return Ok(found);
        }
        at_fair_size(problem, |problem| run(problem, basis, CHECK_EVERY, self.start(problem, &Learned::default())?))
    }
}

impl Unrolled for MultiLayerProximalGradient {
    fn unrolled_with(&self, problem: &Problem, iterations: usize, learned: &Learned) -> Result<Tensor<4>> {
        learned.check(problem.operator(), iterations, problem.depth())?;
        let mut state = self.start(problem, learned)?;
        if problem.count() > 0 {
            for iteration in 0..iterations {
                state.step();
                if learned.ends_gradients(iteration, iterations) {
                    state = state.constant();
                }
            }
        }
        Ok(problem.operator().code_shaped(state.codes))
    }
}
