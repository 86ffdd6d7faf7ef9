//! Gradients of the data term with respect to the filters of every layer.
//!
//! With residual r = D^(L)γ − y the gradient of ½‖r‖² with respect to W_i is the correlation of r, analysed down to layer
//! i − 1, with γ_i. Where D^(L) is one convolution, the sum over signals can be taken first: the gradient with respect to the
//! *effective* filters is one correlation of residuals and codes, and from there the chain runs over m_L filters as if they
//! were images, instead of over a batch of signals.

use super::cascade::Cascade;
use crate::geometry::LayerGeometry;
use crate::kernels::sparse::HostFilters;
use crate::model::dictionary::{analyze, filter_gradient, synthesize};
use crate::model::{Mlcsc, Operator};
use burn::tensor::{Device, Tensor};

/// Gradients of ½‖D^(L)γ − y‖², summed over the batch, with respect to W_1 … W_L.
///
/// # Shapes
/// - residuals: D^(L)γ − y as `[n, channels, height, width]`; codes: γ_L as `[n, m_L, h_L, w_L]`.
/// - out: one tensor of the shape of every W_i.
pub fn filter_gradients(model: &Mlcsc, operator: &Operator, residuals: Tensor<4>, codes: Tensor<4>) -> Vec<Tensor<4>> {
    match operator.geometry().effective_layer() {
        Some(effective) => through_effective_filters(
            model,
            filter_gradient(residuals, codes, operator.effective_filters(), &effective),
        ),
        None => {
            let layers: Vec<_> =
                model.filters().into_iter().zip(operator.geometry().layers().iter().cloned()).collect();
            chain(&layers, residuals, codes)
        }
    }
}

/// Gradients with respect to W_1 … W_L from the gradient with respect to the effective filters.
///
/// # Shapes
/// - gradient: `[m_L, channels, k^(L) height, k^(L) width]`; out: one tensor of the shape of every W_i.
pub fn through_effective_filters(model: &Mlcsc, gradient: Tensor<4>) -> Vec<Tensor<4>> {
    let filters = model.filters().into_iter().map(HostFilters::from_tensor).collect();
    let cascade = Cascade::new(model.config().clone(), filters);
    let gradient = HostFilters::from_tensor(gradient);
    (0..model.depth()).map(|layer| of_layer(&cascade, &gradient, layer, &model.device())).collect()
}

/// Gradient with respect to W_i, `layer` = i − 1, alone; otherwise as [`filter_gradients`].
pub(super) fn filter_gradient_of(
    cascade: &Cascade,
    operator: &Operator,
    residuals: Tensor<4>,
    codes: Tensor<4>,
    layer: usize,
) -> crate::error::Result<Tensor<4>> {
    let device = residuals.device();
    match operator.geometry().effective_layer() {
        Some(effective) => {
            let gradient = filter_gradient(residuals, codes, operator.effective_filters(), &effective);
            Ok(of_layer(cascade, &HostFilters::from_tensor(gradient), layer, &device))
        }
        None => Ok(filter_gradients(&cascade.model(&device)?, operator, residuals, codes).swap_remove(layer)),
    }
}

/// Gradient with respect to W_i, `layer` = i − 1, from the gradient with respect to the effective filters.
///
/// With G^(i) the gradient with respect to the filters of D^(i), G^(i−1) is the correlation of G^(i) with the non-zeros of W_i, and
/// the gradient with respect to W_i is D^(i−1)ᵀ G^(i).
fn of_layer(cascade: &Cascade, gradient: &HostFilters, layer: usize, device: &Device) -> Tensor<4> {
    let pulled = (layer + 1..cascade.depth())
        .rev()
        .fold(gradient.clone(), |gradient, above| cascade.pull_down(above, &gradient));
    match layer {
        0 => pulled.to_tensor(device),
        _ => {
            let below = cascade.effective(layer - 1).to_tensor(device);
            analyze(pulled.to_tensor(device), below, &cascade.codes_below(layer))
        }
    }
}

/// For x = D_1 … D_L γ_L and a gradient with respect to x: the gradients with respect to W_1 … W_L.
fn chain(layers: &[(Tensor<4>, LayerGeometry)], gradient: Tensor<4>, codes: Tensor<4>) -> Vec<Tensor<4>> {
    // γ_i for every layer, γ_L last.
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
    gradients
}
