//! The projection of signals onto the model M_λ: min ‖y − x‖₂ over x with x = D_1 γ_1, γ_{i−1} = D_i γ_i and ‖γ_i‖ˢ_{0,∞} ≤ λ_i.
//!
//! J. Sulam, V. Papyan, Y. Romano, M. Elad, "Multi-Layer Convolutional Sparse Modeling: Pursuit and Dictionary Learning", IEEE
//! Trans. Signal Processing 66(15), 2018. Only γ_L is free, and what comes out is in the model, exactly: [`Representations`] cannot
//! be made otherwise. Two ways: [`GreedyProjection`] lets orthogonal matching pursuit grow until some layer's limit would be
//! exceeded; [`ConvexProjection`] takes basis pursuit's γ_L.

use super::greedy::{
    GreedySelection, check_nonzeros, check_residual, codes_of, least_squares, refuse_penalties, support_columns,
};
use super::layered::data_terms;
use super::{
    Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, Pursuit, SignalReport, StopReason, largest, to_host,
};
use crate::error::{Error, Result};
use crate::model::Operator;
use crate::model::stripe::{own_radius, stripe_norms};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Representations γ_1 … γ_L of signals in the model: γ_{i−1} = D_i γ_i, and every stripe norm within its limit.
#[derive(Debug, Clone)]
pub struct Representations {
    layers: Vec<Tensor<4>>,
    stripes: Vec<Vec<usize>>,
}

impl Representations {
    /// Propagates γ_L down and checks that every layer keeps its limit λ_i on the stripe of its own atoms.
    ///
    /// # Shapes
    /// - codes: γ_L as `[n, m_L, h_L, w_L]`; limits: λ_1 … λ_L.
    ///
    /// # Errors
    /// Codes of another shape; not one limit per layer; a layer that exceeds its limit.
    pub fn new(operator: &Operator, codes: Tensor<4>, limits: &[usize]) -> Result<Self> {
        check_limits(limits)?;
        check_limits_for(operator, limits)?;
        let count = codes.dims()[0];
        if codes.dims() != operator.code().batched(count) {
            return Err(Error::shape("deepest codes", operator.code(), format!("{:?}", codes.dims())));
        }
        let this = Self::propagated(operator, codes);
        for (index, (norms, &limit)) in this.stripes.iter().zip(limits).enumerate() {
            if let Some((row, norm)) = norms.iter().enumerate().find(|(_, norm)| **norm > limit) {
                return Err(Error::parameter(
                    format!("non-zeros in a stripe of layer {} of signal {row}", index + 1),
                    norm,
                    format!("at most {limit}"),
                ));
            }
        }
        Ok(this)
    }

    fn propagated(operator: &Operator, codes: Tensor<4>) -> Self {
        let layers = operator.propagate(codes);
        let stripes = layers
            .iter()
            .zip(operator.geometry().layers())
            .map(|(codes, layer)| stripe_norms(codes.clone(), own_radius(layer)))
            .collect();
        Self { layers, stripes }
    }

    /// Which of the signals keep all limits.
    fn admissible(operator: &Operator, codes: Tensor<4>, limits: &[usize]) -> Vec<bool> {
        let count = codes.dims()[0];
        let stripes = Self::propagated(operator, codes).stripes;
        (0..count).map(|row| stripes.iter().zip(limits).all(|(norms, &limit)| norms[row] <= limit)).collect()
    }

    /// γ_1 … γ_L, γ_i as `[n, m_i, h_i, w_i]`.
    pub fn layers(&self) -> &[Tensor<4>] {
        &self.layers
    }

    /// γ_L, `[n, m_L, h_L, w_L]`.
    pub fn deepest(&self) -> Tensor<4> {
        self.layers[self.layers.len() - 1].clone()
    }

    /// ‖γ_i‖ˢ_{0,∞} on the stripe of the layer's own atoms: one list per layer, one norm per signal.
    pub fn stripe_norms(&self) -> &[Vec<usize>] {
        &self.stripes
    }
}

/// What a projection found.
#[derive(Debug)]
pub struct Projected {
    /// The representations, in the model.
    pub representations: Representations,
    /// One report per signal.
    pub reports: Vec<SignalReport>,
}

