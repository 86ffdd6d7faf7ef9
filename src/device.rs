//! The choice of a device, by name, among the backends that were compiled in, and of the precision that it multiplies in.

use crate::error::{Error, Result};
use burn::tensor::kind::Basic;
use burn::tensor::{Device, Element, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Environment variable that names the device where no flag does.
pub const VARIABLE: &str = "BURN_DEVICE";

/// How the factors of matrix products are rounded where a GPU has tensor cores; convolutions are such products, too.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Precision {
    /// Not at all: products in full `f32`, on which duality gaps and guarantees rest.
    #[default]
    Exact,
    /// To ten bits of mantissa (TF32), as the backend does it: faster, and no more accurate than that.
    Fast,
}

/// Whether products are [`Precision::Fast`].
static FAST: AtomicBool = AtomicBool::new(false);

/// The precision of products in this process.
pub fn precision() -> Precision {
    if FAST.load(Ordering::Relaxed) { Precision::Fast } else { Precision::Exact }
}

/// Chooses the precision of all products in this process from now on.
pub fn set_precision(precision: Precision) {
    FAST.store(precision == Precision::Fast, Ordering::Relaxed);
}

/// What the host did though a GPU was asked for.
static ON_HOST: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes work that a GPU was asked for and that its kernels don't take, so that the host does it.
#[cfg(feature = "cube")]
pub(crate) fn left_to_host(work: &str) {
    ON_HOST.lock().unwrap_or_else(PoisonError::into_inner).insert(work.into());
}

/// What the host did in this process so far though a GPU was asked for, a few words each: what kernels don't take, or have no room for.
pub fn left_to_the_host() -> Vec<String> {
    ON_HOST.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

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

/// The name of the device that [`named`] opens: the one given, else that in `BURN_DEVICE`, else the first compiled in. None where no
/// backend is.
pub fn chosen(name: Option<&str>) -> Option<String> {
    let first = (*available().first()?).to_owned();
    let variable = || std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    Some(name.map(str::to_owned).or_else(variable).unwrap_or(first))
}

/// The device of that name; of the name in `BURN_DEVICE` if there is none; else the first compiled in. One of several GPUs is meant by its
/// number after a colon, from 0 on, as in `cuda:1`, of `wgpu`, `vulkan` and `metal` among the discrete ones; without one it is the first, or the best.
///
/// # Errors
/// An unknown name, or whose backend was not compiled in; a backend whose driver or hardware this machine lacks; a number where devices
/// have none; no backend at all.
pub fn named(name: Option<&str>) -> Result<Device> {
    let Some(name) = &chosen(name) else {
        return Err(Error::Device {
            name: name.unwrap_or_default().into(),
            reason: "no backend was compiled in; build with one of the features flex, ndarray, wgpu, vulkan, metal, cuda, rocm, cpu, tch".into(),
        });
    };
    let available = available();
    let device = create(name).ok_or_else(|| Error::Device {
        name: name.into(),
        reason: match available.contains(&kind_of(name)) {
            true => {
                "expected the number of a GPU after the colon, as in cuda:0; what computes on the host has none".into()
            }
            false => format!("expected one of those compiled in: {}", available.join(", ")),
        },
    })?;
    // Nothing to be missed by these, and nothing to wait for.
    if !["flex", "ndarray", "tch"].contains(&name.as_str()) {
        try_out(name, &device)?;
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if opened.iter().all(|(known, _)| *known != device) {
        opened.push((device.clone(), name.clone()));
    }
    Ok(device)
}

/// Devices that were opened by name, with these names.
static OPENED: Mutex<Vec<(Device, String)>> = Mutex::new(Vec::new());

/// Uses a device once: only then do backends look for driver and hardware, and they panic where there is none.
///
/// # Errors
/// The panic's message.
fn try_out(name: &str, device: &Device) -> Result<()> {
    /// Names of the devices that work. Locked during the trial too, because the hook below belongs to the whole process.
    static WORKING: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut working = WORKING.lock().unwrap_or_else(PoisonError::into_inner);
    if working.iter().any(|known| known == name) {
        return Ok(());
    }
    let previous = Arc::new(take_hook());
    let messages = Arc::new(Mutex::new(Vec::new()));
    let (others, heard) = (previous.clone(), messages.clone());
    let this_thread = std::thread::current().id();
    set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        // CubeCL works on threads of its own, "DSU-…" and "DSD-…"; other threads' panics are reported as before.
        if thread.id() == this_thread || thread.name().is_some_and(|name| name.starts_with("DS")) {
            let message = info.payload_as_str().unwrap_or("unknown reason").to_owned();
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        } else {
            others(info);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(|| Tensor::<1>::ones([1], device).try_into_data()));
    set_hook(Box::new(move |info| previous(info)));
    let reason = match outcome {
        Ok(Ok(_)) => {
            working.push(name.into());
            return Ok(());
        }
        Ok(Err(error)) => error.to_string(),
        // What comes after the first panic are its consequences.
        Err(_) => messages.lock().unwrap_or_else(PoisonError::into_inner).first().cloned().unwrap_or_default(),
    };
    // What follows describes all adapters as Rust prints them.
    let reason = reason.split('{').next().unwrap_or_default().trim();
    Err(Error::Device { name: name.into(), reason: format!("not usable on this machine: {reason}") })
}

/// What a device says that could not do what it was asked: the payload of a panic that [`guarded`] makes an error of. Work for a device is
/// queued, so that it fails where its results are read, which is deep in what computes with them.
#[derive(Debug)]
struct Failed(Error);

/// A tensor's values.
///
/// # Panics
/// If the device has failed, without a word: see [`guarded`].
pub(crate) fn read<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> TensorData {
    let device = tensor.device();
    tensor.try_into_data().unwrap_or_else(|error| fail(&device, &error.to_string()))
}

/// Ends what is computed on a device that has failed.
pub(crate) fn fail(device: &Device, said: &str) -> ! {
    // The causes come one below the other, the last one first in time; the rest says where, which is of use to nobody here.
    let causes = said.lines().map(str::trim).take_while(|line| !line.contains("backtrace"));
    let reason = causes.filter(|line| !line.is_empty() && *line != "Caused by:").last().unwrap_or("it gives no reason");
    let opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let name = opened.iter().find(|(known, _)| known == device).map(|(_, name)| name.clone());
    drop(opened);
    let device = name.unwrap_or_else(|| format!("{device:?}"));
    let advice =
        if is_for_memory(reason) { "; a smaller batch, smaller signals or the host take less memory" } else { "" };
    let failed = Error::DeviceFailed { device, reason: format!("{reason}{advice}") };
    // Not through the hook, which would print where it happened.
    resume_unwind(Box::new(Failed(failed)))
}

/// Whether a device has failed for want of memory, by the words of CubeCL.
pub(crate) fn is_for_memory(reason: &str) -> bool {
    ["can't allocate", "out of device memory"].iter().any(|words| reason.contains(words))
}

/// [`read`] of a tensor with a single value.
pub(crate) fn scalar<const D: usize, K: Basic, E: Element>(tensor: Tensor<D, K>) -> E {
    read(tensor).iter::<E>().next().expect("a tensor with a value")
}

/// Runs what uses a device, and makes an error of its failure.
///
/// # Errors
/// [`Error::DeviceFailed`]; those of `work`.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(panic) => match panic.downcast::<Failed>() {
            Ok(failed) => Err(failed.0),
            Err(other) => resume_unwind(other),
        },
    }
}

