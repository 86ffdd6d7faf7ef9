//! Learning as a whole: what is planted is found, runs repeat themselves to the last bit and resume where they stopped.

use crate::common;

use burn::tensor::Device;
use common::{Case, devices, host, metrics, normals, rng, small_run};
use mlcsc::data::{self, DataConfig, Dataset, Source};
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::learn::config::{AtomNorm, GradientUpdateConfig, PursuitUpdateConfig, Schedule, UpdateRule};
use mlcsc::learn::run::{read_config, read_config_file};
use mlcsc::learn::{DictionaryLearner, LearningConfig, Observer, Outcome, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::{Mlcsc, ModelConfig};
use mlcsc::{Error, Result};
use rand::RngExt;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const RULES: [UpdateRule; 2] = [UpdateRule::Pursuit, UpdateRule::Gradient];

fn device() -> Device {
    devices().remove(0).device
}

/// [`small_run`] with loose codes and atoms that start anew often.
fn small(update: UpdateRule) -> TrainConfig {
    let mut config = small_run(update);
    (config.learning.gap, config.learning.reseed_every, config.learning.reseed_until) = (1e-2, 2, 1.0);
    config
}

fn open(config: &TrainConfig) -> Dataset {
    data::open(&config.data).unwrap()
}

/// Observes nothing, or stops a run somewhere.
#[derive(Default)]
struct Watcher {
    /// Steps to do before the run is stopped.
    steps: Option<usize>,
    /// Whether it is stopped within the evaluation.
    in_evaluation: bool,
    stopped: Cell<bool>,
    records: RefCell<Vec<Record>>,
}

impl Watcher {
    fn after(steps: usize) -> Self {
        Self { steps: Some(steps), stopped: Cell::new(steps == 0), ..Self::default() }
    }
}

impl Observer<Record, TrainingState> for &Watcher {
    fn initializing(&mut self, layer: usize, part: f32) -> Result<()> {
        assert!(layer >= 1 && (0.0..=1.0).contains(&part));
        Ok(())
    }

    fn record(&mut self, record: &Record, _: &TrainingState) -> Result<()> {
        self.records.borrow_mut().push(record.clone());
        let steps = self.records.borrow().iter().filter(|record| matches!(record, Record::Step { .. })).count();
        if self.steps == Some(steps) {
            self.stopped.set(true);
        }
        Ok(())
    }

    fn evaluating(&mut self, part: f32) {
        assert!((0.0..=1.0).contains(&part));
        if self.in_evaluation && part < 1.0 {
            self.stopped.set(true);
        }
    }
}

fn train(run: &mut Run, data: &Dataset, mut watcher: &Watcher) -> Outcome {
    run.train(data, &|| watcher.stopped.get(), &mut watcher).unwrap()
}

/// A run from its beginning, until `watcher` stops it.
fn start(folder: &Path, config: &TrainConfig, mut watcher: &Watcher) -> Outcome {
    let data = open(config);
    let mut run = Run::create(folder, config, &data, &device(), &mut watcher).unwrap();
    train(&mut run, &data, watcher)
}

/// A run that is in a folder, with that many epochs, as another process would go on with it.
fn resume(folder: &Path, epochs: Option<usize>, watcher: &Watcher) -> Outcome {
    let mut config = read_config(folder).unwrap();
    config.learning.epochs = epochs.unwrap_or(config.learning.epochs);
    let data = open(&config);
    let mut run = Run::resume(folder, &config, &data, &device()).unwrap();
    train(&mut run, &data, watcher)
}

fn assert_same_run(folder: &Path, expected: &Path, what: &str) {
    assert_eq!(metrics(folder), metrics(expected), "{what}");
    for file in ["model.safetensors", "checkpoint.safetensors"] {
        assert!(fs::read(folder.join(file)).unwrap() == fs::read(expected.join(file)).unwrap(), "{what}: {file}");
    }
}

fn bits(model: &Mlcsc) -> Vec<Vec<u32>> {
    model.filters().into_iter().map(|filters| host(filters).into_iter().map(f32::to_bits).collect()).collect()
}

/// A learner at the end of its run.
fn learned(config: &TrainConfig, data: &Dataset) -> DictionaryLearner {
    let mut learner = DictionaryLearner::start(config, &*data.train, &device(), |_, _| Ok(())).unwrap();
    (0..learner.steps()).for_each(|_| drop(learner.step(&*data.train).unwrap()));
    learner
}

/// The filters after some steps.
fn learn(config: &TrainConfig, steps: usize) -> Vec<Vec<u32>> {
    let data = open(config);
    let mut learner = DictionaryLearner::start(config, &*data.train, &device(), |_, _| Ok(())).unwrap();
    (0..steps).for_each(|_| drop(learner.step(&*data.train).unwrap()));
    bits(&learner.model().unwrap())
}

// Planted dictionaries.

/// Signals Σ γ_j d_j with `nonzeros` atoms each, of amplitudes in [0.5, 1.5), written as an array.
fn planted(folder: &Path, atoms: &[f32], signal: SignalShape, count: usize, nonzeros: usize) -> DataConfig {
    let mut random = rng(17);
    let (len, number) = (signal.len(), atoms.len() / signal.len());
    let mut signals = vec![0.0; count * len];
    for signal in signals.chunks_exact_mut(len) {
        for _ in 0..nonzeros {
            let atom = &atoms[random.random_range(0..number) * len..][..len];
            let amplitude = random.random_range(0.5..1.5f32);
            signal.iter_mut().zip(atom).for_each(|(value, atom)| *value += amplitude * atom);
        }
    }
    let path = folder.join("planted.npy");
    write_npy(&path, &[count, signal.channels, signal.height, signal.width], &signals).unwrap();
    DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
}

#[test]
fn a_planted_dictionary_is_learned_back() {
    let folder = tempfile::tempdir().unwrap();
    let signal = SignalShape::new(1, 6, 6);
    let layers = vec![LayerShape::new(16, 6, 1)];
    let case = Case::random(signal, layers.clone(), 5);
    let data_config = planted(folder.path(), &case.filters[0], signal, 600, 3);
    for update in RULES {
        let mut config = small(update);
        config.model = ModelConfig::new(signal, layers.clone());
        config.data = data_config.clone();
        config.learning.lambda = Schedule::constant(0.15);
        config.learning.epochs = 30;
        config.learning.reseed_every = 20;
        config.learning.reseed_until = 0.7;
        let learner = learned(&config, &open(&config));
        let found = host(learner.model().unwrap().filters().remove(0));
        let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>().abs();
        let best: Vec<f32> = case.filters[0]
            .chunks_exact(36)
            .map(|atom| found.chunks_exact(36).map(|other| cosine(atom, other)).fold(0.0, f32::max))
            .collect();
        // Measured: all 16, the least of them 0.995. One may be missed on other devices.
        let matched = best.iter().filter(|cosine| **cosine > 0.98).count();
        assert!(matched >= 15, "{update:?}: {matched} of 16: {best:?}");
    }
}

/// The largest |cosine| of an atom of `kernel`×`kernel` samples with any of others, these moved by up to three samples.
fn best_shifted(atom: &[f32], others: &[f32], kernel: isize) -> f32 {
    let mut best = 0.0f32;
    for other in others.chunks_exact(atom.len()) {
        for (down, across) in (-3..=3).flat_map(|down| (-3..=3).map(move |across| (down, across))) {
            let overlap = |moved: isize| (-moved).max(0)..kernel - moved.max(0);
            let sum: f32 = overlap(down)
                .flat_map(|row| overlap(across).map(move |column| (row, column)))
                .map(|(row, column)| {
                    let moved = (row + down) * kernel + column + across;
                    atom[(row * kernel + column) as usize] * other[moved as usize]
                })
                .sum();
            best = best.max(sum.abs());
        }
    }
    best
}

/// Signals made of 16 filters 8×8 at any places with noise of 20 dB: every one is found, up to sign and shift.
#[test]
fn planted_filters_are_learned_back() {
    const ATOMS: usize = 16;
    const KERNEL: usize = 8;
    const SIDE: usize = 20;
    let mut random = rng(23);
    let mut atoms = normals(&mut random, ATOMS * KERNEL * KERNEL);
    for atom in atoms.chunks_exact_mut(KERNEL * KERNEL) {
        let norm = atom.iter().map(|value| value * value).sum::<f32>().sqrt();
        atom.iter_mut().for_each(|value| *value /= norm);
    }
    let mut signals = vec![0.0f32; 300 * SIDE * SIDE];
    for signal in signals.chunks_exact_mut(SIDE * SIDE) {
        for _ in 0..4 {
            let atom = &atoms[random.random_range(0..ATOMS) * KERNEL * KERNEL..][..KERNEL * KERNEL];
            let [top, left] = [0, 1].map(|_| random.random_range(0..=SIDE - KERNEL));
            let amplitude = random.random_range(0.5..1.5f32) * if random.random_bool(0.5) { 1.0 } else { -1.0 };
            for (index, value) in atom.iter().enumerate() {
                signal[(top + index / KERNEL) * SIDE + left + index % KERNEL] += amplitude * value;
            }
        }
    }
    let power = signals.iter().map(|value| value * value).sum::<f32>() / signals.len() as f32;
    let noise = normals(&mut random, signals.len());
    signals.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.1 * power.sqrt() * noise);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("planted.npy");
    write_npy(&path, &[300, 1, SIDE, SIDE], &signals).unwrap();
    let config = TrainConfig {
        model: ModelConfig::new(SignalShape::new(1, SIDE, SIDE), vec![LayerShape::new(ATOMS, KERNEL, 1)]),
        data: DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() },
        learning: LearningConfig {
            epochs: 14,
            batch_size: 32,
            lambda: Schedule::constant(0.2),
            nonnegative: false,
            gap: 1e-2,
            ..LearningConfig::default()
        },
    };
    let run = folder.path().join("run");
    start(&run, &config, &Watcher::default());
    let (model, _) = Mlcsc::load(&run.join("model.safetensors"), &device()).unwrap();
    let found = host(model.filters().remove(0));
    let best: Vec<f32> =
        atoms.chunks_exact(KERNEL * KERNEL).map(|atom| best_shifted(atom, &found, KERNEL as isize)).collect();
    println!("{best:?}");
    // Measured: 0.9994 at least.
    assert!(best.iter().all(|cosine| *cosine > 0.99), "{best:?}");
    // And it settles: the held-out objective ends at its best. Measured: the last is the least.
    let lines = metrics(&run);
    let objectives: Vec<f64> = lines.iter().filter_map(|line| line["test"]["objective"].as_f64()).collect();
    let least = objectives.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(objectives.len() == 14 && objectives[13] <= 1.01 * least, "{objectives:?}");
}

