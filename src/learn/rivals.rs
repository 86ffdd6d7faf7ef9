//! Training of the model's rivals: a run in its folder, as [`super::run`] has it for the model.
//!
//! ```text
//! config.json        what is computed; it has a "rival"
//! metrics.jsonl      one line a step and one an epoch
//! checkpoint/        the states after the last two epochs, and what tells the signals from others
//! model.safetensors  the weights of the least held-out loss: after one of the epochs, or as they were at the start
//! ```

use super::config::MAX_STEPS;
use super::end_to_end::{self, EndToEnd, Ending, Reseeding, Watcher};
use super::folder::{self, HeldOutLoss, Journal, Observer, RunFolder};
use super::metrics::Kept;
use super::optimization::OptimizationConfig;
use super::run::{Outcome, check_content};
use crate::autoencoder::{self, Diagnostics, DiagnosticsSums, Trainable, TrainingBatch};
use crate::baselines::{Rival, RivalConfig};
use crate::data::{DataConfig, Dataset, Fingerprint};
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use crate::model::normalization::Normalization;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Training of a rival: what, from what, how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RivalTrainConfig {
    /// The rival.
    pub rival: RivalConfig,
    /// Where the signals come from. Default: 12,000 drawn digits.
    #[serde(default)]
    pub data: DataConfig,
    /// Passes over the training signals, from 1 to 2²⁴. Default 20.
    #[serde(default = "default_epochs")]
    pub epochs: usize,
    /// Signals per step, at least 1. Default 100: lifetimes are parts of it.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Seed of weights, order and noise. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// How the weights follow their gradients.
    #[serde(default)]
    pub optimization: OptimizationConfig,
    /// Steps without use after which a unit is dead and starts again, and between two searches for such, at least 1; in short runs
    /// they are fewer. Default 200.
    #[serde(default = "default_reseed_every")]
    pub reseed_every: usize,
    /// Part of a run's steps, in [0, 1], after which dead units are left as they are, so that new ones can settle. Default 0.9.
    #[serde(default = "default_reseed_until")]
    pub reseed_until: f32,
}

fn default_reseed_every() -> usize {
    200
}

fn default_reseed_until() -> f32 {
    0.9
}

fn default_epochs() -> usize {
    20
}

fn default_batch_size() -> usize {
    100
}

impl RivalTrainConfig {
    /// A rival with the defaults.
    pub fn new(rival: RivalConfig) -> Self {
        Self {
            rival,
            data: DataConfig::default(),
            epochs: default_epochs(),
            batch_size: default_batch_size(),
            seed: 0,
            optimization: OptimizationConfig::default(),
            reseed_every: default_reseed_every(),
            reseed_until: default_reseed_until(),
        }
    }

    /// Checks all ranges that do not depend on the signals.
    ///
    /// # Errors
    /// The first setting that is out of range, by its key, such as `optimization.learning_rate`.
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_STEPS).contains(&self.epochs) {
            return Err(Error::parameter("epochs", self.epochs, format!("a number from 1 to {MAX_STEPS}")));
        }
        if self.batch_size == 0 {
            return Err(Error::parameter("batch_size", 0, "at least 1"));
        }
        if self.reseed_every == 0 {
            return Err(Error::parameter("reseed_every", 0, "at least 1"));
        }
        if !(0.0..=1.0).contains(&self.reseed_until) {
            return Err(Error::parameter("reseed_until", self.reseed_until, "a number in [0, 1]"));
        }
        if self.optimization.patience.is_some() && self.rival.takes_turns() {
            let expected = format!("none with {}, whose layers take turns", self.rival.name());
            return Err(Error::parameter("optimization.patience", "given", expected));
        }
        if let Some(window) = self.data.window {
            return Err(Error::parameter("data.window", window, "none: rivals do not average overlapping patches"));
        }
        self.rival.check_ranges().map_err(Error::within("rival"))?;
        self.optimization.check().map_err(Error::within("optimization"))?;
        self.data.check().map_err(Error::within("data"))
    }
}

/// A line of a rival's `metrics.jsonl`.
pub type RivalRecord = folder::Record<RivalBatch, RivalEpoch, RivalHeldOut>;

