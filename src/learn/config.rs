//! Everything that decides what a training run computes.

use super::optimization::{LearningRateSchedule, OptimizationConfig, Optimizer};
use super::statistics::Statistics;
use crate::autoencoder::config::check_denoised;
use crate::autoencoder::{EncoderWeights, SparseAutoencoderConfig, UnrolledPursuit};
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::geometry::{Geometry, MAX_TENSOR_LEN, Overlapping, SignalShape};
use crate::model::preset::Preset;
use crate::model::{CodingDefaults, ModelConfig};
use crate::pursuit::BasisPursuitConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most epochs, and most steps of an initialisation (2²⁴), so that products of them don't overflow.
pub const MAX_STEPS: usize = 1 << 24;

/// A training run: what is learned, from what, how. Written by hand as JSON; stored in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Geometry and normalisation. Needed, no default.
    pub model: ModelConfig,
    /// Where the signals come from. Default: 12,000 drawn digits.
    #[serde(default)]
    pub data: DataConfig,
    /// How the dictionaries are learned.
    #[serde(default)]
    pub learning: LearningConfig,
}

/// Keys of the parts of a [`TrainConfig`].
const LEARNING: &str = "learning";
const UNROLLED: &str = "learning.unrolled";

impl TrainConfig {
    /// A geometry with the defaults of learning.
    pub fn new(model: ModelConfig) -> Self {
        Self { model, data: DataConfig::default(), learning: LearningConfig::default() }
    }

    /// What the file of a model that was learned this way says of coding. Where a number of non-zeros was the target, the λ that it
    /// came to is the run's to say ([`TrainingState::coding`](super::TrainingState::coding)), and there is none here.
    pub fn coding(&self) -> CodingDefaults {
        let coding = self.learning.coding(self.learning.lambda.at(1.0));
        CodingDefaults { lambda: coding.lambda.filter(|_| self.learning.target_nonzeros.is_none()), ..coding }
    }

    /// A preset's geometry with the settings that suit it.
    pub fn preset(preset: Preset) -> Self {
        let learning = match preset {
            Preset::Small | Preset::Mnist => LearningConfig::default(),
            Preset::Natural | Preset::NaturalColour => LearningConfig {
                // What three channels have in common has 1.7 times the norm.
                lambda: Schedule::constant(if preset == Preset::Natural { 0.1 } else { 0.2 }),
                nonnegative: false,
                epochs: 3,
                // Of many positions each.
                batch_size: 64,
                ..LearningConfig::default()
            },
        };
        let data = match preset {
            Preset::Natural | Preset::NaturalColour => {
                let signal = preset.model().signal;
                DataConfig { patch: Some(signal.height.into()), patches: Some(3000), ..DataConfig::default() }
            }
            _ => DataConfig::default(),
        };
        Self { model: preset.model(), data, learning }
    }

    /// Checks all ranges and that the parts fit each other.
    ///
    /// # Errors
    /// The first setting that is out of range, by its key, such as `learning.epochs`.
    pub fn check(&self) -> Result<Geometry> {
        let geometry = self.model.geometry()?;
        let learning = &self.learning;
        learning.check(&geometry).map_err(Error::within(LEARNING))?;
        learning.unrolled.check_ranges().map_err(Error::within(UNROLLED))?;
        if learning.update == UpdateRule::Unrolled {
            learning.unrolled.check().map_err(Error::within(UNROLLED))?;
            let autoencoder = learning.unrolled.autoencoder(&self.model, learning.lambda, learning.nonnegative);
            // λ is that of every rule.
            let is_lambda =
                |error: &Error| matches!(error, Error::Parameter { parameter, .. } if parameter == "lambda");
            autoencoder.map_err(|error| Error::within(if is_lambda(&error) { LEARNING } else { UNROLLED })(error))?;
        }
        self.data.check().map_err(Error::within("data"))?;
        if let Some(window) = self.data.window {
            if learning.update != UpdateRule::Unrolled || learning.unrolled.denoises.is_none() {
                let expected =
                    "none, unless training end to end takes noise off: it is for the loss of averaged patches";
                return Err(Error::parameter("data.window", window, expected));
            }
            self.overlapping()?;
        }
        Ok(geometry)
    }