/// The fewest signals that were coded at a time because the device had no memory for more; 0 where it always had.
static FEWEST: AtomicUsize = AtomicUsize::new(0);

/// Notes that a device has memory for so many signals at a time, and not for twice as many.
pub(crate) fn note_part(signals: usize) {
    let fewest = |known: usize| Some(if known == 0 { signals } else { known.min(signals) });
    // It always has a new value.
    let _ = FEWEST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewest);
}

/// The fewest signals that were coded at a time in this process because a device had no memory for as many as it was given; `None` where it
/// always had.
pub fn fewest_at_a_time() -> Option<usize> {
    Some(FEWEST.load(Ordering::Relaxed)).filter(|signals| *signals > 0)
}

/// Whether a device computes in the host's memory and on its cores, so that work for it may come from several threads at once.
// The constructor of ndarray's is marked deprecated upstream; it stays for as long as the backend does.
#[allow(deprecated)]
pub(crate) fn is_host(device: &Device) -> bool {
    let hosts: &[Device] = &[
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ];
    hosts.contains(device)
}

/// The part of a name before the colon.
fn kind_of(name: &str) -> &str {
    name.split_once(':').map_or(name, |(kind, _)| kind)
}

// The ndarray and tch constructors are marked deprecated upstream; they stay for as long as the backends do.
#[allow(deprecated)]
fn create(name: &str) -> Option<Device> {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    use burn::tensor::DeviceKind;
    let number = match name.split_once(':') {
        Some((_, number)) => Some(number.parse::<usize>().ok()?),
        None => None,
    };
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let adapter = number.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
    match kind_of(name) {
        #[cfg(feature = "flex")]
        "flex" if number.is_none() => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" if number.is_none() => Some(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(number.unwrap_or(0))),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(number.unwrap_or(0))),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(adapter)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(adapter)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(adapter)),
        #[cfg(feature = "cpu")]
        "cpu" if number.is_none() => Some(Device::cpu()),
        #[cfg(feature = "tch")]
        "tch" if number.is_none() => Some(Device::libtorch()),
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

    #[test]
    fn a_failure_is_an_error_and_a_bug_is_not() {
        let device = named(None).unwrap();
        let said = "An error happened\nCaused by:\n  The bytes were never written\nCaused by:\n  can't allocate buffer of size: 8\nNo backtrace available";
        let error = guarded::<()>(|| fail(&device, said)).unwrap_err().to_string();
        let name = available()[0];
        assert_eq!(
            error,
            format!(
                "the device {name} failed: can't allocate buffer of size: 8; a smaller batch, smaller signals or the host take less memory"
            )
        );
        let lost = guarded::<()>(|| fail(&device, "the device was lost")).unwrap_err().to_string();
        assert_eq!(lost, format!("the device {name} failed: the device was lost"));
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        let bug = catch_unwind(|| guarded::<()>(|| resume_unwind(Box::new("a bug"))));
        assert_eq!(bug.unwrap_err().downcast_ref::<&str>(), Some(&"a bug"));
    }

    #[test]
    fn a_number_is_that_of_a_gpu() {
        for name in ["flex:0", "flex:one", "flex:"] {
            let message = named(Some(name)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("number of a GPU"), "{message}");
        }
    }
}
