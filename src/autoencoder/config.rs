//! Configuration of the unrolled auto-encoder.

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::model::ModelConfig;
use crate::pursuit::{
    Acceleration, BasisPursuitConfig, MultiLayerProximalGradientConfig, ProximalGradientConfig, Unrolled,
};
use burn::config::Config;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most iterations that are unrolled (2¹²): each is kept for the way back.
pub const MAX_UNROLLED: usize = 1 << 12;

/// Most weights of all iterations together that have an analysis of their own (2²⁸: 1 GiB, and three times that while they are trained).
const MAX_WEIGHTS: usize = 1 << 28;

/// The pursuits that can be unrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum UnrolledPursuit {
    /// Proximal gradient steps on the effective dictionary.
    Ista,
    /// Accelerated proximal gradient steps on the effective dictionary. The default.
    #[default]
    Fista,
    /// Steps through all layers, each with its own penalty.
    MlIsta,
    /// Accelerated steps through all layers.
    MlFista,
}

impl UnrolledPursuit {
    /// Whether it steps in every layer.
    pub fn is_multi_layer(self) -> bool {
        matches!(self, Self::MlIsta | Self::MlFista)
    }
}

/// Whose weights the encoder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderWeights {
    /// Those of the dictionaries. The default.
    #[default]
    Tied,
    /// Its own, which start as the dictionaries': a synthesis and an analysis, shared by all iterations (LISTA).
    Free,
    /// An analysis of its own in every iteration, which start as the dictionaries'; the synthesis is the decoder's. The first iteration is
    /// a linear layer and a threshold. For ISTA and FISTA on an effective dictionary that is one convolution.
    PerIteration,
}

/// Configuration of a [`SparseAutoencoder`](super::SparseAutoencoder).
///
/// [`Self::init`] makes one of random filters, [`Self::init_from`] one of a model's.
#[derive(Config, Debug, PartialEq)]
pub struct SparseAutoencoderConfig {
    /// Geometry of D_1 … D_L, and the normalisation of signals.
    pub model: ModelConfig,
    /// The pursuit that is unrolled: ISTA, FISTA, ML-ISTA or ML-FISTA.
    #[config(default = "UnrolledPursuit::Fista")]
    pub pursuit: UnrolledPursuit,
    /// Iterations T: the encoder's layers, from 1 to [`MAX_UNROLLED`].
    #[config(default = 20)]
    pub iterations: usize,
    /// Weight λ ≥ 0 of the ℓ1 norm of γ_L, for atoms of unit norm.
    #[config(default = 0.3)]
    pub lambda: f32,
    /// Weights λ_1 … λ_{L−1} ≥ 0 of the shallower layers, for ML-ISTA and ML-FISTA only; none: 0.
    #[config(default = "Vec::new()")]
    pub shallower_lambda: Vec<f32>,
    /// Whether γ_L is kept non-negative: the threshold is then a ReLU with a bias.
    #[config(default = true)]
    pub nonnegative: bool,
    /// Whether the encoder's weights are the dictionaries' or its own.
    #[config(default = "EncoderWeights::Tied")]
    pub weights: EncoderWeights,
    /// Whether the steps of every iteration are learned; else they are the largest that are certain to converge.
    #[config(default = false)]
    pub learned_steps: bool,
    /// Whether the thresholds of every atom are learned in every iteration; else they are the step times λ. Needs λ > 0, since
    /// factors on it are what is learned.
    #[config(default = false)]
    pub learned_thresholds: bool,
    /// Whether the momentum of every iteration is learned, for ISTA and FISTA; it starts as FISTA's (of ISTA: none).
    #[config(default = false)]
    pub learned_momentum: bool,
    /// Smallest and largest standard deviation of the noise that it was trained to take off, in the units of its signals; none where it
    /// was trained
    /// to reconstruct.
    #[config(default = "None")]
    pub denoises: Option<[f32; 2]>,
}

/// Checks the smallest and largest standard deviation of noise that an encoder is for.
///
/// # Errors
/// A pair that is none.
pub(crate) fn check_denoised([least, most]: [f32; 2]) -> Result<()> {
    if least >= 0.0 && least <= most && most > 0.0 && most.is_finite() {
        return Ok(());
    }
    let expected = "two finite standard deviations ≥ 0, the smaller one first, not both 0";
    Err(Error::parameter("denoises", format!("[{least}, {most}]"), expected))
}