    /// How signals overlap that are the patches of windows; `None` where they are not.
    ///
    /// # Errors
    /// A window that patches of the model's size do not fill.
    pub(super) fn overlapping(&self) -> Result<Option<Overlapping>> {
        let SignalShape { height, width, .. } = self.model.signal;
        let overlapping = self.data.window.map(|window| Overlapping::new(window.on_rows(height), [height, width]));
        overlapping.transpose().map_err(Error::within("data"))
    }
}

/// A number that may change while training goes on: linearly from `start` to `end` over the first part `over` of the run.
///
/// In JSON a plain number, or `{"start": 0.5, "end": 0.3, "over": 0.5}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ScheduleText", into = "ScheduleText")]
pub struct Schedule {
    /// Value at the beginning.
    pub start: f32,
    /// Value at the end.
    pub end: f32,
    /// Part of the run, in (0, 1], after which `end` is reached.
    pub over: f32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields, expecting = "expected a number or {\"start\": …, \"end\": …, \"over\": …}")]
enum ScheduleText {
    Constant(f32),
    Ramp {
        /// Value at the beginning. Needed, no default.
        start: f32,
        /// Value at the end. Needed, no default.
        end: f32,
        /// Part of the run, in (0, 1], after which the end is reached. Default 1.
        #[serde(default = "whole")]
        over: f32,
    },
}

fn whole() -> f32 {
    1.0
}

impl From<ScheduleText> for Schedule {
    fn from(text: ScheduleText) -> Self {
        match text {
            ScheduleText::Constant(value) => Self::constant(value),
            ScheduleText::Ramp { start, end, over } => Self { start, end, over },
        }
    }
}

impl From<Schedule> for ScheduleText {
    fn from(schedule: Schedule) -> Self {
        let Schedule { start, end, over } = schedule;
        if start == end { Self::Constant(end) } else { Self::Ramp { start, end, over } }
    }
}

impl Schedule {
    /// The same value throughout.
    pub const fn constant(value: f32) -> Self {
        Self { start: value, end: value, over: 1.0 }
    }

    /// From `start` to `end` over the part `over` of the run.
    pub const fn ramp(start: f32, end: f32, over: f32) -> Self {
        Self { start, end, over }
    }

    /// The value when the part `progress` in [0, 1] of the run is done.
    pub fn at(&self, progress: f32) -> f32 {
        let part = if self.over > 0.0 { (progress / self.over).clamp(0.0, 1.0) } else { 1.0 };
        self.start + (self.end - self.start) * part
    }

    fn check(&self, name: &str, range: std::ops::RangeInclusive<f32>) -> Result<()> {
        for value in [self.start, self.end] {
            if !value.is_finite() || !range.contains(&value) {
                let expected = if *range.end() == f32::MAX {
                    format!("a finite number ≥ {}", range.start())
                } else {
                    format!("a number in [{}, {}]", range.start(), range.end())
                };
                return Err(Error::parameter(name, value, expected));
            }
        }
        if !(self.over > 0.0 && self.over <= 1.0) {
            return Err(Error::parameter(format!("{name}.over"), self.over, "a part of the run in (0, 1]"));
        }
        Ok(())
    }
}

/// Which atoms have unit norm in the deepest layer; those of all others have unit norm themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AtomNorm {
    /// The effective atoms, the columns of D^(L), so that λ means the same for every atom. The default.
    #[default]
    Effective,
    /// The filters of D_L, as the paper has it.
    Layer,
}

/// The update rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum UpdateRule {
    /// Every atom is a sparse code over the dictionary below it, found by a pursuit. The default.
    #[default]
    Pursuit,
    /// The paper's online update: gradient steps with momentum, then hard thresholds.
    Gradient,
    /// End to end: gradients through an unrolled pursuit, an optimizer of burn's, then the same hard thresholds and norms.
    Unrolled,
}

