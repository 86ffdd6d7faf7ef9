//! The paper's online update (section on online dictionary learning): gradient steps through the cascade, then hard thresholds.
//!
//! ```text
//! γ_L ← pursuit on D^(L)
//! for i = L, …, 1:  T times  V_i ← μ V_i + ∇_{W_i} f,   W_i ← H_i[W_i − η V_i]        (H_1 = identity)
//! ```
//!
//! f is the data term with the codes held fixed. The threshold of H_i is chosen so that every atom keeps as many entries as
//! the schedule of zeros says at that moment. The paper leaves η open; here it is the distance that the atom of steepest
//! descent moves, so that it means the same for every layer, whatever the scale of the signals. Unit norms are restored
//! after every layer, the layer above taking up what changed.

use super::cascade::Cascade;
use super::config::AtomNorm;
use super::gradient::filter_gradient_of;
use crate::error::Result;
use crate::kernels::sparse::{HostFilters, norm};
use crate::kernels::threshold::hard_threshold_rows;
use burn::tensor::{Device, Tensor};

/// The settings of one step, schedules resolved.
#[derive(Debug, Clone)]
pub struct OnlineUpdate {
    /// η: distance that the atom of steepest descent moves.
    pub step: f32,
    /// μ.
    pub momentum: f32,
    /// T.
    pub repeats: usize,
    /// Entries that an atom of every layer keeps.
    pub keep: Vec<usize>,
    /// Which atoms of the deepest layer have unit norm.
    pub atom_norm: AtomNorm,
}

impl OnlineUpdate {
    /// One step on a batch.
    ///
    /// `velocity` holds V_1 … V_L, zero before the first step.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; codes: γ_L as `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// None for shapes that came from the model.
    pub fn step(
        &self,
        cascade: &mut Cascade,
        velocity: &mut [HostFilters],
        signals: &Tensor<4>,
        codes: &Tensor<4>,
        device: &Device,
    ) -> Result<()> {
        for layer in (0..cascade.depth()).rev() {
            for _ in 0..self.repeats {
                let operator = cascade.operator(device)?;
                let residuals = operator.synthesize(codes.clone()) - signals.clone();
                let gradient = filter_gradient_of(cascade, &operator, residuals, codes.clone(), layer)?;
                let gradient = HostFilters::from_tensor(gradient);
                let scale = 1.0 / signals.dims()[0].max(1) as f32;
                let velocity = velocity[layer].values_mut();
                for (velocity, gradient) in velocity.iter_mut().zip(gradient.values()) {
                    *velocity = self.momentum * *velocity + scale * gradient;
                }
                let mut filters = cascade.filters(layer).into_owned();
                let len = filters.atom_len();
                let steepest = velocity.chunks_exact(len).map(norm).fold(0.0, f32::max);
                if steepest > 0.0 {
                    let length = self.step / steepest;
                    for (value, velocity) in filters.values_mut().iter_mut().zip(velocity.iter()) {
                        *value -= length * velocity;
                    }
                }
                if layer > 0 {
                    hard_threshold_rows(filters.values_mut(), len, self.keep[layer]);
                }
                cascade.set_filters(layer, filters);
                cascade.normalize(self.atom_norm);
            }
        }
        Ok(())
    }
}
