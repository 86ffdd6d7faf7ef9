//! The file of an auto-encoder of others: one safetensors file, its settings in the metadata.

use super::{Activation, ForeignAutoencoder, ForeignConfig, InputScaling, Weights};
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use crate::model::file::{METADATA_KEY as MODEL_KEY, bytes_of, fill_module, module_bytes};
use burn::tensor::Device;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Key of its metadata where it is no model of ours.
const METADATA_KEY: &str = "mlcsc-foreign";

/// The version that this code writes and reads.
const FORMAT_VERSION: u32 = 1;

/// The metadata where it is no model of ours; else this stands as the encoder's settings in a model's.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format_version: u32,
    foreign: ForeignConfig,
}

impl ForeignAutoencoder {
    /// Writes weights and settings as one safetensors file, whole or not at all.
    ///
    /// It is a model of ours too, of one dictionary, W_dec as it stands, and of signals whose mean b is taken off: whatever takes models
    /// takes it, and its codes are in the units of the auto-encoder's. One that scales every signal is none.
    ///
    /// # Errors
    /// A path that cannot be written, a full disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = Metadata { format_version: FORMAT_VERSION, foreign: self.config().clone() };
        let broken = |error: serde_json::Error| Error::format(path, error.to_string());
        let bytes = match self.config().scaling {
            InputScaling::None => {
                let settings = serde_json::to_value(metadata).map_err(broken)?;
                bytes_of(self, &self.model_config(), self.coding(), Some(settings))?
            }
            _ => module_bytes(self, METADATA_KEY, serde_json::to_string(&metadata).map_err(broken)?)?,
        };
        files::write_bytes(path, &bytes)
    }

    /// Reads what [`Self::save`] has written.
    ///
    /// # Errors
    /// A file that cannot be read, is none of ours, whose settings are out of range or do not fit its weights, or whose weights are
    /// not finite.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let bytes = files::read_whole(path)?;
        let broken = |reason: String| {
            Error::format(path, format!("expected an imported auto-encoder (safetensors), found {reason}"))
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(format!("broken content: {error}")))?;
        let metadata = match settings_of(path, &bytes)? {
            Some(settings) => json::parse_value::<Metadata>(settings),
            None => return Err(broken("a safetensors file without its metadata".into())),
        };
        let metadata = metadata.map_err(|error| broken(format!("metadata that cannot be read: {error}")))?;
        if metadata.format_version != FORMAT_VERSION {
            let version = metadata.format_version;
            return Err(broken(format!("format version {version}; this program reads {FORMAT_VERSION}")));
        }
        let config = metadata.foreign;
        config.check().map_err(|error| broken(error.to_string()))?;
        // Weights that are not there are not made room for.
        let (inputs, units) = (config.inputs, config.units);
        let decoder = tensors.tensor("layers.0.filters").ok().map(|tensor| tensor.shape().to_vec());
        if decoder.as_deref() != Some(&[units, inputs, 1, 1]) {
            let found = decoder.map_or("none".to_owned(), |shape| format!("{shape:?}"));
            return Err(broken(format!("a decoder of shape {found} where its settings say {units}x{inputs}")));
        }
        let vector = |has: bool| has.then(|| vec![0.0; units]);
        let (encodes, gated) = (config.activation.has_encoder(), config.activation == Activation::Gated);
        let empty = Weights {
            encoder: encodes.then(|| vec![0.0; inputs * units]),
            encoder_bias: vector(encodes),
            threshold: vector(config.activation == Activation::JumpRelu),
            magnitude: vector(gated),
            magnitude_bias: vector(gated),
            decoder: vec![0.0; inputs * units],
            bias: vec![0.0; inputs],
        };
        let mut found = Self::new(config, empty, device).map_err(|error| broken(error.to_string()))?;
        fill_module(&mut found, path, bytes)?;
        Ok(found)
    }
}

/// What the metadata of a safetensors file says of an auto-encoder of others; `None` where it is none.
fn settings_of(path: &Path, bytes: &[u8]) -> Result<Option<Value>> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| Error::format(path, format!("expected a safetensors file, found a broken header: {error}")))?;
    let entry = |key: &str| {
        let text = header.metadata().as_ref()?.get(key)?;
        serde_json::from_str::<Value>(text).ok()
    };
    if let Some(settings) = entry(METADATA_KEY) {
        return Ok(Some(settings));
    }
    let encoder = entry(MODEL_KEY).and_then(|mut model| model.get_mut("encoder").map(Value::take));
    Ok(encoder.filter(|encoder| encoder.get("foreign").is_some()))
}

/// Whether a file says of itself that it is an imported auto-encoder.
///
/// # Errors
/// A file that cannot be read or is no safetensors file.
pub fn is_foreign(path: &Path) -> Result<bool> {
    Ok(settings_of(path, &files::read_whole(path)?)?.is_some())
}
