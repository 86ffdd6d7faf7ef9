//! Linear classifiers: multinomial logistic regression and linear support vector machines.
//!
//! With scores s = Wx + b of a feature vector x and label l, the mean over the training vectors of
//!
//! ```text
//! logistic       log Σ_c exp(s_c) − s_l
//! squared hinge  Σ_c max(0, 1 − t_c s_c)²,   t_c = 1 for c = l, else −1   (one class against all others)
//! ```
//!
//! plus ½α‖W‖² is minimised by L-BFGS; the offsets b are not penalised. Sums over vectors are taken in parts of fixed size, each
//! computed by one core, and added in `f64` in their order, so that results do not depend on the number of threads.

use super::features::Features;
use super::lbfgs::{Stop, minimize};
use crate::error::{Error, Result};
use crate::kernels::simd::{inner_products, vectorised};
use crate::text::counted;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What a wrong or an unsure score costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Loss {
    /// Multinomial logistic regression.
    Logistic,
    /// Linear support vector machines, each class against all others, squared hinge. The default.
    #[default]
    #[strum(serialize = "svm")]
    #[serde(rename = "svm", alias = "squared-hinge")]
    SquaredHinge,
}

impl Loss {
    /// Loss of one vector's scores; they are replaced by the derivatives.
    #[inline(always)]
    fn differentiate(self, scores: &mut [f32], label: usize) -> f64 {
        match self {
            Self::SquaredHinge => {
                let mut loss = 0.0;
                for (class, score) in scores.iter_mut().enumerate() {
                    let sign = if class == label { 1.0 } else { -1.0 };
                    let lacking = (1.0 - sign * *score).max(0.0);
                    loss += f64::from(lacking * lacking);
                    *score = -2.0 * sign * lacking;
                }
                loss
            }
            Self::Logistic => {
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let own = scores[label];
                let mut sum = 0.0;
                for score in scores.iter_mut() {
                    *score = (*score - largest).exp();
                    sum += *score;
                }
                scores.iter_mut().for_each(|score| *score /= sum);
                scores[label] -= 1.0;
                f64::from(sum.ln() + largest - own)
            }
        }
    }
}

/// Parameters of a fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearClassifierConfig {
    /// The loss. Default: squared hinge.
    pub loss: Loss,
    /// α ≥ 0, the weight of ½‖W‖² beside the mean loss. Default 1e-3.
    pub penalty: f64,
    /// Most iterations of L-BFGS, at least 1. Default 300.
    pub max_iterations: usize,
    /// Part, in [0, 1), of the gradient at the start at which it ends. Default 1e-3. It also ends when five iterations gain less than
    /// a hundredth of that part of the value.
    pub tolerance: f64,
}

impl Default for LinearClassifierConfig {
    fn default() -> Self {
        Self { loss: Loss::default(), penalty: 1e-3, max_iterations: 300, tolerance: 1e-3 }
    }
}

