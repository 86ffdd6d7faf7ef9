//! The dictionary of descent on the residual on the host: how images are laid out and cut into tiles and blocks, and the inner
//! loops over an atom's samples.

use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::convolution::{BandScratch, Convolution};
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::{HostFilters, energy};
use pulp::{Simd, WithSimd};

/// Code positions of a tile's height and width at least, and where the code has few of them.
const TILE: usize = 16;
const SMALL_TILE: usize = 8;

/// Tiles of a code in a direction below which they are small ones: else there were too few blocks for several cores.
const FEW_TILES: usize = 8;

/// Tiles of a block in each direction at most. At three places in turn, three tiles in a row lie in one block at one of them.
pub(super) const BLOCK: usize = 3;

/// Code positions of a look's height and width about: what a band of the analysis has, and what it computes row by row.
const LOOK: [usize; 2] = [16, 64];

/// Extent of the cells whose strongest violators join the working set.
const CELL: usize = 4;

/// Violators of a cell that join at a time.
const PER_CELL: usize = 2;

/// Values that are looked at together.
pub(super) const LANES: usize = 16;

/// The dictionary and the layout of images, shared by all signals.
///
/// An image holds the signal with its padding, rows of all channels one after the other: `[rows, channels, columns]`. The code's
/// positions are divided into *tiles*; looks and work are about *blocks* of a few tiles, each on a copy of the samples that its atoms
/// reach, its *window*: `[rows, channels, pitch]`, lines ending with so many zeros that whole vectors of an atom's line stay inside.
pub(super) struct Dictionary {
    /// The layer as if its signals had their padding.
    pub geometry: LayerGeometry,
    /// What the signal itself is like.
    signal: SignalShape,
    pub padding: [usize; 2],
    /// The code as blocks that are looked at one by one; the colour says which of the convolutions it takes.
    looks: Vec<Block>,
    /// Analysis of their windows.
    convolutions: Vec<Convolution>,
    /// Atoms as `[atom, rows, channels, line]`, lines ending with zeros.
    atoms: Vec<f32>,
    /// Lines of an atom.
    lines: usize,
    /// Length of an atom's line: whole vectors.
    pub line: usize,
    /// Code positions of a tile's height and width.
    pub tile: [usize; 2],
    /// How many tiles the code has.
    pub tiles: [usize; 2],
    /// Tiles of a block's height and width at most.
    block: [usize; 2],
    /// One per atom.
    pub energies: Vec<f32>,
    pub weights: Vec<f32>,
}

/// Some tiles: rows and columns of tiles from `first` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    pub first: [usize; 2],
    pub end: [usize; 2],
    /// Blocks of one colour share no sample.
    pub colour: usize,
}

impl Block {
    /// Numbers of the tiles, row by row.
    pub fn tiles(&self, per_row: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { first, end, .. } = *self;
        (first[0]..end[0]).flat_map(move |row| (first[1]..end[1]).map(move |column| row * per_row + column))
    }

    /// Number of tiles in each direction.
    pub fn extents(&self) -> [usize; 2] {
        std::array::from_fn(|axis| self.end[axis] - self.first[axis])
    }
}

/// Where a block lies in the code and in an image, axis by axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// First code position, and how many there are.
    pub position: [usize; 2],
    pub positions: [usize; 2],
    /// First sample, and how many the block's atoms reach.
    sample: [usize; 2],
    samples: [usize; 2],
    /// Length of a line of the window.
    pub pitch: usize,
}

/// A coefficient of the working set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Index into the code.
    pub place: u32,
    /// Where its atom starts in the window of the block that is worked on.
    pub start: u32,
    pub atom: u32,
    /// Sweeps that it has been zero for.
    pub idle: u32,
    pub value: f32,
    /// Squared norm of what the mask leaves of its atom; not a number where that is not known yet.
    pub energy: f32,
    /// Negative derivative of the objective, for its sign.
    pub slope: f32,
    /// Direction of conjugate gradients, and the step so far.
    pub direction: f32,
    pub step: f32,
}

