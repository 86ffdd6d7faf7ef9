//! The columns of a dictionary and their inner products at every shift, in `f64`, each with a bound of its error.
//!
//! Columns are held as windows as large as the atoms. Whole ones are alike wherever they are; those that padding crops differ by their
//! distance from the border, so that a few positions stand for all.

use super::cascade::Cascade;
use super::rounding::{accumulated, up};
use crate::error::{Error, Result};
use crate::geometry::{LayerGeometry, SignalShape, reach_within};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// Values of columns that are held at once for a dictionary whose atoms are cropped (2²⁷: 1 GiB).
const MAX_VALUES: usize = 1 << 27;

/// Multiplications that are spent on the inner products of such a dictionary (2³⁸: half a minute).
const MAX_PRODUCTS: usize = 1 << 38;

/// Copies that are named at most.
pub(super) const MAX_COPIES: usize = 100;

/// Coherences below this are looked at once more, for pairs of columns that share no entry.
const NEXT_TO_NOTHING: f64 = 1e-9;

/// Two columns of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ColumnPair {
    /// Their atoms, counted from 0.
    pub atoms: [usize; 2],
    /// Rows and columns of their positions in the code; where nothing is cropped, any other two as far apart will do as well.
    pub positions: [[usize; 2]; 2],
}

/// One axis of the code: at both ends so many positions at which columns may be cropped.
#[derive(Debug, Clone, Copy)]
struct Axis {
    positions: usize,
    border: usize,
}

/// Positions along one axis that stand for all that are alike: two of them, how far they are apart, and where the first is.
type AxisPair = ([usize; 2], isize, usize);

impl Axis {
    fn classes(&self) -> usize {
        self.positions.min(2 * self.border + 1)
    }

    fn class(&self, position: usize) -> usize {
        let from_end = self.positions - position;
        match self.classes() < self.positions && position > self.border {
            true => (self.classes() - from_end.min(self.border + 1)).max(self.border),
            false => position,
        }
    }

    fn position(&self, class: usize) -> usize {
        if class > self.border { class + self.positions - self.classes() } else { class }
    }

    fn pairs(&self, reach: usize) -> Vec<AxisPair> {
        let mut found = BTreeMap::new();
        for first in 0..self.positions {
            for second in first.saturating_sub(reach)..=(first + reach).min(self.positions - 1) {
                let key = ([self.class(first), self.class(second)], second as isize - first as isize);
                found.entry(key).or_insert(first);
            }
        }
        found.into_iter().map(|((classes, shift), first)| (classes, shift, first)).collect()
    }
}

/// What is certain of one column.
#[derive(Debug, Clone, Copy)]
struct Column {
    /// At most ‖d‖.
    least: f64,
    /// At least ‖d‖.
    most: f64,
    /// At least the length of the column's error.
    error: f64,
    /// Whether an entry was computed as zero that something reached.
    hidden: bool,
}

/// The columns of all atoms at one position.
#[derive(Debug)]
struct Class {
    /// `[atom, channel, row, column]`.
    values: Vec<f64>,
    columns: Vec<Column>,
}

/// The columns of one dictionary.
#[derive(Debug)]
pub(super) struct Columns {
    atoms: usize,
    /// Channels, rows and columns of a window.
    window: [usize; 3],
    stride: [usize; 2],
    reach: [usize; 2],
    axes: [Axis; 2],
    classes: Vec<Class>,
}

/// The largest coherence at one shift.
#[derive(Debug, Clone)]
pub(super) struct AtShift {
    pub shift: [isize; 2],
    /// At least the exact one, at most 1.
    pub coherence: f64,
    /// The pair that has it; `None` if no two columns share an entry.
    pub pair: Option<ColumnPair>,
    /// Pairs that may be copies of each other: the first [`MAX_COPIES`], and how many there are.
    pub copies: (Vec<ColumnPair>, usize),
}

impl Columns {
    /// Of filters whose atoms are counted whole.
    pub(super) fn whole(filters: &[f32], layer: &LayerGeometry) -> Self {
        let values: Vec<f64> = filters.iter().map(|&value| value.into()).collect();
        let columns = values.chunks_exact(layer.atom_len()).map(|atom| Column::new(atom, atom, 0.0)).collect();
        Self {
            atoms: layer.code.channels,
            window: [layer.signal.channels, layer.kernel[0], layer.kernel[1]],
            stride: layer.stride,
            reach: layer.reach(),
            axes: [layer.code.height, layer.code.width].map(|positions| Axis { positions, border: 0 }),
            classes: vec![Class { values, columns }],
        }
    }

