//! `mlcsc classify`: what codes say about classes.

use super::coding::{self, CodingArgs};
use super::data::{self, DataArgs, check_sampling_rate};
use super::diagnose::network;
use super::inputs::Inputs;
use super::output::{self, Summary, counted, number, table};
use super::page::{self, FolderArgs};
use super::progress::Progress;
use super::{DeviceArgs, flags, interrupt};
use crate::classify::{
    Candidate, Confusion, DeskewingEncoder, Encoder, Evaluation, EvaluationConfig, Features, Labelled,
    LinearClassifierConfig, Loss, NetworkEncoder, PoolingConfig, PoolingMethod, Rectification, Scaling, SignalEncoder,
    WindowConfig, check_power, extract,
};
use crate::data::{DataConfig, Dataset, Source, wanted_shape};
use crate::error::{Error, Result};
use crate::export::report::{Classification, Head, Mistakes, Origin};
use crate::model::Mlcsc;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

/// Judge codes by a linear classifier: features without labels, labels for the classifier alone
///
/// Codes of the training signals are pooled and a linear classifier is fitted to them, its penalty chosen on a part of the training
/// signals; the error is that on the test signals. --data has to come with labels: mnist, digits, IDX, CIFAR, a folder of pictures or
/// recordings in folders, one for each class, or signals with labels.npy beside them (arrays: or NAME_labels.npy): a whole number from 0 to
/// 255 for each, pictures and recordings in the order of their names (p09.png, p10.png).
#[derive(Debug, Args)]
pub(super) struct ClassifyArgs {
    /// Model file, of dictionaries or of an auto-encoder, or the folder of a run
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    model: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Take the first N training signals only
    #[arg(long, value_name = "N")]
    train_limit: Option<usize>,
    /// Take the first N test signals only
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Layers whose codes become features. Default: the deepest
    #[arg(long, value_name = "I,J,…", value_delimiter = ',', help_heading = "Features")]
    layers: Option<Vec<usize>>,
    /// Code the window of every position by itself (normalised as the model says) instead of the whole signal, each layer over its
    /// own effective dictionary with atoms of unit norm. Default: where signals are larger than the model's
    #[arg(long, help_heading = "Features")]
    windows: bool,
    /// Zeros around the signal with --windows
    #[arg(long, value_name = "P", default_value_t = 0, help_heading = "Features")]
    padding: usize,
    /// Distance of neighbouring windows, for all layers or one for each of --layers. Default: 1
    #[arg(long, value_name = "S,…", value_delimiter = ',', help_heading = "Features")]
    stride: Vec<usize>,
    /// Code every signal once more deskewed: sheared so that what it shows stands upright. Twice the features
    #[arg(long, help_heading = "Features")]
    deskew: bool,
    /// Pool over G × G cells; several numbers put the features of several grids beside each other
    #[arg(long, value_name = "G,…", value_delimiter = ',', default_value = "4", help_heading = "Features")]
    grid: Vec<usize>,
    /// What is kept of a cell
    #[arg(long, value_name = "NAME", default_value = "max", value_parser = flags::names::<PoolingMethod>(), help_heading = "Features")]
    pool: PoolingMethod,
    /// Signs; split takes positive and negative parts apart
    #[arg(long, value_name = "NAME", default_value = "split", value_parser = flags::names::<Rectification>(), help_heading = "Features")]
    rectify: Rectification,
    /// Power that magnitudes are raised to after pooling; less than 1 brings large ones closer to small ones
    #[arg(long, value_name = "P", default_value_t = 1.0, help_heading = "Features")]
    power: f32,
    /// What features are divided by: their own deviations (each), or one number for all (common)
    #[arg(long, value_name = "NAME", default_value = "each", value_parser = flags::names::<Scaling>(), help_heading = "Features")]
    scale: Scaling,
    /// The classifier's loss: squared hinge, one class against all others (svm), or multinomial (logistic)
    #[arg(long, value_name = "NAME", default_value = "svm", value_parser = flags::names::<Loss>(), help_heading = "Classifier")]
    classifier: Loss,
    /// Penalties to choose from, tried from the largest on until two in a row are no better. Default: 1 to 1e-6 in half powers of ten
    #[arg(long, value_name = "A,…", value_delimiter = ',', help_heading = "Classifier")]
    penalties: Option<Vec<f64>>,
    /// Also with so many labels only
    #[arg(long, value_name = "N,…", value_delimiter = ',', help_heading = "Classifier")]
    labels: Vec<usize>,
    /// Seed of the split and of the choice of labels
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Classifier")]
    seed: u64,
    #[command(flatten)]
    folder: FolderArgs,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coding: CodingArgs,
}

