//! A pursuit together with the penalties it is run with, and the names by which pursuits are chosen.

use super::{Algorithm, Lambda, Problem, Pursued, Pursuit, PursuitConfig};
use crate::error::{Error, Result};
use crate::model::{Operator, OperatorForm};
use burn::tensor::Tensor;
use serde::Serialize;

/// The pursuits, as flags name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum PursuitName {
    /// Basis pursuit by the algorithm that suits.
    #[strum(serialize = "bp")]
    BasisPursuit,
    /// Basis pursuit by proximal gradient steps.
    Ista,
    /// Basis pursuit by accelerated proximal gradient steps.
    Fista,
    /// Basis pursuit by coordinate descent.
    CoordinateDescent,
    /// Basis pursuit by descent on the residual.
    ResidualDescent,
    /// Orthogonal matching pursuit.
    #[strum(serialize = "omp")]
    OrthogonalMatchingPursuit,
    /// Orthogonal least squares: a greedy pursuit that picks the atom which leaves the shortest residual.
    #[strum(serialize = "ols")]
    OrthogonalLeastSquares,
    /// Projection onto the model, greedy or convex.
    Projection,
    /// Thresholding layer by layer.
    LayeredThresholding,
    /// Basis pursuit layer by layer.
    #[strum(serialize = "layered-bp")]
    LayeredBasisPursuit,
    /// Multi-layer basis pursuit by ML-ISTA.
    MlIsta,
    /// Multi-layer basis pursuit by ML-FISTA.
    MlFista,
    /// Multi-layer basis pursuit, the exact minimiser.
    #[strum(serialize = "ml-bp")]
    MlBasisPursuit,
    /// Holistic pursuit.
    Holistic,
}

impl PursuitName {
    /// Whether it codes layer by layer, so that its representations are not consistent.
    pub fn is_layered(self) -> bool {
        matches!(self, Self::LayeredThresholding | Self::LayeredBasisPursuit)
    }

    /// Whether it picks atom after atom and solves for their coefficients by least squares, without λ.
    pub fn is_greedy(self) -> bool {
        matches!(self, Self::OrthogonalMatchingPursuit | Self::OrthogonalLeastSquares)
    }

    /// Whether every layer may have a penalty of its own.
    pub fn takes_layer_weights(self) -> bool {
        self.is_layered() || matches!(self, Self::MlIsta | Self::MlFista | Self::MlBasisPursuit | Self::Holistic)
    }
}

/// A pursuit and its penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The pursuit with its parameters.
    pub config: PursuitConfig,
    /// λ; `None` for pursuits without penalty.
    pub lambda: Option<Lambda>,
    /// w_1 … w_L: the penalty of layer i is w_i·λ. Where none are given, layered pursuits take λ in every layer, all others in the
    /// deepest alone.
    pub layer_weights: Option<Vec<f32>>,
}

impl Recipe {
    /// Checks everything against a model before anything is computed.
    ///
    /// # Errors
    /// As [`PursuitConfig::check_for`] and [`Lambda::check`]; a penalty without λ, or λ without a penalty; weights of layers with a pursuit
    /// that penalises the deepest alone, that are negative or not finite, not one per layer, or that make a fraction of λ_max more than 1.
    pub fn check(&self, operator: &Operator) -> Result<()> {
        self.config.check_for(operator)?;
        match &self.lambda {
            Some(lambda) if self.config.has_penalty() => lambda.check()?,
            Some(_) => return Err(Error::parameter("lambda", "given", "none: this pursuit has no penalty")),
            None if self.config.has_penalty() => {
                return Err(Error::missing("lambda", "a weight ≥ 0, or a fraction of λ_max"));
            }
            None => {}
        }
        let Some(weights) = &self.layer_weights else { return Ok(()) };
        let (name, depth) = ("layer weights", operator.geometry().depth());
        if !self.config.takes_layer_weights() {
            return Err(Error::parameter(name, "given", "none: this pursuit penalises the deepest layer alone"));
        }
        if weights.len() != depth {
            return Err(Error::shape(name, format!("{depth}, one per layer"), weights.len()));
        }
        check_weights(weights)?;
        if let Some(Lambda::Relative(fraction)) = self.lambda
            && let Some(weight) = weights.iter().find(|weight| **weight * fraction > 1.0)
        {
            let expected = format!("at most {}: no more than λ_max with λ at {fraction} of it", 1.0 / fraction);
            return Err(Error::parameter(name, weight, expected));
        }
        Ok(())
    }

    /// The pursuit, ready to run, everything that does not depend on signals computed.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn prepare(&self, operator: &Operator) -> Result<Box<dyn Pursuit>> {
        self.check(operator)?;
        let pursuit = match &self.config {
            PursuitConfig::BasisPursuit { algorithm, basis } => algorithm.init(basis, operator)?,
            config => config.init()?,
        };
        let algorithm = match &self.config {
            PursuitConfig::BasisPursuit { algorithm, .. } => Some(*algorithm),
            PursuitConfig::ConvexProjection(config) => Some(config.algorithm),
            _ => None,
        };
        if let Some(algorithm) = algorithm {
            let resolved = algorithm.resolved(operator);
            let operator = operator.window().unwrap_or(operator);
            if operator.application() == OperatorForm::Gram {
                // Coordinate descent needs it on the host, and there alone.
                match resolved {
                    Algorithm::CoordinateDescent | Algorithm::ActiveSet => drop(operator.host_gram()),
                    _ => drop(operator.gram()),
                }
            }
            if matches!(resolved, Algorithm::Ista | Algorithm::Fista) {
                operator.squared_norm_bound();
            }
        } else if self.lambda.is_some() {
            operator.layers().iter().for_each(|layer| {
                layer.squared_norm_bound();
            });
        }
        Ok(pursuit)
    }

    /// Codes the batch of signals from number `start` on by what [`Self::prepare`] made.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as `operator.signal()`.
    ///
    /// # Errors
    /// As [`Pursuit::solve`].
    pub fn solve(
        &self,
        pursuit: &dyn Pursuit,
        operator: &Operator,
        signals: Tensor<4>,
        start: usize,
    ) -> Result<Pursued> {
        pursuit.solve(&self.problem(operator, signals, start)?)
    }

    /// What [`Self::solve`] asks of the pursuit, for those who have more to say, such as an observer.
    ///
    /// # Errors
    /// Signals of another shape; as [`Problem::with_lambda`].
    pub fn problem<'a>(&self, operator: &'a Operator, signals: Tensor<4>, start: usize) -> Result<Problem<'a>> {
        let mut problem = Problem::new(operator, signals)?.counted_from(start);
        if let Some(lambda) = &self.lambda {
            let lambda = lambda.batch(start, problem.count());
            match self.layer_weights.as_deref() {
                Some([shallower @ .., deepest]) => {
                    let shallower = shallower.iter().map(|&weight| lambda.scaled(weight)).collect();
                    problem = problem.with_lambda(lambda.scaled(*deepest))?.with_shallower_lambda(shallower)?;
                }
                _ => problem = problem.with_lambda(lambda)?,
            }
        }
        Ok(problem)
    }
}

/// Checks the range of weights of layers.
///
/// # Errors
/// A weight that is negative or not finite.
pub fn check_weights(weights: &[f32]) -> Result<()> {
    match weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        Some(weight) => Err(Error::parameter("layer weights", weight, "finite numbers ≥ 0, one per layer")),
        None => Ok(()),
    }
}