impl From<Projected> for Pursued {
    fn from(projected: Projected) -> Self {
        Self::consistent(projected.representations.deepest(), projected.reports)
    }
}

fn check_limits(limits: &[usize]) -> Result<()> {
    match limits.iter().position(|&limit| limit == 0) {
        Some(layer) => {
            Err(Error::parameter(format!("limit of layer {}", layer + 1), 0, "at least 1 non-zero in a stripe"))
        }
        None => Ok(()),
    }
}

pub(super) fn check_limits_for(operator: &Operator, limits: &[usize]) -> Result<()> {
    let depth = operator.geometry().depth();
    if limits.len() == depth {
        return Ok(());
    }
    Err(Error::shape("limits of the stripe norms", format!("{depth}, one per layer"), limits.len()))
}

/// Parameters of [`GreedyProjection`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GreedyProjectionConfig {
    /// λ_1 … λ_L: the most non-zeros in a stripe of every layer's own atoms, each at least 1.
    pub limits: Vec<usize>,
    /// Length ‖y − x‖₂ of the residual at which a signal is finished, at least 0: the noise level. Default 0.
    #[serde(default)]
    pub residual: f32,
    /// Most non-zeros of γ_L, from 1 to the smaller of the numbers of code and of signal values. Default: the limits alone count.
    #[serde(default)]
    pub nonzeros: Option<usize>,
    /// Whether γ_L is kept non-negative. Default no.
    #[serde(default)]
    pub nonnegative: bool,
}

impl GreedyProjectionConfig {
    /// With those limits, both signs, whatever the residual.
    pub fn new(limits: Vec<usize>) -> Self {
        Self { limits, residual: 0.0, nonzeros: None, nonnegative: false }
    }

    /// Checks the parameters as far as they don't depend on the model.
    ///
    /// # Errors
    /// A limit of 0; no non-zeros; a residual that is negative or not finite.
    pub fn init(self) -> Result<GreedyProjection> {
        check_limits(&self.limits)?;
        if self.nonzeros == Some(0) {
            return Err(Error::parameter("nonzeros", 0, "at least 1"));
        }
        check_residual(self.residual)?;
        Ok(GreedyProjection { config: self })
    }
}

/// Projection by orthogonal matching pursuit, with checked parameters.
///
/// The support grows atom by atom; the signal and all its representations are those of the last support that kept every limit. Where
/// codes are kept non-negative, atoms may leave the support for others, as in orthogonal matching pursuit.
#[derive(Debug, Clone)]
pub struct GreedyProjection {
    config: GreedyProjectionConfig,
}

/// A support with its coefficients and what it says to the report.
#[derive(Clone)]
struct Admissible {
    support: Vec<usize>,
    coefficients: Vec<f64>,
    report: SignalReport,
}

impl GreedyProjection {
    /// Projects a batch of signals. Takes a mask; ignores λ.
    ///
    /// # Errors
    /// Not one limit per layer; more non-zeros than dimensions; weights, penalties of shallower layers or codes to start from.
    pub fn project(&self, problem: &Problem) -> Result<Projected> {
        let operator = problem.operator();
        let limits = &self.config.limits;
        check_limits_for(operator, limits)?;
        refuse_penalties(problem, self.name())?;
        let level = f64::from(self.config.residual).powi(2);
        let most = match self.config.nonzeros {
            Some(nonzeros) => {
                check_nonzeros(operator, nonzeros)?;
                nonzeros
            }
            None => operator.code().len().min(operator.signal().len()),
        };
        let mut growth = GreedySelection::new(problem, self.config.nonnegative)?;
        let mut found: Vec<Admissible> = (0..problem.count())
            .map(|row| Admissible {
                support: Vec::new(),
                coefficients: Vec::new(),
                report: growth.report(row, StopReason::Exhausted),
            })
            .collect();
        let mut open: Vec<usize> = (0..problem.count()).collect();
        loop {
            open.retain(|&row| {
                if growth.approximations[row].residual_energy <= level {
                    found[row].report.stop = StopReason::Residual;
                    return false;
                }
                let full = growth.approximations[row].support.len() >= most;
                if full && self.config.nonzeros.is_some() {
                    found[row].report.stop = StopReason::Nonzeros;
                }
                !full
            });
            if open.is_empty() {
                break;
            }
            let exhausted = growth.grow(&open)?;
            open.retain(|row| !exhausted.contains(row));
            // A pick that depends on the support changes nothing.
            let grown: Vec<usize> = open
                .iter()
                .copied()
                .filter(|&row| growth.approximations[row].picks > found[row].report.iterations)
                .collect();
            let supports = grown.iter().map(|&row| {
                let state = &growth.approximations[row];
                (state.support.as_slice(), state.coefficients.as_slice())
            });
            let admissible = Representations::admissible(operator, codes_of(operator, supports), limits);
            for (row, admissible) in grown.into_iter().zip(admissible) {
                let state = &growth.approximations[row];
                if admissible {
                    found[row] = Admissible {
                        support: state.support.clone(),
                        coefficients: state.coefficients.clone(),
                        report: growth.report(row, StopReason::Exhausted),
                    };
                } else {
                    found[row].report.stop = StopReason::Limit;
                    open.retain(|&other| other != row);
                }
            }
        }
        let supports = found.iter().map(|found| (found.support.as_slice(), found.coefficients.as_slice()));
        let representations = Representations::new(operator, codes_of(operator, supports), limits)?;
        Ok(Projected { representations, reports: found.into_iter().map(|found| found.report).collect() })
    }
}