/// What is measured of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RivalBatch {
    /// Mean loss of the batch, before the step.
    pub loss: f64,
    /// Signals per second, everything included.
    pub signals_per_second: f64,
}

/// What is measured of an epoch's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RivalEpoch {
    /// Mean loss over the epoch's steps.
    pub train_loss: f64,
}

/// What is found on the held-out signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RivalHeldOut {
    /// Their mean loss.
    pub test_loss: f64,
    /// Their codes as users of sparse auto-encoders look at them.
    pub test: Diagnostics,
}

impl HeldOutLoss for RivalHeldOut {
    fn loss(&self) -> Option<f64> {
        Some(self.test_loss)
    }
}

/// Whether the run in a folder, if there is one, is a rival's.
pub fn is_rival(folder: &Path) -> bool {
    is_rival_file(&RunFolder::new(folder).config())
}

/// Whether a configuration is a rival's.
pub fn is_rival_file(path: &Path) -> bool {
    files::read_whole(path).is_ok_and(|text| is_rival_config(&text))
}

/// Whether a configuration's text is a rival's.
pub(crate) fn is_rival_config(text: &[u8]) -> bool {
    json::parse::<serde_json::Value>(text).is_ok_and(|config| config.get("rival").is_some())
}

/// A rival's configuration from a JSON file.
///
/// # Errors
/// A file that cannot be read; malformed JSON; a field that is missing, unknown, of another type or out of range.
pub fn read_config_file(path: &Path) -> Result<RivalTrainConfig> {
    let config = parse_config(path, &files::read_whole(path)?)?;
    config.check().map_err(|error| Error::format(path, error.to_string()))?;
    Ok(config)
}

/// What a rival's configuration file holds, still to be completed: ranges are not checked.
pub(crate) fn parse_config(path: &Path, text: &[u8]) -> Result<RivalTrainConfig> {
    json::parse_config(text)
        .map_err(|error| Error::format(path, format!("expected a rival's training configuration: {error}")))
}

/// The configuration of the rival's run in a folder.
///
/// # Errors
/// As [`read_config_file`].
pub fn read_config(folder: &Path) -> Result<RivalTrainConfig> {
    read_config_file(&RunFolder::new(folder).config())
}

/// The file that tells a run's signals from others, beside its checkpoints, which are burn's.
fn fingerprint_path(folder: &Path) -> PathBuf {
    folder.join(end_to_end::CHECKPOINTS).join("data.json")
}

fn write_fingerprint(folder: &Path, fingerprint: &Fingerprint) -> Result<()> {
    write_json(&fingerprint_path(folder), fingerprint)
}

fn write_json(path: &Path, content: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(content).map_err(|error| Error::format(path, error.to_string()))?;
    files::write_bytes(path, text.as_bytes())
}

/// The fingerprint of a run's signals; older runs have none.
fn read_fingerprint(folder: &Path) -> Result<Option<Fingerprint>> {
    let path = fingerprint_path(folder);
    if !path.exists() {
        return Ok(None);
    }
    let fingerprint = json::parse(&files::read_whole(&path)?)
        .map_err(|error| Error::format(&path, format!("expected a fingerprint of signals: {error}")))?;
    Ok(Some(fingerprint))
}

/// The configuration that a run's checkpoints are of, beside them.
fn begun_path(folder: &Path) -> PathBuf {
    folder.join(end_to_end::CHECKPOINTS).join("config.json")
}

/// Writes down with which configuration a run begins.
fn write_begun(folder: &Path, config: &RivalTrainConfig) -> Result<()> {
    write_json(&begun_path(folder), config)
}

/// Refuses another configuration than the run began with, its number of epochs and the place of its data aside.
///
/// # Errors
/// A key that has another value, or what cannot be read. Older runs have nothing to compare with.
fn check_begun(folder: &Path, config: &RivalTrainConfig) -> Result<()> {
    let path = begun_path(folder);
    if !path.exists() {
        return Ok(());
    }
    let mut begun = parse_config(&path, &files::read_whole(&path)?)?;
    begun.epochs = config.epochs;
    begun.data.source.clone_from(&config.data.source);
    if begun == *config {
        return Ok(());
    }
    let path = RunFolder::new(folder).config();
    let [begun, now] = [&begun, config].map(|config| serde_json::to_value(config).unwrap_or_default());
    let (key, expected, found) = difference(&begun, &now, "").unwrap_or_default();
    Err(Error::format(&path, format!("{key}: expected {expected}, with which the run began, found {found}")))
}

