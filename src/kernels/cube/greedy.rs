//! Whole orthogonal matching pursuits, one workgroup a signal.
//!
//! With M the inverse of the Cholesky factor of the support's Gram matrix, β = M Dᵀ_S y are the coefficients in an orthonormal basis of the
//! span, and Mᵀβ those of the atoms. An atom that joins gives M one more row,
//!
//! ```text
//! w = M g,   ρ² = G_ii − ‖w‖²,   M ← [M, 0; −wᵀM/ρ, 1/ρ],   β ← [β; (b_i − wᵀβ)/ρ],
//! ```
//!
//! with g its inner products with the support and b = Dᵀy, so that nothing is solved one value after the other. The correlations of all
//! atoms are then b less as many rows of the Gram matrix as there are atoms in the support: computed afresh every time, they keep the accuracy
//! that they begin with.
//!
//! Where codes are to be non-negative the atom of largest positive correlation joins. As long as least squares on the support are positive they are the
//! non-negative ones; a signal where they are not is given up, with no code, for whoever can take atoms out of a support. So is one whose best
//! atom is nearly in the span of its support.

use super::{find_largest, fits, given, grid, load, of_all, store, taken, units as units_for, vector_size, zeros};
use burn::tensor::Tensor;
use cubecl::prelude::*;

/// An atom of which less than this part of its energy is outside the span of the support may depend on it: single precision cannot
/// tell.
const CLOSE: f32 = 1e-2;

/// A score of less than this part of the first one is rounding.
const NEGLIGIBLE: f32 = 1e-6;

/// Non-zeros up to which a support's factor has room in a workgroup's memory.
pub(crate) const MOST_NONZEROS: usize = 64;

/// Codes `[n, k]` of so many non-zeros at most, of which there are fewer where a signal is used up, and their number `[n]`. `None` on other devices
/// than GPUs, and where a workgroup has not got the memory for the support's factor.
///
/// # Shapes
/// - gram: DᵀD, `[k, k]`; correlations: Dᵀy, `[n, k]`
pub(crate) fn greedy(
    gram: Tensor<2>,
    correlations: Tensor<2>,
    nonzeros: usize,
    nonnegative: bool,
) -> Option<(Tensor<2>, Tensor<1>)> {
    grow([gram, correlations], nonzeros, nonnegative, true)
}

/// The same without a workgroup's own memory for what is as long as a code.
#[cfg(test)]
pub(crate) fn greedy_far(
    gram: Tensor<2>,
    correlations: Tensor<2>,
    nonzeros: usize,
    nonnegative: bool,
) -> Option<(Tensor<2>, Tensor<1>)> {
    grow([gram, correlations], nonzeros, nonnegative, false)
}

fn grow(
    [gram, correlations]: [Tensor<2>; 2],
    nonzeros: usize,
    nonnegative: bool,
    near: bool,
) -> Option<(Tensor<2>, Tensor<1>)> {
    let [count, columns] = correlations.dims();
    let diagonal = crate::kernels::linear_algebra::diagonal(&gram);
    let inverse = diagonal.clone().mask_fill(diagonal.lower_equal_elem(0.0), f32::INFINITY).sqrt().recip();
    let [gram, correlations, inverse] = [taken(gram)?, taken(correlations)?, taken(inverse.unsqueeze::<2>())?];
    let client = gram.client.clone();
    let width = vector_size(columns);
    let vectors = columns / width;
    let units = units_for(&client, vectors);
    let triangle = nonzeros * (nonzeros + 1) / 2;
    let of_support = triangle + 5 * nonzeros + 3 * units;
    if nonzeros > MOST_NONZEROS || !fits(&client, 4 * of_support) {
        return None;
    }
    let is_near = near && fits(&client, 4 * (of_support + columns));
    // Zeros, should a driver end a kernel's loops early.
    let (found, counts) = (zeros(&correlations, [count, columns]), zeros(&correlations, [count]));
    // SAFETY: every unit reads and writes rows of its own signal, which the buffers have; workgroups beyond the last signal end at once.
    unsafe {
        pursue::launch_unchecked(
            &client,
            grid(count),
            CubeDim::new_1d(units as u32),
            width,
            gram.into_buffer_arg(),
            inverse.into_buffer_arg(),
            correlations.into_buffer_arg(),
            found.clone().into_buffer_arg(),
            counts.clone().into_buffer_arg(),
            count,
            vectors,
            units,
            nonzeros,
            nonnegative,
            is_near,
        );
    }
    Some((given(found), given(counts)))
}

