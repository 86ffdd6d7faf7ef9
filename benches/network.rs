//! What a training step of networks of unrolled pursuits costs: `cargo bench --bench network`.
//!
//! The paper's networks for MNIST on random signals: scores, cross-entropy and all gradients, without the optimizer. One item is one
//! signal. `benches/peers/network.py` times the same step in PyTorch.
//!
//! And a step of training end to end, preset `mnist`, on drawn digits: the loss, all gradients, and, every few steps, sparse
//! dictionaries; by every way of gradients, with codes of so many iterations where they are unrolled. `max alloc` is the memory that a step takes.

use burn::tensor::{Int, Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mlcsc::autoencoder::{EncoderWeights, Trainable, TrainingBatch};
use mlcsc::autoencoder::{NetworkPursuit, PursuitNetwork, PursuitNetworkConfig};
use mlcsc::baselines::one_layer;
use mlcsc::data::{self, DataConfig};
use mlcsc::learn::config::{UnrolledUpdateConfig, UpdateRule};
use mlcsc::learn::unrolled::UnrolledTraining;
use mlcsc::learn::{TrainConfig, TrainingState};
use mlcsc::model::Mlcsc;
use mlcsc::model::preset::Preset;
use mlcsc::names::{IntoEnumIterator, named};

#[global_allocator]
static MEMORY: divan::AllocProfiler = divan::AllocProfiler::system();

/// Signals of a step.
const SIGNALS: usize = 128;

/// Signals of a step of training end to end.
const BATCH: usize = 256;

fn main() {
    divan::main();
}

#[divan::bench(args = NetworkPursuit::iter(), sample_count = 10)]
fn step(bencher: Bencher, pursuit: NetworkPursuit) {
    let device = mlcsc::device::named(None).expect("a device").autodiff();
    let network = PursuitNetworkConfig::mnist(pursuit).init(0, &device).expect("a network");
    // Numbers in [0, 1).
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32
    };
    let values: Vec<f32> = (0..SIGNALS * 28 * 28).map(next).collect();
    let signals = Tensor::<4>::from_data(TensorData::new(values, [SIGNALS, 1, 28, 28]), &device);
    let labels: Vec<i32> = (0..SIGNALS as i32).map(|label| label % 10).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [SIGNALS]), &device);
    bencher.counter(ItemsCount::new(SIGNALS)).bench_local(|| {
        let scores = network.forward(black_box(signals.clone())).expect("signals that fit");
        PursuitNetwork::cross_entropy(scores, labels.clone()).mean().backward()
    });
}

/// The preset `mnist`, then one layer of as many atoms as large as the digits.
#[divan::bench(
    args = [
        ("mnist", "envelope", 20), ("mnist", "envelope", 80), ("mnist", "implicit", 20), ("mnist", "implicit", 80),
        ("mnist", "truncated", 20), ("mnist", "unrolled", 20), ("mnist", "unrolled", 80),
        ("one layer", "envelope", 20), ("one layer", "implicit", 20), ("one layer", "unrolled", 20),
    ],
    sample_count = 20,
)]
fn end_to_end(bencher: Bencher, (geometry, gradient, iterations): (&str, &str, usize)) {
    let device = mlcsc::device::named(None).expect("a device");
    let way = named("gradient", gradient).expect("a way of gradients");
    let mut config = TrainConfig::preset(Preset::Mnist);
    if geometry == "one layer" {
        config.model = one_layer(config.model.signal, 1024).expect("a geometry");
    }
    config.learning.initialization.steps = 10;
    config.data = DataConfig { count: Some(2000), ..DataConfig::default() };
    config.learning.update = UpdateRule::Unrolled;
    config.learning.unrolled = UnrolledUpdateConfig {
        gradient: way,
        weights: Some(EncoderWeights::Tied),
        iterations,
        ..UnrolledUpdateConfig::default()
    };
    let digits = data::open(&config.data).expect("drawn digits").train;
    let start = TrainingState::start(&config, &*digits, &device, |_, _| Ok(())).expect("dictionaries");
    let device = device.autodiff();
    let filters = start.model().expect("a model").filters().into_iter();
    let filters = filters.map(|filters| Tensor::from_data(filters.into_data(), &device)).collect();
    let model = Mlcsc::from_filters(config.model.clone(), filters).expect("a model");
    let mut network = UnrolledTraining::new(&config, &model, 0.0, digits.len() / BATCH).expect("a network");
    let mut values = vec![0.0; BATCH * digits.shape().len()];
    digits.read(&(0..BATCH).collect::<Vec<_>>(), &mut values).expect("digits");
    let signals = Tensor::from_data(TensorData::new(values, digits.shape().batched(BATCH)), &device);
    let mut batch = TrainingBatch { signals, labels: None, step: 0, steps: 1000, seed: 0, part: 0, of: BATCH };
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        batch.step += 1;
        let outcome = network.training(black_box(&batch)).expect("signals that fit");
        let gradients = outcome.loss.mean().backward();
        network = network.clone().constrained(batch.step, batch.steps);
        gradients
    });
}
