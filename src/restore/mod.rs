//! Pictures restored: noise taken off, missing pixels filled in, blur and loss of size undone.
//!
//! A picture is cut into overlapping patches, each of which is a sparse combination of the atoms of a dictionary, and put together
//! again as the mean of what the patches say of every pixel (M. Elad, M. Aharon, "Image denoising via sparse and redundant
//! representations over learned dictionaries", IEEE Trans. Image Processing 15(12), 2006). A patch takes as many atoms as it needs until
//! its residual is as large as the noise alone would be. In a second pass patches that are alike are coded together, by one support
//! for all (J. Mairal, F. Bach, J. Ponce, G. Sapiro, A. Zisserman, "Non-local sparse models for image restoration", ICCV 2009), where
//! "alike" is judged on the outcome of the first: noise that differs from patch to patch finds no atoms in common. Two more passes
//! estimate groups of patches as draws of one normal distribution, which the pass before has shown (`alike`).
//!
//! The mean of a patch, channel by channel, is no business of the atoms: it is taken off before and put back afterwards.
//!
//! Missing pixels are never read. They are first filled by the surface that bends least; then groups of patches are estimated from their known
//! pixels alone, again and again. A picture that was blurred or reduced is looked for among those that fit what was seen, between
//! rounds that take noise off (`inverse`); see [`Observation`].
//!
//! Colours are rotated into a grey and two colour axes. A dictionary with one channel codes these one by one, with groups that are found
//! on the grey; noise that red, green and blue share lies on the grey alone then, where it is measured. A dictionary with three channels
//! codes colours as they are.

mod alike;
mod conjugate;
mod dictionary;
mod inverse;
mod missing;
mod model;
pub mod noise;
mod observation;
mod patches;

pub use dictionary::PatchDictionary;
pub use missing::salt_and_pepper;
pub use model::{Denoised, by_network, by_pursuit};
pub use observation::{Blur, MAX_REDUCED, Observation};

use crate::error::{Error, Result};
use patches::{Patches, Stage};

/// A picture `[channels, height, width]`, in whatever units it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Number of channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values, channel by channel, row by row.
    pub values: Vec<f32>,
}

impl Picture {
    /// Of values `[channels, height, width]`.
    ///
    /// # Errors
    /// No values, or another number of them.
    pub fn new(channels: usize, height: usize, width: usize, values: Vec<f32>) -> Result<Self> {
        let picture = Self { channels, height, width, values };
        picture.check().map(|()| picture)
    }

