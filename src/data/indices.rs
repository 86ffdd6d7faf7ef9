//! Which signals of a set belong to a part of it, in far less memory than a number each.

use std::ops::Range;
use std::sync::Arc;

/// Bits between two counts.
const BLOCK: usize = 512;
const WORDS: usize = BLOCK / 64;

/// Indices of signals.
#[derive(Debug, Clone)]
pub(super) enum Indices {
    /// Consecutive ones.
    Range(Range<usize>),
    /// Those of a list, in its order.
    Listed(Arc<[usize]>),
    /// The first `len` of those that are marked, or of those that are not.
    Marked { marks: Arc<Marks>, marked: bool, len: usize },
}

impl Indices {
    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Listed(list) => list.len(),
            Self::Marked { len, .. } => *len,
        }
    }

    /// One of them; `nth` is less than their number.
    pub fn get(&self, nth: usize) -> usize {
        match self {
            Self::Range(range) => range.start + nth,
            Self::Listed(list) => list[nth],
            Self::Marked { marks, marked, .. } => marks.select(*marked, nth),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|nth| self.get(nth))
    }

    /// The first of them.
    pub fn first(&self, count: usize) -> Self {
        let count = count.min(self.len());
        match self {
            Self::Range(range) => Self::Range(range.start..range.start + count),
            Self::Listed(list) => Self::Listed(list[..count].into()),
            Self::Marked { marks, marked, .. } => Self::Marked { marks: marks.clone(), marked: *marked, len: count },
        }
    }
}

/// A bit for each of a number of signals.
#[derive(Debug)]
pub(super) struct Marks {
    words: Vec<u64>,
    /// Marked ones before each block.
    before: Vec<usize>,
    /// Signals, and those of them that are marked.
    len: usize,
    marked: usize,
}

impl Marks {
    /// A set of which `marks` says, in order, what is marked.
    pub fn new(len: usize, marks: impl Iterator<Item = bool>) -> Self {
        let mut words = vec![0u64; len.div_ceil(BLOCK) * WORDS];
        for (index, _) in marks.take(len).enumerate().filter(|(_, marked)| *marked) {
            words[index / 64] |= 1 << (index % 64);
        }
        let mut marked = 0;
        let before = words.chunks_exact(WORDS).map(|block| {
            let before = marked;
            marked += block.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            before
        });
        let before = before.collect();
        Self { words, before, len, marked }
    }

    /// Those that are marked and those that are not.
    pub fn parts(self) -> [Indices; 2] {
        let marks = Arc::new(self);
        [true, false].map(|marked| Indices::Marked {
            len: if marked { marks.marked } else { marks.len - marks.marked },
            marks: marks.clone(),
            marked,
        })
    }

    /// Where the `nth` one stands that is marked, or that is not.
    fn select(&self, marked: bool, nth: usize) -> usize {
        let before = |block: usize| if marked { self.before[block] } else { block * BLOCK - self.before[block] };
        // The last block that has no more than `nth` before it.
        let (mut low, mut high) = (0, self.before.len());
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if before(middle) <= nth { low = middle } else { high = middle }
        }
        let mut rest = nth - before(low);
        for (at, &word) in self.words[low * WORDS..].iter().enumerate() {
            let mut word = if marked { word } else { !word };
            let ones = word.count_ones() as usize;
            if rest < ones {
                for _ in 0..rest {
                    word &= word - 1;
                }
                return low * BLOCK + at * 64 + word.trailing_zeros() as usize;
            }
            rest -= ones;
        }
        unreachable!("{nth} is less than {}", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_lists() {
        for (len, every) in [(1, 1), (63, 2), (64, 3), (511, 5), (512, 1), (513, 600), (5000, 7), (100_000, 997)] {
            let is_marked = |index: usize| index % every == every / 2;
            let [marked, others] = Marks::new(len, (0..len).map(is_marked)).parts();
            let list = |wanted| (0..len).filter(|&index| is_marked(index) == wanted).collect::<Vec<_>>();
            assert_eq!(marked.iter().collect::<Vec<_>>(), list(true));
            assert_eq!(others.iter().collect::<Vec<_>>(), list(false));
            assert_eq!(others.first(3).iter().collect::<Vec<_>>(), list(false)[..3.min(others.len())]);
        }
    }
}
