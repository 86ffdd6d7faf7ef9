//! A training run in its folder: configuration, metrics, checkpoint, model.
//!
//! ```text
//! config.json             what is computed
//! metrics.jsonl           one line a step and one an epoch
//! checkpoint.safetensors  the state to go on from
//! model.safetensors       the dictionaries, as of the last epoch's end
//! ```
//!
//! A run that was killed or interrupted goes on from its last checkpoint and comes to the same model, bit for bit, as one that
//! was left alone.

use super::checkpoint;
use super::config::{LearningConfig, TrainConfig};
use super::learner::{self, Learner};
use super::metrics::{BatchSums, Dictionaries, Summary};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::files;
use crate::model::file::CodingDefaults;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
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
    },
}

impl Record {
    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Epoch { step, .. } => *step,
        }
    }
}

/// Somebody who watches a run.
pub trait Observer {
    /// The initialisation of a layer (from 1) has come this far.
    fn initializing(&mut self, layer: usize, part: f32);
    /// A step or an epoch is done.
    fn record(&mut self, record: &Record, learner: &Learner) -> Result<()>;
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
    learner: Learner,
    /// Sums over the present epoch's steps; at an epoch's end they stay until its record is written.
    epoch: Option<BatchSums>,
    /// The last epoch's record.
    last: Option<Record>,
}

/// Time between two checkpoints within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
const MODEL: &str = "model.safetensors";

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
    let path = folder.join(CONFIG);
    if !path.exists() {
        return Err(Error::format(folder, format!("no run to resume here: {CONFIG} is missing")));
    }
    read_config_file(&path)
}

/// A configuration from a JSON file.
///
/// # Errors
/// A file that cannot be read; JSON that is none; a field that is missing, unknown, of another type or out of range.
pub fn read_config_file(path: &Path) -> Result<TrainConfig> {
    let (file, _) = files::open_with_length(path)?;
    let config: TrainConfig = serde_json::from_reader(std::io::BufReader::new(file))
        .map_err(|error| Error::format(path, format!("expected a training configuration: {error}")))?;
    let checked = config.check().and_then(|_| config.data.check());
    checked.map_err(|error| Error::format(path, error.to_string()))?;
    Ok(config)
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

impl Run {
    /// A new run: writes the configuration, initialises the dictionaries.
    ///
    /// # Errors
    /// A folder that cannot be written or holds a run, unless it is this one without a checkpoint; a configuration that
    /// does not fit itself or the signals.
    pub fn create(
        folder: &Path,
        config: &TrainConfig,
        data: &Dataset,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let begun = |begun: &TrainConfig| {
            let learning = LearningConfig { epochs: config.learning.epochs, ..begun.learning.clone() };
            TrainConfig { learning, ..begun.clone() } == *config
        };
        // The same run, killed before its first checkpoint, begins anew.
        let again = is_unstarted(folder) && read_config(folder).is_ok_and(|config| begun(&config));
        if holds_run(folder) && !again {
            return Err(Error::parameter("out", folder.display(), "a folder without a run in it, or --resume"));
        }
        check(config, data)?;
        if again {
            files::remove_leftovers(folder);
        }
        // First of all, so that a folder that cannot be written is found out before any work.
        write_config(folder, config)?;
        let learner = Learner::start(config, &*data.train, device, |layer, part| observer.initializing(layer, part))?;
        let run = Self { folder: folder.into(), learner, epoch: None, last: None };
        run.save_checkpoint()?;
        files::write_bytes(&run.folder.join(METRICS), b"")?;
        Ok(run)
    }

    /// Goes on with the run in a folder. `config` is what [`read_config`] gave; its number of epochs may have been changed.
    ///
    /// # Errors
    /// A folder without a checkpoint; a checkpoint that is damaged or of another configuration; signals that do not fit.
    pub fn resume(folder: &Path, config: &TrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        let path = folder.join(CHECKPOINT);
        if !path.exists() {
            return Err(Error::format(folder, format!("no run to resume here: {CHECKPOINT} is missing")));
        }
        check(config, data)?;
        let mut learner = Learner::from_model(config, &config.model.init(device)?, &*data.train, device)?;
        let epoch = checkpoint::load(&path, &mut learner)?;
        if learner.steps_done() > learner.steps() {
            let (done, least) = (learner.steps_done(), learner.steps_done().div_ceil(learner.steps_per_epoch()));
            let expected = format!("at least {least}: {done} steps are done");
            return Err(Error::parameter("epochs", config.learning.epochs, expected));
        }
        files::remove_leftovers(folder);
        // A new end is remembered, for the next time that the run is resumed.
        if learner.steps_done() < learner.steps() {
            write_config(folder, config)?;
        }
        let mut run = Self { folder: folder.into(), learner, epoch, last: None };
        run.cut_metrics()?;
        Ok(run)
    }

    /// The learner.
    pub fn learner(&self) -> &Learner {
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

    /// Trains until all epochs are done or `stop` becomes true.
    ///
    /// # Errors
    /// Signals that cannot be read; files that cannot be written, in which case the last checkpoint is still there.
    pub fn train(&mut self, data: &Dataset, stop: &dyn Fn() -> bool, observer: &mut dyn Observer) -> Result<Outcome> {
        let path = self.folder.join(METRICS);
        let mut metrics = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::write(&path))?;
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
            let sums = learner.step(&*data.train)?;
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
        };
        self.write(&record, metrics)?;
        let learning = &learner.config().learning;
        let coding = CodingDefaults { lambda: Some(learner.lambda()), nonnegative: learning.nonnegative };
        learner.model()?.save(&self.model_path(), coding)?;
        observer.record(&record, learner)?;
        self.last = Some(record);
        Ok(true)
    }

    fn write(&self, record: &Record, metrics: &mut File) -> Result<()> {
        let path = self.folder.join(METRICS);
        let mut line = serde_json::to_string(record).map_err(|error| Error::format(&path, error.to_string()))?;
        line.push('\n');
        metrics.write_all(line.as_bytes()).map_err(Error::write(&path))
    }

    fn save_checkpoint(&self) -> Result<()> {
        checkpoint::save(&self.folder.join(CHECKPOINT), &self.learner, self.epoch.as_ref())
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
            if epoch {
                self.last = Some(record);
            }
        }
        files::write_bytes(&path, kept.as_bytes())
    }
}