/// The file for the JSON document.
const DOCUMENT: &str = "classify.json";

/// How an interruption leaves things.
const UNFINISHED: &str = "nothing was classified";

/// One half of the signals.
struct Half {
    features: Features,
    labels: Vec<u8>,
}

impl ClassifyArgs {
    fn pooling(&self) -> PoolingConfig {
        PoolingConfig { grids: self.grid.clone(), method: self.pool, rectification: self.rectify }
    }

    fn evaluation(&self) -> EvaluationConfig {
        let default = EvaluationConfig::default();
        EvaluationConfig {
            classifier: LinearClassifierConfig { loss: self.classifier, ..default.classifier },
            penalties: self.penalties.clone().unwrap_or(default.penalties),
            seed: self.seed,
            ..default
        }
    }

    fn check(&self) -> Result<()> {
        self.coding.check()?;
        self.pooling().check().map_err(flags::named::<Self>)?;
        check_power(self.power).map_err(flags::named::<Self>)?;
        self.evaluation().check().map_err(flags::named::<Self>)?;
        for (flag, value) in [("--train-limit", self.train_limit), ("--test-limit", self.test_limit)] {
            if value == Some(0) {
                return Err(Error::parameter(flag, 0, "at least 1"));
            }
        }
        if let Some(path) = &self.coding.lambda.lambda_file {
            return Err(Error::parameter("--lambda-file", path.display(), "--lambda or --lambda-relative"));
        }
        self.data.config()?;
        let inputs = Inputs::of_model(&self.model).and_data(self.data.source.as_deref());
        self.folder.check(&inputs, DOCUMENT)
    }

    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let data = data::open(&self.data.config()?)?;
        let device = self.device.open()?;
        if data.all.sampling_rate().is_some()
            && let Ok((model, _)) = Mlcsc::load(&self.model, &device)
        {
            check_sampling_rate(&model, &*data.all)?;
        }
        if let Some(network) = network(&self.model, &device)? {
            self.coding.refuse_all()?;
            if self.windows {
                let expected = "a model of dictionaries: an auto-encoder's codes are taken as they are";
                return Err(Error::parameter("--windows", "given", expected));
            }
            if network.signal() != data.train.shape() {
                let what = format!("signals of {} for {}", data.train.describe(), self.model.display());
                let (wanted, found) = (network.signal(), data.train.shape());
                return Err(Error::shape(what, wanted_shape(wanted, wanted, found), found));
            }
            let encoder =
                NetworkEncoder::new(network.as_ref(), self.layers.as_deref(), &device).map_err(flags::named::<Self>)?;
            return self.judge(&data, Box::new(encoder));
        }
        let (model, defaults) = Mlcsc::load(&self.model, &device)?;
        let (shape, trained) = (data.train.shape(), model.config().signal);
        let windows = self.windows || shape.height > trained.height || shape.width > trained.width;
        if !windows && (self.padding > 0 || !self.stride.is_empty()) {
            return Err(Error::parameter("--padding, --stride", "given", "--windows beside them"));
        }
        let layers = self.layers.clone().unwrap_or_else(|| vec![model.depth()]);
        let train = self.training(&data);
        let source = data.train.describe();
        let settings = self.coding.settings(defaults, train)?;
        let encoder: Box<dyn Encoder> = if windows {
            let (lambda, nonnegative) = self.coding.lambda.resolve(&defaults, train)?;
            let config = WindowConfig {
                lambda,
                strides: match self.stride.as_slice() {
                    [] => vec![1; layers.len()],
                    [stride] => vec![*stride; layers.len()],
                    strides => strides.to_vec(),
                },
                layers,
                padding: self.padding,
                basis: self.coding.solver.basis(nonnegative),
            };
            Box::new(config.init(&model, shape).map_err(flags::named::<Self>)?)
        } else {
            let operator = coding::operator(&model, shape, &source, self.coding.solver.application)?;
            let (recipe, nonnegative) = settings.recipe_for(&operator);
            Box::new(SignalEncoder::new(&model, operator, recipe, layers, nonnegative).map_err(flags::named::<Self>)?)
        };
        self.judge(&data, encoder)
    }

    /// Training signals that are used.
    fn training(&self, data: &Dataset) -> usize {
        data.train.len().min(self.train_limit.unwrap_or(usize::MAX))
    }

    fn judge(&self, data: &Dataset, encoder: Box<dyn Encoder + '_>) -> Result<()> {
        let encoder = if self.deskew { Box::new(DeskewingEncoder::new(encoder)) } else { encoder };
        let test = data.test.len().min(self.test_limit.unwrap_or(usize::MAX));
        self.check_classes(data, test)?;
        interrupt::watch();
        let started = Instant::now();
        let train = self.half(&*data.train, self.training(data), encoder.as_ref())?;
        let test = self.half(&*data.test, test, encoder.as_ref())?;
        let warning = train.features.are_all_equal().then_some(
            "all training signals have the same features: nothing tells their classes apart; lower --lambda where every code is zero",
        );
        if let Some(warning) = warning {
            output::complain(&format!("warning: {warning}"));
        }
        let coding_seconds = started.elapsed().as_secs_f64();
        let labelled = Labelled::new(train.features, train.labels, test.features, test.labels, self.scale)?;
        let mut evaluations = vec![self.evaluate(&labelled, None)?];
        for &labels in &self.labels {
            evaluations.push(self.evaluate(&labelled, Some(labels))?);
        }
        let names = class_names(&*data.all, labelled.labels());
        let seconds = started.elapsed().as_secs_f64();
        let basis = self.coding.solver.basis(false);
        let mut document = self.document(&evaluations, &labelled, coding_seconds, seconds);
        document["class_names"] = json!(data.all.class_names().map(|_| &names));
        document["skipped"] = json!(data.all.skipped());
        document["warning"] = json!(warning);
        document["not_converged"] = coding::not_converged_json(&encoder.convergence(), &basis);
        let not_converged = coding::not_converged(&encoder.convergence(), &basis, "code");
        let columns = labelled.columns();
        self.folder.write(&mut document, DOCUMENT, |path| {
            let warnings = warning.map(str::to_owned).into_iter().chain(not_converged.clone()).collect();
            let head = Head {
                lead: vec![format!("{}.", heading(&evaluations, &data.train.describe(), columns))],
                warnings,
                table: std::iter::once(["result", "value"].map(str::to_owned).to_vec())
                    .chain(self.results(&evaluations, seconds).into_iter().map(|(name, value)| vec![name, value]))
                    .collect(),
            };
            let mistakes = mistakes(&*data.test, &evaluations[0], &self.device.open()?)?;
            Classification { head, evaluations: &evaluations, class_names: &names, mistakes }
                .write(path, &self.origin())
        })?;
        if self.json {
            return output::print_json(&document);
        }
        let mut text =
            self.text(&evaluations, &names, &heading(&evaluations, &data.train.describe(), columns), seconds);
        for line in not_converged.into_iter().chain(self.folder.written(DOCUMENT)) {
            text.push_str(&format!("\n\n{line}"));
        }
        output::print(&text)
    }

    /// Refuses, before anything is coded, a single class and test signals of classes that no training signal has.
    ///
    /// # Errors
    /// That it is so.
    fn check_classes(&self, data: &Dataset, test: usize) -> Result<()> {
        let (Some(of_train), Some(of_test)) = (data.train.labels(), data.test.labels()) else { return Ok(()) };
        let known: BTreeSet<u8> = of_train[..self.training(data)].iter().copied().collect();
        let name = |label: u8| class_name(&*data.all, label);
        let names = known.iter().map(|&label| name(label)).collect::<Vec<_>>().join(", ");
        let refused = |expected: String| {
            Err(Error::parameter("--data", self.data.source.as_deref().unwrap_or_default(), expected))
        };
        match of_test[..test].iter().find(|label| !known.contains(label)) {
            Some(&label) => {
                refused(format!("test signals of the classes of the training signals ({names}), found {}", name(label)))
            }
            None if known.len() == 1 => {
                refused(format!("training signals of at least two classes, found {names} alone"))
            }
            None => Ok(()),
        }
    }

    fn half(&self, source: &dyn Source, count: usize, encoder: &dyn Encoder) -> Result<Half> {
        let Some(labels) = source.labels() else {
            let given = self.data.source.as_deref().unwrap_or_default();
            let expected = format!(
                "signals with labels (mnist, digits, IDX or CIFAR files, a folder for each class, or labels.npy beside the signals); there are none for {}",
                source.describe()
            );
            return Err(Error::parameter("--data", given, expected));
        };
        let progress = Progress::new("coding", "signals", count as u64);
        let mut done = 0;
        let features = extract(source, count, encoder, &self.pooling(), Some(&progress), |now| {
            progress.advance((now - done) as u64);
            done = now;
            !interrupt::interrupted()
        });
        let features = interrupt::named(features, UNFINISHED)?;
        let mut features = features.ok_or_else(|| Error::Interrupted(UNFINISHED.into()))?;
        features.raise(self.power).map_err(flags::named::<Self>)?;
        Ok(Half { features, labels: labels[..count].to_vec() })
    }

    fn evaluate(&self, labelled: &Labelled, labels: Option<usize>) -> Result<Evaluation> {
        let config = self.evaluation();
        let progress = Progress::new("fitting", "penalties", config.penalties.len() as u64);
        let found = labelled.evaluate(&config, labels, |candidate: &Candidate| {
            progress.advance(1);
            progress.message(format!("held-out error {:.2}%", 100.0 * candidate.error));
            !interrupt::interrupted()
        });
        found.map_err(flags::named::<Self>)?.ok_or_else(|| Error::Interrupted(UNFINISHED.into()))
    }

    fn document(&self, evaluations: &[Evaluation], labelled: &Labelled, coding_seconds: f64, seconds: f64) -> Value {
        let one = |evaluation: &Evaluation| {
            let Confusion { counts, .. } = &evaluation.confusion;
            json!({
                "labels": evaluation.labels,
                "test_error": evaluation.confusion.error(),
                "test_error_interval": evaluation.confusion.interval(),
                "test_errors": evaluation.confusion.errors(),
                "training_error": evaluation.training_error,
                "penalty": evaluation.penalty,
                "candidates": evaluation.candidates,
                "iterations": evaluation.iterations,
                "converged": evaluation.converged,
                "confusion": counts,
            })
        };
        let mut document = one(&evaluations[0]);
        document["features"] = labelled.columns().into();
        document["pooling"] = json!(self.pooling());
        document["deskewed"] = self.deskew.into();
        document["power"] = json!(self.power);
        document["scaling"] = json!(self.scale);
        document["classes"] = labelled.classes().into();
        document["class_labels"] = labelled.labels().into();
        document["test_signals"] = evaluations[0].confusion.total().into();
        document["coding_seconds"] = coding_seconds.into();
        document["seconds"] = seconds.into();
        document["model"] = self.model.display().to_string().into();
        document["device"] = self.device.name().into();
        document["precision"] = crate::device::precision().to_string().into();
        document["fewer_labels"] = evaluations[1..].iter().map(one).collect();
        document
    }

    /// What is printed, and stands at the beginning of a page: names and values.
    fn results(&self, evaluations: &[Evaluation], seconds: f64) -> Vec<(String, String)> {
        let percent = |part: f64| format!("{:.2}%", 100.0 * part);
        let all = &evaluations[0];
        let error = |evaluation: &Evaluation| {
            let [low, high] = evaluation.confusion.interval();
            let error = percent(evaluation.confusion.error());
            format!("{error} (95% between {} and {})", percent(low), percent(high))
        };
        let mut rows = vec![
            ("test error".into(), error(all)),
            ("test signals".into(), format!("{}, {} wrong", all.confusion.total(), all.confusion.errors())),
            ("training error".into(), format!("{} of {}", percent(all.training_error), counted(all.labels, "label"))),
            ("penalty".into(), format!("{}, of {} tried", number(all.penalty), all.candidates.len())),
        ];
        if !all.converged {
            rows.push(("fit".into(), format!("not at its minimum after {}", counted(all.iterations, "iteration"))));
        }
        for fewer in &evaluations[1..] {
            rows.push((format!("with {}", counted(fewer.labels, "label")), error(fewer)));
        }
        rows.push(("time".into(), format!("{} s", number(seconds))));
        rows
    }

    /// What a page says of how it came about.
    fn origin(&self) -> Origin {
        let list = |values: &[usize]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let config = self.evaluation();
        let penalties = config.penalties.iter().map(|penalty| number(*penalty)).collect::<Vec<_>>();
        let settings = vec![
            ("model", self.model.display().to_string()),
            ("data", self.data.source.clone().unwrap_or_default()),
            ("pursuit", format!("{}, λ {}", self.coding.pursuit.name(), self.coding.lambda.said())),
            ("layers", self.layers.as_deref().map_or("the deepest".into(), list)),
            ("grids of cells", list(&self.grid)),
            ("kept of a cell", self.pool.to_string()),
            ("signs", self.rectify.to_string()),
            ("power", self.power.to_string()),
            ("divided by deviations", self.scale.to_string()),
            ("deskewed too", if self.deskew { "yes".into() } else { "no".into() }),
            ("classifier", self.classifier.to_string()),
            ("penalties to choose from", penalties.join(", ")),
        ];
        let data_seed = self.data.data_seed.unwrap_or(DataConfig::default().seed);
        page::origin(settings, vec![("of split and labels", self.seed), ("of the data", data_seed)], &self.device)
    }

    fn text(&self, evaluations: &[Evaluation], names: &[String], heading: &str, seconds: f64) -> String {
        let mut summary = Summary::new(heading);
        for (name, value) in self.results(evaluations, seconds) {
            summary.row(name, value);
        }
        let all = &evaluations[0];
        let names: Vec<String> = names.iter().map(|name| shortened(name)).collect();
        let heading = std::iter::once("true \\ found".to_owned()).chain(names.iter().cloned());
        let rows = names.iter().zip(&all.confusion.counts).map(|(name, counts)| {
            std::iter::once(name.clone()).chain(counts.iter().map(ToString::to_string)).collect()
        });
        let rows: Vec<Vec<String>> = std::iter::once(heading.collect()).chain(rows).collect();
        format!("{}\n\n{}", summary.text(), table(&rows))
    }
}

