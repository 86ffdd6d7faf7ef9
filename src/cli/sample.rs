//! `mlcsc sample`: signals drawn from a model, with their representations.

use super::coding;
use super::inputs::Inputs;
use super::output::{Summary, counted, number};
use super::progress::Progress;
use super::{DeviceArgs, flags, interrupt, output};
use crate::data::layout;
use crate::error::{Error, Result};
use crate::export::{CodesWriter, arrays, codes, mosaic};
use crate::files;
use crate::geometry::{MAX_TENSOR_LEN, SignalShape, checked_len};
use crate::kernels::sparse::{nonzeros, to_host};
use crate::model::normalization::Undo;
use crate::model::sample::{SampleConfig, Samples, add_noise, generator, sparsity_conditions};
use crate::model::{Mlcsc, Operator, OperatorForm};
use crate::pursuit::{SignalReport, StopReason};
use burn::tensor::Tensor;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Draw signals from a model, with all their representations
///
/// γ_L gets random places, magnitudes from 1 to 2 and the signs that the model has, random ones where it has both; γ_{i−1} = D_i γ_i and
/// x = D_1 γ_1 follow, and what comes out
/// keeps every limit given. Where no such signal is found, what was tried is said (single atoms, or random supports, as if no entries
/// ever cancelled) and nothing is written. Everything is in units of the signals after the model's normalisation.
#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// Model file, or the folder of a run
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    model: PathBuf,
    /// Number of signals
    #[arg(long, value_name = "N")]
    count: usize,
    /// Non-zeros of γ_L. Default: until its fullest stripe holds --stripe-limit
    #[arg(long, value_name = "K")]
    nonzeros: Option<usize>,
    /// Most non-zeros in a stripe of γ_L, or of every layer
    #[arg(long, value_name = "K|N1,…,NL", value_delimiter = ',')]
    stripe_limit: Option<Vec<usize>>,
    /// Length ‖v‖₂ ≥ 0 of Gaussian noise that is added. Default: none
    #[arg(long, value_name = "E")]
    noise: Option<f32>,
    /// Draw positive non-zeros only. Default: as the model was trained
    #[arg(long, conflicts_with = "signed")]
    nonnegative: bool,
    /// Draw non-zeros of both signs
    #[arg(long)]
    signed: bool,
    /// Shape of the signals. Default: the model's
    #[arg(long, value_name = "CxHxW")]
    input_shape: Option<SignalShape>,
    /// Seed of everything that is drawn
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Folder for signals.npy, codes.safetensors, PNG images and, with --noise, clean.npy; those of an earlier draw do not stay
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl SampleArgs {
    fn check(&self) -> Result<()> {
        if self.count == 0 {
            return Err(Error::parameter("--count", 0, "at least 1"));
        }
        if self.nonzeros.is_none() && self.stripe_limit.is_none() {
            return Err(Error::missing(
                "--nonzeros",
                "a number of non-zeros, or the most in a stripe by --stripe-limit",
            ));
        }
        if let Some(noise) = self.noise.filter(|noise| !(noise.is_finite() && *noise >= 0.0)) {
            return Err(Error::parameter("--noise", noise, "a finite length ≥ 0"));
        }
        output::check_folder_name(&self.out, "a folder, for several files")?;
        files::check_writable_folder(&self.out)
    }

    /// Limits of all layers; one number is the deepest layer's, the others being free.
    fn limits(&self, operator: &Operator) -> Option<Vec<usize>> {
        let given = self.stripe_limit.clone()?;
        let layers = operator.geometry().layers();
        Some(match given[..] {
            [deepest] if layers.len() > 1 => {
                let shallower = layers[..layers.len() - 1].iter().map(|layer| layer.code.len());
                shallower.chain([deepest]).collect()
            }
            _ => given,
        })
    }

    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let (model, coding) = Mlcsc::load(&self.model, &self.device.open()?)?;
        let nonnegative = !self.signed && (self.nonnegative || coding.nonnegative);
        let signal = self.input_shape.unwrap_or(model.config().signal);
        let operator = coding::operator(&model, signal, "--input-shape", OperatorForm::Cascade)?;
        let layers = operator.geometry().layers();
        let largest = layers.iter().map(|layer| layer.code.len().max(layer.signal.len())).max().unwrap_or(1);
        if checked_len(&[self.count, largest]).is_none() {
            let expected = format!("at most {} for signals and codes of this size", MAX_TENSOR_LEN / largest);
            return Err(Error::parameter("--count", self.count, expected));
        }
        let inputs = Inputs::of_model(&self.model);
        inputs.refuse_in("--out", &self.out, ["signals.npy", "clean.npy", "codes.safetensors"])?;
        inputs.refuse_in("--out", &self.out, (0..self.count).map(|place| mosaic::numbered(place, "png")))?;
        let limits = self.limits(&operator);
        let config =
            SampleConfig { nonzeros: self.nonzeros, limits: limits.clone(), nonnegative, ..SampleConfig::new(1) };
        let mut rng = generator(self.seed);
        interrupt::watch();
        let progress = Progress::new("drawing", "signals", self.count as u64);
        let go_on = || {
            progress.advance(1);
            interrupt::check("nothing was written")
        };
        let drawn = config.init(&operator).and_then(|sampler| sampler.sample_while(self.count, &mut rng, go_on));
        let samples = drawn.map_err(flags::named::<Self>)?;
        progress.finish();
        let noise = self.noise.unwrap_or(0.0);
        let noisy = match self.noise {
            Some(noise) => add_noise(samples.signals.clone(), noise, &mut rng),
            None => samples.signals.clone(),
        };
        let (images, clipped) = self.write(&model, &operator, &samples, &noisy, noise)?;
        let conditions = limits.as_ref().filter(|_| self.stripe_limit.as_ref().is_some_and(|given| given.len() > 1));
        let conditions =
            conditions.map_or(Ok(Vec::new()), |limits| sparsity_conditions(&model, operator.geometry(), limits))?;
        let nonzeros: Vec<f64> = samples.representations.iter().map(mean_nonzeros).collect();
        let most: Vec<usize> =
            samples.stripe_norms.iter().map(|norms| norms.iter().copied().max().unwrap_or(0)).collect();
        if self.json {
            return output::print_json(&json!({
                "signals": self.count,
                "signal": signal.to_string(),
                "seed": self.seed,
                "noise": noise,
                "nonnegative": nonnegative,
                "limits": self.stripe_limit,
                "mean_nonzeros": nonzeros,
                "stripe_norms": most,
                "sparsity_conditions": conditions,
                "out": self.out.display().to_string(),
                "images": images,
                "clipped": clipped,
                "values": images * operator.signal().len(),
            }));
        }
        let list = |values: &[f64]| values.iter().map(|&value| number(value)).collect::<Vec<_>>().join(", ");
        let mut summary = Summary::new(format!("drew {} of {signal}", counted(self.count, "signal")));
        let depth = operator.geometry().depth();
        let layers = if depth > 1 { format!("γ_1 … γ_{depth}") } else { "γ_1".into() };
        summary.row("non-zeros", format!("mean {} in {layers}", list(&nonzeros)));
        summary.row(format!("sign of γ_{depth}"), if nonnegative { "non-negative" } else { "both" });
        let most: Vec<f64> = most.iter().map(|&norm| norm as f64).collect();
        summary.row("stripe norms", format!("at most {}", list(&most)));
        for condition in &conditions {
            summary.row(
                format!("‖D_{}‖₀", condition.layer),
                format!(
                    "{}, {} {} = λ_{}/(λ_{} c_{})",
                    condition.atom_nonzeros,
                    if condition.holds() { "every sparse code will do: at most" } else { "more than" },
                    number(condition.limit),
                    condition.layer - 1,
                    condition.layer,
                    condition.layer
                ),
            );
        }
        summary.row("noise", if noise > 0.0 { format!("‖v‖ = {}", number(noise.into())) } else { "none".into() });
        let images = if images > 0 { format!(", {}", counted(images, "image")) } else { String::new() };
        let clean = if self.noise.is_some() { ", clean.npy" } else { "" };
        summary.row("written", format!("{}: signals.npy{clean}, codes.safetensors{images}", self.out.display()));
        if let Some(told) = output::clipped(clipped, self.count * signal.len()) {
            summary.row("clipped", told);
        }
        output::print(&summary.text())
    }

    /// Writes everything, and says how many images there are and how many of their values had to be clipped.
    fn write(
        &self,
        model: &Mlcsc,
        operator: &Operator,
        samples: &Samples,
        noisy: &Tensor<4>,
        noise: f32,
    ) -> Result<(usize, usize)> {
        let signal = operator.signal();
        files::create_folder(&self.out)?;
        let codes_path = self.out.join("codes.safetensors");
        // That of other signals would be taken for these signals' own.
        let earlier = codes::settings(&codes_path).is_some_and(|settings| settings["sample"]["noise"].is_number());
        if earlier && self.noise.is_none() {
            let _ = std::fs::remove_file(self.out.join("clean.npy"));
        }
        let (dims, _) = layout::axes(None, signal, self.count, true);
        let values = to_host(noisy.clone());
        arrays::write_npy(&self.out.join("signals.npy"), &dims, &values)?;
        if self.noise.is_some() {
            arrays::write_npy(&self.out.join("clean.npy"), &dims, &to_host(samples.signals.clone()))?;
        }
        let shapes: Vec<SignalShape> = operator.geometry().layers().iter().map(|layer| layer.code).collect();
        let mut writer = CodesWriter::create(&codes_path, shapes.len())?;
        writer.begin("", signal, &shapes, self.count)?;
        let deepest = to_host(samples.representations[shapes.len() - 1].clone());
        let reports: Vec<SignalReport> =
            deepest.chunks_exact(operator.code().len()).map(|code| planted(code, noise)).collect();
        // What was drawn never was normalised.
        writer.append(&samples.representations, &reports, &Undo::nothing())?;
        writer.finish(&self.describe(model))?;
        let (mut pictures, mut clipped) = (Vec::new(), 0);
        if !matches!(signal.channels, 1 | 3) || signal.is_single_position() {
            mosaic::remove_earlier(&self.out, &pictures, true)?;
            return Ok((0, 0));
        }
        for (index, image) in values.chunks_exact(signal.len()).enumerate() {
            if interrupt::interrupted() {
                let left = format!("all signals and {index} of {} were written", counted(self.count, "image"));
                return Err(Error::Interrupted(left));
            }
            let path = self.out.join(mosaic::numbered(index, "png"));
            clipped += mosaic::save_image(&path, [signal.channels, signal.height, signal.width], image, false)?;
            pictures.push(path);
        }
        mosaic::remove_earlier(&self.out, &pictures, true)?;
        Ok((pictures.len(), clipped))
    }

    /// What the codes were drawn with.
    fn describe(&self, model: &Mlcsc) -> Value {
        json!({
            "format_version": 1,
            "model": model.config(),
            codes::FILTERS: codes::digest_of_filters(model),
            "signals": "signals.npy",
            "sample": {
                "nonzeros": self.nonzeros,
                "limits": self.stripe_limit,
                "noise": self.noise,
                "nonnegative": self.nonnegative,
                "seed": self.seed,
            },
        })
    }
}

/// The report of a code that was not found but planted.
fn planted(code: &[f32], noise: f32) -> SignalReport {
    let data_term = 0.5 * noise * noise;
    SignalReport {
        lambda: 0.0,
        iterations: 0,
        objective: data_term,
        relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
        data_term,
        nonzeros: nonzeros(code).count(),
        stop: StopReason::Direct,
        finished_by: None,
    }
}

fn mean_nonzeros(codes: &Tensor<4>) -> f64 {
    nonzeros(&to_host(codes.clone())).count() as f64 / codes.dims()[0].max(1) as f64
}
