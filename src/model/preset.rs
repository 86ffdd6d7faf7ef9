//! Named geometries.

use super::config::ModelConfig;
use super::normalization::Normalization;
use crate::geometry::{LayerShape, SignalShape};
use serde::{Deserialize, Serialize};

/// A named geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Preset {
    /// Three small layers for 28×28 digits: 16 filters 7×7 at stride 2, 48 of 5×5, 256 whole-image atoms.
    Small,
    /// The paper's three layers for MNIST: 32 filters 7×7 at stride 2, 128 of 5×5×32, 1024 of 7×7×128, so that γ_3 is
    /// 1024×1×1 (section on MNIST dictionaries).
    Mnist,
    /// Three layers of local atoms for photographs in grey, trained on 64×64 patches (with smaller ones, atoms would serve their
    /// borders) and applied to pictures of any size: 24 filters 8×8 at stride 2, 48 of 3×3, 96 of 3×3 (16×16 pixels in all).
    Natural,
    /// As [`Self::Natural`] for colour photographs, of three channels: 32 filters 8×8 at stride 2, 64 of 3×3, 128 of 3×3.
    NaturalColour,
}

/// Local atoms for patches of photographs, without what is smooth in them.
fn photographs(channels: usize, [first, second, third]: [usize; 3]) -> ModelConfig {
    let layers = vec![LayerShape::new(first, 8, 2), LayerShape::new(second, 3, 1), LayerShape::new(third, 3, 1)];
    ModelConfig {
        normalization: Normalization::HighPass,
        ..ModelConfig::new(SignalShape::new(channels, 64, 64), layers)
    }
}

impl Preset {
    /// Whether atoms of all layers are small parts of a signal, so that signals may have any size.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Natural | Self::NaturalColour)
    }

    /// The geometry.
    pub fn model(self) -> ModelConfig {
        let digits = SignalShape::new(1, 28, 28);
        match self {
            Self::Small => ModelConfig::new(
                digits,
                vec![LayerShape::new(16, 7, 2), LayerShape::new(48, 5, 1), LayerShape::new(256, 7, 1)],
            ),
            Self::Mnist => ModelConfig::new(
                digits,
                vec![LayerShape::new(32, 7, 2), LayerShape::new(128, 5, 1), LayerShape::new(1024, 7, 1)],
            ),
            Self::Natural => photographs(1, [24, 48, 96]),
            Self::NaturalColour => photographs(3, [32, 64, 128]),
        }
    }
}
