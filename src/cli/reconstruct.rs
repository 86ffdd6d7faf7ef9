//! `mlcsc reconstruct`: signals, or their codes, to reconstructions.

use super::coding::{self, Coders, CodingArgs, PURSUIT_FLAGS};
use super::data::{InputArgs, ShardArgs, Signals};
use super::foreign::{self, Encoder};
use super::inputs::Inputs;
use super::output::{Summary, counted, grouped};
use super::progress::Progress;
use super::{flags, interrupt, output};
use crate::data::layout::{self, Layout};
use crate::data::quality::Quality;
use crate::data::{Part, encode_recording, is_deep, sampling_rate};
use crate::error::{Error, Result};
use crate::export::codes::{self, CHANNEL_AXIS, CodesFormat, FILTERS, LAYOUT, PART, digest_of_filters};
use crate::export::{CodesReader, arrays, mosaic};
use crate::files;
use crate::geometry::SignalShape;
use crate::kernels::sparse::to_host;
use crate::model::file::CodingDefaults;
use crate::model::normalization::Normalization;
use crate::model::{Mlcsc, Operator};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Reconstruct signals from their codes, which are computed first or read from a file
///
/// With --data, the reconstructions are compared with the signals: PSNR is 10·log₁₀(1 / mean squared error), at most 100 dB, mean over
/// the signals (peak 1, as images have; – where values go far beyond); the fraction of variance unexplained is Σ‖y − x‖² / Σ‖y − ȳ‖² with ȳ the mean signal, where
/// all have one size. Pictures of several sizes are coded each in its own. With --codes the
/// normalisation of the model is undone by what `mlcsc encode` wrote beside them. Arrays have the axes of those that --data was.
#[derive(Debug, Args)]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Codes to start from instead of signals, as `mlcsc encode` writes them; of all layers' the deepest, γ_L, alone is used
    #[arg(
        long,
        value_name = "F.safetensors|F.npz",
        conflicts_with_all = ["source", "count", "patch", "patches", "grey", "tensor", "layer", "data_seed", "split", "limit"],
        conflicts_with_all = PURSUIT_FLAGS,
    )]
    codes: Option<PathBuf>,
    /// Shape of the signals that --codes belong to. Default: what the codes say, else the model's
    #[arg(long, value_name = "CxHxW", conflicts_with = "source")]
    input_shape: Option<SignalShape>,
    /// Folder for PNG images, of 16 bits where the picture has them, each named after the picture that it is of, or numbered where
    /// signals are no pictures (numbered ones
    /// that an earlier run left there are removed), and for recordings .wav; F.png or F.wav for a single one; F.npy for all in one array,
    /// whose axes --layout says, as those of --data
    #[arg(long, value_name = "DIR|F.png|F.wav|F.npy")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coding: CodingArgs,
}

