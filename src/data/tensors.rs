//! Tensors of safetensors files as signals: where their values lie.
//!
//! The header is read by the crate of that name, which compares it with the length of the file; values stay on disk.

use super::arrays::{Found, map};
use super::stored::{Bytes, Element, Kind, Strided};
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use std::path::Path;

/// Tensors that a message lists at most.
const LISTED: usize = 20;

/// Whether a file that begins with those bytes is one: the header's length in eight of them, then the header, a JSON object.
pub(super) fn is_beginning(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

/// The tensor of that name, or the only one; its name comes with it.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file or a tensor of another type; [`Error::Missing`] and [`Error::Parameter`] where
/// the name does not tell which tensor.
pub(super) fn find(path: &Path, name: Option<&str>) -> Result<(Found, String)> {
    let map = map(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
        let reason = match error {
            SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
                format!("expected a safetensors file, found {} bytes, fewer than its header has", map.len())
            }
            SafeTensorError::MetadataIncompleteBuffer => {
                format!("expected a safetensors file of the length that its header says, found {} bytes", map.len())
            }
            other => {
                let reason = other.to_string().replace('\n', " ");
                format!("expected a safetensors file, found a damaged header ({reason})")
            }
        };
        Error::format(path, reason)
    })?;
    let mut tensors: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let names = || {
        let shown = tensors.iter().take(LISTED).map(|(name, info)| format!("{name:?} {:?}", info.shape));
        let more = if tensors.len() > LISTED { ", …" } else { "" };
        format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
    };
    let chosen = match (name, &tensors[..]) {
        (_, []) => return Err(Error::format(path, "expected a safetensors file with tensors, found one without")),
        (None, [_]) => 0,
        (None, _) => {
            let count = tensors.len();
            let expected = format!("the name of one of the {count} tensors of {}: {}", path.display(), names());
            return Err(Error::missing("tensor", expected));
        }
        (Some(wanted), _) => tensors.iter().position(|(name, _)| name == wanted).ok_or_else(|| {
            Error::parameter("tensor", format!("{wanted:?}"), format!("one in {}: {}", path.display(), names()))
        })?,
    };
    let (name, info) = tensors.swap_remove(chosen);
    let element = element_of(info.dtype).ok_or_else(|| {
        let expected = "elements of type F16, BF16, F32, F64, BOOL or integers of 8 to 64 bits";
        Error::format(path, format!("expected {expected}, found {} in tensor {name:?}", info.dtype))
    })?;
    if info.shape.contains(&0) {
        let found = format!("found shape {:?} of tensor {name:?}", info.shape);
        return Err(Error::format(path, format!("expected positive extents, {found}")));
    }
    // The reader of the header has compared shape, type and offsets with each other and with the length of the file.
    let array = Strided::dense(8 + header + info.data_offsets.0, element, info.shape.clone(), false);
    Ok((Found { path: path.into(), bytes: Bytes::Mapped(map), array }, name))
}

