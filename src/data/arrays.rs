//! Signals in arrays that stay on disk: one file or many, mapped into memory when they are read.

use super::folder::name_below;
use super::labels;
use super::layout::{Layout, View};
use super::pictures::{Pictures, Window};
use super::stored::{Bytes, Strided};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::geometry::{MAX_TENSOR_LEN, SignalShape};
use memmap2::Mmap;
use std::collections::HashMap;
use std::fmt::Display;
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

/// A file of several, which is mapped when it is read.
pub(super) struct Shard {
    pub path: PathBuf,
    pub array: Strided,
    /// Length of the file.
    pub len: usize,
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
    Held(Vec<Bytes>),
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
        let view = view_of(&found.path, &found.array.extents, layout)?;
        let Found { path, bytes, array } = found;
        Self::new(path.clone(), view, Vec::new(), Files::Held(vec![bytes])).with_part(path, array, 0)
    }

    /// The signals of arrays of one file, one after the other.
    ///
    /// # Errors
    /// As [`Self::shards`].
    pub fn held(
        file: &Path,
        found: Vec<Found>,
        view: impl Fn(&Path, &[usize]) -> Result<View>,
        skipped: Option<String>,
    ) -> Result<Self> {
        let (held, shards): (Vec<Bytes>, Vec<Shard>) =
            found.into_iter().map(|Found { path, bytes, array }| (bytes, Shard { path, array, len: 0 })).unzip();
        let arrays = Self::shards(file, shards.into_iter().map(Ok), view, skipped)?;
        Ok(Self { files: Files::Held(held), ..arrays })
    }

    /// With something more to say of what was passed over.
    pub fn noted(mut self, note: String) -> Self {
        self.skipped = Some(self.skipped.into_iter().chain([note]).collect::<Vec<_>>().join("; "));
        self
    }

    /// The signals of several files, one after the other. Of those only so many are mapped at a time; none stays open.
    ///
    /// # Errors
    /// [`Error::Shape`] for arrays of different shapes, the first extent aside where it counts signals; as [`Self::one`].
    pub fn shards(
        folder: &Path,
        shards: impl IntoIterator<Item = Result<Shard>>,
        view: impl Fn(&Path, &[usize]) -> Result<View>,
        skipped: Option<String>,
    ) -> Result<Self> {
        let mut signals: Option<Self> = None;
        for shard in shards {
            let Shard { path, array, len } = shard?;
            let of_shard = view(&path, &array.extents)?;
            let all = match signals.take() {
                None => Self::new(folder.into(), of_shard, Vec::new(), Files::Many(Mutex::default())),
                Some(all) => {
                    let first = &all.parts[0];
                    if of_shard.trailing(&array.extents) != all.view.trailing(&first.array.extents) {
                        let [expected, found] = [(&first.path, &first.array), (&path, &array)]
                            .map(|(path, array)| format!("{} {:?}", name_below(path, folder), array.extents));
                        let what = format!("shards of {}", folder.display());
                        let wanted = match array.extents.len() == 1 || first.array.extents.len() == 1 {
                            true => {
                                "arrays of one shape (labels are read from labels.npy, X_labels.npy beside X.npy, or y_train.npy beside X_train.npy)"
                            }
                            false => "arrays of one shape",
                        };
                        return Err(Error::shape(what, wanted, format!("{expected} and {found}")));
                    }
                    all
                }
            };
            signals = Some(all.with_part(path, array, len)?);
        }
        let signals = signals.ok_or_else(|| Error::format(folder, "expected shards with signals, found none"))?;
        Ok(Self { skipped, ..signals })
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

    /// With class labels, one for every signal.
    pub fn labelled(self, labels: Vec<u8>) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// With the class labels of files, each for the signals of so many parts. Files of other labels are left out, as [`Source::skipped`]
    /// says.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn with_labels(self, files: &[(PathBuf, usize)]) -> Result<Self> {
        if files.is_empty() {
            return Ok(self);
        }
        let mut before = 0;
        let found = labels::read_all(files.iter().map(|(file, parts)| {
            let [first, end] = [before, before + parts].map(|part| self.first_of(part));
            let signals = if *parts == 1 { &self.parts[before].path } else { &self.path };
            before += parts;
            (file.as_path(), end - first, signals.as_path())
        }))?;
        match found {
            Ok(labels) => Ok(self.labelled(labels)),
            Err(reason) => Ok(self.noted(reason)),
        }
    }

    /// The number of the first signal of a file; of the one behind the last, the number of all.
    pub fn first_of(&self, part: usize) -> usize {
        self.parts.get(part).map_or(self.count, |part| part.first)
    }

    /// The part that holds a signal, and the signal's number in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        let part = self.parts.partition_point(|part| part.first <= index) - 1;
        (part, index - self.parts[part].first)
    }

    /// Calls `read` with the bytes of a part's file.
    fn with_bytes<T>(&self, part: usize, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match &self.files {
            Files::Held(all) => Ok(read(&all[part])),
            Files::Many(mapped) => {
                let map = mapped.lock().unwrap_or_else(PoisonError::into_inner).get(part, &self.parts[part])?;
                Ok(read(&map))
            }
        }
    }
}

