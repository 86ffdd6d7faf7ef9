//! `mlcsc import`: a model from dictionaries that were learned elsewhere.

use super::data::{pair, pair_or_zero};
use super::inputs::Inputs;
use super::output::{Summary, counted, grouped, number};
use super::{DeviceArgs, flags, output};
use crate::data::npy::Array;
use crate::data::read_array;
use crate::error::{Error, Result};
use crate::files;
use crate::foreign::{self, InputScaling};
use crate::geometry::{LayerShape, Pair, SignalShape};
use crate::kernels::sparse::{energy, to_host};
use crate::model::file::CodingDefaults;
use crate::model::normalization::Normalization;
use crate::model::{Mlcsc, ModelConfig, OperatorForm};
use crate::names::IntoEnumIterator;
use crate::pursuit::Lambda;
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Make a model of dictionaries that were learned elsewhere, or of a sparse auto-encoder; filters are kept as they are
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Filters of D_1 … D_L, [atoms, channels, height, width] each; [atoms, height, width] of one channel, [atoms, values] of vectors. Files
    /// .npy, or .npz and .safetensors with a single array
    #[arg(long, value_name = "W.npy", required_unless_present = "sae", num_args = 1..)]
    filters: Vec<PathBuf>,
    /// Folder of a sparse auto-encoder of others in place of filters: of SAELens (cfg.json, sae_weights.safetensors), sparsify (cfg.json,
    /// sae.safetensors) or Gemma Scope (params.npz). It keeps its encoder
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["filters", "strides", "paddings", "input_shape", "normalization", "lambda", "nonnegative"]
    )]
    sae: Option<PathBuf>,
    /// Stride of each layer, as 2,1,1 or 2x1,1,1. Default: 1
    #[arg(long, value_name = "S,…", value_delimiter = ',', value_parser = pair)]
    strides: Vec<Pair>,
    /// Zero padding of each layer. Default: 0
    #[arg(long, value_name = "P,…", value_delimiter = ',', value_parser = pair_or_zero)]
    paddings: Vec<Pair>,
    /// Shape of the signals. Default where the first filters are a matrix [atoms, values]: vectors, VALUESx1x1
    #[arg(long, value_name = "CxHxW")]
    input_shape: Option<SignalShape>,
    /// What is done to signals before they are coded: center takes their mean off, contrast divides by the standard deviation too,
    /// high-pass takes a smooth component off every channel
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = normalizations())]
    normalization: Normalization,
    /// λ that later coding takes unless told otherwise. Default: 0.1 of each signal's λ_max
    #[arg(long, value_name = "X")]
    lambda: Option<f32>,
    /// Later coding keeps γ_L ≥ 0 unless told otherwise
    #[arg(long)]
    nonnegative: bool,
    /// Model file, whose name ends in .safetensors
    #[arg(long, value_name = "M.safetensors")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Parses the name of a normalisation that is not fitted to training signals, of which there are none here.
