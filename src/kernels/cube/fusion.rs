//! Tensors that burn's `fusion` holds back.
//!
//! With that feature the backend of GPUs records operations and runs them later, several in one kernel. Those that are called through burn's
//! `Dispatch` are recorded like any other (`#[fusion]` where they are declared says of what shape they are). Kernels that are called directly need
//! their operands now: whatever leads to them is run first.

use burn::backend::fusion::client::GlobalFusionClient;
use burn::backend::fusion::custom::{CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr};
use burn::backend::fusion::{FusionBackend, FusionTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

type Runtime = <CubeBackend as FusionBackend>::FusionRuntime;
type Handle = <Runtime as burn::backend::fusion::FusionRuntime>::FusionHandle;

/// The tensor with its values, computed now.
pub(super) fn computed(tensor: FusionTensor<Runtime>) -> CubeTensor {
    tensor.client.clone().resolve_tensor_float::<CubeBackend>(tensor)
}

/// A tensor that was computed, as one whose further operations are recorded.
pub(super) fn recorded(tensor: CubeTensor) -> FusionTensor<Runtime> {
    let client = GlobalFusionClient::<Runtime>::load(&tensor.device);
    let id = client.create_empty_handle();
    let out = TensorIr::uninit(id, tensor.meta.shape().clone(), tensor.dtype);
    let put = OperationFn(move |handles: &mut HandleContainer<Handle>| {
        handles.register_float_tensor::<CubeBackend>(&id, tensor.clone());
        Ok(())
    });
    let operation = OperationIr::Custom(CustomOpIr::new("computed", &[], &[out]));
    client.register(StreamId::current(), operation, put).remove(0)
}
