//! The decoder of an auto-encoder of others as a dictionary for pursuits.
//!
//! Whatever the encoder does, a signal is x = Γ·W_dec + b: a dictionary of one layer, on signals whose mean b is taken off. Pursuits run
//! on rows of unit norm, so that a penalty weighs units by what they add to the signal and not by how their codes happen to be scaled;
//! their codes over the norms of the rows are in the units of the auto-encoder's.

use super::{ForeignAutoencoder, InputScaling};
use crate::error::{Error, Result};
use crate::geometry::LayerShape;
use crate::kernels::sparse::{norm, to_host};
use crate::model::normalization::{ChannelStatistics, Normalization, Undo};
use crate::model::{CodingDefaults, Mlcsc, ModelConfig};
use burn::tensor::{Tensor, TensorData};

impl ForeignAutoencoder {
    /// One layer on signals whose mean is taken off.
    pub(super) fn model_config(&self) -> ModelConfig {
        let config = self.config();
        ModelConfig {
            normalization: Normalization::Mean,
            statistics: Some(ChannelStatistics::of_mean(to_host(self.encoder.centre.val()))),
            ..ModelConfig::new(config.signal(), vec![LayerShape::new(config.units, 1, 1)])
        }
    }

    /// How codes are best computed on its dictionary.
    pub fn coding(&self) -> CodingDefaults {
        CodingDefaults { nonnegative: self.config().activation.is_nonnegative(), ..CodingDefaults::default() }
    }

    /// Euclidean norms of the decoder's rows; 1 for rows of zeros.
    pub fn norms(&self) -> Vec<f32> {
        let norm = |row: &[f32]| Some(norm(row)).filter(|norm| *norm > 0.0).unwrap_or(1.0);
        to_host(self.decoder()).chunks_exact(self.config().inputs).map(norm).collect()
    }

    /// The same as what pursuits' codes are divided by to be in its units, `[1, m, 1, 1]`.
    pub fn norms_of_codes(&self) -> Tensor<4> {
        let norms = self.norms();
        let dims = [1, norms.len(), 1, 1];
        Tensor::from_data(TensorData::new(norms, dims), &self.encoder.centre.val().device())
    }

    /// A model of its decoder: atoms of unit norm, signals whose mean b is taken off.
    ///
    /// # Errors
    /// An auto-encoder that scales every signal, which no model does.
    pub fn dictionary(&self) -> Result<Mlcsc> {
        let scaling = self.config().scaling;
        if scaling != InputScaling::None {
            let expected =
                format!("the encoder's own codes: this one scales every signal ({scaling}), which pursuits don't do");
            return Err(Error::parameter("pursuit", "given", expected));
        }
        Mlcsc::from_filters(self.model_config(), vec![self.unit_atoms()])
    }

    /// A model that synthesises from codes in its units: W_dec as it stands. What undoes the normalisation of signals stands beside their
    /// codes, see [`Self::undo`].
    ///
    /// # Errors
    /// None that its own shapes can cause.
    pub fn as_synthesised(&self) -> Result<Mlcsc> {
        let config = match self.config().scaling {
            InputScaling::None => self.model_config(),
            _ => ModelConfig { normalization: Normalization::None, statistics: None, ..self.model_config() },
        };
        Mlcsc::from_filters(config, vec![self.layers[0].filters.val()])
    }

    /// The decoder's rows with unit norm, `[m, d, 1, 1]`; rows of zeros stay.
    pub(crate) fn unit_atoms(&self) -> Tensor<4> {
        let (units, inputs) = (self.config().units, self.config().inputs);
        (self.decoder() / self.norms_of_codes().reshape([units, 1])).reshape([units, inputs, 1, 1])
    }

    /// What brings Γ·W_dec of these signals back to their scale.
    ///
    /// # Shapes
    /// - signals: `[n, d, 1, 1]`.
    ///
    /// # Errors
    /// Signals of another shape.
    pub fn undo(&self, signals: Tensor<4>) -> Result<Undo> {
        let (count, device) = (signals.dims()[0], signals.device());
        match self.scaled(self.rows(signals)?).1 {
            None => Ok(Undo::from_channels(ChannelStatistics::of_mean(to_host(self.encoder.centre.val())))),
            Some([scale, offset]) => {
                // x = scale·(Γ·W_dec + b) + offset.
                let rest = self.centre() * scale.clone() + offset;
                let rest = rest.reshape(self.config().signal().batched(count));
                Undo::from_parts(vec![0.0; count], to_host(scale), Some(rest), &device)
            }
        }
    }
}
