//! Products with matrices of which few values are not zero, such as codes that keep their largest values: they cost what those values cost, forwards and
//! back.
//!
//! A code is Γ = T(Y·Eᵀ) with a rule T that keeps few values, and the signal that it stands for Γ·D. Forwards all scores Y·Eᵀ are
//! needed; everything else is sums over the non-zeros: Γ·D, the gradient Γᵀ·G of D, that of Γ, which is wanted where Γ is not zero, and, that one being
//! as sparse as Γ, the gradient of E. On hosts and on GPUs these are loops of our own; elsewhere dense products. What is not sparse is multiplied
//! densely.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "that backend stays as long as upstream has it"))]

use crate::kernels::product::ProductOps;
use crate::kernels::proximal::ProximalOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// The operations on matrices.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "fusion"),
    LibTorch: cfg(feature = "tch"),
    Autodiff: cfg(feature = "autodiff")
)]
pub(crate) trait FewOps: ProductOps + ProximalOps {
    /// codes · atoms.
    #[fusion(dtype = codes, shape = Shape::new([codes[0], atoms[1]]))]
    fn few_synthesis(codes: FloatTensor<Self>, atoms: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(codes, atoms)
    }

    /// codesᵀ · values.
    #[fusion(dtype = codes, shape = Shape::new([codes[1], values[1]]))]
    fn few_sums(codes: FloatTensor<Self>, values: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(Self::float_transpose(codes), values)
    }

    /// values · atomsᵀ where codes are not zero, else zero.
    #[fusion(dtype = codes, shape = codes)]
    fn few_scores(values: FloatTensor<Self>, atoms: FloatTensor<Self>, codes: FloatTensor<Self>) -> FloatTensor<Self> {
        let all = Self::product(values, Self::float_transpose(atoms));
        Self::float_mul(all, Self::float_abs(Self::float_sign(codes)))
    }

    /// values · atomsᵀ, whose gradient is mostly zero.
    #[fusion(default)]
    fn all_scores(values: FloatTensor<Self>, atoms: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(values, Self::float_transpose(atoms))
    }

    /// The `kept` largest of every row of values · atomsᵀ + bias, as far as they are above zero, and zeros; of equal ones all.
    #[fusion(default)]
    fn largest_scores(
        values: FloatTensor<Self>,
        atoms: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kept: usize,
    ) -> FloatTensor<Self> {
        let units = bias.shape()[0];
        let scores = Self::product(values, Self::float_transpose(atoms));
        let scores = Self::relu(Self::float_add(scores, Self::float_reshape(bias, Shape::new([1, units]))));
        if kept >= units {
            return scores;
        }
        let least = Self::float_min_dim(Self::float_topk(scores.clone(), 1, kept), 1);
        // 1 where a score is less, and nowhere else.
        let less = Self::relu(Self::float_sign(Self::float_sub(least, scores.clone())));
        Self::float_sub(scores.clone(), Self::float_mul(scores, less))
    }
}

/// codes · atoms for codes that are mostly zero. Where they are, their gradient is given as zero: it is for codes whose own rule has none there.
///
/// # Shapes
/// - codes: `[n, k]`; atoms: `[k, d]`; out: `[n, d]`
pub(crate) fn synthesis(codes: Tensor<2>, atoms: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FewOps>::few_synthesis(codes.into_dispatch(), atoms.into_dispatch()))
}

/// values · atomsᵀ, of which a rule that follows keeps few: gradients are summed over what is not zero of them.
///
/// # Shapes
/// - values: `[n, d]`; atoms: `[k, d]`; out: `[n, k]`
pub(crate) fn scores(values: Tensor<2>, atoms: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FewOps>::all_scores(values.into_dispatch(), atoms.into_dispatch()))
}

/// The `kept` ≥ 1 largest of every row of values · atomsᵀ + bias, as far as they are above zero, and zeros; of equal ones all stay.
///
/// # Shapes
/// - values: `[n, d]`; atoms: `[k, d]`; bias: `[k]`; out: `[n, k]`
pub(crate) fn largest_scores(values: Tensor<2>, atoms: Tensor<2>, bias: Tensor<1>, kept: usize) -> Tensor<2> {
    let [values, atoms] = [values, atoms].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as FewOps>::largest_scores(values, atoms, bias.into_dispatch(), kept.max(1)))
}

#[cfg(feature = "ndarray")]
impl FewOps for burn::backend::NdArray {}

#[cfg(feature = "tch")]
impl FewOps for burn::backend::LibTorch {}

