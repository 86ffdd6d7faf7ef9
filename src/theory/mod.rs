//! When the model's guarantees hold: pure functions of a model and of codes.

pub mod coherence;
