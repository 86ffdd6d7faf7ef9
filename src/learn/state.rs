//! The state of a training, whatever takes its steps: the dictionaries, and how far it has come.

use super::cascade::Cascade;
use super::collective::Ranks;
use super::config::{TrainConfig, UpdateRule};
use super::initialize::initialize;
use super::metrics::{BatchSums, Dictionaries, Phases, Stopwatch, Summary};
use super::order::{Order, check_together};
use crate::data::{Source, sample, wanted_shape};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SignalShape};
use crate::kernels::sparse::{HostFilters, to_host};
use crate::kernels::windows::Windows;
use crate::model::normalization::ChannelSums;
use crate::model::{CodingDefaults, Mlcsc, Operator};
use crate::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Pursued, Pursuit, SignalReport,
};
use burn::tensor::{Device, Tensor, TensorData};

/// Dictionaries under training. [`super::DictionaryLearner`] takes steps online; a run end to end keeps one up to date.
#[derive(Debug, Clone)]
pub struct TrainingState {
    pub(super) config: TrainConfig,
    pub(super) geometry: Geometry,
    pub(super) cascade: Cascade,
    /// Steps since every deepest atom was last used by a code.
    pub(super) idle: Vec<u32>,
    /// Steps done.
    pub(super) step: usize,
    /// λ as it was steered so far, where a number of non-zeros is the target.
    pub(super) steered: Option<f32>,
    /// Number of training signals.
    pub(super) signals: usize,
    /// Signals of a step.
    pub(super) batch_size: usize,
    pub(super) steps_per_epoch: usize,
    pub(super) device: Device,
    /// The order of training signals, epoch by epoch.
    pub(super) order: Order,
    /// The processes that share the coding.
    pub(super) ranks: Ranks,
}

/// Signals of a batch, as the model codes them.
pub(super) struct Batch {
    pub signals: Tensor<4>,
    pub pursued: Pursued,
}

/// Code values that are coded between two looks at whether to go on, and signals at least. Fixed numbers, so that codes, which some
/// pursuits round by the size of the batch, do not depend on how fast they are found.
const CODED_AT_ONCE: usize = 1 << 18;
const LEAST_AT_ONCE: usize = 16;

/// Signals that the first λ is found from, to which gap and in how many halvings of its logarithm, from which part of λ_max on.
const LOOKED_AT: usize = 256;
const LOOSE_GAP: f32 = 1e-2;
const BISECTIONS: usize = 9;
const SMALLEST_PART: f32 = 1e-3;

/// Exponent of the ratio of non-zeros found and wanted that λ is multiplied by after a step, at the beginning and at the end of a run.
const STEERING: [f64; 2] = [0.3, 0.03];

impl TrainingState {
    /// Starts a run: dictionaries initialised from the training signals.
    ///
    /// # Errors
    /// A configuration that does not fit itself or the signals; signals that cannot be read; whatever `progress` ends the
    /// initialisation by.
    pub fn start(
        config: &TrainConfig,
        source: &dyn Source,
        device: &Device,
        progress: impl FnMut(usize, f32) -> Result<()>,
    ) -> Result<Self> {
        let geometry = check(config, source)?;
        let config = &fitted_to(config, source)?;
        let cascade = initialize(config, &geometry, source, device, progress)?;
        Ok(Self::assemble(config, geometry, cascade, source, device))
    }

    /// Goes on from a model.
    ///
    /// # Errors
    /// A configuration that does not fit itself, the model or the signals.
    pub fn from_model(config: &TrainConfig, model: &Mlcsc, source: &dyn Source, device: &Device) -> Result<Self> {
        let geometry = check(config, source)?;
        let config = &fitted_to(config, source)?;
        let filters: Vec<HostFilters> = model.filters().into_iter().map(HostFilters::from_tensor).collect();
        let fits = filters.len() == geometry.depth()
            && filters.iter().zip(geometry.layers()).all(|(filters, layer)| filters.dims() == layer.filter_dims());
        if !fits {
            return Err(Error::shape("model to go on from", "the layers of the configuration", "other ones"));
        }
        Ok(Self::assemble(config, geometry, Cascade::new(config.model.clone(), filters), source, device))
    }

