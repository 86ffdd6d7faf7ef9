//! Convolutions of one dictionary on host slices, computed directly: no window is copied, no frequency domain entered.
//!
//! Analysis and synthesis are the same thing: every output value is a sum over taps of input values at fixed distances, with
//! weights that neighbouring outputs share. Strides split the input (analysis) or the output (synthesis) into phases, padding is
//! zeros around the input, so that one kernel serves all: several outputs of a grid point times a run of grid points are
//! summed in registers while the taps go by (`Correlation`). Filters are repacked once, into the order in which the kernel reads
//! them; taps at which all filters of a block are zero are left out.
//!
//! Loops are compiled for the instruction sets of x86-64 and aarch64 and chosen at run time. Work is divided into bands of rows
//! of fixed size, so that results do not depend on the number of threads.

use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::sparse::HostFilters;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// D_i and D_iᵀ for the filters of one layer (or of an effective dictionary), with the filters repacked for both.
///
/// A layer that is a matrix ([`LayerGeometry::is_matrix`]) is computed correctly, yet better given to a matrix product.
#[derive(Debug, Clone)]
pub struct Convolution {
    geometry: LayerGeometry,
    analysis: Correlation,
    synthesis: Correlation,
}

impl Convolution {
    /// Repacks the filters.
    ///
    /// # Panics
    /// If the filters' dimensions are not the geometry's.
    pub fn new(filters: &HostFilters, geometry: &LayerGeometry) -> Self {
        assert_eq!(filters.dims(), geometry.filter_dims(), "filters of a layer");
        Self {
            geometry: geometry.clone(),
            analysis: Correlation::new(Parts::analysis(filters, geometry)),
            synthesis: Correlation::new(Parts::synthesis(filters, geometry)),
        }
    }

    /// The layer's geometry.
    pub fn geometry(&self) -> &LayerGeometry {
        &self.geometry
    }

    /// Dᵀx for every signal of a batch.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n, atoms, code height, code width]`.
    ///
    /// # Panics
    /// If the lengths do not fit the geometry and each other.
    pub fn analyze_into(&self, signals: &[f32], out: &mut [f32]) {
        self.analysis.apply(signals, out);
    }

    /// Dγ for every code of a batch.
    ///
    /// # Shapes
    /// - codes: `[n, atoms, code height, code width]`; out: `[n, channels, height, width]`.
    ///
    /// # Panics
    /// If the lengths do not fit the geometry and each other.
    pub fn synthesize_into(&self, codes: &[f32], out: &mut [f32]) {
        self.synthesis.apply(codes, out);
    }

    /// Calls `visit` with (first row, Dᵀx on some rows of the code) for one signal, in bands that together are all rows, and
    /// returns what it returned, in the order of rows: for those who need the correlations once and not all at a time.
    ///
    /// # Shapes
    /// - signal: `[channels, height, width]`; what is visited: `[atoms, rows, code width]`.
    ///
    /// # Panics
    /// If the signal's length is not the geometry's.
    pub fn analyze_bands<T: Send>(&self, signal: &[f32], visit: impl Fn(usize, &[f32]) -> T + Sync) -> Vec<T> {
        assert_eq!(signal.len(), self.geometry.signal.len(), "values of one signal");
        let SignalShape { channels, height, width } = self.geometry.code;
        (0..self.analysis.bands())
            .into_par_iter()
            .map_init(
                || (self.analysis.scratch(), Vec::new()),
                |(scratch, values), band| {
                    let rows = self.analysis.output_rows(band);
                    values.resize(channels * rows.len() * width, 0.0);
                    debug_assert!(rows.end <= height);
                    let planes: Vec<_> = values.chunks_exact_mut((rows.len() * width).max(1)).collect();
                    self.analysis.apply_band(signal, band, planes, scratch);
                    visit(rows.start, values)
                },
            )
            .collect()
    }

    /// Room for the bands of [`Self::analyze_serially`].
    pub(crate) fn band_scratch(&self) -> BandScratch {
        BandScratch { packed: self.analysis.scratch(), values: Vec::new() }
    }

    /// [`Self::analyze_bands`] by the calling thread alone, for those who have several signals to share out.
    ///
    /// # Panics
    /// If the signal's length is not the geometry's.
    pub(crate) fn analyze_serially(
        &self,
        signal: &[f32],
        scratch: &mut BandScratch,
        mut visit: impl FnMut(usize, &[f32]),
    ) {
        assert_eq!(signal.len(), self.geometry.signal.len(), "values of one signal");
        let SignalShape { channels, width, .. } = self.geometry.code;
        let BandScratch { packed, values } = scratch;
        for band in 0..self.analysis.bands() {
            let rows = self.analysis.output_rows(band);
            values.resize(channels * rows.len() * width, 0.0);
            let planes: Vec<_> = values.chunks_exact_mut((rows.len() * width).max(1)).collect();
            self.analysis.apply_band(signal, band, planes, packed);
            visit(rows.start, values);
        }
    }
}

/// Memory that the analysis of a band needs.
#[derive(Debug, Clone)]
pub(crate) struct BandScratch {
    packed: Vec<f32>,
    values: Vec<f32>,
}

/// Dᵀx as [`Convolution::analyze_into`], for filters that are used once.
///
/// # Panics
/// As there; if the filters' dimensions are not the geometry's.
#[cfg(feature = "flex")]
pub(crate) fn analyze_once(filters: &HostFilters, geometry: &LayerGeometry, signals: &[f32], out: &mut [f32]) {
    assert_eq!(filters.dims(), geometry.filter_dims(), "filters of a layer");
    Correlation::new(Parts::analysis(filters, geometry)).apply(signals, out);
}

