//! Pages about a run, or about several side by side.

use super::plot::{Line, Plot, Scale, bars};
#[cfg(feature = "train")]
use super::sheet::can_be_drawn;
use super::sheet::{Gallery, Quantity, SHOWN, Sheet, Sheets, Usage, shown_of};
use super::{Head, Origin, pairs, shown, write_page};
#[cfg(feature = "train")]
use crate::autoencoder::{Autoencoder, Coded};
use crate::coder::{CoderConfig, Codes};
use crate::data::Source;
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use crate::kernels::sparse::to_host;
use crate::learn::RunFolder;
use crate::learn::TrainConfig;
use crate::model::Mlcsc;
use crate::model::file::CodingDefaults;
use crate::text::counted;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Held-out signals that are looked at, at most.
const SIGNALS: usize = 500;

/// Values of their largest representation at most.
const VALUES: usize = 1 << 24;

/// Terms of a held-out signal that are shown, and parts of an atom.
const TERMS: usize = 8;
const PARTS: usize = 5;

/// Upper ends, in per cent, of the bins of the histogram of firing.
const BINS: [f64; 6] = [0.0, 0.3, 1.0, 3.0, 10.0, 100.0];

/// Refuses a folder that says nothing of a run.
///
/// # Errors
/// A folder without a run's configuration.
pub fn check(folder: &Path) -> Result<()> {
    match RunFolder::new(folder).config().exists() {
        true => Ok(()),
        false => {
            Err(Error::format(folder, "no report without config.json, which says what was trained: it is missing"))
        }
    }
}

/// What a run's folder says.
struct Found {
    name: String,
    config: Value,
    /// Lines of the start and of epochs.
    records: Vec<Value>,
}

impl Found {
    fn read(folder: &Path) -> Result<Self> {
        check(folder)?;
        let path = RunFolder::new(folder).config();
        let text = files::read_whole(&path)?;
        let config = json::parse(&text).map_err(|reason| Error::format(&path, reason))?;
        let path = RunFolder::new(folder).metrics();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::read(&path)(source)),
        };
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let records = lines.filter(|line| line["kind"] == "epoch" || line["kind"] == "start").collect();
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, config, records })
    }

    fn epochs(&self) -> impl Iterator<Item = &Value> {
        self.records.iter().filter(|record| record["kind"] == "epoch")
    }

    /// A number of every record, with its epoch; 0 for the start.
    fn series(&self, pointer: &str) -> Vec<(f64, f64)> {
        let of = |record: &Value| {
            let epoch = if record["kind"] == "start" { 0.0 } else { record["epoch"].as_f64()? };
            Some((epoch, record.pointer(pointer)?.as_f64()?))
        };
        self.records.iter().filter_map(of).collect()
    }

    fn last(&self, pointer: &str) -> Option<f64> {
        self.series(pointer).last().map(|(_, value)| *value)
    }

    /// Non-zeros of the deepest codes of held-out signals after the last epoch.
    fn last_nonzeros(&self) -> Option<f64> {
        let found = self.epochs().last()?.pointer(NONZEROS)?;
        found.as_f64().or_else(|| found.as_array()?.last()?.as_f64())
    }

    /// What of the configuration is a word; empty where there is none.
    fn word(&self, pointer: &str) -> &str {
        self.config.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// A page's context with what the folder says.
    fn context(&self, origin: &Origin) -> Value {
        let head = Head { lead: self.lead(), warnings: self.warnings(), table: Vec::new() };
        let mut context = head.context(&self.name, origin);
        context["curves"] = json!(curves(std::slice::from_ref(self)));
        context["settings"] = json!(settings(&self.config));
        context["settings_heading"] = json!(DIFFERENT);
        context["times"] = json!(times(self));
        context
    }

    /// What was done and what came of it, in sentences.
    fn lead(&self) -> Vec<String> {
        let number = |pointer: &str| self.config.pointer(pointer).and_then(Value::as_u64);
        let wanted = number("/learning/epochs").or_else(|| number("/epochs")).unwrap_or(0);
        let how = match self.config.get("rival") {
            Some(_) => format!("The rival {} trained on", self.word("/rival/model")),
            None => format!("Learned by the method {} from", self.word("/learning/update")),
        };
        let epochs = self.epochs().count();
        let are = if wanted == 1 { "is" } else { "are" };
        let done = format!("{epochs} of {} {are} done", counted(wanted as usize, "epoch"));
        let mut lead = vec![format!("{how} {}: {done}.", self.word("/data/source"))];
        let last = |name: &str, pointer: &str| self.last(pointer).map(|value| format!("{name} {}", shown(value)));
        let values = [
            last("objective", "/test/objective"),
            last("loss", "/test_loss"),
            last("PSNR in dB", "/test/psnr"),
            last("fraction of variance unexplained", "/test/fvu"),
        ];
        let values: Vec<String> = values.into_iter().flatten().collect();
        if !values.is_empty() {
            lead.push(format!("Held-out signals after the last epoch: {}.", values.join(", ")));
        }
        if self.word("/learning/update") == "unrolled" {
            lead.push(
                "These figures and the curves are of the encoder's own codes; the use of atoms and the held-out signals further down are of \
                 codes by the pursuit that it unrolls, run to its end."
                    .into(),
            );
        }
        if let Some(kept) = self.last("/kept/epoch") {
            lead.push(format!("The state that is kept, and shown once the run is done, is that after epoch {kept}."));
        }
        lead
    }

    /// What a reader must not overlook.
    fn warnings(&self) -> Vec<String> {
        let dead = |what: (&str, &str), pointer: &str| {
            let dead = self.last(pointer).filter(|dead| *dead > 0.0)? as usize;
            let are = if dead == 1 { "is" } else { "are" };
            Some(format!("{}{} {are} used by no held-out signal.", counted(dead, what.0), what.1))
        };
        let all = [dead(("atom", " of the deepest layer"), "/test/dead_atoms"), dead(("unit", ""), "/test/dead_units")];
        all.into_iter().flatten().collect()
    }
}

