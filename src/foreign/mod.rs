//! Sparse auto-encoders that others trained: read from their files, with their codes.
//!
//! | format | files | source |
//! |---|---|---|
//! | SAELens | `cfg.json`, `sae_weights.safetensors` | <https://github.com/decoderesearch/SAELens>, `sae_lens/saes` |
//! | sparsify | `cfg.json`, `sae.safetensors` | <https://github.com/EleutherAI/sparsify>, `sparsify/sparse_coder.py` |
//! | Gemma Scope | `params.npz` | T. Lieberum et al., "Gemma Scope", 2024 (arXiv 2408.05147) |
//!
//! [`read`] tells which by the names in the folder. Signals are vectors of d values, `d×1×1`; a [`ForeignAutoencoder`] has their units'
//! codes and reconstructions to rounding. Settings that change numbers are obeyed or refused.

mod activation;
mod dictionary;
mod file;
mod gemma_scope;
pub(crate) mod saelens;
mod settings;
mod sparsify;
mod weights;

pub use file::is_foreign;

use crate::autoencoder::{Autoencoder, Coded, check_batch};
use crate::error::{Error, Result};
use crate::geometry::{LayerShape, MAX_TENSOR_LEN, SignalShape, checked_len};
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use crate::model::Dictionary;
use activation::MatchingPursuit;
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Format {
    /// SAELens.
    Saelens,
    /// EleutherAI's sparsify.
    Sparsify,
    /// Gemma Scope.
    GemmaScope,
    /// This crate's own, in the form of one of theirs.
    Mlcsc,
}

/// What makes codes of a signal; z are the values W_encᵀ(y − b) + b_enc, b being left out where the encoder does not take it off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Activation {
    /// max(z, 0).
    Relu,
    /// The k largest of max(z, 0); of equal ones the first.
    TopK {
        /// From 1 to the number of units.
        k: usize,
    },
    /// The k of largest magnitude, with their signs; of equal ones the first.
    AbsTopK {
        /// From 1 to the number of units.
        k: usize,
    },
    /// The largest of max(z, 0) in each of k groups of neighbours.
    GroupMax {
        /// A divisor of the number of units.
        k: usize,
    },
    /// max(z, 0) where z exceeds the unit's threshold.
    JumpRelu,
    /// max(exp(r)·W_encᵀ(y − b) + b_mag, 0) where W_encᵀ(y − b) + b_gate is positive (S. Rajamanoharan et al., "Improving Dictionary
    /// Learning with Gated Sparse Autoencoders", 2024).
    Gated,
    /// Matching pursuit over the decoder's rows, non-negative (V. Costa et al., "From Flat to Hierarchical: Extracting Sparse
    /// Representations with Matching Pursuit", 2025). There is no encoder.
    MatchingPursuit {
        /// Most picks, at least 1.
        max_iterations: usize,
        /// Length of the residual below which a signal is finished; 0 or less: never.
        residual_threshold: f32,
        /// Whether a signal is finished once a pick adds no unit.
        stop_on_duplicate_support: bool,
    },
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Relu => f.write_str("ReLU"),
            Self::TopK { k } => write!(f, "top-k with k = {k}"),
            Self::AbsTopK { k } => write!(f, "top-k by magnitude with k = {k}"),
            Self::GroupMax { k } => write!(f, "the largest of each of {k} groups"),
            Self::JumpRelu => f.write_str("JumpReLU"),
            Self::Gated => f.write_str("gated ReLU"),
            Self::MatchingPursuit { max_iterations, .. } => {
                write!(f, "matching pursuit of at most {max_iterations} picks")
            }
        }
    }
}

impl Activation {
    /// Whether codes are never negative.
    pub fn is_nonnegative(&self) -> bool {
        !matches!(self, Self::AbsTopK { .. })
    }

    /// Whether there are weights of an encoder.
    pub fn has_encoder(&self) -> bool {
        !matches!(self, Self::MatchingPursuit { .. })
    }
}

/// What is done to each signal before all else, and undone in its reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum InputScaling {
    /// Nothing.
    #[default]
    None,
    /// Its length is brought to √d; a signal of zeros stays one.
    ConstantNorm,
    /// Its mean is taken off, the rest divided by its standard deviation (with d − 1) + 10⁻⁵.
    LayerNorm,
}

