//! The file of an auto-encoder: that of its dictionaries, with the encoder's own tensors as `encoder.…` and its settings in the
//! metadata beside the model's configuration.

use super::config::{EncoderWeights, SparseAutoencoderConfig, UnrolledPursuit};
use super::unrolled::SparseAutoencoder;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Mlcsc;
use crate::model::file::{CodingDefaults, bytes_of, encoder_of, fill_module};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the metadata says of the encoder; λ and sign stand in the model's coding defaults.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncoderSettings {
    pursuit: UnrolledPursuit,
    iterations: usize,
    weights: EncoderWeights,
    shallower_lambda: Vec<f32>,
    learned_steps: bool,
    learned_thresholds: bool,
    #[serde(default)]
    learned_momentum: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denoises: Option<[f32; 2]>,
}

impl SparseAutoencoder {
    /// Writes dictionaries and encoder as one safetensors file, whole or not at all.
    ///
    /// # Errors
    /// A path that cannot be written, a full disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let config = self.config();
        let coding = CodingDefaults { lambda: Some(config.lambda), nonnegative: config.nonnegative, nonzeros: None };
        let settings = EncoderSettings {
            pursuit: config.pursuit,
            iterations: config.iterations,
            weights: config.weights,
            shallower_lambda: config.shallower_lambda.clone(),
            learned_steps: config.learned_steps,
            learned_thresholds: config.learned_thresholds,
            learned_momentum: config.learned_momentum,
            denoises: config.denoises,
        };
        let settings = serde_json::to_value(settings).map_err(|error| Error::format(path, error.to_string()))?;
        files::write_bytes(path, &bytes_of(self, &config.model, coding, Some(settings))?)
    }

    /// Reads a model file. One without an encoder becomes a tied auto-encoder with the defaults of [`SparseAutoencoderConfig`]
    /// and the λ and sign that the dictionaries were learned with.
    ///
    /// # Errors
    /// As [`Mlcsc::load`]; settings of an encoder that are out of range or do not fit its tensors.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (model, coding) = Mlcsc::load(path, device)?;
        let mut config = SparseAutoencoderConfig::new(model.config().clone()).with_nonnegative(coding.nonnegative);
        config.lambda = coding.lambda.unwrap_or(config.lambda);
        let Some(settings) = encoder_of(path)? else { return config.init_from(&model) };
        let broken = |reason: String| Error::format(path, format!("settings of an encoder: {reason}"));
        let settings: EncoderSettings = serde_json::from_value(settings).map_err(|error| broken(error.to_string()))?;
        config = SparseAutoencoderConfig {
            pursuit: settings.pursuit,
            iterations: settings.iterations,
            weights: settings.weights,
            shallower_lambda: settings.shallower_lambda,
            learned_steps: settings.learned_steps,
            learned_thresholds: settings.learned_thresholds,
            learned_momentum: settings.learned_momentum,
            denoises: settings.denoises,
            ..config
        };
        let mut autoencoder = config.init_from(&model).map_err(|error| broken(error.to_string()))?;
        fill_module(&mut autoencoder, path, files::read_whole(path)?)?;
        Ok(autoencoder)
    }
}

/// Whether a model file holds an encoder beside the dictionaries.
///
/// # Errors
/// As [`Mlcsc::load`].
pub fn has_encoder(path: &Path) -> Result<bool> {
    Ok(encoder_of(path)?.is_some())
}
