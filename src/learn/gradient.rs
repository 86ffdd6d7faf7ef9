//! Gradients of the data term with respect to the filters of every layer.
//!
//! With residual r = D^(L)γ − y the gradient of ½‖r‖² with respect to W_i is the correlation of r, analysed down to layer
//! i − 1, with γ_i. Where D^(L) is one convolution, the sum over signals can be taken first: the gradient with respect to the
//! *effective* filters is one correlation of residuals and codes, and from there the chain runs over m_L filters as if they
//! were images, instead of over a batch of signals.

use crate::model::dictionary::{analyze, filter_gradient, synthesize};
use crate::model::geometry::LayerGeometry;
use crate::model::{Mlcsc, Operator, filters_as_codes};
use burn::tensor::Tensor;

/// Gradients of ½‖D^(L)γ − y‖², summed over the batch, with respect to W_1 … W_L.
///
/// # Shapes
/// - residuals: D^(L)γ − y as `[n, channels, height, width]`; codes: γ_L as `[n, m_L, h_L, w_L]`.
/// - out: one tensor of the shape of every W_i.
pub fn filter_gradients(model: &Mlcsc, operator: &Operator, residuals: Tensor<4>, codes: Tensor<4>) -> Vec<Tensor<4>> {
    match operator.geometry().effective_layer() {
        Some(effective) => {
            let gradient = filter_gradient(residuals, codes, operator.effective_filters(), &effective);
            through_effective_filters(model, gradient)
        }
        None => {
            let layers: Vec<_> =
                model.filters().into_iter().zip(operator.geometry().layers().iter().cloned()).collect();
            chain(&layers, residuals, codes).0
        }
    }
}

/// Gradients with respect to W_1 … W_L from the gradient with respect to the effective filters.
///
/// Layer by layer from the deepest: with G^(i) the gradient with respect to the filters of D^(i), the gradient with respect to
/// W_i is D^(i−1)ᵀ G^(i), and G^(i−1) is the correlation of G^(i) with W_i, both with the effective filters of D^(i−1), which
/// have only the signal's few channels.
///
/// # Shapes
/// - gradient: `[m_L, channels, k^(L) height, k^(L) width]`; out: one tensor of the shape of every W_i.
pub fn through_effective_filters(model: &Mlcsc, gradient: Tensor<4>) -> Vec<Tensor<4>> {
    let mut gradient = gradient;
    let mut gradients = Vec::with_capacity(model.depth());
    for depth in (2..=model.depth()).rev() {
        let codes = model.layers[depth - 1].filters.val();
        let below = model.effective_filters(depth - 1);
        let geometry = filters_as_codes(codes.dims(), below.dims(), model.effective_stride(depth - 1));
        gradients.push(analyze(gradient.clone(), below.clone(), &geometry));
        gradient = filter_gradient(gradient, codes, below, &geometry);
    }
    gradients.push(gradient);
    gradients.reverse();
    gradients
}

/// For x = D_1 … D_K z and a gradient r with respect to x: the gradients with respect to W_1 … W_K and with respect to z.
fn chain(layers: &[(Tensor<4>, LayerGeometry)], gradient: Tensor<4>, codes: Tensor<4>) -> (Vec<Tensor<4>>, Tensor<4>) {
    // γ_i for every layer, γ_K = z last.
    let mut representations = vec![codes];
    for (filters, geometry) in layers.iter().skip(1).rev() {
        let above = representations[representations.len() - 1].clone();
        representations.push(synthesize(above, filters.clone(), geometry));
    }
    representations.reverse();
    let mut gradient = gradient;
    let mut gradients = Vec::with_capacity(layers.len());
    for ((filters, geometry), representation) in layers.iter().zip(representations) {
        gradients.push(filter_gradient(gradient.clone(), representation, filters.clone(), geometry));
        gradient = analyze(gradient, filters.clone(), geometry);
    }
    (gradients, gradient)
}
