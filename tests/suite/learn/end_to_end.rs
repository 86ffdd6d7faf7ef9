//! Training by gradients: runs repeat themselves and resume to the last bit, constraints are kept, methods follow on each other,
//! rivals do what their authors say.

use crate::common;

use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};
use common::{devices, host, metrics, on_every_device, tensor};
use mlcsc::autoencoder::diagnostics::diagnose;
use mlcsc::autoencoder::{Autoencoder, EncoderWeights, Trainable, TrainingBatch, UnrolledPursuit};
use mlcsc::baselines::{
    ConvolutionalWinnerTakeAllConfig, KSparseConfig, PrincipalComponentsConfig, Rival, RivalConfig,
    StackedDenoisingConfig, TiedLayer, TopKConfig, WinnerTakeAllConfig, WinnerTakeAllLayerConfig,
};
use mlcsc::data::{self, DataConfig, Dataset};
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::learn::config::{InitializationConfig, Schedule, UnrolledUpdateConfig, UpdateRule};
use mlcsc::learn::optimization::{LearningRateSchedule, OptimizationConfig, Optimizer};
use mlcsc::learn::rivals::{self, RivalBatch, RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::learn::run::read_config;
use mlcsc::learn::{DictionaryLearner, LearningConfig, Observer, Outcome, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::{Mlcsc, ModelConfig};
use mlcsc::{Error, Result};
use serde_json::Value;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

fn device() -> Device {
    devices().remove(0).device
}

fn patches() -> DataConfig {
    DataConfig { count: Some(60), patch: Some(Pair([12, 12])), patches: Some(240), seed: 3, ..DataConfig::default() }
}

/// Three layers on 1×12×12, the last a matrix.
fn small(unrolled: UnrolledUpdateConfig) -> TrainConfig {
    TrainConfig {
        model: ModelConfig::new(
            SignalShape::new(1, 12, 12),
            vec![LayerShape::new(6, 5, 1), LayerShape::new(8, 3, 1), LayerShape::new(24, 6, 1)],
        ),
        data: patches(),
        learning: LearningConfig {
            update: UpdateRule::Unrolled,
            epochs: 3,
            batch_size: 50,
            lambda: Schedule::ramp(0.3, 0.2, 0.5),
            unrolled,
            initialization: InitializationConfig { steps: 4, ..InitializationConfig::default() },
            ..LearningConfig::default()
        },
    }
}

fn settings(pursuit: UnrolledPursuit, weights: EncoderWeights, optimizer: Optimizer) -> UnrolledUpdateConfig {
    UnrolledUpdateConfig {
        pursuit,
        iterations: 5,
        weights: Some(weights),
        shallower_lambda: if pursuit.is_multi_layer() { vec![0.01, 0.01] } else { Vec::new() },
        optimization: OptimizationConfig { optimizer, clip_norm: Some(10.0), ..OptimizationConfig::default() },
        ..UnrolledUpdateConfig::default()
    }
}

/// Stops a run after some steps.
#[derive(Default)]
struct Stop {
    after: Option<usize>,
    steps: Cell<usize>,
    stopped: Cell<bool>,
}

impl Stop {
    fn after(steps: usize) -> Self {
        Self { after: Some(steps), ..Self::default() }
    }

    fn count(&self) {
        self.steps.set(self.steps.get() + 1);
        self.stopped.set(self.after.is_some_and(|after| self.steps.get() >= after));
    }
}

impl Observer<Record, TrainingState> for &Stop {
    fn record(&mut self, record: &Record, learner: &TrainingState) -> Result<()> {
        if let Record::Step { step, .. } = record {
            assert_eq!(*step, learner.steps_done());
            self.count();
        }
        Ok(())
    }

    fn evaluating(&mut self, part: f32) {
        assert!((0.0..=1.0).contains(&part));
    }
}

impl Observer<RivalRecord, Rival> for &Stop {
    fn record(&mut self, record: &RivalRecord, _: &Rival) -> Result<()> {
        if let RivalRecord::Step { batch: RivalBatch { loss, .. }, .. } = record {
            assert!(loss.is_finite());
            self.count();
        }
        Ok(())
    }
}

fn open(config: &TrainConfig) -> Dataset {
    data::open(&config.data).unwrap()
}

fn start(folder: &Path, config: &TrainConfig, mut stop: &Stop) -> Outcome {
    let data = open(config);
    let mut run = Run::create(folder, config, &data, &device(), &mut stop).unwrap();
    run.train(&data, &|| stop.stopped.get(), &mut stop).unwrap()
}

fn resume(folder: &Path, mut stop: &Stop) -> Outcome {
    let config = read_config(folder).unwrap();
    let data = open(&config);
    let mut run = Run::resume(folder, &config, &data, &device()).unwrap();
    run.train(&data, &|| stop.stopped.get(), &mut stop).unwrap()
}

fn epochs(folder: &Path) -> Vec<Value> {
    metrics(folder).into_iter().filter(|line| line["kind"] == "epoch").collect()
}

fn assert_same_run(folder: &Path, expected: &Path, what: &str) {
    assert_eq!(metrics(folder), metrics(expected), "{what}");
    let model = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(model(folder) == model(expected), "{what}: model");
}

#[test]
fn a_run_that_was_stopped_comes_to_the_same_end() {
    for (name, unrolled) in [
        ("tied", settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::Adam)),
        ("free", settings(UnrolledPursuit::MlIsta, EncoderWeights::Free, Optimizer::Sgd)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = small(unrolled);
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
        assert_eq!(start(&whole, &config, &Stop::default()), Outcome::Finished);
        // Epochs and steps count from 1; what there was before the first step has no number.
        let numbers: Vec<_> =
            metrics(&whole).iter().map(|record| [&record["epoch"], &record["step"]].map(Value::as_u64)).collect();
        let epoch =
            |epoch: u64| (5 * epoch - 4..=5 * epoch).chain([5 * epoch]).map(move |step| [epoch, step].map(Some));
        assert_eq!(numbers[1..], (1..=3).flat_map(epoch).collect::<Vec<_>>());
        // Five steps an epoch: stopped in the first, then in the second, then in the third.
        assert_eq!(start(&parts, &config, &Stop::after(2)), Outcome::Interrupted);
        assert!(metrics(&parts).len() >= 2);
        assert_eq!(resume(&parts, &Stop::after(7)), Outcome::Interrupted);
        assert_eq!(resume(&parts, &Stop::after(6)), Outcome::Interrupted);
        assert_eq!(resume(&parts, &Stop::default()), Outcome::Finished);
        assert_same_run(&parts, &whole, name);
        // There is nothing left to do.
        assert_eq!(resume(&parts, &Stop::default()), Outcome::Finished);
        assert_same_run(&parts, &whole, name);
        // The folder holds what the documentation says.
        let mut names: Vec<_> = fs::read_dir(whole.join("checkpoint"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected =
            ["model-2.bpk", "model-3.bpk", "optim-2.bpk", "optim-3.bpk", "scheduler-2.bpk", "scheduler-3.bpk"];
        assert_eq!(names, expected);
    }
}

#[test]
fn dictionaries_keep_to_the_rules_while_the_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::AdamW));
    config.learning.epochs = 12;
    config.learning.lambda = Schedule::constant(0.2);
    config.learning.zeros = Some(vec![0.5, 0.8]);
    // From the first step on, so that the loss is that of the same constraints throughout; and so many iterations that it does not
    // depend on how far they have come.
    config.learning.zeros_over = 0.0;
    config.learning.unrolled.iterations = 20;
    config.learning.unrolled.optimization.learning_rate = 3e-3;
    start(folder.path(), &config, &Stop::default());
    let (model, coding) = Mlcsc::load(&folder.path().join("model.safetensors"), &device()).unwrap();
    assert_eq!((coding.lambda, coding.nonnegative), (Some(0.2), true));
    let filters: Vec<Vec<f32>> = model.filters().into_iter().map(host).collect();
    let norms = |values: &[f32], atoms: usize| -> Vec<f32> {
        let atoms = values.chunks_exact(values.len() / atoms);
        atoms.map(|atom| atom.iter().map(|value| value * value).sum::<f32>().sqrt()).collect()
    };
    let synthesized = host(model.effective_filters(3));
    let norms = [norms(&filters[0], 6), norms(&filters[1], 8), norms(&synthesized, 24)].concat();
    // What synthesises nothing has no gradient: so short an initialisation may leave an atom at zero. Measured: none.
    assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-4 || *norm == 0.0), "{norms:?}");
    assert!(norms.iter().filter(|norm| **norm == 0.0).count() <= 1, "{norms:?}");
    for (filters, atoms, most) in [(&filters[1], 8, 27), (&filters[2], 24, 57)] {
        for atom in filters.chunks_exact(filters.len() / atoms) {
            let count = atom.iter().filter(|value| **value != 0.0).count();
            assert!(count <= most, "{count} non-zeros");
        }
    }
    let epochs = epochs(folder.path());
    let loss = |epoch: usize| epochs[epoch]["train"]["objective"].as_f64().unwrap();
    println!("training objective {} to {}", loss(0), loss(11));
    // Measured: 0.74.
    assert!(loss(11) < 0.85 * loss(0), "{} to {}", loss(0), loss(11));
    // The loss is the objective, and both are those of the codes that the metrics speak of.
    let last = &epochs[11];
    let (loss, objective) = (last["loss"].as_f64().unwrap(), last["test"]["objective"].as_f64().unwrap());
    assert!((loss - objective).abs() < 1e-4 * objective, "{loss} {objective}");
    let (fvu, again) = (last["test"]["fvu"].as_f64().unwrap(), last["diagnostics"]["fvu"].as_f64().unwrap());
    assert!((fvu - again).abs() < 1e-4, "{fvu} {again}");
    assert!(last["diagnostics"]["nonzeros"].as_f64().unwrap() > 0.0);
}

