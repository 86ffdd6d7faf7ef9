//! Convolutions of many small signals at a time, each signal a lane of the vectors.
//!
//! Where a code has few positions the rows of [`crate::kernels::convolution`] are shorter than vectors, and a matrix product has to copy
//! windows first. Here a batch is cut into chunks of [`SIGNALS`] signals, which are transposed once, so that value and lane
//! change places; a weight then meets that many signals at once, whatever the sizes, strides and phases. What is computed is what
//! [`Parts`] says; taps that see only padding are left out.

use crate::geometry::LayerGeometry;
use crate::kernels::convolution::{Parts, unrolled};
use crate::kernels::sparse::HostFilters;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Signals of a chunk: a multiple of the lanes of two vectors of any machine.
const SIGNALS: usize = 32;

/// Signals from which on this is faster than what else there is.
const MANY: usize = 2 * SIGNALS;

/// Code positions up to which a matrix product with windows is as fast.
const FEW_POSITIONS: usize = 8;

/// Outputs of a grid point up to which most of a block would be empty.
const FEW_OUTPUTS: usize = 2;

/// Outputs of a grid point whose weights lie side by side.
const WIDE: usize = 8;

/// Vectors of signals in registers.
const VECTORS: usize = 2;

/// Values that are transposed at a time.
const TILE: usize = 16;

/// Whether Dᵀx of so many signals is better computed here: full blocks of outputs, and more positions than a few.
pub(crate) fn suits_analysis(count: usize, geometry: &LayerGeometry) -> bool {
    let code = geometry.code;
    count >= MANY && code.channels >= 2 * WIDE && code.height * code.width > FEW_POSITIONS
}

/// Whether Dγ of so many signals is better computed here: enough outputs at a grid point.
pub(crate) fn suits_synthesis(count: usize, geometry: &LayerGeometry) -> bool {
    count >= MANY && geometry.signal.channels * geometry.stride[0] * geometry.stride[1] > FEW_OUTPUTS
}

/// Whether the gradient of so many signals is better, and can be, computed here.
pub(crate) fn suits_gradient(count: usize, geometry: &LayerGeometry) -> bool {
    count >= MANY && geometry.padding == [0, 0]
}

/// Dᵀx of a batch. Shapes as [`crate::kernels::convolution::Convolution::analyze_into`].
///
/// # Panics
/// If the lengths do not fit the geometry and each other.
pub(crate) fn analyze(filters: &HostFilters, geometry: &LayerGeometry, signals: &[f32], out: &mut [f32]) {
    Batched::new(Parts::analysis(filters, geometry)).apply(signals, out);
}

/// Dγ of a batch. Shapes as [`crate::kernels::convolution::Convolution::synthesize_into`].
///
/// # Panics
/// If the lengths do not fit the geometry and each other.
pub(crate) fn synthesize(filters: &HostFilters, geometry: &LayerGeometry, codes: &[f32], out: &mut [f32]) {
    Batched::new(Parts::synthesis(filters, geometry)).apply(codes, out);
}

/// A correlation made ready.
struct Batched<'a> {
    parts: Parts<'a>,
    /// `[blocks of WIDE outputs, channels, taps, WIDE]`.
    weights: Vec<f32>,
    /// Which rows, then which columns of taps see the input at some point of the grid.
    seen: [Seen; 2],
    /// For every pair of different ranges of rows and columns the taps of one channel.
    taps: Vec<Vec<Tap>>,
}

/// The taps of one direction that see the input at the points of the grid.
struct Seen {
    /// All different ranges.
    ranges: Vec<Range<usize>>,
    /// Which of them it is, for every point.
    of_point: Vec<usize>,
}

