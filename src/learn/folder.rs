//! The folder of a run, whatever is trained in it: names of its files, its configuration, and what is written down as it goes on.
//!
//! ```text
//! config.json             what is computed
//! metrics.jsonl           one line a step and one an epoch
//! checkpoint…             the state to go on from, and what tells the signals from others
//! model.safetensors       what was learned
//! ```

use super::metrics::Kept;
use crate::error::{Error, Result};
use crate::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A run's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// That of a path, be there a run or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the configuration is.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Where the records are, one line each.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where the state of online training is.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// Where the model is, a rival's too, once there is one.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// Whether there is a run.
    pub fn holds_run(&self) -> bool {
        [self.config(), self.checkpoint(), self.model()].iter().any(|file| file.exists())
    }

    /// Whether the run was killed before its first checkpoint: there is a configuration and nothing else.
    pub fn is_unstarted(&self) -> bool {
        self.config().exists() && ![self.metrics(), self.checkpoint(), self.model()].iter().any(|file| file.exists())
    }

    /// [`Self::config`] of a run that is there.
    ///
    /// # Errors
    /// No run there.
    pub fn existing_config(&self) -> Result<PathBuf> {
        let path = self.config();
        match path.exists() {
            true => Ok(path),
            false => Err(Error::format(&self.path, "no run to resume here: config.json is missing")),
        }
    }

    /// Makes the folder, if there is none, and keeps other processes that ask for the same from it for as long as the claim lives; the system
    /// ends that of a process that was killed. Where file systems know no locks nobody is kept out.
    ///
    /// # Errors
    /// A folder that cannot be made, or that another process has claimed.
    pub fn claim(&self) -> Result<Claim> {
        let made: Vec<PathBuf> =
            self.path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
        files::create_folder(&self.path)?;
        let folder = File::open(&self.path).ok();
        if let Some(Err(TryLockError::WouldBlock)) = folder.as_ref().map(File::try_lock) {
            let expected = "a folder in which no other training is at work";
            return Err(Error::parameter("out", self.path.display(), expected));
        }
        Ok(Claim { folder, made })
    }

    /// Removes what a kill left half-written in the folder, and in those that a run makes within.
    pub(super) fn remove_leftovers(&self) {
        for within in ["", "pictures", "checkpoint"] {
            files::remove_leftovers(&self.path().join(within));
        }
    }

    /// Writes the configuration, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn write_config(&self, config: &impl Serialize) -> Result<()> {
        let path = self.config();
        let text = serde_json::to_string_pretty(config).map_err(|error| Error::format(&path, error.to_string()))?;
        files::write_bytes(&path, text.as_bytes())
    }
}

/// A folder that no other process trains in, until this is dropped. If the folder was made for it and is still empty then, it is removed.
#[derive(Debug)]
pub struct Claim {
    /// Locked, where that could be.
    #[allow(dead_code, reason = "the lock lasts as long as the file is open")]
    folder: Option<File>,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What holds files stays, and what is around it.
        let _ = self.made.iter().try_for_each(fs::remove_dir);
    }
}

/// One line of `metrics.jsonl`: what was measured of a step's batch (`S`), of an epoch's steps (`T`) and of the held-out signals (`H`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record<S, T, H> {
    /// Before the first step, where training is by gradients of a loss.
    Start {
        /// What was found on the held-out signals, with what was given or initialised.
        #[serde(flatten)]
        held_out: H,
        /// The state that is kept, which is this one.
        kept: Kept,
    },
    /// After a step.
    Step {
        /// Epoch that the step belongs to, from 1.
        epoch: usize,
        /// Steps done.
        step: usize,
        /// What was measured of it.
        #[serde(flatten)]
        batch: S,
    },
    /// After an epoch.
    Epoch {
        /// The epoch, from 1.
        epoch: usize,
        /// Steps done.
        step: usize,
        /// What was measured of its steps.
        #[serde(flatten)]
        train: T,
        /// What was found on the held-out signals at its end.
        #[serde(flatten)]
        held_out: H,
        /// The state that is kept, where training is by gradients of a loss: that of the least held-out loss so far.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        kept: Option<Kept>,
    },
}