/// Further devices: the same one so many times, or one of another kind, where it is compiled in.
fn further(count: usize) -> Vec<Device> {
    let other = mlcsc::device::available().contains(&"ndarray").then(|| mlcsc::device::named(Some("ndarray")).unwrap());
    match other.filter(|_| count == OTHER) {
        Some(other) => vec![other],
        None => vec![device(); count.min(2)],
    }
}

/// A number of further devices that stands for one of another kind.
const OTHER: usize = usize::MAX;

/// Devices that share every batch come to what one comes to but for rounding, and always to the same.
#[test]
fn several_devices_share_a_batch() {
    let mut config = small(settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::Sgd));
    config.learning.epochs = 2;
    let train = |count: usize| {
        let folder = tempfile::tempdir().unwrap();
        let (data, stop) = (open(&config), Stop::default());
        let run = Run::create(folder.path(), &config, &data, &device(), &mut &stop).unwrap();
        let mut run = run.with_further_devices(further(count));
        assert_eq!(run.train(&data, &|| false, &mut &stop).unwrap(), Outcome::Finished);
        let (model, _) = Mlcsc::load(&folder.path().join("model.safetensors"), &device()).unwrap();
        let loss = epochs(folder.path())[1]["loss"].as_f64().unwrap();
        (loss, model.filters().into_iter().flat_map(host).collect::<Vec<f32>>())
    };
    let [one, two, again, three, other] = [0, 1, 1, 2, OTHER].map(train);
    assert_eq!(two, again);
    for (loss, filters) in [two, three, other] {
        let apart = one.1.iter().zip(&filters).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        println!("loss {} and {loss}, filters {apart} apart", one.0);
        // Measured: 7e-9 of the loss and 9e-8 at most.
        assert!((one.0 - loss).abs() < 1e-5 * one.0 && apart < 1e-5, "{} {loss}, {apart}", one.0);
    }
}