impl Seen {
    /// - size: of the input; before: zeros before it
    fn new(points: usize, stride: usize, before: usize, size: usize, taps: usize) -> Self {
        let mut ranges = Vec::new();
        let mut index = |point: usize| {
            let corner = point * stride;
            let from = before.saturating_sub(corner).min(taps);
            let range = from..(size + before).saturating_sub(corner).clamp(from, taps);
            ranges.iter().position(|known| *known == range).unwrap_or_else(|| {
                ranges.push(range);
                ranges.len() - 1
            })
        };
        let of_point = (0..points).map(&mut index).collect();
        Self { ranges, of_point }
    }

    fn at(&self, point: usize) -> (usize, &Range<usize>) {
        let index = self.of_point[point];
        (index, &self.ranges[index])
    }
}

/// A tap that sees the input.
#[derive(Debug, Clone, Copy)]
struct Tap {
    /// Its distance in the channel from the first one that sees it, in [`SIGNALS`].
    offset: usize,
    /// Its number among the channel's.
    number: usize,
}

impl<'a> Batched<'a> {
    fn new(parts: Parts<'a>) -> Self {
        let Parts { input, grid, input_stride, before, taps: [rows, columns], .. } = parts;
        let (outputs, window) = (parts.targets.len(), rows * columns);
        let mut weights = vec![0.0; outputs.div_ceil(WIDE) * input.channels * window * WIDE];
        weights.par_chunks_exact_mut(input.channels * window * WIDE).enumerate().for_each(|(block, weights)| {
            for output in block * WIDE..outputs.min((block + 1) * WIDE) {
                for (tap, weights) in weights.chunks_exact_mut(WIDE).enumerate() {
                    let (channel, tap) = (tap / window, tap % window);
                    weights[output % WIDE] = (parts.weight)(output, [channel, tap / columns, tap % columns]);
                }
            }
        });
        let (size, shape) = ([input.height, input.width], [rows, columns]);
        let seen: [Seen; 2] = std::array::from_fn(|axis| {
            Seen::new(grid[axis], input_stride[axis], before[axis], size[axis], shape[axis])
        });
        let mut taps = Vec::new();
        for e in &seen[0].ranges {
            for f in &seen[1].ranges {
                let tap = |row: usize, column: usize| Tap {
                    offset: (row - e.start) * input.width + column - f.start,
                    number: row * columns + column,
                };
                taps.push(e.clone().flat_map(|row| f.clone().map(move |column| tap(row, column))).collect());
            }
        }
        Self { parts, weights, seen, taps }
    }

    fn apply(&self, inputs: &[f32], outputs: &mut [f32]) {
        let Parts { input, output, grid, targets, taps, .. } = &self.parts;
        let count = inputs.len() / input.len();
        assert_eq!(inputs.len(), count * input.len(), "input of a convolution");
        assert_eq!(outputs.len(), count * output.len(), "output of a convolution");
        let points = grid[0] * grid[1] * SIGNALS;
        let of_block = input.channels * taps[0] * taps[1] * WIDE;
        let room = || (vec![0.0; input.len() * SIGNALS], vec![0.0; targets.len() * points]);
        let chunks = inputs.par_chunks(SIGNALS * input.len()).zip(outputs.par_chunks_mut(SIGNALS * output.len()));
        chunks.for_each_init(room, |(lanes, sums), (inputs, outputs)| {
            to_lanes(inputs, input.len(), lanes);
            let blocks = sums.par_chunks_mut(WIDE * points).zip(self.weights.par_chunks(of_block));
            blocks.for_each(|(sums, weights)| {
                pulp::Arch::new().dispatch(Block { plan: self, input: lanes, weights, sums });
            });
            for (sums, target) in sums.chunks_exact(points).zip(targets) {
                for (row, sums) in sums.chunks_exact(grid[1] * SIGNALS).enumerate() {
                    let y = (row * self.parts.output_stride[0]) as isize + target.row;
                    if (0..output.height as isize).contains(&y) {
                        let first = (target.channel * output.height + y as usize) * output.width;
                        let place = (target.column, self.parts.output_stride[1]);
                        from_lanes(sums, outputs, output.len(), first..first + output.width, place);
                    }
                }
            }
        });
    }
}

