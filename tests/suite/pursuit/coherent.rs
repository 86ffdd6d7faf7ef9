//! The lasso where it is hard: coherent and overcomplete dictionaries, atoms that are equal or nearly so, small λ; as it is, weighted,
//! masked, from a code to start with. Every signal has to reach its gap, and the objective its minimum.

use crate::common;

use common::explicit::{Lasso, Matrix};
use common::{Case, host, inner, normals, on_every_device, rng, tensor, wide};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{ModelConfig, OperatorForm};
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, Problem, StopReason};
use rand::RngExt;
use std::f64::consts::PI;

/// Signals of side × side values.
const SIDE: usize = 5;

fn unit(mut atom: Vec<f64>) -> Vec<f64> {
    let norm = common::norm(&atom);
    atom.iter_mut().for_each(|value| *value /= norm);
    atom
}

/// `count`² products of cosines.
fn cosines(count: usize) -> Vec<Vec<f64>> {
    let wave = |frequency: usize| -> Vec<f64> {
        (0..SIDE).map(|x| ((x as f64 + 0.5) * PI * frequency as f64 / count as f64).cos()).collect()
    };
    let waves: Vec<Vec<f64>> = (0..count).map(wave).collect();
    let products = waves.iter().flat_map(|a| waves.iter().map(move |b| (a, b)));
    products.map(|(a, b)| unit(a.iter().flat_map(|a| b.iter().map(move |b| a * b)).collect())).collect()
}

fn random(count: usize, seed: u64, offset: f64) -> Vec<Vec<f64>> {
    let values = wide(&normals(&mut rng(seed), count * SIDE * SIDE));
    values.chunks_exact(SIDE * SIDE).map(|atom| unit(atom.iter().map(|value| value + offset).collect())).collect()
}

/// Every atom, and beside it one that differs from it by so much.
fn doubled(atoms: Vec<Vec<f64>>, difference: f64) -> Vec<Vec<f64>> {
    let other = random(atoms.len(), 77, 0.0);
    let near = |(atom, other): (&Vec<f64>, Vec<f64>)| {
        unit(atom.iter().zip(other).map(|(value, other)| value + difference * other).collect())
    };
    let copies: Vec<Vec<f64>> = atoms.iter().zip(other).map(near).collect();
    atoms.into_iter().chain(copies).collect()
}

fn dictionaries() -> Vec<(&'static str, Vec<Vec<f64>>)> {
    let identity = (0..SIDE * SIDE).map(|place| (0..SIDE * SIDE).map(|at| f64::from(u8::from(at == place))).collect());
    vec![
        ("cosines, 4 times overcomplete", cosines(10)),
        ("cosines, 16 times overcomplete", cosines(20)),
        ("cosines and identity", cosines(SIDE).into_iter().chain(identity).collect()),
        ("random, 4 times overcomplete", random(100, 1, 0.0)),
        ("random, 16 times overcomplete", random(400, 2, 0.0)),
        ("positive", random(100, 3, 3.0)),
        ("every atom twice", doubled(random(40, 4, 0.0), 0.0)),
        ("nearly equal pairs", doubled(random(40, 5, 0.0), 1e-3)),
        ("pairs that differ by 1e-6", doubled(random(40, 6, 0.0), 1e-6)),
        ("pairs that differ by 1e-1", doubled(random(40, 7, 0.0), 1e-1)),
        ("pairs that differ by 1e-5", doubled(random(40, 8, 0.0), 1e-5)),
        ("pairs that differ by rounding", doubled(random(40, 9, 0.0), 1e-7)),
        ("clusters", doubled(doubled(random(20, 10, 0.0), 1e-2), 1e-4)),
        ("every atom with both signs, twice", {
            let atoms = random(20, 11, 0.0);
            let negative = atoms.iter().map(|atom| atom.iter().map(|value| -value).collect());
            doubled(atoms.iter().cloned().chain(negative).collect(), 0.0)
        }),
    ]
}

/// A dictionary of whole-signal atoms.
fn case(atoms: &[Vec<f64>], seed: u64) -> Case {
    let signal = SignalShape::new(1, SIDE, SIDE);
    let config = ModelConfig::new(signal, vec![LayerShape::new(atoms.len(), SIDE, 1)]);
    let filters = atoms.iter().flatten().map(|&value| value as f32).collect();
    Case { config, filters: vec![filters], seed }
}

/// Smooth signals: sums along both axes of noise.
fn smooth(count: usize, seed: u64) -> Vec<f32> {
    let mut signals = normals(&mut rng(seed), count * SIDE * SIDE);
    for signal in signals.chunks_exact_mut(SIDE * SIDE) {
        (SIDE..signal.len()).for_each(|place| signal[place] += signal[place - SIDE]);
        (0..signal.len()).filter(|place| place % SIDE > 0).for_each(|place| signal[place] += signal[place - 1]);
    }
    signals
}

