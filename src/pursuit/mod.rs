//! Pursuits: how a signal becomes representations.
//!
//! Every pursuit implements [`Pursuit`]: it takes a [`Problem`] (a model on signals of one shape, a batch of signals, the weights
//! of the penalties, a mask, codes to start from) and returns the representations with a report per signal.

mod active_set;
mod by_windows;
mod columns;
pub(crate) mod config;
pub(crate) mod convergence;
pub mod coordinate_descent;
pub(crate) mod duality;
pub mod greedy;
mod handover;
pub mod holistic;
pub mod implicit;
pub(crate) mod joint;
pub mod layered;
mod magnitude;
pub mod multi_layer;
pub(crate) mod observer;
#[cfg(feature = "cube")]
mod on_gpu;
mod parts;
pub(crate) mod problem;
pub mod projection;
pub mod proximal_gradient;
pub(crate) mod recipe;
pub mod residual_descent;
pub mod splitting;

pub use config::PursuitConfig;
pub use convergence::Convergence;
pub use coordinate_descent::CoordinateDescent;
pub use greedy::{OrthogonalMatchingPursuit, OrthogonalMatchingPursuitConfig, Selection};
pub use holistic::{HolisticPursuit, HolisticPursuitConfig};
pub use layered::{LayeredBasisPursuit, LayeredBasisPursuitConfig, LayeredThresholding, Threshold};
pub use multi_layer::{MultiLayerProximalGradient, MultiLayerProximalGradientConfig};
pub use observer::Observer;
pub use parts::solve_in_parts;
pub use problem::Problem;
pub(crate) use problem::check_squares;
pub use projection::{
    ConvexProjection, ConvexProjectionConfig, GreedyProjection, GreedyProjectionConfig, Projected, Representations,
};
pub use proximal_gradient::{Acceleration, ProximalGradient, ProximalGradientConfig};
pub use recipe::{PursuitName, Recipe};
pub use residual_descent::ResidualDescent;
pub use splitting::{MultiLayerSplitting, MultiLayerSplittingConfig};