    fn assemble(
        config: &TrainConfig,
        geometry: Geometry,
        cascade: Cascade,
        source: &dyn Source,
        device: &Device,
    ) -> Self {
        let batch_size = batch_size(config, &geometry);
        Self {
            idle: vec![0; geometry.code().channels],
            order: Order::new(source.len(), config.learning.seed, config.data.shuffle_buffer),
            signals: source.len(),
            batch_size,
            steps_per_epoch: source.len().div_ceil(batch_size),
            config: config.clone(),
            geometry,
            cascade,
            step: 0,
            steered: None,
            device: device.clone(),
            ranks: Ranks::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch * self.config.learning.epochs
    }

    /// Part of the run that is done.
    pub fn progress(&self) -> f32 {
        self.step as f32 / self.steps().max(1) as f32
    }

    /// The model as it stands.
    ///
    /// # Errors
    /// None for filters that came from a model.
    pub fn model(&self) -> Result<Mlcsc> {
        self.cascade.model(&self.device)
    }

    /// Replaces the dictionaries by those of a model of the same configuration.
    pub(super) fn set_model(&mut self, model: &Mlcsc) {
        let filters = model.filters().into_iter().map(HostFilters::from_tensor).collect();
        self.cascade = Cascade::new(self.config.model.clone(), filters);
    }

    /// λ at this moment.
    pub fn lambda(&self) -> f32 {
        self.steered.unwrap_or_else(|| self.config.learning.lambda.at(self.progress()))
    }

    /// How signals are to be coded with the dictionaries as they are.
    pub fn coding(&self) -> CodingDefaults {
        self.config.learning.coding(self.lambda())
    }

    /// Finds the first λ where a number of non-zeros is the target: from a few signals, by bisection.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub(super) fn find_lambda(&mut self, operator: &Operator, source: &dyn Source, indices: &[usize]) -> Result<()> {
        let Some(target) = self.config.learning.target_nonzeros.filter(|_| self.steered.is_none()) else {
            return Ok(());
        };
        let indices = &indices[..indices.len().min(LOOKED_AT)];
        let shape = source.shape();
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(indices, &mut values)?;
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), &self.device);
        let (signals, _) = self.config.model.normalizer().apply(signals);
        let basis = BasisPursuitConfig { gap: LOOSE_GAP, ..self.config.learning.basis() };
        let pursuit = Algorithm::Auto.init(&basis, operator)?;
        // λ as a part of each signal's largest; then the mean of what that is.
        let (mut low, mut high) = (SMALLEST_PART, 1.0f32);
        let mut lambda = None;
        for _ in 0..BISECTIONS {
            let part = (low * high).sqrt();
            let pursued = pursuit.pursue(operator, signals.clone(), &Lambda::Relative(part))?;
            let mean = |value: fn(&SignalReport) -> f64| {
                pursued.reports.iter().map(value).sum::<f64>() / pursued.reports.len().max(1) as f64
            };
            lambda = Some(mean(|report| f64::from(report.lambda)) as f32);
            match mean(|report| report.nonzeros as f64) > f64::from(target) {
                true => low = part,
                false => high = part,
            }
        }
        self.steered = lambda.filter(|lambda| *lambda > 0.0);
        Ok(())
    }

    /// Moves λ towards what gives the target, `nonzeros` being those of a batch of so many signals.
    pub(super) fn steer(&mut self, nonzeros: f64, signals: usize) {
        let (Some(target), Some(lambda)) = (self.config.learning.target_nonzeros, self.steered) else { return };
        let found = (nonzeros / signals.max(1) as f64).max(0.1 * f64::from(target));
        // In large steps at first; small ones at the end, where the batches' chance would be all that they follow.
        let rate = STEERING[1] + (STEERING[0] - STEERING[1]) * f64::from(1.0 - self.progress());
        let factor = (found / f64::from(target)).powf(rate).clamp(0.5, 2.0);
        self.steered = Some((f64::from(lambda) * factor) as f32);
    }

    /// The pursuit that codes the signals of training.
    fn pursuit(&self, operator: &Operator) -> Result<Box<dyn Pursuit>> {
        let learning = &self.config.learning;
        match learning.code_nonzeros {
            Some(nonzeros) => {
                let config = OrthogonalMatchingPursuitConfig::new(nonzeros).with_nonnegative(learning.nonnegative);
                Ok(Box::new(config.init()?))
            }
            None => Algorithm::Auto.init(&learning.basis(), operator),
        }
    }

    /// Codes held-out signals with the dictionaries as they are, in batches. `progress` is told the part that is done and ends it,
    /// with `None`, by `false`.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub fn evaluate(&self, source: &dyn Source, mut progress: impl FnMut(f32) -> bool) -> Result<Option<Summary>> {
        let operator = self.cascade.operator(&self.device)?;
        let mut total: Option<BatchSums> = None;
        let batch = self.config.learning.batch_size;
        for start in (0..source.len()).step_by(batch) {
            let indices: Vec<usize> = (start..(start + batch).min(source.len())).collect();
            let of_all = |part: f32| (start as f32 + part * indices.len() as f32) / source.len() as f32;
            let Some((coded, mut sums)) = self.code(&operator, source, &indices, |part| progress(of_all(part)))? else {
                return Ok(None);
            };
            sums.compare(&coded.signals, operator.synthesize(coded.pursued.codes));
            match &mut total {
                Some(total) => total.add(&sums),
                None => total = Some(sums),
            }
        }
        let total = total.ok_or_else(|| Error::shape("held-out signals", "at least one", 0))?;
        Ok(Some(total.summary()))
    }

    /// What can be said of the dictionaries alone; the coherences, which take a moment, only if asked for.
    pub fn dictionaries(&self, coherence: bool) -> Dictionaries {
        Dictionaries::of(&self.cascade, &self.geometry, coherence, &self.device)
    }

    /// Counts a step, whose codes used the deepest atoms so often.
    pub(super) fn count_idle(&mut self, usage: &[f64]) {
        for (idle, used) in self.idle.iter_mut().zip(usage) {
            *idle = if *used > 0.0 { 0 } else { idle.saturating_add(1) };
        }
    }

    /// Atoms of the deepest layer that no code has used for as long as it takes to be taken for dead.
    pub fn dead_atoms(&self) -> Vec<usize> {
        let steps = self.config.learning.reseed_every.min(self.steps_per_epoch) as u32;
        (0..self.idle.len()).filter(|&atom| self.idle[atom] >= steps).collect()
    }

    /// Reads, normalises and codes some signals, some at a time. `progress` is told the part that is coded and ends it, with `None`,
    /// by `false`. Of several ranks each does so with a part, and all come to the same result.
    pub(super) fn code(
        &self,
        operator: &Operator,
        source: &dyn Source,
        indices: &[usize],
        progress: impl FnMut(f32) -> bool,
    ) -> Result<Option<(Batch, BatchSums)>> {
        if self.ranks.is_alone() {
            return self.code_own(operator, source, indices, progress);
        }
        let own = self.ranks.parts(indices.len()).swap_remove(self.ranks.rank());
        let coded = match own.is_empty() {
            true => None,
            false => self.code_own(operator, source, &indices[own.clone()], progress)?,
        };
        if self.ranks.any(coded.is_none() && !own.is_empty())? {
            return Ok(None);
        }
        self.joined(operator, coded).map(Some)
    }

    /// What all ranks have coded, each its part.
    fn joined(&self, operator: &Operator, own: Option<(Batch, BatchSums)>) -> Result<(Batch, BatchSums)> {
        let (mut signals, mut codes, mut reports, mut sums) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut seconds = Phases::default();
        if let Some((batch, own)) = own {
            signals = to_host(batch.signals);
            codes = to_host(batch.pursued.codes);
            reports = batch.pursued.reports;
            seconds = own.seconds;
            sums = own.to_values();
        }
        let signals = self.ranks.gather_floats(signals)?;
        let (codes, reports) = self.ranks.gather_codes(codes, reports, operator.code().len())?;
        let mut total: Option<BatchSums> = None;
        for values in self.ranks.gather_doubles(&sums)? {
            let sums = BatchSums::from_values(&values, &self.geometry)
                .ok_or_else(|| Error::shape("sums of another rank", "those of the same model", "others"))?;
            match &mut total {
                Some(total) => total.add(&sums),
                None => total = Some(sums),
            }
        }
        let mut sums = total.ok_or_else(|| Error::shape("signals of a batch", "at least one", 0))?;
        // What this rank needed: the sum over ranks is no time that anybody waits.
        sums.seconds = seconds;
        let tensor = |values, shape: SignalShape| {
            Tensor::from_data(TensorData::new(values, shape.batched(reports.len())), &self.device)
        };
        let (signals, codes) = (tensor(signals, operator.signal()), tensor(codes, operator.code()));
        Ok((Batch { signals, pursued: Pursued::consistent(codes, reports) }, sums))
    }

    /// [`Self::code`] for signals of this rank's own.
    fn code_own(
        &self,
        operator: &Operator,
        source: &dyn Source,
        indices: &[usize],
        mut progress: impl FnMut(f32) -> bool,
    ) -> Result<Option<(Batch, BatchSums)>> {
        let shape = source.shape();
        let (mut stopwatch, mut seconds) = (Stopwatch::start(), Phases::default());
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(indices, &mut values)?;
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), &self.device);
        let (signals, undo) = self.config.model.normalizer().apply(signals);
        stopwatch.lap(&mut seconds.reading);
        let lambda = self.lambda();
        let pursuit = self.pursuit(operator)?;
        let (mut codes, mut reports) = (Vec::new(), Vec::with_capacity(indices.len()));
        let at_once = (CODED_AT_ONCE / operator.code().len()).max(LEAST_AT_ONCE);
        for start in (0..indices.len()).step_by(at_once) {
            let end = (start + at_once).min(indices.len());
            let part = match (start, end - start == indices.len()) {
                (0, true) => signals.clone(),
                _ => signals.clone().slice([start..end, 0..shape.channels, 0..shape.height, 0..shape.width]),
            };
            let pursued = pursuit.pursue(operator, part, &Lambda::Absolute(lambda))?;
            codes.push(pursued.codes);
            reports.extend(pursued.reports);
            if !progress(end as f32 / indices.len() as f32) {
                return Ok(None);
            }
        }
        let codes = if codes.len() == 1 { codes.swap_remove(0) } else { Tensor::cat(codes, 0) };
        let pursued = Pursued::consistent(codes, reports);
        stopwatch.lap(&mut seconds.coding);
        let mut sums = BatchSums::new(&self.cascade, &self.geometry, &signals, &pursued, &undo, lambda);
        stopwatch.lap(&mut seconds.measuring);
        sums.seconds = seconds;
        Ok(Some((Batch { signals, pursued }, sums)))
    }
}

