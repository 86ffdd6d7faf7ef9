//! Training by gradients, for every auto-encoder alike: burn-train's learner with its optimizers, schedulers, metrics, dashboard and
//! checkpointers, in a loop that leaves its state behind after every epoch.
//!
//! A run that is stopped goes on from the end of the last epoch that it finished, since that is where burn-train's checkpointers save
//! parameters, optimizer and scheduler; what was done of the epoch that was interrupted is done again. The order of signals follows
//! from the seed and the epoch, all noise from the seed and the step, so that a run that was stopped and resumed comes to the
//! same parameters as one that was left alone, bit for bit on the same device. Every checkpoint is three files in the folder
//! `checkpoint`, `model-E.bpk`, `optim-E.bpk` and `scheduler-E.bpk` with E the epochs that were finished; each appears whole or not at
//! all, and the last two are kept.

mod batches;
mod checkpoints;
mod optimizers;
mod silent;
mod workers;

use super::optimization::OptimizationConfig;
use super::order::{Order, check_together};
use crate::autoencoder::Coded;
pub use crate::autoencoder::training::{Outcome, Trainable, TrainingBatch};
use crate::data::{Source, wanted_shape};
use crate::device::{guarded, is_host};
use crate::error::{Error, Result};
use crate::kernels::sparse::to_host;
use crate::model::leaf;
use batches::{Batches, Clock};
use burn::data::dataloader::Progress;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, RunningState};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::store::{Aggregate, EventStoreClient, Split};
use burn::train::metric::{Adaptor, ItemLazy, LossInput, LossMetric, Metric};
use burn::train::{
    EarlyStoppingStrategy, EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput,
    TrainStep, TrainingComponents, TrainingError, TrainingItem, TrainingStrategy, ValidLoader,
};
pub use checkpoints::{CHECKPOINTS, last_checkpoint};
use checkpoints::{CheckpointLayout, Files, LastTwo, Unwritten, check_checkpoint, check_readable};
use optimizers::{optimizer, scheduler};
use silent::Silent;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use workers::Workers;

/// Callbacks of a training, which can end it.
pub trait Watcher<A> {
    /// The training begins, or goes on, with this network.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn begin(&mut self, network: &A) -> Result<()>;

    /// What held-out signals say of the network before the first epoch, where [`EndToEnd::measure_start`] asks for it; the batches
    /// were given to [`Self::held_out`]. The loss is as in [`Self::epoch`].
    ///
    /// # Errors
    /// As [`Self::step`].
    fn start(&mut self, held_out_loss: f64, network: &A) -> Result<()> {
        let _ = (held_out_loss, network);
        Ok(())
    }

    /// A step is done; `network` is as the step has left it. `false` ends the training.
    ///
    /// # Errors
    /// Files that cannot be written; they end the training.
    fn step(&mut self, step: usize, batch: &TrainingBatch, outcome: &Outcome, network: &A) -> Result<bool>;

    /// A batch of held-out signals is done. `false` ends the training.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn held_out(&mut self, batch: &TrainingBatch, outcome: &Outcome, network: &A) -> Result<bool>;

    /// An epoch (from 1) is done, held-out signals included; its checkpoint follows. The held-out loss is the mean over signals.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn epoch(&mut self, epoch: usize, held_out_loss: f64, network: &A) -> Result<()>;
}

/// A training to be run.
#[derive(Clone)]
pub struct EndToEnd {
    /// Folder of the run, whose checkpoints it can be resumed from; `None`: no file is written.
    pub folder: Option<PathBuf>,
    /// Signals to learn from.
    pub train: Arc<dyn Source>,
    /// Held-out signals.
    pub test: Arc<dyn Source>,
    /// Passes over the training signals.
    pub epochs: usize,
    /// Signals per step.
    pub batch_size: usize,
    /// Seed of the order of signals and of all noise.
    pub seed: u64,
    /// Signals among which the order is drawn; see [`crate::data::DataConfig::shuffle_buffer`].
    pub shuffle_buffer: usize,
    /// Optimizer and learning rate.
    pub optimization: OptimizationConfig,
    /// Device to compute on, without gradients.
    pub device: Device,
    /// Further devices of the same kind. Each of all devices takes a part of every batch, and the first one the step; losses are as on one
    /// device, but what a network takes from a whole batch (noise, the largest values of units) it takes from a part.
    pub further_devices: Vec<Device>,
    /// Epoch whose checkpoint to go on from; `None` to begin.
    pub resume: Option<usize>,
    /// Held-out losses of the epochs up to there, for early stopping.
    pub losses: Vec<f64>,
    /// Whether held-out signals are measured before the first epoch as well, which [`Watcher::start`] is told.
    pub measure_start: bool,
    /// When units that nothing uses start again; `None`: never.
    pub reseeding: Option<Reseeding>,
    /// Whether to show burn's dashboard instead of nothing; needs the feature `tui` and a terminal.
    pub dashboard: bool,
}

