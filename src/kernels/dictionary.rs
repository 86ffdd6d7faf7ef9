//! Synthesis, analysis and the gradient with respect to the filters as operations of their own on burn's backends.
//!
//! burn's CPU convolutions copy windows (im2col) and reach a fraction of what the machine can do; on Flex these operations are
//! the direct convolutions of [`crate::kernels::convolution`], in batches of small signals those of [`crate::kernels::batched`], matrix products where
//! windows share no sample ([`crate::kernels::windows`]), or cost what the non-zeros cost ([`crate::kernels::sparse`]) where few are left: codes, and
//! the filters of upper layers, which are the codes of the effective atoms. On GPUs they are exact products with windows that kernels of our own
//! lay out (`cube`). Every other backend does what it does best: its own convolutions. A layer that is a matrix is one product everywhere, on Flex
//! by non-zeros where rows are many and non-zeros few; so rounding depends on how many and how dense the codes of a batch are. Derivatives are the operations themselves, since synthesis
//! and analysis are each other's adjoint.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "that backend stays as long as upstream has it"))]

use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::product::ProductOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Shape, Slice, Tensor};

/// The three operations on four-dimensional tensors, as [`LayerGeometry`] says.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "fusion"),
    LibTorch: cfg(feature = "tch"),
    Autodiff: cfg(feature = "autodiff")
)]
pub(crate) trait DictionaryOps: ProductOps {
    /// Dᵀx.
    #[fusion(dtype = signals, shape = Shape::new(layer.code.batched(signals[0])))]
    fn dictionary_analysis(
        signals: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        match (layer.is_matrix(), has_few_windows(&layer)) {
            (true, _) => matrix_analysis::<Self>(signals, filters, &layer),
            (_, true) => by_windows::<Self>(signals, filters, &layer),
            _ => Self::conv2d(signals, filters, None, options(&layer)),
        }
    }

    /// Dγ.
    #[fusion(dtype = codes, shape = Shape::new(layer.signal.batched(codes[0])))]
    fn dictionary_synthesis(
        codes: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        match layer.is_matrix() {
            true => matrix_synthesis::<Self>(codes, filters, &layer),
            false => by_matrix_products::<Self>(codes, filters, &layer),
        }
    }

    /// Gradient of 〈r, Dγ〉 with respect to the filters, whose values do not matter.
    #[fusion(dtype = filters, shape = filters)]
    fn dictionary_gradient(
        residuals: FloatTensor<Self>,
        codes: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        match layer.is_matrix() {
            true => matrix_gradient::<Self>(residuals, codes, &layer),
            false => Self::conv2d_weight_backward(residuals, filters, codes, options(&layer)),
        }
    }

    /// The codes themselves. Their derivative with respect to the correlations is that of least squares on their support, with filters
    /// and support as constants.
    #[fusion(dtype = codes, shape = codes)]
    fn dictionary_follow(
        codes: FloatTensor<Self>,
        correlations: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        layer: LayerGeometry,
    ) -> FloatTensor<Self> {
        let _ = (correlations, filters, layer);
        codes
    }
}

/// Conjugate gradient steps of [`on_support`]. As many non-zeros, or groups of singular values, are solved for exactly.
#[cfg(feature = "autodiff")]
const STEPS: usize = 50;