impl Found {
    /// The same as a shard, no longer mapped.
    pub fn into_shard(self) -> Shard {
        Shard { path: self.path, array: self.array, len: self.bytes.len() }
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

/// The view of a file's array by a layout.
///
/// # Errors
/// As [`Arrays::one`].
pub(super) fn view_of(path: &Path, extents: &[usize], layout: Option<Layout>) -> Result<View> {
    let named = || path.display().to_string();
    let view =
        View::of(extents, layout).map_err(|expected| Error::shape(named(), expected, format!("shape {extents:?}")))?;
    if view.shape.len() > MAX_TENSOR_LEN {
        return Err(Error::shape(named(), format!("signals of at most {MAX_TENSOR_LEN} values"), view.shape));
    }
    Ok(view)
}

/// Refuses values that are infinite, not a number or too large, of `what` in a file.
///
/// # Errors
/// [`Error::Format`].
pub(super) fn check_values(values: &[f32], path: &Path, what: impl Display) -> Result<()> {
    let Some(value) = values.iter().find(|value| value.is_nan() || value.abs() > LARGEST) else { return Ok(()) };
    let expected = match value.is_finite() {
        true => format!("values of at most {LARGEST:e} in magnitude, whose squares fit into single precision"),
        false => format!("finite values, of at most {LARGEST:e} in magnitude"),
    };
    Err(Error::format(path, format!("expected {expected}, found {value} in {what}")))
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
        self.view.in_order(out);
        check_values(out, path, format_args!("signal {index}"))
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn has_channel_axis(&self) -> bool {
        self.view.has_channel_axis()
    }

    fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{DataConfig, Dataset, Layout, open};
    use crate::error::Result;
    use crate::export::arrays::write_npy;
    use crate::geometry::{Pair, SignalShape};
    use std::path::Path;

    fn open_with(folder: &Path, config: DataConfig) -> Result<Dataset> {
        open(&DataConfig { source: folder.to_str().unwrap().into(), ..config })
    }

    fn values(data: &Dataset) -> Vec<f32> {
        let mut out = vec![0.0; data.all.len() * data.all.shape().len()];
        data.all.read(&(0..data.all.len()).collect::<Vec<_>>(), &mut out).unwrap();
        out
    }

    fn numbers(from: usize, to: usize) -> Vec<f32> {
        (from..to).map(|value| value as f32).collect()
    }

    #[test]
    fn shards_in_natural_order_are_one_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, from, to) in [("act_2.npy", 0, 4), ("act_10.npy", 4, 5), ("act_11.npy", 5, 8)] {
            write_npy(&path(name), &[to - from, 2, 3], &numbers(6 * from, 6 * to)).unwrap();
        }
        let data = open_with(folder.path(), DataConfig::default()).unwrap();
        assert_eq!((data.all.len(), data.all.shape()), (8, SignalShape::new(1, 2, 3)));
        assert_eq!(values(&data), numbers(0, 48));
        let layout = Some(Layout::Time);
        let data = open_with(folder.path(), DataConfig { layout, ..DataConfig::default() }).unwrap();
        assert_eq!((data.all.len(), data.all.shape()), (8, SignalShape::new(2, 1, 3)));
        let config = DataConfig { patch: Some(Pair([1, 2])), patches: Some(40), ..DataConfig::default() };
        let patches = values(&open_with(folder.path(), config).unwrap());
        assert!(patches.chunks(2).all(|patch| patch[1] == patch[0] + 1.0));
        // What is no longer as it was when it was opened.
        let data = open_with(folder.path(), DataConfig::default()).unwrap();
        write_npy(&path("act_10.npy"), &[2, 2, 3], &[0.0; 12]).unwrap();
        let message = data.all.read(&[4], &mut [0.0; 6]).unwrap_err().to_string();
        assert!(message.contains("act_10.npy") && message.contains("was changed"), "{message}");
        write_npy(&path("act_10.npy"), &[2, 3, 2], &[0.0; 12]).unwrap();
        let message = open_with(folder.path(), DataConfig::default()).err().unwrap().to_string();
        for part in ["act_2.npy [4, 2, 3]", "act_10.npy [2, 3, 2]", "arrays of one shape"] {
            assert!(message.contains(part), "{message}");
        }
        write_npy(&path("act_10.npy"), &[2, 6], &[0.0; 12]).unwrap();
        assert!(open_with(folder.path(), DataConfig::default()).is_err());
    }

