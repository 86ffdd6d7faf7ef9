//! What the rivals are made of.

use crate::autoencoder::{Coded, Outcome, TrainingBatch, check_batch};
use crate::device::is_host;
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
use crate::model::leaf;
use crate::model::sparse::to_host;
use crate::random::{Purpose, stream, uniform};
use crate::text::counted;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::MAX_UNITS;

/// Weights uniform in ±1/√fan_in, those of a layer of a seed.
pub(super) fn weights<const D: usize>(
    dims: [usize; D],
    fan_in: usize,
    seed: u64,
    layer: u64,
    device: &Device,
) -> Param<Tensor<D>> {
    let limit = 1.0 / (fan_in as f32).sqrt();
    let values = uniform(&mut stream(seed, Purpose::Weights, layer), dims.iter().product(), limit);
    Param::from_tensor(Tensor::from_data(TensorData::new(values, dims), device))
}

/// Zeros to be learned.
pub(super) fn zeros<const D: usize>(dims: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::zeros(dims, device))
}

/// A dense layer with the weights of a seed and a bias of zero.
pub(super) fn dense(inputs: usize, outputs: usize, seed: u64, layer: u64, device: &Device) -> Linear {
    Linear { weight: weights([inputs, outputs], inputs, seed, layer, device), bias: Some(zeros([outputs], device)) }
}

/// A layer whose encoder and decoder share their weights.
#[derive(Module, Debug)]
pub struct TiedLayer {
    /// W, `[inputs, units]`.
    pub weight: Param<Tensor<2>>,
    /// b, `[units]`.
    pub bias: Param<Tensor<1>>,
    /// b', `[inputs]`.
    pub decoder_bias: Param<Tensor<1>>,
}

impl TiedLayer {
    /// With the weights of a layer of a seed and biases of zero.
    pub(super) fn new(inputs: usize, units: usize, seed: u64, layer: u64, device: &Device) -> Self {
        Self {
            weight: weights([inputs, units], inputs, seed, layer, device),
            bias: zeros([units], device),
            decoder_bias: zeros([inputs], device),
        }
    }

    /// x·W + b: what units are made of, before what makes codes of it.
    pub(super) fn encode(&self, inputs: Tensor<2>) -> Tensor<2> {
        inputs.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }

    /// γ·Wᵀ + b': what codes paint.
    pub(super) fn paint(&self, codes: Tensor<2>) -> Tensor<2> {
        codes.matmul(self.weight.val().transpose()) + self.decoder_bias.val().unsqueeze()
    }
}

/// Inputs and units of layers that lie on each other, on signals of so many values.
pub(super) fn chain(inputs: usize, units: &[usize]) -> impl Iterator<Item = [usize; 2]> {
    [inputs].into_iter().chain(units.iter().copied()).zip(units.iter().copied()).map(|(inputs, units)| [inputs, units])
}

/// Layers of such widths on signals of so many values.
pub(super) fn tied_layers(inputs: usize, units: &[usize], seed: u64, device: &Device) -> Vec<TiedLayer> {
    let layers = chain(inputs, units).enumerate();
    layers.map(|(layer, [inputs, units])| TiedLayer::new(inputs, units, seed, layer as u64, device)).collect()
}

