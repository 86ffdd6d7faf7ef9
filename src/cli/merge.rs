//! `mlcsc merge`: parts of results to the whole.

use super::diagnosis_parts;
use super::inputs::Inputs;
use super::output::{self, Summary, counted};
use crate::error::{Error, Result};
use crate::export::codes::{self, CodesFormat, Merged};
use crate::files;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Join the parts that `mlcsc encode --shard` and `mlcsc diagnose --shard` wrote
///
/// Results are to the last bit those of a single process. All parts have to be there, in any order, and have to come of the same models,
/// signals and settings. Parts of a diagnosis are JSON, as `mlcsc diagnose --json` prints it and --out holds it.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// All parts of a set of codes (.safetensors, .npz) or of a diagnosis (.json)
    #[arg(value_name = "PART", required = true, num_args = 1..)]
    parts: Vec<PathBuf>,
    /// File for the whole, of the parts' format; of a diagnosis it may be left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl MergeArgs {
    pub(super) fn run(&self) -> Result<()> {
        let inputs = self.parts.iter().fold(Inputs::default(), |inputs, path| inputs.and("merge", path.as_path()));
        let is_document = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let diagnosis = self.parts.iter().all(is_document);
        if let Some(out) = &self.out {
            match diagnosis {
                true if !is_document(out) => {
                    return Err(Error::parameter(
                        "--out",
                        out.display(),
                        "a file name that ends in .json, as the parts'",
                    ));
                }
                true => (),
                false => drop(CodesFormat::of(out, "--out")?),
            }
            files::check_writable(out)?;
            inputs.refuse("--out", out)?;
        }
        if diagnosis {
            return self.join_diagnosis();
        }
        let out = self.out.as_ref().ok_or_else(|| Error::missing("--out", "a file for the codes"))?;
        let Merged { parts, signals } = codes::merge(&self.parts, out)?;
        if self.json {
            return output::print_json(&json!({ "parts": parts, "signals": signals, "out": output::shown(out) }));
        }
        let mut summary = Summary::new(format!("joined {}", counted(parts, "part")));
        summary.row("signals", output::grouped(signals as u64)).row("written", out.display());
        output::print(&summary.text())
    }

    fn join_diagnosis(&self) -> Result<()> {
        let mut joined = diagnosis_parts::join(&self.parts)?;
        // As `diagnose` writes it.
        output::shortened(&mut joined.document);
        if let Some(out) = &self.out {
            files::write_bytes(out, format!("{:#}\n", joined.document).as_bytes())?;
        }
        match self.json {
            true => output::print_json(&joined.document),
            false => {
                let written = self.out.as_ref().map_or(String::new(), |out| format!("\n  written  {}", out.display()));
                output::print(&format!("{}{written}", joined.text))
            }
        }
    }
}
