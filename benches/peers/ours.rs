//! This crate's side of the comparison with other libraries (`benches/peers/run.py`): a process that answers one request after the
//! other, one line of JSON each, on standard input and output.
//!
//! | request | answer |
//! |---|---|
//! | `info` | version, device, threads, features |
//! | `export-signals`, `export-model`, `random-model`, `learn-model`, `learn-filters` | writes inputs that all contenders read |
//! | `prepare` | reads inputs and makes everything that does not depend on signals, under a name |
//! | `run` | the seconds of one repetition of what that name stands for |
//! | `write` | writes what the last repetition found |
//! | `memory` | the most memory that this process has held, in bytes |
//! | `plot` | draws curves on logarithmic axes |
//!
//! An answer that is an object with the key `error` says what went wrong.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use mlcsc::autoencoder::SparseAutoencoderConfig;
use mlcsc::data::{self, DataConfig, Split, npy};
use mlcsc::error::{Error, Result};
use mlcsc::evaluate::plot::{self, Curve};
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::learn::config::Schedule;
use mlcsc::learn::{DictionaryLearner, LearningConfig, TrainConfig};
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::normalization::Normalization;
use mlcsc::model::preset::Preset;
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::names::named;
use mlcsc::pursuit::{
    Acceleration, BasisPursuitConfig, Lambda, OrthogonalMatchingPursuit, OrthogonalMatchingPursuitConfig, Problem,
    ProximalGradientConfig, Pursuit, Unrolled,
};
use mlcsc::{device, files};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What may be asked.
#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
enum Request {
    Info,
    /// Signals of a source as `[n, channels, height, width]`.
    ExportSignals {
        source: String,
        split: Split,
        count: usize,
        path: PathBuf,
    },
    /// Filters `W_1.npy` … and the effective atoms `atoms.npy`, `[code values, signal values]`.
    ExportModel {
        model: PathBuf,
        folder: PathBuf,
    },
    /// A preset's layers for square signals of that side, with normally distributed filters, effective atoms of unit norm.
    RandomModel {
        preset: String,
        side: usize,
        path: PathBuf,
    },
    /// A preset learned from a source.
    LearnModel {
        preset: String,
        source: String,
        count: usize,
        epochs: usize,
        path: PathBuf,
    },
    /// A model of one layer of drawn atoms as large as digits.
    DrawModel {
        atoms: usize,
        path: PathBuf,
    },
    /// Filters `[m, 1, k, k]` of a model of one layer, learned from patches of images.
    LearnFilters {
        source: String,
        atoms: usize,
        kernel: usize,
        path: PathBuf,
    },
    Prepare {
        name: String,
        #[serde(flatten)]
        task: Task,
    },
    Run {
        name: String,
        #[serde(default)]
        settings: Settings,
    },
    Write {
        name: String,
        path: PathBuf,
    },
    Forget {
        name: String,
    },
    Memory,
    Plot {
        path: PathBuf,
        horizontal: String,
        vertical: String,
        curves: Vec<(String, Vec<(f64, f64)>)>,
    },
}

/// What is timed.
///
/// A `dictionary` is a model file, or a `.npy` file of filters `[m, channels, height, width]` for a model of one layer.
#[derive(Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
enum Task {
    /// Basis pursuit by the algorithm that the crate chooses, in batches of at most `batch` signals.
    BasisPursuit {
        dictionary: PathBuf,
        signals: PathBuf,
        lambda: PathBuf,
        #[serde(default)]
        nonnegative: bool,
        batch: Option<usize>,
    },
    OrthogonalMatchingPursuit {
        dictionary: PathBuf,
        signals: PathBuf,
        nonzeros: usize,
    },
    /// Steps of learning, each repetition going on where the last one ended.
    Learning {
        dictionary: PathBuf,
        signals: PathBuf,
    },
    /// FISTA without restart as a network.
    Unrolled {
        dictionary: PathBuf,
        signals: PathBuf,
        lambda: f32,
        iterations: usize,
        gradient: bool,
    },
    /// A product of square matrices.
    MatrixProduct {
        size: usize,
    },
    /// a_i = b_i + s·c_i over arrays of that many numbers.
    Triad {
        len: usize,
    },
}

