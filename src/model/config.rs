//! What a model is made of, as it stands in configuration files, model files and presets.

use super::normalization::{ChannelStatistics, Normalization, Normalizer};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerShape, SignalShape};
use crate::text::counted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of an [`Mlcsc`](super::Mlcsc) model.
///
/// Written by hand as JSON, so unknown fields are refused rather than ignored (which burn's own `Config` derive would do).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Shape of the signals that the model is made for. A model can be applied to signals of other sizes as long as the
    /// channels agree and the kernels fit.
    pub signal: SignalShape,
    /// The dictionaries D_1 … D_L, at least one.
    pub layers: Vec<LayerShape>,
    /// What is done to signals before coding and undone in outputs. Default `none`.
    #[serde(default)]
    pub normalization: Normalization,
    /// What the normalisations `mean`, `mean-and-scale` and `standardise` subtract and divide by. Default: found from the training
    /// signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<ChannelStatistics>,
    /// Samples a second of the recordings that the model is for. Default: that of the training recordings; unknown where they are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<u32>,
}

impl ModelConfig {
    /// A model without normalisation.
    pub fn new(signal: SignalShape, layers: Vec<LayerShape>) -> Self {
        Self { signal, layers, normalization: Normalization::None, statistics: None, sampling_rate: None }
    }

    /// Checks everything and computes the shapes of all layers on the configured signal.
    ///
    /// # Errors
    /// As [`Geometry::new`]; as [`ChannelStatistics::check`]; a sampling rate of 0.
    pub fn geometry(&self) -> Result<Geometry> {
        if self.sampling_rate == Some(0) {
            return Err(Error::parameter("sampling_rate", 0, "at least 1 sample a second"));
        }
        if let Some(statistics) = &self.statistics {
            statistics.check(self.signal.channels)?;
            if !self.normalization.is_fitted() {
                let expected = "none with a normalisation that is not fitted to training signals";
                return Err(Error::parameter("statistics", "given", expected));
            }
        }
        Geometry::new(self.signal, &self.layers)
    }

    /// Checks that recordings have the sampling rate of those that the model is for, where both are known: at another rate atoms stand for
    /// other frequencies.
    ///
    /// # Errors
    /// [`Error::Shape`] for another rate.
    pub fn check_sampling_rate(&self, found: Option<u32>) -> Result<()> {
        match self.sampling_rate.zip(found) {
            Some((wanted, found)) if wanted != found => {
                Err(Error::shape("recordings", format!("{wanted} samples a second, which the model is for"), found))
            }
            _ => Ok(()),
        }
    }

    /// What is done to signals before they are coded. A fitted normalisation without statistics leaves them as they are; no trained model
    /// is without.
    pub fn normalizer(&self) -> Normalizer {
        Normalizer::new(self.normalization, self.statistics.clone())
    }

    /// The shapes of all layers on signals of another size.
    ///
    /// # Errors
    /// Another number of channels; a signal smaller than the kernels.
    pub fn geometry_on(&self, signal: SignalShape) -> Result<Geometry> {
        if signal.channels != self.signal.channels {
            return Err(Error::shape("signals for this model", counted(self.signal.channels, "channel"), signal));
        }
        Geometry::new(signal, &self.layers)
    }
}
