//! Dictionaries of many vectors: what is done there to save time and memory gives what is done without.

use crate::common::{host, normals, on_every_device, rng, tensor, wide};
use burn::tensor::{Device, Tensor};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Problem, Pursued, Pursuit, StopReason,
};

struct Dictionary {
    len: usize,
    atoms: Vec<f32>,
}

impl Dictionary {
    /// Random atoms that have `lean` times the same direction in common.
    fn new(len: usize, atoms: usize, lean: f32, seed: u64) -> Self {
        let mut random = rng(seed);
        let common = normals(&mut random, len);
        let mut atoms = normals(&mut random, atoms * len);
        for atom in atoms.chunks_exact_mut(len) {
            atom.iter_mut().zip(&common).for_each(|(entry, common)| *entry += lean * common);
            let norm = atom.iter().map(|entry| entry * entry).sum::<f32>().sqrt();
            atom.iter_mut().for_each(|entry| *entry /= norm);
        }
        Self { len, atoms }
    }

    fn operator(&self, way: OperatorForm, device: &Device) -> Operator {
        let (shape, count) = (SignalShape::new(self.len, 1, 1), self.atoms.len() / self.len);
        let config = ModelConfig::new(shape, vec![LayerShape::new(count, 1, 1)]);
        let model = Mlcsc::from_filters(config, vec![tensor(&self.atoms, [count, self.len, 1, 1], device)]).unwrap();
        model.operator(shape, way).unwrap()
    }

    /// Sums of `nonzeros` atoms, those of one sign where they are to be, and a little noise.
    fn signals(&self, count: usize, nonzeros: usize, nonnegative: bool, seed: u64) -> Vec<f32> {
        let mut random = rng(seed);
        let atoms = self.atoms.len() / self.len;
        let mut signals: Vec<f32> = normals(&mut random, count * self.len).iter().map(|value| 0.02 * value).collect();
        for (row, signal) in signals.chunks_exact_mut(self.len).enumerate() {
            for (index, value) in normals(&mut random, nonzeros).into_iter().enumerate() {
                let place = (row * 7919 + index * 104_729) % atoms;
                let value = if nonnegative { value.abs() } else { value };
                signal
                    .iter_mut()
                    .zip(&self.atoms[place * self.len..])
                    .for_each(|(sample, entry)| *sample += value * entry);
            }
        }
        signals
    }
}

fn problem<'a>(operator: &'a Operator, signals: &[f32]) -> Problem<'a> {
    let count = signals.len() / operator.signal().len();
    Problem::new(operator, tensor(signals, operator.signal().batched(count), &operator.device())).unwrap()
}

fn matched(operator: &Operator, signals: &[f32], nonzeros: usize, residual: f32, nonnegative: bool) -> Pursued {
    let config =
        OrthogonalMatchingPursuitConfig { residual, nonnegative, ..OrthogonalMatchingPursuitConfig::new(nonzeros) };
    config.init().unwrap().solve(&problem(operator, signals)).unwrap()
}

/// Picks among few atoms that are checked afterwards are those among all: for atoms at random, and for some that are so alike that
/// few picks are foreseen.
#[test]
fn matching_many_atoms_is_matching() {
    on_every_device(|device| {
        for (number, lean) in [0.0, 0.5, 2.0].into_iter().enumerate() {
            // Not a multiple of any number of lanes.
            let mut dictionary = Dictionary::new(50, 1501, lean, 3 + number as u64);
            // A copy, a negative one, a longer one and a zero atom.
            let first = dictionary.atoms[..50].to_vec();
            dictionary.atoms[700 * 50..701 * 50].copy_from_slice(&first);
            for (place, factor) in [(900, -1.0), (1300, 2.0), (1400, 0.0)] {
                let copy: Vec<f32> = first.iter().map(|entry| factor * entry).collect();
                dictionary.atoms[place * 50..][..50].copy_from_slice(&copy);
            }
            let [gram, other] =
                [OperatorForm::Gram, OperatorForm::Cascade].map(|way| dictionary.operator(way, &device.device));
            for nonnegative in [false, true] {
                let mut signals = dictionary.signals(12, 40, nonnegative, 5);
                signals[..50].copy_from_slice(&first);
                signals[50..100].fill(0.0);
                for (nonzeros, residual) in [(9, 0.0), (30, 0.0), (30, 0.5), (38, 0.0)] {
                    let found = matched(&gram, &signals, nonzeros, residual, nonnegative);
                    let expected = matched(&other, &signals, nonzeros, residual, nonnegative);
                    let what = format!("lean {lean}, {nonzeros} non-zeros, {residual}, {nonnegative}");
                    for (row, (found, expected)) in found.reports.iter().zip(&expected.reports).enumerate() {
                        // Of an atom itself rounding is left, or nothing.
                        if expected.data_term > 1e-6 {
                            assert_eq!(found.stop, expected.stop, "{what}, {row}: {found:?} {expected:?}");
                            assert_eq!(found.nonzeros, expected.nonzeros, "{what}, {row}: {found:?} {expected:?}");
                        }
                        let near = (found.data_term - expected.data_term).abs() <= 1e-4 * expected.data_term + 1e-6;
                        assert!(near, "{what}, {row}: {found:?} {expected:?}");
                    }
                    let codes = [found.codes, expected.codes].map(|codes| {
                        let mut codes = host(codes);
                        assert!(!nonnegative || codes.iter().all(|value| *value >= 0.0), "{what}");
                        // Which of the copies of an atom it is, is rounding.
                        for code in codes.chunks_exact_mut(1501) {
                            code[0] += code[700] - code[900] + 2.0 * code[1300];
                            [700, 900, 1300].into_iter().for_each(|copy| code[copy] = 0.0);
                        }
                        codes
                    });
                    for (found, expected) in codes[0].iter().zip(&codes[1]) {
                        assert!((found - expected).abs() < 1e-3, "{what}: {found} {expected}");
                    }
                }
            }
        }
    });
}

