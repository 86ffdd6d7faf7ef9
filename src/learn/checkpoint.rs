//! The state of a run as one safetensors file: everything that the next step depends on, to the last bit.

use super::cascade::Cascade;
use super::config::TrainConfig;
use super::learner::Memory;
use super::metrics::BatchSums;
use super::run::Training;
use crate::data::{Fingerprint, digest};
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use crate::kernels::sparse::HostFilters;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Key of the metadata.
const METADATA_KEY: &str = "mlcsc-checkpoint";

/// The version that this code writes and reads.
const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format_version: u32,
    /// Steps done.
    step: usize,
    /// Training signals that there were.
    signals: usize,
    /// What tells the run's signals from others; older checkpoints have none.
    #[serde(default)]
    data: Option<Fingerprint>,
    /// λ as it was steered so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steered: Option<f32>,
    /// What tells the tensors and the numbers above from damaged ones; older checkpoints have none.
    #[serde(default)]
    content: Option<String>,
    config: TrainConfig,
}

/// What tells tensors, in the order of their names, and steps, signals and λ from others.
fn digest_of<'a>(
    tensors: impl Iterator<Item = (String, &'a [u8])>,
    [step, signals]: [usize; 2],
    steered: Option<f32>,
) -> String {
    let mut all: Vec<(String, &[u8])> = tensors.collect();
    all.sort();
    let each = all.iter().map(|(name, bytes)| format!("{name} {}", digest(bytes)));
    let numbers = format!("{step} {signals} {:?}", steered.map(f32::to_bits));
    digest(each.chain([numbers]).collect::<Vec<_>>().join(" ").as_bytes())
}

/// Writes a checkpoint, whole or not at all.
///
/// `data` are the run's signals, `epoch` holds the sums over the epoch's steps so far.
///
/// # Errors
/// A path that cannot be written, a full disk; an earlier checkpoint stays as it was.
pub(super) fn save(path: &Path, training: &Training, data: &Fingerprint, epoch: Option<&BatchSums>) -> Result<()> {
    let learner = training.state();
    let broken = |error: String| Error::format(path, error);
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut filters = |name: &str, filters: &HostFilters, index: usize| {
        let dims = filters.dims().to_vec();
        tensors.push((format!("{name}.{index}"), Dtype::F32, dims, bytes(filters.values())));
    };
    for layer in 0..learner.cascade.depth() {
        filters("filters", &learner.cascade.filters(layer), layer);
    }
    match training.memory() {
        Some(Memory::Velocity(velocities)) => {
            velocities.iter().enumerate().for_each(|(layer, velocity)| filters("velocity", velocity, layer));
        }
        Some(Memory::Statistics(statistics)) => {
            let (second, first) = statistics.parts();
            for (name, values) in [("statistics.second", second), ("statistics.first", first)] {
                tensors.push((name.into(), Dtype::F32, vec![values.len()], bytes(&values)));
            }
        }
        None => (),
    }
    let idle: Vec<u8> = learner.idle.iter().flat_map(|steps| steps.to_le_bytes()).collect();
    tensors.push(("idle".into(), Dtype::U32, vec![learner.idle.len()], idle));
    if let Some(epoch) = epoch {
        let values = epoch.to_values();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push(("epoch".into(), Dtype::F64, vec![values.len()], bytes));
    }
    let metadata = Metadata {
        format_version: FORMAT_VERSION,
        step: learner.step,
        signals: learner.signals,
        data: Some(data.clone()),
        steered: learner.steered,
        content: Some(digest_of(
            tensors.iter().map(|(name, _, _, bytes)| (name.clone(), bytes.as_slice())),
            [learner.step, learner.signals],
            learner.steered,
        )),
        config: learner.config().clone(),
    };
    let metadata = serde_json::to_string(&metadata).map_err(|error| broken(error.to_string()))?;
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| broken(error.to_string()))?;
    let metadata = HashMap::from([(METADATA_KEY.to_string(), metadata)]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| broken(error.to_string()))?;
    files::write_atomically(path, |writer| writer.write_all(&file).map_err(Error::write(path)))
}

