//! What an encoder leaves on the table, on its own dictionary.
//!
//! An encoder approximates the best code in one pass: what it loses is the amortisation gap (C. O'Neill, A. Gumran, D. Klindt, "Compute
//! Optimal Inference and Provable Amortisation Gap in Sparse Autoencoders", ICML 2025). Here it is measured against pursuits over the
//! decoder's atoms, each signal with as many non-zeros as the encoder used for it, but no more than half of its values:
//!
//! - orthogonal matching pursuit, and
//! - least squares on the support that ℓ1 finds, λ being searched for every signal until its support has that size; of a larger one the
//!   largest coefficients stay.
//!
//! Both are non-negative where the encoder's codes are. And in the terms of the ℓ1 problem itself, ½‖y − Dγ‖² + λ‖γ‖₁ at the λ at which
//! its minimum has as many non-zeros in the mean: the encoder's value, the pursuit's, and a lower bound of every value from the
//! pursuit's duality gap.
//!
//! Atoms have unit norm, codes are scaled accordingly, and y is the signal as the decoder's dictionary sees it (its bias taken off).

use super::{Autoencoder, Coded};
use crate::error::{Error, Result};
use crate::kernels::linear_algebra::solve_normal_equations;
use crate::kernels::product::product;
use crate::kernels::sparse::{energy, norm, to_host};
use crate::model::normalization::Undo;
use crate::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use crate::pursuit::{
    BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Problem, Pursuit, SignalReport, solve_in_parts,
};
use crate::text::counted;
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How thoroughly models are examined.
///
/// | field | default | range |
/// |---|---|---|
/// | `nonzeros` | 32,000 | ≥ 1: signals are looked at until the encoder has used so many non-zeros, 16 signals at least |
/// | `gap` | 10⁻⁴ | relative duality gap in (0, 1) of the ℓ1 codes that bound the objective |
/// | `worst` | 8 | signals that are named |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DoctorConfig {
    /// Non-zeros of the encoder's codes after which no more signals are looked at.
    pub nonzeros: usize,
    /// Relative duality gap.
    pub gap: f32,
    /// Signals that are named.
    pub worst: usize,
}

impl Default for DoctorConfig {
    fn default() -> Self {
        Self { nonzeros: 32_000, gap: 1e-4, worst: 8 }
    }
}

/// How far a way to code the signals comes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Mean ‖γ‖₀.
    pub nonzeros: f64,
    /// Σ‖y − x‖²/Σ‖y − ȳ‖²; `None` where signals don't vary.
    pub fvu: Option<f64>,
    /// Mean 〈y, x〉/(‖y‖‖x‖) of the signals that are not zero, 0 where a reconstruction is; `None` where all are zero.
    pub cosine: Option<f64>,
}

/// Mean values of ½‖y − Dγ‖² + λ‖γ‖₁.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// λ.
    pub lambda: f64,
    /// Of the encoder's codes.
    pub encoder: f64,
    /// Of the pursuit's.
    pub pursuit: f64,
    /// What none can be below, by the pursuit's duality gap.
    pub bound: f64,
    /// Mean number of non-zeros of the pursuit's codes.
    pub nonzeros: f64,
}

/// A signal for which the encoder loses most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorstSignal {
    /// Its number among those that were looked at.
    pub signal: usize,
    /// Non-zeros of its code.
    pub nonzeros: usize,
    /// ‖y − x‖²/‖y‖² of the encoder, y being taken around the decoder's bias.
    pub encoder: f64,
    /// Of orthogonal matching pursuit.
    pub omp: f64,
    /// Of least squares on the ℓ1 support.
    pub l1: f64,
}

/// FVU against non-zeros.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tradeoff {
    /// `encoder`, `OMP` or `ℓ1`.
    pub name: String,
    /// Mean non-zeros and FVU.
    pub points: Vec<(f64, f64)>,
}

