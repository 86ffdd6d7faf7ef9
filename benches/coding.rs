//! What coding and learning cost: `cargo bench --bench coding`.
//!
//! Drawn digits over a dictionary of other drawn digits, of unit norm: as coherent as a learned one, made in a moment. One item is
//! one signal.

use burn::tensor::{Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mlcsc::data::{self, DataConfig};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::learn::{DictionaryLearner, TrainConfig};
use mlcsc::model::preset::Preset;
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    Acceleration, BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Problem, ProximalGradientConfig,
    Pursuit, Unrolled,
};

/// Signals that are coded at a time.
const SIGNALS: usize = 256;

fn main() {
    divan::main();
}

/// Digits as one row of values each, their mean square 1/784 where they are to be atoms.
fn digits(count: usize, unit: bool, seed: u64) -> Vec<f32> {
    let config = DataConfig { count: Some(count), seed, held_out: 0.0, ..DataConfig::default() };
    let source = data::open(&config).expect("drawn digits").train;
    let len = source.shape().len();
    let indices: Vec<usize> = (0..source.len()).cycle().take(count).collect();
    let mut values = vec![0.0; count * len];
    source.read(&indices, &mut values).expect("drawn digits");
    if unit {
        for atom in values.chunks_exact_mut(len) {
            let norm = atom.iter().map(|value| value * value).sum::<f32>().sqrt();
            atom.iter_mut().for_each(|value| *value /= norm);
        }
    }
    values
}

fn operator(atoms: usize) -> Operator {
    let device = mlcsc::device::named(None).expect("a device");
    let shape = SignalShape::new(1, 28, 28);
    let config = ModelConfig::new(shape, vec![LayerShape::new(atoms, 28, 1)]);
    let filters = Tensor::from_data(TensorData::new(digits(atoms, true, 1), [atoms, 1, 28, 28]), &device);
    let model = Mlcsc::from_filters(config, vec![filters]).expect("filters of that shape");
    let operator = model.operator(shape, OperatorForm::Gram).expect("a Gram matrix");
    operator.gram();
    operator.squared_norm_bound();
    operator
}

fn signals(operator: &Operator) -> Tensor<4> {
    let dims = operator.signal().batched(SIGNALS);
    Tensor::from_data(TensorData::new(digits(SIGNALS, false, 2), dims), &operator.device())
}

/// Basis pursuit to a relative gap of 1e-4; the argument is λ in percent of each signal's λ_max.
#[divan::bench(args = [10, 30], sample_count = 10)]
fn coordinate_descent(bencher: Bencher, percent: u32) {
    let operator = operator(1024);
    let pursuit = BasisPursuitConfig::default().init_for(&operator).expect("defaults");
    let (signals, lambda) = (signals(&operator), Lambda::Relative(percent as f32 / 100.0));
    bencher
        .counter(ItemsCount::new(SIGNALS))
        .bench_local(|| black_box(pursuit.pursue(&operator, signals.clone(), &lambda).expect("signals that fit")));
}

/// Orthogonal matching pursuit to that many non-zeros.
#[divan::bench(args = [10, 30], sample_count = 10)]
fn orthogonal_matching_pursuit(bencher: Bencher, nonzeros: usize) {
    let operator = operator(1024);
    let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init().expect("non-zeros");
    let problem = Problem::new(&operator, signals(&operator)).expect("signals that fit");
    bencher
        .counter(ItemsCount::new(SIGNALS))
        .bench_local(|| black_box(pursuit.solve(&problem).expect("a problem that fits")));
}

/// That many iterations of FISTA as the layers of a network, forward.
#[divan::bench(args = [20], sample_count = 10)]
fn unrolled_fista(bencher: Bencher, iterations: usize) {
    let operator = operator(1024);
    let pursuit = ProximalGradientConfig::new(Acceleration::Fista).init().expect("defaults");
    let problem =
        Problem::new(&operator, signals(&operator)).and_then(|problem| problem.with_lambda(Lambda::Relative(0.1)));
    let problem = problem.expect("signals that fit");
    bencher
        .counter(ItemsCount::new(SIGNALS))
        .bench_local(|| black_box(pursuit.unrolled(&problem, iterations).expect("a problem that fits").into_data()));
}

/// One step of learning, codes and dictionaries, on a model that has just been initialised.
#[divan::bench(sample_count = 5)]
fn learning_step(bencher: Bencher) {
    let device = mlcsc::device::named(None).expect("a device");
    let mut config = TrainConfig::preset(Preset::Small);
    config.data.count = Some(12 * SIGNALS);
    config.learning.batch_size = SIGNALS;
    config.learning.initialization.steps = 4;
    let digits = data::open(&config.data).expect("drawn digits");
    let learner = DictionaryLearner::start(&config, &*digits.train, &device, |_, _| Ok(())).expect("a learner");
    bencher.counter(ItemsCount::new(SIGNALS)).with_inputs(|| learner.clone()).bench_local_values(|mut learner| {
        black_box(learner.step(&*digits.train).expect("signals that can be read"));
    });
}
