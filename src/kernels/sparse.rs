//! Filters on the host, and synthesis at the price of non-zeros.
//!
//! The dictionaries D_2 … D_L of a learned model are 95–99% zeros and codes are sparse as well, so that a cascade costs a
//! hundredth of what its convolutions do: for every non-zero of a code, its atom's non-zeros are added where they belong.

use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::simd::vectorised;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

/// A filter tensor in the host's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFilters {
    dims: [usize; 4],
    values: Vec<f32>,
}

impl HostFilters {
    /// Wraps `values`, laid out as `dims` = `[atoms, channels, kernel height, kernel width]`.
    ///
    /// # Panics
    /// If their number is not the product of `dims`.
    pub fn new(dims: [usize; 4], values: Vec<f32>) -> Self {
        assert_eq!(values.len(), dims.iter().product::<usize>(), "filters of dimensions {dims:?}");
        Self { dims, values }
    }

    /// All zero.
    pub fn zeros(dims: [usize; 4]) -> Self {
        Self::new(dims, vec![0.0; dims.iter().product()])
    }

    /// A copy of a tensor.
    pub fn from_tensor(tensor: Tensor<4>) -> Self {
        let dims = tensor.dims();
        Self::new(dims, to_host(tensor))
    }

    /// A tensor on a device.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.dims), device)
    }

    /// `[atoms, channels, kernel height, kernel width]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Number of atoms.
    pub fn atoms(&self) -> usize {
        self.dims[0]
    }

    /// Values of one atom.
    pub fn atom_len(&self) -> usize {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// All values, atom after atom.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, atom after atom.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One atom.
    pub fn atom(&self, index: usize) -> &[f32] {
        &self.values[index * self.atom_len()..][..self.atom_len()]
    }

    /// One atom.
    pub fn atom_mut(&mut self, index: usize) -> &mut [f32] {
        let len = self.atom_len();
        &mut self.values[index * len..][..len]
    }

    /// Euclidean norm of every atom.
    pub fn norms(&self) -> Vec<f32> {
        self.values.chunks_exact(self.atom_len()).map(norm).collect()
    }

    /// Part of the values that is zero.
    pub fn zeros_fraction(&self) -> f64 {
        (self.values.len() - count_nonzeros(&self.values)) as f64 / self.values.len().max(1) as f64
    }
}

/// Filters by their non-zeros: of learned dictionaries after the first a few hundredths of all values.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseFilters {
    dims: [usize; 4],
    /// Of every atom the places of its non-zeros, in order, and these.
    atoms: Vec<Vec<(u32, f32)>>,
}

impl SparseFilters {
    /// The non-zeros of filters.
    pub fn new(filters: &HostFilters) -> Self {
        let atoms = filters.values.par_chunks(filters.atom_len().max(1)).map(entries).collect();
        Self { dims: filters.dims, atoms }
    }

    /// `[atoms, channels, kernel height, kernel width]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Number of atoms.
    pub fn atoms(&self) -> usize {
        self.dims[0]
    }

    /// Values of one atom, zeros included.
    pub fn atom_len(&self) -> usize {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// The non-zeros of one atom as (index, value).
    pub fn atom(&self, index: usize) -> impl Iterator<Item = (usize, f32)> + Clone + '_ {
        self.atoms[index].iter().map(|&(place, value)| (place as usize, value))
    }

    /// One atom with its zeros.
    pub fn dense_atom(&self, index: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.atom_len()];
        self.atom(index).for_each(|(place, value)| values[place] = value);
        values
    }

    /// Replaces an atom by all values of another.
    pub fn set_atom(&mut self, index: usize, values: &[f32]) {
        self.atoms[index] = entries(values);
    }

    /// All values.
    pub fn to_dense(&self) -> HostFilters {
        let mut filters = HostFilters::zeros(self.dims);
        let atoms = filters.values.par_chunks_mut(self.atom_len().max(1));
        atoms.zip(&self.atoms).for_each(|(values, atom)| {
            atom.iter().for_each(|&(place, value)| values[place as usize] = value);
        });
        filters
    }

    /// Euclidean norm of every atom.
    pub fn norms(&self) -> Vec<f32> {
        let energy = |atom: &Vec<(u32, f32)>| atom.iter().map(|&(_, value)| f64::from(value).powi(2)).sum::<f64>();
        self.atoms.iter().map(|atom| energy(atom).sqrt() as f32).collect()
    }

    /// Part of the values that is zero.
    pub fn zeros_fraction(&self) -> f64 {
        let (all, nonzeros) = (self.dims.iter().product::<usize>(), self.atoms.iter().map(Vec::len).sum::<usize>());
        (all - nonzeros) as f64 / all.max(1) as f64
    }

    /// Changes every non-zero, given its atom and its channel.
    pub fn change(&mut self, change: impl Fn(usize, usize, f32) -> f32 + Sync) {
        let map = self.dims[2] * self.dims[3];
        self.atoms.par_iter_mut().enumerate().for_each(|(atom, entries)| {
            entries.iter_mut().for_each(|(place, value)| *value = change(atom, *place as usize / map, *value));
            entries.retain(|(_, value)| *value != 0.0);
        });
    }
}