/// A sparse two-layer model, 4 filters 3×3 and 12 whole-signal atoms of five non-zeros, and its effective atoms.
fn planted_cascade() -> (Case, Vec<f32>) {
    let layers = vec![LayerShape::new(4, 3, 1), LayerShape::new(12, 6, 1)];
    let mut case = Case::random(SignalShape::new(1, 8, 8), layers, 6);
    let mut random = rng(7);
    case.filters[1].fill(0.0);
    for atom in case.filters[1].chunks_exact_mut(4 * 36) {
        let places: Vec<usize> = (0..5).map(|_| random.random_range(0..atom.len())).collect();
        places.iter().zip(normals(&mut random, 5)).for_each(|(&place, value)| atom[place] = value + value.signum());
    }
    let mut atoms = host(case.model(&device()).effective_filters(2));
    for (atom, filters) in atoms.chunks_exact_mut(64).zip(case.filters[1].chunks_exact_mut(4 * 36)) {
        let norm = atom.iter().map(|value| value * value).sum::<f32>().sqrt();
        atom.iter_mut().chain(filters).for_each(|value| *value /= norm);
    }
    (case, atoms)
}

/// What is learned explains signals that a sparse two-layer model made about as well as that model itself.
#[test]
fn a_planted_cascade_is_matched() {
    let folder = tempfile::tempdir().unwrap();
    let (case, atoms) = planted_cascade();
    // Twice the atoms with 30 non-zeros, since the planted supports are seldom all found; all entries, of which there
    // are more than samples, so that the codes of atoms are not unique.
    for (atoms_learned, zeros, signals, factor) in [([6, 24], 1.0 - 30.0 / 216.0, 2000, 1.06), ([4, 12], 0.0, 600, 1.3)]
    {
        let mut config = small(UpdateRule::Pursuit);
        config.model = case.config.clone();
        config.data = planted(folder.path(), &atoms, case.config.signal, signals, 2);
        config.learning.batch_size = signals / 20;
        config.learning.lambda = Schedule::constant(0.05);
        config.learning.gap = 1e-3;
        config.learning.epochs = 30;
        config.learning.initialization.steps = 40;
        config.learning.reseed_every = 20;
        config.learning.reseed_until = 0.7;
        let data = open(&config);
        let objective =
            |learner: &DictionaryLearner| learner.evaluate(&*data.test, |_| true).unwrap().unwrap().objective;
        let model = case.model(&device());
        let planted = objective(&DictionaryLearner::from_model(&config, &model, &*data.train, &device()).unwrap());
        config.learning.zeros = Some(vec![zeros]);
        for (layer, atoms) in config.model.layers.iter_mut().zip(atoms_learned) {
            layer.atoms = atoms;
        }
        let found = objective(&learned(&config, &data));
        println!("found {found}, planted {planted}");
        assert!(found < factor * planted, "{atoms_learned:?}, zeros {zeros}: found {found}, planted {planted}");
    }
}

