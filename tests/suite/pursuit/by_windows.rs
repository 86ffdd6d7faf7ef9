//! Where the positions of a code share no sample a signal is a batch of vectors: coding and learning give what the same vectors
//! give, and what the pursuits give on whole signals.

use crate::common;

use burn::tensor::{Device, Tensor};
use common::program::Program;
use common::{Case, devices, host, on_every_device, rng, tensor};
use mlcsc::Result;
use mlcsc::data::{DataConfig, Dataset, Source};
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerGeometry, LayerShape, Pair, SignalShape};
use mlcsc::learn::config::{Schedule, UpdateRule};
use mlcsc::learn::{DictionaryLearner, LearningConfig, Observer, Outcome, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::{ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    Acceleration, Algorithm, BasisPursuitConfig, CoordinateDescent, Lambda, LayeredBasisPursuitConfig,
    MultiLayerProximalGradientConfig, MultiLayerSplittingConfig, OrthogonalMatchingPursuitConfig, Problem,
    ProximalGradientConfig, Pursued, Pursuit, ResidualDescent, SignalReport, StopReason,
};
use rand::RngExt;
use serde_json::{Value, json};
use std::cell::Cell;
use std::sync::Arc;

/// Feature maps under a 1×1 kernel; patches side by side; gaps between and behind them; one row of positions; two layers, the
/// first of which overlaps.
fn cases() -> Vec<Case> {
    let cases = [
        (SignalShape::new(6, 5, 7), vec![LayerShape::new(11, 1, 1)]),
        (SignalShape::new(2, 6, 8), vec![LayerShape::new(13, Pair([3, 2]), Pair([3, 2]))]),
        (SignalShape::new(1, 13, 17), vec![LayerShape::new(9, Pair([3, 4]), Pair([4, 5]))]),
        (SignalShape::new(2, 4, 12), vec![LayerShape::new(10, Pair([4, 3]), Pair([1, 3]))]),
        (SignalShape::new(1, 16, 16), vec![LayerShape::new(4, 3, 1), LayerShape::new(12, 2, 4)]),
    ];
    cases.into_iter().zip(21..).map(|((signal, layers), seed)| Case::random(signal, layers, seed)).collect()
}

fn operator(case: &Case, device: &Device) -> Operator {
    case.model(device).operator(case.config.signal, OperatorForm::Auto).unwrap()
}

/// The windows of signals, by plain loops: position by position, then channel, row, column.
fn cut(layer: &LayerGeometry, signals: &[f32]) -> Vec<f32> {
    let (signal, code) = (layer.signal, layer.code);
    let mut out = Vec::new();
    for values in signals.chunks_exact(signal.len()) {
        for position in 0..code.height * code.width {
            let (top, left) = (position / code.width * layer.stride[0], position % code.width * layer.stride[1]);
            for place in 0..layer.atom_len() {
                let (channel, y) =
                    (place / (layer.kernel[0] * layer.kernel[1]), place / layer.kernel[1] % layer.kernel[0]);
                let row = (channel * signal.height + top + y) * signal.width;
                out.push(values[row + left + place % layer.kernel[1]]);
            }
        }
    }
    out
}

/// The same model on one window.
fn alone(case: &Case, layer: &LayerGeometry) -> Case {
    let signal = SignalShape::new(layer.signal.channels, layer.kernel[0], layer.kernel[1]);
    Case { config: ModelConfig::new(signal, case.config.layers.clone()), ..case.clone() }
}

/// What the algorithm makes of whole signals.
fn whole(algorithm: Algorithm, config: &BasisPursuitConfig) -> Box<dyn Pursuit> {
    let proximal = |acceleration| {
        let config = ProximalGradientConfig { basis: config.clone(), ..ProximalGradientConfig::new(acceleration) };
        Box::new(config.init().unwrap())
    };
    match algorithm {
        Algorithm::Ista => proximal(Acceleration::Ista),
        Algorithm::Auto | Algorithm::Fista => proximal(Acceleration::Fista),
        Algorithm::CoordinateDescent => Box::new(CoordinateDescent::new(config.clone()).unwrap()),
        Algorithm::ResidualDescent => Box::new(ResidualDescent::new(config.clone()).unwrap()),
        #[allow(unreachable_patterns, reason = "algorithms that are no pursuits of their own are not compared")]
        other => panic!("{other:?}"),
    }
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "{what}[{index}]: {found} {expected} of scale {scale}");
    }
}