/// (D_SᵀD_S)⁻¹ g_S for the support S of every code, zero elsewhere, by conjugate gradients.
#[cfg(feature = "autodiff")]
fn on_support<B: DictionaryOps>(
    gradient: FloatTensor<B>,
    codes: FloatTensor<B>,
    filters: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let shape = codes.shape();
    let rows = Shape::new([shape[0], layer.code.len()]);
    let support = B::float_abs(B::float_sign(codes));
    let flat = |values: FloatTensor<B>| B::float_reshape(values, rows.clone());
    let energy = |values: &FloatTensor<B>| B::float_sum_dim(B::float_mul(values.clone(), values.clone()), 1);
    // A signal whose residual is nothing stays where it is.
    let ratio = |over: FloatTensor<B>, under: FloatTensor<B>| {
        B::float_div(over, B::float_add_scalar(under, f32::MIN_POSITIVE.into()))
    };
    let mut residual = flat(B::float_mul(gradient, support.clone()));
    let mut solution = B::float_mul_scalar(residual.clone(), 0f32.into());
    let (mut direction, mut left) = (residual.clone(), energy(&residual));
    for _ in 0..STEPS {
        let there = B::float_reshape(direction.clone(), shape.clone());
        let made = B::dictionary_synthesis(there, filters.clone(), layer.clone());
        let synthesized = B::float_reshape(made.clone(), Shape::new([shape[0], layer.signal.len()]));
        let curvature = energy(&synthesized);
        let effect = flat(B::float_mul(B::dictionary_analysis(made, filters.clone(), layer.clone()), support.clone()));
        let length = ratio(left.clone(), curvature);
        solution = B::float_add(solution, B::float_mul(direction.clone(), length.clone()));
        residual = B::float_sub(residual, B::float_mul(effect, length));
        let next = energy(&residual);
        direction = B::float_add(residual.clone(), B::float_mul(direction, ratio(next.clone(), left)));
        left = next;
    }
    B::float_reshape(solution, shape)
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

/// Code positions up to which windows are cut out one by one.
const FEW_WINDOWS: usize = 64;

pub(super) fn has_few_windows(layer: &LayerGeometry) -> bool {
    layer.padding == [0, 0] && layer.code.height * layer.code.width <= FEW_WINDOWS
}

/// Dᵀx as one matrix product with the windows that the code's positions see: several times faster than the convolution where
/// positions are few and kernels large.
pub(super) fn by_windows<B: ProductOps>(
    signals: FloatTensor<B>,
    filters: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let [atoms, channels, height, width] = layer.filter_dims();
    let (count, len) = (signals.shape()[0], channels * height * width);
    let SignalShape { height: rows, width: columns, .. } = layer.code;
    let windows = (0..rows * columns).map(|position| {
        let [_, top, left] = layer.corner(position);
        let places = [0..count, 0..channels, top..top + height, left..left + width].map(Slice::from);
        B::float_reshape(B::float_slice(signals.clone(), &places), Shape::new([count, len]))
    });
    let windows = B::float_cat(windows.collect(), 0);
    let filters = B::float_transpose(B::float_reshape(filters, Shape::new([atoms, len])));
    // [positions · signals, atoms] to [signals, atoms, rows, columns].
    let products = B::float_reshape(B::product(windows, filters), Shape::new([rows * columns, count, atoms]));
    B::float_reshape(B::float_permute(products, &[1, 2, 0]), Shape::new([count, atoms, rows, columns]))
}

/// Dᵀx of a layer that is a matrix: one product, several times faster than the convolution that it is.
pub(super) fn matrix_analysis<B: ProductOps>(
    signals: FloatTensor<B>,
    filters: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let (count, atoms, len) = (signals.shape()[0], layer.code.channels, layer.atom_len());
    let filters = transposed::<B>(filters, [atoms, len]);
    reshaped::<B>(product::<B>(signals, [count, len], filters, [len, atoms]), layer.code.batched(count))
}

/// Dγ of a layer that is a matrix.
pub(super) fn matrix_synthesis<B: ProductOps>(
    codes: FloatTensor<B>,
    filters: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let (count, atoms, len) = (codes.shape()[0], layer.code.channels, layer.atom_len());
    reshaped::<B>(product::<B>(codes, [count, atoms], filters, [atoms, len]), layer.signal.batched(count))
}

/// The gradient of 〈r, Dγ〉 with respect to the filters of a layer that is a matrix.
pub(super) fn matrix_gradient<B: ProductOps>(
    residuals: FloatTensor<B>,
    codes: FloatTensor<B>,
    layer: &LayerGeometry,
) -> FloatTensor<B> {
    let (count, atoms, len) = (codes.shape()[0], layer.code.channels, layer.atom_len());
    let codes = transposed::<B>(codes, [count, atoms]);
    reshaped::<B>(product::<B>(codes, [atoms, count], residuals, [count, len]), layer.filter_dims())
}

/// The product of two matrices, whatever the dimensions that their values are in.
fn product<B: ProductOps>(
    left: FloatTensor<B>,
    dims: [usize; 2],
    right: FloatTensor<B>,
    right_dims: [usize; 2],
) -> FloatTensor<B> {
    B::product(as_matrix::<B>(left, dims), as_matrix::<B>(right, right_dims))
}

/// Values as a matrix. One that is a matrix already stays the view that it may be.
fn as_matrix<B: Backend>(values: FloatTensor<B>, dims: [usize; 2]) -> FloatTensor<B> {
    match values.shape() == Shape::new(dims) {
        true => values,
        false => B::float_reshape(values, Shape::new(dims)),
    }
}

/// A matrix the other way round.
fn transposed<B: Backend>(matrix: FloatTensor<B>, dims: [usize; 2]) -> FloatTensor<B> {
    B::float_transpose(B::float_reshape(matrix, Shape::new(dims)))
}

fn reshaped<B: Backend>(values: FloatTensor<B>, dims: [usize; 4]) -> FloatTensor<B> {
    B::float_reshape(values, Shape::new(dims))
}

/// Dᵀx. Shapes as [`crate::model::Dictionary::analyze`].
pub(crate) fn analysis(signals: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (signals, filters) = (signals.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_analysis(signals, filters, layer.clone()))
}

/// Dγ. Shapes as [`crate::model::Dictionary::synthesize`].
pub(crate) fn synthesis(codes: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (codes, filters) = (codes.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_synthesis(codes, filters, layer.clone()))
}

/// Codes as a function of their correlations with the residual; see [`DictionaryOps::dictionary_follow`].
pub(crate) fn follow(
    codes: Tensor<4>,
    correlations: Tensor<4>,
    filters: Tensor<4>,
    layer: &LayerGeometry,
) -> Tensor<4> {
    let (codes, correlations, filters) = (codes.into_dispatch(), correlations.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_follow(codes, correlations, filters, layer.clone()))
}

/// Gradient of Σ〈r, Dγ〉. Shapes as [`crate::model::dictionary::filter_gradient`].
pub(crate) fn gradient(residuals: Tensor<4>, codes: Tensor<4>, filters: Tensor<4>, layer: &LayerGeometry) -> Tensor<4> {
    let (residuals, codes, filters) = (residuals.into_dispatch(), codes.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(<Dispatch as DictionaryOps>::dictionary_gradient(residuals, codes, filters, layer.clone()))
}

#[cfg(feature = "flex")]
mod flex {
    use super::{
        DictionaryOps, FloatTensor, LayerGeometry, by_matrix_products, by_windows, has_few_windows, matrix_analysis,
        matrix_gradient, matrix_synthesis, options, product, reshaped, transposed,
    };
    use crate::kernels::batched;
    use crate::kernels::convolution::{analyze_once, filter_gradient_into, synthesize_once};
    use crate::kernels::sparse::{HostFilters, SparseDictionary, by_lines, density, gradient_by_nonzeros};
    use crate::kernels::windows::Windows;
    use burn::backend::ops::ModuleOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;
    use burn_flex::FlexTensor;

    /// Code positions from which on every signal is computed directly, row by row; by matrix products, or many signals at a time, where
    /// there are fewer.
    const MANY_POSITIONS: usize = 24 * 24;

    /// What a multiplication by a non-zero costs, in multiplications of a dense product: where atoms are sparse too, where they
    /// are added by lines, where lines are added up to a gradient.
    const ENTRY: f64 = 32.0;
    const LINE: f64 = 8.0;
    const GRADIENT_LINE: f64 = 16.0;

    /// To find the non-zeros of a matrix takes as long as so many rows of a dense product with it.
    const SEARCH: usize = 32;

    /// One of so many atoms is looked at to estimate how dense all are. The estimate only chooses the faster way.
    const SAMPLED: usize = 16;

    impl DictionaryOps for Flex {
        fn dictionary_analysis(
            signals: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            if layer.is_matrix() {
                return matrix_analysis::<Self>(signals, filters, &layer);
            }
            if let Some(windows) = Windows::of(&layer) {
                let (windows_there, [rows, len]) = cut(&signals.to_contiguous(), &layer, &windows);
                let filters = transposed::<Self>(filters, [layer.code.channels, len]);
                let products = product::<Self>(windows_there, [rows, len], filters, [len, layer.code.channels]);
                let products = products.to_contiguous();
                return tensor(layer.code.batched(rows / windows.positions()), |out| {
                    windows.join_codes_into(products.storage::<f32>(), out);
                });
            }
            let batched = is_small(&layer) && batched::suits_analysis(signals.shape()[0], &layer);
            if !batched && has_few_windows(&layer) {
                return by_windows::<Self>(signals, filters, &layer);
            }
            let (signals, filters) = (signals.to_contiguous(), filters.to_contiguous());
            let signals = signals.storage::<f32>();
            let filters = on_host(&filters, &layer);
            tensor(layer.code.batched(signals.len() / layer.signal.len()), |out| match batched {
                true => batched::analyze(&filters, &layer, signals, out),
                false => analyze_once(&filters, &layer, signals, out),
            })
        }

        fn dictionary_synthesis(
            codes: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            let (codes, filters) = (codes.to_contiguous(), filters.to_contiguous());
            let (codes_there, filters_there) = (codes.storage::<f32>(), filters.storage::<f32>());
            let count = codes_there.len() / layer.code.len();
            let cost = |in_filters| if by_lines(in_filters, &layer) { LINE } else { ENTRY * in_filters };
            if layer.is_matrix() {
                let few = || cost(sampled_density(filters_there, layer.atom_len())) * density(codes_there) <= 1.0;
                if count < SEARCH || !few() {
                    return matrix_synthesis::<Self>(codes, filters, &layer);
                }
                let filters = on_host(&filters, &layer);
                return tensor(layer.signal.batched(count), |out| {
                    SparseDictionary::new(&filters, &layer).synthesize_batch_into(codes_there, out);
                });
            }
            let few = cost(density(filters_there)) * density(codes_there) <= 1.0;
            if let Some(windows) = Windows::of(&layer) {
                let (codes_there, [rows, atoms]) = cut_codes(&codes, &layer, &windows);
                let len = layer.atom_len();
                let made = match few {
                    true => {
                        let flat = windows.flat();
                        let filters = HostFilters::new(flat.filter_dims(), filters_there.to_vec());
                        tensor([rows, len, 1, 1], |out| {
                            let codes = codes_there.storage::<f32>();
                            SparseDictionary::new(&filters, &flat).synthesize_batch_into(codes, out);
                        })
                    }
                    false => product::<Self>(codes_there, [rows, atoms], filters, [atoms, len]).to_contiguous(),
                };
                return tensor(layer.signal.batched(count), |out| windows.join_into(made.storage::<f32>(), out));
            }
            let batched = is_small(&layer) && batched::suits_synthesis(count, &layer);
            if !few && !batched && is_small(&layer) {
                return by_matrix_products::<Self>(codes, filters, &layer);
            }
            let filters = on_host(&filters, &layer);
            tensor(layer.signal.batched(count), |out| match (few, batched) {
                (true, _) => SparseDictionary::new(&filters, &layer).synthesize_batch_into(codes_there, out),
                (_, true) => batched::synthesize(&filters, &layer, codes_there, out),
                _ => synthesize_once(&filters, &layer, codes_there, out),
            })
        }

        fn dictionary_gradient(
            residuals: FloatTensor<Self>,
            codes: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            let (residuals, codes) = (residuals.to_contiguous(), codes.to_contiguous());
            let (residuals_there, codes_there) = (residuals.storage::<f32>(), codes.storage::<f32>());
            let few = layer.padding == [0, 0] && GRADIENT_LINE * density(codes_there) <= 1.0;
            if let Some(windows) = Windows::of(&layer) {
                let (residuals_there, [rows, len]) = cut(&residuals, &layer, &windows);
                let (codes_there, [_, atoms]) = cut_codes(&codes, &layer, &windows);
                if few {
                    let (residuals, codes) = (residuals_there.storage::<f32>(), codes_there.storage::<f32>());
                    return tensor(layer.filter_dims(), |out| {
                        gradient_by_nonzeros(&windows.flat(), residuals, codes, out);
                    });
                }
                let codes_there = transposed::<Self>(codes_there, [rows, atoms]);
                let sums = product::<Self>(codes_there, [atoms, rows], residuals_there, [rows, len]);
                return reshaped::<Self>(sums, layer.filter_dims());
            }
            if few {
                return tensor(layer.filter_dims(), |out| {
                    gradient_by_nonzeros(&layer, residuals_there, codes_there, out);
                });
            }
            if layer.is_matrix() {
                return matrix_gradient::<Self>(residuals, codes, &layer);
            }
            if is_small(&layer) && batched::suits_gradient(codes_there.len() / layer.code.len(), &layer) {
                return tensor(layer.filter_dims(), |out| {
                    batched::filter_gradient(&layer, residuals_there, codes_there, out);
                });
            }
            if is_small(&layer) {
                return Self::conv2d_weight_backward(residuals, filters, codes, options(&layer));
            }
            tensor(layer.filter_dims(), |out| filter_gradient_into(&layer, residuals_there, codes_there, out))
        }
    }

    /// Part of the filters' values that is not zero, by that of some atoms.
    fn sampled_density(filters: &[f32], atom_len: usize) -> f64 {
        let some = filters.chunks_exact(atom_len).step_by(SAMPLED);
        let count = some.len().max(1);
        some.map(density).sum::<f64>() / count as f64
    }

    /// The windows of contiguous signals, and the rows and columns of the matrix that they are.
    fn cut(signals: &FlexTensor, layer: &LayerGeometry, windows: &Windows) -> (FlexTensor, [usize; 2]) {
        let there = signals.storage::<f32>();
        let dims = [there.len() / layer.signal.len() * windows.positions(), layer.atom_len()];
        (tensor([dims[0], dims[1], 1, 1], |out| windows.cut_into(there, out)), dims)
    }

    /// The windows' codes of contiguous codes, and the rows and columns of the matrix that they are.
    fn cut_codes(codes: &FlexTensor, layer: &LayerGeometry, windows: &Windows) -> (FlexTensor, [usize; 2]) {
        let there = codes.storage::<f32>();
        let dims = [there.len() / layer.code.channels, layer.code.channels];
        (tensor([dims[0], dims[1], 1, 1], |out| windows.cut_codes_into(there, out)), dims)
    }

    fn is_small(layer: &LayerGeometry) -> bool {
        layer.code.height * layer.code.width < MANY_POSITIONS
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

#[cfg(feature = "tch")]
impl DictionaryOps for burn::backend::LibTorch {}

#[cfg(feature = "autodiff")]
mod autodiff {
    use super::{DictionaryOps, FloatTensor, LayerGeometry, on_support};
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

    /// The way back from codes to their correlations.
    #[derive(Debug)]
    struct Following;

    impl<B: DictionaryOps> Backward<B, 1> for Following {
        type State = (FloatTensor<B>, FloatTensor<B>, LayerGeometry);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_correlations], (codes, filters, layer)) = (ops.parents, ops.state);
            let gradient = grads.consume::<B>(&ops.node);
            if let Some(node) = of_correlations {
                grads.register::<B>(node.id, on_support::<B>(gradient, codes, filters, &layer));
            }
        }
    }

    impl<B: DictionaryOps, C: CheckpointStrategy> DictionaryOps for Autodiff<B, C> {
        fn dictionary_follow(
            codes: FloatTensor<Self>,
            correlations: FloatTensor<Self>,
            filters: FloatTensor<Self>,
            layer: LayerGeometry,
        ) -> FloatTensor<Self> {
            let node = correlations.node();
            let (codes, filters) = (codes.into_primitive(), filters.into_primitive());
            match Following.prepare::<C>([node]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish((codes.clone(), filters, layer), codes),
                OpsKind::UnTracked(prepared) => prepared.finish(codes),
            }
        }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};
    use crate::kernels::convolution::{Convolution, filter_gradient_into};
    use crate::kernels::sparse::{HostFilters, to_host};
    use burn::tensor::TensorData;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Few non-zeros in the codes, in the filters, or in both give what the direct convolutions give.
    #[test]
    fn sparse_operands_agree_with_dense_ones() {
        let device = crate::device::named(None).unwrap();
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        let overlapping = |padding: usize| LayerShape::new(6, Pair([5, 3]), Pair([2, 1])).with_padding(padding);
        let disjoint = [LayerShape::new(6, 1, 1), LayerShape::new(6, Pair([2, 3]), Pair([2, 4]))];
        let matrix = LayerShape::new(40, Pair([9, 11]), 1);
        let cases = [(overlapping(0), 9), (overlapping(1), 9), (overlapping(0), 40), (matrix, 9)].into_iter();
        for (shape, side) in cases.chain(disjoint.into_iter().flat_map(|shape| [(shape.clone(), 9), (shape, 30)])) {
            let padding = shape.padding;
            let layer = Geometry::new(SignalShape::new(2, side, side + 2), &[shape]).unwrap().layers()[0].clone();
            for (in_codes, in_filters) in [(0.02, 0.05), (0.02, 1.0), (1.0, 0.02), (0.0, 1.0)] {
                let mut draw = |len: usize, density: f64| -> Vec<f32> {
                    let mut value = || match generator.random_bool(density) {
                        true => generator.random_range(-1.0..1.0),
                        false => 0.0,
                    };
                    (0..len).map(|_| value()).collect()
                };
                // Of a matrix the non-zeros are looked for where rows are many.
                let count = if layer.is_matrix() { 40 } else { 3 };
                let codes = draw(count * layer.code.len(), in_codes);
                let residuals = draw(count * layer.signal.len(), 1.0);
                let filters =
                    HostFilters::new(layer.filter_dims(), draw(layer.filter_dims().iter().product(), in_filters));
                let close = |found: Tensor<4>, expected: &[f32], what: &str| {
                    let found = to_host(found);
                    assert_eq!(found.len(), expected.len(), "{what}");
                    for (found, expected) in found.iter().zip(expected) {
                        let case = format!("{what}, {in_codes}, {in_filters}, padding {padding}");
                        assert!((found - expected).abs() < 1e-4, "{case}: {found} {expected}");
                    }
                };
                let tensor = |values: &[f32], dims: [usize; 4]| {
                    Tensor::<4>::from_data(TensorData::new(values.to_vec(), dims), &device)
                };
                let codes_there = tensor(&codes, layer.code.batched(count));
                let mut expected = vec![0.0; residuals.len()];
                Convolution::new(&filters, &layer).synthesize_into(&codes, &mut expected);
                close(synthesis(codes_there.clone(), filters.to_tensor(&device), &layer), &expected, "synthesis");
                let mut expected = vec![0.0; filters.values().len()];
                filter_gradient_into(&layer, &residuals, &codes, &mut expected);
                let residuals = tensor(&residuals, layer.signal.batched(count));
                close(gradient(residuals, codes_there, filters.to_tensor(&device), &layer), &expected, "gradient");
            }
        }
    }
}