/// When units that nothing uses start again; see [`Trainable::reseeded`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reseeding {
    /// Steps without use after which a unit is dead, and between two searches for such; in short runs no more than an epoch or
    /// a tenth of the run has, or 5.
    pub every: usize,
    /// Part of the run after which dead units are left as they are, so that new ones can settle.
    pub until: f32,
}

impl Reseeding {
    /// Steps between two searches in a run of so many steps.
    fn steps(&self, per_epoch: usize, steps: usize) -> usize {
        self.every.min(per_epoch).min((steps / SEARCHES).max(LEAST_STEPS)).max(1)
    }
}

/// Searches for dead units that a run has at least, but for the next number.
const SEARCHES: usize = 10;

/// Steps without use that are too few to tell a dead unit from a rare one.
const LEAST_STEPS: usize = 5;

/// How a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// The held-out loss has not become less for as long as was asked for.
    Early,
    /// The watcher, or a user at the dashboard, ended it.
    Interrupted,
}

impl EndToEnd {
    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.batch_size.max(1))
    }

    /// Trains a network from its parameters as they are, or from the checkpoint to resume, and returns it.
    ///
    /// # Errors
    /// Signals that do not fit the network, that are none or that cannot be read; settings out of range; a checkpoint that
    /// cannot be read or written; a device that failed; the watcher's errors.
    pub fn run<A: Trainable>(&self, network: A, watcher: &mut dyn Watcher<A>) -> Result<(A, Ending)> {
        guarded(|| self.run_unguarded(network, watcher))
    }

    fn run_unguarded<A: Trainable>(&self, network: A, watcher: &mut dyn Watcher<A>) -> Result<(A, Ending)> {
        self.optimization.check()?;
        check_fusion(&self.device)?;
        for source in [&self.train, &self.test] {
            if source.is_empty() {
                return Err(Error::shape(format!("signals of {}", source.describe()), "at least one", 0));
            }
            check_together(&**source, self.batch_size)?;
            if source.shape() != network.signal() {
                let what = format!("signals of {}", source.describe());
                let expected = wanted_shape(network.signal(), network.signal(), source.shape());
                return Err(Error::shape(what, expected, source.shape()));
            }
            if let Some(classes) = network.needs_labels() {
                check_labels(&**source, classes)?;
            }
        }
        if self.optimization.patience.is_some_and(|patience| is_exhausted(&self.losses, patience)) {
            return Ok((network, Ending::Early));
        }
        let (steps, done) = (self.epochs * self.steps_per_epoch(), self.resume.unwrap_or(0) * self.steps_per_epoch());
        let scheduler = scheduler(&self.optimization, steps, network.rates())?;
        let optimizer = optimizer(&self.optimization);
        let (sender, receiver) = channel();
        let outcome = std::thread::scope(|scope| {
            let training = scope.spawn(move || {
                let clock = Clock { done: Arc::new(AtomicUsize::new(done)), steps };
                let network = network.map(&mut CheckpointLayout);
                let learner =
                    Learner::new(Trainee::new(network.train(), clock.clone(), &self.device), optimizer, scheduler);
                self.launch(learner, &clock, sender)
            });
            let heard = listen(&receiver, watcher);
            // The receiver is gone: the loop ends at its next message.
            drop(receiver);
            (heard, training.join())
        });
        let (heard, result) = outcome;
        let ended = match result {
            Ok(ended) => ended,
            // A device that failed, or a bug of ours or of the backend, which is as loud as without a thread.
            Err(panic) => std::panic::resume_unwind(panic),
        };
        heard?;
        ended
    }

    fn launch<A: Trainable>(
        &self,
        learner: Learner<Trainee<A>>,
        clock: &Clock,
        sender: Sender<Message<A>>,
    ) -> Result<(A, Ending)> {
        let folder = self.folder.as_ref().map(|folder| folder.join(CHECKPOINTS));
        let unwritten = Unwritten::default();
        let files = |name| Files { folder: folder.clone(), name, unwritten: unwritten.clone() };
        let device = self.device.clone().autodiff();
        let loader = |source: &Arc<dyn Source>, shuffled: bool, device: Device| {
            let epoch = Arc::new(AtomicUsize::new(self.resume.unwrap_or(0)));
            Arc::new(Batches {
                source: source.clone(),
                batch_size: self.batch_size,
                order: shuffled.then(|| Order::new(source.len() / source.together(), self.seed, self.shuffle_buffer)),
                epoch,
                clock: clock.clone(),
                run_seed: self.seed,
                device,
            })
        };
        let interrupter = Interrupter::new();
        let ending = Arc::new(Mutex::new(Ending::Finished));
        let further = self.further_devices.iter().cloned().map(Device::autodiff);
        let strategy = Loop {
            sender: Mutex::new(sender),
            devices: std::iter::once(device.clone()).chain(further).collect(),
            together: self.train.together(),
            resume: self.resume,
            ending: ending.clone(),
            clock: clock.clone(),
            measure_start: self.measure_start,
            reseeding: self.reseeding,
            steps_per_epoch: self.steps_per_epoch(),
        };
        // burn-train's own files, all of which are replaced below, would be there.
        let directory = self.folder.clone().unwrap_or_default();
        let mut training = SupervisedTraining::new(
            &directory,
            loader(&self.train, true, device),
            loader(&self.test, false, self.device.clone()),
        )
        .metrics((LossMetric::new(),))
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .with_interrupter(interrupter.clone())
        .with_custom_checkpointers(files("model"), files("optim"), files("scheduler"))
        .with_checkpointing_strategy(LastTwo)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .num_epochs(self.epochs);
        if let Some(patience) = self.optimization.patience {
            training = training.early_stopping(Patience { patience, losses: self.losses.clone() });
        }
        if !self.dashboard {
            training = training.renderer(Box::new(Silent));
        }
        if let Some(epoch) = self.resume {
            let folder = folder.as_ref().ok_or_else(|| Error::missing("folder of the run", "one to resume it from"))?;
            check_checkpoint(folder, epoch)?;
            check_readable(folder, epoch, learner.model())?;
            training = training.checkpoint(epoch);
        }
        let result = training.launch(learner);
        if let Some(error) = result.error {
            let unwritten = unwritten.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(unwritten.unwrap_or_else(|| Error::format(&directory, error.to_string())));
        }
        let ending = *ending.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((result.model.network, ending))
    }
}

