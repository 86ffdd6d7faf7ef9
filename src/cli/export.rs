//! `mlcsc export`: a model as pictures and arrays.

use super::inputs::Inputs;
use super::output::Summary;
use super::{DeviceArgs, output};
use crate::error::Result;
use crate::export::export_model;
use crate::export::model::files_of;
use crate::files;
use crate::model::Mlcsc;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Write a model's filters and effective atoms as PNG, .npy and safetensors
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Model file, or the folder of a run
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    model: PathBuf,
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ExportArgs {
    pub(super) fn run(&self) -> Result<()> {
        output::check_folder_name(&self.out, "a folder, for several files")?;
        files::check_writable_folder(&self.out)?;
        let (model, _) = Mlcsc::load(&self.model, &self.device.open()?)?;
        Inputs::of_model(&self.model).refuse_in("--out", &self.out, files_of(model.depth()))?;
        let written = export_model(&model, &self.out)?;
        if self.json {
            let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
            return output::print_json(&json!({ "out": self.out.display().to_string(), "files": files }));
        }
        let mut summary = Summary::new(format!("exported {} to {}", self.model.display(), self.out.display()));
        for path in &written {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            summary.row(name, format!("{:>8} KiB", output::grouped(size.div_ceil(1024))));
        }
        output::print(&summary.text())
    }
}
