//! Greedy pursuits that keep codes non-negative, against a reference in `f64` that tries every subset of a support.

use crate::common::{self, Case, inner, norm, on_every_device};
use burn::tensor::{Device, Tensor};
use common::{host, normals, rng, tensor, wide};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    GreedyProjectionConfig, OrthogonalMatchingPursuitConfig, Problem, Pursued, Pursuit, PursuitConfig, StopReason,
};

pub(super) const LEN: usize = 8;

pub(super) fn operator_of(atoms: &[f32], len: usize, way: OperatorForm, device: &Device) -> Operator {
    let (shape, count) = (SignalShape::new(len, 1, 1), atoms.len() / len);
    let config = ModelConfig::new(shape, vec![LayerShape::new(count, 1, 1)]);
    let model = Mlcsc::from_filters(config, vec![tensor(atoms, [count, len, 1, 1], device)]).unwrap();
    model.operator(shape, way).unwrap()
}

fn pursuit(nonzeros: usize, nonnegative: bool) -> impl Pursuit {
    OrthogonalMatchingPursuitConfig { nonnegative, ..OrthogonalMatchingPursuitConfig::new(nonzeros) }.init().unwrap()
}

fn solve(operator: &Operator, signals: &[f32], nonzeros: usize, nonnegative: bool) -> Pursued {
    let dims = operator.signal().batched(signals.len() / operator.signal().len());
    let problem = Problem::new(operator, tensor(signals, dims, &operator.device())).unwrap();
    pursuit(nonzeros, nonnegative).solve(&problem).unwrap()
}

/// Least squares on some of the columns, by Gaussian elimination.
pub(super) fn least_squares(columns: &[&[f64]], signal: &[f64]) -> Vec<f64> {
    let size = columns.len();
    let mut rows: Vec<Vec<f64>> = columns
        .iter()
        .map(|left| columns.iter().map(|right| inner(left, right)).chain([inner(left, signal)]).collect())
        .collect();
    for pivot in 0..size {
        let row = rows[pivot].clone();
        for other in (0..size).filter(|&other| other != pivot) {
            let factor = rows[other][pivot] / row[pivot];
            rows[other].iter_mut().zip(&row).for_each(|(value, entry)| *value -= factor * entry);
        }
    }
    (0..size).map(|index| rows[index][size] / rows[index][index]).collect()
}

pub(super) fn residual(atoms: &[f64], code: &[(usize, f64)], signal: &[f64]) -> Vec<f64> {
    let len = signal.len();
    let mut left = signal.to_vec();
    for &(place, value) in code {
        left.iter_mut().zip(&atoms[place * len..][..len]).for_each(|(left, entry)| *left -= value * entry);
    }
    left
}

/// Non-negative least squares on a few atoms: the best of all subsets whose least squares coefficients are positive.
pub(super) fn nonnegative_least_squares(atoms: &[f64], support: &[usize], signal: &[f64]) -> Vec<(usize, f64)> {
    let mut best = (norm(signal), Vec::new());
    for subset in 1..1u32 << support.len() {
        let places: Vec<usize> =
            support.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1).map(|(_, &place)| place).collect();
        let columns: Vec<&[f64]> = places.iter().map(|place| &atoms[place * signal.len()..][..signal.len()]).collect();
        let values = least_squares(&columns, signal);
        if values.iter().all(|value| *value > 0.0) {
            let code: Vec<(usize, f64)> = places.into_iter().zip(values).collect();
            let left = norm(&residual(atoms, &code, signal));
            if left < best.0 {
                best = (left, code);
            }
        }
    }
    best.1
}

/// The definition: the atom of largest positive correlation, in units of its norm, and non-negative least squares.
fn reference(atoms: &[f64], signal: &[f64], nonzeros: usize) -> Vec<(usize, f64)> {
    let mut code: Vec<(usize, f64)> = Vec::new();
    while code.len() < nonzeros {
        let left = residual(atoms, &code, signal);
        let scores = atoms.chunks_exact(signal.len()).map(|atom| inner(atom, &left) / norm(atom)).enumerate();
        let scores = scores.filter(|(place, score)| *score > 1e-9 && code.iter().all(|(other, _)| other != place));
        let Some((place, _)) = scores.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
        let mut support: Vec<usize> = code.iter().map(|(place, _)| *place).collect();
        support.push(place);
        code = nonnegative_least_squares(atoms, &support, signal);
    }
    code
}

