//! What an unrolled pursuit does between two products with the dictionary, as operations of their own on burn's backends.
//!
//! Written as tensor operations, the step, the threshold and the momentum pass over memory a dozen times, each time into new
//! memory. On Flex each of them is one pass, into the memory of an operand that is not needed any more; on GPUs one kernel
//! (`kernels/cube`). Every other backend composes them of its own operations. Their derivatives are those of the composition: zero where a code is zero.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "that backend stays as long as upstream has it"))]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// The operations on matrices of one row per signal.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "fusion"),
    LibTorch: cfg(feature = "tch"),
    Autodiff: cfg(feature = "autodiff")
)]
pub(crate) trait ProximalOps: Backend {
    /// S_t(z − step·(e − b)).
    #[fusion(dtype = point, shape = point)]
    fn proximal_step(
        point: FloatTensor<Self>,
        explained: FloatTensor<Self>,
        correlations: FloatTensor<Self>,
        thresholds: FloatTensor<Self>,
        step: f32,
        nonnegative: bool,
    ) -> FloatTensor<Self> {
        let against = Self::float_mul_scalar(Self::float_sub(explained, correlations), step.into());
        let moved = Self::float_sub(point, against);
        let positive = Self::float_clamp_min(Self::float_sub(moved.clone(), thresholds.clone()), 0f32.into());
        if nonnegative {
            return positive;
        }
        let negative = Self::float_sub(Self::float_neg(moved), thresholds);
        Self::float_sub(positive, Self::float_clamp_min(negative, 0f32.into()))
    }

    /// A gradient where codes are not zero, 0 elsewhere.
    #[fusion(dtype = gradient, shape = gradient)]
    #[cfg_attr(not(feature = "autodiff"), allow(dead_code))]
    fn on_support(gradient: FloatTensor<Self>, codes: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_mul(gradient, Self::float_abs(Self::float_sign(codes)))
    }

    /// γ + f(γ − γ'), with one f for each row.
    #[fusion(dtype = codes, shape = codes)]
    fn extrapolation(
        codes: FloatTensor<Self>,
        before: FloatTensor<Self>,
        factors: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let change = Self::float_sub(codes.clone(), before);
        Self::float_add(codes, Self::float_mul(change, factors))
    }
}

/// One proximal gradient step: S_t(z − step·(e − b)).
///
/// # Shapes
/// - point z, explained e = Gz, correlations b = Dᵀy: `[n, k]`; thresholds t ≥ 0: `[n, 1]` or `[n, k]`; out: `[n, k]`.
pub(crate) fn proximal_step(
    point: Tensor<2>,
    explained: Tensor<2>,
    correlations: Tensor<2>,
    thresholds: Tensor<2>,
    step: f32,
    nonnegative: bool,
) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as ProximalOps>::proximal_step(
        point.into_dispatch(),
        explained.into_dispatch(),
        correlations.into_dispatch(),
        thresholds.into_dispatch(),
        step,
        nonnegative,
    ))
}

/// A step of FISTA in one kernel: the codes, the point that the next gradient is taken at, and the next t; the momentum of a signal that points
/// uphill ends with `restart`. `None` where there is no such kernel, and where gradients are followed.
///
/// # Shapes
/// - point z, explained e, correlations b, codes before: `[n, k]`; thresholds: `[n, 1]` or `[n, k]`; t: `[n, 1]`
pub(crate) fn accelerated_step(
    operands: [Tensor<2>; 4],
    thresholds_and_momentum: [Tensor<2>; 2],
    step: f32,
    nonnegative: bool,
    restart: bool,
) -> Option<[Tensor<2>; 3]> {
    #[cfg(feature = "cube")]
    return super::cube::accelerated_step(operands, thresholds_and_momentum, step, nonnegative, restart);
    #[cfg(not(feature = "cube"))]
    {
        let _ = (operands, thresholds_and_momentum, step, nonnegative, restart);
        None
    }
}

