//! `mlcsc inspect`: what is in a model.

use super::DeviceArgs;
use super::coding;
use super::output::{self, Summary, grouped, number};
use crate::error::Result;
use crate::geometry::{LayerGeometry, SignalShape};
use crate::model::operator::Costs;
use crate::model::{Mlcsc, OperatorForm};
use crate::theory::{DictionaryProfile, ModelProfile, welch_bound};
use burn::tensor::Tensor;
use clap::Args;
use serde::Serialize;
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
        let values = filters.clone().into_data();
        let zeros = values.iter::<f32>().filter(|&value| value == 0.0).count();
        Self {
            kernel: geometry.kernel,
            stride: geometry.stride,
            sparsity: zeros as f64 / values.num_elements() as f64,
            min_norm: norms.clone().min().into_scalar(),
            max_norm: norms.max().into_scalar(),
            coherence: profile.map(DictionaryProfile::mutual),
            welch_bound: welch_bound(geometry),
        }
    }
}

impl InspectArgs {
    pub(super) fn run(&self) -> Result<()> {
        let (model, defaults) = Mlcsc::load(&self.model, &self.device.open()?)?;
        let config = model.config();
        let signal = self.input_shape.unwrap_or(config.signal);
        let operator = coding::operator(&model, signal, "--input-shape", OperatorForm::Auto)?;
        let geometry = operator.geometry();
        let layers = geometry.layers();
        let filters = model.filters();
        let profile = ModelProfile::new(&model, signal).ok();
        let (owns, effectives) = match &profile {
            Some(profile) => (profile.own.iter().map(Some).collect(), profile.effective.iter().map(Some).collect()),
            None => (vec![None; layers.len()], vec![None; layers.len()]),
        };
        let own: Vec<Filters> = filters
            .iter()
            .zip(layers)
            .zip(owns)
            .map(|((filters, layer), profile)| Filters::new(filters.clone(), layer, profile))
            .collect();
        let effective: Vec<Filters> = (1..=model.depth())
            .zip(effectives)
            .map(|(depth, profile)| Filters::new(model.effective_filters(depth), &geometry.windows(depth), profile))
            .collect();
        let parameters: usize = filters.iter().map(|filters| filters.dims().iter().product::<usize>()).sum();
        // The bound that first-order pursuits would step with.
        let bound = operator.squared_norm_bound();
        let costs = Costs::new(geometry);
        // Where positions share no sample, pursuits code each one's window.
        let window = geometry.window().map(|window| (geometry.code().height * geometry.code().width, window.signal()));

        if self.json {
            let layers: Vec<_> = layers
                .iter()
                .zip(own.iter().zip(&effective))
                .map(|(layer, (own, effective))| {
                    json!({
                        "atoms": layer.code.channels,
                        "padding": layer.padding,
                        "code": layer.code.to_string(),
                        "filters": own,
                        "effective": effective,
                    })
                })
                .collect();
            return output::print_json(&json!({
                "model": self.model.display().to_string(),
                "signal": signal.to_string(),
                "normalization": config.normalization,
                "parameters": parameters,
                "layers": layers,
                "squared_norm_bound": bound,
                "multiplications": costs,
                "application": operator.application(),
                "windows": window.map(|(count, signal)| json!({ "count": count, "signal": signal.to_string() })),
                "coding": defaults,
            }));
        }
        let pair = |[vertical, horizontal]: [usize; 2]| {
            if vertical == horizontal { vertical.to_string() } else { format!("{vertical}x{horizontal}") }
        };
        let cells = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<String>>();
        let mut shapes = vec![cells(&["layer", "atoms", "kernel", "stride", "padding", "code", "parameters", "zeros"])];
        let mut numbers = vec![cells(&["dictionary", "kernel", "stride", "norms", "coherence", "least possible"])];
        for (index, (layer, own)) in layers.iter().zip(&own).enumerate() {
            shapes.push(vec![
                (index + 1).to_string(),
                layer.code.channels.to_string(),
                pair(layer.kernel),
                pair(layer.stride),
                pair(layer.padding),
                layer.code.to_string(),
                grouped(layer.filter_dims().iter().product::<usize>() as u64),
                format!("{:.1}%", 100.0 * own.sparsity),
            ]);
        }
        let own = own.iter().enumerate().map(|(index, filters)| (format!("D_{}", index + 1), filters));
        let effective =
            effective.iter().enumerate().skip(1).map(|(index, filters)| (format!("D^({})", index + 1), filters));
        for (name, filters) in own.chain(effective) {
            let norms = [filters.min_norm, filters.max_norm].map(|norm| number(norm.into()));
            numbers.push(vec![
                name,
                pair(filters.kernel),
                pair(filters.stride),
                if norms[0] == norms[1] { norms[0].clone() } else { norms.join(" to ") },
                filters.coherence.map_or("not computed: too large".into(), number),
                number(filters.welch_bound),
            ]);
        }
        let mut ways = vec![cells(&["way", "multiplications"])];
        for way in [OperatorForm::Cascade, OperatorForm::Filters, OperatorForm::Matrix, OperatorForm::Gram] {
            let count = costs.of(way).map_or("not possible".into(), grouped);
            let chosen = if way == operator.application() { "← auto" } else { "" };
            ways.push(vec![way.to_string(), count, chosen.into()]);
        }
        let mut summary =
            Summary::new(format!("{}: {} on {signal}", self.model.display(), output::counted(model.depth(), "layer")));
        summary
            .row("parameters", grouped(parameters as u64))
            .row("normalisation", config.normalization)
            .row("λ", defaults.lambda.map_or("not stored".into(), |lambda| number(lambda.into())))
            .row("sign of γ_L", if defaults.nonnegative { "non-negative" } else { "both" })
            .row(format!("‖D^({})‖²", model.depth()), format!("at most {}", number(bound)));
        if let Some((count, signal)) = window {
            summary.row("positions", format!("share no sample: coded as {count} signals of {signal}"));
        }
        output::print(&format!(
            "{}\n\n{}\n\n{}\n\n{}\n  (of one pursuit iteration, for one signal)",
            summary.text(),
            output::table(&shapes),
            output::table(&numbers),
            output::table(&ways)
        ))
    }
}
