//! What every pursuit may be told: masks, weights, codes to start from, fixed numbers of iterations; and what it refuses.

use crate::common;

use burn::tensor::{Device, Tensor};
use common::explicit::{Lasso, Matrix};
use common::{Case, WAYS, assert_close, host, norm, on_every_device, on_random_models, rng, tensor, wide};
use mlcsc::Error;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::{Operator, OperatorForm};
use mlcsc::pursuit::{
    Acceleration, Algorithm, BasisPursuitConfig, ConvexProjectionConfig, GreedyProjectionConfig, HolisticPursuitConfig,
    Lambda, LayeredBasisPursuitConfig, LayeredThresholding, MultiLayerProximalGradientConfig,
    MultiLayerSplittingConfig, OrthogonalMatchingPursuitConfig, Problem, ProximalGradientConfig, Pursuit,
    PursuitConfig, StopReason, Threshold, Unrolled,
};
use rand::RngExt;

/// Two layers, rectangular: 160 code values for 110 signal values.
fn case() -> Case {
    let layers = vec![LayerShape::new(5, Pair([3, 4]), Pair([2, 1])), LayerShape::new(8, Pair([2, 3]), 1)];
    Case::random(SignalShape::new(1, 11, 10), layers, 3)
}

fn operator(case: &Case, way: OperatorForm, device: &Device) -> Operator {
    case.model(device).operator(case.config.signal, way).unwrap()
}

fn signals(case: &Case, count: usize, device: &Device) -> Tensor<4> {
    tensor(&case.signals(count), case.config.signal.batched(count), device)
}

fn basis(gap: f32) -> BasisPursuitConfig {
    BasisPursuitConfig { gap, max_iterations: 5000, ..Default::default() }
}

/// A mask that keeps about three quarters of the samples.
fn random_mask(len: usize, seed: u64) -> Vec<f32> {
    let mut generator = rng(seed);
    (0..len).map(|_| f32::from(u8::from(generator.random_range(0..4) > 0))).collect()
}

/// The rows of a matrix that a mask keeps.
fn rows_kept(matrix: &Matrix, mask: &[f32]) -> Matrix {
    let keep = |column: &Vec<f64>| kept(column, mask);
    let columns: Vec<Vec<f64>> = matrix.columns.iter().map(keep).collect();
    Matrix { rows: columns[0].len(), columns }
}

fn kept(values: &[f64], mask: &[f32]) -> Vec<f64> {
    values.iter().zip(mask).filter(|(_, mask)| **mask == 1.0).map(|(value, _)| *value).collect()
}

/// Orthogonal matching pursuit by its definition, in `f64`: normal equations by Gauss elimination at every step.
fn plain_matching(matrix: &Matrix, signal: &[f64], nonzeros: usize) -> Vec<f64> {
    let mut support: Vec<usize> = Vec::new();
    let mut code = vec![0.0; matrix.columns.len()];
    for _ in 0..nonzeros {
        let made = matrix.apply(&code);
        let residual: Vec<f64> = signal.iter().zip(made).map(|(y, made)| y - made).collect();
        let score = |index: &usize| {
            let column = &matrix.columns[*index];
            (common::inner(column, &residual) / norm(column).max(1e-12)).abs()
        };
        let best = (0..code.len()).filter(|index| !support.contains(index));
        support.push(best.max_by(|a, b| score(a).total_cmp(&score(b))).unwrap());
        let size = support.len();
        let column = |i: usize| &matrix.columns[support[i]];
        let mut system: Vec<Vec<f64>> = (0..size)
            .map(|i| {
                (0..size)
                    .map(|j| common::inner(column(i), column(j)))
                    .chain([common::inner(column(i), signal)])
                    .collect()
            })
            .collect();
        for i in 0..size {
            let (above, below) = system.split_at_mut(i + 1);
            for row in below {
                let factor = row[i] / above[i][i];
                row.iter_mut().zip(&above[i]).for_each(|(entry, pivot)| *entry -= factor * pivot);
            }
        }
        for i in (0..size).rev() {
            let known: f64 = (i + 1..size).map(|j| system[i][j] * code[support[j]]).sum();
            code[support[i]] = (system[i][size] - known) / system[i][i];
        }
    }
    code
}