/// The rules that change the dictionaries after every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlineRule {
    /// [`UpdateRule::Pursuit`].
    Pursuit,
    /// [`UpdateRule::Gradient`].
    Gradient,
}

impl UpdateRule {
    /// The same as a rule that works online; `None` for training end to end.
    pub fn online(self) -> Option<OnlineRule> {
        match self {
            Self::Pursuit => Some(OnlineRule::Pursuit),
            Self::Gradient => Some(OnlineRule::Gradient),
            Self::Unrolled => None,
        }
    }
}

/// How dictionaries are learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LearningConfig {
    /// The update rule. Default `pursuit`.
    pub update: UpdateRule,
    /// Passes over the training signals, from 1 to 2²⁴. Default 10.
    pub epochs: usize,
    /// Signals per step, at least 1; windows per step where positions share no sample, so that each is a signal of its own
    /// (1×1 kernels, patches side by side), unless training is unrolled. Default 256.
    pub batch_size: usize,
    /// Weight λ ≥ 0 of the ℓ1 norm of γ_L. Default 0.3, for pixels in [0, 1] and atoms of unit norm.
    pub lambda: Schedule,
    /// Mean number of non-zeros of γ_L that λ is steered to, greater than 0 and no more than a signal and its code have values. Then
    /// `lambda` does not count: the first λ is found from the first signals, the last one is stored in the model. Not with `unrolled`.
    /// Default: none.
    pub target_nonzeros: Option<f32>,
    /// Non-zeros of γ_L, from 1 to as many as a signal and its code have values, that every signal is coded with by orthogonal matching
    /// pursuit, in place of a basis pursuit by `lambda`. Not with `unrolled`. Default: none.
    pub code_nonzeros: Option<usize>,
    /// Whether γ_L is kept non-negative. Default yes.
    pub nonnegative: bool,
    /// Part of zeros, in [0, 1), that D_2 … D_L are to reach, one number per layer. Default 0.95 for D_2 and 0.99 for deeper
    /// ones, no more than leaves four non-zeros in an atom.
    pub zeros: Option<Vec<f32>>,
    /// Part of the run, in [0, 1], over which `gradient` and `unrolled` raise the zeros from none to what was asked for. Default 0.5.
    pub zeros_over: f32,
    /// Which atoms of the deepest layer have unit norm. Default `effective`.
    pub atom_norm: AtomNorm,
    /// Relative duality gap of the codes during training, in (0, 1). Default 1e-3.
    pub gap: f32,
    /// Most iterations of the pursuit during training, at least 1. Default 1,000.
    pub max_iterations: usize,
    /// Steps between two searches for dead atoms, at least 1. Default 50.
    pub reseed_every: usize,
    /// Part of a run's steps, in [0, 1], after which dead atoms are left as they are, so that new ones can settle. Default 0.9.
    pub reseed_until: f32,
    /// Seed of all randomness. Default 0.
    pub seed: u64,
    /// Settings of the rule `pursuit`.
    pub pursuit: PursuitUpdateConfig,
    /// Settings of the rule `gradient`.
    pub gradient: GradientUpdateConfig,
    /// Settings of the rule `unrolled`.
    pub unrolled: UnrolledUpdateConfig,
    /// How the dictionaries are initialised from the data.
    pub initialization: InitializationConfig,
}

impl Default for LearningConfig {
    fn default() -> Self {
        Self {
            update: UpdateRule::default(),
            epochs: 10,
            batch_size: 256,
            lambda: Schedule::constant(0.3),
            target_nonzeros: None,
            code_nonzeros: None,
            nonnegative: true,
            zeros: None,
            zeros_over: 0.5,
            atom_norm: AtomNorm::default(),
            gap: 1e-3,
            max_iterations: 1000,
            reseed_every: 50,
            reseed_until: 0.9,
            seed: 0,
            pursuit: PursuitUpdateConfig::default(),
            gradient: GradientUpdateConfig::default(),
            unrolled: UnrolledUpdateConfig::default(),
            initialization: InitializationConfig::default(),
        }
    }
}