/// Dγ as [`Convolution::synthesize_into`], for filters that are used once.
///
/// # Panics
/// As there; if the filters' dimensions are not the geometry's.
#[cfg(feature = "flex")]
pub(crate) fn synthesize_once(filters: &HostFilters, geometry: &LayerGeometry, codes: &[f32], out: &mut [f32]) {
    assert_eq!(filters.dims(), geometry.filter_dims(), "filters of a layer");
    Correlation::new(Parts::synthesis(filters, geometry)).apply(codes, out);
}

/// Rows that a band's outputs have about.
const BAND_ROWS: usize = 16;

/// Bytes of packed input that are worked on at a time: a part of the second cache.
const PACKED_BYTES: usize = 1 << 17;

/// Outputs of a grid point that are summed together.
const WIDE: usize = 8;

/// The same where fewer are left.
const NARROW: usize = 4;

/// Vectors of grid points in registers at most; the input is read so much beyond its end.
const VECTORS: usize = 6;

/// Lanes of the longest vector.
const LANES: usize = 16;

/// Columns of the grid from which rows are computed one by one; narrower ones are joined into one run, the columns between them
/// computed in vain.
const LONG_ROW: usize = 64;

/// A loop of at most eight turns that is written out: what it indexes with constants stays in registers.
macro_rules! unrolled {
    ($index:ident < $turns:expr, $body:expr) => { unrolled!(@ $index, $turns, $body; 0 1 2 3 4 5 6 7) };
    (@ $index:ident, $turns:expr, $body:expr; $($turn:literal)*) => {
        $(if $turn < $turns {
            let $index = $turn;
            $body;
        })*
    };
}

#[cfg(feature = "flex")]
pub(crate) use unrolled;

/// Sums of weighted input values at fixed distances from every point of a grid.
///
/// At grid point (Y, X) output o is Σ_{c,e,f} w\[o\]\[c,e,f\] · input\[c, Y·s_y + e − b_y, X·s_x + f − b_x\], and belongs at row
/// Y·t_y + row(o) and column X·t_x + column(o) of its channel, or nowhere where that is outside.
#[derive(Debug, Clone)]
struct Correlation {
    input: SignalShape,
    output: SignalShape,
    grid: [usize; 2],
    /// s.
    input_stride: [usize; 2],
    /// b: zeros before the input's first row and column.
    before: [usize; 2],
    /// t.
    output_stride: [usize; 2],
    /// Rows of the grid that are computed together.
    band: usize,
    /// Phases of the input in each direction, each a plane of its own in the packed input.
    phases: [usize; 2],
    /// Rows and columns of a packed plane.
    plane: [usize; 2],
    /// Channels of the input that are packed at a time; the sums of one group are added to those of the groups before.
    group: usize,
    blocks: Vec<Block>,
}

/// Where an output of grid point (0, 0) belongs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    pub channel: usize,
    pub row: isize,
    pub column: isize,
}

/// Some of the outputs of a grid point, the ones that are summed together.
#[derive(Debug, Clone)]
struct Block {
    targets: Vec<Target>,
    /// Where the taps of every group of channels start; one more than there are groups.
    starts: Vec<usize>,
    /// Distances in the packed input, one a tap.
    offsets: Vec<usize>,
    /// `[taps, width]`, the width being [`WIDE`] or [`NARROW`].
    weights: Vec<f32>,
    width: usize,
}

/// What a [`Correlation`] is before it is cut into blocks, field by field.
pub(crate) struct Parts<'a> {
    pub input: SignalShape,
    pub output: SignalShape,
    pub grid: [usize; 2],
    pub input_stride: [usize; 2],
    pub before: [usize; 2],
    pub output_stride: [usize; 2],
    pub taps: [usize; 2],
    pub targets: Vec<Target>,
    /// Weight of an output's (input channel, vertical tap, horizontal tap).
    pub weight: Box<dyn Fn(usize, [usize; 3]) -> f32 + Sync + 'a>,
}

/// Rows of outputs that are joined into one grid point where a point alone has so few outputs that loading its inputs would cost
/// more than the multiplications.
fn joined_rows(outputs: usize, taps: usize, rows: usize) -> usize {
    if taps < NARROW || outputs >= NARROW { 1 } else { (NARROW / outputs).min(rows.max(1)) }
}

impl<'a> Parts<'a> {
    /// Dᵀ.
    pub fn analysis(filters: &'a HostFilters, geometry: &'a LayerGeometry) -> Self {
        let LayerGeometry { signal, code, kernel, stride, padding, .. } = geometry;
        let joined = joined_rows(code.channels, kernel[0], code.height);
        let targets = (0..code.channels)
            .flat_map(|channel| (0..joined).map(move |row| Target { channel, row: row as isize, column: 0 }))
            .collect();
        // Row of the filter by which an output takes the signal at vertical tap e; `None` beyond the filter.
        let filter_row =
            move |output: usize, e: usize| e.checked_sub(output % joined * stride[0]).filter(|&row| row < kernel[0]);
        let weight = move |output: usize, [channel, e, f]: [usize; 3]| match filter_row(output, e) {
            Some(row) => filters.atom(output / joined)[(channel * kernel[0] + row) * kernel[1] + f],
            None => 0.0,
        };
        Self {
            input: *signal,
            output: *code,
            grid: [code.height.div_ceil(joined), code.width],
            input_stride: [stride[0] * joined, stride[1]],
            before: *padding,
            output_stride: [joined, 1],
            taps: [(joined - 1) * stride[0] + kernel[0], kernel[1]],
            targets,
            weight: Box::new(weight),
        }
    }

