//! `mlcsc diagnose`: auto-encoders in the numbers that their users look at.

use super::coding::{not_converged, not_converged_json};
use super::data::{self, DataArgs, SelectionArgs, Signals};
use super::inputs::Inputs;
use super::output::{self, number, or_dash, table};
use super::page::{self, FolderArgs};
use super::{DeviceArgs, interrupt};
use crate::autoencoder::diagnostics::{Stability, stability};
use crate::autoencoder::{Autoencoder, DiagnosticsSums, PursuitAutoencoder, SparseAutoencoder, has_encoder};
use crate::baselines::{Rival, is_rival};
use crate::data::{DataConfig, wanted_shape};
use crate::error::{Error, Result};
use crate::export::report::{Diagnosed, Diagnosis, Head, Origin};
use crate::model::Mlcsc;
use crate::pursuit::{BasisPursuitConfig, Convergence, Lambda};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Diagnose models as sparse auto-encoders
///
/// For every model file, be it the model's or a rival's: fraction of variance unexplained, PSNR, non-zeros, Hoyer sparsity,
/// shrinkage 〈y, x〉/‖y‖² (1: none), dead and dense units, the units by density. Dictionaries are coded by a basis pursuit, those
/// that were trained through an unrolled one by that. With several files also the stability of the atoms: the mean |cosine| of
/// a one-to-one matching with those of the first, and the part of pairs above 0.9; say, of the same training with other seeds.
/// With --out also a page with the models' atoms.
#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    /// Model files, or the folders of runs
    #[arg(long = "model", value_name = "M.safetensors", required = true, num_args = 1.., value_parser = super::model_path())]
    models: Vec<PathBuf>,
    /// Signals coded at a time; winner-take-all networks choose their winners among them
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch_size: usize,
    #[command(flatten)]
    folder: FolderArgs,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

/// The file for the JSON document.
const DOCUMENT: &str = "diagnose.json";

/// Signals that a page shows.
const SHOWN: usize = 8;

/// A model with all that was found.
struct Found {
    name: String,
    diagnosed: Diagnosed,
    convergence: Convergence,
    /// Beside the first model; of the first one, and of atoms of another shape, there is none.
    alike: Option<Stability>,
}

impl DiagnoseArgs {
    fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::parameter("--batch-size", 0, "at least 1"));
        }
        self.selection.check()?;
        let inputs = self.models.iter().fold(Inputs::default(), |inputs, path| inputs.and("--model", path.as_path()));
        self.folder.check(&inputs.and_data(self.data.source.as_deref()), DOCUMENT)
    }

    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let device = self.device.open()?;
        let config: DataConfig = self.data.config()?;
        let networks = self.models.iter().map(|path| open(path, &device)).collect::<Result<Vec<_>>>()?;
        let signals = self.selection.select(&data::open(&config)?)?;
        for (network, path) in networks.iter().zip(&self.models) {
            check_shape(&**network, path, &signals)?;
        }
        interrupt::watch();
        let models = networks.iter().zip(&self.models);
        let mut found = models
            .map(|(network, path)| self.diagnose(&**network, path, &signals, &device))
            .collect::<Result<Vec<_>>>()?;
        let atoms = found[0].diagnosed.atoms.clone();
        for other in found.iter_mut().skip(1) {
            // Atoms of other shapes cannot be compared.
            let same = atoms.dims()[1..] == other.diagnosed.atoms.dims()[1..];
            other.alike = same.then(|| stability(atoms.clone(), other.diagnosed.atoms.clone())).transpose()?;
        }
        let mut document = document(&found, &signals);
        self.folder.write(&mut document, DOCUMENT, |path| {
            let lead = vec![format!("On {}.", signals.describe()), said_of_pursuits(&found)];
            let head = Head { lead, warnings: not_converged_lines(&found), table: rows(&found) };
            let models = found.iter().map(|model| model.diagnosed.clone()).collect();
            let signals = read(&signals, 0, SHOWN.min(self.batch_size).min(signals.len()), &device)?;
            Diagnosis { head, models, signals }.write(path, &self.origin(&config))
        })?;
        if self.json {
            return output::print_json(&document);
        }
        let mut lines = vec![signals.describe(), table(&rows(&found))];
        lines.extend(not_converged_lines(&found));
        lines.extend(self.folder.written(DOCUMENT));
        output::print(&lines.join("\n"))
    }

    fn origin(&self, config: &DataConfig) -> Origin {
        let models = self.models.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let settings = vec![
            ("models", models.join(", ")),
            ("data", config.source.clone()),
            ("batch size", self.batch_size.to_string()),
        ];
        page::origin(settings, vec![("of the data", config.seed)], &self.device)
    }

    fn diagnose(&self, network: &dyn Autoencoder, path: &Path, signals: &Signals, device: &Device) -> Result<Found> {
        let ready = network.ready()?;
        let mut sums = DiagnosticsSums::new(network);
        let mut first = None;
        for start in (0..signals.len()).step_by(self.batch_size) {
            interrupt::check("nothing was written")?;
            let tensor = read(signals, start, self.batch_size.min(signals.len() - start), device)?;
            let coded = ready.reconstruct(tensor.clone())?;
            sums.add(&tensor, &coded);
            // Of its batch: winners are chosen among all of it.
            first.get_or_insert_with(|| coded.reconstruction.narrow(0, 0, SHOWN.min(tensor.dims()[0])));
        }
        let name = path.display().to_string();
        let diagnosed = Diagnosed {
            name: name.clone(),
            diagnostics: sums.finish(),
            densities: sums.densities(),
            atoms: network.atoms(),
            reconstructions: first.unwrap_or_else(|| Tensor::zeros(network.signal().batched(0), device)),
        };
        Ok(Found { name, diagnosed, convergence: network.convergence(), alike: None })
    }
}

