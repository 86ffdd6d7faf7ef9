//! Coordinate descent for basis pursuit where D^(L) is a dense matrix with a Gram matrix, one signal per task.
//!
//! A learned dictionary's ‖D‖² is in the hundreds, so proximal gradient steps are tiny and FISTA needs hundreds of products with
//! the whole Gram matrix. Coordinate descent (J. Friedman, T. Hastie, R. Tibshirani, "Regularization paths for generalized
//! linear models via coordinate descent", J. Stat. Software 33(1), 2010) minimises exactly over one coefficient at a time and
//! touches only one row of the Gram matrix when that coefficient moves. It sweeps over a working set, the atoms in use and
//! those whose correlation exceeds λ, until they settle, then looks at all atoms again and at the duality gap.
//!
//! It runs on the host's cores whatever the device; each signal is computed on its own, so results do not depend on the
//! number of threads or on the rest of the batch.

use super::duality::Certificate;
use super::threshold::soft_threshold_value;
use super::{BasisPursuitConfig, Problem, Pursued, Pursuit, SignalReport, StopReason, to_host};
use crate::error::Result;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Parameters of [`CoordinateDescent`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinateDescentConfig {
    /// Gap, sweeps, sign.
    pub basis: BasisPursuitConfig,
}

impl CoordinateDescentConfig {
    /// Checks the parameters.
    ///
    /// # Errors
    /// As [`BasisPursuitConfig::check`].
    pub fn init(self) -> Result<CoordinateDescent> {
        self.basis.check()?;
        Ok(CoordinateDescent { config: self })
    }
}

/// Coordinate descent with checked parameters.
#[derive(Debug, Clone)]
pub struct CoordinateDescent {
    config: CoordinateDescentConfig,
}

/// A sweep ends the work on the working set when no coefficient moved the objective by more than this part of what the gap
/// asked for still allows.
const SWEEP_TOLERANCE: f64 = 0.1;

/// Signals that are correlated with one atom while it is in the cache.
const SIGNALS_PER_TASK: usize = 16;

/// The dictionary on the host, shared by all signals.
struct Dense {
    /// Row j: effective atom j.
    atoms: Vec<f32>,
    gram: Vec<f32>,
    code_len: usize,
    signal_len: usize,
}

impl Pursuit for CoordinateDescent {
    fn name(&self) -> &'static str {
        "coordinate-descent"
    }

    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.refuse_shallower(self.name())?;
        problem.refuse_weights(self.name())?;
        problem.refuse_mask(self.name())?;
        problem.refuse_start(self.name())?;
        let (operator, lambda) = (problem.operator(), problem.lambda()?);
        let signals = to_host(problem.signals());
        let dense = Dense {
            atoms: to_host(operator.atoms()),
            gram: to_host(operator.gram()),
            code_len: operator.code().len(),
            signal_len: operator.signal().len(),
        };
        let correlations = dense.correlate(&signals);
        let nonnegative = self.config.basis.nonnegative;
        let largest: Vec<f32> =
            correlations.chunks_exact(dense.code_len).map(|row| largest(row, nonnegative)).collect();
        let lambda = lambda.resolve(&largest)?;
        let mut codes = vec![0.0f32; correlations.len()];
        let reports: Vec<SignalReport> = codes
            .par_chunks_exact_mut(dense.code_len)
            .zip(correlations.par_chunks_exact(dense.code_len))
            .zip(signals.par_chunks_exact(dense.signal_len))
            .zip(&lambda)
            .map(|(((code, correlations), signal), &lambda)| {
                let (code_found, report) = pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || self.pursue_one(&dense, signal, correlations, lambda),
                );
                code.copy_from_slice(&code_found);
                report
            })
            .collect();
        let data = TensorData::new(codes, operator.code().batched(reports.len()));
        Ok(Pursued::consistent(Tensor::from_data(data, &operator.device()), reports))
    }
}

