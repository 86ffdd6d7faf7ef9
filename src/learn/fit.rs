//! Learning in memory: signals in, a model out, no files.

use super::config::{TrainConfig, UpdateRule};
use super::learner::DictionaryLearner;
use super::run::check_content;
#[cfg(feature = "train")]
use super::state::TrainingState;
#[cfg(feature = "train")]
use crate::autoencoder::SparseAutoencoder;
#[cfg(feature = "train")]
use crate::data::Dataset;
use crate::data::{Source, sample};
use crate::error::{Error, Result};
use crate::model::{CodingDefaults, Mlcsc};
use crate::pursuit::check_squares;
use burn::tensor::Device;
use std::sync::Arc;

/// Part of the signals that tells, by the rule `unrolled`, which state is kept.
#[cfg(feature = "train")]
const HELD_OUT: f32 = 0.1;

impl TrainConfig {
    /// Learns the dictionaries of signals by the rule of the configuration, without any file. The configuration's `data` is checked like
    /// the rest of it, but nothing is read from there. By the rule `unrolled` a tenth of the signals, at random, is held out, and the state that codes it best is the result. How
    /// its signals are best coded is in what [`Self::fit_coded`] returns.
    ///
    /// # Errors
    /// A configuration that does not fit itself or the signals; signals that cannot be read, are not finite, are too large to be squared or
    /// hold nothing to learn from.
    pub fn fit(&self, signals: impl Source + 'static, device: &Device) -> Result<Mlcsc> {
        self.fit_with(signals, device, |_| true)
    }