#[test]
fn a_masked_problem_is_the_problem_without_those_rows() {
    on_every_device(|device| {
        let case = case();
        let matrix = case.explicit().matrix();
        let (count, len) = (3, matrix.rows);
        let values = case.signals(count);
        let separate = random_mask(count * len, 1);
        let shared = random_mask(len, 2);
        for way in [OperatorForm::Cascade, OperatorForm::Filters, OperatorForm::Gram] {
            if way != OperatorForm::Gram && device.skips_part(way) {
                continue;
            }
            let operator = operator(&case, way, &device.device);
            for (mask, is_shared) in [(&separate, false), (&shared, true)] {
                let mask_of = |row: usize| if is_shared { &mask[..] } else { &mask[row * len..][..len] };
                // Missing samples may hold anything.
                let holes: Vec<f32> = (0..count * len)
                    .map(|index| if mask_of(index / len)[index % len] == 0.0 { f32::NAN } else { values[index] })
                    .collect();
                let mask_tensor =
                    tensor(mask, case.config.signal.batched(if is_shared { 1 } else { count }), &device.device);
                let asked = Problem::new(&operator, tensor(&holes, case.config.signal.batched(count), &device.device))
                    .unwrap()
                    .with_lambda(Lambda::Relative(0.1))
                    .unwrap()
                    .with_mask(mask_tensor)
                    .unwrap();
                let mut pursuits: Vec<Box<dyn Pursuit>> = vec![
                    Algorithm::Fista.init(&basis(1e-5), &operator).unwrap(),
                    Box::new(MultiLayerSplittingConfig { basis: basis(2e-5), ..Default::default() }.init().unwrap()),
                    Box::new(
                        ConvexProjectionConfig { basis: basis(1e-5), ..ConvexProjectionConfig::new(vec![1000, 1000]) }
                            .init()
                            .unwrap(),
                    ),
                ];
                pursuits.push(Algorithm::ResidualDescent.init(&basis(1e-5), &operator).unwrap());
                if is_shared {
                    pursuits.push(Algorithm::CoordinateDescent.init(&basis(1e-5), &operator).unwrap());
                }
                for pursuit in pursuits {
                    let pursued = pursuit.solve(&asked).unwrap();
                    let codes = host(pursued.codes);
                    for (row, report) in pursued.reports.iter().enumerate() {
                        let reduced = rows_kept(&matrix, mask_of(row));
                        let signal = kept(&wide(&values[row * len..][..len]), mask_of(row));
                        let lambda =
                            reduced.apply_transposed(&signal).into_iter().fold(0.0f64, |m, c| m.max(c.abs())) * 0.1;
                        let what = format!("{} by {way}, shared {is_shared}, signal {row}: {report:?}", pursuit.name());
                        assert!((f64::from(report.lambda) - lambda).abs() <= 1e-5 * lambda, "{what}: λ {lambda}");
                        let lasso = Lasso { dictionary: &reduced, signal: &signal, lambda, nonnegative: false };
                        let optimum = lasso.objective(&lasso.solve());
                        let found = lasso.objective(&wide(&codes[row * 160..][..160]));
                        assert!((found - optimum).abs() <= 3e-5 * optimum, "{what}: {found} of {optimum}");
                        assert!((f64::from(report.objective) - found).abs() <= 5e-6 * found, "{what}: {found}");
                    }
                }
                let nonzeros = 12;
                let matching = OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap().solve(&asked).unwrap();
                for (row, code) in host(matching.codes).chunks_exact(160).enumerate() {
                    let signal = kept(&wide(&values[row * len..][..len]), mask_of(row));
                    let expected = plain_matching(&rows_kept(&matrix, mask_of(row)), &signal, nonzeros);
                    for (found, expected) in code.iter().zip(&expected) {
                        assert!((f64::from(*found) - expected).abs() <= 1e-4, "OMP signal {row}: {found} {expected}");
                    }
                }
            }
        }
    });
}