/// Refuses signals without labels, and labels of too many classes.
fn check_labels(source: &dyn Source, classes: usize) -> Result<()> {
    let what = format!("labels of {}", source.describe());
    let labels = source.labels().ok_or_else(|| Error::shape(&what, "one per signal", "none"))?;
    match labels.iter().find(|&&label| usize::from(label) >= classes) {
        None => Ok(()),
        Some(label) => Err(Error::shape(what, format!("labels less than {classes}"), label)),
    }
}

/// A network as burn-train's learner wants it.
#[derive(Module, Debug)]
struct Trainee<A> {
    network: A,
    /// Steps since every unit that can die was last used; one number that means nothing where none can.
    idle: RunningState<Tensor<1>>,
    #[module(skip)]
    clock: Clock,
}

impl<A: Trainable> Trainee<A> {
    fn new(network: A, clock: Clock, device: &Device) -> Self {
        let idle = RunningState::new(Tensor::zeros([network.mortal_units().max(1)], device));
        Self { network, idle, clock }
    }

    /// Notes which units a batch has used.
    fn note_used(&self, output: &StepOutput) {
        if self.network.mortal_units() > 0 {
            let used = leaf(self.network.used_units(&output.batch, &output.outcome).expect(CHECKED));
            let idle = leaf(self.idle.value_sync());
            self.idle.update((idle + 1.0) * (used.neg() + 1.0));
        }
    }

    /// Units that no batch has used for so many steps.
    fn dead(&self, steps: usize) -> Vec<usize> {
        let idle = to_host(leaf(self.idle.value_sync()));
        (0..self.network.mortal_units()).filter(|&unit| idle[unit] >= steps as f32).collect()
    }

    /// With those units started again; they count as used.
    fn reseeded(self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let idle = leaf(self.idle.value_sync());
        let (dims, device, mut steps) = (idle.dims(), idle.device(), to_host(idle));
        units.iter().for_each(|&unit| steps[unit] = 0.0);
        self.idle.update(Tensor::from_data(TensorData::new(steps, dims), &device));
        Ok(Self { network: self.network.reseeded(units, batch)?, ..self })
    }
}

