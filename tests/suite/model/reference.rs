//! The crate against solutions by other software, in `f64`: see `reference/README.md`.

use crate::common;

use common::explicit::Lasso;
use common::reference::Reference;
use common::{WAYS, assert_close, host, norm, on_every_device, wide};
use mlcsc::geometry::SignalShape;
use mlcsc::model::OperatorForm;
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, StopReason};
use mlcsc::theory::coherence::mutual_coherence;

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Ista, Algorithm::Fista, Algorithm::CoordinateDescent, Algorithm::ResidualDescent];

#[test]
fn the_arrays_are_what_their_names_say() {
    for problem in Reference::all() {
        let case = problem.case();
        let explicit = case.explicit();
        let lambda = problem.array("lambda");
        let signals = problem.array("signals");
        assert_eq!(signals.dims[0], problem.meta.signals);
        for (layer, meta) in explicit.layers.iter().zip(&problem.meta.layers) {
            assert_eq!(layer.code, meta.code_shape, "{}", problem.name);
        }
        let dictionary = explicit.matrix();
        for (codes, objectives, nonnegative) in
            [("bp_gamma_L", "bp_objective", false), ("nonneg_bp_gamma_L", "nonneg_bp_objective", true)]
        {
            let (codes, objectives) = (problem.array(codes), problem.array(objectives));
            for index in 0..problem.meta.signals {
                let lasso = Lasso {
                    dictionary: &dictionary,
                    signal: signals.row(index),
                    lambda: lambda.values[index],
                    nonnegative,
                };
                let (found, expected) = (lasso.objective(codes.row(index)), objectives.values[index]);
                // The filters went through single precision.
                assert!((found - expected).abs() <= 1e-6 * expected, "{}: {found} {expected}", problem.name);
            }
        }
    }
}

#[test]
fn analysis_equals_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let expected = problem.array("analysis_of_signals");
            let largest = expected.values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            let model = case.model(&device.device);
            for way in WAYS {
                let operator = model.operator(case.config.signal, way).unwrap();
                let found = operator.analyze(problem.array("signals").batch(&device.device));
                assert_eq!(found.dims()[..], expected.dims);
                let scale = vec![largest; expected.values.len()];
                let what = format!("{} by {way}", problem.name);
                // A few roundings of `f32`.
                assert_close(&host(found), &expected.values, &scale, 2e-6, &what);
            }
        }
    });
}

