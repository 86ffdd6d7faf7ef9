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
use super::config::UpdateRule;
use super::config::{LearningConfig, TrainConfig};
#[cfg(feature = "train")]
use super::end_to_end::{self, EndToEnd, Reseeding, TrainingBatch, Watcher};
use super::learner::{self, DictionaryLearner};
use super::metrics::{BatchSums, Dictionaries, Kept, Summary};
#[cfg(feature = "train")]
use super::metrics::{Phases, Stopwatch};
#[cfg(feature = "train")]
use super::unrolled::{UnrolledTraining, check_finite};
use crate::autoencoder::Diagnostics;
#[cfg(feature = "train")]
use crate::autoencoder::{DiagnosticsSums, Trainable};
use crate::data::{DataConfig, Dataset, Fingerprint, Source};
use crate::error::{Error, Result};
use crate::files;
#[cfg(feature = "train")]
use crate::model::Operator;
use crate::model::file::CodingDefaults;
use crate::model::normalization::Normalization;
use crate::model::{Mlcsc, ModelConfig};
#[cfg(feature = "train")]
use crate::pursuit::proximal_gradient::report_on;
#[cfg(feature = "train")]
use crate::pursuit::{Lambda, Problem, Pursued};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// Before the first step, where training is by gradients of a loss.
    Start {
        /// Means over the held-out signals, with the dictionaries as they were given or initialised.
        test: Summary,
        /// These dictionaries.
        dictionaries: Dictionaries,
        /// Mean loss of the held-out signals.
        loss: f64,
        /// The held-out codes as users of sparse auto-encoders look at them.
        diagnostics: Box<Diagnostics>,
        /// The state that is kept, which is this one.
        kept: Kept,
    },
    /// After a step.
    Step {
        /// Epoch that the step belongs to, from 1.
        epoch: usize,
        /// Steps done.
        step: usize,
        /// Means over the batch, before the dictionaries were changed; dead atoms as of training.
        batch: Summary,
        /// The dictionaries after the step.
        dictionaries: Dictionaries,
    },
    /// After an epoch.
    Epoch {
        /// The epoch, from 1.
        epoch: usize,
        /// Steps done.
        step: usize,
        /// Means over the epoch's batches.
        train: Summary,
        /// Means over the held-out signals, with the dictionaries as of the epoch's end.
        test: Summary,
        /// The dictionaries after the epoch.
        dictionaries: Dictionaries,
        /// Mean loss of the held-out signals, where training is by gradients of a loss.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        loss: Option<f64>,
        /// The held-out codes as users of sparse auto-encoders look at them.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        diagnostics: Option<Box<Diagnostics>>,
        /// The state that is kept, where training is by gradients of a loss: that of the least held-out loss so far.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        kept: Option<Kept>,
    },
}

impl Record {
    fn step(&self) -> usize {
        match self {
            Self::Start { .. } => 0,
            Self::Step { step, .. } | Self::Epoch { step, .. } => *step,
        }
    }

    /// What is kept, where training is by gradients of a loss and the record is not that of a step.
    pub fn kept(&self) -> Option<Kept> {
        match self {
            Self::Start { kept, .. } => Some(*kept),
            Self::Step { .. } => None,
            Self::Epoch { kept, .. } => *kept,
        }
    }

    /// What was found on the held-out signals, and of the dictionaries, except after a step.
    pub fn held_out(&self) -> Option<HeldOut<'_>> {
        match self {
            Self::Step { .. } => None,
            Self::Start { test, dictionaries, loss, diagnostics, .. } => {
                Some(HeldOut { test, dictionaries, loss: Some(*loss), diagnostics: Some(diagnostics) })
            }
            Self::Epoch { test, dictionaries, loss, diagnostics, .. } => {
                Some(HeldOut { test, dictionaries, loss: *loss, diagnostics: diagnostics.as_deref() })
            }
        }
    }
}

/// What a [`Record`] says of the held-out signals.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    /// Means over the signals.
    pub test: &'a Summary,
    /// The dictionaries that they were coded with.
    pub dictionaries: &'a Dictionaries,
    /// Their mean loss, where training is by gradients of a loss.
    pub loss: Option<f64>,
    /// Their codes as users of sparse auto-encoders look at them, likewise.
    pub diagnostics: Option<&'a Diagnostics>,
}

