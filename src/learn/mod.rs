//! Learning the dictionaries: the paper's online update and the default one, and training end to end by gradients.

mod alignment;
#[cfg(feature = "train")]
mod averaging;
pub(crate) mod cascade;
mod checkpoint;
pub mod collective;
pub mod config;
#[cfg(feature = "train")]
pub mod end_to_end;
mod fit;
pub mod folder;
pub mod gradient;
pub(crate) mod initialize;
pub(crate) mod learner;
pub mod metrics;
pub(crate) mod online;
pub mod optimization;
mod order;
mod reseeding;
mod resident;
#[cfg(feature = "train")]
pub mod rivals;
pub mod run;
pub(crate) mod state;
pub(crate) mod statistics;
mod subspace;
pub(crate) mod surrogate;
#[cfg(test)]
mod testing;
#[cfg(feature = "train")]
pub mod unrolled;

pub use collective::Ranks;
pub use config::{LearningConfig, TrainConfig};
pub use folder::{Claim, Observer, RunFolder};
pub use learner::DictionaryLearner;
pub use run::{HeldOut, Outcome, Record, Run};
pub use state::TrainingState;
