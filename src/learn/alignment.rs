//! Where atoms lie in their kernels, and which say the same: what a convolution leaves open.
//!
//! An atom that is found near the border of its kernel is cut off there, and what is cut off is found again by another atom; two
//! atoms that are one, moved, share a code between them. Neither is left by small steps. So, while a run is young, atoms with a
//! blank border on one side move towards it, their codes following by themselves, and of two atoms that are nearly one another's
//! shifted copy the less used starts anew. (That shifts are a symmetry of the problem which traps alternating minimisation is
//! seen, for one atom, by Y. Zhang, H. Kuo, J. Wright, "Structured Local Optima in Sparse Blind Deconvolution", IEEE Trans. Inf.
//! Theory 66(1), 2020.)

use super::cascade::Cascade;
use super::statistics::Statistics;
use crate::model::correlation::CorrelationTable;
use crate::model::geometry::LayerGeometry;
use burn::tensor::Device;

/// Part of an atom's energy up to which lines at its border are blank.
const BLANK: f32 = 0.01;

/// Part of the mean energy of its lines above which the one at the border says that an atom is cut off there.
const CUT: f32 = 0.25;

/// Cosine from which on two atoms, one of them moved, are taken for one.
const TWINS: f32 = 0.9;

/// Inner products of shifted atoms that are looked through, at most.
const MAX_COMPARED: usize = 1 << 26;

/// The move, in samples, that takes an atom towards its blank borders; a multiple of the stride, for only such moves are moves of
/// codes. Of two blank lines more on one side than on the other one goes to the other side; a single one does where the atom looks
/// cut off there.
fn towards_blank(atom: &[f32], kernel: [usize; 2], stride: [usize; 2]) -> [isize; 2] {
    let mut lines = [vec![0.0f32; kernel[0]], vec![0.0f32; kernel[1]]];
    for (index, value) in atom.iter().enumerate() {
        lines[0][index / kernel[1] % kernel[0]] += value * value;
        lines[1][index % kernel[1]] += value * value;
    }
    let whole: f32 = lines[0].iter().sum();
    std::array::from_fn(|axis| {
        let blank = |lines: &mut dyn Iterator<Item = &f32>| {
            let mut sum = 0.0;
            lines
                .take_while(|energy| {
                    sum += **energy;
                    sum <= BLANK * whole
                })
                .count() as isize
        };
        let before = blank(&mut lines[axis].iter());
        let after = blank(&mut lines[axis].iter().rev());
        let difference = after - before;
        let border = if difference > 0 { lines[axis][0] } else { lines[axis][kernel[axis] - 1] };
        let is_cut = border * kernel[axis] as f32 > CUT * whole;
        let half = (difference.abs() + isize::from(is_cut)) / 2;
        let stride = stride[axis] as isize;
        difference.signum() * (half / stride * stride)
    })
}

/// An atom moved by so many samples; what leaves the kernel is lost.
fn moved(atom: &[f32], kernel: [usize; 2], [down, across]: [isize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; atom.len()];
    for (index, &value) in atom.iter().enumerate() {
        let (row, column) = (index / kernel[1] % kernel[0], index % kernel[1]);
        let target = (row.checked_add_signed(down), column.checked_add_signed(across));
        if let (Some(y), Some(x)) = target
            && y < kernel[0]
            && x < kernel[1]
        {
            out[index - row * kernel[1] - column + y * kernel[1] + x] = value;
        }
    }
    out
}

/// Moves atoms of one layer towards their blank borders.
pub(super) fn centre(cascade: &mut Cascade, statistics: &mut Statistics, geometry: &LayerGeometry) {
    let mut all = Vec::new();
    for atom in 0..cascade.atoms().atoms() {
        let values = cascade.atoms().atom(atom);
        let by = towards_blank(values, geometry.kernel, geometry.stride);
        if by != [0, 0] {
            let values = moved(values, geometry.kernel, by);
            cascade.set_atoms(&[atom], &values, super::config::AtomNorm::Effective);
            all.push(atom);
        }
    }
    statistics.forget(&all);
}

/// Of every two atoms that are nearly one another's shifted copy, the one that codes use less.
pub(super) fn twins(cascade: &Cascade, energies: &[f32], geometry: &LayerGeometry, device: &Device) -> Vec<usize> {
    let count = cascade.atoms().atoms();
    let shifts: usize = geometry.shifts().into_iter().product();
    if count * count * shifts > MAX_COMPARED {
        return Vec::new();
    }
    let filters = cascade.atoms().to_tensor(device);
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
    use super::super::testing::{cascade, device, layer};
    use super::*;
    use crate::model::ModelConfig;
    use crate::model::geometry::{LayerShape, Pair, SignalShape};

    #[test]
    fn atoms_move_towards_blank_lines() {
        let kernel = [4, 3];
        let mut atom = vec![0.0; 24];
        // Rows 0 and 1 of both channels, column 2.
        for index in [2, 5, 14, 17] {
            atom[index] = 1.0;
        }
        assert_eq!(towards_blank(&atom, kernel, [1, 1]), [1, -1]);
        assert_eq!(towards_blank(&atom, kernel, [2, 1]), [0, -1]);
        let centred = moved(&atom, kernel, [1, -1]);
        let found: Vec<usize> = (0..24).filter(|&index| centred[index] != 0.0).collect();
        assert_eq!(found, [4, 7, 16, 19]);
        assert_eq!(towards_blank(&centred, kernel, [1, 1]), [0, 0]);
        // One blank line more: only where the atom is cut off on the other side.
        let mut three: Vec<f32> =
            moved(&atom, kernel, [0, -1]).iter().zip(&centred).map(|(above, below)| above + below).collect();
        assert_eq!(towards_blank(&three, kernel, [1, 1]), [1, 0]);
        [1, 13].into_iter().for_each(|index| three[index] = 0.4);
        assert_eq!(towards_blank(&three, kernel, [1, 1]), [0, 0]);
        assert_eq!(towards_blank(&[0.0; 24], kernel, [1, 1]), [0, 0]);
    }

    #[test]
    fn shifted_copies_are_found() {
        let geometry = layer([1, 12, 11], LayerShape::new(5, Pair([4, 3]), 1));
        let config = ModelConfig::new(SignalShape::new(1, 12, 11), vec![LayerShape::new(5, Pair([4, 3]), 1)]);
        let mut cascade = cascade(config);
        let mut inner = vec![0.0; 12];
        inner[3..9].copy_from_slice(&[1.0, -2.0, 0.5, 0.3, 1.0, -1.0]);
        cascade.set_atoms(&[1], &inner, crate::learn::config::AtomNorm::Effective);
        cascade.set_atoms(
            &[3],
            &moved(&inner, [4, 3], [1, 0]).iter().map(|value| -value).collect::<Vec<_>>(),
            crate::learn::config::AtomNorm::Effective,
        );
        assert_eq!(twins(&cascade, &[1.0, 2.0, 1.0, 3.0, 1.0], &geometry, &device()), [1]);
        assert_eq!(twins(&cascade, &[1.0, 3.0, 1.0, 2.0, 1.0], &geometry, &device()), [3]);
    }
}
