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
//!
//! Where positions share no sample there is one δ as well, and signals are added as the windows that they are ([`Windows`]). A GPU then
//! keeps A and B in its own memory ([`Resident`]); else they lie in the host's.

use super::resident::Resident;
use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::correlation::inner_products;
use crate::kernels::product::product;
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::{HostFilters, SparseDictionary, nonzeros, to_host};
use crate::kernels::windows::Windows;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// The statistics A and B.
#[derive(Debug, Clone)]
pub struct Statistics {
    geometry: LayerGeometry,
    /// δ up to this many code positions, per axis.
    reach: [usize; 2],
    sums: Sums,
}

/// Where A and B lie.
#[derive(Debug, Clone)]
enum Sums {
    /// In the host's memory.
    Host(OnHost),
    /// In a GPU's.
    Gpu(Box<Resident>),
}

/// A and B in the host's memory.
#[derive(Debug, Clone)]
struct OnHost {
    /// A as `[atom, vertical δ + reach, horizontal δ + reach, atom]`.
    second: Vec<f32>,
    /// B as `[atom, channels, kernel height, kernel width]`.
    first: Vec<f32>,
}

/// How many times faster a multiplication is in a matrix product than in a sum over pairs of non-zeros.
const PRODUCTS_ARE_FASTER: usize = 32;

/// Rows of A that are computed in one matrix product.
pub(super) const ATOMS_AT_ONCE: usize = 1024;

/// Pairs of non-zeros of the same code, of all codes.
fn pairs(codes: &[f32], code_len: usize) -> usize {
    let count = |code: &[f32]| code.iter().filter(|value| **value != 0.0).count();
    codes.par_chunks_exact(code_len).map(|code| count(code).pow(2)).sum()
}

/// A non-zero of a code.
struct NonZero {
    signal: usize,
    atom: usize,
    row: usize,
    column: usize,
    value: f32,
}

/// The non-zeros of one code in the order of their positions.
struct ByPosition {
    nonzeros: Vec<NonZero>,
    /// Where those of every position start; one more than there are positions.
    starts: Vec<u32>,
    width: usize,
}

impl ByPosition {
    fn new(signal: usize, code: &[f32], geometry: &LayerGeometry) -> Self {
        let SignalShape { height, width, .. } = geometry.code;
        let place = |(index, value)| {
            let [atom, row, column] = geometry.place(index);
            NonZero { signal, atom, row, column, value }
        };
        let mut nonzeros: Vec<NonZero> = nonzeros(code).map(place).collect();
        // Atoms keep their order.
        nonzeros.sort_by_key(|nonzero| nonzero.row * width + nonzero.column);
        let mut starts = vec![0; height * width + 1];
        nonzeros.iter().for_each(|nonzero| starts[nonzero.row * width + nonzero.column + 1] += 1);
        for position in 0..height * width {
            starts[position + 1] += starts[position];
        }
        Self { nonzeros, starts, width }
    }

    /// Those of which the position is no further from one of them than `reach`.
    fn near(&self, center: &NonZero, reach: [usize; 2]) -> impl Iterator<Item = &NonZero> {
        let height = (self.starts.len() - 1) / self.width;
        let rows = center.row.saturating_sub(reach[0])..(center.row + reach[0] + 1).min(height);
        let columns = center.column.saturating_sub(reach[1])..(center.column + reach[1] + 1).min(self.width);
        rows.flat_map(move |row| {
            let [first, last] =
                [columns.start, columns.end].map(|column| self.starts[row * self.width + column] as usize);
            &self.nonzeros[first..last]
        })
    }
}

/// Cosine of two atoms up to which they do not count as alike.
pub(super) const UNAVOIDABLE: f32 = 0.25;

impl Statistics {
    /// Of nothing yet, for the convolution D^(L) of signals on a device.
    pub fn new(geometry: &LayerGeometry, device: &Device) -> Self {
        match Resident::suits(geometry, device) {
            true => Self::on_gpu(geometry, device),
            false => Self::on_host(geometry),
        }
    }

    fn on_host(geometry: &LayerGeometry) -> Self {
        let second = vec![0.0; Self::second_len(geometry)];
        let first = vec![0.0; geometry.filter_dims().iter().product()];
        Self::of(geometry, Sums::Host(OnHost { second, first }))
    }

    fn on_gpu(geometry: &LayerGeometry, device: &Device) -> Self {
        Self::of(geometry, Sums::Gpu(Resident::new(geometry, device).into()))
    }

    fn of(geometry: &LayerGeometry, sums: Sums) -> Self {
        Self { geometry: geometry.clone(), reach: geometry.reach(), sums }
    }

    /// Values that A takes for a geometry; saturates.
    pub(super) fn second_len(geometry: &LayerGeometry) -> usize {
        inner_products(geometry)
    }

    /// A and B, for a checkpoint.
    pub fn parts(&self) -> (Cow<'_, [f32]>, Cow<'_, [f32]>) {
        match &self.sums {
            Sums::Host(OnHost { second, first }) => (second.into(), first.into()),
            Sums::Gpu(resident) => {
                let [second, first] = resident.parts();
                (second.into(), first.into())
            }
        }
    }

    /// How many values A and B have.
    pub(super) fn lens(&self) -> [usize; 2] {
        [Self::second_len(&self.geometry), self.geometry.filter_dims().iter().product()]
    }