#[cfg(feature = "flex")]
mod flex {
    use super::{FewOps, FloatTensor, ProductOps};
    use crate::kernels::simd::vectorised;
    use crate::kernels::sparse::nonzeros;
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;
    use burn_flex::FlexTensor;
    use rayon::prelude::*;

    /// What a multiplication by a non-zero costs, in multiplications of a dense product.
    const COST: usize = 8;

    /// Rows in which non-zeros are counted at a time.
    const ROWS: usize = 16;

    /// Non-zeros of every row.
    struct Few {
        rows: Vec<Vec<(u32, f32)>>,
        columns: usize,
    }

    impl Few {
        /// `None` where so many are not zero that a dense product is faster.
        fn of(codes: &FlexTensor) -> Option<Self> {
            let columns = codes.shape()[1];
            let values = codes.storage::<f32>();
            let of_row = |row: &[f32]| nonzeros(row).map(|(place, value)| (place as u32, value)).collect();
            let rows: Vec<Vec<(u32, f32)>> =
                values.par_chunks_exact(columns.max(1)).with_min_len(ROWS).map(of_row).collect();
            let count: usize = rows.iter().map(Vec::len).sum();
            (COST * count <= values.len()).then_some(Self { rows, columns })
        }

        /// The rows and values of every column, in the order of rows.
        fn by_column(&self) -> Vec<Vec<(u32, f32)>> {
            let mut counts = vec![0; self.columns];
            self.rows.iter().flatten().for_each(|(column, _)| counts[*column as usize] += 1);
            let mut columns: Vec<Vec<(u32, f32)>> = counts.into_iter().map(Vec::with_capacity).collect();
            for (row, values) in self.rows.iter().enumerate() {
                values.iter().for_each(|&(column, value)| columns[column as usize].push((row as u32, value)));
            }
            columns
        }
    }

    /// Adds weighted rows of a matrix up.
    fn add_rows(out: &mut [f32], weights: &[(u32, f32)], rows: &[f32]) {
        let len = out.len();
        vectorised(
            #[inline(always)]
            || {
                for &(row, weight) in weights {
                    let row = &rows[row as usize * len..][..len];
                    out.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
                }
            },
        );
    }

    fn tensor(values: Vec<f32>, dims: [usize; 2]) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(values, dims))
    }

    /// A matrix whose rows are weighted sums of those of another.
    fn sums(weights: &[Vec<(u32, f32)>], rows: &FlexTensor) -> FlexTensor {
        let rows = rows.to_contiguous();
        let len = rows.shape()[1];
        let mut out = vec![0.0; weights.len() * len];
        let values = rows.storage::<f32>();
        out.par_chunks_exact_mut(len.max(1)).zip(weights).for_each(|(out, weights)| add_rows(out, weights, values));
        tensor(out, [weights.len(), len])
    }

    impl FewOps for Flex {
        fn few_synthesis(codes: FloatTensor<Self>, atoms: FloatTensor<Self>) -> FloatTensor<Self> {
            let codes = codes.to_contiguous();
            match Few::of(&codes) {
                Some(few) => sums(&few.rows, &atoms),
                None => Self::product(codes, atoms),
            }
        }

        fn few_sums(codes: FloatTensor<Self>, values: FloatTensor<Self>) -> FloatTensor<Self> {
            let codes = codes.to_contiguous();
            match Few::of(&codes) {
                Some(few) => sums(&few.by_column(), &values),
                None => Self::product(Self::float_transpose(codes), values),
            }
        }

        fn few_scores(
            values: FloatTensor<Self>,
            atoms: FloatTensor<Self>,
            codes: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let codes = codes.to_contiguous();
            let Some(few) = Few::of(&codes) else {
                let all = Self::product(values, Self::float_transpose(atoms));
                return Self::float_mul(all, Self::float_abs(Self::float_sign(codes)));
            };
            let (values, atoms) = (values.to_contiguous(), atoms.to_contiguous());
            let (columns, len) = (few.columns, values.shape()[1]);
            let (of_values, of_atoms) = (values.storage::<f32>(), atoms.storage::<f32>());
            let mut out = vec![0.0; few.rows.len() * columns];
            let rows = out.par_chunks_exact_mut(columns.max(1)).zip(&few.rows).enumerate();
            rows.for_each(|(row, (out, places))| {
                let row = &of_values[row * len..][..len];
                vectorised(
                    #[inline(always)]
                    || {
                        for &(place, _) in places {
                            out[place as usize] = dot(row, &of_atoms[place as usize * len..][..len]);
                        }
                    },
                );
            });
            tensor(out, [few.rows.len(), columns])
        }

        fn largest_scores(
            values: FloatTensor<Self>,
            atoms: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            kept: usize,
        ) -> FloatTensor<Self> {
            let mut scores = Self::product(values, Self::float_transpose(atoms)).to_contiguous();
            let bias = bias.to_contiguous();
            let bias = bias.storage::<f32>();
            let keep = |scratch: &mut Vec<f32>, row: &mut [f32]| {
                for (score, bias) in row.iter_mut().zip(bias) {
                    let shifted = *score + bias;
                    // What is no number stays so, to be found out.
                    *score = if shifted < 0.0 { 0.0 } else { shifted };
                }
                if kept < row.len() {
                    scratch.clear();
                    scratch.extend_from_slice(row);
                    let least = *scratch.select_nth_unstable_by(kept - 1, |a, b| b.total_cmp(a)).1;
                    row.iter_mut().filter(|score| **score < least).for_each(|score| *score = 0.0);
                }
            };
            scores.storage_mut::<f32>().par_chunks_exact_mut(bias.len().max(1)).for_each_init(Vec::new, keep);
            scores
        }
    }

    /// An inner product in so many sums at a time, which vectors can hold.
    #[inline(always)]
    fn dot(left: &[f32], right: &[f32]) -> f32 {
        const LANES: usize = 32;
        let mut sums = [0.0f32; LANES];
        let (left, right) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
        let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
        for (left, right) in left.zip(right) {
            for lane in 0..LANES {
                sums[lane] += left[lane] * right[lane];
            }
        }
        sums.iter().sum::<f32>() + rest
    }
}

