//! Descent on the residual where other tests' models are too small for it: several strips and tiles, channels, strides, padding,
//! long lines, masks; against coordinate descent with a table and FISTA.

use crate::common;

use burn::tensor::Tensor;
use common::explicit::Lasso;
use common::{Case, host, on_every_device, on_random_models, rng, tensor, wide};
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::OperatorForm;
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, StopReason};
use rand::RngExt;
use std::cell::Cell;

fn config(gap: f32, nonnegative: bool) -> BasisPursuitConfig {
    BasisPursuitConfig { gap, nonnegative, max_iterations: 20_000 }
}

fn solve(algorithm: Algorithm, config: &BasisPursuitConfig, problem: &Problem) -> Pursued {
    algorithm.init(config, problem.operator()).unwrap().solve(problem).unwrap()
}

/// Codes of several strips and tiles.
fn wide_cases() -> Vec<Case> {
    let cases = [
        (SignalShape::new(1, 70, 53), LayerShape::new(6, Pair([5, 4]), 1)),
        (SignalShape::new(2, 75, 90), LayerShape::new(7, Pair([6, 7]), Pair([2, 1]))),
        (SignalShape::new(1, 50, 44), LayerShape::new(5, 7, 1).with_padding(Pair([2, 6]))),
        // Lines longer than four vectors of any machine, atoms longer than a tile.
        (SignalShape::new(1, 30, 120), LayerShape::new(3, Pair([3, 70]), Pair([1, 2]))),
        (SignalShape::new(3, 64, 20), LayerShape::new(4, Pair([20, 9]), Pair([1, 3])).with_padding(Pair([5, 0]))),
    ];
    cases.into_iter().zip(11..).map(|((signal, layer), seed)| Case::random(signal, vec![layer], seed)).collect()
}

#[test]
fn agrees_with_fista_on_many_strips() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        for case in wide_cases() {
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Cascade).unwrap();
            let signals = tensor(&case.signals(2), case.config.signal.batched(2), &device.device);
            for nonnegative in [false, true] {
                let problem = Problem::new(&operator, signals.clone())
                    .unwrap()
                    .with_lambda(Lambda::PerSignal(vec![0.2, 0.4]))
                    .unwrap();
                let found = solve(Algorithm::ResidualDescent, &config(1e-5, nonnegative), &problem);
                let expected = solve(Algorithm::Fista, &config(1e-5, nonnegative), &problem);
                for (found, expected) in found.reports.iter().zip(&expected.reports) {
                    let what = format!("{} {:?}: {found:?} {expected:?}", case.config.signal, case.config.layers);
                    assert_eq!((found.stop, found.lambda), (StopReason::DualityGap, expected.lambda), "{what}");
                    assert!(found.relative_gap <= 1e-5 && found.nonzeros > 100, "{what}");
                    // Both are within their gaps of the minimum.
                    let difference = (found.objective - expected.objective).abs();
                    assert!(difference <= 2e-5 * expected.objective, "{what}");
                }
                let codes = host(found.codes);
                assert!(!nonnegative || codes.iter().all(|&value| value >= 0.0));
                // The report is about the code.
                let made = operator.synthesize(tensor(&codes, operator.code().batched(2), &device.device));
                let residual = wide(&host(signals.clone() - made));
                for (row, report) in found.reports.iter().enumerate() {
                    let energy: f64 = residual[row * operator.signal().len()..][..operator.signal().len()]
                        .iter()
                        .map(|value| value * value)
                        .sum();
                    let code = &codes[row * operator.code().len()..][..operator.code().len()];
                    let one_norm: f64 = code.iter().map(|&value| f64::from(value.abs())).sum();
                    let objective = 0.5 * energy + f64::from(report.lambda) * one_norm;
                    assert!((f64::from(report.objective) - objective).abs() <= 2e-6 * objective, "{report:?}");
                    assert_eq!(report.nonzeros, code.iter().filter(|value| **value != 0.0).count());
                }
            }
        }
    });
}