use crate::error::{Error, Result};
use crate::geometry::SignalShape;
pub(crate) use crate::kernels::sparse::to_host;
use crate::model::Operator;
use crate::text::counted;
use burn::tensor::{Int, Tensor, TensorData};
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

    /// Whether it is 0 for every signal.
    fn is_zero(&self) -> bool {
        match self {
            Self::Absolute(value) | Self::Relative(value) => *value == 0.0,
            Self::PerSignal(values) => values.iter().all(|value| *value == 0.0),
        }
    }

    /// Checks the range, and the number of values for `count` signals.
    fn check_for(&self, count: usize) -> Result<()> {
        self.check()?;
        match self {
            Self::PerSignal(values) if values.len() != count => Err(Error::shape(
                "lambda per signal",
                format!("{}, one per signal", counted(count, "value")),
                values.len(),
            )),
            _ => Ok(()),
        }
    }

    /// λ of every signal on its device, `[n, 1]`, given each signal's λ_max, `[n, 1]`: no number goes through the host.
    fn rows(&self, largest: Tensor<2>) -> Result<Tensor<2>> {
        let [count, _] = largest.dims();
        self.check_for(count)?;
        Ok(match self {
            Self::Absolute(value) => largest.zeros_like() + *value,
            Self::Relative(fraction) => largest * *fraction,
            Self::PerSignal(values) => {
                Tensor::from_data(TensorData::new(values.clone(), [count, 1]), &largest.device())
            }
        })
    }

    /// λ of every signal, given each signal's λ_max.
    ///
    /// # Errors
    /// As [`Self::check`]; a number of values that is not the number of signals.
    fn resolve(&self, largest: &[f32]) -> Result<Vec<f32>> {
        self.check_for(largest.len())?;
        Ok(match self {
            Self::Absolute(value) => vec![*value; largest.len()],
            Self::Relative(fraction) => largest.iter().map(|largest| fraction * largest).collect(),
            Self::PerSignal(values) => values.clone(),
        })
    }

    /// All values times a factor ≥ 0.
    #[must_use]
    pub fn scaled(&self, factor: f32) -> Self {
        match self {
            Self::Absolute(value) => Self::Absolute(factor * value),
            Self::Relative(fraction) => Self::Relative(factor * fraction),
            Self::PerSignal(values) => Self::PerSignal(values.iter().map(|value| factor * value).collect()),
        }
    }

    /// Each signal's weight times its factor; a fraction of λ_max stays what it is. What would be infinite makes codes zero as it is.
    fn times(&self, factors: &[f32]) -> Self {
        let times = |(value, factor): (&f32, &f32)| (value * factor).min(f32::MAX);
        match self {
            Self::Absolute(value) => Self::PerSignal(factors.iter().map(|factor| times((value, factor))).collect()),
            Self::Relative(fraction) => Self::Relative(*fraction),
            Self::PerSignal(values) => Self::PerSignal(values.iter().zip(factors).map(times).collect()),
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
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum StopReason {
    /// The relative duality gap reached what was asked for.
    DualityGap,
    /// The permitted number of iterations was used up.
    MaxIterations,
    /// The permitted number of non-zeros was reached.
    Nonzeros,
    /// The residual is no longer than what was asked for.
    Residual,
    /// One more non-zero would have exceeded the limit of some layer.
    Limit,
    /// No atom is left that would make the residual shorter.
    Exhausted,
    /// The iterates stopped moving, at a point that the duality gap does not certify.
    FixedPoint,
    /// A pass through the layers, which is all there is to do.
    Direct,
}

impl StopReason {
    /// Its number in files: its place in the declaration.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// What a pursuit did on one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalReport {
    /// λ of this signal in the deepest layer; 0 where the pursuit has no penalty.
    pub lambda: f32,
    /// Iterations (of coordinate descent: sweeps, or, by its kernel for GPUs, coefficients moved; of a pursuit layer by layer: the sum over
    /// layers).
    pub iterations: usize,
    /// What the pursuit minimises: ½‖y − D^(L)γ‖² + λ‖γ‖₁ unless its documentation says otherwise; the data term where there is
    /// no penalty.
    pub objective: f32,
    /// Duality gap divided by the objective: how far, at most, the objective is above its minimum. 1 where nothing is known but
    /// that the minimum is not negative. By active sets the objective counts as 10⁻⁹ of ½‖y‖² at least, which is what codes in single precision
    /// leave.
    pub relative_gap: f32,
    /// ½‖y − D^(L)γ_L‖² over the known samples.
    pub data_term: f32,
    /// Non-zeros of γ_L.
    pub nonzeros: usize,
    /// Why it ended.
    pub stop: StopReason,
    /// The algorithm that the signal was handed to, where the one that was asked for stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_by: Option<Algorithm>,
}

/// What a pursuit found.
#[derive(Debug, Clone)]
pub struct Pursued {
    /// The deepest codes γ_L, `[n, m_L, h_L, w_L]`.
    pub codes: Tensor<4>,
    /// The pursuit's own estimates of γ_1 … γ_{L−1} as `[n, m_i, h_i, w_i]`, where they are more than what γ_L determines: of
    /// pursuits that do not keep γ_{i−1} = D_i γ_i exactly. Empty for all others.
    pub shallower: Vec<Tensor<4>>,
    /// One report per signal.
    pub reports: Vec<SignalReport>,
}

impl Pursued {
    /// Codes that determine the shallower representations.
    pub fn consistent(codes: Tensor<4>, reports: Vec<SignalReport>) -> Self {
        Self { codes, shallower: Vec::new(), reports }
    }

    /// γ_1 … γ_L as the pursuit sees them: its own estimates, else γ_{i−1} = D_i γ_i.
    ///
    /// # Shapes
    /// - out: L tensors, γ_i as `[n, m_i, h_i, w_i]`.
    pub fn representations(&self, operator: &Operator) -> Vec<Tensor<4>> {
        if self.shallower.is_empty() {
            return operator.propagate(self.codes.clone());
        }
        self.shallower.iter().chain([&self.codes]).cloned().collect()
    }
}

/// An algorithm that turns signals into codes.
pub trait Pursuit: Send + Sync {
    /// The algorithm's name.
    fn name(&self) -> &'static str;

    /// Codes a batch of signals.
    ///
    /// # Errors
    /// A problem that has something that the pursuit does not take, or lacks something that it needs;
    /// [`Error::Interrupted`] where the problem's observer ended it.
    fn solve(&self, problem: &Problem) -> Result<Pursued>;

    /// Codes a batch of signals with one penalty, that of the deepest layer. Pursuits that have no penalty ignore it.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as `operator.signal()`.
    ///
    /// Signals are coded in parts where the device has no memory for all of them, see [`solve_in_parts`].
    ///
    /// # Errors
    /// Signals of another shape; a [`Lambda`] that is out of range or does not fit the number of signals.
    fn pursue(&self, operator: &Operator, signals: Tensor<4>, lambda: &Lambda) -> Result<Pursued> {
        solve_in_parts(self, &Problem::new(operator, signals)?.with_lambda(lambda.clone())?)
    }
}

/// A pursuit that can run a fixed number of iterations by tensor operations alone.
///
/// No decision is taken on the host between the first and the last iteration, so that the result can be differentiated with
/// respect to the signals and, where the operator's filters are tracked, to the dictionaries: the pursuit as the layers of a
/// network. Step sizes are taken for constants. Of codes that a pursuit has run to its gap, [`implicit`] has the derivatives.
pub trait Unrolled: Pursuit {
    /// The deepest codes after `iterations` iterations, the same iterates as those of [`Pursuit::solve`].
    ///
    /// # Shapes
    /// - out: `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// As [`Pursuit::solve`].
    fn unrolled(&self, problem: &Problem, iterations: usize) -> Result<Tensor<4>> {
        self.unrolled_with(problem, iterations, &Learned::default())
    }

    /// [`Self::unrolled`] with what a network has learned in place of what follows from the problem; gradients reach all of it.
    ///
    /// # Errors
    /// As [`Pursuit::solve`]; learned values of a shape that does not fit the problem or the number of iterations.
    fn unrolled_with(&self, problem: &Problem, iterations: usize, learned: &Learned) -> Result<Tensor<4>>;
}

/// What an unrolled pursuit may have learned, iteration by iteration (K. Gregor, Y. LeCun, "Learning Fast Approximations of Sparse
/// Coding", ICML 2010; for convolutions H. Sreter, R. Giryes, "Learned Convolutional Sparse Coding", ICASSP 2018). The default is
/// nothing: the pursuit as it is.
#[derive(Debug, Clone, Default)]
pub struct Learned<'a> {
    /// In place of D^(L)ᵀ: the adjoint of this operator, of the same shapes.
    pub analysis: Option<&'a Operator>,
    /// In place of D^(L)ᵀ in every iteration: as many operators of the same shapes; none: [`Self::analysis`]. Not for a pursuit that
    /// steps in every layer.
    pub analyses: Vec<&'a Operator>,
    /// Momentum of every iteration but the first, in place of FISTA's: what is added of the last move, `[iterations, 1]`. Not for a
    /// pursuit that steps in every layer.
    pub momentum: Option<Tensor<2>>,
    /// Factors > 0 on the steps, `[iterations, 1]`, or `[iterations, L]` for a pursuit that steps in every layer. One row serves
    /// all iterations.
    pub steps: Option<Tensor<2>>,
    /// Factors ≥ 0 on the penalties of every layer's atoms: for each penalised layer, the deepest last, `[iterations, m_i]`, or one
    /// row for all iterations. Empty where none were learned.
    pub thresholds: Vec<Tensor<2>>,
    /// Last iterations that gradients go through; all that the others find counts as a constant. `None`: all of them.
    pub gradients_through: Option<usize>,
}

impl Learned<'_> {
    /// Whether what an iteration, from 0, of so many leaves behind counts as a constant.
    fn ends_gradients(&self, iteration: usize, iterations: usize) -> bool {
        self.gradients_through.is_some_and(|last| iteration < iterations.saturating_sub(last))
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.analysis.is_none()
            && self.analyses.is_empty()
            && self.momentum.is_none()
            && self.steps.is_none()
            && self.thresholds.is_empty()
    }

    /// Whether everything has the shapes that the problem demands, `layers` being those that the pursuit steps in.
    fn check(&self, operator: &Operator, iterations: usize, layers: usize) -> Result<()> {
        let geometry = operator.geometry();
        let fits = |what: &str, found: [usize; 2], columns: usize| {
            if [1, iterations.max(1)].contains(&found[0]) && found[1] == columns {
                return Ok(());
            }
            let expected = format!("[{iterations}, {columns}], or 1 in place of {iterations}");
            Err(Error::shape(what, expected, format!("{found:?}")))
        };
        if !self.analyses.is_empty() && self.analyses.len() != iterations.max(1) {
            let expected = format!("none or {iterations}, one per iteration");
            return Err(Error::shape("learned analyses", expected, self.analyses.len()));
        }
        if layers > 1 && (!self.analyses.is_empty() || self.momentum.is_some()) {
            let expected = "none with a pursuit that steps in every layer";
            return Err(Error::parameter("learned analyses and momentum", "given", expected));
        }
        if let Some(momentum) = &self.momentum {
            fits("learned momentum", momentum.dims(), 1)?;
        }
        for analysis in self.analysis.iter().chain(&self.analyses) {
            if analysis.signal() == operator.signal() && analysis.code() == operator.code() {
                continue;
            }
            let expected = format!("{} to {}", operator.signal(), operator.code());
            let found = format!("{} to {}", analysis.signal(), analysis.code());
            return Err(Error::shape("learned analysis", expected, found));
        }
        if let Some(steps) = &self.steps {
            fits("learned steps", steps.dims(), layers)?;
        }
        if self.thresholds.is_empty() {
            return Ok(());
        }
        if self.thresholds.len() != layers {
            return Err(Error::shape("learned thresholds", format!("{layers}, one per layer"), self.thresholds.len()));
        }
        let deepest = geometry.depth();
        let shapes = &geometry.layers()[deepest - layers..];
        self.thresholds
            .iter()
            .zip(shapes)
            .try_for_each(|(factors, layer)| fits("learned thresholds", factors.dims(), layer.code.channels))
    }

    /// What analyses in an iteration, where it is not the dictionary.
    fn analysis_of(&self, iteration: usize) -> Option<&Operator> {
        self.analyses.get(iteration).copied().or(self.analysis)
    }

    /// The momentum that an iteration's move is followed by, `[1, 1]`: that of the next one.
    fn momentum_after(&self, iteration: usize) -> Option<Tensor<2>> {
        let momentum = self.momentum.clone()?;
        let row = (iteration + 1).min(momentum.dims()[0] - 1);
        Some(momentum.slice([row..row + 1, 0..1]))
    }

    /// The factor on the step in an iteration (from 0) and a layer (from 0, of those that the pursuit steps in), `[1, 1]`.
    fn step(&self, iteration: usize, layer: usize) -> Option<Tensor<2>> {
        let steps = self.steps.clone()?;
        let row = iteration.min(steps.dims()[0] - 1);
        Some(steps.slice([row..row + 1, layer..layer + 1]))
    }

    /// The factors on the penalties in an iteration and a layer, as they lie on its code, `[1, values of γ_i]`.
    fn threshold(&self, iteration: usize, layer: usize, code: SignalShape) -> Option<Tensor<2>> {
        let factors = self.thresholds.get(layer)?.clone();
        let (row, atoms) = (iteration.min(factors.dims()[0] - 1), code.channels);
        let factors = factors.slice([row..row + 1, 0..atoms]).reshape([1, atoms, 1, 1]);
        Some(factors.expand(code.batched(1)).reshape([1, code.len()]))
    }
}

