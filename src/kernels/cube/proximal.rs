//! The proximal step, momentum, and where gradients go through: one pass and one launch each.

use super::{given, grid, of_all, room, taken, units, vector_size};
use crate::kernels::proximal::ProximalOps;
use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

impl ProximalOps for CubeBackend {
    fn proximal_step(
        point: CubeTensor,
        explained: CubeTensor,
        correlations: CubeTensor,
        thresholds: CubeTensor,
        step: f32,
        nonnegative: bool,
    ) -> CubeTensor {
        let pass = Pass::new(point);
        let codes = pass.room();
        let each = thresholds.meta.shape() == pass.first.meta.shape() && pass.columns > 1;
        let [explained, correlations, thresholds] = [explained, correlations, thresholds].map(into_contiguous);
        // SAFETY: all operands have the shape of the first, or, thresholds, one value a row.
        unsafe {
            step_kernel::launch_unchecked(
                &pass.first.client,
                pass.count(),
                pass.dim(),
                pass.width,
                pass.first.clone().into_buffer_arg(),
                explained.into_buffer_arg(),
                correlations.into_buffer_arg(),
                thresholds.into_buffer_arg(),
                codes.clone().into_buffer_arg(),
                pass.columns,
                step,
                each,
                nonnegative,
            );
        }
        codes
    }

    fn on_support(gradient: CubeTensor, codes: CubeTensor) -> CubeTensor {
        let pass = Pass::new(gradient);
        let out = pass.room();
        let codes = into_contiguous(codes);
        // SAFETY: both operands have the same shape.
        unsafe {
            support_kernel::launch_unchecked(
                &pass.first.client,
                pass.count(),
                pass.dim(),
                pass.width,
                pass.first.clone().into_buffer_arg(),
                codes.into_buffer_arg(),
                out.clone().into_buffer_arg(),
            );
        }
        out
    }

    fn extrapolation(codes: CubeTensor, before: CubeTensor, factors: CubeTensor) -> CubeTensor {
        let pass = Pass::new(codes);
        let out = pass.room();
        let [before, factors] = [before, factors].map(into_contiguous);
        // SAFETY: both operands have the same shape, and there is a factor for each row.
        unsafe {
            momentum_kernel::launch_unchecked(
                &pass.first.client,
                pass.count(),
                pass.dim(),
                pass.width,
                pass.first.clone().into_buffer_arg(),
                before.into_buffer_arg(),
                factors.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                pass.columns,
            );
        }
        out
    }
}

/// One step of FISTA: the codes, the point that the next gradient is taken at, and the next t. With `restart` the momentum of a signal ends
/// where it points uphill. `None` on other devices than GPUs, and where gradients are followed.
///
/// # Shapes
/// - point z, explained, correlations, before: `[n, k]`; thresholds: `[n, 1]` or `[n, k]`; momentum t: `[n, 1]`
pub(crate) fn accelerated_step(
    [point, explained, correlations, before]: [Tensor<2>; 4],
    [thresholds, momentum]: [Tensor<2>; 2],
    step: f32,
    nonnegative: bool,
    restart: bool,
) -> Option<[Tensor<2>; 3]> {
    let pass = Pass::new(taken(point)?);
    let [explained, correlations, before] = [taken(explained)?, taken(correlations)?, taken(before)?];
    let [thresholds, momentum] = [taken(thresholds)?, taken(momentum)?];
    let rows = momentum.meta.shape()[0];
    let vectors = pass.columns / pass.width;
    let units = units(&pass.first.client, vectors);
    let (codes, next, after) = (pass.room(), pass.room(), room(&momentum, [rows, 1]));
    let each = thresholds.meta.shape() == &pass.shape && pass.columns > 1;
    // SAFETY: all operands have the shape of the first, or, thresholds and t, one value a row; workgroups beyond the last row end at once.
    unsafe {
        accelerated_kernel::launch_unchecked(
            &pass.first.client,
            grid(rows),
            CubeDim::new_1d(units as u32),
            pass.width,
            pass.first.clone().into_buffer_arg(),
            explained.into_buffer_arg(),
            correlations.into_buffer_arg(),
            before.into_buffer_arg(),
            thresholds.into_buffer_arg(),
            momentum.into_buffer_arg(),
            codes.clone().into_buffer_arg(),
            next.clone().into_buffer_arg(),
            after.clone().into_buffer_arg(),
            rows,
            step,
            vectors,
            units,
            each,
            nonnegative,
            restart,
        );
    }
    Some([given(codes), given(next), given(after)])
}

/// One pass over tensors of the shape of the first of them.
struct Pass {
    first: CubeTensor,
    shape: Shape,
    columns: usize,
    /// Values that a unit works on.
    width: usize,
}

impl Pass {
    fn new(first: CubeTensor) -> Self {
        let first = into_contiguous(first);
        let shape = first.meta.shape().clone();
        let columns = shape[shape.num_dims() - 1];
        Self { first, shape, columns, width: vector_size(columns) }
    }