/// Settings of the update by pursuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PursuitUpdateConfig {
    /// Exponent κ in (0, 1]: step t's batch enters the statistics with the weight (t + 1)^−κ, but no less than
    /// its share of an epoch. Default 0.7.
    pub forgetting: f32,
    /// Part of the deepest atoms, in (0, 1], updated in each step, in turn. Default 0.25.
    pub atoms_per_step: f32,
    /// Steps between two updates of a layer below the deepest, at least 1. Default 2.
    pub lower_every: usize,
    /// Part of an atom's non-zeros, in (0, 1], that may move to other places in one update. Default 0.25.
    pub exchange: f32,
    /// How much atoms of the deepest layer are kept from being alike, at least 0: their objective grows by a quarter of it times
    /// Σ min(e_j, e_k) (|〈d_j, d_k〉| − 0.25)₊² over pairs of atoms, e_j being the mean energy of an atom's code. For codes of one position.
    /// Default 0.
    pub incoherence: f32,
}

impl Default for PursuitUpdateConfig {
    fn default() -> Self {
        Self { forgetting: 0.7, atoms_per_step: 0.25, lower_every: 2, exchange: 0.25, incoherence: 0.0 }
    }
}

/// Settings of the paper's update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GradientUpdateConfig {
    /// Length of a step: the distance that the atom of steepest gradient moves, atoms being of unit norm. Default from 0.05 down
    /// to 0.0025.
    pub step: Schedule,
    /// Momentum on the gradient, in [0, 1). Default 0.9.
    pub momentum: f32,
    /// Steps on every batch (the paper's T), at least 1. Default 1.
    pub repeats: usize,
}

impl Default for GradientUpdateConfig {
    fn default() -> Self {
        Self { step: Schedule::ramp(0.05, 0.0025, 1.0), momentum: 0.9, repeats: 1 }
    }
}

/// How the gradient of the objective reaches the dictionaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum GradientMode {
    /// The codes are those of a pursuit run to its gap, and are held fixed: by Danskin's theorem this is the gradient of the minimum of the
    /// objective over codes. The default.
    #[default]
    Envelope,
    /// The codes are those of a pursuit run to its gap, and follow the dictionaries as the optimality conditions on their support say.
    Implicit,
    /// The codes are those of the unrolled iterations, through all of which the gradient goes.
    Unrolled,
    /// The codes are those of the unrolled iterations, through the last few of which the gradient goes.
    Truncated,
}

impl GradientMode {
    /// Whether codes are those of a pursuit that is run to its gap.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Envelope | Self::Implicit)
    }
}

/// Settings of training through an unrolled pursuit; λ and sign are those of all rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UnrolledUpdateConfig {
    /// How the gradient reaches the dictionaries: `envelope`, `implicit`, `unrolled` or `truncated`. Default `envelope`. With the first two
    /// the dictionaries follow exact codes, and what the encoder has of its own follows the objective of its own codes.
    pub gradient: GradientMode,
    /// Last iterations that the gradient `truncated` goes through, at least 1. Default 5.
    pub truncated_to: usize,
    /// Whether the dictionaries are learned; else only what the encoder has of its own is. Default yes.
    pub dictionaries: bool,
    /// Steps of the optimizer between two times that the atoms of sparse layers are coded anew over the layer below, at least 1. Default 5.
    pub refit_every: usize,
    /// The pursuit that is unrolled: `ista`, `fista`, `ml-ista` or `ml-fista`. Default `fista`.
    pub pursuit: UnrolledPursuit,
    /// Iterations T, at least 1: the layers of the encoder. Default 10.
    pub iterations: usize,
    /// Whose weights the encoder has: `tied`, `free` or `per-iteration`. Default `per-iteration` for `ista` and `fista` where D^(L) is one
    /// convolution, else `free`.
    pub weights: Option<EncoderWeights>,
    /// λ_1 … λ_{L−1} for `ml-ista` and `ml-fista`. Default: none.
    pub shallower_lambda: Vec<f32>,
    /// Whether steps are learned. Default: yes unless `weights` is `tied`.
    pub learned_steps: Option<bool>,
    /// Whether thresholds are learned, which needs λ > 0. Default: where that is so, yes unless `weights` is `tied`.
    pub learned_thresholds: Option<bool>,
    /// Whether the momentum of `ista` and `fista` is learned. Default: of these, yes unless `weights` is `tied`.
    pub learned_momentum: Option<bool>,
    /// Learning rate, in (0, 1], of what the encoder has of its own; that of `optimization` is the dictionaries'. Default 0.02, and 0.001
    /// where `weights` is `free`.
    pub encoder_rate: Option<f64>,
    /// Smallest and largest standard deviation of white noise that is put on signals, in their units, of which pictures have 1 from black to
    /// white; the loss is then ½‖x − D^(L)γ‖² with the clean signal x and the codes γ of the noisy one, through whose iterations gradients go
    /// (`unrolled` or `truncated`). Default: none, for the objective of the signals themselves.
    pub denoises: Option<[f32; 2]>,
    /// How the parameters follow their gradients. Default: as for rivals, but with a learning rate of 0.02 and an `epsilon` of 1e-5, also where
    /// other settings are named.
    #[serde(deserialize_with = "over_unrolled")]
    pub optimization: OptimizationConfig,
}