impl ReconstructArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.coding.check()?;
        match &self.codes {
            Some(codes) => drop(CodesFormat::of_existing(codes, "--codes")?),
            None if self.input.data.source.is_none() => {
                return Err(Error::missing("--data", "a source of signals, or codes by --codes"));
            }
            None => self.input.check()?,
        }
        let kind = Kind::of(&self.out)?;
        match kind {
            Kind::Folder => files::check_writable_folder(&self.out)?,
            Kind::Picture | Kind::Recording | Kind::Array => files::check_writable(&self.out)?,
        }
        let inputs = Inputs::of_model(&self.input.model)
            .and("--codes", self.codes.as_deref())
            .and("--lambda-file", self.coding.lambda.lambda_file.as_deref())
            .and_data(self.input.data.source.as_deref());
        inputs.refuse("--out", &self.out)?;
        let imported = foreign::open(&self.input.model, &self.input.device.open()?)?;
        let coding = if imported.is_some() { self.coding.of_imported() } else { self.coding.clone() };
        coding.check()?;
        let (model, defaults, encoder) = match imported {
            Some(network) if self.codes.is_some() => (network.as_synthesised()?, network.coding(), None),
            Some(network) if coding.pursuit.is_encoder() => {
                (network.as_synthesised()?, network.coding(), Some(Encoder::new(network, &coding)))
            }
            Some(network) => (network.dictionary().map_err(flags::named::<CodingArgs>)?, network.coding(), None),
            None => {
                let (model, defaults) = self.input.load()?;
                (model, defaults, None)
            }
        };
        match &self.codes {
            Some(codes) => self.reconstruct_codes(&model, codes, kind, &inputs),
            None => match encoder {
                Some(encoder) => self.reconstruct_by_encoder(&encoder, kind, &inputs),
                None => self.reconstruct_signals(model, defaults, kind, &inputs),
            },
        }
    }

    /// Where reconstructions go, arrays with the axes that those of --data have.
    fn sink<'a>(
        &'a self,
        kind: Kind,
        shapes: &[SignalShape],
        originals: (&[Option<&Path>], Range<usize>),
        rates: Vec<Option<u32>>,
        inputs: &Inputs,
        (layout, channel_axis): (Option<Layout>, bool),
    ) -> Result<Sink<'a>> {
        let layout = self.input.data.layout.or(layout);
        Ok(Sink { layout, channel_axis, ..Sink::new(&self.out, kind, shapes, originals, rates, inputs)? })
    }

    /// By an imported auto-encoder's own encoder.
    fn reconstruct_by_encoder(&self, encoder: &Encoder, kind: Kind, inputs: &Inputs) -> Result<()> {
        let signals = self.input.signals()?;
        let shape = signals.shape();
        let originals: Vec<Option<&Path>> = (0..signals.len()).map(|index| signals.file(index)).collect();
        let rates = rates_of(&originals);
        let axes = (None, signals.has_channel_axis());
        let sink = self.sink(kind, &[shape], (&originals, 0..originals.len()), rates, inputs, axes)?;
        let mut quality = Quality::new(shape.len());
        let (encoded, left) = sink.write(|write| {
            encoder.run(&signals, |batch| {
                quality.add(&batch.signals, &batch.coded.reconstruction);
                let places = (batch.start..batch.start + batch.reports.len()).map(|index| signals.places().get(index));
                write(&places.collect::<Vec<_>>(), batch.coded.reconstruction)
            })
        })?;
        let psnr = quality.psnr().filter(|_| !shape.is_single_position());
        let unexplained = quality.variance_unexplained();
        let device = self.input.device.name();
        if self.json {
            let mut document = encoder.json(&encoded, &signals, &device);
            document["model"] = output::shown(&self.input.model).into();
            document["psnr"] = json!(psnr);
            document["variance_unexplained"] = json!(unexplained);
            sink.describe(&mut document, left);
            return output::print_json(&document);
        }
        let mut summary = encoder.summary(&encoded, &signals, &device);
        summary.row("PSNR", output::decibels(psnr));
        summary.row("variance unexplained", output::unexplained(unexplained));
        sink.rows(&mut summary, left);
        output::print(&summary.text())
    }

    fn reconstruct_signals(&self, model: Mlcsc, defaults: CodingDefaults, kind: Kind, inputs: &Inputs) -> Result<()> {
        let groups = self.input.groups_for(&model)?;
        let settings = self.coding.settings(defaults, groups.iter().map(Signals::len).sum())?;
        let coders = Coders::new(model, groups, settings, &ShardArgs { shard: None })?;
        let groups = coders.groups();
        let mut originals: Vec<Option<&Path>> = vec![None; coders.count()];
        for group in groups {
            group.places().iter().enumerate().for_each(|(index, place)| originals[place] = group.file(index));
        }
        let shapes: Vec<SignalShape> = groups.iter().map(Signals::shape).collect();
        let mut rates = rates_of(&originals);
        for group in groups {
            // Windows of recordings, and arrays, for a model that was trained on recordings.
            let of_model = coders.model().config().sampling_rate.filter(|_| group.shape().is_in_time());
            group.places().iter().for_each(|place| rates[place] = rates[place].or(of_model));
        }
        let axes = (None, groups[0].has_channel_axis());
        let sink = self.sink(kind, &shapes, (&originals, 0..originals.len()), rates, inputs, axes)?;
        let mut qualities: Vec<Quality> = shapes.iter().map(|shape| Quality::new(shape.len())).collect();
        let (coded, left) = sink.write(|write| {
            coders.run(|group, coder, batch| {
                let reconstructions = batch.undo.undo(coder.operator().synthesize(batch.pursued.codes));
                qualities[group].add(&batch.signals, &reconstructions);
                let count = reconstructions.dims()[0];
                let places = (batch.start..batch.start + count).map(|index| groups[group].places().get(index));
                write(&places.collect::<Vec<_>>(), reconstructions)
            })
        })?;
        let coded_groups = qualities.iter().filter(|quality| quality.signals() > 0);
        let decibels =
            coded_groups.map(|quality| Some(quality.psnr()? * quality.signals() as f64)).sum::<Option<f64>>();
        let psnr = decibels.map(|sum| sum / coders.count() as f64).filter(|_| !shapes[0].is_single_position());
        let unexplained = match &qualities[..] {
            [all] => all.variance_unexplained(),
            // There is no mean signal of several sizes.
            _ => None,
        };
        if self.json {
            let mut document = coders.json(&coded, &self.input.device.name());
            document["model"] = output::shown(&self.input.model).into();
            document["psnr"] = json!(psnr);
            document["variance_unexplained"] = json!(unexplained);
            sink.describe(&mut document, left);
            return output::print_json(&document);
        }
        let mut summary = coders.summary(&coded, &self.input.device.name());
        summary.row("PSNR", output::decibels(psnr));
        summary.row("variance unexplained", output::unexplained(unexplained));
        sink.rows(&mut summary, left);
        let end = coders.first().not_converged(&coded);
        output::print(&[Some(summary.text()), end].into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }

    fn reconstruct_codes(&self, model: &Mlcsc, path: &Path, kind: Kind, inputs: &Inputs) -> Result<()> {
        let normalization = model.config().normalization;
        let statistics = model.config().statistics.as_ref().filter(|_| normalization.is_fitted());
        // Codes that were changed or made elsewhere need not repeat what the model knows.
        let codes = CodesReader::open(path, model.depth())?.into_iter();
        let codes: Vec<CodesReader> = codes.map(|codes| codes.normalised_by(statistics.cloned())).collect();
        if !codes.iter().all(|codes| codes.undoes(normalization)) {
            let arrays = match normalization {
                Normalization::HighPass => "the array smooth, which undoes",
                _ if normalization.is_fitted() => "the arrays channel_mean and channel_scale, which undo",
                _ => "the arrays mean and scale, which undo",
            };
            let expected = format!("expected {arrays} the model's normalisation ({normalization})");
            let reason = format!("{expected}, found nothing such; `mlcsc encode` writes it");
            return Err(Error::format(path, reason));
        }
        let source = path.display().to_string();
        let operator = |codes: &CodesReader| -> Result<Operator> {
            let signal = self.input_shape.or(codes.signal()).unwrap_or(model.config().signal);
            let operator = coding::operator(model, signal, &source, self.coding.solver.application)?;
            codes.check(operator.code())?;
            Ok(operator)
        };
        let operators = codes.iter().map(operator).collect::<Result<Vec<_>>>()?;
        let settings = codes::settings(path).unwrap_or_default();
        if settings[FILTERS].as_str().is_some_and(|filters| filters != digest_of_filters(model)) {
            let reason = format!(
                "expected codes over the dictionaries of {}, found codes over others",
                self.input.model.display()
            );
            return Err(Error::format(path, reason));
        }
        let count: usize = codes.iter().map(CodesReader::len).sum();
        let names: Vec<&str> = settings["pictures"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
        // A part of a set of codes knows the names of all, so that what is made of it has the name that it would have among all.
        let of_part = serde_json::from_value::<Part>(settings[PART].clone()).ok().map(|part| part.signals);
        let own = match of_part {
            Some([from, to]) if to.checked_sub(from) == Some(count) && to <= names.len() => from..to,
            _ => 0..count,
        };
        let originals: Vec<Option<&Path>> = match &codes[..] {
            [all]
                if all.picture().is_none() && own.end <= names.len() && (of_part.is_some() || names.len() == count) =>
            {
                names.iter().map(|name| Some(Path::new(*name))).collect()
            }
            [all] if all.picture().is_none() => vec![None; count],
            // One signal each.
            pictures => pictures.iter().map(|codes| codes.picture().map(Path::new)).collect(),
        };
        let own = if originals.len() == count { 0..count } else { own };
        if own.len() != count || own.end > originals.len() {
            return Err(Error::format(path, "expected one signal for each picture, found others"));
        }
        let shapes: Vec<SignalShape> = operators.iter().map(Operator::signal).collect();
        let rates = vec![model.config().sampling_rate.filter(|_| shapes[0].is_in_time()); count];
        let axes = (told(&settings[LAYOUT]), told(&settings[CHANNEL_AXIS]).unwrap_or(true));
        let sink = self.sink(kind, &shapes, (&originals, own), rates, inputs, axes)?;
        let progress = Progress::new("reconstructing", "signals", count as u64);
        interrupt::watch();
        let mut place = 0;
        let ((), left) = sink.write(|write| {
            codes.iter().zip(&operators).try_for_each(|(codes, operator)| {
                let (device, code) = (operator.device(), operator.code());
                let batch = self.coding.solver.batch_size.unwrap_or_else(|| coding::default_batch(operator.geometry()));
                codes.for_each(batch, &device, |values, undo| {
                    interrupt::check("not everything was written")?;
                    let count = values.len() / code.len();
                    let values = Tensor::from_data(TensorData::new(values, code.batched(count)), &device);
                    let mut signals = operator.synthesize(values);
                    if let Some(undo) = undo {
                        signals = undo.undo(signals);
                    }
                    let places: Vec<usize> = (place..place + count).collect();
                    write(&places, signals)?;
                    progress.advance(count as u64);
                    place += count;
                    Ok(())
                })
            })
        })?;
        progress.finish();
        let application = operators[0].application();
        if self.json {
            let mut document = json!({
                "codes": source,
                "model": output::shown(&self.input.model),
                "signals": count,
                "normalization": normalization,
                "application": application,
                "device": self.input.device.name(),
                "precision": crate::device::precision(),
            });
            sink.describe(&mut document, left);
            return output::print_json(&document);
        }
        let mut summary = Summary::new(format!("reconstructed {} ({source})", counted(count, "signal")));
        summary.row("application", format!("{application}, {}", self.input.device.name()));
        sink.rows(&mut summary, left);
        output::print(&summary.text())
    }
}

/// What a file of codes says of the array that its signals came from, if it does.
fn told<T: DeserializeOwned>(setting: &Value) -> Option<T> {
    serde_json::from_value(setting.clone()).ok()
}

/// What a path is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A folder of pictures or recordings.
    Folder,
    /// One recording.
    Recording,
    /// One picture.
    Picture,
    /// One array.
    Array,
}

