//! What the codes seen so far say about the dictionary: the sufficient statistics of the data term.
//!
//! With the codes held fixed, the mean of ½‖y − D^(L)γ‖² over signals is a quadratic function of the effective filters d_j,
//!
//! ```text
//! ½ Σ_{j,k,δ} A_jk(δ) 〈d_j, d_k(· + δs)〉 − Σ_j 〈B_j, d_j〉 + const,
//! A_jk(δ) = mean Σ_p γ_j(p) γ_k(p − δ),     B_j = mean Σ_p γ_j(p) y(ps + ·),
//! ```
//!
//! with δ over the code positions by which two atoms can be apart. Old batches are forgotten slowly (J. Mairal, F. Bach,
//! J. Ponce, G. Sapiro, "Online Learning for Matrix Factorization and Sparse Coding", JMLR 11, 2010; here for convolutions).
//! Where the code is a single position there is one δ, A is a matrix and the formula is theirs.
//!
//! Padding of the first layer crops atoms at the border, so that A counts energy that is not there. A then bounds the true
//! curvature from above, and B is corrected so that the gradient at the current dictionary is exact: a surrogate that
//! majorises the data term.

use crate::model::correlation::reach;
use crate::model::geometry::LayerGeometry;
use crate::model::sparse::{HostFilters, SparseDictionary, nonzeros};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// The statistics A and B.
#[derive(Debug, Clone)]
pub struct Statistics {
    geometry: LayerGeometry,
    /// δ up to this many code positions, per axis.
    reach: [usize; 2],
    /// A as `[atom, vertical δ + reach, horizontal δ + reach, atom]`.
    second: Vec<f32>,
    /// B as `[atom, channels, kernel height, kernel width]`.
    first: Vec<f32>,
}

/// A non-zero of a code.
struct NonZero {
    signal: usize,
    atom: usize,
    row: usize,
    column: usize,
    value: f32,
}

impl Statistics {
    /// Of nothing yet, for the convolution D^(L).
    pub fn new(geometry: &LayerGeometry) -> Self {
        let positions = [geometry.code.height, geometry.code.width];
        let overlap = reach(geometry.kernel, geometry.stride);
        let reach: [usize; 2] = std::array::from_fn(|axis| overlap[axis].min(positions[axis] - 1));
        let atoms = geometry.code.channels;
        let shifts = (2 * reach[0] + 1) * (2 * reach[1] + 1);
        Self {
            geometry: geometry.clone(),
            reach,
            second: vec![0.0; atoms * shifts * atoms],
            first: vec![0.0; geometry.filter_dims().iter().product()],
        }
    }

    /// A and B, for a checkpoint.
    pub fn parts(&self) -> (&[f32], &[f32]) {
        (&self.second, &self.first)
    }

    /// Puts back what [`Self::parts`] gave; `false` where the lengths do not fit.
    pub fn restore(&mut self, second: Vec<f32>, first: Vec<f32>) -> bool {
        let fits = second.len() == self.second.len() && first.len() == self.first.len();
        if fits {
            (self.second, self.first) = (second, first);
        }
        fits
    }

    fn shifts(&self) -> [usize; 2] {
        self.reach.map(|reach| 2 * reach + 1)
    }

