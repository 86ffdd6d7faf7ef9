//! [`Run::train`] end to end, through an unrolled pursuit.

use super::super::end_to_end::{self, EndToEnd, Reseeding, TrainingBatch, Watcher};
use super::super::metrics::{BatchSums, Kept, Phases, Stopwatch};
use super::super::unrolled::{UnrolledTraining, check_finite};
use super::*;
use crate::autoencoder::{DiagnosticsSums, Trainable};
use crate::model::Operator;
use crate::pursuit::proximal_gradient::report_on;
use crate::pursuit::{Lambda, Problem, Pursued};

/// Trains until all epochs are done, the held-out loss does not become less, or `stop` becomes true.
pub(super) fn train(
    run: &mut Run,
    data: &Dataset,
    stop: &dyn Fn() -> bool,
    observer: &mut dyn Observer<Record, TrainingState>,
) -> Result<Outcome> {
    let learner = run.state();
    if learner.steps_done() >= learner.steps() {
        return Ok(Outcome::Finished);
    }
    let (config, device) = (learner.config().clone(), learner.device.clone());
    let training = EndToEnd {
        folder: Some(run.folder.path().to_path_buf()),
        train: data.train.clone(),
        test: data.test.clone(),
        epochs: config.learning.epochs,
        batch_size: config.learning.batch_size,
        seed: config.learning.seed,
        shuffle_buffer: config.data.shuffle_buffer,
        optimization: config.learning.unrolled.optimization.clone(),
        device,
        further_devices: run.further_devices.clone(),
        resume: end_to_end::last_checkpoint(run.folder.path()),
        losses: run.journal.losses.clone(),
        measure_start: run.journal.start.is_none(),
        reseeding: Some(Reseeding { every: config.learning.reseed_every, until: config.learning.reseed_until }),
        dashboard: run.dashboard,
    };
    let network = UnrolledTraining::new(&config, &learner.model()?, learner.progress(), learner.steps_per_epoch())?;
    let diagnostics = DiagnosticsSums::new(&network);
    let mut following = Following {
        operator: None,
        still: None,
        held_out: None,
        empty: diagnostics.clone(),
        diagnostics,
        watch: Stopwatch::start(),
        signals: data.test.len(),
        run,
        stop,
        observer,
    };
    let (_, ending) = training.run(network, &mut following)?;
    match ending {
        end_to_end::Ending::Finished | end_to_end::Ending::Early => {
            run.take_kept()?;
            Ok(Outcome::Finished)
        }
        end_to_end::Ending::Interrupted => {
            // What was done since the last checkpoint will be done again.
            let epochs = end_to_end::last_checkpoint(run.folder.path()).unwrap_or(0);
            let state = run.training.state_mut();
            state.step = epochs * state.steps_per_epoch();
            run.epoch = None;
            Ok(Outcome::Interrupted)
        }
    }
}

/// What was found on the held-out signals.
fn measures(state: &TrainingState, test: &BatchSums, loss: f64, diagnostics: Diagnostics) -> HeldOut {
    HeldOut {
        test: test.summary(),
        dictionaries: state.dictionaries(true),
        loss: Some(loss),
        diagnostics: Some(Box::new(diagnostics)),
    }
}

/// Writes down what training through an unrolled pursuit does, as the other rules do, and keeps the learner up to date.
struct Following<'a> {
    run: &'a mut Run,
    stop: &'a dyn Fn() -> bool,
    observer: &'a mut dyn Observer<Record, TrainingState>,
    /// The operator that the next batch is coded with, once training has begun.
    operator: Option<Operator>,
    /// That of the dictionaries as they are kept, once it is needed.
    still: Option<Operator>,
    /// Sums over the held-out signals of this epoch.
    held_out: Option<BatchSums>,
    diagnostics: DiagnosticsSums,
    empty: DiagnosticsSums,
    watch: Stopwatch,
    /// Held-out signals.
    signals: usize,
}

impl Following<'_> {
    /// The sums over a batch, with the operator and the λ that it was coded with.
    fn sums(
        &mut self,
        batch: &TrainingBatch,
        outcome: &end_to_end::Outcome,
        operator: &Operator,
        lambda: f32,
    ) -> Result<BatchSums> {
        let mut seconds = Phases::default();
        self.watch.lap(&mut seconds.dictionaries);
        let learner = self.run.state();
        let config = learner.config();
        let learning = &config.learning;
        let (signals, undo) = config.model.normalizer().apply(batch.signals.clone());
        let problem = Problem::new(operator, signals.clone())?.with_lambda(Lambda::Absolute(lambda))?;
        let codes = outcome.coded.codes.clone();
        let reports = report_on(&problem, codes.clone(), learning.nonnegative, learning.unrolled.iterations)?;
        let pursued = Pursued::consistent(codes, reports);
        let mut sums = BatchSums::new(&learner.cascade, &learner.geometry, &signals, &pursued, &undo, lambda);
        self.watch.lap(&mut seconds.measuring);
        sums.seconds = seconds;
        Ok(sums.without_gap())
    }

    /// Writes the model where it is the one to keep.
    fn keep(&mut self, epoch: usize, loss: f64, network: &UnrolledTraining) -> Result<Kept> {
        let run = &mut *self.run;
        let before = run.journal.kept();
        let next = Kept { epoch, loss, admissible: network.is_admissible(run.state().progress()) };
        let kept = Kept::better(before, next);
        if before != Some(kept) {
            network.last()?.save(&run.model_path())?;
        }
        Ok(kept)
    }
}