/// Puts a folder in the place of the model, where no file can be written then, after some steps.
struct Obstacle {
    model: PathBuf,
    after: usize,
}

impl Observer<Record, TrainingState> for Obstacle {
    fn record(&mut self, record: &Record, _: &TrainingState) -> Result<()> {
        if matches!(record, Record::Step { step, .. } if *step == self.after) {
            fs::remove_file(&self.model).unwrap();
            fs::create_dir(&self.model).unwrap();
        }
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

/// Ends at the end of the second of three epochs, before its model is written: no checkpoint says that it is done, and it comes again.
#[test]
fn an_epoch_whose_model_was_not_written_is_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::Adam));
    // The same penalty throughout, so that every epoch is better than the one before and its model is written.
    config.learning.lambda = Schedule::constant(0.2);
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    start(&whole, &config, &Stop::default());
    let kept = epochs(&whole).iter().map(|line| line["kept"]["epoch"].as_u64()).collect::<Vec<_>>();
    assert_eq!(kept, [Some(1), Some(2), Some(3)]);
    let data = open(&config);
    // Five steps an epoch.
    let mut obstacle = Obstacle { model: parts.join("model.safetensors"), after: 10 };
    let mut run = Run::create(&parts, &config, &data, &device(), &mut obstacle).unwrap();
    let error = run.train(&data, &|| false, &mut obstacle).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    drop(run);
    fs::remove_dir(&obstacle.model).unwrap();
    assert_eq!(resume(&parts, &Stop::default()), Outcome::Finished);
    assert_same_run(&parts, &whole, "without its second model");
}