pub(super) fn nonzeros_of(code: &[f32]) -> Vec<(usize, f64)> {
    code.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(place, &value)| (place, value.into())).collect()
}

#[test]
fn every_form_is_the_definition() {
    on_every_device(|device| {
        let mut exchanged = 0;
        for seed in 0..12 {
            let mut random = rng(seed);
            // Atoms of several lengths, leaning to one side so that they are coherent and exchanges happen.
            let mut atoms = normals(&mut random, 20 * LEN);
            let lean = normals(&mut random, LEN);
            for (place, atom) in atoms.chunks_exact_mut(LEN).enumerate() {
                let length = 0.5 + place as f32 / 20.0;
                atom.iter_mut().zip(&lean).for_each(|(entry, lean)| *entry = length * (*entry + lean));
            }
            let signals = normals(&mut random, 10 * LEN);
            for way in common::WAYS {
                let operator = operator_of(&atoms, LEN, way, &device.device);
                let mut before = [f32::INFINITY; 10];
                for nonzeros in 1..=6 {
                    let found = solve(&operator, &signals, nonzeros, true);
                    let codes = host(found.codes);
                    for (row, (signal, code)) in signals.chunks_exact(LEN).zip(codes.chunks_exact(20)).enumerate() {
                        let what = format!("{way}, seed {seed}, signal {row}, {nonzeros} non-zeros");
                        let (signal, atoms, code) = (wide(signal), wide(&atoms), nonzeros_of(code));
                        let expected = reference(&atoms, &signal, nonzeros);
                        let report = &found.reports[row];
                        assert_eq!(code.len(), expected.len(), "{what}: {code:?} {expected:?}");
                        for (&(place, value), (found, _)) in expected_sorted(&expected).iter().zip(&code) {
                            assert_eq!(place, *found, "{what}: {code:?} {expected:?}");
                            let (_, found) = code.iter().find(|(other, _)| *other == place).unwrap();
                            assert!((found - value).abs() < 1e-4 && *found > 0.0, "{what}: {code:?} {expected:?}");
                        }
                        // The report, the stop, and that more non-zeros never leave more.
                        let left = residual(&atoms, &code, &signal);
                        let term = 0.5 * norm(&left).powi(2);
                        assert!((term - f64::from(report.data_term)).abs() < 1e-5, "{what}: {term} {report:?}");
                        assert!(report.data_term <= before[row] + 1e-6, "{what}: {report:?}");
                        before[row] = report.data_term;
                        assert_eq!(report.nonzeros, code.len(), "{what}");
                        let stop = if code.len() == nonzeros { StopReason::Nonzeros } else { StopReason::Exhausted };
                        assert_eq!(report.stop, stop, "{what}: {report:?}");
                        assert!(report.iterations >= report.nonzeros, "{what}: {report:?}");
                        exchanged += usize::from(report.iterations > report.nonzeros);
                        if stop == StopReason::Exhausted {
                            // No atom is left that correlates: the optimality conditions over all atoms.
                            let most = atoms.chunks_exact(LEN).map(|atom| inner(atom, &left)).fold(f64::MIN, f64::max);
                            assert!(most < 1e-4, "{what}: {most}");
                        }
                    }
                }
            }
        }
        // Else nothing of what is special about signs was looked at.
        assert!(exchanged >= 20, "{exchanged}");
    });
}

fn expected_sorted(code: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let mut code = code.to_vec();
    code.sort_by_key(|(place, _)| *place);
    code
}