/// The first layer alone sees the mask in layered pursuits; multi-layer gradients agree with the exact solver.
#[test]
fn masks_reach_multi_layer_and_layered_pursuits() {
    on_every_device(|device| {
        let case = case();
        let operator = operator(&case, OperatorForm::Auto, &device.device);
        let mask = random_mask(110, 7);
        let values = case.signals(2);
        let zeroed: Vec<f32> = values.iter().zip(mask.iter().cycle()).map(|(value, mask)| value * mask).collect();
        let ask = |values: &[f32]| {
            Problem::new(&operator, tensor(values, case.config.signal.batched(2), &device.device))
                .unwrap()
                .with_lambda(Lambda::Relative(0.1))
                .unwrap()
                .with_shallower_lambda(vec![Lambda::Relative(0.02)])
                .unwrap()
                .with_mask(tensor(&mask, case.config.signal.batched(1), &device.device))
                .unwrap()
        };
        let exact = MultiLayerSplittingConfig { basis: basis(2e-5), ..Default::default() }.init().unwrap();
        let gradient = MultiLayerProximalGradientConfig {
            step: 0.05,
            tolerance: 1e-4,
            basis: basis(1e-5),
            ..MultiLayerProximalGradientConfig::new(Acceleration::Fista)
        };
        let gradient = gradient.init().unwrap();
        let (exact, near) = (exact.solve(&ask(&values)).unwrap(), gradient.solve(&ask(&values)).unwrap());
        for (exact, near) in exact.reports.iter().zip(&near.reports) {
            assert_eq!(exact.stop, StopReason::DualityGap, "{exact:?}");
            assert!(near.objective >= exact.objective * (1.0 - 3e-5), "{exact:?} {near:?}");
            assert!(near.objective <= exact.objective * 1.002, "{exact:?} {near:?}");
        }
        let layered = LayeredBasisPursuitConfig { basis: basis(1e-4), ..Default::default() }.init().unwrap();
        let thresholding = LayeredThresholding::new(Threshold::Soft);
        for pursuit in [&layered as &dyn Pursuit, &thresholding] {
            let (a, b) = (pursuit.solve(&ask(&values)).unwrap(), pursuit.solve(&ask(&zeroed)).unwrap());
            assert_eq!(host(a.codes), host(b.codes), "{}", pursuit.name());
        }
        // The first layer's problem is that without the rows.
        let first = rows_kept(&case.explicit().layers[0].matrix(), &mask);
        let found = wide(&host(layered.solve(&ask(&values)).unwrap().shallower[0].clone()));
        for row in 0..2 {
            let signal = kept(&wide(&values[row * 110..][..110]), &mask);
            let lambda =
                first.apply_transposed(&signal).into_iter().fold(0.0f64, |m, c| m.max(c.abs())) * f64::from(0.02f32);
            let lasso = Lasso { dictionary: &first, signal: &signal, lambda, nonnegative: false };
            let len = first.columns.len();
            let (found, optimum) = (lasso.objective(&found[row * len..][..len]), lasso.objective(&lasso.solve()));
            assert!((found - optimum).abs() <= 2e-4 * optimum, "{found} of {optimum}");
        }
    });
}

#[test]
fn weighted_norms_are_norms_over_scaled_atoms() {
    on_every_device(|device| {
        let case = case();
        let matrix = case.explicit().matrix();
        let values = case.signals(2);
        let weights: Vec<f32> = (0..8).map(|atom| 0.4 + 0.3 * atom as f32).collect();
        let operator = operator(&case, OperatorForm::Gram, &device.device);
        let scaled = Matrix {
            rows: matrix.rows,
            columns: matrix
                .columns
                .iter()
                .enumerate()
                .map(|(place, column)| column.iter().map(|entry| entry / f64::from(weights[place / 20])).collect())
                .collect(),
        };
        for nonnegative in [false, true] {
            let basis = BasisPursuitConfig { nonnegative, ..basis(1e-5) };
            let asked = Problem::new(&operator, signals(&case, 2, &device.device))
                .unwrap()
                .with_lambda(Lambda::Relative(0.15))
                .unwrap()
                .with_weights(2, weights.clone())
                .unwrap();
            let pursuits: Vec<Box<dyn Pursuit>> = vec![
                Algorithm::Ista.init(&basis, &operator).unwrap(),
                Algorithm::Fista.init(&basis, &operator).unwrap(),
                Algorithm::CoordinateDescent.init(&basis, &operator).unwrap(),
                Algorithm::ResidualDescent.init(&basis, &operator).unwrap(),
                Box::new(
                    MultiLayerSplittingConfig {
                        basis: BasisPursuitConfig { gap: 2e-5, ..basis },
                        ..Default::default()
                    }
                    .init()
                    .unwrap(),
                ),
            ];
            for pursuit in pursuits {
                let pursued = pursuit.solve(&asked).unwrap();
                let codes = wide(&host(pursued.codes));
                for (row, report) in pursued.reports.iter().enumerate() {
                    let what = format!("{} {report:?}", pursuit.name());
                    let signal = wide(&values[row * matrix.rows..][..matrix.rows]);
                    let size = |c: f64| if nonnegative { c } else { c.abs() };
                    let largest = scaled.apply_transposed(&signal).into_iter().fold(0.0f64, |m, c| m.max(size(c)));
                    let lasso = Lasso { dictionary: &scaled, signal: &signal, lambda: 0.15 * largest, nonnegative };
                    let code: Vec<f64> = codes[row * 160..][..160]
                        .iter()
                        .enumerate()
                        .map(|(place, value)| value * f64::from(weights[place / 20]))
                        .collect();
                    let (found, optimum) = (lasso.objective(&code), lasso.objective(&lasso.solve()));
                    assert!((found - optimum).abs() <= 3e-5 * optimum, "{what}: {found} of {optimum}");
                    assert!((f64::from(report.objective) - found).abs() <= 5e-6 * found, "{what}: {found}");
                    assert_eq!(report.stop, StopReason::DualityGap, "{what}");
                }
            }
        }
    });
}

