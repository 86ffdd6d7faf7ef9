//! Pursuits run as the theorems prescribe, on signals whose representations are known: what is measured beside what is promised.

use crate::error::Result;
use crate::geometry::{LayerGeometry, LayerShape, Pair};
use crate::kernels::sparse::to_host;
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
    watched(theorem, profile, operator, signals, None)
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
    watched(theorem, profile, operator, signals, Some(observer))
}

fn watched(
    theorem: &Theorem,
    profile: &ModelProfile,
    operator: &Operator,
    signals: &[TrialSignal],
    observer: Option<&dyn Observer>,
) -> Result<Vec<Trial>> {
    let promises: Vec<Promise> =
        signals.iter().map(|known| theorem.promise(profile, &known.levels, &known.noise)).collect();
    // What is promised nothing is not run.
    let open: Vec<usize> = (0..signals.len()).filter(|&row| promises[row].holds()).collect();
    let too_large = needs_matrices(theorem, profile).iter().any(|layer| {
        let values = layer.code.len().saturating_mul(layer.signal.len());
        values > MAX_MATRIX
    });
    let found = match too_large {
        true => Vec::new(),
        false => estimates(theorem, profile, operator, signals, (&open, &promises), observer)?,
    };
    let missing = if too_large { Unmeasured::TooLarge } else { Unmeasured::NotFound };
    let mut trials: Vec<Trial> = promises
        .into_iter()
        .map(|promise| {
            let errors = Err(if promise.holds() { missing } else { Unmeasured::NoPromise });
            Trial { promise, errors, gap_missed: None }
        })
        .collect();
    for Estimates { rows, layers, missed } in found {
        for (place, &row) in rows.iter().enumerate() {
            let own: Vec<Vec<f32>> = layers.iter().map(|layer| layer[place].clone()).collect();
            trials[row].gap_missed = missed[place];
            if allows(theorem, profile, operator, &signals[row], &own, &trials[row].promise)? {
                trials[row].errors = Ok(Errors::of(profile, &own, &signals[row].representations));
            }
        }
    }
    Ok(trials)
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

/// What a theorem's pursuit found of some of the signals.
struct Estimates {
    /// Which ones.
    rows: Vec<usize>,
    /// Layer by layer, each signal's representation.
    layers: Vec<Vec<Vec<f32>>>,
    /// Of each signal, [`Trial::gap_missed`].
    missed: Vec<Option<f32>>,
}

impl Estimates {
    fn new(rows: Vec<usize>, layers: Vec<Tensor<4>>, reports: &[SignalReport]) -> Self {
        let mut missed = missed(reports);
        // Where nothing was to be found there is no report.
        missed.resize(rows.len(), None);
        Self { missed, rows, layers: layers.into_iter().map(split).collect() }
    }

    /// Of a cascade that is coded layer by layer, the next layer's; each with the larger of the gaps missed.
    fn push(&mut self, codes: Tensor<4>, reports: &[SignalReport]) {
        self.layers.push(split(codes));
        for (known, new) in self.missed.iter_mut().zip(missed(reports)) {
            *known = if new > *known { new } else { *known };
        }
    }
}

fn missed(reports: &[SignalReport]) -> Vec<Option<f32>> {
    reports.iter().map(|report| report.is_above_gap().then_some(report.relative_gap)).collect()
}

fn estimates(
    theorem: &Theorem,
    profile: &ModelProfile,
    operator: &Operator,
    signals: &[TrialSignal],
    (open, promises): (&[usize], &[Promise]),
    observer: Option<&dyn Observer>,
) -> Result<Vec<Estimates>> {
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let problem = || Ok(Problem::new(operator, stacked(operator, signals, open))?.watched_by(observer));
    let basis = BasisPursuitConfig { gap: GAP, max_iterations: ITERATIONS, nonnegative: false };
    match theorem {
        Theorem::ModelProjection | Theorem::GreedyProjection => {
            let deepest = |row: &usize| signals[*row].levels.layers[profile.depth() - 1].nonzeros;
            grouped(open, deepest)
                .into_iter()
                .map(|(nonzeros, rows)| {
                    let signals = stacked(operator, signals, &rows);
                    let (codes, reports) = matching(operator, signals, nonzeros, observer)?;
                    Ok(Estimates::new(rows, operator.propagate(codes), &reports))
                })
                .collect()
        }
        Theorem::LayeredCoding => {
            let counts = |row: &usize| -> Vec<usize> {
                signals[*row].levels.layers.iter().map(|level| level.nonzeros).collect()
            };
            let code = |(nonzeros, rows): (Vec<usize>, Vec<usize>)| {
                let mut below = stacked(operator, signals, &rows);
                let mut found = Estimates { missed: vec![None; rows.len()], rows, layers: Vec::new() };
                for (layer, nonzeros) in operator.layers().iter().zip(nonzeros) {
                    let signals = layer.signal_shaped(operator.flat(below));
                    let (codes, reports) = matching(layer, signals, nonzeros, observer)?;
                    found.push(codes.clone(), &reports);
                    below = codes;
                }
                Ok(found)
            };
            grouped(open, counts).into_iter().map(code).collect()
        }
        Theorem::ConvexProjection { penalty } => {
            let of_signal = |&row: &usize| match penalty {
                Some(penalty) => penalty.least as f32,
                None => (4.0 * signals[row].noise.effective_patch) as f32,
            };
            let lambda = Lambda::PerSignal(open.iter().map(of_signal).collect());
            let (representations, reports) = match of_deepest(profile) {
                Some(weights) => {
                    let problem = problem()?.with_weights(profile.depth(), weights)?.with_lambda(lambda)?;
                    let found = Algorithm::Auto.init_for(&basis, &problem)?.solve(&problem)?;
                    (found.representations(operator), found.reports)
                }
                None => {
                    let dictionary = &profile.effective[profile.depth() - 1];
                    let signals = stacked(operator, signals, open);
                    let with = (operator, dictionary);
                    let (codes, reports) = normalised_basis_pursuit(with, signals, lambda, &basis, observer)?;
                    (operator.propagate(codes), reports)
                }
            };
            Ok(vec![Estimates::new(open.to_vec(), representations, &reports)])
        }
        Theorem::LayeredBasisPursuit { penalties } => {
            // By default, the penalty of a layer is four times the patch error promised for the one before.
            let error = |row: usize, depth: usize| match depth {
                0 => signals[row].noise.first_patch,
                _ => promises[row].layers[depth - 1].as_ref().map_or(0.0, |bound| bound.local),
            };
            let lambda = |depth: usize| {
                let of_signal = |&row: &usize| match penalties {
                    Some(penalties) => penalties[depth - 1].least as f32,
                    None => (4.0 * error(row, depth - 1)) as f32,
                };
                Lambda::PerSignal(open.iter().map(of_signal).collect())
            };
            let Some(of_atoms) = of_layers(profile) else {
                let mut below = stacked(operator, signals, open);
                let mut found = Estimates { rows: open.to_vec(), layers: Vec::new(), missed: vec![None; open.len()] };
                for (index, (layer, own)) in operator.layers().iter().zip(&profile.own).enumerate() {
                    let signals = layer.signal_shaped(operator.flat(below));
                    let lambda = lambda(index + 1);
                    let (codes, reports) = normalised_basis_pursuit((layer, own), signals, lambda, &basis, observer)?;
                    found.push(codes.clone(), &reports);
                    below = codes;
                }
                return Ok(vec![found]);
            };
            let mut problem = problem()?;
            for (index, weights) in of_atoms.into_iter().enumerate() {
                problem = problem.with_weights(index + 1, weights)?;
            }
            let problem = problem
                .with_lambda(lambda(profile.depth()))?
                .with_shallower_lambda((1..profile.depth()).map(lambda).collect())?;
            let found = LayeredBasisPursuitConfig { basis, ..Default::default() }.init()?.solve(&problem)?;
            Ok(vec![Estimates::new(open.to_vec(), found.representations(operator), &found.reports)])
        }
        Theorem::LayeredThresholding { soft, thresholds } => {
            let of_signal = |&row: &usize| match thresholds {
                Some(thresholds) => thresholds.clone(),
                None => bounds::thresholds(profile, &signals[row].levels, &signals[row].noise, *soft),
            };
            let thresholds: Vec<Vec<f64>> = open.iter().map(of_signal).collect();
            let lambda = |depth: usize| Lambda::PerSignal(thresholds.iter().map(|all| all[depth - 1] as f32).collect());
            let problem = problem()?
                .with_lambda(lambda(profile.depth()))?
                .with_shallower_lambda((1..profile.depth()).map(lambda).collect())?;
            let threshold = if *soft { Threshold::Soft } else { Threshold::Hard };
            let found = LayeredThresholding::new(threshold).solve(&problem)?;
            Ok(vec![Estimates::new(open.to_vec(), found.representations(operator), &found.reports)])
        }
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

/// Whether what was found is what the theorem speaks of.
fn allows(
    theorem: &Theorem,
    profile: &ModelProfile,
    operator: &Operator,
    known: &TrialSignal,
    estimates: &[Vec<f32>],
    promise: &Promise,
) -> Result<bool> {
    use crate::model::stripe::stripe_norm;
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
    Ok(match theorem {
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

/// Rows that are alike in something.
fn grouped<K: Ord>(rows: &[usize], key: impl Fn(&usize) -> K) -> BTreeMap<K, Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    rows.iter().for_each(|row| groups.entry(key(row)).or_default().push(*row));
    groups
}

fn stacked(operator: &Operator, signals: &[TrialSignal], rows: &[usize]) -> Tensor<4> {
    let values: Vec<f32> = rows.iter().flat_map(|&row| signals[row].noisy.iter().copied()).collect();
    Tensor::<1>::from_floats(values.as_slice(), &operator.device()).reshape(operator.signal().batched(rows.len()))
}

fn split(codes: Tensor<4>) -> Vec<Vec<f32>> {
    let dims = codes.dims();
    let values = to_host(codes);
    values.chunks_exact(dims[1] * dims[2] * dims[3]).map(<[f32]>::to_vec).collect()
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
        let filters = Tensor::random([3, 2, 4, 4], Distribution::Normal(0.0, 1.0), &device);
        let model = Mlcsc::from_filters(config, vec![filters]).unwrap();
        let profile = ModelProfile::new(&model, signal).unwrap();
        let operator = model.operator(signal, OperatorForm::Matrix).unwrap();
        let (own, lengths, lambda) = (&profile.own[0], profile.own[0].lengths(), 1.5);
        let (least, most) =
            lengths.iter().fold((f32::MAX, 0.0f32), |(least, most), &norm| (least.min(norm), most.max(norm)));
        // Measured: 2.5 with one draw of the filters.
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
