//! Models as SAELens opens them: `cfg.json` and `sae_weights.safetensors`, as its version 6 writes them.

use super::arrays::{self, NamedArray};
use crate::autoencoder::Autoencoder;
use crate::autoencoder::doctor::dictionary_of;
use crate::baselines::{Penalty, Rival, RivalConfig};
use crate::error::{Error, Result};
use crate::files;
use crate::foreign::saelens::{SETTINGS, WEIGHTS};
use crate::foreign::{Activation, ForeignAutoencoder, ForeignConfig, Format, InputScaling, Weights};
use crate::kernels::sparse::to_host;
use crate::model::normalization::Normalization;
use crate::model::{CodingDefaults, Mlcsc};
use burn::tensor::Tensor;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The version whose form is written.
const VERSION: &str = "6.54.12";

/// Picks of a dictionary's matching pursuit where nothing else is known.
const PICKS: usize = 32;

/// Names of the files.
pub const FILES: [&str; 2] = [WEIGHTS, SETTINGS];

/// How a dictionary without an encoder is pursued there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PursuitSettings {
    /// Most picks, at least 1, which SAELens calls `max_iterations`. Default: the non-zeros of the greedy pursuit that the model was learned
    /// with, else 32; no more than a signal has values.
    pub picks: Option<usize>,
    /// Length ≥ 0 of the residual below which a signal is finished. Default 0: only the picks count.
    pub residual: f32,
    /// Whether the negatives of all atoms follow them, twice as many units: codes of both signs are then what they were. Default no.
    pub both_signs: bool,
}

/// A dictionary as an auto-encoder whose encoder is matching pursuit over its effective atoms, of unit norm: `matching_pursuit` there. An
/// atom that is picked again does not end it. Codes are non-negative there: [`PursuitSettings::both_signs`] adds every atom's negative.
///
/// # Errors
/// Codes with more than one position; a normalisation that is more than a mean and one scale; settings out of range.
pub fn of_model(model: &Mlcsc, coding: &CodingDefaults, settings: &PursuitSettings) -> Result<ForeignAutoencoder> {
    let config = model.config();
    let Some(dictionary) = dictionary_of(model)? else {
        let expected = "a dictionary of vectors: signals of one row and column, codes of one position";
        let found = format!("codes of {} over signals of {}", config.geometry()?.code(), config.signal);
        return Err(Error::shape("model for SAELens", expected, found));
    };
    let inputs = config.signal.len();
    let bias = match (config.normalization, &config.statistics) {
        (Normalization::None, _) => vec![0.0; inputs],
        // Whatever all is divided by, matching pursuit picks the same atoms.
        (Normalization::Mean | Normalization::MeanAndScale, Some(statistics)) => {
            let positions = config.signal.height * config.signal.width;
            statistics.mean.iter().flat_map(|&mean| std::iter::repeat_n(mean, positions)).collect()
        }
        (other, _) => {
            let expected = "none, mean or mean-and-scale, which SAELens's bias can stand for";
            return Err(Error::parameter("normalization", other, expected));
        }
    };
    let picks = settings.picks.or(coding.nonzeros).unwrap_or(PICKS);
    let picks = if settings.picks.is_some() { picks } else { picks.min(inputs) };
    if !(1..=inputs).contains(&picks) {
        return Err(Error::parameter("picks", picks, format!("1 to {inputs}, the values of a signal")));
    }
    if !(settings.residual.is_finite() && settings.residual >= 0.0) {
        return Err(Error::parameter("residual", settings.residual, "a finite length ≥ 0"));
    }
    let activation = Activation::MatchingPursuit {
        max_iterations: picks,
        residual_threshold: settings.residual,
        stop_on_duplicate_support: false,
    };
    let mut decoder = to_host(dictionary.effective_filters(1));
    if settings.both_signs {
        let negatives: Vec<f32> = decoder.iter().map(|value| -value).collect();
        decoder.extend(negatives);
    }
    let units = decoder.len() / inputs;
    let weights = Weights { decoder, bias, ..Weights::default() };
    ForeignAutoencoder::new(ours([inputs, units], activation, true), weights, &model.device())
}