impl SparseAutoencoderConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// As [`ModelConfig::geometry`]; the first setting that is out of range, by name.
    pub fn check(&self) -> Result<Geometry> {
        let geometry = self.model.geometry()?;
        if !(1..=MAX_UNROLLED).contains(&self.iterations) {
            return Err(Error::parameter("iterations", self.iterations, format!("a number from 1 to {MAX_UNROLLED}")));
        }
        self.denoises.map_or(Ok(()), check_denoised)?;
        for &lambda in [&self.lambda].into_iter().chain(&self.shallower_lambda) {
            if !(lambda.is_finite() && lambda >= 0.0) {
                return Err(Error::parameter("lambda", lambda, "a finite number ≥ 0"));
            }
        }
        let shallower = self.shallower_lambda.len();
        let expected = geometry.depth() - 1;
        if shallower != 0 && (!self.pursuit.is_multi_layer() || shallower != expected) {
            let expected = match self.pursuit.is_multi_layer() {
                true => format!("none or {expected}, one per layer before the deepest"),
                false => "none: ista and fista penalise the deepest codes only".into(),
            };
            return Err(Error::parameter("shallower_lambda", format!("{:?}", self.shallower_lambda), expected));
        }
        if self.learned_thresholds && self.lambda == 0.0 {
            return Err(Error::parameter("lambda", 0, "a number > 0 where thresholds are learned as factors on it"));
        }
        if self.pursuit.is_multi_layer() && (self.learned_momentum || self.weights == EncoderWeights::PerIteration) {
            let expected = "ista or fista, where weights are per iteration or momentum is learned";
            return Err(Error::parameter("pursuit", format!("{:?}", self.pursuit), expected));
        }
        if self.weights == EncoderWeights::PerIteration {
            let Some(one) = geometry.as_one_layer() else {
                let expected =
                    "tied or free: a layer after the first has padding, so that D^(L) is not one convolution";
                return Err(Error::parameter("weights", "per-iteration", expected));
            };
            let each: usize = one.layers()[0].filter_dims().iter().product();
            let most = (MAX_WEIGHTS / each.max(1)).max(1);
            if self.iterations > most {
                let expected = format!("at most {most} where every iteration has {each} weights of its own");
                return Err(Error::parameter("iterations", self.iterations, expected));
            }
        }
        Ok(geometry)
    }

    /// Whether the encoder has parameters beside the dictionaries.
    pub fn has_own(&self) -> bool {
        self.weights != EncoderWeights::Tied || self.learned_steps || self.learned_thresholds || self.learned_momentum
    }

    /// Layers that the pursuit steps in.
    pub(super) fn stepped_layers(&self) -> usize {
        if self.pursuit.is_multi_layer() { self.model.layers.len() } else { 1 }
    }

    /// The pursuit, ready to be unrolled.
    pub(super) fn unrolled(&self) -> Result<Box<dyn Unrolled>> {
        let basis = BasisPursuitConfig { nonnegative: self.nonnegative, ..BasisPursuitConfig::default() };
        let acceleration = match self.pursuit {
            UnrolledPursuit::Ista | UnrolledPursuit::MlIsta => Acceleration::Ista,
            UnrolledPursuit::Fista | UnrolledPursuit::MlFista => Acceleration::Fista,
        };
        Ok(match self.pursuit.is_multi_layer() {
            false => Box::new(ProximalGradientConfig { basis, ..ProximalGradientConfig::new(acceleration) }.init()?),
            true => Box::new(
                MultiLayerProximalGradientConfig { basis, ..MultiLayerProximalGradientConfig::new(acceleration) }
                    .init()?,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_to_be_taken_off_is_a_range() {
        let with = |denoises| SparseAutoencoderConfig {
            denoises,
            ..SparseAutoencoderConfig::new(crate::model::preset::Preset::Small.model())
        };
        assert!(with(Some([0.1, 0.2])).check().is_ok() && with(None).check().is_ok());
        for wrong in [[0.2, 0.1], [-0.1, 0.1], [0.0, 0.0], [0.1, f32::INFINITY], [f32::NAN, 0.1]] {
            assert!(with(Some(wrong)).check().unwrap_err().to_string().contains("denoises"));
        }
    }
}
