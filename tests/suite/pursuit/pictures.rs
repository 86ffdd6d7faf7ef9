//! Descent on the residual on what is hard for it: large pictures and dictionaries of atoms that are alike or equal; and what can end
//! a pursuit before it is done.

use crate::common;

use burn::tensor::Tensor;
use common::patience::Patience;
use common::{Case, TestDevice, host, normals, on_every_device, rng, tensor, wide};
use mlcsc::error::Error;
use mlcsc::evaluate::comparison::Parameters;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::{Operator, OperatorForm};
use mlcsc::names::IntoEnumIterator;
use mlcsc::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, Problem, Pursued, PursuitName, Recipe, StopReason, Threshold,
};
use rand::RngExt;

fn config(gap: f32, nonnegative: bool) -> BasisPursuitConfig {
    BasisPursuitConfig { gap, nonnegative, max_iterations: 20_000 }
}

fn solve(algorithm: Algorithm, config: &BasisPursuitConfig, problem: &Problem) -> Pursued {
    algorithm.init(config, problem.operator()).unwrap().solve(problem).unwrap()
}

/// Filters of unit norm that are alike: smooth ones, so that their shifts are; copies, copies with the other sign and of other
/// lengths; near copies; a shift of another; a zero filter.
fn coherent(signal: SignalShape, kernel: [usize; 2], stride: usize, kinds: usize, seed: u64) -> Case {
    let atoms = 4 * kinds;
    let layer = LayerShape::new(atoms, Pair(kernel), stride);
    let mut case = Case::random(signal, vec![layer], seed);
    let len = signal.channels * kernel[0] * kernel[1];
    let mut generator = rng(seed);
    let mut filters: Vec<Vec<f32>> = case.filters[0].chunks_exact(len).map(<[f32]>::to_vec).collect();
    for kind in 0..kinds {
        // Two passes of a running mean along rows.
        for _ in 0..2 {
            let before = filters[4 * kind].clone();
            for (place, value) in filters[4 * kind].iter_mut().enumerate() {
                let next = if (place + 1).is_multiple_of(kernel[1]) { 0.0 } else { before[place + 1] };
                *value = 0.5 * (before[place] + next);
            }
        }
        let first = filters[4 * kind].clone();
        filters[4 * kind + 1] = match kind % 3 {
            0 => first.clone(),
            1 => first.iter().map(|value| -value).collect(),
            _ => first.iter().map(|value| 0.5 * value).collect(),
        };
        let noise = normals(&mut generator, len);
        filters[4 * kind + 2] = first.iter().zip(noise).map(|(value, noise)| value + 2e-2 * noise).collect();
        filters[4 * kind + 3] = match kind % 2 {
            // One to the right: at stride 1 the atom of the next position.
            0 => (0..len).map(|at| if at % kernel[1] == 0 { 0.0 } else { first[at - 1] }).collect(),
            _ => vec![0.0; len],
        };
        for filter in &mut filters[4 * kind..4 * kind + 3] {
            let norm = filter.iter().map(|value| value * value).sum::<f32>().sqrt();
            filter.iter_mut().for_each(|value| *value /= norm);
        }
    }
    case.filters = vec![filters.concat()];
    case
}

/// ½‖M(y − Dγ)‖² + λΣ_j w_j|γ_j| in `f64`.
fn objective(case: &Case, [signal, mask]: [&[f64]; 2], code: &[f64], lambda: f64, weights: &[f64]) -> f64 {
    let made = case.explicit().synthesize(code);
    let energy: f64 =
        made.iter().zip(signal).zip(mask).map(|((made, sample), mask)| (mask * (sample - made)).powi(2)).sum();
    let positions = code.len() / weights.len();
    let norm: f64 = code.iter().enumerate().map(|(at, value)| weights[at / positions] * value.abs()).sum();
    0.5 * energy + lambda * norm
}