    /// Puts back what [`Self::parts`] gave; `false` where the lengths do not fit.
    pub fn restore(&mut self, second: Vec<f32>, first: Vec<f32>) -> bool {
        let fits = [second.len(), first.len()] == self.lens();
        if fits {
            match &mut self.sums {
                Sums::Host(sums) => *sums = OnHost { second, first },
                Sums::Gpu(resident) => resident.restore(second, first),
            }
        }
        fits
    }

    fn shifts(&self) -> [usize; 2] {
        self.geometry.shifts()
    }

    /// Adds a batch with weight `weight` in (0, 1], the statistics so far keeping 1 − `weight`.
    ///
    /// `filters` are those the codes were found with.
    ///
    /// # Shapes
    /// - signals, codes: `[n, channels, height, width]`, as the geometry says.
    pub fn add(&mut self, signals: &Tensor<4>, codes: &Tensor<4>, filters: &HostFilters, weight: f32) {
        let scale = weight / codes.dims()[0].max(1) as f32;
        let keep = 1.0 - weight;
        let sums = match &mut self.sums {
            Sums::Gpu(resident) => return resident.add(signals.clone(), codes.clone(), scale, keep),
            Sums::Host(sums) => sums,
        };
        let device = &signals.device();
        let (signals, codes) = (to_host(signals.clone()), to_host(codes.clone()));
        let cropped = self.geometry.padding != [0, 0];
        let product_before = cropped.then(|| sums.product(&self.geometry, filters.to_tensor(device)));

        let windows = Windows::of(&self.geometry).map(|windows| windows_of(&windows, &signals, &codes));
        let (geometry, signals, codes) = match &windows {
            Some((geometry, signals, codes)) => (geometry, signals.as_slice(), codes.as_slice()),
            None => (&self.geometry, signals.as_slice(), codes.as_slice()),
        };
        let (code_len, signal_len) = (geometry.code.len(), geometry.signal.len());
        if geometry.is_matrix() && pairs(codes, code_len) * PRODUCTS_ARE_FASTER > codes.len() * code_len {
            sums.add_products(geometry, [signals, codes], scale, keep, device);
            return;
        }
        let by_signal: Vec<ByPosition> = codes
            .par_chunks_exact(code_len)
            .enumerate()
            .map(|(signal, code)| ByPosition::new(signal, code, geometry))
            .collect();
        let mut by_atom: Vec<Vec<&NonZero>> = vec![Vec::new(); geometry.code.channels];
        by_signal.iter().flat_map(|code| &code.nonzeros).for_each(|nonzero| by_atom[nonzero.atom].push(nonzero));

        // Atom by atom, so that the sums are the same whatever the number of threads.
        let (reach, shifts, atoms) = (self.reach, self.geometry.shifts(), geometry.code.channels);
        sums.second.par_chunks_exact_mut(shifts[0] * shifts[1] * atoms).zip(&by_atom).for_each(|(sum, own)| {
            sum.iter_mut().for_each(|value| *value *= keep);
            for a in own {
                for b in by_signal[a.signal].near(a, reach) {
                    let (down, across) = (a.row + reach[0] - b.row, a.column + reach[1] - b.column);
                    sum[(down * shifts[1] + across) * atoms + b.atom] += scale * a.value * b.value;
                }
            }
        });
        // Correlations of codes with the signals; where atoms are cropped, with minus the residuals.
        let targets = if cropped {
            let dictionary = SparseDictionary::new(filters, geometry);
            let mut residuals = dictionary.synthesize(codes);
            residuals.iter_mut().zip(signals).for_each(|(residual, signal)| *residual = signal - *residual);
            Cow::Owned(residuals)
        } else {
            Cow::Borrowed(signals)
        };
        sums.first.par_chunks_exact_mut(geometry.atom_len()).zip(&by_atom).for_each(|(sum, own)| {
            sum.iter_mut().for_each(|value| *value *= keep);
            for a in own {
                let signal = &targets[a.signal * signal_len..][..signal_len];
                add_window(sum, signal, geometry, [a.row, a.column], scale * a.value);
            }
        });
        if let Some(before) = product_before {
            // B += (A_t ∗ D) with A_t the batch's part of A: what A ∗ D grew by.
            let after = sums.product(&self.geometry, filters.to_tensor(device));
            for ((sum, after), before) in sums.first.iter_mut().zip(after).zip(before) {
                *sum += after - keep * before;
            }
        }
    }

    /// Forgets all about some atoms.
    pub fn forget(&mut self, atoms: &[usize]) {
        let [vertical, horizontal] = self.shifts();
        let count = self.geometry.code.channels;
        let row = vertical * horizontal * count;
        let sums = match &mut self.sums {
            Sums::Gpu(resident) => return resident.forget(atoms),
            Sums::Host(sums) => sums,
        };
        for &atom in atoms {
            sums.second[atom * row..][..row].fill(0.0);
            sums.second.iter_mut().skip(atom).step_by(count).for_each(|value| *value = 0.0);
            let len = self.geometry.atom_len();
            sums.first[atom * len..][..len].fill(0.0);
        }
    }

