//! A model is one safetensors file: the filters as `layers.0.filters`, `layers.1.filters`, …, the configuration as JSON in the
//! metadata under the key `mlcsc`.

use super::{Mlcsc, ModelConfig};
use crate::device::scalar;
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Key of our metadata: a single one, because the order of several would differ from run to run and with it the file.
pub(crate) const METADATA_KEY: &str = "mlcsc";

/// How a model's codes are meant to be computed, as far as training knows; the defaults of later coding.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodingDefaults {
    /// Weight λ of the ℓ1 norm that the dictionaries were learned with.
    pub lambda: Option<f32>,
    /// Whether γ_L was kept non-negative.
    #[serde(default)]
    pub nonnegative: bool,
    /// Non-zeros of every code, where the dictionaries were learned with orthogonal matching pursuit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonzeros: Option<usize>,
}

impl CodingDefaults {
    /// Checks the ranges.
    ///
    /// # Errors
    /// λ that is negative or not finite; no non-zeros.
    pub fn check(&self) -> Result<()> {
        if let Some(lambda) = self.lambda.filter(|lambda| !(lambda.is_finite() && *lambda >= 0.0)) {
            return Err(Error::parameter("lambda", lambda, "a finite number ≥ 0"));
        }
        match self.nonzeros {
            Some(0) => Err(Error::parameter("nonzeros", 0, "at least 1")),
            _ => Ok(()),
        }
    }
}

/// What stands in a model file's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format_version: u32,
    model: ModelConfig,
    #[serde(default)]
    coding: CodingDefaults,
    /// What an auto-encoder adds to the dictionaries; not read here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoder: Option<serde_json::Value>,
}

/// The version that this code writes and reads.
const FORMAT_VERSION: u32 = 1;

impl Mlcsc {
    /// The model file's bytes.
    ///
    /// # Errors
    /// As [`CodingDefaults::check`].
    pub fn to_bytes(&self, coding: CodingDefaults) -> Result<Vec<u8>> {
        bytes_of(self, self.config(), coding, None)
    }

    /// Writes the model as one safetensors file, whole or not at all.
    ///
    /// # Errors
    /// As [`CodingDefaults::check`]; a path that cannot be written, a full disk.
    pub fn save(&self, path: &Path, coding: CodingDefaults) -> Result<()> {
        files::write_bytes(path, &self.to_bytes(coding)?)
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// A file that cannot be read, is no safetensors file, is none of ours, whose configuration does not fit itself or its
    /// filters, or whose filters are not finite.
    pub fn load(path: &Path, device: &Device) -> Result<(Self, CodingDefaults)> {
        let bytes = files::read_whole(path)?;
        let (metadata, config) = check(path, &bytes)?;
        let mut model = config.init(device).map_err(|error| Error::format(path, error.to_string()))?;
        let mut store = SafetensorsStore::from_bytes(Some(bytes));
        model.load_from(&mut store).map_err(|error| Error::format(path, error.to_string()))?;
        for (index, filters) in model.filters().into_iter().enumerate() {
            if !scalar::<1, _, bool>(filters.is_finite().all()) {
                return Err(Error::format(path, format!("filters of layer {} hold NaN or infinite values", index + 1)));
            }
        }
        Ok((model, metadata.coding))
    }
}

/// A model file's bytes, of a module that has the dictionaries as `layers` and whatever else an encoder needs.
pub(crate) fn bytes_of(
    module: &impl ModuleSnapshot,
    config: &ModelConfig,
    coding: CodingDefaults,
    encoder: Option<serde_json::Value>,
) -> Result<Vec<u8>> {
    coding.check()?;
    let metadata = Metadata { format_version: FORMAT_VERSION, model: config.clone(), coding, encoder };
    let metadata =
        serde_json::to_string(&metadata).map_err(|error| Error::format(Path::new("model"), error.to_string()))?;
    module_bytes(module, METADATA_KEY, metadata)
}

/// What an auto-encoder has put beside the dictionaries of a model file.
///
/// # Errors
/// As [`Mlcsc::load`].
pub(crate) fn encoder_of(path: &Path) -> Result<Option<serde_json::Value>> {
    let bytes = files::read_whole(path)?;
    Ok(check(path, &bytes)?.0.encoder)
}

/// A module as a safetensors file with one entry of metadata: the order of several would differ from run to run.
pub(crate) fn module_bytes(module: &impl ModuleSnapshot, key: &str, metadata: String) -> Result<Vec<u8>> {
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().metadata(key, metadata);
    let saved = module.save_into(&mut store).and_then(|()| store.get_bytes());
    saved.map_err(|error| Error::format(Path::new("model"), error.to_string()))
}

/// Fills a module from a safetensors file, which must hold all its tensors with finite values.
pub(crate) fn fill_module(module: &mut impl ModuleSnapshot, path: &Path, bytes: Vec<u8>) -> Result<()> {
    let mut store = SafetensorsStore::from_bytes(Some(bytes));
    module.load_from(&mut store).map_err(|error| {
        // The report of what was applied takes dozens of lines.
        let report = error.to_string();
        let line = report.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("tensors that do not fit");
        Error::format(path, line)
    })?;
    let mut finite = Finite(true);
    module.visit(&mut finite);
    match finite.0 {
        true => Ok(()),
        false => Err(Error::format(path, "NaN or infinite values")),
    }
}

/// Whether all float parameters are finite.
struct Finite(bool);

impl ModuleVisitor for Finite {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 &= scalar::<1, _, bool>(param.val().is_finite().all());
    }
}

