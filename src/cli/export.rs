//! `mlcsc export`: a model as pictures and arrays.

use super::inputs::Inputs;
use super::output::Summary;
use super::{DeviceArgs, flags, foreign, output};
use crate::autoencoder::Autoencoder;
use crate::baselines::{Rival, is_rival};
use crate::error::{Error, Result};
use crate::export::export_model;
use crate::export::model::files_of;
use crate::export::saelens::{self, PursuitSettings};
use crate::files;
use crate::foreign::Activation;
use crate::model::Mlcsc;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Write a model's filters and effective atoms as PNG, .npy and safetensors, or a model for SAELens
///
/// With --format saelens a folder that SAELens loads (SAE.load_from_disk): dictionaries of vectors as matching_pursuit, by their effective
/// atoms with unit norm and the mean of their normalisation; imported auto-encoders, top-k and sae (with an ℓ1 penalty) as what they are.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Model file, or the folder of a run
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    model: PathBuf,
    /// What is written
    #[arg(long, value_name = "NAME", default_value = "arrays", value_parser = flags::names::<ExportFormat>())]
    format: ExportFormat,
    /// Most atoms that a dictionary's matching pursuit picks there (max_iterations). Default: the non-zeros of the greedy pursuit that the
    /// model was learned with, else 32, or as many as a signal has values
    #[arg(long, value_name = "N")]
    picks: Option<usize>,
    /// Length ≥ 0 of the residual at which it stops (residual_threshold). Default: 0
    #[arg(long, value_name = "E")]
    residual: Option<f32>,
    /// Add every atom's negative, because SAELens's matching pursuit finds no negative codes
    #[arg(long)]
    both_signs: bool,
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum ExportFormat {
    /// Pictures and arrays.
    Arrays,
    /// What SAELens loads.
    Saelens,
}

impl ExportArgs {
    /// The files of SAELens.
    fn saelens(&self) -> Result<()> {
        let device = self.device.open()?;
        let is_dictionary = !is_rival(&self.model)?;
        let imported = foreign::open(&self.model, &device)?;
        let is_pursued = is_dictionary && imported.is_none();
        if let (Some(picks), false) = (self.picks, is_pursued) {
            return Err(Error::parameter("--picks", picks, "none for an auto-encoder with an encoder of its own"));
        }
        if let (Some(residual), false) = (self.residual, is_pursued) {
            return Err(Error::parameter(
                "--residual",
                residual,
                "none for an auto-encoder with an encoder of its own",
            ));
        }
        if self.both_signs && !is_pursued {
            let expected = "no such flag for an auto-encoder with an encoder of its own";
            return Err(Error::parameter("--both-signs", "given", expected));
        }
        let named = |error: Error| match error {
            Error::Parameter { parameter, value, expected } if parameter == "model" => {
                Error::parameter("--model", format!("{} ({value})", self.model.display()), expected)
            }
            Error::Parameter { parameter, value, expected } if parameter == "normalization" => {
                let what = format!("normalization of {}", self.model.display());
                Error::shape(format!("{what} for SAELens"), expected, value)
            }
            other => flags::named::<Self>(other),
        };
        let mut warning: Option<String> = None;
        let network = match imported {
            Some(network) => network,
            None if is_dictionary => {
                let (model, coding) = Mlcsc::load(&self.model, &device)?;
                if !coding.nonnegative && !self.both_signs {
                    warning = Some(
                        "the model's codes have both signs, SAELens's matching pursuit finds positive ones alone: --both-signs adds every \
                         atom's negative"
                            .into(),
                    );
                }
                let residual = self.residual.unwrap_or(0.0);
                let settings = PursuitSettings { picks: self.picks, residual, both_signs: self.both_signs };
                saelens::of_model(&model, &coding, &settings).map_err(named)?
            }
            None => {
                let (rival, config) = Rival::load(&self.model, &device)?;
                let signal = rival.signal();
                if signal.channels > 1 && !signal.is_single_position() {
                    let len = signal.len();
                    warning = Some(format!(
                        "SAELens knows vectors alone: those of {signal} signals are {len} values, channel after channel, each row by row"
                    ));
                }
                saelens::of_rival(&rival, &config).map_err(named)?
            }
        };
        Inputs::of_model(&self.model).refuse_in("--out", &self.out, saelens::FILES)?;
        let written = saelens::write(&network, &self.out).map_err(named)?;
        let picks = match network.config().activation {
            Activation::MatchingPursuit { max_iterations, .. } => Some(max_iterations),
            _ => None,
        };
        if let Some(warning) = &warning {
            output::complain(&format!("warning: {warning}"));
        }
        self.report(&written, picks, warning.as_deref())
    }

    pub(super) fn run(&self) -> Result<()> {
        output::check_folder_name(&self.out, "a folder, for several files")?;
        files::check_writable_folder(&self.out)?;
        if self.format == ExportFormat::Saelens {
            return self.saelens();
        }
        if let Some(picks) = self.picks {
            return Err(Error::parameter("--picks", picks, "--format saelens beside it"));
        }
        if let Some(residual) = self.residual {
            return Err(Error::parameter("--residual", residual, "--format saelens beside it"));
        }
        if self.both_signs {
            return Err(Error::parameter("--both-signs", "given", "--format saelens beside it"));
        }
        let (model, _) = Mlcsc::load(&self.model, &self.device.open()?)?;
        Inputs::of_model(&self.model).refuse_in("--out", &self.out, files_of(model.depth()))?;
        self.report(&export_model(&model, &self.out)?, None, None)
    }

    /// Says what was written, and how many atoms a matching pursuit is to pick.
    fn report(&self, written: &[PathBuf], picks: Option<usize>, warning: Option<&str>) -> Result<()> {
        if self.json {
            let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
            let mut document = json!({ "out": self.out.display().to_string(), "files": files });
            if let Some(picks) = picks {
                document["picks"] = json!(picks);
            }
            if warning.is_some() {
                document["warning"] = json!(warning);
            }
            return output::print_json(&document);
        }
        let mut summary = Summary::new(format!("exported {} to {}", self.model.display(), self.out.display()));
        for path in written {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            summary.row(name, format!("{:>8} KiB", output::grouped(size.div_ceil(1024))));
        }
        if let Some(picks) = picks {
            let how = if self.picks.is_some() { "" } else { "; --picks sets it" };
            summary.row("picks", format!("at most {} a signal{how}", output::counted(picks, "atom")));
        }
        output::print(&summary.text())
    }
}
