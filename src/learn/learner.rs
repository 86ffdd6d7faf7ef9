//! Learning online: what one step does to the dictionaries.

use super::alignment::{self, Explained};
use super::config::{OnlineRule, TrainConfig};
use super::metrics::{BatchSums, Stopwatch};
use super::online::OnlineUpdate;
use super::reseeding::Fresh;
use super::state::{Batch, TrainingState};
use super::statistics::Statistics;
use super::surrogate::SurrogateUpdate;
use crate::data::Source;
use crate::error::{Error, Result};
use crate::kernels::sparse::{HostFilters, to_host};
use crate::model::{Mlcsc, Operator};
use crate::random::{Purpose, stream};
use burn::tensor::Device;
use std::ops::Deref;

/// Takes steps online: a batch is coded, then the dictionaries follow. It is a [`TrainingState`] with what its rule remembers.
#[derive(Debug, Clone)]
pub struct DictionaryLearner {
    pub(super) state: TrainingState,
    pub(super) memory: Memory,
}

/// What a rule remembers of earlier steps.
#[derive(Debug, Clone)]
pub(super) enum Memory {
    /// Sums over codes and signals.
    Statistics(Statistics),
    /// Momentum of every layer's filters.
    Velocity(Vec<HostFilters>),
}

impl Deref for DictionaryLearner {
    type Target = TrainingState;

    fn deref(&self) -> &TrainingState {
        &self.state
    }
}

/// Steps between two looks at where atoms lie in their kernels, and the part of a run after which they are left where they are.
const ALIGN_EVERY: usize = 10;
const ALIGN_UNTIL: f32 = 0.6;

impl DictionaryLearner {
    /// Starts a run: dictionaries initialised from the training signals.
    ///
    /// # Errors
    /// As [`TrainingState::start`]; a configuration whose method is not online.
    pub fn start(
        config: &TrainConfig,
        source: &dyn Source,
        device: &Device,
        progress: impl FnMut(usize, f32) -> Result<()>,
    ) -> Result<Self> {
        let rule = online(config)?;
        Ok(Self::of(TrainingState::start(config, source, device, progress)?, rule))
    }

    /// Goes on from a model.
    ///
    /// # Errors
    /// As [`TrainingState::from_model`]; a configuration whose method is not online.
    pub fn from_model(config: &TrainConfig, model: &Mlcsc, source: &dyn Source, device: &Device) -> Result<Self> {
        let rule = online(config)?;
        Ok(Self::of(TrainingState::from_model(config, model, source, device)?, rule))
    }

    /// A state that steps are taken from by a rule, with nothing remembered.
    pub(super) fn of(state: TrainingState, rule: OnlineRule) -> Self {
        let memory = match (rule, state.geometry.effective_layer()) {
            (OnlineRule::Pursuit, Some(layer)) => Memory::Statistics(Statistics::new(&layer, &state.device)),
            _ => {
                let zeros = |layer| HostFilters::zeros(state.cascade.dims(layer));
                Memory::Velocity((0..state.cascade.depth()).map(zeros).collect())
            }
        };
        Self { state, memory }
    }

