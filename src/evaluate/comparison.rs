//! Pursuits side by side on the same signals: how well they approximate, how sparsely, how consistently, how fast.

use crate::error::{Error, Result};
use crate::model::Operator;
use crate::model::stripe::{own_radius, stripe_norms};
use crate::pursuit::{
    Acceleration, Algorithm, BasisPursuitConfig, Convergence, ConvexProjectionConfig, GreedyProjectionConfig,
    HolisticPursuitConfig, Lambda, LayeredBasisPursuitConfig, MultiLayerProximalGradientConfig,
    MultiLayerSplittingConfig, Observer, OrthogonalMatchingPursuitConfig, Pursued, PursuitConfig, PursuitName, Recipe,
    Selection, Threshold, solve_in_parts,
};
use burn::tensor::Tensor;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Instant;

/// The fractions of λ_max of a curve.
pub const FRACTIONS: [f32; 8] = [0.8, 0.6, 0.4, 0.25, 0.15, 0.08, 0.04, 0.02];

/// The numbers of non-zeros of a curve, as far as a model has them.
pub const NONZEROS: [usize; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];

/// Means over signals.
#[derive(Debug, Clone, Serialize)]
pub struct Measures {
    /// Number of signals.
    pub signals: usize,
    /// ‖y − D^(L)γ_L‖.
    pub residual: f64,
    /// ‖y − D_1 γ_1‖, which is another one for pursuits layer by layer.
    pub first_layer_residual: f64,
    /// Non-zeros of γ_1 … γ_L.
    pub nonzeros: Vec<f64>,
    /// ‖γ_i‖ˢ_{0,∞} on the stripe of each layer's own atoms.
    pub stripe_norms: Vec<f64>,
    /// ‖γ_{i−1} − D_i γ_i‖ for i = 2 … L.
    pub inconsistency: Vec<f64>,
    /// How many signals came to the gap that their pursuit was told. Not in JSON, which has it where some did not.
    #[serde(skip)]
    pub convergence: Convergence,
    /// Seconds for all signals, without what is computed once.
    pub seconds: f64,
    /// Signals in a second.
    pub signals_per_second: f64,
}

/// Sums over signals of what [`Measures`] holds.
struct Sums {
    measures: Measures,
}

impl Sums {
    fn new(depth: usize) -> Self {
        let measures = Measures {
            signals: 0,
            residual: 0.0,
            first_layer_residual: 0.0,
            nonzeros: vec![0.0; depth],
            stripe_norms: vec![0.0; depth],
            inconsistency: vec![0.0; depth - 1],
            convergence: Convergence::default(),
            seconds: 0.0,
            signals_per_second: 0.0,
        };
        Self { measures }
    }

    fn add(&mut self, operator: &Operator, signals: &Tensor<4>, pursued: &Pursued, seconds: f64) {
        let sums = &mut self.measures;
        let representations = pursued.representations(operator);
        let distances =
            |from: &Tensor<4>, to: Tensor<4>| total((from.clone() - to).square().sum_dims(&[1, 2, 3]).sqrt());
        sums.signals += signals.dims()[0];
        sums.seconds += seconds;
        sums.convergence.add(&pursued.reports);
        sums.residual += distances(signals, operator.synthesize(pursued.codes.clone()));
        let mut below = signals.clone();
        for (index, (codes, layer)) in representations.into_iter().zip(operator.layers()).enumerate() {
            let distance = distances(&below, layer.synthesize(codes.clone()));
            match index {
                0 => sums.first_layer_residual += distance,
                _ => sums.inconsistency[index - 1] += distance,
            }
            sums.nonzeros[index] += total(codes.clone().not_equal_scalar(0.0).float().sum_dims(&[1, 2, 3]));
            let norms = stripe_norms(codes.clone(), own_radius(&operator.geometry().layers()[index]));
            sums.stripe_norms[index] += norms.iter().sum::<usize>() as f64;
            below = codes;
        }
    }

    fn means(self) -> Measures {
        let mut means = self.measures;
        let count = means.signals.max(1) as f64;
        for value in [&mut means.residual, &mut means.first_layer_residual] {
            *value /= count;
        }
        for values in [&mut means.nonzeros, &mut means.stripe_norms, &mut means.inconsistency] {
            values.iter_mut().for_each(|value| *value /= count);
        }
        means.signals_per_second = count / means.seconds;
        means
    }
}

fn total(values: Tensor<4>) -> f64 {
    crate::device::read(values).iter::<f32>().map(f64::from).sum()
}

/// The signals of a comparison, normalised as the model wants them.
pub trait Batches {
    /// Number of signals.
    fn count(&self) -> usize;

