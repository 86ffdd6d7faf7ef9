//! Every way to train the model beside the others: objective against seconds, and encoders that take the pursuit's place.
//!
//! ```text
//! cargo run --release --example unrolled_training -- [--data FOLDER --preset mnist]
//! ```
//!
//! Trains the preset on its signals (the drawn digits unless `--data` says otherwise) by the online rule and end to end by every mode of
//! gradients, from nothing and from the online rule's model, the most important ones with several seeds; then encoders of 1 to 20 iterations on the online rule's
//! dictionaries, as they are and learned, beside as many iterations of FISTA; then rivals with as many hidden units, which keep as
//! many values as the model's encoder has non-zeros and are trained for the same time. Runs in `--run` that are finished are not done again. Writes
//! `results.json`, pictures and a table (`README.md`) into `--out`.
//!
//! `--atoms N` trains one layer of N atoms as large as the signals, less their means, instead of the preset's layers, as for patches of photographs:
//! `--data FOLDER --patch 16 --patches 60000 --atoms 512 --lambda 0.1`.

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use mlcsc::autoencoder::{Autoencoder, Coded, EncoderWeights, SparseAutoencoder, SparseAutoencoderConfig};
use mlcsc::baselines::{KSparseConfig, PenalizedAutoencoderConfig, Rival, RivalConfig, TopKConfig, one_layer};
use mlcsc::coder::{Batch, Coder, CoderConfig};
use mlcsc::data::{self, Dataset, Source};
use mlcsc::error::{Error, Result};
use mlcsc::evaluate::plot::{self, Curve};
use mlcsc::export::mosaic;
use mlcsc::files;
use mlcsc::geometry::Pair;
use mlcsc::kernels::threshold::hard_threshold_rows;
use mlcsc::learn::config::{GradientMode, Schedule, UpdateRule};
use mlcsc::learn::rivals::{RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::learn::{HeldOut, Observer, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::normalization::Normalization;
use mlcsc::model::{CodingDefaults, Mlcsc};
use mlcsc::names::named;
use mlcsc::pursuit::{OrthogonalMatchingPursuitConfig, PursuitConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Args {
    /// Signals, as of `mlcsc train`; default: the drawn digits
    #[arg(long)]
    data: Option<String>,
    /// The preset
    #[arg(long, default_value = "small")]
    preset: String,
    /// Cut patches of this size from pictures
    #[arg(long)]
    patch: Option<usize>,
    /// Number of patches
    #[arg(long)]
    patches: Option<usize>,
    /// One layer of so many atoms instead of the preset's
    #[arg(long)]
    atoms: Option<usize>,
    /// Penalty, instead of the preset's
    #[arg(long)]
    lambda: Option<f32>,
    /// Passes over the training signals
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Whether only the online rule, training end to end, encoders and rivals are run, not every way
    #[arg(long)]
    brief: bool,
    /// Seeds of the ways to train
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Iterations of the encoders
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5, 10, 20])]
    iterations: Vec<usize>,
    /// Folder of the training runs
    #[arg(long, default_value = "runs/unrolled_training")]
    run: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "experiments/unrolled_training")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Relative duality gap of the codes that results are computed from.
const GAP: f32 = 1e-5;

/// The name of the online rule's run.
const ONLINE: &str = "online rule";

/// What became of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trained {
    /// Seconds of training after each epoch, without measuring, and the objective of exact codes of the held-out signals.
    curve: Vec<(f64, f64)>,
    /// The objective of exact codes with the dictionaries that were kept.
    objective: f64,
    fvu: Option<f64>,
    nonzeros: f64,
    dead_atoms: usize,
    /// The objective of the encoder's own codes.
    own: Option<f64>,
}

/// Measures exact codes after every epoch, with the clock stopped.
struct Clocked<'a> {
    test: &'a dyn Source,
    started: Instant,
    measuring: Duration,
    curve: Vec<(f64, f64)>,
}