    /// Checks that there are as many values as channels, rows and columns say: fields can be set.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(&self) -> Result<()> {
        let Self { channels, height, width, .. } = *self;
        let len = channels.checked_mul(height).and_then(|len| len.checked_mul(width)).filter(|len| *len > 0);
        if len != Some(self.values.len()) {
            let expected = format!("{channels}x{height}x{width}, at least one");
            return Err(Error::shape("values of a picture", expected, self.values.len()));
        }
        Ok(())
    }

    /// [`Self::check`], and that all values are finite that can be read.
    fn check_values(&self, readable: impl Fn(usize) -> bool) -> Result<()> {
        self.check()?;
        let wrong = |at: &usize| readable(*at) && !self.values[*at].is_finite();
        let Some(at) = (0..self.values.len()).find(wrong) else { return Ok(()) };
        let (row, column) = (at % self.pixels() / self.width, at % self.width);
        Err(Error::parameter(
            "picture",
            self.values[at],
            format!("a finite value in row {row}, column {column}, unless `missing` nan leaves such out"),
        ))
    }

    /// One channel alone.
    fn plane(&self, channel: usize) -> Self {
        let values = self.values[channel * self.pixels()..][..self.pixels()].to_vec();
        Self { channels: 1, values, ..*self }
    }

    /// Multiplies the first three channels by a factor each.
    fn scale_channels(&mut self, factors: [f32; 3]) {
        let pixels = self.pixels();
        for (plane, factor) in self.values.chunks_exact_mut(pixels).zip(factors).filter(|(_, factor)| *factor != 1.0) {
            plane.iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// Some of the rows.
    fn rows(&self, first: usize, last: usize) -> Self {
        let rows = |plane: &[f32]| plane[first * self.width..last * self.width].to_vec();
        let values = self.values.chunks_exact(self.pixels()).flat_map(rows).collect();
        Self { height: last - first, values, ..*self }
    }

    /// Pixels of a channel.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// Ways to take noise off; groups fill in and undo blur, too.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Method {
    /// What is best of those that can be had: groups. The default.
    #[default]
    Auto,
    /// Patches by orthogonal matching pursuit, then groups of patches that are alike ([`restore`]).
    Groups,
    /// Patches by orthogonal matching pursuit, one by one ([`restore`]).
    Patches,
    /// Basis pursuit of the whole picture over a model, averaged over shifts where it has strides ([`by_pursuit`]).
    Pursuit,
    /// The encoder of a model that was trained to take noise off ([`by_network`]).
    Network,
}

/// How pictures are restored.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreConfig {
    /// Standard deviation of the noise in the picture's units, at least 0, in every channel. Default 0: nothing but missing pixels is restored.
    /// That red, green and blue share their noise is found out from the picture.
    pub sigma: f32,
    /// Difference of the darkest and the brightest value that a picture may have, above 0. Default 255. What is rough in the first rounds
    /// is told in parts of it.
    pub range: f32,
    /// Whether patches that are alike are estimated together where noise is taken off; else each is coded alone. Default yes.
    pub together: bool,
    /// Whether the colours of a group share their atoms too, in the pass in which groups are coded by atoms of one channel. Default no: they
    /// mostly have edges, but not textures, in common.
    pub joint_colours: bool,
    /// Patches that are coded together, at least 1. Default 32.
    pub similar: usize,
    /// How far from a patch those alike are looked for, in pixels up and down, left and right. Default 15.
    pub radius: usize,
    /// Pixels from one group's first patch to the next, at least 1. Default 4.
    pub step: usize,
    /// Rounds in which missing pixels are filled, or blur and loss of size undone, at least 1. Default 12.
    pub rounds: usize,
}

impl Default for RestoreConfig {
    fn default() -> Self {
        Self {
            sigma: 0.0,
            range: 255.0,
            together: true,
            joint_colours: false,
            similar: 32,
            radius: 15,
            step: 4,
            rounds: 12,
        }
    }
}

impl RestoreConfig {
    /// Checks the parameters.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.sigma.is_finite() && self.sigma >= 0.0) {
            return Err(Error::parameter("sigma", self.sigma, "a finite standard deviation ≥ 0"));
        }
        if !(self.range.is_finite() && self.range > 0.0) {
            return Err(Error::parameter("range", self.range, "a finite number > 0"));
        }
        for (name, value) in [("similar", self.similar), ("step", self.step), ("rounds", self.rounds)] {
            if value == 0 {
                return Err(Error::parameter(name, 0, "at least 1"));
            }
        }
        Ok(())
    }
}