/// Where records have the non-zeros of held-out signals: one number, or one for each layer.
const NONZEROS: &str = "/test/nonzeros";

/// The heading of settings.
const DIFFERENT: &str = "What was trained, and settings that differ from the defaults";

/// The curves of runs, each run's name before the line's where there are several.
fn curves(runs: &[Found]) -> Vec<Value> {
    let layers = |pointer: &str| {
        let longest = runs.iter().flat_map(|run| &run.records).filter_map(|record| record.pointer(pointer)?.as_array());
        longest.map(Vec::len).max().unwrap_or(0)
    };
    let indexed = |name: &str, pointer: &str| -> Vec<(String, String)> {
        (0..layers(pointer)).map(|i| (format!("{name}_{}", i + 1), format!("{pointer}/{i}"))).collect()
    };
    let one = |name: &str, pointer: &str| (name.to_owned(), pointer.to_owned());
    let plots = [
        (
            "objective, ½‖y − Dγ‖² + λ‖γ‖₁",
            vec![one("held out", "/test/objective"), one("training", "/train/objective")],
        ),
        ("loss", vec![one("held out", "/test_loss"), one("training", "/train_loss")]),
        ("PSNR in dB", vec![one("held out", "/test/psnr")]),
        ("fraction of variance unexplained", vec![one("held out", "/test/fvu")]),
        (
            "non-zeros",
            // A number of what has one layer of codes, a list of what has several.
            std::iter::once(one("held out", "/test/nonzeros")).chain(indexed("γ", "/test/nonzeros")).collect(),
        ),
        ("part of zeros in the filters", indexed("D", "/dictionaries/zeros")),
        ("mutual coherence of effective dictionaries", indexed("D", "/dictionaries/effective_coherence")),
        ("dead atoms", vec![one("held out", "/test/dead_atoms"), one("held out", "/test/dead_units")]),
        ("signals per second in training", vec![one("training", "/train/signals_per_second")]),
    ];
    let of = |(title, lines): (&str, Vec<(String, String)>)| {
        let named =
            |run: &Found, name: &str| if runs.len() > 1 { format!("{}, {name}", run.name) } else { name.into() };
        let lines = runs
            .iter()
            .flat_map(|run| lines.iter().map(|(name, pointer)| Line::new(named(run, name), run.series(pointer))))
            .collect();
        Plot { title, across: "epoch", scales: [Scale::Whole, Scale::Linear] }.draw(lines)
    };
    plots.into_iter().filter_map(of).collect()
}