/// What may change from one repetition to the next.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    gap: Option<f32>,
    max_iterations: Option<usize>,
    steps: Option<usize>,
}

/// Something that can be repeated.
trait Timed {
    /// One repetition: seconds, and what there is to say about it.
    fn run(&mut self, settings: &Settings) -> Result<(f64, Value)>;

    /// Writes what the last repetition found.
    fn write(&self, path: &Path) -> Result<()>;
}

struct Contender {
    device: Device,
    prepared: HashMap<String, Box<dyn Timed>>,
}

fn main() -> Result<()> {
    let mut contender = Contender { device: device::named(None)?, prepared: HashMap::new() };
    let failed = |source| Error::read(Path::new("standard input"))(source);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(failed)?;
        let answer = serde_json::from_str(&line)
            .map_err(|error| error.to_string())
            .and_then(|request| contender.answer(request).map_err(|error| error.to_string()))
            .unwrap_or_else(|error| json!({"error": error}));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").and_then(|()| out.flush()).map_err(Error::write(Path::new("standard output")))?;
    }
    Ok(())
}

impl Contender {
    fn answer(&mut self, request: Request) -> Result<Value> {
        match request {
            Request::Info => Ok(json!({
                "versions": {"mlcsc": env!("CARGO_PKG_VERSION"), "burn": "0.22.1"},
                "devices": device::available(),
                "threads": std::thread::available_parallelism().map_or(1, usize::from),
                "autodiff": cfg!(feature = "autodiff"),
            })),
            Request::ExportSignals { source, split, count, path } => {
                let data = data::open(&DataConfig {
                    // Of every six drawn digits five are for training.
                    count: (source == "digits").then_some(count.max(1) * 6 + 6),
                    source,
                    ..DataConfig::default()
                })?;
                let signals = data.split(split);
                let count = count.min(signals.len());
                let mut values = vec![0.0; count * signals.shape().len()];
                signals.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
                write_npy(&path, &signals.shape().batched(count), &values)?;
                Ok(json!({"count": count}))
            }
            Request::ExportModel { model, folder } => self.export_model(&model, &folder),
            Request::RandomModel { preset, side, path } => {
                let model = named::<Preset>("--preset", &preset)?.model();
                let signal = SignalShape { height: side, width: side, ..model.signal };
                self.random_model(ModelConfig { signal, ..model })?.save(&path, CodingDefaults::default())?;
                Ok(json!({}))
            }
            Request::LearnModel { preset, source, count, epochs, path } => {
                let mut config = TrainConfig::preset(named("--preset", &preset)?);
                config.data = DataConfig { count: (source == "digits").then_some(count), source, ..config.data };
                config.learning.epochs = epochs;
                self.learn(&config)?.save(&path, CodingDefaults::default())?;
                Ok(json!({}))
            }
            Request::DrawModel { atoms, path } => {
                let layers = vec![LayerShape::new(atoms, 28, 1)];
                let model = ModelConfig::new(SignalShape::new(1, 28, 28), layers);
                let drawn = SparseAutoencoderConfig::new(model).init(&self.device)?.model()?;
                drawn.save(&path, CodingDefaults::default())?;
                Ok(json!({}))
            }
            Request::LearnFilters { source, atoms, kernel, path } => {
                let model = ModelConfig {
                    normalization: Normalization::Center,
                    ..ModelConfig::new(
                        SignalShape::new(1, 3 * kernel, 3 * kernel),
                        vec![LayerShape::new(atoms, kernel, 1)],
                    )
                };
                let data = DataConfig {
                    source,
                    patch: Some((3 * kernel).into()),
                    patches: Some(2000),
                    grey: true,
                    ..DataConfig::default()
                };
                let learning = LearningConfig {
                    lambda: Schedule::constant(0.1),
                    nonnegative: false,
                    epochs: 2,
                    batch_size: 64,
                    ..LearningConfig::default()
                };
                let filters = self.learn(&TrainConfig { model, data, learning })?.filters().swap_remove(0);
                write_npy(&path, &filters.dims(), &host(filters))?;
                Ok(json!({}))
            }
            Request::Prepare { name, task } => {
                let prepared = self.prepare(task)?;
                self.prepared.insert(name, prepared);
                Ok(json!({}))
            }
            Request::Run { name, settings } => {
                let (seconds, mut answer) = self.named(&name)?.run(&settings)?;
                // A GPU may still be at it.
                let waiting = Instant::now();
                self.device
                    .sync()
                    .map_err(|error| Error::Device { name: format!("{:?}", self.device), reason: error.to_string() })?;
                answer["seconds"] = json!(seconds + waiting.elapsed().as_secs_f64());
                Ok(answer)
            }
            Request::Write { name, path } => {
                self.named(&name)?.write(&path)?;
                Ok(json!({}))
            }
            Request::Forget { name } => {
                self.prepared.remove(&name);
                Ok(json!({}))
            }
            Request::Memory => Ok(json!({"bytes": most_memory()?})),
            Request::Plot { path, horizontal, vertical, curves } => {
                let curves: Vec<Curve> = curves.into_iter().map(|(name, points)| Curve { name, points }).collect();
                plot::curves(&path, &horizontal, &vertical, &curves)?;
                Ok(json!({}))
            }
        }
    }

