//! Pursuits: how a signal becomes representations.
//!
//! Every pursuit implements [`Pursuit`]: it takes an [`Operator`] (a model on signals of one shape), a batch of signals and
//! the weight of the penalty, and returns the deepest codes with a report per signal. The intermediate representations follow
//! by [`Operator::propagate`], since γ_{i−1} = D_i γ_i.

pub mod coordinate_descent;
pub mod duality;
pub mod greedy;
pub mod proximal_gradient;
pub mod subspace;
pub mod threshold;

pub use coordinate_descent::{CoordinateDescent, CoordinateDescentConfig};
pub use proximal_gradient::{Acceleration, ProximalGradient, ProximalGradientConfig};

use crate::error::{Error, Result};
use crate::model::Operator;
use crate::model::operator::Application;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Weight λ of the ℓ1 norm in ½‖y − D^(L)γ‖² + λ‖γ‖₁, with D^(L) as it stands in the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lambda {
    /// The same λ ≥ 0 for every signal.
    Absolute(f32),
    /// This fraction, in [0, 1], of each signal's λ_max: the smallest λ at which its code is zero, ‖D^(L)ᵀy‖_∞ (for
    /// non-negative codes the largest correlation).
    Relative(f32),
    /// One λ ≥ 0 for each signal of the batch.
    PerSignal(Vec<f32>),
}

impl Lambda {
    /// Checks the range.
    ///
    /// # Errors
    /// Negative or non-finite values, a fraction above 1.
    pub fn check(&self) -> Result<()> {
        let weight = |value: f32| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(Error::parameter("lambda", value, "a finite number ≥ 0"))
            }
        };
        match self {
            Self::Absolute(value) => weight(*value),
            Self::Relative(fraction) if (0.0..=1.0).contains(fraction) => Ok(()),
            Self::Relative(fraction) => {
                Err(Error::parameter("relative lambda", fraction, "a fraction in [0, 1] of λ_max"))
            }
            Self::PerSignal(values) => values.iter().try_for_each(|&value| weight(value)),
        }
    }

    /// λ of every signal, given each signal's λ_max.
    ///
    /// # Errors
    /// As [`Self::check`]; a number of values that is not the number of signals.
    fn resolve(&self, largest: &[f32]) -> Result<Vec<f32>> {
        self.check()?;
        match self {
            Self::Absolute(value) => Ok(vec![*value; largest.len()]),
            Self::Relative(fraction) => Ok(largest.iter().map(|largest| fraction * largest).collect()),
            Self::PerSignal(values) if values.len() == largest.len() => Ok(values.clone()),
            Self::PerSignal(values) => Err(Error::shape(
                "lambda per signal",
                format!("{} values, one per signal", largest.len()),
                values.len(),
            )),
        }
    }

    /// The part that belongs to a batch of `count` signals from `start` on.
    pub fn batch(&self, start: usize, count: usize) -> Self {
        match self {
            Self::PerSignal(values) => {
                let end = (start + count).min(values.len());
                Self::PerSignal(values[start.min(end)..end].to_vec())
            }
            other => other.clone(),
        }
    }
}

/// Why a pursuit ended on a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// The relative duality gap reached what was asked for.
    DualityGap,
    /// The permitted number of iterations was used up.
    MaxIterations,
}

/// What a pursuit did on one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalReport {
    /// λ of this signal.
    pub lambda: f32,
    /// Iterations (of coordinate descent: sweeps).
    pub iterations: usize,
    /// ½‖y − D^(L)γ‖² + λ‖γ‖₁.
    pub objective: f32,
    /// Duality gap divided by the objective: how far, at most, the objective is above its minimum.
    pub relative_gap: f32,
    /// ½‖y − D^(L)γ‖², the objective's data term.
    pub data_term: f32,
    /// Non-zeros of γ_L.
    pub nonzeros: usize,
    /// Why it ended.
    pub stop: StopReason,
}

