//! A model as the auto-encoder that it is without any network: the encoder is a pursuit that is run to its end.

use super::{Autoencoder, Coded, check_batch};
use crate::coder::CoderConfig;
use crate::error::Result;
use crate::geometry::SignalShape;
use crate::model::normalization::Normalizer;
use crate::model::{CodingDefaults, Mlcsc, Operator, OperatorForm};
use crate::pursuit::convergence::{Convergence, Tally};
use crate::pursuit::{BasisPursuitConfig, Lambda, Pursuit};
use burn::tensor::Tensor;

/// Dictionaries with a basis pursuit as their encoder. Gradients do not go through it; [`super::SparseAutoencoder`] is for that.
pub struct PursuitAutoencoder {
    operator: Operator,
    pursuit: Box<dyn Pursuit>,
    lambda: Lambda,
    normalizer: Normalizer,
    /// Of all signals so far.
    convergence: Tally,
}

impl PursuitAutoencoder {
    /// For signals of the shape that the model was made for.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(model: &Mlcsc, basis: &BasisPursuitConfig, lambda: Lambda) -> Result<Self> {
        lambda.check()?;
        let operator = model.operator(model.config().signal, OperatorForm::Auto)?;
        let pursuit = basis.init_for(&operator)?;
        let (normalizer, convergence) = (model.config().normalizer(), Tally::default());
        Ok(Self { operator, pursuit, lambda, normalizer, convergence })
    }

    /// By the pursuit that the model was learned with; basis pursuit with a tenth of each signal's λ_max where that is not known.
    ///
    /// # Errors
    /// More non-zeros than the model's codes have.
    pub fn as_learned(model: &Mlcsc, coding: &CodingDefaults) -> Result<Self> {
        let recipe = CoderConfig::new(coding).recipe;
        let operator = model.operator(model.config().signal, OperatorForm::Auto)?;
        let pursuit = recipe.prepare(&operator)?;
        let lambda = recipe.lambda.unwrap_or(Lambda::Absolute(0.0));
        Ok(Self { operator, pursuit, lambda, normalizer: model.config().normalizer(), convergence: Tally::default() })
    }

    /// The deepest codes of normalised signals.
    fn pursue(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let found = self.pursuit.pursue(&self.operator, signals, &self.lambda)?;
        self.convergence.add(&found.reports);
        Ok(found.codes)
    }
}

impl Autoencoder for PursuitAutoencoder {
    fn signal(&self) -> SignalShape {
        self.operator.signal()
    }

    fn code(&self) -> SignalShape {
        self.operator.code()
    }

    /// The deepest codes γ_L of normalised signals.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("signals", self.signal(), &signals)?;
        let (signals, _) = self.normalizer.apply(signals);
        self.pursue(signals)
    }

    /// D^(L)γ_L, in the scale of normalised signals.
    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("codes", self.code(), &codes)?;
        Ok(self.operator.synthesize(codes))
    }

    fn atoms(&self) -> Tensor<4> {
        self.operator.effective_filters()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    fn convergence(&self) -> Convergence {
        self.convergence.get()
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        check_batch("signals", self.signal(), &signals)?;
        let (signals, undo) = self.normalizer.apply(signals);
        let codes = self.pursue(signals)?;
        let reconstruction = undo.undo(self.operator.synthesize(codes.clone()));
        Ok(Coded { codes, reconstruction })
    }
}

impl std::fmt::Debug for PursuitAutoencoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PursuitAutoencoder")
            .field("operator", &self.operator)
            .field("pursuit", &self.pursuit.name())
            .field("lambda", &self.lambda)
            .finish_non_exhaustive()
    }
}
