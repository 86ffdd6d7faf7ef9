//! Pursuits run as the theorems prescribe, on signals whose representations are known: what is measured beside what is promised.

use crate::error::Result;
use crate::geometry::{LayerGeometry, LayerShape, Pair};
use crate::kernels::sparse::to_host;
use crate::model::stripe::stripe_norm;
use crate::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use crate::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, LayeredBasisPursuitConfig, LayeredThresholding, Observer,
    OrthogonalMatchingPursuitConfig, Problem, Pursuit, SignalReport, Threshold,
};
use crate::theory::{DictionaryProfile, Errors, Levels, ModelProfile, Noise, Promise, Theorem, bounds};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::fmt;

/// Relative duality gap of basis pursuits: what is measured is then the minimiser's error and not the solver's.
pub const GAP: f32 = 1e-6;

/// Iterations after which proximal gradient steps have reached what `f32` can tell apart.
const ITERATIONS: usize = 2000;

/// One signal of which everything is known.
#[derive(Debug, Clone)]
pub struct TrialSignal {
    /// y = x + v.
    pub noisy: Vec<f32>,
    /// γ_1 … γ_L of x.
    pub representations: Vec<Vec<f32>>,
    /// The same in numbers.
    pub levels: Levels,
    /// What is told about v.
    pub noise: Noise,
}

/// What a theorem promised on one signal, and what came of it.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The promise.
    pub promise: Promise,
    /// The errors of the pursuit, layer by layer, or why there are none.
    pub errors: Result<Vec<Errors>, Unmeasured>,
    /// The relative gap at which a basis pursuit ended, where that is above the [`GAP`] that it was told: the errors may be the solver's.
    pub gap_missed: Option<f32>,
}

/// Why the errors of a pursuit were not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmeasured {
    /// Nothing is promised.
    NoPromise,
    /// For [`Theorem::ModelProjection`] and [`Theorem::LayeredCoding`]: what was found is not what the theorem speaks of.
    NotFound,
    /// Columns are cropped, and too many to be brought to unit norm one by one.
    TooLarge,
}

impl fmt::Display for Unmeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPromise => "nothing is promised",
            Self::NotFound => "the greedy pursuit found nothing that the theorem speaks of",
            Self::TooLarge => "columns are cropped, and too many to be brought to unit norm one by one",
        })
    }
}

impl TrialSignal {
    /// Signals with noise, from their tensors; `noise` is told the noise of every signal, y − D^(L)γ_L, and says what the theorems may
    /// know of it.
    ///
    /// # Shapes
    /// - noisy: `[n, channels, height, width]`; representations: L tensors, γ_i as `[n, m_i, h_i, w_i]`.
    ///
    /// # Errors
    /// Representations of other shapes than the model's.
    pub fn of(
        profile: &ModelProfile,
        noisy: &Tensor<4>,
        representations: &[Tensor<4>],
        noise: impl Fn(&[f32]) -> Noise,
    ) -> Result<Vec<Self>> {
        let levels = Levels::of(profile, representations)?;
        let count = levels.len();
        let rows = |values: &[f32]| -> Vec<Vec<f32>> {
            values.chunks_exact((values.len() / count.max(1)).max(1)).map(<[f32]>::to_vec).collect()
        };
        let noisy = rows(&to_host(noisy.clone()));
        let mut layers: Vec<_> =
            representations.iter().map(|gamma| rows(&to_host(gamma.clone())).into_iter()).collect();
        let known = levels.into_iter().zip(noisy).map(|(levels, noisy)| {
            let representations: Vec<Vec<f32>> = layers.iter_mut().filter_map(Iterator::next).collect();
            let clean = profile.synthesize(&representations[representations.len() - 1]);
            let difference: Vec<f32> =
                noisy.iter().zip(&clean).map(|(&noisy, clean)| (f64::from(noisy) - clean) as f32).collect();
            Self { noise: noise(&difference), representations, levels, noisy }
        });
        Ok(known.collect())
    }
}

