//! A page about a run, or about several side by side: one HTML file that needs nothing from elsewhere.

use crate::coder::{CoderConfig, Codes};
use crate::data::Source;
use crate::error::{Error, Result};
use crate::files;
use crate::kernels::sparse::to_host;
use crate::learn::TrainConfig;
use crate::learn::run::METRICS;
use crate::model::Mlcsc;
use crate::model::file::CodingDefaults;
use base64::Engine;
use burn::tensor::{Tensor, TensorData};
use image::{ImageFormat, RgbImage};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Name of the page in a run's folder.
pub const REPORT: &str = "report.html";

/// Held-out signals that are looked at, at most.
const SIGNALS: usize = 500;

/// Values of their largest representation at most.
const VALUES: usize = 1 << 24;

/// Held-out signals that are shown, terms of each, and parts of an atom.
const SHOWN: usize = 8;
const TERMS: usize = 8;
const PARTS: usize = 5;

/// Atoms of a layer that are shown, at most.
const ATOMS: usize = 2048;

/// Pixels that a tile has at most on the page, where its samples are few.
const TILE: usize = 56;

/// Upper ends, in per cent, of the bins of the histogram of firing.
const BINS: [f64; 6] = [0.0, 0.3, 1.0, 3.0, 10.0, 100.0];

const TEMPLATE: &str = include_str!("report.html");

/// Tiles on one picture.
#[derive(Debug, Clone, Serialize)]
struct Sheet {
    width: usize,
    height: usize,
    sheet_width: usize,
    sheet_height: usize,
    png: String,
    #[serde(skip)]
    columns: usize,
}

