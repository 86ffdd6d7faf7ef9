//! A training run in its folder: configuration, metrics, checkpoint, model.
//!
//! ```text
//! config.json             what is computed
//! metrics.jsonl           one line a step and one an epoch
//! checkpoint.safetensors  the state to go on from, and what tells the signals from others
//! model.safetensors       the dictionaries, as of the last epoch's end; by training end to end those of the least held-out loss
//! ```
//!
//! A run that was killed or interrupted goes on from its last checkpoint and comes to the same model, bit for bit, as one that
//! was left alone.

use super::checkpoint;
use super::collective::Ranks;
use super::config::{LearningConfig, TrainConfig};
#[cfg(feature = "train")]
use super::end_to_end;
use super::folder::{self, HeldOutLoss, Journal, Observer, RunFolder};
use super::learner::{DictionaryLearner, Memory};
use super::metrics::{BatchSums, Dictionaries, Summary};
use super::state::{self, TrainingState};
use crate::autoencoder::Diagnostics;
use crate::data::{DataConfig, Dataset, Fingerprint, Source, digest_number};
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use crate::kernels::sparse::to_host;
use crate::model::normalization::Normalization;
use crate::model::{Mlcsc, ModelConfig};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(feature = "train")]
mod unrolled;

#[cfg(not(feature = "train"))]
mod unrolled {
    //! Training end to end needs gradients.
    use super::*;

    pub(super) fn train(
        _: &mut Run,
        _: &Dataset,
        _: &dyn Fn() -> bool,
        _: &mut dyn Observer<Record, TrainingState>,
    ) -> Result<Outcome> {
        let expected = "pursuit or gradient: this program was built without the feature train";
        Err(Error::parameter("learning.update", "unrolled", expected))
    }
}

/// A line of `metrics.jsonl`.
pub type Record = folder::Record<BatchMeasures, EpochMeasures, HeldOut>;

/// What is measured of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchMeasures {
    /// Means over the batch, before the dictionaries were changed; dead atoms as of training.
    pub batch: Summary,
    /// The dictionaries after the step.
    pub dictionaries: Dictionaries,
}

/// What is measured of an epoch's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMeasures {
    /// Means over the epoch's batches.
    pub train: Summary,
}

/// What is found on the held-out signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Means over the signals.
    pub test: Summary,
    /// The dictionaries that they were coded with.
    pub dictionaries: Dictionaries,
    /// Their mean loss, where training is by gradients of a loss.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// Their codes as users of sparse auto-encoders look at them, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diagnostics: Option<Box<Diagnostics>>,
}

impl HeldOutLoss for HeldOut {
    fn loss(&self) -> Option<f64> {
        self.loss
    }
}

/// How a call of [`Run::train`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was told to stop; the checkpoint holds the state.
    Interrupted,
}

/// What takes the steps.
#[derive(Debug)]
pub(super) enum Training {
    /// One batch after the other.
    Online(DictionaryLearner),
    /// A network around the dictionaries, which lives as long as [`Run::train`] runs.
    EndToEnd(TrainingState),
}

impl Training {
    /// The method of the state's configuration.
    fn of(state: TrainingState) -> Self {
        match state.config().learning.update.online() {
            Some(rule) => Self::Online(DictionaryLearner::of(state, rule)),
            None => Self::EndToEnd(state),
        }
    }

    pub fn state(&self) -> &TrainingState {
        match self {
            Self::Online(learner) => &learner.state,
            Self::EndToEnd(state) => state,
        }
    }

    pub fn state_mut(&mut self) -> &mut TrainingState {
        match self {
            Self::Online(learner) => &mut learner.state,
            Self::EndToEnd(state) => state,
        }
    }

    pub fn memory(&self) -> Option<&Memory> {
        match self {
            Self::Online(learner) => Some(&learner.memory),
            Self::EndToEnd(_) => None,
        }
    }

    pub fn memory_mut(&mut self) -> Option<&mut Memory> {
        match self {
            Self::Online(learner) => Some(&mut learner.memory),
            Self::EndToEnd(_) => None,
        }
    }
}

/// A run and its folder.
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    training: Training,
    /// What tells its signals from others.
    data: Fingerprint,
    /// Sums over the present epoch's steps; at an epoch's end they stay until its record is written.
    epoch: Option<BatchSums>,
    journal: Journal<BatchMeasures, EpochMeasures, HeldOut>,
    /// Whether training by gradients shows burn's dashboard.
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    dashboard: bool,
    /// Devices that share the batches of training by gradients with the first.
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    further_devices: Vec<Device>,
}

