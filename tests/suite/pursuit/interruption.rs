//! Pursuits are ended inside one signal and between the parts of one iteration, also where another part of the crate runs them.

use crate::common;

use common::patience::Patience;
use common::{Case, host, normals, on_every_device, rng, tensor};
use mlcsc::classify::{Encoder, SignalEncoder, WindowConfig};
use mlcsc::error::{Error, Result};
use mlcsc::evaluate::trial::{self, TrialSignal};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, Observer, OrthogonalMatchingPursuitConfig, Problem, Pursued, Pursuit,
    PursuitConfig, Recipe,
};
use mlcsc::theory::{ModelProfile, Noise, Theorem};

/// Solves without end, and returns how often the observer was asked; ended after any part of that, nothing is returned.
fn ended_anywhere(solve: impl Fn(&dyn Observer) -> Result<Pursued>, what: &str) -> usize {
    let patient = Patience::new(usize::MAX);
    solve(&patient).unwrap();
    let told = patient.told.into_inner().unwrap();
    assert!(told.is_sorted() && told.iter().all(|done| (0.0..=1.0).contains(done)), "{what}: {told:?}");
    let asked = usize::MAX - patient.left.into_inner();
    assert!(asked > 0, "{what} asks nobody");
    for left in [0, 1, asked / 3, asked / 2, asked - 1] {
        let ended = solve(&Patience::new(left));
        assert!(matches!(ended, Err(Error::Interrupted(_))), "{what}, asked {asked} times, {left}: {ended:?}");
    }
    asked
}

#[test]
fn a_greedy_pursuit_ends_between_the_atoms_of_a_signals_windows() {
    on_every_device(|device| {
        let shape = SignalShape::new(2, 12, 15);
        let case = Case::random(shape, vec![LayerShape::new(9, 3, 3)], 11);
        let operator = case.model(&device.device).operator(shape, OperatorForm::Auto).unwrap();
        let signals = tensor::<4>(&case.signals(2), shape.batched(2), &device.device);
        let nonzeros = 30;
        let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap();
        let solve = |observer: &dyn Observer| {
            pursuit.solve(&Problem::new(&operator, signals.clone()).unwrap().with_observer(observer))
        };
        assert!(ended_anywhere(solve, "omp by windows") >= 2 * nonzeros);
    });
}

#[test]
fn the_active_set_ends_between_moves() {
    on_every_device(|device| {
        let shape = SignalShape::new(1, 6, 6);
        let case = Case::random(shape, vec![LayerShape::new(60, 6, 1)], 12);
        let operator = case.model(&device.device).operator(shape, OperatorForm::Auto).unwrap();
        let signals = tensor::<4>(&case.signals(1), shape.batched(1), &device.device);
        // From nothing it takes atoms in move by move; a code of many non-zeros is taken over atom by atom.
        let start = tensor::<4>(&normals(&mut rng(5), 60), operator.code().batched(1), &device.device);
        for start in [None, Some(start)] {
            let config = BasisPursuitConfig { gap: 1e-6, ..Default::default() };
            let pursuit = Algorithm::ActiveSet.init(&config, &operator).unwrap();
            let asked = ended_anywhere(
                |observer| {
                    let problem = Problem::new(&operator, signals.clone()).unwrap().with_observer(observer);
                    let mut problem = problem.with_lambda(Lambda::Relative(0.01)).unwrap();
                    if let Some(start) = &start {
                        problem = problem.with_start(start.clone()).unwrap();
                    }
                    pursuit.solve(&problem)
                },
                "active set",
            );
            assert!(asked > if start.is_some() { 60 } else { 10 }, "{asked}");
        }
    });
}