/// A model that was trained one way goes on the other way.
#[test]
fn methods_follow_on_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let unrolled = small(settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::Adam));
    let mut online = unrolled.clone();
    online.learning.update = UpdateRule::Pursuit;
    let stop = Stop::default();
    for (name, first, second) in [("one", &unrolled, &online), ("other", &online, &unrolled)] {
        let [before, after] = ["before", "after"].map(|part| folder.path().join(format!("{name}-{part}")));
        start(&before, first, &stop);
        let (model, _) = Mlcsc::load(&before.join("model.safetensors"), &device()).unwrap();
        let data = open(second);
        let mut run = Run::create_from(&after, second, Some(&model), &data, &device(), &mut &stop).unwrap();
        run.train(&data, &|| false, &mut &stop).unwrap();
        let objective = |folder: &Path| epochs(folder)[2]["test"]["objective"].as_f64().unwrap();
        println!("{name}: {} then {}", objective(&before), objective(&after));
        let exact = |folder: &Path| -> f64 {
            let (model, _) = Mlcsc::load(&folder.join("model.safetensors"), &device()).unwrap();
            let learner = DictionaryLearner::from_model(&online, &model, &*data.train, &device()).unwrap();
            learner.evaluate(&*data.test, |_| true).unwrap().unwrap().objective
        };
        // What was learned is not lost. Measured: 0.80 after the online rule, 0.996 after training end to end.
        let [first, then] = [&before, &after].map(|folder| exact(folder));
        assert!(then <= first, "{name}: exact codes {first} then {then}");
    }
    let mut other = online.clone();
    other.model.layers[0].atoms = 7;
    let (model, _) = Mlcsc::load(&folder.path().join("one-after/model.safetensors"), &device()).unwrap();
    let refused =
        Run::create_from(&folder.path().join("refused"), &other, Some(&model), &open(&other), &device(), &mut &stop);
    assert!(matches!(refused, Err(Error::Shape { .. })));
}

#[test]
fn patience_ends_a_run_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(settings(UnrolledPursuit::Ista, EncoderWeights::Tied, Optimizer::Adam));
    // A rate that spoils everything.
    config.learning.unrolled.optimization.learning_rate = 0.5;
    config.learning.epochs = 40;
    config.learning.unrolled.optimization.patience = Some(2);
    assert_eq!(start(folder.path(), &config, &Stop::default()), Outcome::Finished);
    let before = metrics(folder.path());
    let losses: Vec<f64> = epochs(folder.path()).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
    let least = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    assert_eq!(least + 3, losses.len(), "{losses:?}");
    assert!(losses.len() < 40);
    assert_eq!(resume(folder.path(), &Stop::default()), Outcome::Finished);
    assert_eq!(metrics(folder.path()), before);
}

#[test]
fn a_damaged_checkpoint_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let config = small(settings(UnrolledPursuit::Fista, EncoderWeights::Tied, Optimizer::Adam));
    start(folder.path(), &config, &Stop::after(7));
    for file in ["model-1.bpk", "optim-1.bpk", "scheduler-1.bpk"] {
        let path = folder.path().join("checkpoint").join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let data = open(&config);
        let mut run = Run::resume(folder.path(), &config, &data, &device()).unwrap();
        let stop = Stop::default();
        let outcome = run.train(&data, &|| false, &mut &stop);
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(file), "{error}");
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(resume(folder.path(), &Stop::default()), Outcome::Finished);
}

// The rivals.

fn rival_configs() -> Vec<RivalConfig> {
    let configs = RivalConfig::NAMES.map(|name| match RivalConfig::named(name).unwrap().with_units(30) {
        RivalConfig::KSparse(config) => RivalConfig::KSparse(KSparseConfig { k: 4, initial_k: 12, ..config }),
        RivalConfig::TopK(config) => RivalConfig::TopK(TopKConfig { k: 4, auxiliary_k: 8, dead_after: 3, ..config }),
        RivalConfig::ConvWta(config) => RivalConfig::ConvWta(ConvolutionalWinnerTakeAllConfig { units: 6, ..config }),
        other => other,
    });
    assert!(configs.iter().zip(RivalConfig::NAMES).all(|(config, name)| config.name() == name));
    configs.into()
}

fn rival_training(rival: RivalConfig) -> RivalTrainConfig {
    let optimization =
        OptimizationConfig { learning_rate: 3e-3, schedule: LearningRateSchedule::Linear, ..Default::default() };
    RivalTrainConfig { data: patches(), epochs: 3, batch_size: 50, optimization, ..RivalTrainConfig::new(rival) }
}

fn run_rival(folder: &Path, config: Option<&RivalTrainConfig>, mut stop: &Stop) -> (Outcome, Rival) {
    let read = rivals::read_config(folder);
    let config = config.cloned().unwrap_or_else(|| read.unwrap());
    let data = data::open(&config.data).unwrap();
    let mut run = match rivals::is_rival(folder) {
        true => RivalRun::resume(folder, &config, &data, &device()).unwrap(),
        false => RivalRun::create(folder, &config, &data, &device()).unwrap(),
    };
    let outcome = run.train(&data, &|| stop.stopped.get(), &mut stop).unwrap();
    (outcome, run.rival().clone())
}

