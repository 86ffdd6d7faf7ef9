//! Greedy, layered and multi-layer pursuits against solutions by other software, in `f64`: see `reference/README.md`.

use crate::common;

use burn::tensor::Device;
use common::explicit::Lasso;
use common::reference::Reference;
use common::{WAYS, host, on_every_device, wide};
use mlcsc::model::{Operator, OperatorForm};
use mlcsc::pursuit::{
    Acceleration, BasisPursuitConfig, Lambda, LayeredBasisPursuitConfig, MultiLayerProximalGradientConfig,
    MultiLayerSplittingConfig, OrthogonalMatchingPursuitConfig, Problem, Pursuit, StopReason,
};

#[test]
fn orthogonal_matching_pursuit_equals_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let model = case.model(&device.device);
            let expected = problem.array("omp_gamma_L");
            let signals = problem.array("signals");
            for way in WAYS {
                if way != OperatorForm::Gram && device.skips_part(way) {
                    continue;
                }
                let operator = model.operator(case.config.signal, way).unwrap();
                let pursuit = OrthogonalMatchingPursuitConfig::new(problem.meta.omp_nonzeros).init().unwrap();
                let asked = Problem::new(&operator, signals.batch(&device.device)).unwrap();
                let pursued = pursuit.solve(&asked).unwrap();
                let found = wide(&host(pursued.codes));
                for (index, report) in pursued.reports.iter().enumerate() {
                    let what = format!("{} by {way}, signal {index}", problem.name);
                    let expected = expected.row(index);
                    let found = &found[index * expected.len()..][..expected.len()];
                    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                        assert_eq!(*found != 0.0, *expected != 0.0, "{what}: support at {place}");
                        assert!((found - expected).abs() <= 1e-4, "{what}[{place}]: {found}, expected {expected}");
                    }
                    assert_eq!(report.nonzeros, problem.meta.omp_nonzeros, "{what}");
                    assert_eq!(report.stop, StopReason::Nonzeros, "{what}");
                }
            }
        }
    });
}

#[test]
fn layered_basis_pursuit_equals_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let depth = problem.meta.layers.len();
            let explicit = case.explicit();
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let mut lambda: Vec<Lambda> = (1..=depth)
                .map(|layer| Lambda::PerSignal(problem.array(&format!("layered_bp_lambda_{layer}")).narrow()))
                .collect();
            let deepest = lambda.pop().unwrap();
            let asked = Problem::new(&operator, problem.array("signals").batch(&device.device))
                .unwrap()
                .with_lambda(deepest)
                .unwrap()
                .with_shallower_lambda(lambda)
                .unwrap();
            let basis = BasisPursuitConfig { gap: 1e-6, max_iterations: 3000, ..Default::default() };
            let pursuit = LayeredBasisPursuitConfig { basis, ..Default::default() }.init().unwrap();
            let pursued = pursuit.solve(&asked).unwrap();
            let estimates = pursued.representations(&operator);
            assert_eq!(estimates.len(), depth);
            let mut below = problem.array("signals");
            let mut sums = vec![0.0; problem.meta.signals];
            for (index, estimate) in estimates.into_iter().enumerate() {
                let solution = problem.array(&format!("layered_bp_gamma_{}", index + 1));
                let lambda = problem.array(&format!("layered_bp_lambda_{}", index + 1));
                let dictionary = explicit.layers[index].matrix();
                let found = wide(&host(estimate));
                for row in 0..problem.meta.signals {
                    let what = format!("{} layer {} signal {row}", problem.name, index + 1);
                    let lasso = Lasso {
                        dictionary: &dictionary,
                        signal: below.row(row),
                        lambda: lambda.values[row],
                        nonnegative: false,
                    };
                    let len = solution.row(row).len();
                    let (found, optimum) =
                        (lasso.objective(&found[row * len..][..len]), lasso.objective(solution.row(row)));
                    assert!((found - optimum).abs() <= 1e-5 * optimum, "{what}: {found} of {optimum}");
                    sums[row] += optimum;
                }
                below = solution;
            }
            for (report, sum) in pursued.reports.iter().zip(sums) {
                assert!((f64::from(report.objective) - sum).abs() <= 1e-5 * sum, "{}: {report:?} {sum}", problem.name);
            }
        }
    });
}

