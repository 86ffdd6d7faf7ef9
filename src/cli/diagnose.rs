//! `mlcsc diagnose`: auto-encoders in the numbers that their users look at.

use super::coding::{not_converged, not_converged_json};
use super::data::{self, DataArgs, SelectionArgs, ShardArgs, Signals};
use super::diagnosis_parts::DiagnosisPart;
use super::inputs::Inputs;
use super::output::{self, number, or_dash, table};
use super::page::{self, FolderArgs};
use super::{DeviceArgs, interrupt};
use crate::autoencoder::diagnostics::{Stability, stability};
use crate::autoencoder::doctor::{DoctorConfig, Examination, Tradeoff, WorstSignal, dictionary_of, spread};
use crate::autoencoder::{
    Autoencoder, Diagnostics, DiagnosticsSums, PursuitAutoencoder, SparseAutoencoder, SumTree, has_encoder,
};
use crate::baselines::{Rival, is_rival};
use crate::data::{DataConfig, Part, Shard, digest, wanted_shape};
use crate::error::{Error, Result};
use crate::evaluate::plot::{self, Axis, Curve, Line, Panel};
use crate::export::report::{Diagnosed, Diagnosis, Head, Origin};
use crate::files;
use crate::foreign::InputScaling;
use crate::model::Mlcsc;
use crate::pursuit::{BasisPursuitConfig, Convergence};
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
///
/// Of encoders also what they leave on the table, on some of the signals: the fraction of variance unexplained where a pursuit codes
/// every signal over the same atoms with as many non-zeros, orthogonal matching pursuit and least squares on an ℓ1 support of that
/// size; and ½‖y − Dγ‖² + λ‖γ‖₁ (atoms of unit norm) beside a lower bound of all that it can be, at the λ at which its minimum has as many
/// non-zeros in the mean.
///
/// With --shard what is printed and written are the sums over a part of the signals, for `mlcsc merge`, which finds to the last bit what
/// one process finds.
#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    /// Model files, or the folders of runs
    #[arg(long = "model", value_name = "M.safetensors", required = true, num_args = 1.., value_parser = super::model_path())]
    models: Vec<PathBuf>,
    /// Signals coded at a time; winner-take-all networks choose their winners among them
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch_size: usize,
    /// Signals, evenly spread, on which encoders are compared with pursuits; fewer where codes are dense. 0: none
    #[arg(long, value_name = "N", default_value_t = 1000)]
    doctor_signals: usize,
    /// Picture of that: fraction of variance unexplained against non-zeros, a panel for each encoder
    #[arg(long, value_name = "F.svg")]
    plot: Option<PathBuf>,
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
    #[command(flatten)]
    shard: ShardArgs,
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
    /// What the diagnostics were made of.
    sums: SumTree<DiagnosticsSums>,
    /// Beside the first model; of the first one, and of atoms of another shape, there is none.
    alike: Option<Stability>,
    /// Why there is no examination of an encoder.
    unexamined: Option<String>,
}

/// What a file holds.
struct Opened {
    network: Box<dyn Autoencoder>,
    /// Its dictionary for pursuits and whether codes are non-negative, or why there is none.
    dictionary: std::result::Result<(Mlcsc, bool), String>,
}

impl DiagnoseArgs {
    /// Whether it is told to do a part.
    pub(super) fn shares_work(&self) -> bool {
        self.shard.shard.is_some()
    }

    fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::parameter("--batch-size", 0, "at least 1"));
        }
        self.selection.check()?;
        if let Some(plot) = &self.plot {
            plot::check_name(plot, "--plot")?;
            files::check_writable(plot)?;
            if self.doctor_signals == 0 {
                return Err(Error::parameter("--doctor-signals", 0, "at least 1 with --plot"));
            }
        }
        if let Some(shard) = self.shard.shard {
            if let Some(plot) = &self.plot {
                return Err(Error::parameter("--plot", plot.display(), "none beside --shard"));
            }
            if !self.json && self.folder.out.is_none() {
                let expected = "--json or --out beside it, for the sums that `mlcsc merge` joins";
                return Err(Error::parameter("--shard", shard, expected));
            }
        }
        let inputs = self.models.iter().fold(Inputs::default(), |inputs, path| inputs.and("--model", path.as_path()));
        let inputs = inputs.and_data(self.data.source.as_deref());
        self.plot.as_deref().map_or(Ok(()), |plot| inputs.refuse("--plot", plot))?;
        self.folder.check(&inputs, DOCUMENT)
    }

    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let device = self.device.open()?;
        let config: DataConfig = self.data.config()?;
        let opened = self.models.iter().map(|path| open(path, &device)).collect::<Result<Vec<_>>>()?;
        let signals = self.selection.select(&data::open(&config)?)?;
        for (model, path) in opened.iter().zip(&self.models) {
            check_shape(&*model.network, path, &signals)?;
            if let Ok((dictionary, _)) = &model.dictionary {
                signals.check_for(dictionary)?;
            }
        }
        interrupt::watch();
        let models = opened.iter().zip(&self.models);
        let mut found =
            models.map(|(model, path)| self.diagnose(model, path, &signals, &device)).collect::<Result<Vec<_>>>()?;
        let atoms = found[0].diagnosed.atoms.clone();
        for other in found.iter_mut().skip(1) {
            // Atoms of other shapes cannot be compared.
            let same = atoms.dims()[1..] == other.diagnosed.atoms.dims()[1..];
            other.alike = same.then(|| stability(atoms.clone(), other.diagnosed.atoms.clone())).transpose()?;
        }
        let mut document = document(&found, &signals);
        document["device"] = self.device.name().into();
        document["precision"] = json!(crate::device::precision());
        if let Some(shard) = self.shard.shard {
            return self.write_part(shard, document, found, &signals);
        }
        if let Some(plot) = &self.plot {
            let panels: Vec<Panel> = found.iter().filter_map(panel).collect();
            if panels.is_empty() {
                let expected = "models with encoders of their own over a dictionary of vectors";
                return Err(Error::parameter("--plot", plot.display(), expected));
            }
            plot::panels(plot, &panels)?;
            document["plot"] = output::shown(plot).into();
        }
        self.folder.write(&mut document, DOCUMENT, |path| {
            let lead = vec![format!("On {}.", signals.describe()), said_of_pursuits(&found)];
            let head = Head { lead, warnings: not_converged_lines(&found), table: rows(&found) };
            let models = found.iter().map(|model| model.diagnosed.clone()).collect();
            let signals = read(&signals, 0, SHOWN.min(self.batch_size).min(signals.len()), &device)?;
            Diagnosis { head, models, signals, examined: examined_rows(&found) }.write(path, &self.origin(&config))
        })?;
        if self.json {
            return output::print_json(&document);
        }
        let mut lines = vec![signals.describe(), table(&rows(&found))];
        let examined = found.iter().map(|model| (model.name.as_str(), model.diagnosed.examination.as_ref()));
        let examined: Vec<_> = examined.collect();
        lines.extend(examined_lines(&examined));
        if self.doctor_signals > 0 {
            // That dictionaries without an encoder have none to be examined is said beside those that have one.
            let any = examined.iter().any(|(_, found)| found.is_some());
            let said = |model: &&Found| any || model.convergence.of == 0;
            let line = |model: &Found| Some(not_examined(&model.name, model.unexamined.as_ref()?));
            lines.extend(found.iter().filter(said).filter_map(line));
        }
        lines.extend(not_converged_lines(&found));
        lines.extend(self.plot.as_ref().map(|plot| format!("  picture  {}", plot.display())));
        lines.extend(self.folder.written(DOCUMENT));
        output::print(&lines.join("\n"))
    }

    /// Writes the sums over a part of the signals.
    fn write_part(&self, shard: Shard, whole: Value, found: Vec<Found>, signals: &Signals) -> Result<()> {
        let batches = shard.range(signals.len().div_ceil(self.batch_size));
        let [from, to] = [batches.start, batches.end].map(|batch| (batch * self.batch_size).min(signals.len()));
        let digest = |path: &PathBuf| Ok(digest(&files::read_whole(path)?));
        let part = Part {
            shard,
            signals: [from, to],
            of_signals: signals.len(),
            models: self.models.iter().map(digest).collect::<Result<_>>()?,
            data: signals.fingerprint()?,
            lambda: None,
            settings: json!({ "batch_size": self.batch_size, "doctor_signals": self.doctor_signals }),
        };
        let sums = found.into_iter().map(|model| (model.sums, model.convergence)).collect();
        let document = DiagnosisPart::new(part, sums, whole).document()?;
        if let Some(out) = &self.folder.out {
            files::write_bytes(&out.join(DOCUMENT), format!("{document:#}\n").as_bytes())?;
        }
        if self.json {
            return output::print_json_exactly(&document);
        }
        let mut lines = vec![format!("part {shard}: signals {from} to {} of {}, from 0 on", to - 1, signals.len())];
        lines.extend(self.folder.out.as_ref().map(|out| page::written(&[out.join(DOCUMENT)])));
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

    fn diagnose(&self, opened: &Opened, path: &Path, signals: &Signals, device: &Device) -> Result<Found> {
        let network = &*opened.network;
        let ready = network.ready()?;
        let (mut tree, mut first) = (SumTree::default(), None);
        for batch in self.shard.batches(signals.len().div_ceil(self.batch_size))? {
            interrupt::check("nothing was written")?;
            let start = batch * self.batch_size;
            let tensor = read(signals, start, self.batch_size.min(signals.len() - start), device)?;
            let coded = ready.reconstruct(tensor.clone())?;
            let mut sums = DiagnosticsSums::new(network);
            sums.add(&tensor, &coded);
            tree.push(batch, sums);
            // Of its batch: winners are chosen among all of it.
            first.get_or_insert_with(|| coded.reconstruction.narrow(0, 0, SHOWN.min(tensor.dims()[0])));
        }
        let sums = tree.clone().total().unwrap_or_else(|| DiagnosticsSums::new(network));
        let name = path.display().to_string();
        let (examination, unexamined) = match &opened.dictionary {
            // Of several parts the first one does it, on all that one process would look at.
            _ if self.doctor_signals == 0 || self.shard.shard.is_some_and(|shard| shard.index() > 1) => (None, None),
            Ok((dictionary, nonnegative)) => {
                (Some(self.examine(network, dictionary, *nonnegative, signals, device)?), None)
            }
            Err(reason) => (None, Some(reason.clone())),
        };
        let diagnosed = Diagnosed {
            examination,
            name: name.clone(),
            diagnostics: sums.finish(),
            densities: sums.densities(),
            atoms: network.atoms(),
            reconstructions: first.unwrap_or_else(|| Tensor::zeros(network.signal().batched(0), device)),
        };
        Ok(Found { name, diagnosed, convergence: network.convergence(), sums: tree, alike: None, unexamined })
    }

    /// What an encoder leaves on the table, on signals evenly spread; those that are named are numbered among all.
    fn examine(
        &self,
        network: &dyn Autoencoder,
        dictionary: &Mlcsc,
        nonnegative: bool,
        signals: &Signals,
        device: &Device,
    ) -> Result<Examination> {
        let places = spread(signals.len(), self.doctor_signals);
        let mut values = Vec::with_capacity(places.len() * signals.shape().len());
        for &place in &places {
            values.extend(signals.read(place, 1)?);
        }
        let tensor = Tensor::from_data(TensorData::new(values, signals.shape().batched(places.len())), device);
        let examined =
            DoctorConfig::default().examine(network, dictionary, nonnegative, tensor, &interrupt::interrupted);
        let mut found = interrupt::named(examined, "nothing was written")?;
        found.worst.iter_mut().for_each(|worst| worst.signal = places[worst.signal]);
        Ok(found)
    }
}

