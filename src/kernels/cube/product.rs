//! Matrix products in full `f32`.
//!
//! CubeCL promotes the factors of a product to ten bits of mantissa (TF32) wherever a device has tensor cores, which no setting prevents. Unit
//! tiles multiply in registers, and leave them as they are.

use crate::device::{Precision, precision};
use crate::kernels::product::ProductOps;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

impl ProductOps for CubeBackend {
    fn product(left: CubeTensor, right: CubeTensor) -> CubeTensor {
        let found = (precision() == Precision::Exact && rounds(&left)).then(|| by_units(&left, &right)).flatten();
        found.unwrap_or_else(|| Self::float_matmul(left, right))
    }
}

/// Whether products on the tensor's device are rounded unless it is told not to: where there are units for products of small matrices.
fn rounds(tensor: &CubeTensor) -> bool {
    let units = &tensor.client.properties().features.matmul;
    !(units.cmma.is_empty() && units.mma.is_empty() && units.cube_mma.is_empty())
}

/// A product by unit tiles. `None` where tiles don't fit the shapes.
fn by_units(left: &CubeTensor, right: &CubeTensor) -> Option<CubeTensor> {
    let out = init_matmul_output(left, right, left.dtype);
    let dtype = dtype_to_storage_type(left.dtype);
    let mut elems = MatmulElems::from_globals(&MatmulGlobalElems { lhs: dtype, rhs: dtype, out: dtype });
    let strategy: Strategy = multi_level::Strategy::SimpleUnit(Default::default()).into();
    let client = out.client.clone();
    launch_ref(
        &strategy,
        &client,
        InputBinding::new(left.clone().binding(), dtype),
        InputBinding::new(right.clone().binding(), dtype),
        out.clone().binding(),
        &mut elems,
    )
    .ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cube::testing::{device, there};
    use crate::kernels::cube::{given, taken};
    use burn::tensor::{Distribution, Tensor};

    /// Products by unit tiles, of views too, are those of the host.
    #[test]
    fn products_by_units_are_exact() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        let matrix = |rows, columns| Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 1.0), &host);
        for (rows, inner, columns) in [(64, 128, 64), (33, 100, 100), (1, 7, 3), (5, 300, 1)] {
            let (left, right) = (matrix(rows, inner), matrix(columns, inner));
            let take = |tensor: &Tensor<2>| tensor.clone().to_device(&device);
            let [first, second] = [take(&left), take(&right).transpose()].map(|tensor| taken(tensor).unwrap());
            let found = by_units(&first, &second).expect("unit tiles take any shape");
            let found = there(given::<2>(found));
            let difference: f32 = (found - left.matmul(right.transpose())).abs().max().into_scalar();
            assert!(difference < 1e-6 * 20.0 * (inner as f32).sqrt(), "{rows}×{inner}×{columns}: {difference}");
        }
    }
}
