//! ISTA and FISTA for basis pursuit on the effective dictionary, batched.
//!
//! γ ← S_{λ/ℓ}(z − Dᵀ(Dz − y)/ℓ) with ℓ a certified bound of ‖D‖². ISTA takes z = γ; FISTA extrapolates
//! (A. Beck, M. Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sciences 2(1), 2009) and
//! restarts a signal's momentum when it points uphill (B. O'Donoghue, E. Candès, "Adaptive restart for accelerated gradient
//! schemes", Found. Comput. Math. 15, 2015). Every few iterations the duality gap of every signal is computed from its true
//! residual; finished signals leave the batch, so that they cost nothing any more.

use super::duality::Certificate;
use super::threshold::soft_threshold;
use super::{BasisPursuitConfig, Lambda, Pursued, Pursuit, SignalReport, StopReason, check_signals};
use crate::error::{Error, Result};
use crate::model::Operator;
use burn::tensor::{Int, Tensor};
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

/// The signals still being coded.
struct Batch {
    /// Row of each in the caller's batch.
    rows: Vec<usize>,
    lambda: Vec<f32>,
    signals: Tensor<2>,
    /// Dᵀy.
    correlations: Tensor<2>,
    /// λ/ℓ, `[n, 1]`.
    thresholds: Tensor<2>,
    codes: Tensor<2>,
    /// The point that the gradient is taken at.
    point: Tensor<2>,
    /// FISTA's t, `[n, 1]`.
    momentum: Tensor<2>,
}

impl Pursuit for ProximalGradient {
    fn name(&self) -> &'static str {
        match self.config.acceleration {
            Acceleration::Ista => "ista",
            Acceleration::Fista => "fista",
        }
    }

    fn pursue(&self, operator: &Operator, signals: Tensor<4>, lambda: &Lambda) -> Result<Pursued> {
        check_signals(operator, &signals)?;
        let count = signals.dims()[0];
        if count == 0 {
            lambda.resolve(&[])?;
            return Ok(Pursued {
                codes: Tensor::zeros(operator.code().batched(0), &operator.device()),
                reports: Vec::new(),
            });
        }
        let signals = operator.flat(signals);
        let correlations = operator.analyze_rows(signals.clone());
        let lambda = lambda.resolve(&to_host(largest(correlations.clone(), self.config.basis.nonnegative)))?;
        let device = operator.device();
        // The smallest bound that is not zero: an all-zero dictionary has nothing to step along.
        let step = 1.0 / operator.squared_norm_bound().max(f64::from(f32::MIN_POSITIVE)) as f32;
        let zeros = Tensor::zeros([count, operator.code().len()], &device);
        let mut batch = Batch {
            rows: (0..count).collect(),
            thresholds: Tensor::<1>::from_floats(lambda.as_slice(), &device).reshape([count, 1]) * step,
            lambda,
            signals,
            correlations,
            codes: zeros.clone(),
            point: zeros,
            momentum: Tensor::ones([count, 1], &device),
        };
        let mut finished: Vec<(Vec<usize>, Tensor<2>)> = Vec::new();
        let mut reports: Vec<Option<SignalReport>> = vec![None; count];
        // The zero code is looked at first: it is the solution from λ_max on.
        let mut iterations = 0;
        loop {
            let certificates = self.certify(operator, &batch);
            let last = iterations >= self.config.basis.max_iterations;
            let (mut done, mut open) = (Vec::new(), Vec::new());
            for (position, (certificate, nonzeros)) in certificates.into_iter().enumerate() {
                let converged = certificate.relative_gap() <= f64::from(self.config.basis.gap);
                if !converged && !last {
                    open.push(position);
                    continue;
                }
                let lambda = batch.lambda[position];
                reports[batch.rows[position]] = Some(SignalReport {
                    lambda,
                    iterations,
                    objective: certificate.objective as f32,
                    relative_gap: certificate.relative_gap() as f32,
                    data_term: certificate.data_term as f32,
                    nonzeros,
                    stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                });
                done.push(position);
            }
            if !done.is_empty() {
                finished.push((
                    done.iter().map(|&position| batch.rows[position]).collect(),
                    take_rows(&batch.codes, &done),
                ));
                if open.is_empty() {
                    break;
                }
                batch = batch.keep(&open);
            }
            let until = (iterations + self.config.check_every).min(self.config.basis.max_iterations);
            while iterations < until {
                self.step(operator, &mut batch, step);
                iterations += 1;
            }
        }
        let codes = in_order(finished, count);
        Ok(Pursued { codes: operator.code_shaped(codes), reports: reports.into_iter().flatten().collect() })
    }
}