/// What a safetensors file is, by the keys of its metadata, that is no model; without such keys it may be weights of `others`.
fn another<'a>(mut keys: impl Iterator<Item = &'a str>, others: bool) -> String {
    let found = keys.find_map(|key| match key {
        "mlcsc-rival" => Some("one of the model's rivals, which `mlcsc diagnose` and `mlcsc classify` take; top-k and sae on vectors become models that encode by `mlcsc export --format saelens` and then `mlcsc import --sae`"),
        "mlcsc-foreign" => Some(
            "an imported auto-encoder that scales every signal, which `mlcsc encode`, `reconstruct`, `diagnose`, `classify` and `export --format saelens` take",
        ),
        "mlcsc-checkpoint" => Some("a run's checkpoint; its model is model.safetensors beside it"),
        "mlcsc_codes" => Some("codes, which signals are reconstructed from"),
        _ => None,
    });
    let unknown = match others {
        true => "weights of others; `mlcsc import --sae FOLDER` makes a model of an auto-encoder",
        false => "a safetensors file without mlcsc's metadata",
    };
    found.unwrap_or(unknown).into()
}

/// Checks header, metadata and the shape of every tensor against each other and against the file's length.
fn check(path: &Path, bytes: &[u8]) -> Result<(Metadata, ModelConfig)> {
    let broken = |reason: String| Error::format(path, format!("expected an mlcsc model (safetensors), found {reason}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| broken(format!("a broken header: {error}")))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| broken(format!("broken content: {error}")))?;
    let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY)).ok_or_else(|| {
        let others = ["W_dec", "encoder.weight"].iter().any(|name| tensors.tensor(name).is_ok());
        broken(another(header.metadata().iter().flatten().map(|(key, _)| key.as_str()), others))
    })?;
    let metadata: Metadata =
        json::parse(metadata.as_bytes()).map_err(|error| broken(format!("metadata that cannot be read: {error}")))?;
    if metadata.format_version != FORMAT_VERSION {
        return Err(broken(format!("format version {}; this program reads {FORMAT_VERSION}", metadata.format_version)));
    }
    metadata.coding.check().map_err(|error| broken(error.to_string()))?;
    let config = metadata.model.clone();
    let geometry = config.geometry().map_err(|error| broken(error.to_string()))?;
    for (index, layer) in geometry.layers().iter().enumerate() {
        let name = format!("layers.{index}.filters");
        let tensor = tensors.tensor(&name).map_err(|_| broken(format!("no tensor {name}")))?;
        if tensor.shape() != layer.filter_dims() || tensor.dtype() != Dtype::F32 {
            return Err(broken(format!(
                "{name} of shape {:?} and type {:?} where its configuration says {:?} and F32",
                tensor.shape(),
                tensor.dtype(),
                layer.filter_dims()
            )));
        }
    }
    Ok((metadata, config))
}
