//! What training by gradients asks of an auto-encoder; the loop is in [`crate::learn`].

use super::{Autoencoder, Coded};
use crate::error::Result;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Int, Tensor};

/// Signals of a step, with what a loss may depend on beside them.
#[derive(Debug, Clone)]
pub struct TrainingBatch {
    /// The signals, `[n, channels, height, width]`.
    pub signals: Tensor<4>,
    /// Their labels, `[n]`, where the source has some.
    pub labels: Option<Tensor<1, Int>>,
    /// Steps done before this one; of held-out signals, all steps so far.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Seed of the run.
    pub seed: u64,
}

impl TrainingBatch {
    /// Part of the run that is done.
    pub fn progress(&self) -> f32 {
        self.step as f32 / self.steps.max(1) as f32
    }
}

/// What a network makes of a batch while it is trained.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Loss of every signal, `[n]`; their mean is what is minimised.
    pub loss: Tensor<1>,
    /// Codes and reconstructions that the loss is computed from.
    pub coded: Coded,
}

/// An auto-encoder that can be trained by gradients.
pub trait Trainable: Autoencoder + Module + ModuleDisplay + 'static {
    /// The number of classes where labels are needed, each of them less than that; `None` where the loss does without.
    fn needs_labels(&self) -> Option<usize> {
        None
    }

    /// The loss of a batch, as in training: with noise, constraints of sparsity, auxiliary terms.
    ///
    /// # Errors
    /// Signals of another shape.
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome>;

    /// The loss of held-out signals; as in training unless that would not be comparable from epoch to epoch.
    ///
    /// # Errors
    /// Signals of another shape.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        self.training(batch)
    }

    /// What follows every step of the optimizer, such as a projection. `progress` is the part of the run that is done.
    #[must_use]
    fn constrained(self, progress: f32) -> Self {
        let _ = progress;
        self
    }
}
