//! Sums over many batches that are the same to the last bit however the batches are shared out among processes.
//!
//! Batches are added up two by two along a fixed tree: 0 and 1, 2 and 3, then both pairs, and so on. A process that has some batches in
//! a row keeps the sums of the largest subtrees within them, which are no more than twice the logarithm of their number; whoever joins
//! those of all processes goes on as if it had added all batches itself. (Pairwise summation also loses fewer digits.)

use super::DiagnosticsSums;
use serde::{Deserialize, Serialize};

/// What can be added up.
pub trait Sums {
    /// Adds the sums over what comes after.
    fn merge(&mut self, later: &Self);
}

/// Sums over batches in a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SumTree<S> {
    nodes: Vec<Node<S>>,
}

/// Sums over the batches `index`·2^`level` to (`index` + 1)·2^`level` − 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Node<S> {
    level: u32,
    index: u64,
    sums: S,
}

impl<S> Default for SumTree<S> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<S: Sums> SumTree<S> {
    /// Adds the sums over batch `index`, the one after those that are there.
    pub fn push(&mut self, index: usize, sums: S) {
        self.add(Node { level: 0, index: index as u64, sums });
    }

    /// Adds those over later batches, the first of which follows the last of these.
    pub fn extend(&mut self, later: Self) {
        later.nodes.into_iter().for_each(|node| self.add(node));
    }

    fn add(&mut self, mut node: Node<S>) {
        while let Some(last) = self
            .nodes
            .pop_if(|last| last.level == node.level && last.index.is_multiple_of(2) && last.index + 1 == node.index)
        {
            let Node { level, index, mut sums } = last;
            sums.merge(&node.sums);
            node = Node { level: level + 1, index: index / 2, sums };
        }
        self.nodes.push(node);
    }

    /// The sums over all batches; `None` of none.
    pub fn total(self) -> Option<S> {
        self.nodes.into_iter().map(|node| node.sums).reduce(|mut sums, later| {
            sums.merge(&later);
            sums
        })
    }

    /// Which batches they are, in a row from the first to before the last; `None` where they are not in a row.
    pub fn batches(&self) -> Option<std::ops::Range<u64>> {
        let mut range: Option<std::ops::Range<u64>> = None;
        for node in &self.nodes {
            let size = 1u64.checked_shl(node.level)?;
            let start = node.index.checked_mul(size)?;
            let end = start.checked_add(size)?;
            range = match range {
                None => Some(start..end),
                Some(before) if before.end == start => Some(before.start..end),
                Some(_) => return None,
            };
        }
        range
    }
}

impl SumTree<DiagnosticsSums> {
    /// Whether the sums of both are of codes and signals of the same shapes.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) fn all_fit(&self, other: &Self) -> bool {
        let mut all = self.nodes.iter().chain(&other.nodes).map(|node| &node.sums);
        all.next().is_none_or(|first| all.all(|sums| first.fits(sums)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sums for f64 {
        fn merge(&mut self, later: &Self) {
            *self += later;
        }
    }

    /// Parts of any lengths come to the bits of the whole.
    #[test]
    fn the_parts_do_not_matter() {
        let value = |index: usize| 1.0 / (3.0 + index as f64) * if index.is_multiple_of(3) { 1e9 } else { -1.0 };
        let tree = |range: std::ops::Range<usize>| {
            let mut tree = SumTree::default();
            range.for_each(|index| tree.push(index, value(index)));
            tree
        };
        for count in [1, 2, 7, 64, 100, 1001] {
            let whole = tree(0..count).total().unwrap();
            for parts in [2, 3, 5, 17] {
                let mut joined = SumTree::<f64>::default();
                for part in 0..parts {
                    let part = tree(part * count / parts..(part + 1) * count / parts);
                    assert!(part.nodes.len() <= 2 * 11);
                    let text = serde_json::to_string(&part).unwrap();
                    joined.extend(serde_json::from_str(&text).unwrap());
                }
                assert_eq!(joined.batches(), Some(0..count as u64));
                assert_eq!(joined.total().unwrap().to_bits(), whole.to_bits(), "{count} {parts}");
            }
        }
        assert_eq!(SumTree::<f64>::default().total(), None);
        let mut apart = tree(0..2);
        apart.extend(tree(3..4));
        assert_eq!((apart.batches(), SumTree::<f64>::default().batches()), (None, None));
    }
}
