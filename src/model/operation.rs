//! Synthesis, analysis and the gradient with respect to the filters as operations of their own on burn's backends.
//!
//! burn's CPU convolutions copy windows (im2col) and reach a fraction of what the machine can do; on Flex these operations are
//! the direct convolutions of [`super::convolution`]. Every other backend does what it does best: its own convolutions. Derivatives
//! are the operations themselves, since synthesis and analysis are each other's adjoint.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "that backend stays as long as upstream has it"))]

use super::geometry::LayerGeometry;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};

/// The three operations on four-dimensional tensors, as [`LayerGeometry`] says.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(
        feature = "wgpu",
        feature = "vulkan",
        feature = "metal",
        feature = "cuda",
        feature = "rocm",
        feature = "cpu"
    )),
    LibTorch: cfg(feature = "tch"),
    Autodiff: cfg(feature = "autodiff")
)]
pub(crate) trait DictionaryOps: Backend {
    /// Dᵀx.
    fn dictionary_analysis(
        signals: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        Self::conv2d(signals, filters, None, options(&layer))
    }

    /// Dγ.
    fn dictionary_synthesis(
        codes: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        by_matrix_products::<Self>(codes, filters, &layer)
    }

    /// Gradient of 〈r, Dγ〉 with respect to the filters, whose values do not matter.
    fn dictionary_gradient(
        residuals: FloatTensor<Self>,
        codes: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(residuals, filters, codes, options(&layer))
    }
}

fn options(layer: &LayerGeometry) -> ConvOptions<2> {
    ConvOptions::new(layer.stride, layer.padding, [1, 1], 1)
}

/// burn's transposed convolution: a matrix product and a scattered sum.
fn by_matrix_products<B: Backend>(
    codes: FloatTensor<B>,
    filters: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let options = ConvTransposeOptions::new(layer.stride, layer.padding, layer.output_padding, [1, 1], 1);
    B::conv_transpose2d(codes, filters, None, options)
}

/// Dᵀx. Shapes as [`super::Dictionary::analyze`].
pub(super) fn analysis(signals: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (signals, filters) = (signals.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_analysis(signals, filters, layer.clone()))
}

/// Dγ. Shapes as [`super::Dictionary::synthesize`].
pub(super) fn synthesis(codes: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (codes, filters) = (codes.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_synthesis(codes, filters, layer.clone()))
}

/// Gradient of Σ〈r, Dγ〉. Shapes as [`super::dictionary::filter_gradient`].
pub(super) fn gradient(residuals: Tensor<4>, codes: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (residuals, codes, filters) = (residuals.into_dispatch(), codes.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_gradient(residuals, codes, filters, layer.clone()))
}

#[cfg(feature = "flex")]
mod flex {
    use super::{DictionaryOps, FloatTensor, LayerGeometry, by_matrix_products, options};
    use crate::model::convolution::{analyze_once, filter_gradient_into, synthesize_once};
    use crate::model::sparse::HostFilters;
    use burn::backend::Flex;
    use burn::backend::ops::ModuleOps;
    use burn::tensor::TensorData;
    use burn_flex::FlexTensor;

    /// Code positions from which on synthesis and gradient are faster direct than by matrix products.
    const MANY_POSITIONS: usize = 24 * 24;

    impl DictionaryOps for Flex {
        fn dictionary_analysis(
            signals: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            let (signals, filters) = (signals.to_contiguous(), filters.to_contiguous());
            let signals = signals.storage::<f32>();
            let filters = on_host(&filters, &layer);
            tensor(layer.code.batched(signals.len() / layer.signal.len()), |out| {
                analyze_once(&filters, &layer, signals, out);
            })
        }

        fn dictionary_synthesis(
            codes: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            if layer.code.height * layer.code.width < MANY_POSITIONS {
                return by_matrix_products::<Self>(codes, filters, &layer);
            }
            let (codes, filters) = (codes.to_contiguous(), filters.to_contiguous());
            let codes = codes.storage::<f32>();
            let filters = on_host(&filters, &layer);
            tensor(layer.signal.batched(codes.len() / layer.code.len()), |out| {
                synthesize_once(&filters, &layer, codes, out);
            })
        }

