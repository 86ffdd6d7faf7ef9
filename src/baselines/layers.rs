//! What the rivals are made of.

use crate::autoencoder::{Coded, Outcome, TrainingBatch, check_batch};
use crate::data::Source;
use crate::device::is_host;
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::product::product;
use crate::kernels::sparse::{norm, to_host};
use crate::model::leaf;
use crate::random::{Purpose, stream, uniform};
use crate::text::counted;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
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
        product(inputs, self.weight.val()) + self.bias.val().unsqueeze()
    }

    /// γ·Wᵀ + b': what codes synthesise.
    pub(super) fn synthesize(&self, codes: Tensor<2>) -> Tensor<2> {
        product(codes, self.weight.val().transpose()) + self.decoder_bias.val().unsqueeze()
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
pub(super) fn half_squared_error(signals: Tensor<2>, synthesized: Tensor<2>) -> Tensor<1> {
    sum_rows((signals - synthesized).square()) * 0.5
}

/// Sum of every row, `[n]`.
pub(super) fn sum_rows(values: Tensor<2>) -> Tensor<1> {
    values.sum_dim(1).squeeze_dim(1)
}

/// Rows of codes and of reconstructions, with the loss of each, in the shapes that all rivals speak of.
pub(super) fn outcome(
    loss: Tensor<1>,
    codes: Tensor<2>,
    synthesized: Tensor<2>,
    code: SignalShape,
    signal: SignalShape,
) -> Outcome {
    Outcome { loss, coded: Coded { codes: shaped(codes, code), reconstruction: shaped(synthesized, signal) } }
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

/// Rows of unit norm, as a function of the rows: gradients lose the part along them, which a projection would take back.
pub(super) fn normalized_rows(weights: Tensor<2>) -> Tensor<2> {
    let norms = weights.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
    weights / norms
}

/// A parameter whose values were changed on the host; gradients go on as before.
pub(super) fn edited<const D: usize>(weights: Param<Tensor<D>>, edit: impl FnOnce(&mut [f32])) -> Param<Tensor<D>> {
    weights.map(|weights| {
        let tracked = weights.is_require_grad();
        let weights = leaf(weights);
        let (dims, device, mut values) = (weights.dims(), weights.device(), to_host(weights));
        edit(&mut values);
        let new = Tensor::from_data(TensorData::new(values, dims), &device);
        if tracked { new.require_grad() } else { new }
    })
}

/// A bias −Wᵀm of units on signals around m, so that they are as active as without bias on signals around zero.
///
/// # Shapes
/// - bias: `[units]`; weights: `[inputs, units]`; middle: `[inputs]`.
pub(super) fn centred_bias(bias: Param<Tensor<1>>, weights: Tensor<2>, middle: &[f32]) -> Param<Tensor<1>> {
    let [_, units] = weights.dims();
    let weights = to_host(weights);
    edited(bias, |values| {
        let mut sums = vec![0.0f64; units];
        for (row, middle) in weights.chunks_exact(units).zip(middle) {
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += f64::from(*weight) * f64::from(*middle));
        }
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = -sum as f32);
    })
}

/// Most signals that the middle of all is taken from, and most values of them.
const MEDIAN_SIGNALS: usize = 1024;
const MEDIAN_VALUES: usize = 1 << 24;

/// Steps to the geometric median; each brings it closer by a constant factor.
const MEDIAN_STEPS: usize = 30;

/// Some of the signals of a source, evenly spaced, one after the other.
pub(super) fn sample(source: &dyn Source) -> Result<Vec<f32>> {
    let (count, len) = (source.len(), source.shape().len());
    let taken = MEDIAN_SIGNALS.min(MEDIAN_VALUES / len.max(1)).clamp(1, count.max(1));
    let indices: Vec<usize> = (0..taken.min(count)).map(|index| index * count / taken).collect();
    let mut values = vec![0.0; indices.len() * len];
    source.read(&indices, &mut values)?;
    Ok(values)
}