    /// The statistics of a surrogate that also penalises atoms for being alike: A_jk grows by `strength`·min(A_jj, A_kk)·(|c_jk| − τ)₊ sign(c_jk)
    /// for j ≠ k, c_jk being the cosine 〈d_j, d_k〉 of atoms of unit norm and τ = 0.25.
    ///
    /// The gradient at `filters` is then that of the data term plus ¼ `strength` Σ_{j≠k} min(A_jj, A_kk) (|c_jk| − τ)₊². Features that
    /// mostly fire together are coded with a smaller ℓ1 norm by one atom that holds both than by two. Such atoms have much in common, which
    /// is what this makes costly; the small cosines that more atoms than dimensions cannot avoid cost nothing. Only where atoms have one
    /// shift.
    ///
    /// # Shapes
    /// - filters: `[atoms, channels, kernel height, kernel width]`
    pub(super) fn with_incoherence(&self, strength: f32, filters: Tensor<4>) -> Self {
        let count = self.geometry.code.channels;
        let atoms = filters.flatten::<2>(1, 3);
        let gram = product(atoms.clone(), atoms.transpose());
        let mut sums = match &self.sums {
            Sums::Gpu(resident) => {
                return Self::of(&self.geometry, Sums::Gpu(resident.with_incoherence(strength, gram).into()));
            }
            Sums::Host(sums) => sums.clone(),
        };
        let gram = to_host(gram);
        let energies = self.energies();
        sums.second.par_chunks_exact_mut(count).zip(gram.par_chunks_exact(count)).enumerate().for_each(
            |(atom, (row, gram))| {
                for (other, (value, cosine)) in row.iter_mut().zip(gram).enumerate() {
                    let beyond = cosine.abs() - UNAVOIDABLE;
                    if other != atom && beyond > 0.0 {
                        *value += strength * energies[atom].min(energies[other]) * beyond * cosine.signum();
                    }
                }
            },
        );
        Self::of(&self.geometry, Sums::Host(sums))
    }

    /// Mean energy of every atom's code, the diagonal of A(0).
    pub fn energies(&self) -> Vec<f32> {
        let [vertical, horizontal] = self.shifts();
        let count = self.geometry.code.channels;
        let zero = (self.reach[0] * horizontal + self.reach[1]) * count;
        match &self.sums {
            Sums::Host(OnHost { second, .. }) => {
                (0..count).map(|atom| second[atom * vertical * horizontal * count + zero + atom]).collect()
            }
            Sums::Gpu(resident) => resident.energies(),
        }
    }

    /// A ∗ D: what the codes' correlations make of the filters, one row per atom.
    ///
    /// # Shapes
    /// - filters: `[atoms, channels, kernel height, kernel width]`
    pub fn product(&self, filters: Tensor<4>) -> Vec<f32> {
        match &self.sums {
            Sums::Host(sums) => sums.product(&self.geometry, filters),
            Sums::Gpu(resident) => resident.product(filters),
        }
    }

    /// Gradient A ∗ D − B of the surrogate with respect to some of the effective filters.
    ///
    /// # Shapes
    /// - filters: `[atoms, channels, kernel height, kernel width]`, all of them
    pub fn gradient(&self, atoms: Range<usize>, filters: Tensor<4>) -> Vec<f32> {
        let sums = match &self.sums {
            Sums::Host(sums) => sums,
            Sums::Gpu(resident) => return resident.gradient(atoms, filters),
        };
        let len = self.geometry.atom_len();
        let first = &sums.first[atoms.start * len..atoms.end * len];
        let mut gradient = sums.product_of(&self.geometry, atoms, filters);
        gradient.iter_mut().zip(first).for_each(|(value, first)| *value -= first);
        gradient
    }

    /// The surrogate's value at `filters`, up to a constant, given the gradient there: ½(〈D, A∗D − B〉 − 〈D, B〉).
    pub fn value(&self, filters: &HostFilters, gradient: &[f32]) -> f64 {
        let first = match &self.sums {
            Sums::Host(OnHost { first, .. }) => Cow::from(first),
            Sums::Gpu(resident) => resident.first().into(),
        };
        0.5 * (inner(filters.values(), gradient) - inner(filters.values(), &first))
    }
}