    /// Signals in a batch.
    fn batch_size(&self) -> usize;

    /// `count` signals from `start` on, `[count, channels, height, width]`.
    ///
    /// # Errors
    /// Signals that cannot be read.
    fn read(&self, start: usize, count: usize) -> Result<Tensor<4>>;

    /// Hears that so many more signals were coded; an error ends the comparison.
    ///
    /// # Errors
    /// An interruption.
    fn advance(&self, count: usize) -> Result<()>;

    /// Callbacks that are told how far a batch has come, and may end it. Default: none.
    fn observer(&self) -> Option<&dyn Observer> {
        None
    }

    /// Hears what came of a pursuit at one setting, as soon as it is known: of use where the comparison is ended before it is done.
    fn measured(&self, _row: &Row) {}
}

/// Signals in memory, normalised.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `[n, channels, height, width]`.
    pub signals: Tensor<4>,
    /// Signals in a batch, at least 1.
    pub batch_size: usize,
}

impl Batches for Loaded {
    fn count(&self) -> usize {
        self.signals.dims()[0]
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor<4>> {
        Ok(self.signals.clone().narrow(0, start, count))
    }

    fn advance(&self, _: usize) -> Result<()> {
        Ok(())
    }
}

/// Can end a pursuit, and is told nothing of it.
#[derive(Debug)]
struct Silent<'a>(&'a dyn Observer);

impl Observer for Silent<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Runs a pursuit on all signals.
///
/// # Errors
/// As [`Recipe::check`], [`crate::pursuit::Pursuit::solve`] and [`Batches`].
pub fn measure(operator: &Operator, recipe: &Recipe, signals: &dyn Batches) -> Result<Measures> {
    let pursuit = recipe.prepare(operator)?;
    let mut sums = Sums::new(operator.geometry().depth());
    for start in (0..signals.count()).step_by(signals.batch_size()) {
        let size = signals.batch_size().min(signals.count() - start);
        let batch = signals.read(start, size)?;
        if start == 0 && size > 1 {
            // One-time preparation of the operator is left out of the time, whichever pursuit comes first.
            let mut first = recipe.problem(operator, batch.clone().narrow(0, 0, 1), 0)?;
            let silent = signals.observer().map(Silent);
            if let Some(silent) = &silent {
                first = first.with_observer(silent);
            }
            pursuit.solve(&first)?;
        }
        let clock = Instant::now();
        let mut problem = recipe.problem(operator, batch.clone(), start)?;
        if let Some(observer) = signals.observer() {
            problem = problem.with_observer(observer);
        }
        let pursued = solve_in_parts(&*pursuit, &problem)?;
        sums.add(operator, &batch, &pursued, clock.elapsed().as_secs_f64());
        signals.advance(size)?;
    }
    Ok(sums.means())
}

/// What is varied from point to point.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// Non-zeros of γ_L.
    Nonzeros(usize),
    /// λ.
    Lambda(Lambda),
}

impl Setting {
    /// As JSON: `{"nonzeros": 10}`, `{"lambda": {"relative": 0.1}}`.
    pub fn json(&self) -> Value {
        match self {
            Self::Nonzeros(nonzeros) => json!({ "nonzeros": nonzeros }),
            Self::Lambda(Lambda::PerSignal(_)) => json!({ "lambda": "per-signal" }),
            Self::Lambda(lambda) => json!({ "lambda": lambda }),
        }
    }
}

/// A pursuit at one setting.
#[derive(Debug, Clone)]
pub struct Row {
    /// The pursuit.
    pub pursuit: PursuitName,
    /// What it was told.
    pub setting: Setting,
    /// What came of it.
    pub measures: Measures,
}

impl Row {
    /// As JSON: the measures, with `pursuit` and `setting`.
    pub fn json(&self) -> Value {
        let mut row = json!(self.measures);
        row["pursuit"] = json!(self.pursuit);
        row["setting"] = self.setting.json();
        row
    }
}

/// What to compare.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The pursuits.
    pub pursuits: Vec<PursuitName>,
    /// Numbers of non-zeros of γ_L for greedy pursuits. Where there are none, the table has [`Self::DEFAULT_NONZEROS`] and curves
    /// have [`NONZEROS`].
    pub nonzeros: Vec<usize>,
    /// λ of all others in the table; curves have [`FRACTIONS`].
    pub lambda: Lambda,
    /// As in [`Recipe`].
    pub layer_weights: Option<Vec<f32>>,
    /// Limits λ_1 … λ_L of the projection's stripe norms; where none are given nothing is limited.
    pub stripe_limits: Option<Vec<usize>>,
    /// Non-zeros of γ_1 … γ_{L−1} for holistic pursuit.
    pub shallower_nonzeros: Vec<usize>,
    /// Gap, iterations, sign. Holistic pursuit knows no sign, greedy pursuits neither gap nor iterations.
    pub basis: BasisPursuitConfig,
}