/// Transposes up to [`SIGNALS`] signals of some length to `[length, SIGNALS]`; lanes without a signal are zero.
fn to_lanes(signals: &[f32], len: usize, lanes: &mut [f32]) {
    if signals.len() < len * SIGNALS {
        lanes.fill(0.0);
    }
    for (tile, lanes) in lanes.chunks_mut(TILE * SIGNALS).enumerate() {
        for (lane, signal) in signals.chunks_exact(len).enumerate() {
            let values = &signal[tile * TILE..];
            for (values, &value) in lanes.chunks_exact_mut(SIGNALS).zip(values) {
                values[lane] = value;
            }
        }
    }
}

/// Puts a row of grid points, `[columns, SIGNALS]`, into the `row` of every signal of some length: the first at the first column
/// of `place`, the next ones its second further, those outside nowhere.
fn from_lanes(lanes: &[f32], signals: &mut [f32], len: usize, row: Range<usize>, place: (isize, usize)) {
    let (first, stride) = place;
    let skipped = (-first).max(0) as usize;
    let skipped = skipped.div_ceil(stride);
    let start = (first + (skipped * stride) as isize) as usize;
    for (tile, lanes) in lanes.chunks(TILE * SIGNALS).enumerate() {
        let before = skipped.saturating_sub(tile * TILE);
        let start = start + (tile * TILE).saturating_sub(skipped) * stride;
        for (lane, signal) in signals.chunks_exact_mut(len).enumerate() {
            let row = signal[row.clone()].iter_mut().skip(start).step_by(stride);
            for (value, lanes) in row.zip(lanes.chunks_exact(SIGNALS).skip(before)) {
                *value = lanes[lane];
            }
        }
    }
}

/// Some outputs of all grid points of a chunk.
struct Block<'a, 'b> {
    plan: &'a Batched<'a>,
    /// `[values of the input, SIGNALS]`.
    input: &'a [f32],
    /// `[taps of all channels, WIDE]`.
    weights: &'a [f32],
    /// `[outputs, grid points, SIGNALS]`.
    sums: &'b mut [f32],
}

impl WithSimd for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let [rows, columns] = self.plan.parts.grid;
        let outputs = self.sums.len() / (rows * columns * SIGNALS);
        for row in 0..rows {
            for column in 0..columns {
                match S::REGISTER_COUNT >= 32 && outputs > WIDE / 2 {
                    true => self.point::<S, WIDE>(simd, [row, column], outputs),
                    false => self.point::<S, { WIDE / 2 }>(simd, [row, column], outputs),
                }
            }
        }
    }
}

impl Block<'_, '_> {
    /// One grid point, `OUTPUTS` outputs at a time.
    #[inline(always)]
    fn point<S: Simd, const OUTPUTS: usize>(&mut self, simd: S, point: [usize; 2], outputs: usize) {
        let Batched { parts: Parts { input, grid, input_stride, before, taps: shape, .. }, seen, taps, .. } = self.plan;
        let ((rows, e), (columns, f)) = (seen[0].at(point[0]), seen[1].at(point[1]));
        let taps = &taps[rows * seen[1].ranges.len() + columns][..];
        // Where the first of them sees the input.
        let at = match taps {
            [] => 0,
            _ => {
                let row = point[0] * input_stride[0] + e.start - before[0];
                (row * input.width + point[1] * input_stride[1] + f.start - before[1]) * SIGNALS
            }
        };
        let place = (point[0] * grid[1] + point[1]) * SIGNALS;
        let plane = grid[0] * grid[1] * SIGNALS;
        let (weights, _) = self.weights.as_chunks::<WIDE>();
        for part in (0..outputs).step_by(OUTPUTS) {
            for first in (0..SIGNALS).step_by(VECTORS * S::F32_LANES) {
                let mut sums = [[simd.splat_f32s(0.0); VECTORS]; OUTPUTS];
                let channels = self.input.chunks_exact(input.height * input.width * SIGNALS);
                for (input, weights) in channels.zip(weights.chunks_exact(shape[0] * shape[1])) {
                    let input = &input[at + first..];
                    for &Tap { offset, number } in taps {
                        let (vectors, _) = S::as_simd_f32s(&input[offset * SIGNALS..][..VECTORS * S::F32_LANES]);
                        let weights = &weights[number][part..part + OUTPUTS];
                        let weights: &[f32; OUTPUTS] = weights.as_array().expect("outputs that are summed");
                        let mut values = [simd.splat_f32s(0.0); VECTORS];
                        unrolled!(v < VECTORS, values[v] = vectors[v]);
                        unrolled!(output < OUTPUTS, {
                            let weight = simd.splat_f32s(weights[output]);
                            unrolled!(v < VECTORS, {
                                sums[output][v] = simd.mul_add_f32s(values[v], weight, sums[output][v]);
                            });
                        });
                    }
                }
                let planes = self.sums.chunks_exact_mut(plane).skip(part);
                for (plane, sums) in planes.zip(&sums) {
                    let lanes = pulp::bytemuck::cast_slice::<S::f32s, f32>(sums);
                    plane[place + first..][..lanes.len()].copy_from_slice(lanes);
                }
            }
        }
    }
}