/// Runs the pursuit of a theorem on signals of which everything is known, each by itself with the parameters that the theorem wants,
/// and measures.
///
/// Penalties of the convex theorems are on normalised coefficients; of a penalty that is given, the least. Where padding crops
/// columns, so that those of an atom are not equally long, basis pursuit runs over a matrix with normalised columns, unless that has
/// more than 2²⁶ values.
///
/// # Errors
/// What the pursuits refuse.
pub fn run(
    theorem: &Theorem,
    profile: &ModelProfile,
    operator: &Operator,
    signals: &[TrialSignal],
) -> Result<Vec<Trial>> {
    Experiment { theorem, profile, operator, observer: None }.run(signals)
}

/// [`run`], which the observer may end.
///
/// # Errors
/// As [`run`]; [`crate::error::Error::Interrupted`].
pub fn run_watched(
    theorem: &Theorem,
    profile: &ModelProfile,
    operator: &Operator,
    signals: &[TrialSignal],
    observer: &dyn Observer,
) -> Result<Vec<Trial>> {
    Experiment { theorem, profile, operator, observer: Some(observer) }.run(signals)
}

/// Largest matrix of normalised columns that a pursuit runs over (2²⁶ values: 256 MiB).
const MAX_MATRIX: usize = 1 << 26;

/// The dictionaries whose columns a convex theorem's pursuit has to bring to unit norm one by one.
fn needs_matrices(theorem: &Theorem, profile: &ModelProfile) -> Vec<LayerGeometry> {
    let (geometry, depth) = (profile.geometry(), profile.depth());
    match theorem {
        Theorem::ConvexProjection { .. } => match of_deepest(profile) {
            Some(_) => Vec::new(),
            None => vec![geometry.windows(depth)],
        },
        Theorem::LayeredBasisPursuit { .. } => match of_layers(profile) {
            Some(_) => Vec::new(),
            None => geometry.layers().to_vec(),
        },
        _ => Vec::new(),
    }
}

/// [`weights`] of D^(L).
fn of_deepest(profile: &ModelProfile) -> Option<Vec<f32>> {
    weights(&profile.effective[profile.depth() - 1], profile.geometry().code().channels)
}

/// [`weights`] of D_1 … D_L.
fn of_layers(profile: &ModelProfile) -> Option<Vec<Vec<f32>>> {
    profile.own.iter().zip(profile.geometry().layers()).map(|(own, layer)| weights(own, layer.code.channels)).collect()
}

/// Weights of the atoms by which a penalty is one on normalised coefficients, if all columns of an atom are equally long.
fn weights(dictionary: &DictionaryProfile, atoms: usize) -> Option<Vec<f32>> {
    let lengths = dictionary.lengths();
    let alike = |norms: &[f32]| norms.iter().all(|norm| (norm - norms[0]).abs() <= 1e-6 * norms[0] && *norm > 0.0);
    let atoms: Vec<&[f32]> = lengths.chunks_exact(lengths.len() / atoms).collect();
    atoms.iter().all(|norms| alike(norms)).then(|| atoms.iter().map(|norms| norms[0]).collect())
}

/// Relative gap and iterations of basis pursuits.
fn basis() -> BasisPursuitConfig {
    BasisPursuitConfig { gap: GAP, max_iterations: ITERATIONS, nonnegative: false }
}

/// A theorem whose pursuit is run.
struct Experiment<'a> {
    theorem: &'a Theorem,
    profile: &'a ModelProfile,
    operator: &'a Operator,
    observer: Option<&'a dyn Observer>,
}

/// A signal of which something is promised.
struct Promised<'a> {
    /// Its place among all signals.
    row: usize,
    known: &'a TrialSignal,
    promise: &'a Promise,
}

/// What a theorem's pursuit found of a signal.
struct Estimate {
    row: usize,
    /// γ̂_1 … γ̂_L.
    layers: Vec<Vec<f32>>,
    /// See [`Trial::gap_missed`].
    missed: Option<f32>,
}

impl Estimate {
    /// Of signals that were coded at once.
    fn all(signals: &[&Promised], layers: Vec<Tensor<4>>, reports: &[SignalReport]) -> Vec<Self> {
        let mut estimates = Self::none(signals);
        layers.into_iter().for_each(|codes| Self::add_layer(&mut estimates, codes, &[]));
        Self::add_gaps(&mut estimates, reports);
        estimates
    }