    #[test]
    fn channels_last_are_the_same_pictures_as_channels_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = numbers(0, 2 * 3 * 5 * 6);
        let last: Vec<f32> = (0..first.len())
            .map(|at| {
                let (picture, pixel, channel) = (at / 90, at % 90 / 3, at % 3);
                first[picture * 90 + channel * 30 + pixel]
            })
            .collect();
        let (first_file, last_file) = (folder.path().join("first.npy"), folder.path().join("last.npy"));
        write_npy(&first_file, &[2, 3, 5, 6], &first).unwrap();
        write_npy(&last_file, &[2, 5, 6, 3], &last).unwrap();
        let channels_last = DataConfig { layout: Some(Layout::ChannelsLast), ..DataConfig::default() };
        let data = open_with(&last_file, channels_last.clone()).unwrap();
        assert_eq!((data.all.len(), data.all.shape()), (2, SignalShape::new(3, 5, 6)));
        assert_eq!(values(&data), first);
        let patches = |config: DataConfig| DataConfig { patch: Some(Pair([2, 3])), patches: Some(20), ..config };
        let [of_first, of_last] = [(&first_file, DataConfig::default()), (&last_file, channels_last)]
            .map(|(file, config)| values(&open_with(file, patches(config)).unwrap()));
        assert_eq!(of_first, of_last);
        // Without a word they are refused.
        let message = open_with(&last_file, DataConfig::default()).err().unwrap().to_string();
        assert!(message.contains("channels-last") && message.contains("[2, 5, 6, 3]"), "{message}");
        write_npy(&last_file, &[5, 3], &numbers(0, 15)).unwrap();
        let in_time = DataConfig { layout: Some(Layout::TimeChannelsLast), ..DataConfig::default() };
        let data = open_with(&last_file, in_time).unwrap();
        assert_eq!((data.all.len(), data.all.shape()), (1, SignalShape::new(3, 1, 5)));
        assert_eq!(values(&data), [0, 3, 6, 9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14].map(|value| value as f32));
    }

    #[test]
    fn a_value_that_is_none_is_named_by_its_shard_and_row() {
        let folder = tempfile::tempdir().unwrap();
        for shard in 0..9 {
            let mut values = [0.0; 12];
            if shard == 7 {
                values[7] = f32::NAN;
            }
            write_npy(&folder.path().join(format!("acts{shard}.npy")), &[3, 4], &values).unwrap();
        }
        let data = open_with(folder.path(), DataConfig::default()).unwrap();
        let message = data.all.read(&[21, 22], &mut [0.0; 8]).unwrap_err().to_string();
        assert!(message.contains("acts7.npy") && message.contains("found NaN in signal 1"), "{message}");
    }

    /// More shards than are mapped at a time, from several threads, in an order that meets each often.
    #[test]
    fn many_shards() {
        let folder = tempfile::tempdir().unwrap();
        let count = 2 * super::MOST_MAPPED + 7;
        for shard in 0..count {
            write_npy(&folder.path().join(format!("{shard}.npy")), &[2, 1], &numbers(2 * shard, 2 * shard + 2))
                .unwrap();
        }
        let data = open_with(folder.path(), DataConfig::default()).unwrap();
        let order: Vec<usize> = (0..4 * count).map(|index| index * 7919 % (2 * count)).collect();
        let mut out = vec![0.0; order.len()];
        data.all.read(&order, &mut out).unwrap();
        assert_eq!(out, order.iter().map(|&index| index as f32).collect::<Vec<_>>());
    }
}
