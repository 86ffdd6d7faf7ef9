//! Products with matrices of which few values are not zero: a workgroup goes along a row, or down a column, and its units add up what belongs to the values
//! that are not, in that order.

use super::{TURNS, grid, of_all, units as units_for, zeros};
use crate::kernels::few::FewOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Sums of rows of `[_, len]` weighted by the rows, or columns, of a matrix of weights `[rows, columns]`.
fn sums(weights: CubeTensor, of_rows: CubeTensor, by_column: bool) -> CubeTensor {
    let (weights, of_rows) = (into_contiguous(weights), into_contiguous(of_rows));
    let [rows, columns] = [weights.meta.shape()[0], weights.meta.shape()[1]];
    let len = of_rows.meta.shape()[1];
    let (count, each) = if by_column { (columns, rows) } else { (rows, columns) };
    let (first, step) = if by_column { (1, columns) } else { (columns, 1) };
    let out = zeros(&of_rows, [count, len]);
    let units = units_for(&of_rows.client, len);
    let at_once = (TURNS / len.div_ceil(units)).max(1);
    for from in (0..each).step_by(at_once) {
        // SAFETY: workgroups beyond the last row end at once, units beyond the last column of a row write nothing.
        unsafe {
            sums_kernel::launch_unchecked(
                &of_rows.client,
                grid(count),
                CubeDim::new_1d(units as u32),
                weights.clone().into_buffer_arg(),
                of_rows.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                count,
                from,
                each.min(from + at_once),
                first,
                step,
                len,
                units,
            );
        }
    }
    out
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn sums_kernel(
    weights: &[f32],
    rows: &[f32],
    out: &mut [f32],
    count: usize,
    start: usize,
    end: usize,
    first: usize,
    step: usize,
    len: usize,
    #[comptime] units: usize,
) {
    if CUBE_POS >= count {
        terminate!();
    }
    let from = CUBE_POS * first;
    let mut column = UNIT_POS as usize;
    while column < len {
        let mut sum = out[CUBE_POS * len + column];
        for row in start..end {
            let weight = weights[from + row * step];
            if weight != 0.0 {
                sum += weight * rows[row * len + column];
            }
        }
        out[CUBE_POS * len + column] = sum;
        column += units;
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn scores_kernel(
    values: &[f32],
    atoms: &[f32],
    codes: &[f32],
    out: &mut [f32],
    count: usize,
    columns: usize,
    start: usize,
    end: usize,
    len: usize,
    #[comptime] units: usize,
) {
    if CUBE_POS >= count {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut sums = Shared::<[f32]>::new_slice(units);
    for column in start..end {
        let place = CUBE_POS * columns + column;
        if codes[place] != 0.0 {
            let mut sum = 0.0f32;
            let mut at = unit;
            while at < len {
                sum += values[CUBE_POS * len + at] * atoms[column * len + at];
                at += units;
            }
            let sum = of_all(sum, &mut sums, units, false);
            if unit == 0 {
                out[place] = sum;
            }
        }
    }
}

impl FewOps for CubeBackend {
    fn few_synthesis(codes: CubeTensor, atoms: CubeTensor) -> CubeTensor {
        sums(codes, atoms, false)
    }

    fn few_sums(codes: CubeTensor, values: CubeTensor) -> CubeTensor {
        sums(codes, values, true)
    }

    fn few_scores(values: CubeTensor, atoms: CubeTensor, codes: CubeTensor) -> CubeTensor {
        let [values, atoms, codes] = [values, atoms, codes].map(into_contiguous);
        let [count, columns] = [codes.meta.shape()[0], codes.meta.shape()[1]];
        let len = values.meta.shape()[1];
        let out = zeros(&codes, [count, columns]);
        let units = units_for(&values.client, len);
        // A column takes its sum, and as many turns to join what units have.
        let at_once = (TURNS / (1 + len.div_ceil(units) + units.ilog2() as usize)).max(1);
        for from in (0..columns).step_by(at_once) {
            // SAFETY: workgroups beyond the last row end at once; all units of one see the same codes.
            unsafe {
                scores_kernel::launch_unchecked(
                    &values.client,
                    grid(count),
                    CubeDim::new_1d(units as u32),
                    values.clone().into_buffer_arg(),
                    atoms.clone().into_buffer_arg(),
                    codes.clone().into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    count,
                    columns,
                    from,
                    columns.min(from + at_once),
                    len,
                    units,
                );
            }
        }
        out
    }
}