    /// Of signals that are still to be coded, layer by layer.
    fn none(signals: &[&Promised]) -> Vec<Self> {
        signals.iter().map(|signal| Self { row: signal.row, layers: Vec::new(), missed: None }).collect()
    }

    /// The next layer's codes.
    fn add_layer(estimates: &mut [Self], codes: Tensor<4>, reports: &[SignalReport]) {
        let [_, atoms, height, width] = codes.dims();
        let values = to_host(codes);
        for (estimate, code) in estimates.iter_mut().zip(values.chunks_exact(atoms * height * width)) {
            estimate.layers.push(code.to_vec());
        }
        Self::add_gaps(estimates, reports);
    }

    /// Keeps the largest gap missed; there are no reports where nothing was to be found.
    fn add_gaps(estimates: &mut [Self], reports: &[SignalReport]) {
        for (estimate, report) in estimates.iter_mut().zip(reports) {
            let missed = report.is_above_gap().then_some(report.relative_gap);
            estimate.missed = if missed > estimate.missed { missed } else { estimate.missed };
        }
    }
}

impl Experiment<'_> {
    fn run(&self, signals: &[TrialSignal]) -> Result<Vec<Trial>> {
        let promises: Vec<Promise> =
            signals.iter().map(|known| self.theorem.promise(self.profile, &known.levels, &known.noise)).collect();
        // What is promised nothing is not run.
        let all = signals.iter().zip(&promises).enumerate();
        let open: Vec<Promised> = all
            .map(|(row, (known, promise))| Promised { row, known, promise })
            .filter(|signal| signal.promise.holds())
            .collect();
        let too_large = needs_matrices(self.theorem, self.profile).iter().any(|layer| {
            let values = layer.code.len().saturating_mul(layer.signal.len());
            values > MAX_MATRIX
        });
        let found =
            if too_large || open.is_empty() { Vec::new() } else { self.estimates(&open.iter().collect::<Vec<_>>())? };
        let missing = if too_large { Unmeasured::TooLarge } else { Unmeasured::NotFound };
        let mut trials: Vec<Trial> = promises
            .into_iter()
            .map(|promise| {
                let errors = Err(if promise.holds() { missing } else { Unmeasured::NoPromise });
                Trial { promise, errors, gap_missed: None }
            })
            .collect();
        for Estimate { row, layers, missed } in found {
            trials[row].gap_missed = missed;
            if self.allows(&signals[row], &layers, &trials[row].promise)? {
                trials[row].errors = Ok(Errors::of(self.profile, &layers, &signals[row].representations));
            }
        }
        Ok(trials)
    }

    /// What the theorem's pursuit finds; there is at least one signal.
    fn estimates(&self, signals: &[&Promised]) -> Result<Vec<Estimate>> {
        match self.theorem {
            Theorem::ModelProjection | Theorem::GreedyProjection => self.greedy_projection(signals),
            Theorem::LayeredCoding => self.layered_coding(signals),
            Theorem::ConvexProjection { penalty } => {
                let least = penalty.as_ref().map(|penalty| penalty.least);
                self.convex_projection(signals, least)
            }
            Theorem::LayeredBasisPursuit { penalties } => {
                let least = penalties.as_ref().map(|all| all.iter().map(|penalty| penalty.least).collect());
                self.layered_basis_pursuit(signals, least)
            }
            Theorem::LayeredThresholding { soft, thresholds } => {
                self.layered_thresholding(signals, *soft, thresholds.as_deref())
            }
        }
    }

    fn problem(&self, signals: &[&Promised]) -> Result<Problem<'_>> {
        Ok(Problem::new(self.operator, stacked(self.operator, signals))?.watched_by(self.observer))
    }

    /// Orthogonal matching pursuit with as many non-zeros as γ_L has.
    fn greedy_projection(&self, signals: &[&Promised]) -> Result<Vec<Estimate>> {
        let deepest = |signal: &Promised| signal.known.levels.layers[self.profile.depth() - 1].nonzeros;
        let mut found = Vec::new();
        for (nonzeros, signals) in grouped(signals, deepest) {
            let (codes, reports) = matching(self.operator, stacked(self.operator, &signals), nonzeros, self.observer)?;
            found.extend(Estimate::all(&signals, self.operator.propagate(codes), &reports));
        }
        Ok(found)
    }

    /// Orthogonal matching pursuit layer by layer, with as many non-zeros as γ_i has.
    fn layered_coding(&self, signals: &[&Promised]) -> Result<Vec<Estimate>> {
        let counts = |signal: &Promised| -> Vec<usize> {
            signal.known.levels.layers.iter().map(|level| level.nonzeros).collect()
        };
        let mut found = Vec::new();
        for (nonzeros, signals) in grouped(signals, counts) {
            let mut below = stacked(self.operator, &signals);
            let mut estimates = Estimate::none(&signals);
            for (layer, nonzeros) in self.operator.layers().iter().zip(nonzeros) {
                let signals = layer.signal_shaped(self.operator.flat(below));
                let (codes, reports) = matching(layer, signals, nonzeros, self.observer)?;
                Estimate::add_layer(&mut estimates, codes.clone(), &reports);
                below = codes;
            }
            found.extend(estimates);
        }
        Ok(found)
    }

    /// Basis pursuit over D^(L), with the least penalty given or else four times the noise on a patch.
    fn convex_projection(&self, signals: &[&Promised], penalty: Option<f64>) -> Result<Vec<Estimate>> {
        let of_signal = |signal: &&Promised| penalty.unwrap_or(4.0 * signal.known.noise.effective_patch) as f32;
        let lambda = Lambda::PerSignal(signals.iter().map(of_signal).collect());
        let depth = self.profile.depth();
        let Some(weights) = of_deepest(self.profile) else {
            let with = (self.operator, &self.profile.effective[depth - 1]);
            let stacked = stacked(self.operator, signals);
            let (codes, reports) = normalised_basis_pursuit(with, stacked, lambda, &basis(), self.observer)?;
            return Ok(Estimate::all(signals, self.operator.propagate(codes), &reports));
        };
        let problem = self.problem(signals)?.with_weights(depth, weights)?.with_lambda(lambda)?;
        let found = Algorithm::Auto.init_for(&basis(), &problem)?.solve(&problem)?;
        Ok(Estimate::all(signals, found.representations(self.operator), &found.reports))
    }

    /// Basis pursuit layer by layer, with the least penalties given; else the penalty of a layer is four times the patch error promised
    /// for the one before.
    fn layered_basis_pursuit(&self, signals: &[&Promised], penalties: Option<Vec<f64>>) -> Result<Vec<Estimate>> {
        let error = |signal: &Promised, depth: usize| match depth {
            0 => signal.known.noise.first_patch,
            _ => signal.promise.layers[depth - 1].as_ref().map_or(0.0, |bound| bound.local),
        };
        let lambda = |depth: usize| {
            let of_signal = |signal: &&Promised| match &penalties {
                Some(penalties) => penalties[depth - 1] as f32,
                None => (4.0 * error(signal, depth - 1)) as f32,
            };
            Lambda::PerSignal(signals.iter().map(of_signal).collect())
        };
        let Some(of_atoms) = of_layers(self.profile) else {
            let mut below = stacked(self.operator, signals);
            let mut estimates = Estimate::none(signals);
            for (index, with) in self.operator.layers().iter().zip(&self.profile.own).enumerate() {
                let signals = with.0.signal_shaped(self.operator.flat(below));
                let lambda = lambda(index + 1);
                let (codes, reports) = normalised_basis_pursuit(with, signals, lambda, &basis(), self.observer)?;
                Estimate::add_layer(&mut estimates, codes.clone(), &reports);
                below = codes;
            }
            return Ok(estimates);
        };
        let mut problem = self.problem(signals)?;
        for (index, weights) in of_atoms.into_iter().enumerate() {
            problem = problem.with_weights(index + 1, weights)?;
        }
        let problem = self.with_penalties(problem, lambda)?;
        let found = LayeredBasisPursuitConfig { basis: basis(), ..Default::default() }.init()?.solve(&problem)?;
        Ok(Estimate::all(signals, found.representations(self.operator), &found.reports))
    }

    /// Thresholding layer by layer, with the thresholds given or else those of the theorem.
    fn layered_thresholding(
        &self,
        signals: &[&Promised],
        soft: bool,
        thresholds: Option<&[f64]>,
    ) -> Result<Vec<Estimate>> {
        let of_signal = |signal: &&Promised| match thresholds {
            Some(thresholds) => thresholds.to_vec(),
            None => bounds::thresholds(self.profile, &signal.known.levels, &signal.known.noise, soft),
        };
        let thresholds: Vec<Vec<f64>> = signals.iter().map(of_signal).collect();
        let lambda = |depth: usize| Lambda::PerSignal(thresholds.iter().map(|all| all[depth - 1] as f32).collect());
        let problem = self.with_penalties(self.problem(signals)?, lambda)?;
        let threshold = if soft { Threshold::Soft } else { Threshold::Hard };
        let found = LayeredThresholding::new(threshold).solve(&problem)?;
        Ok(Estimate::all(signals, found.representations(self.operator), &found.reports))
    }

    /// The problem with the penalties of all layers, counted from 1.
    fn with_penalties<'p>(&self, problem: Problem<'p>, lambda: impl Fn(usize) -> Lambda) -> Result<Problem<'p>> {
        let depth = self.profile.depth();
        problem.with_lambda(lambda(depth))?.with_shallower_lambda((1..depth).map(lambda).collect())
    }

    /// Whether what was found is what the theorem speaks of.
    fn allows(&self, known: &TrialSignal, estimates: &[Vec<f32>], promise: &Promise) -> Result<bool> {
        let Self { profile, operator, .. } = self;
        let layers = profile.geometry().layers();
        let stripes = |effective: bool| {
            estimates.iter().enumerate().all(|(index, estimate)| {
                let level = &known.levels.layers[index];
                let (dictionary, limit) = match effective {
                    true => (&profile.effective[index], level.effective_stripe),
                    false => (&profile.own[index], level.own_stripe),
                };
                stripe_norm(estimate, layers[index].code, dictionary.radius) <= limit
            })
        };
        let residual = |operator: &Operator, signal: &[f32], code: &[f32]| {
            let code = Tensor::<1>::from_floats(code, &operator.device()).reshape([1, code.len()]);
            let made: Vec<f32> = to_host(operator.synthesize_rows(code));
            made.iter().zip(signal).map(|(made, signal)| f64::from(made - signal).powi(2)).sum::<f64>().sqrt()
        };
        Ok(match self.theorem {
            Theorem::ModelProjection => {
                residual(operator, &known.noisy, &estimates[estimates.len() - 1]) <= known.noise.global && stripes(true)
            }
            Theorem::LayeredCoding => {
                let mut below = (&known.noisy, known.noise.global);
                let mut within = stripes(false);
                for (layer, (estimate, bound)) in operator.layers().iter().zip(estimates.iter().zip(&promise.layers)) {
                    within &= residual(layer, below.0, estimate) <= below.1;
                    below = (estimate, bound.as_ref().map_or(0.0, |bound| bound.global));
                }
                within
            }
            _ => true,
        })
    }
}

