//! Unsupervised classification of MNIST: features learned without labels, a linear classifier on top.
//!
//! ```text
//! cargo run --release --example unsupervised_classification -- --data FOLDER
//! ```
//!
//! Every row is a model, the layers whose codes are pooled, and the grid; dictionaries are learned from the 60,000 training digits
//! without their labels, the classifier's penalty and the power of features are chosen on 10,000 of them, the error is that on the
//! 10,000 test digits. Each seed learns dictionaries of its own. Rivals with the settings of their authors are trained by Adam, for
//! 20 epochs: for more where they go on gaining for long; for fewer, and with one convolution, where convolutions take hours. What is
//! finished is kept in `results.json` and in the runs' folders, so that the command can be stopped at any time and goes on where it
//! was. The largest row takes 15 GB of memory and, until it is done, 15 GB of the disk.

use burn::tensor::{Device, Tensor};
use clap::Parser;
use mlcsc::baselines::{ConvolutionalWinnerTakeAllConfig, Rival, RivalConfig};
use mlcsc::classify::{
    DeskewingEncoder, Encoder, Evaluation, EvaluationConfig, Features, Labelled, NetworkEncoder, PoolingConfig,
    Rectification, Scaling, SignalEncoder, WindowConfig, extract,
};
use mlcsc::data::{self, DataConfig, Dataset, Source};
use mlcsc::error::{Error, Result};
use mlcsc::export::mosaic;
use mlcsc::files;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::learn::config::{LearningConfig, Schedule, TrainConfig};
use mlcsc::learn::rivals::{self, RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::learn::run::{BatchMeasures, read_config};
use mlcsc::learn::{HeldOut, Observer, Outcome, Record, Run, RunFolder, TrainingState};
use mlcsc::model::normalization::Normalization;
use mlcsc::model::preset::Preset;
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, PursuitConfig, Recipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Folder of MNIST's IDX files
    #[arg(long)]
    data: String,
    /// Seeds
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Rows to compute, by a part of their name. Default: all
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Take the first N training digits only
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    train: usize,
    /// Passes of every rival over the training digits, in batches of 100. Default: 20; k-sparse: 300 in batches of 1000;
    /// conv-wta: 4
    #[arg(long)]
    rival_epochs: Option<usize>,
    /// Folder of the training runs
    #[arg(long, default_value = "runs/unsupervised_classification")]
    runs: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "experiments/unsupervised_classification")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// What to learn.
enum Learning {
    /// Dictionaries.
    Model(Box<TrainConfig>),
    /// An auto-encoder of others.
    Rival(Box<RivalTrainConfig>),
}

/// What was learned.
enum Learned {
    Model(Mlcsc),
    Rival(Box<Rival>),
}

/// Features to judge.
struct Row {
    name: &'static str,
    /// What the paper, or whoever is named, has.
    published: Option<&'static str>,
    learning: &'static str,
    layers: Vec<usize>,
    /// The distance of windows for each layer, where every window is coded by itself; none where whole digits are.
    windows: Option<Vec<usize>>,
    /// Whether digits are coded once more deskewed.
    deskewed: bool,
    pooling: PoolingConfig,
    /// Powers of features that the held-out digits choose among; 1/2 is offered where they were told better with it.
    powers: Vec<f32>,
    /// One scale for rivals: the held-out digits of the k-sparse and of the winner-take-all auto-encoder were told better with it.
    scaling: Scaling,
}

/// One row with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Outcomes {
    row: String,
    seed: u64,
    train: usize,
    features: usize,
    #[serde(default)]
    scaling: Scaling,
    /// Powers that were tried, and the one that was chosen.
    powers: Vec<f32>,
    power: f32,
    /// Of a rival.
    epochs: Option<usize>,
    test_error: f64,
    interval: [f64; 2],
    penalty: f64,
    held_out_error: f64,
    training_error: f64,
    confusion: Vec<Vec<usize>>,
    seconds: f64,
}

/// λ in units of the standard deviation of a contrast-normalised window of that many pixels: `part` of the window's length.
fn of_length(part: f32, pixels: usize) -> f32 {
    part * (pixels as f32).sqrt()
}

/// Penalties that the held-out digits choose among, from the largest on until two in a row are worse.
const PENALTIES: [f64; 9] = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5];