/// Restores a picture that was observed so. `progress` is told the part that is done and ends it, with `None`, by `false`. The result has the
/// size that the picture had before it was reduced.
///
/// Known pixels of a picture that nothing was done to but that others were lost, and that has no noise, come out as they are.
///
/// # Errors
/// Parameters out of range; a picture with another number of values than its shape says; a dictionary for another number of channels;
/// values that are known and not finite; a mask of another size,
/// or one that hides everything; a blur larger than the picture; values that are far beyond the range.
pub fn restore(
    picture: &Picture,
    observation: &Observation,
    dictionary: &PatchDictionary,
    config: &RestoreConfig,
    mut progress: impl FnMut(f32) -> bool,
) -> Result<Option<Picture>> {
    config.check()?;
    picture.check()?;
    dictionary.check_for(picture.channels)?;
    observation.check([picture.height, picture.width])?;
    let known = observation.known();
    let pixels = picture.pixels();
    let readable = |place: usize| known.is_none_or(|known| known[place % pixels]);
    picture.check_values(readable)?;
    // Nothing beyond this point sees an unknown value.
    let start = match known {
        Some(known) => missing::filled(picture, known),
        None => picture.clone(),
    };
    let rotates = dictionary.channels() == 1;
    let mut start = if rotates { colours::rotated(&start) } else { start };
    let scales = if rotates { colours::even_noise(&start, config.sigma, config.range, known) } else { [1.0; 3] };
    start.scale_channels(scales);
    // In units in which squares are neither too large nor too small for f32.
    let scale = UNIT / config.range;
    let largest = start.values.iter().fold(0.0f32, |largest, value| largest.max(value.abs())).max(config.sigma);
    let fits = largest * scale <= MOST;
    if !fits && config.sigma == largest {
        let expected = format!("at most {:.1e} where the range of values is {:.1e}", 0.9 * MOST / scale, config.range);
        return Err(Error::parameter("sigma", config.sigma, expected));
    }
    if !fits {
        let expected = format!("at least {:.1e} beside values of up to {largest:.1e}", 1.1 * largest * (UNIT / MOST));
        return Err(Error::parameter("range", config.range, expected));
    }
    start.values.iter_mut().for_each(|value| *value *= scale);
    let config = &RestoreConfig { sigma: config.sigma * scale, range: UNIT, ..config.clone() };
    let size = dictionary.size();
    let patches = Patches::new(dictionary, config);
    // A picture smaller than a patch is continued by reflection.
    let restored = if observation.mixes() {
        inverse::solve(&patches, &start, observation, config, size, &mut progress)
    } else {
        let padded = patches::padded(&start, size);
        let restored = match known {
            Some(known) => {
                let known = patches::padded_mask(known, &start, size);
                missing::fill(&patches, &padded, &known, config, &mut progress)
            }
            None if config.sigma == 0.0 => Some(padded),
            None if !config.together => patches.pass(&padded, Stage::Alone, config.sigma, &mut |part| progress(part)),
            None => denoise_in_strips(&patches, &padded, config.sigma, STRIP, &mut |part| progress(part)),
        };
        restored.map(|restored| patches::cropped(&restored, &start))
    };
    let Some(mut restored) = restored else { return Ok(None) };
    restored.scale_channels(scales.map(f32::recip));
    let mut restored = if rotates { colours::rotated_back(&restored) } else { restored };
    restored.values.iter_mut().for_each(|value| *value /= scale);
    if config.sigma == 0.0 && !observation.mixes() {
        // Rotating there and back rounds.
        for (at, value) in restored.values.iter_mut().enumerate().filter(|(at, _)| readable(*at)) {
            *value = picture.values[at];
        }
    }
    Ok(Some(restored))
}

/// The range of values that is computed in.
const UNIT: f32 = 255.0;

/// The largest magnitude that is computed with: squares of patches are within single precision.
const MOST: f32 = 1e15;

/// Values of a strip of a large picture.
const STRIP: usize = 1 << 22;

/// Rows beyond a strip that its outcome depends on: three passes with groups, whose patches are within the radius of one that is within the
/// radius of a pixel, and one without.
fn reach(patches: &Patches) -> usize {
    let (radius, height) = patches.radius_and_height();
    3 * (2 * radius + height) + height
}