#[test]
fn a_solution_is_where_a_warm_start_ends() {
    on_every_device(|device| {
        let case = case();
        let operator = operator(&case, OperatorForm::Gram, &device.device);
        let asked = Problem::new(&operator, signals(&case, 3, &device.device))
            .unwrap()
            .with_lambda(Lambda::Relative(0.1))
            .unwrap();
        let config = |gap| MultiLayerSplittingConfig { basis: basis(gap), ..Default::default() };
        let pursuits: Vec<[Box<dyn Pursuit>; 2]> = vec![
            [1e-5, 1e-4].map(|gap| Algorithm::Fista.init(&basis(gap), &operator).unwrap()),
            [1e-5, 1e-4].map(|gap| Algorithm::CoordinateDescent.init(&basis(gap), &operator).unwrap()),
            [1e-5, 1e-4].map(|gap| Algorithm::ResidualDescent.init(&basis(gap), &operator).unwrap()),
            // Its multipliers start from nothing, but those of the deepest layer the certificate does not need.
            [2e-5, 2e-4].map(|gap| Box::new(config(gap).init().unwrap()) as Box<dyn Pursuit>),
        ];
        for [cold, warm] in pursuits {
            let solution = cold.solve(&asked).unwrap();
            let again = warm.solve(&asked.clone().with_start(solution.codes.clone()).unwrap()).unwrap();
            assert_eq!(host(solution.codes), host(again.codes), "{}", warm.name());
            for report in again.reports {
                assert_eq!((report.iterations, report.stop), (0, StopReason::DualityGap), "{}", warm.name());
            }
        }
    });
}

#[test]
fn unrolled_pursuits_make_the_same_iterates() {
    on_every_device(|device| {
        let case = case();
        let operator = operator(&case, OperatorForm::Auto, &device.device);
        let mask = tensor(&random_mask(110, 3), case.config.signal.batched(1), &device.device);
        let asked = Problem::new(&operator, signals(&case, 3, &device.device))
            .unwrap()
            .with_lambda(Lambda::Relative(0.1))
            .unwrap();
        let masked = asked.clone().with_mask(mask).unwrap().with_weights(2, vec![0.7; 8]).unwrap();
        let shallower = masked.clone().with_shallower_lambda(vec![Lambda::Absolute(0.05)]).unwrap();
        // Neither a gap nor a fixed point is reached before the iterations are used up.
        for iterations in [0, 1, 7, 23] {
            let basis = BasisPursuitConfig { max_iterations: iterations.max(1), ..basis(1e-30) };
            type Pair<'a> = (Box<dyn Pursuit>, Box<dyn Unrolled>, Vec<&'a Problem<'a>>);
            let mut pairs: Vec<Pair> = Vec::new();
            for acceleration in [Acceleration::Ista, Acceleration::Fista] {
                let config =
                    ProximalGradientConfig { basis: basis.clone(), ..ProximalGradientConfig::new(acceleration) };
                let pursuit = config.init().unwrap();
                pairs.push((Box::new(pursuit.clone()), Box::new(pursuit), vec![&asked, &masked]));
                let config = MultiLayerProximalGradientConfig {
                    basis: basis.clone(),
                    tolerance: 0.0,
                    step: 0.5,
                    ..MultiLayerProximalGradientConfig::new(acceleration)
                };
                let pursuit = config.init().unwrap();
                pairs.push((Box::new(pursuit.clone()), Box::new(pursuit), vec![&asked, &masked, &shallower]));
            }
            let config = LayeredBasisPursuitConfig { algorithm: Algorithm::Fista, basis };
            let pursuit = config.init().unwrap();
            pairs.push((Box::new(pursuit.clone()), Box::new(pursuit), vec![&asked, &masked, &shallower]));
            for (stopping, unrolled, problems) in pairs {
                for problem in problems {
                    let codes = host(unrolled.unrolled(problem, iterations).unwrap());
                    if iterations == 0 {
                        assert!(codes.iter().all(|value| *value == 0.0), "{}", unrolled.name());
                        continue;
                    }
                    let pursued = stopping.solve(problem).unwrap();
                    assert_eq!(pursued.reports[0].stop, StopReason::MaxIterations);
                    assert_eq!(codes, host(pursued.codes), "{} {iterations}", stopping.name());
                }
            }
        }
    });
}