// The loop.

#[test]
fn held_out_signals_are_explained_better_and_better() {
    for (update, atom_norm) in [
        (UpdateRule::Pursuit, AtomNorm::Effective),
        (UpdateRule::Pursuit, AtomNorm::Layer),
        (UpdateRule::Gradient, AtomNorm::Effective),
    ] {
        let mut config = small(update);
        config.data.patches = Some(600);
        config.learning.epochs = 8;
        config.learning.atom_norm = atom_norm;
        let data = open(&config);
        let mut learner = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
        let before = learner.evaluate(&*data.test, |_| true).unwrap().unwrap();
        (0..learner.steps()).for_each(|_| drop(learner.step(&*data.train).unwrap()));
        let after = learner.evaluate(&*data.test, |_| true).unwrap().unwrap();
        println!("{update:?} {atom_norm:?}: {} -> {}", before.objective, after.objective);
        // The paper's steps are many small ones. Measured: 0.64, 0.58 and 0.72.
        let factor = if update == UpdateRule::Pursuit { 0.75 } else { 0.8 };
        assert!(after.objective < factor * before.objective, "{update:?} {atom_norm:?}: {before:?} {after:?}");
        assert!(after.psnr > before.psnr && after.fvu.unwrap() < before.fvu.unwrap(), "{before:?} {after:?}");
    }
}

