//! The order of training signals in an epoch, without a number in memory for each of them.

use crate::data::Source;
use crate::error::{Error, Result};
use crate::random::{Purpose, stream};
use rand::seq::SliceRandom;
use std::ops::Range;

/// Blocks of consecutive signals in a buffer.
const BLOCKS: usize = 64;

/// Refuses steps that would part signals that belong together.
///
/// # Errors
/// Another number of signals.
pub(super) fn check_together(source: &dyn Source, batch_size: usize) -> Result<()> {
    let together = source.together();
    if !batch_size.is_multiple_of(together) {
        let expected = format!("a multiple of {together}, the patches of a window");
        return Err(Error::parameter("batch_size", batch_size, expected));
    }
    Ok(())
}

/// The order of the signals, epoch by epoch: it follows from the seed and the epoch alone.
///
/// Up to `buffer` signals are shuffled as a whole. More are cut into blocks of `buffer`/64 consecutive ones, which lie together in their
/// file; the blocks come at random, 64 at a time, and the signals of so many are shuffled. So a signal can come at any time of an epoch,
/// and those of a step come from 64 places all over the set. In memory there are the signals of one buffer and the blocks' numbers.
#[derive(Debug, Clone)]
pub(super) struct Order {
    count: usize,
    seed: u64,
    /// Signals of a block, and blocks of a buffer.
    block: usize,
    blocks: usize,
    /// Whether one buffer holds all signals.
    whole: bool,
    /// The blocks in their order in an epoch, and where the last one stands, which may be shorter.
    shuffled: Option<(usize, Vec<usize>, usize)>,
    /// The signals of the buffer that was asked for last: of which epoch and which of its buffers.
    filled: Option<([usize; 2], Vec<usize>)>,
}

impl Order {
    /// The order of so many signals.
    pub fn new(count: usize, seed: u64, buffer: usize) -> Self {
        let block = (buffer / BLOCKS).max(1);
        let blocks = (buffer / block).max(1);
        Self { count, seed, block, blocks, whole: count <= buffer, shuffled: None, filled: None }
    }

    /// The signals at some positions of an epoch, as many as there are.
    pub fn indices(&mut self, epoch: usize, positions: Range<usize>) -> Vec<usize> {
        let end = positions.end.min(self.count);
        let mut indices = Vec::with_capacity(end.saturating_sub(positions.start));
        let mut at = positions.start;
        while at < end {
            let (buffer, start) = self.buffer_at(epoch, at);
            let signals = self.fill(epoch, buffer);
            let until = (end - start).min(signals.len());
            indices.extend_from_slice(&signals[at - start..until]);
            at = start + until;
        }
        indices
    }

    /// The buffer that a position lies in, and its first position.
    fn buffer_at(&mut self, epoch: usize, position: usize) -> (usize, usize) {
        if self.whole {
            return (0, 0);
        }
        let (buffer, missing) = (self.block * self.blocks, self.count.div_ceil(self.block) * self.block - self.count);
        let short = self.shuffled(epoch).1 / self.blocks;
        // Behind the buffer with the short block everything begins earlier.
        match position < (short + 1) * buffer - missing {
            true => (position / buffer, position / buffer * buffer),
            false => {
                let number = (position + missing) / buffer;
                (number, number * buffer - missing)
            }
        }
    }

    fn shuffled(&mut self, epoch: usize) -> (&[usize], usize) {
        if self.shuffled.as_ref().is_none_or(|(of, ..)| *of != epoch) {
            let count = self.count.div_ceil(self.block);
            let mut blocks: Vec<usize> = (0..count).collect();
            blocks.shuffle(&mut stream(self.seed, Purpose::Order, epoch as u64));
            let last = blocks.iter().position(|&block| block + 1 == count).unwrap_or(0);
            self.shuffled = Some((epoch, blocks, last));
        }
        self.shuffled.as_ref().map_or((&[], 0), |(_, blocks, last)| (blocks, *last))
    }

