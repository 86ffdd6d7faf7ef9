//! The statistics of atoms that do not overlap, in the memory of a GPU: A and B as matrices. The host reads what it needs to move
//! atoms.

use super::statistics::{ATOMS_AT_ONCE, UNAVOIDABLE};
use crate::geometry::LayerGeometry;
use crate::kernels::linear_algebra::diagonal;
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use crate::kernels::windows::Windows;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use std::ops::Range;

/// A and B may take this part of a device's memory: their next values, the terms of a penalty and the pursuits need the rest.
#[cfg(feature = "cube")]
const TIMES: usize = 10;

/// A and B on a device; see [`super::statistics`].
#[derive(Debug, Clone)]
pub(super) struct Resident {
    geometry: LayerGeometry,
    /// A, `[atoms, atoms]`.
    second: Tensor<2>,
    /// B, `[atoms, values of an atom]`.
    first: Tensor<2>,
}

impl Resident {
    /// Of nothing yet.
    pub fn new(geometry: &LayerGeometry, device: &Device) -> Self {
        let atoms = geometry.code.channels;
        Self {
            geometry: geometry.clone(),
            second: Tensor::zeros([atoms, atoms], device),
            first: Tensor::zeros([atoms, geometry.atom_len()], device),
        }
    }

    /// Whether a device is to hold the statistics of a layer: a GPU that has room for them, where no two positions share a sample.
    pub fn suits(geometry: &LayerGeometry, device: &Device) -> bool {
        #[cfg(feature = "cube")]
        if let Some([of_buffer, of_all]) = crate::kernels::cube::capacity(device) {
            if !geometry.is_disjoint() {
                crate::device::left_to_host("the update of atoms that overlap at several positions");
                return false;
            }
            let atoms = geometry.code.channels;
            let [second, first] = [atoms.saturating_mul(atoms), atoms.saturating_mul(geometry.atom_len())];
            let fits = second.max(first) <= of_buffer && second.saturating_add(first) <= of_all / TIMES;
            if !fits {
                crate::device::left_to_host(&format!(
                    "the update of {atoms} atoms, whose statistics don't fit into its memory"
                ));
            }
            return fits;
        }
        let _ = (geometry, device);
        false
    }

    fn device(&self) -> Device {
        self.second.device()
    }

    /// A ← keep·A + scale·ΓᵀΓ and B ← keep·B + scale·ΓᵀY, with the codes of all positions and what these see as rows of Γ and Y.
    pub fn add(&mut self, signals: Tensor<4>, codes: Tensor<4>, scale: f32, keep: f32) {
        let [signals, codes] = match Windows::of(&self.geometry) {
            Some(windows) => [windows.cut(signals), windows.cut_codes(codes)],
            None => {
                // There is one position: atoms cover this part of the signal.
                let ([count, channels, ..], [height, width]) = (signals.dims(), self.geometry.kernel);
                [signals.slice([0..count, 0..channels, 0..height, 0..width]), codes]
            }
        }
        .map(|values| values.flatten::<2>(1, 3));
        let [count, atoms] = codes.dims();
        for start in (0..atoms).step_by(ATOMS_AT_ONCE) {
            let rows = start..(start + ATOMS_AT_ONCE).min(atoms);
            let some = codes.clone().slice([0..count, rows.clone()]).transpose();
            for (sums, right) in [(&mut self.second, &codes), (&mut self.first, &signals)] {
                let added = product(some.clone(), right.clone()) * scale;
                replace(sums, |sums| {
                    let [_, columns] = sums.dims();
                    if rows.len() == atoms {
                        return sums * keep + added;
                    }
                    let place = [rows.clone(), 0..columns];
                    let next = sums.clone().slice(place.clone()) * keep + added;
                    sums.slice_assign(place, next)
                });
            }
        }
    }

    /// Forgets all about some atoms.
    pub fn forget(&mut self, atoms: &[usize]) {
        let [count, len] = self.first.dims();
        let mut gone = vec![false; count];
        atoms.iter().for_each(|&atom| gone[atom] = true);
        let rows = Tensor::<2, Bool>::from_data(TensorData::new(gone, [count, 1]), &self.device());
        let columns = rows.clone().transpose().expand([count, count]);
        replace(&mut self.second, |second| {
            second.mask_fill(rows.clone().expand([count, count]), 0.0).mask_fill(columns, 0.0)
        });
        replace(&mut self.first, |first| first.mask_fill(rows.expand([count, len]), 0.0));
    }

    /// A and B on the host.
    pub fn parts(&self) -> [Vec<f32>; 2] {
        [to_host(self.second.clone()), self.first()]
    }

    /// B on the host.
    pub fn first(&self) -> Vec<f32> {
        to_host(self.first.clone())
    }

    /// Puts back what [`Self::parts`] gave.
    pub fn restore(&mut self, second: Vec<f32>, first: Vec<f32>) {
        for (sums, values) in [(&mut self.second, second), (&mut self.first, first)] {
            *sums = Tensor::from_data(TensorData::new(values, sums.dims()), &sums.device());
        }
    }

    /// With A of the surrogate that penalises atoms for being alike; `gram` holds their inner products, `[atoms, atoms]`.
    pub fn with_incoherence(&self, strength: f32, gram: Tensor<2>) -> Self {
        let count = self.geometry.code.channels;
        let energies = diagonal(&self.second).unsqueeze_dim::<2>(1).expand([count, count]);
        let least = energies.clone().min_pair(energies.transpose());
        let beyond = (gram.clone().abs() - UNAVOIDABLE).clamp_min(0.0) * gram.sign();
        let others = Tensor::<2>::eye(count, &self.device()).neg() + 1.0;
        Self { second: self.second.clone() + beyond * least * others * strength, ..self.clone() }
    }

    /// The diagonal of A.
    pub fn energies(&self) -> Vec<f32> {
        to_host(diagonal(&self.second))
    }

    /// AD.
    pub fn product(&self, filters: Tensor<4>) -> Vec<f32> {
        to_host(product(self.second.clone(), filters.flatten(1, 3)))
    }

    /// Some rows of AD − B.
    pub fn gradient(&self, atoms: Range<usize>, filters: Tensor<4>) -> Vec<f32> {
        let rows = |sums: &Tensor<2>| sums.clone().slice([atoms.clone(), 0..sums.dims()[1]]);
        to_host(product(rows(&self.second), filters.flatten(1, 3)) - rows(&self.first))
    }

    /// Rows and columns of A that belong to some atoms.
    pub fn block(&self, atoms: &[usize]) -> Tensor<2> {
        let places: Vec<i64> = atoms.iter().map(|&atom| atom as i64).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [atoms.len()]), &self.device());
        self.second.clone().select(0, places.clone()).select(1, places)
    }
}

/// Computes new sums in the memory of the old ones, where the device can: nothing else holds these meanwhile.
fn replace(sums: &mut Tensor<2>, next: impl FnOnce(Tensor<2>) -> Tensor<2>) {
    let none = Tensor::empty([1, 1], &sums.device());
    *sums = next(std::mem::replace(sums, none));
}
