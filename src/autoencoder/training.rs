//! What training by gradients asks of an auto-encoder; the loop is in [`crate::learn`].

use super::{Autoencoder, Coded};
use crate::error::Result;
use crate::model::leaf;
use burn::module::{Module, ModuleDisplay, ParamGroup};
#[cfg(feature = "train")]
use burn::tensor::Device;
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
    /// Which part of the step's signals these are, from 0: every device has one.
    pub part: usize,
    /// Signals of the step, on all devices together: at least 1.
    pub of: usize,
}

impl TrainingBatch {
    /// Part of the run that is done.
    pub fn progress(&self) -> f32 {
        self.step as f32 / self.steps.max(1) as f32
    }

    /// The number of its noise, another one for every step and part.
    pub fn number(&self) -> u64 {
        self.step as u64 + ((self.part as u64) << PARTS)
    }

    /// The parts of so many devices, on each its own, as even as they can be where `together` signals in a row stay together. Of few signals
    /// there are fewer parts than devices.
    #[cfg(feature = "train")]
    pub(crate) fn divided(&self, devices: &[Device], together: usize) -> Vec<Self> {
        let groups = self.signals.dims()[0] / together;
        let parts = devices.len().min(groups).max(1);
        debug_assert!(groups * together == self.signals.dims()[0], "signals that stay together");
        let start = |part: usize| part * groups / parts * together;
        let of_part = |(part, device): (usize, &Device)| {
            let (from, count) = (start(part), start(part + 1) - start(part));
            let signals = self.signals.clone().narrow(0, from, count).to_device(device);
            let labels = self.labels.clone().map(|labels| labels.narrow(0, from, count).to_device(device));
            Self { signals, labels, part, ..*self }
        };
        devices[..parts].iter().enumerate().map(of_part).collect()
    }

    /// What a part counts for in the mean over the step's signals.
    #[cfg(feature = "train")]
    pub(crate) fn weight(&self) -> f64 {
        self.signals.dims()[0] as f64 / self.of as f64
    }
}

/// Bits that hold the step's number in [`TrainingBatch::number`]; the part's number is above them.
const PARTS: u32 = 32;

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

    /// Number of units that can die, all layers together: those that no batch has used for long start again by [`Self::reseeded`].
    /// Default: none.
    fn mortal_units(&self) -> usize {
        0
    }

    /// Which of the units that can die a batch has used, in training: ones, and zeros for the others, `[units]`. Units of layers that
    /// do not learn at this step count as used. Default: units are the channels of the codes.
    ///
    /// # Errors
    /// Signals of another shape.
    fn used_units(&self, batch: &TrainingBatch, outcome: &Outcome) -> Result<Tensor<1>> {
        let _ = batch;
        Ok(used(leaf(outcome.coded.codes.clone())))
    }

    /// The same network with units (indices as of [`Self::used_units`]) that start again from signals of the batch that are
    /// represented badly. There may be more units than signals; what is left over waits for the next time.
    ///
    /// # Errors
    /// Signals of another shape.
    fn reseeded(self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let _ = (units, batch);
        Ok(self)
    }

    /// Takes over what copies of the network, each given a part of a batch, have noted of it for later steps. Default: networks note nothing.
    fn take_over(&self, copies: &[Self]) {
        let _ = copies;
    }

    /// Parameters with a learning rate of their own, at which their schedule begins. Default: none.
    fn rates(&self) -> Vec<(ParamGroup, f64)> {
        Vec::new()
    }

    /// Whether the network, when the part `progress` of the run is done, is what it is to be in the end, so that its held-out loss can
    /// be compared with that of other such states and the best of them can be kept. Default: always.
    fn is_admissible(&self, progress: f32) -> bool {
        let _ = progress;
        true
    }

    /// What follows every step of the optimizer, such as a projection: `step` is the number of those that are done, of `steps` in the run.
    #[must_use]
    fn constrained(self, step: usize, steps: usize) -> Self {
        let _ = (step, steps);
        self
    }
}

/// Which channels of codes `[n, channels, height, width]` have a value that is not zero: ones and zeros, `[channels]`.
pub(crate) fn used(codes: Tensor<4>) -> Tensor<1> {
    let channels = codes.dims()[1];
    // Without a tensor of absolute values, of which codes of many units would take a long time.
    let of_channels = |extremes: Tensor<4>| extremes.reshape([channels as i32, -1]);
    let largest = of_channels(codes.clone().max_dim(0)).max_dim(1);
    let smallest = of_channels(codes.min_dim(0)).min_dim(1);
    largest.max_pair(smallest.neg()).squeeze_dim::<1>(1).greater_scalar(0.0).float()
}

/// With burn's own learner: batches of signals `[n, channels, height, width]`, the loss ½‖y − D^(L)γ‖² + λ‖γ‖₁ of the encoder's codes, and
/// effective atoms that have unit norm after every step, since longer ones would cost less penalty. For training that also keeps
/// D_2 … D_L sparse, see [`crate::learn`]. Signals of another shape panic, as in burn's modules.
#[cfg(feature = "train")]
mod by_burn {
    use crate::autoencoder::SparseAutoencoder;
    use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
    use burn::optim::{GradientsParams, ModuleOptimizer};
    use burn::tensor::Tensor;
    use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};

    fn output(network: &SparseAutoencoder, signals: Tensor<4>) -> RegressionOutput {
        let [_, channels, height, width] = signals.dims();
        let shape = crate::geometry::SignalShape::new(channels, height, width);
        let coded = network.prepare(shape).and_then(|ready| ready.coded_with_objective(signals.clone()));
        let (coded, loss) = coded.unwrap_or_else(|error| panic!("{error}"));
        RegressionOutput::new(loss.mean(), coded.reconstruction.flatten(1, 3), signals.flatten(1, 3))
    }

    impl TrainStep for SparseAutoencoder {
        type Input = Tensor<4>;
        type Output = RegressionOutput;

        fn step(&self, signals: Tensor<4>) -> TrainOutput<RegressionOutput> {
            let output = output(self, signals);
            TrainOutput::new(self, output.loss.backward(), output)
        }

        fn optimize(
            self,
            optimizer: &mut ModuleOptimizer,
            rate: ModuleLearningRate,
            gradients: GradientsParams,
        ) -> Self {
            optimizer.step(rate, self, gradients).with_unit_atoms()
        }
    }

    impl InferenceStep for SparseAutoencoder {
        type Input = Tensor<4>;
        type Output = RegressionOutput;

        fn step(&self, signals: Tensor<4>) -> RegressionOutput {
            output(self, signals)
        }
    }
}
