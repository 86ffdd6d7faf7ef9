//! Named arrays in files of others.

use crate::data::npy::Array;
use crate::data::npz::Archive;
use crate::error::{Error, Result};
use crate::files;
use crate::geometry::checked_len;
use burn::tensor::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Types that values are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// 16 bits, 11 of them significant.
    Half,
    /// 16 bits, 8 of them significant.
    Brain,
    /// 32 bits and more, of which 32 are used.
    Single,
}

impl Precision {
    /// By the name that PyTorch has for it.
    pub fn of(name: &str) -> Option<Self> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float16" => Some(Self::Half),
            "bfloat16" => Some(Self::Brain),
            "float32" | "float64" => Some(Self::Single),
            _ => None,
        }
    }

    fn round(self, values: &mut [f32]) {
        match self {
            Self::Half => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
            Self::Brain => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
            Self::Single => {}
        }
    }
}

/// The arrays of one file.
pub(super) struct Arrays {
    path: PathBuf,
    content: Content,
    taken: BTreeSet<String>,
    precision: Precision,
}

enum Content {
    /// A safetensors file's bytes, whose header was read.
    Safetensors(Vec<u8>),
    /// What an archive held.
    Archive(BTreeMap<String, Array>),
}

impl Arrays {
    /// Of a safetensors file.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or is none.
    pub fn safetensors(path: &Path) -> Result<Self> {
        let bytes = files::read_whole(path)?;
        SafeTensors::deserialize(&bytes).map_err(|error| {
            Error::format(path, format!("expected a safetensors file, found broken content: {error}"))
        })?;
        Ok(Self::new(path, Content::Safetensors(bytes)))
    }

    /// Of a NumPy archive.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or is none; an entry that is no array.
    pub fn archive(path: &Path) -> Result<Self> {
        let mut archive = Archive::open(path)?;
        let mut arrays = BTreeMap::new();
        for name in archive.names().to_vec() {
            let array = archive.read(&name)?;
            arrays.insert(name, array);
        }
        Ok(Self::new(path, Content::Archive(arrays)))
    }

    fn new(path: &Path, content: Content) -> Self {
        Self { path: path.into(), content, taken: BTreeSet::new(), precision: Precision::Single }
    }

    /// Rounds what is taken from here on.
    pub fn rounded(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Names of all arrays.
    pub fn names(&self) -> Vec<String> {
        match &self.content {
            // The header was read before.
            Content::Safetensors(bytes) => match SafeTensors::deserialize(bytes) {
                Ok(tensors) => {
                    let mut names: Vec<String> = tensors.names().iter().map(ToString::to_string).collect();
                    names.sort();
                    names
                }
                Err(_) => Vec::new(),
            },
            Content::Archive(arrays) => arrays.keys().cloned().collect(),
        }
    }

    /// Whether there is an array of that name.
    pub fn holds(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// Shape of an array.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.content {
            Content::Safetensors(bytes) => {
                Some(SafeTensors::deserialize(bytes).ok()?.tensor(name).ok()?.shape().to_vec())
            }
            Content::Archive(arrays) => Some(arrays.get(name)?.shape.clone()),
        }
    }

    /// Extents of an array that has two.
    ///
    /// # Errors
    /// None of that name; another number of extents; one that is zero, or too many values.
    pub fn extents(&self, name: &str) -> Result<[usize; 2]> {
        let shape = self.shape(name).ok_or_else(|| self.missing(name, "two extents"))?;
        match shape[..] {
            [rows, columns] if rows > 0 && checked_len(&[rows, columns]).is_some_and(|len| len > 0) => {
                Ok([rows, columns])
            }
            _ => Err(self.other_shape(name, "two extents of at least 1", &shape)),
        }
    }