/// Callbacks of a run.
pub trait Observer {
    /// The initialisation of a layer (from 1) has come this far.
    fn initializing(&mut self, layer: usize, part: f32);
    /// Coding of the next step's batch has come this far.
    fn coding(&mut self, _part: f32) {}
    /// A step or an epoch is done.
    fn record(&mut self, record: &Record, learner: &DictionaryLearner) -> Result<()>;
    /// Coding of the held-out signals has come this far.
    fn evaluating(&mut self, part: f32);
}

/// How a call of [`Run::train`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was told to stop; the checkpoint holds the state.
    Interrupted,
}

/// A run and its folder.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    learner: DictionaryLearner,
    /// What tells its signals from others.
    data: Fingerprint,
    /// Sums over the present epoch's steps; at an epoch's end they stay until its record is written.
    epoch: Option<BatchSums>,
    /// The last epoch's record.
    last: Option<Record>,
    /// The record of the start, where there is one, and of the state that is kept.
    start: Option<Record>,
    best: Option<Record>,
    /// Held-out losses of all epochs so far, where there are losses.
    losses: Vec<f64>,
    /// Whether training by gradients shows burn's dashboard.
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    dashboard: bool,
}

/// Time between two checkpoints within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the model's file in a run's folder, a rival's too.
pub const MODEL: &str = "model.safetensors";

/// Whether a folder holds a run.
pub fn holds_run(folder: &Path) -> bool {
    [CONFIG, CHECKPOINT, MODEL].iter().any(|name| folder.join(name).exists())
}

/// Whether the run in a folder was killed before its first checkpoint: there is a configuration and nothing else.
pub fn is_unstarted(folder: &Path) -> bool {
    let exists = |name: &&str| folder.join(name).exists();
    exists(&CONFIG) && ![METRICS, CHECKPOINT, MODEL].iter().any(exists)
}

/// The configuration of the run in a folder.
///
/// # Errors
/// No run there, or a configuration that cannot be read.
pub fn read_config(folder: &Path) -> Result<TrainConfig> {
    read_config_file(&config_path(folder)?)
}

/// Where the configuration of the run in a folder is.
///
/// # Errors
/// No run there.
pub(crate) fn config_path(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(CONFIG);
    match path.exists() {
        true => Ok(path),
        false => Err(Error::format(folder, format!("no run to resume here: {CONFIG} is missing"))),
    }
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
    let wrong = |error: serde_json::Error| Error::format(path, format!("expected a training configuration: {error}"));
    let text = without_mark(text);
    let Some(model) = model else { return serde_json::from_slice(&text).map_err(wrong) };
    let mut config: serde_json::Value = serde_json::from_slice(&text).map_err(wrong)?;
    if let Some(fields) = config.as_object_mut() {
        fields.insert("model".into(), serde_json::to_value(model).map_err(wrong)?);
    }
    serde_json::from_value(config).map_err(wrong)
}

/// A text in UTF-8 and without the byte order mark that some editors put at its beginning. Where the mark is that of UTF-16, in which
/// PowerShell writes what a program prints, the text is turned into UTF-8.
pub(crate) fn without_mark(text: &[u8]) -> Cow<'_, [u8]> {
    let units = |from: fn([u8; 2]) -> u16| text[2..].as_chunks().0.iter().map(move |unit| from(*unit)).collect();
    let units: Vec<u16> = match text {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => return text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).into(),
    };
    String::from_utf16_lossy(&units).into_bytes().into()
}

fn write_config(folder: &Path, config: &TrainConfig) -> Result<()> {
    let text = serde_json::to_string_pretty(config).map_err(|error| Error::format(folder, error.to_string()))?;
    files::write_bytes(&folder.join(CONFIG), text.as_bytes())
}

/// Whether configuration and signals fit, so that nothing is found out after an epoch's work.
fn check(config: &TrainConfig, data: &Dataset) -> Result<()> {
    learner::check(config, &*data.train)?;
    if data.test.is_empty() {
        return Err(Error::shape(format!("held-out signals of {}", data.train.describe()), "at least one", 0));
    }
    Ok(())
}