#[test]
fn wrong_use_names_the_parameter_and_its_range() {
    on_every_device(|device| {
        let case = case();
        let operator = operator(&case, OperatorForm::Gram, &device.device);
        let asked = Problem::new(&operator, signals(&case, 2, &device.device)).unwrap();
        let with_lambda = asked.clone().with_lambda(Lambda::Absolute(0.1)).unwrap();
        let names = |error: Error, words: &[&str]| {
            let message = error.to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}: {words:?}");
            assert!(message.contains("expected") && !message.contains('\n'), "{message}");
        };
        let ones = |dims: [usize; 4]| Tensor::<4>::ones(dims, &device.device);
        names(Problem::new(&operator, ones([2, 1, 10, 11])).unwrap_err(), &["signals", "1x11x10", "1x10x11"]);
        names(asked.clone().with_mask(ones([2, 1, 10, 11])).unwrap_err(), &["mask", "[2, 1, 11, 10]"]);
        names(asked.clone().with_mask(ones([2, 1, 11, 10]) * 0.5).unwrap_err(), &["mask", "0.5", "0 (missing) or 1"]);
        names(asked.clone().with_start(ones([2, 8, 4, 4])).unwrap_err(), &["start", "[2, 8, 4, 5]", "[2, 8, 4, 4]"]);
        names(asked.clone().with_weights(0, vec![]).unwrap_err(), &["layer", "1 to 2"]);
        names(asked.clone().with_weights(2, vec![1.0; 7]).unwrap_err(), &["weights of layer 2", "8", "7"]);
        for weight in [-1.0, 0.0, f32::NAN, f32::INFINITY] {
            let mut weights = vec![1.0; 8];
            weights[3] = weight;
            names(asked.clone().with_weights(2, weights).unwrap_err(), &["weight of layer 2", "> 0"]);
        }
        names(asked.clone().with_shallower_lambda(vec![]).unwrap_err(), &["lambda of the shallower layers", "1"]);
        names(asked.clone().with_shallower_lambda(vec![Lambda::Absolute(-1.0)]).unwrap_err(), &["lambda", "≥ 0"]);
        names(asked.clone().with_lambda(Lambda::PerSignal(vec![0.1; 3])).unwrap_err(), &["lambda per signal", "2"]);

        let multi = MultiLayerSplittingConfig::default().init().unwrap();
        let descent = Algorithm::CoordinateDescent.init(&basis(1e-3), &operator).unwrap();
        let fista = Algorithm::Fista.init(&basis(1e-3), &operator).unwrap();
        let matching = OrthogonalMatchingPursuitConfig::new(3).init().unwrap();
        for pursuit in [&multi as &dyn Pursuit, &*descent, &*fista, &LayeredThresholding::new(Threshold::Soft)] {
            names(pursuit.solve(&asked).unwrap_err(), &["lambda", "missing"]);
        }
        let shallower = with_lambda.clone().with_shallower_lambda(vec![Lambda::Absolute(0.1)]).unwrap();
        let residual = Algorithm::ResidualDescent.init(&basis(1e-3), &operator).unwrap();
        for pursuit in [&*descent, &*residual, &*fista, &matching] {
            names(pursuit.solve(&shallower).unwrap_err(), &["lambda of the shallower layers", pursuit.name()]);
        }
        for value in [f32::NAN, f32::INFINITY, 1e30] {
            let start = Tensor::full([2, 8, 4, 5], value, &device.device);
            let started = with_lambda.clone().with_start(start).unwrap();
            for pursuit in [&*descent, &*fista] {
                names(pursuit.solve(&started).unwrap_err(), &["codes to start from"]);
            }
        }
        let started = with_lambda.clone().with_start(ones([2, 8, 4, 5])).unwrap();
        names(matching.solve(&started).unwrap_err(), &["start", "none"]);
        names(LayeredThresholding::new(Threshold::Hard).solve(&started).unwrap_err(), &["start", "none"]);
        let separate = with_lambda.clone().with_mask(ones([2, 1, 11, 10])).unwrap();
        names(descent.solve(&separate).unwrap_err(), &["mask", "one for all signals"]);

        for nonzeros in [111, 1000] {
            let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap();
            names(pursuit.solve(&asked).unwrap_err(), &["nonzeros", "1 to 110"]);
        }
        names(OrthogonalMatchingPursuitConfig::new(0).init().unwrap_err(), &["nonzeros", "at least 1"]);
        for residual in [-0.1, f32::NAN, f32::INFINITY] {
            let config = OrthogonalMatchingPursuitConfig { residual, ..OrthogonalMatchingPursuitConfig::new(3) };
            names(config.init().unwrap_err(), &["residual", "≥ 0"]);
            let config = GreedyProjectionConfig { residual, ..GreedyProjectionConfig::new(vec![3, 3]) };
            names(config.init().unwrap_err(), &["residual", "≥ 0"]);
        }
        names(GreedyProjectionConfig::new(vec![3, 0]).init().unwrap_err(), &["limit of layer 2", "at least 1"]);
        let short = GreedyProjectionConfig::new(vec![3]).init().unwrap();
        names(short.solve(&asked).unwrap_err(), &["limits", "2", "1"]);
        let short = ConvexProjectionConfig::new(vec![3, 3, 3]).init().unwrap();
        names(short.solve(&with_lambda).unwrap_err(), &["limits", "2", "3"]);
        for growth in [1.0, 0.0, f32::NAN] {
            let config = ConvexProjectionConfig { growth, ..ConvexProjectionConfig::new(vec![3, 3]) };
            names(config.init().unwrap_err(), &["growth", "> 1"]);
        }
        for step in [0.0, 1.5, f32::NAN] {
            let config =
                MultiLayerProximalGradientConfig { step, ..MultiLayerProximalGradientConfig::new(Acceleration::Ista) };
            names(config.init().unwrap_err(), &["step", "(0, 1]"]);
        }
        let config = MultiLayerProximalGradientConfig {
            tolerance: -1.0,
            ..MultiLayerProximalGradientConfig::new(Acceleration::Ista)
        };
        names(config.init().unwrap_err(), &["tolerance", "≥ 0"]);
        let config = MultiLayerSplittingConfig { inner: 0, ..Default::default() };
        names(config.init().unwrap_err(), &["inner", "at least 1"]);
        for (nonzeros, words) in [(vec![], ["nonzeros", "1"]), (vec![0], ["nonzeros of layer 1", "1 to 175"])] {
            let pursuit = HolisticPursuitConfig::new(nonzeros).init().unwrap();
            names(pursuit.solve(&with_lambda).unwrap_err(), &words);
        }
        let config = HolisticPursuitConfig { rounds: 0, ..HolisticPursuitConfig::new(vec![5]) };
        names(config.init().unwrap_err(), &["rounds", "at least 1"]);
        let single = Case::random(SignalShape::new(1, 5, 5), vec![LayerShape::new(3, 3, 1)], 1);
        let single_operator = self::operator(&single, OperatorForm::Auto, &device.device);
        let one_layer =
            Problem::new(&single_operator, ones([1, 1, 5, 5])).unwrap().with_lambda(Lambda::Absolute(0.1)).unwrap();
        let pursuit = HolisticPursuitConfig::new(vec![]).init().unwrap();
        names(pursuit.solve(&one_layer).unwrap_err(), &["number of layers", "at least 2"]);
    });
}

