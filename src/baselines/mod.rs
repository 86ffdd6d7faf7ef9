//! What the model is compared with: auto-encoders of others, as small burn modules, and the floors below which nothing should fall.
//!
//! Every one implements [`Autoencoder`], so that it is measured and classified with by the same code as the model, and [`Trainable`],
//! so that it is trained by the same loop.
//!
//! | name | what | source |
//! |---|---|---|
//! | `sae` | penalty on codes: ℓ1 norm or Kullback–Leibler divergence | [`sae`] |
//! | `k-sparse` | the k largest of a linear code | [`k_sparse`] |
//! | `top-k` | the k largest, with a loss that revives dead units | [`top_k`] |
//! | `fc-wta` | every unit wins for a few signals of a batch | [`fc_wta`] |
//! | `stacked-wta` | two layers of that, the second on the codes of the first; in files `fc-wta` with two `layers` | [`fc_wta`] |
//! | `conv-wta` | every map wins in one place, for a few signals | [`conv_wta`] |
//! | `sdae` | layers that undo noise, one after the other | [`sdae`] |
//!
//! Floors: [`pca`], and [`one_layer`], dictionary learning with one layer, which the model's own training does.

pub mod conv_wta;
pub mod fc_wta;
pub mod k_sparse;
mod layers;
pub mod pca;
pub mod sae;
pub mod sdae;
pub mod top_k;

pub use conv_wta::{ConvolutionalWinnerTakeAll, ConvolutionalWinnerTakeAllConfig};
pub use fc_wta::{WinnerTakeAll, WinnerTakeAllConfig, WinnerTakeAllLayerConfig};
pub use k_sparse::{KSparse, KSparseConfig};
pub use layers::TiedLayer;
pub use pca::{PrincipalComponents, PrincipalComponentsConfig};
pub use sae::{PenalizedAutoencoder, PenalizedAutoencoderConfig, Penalty};
pub use sdae::{StackedDenoising, StackedDenoisingConfig};
pub use top_k::{TopK, TopKConfig};

use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch};
use crate::data::Source;
use crate::error::{Error, Result};
use crate::files;
use crate::geometry::{LayerShape, MAX_TENSOR_LEN, Pair, SignalShape, checked_len};
use crate::json;
use crate::kernels::sparse::to_host;
use crate::model::file::{fill_module, module_bytes};
use crate::model::normalization::{ChannelStatistics, Normalization};
use crate::model::{Mlcsc, ModelConfig, leaf};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most units of a layer (2²⁰).
pub const MAX_UNITS: usize = 1 << 20;

/// A rival with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub enum RivalConfig {
    /// Penalty on codes.
    Sae(PenalizedAutoencoderConfig),
    /// k largest.
    KSparse(KSparseConfig),
    /// k largest, dead units revived.
    TopK(TopKConfig),
    /// Winners over a batch, in one layer or several.
    FcWta(WinnerTakeAllConfig),
    /// Winners over places and a batch.
    ConvWta(ConvolutionalWinnerTakeAllConfig),
    /// Layers that undo noise.
    Sdae(StackedDenoisingConfig),
}

impl RivalConfig {
    /// Every rival's name.
    pub const NAMES: [&str; 7] = ["sae", "k-sparse", "top-k", "fc-wta", "stacked-wta", "conv-wta", "sdae"];

