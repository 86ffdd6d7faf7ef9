//! Greedy, layered and multi-layer pursuits against solutions by other software, in `f64`: see `reference/README.md`.

mod common;

use common::explicit::Lasso;
use common::reference::Reference;
use common::{WAYS, host, on_every_device, wide};
use mlcsc::model::Application;
use mlcsc::pursuit::{
    BasisPursuitConfig, Lambda, LayeredBasisPursuitConfig, OrthogonalMatchingPursuitConfig, Problem, Pursuit,
    StopReason,
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
                if device.small && way != Application::Gram {
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
            let operator = case.model(&device.device).operator(case.config.signal, Application::Auto).unwrap();
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