fn element_of(dtype: Dtype) -> Option<Element> {
    let (kind, size) = match dtype {
        Dtype::BOOL => (Kind::Bool, 1),
        Dtype::U8 => (Kind::Unsigned, 1),
        Dtype::U16 => (Kind::Unsigned, 2),
        Dtype::U32 => (Kind::Unsigned, 4),
        Dtype::U64 => (Kind::Unsigned, 8),
        Dtype::I8 => (Kind::Signed, 1),
        Dtype::I16 => (Kind::Signed, 2),
        Dtype::I32 => (Kind::Signed, 4),
        Dtype::I64 => (Kind::Signed, 8),
        Dtype::F16 => (Kind::Float, 2),
        Dtype::F32 => (Kind::Float, 4),
        Dtype::F64 => (Kind::Float, 8),
        Dtype::BF16 => (Kind::Brain, 2),
        _ => return None,
    };
    Some(Element::little(kind, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, Dataset, Layout, open};
    use crate::geometry::SignalShape;
    use burn::tensor::{bf16, f16};
    use safetensors::tensor::TensorView;
    use std::path::PathBuf;

    fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.to_string(), TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn config(path: &Path) -> DataConfig {
        DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
    }

    fn values(data: &Dataset) -> Vec<f32> {
        let mut out = vec![0.0; data.all.len() * data.all.shape().len()];
        data.all.read(&(0..data.all.len()).collect::<Vec<_>>(), &mut out).unwrap();
        out
    }

    #[test]
    fn every_element_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signals");
        macro_rules! bytes {
            ($type:ty, $convert:expr) => {
                (0..6u8)
                    .flat_map(|value| {
                        let value: $type = $convert(value);
                        value.to_le_bytes()
                    })
                    .collect()
            };
        }
        for (dtype, bytes) in [
            (Dtype::U8, bytes!(u8, u8::from)),
            (Dtype::U16, bytes!(u16, u16::from)),
            (Dtype::U32, bytes!(u32, u32::from)),
            (Dtype::U64, bytes!(u64, u64::from)),
            (Dtype::I8, bytes!(i8, |value| value as i8)),
            (Dtype::I16, bytes!(i16, i16::from)),
            (Dtype::I32, bytes!(i32, i32::from)),
            (Dtype::I64, bytes!(i64, i64::from)),
            (Dtype::F32, bytes!(f32, f32::from)),
            (Dtype::F64, bytes!(f64, f64::from)),
            (Dtype::F16, bytes!(f16, |value| f16::from_f32(f32::from(value)))),
            (Dtype::BF16, bytes!(bf16, |value| bf16::from_f32(f32::from(value)))),
        ] {
            write(&path, &[("acts", dtype, &[2, 3], bytes)]);
            let data = open(&config(&path)).unwrap();
            assert_eq!((data.all.len(), data.all.shape()), (2, SignalShape::new(3, 1, 1)), "{dtype}");
            assert_eq!(values(&data), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{dtype}");
        }
        write(&path, &[("mask", Dtype::BOOL, &[2, 2], vec![0, 1, 1, 0])]);
        assert_eq!(values(&open(&config(&path)).unwrap()), [0.0, 1.0, 1.0, 0.0]);
        // 1, −2 and 1/3, rounded to eight bits.
        let brains = [0x3f80u16, 0xc000, 0x3eab].map(u16::to_le_bytes).concat();
        write(&path, &[("acts", Dtype::BF16, &[3], brains)]);
        assert_eq!(values(&open(&config(&path)).unwrap()), [1.0, -2.0, 171.0 / 512.0]);
        write(&path, &[("acts", Dtype::F8_E4M3, &[1, 2], vec![1, 2])]);
        let message = open(&config(&path)).err().unwrap().to_string();
        assert!(message.contains("found F8_E4M3 in tensor \"acts\""), "{message}");
    }

    #[test]
    fn one_of_several_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("several.safetensors");
        let bytes = |count: u8| (0..count).collect::<Vec<_>>();
        write(
            &path,
            &[
                ("b", Dtype::U8, &[2, 3], bytes(6)),
                ("a.x", Dtype::U8, &[2, 2, 3], bytes(12)),
                ("none", Dtype::U8, &[0, 3], vec![]),
            ],
        );
        let message = open(&config(&path)).err().unwrap().to_string();
        for part in ["tensor is missing", "3 tensors", "\"a.x\" [2, 2, 3]", "\"b\" [2, 3]", "several.safetensors"] {
            assert!(message.contains(part), "{message}");
        }
        let named = |tensor: &str, layout| DataConfig { tensor: Some(tensor.into()), layout, ..config(&path) };
        let data = open(&named("a.x", Some(Layout::Time))).unwrap();
        assert_eq!((data.all.len(), data.all.shape()), (2, SignalShape::new(2, 1, 3)));
        assert_eq!(values(&data), (0..12u8).map(f32::from).collect::<Vec<_>>());
        for (config, part) in [
            (named("c", None), "tensor = \"c\": expected one in"),
            (named("none", None), "positive extents, found shape [0, 3] of tensor \"none\""),
            (named("b", Some(Layout::Maps)), "[2, 3]"),
        ] {
            let message = open(&config).err().unwrap().to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        }
        let array = folder.path().join("array.npy");
        crate::export::arrays::write_npy(&array, &[2, 2], &[0.0; 4]).unwrap();
        let message = open(&DataConfig { tensor: Some("a".into()), ..config(&array) }).err().unwrap().to_string();
        assert!(message.contains("tensor = \"a\"") && message.contains("no arrays with names"), "{message}");
    }

    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("file");
        write(&path, &[("acts", Dtype::F32, &[2, 2], vec![0; 16])]);
        let whole = std::fs::read(&path).unwrap();
        let with = |header: &str, values: usize| {
            let header = header.as_bytes();
            [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; values]].concat()
        };
        let tensor = |shape: &str, from: usize, to: usize| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
        };
        let most = usize::MAX;
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("cut", whole[..whole.len() - 1].to_vec(), "of the length that its header says"),
            ("longer", [&whole[..], &[0]].concat(), "of the length that its header says"),
            ("header cut", whole[..20].to_vec(), "20 bytes, fewer than its header has"),
            ("no tensor", with("{}", 0), "without"),
            ("other json", with(r#"{"a": 3}"#, 0), "damaged header"),
            ("not closed", with("{{{{{{{{", 0), "damaged header"),
            ("deep", with(&"{\"a\":".repeat(10_000), 0), "damaged header"),
            ("large", with(&tensor(&format!("[{most}, {most}]"), 0, 16), 16), "damaged header"),
            ("offsets", with(&tensor("[4]", 16, 32), 16), "damaged header"),
            ("backwards", with(&tensor("[4]", 16, 0), 16), "damaged header"),
            ("promise", [&0xffff_fff0u64.to_le_bytes()[..], b"{", &[b' '; 40]].concat(), "damaged header"),
        ];
        for (name, bytes, part) in cases {
            std::fs::write(&path, bytes).unwrap();
            let message = open(&config(&path)).err().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(message.contains(part) && message.contains("safetensors"), "{name}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