/// A value of Mᵀv, the rows of M lying one after the other.
#[cube]
fn transposed(factor: &Shared<[f32]>, vector: &Shared<[f32]>, member: usize, size: usize) -> f32 {
    let mut sum = 0.0f32;
    let mut other = member;
    while other < size {
        sum += vector[other] * factor[other * (other + 1) / 2 + member];
        other += 1;
    }
    sum
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn pursue<N: Size>(
    gram: &[Vector<f32, N>],
    inverse: &[Vector<f32, N>],
    correlations: &[Vector<f32, N>],
    found: &mut [Vector<f32, N>],
    counts: &mut [f32],
    count: usize,
    #[comptime] vectors: usize,
    #[comptime] units: usize,
    #[comptime] nonzeros: usize,
    #[comptime] nonnegative: bool,
    #[comptime] is_near: bool,
) {
    let signal = CUBE_POS;
    if signal >= count {
        terminate!();
    }
    let width = found.vector_size().comptime();
    let unit = UNIT_POS as usize;
    let first = signal * vectors;
    // 1/‖atom‖, and 0 for atoms that are not to be picked any more; without room for it, where codes will be.
    let room = comptime!(if is_near { vectors } else { 1 });
    let mut free = Shared::<[Vector<f32, N>]>::new_slice(room);
    // M, row after row.
    let mut factor = Shared::<[f32]>::new_slice(nonzeros * (nonzeros + 1) / 2);
    let mut support = Shared::<[u32]>::new_slice(nonzeros);
    let mut within = Shared::<[f32]>::new_slice(nonzeros);
    let mut inner = Shared::<[f32]>::new_slice(nonzeros);
    let mut basis = Shared::<[f32]>::new_slice(nonzeros);
    let mut values = Shared::<[f32]>::new_slice(nonzeros);
    let mut scores = Shared::<[f32]>::new_slice(units);
    let mut places = Shared::<[u32]>::new_slice(units);
    let mut others = Shared::<[f32]>::new_slice(units);

    let mut at = unit;
    while at < vectors {
        store::<N>(&mut free, found, inverse[at], at, first, is_near);
        at += units;
    }
    let mut size = 0usize;
    let mut first_score = 0.0f32;
    let mut open = true;
    // Every round takes an atom in, or is the last.
    while open {
        let mut score = 0.0f32;
        let mut place = 0u32;
        let mut correlation = 0.0f32;
        let mut at = unit;
        while at < vectors {
            let mut left = correlations[first + at];
            let mut member = 0usize;
            while member < size {
                left -= Vector::new(values[member]) * gram[support[member] as usize * vectors + at];
                member += 1;
            }
            let rates = load::<N>(&free, &*found, at, first, is_near);
            #[unroll]
            for lane in 0..width {
                let mut rated = left.extract(lane) * rates.extract(lane);
                if comptime!(!nonnegative) {
                    rated = rated.abs();
                }
                if rated > score {
                    score = rated;
                    place = (at * width + lane) as u32;
                    // What the signal itself has of it: the basis needs that.
                    correlation = correlations[first + at].extract(lane);
                }
            }
            at += units;
        }
        find_largest(score, place, correlation, &mut scores, &mut places, &mut others, units);
        let best = scores[0];
        let picked = places[0] as usize;
        let correlation = others[0];
        sync_cube();
        if size == 0 {
            first_score = max(first_score, best);
        }
        open = best > NEGLIGIBLE * first_score && best > 0.0;
        if open {
            // g, and w = M g.
            let mut member = unit;
            while member < size {
                let column = support[member] as usize;
                let row = gram[picked * vectors + column / width];
                let mut value = 0.0f32;
                #[unroll]
                for lane in 0..width {
                    if lane == column % width {
                        value = row.extract(lane);
                    }
                }
                inner[member] = value;
                member += units;
            }
            sync_cube();
            let mut energy = 0.0f32;
            let mut projected = 0.0f32;
            let mut member = unit;
            while member < size {
                let row = member * (member + 1) / 2;
                let mut sum = 0.0f32;
                let mut other = 0usize;
                while other <= member {
                    sum += factor[row + other] * inner[other];
                    other += 1;
                }
                within[member] = sum;
                energy += sum * sum;
                projected += sum * basis[member];
                member += units;
            }
            let energy = of_all(energy, &mut scores, units, false);
            let projected = of_all(projected, &mut scores, units, false);
            let (row, lane) = (picked / width, picked % width);
            let mut own = 0.0f32;
            let diagonal = gram[picked * vectors + row];
            #[unroll]
            for place in 0..width {
                if place == lane {
                    own = diagonal.extract(place);
                }
            }
            // The unit that looks at it marks it.
            if row % units == unit {
                let mut bound = load::<N>(&free, &*found, row, first, is_near);
                #[unroll]
                for place in 0..width {
                    if place == lane {
                        bound.insert(place, 0.0);
                    }
                }
                store::<N>(&mut free, found, bound, row, first, is_near);
            }
            let beyond = own - energy;
            let close = beyond <= CLOSE * own;
            if !close {
                let length = beyond.sqrt();
                let begin = size * (size + 1) / 2;
                let mut member = unit;
                while member < size {
                    factor[begin + member] = -transposed(&factor, &within, member, size) / length;
                    member += units;
                }
                if unit == 0 {
                    factor[begin + size] = 1.0 / length;
                    basis[size] = (correlation - projected) / length;
                    support[size] = picked as u32;
                }
                size += 1;
            }
            sync_cube();
            // Mᵀβ.
            let mut member = unit;
            while member < size {
                values[member] = transposed(&factor, &basis, member, size);
                member += units;
            }
            sync_cube();
            open = size < nonzeros && !close;
            if close {
                size = 0;
            }
            if comptime!(nonnegative) {
                let mut least = 0.0f32;
                let mut member = unit;
                while member < size {
                    if values[member] <= 0.0 {
                        least = 1.0;
                    }
                    member += units;
                }
                if of_all(least, &mut scores, units, true) > 0.0 {
                    size = 0;
                    open = false;
                }
            }
        }
    }

    let zero = Vector::<f32, N>::new(0.0);
    let mut at = unit;
    while at < vectors {
        found[first + at] = zero;
        at += units;
    }
    // A unit writes the coefficients of the vectors that are its own.
    let mut member = 0usize;
    while member < size {
        let column = support[member] as usize;
        let row = column / width;
        if row % units == unit {
            let mut vector = found[first + row];
            #[unroll]
            for lane in 0..width {
                if lane == column % width {
                    vector.insert(lane, values[member]);
                }
            }
            found[first + row] = vector;
        }
        member += 1;
    }
    if unit == 0 {
        counts[signal] = f32::cast_from(size);
    }
    // No unit may still read what a workgroup that comes next is given.
    sync_cube();
}