impl Pursuit for GreedyProjection {
    fn name(&self) -> &'static str {
        "greedy-projection"
    }

    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        Ok(self.project(problem)?.into())
    }
}

/// Parameters of [`ConvexProjection`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvexProjectionConfig {
    /// λ_1 … λ_L: the most non-zeros in a stripe of every layer's own atoms, each at least 1.
    pub limits: Vec<usize>,
    /// The algorithm of basis pursuit. Default: whichever suits.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Gap, iterations, sign of basis pursuit.
    #[serde(default)]
    pub basis: BasisPursuitConfig,
    /// Factor > 1 by which a signal's λ is raised until all limits are kept. Default 1.2.
    #[serde(default = "default_growth")]
    pub growth: f32,
    /// Whether the coefficients on the support found are replaced by those of least squares. Default no.
    #[serde(default)]
    pub debias: bool,
}

fn default_growth() -> f32 {
    1.2
}

impl ConvexProjectionConfig {
    /// With the defaults.
    pub fn new(limits: Vec<usize>) -> Self {
        Self {
            limits,
            algorithm: Algorithm::Auto,
            basis: BasisPursuitConfig::default(),
            growth: default_growth(),
            debias: false,
        }
    }

    /// Checks the parameters as far as they don't depend on the model.
    ///
    /// # Errors
    /// A limit of 0; a growth that is not above 1 and finite; as [`BasisPursuitConfig::check`].
    pub fn init(self) -> Result<ConvexProjection> {
        check_limits(&self.limits)?;
        self.basis.check()?;
        if !(self.growth.is_finite() && self.growth > 1.0) {
            return Err(Error::parameter("growth", self.growth, "a finite factor > 1"));
        }
        Ok(ConvexProjection { config: self })
    }
}

/// Projection by basis pursuit, with checked parameters.
///
/// γ_L = argmin ½‖y − D^(L)γ‖² + λ‖γ‖₁, with λ raised, signal by signal, from the one given until every layer keeps its limit: at
/// λ_max the zero code does. De-biasing replaces γ_L on its support by least squares; where codes are kept non-negative, atoms
/// whose coefficient comes out negative leave the support, and a code that would exceed a limit thereby stays
/// as it was.
#[derive(Debug, Clone)]
pub struct ConvexProjection {
    config: ConvexProjectionConfig,
}

/// The smallest λ that is raised, as a part of λ_max: a λ of 0 would never grow.
const SMALLEST_RAISED: f32 = 1e-3;