impl Watcher<UnrolledTraining> for Following<'_> {
    fn begin(&mut self, network: &UnrolledTraining) -> Result<()> {
        let state = self.run.training.state_mut();
        state.cascade = network.cascade();
        state.idle.fill(0);
        self.operator = Some(network.operator()?);
        self.still = None;
        self.watch = Stopwatch::start();
        Ok(())
    }

    fn step(
        &mut self,
        step: usize,
        batch: &TrainingBatch,
        outcome: &end_to_end::Outcome,
        network: &UnrolledTraining,
    ) -> Result<bool> {
        if (self.stop)() {
            return Ok(false);
        }
        let lambda = self.run.state().lambda();
        // The one before the step.
        let Some(operator) = self.operator.replace(network.operator()?) else { return Ok(true) };
        let sums = self.sums(batch, outcome, &operator, lambda)?;
        let run = &mut *self.run;
        let learner = run.training.state_mut();
        check_finite(outcome, learner.config.learning.unrolled.optimization.learning_rate)?;
        learner.cascade = network.cascade();
        self.still = None;
        learner.step = step;
        learner.count_idle(sums.usage());
        let mut summary = sums.summary();
        summary.dead_atoms = learner.dead_atoms().len();
        let epoch = (step - 1) / learner.steps_per_epoch() + 1;
        let batch = BatchMeasures { batch: summary, dictionaries: learner.dictionaries(false) };
        let record = Record::Step { epoch, step, batch };
        match &mut run.epoch {
            Some(epoch) => epoch.add(&sums),
            None => run.epoch = Some(sums),
        }
        run.journal.write(&record)?;
        self.observer.record(&record, run.training.state())?;
        Ok(true)
    }

    fn held_out(&mut self, batch: &TrainingBatch, outcome: &end_to_end::Outcome, _: &UnrolledTraining) -> Result<bool> {
        if (self.stop)() {
            return Ok(false);
        }
        let lambda = self.run.state().config().learning.lambda.at(1.0);
        if self.still.is_none() {
            self.still = Some(self.run.state().cascade.operator(&self.run.state().device)?);
        }
        let Some(operator) = self.still.take() else { return Ok(true) };
        let sums = self.sums(batch, outcome, &operator, lambda)?;
        self.still = Some(operator);
        self.diagnostics.add(&batch.signals, &outcome.coded);
        match &mut self.held_out {
            Some(total) => total.add(&sums),
            None => self.held_out = Some(sums),
        }
        let done = self.held_out.as_ref().map_or(0, |sums| sums.summary().signals);
        self.observer.evaluating(done as f32 / self.signals as f32);
        Ok(true)
    }

    fn start(&mut self, loss: f64, network: &UnrolledTraining) -> Result<()> {
        let Some(test) = self.held_out.take() else { return Ok(()) };
        let diagnostics = std::mem::replace(&mut self.diagnostics, self.empty.clone()).finish();
        let kept = self.keep(0, loss, network)?;
        let run = &mut *self.run;
        let record = Record::Start { held_out: measures(run.state(), &test, loss, diagnostics), kept };
        run.journal.write(&record)?;
        self.observer.record(&record, run.training.state())?;
        run.journal.remember(record);
        self.watch = Stopwatch::start();
        Ok(())
    }

    fn epoch(&mut self, epoch: usize, held_out_loss: f64, network: &UnrolledTraining) -> Result<()> {
        let kept = self.keep(epoch, held_out_loss, network)?;
        let run = &mut *self.run;
        let (Some(train), Some(test)) = (run.epoch.take(), self.held_out.take()) else { return Ok(()) };
        let diagnostics = std::mem::replace(&mut self.diagnostics, self.empty.clone()).finish();
        let record = Record::Epoch {
            epoch,
            step: run.state().steps_done(),
            train: EpochMeasures { train: train.summary() },
            held_out: measures(run.state(), &test, held_out_loss, diagnostics),
            kept: Some(kept),
        };
        run.journal.write(&record)?;
        run.save_checkpoint()?;
        self.observer.record(&record, run.training.state())?;
        run.training.state_mut().idle.fill(0);
        run.journal.remember(record);
        Ok(())
    }
}