/// The optimizer's defaults but for the learning rate: what is moved are atoms of unit norm, whose samples are tenths or hundredths.
fn unrolled_optimization() -> OptimizationConfig {
    OptimizationConfig { learning_rate: 2e-2, epsilon: 1e-5, ..OptimizationConfig::default() }
}

/// Settings of an optimizer over those of [`unrolled_optimization`].
fn over_unrolled<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<OptimizationConfig, D::Error> {
    /// The same keys, each of which may be left out.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        optimizer: Option<Optimizer>,
        learning_rate: Option<f64>,
        schedule: Option<LearningRateSchedule>,
        final_rate: Option<f64>,
        momentum: Option<f64>,
        epsilon: Option<f32>,
        weight_decay: Option<f32>,
        clip_norm: Option<f32>,
        patience: Option<usize>,
    }
    let given = Given::deserialize(deserializer)?;
    let own = unrolled_optimization();
    Ok(OptimizationConfig {
        optimizer: given.optimizer.unwrap_or(own.optimizer),
        learning_rate: given.learning_rate.unwrap_or(own.learning_rate),
        schedule: given.schedule.unwrap_or(own.schedule),
        final_rate: given.final_rate.unwrap_or(own.final_rate),
        momentum: given.momentum.unwrap_or(own.momentum),
        epsilon: given.epsilon.unwrap_or(own.epsilon),
        weight_decay: given.weight_decay.unwrap_or(own.weight_decay),
        clip_norm: given.clip_norm.or(own.clip_norm),
        patience: given.patience.or(own.patience),
    })
}

impl Default for UnrolledUpdateConfig {
    fn default() -> Self {
        Self {
            gradient: GradientMode::default(),
            truncated_to: 5,
            dictionaries: true,
            refit_every: 5,
            pursuit: UnrolledPursuit::default(),
            iterations: 10,
            weights: None,
            shallower_lambda: Vec::new(),
            learned_steps: None,
            learned_thresholds: None,
            learned_momentum: None,
            encoder_rate: None,
            denoises: None,
            optimization: unrolled_optimization(),
        }
    }
}

