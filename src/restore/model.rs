//! Noise taken off by a whole model: by its pursuit over the whole picture, or by its encoder over windows.
//!
//! The pursuit codes the picture at once, min ½‖y − D^(L)γ‖² + λ‖γ‖₁, with what the model's normalisation splits off put back afterwards; what
//! was the mean of training patches is a smooth component of a whole picture, or, where atoms lie side by side, the mean of each block. Where the dictionaries have strides the codes depend on where the picture begins: all shifts are coded and averaged, which comes near the
//! mean over all sparse explanations (D. Simon, M. Elad, "Rethinking the CSC model for natural images", NeurIPS 2019).
//!
//! An encoder that was trained to take noise off sees windows of the size that it was trained on, which overlap and are averaged with weights
//! that vanish at their borders.

use super::patches::reflected;
use super::{Picture, colours};
use crate::autoencoder::{Autoencoder, SparseAutoencoder};
use crate::error::{Error, Result};
use crate::geometry::{Overlapping, SignalShape};
use crate::kernels::sparse::to_host;
use crate::model::normalization::Normalization;
use crate::model::{Mlcsc, OperatorForm};
use crate::pursuit::{Algorithm, BasisPursuitConfig, Convergence, Lambda, Observer, Problem, solve_in_parts};
use burn::tensor::{Tensor, TensorData};
use std::sync::atomic::{AtomicU32, Ordering};

/// λ in standard deviations of the noise, for atoms of unit norm: where they begin at every pixel, so that many of them could each explain a piece
/// of noise, and where they lie side by side.
const LAMBDA: f32 = 2.5;
const LAMBDA_OF_BLOCKS: f32 = 2.0;

/// The relative duality gap at which the pursuit over a picture ends, and its most iterations.
const GAP: f32 = 1e-3;
const MAX_ITERATIONS: usize = 10_000;

/// Values of signals and codes in one batch.
const BATCH: usize = 1 << 24;

/// A picture without noise, and how its pursuits ended, if there were any.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// The picture.
    pub picture: Picture,
    /// How many pursuits came to their gap.
    pub convergence: Convergence,
    /// What the pursuits reached of their objectives, all added up, and what no codes can be below: by duality. In the model's units.
    pub objective: Option<[f64; 2]>,
}

