//! What codes say about classes: features without labels, and a linear classifier on top of them.
//!
//! An [`Encoder`] turns signals into codes; [`PoolingConfig`] makes of them feature vectors of one length ([`extract`]); a
//! [`LinearClassifierConfig`] fits a classifier to them, and [`Labelled`] judges features by the error that is left on test signals, with the
//! penalty chosen on a part of the training signals. [`crate::autoencoder::PursuitNetwork`] is what labels make of the same layers when they train them
//! from end to end.

pub(crate) mod encoder;
pub(crate) mod evaluation;
pub(crate) mod features;
mod lbfgs;
pub(crate) mod linear;

pub use encoder::{
    DeskewingEncoder, Encoder, Map, NetworkEncoder, SignalEncoder, WindowConfig, WindowEncoder, extract,
};
pub use evaluation::{Candidate, Confusion, Evaluation, EvaluationConfig, Labelled};
pub use features::{Features, PoolingConfig, PoolingMethod, Rectification, Scaling, Standardization, check_power};
pub use linear::{LinearClassifier, LinearClassifierConfig, Loss};