/// What a step leaves for metrics and watchers.
struct StepOutput {
    batch: TrainingBatch,
    outcome: Outcome,
}

impl StepOutput {
    /// Without gradients.
    fn new(batch: TrainingBatch, outcome: Outcome) -> Self {
        let Outcome { loss, coded: Coded { codes, reconstruction } } = outcome;
        let coded = Coded { codes: codes.without_autodiff(), reconstruction: reconstruction.without_autodiff() };
        let batch = TrainingBatch { signals: batch.signals.without_autodiff(), ..batch };
        Self { batch, outcome: Outcome { loss: loss.without_autodiff(), coded } }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> std::result::Result<Self, burn::tensor::ExecutionError> {
        self.outcome.loss.device().flush()?;
        Ok(self)
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.outcome.loss.clone())
    }
}

/// Refuses to train on a GPU in a build with burn's `fusion`: with burn 0.22.1 steps of its optimizers come out wrong there for parameters of some
/// shapes, as `[24, 1, 12, 12]`, in programs without this crate as well.
///
/// # Errors
/// [`Error::DeviceFailed`].
fn check_fusion(device: &Device) -> Result<()> {
    if cfg!(feature = "fusion") && !is_host(device) {
        let reason = "burn 0.22.1's `fusion` computes some steps of its optimizers wrongly; train on the host, or in a build without that feature";
        return Err(Error::DeviceFailed { device: format!("{device:?}"), reason: reason.into() });
    }
    Ok(())
}

/// Shapes were checked before the first step, and a network's own cannot change.
const CHECKED: &str = "signals whose shape was checked";

impl<A: Trainable> TrainStep for Trainee<A> {
    type Input = TrainingBatch;
    type Output = StepOutput;

    fn step(&self, batch: TrainingBatch) -> TrainOutput<StepOutput> {
        let outcome = self.network.training(&batch).expect(CHECKED);
        let (loss, weight) = (outcome.loss.clone().mean(), batch.weight());
        let loss = if weight == 1.0 { loss } else { loss * weight };
        TrainOutput::new(self, loss.backward(), StepOutput::new(batch, outcome))
    }

    fn optimize(self, optimizer: &mut ModuleOptimizer, rate: ModuleLearningRate, gradients: GradientsParams) -> Self {
        let Self { network, idle, clock } = optimizer.step(rate, self, gradients);
        clock.done.fetch_add(1, Ordering::SeqCst);
        Self { network: network.constrained(clock.done(), clock.steps), idle, clock }
    }
}

impl<A: Trainable> InferenceStep for Trainee<A> {
    type Input = TrainingBatch;
    type Output = StepOutput;

    fn step(&self, batch: TrainingBatch) -> StepOutput {
        let outcome = self.network.validation(&batch).expect(CHECKED);
        StepOutput::new(batch, outcome)
    }
}

/// What the loop tells its watcher; all but the end of an epoch wait for whether to go on.
enum Message<A> {
    Begin { network: A, reply: Sender<bool> },
    Step { step: usize, output: StepOutput, network: A, reply: Sender<bool> },
    HeldOut { output: StepOutput, network: A, reply: Sender<bool> },
    Start { loss: f64, network: A, reply: Sender<bool> },
    Epoch { epoch: usize, loss: f64, network: A, reply: Sender<bool> },
}

/// Passes messages on until the loop has ended.
fn listen<A>(receiver: &Receiver<Message<A>>, watcher: &mut dyn Watcher<A>) -> Result<()> {
    for message in receiver {
        let (told, reply) = match message {
            Message::Begin { network, reply } => (watcher.begin(&network).map(|()| true), reply),
            Message::Step { step, output, network, reply } => {
                (watcher.step(step, &output.batch, &output.outcome, &network), reply)
            }
            Message::HeldOut { output, network, reply } => {
                (watcher.held_out(&output.batch, &output.outcome, &network), reply)
            }
            Message::Start { loss, network, reply } => (watcher.start(loss, &network).map(|()| true), reply),
            Message::Epoch { epoch, loss, network, reply } => {
                (watcher.epoch(epoch, loss, &network).map(|()| true), reply)
            }
        };
        // A loop that has ended needs no answer.
        let _ = reply.send(matches!(told, Ok(true)));
        told?;
    }
    Ok(())
}