/// The first key under which two documents differ, and what each has there.
fn difference(a: &Value, b: &Value, key: &str) -> Option<(String, String, String)> {
    match (a, b) {
        _ if a == b => None,
        (Value::Object(first), Value::Object(second)) => {
            let mut keys: Vec<&String> = first.keys().chain(second.keys()).collect();
            keys.sort();
            keys.into_iter().find_map(|name| {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                difference(&a[name.as_str()], &b[name.as_str()], &inner)
            })
        }
        _ => Some((key.to_owned(), a.to_string(), b.to_string())),
    }
}

/// A rival's run and its folder.
#[derive(Debug)]
pub struct RivalRun {
    folder: RunFolder,
    config: RivalTrainConfig,
    device: Device,
    rival: Rival,
    steps_per_epoch: usize,
    /// Epochs done; `None` before the first checkpoint.
    done: Option<usize>,
    journal: Journal<RivalBatch, RivalEpoch, RivalHeldOut>,
    dashboard: bool,
    further_devices: Vec<Device>,
}

impl RivalRun {
    /// A new run: writes the configuration, draws the weights.
    ///
    /// # Errors
    /// A folder that cannot be written or holds a run; a configuration that does not fit itself or the signals; nothing but zeros
    /// to learn from.
    pub fn create(folder: &Path, config: &RivalTrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        if RunFolder::new(folder).holds_run() {
            return Err(Error::parameter("out", folder.display(), "a folder without a run in it, or `resume`"));
        }
        let mut run = Self::assemble(folder, config, data, device)?;
        check_content(&*data.train, Normalization::None)?;
        let fingerprint = Fingerprint::of(data)?;
        run.rival = run.rival.centred(&*data.train)?;
        run.folder.write_config(config)?;
        write_fingerprint(folder, &fingerprint)?;
        write_begun(folder, config)?;
        run.journal.begin()?;
        Ok(run)
    }

    /// Goes on with the run in a folder, from the last epoch that was finished. `config` is what [`read_config`] gave; its number
    /// of epochs may have been changed, and with it the learning rates to come; so may the source of its data, if these are the same.
    ///
    /// # Errors
    /// Signals that do not fit, or others than the run began with; other settings than it began with; fewer epochs than are done; a run
    /// that has a model and no checkpoint any more.
    pub fn resume(folder: &Path, config: &RivalTrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        check_begun(folder, config)?;
        let mut run = Self::assemble(folder, config, data, device)?;
        run.done = end_to_end::last_checkpoint(folder);
        if run.done.is_none() && run.folder.model().exists() {
            let path = folder.join(end_to_end::CHECKPOINTS);
            return Err(Error::format(
                &path,
                "expected the checkpoint of an epoch, model, optimizer and scheduler, found none",
            ));
        }
        let done = run.done.unwrap_or(0);
        if done > config.epochs {
            return Err(Error::parameter("epochs", config.epochs, format!("at least {done}: so many are done")));
        }
        let fingerprint = Fingerprint::of(data)?;
        match read_fingerprint(folder)? {
            Some(expected) => expected.check(&fingerprint, &config.data.source, &fingerprint_path(folder))?,
            None => write_fingerprint(folder, &fingerprint)?,
        }
        if !begun_path(folder).exists() {
            write_begun(folder, config)?;
        }
        run.folder.remove_leftovers();
        run.folder.write_config(config)?;
        let steps = run.steps_done();
        run.journal.cut(|record| record.step() <= steps)?;
        if run.journal.best.is_some() || done > 0 {
            if run.model_path().exists() {
                (run.rival, _) = Rival::load(&run.model_path(), device)?;
            } else if done >= config.epochs {
                let reason = "expected the model of the epoch that is kept, found no such file; the last checkpoint goes on with more `epochs`";
                return Err(Error::format(&run.model_path(), reason));
            } else {
                // What was kept is lost: of what comes the best is kept.
                run.journal.best = None;
            }
        }
        Ok(run)
    }