    /// Takes an array's values.
    ///
    /// # Errors
    /// None of that name; another shape or type; values that are not finite.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let found = self.shape(name).ok_or_else(|| self.missing(name, &format!("shape {shape:?}")))?;
        if found != shape {
            return Err(self.other_shape(name, &format!("shape {shape:?}"), &found));
        }
        let mut array = match &mut self.content {
            Content::Safetensors(bytes) => {
                let broken = |error| Error::format(&self.path, format!("tensor {name}: {error}"));
                let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
                let tensor = tensors.tensor(name).map_err(broken)?;
                Array { values: values(&self.path, name, &tensor)?, shape: found }
            }
            Content::Archive(arrays) => arrays.remove(name).unwrap_or(Array { shape: found, values: Vec::new() }),
        };
        self.precision.round(&mut array.values);
        array.check_finite(&self.path).map_err(|error| match error {
            Error::Format { path, reason } => Error::format(&path, format!("tensor {name}: {reason}")),
            other => other,
        })?;
        self.taken.insert(name.to_owned());
        Ok(array.values)
    }

    /// Refuses arrays that were not taken.
    ///
    /// # Errors
    /// The first of them.
    pub fn finish(self) -> Result<()> {
        let left = match &self.content {
            Content::Safetensors(_) => self.names().into_iter().find(|name| !self.taken.contains(name)),
            Content::Archive(arrays) => arrays.keys().find(|name| !self.taken.contains(*name)).cloned(),
        };
        match left {
            None => Ok(()),
            Some(name) => {
                let taken = self.taken.iter().cloned().collect::<Vec<_>>().join(", ");
                Err(Error::format(&self.path, format!("tensor {name}: expected {taken} alone with these settings")))
            }
        }
    }

    /// A mistake in this file.
    pub fn wrong(&self, reason: String) -> Error {
        Error::format(&self.path, reason)
    }

    fn missing(&self, name: &str, expected: &str) -> Error {
        let names = self.names();
        let found = if names.is_empty() { "no tensors".into() } else { format!("only {}", super::shortened(&names)) };
        Error::format(&self.path, format!("tensor {name} is missing: expected one of {expected}, found {found}"))
    }

    fn other_shape(&self, name: &str, expected: &str, found: &[usize]) -> Error {
        Error::format(&self.path, format!("tensor {name}: expected {expected}, found shape {found:?}"))
    }
}

/// A tensor's values in single precision.
fn values(path: &Path, name: &str, tensor: &TensorView) -> Result<Vec<f32>> {
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F32 => each(data, f32::from_le_bytes),
        Dtype::F16 => each(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F64 => each(data, |bytes| f64::from_le_bytes(bytes) as f32),
        other => {
            let reason = format!("tensor {name}: expected values of type F16, BF16, F32 or F64, found {other:?}");
            return Err(Error::format(path, reason));
        }
    })
}

fn each<const SIZE: usize>(data: &[u8], convert: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    data.as_chunks::<SIZE>().0.iter().map(|bytes| convert(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Cursor, Write};

    #[test]
    fn archives_are_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let write = |names: &[&str], content: &[u8]| {
            let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
            for name in names {
                zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(content).unwrap();
            }
            fs::write(&path, zip.finish().unwrap().into_inner()).unwrap();
        };
        let fails = || Arrays::archive(&path).map(|_| ()).unwrap_err().to_string();
        let header = b"\x93NUMPY\x01\x00\x3a\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,),  \n";
        let mut whole = header.to_vec();
        whole[8] = (header.len() - 10) as u8;
        whole.extend([0, 0, 128, 63, 0, 0, 0, 64]);
        write(&["b.npy"], &whole);
        let mut arrays = Arrays::archive(&path).unwrap();
        assert_eq!(arrays.take("b", &[2]).unwrap(), [1.0, 2.0]);
        write(&["b.npy"], &whole[..whole.len() - 1]);
        assert!(fails().contains("b.npy: expected 8 bytes of values"), "{}", fails());
        write(&["readme"], b"text");
        assert!(fails().contains("is no .npy array"), "{}", fails());
        fs::write(&path, b"PK\x03\x04nothing").unwrap();
        assert!(fails().contains("a broken archive"), "{}", fails());
    }
}