/// Signals of a step: what the configuration says, of windows where those are signals of their own. Steps of unrolled training, which
/// are another loop's, are counted in whole signals.
fn batch_size(config: &TrainConfig, geometry: &Geometry) -> usize {
    let learning = &config.learning;
    let windows = geometry.effective_layer().as_ref().and_then(Windows::of);
    match windows.filter(|_| learning.update != UpdateRule::Unrolled) {
        Some(windows) => (learning.batch_size / windows.positions()).max(1),
        None => learning.batch_size,
    }
}

/// Values that the statistics of a normalisation are found from at most (2²⁶); of larger sets signals at even distances stand for all.
const MOST_VALUES: usize = 1 << 26;

/// A configuration with what its model needs to know of the training signals, where it does not say so: the statistics of its normalisation,
/// the sampling rate.
fn fitted_to(config: &TrainConfig, source: &dyn Source) -> Result<TrainConfig> {
    let mut config = config.clone();
    config.model.sampling_rate = config.model.sampling_rate.or_else(|| source.sampling_rate());
    let normalization = config.model.normalization;
    if !normalization.is_fitted() || config.model.statistics.is_some() {
        return Ok(config);
    }
    let (shape, len) = (source.shape(), source.shape().len());
    let mut values = vec![0.0; len];
    source.read(&[0], &mut values)?;
    let mut sums = ChannelSums::new(shape.channels, &values);
    sample(source, MOST_VALUES, |values| values.chunks_exact(len).for_each(|signal| sums.add(signal)))?;
    config.model.statistics = sums.statistics(normalization);
    Ok(config)
}

/// Checks a configuration against itself and the signals.
pub(super) fn check(config: &TrainConfig, source: &dyn Source) -> Result<Geometry> {
    let geometry = config.check()?;
    if source.is_empty() {
        return Err(Error::shape(format!("training signals ({})", source.describe()), "at least one", 0));
    }
    if source.shape() != geometry.signal() {
        let expected = wanted_shape(geometry.signal(), geometry.signal(), source.shape());
        return Err(Error::shape(format!("signals of {}", source.describe()), expected, source.shape()));
    }
    config.model.check_sampling_rate(source.sampling_rate())?;
    check_windows(config, source)?;
    check_together(source, config.learning.batch_size)?;
    Ok(geometry)
}

/// Whether signals are the patches of windows where the configuration says so.
pub(super) fn check_windows(config: &TrainConfig, source: &dyn Source) -> Result<()> {
    let wanted = config.overlapping()?.map_or(1, |overlapping| overlapping.count());
    if wanted != 1 && source.together() != wanted {
        let expected =
            format!("{wanted} patches of each window one after the other, as a source with `window` has them");
        return Err(Error::shape(format!("signals of {}", source.describe()), expected, source.together()));
    }
    Ok(())
}