    /// D. Each phase of the stride is an output of its own: row s·Y + φ takes code row Y − d by the filters' row s·d + φ.
    pub fn synthesis(filters: &'a HostFilters, geometry: &'a LayerGeometry) -> Self {
        let LayerGeometry { signal, code, kernel, stride, padding, .. } = geometry;
        let reach: [usize; 2] = std::array::from_fn(|axis| kernel[axis].div_ceil(stride[axis]));
        let outputs = signal.channels * stride[0] * stride[1];
        let joined = joined_rows(outputs, reach[0], signal.height.div_ceil(stride[0]));
        let rows = joined * stride[0];
        // Channel and phase of an output: its row among the joined ones, and its column.
        let phase_of =
            move |output: usize| (output / (rows * stride[1]), [output / stride[1] % rows, output % stride[1]]);
        let targets = (0..signal.channels * rows * stride[1])
            .map(|output| {
                let (channel, [row, column]) = phase_of(output);
                Target {
                    channel,
                    row: row as isize - padding[0] as isize,
                    column: column as isize - padding[1] as isize,
                }
            })
            .collect();
        // Row and column of the filter by which an output of some phase takes the code at tap (e, f); `None` beyond the filter.
        let filter_place = move |[row, column]: [usize; 2], [e, f]: [usize; 2]| {
            let down = (row / stride[0] + reach[0] - 1).checked_sub(e).filter(|&down| down < reach[0])?;
            let place = [down * stride[0] + row % stride[0], (reach[1] - 1 - f) * stride[1] + column];
            (place[0] < kernel[0] && place[1] < kernel[1]).then_some(place)
        };
        let weight = move |output: usize, [atom, e, f]: [usize; 3]| {
            let (channel, phase) = phase_of(output);
            match filter_place(phase, [e, f]) {
                Some([row, column]) => filters.atom(atom)[(channel * kernel[0] + row) * kernel[1] + column],
                None => 0.0,
            }
        };
        Self {
            input: *code,
            output: *signal,
            grid: [(signal.height + padding[0]).div_ceil(rows), (signal.width + padding[1]).div_ceil(stride[1])],
            input_stride: [joined, 1],
            before: reach.map(|reach| reach - 1),
            output_stride: [rows, stride[1]],
            taps: [reach[0] + joined - 1, reach[1]],
            targets,
            weight: Box::new(weight),
        }
    }
}

impl Correlation {
    fn new(parts: Parts) -> Self {
        let Parts { input, output, grid, input_stride, before, output_stride, taps, targets, weight } = parts;
        let phases: [usize; 2] = std::array::from_fn(|axis| input_stride[axis].min(taps[axis]));
        let extra: [usize; 2] = std::array::from_fn(|axis| (taps[axis] - 1) / input_stride[axis]);
        let band = BAND_ROWS.div_ceil(output_stride[0]).min(grid[0]);
        let plane = [band + extra[0], grid[1] + extra[1]];
        let bytes = phases[0] * phases[1] * plane[0] * plane[1] * size_of::<f32>();
        let group = (PACKED_BYTES / bytes).clamp(1, input.channels);
        let offset = |[channel, e, f]: [usize; 3]| {
            let phase = (channel % group * phases[0] + e % input_stride[0]) * phases[1] + f % input_stride[1];
            (phase * plane[0] + e / input_stride[0]) * plane[1] + f / input_stride[1]
        };
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < targets.len() {
            let left = targets.len() - first;
            let (width, count) = if left > NARROW { (WIDE, left.min(WIDE)) } else { (NARROW, left) };
            let mut block = Block {
                targets: targets[first..first + count].to_vec(),
                starts: Vec::new(),
                offsets: Vec::new(),
                weights: Vec::new(),
                width,
            };
            for channel in 0..input.channels {
                if channel % group == 0 {
                    block.starts.push(block.offsets.len());
                }
                for tap in 0..taps[0] * taps[1] {
                    let tap = [channel, tap / taps[1], tap % taps[1]];
                    let mut weights = [0.0; WIDE];
                    (0..count).for_each(|output| weights[output] = weight(first + output, tap));
                    if weights.iter().any(|weight| *weight != 0.0) {
                        block.offsets.push(offset(tap));
                        block.weights.extend_from_slice(&weights[..width]);
                    }
                }
            }
            block.starts.push(block.offsets.len());
            blocks.push(block);
            first += count;
        }
        Self { input, output, grid, input_stride, before, output_stride, band, phases, plane, group, blocks }
    }

    fn bands(&self) -> usize {
        self.grid[0].div_ceil(self.band)
    }

    /// Rows of the output that a band makes.
    fn output_rows(&self, band: usize) -> std::ops::Range<usize> {
        // Padding moves all of an output's rows up by as much.
        let up = self.blocks.first().map_or(0, |block| block.targets[0].row.unsigned_abs());
        let row = |grid: usize| (grid * self.output_stride[0]).saturating_sub(up).min(self.output.height);
        row(band * self.band)..row((band + 1) * self.band)
    }

    /// Room for a band's packed input.
    fn scratch(&self) -> Vec<f32> {
        let planes = self.group * self.phases[0] * self.phases[1];
        vec![0.0; planes * self.plane[0] * self.plane[1] + VECTORS * LANES]
    }