#[test]
fn every_rival_learns_and_resumes() {
    for rival in rival_configs() {
        let folder = tempfile::tempdir().unwrap();
        let config = rival_training(rival.clone());
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
        let (outcome, network) = run_rival(&whole, Some(&config), &Stop::default());
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(run_rival(&parts, Some(&config), &Stop::after(3)).0, Outcome::Interrupted);
        assert_eq!(run_rival(&parts, None, &Stop::after(8)).0, Outcome::Interrupted);
        assert_eq!(run_rival(&parts, None, &Stop::default()).0, Outcome::Finished);
        assert_same_run(&parts, &whole, rival.name());
        let epochs = epochs(&whole);
        let loss = |epoch: usize| epochs[epoch]["train_loss"].as_f64().unwrap();
        println!("{}: training loss {} to {}", rival.name(), loss(0), loss(2));
        // Losses of layers that take turns are not comparable. Measured of the others: 0.91 to 0.93.
        assert!(rival.takes_turns() || loss(2) < 0.97 * loss(0), "{}: {} to {}", rival.name(), loss(0), loss(2));
        // The file holds all there is.
        let (again, read) = Rival::load(&whole.join("model.safetensors"), &device()).unwrap();
        assert_eq!(read, rival);
        let signals: Tensor<4> = Tensor::ones([2, 1, 12, 12], &device()) * 0.3;
        let codes = [&network, &again].map(|rival| host(rival.encode(signals.clone()).unwrap()));
        assert_eq!(codes[0], codes[1]);
        assert_eq!(network.encode(signals.clone()).unwrap().dims(), network.code().batched(2));
        let synthesized = network.decode(network.encode(signals).unwrap()).unwrap();
        assert_eq!(synthesized.dims(), [2, 1, 12, 12]);
        assert!(network.encode(Tensor::zeros([1, 1, 11, 12], &device())).is_err());
        assert!(network.decode(Tensor::zeros([1, 1, 11, 12], &device())).is_err());
        assert!(Mlcsc::load(&whole.join("model.safetensors"), &device()).is_err());
    }
}

/// What copies of a network have noted on their threads, each of a part of a batch, is what the network would have noted of the whole.
#[test]
fn uses_of_units_in_parts_are_those_of_the_whole() {
    let device = device();
    let config = TopKConfig { units: 30, k: 2, ..TopKConfig::default() };
    let new = || config.init(SignalShape::new(1, 12, 12), 1, &device).unwrap();
    let whole = batch(&device, 0);
    let part = |from: usize| TrainingBatch {
        signals: whole.signals.clone().narrow(0, from, 4),
        part: from / 4,
        ..whole.clone()
    };
    let (alone, shared) = (new(), new());
    alone.training(&whole).unwrap();
    let copies = [0, 4].map(|from| {
        let (copy, part) = (new(), part(from));
        let noted = std::thread::spawn(move || {
            copy.training(&part).unwrap();
            copy
        });
        noted.join().unwrap()
    });
    shared.take_over(&copies);
    let expected = host(alone.idle.value_sync());
    assert_eq!(host(shared.idle.value_sync()), expected);
    assert!(expected.contains(&0.0) && expected.contains(&1.0), "{expected:?}");
}

/// What a rival takes from a whole batch it takes from a part: close to what one device comes to, and always the same.
#[test]
fn rivals_on_several_devices() {
    for rival in rival_configs() {
        let config = RivalTrainConfig { epochs: 2, ..rival_training(rival.clone()) };
        let train = |count: usize| {
            let folder = tempfile::tempdir().unwrap();
            let (data, stop) = (data::open(&config.data).unwrap(), Stop::default());
            let run = RivalRun::create(folder.path(), &config, &data, &device()).unwrap();
            let mut run = run.with_further_devices(further(count));
            assert_eq!(run.train(&data, &|| false, &mut &stop).unwrap(), Outcome::Finished);
            epochs(folder.path())[1]["test_loss"].as_f64().unwrap()
        };
        let [one, two, again] = [0, OTHER, OTHER].map(train);
        println!("{}: {one} and {two}", rival.name());
        // Measured: 0 to 3e-4, and 0.09 where layers take turns that winners of a whole batch lead.
        let most = if rival.takes_turns() { 0.2 } else { 0.01 };
        assert!(two == again && (one - two).abs() < most * one, "{}: {one}, {two}, {again}", rival.name());
    }
}

/// Winner-take-all layers of so many units, active for such parts of a batch.
fn winners(layers: &[(usize, f32)]) -> WinnerTakeAllConfig {
    let layer = |&(units, lifetime): &(usize, f32)| WinnerTakeAllLayerConfig { units, lifetime };
    WinnerTakeAllConfig { layers: layers.iter().map(layer).collect() }
}

