//! Signals in, representations out: normalise, pursue, and back.
//!
//! ```
//! use burn::tensor::Tensor;
//! use mlcsc::model::{CodingDefaults, preset::Preset};
//! use mlcsc::{CoderConfig, device};
//!
//! # fn main() -> mlcsc::Result<()> {
//! let device = device::named(None)?;
//! let model = Preset::Small.model().init_random(0, &device)?; // or `Mlcsc::load`
//! let coder = CoderConfig::new(&CodingDefaults::default()).init(&model)?;
//! let codes = coder.encode(Tensor::ones([2, 1, 28, 28], &device))?;
//! assert_eq!(codes.representations()[2].dims(), [2, 256, 1, 1]); // γ_3
//! assert!(codes.reports()[0].relative_gap <= 1e-4);
//! assert_eq!(coder.decode(&codes)?.dims(), [2, 1, 28, 28]);
//! # Ok(())
//! # }
//! ```

use crate::data::Source;
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SignalShape};
use crate::model::file::CodingDefaults;
use crate::model::normalization::Undo;
use crate::model::{Mlcsc, Operator, OperatorForm};
use crate::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, Observer, OrthogonalMatchingPursuitConfig, Pursued, Pursuit, PursuitConfig,
    Recipe, SignalReport, solve_in_parts,
};
use burn::tensor::{Tensor, TensorData};

/// λ as a fraction of λ_max where no other is given.
const DEFAULT_RELATIVE_LAMBDA: f32 = 0.1;

/// Most signals that are coded at once unless asked for.
const LARGEST_BATCH: usize = 512;

/// Values that the largest representation of a batch has at most unless asked for: 64 MiB.
const BATCH_VALUES: usize = 1 << 24;

/// How a model codes signals.
///
/// | field | default | range |
/// |---|---|---|
/// | `recipe.config` | basis pursuit by the algorithm that suits, to a relative duality gap of 10⁻⁴; orthogonal matching pursuit where the model was learned with it | see [`PursuitConfig`] |
/// | `recipe.lambda` | the λ that the model was learned with, else 0.1 of each signal's λ_max | ≥ 0; fractions in [0, 1] |
/// | `recipe.layer_weights` | none | one ≥ 0 for each layer |
/// | `application` | chosen by the number of operations | what the geometry admits |
/// | `batch_size` | as many signals as 64 MiB of codes hold, at most 512 | ≥ 1 |
#[derive(Debug, Clone, PartialEq)]
pub struct CoderConfig {
    /// The pursuit and its penalties.
    pub recipe: Recipe,
    /// How D^(L) is applied.
    pub application: OperatorForm,
    /// Signals coded at once.
    pub batch_size: Option<usize>,
}

impl CoderConfig {
    /// The pursuit that the model was trained with.
    pub fn new(defaults: &CodingDefaults) -> Self {
        let basis = BasisPursuitConfig { nonnegative: defaults.nonnegative, ..BasisPursuitConfig::default() };
        let config = PursuitConfig::BasisPursuit { algorithm: Algorithm::Auto, basis };
        let lambda = Some(default_lambda(defaults)).filter(|_| defaults.nonzeros.is_none());
        let config = match defaults.nonzeros {
            Some(nonzeros) => {
                let greedy = OrthogonalMatchingPursuitConfig::new(nonzeros).with_nonnegative(defaults.nonnegative);
                PursuitConfig::OrthogonalMatchingPursuit(greedy)
            }
            None => config,
        };
        let recipe = Recipe { config, lambda, layer_weights: None };
        Self { recipe, application: OperatorForm::Auto, batch_size: None }
    }

    /// With another λ.
    #[must_use]
    pub fn with_lambda(mut self, lambda: Lambda) -> Self {
        self.recipe.lambda = Some(lambda);
        self
    }

    /// With another pursuit; λ stays where the pursuit has one, else there is none. The sign is that of the new pursuit, not the model's:
    /// see [`Self::with_nonnegative`].
    #[must_use]
    pub fn with_pursuit(mut self, config: PursuitConfig) -> Self {
        if !config.has_penalty() {
            self.recipe.lambda = None;
        }
        self.recipe.config = config;
        self
    }