impl UnrolledUpdateConfig {
    /// Checks the ranges that do not depend on the model, whether this rule is the run's or not.
    fn check_ranges(&self) -> Result<()> {
        let counts =
            [("truncated_to", self.truncated_to), ("refit_every", self.refit_every), ("iterations", self.iterations)];
        for (name, value) in counts {
            if value == 0 {
                return Err(Error::parameter(name, 0, "at least 1"));
            }
        }
        if let Some(rate) = self.encoder_rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
            return Err(Error::parameter("encoder_rate", rate, "a number in (0, 1]"));
        }
        if let Some(lambda) = self.shallower_lambda.iter().find(|lambda| !(lambda.is_finite() && **lambda >= 0.0)) {
            return Err(Error::parameter("shallower_lambda", lambda, "finite numbers ≥ 0"));
        }
        self.denoises.map_or(Ok(()), check_denoised)?;
        self.optimization.check().map_err(Error::within("optimization"))
    }

    /// Checks what fits together.
    fn check(&self) -> Result<()> {
        if self.denoises.is_some() && self.gradient.is_exact() {
            let expected = "unrolled or truncated beside `denoises`: the loss is that of the encoder's own codes";
            return Err(Error::parameter("gradient", self.gradient, expected));
        }
        Ok(())
    }

    /// The auto-encoder of a model that is trained with these settings.
    ///
    /// # Errors
    /// As [`SparseAutoencoderConfig::check`]; nothing to learn.
    pub fn autoencoder(
        &self,
        model: &ModelConfig,
        lambda: Schedule,
        nonnegative: bool,
    ) -> Result<SparseAutoencoderConfig> {
        let multi_layer = self.pursuit.is_multi_layer();
        let one_convolution = model.geometry()?.as_one_layer().is_some();
        let weights = self.weights.unwrap_or(match !multi_layer && one_convolution {
            true => EncoderWeights::PerIteration,
            false => EncoderWeights::Free,
        });
        let own = weights != EncoderWeights::Tied;
        let penalised = lambda.start > 0.0 && lambda.end > 0.0;
        let mut config = SparseAutoencoderConfig {
            model: model.clone(),
            pursuit: self.pursuit,
            iterations: self.iterations,
            lambda: lambda.start,
            shallower_lambda: self.shallower_lambda.clone(),
            nonnegative,
            weights,
            learned_steps: self.learned_steps.unwrap_or(own),
            learned_thresholds: self.learned_thresholds.unwrap_or(own && penalised),
            learned_momentum: self.learned_momentum.unwrap_or(own && !multi_layer),
            denoises: self.denoises,
        };
        for lambda in [lambda.end, lambda.start] {
            config.lambda = lambda;
            config.check()?;
        }
        if !self.dictionaries && !config.has_own() {
            let expected =
                "yes where the encoder has nothing of its own: weights tied, no learned steps, thresholds or momentum";
            return Err(Error::parameter("dictionaries", false, expected));
        }
        Ok(config)
    }
}

/// Settings of the initialisation, layer by layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InitializationConfig {
    /// Steps of learning on patches for each layer below the deepest, at most 2²⁴. Default 100.
    pub steps: usize,
    /// λ of these steps as a part, in (0, 1), of each patch's λ_max. Default 0.2.
    pub lambda_relative: f32,
}

impl Default for InitializationConfig {
    fn default() -> Self {
        Self { steps: 100, lambda_relative: 0.2 }
    }
}