/// A batch of eight random signals with values in [0, 1].
fn batch(device: &Device, step: usize) -> TrainingBatch {
    let values: Vec<f32> =
        common::normals(&mut common::rng(4), 8 * 144).iter().map(|value| value.abs() % 1.0).collect();
    TrainingBatch {
        signals: tensor(&values, [8, 1, 12, 12], device),
        labels: None,
        step,
        steps: 100,
        seed: 0,
        part: 0,
        of: 8,
    }
}

#[test]
fn codes_are_as_sparse_as_their_authors_say() {
    let signal = SignalShape::new(1, 12, 12);
    on_every_device(|device| {
        let device = &device.device;
        let nonzeros = |values: &[f32]| values.iter().filter(|value| **value != 0.0).count();
        // k-sparse: k comes down, features keep α·k.
        let config = KSparseConfig { units: 30, k: 4, initial_k: 12, annealed_over: 0.5, alpha: 2.0 };
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|progress| config.k_at(progress)), [12, 8, 4, 4]);
        let network = config.init(signal, 1, device).unwrap();
        for (step, expected) in [(0, 12), (25, 8), (90, 4)] {
            let codes = host(network.training(&batch(device, step)).unwrap().coded.codes);
            assert!(codes.chunks_exact(30).all(|code| nonzeros(code) == expected));
        }
        let features = host(network.encode(batch(device, 0).signals).unwrap());
        assert!(features.chunks_exact(30).all(|code| nonzeros(code) == 8));
        let codes = host(network.reconstruct(batch(device, 0).signals).unwrap().codes);
        assert!(codes.chunks_exact(30).all(|code| nonzeros(code) == 4));
        // Fully connected winners: each unit for a quarter of eight signals, at most.
        let network = winners(&[(30, 0.25)]).init(signal, 1, device).unwrap();
        let codes = host(network.training(&batch(device, 0)).unwrap().coded.codes);
        let uses = |unit: usize| codes.chunks_exact(30).filter(|code| code[unit] != 0.0).count();
        assert!((0..30).all(|unit| uses(unit) <= 2) && (0..30).any(|unit| uses(unit) == 2));
        let features = host(network.encode(batch(device, 0).signals).unwrap());
        assert!(nonzeros(&features) > nonzeros(&codes) && features.iter().all(|value| *value >= 0.0));
        // Convolutional winners: a map is active in one place at most, and for a quarter of the signals.
        let config = ConvolutionalWinnerTakeAllConfig { units: 5, lifetime: 0.25, ..Default::default() };
        let network = config.init(signal, 1, device).unwrap();
        let codes = host(network.training(&batch(device, 0)).unwrap().coded.codes);
        let maps: Vec<usize> = codes.chunks_exact(144).map(nonzeros).collect();
        assert!(maps.iter().all(|count| *count <= 1));
        assert!((0..5).all(|unit| maps.chunks_exact(5).map(|signal| signal[unit]).sum::<usize>() <= 2));
        assert!(maps.contains(&1));
        // TopK: k, and none negative.
        let network = TopKConfig { units: 30, k: 4, auxiliary_k: 8, ..Default::default() };
        let network = network.init(signal, 1, device).unwrap();
        let codes = host(network.encode(batch(device, 0).signals).unwrap());
        assert!(codes.chunks_exact(30).all(|code| nonzeros(code) <= 4) && codes.iter().all(|value| *value >= 0.0));
    });
}

/// Units that are dead get a gradient from the auxiliary loss, and none without it.
#[test]
fn the_auxiliary_loss_reaches_dead_units() {
    let signal = SignalShape::new(1, 12, 12);
    let device = device().autodiff();
    for (weight, reached) in [(0.0, false), (1.0, true)] {
        let config = TopKConfig { units: 30, k: 2, auxiliary_k: 8, auxiliary_weight: weight, dead_after: 1 };
        let network = config.init(signal, 1, &device).unwrap();
        let batch = batch(&device, 0);
        // The first step finds out which units are idle.
        let codes = host(network.training(&batch).unwrap().coded.codes);
        let idle: Vec<usize> = (0..30).filter(|unit| codes.chunks_exact(30).all(|code| code[*unit] == 0.0)).collect();
        assert!(!idle.is_empty());
        let gradients = network.training(&batch).unwrap().loss.mean().backward();
        let slopes = host(network.decoder.val().grad(&gradients).unwrap());
        let moved = idle.iter().any(|unit| slopes[unit * 144..][..144].iter().any(|slope| *slope != 0.0));
        assert_eq!(moved, reached);
    }
}