/// Refuses signals that hold nothing to learn from. They are read until there is something.
///
/// # Errors
/// Signals that cannot be read; nothing but zeros, or less than single precision can square; nothing but flat signals where their
/// means are taken off.
pub(crate) fn check_content(source: &dyn Source, normalization: Normalization) -> Result<()> {
    let len = source.shape().len();
    let mut values = Vec::new();
    for start in (0..source.len()).step_by(AT_A_TIME) {
        let indices: Vec<usize> = (start..(start + AT_A_TIME).min(source.len())).collect();
        values.resize(indices.len() * len, 0.0);
        source.read(&indices, &mut values)?;
        let holds = |signal: &[f32]| match normalization {
            Normalization::None => signal.iter().any(|&value| value.abs() > NOTHING),
            _ => signal.iter().any(|&value| (value - signal[0]).abs() > NOTHING),
        };
        if values.chunks_exact(len.max(1)).any(holds) {
            return Ok(());
        }
    }
    let [what, found] = match normalization {
        Normalization::None => ["values other than zero, of more than 1e-15 in magnitude", "zeros only"],
        _ => ["values that differ within a signal, whose mean is taken off", "flat signals only"],
    };
    Err(Error::shape(format!("training signals of {}", source.describe()), what, found))
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
        observer: &mut dyn Observer,
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
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        // Without a checkpoint nothing was done on signals that may lie elsewhere by now.
        let begun = |begun: &TrainConfig| {
            let learning = LearningConfig { epochs: config.learning.epochs, ..begun.learning.clone() };
            let data = DataConfig { source: config.data.source.clone(), ..begun.data.clone() };
            TrainConfig { learning, data, ..begun.clone() } == *config
        };
        // The same run, killed before its first checkpoint, begins anew.
        let again = is_unstarted(folder) && read_config(folder).is_ok_and(|config| begun(&config));
        if holds_run(folder) && !again {
            return Err(Error::parameter("out", folder.display(), "a folder without a run in it, or --resume"));
        }
        check(config, data)?;
        check_content(&*data.train, config.model.normalization)?;
        let fingerprint = Fingerprint::of(data)?;
        if again {
            files::remove_leftovers(folder);
        }
        // First of all, so that a folder that cannot be written is found out before any work.
        write_config(folder, config)?;
        let learner = match from {
            Some(model) => DictionaryLearner::from_model(config, model, &*data.train, device)?,
            None => DictionaryLearner::start(config, &*data.train, device, |layer, part| {
                observer.initializing(layer, part)
            })?,
        };
        let run = Self::with_learner(folder, learner, fingerprint, None);
        run.save_checkpoint()?;
        files::write_bytes(&run.folder.join(METRICS), b"")?;
        Ok(run)
    }

    /// Goes on with the run in a folder. `config` is what [`read_config`] gave; its number of epochs may have been changed, and the
    /// source of its data, if these are the same.
    ///
    /// # Errors
    /// A folder without a checkpoint; a checkpoint that is damaged or of another configuration; signals that do not fit, or others
    /// than the run began with.
    pub fn resume(folder: &Path, config: &TrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        let path = folder.join(CHECKPOINT);
        if !path.exists() {
            return Err(Error::format(folder, format!("no run to resume here: {CHECKPOINT} is missing")));
        }
        check(config, data)?;
        let mut learner = DictionaryLearner::from_model(config, &config.model.init(device)?, &*data.train, device)?;
        let fingerprint = Fingerprint::of(data)?;
        let epoch = checkpoint::load(&path, &mut learner, &fingerprint)?;
        #[cfg(feature = "train")]
        if config.learning.update == UpdateRule::Unrolled {
            // Parameters, optimizer and scheduler are in checkpoints of their own, which may be an epoch behind.
            learner.step = end_to_end::last_checkpoint(folder).unwrap_or(0) * learner.steps_per_epoch();
        }
        if learner.steps_done() > learner.steps() {
            let (done, least) = (learner.steps_done(), learner.steps_done().div_ceil(learner.steps_per_epoch()));
            let expected = format!("at least {least}: {done} steps are done");
            return Err(Error::parameter("epochs", config.learning.epochs, expected));
        }
        files::remove_leftovers(folder);
        // A new end and a new place of the data are remembered, for the next time that the run is resumed.
        if !read_config(folder).is_ok_and(|known| known == *config) {
            write_config(folder, config)?;
        }
        let mut run = Self::with_learner(folder, learner, fingerprint, epoch);
        run.cut_metrics()?;
        if run.learner.steps_done() >= run.learner.steps() {
            run.take_kept()?;
        }
        Ok(run)
    }

    fn with_learner(folder: &Path, learner: DictionaryLearner, data: Fingerprint, epoch: Option<BatchSums>) -> Self {
        Self {
            folder: folder.into(),
            learner,
            data,
            epoch,
            last: None,
            start: None,
            best: None,
            losses: Vec::new(),
            dashboard: false,
        }
    }

    /// Gives the learner the dictionaries that are kept, where training end to end has ended.
    fn take_kept(&mut self) -> Result<()> {
        if self.learner.config().learning.update == UpdateRule::Unrolled && self.model_path().exists() {
            let (model, _) = Mlcsc::load(&self.model_path(), &self.learner.device)?;
            self.learner.set_model(&model);
        }
        Ok(())
    }

    /// Takes a record into account.
    fn remember(&mut self, record: Record) {
        if record.kept().is_some() && record.kept() != self.best.as_ref().and_then(Record::kept) {
            self.best = Some(record.clone());
        }
        match &record {
            Record::Start { .. } => self.start = Some(record),
            Record::Step { .. } => (),
            Record::Epoch { loss, .. } => {
                self.losses.extend(*loss);
                self.last = Some(record);
            }
        }
    }

    /// Shows burn's dashboard while training by gradients; it needs the feature `tui` and a terminal.
    #[must_use]
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// The learner.
    pub fn learner(&self) -> &DictionaryLearner {
        &self.learner
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the model is, once an epoch is done.
    pub fn model_path(&self) -> PathBuf {
        self.folder.join(MODEL)
    }

    /// The record of the last epoch that was finished.
    pub fn last_epoch(&self) -> Option<&Record> {
        self.last.as_ref()
    }

    /// The record of the start, before the first step, where training is by gradients of a loss.
    pub fn start(&self) -> Option<&Record> {
        self.start.as_ref()
    }

    /// The record of the state that is kept as the model: where training is by gradients of a loss that of the least held-out loss, which
    /// may be the start's; else the last epoch's.
    pub fn kept(&self) -> Option<&Record> {
        self.best.as_ref().or(self.last.as_ref())
    }

    /// Trains until all epochs are done or `stop` becomes true. Then the learner has the dictionaries that are kept; see [`Self::kept`].
    ///
    /// # Errors
    /// Signals that cannot be read; files that cannot be written, in which case the last checkpoint is still there.
    pub fn train(&mut self, data: &Dataset, stop: &dyn Fn() -> bool, observer: &mut dyn Observer) -> Result<Outcome> {
        let path = self.folder.join(METRICS);
        let mut metrics = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::write(&path))?;
        if self.learner.config().learning.update == UpdateRule::Unrolled {
            return self.train_unrolled(data, stop, observer, &mut metrics);
        }
        let mut saved = Instant::now();
        loop {
            let learner = &mut self.learner;
            let per_epoch = learner.steps_per_epoch();
            let at_end = learner.steps_done() > 0 && learner.steps_done().is_multiple_of(per_epoch);
            if at_end && self.epoch.is_some() {
                self.save_checkpoint()?;
                if !self.finish_epoch(data, stop, observer, &mut metrics)? {
                    return Ok(Outcome::Interrupted);
                }
                self.save_checkpoint()?;
                saved = Instant::now();
                continue;
            }
            if learner.steps_done() >= learner.steps() {
                return Ok(Outcome::Finished);
            }
            if stop() {
                self.save_checkpoint()?;
                return Ok(Outcome::Interrupted);
            }
            if saved.elapsed() > CHECKPOINT_EVERY {
                self.save_checkpoint()?;
                saved = Instant::now();
                continue;
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
            let record =
                Record::Step { epoch, step: learner.steps_done(), batch, dictionaries: learner.dictionaries(false) };
            match &mut self.epoch {
                Some(epoch) => epoch.add(&sums),
                None => self.epoch = Some(sums),
            }
            self.write(&record, &mut metrics)?;
            observer.record(&record, &self.learner)?;
        }
    }

    /// Codes the held-out signals, writes the epoch's record and the model; `false` if it was told to stop.
    fn finish_epoch(
        &mut self,
        data: &Dataset,
        stop: &dyn Fn() -> bool,
        observer: &mut dyn Observer,
        metrics: &mut File,
    ) -> Result<bool> {
        let test = self.learner.evaluate(&*data.test, |part| {
            observer.evaluating(part);
            !stop()
        })?;
        let Some(test) = test else { return Ok(false) };
        let Some(sums) = self.epoch.take() else { return Ok(true) };
        let learner = &self.learner;
        let record = Record::Epoch {
            epoch: learner.steps_done() / learner.steps_per_epoch(),
            step: learner.steps_done(),
            train: sums.summary(),
            test,
            dictionaries: learner.dictionaries(true),
            loss: None,
            diagnostics: None,
            kept: None,
        };
        self.write(&record, metrics)?;
        let learning = &learner.config().learning;
        let coding = CodingDefaults { lambda: Some(learner.lambda()), nonnegative: learning.nonnegative };
        learner.model()?.save(&self.model_path(), coding)?;
        observer.record(&record, learner)?;
        self.last = Some(record);
        Ok(true)
    }

    #[cfg(not(feature = "train"))]
    fn train_unrolled(
        &mut self,
        _: &Dataset,
        _: &dyn Fn() -> bool,
        _: &mut dyn Observer,
        _: &mut File,
    ) -> Result<Outcome> {
        Err(Error::parameter(
            "update",
            "unrolled",
            "pursuit or gradient: this program was built without the feature train",
        ))
    }

    /// [`Self::train`] through an unrolled pursuit.
    #[cfg(feature = "train")]
    fn train_unrolled(
        &mut self,
        data: &Dataset,
        stop: &dyn Fn() -> bool,
        observer: &mut dyn Observer,
        metrics: &mut File,
    ) -> Result<Outcome> {
        let learner = &self.learner;
        if learner.steps_done() >= learner.steps() {
            return Ok(Outcome::Finished);
        }
        let (config, device) = (learner.config().clone(), learner.device.clone());
        let training = EndToEnd {
            folder: Some(self.folder.clone()),
            train: data.train.clone(),
            test: data.test.clone(),
            epochs: config.learning.epochs,
            batch_size: config.learning.batch_size,
            seed: config.learning.seed,
            optimization: config.learning.unrolled.optimization.clone(),
            device,
            resume: end_to_end::last_checkpoint(&self.folder),
            losses: self.losses.clone(),
            measure_start: self.start.is_none(),
            reseeding: Some(Reseeding { every: config.learning.reseed_every, until: config.learning.reseed_until }),
            dashboard: self.dashboard,
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
            run: self,
            stop,
            observer,
            metrics,
        };
        let (_, ending) = training.run(network, &mut following)?;
        match ending {
            end_to_end::Ending::Finished | end_to_end::Ending::Early => {
                self.take_kept()?;
                Ok(Outcome::Finished)
            }
            end_to_end::Ending::Interrupted => {
                // What was done since the last checkpoint will be done again.
                let epochs = end_to_end::last_checkpoint(&self.folder).unwrap_or(0);
                self.learner.step = epochs * self.learner.steps_per_epoch();
                self.epoch = None;
                Ok(Outcome::Interrupted)
            }
        }
    }

    fn write(&self, record: &Record, metrics: &mut File) -> Result<()> {
        let path = self.folder.join(METRICS);
        let mut line = serde_json::to_string(record).map_err(|error| Error::format(&path, error.to_string()))?;
        line.push('\n');
        metrics.write_all(line.as_bytes()).map_err(Error::write(&path))
    }

    fn save_checkpoint(&self) -> Result<()> {
        checkpoint::save(&self.folder.join(CHECKPOINT), &self.learner, &self.data, self.epoch.as_ref())
    }

    /// Drops records of steps that the checkpoint knows nothing of, and a half-written last line.
    fn cut_metrics(&mut self) -> Result<()> {
        let path = self.folder.join(METRICS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::read(&path)(source)),
        };
        let done = self.learner.steps_done();
        let pending = self.epoch.is_some();
        let mut kept = String::new();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // Only a kill leaves a line without an end.
            let Some(line) = line.strip_suffix('\n') else { continue };
            let record: Record = serde_json::from_str(line)
                .map_err(|error| Error::format(&path, format!("line {}: expected a record: {error}", number + 1)))?;
            let epoch = matches!(record, Record::Epoch { .. });
            // An epoch whose sums are still in the checkpoint will be recorded again.
            if record.step() > done || (epoch && pending && record.step() == done) {
                continue;
            }
            kept.push_str(line);
            kept.push('\n');
            self.remember(record);
        }
        files::write_bytes(&path, kept.as_bytes())
    }
}