/// Part of exact zeros in every layer after the first, and the smallest part in an atom.
fn zeros(model: &Mlcsc) -> Vec<(f64, f64)> {
    let filters = model.filters().into_iter().skip(1);
    filters
        .map(|filters| {
            let atoms = filters.dims()[0];
            let values = host(filters);
            let part =
                |values: &[f32]| values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
            (part(&values), values.chunks(values.len() / atoms).map(part).fold(1.0, f64::min))
        })
        .collect()
}

#[test]
fn zeros_are_reached_and_kept() {
    for update in RULES {
        for zeros_over in [0.0, 0.5, 1.0] {
            let mut config = small(update);
            config.learning.zeros = Some(vec![0.8, 0.9]);
            config.learning.zeros_over = zeros_over;
            let data = open(&config);
            let mut learner = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
            let check = |learner: &DictionaryLearner| {
                let zeros = zeros(&learner.model().unwrap());
                let said = learner.dictionaries(false).zeros;
                for (index, wanted) in [0.8, 0.9].into_iter().enumerate() {
                    let (all, atom) = zeros[index];
                    assert!(atom >= wanted, "{update:?} over {zeros_over}, D_{}: {atom}", index + 2);
                    assert_eq!(said[index + 1], all);
                }
            };
            for step in 0..learner.steps() {
                if update == UpdateRule::Pursuit || (step > 0 && zeros_over == 0.0) {
                    check(&learner);
                }
                learner.step(&*data.train).unwrap();
            }
            check(&learner);
        }
    }
}

/// The model with the first `count` atoms of the deepest layer zero, which no code uses.
fn without_atoms(model: &Mlcsc, count: usize) -> Mlcsc {
    let mut filters = model.filters();
    let deepest = filters.pop().unwrap();
    let dims = deepest.dims();
    let mut values = host(deepest);
    values[..count * dims[1] * dims[2] * dims[3]].fill(0.0);
    filters.push(common::tensor(&values, dims, &device()));
    Mlcsc::from_filters(model.config().clone(), filters).unwrap()
}

#[test]
fn dead_atoms_are_replaced() {
    for (update, depth) in [(UpdateRule::Pursuit, 1), (UpdateRule::Pursuit, 3), (UpdateRule::Gradient, 3)] {
        let mut config = small(update);
        if depth == 1 {
            config.model.layers = vec![LayerShape::new(24, 12, 1)];
        }
        config.learning.reseed_every = 3;
        let data = open(&config);
        let model = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap().model().unwrap();
        let model = without_atoms(&model, 12);
        let mut learner = DictionaryLearner::from_model(&config, &model, &*data.train, &device()).unwrap();
        let dead = |learner: &DictionaryLearner| learner.evaluate(&*data.train, |_| true).unwrap().unwrap().dead_atoms;
        let before = dead(&learner);
        assert!(before >= 12, "{before}");
        (0..2).for_each(|_| drop(learner.step(&*data.train).unwrap()));
        assert!(learner.dead_atoms().is_empty());
        (0..6).for_each(|_| drop(learner.step(&*data.train).unwrap()));
        let after = dead(&learner);
        // Measured: none.
        assert!(after <= 1, "{update:?}, depth {depth}: {after} of 24 are dead");
        // Not after the part of the run in which they are replaced.
        config.learning.reseed_until = 0.0;
        let mut learner = DictionaryLearner::from_model(&config, &model, &*data.train, &device()).unwrap();
        (0..5).for_each(|_| drop(learner.step(&*data.train).unwrap()));
        assert!((0..12).all(|atom| learner.dead_atoms().contains(&atom)));
    }
}