#[test]
fn random_models_reach_the_exact_minimum() {
    let tested = Cell::new(0);
    on_random_models(24, 5, |case, device| {
        // D^(L) is no convolution.
        if case.has_inner_padding() {
            return;
        }
        tested.set(tested.get() + 1);
        let matrix = case.explicit().matrix();
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        let values = case.signals(2);
        let signals = tensor(&values, case.config.signal.batched(2), &device.device);
        let mut generator = rng(case.seed);
        let mask: Vec<f32> = (0..values.len()).map(|_| f32::from(u8::from(generator.random_range(0..4) > 0))).collect();
        let atoms = operator.code().channels;
        let weights: Vec<f32> = (0..atoms).map(|atom| 0.5 + atom as f32 / atoms as f32).collect();
        for nonnegative in [false, true] {
            let plain = Problem::new(&operator, signals.clone())
                .unwrap()
                .with_lambda(Lambda::Relative(0.1))
                .unwrap()
                .with_weights(case.config.layers.len(), weights.clone())
                .unwrap();
            let masked = plain.clone().with_mask(tensor(&mask, case.config.signal.batched(2), &device.device)).unwrap();
            for (problem, is_masked) in [(plain, false), (masked, true)] {
                let pursued = solve(Algorithm::ResidualDescent, &config(1e-5, nonnegative), &problem);
                let codes = wide(&host(pursued.codes));
                for (row, report) in pursued.reports.iter().enumerate() {
                    let keep = |place: usize| !is_masked || mask[row * matrix.rows + place] == 1.0;
                    let kept = |values: &[f64]| -> Vec<f64> {
                        values.iter().enumerate().filter(|(place, _)| keep(*place)).map(|(_, value)| *value).collect()
                    };
                    let positions = operator.code().height * operator.code().width;
                    let weight = |place: usize| f64::from(weights[place / positions]);
                    let columns: Vec<Vec<f64>> = matrix
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(place, column)| kept(column).iter().map(|entry| entry / weight(place)).collect())
                        .collect();
                    let signal = kept(&wide(&values[row * matrix.rows..][..matrix.rows]));
                    let scaled = common::explicit::Matrix { rows: signal.len(), columns };
                    let lambda = f64::from(report.lambda);
                    let lasso = Lasso { dictionary: &scaled, signal: &signal, lambda, nonnegative };
                    let code: Vec<f64> = codes[row * matrix.columns.len()..][..matrix.columns.len()]
                        .iter()
                        .enumerate()
                        .map(|(place, value)| value * weight(place))
                        .collect();
                    let (found, optimum) = (lasso.objective(&code), lasso.objective(&lasso.solve()));
                    // The gap, and the rounding of filters that are products of filters.
                    assert!((found - optimum).abs() <= 2e-5 * optimum.max(1e-6), "{report:?}: {found} of {optimum}");
                    assert_eq!(report.stop, StopReason::DualityGap, "{report:?}");
                }
            }
        }
    });
    println!("{} models", tested.get());
    // Of 24, a fourth of them on slow devices.
    assert!(tested.get() >= 3, "{} models", tested.get());
}

#[test]
fn agrees_with_the_table_of_inner_products() {
    on_every_device(|device| {
        let case = Case::random(SignalShape::new(1, 40, 47), vec![LayerShape::new(6, 6, 1)], 3);
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Cascade).unwrap();
        let signals = tensor(&case.signals(3), case.config.signal.batched(3), &device.device);
        let problem = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Relative(0.3)).unwrap();
        let found = solve(Algorithm::ResidualDescent, &config(1e-6, false), &problem);
        let expected = solve(Algorithm::CoordinateDescent, &config(1e-6, false), &problem);
        for (found, expected) in found.reports.iter().zip(&expected.reports) {
            assert_eq!((found.stop, expected.stop), (StopReason::DualityGap, StopReason::DualityGap));
            assert!(
                (found.objective - expected.objective).abs() <= 3e-6 * expected.objective,
                "{found:?} {expected:?}"
            );
        }
        let difference = found.codes.sub(expected.codes).abs().max();
        assert!(host(difference)[0] <= 5e-3);
    });
}

#[test]
fn what_it_computes_does_not_depend_on_threads_or_batch() {
    on_every_device(|device| {
        let case = Case::random(SignalShape::new(2, 60, 40), vec![LayerShape::new(5, 5, 1).with_padding(1)], 9);
        let values = case.signals(3);
        let run = |threads: usize, rows: std::ops::Range<usize>| {
            let len = case.config.signal.len();
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Cascade).unwrap();
                let signals: Tensor<4> = tensor(
                    &values[rows.start * len..rows.end * len],
                    case.config.signal.batched(rows.len()),
                    &device.device,
                );
                let problem = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Relative(0.2)).unwrap();
                let pursued = solve(Algorithm::ResidualDescent, &config(1e-4, false), &problem);
                (host(pursued.codes), pursued.reports)
            })
        };
        let (codes, reports) = run(1, 0..3);
        for threads in [2, 3, 5] {
            assert!(run(threads, 0..3) == (codes.clone(), reports.clone()), "{threads} threads");
        }
        let (alone, report) = run(2, 1..2);
        assert_eq!((&codes[alone.len()..2 * alone.len()], &reports[1..2]), (&alone[..], &report[..]));
    });
}

/// Starting near the solution saves work, and what is zero in the end may have been anything.
#[test]
fn starts_from_what_it_is_given() {
    on_every_device(|device| {
        let case = Case::random(SignalShape::new(1, 50, 50), vec![LayerShape::new(6, 5, 1)], 21);
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Cascade).unwrap();
        let signals = tensor(&case.signals(1), case.config.signal.batched(1), &device.device);
        let problem = |lambda: f32| {
            Problem::new(&operator, signals.clone()).unwrap().with_lambda(Lambda::Absolute(lambda)).unwrap()
        };
        let near = solve(Algorithm::ResidualDescent, &config(1e-5, false), &problem(1.05));
        let cold = solve(Algorithm::ResidualDescent, &config(1e-5, false), &problem(1.0));
        let warm = problem(1.0).with_start(near.codes).unwrap();
        let warm = solve(Algorithm::ResidualDescent, &config(1e-5, false), &warm);
        assert!(warm.reports[0].iterations < cold.reports[0].iterations, "{:?} {:?}", warm.reports, cold.reports);
        let dense = problem(1.0).with_start(Tensor::ones(operator.code().batched(1), &device.device) * -0.3).unwrap();
        for nonnegative in [false, true] {
            let from_zero = solve(Algorithm::ResidualDescent, &config(1e-5, nonnegative), &problem(1.0));
            let found = solve(Algorithm::ResidualDescent, &config(1e-5, nonnegative), &dense);
            let (found, expected) = (&found.reports[0], &from_zero.reports[0]);
            assert!(
                (found.objective - expected.objective).abs() <= 2e-5 * expected.objective,
                "{found:?} {expected:?}"
            );
        }
    });
}