impl CoordinateDescent {
    #[inline(always)]
    fn pursue_one(&self, dense: &Dense, signal: &[f32], correlations: &[f32], lambda: f32) -> (Vec<f32>, SignalReport) {
        let BasisPursuitConfig { gap, max_iterations, nonnegative } = self.config.basis;
        let mut code = vec![0.0f32; dense.code_len];
        // Dᵀ(y − Dγ), kept up to date with every move.
        let mut residual_correlations = correlations.to_vec();
        let mut working: Vec<usize> = Vec::new();
        let mut sweeps = 0;
        loop {
            let (certificate, nonzeros) = dense.certify(signal, &code, &residual_correlations, lambda, nonnegative);
            let converged = certificate.relative_gap() <= f64::from(gap);
            if converged || sweeps >= max_iterations {
                let report = SignalReport {
                    lambda,
                    iterations: sweeps,
                    objective: certificate.objective as f32,
                    relative_gap: certificate.relative_gap() as f32,
                    data_term: certificate.data_term as f32,
                    nonzeros,
                    stop: if converged { StopReason::DualityGap } else { StopReason::MaxIterations },
                };
                return (code, report);
            }
            working.clear();
            working.extend((0..dense.code_len).filter(|&atom| {
                let correlation = residual_correlations[atom];
                code[atom] != 0.0 || correlation > lambda || (!nonnegative && correlation < -lambda)
            }));
            let tolerance = SWEEP_TOLERANCE * f64::from(gap) * certificate.objective / working.len().max(1) as f64;
            loop {
                let mut progress = 0.0f32;
                for &atom in &working {
                    progress =
                        progress.max(dense.minimize(atom, &mut code, &mut residual_correlations, lambda, nonnegative));
                }
                sweeps += 1;
                if f64::from(progress) <= tolerance || sweeps >= max_iterations {
                    break;
                }
            }
            // Moves accumulate rounding; what the gap is computed from starts afresh.
            dense.refresh(correlations, &code, &mut residual_correlations);
        }
    }
}

impl Dense {
    /// Dᵀy for all signals. A matrix product of the device would round by the size of the batch.
    fn correlate(&self, signals: &[f32]) -> Vec<f32> {
        let mut correlations = vec![0.0f32; signals.len() / self.signal_len * self.code_len];
        correlations
            .par_chunks_mut(SIGNALS_PER_TASK * self.code_len)
            .zip(signals.par_chunks(SIGNALS_PER_TASK * self.signal_len))
            .for_each(|(correlations, signals)| {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for (index, atom) in self.atoms.chunks_exact(self.signal_len).enumerate() {
                            for (row, signal) in signals.chunks_exact(self.signal_len).enumerate() {
                                correlations[row * self.code_len + index] = inner_product(atom, signal);
                            }
                        }
                    },
                );
            });
        correlations
    }

    /// Minimises the objective exactly over one coefficient. Returns a bound on what that gained: ½ G_jj δ².
    #[inline(always)]
    fn minimize(&self, atom: usize, code: &mut [f32], correlations: &mut [f32], lambda: f32, nonnegative: bool) -> f32 {
        let row = &self.gram[atom * self.code_len..][..self.code_len];
        let energy = row[atom];
        if energy <= 0.0 {
            return 0.0;
        }
        let before = code[atom];
        let after = soft_threshold_value(correlations[atom] + energy * before, lambda, nonnegative) / energy;
        let change = after - before;
        if change == 0.0 {
            return 0.0;
        }
        code[atom] = after;
        for (correlation, &inner) in correlations.iter_mut().zip(row) {
            *correlation -= change * inner;
        }
        0.5 * energy * change * change
    }

    /// Dᵀy − Gγ from scratch.
    #[inline(always)]
    fn refresh(&self, correlations: &[f32], code: &[f32], out: &mut [f32]) {
        out.copy_from_slice(correlations);
        for (atom, &value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            let row = &self.gram[atom * self.code_len..][..self.code_len];
            for (correlation, &inner) in out.iter_mut().zip(row) {
                *correlation -= value * inner;
            }
        }
    }

    /// Objective and gap from the residual itself, and the number of non-zeros.
    #[inline(always)]
    fn certify(
        &self,
        signal: &[f32],
        code: &[f32],
        correlations: &[f32],
        lambda: f32,
        nonnegative: bool,
    ) -> (Certificate, usize) {
        let mut residual = signal.to_vec();
        let (mut one_norm, mut code_correlation, mut nonzeros) = (0.0f64, 0.0f64, 0);
        for (atom, &value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            let row = &self.atoms[atom * self.signal_len..][..self.signal_len];
            for (sample, &entry) in residual.iter_mut().zip(row) {
                *sample -= value * entry;
            }
            one_norm += f64::from(value.abs());
            code_correlation += f64::from(value) * f64::from(correlations[atom]);
            nonzeros += 1;
        }
        let energy = residual.iter().map(|&sample| f64::from(sample) * f64::from(sample)).sum();
        let largest = f64::from(largest(correlations, nonnegative));
        (Certificate::new(f64::from(lambda), energy, one_norm, code_correlation, largest), nonzeros)
    }
}

/// Inner product with sixteen partial sums, so that it vectorises and always rounds the same way.
#[inline(always)]
fn inner_product(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Largest correlation: in magnitude, or positive only.
#[inline(always)]
fn largest(correlations: &[f32], nonnegative: bool) -> f32 {
    correlations.iter().map(|&value| if nonnegative { value } else { value.abs() }).fold(0.0, f32::max)
}