fn check_shape(network: &dyn Autoencoder, path: &Path, signals: &Signals) -> Result<()> {
    let (wanted, found) = (network.signal(), signals.shape());
    if wanted == found {
        return Ok(());
    }
    let what = format!("signals of {} for {}", signals.source(), path.display());
    Err(Error::shape(what, wanted_shape(wanted, wanted, found), found))
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
        document["doctor"] = json!(model.diagnosed.examination);
        document["warning"] = json!(zeros_line(&model.name, &model.diagnosed.diagnostics));
        if let Some(reason) = &model.unexamined {
            document["not_examined"] = json!(reason);
        }
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

/// A number with so many decimals, unless it is far from what is usual.
fn fixed(value: f64, decimals: usize) -> String {
    if value.abs() < 1e4 { format!("{value:.decimals$}") } else { number(value) }
}

/// The table, its first row being the heading.
fn rows(found: &[Found]) -> Vec<Vec<String>> {
    let row = |model: &Found| (model.name.clone(), model.diagnosed.diagnostics.clone(), model.alike.clone());
    table_of(found.iter().map(row))
}

/// The table of models with what was found and how alike their atoms are to the first one's.
pub(super) fn table_of(found: impl Iterator<Item = (String, Diagnostics, Option<Stability>)>) -> Vec<Vec<String>> {
    let heading = [
        "model",
        "FVU",
        "cos(y, x)",
        "PSNR",
        "non-zeros",
        "Hoyer",
        "shrinkage",
        "dead",
        "dense",
        "density",
        "cosine",
        "alike",
    ];
    let row = |(name, found, alike): (String, Diagnostics, Option<Stability>)| {
        vec![
            name,
            or_dash(found.fvu, |fvu| fixed(fvu, 4)),
            or_dash(found.cosine, |cosine| format!("{cosine:.4}")),
            or_dash(found.psnr, |psnr| format!("{psnr:.2}")),
            number(found.nonzeros),
            or_dash(found.hoyer, |hoyer| format!("{hoyer:.3}")),
            or_dash(found.shrinkage, |shrinkage| fixed(shrinkage, 3)),
            found.dead_units.to_string(),
            found.dense_units.to_string(),
            found.density.map(|count| count.to_string()).join("/"),
            or_dash(alike.as_ref().map(|alike| alike.mean_cosine), |cosine| format!("{cosine:.3}")),
            or_dash(alike.as_ref().map(|alike| alike.matched), |matched| format!("{:.0}%", 100.0 * matched)),
        ]
    };
    std::iter::once(heading.map(String::from).to_vec()).chain(found.map(row)).collect()
}

/// What is said of models whose pursuits ended above their gap.
fn not_converged_lines(found: &[Found]) -> Vec<String> {
    let line = |model: &Found| not_converged_line(&model.name, &model.convergence);
    let zeros = |model: &Found| zeros_line(&model.name, &model.diagnosed.diagnostics);
    found.iter().flat_map(|model| line(model).into_iter().chain(zeros(model))).collect()
}

/// What is said of a model whose codes are all zero.
pub(super) fn zeros_line(name: &str, found: &Diagnostics) -> Option<String> {
    let line = || format!("{name}: every code is zero; are the signals as strong as those that it learned from?");
    (found.nonzeros == 0.0).then(line)
}

/// The same of one.
pub(super) fn not_converged_line(name: &str, convergence: &Convergence) -> Option<String> {
    let line = not_converged(convergence, &BasisPursuitConfig::default(), "signal")?;
    Some(format!("{name}: {line} with `mlcsc encode`, to see how much that changes"))
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

/// What was found of encoders beside pursuits, the first row being the heading.
fn examined_rows(found: &[Found]) -> Vec<Vec<String>> {
    let examined = found.iter().map(|model| (model.name.as_str(), model.diagnosed.examination.as_ref()));
    examined_table(&examined.collect::<Vec<_>>())
}

/// The same as lines, with the signals for which an encoder loses most.
pub(super) fn examined_lines(examined: &[(&str, Option<&Examination>)]) -> Vec<String> {
    let rows = examined_table(examined);
    let mut lines = Vec::new();
    if rows.len() > 1 {
        lines.push("what encoders leave on the table:".into());
        lines.push(table(&rows));
    }
    lines.extend(examined.iter().filter_map(|(name, examination)| sparser_line(name, (*examination)?)));
    lines.extend(examined.iter().filter_map(|(name, examination)| worst_line(name, (*examination)?)));
    lines
}

fn examined_table(examined: &[(&str, Option<&Examination>)]) -> Vec<Vec<String>> {
    let heading =
        ["model", "signals", "non-zeros", "cos(y, x)", "FVU", "by OMP", "by ℓ1", "λ", "objective", "bound", "above it"];
    let row = |(name, found): &(&str, Option<&Examination>)| {
        let found = (*found)?;
        let fvu = |fvu: Option<f64>| or_dash(fvu, |fvu| fixed(fvu, 4));
        let objectives = &found.objectives;
        let above = (objectives.bound > 0.0).then(|| objectives.encoder / objectives.bound - 1.0);
        Some(vec![
            (*name).to_owned(),
            found.signals.to_string(),
            number(found.encoder.nonzeros),
            or_dash(found.encoder.cosine, |cosine| format!("{cosine:.4}")),
            fvu(found.encoder.fvu),
            fvu(found.omp.fvu),
            fvu(found.l1.fvu),
            number(objectives.lambda),
            number(objectives.encoder),
            number(objectives.bound),
            or_dash(above, |above| format!("{:.1}%", 100.0 * above)),
        ])
    };
    std::iter::once(heading.map(String::from).to_vec()).chain(examined.iter().filter_map(row)).collect()
}

/// Why an encoder was not examined.
pub(super) fn not_examined(name: &str, reason: &str) -> String {
    format!("{name}: not examined: {reason}")
}

/// That pursuits had fewer non-zeros than an encoder, where that is so.
fn sparser_line(name: &str, found: &Examination) -> Option<String> {
    let most = found.omp.nonzeros.max(found.l1.nonzeros);
    (most < 0.9 * found.encoder.nonzeros).then(|| {
        format!(
            "{name}: pursuits had fewer non-zeros than the encoder, OMP {} and ℓ1 {}: half of a signal's values at most",
            number(found.omp.nonzeros),
            number(found.l1.nonzeros)
        )
    })
}

/// The signals for which an encoder loses most.
fn worst_line(name: &str, found: &Examination) -> Option<String> {
    let worst = &found.worst;
    let one =
        |worst: &WorstSignal| format!("{} ({:.3} for {:.3})", worst.signal, worst.encoder, worst.omp.min(worst.l1));
    let all: Vec<String> = worst.iter().map(one).collect();
    let said =
        "most is lost on signals, ‖y − x‖²/‖y − b‖² (b the decoder's bias) of the encoder for the better pursuit's";
    (!all.is_empty()).then(|| format!("{name}: {said}: {}", all.join(", ")))
}

/// FVU against non-zeros.
fn panel(model: &Found) -> Option<Panel> {
    let found = model.diagnosed.examination.as_ref()?;
    let line = |(colour, tradeoff): (usize, &Tradeoff)| Line {
        curve: Curve { name: tradeoff.name.clone(), points: tradeoff.points.clone() },
        colour,
        dashed: false,
    };
    Some(Panel {
        title: found.title(&model.name),
        horizontal: Axis::logarithmic("mean non-zeros"),
        vertical: Axis::logarithmic("fraction of variance unexplained"),
        lines: found.tradeoffs.iter().enumerate().map(line).collect(),
    })
}

/// Opens whatever auto-encoder a file holds.
fn open(path: &Path, device: &Device) -> Result<Opened> {
    let imported = super::foreign::open(path, device)?;
    if let Some(found) = imported {
        let nonnegative = found.config().activation.is_nonnegative();
        let dictionary = match found.config().scaling {
            InputScaling::None => Ok((found.dictionary()?, nonnegative)),
            _ => Err("its signals are scaled one by one".into()),
        };
        return Ok(Opened { network: Box::new(found), dictionary });
    }
    if is_rival(path)? {
        let (found, _) = Rival::load(path, device)?;
        let dictionary = found.dictionary()?.ok_or("its codes are no sparse sums of atoms".to_owned());
        return Ok(Opened { network: Box::new(found), dictionary });
    }
    let (model, coding) = Mlcsc::load(path, device)?;
    if has_encoder(path)? {
        let found = dictionary_of(&model)?.map(|dictionary| (dictionary, coding.nonnegative));
        let dictionary = found.ok_or("its signals are no vectors, or its codes have more than one position".to_owned());
        return Ok(Opened { network: Box::new(SparseAutoencoder::load(path, device)?), dictionary });
    }
    let network = Box::new(PursuitAutoencoder::as_learned(&model, &coding)?);
    let gap = number(BasisPursuitConfig::default().gap.into());
    let reason = match coding.nonzeros {
        Some(nonzeros) => format!("its encoder is orthogonal matching pursuit with {nonzeros} non-zeros"),
        None => format!("its encoder is the pursuit, which leaves a relative duality gap of {gap}"),
    };
    Ok(Opened { network, dictionary: Err(reason) })
}
