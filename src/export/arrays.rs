//! Named arrays as `.npy`, `.npz` and safetensors files, for numpy and everything else that reads them.
//!
//! Headers are npyz's and safetensors' own; values go from memory or from spool files straight to disk, so that no file
//! is ever held in memory as a whole. Every file appears whole or not at all.

use crate::data::npy::NumberType;
use crate::error::{Error, Result};
use crate::files;
use npyz::WriterBuilder;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer.
    I32,
    /// Byte.
    U8,
}

impl Element {
    /// Bytes of one value.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::U8 => 1,
        }
    }

    fn safetensors(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::I32 => Dtype::I32,
            Self::U8 => Dtype::U8,
        }
    }

    fn numpy(self) -> &'static str {
        match self {
            Self::F32 => "<f4",
            Self::I32 => "<i4",
            Self::U8 => "|u1",
        }
    }
}

/// Where an array's values come from: little-endian, C order.
#[derive(Debug)]
pub enum Content {
    /// Memory.
    Bytes(Vec<u8>),
    /// A file, from this position on.
    File(Arc<File>, u64),
    /// Pieces of files, one after the other.
    Pieces(Vec<Piece>),
}

impl Content {
    /// Appends the pieces of others of the same kind.
    pub(super) fn extend(&mut self, other: Self) {
        if let (Self::Pieces(own), Self::Pieces(other)) = (self, other) {
            own.extend(other);
        }
    }
}

/// A piece of a file.
#[derive(Debug)]
pub struct Piece {
    /// The file: one that is opened where it is needed, or an open one, which may have no name.
    pub file: std::result::Result<Arc<File>, PathBuf>,
    /// Where the piece begins.
    pub start: u64,
    /// Its number of bytes.
    pub len: u64,
}

impl Piece {
    /// Copies it; how many bytes there were.
    fn copy_to(&self, writer: &mut impl Write) -> io::Result<u64> {
        let opened = self.file.as_ref().map_err(File::open);
        let mut file = match &opened {
            Ok(file) => &***file,
            Err(Ok(file)) => file,
            Err(Err(error)) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        file.seek(SeekFrom::Start(self.start))?;
        io::copy(&mut file.take(self.len), writer)
    }
}

/// A named array on its way to a file.
#[derive(Debug)]
pub struct NamedArray {
    /// Its name in the file.
    pub name: String,
    /// Type of its values.
    pub element: Element,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub content: Content,
}

impl NamedArray {
    /// An array of floats in memory.
    pub fn floats(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        let content = Content::Bytes(little_endian(values));
        Self { name: name.into(), element: Element::F32, shape: shape.to_vec(), content }
    }

    /// A one-dimensional array of integers in memory.
    pub fn integers(name: impl Into<String>, values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), element: Element::I32, shape: vec![values.len()], content: Content::Bytes(bytes) }
    }

    /// A one-dimensional array of bytes in memory.
    pub fn bytes(name: impl Into<String>, values: Vec<u8>) -> Self {
        Self { name: name.into(), element: Element::U8, shape: vec![values.len()], content: Content::Bytes(values) }
    }

    fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
    }

    /// Copies the values, all of them and no more.
    fn copy_to(&mut self, writer: &mut impl Write) -> io::Result<()> {
        let len = self.byte_len() as u64;
        let copied = match &mut self.content {
            Content::Bytes(bytes) => writer.write_all(bytes).map(|()| bytes.len() as u64)?,
            Content::File(file, start) => {
                let mut file = &**file;
                file.seek(SeekFrom::Start(*start))?;
                io::copy(&mut file.take(len), writer)?
            }
            Content::Pieces(pieces) => {
                pieces.iter().try_fold(0, |sum, piece| Ok::<_, io::Error>(sum + piece.copy_to(writer)?))?
            }
        };
        if copied != len {
            let reason = format!("array {} has {copied} bytes where its shape needs {len}", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(())
    }
}

/// Floats as bytes of a file.
pub(crate) fn little_endian(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Writes one safetensors file; `metadata` is a key and its text.
///
/// # Errors
/// A path that cannot be written, a full disk; an array whose values are not as many as its shape says.
pub fn write_safetensors(path: &Path, metadata: Option<(&str, String)>, mut arrays: Vec<NamedArray>) -> Result<()> {
    // The format wants wide types first, so that every array is aligned.
    arrays.sort_by_key(|array| std::cmp::Reverse(array.element.size()));
    let mut offset = 0;
    let infos = arrays.iter().map(|array| {
        let start = offset;
        offset += array.byte_len();
        let (dtype, shape) = (array.element.safetensors(), array.shape.clone());
        (array.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, offset) })
    });
    let metadata = metadata.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    let header = Metadata::new(metadata, infos.collect())
        .map_err(|error| error.to_string())
        .and_then(|header| serde_json::to_string(&header).map_err(|error| error.to_string()))
        .map_err(|reason| Error::format(path, reason))?;
    // Spaces align the values to 8 bytes.
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    files::write_atomically(path, |file| {
        let mut write = || -> io::Result<()> {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            arrays.iter_mut().try_for_each(|array| array.copy_to(file))
        };
        write().map_err(Error::write(path))
    })
}