/// λ of windows as a part of their length.
const WINDOW_LAMBDA: f32 = 0.15;

fn local(layers: Vec<LayerShape>, size: usize, source: &str) -> TrainConfig {
    let model = ModelConfig {
        normalization: Normalization::Contrast,
        ..ModelConfig::new(SignalShape::new(1, size, size), layers)
    };
    let data =
        DataConfig { source: source.into(), patch: Some(size.into()), patches: Some(200_000), ..DataConfig::default() };
    let learning = LearningConfig {
        lambda: Schedule::constant(of_length(WINDOW_LAMBDA, size * size)),
        epochs: 2,
        ..LearningConfig::default()
    };
    TrainConfig { model, data, learning }
}

/// What a row's name for its learning stands for: dictionaries, or a rival by its own name.
fn learning(name: &str, source: &str, rival_epochs: Option<usize>) -> Result<Learning> {
    let config = match name {
        "paper" => {
            let mut paper = TrainConfig::preset(Preset::Mnist);
            paper.data.source = source.into();
            paper
        }
        "local-1" => local(vec![LayerShape::new(256, 9, 1)], 9, source),
        "local-3" | "local-3-large" => {
            let atoms = if name == "local-3" { [64, 256, 512] } else { [128, 512, 1024] };
            local(atoms.map(|atoms| LayerShape::new(atoms, 5, 1)).to_vec(), 13, source)
        }
        rival => {
            let data = DataConfig { source: source.into(), ..DataConfig::default() };
            let (epochs, batch_size) = match (rival_epochs, rival) {
                (Some(epochs), _) => (epochs, 100),
                // Far from done after 20; larger batches use the processor better.
                (None, "k-sparse") => (300, 1000),
                // A pass takes some ten minutes.
                (None, "conv-wta") => (4, 100),
                (None, _) => (20, 100),
            };
            let rival = match RivalConfig::named(rival)? {
                // One convolution with kernels as large as the decoder's: two, of 5×5, take ten times as long, over an hour for
                // each pass.
                RivalConfig::ConvWta(config) => {
                    RivalConfig::ConvWta(ConvolutionalWinnerTakeAllConfig { layers: 1, kernel: 11, ..config })
                }
                other => other,
            };
            let config = RivalTrainConfig { data, epochs, batch_size, ..RivalTrainConfig::new(rival) };
            return Ok(Learning::Rival(Box::new(config)));
        }
    };
    Ok(Learning::Model(Box::new(config)))
}

/// The lowest error of unsupervised features and a linear classifier that we know of: B. Knyazev, E. Barth, T. Martinetz, "Recursive
/// autoconvolution for unsupervised learning of convolutional neural networks", IJCNN 2017.
const RECORD: Option<&str> = Some("0.39% (recursive autoconvolution)");

/// A. Makhzani, B. Frey, "Winner-take-all autoencoders", NIPS 2015.
const STACKED: Option<&str> = Some("0.48% (two networks stacked)");