fn entries(atom: &[f32]) -> Vec<(u32, f32)> {
    nonzeros(atom).map(|(place, value)| (place as u32, value)).collect()
}

/// A tensor's values in the host's memory, row-major; no copy is made of what lies there already.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = crate::device::read(tensor);
    match data.dtype() == DType::F32 {
        true => data.try_into_vec().expect("values of the type that they are said to have"),
        false => data.iter::<f32>().collect(),
    }
}

/// Squared Euclidean norm, summed in `f64` by lanes, so that it vectorises and rounds the same way on every run.
#[inline(always)]
pub(crate) fn energy(values: &[f32]) -> f64 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut sums = [0.0f64; 16];
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>()
}

/// Euclidean norm, summed in `f64`.
pub(crate) fn norm(values: &[f32]) -> f32 {
    energy(values).sqrt() as f32
}

/// One dictionary D_i by the non-zeros of its atoms, on codes and signals of fixed shapes.
#[derive(Debug, Clone)]
pub struct SparseDictionary {
    geometry: LayerGeometry,
    atoms: Atoms,
}

#[derive(Debug, Clone)]
enum Atoms {
    /// Where each atom's entries start, one more than there are atoms, and the entries.
    Entries { starts: Vec<usize>, entries: Vec<Entry> },
    /// Atoms that are mostly not zero, and cropped nowhere: their lines, each filled up with zeros to a multiple of [`LANES`].
    Lines { lines: Vec<f32>, line_len: usize },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Place relative to the atom's upper left corner, as an index into the signal.
    offset: u32,
    row: u32,
    column: u32,
    value: f32,
}

impl Entry {
    /// What makes an entry of a non-zero's index within its atom.
    fn on(geometry: &LayerGeometry) -> impl Fn((usize, f32)) -> Self + Sync {
        let SignalShape { height: signal_height, width: signal_width, .. } = geometry.signal;
        let [height, width] = geometry.kernel;
        move |(index, value)| {
            let (channel, row, column) = (index / (height * width), index / width % height, index % width);
            let offset = (channel * signal_height + row) * signal_width + column;
            Self { offset: offset as u32, row: row as u32, column: column as u32, value }
        }
    }
}

/// Lines are added by so many values at a time.
const LANES: usize = 8;

/// Part of non-zeros from which on atoms are added line by line.
const LEAST_IN_LINES: f64 = 0.25;

/// Whether atoms of which that part is not zero are added line by line: they are cropped nowhere.
pub(crate) fn by_lines(density: f64, geometry: &LayerGeometry) -> bool {
    geometry.padding == [0, 0] && density >= LEAST_IN_LINES
}

impl SparseDictionary {
    /// The non-zeros of `filters`.
    ///
    /// # Panics
    /// If the filters' dimensions are not the geometry's.
    pub fn new(filters: &HostFilters, geometry: &LayerGeometry) -> Self {
        assert_eq!(filters.dims, geometry.filter_dims(), "filters of a layer");
        let [_, _, _, width] = filters.dims;
        if by_lines(density(&filters.values), geometry) {
            let line_len = width.next_multiple_of(LANES);
            let mut lines = vec![0.0; filters.values.len() / width * line_len];
            for (line, values) in lines.chunks_exact_mut(line_len).zip(filters.values.chunks_exact(width)) {
                line[..width].copy_from_slice(values);
            }
            return Self { geometry: geometry.clone(), atoms: Atoms::Lines { lines, line_len } };
        }
        let place = Entry::on(geometry);
        let atoms = filters.values.par_chunks(filters.atom_len().max(1));
        Self::of_entries(geometry, atoms.map(|atom| nonzeros(atom).map(&place).collect()).collect())
    }