#[test]
fn the_seed_decides_all() {
    for update in RULES {
        let mut config = small(update);
        let first = learn(&config, 5);
        assert!(learn(&config, 5) == first, "{update:?}");
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| learn(&config, 5)) == first, "{update:?} with {threads} threads");
        }
        config.learning.seed = 1;
        assert!(learn(&config, 5) != first, "{update:?}");
    }
}

/// Padding after the first layer, where D^(L) is no convolution, and several code positions with strides.
#[test]
fn other_geometries_learn_too() {
    let layers = vec![
        LayerShape::new(6, Pair([5, 4]), Pair([2, 1])).with_padding(Pair([1, 2])),
        LayerShape::new(10, 3, Pair([1, 2])).with_padding(1),
    ];
    for inner_padding in [true, false] {
        for update in RULES {
            let mut config = small(update);
            config.model.layers = layers.clone();
            config.learning.epochs = 4;
            if !inner_padding {
                config.model.layers[1].padding = Pair([0, 0]);
            }
            if inner_padding && update == UpdateRule::Pursuit {
                assert!(config.check().unwrap_err().to_string().contains("update"));
                continue;
            }
            let data = open(&config);
            let mut learner = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
            let objective =
                |learner: &DictionaryLearner| learner.evaluate(&*data.test, |_| true).unwrap().unwrap().objective;
            let before = objective(&learner);
            (0..learner.steps()).for_each(|_| drop(learner.step(&*data.train).unwrap()));
            let after = objective(&learner);
            println!("{update:?} {inner_padding}: {before} -> {after}");
            // Measured: 0.79, 0.87 and 0.94.
            assert!(after < 0.95 * before, "{update:?}: {before} {after}");
        }
    }
}

// Resuming.

#[test]
fn a_resumed_run_is_the_same_to_the_last_bit() {
    for update in RULES {
        let mut config = small(update);
        if update == UpdateRule::Gradient {
            // More signals than are shuffled together.
            config.data.shuffle_buffer = 64;
        }
        // Everything that depends on the progress.
        config.learning.lambda = Schedule::ramp(0.3, 0.2, 0.8);
        config.learning.pursuit = PursuitUpdateConfig { lower_every: 1, ..PursuitUpdateConfig::default() };
        config.learning.gradient = GradientUpdateConfig { repeats: 2, ..GradientUpdateConfig::default() };
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole");
        assert_eq!(start(&whole, &config, &Watcher::default()), Outcome::Finished);
        let records = metrics(&whole);
        // 216 training signals in batches of 50.
        assert_eq!(records.len(), 12);
        let kinds = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
        assert_eq!((kinds("step"), kinds("epoch")), (10, 2));
        // Epochs and steps count from 1.
        let numbers: Vec<_> =
            records.iter().map(|record| [&record["epoch"], &record["step"]].map(Value::as_u64)).collect();
        let epoch =
            |epoch: u64| (5 * epoch - 4..=5 * epoch).chain([5 * epoch]).map(move |step| [epoch, step].map(Some));
        assert_eq!(numbers, epoch(1).chain(epoch(2)).collect::<Vec<_>>());
        for steps in [0, 1, 3, 5, 6, 9, 10] {
            let parts = folder.path().join(format!("stopped after {steps}"));
            assert_eq!(start(&parts, &config, &Watcher::after(steps)), Outcome::Interrupted);
            assert_eq!(resume(&parts, None, &Watcher::default()), Outcome::Finished);
            assert_same_run(&parts, &whole, &format!("{update:?}, stopped after {steps}"));
        }
        // In steps of one, by another process each.
        let parts = folder.path().join("one by one");
        assert_eq!(start(&parts, &config, &Watcher::after(0)), Outcome::Interrupted);
        let mut count = 0;
        while resume(&parts, None, &Watcher::after(1)) == Outcome::Interrupted {
            count += 1;
            assert!(count < 20);
        }
        assert_same_run(&parts, &whole, &format!("{update:?}, one by one"));
        // A finished run stays as it is.
        assert_eq!(resume(&parts, None, &Watcher::default()), Outcome::Finished);
        assert_same_run(&parts, &whole, &format!("{update:?}, finished"));
    }
}