    /// One step on the next batch: codes, then dictionaries. Beyond the steps of the configuration it goes on with further epochs, schedules at their ends.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub fn step(&mut self, source: &dyn Source) -> Result<BatchSums> {
        self.step_while(source, |_| true)?.ok_or_else(|| Error::Interrupted("no step was taken".into()))
    }

    /// [`Self::step`] that can be given up while it codes. `progress` is told the part of the batch that is coded and ends the step,
    /// with `None` and nothing changed, by `false`.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_while(&mut self, source: &dyn Source, progress: impl FnMut(f32) -> bool) -> Result<Option<BatchSums>> {
        let learning = self.config.learning.clone();
        let (epoch, within) = (self.step / self.steps_per_epoch, self.step % self.steps_per_epoch);
        let (start, end) = (within * self.batch_size, (within + 1) * self.batch_size);
        let mut stopwatch = Stopwatch::start();
        let operator = self.cascade.operator(&self.device)?;
        let indices = self.state.order.indices(epoch, start..end);
        self.state.find_lambda(&operator, source, &indices)?;
        let Some((batch, mut sums)) = self.code(&operator, source, &indices, progress)? else { return Ok(None) };
        let (mut preparing, counted) = (0.0, sums.seconds.total());
        let Batch { signals, pursued, .. } = &batch;
        self.state.count_idle(sums.usage());
        self.state.steer(sums.usage().iter().sum(), indices.len());
        // What `code` accounted for is not counted twice; the rest served the pursuit.
        stopwatch.lap(&mut preparing);
        sums.seconds.coding += preparing - counted;
        let progress = self.progress();
        let state = &mut self.state;
        match &mut self.memory {
            Memory::Statistics(statistics) => {
                // What is older than an epoch has newer codes by now.
                let least = 1.0 / state.steps_per_epoch as f32;
                let weight = ((state.step + 1) as f32).powf(-learning.pursuit.forgetting).max(least);
                statistics.add(signals, &pursued.codes, state.cascade.atoms(), weight);
                stopwatch.lap(&mut sums.seconds.statistics);
                let update = SurrogateUpdate::new(&learning, learning.nonzeros(&state.geometry), &state.device);
                update.step(state.step, &mut state.cascade, statistics);
            }
            Memory::Velocity(velocity) => {
                let update = OnlineUpdate {
                    step: learning.gradient.step.at(progress),
                    momentum: learning.gradient.momentum,
                    repeats: learning.gradient.repeats,
                    // As of the step's end, so that the last one leaves what was asked for.
                    keep: learning.kept(&state.geometry, (state.step + 1) as f32 / state.steps().max(1) as f32),
                    atom_norm: learning.atom_norm,
                };
                update.step(&mut state.cascade, velocity, signals, &pursued.codes, &state.device)?;
            }
        }
        self.state.step += 1;
        let mut restarting = match self.step.is_multiple_of(learning.reseed_every) {
            true => self.dead_atoms(),
            false => Vec::new(),
        };
        let aligning = self.is_aligning();
        if let (Memory::Statistics(statistics), true) = (&self.memory, aligning || self.is_separating()) {
            let windows_of = self.geometry.windows(self.geometry.depth());
            restarting.extend(alignment::twins(&self.cascade, &statistics.energies(), &windows_of, &self.device));
        }
        restarting.sort_unstable();
        restarting.dedup();
        if self.progress() >= learning.reseed_until {
            restarting.clear();
        }
        self.restart(&operator, &batch, &restarting, aligning);
        stopwatch.lap(&mut sums.seconds.dictionaries);
        Ok(Some(sums))
    }

    /// Whether any rank wants to stop. All have the same dictionaries from here on.
    ///
    /// # Errors
    /// The failure of another rank.
    pub(super) fn agree(&mut self, stop: bool) -> Result<bool> {
        let ranks = self.state.ranks.clone();
        if ranks.is_alone() {
            return Ok(stop);
        }
        let state = &mut self.state;
        let mut parts = state.cascade.parts();
        let steered = state.steered.as_mut().map(std::slice::from_mut);
        let [stop, differed] = ranks.agree(stop, parts.iter_mut().map(HostFilters::values_mut).chain(steered))?;
        if differed {
            state.cascade.set_parts(parts);
        }
        Ok(stop)
    }

    /// Whether atoms of the deepest layer that overlap are looked at for where they lie in their kernels, and for copies: now and then
    /// in a young run.
    fn is_aligning(&self) -> bool {
        matches!(&self.memory, Memory::Statistics(statistics) if statistics.overlap())
            && self.step.is_multiple_of(ALIGN_EVERY)
            && self.progress() < ALIGN_UNTIL
    }

    /// Whether copies of atoms that do not overlap are looked for: now and then in a young run, where atoms are to be kept from being
    /// alike.
    fn is_separating(&self) -> bool {
        self.config.learning.pursuit.incoherence > 0.0
            && matches!(&self.memory, Memory::Statistics(statistics) if !statistics.overlap())
            && self.step.is_multiple_of(ALIGN_EVERY)
            && self.progress() < ALIGN_UNTIL
    }

    /// Atoms of the deepest layer start again from what the present dictionaries explain worst; with `aligning`, others move to the
    /// middle of their kernels.
    fn restart(&mut self, operator: &Operator, batch: &Batch, dead: &[usize], aligning: bool) {
        let learning = &self.config.learning;
        if dead.is_empty() && !aligning {
            return;
        }
        let windows_of = self.geometry.windows(self.geometry.depth());
        let residuals = to_host(batch.signals.clone() - operator.synthesize(batch.pursued.codes.clone()));
        let codes = to_host(batch.pursued.codes.clone());
        // A signal is alike to the atoms that explain most of it; what they leave is not.
        let signals = match learning.pursuit.incoherence > 0.0 {
            true => residuals.clone(),
            false => to_host(batch.signals.clone()),
        };
        let explained = Explained { codes: &codes, residuals: &residuals };
        let generator = stream(learning.seed, Purpose::Reseeding, self.step as u64);
        let fresh = Fresh::find(&self.cascade, &windows_of, &signals, explained, (dead, aligning), generator);
        let update = SurrogateUpdate::new(learning, learning.nonzeros(&self.geometry), &self.device);
        fresh.atoms.iter().for_each(|&atom| self.state.idle[atom] = 0);
        match &mut self.memory {
            Memory::Statistics(statistics) => fresh.seed(&update, Some(statistics), &mut self.state.cascade),
            Memory::Velocity(velocity) => {
                if let Some(velocity) = velocity.last_mut() {
                    fresh.atoms.iter().for_each(|&atom| velocity.atom_mut(atom).fill(0.0));
                }
                fresh.seed(&update, None, &mut self.state.cascade);
            }
        }
    }
}

/// The rule of a configuration that learns online.
fn online(config: &TrainConfig) -> Result<OnlineRule> {
    let rule = config.learning.update;
    rule.online().ok_or_else(|| Error::parameter("learning.update", rule, "pursuit or gradient, which learn online"))
}