/// Takes noise of standard deviation `sigma` off by a basis pursuit of the whole picture over a model's effective atoms, averaged over all
/// shifts where there are strides. `None` where `progress` says so.
///
/// # Errors
/// A model for another number of channels, unless it has one; shapes that the model cannot take; σ or values that are not finite.
pub fn by_pursuit(
    picture: &Picture,
    model: &Mlcsc,
    sigma: f32,
    nonnegative: bool,
    progress: impl Fn(f32) -> bool + Sync,
) -> Result<Option<Denoised>> {
    if !(sigma.is_finite() && sigma >= 0.0) {
        return Err(Error::parameter("sigma", sigma, "a finite standard deviation ≥ 0"));
    }
    picture.check_values(|_| true)?;
    let atoms = model.effective_filters(model.depth()).dims();
    let channels = channels_of(picture, atoms[1])?;
    let kernel = [atoms[2], atoms[3]];
    let layers = model.config().layers.iter().map(|layer| layer.stride.0);
    let stride = layers.fold([1, 1], |all, layer| [all[0] * layer[0], all[1] * layer[1]]);
    // Every pixel is in as many atoms as one in the middle of the picture, wherever the atoms begin.
    let extent = |len: usize, axis: usize| {
        let least = len + 2 * (kernel[axis] - 1) + stride[axis] - 1;
        kernel[axis] + (least - kernel[axis]).div_ceil(stride[axis]) * stride[axis]
    };
    let [height, width] = [extent(picture.height, 0), extent(picture.width, 1)];
    let shape = SignalShape::new(channels, height, width);
    let operator = model.operator(shape, OperatorForm::Auto)?;
    let mut config = model.config().clone();
    let of_each = !matches!(config.normalization, Normalization::None | Normalization::HighPass);
    let blocks = of_each && stride == kernel;
    if of_each {
        config.normalization = if blocks { Normalization::None } else { Normalization::HighPass };
    }
    let normalizer = config.normalizer();
    let lambda = Lambda::Absolute(sigma * if stride == kernel { LAMBDA_OF_BLOCKS } else { LAMBDA });
    let basis = BasisPursuitConfig { gap: GAP, max_iterations: MAX_ITERATIONS, nonnegative };
    let pursuit = Algorithm::Auto.init(&basis, &operator)?;
    let rotated = if channels == 1 { colours::rotated(picture) } else { picture.clone() };
    let shifts: Vec<[usize; 2]> = (0..stride[0] * stride[1]).map(|at| [at / stride[1], at % stride[1]]).collect();
    // Between atoms that lie apart is nothing: a pixel is in atoms of so many of the shifts, wherever it is.
    let covered = |row: usize, column: usize| row % stride[0] < kernel[0] && column % stride[1] < kernel[1];
    let times = stride[0].min(kernel[0]) * stride[1].min(kernel[1]);
    let mut sums = vec![0.0; picture.values.len()];
    let mut convergence = Convergence::default();
    let mut objective = [0.0; 2];
    let at_once = (BATCH / shape.len().max(operator.code().len())).clamp(1, 16);
    let groups = picture.channels / channels;
    for (index, some) in shifts.chunks(at_once).enumerate() {
        for group in 0..groups {
            let start = [0, 1].map(|axis| kernel[axis] as isize - 1);
            let mut values = Vec::with_capacity(some.len() * shape.len());
            for shift in some {
                for channel in group * channels..(group + 1) * channels {
                    let plane = &rotated.values[channel * rotated.pixels()..][..rotated.pixels()];
                    for row in 0..height as isize {
                        let row = reflected(row - start[0] - shift[0] as isize, picture.height);
                        values.extend((0..width as isize).map(|column| {
                            let column = reflected(column - start[1] - shift[1] as isize, picture.width);
                            plane[row * picture.width + column]
                        }));
                    }
                }
            }
            let means = if blocks { without_means(&mut values, [height, width], kernel) } else { Vec::new() };
            let signals = TensorData::new(values, shape.batched(some.len()));
            let (signals, undo) = normalizer.apply(Tensor::from_data(signals, &model.device()));
            let problem = Problem::new(&operator, signals)?.with_lambda(lambda.clone())?;
            let part = 1.0 / (shifts.len().div_ceil(at_once) * groups) as f32;
            let hears = Hears {
                tell: &progress,
                from: (index * groups + group) as f32 * part,
                part,
                last: AtomicU32::default(),
            };
            let found = match solve_in_parts(&*pursuit, &problem.with_observer(&hears)) {
                Err(Error::Interrupted(_)) => return Ok(None),
                found => found?,
            };
            convergence.add(&found.reports);
            for report in &found.reports {
                let reached = f64::from(report.objective);
                objective[0] += reached;
                objective[1] += reached * (1.0 - f64::from(report.relative_gap));
            }
            let mut made = to_host(undo.undo(operator.synthesize(found.codes)));
            made.iter_mut().zip(&means).for_each(|(value, mean)| *value += mean);
            for (made, shift) in made.chunks_exact(shape.len()).zip(some) {
                for (channel, plane) in made.chunks_exact(height * width).enumerate() {
                    let out = &mut sums[(group * channels + channel) * picture.pixels()..][..picture.pixels()];
                    for (row, line) in out.chunks_exact_mut(picture.width).enumerate() {
                        let [row, first] = [row + kernel[0] - 1 + shift[0], kernel[1] - 1 + shift[1]];
                        let made = plane[row * width + first..].iter().enumerate();
                        for (sum, (column, value)) in line.iter_mut().zip(made) {
                            *sum += if covered(row, first + column) { *value } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
    sums.iter_mut().for_each(|sum| *sum /= times as f32);
    let found = Picture { values: sums, ..*picture };
    let picture = if channels == 1 { colours::rotated_back(&found) } else { found };
    Ok(Some(Denoised { picture, convergence, objective: Some(objective) }))
}

/// Takes the mean of every block off planes that consist of blocks; returns what was taken off.
fn without_means(values: &mut [f32], [height, width]: [usize; 2], block: [usize; 2]) -> Vec<f32> {
    let mut means = vec![0.0; values.len()];
    for (plane, means) in values.chunks_exact_mut(height * width).zip(means.chunks_exact_mut(height * width)) {
        for (top, left) in
            (0..height).step_by(block[0]).flat_map(|top| (0..width).step_by(block[1]).map(move |left| (top, left)))
        {
            let lines = || (top..top + block[0]).map(|row| row * width + left..row * width + left + block[1]);
            let sum: f32 = lines().map(|line| plane[line].iter().sum::<f32>()).sum();
            let mean = sum / (block[0] * block[1]) as f32;
            for line in lines() {
                plane[line.clone()].iter_mut().for_each(|value| *value -= mean);
                means[line].fill(mean);
            }
        }
    }
    means
}

/// Hears how far one of several pursuits is, and tells it of them all.
struct Hears<'a> {
    tell: &'a (dyn Fn(f32) -> bool + Sync),
    from: f32,
    part: f32,
    /// Bits of what was told last.
    last: AtomicU32,
}

impl std::fmt::Debug for Hears<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Hears").field("from", &self.from).field("part", &self.part).finish_non_exhaustive()
    }
}

impl Observer for Hears<'_> {
    fn is_cancelled(&self) -> bool {
        !(self.tell)(self.from + self.part * f32::from_bits(self.last.load(Ordering::Relaxed)))
    }

    fn progress(&self, done: f64) {
        self.last.store((done as f32).to_bits(), Ordering::Relaxed);
    }
}

/// Channels that are coded together.
fn channels_of(picture: &Picture, channels: usize) -> Result<usize> {
    if channels == 1 || channels == picture.channels {
        return Ok(channels);
    }
    Err(Error::shape("channels of the picture", format!("{channels}, as the model's"), picture.channels))
}

/// Takes noise off by an encoder that was trained to, window by window. `None` where `progress` says so.
///
/// # Errors
/// A network for another number of channels, unless it has one; values that are not finite.
pub fn by_network(
    picture: &Picture,
    network: &SparseAutoencoder,
    mut progress: impl FnMut(f32) -> bool,
) -> Result<Option<Picture>> {
    picture.check_values(|_| true)?;
    let shape = network.signal();
    let channels = channels_of(picture, shape.channels)?;
    let ready = network.prepare(shape)?;
    let device = network.device();
    let step = Overlapping::step_of([shape.height, shape.width]);
    // Windows begin beyond the borders, so that pixels there are in the middle of some, too.
    let starts = |len: usize, window: usize, step: usize| -> Vec<isize> {
        let first = step as isize - window as isize;
        (0..).map(|index| first + (index * step) as isize).take_while(|start| *start < len as isize).collect()
    };
    let (tops, lefts) = (starts(picture.height, shape.height, step[0]), starts(picture.width, shape.width, step[1]));
    let (down, across) = (Overlapping::weights(shape.height), Overlapping::weights(shape.width));
    let rotated = if channels == 1 { colours::rotated(picture) } else { picture.clone() };
    let (mut sums, mut weights) = (vec![0.0f32; picture.values.len()], vec![0.0f32; picture.values.len()]);
    let windows: Vec<(usize, isize, isize)> = (0..picture.channels / channels)
        .flat_map(|group| tops.iter().map(move |top| (group, *top)))
        .flat_map(|(group, top)| lefts.iter().map(move |left| (group, top, *left)))
        .collect();
    let at_once = (BATCH / 8 / shape.len().max(network.code().len())).clamp(1, 1024);
    for (index, batch) in windows.chunks(at_once).enumerate() {
        let mut values = Vec::with_capacity(batch.len() * shape.len());
        for &(group, top, left) in batch {
            for channel in group * channels..(group + 1) * channels {
                let plane = &rotated.values[channel * rotated.pixels()..][..rotated.pixels()];
                for row in 0..shape.height as isize {
                    let row = reflected(top + row, picture.height);
                    let columns = (0..shape.width as isize).map(|column| reflected(left + column, picture.width));
                    values.extend(columns.map(|column| plane[row * picture.width + column]));
                }
            }
        }
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(batch.len())), &device);
        let made = to_host(ready.reconstruct(signals)?.reconstruction);
        for (made, &(group, top, left)) in made.chunks_exact(shape.len()).zip(batch) {
            for (channel, plane) in made.chunks_exact(shape.height * shape.width).enumerate() {
                let start = (group * channels + channel) * picture.pixels();
                for (row, line) in plane.chunks_exact(shape.width).enumerate() {
                    let Some(place) = within(top, row, picture.height) else { continue };
                    for (column, value) in line.iter().enumerate() {
                        if let Some(column_place) = within(left, column, picture.width) {
                            let (at, weight) =
                                (start + place * picture.width + column_place, down[row] * across[column]);
                            sums[at] += weight * value;
                            weights[at] += weight;
                        }
                    }
                }
            }
        }
        if !progress((((index + 1) * at_once) as f32 / windows.len().max(1) as f32).min(1.0)) {
            return Ok(None);
        }
    }
    sums.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum /= weight);
    let found = Picture { values: sums, ..*picture };
    Ok(Some(if channels == 1 { colours::rotated_back(&found) } else { found }))
}