    /// Of D_1 … D_L as they are, cropped where padding crops them.
    ///
    /// # Errors
    /// Padding with so many and so large atoms that their columns exceed 2²⁷ values or their inner products 2³⁸ multiplications.
    pub(super) fn new(cascade: &Cascade) -> Result<Self> {
        let geometry = cascade.geometry();
        let (depth, SignalShape { channels: atoms, height, width }) = (geometry.depth(), geometry.code());
        let (effective, border) = (geometry.effective(depth), geometry.border(depth));
        let positions = [height, width];
        let axes = std::array::from_fn(|axis| Axis { positions: positions[axis], border: border[axis] });
        let mut this = Self {
            atoms,
            window: [effective.channels, effective.kernel[0], effective.kernel[1]],
            stride: effective.stride,
            reach: reach_within(effective.kernel, effective.stride, positions),
            axes,
            classes: Vec::new(),
        };
        this.check_size()?;
        let error = cascade.column_error();
        this.classes = (0..axes[0].classes() * axes[1].classes())
            .map(|class| {
                let (down, across) = (class / axes[1].classes(), class % axes[1].classes());
                let position = [axes[0].position(down), axes[1].position(across)];
                let windows = (0..atoms).into_par_iter().map(|atom| cascade.column(atom, position));
                let windows = windows.map(|map| (Column::new(&map.values, &map.magnitudes, error), map.values));
                let (columns, values): (Vec<Column>, Vec<Vec<f64>>) = windows.unzip();
                Class { values: values.concat(), columns }
            })
            .collect();
        Ok(this)
    }

    /// Refuses what would take too much memory or time; whole atoms take no more than their model does.
    fn check_size(&self) -> Result<()> {
        let classes = self.axes[0].classes() * self.axes[1].classes();
        let values = [self.atoms, self.window[0], self.window[1], self.window[2]]
            .into_iter()
            .fold(classes, usize::saturating_mul);
        let [vertical, horizontal] = [0, 1].map(|axis| -> usize {
            let shifts = self.axes[axis].pairs(self.reach[axis]).into_iter().map(|(_, shift, _)| shift.unsigned_abs());
            shifts.map(|shift| self.window[axis + 1] - shift * self.stride[axis]).sum()
        });
        let products = [vertical, horizontal, self.window[0], self.atoms, self.atoms];
        let products = products.into_iter().fold(1, usize::saturating_mul) / 2;
        if classes > 1 && (values > MAX_VALUES || products > MAX_PRODUCTS) {
            return Err(Error::parameter(
                "columns of a padded dictionary",
                format!("{values} values, {products} products"),
                format!("at most {MAX_VALUES} values, and {MAX_PRODUCTS} products of them, for its coherence"),
            ));
        }
        Ok(())
    }

    /// Largest shift at which two columns overlap, in code positions per axis.
    pub(super) fn reach(&self) -> [usize; 2] {
        self.reach
    }

    /// Bounds of every column's norm from below and above, in the order of the code's values.
    pub(super) fn norms(&self) -> Vec<[f64; 2]> {
        let mut norms = Vec::with_capacity(self.atoms * self.axes[0].positions * self.axes[1].positions);
        for atom in 0..self.atoms {
            for row in 0..self.axes[0].positions {
                let row = self.axes[0].class(row) * self.axes[1].classes();
                norms.extend((0..self.axes[1].positions).map(|column| {
                    let column = self.classes[row + self.axes[1].class(column)].columns[atom];
                    [column.least, column.most]
                }));
            }
        }
        norms
    }