/// Signed and not, weighted, masked, from a start; λ down to a thousandth of λ_max, where support and samples are as many, and what
/// such a signal costs grows with the cube of their number: there on few samples.
#[test]
fn atoms_that_are_alike_do_not_keep_it_from_the_gap() {
    const USUAL: [(f32, f32); 2] = [(0.3, 1e-4), (0.1, 1e-4)];
    const SMALL: [(f32, f32); 1] = [(0.001, 1e-3)];
    on_every_device(|device| {
        let shapes: [(_, _, _, _, &[(f32, f32)]); 6] = [
            (SignalShape::new(1, 24, 21), [5, 4], 1, 2, &USUAL),
            (SignalShape::new(1, 8, 7), [5, 4], 1, 2, &SMALL),
            (SignalShape::new(2, 19, 26), [4, 6], 2, 3, &USUAL),
            (SignalShape::new(2, 6, 10), [4, 6], 2, 3, &SMALL),
            // Several blocks.
            (SignalShape::new(1, 60, 34), [6, 6], 1, 1, &USUAL),
            (SignalShape::new(1, 30, 7), [6, 6], 1, 1, &SMALL),
        ];
        for (index, (signal, kernel, stride, kinds, penalties)) in shapes.into_iter().enumerate() {
            if index > 1 && device.skips_part(format!("signals of {signal}")) {
                continue;
            }
            let case = coherent(signal, kernel, stride, kinds, 31 + index as u64);
            let operator = case.model(&device.device).operator(signal, OperatorForm::Cascade).unwrap();
            let mut generator = rng(index as u64);
            let values = case.signals(1);
            let mask: Vec<f32> =
                (0..values.len()).map(|_| f32::from(u8::from(generator.random_range(0..4) > 0))).collect();
            let atoms = operator.code().channels;
            let weights: Vec<f32> = (0..atoms).map(|_| generator.random_range(0.5..2.0)).collect();
            let dims = signal.batched(1);
            let start = tensor::<4>(&case.codes(1), operator.code().batched(1), &device.device);
            for &(fraction, gap) in penalties {
                // With small λ the simplest and the hardest.
                for variant in (0..4).step_by(if fraction < 0.1 { 3 } else { 1 }) {
                    let nonnegative = variant % 2 == 1;
                    let mut problem = Problem::new(&operator, tensor(&values, dims, &device.device)).unwrap();
                    problem = problem.with_lambda(Lambda::Relative(fraction)).unwrap();
                    let (mut of_atoms, mut known) = (vec![1.0; atoms], vec![1.0; values.len()]);
                    if variant >= 2 {
                        problem = problem.with_weights(1, weights.clone()).unwrap();
                        problem = problem.with_mask(tensor(&mask, dims, &device.device)).unwrap();
                        problem = problem.with_start(start.clone() * 0.1).unwrap();
                        (of_atoms, known) = (wide(&weights), wide(&mask));
                    }
                    let pursued = solve(Algorithm::ResidualDescent, &config(gap, nonnegative), &problem);
                    let report = &pursued.reports[0];
                    let what = format!("{signal} λ = {fraction} λ_max, variant {variant}: {report:?}");
                    assert!(report.stop == StopReason::DualityGap && report.relative_gap <= gap, "{what}");
                    // The report is about the code.
                    let code = wide(&host(pursued.codes));
                    assert!(!nonnegative || code.iter().all(|value| *value >= 0.0), "{what}");
                    let found = objective(&case, [&wide(&values), &known], &code, report.lambda.into(), &of_atoms);
                    assert!((found - f64::from(report.objective)).abs() <= 1e-4 * found, "{what}: {found}");
                    // The minimum lies between FISTA's bounds, which know nothing of this one's.
                    let fista = BasisPursuitConfig { max_iterations: 1000, ..config(gap, nonnegative) };
                    let other = &solve(Algorithm::Fista, &fista, &problem).reports[0];
                    let bounds = [other.objective * (1.0 - other.relative_gap), other.objective];
                    assert!(report.objective >= bounds[0] * 0.9999, "{what} {other:?}");
                    assert!(report.objective * (1.0 - report.relative_gap) <= bounds[1] * 1.0001, "{what} {other:?}");
                }
            }
        }
    });
}

/// A texture: the same everywhere, as far as statistics go.
fn texture(shape: SignalShape, seed: u64) -> Vec<f32> {
    let mut values = normals(&mut rng(seed), shape.len());
    for place in 0..values.len() {
        let left = if place % shape.width == 0 { 0.0 } else { values[place - 1] };
        let above = if place < shape.width { 0.0 } else { values[place - shape.width] };
        values[place] = 0.3 * values[place] + 0.45 * (left + above);
    }
    values
}