    fn apply(&self, inputs: &[f32], outputs: &mut [f32]) {
        let count = inputs.len() / self.input.len();
        assert_eq!(inputs.len(), count * self.input.len(), "input of a convolution");
        assert_eq!(outputs.len(), count * self.output.len(), "output of a convolution");
        // Every task owns its rows of every plane.
        let mut tasks = Vec::with_capacity(count * self.bands());
        for (input, output) in inputs.chunks_exact(self.input.len()).zip(outputs.chunks_exact_mut(self.output.len())) {
            let first = tasks.len();
            tasks.extend((0..self.bands()).map(|band| (input, band, Vec::with_capacity(self.output.channels))));
            for mut plane in output.chunks_exact_mut(self.output.height * self.output.width) {
                for (_, band, planes) in &mut tasks[first..] {
                    let (rows, rest) = plane.split_at_mut(self.output_rows(*band).len() * self.output.width);
                    planes.push(rows);
                    plane = rest;
                }
            }
        }
        tasks.into_par_iter().for_each_init(
            || self.scratch(),
            |scratch, (input, band, planes)| self.apply_band(input, band, planes, scratch),
        );
    }

    /// Computes the rows of one band.
    ///
    /// - planes: for every channel of the output the rows [`Self::output_rows`]
    fn apply_band(&self, input: &[f32], band: usize, planes: Vec<&mut [f32]>, scratch: &mut [f32]) {
        pulp::Arch::new().dispatch(Band { correlation: self, input, band, planes, scratch });
    }

    /// Copies what the rows of a band need of a group of channels, phase by phase, with the zeros around it.
    #[inline(always)]
    fn pack(&self, input: &[f32], band: usize, group: usize, packed: &mut [f32]) {
        let channel_len = self.input.height * self.input.width;
        let channels = input.chunks_exact(channel_len).skip(group * self.group).take(self.group);
        let phases = self.phases[0] * self.phases[1];
        let plane_len = self.plane[0] * self.plane[1];
        for (channel, planes) in channels.zip(packed.chunks_exact_mut(phases * plane_len)) {
            for (phase, plane) in planes.chunks_exact_mut(plane_len).enumerate() {
                let first = [
                    (band * self.band * self.input_stride[0] + phase / self.phases[1]) as isize
                        - self.before[0] as isize,
                    (phase % self.phases[1]) as isize - self.before[1] as isize,
                ];
                pack_plane(channel, self.input.width, first, self.input_stride, plane, self.plane[1]);
            }
        }
    }
}

/// Copies every so many rows and columns of a channel of some `width` from `first` on, into rows of `columns`; zeros where there is
/// nothing.
#[inline(always)]
fn pack_plane(channel: &[f32], width: usize, first: [isize; 2], stride: [usize; 2], plane: &mut [f32], columns: usize) {
    let rows = (channel.len() / width) as isize;
    for (row, line) in plane.chunks_exact_mut(columns).enumerate() {
        let y = first[0] + (row * stride[0]) as isize;
        if !(0..rows).contains(&y) {
            line.fill(0.0);
            continue;
        }
        let values = &channel[y as usize * width..][..width];
        if stride[1] == 1 {
            let (left, skipped) = (((-first[1]).max(0) as usize).min(columns), (first[1].max(0) as usize).min(width));
            let copied = (width - skipped).min(columns - left);
            line[..left].fill(0.0);
            line[left..left + copied].copy_from_slice(&values[skipped..skipped + copied]);
            line[left + copied..].fill(0.0);
        } else {
            for (column, value) in line.iter_mut().enumerate() {
                let x = first[1] + (column * stride[1]) as isize;
                *value = if (0..width as isize).contains(&x) { values[x as usize] } else { 0.0 };
            }
        }
    }
}

/// One band's work, for whichever instruction set there is.
struct Band<'a, 'b> {
    correlation: &'a Correlation,
    input: &'a [f32],
    band: usize,
    planes: Vec<&'b mut [f32]>,
    scratch: &'a mut [f32],
}

impl WithSimd for Band<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let correlation = self.correlation;
        let rows = correlation.band.min(correlation.grid[0] - self.band * correlation.band);
        let (columns, pitch) = (correlation.grid[1], correlation.plane[1]);
        // Runs of grid points in the packed input.
        let (runs, len) = if columns >= LONG_ROW { (rows, columns) } else { (1, (rows - 1) * pitch + columns) };
        for group in 0..correlation.input.channels.div_ceil(correlation.group) {
            correlation.pack(self.input, self.band, group, self.scratch);
            for block in &correlation.blocks {
                for run in 0..runs {
                    let (from, to) = (run * pitch, run * pitch + len);
                    match (block.width, S::REGISTER_COUNT >= 32) {
                        (WIDE, true) => self.run::<S, WIDE, WIDE, 3>(simd, block, group, from, to),
                        (WIDE, false) => self.run::<S, WIDE, NARROW, 3>(simd, block, group, from, to),
                        (_, true) => self.run::<S, NARROW, NARROW, 6>(simd, block, group, from, to),
                        (_, false) => self.run::<S, NARROW, NARROW, 3>(simd, block, group, from, to),
                    }
                }
            }
        }
    }
}

impl Band<'_, '_> {
    /// The grid points `from..to`, `OUTPUTS` of the block's `WIDTH` outputs and up to `MOST` vectors at a time.
    #[inline(always)]
    fn run<S: Simd, const WIDTH: usize, const OUTPUTS: usize, const MOST: usize>(
        &mut self,
        simd: S,
        block: &Block,
        group: usize,
        from: usize,
        to: usize,
    ) {
        for part in (0..block.targets.len()).step_by(OUTPUTS) {
            let mut start = from;
            while start < to {
                let vectors = (to - start).div_ceil(S::F32_LANES).min(MOST);
                let end = (start + vectors * S::F32_LANES).min(to);
                match vectors {
                    1 => self.block::<S, WIDTH, OUTPUTS, 1>(simd, block, [group, part], start, end),
                    2 => self.block::<S, WIDTH, OUTPUTS, 2>(simd, block, [group, part], start, end),
                    3 if MOST >= 3 => self.block::<S, WIDTH, OUTPUTS, 3>(simd, block, [group, part], start, end),
                    4 if MOST >= 4 => self.block::<S, WIDTH, OUTPUTS, 4>(simd, block, [group, part], start, end),
                    5 if MOST >= 5 => self.block::<S, WIDTH, OUTPUTS, 5>(simd, block, [group, part], start, end),
                    _ if MOST >= 6 => self.block::<S, WIDTH, OUTPUTS, 6>(simd, block, [group, part], start, end),
                    _ => unreachable!("no more than {MOST} vectors at a time"),
                }
                start = end;
            }
        }
    }