impl LinearClassifierConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A penalty that is negative or not finite, no iteration, a tolerance outside [0, 1).
    pub fn check(&self) -> Result<()> {
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            return Err(Error::parameter("penalty", self.penalty, "a finite number ≥ 0"));
        }
        if self.max_iterations == 0 {
            return Err(Error::parameter("max_iterations", 0, "at least 1"));
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            return Err(Error::parameter("tolerance", self.tolerance, "a number of at least 0 and less than 1"));
        }
        Ok(())
    }

    /// Fits a classifier to the vectors `rows` of `features`, starting from `start` where one is given.
    ///
    /// `labels` has one label below `classes` for each of all vectors.
    ///
    /// # Errors
    /// As [`Self::check`]; not one label per vector; a label that is not below `classes`; no vector; a classifier to start from
    /// that has other classes or features.
    pub fn fit(
        &self,
        features: &Features,
        labels: &[u8],
        rows: &[usize],
        classes: usize,
        start: Option<&LinearClassifier>,
    ) -> Result<LinearClassifier> {
        self.check()?;
        if labels.len() != features.rows() {
            return Err(Error::shape("labels", format!("{}, one per vector", features.rows()), labels.len()));
        }
        if rows.is_empty() {
            return Err(Error::shape("vectors to fit a classifier to", "at least one", 0));
        }
        if let Some(label) = rows.iter().map(|&row| labels[row]).find(|&label| usize::from(label) >= classes) {
            return Err(Error::parameter("label", label, format!("less than {classes}, the number of classes")));
        }
        let columns = features.columns();
        let mut found = match start {
            Some(start) if start.classes == classes && start.columns == columns => start.clone(),
            Some(start) => {
                let (expected, found) =
                    (format!("{}, {}", counted(classes, "class"), counted(columns, "feature")), start.describe());
                return Err(Error::shape("classifier to start from", expected, found));
            }
            None => LinearClassifier::zero(classes, columns),
        };
        let stop = Stop { gradient: self.tolerance, decrease: 0.01 * self.tolerance, iterations: self.max_iterations };
        let mut current = found.clone();
        let count = rows.len() as f64;
        let minimum = minimize(found.to_values(), stop, |values, gradient| {
            current.set_values(values);
            let loss = self.evaluate(&current, features, labels, rows, gradient);
            let mut value = loss / count;
            gradient.iter_mut().for_each(|gradient| *gradient /= count);
            for (gradient, weight) in gradient.iter_mut().zip(values).take(classes * columns) {
                *gradient += self.penalty * weight;
                value += 0.5 * self.penalty * weight * weight;
            }
            Ok::<_, Error>(value)
        })?;
        found.set_values(&minimum.point);
        found.iterations = minimum.iterations;
        found.objective = minimum.value;
        found.converged = minimum.converged;
        Ok(found)
    }

    /// Sum of the losses; the sum of their derivatives by weights and offsets is written into `gradient`.
    fn evaluate(
        &self,
        classifier: &LinearClassifier,
        features: &Features,
        labels: &[u8],
        rows: &[usize],
        gradient: &mut [f64],
    ) -> f64 {
        let &LinearClassifier { classes, columns, .. } = classifier;
        gradient.fill(0.0);
        let mut loss = 0.0;
        // No more partial sums at once than there are cores to fill.
        for group in rows.chunks(PART * PARTS_AT_ONCE) {
            let parts: Vec<(f64, Vec<f32>)> = group
                .par_chunks(PART)
                .map(|rows| {
                    let mut sums = vec![0.0f32; classes * (columns + 1)];
                    let mut scores = vec![0.0f32; BLOCK * classes];
                    let mut loss = 0.0;
                    for rows in rows.chunks(BLOCK) {
                        let scores = &mut scores[..rows.len() * classes];
                        classifier.scores(features, rows, scores);
                        vectorised(
                            #[inline(always)]
                            || {
                                for (&row, scores) in rows.iter().zip(scores.chunks_exact_mut(classes)) {
                                    loss += self.loss.differentiate(scores, usize::from(labels[row]));
                                }
                                let (of_weights, of_offsets) = sums.split_at_mut(classes * columns);
                                for scores in scores.chunks_exact(classes) {
                                    of_offsets.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
                                }
                                // Tiles of sums stay in the cache while the block's vectors pass by.
                                for first in (0..columns).step_by(TILE) {
                                    let end = (first + TILE).min(columns);
                                    for class in 0..classes {
                                        let sums = &mut of_weights[class * columns + first..class * columns + end];
                                        for (&row, scores) in rows.iter().zip(scores.chunks_exact(classes)) {
                                            let by = scores[class];
                                            if by != 0.0 {
                                                let row = &features.row(row)[first..end];
                                                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += by * value);
                                            }
                                        }
                                    }
                                }
                            },
                        );
                    }
                    (loss, sums)
                })
                .collect();
            for (part_loss, sums) in parts {
                loss += part_loss;
                gradient.iter_mut().zip(sums).for_each(|(gradient, sum)| *gradient += f64::from(sum));
            }
        }
        loss
    }
}

/// Vectors whose sums are taken in `f32`.
const PART: usize = 512;