impl Observer<Record, TrainingState> for &mut Clocked<'_> {
    fn record(&mut self, record: &Record, learner: &TrainingState) -> Result<()> {
        if let Record::Epoch { epoch, held_out: HeldOut { test, .. }, .. } = record {
            let begun = Instant::now();
            let seconds = (begun - self.started - self.measuring).as_secs_f64();
            if let Some(summary) = learner.evaluate(self.test, |_| true)? {
                println!(
                    "  epoch {epoch}: {seconds:.1} s, exact codes {:.4}, own {:.4}",
                    summary.objective, test.objective
                );
                self.curve.push((seconds, summary.objective));
            }
            self.measuring += begun.elapsed();
        }
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

/// The mean objective of an encoder's own codes.
fn own_objective(encoder: &SparseAutoencoder, source: &dyn Source) -> Result<f64> {
    let (shape, ready) = (source.shape(), encoder.prepare(source.shape())?);
    let mut sum = 0.0;
    for start in (0..source.len()).step_by(500) {
        let indices: Vec<usize> = (start..(start + 500).min(source.len())).collect();
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(&indices, &mut values)?;
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), &encoder.device());
        let (_, objective) = ready.coded_with_objective(signals)?;
        sum += objective.into_data().iter::<f32>().map(f64::from).sum::<f64>();
    }
    Ok(sum / source.len() as f64)
}

/// Milliseconds in which 1,000 signals are encoded, the median of five times 250.
fn milliseconds(encoder: &SparseAutoencoder, source: &dyn Source) -> Result<f64> {
    let count = source.len().min(250);
    let mut values = vec![0.0; count * source.shape().len()];
    source.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
    let data = TensorData::new(values, source.shape().batched(count));
    let signals = Tensor::from_data(data, &encoder.device());
    let ready = encoder.prepare(source.shape())?;
    let mut times = Vec::new();
    for _ in 0..6 {
        let begun = Instant::now();
        let _ = ready.encode(signals.clone())?.into_data();
        times.push(begun.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
    // The first prepares what depends on the dictionaries alone.
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

struct Bench<'a> {
    args: &'a Args,
    base: TrainConfig,
    data: &'a Dataset,
    device: Device,
}

impl Bench<'_> {
    fn folder(&self, name: &str, seed: u64) -> PathBuf {
        self.args.run.join(format!("{}-{seed}", name.replace([' ', ','], "-")))
    }

    fn model(&self, name: &str, seed: u64) -> Result<Mlcsc> {
        Ok(Mlcsc::load(&self.folder(name, seed).join("model.safetensors"), &self.device)?.0)
    }

    /// Trains with these settings, or reads what became of it.
    fn train(&self, name: &str, config: &TrainConfig, from: Option<&Mlcsc>) -> Result<Trained> {
        let folder = self.folder(name, config.learning.seed);
        let kept = folder.join("trained.json");
        if let Some(trained) = std::fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(trained);
        }
        println!("{name}, seed {}", config.learning.seed);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::write(&folder))?;
        }
        let mut clocked =
            Clocked { test: &*self.data.test, started: Instant::now(), measuring: Duration::ZERO, curve: Vec::new() };
        let mut run = Run::create_from(&folder, config, from, self.data, &self.device, &mut &mut clocked)?;
        run.train(self.data, &|| false, &mut &mut clocked)?;
        let mut fine = config.clone();
        fine.learning.gap = GAP;
        fine.learning.update = UpdateRule::Pursuit;
        let fine = TrainingState::from_model(&fine, &run.state().model()?, &*self.data.train, &self.device)?;
        // With the last λ, which the presets do not change.
        let Some(test) = fine.evaluate(&*self.data.test, |_| true)? else {
            return Err(Error::Interrupted("held-out signals were not coded".into()));
        };
        let own = match config.learning.update {
            UpdateRule::Unrolled => {
                let encoder = SparseAutoencoder::load(&run.model_path(), &self.device)?;
                Some(own_objective(&encoder, &*self.data.test)?)
            }
            _ => None,
        };
        let trained = Trained {
            curve: clocked.curve,
            objective: test.objective,
            fvu: test.fvu,
            nonzeros: test.nonzeros.last().copied().unwrap_or(0.0),
            dead_atoms: test.dead_atoms,
            own,
        };
        write_json(&kept, &trained)?;
        Ok(trained)
    }

    /// End to end with these settings.
    fn unrolled(&self, seed: u64, change: impl Fn(&mut mlcsc::learn::config::UnrolledUpdateConfig)) -> TrainConfig {
        let mut config = self.base.clone();
        config.learning.seed = seed;
        config.learning.update = UpdateRule::Unrolled;
        change(&mut config.learning.unrolled);
        config
    }
}

