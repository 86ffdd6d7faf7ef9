//! Simultaneous orthogonal matching pursuit: signals of a group share one support.
//!
//! J. Tropp, A. Gilbert, M. Strauss, "Algorithms for simultaneous sparse approximation. Part I: Greedy pursuit", Signal Processing 86,
//! 2006. The atom whose correlations with the residuals of all signals have the largest energy joins, and every signal is projected onto
//! the atoms of the support. Signals that are alike but for noise agree on their atoms more surely than each would alone. A group of one
//! is coded by orthogonal matching pursuit.

use crate::kernels::linear_algebra::dot;
use crate::kernels::simd::{inner_products, subtract_rows, vectorised};
use crate::kernels::sparse::energy;

/// Part of an atom's energy that has to be outside the span of the support for it to join.
const INDEPENDENT: f64 = 1e-6;

/// Atoms of unit norm, and their inner products.
#[derive(Debug, Clone)]
pub(crate) struct JointDictionary {
    len: usize,
    atoms: Vec<f32>,
    gram: Vec<f32>,
}

/// Memory that is kept from group to group.
#[derive(Debug, Default)]
pub(crate) struct JointScratch {
    /// Correlations of all atoms with the signals, and with their residuals, one row a signal.
    of_signals: Vec<f32>,
    of_residuals: Vec<f32>,
    scores: Vec<f32>,
    support: Vec<usize>,
    /// Rows of the Cholesky factor, one after the other.
    factor: Vec<f64>,
    /// The signals in the directions that the support has gained, one row a direction.
    projected: Vec<f64>,
    /// Coefficients, one row an atom, and those of one signal.
    coefficients: Vec<f64>,
    own: Vec<f32>,
}

impl JointDictionary {
    /// Of atoms of `len` values each, which are divided by their norms; those that are zero are left out.
    pub(crate) fn new(atoms: &[f32], len: usize) -> Self {
        let mut unit = Vec::with_capacity(atoms.len());
        for atom in atoms.chunks_exact(len) {
            let norm = energy(atom).sqrt() as f32;
            if norm > 1e-6 {
                unit.extend(atom.iter().map(|value| value / norm));
            }
        }
        let rows: Vec<&[f32]> = unit.chunks_exact(len).collect();
        let mut gram = vec![0.0; rows.len() * rows.len()];
        inner_products(&rows, &unit, len, &mut gram);
        Self { len, atoms: unit, gram }
    }

    /// Values of an atom.
    pub(crate) fn atom_len(&self) -> usize {
        self.len
    }

    /// The atoms, one after the other.
    pub(crate) fn atoms(&self) -> &[f32] {
        &self.atoms
    }

    /// Number of atoms.
    pub(crate) fn count(&self) -> usize {
        self.atoms.len() / self.len
    }

    /// Replaces signals, one after the other, by their approximations over one support: as many atoms as it takes until the squared
    /// residuals add up to no more than `level`, at most `most`. Returns how many, and whether they were enough.
    pub(crate) fn approximate(
        &self,
        signals: &mut [f32],
        level: f64,
        most: usize,
        scratch: &mut JointScratch,
    ) -> (usize, bool) {
        vectorised(
            #[inline(always)]
            || self.approximate_here(signals, level, most, scratch),
        )
    }