/// The point from which the sum of the distances to signals of so many values is least (E. Weiszfeld, 1937): a mean that
/// outlying signals do not draw away.
pub(super) fn geometric_median(signals: &[f32], len: usize) -> Vec<f32> {
    let rows = || signals.chunks_exact(len);
    let mean = |weights: &[f64]| -> Vec<f64> {
        let total: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut sum = vec![0.0; len];
        for (row, weight) in rows().zip(weights) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value) / total);
        }
        sum
    };
    let mut middle = mean(&vec![1.0; rows().len()]);
    for _ in 0..MEDIAN_STEPS {
        let distances = rows().map(|row| {
            let squares = row.iter().zip(&middle).map(|(value, middle)| (f64::from(*value) - middle).powi(2));
            squares.sum::<f64>().sqrt()
        });
        // A signal that lies there has no say in where to go.
        let weights: Vec<f64> = distances.map(|distance| if distance > 1e-9 { 1.0 / distance } else { 0.0 }).collect();
        if weights.iter().all(|weight| *weight == 0.0) {
            break;
        }
        middle = mean(&weights);
    }
    middle.into_iter().map(|value| value as f32).collect()
}

/// The median of every channel's values.
pub(super) fn channel_medians(signals: &[f32], shape: SignalShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    let median = |channel: usize| {
        let planes = signals.chunks_exact(plane).skip(channel).step_by(shape.channels);
        let mut values: Vec<f32> = planes.flatten().copied().collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable_by(middle, f32::total_cmp).1
    };
    (0..shape.channels).map(median).collect()
}

/// A signal that is represented badly, for a unit to start again from.
pub(super) struct Seed {
    /// Its place in the batch.
    pub signal: usize,
    /// What it leaves over, divided by its norm.
    pub direction: Vec<f32>,
    /// That norm.
    pub error: f32,
}

/// Up to `count` signals of a batch, drawn without replacement in proportion to the squares of their squared errors (T. Bricken et
/// al., "Towards Monosemanticity: Decomposing Language Models With Dictionary Learning", 2023), with what each leaves over.
///
/// # Shapes
/// - left_over: `[n, values]`, the signals less their reconstructions.
pub(super) fn seeds(left_over: Tensor<2>, count: usize, batch: &TrainingBatch) -> Vec<Seed> {
    let len = left_over.dims()[1];
    let values = to_host(left_over);
    let errors: Vec<f32> = values.chunks_exact(len).map(norm).collect();
    let largest = errors.iter().fold(0.0f32, |a, b| a.max(*b));
    let mut generator = stream(batch.seed, Purpose::Reseeding, batch.step as u64);
    // The largest of ln(u)/weight are a sample without replacement (P. Efraimidis, P. Spirakis, 2006).
    let mut drawn: Vec<(f64, usize)> = Vec::new();
    for (signal, &error) in errors.iter().enumerate() {
        let uniform = 1.0 - f64::from(generator.random::<f32>());
        if error > 0.0 && error.is_finite() {
            let weight = f64::from(error / largest).powi(4).max(1e-200);
            drawn.push((uniform.max(1e-12).ln() / weight, signal));
        }
    }
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    drawn.truncate(count);
    let seed = |(_, signal): (f64, usize)| {
        let error = errors[signal];
        Seed { signal, direction: values[signal * len..][..len].iter().map(|value| value / error).collect(), error }
    };
    drawn.into_iter().map(seed).collect()
}

/// The mean norm of the lines of a matrix that are not among `but`, 1 where there are no others or all are zero. Line `i` has
/// the values `i·stride + j·step`, j < len.
pub(super) fn mean_norm(values: &[f32], lines: usize, but: &[usize], columns: bool) -> f32 {
    let len = values.len() / lines.max(1);
    let mut squares = vec![0.0f64; lines];
    for (index, value) in values.iter().enumerate() {
        let line = if columns { index % lines } else { index / len };
        squares[line] += f64::from(*value) * f64::from(*value);
    }
    but.iter().for_each(|&line| squares[line] = 0.0);
    let living: Vec<f64> = squares.into_iter().filter(|square| *square > 0.0).map(f64::sqrt).collect();
    if living.is_empty() { 1.0 } else { (living.iter().sum::<f64>() / living.len() as f64) as f32 }
}