/// [`denoise`] strip by strip of so many values, with the rows around that it takes: what comes out is the same, bit by bit.
fn denoise_in_strips(
    patches: &Patches,
    picture: &Picture,
    sigma: f32,
    values: usize,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Option<Picture> {
    let (width, height) = (picture.width, picture.height);
    let around = reach(patches);
    // Patches begin at multiples of the steps, counted from the first row.
    let aligned = patches.steps();
    let rows = (values / (picture.channels * width)).max(2 * around);
    if rows >= height {
        return denoise(patches, picture, sigma, progress);
    }
    let mut out = picture.clone();
    for start in (0..height).step_by(rows) {
        let end = (start + rows).min(height);
        let (first, last) = (start.saturating_sub(around) / aligned * aligned, (end + around).min(height));
        let strip = picture.rows(first, last);
        let part = |done: f32| (start as f32 + done * (end - start) as f32) / height as f32;
        let found = denoise(patches, &strip, sigma, &mut |done| progress(part(done)))?;
        for channel in 0..picture.channels {
            let from = channel * found.pixels() + (start - first) * width;
            let to = channel * picture.pixels() + start * width;
            out.values[to..to + (end - start) * width].copy_from_slice(&found.values[from..][..(end - start) * width]);
        }
    }
    Some(out)
}

/// Noise, as a part of the range, below which groups are coded by atoms alone: their covariances are too near to singular to say more.
const FINE: f32 = 5e-4;

/// All passes.
fn denoise(patches: &Patches, picture: &Picture, sigma: f32, progress: &mut dyn FnMut(f32) -> bool) -> Option<Picture> {
    let alone = patches.pass(picture, Stage::Alone, sigma, &mut |part| progress(0.2 * part))?;
    let joint = patches.pass(picture, Stage::Joint(&alone), sigma, &mut |part| progress(0.2 + 0.3 * part))?;
    if sigma < FINE * UNIT {
        return progress(1.0).then_some(joint);
    }
    let alike = patches.pass(picture, Stage::Alike(&joint), sigma, &mut |part| progress(0.5 + 0.25 * part))?;
    patches.pass(picture, Stage::Alike(&alike), sigma, &mut |part| progress(0.75 + 0.25 * part))
}

/// An orthonormal rotation of red, green and blue: noise stays as strong and white.
mod colours {
    use super::{Picture, noise};

    /// Grey, red against blue, green against both, of unit length.
    const AXES: [[f64; 3]; 3] = [
        [0.577_350_269_189_625_8, 0.577_350_269_189_625_8, 0.577_350_269_189_625_8],
        [std::f64::consts::FRAC_1_SQRT_2, 0.0, -std::f64::consts::FRAC_1_SQRT_2],
        [0.408_248_290_463_863, -0.816_496_580_927_726, 0.408_248_290_463_863],
    ];

    fn by(picture: &Picture, weight: impl Fn(usize, usize) -> f64) -> Picture {
        if picture.channels != 3 {
            return picture.clone();
        }
        let pixels = picture.pixels();
        let mut out = picture.clone();
        for (channel, plane) in out.values.chunks_exact_mut(pixels).enumerate() {
            for (pixel, value) in plane.iter_mut().enumerate() {
                let parts = (0..3).map(|from| weight(channel, from) * f64::from(picture.values[from * pixels + pixel]));
                *value = parts.sum::<f64>() as f32;
            }
        }
        out
    }

    pub(super) fn rotated(picture: &Picture) -> Picture {
        by(picture, |to, from| AXES[to][from])
    }

    /// How many times as strong as in red, green and blue the noise on the grey is at least where they share it.
    const ON_GREY: f32 = 1.15;

    /// Part of the noise on the grey that there is at most on the colour axes then.
    const ON_COLOURS: f32 = 0.85;

    /// Least noise that a colour axis is taken to have, as a part of that of red, green and blue.
    const LEAST: f32 = 0.05;

    /// Part of the range below which noise is left as it is said to be: fine texture would be taken for a good part of it.
    const WEAK: f32 = 0.01;

    /// Factors by which noise of standard deviation `sigma` in red, green and blue, of pictures of that range, has that strength on every axis
    /// of a rotated picture.
    ///
    /// They are 1 for independent noise. Noise that the three share, as in a grey picture stored in colours or a photograph whose colours were
    /// reduced, is weaker on both colour axes, where hardly anything else is rough; the grey has what is left of the sum of the variances, but
    /// no more than is measured there. Where that is not clearly more, nothing is known: pixels may have been cut off at black or white.
    pub(super) fn even_noise(rotated: &Picture, sigma: f32, range: f32, known: Option<&[bool]>) -> [f32; 3] {
        if rotated.channels != 3 || sigma <= WEAK * range {
            return [1.0; 3];
        }
        let of_colours = |axis: usize| noise::at_any_size(&rotated.plane(axis), known);
        let (Some(grey), Some([first, most_first]), Some([second, most_second])) =
            (noise::estimate(&rotated.plane(0), known), of_colours(1), of_colours(2))
        else {
            return [1.0; 3];
        };
        let left = (3.0 * sigma * sigma - first * first - second * second).max(0.0).sqrt();
        let grey = left.min(grey.max(sigma));
        if grey < ON_GREY * sigma || most_first.max(most_second) > ON_COLOURS * grey {
            return [1.0; 3];
        }
        let [first, second] = [most_first, most_second].map(|found| found.max(LEAST * sigma));
        [grey, first, second].map(|found| sigma / found)
    }

    pub(super) fn rotated_back(picture: &Picture) -> Picture {
        by(picture, |to, from| AXES[from][to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture stored in three channels comes out as the grey one does; independent noise is what it is taken for.
    #[test]
    fn noise_that_channels_share_is_taken_off() {
        use rand_distr::{Distribution, StandardNormal};
        let (height, width) = (48, 56);
        let mut random = crate::model::sample::generator(3);
        let clean: Vec<f32> = (0..height * width)
            .map(|at| 60.0 + (at / width) as f32 + if (at % width + at / width) % 30 < 15 { 70.0 } else { 0.0 })
            .collect();
        let mut drawn = || -> Vec<f32> {
            let mut noise = || -> f32 { StandardNormal.sample(&mut random) };
            clean.iter().map(|value| value + 20.0 * noise()).collect()
        };
        let dictionary = PatchDictionary::photographs();
        let config = RestoreConfig { sigma: 20.0, ..RestoreConfig::default() };
        let restored = |channels: usize, values: Vec<f32>| {
            let picture = Picture::new(channels, height, width, values).unwrap();
            restore(&picture, &Observation::default(), &dictionary, &config, |_| true).unwrap().unwrap().values
        };
        let grey = drawn();
        let alone = restored(1, grey.clone());
        let in_colours = restored(3, [&grey[..]; 3].concat());
        let apart =
            |a: &[f32], b: &[f32]| (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt();
        for plane in in_colours.chunks_exact(height * width) {
            assert!(apart(plane, &alone) < 1.0, "{}", apart(plane, &alone));
        }
        assert!(apart(&alone, &clean) < 8.0, "{}", apart(&alone, &clean));
        let independent = [drawn(), drawn(), drawn()].concat();
        let rotated = colours::rotated(&Picture::new(3, height, width, independent).unwrap());
        assert_eq!(colours::even_noise(&rotated, 20.0, 255.0, None), [1.0; 3]);
        // Nor is that which is said to be stronger than it is, or that of a picture most of which was cut off at black.
        assert_eq!(colours::even_noise(&rotated, 60.0, 255.0, None), [1.0; 3]);
        let mut dark = rotated.clone();
        dark.values.iter_mut().enumerate().filter(|(at, _)| at % width < 40).for_each(|(_, value)| *value = 0.0);
        assert_eq!(colours::even_noise(&dark, 20.0, 255.0, None), [1.0; 3]);
    }

    /// A strip with the rows around it is as good as the whole picture.
    #[test]
    fn strips_leave_no_seams() {
        let (height, width) = (160, 24);
        let value = |at: usize| {
            let (row, column) = (at / width % height, at % width);
            let noise = ((at * 7919 + at * at % 1013) % 509) as f32 / 8.0;
            60.0 + row as f32 / 2.0 + if (row + 2 * column) % 20 < 10 { 90.0 } else { 0.0 } + noise
        };
        let picture = Picture::new(2, height, width, (0..2 * height * width).map(value).collect()).unwrap();
        let dictionary = PatchDictionary::photographs();
        let config = RestoreConfig { radius: 3, ..RestoreConfig::default() };
        let patches = Patches::new(&dictionary, &config);
        let whole = denoise(&patches, &picture, 20.0, &mut |_| true).unwrap();
        // Rows of a strip are at least twice those around it.
        assert!(2 * reach(&patches) < height, "{}", reach(&patches));
        let mut told = Vec::new();
        let mut progress = |part| {
            told.push(part);
            true
        };
        let strips = denoise_in_strips(&patches, &picture, 20.0, 1, &mut progress).unwrap();
        assert_eq!(strips, whole);
        assert!(told.windows(2).all(|pair| pair[0] <= pair[1]) && told.last() == Some(&1.0), "{told:?}");
    }
}