    fn named(&mut self, name: &str) -> Result<&mut Box<dyn Timed>> {
        self.prepared.get_mut(name).ok_or_else(|| Error::parameter("name", name, "one that was prepared"))
    }

    fn export_model(&self, model: &Path, folder: &Path) -> Result<Value> {
        let (model, _) = Mlcsc::load(model, &self.device)?;
        files::create_folder(folder)?;
        for (index, filters) in model.filters().into_iter().enumerate() {
            let shape = filters.dims();
            write_npy(&folder.join(format!("W_{}.npy", index + 1)), &shape, &host(filters))?;
        }
        let operator = model.operator(model.config().signal, OperatorForm::Auto)?;
        let atoms = operator.atoms();
        write_npy(&folder.join("atoms.npy"), &atoms.dims(), &host(atoms))?;
        Ok(json!({
            "strides": model.config().layers.iter().map(|layer| layer.stride.0).collect::<Vec<_>>(),
            "sizes": operator.geometry().layers().iter().map(|layer| [layer.signal.height, layer.signal.width]).collect::<Vec<_>>(),
            "signal": operator.signal().batched(1),
            "code": operator.code().batched(1),
            "squared_norm_bound": operator.squared_norm_bound(),
            "application": operator.application(),
        }))
    }

    fn learn(&self, config: &TrainConfig) -> Result<Mlcsc> {
        let data = data::open(&config.data)?;
        let mut learner = DictionaryLearner::start(config, &*data.train, &self.device, |_, _| Ok(()))?;
        for _ in 0..learner.steps() {
            learner.step(&*data.train)?;
        }
        learner.model()
    }

    fn random_model(&self, config: ModelConfig) -> Result<Mlcsc> {
        self.device.seed(1);
        let mut filters: Vec<Tensor<4>> = config
            .geometry()?
            .layers()
            .iter()
            .map(|layer| Tensor::random(layer.filter_dims(), Distribution::Normal(0.0, 1.0), &self.device))
            .collect();
        let deepest = filters.len();
        let effective = Mlcsc::from_filters(config.clone(), filters.clone())?.effective_filters(deepest);
        let norms = effective.square().sum_dim(3).sum_dim(2).sum_dim(1).sqrt();
        filters[deepest - 1] = filters[deepest - 1].clone() / norms;
        Mlcsc::from_filters(config, filters)
    }