fn of_texture(side: usize, device: &TestDevice) -> (Operator, Tensor<4>) {
    let shape = SignalShape::new(1, side, side);
    let case = Case::random(shape, vec![LayerShape::new(6, 6, 1)], 17);
    let operator = case.model(&device.device).operator(shape, OperatorForm::Cascade).unwrap();
    (operator, tensor(&texture(shape, 5), shape.batched(1), &device.device))
}

/// The gap is a mean over the picture, so that rounds do not become more where there is more of the same.
#[test]
fn work_per_sample_does_not_grow_with_the_picture() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let rounds = |side: usize| {
            let (operator, signal) = of_texture(side, device);
            let problem = Problem::new(&operator, signal).unwrap().with_lambda(Lambda::Absolute(0.4)).unwrap();
            let pursued = solve(Algorithm::ResidualDescent, &config(1e-3, false), &problem);
            let report = &pursued.reports[0];
            assert!(report.stop == StopReason::DualityGap && report.relative_gap <= 1e-3, "{report:?}");
            report.iterations
        };
        let (small, large) = (rounds(100), rounds(300));
        // Measured: 64 and 64.
        assert!(large <= small + small / 4, "{small} {large}");
    });
}

#[test]
fn large_pictures_do_not_depend_on_threads() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let run = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (operator, signal) = of_texture(140, device);
                let problem = Problem::new(&operator, signal).unwrap().with_lambda(Lambda::Relative(0.2)).unwrap();
                let pursued = solve(Algorithm::ResidualDescent, &config(1e-3, false), &problem);
                (host(pursued.codes), pursued.reports)
            })
        };
        let expected = run(1);
        for threads in [2, 3, 7] {
            assert!(run(threads) == expected, "{threads} threads");
        }
    });
}

/// Every pursuit asks its observer while it works, ends when it is told to, and comes to the same when it is not.
#[test]
fn every_pursuit_can_be_ended() {
    on_every_device(|device| {
        let shape = SignalShape::new(1, 18, 18);
        let layers = vec![LayerShape::new(4, 5, 1), LayerShape::new(6, 4, 1)];
        let case = Case::random(shape, layers, 3);
        let operator = case.model(&device.device).operator(shape, OperatorForm::Auto).unwrap();
        let signals = tensor::<4>(&case.signals(2), shape.batched(2), &device.device);
        let none = PursuitName::LayeredThresholding;
        // Orthogonal least squares has no pictures.
        let names = PursuitName::iter().filter(|name| *name != PursuitName::OrthogonalLeastSquares);
        for (name, convex) in names.map(|name| (name, false)).chain([(PursuitName::Projection, true)]) {
            let parameters = Parameters {
                algorithm: Algorithm::Auto,
                basis: BasisPursuitConfig { gap: 1e-2, max_iterations: 40, nonnegative: false },
                nonzeros: Some(6),
                shallower_nonzeros: vec![400],
                residual: 0.0,
                stripe_limits: Some(vec![4000, 4000]),
                threshold: Threshold::Soft,
                convex,
                debias: convex,
            };
            let recipe = Recipe {
                config: parameters.config(name, &operator),
                lambda: Some(Lambda::Relative(0.3)).filter(|_| {
                    convex || !matches!(name, PursuitName::OrthogonalMatchingPursuit | PursuitName::Projection)
                }),
                layer_weights: None,
            };
            let pursuit = recipe.prepare(&operator).unwrap();
            let problem = || recipe.problem(&operator, signals.clone(), 0).unwrap();
            let expected = pursuit.solve(&problem()).unwrap();
            let patient = Patience::new(usize::MAX);
            let found = pursuit.solve(&problem().with_observer(&patient)).unwrap();
            assert!(found.reports == expected.reports && host(found.codes) == host(expected.codes), "{name}");
            let told = patient.told.into_inner().unwrap();
            assert!(told.is_sorted() && told.iter().all(|done| (0.0..=1.0).contains(done)), "{name}: {told:?}");
            let asked = usize::MAX - patient.left.into_inner();
            assert!(asked > 0, "{name} asks nobody");
            for left in [0, asked / 2, asked - 1] {
                let ended = pursuit.solve(&problem().with_observer(&Patience::new(left)));
                assert!(matches!(ended, Err(Error::Interrupted(_))), "{name}, asked {asked} times, {left}: {ended:?}");
            }
            assert!(name == none || name == PursuitName::CoordinateDescent || asked > 2, "{name}: {asked}");
        }
    });
}
