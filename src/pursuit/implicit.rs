//! Derivatives of the minimiser of a basis pursuit, by its optimality conditions.
//!
//! Where γ minimises ½‖y − Dγ‖² + λ‖γ‖₁, its non-zeros γ_S satisfy D_Sᵀ(y − D_Sγ_S) = λ sign(γ_S), and for almost all y, D and λ neither S nor
//! the signs change nearby (J. Mairal, F. Bach, J. Ponce, "Task-driven dictionary learning", IEEE TPAMI 34(4), 2012). So
//!
//! ```text
//! dγ_S = (D_SᵀD_S)⁻¹ d[D_Sᵀ(y − Dγ)]   with γ held fixed inside the brackets,   dγ = 0 outside S.
//! ```
//!
//! The way back of a gradient g is one linear system on the support, solved by conjugate gradients with the operator itself, and one
//! step back through Dᵀ(y − Dγ): time and memory do not depend on how many iterations the pursuit took, nor on which pursuit it was.

use crate::error::{Error, Result};
use crate::model::{Operator, leaf};
use burn::tensor::Tensor;

/// Codes that a pursuit has run to its gap, as functions of the signals and of the filters of `operator`.
///
/// The values are those of `codes`; whatever gradients came with them end here. Codes far from the minimum have the derivatives of a
/// minimum that they are not. The system gets 50 steps of conjugate gradients: on large supports of coherent atoms, which need more, and
/// where atoms of a support depend on each other, its solution and with it the derivative is approximate.
///
/// # Shapes
/// - signals: `[n, channels, height, width]`; codes and out: `[n, m_L, h_L, w_L]`.
///
/// # Errors
/// Signals or codes of another shape.
pub fn follow(operator: &Operator, signals: Tensor<4>, codes: Tensor<4>) -> Result<Tensor<4>> {
    let (count, of_signals, of_codes) = (signals.dims()[0], signals.dims(), codes.dims());
    for (what, expected, found) in
        [("signals", operator.signal().batched(count), of_signals), ("codes", operator.code().batched(count), of_codes)]
    {
        if expected != found {
            return Err(Error::shape(what, format!("{expected:?}"), format!("{found:?}")));
        }
    }
    let codes = leaf(codes);
    let correlations = operator.analyze(signals - operator.synthesize(codes.clone()));
    Ok(operator.follow(codes, correlations))
}