impl Member {
    /// A coefficient; its energy is that of its atom unless there is a mask.
    pub fn new(dictionary: &Dictionary, place: usize, value: f32, masked: bool) -> Self {
        let [atom, ..] = dictionary.geometry.place(place);
        Self {
            place: place as u32,
            start: 0,
            atom: atom as u32,
            idle: 0,
            value,
            energy: if masked { f32::NAN } else { dictionary.energies[atom] },
            slope: 0.0,
            direction: 0.0,
            step: 0.0,
        }
    }

    /// How often its direction leads to zero, if it does.
    pub fn kink(&self) -> Option<f32> {
        let kink = -self.value / self.direction;
        (kink > 0.0 && kink.is_finite()).then_some(kink)
    }

    /// Moves it to the window of a block.
    pub fn locate(&mut self, dictionary: &Dictionary, place: &Place) {
        let [_, row, column] = dictionary.geometry.place(self.place as usize);
        self.start = dictionary.start(place, row, column);
    }
}

/// What all correlations of a tile's atoms with a residual say.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Largest correlation in units of the weights.
    pub largest: f32,
    /// Places that should join the working set, cell by cell.
    pub violators: Vec<usize>,
}

/// Memory that looking at a block needs.
pub(super) struct LookScratch {
    signal: Vec<f32>,
    /// One for each of the convolutions, once it was needed.
    bands: Vec<Option<BandScratch>>,
    strongest: Vec<[(f32, usize); PER_CELL]>,
    inside: Bits,
}

impl Dictionary {
    pub fn new(filters: &HostFilters, geometry: &LayerGeometry, weights: Option<&[f32]>) -> Self {
        let LayerGeometry { signal, code, kernel, stride, padding, .. } = geometry.clone();
        let padded = SignalShape::new(signal.channels, signal.height + 2 * padding[0], signal.width + 2 * padding[1]);
        let geometry = LayerGeometry { signal: padded, padding: [0, 0], ..geometry.clone() };
        let line = kernel[1].next_multiple_of(pulp::Arch::new().dispatch(Lanes));
        let lines = kernel[0] * signal.channels;
        let mut atoms = vec![0.0; filters.atoms() * lines * line];
        for (atom, packed) in atoms.chunks_exact_mut(lines * line).enumerate() {
            for (index, values) in filters.atom(atom).chunks_exact(kernel[1]).enumerate() {
                let (channel, row) = (index / kernel[0], index % kernel[0]);
                packed[(row * signal.channels + channel) * line..][..kernel[1]].copy_from_slice(values);
            }
        }
        let positions = [code.height, code.width];
        let least = if positions.iter().all(|&positions| positions < FEW_TILES * TILE) { SMALL_TILE } else { TILE };
        // Atoms of one tile reach into the next, and no further.
        let tile: [usize; 2] = std::array::from_fn(|axis| least.max(kernel[axis].div_ceil(stride[axis])));
        let tiles: [usize; 2] = std::array::from_fn(|axis| positions[axis].div_ceil(tile[axis]));
        let mut this = Self {
            looks: Vec::new(),
            convolutions: Vec::new(),
            signal,
            padding,
            atoms,
            lines,
            line,
            tile,
            tiles,
            block: tiles.map(|tiles| tiles.min(BLOCK)),
            energies: (0..filters.atoms()).map(|atom| energy(filters.atom(atom)) as f32).collect(),
            weights: weights.map_or_else(|| vec![1.0; filters.atoms()], <[f32]>::to_vec),
            geometry,
        };
        this.plan_looks(filters);
        this
    }

    /// Divides the code into blocks to look at, of nearly equal size, and prepares the analysis of each size.
    fn plan_looks(&mut self, filters: &HostFilters) {
        let ranges: [Vec<[usize; 2]>; 2] = std::array::from_fn(|axis| {
            let (tiles, wanted) = (self.tiles[axis], LOOK[axis].div_ceil(self.tile[axis]));
            let parts = (tiles / wanted).max(1);
            (0..parts).map(|part| [part * tiles / parts, (part + 1) * tiles / parts]).collect()
        });
        let mut sizes: Vec<[usize; 2]> = Vec::new();
        for rows in &ranges[0] {
            for columns in &ranges[1] {
                let mut block = Block { first: [rows[0], columns[0]], end: [rows[1], columns[1]], colour: 0 };
                let positions = self.place(&block).positions;
                block.colour = sizes.iter().position(|size| *size == positions).unwrap_or(sizes.len());
                if block.colour == sizes.len() {
                    sizes.push(positions);
                }
                self.looks.push(block);
            }
        }
        let LayerGeometry { signal, code, kernel, stride, .. } = &self.geometry;
        let of_size = sizes.into_iter().map(|[height, width]| {
            let geometry = LayerGeometry {
                signal: SignalShape::new(
                    signal.channels,
                    (height - 1) * stride[0] + kernel[0],
                    (width - 1) * stride[1] + kernel[1],
                ),
                code: SignalShape::new(code.channels, height, width),
                output_padding: [0, 0],
                ..self.geometry.clone()
            };
            Convolution::new(filters, &geometry)
        });
        self.convolutions = of_size.collect();
    }