impl OnHost {
    /// The part of [`Statistics::add`] for codes that are so dense that sums over pairs of non-zeros take longer than matrix products:
    /// A ← keep·A + scale·ΓᵀΓ and B ← keep·B + scale·ΓᵀY, where the code is a single position.
    fn add_products(
        &mut self,
        geometry: &LayerGeometry,
        [signals, codes]: [&[f32]; 2],
        scale: f32,
        keep: f32,
        device: &Device,
    ) {
        let (atoms, len) = (geometry.code.channels, geometry.atom_len());
        let count = codes.len() / atoms;
        let matrix = |values: &[f32], columns: usize| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [count, columns]), device)
        };
        let (signals, codes) = (matrix(signals, len), matrix(codes, atoms));
        for start in (0..atoms).step_by(ATOMS_AT_ONCE) {
            let end = (start + ATOMS_AT_ONCE).min(atoms);
            let some = codes.clone().slice([0..count, start..end]).transpose();
            let sides = [
                (&mut self.second[start * atoms..end * atoms], &codes),
                (&mut self.first[start * len..end * len], &signals),
            ];
            for (sums, right) in sides {
                let products = to_host(product(some.clone(), right.clone()));
                sums.iter_mut().zip(products).for_each(|(sum, value)| *sum = keep * *sum + scale * value);
            }
        }
    }

    fn product(&self, geometry: &LayerGeometry, filters: Tensor<4>) -> Vec<f32> {
        self.product_of(geometry, 0..geometry.code.channels, filters)
    }

    fn product_of(&self, geometry: &LayerGeometry, atoms: Range<usize>, filters: Tensor<4>) -> Vec<f32> {
        let (shifts, device) = (geometry.shifts(), &filters.device());
        let (count, rows) = (geometry.code.channels, atoms.len());
        let [vertical, horizontal] = shifts;
        let row = vertical * horizontal * count;
        let second = self.second[atoms.start * row..atoms.end * row].to_vec();
        let [_, channels, height, width] = filters.dims();
        if row == count {
            let second = Tensor::<2>::from_data(TensorData::new(second, [rows, count]), device);
            return to_host(product(second, filters.flatten(1, 3)));
        }
        let second = Tensor::<3>::from_data(TensorData::new(second, [rows, vertical * horizontal, count]), device);
        let mut out = Tensor::<4>::zeros([rows, channels, height, width], device);
        let (stride, reach) = (geometry.stride, geometry.reach());
        for shift in 0..vertical * horizontal {
            // Signed move of the filters in samples: d_k(· + δs).
            let steps = [shift / horizontal, shift % horizontal];
            let moves: [isize; 2] =
                std::array::from_fn(|axis| (steps[axis] as isize - reach[axis] as isize) * stride[axis] as isize);
            let extent = [height, width];
            let target: [Range<usize>; 2] = std::array::from_fn(|axis| {
                let size = extent[axis] - moves[axis].unsigned_abs();
                let start = if moves[axis] < 0 { moves[axis].unsigned_abs() } else { 0 };
                start..start + size
            });
            let source: [Range<usize>; 2] = std::array::from_fn(|axis| {
                let start = if moves[axis] > 0 { moves[axis].unsigned_abs() } else { 0 };
                start..start + target[axis].len()
            });
            let size = channels * target[0].len() * target[1].len();
            let [from_rows, from_columns] = source;
            let [to_rows, to_columns] = target;
            let moved = filters.clone().slice([0..count, 0..channels, from_rows, from_columns]).reshape([count, size]);
            let weights = second.clone().slice([0..rows, shift..shift + 1, 0..count]).reshape([rows, count]);
            let place = [0..rows, 0..channels, to_rows.clone(), to_columns.clone()];
            let part = product(weights, moved).reshape([rows, channels, to_rows.len(), to_columns.len()]);
            let sum = out.clone().slice(place.clone()) + part;
            out = out.slice_assign(place, sum);
        }
        to_host(out)
    }
}

impl Statistics {
    /// Whether atoms at several code positions overlap, so that A has more than one shift.
    pub(super) fn overlap(&self) -> bool {
        self.shifts() != [1, 1]
    }

    /// The move of the filters, in samples, that belongs to a shift.
    fn samples_moved(&self, shift: usize) -> [isize; 2] {
        let [_, horizontal] = self.shifts();
        let steps = [shift / horizontal, shift % horizontal];
        std::array::from_fn(|axis| {
            (steps[axis] as isize - self.reach[axis] as isize) * self.geometry.stride[axis] as isize
        })
    }

    /// A_jj(δ) with the moves that its δ stand for, zeros left out: how an atom's shifted copies overlap.
    pub(super) fn own(&self, atom: usize) -> Vec<([isize; 2], f32)> {
        let count = self.geometry.code.channels;
        let shifts: usize = self.shifts().iter().product();
        let (second, _) = self.parts();
        (0..shifts)
            .map(|shift| (self.samples_moved(shift), second[(atom * shifts + shift) * count + atom]))
            .filter(|(_, weight)| *weight != 0.0)
            .collect()
    }

    /// A_jj ∗ d for one filter.
    pub(super) fn apply_own(&self, own: &[([isize; 2], f32)], filter: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; filter.len()];
        vectorised(
            #[inline(always)]
            || {
                for &(moved, weight) in own {
                    add_moved(&mut out, filter, self.geometry.kernel, moved, weight);
                }
            },
        );
        out
    }

    /// The gradient with respect to one filter, on the host: A_j ∗ D − B_j.
    pub(super) fn gradient_of(&self, atom: usize, filters: &HostFilters) -> Vec<f32> {
        // In a fixed number of parts, so that the sums are the same whatever the number of threads.
        const PARTS: usize = 8;
        let (count, len) = (self.geometry.code.channels, filters.atom_len());
        let shifts: usize = self.shifts().iter().product();
        let (second, first) = self.parts();
        let row = &second[atom * shifts * count..][..shifts * count];
        let parts: Vec<Vec<f32>> = (0..PARTS)
            .into_par_iter()
            .map(|part| {
                let mut out = vec![0.0; len];
                let others = part * count / PARTS..(part + 1) * count / PARTS;
                vectorised(
                    #[inline(always)]
                    || {
                        for (shift, weights) in row.chunks_exact(count).enumerate() {
                            let moved = self.samples_moved(shift);
                            for other in others.clone() {
                                if weights[other] != 0.0 {
                                    let filter = filters.atom(other);
                                    add_moved(&mut out, filter, self.geometry.kernel, moved, weights[other]);
                                }
                            }
                        }
                    },
                );
                out
            })
            .collect();
        let mut gradient: Vec<f32> = first[atom * len..][..len].iter().map(|value| -value).collect();
        for part in parts {
            gradient.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        gradient
    }

    /// By how much the surrogate changes where some filters change, one after the other, given the gradient with respect to them:
    /// 〈G, Δ〉 + ½〈Δ, A ∗ Δ〉. Atoms that overlap at several positions change one at a time.
    ///
    /// # Panics
    /// If several change that overlap.
    pub(super) fn rise(&self, atoms: &[usize], gradient: &[f32], change: &[f32], device: &Device) -> f64 {
        let linear = inner(gradient, change);
        if self.overlap() {
            assert_eq!(atoms.len(), 1, "one at a time");
            return linear + 0.5 * inner(change, &self.apply_own(&self.own(atoms[0]), change));
        }
        let (count, size) = (self.geometry.code.channels, atoms.len());
        let block = match &self.sums {
            Sums::Host(OnHost { second, .. }) => {
                let block = atoms.iter().flat_map(|&atom| atoms.iter().map(move |&other| second[atom * count + other]));
                Tensor::<2>::from_data(TensorData::new(block.collect::<Vec<_>>(), [size, size]), device)
            }
            Sums::Gpu(resident) => resident.block(atoms),
        };
        let len = change.len() / size;
        let effect = product(block, Tensor::from_data(TensorData::new(change.to_vec(), [size, len]), device));
        linear + 0.5 * inner(change, &to_host(effect))
    }
}

