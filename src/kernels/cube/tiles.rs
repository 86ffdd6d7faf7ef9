//! Coordinate descent on codes of pictures, one workgroup a tile.
//!
//! The correlations Dᵀr of all coefficients with the residual lie in the device's memory. A workgroup takes the coefficient of its tile whose exact
//! minimisation lowers the objective most, moves it, and takes what its atom has in common with those around off their
//! correlations; and so on, some moves long or until no coefficient of the tile is far from its optimum. That is locally greedy
//! coordinate descent (T. Moreau, L. Oudre, N. Vayatis, "DICOD: Distributed Convolutional Coordinate Descent for Convolutional Sparse
//! Coding", ICML 2018). Tiles are as large as atoms reach to both sides, and those of one colour of a chessboard are worked on at a time, so
//! that no two of them change the same correlation. The table of inner products of atoms at all shifts lies in the device's
//! cache.

use super::{TURNS, find_largest, fits, given, grid, taken, units as units_for};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Moves of a tile in one launch at most.
const MOVES: usize = 64;

/// Where tiles of one colour begin, which lie two tiles apart in both directions: row and column of the first.
const COLOURS: [[usize; 2]; 4] = [[0, 0], [1, 1], [0, 1], [1, 0]];

/// Pictures under way on a GPU.
pub(crate) struct Tiles {
    /// 〈d_k, d_j moved by δ〉, `[k, j, δ vertical, δ horizontal]`.
    table: CubeTensor,
    /// ‖d_j‖², `[k]`.
    energies: CubeTensor,
    /// λ, `[n]`.
    lambdas: CubeTensor,
    /// γ, `[n, k, rows, columns]`.
    codes: CubeTensor,
    dims: [usize; 4],
    shape: Shape,
}

/// What a kernel knows of the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    atoms: usize,
    rows: usize,
    columns: usize,
    reach_down: usize,
    reach_across: usize,
    tile_rows: usize,
    tile_columns: usize,
    units: usize,
    nonnegative: bool,
}

impl Tiles {
    /// Of codes to start from. `None` on other devices than GPUs, and where a workgroup has no room.
    ///
    /// # Shapes
    /// - table: `[k, k, 2·reach + 1, 2·reach + 1]`; lambdas: `[n]`; codes: `[n, k, rows, columns]`
    pub fn new(table: Tensor<4>, lambdas: Tensor<1>, codes: Tensor<4>, nonnegative: bool) -> Option<Self> {
        let [_, atoms, down, across] = table.dims();
        let dims = codes.dims();
        let [reach_down, reach_across] = [down / 2, across / 2];
        let energies =
            table.clone().slice([0..atoms, 0..atoms, reach_down..reach_down + 1, reach_across..reach_across + 1]);
        let energies = crate::kernels::linear_algebra::diagonal(&energies.reshape([atoms, atoms]));
        let [tile_rows, tile_columns] = [2 * reach_down, 2 * reach_across].map(|side| side.max(LEAST_TILE));
        let table = taken(table)?;
        let units = units_for(&table.client, atoms * tile_rows * tile_columns);
        if !fits(&table.client, 4 * 3 * units) {
            return None;
        }
        let shape = Shape {
            atoms,
            rows: dims[2],
            columns: dims[3],
            reach_down,
            reach_across,
            tile_rows,
            tile_columns,
            units,
            nonnegative,
        };
        // Of their own, since they are changed where they are.
        let codes = burn_cubecl::kernel::into_contiguous(taken(codes)?.copy());
        Some(Self { table, energies: taken(energies)?, lambdas: taken(lambdas)?, codes, dims, shape })
    }

    /// Goes through all tiles that many times, from the codes as they are and their correlations with the residual, of the same shape. A
    /// coefficient is left alone where its best move would change its correlation by no more than `stills`, `[n]`, of its picture times λ.
    /// Returns how many moves every picture took, `[n]`.
    pub fn descend(&self, correlations: Tensor<4>, rounds: usize, stills: Tensor<1>) -> Option<Tensor<1>> {
        let stills = taken(stills)?;
        let Shape { atoms, rows, columns, reach_down, reach_across, tile_rows, tile_columns, units, .. } = self.shape;
        let correlations = burn_cubecl::kernel::into_contiguous(taken(correlations)?.copy());
        let client = correlations.client.clone();
        let tiles = [rows.div_ceil(tile_rows), columns.div_ceil(tile_columns)];
        let count = self.dims[0];
        let moves = super::zeros(&correlations, [count, tiles[0], tiles[1]]);
        let looked_at = (atoms * tile_rows * tile_columns).div_ceil(units);
        let changed = (atoms * (2 * reach_down + 1) * (2 * reach_across + 1)).div_ceil(units);
        let at_once = (TURNS / (looked_at + changed)).clamp(1, MOVES);
        for _ in 0..rounds {
            for colour in COLOURS {
                let of_colour: [usize; 2] = std::array::from_fn(|axis| (tiles[axis] + 1 - colour[axis]) / 2);
                let workgroups = count * of_colour[0] * of_colour[1];
                if workgroups == 0 {
                    continue;
                }
                // SAFETY: a workgroup changes coefficients of its tile, and correlations within reach of it, which no other of the same colour does.
                unsafe {
                    descend::launch_unchecked(
                        &client,
                        grid(workgroups),
                        CubeDim::new_1d(units as u32),
                        self.table.clone().into_buffer_arg(),
                        self.energies.clone().into_buffer_arg(),
                        self.lambdas.clone().into_buffer_arg(),
                        correlations.clone().into_buffer_arg(),
                        self.codes.clone().into_buffer_arg(),
                        stills.clone().into_buffer_arg(),
                        moves.clone().into_buffer_arg(),
                        workgroups,
                        of_colour[1],
                        of_colour[0] * of_colour[1],
                        colour[0],
                        colour[1],
                        at_once as u32,
                        self.shape,
                    );
                }
            }
        }
        let moves = given::<3>(moves).reshape([count as i32, -1]);
        Some(moves.sum_dim(1).squeeze_dim::<1>(1))
    }

