//! The choice of a device, by name, among the backends that were compiled in.

use crate::error::{Error, Result};
use burn::tensor::Device;

/// Environment variable that names the device where no flag does.
pub const VARIABLE: &str = "BURN_DEVICE";

/// Names of the devices that were compiled in, the default first.
pub fn available() -> Vec<&'static str> {
    let all: [(&str, bool); 9] = [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("cpu", cfg!(feature = "cpu")),
        ("tch", cfg!(feature = "tch")),
    ];
    all.into_iter().filter(|(_, compiled)| *compiled).map(|(name, _)| name).collect()
}

/// The device of that name; of the name in `BURN_DEVICE` if there is none; else the first compiled in.
///
/// # Errors
/// A name that is none, or whose backend was not compiled in; no backend at all.
pub fn named(name: Option<&str>) -> Result<Device> {
    let variable = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    let available = available();
    let Some(&default) = available.first() else {
        return Err(Error::Device {
            name: name.unwrap_or_default().into(),
            reason: "no backend was compiled in; build with one of the features flex, ndarray, wgpu, vulkan, metal, cuda, rocm, cpu, tch".into(),
        });
    };
    let name = name.or(variable.as_deref()).unwrap_or(default);
    create(name).ok_or_else(|| Error::Device {
        name: name.into(),
        reason: format!("expected one of those compiled in: {}", available.join(", ")),
    })
}

// The ndarray and tch constructors are marked deprecated upstream; they stay for as long as the backends do.
#[allow(deprecated)]
fn create(name: &str) -> Option<Device> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(0)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(0)),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cpu")]
        "cpu" => Some(Device::cpu()),
        #[cfg(feature = "tch")]
        "tch" => Some(Device::libtorch()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_refused_by_name() {
        let message = named(Some("abacus")).unwrap_err().to_string();
        assert!(message.contains("abacus") && message.contains(available()[0]), "{message}");
    }
}
