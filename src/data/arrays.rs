//! Signals in arrays that stay on disk: one file or many, mapped into memory when they are read.

use super::layout::{Layout, View};
use super::pictures::{Pictures, Window};
use super::stored::{Bytes, Strided};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::geometry::{MAX_TENSOR_LEN, SignalShape};
use memmap2::Mmap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest magnitude of a signal's value. Squares of larger ones, summed over a signal, leave the range of single precision.
const LARGEST: f32 = 1e15;

/// Shards that are mapped at a time.
const MOST_MAPPED: usize = 256;

/// Maps a file and says how long it is.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for an empty file, which cannot be mapped.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let (file, len) = open_with_length(path)?;
    if len == 0 {
        return Err(Error::format(path, "expected signals, found an empty file"));
    }
    // SAFETY: a map is undefined behaviour only if the file is changed while it is read, which no reader of a file that another process
    // owns can rule out; beyond headers, which are checked, the bytes are used as numbers alone, never as lengths or pointers.
    unsafe { Mmap::map(&file) }.map_err(Error::read(path))
}

/// An array that was found in a file, whose length bears it out.
pub(super) struct Found {
    pub path: PathBuf,
    pub bytes: Bytes,
    pub array: Strided,
}

/// One file's part of the signals.
struct Part {
    path: PathBuf,
    array: Strided,
    /// Number of its first signal among all.
    first: usize,
    /// Length of the file when it was opened.
    len: usize,
}

enum Files {
    One(Bytes),
    Many(Mutex<Mapped>),
}

/// The shards that were read last.
#[derive(Default)]
struct Mapped {
    maps: HashMap<usize, (Arc<Mmap>, u64)>,
    clock: u64,
}

/// Signals in one array or, one after the other, in several.
pub(super) struct Arrays {
    path: PathBuf,
    parts: Vec<Part>,
    files: Files,
    view: View,
    count: usize,
    labels: Option<Vec<u8>>,
    skipped: Option<String>,
}

impl Arrays {
    /// The signals of a file.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array whose rank the layout does not admit, or signals that are too large.
    pub fn one(found: Found, layout: Option<Layout>) -> Result<Self> {
        let view = view_of(&found, layout)?;
        let Found { path, bytes, array } = found;
        Self::new(path.clone(), view, Vec::new(), Files::One(bytes)).with_part(path, array, 0)
    }

    fn new(path: PathBuf, view: View, parts: Vec<Part>, files: Files) -> Self {
        Self { path, parts, files, view, count: 0, labels: None, skipped: None }
    }

    fn with_part(mut self, path: PathBuf, array: Strided, len: usize) -> Result<Self> {
        let count = self.view.count(&array.extents);
        self.parts.push(Part { path, array, first: self.count, len });
        self.count = self.count.checked_add(count).ok_or_else(|| {
            Error::shape(format!("signals of {}", self.path.display()), format!("at most {}", usize::MAX), "more")
        })?;
        Ok(self)
    }

    /// With a class label for every signal.
    pub fn with_labels(self, labels: Option<Vec<u8>>) -> Self {
        Self { labels, ..self }
    }

    /// The part that holds a signal, and the signal's number in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        let part = self.parts.partition_point(|part| part.first <= index) - 1;
        (part, index - self.parts[part].first)
    }

    /// Calls `read` with the bytes of a part's file.
    fn with_bytes<T>(&self, part: usize, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match &self.files {
            Files::One(bytes) => Ok(read(bytes)),
            Files::Many(mapped) => {
                let map = mapped.lock().unwrap_or_else(PoisonError::into_inner).get(part, &self.parts[part])?;
                Ok(read(&map))
            }
        }
    }
}

impl Mapped {
    fn get(&mut self, number: usize, part: &Part) -> Result<Arc<Mmap>> {
        self.clock += 1;
        if let Some((map, used)) = self.maps.get_mut(&number) {
            *used = self.clock;
            return Ok(map.clone());
        }
        if self.maps.len() >= MOST_MAPPED
            && let Some(oldest) = self.maps.iter().min_by_key(|(_, (_, used))| *used).map(|(&number, _)| number)
        {
            self.maps.remove(&oldest);
        }
        let map = Arc::new(map(&part.path)?);
        if map.len() != part.len {
            let found = format!("found {}: the file was changed", map.len());
            return Err(Error::format(&part.path, format!("expected {} bytes, {found}", part.len)));
        }
        self.maps.insert(number, (map.clone(), self.clock));
        Ok(map)
    }
}

fn view_of(found: &Found, layout: Option<Layout>) -> Result<View> {
    let named = || found.path.display().to_string();
    let extents = &found.array.extents;
    let view =
        View::of(extents, layout).map_err(|expected| Error::shape(named(), expected, format!("shape {extents:?}")))?;
    if view.shape.len() > MAX_TENSOR_LEN {
        return Err(Error::shape(named(), format!("signals of at most {MAX_TENSOR_LEN} values"), view.shape));
    }
    Ok(view)
}

impl Pictures for Arrays {
    fn count(&self) -> usize {
        self.count
    }

    fn shape(&self, _index: usize) -> SignalShape {
        self.view.shape
    }

    fn common_shape(&self) -> Option<SignalShape> {
        Some(self.view.shape)
    }

    fn name(&self, index: usize) -> String {
        let (part, index) = self.locate(index);
        format!("signal {index} of {}", self.parts[part].path.display())
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let (number, index) = self.locate(index);
        let Part { path, array, .. } = &self.parts[number];
        let rank = array.extents.len();
        let window = [window.top, window.left, window.height, window.width];
        let [start, block] = self.view.block(&array.extents, index, window);
        self.with_bytes(number, |bytes| array.read_block(bytes, &start[..rank], &block[..rank], out))?;
        match out.iter().find(|value| value.is_nan() || value.abs() > LARGEST) {
            None => Ok(()),
            Some(value) => {
                let expected = match value.is_finite() {
                    true => {
                        format!("values of at most {LARGEST:e} in magnitude, whose squares fit into single precision")
                    }
                    false => "finite values in single precision".into(),
                };
                Err(Error::format(path, format!("expected {expected}, found {value} in signal {index}")))
            }
        }
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