/// out(·) += weight · filter(· + moved), per channel; what moves out of the kernel is dropped.
#[inline(always)]
fn add_moved(out: &mut [f32], filter: &[f32], kernel: [usize; 2], moved: [isize; 2], weight: f32) {
    let [rows, columns] = kernel;
    let range = |extent: usize, moved: isize| {
        let first = (-moved).max(0) as usize;
        first..extent.saturating_sub(moved.max(0) as usize).max(first)
    };
    let (inside, across) = (range(rows, moved[0]), range(columns, moved[1]));
    let from = across.start.wrapping_add_signed(moved[1]);
    for (out, filter) in out.chunks_exact_mut(rows * columns).zip(filter.chunks_exact(rows * columns)) {
        for row in inside.clone() {
            let source = &filter[row.wrapping_add_signed(moved[0]) * columns + from..][..across.len()];
            let target = &mut out[row * columns + across.start..][..across.len()];
            target.iter_mut().zip(source).for_each(|(target, source)| *target += weight * source);
        }
    }
}

/// A layer on one window, and signals and codes window by window.
fn windows_of(windows: &Windows, signals: &[f32], codes: &[f32]) -> (LayerGeometry, Vec<f32>, Vec<f32>) {
    let count = codes.len() / windows.layer().code.len();
    let mut of_signals = vec![0.0; count * windows.positions() * windows.layer().atom_len()];
    windows.cut_into(signals, &mut of_signals);
    let mut of_codes = vec![0.0; codes.len()];
    windows.cut_codes_into(codes, &mut of_codes);
    (windows.window(), of_signals, of_codes)
}

