//! Every pursuit by its name: what a configuration or a command line says.

use super::greedy::{check_nonzeros, check_selection};
use super::projection::check_limits_for;
use super::{
    Acceleration, Algorithm, BasisPursuitConfig, ConvexProjectionConfig, GreedyProjectionConfig, HolisticPursuitConfig,
    LayeredBasisPursuitConfig, LayeredThresholding, MultiLayerProximalGradientConfig, MultiLayerSplittingConfig,
    OrthogonalMatchingPursuitConfig, Problem, Pursued, Pursuit, Threshold,
};
use crate::error::Result;
use crate::model::Operator;
use serde::{Deserialize, Serialize};

/// A pursuit with its parameters, written as `{"pursuit": "orthogonal-matching-pursuit", "nonzeros": 10}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "pursuit", rename_all = "kebab-case")]
pub enum PursuitConfig {
    /// Basis pursuit on the effective dictionary.
    BasisPursuit {
        /// The algorithm. Default: whichever suits.
        #[serde(default)]
        algorithm: Algorithm,
        /// Gap, iterations, sign.
        #[serde(default)]
        basis: BasisPursuitConfig,
    },
    /// Orthogonal matching pursuit on the effective dictionary.
    OrthogonalMatchingPursuit(OrthogonalMatchingPursuitConfig),
    /// Projection onto the model by orthogonal matching pursuit.
    GreedyProjection(GreedyProjectionConfig),
    /// Projection onto the model by basis pursuit.
    ConvexProjection(ConvexProjectionConfig),
    /// Thresholding layer by layer.
    LayeredThresholding {
        /// Soft, hard or non-negative. Default soft.
        #[serde(default)]
        threshold: Threshold,
    },
    /// Basis pursuit layer by layer.
    LayeredBasisPursuit(LayeredBasisPursuitConfig),
    /// ML-ISTA or ML-FISTA for multi-layer basis pursuit.
    MultiLayerProximalGradient(MultiLayerProximalGradientConfig),
    /// The exact minimiser of multi-layer basis pursuit.
    MultiLayerSplitting(MultiLayerSplittingConfig),
    /// Holistic pursuit.
    HolisticPursuit(HolisticPursuitConfig),
}

impl PursuitConfig {
    /// Whether the pursuit has a penalty, λ.
    pub fn has_penalty(&self) -> bool {
        !matches!(self, Self::OrthogonalMatchingPursuit(_) | Self::GreedyProjection(_))
    }

    /// Gap, iterations and sign, of a pursuit that has them.
    pub fn basis_mut(&mut self) -> Option<&mut BasisPursuitConfig> {
        match self {
            Self::BasisPursuit { basis, .. } => Some(basis),
            Self::ConvexProjection(config) => Some(&mut config.basis),
            Self::LayeredBasisPursuit(config) => Some(&mut config.basis),
            Self::MultiLayerProximalGradient(config) => Some(&mut config.basis),
            Self::MultiLayerSplitting(config) => Some(&mut config.basis),
            Self::HolisticPursuit(config) => Some(&mut config.basis),
            Self::OrthogonalMatchingPursuit(_) | Self::GreedyProjection(_) | Self::LayeredThresholding { .. } => None,
        }
    }

    /// The same with codes that are non-negative, or of both signs.
    #[must_use]
    pub fn with_nonnegative(mut self, nonnegative: bool) -> Self {
        match &mut self {
            Self::OrthogonalMatchingPursuit(config) => config.nonnegative = nonnegative,
            Self::GreedyProjection(config) => config.nonnegative = nonnegative,
            Self::LayeredThresholding { threshold } if nonnegative => *threshold = Threshold::NonNegative,
            Self::LayeredThresholding { threshold } if *threshold == Threshold::NonNegative => {
                *threshold = Threshold::Soft
            }
            other => {
                if let Some(basis) = other.basis_mut() {
                    basis.nonnegative = nonnegative;
                }
            }
        }
        self
    }

    /// Whether every layer may have a penalty of its own.
    pub fn takes_layer_weights(&self) -> bool {
        matches!(
            self,
            Self::LayeredThresholding { .. }
                | Self::LayeredBasisPursuit(_)
                | Self::MultiLayerProximalGradient(_)
                | Self::MultiLayerSplitting(_)
                | Self::HolisticPursuit(_)
        )
    }

    /// The pursuit, ready to run.
    ///
    /// # Errors
    /// Parameters out of range.
    pub fn init(&self) -> Result<Box<dyn Pursuit>> {
        Ok(match self.clone() {
            Self::BasisPursuit { algorithm, basis } => {
                basis.check()?;
                Box::new(BasisPursuit { algorithm, basis })
            }
            Self::OrthogonalMatchingPursuit(config) => Box::new(config.init()?),
            Self::GreedyProjection(config) => Box::new(config.init()?),
            Self::ConvexProjection(config) => Box::new(config.init()?),
            Self::LayeredThresholding { threshold } => Box::new(LayeredThresholding::new(threshold)),
            Self::LayeredBasisPursuit(config) => Box::new(config.init()?),
            Self::MultiLayerProximalGradient(config) => Box::new(config.init()?),
            Self::MultiLayerSplitting(config) => Box::new(config.init()?),
            Self::HolisticPursuit(config) => Box::new(config.init()?),
        })
    }