/// Length of the encoder's weights of a unit that starts again, as a part of the others' mean: little, so that it disturbs little
/// (T. Bricken et al., 2023).
pub(super) const RESEEDED_LENGTH: f32 = 0.2;

/// An encoder's weights and biases with units started again, each in the direction of its seed and as long as `length` of the mean of
/// the others, and active for its seed's signal at least as strongly as is left over of it. Units that compete get no bias for that:
/// by it they would win for every signal, leave more over than there was, and get a larger one the next time.
///
/// # Shapes
/// - weights: `[inputs, units]` with `columns`, else `[units, inputs]`; bias: `[units]`; inputs: `[n, inputs]`, less what the encoder takes
///   off before its weights; middle: `[inputs]`, where units whose bias is free are not active.
pub(super) fn reseeded_encoder(
    (weights, bias): (Param<Tensor<2>>, Param<Tensor<1>>),
    columns: bool,
    (units, seeds): (&[usize], &[Seed]),
    length: f32,
    compete: bool,
    (inputs, middle): (Tensor<2>, Tensor<1>),
) -> (Param<Tensor<2>>, Param<Tensor<1>>) {
    let [rows, count] = weights.dims();
    let (lines, len) = if columns { (count, rows) } else { (rows, count) };
    let (inputs, middle) = (to_host(inputs), to_host(middle));
    let mut scale = 1.0;
    let weights = edited(weights, |values| {
        scale = length * mean_norm(values, lines, units, columns);
        for (&unit, seed) in units.iter().zip(seeds) {
            for (index, value) in seed.direction.iter().enumerate() {
                values[if columns { index * lines + unit } else { unit * len + index }] = scale * value;
            }
        }
    });
    let bias = edited(bias, |values| {
        for (&unit, seed) in units.iter().zip(seeds) {
            let product = |values: &[f32]| values.iter().zip(&seed.direction).map(|(a, b)| a * b).sum::<f32>();
            let needed = seed.error - product(&inputs[seed.signal * len..][..len]);
            let silent = -product(&middle);
            values[unit] = scale * if compete { silent } else { needed.max(silent) };
        }
    });
    (weights, bias)
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

/// Whether the last of layers that take turns has learned when that part of the training is done.
pub(super) fn is_last_turn(progress: f32, layers: usize) -> bool {
    layers == 1 || progress * layers as f32 > (layers - 1) as f32
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

    /// Units that compete are silent in the middle of signals; others get what makes them as active as their seed leaves over.
    #[test]
    fn units_that_compete_get_no_bias_for_their_seed() {
        let device = device::named(None).unwrap();
        let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
        for (compete, expected) in [(true, -0.5), (false, 4.0)] {
            let weights = Param::from_tensor(tensor(&[0.0, 0.0, 0.0, 0.0, 3.0, 4.0]).reshape([2, 3]));
            let seeds = [Seed { signal: 0, direction: vec![1.0, 0.0, 0.0], error: 5.0 }];
            let (inputs, middle) = (tensor(&[1.0, 2.0, 2.0]).reshape([1, 3]), tensor(&[0.5, 0.0, 0.0]));
            let bias = Param::from_tensor(tensor(&[0.0, 0.25]));
            let started = reseeded_encoder((weights, bias), false, (&[0], &seeds), 0.2, compete, (inputs, middle));
            // A fifth of the other's length, which is 5.
            assert_eq!(to_host(started.0.val()), [1.0, 0.0, 0.0, 0.0, 3.0, 4.0]);
            assert_eq!(to_host(started.1.val()), [expected, 0.25]);
        }
    }

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