/// Codes of layers that lie on each other, the first one first: what `activation` makes of each layer's values.
pub(super) fn ascend(
    signals: Tensor<4>,
    signal: SignalShape,
    layers: &[TiedLayer],
    activation: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Result<Vec<Tensor<4>>> {
    let signals = rows("signals", signal, signals)?;
    let codes = layers.iter().scan(signals, |below, layer| {
        *below = activation(layer.encode(below.clone()));
        Some(below.clone())
    });
    Ok(codes.map(|codes| shaped(codes.clone(), units_shape(codes.dims()[1]))).collect())
}

/// Shape of the codes of so many units that have no place.
pub(super) fn units_shape(units: usize) -> SignalShape {
    SignalShape::new(units, 1, 1)
}

/// A decoder with the transposed weights of an encoder and a bias of zero.
pub(super) fn transposed(encoder: &Linear, device: &Device) -> Linear {
    let weights = leaf(encoder.weight.val()).transpose();
    let inputs = weights.dims()[1];
    Linear { weight: Param::from_tensor(weights + 0.0), bias: Some(zeros([inputs], device)) }
}

/// Signals as rows, if they have the shape that was expected.
pub(super) fn rows(what: &str, expected: SignalShape, batch: Tensor<4>) -> Result<Tensor<2>> {
    check_batch(what, expected, &batch)?;
    Ok(batch.flatten(1, 3))
}

/// Rows as signals, codes or atoms of that shape.
pub(super) fn shaped(rows: Tensor<2>, shape: SignalShape) -> Tensor<4> {
    let count = rows.dims()[0];
    rows.reshape(shape.batched(count))
}

/// Keeps the `count` largest values along a dimension and zeroes the others; of equal ones all stay.
pub(super) fn keep_largest(values: Tensor<2>, count: usize, dimension: usize) -> Tensor<2> {
    let len = values.dims()[dimension];
    if count >= len {
        return values;
    }
    let threshold = kth_largest(values.clone().detach(), count.max(1), dimension);
    let small = values.clone().lower(threshold.expand(values.dims()));
    values.mask_fill(small, 0.0)
}

/// The value along a dimension that `count − 1` others are at least as large as, for every line.
fn kth_largest(values: Tensor<2>, count: usize, dimension: usize) -> Tensor<2> {
    if count == 1 {
        return values.max_dim(dimension);
    }
    let device = values.device();
    if !is_host(&device) {
        return values.topk(count, dimension).min_dim(dimension);
    }
    // The backends that compute on the host sort all values, on one core.
    let lines = if dimension == 0 { values.transpose() } else { values };
    let [number, len] = lines.dims();
    let mut lines = to_host(lines);
    let found: Vec<f32> = lines
        .par_chunks_exact_mut(len)
        .map(|line| *line.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1)
        .collect();
    let dims = if dimension == 0 { [1, number] } else { [number, 1] };
    Tensor::from_data(TensorData::new(found, dims), &device)
}

/// ½‖y − x‖² of every row, `[n]`.
pub(super) fn half_squared_error(signals: Tensor<2>, painted: Tensor<2>) -> Tensor<1> {
    sum_rows((signals - painted).square()) * 0.5
}

/// Sum of every row, `[n]`.
pub(super) fn sum_rows(values: Tensor<2>) -> Tensor<1> {
    values.sum_dim(1).squeeze_dim(1)
}

/// Rows of codes and of reconstructions, with the loss of each, in the shapes that all rivals speak of.
pub(super) fn outcome(
    loss: Tensor<1>,
    codes: Tensor<2>,
    painted: Tensor<2>,
    code: SignalShape,
    signal: SignalShape,
) -> Outcome {
    Outcome { loss, coded: Coded { codes: shaped(codes, code), reconstruction: shaped(painted, signal) } }
}

/// A parameter divided by the norms of its rows; gradients go on as before.
pub(super) fn unit_rows(weights: Param<Tensor<2>>) -> Param<Tensor<2>> {
    weights.map(|weights| {
        let tracked = weights.is_require_grad();
        let weights = leaf(weights);
        let norms = weights.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
        let unit = weights / norms;
        if tracked { unit.require_grad() } else { unit }
    })
}

/// A number of units in its range.
pub(super) fn check_units(units: usize) -> Result<()> {
    match (1..=MAX_UNITS).contains(&units) {
        true => Ok(()),
        false => Err(Error::parameter("units", units, format!("a number from 1 to {MAX_UNITS}"))),
    }
}

/// A number of layers that take turns in its range.
pub(super) fn check_layers(name: &str, layers: usize) -> Result<()> {
    match (1..=16).contains(&layers) {
        true => Ok(()),
        false => Err(Error::parameter(name, counted(layers, "layer"), "1 to 16 layers")),
    }
}

/// The layer, from 0, that learns when that part of the training is done: evenly divided, from the first to the last.
pub(super) fn turn(progress: f32, layers: usize) -> usize {
    ((progress * layers as f32) as usize).min(layers - 1)
}

/// The part of the training that was done before the step which held-out signals follow: the layer whose turn it was has just learned.
pub(super) fn held_out_progress(batch: &TrainingBatch) -> f32 {
    batch.step.saturating_sub(1) as f32 / batch.steps.max(1) as f32
}

/// A part in (0, 1].
pub(super) fn check_part(name: &str, part: f32) -> Result<()> {
    match part > 0.0 && part <= 1.0 {
        true => Ok(()),
        false => Err(Error::parameter(name, part, "a part in (0, 1]")),
    }
}

/// How many of `len` a part in (0, 1] is: at least one.
pub(super) fn count_of(part: f32, len: usize) -> usize {
    ((f64::from(part) * len as f64 - 1e-6).ceil().max(1.0) as usize).min(len.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

    /// Against sorting, along both dimensions, with equal values among them.
    #[test]
    fn the_largest_stay() {
        let device = device::named(None).unwrap();
        let mut random = stream(3, Purpose::Weights, 0);
        for (rows, columns) in [(1, 7), (5, 1), (6, 40), (33, 5)] {
            // Tenths: some are equal.
            let values: Vec<f32> = uniform(&mut random, rows * columns, 2.0)
                .into_iter()
                .map(|value| (10.0 * value).round() / 10.0)
                .collect();
            let tensor: Tensor<2> = Tensor::from_data(TensorData::new(values.clone(), [rows, columns]), &device);
            for dimension in [0, 1] {
                let (lines, len) = if dimension == 0 { (columns, rows) } else { (rows, columns) };
                let place = |line: usize, index: usize| match dimension {
                    0 => index * columns + line,
                    _ => line * columns + index,
                };
                for count in [1, 2, len / 2, len, len + 1] {
                    let mut expected = values.clone();
                    for line in 0..lines {
                        let mut sorted: Vec<f32> = (0..len).map(|index| values[place(line, index)]).collect();
                        sorted.sort_by(|a, b| b.total_cmp(a));
                        let threshold = sorted[count.clamp(1, len) - 1];
                        for index in 0..len {
                            if values[place(line, index)] < threshold {
                                expected[place(line, index)] = 0.0;
                            }
                        }
                    }
                    let found = to_host(keep_largest(tensor.clone(), count, dimension));
                    assert_eq!(found, expected, "{count} of {rows}x{columns} along {dimension}");
                }
            }
        }
    }
}