/// Basis pursuit over the matrix of a layer, or of a whole cascade, whose columns are brought to unit norm, each by itself; the codes
/// belong to the columns as they are.
fn normalised_basis_pursuit(
    (layer, dictionary): (&Operator, &DictionaryProfile),
    signals: Tensor<4>,
    lambda: Lambda,
    basis: &BasisPursuitConfig,
    observer: Option<&dyn Observer>,
) -> Result<(Tensor<4>, Vec<SignalReport>)> {
    let (signal, places) = (layer.signal(), (0..layer.code().len()).collect::<Vec<_>>());
    // A column of zeros stays one, and is never chosen.
    let lengths: Vec<f32> = dictionary.lengths().into_iter().map(|norm| if norm > 0.0 { norm } else { 1.0 }).collect();
    let lengths = Tensor::<1>::from_floats(lengths.as_slice(), &layer.device());
    let columns = layer.columns(&places) / lengths.clone().unsqueeze_dim(1);
    // As atoms of the signals' size, which have one position each.
    let shape = LayerShape::new(places.len(), Pair([signal.height, signal.width]), 1);
    let filters = columns.reshape([places.len(), signal.channels, signal.height, signal.width]);
    let model = Mlcsc::from_filters(ModelConfig::new(signal, vec![shape]), vec![filters])?;
    let operator = model.operator(signal, OperatorForm::Auto)?;
    let problem = Problem::new(&operator, signals)?.with_lambda(lambda)?.watched_by(observer);
    let found = Algorithm::Auto.init_for(basis, &problem)?.solve(&problem)?;
    Ok((layer.code_shaped(operator.flat(found.codes) / lengths.unsqueeze_dim(0)), found.reports))
}