    /// The non-zeros of `filters`, which are known.
    ///
    /// # Panics
    /// If the filters' dimensions are not the geometry's.
    pub fn of_nonzeros(filters: &SparseFilters, geometry: &LayerGeometry) -> Self {
        assert_eq!(filters.dims, geometry.filter_dims(), "filters of a layer");
        if by_lines(1.0 - filters.zeros_fraction(), geometry) {
            return Self::new(&filters.to_dense(), geometry);
        }
        let place = Entry::on(geometry);
        Self::of_entries(geometry, (0..filters.atoms()).map(|atom| filters.atom(atom).map(&place).collect()).collect())
    }

    fn of_entries(geometry: &LayerGeometry, by_atom: Vec<Vec<Entry>>) -> Self {
        let mut starts = vec![0];
        starts.extend(by_atom.iter().scan(0, |sum, entries| {
            *sum += entries.len();
            Some(*sum)
        }));
        let atoms = Atoms::Entries { starts, entries: by_atom.concat() };
        Self { geometry: geometry.clone(), atoms }
    }

    /// Adds D_i times one sparse code to a signal.
    ///
    /// - `code`: the code's non-zeros as (index into the code, value)
    /// - `signal`: as long as the geometry's signal
    pub fn synthesize_into(&self, code: impl IntoIterator<Item = (usize, f32)>, signal: &mut [f32]) {
        match &self.atoms {
            Atoms::Entries { starts, entries } => self.add_entries(starts, entries, code, signal),
            Atoms::Lines { lines, line_len } => {
                let mut code = code.into_iter();
                vectorised(
                    #[inline(always)]
                    || self.add_lines(lines, *line_len, &mut code, signal),
                );
            }
        }
    }