    /// The rival of that name with its defaults.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "sae" => Self::Sae(PenalizedAutoencoderConfig::default()),
            "k-sparse" => Self::KSparse(KSparseConfig::default()),
            "top-k" => Self::TopK(TopKConfig::default()),
            "fc-wta" => Self::FcWta(WinnerTakeAllConfig::default()),
            "stacked-wta" => Self::FcWta(WinnerTakeAllConfig::stacked()),
            "conv-wta" => Self::ConvWta(ConvolutionalWinnerTakeAllConfig::default()),
            "sdae" => Self::Sdae(StackedDenoisingConfig::default()),
            _ => {
                let expected = format!("one of {}", Self::NAMES.join(", "));
                return Err(Error::parameter("model", format!("{name:?}"), expected));
            }
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sae(_) => "sae",
            Self::KSparse(_) => "k-sparse",
            Self::TopK(_) => "top-k",
            Self::FcWta(config) if config.layers.len() > 1 => "stacked-wta",
            Self::FcWta(_) => "fc-wta",
            Self::ConvWta(_) => "conv-wta",
            Self::Sdae(_) => "sdae",
        }
    }

    /// Units, and how many values of a code are kept; `None` for rivals that do not count them.
    pub fn kept(&self) -> Option<[usize; 2]> {
        match self {
            Self::KSparse(config) => Some([config.units, config.k]),
            Self::TopK(config) => Some([config.units, config.k]),
            _ => None,
        }
    }

    /// With so many values kept of every code.
    ///
    /// # Errors
    /// A rival that does not count them; none, or more than there are units.
    pub fn with_kept(mut self, kept: usize) -> Result<Self> {
        let Some([units, _]) = self.kept() else {
            let expected = format!("none for {}: top-k and k-sparse keep so many values of a code", self.name());
            return Err(Error::parameter("nonzeros", kept, expected));
        };
        if !(1..=units).contains(&kept) {
            return Err(Error::parameter("nonzeros", kept, format!("from 1 to {units}, the units")));
        }
        match &mut self {
            Self::KSparse(config) => {
                config.k = kept;
                config.initial_k = config.initial_k.max(kept);
            }
            Self::TopK(config) => config.k = kept,
            _ => {}
        }
        Ok(self)
    }

    /// With so many units in every layer; values that are kept of a code are no more than that.
    #[must_use]
    pub fn with_units(mut self, units: usize) -> Self {
        match &mut self {
            Self::Sae(config) => config.units = units,
            Self::KSparse(config) => {
                config.units = units;
                config.k = config.k.min(units);
                config.initial_k = config.initial_k.min(units);
            }
            Self::TopK(config) => {
                config.units = units;
                config.k = config.k.min(units);
            }
            Self::FcWta(config) => config.layers.iter_mut().for_each(|layer| layer.units = units),
            Self::ConvWta(config) => config.units = units,
            Self::Sdae(config) => config.units.fill(units),
        }
        self
    }

    /// Whether it has several layers that learn one after the other.
    pub fn takes_turns(&self) -> bool {
        match self {
            Self::FcWta(config) => config.layers.len() > 1,
            Self::Sdae(config) => config.units.len() > 1,
            _ => false,
        }
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check_ranges(&self) -> Result<()> {
        match self {
            Self::Sae(config) => config.check(),
            Self::KSparse(config) => config.check(),
            Self::TopK(config) => config.check(),
            Self::FcWta(config) => config.check(),
            Self::ConvWta(config) => config.check(),
            Self::Sdae(config) => config.check(),
        }
    }

    /// Checks all ranges, and whether signals of that shape can be taken.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self, signal: SignalShape) -> Result<()> {
        self.check_ranges()?;
        let [inputs, units] = self.largest_weights(signal);
        match checked_len(&[inputs, units]).filter(|&len| len <= MAX_TENSOR_LEN) {
            Some(_) => Ok(()),
            None => {
                Err(Error::parameter("units", units, format!("at most {MAX_TENSOR_LEN} weights of {inputs} inputs")))
            }
        }
    }

    /// Rows and columns of the largest weights.
    fn largest_weights(&self, signal: SignalShape) -> [usize; 2] {
        match self {
            Self::Sae(config) => [signal.len(), config.units],
            Self::KSparse(config) => [signal.len(), config.units],
            Self::TopK(config) => [signal.len(), config.units],
            Self::FcWta(config) => largest_of_chain(signal, &config.units()),
            Self::ConvWta(config) => {
                [config.units.saturating_mul(config.kernel).saturating_mul(config.kernel), config.units]
            }
            Self::Sdae(config) => largest_of_chain(signal, &config.units),
        }
    }

    /// The rival with random weights that follow from the seed alone.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, signal: SignalShape, seed: u64, device: &Device) -> Result<Rival> {
        self.check(signal)?;
        Ok(match self {
            Self::Sae(config) => Rival::Sae(config.init(signal, seed, device)?),
            Self::KSparse(config) => Rival::KSparse(config.init(signal, seed, device)?),
            Self::TopK(config) => Rival::TopK(config.init(signal, seed, device)?),
            Self::FcWta(config) => Rival::FcWta(config.init(signal, seed, device)?),
            Self::ConvWta(config) => Rival::ConvWta(config.init(signal, seed, device)?),
            Self::Sdae(config) => Rival::Sdae(config.init(signal, seed, device)?),
        })
    }
}

/// Rows and columns of the largest weights of layers that lie on each other.
fn largest_of_chain(signal: SignalShape, units: &[usize]) -> [usize; 2] {
    let layers = layers::chain(signal.len(), units);
    layers.max_by_key(|[inputs, units]| inputs.saturating_mul(*units)).unwrap_or([1, 1])
}

/// One of the rivals.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Rival {
    /// Penalty on codes.
    Sae(PenalizedAutoencoder),
    /// k largest.
    KSparse(KSparse),
    /// k largest, dead units revived.
    TopK(TopK),
    /// Winners over a batch.
    FcWta(WinnerTakeAll),
    /// Winners over places and a batch.
    ConvWta(ConvolutionalWinnerTakeAll),
    /// Layers that undo noise.
    Sdae(StackedDenoising),
}