#[test]
fn a_run_stopped_while_it_evaluates_resumes_there() {
    let mut config = small(UpdateRule::Pursuit);
    // Two batches to evaluate.
    config.data.held_out = 0.3;
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    start(&whole, &config, &Watcher::default());
    let watcher = Watcher { in_evaluation: true, ..Watcher::default() };
    assert_eq!(start(&parts, &config, &watcher), Outcome::Interrupted);
    assert!(!parts.join("model.safetensors").exists());
    let watcher = Watcher { in_evaluation: true, ..Watcher::default() };
    assert_eq!(resume(&parts, None, &watcher), Outcome::Interrupted);
    assert_eq!(resume(&parts, None, &Watcher::default()), Outcome::Finished);
    assert_same_run(&parts, &whole, "stopped while evaluating");
    // The same run told to go on rather than another process.
    let parts = folder.path().join("same process");
    let data = open(&config);
    let watcher = Watcher { in_evaluation: true, ..Watcher::default() };
    let mut run = Run::create(&parts, &config, &data, &device(), &mut &watcher).unwrap();
    assert_eq!(train(&mut run, &data, &watcher), Outcome::Interrupted);
    assert_eq!(train(&mut run, &data, &Watcher::default()), Outcome::Finished);
    assert_same_run(&parts, &whole, "went on in the same process");
}

/// Killed after records were written that the checkpoint knows nothing of, the last of them by half.
#[test]
fn a_killed_run_repeats_what_it_lost() {
    let config = small(UpdateRule::Pursuit);
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    start(&whole, &config, &Watcher::default());
    start(&parts, &config, &Watcher::after(3));
    let text = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    for end in [text.len() / 2, text.len() - 1, text.len()] {
        fs::write(parts.join("metrics.jsonl"), &text[..end]).unwrap();
        let checkpoint = fs::read(parts.join("checkpoint.safetensors")).unwrap();
        resume(&parts, None, &Watcher::default());
        assert_same_run(&parts, &whole, "killed");
        fs::write(parts.join("checkpoint.safetensors"), checkpoint).unwrap();
    }
    // Without its metrics a run goes on as well.
    fs::remove_file(parts.join("metrics.jsonl")).unwrap();
    resume(&parts, None, &Watcher::default());
    assert_eq!(metrics(&parts), metrics(&whole)[3..]);
}

/// Ends at the end of an epoch, after its record and before its model is written: both come again, the record once.
#[test]
fn an_epoch_whose_model_was_not_written_is_ended_again() {
    for update in RULES {
        let mut config = small(update);
        config.learning.epochs = 1;
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        start(&whole, &config, &Watcher::default());
        let (data, watcher) = (open(&config), Watcher::default());
        let mut run = Run::create(&parts, &config, &data, &device(), &mut &watcher).unwrap();
        // Where a folder is no file can be written.
        let model = parts.join("model.safetensors");
        fs::create_dir(&model).unwrap();
        let error = run.train(&data, &|| false, &mut &watcher).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        assert_eq!(metrics(&parts), metrics(&whole));
        fs::remove_dir(&model).unwrap();
        assert_eq!(resume(&parts, None, &Watcher::default()), Outcome::Finished);
        assert_same_run(&parts, &whole, &format!("{update:?}"));
    }
}

#[test]
fn more_epochs_than_were_planned() {
    let mut config = small(UpdateRule::Pursuit);
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    start(&parts, &config, &Watcher::default());
    config.learning.epochs = 3;
    start(&whole, &config, &Watcher::default());
    // Interrupted on the way to the new end: that end is remembered.
    assert_eq!(resume(&parts, Some(3), &Watcher::after(2)), Outcome::Interrupted);
    assert_eq!(read_config(&parts).unwrap().learning.epochs, 3);
    assert_eq!(resume(&parts, None, &Watcher::default()), Outcome::Finished);
    assert_same_run(&parts, &whole, "more epochs");
    // Fewer than are done: refused, and nothing is changed.
    config.learning.epochs = 1;
    let refused = Run::resume(&parts, &config, &open(&config), &device()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("epochs = 1"), "{refused}");
    assert!(fs::read(parts.join("model.safetensors")).unwrap() == fs::read(whole.join("model.safetensors")).unwrap());
}

/// The message of an error, in one line that names a file.
fn message(error: Error, file: &Path) -> String {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.contains(&file.display().to_string()), "{message}");
    message
}