impl LearningConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let at_least_one = |name: &str, value: usize| {
            if value == 0 { Err(Error::parameter(name, value, "at least 1")) } else { Ok(()) }
        };
        for (name, value, least) in [("epochs", self.epochs, 1), ("initialization.steps", self.initialization.steps, 0)]
        {
            if !(least..=MAX_STEPS).contains(&value) {
                return Err(Error::parameter(name, value, format!("a number from {least} to {MAX_STEPS}")));
            }
        }
        at_least_one("batch_size", self.batch_size)?;
        self.lambda.check("lambda", 0.0..=f32::MAX)?;
        let part = |name: &str, value: f32, low: bool, high: bool| {
            let inside = value.is_finite()
                && (if low { value >= 0.0 } else { value > 0.0 })
                && (if high { value <= 1.0 } else { value < 1.0 });
            let (open, close) = (if low { '[' } else { '(' }, if high { ']' } else { ')' });
            if inside { Ok(()) } else { Err(Error::parameter(name, value, format!("a number in {open}0, 1{close}"))) }
        };
        let most = geometry.code().len().min(geometry.signal().len());
        if let Some(target) = self.target_nonzeros.filter(|target| !(*target > 0.0 && *target <= most as f32)) {
            let expected = format!("a number greater than 0 and at most {most}, {}", least_of(geometry));
            return Err(Error::parameter("target_nonzeros", target, expected));
        }
        if let Some(nonzeros) = self.code_nonzeros.filter(|nonzeros| !(1..=most).contains(nonzeros)) {
            let expected = format!("a number from 1 to {most}, {}", least_of(geometry));
            return Err(Error::parameter("code_nonzeros", nonzeros, expected));
        }
        if let (Some(target), Some(_)) = (self.target_nonzeros, self.code_nonzeros) {
            let expected = "none beside `code_nonzeros`: λ is what is steered";
            return Err(Error::parameter("target_nonzeros", target, expected));
        }
        if self.update == UpdateRule::Unrolled {
            let given = [
                ("target_nonzeros", self.target_nonzeros.map(f64::from)),
                ("code_nonzeros", self.code_nonzeros.map(|nonzeros| nonzeros as f64)),
            ];
            if let Some((name, Some(value))) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(Error::parameter(name, value, "none where training goes end to end (`update unrolled`)"));
            }
        }
        if let Some(zeros) = &self.zeros {
            if zeros.len() + 1 != geometry.depth() {
                return Err(Error::parameter(
                    "zeros",
                    format!("{zeros:?}"),
                    format!("one number for each layer after the first: {}", geometry.depth() - 1),
                ));
            }
            zeros.iter().try_for_each(|&value| part("zeros", value, true, false))?;
        }
        part("zeros_over", self.zeros_over, true, true)?;
        part("gap", self.gap, false, false)?;
        at_least_one("max_iterations", self.max_iterations)?;
        at_least_one("reseed_every", self.reseed_every)?;
        part("reseed_until", self.reseed_until, true, true)?;
        part("pursuit.forgetting", self.pursuit.forgetting, false, true)?;
        part("pursuit.atoms_per_step", self.pursuit.atoms_per_step, false, true)?;
        at_least_one("pursuit.lower_every", self.pursuit.lower_every)?;
        part("pursuit.exchange", self.pursuit.exchange, false, true)?;
        if !(self.pursuit.incoherence.is_finite() && self.pursuit.incoherence >= 0.0) {
            return Err(Error::parameter("pursuit.incoherence", self.pursuit.incoherence, "a finite number ≥ 0"));
        }
        if self.pursuit.incoherence > 0.0
            && !(self.update == UpdateRule::Pursuit && geometry.code().is_single_position())
        {
            let expected = "0 but for codes of one position that are learned by `update pursuit`";
            return Err(Error::parameter("pursuit.incoherence", self.pursuit.incoherence, expected));
        }
        self.gradient.step.check("gradient.step", 0.0..=1.0)?;
        part("gradient.momentum", self.gradient.momentum, true, false)?;
        at_least_one("gradient.repeats", self.gradient.repeats)?;
        part("initialization.lambda_relative", self.initialization.lambda_relative, false, false)?;
        let statistics = geometry.effective_layer().map_or(0, |layer| Statistics::second_len(&layer));
        if self.update == UpdateRule::Pursuit && statistics > MAX_TENSOR_LEN {
            return Err(Error::parameter(
                "update",
                "pursuit",
                format!("at most {MAX_TENSOR_LEN} pairs of atoms and shifts, not {statistics}; else `update gradient`"),
            ));
        }
        if self.update == UpdateRule::Pursuit && !geometry.effective_is_convolution() {
            return Err(Error::parameter(
                "update",
                "pursuit",
                "no padding after the first layer; with it `update gradient`",
            ));
        }
        Ok(())
    }

    /// Entries that the atoms of every layer keep when the part `progress` of the run is done, for rules that raise the zeros little
    /// by little.
    pub fn kept(&self, geometry: &Geometry, progress: f32) -> Vec<usize> {
        let done = if self.zeros_over > 0.0 { (progress / self.zeros_over).min(1.0) } else { 1.0 };
        geometry
            .layers()
            .iter()
            .zip(self.nonzeros(geometry))
            .map(|(layer, target)| {
                // Geometric, so that the many zeros of the end do not come at once.
                let (len, target) = (layer.atom_len() as f32, target as f32);
                (len * (target / len).powf(done)).round().max(target) as usize
            })
            .collect()
    }

    /// What the file of a model says of coding that was learned so, λ having come to `lambda`.
    pub(super) fn coding(&self, lambda: f32) -> CodingDefaults {
        CodingDefaults {
            lambda: Some(lambda).filter(|_| self.code_nonzeros.is_none()),
            nonnegative: self.nonnegative,
            nonzeros: self.code_nonzeros,
        }
    }

    /// The pursuit during training.
    pub(super) fn basis(&self) -> BasisPursuitConfig {
        BasisPursuitConfig { gap: self.gap, max_iterations: self.max_iterations, nonnegative: self.nonnegative }
    }

    /// Most non-zeros of an atom of every layer: all for D_1, else what the requested part of zeros leaves.
    pub fn nonzeros(&self, geometry: &Geometry) -> Vec<usize> {
        let layers = geometry.layers().iter().enumerate();
        layers
            .map(|(index, layer)| match index {
                0 => layer.atom_len(),
                _ => match &self.zeros {
                    Some(zeros) => nonzeros_left(layer.atom_len(), zeros[index - 1]),
                    None => nonzeros_left(layer.atom_len(), if index == 1 { 0.95 } else { 0.99 }).max(4),
                }
                .min(layer.atom_len()),
            })
            .collect()
    }
}