/// Such parts that are held at once.
const PARTS_AT_ONCE: usize = 16;

/// Vectors whose scores are computed before their gradients are added.
const BLOCK: usize = 32;

/// Features whose sums are worked on at once.
const TILE: usize = 1024;

/// A linear classifier.
#[derive(Debug, Clone)]
pub struct LinearClassifier {
    classes: usize,
    columns: usize,
    /// `[classes, features]`.
    weights: Vec<f32>,
    offsets: Vec<f32>,
    /// Iterations that its fit took.
    pub iterations: usize,
    /// What was minimised, at the end.
    pub objective: f64,
    /// Whether the fit ended because nothing was left to gain rather than by the number of iterations.
    pub converged: bool,
}

impl LinearClassifier {
    fn zero(classes: usize, columns: usize) -> Self {
        let (weights, offsets) = (vec![0.0; classes * columns], vec![0.0; classes]);
        Self { classes, columns, weights, offsets, iterations: 0, objective: f64::INFINITY, converged: false }
    }

    fn describe(&self) -> String {
        format!("{}, {}", counted(self.classes, "class"), counted(self.columns, "feature"))
    }

    fn to_values(&self) -> Vec<f64> {
        self.weights.iter().chain(&self.offsets).map(|&value| f64::from(value)).collect()
    }