fn refuse(folder: &Path, config: &TrainConfig, data: &Dataset, named: &Path) -> String {
    message(Run::resume(folder, config, data, &device()).map(drop).unwrap_err(), named)
}

#[test]
fn checkpoints_that_cannot_be_resumed() {
    let config = small(UpdateRule::Pursuit);
    let data = open(&config);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    start(folder, &config, &Watcher::after(2));
    let path = folder.join("checkpoint.safetensors");
    let whole = fs::read(&path).unwrap();
    let metrics_before = fs::read(folder.join("metrics.jsonl")).unwrap();
    for end in [0, 1, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        refuse(folder, &config, &data, &path);
    }
    fs::write(&path, [&whole[..], b"tail"].concat()).unwrap();
    refuse(folder, &config, &data, &path);
    // Any byte of the header: an error or, where it does not matter, a run; never a panic.
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for index in (0..header).step_by(3) {
        let mut bytes = whole.clone();
        bytes[index] ^= 1 << (index % 8);
        fs::write(&path, &bytes).unwrap();
        fs::write(folder.join("metrics.jsonl"), &metrics_before).unwrap();
        if let Err(error) = Run::resume(folder, &config, &data, &device()) {
            message(error, &path);
        }
    }
    // A bit of the content.
    for place in [header, (header + whole.len()) / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        fs::write(&path, &bytes).unwrap();
        assert!(refuse(folder, &config, &data, &path).contains("damaged"), "byte {place}");
    }
    // The model's own file is no checkpoint.
    let model = config.model.init(&device()).unwrap();
    model.save(&path, mlcsc::model::file::CodingDefaults::default()).unwrap();
    assert!(refuse(folder, &config, &data, &path).contains("checkpoint"));
    fs::write(&path, &whole).unwrap();
    // Other configurations.
    let changes: [fn(&mut TrainConfig); 5] = [
        |config| config.learning.batch_size = 49,
        |config| config.learning.update = UpdateRule::Gradient,
        |config| config.learning.seed = 9,
        |config| config.data.seed = 4,
        |config| config.model.layers[1].atoms = 9,
    ];
    for change in changes {
        let mut other = config.clone();
        change(&mut other);
        assert!(refuse(folder, &other, &data, &path).contains("another configuration"));
    }
    fs::remove_file(&path).unwrap();
    assert!(refuse(folder, &config, &data, folder).contains("checkpoint.safetensors is missing"));
}

#[test]
fn configurations_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(read_config(folder.path()).unwrap_err(), folder.path()).contains("config.json is missing"));
    let path = folder.path().join("config.json");
    let valid = serde_json::to_value(small(UpdateRule::Pursuit)).unwrap();
    let said = |text: &str| {
        fs::write(&path, text).unwrap();
        let said = message(read_config(folder.path()).unwrap_err(), &path);
        assert_eq!(message(read_config_file(&path).unwrap_err(), &path), said);
        said
    };
    said("");
    said("no JSON");
    said("{}");
    said("[1, 2");
    said(&"[".repeat(100_000));
    let with = |pointer: &str, value: Value| {
        let mut changed = valid.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        said(&changed.to_string())
    };
    for pointer in
        ["/surprise", "/model/surprise", "/data/surprise", "/learning/surprise", "/learning/pursuit/surprise"]
    {
        assert!(with(pointer, json!(1)).contains("surprise"));
    }
    for (pointer, value, word) in [
        ("/model/signal/height", json!(7), "kernel of layer 3"),
        ("/model/signal/height", json!(4), "kernel of layer 1"),
        ("/model/layers", json!([]), "layer"),
        ("/learning/epochs", json!(0), "epochs"),
        ("/learning/epochs", json!(-1), "learning.epochs: expected a whole number from 0 on, found -1"),
        ("/learning/epochs", json!(u64::MAX), "epochs"),
        ("/learning/batch_size", json!(0), "batch"),
        ("/learning/lambda", json!(-0.5), "lambda"),
        ("/learning/lambda", json!("much"), "a number or"),
        ("/learning/lambda", json!({"start": 1, "end": 0.5, "surprise": 1}), "a number or"),
        ("/learning/lambda", json!({"start": 1, "end": 0.5, "over": 0}), "lambda.over"),
        ("/learning/zeros", json!([0.5]), "zeros"),
        ("/learning/zeros", json!([0.5, 1.0]), "zeros"),
        ("/learning/gap", json!(0), "gap"),
        ("/learning/update", json!("guess"), "guess"),
        ("/learning/initialization/steps", json!(u64::MAX), "initialization.steps"),
        ("/data/count", json!(0), "count"),
        ("/data/held_out", json!(1), "held_out"),
    ] {
        let said = with(pointer, value);
        assert!(said.contains(word), "{word:?} in {said}");
    }
    fs::write(&path, valid.to_string()).unwrap();
    assert_eq!(read_config(folder.path()).unwrap(), small(UpdateRule::Pursuit));
}