/// What a [`ForeignAutoencoder`] is, beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignConfig {
    /// Where it comes from.
    pub format: Format,
    /// Values d of a signal, at least 1.
    pub inputs: usize,
    /// Units m, at least 1.
    pub units: usize,
    /// What makes codes.
    pub activation: Activation,
    /// Whether the encoder takes b off the signal, as the decoder adds it.
    pub centred: bool,
    /// What is done to signals before.
    #[serde(default)]
    pub scaling: InputScaling,
    /// The network that the signals are of, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The place in it, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Whether a signal is the outputs of a network's heads side by side, which SAELens calls `hook_z`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_heads: bool,
    /// What else is told of its origin, as it was found.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl ForeignConfig {
    /// Shape of the signals.
    pub fn signal(&self) -> SignalShape {
        SignalShape::new(self.inputs, 1, 1)
    }

    /// Shape of the codes.
    pub fn code(&self) -> SignalShape {
        SignalShape::new(self.units, 1, 1)
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("inputs", self.inputs), ("units", self.units)] {
            if value == 0 {
                return Err(Error::parameter(name, 0, "at least 1"));
            }
        }
        if checked_len(&[self.inputs, self.units]).is_none() {
            let expected = format!("at most {MAX_TENSOR_LEN} weights of {} inputs", self.inputs);
            return Err(Error::parameter("units", self.units, expected));
        }
        if self.scaling == InputScaling::LayerNorm && self.inputs == 1 {
            return Err(Error::parameter("inputs", 1, "at least 2, of which there is a standard deviation"));
        }
        let most = self.units;
        match self.activation {
            Activation::TopK { k } | Activation::AbsTopK { k } if !(1..=most).contains(&k) => {
                Err(Error::parameter("k", k, format!("a number from 1 to {most}, the units")))
            }
            Activation::GroupMax { k } if k == 0 || !most.is_multiple_of(k) => {
                Err(Error::parameter("k", k, format!("a divisor of {most}, the units: one of each of k groups")))
            }
            Activation::MatchingPursuit { max_iterations: 0, .. } => {
                Err(Error::parameter("max_iterations", 0, "at least 1"))
            }
            Activation::MatchingPursuit { residual_threshold, .. } if !residual_threshold.is_finite() => {
                Err(Error::parameter("residual_threshold", residual_threshold, "a finite length"))
            }
            _ => Ok(()),
        }
    }
}

/// Weights as they are read, row-major.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Weights {
    /// W_enc, `[d, m]`.
    pub encoder: Option<Vec<f32>>,
    /// b_enc, `[m]`; of a gated encoder b_gate.
    pub encoder_bias: Option<Vec<f32>>,
    /// `[m]`.
    pub threshold: Option<Vec<f32>>,
    /// r, `[m]`.
    pub magnitude: Option<Vec<f32>>,
    /// b_mag, `[m]`.
    pub magnitude_bias: Option<Vec<f32>>,
    /// W_dec, `[m, d]`.
    pub decoder: Vec<f32>,
    /// b, `[d]`.
    pub bias: Vec<f32>,
}

/// A sparse auto-encoder of others.
///
/// x = Γ·W_dec + b, Γ being what [`Activation`] makes of a signal. Gradients do not go through it. [`Autoencoder::decode`] gives signals
/// as the decoder sees them, after [`ForeignConfig::scaling`]; [`Autoencoder::reconstruct`] undoes that.
#[derive(Module, Debug)]
pub struct ForeignAutoencoder {
    /// The decoder as a dictionary of one layer, `[m, d, 1, 1]`: its rows are the atoms.
    pub layers: Vec<Dictionary>,
    /// What codes are made with.
    pub encoder: ForeignEncoder,
    #[module(skip)]
    config: ForeignConfig,
}

/// The weights of a [`ForeignAutoencoder`] beside its decoder's; those that its activation does not have are `None`.
#[derive(Module, Debug)]
pub struct ForeignEncoder {
    /// b, `[d]`, which the decoder adds.
    pub centre: Param<Tensor<1>>,
    /// W_enc, `[d, m]`.
    pub weight: Option<Param<Tensor<2>>>,
    /// b_enc, `[m]`; of a gated encoder b_gate.
    pub bias: Option<Param<Tensor<1>>>,
    /// `[m]`.
    pub threshold: Option<Param<Tensor<1>>>,
    /// r of a gated encoder, `[m]`.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// b_mag, `[m]`.
    pub magnitude_bias: Option<Param<Tensor<1>>>,
}

