//! D_1 … D_L on the host in `f64`, with a bound of what rounding has done to every number.
//!
//! The filters are the model's `f32` values, taken as exact. Sent down the cascade with them goes the sum of the magnitudes of
//! everything that was added up: the rounding error of a value is at most [`Cascade::error`] times that, and what it is zero for was
//! reached by nothing.

use super::rounding::{ExactSum, accumulated};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerGeometry, SignalShape};
use crate::kernels::sparse::{nonzeros, to_host};
use crate::model::Mlcsc;
use std::collections::HashMap;
use std::sync::Arc;

/// Products along the cascade, of the largest or of the least filter values, stay within 2^±RANGE: their squares, and the products
/// with codes, neither overflow nor underflow in `f64`.
const RANGE: f64 = 480.0;

/// Layers whose products are exact as sums of `f64`: none of their digits lies below the least number that there is.
const MAX_EXACT_DEPTH: usize = 6;

/// One dictionary by its values and by its non-zeros.
#[derive(Debug)]
struct Filters {
    /// `[atom, channel, row, column]`.
    values: Vec<f32>,
    /// Where every atom's entries start, one more than there are atoms.
    starts: Vec<usize>,
    /// Place within the atom and value of the non-zeros.
    entries: Vec<(u32, f32)>,
    /// Channel, row and column of every place within an atom.
    places: Vec<[u32; 3]>,
}

impl Filters {
    fn new(values: Vec<f32>, layer: &LayerGeometry) -> Self {
        let [height, width] = layer.kernel;
        let places = (0..layer.atom_len())
            .map(|place| [place / (height * width), place / width % height, place % width].map(|index| index as u32))
            .collect();
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for atom in values.chunks_exact(layer.atom_len()) {
            entries.extend(nonzeros(atom).map(|(place, value)| (place as u32, value)));
            starts.push(entries.len());
        }
        Self { values, starts, entries, places }
    }

    fn atom(&self, index: usize) -> &[(u32, f32)] {
        &self.entries[self.starts[index]..self.starts[index + 1]]
    }
}

/// Part of a representation or signal: all channels of a window, which may reach beyond the borders.
#[derive(Debug, Clone)]
pub(super) struct Map {
    /// Row and column of the window's first value.
    origin: [isize; 2],
    size: [usize; 2],
    /// `[channel, row, column]`.
    pub(super) values: Vec<f64>,
    /// What the values' magnitudes would be at most without cancellation.
    pub(super) magnitudes: Vec<f64>,
}

impl Map {
    /// A whole code.
    pub(super) fn of_code(code: &[f32], shape: SignalShape) -> Self {
        let values: Vec<f64> = code.iter().map(|&value| f64::from(value)).collect();
        let magnitudes = values.iter().map(|value| value.abs()).collect();
        Self { origin: [0, 0], size: [shape.height, shape.width], values, magnitudes }
    }

    /// The code that is one in a single place.
    fn impulse(atom: usize, position: [usize; 2], atoms: usize) -> Self {
        let mut values = vec![0.0; atoms];
        values[atom] = 1.0;
        Self { origin: position.map(|place| place as isize), size: [1, 1], magnitudes: values.clone(), values }
    }

    /// As values of that shape, zero where the window does not reach.
    fn on(self, shape: SignalShape) -> Self {
        let extents = [shape.height, shape.width];
        if self.origin == [0, 0] && self.size == extents {
            return self;
        }
        let mut out =
            Self { origin: [0, 0], size: extents, values: vec![0.0; shape.len()], magnitudes: vec![0.0; shape.len()] };
        self.for_each_inside(extents, |from, channel, row, column| {
            let to = (channel * extents[0] + row) * extents[1] + column;
            out.values[to] = self.values[from];
            out.magnitudes[to] = self.magnitudes[from];
        });
        out
    }

    /// Zeros where the window reaches beyond the borders.
    fn crop(&mut self, extents: [usize; 2]) {
        let inside =
            |axis: usize| self.origin[axis] >= 0 && self.origin[axis] as usize + self.size[axis] <= extents[axis];
        if inside(0) && inside(1) {
            return;
        }
        let mut cropped = vec![true; self.values.len()];
        self.for_each_inside(extents, |place, _, _, _| cropped[place] = false);
        for (place, _) in cropped.iter().enumerate().filter(|(_, cropped)| **cropped) {
            (self.values[place], self.magnitudes[place]) = (0.0, 0.0);
        }
    }