    fn prepare(&self, task: Task) -> Result<Box<dyn Timed>> {
        Ok(match task {
            Task::BasisPursuit { dictionary, signals, lambda, nonnegative, batch } => {
                let signals = self.signals(&signals)?;
                let operator = self.operator(&dictionary, &signals)?;
                // All that depends on the dictionary alone.
                if operator.application() == OperatorForm::Gram {
                    operator.gram();
                }
                let batch = batch.unwrap_or(signals.dims()[0]).max(1);
                let lambda = npy::read_array(&lambda)?.values;
                Box::new(Coding { operator, signals, lambda, nonnegative, batch, codes: Vec::new() })
            }
            Task::OrthogonalMatchingPursuit { dictionary, signals, nonzeros } => {
                let signals = self.signals(&signals)?;
                let operator = self.operator(&dictionary, &signals)?;
                if operator.application() == OperatorForm::Gram {
                    operator.gram();
                }
                let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init()?;
                Box::new(Greedy { operator, signals, pursuit, codes: None })
            }
            Task::Learning { dictionary, signals } => {
                let model = self.model(&dictionary, None)?;
                let data = DataConfig { source: signals.display().to_string(), held_out: 0.0, ..DataConfig::default() };
                let config = TrainConfig { model: model.config().clone(), data, learning: LearningConfig::default() };
                let source = data::open(&config.data)?.all;
                let learner = DictionaryLearner::from_model(&config, &model, &*source, &self.device)?;
                Box::new(Learning { learner, source })
            }
            Task::Unrolled { dictionary, signals, lambda, iterations, gradient } => {
                let signals = npy::read_array(&signals)?;
                let model = self.model(&dictionary, None)?;
                let device = if gradient { differentiating(&self.device)? } else { self.device.clone() };
                let filters = model
                    .filters()
                    .into_iter()
                    .map(|filters| {
                        let shape = filters.dims();
                        Tensor::from_data(TensorData::new(host(filters), shape), &device)
                    })
                    .collect();
                let model = Mlcsc::from_filters(model.config().clone(), filters)?;
                let signals = Tensor::from_data(TensorData::new(signals.values, signals.shape), &device);
                let operator = model.operator(model.config().signal, OperatorForm::Auto)?;
                Box::new(Network { model, operator, signals, lambda, iterations, gradient, found: Vec::new() })
            }
            Task::MatrixProduct { size } => {
                let draw = || Tensor::random([size, size], Distribution::Default, &self.device);
                Box::new(MatrixProduct { left: draw(), right: draw() })
            }
            Task::Triad { len } => Box::new(Triad { sum: vec![0.0; len], left: vec![1.0; len], right: vec![2.0; len] }),
        })
    }

    fn signals(&self, path: &Path) -> Result<Tensor<4>> {
        let array = npy::read_array(path)?;
        if array.shape.len() != 4 {
            return Err(Error::shape("signals", "[n, channels, height, width]", format!("{:?}", array.shape)));
        }
        Ok(Tensor::from_data(TensorData::new(array.values, array.shape), &self.device))
    }

    /// A model from its file, or one of a single layer from its filters, for signals of a shape.
    fn model(&self, path: &Path, signal: Option<SignalShape>) -> Result<Mlcsc> {
        let Some(signal) = signal.filter(|_| path.extension().is_some_and(|extension| extension == "npy")) else {
            return Ok(Mlcsc::load(path, &self.device)?.0);
        };
        let array = npy::read_array(path)?;
        let [atoms, _, height, width] = array.shape[..] else {
            return Err(Error::shape("filters", "[m, channels, height, width]", format!("{:?}", array.shape)));
        };
        let layer = LayerShape::new(atoms, Pair([height, width]), 1);
        let filters = Tensor::from_data(TensorData::new(array.values, array.shape), &self.device);
        Mlcsc::from_filters(ModelConfig::new(signal, vec![layer]), vec![filters])
    }

    fn operator(&self, path: &Path, signals: &Tensor<4>) -> Result<Operator> {
        let [_, channels, height, width] = signals.dims();
        let signal = SignalShape::new(channels, height, width);
        self.model(path, Some(signal))?.operator(signal, OperatorForm::Auto)
    }
}

/// Basis pursuit.
struct Coding {
    operator: Operator,
    signals: Tensor<4>,
    lambda: Vec<f32>,
    nonnegative: bool,
    batch: usize,
    codes: Vec<Tensor<4>>,
}