fn normalizations() -> impl TypedValueParser<Value = Normalization> {
    let names = Normalization::iter().filter(|kind| !kind.is_fitted()).map(<&'static str>::from);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Normalization>())
}

impl ImportArgs {
    pub(super) fn run(&self) -> Result<()> {
        if let Some(folder) = &self.sae {
            return self.import(folder);
        }
        if let Some(lambda) = self.lambda {
            Lambda::Absolute(lambda).check().map_err(flags::named::<Self>)?;
        }
        let strides = per_layer("--strides", &self.strides, self.filters.len(), 1)?;
        let paddings = per_layer("--paddings", &self.paddings, self.filters.len(), 0)?;
        files::check_writable(&self.out)?;
        let inputs =
            self.filters.iter().fold(Inputs::default(), |inputs, path| inputs.and("--filters", path.as_path()));
        self.check_out(&inputs)?;
        let arrays = self.filters.iter().map(|path| read_array(path)).collect::<Result<Vec<_>>>()?;
        let input_shape = self.signal(&arrays)?;
        let device = self.device.open()?;
        let (mut layers, mut filters, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        let mut channels = input_shape.channels;
        for (((path, array), stride), padding) in self.filters.iter().zip(arrays).zip(strides).zip(paddings) {
            let [atoms, below, height, width] = match array.shape[..] {
                [atoms, below, height, width] => [atoms, below, height, width],
                // Of one channel, and of vectors, as other programs have them.
                [atoms, height, width] if channels == 1 => [atoms, 1, height, width],
                [atoms, values] => [atoms, values, 1, 1],
                _ => {
                    let expected = "[atoms, channels, height, width], [atoms, height, width] for signals of one channel, or [atoms, values] for signals that are vectors";
                    let found = format!("{:?}", array.shape);
                    return Err(Error::shape(format!("filters of {}", path.display()), expected, found));
                }
            };
            if below != channels {
                // SPAMS has atoms as columns, SPORCO and Keras have them last.
                let way = if array.shape.len() == 2 && atoms == channels {
                    "; the first axis has as many: transpose them"
                } else {
                    ""
                };
                let expected = format!("{}, as many as its input has{way}", output::counted(channels, "channel"));
                return Err(Error::shape(format!("filters of {}", path.display()), expected, below));
            }
            if let Some(value) = array.values.iter().find(|value| !value.is_finite()) {
                return Err(Error::format(path, format!("expected finite values, found {value}")));
            }
            let zeros = array.values.chunks_exact((below * height * width).max(1));
            let zeros = zeros.filter(|atom| atom.iter().all(|value| *value == 0.0)).count();
            if zeros == atoms && atoms > 0 {
                return Err(Error::format(path, "expected atoms that are not zero, found zeros only"));
            }
            if zeros > 0 {
                let warning = format!(
                    "{}: {zeros} of {} without values, which stay unused",
                    path.display(),
                    counted(atoms, "atom")
                );
                output::complain(&format!("warning: {warning}"));
                warnings.push(warning);
            }
            channels = atoms;
            layers.push(LayerShape::new(atoms, Pair([height, width]), stride).with_padding(padding));
            filters.push(Tensor::from_data(TensorData::new(array.values, [atoms, below, height, width]), &device));
        }
        let config = ModelConfig { normalization: self.normalization, ..ModelConfig::new(input_shape, layers) };
        let model = Mlcsc::from_filters(config, filters).map_err(name_layer)?;
        let operator = model.operator(input_shape, OperatorForm::Auto).map_err(name_layer)?;
        if let Err(error) = operator.check_size() {
            let warning = format!("{error}; most pursuits refuse it");
            output::complain(&format!("warning: {warning}"));
            warnings.push(warning);
        }
        model.save(&self.out, CodingDefaults { lambda: self.lambda, nonnegative: self.nonnegative, nonzeros: None })?;

        let geometry = model.config().geometry()?;
        let parameters: usize =
            geometry.layers().iter().map(|layer| layer.filter_dims().iter().product::<usize>()).sum();
        if self.json {
            let codes: Vec<String> = geometry.layers().iter().map(|layer| layer.code.to_string()).collect();
            return output::print_json(&json!({
                "out": self.out.display().to_string(),
                "signal": input_shape.to_string(),
                "codes": codes,
                "parameters": parameters,
                "warnings": warnings,
            }));
        }
        let mut summary = Summary::new(format!("imported a model of {}", output::counted(model.depth(), "layer")));
        summary.row("signal", input_shape);
        for (index, layer) in geometry.layers().iter().enumerate() {
            summary.row(format!("γ_{}", index + 1), layer.code);
        }
        summary.row("parameters", grouped(parameters as u64)).row("written", self.out.display());
        output::print(&summary.text())
    }
}

impl ImportArgs {
    /// The shape of the signals: what was said, or vectors where the first filters are a matrix.
    fn signal(&self, filters: &[Array]) -> Result<SignalShape> {
        match (self.input_shape, filters.first().map(|array| &array.shape[..])) {
            (Some(shape), _) => Ok(shape),
            (None, Some(&[_, values])) => Ok(SignalShape::new(values, 1, 1)),
            _ => Err(Error::missing("--input-shape", "the shape of the signals, as 1x28x28")),
        }
    }

    /// Refuses an output that is read, and one whose name says that it is something else than a model.
    fn check_out(&self, inputs: &Inputs) -> Result<()> {
        inputs.refuse("--out", &self.out)?;
        if self.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors")) {
            return Ok(());
        }
        Err(Error::parameter("--out", self.out.display(), "a file name that ends in .safetensors, for a model"))
    }

    /// A sparse auto-encoder of others.
    fn import(&self, folder: &Path) -> Result<()> {
        files::check_writable(&self.out)?;
        let read = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let inputs = read.fold(Inputs::default(), |inputs, path| inputs.and("--sae", path.as_path()));
        self.check_out(&inputs.and("--sae", folder))?;
        let found = foreign::read(folder, &self.device.open()?)?;
        found.save(&self.out)?;
        let config = found.config();
        let decoder = to_host(found.decoder());
        let norms: Vec<f32> = decoder.chunks_exact(config.inputs).map(|row| energy(row).sqrt() as f32).collect();
        let [least, most] = [f32::min, f32::max].map(|choose| norms.iter().copied().reduce(choose).unwrap_or(1.0));
        let unused = norms.iter().filter(|norm| **norm == 0.0).count();
        if self.json {
            return output::print_json(&json!({
                "out": self.out.display().to_string(),
                "signal": config.signal().to_string(),
                "codes": [config.code().to_string()],
                "autoencoder": config,
                "decoder_norms": [least, most],
                "zero_atoms": unused,
            }));
        }
        let mut summary = Summary::new(format!("imported a sparse auto-encoder of {}", config.format));
        summary.row("signal", config.signal()).row("γ_1", config.code()).row("encoder", &config.activation);
        summary.row("takes its bias off", if config.centred { "yes" } else { "no" });
        if config.scaling != InputScaling::None {
            summary.row("scales signals", config.scaling);
        }
        if let Some(network) = &config.network {
            summary.row("network", network);
        }
        if let Some(hook) = &config.hook {
            summary.row("place", hook);
        }
        let zeros = if unused > 0 { format!("; {} without values", counted(unused, "atom")) } else { String::new() };
        summary.row("norms of atoms", format!("{} to {}{zeros}", number(least.into()), number(most.into())));
        summary.row("written", self.out.display());
        output::print(&summary.text())
    }
}

/// Names a field of a layer as the flag that it came by.
fn name_layer(error: Error) -> Error {
    let Error::Parameter { parameter, value, expected } = error else { return error };
    let parameter = match parameter.split_once(" of layer ") {
        Some(("padding", layer)) => format!("--paddings of layer {layer}"),
        Some(("stride", layer)) => format!("--strides of layer {layer}"),
        Some((field, layer)) => format!("{field} of layer {layer} (--filters)"),
        None => parameter,
    };
    Error::Parameter { parameter, value, expected }
}

/// One value for each layer: the given ones, or the default for all.
fn per_layer(flag: &str, given: &[Pair], layers: usize, default: usize) -> Result<Vec<Pair>> {
    if given.is_empty() {
        return Ok(vec![default.into(); layers]);
    }
    if given.len() != layers {
        let expected = format!("{layers}, one for each file of --filters");
        return Err(Error::parameter(flag, output::counted(given.len(), "value"), expected));
    }
    Ok(given.to_vec())
}