    /// The code as blocks to look at.
    pub fn looks(&self) -> &[Block] {
        &self.looks
    }

    /// A signal as an image.
    pub fn image(&self, signal: &[f32]) -> Vec<f32> {
        let SignalShape { channels, height, width } = self.signal;
        let columns = self.geometry.signal.width;
        let mut image = vec![0.0; self.geometry.signal.len()];
        for (index, line) in signal.chunks_exact(width).enumerate() {
            let (channel, row) = (index / height, index % height + self.padding[0]);
            image[(row * channels + channel) * columns + self.padding[1]..][..width].copy_from_slice(line);
        }
        image
    }

    /// The code as blocks; they lie elsewhere at each of [`BLOCK`] shifts in turn, so that what is a border at one is inside at
    /// another.
    pub fn blocks(&self, shift: usize) -> Vec<Block> {
        let ranges: [Vec<[usize; 2]>; 2] = std::array::from_fn(|axis| {
            let (tiles, block) = (self.tiles[axis], self.block[axis]);
            let first = if tiles == block || shift.is_multiple_of(block) { block } else { shift % block };
            let mut ranges = vec![[0, first]];
            (first..tiles).step_by(block).for_each(|first| ranges.push([first, (first + block).min(tiles)]));
            ranges
        });
        let [rows, columns] = &ranges;
        let blocks = rows.iter().enumerate().flat_map(|(row, rows)| {
            columns.iter().enumerate().map(move |(column, columns)| Block {
                first: [rows[0], columns[0]],
                end: [rows[1], columns[1]],
                colour: row % 2 * 2 + column % 2,
            })
        });
        blocks.collect()
    }

    /// Whether one block is all there is.
    pub fn is_one_block(&self) -> bool {
        self.tiles == self.block
    }

    /// Number of the tile that a row and a column of the code lie in.
    pub fn tile_of(&self, row: usize, column: usize) -> usize {
        row / self.tile[0] * self.tiles[1] + column / self.tile[1]
    }

    pub fn place(&self, block: &Block) -> Place {
        let LayerGeometry { code, kernel, stride, .. } = &self.geometry;
        let end: [usize; 2] =
            std::array::from_fn(|axis| (block.end[axis] * self.tile[axis]).min([code.height, code.width][axis]));
        let position: [usize; 2] = std::array::from_fn(|axis| block.first[axis] * self.tile[axis]);
        let positions: [usize; 2] = std::array::from_fn(|axis| end[axis] - position[axis]);
        let samples: [usize; 2] = std::array::from_fn(|axis| (positions[axis] - 1) * stride[axis] + kernel[axis]);
        Place {
            position,
            positions,
            sample: std::array::from_fn(|axis| position[axis] * stride[axis]),
            samples,
            // An odd number of cache lines: rows that lie a power of two apart would contend for the same places in the cache.
            pitch: ((samples[1] + self.line - kernel[1]).div_ceil(LANES) | 1) * LANES,
        }
    }

    /// Where an atom starts in the window of a block, given its row and column in the code.
    pub fn start(&self, place: &Place, row: usize, column: usize) -> u32 {
        let LayerGeometry { signal, stride, .. } = &self.geometry;
        let line = (row - place.position[0]) * stride[0] * signal.channels;
        (line * place.pitch + (column - place.position[1]) * stride[1]) as u32
    }