/// Positive codes over random atoms, 12 of 200 in 100 dimensions.
#[test]
fn planted_codes_are_recovered() {
    on_every_device(|device| {
        let (len, count) = (100, 200);
        let mut random = rng(5);
        let atoms: Vec<f32> = normals(&mut random, count * len).iter().map(|value| value / 10.0).collect();
        let mut planted = vec![0.0f32; 6 * count];
        for (row, code) in planted.chunks_exact_mut(count).enumerate() {
            (0..12).for_each(|index| code[(row * 31 + index * 17) % count] = 1.0 + 0.1 * index as f32);
        }
        for way in [OperatorForm::Gram, OperatorForm::Cascade] {
            let operator = operator_of(&atoms, len, way, &device.device);
            let signals = host(operator.synthesize_rows(tensor(&planted, [6, count], &device.device)));
            let config = OrthogonalMatchingPursuitConfig {
                residual: 1e-3,
                nonnegative: true,
                ..OrthogonalMatchingPursuitConfig::new(40)
            };
            let dims = operator.signal().batched(6);
            let problem = Problem::new(&operator, tensor(&signals, dims, &device.device)).unwrap();
            let found = config.init().unwrap().solve(&problem).unwrap();
            for (found, planted) in host(found.codes).iter().zip(&planted) {
                assert!((found - planted).abs() < 1e-3, "{way}: {found} {planted}");
            }
            assert!(found.reports.iter().all(|report| report.stop == StopReason::Residual), "{:?}", found.reports);
        }
    });
}

/// Where all coefficients are positive on the way, signs make no difference: over an orthonormal basis, and where all is positive.
#[test]
fn it_is_the_signed_pursuit_where_that_stays_positive() {
    on_every_device(|device| {
        let mut random = rng(9);
        let positive = |values: Vec<f32>| values.into_iter().map(f32::abs).collect::<Vec<_>>();
        let atoms = positive(normals(&mut random, 30 * LEN));
        let signals = positive(normals(&mut random, 20 * LEN));
        let (mut same, most) = (0, 3);
        for way in [OperatorForm::Gram, OperatorForm::Matrix, OperatorForm::Cascade] {
            let operator = operator_of(&atoms, LEN, way, &device.device);
            let steps: Vec<Vec<f32>> =
                (1..=most).map(|nonzeros| host(solve(&operator, &signals, nonzeros, false).codes)).collect();
            let found = host(solve(&operator, &signals, most, true).codes);
            for row in 0..20 {
                let of = |codes: &[f32]| codes[row * 30..][..30].to_vec();
                if steps.iter().all(|codes| of(codes).iter().all(|value| *value >= 0.0)) {
                    assert_eq!(of(&found), of(&steps[most - 1]), "{way}, {row}");
                    same += 1;
                }
            }
        }
        assert!(same >= 12, "{same}");
    });
}

#[test]
fn what_cannot_be_helped_is_zero() {
    on_every_device(|device| {
        // e_1, e_1 again, zero, e_2, −e_1/2.
        let atoms = [[1.0f32, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0; 3], [0.0, 1.0, 0.0], [-0.5, 0.0, 0.0]].concat();
        for way in [OperatorForm::Gram, OperatorForm::Cascade] {
            let operator = operator_of(&atoms, 3, way, &device.device);
            for (signal, expected, stop) in [
                // The first of equal atoms; a copy, a zero atom and what points the other way gain nothing.
                ([2.0f32, 0.0, 0.0], [2.0f32, 0.0, 0.0, 0.0, 0.0], StopReason::Residual),
                ([2.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0, 0.0], StopReason::Exhausted),
                ([2.0, 1.0, 1.0], [2.0, 0.0, 0.0, 1.0, 0.0], StopReason::Exhausted),
                ([-2.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 4.0], StopReason::Exhausted),
                // All correlations are negative or zero.
                ([0.0, -1.0, 3.0], [0.0; 5], StopReason::Exhausted),
                ([0.0, 0.0, 0.0], [0.0; 5], StopReason::Residual),
            ] {
                let found = solve(&operator, &signal, 3, true);
                assert_eq!(host(found.codes), expected, "{way}: {signal:?}");
                let report = &found.reports[0];
                assert_eq!(report.stop, stop, "{way}: {signal:?} {report:?}");
                assert_eq!(report.nonzeros, expected.iter().filter(|value| **value != 0.0).count());
            }
        }
    });
}