/// No signals.
struct Nothing;

impl Source for Nothing {
    fn len(&self) -> usize {
        0
    }

    fn shape(&self) -> SignalShape {
        SignalShape::new(1, 12, 12)
    }

    fn read(&self, _: &[usize], _: &mut [f32]) -> Result<()> {
        unreachable!("there is nothing to read")
    }

    fn describe(&self) -> String {
        "nothing".into()
    }
}

#[test]
fn what_does_not_fit_leaves_no_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let config = small(UpdateRule::Pursuit);
    let create = |config: &TrainConfig, data: &Dataset| {
        Run::create(&folder, config, data, &device(), &mut &Watcher::default()).map(drop).unwrap_err().to_string()
    };
    let mut other = config.clone();
    other.data.patch = Some(Pair([11, 12]));
    let said = create(&config, &open(&other));
    assert!(said.contains("1x12x12") && said.contains("1x11x12"), "{said}");
    // Nothing held out: there would be nothing to evaluate after the first epoch.
    let nothing = Dataset { test: Arc::new(Nothing), ..open(&config) };
    assert!(create(&config, &nothing).contains("held-out"));
    let mut other = config.clone();
    other.model.layers[0].kernel = Pair([13, 5]);
    assert!(create(&other, &open(&config)).contains("kernel of layer 1"));
    assert!(!folder.exists());
    // A folder that holds a run stays as it is.
    start(&folder, &config, &Watcher::after(1));
    let before = fs::read(folder.join("config.json")).unwrap();
    assert!(create(&config, &open(&config)).contains("without a run"));
    assert!(fs::read(folder.join("config.json")).unwrap() == before);
}

/// A batch larger than all there is costs no more than all there is.
#[test]
fn batches_beyond_the_data() {
    let mut config = small(UpdateRule::Pursuit);
    config.learning.batch_size = usize::MAX;
    config.learning.initialization.steps = 1;
    let data = open(&config);
    let mut learner = DictionaryLearner::start(&config, &*data.train, &device(), |_, _| Ok(())).unwrap();
    assert_eq!((learner.steps_per_epoch(), learner.step(&*data.train).unwrap().summary().signals), (1, 216));
    assert_eq!(learner.evaluate(&*data.test, |_| true).unwrap().unwrap().signals, 24);
}

/// Signals that a program makes: of zeros, or with NaN in the one of number 5.
struct Waves {
    shape: SignalShape,
    value: f32,
}

impl Source for Waves {
    fn len(&self) -> usize {
        40
    }

    fn shape(&self) -> SignalShape {
        self.shape
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        for (index, signal) in indices.iter().zip(out.chunks_exact_mut(self.shape.len())) {
            signal.fill(if *index == 5 { self.value } else { 0.0 });
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "waves".into()
    }
}

/// In memory as from files: what is no number, and what holds nothing, is refused; the λ that was found comes with the model.
#[test]
fn signals_in_memory_are_looked_at() {
    let shape = SignalShape::new(1, 6, 6);
    let good = normals(&mut rng(3), 40 * shape.len());
    let mut config = TrainConfig::new(ModelConfig::new(shape, vec![LayerShape::new(8, 6, 1)]));
    config.learning.target_nonzeros = Some(2.0);
    for rule in [UpdateRule::Pursuit, UpdateRule::Gradient, UpdateRule::Unrolled] {
        config.learning.update = rule;
        config.learning.target_nonzeros = Some(2.0).filter(|_| rule != UpdateRule::Unrolled);
        for (value, part) in [(f32::NAN, "signal 5 of waves = NaN"), (0.0, "found zeros only")] {
            let message = config.fit(Waves { shape, value }, &device()).unwrap_err().to_string();
            assert!(message.contains(part), "{rule}: {message}");
        }
    }
    (config.learning.update, config.learning.target_nonzeros) = (UpdateRule::Pursuit, Some(2.0));
    let (_, coding) = config.fit_coded(data::InMemory::new(shape, good).unwrap(), &device(), |_| true).unwrap();
    assert!(coding.lambda.is_some_and(|lambda| lambda > 0.0), "{coding:?}");
}