/// What a pursuit found.
#[derive(Debug)]
pub struct Pursued {
    /// The deepest codes γ_L, `[n, m_L, h_L, w_L]`.
    pub codes: Tensor<4>,
    /// One report per signal.
    pub reports: Vec<SignalReport>,
}

/// An algorithm that turns signals into codes.
pub trait Pursuit: Send + Sync {
    /// The algorithm's name.
    fn name(&self) -> &'static str;

    /// Codes a batch of signals.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as `operator.signal()`.
    ///
    /// # Errors
    /// Signals of another shape; a [`Lambda`] that is out of range or does not fit the number of signals.
    fn pursue(&self, operator: &Operator, signals: Tensor<4>, lambda: &Lambda) -> Result<Pursued>;
}

/// What every basis pursuit is told, whatever its algorithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasisPursuitConfig {
    /// Relative duality gap at which a signal is finished, in (0, 1). Default 1e-4.
    #[serde(default = "default_gap")]
    pub gap: f32,
    /// Iterations after which a signal is finished at the latest, at least 1. Default 10,000.
    #[serde(default = "default_iterations")]
    pub max_iterations: usize,
    /// Whether codes are kept non-negative. Default no.
    #[serde(default)]
    pub nonnegative: bool,
}

fn default_gap() -> f32 {
    1e-4
}

fn default_iterations() -> usize {
    10_000
}

impl Default for BasisPursuitConfig {
    fn default() -> Self {
        Self { gap: default_gap(), max_iterations: default_iterations(), nonnegative: false }
    }
}

impl BasisPursuitConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A gap outside (0, 1), no iteration.
    pub fn check(&self) -> Result<()> {
        if !(self.gap > 0.0 && self.gap < 1.0) {
            return Err(Error::parameter("gap", self.gap, "a relative duality gap in (0, 1)"));
        }
        if self.max_iterations == 0 {
            return Err(Error::parameter("max-iterations", 0, "at least 1"));
        }
        Ok(())
    }

    /// The algorithm that suits an operator: coordinate descent where D^(L) is a dense matrix with a Gram matrix on a CPU,
    /// FISTA everywhere else.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init_for(&self, operator: &Operator) -> Result<Box<dyn Pursuit>> {
        Algorithm::Auto.init(self, operator)
    }
}

/// The algorithms for basis pursuit on the effective dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Coordinate descent where the Gram matrix is used, else FISTA.
    #[default]
    Auto,
    /// Proximal gradient steps.
    Ista,
    /// Accelerated proximal gradient steps with adaptive restart.
    Fista,
    /// Coordinate descent on the Gram matrix.
    CoordinateDescent,
}

impl Algorithm {
    /// Every algorithm, with the name that flags use.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Auto, "auto"),
        (Self::Ista, "ista"),
        (Self::Fista, "fista"),
        (Self::CoordinateDescent, "coordinate-descent"),
    ];

    /// The algorithm with those settings, ready to run.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn init(self, config: &BasisPursuitConfig, operator: &Operator) -> Result<Box<dyn Pursuit>> {
        let proximal = |acceleration| ProximalGradientConfig {
            basis: config.clone(),
            ..ProximalGradientConfig::new(acceleration)
        };
        Ok(match self {
            Self::Auto if operator.application() == Application::Gram => {
                Self::CoordinateDescent.init(config, operator)?
            }
            Self::Auto | Self::Fista => Box::new(proximal(Acceleration::Fista).init()?),
            Self::Ista => Box::new(proximal(Acceleration::Ista).init()?),
            Self::CoordinateDescent => Box::new(CoordinateDescentConfig { basis: config.clone() }.init()?),
        })
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(algorithm, _)| *algorithm).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("expected one of {}, found {text:?}", names.join(", "))
        })
    }
}

/// Refuses signals of another shape than the operator's.
pub(crate) fn check_signals(operator: &Operator, signals: &Tensor<4>) -> Result<()> {
    let [count, channels, height, width] = signals.dims();
    if operator.signal().batched(count) != [count, channels, height, width] {
        return Err(Error::shape("signals", operator.signal(), format!("{channels}x{height}x{width}")));
    }
    Ok(())
}
