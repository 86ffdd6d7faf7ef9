//! Training through an unrolled pursuit: the auto-encoder view of the model, with the same proximal steps as the online update.
//!
//! ```text
//! γ_L ← T iterations of a pursuit on D^(L), as layers of a network
//! W, encoder ← optimizer's step along the gradient of ½‖y − D^(L)γ_L‖² + Σ_i λ_i‖γ_i‖₁
//! W_i ← H_i[W_i] for i = 2, …, L,   unit norms,   λ and the zeros of H_i as the schedules say
//! ```
//!
//! The threshold of H_i is chosen so that every atom keeps as many entries as the schedule of zeros says, and unit norms are
//! restored, both as in [`super::online`]. Gradients go to the dictionaries through decoder and encoder, and through the division by
//! the atoms' norms: without that the part of the gradient that makes atoms longer, which costs less penalty, would be most of it, and
//! what is left once lengths are restored would not go downhill.
//!
//! The schedule of zeros begins where the dictionaries are: an atom keeps no more entries than the fullest one of its layer had at the
//! start, so that dictionaries that have the zeros already are not filled up first. Atoms of the deepest layer that no code has used
//! for long, among them those that are zero and have no gradient, start again from windows of signals that are represented badly.
//! Held-out signals are coded with the last λ of its schedule, so that epochs can be compared.

use super::cascade::Cascade;
use super::config::{AtomNorm, LearningConfig, TrainConfig};
use super::learner::worst_windows;
use super::surrogate::SurrogateUpdate;
use crate::autoencoder::{Autoencoder, Coded, Outcome, SparseAutoencoder, Trainable, TrainingBatch};
use crate::error::Result;
use crate::model::geometry::{Geometry, SignalShape};
use crate::model::sparse::{HostFilters, to_host};
use crate::model::{Dictionary, Mlcsc, effective_filters, leaf};
use crate::pursuit::threshold::hard_threshold_rows;
use crate::random::{Purpose, stream};
use burn::module::{Module, RunningState};
use burn::tensor::{Tensor, TensorData};

/// A [`SparseAutoencoder`] under training, with the constraints on its dictionaries.
#[derive(Module, Debug)]
pub struct UnrolledTraining {
    /// The auto-encoder.
    pub autoencoder: SparseAutoencoder,
    /// Entries of the fullest atom of every layer at the start of the run, `[layers]`.
    given: RunningState<Tensor<1>>,
    #[module(skip)]
    rules: Rules,
}

/// What the dictionaries are kept to.
#[derive(Debug, Clone)]
struct Rules {
    learning: LearningConfig,
    geometry: Geometry,
}

impl UnrolledTraining {
    /// From a model's dictionaries, when the part `progress` of the run is done.
    ///
    /// # Errors
    /// A configuration that does not fit itself or the model.
    pub fn new(config: &TrainConfig, model: &Mlcsc, progress: f32) -> Result<Self> {
        let geometry = config.check()?;
        let learning = config.learning.clone();
        let lambda = learning.lambda.at(progress);
        let autoencoder =
            learning.unrolled.autoencoder(&config.model, lambda, learning.nonnegative).init_from(model)?;
        let given: Vec<f32> = filters(&autoencoder).iter().map(|filters| fullest(filters) as f32).collect();
        let dims = [given.len()];
        let given = Tensor::from_data(TensorData::new(given, dims), &autoencoder.device());
        Ok(Self { autoencoder, given: RunningState::new(given), rules: Rules { learning, geometry } })
    }

    /// The auto-encoder with the λ that the schedule ends with.
    ///
    /// # Errors
    /// None for a schedule that was checked.
    pub fn last(&self) -> Result<SparseAutoencoder> {
        self.autoencoder.clone().with_lambda(self.rules.learning.lambda.at(1.0))
    }

    /// W_1 … W_L as the restored norms would have them, as functions of the parameters.
    fn normalized(&self) -> Vec<Tensor<4>> {
        let mut filters = self.autoencoder.filters();
        let deepest = filters.len() - 1;
        match self.rules.learning.atom_norm {
            AtomNorm::Effective => {
                let strides: Vec<[usize; 2]> = self.autoencoder.layers.iter().map(Dictionary::stride).collect();
                let norms = norms(effective_filters(&filters, &strides));
                filters[deepest] = filters[deepest].clone() / norms;
            }
            AtomNorm::Layer => {
                for layer in 0..=deepest {
                    let norms = norms(filters[layer].clone());
                    filters[layer] = filters[layer].clone() / norms.clone();
                    if layer < deepest {
                        filters[layer + 1] = filters[layer + 1].clone() * norms.swap_dims(0, 1);
                    }
                }
            }
        }
        filters
    }

    /// Entries that atoms of every layer keep when the part `progress` of the run is done.
    fn kept(&self, progress: f32) -> Vec<usize> {
        let Rules { learning, geometry } = &self.rules;
        let given = to_host(leaf(self.given.value_sync()));
        let least = learning.nonzeros(geometry);
        let layers = learning.kept(geometry, progress).into_iter().zip(given).zip(least);
        layers.map(|((scheduled, given), least)| scheduled.min((given as usize).max(least))).collect()
    }