    fn fill(&mut self, epoch: usize, buffer: usize) -> &[usize] {
        if self.filled.as_ref().is_none_or(|(of, _)| *of != [epoch, buffer]) {
            let mut signals: Vec<usize> = Vec::new();
            let mut generator = if self.whole {
                signals.extend(0..self.count);
                stream(self.seed, Purpose::Order, epoch as u64)
            } else {
                let (block, count, start) = (self.block, self.count, buffer * self.blocks);
                let end = start + self.blocks;
                let (blocks, _) = self.shuffled(epoch);
                for number in &blocks[start..end.min(blocks.len())] {
                    signals.extend(number * block..((number + 1) * block).min(count));
                }
                // Epochs are fewer than 2²⁴; so are buffers.
                stream(self.seed, Purpose::Buffer, ((epoch as u64) << 24) | (buffer as u64 & 0xff_ffff))
            };
            signals.shuffle(&mut generator);
            self.filled = Some(([epoch, buffer], signals));
        }
        self.filled.as_ref().map_or(&[], |(_, signals)| signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the order of a set was before there were buffers.
    fn whole(count: usize, seed: u64, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut stream(seed, Purpose::Order, epoch as u64));
        order
    }

    #[test]
    fn sets_that_fit_are_shuffled_as_a_whole() {
        for count in [1, 2, 63, 64, 1000] {
            for epoch in [0, 1, 7] {
                assert_eq!(Order::new(count, 3, 1000).indices(epoch, 0..usize::MAX), whole(count, 3, epoch));
            }
        }
        assert_ne!(Order::new(1001, 3, 1000).indices(0, 0..1001), whole(1001, 3, 0));
    }

    /// Every signal comes once an epoch; any part of it is what the whole epoch has there, whatever was asked for before.
    #[test]
    fn every_signal_once_and_from_anywhere() {
        for (count, buffer) in [(1000, 64), (1001, 100), (4096, 128), (5000, 640), (641, 640), (65, 64), (130, 65)] {
            let mut order = Order::new(count, 5, buffer);
            let epochs: Vec<Vec<usize>> = (0..3).map(|epoch| order.indices(epoch, 0..count)).collect();
            for epoch in &epochs {
                let mut sorted = epoch.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..count), "{count} {buffer}");
            }
            assert_ne!(epochs[0], epochs[1]);
            for (epoch, start) in [(2, 17), (0, count - 30), (1, count / 2), (1, 0)] {
                let end = (start + 61).min(count);
                assert_eq!(order.indices(epoch, start..start + 61), epochs[epoch][start..end]);
                assert_eq!(Order::new(count, 5, buffer).indices(epoch, start..end), epochs[epoch][start..end]);
            }
        }
    }

    /// Signals of a step come from all over the set, and a signal comes at any time: means of positions are as for a random order.
    #[test]
    fn far_from_the_order_of_the_file() {
        let (count, buffer) = (100_000, 6400);
        let order = Order::new(count, 1, buffer).indices(0, 0..count);
        for step in order.chunks(500) {
            // The standard deviation of the mean of 64 uniform places is 0.036 of the set; five of them.
            let mean = step.iter().sum::<usize>() as f64 / step.len() as f64 / count as f64;
            assert!((mean - 0.5).abs() < 0.2, "{mean}");
        }
        let neighbours = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        // In a buffer of 6,400 a neighbour comes next with a chance of 2 in 6,400.
        assert!(neighbours < 100, "{neighbours}");
    }

    #[test]
    fn memory_is_that_of_a_buffer() {
        let mut order = Order::new(100_000_000, 0, 1 << 18);
        let step = order.indices(3, 50_000_000..50_000_256);
        assert_eq!(step.len(), 256);
        assert_eq!(order.filled.as_ref().unwrap().1.len(), 1 << 18);
        assert_eq!(order.shuffled.as_ref().unwrap().1.len(), 100_000_000usize.div_ceil(4096));
    }
}