/// Does the same with whichever rival it is.
macro_rules! each {
    ($rival:expr, $network:ident => $body:expr) => {
        match $rival {
            Rival::Sae($network) => $body,
            Rival::KSparse($network) => $body,
            Rival::TopK($network) => $body,
            Rival::FcWta($network) => $body,
            Rival::ConvWta($network) => $body,
            Rival::Sdae($network) => $body,
        }
    };
}

impl Autoencoder for Rival {
    fn signal(&self) -> SignalShape {
        each!(self, network => network.signal())
    }

    fn code(&self) -> SignalShape {
        each!(self, network => network.code())
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        each!(self, network => network.encode(signals))
    }

    fn layers(&self) -> Vec<SignalShape> {
        each!(self, network => network.layers())
    }

    fn representations(&self, signals: Tensor<4>) -> Result<Vec<Tensor<4>>> {
        each!(self, network => network.representations(signals))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        each!(self, network => network.decode(codes))
    }

    fn atoms(&self) -> Tensor<4> {
        each!(self, network => network.atoms())
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        each!(self, network => network.ready())
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        each!(self, network => network.reconstruct(signals))
    }
}

impl Rival {
    /// With biases that start in the middle of the signals (L. Gao et al., 2024: the geometric median), where there are biases that
    /// stand for it; units are as active as they would be on signals around zero.
    ///
    /// # Errors
    /// Signals of another shape, or that cannot be read.
    pub fn centred(self, source: &dyn Source) -> Result<Self> {
        let shape = self.signal();
        if source.shape() != shape {
            return Err(Error::shape(format!("signals of {}", source.describe()), shape, source.shape()));
        }
        if matches!(self, Self::Sdae(_)) || source.is_empty() {
            return Ok(self);
        }
        let signals = layers::sample(source)?;
        let middle = match self {
            Self::ConvWta(_) => layers::channel_medians(&signals, shape),
            _ => layers::geometric_median(&signals, shape.len()),
        };
        Ok(match self {
            Self::Sae(network) => Self::Sae(network.centred(&middle)),
            Self::KSparse(network) => Self::KSparse(network.centred(&middle)),
            Self::TopK(network) => Self::TopK(network.centred(&middle)),
            Self::FcWta(network) => Self::FcWta(network.centred(&middle)),
            Self::ConvWta(network) => Self::ConvWta(network.centred(&middle)),
            Self::Sdae(network) => Self::Sdae(network),
        })
    }
}

impl Rival {
    /// The decoder as a dictionary for pursuits: atoms of unit norm over the values of a signal, d×1×1, whose bias is taken off as a mean;
    /// and whether its codes are never negative. `None` for those whose codes are no sums of units' atoms alone, or are never zero.
    ///
    /// # Errors
    /// None that its own shapes can cause.
    pub fn dictionary(&self) -> Result<Option<(Mlcsc, bool)>> {
        let (decoder, bias, nonnegative) = match self {
            Self::TopK(network) => (network.decoder.val(), network.bias.val(), true),
            Self::KSparse(network) => (network.weight.val(), network.decoder_bias.val(), false),
            Self::Sae(network) if self.mortal_units() > 0 => match &network.decoder.bias {
                Some(bias) => (network.decoder.weight.val(), bias.val(), true),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let [units, values] = decoder.dims();
        let norms = decoder.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
        let config = ModelConfig {
            normalization: Normalization::Mean,
            statistics: Some(ChannelStatistics::of_mean(to_host(bias))),
            ..ModelConfig::new(SignalShape::new(values, 1, 1), vec![LayerShape::new(units, 1, 1)])
        };
        let atoms = leaf((decoder / norms).reshape([units, values, 1, 1]));
        Ok(Some((Mlcsc::from_filters(config, vec![atoms])?, nonnegative)))
    }
}

impl Trainable for Rival {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        each!(self, network => network.training(batch))
    }

    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        each!(self, network => network.validation(batch))
    }

    fn mortal_units(&self) -> usize {
        each!(self, network => network.mortal_units())
    }

    fn used_units(&self, batch: &TrainingBatch, outcome: &Outcome) -> Result<Tensor<1>> {
        each!(self, network => network.used_units(batch, outcome))
    }

    fn reseeded(self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        Ok(match self {
            Self::Sae(network) => Self::Sae(network.reseeded(units, batch)?),
            Self::KSparse(network) => Self::KSparse(network.reseeded(units, batch)?),
            Self::TopK(network) => Self::TopK(network.reseeded(units, batch)?),
            Self::FcWta(network) => Self::FcWta(network.reseeded(units, batch)?),
            Self::ConvWta(network) => Self::ConvWta(network.reseeded(units, batch)?),
            Self::Sdae(network) => Self::Sdae(network.reseeded(units, batch)?),
        })
    }

