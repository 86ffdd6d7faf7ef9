//! Orthogonal least squares against its definition in `f64`: the atom that leaves the shortest residual comes next.

use super::nonnegative::{LEN, least_squares, nonnegative_least_squares, nonzeros_of, operator_of, residual};
use crate::common::{host, inner, norm, normals, on_every_device, rng, tensor, wide};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::pursuit::{OrthogonalMatchingPursuitConfig, Problem, Pursued, Pursuit, Selection};

const ATOMS: usize = 20;

/// The definition. Non-negative codes: the atom of largest positive correlation in units of what it has outside the span of the support,
/// and non-negative least squares.
fn reference(atoms: &[f64], signal: &[f64], nonzeros: usize, nonnegative: bool) -> Vec<(usize, f64)> {
    let len = signal.len();
    let column = |place: usize| &atoms[place * len..][..len];
    let fit = |target: &[f64], support: &[usize]| -> Vec<(usize, f64)> {
        let columns: Vec<&[f64]> = support.iter().map(|&place| column(place)).collect();
        support.iter().copied().zip(least_squares(&columns, target)).collect()
    };
    let mut code: Vec<(usize, f64)> = Vec::new();
    while code.len() < nonzeros {
        let support: Vec<usize> = code.iter().map(|(place, _)| *place).collect();
        let left = residual(atoms, &code, signal);
        let mut best = (1e-9, None);
        for place in (0..atoms.len() / len).filter(|place| !support.contains(place)) {
            let outside = residual(atoms, &fit(column(place), &support), column(place));
            let score = match nonnegative {
                true => inner(column(place), &left) / norm(&outside),
                // By the residual itself.
                false => {
                    let joined: Vec<usize> = support.iter().copied().chain([place]).collect();
                    norm(&left).powi(2) - norm(&residual(atoms, &fit(signal, &joined), signal)).powi(2)
                }
            };
            if score > best.0 {
                best = (score, Some(place));
            }
        }
        let Some(place) = best.1 else { break };
        let support: Vec<usize> = support.into_iter().chain([place]).collect();
        code = if nonnegative { nonnegative_least_squares(atoms, &support, signal) } else { fit(signal, &support) };
    }
    code.sort_unstable_by_key(|(place, _)| *place);
    code
}

fn config(nonzeros: usize, nonnegative: bool, selection: Selection) -> OrthogonalMatchingPursuitConfig {
    OrthogonalMatchingPursuitConfig { nonnegative, selection, ..OrthogonalMatchingPursuitConfig::new(nonzeros) }
}

/// Atoms of several lengths that lean to one side, so that they are coherent.
fn coherent(seed: u64) -> Vec<f32> {
    let mut random = rng(seed);
    let mut atoms = normals(&mut random, ATOMS * LEN);
    let lean = normals(&mut random, LEN);
    for (place, atom) in atoms.chunks_exact_mut(LEN).enumerate() {
        let length = 0.5 + place as f32 / ATOMS as f32;
        atom.iter_mut().zip(&lean).for_each(|(entry, lean)| *entry = length * (*entry + lean));
    }
    atoms
}

#[test]
fn the_next_atom_leaves_the_shortest_residual() {
    on_every_device(|device| {
        let mut other = 0;
        for seed in 0..8 {
            let atoms = coherent(seed);
            let signals = normals(&mut rng(100 + seed), 10 * LEN);
            let operator = operator_of(&atoms, LEN, OperatorForm::Auto, &device.device);
            let dims = operator.signal().batched(10);
            let problem = Problem::new(&operator, tensor(&signals, dims, &operator.device())).unwrap();
            for (nonnegative, nonzeros) in [(false, 1), (false, 3), (false, 5), (true, 1), (true, 3), (true, 5)] {
                let found = config(nonzeros, nonnegative, Selection::Residual).init().unwrap().solve(&problem).unwrap();
                let plain =
                    config(nonzeros, nonnegative, Selection::Correlation).init().unwrap().solve(&problem).unwrap();
                other += usize::from(host(plain.codes) != host(found.codes.clone()));
                for (row, (signal, code)) in
                    signals.chunks_exact(LEN).zip(host(found.codes).chunks_exact(ATOMS)).enumerate()
                {
                    let (signal, atoms, code) = (wide(signal), wide(&atoms), nonzeros_of(code));
                    let expected = reference(&atoms, &signal, nonzeros, nonnegative);
                    let what = format!("seed {seed}, signal {row}, {nonzeros}, {nonnegative}: {code:?} {expected:?}");
                    assert_eq!(code.len(), expected.len(), "{what}");
                    for ((place, value), (other, expected)) in code.iter().zip(&expected) {
                        assert!(place == other && (value - expected).abs() < 1e-3 * expected.abs().max(1.0), "{what}");
                    }
                    let left = 0.5 * norm(&residual(&atoms, &code, &signal)).powi(2);
                    assert!((left - f64::from(found.reports[row].data_term)).abs() < 1e-5, "{what}: {left}");
                }
            }
        }
        // Else it was not told apart from orthogonal matching pursuit.
        assert!(other >= 20, "{other}");
    });
}