/// What was trained, and what was asked for where it is not the default.
fn settings(config: &Value) -> Vec<Value> {
    let Some(default) = default_of(config) else { return Vec::new() };
    let mut rows = Vec::new();
    // What has no default.
    let number = |value: &Value| value.to_string().replace(',', "x").replace(['[', ']'], "");
    let signal = |signal: &Value| ["channels", "height", "width"].map(|key| number(&signal[key])).join("x");
    let layer = |layer: &Value| {
        let [atoms, kernel, stride, padding] = ["atoms", "kernel", "stride", "padding"].map(|key| number(&layer[key]));
        let padding =
            if matches!(padding.as_str(), "0" | "null") { String::new() } else { format!(", padding {padding}") };
        format!("{atoms} of {kernel}, stride {stride}{padding}")
    };
    let layers = |layers: &Value| layers.as_array().into_iter().flatten().map(layer).collect::<Vec<_>>().join("; ");
    let trained = [
        ("rival.model", config.pointer("/rival/model").and_then(Value::as_str).map(str::to_owned)),
        ("model.signal", config.pointer("/model/signal").map(signal)),
        ("model.layers", config.pointer("/model/layers").map(layers)),
    ];
    for (name, value) in trained {
        rows.extend(value.map(|value| json!({ "name": name, "value": value, "default": "–" })));
    }
    differences("", config, &default, &mut rows);
    rows
}

/// The configuration of the same model, or of the same rival, with nothing else said.
fn default_of(config: &Value) -> Option<Value> {
    #[cfg(feature = "train")]
    if config.get("rival").is_some() {
        use crate::baselines::RivalConfig;
        use crate::learn::rivals::RivalTrainConfig;
        let parsed = serde_json::from_value::<RivalTrainConfig>(config.clone()).ok()?;
        return as_written(&RivalTrainConfig::new(RivalConfig::named(parsed.rival.name()).ok()?));
    }
    let parsed = serde_json::from_value::<TrainConfig>(config.clone()).ok()?;
    as_written(&TrainConfig::new(parsed.model))
}

/// What a configuration's file would hold: numbers of few bits do not get more digits.
fn as_written(config: &impl serde::Serialize) -> Option<Value> {
    serde_json::from_str(&serde_json::to_string(config).ok()?).ok()
}

fn differences(name: &str, found: &Value, default: &Value, rows: &mut Vec<Value>) {
    match (found, default) {
        (Value::Object(found), Value::Object(default)) => {
            for (key, value) in found {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                differences(&name, value, default.get(key).unwrap_or(&Value::Null), rows);
            }
        }
        _ if found != default => {
            let text = |value: &Value| if value.is_null() { "none".into() } else { value.to_string() };
            rows.push(json!({ "name": name, "value": text(found), "default": text(default) }));
        }
        _ => {}
    }
}

/// Where the seconds of all epochs went.
fn times(run: &Found) -> Vec<Value> {
    let phases = ["reading", "coding", "measuring", "statistics", "dictionaries"];
    let sum = |part: &str, phase: &str| -> f64 {
        run.epochs().filter_map(|record| record[part]["seconds"][phase].as_f64()).sum()
    };
    let mut rows: Vec<(String, f64)> = phases.map(|phase| (format!("training: {phase}"), sum("train", phase))).into();
    rows.push(("held-out signals".into(), phases.iter().map(|phase| sum("test", phase)).sum()));
    let total: f64 = rows.iter().map(|(_, seconds)| seconds).sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let row = |(name, seconds): (String, f64)| json!({ "name": name, "seconds": format!("{seconds:.1}"), "share": format!("{:.0}%", 100.0 * seconds / total) });
    rows.into_iter().filter(|(_, seconds)| *seconds > 0.0).map(row).collect()
}