        fn dictionary_gradient(
            residuals: FloatTensor<Self>,
            codes: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            if layer.code.height * layer.code.width < MANY_POSITIONS {
                return Self::conv2d_weight_backward(residuals, filters, codes, options(&layer));
            }
            let (residuals, codes) = (residuals.to_contiguous(), codes.to_contiguous());
            tensor(layer.filter_dims(), |out| {
                filter_gradient_into(&layer, residuals.storage::<f32>(), codes.storage::<f32>(), out);
            })
        }
    }

    fn on_host(filters: &FlexTensor, layer: &LayerGeometry) -> HostFilters {
        HostFilters::new(layer.filter_dims(), filters.storage::<f32>().to_vec())
    }

    fn tensor(dims: [usize; 4], fill: impl FnOnce(&mut [f32])) -> FlexTensor {
        let mut values = vec![0.0; dims.iter().product()];
        fill(&mut values);
        FlexTensor::from_data(TensorData::new(values, dims))
    }
}

#[cfg(feature = "ndarray")]
impl DictionaryOps for burn::backend::NdArray {}

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "cuda",
    feature = "rocm",
    feature = "cpu"
))]
impl DictionaryOps for burn::backend::Cube {}

#[cfg(feature = "tch")]
impl DictionaryOps for burn::backend::LibTorch {}

#[cfg(feature = "autodiff")]
mod autodiff {
    use super::{DictionaryOps, FloatTensor, LayerGeometry};
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

    /// The two linear maps, each the other's adjoint.
    #[derive(Debug, Clone, Copy)]
    enum Direction {
        Analysis,
        Synthesis,
    }

    impl Direction {
        fn adjoint(self) -> Self {
            match self {
                Self::Analysis => Self::Synthesis,
                Self::Synthesis => Self::Analysis,
            }
        }

        fn apply<B: DictionaryOps>(
            self,
            input: FloatTensor<B>,
            filters: FloatTensor<B>,
            layer: LayerGeometry,
        ) -> FloatTensor<B> {
            match self {
                Self::Analysis => B::dictionary_analysis(input, filters, layer),
                Self::Synthesis => B::dictionary_synthesis(input, filters, layer),
            }
        }

        fn tracked<B: DictionaryOps, C: CheckpointStrategy>(
            self,
            input: FloatTensor<Autodiff<B, C>>,
            filters: FloatTensor<Autodiff<B, C>>,
            layer: LayerGeometry,
        ) -> FloatTensor<Autodiff<B, C>> {
            let nodes = [input.node(), filters.node()];
            let (input, filters) = (input.into_primitive(), filters.into_primitive());
            match self.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    let out = self.apply::<B>(input.clone(), filters.clone(), layer.clone());
                    prepared.finish((input, filters, layer), out)
                }
                OpsKind::UnTracked(prepared) => prepared.finish(self.apply::<B>(input, filters, layer)),
            }
        }
    }

    impl<B: DictionaryOps> Backward<B, 2> for Direction {
        type State = (FloatTensor<B>, FloatTensor<B>, LayerGeometry);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_input, of_filters], (input, filters, layer)) = (ops.parents, ops.state);
            let of_output = grads.consume::<B>(&ops.node);
            if let Some(node) = of_input {
                let gradient = self.adjoint().apply::<B>(of_output.clone(), filters.clone(), layer.clone());
                grads.register::<B>(node.id, gradient);
            }
            if let Some(node) = of_filters {
                let (residuals, codes) = match self {
                    Self::Analysis => (input, of_output),
                    Self::Synthesis => (of_output, input),
                };
                grads.register::<B>(node.id, B::dictionary_gradient(residuals, codes, filters, layer));
            }
        }
    }

    impl<B: DictionaryOps, C: CheckpointStrategy> DictionaryOps for Autodiff<B, C> {
        fn dictionary_analysis(
            signals: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            Direction::Analysis.tracked::<B, C>(signals, filters, layer)
        }

        fn dictionary_synthesis(
            codes: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            Direction::Synthesis.tracked::<B, C>(codes, filters, layer)
        }
    }
}