    fn add_entries(
        &self,
        starts: &[usize],
        entries: &[Entry],
        code: impl IntoIterator<Item = (usize, f32)>,
        signal: &mut [f32],
    ) {
        let LayerGeometry { signal: shape, padding, .. } = &self.geometry;
        for (index, coefficient) in code {
            let [atom, top, left] = self.geometry.corner(index);
            let entries = &entries[starts[atom]..starts[atom + 1]];
            if *padding == [0, 0] {
                let place = &mut signal[top * shape.width + left..];
                for entry in entries {
                    place[entry.offset as usize] += coefficient * entry.value;
                }
            } else {
                // Padding crops what lies outside the signal.
                for entry in entries {
                    let (y, x) = (top + entry.row as usize, left + entry.column as usize);
                    let inside = (padding[0]..shape.height + padding[0]).contains(&y)
                        && (padding[1]..shape.width + padding[1]).contains(&x);
                    if inside {
                        let place = (top * shape.width + left + entry.offset as usize)
                            - (padding[0] * shape.width + padding[1]);
                        signal[place] += coefficient * entry.value;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn add_lines(
        &self,
        lines: &[f32],
        line_len: usize,
        code: &mut impl Iterator<Item = (usize, f32)>,
        signal: &mut [f32],
    ) {
        let LayerGeometry { signal: shape, kernel, .. } = &self.geometry;
        // Lines may run over the end of the signal's, by zeros: they are added in a wider copy.
        let wide = shape.width + line_len - kernel[1];
        let atom_len = shape.channels * kernel[0] * line_len;
        let mut sums = vec![0.0f32; shape.channels * shape.height * wide];
        for (index, coefficient) in code {
            let [atom, top, left] = self.geometry.corner(index);
            let atom = &lines[atom * atom_len..][..atom_len];
            for (number, line) in atom.chunks_exact(line_len).enumerate() {
                let (channel, down) = (number / kernel[0], number % kernel[0]);
                let start = (channel * shape.height + top + down) * wide + left;
                let (targets, _) = sums[start..][..line_len].as_chunks_mut::<LANES>();
                for (targets, values) in targets.iter_mut().zip(line.as_chunks::<LANES>().0) {
                    for (target, value) in targets.iter_mut().zip(values) {
                        *target += coefficient * value;
                    }
                }
            }
        }
        for (line, sums) in signal.chunks_exact_mut(shape.width).zip(sums.chunks_exact(wide)) {
            line.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum);
        }
    }

    /// D_i times every code of a batch.
    ///
    /// - `codes`: one code after the other; out: one signal after the other.
    pub fn synthesize(&self, codes: &[f32]) -> Vec<f32> {
        let (code_len, signal_len) = (self.geometry.code.len(), self.geometry.signal.len());
        let mut signals = vec![0.0; codes.len() / code_len * signal_len];
        self.synthesize_batch_into(codes, &mut signals);
        signals
    }

    /// D_i times codes that are given by their non-zeros, as filters of the layer above are: one signal after the other.
    pub fn synthesize_nonzeros(&self, codes: &SparseFilters) -> Vec<f32> {
        let signal_len = self.geometry.signal.len();
        let mut signals = vec![0.0; codes.atoms() * signal_len];
        let numbered = signals.par_chunks_exact_mut(signal_len).enumerate();
        numbered.for_each(|(number, signal)| self.synthesize_into(codes.atom(number), signal));
        signals
    }

    /// Adds D_i times every code of a batch to the signals.
    ///
    /// - `codes`: one code after the other; `signals`: one signal after the other.
    pub fn synthesize_batch_into(&self, codes: &[f32], signals: &mut [f32]) {
        signals
            .par_chunks_exact_mut(self.geometry.signal.len())
            .zip(codes.par_chunks_exact(self.geometry.code.len()))
            .for_each(|(signal, code)| self.synthesize_into(nonzeros(code), signal));
    }
}

/// Adds the gradient of Σ〈r, Dγ〉 with respect to the filters of D to `out`, at the price of the codes' non-zeros: for every one of
/// them, the window of the residual that its atom sees.
///
/// # Shapes
/// - residuals: `[n, channels, height, width]`; codes: `[n, atoms, code height, code width]`; out: the filters'. Padding is none.
#[cfg(any(feature = "flex", test))]
pub(crate) fn gradient_by_nonzeros(geometry: &LayerGeometry, residuals: &[f32], codes: &[f32], out: &mut [f32]) {
    let LayerGeometry { signal, code, .. } = geometry;
    let positions = code.height * code.width;
    out.par_chunks_exact_mut(geometry.atom_len()).enumerate().for_each(|(atom, sums)| {
        for (maps, residual) in codes.chunks_exact(code.len()).zip(residuals.chunks_exact(signal.len())) {
            for (position, value) in nonzeros(&maps[atom * positions..][..positions]) {
                add_seen(geometry, residual, position, value, sums);
            }
        }
    });
}

/// [`gradient_by_nonzeros`] for codes that are given by their non-zeros, as filters of the layer above are.
pub(crate) fn gradient_of_nonzeros(
    geometry: &LayerGeometry,
    residuals: &[f32],
    codes: &SparseFilters,
    out: &mut [f32],
) {
    let LayerGeometry { signal, code, .. } = geometry;
    let positions = code.height * code.width;
    let mut by_atom: Vec<Vec<(u32, u32, f32)>> = vec![Vec::new(); code.channels];
    for number in 0..codes.atoms() {
        for (place, value) in codes.atom(number) {
            by_atom[place / positions].push((number as u32, (place % positions) as u32, value));
        }
    }
    out.par_chunks_exact_mut(geometry.atom_len()).zip(by_atom).for_each(|(sums, uses)| {
        for (number, position, value) in uses {
            let residual = &residuals[number as usize * signal.len()..][..signal.len()];
            add_seen(geometry, residual, position as usize, value, sums);
        }
    });
}

/// Adds `value` times what an atom sees at a position of its map; padding is none.
fn add_seen(geometry: &LayerGeometry, residual: &[f32], position: usize, value: f32, sums: &mut [f32]) {
    let LayerGeometry { signal, kernel: [height, width], padding, .. } = geometry;
    debug_assert_eq!(*padding, [0, 0]);
    let [_, top, left] = geometry.corner(position);
    for (line, sums) in sums.chunks_exact_mut(*width).enumerate() {
        let (channel, row) = (line / height, line % height);
        let window = &residual[(channel * signal.height + top + row) * signal.width + left..];
        sums.iter_mut().zip(window).for_each(|(sum, &sample)| *sum += value * sample);
    }
}

fn count_nonzeros(values: &[f32]) -> usize {
    /// Values counted by one task.
    const PART: usize = 1 << 16;
    values.par_chunks(PART).map(|part| part.iter().filter(|value| **value != 0.0).count()).sum()
}

/// Part of the values that is not zero; 0 of none.
pub(crate) fn density(values: &[f32]) -> f64 {
    count_nonzeros(values) as f64 / values.len().max(1) as f64
}

/// The non-zeros of a dense code as (index, value).
pub fn nonzeros(code: &[f32]) -> impl Iterator<Item = (usize, f32)> + '_ {
    code.iter().copied().enumerate().filter(|(_, value)| *value != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};
    use crate::model::dictionary::synthesize;

    /// Filters and what is computed by them are the same, with their zeros and without.
    #[test]
    fn filters_are_their_nonzeros() {
        let dims = [3, 2, 2, 3];
        let values: Vec<f32> = (0..36).map(|place| if place % 4 == 1 { place as f32 - 9.5 } else { 0.0 }).collect();
        let dense = HostFilters::new(dims, values);
        let mut sparse = SparseFilters::new(&dense);
        assert_eq!(sparse.to_dense(), dense);
        assert_eq!(sparse.norms(), dense.norms());
        assert_eq!(sparse.zeros_fraction(), dense.zeros_fraction());
        assert_eq!(sparse.dense_atom(1), dense.atom(1));
        // As codes of three signals over a layer of two atoms, six positions each.
        let shape = LayerShape::new(2, 2, 1);
        let geometry = Geometry::new(SignalShape::new(1, 3, 4), &[shape]).unwrap().layers()[0].clone();
        assert_eq!(geometry.code, SignalShape::new(2, 2, 3));
        let below: Vec<f32> = (0..8).map(|place| place as f32 - 2.0).collect();
        let dictionary = SparseDictionary::new(&HostFilters::new(geometry.filter_dims(), below), &geometry);
        assert_eq!(dictionary.synthesize_nonzeros(&sparse), dictionary.synthesize(dense.values()));
        let residuals: Vec<f32> = (0..36).map(|place| (place * place % 7) as f32).collect();
        let [mut found, mut expected] = [[0.0; 8]; 2];
        gradient_of_nonzeros(&geometry, &residuals, &sparse, &mut found);
        gradient_by_nonzeros(&geometry, &residuals, dense.values(), &mut expected);
        assert_eq!(found, expected);
        sparse.set_atom(0, dense.atom(2));
        sparse.change(|atom, channel, value| if atom == 0 { value * (channel + 2) as f32 } else { value });
        for (place, (new, old)) in sparse.dense_atom(0).iter().zip(dense.atom(2)).enumerate() {
            assert_eq!(*new, old * (place / 6 + 2) as f32);
        }
    }

    #[test]
    fn agrees_with_the_convolution() {
        let device = crate::device::named(None).unwrap();
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            if state & 0x8000 == 0 { value } else { 0.0 }
        };
        for (padding, dense) in [(Pair([0, 0]), false), (Pair([0, 0]), true), (Pair([1, 2]), false)] {
            let shape = LayerShape::new(3, Pair([2, 4]), Pair([2, 1])).with_padding(padding);
            let geometry = Geometry::new(SignalShape::new(2, 7, 9), &[shape]).unwrap().layers()[0].clone();
            let filters = HostFilters::new(
                geometry.filter_dims(),
                (0..geometry.filter_dims().iter().product())
                    .map(|place| if dense || place % 3 == 0 { random() } else { 0.0 })
                    .collect(),
            );
            let codes: Vec<f32> = (0..2 * geometry.code.len()).map(|_| random()).collect();
            let expected = synthesize(
                Tensor::from_data(TensorData::new(codes.clone(), geometry.code.batched(2)), &device),
                filters.to_tensor(&device),
                &geometry,
            );
            let found = SparseDictionary::new(&filters, &geometry).synthesize(&codes);
            let of_nonzeros = SparseDictionary::of_nonzeros(&SparseFilters::new(&filters), &geometry);
            assert_eq!(of_nonzeros.synthesize(&codes), found);
            for (a, b) in found.iter().zip(expected.into_data().iter::<f32>()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
