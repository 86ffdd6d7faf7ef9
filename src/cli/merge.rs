//! `mlcsc merge`: parts of results to the whole.

use super::inputs::Inputs;
use super::output::{self, Summary, counted};
use crate::error::Result;
use crate::export::codes::{self, CodesFormat, Merged};
use crate::files;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Join the parts that `mlcsc encode --shard` wrote
///
/// The file is to the last bit the one that a single process writes. All parts have to be there, in any order, and have to come of the
/// same model, signals and settings.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// All parts of a set of codes
    #[arg(value_name = "PART", required = true, num_args = 1..)]
    parts: Vec<PathBuf>,
    /// File for the whole, of the parts' format
    #[arg(long, value_name = "F.safetensors|F.npz")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl MergeArgs {
    pub(super) fn run(&self) -> Result<()> {
        CodesFormat::of(&self.out, "--out")?;
        files::check_writable(&self.out)?;
        let inputs = self.parts.iter().fold(Inputs::default(), |inputs, path| inputs.and("merge", path.as_path()));
        inputs.refuse("--out", &self.out)?;
        let Merged { parts, signals } = codes::merge(&self.parts, &self.out)?;
        if self.json {
            return output::print_json(&json!({ "parts": parts, "signals": signals, "out": self.out }));
        }
        let mut summary = Summary::new(format!("joined {}", counted(parts, "part")));
        summary.row("signals", output::grouped(signals as u64)).row("written", self.out.display());
        output::print(&summary.text())
    }
}