/// Reads an auto-encoder from a folder of one of the formats; a file of theirs stands for the folder that it lies in.
///
/// # Errors
/// A folder that holds none, or several; files that are truncated or malformed; an unknown architecture; settings that cannot be obeyed
/// or that are not known; tensors that are missing, of another shape or type, or not finite.
pub fn read(folder: &Path, device: &Device) -> Result<ForeignAutoencoder> {
    let folder = match folder.is_file() {
        true => crate::files::parent(folder),
        false => folder,
    };
    // What cannot be looked into is said as the system says it.
    let entries = std::fs::read_dir(folder).map_err(Error::read(folder))?;
    let holds = |name: &str| folder.join(name).is_file();
    let (config, weights) = if holds(saelens::WEIGHTS) {
        saelens::read(folder)?
    } else if holds(sparsify::WEIGHTS) {
        sparsify::read(folder)?
    } else if holds(gemma_scope::WEIGHTS) {
        gemma_scope::read(folder)?
    } else {
        let known = [saelens::WEIGHTS, sparsify::WEIGHTS, gemma_scope::WEIGHTS];
        let is_one = |path: &Path| known.iter().any(|name| path.join(name).is_file());
        let mut several: Vec<String> = entries
            .flatten()
            .filter(|entry| is_one(&entry.path()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        several.sort();
        let found = match several.len() {
            0 => format!("found none of {}", known.join(", ")),
            _ => format!("found folders of several: name one of {}", shortened(&several)),
        };
        return Err(Error::format(folder, format!("expected a sparse auto-encoder, {found}")));
    };
    ForeignAutoencoder::new(config, weights, device)
}

/// The first names of a list.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

impl ForeignAutoencoder {
    /// With weights of the shapes that the settings demand.
    ///
    /// # Errors
    /// As [`ForeignConfig::check`]; weights of other shapes.
    pub(crate) fn new(config: ForeignConfig, weights: Weights, device: &Device) -> Result<Self> {
        config.check()?;
        let (inputs, units) = (config.inputs, config.units);
        let wanted = [config.activation.has_encoder(), config.activation.has_encoder()];
        let gated = config.activation == Activation::Gated;
        let jumps = config.activation == Activation::JumpRelu;
        let parts = [
            ("encoder", weights.encoder.as_ref().map(Vec::len), wanted[0].then_some(inputs * units)),
            ("bias of the encoder", weights.encoder_bias.as_ref().map(Vec::len), wanted[1].then_some(units)),
            ("threshold", weights.threshold.as_ref().map(Vec::len), jumps.then_some(units)),
            ("magnitude", weights.magnitude.as_ref().map(Vec::len), gated.then_some(units)),
            ("bias of the magnitude", weights.magnitude_bias.as_ref().map(Vec::len), gated.then_some(units)),
            ("decoder", Some(weights.decoder.len()), Some(inputs * units)),
            ("bias", Some(weights.bias.len()), Some(inputs)),
        ];
        for (what, found, expected) in parts {
            if found != expected {
                let shown = |len: Option<usize>| len.map_or("none".to_owned(), |len| format!("{len} values"));
                return Err(Error::shape(format!("{what} of an auto-encoder"), shown(expected), shown(found)));
            }
        }
        let vector = |values: Vec<f32>| {
            let dims = [values.len()];
            Param::from_tensor(Tensor::<1>::from_data(TensorData::new(values, dims), device))
        };
        let filters = Tensor::from_data(TensorData::new(weights.decoder, [units, inputs, 1, 1]), device);
        let matrix = |values: Vec<f32>| {
            Param::from_tensor(Tensor::<2>::from_data(TensorData::new(values, [inputs, units]), device))
        };
        Ok(Self {
            layers: vec![Dictionary::from_filters(filters, &LayerShape::new(units, 1, 1))],
            encoder: ForeignEncoder {
                centre: vector(weights.bias),
                weight: weights.encoder.map(matrix),
                bias: weights.encoder_bias.map(vector),
                threshold: weights.threshold.map(vector),
                magnitude: weights.magnitude.map(vector),
                magnitude_bias: weights.magnitude_bias.map(vector),
            },
            config,
        })
    }

    /// The weights on the host.
    pub(crate) fn weights(&self) -> Weights {
        let vector = |values: &Option<Param<Tensor<1>>>| values.as_ref().map(|values| to_host(values.val()));
        let ForeignEncoder { centre, weight, bias, threshold, magnitude, magnitude_bias } = &self.encoder;
        Weights {
            encoder: weight.as_ref().map(|weight| to_host(weight.val())),
            encoder_bias: vector(bias),
            threshold: vector(threshold),
            magnitude: vector(magnitude),
            magnitude_bias: vector(magnitude_bias),
            decoder: to_host(self.decoder()),
            bias: to_host(centre.val()),
        }
    }

    /// What it is beside its weights.
    pub fn config(&self) -> &ForeignConfig {
        &self.config
    }

    /// W_dec, `[m, d]`.
    pub(crate) fn decoder(&self) -> Tensor<2> {
        self.layers[0].filters.val().reshape([self.config.units, self.config.inputs])
    }

    /// b, `[1, d]`.
    fn centre(&self) -> Tensor<2> {
        self.encoder.centre.val().unsqueeze()
    }

    /// Signals as the encoder sees them before b is taken off, with what undoes that: x = scale·z + offset, `[n, 1]` each.
    fn scaled(&self, signals: Tensor<2>) -> (Tensor<2>, Option<[Tensor<2>; 2]>) {
        let values = self.config.inputs as f32;
        match self.config.scaling {
            InputScaling::None => (signals, None),
            InputScaling::ConstantNorm => {
                let lengths = signals.clone().square().sum_dim(1).sqrt();
                let nothing = lengths.clone().equal_scalar(0.0);
                let scale = (lengths / values.sqrt()).mask_fill(nothing, 1.0);
                (signals / scale.clone(), Some([scale.clone(), scale.zeros_like()]))
            }
            InputScaling::LayerNorm => {
                let mean = signals.clone().mean_dim(1);
                let centred = signals - mean.clone();
                let deviation = (centred.clone().square().sum_dim(1) / (values - 1.0)).sqrt();
                // As SAELens does it: the constant is left out on the way back.
                (centred / (deviation.clone() + 1e-5), Some([deviation, mean]))
            }
        }
    }

    /// Codes of signals that were scaled.
    fn code_rows(&self, signals: Tensor<2>) -> Tensor<2> {
        let signals = if self.config.centred { signals - self.centre() } else { signals };
        let ForeignEncoder { weight, bias, threshold, magnitude, magnitude_bias, .. } = &self.encoder;
        let row = |values: &Option<Param<Tensor<1>>>| values.as_ref().map(|values| values.val().unsqueeze::<2>());
        let (Some(weight), Some(bias)) = (weight, row(bias)) else {
            return self.pursue(signals);
        };
        let linear = product(signals, weight.val());
        let gate = linear.clone() + bias;
        match (&self.config.activation, row(threshold), row(magnitude), row(magnitude_bias)) {
            (Activation::TopK { k }, ..) => activation::keep_largest(relu(gate), *k),
            (Activation::AbsTopK { k }, ..) => activation::keep_largest(gate, *k),
            (Activation::GroupMax { k }, ..) => activation::keep_largest_of_groups(relu(gate), *k),
            (Activation::JumpRelu, Some(threshold), ..) => {
                let low = gate.clone().lower_equal(threshold.expand(gate.dims()));
                relu(gate).mask_fill(low, 0.0)
            }
            (Activation::Gated, _, Some(magnitude), Some(bias)) => {
                let closed = gate.lower_equal_scalar(0.0);
                relu(linear * magnitude.exp() + bias).mask_fill(closed, 0.0)
            }
            // Nothing else is made by `new`.
            _ => relu(gate),
        }
    }

    /// Codes by matching pursuit.
    fn pursue(&self, signals: Tensor<2>) -> Tensor<2> {
        let Activation::MatchingPursuit { max_iterations, residual_threshold, stop_on_duplicate_support } =
            self.config.activation
        else {
            // Only that one has no encoder.
            return Tensor::zeros([signals.dims()[0], self.config.units], &signals.device());
        };
        MatchingPursuit { max_iterations, residual_threshold, stop_on_duplicate_support }.code(signals, self.decoder())
    }

    fn rows(&self, signals: Tensor<4>) -> Result<Tensor<2>> {
        check_batch("signals", self.signal(), &signals)?;
        Ok(signals.flatten(1, 3))
    }
}

impl Autoencoder for ForeignAutoencoder {
    fn signal(&self) -> SignalShape {
        self.config.signal()
    }

    fn code(&self) -> SignalShape {
        self.config.code()
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let (signals, _) = self.scaled(self.rows(signals)?);
        let codes = self.code_rows(signals);
        let count = codes.dims()[0];
        Ok(codes.reshape(self.code().batched(count)))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("codes", self.code(), &codes)?;
        let count = codes.dims()[0];
        let signals = product(codes.flatten::<2>(1, 3), self.decoder()) + self.centre();
        Ok(signals.reshape(self.signal().batched(count)))
    }

    fn atoms(&self) -> Tensor<4> {
        self.layers[0].filters.val()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        let (signals, undo) = self.scaled(self.rows(signals)?);
        let codes = self.code_rows(signals);
        let count = codes.dims()[0];
        let codes = codes.reshape(self.code().batched(count));
        let reconstruction = self.decode(codes.clone())?;
        let reconstruction = match undo {
            None => reconstruction,
            Some(undo) => {
                let [scale, offset] = undo.map(|values| values.reshape([count, 1, 1, 1]));
                reconstruction * scale + offset
            }
        };
        Ok(Coded { codes, reconstruction })
    }
}