/// Unit atoms that are orthogonal are picked alike by both rules.
#[test]
fn orthogonal_atoms_are_picked_alike() {
    on_every_device(|device| {
        let atoms: Vec<f32> = (0..LEN * LEN).map(|place| if place % LEN == place / LEN { 1.0 } else { 0.0 }).collect();
        let operator = operator_of(&atoms, LEN, OperatorForm::Auto, &device.device);
        let signals = normals(&mut rng(3), 6 * LEN);
        let dims = operator.signal().batched(6);
        let problem = Problem::new(&operator, tensor(&signals, dims, &operator.device())).unwrap();
        let codes = |selection| -> Vec<f32> {
            let found: Pursued = config(4, false, selection).init().unwrap().solve(&problem).unwrap();
            host(found.codes)
        };
        let (ours, plain) = (codes(Selection::Residual), codes(Selection::Correlation));
        let near = ours.iter().zip(&plain).all(|(ours, plain)| (ours - plain).abs() < 1e-6);
        assert!(near, "{ours:?} {plain:?}");
    });
}

/// Codes with many positions are refused in words.
#[test]
fn convolutions_are_refused() {
    let device = mlcsc::device::named(Some("flex")).unwrap();
    let shape = SignalShape::new(1, 24, 24);
    let config_of = ModelConfig::new(shape, vec![LayerShape::new(4, 5, 1)]);
    let filters = tensor(&normals(&mut rng(1), 100), [4, 1, 5, 5], &device);
    let operator = Mlcsc::from_filters(config_of, vec![filters]).unwrap().operator(shape, OperatorForm::Auto).unwrap();
    let signals = tensor(&normals(&mut rng(2), 576), [1, 1, 24, 24], &device);
    let problem = Problem::new(&operator, signals).unwrap();
    let error = config(3, false, Selection::Residual).init().unwrap().solve(&problem).unwrap_err().to_string();
    assert!(error.contains("ols") && error.contains("inner products"), "{error}");
}

/// Atoms at small angles are independent: both are found, and what is left is what rounding of the code leaves.
#[test]
fn atoms_at_small_angles_are_told_apart() {
    on_every_device(|device| {
        let cases = [1e-1f64, 1e-2, 3e-3, 1e-3, 3e-4].map(|angle| (angle, [1.0f32, 0.8, 0.1, 0.0]));
        // Hardly any of what the second atom has outside the span of the first.
        for (angle, signal) in cases.into_iter().chain([(1e-3, [1.0, 7e-4, 0.3, 0.0])]) {
            let atoms = [[1.0, 0.0, 0.0, 0.0], [angle.cos(), angle.sin(), 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
            let atoms: Vec<f32> = atoms.concat().into_iter().map(|value| value as f32).collect();
            let ways = [
                (OperatorForm::Gram, Selection::Correlation),
                (OperatorForm::Cascade, Selection::Correlation),
                (OperatorForm::Gram, Selection::Residual),
            ];
            for (form, selection) in ways {
                let operator = operator_of(&atoms, 4, form, &device.device);
                let signals = tensor(&signal, operator.signal().batched(1), &operator.device());
                let problem = Problem::new(&operator, signals).unwrap();
                let left = |nonzeros: usize| {
                    let found = config(nonzeros, false, selection).init().unwrap().solve(&problem).unwrap();
                    let code: Vec<(usize, f64)> = nonzeros_of(&host(found.codes));
                    let told = (2.0 * f64::from(found.reports[0].data_term)).sqrt();
                    let left = norm(&residual(&wide(&atoms), &code, &wide(&signal)));
                    assert!((left - told).abs() <= 1e-6 + 1e-3 * left, "{angle}, {form}: {left} and {told}");
                    left
                };
                // A coefficient of 0.8 / angle, rounded.
                assert!(left(3) < 1e-6 + 3e-7 / angle, "{angle}, {form}, {selection:?}: {}", left(3));
                if selection == Selection::Residual && signal[1] == 0.8 {
                    assert!((left(2) - 0.1).abs() < 1e-5 + 3e-7 / angle, "{angle}: {}", left(2));
                }
            }
        }
    });
}
