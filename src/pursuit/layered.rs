//! Pursuits layer by layer: γ̂_0 = y, and each layer codes the estimate of the one before.
//!
//! V. Papyan, Y. Romano, M. Elad, "Convolutional Neural Networks Analyzed via Convolutional Sparse Coding", J. Machine Learning
//! Research 18, 2017. *Layered thresholding* is γ̂_i = S_{β_i}(D_iᵀ γ̂_{i−1}), the forward pass of a convolutional network;
//! *layered basis pursuit* is γ̂_i = argmin ½‖γ̂_{i−1} − D_i γ‖² + λ_i‖γ‖₁. Neither keeps γ_{i−1} = D_i γ_i, so that their
//! estimates of the shallower layers come with the result.
//!
//! Every layer has its λ_i (β_i), in [`Problem`]; where only one is given, every layer takes it. A relative one is a fraction of the
//! largest correlation of that layer, ‖D_iᵀ γ̂_{i−1}‖_∞. Weights of every layer's atoms and a mask of the signal are heeded.

use super::observer::Share;
use super::{
    Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, Unrolled, largest,
    masked, to_host, weighted,
};
use crate::error::{Error, Result};
use crate::kernels::threshold::{hard_threshold, soft_threshold};
use crate::model::Operator;
use crate::pursuit::{Acceleration, Learned, ProximalGradientConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What layered thresholding does to correlations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Threshold {
    /// sign(x)·max(|x| − β, 0).
    #[default]
    Soft,
    /// x where |x| > β, else 0.
    Hard,
    /// max(x − β, 0): a rectifier with bias −β.
    #[strum(serialize = "nonnegative")]
    #[serde(rename = "nonnegative", alias = "non-negative")]
    NonNegative,
}

/// Layered thresholding.
#[derive(Debug, Clone, Default)]
pub struct LayeredThresholding {
    threshold: Threshold,
}

impl LayeredThresholding {
    /// With that threshold.
    pub fn new(threshold: Threshold) -> Self {
        Self { threshold }
    }

    /// γ̂_1 … γ̂_L by tensor operations alone, to be differentiated with respect to signals and dictionaries; and β_L.
    ///
    /// # Shapes
    /// - out: γ̂_i as `[n, m_i, h_i, w_i]`; β_L as `[n, 1]`.
    ///
    /// # Errors
    /// As [`Pursuit::solve`].
    pub fn forward(&self, problem: &Problem) -> Result<(Vec<Tensor<4>>, Tensor<2>)> {
        problem.refuse_start(self.name())?;
        let lambdas = lambdas(problem)?;
        let (mut below, mut last) = (problem.signals(), problem.signals().zeros_like().sum_dim(1));
        let mut estimates = Vec::with_capacity(lambdas.len());
        for (index, (layer, lambda)) in problem.operator().layers().iter().zip(&lambdas).enumerate() {
            problem.work().check()?;
            let weights = problem.weights(index + 1);
            let correlations = layer.analyze_rows(below);
            if problem.count() == 0 {
                below = correlations;
            } else {
                let nonnegative = self.threshold == Threshold::NonNegative;
                last = lambda.rows(largest(correlations.clone(), &weights, nonnegative))?;
                let thresholds = weighted(last.clone(), &weights);
                below = match self.threshold {
                    Threshold::Hard => hard_threshold(correlations, thresholds),
                    _ => soft_threshold(correlations, thresholds, nonnegative),
                };
            }
            estimates.push(layer.code_shaped(below.clone()));
        }
        Ok((estimates, last))
    }
}

impl Pursuit for LayeredThresholding {
    fn name(&self) -> &'static str {
        match self.threshold {
            Threshold::Soft => "layered-soft-thresholding",
            Threshold::Hard => "layered-hard-thresholding",
            Threshold::NonNegative => "layered-nonnegative-thresholding",
        }
    }

    /// Takes λ and weights of every layer, and a mask.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        let (estimates, lambda) = self.forward(problem)?;
        let residuals = data_terms(problem, &estimates[estimates.len() - 1]);
        let reports = residuals
            .into_iter()
            .zip(to_host(lambda))
            .map(|((data_term, nonzeros), lambda)| SignalReport {
                lambda,
                iterations: 1,
                objective: data_term,
                relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
                data_term,
                nonzeros,
                stop: StopReason::Direct,
                finished_by: None,
            })
            .collect();
        Ok(split(estimates, reports))
    }
}

/// Parameters of [`LayeredBasisPursuit`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayeredBasisPursuitConfig {
    /// The algorithm of every layer. Default: whichever suits each.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Gap and iterations of every layer; whether all codes are kept non-negative.
    #[serde(default)]
    pub basis: BasisPursuitConfig,
}

impl LayeredBasisPursuitConfig {
    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn init(self) -> Result<LayeredBasisPursuit> {
        self.basis.check()?;
        Ok(LayeredBasisPursuit { config: self })
    }
}

/// Layered basis pursuit with checked parameters.
#[derive(Debug, Clone)]
pub struct LayeredBasisPursuit {
    config: LayeredBasisPursuitConfig,
}