#[test]
fn basis_pursuit_finds_the_reference_solutions() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let dictionary = case.explicit().matrix();
            let model = case.model(&device.device);
            let (lambda, signals) = (problem.lambda(), problem.array("signals"));
            for nonnegative in [false, true] {
                let prefix = if nonnegative { "nonneg_bp" } else { "bp" };
                let (optima, solutions) =
                    (problem.array(&format!("{prefix}_objective")), problem.array(&format!("{prefix}_gamma_L")));
                for way in WAYS {
                    let operator = model.operator(case.config.signal, way).unwrap();
                    for algorithm in ALGORITHMS {
                        // Thousands of plain steps through slow convolutions show nothing that the matrix doesn't.
                        let slow = match algorithm {
                            Algorithm::Ista if way == OperatorForm::Filters => true,
                            Algorithm::Ista if way != OperatorForm::Gram => device.skips_part(format!("ista by {way}")),
                            _ => false,
                        };
                        if slow {
                            continue;
                        }
                        if algorithm == Algorithm::ResidualDescent && case.has_inner_padding() {
                            continue;
                        }
                        // Smaller gaps of proximal gradient drown in the rounding of `f32`.
                        let gap = if algorithm == Algorithm::CoordinateDescent { 1e-6 } else { 1e-5 };
                        let config = BasisPursuitConfig { gap, nonnegative, ..Default::default() };
                        let pursuit = algorithm.init(&config, &operator).unwrap();
                        let pursued = pursuit
                            .pursue(&operator, signals.batch(&device.device), &Lambda::PerSignal(lambda.clone()))
                            .unwrap();
                        assert_eq!(pursued.codes.dims()[..], solutions.dims);
                        let codes = wide(&host(pursued.codes));
                        for (index, report) in pursued.reports.iter().enumerate() {
                            let what =
                                format!("{} {prefix} by {} and {way}, signal {index}", problem.name, pursuit.name());
                            let code = &codes[index * solutions.row(0).len()..][..solutions.row(0).len()];
                            let lasso = Lasso {
                                dictionary: &dictionary,
                                signal: signals.row(index),
                                lambda: f64::from(lambda[index]),
                                nonnegative,
                            };
                            let optimum = optima.values[index];
                            let objective = lasso.objective(code);
                            assert!((objective - optimum).abs() <= 1e-5 * optimum, "{what}: {objective} of {optimum}");
                            let reported = f64::from(report.objective);
                            assert!((reported - optimum).abs() <= 1e-5 * optimum, "{what}: {reported} of {optimum}");
                            // A code whose objective is within ε of the minimum makes a signal within √(2ε) of the
                            // solution's.
                            let difference: Vec<f64> = code
                                .iter()
                                .zip(solutions.row(index))
                                .map(|(found, expected)| found - expected)
                                .collect();
                            let distance = norm(&dictionary.apply(&difference));
                            let permitted = (2.0 * 1.2e-5 * optimum).sqrt();
                            assert!(distance <= permitted, "{what}: {distance} of {permitted}");
                            let largest = solutions.row(index).iter().fold(0.0f64, |largest, v| largest.max(v.abs()));
                            let worst = difference.iter().fold(0.0f64, |worst, v| worst.max(v.abs()));
                            assert!(worst <= 1e-3 * largest.max(1.0), "{what}: codes differ by {worst} of {largest}");
                            assert_eq!(report.stop, StopReason::DualityGap, "{what}");
                            assert_eq!(report.lambda, lambda[index], "{what}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn coherences_equal_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let model = case.model(&device.device);
            let geometry = case.config.geometry().unwrap();
            for (index, layer) in geometry.layers().iter().enumerate() {
                let found = f64::from(mutual_coherence(model.filters()[index].clone(), layer));
                let expected = problem.meta.coherence_layer[index];
                assert!((found - expected).abs() <= 1e-5, "{} D_{}: {found} {expected}", problem.name, index + 1);
                let depth = index + 1;
                let truncated = model.truncated(depth, case.config.signal).unwrap();
                let effective = truncated.config().geometry().unwrap().effective_layer().unwrap();
                let found = f64::from(mutual_coherence(truncated.effective_filters(depth), &effective));
                let expected = problem.meta.coherence_effective[index];
                assert!((found - expected).abs() <= 1e-5, "{} D^({depth}): {found} {expected}", problem.name);
            }
        }
    });
}

#[test]
fn norm_bounds_are_above_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let model = case.model(&device.device);
            let norm = problem.meta.spectral_norm_squared;
            for way in WAYS {
                let bound = model.operator(case.config.signal, way).unwrap().squared_norm_bound();
                // The 128th root of a rank of at most 500 is 1.05; measured: 1.0002 at most.
                assert!(bound >= norm && bound <= 1.05 * norm, "{} by {way}: {bound} of {norm}", problem.name);
            }
        }
    });
}

#[test]
fn effective_shapes_equal_the_reference() {
    for problem in Reference::all() {
        let geometry = problem.case().config.geometry().unwrap();
        for (index, (layer, meta)) in geometry.layers().iter().zip(&problem.meta.layers).enumerate() {
            let [channels, height, width] = meta.code_shape;
            assert_eq!(layer.code, SignalShape::new(channels, height, width));
            let effective = geometry.effective(index + 1);
            assert_eq!(effective.kernel, [meta.effective_kernel; 2]);
            assert_eq!(effective.stride, [meta.effective_stride; 2]);
        }
    }
}