    /// Calls `visit(place in the window, channel, row, column)` for what lies within the borders.
    fn for_each_inside(&self, extents: [usize; 2], mut visit: impl FnMut(usize, usize, usize, usize)) {
        let [height, width] = self.size;
        for channel in 0..self.values.len() / (height * width).max(1) {
            for row in 0..height {
                for column in 0..width {
                    let y = (self.origin[0] + row as isize) as usize;
                    let x = (self.origin[1] + column as isize) as usize;
                    // What lies before the first row or column wraps around.
                    if y < extents[0] && x < extents[1] {
                        visit((channel * height + row) * width + column, channel, y, x);
                    }
                }
            }
        }
    }
}

/// The cascade on signals of one shape.
#[derive(Debug, Clone)]
pub(super) struct Cascade {
    geometry: Geometry,
    filters: Vec<Arc<Filters>>,
}

impl Cascade {
    /// Of a model on signals of that geometry.
    ///
    /// # Errors
    /// Filters that are not finite, or so large or small that their products leave the range of `f64`.
    pub(super) fn new(model: &Mlcsc, geometry: Geometry) -> Result<Self> {
        let values: Vec<Vec<f32>> = model.filters().into_iter().map(to_host).collect();
        let (mut least, mut largest) = (0.0, 0.0);
        for (index, (values, layer)) in values.iter().zip(geometry.layers()).enumerate() {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::parameter(format!("filters of layer {}", index + 1), value, "finite values"));
            }
            let magnitudes = || nonzeros(values).map(|(_, value)| f64::from(value.abs()));
            if magnitudes().next().is_some() {
                let terms = (layer.code.channels * layer.kernel[0] * layer.kernel[1]) as f64;
                least += magnitudes().fold(f64::INFINITY, f64::min).log2().min(0.0);
                largest += (terms * magnitudes().fold(0.0, f64::max)).log2().max(0.0);
            }
        }
        if least < -RANGE || largest > RANGE {
            return Err(Error::parameter(
                "products of the layers' filters",
                format!("2^{least:.0} to 2^{largest:.0}"),
                format!("2^-{RANGE} to 2^{RANGE}, within which rounding can be bounded"),
            ));
        }
        let filters =
            values.into_iter().zip(geometry.layers()).map(|(values, layer)| Arc::new(Filters::new(values, layer)));
        Ok(Self { filters: filters.collect(), geometry })
    }

    /// One layer of a cascade, on signals of its own.
    pub(super) fn single(&self, index: usize, geometry: Geometry) -> Self {
        Self { geometry, filters: vec![self.filters[index].clone()] }
    }

    /// The first layers of a cascade.
    pub(super) fn truncated(&self, depth: usize, geometry: Geometry) -> Self {
        Self { geometry, filters: self.filters[..depth].to_vec() }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Part of its magnitude by which a value of γ_i, i = `depth` in 0..=L (0: the signal), may be off when it comes from a code γ_L.
    pub(super) fn error(&self, depth: usize) -> f64 {
        self.error_from(self.geometry.depth(), depth)
    }

    fn error_from(&self, from: usize, depth: usize) -> f64 {
        let terms = |layer: &LayerGeometry| layer.code.channels * layer.kernel[0] * layer.kernel[1] + 1;
        // Twice, for magnitudes are rounded as well.
        accumulated(2 * self.geometry.layers()[depth..from].iter().map(terms).sum::<usize>())
    }

    /// D_i times part of γ_i, i = `depth`: a window of γ_{i−1}, zero beyond the borders.
    fn descend(&self, depth: usize, above: &Map) -> Map {
        let (layer, filters) = (&self.geometry.layers()[depth - 1], &self.filters[depth - 1]);
        let size: [usize; 2] =
            std::array::from_fn(|axis| (above.size[axis] - 1) * layer.stride[axis] + layer.kernel[axis]);
        let origin =
            std::array::from_fn(|axis| above.origin[axis] * layer.stride[axis] as isize - layer.padding[axis] as isize);
        let len = layer.signal.channels * size[0] * size[1];
        let mut below = Map { origin, size, values: vec![0.0; len], magnitudes: vec![0.0; len] };
        let positions = above.size[0] * above.size[1];
        for (place, &magnitude) in above.magnitudes.iter().enumerate().filter(|(_, magnitude)| **magnitude > 0.0) {
            let (value, position) = (above.values[place], place % positions);
            let top = position / above.size[1] * layer.stride[0];
            let left = position % above.size[1] * layer.stride[1];
            for &(entry, weight) in filters.atom(place / positions) {
                let [channel, row, column] = filters.places[entry as usize].map(|index| index as usize);
                let to = (channel * size[0] + top + row) * size[1] + left + column;
                let weight = f64::from(weight);
                below.values[to] += value * weight;
                below.magnitudes[to] += magnitude * weight.abs();
            }
        }
        below.crop([layer.signal.height, layer.signal.width]);
        below
    }

    /// The column of D^(L) of one atom at one position: the window of the signal that it can reach, zero beyond the borders, as
    /// large as an effective atom.
    pub(super) fn column(&self, atom: usize, position: [usize; 2]) -> Map {
        let impulse = Map::impulse(atom, position, self.geometry.code().channels);
        (1..=self.geometry.depth()).rev().fold(impulse, |above, depth| self.descend(depth, &above))
    }

    /// What a value of a column may be off by, as a part of its magnitude.
    pub(super) fn column_error(&self) -> f64 {
        // The first step multiplies by one.
        self.error_from(self.geometry.depth() - 1, 0)
    }

    /// γ_L … γ_1, in this order, from a code γ_L.
    pub(super) fn propagate(&self, code: &[f32]) -> Vec<Map> {
        let mut maps = vec![Map::of_code(code, self.geometry.code())];
        for (index, layer) in self.geometry.layers().iter().enumerate().skip(1).rev() {
            maps.push(self.descend(index + 1, &maps[maps.len() - 1]).on(layer.signal));
        }
        maps
    }

    /// The signal x = D^(L)γ_L.
    pub(super) fn synthesize(&self, code: &[f32]) -> Map {
        let layers = self.geometry.layers().iter().enumerate().rev();
        layers.fold(Map::of_code(code, self.geometry.code()), |above, (index, layer)| {
            self.descend(index + 1, &above).on(layer.signal)
        })
    }
}

