//! Training through an unrolled pursuit: the auto-encoder view of the model, with the same proximal steps as the online update.
//!
//! ```text
//! γ_L ← T iterations of a pursuit on D^(L), as layers of a network
//! W, encoder ← optimizer's step along the gradient of ½‖y − D^(L)γ_L‖² + Σ_i λ_i‖γ_i‖₁
//! W_i ← H_i[W_i] for i = 2, …, L,   unit norms,   λ and the zeros of H_i as the schedules say
//! ```
//!
//! The threshold of H_i is chosen so that every atom keeps as many entries as the schedule of zeros says, and unit norms are
//! restored, both as in [`super::online`]. Gradients go to the dictionaries through decoder and encoder.

use super::cascade::Cascade;
use super::config::{LearningConfig, TrainConfig};
use crate::autoencoder::{Autoencoder, Coded, Outcome, SparseAutoencoder, Trainable, TrainingBatch};
use crate::error::Result;
use crate::model::Mlcsc;
use crate::model::geometry::{Geometry, SignalShape};
use crate::model::sparse::HostFilters;
use crate::pursuit::threshold::hard_threshold_rows;
use burn::module::Module;
use burn::tensor::Tensor;

/// A [`SparseAutoencoder`] under training, with the constraints on its dictionaries.
#[derive(Module, Debug)]
pub struct UnrolledTraining {
    /// The auto-encoder.
    pub autoencoder: SparseAutoencoder,
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
        Ok(Self { autoencoder, rules: Rules { learning, geometry } })
    }

    /// The dictionaries on the host.
    pub(super) fn cascade(&self) -> Cascade {
        let filters = self.autoencoder.filters().into_iter().map(HostFilters::from_tensor).collect();
        Cascade::new(self.autoencoder.config().model.clone(), filters)
    }
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
        let ready = self.autoencoder.prepare(self.signal())?;
        let (coded, loss) = ready.coded_with_objective(batch.signals.clone())?;
        Ok(Outcome { loss, coded })
    }

    fn constrained(self, progress: f32) -> Self {
        let Rules { learning, geometry } = &self.rules;
        let keep = learning.kept(geometry, progress);
        let mut cascade = self.cascade();
        for (layer, &keep) in keep.iter().enumerate().skip(1) {
            let mut filters = cascade.filters(layer).clone();
            let len = filters.atom_len();
            hard_threshold_rows(filters.values_mut(), len, keep);
            cascade.set_filters(layer, filters);
        }
        cascade.normalize(learning.atom_norm);
        let Self { autoencoder, rules } = self;
        let filters: Vec<HostFilters> = cascade.into_filters();
        let autoencoder = autoencoder.with_filters(|layer, device| filters[layer].to_tensor(device));
        // The schedule's ends were checked, and what lies between them is in range as well.
        let lambda = rules.learning.lambda.at(progress);
        let autoencoder = autoencoder.with_lambda(lambda).expect("a lambda between two that were checked");
        Self { autoencoder, rules }
    }
}