/// γ + f(γ − γ'). Factors f count as constants: no derivative flows into them.
///
/// # Shapes
/// - codes γ, before γ': `[n, k]`; factors: `[n, 1]`; out: `[n, k]`.
pub(crate) fn extrapolation(codes: Tensor<2>, before: Tensor<2>, factors: Tensor<2>) -> Tensor<2> {
    let (codes, before, factors) = (codes.into_dispatch(), before.into_dispatch(), factors.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ProximalOps>::extrapolation(codes, before, factors))
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, ProximalOps};
    use crate::kernels::simd::vectorised;
    use crate::kernels::threshold::soft_threshold_value;
    use burn::backend::Flex;
    use burn::tensor::TensorData;
    use burn_flex::FlexTensor;
    use rayon::prelude::*;

    /// Values that one core works on at a time.
    const PART: usize = 1 << 15;

    impl ProximalOps for Flex {
        fn proximal_step(
            point: FloatTensor<Self>,
            explained: FloatTensor<Self>,
            correlations: FloatTensor<Self>,
            thresholds: FloatTensor<Self>,
            step: f32,
            nonnegative: bool,
        ) -> FloatTensor<Self> {
            let [point, explained, correlations] = [point, explained, correlations].map(whole);
            let thresholds = whole(thresholds);
            let (point_there, correlations_there) = (point.storage::<f32>(), correlations.storage::<f32>());
            let thresholds = thresholds.storage::<f32>();
            let columns = point_there.len() / point.layout().shape()[0].max(1);
            let each = thresholds.len() == point_there.len();
            by_rows(explained, columns, |first, row| {
                let places = first..first + row.len();
                let (point, correlations) = (&point_there[places.clone()], &correlations_there[places.clone()]);
                let moved = |explained: f32, point: f32, correlation: f32| point - step * (explained - correlation);
                let values = row.iter_mut().zip(point).zip(correlations);
                if each {
                    for (((value, point), correlation), &threshold) in values.zip(&thresholds[places]) {
                        *value = soft_threshold_value(moved(*value, *point, *correlation), threshold, nonnegative);
                    }
                } else if nonnegative {
                    let threshold = thresholds[first / columns];
                    for ((value, point), correlation) in values {
                        let moved = moved(*value, *point, *correlation) - threshold;
                        // `max` would turn NaN into 0.
                        *value = if moved <= 0.0 { 0.0 } else { moved };
                    }
                } else {
                    let threshold = thresholds[first / columns];
                    for ((value, point), correlation) in values {
                        let moved = moved(*value, *point, *correlation);
                        *value = moved - moved.clamp(-threshold, threshold);
                    }
                }
            })
        }

        fn on_support(gradient: FloatTensor<Self>, codes: FloatTensor<Self>) -> FloatTensor<Self> {
            let codes = whole(codes);
            let codes = codes.storage::<f32>();
            by_rows(whole(gradient), PART, |first, values| {
                for (value, code) in values.iter_mut().zip(&codes[first..]) {
                    *value = if *code == 0.0 { 0.0 } else { *value };
                }
            })
        }

        fn extrapolation(
            codes: FloatTensor<Self>,
            before: FloatTensor<Self>,
            factors: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let (codes, factors) = (whole(codes), whole(factors));
            let (rows, codes) = (codes.layout().shape()[0], codes.storage::<f32>());
            let factors = factors.storage::<f32>();
            let columns = codes.len() / rows.max(1);
            by_rows(whole(before), columns, |first, values| {
                let factor = factors[first / columns];
                for (value, code) in values.iter_mut().zip(&codes[first..]) {
                    *value = code + factor * (code - *value);
                }
            })
        }
    }

    /// The tensor as one piece of memory that holds nothing else.
    fn whole(tensor: FlexTensor) -> FlexTensor {
        tensor.to_contiguous()
    }

    /// Changes a tensor row by row (of `columns` values), in its own memory where that is not shared. `change` is told the first
    /// value's place.
    fn by_rows(tensor: FlexTensor, columns: usize, change: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
        let dims = tensor.layout().shape().clone();
        let mut tensor = match tensor.is_unique() {
            true => tensor,
            // A copy of one pass, instead of one that goes through the allocator's zeroed pages first.
            false => FlexTensor::from_data(TensorData::new(tensor.storage::<f32>().to_vec(), dims)),
        };
        let columns = columns.max(1);
        let part_len = columns * (PART / columns).max(1);
        tensor.storage_mut::<f32>().par_chunks_mut(part_len).enumerate().for_each(|(part, values)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, values) in values.chunks_mut(columns).enumerate() {
                        change(part * part_len + row * columns, values);
                    }
                },
            );
        });
        tensor
    }
}

#[cfg(feature = "ndarray")]
impl ProximalOps for burn::backend::NdArray {}

#[cfg(feature = "tch")]
impl ProximalOps for burn::backend::LibTorch {}

#[cfg(feature = "autodiff")]
mod autodiff {
    use super::{FloatTensor, ProximalOps};
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::{Autodiff, TensorMetadata};
    use burn::tensor::Shape;

    #[derive(Debug)]
    struct Step;

    /// Codes, the thresholds' shape, the step.
    type StepState<B> = (FloatTensor<B>, Shape, f32);

    impl<B: ProximalOps> Backward<B, 4> for Step {
        type State = StepState<B>;

        fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_point, of_explained, of_correlations, of_thresholds], (codes, shape, step)) =
                (ops.parents, ops.state);
            let gradient = B::on_support(grads.consume::<B>(&ops.node), codes.clone());
            if let Some(node) = of_thresholds {
                let against = B::float_neg(B::float_mul(gradient.clone(), B::float_sign(codes)));
                let against = if shape[1] == 1 { B::float_sum_dim(against, 1) } else { against };
                grads.register::<B>(node.id, against);
            }
            if let Some(node) = of_explained {
                grads.register::<B>(node.id, B::float_mul_scalar(gradient.clone(), (-step).into()));
            }
            if let Some(node) = of_correlations {
                grads.register::<B>(node.id, B::float_mul_scalar(gradient.clone(), step.into()));
            }
            if let Some(node) = of_point {
                grads.register::<B>(node.id, gradient);
            }
        }
    }

    #[derive(Debug)]
    struct Extrapolation;

    impl<B: ProximalOps> Backward<B, 2> for Extrapolation {
        type State = FloatTensor<B>;

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_codes, of_before], factors) = (ops.parents, ops.state);
            let gradient = grads.consume::<B>(&ops.node);
            if let Some(node) = of_before {
                grads.register::<B>(node.id, B::float_mul(gradient.clone(), B::float_neg(factors.clone())));
            }
            if let Some(node) = of_codes {
                let part = B::float_mul(gradient.clone(), factors);
                grads.register::<B>(node.id, B::float_add(gradient, part));
            }
        }
    }

    impl<B: ProximalOps, C: CheckpointStrategy> ProximalOps for Autodiff<B, C> {
        fn proximal_step(
            point: FloatTensor<Self>,
            explained: FloatTensor<Self>,
            correlations: FloatTensor<Self>,
            thresholds: FloatTensor<Self>,
            step: f32,
            nonnegative: bool,
        ) -> FloatTensor<Self> {
            let nodes = [point.node(), explained.node(), correlations.node(), thresholds.node()];
            let [point, explained, correlations, thresholds] =
                [point, explained, correlations, thresholds].map(|tensor| tensor.into_primitive());
            let shape = thresholds.shape();
            let codes = B::proximal_step(point, explained, correlations, thresholds, step, nonnegative);
            match Step.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish((codes.clone(), shape, step), codes),
                OpsKind::UnTracked(prepared) => prepared.finish(codes),
            }
        }

        fn extrapolation(
            codes: FloatTensor<Self>,
            before: FloatTensor<Self>,
            factors: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let nodes = [codes.node(), before.node()];
            let [codes, before, factors] = [codes, before, factors].map(|tensor| tensor.into_primitive());
            match Extrapolation.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    let point = B::extrapolation(codes, before, factors.clone());
                    prepared.finish(factors, point)
                }
                OpsKind::UnTracked(prepared) => prepared.finish(B::extrapolation(codes, before, factors)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::kernels::threshold::soft_threshold;
    use burn::tensor::Distribution;

    /// One pass gives what the composition gives, whoever else holds the operands, and leaves those as they are.
    #[test]
    fn passes_equal_compositions() {
        let device = device::named(None).unwrap();
        let matrix = |rows, columns| Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 1.0), &device);
        let equal = |left: Tensor<2>, right: Tensor<2>| {
            let difference: f32 = (left - right).abs().max().into_scalar();
            assert!(difference < 1e-6, "{difference}");
        };
        for (rows, columns) in [(3, 7), (40, 1300), (1, 70_000)] {
            let [point, explained, correlations] = [0; 3].map(|_| matrix(rows, columns));
            let kept = explained.clone() + 0.0;
            for nonnegative in [false, true] {
                for thresholds in [matrix(rows, 1).abs(), matrix(rows, columns).abs()] {
                    let moved = point.clone() - (explained.clone() - correlations.clone()) * 0.3;
                    let expected = soft_threshold(moved, thresholds.clone(), nonnegative);
                    let found = proximal_step(
                        point.clone(),
                        explained.clone(),
                        correlations.clone(),
                        thresholds,
                        0.3,
                        nonnegative,
                    );
                    equal(found, expected);
                }
            }
            equal(explained.clone(), kept);
            let factors = matrix(rows, 1);
            let expected = point.clone() + (point.clone() - explained.clone()) * factors.clone();
            equal(extrapolation(point.clone(), explained.clone(), factors.clone()), expected.clone());
            // Operands that are views, and one that is not shared.
            let view = Tensor::cat(vec![explained.clone(), explained.clone()], 0).slice([rows..2 * rows, 0..columns]);
            equal(extrapolation(point, view, factors), expected);
        }
    }
}