/// Values of representations that are exactly zero though something reached them.
pub(super) struct Cancelled<'a> {
    cascade: &'a Cascade,
    /// γ_L … γ_1.
    maps: &'a [Map],
    known: HashMap<(usize, usize), ExactSum>,
}

impl<'a> Cancelled<'a> {
    /// For what [`Cascade::propagate`] returned.
    pub(super) fn new(cascade: &'a Cascade, maps: &'a [Map]) -> Self {
        Self { cascade, maps, known: HashMap::new() }
    }

    /// Whether the value of γ_i, i = `depth`, at that index is zero for certain.
    pub(super) fn is_zero(&mut self, depth: usize, index: usize) -> bool {
        let total = self.cascade.geometry.depth();
        let map = &self.maps[total - depth];
        if map.magnitudes[index] == 0.0 {
            return true;
        }
        map.values[index].abs() <= self.cascade.error(depth) * map.magnitudes[index]
            && total <= MAX_EXACT_DEPTH
            && self.exact(depth, index).is_zero()
    }

    /// The exact value.
    fn exact(&mut self, depth: usize, index: usize) -> ExactSum {
        let (maps, cascade) = (self.maps, self.cascade);
        let map = &maps[cascade.geometry.depth() - depth];
        if depth == cascade.geometry.depth() {
            return ExactSum::of(map.values[index]);
        }
        if map.magnitudes[index] == 0.0 {
            return ExactSum::default();
        }
        if let Some(known) = self.known.get(&(depth, index)) {
            return known.clone();
        }
        let (layer, filters) = (&cascade.geometry.layers()[depth], &cascade.filters[depth]);
        let SignalShape { height, width, .. } = layer.signal;
        let (channel, row, column) = (index / (height * width), index / width % height, index % width);
        // Positions of γ_{i+1} whose atoms reach the value, and how far into them it lies.
        let covering = |place: usize, axis: usize, positions: usize| {
            let (stride, kernel, place) = (layer.stride[axis], layer.kernel[axis], place + layer.padding[axis]);
            let first = (place + 1).saturating_sub(kernel).div_ceil(stride);
            (first..positions.min(place / stride + 1)).map(move |position| (position, place - position * stride))
        };
        let mut sum = ExactSum::default();
        for atom in 0..layer.code.channels {
            for (y, down) in covering(row, 0, layer.code.height) {
                for (x, across) in covering(column, 1, layer.code.width) {
                    let entry =
                        ((atom * layer.signal.channels + channel) * layer.kernel[0] + down) * layer.kernel[1] + across;
                    let weight = filters.values[entry];
                    if weight != 0.0 {
                        let place = (atom * layer.code.height + y) * layer.code.width + x;
                        sum.add_product(&self.exact(depth + 1, place), weight.into());
                    }
                }
            }
        }
        self.known.insert((depth, index), sum.clone());
        sum
    }
}