    /// Adds a batch with weight `weight` in (0, 1], the statistics so far keeping 1 − `weight`.
    ///
    /// - `signals`, `codes`: one after the other, as the geometry says; `filters`: those the codes were found with.
    pub fn add(&mut self, signals: &[f32], codes: &[f32], filters: &HostFilters, weight: f32, device: &Device) {
        let cropped = self.geometry.padding != [0, 0];
        let (code_len, signal_len) = (self.geometry.code.len(), self.geometry.signal.len());
        let count = codes.len() / code_len;
        let keep = 1.0 - weight;
        let product_before = cropped.then(|| self.product(filters, device));
        self.second.iter_mut().for_each(|value| *value *= keep);
        self.first.iter_mut().for_each(|value| *value *= keep);
        let scale = weight / count.max(1) as f32;

        let (rows, columns) = (self.geometry.code.height, self.geometry.code.width);
        let by_signal: Vec<Vec<NonZero>> = codes
            .chunks_exact(code_len)
            .enumerate()
            .map(|(signal, code)| {
                let place = |(index, value)| NonZero {
                    signal,
                    atom: index / (rows * columns),
                    row: index / columns % rows,
                    column: index % columns,
                    value,
                };
                nonzeros(code).map(place).collect()
            })
            .collect();
        let mut by_atom: Vec<Vec<&NonZero>> = vec![Vec::new(); self.geometry.code.channels];
        by_signal.iter().flatten().for_each(|nonzero| by_atom[nonzero.atom].push(nonzero));

        // Atom by atom, so that the sums are the same whatever the number of threads.
        let (reach, shifts, atoms) = (self.reach, self.shifts(), self.geometry.code.channels);
        self.second.par_chunks_exact_mut(shifts[0] * shifts[1] * atoms).zip(&by_atom).for_each(|(sum, own)| {
            for a in own {
                for b in &by_signal[a.signal] {
                    let down = a.row.wrapping_sub(b.row).wrapping_add(reach[0]);
                    let across = a.column.wrapping_sub(b.column).wrapping_add(reach[1]);
                    if down < shifts[0] && across < shifts[1] {
                        sum[(down * shifts[1] + across) * atoms + b.atom] += scale * a.value * b.value;
                    }
                }
            }
        });
        // Correlations of codes with the signals; where atoms are cropped, with minus the residuals.
        let targets = if cropped {
            let dictionary = SparseDictionary::new(filters, &self.geometry);
            let mut residuals = dictionary.synthesize(codes);
            residuals.iter_mut().zip(signals).for_each(|(residual, signal)| *residual = signal - *residual);
            std::borrow::Cow::Owned(residuals)
        } else {
            std::borrow::Cow::Borrowed(signals)
        };
        let geometry = &self.geometry;
        self.first.par_chunks_exact_mut(geometry.atom_len()).zip(&by_atom).for_each(|(sum, own)| {
            for a in own {
                let signal = &targets[a.signal * signal_len..][..signal_len];
                add_window(sum, signal, geometry, [a.row, a.column], scale * a.value);
            }
        });
        if let Some(before) = product_before {
            // B += (A_t ∗ D) with A_t the batch's part of A: what A ∗ D grew by.
            let after = self.product(filters, device);
            for ((sum, after), before) in self.first.iter_mut().zip(after).zip(before) {
                *sum += after - keep * before;
            }
        }
    }

    /// Forgets all about some atoms.
    pub fn forget(&mut self, atoms: &[usize]) {
        let [vertical, horizontal] = self.shifts();
        let count = self.geometry.code.channels;
        let row = vertical * horizontal * count;
        for &atom in atoms {
            self.second[atom * row..][..row].fill(0.0);
            self.second.iter_mut().skip(atom).step_by(count).for_each(|value| *value = 0.0);
            let len = self.geometry.atom_len();
            self.first[atom * len..][..len].fill(0.0);
        }
    }

    /// Mean energy of every atom's code, the diagonal of A(0).
    pub fn energies(&self) -> Vec<f32> {
        let [vertical, horizontal] = self.shifts();
        let count = self.geometry.code.channels;
        let zero = (self.reach[0] * horizontal + self.reach[1]) * count;
        (0..count).map(|atom| self.second[atom * vertical * horizontal * count + zero + atom]).collect()
    }

    /// A ∗ D: what the codes' correlations make of the filters, one row per atom.
    pub fn product(&self, filters: &HostFilters, device: &Device) -> Vec<f32> {
        self.product_of(0..self.geometry.code.channels, filters, device)
    }