/// Time between two checkpoints within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// The configuration of the run in a folder.
///
/// # Errors
/// No run there, or a configuration that cannot be read.
pub fn read_config(folder: &Path) -> Result<TrainConfig> {
    read_config_file(&RunFolder::new(folder).existing_config()?)
}

/// A configuration from a JSON file.
///
/// # Errors
/// A file that cannot be read; malformed JSON; a field that is missing, unknown, of another type or out of range.
pub fn read_config_file(path: &Path) -> Result<TrainConfig> {
    let config = parse_config(path, &files::read_whole(path)?, None)?;
    config.check().map_err(|error| Error::format(path, error.to_string()))?;
    Ok(config)
}

/// What a configuration's file holds, still to be completed: ranges are not checked, and `model`, if there is one, takes the place of
/// what the file says or does not say of it.
pub(crate) fn parse_config(path: &Path, text: &[u8], model: Option<&ModelConfig>) -> Result<TrainConfig> {
    let wrong = |reason: String| Error::format(path, format!("expected a training configuration: {reason}"));
    let Some(model) = model else { return json::parse_config(text).map_err(wrong) };
    let mut config: serde_json::Value = json::parse(text).map_err(wrong)?;
    if let Some(fields) = config.as_object_mut() {
        fields.insert("model".into(), serde_json::to_value(model).map_err(|error| wrong(error.to_string()))?);
    }
    json::parse_config_value(config).map_err(wrong)
}

/// Whether configuration and signals fit, so that nothing is found out after an epoch's work.
fn check(config: &TrainConfig, data: &Dataset) -> Result<()> {
    state::check(config, &*data.train)?;
    if data.test.is_empty() {
        return Err(Error::shape(format!("held-out signals of {}", data.train.describe()), "at least one", 0));
    }
    state::check_windows(config, &*data.test)
}

/// Refuses ranks with other settings, signals, dictionaries to start from or checkpoints than the first one's. Where the signals lie may differ.
fn compare(
    ranks: &Ranks,
    config: &TrainConfig,
    signals: &Fingerprint,
    (start, checkpoint): (Option<&Mlcsc>, Option<&Path>),
) -> Result<()> {
    if ranks.is_alone() {
        return Ok(());
    }
    let data = DataConfig { source: String::new(), ..config.data.clone() };
    let settings = serde_json::to_vec(&TrainConfig { data, ..config.clone() })
        .map_err(|error| Error::parameter("learning", "given", format!("settings that can be written: {error}")))?;
    let filters = start.into_iter().flat_map(Mlcsc::filters).flat_map(to_host).flat_map(f32::to_le_bytes);
    let checkpoint = checkpoint.map(files::read_whole).transpose()?.unwrap_or_default();
    ranks.compare(&[
        ("settings", digest_number(&settings)),
        ("signals", digest_number(signals.to_string().as_bytes())),
        ("dictionaries to start from", digest_number(&filters.collect::<Vec<_>>())),
        ("checkpoint", digest_number(&checkpoint)),
    ])
}

/// Refuses training end to end by several ranks.
fn check_ranks(config: &TrainConfig, ranks: &Ranks) -> Result<()> {
    match config.learning.update.online() {
        None if !ranks.is_alone() => {
            let expected = format!("pursuit or gradient with {} processes: gradients are not shared", ranks.size());
            Err(Error::parameter("learning.update", config.learning.update, expected))
        }
        _ => Ok(()),
    }
}

/// Refuses signals that hold nothing to learn from. They are read until there is something.
///
/// # Errors
/// Signals that cannot be read; nothing but zeros, or less than single precision can square; nothing but flat signals where their
/// means are taken off.
pub(crate) fn check_content(source: &dyn Source, normalization: Normalization) -> Result<()> {
    let len = source.shape().len();
    let (mut values, mut first): (Vec<f32>, Option<Vec<f32>>) = (Vec::new(), None);
    // The most that there was.
    let mut most = 0.0f32;
    for start in (0..source.len()).step_by(AT_A_TIME) {
        let indices: Vec<usize> = (start..(start + AT_A_TIME).min(source.len())).collect();
        values.resize(indices.len() * len, 0.0);
        source.read(&indices, &mut values)?;
        if normalization.is_fitted() {
            // What the first of all signals has is taken off all.
            let first = first.get_or_insert_with(|| values[..len].to_vec());
            let differences = |signal: &[f32]| largest(signal.iter().zip(&*first).map(|(a, b)| a - b));
            most = values.chunks_exact(len.max(1)).map(differences).fold(most, f32::max);
        } else {
            let held = |signal: &[f32]| match normalization {
                Normalization::None => largest(signal.iter().copied()),
                _ => largest(signal.iter().map(|value| value - signal[0])),
            };
            most = values.chunks_exact(len.max(1)).map(held).fold(most, f32::max);
        }
        if most > NOTHING {
            return Ok(());
        }
    }
    let [what, found] = match normalization {
        Normalization::None => ["values other than zero, of more than 1e-15 in magnitude", "zeros only"],
        _ if normalization.is_fitted() && source.len() == 1 => [
            "several signals, whose mean is taken off",
            "one (others may be held out); `patch` cuts pieces out of it, and normalization none leaves means as they are",
        ],
        _ if normalization.is_fitted() => {
            ["signals that differ by more than 1e-15, whose mean is taken off", "one signal throughout, or nearly"]
        }
        _ => ["values that differ within a signal by more than 1e-15, whose mean is taken off", "flat signals only"],
    };
    let found = match most > 0.0 {
        true => format!("at most {most:.0e} (multiply the signals by a constant first)"),
        false => found.into(),
    };
    Err(Error::shape(format!("training signals of {}", source.describe()), what, found))
}