    /// Values of a window.
    pub fn window_len(&self, place: &Place) -> usize {
        place.samples[0] * self.geometry.signal.channels * place.pitch
    }

    /// Where the lines of a block's window start in it and in an image, and how long they are.
    fn lines(&self, place: &Place) -> impl Iterator<Item = (usize, usize)> + use<> {
        let SignalShape { channels, width, .. } = self.geometry.signal;
        let Place { sample, samples, pitch, .. } = *place;
        let first = sample[0] * channels;
        (0..samples[0] * channels).map(move |line| (line * pitch, (first + line) * width + sample[1]))
    }

    /// Copies a block's window out of an image.
    pub fn cut(&self, image: &[f32], place: &Place, window: &mut Vec<f32>) {
        window.clear();
        window.resize(self.window_len(place), 0.0);
        for (to, from) in self.lines(place) {
            window[to..][..place.samples[1]].copy_from_slice(&image[from..][..place.samples[1]]);
        }
    }

    /// Copies a block's window back.
    pub fn paste(&self, window: &[f32], place: &Place, image: &mut [f32]) {
        for (from, to) in self.lines(place) {
            image[to..][..place.samples[1]].copy_from_slice(&window[from..][..place.samples[1]]);
        }
    }

    /// Subtracts a block's window.
    pub fn subtract(&self, window: &[f32], place: &Place, image: &mut [f32]) {
        for (from, to) in self.lines(place) {
            let samples = &window[from..][..place.samples[1]];
            image[to..][..place.samples[1]].iter_mut().zip(samples).for_each(|(image, sample)| *image -= sample);
        }
    }

    /// Where the samples of a tile begin: those that its atoms start in. The last tiles have all up to the image's end.
    pub fn own_samples(&self, tile: usize, axis: usize) -> std::ops::Range<usize> {
        let LayerGeometry { signal, stride, .. } = &self.geometry;
        let (len, size) = (self.tile[axis] * stride[axis], [signal.height, signal.width][axis]);
        tile * len..if tile + 1 == self.tiles[axis] { size } else { (tile + 1) * len }
    }

    pub fn look_scratch(&self) -> LookScratch {
        LookScratch {
            signal: Vec::new(),
            bands: vec![None; self.convolutions.len()],
            strongest: Vec::new(),
            inside: Bits(Vec::new()),
        }
    }

    /// Correlates the window of one of [`Self::looks`] with all atoms and says, tile by tile, what there is.
    ///
    /// - `lambda`, `sign`: what a correlation may be, and by what it is multiplied to see whether it counts with the other sign
    /// - `inside`: places that are no violators any more; `None` where violators are not asked for
    pub fn look(
        &self,
        window: &[f32],
        block: &Block,
        [lambda, sign]: [f32; 2],
        inside: Option<&mut dyn Iterator<Item = &Member>>,
        scratch: &mut LookScratch,
    ) -> Vec<Seen> {
        let LookScratch { signal, bands, strongest, inside: bits } = scratch;
        let (place, convolution) = (self.place(block), &self.convolutions[block.colour]);
        let SignalShape { channels, height, width } = convolution.geometry().signal;
        signal.resize(channels * height * width, 0.0);
        for (index, line) in signal.chunks_exact_mut(width).enumerate() {
            line.copy_from_slice(&window[(index % height * channels + index / height) * place.pitch..][..width]);
        }
        let (wanted, code) = (inside.is_some(), convolution.geometry().code);
        if let Some(members) = inside {
            bits.clear(code.len());
            for member in members {
                let [atom, row, column] = self.geometry.place(member.place as usize);
                let (row, column) = (row - place.position[0], column - place.position[1]);
                bits.insert((atom * code.height + row) * code.width + column);
            }
            strongest.clear();
            strongest.resize(code.height.div_ceil(CELL) * code.width.div_ceil(CELL), [(0.0, 0); PER_CELL]);
        }
        let mut seen = vec![Seen::default(); block.extents().iter().product()];
        let bands = bands[block.colour].get_or_insert_with(|| convolution.band_scratch());
        convolution.analyze_serially(signal, bands, |first, values| {
            vectorised(
                #[inline(always)]
                || {
                    let mut of_band = OfBand { code, first, values, seen: &mut seen, strongest };
                    let bits = if wanted { Some(&*bits) } else { None };
                    self.look_at_band(&mut of_band, lambda, sign, bits)
                },
            );
        });
        if wanted {
            let all = self.geometry.code;
            for &(_, at) in strongest.iter().flatten().filter(|(excess, _)| *excess > 0.0) {
                let [atom, row, column] =
                    [at / (code.width * code.height), at / code.width % code.height, at % code.width];
                let tile = row / self.tile[0] * block.extents()[1] + column / self.tile[1];
                let (row, column) = (place.position[0] + row, place.position[1] + column);
                seen[tile].violators.push((atom * all.height + row) * all.width + column);
            }
        }
        seen
    }

