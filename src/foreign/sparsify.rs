//! EleutherAI's sparsify: z = max(W(y − b_dec) + b, 0), of which the k largest are kept, or the largest of each of k groups.

use super::settings::Settings;
use super::weights::Arrays;
use super::{Activation, ForeignConfig, Format, InputScaling, Weights};
use crate::error::Result;
use std::path::Path;

/// Name of the file of tensors.
pub(super) const WEIGHTS: &str = "sae.safetensors";

/// Name of the file of settings.
const SETTINGS: &str = "cfg.json";

/// Settings that change no codes: what training alone looked at.
const HARMLESS: [&str; 3] = ["normalize_decoder", "multi_topk", "expansion_factor"];

/// Reads the files of a folder.
pub(super) fn read(folder: &Path) -> Result<(ForeignConfig, Weights)> {
    let mut settings = Settings::read(&folder.join(SETTINGS))?;
    let mut arrays = Arrays::safetensors(&folder.join(WEIGHTS))?;
    for (name, why) in [
        ("transcode", "false: a transcoder is no auto-encoder"),
        ("skip_connection", "false: a transcoder's connection past the codes"),
        ("signed", "false"),
    ] {
        if settings.flag(name)? == Some(true) {
            return Err(settings.wrong(name, true, why));
        }
    }
    let inputs = settings.count("d_in")?.ok_or_else(|| settings.missing("d_in", "a number, at least 1"))?;
    // Units of an expansion are a multiple of the inputs.
    let expanded = settings.count("expansion_factor")?.and_then(|factor| factor.checked_mul(inputs));
    let units = match settings.count("num_latents")?.filter(|&units| units > 0).or(expanded) {
        Some(units) => units,
        None => arrays.extents("W_dec")?[0],
    };
    let k = settings.count("k")?.ok_or_else(|| settings.missing("k", "the number of units that are kept"))?;
    let activation = match settings.text("activation")?.as_deref() {
        None | Some("topk") => Activation::TopK { k },
        Some("groupmax") => Activation::GroupMax { k },
        Some(other) => return Err(settings.wrong("activation", format_args!("{other:?}"), "topk or groupmax")),
    };
    let config = ForeignConfig {
        format: Format::Sparsify,
        inputs,
        units,
        activation,
        centred: true,
        scaling: InputScaling::None,
        network: None,
        hook: None,
        of_heads: false,
        metadata: Default::default(),
    };
    config.check().map_err(|error| settings.named(error))?;
    settings.finish(&HARMLESS)?;

    let weight = arrays.take("encoder.weight", &[units, inputs])?;
    let weights = Weights {
        encoder: Some(transposed(&weight, inputs)),
        encoder_bias: Some(arrays.take("encoder.bias", &[units])?),
        decoder: arrays.take("W_dec", &[units, inputs])?,
        bias: arrays.take("b_dec", &[inputs])?,
        ..Weights::default()
    };
    arrays.finish()?;
    Ok((config, weights))
}

/// Columns as rows; `columns` of them.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}