    /// Sums `OUTPUTS` outputs at `V` vectors of grid points in registers, and puts them where they belong.
    #[inline(always)]
    fn block<S: Simd, const WIDTH: usize, const OUTPUTS: usize, const V: usize>(
        &mut self,
        simd: S,
        block: &Block,
        [group, part]: [usize; 2],
        start: usize,
        end: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); V]; OUTPUTS];
        let taps = block.starts[group]..block.starts[group + 1];
        let (weights, _) = block.weights[taps.start * WIDTH..taps.end * WIDTH].as_chunks::<WIDTH>();
        let input = &self.scratch[start..];
        for (&offset, weights) in block.offsets[taps].iter().zip(weights) {
            let (vectors, _) = S::as_simd_f32s(&input[offset..][..V * S::F32_LANES]);
            let weights: &[f32; OUTPUTS] = weights[part..part + OUTPUTS].as_array().expect("outputs that are summed");
            let mut values = [simd.splat_f32s(0.0); V];
            unrolled!(v < V, values[v] = vectors[v]);
            unrolled!(output < OUTPUTS, {
                let weight = simd.splat_f32s(weights[output]);
                unrolled!(v < V, sums[output][v] = simd.mul_add_f32s(values[v], weight, sums[output][v]));
            });
        }
        for (target, sums) in block.targets[part..].iter().zip(&sums) {
            let results = &pulp::bytemuck::cast_slice::<S::f32s, f32>(sums)[..end - start];
            self.correlation.put(results, start, [self.band, group], *target, self.planes[target.channel]);
        }
    }
}

impl Correlation {
    /// Puts the sums of one output at a run of grid points of a band where they belong: the first group's in place of what is
    /// there, the others' on top.
    ///
    /// - start: the first point's place in a plane of the packed input
    /// - plane: the channel's rows [`Self::output_rows`]
    #[inline(always)]
    fn put(&self, sums: &[f32], start: usize, [band, group]: [usize; 2], target: Target, plane: &mut [f32]) {
        let (pitch, columns, width) = (self.plane[1], self.grid[1], self.output.width);
        let top = self.output_rows(band).start as isize;
        let (mut row, mut column) = (start / pitch, start % pitch);
        let mut sums = sums;
        while !sums.is_empty() {
            let (line, rest) = sums.split_at(sums.len().min(pitch - column));
            sums = rest;
            // Columns beyond the grid were computed in vain.
            let line = &line[..line.len().min(columns.saturating_sub(column))];
            let y = ((band * self.band + row) * self.output_stride[0]) as isize + target.row - top;
            let x = (column * self.output_stride[1]) as isize + target.column;
            if y >= 0 && (y as usize) < plane.len() / width {
                let places = &mut plane[y as usize * width..][..width];
                if self.output_stride[1] == 1 {
                    let cropped = (-x).max(0) as usize;
                    let to = ((x + line.len() as isize).max(0) as usize).min(width);
                    let from = x.max(0) as usize;
                    if from < to {
                        let (places, sums) = (&mut places[from..to], &line[cropped..cropped + to - from]);
                        match group {
                            0 => places.copy_from_slice(sums),
                            _ => places.iter_mut().zip(sums).for_each(|(place, sum)| *place += sum),
                        }
                    }
                } else {
                    for (index, &sum) in line.iter().enumerate() {
                        let x = x + (index * self.output_stride[1]) as isize;
                        if x >= 0 && (x as usize) < width {
                            let place = &mut places[x as usize];
                            *place = if group == 0 { sum } else { *place + sum };
                        }
                    }
                }
            }
            (row, column) = (row + 1, 0);
        }
    }
}

/// Gradient of Σ〈r, Dγ〉 with respect to the filters of D: the correlation of residuals and codes, summed over a batch.
///
/// # Shapes
/// - residuals: `[n, channels, height, width]`; codes: `[n, atoms, code height, code width]`; out: the filters'.
///
/// # Panics
/// If the lengths do not fit the geometry and each other.
pub fn filter_gradient_into(geometry: &LayerGeometry, residuals: &[f32], codes: &[f32], out: &mut [f32]) {
    let count = codes.len() / geometry.code.len();
    assert_eq!(codes.len(), count * geometry.code.len(), "codes of a filter gradient");
    assert_eq!(residuals.len(), count * geometry.signal.len(), "residuals of a filter gradient");
    assert_eq!(out.len(), geometry.filter_dims().iter().product::<usize>(), "a filter gradient");
    let plan = Gradient::new(geometry);
    let atoms = geometry.code.channels.div_ceil(NARROW);
    // Few atoms are not enough work to share: parts of the batch add up, in their order, to the same sum on any number of threads.
    let units = count * plan.bands;
    let parts = if atoms < FEW { units.clamp(1, FEW) } else { 1 };
    let mut partial = vec![0.0; (parts - 1) * out.len()];
    out.fill(0.0);
    let len = out.len();
    std::iter::once(&mut *out)
        .chain(partial.chunks_exact_mut(len))
        .enumerate()
        .flat_map(|(part, sums)| {
            sums.chunks_mut(NARROW * geometry.atom_len()).enumerate().map(move |(block, sums)| (part, block, sums))
        })
        .collect::<Vec<_>>()
        .into_par_iter()
        .for_each(|(part, block, sums)| {
            let units = units * part / parts..units * (part + 1) / parts;
            pulp::Arch::new().dispatch(GradientBlock { plan: &plan, residuals, codes, units, block, sums });
        });
    for partial in partial.chunks_exact(len) {
        out.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += partial);
    }
}