/// The reference's multi-layer problem: a quarter of λ on every shallower layer.
fn multi_layer<'a>(problem: &Reference, operator: &'a Operator, device: &Device) -> Problem<'a> {
    let lambda = problem.lambda();
    let quarter = Lambda::PerSignal(lambda.iter().map(|lambda| 0.25 * lambda).collect());
    Problem::new(operator, problem.array("signals").batch(device))
        .unwrap()
        .with_lambda(Lambda::PerSignal(lambda))
        .unwrap()
        .with_shallower_lambda(vec![quarter; problem.meta.layers.len() - 1])
        .unwrap()
}

/// ½‖y − D^(L)γ_L‖² + λ‖γ_L‖₁ + ¼λ Σ_{i<L} ‖γ_i‖₁ by plain loops.
fn multi_layer_objective(problem: &Reference, code: &[f64], row: usize) -> f64 {
    let explicit = problem.case().explicit();
    let signals = problem.array("signals");
    let (lambda, one_norm) =
        (problem.array("lambda").values[row], |code: &[f64]| code.iter().map(|value| value.abs()).sum::<f64>());
    let representations = explicit.propagate(code);
    let depth = representations.len();
    let penalty: f64 = representations
        .iter()
        .enumerate()
        .map(|(index, gamma)| if index + 1 == depth { lambda } else { 0.25 * lambda } * one_norm(gamma))
        .sum();
    let made = explicit.synthesize(code);
    0.5 * made.iter().zip(signals.row(row)).map(|(made, signal)| (made - signal).powi(2)).sum::<f64>() + penalty
}

#[test]
fn exact_multi_layer_basis_pursuit_equals_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let asked = multi_layer(&problem, &operator, &device.device);
            let basis = BasisPursuitConfig { gap: 2e-5, max_iterations: 3000, ..Default::default() };
            let pursuit = MultiLayerSplittingConfig { basis, ..Default::default() }.init().unwrap();
            let pursued = pursuit.solve(&asked).unwrap();
            let optima = problem.array("mlbp_objective");
            let len = operator.code().len();
            let codes = wide(&host(pursued.codes));
            for (row, report) in pursued.reports.iter().enumerate() {
                let what = format!("{} signal {row}", problem.name);
                let found = multi_layer_objective(&problem, &codes[row * len..][..len], row);
                let optimum = optima.values[row];
                assert!((found - optimum).abs() <= 1e-5 * optimum, "{what}: {found} of {optimum}");
                assert!((f64::from(report.objective) - found).abs() <= 2e-6 * found, "{what}: {report:?} {found}");
                // The gap bounds what is left, rounding aside.
                assert!(found - optimum <= (f64::from(report.relative_gap) + 2e-6) * found, "{what}: {report:?}");
                assert_eq!(report.stop, StopReason::DualityGap, "{what}: {report:?}");
            }
        }
    });
}

/// The fixed point of ML-ISTA lies above the minimum by what shrinks with the step.
#[test]
fn fixed_points_of_multi_layer_gradients_approach_the_minimum() {
    on_every_device(|device| {
        for name in ["three_layer", "stride_two"] {
            let problem = Reference::load(name);
            let case = problem.case();
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let asked = multi_layer(&problem, &operator, &device.device);
            let optima = problem.array("mlbp_objective");
            let len = operator.code().len();
            for acceleration in [Acceleration::Ista, Acceleration::Fista] {
                let excess = |step: f32| {
                    let config = MultiLayerProximalGradientConfig {
                        step,
                        ..MultiLayerProximalGradientConfig::new(acceleration)
                    };
                    let codes = wide(&host(config.init().unwrap().solve(&asked).unwrap().codes));
                    (0..optima.values.len())
                        .map(|row| multi_layer_objective(&problem, &codes[row * len..][..len], row))
                        .zip(&optima.values)
                        .map(|(found, optimum)| found / optimum - 1.0)
                        .fold(0.0f64, f64::max)
                };
                // Plain steps that are a sixteenth as long take ten thousand iterations.
                let steps = if acceleration == Acceleration::Ista { vec![1.0, 0.25] } else { vec![1.0, 0.25, 0.0625] };
                let worst: Vec<f64> = steps.into_iter().map(excess).collect();
                let what = format!("{name} {acceleration:?}: {worst:?}");
                // Measured: 1.5e-3 at most; a quarter of the step leaves 0.24 to 0.50, a sixteenth 0.10 to 0.13.
                assert!(worst[0] < 2e-3 && worst.windows(2).all(|pair| pair[1] < 0.6 * pair[0]), "{what}");
                assert!(worst.len() < 3 || worst[2] < 0.2 * worst[0], "{what}");
            }
        }
    });
}
