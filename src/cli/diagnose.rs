//! `mlcsc diagnose`: auto-encoders in the numbers that their users look at.

use super::coding::{not_converged, not_converged_json};
use super::data::{self, DataArgs, SelectionArgs, Signals};
use super::output::{self, number, or_dash, table};
use super::{DeviceArgs, interrupt};
use crate::autoencoder::diagnostics::stability;
use crate::autoencoder::{
    Autoencoder, Diagnostics, DiagnosticsSums, PursuitAutoencoder, SparseAutoencoder, has_encoder,
};
use crate::baselines::{Rival, is_rival};
use crate::data::{DataConfig, wanted_shape};
use crate::error::{Error, Result};
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
#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    /// Model files, or the folders of runs
    #[arg(long = "model", value_name = "M.safetensors", required = true, num_args = 1.., value_parser = super::model_path())]
    models: Vec<PathBuf>,
    /// Signals coded at a time; winner-take-all networks choose their winners among them
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch_size: usize,
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

impl DiagnoseArgs {
    pub(super) fn run(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::parameter("--batch-size", 0, "at least 1"));
        }
        self.selection.check()?;
        let device = self.device.open()?;
        let config: DataConfig = self.data.config()?;
        let networks = self.models.iter().map(|path| open(path, &device)).collect::<Result<Vec<_>>>()?;
        let signals = self.selection.select(&data::open(&config)?)?;
        for (network, path) in networks.iter().zip(&self.models) {
            if network.signal() != signals.shape() {
                let what = format!("signals of {} for {}", signals.source(), path.display());
                let (wanted, found) = (network.signal(), signals.shape());
                return Err(Error::shape(what, wanted_shape(wanted, wanted.channels, found), found));
            }
        }
        interrupt::watch();
        let found = networks
            .iter()
            .map(|network| diagnose(&**network, &signals, self.batch_size, &device))
            .collect::<Result<Vec<_>>>()?;
        let alike = networks
            .iter()
            .map(|network| {
                let [first, atoms] = [&networks[0], network].map(|network| network.atoms());
                // Atoms of other shapes cannot be compared.
                (first.dims()[1..] == atoms.dims()[1..]).then(|| stability(first, atoms)).transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        if self.json {
            let models = self.models.iter().zip(&found).zip(&alike).enumerate();
            let models: Vec<Value> = models
                .map(|(index, ((path, found), alike))| {
                    let mut model = json!({ "model": path, "diagnostics": found.0 });
                    model["not_converged"] = not_converged_json(&found.1, &BasisPursuitConfig::default());
                    if index > 0 {
                        model["stability"] = json!(alike);
                    }
                    model
                })
                .collect();
            return output::print_json(&json!({
                "signals": signals.len(),
                "source": signals.source(),
                "skipped": signals.skipped(),
                "models": models,
            }));
        }
        let heading = ["model", "FVU", "PSNR", "non-zeros", "Hoyer", "shrinkage", "dead", "dense", "density", "cosine"];
        let mut rows = vec![heading.map(String::from).to_vec()];
        rows[0].push("alike".into());
        let mut lines = vec![signals.describe()];
        for (index, ((path, found), alike)) in self.models.iter().zip(&found).zip(&alike).enumerate() {
            let name = path.display().to_string();
            let alike = match alike {
                Some(alike) if index > 0 => {
                    [format!("{:.3}", alike.mean_cosine), format!("{:.0}%", 100.0 * alike.matched)]
                }
                _ => ["–".into(), "–".into()],
            };
            let (found, convergence) = found;
            if let Some(line) = not_converged(convergence, &BasisPursuitConfig::default(), "signal") {
                lines.push(format!("{name}: {line} with `mlcsc encode`, to see how much that changes"));
            }
            let mut row = vec![
                name,
                or_dash(found.fvu, |fvu| format!("{fvu:.4}")),
                format!("{:.2}", found.psnr),
                number(found.nonzeros),
                or_dash(found.hoyer, |hoyer| format!("{hoyer:.3}")),
                or_dash(found.shrinkage, |shrinkage| format!("{shrinkage:.3}")),
                found.dead_units.to_string(),
                found.dense_units.to_string(),
                found.density.map(|count| count.to_string()).join("/"),
            ];
            row.extend(alike);
            rows.push(row);
        }
        lines.insert(1, table(&rows));
        output::print(&lines.join("\n"))
    }
}

/// The trained auto-encoder that a file holds, if it holds more than dictionaries.
pub(super) fn network(path: &Path, device: &Device) -> Result<Option<Box<dyn Autoencoder>>> {
    if is_rival(path)? {
        return Ok(Some(Box::new(Rival::load(path, device)?.0)));
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

/// Diagnostics, and how far the pursuits came, where there are any.
fn diagnose(
    network: &dyn Autoencoder,
    signals: &Signals,
    batch: usize,
    device: &Device,
) -> Result<(Diagnostics, Convergence)> {
    let ready = network.ready()?;
    let mut sums = DiagnosticsSums::new(network);
    for start in (0..signals.len()).step_by(batch) {
        interrupt::check("nothing was written")?;
        let count = batch.min(signals.len() - start);
        let values = TensorData::new(signals.read(start, count)?, signals.shape().batched(count));
        let tensor = Tensor::from_data(values, device);
        let coded = ready.reconstruct(tensor.clone())?;
        sums.add(&tensor, &coded);
    }
    Ok((sums.finish(), network.convergence()))
}