    #[inline(always)]
    fn look_at_band(&self, of_band: &mut OfBand, lambda: f32, sign: f32, inside: Option<&Bits>) {
        let OfBand { code, first, values, seen, strongest } = of_band;
        let SignalShape { channels, height, width } = *code;
        let (rows, cells) = (values.len() / (channels * width), width.div_ceil(CELL));
        let tiles = width.div_ceil(self.tile[1]);
        for (line, values) in values.chunks_exact(width).enumerate() {
            let (atom, row) = (line / rows, *first + line % rows);
            let scale = 1.0 / self.weights[atom];
            let at = (atom * height + row) * width;
            for (tile, values) in values.chunks(self.tile[1]).enumerate() {
                let mut largest = 0.0f32;
                for (index, chunk) in values.chunks(LANES).enumerate() {
                    let mut sizes = [0.0f32; LANES];
                    for (size, value) in sizes.iter_mut().zip(chunk) {
                        // Of non-negative codes only positive correlations count.
                        *size = scale * value.max(sign * value);
                    }
                    let most = sizes.iter().fold(0.0f32, |most, &size| if size > most { size } else { most });
                    largest = if most > largest { most } else { largest };
                    let Some(inside) = inside.filter(|_| most > lambda) else { continue };
                    for (column, &size) in (tile * self.tile[1] + index * LANES..).zip(&sizes) {
                        if size > lambda && !inside.get(at + column) {
                            let mut candidate = (size - lambda, at + column);
                            for slot in &mut strongest[row / CELL * cells + column / CELL] {
                                if candidate.0 > slot.0 {
                                    std::mem::swap(slot, &mut candidate);
                                }
                            }
                        }
                    }
                }
                let seen = &mut seen[row / self.tile[0] * tiles + tile];
                seen.largest = seen.largest.max(largest);
            }
        }
    }

    /// Vectors of an atom's line: `V`, or as many as there are where that is 0.
    #[inline(always)]
    fn vectors<S: Simd, const V: usize>(&self) -> usize {
        if V == 0 { self.line / S::F32_LANES } else { V }
    }

    #[inline(always)]
    fn atom(&self, member: &Member) -> &[f32] {
        &self.atoms[member.atom as usize * self.lines * self.line..][..self.lines * self.line]
    }

    /// Inner product of an atom and the window that starts there.
    #[inline(always)]
    pub fn correlate<S: Simd, const V: usize>(&self, simd: S, member: &Member, samples: &[f32], pitch: usize) -> f32 {
        let vectors = self.vectors::<S, V>();
        let mut sums = [simd.splat_f32s(0.0); 2];
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let samples = S::as_simd_f32s(&samples[at..at + vectors * S::F32_LANES]).0;
            for v in 0..vectors {
                sums = [sums[1], simd.mul_add_e_f32s(samples[v], entries[v], sums[0])];
            }
            at += pitch;
        }
        simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
    }

    /// Squared norm of what a mask leaves of an atom.
    #[inline(always)]
    pub fn energy<S: Simd, const V: usize>(&self, simd: S, member: &Member, mask: &[f32], pitch: usize) -> f32 {
        let vectors = self.vectors::<S, V>();
        let mut sum = simd.splat_f32s(0.0);
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let mask = S::as_simd_f32s(&mask[at..at + vectors * S::F32_LANES]).0;
            for v in 0..vectors {
                sum = simd.mul_add_e_f32s(simd.mul_f32s(mask[v], entries[v]), entries[v], sum);
            }
            at += pitch;
        }
        simd.reduce_sum_f32s(sum)
    }

    /// Adds a multiple of an atom to the window that starts there, where the mask lets it.
    #[inline(always)]
    pub fn add<S: Simd, const V: usize>(
        &self,
        simd: S,
        member: &Member,
        scale: f32,
        samples: &mut [f32],
        mask: Option<&[f32]>,
        pitch: usize,
    ) {
        let vectors = self.vectors::<S, V>();
        let scale = simd.splat_f32s(scale);
        let mut at = member.start as usize;
        for entries in S::as_simd_f32s(self.atom(member)).0.chunks_exact(vectors) {
            let samples = S::as_mut_simd_f32s(&mut samples[at..at + vectors * S::F32_LANES]).0;
            match mask {
                None => {
                    for v in 0..vectors {
                        samples[v] = simd.mul_add_e_f32s(scale, entries[v], samples[v]);
                    }
                }
                Some(mask) => {
                    let mask = S::as_simd_f32s(&mask[at..at + vectors * S::F32_LANES]).0;
                    for v in 0..vectors {
                        samples[v] = simd.mul_add_e_f32s(simd.mul_f32s(scale, mask[v]), entries[v], samples[v]);
                    }
                }
            }
            at += pitch;
        }
    }
}

