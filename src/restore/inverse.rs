//! Pictures that were blurred or reduced.
//!
//! The picture x that was seen as y = Hx + noise and that looks like a picture: in turn x is the one that fits what was seen and is near to z,
//! x = argmin ‖y − Hx‖²/(2σ²) + w‖x − z‖²/(2τ²), by conjugate gradients, and z is x without noise of standard deviation τ, which becomes less
//! from round to round (D. Zoran, Y. Weiss, "From learning models of natural image patches to whole image restoration", ICCV 2011).
//!
//! What a blur brought in from beyond the borders is unknown, and anything that were assumed of it would be rung back into the picture. So x goes
//! on beyond them as far as the kernel reaches, and nothing is seen of it there (S. Reeves, "Fast image restoration without boundary
//! artifacts", IEEE Trans. Image Processing 14(10), 2005).

use super::observation::{self, Observation};
use super::patches::{Patches, Stage, cropped, padded, reflected};
use super::{Picture, RestoreConfig, conjugate};
use rayon::prelude::*;

/// Noise that the first and the last round take off, in standard deviations of the noise in what was seen and at least as a part of the range.
const FIRST: (f32, f32) = (5.0, 0.08);
const LAST: (f32, f32) = (0.8, 0.006);

/// Noise that even a picture without any is taken to have, as a part of the range: what is rounded to a level of 256.
const LEAST_SIGMA: f32 = 0.002;

/// w, the weight of what looks like a picture; below 1 because noise that H leaves in x is more than τ. The first where H lets few frequencies
/// through, the second where it lets many through and noise is weak: it is half as much where noise has that part of the range.
const WEIGHT: [f32; 2] = [0.15, 0.3];
const HALF: f32 = 0.1;

/// Mean square of a blur's frequency response from which on, and up to which, it lets more than few through.
const PASSED: [f32; 2] = [0.03, 0.06];

/// Conjugate gradients in a round, and the part of the first residual at which they end.
const STEPS: usize = 20;
const TOLERANCE: f64 = 1e-4;

/// The picture that was seen as `seen`, which is finite where it is known.
pub(super) fn solve(
    patches: &Patches,
    seen: &Picture,
    observation: &Observation,
    config: &RestoreConfig,
    size: [usize; 2],
    progress: &mut dyn FnMut(f32) -> bool,
) -> Option<Picture> {
    let observed = [seen.height, seen.width];
    let ends = [FIRST, LAST].map(|(sigmas, part)| (sigmas * config.sigma).max(part * config.range));
    let margins = observation.reach();
    let continued = enlarged_by(seen, margins);
    let beyond = observation.continued(observed, margins);
    let found = rounds(patches, &continued, &beyond, config, size, ends, progress)?;
    let factor = observation.factor();
    let [height, width] = observed.map(|len| len * factor);
    Some(within(&found, margins.map(|margin| margin * factor), [height, width]))
}

/// The picture, continued by reflection by as many rows above and below, and columns on the left and the right.
fn enlarged_by(picture: &Picture, [rows, columns]: [usize; 2]) -> Picture {
    let (height, width) = (picture.height + 2 * rows, picture.width + 2 * columns);
    let place = |place: usize, margin: usize, len: usize| reflected(place as isize - margin as isize, len);
    let columns: Vec<usize> = (0..width).map(|column| place(column, columns, picture.width)).collect();
    let mut values = Vec::with_capacity(picture.channels * height * width);
    for plane in picture.values.chunks_exact(picture.pixels()) {
        for row in 0..height {
            let line = &plane[place(row, rows, picture.height) * picture.width..][..picture.width];
            values.extend(columns.iter().map(|column| line[*column]));
        }
    }
    Picture { channels: picture.channels, height, width, values }
}