    fn room(&self) -> CubeTensor {
        let rows = self.shape.num_elements() / self.columns.max(1);
        let mut out = room(&self.first, [rows, self.columns]);
        out.meta = self.first.meta.clone();
        out
    }

    fn vectors(&self) -> usize {
        self.shape.num_elements() / self.width
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new(&self.first.client, self.vectors())
    }

    fn count(&self) -> CubeCount {
        calculate_cube_count_elemwise(&self.first.client, self.vectors(), self.dim())
    }
}

/// t of a vector: one of its row, or one of each value.
#[cube]
fn threshold_at<N: Size>(
    thresholds: &[f32],
    first: usize,
    columns: usize,
    #[comptime] width: usize,
    #[comptime] each: bool,
) -> Vector<f32, N> {
    let mut threshold = Vector::<f32, N>::new(thresholds[first]);
    if comptime!(each) {
        #[unroll]
        for lane in 0..width {
            threshold.insert(lane, thresholds[first + lane]);
        }
    } else {
        threshold = Vector::<f32, N>::new(thresholds[first / columns]);
    }
    threshold
}

#[cube]
fn shrunk<N: Size>(moved: Vector<f32, N>, threshold: Vector<f32, N>, #[comptime] nonnegative: bool) -> Vector<f32, N> {
    let zero = Vector::<f32, N>::new(0.0);
    let mut code = max(moved - threshold, zero);
    if comptime!(!nonnegative) {
        code -= max(zero - moved - threshold, zero);
    }
    code
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn step_kernel<N: Size>(
    point: &[Vector<f32, N>],
    explained: &[Vector<f32, N>],
    correlations: &[Vector<f32, N>],
    thresholds: &[f32],
    codes: &mut [Vector<f32, N>],
    columns: usize,
    step: f32,
    #[comptime] each: bool,
    #[comptime] nonnegative: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= codes.len() {
        terminate!();
    }
    let width = codes.vector_size().comptime();
    let threshold = threshold_at::<N>(thresholds, at * width, columns, width, each);
    let moved = point[at] - Vector::new(step) * (explained[at] - correlations[at]);
    codes[at] = shrunk::<N>(moved, threshold, nonnegative);
}

#[cube(launch_unchecked)]
fn support_kernel<N: Size>(gradient: &[Vector<f32, N>], codes: &[Vector<f32, N>], out: &mut [Vector<f32, N>]) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let width = out.vector_size().comptime();
    let (mut value, code) = (gradient[at], codes[at]);
    #[unroll]
    for lane in 0..width {
        if code.extract(lane) == 0.0 {
            value.insert(lane, 0.0);
        }
    }
    out[at] = value;
}

#[cube(launch_unchecked)]
fn momentum_kernel<N: Size>(
    codes: &[Vector<f32, N>],
    before: &[Vector<f32, N>],
    factors: &[f32],
    out: &mut [Vector<f32, N>],
    columns: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let width = out.vector_size().comptime();
    let factor = Vector::<f32, N>::new(factors[at * width / columns]);
    out[at] = codes[at] + factor * (codes[at] - before[at]);
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn accelerated_kernel<N: Size>(
    point: &[Vector<f32, N>],
    explained: &[Vector<f32, N>],
    correlations: &[Vector<f32, N>],
    before: &[Vector<f32, N>],
    thresholds: &[f32],
    momentum: &[f32],
    codes: &mut [Vector<f32, N>],
    next: &mut [Vector<f32, N>],
    after: &mut [f32],
    rows: usize,
    step: f32,
    #[comptime] vectors: usize,
    #[comptime] units: usize,
    #[comptime] each: bool,
    #[comptime] nonnegative: bool,
    #[comptime] restart: bool,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let width = codes.vector_size().comptime();
    let unit = UNIT_POS as usize;
    let first = row * vectors;
    let columns = vectors * width;
    let mut uphill = 0.0f32;
    let mut place = unit;
    while place < vectors {
        let at = first + place;
        let threshold = threshold_at::<N>(thresholds, at * width, columns, width, each);
        let moved = point[at] - Vector::new(step) * (explained[at] - correlations[at]);
        let code = shrunk::<N>(moved, threshold, nonnegative);
        codes[at] = code;
        if comptime!(restart) {
            // Momentum points uphill where the step from z and the step from γ disagree.
            let against = (point[at] - code) * (code - before[at]);
            #[unroll]
            for lane in 0..width {
                uphill += against.extract(lane);
            }
        }
        place += units;
    }
    let mut now = momentum[row];
    let mut then = 0.5 * (1.0 + (1.0 + 4.0 * now * now).sqrt());
    if comptime!(restart) {
        let mut sums = Shared::<[f32]>::new_slice(units);
        if of_all(uphill, &mut sums, units, false) > 0.0 {
            now = 1.0;
            then = 1.0;
        }
    }
    let factor = Vector::<f32, N>::new((now - 1.0) / then);
    let mut place = unit;
    while place < vectors {
        // Every unit reads what it wrote itself.
        let at = first + place;
        let code = codes[at];
        next[at] = code + factor * (code - before[at]);
        place += units;
    }
    if unit == 0 {
        after[row] = then;
    }
}