/// A bound of the minimum from below, from the residual of a code, scaled until it is dual feasible.
fn dual_bound(lasso: &Lasso, code: &[f64]) -> f64 {
    let made = lasso.dictionary.apply(code);
    let residual: Vec<f64> = lasso.signal.iter().zip(made).map(|(signal, made)| signal - made).collect();
    let correlations = lasso.dictionary.apply_transposed(&residual);
    let size = |value: &f64| if lasso.nonnegative { *value } else { value.abs() };
    let largest = correlations.iter().map(size).fold(0.0, f64::max);
    let scale = if largest <= lasso.lambda { 1.0 } else { lasso.lambda / largest };
    let rest: Vec<f64> =
        lasso.signal.iter().zip(residual).map(|(signal, residual)| signal - scale * residual).collect();
    0.5 * (inner(lasso.signal, lasso.signal) - inner(&rest, &rest))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    Plain,
    Weighted,
    Masked,
    Started,
    All,
}

#[test]
fn every_signal_reaches_its_gap() {
    const COUNT: usize = 1;
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let mut handed_over = 0;
        for (index, (name, atoms)) in dictionaries().into_iter().enumerate() {
            let case = case(&atoms, index as u64);
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let signals = smooth(COUNT, 100 + index as u64);
            let stored: Vec<Vec<f64>> = case.filters[0]
                .chunks_exact(SIDE * SIDE)
                .map(|atom| atom.iter().map(|&v| f64::from(v)).collect())
                .collect();
            let mut generator = rng(200 + index as u64);
            for variant in [Variant::Plain, Variant::Weighted, Variant::Masked, Variant::Started, Variant::All] {
                let weights: Vec<f32> = match variant {
                    Variant::Weighted | Variant::All => {
                        (0..atoms.len()).map(|_| generator.random_range(0.5..2.0)).collect()
                    }
                    _ => vec![1.0; atoms.len()],
                };
                let masked = matches!(variant, Variant::Masked | Variant::All);
                let mask: Vec<f32> =
                    (0..SIDE * SIDE).map(|place| f32::from(u8::from(!masked || place % 4 != 1))).collect();
                // The atoms as the lasso sees them.
                let columns: Vec<Vec<f64>> = stored
                    .iter()
                    .zip(&weights)
                    .map(|(atom, weight)| {
                        atom.iter().zip(&mask).map(|(v, m)| v * f64::from(*m) / f64::from(*weight)).collect()
                    })
                    .collect();
                let matrix = Matrix { rows: SIDE * SIDE, columns };
                for (fraction, nonnegative) in
                    [0.1, 0.01, 0.001].into_iter().flat_map(|fraction| [(fraction, false), (fraction, true)])
                {
                    let tensor_of = |values: &[f32]| tensor(values, case.config.signal.batched(COUNT), &device.device);
                    let mut problem = Problem::new(&operator, tensor_of(&signals))
                        .unwrap()
                        .with_lambda(Lambda::Relative(fraction))
                        .unwrap();
                    if matches!(variant, Variant::Weighted | Variant::All) {
                        problem = problem.with_weights(1, weights.clone()).unwrap();
                    }
                    if masked {
                        let mask = tensor(&mask, case.config.signal.batched(1), &device.device);
                        problem = problem.with_mask(mask).unwrap();
                    }
                    if matches!(variant, Variant::Started | Variant::All) {
                        let start = normals(&mut generator, COUNT * atoms.len());
                        let start = tensor(&start, operator.code().batched(COUNT), &device.device);
                        problem = problem.with_start(start).unwrap();
                    }
                    for algorithm in [Algorithm::CoordinateDescent, Algorithm::ActiveSet] {
                        let config = BasisPursuitConfig { gap: 1e-5, nonnegative, ..Default::default() };
                        let found = algorithm.init(&config, &operator).unwrap().solve(&problem).unwrap();
                        let codes = host(found.codes);
                        for (row, report) in found.reports.iter().enumerate() {
                            let what =
                                format!("{name}, {variant:?}, {fraction}, {nonnegative}, {algorithm:?}: {report:?}");
                            assert_eq!(report.stop, StopReason::DualityGap, "{what}");
                            assert!(report.relative_gap <= 1e-5, "{what}");
                            handed_over += usize::from(report.finished_by == Some(Algorithm::ActiveSet));
                            let signal: Vec<f64> = signals[row * SIDE * SIDE..][..SIDE * SIDE]
                                .iter()
                                .zip(&mask)
                                .map(|(value, known)| f64::from(value * known))
                                .collect();
                            let lambda = f64::from(report.lambda);
                            let lasso = Lasso { dictionary: &matrix, signal: &signal, lambda, nonnegative };
                            let code: Vec<f64> = codes[row * atoms.len()..][..atoms.len()]
                                .iter()
                                .zip(&weights)
                                .map(|(value, weight)| f64::from(*value) * f64::from(*weight))
                                .collect();
                            let objective = lasso.objective(&code);
                            let reported = f64::from(report.objective);
                            assert!((objective - reported).abs() <= 1e-5 * objective, "{what}: {objective}");
                            // What rounding the code to f32 does to correlations is 1e-7 of ‖γ‖₁, and large codes of coherent
                            // atoms that nearly cancel are some thousand times the signal.
                            let bound = dual_bound(&lasso, &code);
                            assert!(objective - bound <= 5e-3 * objective, "{what}: {objective} above {bound}");
                        }
                    }
                }
            }
        }
        assert!(handed_over > 0, "nothing was handed over");
    });
}

