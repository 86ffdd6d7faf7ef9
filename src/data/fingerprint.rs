//! What tells signals from others, wherever they lie.

use super::{Dataset, Source};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Values that are read for a fingerprint at most, the first and the last signal aside (2²⁶: 256 MiB of `f32`, more than MNIST has). Of
/// larger sets signals at even distances stand for all.
const MOST_VALUES: usize = 1 << 26;

/// Values held in memory at a time.
const AT_A_TIME: usize = 1 << 20;

/// Number, shape and content of a data set's signals in few characters: the same for the same signals in the same order, whatever the
/// path and the kind of file that they are read from.
///
/// Sets of up to 2²⁶ values are read whole; of larger ones signals at even distances, so that it takes less than a second or two.
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
        Err(Error::parameter("source", format!("{source:?}"), expected))
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
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = Hash::default();
    words.iter().for_each(|word| hash.word(u32::from_le_bytes(*word)));
    rest.iter().for_each(|byte| hash.word(u32::from(*byte)));
    format!("{:016x}", hash.0)
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
        let (count, len) = (source.len(), source.shape().len().max(1));
        let indices = spread(count, (most_values / len).max(2));
        let mut values = Vec::new();
        for indices in indices.chunks((AT_A_TIME / len).max(1)) {
            values.resize(indices.len() * len, 0.0);
            source.read(indices, &mut values)?;
            // Both zeros are the same value.
            values.iter().for_each(|value| self.word((value + 0.0).to_bits()));
        }
        Ok(())
    }
}

/// Indices below `count` at even distances, the first and the last among them: all, or `most` ≥ 2.
pub(crate) fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    let last = (count - 1) as u128;
    (0..most as u128).map(|index| (index * last / (most as u128 - 1)) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, open};

    #[test]
    fn of_large_sets_a_part_is_read() {
        assert_eq!(spread(5, 9), [0, 1, 2, 3, 4]);
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(usize::MAX, 2), [0, usize::MAX - 1]);
        let data = open(&DataConfig { count: Some(60), ..DataConfig::default() }).unwrap();
        assert_ne!(Fingerprint::within(&data, 4 * 784).unwrap(), Fingerprint::of(&data).unwrap());
    }
}