/// A rival that was trained for about the same time as the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Contender {
    name: String,
    epochs: usize,
    /// Of training, without measuring the time of an epoch first.
    seconds: f64,
    fvu: f64,
    nonzeros: f64,
}

/// Says nothing.
struct Silent;

impl Observer<RivalRecord, Rival> for Silent {
    fn record(&mut self, _: &RivalRecord, _: &Rival) -> Result<()> {
        Ok(())
    }
}

/// Sums from which the fraction of variance unexplained follows.
struct Variance {
    count: usize,
    residual: f64,
    sums: Vec<f64>,
    squares: f64,
    nonzeros: usize,
}

impl Variance {
    fn new(len: usize) -> Self {
        Self { count: 0, residual: 0.0, sums: vec![0.0; len], squares: 0.0, nonzeros: 0 }
    }

    fn add(&mut self, signals: Tensor<4>, codes: Tensor<4>, made: Tensor<4>) {
        self.count += signals.dims()[0];
        self.nonzeros += codes.into_data().iter::<f32>().filter(|value| *value != 0.0).count();
        let (signals, made, len) = (signals.into_data(), made.into_data(), self.sums.len());
        for (index, (value, made)) in signals.iter::<f32>().zip(made.iter::<f32>()).enumerate() {
            self.residual += f64::from(value - made).powi(2);
            self.sums[index % len] += f64::from(value);
            self.squares += f64::from(value).powi(2);
        }
    }

    /// FVU and mean non-zeros.
    fn finish(self) -> (f64, f64) {
        let count = self.count as f64;
        let variance = self.squares - self.sums.iter().map(|sum| sum * sum).sum::<f64>() / count;
        (self.residual / variance, self.nonzeros as f64 / count)
    }
}

/// FVU and mean non-zeros of a network's codes, of which at most the `keep` of largest magnitude are left.
fn measured(network: &dyn Autoencoder, source: &dyn Source, keep: usize, device: &Device) -> Result<(f64, f64)> {
    let (ready, shape) = (network.ready()?, source.shape());
    let mut variance = Variance::new(shape.len());
    for start in (0..source.len()).step_by(500) {
        let indices: Vec<usize> = (start..(start + 500).min(source.len())).collect();
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(&indices, &mut values)?;
        let signals: Tensor<4> = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), device);
        // As they are, with what undoes the normalisation, which codes alone do not have.
        let Coded { mut codes, reconstruction: mut made } = ready.reconstruct(signals.clone())?;
        let dims = codes.dims();
        let len = dims[1] * dims[2] * dims[3];
        if keep < len {
            let mut kept: Vec<f32> = codes.into_data().iter::<f32>().collect();
            hard_threshold_rows(&mut kept, len, keep);
            codes = Tensor::from_data(TensorData::new(kept, dims), device);
            made = ready.decode(codes.clone())?;
        }
        variance.add(signals, codes, made);
    }
    Ok(variance.finish())
}

/// FVU and mean non-zeros of a coder's codes.
fn greedily(coder: &Coder, source: &dyn Source) -> Result<(f64, f64)> {
    let mut variance = Variance::new(source.shape().len());
    coder.encode_source(source, None, |Batch { signals, pursued, undo, .. }| {
        let made = undo.undo(coder.operator().synthesize(pursued.codes.clone()));
        variance.add(signals, pursued.codes, made);
        Ok(())
    })?;
    Ok(variance.finish())
}

