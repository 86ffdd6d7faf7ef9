//! Whole lassos, one workgroup a signal.
//!
//! Coordinate descent over the Gram matrix: the coefficient whose exact minimisation lowers the objective most moves (½ G_jj δ²), and the
//! correlations of all atoms with the residual lose δ times a row of the matrix. Correlations and codes lie in the workgroup's memory, as long as
//! they fit; the matrix, which all signals share, in the device's cache: a move costs one row of it and one pass over the atoms. The duality gap, as
//! [`crate::pursuit::duality`] has it, needs correlations and code alone,
//!
//! ```text
//! ‖r‖² = ‖y‖² − 〈γ, Dᵀy〉 − 〈γ, Dᵀr〉,
//! ```
//!
//! and is looked at every [`MOVES`] moves. What moves leave of rounding in the correlations is some 1e-6 of them, so whoever asks for less
//! computes them afresh and starts from there.

use super::{find_largest, fits, given, grid, load, of_all, store, taken, units as units_for, vector_size, zeros};
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use cubecl::prelude::*;

/// Moves between two looks at the duality gap.
const MOVES: u32 = 16;

/// Lassos min ½‖y − Dγ‖² + λ‖γ‖₁ of a batch of signals.
pub(crate) struct Lasso {
    /// DᵀD, `[k, k]`.
    pub gram: Tensor<2>,
    /// Dᵀy, `[n, k]`.
    pub correlations: Tensor<2>,
    /// ‖y‖², `[n]`.
    pub energies: Tensor<1>,
    /// λ, `[n]`.
    pub lambdas: Tensor<1>,
    /// γ to start from and Dᵀ(y − Dγ), both `[n, k]`, where it is not zero.
    pub start: Option<[Tensor<2>; 2]>,
    /// Whether γ ≥ 0.
    pub nonnegative: bool,
    /// The relative duality gap at which a signal is finished.
    pub gap: f32,
    /// Moves of a signal at most.
    pub moves: usize,
}

/// Codes `[n, k]`, and for each signal its relative duality gap and its moves `[n, 2]`. `None` on other devices than GPUs.
pub(crate) fn lasso(problem: Lasso) -> Option<(Tensor<2>, Tensor<2>)> {
    solve(problem, true)
}

/// The same without use of a workgroup's own memory.
#[cfg(test)]
pub(crate) fn lasso_far(problem: Lasso) -> Option<(Tensor<2>, Tensor<2>)> {
    solve(problem, false)
}

