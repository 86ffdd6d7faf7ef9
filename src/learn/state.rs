//! The state of a training, whatever takes its steps: the dictionaries, and how far it has come.

use super::cascade::Cascade;
use super::config::{TrainConfig, UpdateRule};
use super::initialize::initialize;
use super::metrics::{BatchSums, Dictionaries, Phases, Stopwatch, Summary};
use super::order::Order;
use crate::data::{Source, wanted_shape};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::kernels::sparse::HostFilters;
use crate::kernels::windows::Windows;
use crate::model::{Mlcsc, Operator};
use crate::pursuit::{Algorithm, Lambda, Pursued};
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
    /// Number of training signals.
    pub(super) signals: usize,
    /// Signals of a step.
    pub(super) batch_size: usize,
    pub(super) steps_per_epoch: usize,
    pub(super) device: Device,
    /// The order of training signals, epoch by epoch.
    pub(super) order: Order,
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

impl TrainingState {
    /// Starts a run: dictionaries initialised from the training signals.
    ///
    /// # Errors
    /// A configuration that does not fit itself or the signals; signals that cannot be read.
    pub fn start(
        config: &TrainConfig,
        source: &dyn Source,
        device: &Device,
        progress: impl FnMut(usize, f32),
    ) -> Result<Self> {
        let geometry = check(config, source)?;
        let cascade = initialize(config, &geometry, source, device, progress)?;
        Ok(Self::assemble(config, geometry, cascade, source, device))
    }

    /// Goes on from a model.
    ///
    /// # Errors
    /// A configuration that does not fit itself, the model or the signals.
    pub fn from_model(config: &TrainConfig, model: &Mlcsc, source: &dyn Source, device: &Device) -> Result<Self> {
        let geometry = check(config, source)?;
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
            device: device.clone(),
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
        self.config.learning.lambda.at(self.progress())
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
            let Some((_, sums)) = self.code(&operator, source, &indices, |part| progress(of_all(part)))? else {
                return Ok(None);
            };
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
    /// by `false`.
    pub(super) fn code(
        &self,
        operator: &Operator,
        source: &dyn Source,
        indices: &[usize],
        mut progress: impl FnMut(f32) -> bool,
    ) -> Result<Option<(Batch, BatchSums)>> {
        let learning = &self.config.learning;
        let shape = source.shape();
        let (mut stopwatch, mut seconds) = (Stopwatch::start(), Phases::default());
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(indices, &mut values)?;
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), &self.device);
        let (signals, undo) = self.config.model.normalization.apply(signals);
        stopwatch.lap(&mut seconds.reading);
        let lambda = self.lambda();
        let pursuit = Algorithm::Auto.init(&learning.basis(), operator)?;
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

/// Checks a configuration against itself and the signals.
pub(super) fn check(config: &TrainConfig, source: &dyn Source) -> Result<Geometry> {
    let geometry = config.check()?;
    if source.is_empty() {
        return Err(Error::shape(format!("training signals ({})", source.describe()), "at least one", 0));
    }
    if source.shape() != geometry.signal() {
        let expected = wanted_shape(geometry.signal(), geometry.signal().channels, source.shape());
        return Err(Error::shape(format!("signals of {}", source.describe()), expected, source.shape()));
    }
    Ok(geometry)
}