    fn set_values(&mut self, values: &[f64]) {
        let own = self.weights.iter_mut().chain(&mut self.offsets);
        own.zip(values).for_each(|(own, value)| *own = *value as f32);
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class of the highest score for the vectors `rows` of `features`.
    ///
    /// # Errors
    /// Vectors of another length.
    pub fn predict(&self, features: &Features, rows: &[usize]) -> Result<Vec<u8>> {
        if features.columns() != self.columns {
            return Err(Error::shape("feature vectors", counted(self.columns, "value"), features.columns()));
        }
        let parts: Vec<Vec<u8>> = rows
            .par_chunks(BLOCK)
            .map(|rows| {
                let mut scores = vec![0.0; rows.len() * self.classes];
                self.scores(features, rows, &mut scores);
                let best = scores.chunks_exact(self.classes).map(|scores| {
                    let best = (0..self.classes).max_by(|&left, &right| scores[left].total_cmp(&scores[right]));
                    best.unwrap_or(0) as u8
                });
                best.collect()
            })
            .collect();
        Ok(parts.concat())
    }

    /// Wx + b of the vectors `rows` of `features`, one after the other.
    fn scores(&self, features: &Features, rows: &[usize], scores: &mut [f32]) {
        let vectors: Vec<&[f32]> = rows.iter().map(|&row| features.row(row)).collect();
        inner_products(&vectors, &self.weights, self.columns, scores);
        for scores in scores.chunks_exact_mut(self.classes) {
            scores.iter_mut().zip(&self.offsets).for_each(|(score, offset)| *score += offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::IntoEnumIterator;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Vectors of three classes around three centres.
    fn drawn(count: usize, columns: usize, spread: f32) -> (Features, Vec<u8>) {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let centres: Vec<f32> = (0..3 * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        let labels: Vec<u8> = (0..count).map(|_| random.random_range(0..3)).collect();
        let mut values = Vec::with_capacity(count * columns);
        for &label in &labels {
            for column in 0..columns {
                let centre = centres[usize::from(label) * columns + column];
                values.push(centre + spread * random.random_range(-1.0f32..1.0));
            }
        }
        (Features::new(values, columns).unwrap(), labels)
    }

    #[test]
    fn derivatives_are_differences() {
        let (features, labels) = drawn(40, 7, 1.0);
        let rows: Vec<usize> = (0..40).filter(|row| row % 3 != 0).collect();
        for loss in Loss::iter() {
            let config = LinearClassifierConfig { loss, ..LinearClassifierConfig::default() };
            let mut random = ChaCha8Rng::seed_from_u64(6);
            let point: Vec<f64> = (0..24).map(|_| random.random_range(-0.5..0.5)).collect();
            let value = |point: &[f64], gradient: &mut [f64]| {
                let mut classifier = LinearClassifier::zero(3, 7);
                classifier.set_values(point);
                config.evaluate(&classifier, &features, &labels, &rows, gradient)
            };
            let mut gradient = vec![0.0; 24];
            value(&point, &mut gradient);
            for place in 0..24 {
                let at = |shift: f64| {
                    let mut moved = point.clone();
                    moved[place] += shift;
                    value(&moved, &mut [0.0; 24])
                };
                let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
                // Scores are computed in `f32`; the hinge is only once differentiable.
                let error = (difference - gradient[place]).abs();
                assert!(error < 5e-3 * (1.0 + gradient[place].abs()), "{loss:?} {place}: {error}");
            }
        }
    }

    /// At the minimum of a penalised fit the gradient vanishes, whatever the start.
    #[test]
    fn fits_do_not_depend_on_the_start() {
        let (features, labels) = drawn(300, 12, 1.5);
        let rows: Vec<usize> = (0..300).collect();
        for loss in Loss::iter() {
            let config = LinearClassifierConfig { loss, penalty: 0.05, max_iterations: 2000, tolerance: 1e-6 };
            let cold = config.fit(&features, &labels, &rows, 3, None).unwrap();
            let other = LinearClassifierConfig { penalty: 1e-4, ..config.clone() };
            let other = other.fit(&features, &labels, &rows, 3, None).unwrap();
            let warm = config.fit(&features, &labels, &rows, 3, Some(&other)).unwrap();
            assert!(cold.converged && warm.converged);
            assert!((cold.objective / warm.objective - 1.0).abs() < 1e-5, "{} {}", cold.objective, warm.objective);
            for (cold, warm) in cold.weights.iter().zip(&warm.weights) {
                assert!((cold - warm).abs() < 1e-2, "{cold} {warm}");
            }
        }
    }

    #[test]
    fn separated_classes_are_told_apart() {
        let (features, labels) = drawn(200, 9, 0.1);
        let rows: Vec<usize> = (0..100).collect();
        let others: Vec<usize> = (100..200).collect();
        for loss in Loss::iter() {
            let config = LinearClassifierConfig { loss, ..LinearClassifierConfig::default() };
            let classifier = config.fit(&features, &labels, &rows, 3, None).unwrap();
            assert_eq!(classifier.predict(&features, &others).unwrap(), labels[100..]);
        }
    }

    /// The same numbers on one thread as on three.
    #[test]
    fn fits_do_not_depend_on_threads() {
        let (features, labels) = drawn(3000, 5, 2.0);
        let rows: Vec<usize> = (0..3000).collect();
        let fit = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LinearClassifierConfig::default().fit(&features, &labels, &rows, 3, None).unwrap().weights)
        };
        assert_eq!(fit(1), fit(3));
    }

    #[test]
    fn mistakes_are_errors() {
        let (features, labels) = drawn(10, 4, 1.0);
        let rows: Vec<usize> = (0..10).collect();
        let fit = |config: LinearClassifierConfig, labels: &[u8], rows: &[usize], classes| {
            config.fit(&features, labels, rows, classes, None).err().map(|error| error.to_string())
        };
        let default = LinearClassifierConfig::default;
        let penalty = LinearClassifierConfig { penalty: f64::NAN, ..default() };
        assert!(fit(penalty, &labels, &rows, 3).is_some_and(|error| error.starts_with("penalty = NaN")));
        assert!(fit(default(), &labels[..3], &rows, 3).is_some_and(|error| error.starts_with("labels: expected 10")));
        assert!(fit(default(), &labels, &[], 3).is_some_and(|error| error.contains("at least one")));
        assert!(fit(default(), &labels, &rows, 2).is_some_and(|error| error.starts_with("label = 2")));
        let other = LinearClassifier::zero(3, 5);
        assert!(default().fit(&features, &labels, &rows, 3, Some(&other)).is_err());
        assert!(other.predict(&features, &rows).is_err());
    }
}