impl<S, T, H> Record<S, T, H> {
    /// Steps done.
    pub fn step(&self) -> usize {
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

    /// What was found on the held-out signals, except after a step.
    pub fn held_out(&self) -> Option<&H> {
        match self {
            Self::Step { .. } => None,
            Self::Start { held_out, .. } | Self::Epoch { held_out, .. } => Some(held_out),
        }
    }
}

/// Mean loss of the held-out signals, where there is one.
pub trait HeldOutLoss {
    /// The loss.
    fn loss(&self) -> Option<f64>;
}

/// Callbacks of a run: `R` is its kind of record, `M` what is trained.
pub trait Observer<R, M> {
    /// The initialisation of a layer (from 1) has come this far.
    ///
    /// # Errors
    /// Whatever ends it.
    fn initializing(&mut self, _layer: usize, _part: f32) -> Result<()> {
        Ok(())
    }

    /// Coding of the next step's batch has come this far.
    fn coding(&mut self, _part: f32) {}

    /// Coding of the held-out signals has come this far.
    fn evaluating(&mut self, _part: f32) {}

    /// A step or an epoch is done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn record(&mut self, record: &R, trained: &M) -> Result<()>;
}

/// The records of a run: those on disk, and the few that are asked for.
#[derive(Debug)]
pub(super) struct Journal<S, T, H> {
    path: PathBuf,
    /// The file, once something is written.
    file: Option<File>,
    /// The record of the start, where there is one.
    pub start: Option<Record<S, T, H>>,
    /// That of the last epoch that was finished.
    pub last: Option<Record<S, T, H>>,
    /// That of the state that is kept, where training is by gradients of a loss.
    pub best: Option<Record<S, T, H>>,
    /// Held-out losses of all epochs so far, where there are losses.
    pub losses: Vec<f64>,
}

impl<S, T, H> Journal<S, T, H>
where
    S: Clone + Serialize + DeserializeOwned,
    T: Clone + Serialize + DeserializeOwned,
    H: Clone + Serialize + DeserializeOwned + HeldOutLoss,
{
    pub fn new(folder: &RunFolder) -> Self {
        Self { path: folder.metrics(), file: None, start: None, last: None, best: None, losses: Vec::new() }
    }

    /// Begins an empty file.
    pub fn begin(&self) -> Result<()> {
        files::write_bytes(&self.path, b"")
    }

    /// Adds a line.
    pub fn write(&mut self, record: &Record<S, T, H>) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|error| Error::format(&self.path, error.to_string()))?;
        line.push('\n');
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = OpenOptions::new().create(true).append(true).open(&self.path);
                self.file.insert(opened.map_err(Error::write(&self.path))?)
            }
        };
        file.write_all(line.as_bytes()).map_err(Error::write(&self.path))
    }

    /// Takes a record into account.
    pub fn remember(&mut self, record: Record<S, T, H>) {
        if record.kept().is_some() && record.kept() != self.kept() {
            self.best = Some(record.clone());
        }
        match &record {
            Record::Start { .. } => self.start = Some(record),
            Record::Step { .. } => (),
            Record::Epoch { held_out, .. } => {
                self.losses.extend(held_out.loss());
                self.last = Some(record);
            }
        }
    }

    /// What is kept so far, where training is by gradients of a loss.
    pub fn kept(&self) -> Option<Kept> {
        self.best.as_ref().and_then(Record::kept)
    }

    /// Drops records that are not `known` to the checkpoint, and a half-written last line; the others are taken into account.
    pub fn cut(&mut self, known: impl Fn(&Record<S, T, H>) -> bool) -> Result<()> {
        self.file = None;
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::read(&self.path)(source)),
        };
        let mut kept = String::new();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // Only a kill leaves a line without an end.
            if !line.ends_with('\n') {
                continue;
            }
            let record: Record<S, T, H> = serde_json::from_str(line).map_err(|error| {
                // Of one line its own position says nothing.
                let error = error.to_string();
                let reason = error.split(" at line ").next().unwrap_or_default();
                Error::format(
                    &self.path,
                    format!("line {}: expected a record, found something else ({reason})", number + 1),
                )
            })?;
            if known(&record) {
                kept.push_str(line);
                self.remember(record);
            }
        }
        files::write_bytes(&self.path, kept.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One claim at a time; a folder that was made for a claim and stayed empty goes with it.
    #[test]
    fn a_folder_is_claimed_once() {
        let around = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(around.path().join("runs/new"));
        let first = folder.claim().unwrap();
        let message = folder.claim().unwrap_err().to_string();
        assert!(message.contains("no other training is at work"), "{message}");
        drop(first);
        assert!(!around.path().join("runs").exists());
        let again = folder.claim().unwrap();
        fs::write(folder.config(), "{}").unwrap();
        drop(again);
        assert!(folder.holds_run());
        drop(folder.claim().unwrap());
        assert!(folder.holds_run());
    }
}