impl ProximalGradient {
    fn step(&self, operator: &Operator, batch: &mut Batch, step: f32) {
        let gradient = operator.gram_rows(batch.point.clone()) - batch.correlations.clone();
        let moved = batch.point.clone() - gradient * step;
        let codes = soft_threshold(moved, batch.thresholds.clone(), self.config.basis.nonnegative);
        match self.config.acceleration {
            Acceleration::Ista => batch.point = codes.clone(),
            Acceleration::Fista => {
                let change = codes.clone() - batch.codes.clone();
                let mut momentum = batch.momentum.clone();
                let mut next = ((momentum.clone().square() * 4.0 + 1.0).sqrt() + 1.0) * 0.5;
                if self.config.restart {
                    // Momentum points uphill where the step from z and the step from γ disagree.
                    let uphill =
                        ((batch.point.clone() - codes.clone()) * change.clone()).sum_dim(1).greater_scalar(0.0);
                    momentum = momentum.mask_fill(uphill.clone(), 1.0);
                    next = next.mask_fill(uphill, 1.0);
                }
                batch.point = codes.clone() + change * ((momentum - 1.0) / next.clone());
                batch.momentum = next;
            }
        }
        batch.codes = codes;
    }

    /// Objective, gap and non-zeros of every signal, from its true residual.
    fn certify(&self, operator: &Operator, batch: &Batch) -> Vec<(Certificate, usize)> {
        let residuals = batch.signals.clone() - operator.synthesize_rows(batch.codes.clone());
        let correlations = operator.analyze_rows(residuals.clone());
        // One transfer for the five numbers of every signal.
        let columns = vec![
            residuals.square().sum_dim(1),
            batch.codes.clone().abs().sum_dim(1),
            (batch.codes.clone() * correlations.clone()).sum_dim(1),
            largest(correlations, self.config.basis.nonnegative),
            batch.codes.clone().not_equal_scalar(0.0).float().sum_dim(1),
        ];
        to_host(Tensor::cat(columns, 1))
            .chunks_exact(5)
            .zip(&batch.lambda)
            .map(|(sums, &lambda)| {
                let [energy, one_norm, code_correlation, largest, nonzeros] =
                    std::array::from_fn(|index| f64::from(sums[index]));
                (Certificate::new(f64::from(lambda), energy, one_norm, code_correlation, largest), nonzeros as usize)
            })
            .collect()
    }
}

impl Batch {
    fn keep(self, positions: &[usize]) -> Self {
        Self {
            rows: positions.iter().map(|&position| self.rows[position]).collect(),
            lambda: positions.iter().map(|&position| self.lambda[position]).collect(),
            signals: take_rows(&self.signals, positions),
            correlations: take_rows(&self.correlations, positions),
            thresholds: take_rows(&self.thresholds, positions),
            codes: take_rows(&self.codes, positions),
            point: take_rows(&self.point, positions),
            momentum: take_rows(&self.momentum, positions),
        }
    }
}

/// Largest correlation of every row, `[n, 1]`: in magnitude, or positive only.
fn largest(correlations: Tensor<2>, nonnegative: bool) -> Tensor<2> {
    if nonnegative { correlations.max_dim(1).clamp_min(0.0) } else { correlations.abs().max_dim(1) }
}

pub(crate) fn to_host(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn take_rows(tensor: &Tensor<2>, positions: &[usize]) -> Tensor<2> {
    let positions: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
    tensor.clone().select(0, Tensor::<1, Int>::from_data(positions.as_slice(), &tensor.device()))
}

/// Puts groups of rows back in the caller's order.
fn in_order(groups: Vec<(Vec<usize>, Tensor<2>)>, count: usize) -> Tensor<2> {
    let mut place = vec![0; count];
    let rows = groups.iter().flat_map(|(rows, _)| rows);
    rows.enumerate().for_each(|(position, &row)| place[row] = position);
    let stacked = Tensor::cat(groups.into_iter().map(|(_, codes)| codes).collect(), 0);
    take_rows(&stacked, &place)
}