/// What every basis pursuit is told, whatever its algorithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasisPursuitConfig {
    /// Relative duality gap at which a signal is finished, in (0, 1). Default 1e-4. Gaps below 1e-5 drown in the rounding of
    /// `f32`: proximal gradient steps may then go on to the last iteration.
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
            return Err(Error::parameter("max_iterations", 0, "at least 1"));
        }
        Ok(())
    }

    /// The algorithm that suits an operator: descent on the residual for convolutions with some tens of positions, coordinate
    /// descent where codes and the atoms' inner products are few enough for it, FISTA everywhere else. Where positions share no sample,
    /// what suits a single window.
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
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Algorithm {
    /// Descent on the residual where D^(L) is a convolution with some tens of positions or more, else coordinate descent where codes
    /// are small enough for it, else FISTA.
    #[default]
    Auto,
    /// Proximal gradient steps.
    Ista,
    /// Accelerated proximal gradient steps with adaptive restart.
    Fista,
    /// Coordinate descent on a working set, with the atoms' inner products at hand.
    CoordinateDescent,
    /// Descent on the residual of a convolution, on a working set.
    ResidualDescent,
    /// The exact active-set method in `f64` that coordinate descent ends with where it stalls.
    ActiveSet,
}

impl Algorithm {
    /// What [`Self::Auto`] is for an operator, as long as there are neither weights nor masks: for its windows, where signals are coded
    /// window by window.
    fn resolved(self, operator: &Operator) -> Self {
        let operator = operator.window().unwrap_or(operator);
        self.resolve(operator, columns::suits_descent(operator, true))
    }

