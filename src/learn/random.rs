//! Random numbers without a state to keep: every use has a stream of its own, addressed by the seed, a purpose and a number.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Order of the training signals in an epoch.
    Order = 1,
    /// Samples that atoms of a layer start from.
    Seeds = 2,
    /// Patches for a step of the initialisation.
    Patches = 3,
    /// Atoms that replace dead ones in a step.
    Reseeding = 4,
}

/// The stream of random numbers for a purpose; `number` says which epoch, layer or step.
pub(super) fn stream(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(((purpose as u64) << 48) | number);
    generator
}
