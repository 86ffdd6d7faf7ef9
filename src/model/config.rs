//! What a model is made of, as it stands in configuration files, model files and presets.

use super::normalization::Normalization;
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
}

impl ModelConfig {
    /// A model without normalisation.
    pub fn new(signal: SignalShape, layers: Vec<LayerShape>) -> Self {
        Self { signal, layers, normalization: Normalization::None }
    }

    /// Checks everything and computes the shapes of all layers on the configured signal.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn geometry(&self) -> Result<Geometry> {
        Geometry::new(self.signal, &self.layers)
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