/// Why there are no more non-zeros, in words.
fn least_of(geometry: &Geometry) -> String {
    let [code, signal] = [geometry.code().len(), geometry.signal().len()];
    format!("the smaller of {code} code values and {signal} signal values")
}

/// Entries of `len` that may differ from zero when the part `zeros` must not.
pub(super) fn nonzeros_left(len: usize, zeros: f32) -> usize {
    // A part like 0.95 is not exact in binary: 5% of 800 is 40, not 39.
    ((len as f64 * (1.0 - f64::from(zeros)) + 1e-4).floor() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let schedule: Schedule = serde_json::from_str(r#"{"start": 1.0, "end": 0.0, "over": 0.5}"#).unwrap();
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|progress| schedule.at(progress)), [1.0, 0.5, 0.0, 0.0]);
        assert_eq!(serde_json::from_str::<Schedule>("0.3").unwrap(), Schedule::constant(0.3));
        assert_eq!(serde_json::to_string(&Schedule::constant(0.5)).unwrap(), "0.5");
    }

    #[test]
    fn requested_zeros_of_the_papers_geometry() {
        let config = TrainConfig::preset(Preset::Mnist);
        assert_eq!(config.learning.nonzeros(&config.check().unwrap()), [49, 40, 62]);
    }

    /// An optimizer of which some settings are named keeps the others of this rule.
    #[test]
    fn optimizers_are_completed() {
        let text = r#"{"optimization": {"clip_norm": 1.5}}"#;
        let found: UnrolledUpdateConfig = serde_json::from_str(text).unwrap();
        let expected = OptimizationConfig { clip_norm: Some(1.5), ..unrolled_optimization() };
        assert_eq!((found.optimization.learning_rate, &found.optimization), (0.02, &expected));
        let message = serde_json::from_str::<UnrolledUpdateConfig>(r#"{"optimization": {"rate": 1}}"#).unwrap_err();
        assert!(message.to_string().contains("rate"), "{message}");
        // Ranges hold whether the rule is the run's or not.
        let mut config = TrainConfig::preset(Preset::Small);
        config.learning.unrolled.denoises = Some([0.2, 0.1]);
        assert!(config.check().unwrap_err().to_string().contains("denoises"));
    }

    #[test]
    fn mistakes_are_named() {
        let mut config = TrainConfig::preset(Preset::Small);
        config.learning.batch_size = 0;
        assert!(config.check().unwrap_err().to_string().contains("batch_size"));
        config.learning.batch_size = 1;
        config.learning.lambda = Schedule::constant(-1.0);
        assert!(config.check().unwrap_err().to_string().contains("lambda = -1"));
        config.learning.lambda = Schedule::constant(f32::NAN);
        assert!(config.check().is_err());
    }
}