fn rows() -> Vec<Row> {
    let grid = |grids: &[usize]| PoolingConfig { grids: grids.to_vec(), ..PoolingConfig::default() };
    let rival = |name: &'static str, learning: &'static str, published: Option<&'static str>| Row {
        name,
        published,
        learning,
        layers: vec![1],
        windows: None,
        deskewed: false,
        // Dense codes have one position: they are taken as they are.
        pooling: PoolingConfig { rectification: Rectification::Signed, ..PoolingConfig::default() },
        powers: vec![1.0],
        scaling: Scaling::Common,
    };
    let codes = |name: &'static str, learning: &'static str, layers: &[usize]| Row {
        name,
        published: None,
        learning,
        layers: layers.to_vec(),
        windows: None,
        deskewed: false,
        pooling: PoolingConfig::default(),
        powers: vec![1.0],
        scaling: Scaling::Each,
    };
    vec![
        Row {
            layers: vec![3],
            ..rival(
                "stacked denoising auto-encoder, 3 layers of 1000",
                "sdae",
                Some("1.28% (all weights tuned with labels)"),
            )
        },
        rival("k-sparse auto-encoder, 1000 units", "k-sparse", Some("1.35%")),
        rival("winner-take-all auto-encoder, 2000 units", "fc-wta", Some("1.20%")),
        Row {
            layers: vec![2],
            ..rival("stacked winner-take-all auto-encoder, 2 layers of 2000", "stacked-wta", Some("1.11%"))
        },
        Row {
            layers: vec![1, 2],
            ..rival("stacked winner-take-all auto-encoder, codes of both layers", "stacked-wta", Some("1.11%"))
        },
        Row {
            pooling: grid(&[5]),
            ..rival(
                "convolutional winner-take-all auto-encoder, 128 maps, one convolution of 11×11",
                "conv-wta",
                STACKED,
            )
        },
        rival("TopK auto-encoder, 1000 units", "top-k", None),
        Row {
            published: Some("1.30% (paper)"),
            pooling: grid(&[7]),
            ..codes("ML-CSC, the paper's geometry, γ_2", "paper", &[2])
        },
        Row {
            published: Some("1.15% (paper)"),
            pooling: grid(&[7]),
            ..codes("ML-CSC, the paper's geometry, γ_2 and γ_3", "paper", &[2, 3])
        },
        Row {
            published: Some("1.15% (paper, whole digits)"),
            windows: Some(vec![1, 1, 1]),
            ..codes("ML-CSC, the paper's geometry, every window, γ_1 to γ_3", "paper", &[1, 2, 3])
        },
        Row {
            windows: Some(vec![1]),
            pooling: grid(&[5]),
            ..codes("one layer of 256 atoms 9×9, every window", "local-1", &[1])
        },
        Row {
            published: RECORD,
            windows: Some(vec![1, 1, 2]),
            ..codes("ML-CSC of local atoms (5×5, 9×9, 13×13), every window, γ_1 to γ_3", "local-3", &[1, 2, 3])
        },
        Row {
            published: RECORD,
            windows: Some(vec![1, 1, 1]),
            deskewed: true,
            powers: vec![0.5],
            ..codes("the same local atoms, digits as they are and deskewed", "local-3", &[1, 2, 3])
        },
        Row {
            published: RECORD,
            windows: Some(vec![1, 1, 2]),
            powers: vec![1.0, 0.5],
            ..codes("ML-CSC of twice as many local atoms (128, 512 and 1024)", "local-3-large", &[1, 2, 3])
        },
        Row {
            published: RECORD,
            windows: Some(vec![1, 1, 1]),
            deskewed: true,
            powers: vec![0.5],
            ..codes("twice as many local atoms, digits as they are and deskewed", "local-3-large", &[1, 2, 3])
        },
    ]
}

struct Lines;

impl Observer<Record, TrainingState> for Lines {
    fn record(&mut self, record: &Record, learner: &TrainingState) -> Result<()> {
        match record {
            Record::Step { step, batch: BatchMeasures { batch, .. }, .. } if step % 100 == 0 => {
                let (all, rate) = (learner.steps(), batch.signals_per_second);
                println!("  step {step}/{all}: objective {:.3}, {rate:.0} signals/s", batch.objective);
            }
            Record::Epoch { epoch, held_out: HeldOut { test, .. }, .. } => {
                println!("  epoch {epoch}: test objective {:.4}, {} dead", test.objective, test.dead_atoms);
            }
            Record::Step { .. } | Record::Start { .. } => {}
        }
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

impl Observer<RivalRecord, Rival> for Lines {
    fn record(&mut self, record: &RivalRecord, _: &Rival) -> Result<()> {
        if let RivalRecord::Epoch { epoch, train, held_out, .. } = record {
            let (train_loss, test) = (train.train_loss, &held_out.test);
            let fvu = test.fvu.map_or("–".into(), |fvu| format!("{fvu:.4}"));
            println!("  epoch {epoch}: loss {train_loss:.4}, FVU {fvu}, {:.1} non-zeros", test.nonzeros);
        }
        Ok(())
    }
}

/// What a run came to, learned or gone on with where it is not finished.
fn learned(folder: &Path, learning: Learning, seed: u64, device: &Device) -> Result<Learned> {
    let interrupted = || Error::Interrupted(folder.display().to_string());
    match learning {
        Learning::Model(mut config) => {
            config.learning.seed = seed;
            config.data.seed = seed;
            let (data, mut run);
            if RunFolder::new(folder).holds_run() {
                *config = read_config(folder)?;
                data = data::open(&config.data)?;
                run = Run::resume(folder, &config, &data, device)?;
            } else {
                data = data::open(&config.data)?;
                run = Run::create(folder, &config, &data, device, &mut Lines)?;
            }
            match run.train(&data, &|| false, &mut Lines)? {
                Outcome::Finished => Ok(Learned::Model(run.state().model()?)),
                Outcome::Interrupted => Err(interrupted()),
            }
        }
        Learning::Rival(mut config) => {
            config.seed = seed;
            let data = data::open(&config.data)?;
            let mut run = match rivals::is_rival(folder) {
                true => RivalRun::resume(folder, &rivals::read_config(folder)?, &data, device)?,
                false => RivalRun::create(folder, &config, &data, device)?,
            };
            match run.train(&data, &|| false, &mut Lines)? {
                Outcome::Finished => Ok(Learned::Rival(Box::new(run.rival().clone()))),
                Outcome::Interrupted => Err(interrupted()),
            }
        }
    }
}

/// What codes a row's digits.
fn encoder<'a>(
    row: &Row,
    learned: &'a Learned,
    shape: SignalShape,
    lambda: f32,
    device: &Device,
) -> Result<Box<dyn Encoder + 'a>> {
    let alone = alone(row, learned, shape, lambda, device)?;
    Ok(if row.deskewed { Box::new(DeskewingEncoder::new(alone)) } else { alone })
}