/// A place of a window that begins at `start`, if it is in the picture.
fn within(start: isize, place: usize, len: usize) -> Option<usize> {
    usize::try_from(start + place as isize).ok().filter(|place| *place < len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoencoder::{EncoderWeights, SparseAutoencoderConfig};
    use crate::geometry::LayerShape;
    use crate::model::ModelConfig;

    /// The orthonormal cosines of blocks of 4×4: whatever is coded by them without a penalty comes back.
    fn cosines(stride: usize, normalization: Normalization) -> Mlcsc {
        let device = crate::device::named(Some("flex")).unwrap();
        let wave = |order: usize, place: usize| {
            let scale = if order == 0 { 0.25f32.sqrt() } else { 0.5f32.sqrt() };
            scale * (std::f32::consts::PI * (place as f32 + 0.5) * order as f32 / 4.0).cos()
        };
        let values: Vec<f32> = (0..256).map(|at| wave(at / 64, at % 16 / 4) * wave(at / 16 % 4, at % 4)).collect();
        let layer = LayerShape::new(16, 4, stride);
        let mut config = ModelConfig::new(SignalShape::new(1, 4, 4), vec![layer]);
        config.normalization = normalization;
        let filters = Tensor::from_data(TensorData::new(values, [16, 1, 4, 4]), &device);
        Mlcsc::from_filters(config, vec![filters]).unwrap()
    }

    fn picture(channels: usize) -> Picture {
        let values = (0..channels * 11 * 14).map(|at| ((at * 7919) % 101) as f32 / 101.0).collect();
        Picture::new(channels, 11, 14, values).unwrap()
    }

    fn apart(a: &Picture, b: &Picture) -> f32 {
        a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Every pixel comes back to its place, whatever the stride, in grey and in colour, and with means that are not coded.
    #[test]
    fn without_noise_the_picture_comes_back() {
        use Normalization::{Center, None};
        for (stride, channels, normalization) in
            [(4, 1, None), (4, 1, Center), (2, 1, None), (2, 1, Center), (1, 3, None), (5, 1, None), (6, 1, Center)]
        {
            let (picture, model) = (picture(channels), cosines(stride, normalization));
            let found = by_pursuit(&picture, &model, 1e-4, false, |_| true).unwrap().unwrap();
            assert!(apart(&found.picture, &picture) < 0.01, "{stride}: {}", apart(&found.picture, &picture));
            assert!(found.convergence.of >= stride * stride * channels, "{:?}", found.convergence);
            // With a penalty worth the name what is reached is certain to be near the least there is.
            let found = by_pursuit(&picture, &model, 0.05, false, |_| true).unwrap().unwrap();
            let [reached, bound] = found.objective.unwrap();
            assert!(bound > 0.0 && bound <= reached && reached - bound <= 1e-3 * reached, "{reached} {bound}");
            assert_eq!(found.convergence.above, 0);
        }
        let config = SparseAutoencoderConfig::new(cosines(4, None).config().clone())
            .with_weights(EncoderWeights::Tied)
            .with_nonnegative(false)
            .with_lambda(1e-4);
        let network = config.init_from(&cosines(4, None)).unwrap();
        for channels in [1, 3] {
            let found = by_network(&picture(channels), &network, |_| true).unwrap().unwrap();
            assert!(apart(&found, &picture(channels)) < 0.01, "{}", apart(&found, &picture(channels)));
        }
        assert!(by_network(&picture(1), &network, |_| false).unwrap().is_none());
    }

    #[test]
    fn a_model_for_other_channels_is_refused() {
        let device = crate::device::named(Some("flex")).unwrap();
        let config = ModelConfig::new(SignalShape::new(3, 4, 4), vec![LayerShape::new(2, 4, 4)]);
        let filters = Tensor::ones([2, 3, 4, 4], &device);
        let model = Mlcsc::from_filters(config, vec![filters]).unwrap();
        let error = by_pursuit(&picture(1), &model, 0.1, false, |_| true).unwrap_err().to_string();
        assert!(error.contains("3, as the model's"), "{error}");
    }
}
