//! What tells signals from others, wherever they lie.

use super::{Dataset, Source};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Values that are read for a fingerprint at most, the first and the last signal aside (2²⁶: 256 MiB of `f32`, more than MNIST has). Of
/// larger sets signals at even distances stand for all.
const MOST_VALUES: usize = 1 << 26;

/// Values of a set from which on they are read in runs of consecutive signals: of single ones each would lie on a page of its own.
const SCATTERED: u128 = 1 << 28;

/// Such runs.
const RUNS: usize = 256;

/// Values held in memory at a time.
const AT_A_TIME: usize = 1 << 20;

/// Number, shape and content of a data set's signals in few characters: the same for the same signals in the same order, whatever the
/// path and the kind of file that they are read from.
///
/// Sets of up to 2²⁶ values are read whole; of larger ones signals at even distances, of very large ones runs of them, so that it takes
/// less than a second or two.
/// Labels do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of signals to learn from and of held-out ones.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub fn of(data: &Dataset) -> Result<Self> {
        Self::within(data, MOST_VALUES)
    }

    /// The fingerprint of signals of which none are held out.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub fn of_source(source: &dyn Source) -> Result<Self> {
        let mut hash = Hash::default();
        hash.signals(source, MOST_VALUES)?;
        Ok(Self(format!("{}x{}-{:016x}", source.len(), source.shape(), hash.0)))
    }

    /// Whether `found`, the signals of a source, are those that this is the fingerprint of; it stands in `file`.
    ///
    /// # Errors
    /// Other signals; source and file are named.
    pub fn check(&self, found: &Self, source: &str, file: &Path) -> Result<()> {
        if self == found {
            return Ok(());
        }
        let file = file.display();
        let expected = format!("the signals that the run began with ({self} in {file}), found others ({found})");
        Err(Error::parameter("data.source", format!("{source:?}"), expected))
    }

    fn within(data: &Dataset, most_values: usize) -> Result<Self> {
        let sources = [&data.train, &data.test];
        let mut hash = Hash::default();
        for source in sources {
            hash.signals(&**source, most_values / sources.len())?;
        }
        let [train, test] = sources.map(|source| source.len());
        Ok(Self(format!("{train}+{test}x{}-{:016x}", data.train.shape(), hash.0)))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What tells bytes from others, in few characters.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("{:016x}", digest_number(bytes))
}

/// The same as a number.
pub(crate) fn digest_number(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = Hash::default();
    words.iter().for_each(|word| hash.word(u32::from_le_bytes(*word)));
    rest.iter().for_each(|byte| hash.word(u32::from(*byte)));
    hash.0
}

/// The Fowler–Noll–Vo hash FNV-1a with words in place of bytes: the same on every platform and in every version.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(&mut self, word: u32) {
        self.0 = (self.0 ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn signals(&mut self, source: &dyn Source, most_values: usize) -> Result<()> {
        // Both zeros are the same value.
        sample(source, most_values, |values| values.iter().for_each(|value| self.word((value + 0.0).to_bits())))
    }
}

/// Calls `visit` with the values of a set's signals, one handful after the other: of all, or of larger sets of some at even distances,
/// which have about so many values.
///
/// # Errors
/// Signals that cannot be read.
pub(crate) fn sample(source: &dyn Source, most_values: usize, mut visit: impl FnMut(&[f32])) -> Result<()> {
    let (count, len) = (source.len(), source.shape().len().max(1));
    let most = (most_values / len).max(2);
    let run = if count as u128 * len as u128 > SCATTERED { (most / RUNS).max(1) } else { 1 };
    let (mut indices, mut values) = (spread(count, most, run), Vec::new());
    loop {
        let part: Vec<usize> = indices.by_ref().take((AT_A_TIME / len).max(1)).collect();
        if part.is_empty() {
            return Ok(());
        }
        values.resize(part.len() * len, 0.0);
        source.read(&part, &mut values)?;
        visit(&values);
    }
}

/// Indices below `count`, the first and the last among them: all, or about `most` ≥ 2, in runs of so many at even distances.
fn spread(count: usize, most: usize, run: usize) -> impl Iterator<Item = usize> {
    let runs = if count <= most { 1 } else { (most / run).max(2) };
    let run = if count <= most { count } else { run };
    let last = (count - run) as u128;
    let start = move |number: usize| (number as u128 * last / (runs as u128 - 1).max(1)) as usize;
    (0..runs).flat_map(move |number| (0..run).map(move |index| start(number) + index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, open};

    #[test]
    fn of_large_sets_a_part_is_read() {
        let spread = |count, most, run| spread(count, most, run).collect::<Vec<_>>();
        assert!(spread(0, 9, 1).is_empty());
        assert_eq!(spread(5, 9, 1), [0, 1, 2, 3, 4]);
        assert_eq!(spread(5, 9, 3), [0, 1, 2, 3, 4]);
        assert_eq!(spread(10, 4, 1), [0, 3, 6, 9]);
        assert_eq!(spread(usize::MAX, 2, 1), [0, usize::MAX - 1]);
        assert_eq!(spread(20, 7, 2), [0, 1, 9, 10, 18, 19]);
        let data = open(&DataConfig { count: Some(60), ..DataConfig::default() }).unwrap();
        assert_ne!(Fingerprint::within(&data, 4 * 784).unwrap(), Fingerprint::of(&data).unwrap());
    }
}