impl Kind {
    /// By the path's ending; what is a folder stays one.
    ///
    /// # Errors
    /// A file of a kind that is not written.
    fn of(out: &Path) -> Result<Self> {
        let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "npy" => Ok(Self::Array),
            "png" if !out.is_dir() => Ok(Self::Picture),
            "wav" if !out.is_dir() => Ok(Self::Recording),
            _ => {
                output::check_folder_name(out, "a folder, a .png or .wav file for a single one, or a .npy file")?;
                Ok(Self::Folder)
            }
        }
    }
}

/// What there is to say of pictures that were written.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    /// What earlier runs left in the folder.
    earlier: mosaic::Earlier,
    /// Values of all pictures.
    values: usize,
    /// Those beyond what a picture holds.
    clipped: usize,
}

/// Where reconstructions go.
struct Sink<'a> {
    out: &'a Path,
    kind: Kind,
    /// Shape of the signals of an array, and what its axes are.
    shape: SignalShape,
    layout: Option<Layout>,
    channel_axis: bool,
    /// The file of each signal; for an array empty.
    pictures: Vec<PathBuf>,
    /// Samples a second of each, of those that are recordings.
    rates: Vec<Option<u32>>,
    /// Which of them are of pictures of 16 bits, and are so, too.
    deep: Vec<bool>,
    /// Whether they are numbered and not named.
    numbered: bool,
    count: usize,
}