/// Entries of largest magnitude, with their places.
fn largest(values: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut all: Vec<(usize, f32)> = values.iter().copied().enumerate().filter(|(_, value)| *value != 0.0).collect();
    all.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    all.truncate(count);
    all
}

/// The atoms of all layers and some signals, looked at.
struct Looked<'a> {
    model: &'a Mlcsc,
    sheets: Sheets,
    /// Sheet of the atoms of every layer.
    of_layers: Vec<usize>,
    /// Atoms of every layer that are on it.
    shown_atoms: Vec<usize>,
    filters: Vec<Vec<f32>>,
}

impl<'a> Looked<'a> {
    fn new(model: &'a Mlcsc) -> Result<Self> {
        let mut sheets = Sheets::default();
        let (mut of_layers, mut shown_atoms) = (Vec::new(), Vec::new());
        for depth in 1..=model.depth() {
            let atoms = model.effective_filters(depth);
            shown_atoms.push(shown_of(atoms.dims()));
            of_layers.push(sheets.add(Gallery::sheet(&atoms)?));
        }
        let filters = model.filters().into_iter().map(to_host).collect();
        Ok(Self { model, sheets, of_layers, shown_atoms, filters })
    }

    /// The layers' atoms as the page has them.
    fn layers(&self, codes: Option<&Codes>) -> Vec<Value> {
        let layer = |depth: usize| {
            let atoms = self.model.effective_filters(depth);
            let usage = codes.map(|codes| Usage::of(&codes.representations()[depth - 1]));
            let gallery = Gallery {
                id: format!("atoms-{depth}"),
                heading: format!("Atoms of D({depth})"),
                atoms: &atoms,
                quantities: usage.map(Vec::<Quantity>::from).unwrap_or_default(),
            };
            gallery.draw(&self.sheets, self.of_layers[depth - 1])
        };
        (1..=self.model.depth()).map(layer).collect()
    }

    /// The atoms of the layer below that an atom is made of.
    fn parts(&self, layer: usize, atom: usize) -> Vec<Value> {
        let Some(below) = layer.checked_sub(1) else { return Vec::new() };
        let [_, channels, height, width] = self.model.filters()[layer].dims();
        let len = channels * height * width;
        let entries = largest(&self.filters[layer][atom * len..(atom + 1) * len], PARTS);
        entries.into_iter().map(|(place, value)| self.node(below, place / (height * width), value)).collect()
    }

    fn node(&self, layer: usize, atom: usize, value: f32) -> Value {
        // Not on the sheet: the first atom's place would be a lie.
        if atom >= self.shown_atoms[layer] {
            return json!({ "tile": Value::Null, "text": format!("atom {}, {value:.3}", atom + 1), "parts": [] });
        }
        let name = format!("D({}) atom {}", layer + 1, atom + 1);
        json!({
            "tile": self.sheets.tile(self.of_layers[layer], atom, name.clone()),
            "text": format!("{name}: {value:.3}"),
            "parts": self.parts(layer, atom),
        })
    }

    /// Some signals beside their reconstructions.
    fn examples(&mut self, signals: &Tensor<4>, reconstructions: &Tensor<4>, codes: &Codes) -> Result<Vec<Value>> {
        let count = SHOWN.min(signals.dims()[0]);
        let [shown_signals, shown_made] = beside(&mut self.sheets, signals, reconstructions)?;
        let [_, _, height, width] = codes.deepest().dims();
        let deepest = to_host(codes.deepest().clone().narrow(0, 0, count));
        let (len, layer) = (deepest.len() / count.max(1), self.model.depth() - 1);
        let example = |index: usize| {
            let report = &codes.reports()[index];
            let terms = largest(&deepest[index * len..(index + 1) * len], TERMS);
            let parts = terms.into_iter().map(|(place, value)| self.node(layer, place / (height * width), value));
            json!({
                "signal": self.sheets.tile(shown_signals, index, "signal".into()),
                "reconstruction": self.sheets.tile(shown_made, index, "reconstruction".into()),
                "text": format!(
                    "{}, objective {}, at most {:.0e} of it above the minimum",
                    counted(report.nonzeros, "non-zero"), shown(report.objective.into()), report.relative_gap
                ),
                "parts": parts.collect::<Value>(),
            })
        };
        Ok((0..count).map(example).collect())
    }
}

