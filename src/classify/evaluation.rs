//! How well a linear classifier tells classes apart by features that were found without labels.
//!
//! The penalty is chosen on a part of the training vectors that the fits do not see; with it the classifier is fitted to all
//! training vectors. Test vectors are looked at once, at the very end.

use super::features::{Features, Scaling, Standardization};
use super::linear::{LinearClassifier, LinearClassifierConfig};
use crate::error::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How features are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Loss, iterations, tolerance; its penalty is not used.
    pub classifier: LinearClassifierConfig,
    /// Penalties to choose from, finite and > 0. They are tried from the largest on, until two in a row tell less apart on the
    /// held-out part than the best before them. Default: 1 to 1e-6 in half powers of ten.
    pub penalties: Vec<f64>,
    /// Part, in (0, 1), of the training vectors of every class that penalties are compared on. Default 1/6.
    pub held_out: f64,
    /// Seed of that split and of the choice of labelled vectors. Default 0.
    pub seed: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        let penalties = (0..13).map(|half| 10f64.powf(-0.5 * f64::from(half))).collect();
        Self { classifier: LinearClassifierConfig::default(), penalties, held_out: 1.0 / 6.0, seed: 0 }
    }
}

/// What a classifier made of test vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confusion {
    /// The label of every class, ascending.
    pub labels: Vec<u8>,
    /// Test vectors of a class (rows) that were given a class (columns), in the order of `labels`.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Of predictions beside the truth, both as places in `labels`.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn new(truth: &[u8], predictions: &[u8], labels: &[u8]) -> Self {
        let mut counts = vec![vec![0; labels.len()]; labels.len()];
        for (&class, &prediction) in truth.iter().zip(predictions) {
            counts[usize::from(class)][usize::from(prediction)] += 1;
        }
        Self { labels: labels.into(), counts }
    }

    /// Test vectors.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Those that were given a wrong class.
    pub fn errors(&self) -> usize {
        self.total() - (0..self.counts.len()).map(|class| self.counts[class][class]).sum::<usize>()
    }

    /// Part of them, in [0, 1].
    pub fn error(&self) -> f64 {
        self.errors() as f64 / self.total().max(1) as f64
    }

    /// Wilson's interval that holds the true error with a confidence of 95% (E. B. Wilson, J. American Statistical Association 22,
    /// 1927).
    pub fn interval(&self) -> [f64; 2] {
        let (count, error, z) = (self.total().max(1) as f64, self.error(), 1.959_963_985);
        let centre = error + z * z / (2.0 * count);
        let half = z * (error * (1.0 - error) / count + z * z / (4.0 * count * count)).sqrt();
        let scale = 1.0 + z * z / count;
        [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
    }
}

/// One penalty on the held-out part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// α.
    pub penalty: f64,
    /// Part of the held-out vectors given a wrong class.
    pub error: f64,
    /// Iterations of the fit.
    pub iterations: usize,
}

/// What came of judging.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Training vectors that were used.
    pub labels: usize,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// All that were compared.
    pub candidates: Vec<Candidate>,
    /// The test vectors.
    pub confusion: Confusion,
    /// The label that every test vector was given, in their order.
    #[serde(skip)]
    pub found: Vec<u8>,
    /// Part of the training vectors that the final classifier gives a wrong class.
    pub training_error: f64,
    /// Iterations of the final fit.
    pub iterations: usize,
    /// Whether the final fit ended because nothing was left to gain.
    pub converged: bool,
}

/// Labelled vectors to learn from and to be judged on.
///
/// The classes are the labels that occur among the training vectors, whatever numbers they are.
#[derive(Debug)]
pub struct Labelled {
    train: Features,
    /// Places in `labels`.
    train_classes: Vec<u8>,
    test: Features,
    test_classes: Vec<u8>,
    /// The label of every class, ascending.
    labels: Vec<u8>,
}