/// While a layer learns, gradients reach no other, and noise is that of the step.
#[test]
fn denoising_layers_take_turns() {
    let signal = SignalShape::new(1, 12, 12);
    let device = device().autodiff();
    let config = StackedDenoisingConfig { units: vec![20, 10, 5], noise: 0.25 };
    let network = config.init(signal, 1, &device).unwrap();
    for (step, learning) in [(0, 0), (50, 1), (99, 2)] {
        let outcome = network.training(&batch(&device, step)).unwrap();
        let gradients = outcome.loss.clone().mean().backward();
        for (index, layer) in network.layers.iter().enumerate() {
            assert_eq!(layer.weight.val().grad(&gradients).is_some(), index == learning, "step {step} layer {index}");
        }
        let again = host(network.training(&batch(&device, step)).unwrap().loss);
        assert_eq!(host(outcome.loss), again);
    }
    let signals = batch(&device, 0).signals;
    let each = network.representations(signals.clone()).unwrap();
    let shapes: Vec<_> = network.layers().iter().map(|shape| shape.batched(8)).collect();
    assert_eq!(each.iter().map(|codes| codes.dims()).collect::<Vec<_>>(), shapes);
    let first = sigmoid(encoded(&network.layers[0], signals.clone().flatten::<2>(1, 3)));
    assert_eq!(host(each[0].clone()), host(first));
    assert_eq!(host(each[2].clone()), host(network.encode(signals).unwrap()));
    assert!(
        host(network.training(&batch(&device, 0)).unwrap().loss)
            != host(network.training(&batch(&device, 1)).unwrap().loss)
    );
}

fn encoded(layer: &TiedLayer, inputs: Tensor<2>) -> Tensor<2> {
    inputs.matmul(layer.weight.val()) + layer.bias.val().unsqueeze()
}

/// Stacked winners learn what lies below them: each layer in its turn, with winners of its own number, as if it were alone.
#[test]
fn winning_layers_take_turns() {
    let signal = SignalShape::new(1, 12, 12);
    let device = device().autodiff();
    let network = winners(&[(20, 0.25), (10, 0.125)]).init(signal, 1, &device).unwrap();
    for (step, learning) in [(0, 0), (50, 1)] {
        let outcome = network.training(&batch(&device, step)).unwrap();
        let gradients = outcome.loss.mean().backward();
        for (index, layer) in network.layers.iter().enumerate() {
            assert_eq!(layer.weight.val().grad(&gradients).is_some(), index == learning, "step {step} layer {index}");
        }
    }
    let signals = batch(&device, 0).signals;
    let below: Tensor<2> = relu(encoded(&network.layers[0], signals.clone().flatten(1, 3)));
    let mut alone = winners(&[(10, 0.125)]).init(SignalShape::new(20, 1, 1), 1, &device).unwrap();
    alone.layers = vec![network.layers[1].clone()];
    let inputs = TrainingBatch { signals: below.clone().reshape([8, 20, 1, 1]), ..batch(&device, 0) };
    let [stacked, expected] = [network.training(&batch(&device, 50)), alone.training(&inputs)].map(Result::unwrap);
    assert_eq!(host(stacked.loss), host(expected.loss));
    assert_eq!(host(stacked.coded.codes), host(expected.coded.codes));
    // What it synthesises goes through the layer below, rectified.
    let synthesized = relu(expected.coded.reconstruction.flatten(1, 3));
    let first = &network.layers[0];
    let synthesized = synthesized.matmul(first.weight.val().transpose()) + first.decoder_bias.val().unsqueeze();
    assert_eq!(host(stacked.coded.reconstruction), host(synthesized));
    let codes = network.encode(signals.clone()).unwrap();
    assert_eq!(host(codes.clone()), host(alone.encode(inputs.signals).unwrap()));
    let each = network.representations(signals.clone()).unwrap();
    assert_eq!(each.len(), 2);
    assert_eq!(host(each[0].clone()), host(below));
    assert_eq!(host(each[1].clone()), host(codes.clone()));
    for (codes, shape) in each.iter().zip(network.layers()) {
        assert_eq!(codes.dims(), shape.batched(8));
    }
    assert_eq!(network.decode(codes).unwrap().dims(), signals.dims());
    assert_eq!(network.atoms().dims(), [10, 1, 12, 12]);
}