/// Where hundreds of atoms are wanted, FISTA's products are tried before a factor of that size is made; what they leave open, the active
/// set finishes.
#[test]
fn supports_may_be_as_large_as_the_signal() {
    const LARGE: usize = 14;
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let values = wide(&normals(&mut rng(41), 300 * LARGE * LARGE));
        let atoms: Vec<Vec<f64>> = values.chunks_exact(LARGE * LARGE).map(|atom| unit(atom.to_vec())).collect();
        let signal = SignalShape::new(1, LARGE, LARGE);
        let config = ModelConfig::new(signal, vec![LayerShape::new(atoms.len(), LARGE, 1)]);
        let filters: Vec<f32> = atoms.iter().flatten().map(|&value| value as f32).collect();
        let case = Case { config, filters: vec![filters], seed: 41 };
        let operator = case.model(&device.device).operator(signal, OperatorForm::Auto).unwrap();
        let stored = case.explicit().matrix();
        let signals = normals(&mut rng(42), 3 * LARGE * LARGE);
        let mut finishers = Vec::new();
        for fraction in [0.1, 0.01, 0.0003] {
            let problem = Problem::new(&operator, tensor(&signals, signal.batched(3), &device.device))
                .unwrap()
                .with_lambda(Lambda::Relative(fraction))
                .unwrap();
            let config = BasisPursuitConfig { gap: 1e-5, ..Default::default() };
            let found = Algorithm::CoordinateDescent.init(&config, &operator).unwrap().solve(&problem).unwrap();
            let codes = host(found.codes);
            for (row, report) in found.reports.iter().enumerate() {
                assert_eq!(report.stop, StopReason::DualityGap, "{fraction}: {report:?}");
                finishers.push(report.finished_by);
                let signal = wide(&signals[row * LARGE * LARGE..][..LARGE * LARGE]);
                let lambda = f64::from(report.lambda);
                let lasso = Lasso { dictionary: &stored, signal: &signal, lambda, nonnegative: false };
                let code = wide(&codes[row * atoms.len()..][..atoms.len()]);
                let (objective, bound) = (lasso.objective(&code), dual_bound(&lasso, &code));
                // Rounding the code to f32 moves the bound at the smallest λ: 2e-4 was measured.
                assert!(objective - bound <= 1e-3 * objective, "{fraction}: {objective} above {bound}");
            }
        }
        for finisher in [Algorithm::Fista, Algorithm::ActiveSet] {
            assert!(finishers.contains(&Some(finisher)), "{finisher:?} has finished none: {finishers:?}");
        }
    });
}

/// Against plain coordinate descent in `f64`.
#[test]
fn the_objective_is_the_minimum() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        for (index, (name, atoms)) in
            dictionaries().into_iter().enumerate().take(9).filter(|(_, (_, atoms))| atoms.len() <= 100)
        {
            let case = case(&atoms, index as u64);
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let signals = smooth(1, 300 + index as u64);
            let matrix = case.explicit().matrix();
            for nonnegative in [false, true] {
                let problem = Problem::new(&operator, tensor(&signals, case.config.signal.batched(1), &device.device))
                    .unwrap()
                    .with_lambda(Lambda::Relative(0.1))
                    .unwrap();
                let config = BasisPursuitConfig { gap: 1e-6, nonnegative, ..Default::default() };
                let found = Algorithm::Auto.init(&config, &operator).unwrap().solve(&problem).unwrap();
                let report = &found.reports[0];
                let signal = wide(&signals);
                let lasso =
                    Lasso { dictionary: &matrix, signal: &signal, lambda: f64::from(report.lambda), nonnegative };
                let least = lasso.objective(&lasso.solve());
                let reported = f64::from(report.objective);
                assert!((reported - least).abs() <= 1e-5 * least, "{name}, {nonnegative}: {reported} and {least}");
            }
        }
    });
}