    /// The dictionaries on the host.
    pub(super) fn cascade(&self) -> Cascade {
        Cascade::new(self.autoencoder.config().model.clone(), filters(&self.autoencoder))
    }
}

/// The norms of atoms, 1 for those that are zero: `[m, …]` to `[m, 1, 1, 1]`.
fn norms(atoms: Tensor<4>) -> Tensor<4> {
    let squares = atoms.square().sum_dims(&[1, 2, 3]);
    // Before the root, whose slope at zero is infinite.
    let nothing = squares.clone().equal_scalar(0.0);
    squares.mask_fill(nothing, 1.0).sqrt()
}

fn filters(autoencoder: &SparseAutoencoder) -> Vec<HostFilters> {
    autoencoder.filters().into_iter().map(HostFilters::from_tensor).collect()
}

/// Entries other than zero of the atom that has most.
fn fullest(filters: &HostFilters) -> usize {
    let atoms = filters.values().chunks_exact(filters.atom_len().max(1));
    atoms.map(|atom| atom.iter().filter(|value| **value != 0.0).count()).max().unwrap_or(0)
}

impl Autoencoder for UnrolledTraining {
    fn signal(&self) -> SignalShape {
        self.autoencoder.signal()
    }

    fn code(&self) -> SignalShape {
        self.autoencoder.code()
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        self.autoencoder.encode(signals)
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        self.autoencoder.decode(codes)
    }

    fn atoms(&self) -> Tensor<4> {
        self.autoencoder.atoms()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        self.autoencoder.ready()
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        self.autoencoder.reconstruct(signals)
    }
}

impl Trainable for UnrolledTraining {
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let ready = self.autoencoder.prepare_from(self.normalized(), self.signal())?;
        let (coded, loss) = ready.coded_with_objective(batch.signals.clone())?;
        Ok(Outcome { loss, coded })
    }

    /// With the last λ.
    fn validation(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let ready = self.last()?.prepare(self.signal())?;
        let (coded, loss) = ready.coded_with_objective(batch.signals.clone())?;
        Ok(Outcome { loss, coded })
    }

    /// Atoms of the deepest layer.
    fn mortal_units(&self) -> usize {
        self.rules.geometry.code().channels
    }

    fn reseeded(self, units: &[usize], batch: &TrainingBatch) -> Result<Self> {
        let Rules { learning, geometry } = &self.rules;
        let (signals, _) = self.autoencoder.config().model.normalization.apply(batch.signals.clone());
        let still = self.autoencoder.valid();
        let ready = still.prepare(self.signal())?;
        let codes = ready.pursue(signals.clone())?;
        let residuals = to_host(signals.clone() - ready.operator().synthesize(codes));
        let windows_of = geometry.windows(geometry.depth());
        let generator = stream(batch.seed, Purpose::Reseeding, batch.step as u64);
        let targets = worst_windows(&windows_of, (&to_host(signals), &residuals), units.len(), generator);
        let count = targets.len() / windows_of.atom_len().max(1);
        let mut cascade = self.cascade();
        let deepest = cascade.depth() - 1;
        let update = SurrogateUpdate::new(learning, learning.nonzeros(geometry), &still.device());
        update.seed(&units[..count], &targets, &mut cascade);
        let filters = cascade.into_filters();
        let autoencoder =
            self.autoencoder.with_atoms(deepest, &units[..count], |device| filters[deepest].to_tensor(device));
        Ok(Self { autoencoder, ..self })
    }

    /// Whether atoms are as sparse as the schedule of zeros ends with.
    fn is_admissible(&self, _: f32) -> bool {
        let most = self.rules.learning.nonzeros(&self.rules.geometry);
        filters(&self.autoencoder).iter().zip(most).all(|(filters, most)| fullest(filters) <= most)
    }

    fn constrained(self, progress: f32) -> Self {
        let keep = self.kept(progress);
        let learning = &self.rules.learning;
        let mut cascade = self.cascade();
        for (layer, &keep) in keep.iter().enumerate().skip(1) {
            let mut filters = cascade.filters(layer).clone();
            let len = filters.atom_len();
            hard_threshold_rows(filters.values_mut(), len, keep);
            cascade.set_filters(layer, filters);
        }
        cascade.normalize(learning.atom_norm);
        let Self { autoencoder, given, rules } = self;
        let filters: Vec<HostFilters> = cascade.into_filters();
        let autoencoder = autoencoder.with_filters(|layer, device| filters[layer].to_tensor(device));
        // The schedule's ends were checked, and what lies between them is in range as well.
        let lambda = rules.learning.lambda.at(progress);
        let autoencoder = autoencoder.with_lambda(lambda).expect("a lambda between two that were checked");
        Self { autoencoder, given, rules }
    }
}