/// What was found of one encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examination {
    /// Signals that were looked at, the first ones of those given.
    pub signals: usize,
    /// Whether codes are non-negative.
    pub nonnegative: bool,
    /// The encoder.
    pub encoder: Reached,
    /// Orthogonal matching pursuit with as many non-zeros for each signal; no more than half of the values that the signal has.
    pub omp: Reached,
    /// Least squares on the ℓ1 support of that size.
    pub l1: Reached,
    /// The ℓ1 problem at the λ of equal non-zeros.
    pub objectives: Objectives,
    /// Those that lose most by the encoder's being none of the pursuits.
    pub worst: Vec<WorstSignal>,
    /// The encoder with fewer of its non-zeros, the largest; the pursuits with fewer and more; of some of the signals.
    pub tradeoffs: Vec<Tradeoff>,
    /// How many signals these are of, at even distances; 0 in documents that do not say it.
    #[serde(default)]
    pub tradeoff_signals: usize,
}

impl Examination {
    /// What its tradeoffs are called: the encoder's name, and how many signals they are of where that is known.
    pub fn title(&self, name: &str) -> String {
        match self.tradeoff_signals {
            0 => name.to_owned(),
            signals => format!("{name}, {}", counted(signals, "signal")),
        }
    }
}

/// Signals that are looked at at least.
const FEWEST: usize = 16;

/// Signals that λ of equal non-zeros is searched on, and that curves are of.
const FEW: usize = 100;

/// Steps of a search for λ.
const STEPS: usize = 12;

/// Where it begins, as a part of the largest λ.
const FIRST: f32 = 0.25;

/// A step of a search that is not bracketed yet.
const STRIDE: f32 = 1.6;

/// Relative duality gap of codes whose support alone counts.
const LOOSE: f32 = 1e-3;

/// A model whose codes have one position, as a dictionary of atoms of unit norm that are as large as the signals; `None` for others.
///
/// # Errors
/// None that a valid model can cause.
pub fn dictionary_of(model: &Mlcsc) -> Result<Option<Mlcsc>> {
    let config = model.config();
    let geometry = config.geometry()?;
    let (code, signal) = (geometry.code(), config.signal);
    let atoms = model.effective_filters(model.depth());
    if [code.height, code.width] != [1, 1] || atoms.dims() != signal.batched(code.channels) {
        return Ok(None);
    }
    let kernel = crate::geometry::Pair([signal.height, signal.width]);
    let layers = vec![crate::geometry::LayerShape::new(code.channels, kernel, 1)];
    let config = ModelConfig { layers, ..config.clone() };
    Mlcsc::from_filters(config, vec![unit(atoms)]).map(Some)
}

/// Atoms with unit norm; those that are zero stay.
fn unit(atoms: Tensor<4>) -> Tensor<4> {
    let dims = atoms.dims();
    let rows = atoms.detach().flatten::<2>(1, 3);
    let norms = rows.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
    (rows / norms).reshape(dims)
}

impl DoctorConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn check(&self) -> Result<()> {
        if self.nonzeros == 0 {
            return Err(Error::parameter("nonzeros", 0, "at least 1"));
        }
        match self.gap > 0.0 && self.gap < 1.0 {
            true => Ok(()),
            false => Err(Error::parameter("gap", self.gap, "a relative duality gap in (0, 1)")),
        }
    }

    /// Examines an encoder whose decoder has the atoms of `dictionary` but for their norms, on signals of the network's shape;
    /// `nonnegative` says whether its codes are. `cancelled` ends it between two pursuits.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`, n ≥ 1.
    ///
    /// # Errors
    /// As [`Self::check`]; no signals, or of another shape; a dictionary of another number of atoms, or with more than one position;
    /// [`Error::Interrupted`].
    pub fn examine(
        &self,
        network: &dyn Autoencoder,
        dictionary: &Mlcsc,
        nonnegative: bool,
        signals: Tensor<4>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Examination> {
        self.check()?;
        let examined = Examined::new(self, network, dictionary, nonnegative, signals, cancelled)?;
        examined.examine(self)
    }
}