/// A mask leaves the same as signals and atoms without the samples that it hides.
#[test]
fn masks_hide_samples() {
    on_every_device(|device| {
        let mut random = rng(3);
        let (atoms, signals) = (normals(&mut random, 16 * LEN), normals(&mut random, 6 * LEN));
        let known: Vec<usize> = (0..LEN).filter(|place| place % 3 != 1).collect();
        let cut = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(LEN).flat_map(|row| known.iter().map(|&place| row[place])).collect()
        };
        let expected = {
            let operator = operator_of(&cut(&atoms), known.len(), OperatorForm::Gram, &device.device);
            host(solve(&operator, &cut(&signals), 4, true).codes)
        };
        let mask: Vec<f32> = (0..LEN).map(|place| f32::from(known.contains(&place))).collect();
        for way in [OperatorForm::Gram, OperatorForm::Cascade] {
            let operator = operator_of(&atoms, LEN, way, &device.device);
            for rows in [1, 6] {
                let mask = tensor(&mask.repeat(rows), operator.signal().batched(rows), &device.device);
                let dims = operator.signal().batched(6);
                let problem = Problem::new(&operator, tensor(&signals, dims, &device.device)).unwrap();
                let found = pursuit(4, true).solve(&problem.with_mask(mask).unwrap()).unwrap();
                for (found, expected) in host(found.codes).iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-4, "{way}: {found} {expected}");
                }
            }
        }
    });
}

/// Without limits a projection is the pursuit; with them its codes stay non-negative and within.
#[test]
fn projections_are_nonnegative_too() {
    on_every_device(|device| {
        let case =
            Case::random(SignalShape::new(1, 8, 8), vec![LayerShape::new(5, 3, 1), LayerShape::new(12, 6, 1)], 4);
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        let signals = tensor(&case.signals(5), case.config.signal.batched(5), &device.device);
        let problem = Problem::new(&operator, signals).unwrap();
        let unlimited: Vec<usize> = operator.geometry().layers().iter().map(|layer| layer.code.len()).collect();
        let greedy = |limits: &[usize], nonzeros| {
            let plain = GreedyProjectionConfig::new(limits.to_vec());
            let config = GreedyProjectionConfig { nonzeros: Some(nonzeros), nonnegative: true, ..plain };
            config.init().unwrap().project(&problem).unwrap()
        };
        for nonzeros in 1..8 {
            let expected = pursuit(nonzeros, true).solve(&problem).unwrap();
            let found = greedy(&unlimited, nonzeros);
            assert_eq!(host(found.representations.deepest()), host(expected.codes));
            for (found, expected) in found.reports.iter().zip(&expected.reports) {
                assert_eq!((found.nonzeros, found.stop), (expected.nonzeros, expected.stop));
            }
        }
        let limited = greedy(&[unlimited[0], 3], 8);
        assert!(host(limited.representations.deepest()).iter().all(|value| *value >= 0.0));
        assert!(limited.representations.stripe_norms()[1].iter().all(|norm| *norm <= 3));
        let signed = greedy_signed(&problem, &unlimited);
        assert!(host(signed).iter().any(|value| *value < 0.0), "signs made no difference");
    });
}

fn greedy_signed(problem: &Problem, limits: &[usize]) -> Tensor<4> {
    let config = GreedyProjectionConfig { nonzeros: Some(6), ..GreedyProjectionConfig::new(limits.to_vec()) };
    config.init().unwrap().project(problem).unwrap().representations.deepest()
}

#[test]
fn it_is_read_by_name() {
    for text in [
        r#"{"pursuit": "orthogonal-matching-pursuit", "nonzeros": 3, "nonnegative": true}"#,
        r#"{"pursuit": "greedy-projection", "limits": [9, 3], "nonnegative": true}"#,
    ] {
        let config: PursuitConfig = serde_json::from_str(text).unwrap();
        let again: PursuitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        assert!(serde_json::to_string(&config).unwrap().contains(r#""nonnegative":true"#));
        // Files from before the field existed.
        let before: PursuitConfig = serde_json::from_str(&text.replace(r#", "nonnegative": true"#, "")).unwrap();
        assert_ne!(config, before);
    }
}