/// Bit for bit, whatever stands beside a signal.
#[test]
fn signals_of_a_batch_do_not_touch() {
    on_every_device(|device| {
        let dictionary = Dictionary::new(40, 4100, 0.3, 8);
        let signals = dictionary.signals(70, 10, false, 9);
        for way in [OperatorForm::Gram, OperatorForm::Matrix] {
            let operator = dictionary.operator(way, &device.device);
            let of = |signals: &[f32]| {
                let basis = BasisPursuitConfig { gap: 1e-4, ..BasisPursuitConfig::default() };
                let asked = problem(&operator, signals).with_lambda(Lambda::Relative(0.1)).unwrap();
                let lasso = Algorithm::CoordinateDescent.init(&basis, &operator).unwrap().solve(&asked).unwrap();
                [host(matched(&operator, signals, 20, 0.0, false).codes), host(lasso.codes)]
            };
            let together = of(&signals);
            for rows in [0..1, 3..20, 60..70] {
                let alone = of(&signals[rows.start * 40..rows.end * 40]);
                for (together, alone) in together.iter().zip(&alone) {
                    assert!(*alone == together[rows.start * 4100..rows.end * 4100], "{way}, {rows:?}");
                }
            }
        }
    });
}

/// Without a Gram matrix of all atoms the lasso has the same minimum: with weights, a mask, codes to start from, signs.
#[test]
fn descent_does_without_a_gram_matrix() {
    on_every_device(|device| {
        let dictionary = Dictionary::new(40, 4100, 0.3, 11);
        let mut signals = dictionary.signals(20, 10, false, 12);
        signals[40..80].fill(0.0);
        let [gram, matrix] =
            [OperatorForm::Gram, OperatorForm::Matrix].map(|way| dictionary.operator(way, &device.device));
        let weights: Vec<f32> = (0..4100).map(|atom| 0.5 + (atom % 7) as f32 / 7.0).collect();
        let mask: Vec<f32> = (0..40).map(|sample| f32::from(sample % 5 != 0)).collect();
        let start: Vec<f32> = (0..20 * 4100).map(|place| if place % 97 == 0 { 0.1 } else { 0.0 }).collect();
        for variant in 0..5 {
            let nonnegative = variant % 2 == 1;
            let basis = BasisPursuitConfig { gap: 1e-5, nonnegative, ..BasisPursuitConfig::default() };
            let solve = |operator: &Operator, algorithm: Algorithm| {
                let mut asked = problem(operator, &signals).with_lambda(Lambda::Relative(0.1)).unwrap();
                if variant >= 2 {
                    asked = asked.with_weights(1, weights.clone()).unwrap();
                }
                if variant >= 3 {
                    let mask = tensor(&mask, operator.signal().batched(1), &operator.device());
                    asked = asked.with_mask(mask).unwrap();
                }
                if variant >= 4 {
                    let start: Tensor<4> = tensor(&start, operator.code().batched(20), &operator.device());
                    asked = asked.with_start(start).unwrap();
                }
                algorithm.init_for(&basis, &asked).unwrap().solve(&asked).unwrap()
            };
            let expected = solve(&gram, Algorithm::CoordinateDescent);
            for algorithm in [Algorithm::CoordinateDescent, Algorithm::ActiveSet, Algorithm::Auto] {
                let found = solve(&matrix, algorithm);
                for (found, expected) in found.reports.iter().zip(&expected.reports) {
                    let what = format!("{algorithm}, {variant}: {found:?} {expected:?}");
                    assert_eq!(found.stop, StopReason::DualityGap, "{what}");
                    assert!((found.lambda - expected.lambda).abs() <= 1e-5 * expected.lambda, "{what}");
                    // Both are within 1e-5 of the minimum, which is 0 for a signal of zeros.
                    let apart = (found.objective - expected.objective).abs();
                    assert!(apart <= 2e-5 * expected.objective + 1e-12, "{what}");
                }
                // The data term is that of the code, by plain loops.
                let codes = host(found.codes);
                for (row, report) in found.reports.iter().enumerate() {
                    let code = wide(&codes[row * 4100..][..4100]);
                    assert!(!nonnegative || code.iter().all(|value| *value >= 0.0));
                    let mut left = wide(&signals[row * 40..][..40]);
                    for (atom, value) in dictionary.atoms.chunks_exact(40).zip(code) {
                        left.iter_mut().zip(atom).for_each(|(left, entry)| *left -= value * f64::from(*entry));
                    }
                    let known = left.iter().zip(&mask).filter(|(_, mask)| variant < 3 || **mask > 0.0);
                    let term = known.map(|(left, _)| 0.5 * left * left).sum::<f64>();
                    assert!((term - f64::from(report.data_term)).abs() <= 1e-4 * term + 1e-6, "{report:?} {term}");
                }
            }
        }
    });
}