    /// What [`Self::Auto`] is for an operator; `table` says whether coordinate descent suits.
    fn resolve(self, operator: &Operator, table: bool) -> Self {
        match self {
            Self::Auto if residual_descent::pays(operator) => Self::ResidualDescent,
            Self::Auto if table => Self::CoordinateDescent,
            Self::Auto if residual_descent::suits(operator) => Self::ResidualDescent,
            Self::Auto => Self::Fista,
            other => other,
        }
    }

    /// As [`Self::init`], [`Self::Auto`] being what suits the problem: coordinate descent takes no mask of each signal's own.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn init_for(self, config: &BasisPursuitConfig, problem: &Problem) -> Result<Box<dyn Pursuit>> {
        self.init_where(config, problem.operator(), |operator| {
            !problem.has_separate_masks() && columns::suits_descent(operator, problem.is_plain())
        })
    }

    /// The algorithm with those settings, ready to run. Where the operator's positions share no sample it codes windows as signals
    /// of their own, as long as there is no mask.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn init(self, config: &BasisPursuitConfig, operator: &Operator) -> Result<Box<dyn Pursuit>> {
        self.init_where(config, operator, |operator| columns::suits_descent(operator, true))
    }

    /// [`Self::init`]; `table` says whether coordinate descent suits an operator.
    fn init_where(
        self,
        config: &BasisPursuitConfig,
        operator: &Operator,
        table: impl Fn(&Operator) -> bool,
    ) -> Result<Box<dyn Pursuit>> {
        let whole = self.resolve(operator, table(operator)).alone(config)?;
        let Some(window) = operator.window() else { return Ok(whole) };
        let window = self.resolve(window, table(window)).alone(config)?;
        Ok(Box::new(by_windows::ByWindows { window, whole, basis: config.clone() }))
    }

    /// The algorithm for signals as they are; FISTA for [`Self::Auto`].
    fn alone(self, config: &BasisPursuitConfig) -> Result<Box<dyn Pursuit>> {
        let proximal = |acceleration| ProximalGradientConfig {
            basis: config.clone(),
            ..ProximalGradientConfig::new(acceleration)
        };
        Ok(match self {
            Self::Auto | Self::Fista => Box::new(proximal(Acceleration::Fista).init()?),
            Self::Ista => Box::new(proximal(Acceleration::Ista).init()?),
            Self::CoordinateDescent => Box::new(CoordinateDescent::new(config.clone())?),
            Self::ResidualDescent => Box::new(ResidualDescent::new(config.clone())?),
            Self::ActiveSet => Box::new(CoordinateDescent::active_set(config.clone())?),
        })
    }
}

