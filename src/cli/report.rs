//! `mlcsc report`: pages about runs.

use super::page::origin_of_run;
use super::{DeviceArgs, output};
#[cfg(feature = "train")]
use crate::baselines::Rival;
use crate::data;
use crate::error::{Error, Result};
use crate::export::report::{self, REPORT};
use crate::learn::RunFolder;
#[cfg(feature = "train")]
use crate::learn::rivals;
use crate::learn::run::read_config;
use crate::model::Mlcsc;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write a page about a run, or about several side by side
///
/// report.html is one file that needs nothing from elsewhere: what was asked, curves, atoms of every layer, held-out signals beside their
/// reconstructions, how often atoms fire, where the time went. `train` writes it at every epoch's end, of a
/// rival at the run's end.
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

impl ReportArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let (path, missing) = match &self.runs[..] {
            [folder] => self.one(folder)?,
            folders => {
                let path = self.out.clone().unwrap_or_else(|| REPORT.into());
                report::compare(folders, &path)?;
                (path, None)
            }
        };
        if let Some(missing) = &missing {
            output::complain(&format!("warning: {missing}"));
        }
        match self.json {
            true => output::print_json(&{
                let runs: Vec<String> = self.runs.iter().map(|run| output::shown(run)).collect();
                json!({ "report": output::shown(&path), "runs": runs, "warning": missing })
            }),
            false => output::print(&format!("report: {}", path.display())),
        }
    }

    fn check(&self) -> Result<()> {
        for folder in &self.runs {
            if !RunFolder::new(folder.as_path()).holds_run() {
                let expected = "the folder of a run, as train --out makes it";
                return Err(Error::parameter("RUN", folder.display(), expected));
            }
        }
        if self.out.as_ref().is_some_and(|path| path.extension().is_none_or(|end| end != "html")) {
            let path = self.out.clone().unwrap_or_default();
            return Err(Error::parameter("--out", path.display(), "a file that ends with .html"));
        }
        self.runs.iter().try_for_each(|folder| report::check(folder))
    }

    /// The page about one run, and what is missing on it. A page without signals is better than none.
    fn one(&self, folder: &Path) -> Result<(PathBuf, Option<String>)> {
        let path = self.out.clone().unwrap_or_else(|| folder.join(REPORT));
        let missing = |error: &Error| format!("no held-out signals on the page: {error}");
        let device = self.device.open()?;
        #[cfg(feature = "train")]
        if rivals::is_rival(folder) {
            let config = rivals::read_config(folder)?;
            let (rival, _) = Rival::load(&RunFolder::new(folder).model(), &device)?;
            let data = data::open(&config.data);
            let origin = origin_of_run(folder, config.seed, config.data.seed, self.device.name());
            let held_out = data.as_ref().ok().map(|data| (&*data.test, &device));
            report::write_rival(&path, folder, &rival, held_out, &origin)?;
            return Ok((path, data.as_ref().err().map(missing)));
        }
        let config = read_config(folder)?;
        let (model, coding) = Mlcsc::load(&RunFolder::new(folder).model(), &device)?;
        let data = data::open(&config.data);
        let origin = origin_of_run(folder, config.learning.seed, config.data.seed, self.device.name());
        report::write(&path, folder, &model, &coding, data.as_ref().ok().map(|data| &*data.test), &origin)?;
        Ok((path, data.as_ref().err().map(missing)))
    }
}