    fn take_over(&self, copies: &[Self]) {
        // The others keep nothing between steps.
        if let Self::TopK(network) = self {
            let of_kind = |copy: &Self| if let Self::TopK(copy) = copy { Some(copy.clone()) } else { None };
            network.take_over(&copies.iter().filter_map(of_kind).collect::<Vec<_>>());
        }
    }

    fn is_admissible(&self, progress: f32) -> bool {
        each!(self, network => network.is_admissible(progress))
    }

    fn constrained(self, step: usize, steps: usize) -> Self {
        match self {
            Self::Sae(network) => Self::Sae(network.constrained(step, steps)),
            Self::KSparse(network) => Self::KSparse(network.constrained(step, steps)),
            Self::TopK(network) => Self::TopK(network.constrained(step, steps)),
            Self::FcWta(network) => Self::FcWta(network.constrained(step, steps)),
            Self::ConvWta(network) => Self::ConvWta(network.constrained(step, steps)),
            Self::Sdae(network) => Self::Sdae(network.constrained(step, steps)),
        }
    }
}

/// Key of a rival file's metadata.
const METADATA_KEY: &str = "mlcsc-rival";

/// The version that this code writes and reads.
const FORMAT_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format_version: u32,
    signal: SignalShape,
    rival: RivalConfig,
}

impl Rival {
    /// Writes weights and settings as one safetensors file, whole or not at all.
    ///
    /// # Errors
    /// A path that cannot be written, a full disk.
    pub fn save(&self, config: &RivalConfig, path: &Path) -> Result<()> {
        let metadata = Metadata { format_version: FORMAT_VERSION, signal: self.signal(), rival: config.clone() };
        let metadata = serde_json::to_string(&metadata).map_err(|error| Error::format(path, error.to_string()))?;
        files::write_bytes(path, &each!(self, network => module_bytes(network, METADATA_KEY, metadata))?)
    }

    /// Reads what [`Self::save`] has written.
    ///
    /// # Errors
    /// A file that cannot be read, is none of ours, whose settings are out of range or do not fit its weights, or whose weights are
    /// not finite.
    pub fn load(path: &Path, device: &Device) -> Result<(Self, RivalConfig)> {
        let bytes = files::read_whole(path)?;
        let broken = |reason: String| Error::format(path, format!("expected a rival (safetensors), found {reason}"));
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| broken(format!("a broken header: {error}")))?;
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let metadata = metadata.ok_or_else(|| broken("a safetensors file without a rival's metadata".into()))?;
        let metadata: Metadata = json::parse(metadata.as_bytes())
            .map_err(|error| broken(format!("metadata that cannot be read: {error}")))?;
        if metadata.format_version != FORMAT_VERSION {
            let version = metadata.format_version;
            return Err(broken(format!("format version {version}; this program reads {FORMAT_VERSION}")));
        }
        let SignalShape { channels, height, width } = metadata.signal;
        if checked_len(&[channels, height, width]).is_none() {
            return Err(broken(format!("signals of {channels}x{height}x{width}")));
        }
        metadata.rival.check_ranges().map_err(|error| broken(error.to_string()))?;
        // Settings that the file's own length does not bear out would make a large network for nothing.
        let [rows, columns] = metadata.rival.largest_weights(metadata.signal);
        if checked_len(&[rows, columns]).is_none_or(|len| len > bytes.len()) {
            return Err(broken(format!("settings of {rows}x{columns} weights in a file of {} bytes", bytes.len())));
        }
        let mut rival = metadata.rival.init(metadata.signal, 0, device).map_err(|error| broken(error.to_string()))?;
        each!(&mut rival, network => fill_module(network, path, bytes))?;
        Ok((rival, metadata.rival))
    }
}

/// Whether a file says of itself that it is a rival's.
///
/// # Errors
/// A file that cannot be read or is no safetensors file.
pub fn is_rival(path: &Path) -> Result<bool> {
    let bytes = files::read_whole(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| Error::format(path, format!("expected a safetensors file, found a broken header: {error}")))?;
    Ok(header.metadata().as_ref().is_some_and(|metadata| metadata.contains_key(METADATA_KEY)))
}

/// Dictionary learning with one layer, whose atoms are as large as the signals: a floor for what depth and convolution add. It is
/// trained as every model is.
///
/// # Errors
/// No atoms, or too many.
pub fn one_layer(signal: SignalShape, atoms: usize) -> Result<ModelConfig> {
    if !(1..=MAX_UNITS).contains(&atoms) {
        return Err(Error::parameter("units", atoms, format!("a number from 1 to {MAX_UNITS}")));
    }
    let kernel = Pair([signal.height, signal.width]);
    Ok(ModelConfig::new(signal, vec![LayerShape::new(atoms, kernel, 1)]))
}
