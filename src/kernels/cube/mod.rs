//! Kernels of our own for GPUs, written once for every runtime of CubeCL.
//!
//! | file | what |
//! |---|---|
//! | `proximal` | the gradient step with its threshold and its momentum, and where gradients go through, in one pass each |
//! | `product` | matrix products in full `f32` |
//! | `lasso` | whole lassos, one workgroup a signal |
//! | `greedy` | whole orthogonal matching pursuits, one workgroup a signal |
//! | `tiles` | coordinate descent on pictures, one workgroup a tile |
//! | `windows` | convolutions as products with the windows that positions see |
//! | `few` | products with matrices of which few values are not zero |
//! | `fusion` | tensors that burn's `fusion` holds back |
//!
//! What they compute does not depend on timings, nor on the batch: every signal, tile or value has a workgroup or a unit of its own, which adds up in
//! a fixed order.

mod few;
#[cfg(feature = "fusion")]
mod fusion;
mod greedy;
mod lasso;
mod product;
mod proximal;
mod tiles;
mod windows;

#[cfg(test)]
pub(crate) use greedy::MOST_NONZEROS;
pub(crate) use greedy::greedy;
#[cfg(test)]
pub(crate) use greedy::greedy_far;
#[cfg(test)]
pub(crate) use lasso::lasso_far;
pub(crate) use lasso::{Lasso, lasso};
pub(crate) use proximal::accelerated_step;
pub(crate) use tiles::Tiles;

use burn::backend::Cube;
use burn::tensor::{Device, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Units of a workgroup at most: more wait for each other longer than they save.
const MOST_UNITS: usize = 128;

/// Turns of all loops of a unit at most in one launch: some drivers end loops after 2¹⁶ turns in all.
const TURNS: usize = 60_000;

/// Bytes of a workgroup's memory that are left to the compiler.
const SPARE: usize = 512;

/// The tensor of a GPU as what kernels take, its values side by side. `None` for tensors of other devices, and for those that gradients are
/// followed through.
fn taken<const D: usize>(tensor: Tensor<D>) -> Option<CubeTensor> {
    let primitive = tensor.try_into_primitive::<Cube>().ok();
    #[cfg(feature = "fusion")]
    let primitive = primitive.map(fusion::computed);
    primitive.map(into_contiguous)
}

fn given<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    #[cfg(feature = "fusion")]
    let tensor = fusion::recorded(tensor);
    Tensor::from_primitive::<Cube>(tensor)
}

/// What [`Cube`] is without burn's `fusion`. Another package of the same build may switch that on, and everything here would then be of the wrong type.
#[cfg(not(feature = "fusion"))]
#[diagnostic::on_unimplemented(
    message = "burn's feature `fusion` is on in this build: switch on mlcsc's feature `fusion` as well"
)]
trait Immediate {}

#[cfg(not(feature = "fusion"))]
impl Immediate for burn_cubecl::CubeBackend {}

#[cfg(not(feature = "fusion"))]
const _: fn() = || {
    fn check<B: Immediate>() {}
    check::<Cube>();
};

/// Memory for a tensor like that one, but of that shape.
fn room<const D: usize>(like: &CubeTensor, dims: [usize; D]) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), dims.into(), like.dtype)
}

/// The same, filled with zeros.
fn zeros<const D: usize>(like: &CubeTensor, dims: [usize; D]) -> CubeTensor {
    // Rows may come with room between them.
    into_contiguous(burn_cubecl::ops::numeric::zeros(like.device.clone(), dims.into(), like.dtype))
}

/// Values that a unit reads at once from rows of so many.
fn vector_size(columns: usize) -> usize {
    if columns.is_multiple_of(4) { 4 } else { 1 }
}

/// Units of a workgroup that goes through rows of so many vectors: a power of two that the device can run. One where units are cores, which would
/// wait for each other longer than they work.
fn units(client: &cubecl::client::Client, vectors: usize) -> usize {
    let hardware = &client.properties().hardware;
    let most = if hardware.plane_size_max <= 1 { 1 } else { MOST_UNITS.min(hardware.max_units_per_cube as usize) };
    let wanted = vectors.clamp(1, most);
    // The largest power of two that is not larger.
    1 << (usize::BITS - 1 - wanted.leading_zeros())
}

