//! Diagnoses on parts of the signals, and how they are joined.

use super::coding::not_converged_json;
use super::diagnose::{examined_lines, not_converged_line, not_examined, table_of, zeros_line};
use super::output::{counted, table};
use crate::autoencoder::diagnostics::Stability;
use crate::autoencoder::{Diagnostics, DiagnosticsSums, Examination, SumTree};
use crate::data::Part;
use crate::error::{Error, Result};
use crate::files;
use crate::pursuit::{BasisPursuitConfig, Convergence};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What `mlcsc diagnose --shard` finds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiagnosisPart {
    shard: Part,
    settings: Value,
    /// Of every model.
    sums: Vec<ModelSums>,
    /// Everything that does not depend on which signals are looked at, as one process writes it.
    whole: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSums {
    sums: SumTree<DiagnosticsSums>,
    convergence: Convergence,
}

/// A diagnosis on all signals.
#[derive(Debug)]
pub(super) struct Joined {
    /// The document of one process.
    pub document: Value,
    /// The same as text.
    pub text: String,
}

impl DiagnosisPart {
    /// With the sums of every model; `whole` is the document of one process, in which the part's results stand in place of all.
    pub fn new(part: Part, sums: Vec<(SumTree<DiagnosticsSums>, Convergence)>, mut whole: Value) -> Self {
        for model in whole["models"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            model.remove("diagnostics");
            model.remove("not_converged");
            model.remove("warning");
        }
        let sums = sums.into_iter().map(|(sums, convergence)| ModelSums { sums, convergence }).collect();
        Self { settings: part.settings.clone(), shard: part, sums, whole }
    }

    /// The document that [`join`] reads.
    ///
    /// # Errors
    /// None that sums can cause.
    pub fn document(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|error| Error::format(Path::new("part"), error.to_string()))
    }
}

/// Reads parts, in whatever order they come, and joins them.
///
/// # Errors
/// Files that cannot be read or are no parts; a part that is missing or comes twice; parts of different models, signals or settings.
pub(super) fn join(paths: &[PathBuf]) -> Result<Joined> {
    let read = |path: &PathBuf| -> Result<(Part, (DiagnosisPart, PathBuf))> {
        let wrong = |error: serde_json::Error| {
            Error::format(path, format!("expected a part, as `mlcsc diagnose --shard` writes it: {error}"))
        };
        let found: DiagnosisPart = serde_json::from_slice(&files::read_whole(path)?).map_err(wrong)?;
        let part = Part { settings: found.settings.clone(), ..found.shard.clone() };
        Ok((part, (found, path.clone())))
    };
    let parts = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
    let parts = Part::in_order(parts, |(_, path)| path.display().to_string())?;
    let mut parts = parts.into_iter();
    let Some((of, (DiagnosisPart { mut sums, whole: mut document, .. }, _))) = parts.next() else {
        return Err(Error::missing("parts", "at least one"));
    };
    for (_, (part, path)) in parts {
        let broken = || {
            Error::format(&path, "expected sums over the batches after those of the part before, of the same models")
        };
        if part.sums.len() != sums.len() {
            return Err(broken());
        }
        for (own, later) in sums.iter_mut().zip(part.sums) {
            let (before, after) = own.sums.batches().zip(later.sums.batches()).ok_or_else(broken)?;
            if before.end != after.start || !own.sums.all_fit(&later.sums) {
                return Err(broken());
            }
            own.sums.extend(later.sums);
            own.convergence.merge(&later.convergence);
        }
    }
    let broken = || Error::format(&paths[0], "expected a part of a diagnosis, found other models than its sums are of");
    let models = document["models"].as_array_mut().filter(|models| models.len() == sums.len()).ok_or_else(broken)?;
    let (mut rows, mut examined, mut unexamined, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (model, ModelSums { sums, convergence }) in models.iter_mut().zip(sums) {
        let diagnostics: Diagnostics = sums.total().ok_or_else(broken)?.finish();
        let name = model["model"].as_str().ok_or_else(broken)?.to_owned();
        let alike: Option<Stability> = serde_json::from_value(model["stability"].clone()).map_err(|_| broken())?;
        model["diagnostics"] = json!(diagnostics);
        model["not_converged"] = not_converged_json(&convergence, &BasisPursuitConfig::default());
        let zeros = zeros_line(&name, &diagnostics);
        model["warning"] = json!(zeros);
        ends.extend(not_converged_line(&name, &convergence).into_iter().chain(zeros));
        let examination: Option<Examination> = serde_json::from_value(model["doctor"].clone()).map_err(|_| broken())?;
        examined.push((name.clone(), examination));
        let reason = model.get("not_examined").and_then(Value::as_str);
        unexamined.extend(reason.map(|reason| (convergence.of, not_examined(&name, reason))));
        rows.push((name, diagnostics, alike));
    }
    let source = document["source"].as_str().unwrap_or_default();
    let heading = format!("{} ({source}), in {}", counted(of.of_signals, "signal"), counted(paths.len(), "part"));
    let examined: Vec<_> = examined.iter().map(|(name, found)| (name.as_str(), found.as_ref())).collect();
    // As one process says it: of dictionaries without an encoder only beside those that have one.
    let any = examined.iter().any(|(_, found)| found.is_some());
    let unexamined = unexamined.into_iter().filter(|(pursued, _)| any || *pursued == 0).map(|(_, line)| line).collect();
    let table = vec![heading, table(&table_of(rows.into_iter()))];
    let text = [table, examined_lines(&examined), unexamined, ends].concat().join("\n");
    Ok(Joined { document, text })
}