/// Blocks of atoms below which a gradient's batch is split as well, and parts that it is split into.
const FEW: usize = 8;

/// Positions that are worth a sum across a vector.
const MANY: usize = 1 << 11;

/// How codes and residuals are packed for the gradient: both into rows of the same length, so that a tap is a distance.
struct Gradient<'a> {
    geometry: &'a LayerGeometry,
    /// Rows of the code that are worked on at a time.
    band: usize,
    bands: usize,
    phases: [usize; 2],
    /// Rows and columns of a packed plane of the residual.
    plane: [usize; 2],
    /// Length of a packed plane of the code.
    code_len: usize,
    /// Bands that are worked on at a time: sums across vectors are for many positions together.
    joined: usize,
    /// Distances of one channel's taps.
    offsets: Vec<usize>,
}

impl<'a> Gradient<'a> {
    fn new(geometry: &'a LayerGeometry) -> Self {
        let LayerGeometry { code, kernel, stride, .. } = geometry;
        let phases: [usize; 2] = std::array::from_fn(|axis| stride[axis].min(kernel[axis]));
        let extra: [usize; 2] = std::array::from_fn(|axis| (kernel[axis] - 1) / stride[axis]);
        let band = BAND_ROWS.min(code.height);
        let plane = [band + extra[0], code.width + extra[1]];
        let offset = |[e, f]: [usize; 2]| {
            let phase = e % stride[0] * phases[1] + f % stride[1];
            (phase * plane[0] + e / stride[0]) * plane[1] + f / stride[1]
        };
        Self {
            geometry,
            band,
            bands: code.height.div_ceil(band),
            phases,
            plane,
            code_len: (band * plane[1]).next_multiple_of(LANES),
            joined: (MANY / (band * plane[1])).max(1),
            offsets: (0..kernel[0] * kernel[1]).map(|tap| offset([tap / kernel[1], tap % kernel[1]])).collect(),
        }
    }
}

/// The gradient's share of a few atoms and a few bands.
struct GradientBlock<'a, 'b> {
    plan: &'a Gradient<'a>,
    residuals: &'a [f32],
    codes: &'a [f32],
    /// Bands, counted through the batch.
    units: std::ops::Range<usize>,
    /// Which atoms.
    block: usize,
    sums: &'b mut [f32],
}

impl WithSimd for GradientBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Gradient { geometry, band, bands, phases, plane, code_len, joined, offsets } = self.plan;
        let LayerGeometry { signal, code, stride, padding, .. } = geometry;
        let (plane_len, code_plane, signal_plane) =
            (plane[0] * plane[1], code.height * code.width, signal.height * signal.width);
        let channel_len = (phases[0] * phases[1] * plane_len).next_multiple_of(LANES) + LANES;
        let mut line = vec![0.0f32; *code_len];
        let mut packed_code = vec![0.0f32; joined * NARROW * code_len];
        let mut packed = vec![0.0f32; joined * channel_len];
        let end = self.units.end;
        for first in self.units.step_by(*joined) {
            let units = first..(first + joined).min(end);
            for (unit, packed) in units.clone().zip(packed_code.chunks_exact_mut(NARROW * code_len)) {
                let (row, top) = (unit / bands, unit % bands * band);
                let atoms = self.codes[row * code.len()..][..code.len()].chunks_exact(code_plane);
                for (index, atom) in atoms.skip(self.block * NARROW).take(NARROW).enumerate() {
                    pack_plane(atom, code.width, [top as isize, 0], [1, 1], &mut line[..band * plane[1]], plane[1]);
                    // Vectors of the atoms alternate.
                    let vectors = packed.chunks_exact_mut(S::F32_LANES).skip(index).step_by(NARROW);
                    vectors.zip(line.chunks_exact(S::F32_LANES)).for_each(|(to, from)| to.copy_from_slice(from));
                }
            }
            let packed_code = &packed_code[..units.len() * NARROW * code_len];
            if packed_code.iter().all(|value| *value == 0.0) {
                continue;
            }
            for channel in 0..signal.channels {
                for (unit, packed) in units.clone().zip(packed.chunks_exact_mut(channel_len)) {
                    let (row, top) = (unit / bands, unit % bands * band);
                    let values = &self.residuals[row * signal.len() + channel * signal_plane..][..signal_plane];
                    for (phase, target) in packed.chunks_exact_mut(plane_len).take(phases[0] * phases[1]).enumerate() {
                        let first = [
                            (top * stride[0] + phase / phases[1]) as isize - padding[0] as isize,
                            (phase % phases[1]) as isize - padding[1] as isize,
                        ];
                        pack_plane(values, signal.width, first, *stride, target, plane[1]);
                    }
                }
                let mut tap = 0;
                while tap < offsets.len() {
                    let sums = &mut self.sums[channel * offsets.len() + tap..];
                    let units = packed_code.chunks_exact(NARROW * code_len).zip(packed.chunks_exact(channel_len));
                    let taps = &offsets[tap..];
                    tap += match (S::REGISTER_COUNT >= 32, taps.len()) {
                        (true, 6..) => correlate::<S, 6>(simd, units, taps, sums, geometry.atom_len()),
                        (_, 2..) => correlate::<S, 2>(simd, units, taps, sums, geometry.atom_len()),
                        _ => correlate::<S, 1>(simd, units, taps, sums, geometry.atom_len()),
                    };
                }
            }
        }
    }
}