/// Most letters of a class's name in a table.
const LETTERS: usize = 20;

/// A name that is not too long for a table.
fn shortened(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => name.chars().take(LETTERS - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// What the classes of labels are called: by their names, where they have some, or by the labels.
fn class_names(source: &dyn Source, labels: &[u8]) -> Vec<String> {
    labels.iter().map(|&label| class_name(source, label)).collect()
}

fn class_name(source: &dyn Source, label: u8) -> String {
    let name = source.class_names().and_then(|names| names.get(usize::from(label)));
    name.cloned().unwrap_or_else(|| label.to_string())
}

/// What was classified, in a line.
fn heading(evaluations: &[Evaluation], source: &str, features: usize) -> String {
    let classes = evaluations[0].confusion.counts.len();
    format!("{source}: {}, {}", counted(features, "feature"), counted(classes, "class"))
}

/// The first test signals that were given a wrong class; `None` where there are none.
fn mistakes(source: &dyn Source, evaluation: &Evaluation, device: &Device) -> Result<Option<Mistakes>> {
    let labels = source.labels().unwrap_or_default();
    let pairs = labels.iter().zip(&evaluation.found).enumerate();
    let wrong: Vec<_> = pairs.filter(|(_, (label, found))| label != found).collect();
    let shown = &wrong[..wrong.len().min(Mistakes::SHOWN)];
    if shown.is_empty() {
        return Ok(None);
    }
    let indices: Vec<usize> = shown.iter().map(|(index, _)| *index).collect();
    let mut values = vec![0.0; indices.len() * source.shape().len()];
    source.read(&indices, &mut values)?;
    let data = TensorData::new(values, source.shape().batched(indices.len()));
    let named = |label: u8| class_name(source, label);
    let texts = shown
        .iter()
        .map(|(index, (label, found))| format!("{}: {}, found {}", index + 1, named(**label), named(**found)));
    Ok(Some(Mistakes { signals: Tensor::from_data(data, device), texts: texts.collect(), of: wrong.len() }))
}