/// Rivals of so many hidden units that keep `keep` values, each trained for about so many seconds; the penalised one keeps its largest.
fn rivals(bench: &Bench, units: usize, keep: usize, seconds: f64) -> Result<Vec<Contender>> {
    let k_sparse = KSparseConfig { units, k: keep, initial_k: keep.max(200).min(units), ..KSparseConfig::default() };
    let top_k = TopKConfig { units, k: keep, ..TopKConfig::default() };
    let penalized = PenalizedAutoencoderConfig { units, ..PenalizedAutoencoderConfig::default() };
    let all = [
        ("k-sparse", RivalConfig::KSparse(k_sparse)),
        ("top-k", RivalConfig::TopK(top_k)),
        ("penalized by ℓ1, its largest values", RivalConfig::Sae(penalized)),
    ];
    let one = |(name, rival): (&str, RivalConfig)| -> Result<Contender> {
        let folder = bench.folder(name, 0);
        let kept = folder.join("contender.json");
        if let Some(found) = std::fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(found);
        }
        println!("{name}");
        let mut config = RivalTrainConfig { data: bench.base.data.clone(), ..RivalTrainConfig::new(rival) };
        let train = |config: &RivalTrainConfig| -> Result<(RivalRun, f64)> {
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(Error::write(&folder))?;
            }
            let begun = Instant::now();
            let mut run = RivalRun::create(&folder, config, bench.data, &bench.device)?;
            run.train(bench.data, &|| false, &mut Silent)?;
            Ok((run, begun.elapsed().as_secs_f64()))
        };
        config.epochs = 1;
        let (_, pace) = train(&config)?;
        config.epochs = ((seconds / pace).round() as usize).max(1);
        let (run, seconds) = train(&config)?;
        let (fvu, nonzeros) = measured(run.rival(), &*bench.data.test, keep, &bench.device)?;
        let contender = Contender { name: name.into(), epochs: config.epochs, seconds, fvu, nonzeros };
        write_json(&kept, &contender)?;
        Ok(contender)
    };
    all.into_iter().map(one).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::format(path, error.to_string()))?;
    files::write_bytes(path, text.as_bytes())
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count().max(1) as f64
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let mut base = TrainConfig::preset(named("--preset", &args.preset)?);
    base.learning.epochs = args.epochs;
    if let Some(source) = &args.data {
        base.data.source = source.clone();
    }
    base.data.patch = args.patch.map(Pair::from).or(base.data.patch);
    base.data.patches = args.patches.or(base.data.patches);
    base.learning.lambda = args.lambda.map_or(base.learning.lambda, Schedule::constant);
    let data = data::open(&base.data)?;
    if let Some(atoms) = args.atoms {
        base.model = one_layer(data.train.shape(), atoms)?;
        // Where every signal is a mean and something around it, as patches of photographs are.
        base.model.normalization = Normalization::Center;
    }
    let bench = Bench { args: &args, base, data: &data, device };

    let tied = |gradient: GradientMode| {
        move |unrolled: &mut mlcsc::learn::config::UnrolledUpdateConfig| {
            unrolled.gradient = gradient;
            unrolled.weights = Some(EncoderWeights::Tied);
        }
    };
    let mut ways: Vec<(String, Vec<Trained>)> = Vec::new();
    for seed in 0..args.seeds {
        let mut all: Vec<(String, Trained)> = Vec::new();
        let mut online = bench.base.clone();
        online.learning.seed = seed;
        all.push((ONLINE.into(), bench.train(ONLINE, &online, None)?));
        let model = bench.model(ONLINE, seed)?;
        let all_ways = [
            ("end to end", None, bench.unrolled(seed, |_| ())),
            ("end to end, from the online rule", Some(&model), bench.unrolled(seed, |_| ())),
            ("envelope, tied", None, bench.unrolled(seed, tied(GradientMode::Envelope))),
            ("implicit, tied", None, bench.unrolled(seed, tied(GradientMode::Implicit))),
            ("unrolled, tied", None, bench.unrolled(seed, tied(GradientMode::Unrolled))),
            ("truncated, tied", None, bench.unrolled(seed, tied(GradientMode::Truncated))),
            (
                "envelope, tied, rate 0.003",
                None,
                bench.unrolled(seed, |unrolled| {
                    tied(GradientMode::Envelope)(unrolled);
                    unrolled.optimization.learning_rate = 3e-3;
                }),
            ),
            (
                "envelope, tied, made sparse at every step",
                None,
                bench.unrolled(seed, |unrolled| {
                    tied(GradientMode::Envelope)(unrolled);
                    unrolled.refit_every = 1;
                }),
            ),
        ];
        let tried = match (args.brief, seed) {
            (true, _) => 1,
            (false, 0) => usize::MAX,
            (false, _) => 3,
        };
        for (name, from, config) in all_ways.into_iter().take(tried) {
            all.push((name.into(), bench.train(name, &config, from)?));
        }
        for (name, trained) in all {
            match ways.iter_mut().find(|(known, _)| *known == name) {
                Some((_, runs)) => runs.push(trained),
                None => ways.push((name, vec![trained])),
            }
        }
    }

    // Encoders on the online rule's dictionaries, which stay as they are.
    let model = bench.model(ONLINE, 0)?;
    let optimum = ways[0].1[0].objective;
    let lambda = bench.base.learning.lambda.at(1.0);
    let mut encoders = Vec::new();
    for &iterations in &args.iterations {
        let plain = SparseAutoencoderConfig::new(bench.base.model.clone())
            .with_iterations(iterations)
            .with_lambda(lambda)
            .with_nonnegative(bench.base.learning.nonnegative)
            .init_from(&model)?;
        let name = format!("encoder of {iterations}");
        let config = bench.unrolled(0, |unrolled| {
            unrolled.iterations = iterations;
            unrolled.dictionaries = false;
        });
        let trained = bench.train(&name, &config, Some(&model))?;
        let learned = SparseAutoencoder::load(&bench.folder(&name, 0).join("model.safetensors"), &bench.device)?;
        encoders.push(json!({
            "iterations": iterations,
            "fista": own_objective(&plain, &*data.test)?,
            "fista_ms": milliseconds(&plain, &*data.test)?,
            "learned": trained.own,
            "learned_ms": milliseconds(&learned, &*data.test)?,
            "seconds": trained.curve.last().map(|(seconds, _)| seconds),
        }));
    }

    let end_to_end = &ways[1].1[0];
    let encoder = SparseAutoencoder::load(&bench.folder("end to end", 0).join("model.safetensors"), &bench.device)?;
    let (fvu, nonzeros) = measured(&encoder, &*data.test, usize::MAX, &bench.device)?;
    let units = encoder.code().len();
    let seconds = end_to_end.curve.last().map_or(0.0, |(seconds, _)| *seconds);
    let keep = (nonzeros.round() as usize).clamp(1, units);
    // The mean of a signal is a value that is kept as well.
    let means = usize::from(bench.base.model.normalization == Normalization::Center);
    let mut contenders =
        vec![Contender { name: "ML-CSC, its encoder".into(), epochs: args.epochs, seconds, fvu, nonzeros }];
    contenders.extend(end_to_end.fvu.map(|fvu| Contender {
        name: "ML-CSC, exact codes".into(),
        epochs: args.epochs,
        seconds,
        fvu,
        nonzeros: end_to_end.nonzeros,
    }));
    let greedy = PursuitConfig::OrthogonalMatchingPursuit(OrthogonalMatchingPursuitConfig::new(keep));
    let coder =
        CoderConfig::new(&CodingDefaults::default()).with_pursuit(greedy).init(&bench.model("end to end", 0)?)?;
    let (fvu, nonzeros) = greedily(&coder, &*data.test)?;
    contenders.push(Contender { name: "ML-CSC, OMP".into(), epochs: args.epochs, seconds, fvu, nonzeros });
    contenders.iter_mut().for_each(|contender| contender.nonzeros += means as f64);
    contenders.extend(rivals(&bench, units, keep + means, seconds)?);

    let curves = |ways: &[(String, Vec<Trained>)]| -> Vec<Curve> {
        let curve = |(name, runs): &(String, Vec<Trained>)| Curve { name: name.clone(), points: runs[0].curve.clone() };
        ways.iter().map(curve).collect()
    };
    plot::curves(&args.out.join("curves.svg"), "seconds", "objective of exact codes", &curves(&ways))?;
    let trained = bench.model("end to end", 0)?;
    for depth in 1..=trained.depth() {
        let picture = mosaic::filters(trained.effective_filters(depth), None);
        mosaic::save(&picture, &args.out.join(format!("effective_{depth}.png")))?;
    }
    let results = json!({ "ways": ways, "optimum": optimum, "encoders": encoders, "contenders": contenders });
    write_json(&args.out.join("results.json"), &results)?;

    let mut page = String::new();
    let mut command = String::new();
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(command, " --{name} {value}");
        }
    };
    flag("data", args.data.as_ref().map(|_| "FOLDER".into()));
    flag("preset", (args.preset != "small").then(|| args.preset.clone()));
    flag("patch", args.patch.map(|size| size.to_string()));
    flag("patches", args.patches.map(|count| count.to_string()));
    flag("atoms", args.atoms.map(|atoms| atoms.to_string()));
    flag("lambda", args.lambda.map(|lambda| lambda.to_string()));
    if args.iterations != [1, 3, 5, 10, 20] {
        let iterations: Vec<String> = args.iterations.iter().map(ToString::to_string).collect();
        let _ = write!(command, " --iterations {}", iterations.join(","));
    }
    if args.brief {
        command.push_str(" --brief");
    }
    let layers = match args.atoms {
        Some(atoms) => format!(
            "One layer of {atoms} atoms as large as the signals, less their means, each of which counts as a non-zero"
        ),
        None => format!("Preset `{}`", args.preset),
    };
    // Writing into a string cannot fail.
    let _ = writeln!(
        page,
        "# Training end to end beside the online rule\n\n\
         `cargo run --release --example unrolled_training --{command} --epochs {} --seeds {}`\n\n\
         {layers}, {} training and {} held-out signals, λ = {lambda}. Exact codes: to a relative duality gap of {GAP:.0e}. Own codes: those of \
         the encoder that was trained with the dictionaries (tied: {} iterations of FISTA). Means over the seeds; seconds beside whatever else \
         the machine did, without measuring.\n\n\
         | way | objective, exact codes | of each seed | objective, own codes | FVU | non-zeros | dead atoms | seconds |\n\
         |---|---|---|---|---|---|---|---|",
        args.epochs,
        args.seeds,
        data.train.len(),
        data.test.len(),
        bench.base.learning.unrolled.iterations,
    );
    for (name, runs) in &ways {
        let each: Vec<String> = runs.iter().map(|run| format!("{:.3}", run.objective)).collect();
        let own: Vec<f64> = runs.iter().filter_map(|run| run.own).collect();
        let fvu: Vec<f64> = runs.iter().filter_map(|run| run.fvu).collect();
        let _ = writeln!(
            page,
            "| {name} | {:.3} | {} | {} | {:.1}% | {:.1} | {:.1} | {:.0} |",
            mean(runs.iter().map(|run| run.objective)),
            each.join(", "),
            if own.is_empty() { "–".into() } else { format!("{:.3}", mean(own.iter().copied())) },
            100.0 * mean(fvu.iter().copied()),
            mean(runs.iter().map(|run| run.nonzeros)),
            mean(runs.iter().map(|run| run.dead_atoms as f64)),
            mean(runs.iter().map(|run| run.curve.last().map_or(0.0, |(seconds, _)| *seconds))),
        );
    }
    let _ = writeln!(
        page,
        "\n![objective against seconds](curves.svg)\n\n\
         Encoders of T iterations on the dictionaries of the online rule (seed 0), which stay as they are, trained for {} epochs; the optimum is \
         {optimum:.3}. FISTA: as many iterations of it, untrained.\n\n\
         | T | FISTA | above the optimum | learned | above the optimum | ms for 1,000 signals, FISTA | learned | seconds of training |\n\
         |---|---|---|---|---|---|---|---|",
        args.epochs,
    );
    for encoder in &encoders {
        let number = |key: &str| encoder[key].as_f64().unwrap_or(f64::NAN);
        let above = |value: f64| 100.0 * (value / optimum - 1.0);
        let _ = writeln!(
            page,
            "| {} | {:.3} | {:.1}% | {:.3} | {:.1}% | {:.1} | {:.1} | {:.0} |",
            encoder["iterations"],
            number("fista"),
            above(number("fista")),
            number("learned"),
            above(number("learned")),
            number("fista_ms"),
            number("learned_ms"),
            number("seconds"),
        );
    }
    let _ = writeln!(
        page,
        "\nBeside rivals with as many hidden units ({units}) that keep as many values as the encoder has non-zeros, after about the same time \
         (seed 0, held-out signals):\n\n\
         | | epochs | seconds | FVU | non-zeros |\n|---|---|---|---|---|",
    );
    for Contender { name, epochs, seconds, fvu, nonzeros } in &contenders {
        let _ = writeln!(page, "| {name} | {epochs} | {seconds:.0} | {:.1}% | {nonzeros:.1} |", 100.0 * fvu);
    }
    let _ = writeln!(page, "\nWhat training end to end found (seed 0), layer by layer:\n");
    for depth in 1..=trained.depth() {
        let _ = writeln!(page, "![atoms of the effective dictionary of depth {depth}](effective_{depth}.png)\n");
    }
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}