/// Names of the arrays of a safetensors file, none where it cannot be read.
pub fn safetensors_names(path: &Path) -> Vec<String> {
    let header = files::open_with_length(path).ok().and_then(|(mut file, length)| {
        let mut size = [0; 8];
        file.read_exact(&mut size).ok()?;
        let size = u64::from_le_bytes(size);
        let mut header = Vec::new();
        file.take(size.min(length)).read_to_end(&mut header).ok()?;
        serde_json::from_slice::<Metadata>(&header).ok()
    });
    header.map_or_else(Vec::new, |header| header.offset_keys())
}

/// Writes one compressed `.npz` file.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_npz(path: &Path, mut arrays: Vec<NamedArray>) -> Result<()> {
    files::write_atomically(path, |file| {
        let write = || -> io::Result<()> {
            let mut archive = ZipWriter::new(file);
            for array in &mut arrays {
                // Sizes beyond 4 GiB must be announced.
                let options = SimpleFileOptions::default().large_file(array.byte_len() >= 1 << 31);
                // Ten times as fast as the usual level on codes, and some hundredths larger.
                let options = options.compression_level(Some(1));
                archive.start_file(npz_entry(&array.name), options)?;
                write_header(&mut archive, array.element.numpy(), &array.shape)?;
                array.copy_to(&mut archive)?;
            }
            archive.finish()?;
            Ok(())
        };
        write().map_err(Error::write(path))
    })
}

/// The name of an array's file in an `.npz` archive.
pub(crate) fn npz_entry(name: &str) -> String {
    format!("{name}.npy")
}

/// Writes one array as `.npy` (`<f4`, C order).
///
/// # Errors
/// As [`write_npy_with`].
pub fn write_npy(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    write_npy_with(path, shape, |append| append(values))
}

/// [`write_npy`] with numbers of another type, as `stored` says; returns how many had to be clipped.
///
/// # Errors
/// As [`write_npy`].
pub fn write_npy_as(path: &Path, shape: &[usize], values: &[f32], stored: NumberType) -> Result<usize> {
    let (bytes, clipped) = stored.bytes_of(values);
    files::write_atomically(path, |file| {
        write_header(&mut *file, &stored.numpy(), shape).map_err(Error::write(path))?;
        file.write_all(&bytes).map_err(Error::write(path))
    })?;
    Ok(clipped)
}

/// [`write_npy`] for values that come piece by piece: `fill` hands each piece, in C order, to the function that it is given.
///
/// # Errors
/// A path that cannot be written, a full disk; more or fewer values than the shape has; errors of `fill`.
pub fn write_npy_with(
    path: &Path,
    shape: &[usize],
    fill: impl FnOnce(&mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let len: usize = shape.iter().product();
    files::write_atomically(path, |file| {
        write_header(&mut *file, Element::F32.numpy(), shape).map_err(Error::write(path))?;
        let mut written = 0;
        fill(&mut |values| {
            written += values.len();
            file.write_all(&little_endian(values)).map_err(Error::write(path))
        })?;
        if written != len {
            return Err(Error::shape(path.display().to_string(), format!("{len} values to write"), written));
        }
        Ok(())
    })
}

/// The header of a `.npy` file.
fn write_header<W: Write>(writer: W, element: &str, shape: &[usize]) -> io::Result<()> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let element = element.parse().map_err(|_| invalid(format!("type {element}")))?;
    let extents: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
    let options = npyz::WriteOptions::new_header_only().dtype(npyz::DType::Plain(element)).shape(&extents);
    options.writer(writer).write_header_only().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_files_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_npy(&path, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, -6.5]).unwrap();
        let file = npyz::NpyFile::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(file.shape(), [2, 3]);
        assert_eq!(file.into_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, -6.5]);
    }

    #[test]
    fn too_few_values_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        assert!(write_npy(&path, &[2, 3], &[1.0]).is_err());
        assert!(write_safetensors(&path, None, vec![NamedArray::floats("a", &[3], &[1.0])]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn safetensors_and_npz_hold_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let arrays = || {
            let spool = tempfile::tempfile().unwrap();
            (&spool).write_all(&little_endian(&[9.0, 0.5, 0.25, 9.0])).unwrap();
            vec![
                NamedArray::bytes("stop", vec![0, 1, 0]),
                NamedArray {
                    name: "codes".into(),
                    element: Element::F32,
                    shape: vec![2, 1],
                    content: Content::File(Arc::new(spool), 4),
                },
                NamedArray::integers("count", &[7, -8]),
            ]
        };
        let path = folder.path().join("a.safetensors");
        write_safetensors(&path, Some(("key", "text".into())), arrays()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["key"], "text");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("codes").unwrap().data(), little_endian(&[0.5, 0.25]));
        assert_eq!(tensors.tensor("stop").unwrap().data(), [0, 1, 0]);
        assert_eq!(tensors.tensor("codes").unwrap().data().as_ptr() as usize % 4, bytes.as_ptr() as usize % 4);

        let path = folder.path().join("a.npz");
        write_npz(&path, arrays()).unwrap();
        let mut archive = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut array = |name: &str| {
            let mut bytes = Vec::new();
            archive.by_name(&npz_entry(name)).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        let [codes, count, stop] = ["codes", "count", "stop"].map(&mut array);
        assert_eq!(npyz::NpyFile::new(&codes[..]).unwrap().shape(), [2, 1]);
        assert_eq!(npyz::NpyFile::new(&count[..]).unwrap().into_vec::<i32>().unwrap(), [7, -8]);
        assert_eq!(npyz::NpyFile::new(&stop[..]).unwrap().into_vec::<u8>().unwrap(), [0, 1, 0]);
    }
}