/// A picture may be so large that half an iteration takes a good part of a second.
#[test]
fn proximal_gradient_steps_end_between_the_halves_of_an_iteration() {
    on_every_device(|device| {
        let shape = SignalShape::new(1, 14, 13);
        let case = Case::random(shape, vec![LayerShape::new(4, 5, 1), LayerShape::new(5, 3, 1)], 13);
        let signals = tensor::<4>(&case.signals(1), shape.batched(1), &device.device);
        for application in [OperatorForm::Cascade, OperatorForm::Filters] {
            let operator = case.model(&device.device).operator(shape, application).unwrap();
            let iterations = 20;
            let config = BasisPursuitConfig { gap: 1e-7, max_iterations: iterations, nonnegative: false };
            let pursuit = Algorithm::Fista.init(&config, &operator).unwrap();
            let solve = |observer: &dyn Observer| {
                let problem = Problem::new(&operator, signals.clone()).unwrap().with_observer(observer);
                pursuit.solve(&problem.with_lambda(Lambda::Relative(0.01)).unwrap())
            };
            assert!(ended_anywhere(solve, "fista") >= 2 * iterations);
        }
    });
}

#[test]
fn features_end_with_their_observer() {
    on_every_device(|device| {
        let shape = SignalShape::new(1, 10, 10);
        let case = Case::random(shape, vec![LayerShape::new(6, 4, 1)], 14);
        let model = case.model(&device.device);
        let basis = BasisPursuitConfig { gap: 1e-3, ..Default::default() };
        let config = PursuitConfig::BasisPursuit { algorithm: Algorithm::Auto, basis: basis.clone() };
        let recipe = Recipe { config, lambda: Some(Lambda::Relative(0.1)), layer_weights: None };
        let operator = model.operator(shape, OperatorForm::Auto).unwrap();
        let windows =
            WindowConfig { layers: vec![1], lambda: Lambda::Relative(0.1), padding: 0, strides: vec![2], basis };
        let encoders: [Box<dyn Encoder>; 2] = [
            Box::new(SignalEncoder::new(&model, operator, recipe, vec![1], false).unwrap()),
            Box::new(windows.init(&model, shape).unwrap()),
        ];
        for encoder in encoders {
            let signals = || tensor::<4>(&case.signals(2), shape.batched(2), &device.device);
            let watched = encoder.encode(signals(), Some(&Patience::new(usize::MAX))).unwrap();
            let alone = encoder.encode(signals(), None).unwrap();
            for (watched, alone) in watched.into_iter().zip(alone) {
                assert_eq!(host(watched), host(alone));
            }
            let ended = encoder.encode(signals(), Some(&Patience::new(0)));
            assert!(matches!(ended, Err(Error::Interrupted(_))), "{ended:?}");
        }
    });
}

#[test]
fn trials_end_with_their_observer() {
    on_every_device(|device| {
        // Two unit vectors in every window of 2 × 2: orthogonal, so that every theorem promises something.
        let shape = SignalShape::new(1, 4, 4);
        let config = ModelConfig::new(shape, vec![LayerShape::new(2, 2, 2)]);
        let filters = tensor::<4>(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [2, 1, 2, 2], &device.device);
        let model = Mlcsc::from_filters(config, vec![filters]).unwrap();
        let profile = ModelProfile::new(&model, shape).unwrap();
        let operator = model.operator(shape, OperatorForm::Matrix).unwrap();
        let codes = tensor::<4>(&[2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0], [1, 2, 2, 2], &device.device);
        let noisy = operator.synthesize(codes.clone()) + 1e-3;
        let told = |noise: &[f32]| Noise::measured(profile.geometry(), noise);
        let known = TrialSignal::of(&profile, &noisy, &[codes], told).unwrap();
        let mut ended = 0;
        for theorem in Theorem::all() {
            let run = |left| trial::run_watched(&theorem, &profile, &operator, &known, &Patience::new(left));
            let alone = trial::run(&theorem, &profile, &operator, &known).unwrap();
            assert_eq!(format!("{alone:?}"), format!("{:?}", run(usize::MAX).unwrap()), "{}", theorem.name());
            match run(0) {
                Err(Error::Interrupted(_)) => ended += 1,
                other => assert!(!alone[0].promise.holds(), "{}: {other:?}", theorem.name()),
            }
        }
        assert!(ended >= 4, "{ended}");
    });
}