fn check_shape(network: &dyn Autoencoder, path: &Path, signals: &Signals) -> Result<()> {
    let (wanted, found) = (network.signal(), signals.shape());
    if wanted == found {
        return Ok(());
    }
    let what = format!("signals of {} for {}", signals.source(), path.display());
    Err(Error::shape(what, wanted_shape(wanted, wanted.channels, found), found))
}

/// `count` signals from `start` on.
fn read(signals: &Signals, start: usize, count: usize, device: &Device) -> Result<Tensor<4>> {
    let values = TensorData::new(signals.read(start, count)?, signals.shape().batched(count));
    Ok(Tensor::from_data(values, device))
}

fn document(found: &[Found], signals: &Signals) -> Value {
    let model = |(index, model): (usize, &Found)| {
        let mut document = json!({ "model": model.name, "diagnostics": model.diagnosed.diagnostics });
        document["not_converged"] = not_converged_json(&model.convergence, &BasisPursuitConfig::default());
        if index > 0 {
            document["stability"] = json!(model.alike);
        }
        document
    };
    json!({
        "signals": signals.len(),
        "source": signals.source(),
        "skipped": signals.skipped(),
        "models": found.iter().enumerate().map(model).collect::<Value>(),
    })
}

/// The table, its first row being the heading.
fn rows(found: &[Found]) -> Vec<Vec<String>> {
    let heading =
        ["model", "FVU", "PSNR", "non-zeros", "Hoyer", "shrinkage", "dead", "dense", "density", "cosine", "alike"];
    let row = |model: &Found| {
        let found = &model.diagnosed.diagnostics;
        vec![
            model.name.clone(),
            or_dash(found.fvu, |fvu| format!("{fvu:.4}")),
            format!("{:.2}", found.psnr),
            number(found.nonzeros),
            or_dash(found.hoyer, |hoyer| format!("{hoyer:.3}")),
            or_dash(found.shrinkage, |shrinkage| format!("{shrinkage:.3}")),
            found.dead_units.to_string(),
            found.dense_units.to_string(),
            found.density.map(|count| count.to_string()).join("/"),
            or_dash(model.alike.as_ref().map(|alike| alike.mean_cosine), |cosine| format!("{cosine:.3}")),
            or_dash(model.alike.as_ref().map(|alike| alike.matched), |matched| format!("{:.0}%", 100.0 * matched)),
        ]
    };
    std::iter::once(heading.map(String::from).to_vec()).chain(found.iter().map(row)).collect()
}

/// What is said of models whose pursuits ended above their gap.
fn not_converged_lines(found: &[Found]) -> Vec<String> {
    let line = |model: &Found| {
        let line = not_converged(&model.convergence, &BasisPursuitConfig::default(), "signal")?;
        Some(format!("{}: {line} with `mlcsc encode`, to see how much that changes", model.name))
    };
    found.iter().filter_map(line).collect()
}

/// Whose codes come with a bound, and whether it is what was asked for.
fn said_of_pursuits(found: &[Found]) -> String {
    let pursued: Vec<_> = found.iter().filter(|model| model.convergence.of > 0).collect();
    let above = pursued.iter().filter(|model| model.convergence.above > 0).count();
    let gap = number(BasisPursuitConfig::default().gap.into());
    match (pursued.len(), above) {
        (0, _) => "No model is coded by a pursuit that is told a duality gap.".into(),
        (_, 0) => format!("All signals that a pursuit coded came to a relative duality gap of {gap}."),
        (of, above) => {
            format!("Not all signals came to a relative duality gap of {gap} with {above} of {of} pursuits.")
        }
    }
}

/// The trained auto-encoder that a file holds, if it holds more than dictionaries.
pub(super) fn network(path: &Path, device: &Device) -> Result<Option<Box<dyn Autoencoder>>> {
    if is_rival(path)? {
        return Ok(Some(Box::new(Rival::load(path, device)?.0)));
    }
    if let Some(found) = super::foreign::open(path, device)? {
        return Ok(Some(Box::new(found)));
    }
    if has_encoder(path)? {
        return Ok(Some(Box::new(SparseAutoencoder::load(path, device)?)));
    }
    Ok(None)
}

/// Opens whatever auto-encoder a file holds.
fn open(path: &Path, device: &Device) -> Result<Box<dyn Autoencoder>> {
    if let Some(network) = network(path, device)? {
        return Ok(network);
    }
    let (model, coding) = Mlcsc::load(path, device)?;
    let basis = BasisPursuitConfig { nonnegative: coding.nonnegative, ..BasisPursuitConfig::default() };
    // Where the λ of learning is not known, a tenth of λ_max.
    let lambda = coding.lambda.map_or(Lambda::Relative(0.1), Lambda::Absolute);
    Ok(Box::new(PursuitAutoencoder::new(&model, &basis, lambda)?))
}