/// What codes digits as they are.
fn alone<'a>(
    row: &Row,
    learned: &'a Learned,
    shape: SignalShape,
    lambda: f32,
    device: &Device,
) -> Result<Box<dyn Encoder + 'a>> {
    let model = match learned {
        Learned::Model(model) => model,
        Learned::Rival(rival) => return Ok(Box::new(NetworkEncoder::new(&**rival, Some(&row.layers), device)?)),
    };
    let basis = BasisPursuitConfig { nonnegative: true, gap: 1e-2, ..BasisPursuitConfig::default() };
    if let Some(strides) = row.windows.clone() {
        let config =
            WindowConfig { layers: row.layers.clone(), lambda: Lambda::Absolute(lambda), padding: 0, strides, basis };
        return Ok(Box::new(config.init(model, shape)?));
    }
    let recipe = Recipe {
        config: PursuitConfig::BasisPursuit { algorithm: Algorithm::Auto, basis },
        lambda: Some(Lambda::Absolute(lambda)),
        layer_weights: None,
    };
    let operator = model.operator(shape, OperatorForm::Auto)?;
    Ok(Box::new(SignalEncoder::new(model, operator, recipe, row.layers.clone(), true)?))
}

/// Some signals of a source that follow each other.
struct Part<'a> {
    source: &'a dyn Source,
    first: usize,
    count: usize,
}