/// Signals in a plane are explained by two components, and by one as far as the larger variance goes.
#[test]
fn principal_components_are_those_of_a_plane() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plane.npy");
    let random = common::normals(&mut common::rng(2), 2 * 400);
    // Along (1, 2, 2)/3 with deviation 2, along (2, 1, −2)/3 with deviation 1, around (5, 0, 0).
    let values: Vec<f32> = random
        .chunks_exact(2)
        .flat_map(|pair| {
            let (a, b) = (2.0 * pair[0] / 3.0, pair[1] / 3.0);
            [a + 2.0 * b + 5.0, 2.0 * a + b, 2.0 * a - 2.0 * b]
        })
        .collect();
    write_npy(&path, &[400, 1, 1, 3], &values).unwrap();
    let data = data::open(&DataConfig { source: path.to_str().unwrap().into(), ..Default::default() }).unwrap();
    let fvu = |units: usize| {
        let found = PrincipalComponentsConfig { units }.fit(&*data.train, &device()).unwrap();
        assert_eq!(found.code().channels, units.min(3));
        diagnose(&found, &*data.test, 7, &device(), |_| true).unwrap().unwrap().fvu.unwrap()
    };
    let found = [1, 2, 9].map(fvu);
    println!("{found:?}");
    // Measured: 0.207, of 400 draws, and 5e-14, what `f32` leaves.
    assert!((found[0] - 0.2).abs() < 0.03 && found[1] < 1e-11 && found[2] < 1e-11, "{found:?}");
    let first = PrincipalComponentsConfig { units: 1 }.fit(&*data.train, &device()).unwrap();
    let direction = host(first.atoms());
    let cosine = (direction[0] + 2.0 * direction[1] + 2.0 * direction[2]).abs() / 3.0;
    // Measured: 0.996, of 400 draws.
    assert!(cosine > 0.99, "{direction:?}");
}

#[test]
fn settings_out_of_range_are_named() {
    let signal = SignalShape::new(1, 12, 12);
    for (text, name) in [
        (r#"{"model": "sae", "units": 0}"#, "units"),
        (r#"{"model": "sae", "weight": -1.0}"#, "weight"),
        (r#"{"model": "sae", "target": 1.5}"#, "target"),
        (r#"{"model": "k-sparse", "k": 0}"#, "k"),
        (r#"{"model": "k-sparse", "k": 2000}"#, "k"),
        (r#"{"model": "k-sparse", "initial_k": 3}"#, "initial_k"),
        (r#"{"model": "k-sparse", "alpha": 0.5}"#, "alpha"),
        (r#"{"model": "top-k", "auxiliary_k": 0}"#, "auxiliary_k"),
        (r#"{"model": "top-k", "dead_after": 0}"#, "dead_after"),
        (r#"{"model": "fc-wta", "layers": []}"#, "layers"),
        (r#"{"model": "fc-wta", "layers": [{"lifetime": 0.0}]}"#, "lifetime"),
        (r#"{"model": "fc-wta", "layers": [{}, {"units": 100000000000}]}"#, "units"),
        (r#"{"model": "fc-wta", "layers": [{"units": 1048576}, {"units": 1048576}]}"#, "units"),
        (r#"{"model": "conv-wta", "kernel": 4}"#, "kernel"),
        (r#"{"model": "conv-wta", "layers": 0}"#, "layers"),
        (r#"{"model": "sdae", "units": []}"#, "units"),
        (r#"{"model": "sdae", "units": [1048576, 1048576]}"#, "units"),
        (r#"{"model": "sdae", "noise": 1.0}"#, "noise"),
    ] {
        let config: RivalConfig = serde_json::from_str(text).unwrap();
        let error = config.init(signal, 0, &device()).unwrap_err();
        assert!(matches!(&error, Error::Parameter { parameter, .. } if parameter == name), "{text}: {error}");
    }
    assert!(serde_json::from_str::<RivalConfig>(r#"{"model": "sae", "unit": 3}"#).is_err());
    assert!(serde_json::from_str::<RivalConfig>(r#"{"model": "vae"}"#).is_err());
    for (change, name) in [
        (OptimizationConfig { learning_rate: 0.0, ..Default::default() }, "learning_rate"),
        (OptimizationConfig { learning_rate: f64::NAN, ..Default::default() }, "learning_rate"),
        (OptimizationConfig { final_rate: 2.0, ..Default::default() }, "final_rate"),
        (OptimizationConfig { momentum: 1.0, ..Default::default() }, "momentum"),
        (OptimizationConfig { weight_decay: -1.0, ..Default::default() }, "weight_decay"),
        (OptimizationConfig { clip_norm: Some(0.0), ..Default::default() }, "clip_norm"),
        (OptimizationConfig { patience: Some(0), ..Default::default() }, "patience"),
    ] {
        let config = RivalTrainConfig { optimization: change, ..rival_training(RivalConfig::named("sae").unwrap()) };
        let error = config.check().unwrap_err();
        let key = format!("optimization.{name}");
        assert!(matches!(&error, Error::Parameter { parameter, .. } if *parameter == key), "{name}: {error}");
    }
}