/// Atoms in their places and their energies, whatever the way, strides and paddings.
#[test]
fn columns_are_those_of_the_matrix() {
    on_random_models(24, 17, |case, device| {
        let matrix = case.explicit().matrix();
        let mask = random_mask(2 * matrix.rows, case.seed);
        for way in WAYS.into_iter().filter(|&way| way != OperatorForm::Filters || !case.has_inner_padding()) {
            let operator = operator(case, way, &device.device);
            let places: Vec<usize> = (0..matrix.columns.len()).rev().step_by(2).collect();
            let found = host(operator.columns(&places));
            let largest = matrix.columns.iter().flatten().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
            for (found, &place) in found.chunks_exact(matrix.rows).zip(&places) {
                let scale = vec![largest; matrix.rows];
                assert_close(found, &matrix.columns[place], &scale, 1e-6, &format!("column {place} by {way}"));
            }
            let masked = operator.atom_energies(Some(tensor(&mask, [2, matrix.rows], &device.device)));
            let whole = host(operator.atom_energies(None));
            let masked = host(masked);
            for (place, column) in matrix.columns.iter().enumerate() {
                let energy = common::inner(column, column);
                let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() <= 1e-5 * energy.max(1e-9);
                assert!(close(whole[place], energy), "{way}: {} {energy}", whole[place]);
                for row in 0..2 {
                    let part = kept(column, &mask[row * matrix.rows..][..matrix.rows]);
                    let found = masked[row * matrix.columns.len() + place];
                    assert!(close(found, common::inner(&part, &part)), "{way}: {found}");
                }
            }
        }
    });
}