impl Comparison {
    /// Non-zeros of greedy pursuits in the table.
    pub const DEFAULT_NONZEROS: usize = 10;

    /// Whether a pursuit is told a number of non-zeros instead of λ.
    pub fn counts(name: PursuitName) -> bool {
        name.is_greedy() || name == PursuitName::Projection
    }

    /// A pursuit at a setting.
    fn recipe(&self, operator: &Operator, name: PursuitName, setting: &Setting) -> Recipe {
        let (nonzeros, lambda) = match setting {
            Setting::Nonzeros(nonzeros) => (*nonzeros, None),
            Setting::Lambda(lambda) => (1, Some(lambda.clone())),
        };
        let parameters = Parameters {
            algorithm: Algorithm::Auto,
            basis: self.basis.clone(),
            nonzeros: Some(nonzeros),
            shallower_nonzeros: self.shallower_nonzeros.clone(),
            residual: 0.0,
            stripe_limits: self.stripe_limits.clone(),
            threshold: if self.basis.nonnegative { Threshold::NonNegative } else { Threshold::Soft },
            convex: false,
            debias: false,
        };
        let layer_weights = self.layer_weights.clone().filter(|_| name.takes_layer_weights());
        Recipe { config: parameters.config(name, operator), lambda, layer_weights }
    }

    /// The settings of a pursuit in the table, and those of its curve.
    fn settings(&self, operator: &Operator, name: PursuitName) -> [Vec<Setting>; 2] {
        let most = operator.code().len().min(operator.signal().len());
        if !Self::counts(name) {
            let curve = FRACTIONS.iter().map(|&fraction| Setting::Lambda(Lambda::Relative(fraction)));
            return [vec![Setting::Lambda(self.lambda.clone())], curve.collect()];
        }
        let all = |nonzeros: &[usize]| nonzeros.iter().map(|&nonzeros| Setting::Nonzeros(nonzeros)).collect::<Vec<_>>();
        if self.nonzeros.is_empty() {
            let curve = NONZEROS.into_iter().filter(|&nonzeros| nonzeros <= most).collect::<Vec<_>>();
            return [all(&[Self::DEFAULT_NONZEROS.min(most)]), all(&curve)];
        }
        [all(&self.nonzeros), all(&self.nonzeros)]
    }

    /// Checks everything before anything is computed.
    ///
    /// # Errors
    /// No pursuits, or one twice; as [`Recipe::check`]; with curves, weights of layers that make a fraction more than 1.
    pub fn check(&self, operator: &Operator, curves: bool) -> Result<()> {
        if self.pursuits.is_empty() {
            return Err(Error::parameter("pursuits", "none", "at least one"));
        }
        for (index, &name) in self.pursuits.iter().enumerate() {
            if self.pursuits[..index].contains(&name) {
                return Err(Error::parameter("pursuits", name, "each pursuit once"));
            }
            let [table, curve] = self.settings(operator, name);
            for setting in table.iter().chain(curve.iter().filter(|_| curves)) {
                self.recipe(operator, name, setting).check(operator)?;
            }
        }
        Ok(())
    }

    /// Signals that [`Self::table`] codes, all pursuits and settings together, for `count` signals; with curves, those of
    /// [`Self::curves`] too.
    pub fn work(&self, operator: &Operator, count: usize, curves: bool) -> usize {
        let settings = self.pursuits.iter().map(|&name| self.settings(operator, name));
        count * settings.map(|[table, curve]| table.len() + if curves { curve.len() } else { 0 }).sum::<usize>()
    }

    fn rows(
        &self,
        operator: &Operator,
        signals: &dyn Batches,
        name: PursuitName,
        all: Vec<Setting>,
    ) -> Result<Vec<Row>> {
        let row = |setting: Setting| {
            let measures = measure(operator, &self.recipe(operator, name, &setting), signals)?;
            let row = Row { pursuit: name, setting, measures };
            signals.measured(&row);
            Ok(row)
        };
        all.into_iter().map(row).collect()
    }