impl Source for Part<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> SignalShape {
        self.source.shape()
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let indices: Vec<usize> = indices.iter().map(|index| self.first + index).collect();
        self.source.read(&indices, out)
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

/// Digits whose features are kept together.
const PART: usize = 2000;

/// Features of the first `count` digits and their labels. Those of every [`PART`] are kept in `folder`, where there is one, so that who
/// comes back after an hour does not start again.
fn features(
    source: &dyn Source,
    count: usize,
    encoder: &dyn Encoder,
    row: &Row,
    folder: Option<&Path>,
) -> Result<(Features, Vec<u8>)> {
    let labels = source.labels().ok_or_else(|| Error::parameter("--data", source.describe(), "digits with labels"))?;
    let columns: usize = encoder.maps().iter().map(|map| row.pooling.len(map.shape, map.nonnegative)).sum();
    let mut values = Vec::with_capacity(count * columns);
    folder.map_or(Ok(()), files::create_folder)?;
    let (started, mut said, mut found_before) = (Instant::now(), Instant::now(), 0);
    for first in (0..count).step_by(PART) {
        let part = Part { source, first, count: PART.min(count - first) };
        let path = folder.map(|folder| folder.join(format!("{first}_{}.f32", part.count)));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            let bytes = files::read_whole(path)?;
            let (found, _) = bytes.as_chunks::<4>();
            if found.len() != part.count * columns {
                let expected = format!("{} features of {columns} values, not {} bytes", part.count, bytes.len());
                return Err(Error::format(path, expected));
            }
            values.extend(found.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            found_before += part.count;
            continue;
        }
        let found = extract(&part, part.count, encoder, &row.pooling, None, |done| {
            if said.elapsed().as_secs() >= 15 {
                said = Instant::now();
                let done = first + done;
                let rate = (done - found_before) as f64 / started.elapsed().as_secs_f64();
                println!("  {done} of {count} digits coded, {:.0} s left", (count - done) as f64 / rate);
            }
            true
        })?;
        let found = found.ok_or_else(|| Error::Interrupted("coding".into()))?;
        (0..found.rows()).for_each(|digit| values.extend_from_slice(found.row(digit)));
        if let Some(path) = path {
            let new = &values[first * columns..];
            files::write_bytes(&path, &new.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
    }
    Ok((Features::new(values, columns)?, labels[..count].to_vec()))
}

fn judged(
    args: &Args,
    row: &Row,
    seed: u64,
    digits: &Dataset,
    encoder: &dyn Encoder,
    kept: Option<&Path>,
) -> Result<Outcomes> {
    let started = Instant::now();
    let count = digits.train.len().min(args.train);
    let [of_train, of_test] = ["train", "test"].map(|name| kept.map(|folder| folder.join(name)));
    let (train, train_labels) = features(&*digits.train, count, encoder, row, of_train.as_deref())?;
    let (test, test_labels) = features(&*digits.test, digits.test.len(), encoder, row, of_test.as_deref())?;
    println!("  {} features, {:.0} s", train.columns(), started.elapsed().as_secs_f64());
    let mut best: Option<Outcomes> = None;
    let mut all = Some((train, test));
    for (index, &power) in row.powers.iter().enumerate() {
        // Gigabytes: copied only where they are needed once more.
        let copy = if index + 1 < row.powers.len() { all.clone() } else { all.take() };
        let Some((mut train, mut test)) = copy else { break };
        train.raise(power)?;
        test.raise(power)?;
        let labelled = Labelled::new(train, train_labels.clone(), test, test_labels.clone(), row.scaling)?;
        let found = fitted(&labelled, row, seed, power, started)?;
        if best.as_ref().is_none_or(|best| found.held_out_error < best.held_out_error) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| Error::parameter("powers", "none", "at least one"))
}

/// A classifier on features of that power.
fn fitted(labelled: &Labelled, row: &Row, seed: u64, power: f32, started: Instant) -> Result<Outcomes> {
    let penalties = PENALTIES.to_vec();
    let config = EvaluationConfig { seed, penalties, ..EvaluationConfig::default() };
    let found = labelled.evaluate(&config, None, |candidate| {
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "  power {power}, penalty {:.1e}: held-out error {:.3}% after {} iterations ({seconds:.0} s)",
            candidate.penalty,
            100.0 * candidate.error,
            candidate.iterations
        );
        true
    })?;
    let Some(Evaluation { penalty, candidates, confusion, training_error, labels, .. }) = found else {
        return Err(Error::Interrupted("classifying".into()));
    };
    let held_out = candidates.iter().map(|candidate| candidate.error).fold(f64::INFINITY, f64::min);
    println!("  power {power}: test error {:.2}%", 100.0 * confusion.error());
    Ok(Outcomes {
        row: row.name.into(),
        seed,
        train: labels,
        features: labelled.columns(),
        scaling: row.scaling,
        powers: row.powers.clone(),
        power,
        epochs: None,
        test_error: confusion.error(),
        interval: confusion.interval(),
        penalty,
        held_out_error: held_out,
        training_error,
        confusion: confusion.counts,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let digits = data::open(&DataConfig { source: args.data.clone(), ..DataConfig::default() })?;
    let path = args.out.join("results.json");
    let mut results: Vec<Outcomes> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::format(&path, error.to_string()))?,
        Err(_) => Vec::new(),
    };
    for &seed in &args.seeds {
        for row in &rows() {
            let wanted = args.rows.is_empty() || args.rows.iter().any(|part| row.name.contains(part.as_str()));
            let train = digits.train.len().min(args.train);
            let learning = learning(row.learning, &args.data, args.rival_epochs)?;
            let (lambda, epochs, folder) = match &learning {
                Learning::Model(config) => (config.learning.lambda.end, None, format!("{}-{seed}", row.learning)),
                Learning::Rival(config) => {
                    (0.0, Some(config.epochs), format!("{}-{}-{seed}", row.learning, config.epochs))
                }
            };
            let same = |found: &Outcomes| {
                (found.row.as_str(), found.seed, found.train, found.epochs) == (row.name, seed, train, epochs)
            };
            let settled =
                |found: &Outcomes| same(found) && (found.scaling, &found.powers) == (row.scaling, &row.powers);
            if !wanted || results.iter().any(settled) {
                continue;
            }
            println!("{} (seed {seed})", row.name);
            let folder = args.runs.join(folder);
            let learned = learned(&folder, learning, seed, &device)?;
            for (depth, atoms) in atoms(&learned).into_iter().enumerate() {
                let picture = mosaic::filters(atoms, None);
                mosaic::save(&picture, &args.out.join(format!("{}_{}.png", row.learning, depth + 1)))?;
            }
            let encoder = encoder(row, &learned, digits.train.shape(), lambda, &device)?;
            // Coding every window takes up to an hour: it is kept until there is a result.
            let kept = row.windows.as_ref().map(|strides| {
                let [layers, strides] = [&row.layers, strides]
                    .map(|numbers| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join("_"));
                let looks = if row.deskewed { "twice" } else { "once" };
                folder.join("features").join(format!("{layers}-{strides}-{looks}"))
            });
            let mut found = judged(&args, row, seed, &digits, encoder.as_ref(), kept.as_deref())?;
            found.epochs = epochs;
            println!("  test error {:.2}%, {:.0} s", 100.0 * found.test_error, found.seconds);
            results.retain(|found| !same(found));
            results.push(found);
            let text = serde_json::to_vec_pretty(&results).map_err(|error| Error::format(&path, error.to_string()))?;
            files::write_bytes(&path, &text)?;
            if let Some(kept) = kept.filter(|kept| kept.exists()) {
                std::fs::remove_dir_all(&kept).map_err(Error::write(&kept))?;
            }
        }
    }
    let page = page(&results);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

/// Effective atoms of every layer; none of rivals, whose units are thousands of whole digits.
fn atoms(learned: &Learned) -> Vec<Tensor<4>> {
    match learned {
        Learned::Model(model) => (1..=model.depth()).map(|depth| model.effective_filters(depth)).collect(),
        Learned::Rival(_) => Vec::new(),
    }
}

fn page(results: &[Outcomes]) -> String {
    let mut page = String::from(
        "# Unsupervised classification of MNIST\n\n\
         `cargo run --release --example unsupervised_classification -- --data FOLDER`\n\n\
         Features learned from 60,000 digits without labels; a linear classifier (squared hinge, one class against all others) on \
         top, its penalty chosen on 10,000 of the training digits, as is the power that features are raised to where `results.json` names \
         several; the error on the 10,000 test digits, mean over the seeds. Where it says so, digits are also coded deskewed: sheared so \
         that they stand upright, for which no label is needed; what is published beside it knew them as they are.\n\n\
         | features | number | power | test error | seeds | published |\n|---|---|---|---|---|---|\n",
    );
    let of_row = |row: &Row| results.iter().filter(|found| found.row == row.name).collect::<Vec<_>>();
    let budgets = |row: &Row| of_row(row).iter().map(|found| found.epochs).collect::<BTreeSet<_>>();
    for (row, budget) in rows().iter().flat_map(|row| budgets(row).into_iter().map(move |budget| (row, budget))) {
        let found: Vec<&Outcomes> = of_row(row).into_iter().filter(|found| found.epochs == budget).collect();
        let Some(first) = found.first() else { continue };
        let errors: Vec<f64> = found.iter().map(|found| 100.0 * found.test_error).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let each: Vec<String> = errors.iter().map(|error| format!("{error:.2}")).collect();
        let powers: Vec<String> = found.iter().map(|found| found.power.to_string()).collect();
        let epochs = budget.map_or_else(String::new, |epochs| format!(", {epochs} epochs"));
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "| {}{epochs} | {} | {} | {mean:.2}% | {} | {} |",
            row.name,
            first.features,
            powers.join(", "),
            each.join(", "),
            row.published.unwrap_or("")
        );
    }
    if results.iter().any(|found| found.row.contains("local atoms")) {
        page.push_str("\nLocal atoms of one, two and three layers:\n\n![one layer](local-3_1.png)\n\n![two layers](local-3_2.png)\n\n![three layers](local-3_3.png)\n");
    }
    page
}
