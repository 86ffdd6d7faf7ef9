//! What most programs need: `use mlcsc::prelude::*;`.

pub use crate::autoencoder::{
    Autoencoder, SparseAutoencoder, SparseAutoencoderConfig, UnrolledEncoder, UnrolledEncoderConfig,
};
pub use crate::coder::{Coder, CoderConfig, Codes};
pub use crate::data::{self, DataConfig, Dataset, InMemory, Source};
pub use crate::device;
pub use crate::error::{Error, Result};
pub use crate::geometry::{LayerShape, Pair, SignalShape};
pub use crate::learn::config::{Schedule, UpdateRule};
pub use crate::learn::{LearningConfig, TrainConfig};
pub use crate::model::normalization::Normalization;
pub use crate::model::preset::Preset;
pub use crate::model::{CodingDefaults, Mlcsc, ModelConfig, Operator, OperatorForm};
pub use crate::pursuit::{
    Algorithm, BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Pursued, Pursuit, PursuitConfig,
    SignalReport,
};
