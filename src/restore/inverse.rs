//! Pictures that were blurred or reduced.
//!
//! The picture x that was seen as y = Hx + noise and that looks like a picture: in turn x is the one that fits what was seen and is near to z,
//! x = argmin ‖y − Hx‖²/(2σ²) + w‖x − z‖²/(2τ²), by conjugate gradients, and z is x without noise of standard deviation τ, which becomes less
//! from round to round (D. Zoran, Y. Weiss, "From learning models of natural image patches to whole image restoration", ICCV 2011).

use super::observation::{self, Observation};
use super::patches::{Patches, Stage, cropped, padded};
use super::{Picture, RestoreConfig, conjugate};
use crate::kernels::sparse::energy;
use crate::random::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Noise that the first and the last round take off, in standard deviations of the noise in what was seen and at least as a part of the range. In
/// the last it is what inverting H makes of it, if that is more.
const FIRST: (f32, f32) = (5.0, 0.08);
const LAST: (f32, f32) = (0.8, 0.006);

/// Noise that even a picture without any is taken to have, as a part of the range: what is rounded to a level of 256.
const LEAST_SIGMA: f32 = 0.002;

/// w, the weight of what looks like a picture; below 1 because noise that H leaves in x is more than τ.
const WEIGHT: f32 = 0.15;

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
    // The strength of white noise of strength 1 once H is inverted; without noise it does not matter.
    let amplified = match config.sigma > 0.0 {
        false => 0.0,
        true => {
            let nothing = vec![0.0; height * width];
            let noise = normal(&mut ChaCha8Rng::seed_from_u64(0), seen.pixels());
            let (apply, adjoint) = (|plane: &[f32]| operator.apply(plane), |plane: &[f32]| operator.adjoint(plane));
            let inverted = fit(&apply, &adjoint, &noise, &nothing, WEIGHT);
            (energy(&inverted) / inverted.len() as f64).sqrt() as f32
        }
    };
    let [first, last] =
        [FIRST, (LAST.0.max(amplified), LAST.1)].map(|(sigmas, part)| (sigmas * config.sigma).max(part * config.range));
    for round in 0..config.rounds {
        let tau = first * (last / first).powf(round as f32 / (config.rounds - 1).max(1) as f32);
        let nearness = WEIGHT * (sigma / tau).powi(2);
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