    fn assemble(folder: &Path, config: &RivalTrainConfig, data: &Dataset, device: &Device) -> Result<Self> {
        config.check()?;
        for source in [&data.train, &data.test] {
            if source.is_empty() {
                return Err(Error::shape(format!("signals of {}", source.describe()), "at least one", 0));
            }
        }
        Ok(Self {
            journal: Journal::new(&RunFolder::new(folder)),
            folder: RunFolder::new(folder),
            rival: config.rival.init(data.train.shape(), config.seed, device)?,
            config: config.clone(),
            device: device.clone(),
            steps_per_epoch: data.train.len().div_ceil(config.batch_size),
            done: None,
            dashboard: false,
            further_devices: Vec::new(),
        })
    }

    /// Shows burn's dashboard; it needs the feature `tui` and a terminal.
    #[must_use]
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// Shares every batch among further devices; see [`EndToEnd::further_devices`].
    #[must_use]
    pub fn with_further_devices(self, further_devices: Vec<Device>) -> Self {
        Self { further_devices, ..self }
    }

    /// The rival in the state that is kept, once there is one.
    pub fn rival(&self) -> &Rival {
        &self.rival
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// Steps of the epochs that are done.
    pub fn steps_done(&self) -> usize {
        self.done.unwrap_or(0) * self.steps_per_epoch
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.config.epochs * self.steps_per_epoch
    }

    /// Where the model is, once an epoch is done.
    pub fn model_path(&self) -> PathBuf {
        self.folder.model()
    }

    /// The record of the last epoch that was finished.
    pub fn last_epoch(&self) -> Option<&RivalRecord> {
        self.journal.last.as_ref()
    }

    /// The record of the start, before the first step.
    pub fn start(&self) -> Option<&RivalRecord> {
        self.journal.start.as_ref()
    }

    /// The record of the state that is kept, that of the least held-out loss: an epoch's, or the start's.
    pub fn best(&self) -> Option<&RivalRecord> {
        self.journal.best.as_ref()
    }

    /// Trains until all epochs are done, the held-out loss does not become less, or `stop` becomes true. What is kept is the state of
    /// the least held-out loss, the start included; where layers take turns, of those in which the last one has learned.
    ///
    ///
    /// # Errors
    /// Signals that cannot be read; files that cannot be read or written, in which case the last checkpoint is still there.
    pub fn train(
        &mut self,
        data: &Dataset,
        stop: &dyn Fn() -> bool,
        observer: &mut dyn Observer<RivalRecord, Rival>,
    ) -> Result<Outcome> {
        if self.done.is_some_and(|done| done >= self.config.epochs) {
            return Ok(Outcome::Finished);
        }
        let training = EndToEnd {
            folder: Some(self.folder.path().to_path_buf()),
            train: data.train.clone(),
            test: data.test.clone(),
            epochs: self.config.epochs,
            batch_size: self.config.batch_size,
            seed: self.config.seed,
            shuffle_buffer: self.config.data.shuffle_buffer,
            optimization: self.config.optimization.clone(),
            device: self.device.clone(),
            further_devices: self.further_devices.clone(),
            resume: self.done,
            losses: self.journal.losses.clone(),
            measure_start: self.journal.start.is_none(),
            reseeding: Some(Reseeding { every: self.config.reseed_every, until: self.config.reseed_until }),
            dashboard: self.dashboard,
        };
        // A network of its own: state that is shared between copies must not outlive an epoch that was broken off.
        let mut network = self.config.rival.init(data.train.shape(), self.config.seed, &self.device)?;
        if self.done.is_none() {
            network = network.centred(&*data.train)?;
        }
        let sums = DiagnosticsSums::new(&network);
        let empty = sums.clone();
        let mut following =
            Following { run: self, stop, observer, sums, empty, train: (0.0, 0), since: Instant::now() };
        let (_, ending) = training.run(network, &mut following)?;
        self.done = end_to_end::last_checkpoint(self.folder.path());
        match ending {
            Ending::Interrupted => Ok(Outcome::Interrupted),
            Ending::Finished | Ending::Early => Ok(Outcome::Finished),
        }
    }

    /// What is kept once there is a state of that loss.
    fn kept_with(&self, epoch: usize, loss: f64, network: &Rival) -> Kept {
        let progress = epoch as f32 / self.config.epochs as f32;
        Kept::better(self.journal.kept(), Kept { epoch, loss, admissible: network.is_admissible(progress) })
    }
}

/// Writes down what a training does.
struct Following<'a> {
    run: &'a mut RivalRun,
    stop: &'a dyn Fn() -> bool,
    observer: &'a mut dyn Observer<RivalRecord, Rival>,
    sums: DiagnosticsSums,
    empty: DiagnosticsSums,
    /// Sum of the losses of this epoch's signals, and their number.
    train: (f64, usize),
    since: Instant,
}