/// Inner product, summed in `f64`.
pub(super) fn inner(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Adds `weight` times the window of `signal` at a code position to `sum`; what padding crops counts as zero.
pub(super) fn add_window(sum: &mut [f32], signal: &[f32], geometry: &LayerGeometry, position: [usize; 2], weight: f32) {
    let LayerGeometry { signal: shape, kernel, stride, padding, .. } = geometry;
    if [shape.height, shape.width] == *kernel && *padding == [0, 0] {
        // The window is the signal: a vector, say.
        sum.iter_mut().zip(signal).for_each(|(sum, value)| *sum += weight * value);
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{
        assert_close, bits, data_term, device, filters, in_pools, layer, sparse, tensor, wide,
    };
    use super::*;
    use crate::geometry::{LayerShape, Pair};
    use crate::kernels::sparse::norm;

    const COUNT: usize = 5;

    /// A matrix; strides and a rectangle with several channels; fewer positions than atoms reach; positions that share no sample.
    fn uncropped() -> Vec<LayerGeometry> {
        vec![
            layer([3, 4, 5], LayerShape::new(6, 1, 1)),
            layer([2, 9, 11], LayerShape::new(4, Pair([2, 3]), Pair([4, 4]))),
            layer([1, 5, 4], LayerShape::new(7, Pair([5, 4]), 1)),
            layer([2, 9, 11], LayerShape::new(4, Pair([4, 3]), Pair([2, 1]))),
            layer([1, 7, 6], LayerShape::new(3, 5, 1)),
            layer([1, 11, 8], LayerShape::new(3, Pair([2, 3]), Pair([3, 2]))),
        ]
    }

    fn cropped() -> Vec<LayerGeometry> {
        vec![
            layer([2, 8, 7], LayerShape::new(3, Pair([3, 4]), Pair([1, 2])).with_padding(Pair([1, 2]))),
            layer([1, 6, 6], LayerShape::new(4, 5, 2).with_padding(Pair([0, 3]))),
        ]
    }

    struct Sample {
        signals: Vec<f32>,
        codes: Vec<f32>,
        filters: HostFilters,
    }

    impl Sample {
        fn new(geometry: &LayerGeometry, seed: u64) -> Self {
            Self {
                signals: sparse(seed, COUNT * geometry.signal.len(), 1.0),
                codes: sparse(seed + 1, COUNT * geometry.code.len(), 0.4),
                filters: filters(seed + 2, geometry.filter_dims(), 1.0),
            }
        }

        fn add_to(&self, statistics: &mut Statistics, weight: f32) {
            let geometry = &statistics.geometry;
            let (signals, codes) = (tensor(&self.signals, geometry.signal), tensor(&self.codes, geometry.code));
            statistics.add(&signals, &codes, &self.filters, weight);
        }

        fn statistics(&self, geometry: &LayerGeometry) -> Statistics {
            let mut statistics = Statistics::on_host(geometry);
            self.add_to(&mut statistics, 1.0);
            statistics
        }

        /// Gradient of the mean data term at `filters` by central differences, exact for a quadratic function.
        fn differences(&self, geometry: &LayerGeometry, filters: &HostFilters) -> Vec<f64> {
            let filters = wide(filters.values());
            let at = |index: usize, change: f64| {
                let mut filters = filters.clone();
                filters[index] += change;
                data_term(geometry, &filters, &self.signals, &self.codes)
            };
            (0..filters.len()).map(|index| (at(index, 0.5) - at(index, -0.5)) / 1.0).collect()
        }
    }

    fn gradient(statistics: &Statistics, filters: &HostFilters) -> Vec<f32> {
        statistics.gradient(0..filters.atoms(), filters.to_tensor(&device()))
    }

    #[test]
    fn they_are_what_their_definition_says() {
        for geometry in uncropped() {
            let sample = Sample::new(&geometry, 1);
            let statistics = sample.statistics(&geometry);
            let LayerGeometry { signal, code, kernel, stride, .. } = geometry;
            let (rows, columns) = (code.height as isize, code.width as isize);
            let at = |number: usize, atom: usize, row: isize, column: isize| {
                let inside = (0..rows).contains(&row) && (0..columns).contains(&column);
                let index = ((number * code.channels + atom) as isize * rows + row) * columns + column;
                if inside { f64::from(sample.codes[index as usize]) } else { 0.0 }
            };
            let mut second = Vec::new();
            let reach = statistics.reach.map(|reach| reach as isize);
            for atom in 0..code.channels {
                for down in -reach[0]..=reach[0] {
                    for across in -reach[1]..=reach[1] {
                        for other in 0..code.channels {
                            let mut sum = 0.0;
                            for place in 0..COUNT as isize * rows * columns {
                                let (number, row, column) =
                                    ((place / (rows * columns)) as usize, place / columns % rows, place % columns);
                                sum += at(number, atom, row, column) * at(number, other, row - down, column - across);
                            }
                            second.push(sum / COUNT as f64);
                        }
                    }
                }
            }
            // Beyond the reach atoms do not overlap, or there is no position.
            for axis in 0..2 {
                let next = statistics.reach[axis] + 1;
                assert!(next * stride[axis] >= kernel[axis] || next >= [code.height, code.width][axis]);
            }
            let mut first = Vec::new();
            for index in 0..geometry.filter_dims().iter().product::<usize>() {
                let (atom, channel) = (index / geometry.atom_len(), index / (kernel[0] * kernel[1]) % signal.channels);
                let (y, x) = (index / kernel[1] % kernel[0], index % kernel[1]);
                let mut sum = 0.0;
                for place in 0..COUNT * code.height * code.width {
                    let number = place / (code.height * code.width);
                    let (row, column) = (place / code.width % code.height, place % code.width);
                    let from = ((number * signal.channels + channel) * signal.height + row * stride[0] + y)
                        * signal.width
                        + column * stride[1]
                        + x;
                    sum += at(number, atom, row as isize, column as isize) * f64::from(sample.signals[from]);
                }
                first.push(sum / COUNT as f64);
            }
            assert_close(&statistics.parts().0, &second, 1e-6, "A");
            assert_close(&statistics.parts().1, &first, 1e-6, "B");
            let zero = (reach[0] * (2 * reach[1] + 1) + reach[1]) as usize;
            let row = second.len() / code.channels;
            let energies: Vec<f64> =
                (0..code.channels).map(|atom| second[atom * row + zero * code.channels + atom]).collect();
            assert_close(&statistics.energies(), &energies, 1e-6, "energies");
        }
    }

    /// Dense codes, for which matrix products are used, against sums over all pairs in `f64`; half of what was is forgotten.
    #[test]
    fn dense_codes_are_multiplied() {
        let geometry = layer([3, 4, 5], LayerShape::new(7, Pair([4, 5]), 1));
        let mut statistics = Statistics::on_host(&geometry);
        let parts = [3, 4].map(|seed| {
            let (signals, codes) = (sparse(seed, COUNT * geometry.signal.len(), 1.0), sparse(seed + 9, COUNT * 7, 1.0));
            assert!(pairs(&codes, 7) * PRODUCTS_ARE_FASTER > codes.len() * 7);
            let batch = [tensor(&signals, geometry.signal), tensor(&codes, geometry.code)];
            statistics.add(&batch[0], &batch[1], &filters(2, geometry.filter_dims(), 1.0), 0.5);
            (signals, codes)
        });
        // Signals and codes.
        type Part = (Vec<f32>, Vec<f32>);
        let sums = |left: fn(&Part) -> &[f32], width: usize| -> Vec<f64> {
            let of = |part: &Part, atom: usize, place: usize| {
                let rows = part.1.chunks_exact(7).zip(left(part).chunks_exact(width));
                rows.map(|(code, row)| f64::from(code[atom]) * f64::from(row[place])).sum::<f64>() / COUNT as f64
            };
            let places = (0..7).flat_map(|atom| (0..width).map(move |place| (atom, place)));
            places.map(|(atom, place)| 0.25 * of(&parts[0], atom, place) + 0.5 * of(&parts[1], atom, place)).collect()
        };
        assert_close(&statistics.parts().0, &sums(|part| &part.1, 7), 1e-6, "A");
        assert_close(&statistics.parts().1, &sums(|part| &part.0, geometry.signal.len()), 1e-6, "B");
    }

    #[test]
    fn the_gradient_is_that_of_the_data_term() {
        for geometry in uncropped() {
            let sample = Sample::new(&geometry, 4);
            let statistics = sample.statistics(&geometry);
            // Anywhere, not only at the filters of the codes.
            for filters in [sample.filters.clone(), filters(9, geometry.filter_dims(), 0.5)] {
                let expected = sample.differences(&geometry, &filters);
                let found = gradient(&statistics, &filters);
                assert_close(&found, &expected, 1e-5, "gradient");
                let part = statistics.gradient(1..3, filters.to_tensor(&device()));
                let (from, to) = (geometry.atom_len(), 3 * geometry.atom_len());
                assert_close(&part, &expected[from..to], 1e-5, "gradient of some atoms");
                // The value is the data term, but for a constant, which is its value at zero.
                let value = statistics.value(&filters, &found);
                let zero = data_term(&geometry, &vec![0.0; expected.len()], &sample.signals, &sample.codes);
                let term = data_term(&geometry, &wide(filters.values()), &sample.signals, &sample.codes);
                assert!((value - (term - zero)).abs() <= 1e-5 * (term + zero), "{value} {term} {zero}");
            }
        }
    }

    #[test]
    fn with_padding_the_surrogate_touches_the_data_term_from_above() {
        for geometry in cropped() {
            let sample = Sample::new(&geometry, 7);
            let statistics = sample.statistics(&geometry);
            let found = gradient(&statistics, &sample.filters);
            assert_close(&found, &sample.differences(&geometry, &sample.filters), 1e-5, "gradient");
            let term =
                |filters: &HostFilters| data_term(&geometry, &wide(filters.values()), &sample.signals, &sample.codes);
            let value = |filters: &HostFilters| statistics.value(filters, &gradient(&statistics, filters));
            let (term_here, value_here) = (term(&sample.filters), value(&sample.filters));
            for seed in 20..30 {
                let elsewhere = filters(seed, geometry.filter_dims(), 1.0);
                let (rise, bound) = (term(&elsewhere) - term_here, value(&elsewhere) - value_here);
                assert!(bound >= rise - 1e-5 * term_here, "{rise} above {bound}");
            }
        }
    }

    #[test]
    fn one_filter_at_a_time_is_the_same() {
        for geometry in uncropped().into_iter().chain(cropped()) {
            let sample = Sample::new(&geometry, 51);
            let statistics = sample.statistics(&geometry);
            let filters = filters(52, geometry.filter_dims(), 0.5);
            let all = gradient(&statistics, &filters);
            let len = geometry.atom_len();
            for atom in 0..filters.atoms() {
                let expected = &all[atom * len..][..len];
                assert_close(&statistics.gradient_of(atom, &filters), &wide(expected), 1e-5, "gradient");
                // The rise is what the values say.
                let mut moved = filters.clone();
                moved
                    .atom_mut(atom)
                    .iter_mut()
                    .enumerate()
                    .for_each(|(place, value)| *value += (place % 3) as f32 - 1.0);
                let change: Vec<f32> =
                    moved.atom(atom).iter().zip(filters.atom(atom)).map(|(new, old)| new - old).collect();
                let value = |filters: &HostFilters| statistics.value(filters, &gradient(&statistics, filters));
                let (before, after) = (value(&filters), value(&moved));
                let rise = statistics.rise(&[atom], expected, &change, &device());
                let scale = before.abs() + after.abs();
                assert!((rise - (after - before)).abs() <= 1e-5 * scale, "{rise} {before} {after}");
            }
        }
    }

    #[test]
    fn old_batches_are_forgotten_by_their_weight() {
        const WEIGHT: f32 = 0.3;
        for geometry in uncropped().into_iter().chain(cropped()) {
            let (old, new) = (Sample::new(&geometry, 11), Sample::new(&geometry, 14));
            let mut both = old.statistics(&geometry);
            new.add_to(&mut both, WEIGHT);
            let (old, new) = (old.statistics(&geometry), new.statistics(&geometry));
            let mix = |old: &[f32], new: &[f32]| -> Vec<f64> {
                let weight = f64::from(WEIGHT);
                wide(old).iter().zip(wide(new)).map(|(old, new)| (1.0 - weight) * old + weight * new).collect()
            };
            assert_close(&both.parts().0, &mix(&old.parts().0, &new.parts().0), 1e-6, "A");
            // With padding B is corrected for the filters of every batch.
            assert_close(&both.parts().1, &mix(&old.parts().1, &new.parts().1), 1e-5, "B");
            let filters = filters(17, geometry.filter_dims(), 1.0);
            let expected = mix(&gradient(&old, &filters), &gradient(&new, &filters));
            assert_close(&gradient(&both, &filters), &expected, 1e-5, "gradient");
        }
    }

    #[test]
    fn forgotten_atoms_leave_nothing_behind() {
        for geometry in uncropped() {
            let sample = Sample::new(&geometry, 21);
            let mut statistics = sample.statistics(&geometry);
            statistics.forget(&[0, 2]);
            // The same as if codes had never used them.
            let positions = geometry.code.height * geometry.code.width;
            let mut without = Sample::new(&geometry, 21);
            for (index, value) in without.codes.iter_mut().enumerate() {
                if [0, 2].contains(&(index / positions % geometry.code.channels)) {
                    *value = 0.0;
                }
            }
            let without = without.statistics(&geometry);
            assert_eq!(bits(&statistics.parts().0), bits(&without.parts().0));
            assert_eq!(bits(&statistics.parts().1), bits(&without.parts().1));
        }
    }

    #[test]
    fn they_come_back_from_their_parts() {
        for geometry in uncropped() {
            let sample = Sample::new(&geometry, 31);
            let statistics = sample.statistics(&geometry);
            let (second, first) = (statistics.parts().0.to_vec(), statistics.parts().1.to_vec());
            let mut restored = Statistics::on_host(&geometry);
            assert!(!restored.restore(second[1..].to_vec(), first.clone()));
            assert!(restored.restore(second, first));
            assert_eq!(bits(&gradient(&restored, &sample.filters)), bits(&gradient(&statistics, &sample.filters)));
        }
    }

    /// A and B as matrices on a device are those of the host, and so is all that is computed by them.
    #[test]
    fn on_gpu_they_are_the_same() {
        #[cfg(feature = "cube")]
        let other = crate::kernels::cube::testing::device();
        #[cfg(not(feature = "cube"))]
        let other = None;
        let devices: Vec<Device> = [Some(device()), other].into_iter().flatten().collect();
        for (geometry, device) in devices.iter().flat_map(|device| {
            let disjoint = uncropped().into_iter().filter(LayerGeometry::is_disjoint);
            disjoint.map(move |geometry| (geometry, device))
        }) {
            let [mut host, mut there] = [Statistics::on_host(&geometry), Statistics::on_gpu(&geometry, device)];
            let compare = |host: &Statistics, there: &Statistics, what: &str| {
                assert_close(&there.parts().0, &wide(&host.parts().0), 1e-5, what);
                assert_close(&there.parts().1, &wide(&host.parts().1), 1e-5, what);
                assert_close(&there.energies(), &wide(&host.energies()), 1e-5, what);
            };
            for (seed, weight) in [(61, 1.0), (64, 0.3)] {
                let sample = Sample::new(&geometry, seed);
                let batch = [tensor(&sample.signals, geometry.signal), tensor(&sample.codes, geometry.code)];
                host.add(&batch[0], &batch[1], &sample.filters, weight);
                let batch = batch.map(|values| values.to_device(device));
                there.add(&batch[0], &batch[1], &sample.filters, weight);
                compare(&host, &there, "sums");
            }
            host.forget(&[1]);
            there.forget(&[1]);
            compare(&host, &there, "sums without an atom");
            let mut filters = filters(67, geometry.filter_dims(), 1.0);
            let len = filters.atom_len();
            filters.values_mut().chunks_exact_mut(len).for_each(|atom| {
                let length = norm(atom);
                atom.iter_mut().for_each(|value| *value /= length);
            });
            let alike = host.with_incoherence(2.0, filters.to_tensor(&self::device()));
            compare(&alike, &there.with_incoherence(2.0, filters.to_tensor(device)), "penalised sums");
            let gradient = host.gradient(1..3, filters.to_tensor(&self::device()));
            let found = there.gradient(1..3, filters.to_tensor(device));
            assert_close(&found, &wide(&gradient), 1e-5, "gradient");
            assert_close(
                &there.product(filters.to_tensor(device)),
                &wide(&host.product(filters.to_tensor(&self::device()))),
                1e-5,
                "product",
            );
            let all = host.gradient(0..filters.atoms(), filters.to_tensor(&self::device()));
            let change = sparse(68, 2 * geometry.atom_len(), 1.0);
            let pairs = [
                (host.value(&filters, &all), there.value(&filters, &all)),
                (
                    host.rise(&[0, 2], &gradient, &change, &self::device()),
                    there.rise(&[0, 2], &gradient, &change, device),
                ),
            ];
            for (expected, found) in pairs {
                assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
            }
            let mut restored = Statistics::on_gpu(&geometry, device);
            let (second, first) = there.parts();
            assert!(!restored.restore(second[1..].to_vec(), first.to_vec()));
            assert!(restored.restore(second.to_vec(), first.to_vec()));
            assert_eq!(bits(&restored.parts().0), bits(&second));
            assert_eq!(bits(&restored.parts().1), bits(&first));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        for geometry in uncropped().into_iter().chain(cropped()) {
            let [one, two, three] = in_pools(|| {
                let mut statistics = Sample::new(&geometry, 41).statistics(&geometry);
                let sample = Sample::new(&geometry, 44);
                sample.add_to(&mut statistics, 0.5);
                let gradient = gradient(&statistics, &sample.filters);
                [bits(&statistics.parts().0), bits(&statistics.parts().1), bits(&gradient)]
            });
            assert!(one == two && two == three);
        }
    }
}
