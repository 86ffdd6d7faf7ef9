//! One convolutional dictionary D_i: synthesis, analysis, and the gradient with respect to its filters.

use crate::geometry::{LayerGeometry, LayerShape};
use crate::kernels::dictionary;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// A convolutional dictionary: one filter tensor W_i that serves the synthesis D_i and the analysis D_iᵀ.
///
/// With W_i of shape `[m_i, m_{i−1}, k_h, k_w]` the synthesis is a transposed convolution and the analysis a convolution with
/// the same stride and padding, so that 〈D γ, r〉 = 〈γ, Dᵀ r〉 exactly.
#[derive(Module, Debug)]
pub struct Dictionary {
    /// The filters W_i, `[atoms, channels of the signal, kernel height, kernel width]`.
    pub filters: Param<Tensor<4>>,
    stride: [usize; 2],
    padding: [usize; 2],
}

impl Dictionary {
    /// A dictionary with these filters.
    ///
    /// # Shapes
    /// - filters: `[atoms, channels of the signal, kernel height, kernel width]`.
    pub fn from_filters(filters: Tensor<4>, shape: &LayerShape) -> Self {
        Self { filters: Param::from_tensor(filters), stride: shape.stride.0, padding: shape.padding.0 }
    }

    /// A dictionary with these filters, of such a layer.
    pub(crate) fn of_layer(filters: Tensor<4>, geometry: &LayerGeometry) -> Self {
        Self { filters: Param::from_tensor(filters), stride: geometry.stride, padding: geometry.padding }
    }

    /// A dictionary of zeros, to be filled.
    pub(super) fn zeros(geometry: &LayerGeometry, device: &Device) -> Self {
        Self {
            filters: Param::from_tensor(Tensor::zeros(geometry.filter_dims(), device)),
            stride: geometry.stride,
            padding: geometry.padding,
        }
    }

    /// Synthesis γ_{i−1} = D_i γ_i.
    ///
    /// # Shapes
    /// - codes: `[n, atoms, code height, code width]` as `geometry.code`.
    /// - out: `[n, channels, height, width]` as `geometry.signal`.
    pub fn synthesize(&self, codes: Tensor<4>, geometry: &LayerGeometry) -> Tensor<4> {
        synthesize(codes, self.filters.val(), geometry)
    }

    /// Analysis β_i = D_iᵀ γ_{i−1}, the adjoint of [`Self::synthesize`].
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as `geometry.signal`.
    /// - out: `[n, atoms, code height, code width]` as `geometry.code`.
    pub fn analyze(&self, signals: Tensor<4>, geometry: &LayerGeometry) -> Tensor<4> {
        analyze(signals, self.filters.val(), geometry)
    }

    /// Vertical and horizontal stride.
    pub fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// Zero padding of the analysis.
    pub fn padding(&self) -> [usize; 2] {
        self.padding
    }
}

/// D γ for the filters of one layer (or of an effective dictionary). Shapes as [`Dictionary::synthesize`].
pub(crate) fn synthesize(codes: Tensor<4>, filters: Tensor<4>, geometry: &LayerGeometry) -> Tensor<4> {
    if codes.dims()[0] == 0 {
        // Not every backend takes an empty batch.
        return Tensor::zeros(geometry.signal.batched(0), &codes.device());
    }
    dictionary::synthesis(codes, filters, geometry)
}

/// Dᵀ x for the filters of one layer (or of an effective dictionary). Shapes as [`Dictionary::analyze`].
pub(crate) fn analyze(signals: Tensor<4>, filters: Tensor<4>, geometry: &LayerGeometry) -> Tensor<4> {
    if signals.dims()[0] == 0 {
        return Tensor::zeros(geometry.code.batched(0), &signals.device());
    }
    dictionary::analysis(signals, filters, geometry)
}

/// Codes as a function of their correlations with the residual: the codes themselves, with the derivative of least squares on their
/// support. Filters and support are constants.
///
/// # Shapes
/// - codes, correlations and out: `[n, atoms, code height, code width]`.
pub(crate) fn follow(
    codes: Tensor<4>,
    correlations: Tensor<4>,
    filters: Tensor<4>,
    geometry: &LayerGeometry,
) -> Tensor<4> {
    if codes.dims()[0] == 0 {
        return codes;
    }
    dictionary::follow(codes, correlations, filters, geometry)
}

/// Gradient of Σ〈r, D γ〉 with respect to the filters of D: the correlation of residual and code.
///
/// # Shapes
/// - residuals: `[n, channels, height, width]`; codes: `[n, atoms, code height, code width]`; filters and out:
///   `[atoms, channels, kernel height, kernel width]`.
pub(crate) fn filter_gradient(
    residuals: Tensor<4>,
    codes: Tensor<4>,
    filters: Tensor<4>,
    geometry: &LayerGeometry,
) -> Tensor<4> {
    dictionary::gradient(residuals, codes, filters, geometry)
}