/// Adds the inner products of [`NARROW`] code planes, whose vectors alternate, and the residual at `T` distances to the sums, those
/// of one atom `atom_len` from the next's. Returns `T`.
#[inline(always)]
fn correlate<'a, S: Simd, const T: usize>(
    simd: S,
    units: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    offsets: &[usize],
    sums: &mut [f32],
    atom_len: usize,
) -> usize {
    let mut products = [[simd.splat_f32s(0.0); NARROW]; T];
    for (codes, residual) in units {
        let (codes, _) = S::as_simd_f32s(codes).0.as_chunks::<NARROW>();
        let mut shifted = [&[][..]; T];
        unrolled!(tap < T, shifted[tap] = &S::as_simd_f32s(&residual[offsets[tap]..]).0[..codes.len()]);
        for (place, code) in codes.iter().enumerate() {
            let mut values = [simd.splat_f32s(0.0); NARROW];
            unrolled!(atom < NARROW, values[atom] = code[atom]);
            unrolled!(tap < T, {
                let sample = shifted[tap][place];
                unrolled!(atom < NARROW, {
                    products[tap][atom] = simd.mul_add_f32s(values[atom], sample, products[tap][atom]);
                });
            });
        }
    }
    unrolled!(tap < T, {
        unrolled!(atom < NARROW, {
            // The last block may have fewer atoms; what stands for the missing is zero.
            if let Some(sum) = sums.get_mut(atom * atom_len + tap) {
                *sum += simd.reduce_sum_f32s(products[tap][atom]);
            }
        });
    });
    T
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};
    use crate::model::dictionary::{analyze, filter_gradient, synthesize};
    use burn::tensor::{Tensor, TensorData};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn layer(signal: SignalShape, shape: LayerShape) -> LayerGeometry {
        Geometry::new(signal, &[shape]).unwrap().layers()[0].clone()
    }

    fn random(generator: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        (0..len).map(|_| generator.random_range(-1.0..1.0)).collect()
    }

    fn assert_close(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        for (index, (&a, b)) in found.iter().zip(expected).enumerate() {
            // Sums of up to some thousand products of numbers below 1, whose rounding in `f32` cancels for the most part.
            assert!((f64::from(a) - b).abs() <= 1e-5 * largest.max(1.0), "{what} at {index}: {a} {b}");
        }
    }

    /// Analysis, synthesis and gradient by their definition: loops over the atoms' entries wherever they lie.
    fn by_definition(geometry: &LayerGeometry, filters: &HostFilters, signals: &[f32], codes: &[f32]) -> [Vec<f64>; 3] {
        let LayerGeometry { signal, code, kernel, stride, padding, .. } = geometry;
        let [mut analyzed, mut synthesized] = [codes.len(), signals.len()].map(|len| vec![0.0f64; len]);
        let mut gradient = vec![0.0f64; filters.values().len()];
        let len = geometry.atom_len();
        for place in 0..codes.len() {
            let (batch, index) = (place / code.len(), place % code.len());
            let (atom, y, x) =
                (index / (code.height * code.width), index / code.width % code.height, index % code.width);
            let value = f64::from(codes[place]);
            let mut sum = 0.0;
            for entry in 0..len {
                let (channel, e, f) =
                    (entry / (kernel[0] * kernel[1]), entry / kernel[1] % kernel[0], entry % kernel[1]);
                // Beyond the padding an atom is cut off.
                let Some(row) = (y * stride[0] + e).checked_sub(padding[0]).filter(|row| *row < signal.height) else {
                    continue;
                };
                let Some(column) = (x * stride[1] + f).checked_sub(padding[1]).filter(|column| *column < signal.width)
                else {
                    continue;
                };
                let sample = batch * signal.len() + (channel * signal.height + row) * signal.width + column;
                let weight = f64::from(filters.values()[atom * len + entry]);
                sum += weight * f64::from(signals[sample]);
                synthesized[sample] += weight * value;
                gradient[atom * len + entry] += value * f64::from(signals[sample]);
            }
            analyzed[place] = sum;
        }
        [analyzed, synthesized, gradient]
    }

    /// Analysis, synthesis and gradient, and the tensors', which may be computed by the same code, against their definition.
    fn agrees(geometry: &LayerGeometry, count: usize, seed: u64) {
        let device = crate::device::named(None).unwrap();
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut values = random(&mut generator, geometry.filter_dims().iter().product());
        // Zeros are left out, which must not be seen.
        values.iter_mut().step_by(3).for_each(|value| *value = if *value > 0.0 { 0.0 } else { *value });
        let filters = HostFilters::new(geometry.filter_dims(), values);
        let signals = random(&mut generator, count * geometry.signal.len());
        let codes = random(&mut generator, count * geometry.code.len());
        let signal_tensor: Tensor<4> =
            Tensor::from_data(TensorData::new(signals.clone(), geometry.signal.batched(count)), &device);
        let code_tensor: Tensor<4> =
            Tensor::from_data(TensorData::new(codes.clone(), geometry.code.batched(count)), &device);
        let convolution = Convolution::new(&filters, geometry);
        // What the buffers held does not matter.
        let mut analyzed = vec![f32::NAN; codes.len()];
        convolution.analyze_into(&signals, &mut analyzed);
        let tensor = filters.to_tensor(&device);
        let expected = by_definition(geometry, &filters, &signals, &codes);
        let host = |tensor: Tensor<4>| -> Vec<f32> { tensor.into_data().iter::<f32>().collect() };
        let by_tensors = host(analyze(signal_tensor.clone(), tensor.clone(), geometry));
        assert_close(&analyzed, &expected[0], &format!("analysis {geometry:?}"));
        assert_close(&by_tensors, &expected[0], &format!("the tensors' analysis {geometry:?}"));
        let mut synthesized = vec![f32::NAN; signals.len()];
        convolution.synthesize_into(&codes, &mut synthesized);
        let by_tensors = host(synthesize(code_tensor.clone(), tensor.clone(), geometry));
        assert_close(&synthesized, &expected[1], &format!("synthesis {geometry:?}"));
        assert_close(&by_tensors, &expected[1], &format!("the tensors' synthesis {geometry:?}"));
        let mut gradient = vec![f32::NAN; filters.values().len()];
        filter_gradient_into(geometry, &signals, &codes, &mut gradient);
        let by_tensors = host(filter_gradient(signal_tensor, code_tensor, tensor, geometry));
        assert_close(&gradient, &expected[2], &format!("gradient {geometry:?}"));
        assert_close(&by_tensors, &expected[2], &format!("the tensors' gradient {geometry:?}"));
        let len = geometry.signal.len();
        for (signal, analyzed) in signals.chunks_exact(len).zip(analyzed.chunks_exact(geometry.code.len())) {
            let SignalShape { height, width, .. } = geometry.code;
            let seen = convolution.analyze_bands(signal, |first, values| {
                let rows = values.len() / geometry.code.channels / width;
                for (plane, part) in analyzed.chunks_exact(height * width).zip(values.chunks_exact(rows * width)) {
                    assert_eq!(&plane[first * width..][..rows * width], part);
                }
                rows
            });
            assert_eq!(seen.iter().sum::<usize>(), height);
        }
    }

    #[test]
    fn random_geometries_follow_the_definition() {
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        for seed in 0..60 {
            let mut pair =
                |from: usize, to: usize| Pair([generator.random_range(from..=to), generator.random_range(from..=to)]);
            let (kernel, stride, extra) = (pair(1, 9), pair(1, 3), pair(0, 25));
            let padding = pair(0, 3);
            let padding = Pair(std::array::from_fn(|axis| padding.0[axis].min(kernel.0[axis] - 1)));
            let [atoms, channels] = pair(1, 11).0;
            let signal = SignalShape::new(channels, kernel.0[0] + extra.0[0], kernel.0[1] + extra.0[1]);
            let shape = LayerShape::new(atoms, kernel, stride).with_padding(padding);
            agrees(&layer(signal, shape), 1 + seed as usize % 3, seed);
        }
    }

    /// Long rows, several bands, several groups of channels, joined rows.
    #[test]
    fn large_geometries_follow_the_definition() {
        for (signal, shape) in [
            (SignalShape::new(1, 75, 130), LayerShape::new(19, Pair([8, 7]), 1)),
            (SignalShape::new(1, 61, 150), LayerShape::new(2, 11, 1).with_padding(Pair([3, 10]))),
            (SignalShape::new(70, 40, 24), LayerShape::new(12, 5, 1)),
            (SignalShape::new(1, 80, 300), LayerShape::new(30, Pair([4, 3]), Pair([2, 2]))),
            (SignalShape::new(2, 90, 210), LayerShape::new(5, Pair([6, 4]), Pair([2, 3])).with_padding(2)),
            (SignalShape::new(1, 13, 13), LayerShape::new(6, 13, 1)),
        ] {
            agrees(&layer(signal, shape), 2, 7);
        }
    }

    /// What [`large_geometries_follow_the_definition`] has to go through: channels in groups, in analysis and, strided, in synthesis.
    #[test]
    fn many_channels_are_worked_on_in_groups() {
        let groups = |signal: SignalShape, shape: LayerShape| {
            let geometry = layer(signal, shape);
            let convolution = Convolution::new(&HostFilters::zeros(geometry.filter_dims()), &geometry);
            [&convolution.analysis, &convolution.synthesis].map(|part| part.input.channels.div_ceil(part.group))
        };
        assert!(groups(SignalShape::new(70, 40, 24), LayerShape::new(12, 5, 1))[0] > 1);
        assert!(groups(SignalShape::new(1, 80, 300), LayerShape::new(30, Pair([4, 3]), Pair([2, 2])))[1] > 1);
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let geometry = layer(SignalShape::new(2, 50, 70), LayerShape::new(7, 5, 1).with_padding(2));
        let mut generator = ChaCha8Rng::seed_from_u64(3);
        let filters =
            HostFilters::new(geometry.filter_dims(), random(&mut generator, geometry.filter_dims().iter().product()));
        let signals = random(&mut generator, 3 * geometry.signal.len());
        let run = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let convolution = Convolution::new(&filters, &geometry);
                let mut codes = vec![0.0; 3 * geometry.code.len()];
                convolution.analyze_into(&signals, &mut codes);
                let mut back = vec![0.0; signals.len()];
                convolution.synthesize_into(&codes, &mut back);
                let mut gradient = vec![0.0; filters.values().len()];
                filter_gradient_into(&geometry, &signals, &codes, &mut gradient);
                (codes, back, gradient)
            })
        };
        let one = run(1);
        assert!((2..5).all(|threads| run(threads) == one));
    }

    #[test]
    fn empty_batches_have_a_zero_gradient() {
        let geometry = layer(SignalShape::new(1, 9, 9), LayerShape::new(2, 3, 1));
        let convolution = Convolution::new(&HostFilters::zeros(geometry.filter_dims()), &geometry);
        convolution.analyze_into(&[], &mut []);
        convolution.synthesize_into(&[], &mut []);
        let mut gradient = [1.0; 18];
        filter_gradient_into(&geometry, &[], &[], &mut gradient);
        assert_eq!(gradient, [0.0; 18]);
    }
}