impl Timed for Coding {
    fn run(&mut self, settings: &Settings) -> Result<(f64, Value)> {
        self.codes.clear();
        let default = BasisPursuitConfig::default();
        let config = BasisPursuitConfig {
            gap: settings.gap.unwrap_or(default.gap),
            max_iterations: settings.max_iterations.unwrap_or(default.max_iterations),
            nonnegative: self.nonnegative,
        };
        let count = self.signals.dims()[0];
        let started = Instant::now();
        let pursuit = config.init_for(&self.operator)?;
        let mut reports = Vec::with_capacity(count);
        for start in (0..count).step_by(self.batch) {
            let end = (start + self.batch).min(count);
            // A view where the batch is all signals.
            let signals = match end - start {
                all if all == count => self.signals.clone(),
                _ => self.signals.clone().narrow(0, start, end - start),
            };
            let lambda = Lambda::PerSignal(self.lambda[start..end].to_vec());
            let found = pursuit.pursue(&self.operator, signals, &lambda)?;
            reports.extend(found.reports);
            self.codes.push(found.codes);
        }
        let seconds = started.elapsed().as_secs_f64();
        let mean = |total: usize| total as f64 / count as f64;
        let answer = json!({
            "algorithm": pursuit.name(),
            "iterations": mean(reports.iter().map(|report| report.iterations).sum()),
            "nonzeros": mean(reports.iter().map(|report| report.nonzeros).sum()),
            "largest_gap": reports.iter().map(|report| report.relative_gap).fold(0.0, f32::max),
        });
        Ok((seconds, answer))
    }

    fn write(&self, path: &Path) -> Result<()> {
        write_codes(path, Tensor::cat(self.codes.clone(), 0))
    }
}

/// Orthogonal matching pursuit.
struct Greedy {
    operator: Operator,
    signals: Tensor<4>,
    pursuit: OrthogonalMatchingPursuit,
    codes: Option<Tensor<4>>,
}

impl Timed for Greedy {
    fn run(&mut self, _: &Settings) -> Result<(f64, Value)> {
        self.codes = None;
        let started = Instant::now();
        let problem = Problem::new(&self.operator, self.signals.clone())?;
        let found = self.pursuit.solve(&problem)?;
        let seconds = started.elapsed().as_secs_f64();
        self.codes = Some(found.codes);
        Ok((seconds, json!({})))
    }

    fn write(&self, path: &Path) -> Result<()> {
        self.codes.clone().map_or(Ok(()), |codes| write_codes(path, codes))
    }
}

/// Steps of the default update.
struct Learning {
    learner: DictionaryLearner,
    source: Arc<dyn data::Source>,
}

impl Timed for Learning {
    fn run(&mut self, settings: &Settings) -> Result<(f64, Value)> {
        let steps = settings.steps.unwrap_or(1);
        let started = Instant::now();
        let mut phases = [0.0; 5];
        for _ in 0..steps {
            let seconds = self.learner.step(&*self.source)?.seconds;
            let parts = [seconds.reading, seconds.coding, seconds.measuring, seconds.statistics, seconds.dictionaries];
            phases.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        let [reading, coding, measuring, statistics, dictionaries] = phases;
        let answer = json!({
            "steps": steps,
            "phases": {"reading": reading, "coding": coding, "measuring": measuring, "statistics": statistics,
                "dictionaries": dictionaries},
        });
        Ok((started.elapsed().as_secs_f64(), answer))
    }

    /// The effective atoms.
    fn write(&self, path: &Path) -> Result<()> {
        let model = self.learner.model()?;
        let atoms = model.operator(model.config().signal, OperatorForm::Auto)?.atoms();
        write_npy(path, &atoms.dims(), &host(atoms))
    }
}

/// An unrolled pursuit, forwards or there and back.
struct Network {
    model: Mlcsc,
    /// Used where the filters don't change from one repetition to the next.
    operator: Operator,
    signals: Tensor<4>,
    lambda: f32,
    iterations: usize,
    gradient: bool,
    /// Codes, then gradients with respect to W_1 … W_L.
    found: Vec<Tensor<4>>,
}

impl Timed for Network {
    fn run(&mut self, _: &Settings) -> Result<(f64, Value)> {
        self.found.clear();
        let config = ProximalGradientConfig { restart: false, ..ProximalGradientConfig::new(Acceleration::Fista) };
        let pursuit = config.init()?;
        let started = Instant::now();
        self.found = if self.gradient {
            let operator = self.model.operator(self.model.config().signal, OperatorForm::Auto)?;
            let problem = Problem::new(&operator, self.signals.clone())?.with_lambda(Lambda::Absolute(self.lambda))?;
            with_gradients(pursuit.unrolled(&problem, self.iterations)?, &self.model)?
        } else {
            let problem =
                Problem::new(&self.operator, self.signals.clone())?.with_lambda(Lambda::Absolute(self.lambda))?;
            vec![pursuit.unrolled(&problem, self.iterations)?]
        };
        Ok((started.elapsed().as_secs_f64(), json!({"application": self.operator.application()})))
    }

