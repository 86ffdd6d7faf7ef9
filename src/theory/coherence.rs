//! Coherences of convolutional dictionaries: mutual, shift by shift, along a stripe, and the least that there can be.

use super::cascade::Cascade;
use super::columns::{AtShift, ColumnPair, Columns, MAX_COPIES};
use crate::error::Result;
use crate::geometry::{LayerGeometry, SignalShape, reach};
use crate::kernels::sparse::to_host;
use crate::model::Mlcsc;
use crate::model::stripe::nonzeros_by_position;
use burn::tensor::Tensor;

/// Mutual coherence μ(D): the largest |〈d_i, d_j〉|/(‖d_i‖‖d_j‖) over distinct columns, all shifts included, rounded up.
///
/// Columns are the filters at every code position, so two of them differ by a relative shift that is a multiple of the stride
/// and fits between two code positions. Atoms that padding crops at the border are counted whole; [`Coherence`] knows better. A
/// dictionary with a single column, or one whose atoms never overlap another, has coherence 0; atoms that are all zero count as
/// orthogonal to everything (D. Donoho, M. Elad, "Optimally sparse representation in general dictionaries via ℓ1
/// minimization", PNAS 100(5), 2003). Filters that are not finite have coherence 1.
///
/// # Shapes
/// - filters: `[atoms, channels, kernel height, kernel width]` as `geometry.filter_dims()`.
pub fn mutual_coherence(filters: Tensor<4>, geometry: &LayerGeometry) -> f32 {
    let exact = Coherence::of_whole_atoms(filters, geometry).mutual();
    let rounded = exact as f32;
    if f64::from(rounded) < exact { rounded.next_up() } else { rounded }
}

/// The coherence at every relative shift: μ_δ = max |〈d_i, d_j〉|/(‖d_i‖‖d_j‖) over columns δ code positions apart, which for δ = 0
/// are distinct.
///
/// V. Papyan, J. Sulam, M. Elad, "Working Locally Thinking Globally", IEEE Trans. Signal Processing 65(21), 2017, there for one
/// dimension ("shifted mutual coherence"). The filters' `f32` values are taken as exact; what is computed of them in `f64` is
/// raised by a bound of its rounding error, some 10⁻¹⁴, so that no value is below the exact one: two columns that are equal have 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Coherence {
    reach: [usize; 2],
    /// `[vertical shift + reach, horizontal shift + reach]`.
    values: Vec<f64>,
    attained: Option<ColumnPair>,
    copies: Vec<ColumnPair>,
    copies_count: usize,
}

impl Coherence {
    /// Of filters whose atoms are counted whole.
    ///
    /// # Shapes
    /// - filters: `[atoms, channels, kernel height, kernel width]` as `geometry.filter_dims()`.
    pub fn of_whole_atoms(filters: Tensor<4>, geometry: &LayerGeometry) -> Self {
        Self::of(&Columns::whole(&to_host(filters), geometry))
    }

    /// Of the columns of D_1 … D_L of a model, on signals of one shape, as they are: those that padding crops, in the first layer
    /// or inside the cascade, are counted as cropped.
    ///
    /// # Errors
    /// Signals that the model cannot take; filters that are not finite, or whose products over the layers leave the range of `f64`;
    /// padding with so many and so large atoms that their columns exceed 2²⁷ values or their inner products 2³⁸ multiplications.
    pub fn of_columns(model: &Mlcsc, signal: SignalShape) -> Result<Self> {
        let cascade = Cascade::new(model, model.config().geometry_on(signal)?)?;
        Ok(Self::of(&Columns::new(&cascade)?))
    }

    pub(super) fn of(columns: &Columns) -> Self {
        let reach = columns.reach();
        let values = vec![0.0; (2 * reach[0] + 1) * (2 * reach[1] + 1)];
        let mut this = Self { reach, values, attained: None, copies: Vec::new(), copies_count: 0 };
        let mut largest = 0.0;
        for AtShift { shift, coherence, pair, copies: (copies, count) } in columns.coherences() {
            this.raise(shift, coherence);
            if coherence > largest {
                (largest, this.attained) = (coherence, pair);
            }
            let room = MAX_COPIES - this.copies.len();
            this.copies.extend(copies.into_iter().take(room));
            this.copies_count += count;
        }
        this
    }

    /// The two columns whose coherence [`Self::mutual`] is, or the first of several such pairs; `None` if no two share an entry.
    pub fn attained(&self) -> Option<ColumnPair> {
        self.attained
    }

    /// Pairs of columns that are copies of each other, up to a factor and as far as `f64` can tell: their coherence is 1. The first
    /// hundred of them.
    pub fn copies(&self) -> &[ColumnPair] {
        &self.copies
    }

    /// How many pairs of copies there are; where nothing is cropped, counted once for every shift.
    pub fn copies_count(&self) -> usize {
        self.copies_count
    }