/// Signals with the encoder's codes.
struct Examined<'a> {
    operator: Operator,
    nonnegative: bool,
    /// What the dictionary is to make, `[n, d]`, on the host too.
    targets: Tensor<2>,
    rows: Vec<f32>,
    /// Atoms, one after the other.
    atoms: Vec<f32>,
    /// The encoder's codes over atoms of unit norm, one signal after the other.
    codes: Vec<f32>,
    /// Its non-zeros of every signal.
    nonzeros: Vec<usize>,
    /// Brings what the dictionary makes back to the scale of the signals.
    undo: Undo,
    /// The signals, one after the other.
    signals: Vec<f32>,
    /// What the encoder's decoder made of them.
    reconstructions: Vec<f32>,
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Examined<'a> {
    fn new(
        config: &DoctorConfig,
        network: &dyn Autoencoder,
        dictionary: &Mlcsc,
        nonnegative: bool,
        signals: Tensor<4>,
        cancelled: &'a dyn Fn() -> bool,
    ) -> Result<Self> {
        let count = signals.dims()[0];
        super::check_batch("signals", network.signal(), &signals)?;
        if count == 0 {
            return Err(Error::shape("signals to examine", "at least one", 0));
        }
        let operator = dictionary.operator(dictionary.config().signal, OperatorForm::Auto)?;
        let (units, code) = (network.code().len(), operator.code());
        if code.len() != units || code.channels != units || operator.signal().len() != network.signal().len() {
            return Err(Error::shape("dictionary of an encoder", format!("{units} atoms of one position"), code));
        }
        let Coded { codes, reconstruction } = coded(network, &signals, cancelled)?;
        let mut codes = to_host(codes);
        let nonzeros: Vec<usize> =
            codes.chunks_exact(units).map(|code| code.iter().filter(|value| **value != 0.0).count()).collect();
        let norms: Vec<f32> = {
            let atoms = to_host(network.atoms());
            atoms.chunks_exact(atoms.len() / units).map(norm).collect()
        };
        for code in codes.chunks_exact_mut(units) {
            code.iter_mut().zip(&norms).for_each(|(value, norm)| *value *= norm);
        }
        // As many as can be afforded.
        let mut used = 0;
        let kept = nonzeros.iter().take_while(|nonzeros| {
            used += **nonzeros;
            used <= config.nonzeros
        });
        let kept = kept.count().max(FEWEST).min(count);
        codes.truncate(kept * units);
        let signals = signals.narrow(0, 0, kept);
        let shaped = signals.clone().reshape(operator.signal().batched(kept));
        let (targets, undo) = dictionary.config().normalizer().apply(shaped);
        let targets = targets.flatten::<2>(1, 3);
        Ok(Self {
            atoms: to_host(operator.effective_filters()),
            rows: to_host(targets.clone()),
            targets,
            operator,
            nonnegative,
            codes,
            nonzeros: nonzeros[..kept].to_vec(),
            undo,
            signals: to_host(signals),
            reconstructions: to_host(reconstruction.narrow(0, 0, kept)),
            cancelled,
        })
    }

    fn count(&self) -> usize {
        self.nonzeros.len()
    }

    fn units(&self) -> usize {
        self.operator.code().len()
    }

    /// Values of a signal.
    fn values(&self) -> usize {
        self.operator.signal().len()
    }

    fn check(&self) -> Result<()> {
        match (self.cancelled)() {
            true => Err(Error::Interrupted("an examination".into())),
            false => Ok(()),
        }
    }

    /// Some of the targets.
    fn part(&self, rows: &[usize]) -> Tensor<4> {
        let picked: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let picked = Tensor::<1, Int>::from_data(picked.as_slice(), &self.targets.device());
        self.targets.clone().select(0, picked).reshape(self.operator.signal().batched(rows.len()))
    }

    /// Codes of some signals by orthogonal matching pursuit, each with its own number of non-zeros.
    fn omp(&self, rows: &[usize], nonzeros: impl Fn(usize) -> usize) -> Result<Vec<f32>> {
        let units = self.units();
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &row) in rows.iter().enumerate() {
            groups.entry(self.affordable(nonzeros(row))).or_default().push(place);
        }
        let mut codes = vec![0.0; rows.len() * units];
        for (nonzeros, places) in groups.into_iter().filter(|(nonzeros, _)| *nonzeros > 0) {
            self.check()?;
            let config = OrthogonalMatchingPursuitConfig::new(nonzeros).with_nonnegative(self.nonnegative);
            let of_group: Vec<usize> = places.iter().map(|&place| rows[place]).collect();
            let found = config.init()?.pursue(&self.operator, self.part(&of_group), &Lambda::Absolute(0.0))?;
            for (code, place) in to_host(found.codes).chunks_exact(units).zip(places) {
                codes[place * units..][..units].copy_from_slice(code);
            }
        }
        Ok(codes)
    }

    /// ℓ1 codes of some signals, with what is known of each.
    fn l1(
        &self,
        rows: &[usize],
        lambda: Lambda,
        gap: f32,
        start: Option<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<SignalReport>)> {
        self.check()?;
        let basis = BasisPursuitConfig { gap, nonnegative: self.nonnegative, ..BasisPursuitConfig::default() };
        let mut problem = Problem::new(&self.operator, self.part(rows))?.with_lambda(lambda)?;
        if let Some(start) = start {
            let start = TensorData::new(start, self.operator.code().batched(rows.len()));
            problem = problem.with_start(Tensor::from_data(start, &self.targets.device()))?;
        }
        let found = solve_in_parts(&*basis.init_for(&self.operator)?, &problem)?;
        Ok((to_host(found.codes), found.reports))
    }

    /// The λ from which on each code is zero.
    fn largest_lambdas(&self) -> Vec<f32> {
        let atoms = Tensor::<2>::from_data(
            TensorData::new(self.atoms.clone(), [self.units(), self.values()]),
            &self.targets.device(),
        );
        let correlations = product(self.targets.clone(), atoms.transpose());
        let correlations = if self.nonnegative { correlations } else { correlations.abs() };
        to_host(correlations.max_dim(1)).into_iter().map(|value| value.max(0.0)).collect()
    }

    /// Non-zeros of a signal's code that pursuits are asked for where the encoder has so many.
    fn affordable(&self, nonzeros: usize) -> usize {
        nonzeros.min(self.units()).min((self.values() / 2).max(1))
    }

    /// The λ at which the mean number of non-zeros of some signals is that of the encoder.
    fn equal_lambda(&self, rows: &[usize], largest: &[f32]) -> Result<f32> {
        let wanted = mean(rows.iter().map(|&row| self.affordable(self.nonzeros[row]) as f64));
        let top = rows.iter().map(|&row| largest[row]).fold(0.0, f32::max);
        if wanted == 0.0 || top == 0.0 {
            return Ok(top);
        }
        let mut search = Search::new(FIRST * top, top);
        let mut codes = None;
        for _ in 0..STEPS {
            let (found, reports) = self.l1(rows, Lambda::Absolute(search.lambda), LOOSE, codes.take())?;
            let mean = mean(reports.iter().map(|report| report.nonzeros as f64));
            if (mean - wanted).abs() <= 0.01 * wanted {
                break;
            }
            codes = Some(found);
            search.step(mean > wanted);
        }
        Ok(search.lambda)
    }

    /// Codes by least squares on ℓ1 supports of so many non-zeros, λ being searched for each signal from `start` on.
    fn refitted(&self, rows: &[usize], wanted: &[usize], largest: &[f32], start: f32) -> Result<Vec<f32>> {
        let units = self.units();
        let wanted: Vec<usize> = wanted.iter().map(|&wanted| self.affordable(wanted)).collect();
        let mut searches: Vec<Search> =
            rows.iter().map(|&row| Search::new(start.min(0.9 * largest[row]), largest[row])).collect();
        // The smallest support that is large enough, else the largest.
        let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); rows.len()];
        let mut left: Vec<usize> =
            (0..rows.len()).filter(|&place| wanted[place] > 0 && largest[rows[place]] > 0.0).collect();
        let mut codes = None;
        for _ in 0..STEPS {
            if left.is_empty() {
                break;
            }
            let of_left: Vec<usize> = left.iter().map(|&place| rows[place]).collect();
            let lambda = Lambda::PerSignal(left.iter().map(|&place| searches[place].lambda).collect());
            let (found, _) = self.l1(&of_left, lambda, LOOSE, codes.take())?;
            let mut goes_on = Vec::with_capacity(left.len());
            let mut kept = Vec::new();
            for (code, &place) in found.chunks_exact(units).zip(&left) {
                let support: Vec<(usize, f32)> =
                    code.iter().copied().enumerate().filter(|(_, value)| *value != 0.0).collect();
                let (found, wanted) = (support.len(), wanted[place]);
                let held = best[place].len();
                let is_better = match (found >= wanted, held >= wanted) {
                    (true, true) => found < held,
                    (true, false) => true,
                    (false, true) => false,
                    (false, false) => found > held,
                };
                if is_better {
                    best[place] = support;
                }
                // A few atoms too many are left out by their size.
                if !(wanted..=wanted + wanted / 16).contains(&found) {
                    searches[place].step(found > wanted);
                    goes_on.push(place);
                    kept.extend_from_slice(code);
                }
            }
            (left, codes) = (goes_on, Some(kept));
        }
        let mut codes = vec![0.0; rows.len() * units];
        let (values, atoms, targets, nonnegative) = (self.values(), &self.atoms, &self.rows, self.nonnegative);
        let fits = codes.par_chunks_exact_mut(units).zip(best.into_par_iter()).enumerate();
        fits.for_each(|(place, (code, mut support))| {
            support.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            support.truncate(wanted[place]);
            let signal = &targets[rows[place] * values..][..values];
            for (index, value) in least_squares(atoms, signal, &support, nonnegative) {
                code[index] = value;
            }
        });
        Ok(codes)
    }

    /// What the dictionary makes of codes of some signals, in the scale of the signals.
    fn synthesized(&self, codes: &[f32]) -> Vec<f32> {
        let made = self.made(codes);
        let shape = self.operator.signal().batched(made.dims()[0]);
        to_host(self.undo.undo(made.reshape(shape)))
    }

    /// The same as the dictionary has it.
    fn made(&self, codes: &[f32]) -> Tensor<2> {
        let count = codes.len() / self.units();
        let codes = TensorData::new(codes.to_vec(), self.operator.code().batched(count));
        self.operator.synthesize(Tensor::from_data(codes, &self.targets.device())).flatten(1, 3)
    }

    /// How far codes of some signals come, whose reconstructions these are.
    fn reached(&self, rows: &[usize], codes: &[f32], reconstructions: &[f32]) -> Reached {
        let values = self.values();
        let signal = |row: usize| &self.signals[row * values..][..values];
        let mut mean_signal = vec![0.0f64; values];
        for &row in rows {
            mean_signal.iter_mut().zip(signal(row)).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean_signal.iter_mut().for_each(|value| *value /= rows.len().max(1) as f64);
        let (mut error, mut variance, mut cosine, mut directed) = (0.0, 0.0, 0.0, 0);
        for (&row, made) in rows.iter().zip(reconstructions.chunks_exact(values)) {
            let signal = signal(row);
            error += signal.iter().zip(made).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
            variance += signal.iter().zip(&mean_signal).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>();
            let length = energy(signal).sqrt();
            if length > 0.0 {
                let inner: f64 = signal.iter().zip(made).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let other = energy(made).sqrt();
                cosine += if other > 0.0 { inner / (length * other) } else { 0.0 };
                directed += 1;
            }
        }
        let nonzeros = codes.iter().filter(|value| **value != 0.0).count();
        Reached {
            nonzeros: nonzeros as f64 / rows.len().max(1) as f64,
            fvu: (variance > 0.0).then(|| error / variance),
            cosine: (directed > 0).then(|| cosine / f64::from(directed)),
        }
    }

    /// ‖y − Dγ‖² of all signals.
    fn errors(&self, codes: &[f32]) -> Vec<f64> {
        let made = to_host(self.made(codes));
        let pairs = self.rows.chunks_exact(self.values()).zip(made.chunks_exact(self.values()));
        pairs
            .map(|(target, made)| target.iter().zip(made).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum())
            .collect()
    }

    fn examine(&self, config: &DoctorConfig) -> Result<Examination> {
        let all: Vec<usize> = (0..self.count()).collect();
        let few: Vec<usize> = spread(self.count(), FEW);
        let largest = self.largest_lambdas();
        let omp = self.omp(&all, |row| self.nonzeros[row])?;
        let lambda = self.equal_lambda(&few, &largest)?;
        let (l1, reports) = self.l1(&all, Lambda::Absolute(lambda), config.gap, None)?;
        let refitted = self.refitted(&all, &self.nonzeros, &largest, lambda)?;
        let errors = [&self.codes, &omp, &refitted].map(|codes| self.errors(codes));
        Ok(Examination {
            signals: self.count(),
            nonnegative: self.nonnegative,
            encoder: self.reached(&all, &self.codes, &self.reconstructions),
            omp: self.reached(&all, &omp, &self.synthesized(&omp)),
            l1: self.reached(&all, &refitted, &self.synthesized(&refitted)),
            objectives: self.objectives(lambda, &errors[0], &l1, &reports),
            worst: self.worst(config.worst, &errors),
            tradeoffs: self.tradeoffs(&few, &largest, lambda)?,
            tradeoff_signals: few.len(),
        })
    }

    fn objectives(&self, lambda: f32, errors: &[f64], codes: &[f32], reports: &[SignalReport]) -> Objectives {
        let lambda = f64::from(lambda);
        let one_norm = |code: &[f32]| code.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        let of_encoder = self.codes.chunks_exact(self.units()).zip(errors);
        // Reports are in single precision, which the bound is lowered by.
        let bound = |report: &SignalReport| {
            f64::from(report.objective) * (1.0 - f64::from(report.relative_gap) - 4.0 * f64::from(f32::EPSILON))
        };
        let nonzeros = codes.iter().filter(|value| **value != 0.0).count();
        Objectives {
            lambda,
            encoder: mean(of_encoder.map(|(code, error)| 0.5 * error + lambda * one_norm(code))),
            pursuit: mean(reports.iter().map(|report| f64::from(report.objective))),
            bound: mean(reports.iter().map(|report| bound(report).max(0.0))),
            nonzeros: nonzeros as f64 / self.count() as f64,
        }
    }

    /// Those whose error the better of the two pursuits lowers most, as a part of the signal's energy.
    fn worst(&self, count: usize, [encoder, omp, l1]: &[Vec<f64>; 3]) -> Vec<WorstSignal> {
        let energies = self.rows.chunks_exact(self.values()).map(energy);
        let mut all: Vec<WorstSignal> = energies
            .enumerate()
            .filter(|(_, energy)| *energy > 0.0)
            .map(|(signal, energy)| WorstSignal {
                signal,
                nonzeros: self.nonzeros[signal],
                encoder: encoder[signal] / energy,
                omp: omp[signal] / energy,
                l1: l1[signal] / energy,
            })
            .collect();
        let lost = |worst: &WorstSignal| worst.encoder - worst.omp.min(worst.l1);
        all.sort_by(|a, b| lost(b).total_cmp(&lost(a)).then(a.signal.cmp(&b.signal)));
        all.retain(|worst| lost(worst) > 0.0);
        all.truncate(count);
        all
    }

    fn tradeoffs(&self, rows: &[usize], largest: &[f32], lambda: f32) -> Result<Vec<Tradeoff>> {
        let units = self.units();
        let mean_nonzeros = mean(rows.iter().map(|&row| self.nonzeros[row] as f64));
        let top = self.affordable((1.5 * mean_nonzeros).ceil() as usize).max(1);
        let ladder: Vec<usize> = [0.125, 0.25, 0.5, 1.0, 1.5]
            .iter()
            .map(|part| ((part * mean_nonzeros).round() as usize).clamp(1, top))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let curve = |name: &str, points: Vec<Reached>| Tradeoff {
            name: name.to_owned(),
            points: points.iter().filter_map(|reached| Some((reached.nonzeros, reached.fvu?))).collect(),
        };
        let of_encoder: Vec<f32> = rows.iter().flat_map(|&row| &self.codes[row * units..][..units]).copied().collect();
        let reach = |codes: Vec<f32>| self.reached(rows, &codes, &self.part_synthesized(rows, &codes));
        let mut encoder = Vec::new();
        for &nonzeros in ladder.iter().filter(|&&nonzeros| (nonzeros as f64) < mean_nonzeros) {
            let mut codes = of_encoder.clone();
            crate::kernels::threshold::hard_threshold_rows(&mut codes, units, nonzeros);
            encoder.push(reach(codes));
        }
        encoder.push(reach(of_encoder));
        let (mut omp, mut l1) = (Vec::new(), Vec::new());
        for nonzeros in ladder {
            omp.push(reach(self.omp(rows, |_| nonzeros)?));
            l1.push(reach(self.refitted(rows, &vec![nonzeros; rows.len()], largest, lambda)?));
        }
        Ok(vec![curve("encoder", encoder), curve("OMP", omp), curve("ℓ1, re-fitted", l1)])
    }

    /// [`Self::synthesized`] of some signals.
    fn part_synthesized(&self, rows: &[usize], codes: &[f32]) -> Vec<f32> {
        let (units, values) = (self.units(), self.values());
        // What undoes a normalisation belongs to all signals: the others have codes of zeros.
        let mut whole = vec![0.0; self.count() * units];
        for (&row, code) in rows.iter().zip(codes.chunks_exact(units)) {
            whole[row * units..][..units].copy_from_slice(code);
        }
        let made = self.synthesized(&whole);
        rows.iter().flat_map(|&row| &made[row * values..][..values]).copied().collect()
    }
}

