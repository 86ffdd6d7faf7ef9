//! Random numbers without a state to keep: every use has a stream of its own, addressed by the seed, a purpose and a number.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Order of the training signals in an epoch.
    Order = 1,
    /// Samples that atoms of a layer start from.
    Seeds = 2,
    /// Patches for a step of the initialisation.
    Patches = 3,
    /// Atoms that replace dead ones in a step.
    Reseeding = 4,
    /// Initial weights of a network's layer.
    Weights = 5,
    /// Noise on the signals of a step.
    Noise = 6,
    /// Order of the training signals in one of an epoch's buffers.
    Buffer = 7,
}

/// The stream of random numbers for a purpose; `number` says which epoch, layer or step.
pub(crate) fn stream(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(((purpose as u64) << 48) | number);
    generator
}

/// Draws from the standard normal distribution.
pub(crate) fn normal(generator: &mut impl Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| StandardNormal.sample(generator)).collect()
}

/// Uniform values in [−limit, limit).
pub(crate) fn uniform(generator: &mut ChaCha8Rng, len: usize, limit: f32) -> Vec<f32> {
    (0..len).map(|_| (2.0 * generator.random::<f32>() - 1.0) * limit).collect()
}