    /// With codes that are non-negative, or of both signs.
    #[must_use]
    pub fn with_nonnegative(mut self, nonnegative: bool) -> Self {
        self.recipe.config = self.recipe.config.with_nonnegative(nonnegative);
        self
    }

    /// To another relative duality gap, by a pursuit that has one.
    #[must_use]
    pub fn with_gap(mut self, gap: f32) -> Self {
        if let Some(basis) = self.recipe.config.basis_mut() {
            basis.gap = gap;
        }
        self
    }

    /// In at most so many iterations, by a pursuit that goes on to a gap.
    #[must_use]
    pub fn with_max_iterations(mut self, iterations: usize) -> Self {
        if let Some(basis) = self.recipe.config.basis_mut() {
            basis.max_iterations = iterations;
        }
        self
    }

    /// With so many signals at once.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = Some(batch_size);
        self
    }

    /// Everything that does not depend on single signals, for signals of the model's own shape.
    ///
    /// # Errors
    /// As [`Self::init_for`].
    pub fn init(&self, model: &Mlcsc) -> Result<Coder> {
        self.init_for(model, model.config().signal)
    }

    /// The same for signals of another shape.
    ///
    /// # Errors
    /// A shape that the model cannot take; a pursuit or penalties that do not fit the model; no signals at once.
    pub fn init_for(&self, model: &Mlcsc, signal: SignalShape) -> Result<Coder> {
        self.clone().init_on(model.clone(), model.operator(signal, self.application)?)
    }

    /// The same with an operator of the model's.
    pub(crate) fn init_on(self, model: Mlcsc, operator: Operator) -> Result<Coder> {
        if self.batch_size == Some(0) {
            return Err(Error::parameter("batch_size", 0, "at least 1"));
        }
        let pursuit = self.recipe.prepare(&operator)?;
        let batch_size = self.batch_size.unwrap_or_else(|| default_batch(operator.geometry()));
        Ok(Coder { model, operator, recipe: self.recipe, pursuit, batch_size })
    }
}

/// λ of a model's codes where no other is given.
pub(crate) fn default_lambda(defaults: &CodingDefaults) -> Lambda {
    defaults.lambda.map_or(Lambda::Relative(DEFAULT_RELATIVE_LAMBDA), Lambda::Absolute)
}

/// As many signals as fit into [`BATCH_VALUES`].
pub(crate) fn default_batch(geometry: &Geometry) -> usize {
    let largest = geometry.layers().iter().map(|layer| layer.code.len().max(layer.signal.len())).max().unwrap_or(1);
    (BATCH_VALUES / largest).clamp(1, LARGEST_BATCH)
}

/// A model with a pursuit, ready to code signals of one shape.
pub struct Coder {
    model: Mlcsc,
    operator: Operator,
    recipe: Recipe,
    pursuit: Box<dyn Pursuit>,
    batch_size: usize,
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { model, operator, recipe, pursuit, batch_size } = self;
        let mut told = formatter.debug_struct("Coder");
        told.field("model", model.config()).field("signal", &operator.signal()).field("recipe", recipe);
        told.field("algorithm", &pursuit.name()).field("batch_size", batch_size).finish_non_exhaustive()
    }
}

/// One coded batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Number of its first signal.
    pub start: usize,
    /// The signals as they were read.
    pub signals: Tensor<4>,
    /// What was found.
    pub pursued: Pursued,
    /// Undoes the normalisation.
    pub undo: Undo,
}

impl Coder {
    /// The model.
    pub fn model(&self) -> &Mlcsc {
        &self.model
    }