/// A search for the λ of a number of non-zeros, which falls as λ rises: in strides until it is between two, then by halves. From low
/// numbers to high ones: codes that are dense take longest.
struct Search {
    lambda: f32,
    low: f32,
    high: f32,
}

impl Search {
    fn new(start: f32, largest: f32) -> Self {
        Self { lambda: start, low: 0.0, high: largest }
    }

    /// Towards larger or smaller λ.
    fn step(&mut self, up: bool) {
        if up {
            self.low = self.lambda;
            self.lambda = (STRIDE * self.lambda).min((self.lambda * self.high).sqrt());
        } else {
            self.high = self.lambda;
            self.lambda = if self.low > 0.0 { (self.low * self.high).sqrt() } else { self.lambda / STRIDE };
        }
    }
}

/// Codes and reconstructions, in batches.
fn coded(network: &dyn Autoencoder, signals: &Tensor<4>, cancelled: &dyn Fn() -> bool) -> Result<Coded> {
    const BATCH: usize = 256;
    let ready = network.ready()?;
    let count = signals.dims()[0];
    let mut parts = Vec::new();
    for start in (0..count).step_by(BATCH) {
        if cancelled() {
            return Err(Error::Interrupted("an examination".into()));
        }
        parts.push(ready.reconstruct(signals.clone().narrow(0, start, BATCH.min(count - start)))?);
    }
    let (codes, reconstructions) = parts.into_iter().map(|part| (part.codes, part.reconstruction)).unzip();
    Ok(Coded { codes: Tensor::cat(codes, 0), reconstruction: Tensor::cat(reconstructions, 0) })
}

