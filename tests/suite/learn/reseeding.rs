//! Training end to end returns nothing worse than it began with, and leaves no unit dead that could be of use.

use crate::common;

use burn::tensor::{Device, Tensor};
use common::{devices, host, metrics, small_run, tensor};
use mlcsc::Result;
use mlcsc::autoencoder::{Autoencoder, EncoderWeights, SparseAutoencoder, Trainable, TrainingBatch};
use mlcsc::baselines::{
    ConvolutionalWinnerTakeAllConfig, KSparseConfig, PenalizedAutoencoderConfig, Rival, RivalConfig, TopKConfig,
    WinnerTakeAllConfig, WinnerTakeAllLayerConfig,
};
use mlcsc::data::{self, DataConfig};
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{Pair, SignalShape};
use mlcsc::learn::config::UpdateRule;
use mlcsc::learn::rivals::{self, RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::learn::run::read_config;
use mlcsc::learn::{Observer, Outcome, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::Mlcsc;
use serde_json::Value;
use std::cell::Cell;
use std::fs;
use std::path::Path;

fn device() -> Device {
    devices().remove(0).device
}

/// Stops a run after some steps; 0: never.
#[derive(Default)]
struct Stop {
    after: usize,
    steps: Cell<usize>,
}

impl Stop {
    fn after(after: usize) -> Self {
        Self { after, ..Self::default() }
    }

    fn stopped(&self) -> bool {
        self.after > 0 && self.steps.get() >= self.after
    }
}

impl Observer<Record, TrainingState> for &Stop {
    fn record(&mut self, record: &Record, _: &TrainingState) -> Result<()> {
        self.steps.set(self.steps.get() + usize::from(matches!(record, Record::Step { .. })));
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

impl Observer<RivalRecord, Rival> for &Stop {
    fn record(&mut self, record: &RivalRecord, _: &Rival) -> Result<()> {
        self.steps.set(self.steps.get() + usize::from(matches!(record, RivalRecord::Step { .. })));
        Ok(())
    }
}

fn of_kind(folder: &Path, kind: &str) -> Vec<Value> {
    metrics(folder).into_iter().filter(|line| line["kind"] == kind).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

// Units.

const SIGNAL: SignalShape = SignalShape { channels: 1, height: 12, width: 12 };

/// Digits' patches, which have something left over everywhere.
fn batch(device: &Device, step: usize) -> TrainingBatch {
    let config = DataConfig {
        count: Some(60),
        patch: Some(Pair([12, 12])),
        patches: Some(240),
        seed: 3,
        ..DataConfig::default()
    };
    let data = data::open(&config).unwrap();
    let mut values = vec![0.0; 40 * 144];
    data.train.read(&(0..40).collect::<Vec<_>>(), &mut values).unwrap();
    TrainingBatch {
        signals: tensor(&values, [40, 1, 12, 12], device),
        labels: None,
        step,
        steps: 100,
        seed: 5,
        part: 0,
        of: 40,
    }
}

/// Biases that no signal overcomes, for the units.
fn killed(bias: Tensor<1>, units: &[usize]) -> Tensor<1> {
    let mut values = host(bias.clone());
    units.iter().for_each(|&unit| values[unit] = -1e3);
    let dims = [values.len()];
    tensor(&values, dims, &bias.device())
}

/// A rival of 20 units a layer of which units 3 and 11 are dead, for good, in the layer that learns at `step`.
fn with_dead_units(config: &RivalConfig, step: usize, device: &Device) -> Rival {
    const DEAD: [usize; 2] = [3, 11];
    match config.init(SIGNAL, 1, device).unwrap() {
        Rival::Sae(mut network) => {
            network.encoder.bias = network.encoder.bias.map(|bias| bias.map(|bias| killed(bias, &DEAD)));
            Rival::Sae(network)
        }
        Rival::KSparse(mut network) => {
            network.bias = network.bias.map(|bias| killed(bias, &DEAD));
            Rival::KSparse(network)
        }
        Rival::TopK(mut network) => {
            network.encoder_bias = network.encoder_bias.map(|bias| killed(bias, &DEAD));
            Rival::TopK(network)
        }
        Rival::FcWta(mut network) => {
            let layer = &mut network.layers[step / 50];
            layer.bias = layer.bias.clone().map(|bias| killed(bias, &DEAD));
            Rival::FcWta(network)
        }
        Rival::ConvWta(mut network) => {
            let layer = network.layers.last_mut().unwrap();
            layer.bias = layer.bias.clone().map(|bias| killed(bias, &DEAD));
            Rival::ConvWta(network)
        }
        Rival::Sdae(network) => Rival::Sdae(network),
    }
}

/// Units that a batch does not use, of those that can die.
fn unused(network: &Rival, batch: &TrainingBatch) -> Vec<usize> {
    let used = host(network.used_units(batch, &network.training(batch).unwrap()).unwrap());
    assert_eq!(used.len(), network.mortal_units());
    (0..used.len()).filter(|&unit| used[unit] == 0.0).collect()
}

/// The loss of a batch, of so little aside that penalties take from what is won.
fn loss(network: &Rival, batch: &TrainingBatch) -> f32 {
    host(network.training(batch).unwrap().loss).iter().sum()
}

#[test]
fn dead_units_start_again_from_what_is_represented_badly() {
    let device = device();
    let layer = WinnerTakeAllLayerConfig { units: 20, lifetime: 0.25 };
    let cases: [(RivalConfig, usize, usize); 6] = [
        (RivalConfig::Sae(PenalizedAutoencoderConfig { units: 20, weight: 0.01, ..Default::default() }), 0, 0),
        (RivalConfig::KSparse(KSparseConfig { units: 20, k: 4, initial_k: 4, ..Default::default() }), 0, 0),
        (RivalConfig::TopK(TopKConfig { units: 20, k: 4, ..Default::default() }), 0, 0),
        (RivalConfig::FcWta(WinnerTakeAllConfig { layers: vec![layer.clone()] }), 0, 0),
        // The second layer's units come after those of the first.
        (RivalConfig::FcWta(WinnerTakeAllConfig { layers: vec![layer.clone(), layer] }), 50, 20),
        (RivalConfig::ConvWta(ConvolutionalWinnerTakeAllConfig { units: 20, ..Default::default() }), 0, 0),
    ];
    for (config, step, first) in cases {
        let name = config.name();
        let batch = batch(&device, step);
        let network = with_dead_units(&config, step, &device);
        let dead = unused(&network, &batch);
        for unit in [first + 3, first + 11] {
            assert!(dead.contains(&unit), "{name}: {dead:?}");
        }
        let revived = network.clone().reseeded(&[first + 3, first + 11], &batch).unwrap();
        let left: Vec<usize> = unused(&revived, &batch);
        assert!(!left.contains(&(first + 3)) && !left.contains(&(first + 11)), "{name}: {left:?} of {dead:?}");
        // The others' atoms are what they were, and the new ones are not, where atoms are those of the layer.
        if first == 0 {
            let (before, after) = (host(network.atoms()), host(revived.atoms()));
            let len = before.len() / 20;
            for (unit, (before, after)) in before.chunks_exact(len).zip(after.chunks_exact(len)).enumerate() {
                assert_eq!(before == after, ![3, 11].contains(&unit), "{name}: unit {unit}");
            }
        }
        // What is drawn follows from the seed and the step.
        let again = network.clone().reseeded(&[first + 3, first + 11], &batch).unwrap();
        assert_eq!(loss(&again, &batch), loss(&revived, &batch), "{name}");
        // More units than signals: those that found one.
        let all: Vec<usize> = (first..first + 20).collect();
        let few = TrainingBatch { signals: batch.signals.clone().slice(burn::tensor::s![0..2]), ..batch.clone() };
        assert!(loss(&network.reseeded(&all, &few).unwrap(), &batch).is_finite(), "{name}");
    }
}

/// Sigmoids and denoising layers have no unit that is ever zero.
#[test]
fn units_that_cannot_die_are_left_alone() {
    let device = device();
    let kl = RivalConfig::Sae(serde_json::from_str(r#"{"penalty": "kl", "units": 5}"#).unwrap());
    for config in [kl, RivalConfig::named("sdae").unwrap().with_units(5)] {
        assert_eq!(config.init(SIGNAL, 0, &device).unwrap().mortal_units(), 0);
    }
}

/// A step along an atom is taken back by its projection to unit norm: the gradient has no such part.
#[cfg(feature = "autodiff")]
#[test]
fn decoders_of_unit_norm_have_no_gradient_along_their_atoms() {
    let device = device().autodiff();
    let batch = batch(&device, 0);
    let sae = RivalConfig::Sae(PenalizedAutoencoderConfig { units: 20, ..Default::default() });
    let top_k = RivalConfig::TopK(TopKConfig { units: 20, k: 4, ..Default::default() });
    for config in [sae, top_k] {
        let network = config.init(SIGNAL, 1, &device).unwrap();
        let gradients = network.training(&batch).unwrap().loss.mean().backward();
        let decoder = match &network {
            Rival::Sae(network) => network.decoder.weight.val(),
            Rival::TopK(network) => network.decoder.val(),
            _ => unreachable!("one of two"),
        };
        let slopes = host(decoder.grad(&gradients).unwrap());
        let atoms = host(decoder);
        let mut moved = 0;
        for (atom, slope) in atoms.chunks_exact(144).zip(slopes.chunks_exact(144)) {
            let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let length = inner(slope, slope).sqrt();
            // f32 sums of 144 terms.
            assert!(inner(atom, slope).abs() <= 1e-4 * length.max(1e-3), "{}: {length}", config.name());
            moved += usize::from(length > 1e-3);
        }
        // Measured: all 20.
        assert!(moved >= 15, "{}: {moved}", config.name());
    }
}

/// Planted vectors: sums of a few of 60 directions in 32 dimensions around a point far from zero.
fn planted(folder: &Path) -> DataConfig {
    let mut random = common::rng(8);
    let directions = common::normals(&mut random, 60 * 32);
    let offset = common::normals(&mut random, 32);
    let draws = common::normals(&mut random, 4000 * 6);
    let mut values = Vec::new();
    for draw in draws.chunks_exact(6) {
        let mut signal: Vec<f32> = offset.iter().map(|value| 3.0 * value).collect();
        // Which directions, the first ones more often, and how much of each.
        for (which, size) in draw[..3].iter().zip(&draw[3..]) {
            let direction = &directions[(which.abs() * 25.0) as usize % 60 * 32..][..32];
            let size = (0.5 + size.abs()) / 32f32.sqrt();
            signal.iter_mut().zip(direction).for_each(|(value, part)| *value += size * part);
        }
        values.extend(signal);
    }
    let path = folder.join("planted.npy");
    write_npy(&path, &[4000, 1, 1, 32], &values).unwrap();
    DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
}

fn run_rival(folder: &Path, config: Option<&RivalTrainConfig>, mut stop: &Stop) -> (Outcome, RivalRun) {
    let config = config.cloned().unwrap_or_else(|| rivals::read_config(folder).unwrap());
    let data = data::open(&config.data).unwrap();
    let mut run = match rivals::is_rival(folder) {
        true => RivalRun::resume(folder, &config, &data, &device()).unwrap(),
        false => RivalRun::create(folder, &config, &data, &device()).unwrap(),
    };
    let outcome = run.train(&data, &|| stop.stopped(), &mut stop).unwrap();
    (outcome, run)
}

#[test]
fn no_unit_stays_dead_on_planted_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let data = planted(folder.path());
    for rival in [
        RivalConfig::TopK(TopKConfig { units: 96, k: 4, ..Default::default() }),
        RivalConfig::KSparse(KSparseConfig { units: 96, k: 4, initial_k: 12, ..Default::default() }),
        RivalConfig::Sae(PenalizedAutoencoderConfig { units: 96, weight: 0.05, ..Default::default() }),
        RivalConfig::FcWta(WinnerTakeAllConfig {
            layers: vec![WinnerTakeAllLayerConfig { units: 96, lifetime: 0.05 }],
        }),
    ] {
        let name = rival.name();
        let config = RivalTrainConfig { data: data.clone(), epochs: 8, ..RivalTrainConfig::new(rival) };
        let (outcome, run) = run_rival(&folder.path().join(name), Some(&config), &Stop::default());
        assert_eq!(outcome, Outcome::Finished);
        let best = run.best().unwrap();
        let (test, kept) = (&best.held_out().unwrap().test, best.kept().unwrap());
        let fvu = test.fvu.unwrap();
        println!("{name}: FVU {fvu:.3}, {} dead, kept {kept:?}", test.dead_units);
        // Units that few of 400 held-out signals could use. Measured: 4 of k-sparse, none of the others; FVU 0.09 to 0.41.
        assert!(test.dead_units <= 6, "{name}: {} dead", test.dead_units);
        assert!(fvu < 0.45, "{name}: {fvu}");
    }
}

/// Biases start in the middle, so that the loss of a fresh network is that of signals around it.
#[test]
fn biases_start_in_the_middle_of_the_signals() {
    let folder = tempfile::tempdir().unwrap();
    let data = data::open(&planted(folder.path())).unwrap();
    let shape = data.train.shape();
    let mut values = vec![0.0; 100 * shape.len()];
    data.train.read(&(0..100).collect::<Vec<_>>(), &mut values).unwrap();
    let signals: Tensor<4> = tensor(&values, shape.batched(100), &device());
    let energy = |values: Vec<f32>| values.iter().map(|value| value * value).sum::<f32>();
    for name in ["sae", "k-sparse", "top-k", "fc-wta", "stacked-wta"] {
        let config = RivalConfig::named(name).unwrap().with_units(40);
        let fresh = config.init(shape, 0, &device()).unwrap();
        let centred = fresh.clone().centred(&*data.train).unwrap();
        let error = |network: &Rival| {
            let coded = network.reconstruct(signals.clone()).unwrap();
            energy(host(signals.clone() - coded.reconstruction))
        };
        // Measured: 0.019 at most.
        assert!(error(&centred) < 0.1 * error(&fresh), "{name}: {} of {}", error(&centred), error(&fresh));
        // Twice the same.
        let again = fresh.centred(&*data.train).unwrap();
        assert_eq!(error(&again), error(&centred));
    }
}

// What is kept.

#[test]
fn a_rival_that_gets_worse_is_kept_as_it_was_at_its_best() {
    let folder = tempfile::tempdir().unwrap();
    let data = planted(folder.path());
    let rival = RivalConfig::TopK(TopKConfig { units: 40, k: 4, ..Default::default() });
    let mut config = RivalTrainConfig { data, epochs: 4, ..RivalTrainConfig::new(rival) };
    config.optimization.learning_rate = 1.0;
    config.optimization.final_rate = 1.0;
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let (_, run) = run_rival(&whole, Some(&config), &Stop::default());
    let [start, epochs] = ["start", "epoch"].map(|kind| of_kind(&whole, kind));
    let losses: Vec<f64> = start.iter().chain(&epochs).map(|line| number(&line["test_loss"])).collect();
    let best = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    println!("{losses:?}");
    // Measured: the start, before which nothing was learned; losses go to 1e21.
    assert!(best < 4, "so high a rate was to make it worse");
    assert_eq!(epochs[3]["kept"]["epoch"], best);
    let record = run.best().unwrap();
    let (loss, kept) = (record.held_out().unwrap().test_loss, record.kept().unwrap());
    assert_eq!((loss, kept.epoch), (losses[best], best));
    // What is in the file is that state.
    let data = data::open(&config.data).unwrap();
    let (loaded, _) = Rival::load(&whole.join("model.safetensors"), &device()).unwrap();
    assert_eq!(host(loaded.atoms()), host(run.rival().atoms()));
    let mut values = vec![0.0; data.test.len() * 32];
    data.test.read(&(0..data.test.len()).collect::<Vec<_>>(), &mut values).unwrap();
    let signals = tensor(&values, data.test.shape().batched(data.test.len()), &device());
    let coded = loaded.reconstruct(signals.clone()).unwrap();
    let errors = host(signals - coded.reconstruction).iter().map(|error| f64::from(error * error)).sum::<f64>();
    let found = 0.5 * errors / data.test.len() as f64;
    assert!((found - losses[best]).abs() < 1e-3 * losses[best], "{found} {}", losses[best]);
    // Stopped before, in and after the best epoch it is the same.
    for after in [3, 30, 30, 30] {
        let config = (!parts.exists()).then_some(&config);
        assert_eq!(run_rival(&parts, config, &Stop::after(after)).0, Outcome::Interrupted);
    }
    let (outcome, resumed) = run_rival(&parts, None, &Stop::default());
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(metrics(&parts), metrics(&whole));
    assert_eq!(host(resumed.rival().atoms()), host(run.rival().atoms()));
    let model = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(model(&parts) == model(&whole));
}

/// [`small_run`] of three epochs.
fn small(update: UpdateRule) -> TrainConfig {
    let mut config = small_run(update);
    config.learning.epochs = 3;
    config.learning.unrolled.iterations = 20;
    config.learning.unrolled.optimization.clip_norm = Some(10.0);
    config
}

fn train(folder: &Path, config: &TrainConfig, from: Option<&Mlcsc>, mut stop: &Stop) -> Run {
    let data = data::open(&config.data).unwrap();
    let mut run = Run::create_from(folder, config, from, &data, &device(), &mut stop).unwrap();
    run.train(&data, &|| stop.stopped(), &mut stop).unwrap();
    run
}

fn resume(folder: &Path, mut stop: &Stop) -> Run {
    let config = read_config(folder).unwrap();
    let data = data::open(&config.data).unwrap();
    let mut run = Run::resume(folder, &config, &data, &device()).unwrap();
    run.train(&data, &|| stop.stopped(), &mut stop).unwrap();
    run
}

fn filters(model: &Mlcsc) -> Vec<Vec<f32>> {
    model.filters().into_iter().map(host).collect()
}

/// A model, learned by pursuit.
fn given(folder: &Path) -> Mlcsc {
    train(folder, &small(UpdateRule::Pursuit), None, &Stop::default()).state().model().unwrap()
}

#[test]
fn training_end_to_end_returns_nothing_worse_than_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let given = given(&folder.path().join("given"));
    // A rate that spoils everything, and one with which fifteen steps end a little below or above, as rounding has it.
    for (name, rate, spoils) in [("spoiled", 0.5, true), ("small", 5e-3, false)] {
        let [whole, parts] = ["whole", "parts"].map(|part| folder.path().join(format!("{name}-{part}")));
        let mut config = small(UpdateRule::Unrolled);
        config.learning.unrolled.optimization.learning_rate = rate;
        let run = train(&whole, &config, Some(&given), &Stop::default());
        let [start, epochs] = ["start", "epoch"].map(|kind| of_kind(&whole, kind));
        let losses: Vec<f64> = start.iter().chain(&epochs).map(|line| number(&line["loss"])).collect();
        println!("{name}: {losses:?}");
        assert_eq!(losses.len(), 4);
        let best = (0..4).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
        let kept = run.kept().unwrap();
        assert_eq!((kept.kept().unwrap().epoch, kept.held_out().unwrap().loss), (best, Some(losses[best])));
        assert_eq!(epochs[2]["kept"]["epoch"], best);
        let (saved, _) = Mlcsc::load(&whole.join("model.safetensors"), &device()).unwrap();
        assert_eq!(filters(&saved), filters(&run.state().model().unwrap()));
        assert!(best == 0 || !spoils, "{losses:?}");
        assert_eq!(filters(&saved) == filters(&given), best == 0, "{losses:?}");
        // Five steps an epoch.
        train(&parts, &config, Some(&given), &Stop::after(3));
        resume(&parts, &Stop::after(6));
        resume(&parts, &Stop::after(6));
        let resumed = resume(&parts, &Stop::default());
        assert_eq!(metrics(&parts), metrics(&whole));
        let model = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert!(model(&parts) == model(&whole), "{name}");
        assert_eq!(filters(&resumed.state().model().unwrap()), filters(&saved));
        // There is nothing left to do, and what is kept is still that.
        let finished = resume(&parts, &Stop::default());
        assert_eq!(filters(&finished.state().model().unwrap()), filters(&saved));
        // As it was written: some digits of a JSON number may differ from those in memory, and times do.
        assert_eq!(finished.kept().and_then(Record::kept), kept.kept());
    }
}

/// Dictionaries that have the zeros already are not filled up first, and a state with fewer zeros than asked for is not kept.
#[test]
fn the_schedule_of_zeros_begins_where_dictionaries_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut dense = small(UpdateRule::Pursuit);
    dense.learning.zeros = Some(vec![0.0, 0.0]);
    let fullest = |model: &Mlcsc, layer: usize| {
        let filters = model.filters()[layer].clone();
        let atoms = filters.dims()[0];
        let values = host(filters);
        let atoms = values.chunks_exact(values.len() / atoms);
        atoms.map(|atom| atom.iter().filter(|value| **value != 0.0).count()).max().unwrap()
    };
    let geometry = dense.check().unwrap();
    let mut unrolled = small(UpdateRule::Unrolled);
    unrolled.learning.epochs = 2;
    let most = unrolled.learning.nonzeros(&geometry);
    let sparse = given(&folder.path().join("sparse"));
    let run = train(&folder.path().join("from-sparse"), &unrolled, Some(&sparse), &Stop::after(3));
    assert!((1..3).all(|layer| fullest(&run.state().model().unwrap(), layer) <= most[layer]));
    let dense = train(&folder.path().join("dense"), &dense, None, &Stop::default()).state().model().unwrap();
    assert!(fullest(&dense, 2) > most[2]);
    let run = train(&folder.path().join("from-dense"), &unrolled, Some(&dense), &Stop::default());
    let kept = run.kept().unwrap().kept().unwrap();
    assert!(kept.epoch > 0 && kept.admissible, "{kept:?}");
    assert!((1..3).all(|layer| fullest(&run.state().model().unwrap(), layer) <= most[layer]));
}

/// Zero atoms have no gradient: they start again from signals, in what the encoder has of its own as well.
#[test]
fn zero_atoms_start_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = given(&folder.path().join("given"));
    const ZERO: [usize; 3] = [2, 7, 20];
    let mut changed = model.filters();
    let mut deepest = host(changed[2].clone());
    let (dims, len) = (changed[2].dims(), deepest.len() / 24);
    ZERO.iter().for_each(|&atom| deepest[atom * len..][..len].fill(0.0));
    changed[2] = tensor(&deepest, dims, &device());
    let given = Mlcsc::from_filters(model.config().clone(), changed).unwrap();
    for weights in [EncoderWeights::Tied, EncoderWeights::Free] {
        let folder = folder.path().join(format!("{weights:?}"));
        let mut config = small(UpdateRule::Unrolled);
        config.learning.epochs = 12;
        config.learning.unrolled.weights = Some(weights);
        let run = train(&folder, &config, Some(&given), &Stop::default());
        println!("{weights:?}: {:?}", run.kept().and_then(Record::kept));
        let trained = SparseAutoencoder::load(&folder.join("model.safetensors"), &device()).unwrap();
        let of_layer = |layers: &[mlcsc::model::Dictionary]| host(layers[2].filters.val());
        let mut all = vec![of_layer(&trained.layers)];
        if weights == EncoderWeights::Free {
            all.extend([of_layer(&trained.encoder.synthesis), of_layer(&trained.encoder.analysis)]);
        }
        for (part, filters) in all.iter().enumerate() {
            for atom in ZERO {
                let values = &filters[atom * len..][..len];
                assert!(values.iter().any(|value| *value != 0.0), "{weights:?}: atom {atom} of part {part}");
            }
        }
    }
}