/// Whatever the pursuit, its report says of its codes what plain loops say.
#[test]
fn reports_are_comparable() {
    on_every_device(|device| {
        let case = case();
        let explicit = case.explicit();
        let values = case.signals(2);
        let operator = operator(&case, OperatorForm::Auto, &device.device);
        let asked = Problem::new(&operator, signals(&case, 2, &device.device))
            .unwrap()
            .with_lambda(Lambda::Relative(0.2))
            .unwrap();
        for config in PursuitConfig::all(&operator, 12) {
            let pursuit = config.init().unwrap();
            let pursued = pursuit.solve(&asked).unwrap();
            let shapes: Vec<[usize; 4]> = pursued.representations(&operator).iter().map(Tensor::dims).collect();
            assert_eq!(shapes, [[2, 5, 5, 7], [2, 8, 4, 5]], "{}", pursuit.name());
            for (row, (code, report)) in host(pursued.codes).chunks_exact(160).zip(&pursued.reports).enumerate() {
                let what = format!("{} {report:?}", pursuit.name());
                let made = explicit.synthesize(&wide(code));
                let left: Vec<f64> = made.iter().zip(&values[row * 110..]).map(|(x, y)| f64::from(*y) - x).collect();
                let data_term = 0.5 * common::inner(&left, &left);
                assert!((f64::from(report.data_term) - data_term).abs() <= 1e-5 * data_term, "{what}: {data_term}");
                assert_eq!(report.nonzeros, code.iter().filter(|value| **value != 0.0).count(), "{what}");
                assert!(report.nonzeros > 0 && report.objective >= 0.0, "{what}");
                assert!((0.0..=1.0).contains(&report.relative_gap), "{what}");
            }
        }
    });
}

/// No signals, signals of zeros, dictionaries of zeros: nothing breaks and nothing is found.
#[test]
fn nothing_in_nothing_out() {
    on_every_device(|device| {
        let mut silent = case();
        silent.filters[0].fill(0.0);
        for (case, count) in [(case(), 0), (case(), 2), (silent, 2)] {
            for way in [OperatorForm::Cascade, OperatorForm::Gram] {
                let operator = operator(&case, way, &device.device);
                let values = if case.filters[0][0] == 0.0 { case.signals(count) } else { vec![0.0; 110 * count] };
                let asked = Problem::new(&operator, tensor(&values, case.config.signal.batched(count), &device.device))
                    .unwrap()
                    .with_lambda(Lambda::Relative(0.1))
                    .unwrap();
                let proximal = |acceleration| ProximalGradientConfig::new(acceleration).init().unwrap();
                let multi = |acceleration| MultiLayerProximalGradientConfig::new(acceleration).init().unwrap();
                let pursuits: Vec<Box<dyn Pursuit>> = vec![
                    Box::new(proximal(Acceleration::Fista)),
                    Box::new(multi(Acceleration::Ista)),
                    Box::new(multi(Acceleration::Fista)),
                    Box::new(MultiLayerSplittingConfig::default().init().unwrap()),
                    Box::new(HolisticPursuitConfig::new(vec![20]).init().unwrap()),
                    Box::new(OrthogonalMatchingPursuitConfig::new(5).init().unwrap()),
                    Box::new(GreedyProjectionConfig::new(vec![9, 9]).init().unwrap()),
                    Box::new(
                        ConvexProjectionConfig { debias: true, ..ConvexProjectionConfig::new(vec![9, 9]) }
                            .init()
                            .unwrap(),
                    ),
                    Box::new(LayeredThresholding::new(Threshold::Soft)),
                    Box::new(LayeredBasisPursuitConfig::default().init().unwrap()),
                    Algorithm::CoordinateDescent.init(&basis(1e-4), &operator).unwrap(),
                    Algorithm::ResidualDescent.init(&basis(1e-4), &operator).unwrap(),
                ];
                for pursuit in pursuits {
                    let pursued = pursuit.solve(&asked).unwrap();
                    assert_eq!(pursued.reports.len(), count, "{}", pursuit.name());
                    assert_eq!(pursued.representations(&operator).len(), 2);
                    assert!(host(pursued.codes).iter().all(|value| *value == 0.0), "{}", pursuit.name());
                    for report in pursued.reports {
                        let numbers = [report.lambda, report.objective, report.relative_gap, report.data_term];
                        assert!(numbers.iter().all(|number| number.is_finite()), "{}: {report:?}", pursuit.name());
                        assert_eq!(report.nonzeros, 0, "{}", pursuit.name());
                    }
                }
            }
        }
    });
}

