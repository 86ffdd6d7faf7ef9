//! Multi-layer basis pursuit to any gap, by splitting: every layer has a copy that takes its penalty. The problem and its certificate are
//! those of [`super::multi_layer`].

use super::magnitude::at_fair_size;
use super::multi_layer::{CHECK_EVERY, Cascade, Iteration, Looked, keep_each, run};
use super::{BasisPursuitConfig, Problem, Pursued, Pursuit, by_windows, masked, take_rows};
use crate::error::{Error, Result};
use crate::kernels::threshold::soft_threshold;
use crate::model::Operator;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

/// Parameters of [`MultiLayerSplitting`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiLayerSplittingConfig {
    /// Gap, iterations, and the sign of γ_L. Gaps below 1e-5 drown in the rounding of `f32`.
    #[serde(default)]
    pub basis: BasisPursuitConfig,
    /// Conjugate gradient steps in every iteration, at least 1. Default 10.
    #[serde(default = "default_inner")]
    pub inner: usize,
}

fn default_inner() -> usize {
    10
}

impl Default for MultiLayerSplittingConfig {
    fn default() -> Self {
        Self { basis: BasisPursuitConfig::default(), inner: default_inner() }
    }
}

impl MultiLayerSplittingConfig {
    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`]; no inner step.
    pub fn init(self) -> Result<MultiLayerSplitting> {
        self.basis.check()?;
        if self.inner == 0 {
            return Err(Error::parameter("inner", 0, "at least 1"));
        }
        Ok(MultiLayerSplitting { config: self })
    }
}

/// The exact minimiser by the alternating direction method of multipliers, with checked parameters.
///
/// Every penalised layer has a copy z_i of γ_i = A_i γ_L that takes the penalty (S. Boyd et al., "Distributed Optimization and
/// Statistical Learning via the Alternating Direction Method of Multipliers", Found. Trends Machine Learning 3(1), 2011). The
/// linear system (D^(L)ᵀMD^(L) + ρ Σ_i A_iᵀA_i)γ_L = D^(L)ᵀy + ρ Σ_i A_iᵀ(z_i − u_i) is solved by conjugate gradients from the
/// former solution, so that no matrix is formed and every signal has its own mask and its own ρ, which is balanced between
/// primal and dual residual. The code returned is z_L, whose zeros are exact.
#[derive(Debug, Clone)]
pub struct MultiLayerSplitting {
    config: MultiLayerSplittingConfig,
}

/// Over-relaxation of the copies.
const RELAXATION: f32 = 1.6;

/// Iterations between two balancings of ρ, and the last iteration at which it is balanced: convergence needs a constant ρ.
const BALANCE_EVERY: usize = 20;
const BALANCE_UNTIL: usize = 600;

/// Residuals that differ by more than this are balanced.
const IMBALANCE: f32 = 4.0;

/// State of the splitting.
struct Splitting<'a> {
    cascade: Cascade<'a>,
    inner: usize,
    iteration: usize,
    /// ρ, `[n, 1]`.
    rho: Tensor<2>,
    solution: Tensor<2>,
    /// z_i; `None` for layers that have neither penalty nor zeros.
    copies: Vec<Option<Tensor<2>>>,
    /// Multipliers divided by ρ.
    duals: Vec<Option<Tensor<2>>>,
}

impl<'a> Splitting<'a> {
    fn new(cascade: Cascade<'a>, operator: &Operator, start: Tensor<2>, inner: usize) -> Self {
        let all = cascade.down(start.clone());
        let depth = cascade.depth();
        let split = |index: usize| {
            index + 1 == depth
                || cascade.zeros[index].is_some()
                || matches!(cascade.penalties.get(index), Some(Some(_)))
        };
        let copies: Vec<_> = (0..depth).map(|index| split(index).then(|| all[index + 1].clone())).collect();
        // ‖A_i‖² by the product of the layers' bounds; a ρ for which both parts of the system weigh about the same.
        let mut norms = vec![1.0f64; depth];
        for index in (0..depth - 1).rev() {
            norms[index] = norms[index + 1] * cascade.layers[index + 1].squared_norm_bound();
        }
        let sum: f64 = (0..depth).filter(|&index| split(index)).map(|index| norms[index]).sum();
        let rho = (operator.squared_norm_bound() / sum).max(f64::from(f32::MIN_POSITIVE)) as f32;
        Self {
            inner,
            iteration: 0,
            rho: cascade.lambda.zeros_like() + 0.3 * rho,
            solution: start,
            duals: copies.iter().map(|copy| copy.as_ref().map(Tensor::zeros_like)).collect(),
            copies,
            cascade,
        }
    }

    /// (D^(L)ᵀMD^(L) + ρ Σ_i A_iᵀA_i) times a code.
    fn system(&self, codes: &Tensor<2>) -> Tensor<2> {
        let all = self.cascade.down(codes.clone());
        let terms: Vec<_> = self
            .copies
            .iter()
            .zip(&all[1..])
            .map(|(copy, gamma)| copy.as_ref().map(|_| gamma.clone() * self.rho.clone()))
            .collect();
        self.cascade.up(masked(all[0].clone(), &self.cascade.mask), &terms)
    }

    /// Conjugate gradients (M. Hestenes, E. Stiefel, J. Research NBS 49, 1952) from the former solution.
    fn solve(&mut self) {
        let terms: Vec<_> = self
            .copies
            .iter()
            .zip(&self.duals)
            .map(|(copy, dual)| match (copy, dual) {
                (Some(copy), Some(dual)) => Some((copy.clone() - dual.clone()) * self.rho.clone()),
                _ => None,
            })
            .collect();
        let wanted = self.cascade.up(self.cascade.signals.clone(), &terms);
        let mut residual = wanted - self.system(&self.solution);
        let mut direction = residual.clone();
        let mut energy = residual.clone().square().sum_dim(1);
        for _ in 0..self.inner {
            let image = self.system(&direction);
            let curvature = (direction.clone() * image.clone()).sum_dim(1);
            // A solved system has neither curvature nor residual: the step is then 0.
            let length = energy.clone() / curvature.clamp_min(f32::MIN_POSITIVE);
            self.solution = self.solution.clone() + direction.clone() * length.clone();
            residual = residual - image * length;
            let next = residual.clone().square().sum_dim(1);
            direction = residual.clone() + direction * (next.clone() / energy.clamp_min(f32::MIN_POSITIVE));
            energy = next;
        }
    }
}

impl Iteration for Splitting<'_> {
    fn step(&mut self) {
        self.solve();
        let all = self.cascade.down(self.solution.clone());
        let zero = self.rho.zeros_like();
        let (mut primal, mut dual, mut size, mut dual_size) = (zero.clone(), zero.clone(), zero.clone(), zero);
        let depth = self.cascade.depth();
        for index in 0..depth {
            let (Some(copy), Some(multiplier)) = (&self.copies[index], &self.duals[index]) else { continue };
            let gamma = all[index + 1].clone();
            let relaxed = gamma.clone() * RELAXATION + copy.clone() * (1.0 - RELAXATION);
            let target = relaxed + multiplier.clone();
            let mut next = match &self.cascade.penalties[index] {
                Some(bound) => soft_threshold(
                    target.clone(),
                    bound.clone() / self.rho.clone(),
                    self.cascade.nonnegative && index + 1 == depth,
                ),
                None => target.clone(),
            };
            if let Some(zeros) = &self.cascade.zeros[index] {
                next = next.mask_fill(zeros.clone(), 0.0);
            }
            let multiplier = target - next.clone();
            primal = primal + (gamma - next.clone()).square().sum_dim(1);
            dual = dual + (next.clone() - copy.clone()).square().sum_dim(1);
            size = size + next.clone().square().sum_dim(1);
            dual_size = dual_size + multiplier.clone().square().sum_dim(1);
            self.copies[index] = Some(next);
            self.duals[index] = Some(multiplier);
        }
        self.iteration += 1;
        if self.iteration.is_multiple_of(BALANCE_EVERY) && self.iteration <= BALANCE_UNTIL {
            // Both relative to what they are residuals of.
            let primal = (primal / size.clamp_min(f32::MIN_POSITIVE)).sqrt();
            let dual = (dual / dual_size.clamp_min(f32::MIN_POSITIVE)).sqrt();
            let factor = primal.ones_like();
            let factor = factor.mask_fill(primal.clone().greater(dual.clone() * IMBALANCE), 2.0);
            let factor = factor.mask_fill(dual.greater(primal * IMBALANCE), 0.5);
            self.rho = self.rho.clone() * factor.clone();
            for multiplier in self.duals.iter_mut().flatten() {
                *multiplier = multiplier.clone() / factor.clone();
            }
        }
    }

    fn codes(&self) -> Tensor<2> {
        self.copies[self.copies.len() - 1].clone().unwrap_or_else(|| self.solution.clone())
    }

    fn look(&self) -> Vec<Looked> {
        let duals: Vec<_> = self.duals[..self.duals.len() - 1]
            .iter()
            .map(|dual| dual.as_ref().map(|dual| dual.clone() * self.rho.clone()))
            .collect();
        self.cascade.certify(&self.codes(), &duals)
    }

    fn keep(self, rows: &[usize]) -> Self {
        Self {
            cascade: self.cascade.keep(rows),
            rho: take_rows(&self.rho, rows),
            solution: take_rows(&self.solution, rows),
            copies: keep_each(self.copies, rows),
            duals: keep_each(self.duals, rows),
            ..self
        }
    }
}

impl Pursuit for MultiLayerSplitting {
    fn name(&self) -> &'static str {
        "multi-layer-splitting"
    }

    /// Takes λ and weights of every layer, a mask and codes to start from.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        if let Some(found) = by_windows::solve(problem, &self.config.basis, |parts| self.solve(parts))? {
            return Ok(found);
        }
        if problem.count() == 0 {
            return Ok(Pursued::consistent(problem.operator().code_shaped(problem.start()), Vec::new()));
        }
        at_fair_size(problem, |problem| {
            let cascade = Cascade::new(problem, self.config.basis.nonnegative)?;
            let state = Splitting::new(cascade, problem.operator(), problem.start(), self.config.inner);
            run(problem, &self.config.basis, CHECK_EVERY, state)
        })
    }
}

/// γ_L after a fixed number of iterations of the splitting where, besides the penalties, entries of the shallower layers are zero.
///
/// # Shapes
/// - zeros: for every layer but the deepest `[n, values of γ_i]`; out: `[n, code values]`.
pub(super) fn with_zeros(
    problem: &Problem,
    zeros: Vec<Option<Tensor<2, Bool>>>,
    iterations: usize,
) -> Result<Tensor<2>> {
    let mut cascade = Cascade::new(problem, false)?;
    for (index, zeros) in zeros.into_iter().enumerate() {
        cascade.zeros[index] = zeros;
    }
    let mut state = Splitting::new(cascade, problem.operator(), problem.start(), default_inner());
    let work = problem.work();
    for _ in 0..iterations {
        work.check()?;
        state.step();
    }
    Ok(state.codes())
}