impl Sheet {
    /// Every image scaled by its own largest magnitude with mid-grey for 0, or, where values are `bounded`, from [0, 1].
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]`.
    fn new(images: Tensor<4>, bounded: bool) -> Result<Self> {
        let [count, channels, height, width] = images.dims();
        let values = to_host(images);
        // Three channels are colours; any other number lie side by side.
        let [across, colours] = if channels == 3 { [width, 3] } else { [width * channels, 1] };
        let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
        let mut picture = RgbImage::new((columns * across) as u32, (count.div_ceil(columns) * height).max(1) as u32);
        for (index, image) in values.chunks_exact(channels * height * width).enumerate() {
            let largest = image.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let byte = |value: f32| {
                let part = match (bounded, largest > 0.0) {
                    (true, _) => value,
                    (false, true) => 0.5 + 0.5 * value / largest,
                    (false, false) => 0.5,
                };
                (255.0 * part.clamp(0.0, 1.0)).round() as u8
            };
            let [left, top] = [index % columns * across, index / columns * height];
            for row in 0..height {
                for column in 0..across {
                    let at = |colour: usize| {
                        let (channel, column) =
                            if colours == 3 { (colour, column) } else { (column / width, column % width) };
                        byte(image[(channel * height + row) * width + column])
                    };
                    let pixel = if colours == 3 { [at(0), at(1), at(2)] } else { [at(0); 3] };
                    picture.put_pixel((left + column) as u32, (top + row) as u32, image::Rgb(pixel));
                }
            }
        }
        let mut png = Cursor::new(Vec::new());
        let (wide, tall) = picture.dimensions();
        let picture = image::DynamicImage::from(picture);
        let picture = if colours == 3 { picture } else { picture.to_luma8().into() };
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::format(Path::new(REPORT), error.to_string()))?;
        let zoom = (TILE / height.max(across)).max(1);
        Ok(Self {
            width: zoom * across,
            height: zoom * height,
            sheet_width: zoom * wide as usize,
            sheet_height: zoom * tall as usize,
            png: base64::engine::general_purpose::STANDARD.encode(png.into_inner()),
            columns,
        })
    }

    /// Where a tile lies.
    fn place(&self, index: usize) -> [usize; 2] {
        [index % self.columns * self.width, index / self.columns * self.height]
    }
}

/// The sheets of a page.
#[derive(Default)]
struct Sheets(Vec<Sheet>);

impl Sheets {
    fn add(&mut self, sheet: Sheet) -> usize {
        self.0.push(sheet);
        self.0.len() - 1
    }

    fn tile(&self, sheet: usize, index: usize, title: String) -> Value {
        let [x, y] = self.0[sheet].place(index);
        json!({ "sheet": sheet, "x": x, "y": y, "title": title })
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
        let path = crate::learn::run::config_path(folder)?;
        let text = files::read_whole(&path)?;
        let config = serde_json::from_slice(&text).map_err(|error| Error::format(&path, error.to_string()))?;
        let path = folder.join(METRICS);
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
}

/// Numbers as pages show them.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.3}"),
        size if size >= 1e-3 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A plot of some lines; `None` where none has a point.
fn plot(title: &str, lines: Vec<(String, Vec<(f64, f64)>)>) -> Option<Value> {
    let lines: Vec<_> = lines.into_iter().filter(|(_, points)| !points.is_empty()).collect();
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (left, right) = range(&mut points().map(|(x, _)| x));
    let (low, high) = range(&mut points().map(|(_, y)| y));
    if !(low.is_finite() && high.is_finite()) {
        return None;
    }
    let (right, margin) = (right.max(left + 1.0), 0.06 * (high - low));
    // A line that is level lies in the middle.
    let margin = if margin > 0.0 { margin } else { 0.5 * high.abs() + if high == 0.0 { 1.0 } else { 0.0 } };
    let (low, high) = (low - margin, high + margin);
    let across = |x: f64| (52.0 + 300.0 * (x - left) / (right - left)).round();
    let up = |y: f64| (160.0 - 150.0 * (y - low) / (high - low)).round();
    let tick = |at: f64, text: String| json!({ "at": at, "text": text });
    let ups = (0..4).map(|step| low + (high - low) * (0.05 + 0.3 * f64::from(step)));
    let steps = (right - left).round().clamp(1.0, 5.0) as i32;
    let acrosses: Vec<Value> = (0..=steps)
        .map(|step| (left + (right - left) * f64::from(step) / f64::from(steps)).round())
        .map(|x| tick(across(x), format!("{x}")))
        .collect();
    let lines = lines.iter().map(|(name, points)| {
        let dots = points
            .iter()
            .map(|&(x, y)| json!({ "x": across(x), "y": up(y), "text": format!("{name}, epoch {x}: {}", shown(y)) }));
        let text: Vec<String> = points.iter().map(|&(x, y)| format!("{},{}", across(x), up(y))).collect();
        json!({ "name": name, "points": text.join(" "), "dots": dots.collect::<Value>() })
    });
    Some(json!({
        "title": title,
        "ups": ups.map(|y| tick(up(y), shown(y))).collect::<Value>(),
        "acrosses": acrosses,
        "lines": lines.collect::<Value>(),
    }))
}

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
            match layers("/test/nonzeros") {
                0 => vec![one("held out", "/test/nonzeros")],
                _ => indexed("γ", "/test/nonzeros"),
            },
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
            .flat_map(|run| lines.iter().map(|(name, pointer)| (named(run, name), run.series(pointer))))
            .collect();
        plot(title, lines)
    };
    plots.into_iter().filter_map(of).collect()
}

/// What was asked for where it is not the default.
fn settings(config: &Value) -> Vec<Value> {
    let Ok(parsed) = serde_json::from_value::<TrainConfig>(config.clone()) else { return Vec::new() };
    let default = json!(TrainConfig::new(parsed.model));
    let mut rows = Vec::new();
    differences("", config, &default, &mut rows);
    rows
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

/// How the atoms of one layer are used by some codes.
struct Usage {
    /// Part of the signals that use it.
    share: Vec<f64>,
    /// Mean energy of its coefficients a signal.
    energy: Vec<f64>,
}

impl Usage {
    fn of(codes: &Tensor<4>) -> Self {
        let [count, atoms, height, width] = codes.dims();
        let values = to_host(codes.clone());
        let (mut share, mut energy) = (vec![0.0; atoms], vec![0.0; atoms]);
        for signal in values.chunks_exact(atoms * height * width) {
            for (atom, map) in signal.chunks_exact(height * width).enumerate() {
                share[atom] += if map.iter().any(|value| *value != 0.0) { 1.0 } else { 0.0 };
                energy[atom] += map.iter().map(|value| f64::from(value * value)).sum::<f64>();
            }
        }
        share.iter_mut().chain(&mut energy).for_each(|value| *value /= count.max(1) as f64);
        Self { share, energy }
    }
}

/// Of every atom that is shown the largest correlation with another of its layer, both where they lie.
fn coherences(atoms: &Tensor<4>) -> Vec<f32> {
    let [count, ..] = atoms.dims();
    let rows = atoms.clone().reshape([count as i32, -1]);
    let norms = rows.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
    let rows = rows / norms;
    // Of those that are shown with all: never as many products as a large layer has pairs.
    let products = to_host(rows.clone().narrow(0, 0, count.min(ATOMS)).matmul(rows.transpose()));
    let of = |(atom, row): (usize, &[f32])| {
        let others = row.iter().enumerate().filter(|(other, _)| *other != atom);
        others.fold(0.0f32, |largest, (_, value)| largest.max(value.abs()))
    };
    products.chunks_exact(count).enumerate().map(of).collect()
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
    filters: Vec<Vec<f32>>,
}

impl<'a> Looked<'a> {
    fn new(model: &'a Mlcsc) -> Result<Self> {
        let mut sheets = Sheets::default();
        let mut of_layers = Vec::new();
        for depth in 1..=model.depth() {
            let atoms = model.effective_filters(depth);
            let count = atoms.dims()[0].min(ATOMS);
            of_layers.push(sheets.add(Sheet::new(atoms.narrow(0, 0, count), false)?));
        }
        let filters = model.filters().into_iter().map(to_host).collect();
        Ok(Self { model, sheets, of_layers, filters })
    }

    /// The layers' atoms as the page has them.
    fn layers(&self, codes: Option<&Codes>) -> Vec<Value> {
        let layer = |depth: usize| {
            let atoms = self.model.effective_filters(depth);
            let [count, channels, height, width] = atoms.dims();
            let coherences = coherences(&atoms);
            let usage = codes.map(|codes| Usage::of(&codes.representations()[depth - 1]));
            let sheet = self.of_layers[depth - 1];
            let tiles = (0..count.min(ATOMS)).map(|atom| {
                let [x, y] = self.sheets.0[sheet].place(atom);
                let share = usage.as_ref().map_or(0.0, |usage| usage.share[atom]);
                let energy = usage.as_ref().map_or(0.0, |usage| usage.energy[atom]);
                let title = format!(
                    "atom {}: used by {:.1}% of the signals, energy {}, coherence {:.2}",
                    atom + 1,
                    100.0 * share,
                    shown(energy),
                    coherences[atom]
                );
                json!({ "x": x, "y": y, "number": atom, "usage": share, "energy": energy, "coherence": coherences[atom], "title": title })
            });
            let more = if count > ATOMS { format!(", the first {ATOMS} of them") } else { String::new() };
            json!({
                "id": format!("atoms-{depth}"),
                "sheet": sheet,
                "text": format!("{count} atoms of {channels}×{height}×{width}{more}, each scaled by itself, grey for 0."),
                "atoms": tiles.collect::<Value>(),
            })
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
        if atom >= ATOMS {
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
        let values = to_host(signals.clone().narrow(0, 0, count));
        let bounded = values.iter().all(|value| (0.0..=1.0).contains(value));
        let shown_signals = self.sheets.add(Sheet::new(signals.clone().narrow(0, 0, count), bounded)?);
        let shown_made = self.sheets.add(Sheet::new(reconstructions.clone().narrow(0, 0, count), bounded)?);
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
                    "{} non-zeros, objective {}, at most {:.0e} of it above the minimum",
                    report.nonzeros, shown(report.objective.into()), report.relative_gap
                ),
                "parts": parts.collect::<Value>(),
            })
        };
        Ok((0..count).map(example).collect())
    }
}

/// The histogram of how often atoms are used.
fn firing(usage: &Usage) -> Vec<Value> {
    let mut counts = vec![0usize; BINS.len()];
    for share in &usage.share {
        let bin = BINS.iter().position(|end| 100.0 * share <= *end).unwrap_or(BINS.len() - 1);
        counts[bin] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let name = |bin: usize| if bin == 0 { "never".into() } else { format!("≤ {}%", BINS[bin]) };
    let bar =
        |(bin, &count): (usize, &usize)| json!({ "count": count, "height": 100 * count / most, "name": name(bin) });
    counts.iter().enumerate().map(bar).collect()
}

/// The layers as boxes with arrows.
fn drawing(model: &Mlcsc) -> Result<Value> {
    let geometry = model.config().geometry()?;
    let mut boxes = vec![json!({ "x": 0, "name": "signal", "shape": geometry.signal().to_string() })];
    for (index, layer) in geometry.layers().iter().enumerate() {
        let [height, width] = layer.kernel;
        boxes[index]["arrow"] = json!(format!("D_{}, stride {}", index + 1, layer.stride[0]));
        boxes[index]["kernel"] = json!(format!("{height}×{width}"));
        boxes.push(
            json!({ "x": 240 * (index + 1), "name": format!("γ_{}", index + 1), "shape": layer.code.to_string() }),
        );
    }
    Ok(json!({ "width": 240 * (boxes.len() - 1) + 130, "boxes": boxes }))
}

fn render(context: Value) -> Result<String> {
    let mut environment = minijinja::Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    let failed = |error: minijinja::Error| Error::format(Path::new(REPORT), error.to_string());
    environment.add_template("report", TEMPLATE).map_err(failed)?;
    environment.get_template("report").and_then(|template| template.render(context)).map_err(failed)
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
    device: &str,
) -> Result<()> {
    let run = Found::read(folder)?;
    let mut looked = Looked::new(model)?;
    let mut context = json!({ "title": format!("{} – mlcsc", run.name), "sheets": [], "warnings": [] });
    let mut codes = None;
    if let Some(source) = held_out {
        let coder = CoderConfig::new(coding).init_for(model, source.shape())?;
        let longest = coder.operator().geometry().layers().iter().map(|layer| layer.code.len()).max().unwrap_or(1);
        let count = SIGNALS.min(source.len()).min((VALUES / longest).max(1));
        let mut values = vec![0.0; count * source.shape().len()];
        source.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
        let data = TensorData::new(values, source.shape().batched(count));
        let signals: Tensor<4> = Tensor::from_data(data, &model.device());
        let found = coder.encode(signals.clone())?;
        context["examples"] = json!(looked.examples(&signals, &coder.decode(&found)?, &found)?);
        context["firing"] = json!(firing(&Usage::of(found.deepest())));
        context["signals_looked_at"] = json!(count);
        codes = Some(found);
    }
    context["layers"] = json!(looked.layers(codes.as_ref()));
    context["drawing"] = drawing(model)?;
    context["sheets"] = json!(looked.sheets.0);
    let epochs = run.epochs().count();
    let wanted = run.config.pointer("/learning/epochs").and_then(Value::as_u64).unwrap_or(0);
    let source = run.config.pointer("/data/source").and_then(Value::as_str).unwrap_or("").to_owned();
    let method = run.config.pointer("/learning/update").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut lead = vec![format!("Learned from {source} by --method {method}: {epochs} of {wanted} epochs are done.")];
    let last = |name: &str, pointer: &str| run.last(pointer).map(|value| format!("{name} {}", shown(value)));
    let values = [
        last("objective", "/test/objective"),
        last("PSNR in dB", "/test/psnr"),
        last("fraction of variance unexplained", "/test/fvu"),
    ];
    let values: Vec<String> = values.into_iter().flatten().collect();
    if !values.is_empty() {
        lead.push(format!("Held-out signals after the last epoch: {}.", values.join(", ")));
    }
    if let Some(kept) = run.last("/kept/epoch") {
        lead.push(format!("The state that is kept, and shown once the run is done, is that after epoch {kept}."));
    }
    context["lead"] = json!(lead);
    if let Some(dead) = run.last("/test/dead_atoms").filter(|dead| *dead > 0.0) {
        context["warnings"] = json!([format!("{dead} atoms of the deepest layer are used by no held-out signal.")]);
    }
    context["curves"] = json!(curves(std::slice::from_ref(&run)));
    context["settings"] = json!(settings(&run.config));
    context["times"] = json!(times(&run));
    let seed = run.config.pointer("/learning/seed").map(Value::to_string).unwrap_or_default();
    let data_seed = run.config.pointer("/data/seed").map(Value::to_string).unwrap_or_default();
    let rows = [
        ("to go on", format!("mlcsc train --resume --out {}", folder.display())),
        ("the same again", format!("mlcsc train --config {}", folder.join("config.json").display())),
        ("seeds", format!("{seed}, of the data {data_seed}")),
        ("versions", format!("mlcsc {}, burn {}, device {device}", env!("CARGO_PKG_VERSION"), BURN)),
    ];
    context["reproduce"] = rows.map(|(name, value)| json!({ "name": name, "value": value })).into_iter().collect();
    files::write_bytes(path, render(context)?.as_bytes())
}

/// The version that `Cargo.toml` pins.
const BURN: &str = "0.22.1";

/// A page on which runs stand side by side: last values, and curves in one plot each.
///
/// # Errors
/// A folder that holds no run; a page that cannot be written.
pub fn compare(folders: &[PathBuf], path: &Path) -> Result<()> {
    let runs = folders.iter().map(|folder| Found::read(folder)).collect::<Result<Vec<_>>>()?;
    let rows = [
        ("epochs", "/epoch"),
        ("objective", "/test/objective"),
        ("PSNR in dB", "/test/psnr"),
        ("variance unexplained", "/test/fvu"),
        ("dead atoms", "/test/dead_atoms"),
        ("signals per second in training", "/train/signals_per_second"),
    ];
    let row = |(name, pointer): (&str, &str)| {
        let values: Vec<String> = runs.iter().map(|run| run.last(pointer).map_or("–".into(), shown)).collect();
        json!({ "name": name, "values": values })
    };
    let differing = runs.iter().flat_map(|run| {
        settings(&run.config).into_iter().map(|mut row| {
            row["name"] = json!(format!("{}: {}", run.name, row["name"].as_str().unwrap_or("")));
            row
        })
    });
    let context = json!({
        "title": match &runs[..] {
            [run] => format!("{} – mlcsc", run.name),
            _ => "Runs side by side – mlcsc".into(),
        },
        "lead": [],
        "warnings": [],
        "sheets": [],
        "summary": {
            "runs": runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>(),
            "rows": rows.map(row).into_iter().collect::<Value>(),
        },
        "curves": curves(&runs),
        "settings": differing.collect::<Value>(),
        "reproduce": folders.iter().map(|folder| json!({ "name": "run", "value": folder.display().to_string() })).collect::<Value>(),
    });
    files::write_bytes(path, render(context)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, DataConfig};
    use crate::model::preset::Preset;

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
        fs::write(folder.join(METRICS), lines).unwrap();
        let device = crate::device::named(None).unwrap();
        (config.model.init_random(1, &device).unwrap(), config.coding())
    }

    #[test]
    fn a_run_is_one_page_that_needs_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (model, coding) = run(folder.path());
        let path = folder.path().join(REPORT);
        let digits = data::open(&DataConfig { count: Some(30), ..DataConfig::default() }).unwrap();
        write(&path, folder.path(), &model, &coding, Some(&*digits.test), "flex").unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.len() < 3_000_000, "{} bytes", page.len());
        for part in ["atoms-1", "atoms-3", "data:image/png;base64,", "epoch 2: 4.000", "2 of 10 epochs", "2 atoms of"] {
            assert!(page.contains(part), "no {part}");
        }
        assert_eq!(page.matches("data-coherence=").count(), 16 + 48 + 256);
        assert_eq!(page.matches("class=\"signal\"").count(), 5);
        for part in ["http:", "https:", "src=", "{{", "{%", "&#x2f;9j"] {
            assert!(!page.contains(part), "{part}");
        }
        // Every sheet is a picture.
        for picture in page.split("base64,").skip(1) {
            let text = picture.split(')').next().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            assert!(image::load_from_memory(&bytes).is_ok());
        }
        write(&path, folder.path(), &model, &coding, None, "flex").unwrap();
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
        assert!(page.contains("one, held out, epoch 2: 9.000"));
        assert!(compare(&[folder.path().join("none")], &path).is_err());
    }

    #[test]
    fn the_version_is_the_pinned_one() {
        assert!(include_str!("../../Cargo.toml").contains(&format!("\"={BURN}\"")));
    }

    #[test]
    fn numbers_and_plots_of_odd_values() {
        assert_eq!([0.0, 12345.6, 0.25, -3.0, 1e-9].map(shown), ["0", "12346", "0.2500", "-3.000", "1.0e-9"]);
        assert!(plot("", vec![("a".into(), Vec::new())]).is_none());
        let level = plot("", vec![("a".into(), vec![(1.0, 0.0), (2.0, 0.0)])]).unwrap();
        assert_eq!(level["lines"][0]["dots"][0]["y"], 85.0);
    }
}