impl ConvexProjection {
    /// Projects a batch of signals. Takes λ, weights of the deepest layer's atoms, a mask and codes to start from.
    ///
    /// Objective and gap of the reports are basis pursuit's at the λ reported; the data term and the non-zeros are those of the
    /// code returned.
    ///
    /// # Errors
    /// Not one limit per layer; penalties of shallower layers; as the algorithm of basis pursuit.
    pub fn project(&self, problem: &Problem) -> Result<Projected> {
        let operator = problem.operator();
        let limits = &self.config.limits;
        check_limits_for(operator, limits)?;
        problem.refuse_shallower(self.name())?;
        let pursuit = self.config.algorithm.init_for(&self.config.basis, problem)?;
        let Pursued { codes, mut reports, .. } = pursuit.solve(problem)?;
        if let Some(row) = reports.iter().position(|report| !report.objective.is_finite()) {
            // Its λ would be raised for ever.
            return Err(Error::parameter(format!("signal {row}"), "not finite", "finite samples where they are known"));
        }
        let len = operator.code().len();
        let mut codes = to_host(operator.flat(codes));
        let tensor = |codes: &[f32]| {
            let dims = operator.code().batched(codes.len() / len);
            Tensor::<4>::from_data(TensorData::new(codes.to_vec(), dims), &operator.device())
        };
        let mut kept = Representations::admissible(operator, tensor(&codes), limits);
        let mut open: Vec<usize> = (0..problem.count()).filter(|&row| !kept[row]).collect();
        let floors = match open.is_empty() {
            true => Vec::new(),
            false => {
                let correlations = operator.analyze_rows(problem.signals());
                to_host(largest(correlations, &problem.weights(problem.depth()), self.config.basis.nonnegative))
            }
        };
        while !open.is_empty() {
            let lambda: Vec<f32> = open
                .iter()
                .map(|&row| reports[row].lambda.max(SMALLEST_RAISED * floors[row]) * self.config.growth)
                .collect();
            let part = problem.part(&open, Lambda::PerSignal(lambda))?;
            let raised = self.config.algorithm.init_for(&self.config.basis, &part)?.solve(&part)?;
            kept = Representations::admissible(operator, raised.codes.clone(), limits);
            let raised_codes = to_host(operator.flat(raised.codes));
            for ((&row, report), code) in open.iter().zip(raised.reports).zip(raised_codes.chunks_exact(len)) {
                reports[row] = SignalReport { stop: StopReason::Limit, ..report };
                codes[row * len..][..len].copy_from_slice(code);
            }
            open = open.into_iter().zip(kept).filter(|(_, kept)| !kept).map(|(row, _)| row).collect();
        }
        if self.config.debias {
            let debiased = self.debias(problem, &codes)?;
            let kept = Representations::admissible(operator, tensor(&debiased), limits);
            for (row, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                codes[row * len..][..len].copy_from_slice(&debiased[row * len..][..len]);
            }
        }
        let representations = Representations::new(operator, tensor(&codes), limits)?;
        let terms = data_terms(problem, &representations.deepest());
        for (report, (data_term, nonzeros)) in reports.iter_mut().zip(terms) {
            report.data_term = data_term;
            report.nonzeros = nonzeros;
        }
        Ok(Projected { representations, reports })
    }

    /// Least squares on the support of every code.
    fn debias(&self, problem: &Problem, codes: &[f32]) -> Result<Vec<f32>> {
        let work = problem.work();
        let operator = problem.operator();
        let (len, signal_len) = (operator.code().len(), operator.signal().len());
        let (signals, mask) = (to_host(problem.signals()), problem.mask().map(to_host));
        let mut out = vec![0.0f32; codes.len()];
        for (row, code) in codes.chunks_exact(len).enumerate() {
            let signal = &signals[row * signal_len..][..signal_len];
            let mask = mask.as_ref().map(|mask| &mask[row * signal_len..][..signal_len]);
            let mut support: Vec<usize> = (0..len).filter(|&place| code[place] != 0.0).collect();
            loop {
                let values = least_squares(&support_columns(operator, mask, &support, &work)?, signal, &work)?;
                let negative = self.config.basis.nonnegative && values.iter().any(|value| *value < 0.0);
                if !negative {
                    support.iter().zip(values).for_each(|(&place, value)| out[row * len + place] = value as f32);
                    break;
                }
                support =
                    support.into_iter().zip(values).filter(|(_, value)| *value > 0.0).map(|(place, _)| place).collect();
            }
        }
        Ok(out)
    }
}

impl Pursuit for ConvexProjection {
    fn name(&self) -> &'static str {
        "convex-projection"
    }

    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        problem.check_values()?;
        Ok(self.project(problem)?.into())
    }
}