    /// Takes a coherence into account at a shift and at its opposite.
    fn raise(&mut self, shift: [isize; 2], coherence: f64) {
        for sign in [1, -1] {
            let place = self.place(shift.map(|shift| sign * shift));
            self.values[place] = self.values[place].max(coherence);
        }
    }

    fn place(&self, shift: [isize; 2]) -> usize {
        let [row, column] = [0, 1].map(|axis| (shift[axis] + self.reach[axis] as isize) as usize);
        row * (2 * self.reach[1] + 1) + column
    }

    /// Largest shift between two columns that overlap, in code positions per axis.
    pub fn reach(&self) -> [usize; 2] {
        self.reach
    }

    /// μ_δ; 0 beyond [`Self::reach`].
    pub fn at(&self, shift: [isize; 2]) -> f64 {
        let within = (0..2).all(|axis| shift[axis].unsigned_abs() <= self.reach[axis]);
        if within { self.values[self.place(shift)] } else { 0.0 }
    }

    /// μ = max_δ μ_δ.
    pub fn mutual(&self) -> f64 {
        self.values.iter().fold(0.0, |largest, &value| largest.max(value))
    }

    /// The stripe coherence of a code, ζ = max_p Σ_δ n_{p+δ} μ_δ, with n_q the code's non-zeros at position q.
    ///
    /// It weighs every non-zero by how strongly its shift can interfere, where [`Self::mutual`] weighs all alike:
    /// ζ ≤ μ‖γ‖ˢ_{0,∞}. Without noise, OMP and basis pursuit find the code if ζ < ½(1 + μ_0): for an atom of the support the
    /// others sum up to at most ζ − μ_0, for one outside to ζ.
    ///
    /// # Panics
    /// If the number of values is not that of `shape`.
    pub fn of_stripe(&self, code: &[f32], shape: SignalShape) -> f64 {
        let counts = nonzeros_by_position(code, shape);
        let filled: Vec<(isize, isize, f64)> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(place, &count)| ((place / shape.width) as isize, (place % shape.width) as isize, f64::from(count)))
            .collect();
        let mut largest = 0.0f64;
        for row in 0..shape.height as isize {
            for column in 0..shape.width as isize {
                let sum = filled.iter().map(|(y, x, count)| count * self.at([y - row, x - column])).sum();
                largest = largest.max(sum);
            }
        }
        largest
    }
}

/// The least mutual coherence that unit columns of this geometry can have.
///
/// Any N unit vectors in d dimensions have Σ|〈d_i, d_j〉|² ≥ N²/d (L. Welch, "Lower bounds on the maximum cross correlation of
/// signals", IEEE Trans. Information Theory 20(3), 1974). Of the columns at P code positions only those overlap that are at most
/// r positions apart, so that with S ordered pairs of such positions
///
/// ```text
/// μ² ≥ (N²/d − N) / (m²S − N)        N = mP columns in the d samples that they cover
/// ```
///
/// The largest of these over square blocks of positions is taken, and, where all shifts up to r occur, the limit of large ones,
/// (m/e − 1)/(m(2r+1)² − 1) with e = c·min(s, k)² samples a position: Welch's own bound √((m−1)/(m(2k−1)−1)) for one channel in
/// one dimension at stride 1. For effective dictionaries pass [`crate::geometry::Geometry::windows`].
pub fn welch_bound(geometry: &LayerGeometry) -> f64 {
    let LayerGeometry { signal, code, kernel, stride, padding, .. } = geometry;
    let positions = [code.height, code.width];
    let extents = [signal.height, signal.width];
    let overlap = reach(*kernel, *stride);
    let atoms = code.channels as f64;
    let squared = |columns: f64, dimensions: f64, pairs: f64| {
        if columns > dimensions && pairs > 0.0 { (columns * columns / dimensions - columns) / pairs } else { 0.0 }
    };
    let mut largest = 0.0f64;
    for side in 1..=positions[0].max(positions[1]) {
        let (mut columns, mut dimensions, mut pairs) = (atoms, signal.channels as f64, atoms * atoms);
        for axis in 0..2 {
            let count = side.min(positions[axis]);
            let covered = (count - 1) * stride[axis].min(kernel[axis]) + kernel[axis];
            columns *= count as f64;
            dimensions *= covered.min(extents[axis]) as f64;
            let reach = overlap[axis].min(count - 1);
            pairs *= (count * (2 * reach + 1) - reach * (reach + 1)) as f64;
        }
        largest = largest.max(squared(columns, dimensions, pairs - columns));
    }
    let all_shifts = (0..2).all(|axis| positions[axis] > overlap[axis] + 2 * padding[axis].div_ceil(stride[axis]));
    if all_shifts {
        let (mut shifts, mut dimensions) = (atoms, signal.channels as f64);
        for axis in 0..2 {
            shifts *= (2 * overlap[axis] + 1) as f64;
            dimensions *= stride[axis].min(kernel[axis]) as f64;
        }
        largest = largest.max(squared(atoms, dimensions, atoms * (shifts - 1.0)));
    }
    largest.sqrt()
}