/// Workgroups in a grid whose sides have a limit.
fn grid(workgroups: usize) -> CubeCount {
    const SIDE: usize = 32_768;
    if workgroups <= SIDE {
        return CubeCount::Static(workgroups as u32, 1, 1);
    }
    CubeCount::Static(SIDE as u32, workgroups.div_ceil(SIDE) as u32, 1)
}

/// Whether a workgroup of the device can have so many bytes of memory.
fn fits(client: &cubecl::client::Client, bytes: usize) -> bool {
    bytes + SPARE <= client.properties().hardware.max_shared_memory_size
}

/// Values that one buffer of the device can have, and all of them together where the device says so.
pub(crate) fn capacity(device: &Device) -> Option<[usize; 2]> {
    let client = taken(Tensor::<1>::empty([1], device))?.client;
    let memory = &client.properties().memory;
    let values = |bytes: u64| usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    Some([values(memory.max_page_size), memory.max_memory().map_or(usize::MAX, values)])
}

/// Puts the largest score of all units, and what goes with it, in the first places; of two that are equal the one of the lower place.
/// All units have to come here.
#[cube]
fn find_largest(
    score: f32,
    place: u32,
    value: f32,
    scores: &mut Shared<[f32]>,
    places: &mut Shared<[u32]>,
    values: &mut Shared<[f32]>,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    scores[unit] = score;
    places[unit] = place;
    values[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = unit + half;
            if scores[other] > scores[unit] || (scores[other] == scores[unit] && places[other] < places[unit]) {
                scores[unit] = scores[other];
                places[unit] = places[other];
                values[unit] = values[other];
            }
        }
        sync_cube();
        half /= 2;
    }
}

/// A vector of the workgroup's own memory, or, where that has no room for all, of the device's: every unit works on vectors of its own.
#[cube]
fn load<N: Size>(
    near: &Shared<[Vector<f32, N>]>,
    far: &[Vector<f32, N>],
    at: usize,
    first: usize,
    #[comptime] is_near: bool,
) -> Vector<f32, N> {
    if comptime!(is_near) { near[at] } else { far[first + at] }
}

/// Writes where [`load`] reads.
#[cube]
fn store<N: Size>(
    near: &mut Shared<[Vector<f32, N>]>,
    far: &mut [Vector<f32, N>],
    value: Vector<f32, N>,
    at: usize,
    first: usize,
    #[comptime] is_near: bool,
) {
    if comptime!(is_near) {
        near[at] = value;
    } else {
        far[first + at] = value;
    }
}

/// The sum over all units, or the largest value, which all of them get. All units have to come here.
#[cube]
fn of_all(value: f32, values: &mut Shared<[f32]>, #[comptime] units: usize, #[comptime] largest: bool) -> f32 {
    let unit = UNIT_POS as usize;
    values[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = values[unit + half];
            if comptime!(largest) {
                values[unit] = max(values[unit], other);
            } else {
                values[unit] += other;
            }
        }
        sync_cube();
        half /= 2;
    }
    let found = values[0];
    sync_cube();
    found
}

#[cfg(test)]
pub(crate) mod testing {
    use burn::tensor::{Device, Tensor};

    /// The device whose kernels are tested, CubeCL's own for CPUs or the first GPU; where no driver is, tests say so and end.
    pub(crate) fn device() -> Option<Device> {
        let names = ["cpu", "cuda", "vulkan", "wgpu"];
        let found = names.iter().filter(|name| crate::device::available().contains(name));
        let found = found.filter_map(|name| crate::device::named(Some(name)).ok()).next();
        if found.is_none() {
            println!("skipped: no device for kernels");
        }
        found
    }

    /// The same values on the host.
    pub(crate) fn there<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
        tensor.to_device(&crate::device::named(Some("flex")).unwrap())
    }
}