impl<'a> Sink<'a> {
    /// For a signal for each of those in a range of `originals`, the files that all are of, and of these shapes; `rates` are the samples a second
    /// of recordings.
    ///
    /// # Errors
    /// Several signals for one picture, several shapes for one array; an output that is one of `inputs`.
    fn new(
        out: &'a Path,
        kind: Kind,
        shapes: &[SignalShape],
        (all, own): (&[Option<&Path>], Range<usize>),
        rates: Vec<Option<u32>>,
        inputs: &Inputs,
    ) -> Result<Self> {
        let originals = &all[own.clone()];
        let count = originals.len();
        let shape = shapes[0];
        let refused = |expected: String| Error::parameter("--out", out.display(), expected);
        match kind {
            Kind::Array if shapes.iter().any(|other| *other != shape) => {
                return Err(refused("a folder: pictures of several sizes make no array".into()));
            }
            Kind::Picture | Kind::Recording if count != 1 => {
                let noun = if kind == Kind::Picture { "picture" } else { "recording" };
                return Err(refused(format!("a folder for {}, or a .npy file", counted(count, noun))));
            }
            _ => {}
        }
        let sounds = rates.iter().any(Option::is_some);
        let named_sound =
            |original: &&Path| original.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("wav"));
        match kind {
            Kind::Array => {}
            Kind::Picture if sounds => return Err(refused("a .wav or a .npy file for a recording".into())),
            Kind::Recording if !sounds => {
                return Err(refused(
                    "a .npy file, unless --data is a recording or the model was trained on some, which say the samples a second"
                        .into(),
                ));
            }
            _ if !sounds && originals.iter().flatten().any(named_sound) => {
                return Err(refused("--data in place of --codes: neither these nor the model say how many samples a second recordings have (or a .npy file for some of one length)".into()));
            }
            _ if !sounds && !matches!(shape.channels, 1 | 3) => {
                let channels = shape.channels;
                return Err(refused(format!("a .npy file: signals of {channels} channels are no PNG images")));
            }
            _ => {}
        }
        let pictures = match kind {
            Kind::Array => Vec::new(),
            Kind::Picture | Kind::Recording => vec![out.to_path_buf()],
            Kind::Folder => {
                let ending = if sounds { "wav" } else { "png" };
                result_names(all, ending)[own].iter().map(|name| out.join(name)).collect()
            }
        };
        pictures.iter().try_for_each(|path| inputs.refuse("--out", path))?;
        let numbered = originals.iter().all(Option::is_none);
        let is_deep = |original: &Option<&Path>| original.is_some_and(is_deep);
        let deep = match kind == Kind::Array || sounds {
            true => vec![false; count],
            false => originals.par_iter().map(is_deep).collect(),
        };
        Ok(Self { out, kind, shape, layout: None, channel_axis: true, pictures, rates, deep, numbered, count })
    }

    /// Writes what `produce` hands over: places of signals among all, and the signals. Those of an array come in order.
    fn write<T>(
        &self,
        produce: impl FnOnce(&mut dyn FnMut(&[usize], Tensor<4>) -> Result<()>) -> Result<T>,
    ) -> Result<(T, Left)> {
        if self.kind == Kind::Array {
            let mut produced = None;
            let (axes, channels_last) = layout::axes(self.layout, self.shape, self.count, self.channel_axis);
            let (channels, len) = (self.shape.channels, self.shape.len());
            arrays::write_npy_with(self.out, &axes, |append| {
                let mut write = |_: &[usize], signals: Tensor<4>| {
                    let values = to_host(signals);
                    match channels_last {
                        true => values
                            .chunks_exact(len)
                            .try_for_each(|signal| append(&layout::transposed(signal, channels, len / channels))),
                        false => append(&values),
                    }
                };
                produced = Some(produce(&mut write)?);
                Ok(())
            })?;
            let produced = produced.ok_or_else(|| Error::format(self.out, "nothing was written"))?;
            return Ok((produced, Left::default()));
        }
        // A folder is made with its first picture, so that none is there where nothing was coded.
        let mut left = Left::default();
        let mut written = 0;
        let produced = produce(&mut |places, signals| {
            let [_, channels, height, width] = signals.dims();
            let values = to_host(signals);
            let images = values.chunks_exact(channels * height * width);
            places.iter().zip(images).try_for_each(|(&place, image)| {
                let path = &self.pictures[place];
                if let Some(rate) = self.rates[place] {
                    let shape = SignalShape::new(channels, height, width);
                    files::write_bytes(path, &encode_recording(path, shape, image, rate)?)?;
                } else {
                    left.values += image.len();
                    left.clipped += mosaic::save_image(path, [channels, height, width], image, self.deep[place])?;
                }
                written += 1;
                Ok(())
            })
        });
        let produced = produced.map_err(|error| match error {
            Error::Interrupted(_) => {
                let all = counted(self.count, self.noun());
                Error::Interrupted(format!("wrote {} of {all} to {}", grouped(written), self.out.display()))
            }
            other => other,
        })?;
        if self.kind == Kind::Folder {
            left.earlier = mosaic::remove_earlier(self.out, &self.pictures, self.numbered)?;
        }
        Ok((produced, left))
    }

    /// What one file holds.
    fn noun(&self) -> &'static str {
        if self.rates.iter().any(Option::is_some) { "recording" } else { "image" }
    }

    /// Adds what was written to a document.
    fn describe(&self, document: &mut Value, left: Left) {
        document["out"] = self.out.display().to_string().into();
        if self.kind == Kind::Array {
            document["axes"] = json!(layout::axes(self.layout, self.shape, self.count, self.channel_axis).0);
        }
        if self.rates.iter().all(Option::is_none) && self.kind != Kind::Array {
            document["clipped"] = json!(left.clipped);
            document["values"] = json!(left.values);
        }
        if self.kind == Kind::Folder {
            document["files"] = self.pictures.iter().map(|path| path.display().to_string()).collect();
            document["earlier_pictures"] = json!(left.earlier);
        }
    }

    /// The same as lines of a summary.
    fn rows(&self, summary: &mut Summary, left: Left) {
        let earlier = left.earlier;
        summary.row(
            "written",
            match self.kind {
                Kind::Folder => format!("{} in {}", counted(self.count, self.noun()), self.out.display()),
                Kind::Array => {
                    let (axes, _) = layout::axes(self.layout, self.shape, self.count, self.channel_axis);
                    format!("{} {axes:?}", self.out.display())
                }
                Kind::Picture | Kind::Recording => self.out.display().to_string(),
            },
        );
        if let Some(told) = output::clipped(left.clipped, left.values) {
            summary.row("clipped", told);
        }
        if earlier.removed > 0 {
            summary.row("removed", format!("{} of an earlier run", counted(earlier.removed, "numbered image")));
        }
        if earlier.kept > 0 {
            summary.row("also there", format!("{} of earlier runs", counted(earlier.kept, "image")));
        }
    }
}

