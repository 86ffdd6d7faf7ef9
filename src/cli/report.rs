//! `mlcsc report`: pages about runs.

use super::{DeviceArgs, output};
use crate::data;
use crate::error::{Error, Result};
use crate::export::report::{self, REPORT};
use crate::learn::run::{MODEL, holds_run, read_config};
use crate::model::Mlcsc;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Write a page about a run, or about several side by side
///
/// report.html is one file that needs nothing from elsewhere: what was asked, curves, atoms of every layer, held-out signals beside their
/// reconstructions, how often atoms fire, where the time went. `train` writes it at every epoch's end.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page. Default: report.html in the run's folder; of several runs, in the working folder
    #[arg(long, value_name = "F.html")]
    out: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[cfg(feature = "train")]
use crate::learn::rivals::is_rival;

#[cfg(not(feature = "train"))]
fn is_rival(_: &std::path::Path) -> bool {
    false
}

impl ReportArgs {
    pub(super) fn run(&self) -> Result<()> {
        for folder in &self.runs {
            if !holds_run(folder) {
                let expected = "the folder of a run, as train --out makes it";
                return Err(Error::parameter("RUN", folder.display(), expected));
            }
        }
        if self.out.as_ref().is_some_and(|path| path.extension().is_none_or(|end| end != "html")) {
            let path = self.out.clone().unwrap_or_default();
            return Err(Error::parameter("--out", path.display(), "a file that ends with .html"));
        }
        let mut missing = None;
        let path = match &self.runs[..] {
            // Of a rival there are curves, and no atoms of layers.
            [folder] if is_rival(folder) => {
                let path = self.out.clone().unwrap_or_else(|| folder.join(REPORT));
                report::compare(&self.runs, &path)?;
                path
            }
            [folder] => {
                let path = self.out.clone().unwrap_or_else(|| folder.join(REPORT));
                let device = self.device.open()?;
                let config = read_config(folder)?;
                let (model, coding) = Mlcsc::load(&folder.join(MODEL), &device)?;
                // A page without signals is better than none.
                let data = data::open(&config.data);
                missing = data.as_ref().err().map(|error| format!("no held-out signals on the page: {error}"));
                let held_out = data.as_ref().ok().map(|data| &*data.test);
                report::write(&path, folder, &model, &coding, held_out, &self.device.name())?;
                path
            }
            folders => {
                let path = self.out.clone().unwrap_or_else(|| REPORT.into());
                report::compare(folders, &path)?;
                path
            }
        };
        if let Some(missing) = &missing {
            output::complain(&format!("warning: {missing}"));
        }
        match self.json {
            true => output::print_json(&json!({ "report": path, "runs": self.runs, "warning": missing })),
            false => output::print(&format!("report: {}", path.display())),
        }
    }
}
