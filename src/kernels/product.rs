//! Matrix products as an operation of their own on burn's backends.
//!
//! Guarantees, duality gaps and gradients hang on products in full `f32`. Hosts compute them so; CubeCL rounds the factors to ten bits of mantissa
//! (TF32) where a GPU has tensor cores, unless it is told not to ([`crate::device::Precision`]), which is what this operation is for.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "that backend stays as long as upstream has it"))]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::Shape;
use burn::tensor::Tensor;

/// The operation on two matrices, `[m, k]` and `[k, n]`, or on batches of them.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "fusion"),
    LibTorch: cfg(feature = "tch"),
    Autodiff: cfg(feature = "autodiff")
)]
pub(crate) trait ProductOps: Backend {
    /// left · right.
    #[fusion(dtype = left, shape = product_shape(left, right))]
    fn product(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(left, right)
    }
}

#[cfg(feature = "fusion")]
fn product_shape(left: &Shape, right: &Shape) -> Shape {
    let (mut shape, last) = (left.clone(), left.num_dims() - 1);
    shape[last] = right[last];
    shape
}

/// left · right.
///
/// # Shapes
/// - left: `[m, k]`, m may be 0; right: `[k, n]`; out: `[m, n]`
pub(crate) fn product(left: Tensor<2>, right: Tensor<2>) -> Tensor<2> {
    if left.dims()[0] == 0 {
        return Tensor::zeros([0, right.dims()[1]], &left.device());
    }
    Tensor::from_dispatch(<Dispatch as ProductOps>::product(left.into_dispatch(), right.into_dispatch()))
}

#[cfg(feature = "flex")]
impl ProductOps for burn::backend::Flex {}

#[cfg(feature = "ndarray")]
impl ProductOps for burn::backend::NdArray {}

#[cfg(feature = "tch")]
impl ProductOps for burn::backend::LibTorch {}

#[cfg(feature = "autodiff")]
mod autodiff {
    use super::{FloatTensor, ProductOps};
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

    #[derive(Debug)]
    struct Product;

    impl<B: ProductOps> Backward<B, 2> for Product {
        /// The factors, each where the other's gradient is wanted.
        type State = [Option<FloatTensor<B>>; 2];

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_left, of_right], [left, right]) = (ops.parents, ops.state);
            let gradient = grads.consume::<B>(&ops.node);
            if let Some((node, right)) = of_left.zip(right) {
                grads.register::<B>(node.id, B::product(gradient.clone(), B::float_transpose(right)));
            }
            if let Some((node, left)) = of_right.zip(left) {
                grads.register::<B>(node.id, B::product(B::float_transpose(left), gradient));
            }
        }
    }

    impl<B: ProductOps, C: CheckpointStrategy> ProductOps for Autodiff<B, C> {
        fn product(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
            let nodes = [left.node(), right.node()];
            let [left, right] = [left, right].map(|tensor| tensor.into_primitive());
            match Product.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    let kept = [Some(left.clone()), Some(right.clone())];
                    prepared.finish(kept, B::product(left, right))
                }
                OpsKind::UnTracked(prepared) => prepared.finish(B::product(left, right)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use burn::tensor::Distribution;

    #[test]
    fn products_and_their_gradients_are_those_of_the_backend() {
        let device = device::named(None).unwrap();
        #[cfg(feature = "autodiff")]
        let device = device.autodiff();
        let matrix = |rows, columns| Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 1.0), &device);
        let (left, right, weights) = (matrix(7, 33), matrix(33, 12), matrix(7, 12));
        let equal = |found: Tensor<2>, expected: Tensor<2>| {
            let difference: f32 = (found - expected).abs().max().into_scalar();
            assert!(difference < 1e-4, "{difference}");
        };
        equal(product(left.clone(), right.clone()), left.clone().matmul(right.clone()));
        #[cfg(feature = "autodiff")]
        {
            let (left, right) = (left.require_grad(), right.require_grad());
            let ours = (product(left.clone(), right.clone()) * weights.clone()).sum().backward();
            let theirs = (left.clone().matmul(right.clone()) * weights).sum().backward();
            for tensor in [left, right] {
                let of = |gradients| tensor.grad(gradients).unwrap();
                let difference: f32 = (of(&ours) - of(&theirs)).abs().max().into_scalar();
                assert!(difference < 1e-4, "{difference}");
            }
        }
        #[cfg(not(feature = "autodiff"))]
        let _ = weights;
    }
}