/// At most so many of `count` places, evenly spread.
pub fn spread(count: usize, most: usize) -> Vec<usize> {
    let taken = count.min(most);
    (0..taken).map(|place| place * count / taken).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

/// Coefficients of least squares on a support, non-negative ones where that is wanted; `support` holds atoms with coefficients to start
/// from, which then are positive. Those that end at zero are left out.
///
/// Non-negative least squares by C. Lawson and R. Hanson ("Solving least squares problems", 1974, chapter 23), from all of the support on.
fn least_squares(atoms: &[f32], signal: &[f32], support: &[(usize, f32)], nonnegative: bool) -> Vec<(usize, f32)> {
    let (size, values) = (support.len(), signal.len());
    let atom = |place: usize| &atoms[support[place].0 * values..][..values];
    let inner = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let mut gram = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let value = inner(atom(row), atom(column));
            (gram[row * size + column], gram[column * size + row]) = (value, value);
        }
    }
    let target: Vec<f64> = (0..size).map(|place| inner(atom(place), signal)).collect();
    let solve = |passive: &[usize]| {
        let mut matrix: Vec<f64> = passive
            .iter()
            .flat_map(|&row| passive.iter().map(move |&column| (row, column)))
            .map(|(row, column)| gram[row * size + column])
            .collect();
        let mut found: Vec<f64> = passive.iter().map(|&place| target[place]).collect();
        solve_normal_equations(&mut matrix, &mut found);
        found
    };
    let mut passive: Vec<usize> = (0..size).collect();
    let mut current: Vec<f64> = support.iter().map(|(_, value)| f64::from(*value)).collect();
    let largest = target.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    // Every round ends with a shorter residual; rounding alone could make it go round in circles.
    for _ in 0..3 * size + 3 {
        let found = solve(&passive);
        if !nonnegative {
            passive.iter().zip(found).for_each(|(&place, value)| current[place] = value);
            break;
        }
        if found.iter().all(|value| *value > 0.0) {
            passive.iter().zip(found).for_each(|(&place, value)| current[place] = value);
            // Which of those that left would come back?
            let slope = |place: usize| {
                target[place] - passive.iter().map(|&other| gram[place * size + other] * current[other]).sum::<f64>()
            };
            let back = (0..size)
                .filter(|place| !passive.contains(place))
                .map(|place| (place, slope(place)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            match back {
                Some((place, slope)) if slope > 1e-9 * largest => passive.push(place),
                _ => break,
            }
            continue;
        }
        let step = passive
            .iter()
            .zip(&found)
            .filter(|(_, found)| **found <= 0.0)
            .map(|(&place, found)| current[place] / (current[place] - found))
            .fold(1.0f64, f64::min);
        for (&place, found) in passive.iter().zip(&found) {
            current[place] += step * (found - current[place]);
        }
        let least = passive.iter().map(|&place| current[place]).fold(f64::INFINITY, f64::min).max(0.0);
        passive.retain(|&place| {
            let stays = current[place] > least.max(1e-12 * largest);
            if !stays {
                current[place] = 0.0;
            }
            stays
        });
        if passive.is_empty() {
            break;
        }
    }
    let found = support.iter().zip(current).map(|((index, _), value)| (*index, value as f32));
    found.filter(|(_, value)| *value != 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over (1, 0), (0.6, 0.8) and (0, 1), worked out by hand.
    #[test]
    fn least_squares_keeps_signs() {
        let atoms = [1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
        let close = |found: Vec<(usize, f32)>, expected: &[(usize, f32)]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((a, value), (b, wanted)) in found.iter().zip(expected) {
                assert!(a == b && (value - wanted).abs() < 1e-5, "{found:?} for {expected:?}");
            }
        };
        // (2, −1) is 2.75·a − 1.25·b; with signs kept 2·a, the other one's slope being negative.
        let support = [(0, 1.0), (1, 0.1)];
        close(least_squares(&atoms, &[2.0, -1.0], &support, false), &[(0, 2.75), (1, -1.25)]);
        close(least_squares(&atoms, &[2.0, -1.0], &support, true), &[(0, 2.0)]);
        close(least_squares(&atoms, &[1.0, 2.0], &[(0, 0.5), (2, 0.5)], true), &[(0, 1.0), (2, 2.0)]);
        close(least_squares(&atoms, &[-1.0, -2.0], &[(0, 0.5)], true), &[]);
        assert!(least_squares(&atoms, &[1.0, 1.0], &[], true).is_empty());
    }

    #[test]
    fn places_are_spread() {
        assert_eq!(spread(10, 4), [0, 2, 5, 7]);
        assert_eq!(spread(3, 9), [0, 1, 2]);
        assert!(spread(0, 9).is_empty());
    }
}
