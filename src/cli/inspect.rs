//! `mlcsc inspect`: what is in a model.

use super::DeviceArgs;
use super::coding;
use super::output::{self, Summary, grouped, number};
use crate::error::Result;
use crate::foreign::ForeignConfig;
use crate::geometry::{LayerGeometry, SignalShape};
use crate::model::file::CodingDefaults;
use crate::model::normalization::Normalization;
use crate::model::operator::Costs;
use crate::model::{Mlcsc, Operator, OperatorForm};
use crate::names::IntoEnumIterator;
use crate::theory::{DictionaryProfile, ModelProfile, welch_bound};
use burn::tensor::Tensor;
use clap::Args;
use serde::{Serialize, Serializer};
use serde_json::json;
use std::path::PathBuf;

/// Show a model's geometry, its filters in numbers, and how it is applied
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Model file, or the folder of a run
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    model: PathBuf,
    /// Shape of the signals that the model is to be applied to. Default: the model's
    #[arg(long, value_name = "CxHxW")]
    input_shape: Option<SignalShape>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A dictionary in numbers.
#[derive(Serialize)]
struct Filters {
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Fraction of filter values that are zero.
    sparsity: f64,
    min_norm: f32,
    max_norm: f32,
    /// Mutual coherence of its columns, those that padding crops included; `None` where padding makes it too large to compute.
    coherence: Option<f64>,
    /// The least that its geometry permits.
    welch_bound: f64,
}

impl Filters {
    fn new(filters: Tensor<4>, geometry: &LayerGeometry, profile: Option<&DictionaryProfile>) -> Self {
        let norms = filters.clone().square().sum_dims(&[1, 2, 3]).sqrt();
        let values = crate::device::read(filters.clone());
        let zeros = values.iter::<f32>().filter(|&value| value == 0.0).count();
        Self {
            kernel: geometry.kernel,
            stride: geometry.stride,
            sparsity: zeros as f64 / values.num_elements() as f64,
            min_norm: crate::device::scalar(norms.clone().min()),
            max_norm: crate::device::scalar(norms.max()),
            coherence: profile.map(DictionaryProfile::mutual),
            welch_bound: welch_bound(geometry),
        }
    }
}

/// A layer in numbers.
#[derive(Serialize)]
struct Layer {
    atoms: usize,
    padding: [usize; 2],
    #[serde(serialize_with = "as_text")]
    code: SignalShape,
    filters: Filters,
    effective: Filters,
    #[serde(skip)]
    parameters: usize,
}

/// Windows that share no sample: pursuits code each position's.
#[derive(Serialize)]
struct Windows {
    count: usize,
    #[serde(serialize_with = "as_text")]
    signal: SignalShape,
}

/// What there is to say of a model.
#[derive(Serialize)]
struct Inspection {
    model: String,
    #[serde(serialize_with = "as_text")]
    signal: SignalShape,
    normalization: Normalization,
    /// Of a model of recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_rate: Option<u32>,
    parameters: usize,
    layers: Vec<Layer>,
    /// The bound that first-order pursuits would step with.
    squared_norm_bound: f64,
    multiplications: Costs,
    application: OperatorForm,
    windows: Option<Windows>,
    coding: CodingDefaults,
    /// Of an imported auto-encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    autoencoder: Option<ForeignConfig>,
}