/// Samples a second of each file that is a recording.
fn rates_of(originals: &[Option<&Path>]) -> Vec<Option<u32>> {
    originals.iter().map(|original| sampling_rate((*original)?)).collect()
}

/// The names of results: each its picture's with the ending, or a number where there is no picture. Pictures whose names
/// differ in their ending alone keep it: `a.jpg.png` beside `a.png.png`. Pictures of several folders have the same folders.
fn result_names(originals: &[Option<&Path>], ending: &str) -> Vec<String> {
    let folder = files::common_folder(originals.iter().copied().flatten());
    let whole = |original: &Path| files::name_in(original, folder);
    let stem = |original: &Path| files::name_in(&original.with_extension(""), folder);
    let mut stems: HashMap<String, usize> = HashMap::new();
    for original in originals.iter().flatten() {
        // Some file systems do not tell capitals from small letters.
        *stems.entry(stem(original).to_lowercase()).or_default() += 1;
    }
    let mut taken = HashSet::new();
    let name = |(place, original): (usize, &Option<&Path>)| {
        let Some(original) = original else { return mosaic::numbered(place, ending) };
        let stem = stem(original);
        let name = if stems[&stem.to_lowercase()] == 1 { stem } else { whole(original) };
        let mut all = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
        let free = all.find(|name| taken.insert(name.to_lowercase()));
        format!("{}.{ending}", free.unwrap_or(name))
    };
    originals.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_named_after_their_pictures() {
        let names =
            |files: &[&str]| result_names(&files.iter().map(|file| Some(Path::new(*file))).collect::<Vec<_>>(), "png");
        assert_eq!(names(&["in/01.png", "in/boat.house.JPG"]), ["01.png", "boat.house.png"]);
        assert_eq!(names(&["in/a.jpg", "in/A.png", "in/b.tif"]), ["a.jpg.png", "A.png.png", "b.png"]);
        assert_eq!(names(&["a.jpg", "a.png", "a.jpg.bmp"]), ["a.jpg.png", "a.png.png", "a.jpg-2.png"]);
        assert_eq!(
            names(&["in/cat/1.png", "in/dog/1.png", "in/dog/1.jpg"]),
            ["cat/1.png", "dog/1.png.png", "dog/1.jpg.png"]
        );
        assert_eq!(result_names(&[None, Some(Path::new("b.png")), None], "png"), ["000000.png", "b.png", "000002.png"]);
    }

    #[test]
    fn a_name_says_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("old.png")).unwrap();
        let kind = |name: &str| Kind::of(&folder.path().join(name)).map_err(|error| error.to_string());
        for (name, expected) in [
            ("x.png", Kind::Picture),
            ("x.PNG", Kind::Picture),
            ("old.png", Kind::Folder),
            ("x.npy", Kind::Array),
            ("results", Kind::Folder),
            ("v1.2", Kind::Folder),
        ] {
            assert_eq!(kind(name), Ok(expected), "{name}");
        }
        for name in ["x.jpg", "x.npz", "x.JSON", "x.safetensors"] {
            assert!(kind(name).unwrap_err().contains("--out"), "{name}");
        }
    }
}
