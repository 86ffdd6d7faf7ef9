//! Learning the dictionaries: the paper's online update and the default one, in one loop with one checkpoint format.

pub mod cascade;
mod checkpoint;
pub mod config;
pub mod gradient;
pub mod initialize;
pub mod learner;
pub mod metrics;
pub mod online;
mod random;
pub mod run;
pub mod statistics;
pub mod surrogate;
#[cfg(test)]
mod testing;

pub use config::{LearningConfig, TrainConfig};
pub use learner::Learner;
pub use run::{Observer, Outcome, Record, Run};