/// Every row times its factor.
fn scale_rows(tensor: Tensor<4>, factors: &[f32]) -> Tensor<4> {
    let scales = TensorData::new(factors.to_vec(), [factors.len(), 1, 1, 1]);
    let scales = Tensor::from_data(scales, &tensor.device());
    tensor * scales
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

/// Keeps the mask's samples.
fn masked(samples: Tensor<2>, mask: &Option<Tensor<2>>) -> Tensor<2> {
    match mask {
        Some(mask) => samples * mask.clone(),
        None => samples,
    }
}

/// Values times the atoms' weights.
fn weighted(values: Tensor<2>, weights: &Option<Tensor<2>>) -> Tensor<2> {
    match weights {
        Some(weights) => values * weights.clone(),
        None => values,
    }
}

/// Largest correlation of every row in units of the atoms' weights, `[n, 1]`: in magnitude, or positive only.
fn largest(correlations: Tensor<2>, weights: &Option<Tensor<2>>, nonnegative: bool) -> Tensor<2> {
    let correlations = match weights {
        Some(weights) => correlations / weights.clone(),
        None => correlations,
    };
    if nonnegative { correlations.max_dim(1).clamp_min(0.0) } else { correlations.abs().max_dim(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// λ is a fraction of each signal's own λ_max, on the device and on the host, and a part of a batch takes its own signals' values.
    /// All products are exact.
    #[test]
    fn every_signal_has_its_own_lambda() {
        let device = crate::device::named(None).unwrap();
        let largest = [2.0f32, 8.0, 0.5, 4.0];
        let each = Lambda::PerSignal(vec![1.0, 3.0, 5.0, 7.0]);
        for (lambda, expected) in [
            (Lambda::Absolute(0.75), [0.75; 4]),
            (Lambda::Relative(0.25), [0.5, 2.0, 0.125, 1.0]),
            (Lambda::Relative(1.0), largest),
            (Lambda::Relative(0.0), [0.0; 4]),
            (each.clone(), [1.0, 3.0, 5.0, 7.0]),
        ] {
            assert_eq!(lambda.resolve(&largest).unwrap(), expected);
            let rows = Tensor::<1>::from_floats(largest, &device).reshape([4, 1]);
            assert_eq!(to_host(lambda.rows(rows).unwrap()), expected);
            assert_eq!(lambda.batch(1, 2).resolve(&largest[1..3]).unwrap(), expected[1..3]);
        }
        assert_eq!(each.batch(3, 2), Lambda::PerSignal(vec![7.0]));
        assert!(each.resolve(&largest[..3]).is_err());
        assert!(Lambda::Relative(1.1).resolve(&largest).is_err());
        assert!(Lambda::Absolute(-0.1).resolve(&largest).is_err());
    }
}