/// burn-train's loop, with a checkpoint before the first epoch and a watcher.
struct Loop<A> {
    sender: Mutex<Sender<Message<A>>>,
    /// With gradients; the first one has the network that is kept.
    devices: Vec<Device>,
    /// How many training signals in a row stay on one device.
    together: usize,
    resume: Option<usize>,
    ending: Arc<Mutex<Ending>>,
    clock: Clock,
    measure_start: bool,
    reseeding: Option<Reseeding>,
    steps_per_epoch: usize,
}

impl<A> Loop<A> {
    /// Whether to go on.
    fn tell(&self, message: impl FnOnce(Sender<bool>) -> Message<A>) -> bool {
        let (reply, answer) = channel();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(message(reply)).is_ok() && answer.recv().unwrap_or(false)
    }

    fn end(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = ending;
    }
}

impl<A: Trainable> Loop<A> {
    /// Starts dead units again when it is time for it.
    fn reseed(&self, learner: &mut Learner<Trainee<A>>, batch: &TrainingBatch) {
        let Some(reseeding) = self.reseeding else { return };
        let every = reseeding.steps(self.steps_per_epoch, self.clock.steps);
        if !self.clock.done().is_multiple_of(every) || self.clock.progress() >= reseeding.until {
            return;
        }
        let model = learner.model();
        if model.network.mortal_units() == 0 {
            return;
        }
        let dead = model.dead(every);
        if !dead.is_empty() {
            learner.load_model(model.reseeded(&dead, batch).expect(CHECKED).into_record());
        }
    }

    /// The mean loss of the held-out signals, whose batches go to the watcher; `None` if it ended the training. `shown` is given what
    /// burn-train's own display wants, with the progress.
    fn validate(
        &self,
        model: &Trainee<A>,
        test: &ValidLoader<Trainee<A>>,
        interrupter: &Interrupter,
        mut shown: impl FnMut(StepOutput, Progress, usize),
    ) -> Option<f64> {
        let mut batches = test.iter();
        let (mut sum, mut count, mut iteration) = (0.0, 0, 0);
        while let Some(batch) = next_batch(&mut *batches, interrupter) {
            iteration += 1;
            let output = InferenceStep::step(model, batch);
            let losses = crate::device::read(output.outcome.loss.clone());
            sum += losses.iter::<f32>().map(f64::from).sum::<f64>();
            count += losses.num_elements();
            let copy = StepOutput { batch: output.batch.clone(), outcome: output.outcome.clone() };
            let network = model.network.clone();
            let goes_on = self.tell(|reply| Message::HeldOut { output, network, reply });
            shown(copy, batches.progress(), iteration);
            if !goes_on {
                interrupter.stop(None);
            }
            if interrupter.should_stop() {
                break;
            }
        }
        (!interrupter.should_stop()).then(|| sum / count.max(1) as f64)
    }
}

/// The next batch; none after the last one, or where it cannot be read, which ends the training with that error.
fn next_batch<B, E: Into<TrainingError>>(
    batches: &mut (impl Iterator<Item = std::result::Result<B, E>> + ?Sized),
    interrupter: &Interrupter,
) -> Option<B> {
    batches.next()?.map_err(|error| interrupter.fail(error)).ok()
}