/// Atoms whose gradients are computed together: a multiple of the lanes of two vectors of any machine.
const ATOMS: usize = 32;

/// Rows of a filter, and taps in each at most, whose gradients are computed together.
const ROWS: usize = 2;
const TAPS: usize = 6;

/// Gradient of Σ〈r, Dγ〉 with respect to the filters of D, of a layer without padding. Shapes as
/// [`crate::kernels::convolution::filter_gradient_into`].
///
/// Atoms are the lanes here: codes are transposed to have them last, residuals stay as they are, and every sum over the batch is
/// made in registers.
///
/// # Panics
/// If the lengths do not fit the geometry and each other.
pub(crate) fn filter_gradient(geometry: &LayerGeometry, residuals: &[f32], codes: &[f32], out: &mut [f32]) {
    let LayerGeometry { signal, code, kernel, .. } = geometry;
    let count = codes.len() / code.len();
    assert_eq!(codes.len(), count * code.len(), "codes of a filter gradient");
    assert_eq!(residuals.len(), count * signal.len(), "residuals of a filter gradient");
    assert_eq!(geometry.padding, [0, 0], "padding of a filter gradient");
    let (taps, positions) = (kernel[0] * kernel[1], code.height * code.width);
    assert_eq!(out.len(), code.channels * signal.channels * taps, "a filter gradient");
    let atoms = code.channels.next_multiple_of(ATOMS);
    let mut atoms_last = vec![0.0; count * positions * atoms];
    let of_signals = atoms_last.par_chunks_exact_mut(positions * atoms).zip(codes.par_chunks_exact(code.len()));
    of_signals.for_each(|(to, from)| {
        for (atom, plane) in from.chunks_exact(positions).enumerate() {
            to[atom..].iter_mut().step_by(atoms).zip(plane).for_each(|(to, from)| *to = *from);
        }
    });
    // One task for some atoms, one channel and some rows: the same sums in the same order on any number of threads.
    let tasks: Vec<[usize; 3]> = (0..atoms)
        .step_by(ATOMS)
        .flat_map(|atom| (0..signal.channels).map(move |channel| [atom, channel]))
        .flat_map(|[atom, channel]| (0..kernel[0]).step_by(ROWS).map(move |row| [atom, channel, row]))
        .collect();
    let gradients = tasks.par_iter().map(|&[atom, channel, row]| {
        let mut sums = vec![0.0; ROWS * kernel[1] * ATOMS];
        let used = ATOMS.min(code.channels - atom);
        let codes = &atoms_last;
        pulp::Arch::new().dispatch(Gradient {
            geometry,
            residuals,
            codes,
            atoms,
            atom,
            used,
            channel,
            row,
            sums: &mut sums,
        });
        sums
    });
    for (sums, [first, channel, row]) in gradients.collect::<Vec<_>>().iter().zip(&tasks) {
        for (tap, sums) in (row * kernel[1]..taps).zip(sums.chunks_exact(ATOMS)) {
            for (atom, &sum) in (*first..code.channels).zip(sums) {
                out[(atom * signal.channels + channel) * taps + tap] = sum;
            }
        }
    }
}