/// The histogram of how often atoms are used.
fn firing(usage: &Usage) -> Value {
    let mut counts = vec![0usize; BINS.len()];
    for share in &usage.share {
        let bin = BINS.iter().position(|end| 100.0 * share <= *end).unwrap_or(BINS.len() - 1);
        counts[bin] += 1;
    }
    let name = |bin: usize| if bin == 0 { "never".into() } else { format!("≤ {}%", BINS[bin]) };
    bars(&counts.into_iter().enumerate().map(|(bin, count)| (name(bin), count)).collect::<Vec<_>>())
}

/// The layers as boxes with arrows.
fn drawing(model: &Mlcsc) -> Result<Value> {
    let geometry = model.config().geometry()?;
    let mut boxes = vec![json!({ "x": 0, "name": "signal", "shape": geometry.signal().to_string() })];
    for (index, layer) in geometry.layers().iter().enumerate() {
        let [height, width] = layer.kernel;
        let [down, across] = layer.stride;
        let stride = if down == across { down.to_string() } else { format!("{down}×{across}") };
        boxes[index]["arrow"] = json!(format!("D_{}, stride {stride}", index + 1));
        boxes[index]["kernel"] = json!(format!("{height}×{width}"));
        boxes.push(
            json!({ "x": 240 * (index + 1), "name": format!("γ_{}", index + 1), "shape": layer.code.to_string() }),
        );
    }
    Ok(json!({ "width": 240 * (boxes.len() - 1) + 130, "boxes": boxes }))
}

/// The first held-out signals, as many as are looked at where one has codes of so many values.
///
/// # Errors
/// Signals that cannot be read.
fn first_signals(source: &dyn Source, longest: usize, device: &Device) -> Result<Tensor<4>> {
    let count = SIGNALS.min(source.len()).min((VALUES / longest.max(1)).max(1));
    let mut values = vec![0.0; count * source.shape().len()];
    source.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
    Ok(Tensor::from_data(TensorData::new(values, source.shape().batched(count)), device))
}

/// The sheets of the signals that are shown, and of what was made of them.
fn beside(sheets: &mut Sheets, signals: &Tensor<4>, reconstructions: &Tensor<4>) -> Result<[usize; 2]> {
    let count = SHOWN.min(signals.dims()[0]);
    let [signals, made] = [signals, reconstructions].map(|images| images.clone().narrow(0, 0, count));
    let [signals, made] = Sheet::of_pair(signals, made)?;
    Ok([sheets.add(signals), sheets.add(made)])
}

/// The title of the histogram of firing.
fn firing_title(signals: usize) -> String {
    format!("Atoms of the deepest layer by the share of {signals} held-out signals that use them")
}

/// Writes a page about the run in a folder: what was asked, curves, atoms of every layer, held-out signals beside their
/// reconstructions, how often atoms fire, where the time went. Without `held_out` nothing is said of signals.
///
/// # Errors
/// Files of the run that cannot be read; a model that does not fit the signals; a page that cannot be written.
pub fn write(
    path: &Path,
    folder: &Path,
    model: &Mlcsc,
    coding: &CodingDefaults,
    held_out: Option<&dyn Source>,
    origin: &Origin,
) -> Result<()> {
    let run = Found::read(folder)?;
    let mut looked = Looked::new(model)?;
    let mut context = run.context(origin);
    let mut codes = None;
    if let Some(source) = held_out {
        let coder = CoderConfig::new(coding).init_for(model, source.shape())?;
        let longest = coder.operator().geometry().layers().iter().map(|layer| layer.code.len()).max().unwrap_or(1);
        let signals = first_signals(source, longest, &model.device())?;
        let found = coder.encode(signals.clone())?;
        context["examples"] = json!(looked.examples(&signals, &coder.decode(&found)?, &found)?);
        context["examples_text"] = json!(
            "Signal, reconstruction, and the largest coefficients of the deepest code; open an atom to see the parts that it is made \
             of, layer by layer."
        );
        context["firing"] = firing(&Usage::of(found.deepest()));
        context["firing_title"] = json!(firing_title(signals.dims()[0]));
        codes = Some(found);
    }
    context["layers"] = json!(looked.layers(codes.as_ref()));
    context["drawing"] = drawing(model)?;
    context["sheets"] = json!(looked.sheets.0);
    write_page(path, "run", &context)
}