    /// Codes into the file, gradients into files beside it that end in `.W_1.npy` ….
    fn write(&self, path: &Path) -> Result<()> {
        for (index, tensor) in self.found.iter().enumerate() {
            let shape = tensor.dims();
            let path = match index {
                0 => path.to_owned(),
                layer => path.with_extension(format!("W_{layer}.npy")),
            };
            write_npy(&path, &shape, &host(tensor.clone()))?;
        }
        Ok(())
    }
}

/// The codes and the gradients of ½‖codes‖² with respect to all filters.
#[cfg(feature = "autodiff")]
fn with_gradients(codes: Tensor<4>, model: &Mlcsc) -> Result<Vec<Tensor<4>>> {
    let gradients = (codes.clone().square().sum() * 0.5).backward();
    let of = |filters: Tensor<4>| {
        filters.grad(&gradients).ok_or_else(|| Error::parameter("filters", "without a gradient", "tracked ones"))
    };
    std::iter::once(Ok(codes.inner())).chain(model.filters().into_iter().map(of)).collect()
}

#[cfg(not(feature = "autodiff"))]
fn with_gradients(_: Tensor<4>, _: &Mlcsc) -> Result<Vec<Tensor<4>>> {
    Err(without_gradients())
}

#[cfg(feature = "autodiff")]
fn differentiating(device: &Device) -> Result<Device> {
    Ok(device.clone().autodiff())
}

#[cfg(not(feature = "autodiff"))]
fn differentiating(_: &Device) -> Result<Device> {
    Err(without_gradients())
}

#[cfg(not(feature = "autodiff"))]
fn without_gradients() -> Error {
    Error::parameter("gradient", true, "false, or a build with the feature autodiff")
}

struct MatrixProduct {
    left: Tensor<2>,
    right: Tensor<2>,
}

impl Timed for MatrixProduct {
    fn run(&mut self, _: &Settings) -> Result<(f64, Value)> {
        let started = Instant::now();
        let product = self.left.clone().matmul(self.right.clone());
        let seconds = started.elapsed().as_secs_f64();
        drop(product);
        Ok((seconds, json!({})))
    }

    fn write(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

struct Triad {
    sum: Vec<f32>,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Timed for Triad {
    fn run(&mut self, _: &Settings) -> Result<(f64, Value)> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let part = self.sum.len().div_ceil(threads).max(1);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let inputs = self.left.chunks(part).zip(self.right.chunks(part));
            for (sum, (left, right)) in self.sum.chunks_mut(part).zip(inputs) {
                scope.spawn(move || {
                    for (sum, (left, right)) in sum.iter_mut().zip(left.iter().zip(right)) {
                        *sum = left + 3.0 * right;
                    }
                });
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        Ok((seconds, json!({"checked": self.sum.iter().all(|sum| *sum == 7.0)})))
    }

    fn write(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Codes as `[n, code values]`.
fn write_codes(path: &Path, codes: Tensor<4>) -> Result<()> {
    let [count, channels, height, width] = codes.dims();
    write_npy(path, &[count, channels * height * width], &host(codes))
}

/// `VmHWM` of this process.
fn most_memory() -> Result<u64> {
    let path = Path::new("/proc/self/status");
    let status = std::fs::read_to_string(path).map_err(Error::read(path))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map(|value| 1024 * value).ok_or_else(|| Error::format(path, "expected a line VmHWM, found none"))
}