    /// The largest coherence at one shift of every pair of opposite ones. Columns that are zero count as orthogonal to all others; for
    /// columns of which it is not certain whether they are, nothing better than 1 is.
    pub(super) fn coherences(&self) -> Vec<AtShift> {
        let [vertical, horizontal] = [0, 1].map(|axis| self.axes[axis].pairs(self.reach[axis]));
        let mut found = BTreeMap::<[isize; 2], AtShift>::new();
        for &(rows, down, top) in &vertical {
            for &(columns, across, left) in &horizontal {
                let shift = [down, across];
                if shift >= [0, 0] {
                    let classes = [0, 1].map(|end| rows[end] * self.axes[1].classes() + columns[end]);
                    let here = self.between(classes, shift, [top, left]);
                    match found.get_mut(&shift) {
                        Some(known) => known.join(here),
                        None => _ = found.insert(shift, here),
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// The largest coherence between the columns of two classes, the first at `position`.
    fn between(&self, classes: [usize; 2], shift: [isize; 2], position: [usize; 2]) -> AtShift {
        let same = shift == [0, 0];
        let [first, second] = classes.map(|class| &self.classes[class]);
        let parts = [self.part(&first.values, shift, false), self.part(&second.values, shift, true)];
        let len = parts[0].len() / self.atoms;
        let error = accumulated(len + 2);
        let products = Products { parts: &parts, len, same };
        // A sum of products is off by no more than its share of the columns' lengths.
        // A column that may be zero is no copy: nothing is known of its direction.
        let is_copy = |row: usize, column: usize| first.columns[row].least > 0.0 && second.columns[column].least > 0.0;
        let coherence =
            |row: usize, column: usize, inner| first.columns[row].coherence(&second.columns[column], inner, error);
        let mut found = products.fold(coherence, is_copy);
        if found.largest.is_some_and(|(coherence, _)| coherence < NEXT_TO_NOTHING) {
            let magnitudes = parts.each_ref().map(|part| part.iter().map(|value| value.abs()).collect::<Vec<f64>>());
            let shared = Products { parts: &magnitudes, len, same };
            // Columns that share no entry are orthogonal, exactly.
            let apart = |row: usize, column: usize, inner: f64| {
                let columns = [&first.columns[row], &second.columns[column]];
                let disjoint = inner == 0.0 && columns.iter().all(|column| !column.hidden);
                if disjoint { 0.0 } else { columns[0].coherence(columns[1], inner, error) }
            };
            let shared = shared.fold(apart, is_copy);
            if shared.largest.is_none() {
                found = shared;
            }
        }
        let moved = std::array::from_fn(|axis| position[axis].wrapping_add_signed(shift[axis]));
        let name = |(row, column): (usize, usize)| ColumnPair { atoms: [row, column], positions: [position, moved] };
        AtShift {
            shift,
            coherence: found.largest.map_or(0.0, |(coherence, _)| coherence),
            pair: found.largest.map(|(_, pair)| name(pair)),
            copies: (found.copies.into_iter().map(name).collect(), found.count),
        }
    }

    /// The part of every window that overlaps those of columns a shift further on, or, of these, the part that overlaps ours.
    fn part(&self, values: &[f64], shift: [isize; 2], moved: bool) -> Vec<f64> {
        let [channels, height, width] = self.window;
        let range = |axis: usize, extent: usize| {
            let by = shift[axis].unsigned_abs() * self.stride[axis];
            if (shift[axis] < 0) == moved { by..extent } else { 0..extent - by }
        };
        let (rows, columns) = (range(0, height), range(1, width));
        let mut part = Vec::with_capacity(self.atoms * channels * rows.len() * columns.len());
        for plane in values.chunks_exact(height * width) {
            for row in rows.clone() {
                part.extend_from_slice(&plane[row * width..][columns.clone()]);
            }
        }
        part
    }
}

impl AtShift {
    fn join(&mut self, other: Self) {
        if other.coherence > self.coherence {
            (self.coherence, self.pair) = (other.coherence, other.pair);
        }
        self.copies.1 += other.copies.1;
        let room = MAX_COPIES - self.copies.0.len();
        self.copies.0.extend(other.copies.0.into_iter().take(room));
    }
}

impl Column {
    /// From computed values, the magnitudes that went into them, and the part of these that rounding may have cost.
    fn new(values: &[f64], magnitudes: &[f64], error: f64) -> Self {
        let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let (norm, roundings) = (length(values), accumulated(values.len() + 2));
        let error = if error == 0.0 { 0.0 } else { up(error * length(magnitudes) * (1.0 + roundings), 8) };
        let most = up(norm / (1.0 - roundings) + error, 8);
        // Rounded downwards: what is left of the difference may be little.
        let least = (norm * (1.0 - roundings)).next_down() - error;
        Self {
            least: least.next_down().max(0.0),
            most: if magnitudes.iter().all(|magnitude| *magnitude == 0.0) { 0.0 } else { most },
            error,
            hidden: values.iter().zip(magnitudes).any(|(value, magnitude)| *value == 0.0 && *magnitude != 0.0),
        }
    }

    /// At least the exact |〈d, d'〉|/(‖d‖‖d'‖), from an inner product whose rounding error is at most that part of the columns' lengths.
    #[inline(always)]
    fn coherence(&self, other: &Self, inner: f64, error: f64) -> f64 {
        if self.most == 0.0 || other.most == 0.0 {
            return 0.0;
        }
        let errors = error * self.most * other.most
            + (self.error * other.most + other.error * self.most + self.error * other.error);
        let bound = up((inner.abs() + errors) / (self.least * other.least), 16);
        // No two directions are closer than equal ones; where columns may be zero, and where the division fails, nothing is known.
        if bound < 1.0 { bound } else { 1.0 }
    }
}

/// Inner products of the rows of two matrices, of every row of the one with every row of the other, or, if they are the same, of every
/// two rows.
struct Products<'a> {
    parts: &'a [Vec<f64>; 2],
    len: usize,
    same: bool,
}

/// The largest of the coherences that were looked at, and those that are 1.
#[derive(Debug, Default)]
struct Found {
    /// `None` where all are zero.
    largest: Option<(f64, (usize, usize))>,
    copies: Vec<(usize, usize)>,
    count: usize,
}

/// Rows of the first matrix that one task multiplies.
const TASK: usize = 16;

impl Products<'_> {
    /// Turns every inner product of rows (i, j) into a coherence and keeps the largest; the first of equal ones. Of pairs whose
    /// coherence is 1, `is_copy` says whether they may be copies.
    fn fold(
        &self,
        coherence: impl Fn(usize, usize, f64) -> f64 + Sync,
        is_copy: impl Fn(usize, usize) -> bool + Sync,
    ) -> Found {
        let Self { parts: [first, second], len, same } = self;
        let rows = first.len() / len;
        let of_task = |start: usize| {
            let end = (start + TASK).min(rows);
            let skipped = if *same { start } else { 0 };
            let mut products = vec![0.0; (end - start) * (rows - skipped)];
            multiply(&first[start * len..end * len], &second[skipped * len..], *len, &mut products);
            let mut found = Found::default();
            for (row, products) in (start..end).zip(products.chunks_exact(rows - skipped)) {
                let from = if *same { row + 1 - skipped } else { 0 };
                for (column, &inner) in products.iter().enumerate().skip(from) {
                    let pair = (row, column + skipped);
                    let value = coherence(pair.0, pair.1, inner);
                    if value > found.largest.map_or(0.0, |(largest, _)| largest) {
                        found.largest = Some((value, pair));
                    }
                    if value >= 1.0 && is_copy(pair.0, pair.1) {
                        found.count += 1;
                        if found.copies.len() < MAX_COPIES {
                            found.copies.push(pair);
                        }
                    }
                }
            }
            found
        };
        let starts: Vec<usize> = (0..rows).step_by(TASK).collect();
        let tasks: Vec<Found> = starts.into_par_iter().map(of_task).collect();
        tasks.into_iter().fold(Found::default(), |mut all, task| {
            if task.largest.map(|(value, _)| value) > all.largest.map(|(value, _)| value) {
                all.largest = task.largest;
            }
            all.count += task.count;
            let room = MAX_COPIES - all.copies.len();
            all.copies.extend(task.copies.into_iter().take(room));
            all
        })
    }
}

/// Inner products of all rows of two matrices whose rows are `len` long: `out[i, j]` is that of row i of the first with row j of the
/// second. Every term goes through at most `len` + 1 roundings.
fn multiply(first: &[f64], second: &[f64], len: usize, out: &mut [f64]) {
    Arch::new().dispatch(Multiply { first, second, len, out });
}

struct Multiply<'a> {
    first: &'a [f64],
    second: &'a [f64],
    len: usize,
    out: &'a mut [f64],
}

/// Entries of so many rows of the second matrix that stay in the cache while rows of the first pass by.
const STRIP: usize = 512;
const GROUP: usize = 64;

/// Rows of the first and of the second matrix that are multiplied at once, so that an entry is loaded once for all of them.
const BLOCK: [usize; 2] = [4, 2];

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { first, second, len, out } = self;
        let (rows, columns) = (first.len() / len, second.len() / len);
        for start in (0..len).step_by(STRIP) {
            let strip = start..(start + STRIP).min(len);
            for group in (0..columns).step_by(GROUP) {
                let group = group..(group + GROUP).min(columns);
                // Blocks at the end take their last row again for those that are missing.
                for row in (0..rows).step_by(BLOCK[0]) {
                    let left: [&[f64]; BLOCK[0]] =
                        std::array::from_fn(|index| &first[(row + index).min(rows - 1) * len..][strip.clone()]);
                    for column in group.clone().step_by(BLOCK[1]) {
                        let place = |index: usize| (column + index).min(group.end - 1) * len;
                        let right: [&[f64]; BLOCK[1]] =
                            std::array::from_fn(|index| &second[place(index)..][strip.clone()]);
                        let sums = block(simd, left, right);
                        for (index, sums) in sums.iter().enumerate().take(rows - row) {
                            for (other, sum) in sums.iter().enumerate().take(group.end - column) {
                                out[(row + index) * columns + column + other] += sum;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Inner products of a few rows with a few others, all of one length.
#[inline(always)]
fn block<S: Simd>(simd: S, left: [&[f64]; BLOCK[0]], right: [&[f64]; BLOCK[1]]) -> [[f64; BLOCK[1]]; BLOCK[0]] {
    let (mut lefts, mut rights) = ([(&[][..], &[][..]); BLOCK[0]], [(&[][..], &[][..]); BLOCK[1]]);
    for (vectors, row) in lefts.iter_mut().zip(left) {
        *vectors = S::as_simd_f64s(row);
    }
    for (vectors, row) in rights.iter_mut().zip(right) {
        *vectors = S::as_simd_f64s(row);
    }
    let mut sums = [[simd.splat_f64s(0.0); BLOCK[1]]; BLOCK[0]];
    for place in 0..rights[0].0.len() {
        for (sums, left) in sums.iter_mut().zip(&lefts) {
            for (sum, right) in sums.iter_mut().zip(&rights) {
                *sum = simd.mul_add_f64s(left.0[place], right.0[place], *sum);
            }
        }
    }
    let mut out = [[0.0; BLOCK[1]]; BLOCK[0]];
    for row in 0..BLOCK[0] {
        for column in 0..BLOCK[1] {
            let rest = lefts[row].1.iter().zip(rights[column].1).map(|(left, right)| left * right).sum::<f64>();
            out[row][column] = simd.reduce_sum_f64s(sums[row][column]) + rest;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_inner_products() {
        for (len, rows, columns) in [(1, 1, 1), (7, 3, 2), (64, 9, 5), (1300, 5, 7)] {
            let values = |count: usize, by: usize| -> Vec<f64> {
                (0..count).map(|place| (place * by % 103) as f64 - 51.0).collect()
            };
            let (first, second) = (values(rows * len, 37), values(columns * len, 59));
            let mut out = vec![0.0; rows * columns];
            multiply(&first, &second, len, &mut out);
            for (index, found) in out.iter().enumerate() {
                let (row, column) = (&first[index / columns * len..][..len], &second[index % columns * len..][..len]);
                // Whole numbers: exact.
                assert_eq!(*found, row.iter().zip(column).map(|(a, b)| a * b).sum::<f64>());
            }
        }
    }

    #[test]
    fn positions_are_classed_by_their_distance_from_the_border() {
        for (positions, border) in [(1, 0), (5, 0), (1, 2), (4, 2), (5, 2), (6, 2), (9, 2), (7, 1)] {
            let axis = Axis { positions, border };
            for position in 0..positions {
                let class = axis.class(position);
                assert!(class < axis.classes(), "{positions} {border} {position}");
                let alike = axis.position(class);
                assert_eq!(axis.class(alike), class);
                let whole = |place: usize| place >= border && positions - place > border;
                assert!(
                    alike == position || whole(alike) && whole(position),
                    "{positions} {border} {position}: {alike}"
                );
            }
            for (classes, shift, first) in axis.pairs(2) {
                assert_eq!(classes, [axis.class(first), axis.class(first.wrapping_add_signed(shift))]);
                assert!(shift.unsigned_abs() <= 2);
            }
        }
    }
}