    /// The operator that codes are found with.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The pursuit and its penalties.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The algorithm's name.
    pub fn algorithm(&self) -> &'static str {
        self.pursuit.name()
    }

    /// Signals coded at once.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Codes signals, in batches.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// Signals of another shape, or that are not finite; not one λ a signal where each has its own.
    pub fn encode(&self, signals: Tensor<4>) -> Result<Codes> {
        let count = signals.dims()[0];
        self.check_count(count)?;
        if count == 0 {
            return Ok(Codes::joined(&self.operator, vec![self.encode_batch(signals, 0, None)?]));
        }
        let mut batches = Vec::new();
        for start in (0..count).step_by(self.batch_size) {
            let size = self.batch_size.min(count - start);
            batches.push(self.encode_batch(signals.clone().narrow(0, start, size), start, None)?);
        }
        Ok(Codes::joined(&self.operator, batches))
    }

    /// Codes a source's signals and calls `visit` with one batch after the other. The observer is told how far each has come, and can
    /// end it.
    ///
    /// # Errors
    /// Signals that cannot be read, of another shape or another sampling rate; [`Error::Interrupted`] where the observer ended it; errors of `visit`.
    pub fn encode_source(
        &self,
        source: &dyn Source,
        observer: Option<&dyn Observer>,
        mut visit: impl FnMut(Batch) -> Result<()>,
    ) -> Result<()> {
        let count = source.len();
        self.check_count(count)?;
        self.model.config().check_sampling_rate(source.sampling_rate())?;
        for start in (0..count).step_by(self.batch_size) {
            let indices: Vec<usize> = (start..(start + self.batch_size).min(count)).collect();
            let mut values = vec![0.0; indices.len() * source.shape().len()];
            source.read(&indices, &mut values)?;
            let data = TensorData::new(values, source.shape().batched(indices.len()));
            visit(self.encode_batch(Tensor::from_data(data, &self.operator.device()), start, observer)?)?;
        }
        Ok(())
    }

    /// Refuses a λ for every signal that are fewer or more than the signals.
    fn check_count(&self, count: usize) -> Result<()> {
        match &self.recipe.lambda {
            Some(Lambda::PerSignal(values)) if values.len() != count => {
                Err(Error::shape("lambda per signal", format!("{count}, one per signal"), values.len()))
            }
            _ => Ok(()),
        }
    }

    /// Codes one batch, the first signal being that number of all: one λ a signal is counted from there.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`Error::Interrupted`] where the observer ended it.
    pub fn encode_batch(&self, signals: Tensor<4>, start: usize, observer: Option<&dyn Observer>) -> Result<Batch> {
        let (normalized, undo) = self.model.config().normalizer().apply(signals.clone());
        let mut problem = self.recipe.problem(&self.operator, normalized, start)?;
        if let Some(observer) = observer {
            problem = problem.with_observer(observer);
        }
        let pursued = solve_in_parts(&*self.pursuit, &problem)?;
        Ok(Batch { start, signals, pursued, undo })
    }

    /// Signals from their codes, with the normalisation undone.
    ///
    /// # Shapes
    /// - out: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// Codes of another shape than this model's.
    pub fn decode(&self, codes: &Codes) -> Result<Tensor<4>> {
        let parts = codes.parts().map(|(range, undo)| {
            let part = codes.deepest().clone().slice([range]);
            self.decode_batch(part, undo)
        });
        Ok(Tensor::cat(parts.collect::<Result<_>>()?, 0))
    }

    /// Signals from deepest codes γ_L, be they read from a file or changed, with the normalisation undone by what undoes it of those signals
    /// ([`Undo::nothing`] leaves them as the model sees them).
    ///
    /// # Shapes
    /// - codes: `[n, m_L, h_L, w_L]`; out: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// Codes of another shape than this model's, or of another number of signals than were normalised.
    pub fn decode_batch(&self, codes: Tensor<4>, undo: &Undo) -> Result<Tensor<4>> {
        let [_, dims @ ..] = codes.dims();
        let [_, wanted @ ..] = self.operator.code().batched(1);
        if dims != wanted {
            return Err(Error::shape("codes", self.operator.code(), format!("{dims:?}")));
        }
        let count = codes.dims()[0];
        if let Some(expected) = undo.count().filter(|expected| *expected != count) {
            return Err(Error::shape(
                "codes",
                format!("{expected}, as the signals whose normalisation is undone"),
                count,
            ));
        }
        Ok(undo.undo(self.operator.synthesize(codes)))
    }
}

/// The representations of some signals.
#[derive(Debug, Clone)]
pub struct Codes {
    representations: Vec<Tensor<4>>,
    reports: Vec<SignalReport>,
    /// What undoes the normalisation, batch by batch.
    undos: Vec<(std::ops::Range<usize>, Undo)>,
}