/// Writes a page about the run of one of the model's rivals in a folder: what was asked, curves, atoms, held-out signals beside their
/// reconstructions, how often atoms fire. Without `held_out` nothing is said of signals.
///
/// # Errors
/// As [`write()`].
#[cfg(feature = "train")]
pub fn write_rival(
    path: &Path,
    folder: &Path,
    rival: &dyn Autoencoder,
    held_out: Option<(&dyn Source, &Device)>,
    origin: &Origin,
) -> Result<()> {
    let run = Found::read(folder)?;
    let mut context = run.context(origin);
    let mut sheets = Sheets::default();
    let mut quantities = Vec::new();
    if let Some((source, device)) = held_out {
        let signals = first_signals(source, rival.code().len(), device)?;
        let coded = rival.ready()?.reconstruct(signals.clone())?;
        let usage = Usage::of(&coded.codes);
        context["firing"] = firing(&usage);
        context["firing_title"] = json!(firing_title(signals.dims()[0]));
        quantities = usage.into();
        if can_be_drawn(signals.dims()) {
            context["examples"] = rival_examples(&mut sheets, &signals, &coded)?;
            context["examples_text"] = json!("Signal and reconstruction.");
        }
    }
    let atoms = rival.atoms();
    if can_be_drawn(atoms.dims()) {
        let sheet = sheets.add(Gallery::sheet(&atoms)?);
        let gallery = Gallery { id: "atoms-1".into(), heading: "Atoms".into(), atoms: &atoms, quantities };
        context["layers"] = json!([gallery.draw(&sheets, sheet)]);
    }
    context["sheets"] = json!(sheets.0);
    write_page(path, "run", &context)
}

/// Held-out signals beside what a rival makes of them.
#[cfg(feature = "train")]
fn rival_examples(sheets: &mut Sheets, signals: &Tensor<4>, coded: &Coded) -> Result<Value> {
    let [shown_signals, shown_made] = beside(sheets, signals, &coded.reconstruction)?;
    let count = SHOWN.min(signals.dims()[0]);
    let codes = to_host(coded.codes.clone().narrow(0, 0, count));
    let nonzeros = codes
        .chunks_exact(coded.codes.dims()[1..].iter().product::<usize>().max(1))
        .map(|code| code.iter().filter(|value| **value != 0.0).count());
    let example = |(index, nonzeros): (usize, usize)| {
        json!({
            "signal": sheets.tile(shown_signals, index, "signal".into()),
            "reconstruction": sheets.tile(shown_made, index, "reconstruction".into()),
            "text": counted(nonzeros, "non-zero"),
            "parts": [],
        })
    };
    Ok(nonzeros.enumerate().map(example).collect())
}