fn matching(
    operator: &Operator,
    signals: Tensor<4>,
    nonzeros: usize,
    observer: Option<&dyn Observer>,
) -> Result<(Tensor<4>, Vec<SignalReport>)> {
    if nonzeros == 0 {
        let codes = Tensor::zeros(operator.code().batched(signals.dims()[0]), &operator.device());
        return Ok((codes, Vec::new()));
    }
    let pursuit = OrthogonalMatchingPursuitConfig::new(nonzeros).init()?;
    let found = pursuit.solve(&Problem::new(operator, signals)?.watched_by(observer))?;
    Ok((found.codes, found.reports))
}

/// Signals that are alike in something.
fn grouped<'a, 'b, K: Ord>(
    signals: &[&'a Promised<'b>],
    key: impl Fn(&Promised) -> K,
) -> BTreeMap<K, Vec<&'a Promised<'b>>> {
    let mut groups: BTreeMap<K, Vec<&Promised>> = BTreeMap::new();
    signals.iter().for_each(|signal| groups.entry(key(signal)).or_default().push(signal));
    groups
}

/// The noisy signals one after the other.
fn stacked(operator: &Operator, signals: &[&Promised]) -> Tensor<4> {
    let values: Vec<f32> = signals.iter().flat_map(|signal| signal.known.noisy.iter().copied()).collect();
    Tensor::<1>::from_floats(values.as_slice(), &operator.device()).reshape(operator.signal().batched(signals.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::geometry::SignalShape;
    use burn::tensor::Distribution;

    /// Cropped columns have lengths of their own. In their units, correlations with the residual are λ in magnitude, with the code's
    /// sign, where the code is not zero, and no more than λ anywhere.
    #[test]
    fn codes_over_normalised_columns_are_optimal() {
        let device = device::named(None).unwrap();
        let signal = SignalShape::new(2, 12, 12);
        let config = ModelConfig::new(signal, vec![LayerShape::new(3, 4, 2).with_padding(1)]);
        let model = config.init_random(1, &device).unwrap();
        let profile = ModelProfile::new(&model, signal).unwrap();
        let operator = model.operator(signal, OperatorForm::Matrix).unwrap();
        let (own, lengths, lambda) = (&profile.own[0], profile.own[0].lengths(), 1.5);
        let (least, most) =
            lengths.iter().fold((f32::MAX, 0.0f32), |(least, most), &norm| (least.min(norm), most.max(norm)));
        assert!(most > 1.5 * least, "no column is cropped: {least} to {most}");
        let signals = Tensor::random(signal.batched(6), Distribution::Normal(0.0, 1.0), &device);
        let basis = BasisPursuitConfig { gap: 1e-7, ..BasisPursuitConfig::default() };
        let (codes, _) =
            normalised_basis_pursuit((&operator, own), signals.clone(), Lambda::Absolute(lambda), &basis, None)
                .unwrap();
        let codes = operator.flat(codes);
        let residual = operator.flat(signals) - operator.synthesize_rows(codes.clone());
        let correlations = to_host(operator.analyze_rows(residual));
        let mut nonzeros = 0;
        for (place, (code, correlation)) in to_host(codes).into_iter().zip(correlations).enumerate() {
            let correlation = correlation / lengths[place % lengths.len()];
            if code == 0.0 {
                assert!(correlation.abs() <= lambda * 1.001, "{place}: {correlation}");
            } else {
                nonzeros += 1;
                assert!(
                    (correlation - lambda * code.signum()).abs() <= 1e-3 * lambda,
                    "{place}: {correlation} for {code}"
                );
            }
        }
        assert!(nonzeros > 20, "{nonzeros}");
    }
}
