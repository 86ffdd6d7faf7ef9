//! Duality gap of the lasso, the certificate on which basis pursuits stop.
//!
//! For min ½‖y − Dγ‖² + λ‖γ‖₁ with residual r = y − Dγ and correlations c = Dᵀr, the scaled residual θ = s·r with
//! s = min(1, λ/‖c‖_∞) is dual feasible (for non-negative codes the maximum is over positive correlations only). The gap
//! ½‖r‖² + λ‖γ‖₁ − (½‖y‖² − ½‖y − θ‖²) is computed as
//!
//! ```text
//! gap = ½(1 − s)²‖r‖² + Σ_j (λ|γ_j| − s·γ_j·c_j),
//! ```
//!
//! which follows from y = r + Dγ. The first term and the sum are non-negative, so that ½‖y‖² never cancels. What rounding
//! leaves are a few 1e-6 of the objective where residuals, correlations and sums are `f32`.
//!
//! With weights w in the norm, ‖γ‖₁ = Σ_j w_j|γ_j| and ‖c‖_∞ = max_j |c_j|/w_j; with a mask M, r = M(y − Dγ).

/// Objective and gap of one signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// ½‖r‖² + λ‖γ‖₁.
    pub objective: f64,
    /// ½‖r‖².
    pub data_term: f64,
    /// The duality gap, never negative.
    pub gap: f64,
}

/// The sums that a pursuit has at hand, of one signal.
///
/// Those of the shallower layers are of a multi-layer problem, see [`super::multi_layer`], whose correlations are v; they are 0 for one
/// layer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sums {
    /// λ ≥ 0.
    pub lambda: f64,
    /// ‖r‖².
    pub residual_energy: f64,
    /// ‖γ‖₁.
    pub one_norm: f64,
    /// Σ_j γ_j c_j.
    pub code_correlation: f64,
    /// ‖c‖_∞, or the largest c_j for non-negative codes.
    pub largest_correlation: f64,
    /// Σ_{i<L} λ_i‖γ_i‖₁.
    pub shallower_penalty: f64,
    /// Σ_{i<L} 〈u_i, γ_i〉.
    pub dual_correlation: f64,
}

impl From<Sums> for Certificate {
    fn from(sums: Sums) -> Self {
        let Sums { lambda, residual_energy, one_norm, code_correlation, largest_correlation, .. } = sums;
        let scale = if largest_correlation <= lambda { 1.0 } else { lambda / largest_correlation };
        let slack = (lambda * one_norm - scale * code_correlation).max(0.0);
        let shallower_slack = (sums.shallower_penalty - scale * sums.dual_correlation).max(0.0);
        Self {
            objective: 0.5 * residual_energy + lambda * one_norm + sums.shallower_penalty,
            data_term: 0.5 * residual_energy,
            gap: 0.5 * (1.0 - scale).powi(2) * residual_energy + slack + shallower_slack,
        }
    }
}

impl Certificate {
    /// Gap over objective; 0 where both are 0.
    pub fn relative_gap(&self) -> f64 {
        if self.gap == 0.0 { 0.0 } else { self.gap / self.objective.max(f64::MIN_POSITIVE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        // D = identity in two dimensions, y = (3, 1), γ = (1.5, 0.2), λ = 1.
        let (y, code, lambda) = ([3.0, 1.0], [1.5, 0.2], 1.0);
        let residual = [y[0] - code[0], y[1] - code[1]];
        let largest = 1.5f64;
        let scale = lambda / largest;
        let energy: f64 = residual.iter().map(|r| r * r).sum();
        let primal = 0.5 * energy + lambda * 1.7;
        let distance: f64 = (0..2).map(|i| (y[i] - scale * residual[i]).powi(2)).sum();
        let dual = 0.5 * 10.0 - 0.5 * distance;
        let certificate = Certificate::from(Sums {
            lambda,
            residual_energy: energy,
            one_norm: 1.7,
            code_correlation: code[0] * residual[0] + code[1] * residual[1],
            largest_correlation: largest,
            ..Sums::default()
        });
        assert!((certificate.objective - primal).abs() < 1e-12);
        assert!((certificate.gap - (primal - dual)).abs() < 1e-12);
        // At the solution, γ = S_1(y) = (2, 0), it closes.
        let closed = Sums {
            lambda: 1.0,
            residual_energy: 2.0,
            one_norm: 2.0,
            code_correlation: 2.0,
            largest_correlation: 1.0,
            ..Sums::default()
        };
        assert_eq!(Certificate::from(closed).gap, 0.0);
    }
}
