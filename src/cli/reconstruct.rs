//! `mlcsc reconstruct`: signals, or their codes, to reconstructions.

use super::coding::{self, Coder, CodingArgs, PURSUIT_FLAGS};
use super::data::InputArgs;
use super::output::{Summary, counted, number};
use super::progress::Progress;
use super::{interrupt, output};
use crate::data::quality::Quality;
use crate::error::{Error, Result};
use crate::export::codes::CodesFormat;
use crate::export::{CodesReader, arrays, mosaic};
use crate::files;
use crate::model::Mlcsc;
use crate::model::file::CodingDefaults;
use crate::model::geometry::SignalShape;
use crate::model::normalization::Normalization;
use crate::model::sparse::to_host;
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Reconstruct signals from their codes, which are computed first or read from a file
///
/// With --data, the normalisation of the model is undone and the reconstructions are compared with the signals: PSNR is
/// 10·log₁₀(1 / mean squared error), at most 100 dB, mean over the signals (peak 1, as images have); the fraction of variance
/// unexplained is Σ‖y − x‖² / Σ‖y − ȳ‖² with ȳ the mean signal. With --codes, what is written is D^(L)γ_L as it stands.
#[derive(Debug, Args)]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Codes to start from instead of signals, as `mlcsc encode` writes them
    #[arg(
        long,
        value_name = "F.safetensors|F.npz",
        required_unless_present = "source",
        conflicts_with_all = ["source", "count", "patch", "patches", "grey", "data_seed", "split", "limit"],
        conflicts_with_all = PURSUIT_FLAGS,
    )]
    codes: Option<PathBuf>,
    /// Shape of the signals that --codes belong to. Default: what the codes say, else the model's
    #[arg(long, value_name = "CxHxW", conflicts_with = "source")]
    input_shape: Option<SignalShape>,
    /// Folder for PNG images, or a .npy file for one array
    #[arg(long, value_name = "DIR|F.npy")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coding: CodingArgs,
}

impl ReconstructArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.coding.check()?;
        match &self.codes {
            Some(codes) => drop(CodesFormat::of(codes, "--codes")?),
            None => self.input.check()?,
        }
        match is_array(&self.out) {
            true => files::check_writable(&self.out)?,
            false => files::check_writable_folder(&self.out)?,
        }
        let (model, defaults) = self.input.load()?;
        check_channels(&self.out, model.config().signal.channels)?;
        match &self.codes {
            Some(codes) => self.reconstruct_codes(&model, codes),
            None => self.reconstruct_signals(model, defaults),
        }
    }

    fn reconstruct_signals(&self, model: Mlcsc, defaults: CodingDefaults) -> Result<()> {
        let signals = self.input.signals()?;
        let settings = self.coding.settings(defaults, signals.len())?;
        let coder = Coder::new(model, signals.shape(), &signals.source(), settings)?;
        let mut quality = Quality::new(signals.shape().len());
        let coded = write_signals(&self.out, signals.shape(), signals.len(), |write| {
            coder.run(&signals, |batch| {
                let reconstructions = batch.undo.undo(coder.operator().synthesize(batch.pursued.codes));
                quality.add(&batch.signals, &reconstructions);
                write(reconstructions)
            })
        })?;
        if self.json {
            let mut document = coder.json(&coded, &self.input.device.name());
            document["psnr"] = json!(quality.psnr());
            document["variance_unexplained"] = json!(quality.variance_unexplained());
            document["out"] = self.out.display().to_string().into();
            return output::print_json(&document);
        }
        let mut summary = coder.summary(&coded, &signals, &self.input.device.name());
        let or_dash =
            |value: Option<f64>, unit: &str| value.map_or("–".into(), |value| format!("{}{unit}", number(value)));
        summary.row("PSNR", or_dash(quality.psnr(), " dB"));
        summary.row("variance unexplained", or_dash(quality.variance_unexplained(), ""));
        summary.row("written", describe_output(&self.out, signals.len()));
        output::print(&summary.text())
    }

    fn reconstruct_codes(&self, model: &Mlcsc, path: &Path) -> Result<()> {
        let codes = CodesReader::open(path, model.depth())?;
        let signal = self.input_shape.or(codes.signal()).unwrap_or(model.config().signal);
        let operator = coding::operator(model, signal, &path.display().to_string(), self.coding.solver.application)?;
        codes.check(operator.code())?;
        let batch = self.coding.solver.batch_size.unwrap_or_else(|| coding::default_batch(operator.geometry()));
        let progress = Progress::new("reconstructing", "signals", codes.len() as u64);
        interrupt::watch();
        write_signals(&self.out, signal, codes.len(), |write| {
            codes.for_each(batch, |values| {
                interrupt::check("not everything was written")?;
                let count = values.len() / operator.code().len();
                let data = TensorData::new(values, operator.code().batched(count));
                write(operator.synthesize(Tensor::from_data(data, &operator.device())))?;
                progress.advance(count as u64);
                Ok(())
            })
        })?;
        progress.finish();
        let normalization = model.config().normalization;
        if self.json {
            return output::print_json(&json!({
                "signals": codes.len(),
                "normalization_undone": normalization == Normalization::None,
                "application": operator.application(),
                "device": self.input.device.name(),
                "out": self.out.display().to_string(),
            }));
        }
        let mut summary =
            Summary::new(format!("reconstructed {} ({})", counted(codes.len(), "signal"), path.display()));
        summary.row("application", format!("{}, {}", operator.application(), self.input.device.name()));
        if normalization != Normalization::None {
            summary.row("normalisation", "not undone: what was taken from the signals is not in their codes");
        }
        summary.row("written", describe_output(&self.out, codes.len()));
        output::print(&summary.text())
    }
}

/// Whether signals go into one array.
fn is_array(out: &Path) -> bool {
    out.extension().is_some_and(|extension| extension == "npy")
}

/// Images have one channel or three.
fn check_channels(out: &Path, channels: usize) -> Result<()> {
    if is_array(out) || matches!(channels, 1 | 3) {
        return Ok(());
    }
    let expected = format!("a .npy file: signals of {} are no PNG images", output::counted(channels, "channel"));
    Err(Error::parameter("--out", out.display(), expected))
}

fn describe_output(out: &Path, count: usize) -> String {
    if is_array(out) {
        return out.display().to_string();
    }
    format!("{} in {}", counted(count, "image"), out.display())
}

/// Writes `count` signals as one array or as images 000000.png …, as `produce` hands them over.
fn write_signals<T>(
    out: &Path,
    shape: SignalShape,
    count: usize,
    produce: impl FnOnce(&mut dyn FnMut(Tensor<4>) -> Result<()>) -> Result<T>,
) -> Result<T> {
    if is_array(out) {
        let mut produced = None;
        arrays::write_npy_with(out, &shape.batched(count), |append| {
            produced = Some(produce(&mut |signals| append(&to_host(signals)))?);
            Ok(())
        })?;
        return produced.ok_or_else(|| Error::format(out, "nothing was written"));
    }
    files::create_folder(out)?;
    let mut index = 0;
    produce(&mut |signals| {
        for image in to_host(signals).chunks_exact(shape.len()) {
            mosaic::save_image(
                &out.join(format!("{index:06}.png")),
                [shape.channels, shape.height, shape.width],
                image,
            )?;
            index += 1;
        }
        Ok(())
    })
}