/// The part of that size that lies in the middle of a picture.
fn within(picture: &Picture, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Picture {
    let mut values = Vec::with_capacity(picture.channels * height * width);
    for plane in picture.values.chunks_exact(picture.pixels()) {
        let lines = plane.chunks_exact(picture.width).skip(top).take(height);
        lines.for_each(|line| values.extend(&line[left..left + width]));
    }
    Picture { channels: picture.channels, height, width, values }
}

/// All rounds; the first and the last take off noise as strong as `ends`.
fn rounds(
    patches: &Patches,
    seen: &Picture,
    observation: &Observation,
    config: &RestoreConfig,
    size: [usize; 2],
    [first, last]: [f32; 2],
    progress: &mut dyn FnMut(f32) -> bool,
) -> Option<Picture> {
    let observed = [seen.height, seen.width];
    let operator = observation.operator(observed);
    let [height, width] = operator.whole;
    let planes = |make: &(dyn Fn(usize) -> Vec<f32> + Sync)| -> Picture {
        let values = (0..seen.channels).into_par_iter().map(make).collect::<Vec<_>>().concat();
        Picture { channels: seen.channels, height, width, values }
    };
    let of_seen = |channel: usize| &seen.values[channel * seen.pixels()..][..seen.pixels()];
    let mut picture = planes(&|channel| match observation.factor() {
        1 => of_seen(channel).to_vec(),
        factor => observation::enlarged(of_seen(channel), observed, factor),
    });
    let sigma = config.sigma.max(LEAST_SIGMA * config.range);
    let [few, many] = PASSED;
    let passed = ((observation.passed() - few) / (many - few)).clamp(0.0, 1.0);
    let weight = (WEIGHT[0] + passed * (WEIGHT[1] - WEIGHT[0])) / (1.0 + passed * sigma / (HALF * config.range));
    for round in 0..config.rounds {
        let tau = first * (last / first).powf(round as f32 / (config.rounds - 1).max(1) as f32);
        let nearness = weight * (sigma / tau).powi(2);
        let fitted = planes(&|channel| {
            let near = &picture.values[channel * height * width..][..height * width];
            fit(&|plane| operator.apply(plane), &|plane| operator.adjoint(plane), of_seen(channel), near, nearness)
        });
        let mut of_round = |done: f32| progress((round as f32 + done) / config.rounds as f32);
        let (fitted, guide) = (padded(&fitted, size), padded(&picture, size));
        let joint = patches.pass(&fitted, Stage::Joint(&guide), tau, &mut |done| of_round(0.5 * done))?;
        let found = patches.pass(&fitted, Stage::Alike(&joint), tau, &mut |done| of_round(0.5 + 0.5 * done))?;
        picture = cropped(&found, &picture);
    }
    Some(picture)
}

type Linear<'a> = &'a dyn Fn(&[f32]) -> Vec<f32>;

/// argmin ½‖y − Hx‖² + ½ nearness ‖x − z‖².
fn fit(apply: Linear, adjoint: Linear, seen: &[f32], near: &[f32], nearness: f32) -> Vec<f32> {
    let residual: Vec<f32> = apply(near).iter().zip(seen).map(|(made, seen)| seen - made).collect();
    let product = |direction: &[f32], out: &mut [f32]| {
        let made = adjoint(&apply(direction));
        out.iter_mut().zip(made.iter().zip(direction)).for_each(|(out, (made, value))| *out = made + nearness * value);
    };
    let step = conjugate::solve(product, adjoint(&residual), STEPS, TOLERANCE);
    step.iter().zip(near).map(|(step, near)| near + step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Blur, PatchDictionary, restore};
    use super::*;

    fn error(found: &Picture, truth: &Picture) -> f32 {
        let squares = found.values.iter().zip(&truth.values).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f32>() / truth.values.len() as f32
    }

    /// A part of a larger picture that was blurred as a whole: what came from beyond its borders is like nothing within.
    #[test]
    fn what_lies_beyond_the_borders_is_not_made_up() {
        let (size, margin) = (64, 12);
        let value = |at: usize| {
            let (row, column) = ((at / size) as f32, (at % size) as f32);
            60.0 + 2.0 * row + if (row + 2.0 * column) % 22.0 < 9.0 { 90.0 } else { 0.0 }
        };
        let whole = Picture::new(1, size, size, (0..size * size).map(value).collect()).unwrap();
        let cut = |picture: &Picture| within(picture, [margin; 2], [size - 2 * margin; 2]);
        let truth = cut(&whole);
        let config = RestoreConfig { sigma: 0.5, ..RestoreConfig::default() };
        let dictionary = PatchDictionary::photographs();
        let line: Vec<f32> = (0..81).map(|at| if at % 10 == 0 { 1.0 } else { 0.0 }).collect();
        for blur in [Blur::new([9, 9], &line).unwrap(), Blur::new([5, 5], &[1.0; 25]).unwrap()] {
            let observation = Observation::default().blurred(blur);
            let seen = cut(&observation.seen(&whole).unwrap());
            let found = restore(&seen, &observation, &dictionary, &config, |_| true).unwrap().unwrap();
            let (before, after) = (error(&seen, &truth), error(&found, &truth));
            println!("{before} {after}");
            // Measured: 0.07 and 0.19 of it.
            assert!(after < 0.3 * before, "{before} {after}");
        }
    }

    #[test]
    fn margins_come_and_go() {
        let picture = Picture::new(2, 3, 5, (0..30).map(|at| at as f32).collect()).unwrap();
        for margins in [[0, 0], [2, 1], [4, 9]] {
            let larger = enlarged_by(&picture, margins);
            assert_eq!([larger.height, larger.width], [3 + 2 * margins[0], 5 + 2 * margins[1]]);
            assert_eq!(within(&larger, margins, [3, 5]), picture);
        }
        let blur = |size, values: &[f32]| Observation::default().blurred(Blur::new(size, values).unwrap());
        assert_eq!(blur([3, 5], &[1.0; 15]).reach(), [1, 2]);
        // Entries of zero reach nowhere, and an even kernel as far as its longer side.
        assert_eq!(blur([1, 5], &[0.0, 0.0, 1.0, 1.0, 0.0]).reach(), [0, 1]);
        assert_eq!(blur([4, 1], &[1.0; 4]).reach(), [2, 0]);
        assert_eq!(blur([5, 5], &[1.0; 25]).reduced_by(3).reach(), [1, 1]);
    }
}