/// The largest magnitude.
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Magnitude up to which values count as zeros: the squares of less are lost in single precision.
const NOTHING: f32 = 1e-15;

/// Signals that [`check_content`] reads at a time.
const AT_A_TIME: usize = 64;

impl Run {
    /// A new run: writes the configuration, initialises the dictionaries.
    ///
    /// # Errors
    /// As [`Self::create_from`].
    pub fn create(
        folder: &Path,
        config: &TrainConfig,
        data: &Dataset,
        device: &Device,
        observer: &mut dyn Observer<Record, TrainingState>,
    ) -> Result<Self> {
        Self::create_from(folder, config, None, data, device, observer)
    }

    /// [`Self::create`] with the dictionaries of a model in place of initial ones, by whatever rule it was learned.
    ///
    /// # Errors
    /// A folder that cannot be written or holds a run, unless it is this one without a checkpoint; a configuration that
    /// does not fit itself or the signals; signals that there is nothing to learn from.
    pub fn create_from(
        folder: &Path,
        config: &TrainConfig,
        from: Option<&Mlcsc>,
        data: &Dataset,
        device: &Device,
        observer: &mut dyn Observer<Record, TrainingState>,
    ) -> Result<Self> {
        Self::create_on(folder, config, from, data, device, observer, Ranks::default())
    }

    /// [`Self::create_from`] by several ranks that share the coding. Every one calls it; the first writes all files.
    ///
    /// # Errors
    /// As [`Self::create_from`]; training end to end by more than one rank; ranks with different settings, signals or dictionaries to start
    /// from; the failure of another rank.
    pub fn create_on(
        folder: &Path,
        config: &TrainConfig,
        from: Option<&Mlcsc>,
        data: &Dataset,
        device: &Device,
        observer: &mut dyn Observer<Record, TrainingState>,
        ranks: Ranks,
    ) -> Result<Self> {
        check_ranks(config, &ranks)?;
        // Without a checkpoint nothing was done on signals that may lie elsewhere by now.
        let begun = |begun: &TrainConfig| {
            let learning = LearningConfig { epochs: config.learning.epochs, ..begun.learning.clone() };
            let data = DataConfig { source: config.data.source.clone(), ..begun.data.clone() };
            TrainConfig { learning, data, ..begun.clone() } == *config
        };
        // The same run, killed before its first checkpoint, begins anew.
        let files_of = RunFolder::new(folder);
        let again = files_of.is_unstarted() && read_config(folder).is_ok_and(|config| begun(&config));
        if files_of.holds_run() && !again {
            return Err(Error::parameter("out", folder.display(), "a folder without a run in it, or `resume`"));
        }
        check(config, data)?;
        check_content(&*data.train, config.model.normalization)?;
        let fingerprint = Fingerprint::of(data)?;
        // No rank finds what another has written.
        compare(&ranks, config, &fingerprint, (from, None))?;
        if ranks.is_first() {
            if again {
                files_of.remove_leftovers();
            }
            // First of all, so that a folder that cannot be written is found out before any work.
            files_of.write_config(config)?;
        }
        let state = match from {
            Some(model) => TrainingState::from_model(config, model, &*data.train, device)?,
            None => {
                TrainingState::start(config, &*data.train, device, |layer, part| observer.initializing(layer, part))?
            }
        };
        let run = Self::with(files_of, Training::of(state), fingerprint, None, ranks);
        run.save_checkpoint()?;
        if run.is_first() {
            run.journal.begin()?;
        }
        Ok(run)
    }

