//! Patches of windows, averaged as restoring a picture averages them.
//!
//! Overlapping patches are put where they were cut by a synthesis whose atoms are the unit pulses of a patch, and divided by the sum of
//! their weights. So gradients of what a window becomes reach every patch of it.

use crate::error::Result;
use crate::geometry::{LayerShape, Overlapping, Pair, SignalShape};
use crate::model::{ModelConfig, Operator, OperatorForm};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// What sums of weighted patches are multiplied by along an axis to become averages. Places near the borders lie in fewer patches than they
/// would in a picture; they do not count and get 0.
fn shares(overlapping: &Overlapping, axis: usize, weights: &[f32]) -> Vec<f32> {
    let (step, count, extent) = (overlapping.step[axis], overlapping.counts[axis], overlapping.window()[axis]);
    let mut cover = vec![0.0f32; extent];
    for patch in 0..count {
        cover[patch * step..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
    }
    // All patches that a pixel can lie in begin less than a patch before it, and end within the window.
    let whole = weights.len() - step..=extent - weights.len() + step - 1;
    let share = |(place, cover): (usize, f32)| if whole.contains(&place) { cover.recip() } else { 0.0 };
    cover.into_iter().enumerate().map(share).collect()
}

/// Averages the patches of windows, `[windows · patches, channels, height, width]`.
pub(super) struct Averaging {
    overlapping: Overlapping,
    channels: usize,
    pulses: Operator,
    /// Weights of a patch, `[1, 1, height, width]`.
    weights: Tensor<4>,
    /// What windows are multiplied by for pixels that count to have an average and others 0, `[1, 1, window height, window width]`.
    share: Tensor<4>,
    /// Pixels of a window that count.
    counted: usize,
}

impl Averaging {
    /// For patches of that many channels.
    ///
    /// # Errors
    /// None for patches that fill their window.
    pub fn new(overlapping: Overlapping, channels: usize, device: &Device) -> Result<Self> {
        let Overlapping { patch: [height, width], step, .. } = overlapping;
        let [rows, columns] = overlapping.window();
        let len = channels * height * width;
        let layer = LayerShape::new(len, Pair([height, width]), Pair(step));
        let geometry = ModelConfig::new(SignalShape::new(channels, rows, columns), vec![layer]).geometry()?;
        let pulses = Tensor::<2>::eye(len, device).reshape([len, channels, height, width]);
        let pulses = Operator::from_filters(vec![pulses], vec![step], geometry, OperatorForm::Auto)?;
        let (down, across) = (Overlapping::weights(height), Overlapping::weights(width));
        let weights: Vec<f32> = down.iter().flat_map(|down| across.iter().map(move |across| down * across)).collect();
        let [vertical, horizontal] =
            [(0, &down), (1, &across)].map(|(axis, weights)| shares(&overlapping, axis, weights));
        let share: Vec<f32> =
            vertical.iter().flat_map(|down| horizontal.iter().map(move |across| down * across)).collect();
        let counted = share.iter().filter(|share| **share > 0.0).count();
        Ok(Self {
            overlapping,
            channels,
            pulses,
            weights: Tensor::from_data(TensorData::new(weights, [1, 1, height, width]), device),
            share: Tensor::from_data(TensorData::new(share, [1, 1, rows, columns]), device),
            counted,
        })
    }

    /// Patches of a window.
    pub fn together(&self) -> usize {
        self.overlapping.count()
    }

    /// Windows of averaged patches, 0 where pixels don't count: `[windows, channels, window height, window width]`.
    fn averaged(&self, patches: Tensor<4>) -> Tensor<4> {
        let windows = (patches.dims()[0] / self.overlapping.count()) as i32;
        let [down, across] = self.overlapping.counts.map(|count| count as i32);
        let codes = (patches * self.weights.clone()).reshape([windows, down, across, -1]).permute([0, 3, 1, 2]);
        self.pulses.synthesize(codes) * self.share.clone()
    }

    /// Half the squared error of every patch's window, `[patches]`, where `errors` are those of the patches: the mean over pixels that
    /// count, times those of a patch.
    pub fn loss(&self, errors: Tensor<4>) -> Tensor<1> {
        let [count, _, height, width] = errors.dims();
        let each = self.overlapping.count();
        let windows = count / each;
        let squares = self.averaged(errors).square().reshape([windows as i32, -1]).sum_dim(1);
        let scale = 0.5 * (height * width) as f32 / self.counted as f32;
        (squares * scale).expand([windows, each]).reshape([-1])
    }

    /// White noise on windows, their standard deviations drawn evenly from a range, as patches have it.
    pub fn noise(&self, windows: usize, range: [f32; 2], mut random: impl Rng) -> Vec<f32> {
        let Overlapping { patch: [height, width], .. } = self.overlapping;
        let [rows, columns] = self.overlapping.window();
        let mut patches = Vec::with_capacity(windows * self.overlapping.count() * self.channels * height * width);
        for _ in 0..windows {
            let noise = noise_on(self.channels * rows * columns, range, &mut random);
            for [top, left] in self.overlapping.places() {
                for line in (0..self.channels).flat_map(|channel| (0..height).map(move |row| channel * rows + row)) {
                    patches.extend_from_slice(&noise[(line + top) * columns + left..][..width]);
                }
            }
        }
        patches
    }
}

/// White noise on a signal of that many values, its standard deviation drawn evenly from a range.
pub(super) fn noise_on(len: usize, [least, most]: [f32; 2], random: &mut impl Rng) -> Vec<f32> {
    let sigma = least + (most - least) * random.random::<f32>();
    (0..len).map(|_| sigma * random.sample::<f32, _>(StandardNormal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::sparse::to_host;
    use crate::random::{Purpose, stream};

    /// Patches cut from windows average to the windows, noise as well; the loss of an error that is everywhere the same is half its square.
    #[test]
    fn patches_of_a_window_average_to_it() {
        let device = crate::device::named(Some("flex")).unwrap();
        for (window, patch) in [([17, 20], [5, 8]), ([9, 9], [3, 3]), ([1, 40], [1, 16]), ([21, 14], [7, 8])] {
            let overlapping = Overlapping::new(window, patch).unwrap();
            assert_eq!(overlapping.window(), window);
            let averaging = Averaging::new(overlapping, 2, &device).unwrap();
            let noise = |seed| averaging.noise(3, [1.0, 2.0], stream(seed, Purpose::Noise, 0));
            let dims = [3 * overlapping.count(), 2, patch[0], patch[1]];
            let patches = Tensor::<4>::from_data(TensorData::new(noise(1), dims), &device);
            let whole = to_host(averaging.averaged(patches.clone()));
            let mut random = stream(1, Purpose::Noise, 0);
            let wanted: Vec<f32> =
                (0..3).flat_map(|_| noise_on(2 * window[0] * window[1], [1.0, 2.0], &mut random)).collect();
            let share = to_host(averaging.share.clone());
            let mut seen = 0;
            for (at, (found, wanted)) in whole.iter().zip(&wanted).enumerate() {
                let counts = share[at % share.len()] > 0.0;
                seen += usize::from(counts);
                assert!((found - if counts { *wanted } else { 0.0 }).abs() < 1e-5, "{window:?} {at}: {found} {wanted}");
            }
            // Whoever could lie in as many patches as in the middle of an endless picture does.
            let inner = |axis: usize| window[axis] - 2 * (patch[axis] - overlapping.step[axis]);
            assert_eq!((seen, averaging.counted), (6 * averaging.counted, inner(0) * inner(1)));
            let loss = to_host(averaging.loss(patches.zeros_like() + 0.5));
            let expected = 0.125 * 2.0 * (patch[0] * patch[1]) as f32;
            assert!(loss.len() == dims[0] && loss.iter().all(|loss| (loss - expected).abs() < 1e-4 * expected));
        }
    }
}
