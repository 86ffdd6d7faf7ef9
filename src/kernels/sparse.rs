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

/// A tensor's values in the host's memory, row-major; no copy is made of what lies there already.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data();
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
        let [_, _, height, width] = filters.dims;
        if by_lines(density(&filters.values), geometry) {
            let line_len = width.next_multiple_of(LANES);
            let mut lines = vec![0.0; filters.values.len() / width * line_len];
            for (line, values) in lines.chunks_exact_mut(line_len).zip(filters.values.chunks_exact(width)) {
                line[..width].copy_from_slice(values);
            }
            return Self { geometry: geometry.clone(), atoms: Atoms::Lines { lines, line_len } };
        }
        let SignalShape { height: signal_height, width: signal_width, .. } = geometry.signal;
        let by_atom: Vec<Vec<Entry>> = filters
            .values
            .par_chunks(filters.atom_len().max(1))
            .map(|atom| {
                nonzeros(atom)
                    .map(|(index, value)| {
                        let (channel, row, column) = (index / (height * width), index / width % height, index % width);
                        let offset = (channel * signal_height + row) * signal_width + column;
                        Entry { offset: offset as u32, row: row as u32, column: column as u32, value }
                    })
                    .collect()
            })
            .collect();
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
pub(crate) fn gradient_by_nonzeros(geometry: &LayerGeometry, residuals: &[f32], codes: &[f32], out: &mut [f32]) {
    let LayerGeometry { signal, code, kernel: [height, width], padding, .. } = geometry;
    debug_assert_eq!(*padding, [0, 0]);
    let positions = code.height * code.width;
    out.par_chunks_exact_mut(geometry.atom_len()).enumerate().for_each(|(atom, sums)| {
        for (maps, residual) in codes.chunks_exact(code.len()).zip(residuals.chunks_exact(signal.len())) {
            for (position, value) in nonzeros(&maps[atom * positions..][..positions]) {
                let [_, top, left] = geometry.corner(position);
                for (line, sums) in sums.chunks_exact_mut(*width).enumerate() {
                    let (channel, row) = (line / height, line % height);
                    let window = &residual[(channel * signal.height + top + row) * signal.width + left..];
                    sums.iter_mut().zip(window).for_each(|(sum, &sample)| *sum += value * sample);
                }
            }
        }
    });
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
            for (a, b) in found.iter().zip(expected.into_data().iter::<f32>()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