/// A page on which runs stand side by side: last values, and curves in one plot each.
///
/// # Errors
/// A folder that holds no run; a page that cannot be written.
pub fn compare(folders: &[PathBuf], path: &Path) -> Result<()> {
    let runs = folders.iter().map(|folder| Found::read(folder)).collect::<Result<Vec<_>>>()?;
    type Row = (&'static str, fn(&Found) -> Option<f64>);
    let rows: [Row; 7] = [
        ("epochs", |run| run.last("/epoch")),
        ("objective", |run| run.last("/test/objective")),
        ("PSNR in dB", |run| run.last("/test/psnr")),
        ("variance unexplained", |run| run.last("/test/fvu")),
        ("non-zeros of the deepest codes", Found::last_nonzeros),
        ("dead atoms or units", |run| run.last("/test/dead_atoms").or_else(|| run.last("/test/dead_units"))),
        ("signals per second in training", |run| run.last("/train/signals_per_second")),
    ];
    let row = |(name, last): Row| {
        let values = runs.iter().map(|run| last(run).map_or("–".into(), shown));
        std::iter::once(name.to_owned()).chain(values).collect()
    };
    let heading = std::iter::once(String::new()).chain(runs.iter().map(|run| run.name.clone())).collect();
    let differing = runs.iter().flat_map(|run| {
        settings(&run.config).into_iter().map(|mut row| {
            row["name"] = json!(format!("{}: {}", run.name, row["name"].as_str().unwrap_or("")));
            row
        })
    });
    let table = std::iter::once(heading).chain(rows.into_iter().map(row)).collect();
    let head = Head { table, ..Head::default() };
    let mut context = head.context("Runs side by side", &Origin::default());
    context["curves"] = json!(curves(&runs));
    context["settings"] = differing.collect();
    context["settings_heading"] = json!(DIFFERENT);
    let folders: Vec<_> = folders.iter().map(|folder| ("run".to_owned(), folder.display().to_string())).collect();
    context["reproduce"] = pairs(&folders);
    write_page(path, "run", &context)
}

#[cfg(test)]
mod tests {
    use super::super::REPORT;
    use super::*;
    use crate::data::{self, DataConfig};
    use crate::model::preset::Preset;
    use base64::Engine;

    /// A run's folder with two epochs, a model with random filters.
    fn run(folder: &Path) -> (Mlcsc, CodingDefaults) {
        let config = TrainConfig::preset(Preset::Small);
        fs::write(folder.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
        let epoch = |epoch: usize| {
            json!({
                "kind": "epoch", "epoch": epoch,
                "train": { "objective": 8.0 / epoch as f64, "seconds": { "coding": 1.5 }, "signals_per_second": 100.0 },
                "test": { "objective": 9.0, "psnr": 20.0, "fvu": null, "nonzeros": [3.0, 2.0, 1.0], "dead_atoms": 2 },
            })
        };
        // The last line is half written, as after a kill.
        let lines = format!("{}\n{{\"kind\":\"step\"}}\n{}\n{{\"kind\":\"ep", epoch(1), epoch(2));
        fs::write(RunFolder::new(folder).metrics(), lines).unwrap();
        let device = crate::device::named(None).unwrap();
        (config.model.init_random(1, &device).unwrap(), config.coding())
    }

    #[test]
    fn a_run_is_one_page_that_needs_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (model, coding) = run(folder.path());
        let path = folder.path().join(REPORT);
        let origin = Origin { device: "flex".into(), ..Origin::default() };
        let digits = data::open(&DataConfig { count: Some(30), ..DataConfig::default() }).unwrap();
        write(&path, folder.path(), &model, &coding, Some(&*digits.test), &origin).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.len() < 3_000_000, "{} bytes", page.len());
        for part in ["atoms-1", "atoms-3", "data:image/png;base64,", "epoch 2: 4", "2 of 10 epochs", "2 atoms of"] {
            assert!(page.contains(part), "no {part}");
        }
        assert_eq!(page.matches("data-coherence=").count(), 16 + 48 + 256);
        assert_eq!(page.matches("class=\"signal\"").count(), 5);
        for part in ["http:", "https:", "src=", "{{", "{%", "&#x2f;9j"] {
            assert!(!page.contains(part), "{part}");
        }
        // What is the default is no setting.
        assert!(!page.contains("data.held_out") && !page.contains("default 0.10000000"));
        // Every sheet is a picture.
        for picture in page.split("base64,").skip(1) {
            let text = picture.split(')').next().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            assert!(image::load_from_memory(&bytes).is_ok());
        }
        write(&path, folder.path(), &model, &coding, None, &origin).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("Held-out signals</h2>"));
    }

    #[test]
    fn runs_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["one", "other <run>"].map(|name| folder.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            run(folder);
        }
        let path = folder.path().join("both.html");
        compare(&folders, &path).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains("other &lt;run&gt;") && !page.contains("<run>"));
        assert!(page.contains("one, held out, epoch 2: 9"));
        assert!(compare(&[folder.path().join("none")], &path).is_err());
    }
}