impl Codes {
    /// Of one batch or more.
    fn joined(operator: &Operator, batches: Vec<Batch>) -> Self {
        let mut layers: Vec<Vec<Tensor<4>>> = vec![Vec::new(); operator.geometry().depth()];
        let (mut reports, mut undos) = (Vec::new(), Vec::new());
        for Batch { pursued, undo, start, .. } in batches {
            for (layer, representation) in layers.iter_mut().zip(pursued.representations(operator)) {
                layer.push(representation);
            }
            undos.push((start..start + pursued.reports.len(), undo));
            reports.extend(pursued.reports);
        }
        let representations = layers.into_iter().map(|layer| Tensor::cat(layer, 0)).collect();
        Self { representations, reports, undos }
    }

    /// γ_1 … γ_L.
    ///
    /// # Shapes
    /// - out: γ_i as `[n, m_i, h_i, w_i]`.
    pub fn representations(&self) -> &[Tensor<4>] {
        &self.representations
    }

    /// γ_L.
    ///
    /// # Shapes
    /// - out: `[n, m_L, h_L, w_L]`.
    pub fn deepest(&self) -> &Tensor<4> {
        self.representations.last().expect("a model has at least one layer")
    }

    /// The signals that were coded together, by their numbers, and what undoes their normalisation: what [`crate::export::CodesWriter`] asks
    /// for beside their representations.
    pub fn parts(&self) -> impl Iterator<Item = (std::ops::Range<usize>, &Undo)> {
        self.undos.iter().map(|(range, undo)| (range.clone(), undo))
    }

    /// What the pursuit says of every signal: λ, objective, duality gap, non-zeros, why it ended.
    pub fn reports(&self) -> &[SignalReport] {
        &self.reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::LayerShape;
    use crate::kernels::sparse::to_host;
    use crate::model::ModelConfig;
    use crate::model::normalization::Normalization;
    use burn::tensor::Distribution;

    /// In batches as at once, with the normalisation undone; one λ a signal is the λ of that signal.
    #[test]
    fn signals_are_coded_in_batches_and_come_back() {
        let device = crate::device::named(None).unwrap();
        let shape = SignalShape::new(1, 6, 6);
        let config = ModelConfig {
            normalization: Normalization::Contrast,
            ..ModelConfig::new(shape, vec![LayerShape::new(80, 6, 1)])
        };
        let model = config.init_random(2, &device).unwrap();
        let signals = Tensor::random(shape.batched(7), Distribution::Uniform(1.0, 3.0), &device);
        let config = CoderConfig::new(&CodingDefaults::default()).with_lambda(Lambda::Relative(1e-3));
        let codes = |config: &CoderConfig| config.init(&model).unwrap().encode(signals.clone()).unwrap();
        let [whole, parts] = [config.clone(), config.clone().with_batch_size(3)].map(|config| codes(&config));
        let coder = config.init(&model).unwrap();
        let distance = |a: Tensor<4>, b: Tensor<4>| to_host((a - b).abs().max().reshape([1, 1, 1, 1]))[0];
        assert!(distance(whole.deepest().clone(), parts.deepest().clone()) < 1e-3);
        for codes in [&whole, &parts] {
            assert_eq!(codes.reports().len(), 7);
            // λ is a thousandth of its largest value. Measured: 0.005.
            assert!(distance(coder.decode(codes).unwrap(), signals.clone()) < 0.02);
        }
        let lambdas: Vec<f32> = (1..8).map(|signal| 0.01 * signal as f32).collect();
        let each = codes(&config.clone().with_batch_size(3).with_lambda(Lambda::PerSignal(lambdas.clone())));
        assert!(each.reports().iter().zip(&lambdas).all(|(report, lambda)| report.lambda == *lambda));
        let more = config.clone().with_batch_size(3).with_lambda(Lambda::PerSignal(vec![0.1; 8])).init(&model).unwrap();
        assert!(more.encode(signals.clone()).unwrap_err().to_string().contains("7, one per signal"));
        assert!(config.with_batch_size(0).init(&model).is_err());
        assert!(coder.encode(Tensor::ones([1, 1, 5, 6], &device)).is_err());
    }
}