/// Writes down what training through an unrolled pursuit does, as the other rules do, and keeps the learner up to date.
#[cfg(feature = "train")]
struct Following<'a> {
    run: &'a mut Run,
    stop: &'a dyn Fn() -> bool,
    observer: &'a mut dyn Observer,
    metrics: &'a mut File,
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

#[cfg(feature = "train")]
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
        let learner = &self.run.learner;
        let config = learner.config();
        let learning = &config.learning;
        let (signals, undo) = config.model.normalization.apply(batch.signals.clone());
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
        let before = run.best.as_ref().and_then(Record::kept);
        let next = Kept { epoch, loss, admissible: network.is_admissible(run.learner.progress()) };
        let kept = Kept::better(before, next);
        if before != Some(kept) {
            network.last()?.save(&run.model_path())?;
        }
        Ok(kept)
    }
}

#[cfg(feature = "train")]
impl Watcher<UnrolledTraining> for Following<'_> {
    fn begin(&mut self, network: &UnrolledTraining) -> Result<()> {
        self.run.learner.cascade = network.cascade();
        self.operator = Some(network.operator()?);
        self.still = None;
        self.run.learner.idle.fill(0);
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
        let lambda = self.run.learner.lambda();
        // The one before the step.
        let Some(operator) = self.operator.replace(network.operator()?) else { return Ok(true) };
        let sums = self.sums(batch, outcome, &operator, lambda)?;
        let run = &mut *self.run;
        let learner = &mut run.learner;
        check_finite(outcome, learner.config.learning.unrolled.optimization.learning_rate)?;
        learner.cascade = network.cascade();
        self.still = None;
        learner.step = step;
        learner.count_idle(sums.usage());
        let mut summary = sums.summary();
        summary.dead_atoms = learner.dead_atoms().len();
        let epoch = (step - 1) / learner.steps_per_epoch() + 1;
        let record = Record::Step { epoch, step, batch: summary, dictionaries: learner.dictionaries(false) };
        match &mut run.epoch {
            Some(epoch) => epoch.add(&sums),
            None => run.epoch = Some(sums),
        }
        run.write(&record, self.metrics)?;
        self.observer.record(&record, &run.learner)?;
        Ok(true)
    }

    fn held_out(&mut self, batch: &TrainingBatch, outcome: &end_to_end::Outcome, _: &UnrolledTraining) -> Result<bool> {
        if (self.stop)() {
            return Ok(false);
        }
        let lambda = self.run.learner.config().learning.lambda.at(1.0);
        if self.still.is_none() {
            self.still = Some(self.run.learner.cascade.operator(&self.run.learner.device)?);
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
        let record = Record::Start {
            test: test.summary(),
            dictionaries: run.learner.dictionaries(true),
            loss,
            diagnostics: Box::new(diagnostics),
            kept,
        };
        run.write(&record, self.metrics)?;
        self.observer.record(&record, &run.learner)?;
        run.remember(record);
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
            step: run.learner.steps_done(),
            train: train.summary(),
            test: test.summary(),
            dictionaries: run.learner.dictionaries(true),
            loss: Some(held_out_loss),
            diagnostics: Some(Box::new(diagnostics)),
            kept: Some(kept),
        };
        run.write(&record, self.metrics)?;
        run.save_checkpoint()?;
        self.observer.record(&record, &run.learner)?;
        run.learner.idle.fill(0);
        run.remember(record);
        Ok(())
    }
}
