//! `mlcsc encode`: signals to codes.

use super::coding::{Coder, CodingArgs};
use super::data::InputArgs;
use super::output;
use crate::error::Result;
use crate::export::CodesWriter;
use crate::export::codes::CodesFormat;
use crate::files;
use clap::Args;
use std::path::PathBuf;

/// Code signals with a model and write γ_1 … γ_L
///
/// They are the pursuit's own: γ_{i−1} = D_i γ_i holds exactly but for layered-thresholding and layered-bp, which code layer by
/// layer. --noise and λ are in units of the signals after the model's normalisation.
#[derive(Debug, Args)]
pub(super) struct EncodeArgs {
    #[command(flatten)]
    input: InputArgs,
    /// File for the codes; .npz is compressed
    #[arg(long, value_name = "F.safetensors|F.npz")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coding: CodingArgs,
}

impl EncodeArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.coding.check()?;
        self.input.check()?;
        CodesFormat::of(&self.out, "--out")?;
        files::check_writable(&self.out)?;
        let (model, defaults) = self.input.load()?;
        let signals = self.input.signals()?;
        let settings = self.coding.settings(defaults, signals.len())?;
        let coder = Coder::new(model, signals.shape(), &signals.source(), settings)?;

        let layers = coder.operator().geometry().layers();
        let shapes: Vec<_> = layers.iter().map(|layer| layer.code).collect();
        let mut writer = CodesWriter::create(&self.out, signals.shape(), &shapes, signals.len())?;
        let coded = coder.run(&signals, |batch| writer.append(&batch.pursued.representations(coder.operator())))?;
        writer.finish(&coded.reports, &coder.describe(&signals.source()))?;

        if self.json {
            let mut document = coder.json(&coded, &self.input.device.name());
            document["out"] = self.out.display().to_string().into();
            return output::print_json(&document);
        }
        let mut summary = coder.summary(&coded, &signals, &self.input.device.name());
        let shapes = shapes.iter().enumerate().map(|(index, shape)| format!("γ_{} {shape}", index + 1));
        summary.row("codes", shapes.collect::<Vec<_>>().join(", "));
        summary.row("written", self.out.display());
        output::print(&summary.text())
    }
}