    /// Goes on with the run in a folder. `config` is what [`read_config`] gave; its number of epochs may have been changed, and the
    /// source of its data, if these are the same.
    ///
    /// # Errors
    /// A folder without a checkpoint; a checkpoint that is damaged or of another configuration; signals that do not fit, or others
    /// than the run began with; a run end to end that is done and whose model is gone.
    pub fn resume(folder: &Path, config: &TrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        Self::resume_on(folder, config, data, device, Ranks::default())
    }

    /// [`Self::resume`] by several ranks, as many as before or not. Every one calls it.
    ///
    /// # Errors
    /// As [`Self::resume`]; training end to end by more than one rank; ranks with different settings, signals or checkpoints; the failure of
    /// another rank.
    pub fn resume_on(
        folder: &Path,
        config: &TrainConfig,
        data: &Dataset,
        device: &Device,
        ranks: Ranks,
    ) -> Result<Self> {
        check_ranks(config, &ranks)?;
        let files_of = RunFolder::new(folder);
        let path = files_of.checkpoint();
        if !path.exists() {
            return Err(Error::format(folder, "no run to resume here: checkpoint.safetensors is missing"));
        }
        check(config, data)?;
        let state = TrainingState::from_model(config, &config.model.init(device)?, &*data.train, device)?;
        let mut training = Training::of(state);
        let fingerprint = Fingerprint::of(data)?;
        let epoch = checkpoint::load(&path, &mut training, &fingerprint)?;
        #[cfg(feature = "train")]
        if let Training::EndToEnd(state) = &mut training {
            // Parameters, optimizer and scheduler are in checkpoints of their own, which may be an epoch behind.
            state.step = end_to_end::last_checkpoint(folder).unwrap_or(0) * state.steps_per_epoch();
        }
        let learner = training.state();
        if learner.steps_done() > learner.steps() {
            let (done, least) = (learner.steps_done(), learner.steps_done().div_ceil(learner.steps_per_epoch()));
            let expected = format!("at least {least}: {done} steps are done");
            return Err(Error::parameter("learning.epochs", config.learning.epochs, expected));
        }
        // All have read what the first one writes.
        compare(&ranks, config, &fingerprint, (None, Some(&path)))?;
        let first = ranks.is_first();
        let mut run = Self::with(files_of, training, fingerprint, epoch, ranks);
        let (done, pending) = (run.state().steps_done(), run.epoch.is_some());
        if !first {
            return Ok(run);
        }
        run.folder.remove_leftovers();
        // A new end and a new place of the data are remembered, for the next time that the run is resumed.
        if !read_config(folder).is_ok_and(|known| known == *config) {
            run.folder.write_config(config)?;
        }
        run.journal.cut(|record| {
            // An epoch whose sums are still in the checkpoint will be recorded again.
            let again = pending && matches!(record, Record::Epoch { .. }) && record.step() == done;
            record.step() <= done && !again
        })?;
        if run.state().steps_done() >= run.state().steps() {
            run.take_kept()?;
        }
        Ok(run)
    }

    fn with(
        folder: RunFolder,
        mut training: Training,
        data: Fingerprint,
        epoch: Option<BatchSums>,
        ranks: Ranks,
    ) -> Self {
        training.state_mut().ranks = ranks;
        Self {
            journal: Journal::new(&folder),
            folder,
            training,
            data,
            epoch,
            dashboard: false,
            further_devices: Vec::new(),
        }
    }

    /// Gives the learner of a run that has ended the dictionaries that are kept. Of a run online these are the last ones, and written
    /// again if their file was lost.
    fn take_kept(&mut self) -> Result<()> {
        if matches!(self.training, Training::EndToEnd(_)) {
            if !self.model_path().exists() {
                let reason = "expected the model of the epoch that is kept, found no such file; the last checkpoint goes on with more `epochs`";
                return Err(Error::format(&self.model_path(), reason));
            }
            let (model, _) = Mlcsc::load(&self.model_path(), &self.state().device)?;
            self.training.state_mut().set_model(&model);
        } else if !self.model_path().exists() && self.is_first() {
            self.state().model()?.save(&self.model_path(), self.state().coding())?;
        }
        Ok(())
    }

    /// Shows burn's dashboard while training by gradients; it needs the feature `tui` and a terminal.
    #[must_use]
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// Shares every batch of a training end to end among further devices of the same kind as the run's; an online rule makes no use of them.
    /// Each takes a part of the batch, and sums of parts differ from those of the whole by rounding.
    #[must_use]
    pub fn with_further_devices(self, further_devices: Vec<Device>) -> Self {
        Self { further_devices, ..self }
    }

