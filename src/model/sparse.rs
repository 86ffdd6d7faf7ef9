//! Filters on the host, and synthesis at the price of non-zeros.
//!
//! The dictionaries D_2 … D_L of a learned model are 95–99% zeros and codes are sparse as well, so that a cascade costs a
//! hundredth of what its convolutions do: for every non-zero of a code, its atom's non-zeros are added where they belong.

use super::geometry::{LayerGeometry, SignalShape};
use burn::tensor::{Device, Tensor, TensorData};
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
        Self::new(dims, tensor.into_data().iter::<f32>().collect())
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
        self.values.iter().filter(|value| **value == 0.0).count() as f64 / self.values.len().max(1) as f64
    }
}

/// Euclidean norm, summed in `f64`.
pub(crate) fn norm(values: &[f32]) -> f32 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt() as f32
}

/// One dictionary D_i by the non-zeros of its atoms, on codes and signals of fixed shapes.
#[derive(Debug, Clone)]
pub struct SparseDictionary {
    geometry: LayerGeometry,
    /// Where each atom's entries start in the two lists; one more than there are atoms.
    starts: Vec<usize>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Place relative to the atom's upper left corner, as an index into the signal.
    offset: u32,
    row: u32,
    column: u32,
    value: f32,
}

impl SparseDictionary {
    /// The non-zeros of `filters`.
    ///
    /// # Panics
    /// If the filters' dimensions are not the geometry's.
    pub fn new(filters: &HostFilters, geometry: &LayerGeometry) -> Self {
        assert_eq!(filters.dims, geometry.filter_dims(), "filters of a layer");
        let [atoms, _, height, width] = filters.dims;
        let SignalShape { height: signal_height, width: signal_width, .. } = geometry.signal;
        let mut starts = Vec::with_capacity(atoms + 1);
        let mut entries = Vec::new();
        for atom in 0..atoms {
            starts.push(entries.len());
            for (index, &value) in filters.atom(atom).iter().enumerate() {
                if value != 0.0 {
                    let (channel, row, column) = (index / (height * width), index / width % height, index % width);
                    let offset = (channel * signal_height + row) * signal_width + column;
                    entries.push(Entry { offset: offset as u32, row: row as u32, column: column as u32, value });
                }
            }
        }
        starts.push(entries.len());
        Self { geometry: geometry.clone(), starts, entries }
    }

    /// Adds D_i times one sparse code to a signal.
    ///
    /// - `code`: the code's non-zeros as (index into the code, value)
    /// - `signal`: as long as the geometry's signal
    pub fn synthesize_into(&self, code: impl IntoIterator<Item = (usize, f32)>, signal: &mut [f32]) {
        let LayerGeometry { signal: shape, stride, padding, .. } = &self.geometry;
        for (index, coefficient) in code {
            let [atom, row, column] = self.geometry.place(index);
            let entries = &self.entries[self.starts[atom]..self.starts[atom + 1]];
            let (top, left) = (row * stride[0], column * stride[1]);
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

    /// D_i times every code of a batch.
    ///
    /// - `codes`: one code after the other; out: one signal after the other.
    pub fn synthesize(&self, codes: &[f32]) -> Vec<f32> {
        let (code_len, signal_len) = (self.geometry.code.len(), self.geometry.signal.len());
        let mut signals = vec![0.0; codes.len() / code_len * signal_len];
        signals
            .par_chunks_exact_mut(signal_len)
            .zip(codes.par_chunks_exact(code_len))
            .for_each(|(signal, code)| self.synthesize_into(nonzeros(code), signal));
        signals
    }
}

/// The non-zeros of a dense code as (index, value).
pub fn nonzeros(code: &[f32]) -> impl Iterator<Item = (usize, f32)> + '_ {
    code.iter().copied().enumerate().filter(|(_, value)| *value != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dictionary::synthesize;
    use crate::model::geometry::{Geometry, LayerShape, Pair};

    #[test]
    fn agrees_with_the_convolution() {
        let device = crate::device::named(None).unwrap();
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            if state & 0x8000 == 0 { value } else { 0.0 }
        };
        for padding in [Pair([0, 0]), Pair([1, 2])] {
            let shape = LayerShape::new(3, Pair([2, 4]), Pair([2, 1])).with_padding(padding);
            let geometry = Geometry::new(SignalShape::new(2, 7, 9), &[shape]).unwrap().layers()[0].clone();
            let filters = HostFilters::new(
                geometry.filter_dims(),
                (0..geometry.filter_dims().iter().product()).map(|_| random()).collect(),
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