/// What is not finite, or whose squares are not, is refused by every pursuit: its gap would be 0 of NaN. What a mask hides is not looked at.
#[test]
fn signals_that_are_no_numbers_are_refused() {
    let case = case();
    on_every_device(|device| {
        let operator = operator(&case, OperatorForm::Auto, &device.device);
        let good = case.signals(3);
        let mut pursuits = PursuitConfig::all(&operator, 3);
        let algorithms = [Algorithm::Ista, Algorithm::Fista, Algorithm::CoordinateDescent, Algorithm::ActiveSet];
        pursuits.extend(
            algorithms.map(|algorithm| PursuitConfig::BasisPursuit { algorithm, basis: BasisPursuitConfig::default() }),
        );
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let mut values = good.clone();
            values[case.config.signal.len() + 4] = value;
            let signals = tensor(&values, case.config.signal.batched(3), &device.device);
            for config in &pursuits {
                let pursuit = config.init().unwrap();
                let found = pursuit.pursue(&operator, signals.clone(), &Lambda::Relative(0.5));
                let message = found.err().unwrap_or_else(|| panic!("{} of {value}", pursuit.name())).to_string();
                let part = if value == 1e30 { "squares" } else { "signal 1 = " };
                assert!(message.contains(part), "{}: {message}", pursuit.name());
            }
        }
        let mut values = good;
        values[4] = f32::NAN;
        let signals = tensor(&values, case.config.signal.batched(3), &device.device);
        let mut mask = vec![1.0; case.config.signal.len()];
        mask[4] = 0.0;
        let problem = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Relative(0.5)).unwrap();
        let problem = problem.with_mask(tensor(&mask, case.config.signal.batched(1), &device.device)).unwrap();
        let found = ProximalGradientConfig::new(Acceleration::Fista).init().unwrap().solve(&problem).unwrap();
        assert!(found.reports.iter().all(|report| report.objective.is_finite()));
    });
}

/// A pursuit with ℓ1 penalties is homogeneous, however small signals are: squares that single precision has no place for are never
/// taken.
#[test]
fn tiny_signals_have_tiny_codes() {
    on_every_device(|device| {
        let case = case();
        let operator = operator(&case, OperatorForm::Auto, &device.device);
        let signals = signals(&case, 3, &device.device);
        let pursuits = [
            r#"{"pursuit": "basis-pursuit", "algorithm": "ista"}"#,
            r#"{"pursuit": "basis-pursuit", "algorithm": "fista"}"#,
            r#"{"pursuit": "basis-pursuit"}"#,
            r#"{"pursuit": "multi-layer-proximal-gradient", "acceleration": "fista"}"#,
            r#"{"pursuit": "multi-layer-splitting"}"#,
        ];
        for text in pursuits {
            let config: PursuitConfig = serde_json::from_str(text).unwrap();
            let pursuit = config.init().unwrap();
            for lambda in [Lambda::Relative(0.3), Lambda::Absolute(0.2), Lambda::PerSignal(vec![0.1, 0.2, 0.4])] {
                let solve = |factor: f32| {
                    let lambda = match &lambda {
                        Lambda::Relative(part) => Lambda::Relative(*part),
                        other => other.scaled(factor),
                    };
                    pursuit.pursue(&operator, signals.clone() * factor, &lambda).unwrap()
                };
                let (factor, expected) = (2.0f32.powi(-80), solve(1.0));
                let found = solve(factor);
                let (codes, scaled) = (host(found.codes), host(expected.codes));
                let largest = scaled.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                assert!(largest > 0.0, "{text}");
                for (found, expected) in codes.iter().zip(&scaled) {
                    assert!((found / factor - expected).abs() <= 1e-3 * largest, "{text}: {found} and {expected}");
                }
                // One among ordinary ones, and one of zeros.
                let mixed = Tensor::cat(
                    vec![
                        signals.clone().narrow(0, 0, 1),
                        signals.clone().narrow(0, 1, 1) * factor,
                        signals.clone().narrow(0, 2, 1) * 0.0,
                    ],
                    0,
                );
                if let Lambda::Relative(_) = lambda {
                    let rows = host(pursuit.pursue(&operator, mixed, &lambda).unwrap().codes);
                    let len = rows.len() / 3;
                    for (at, (found, expected)) in rows.iter().zip(&scaled).enumerate() {
                        let back = [*found, found / factor, found + expected][at / len];
                        assert!((back - expected).abs() <= 1e-3 * largest, "{text}: {found} and {expected}");
                    }
                }
                for (found, expected) in found.reports.iter().zip(&expected.reports) {
                    assert_eq!(found.stop, expected.stop, "{text}");
                    assert!((found.lambda / factor - expected.lambda).abs() <= 1e-5 * expected.lambda, "{text}");
                }
            }
        }
    });
}