impl Labelled {
    /// Features with their labels; they are brought to mean 0 and deviation 1, each or on the average, over the training vectors.
    ///
    /// # Errors
    /// Not one label per vector; vectors of two lengths; fewer than two classes among the training labels; a test label that no
    /// training vector has.
    pub fn new(
        mut train: Features,
        train_labels: Vec<u8>,
        mut test: Features,
        test_labels: Vec<u8>,
        scaling: Scaling,
    ) -> Result<Self> {
        for (what, features, labels) in
            [("training labels", &train, &train_labels), ("test labels", &test, &test_labels)]
        {
            if features.rows() != labels.len() {
                return Err(Error::shape(what, format!("{}, one per vector", features.rows()), labels.len()));
            }
        }
        let mut known = train_labels.clone();
        known.sort_unstable();
        known.dedup();
        if known.len() < 2 {
            return Err(Error::shape("classes among the training labels", "at least two", known.len()));
        }
        let class_of = |label: u8| {
            known.binary_search(&label).map(|class| class as u8).map_err(|_| {
                let labels = known.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
                Error::parameter("test label", label, format!("one of the labels of the training signals: {labels}"))
            })
        };
        let train_classes = train_labels.into_iter().map(class_of).collect::<Result<_>>()?;
        let test_classes = test_labels.into_iter().map(class_of).collect::<Result<_>>()?;
        let standardization = Standardization::of(&train, scaling);
        standardization.apply(&mut train)?;
        standardization.apply(&mut test)?;
        Ok(Self { train, train_classes, test, test_classes, labels: known })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// The label of every class, ascending.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Number of training vectors.
    pub fn training(&self) -> usize {
        self.train.rows()
    }

    /// Values of a vector.
    pub fn columns(&self) -> usize {
        self.train.columns()
    }

    /// Chooses the penalty, fits, and looks at the test vectors. Of the training vectors `labels` are used, drawn with every class in
    /// its proportion; all where it is `None`. `tried` is told every penalty, and ends it, with `None`, by `false`.
    ///
    /// # Errors
    /// Numbers out of range; fewer labels than a split needs.
    pub fn evaluate(
        &self,
        config: &EvaluationConfig,
        labels: Option<usize>,
        mut tried: impl FnMut(&Candidate) -> bool,
    ) -> Result<Option<Evaluation>> {
        config.check()?;
        let wanted = labels.unwrap_or(self.training());
        let least = 2 * self.classes();
        if self.training() < least {
            let expected = format!("at least {least}, two for each of {} classes", self.classes());
            return Err(Error::shape("training signals", expected, self.training()));
        }
        if wanted < least || wanted > self.training() {
            let expected = format!("from {least} (two of every class) to {}", self.training());
            return Err(Error::parameter("labels", wanted, expected));
        }
        let all: Vec<usize> = (0..self.training()).collect();
        let part = wanted as f64 / self.training() as f64;
        let rows = match labels {
            Some(_) => self.divide(&all, part, config.seed).0,
            None => all,
        };
        let (held, seen) = self.divide(&rows, config.held_out, config.seed.wrapping_add(1));
        let mut penalties = config.penalties.clone();
        penalties.sort_by(|left, right| right.total_cmp(left));
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut best: Option<(f64, f64, LinearClassifier)> = None;
        let mut start: Option<LinearClassifier> = None;
        let mut worse = 0;
        for penalty in penalties {
            let linear = LinearClassifierConfig { penalty, ..config.classifier.clone() };
            let found = linear.fit(&self.train, &self.train_classes, &seen, self.classes(), start.as_ref())?;
            let error = self.error_of(&found, &held)?;
            let candidate = Candidate { penalty, error, iterations: found.iterations };
            let on = tried(&candidate);
            candidates.push(candidate);
            if !on {
                return Ok(None);
            }
            // Of equals the one of larger penalty stays.
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, penalty, found.clone()));
                worse = 0;
            } else {
                worse += 1;
            }
            if worse == 2 {
                break;
            }
            start = Some(found);
        }
        let Some((_, penalty, found)) = best else {
            return Err(Error::parameter("penalties", "nothing", "at least one"));
        };
        let linear = LinearClassifierConfig { penalty, ..config.classifier.clone() };
        let classifier = linear.fit(&self.train, &self.train_classes, &rows, self.classes(), Some(&found))?;
        let all_test: Vec<usize> = (0..self.test.rows()).collect();
        let predictions = classifier.predict(&self.test, &all_test)?;
        Ok(Some(Evaluation {
            labels: rows.len(),
            penalty,
            candidates,
            confusion: Confusion::new(&self.test_classes, &predictions, &self.labels),
            found: predictions.iter().map(|&class| self.labels[usize::from(class)]).collect(),
            training_error: self.error_of(&classifier, &rows)?,
            iterations: classifier.iterations,
            converged: classifier.converged,
        }))
    }

    fn error_of(&self, classifier: &LinearClassifier, rows: &[usize]) -> Result<f64> {
        let predictions = classifier.predict(&self.train, rows)?;
        let wrong = rows.iter().zip(predictions).filter(|&(&row, class)| self.train_classes[row] != class).count();
        Ok(wrong as f64 / rows.len().max(1) as f64)
    }

    /// Divides training vectors: that part of every class (at least one vector, and not all of them), and the rest.
    fn divide(&self, rows: &[usize], part: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for class in 0..self.classes() {
            let mut own: Vec<usize> =
                rows.iter().copied().filter(|&row| usize::from(self.train_classes[row]) == class).collect();
            own.shuffle(&mut random);
            let count = ((own.len() as f64 * part).round() as usize).clamp(1.min(own.len()), own.len().max(2) - 1);
            second.extend(own.split_off(count.min(own.len())));
            first.extend(own);
        }
        first.sort_unstable();
        second.sort_unstable();
        (first, second)
    }
}

