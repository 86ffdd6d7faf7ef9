//! Where atoms lie in their kernels, and which say the same: what a convolution leaves open.
//!
//! An atom that is found near the border of its kernel is cut off there, and what is cut off is found again by another atom; two
//! atoms that are one, moved, share a code between them. Neither is left by small steps. So, while a run is young, atoms move to
//! where in a larger kernel most of their energy would be, and of two atoms that are nearly one another's shifted copy the less used
//! starts anew. (That shifts are a symmetry of the problem which traps alternating minimisation is seen, for one atom, by Y. Zhang,
//! H. Kuo, J. Wright, "Structured Local Optima in Sparse Blind Deconvolution", IEEE Trans. Inf. Theory 66(1), 2020.)
//!
//! What an atom would have beyond its kernel is what the residuals around its places have in common: with codes γ_j and residuals r
//! the best continuation of atom j at x outside the kernel is Σ_p γ_j(p) r(ps + x) / Σ_p γ_j(p)².

use super::cascade::Cascade;
use super::statistics::add_window;
use crate::geometry::LayerGeometry;
use crate::kernels::correlation::CorrelationTable;
use crate::kernels::sparse::nonzeros;
use burn::tensor::Device;
use rayon::prelude::*;

/// Part of its energy that an atom has to win by a move, beyond what noise would let it win.
const GAIN: f32 = 0.02;

/// Times the variance of residuals that counts as noise in a continuation: neighbouring residuals are alike.
const NOISE: f32 = 3.0;

/// Part of its uses for which a continuation has to lie inside the signals to be known.
const KNOWN: f32 = 0.5;

/// Cosine from which on two atoms, one of them moved, are taken for one.
const TWINS: f32 = 0.9;

/// Inner products of shifted atoms that are looked through, at most.
const MAX_COMPARED: usize = 1 << 26;

/// Signals' codes and what these leave of them, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Explained<'a> {
    pub(super) codes: &'a [f32],
    pub(super) residuals: &'a [f32],
}

/// Atoms that would have more energy one code position further in some direction, with what they would be there, one after the
/// other.
pub(super) fn moves(cascade: &Cascade, windows_of: &LayerGeometry, explained: Explained) -> (Vec<usize>, Vec<f32>) {
    let (stride, count) = (windows_of.stride, cascade.atoms().atoms());
    let larger = windows_of.surrounded();
    let mut uses: Vec<Vec<(usize, [usize; 2], f32)>> = vec![Vec::new(); count];
    for (signal, code) in explained.codes.chunks_exact(larger.code.len()).enumerate() {
        for (index, value) in nonzeros(code) {
            let [atom, row, column] = larger.place(index);
            uses[atom].push((signal, [row, column], value));
        }
    }
    let len = larger.signal.len();
    let squares: f64 = explained.residuals.iter().map(|value| f64::from(value * value)).sum();
    let variance = (squares / explained.residuals.len().max(1) as f64) as f32;
    let inside = vec![1.0; len];
    let found: Vec<Option<Vec<f32>>> = uses
        .par_iter()
        .enumerate()
        .map(|(atom, uses)| {
            let all: f32 = uses.iter().map(|(_, _, value)| value * value).sum();
            if all == 0.0 {
                return None;
            }
            let (mut sums, mut energies) = (vec![0.0; larger.atom_len()], vec![0.0; larger.atom_len()]);
            for &(signal, place, value) in uses {
                add_window(&mut sums, &explained.residuals[signal * len..][..len], &larger, place, value);
                add_window(&mut energies, &inside, &larger, place, value * value);
            }
            let continued: Vec<f32> = sums
                .iter()
                .zip(&energies)
                .map(|(sum, energy)| if *energy > KNOWN * all { sum / energy } else { 0.0 })
                .collect();
            towards_energy(cascade.atoms().atom(atom), continued, &larger, stride, NOISE * variance / all)
        })
        .collect();
    let atoms = (0..count).filter(|&atom| found[atom].is_some()).collect();
    (atoms, found.into_iter().flatten().flatten().collect())
}

/// The part of a continued atom that has most energy, as large as the atom itself; `None` where that is the atom. The energy that
/// noise makes of every sample beyond the kernel does not count.
fn towards_energy(
    atom: &[f32],
    mut continued: Vec<f32>,
    larger: &LayerGeometry,
    stride: [usize; 2],
    noise: f32,
) -> Option<Vec<f32>> {
    let outer = larger.kernel;
    let inner = [outer[0] - 2 * stride[0], outer[1] - 2 * stride[1]];
    let within = |move_by: [usize; 2]| {
        (0..larger.signal.channels * inner[0] * inner[1]).map(move |index| {
            let (channel, row, column) = (index / (inner[0] * inner[1]), index / inner[1] % inner[0], index % inner[1]);
            (channel * outer[0] + row + move_by[0]) * outer[1] + column + move_by[1]
        })
    };
    // `continued` was found beyond the kernel; within it is the atom.
    let is_inside: Vec<bool> = {
        let mut is_inside = vec![false; continued.len()];
        within(stride).zip(atom).for_each(|(index, value)| (continued[index], is_inside[index]) = (*value, true));
        is_inside
    };
    let energy = |move_by: [usize; 2]| -> f32 {
        within(move_by)
            .map(|index| continued[index] * continued[index] - if is_inside[index] { 0.0 } else { noise })
            .sum()
    };
    let moves = (0..9).map(|index| [index / 3 * stride[0], index % 3 * stride[1]]);
    let best = moves.map(|move_by| (energy(move_by), move_by)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > (1.0 + GAIN) * energy(stride)).then(|| within(best.1).map(|index| continued[index]).collect())
}