/// A band of correlations, and what is gathered from it.
struct OfBand<'a> {
    /// Of the block.
    code: SignalShape,
    /// First row of the band in the block.
    first: usize,
    values: &'a [f32],
    seen: &'a mut [Seen],
    strongest: &'a mut [[(f32, usize); PER_CELL]],
}

/// How many values a vector of this machine holds.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// A set of places.
struct Bits(Vec<u64>);

impl Bits {
    /// Empties it, for places below `len`.
    fn clear(&mut self, len: usize) {
        self.0.clear();
        self.0.resize(len.div_ceil(64), 0);
    }

    #[inline(always)]
    fn get(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};

    fn dictionary(signal: SignalShape, layer: LayerShape) -> Dictionary {
        let geometry = Geometry::new(signal, &[layer]).unwrap().layers()[0].clone();
        Dictionary::new(&HostFilters::zeros(geometry.filter_dims()), &geometry, None)
    }

    /// At every shift each tile is in one block, blocks of one colour share no sample, and any two neighbouring tiles are together
    /// at some shift.
    #[test]
    fn blocks_cover_the_code_and_move() {
        for (signal, layer) in [
            (SignalShape::new(1, 150, 260), LayerShape::new(2, 5, 1)),
            (SignalShape::new(2, 90, 300), LayerShape::new(3, Pair([8, 40]), Pair([2, 1]))),
            (SignalShape::new(1, 30, 200), LayerShape::new(1, Pair([3, 8]), 1).with_padding(2)),
            (SignalShape::new(1, 12, 12), LayerShape::new(1, 4, 1)),
        ] {
            let dictionary = dictionary(signal, layer);
            let [rows, columns] = dictionary.tiles;
            let mut together = vec![false; rows * columns];
            for shift in 0..BLOCK {
                let blocks = dictionary.blocks(shift);
                let mut times = vec![0; rows * columns];
                blocks.iter().flat_map(|block| block.tiles(columns)).for_each(|tile| times[tile] += 1);
                assert!(times.iter().all(|times| *times == 1), "{:?}", dictionary.tiles);
                for colour in 0..4 {
                    let mut taken = vec![false; dictionary.geometry.signal.len()];
                    for block in blocks.iter().filter(|block| block.colour == colour) {
                        let place = dictionary.place(block);
                        for (_, line) in dictionary.lines(&place) {
                            for sample in &mut taken[line..][..place.samples[1]] {
                                assert!(!std::mem::replace(sample, true));
                            }
                        }
                    }
                }
                for block in &blocks {
                    for tile in block.tiles(columns) {
                        let (row, column) = (tile / columns, tile % columns);
                        let inside = |row: usize, column: usize| row < block.end[0] && column < block.end[1];
                        together[tile] |= inside((row + 1).min(rows - 1), (column + 1).min(columns - 1));
                    }
                }
            }
            assert!(together.iter().all(|together| *together), "{:?}", dictionary.tiles);
        }
    }
}