fn as_text<S: Serializer>(value: &SignalShape, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Inspection {
    fn new(name: String, model: &Mlcsc, coding: CodingDefaults, operator: &Operator) -> Self {
        let (geometry, signal) = (operator.geometry(), operator.signal());
        let profile = ModelProfile::new(model, signal).ok();
        let layers: Vec<Layer> = geometry
            .layers()
            .iter()
            .zip(model.filters())
            .enumerate()
            .map(|(index, (layer, filters))| {
                let own = profile.as_ref().map(|profile| &profile.own[index]);
                let of_effective = profile.as_ref().map(|profile| &profile.effective[index]);
                let effective = model.effective_filters(index + 1);
                Layer {
                    atoms: layer.code.channels,
                    padding: layer.padding,
                    code: layer.code,
                    parameters: filters.dims().iter().product(),
                    filters: Filters::new(filters, layer, own),
                    effective: Filters::new(effective, &geometry.windows(index + 1), of_effective),
                }
            })
            .collect();
        Self {
            model: name,
            signal,
            normalization: model.config().normalization,
            sampling_rate: model.config().sampling_rate,
            parameters: layers.iter().map(|layer| layer.parameters).sum(),
            layers,
            squared_norm_bound: operator.squared_norm_bound(),
            multiplications: Costs::new(geometry),
            application: operator.application(),
            windows: geometry.window().map(|window| Windows {
                count: geometry.code().height * geometry.code().width,
                signal: window.signal(),
            }),
            coding,
            autoencoder: None,
        }
    }

    fn text(&self) -> String {
        format!(
            "{}\n\n{}\n\n{}\n\n{}\n  (of one pursuit iteration, for one signal)",
            self.summary().text(),
            output::table(&self.shapes()),
            output::table(&self.dictionaries()),
            output::table(&self.ways())
        )
    }

    fn summary(&self) -> Summary {
        let depth = self.layers.len();
        let mut summary =
            Summary::new(format!("{}: {} on {}", self.model, output::counted(depth, "layer"), self.signal));
        summary
            .row("parameters", grouped(self.parameters as u64))
            .row("normalisation", self.normalization)
            .row("λ", self.coding.lambda.map_or("not stored".into(), |lambda| number(lambda.into())))
            .row("sign of γ_L", if self.coding.nonnegative { "non-negative" } else { "both" })
            .row(format!("‖D^({depth})‖²"), format!("at most {}", number(self.squared_norm_bound)));
        if let Some(rate) = self.sampling_rate {
            summary.row("sampling rate", format!("{rate} Hz"));
        }
        if let Some(encoder) = &self.autoencoder {
            summary.row("encoder", format!("{} of {}", encoder.activation, encoder.format));
        }
        if let Some(Windows { count, signal }) = &self.windows {
            summary.row("positions", format!("share no sample: coded as {count} signals of {signal}"));
        }
        summary
    }

    fn shapes(&self) -> Vec<Vec<String>> {
        let mut rows = vec![cells(&["layer", "atoms", "kernel", "stride", "padding", "code", "parameters", "zeros"])];
        rows.extend(self.layers.iter().enumerate().map(|(index, layer)| {
            vec![
                (index + 1).to_string(),
                layer.atoms.to_string(),
                pair(layer.filters.kernel),
                pair(layer.filters.stride),
                pair(layer.padding),
                layer.code.to_string(),
                grouped(layer.parameters as u64),
                format!("{:.1}%", 100.0 * layer.filters.sparsity),
            ]
        }));
        rows
    }

    /// D_1 … D_L, then D^(2) … D^(L).
    fn dictionaries(&self) -> Vec<Vec<String>> {
        let layers = || self.layers.iter().enumerate();
        let own = layers().map(|(index, layer)| (format!("D_{}", index + 1), &layer.filters));
        let effective = layers().skip(1).map(|(index, layer)| (format!("D^({})", index + 1), &layer.effective));
        let mut rows = vec![cells(&["dictionary", "kernel", "stride", "norms", "coherence", "least possible"])];
        rows.extend(own.chain(effective).map(|(name, filters)| {
            let norms = [filters.min_norm, filters.max_norm].map(|norm| number(norm.into()));
            vec![
                name,
                pair(filters.kernel),
                pair(filters.stride),
                if norms[0] == norms[1] { norms[0].clone() } else { norms.join(" to ") },
                filters.coherence.map_or("not computed: too large".into(), number),
                number(filters.welch_bound),
            ]
        }));
        rows
    }

    fn ways(&self) -> Vec<Vec<String>> {
        let mut rows = vec![cells(&["way", "multiplications"])];
        rows.extend(OperatorForm::iter().filter(|way| *way != OperatorForm::Auto).map(|way| {
            let count = self.multiplications.of(way).map_or("not possible".into(), grouped);
            let chosen = if way == self.application { "← auto" } else { "" };
            vec![way.to_string(), count, chosen.into()]
        }));
        rows
    }
}

fn pair([vertical, horizontal]: [usize; 2]) -> String {
    if vertical == horizontal { vertical.to_string() } else { format!("{vertical}x{horizontal}") }
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

impl InspectArgs {
    pub(super) fn run(&self) -> Result<()> {
        let device = self.device.open()?;
        let (model, defaults) = Mlcsc::load(&self.model, &device)?;
        let signal = self.input_shape.unwrap_or(model.config().signal);
        let operator = coding::operator(&model, signal, "--input-shape", OperatorForm::Auto)?;
        let mut inspection = Inspection::new(self.model.display().to_string(), &model, defaults, &operator);
        let imported = super::foreign::open(&self.model, &device)?;
        inspection.autoencoder = imported.map(|network| network.config().clone());
        match self.json {
            true => output::print_json(&json!(inspection)),
            false => output::print(&inspection.text()),
        }
    }
}