    /// Whether this is the rank that writes files.
    fn is_first(&self) -> bool {
        self.state().ranks.is_first()
    }

    /// What is trained, as it stands.
    pub fn state(&self) -> &TrainingState {
        self.training.state()
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the model is, once an epoch is done.
    pub fn model_path(&self) -> PathBuf {
        self.folder.model()
    }

    /// The record of the last epoch that was finished.
    pub fn last_epoch(&self) -> Option<&Record> {
        self.journal.last.as_ref()
    }

    /// The record of the start, before the first step, where training is by gradients of a loss.
    pub fn start(&self) -> Option<&Record> {
        self.journal.start.as_ref()
    }

    /// The record of the state that is kept as the model: where training is by gradients of a loss that of the least held-out loss, which
    /// may be the start's; else the last epoch's.
    pub fn kept(&self) -> Option<&Record> {
        self.journal.best.as_ref().or(self.journal.last.as_ref())
    }

    /// Trains until all epochs are done or `stop` becomes true. Then the learner has the dictionaries that are kept; see [`Self::kept`].
    ///
    /// # Errors
    /// Signals that cannot be read; files that cannot be written, in which case the last checkpoint is still there.
    pub fn train(
        &mut self,
        data: &Dataset,
        stop: &dyn Fn() -> bool,
        observer: &mut dyn Observer<Record, TrainingState>,
    ) -> Result<Outcome> {
        if matches!(self.training, Training::EndToEnd(_)) {
            return unrolled::train(self, data, stop, observer);
        }
        let mut saved = Instant::now();
        loop {
            let Training::Online(learner) = &mut self.training else { return Ok(Outcome::Finished) };
            let per_epoch = learner.steps_per_epoch();
            let at_end = learner.steps_done() > 0 && learner.steps_done().is_multiple_of(per_epoch);
            if at_end && self.epoch.is_some() {
                self.save_checkpoint()?;
                if !self.finish_epoch(data, stop, observer)? {
                    return Ok(Outcome::Interrupted);
                }
                self.save_checkpoint()?;
                saved = Instant::now();
                continue;
            }
            if learner.steps_done() >= learner.steps() {
                return Ok(Outcome::Finished);
            }
            if saved.elapsed() > CHECKPOINT_EVERY {
                self.save_checkpoint()?;
                saved = Instant::now();
                continue;
            }
            if learner.agree(stop())? {
                self.save_checkpoint()?;
                return Ok(Outcome::Interrupted);
            }
            let epoch = learner.steps_done() / per_epoch + 1;
            let sums = learner.step_while(&*data.train, |part| {
                observer.coding(part);
                !stop()
            })?;
            let Some(sums) = sums else {
                self.save_checkpoint()?;
                return Ok(Outcome::Interrupted);
            };
            let mut batch = sums.summary();
            batch.dead_atoms = learner.dead_atoms().len();
            let batch = BatchMeasures { batch, dictionaries: learner.dictionaries(false) };
            let record = Record::Step { epoch, step: learner.steps_done(), batch };
            match &mut self.epoch {
                Some(epoch) => epoch.add(&sums),
                None => self.epoch = Some(sums),
            }
            if self.is_first() {
                self.journal.write(&record)?;
            }
            observer.record(&record, self.training.state())?;
        }
    }

    /// Codes the held-out signals, writes the epoch's record and the model; `false` if it was told to stop.
    fn finish_epoch(
        &mut self,
        data: &Dataset,
        stop: &dyn Fn() -> bool,
        observer: &mut dyn Observer<Record, TrainingState>,
    ) -> Result<bool> {
        let test = self.state().evaluate(&*data.test, |part| {
            observer.evaluating(part);
            !stop()
        })?;
        let Some(test) = test else { return Ok(false) };
        let Some(sums) = self.epoch.take() else { return Ok(true) };
        let learner = self.training.state();
        let record = Record::Epoch {
            epoch: learner.steps_done() / learner.steps_per_epoch(),
            step: learner.steps_done(),
            train: EpochMeasures { train: sums.summary() },
            held_out: HeldOut { test, dictionaries: learner.dictionaries(true), loss: None, diagnostics: None },
            kept: None,
        };
        if learner.ranks.is_first() {
            self.journal.write(&record)?;
            learner.model()?.save(&self.folder.model(), learner.coding())?;
        }
        observer.record(&record, learner)?;
        self.journal.remember(record);
        Ok(true)
    }

    fn save_checkpoint(&self) -> Result<()> {
        match self.is_first() {
            true => checkpoint::save(&self.folder.checkpoint(), &self.training, &self.data, self.epoch.as_ref()),
            false => Ok(()),
        }
    }
}
