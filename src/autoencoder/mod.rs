//! Auto-encoders: networks that turn signals into sparse codes and codes into signals.
//!
//! [`SparseAutoencoder`] is the one that belongs to the model: its encoder is a pursuit, unrolled into the layers of a network, and
//! its decoder the cascade D_1 … D_L. It and its rivals in [`crate::baselines`] offer the same two functions, those of
//! [`Autoencoder`], so that the same code trains ([`crate::learn::end_to_end`]), measures ([`diagnostics`]) and classifies with all
//! of them.

pub(crate) mod config;
pub mod diagnostics;
pub mod doctor;
mod file;
mod layer;
pub mod network;
pub(crate) mod pursuit;
mod sum_tree;
pub(crate) mod training;
pub(crate) mod unrolled;

pub use config::{EncoderWeights, MAX_UNROLLED, SparseAutoencoderConfig, UnrolledPursuit};
pub use diagnostics::{Diagnostics, DiagnosticsSums};
pub use doctor::{DoctorConfig, Examination};
pub use file::has_encoder;
pub use layer::{UnrolledEncoder, UnrolledEncoderConfig};
pub use network::{NetworkPursuit, PursuitNetwork, PursuitNetworkConfig};
pub use pursuit::PursuitAutoencoder;
pub use sum_tree::{SumTree, Sums};
pub use training::{Outcome, Trainable, TrainingBatch};
pub use unrolled::{Prepared, SparseAutoencoder};

use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::pursuit::Convergence;
use burn::tensor::Tensor;

/// What an auto-encoder makes of signals.
#[derive(Debug, Clone)]
pub struct Coded {
    /// The codes, `[n, units, height, width]`.
    pub codes: Tensor<4>,
    /// The signals synthesized from them, in the scale of the signals.
    pub reconstruction: Tensor<4>,
}

/// Turns signals into codes and codes into signals.
pub trait Autoencoder {
    /// Shape of the signals.
    fn signal(&self) -> SignalShape;

    /// Shape of the codes: units, height and width. A unit of a fully connected network has one position.
    fn code(&self) -> SignalShape;

    /// Codes of signals, as they are meant to be used once training is over.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as [`Self::signal`]; out: `[n, units, height, width]` as [`Self::code`].
    ///
    /// # Errors
    /// Signals of another shape.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>>;

    /// Shapes of what [`Self::representations`] returns. Default: [`Self::code`] alone.
    fn layers(&self) -> Vec<SignalShape> {
        vec![self.code()]
    }

    /// Codes of every layer, the first one first and the last one as [`Self::encode`] has it. Default: the last one alone.
    ///
    /// # Shapes
    /// - signals: as for [`Self::encode`]; out: `[n, units, height, width]`, a tensor for each of [`Self::layers`].
    ///
    /// # Errors
    /// As [`Self::encode`].
    fn representations(&self, signals: Tensor<4>) -> Result<Vec<Tensor<4>>> {
        Ok(vec![self.encode(signals)?])
    }

    /// Signals synthesized from codes.
    ///
    /// # Shapes
    /// - codes: `[n, units, height, width]` as [`Self::code`]; out: `[n, channels, height, width]` as [`Self::signal`].
    ///
    /// # Errors
    /// Codes of another shape.
    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>>;

    /// What one unit at one position adds to a signal: filters to look at, and to compare between seeds.
    ///
    /// # Shapes
    /// - out: `[units, channels, height, width]`.
    fn atoms(&self) -> Tensor<4>;

    /// The same network made ready for many batches: what does not depend on signals is computed once.
    ///
    /// # Errors
    /// None that the network's own shapes can cause.
    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>>;

    /// How many of the signals coded so far came to the gap that the encoder asks for. Default: none was coded by a pursuit that is
    /// told one.
    fn convergence(&self) -> Convergence {
        Convergence::default()
    }

    /// Codes and reconstruction as diagnostics measure them: those of [`Self::encode`], unless codes that are meant for
    /// reconstruction differ from those that are meant for use.
    ///
    /// # Shapes
    /// - signals: as for [`Self::encode`].
    ///
    /// # Errors
    /// As [`Self::encode`].
    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        let codes = self.encode(signals)?;
        Ok(Coded { reconstruction: self.decode(codes.clone())?, codes })
    }
}

/// Refuses a batch of another shape.
pub(crate) fn check_batch(what: &str, expected: SignalShape, batch: &Tensor<4>) -> Result<()> {
    let [count, channels, height, width] = batch.dims();
    match expected.batched(count) == batch.dims() {
        true => Ok(()),
        false => Err(Error::shape(what, expected, SignalShape::new(channels, height, width))),
    }
}