    /// Checks the parameters against a model.
    ///
    /// # Errors
    /// Parameters out of range; numbers of non-zeros that the model's codes don't have; not one limit per layer.
    pub fn check_for(&self, operator: &Operator) -> Result<()> {
        self.init()?;
        match self {
            Self::OrthogonalMatchingPursuit(config) => {
                check_nonzeros(operator, config.nonzeros)?;
                check_selection(operator, config.selection)
            }
            Self::GreedyProjection(config) => {
                config.nonzeros.map_or(Ok(()), |nonzeros| check_nonzeros(operator, nonzeros))?;
                check_limits_for(operator, &config.limits)
            }
            Self::ConvexProjection(config) => check_limits_for(operator, &config.limits),
            Self::HolisticPursuit(config) => config.clone().init()?.check_for(operator).map(drop),
            _ => Ok(()),
        }
    }

    /// Every pursuit on a model, for comparing them: with at most `nonzeros` non-zeros in γ_L and in a stripe of the deepest layer,
    /// all else at its default and no limit on shallower layers. Holistic pursuit, which needs a number for every shallower layer,
    /// is left out.
    pub fn all(operator: &Operator, nonzeros: usize) -> Vec<Self> {
        let mut limits: Vec<usize> = operator.geometry().layers().iter().map(|layer| layer.code.len()).collect();
        if let Some(deepest) = limits.last_mut() {
            *deepest = nonzeros;
        }
        let mut all = vec![
            Self::BasisPursuit { algorithm: Algorithm::Auto, basis: BasisPursuitConfig::default() },
            Self::OrthogonalMatchingPursuit(OrthogonalMatchingPursuitConfig::new(nonzeros)),
            Self::GreedyProjection(GreedyProjectionConfig::new(limits.clone())),
            Self::ConvexProjection(ConvexProjectionConfig::new(limits)),
            Self::LayeredBasisPursuit(LayeredBasisPursuitConfig::default()),
            Self::MultiLayerSplitting(MultiLayerSplittingConfig::default()),
        ];
        all.extend(
            [Threshold::Soft, Threshold::Hard, Threshold::NonNegative]
                .map(|threshold| Self::LayeredThresholding { threshold }),
        );
        all.extend(
            [Acceleration::Ista, Acceleration::Fista].map(|acceleration| {
                Self::MultiLayerProximalGradient(MultiLayerProximalGradientConfig::new(acceleration))
            }),
        );
        all
    }
}

/// Basis pursuit by the algorithm that suits each problem.
struct BasisPursuit {
    algorithm: Algorithm,
    basis: BasisPursuitConfig,
}

impl Pursuit for BasisPursuit {
    fn name(&self) -> &'static str {
        "basis-pursuit"
    }

    fn solve(&self, problem: &Problem) -> Result<Pursued> {
        self.algorithm.init_for(&self.basis, problem)?.solve(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pursuits_are_read_by_name() {
        for (text, name) in [
            (r#"{"pursuit": "basis-pursuit"}"#, "basis-pursuit"),
            (r#"{"pursuit": "orthogonal-matching-pursuit", "nonzeros": 3}"#, "orthogonal-matching-pursuit"),
            (r#"{"pursuit": "greedy-projection", "limits": [9, 3], "residual": 0.5}"#, "greedy-projection"),
            (r#"{"pursuit": "convex-projection", "limits": [9, 3], "debias": true}"#, "convex-projection"),
            (r#"{"pursuit": "layered-thresholding", "threshold": "hard"}"#, "layered-hard-thresholding"),
            (r#"{"pursuit": "layered-basis-pursuit"}"#, "layered-basis-pursuit"),
            (r#"{"pursuit": "multi-layer-proximal-gradient", "acceleration": "fista"}"#, "ml-fista"),
            (r#"{"pursuit": "multi-layer-splitting", "basis": {"gap": 1e-3}}"#, "multi-layer-splitting"),
            (r#"{"pursuit": "holistic-pursuit", "nonzeros": [20]}"#, "holistic"),
        ] {
            let config: PursuitConfig = serde_json::from_str(text).unwrap();
            assert_eq!(config.init().unwrap().name(), name);
            let again: PursuitConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
            assert_eq!(config, again);
        }
        for text in [
            r#"{"pursuit": "lars"}"#,
            r#"{"pursuit": "orthogonal-matching-pursuit", "nonzero": 3}"#,
            r#"{"pursuit": "greedy-projection"}"#,
        ] {
            assert!(serde_json::from_str::<PursuitConfig>(text).is_err(), "{text}");
        }
        assert!(
            serde_json::from_str::<PursuitConfig>(r#"{"pursuit": "greedy-projection", "limits": [0]}"#)
                .unwrap()
                .init()
                .is_err()
        );
    }
}