    /// The codes as they are.
    pub fn codes(&self) -> Tensor<4> {
        // Whoever has them does not see what later moves make of them.
        given(self.codes.copy())
    }
}

/// Rows and columns of a tile at least, where atoms hardly overlap.
const LEAST_TILE: usize = 4;

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn descend(
    table: &[f32],
    energies: &[f32],
    lambdas: &[f32],
    correlations: &mut [f32],
    codes: &mut [f32],
    stills: &[f32],
    moves: &mut [f32],
    workgroups: usize,
    across: usize,
    of_picture: usize,
    colour_down: usize,
    colour_across: usize,
    most: u32,
    #[comptime] of: Shape,
) {
    if CUBE_POS >= workgroups {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let units = of.units;
    let picture = CUBE_POS / of_picture;
    let tile = CUBE_POS % of_picture;
    let tile_down = 2 * (tile / across) + colour_down;
    let tile_across = 2 * (tile % across) + colour_across;
    let top = tile_down * of.tile_rows;
    let left = tile_across * of.tile_columns;
    let height = min(of.tile_rows, of.rows - top);
    let width = min(of.tile_columns, of.columns - left);
    let plane = comptime!(of.rows * of.columns);
    let first = picture * comptime!(of.atoms * of.rows * of.columns);
    let lambda = lambdas[picture];
    let still = stills[picture];
    let shifts_across = comptime!(2 * of.reach_across + 1);
    let shifts = comptime!((2 * of.reach_down + 1) * (2 * of.reach_across + 1));
    let mut scores = Shared::<[f32]>::new_slice(units);
    let mut places = Shared::<[u32]>::new_slice(units);
    let mut changes = Shared::<[f32]>::new_slice(units);
    let area = height * width;
    let all = area * of.atoms;

    let mut moved = 0u32;
    let mut open = true;
    while open {
        let mut score = 0.0f32;
        let mut place = 0u32;
        let mut next = 0.0f32;
        let mut at = unit;
        while at < all {
            let atom = at / area;
            let within = at % area;
            let spot = first + atom * plane + (top + within / width) * of.columns + left + within % width;
            let (value, energy) = (codes[spot], energies[atom]);
            // What an atom of zeros has only costs.
            let mut difference = -value;
            let mut gain = lambda * value.abs();
            if energy > 0.0 {
                let wanted = correlations[spot] + energy * value;
                let mut target = max(wanted - lambda, 0.0);
                if comptime!(!of.nonnegative) {
                    target -= max(0.0 - wanted - lambda, 0.0);
                }
                difference = target / energy - value;
                gain = energy * difference * difference;
                if energy * difference.abs() <= still * lambda {
                    gain = 0.0;
                }
            }
            if gain > score {
                score = gain;
                place = at as u32;
                next = difference;
            }
            at += units;
        }
        find_largest(score, place, next, &mut scores, &mut places, &mut changes, units);
        let best = scores[0];
        let picked = places[0] as usize;
        let change = changes[0];
        sync_cube();
        open = best > 0.0 && moved < most;
        if open {
            let atom = picked / area;
            let within = picked % area;
            let row = top + within / width;
            let column = left + within % width;
            let of_atom = atom * comptime!(of.atoms * shifts);
            let mut at = unit;
            while at < comptime!(of.atoms * shifts) {
                let other = at / shifts;
                let shift = at % shifts;
                // Counted from as far above and before as atoms reach.
                let there_down = row + shift / shifts_across;
                let there_across = column + shift % shifts_across;
                if there_down >= of.reach_down
                    && there_down < comptime!(of.reach_down + of.rows)
                    && there_across >= of.reach_across
                    && there_across < comptime!(of.reach_across + of.columns)
                {
                    let line = first + other * plane + (there_down - of.reach_down) * of.columns;
                    correlations[line + there_across - of.reach_across] -= change * table[of_atom + at];
                }
                at += units;
            }
            if unit == 0 {
                codes[first + atom * plane + row * of.columns + column] += change;
            }
            moved += 1;
            // All units see what all have written.
            sync_storage();
        }
    }
    if unit == 0 {
        let tiles_across = comptime!(of.columns.div_ceil(of.tile_columns));
        let tiles = comptime!(of.rows.div_ceil(of.tile_rows) * tiles_across);
        moves[picture * tiles + tile_down * tiles_across + tile_across] += f32::cast_from(moved);
    }
}
