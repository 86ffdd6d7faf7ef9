//! How parameters follow their gradients: optimizer, learning rate, clipping, when to stop early.

use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// burn's optimizers that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Stochastic gradient descent, with momentum.
    Sgd,
    /// Adam. The default.
    #[default]
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// How the learning rate goes from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LearningRateSchedule {
    /// It stays as it is.
    Constant,
    /// In a straight line.
    Linear,
    /// Along half a cosine. The default.
    #[default]
    Cosine,
}

/// Settings of training by gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizationConfig {
    /// The optimizer. Default `adam`.
    pub optimizer: Optimizer,
    /// Learning rate at the beginning, in (0, 1]. Default 0.001.
    pub learning_rate: f64,
    /// How it changes over the run. Default `cosine`.
    pub schedule: LearningRateSchedule,
    /// Learning rate at the end as a part, in [0, 1], of that at the beginning; ignored by `constant`. Default 0.01.
    pub final_rate: f64,
    /// Momentum of `sgd`, in [0, 1). Default 0.9.
    pub momentum: f64,
    /// What `adam` and `adam-w` add to the root of the mean square of a gradient before they divide by it, above 0: gradients far smaller
    /// are followed by steps as small, and not by noise. Default 1e-8.
    pub epsilon: f32,
    /// Weight decay, at least 0: added to gradients, by `adam-w` taken off weights. Default 0.
    pub weight_decay: f32,
    /// Euclidean norm > 0 that the gradient of every parameter is clipped to. Default: none.
    pub clip_norm: Option<f32>,
    /// Epochs, at least 1, after which training ends when the held-out loss has not become less. Default: it goes on to the end.
    pub patience: Option<usize>,
}

impl Default for OptimizationConfig {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: LearningRateSchedule::default(),
            final_rate: 0.01,
            momentum: 0.9,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: None,
            patience: None,
        }
    }
}

impl OptimizationConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return Err(Error::parameter("learning_rate", self.learning_rate, "a number in (0, 1]"));
        }
        if !(0.0..=1.0).contains(&self.final_rate) {
            return Err(Error::parameter("final_rate", self.final_rate, "a part, in [0, 1], of the learning rate"));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::parameter("momentum", self.momentum, "a number in [0, 1)"));
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return Err(Error::parameter("epsilon", self.epsilon, "a finite number > 0"));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::parameter("weight_decay", self.weight_decay, "a finite number ≥ 0"));
        }
        if let Some(norm) = self.clip_norm.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
            return Err(Error::parameter("clip_norm", norm, "a finite number > 0"));
        }
        if self.patience == Some(0) {
            return Err(Error::parameter("patience", 0, "at least 1 epoch"));
        }
        Ok(())
    }
}