/// A rival as what it is there: `top-k` as topk, `sae` with an ℓ1 penalty as standard. Signals of any shape are vectors of their values.
///
/// # Errors
/// A rival that no architecture of SAELens computes.
pub fn of_rival(rival: &Rival, config: &RivalConfig) -> Result<ForeignAutoencoder> {
    let size = [rival.signal().len(), rival.code().channels];
    let (activation, centred, weights) = match (rival, config) {
        (Rival::TopK(network), RivalConfig::TopK(config)) => {
            let weights = Weights {
                encoder: Some(to_host(network.encoder.val())),
                encoder_bias: Some(to_host(network.encoder_bias.val())),
                decoder: to_host(network.decoder.val()),
                bias: to_host(network.bias.val()),
                ..Weights::default()
            };
            (Activation::TopK { k: config.k }, true, weights)
        }
        (Rival::Sae(network), RivalConfig::Sae(config)) if config.penalty == Penalty::L1 => {
            let bias = |bias: &Option<burn::module::Param<Tensor<1>>>, len: usize| match bias {
                Some(bias) => to_host(bias.val()),
                None => vec![0.0; len],
            };
            let weights = Weights {
                encoder: Some(to_host(network.encoder.weight.val())),
                encoder_bias: Some(bias(&network.encoder.bias, size[1])),
                decoder: to_host(network.decoder.weight.val()),
                bias: bias(&network.decoder.bias, size[0]),
                ..Weights::default()
            };
            (Activation::Relu, false, weights)
        }
        (_, config) => {
            let expected =
                "a dictionary, an imported auto-encoder, top-k, or sae with an ℓ1 penalty: SAELens computes no others";
            return Err(Error::parameter("model", config.name(), expected));
        }
    };
    ForeignAutoencoder::new(ours(size, activation, centred), weights, &rival.atoms().device())
}

fn ours([inputs, units]: [usize; 2], activation: Activation, centred: bool) -> ForeignConfig {
    ForeignConfig {
        format: Format::Mlcsc,
        inputs,
        units,
        activation,
        centred,
        scaling: InputScaling::None,
        network: None,
        hook: None,
        of_heads: false,
        metadata: Default::default(),
    }
}

/// Writes the folder that SAELens loads, and returns the files; the settings come last.
///
/// # Errors
/// An activation that SAELens does not have; a folder that cannot be made or written into, a full disk.
pub fn write(network: &ForeignAutoencoder, folder: &Path) -> Result<Vec<PathBuf>> {
    let config = network.config();
    let settings = settings(config)?;
    files::create_folder(folder)?;
    let weights = network.weights();
    let gated = config.activation == Activation::Gated;
    let (inputs, units) = (config.inputs, config.units);
    let mut all = vec![
        NamedArray::floats("W_dec", &[units, inputs], &weights.decoder),
        NamedArray::floats("b_dec", &[inputs], &weights.bias),
    ];
    let vectors = [
        (if gated { "b_gate" } else { "b_enc" }, &weights.encoder_bias),
        ("threshold", &weights.threshold),
        ("r_mag", &weights.magnitude),
        ("b_mag", &weights.magnitude_bias),
    ];
    if let Some(encoder) = &weights.encoder {
        all.push(NamedArray::floats("W_enc", &[inputs, units], encoder));
    }
    for (name, values) in vectors {
        all.extend(values.as_ref().map(|values| NamedArray::floats(name, &[units], values)));
    }
    let [tensors, text] = FILES.map(|name| folder.join(name));
    arrays::write_safetensors(&tensors, None, all)?;
    files::write_bytes(&text, format!("{settings:#}\n").as_bytes())?;
    Ok(vec![tensors, text])
}

/// What `cfg.json` says.
fn settings(config: &ForeignConfig) -> Result<Value> {
    let (architecture, own) = match &config.activation {
        Activation::Relu => ("standard", json!({})),
        Activation::TopK { k } => ("topk", json!({ "k": k, "rescale_acts_by_decoder_norm": false })),
        Activation::AbsTopK { k } => ("abstopk", json!({ "k": k, "rescale_acts_by_decoder_norm": false })),
        Activation::JumpRelu => ("jumprelu", json!({})),
        Activation::Gated => ("gated", json!({})),
        Activation::MatchingPursuit { max_iterations, residual_threshold, stop_on_duplicate_support } => (
            "matching_pursuit",
            json!({
                "max_iterations": max_iterations,
                "residual_threshold": residual_threshold,
                "stop_on_duplicate_support": stop_on_duplicate_support,
            }),
        ),
        Activation::GroupMax { .. } => {
            let expected = "an activation that SAELens has: it keeps no largest of groups";
            return Err(Error::parameter("model", &config.activation, expected));
        }
    };
    let normalization = match config.scaling {
        InputScaling::None => "none",
        InputScaling::ConstantNorm => "constant_norm_rescale",
        InputScaling::LayerNorm => "layer_norm",
    };
    let mut metadata = config.metadata.clone();
    // By this it knows the form.
    metadata.insert("sae_lens_version".into(), VERSION.into());
    metadata.insert("made_by".into(), concat!("mlcsc ", env!("CARGO_PKG_VERSION")).into());
    for (name, value) in [("model_name", &config.network), ("hook_name", &config.hook)] {
        metadata.extend(value.clone().map(|value| (name.to_owned(), value.into())));
    }
    let mut all = json!({
        "architecture": architecture,
        "d_in": config.inputs,
        "d_sae": config.units,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": config.centred,
        "normalize_activations": normalization,
        "reshape_activations": if config.of_heads { "hook_z" } else { "none" },
        "metadata": metadata,
    });
    if let (Some(all), Value::Object(own)) = (all.as_object_mut(), own) {
        all.extend(own);
    }
    Ok(all)
}