    fn product_of(&self, atoms: std::ops::Range<usize>, filters: &HostFilters, device: &Device) -> Vec<f32> {
        let [vertical, horizontal] = self.shifts();
        let (count, rows) = (self.geometry.code.channels, atoms.len());
        let row = vertical * horizontal * count;
        let second = &self.second[atoms.start * row..atoms.end * row];
        let dims = filters.dims();
        let [_, channels, height, width] = dims;
        let matrix = |values: Vec<f32>, rows: usize, columns: usize| {
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
        };
        if row == count {
            let len = filters.atom_len();
            let product = matrix(second.to_vec(), rows, count).matmul(matrix(filters.values().to_vec(), count, len));
            return product.into_data().iter::<f32>().collect();
        }
        let second =
            Tensor::<3>::from_data(TensorData::new(second.to_vec(), [rows, vertical * horizontal, count]), device);
        let filters = filters.to_tensor(device);
        let mut out = Tensor::<4>::zeros([rows, channels, height, width], device);
        let stride = self.geometry.stride;
        for shift in 0..vertical * horizontal {
            // Signed move of the filters in samples: d_k(· + δs).
            let steps = [shift / horizontal, shift % horizontal];
            let moves: [isize; 2] =
                std::array::from_fn(|axis| (steps[axis] as isize - self.reach[axis] as isize) * stride[axis] as isize);
            let extent = [height, width];
            let target: [std::ops::Range<usize>; 2] = std::array::from_fn(|axis| {
                let size = extent[axis] - moves[axis].unsigned_abs();
                let start = if moves[axis] < 0 { moves[axis].unsigned_abs() } else { 0 };
                start..start + size
            });
            let source: [std::ops::Range<usize>; 2] = std::array::from_fn(|axis| {
                let start = if moves[axis] > 0 { moves[axis].unsigned_abs() } else { 0 };
                start..start + target[axis].len()
            });
            let size = channels * target[0].len() * target[1].len();
            let [from_rows, from_columns] = source;
            let [to_rows, to_columns] = target;
            let moved = filters.clone().slice([0..count, 0..channels, from_rows, from_columns]).reshape([count, size]);
            let weights = second.clone().slice([0..rows, shift..shift + 1, 0..count]).reshape([rows, count]);
            let place = [0..rows, 0..channels, to_rows.clone(), to_columns.clone()];
            let part = weights.matmul(moved).reshape([rows, channels, to_rows.len(), to_columns.len()]);
            let sum = out.clone().slice(place.clone()) + part;
            out = out.slice_assign(place, sum);
        }
        out.into_data().iter::<f32>().collect()
    }

    /// Gradient A ∗ D − B of the surrogate with respect to some of the effective filters.
    pub fn gradient(&self, atoms: std::ops::Range<usize>, filters: &HostFilters, device: &Device) -> Vec<f32> {
        let len = self.geometry.atom_len();
        let first = &self.first[atoms.start * len..atoms.end * len];
        let mut gradient = self.product_of(atoms, filters, device);
        gradient.iter_mut().zip(first).for_each(|(value, first)| *value -= first);
        gradient
    }

    /// The surrogate's value at `filters`, up to a constant, given the gradient there: ½(〈D, A∗D − B〉 − 〈D, B〉).
    pub fn value(&self, filters: &HostFilters, gradient: &[f32]) -> f64 {
        0.5 * (inner(filters.values(), gradient) - inner(filters.values(), &self.first))
    }
}

/// Inner product, summed in `f64`.
pub(super) fn inner(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Adds `weight` times the window of `signal` at a code position to `sum`; what padding crops counts as zero.
pub(super) fn add_window(sum: &mut [f32], signal: &[f32], geometry: &LayerGeometry, position: [usize; 2], weight: f32) {
    let LayerGeometry { signal: shape, kernel, stride, padding, .. } = geometry;
    let corner: [isize; 2] =
        std::array::from_fn(|axis| (position[axis] * stride[axis]) as isize - padding[axis] as isize);
    // Columns of the kernel that lie inside the signal.
    let first = (-corner[1]).clamp(0, kernel[1] as isize) as usize;
    let last = (shape.width as isize - corner[1]).clamp(first as isize, kernel[1] as isize) as usize;
    for channel in 0..shape.channels {
        for row in 0..kernel[0] {
            let y = corner[0] + row as isize;
            if y < 0 || y >= shape.height as isize || first >= last {
                continue;
            }
            let from = (channel * shape.height + y as usize) * shape.width + (corner[1] + first as isize) as usize;
            let source = &signal[from..][..last - first];
            let target = &mut sum[(channel * kernel[0] + row) * kernel[1] + first..][..last - first];
            target.iter_mut().zip(source).for_each(|(target, source)| *target += weight * source);
        }
    }
}