#[cfg(feature = "autodiff")]
mod autodiff {
    use super::{FewOps, FloatTensor};
    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::{Autodiff, TensorMetadata};
    use burn::tensor::Shape;

    /// The gradients of the two factors of scores, values · atomsᵀ, from theirs.
    fn register<B: FewOps>(
        grads: &mut Gradients,
        [of_values, of_atoms]: [Option<NodeId>; 2],
        gradient: FloatTensor<B>,
        [values, atoms]: [FloatTensor<B>; 2],
    ) {
        if let Some(node) = of_values {
            grads.register::<B>(node, B::few_synthesis(gradient.clone(), atoms));
        }
        if let Some(node) = of_atoms {
            grads.register::<B>(node, B::few_sums(gradient, values));
        }
    }

    #[derive(Debug)]
    struct Synthesis;

    impl<B: FewOps> Backward<B, 2> for Synthesis {
        type State = [FloatTensor<B>; 2];

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([of_codes, of_atoms], [codes, atoms]) = (ops.parents, ops.state);
            let gradient = grads.consume::<B>(&ops.node);
            if let Some(node) = of_codes {
                grads.register::<B>(node.id, B::few_scores(gradient.clone(), atoms, codes.clone()));
            }
            if let Some(node) = of_atoms {
                grads.register::<B>(node.id, B::few_sums(codes, gradient));
            }
        }
    }

    #[derive(Debug)]
    struct Scores;

    impl<B: FewOps> Backward<B, 2> for Scores {
        type State = [FloatTensor<B>; 2];

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let gradient = grads.consume::<B>(&ops.node);
            let parents = ops.parents.map(|parent| parent.map(|node| node.id));
            register::<B>(grads, parents, gradient, ops.state);
        }
    }

    #[derive(Debug)]
    struct Largest;

    impl<B: FewOps> Backward<B, 3> for Largest {
        /// Values, atoms, and the scores that were kept.
        type State = [FloatTensor<B>; 3];

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [of_values, of_atoms, of_bias] = ops.parents.map(|parent| parent.map(|node| node.id));
            let [values, atoms, codes] = ops.state;
            let gradient = B::on_support(grads.consume::<B>(&ops.node), codes);
            if let Some(node) = of_bias {
                let units = gradient.shape()[1];
                let sum = B::float_sum_dim(gradient.clone(), 0);
                grads.register::<B>(node, B::float_reshape(sum, Shape::new([units])));
            }
            register::<B>(grads, [of_values, of_atoms], gradient, [values, atoms]);
        }
    }

    impl<B: FewOps, C: CheckpointStrategy> FewOps for Autodiff<B, C> {
        fn largest_scores(
            values: FloatTensor<Self>,
            atoms: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            kept: usize,
        ) -> FloatTensor<Self> {
            let nodes = [values.node(), atoms.node(), bias.node()];
            let [values, atoms, bias] = [values, atoms, bias].map(|tensor| tensor.into_primitive());
            let codes = B::largest_scores(values.clone(), atoms.clone(), bias, kept);
            match Largest.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish([values, atoms, codes.clone()], codes),
                OpsKind::UnTracked(prepared) => prepared.finish(codes),
            }
        }

        fn few_synthesis(codes: FloatTensor<Self>, atoms: FloatTensor<Self>) -> FloatTensor<Self> {
            let nodes = [codes.node(), atoms.node()];
            let [codes, atoms] = [codes, atoms].map(|tensor| tensor.into_primitive());
            match Synthesis.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    prepared.finish([codes.clone(), atoms.clone()], B::few_synthesis(codes, atoms))
                }
                OpsKind::UnTracked(prepared) => prepared.finish(B::few_synthesis(codes, atoms)),
            }
        }

        fn all_scores(values: FloatTensor<Self>, atoms: FloatTensor<Self>) -> FloatTensor<Self> {
            let nodes = [values.node(), atoms.node()];
            let [values, atoms] = [values, atoms].map(|tensor| tensor.into_primitive());
            match Scores.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    prepared.finish([values.clone(), atoms.clone()], B::all_scores(values, atoms))
                }
                OpsKind::UnTracked(prepared) => prepared.finish(B::all_scores(values, atoms)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::product::product;
    use burn::tensor::{Device, Distribution};

    /// Sparse and dense codes, on the host and on a GPU where there is one: values and gradients are those of dense products.
    #[test]
    fn what_is_sparse_is_what_dense_products_are() {
        equal_on(&crate::device::named(None).unwrap());
        #[cfg(feature = "cube")]
        if let Some(device) = crate::kernels::cube::testing::device() {
            equal_on(&device);
        }
    }

    fn equal_on(device: &Device) {
        #[cfg(feature = "autodiff")]
        let device = &device.clone().autodiff();
        for (rows, units, len, kept) in
            [(9, 300, 45, 0.03), (5, 64, 32, 0.9), (3, 40, 7, 0.0), (1, 130, 1, 0.05), (2, 33_000, 130, 0.002)]
        {
            let random = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Normal(0.0, 1.0), device);
            let chosen = Tensor::<2>::random([rows, units], Distribution::Uniform(0.0, 1.0), device);
            let chosen = chosen.lower_elem(kept).float();
            let (values, encoder, decoder, weights) =
                (random([rows, len]), random([units, len]), random([units, len]), random([rows, len]));
            let close = |found: Tensor<2>, expected: Tensor<2>| {
                let scale: f32 = expected.clone().abs().max().into_scalar();
                let difference: f32 = (found - expected).abs().max().into_scalar();
                assert!(difference <= 1e-5 * scale.max(1.0), "{difference} of {scale}");
            };
            #[cfg(feature = "autodiff")]
            let [values, encoder, decoder] = [values, encoder, decoder].map(Tensor::require_grad);
            let run = |sparse: bool| match sparse {
                true => synthesis(scores(values.clone(), encoder.clone()) * chosen.clone(), decoder.clone()),
                false => {
                    let codes = product(values.clone(), encoder.clone().transpose()) * chosen.clone();
                    product(codes, decoder.clone())
                }
            };
            let alike = |made: [Tensor<2>; 2], weights: &Tensor<2>, sources: &[&Tensor<2>]| {
                let [found, expected] = made.clone();
                close(found, expected);
                #[cfg(feature = "autodiff")]
                {
                    let [found, expected] = made.map(|made| (made * weights.clone()).sum().backward());
                    let of = |source: &Tensor<2>, gradients| source.grad(gradients).unwrap();
                    sources.iter().for_each(|source| close(of(source, &found), of(source, &expected)));
                }
                #[cfg(not(feature = "autodiff"))]
                let _ = (weights, sources);
            };
            alike([run(true), run(false)], &weights, &[&values, &encoder, &decoder]);
            let (kept, bias) = ((units / 8).min(32), random([1, units]));
            #[cfg(feature = "autodiff")]
            let bias = bias.require_grad();
            let of_largest = |fused: bool| match fused {
                true => largest_scores(values.clone(), encoder.clone(), bias.clone().squeeze_dim(0), kept),
                false => {
                    let all = product(values.clone(), encoder.clone().transpose()) + bias.clone();
                    let all = burn::tensor::activation::relu(all);
                    let least = all.clone().detach().topk(kept, 1).min_dim(1).expand([rows, units]);
                    all.clone().mask_fill(all.lower(least), 0.0)
                }
            };
            alike([of_largest(true), of_largest(false)], &random([rows, units]), &[&values, &encoder, &bias]);
        }
    }
}