impl LayeredBasisPursuit {
    /// Codes every layer's input by `code`, which is given the problem of that layer.
    fn through_layers<T>(
        &self,
        problem: &Problem,
        mut code: impl FnMut(&Problem) -> Result<(Tensor<4>, T)>,
    ) -> Result<Vec<(Tensor<4>, T)>> {
        problem.refuse_start(self.name())?;
        let mut done: Vec<(Tensor<4>, T)> = Vec::with_capacity(problem.depth());
        for (index, (layer, lambda)) in problem.operator().layers().iter().zip(lambdas(problem)?).enumerate() {
            let below = match done.last() {
                Some((codes, _)) => codes.clone(),
                None => layer.signal_shaped(problem.signals()),
            };
            let part = 1.0 / problem.depth() as f64;
            let share = problem.observer().map(|observer| Share { observer, from: index as f64 * part, part });
            let mut single = Problem::new(layer, below)?.with_lambda(lambda)?;
            if let Some(share) = &share {
                single = single.with_observer(share);
            }
            if let Some(weights) = problem.atom_weights(index + 1) {
                single = single.with_weights(1, weights.to_vec())?;
            }
            if index == 0 {
                single = single.with_mask_of(problem);
            }
            done.push(code(&single)?);
        }
        Ok(done)
    }
}

impl Pursuit for LayeredBasisPursuit {
    fn name(&self) -> &'static str {
        "layered-basis-pursuit"
    }

    /// Takes λ and weights of every layer, and a mask.
    ///
    /// The report's objective is Σ_i ½‖γ̂_{i−1} − D_i γ̂_i‖² + λ_i‖γ̂_i‖₁, its gap the sum of the layers' gaps.
    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        let layers = self.through_layers(problem, |single| {
            let pursued = self.config.algorithm.init_for(&self.config.basis, single)?.solve(single)?;
            Ok((pursued.codes, pursued.reports))
        })?;
        let (estimates, reports): (Vec<Tensor<4>>, Vec<Vec<SignalReport>>) = layers.into_iter().unzip();
        let reports = data_terms(problem, &estimates[estimates.len() - 1])
            .into_iter()
            .enumerate()
            .map(|(row, (data_term, nonzeros))| {
                let of_row = || reports.iter().map(|layer| &layer[row]);
                let objective: f32 = of_row().map(|report| report.objective).sum();
                let gap: f32 = of_row().map(|report| report.relative_gap * report.objective).sum();
                // What ended a layer above its gap; of several reasons that which more iterations would remove.
                let stops = || of_row().map(|report| report.stop).filter(|stop| *stop != StopReason::DualityGap);
                let stop = stops().find(|stop| *stop == StopReason::MaxIterations).or_else(|| stops().next());
                SignalReport {
                    lambda: reports[reports.len() - 1][row].lambda,
                    iterations: of_row().map(|report| report.iterations).sum(),
                    objective,
                    relative_gap: if gap == 0.0 { 0.0 } else { gap / objective },
                    data_term,
                    nonzeros,
                    stop: stop.unwrap_or(StopReason::DualityGap),
                    finished_by: of_row().find_map(|report| report.finished_by),
                }
            })
            .collect();
        Ok(split(estimates, reports))
    }
}

impl Unrolled for LayeredBasisPursuit {
    /// FISTA with `iterations` iterations in every layer; takes nothing learned.
    fn unrolled_with(&self, problem: &Problem, iterations: usize, learned: &Learned) -> Result<Tensor<4>> {
        if !learned.is_empty() {
            return Err(Error::parameter("learned", "given", "nothing learned with a pursuit layer by layer"));
        }
        let acceleration = match self.config.algorithm {
            Algorithm::Ista => Acceleration::Ista,
            _ => Acceleration::Fista,
        };
        let config =
            ProximalGradientConfig { basis: self.config.basis.clone(), ..ProximalGradientConfig::new(acceleration) };
        let pursuit = config.init()?;
        let mut layers =
            self.through_layers(problem, |single| Ok((pursuit.unrolled_with(single, iterations, learned)?, ())))?;
        Ok(layers.remove(problem.depth() - 1).0)
    }
}

/// λ of every layer; where only one is given, every layer's.
fn lambdas(problem: &Problem) -> Result<Vec<Lambda>> {
    match problem.has_shallower_lambda() {
        true => problem.lambdas(),
        false => Ok(vec![problem.lambda()?.clone(); problem.depth()]),
    }
}

/// ½‖M(y − D^(L)γ_L)‖² and the non-zeros of γ_L.
pub(super) fn data_terms(problem: &Problem, codes: &Tensor<4>) -> Vec<(f32, usize)> {
    let operator: &Operator = problem.operator();
    let codes = operator.flat(codes.clone());
    let residuals = problem.signals() - masked(operator.synthesize_rows(codes.clone()), &problem.mask());
    let columns = vec![residuals.square().sum_dim(1) * 0.5, codes.not_equal_scalar(0.0).float().sum_dim(1)];
    if problem.count() == 0 {
        return Vec::new();
    }
    to_host(Tensor::cat(columns, 1)).chunks_exact(2).map(|sums| (sums[0], sums[1] as usize)).collect()
}

fn split(mut estimates: Vec<Tensor<4>>, reports: Vec<SignalReport>) -> Pursued {
    let codes = estimates.pop().expect("a model has at least one layer");
    Pursued { codes, shallower: estimates, reports }
}