    #[inline(always)]
    fn approximate_here(
        &self,
        signals: &mut [f32],
        level: f64,
        most: usize,
        scratch: &mut JointScratch,
    ) -> (usize, bool) {
        let (len, atoms) = (self.len, self.count());
        let JointScratch { of_signals, of_residuals, scores, support, factor, projected, coefficients, own } = scratch;
        support.clear();
        for values in [&mut *factor, &mut *projected, &mut *coefficients] {
            values.clear();
        }
        let mut left = energy(signals);
        if left > level && most > 0 {
            let rows: Vec<&[f32]> = signals.chunks_exact(len).collect();
            of_signals.resize(rows.len() * atoms, 0.0);
            inner_products(&rows, &self.atoms, len, of_signals);
            of_residuals.clone_from(of_signals);
        }
        let count = signals.len() / len;
        while left > level && support.len() < most {
            scores.clear();
            scores.resize(atoms, 0.0);
            for row in of_residuals.chunks_exact(atoms) {
                scores.iter_mut().zip(row).for_each(|(score, value)| *score += value * value);
            }
            support.iter().for_each(|&atom| scores[atom] = 0.0);
            let (mut best, mut score) = (None, 0.0);
            for (atom, &found) in scores.iter().enumerate() {
                if found > score {
                    (best, score) = (Some(atom), found);
                }
            }
            let Some(atom) = best else { break };
            // One more row of the factor, by forward substitution.
            let (start, size) = (factor.len(), support.len());
            for (index, &other) in support.iter().enumerate() {
                let row = index * (index + 1) / 2;
                let known = dot(&factor[start..], &factor[row..row + index]);
                factor.push((f64::from(self.gram[other * atoms + atom]) - known) / factor[row + index]);
            }
            let outside = f64::from(self.gram[atom * atoms + atom]) - dot(&factor[start..], &factor[start..]);
            if outside < INDEPENDENT {
                break;
            }
            let length = outside.sqrt();
            for signal in 0..count {
                let overlaps = (0..size).map(|index| factor[start + index] * projected[index * count + signal]);
                let value = (f64::from(of_signals[signal * atoms + atom]) - overlaps.sum::<f64>()) / length;
                left -= value * value;
                projected.push(value);
            }
            factor.push(length);
            support.push(atom);
            // Back substitution, for all signals at once.
            coefficients.clone_from(projected);
            for index in (0..=size).rev() {
                let row = index * (index + 1) / 2;
                let (earlier, own) = coefficients.split_at_mut(index * count);
                let own = &mut own[..count];
                own.iter_mut().for_each(|value| *value /= factor[row + index]);
                for (other, values) in earlier.chunks_exact_mut(count).enumerate() {
                    values.iter_mut().zip(&*own).for_each(|(value, own)| *value -= factor[row + other] * own);
                }
            }
            if left > level && support.len() < most {
                let rows = of_signals.chunks_exact(atoms).zip(of_residuals.chunks_exact_mut(atoms));
                for (signal, (from, out)) in rows.enumerate() {
                    own.clear();
                    own.extend((0..support.len()).map(|index| coefficients[index * count + signal] as f32));
                    subtract_rows(&self.gram, support, own, from, out);
                }
            }
        }
        for (signal, values) in signals.chunks_exact_mut(len).enumerate() {
            values.fill(0.0);
            for (index, &atom) in support.iter().enumerate() {
                let value = coefficients[index * count + signal] as f32;
                let atom = &self.atoms[atom * len..][..len];
                values.iter_mut().zip(atom).for_each(|(out, entry)| *out += value * entry);
            }
        }
        (support.len(), left <= level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{LayerShape, SignalShape};
    use crate::model::{Mlcsc, ModelConfig, OperatorForm, sample};
    use crate::pursuit::{Lambda, OrthogonalMatchingPursuitConfig, Pursuit};
    use crate::random;
    use burn::tensor::{Tensor, TensorData};

    fn normals(count: usize, seed: u64) -> Vec<f32> {
        random::normal(&mut sample::generator(seed), count)
    }

    #[test]
    fn a_group_of_one_is_coded_by_orthogonal_matching_pursuit() {
        let device = crate::device::named(Some("flex")).unwrap();
        let (len, count, nonzeros) = (12, 30, 4);
        let atoms = normals(len * count, 1);
        let dictionary = JointDictionary::new(&atoms, len);
        let shape = SignalShape::new(len, 1, 1);
        let config = ModelConfig::new(shape, vec![LayerShape::new(count, 1, 1)]);
        let filters = Tensor::from_data(TensorData::new(atoms, [count, len, 1, 1]), &device);
        let operator = Mlcsc::from_filters(config, vec![filters]).unwrap().operator(shape, OperatorForm::Auto).unwrap();
        let signals = normals(5 * len, 2);
        let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap();
        let batch = Tensor::from_data(TensorData::new(signals.clone(), [5, len, 1, 1]), &device);
        let found = pursuit.pursue(&operator, batch, &Lambda::Absolute(0.0)).unwrap();
        let expected = operator.synthesize(found.codes).into_data().iter::<f32>().collect::<Vec<f32>>();
        let mut scratch = JointScratch::default();
        for (signal, expected) in signals.chunks_exact(len).zip(expected.chunks_exact(len)) {
            let mut own = signal.to_vec();
            assert_eq!(dictionary.approximate(&mut own, 0.0, nonzeros, &mut scratch), (nonzeros, false));
            let near = own.iter().zip(expected).all(|(own, expected)| (own - expected).abs() < 1e-4);
            assert!(near, "{own:?} {expected:?}");
        }
    }

    #[test]
    fn a_group_finds_the_support_that_it_shares() {
        let (len, count, group) = (32, 64, 16);
        let dictionary = JointDictionary::new(&normals(len * count, 3), len);
        let (planted, values, noise) = ([5, 17, 40], normals(3 * group, 4), normals(len * group, 5));
        let mut clean = vec![0.0; len * group];
        for (signal, out) in clean.chunks_exact_mut(len).enumerate() {
            for (place, &atom) in planted.iter().enumerate() {
                let entries = &dictionary.atoms[atom * len..][..len];
                out.iter_mut().zip(entries).for_each(|(out, entry)| *out += 3.0 * values[3 * signal + place] * entry);
            }
        }
        let sigma = 0.3;
        let noisy: Vec<f32> = clean.iter().zip(&noise).map(|(value, noise)| value + sigma * noise).collect();
        let error = |found: &[f32]| -> f64 { found.iter().zip(&clean).map(|(a, b)| f64::from(a - b).powi(2)).sum() };
        let mut scratch = JointScratch::default();
        let (mut jointly, level) = (noisy.clone(), f64::from(sigma).powi(2) * (len * group) as f64);
        let found = dictionary.approximate(&mut jointly, level, len, &mut scratch);
        assert_eq!(
            (found.0, planted.iter().all(|atom| scratch.support.contains(atom))),
            (3, true),
            "{:?}",
            scratch.support
        );
        // Three coefficients a signal keep 3 of 32 parts of the noise; alone, each signal also picks atoms for its noise.
        assert!(error(&jointly) < 0.15 * error(&noisy), "{} {}", error(&jointly), error(&noisy));
        let mut alone = noisy.clone();
        for signal in alone.chunks_exact_mut(len) {
            dictionary.approximate(signal, level / group as f64, len, &mut scratch);
        }
        assert!(error(&jointly) < 0.7 * error(&alone), "{} {}", error(&jointly), error(&alone));
    }

    #[test]
    fn what_is_small_already_is_zero() {
        let dictionary = JointDictionary::new(&normals(4 * 8, 6), 4);
        let mut signals = [0.1, -0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(dictionary.approximate(&mut signals, 0.04, 4, &mut JointScratch::default()), (0, true));
        assert_eq!(signals, [0.0; 8]);
    }
}