    /// [`Self::fit`] that tells after every step what part of the run is done, and ends where that returns `false`.
    ///
    /// # Errors
    /// As [`Self::fit`]; [`Error::Interrupted`] where it was ended.
    pub fn fit_with(
        &self,
        signals: impl Source + 'static,
        device: &Device,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<Mlcsc> {
        self.fit_coded(signals, device, progress).map(|(model, _)| model)
    }

    /// [`Self::fit_with`] that also says how the model's signals are best coded, with the λ that was found where the configuration asks
    /// for a number of non-zeros: what belongs beside the model in its file.
    ///
    /// # Errors
    /// As [`Self::fit_with`].
    pub fn fit_coded(
        &self,
        signals: impl Source + 'static,
        device: &Device,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<(Mlcsc, CodingDefaults)> {
        self.fit_source(Arc::new(signals), device, progress)
    }

    fn fit_source(
        &self,
        signals: Arc<dyn Source>,
        device: &Device,
        mut progress: impl FnMut(f32) -> bool,
    ) -> Result<(Mlcsc, CodingDefaults)> {
        check_values(&*signals, self)?;
        if self.learning.update == UpdateRule::Unrolled {
            #[cfg(feature = "train")]
            return Ok((self.fit_unrolled(signals, device, progress)?.model()?, self.coding()));
            #[cfg(not(feature = "train"))]
            return Err(Error::parameter(
                "learning.update",
                "unrolled",
                "pursuit or gradient without the feature train",
            ));
        }
        let mut learner = DictionaryLearner::start(self, &*signals, device, |_, _| Ok(()))?;
        while learner.steps_done() < learner.steps() {
            learner.step(&*signals)?;
            if !progress(learner.progress()) {
                return Err(Error::Interrupted("dictionaries were not learned to the end".into()));
            }
        }
        Ok((learner.model()?, learner.coding()))
    }

    /// Learns dictionaries and encoder end to end; the configuration's rule has to be `unrolled`. As [`Self::fit`].
    ///
    /// # Errors
    /// As [`Self::fit_with`]; another rule.
    #[cfg(feature = "train")]
    pub fn fit_autoencoder(
        &self,
        signals: impl Source + 'static,
        device: &Device,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<SparseAutoencoder> {
        if self.learning.update != UpdateRule::Unrolled {
            return Err(Error::parameter("learning.update", self.learning.update, "unrolled for an auto-encoder"));
        }
        check_values(&signals, self)?;
        self.fit_unrolled(Arc::new(signals), device, progress)
    }

    #[cfg(feature = "train")]
    fn fit_unrolled(
        &self,
        signals: Arc<dyn Source>,
        device: &Device,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<SparseAutoencoder> {
        use super::end_to_end::{EndToEnd, Ending, Reseeding};
        use super::unrolled::UnrolledTraining;
        let learning = &self.learning;
        let data = Dataset::divided(signals, HELD_OUT, learning.seed)?;
        let learner = TrainingState::start(self, &*data.train, device, |_, _| Ok(()))?;
        let network = UnrolledTraining::new(learner.config(), &learner.model()?, 0.0, learner.steps_per_epoch())?;
        let training = EndToEnd {
            folder: None,
            train: data.train,
            test: data.test,
            epochs: learning.epochs,
            batch_size: learning.batch_size,
            seed: learning.seed,
            shuffle_buffer: self.data.shuffle_buffer,
            optimization: learning.unrolled.optimization.clone(),
            device: device.clone(),
            further_devices: Vec::new(),
            resume: None,
            losses: Vec::new(),
            measure_start: true,
            reseeding: Some(Reseeding { every: learning.reseed_every, until: learning.reseed_until }),
            dashboard: false,
        };
        let mut best = Best {
            steps: learner.steps(),
            done: 0,
            rate: learning.unrolled.optimization.learning_rate,
            progress,
            kept: None,
        };
        let (_, ending) = training.run(network, &mut best)?;
        match (ending, best.kept) {
            (Ending::Interrupted, _) | (_, None) => {
                Err(Error::Interrupted("the auto-encoder was not trained to the end".into()))
            }
            (_, Some((_, network))) => Ok(network),
        }
    }
}

/// Refuses signals that are not finite or hold nothing to learn from.
fn check_values(signals: &dyn Source, config: &TrainConfig) -> Result<()> {
    if signals.is_empty() {
        // Said where its shape is looked at, too.
        return Ok(());
    }
    let (len, mut before, mut checked) = (signals.shape().len(), 0, Ok(()));
    // All of them, one after the other.
    sample(signals, usize::MAX, |values| {
        let named = |row: usize| format!("signal {} of {}", before / len + row, signals.describe());
        if checked.is_ok() {
            checked = check_squares(values, len, named);
        }
        before += values.len();
    })?;
    checked?;
    check_content(signals, config.model.normalization)
}

/// Keeps the state of the least held-out loss.
#[cfg(feature = "train")]
struct Best<F> {
    steps: usize,
    done: usize,
    rate: f64,
    progress: F,
    kept: Option<(super::metrics::Kept, SparseAutoencoder)>,
}

#[cfg(feature = "train")]
mod watching {
    use super::Best;
    use crate::autoencoder::{Outcome, Trainable, TrainingBatch};
    use crate::error::Result;
    use crate::learn::end_to_end::Watcher;
    use crate::learn::metrics::Kept;
    use crate::learn::unrolled::{UnrolledTraining, check_finite};

    impl<F: FnMut(f32) -> bool> Best<F> {
        fn keep(&mut self, epoch: usize, loss: f64, network: &UnrolledTraining) -> Result<()> {
            let progress = self.done as f32 / self.steps.max(1) as f32;
            let next = Kept { epoch, loss, admissible: network.is_admissible(progress) };
            let before = self.kept.as_ref().map(|(kept, _)| *kept);
            let kept = Kept::better(before, next);
            if before != Some(kept) {
                self.kept = Some((kept, network.last()?));
            }
            Ok(())
        }
    }

    impl<F: FnMut(f32) -> bool> Watcher<UnrolledTraining> for Best<F> {
        fn begin(&mut self, _: &UnrolledTraining) -> Result<()> {
            Ok(())
        }

        fn start(&mut self, loss: f64, network: &UnrolledTraining) -> Result<()> {
            self.keep(0, loss, network)
        }

        fn step(&mut self, step: usize, _: &TrainingBatch, outcome: &Outcome, _: &UnrolledTraining) -> Result<bool> {
            check_finite(outcome, self.rate)?;
            self.done = step;
            Ok((self.progress)(step as f32 / self.steps.max(1) as f32))
        }

        fn held_out(&mut self, _: &TrainingBatch, _: &Outcome, _: &UnrolledTraining) -> Result<bool> {
            Ok(true)
        }

        fn epoch(&mut self, epoch: usize, loss: f64, network: &UnrolledTraining) -> Result<()> {
            self.keep(epoch, loss, network)
        }
    }
}