    /// Every pursuit at its settings.
    ///
    /// # Errors
    /// As [`Self::check`] and [`measure`].
    pub fn table(&self, operator: &Operator, signals: &dyn Batches) -> Result<Vec<Row>> {
        self.check(operator, false)?;
        let tables = self.pursuits.iter().map(|&name| {
            let [table, _] = self.settings(operator, name);
            self.rows(operator, signals, name, table)
        });
        Ok(tables.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Every pursuit over a range of settings, one curve after the other.
    ///
    /// # Errors
    /// As [`Self::check`] and [`measure`].
    pub fn curves(&self, operator: &Operator, signals: &dyn Batches) -> Result<Vec<Vec<Row>>> {
        self.check(operator, true)?;
        let curves = self.pursuits.iter().map(|&name| {
            let [_, curve] = self.settings(operator, name);
            self.rows(operator, signals, name, curve)
        });
        curves.collect()
    }
}

/// What any of the pursuits may be told.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// The algorithm of basis pursuit, where the name leaves it open.
    pub algorithm: Algorithm,
    /// Gap, iterations, sign.
    pub basis: BasisPursuitConfig,
    /// Most non-zeros of γ_L.
    pub nonzeros: Option<usize>,
    /// Most non-zeros of γ_1 … γ_{L−1}, for holistic pursuit.
    pub shallower_nonzeros: Vec<usize>,
    /// Length of the residual at which greedy pursuits stop.
    pub residual: f32,
    /// λ_1 … λ_L of projections; no limits where none are given.
    pub stripe_limits: Option<Vec<usize>>,
    /// Of layered thresholding.
    pub threshold: Threshold,
    /// Whether projections are convex.
    pub convex: bool,
    /// Whether convex projections are de-biased.
    pub debias: bool,
}

impl Parameters {
    /// The pursuit of that name.
    pub fn config(self, name: PursuitName, operator: &Operator) -> PursuitConfig {
        let Self { algorithm, basis, residual, .. } = self;
        let by = |algorithm, basis| PursuitConfig::BasisPursuit { algorithm, basis };
        let multi_layer = |acceleration, basis| {
            PursuitConfig::MultiLayerProximalGradient(MultiLayerProximalGradientConfig {
                basis,
                ..MultiLayerProximalGradientConfig::new(acceleration)
            })
        };
        let unlimited = || operator.geometry().layers().iter().map(|layer| layer.code.len()).collect();
        match name {
            PursuitName::BasisPursuit => by(algorithm, basis),
            PursuitName::Ista => by(Algorithm::Ista, basis),
            PursuitName::Fista => by(Algorithm::Fista, basis),
            PursuitName::CoordinateDescent => by(Algorithm::CoordinateDescent, basis),
            PursuitName::ResidualDescent => by(Algorithm::ResidualDescent, basis),
            PursuitName::OrthogonalMatchingPursuit | PursuitName::OrthogonalLeastSquares => {
                let most = operator.code().len().min(operator.signal().len());
                let nonzeros = self.nonzeros.unwrap_or(most);
                let nonnegative = basis.nonnegative;
                let selection = match name {
                    PursuitName::OrthogonalLeastSquares => Selection::Residual,
                    _ => Selection::Correlation,
                };
                let config = OrthogonalMatchingPursuitConfig { nonzeros, residual, nonnegative, selection };
                PursuitConfig::OrthogonalMatchingPursuit(config)
            }
            PursuitName::Projection => {
                let limits = self.stripe_limits.unwrap_or_else(unlimited);
                if self.convex {
                    let debias = self.debias;
                    let plain = ConvexProjectionConfig::new(limits);
                    PursuitConfig::ConvexProjection(ConvexProjectionConfig { algorithm, basis, debias, ..plain })
                } else {
                    let (nonzeros, nonnegative) = (self.nonzeros, basis.nonnegative);
                    PursuitConfig::GreedyProjection(GreedyProjectionConfig { limits, residual, nonzeros, nonnegative })
                }
            }
            PursuitName::LayeredThresholding => PursuitConfig::LayeredThresholding { threshold: self.threshold },
            PursuitName::LayeredBasisPursuit => {
                PursuitConfig::LayeredBasisPursuit(LayeredBasisPursuitConfig { algorithm, basis })
            }
            PursuitName::MlIsta => multi_layer(Acceleration::Ista, basis),
            PursuitName::MlFista => multi_layer(Acceleration::Fista, basis),
            PursuitName::MlBasisPursuit => {
                PursuitConfig::MultiLayerSplitting(MultiLayerSplittingConfig { basis, ..Default::default() })
            }
            PursuitName::Holistic => PursuitConfig::HolisticPursuit(HolisticPursuitConfig {
                basis: BasisPursuitConfig { nonnegative: false, ..basis },
                ..HolisticPursuitConfig::new(self.shallower_nonzeros)
            }),
        }
    }
}