impl<A: Trainable> SupervisedLearningStrategy<Trainee<A>> for Loop<A> {
    fn fit(
        &self,
        components: TrainingComponents<Trainee<A>>,
        mut learner: Learner<Trainee<A>>,
        train: TrainLoader<Trainee<A>>,
        test: ValidLoader<Trainee<A>>,
        starting_epoch: usize,
    ) -> (Trainee<A>, SupervisedTrainingEventProcessor<Trainee<A>>) {
        let TrainingComponents {
            num_epochs,
            mut checkpointer,
            interrupter,
            mut early_stopping,
            event_processor: mut processor,
            event_store: store,
            ..
        } = components;
        learner.fork(&self.devices[0]);
        let workers = Workers::new(&self.devices, self.together);
        if self.resume.is_none()
            && let Some(checkpointer) = &mut checkpointer
        {
            checkpointer.checkpoint(&learner, 0, &store);
        }
        let network = learner.model().network.valid();
        if !self.tell(|reply| Message::Begin { network, reply }) {
            interrupter.stop(None);
            self.end(Ending::Interrupted);
            return (learner.model(), processor);
        }
        if self.measure_start && self.resume.unwrap_or(0) == 0 {
            let model = learner.model().valid();
            let loss = self.validate(&model, &test, &interrupter, |_, _, _| ());
            let network = model.network;
            let told = loss.is_some_and(|loss| self.tell(|reply| Message::Start { loss, network, reply }));
            if !told {
                interrupter.stop(None);
                self.end(Ending::Interrupted);
                return (learner.model(), processor);
            }
        }
        for epoch in starting_epoch..=num_epochs {
            let start = |items| LearnerEvent::StartSplit { epoch_number: epoch, total_items: items };
            interrupter.fail_on_error(processor.process_train(start(train.num_items())));
            let mut batches = train.iter();
            let mut iteration = 0;
            while let Some(batch) = next_batch(&mut *batches, &interrupter) {
                iteration += 1;
                let TrainOutput { grads, item } = match &workers {
                    None => learner.train_step(batch),
                    Some(workers) => workers.step(&learner.model(), batch),
                };
                learner.model().note_used(&item);
                learner.lr_step();
                learner.optimizer_step(grads);
                self.reseed(&mut learner, &item.batch);
                let (step, network) = (self.clock.done(), learner.model().network.valid());
                let shown = StepOutput { batch: item.batch.clone(), outcome: item.outcome.clone() };
                let goes_on = self.tell(|reply| Message::Step { step, output: item, network, reply });
                let event = TrainingItem::new(shown, batches.progress(), Some(iteration), Some(learner.lr_current()));
                interrupter.fail_on_error(processor.process_train(LearnerEvent::ProcessedItem(event)));
                if !goes_on {
                    interrupter.stop(None);
                }
                if interrupter.should_stop() {
                    break;
                }
            }
            interrupter.fail_on_error(processor.process_train(LearnerEvent::EndSplit(epoch)));
            if interrupter.should_stop() {
                self.end(Ending::Interrupted);
                break;
            }

            interrupter.fail_on_error(processor.process_valid(start(test.num_items())));
            let model = learner.model().valid();
            let loss = self.validate(&model, &test, &interrupter, |output, progress, iteration| {
                let event = TrainingItem::new(output, progress, Some(iteration), None);
                interrupter.fail_on_error(processor.process_valid(LearnerEvent::ProcessedItem(event)));
            });
            interrupter.fail_on_error(processor.process_valid(LearnerEvent::EndSplit(epoch)));
            let Some(loss) = loss.filter(|_| !interrupter.should_stop()) else {
                self.end(Ending::Interrupted);
                break;
            };
            interrupter.fail_on_error(processor.process_train(LearnerEvent::EndEpoch(epoch)));
            interrupter.fail_on_error(processor.flush());

            let network = model.network;
            if !self.tell(|reply| Message::Epoch { epoch, loss, network, reply }) {
                self.end(Ending::Interrupted);
                break;
            }
            if let Some(checkpointer) = &mut checkpointer {
                checkpointer.checkpoint(&learner, epoch, &store);
            }
            if interrupter.should_stop() {
                self.end(Ending::Interrupted);
                break;
            }
            if let Some(early_stopping) = &mut early_stopping
                && early_stopping.should_stop(epoch, &store)
            {
                self.end(Ending::Early);
                break;
            }
        }
        (learner.model(), processor)
    }
}

/// Ends a training whose held-out loss does not become less. burn-train's own strategy would forget, over a resumption, what the best
/// loss was.
#[derive(Debug, Clone)]
struct Patience {
    patience: usize,
    /// Held-out losses of all epochs so far.
    losses: Vec<f64>,
}

impl EarlyStoppingStrategy for Patience {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        let name = LossMetric::new().name();
        let Some(loss) = store.find_metric(&name, epoch, Aggregate::Mean, &Split::Valid) else { return false };
        self.losses.push(loss);
        is_exhausted(&self.losses, self.patience)
    }
}

/// Whether the least of the losses lies `patience` epochs back.
pub(super) fn is_exhausted(losses: &[f64], patience: usize) -> bool {
    let least = losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(&b.0)));
    least.is_some_and(|(epoch, _)| losses.len() - 1 - epoch >= patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_from_the_least_loss() {
        assert!(!is_exhausted(&[], 1));
        assert!(!is_exhausted(&[3.0, 2.0, 1.0], 1));
        assert!(is_exhausted(&[3.0, 1.0, 1.0], 1));
        assert!(!is_exhausted(&[3.0, 1.0, 2.0], 2));
        assert!(is_exhausted(&[3.0, 1.0, 2.0, 1.5], 2));
    }
}