impl Following<'_> {
    fn write(&mut self, record: &RivalRecord, network: &Rival) -> Result<()> {
        self.run.journal.write(record)?;
        self.observer.record(record, network)
    }

    /// Writes down what was found on the held-out signals, and the model where it is the one to keep.
    fn keep(&mut self, record: RivalRecord, network: &Rival) -> Result<()> {
        if record.kept() != self.run.journal.kept() {
            network.save(&self.run.config.rival, &self.run.model_path())?;
            self.run.rival = network.clone();
        }
        self.write(&record, network)?;
        self.run.journal.remember(record);
        self.since = Instant::now();
        Ok(())
    }
}

impl Watcher<Rival> for Following<'_> {
    fn begin(&mut self, _: &Rival) -> Result<()> {
        self.since = Instant::now();
        Ok(())
    }

    fn step(
        &mut self,
        step: usize,
        _: &TrainingBatch,
        outcome: &autoencoder::Outcome,
        network: &Rival,
    ) -> Result<bool> {
        if (self.stop)() {
            return Ok(false);
        }
        let losses = crate::device::read(outcome.loss.clone());
        let (sum, count) = (losses.iter::<f32>().map(f64::from).sum::<f64>(), losses.num_elements());
        if !sum.is_finite() {
            let expected = "one so small that the loss stays finite; try a tenth";
            return Err(Error::parameter(
                "optimization.learning_rate",
                self.run.config.optimization.learning_rate,
                expected,
            ));
        }
        self.train = (self.train.0 + sum, self.train.1 + count);
        let now = Instant::now();
        let seconds = (now - self.since).as_secs_f64().max(f64::MIN_POSITIVE);
        self.since = now;
        let record = RivalRecord::Step {
            epoch: (step - 1) / self.run.steps_per_epoch + 1,
            step,
            batch: RivalBatch { loss: sum / count.max(1) as f64, signals_per_second: count as f64 / seconds },
        };
        self.write(&record, network)?;
        Ok(true)
    }

    fn held_out(&mut self, batch: &TrainingBatch, outcome: &autoencoder::Outcome, _: &Rival) -> Result<bool> {
        self.sums.add(&batch.signals, &outcome.coded);
        Ok(!(self.stop)())
    }

    fn start(&mut self, held_out_loss: f64, network: &Rival) -> Result<()> {
        let test = std::mem::replace(&mut self.sums, self.empty.clone()).finish();
        let kept = self.run.kept_with(0, held_out_loss, network);
        let held_out = RivalHeldOut { test_loss: held_out_loss, test };
        self.keep(RivalRecord::Start { held_out, kept }, network)
    }

    fn epoch(&mut self, epoch: usize, held_out_loss: f64, network: &Rival) -> Result<()> {
        let test = std::mem::replace(&mut self.sums, self.empty.clone()).finish();
        let (sum, count) = std::mem::take(&mut self.train);
        let record = RivalRecord::Epoch {
            epoch,
            step: epoch * self.run.steps_per_epoch,
            train: RivalEpoch { train_loss: sum / count.max(1) as f64 },
            held_out: RivalHeldOut { test_loss: held_out_loss, test },
            kept: Some(self.run.kept_with(epoch, held_out_loss, network)),
        };
        self.keep(record, network)
    }
}