/// Objectives agree to both gaps, codes to what a gap leaves of them; reports are about the codes.
fn assert_same(found: &Pursued, expected: &Pursued, gap: f32, codes: f32, what: &str) {
    assert_eq!(found.codes.dims(), expected.codes.dims(), "{what}");
    assert_near(&host(found.codes.clone()), &host(expected.codes.clone()), codes, what);
    for (found, expected) in found.reports.iter().zip(&expected.reports) {
        let what = format!("{what}: {found:?} {expected:?}");
        assert!((found.lambda - expected.lambda).abs() <= 1e-5 * expected.lambda, "{what}");
        assert_eq!((found.stop, expected.stop), (StopReason::DualityGap, StopReason::DualityGap), "{what}");
        assert!(found.relative_gap <= gap && found.iterations > 0, "{what}");
        // An objective is within its gap of the minimum; what it is made of depends on the code as its square root does.
        let tolerance = (2.0 * gap).max(1e-5);
        for (found, expected, tolerance) in
            [(found.objective, expected.objective, tolerance), (found.data_term, expected.data_term, tolerance.sqrt())]
        {
            assert!((found - expected).abs() <= tolerance * expected.max(1.0), "{what}");
        }
    }
    let nonzeros = host(found.codes.clone().not_equal_scalar(0.0).float().sum_dims(&[1, 2, 3]));
    let reported: Vec<f32> = found.reports.iter().map(|report| report.nonzeros as f32).collect();
    assert_eq!(nonzeros, reported, "{what}");
}