/// The gradient of some rows of one channel of some atoms.
struct Gradient<'a, 'b> {
    geometry: &'a LayerGeometry,
    /// `[n, channels, height, width]`.
    residuals: &'a [f32],
    /// `[n, positions, atoms]`.
    codes: &'a [f32],
    /// Atoms in the codes.
    atoms: usize,
    /// The first one.
    atom: usize,
    /// How many.
    used: usize,
    channel: usize,
    row: usize,
    /// `[ROWS, columns, ATOMS]`.
    sums: &'b mut [f32],
}

impl WithSimd for Gradient<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let [rows, columns] = self.geometry.kernel;
        let rows = ROWS.min(rows - self.row);
        for first in (0..self.used).step_by(VECTORS * S::F32_LANES) {
            if S::REGISTER_COUNT >= 32 && rows == ROWS {
                self.rows::<S, ROWS>(simd, first, 0, columns);
            } else {
                (0..rows).for_each(|row| self.rows::<S, 1>(simd, first, row, columns));
            }
        }
    }
}

impl Gradient<'_, '_> {
    /// `R` rows of the filters.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, first: usize, row: usize, columns: usize) {
        // As even as they can be: a few taps alone would wait for their sums.
        let most = columns.div_ceil(columns.div_ceil(TAPS));
        let mut column = 0;
        while column < columns {
            column += match most.min(columns - column) {
                6.. => self.taps::<S, R, 6>(simd, first, [row, column]),
                5 => self.taps::<S, R, 5>(simd, first, [row, column]),
                4 => self.taps::<S, R, 4>(simd, first, [row, column]),
                3 => self.taps::<S, R, 3>(simd, first, [row, column]),
                2 => self.taps::<S, R, 2>(simd, first, [row, column]),
                _ => self.taps::<S, R, 1>(simd, first, [row, column]),
            };
        }
    }

    /// `T` taps of `R` rows, summed over the batch and the code's positions; returns `T`.
    #[inline(always)]
    fn taps<S: Simd, const R: usize, const T: usize>(&mut self, simd: S, first: usize, at: [usize; 2]) -> usize {
        let LayerGeometry { signal, code, stride, kernel, .. } = self.geometry;
        let plane = signal.height * signal.width;
        let corner = (self.row + at[0]) * signal.width + at[1];
        let mut products = [[[simd.splat_f32s(0.0); VECTORS]; T]; R];
        let of_signals = self.codes.chunks_exact(code.height * code.width * self.atoms);
        for (codes, residual) in of_signals.zip(self.residuals.chunks_exact(signal.len())) {
            let residual = &residual[self.channel * plane..][..plane];
            for (y, codes) in codes.chunks_exact(code.width * self.atoms).enumerate() {
                let residual = &residual[corner + y * stride[0] * signal.width..];
                for (x, codes) in codes.chunks_exact(self.atoms).enumerate() {
                    let (vectors, _) = S::as_simd_f32s(&codes[self.atom + first..][..VECTORS * S::F32_LANES]);
                    let mut values = [simd.splat_f32s(0.0); VECTORS];
                    unrolled!(v < VECTORS, values[v] = vectors[v]);
                    unrolled!(r < R, {
                        let pixels = &residual[r * signal.width + x * stride[1]..][..T];
                        unrolled!(t < T, {
                            let pixel = simd.splat_f32s(pixels[t]);
                            unrolled!(v < VECTORS, {
                                products[r][t][v] = simd.mul_add_f32s(values[v], pixel, products[r][t][v]);
                            });
                        });
                    });
                }
            }
        }
        unrolled!(r < R, {
            unrolled!(t < T, {
                let lanes = pulp::bytemuck::cast_slice::<S::f32s, f32>(&products[r][t]);
                let tap = (at[0] + r) * kernel[1] + at[1] + t;
                self.sums[tap * ATOMS + first..][..lanes.len()].copy_from_slice(lanes);
            });
        });
        T
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair, SignalShape};
    use crate::kernels::convolution::{Convolution, filter_gradient_into};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            // Sums of some hundred products in another order.
            assert!((found - expected).abs() <= 1e-5 * largest, "{what} at {index}: {found} {expected}");
        }
    }

    /// What is computed for many signals at a time is what is computed for each, whatever the sizes, paddings and last chunks.
    #[test]
    fn batches_agree_with_single_signals() {
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        for case in 0..60 {
            let mut pair =
                |from: usize, to: usize| Pair([generator.random_range(from..=to), generator.random_range(from..=to)]);
            let (kernel, stride, extra) = (pair(1, 9), pair(1, 3), pair(0, 20));
            let padding = if case % 2 == 0 { Pair([0, 0]) } else { pair(0, 3) };
            let padding = Pair(std::array::from_fn(|axis| padding.0[axis].min(kernel.0[axis] - 1)));
            let [atoms, channels] = pair(1, 11).0;
            // Now and then more of them than are computed together.
            let (atoms, channels) = (atoms + [0, 0, 35][case % 3], channels + [0, 35, 0, 0][case % 4]);
            let signal = SignalShape::new(channels, kernel.0[0] + extra.0[0], kernel.0[1] + extra.0[1]);
            let shape = LayerShape::new(atoms, kernel, stride).with_padding(padding);
            let layer = Geometry::new(signal, &[shape]).unwrap().layers()[0].clone();
            let count = [1, 32, 33, 70][case % 4];
            let mut random = |len: usize| -> Vec<f32> { (0..len).map(|_| generator.random_range(-1.0..1.0)).collect() };
            let filters = HostFilters::new(layer.filter_dims(), random(layer.filter_dims().iter().product()));
            let (signals, codes) = (random(count * layer.signal.len()), random(count * layer.code.len()));
            let convolution = Convolution::new(&filters, &layer);
            // What the buffers held does not matter.
            let (mut found, mut expected) = (vec![f32::NAN; codes.len()], vec![0.0; codes.len()]);
            analyze(&filters, &layer, &signals, &mut found);
            convolution.analyze_into(&signals, &mut expected);
            assert_close(&found, &expected, &format!("analysis {layer:?}"));
            let (mut found, mut expected) = (vec![f32::NAN; signals.len()], vec![0.0; signals.len()]);
            synthesize(&filters, &layer, &codes, &mut found);
            convolution.synthesize_into(&codes, &mut expected);
            assert_close(&found, &expected, &format!("synthesis {layer:?}"));
            if layer.padding == [0, 0] {
                let len = filters.values().len();
                let (mut found, mut expected) = (vec![f32::NAN; len], vec![0.0; len]);
                filter_gradient(&layer, &signals, &codes, &mut found);
                filter_gradient_into(&layer, &signals, &codes, &mut expected);
                assert_close(&found, &expected, &format!("gradient {layer:?}"));
            }
        }
    }

    #[test]
    fn empty_batches_are_nothing() {
        let layer = Geometry::new(SignalShape::new(1, 9, 9), &[LayerShape::new(2, 3, 1)]).unwrap().layers()[0].clone();
        let filters = HostFilters::zeros(layer.filter_dims());
        analyze(&filters, &layer, &[], &mut []);
        synthesize(&filters, &layer, &[], &mut []);
        let mut gradient = [1.0; 18];
        filter_gradient(&layer, &[], &[], &mut gradient);
        assert_eq!(gradient, [0.0; 18]);
    }
}
