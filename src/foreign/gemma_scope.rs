//! Gemma Scope: z = yW_enc + b_enc, of which what exceeds a unit's threshold is kept; b_dec is added to the reconstruction alone.

use super::weights::Arrays;
use super::{Activation, ForeignConfig, Format, InputScaling, Weights};
use crate::error::{Error, Result};
use std::path::Path;

/// Name of the file.
pub(super) const WEIGHTS: &str = "params.npz";

/// Reads the file of a folder.
pub(super) fn read(folder: &Path) -> Result<(ForeignConfig, Weights)> {
    let path = folder.join(WEIGHTS);
    let mut arrays = Arrays::archive(&path)?;
    // Some were saved with small letters.
    let name = |arrays: &Arrays, name: &str| match arrays.holds(name) {
        true => name.to_owned(),
        false if arrays.holds(&name.to_lowercase()) => name.to_lowercase(),
        false => name.to_owned(),
    };
    let [encoder, decoder] = ["W_enc", "W_dec"].map(|wanted| name(&arrays, wanted));
    let [inputs, units] = arrays.extents(&encoder)?;
    let config = ForeignConfig {
        format: Format::GemmaScope,
        inputs,
        units,
        activation: Activation::JumpRelu,
        centred: false,
        scaling: InputScaling::None,
        network: None,
        hook: None,
        of_heads: false,
        metadata: Default::default(),
    };
    config.check().map_err(|error| Error::format(&path, error.to_string()))?;
    let weights = Weights {
        encoder: Some(arrays.take(&encoder, &[inputs, units])?),
        encoder_bias: Some(arrays.take("b_enc", &[units])?),
        threshold: Some(arrays.take("threshold", &[units])?),
        decoder: arrays.take(&decoder, &[units, inputs])?,
        bias: arrays.take("b_dec", &[inputs])?,
        ..Weights::default()
    };
    arrays.finish()?;
    Ok((config, weights))
}