impl EvaluationConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// As [`LinearClassifierConfig::check`]; no penalty or one that is not positive; a part outside (0, 1).
    pub fn check(&self) -> Result<()> {
        self.classifier.check()?;
        if self.penalties.is_empty() {
            return Err(Error::parameter("penalties", "nothing", "at least one"));
        }
        if let Some(penalty) = self.penalties.iter().find(|penalty| !(penalty.is_finite() && **penalty > 0.0)) {
            return Err(Error::parameter("penalties", penalty, "finite numbers > 0"));
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return Err(Error::parameter("held_out", self.held_out, "a part in (0, 1)"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    /// Two classes by the sign of one feature among noise, one label in ten wrong.
    fn drawn(count: usize, seed: u64) -> (Features, Vec<u8>) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut labels = Vec::with_capacity(count);
        let mut values = Vec::with_capacity(count * 6);
        for _ in 0..count {
            let label = random.random_range(0..2u8);
            labels.push(if random.random_range(0..10) == 0 { 1 - label } else { label });
            values.push(if label == 1 { 3.0 } else { -3.0 } + random.random_range(-1.0f32..1.0));
            values.extend((0..5).map(|_| random.random_range(-50.0f32..50.0)));
        }
        (Features::new(values, 6).unwrap(), labels)
    }

    fn labelled() -> Labelled {
        let ((train, train_labels), (test, test_labels)) = (drawn(600, 1), drawn(500, 2));
        Labelled::new(train, train_labels, test, test_labels, Scaling::Each).unwrap()
    }

    #[test]
    fn what_is_left_is_the_noise_of_the_labels() {
        let labelled = labelled();
        let found = labelled.evaluate(&EvaluationConfig::default(), None, |_| true).unwrap().unwrap();
        let error = found.confusion.error();
        assert!((0.06..0.16).contains(&error), "{error}");
        assert_eq!(found.confusion.total(), 500);
        let [low, high] = found.confusion.interval();
        assert!(low < error && error < high && low > 0.0);
        assert_eq!(found.labels, 600);
        let fewer = labelled.evaluate(&EvaluationConfig::default(), Some(40), |_| true).unwrap().unwrap();
        assert_eq!(fewer.labels, 40);
        assert!(labelled.evaluate(&EvaluationConfig::default(), None, |_| false).unwrap().is_none());
    }

    #[test]
    fn divisions_keep_proportions() {
        let labelled = labelled();
        let rows: Vec<usize> = (0..600).collect();
        let (first, second) = labelled.divide(&rows, 0.25, 3);
        let mut all = [first.clone(), second].concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        let of_class = |rows: &[usize]| rows.iter().filter(|&&row| labelled.train_classes[row] == 1).count();
        assert_eq!(of_class(&first), (of_class(&rows) as f64 * 0.25).round() as usize);
        assert_ne!(first, labelled.divide(&rows, 0.25, 4).0);
    }

    /// The numbers that labels are do not matter, but are told.
    #[test]
    fn classes_are_the_labels_that_occur() {
        let ((train, labels), (test, test_labels)) = (drawn(600, 1), drawn(500, 2));
        let named = |labels: &[u8], names: [u8; 2]| labels.iter().map(|&label| names[usize::from(label)]).collect();
        let evaluate = |names: [u8; 2]| {
            let (labels, test_labels) = (named(&labels, names), named(&test_labels, names));
            let labelled = Labelled::new(train.clone(), labels, test.clone(), test_labels, Scaling::Each).unwrap();
            assert_eq!((labelled.classes(), labelled.labels()), (2, &names[..]));
            let found = labelled.evaluate(&EvaluationConfig::default(), None, |_| true).unwrap().unwrap();
            // Four labels are enough for two classes.
            labelled.evaluate(&EvaluationConfig::default(), Some(4), |_| true).unwrap();
            found.confusion
        };
        let (from_zero, other) = (evaluate([0, 1]), evaluate([1, 60]));
        assert_eq!(other.labels, [1, 60]);
        assert_eq!(from_zero.counts, other.counts);
    }

    /// 5 errors in 100: the interval of the textbooks.
    #[test]
    fn intervals_are_wilsons() {
        let confusion = Confusion { labels: vec![0, 1], counts: vec![vec![50, 2], vec![3, 45]] };
        let [low, high] = confusion.interval();
        assert!((low - 0.021_544).abs() < 1e-5 && (high - 0.111_750).abs() < 1e-5, "{low} {high}");
        assert_eq!(Confusion { labels: vec![0, 1], counts: vec![vec![10, 0], vec![0, 10]] }.interval()[0], 0.0);
    }

    #[test]
    fn mistakes_are_errors() {
        let ((train, labels), (test, test_labels)) = (drawn(60, 1), drawn(20, 2));
        let new = |labels: Vec<u8>, test_labels: Vec<u8>| {
            let found = Labelled::new(train.clone(), labels, test.clone(), test_labels, Scaling::Each);
            found.err().map(|error| error.to_string())
        };
        assert!(new(labels[1..].to_vec(), test_labels.clone()).is_some_and(|error| error.contains("60, one per")));
        assert!(new(vec![1; 60], test_labels.clone()).is_some_and(|error| error.contains("at least two")));
        assert!(new(labels.clone(), vec![2; 20]).is_some_and(|error| error.starts_with("test label = 2")));
        let few = Features::new(vec![0.0, 1.0, 2.0], 1).unwrap();
        let few = Labelled::new(few.clone(), vec![5, 9, 9], few, vec![5, 9, 9], Scaling::Each).unwrap();
        let message = few.evaluate(&EvaluationConfig::default(), None, |_| true).unwrap_err().to_string();
        assert_eq!(message, "training signals: expected at least 4, two for each of 2 classes, found 3");
        let labelled = labelled();
        let error = |config: EvaluationConfig, labels| labelled.evaluate(&config, labels, |_| true).is_err();
        assert!(error(EvaluationConfig::default(), Some(3)));
        assert!(error(EvaluationConfig::default(), Some(601)));
        assert!(error(EvaluationConfig { penalties: vec![], ..EvaluationConfig::default() }, None));
        assert!(error(EvaluationConfig { penalties: vec![0.0], ..EvaluationConfig::default() }, None));
        assert!(error(EvaluationConfig { held_out: 1.0, ..EvaluationConfig::default() }, None));
    }
}
