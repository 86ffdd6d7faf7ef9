//! Checkpoints of a training end to end, in burn-train's formats: `model-E.bpk`, `optim-E.bpk` and `scheduler-E.bpk` for E epochs.

use crate::error::{Error, Result};
use crate::model::leaf;
use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Folder of the checkpoints within a run's.
pub const CHECKPOINTS: &str = "checkpoint";

/// The last epoch with a whole checkpoint in a run's folder; 0 is the state before the first.
pub fn last_checkpoint(folder: &Path) -> Option<usize> {
    let folder = folder.join(CHECKPOINTS);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let epochs = entries.filter_map(|entry| {
        let name = entry.file_name();
        let epoch: usize = name.to_str()?.strip_prefix("model-")?.strip_suffix(".bpk")?.parse().ok()?;
        check_checkpoint(&folder, epoch).is_ok().then_some(epoch)
    });
    epochs.max()
}

pub(super) fn check_checkpoint(folder: &Path, epoch: usize) -> Result<()> {
    for name in ["model", "optim", "scheduler"] {
        let path = file_of(folder, name, epoch);
        if !path.is_file() {
            return Err(Error::format(&path, "expected a checkpoint to go on from, found no such file"));
        }
    }
    Ok(())
}

/// burn-train panics where a checkpoint cannot be read: this finds out before.
pub(super) fn check_readable(folder: &Path, epoch: usize, network: impl Module) -> Result<()> {
    let broken = |name: &str, reason: String| {
        let reason = reason.lines().next().unwrap_or_default().to_owned();
        Error::format(&file_of(folder, name, epoch), format!("expected a checkpoint of this run: {reason}"))
    };
    let record =
        ModuleRecord::load(file_of(folder, "model", epoch)).map_err(|error| broken("model", error.to_string()))?;
    network.try_load_record(record).map_err(|error| broken("model", error.to_string()))?;
    OptimizerRecord::load(file_of(folder, "optim", epoch)).map_err(|error| broken("optim", error.to_string()))?;
    // A scheduler's record is read without complaint when half of it is gone; written again it is another one.
    let path = file_of(folder, "scheduler", epoch);
    let record = LrSchedulerRecord::load(&path).and_then(LrSchedulerRecord::into_bytes);
    let record = record.map_err(|error| broken("scheduler", error.to_string()))?;
    if record[..] != crate::files::read_whole(&path)?[..] {
        return Err(broken("scheduler", "it is not whole".into()));
    }
    Ok(())
}

pub(super) fn file_of(folder: &Path, name: &str, epoch: usize) -> PathBuf {
    folder.join(format!("{name}-{epoch}.bpk"))
}

/// One of the three files of a checkpoint.
pub(super) struct Files {
    /// Where they are; `None`: nothing is written.
    pub folder: Option<PathBuf>,
    pub name: &'static str,
    /// Why one could not be written, which burn-train passes on as a text inside others.
    pub unwritten: Unwritten,
}

pub(super) type Unwritten = Arc<Mutex<Option<Error>>>;

impl<R: Checkpoint> Checkpointer<R> for Files {
    fn save(&self, epoch: usize, record: R) -> std::result::Result<(), CheckpointerError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = file_of(folder, self.name, epoch);
        let bytes = record.checkpoint_into_bytes().map_err(CheckpointerError::Record)?;
        crate::files::write_bytes(&path, &bytes).map_err(|error| {
            let told = CheckpointerError::Unknown(error.to_string());
            self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            told
        })
    }

    fn delete(&self, epoch: usize) -> std::result::Result<(), CheckpointerError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        match std::fs::remove_file(file_of(folder, self.name, epoch)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CheckpointerError::IOError(error)),
            _ => Ok(()),
        }
    }

    fn restore(&self, epoch: usize) -> std::result::Result<R, CheckpointerError> {
        let folder = self.folder.as_ref().ok_or(CheckpointerError::Unknown("no folder".into()))?;
        R::load(file_of(folder, self.name, epoch))
    }
}

/// Keeps the last two checkpoints, that before the first epoch counted in.
pub(super) struct LastTwo;

impl CheckpointingStrategy for LastTwo {
    fn checkpointing(&mut self, epoch: usize, _: &EventStoreClient) -> Vec<CheckpointingAction> {
        // burn-train's checkpointers save on threads of their own, and values of a GPU's tensors are read only when they are written,
        // when the next step may have changed them. A checkpointer takes a request when it is done with the last one: asking for a
        // deletion, before the second epoch that of nothing, waits until all is saved.
        vec![CheckpointingAction::Save, CheckpointingAction::Delete(epoch.wrapping_sub(2))]
    }
}

/// Lays parameters out in memory as a checkpoint does. Products round differently where a matrix lies transposed, so that a run
/// that starts with one would differ, in the last bits, from the same run resumed.
pub(super) struct CheckpointLayout;

impl ModuleMapper for CheckpointLayout {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|values| {
            let tracked = values.is_require_grad();
            let values = leaf(values);
            let device = values.device();
            let laid = Tensor::from_data(crate::device::read(values), &device);
            if tracked { laid.require_grad() } else { laid }
        })
    }
}