/// Puts a training together from a checkpoint's file, with the sums over the epoch's steps so far.
///
/// `training` is a fresh one of the same configuration, the number of epochs and the place of the data aside; `data` are the signals
/// that it is to go on with.
///
/// # Errors
/// A file that cannot be read, is no checkpoint, or belongs to another configuration; other signals than the run's.
pub(super) fn load(path: &Path, training: &mut Training, data: &Fingerprint) -> Result<Option<BatchSums>> {
    let learner = training.state();
    let bytes = files::read_whole(path)?;
    let broken = |reason: String| Error::format(path, format!("expected an mlcsc checkpoint, found {reason}"));
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| broken(format!("a broken header: {error}")))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(format!("broken content: {error}")))?;
    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(METADATA_KEY))
        .ok_or_else(|| broken("a safetensors file without a checkpoint's metadata".into()))?;
    let metadata: Metadata =
        json::parse(metadata.as_bytes()).map_err(|error| broken(format!("metadata that cannot be read: {error}")))?;
    if metadata.format_version != FORMAT_VERSION {
        return Err(broken(format!("format version {}; this program reads {FORMAT_VERSION}", metadata.format_version)));
    }
    let numbers = [metadata.step, metadata.signals];
    let content =
        digest_of(tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.data())), numbers, metadata.steered);
    if metadata.content.as_ref().is_some_and(|expected| *expected != content) {
        return Err(broken("a damaged one: its content is not what was written".into()));
    }
    let mut config = metadata.config.clone();
    config.learning.epochs = learner.config().learning.epochs;
    if metadata.data.is_some() {
        // The signals themselves are compared, not the place where they lie.
        config.data.source.clone_from(&learner.config().data.source);
    }
    // Found from the signals again, which are compared themselves.
    config.model.statistics.clone_from(&learner.config().model.statistics);
    config.model.sampling_rate = learner.config().model.sampling_rate;
    if config != *learner.config() {
        return Err(broken("one of another configuration than config.json beside it".into()));
    }
    if let Some(expected) = &metadata.data {
        expected.check(data, &config.data.source, path)?;
    }
    if metadata.signals != learner.signals {
        return Err(broken(format!(
            "one of a run on {} training signals where there are {} now",
            metadata.signals, learner.signals
        )));
    }
    let values = |name: &str, len: usize, dtype: Dtype| {
        let tensor = tensors.tensor(name).map_err(|_| broken(format!("no tensor {name}")))?;
        if tensor.dtype() != dtype || tensor.shape().iter().product::<usize>() != len {
            return Err(broken(format!("{name} of shape {:?} and type {:?}", tensor.shape(), tensor.dtype())));
        }
        Ok(tensor.data().to_vec())
    };
    let floats = |name: &str, len: usize| -> Result<Vec<f32>> {
        let bytes = values(name, len, Dtype::F32)?;
        let floats: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if floats.iter().all(|value| value.is_finite()) {
            Ok(floats)
        } else {
            Err(broken(format!("NaN or infinite values in {name}")))
        }
    };
    let layers = learner.geometry.layers().iter().enumerate();
    let filters = layers
        .map(|(index, layer)| {
            let dims = layer.filter_dims();
            Ok(HostFilters::new(dims, floats(&format!("filters.{index}"), dims.iter().product())?))
        })
        .collect::<Result<Vec<_>>>()?;
    let idle = values("idle", learner.idle.len(), Dtype::U32)?;
    match training.memory_mut() {
        Some(Memory::Velocity(velocities)) => {
            for (index, velocity) in velocities.iter_mut().enumerate() {
                let dims = velocity.dims();
                *velocity = HostFilters::new(dims, floats(&format!("velocity.{index}"), dims.iter().product())?);
            }
        }
        Some(Memory::Statistics(statistics)) => {
            let [second, first] = statistics.lens();
            statistics.restore(floats("statistics.second", second)?, floats("statistics.first", first)?);
        }
        None => (),
    }
    let learner = training.state_mut();
    learner.cascade = Cascade::new(learner.config().model.clone(), filters);
    learner.idle = idle.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    learner.step = metadata.step;
    learner.steered = metadata.steered;
    let Ok(epoch) = tensors.tensor("epoch") else { return Ok(None) };
    let values: Vec<f64> = epoch.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    BatchSums::from_values(&values, &learner.geometry)
        .map(Some)
        .ok_or_else(|| broken(format!("epoch of shape {:?}", epoch.shape())))
}