/// Of every two atoms that are nearly one another's shifted copy, the one that codes use less.
pub(super) fn twins(cascade: &Cascade, energies: &[f32], geometry: &LayerGeometry, device: &Device) -> Vec<usize> {
    let count = cascade.atoms().atoms();
    let shifts: usize = geometry.shifts().into_iter().product();
    if count * count * shifts > MAX_COMPARED {
        return Vec::new();
    }
    let filters = cascade.atoms_on(device);
    let table = CorrelationTable::new(&filters, geometry.stride, [geometry.code.height, geometry.code.width]);
    let reach = table.reach();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| energies[b].total_cmp(&energies[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::new();
    let mut rest = Vec::new();
    for atom in order {
        let alike = |other: &usize| {
            let limit = TWINS * (table.energy(atom) * table.energy(*other)).sqrt();
            (0..=2 * reach[0]).any(|row| {
                (0..=2 * reach[1])
                    .any(|column| table.between((*other, reach[0], reach[1]), (atom, row, column)).abs() > limit)
            })
        };
        if kept.iter().any(alike) { rest.push(atom) } else { kept.push(atom) }
    }
    rest.sort_unstable();
    rest
}

#[cfg(test)]
mod tests {
    use super::super::config::AtomNorm;
    use super::super::testing::{cascade, device, layer};
    use super::*;
    use crate::geometry::{LayerShape, Pair, SignalShape};
    use crate::model::ModelConfig;

    /// A template is cut off by the kernel; residuals of codes that are right where it is say what is missing, and it comes back.
    #[test]
    fn atoms_move_to_where_their_energy_is() {
        let config = ModelConfig::new(SignalShape::new(2, 12, 11), vec![LayerShape::new(2, Pair([4, 3]), 1)]);
        let windows_of = config.geometry().unwrap().windows(1);
        let template = [0.2, 0.9, -0.3, 1.0, -0.7, 0.4, 0.8, 0.5, -0.6, 0.3, -0.9, 0.6];
        // One row below: the first three are cut off, and a blank row follows.
        let cut: Vec<f32> = [&template[3..], &[0.0; 3]].concat().iter().copied().chain([0.0; 12]).collect();
        let mut cascade = cascade(config);
        cascade.set_atoms(&[0], &cut, AtomNorm::Effective);
        let scale = cascade.atoms().atom(0)[0] / cut[0];
        let (mut codes, mut residuals) = (vec![0.0; windows_of.code.len()], vec![0.0; windows_of.signal.len()]);
        for (place, value) in [([3, 2], 1.5), ([5, 6], -1.0), ([8, 1], 0.5), ([0, 4], 0.1)] {
            codes[place[0] * windows_of.code.width + place[1]] = value;
            for column in 0..3 {
                if place[0] > 0 {
                    residuals[(place[0] - 1) * 11 + place[1] + column] += value * scale * template[column];
                }
            }
        }
        let explained = Explained { codes: &codes, residuals: &residuals };
        let (atoms, values) = moves(&cascade, &windows_of, explained);
        assert_eq!(atoms, [0]);
        for (value, wanted) in values.iter().zip(template.iter().map(|value| scale * value).chain([0.0; 12])) {
            assert!((value - wanted).abs() < 1e-5, "{value} {wanted}");
        }
        // Nothing is missing: nothing moves, whatever noise there is.
        cascade.set_atoms(&[0], &values, AtomNorm::Effective);
        let noise: Vec<f32> = (0..residuals.len()).map(|index| ((index * 37) % 19) as f32 / 20.0 - 0.45).collect();
        for residuals in [vec![0.0; residuals.len()], noise] {
            let explained = Explained { codes: &codes, residuals: &residuals };
            assert!(moves(&cascade, &windows_of, explained).0.is_empty());
        }
    }

    #[test]
    fn shifted_copies_are_found() {
        let geometry = layer([1, 12, 11], LayerShape::new(5, Pair([4, 3]), 1));
        let config = ModelConfig::new(SignalShape::new(1, 12, 11), vec![LayerShape::new(5, Pair([4, 3]), 1)]);
        let mut cascade = cascade(config);
        let mut inner = vec![0.0; 12];
        inner[3..9].copy_from_slice(&[1.0, -2.0, 0.5, 0.3, 1.0, -1.0]);
        cascade.set_atoms(&[1], &inner, AtomNorm::Effective);
        let below: Vec<f32> = [&[0.0; 3], &inner[..9]].concat().iter().map(|value| -value).collect();
        cascade.set_atoms(&[3], &below, AtomNorm::Effective);
        assert_eq!(twins(&cascade, &[1.0, 2.0, 1.0, 3.0, 1.0], &geometry, &device()), [1]);
        assert_eq!(twins(&cascade, &[1.0, 3.0, 1.0, 2.0, 1.0], &geometry, &device()), [3]);
    }
}
