//! Several devices that share the batches of a training. burn-train's own loop for that gives every device batches of its own, so that losses
//! and steps depend on how many there are, and its workers share the state that networks keep between steps; here each has a part of
//! every batch, and a copy of the network to itself.

use super::{StepOutput, Trainable, Trainee};
use crate::autoencoder::Coded;
use crate::autoencoder::training::{Outcome, TrainingBatch};
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use burn::train::{TrainOutput, TrainStep};
use std::panic::resume_unwind;

/// Several devices with gradients, the first of which has the network that is kept.
pub(super) struct Workers {
    devices: Vec<Device>,
    together: usize,
}

impl Workers {
    /// For devices, if they are several.
    pub fn new(devices: &[Device], together: usize) -> Option<Self> {
        (devices.len() > 1).then(|| Self { devices: devices.to_vec(), together })
    }

    /// The gradients of the mean loss of a batch, and what the network made of it, on the first device: as if that had done it all. Parts are
    /// summed in their order, whichever is done first.
    ///
    /// # Panics
    /// As a single device would.
    pub fn step<A: Trainable>(&self, model: &Trainee<A>, batch: TrainingBatch) -> TrainOutput<StepOutput> {
        let parts = batch.divided(&self.devices, self.together);
        // Clones share the state that is kept between steps; these copies do not.
        let copies: Vec<_> =
            self.devices[..parts.len()].iter().map(|device| model.valid().train().fork(device)).collect();
        let done = std::thread::scope(|scope| {
            let start = |(copy, part): (Trainee<A>, TrainingBatch)| {
                scope.spawn(move || {
                    let output = TrainStep::step(&copy, part);
                    (copy.network, output)
                })
            };
            let workers: Vec<_> = copies.into_iter().zip(parts).map(start).collect();
            let ends = workers.into_iter().map(|worker| worker.join());
            ends.collect::<Vec<_>>()
                .into_iter()
                .map(|end| end.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Vec<_>>()
        });
        let main = &self.devices[0];
        let (mut sum, mut outcomes, mut networks) = (GradientsAccumulator::new(), Vec::new(), Vec::new());
        for (network, TrainOutput { grads, item }) in done {
            sum.accumulate(model, grads.to_device(main, model));
            outcomes.push(item.outcome);
            networks.push(network);
        }
        model.network.take_over(&networks);
        TrainOutput { grads: sum.grads(), item: StepOutput::new(batch, joined(&outcomes, &main.clone().inner())) }
    }
}

/// Outcomes of parts as that of the whole, on that device.
fn joined(outcomes: &[Outcome], device: &Device) -> Outcome {
    let all = |of: fn(&Outcome) -> &Tensor<4>| -> Tensor<4> {
        Tensor::cat(outcomes.iter().map(|outcome| of(outcome).clone().to_device(device)).collect(), 0)
    };
    Outcome {
        loss: Tensor::cat(outcomes.iter().map(|outcome| outcome.loss.clone().to_device(device)).collect(), 0),
        coded: Coded {
            codes: all(|outcome| &outcome.coded.codes),
            reconstruction: all(|outcome| &outcome.coded.reconstruction),
        },
    }
}