#[test]
fn coding_agrees_with_whole_signals() {
    on_every_device(|device| {
        let device = &device.device;
        for (number, case) in cases().into_iter().enumerate() {
            let (operator, count) = (operator(&case, device), 3);
            let signals = tensor(&case.signals(count), case.config.signal.batched(count), device);
            let (code, depth) = (operator.code(), case.config.layers.len());
            let weights: Vec<f32> = (0..code.channels).map(|atom| 0.5 + atom as f32 / code.channels as f32).collect();
            let start = tensor(&case.codes(count), code.batched(count), device);
            for lambda in [Lambda::Absolute(0.5), Lambda::Relative(0.2), Lambda::PerSignal(vec![0.3, 0.6, 40.0])] {
                let plain = Problem::new(&operator, signals.clone()).unwrap().with_lambda(lambda).unwrap();
                let weighted = plain.clone().with_weights(depth, weights.clone()).unwrap();
                let started = weighted.clone().with_start(start.clone()).unwrap();
                for (kind, problem) in [("plain", plain), ("weighted", weighted), ("started", started)] {
                    for (algorithm, gap, codes) in [
                        // Whole signals may be finished by FISTA, whose codes a gap of 1e-6 leaves some 1e-3 of their size.
                        (Algorithm::CoordinateDescent, 1e-6, 1e-3),
                        (Algorithm::Fista, 1e-5, 5e-3),
                        (Algorithm::ResidualDescent, 1e-5, 5e-3),
                        (Algorithm::Auto, 1e-5, 5e-3),
                    ] {
                        for nonnegative in [false, true] {
                            let what = format!("case {number}, {kind}, {algorithm:?}, {nonnegative}");
                            let config = BasisPursuitConfig { gap, nonnegative, max_iterations: 20_000 };
                            let expected = whole(algorithm, &config).solve(&problem).unwrap();
                            for found in [algorithm.init(&config, &operator), algorithm.init_for(&config, &problem)] {
                                let mut found = found.unwrap().solve(&problem).unwrap();
                                // A λ above λ_max: no step is taken from the zero code, some from another.
                                for report in found.reports.iter_mut().filter(|report| report.nonzeros == 0) {
                                    report.iterations = report.iterations.max(1);
                                }
                                assert_same(&found, &expected, gap, codes, &what);
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn coding_agrees_with_vectors() {
    on_every_device(|device| {
        let device = &device.device;
        for case in cases() {
            let (operator, count) = (operator(&case, device), 4);
            let layer = operator.geometry().effective_layer().unwrap();
            let positions = layer.code.height * layer.code.width;
            let values = case.signals(count);
            let vectors = alone(&case, &layer);
            let model = vectors.model(device);
            let vector_operator = model.operator(vectors.config.signal, OperatorForm::Auto).unwrap();
            let cut = cut(&layer, &values);
            let dims = vectors.config.signal.batched(count * positions);
            let config = BasisPursuitConfig { gap: 1e-5, ..Default::default() };
            let pursuit = config.init_for(&operator).unwrap();
            // What suits the window is what suits the signal.
            assert_eq!(pursuit.name(), config.init_for(&vector_operator).unwrap().name());
            let lambda = Lambda::Absolute(0.4);
            let signals = tensor(&values, case.config.signal.batched(count), device);
            let found = pursuit.pursue(&operator, signals, &lambda).unwrap();
            let pursuit = config.init_for(&vector_operator).unwrap();
            let expected = pursuit.pursue(&vector_operator, tensor(&cut, dims, device), &lambda).unwrap();
            // [n, atoms, positions] against [n, positions, atoms].
            let (found_codes, expected_codes) = (host(found.codes), host(expected.codes));
            let atoms = layer.code.channels;
            for (place, value) in found_codes.iter().enumerate() {
                let (signal, atom, position) = (place / layer.code.len(), place / positions % atoms, place % positions);
                assert_eq!(*value, expected_codes[(signal * positions + position) * atoms + atom]);
            }
            let total: f32 = cut.iter().map(|value| value * value).sum();
            let all: f32 = values.iter().map(|value| value * value).sum();
            let beyond = 0.5 * f64::from(all - total);
            let sum =
                |pursued: &[SignalReport]| -> f64 { pursued.iter().map(|report| f64::from(report.objective)).sum() };
            let (found_sum, expected_sum) = (sum(&found.reports), sum(&expected.reports) + beyond);
            assert!((found_sum - expected_sum).abs() <= 1e-5 * expected_sum, "{found_sum} {expected_sum}");
            for (report, parts) in found.reports.iter().zip(expected.reports.chunks_exact(positions)) {
                assert_eq!(report.nonzeros, parts.iter().map(|part| part.nonzeros).sum::<usize>());
                assert_eq!(report.iterations, parts.iter().map(|part| part.iterations).max().unwrap());
                let gap: f32 = parts.iter().map(|part| part.relative_gap * part.objective).sum();
                assert!((report.relative_gap * report.objective - gap).abs() <= 1e-5 * report.objective);
            }
        }
    });
}

/// A mask that keeps all samples has the signals matched as they are.
#[test]
fn matching_agrees_with_whole_signals() {
    on_every_device(|device| {
        let device = &device.device;
        for (number, case) in cases().into_iter().enumerate() {
            let (operator, count) = (operator(&case, device), 3);
            let dims = case.config.signal.batched(count);
            let plain = Problem::new(&operator, tensor(&case.signals(count), dims, device)).unwrap();
            let masked = plain.clone().with_mask(Tensor::ones(case.config.signal.batched(1), device)).unwrap();
            let most = operator.code().len().min(operator.signal().len());
            let norm = (case.config.signal.len() as f32).sqrt();
            let settings = [(1, 0.0), (7, 0.0), (most / 2, 0.0), (most, 0.6 * norm), (most, 0.0)];
            for ((nonzeros, residual), nonnegative) in settings.into_iter().flat_map(|it| [(it, false), (it, true)]) {
                let config = OrthogonalMatchingPursuitConfig {
                    residual,
                    nonnegative,
                    ..OrthogonalMatchingPursuitConfig::new(nonzeros)
                };
                let solve = |problem: &Problem| config.clone().init().unwrap().solve(problem).unwrap();
                let (found, expected) = (solve(&plain), solve(&masked));
                let what = format!("case {number}, {nonzeros}, {residual}, {nonnegative}");
                // To the last atom it is rounding that says which of the last ones come in, and with what coefficient.
                let all = nonzeros == most && residual == 0.0;
                if !all {
                    assert_near(&host(found.codes), &host(expected.codes), 1e-4, &what);
                }
                for (found, expected) in found.reports.iter().zip(&expected.reports) {
                    let what = format!("{what}: {found:?} {expected:?}");
                    let energy = 0.5 * case.config.signal.len() as f32;
                    assert!((found.data_term - expected.data_term).abs() <= 1e-5 * energy, "{what}");
                    assert_eq!(found.objective, found.data_term, "{what}");
                    if !all {
                        let of = |report: &SignalReport| (report.stop, report.nonzeros, report.iterations);
                        assert_eq!(of(found), of(expected), "{what}");
                    }
                }
            }
        }
    });
}

/// Penalties and weights of both layers; a mask that keeps all samples has the signals coded as they are.
#[test]
fn multi_layer_pursuits_agree_with_whole_signals() {
    let device = &devices().remove(0).device;
    let disjoint = vec![LayerShape::new(7, 2, 2), LayerShape::new(9, 1, 1)];
    let gaps = vec![LayerShape::new(5, Pair([1, 2]), 2), LayerShape::new(6, 2, 2)];
    let overlapping = vec![LayerShape::new(4, 3, 1), LayerShape::new(6, 2, 4)];
    for (number, (side, layers)) in [(8, disjoint), (9, gaps), (12, overlapping)].into_iter().enumerate() {
        let case = Case::random(SignalShape::new(2, side, side), layers, 41);
        let operator = operator(&case, device);
        let plain = Problem::new(&operator, tensor(&case.signals(2), case.config.signal.batched(2), device)).unwrap();
        let weights: Vec<f32> = (0..case.config.layers[0].atoms).map(|atom| 0.6 + 0.1 * atom as f32).collect();
        let plain = plain.with_weights(1, weights).unwrap().with_lambda(Lambda::Relative(0.2)).unwrap();
        let plain = plain.with_shallower_lambda(vec![Lambda::PerSignal(vec![0.02, 0.05])]).unwrap();
        let masked = plain.clone().with_mask(Tensor::ones(case.config.signal.batched(1), device)).unwrap();
        let basis = BasisPursuitConfig { gap: 1e-4, max_iterations: 20_000, nonnegative: false };
        let exact = MultiLayerSplittingConfig { basis: basis.clone(), ..Default::default() }.init().unwrap();
        let config = MultiLayerProximalGradientConfig::new(Acceleration::Fista);
        let config = MultiLayerProximalGradientConfig { basis, tolerance: 1e-6, ..config };
        let steps = config.init().unwrap();
        for pursuit in [&exact as &dyn Pursuit, &steps] {
            let (found, expected) = (pursuit.solve(&plain).unwrap(), pursuit.solve(&masked).unwrap());
            let what = format!("case {number}, {}", pursuit.name());
            assert_near(&host(found.codes), &host(expected.codes), 2e-2, &what);
            for (found, expected) in found.reports.iter().zip(&expected.reports) {
                let what = format!("{what}: {found:?} {expected:?}");
                assert!((found.lambda - expected.lambda).abs() <= 1e-5 * expected.lambda, "{what}");
                assert!((found.objective - expected.objective).abs() <= 1e-3 * expected.objective, "{what}");
                assert!(found.stop != StopReason::MaxIterations, "{what}");
            }
        }
    }
}

#[test]
fn layers_are_coded_by_windows_too() {
    let device = &devices().remove(0).device;
    // Both layers are disjoint, so is the whole.
    let layers = vec![LayerShape::new(7, 2, 2), LayerShape::new(9, 2, 2)];
    let case = Case::random(SignalShape::new(2, 8, 12), layers, 31);
    let operator = operator(&case, device);
    let signals = tensor(&case.signals(2), case.config.signal.batched(2), device);
    let problem = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Relative(0.1)).unwrap();
    let solve = |algorithm| {
        let basis = BasisPursuitConfig { gap: 1e-5, max_iterations: 20_000, nonnegative: false };
        LayeredBasisPursuitConfig { algorithm, basis }.init().unwrap().solve(&problem).unwrap()
    };
    let (found, expected) = (solve(Algorithm::Auto), solve(Algorithm::Fista));
    for (found, expected) in found.reports.iter().zip(&expected.reports) {
        assert_eq!(found.stop, StopReason::DualityGap);
        assert!((found.objective - expected.objective).abs() <= 1e-3 * expected.objective, "{found:?} {expected:?}");
    }
    // Shallower penalties are refused as they are elsewhere.
    let penalised = problem.with_shallower_lambda(vec![Lambda::Absolute(0.1)]).unwrap();
    let auto = BasisPursuitConfig::default().init_for(&operator).unwrap();
    assert!(auto.solve(&penalised).unwrap_err().to_string().contains("shallower"));
}

#[test]
fn masks_are_heeded() {
    on_every_device(|device| {
        let device = &device.device;
        for case in cases() {
            let (operator, count) = (operator(&case, device), 2);
            let signals = tensor(&case.signals(count), case.config.signal.batched(count), device);
            let mut generator = rng(7);
            let mask: Vec<f32> = (0..count * case.config.signal.len())
                .map(|_| f32::from(u8::from(generator.random_range(0..4) > 0)))
                .collect();
            for of in [1, count] {
                let mask = tensor(&mask[..of * case.config.signal.len()], case.config.signal.batched(of), device);
                let problem = Problem::new(&operator, signals.clone()).unwrap();
                let problem = problem.with_lambda(Lambda::Relative(0.1)).unwrap().with_mask(mask).unwrap();
                let config = BasisPursuitConfig { gap: 1e-5, max_iterations: 20_000, nonnegative: false };
                let expected = whole(Algorithm::Fista, &config).solve(&problem).unwrap();
                let found = Algorithm::Auto.init_for(&config, &problem).unwrap().solve(&problem).unwrap();
                assert_same(&found, &expected, 1e-5, 5e-3, &format!("{of} masks"));
            }
        }
    });
}

#[test]
fn no_signals_and_zero_signals_are_coded() {
    let device = &devices().remove(0).device;
    for case in cases() {
        let operator = operator(&case, device);
        let pursuit = BasisPursuitConfig::default().init_for(&operator).unwrap();
        for count in [0, 2] {
            let signals = Tensor::zeros(case.config.signal.batched(count), device);
            let found = pursuit.pursue(&operator, signals, &Lambda::Relative(0.5)).unwrap();
            assert_eq!(found.codes.dims(), operator.code().batched(count));
            assert_eq!(found.reports.len(), count);
            assert!(found.reports.iter().all(|report| report.objective == 0.0 && report.nonzeros == 0));
        }
    }
}

/// Signals in memory.
struct Memory {
    shape: SignalShape,
    values: Vec<f32>,
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.values.len() / self.shape.len()
    }

    fn shape(&self) -> SignalShape {
        self.shape
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let len = self.shape.len();
        for (out, &index) in out.chunks_exact_mut(len).zip(indices) {
            out.copy_from_slice(&self.values[index * len..][..len]);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// Maps that another dictionary made sparsely, so that there is something to learn.
fn planted(case: &Case, count: usize, device: &Device) -> Memory {
    let planted = Case::random(case.config.signal, case.config.layers.clone(), case.seed + 100);
    let operator = operator(&planted, device);
    let mut generator = rng(case.seed);
    let mut codes = case.codes(count);
    codes.iter_mut().for_each(|value| *value = if generator.random_range(0..6) > 0 { 0.0 } else { value.abs() + 0.3 });
    let signals = operator.synthesize(tensor(&codes, operator.code().batched(count), device));
    let mut values = host(signals);
    // Whatever lies between the windows.
    let noise = case.signals(count);
    values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.05 * noise);
    Memory { shape: case.config.signal, values }
}

fn settings(model: &ModelConfig, update: UpdateRule, batch_size: usize) -> TrainConfig {
    TrainConfig {
        model: model.clone(),
        learning: LearningConfig {
            update,
            epochs: 3,
            batch_size,
            lambda: Schedule::constant(0.1),
            gap: 1e-6,
            reseed_every: 1000,
            ..LearningConfig::default()
        },
        data: DataConfig::default(),
    }
}

/// With all signals in every step the order does not matter, and dictionaries come out as those of the vectors.
#[test]
fn learning_agrees_with_vectors() {
    let device = &devices().remove(0).device;
    for case in cases().into_iter().filter(|case| case.config.layers.len() == 1) {
        let layer = case.config.geometry().unwrap().effective_layer().unwrap();
        let positions = layer.code.height * layer.code.width;
        let maps = planted(&case, 12, device);
        let vectors = Memory {
            shape: SignalShape::new(layer.signal.channels, layer.kernel[0], layer.kernel[1]),
            values: cut(&layer, &maps.values),
        };
        let one_window = alone(&case, &layer);
        let learn = |case: &Case, source: &Memory| -> (Vec<Vec<f32>>, f64) {
            let config = settings(&case.config, UpdateRule::Pursuit, 12 * positions);
            let mut learner = DictionaryLearner::from_model(&config, &case.model(device), source, device).unwrap();
            assert_eq!(learner.steps_per_epoch(), 1);
            let mut objective = 0.0;
            for _ in 0..learner.steps() {
                objective = learner.step(source).unwrap().summary().objective;
            }
            (learner.model().unwrap().filters().into_iter().map(host).collect(), objective)
        };
        let (found, objective) = learn(&case, &maps);
        let (expected, of_vectors) = learn(&one_window, &vectors);
        let moved = found[0].iter().zip(&case.filters[0]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        // Measured: 0.48 at least.
        assert!(moved > 0.2, "{moved}");
        assert_near(&found[0], &expected[0], 1e-4, "filters");
        // What no window holds is in the maps' objective.
        let energy = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        let beyond = 0.5 * (energy(&maps.values) - energy(&vectors.values)) / 12.0;
        let expected = of_vectors * positions as f64 + beyond;
        assert!((objective - expected).abs() <= 1e-4 * expected, "{objective} {expected}");
    }
}

/// A step has as many windows as it would have vectors.
#[test]
fn batches_are_counted_in_windows() {
    let device = &devices().remove(0).device;
    let case = cases().remove(0);
    let maps = planted(&case, 12, device);
    let steps = |update, batch_size| {
        let config = settings(&case.config, update, batch_size);
        TrainingState::start(&config, &maps, device, |_, _| Ok(())).unwrap().steps_per_epoch()
    };
    // 35 positions.
    for (batch_size, expected) in [(1, 12), (35, 12), (69, 12), (70, 6), (256, 2), (420, 1), (10_000, 1)] {
        assert_eq!(steps(UpdateRule::Pursuit, batch_size), expected, "{batch_size}");
        assert_eq!(steps(UpdateRule::Gradient, batch_size), expected, "{batch_size}");
    }
    // Unrolled training is another loop's, in signals.
    assert_eq!(steps(UpdateRule::Unrolled, 5), 3);
}

/// Stops a run while it codes.
struct Stop<'a> {
    /// Looks at the coding of batches before it does.
    after: usize,
    seen: usize,
    stopped: &'a Cell<bool>,
}

impl Observer<Record, TrainingState> for Stop<'_> {
    fn coding(&mut self, part: f32) {
        assert!((0.0..=1.0).contains(&part));
        self.seen += 1;
        self.stopped.set(self.seen > self.after);
    }

    fn record(&mut self, _: &Record, _: &TrainingState) -> Result<()> {
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

/// A step that is given up while it codes leaves everything as it was, and the run comes to the same end.
#[test]
fn a_step_can_be_given_up() {
    let device = &devices().remove(0).device;
    let case = cases().remove(1);
    let (train, test) = (Arc::new(planted(&case, 30, device)), Arc::new(planted(&case, 4, device)));
    let data = Dataset { train: train.clone(), test, all: train.clone(), has_test_set: true };
    let config = settings(&case.config, UpdateRule::Pursuit, 120);
    let mut learner = DictionaryLearner::start(&config, &*train, device, |_, _| Ok(())).unwrap();
    let filters = |learner: &DictionaryLearner| -> Vec<Vec<f32>> {
        learner.model().unwrap().filters().into_iter().map(host).collect()
    };
    let before = filters(&learner);
    assert!(learner.step_while(&*train, |_| false).unwrap().is_none());
    assert_eq!((learner.steps_done(), filters(&learner)), (0, before));
    let folder = tempfile::tempdir().unwrap();
    let train_to_the_end = |name: &str, after: usize| -> (Outcome, Vec<u8>) {
        let (folder, stopped) = (folder.path().join(name), Cell::new(false));
        let mut stop = Stop { after, seen: 0, stopped: &stopped };
        let mut run = Run::create(&folder, &config, &data, device, &mut stop).unwrap();
        let outcome = run.train(&data, &|| stopped.get(), &mut stop).unwrap();
        if outcome == Outcome::Interrupted {
            assert_eq!(run.state().steps_done(), after);
            let (mut again, never) = (Run::resume(&folder, &config, &data, device).unwrap(), Cell::new(false));
            let mut observer = Stop { after: usize::MAX, seen: 0, stopped: &never };
            assert_eq!(again.train(&data, &|| false, &mut observer).unwrap(), Outcome::Finished);
        }
        (outcome, std::fs::read(folder.join("model.safetensors")).unwrap())
    };
    let (outcome, whole) = train_to_the_end("whole", usize::MAX);
    assert_eq!(outcome, Outcome::Finished);
    let (outcome, resumed) = train_to_the_end("resumed", 2);
    assert_eq!(outcome, Outcome::Interrupted);
    assert!(whole == resumed);
}

/// Feature maps from the outside: trained, shown and coded.
#[test]
fn the_program_takes_feature_maps() {
    let (program, device) = (Program::new(), &devices().remove(0).device);
    let case = Case::random(SignalShape::new(6, 4, 4), vec![LayerShape::new(12, 1, 1)], 51);
    let maps = planted(&case, 60, device);
    write_npy(&program.path("maps.npy"), &[60, 6, 4, 4], &maps.values).unwrap();
    let config = json!({
        "model": { "signal": { "channels": 6, "height": 4, "width": 4 }, "layers": [{ "atoms": 12, "kernel": 1 }] },
        "learning": { "epochs": 2, "lambda": 0.1, "batch_size": 160 },
    });
    std::fs::write(program.path("maps.json"), config.to_string()).unwrap();
    let output = program.run("train --config maps.json --data maps.npy --out run --json");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trained: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Ten maps of 16 positions a step: six steps for the 54 maps to learn from.
    let steps = common::metrics(&program.path("run")).into_iter().filter(|line| line["kind"] == "step").count();
    assert_eq!((trained["train"]["signals"].as_u64(), steps), (Some(54), 12));
    let shown = program.json("inspect --model run/model.safetensors");
    assert_eq!(shown["windows"], json!({ "count": 16, "signal": "6x1x1" }));
    assert!(program.works("inspect --model run/model.safetensors").contains("share no sample"));
    for pursuit in ["bp --lambda 0.1", "ml-bp --lambda 0.1", "omp --nonzeros 20"] {
        let coded = program.json(&format!(
            "encode --model run/model.safetensors --data maps.npy --split all --out codes.safetensors --pursuit {pursuit}"
        ));
        assert_eq!(coded["signals"], 60, "{pursuit}: {coded}");
    }
}