fn solve(problem: Lasso, near: bool) -> Option<(Tensor<2>, Tensor<2>)> {
    let Lasso { gram, correlations, energies, lambdas, start, nonnegative, gap, moves } = problem;
    let [count, columns] = correlations.dims();
    let diagonal = crate::kernels::linear_algebra::diagonal(&gram);
    let [codes, left] = start.unwrap_or_else(|| [correlations.zeros_like(), correlations.clone()]);
    let [gram, correlations, codes, left] = [taken(gram)?, taken(correlations)?, taken(codes)?, taken(left)?];
    let [diagonal, energies, lambdas] = [taken(diagonal)?, taken(energies)?, taken(lambdas)?];
    let client = gram.client.clone();
    let width = vector_size(columns);
    let vectors = columns / width;
    let units = units_for(&client, vectors);
    let is_near = near && fits(&client, 4 * (2 * columns + 3 * units));
    // Without room in a workgroup's memory correlations are kept where the given ones are, which nobody else may then see.
    let left = if is_near { left } else { into_contiguous(left.copy()) };
    // Zeros, should a driver end a kernel's loops early.
    let found = zeros(&correlations, [count, columns]);
    let outcomes = zeros(&correlations, [count, 2]);
    // SAFETY: every unit reads and writes rows of its own signal, which the buffers have; workgroups beyond the last signal end at once.
    unsafe {
        descend::launch_unchecked(
            &client,
            grid(count),
            CubeDim::new_1d(units as u32),
            width,
            gram.into_buffer_arg(),
            diagonal.into_buffer_arg(),
            correlations.into_buffer_arg(),
            energies.into_buffer_arg(),
            lambdas.into_buffer_arg(),
            codes.into_buffer_arg(),
            left.into_buffer_arg(),
            found.clone().into_buffer_arg(),
            outcomes.clone().into_buffer_arg(),
            count,
            gap,
            moves as u32,
            vectors,
            units,
            nonnegative,
            is_near,
        );
    }
    Some((given(found), given(outcomes)))
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn descend<N: Size>(
    gram: &[Vector<f32, N>],
    diagonal: &[Vector<f32, N>],
    correlations: &[Vector<f32, N>],
    energies: &[f32],
    lambdas: &[f32],
    codes: &[Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    found: &mut [Vector<f32, N>],
    outcomes: &mut [f32],
    count: usize,
    gap: f32,
    moves: u32,
    #[comptime] vectors: usize,
    #[comptime] units: usize,
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
    let room = comptime!(if is_near { vectors } else { 1 });
    let mut residual = Shared::<[Vector<f32, N>]>::new_slice(room);
    let mut code = Shared::<[Vector<f32, N>]>::new_slice(room);
    let mut scores = Shared::<[f32]>::new_slice(units);
    let mut places = Shared::<[u32]>::new_slice(units);
    let mut changes = Shared::<[f32]>::new_slice(units);
    let zero = Vector::<f32, N>::new(0.0);
    let lambda = lambdas[signal];
    let threshold = Vector::<f32, N>::new(lambda);
    let energy = energies[signal];

    let mut at = unit;
    while at < vectors {
        let (now, value) = (left[first + at], codes[first + at]);
        store::<N>(&mut residual, left, now, at, first, is_near);
        store::<N>(&mut code, found, value, at, first, is_near);
        at += units;
    }

    let mut moved = 0u32;
    let mut until_look = 0u32;
    let mut picked = 0u32;
    let mut change = 0.0f32;
    let mut relative = 0.0f32;
    let mut open = true;
    while open {
        // The last move is taken off the correlations, and the next one is looked for, in one pass.
        let row = picked as usize / width;
        let lane = picked as usize % width;
        if row % units == unit {
            let mut value = load::<N>(&code, &*found, row, first, is_near);
            #[unroll]
            for place in 0..width {
                if place == lane {
                    value.insert(place, value.extract(place) + change);
                }
            }
            store::<N>(&mut code, found, value, row, first, is_near);
        }
        let row = picked as usize * vectors;
        let step = Vector::<f32, N>::new(change);
        let mut score = 0.0f32;
        let mut place = 0u32;
        let mut next = 0.0f32;
        let mut at = unit;
        while at < vectors {
            let now = load::<N>(&residual, &*left, at, first, is_near) - step * gram[row + at];
            store::<N>(&mut residual, left, now, at, first, is_near);
            let (value, energy) = (load::<N>(&code, &*found, at, first, is_near), diagonal[at]);
            let wanted = now + energy * value;
            let mut target = max(wanted - threshold, zero);
            if comptime!(!nonnegative) {
                target -= max(zero - wanted - threshold, zero);
            }
            #[unroll]
            for lane in 0..width {
                let energy = energy.extract(lane);
                // What an atom of zeros has only costs.
                let mut difference = -value.extract(lane);
                let mut gain = lambda * value.extract(lane).abs();
                if energy > 0.0 {
                    difference = target.extract(lane) / energy - value.extract(lane);
                    gain = energy * difference * difference;
                }
                if gain > score {
                    score = gain;
                    place = (at * width + lane) as u32;
                    next = difference;
                }
            }
            at += units;
        }
        find_largest(score, place, next, &mut scores, &mut places, &mut changes, units);
        let best = scores[0];
        picked = places[0];
        change = changes[0];
        sync_cube();

        if until_look == 0 || best <= 0.0 || moved >= moves {
            until_look = MOVES;
            // What the duality gap is made of.
            let mut one_norm = 0.0f32;
            let mut with_residual = 0.0f32;
            let mut with_signal = 0.0f32;
            let mut largest = 0.0f32;
            let mut at = unit;
            while at < vectors {
                let value = load::<N>(&code, &*found, at, first, is_near);
                let now = load::<N>(&residual, &*left, at, first, is_near);
                let then = correlations[first + at];
                #[unroll]
                for lane in 0..width {
                    let (value, now) = (value.extract(lane), now.extract(lane));
                    one_norm += value.abs();
                    with_residual += value * now;
                    with_signal += value * then.extract(lane);
                    largest = if comptime!(nonnegative) { max(largest, now) } else { max(largest, now.abs()) };
                }
                at += units;
            }
            let one_norm = of_all(one_norm, &mut scores, units, false);
            let with_residual = of_all(with_residual, &mut scores, units, false);
            let with_signal = of_all(with_signal, &mut scores, units, false);
            let largest = of_all(largest, &mut scores, units, true);
            let data = max(energy - with_signal - with_residual, 0.0);
            let mut scale = 1.0f32;
            if largest > lambda {
                scale = lambda / largest;
            }
            let off = 1.0 - scale;
            let between = 0.5 * off * off * data + max(lambda * one_norm - scale * with_residual, 0.0);
            let objective = 0.5 * data + lambda * one_norm;
            relative = 0.0;
            if between > 0.0 {
                relative = between / max(objective, 1e-37);
            }
            open = relative > gap && best > 0.0 && moved < moves;
        }
        until_look -= 1;
        moved += 1;
    }

    let mut at = unit;
    while at < vectors {
        found[first + at] = load::<N>(&code, &*found, at, first, is_near);
        at += units;
    }
    if unit == 0 {
        outcomes[2 * signal] = relative;
        outcomes[2 * signal + 1] = f32::cast_from(moved - 1);
    }
    // No unit may still read what a workgroup that comes next is given.
    sync_cube();
}
