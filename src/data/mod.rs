//! Where signals come from: files, folders of images, MNIST, and digits drawn by a generator.
//!
//! Everything that can be read is a [`Source`]: a number of signals of one shape, read by index into a caller's
//! buffer, so that nothing but raw bytes is ever held for the whole set.

mod arrays;
mod burn;
mod cifar;
pub mod deskew;
pub mod digits;
mod fingerprint;
mod folder;
mod idx;
mod images;
mod indices;
mod integrity;
mod jpeg;
mod labels;
pub(crate) mod layout;
mod memory;
mod mnist;
pub mod npy;
pub(crate) mod npz;
mod pictures;
pub(crate) mod png;
pub mod quality;
mod resolution;
mod saev;
mod shard;
mod stored;
mod tensors;
mod wav;

pub use burn::{SignalBatcher, SignalDataset};
pub use fingerprint::Fingerprint;
pub(crate) use fingerprint::sample;
pub(crate) use fingerprint::{digest, digest_number};
#[cfg(feature = "cli")]
pub(crate) use folder::files_read;
pub use folder::{has_own_units, pictures_and_arrays};
pub use images::{Still, is_deep};
pub use layout::Layout;
pub use memory::{InMemory, first};
pub use shard::{Part, Shard};
pub use wav::{encode_recording, sampling_rate};

use crate::error::{Error, Result};
use crate::files::{is_pipe, open_with_length};
use crate::geometry::{MAX_TENSOR_LEN, Overlapping, Pair, SignalShape, checked_len};
use crate::text::{beginning, counted};
use arrays::Arrays;
use cifar::Cifar;
use folder::{Classes, Listing, Skipped};
use layout::View;
use pictures::Collection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most signals that are drawn and most patches that are cut (2²⁴).
///
/// A configuration comes from a file; this keeps a mistyped number from becoming an allocation.
pub const MAX_DRAWN: usize = 1 << 24;

/// A set of signals of one shape, read by index.
pub trait Source: Send + Sync {
    /// Number of signals.
    fn len(&self) -> usize;

    /// Whether there is no signal.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of every signal.
    fn shape(&self) -> SignalShape;

    /// Reads the signals at `indices` into `out`, laid out as `[indices.len(), channels, height, width]`.
    ///
    /// Pixels of images lie in [0, 1]; arrays are passed on as they are.
    ///
    /// # Errors
    /// Files that vanished or turn out damaged; values that are not finite.
    ///
    /// # Panics
    /// If an index is out of range or `out` has another length than the signals need.
    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()>;

    /// Class labels, where the source has them: one per signal.
    fn labels(&self) -> Option<&[u8]> {
        None
    }

    /// Names of the classes, from label 0 on, where they have some: those of the folders that pictures lie in.
    fn class_names(&self) -> Option<&[String]> {
        None
    }

    /// The file that holds one signal and nothing else, where there is one: a picture of its own.
    fn file(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// How many signals in a row belong together, as the patches of a window do: at least 1; the number of signals is a multiple of it.
    fn together(&self) -> usize {
        1
    }

    /// What was passed over when the source was opened and why, in one line, if anything was.
    fn skipped(&self) -> Option<&str> {
        None
    }

    /// Samples a second of recordings; `None` of everything else.
    fn sampling_rate(&self) -> Option<u32> {
        None
    }

    /// Whether the array that signals come from has an axis of channels, as `[n, height, width]` has not; `true` of everything else.
    fn has_channel_axis(&self) -> bool {
        true
    }

    /// What this is, for messages: a path, or a name with its settings.
    fn describe(&self) -> String;
}

/// What to read and how; stored in run folders, so that a resumed run reads the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `digits`, `mnist`, or the path of an IDX file, of a folder with MNIST's IDX files, of an image, of a folder of
    /// images, of a `.npy` array, of a `.npz` archive, of a
    /// safetensors file, of a `.wav` file, of a folder of files of one of these kinds but archives, or of folders of them (classes of images
    /// or recordings, or `train` and `test`),
    /// of a folder with CIFAR's binary files or of one that saev wrote. Default `digits`.
    #[serde(default = "default_source")]
    pub source: String,
    /// Signals to draw for `digits`, from 2 to 2²⁴. Default 12,000. Of every six one is held out. Ignored
    /// by other sources.
    #[serde(default)]
    pub count: Option<usize>,
    /// Height and width of random patches to cut from the signals instead of using them whole, at least 1; of signals in time,
    /// which have one row, one number is a length. Default: whole.
    #[serde(default)]
    pub patch: Option<Pair>,
    /// Number of random patches, from 1 to 2²⁴. Default 20,000. Ignored without `patch`.
    #[serde(default)]
    pub patches: Option<usize>,
    /// Height and width of random windows, all of whose patches of the size `patch` are taken that begin at multiples of a quarter of it,
    /// rounded up, one after the other; `patches` is then made a multiple of what a window has, two windows at least. For training to take
    /// noise off, whose loss is then that of the window that the overlapping patches are averaged to. Default: patches from anywhere.
    #[serde(default)]
    pub window: Option<Pair>,
    /// Whether colour images are turned grey, as Pillow's `convert("L")` does: (19595 R + 38470 G + 7471 B + 2¹⁵) / 2¹⁶ rounded
    /// down, the luma of ITU-R BT.601; those of arrays by the same weights without rounding. Default: they stay as they are; grey
    /// ones among colour ones become colour. Transparency
    /// is dropped. Of formats that do not say whether a picture is grey (WebP, palettes) those are of which all pixels are.
    /// Refused for vectors and signals in time.
    #[serde(default)]
    pub grey: bool,
    /// What the axes of an array mean: `vectors` (d×1×1; whatever a row holds is flattened), `tokens` (d×1×1, along the last axis), `time`
    /// (c×1×t), `images` (c×h×w), `maps` (c×h×w), or with the channels as the last axis `channels-last` (c×h×w) and `time-channels-last`
    /// (c×1×t). Default: by the rank, `[d]` and `[n, d]` being vectors, `[n, h, w]` and `[n, c, h, w]` images. Images of other sources
    /// can be flattened by `vectors`; other layouts than their own are refused.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Name of the tensor to read of a safetensors file, or of the array of a `.npz` archive. Default: the only one. Refused for other sources.
    #[serde(default)]
    pub tensor: Option<String>,
    /// The layer to read of activations that saev wrote, by its number in their `layers`. Default: the only one. Refused for other sources.
    #[serde(default)]
    pub layer: Option<i64>,
    /// Part of the signals, in [0, 1), that is held out where a source does not come with a test set. Default 0.1, at
    /// least one signal where there are two.
    #[serde(default = "default_held_out")]
    pub held_out: f32,
    /// Seed of the generator, of the patches and of the split. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Training signals among which the order of an epoch is drawn, from 64 to 2²⁴. Of more signals than that, blocks of a 64th of it,
    /// which lie together in their file, come at random, and 64 blocks at a time are shuffled: so only these signals' numbers are in
    /// memory, and files are read where they lie together. Of windows (`window`): their number. Default 2¹⁸.
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: usize,
}

/// What [`DataConfig::shuffle_buffer`] is where nothing is said (2¹⁸).
pub const SHUFFLE_BUFFER: usize = 1 << 18;

fn default_shuffle_buffer() -> usize {
    SHUFFLE_BUFFER
}

fn default_source() -> String {
    "digits".into()
}

fn default_held_out() -> f32 {
    0.1
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: default_source(),
            count: None,
            patch: None,
            patches: None,
            window: None,
            grey: false,
            layout: None,
            tensor: None,
            layer: None,
            held_out: default_held_out(),
            seed: 0,
            shuffle_buffer: SHUFFLE_BUFFER,
        }
    }
}

/// Part of a [`Dataset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Split {
    /// Signals to learn from.
    Train,
    /// Held-out signals.
    Test,
    /// Both, the training signals first (for a single file: in the file's order).
    All,
}

/// Signals to learn from and signals held out, of one shape.
#[derive(Clone)]
pub struct Dataset {
    /// Signals to learn from.
    pub train: Arc<dyn Source>,
    /// Held-out signals of the same shape.
    pub test: Arc<dyn Source>,
    /// All signals.
    pub all: Arc<dyn Source>,
    /// Whether the source itself says what its test set is (MNIST, `digits`), rather than a part being cut off.
    pub has_test_set: bool,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { train, test, all, has_test_set } = self;
        let mut told = formatter.debug_struct("Dataset");
        told.field("source", &all.describe()).field("shape", &all.shape()).field("train", &train.len());
        told.field("test", &test.len()).field("has_test_set", has_test_set).finish()
    }
}

impl Dataset {
    /// The signals of one part.
    pub fn split(&self, split: Split) -> &Arc<dyn Source> {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
            Split::All => &self.all,
        }
    }
}

/// Signals of one shape out of a set that may hold several.
#[derive(Clone)]
pub struct Group {
    /// The signals.
    pub source: Arc<dyn Source>,
    /// Where each of them stands in the whole set, from 0, ascending.
    pub places: Places,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { source, places } = self;
        let mut told = formatter.debug_struct("Group");
        told.field("source", &source.describe()).field("shape", &source.shape()).field("places", places).finish()
    }
}

/// Where each signal of a group stands among all that were asked for, from 0, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// The group is all of them: so many.
    All(usize),
    /// There are others in between.
    Listed(Vec<usize>),
}

impl Places {
    /// Number of signals.
    pub fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::Listed(places) => places.len(),
        }
    }

    /// Whether there is no signal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of one signal.
    ///
    /// # Panics
    /// If there is no such signal.
    pub fn get(&self, index: usize) -> usize {
        match self {
            Self::All(count) => {
                assert!(index < *count, "signal {index} of {count}");
                index
            }
            Self::Listed(places) => places[index],
        }
    }

    /// The places of all signals.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl DataConfig {
    /// Checks the ranges of the numbers; whether there is such a source is [`open`]'s to say.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the field's name.
    pub fn check(&self) -> Result<()> {
        if let Some(count) = self.count.filter(|count| !(2..=MAX_DRAWN).contains(count)) {
            return Err(Error::parameter("count", count, format!("a number from 2 to {MAX_DRAWN}")));
        }
        if let Some(patches) = self.patches.filter(|patches| !(1..=MAX_DRAWN).contains(patches)) {
            return Err(Error::parameter("patches", patches, format!("a number from 1 to {MAX_DRAWN}")));
        }
        if let Some(patch) = self.patch.filter(|patch| patch.0.contains(&0) || checked_len(&patch.0).is_none()) {
            let expected = format!("at least 1 in both directions and at most {MAX_TENSOR_LEN} pixels");
            return Err(Error::parameter("patch", patch, expected));
        }
        match (self.window, self.patch) {
            (Some(window), None) => {
                return Err(Error::parameter("window", window, "`patch` beside it, the size of its patches"));
            }
            (Some(window), Some(patch)) => drop(Overlapping::new(window.0, patch.0)?),
            (None, _) => (),
        }
        if !(64..=MAX_DRAWN).contains(&self.shuffle_buffer) {
            return Err(Error::parameter(
                "shuffle_buffer",
                self.shuffle_buffer,
                format!("a number from 64 to {MAX_DRAWN}"),
            ));
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return Err(Error::parameter("held_out", self.held_out, "a number of at least 0 and less than 1"));
        }
        Ok(())
    }
}

/// Opens what a configuration names and divides it into signals to learn from and held-out ones.
///
/// | source | signals | test set |
/// |---|---|---|
/// | `digits` | drawn by the generator, 1x28x28 | every sixth |
/// | `mnist` | 60,000 and 10,000 of 1x28x28, downloaded once to the user's cache folder | MNIST's own |
/// | folder with `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte` (or `.idx3`, `.gz`) | their images | the second |
/// | IDX file of unsigned bytes of rank 2 to 4, gzipped or not | as those of a `.npy` array, in [0, 1] | a random part |
/// | folder with CIFAR-10's `data_batch_1.bin` …, `test_batch.bin`, or CIFAR-100's `train.bin`, `test.bin` (fine labels) | 3x32x32 | CIFAR's own |
/// | one of these files | its images | a random part |
/// | folder of PNG, JPEG, PNM, TIFF, BMP or WebP files | images in the order of names | a random part |
/// | file of one of these formats | one image | the same |
/// | `.npy` array of rank 1 to 4 | its values as they are, see [`Layout`] | a random part |
/// | safetensors file, one tensor of rank 1 to 4 | likewise | a random part |
/// | `.npz` archive with one array of signals | likewise | a random part |
/// | `.npz` archive with arrays named `train` and `test`, as `x_train` and `x_test` | those of both | the second |
/// | `.wav` file or folder of such, of integers of 8 to 32 bits or of floating-point numbers | whole recordings, channels x1xsamples, integers in [-1, 1) | a random part |
/// | folder of `.npy` or of `.safetensors` files of equal shape, the first extent aside | those of all, in natural order of names | a random part |
/// | folder of folders of images or of recordings | those of all; the folders are their classes | a random part |
/// | folder of folders `train` and `test` (or `val`) of any of these | their signals | the second |
/// | folder of saev's: `metadata.json`, `shards.json`, `acts000000.bin` … | tokens of one layer without \[CLS\], d×1×1 | a random part |
///
/// Files are recognised by their content, CIFAR's by their names, those in a folder by their ending (`png`, `jpg`, `jpeg`, `jpe`, `jfif`,
/// `pgm`, `ppm`, `pnm`, `pbm`, `pam`, `tif`, `tiff`, `bmp`, `webp`; `npy`; `safetensors`; `wav`). Of several kinds in a folder the one of
/// which there are most files is read, the first of these where they are equally many; other files, hidden ones and subfolders are
/// skipped, as [`Source::skipped`] says. Of a file of several pages, frames or pictures the first is read. Images come as viewers show
/// them, turned as their EXIF data say; one whose data are less or more than its size asks for is refused. A file named `digits` or `mnist`
/// is reached as `./digits`. Of arrays in a folder those whose names say `train` and those that say `test` (or `val`), as `X_train.npy` and
/// `X_test.npy` do, are the two parts, and others beside them are skipped. Subfolders are read where no file beside them is, folders `train`
/// and `test` also where there is a single one.
///
/// Signals have class labels where `labels.npy` lies beside them (in a folder: in the order of its files, where by their names and by their
/// numbers it is the same: `p09.png`, `p10.png`), or for arrays
/// `X_labels.npy` beside `X.npy`, or `y_train.npy` beside `X_train.npy` (in a folder beside each of its arrays): whole numbers from 0 to 255,
/// one for every signal, `[n]` or `[n, 1]`. In an archive they are arrays named likewise, or `y` beside `X`. A file of other labels is left out, as [`Source::skipped`] says. The classes of files in
/// subfolders are numbered in natural order of the folders' names, from 0; folders named by whole numbers from 0 to 255 alone are these labels.
/// With [`DataConfig::patch`] the signals are patches of all that: held-out
/// ones are cut from held-out signals, unless there is only one.
///
/// Arrays, safetensors and activations are mapped, of shards no more than 256 at a time, and no file stays open. Beside the signals that
/// are worked on, memory holds a bit for each (which are held out) and the numbers of those in [`DataConfig::shuffle_buffer`]; labels
/// are a byte each, in every part. Pages of mapped files count as resident while there is room; the system takes them back as it likes.
///
/// # Errors
/// [`Error::Parameter`] for a field out of range or a source that does not exist; [`Error::Io`]; [`Error::Format`] and
/// [`Error::Shape`] for files that are damaged, not of the kinds above, or of several shapes; [`Error::Download`].
pub fn open(config: &DataConfig) -> Result<Dataset> {
    collection(config)?.into_dataset(config)
}

/// Opens what a configuration names as [`open`] does, but lets pictures have different sizes: signals of one shape come
/// together, in as many groups as there are shapes.
///
/// Groups stand in the order of their first signals. Where all signals are of one shape, as arrays, IDX files and patches
/// always are, there is one group. `split` says which part; without it, the test set where the source comes with one, else
/// everything: the part that was taken is returned too. Of it the first `limit` signals (at least 1) are used. [`Source::file`]
/// tells which picture a signal is.
///
/// # Errors
/// As [`open`], except for signals of several shapes.
pub fn open_by_size(config: &DataConfig, split: Option<Split>, limit: usize) -> Result<(Split, Vec<Group>)> {
    collection(config)?.into_groups(config, split, limit)
}

/// Checks that a model for signals of shape `model` can be applied to signals of another size: what is called `what` has its channels, and one
/// row where the model's have one.
///
/// # Errors
/// [`Error::Shape`], with the way out where there is one.
pub(crate) fn check_channels(model: SignalShape, found: SignalShape, what: &str) -> Result<()> {
    let wanted = match found.channels == model.channels {
        true if !model.is_in_time() || found.height == 1 => return Ok(()),
        // Rows of pictures would be coded as if each were a signal for itself.
        true => "signals in time, as the model's, of one row".to_owned(),
        false => format!("{}, as the model's", counted(model.channels, "channel")),
    };
    let ways: Vec<String> = way_of_axes(model, found).into_iter().collect();
    Err(Error::shape(what, with_ways(wanted, &ways), found))
}

/// What to say is expected of signals that have another shape than a model's, `model`, with the way out where there is one.
pub(crate) fn wanted_shape(wanted: impl ToString, model: SignalShape, found: SignalShape) -> String {
    let grey = turns_grey(model, found);
    let axes = way_of_axes(model, found);
    if let Some(way) = axes.as_ref().filter(|_| !grey) {
        return with_ways(wanted.to_string(), std::slice::from_ref(way));
    }
    let size = match model.is_in_time() {
        true => model.width.to_string(),
        false => format!("{}x{}", model.height, model.width),
    };
    let is_larger = found.height >= model.height && found.width >= model.width;
    let differs = [found.height, found.width] != [model.height, model.width];
    let cut = is_larger && differs && (grey || model.channels == found.channels);
    let cut = cut.then(|| format!("`patch` {size} cuts pieces of the model's size"));
    with_ways(wanted.to_string(), &axes.into_iter().chain(cut).collect::<Vec<_>>())
}

fn with_ways(wanted: String, ways: &[String]) -> String {
    if ways.is_empty() { wanted } else { format!("{wanted} ({})", ways.join(", ")) }
}

/// Whether signals are pictures in colours and the model's in grey.
fn turns_grey(model: SignalShape, found: SignalShape) -> bool {
    [model.channels, found.channels] == [1, 3] && found.height > 1 && !model.is_in_time()
}

/// How an array of signals, or pictures in colours, could be read so that it fits a model.
fn way_of_axes(model: SignalShape, found: SignalShape) -> Option<String> {
    let way = match (model.channels, found) {
        (_, SignalShape { channels: 1, height: 2.., width })
            if width == model.channels && model.is_single_position() =>
        {
            "with `layout` tokens the last axis of an array holds the vectors"
        }
        (2.., SignalShape { channels: 1, height: 2.., width }) if width == model.channels && model.is_in_time() => {
            "with `layout` time-channels-last the last axis of an array holds the channels of signals in time"
        }
        (_, SignalShape { channels: 2.., height: 1, width: 1 } | SignalShape { height: 2.., .. })
            if model.is_in_time() =>
        {
            "with `layout` time an array [count, time] or [count, channels, time] holds signals in time"
        }
        (1, SignalShape { channels: 4.., height: 1, width: 1 }) => {
            "with `layout` images an array [height, width] is an image"
        }
        _ if turns_grey(model, found) => "`grey` turns colour pictures grey",
        _ => return None,
    };
    Some(way.to_owned())
}

/// Reads a whole array: that of a `.npy` file, or the only one of a safetensors file or a `.npz` archive.
///
/// # Errors
/// As [`npy::read_array`]; a file with several arrays.
pub fn read_array(path: &Path) -> Result<npy::Array> {
    let mut start = Vec::new();
    open_with_length(path)?.0.take(16).read_to_end(&mut start).map_err(Error::read(path))?;
    if start.starts_with(&npz::MAGIC) {
        let mut archive = npz::Archive::open(path)?;
        return match archive.names() {
            [only] => archive.read(&only.clone()),
            names => Err(Error::format(path, format!("expected a file with one array, found {}", names.len()))),
        };
    }
    if !tensors::is_beginning(&start) {
        return npy::read_array(path);
    }
    let (found, _) = tensors::find(path, None).map_err(|error| match error {
        Error::Missing { .. } => Error::format(path, "expected a file with one array, found several"),
        other => other,
    })?;
    found.whole().map(|(array, _)| array)
}

fn collection(config: &DataConfig) -> Result<Collection> {
    config.check()?;
    let (mut collection, kind) = match config.source.as_str() {
        "digits" => (digits::open(config.count, config.seed).laid_out(config.layout, Layout::Images)?, Kind::Other),
        "mnist" => (mnist::open()?.laid_out(config.layout, Layout::Images)?, Kind::Other),
        path => open_path(Path::new(path), config)?,
    };
    if config.grey && kind != Kind::Pictures {
        collection = collection.turned_grey()?;
    }
    if let Some(tensor) = config.tensor.as_ref().filter(|_| kind != Kind::Tensors) {
        let expected = format!("none, for {} holds no arrays with names", collection.pictures.describe());
        return Err(Error::parameter("tensor", format!("{tensor:?}"), expected));
    }
    if let Some(layer) = config.layer.filter(|_| kind != Kind::Activations) {
        let expected = format!("none, for {} is no folder of saev's", collection.pictures.describe());
        return Err(Error::parameter("layer", layer, expected));
    }
    Ok(collection)
}

/// Sources that have settings of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Files of pictures.
    Pictures,
    /// Safetensors, or an archive of arrays.
    Tensors,
    /// A folder of saev's.
    Activations,
    Other,
}

fn open_path(path: &Path, config: &DataConfig) -> Result<(Collection, Kind)> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let expected = "`digits`, `mnist` or the path of a file or folder; there is no such path";
            return Err(Error::parameter("source", format!("{:?}", config.source), expected));
        }
        Err(error) => return Err(Error::read(path)(error)),
    };
    if metadata.is_dir() {
        return open_folder(path, config);
    }
    // A device might never end.
    if !metadata.is_file() && !is_pipe(path) {
        return Err(Error::format(path, "expected a file, a folder or a pipe, found something else"));
    }
    let mut start = Vec::new();
    open_with_length(path)?.0.take(16).read_to_end(&mut start).map_err(Error::read(path))?;
    if start.is_empty() {
        return Err(Error::format(path, "expected signals, found an empty file"));
    }
    let other = |collection: Collection| Ok((collection, Kind::Other));
    let of_one = |path: &Path| labels::beside(path).map(|labels| (labels, 1)).into_iter().collect::<Vec<_>>();
    // Without a header: by its name, whatever the first pixels look like.
    if let Some(set) = Cifar::of_file(path) {
        return other(Collection::of(set.open(path, &[path.into()], config.layout)?));
    }
    if start.starts_with(&npy::NPY_MAGIC) {
        let arrays = Arrays::one(npy::find(path)?, config.layout)?;
        other(Collection::of(arrays.with_labels(&of_one(path))?))
    } else if start.starts_with(&npz::MAGIC) {
        Ok((npz::open(path, config)?, Kind::Tensors))
    } else if tensors::is_beginning(&start) {
        let (found, _) = tensors::find(path, config.tensor.as_deref())?;
        let arrays = Arrays::one(found, config.layout)?;
        Ok((Collection::of(arrays.with_labels(&of_one(path))?), Kind::Tensors))
    } else if start.starts_with(&idx::GZIP_MAGIC) || start.starts_with(&idx::IDX_MAGIC[..2]) {
        other(Collection::of(idx::open(path, config.layout)?))
    } else if wav::is_beginning(&start) {
        let recording = wav::Recordings::open(path, &[path.into()], Skipped::default())?;
        other(Collection::of(recording).laid_out(config.layout, Layout::Time)?)
    } else if images::format_of(&start).is_some() {
        let image = images::Images::open_file(path, config.grey)?;
        Ok((Collection::of(image).laid_out(config.layout, Layout::Images)?, Kind::Pictures))
    } else {
        let expected = format!(
            "expected an IDX file (gzipped or not), a {} image, a .npy array, a .npz archive, a safetensors file or a .wav recording",
            images::FORMATS
        );
        let found = format!("found a file that begins with {}", beginning(&start));
        Err(Error::format(path, format!("{expected}, {found}")))
    }
}

fn open_folder(folder: &Path, config: &DataConfig) -> Result<(Collection, Kind)> {
    let other = |collection: Collection| Ok((collection.laid_out(config.layout, Layout::Images)?, Kind::Other));
    if let Some(collection) = idx::Folder::find(folder).open()? {
        return other(collection);
    }
    if let Some(collection) = Cifar::open_folder(folder, config.layout)? {
        return Ok((collection, Kind::Other));
    }
    if saev::is_folder(folder) {
        let (shards, skipped) = saev::find(folder, config.layer)?;
        let view = |_: &Path, extents: &[usize]| Ok(View::of_vectors(extents));
        let activations = Arrays::shards(folder, shards.into_iter().map(Ok), view, skipped.describe(folder))?;
        return Ok((Collection::of(activations).laid_out(config.layout, Layout::Vectors)?, Kind::Activations));
    }
    let Listing { kind, paths, test, labels, classes, mut skipped } = Listing::of(folder)?;
    let train = paths.len() - test;
    let view = |path: &Path, extents: &[usize]| arrays::view_of(path, extents, config.layout);
    match kind {
        Some(folder::Kind::Images) => {
            let classes = classes_of(folder, classes, &labels, &mut skipped)?;
            let images = Collection::of(images::Images::open_files(folder, &paths, config.grey, skipped)?);
            let images = images.labelled(classes).tested_from(train);
            Ok((images.laid_out(config.layout, Layout::Images)?, Kind::Pictures))
        }
        Some(folder::Kind::Recordings) => {
            let classes = classes_of(folder, classes, &labels, &mut skipped)?;
            let recordings = Collection::of(wav::Recordings::open(folder, &paths, skipped)?);
            let recordings = recordings.labelled(classes).tested_from(train);
            Ok((recordings.laid_out(config.layout, Layout::Time)?, Kind::Other))
        }
        Some(folder::Kind::Arrays) => {
            let shards = paths.iter().map(|path| Ok(npy::find(path)?.into_shard()));
            let arrays = Arrays::shards(folder, shards, view, skipped.describe(folder))?;
            let first = arrays.first_of(train);
            Ok((Collection::of(arrays.with_labels(&labels)?).tested_from(first), Kind::Other))
        }
        Some(folder::Kind::Tensors) => {
            let mut of_first: Option<(String, &Path)> = None;
            let shards = paths.iter().map(|path| {
                let (found, name) = tensors::find(path, config.tensor.as_deref())?;
                match &of_first {
                    Some((first, at)) if *first != name => {
                        let found = format!("{first:?} in {} and {name:?} in {}", at.display(), path.display());
                        return Err(Error::shape(
                            format!("shards of {}", folder.display()),
                            "one tensor's name",
                            found,
                        ));
                    }
                    Some(_) => {}
                    None => of_first = Some((name, path)),
                }
                Ok(found.into_shard())
            });
            let arrays = Arrays::shards(folder, shards, view, skipped.describe(folder))?;
            let first = arrays.first_of(train);
            Ok((Collection::of(arrays.with_labels(&labels)?).tested_from(first), Kind::Tensors))
        }
        None => {
            let expected = format!(
                "expected {} images, .npy, .safetensors or .wav files, or files of MNIST, CIFAR or saev by their names, in it, in folders of classes or in train and test",
                images::FORMATS
            );
            let skipped = skipped.describe(folder).map_or(String::new(), |skipped| format!("; {skipped}"));
            Err(Error::format(folder, format!("{expected}, found none of them{skipped}")))
        }
    }
}

/// The classes of files that hold one signal each: by their folders or by files of labels; what does not fit is left out and noted.
fn classes_of(
    folder: &Path,
    by_folders: Option<Classes>,
    files: &[(PathBuf, usize)],
    skipped: &mut Skipped,
) -> Result<Option<Classes>> {
    if by_folders.is_some() || files.is_empty() {
        return Ok(by_folders);
    }
    match labels::read_all(files.iter().map(|(file, count)| (file.as_path(), *count, folder)))? {
        Ok(of_files) => Ok(Some(Classes { names: Vec::new(), of_files })),
        Err(reason) => {
            skipped.notes.push(reason);
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(config: DataConfig) -> String {
        let message = open(&config).err().unwrap().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn ranges_name_the_field() {
        let default = DataConfig::default;
        for (config, field) in [
            (DataConfig { count: Some(1), ..default() }, "count = 1:"),
            (DataConfig { count: Some(usize::MAX), ..default() }, "count = "),
            (DataConfig { patches: Some(0), ..default() }, "patches = 0:"),
            (DataConfig { patches: Some(usize::MAX), ..default() }, "patches = "),
            (DataConfig { patch: Some(Pair([0, 3])), ..default() }, "patch = 0x3:"),
            (DataConfig { patch: Some(Pair([usize::MAX, 3])), ..default() }, "patch = "),
            (DataConfig { held_out: 1.0, ..default() }, "held_out = 1:"),
            (DataConfig { shuffle_buffer: 63, ..default() }, "shuffle_buffer = 63:"),
            (DataConfig { shuffle_buffer: MAX_DRAWN + 1, ..default() }, "shuffle_buffer = "),
            (DataConfig { held_out: -0.1, ..default() }, "held_out = -0.1:"),
            (DataConfig { held_out: f32::NAN, ..default() }, "held_out = NaN:"),
        ] {
            let message = message(config);
            assert!(message.starts_with(field), "{message}");
        }
    }

    /// Colour pictures of an array; vectors have no colours.
    #[test]
    fn arrays_are_turned_grey() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, dims: &[usize], values: &[f32]| {
            let path = folder.path().join(name);
            crate::export::arrays::write_npy(&path, dims, values).unwrap();
            DataConfig { source: path.display().to_string(), grey: true, ..DataConfig::default() }
        };
        let colours: Vec<f32> = [1.0f32, 10.0, 100.0].into_iter().flat_map(|value| vec![value; 6]).collect();
        let all = open(&of("colour.npy", &[1, 3, 2, 3], &colours)).unwrap().all;
        assert_eq!(all.shape(), SignalShape::new(1, 2, 3));
        let mut grey = [0.0; 6];
        all.read(&[0], &mut grey).unwrap();
        assert!(grey.iter().all(|value| (value - 17.569).abs() < 1e-4), "{grey:?}");
        assert!(message(of("vectors.npy", &[2, 4], &[1.0; 8])).contains("grey = true"));
    }

    #[test]
    fn the_first_of_a_source() {
        let all = open(&DataConfig { count: Some(60), ..DataConfig::default() }).unwrap().train;
        assert!(Arc::ptr_eq(&first(all.clone(), 50), &all));
        let few = first(all.clone(), 7);
        assert_eq!((few.len(), few.labels().unwrap()), (7, &all.labels().unwrap()[..7]));
        let read = |source: &Arc<dyn Source>| {
            let mut values = vec![0.0; 2 * source.shape().len()];
            source.read(&[6, 2], &mut values).unwrap();
            values
        };
        assert_eq!(read(&few), read(&all));
        assert!(few.describe().starts_with("the first 7 of "));
    }

    #[test]
    fn sources_that_are_none() {
        let source = |source: &str| DataConfig { source: source.into(), ..DataConfig::default() };
        for name in ["digit", "", "no/such/path"] {
            let message = message(source(name));
            for part in ["`digits`", "`mnist`", "no such path", &format!("{name:?}")] {
                assert!(message.contains(part), "{message}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert!(message(source(path)).contains("found none of them"));
        let file = folder.path().join("notes");
        fs::write(&file, "abc").unwrap();
        assert!(message(source(file.to_str().unwrap())).contains("begins with \"abc\""));
        #[cfg(unix)]
        assert!(message(source("/dev/zero")).contains("found something else"));
    }

    /// Files with random bytes changed and ends cut off are errors or, with luck, signals; never a panic.
    #[test]
    fn damage_never_panics() {
        use rand::{RngExt, SeedableRng};
        let image = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([20 * x as u8, 30 * y as u8, 90]));
        let encoded = |format| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        };
        let header = b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f8', 'fortran_order': True , 'shape': (2, 2, 2)  }\n\n";
        let mut array = [&header[..], &[0; 64]].concat();
        array[8] = (header.len() - 10) as u8;
        let idx = idx::tests::idx(&[4, 3, 3], &[9; 36]);
        let formats = [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::Pnm].map(encoded);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let config = DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() };
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for whole in formats.into_iter().chain([array, idx::tests::gzip(&idx), idx]) {
            fs::write(&path, &whole).unwrap();
            open(&config).unwrap();
            for _ in 0..200 {
                let mut bytes = whole.clone();
                for _ in 0..random.random_range(0..4) {
                    // Headers stand at the beginning.
                    let reach = if random.random() { bytes.len() } else { bytes.len().min(40) };
                    bytes[random.random_range(0..reach)] = random.random();
                }
                if random.random() {
                    bytes.truncate(random.random_range(0..bytes.len()));
                }
                fs::write(&path, &bytes).unwrap();
                if let Ok(data) = open(&config) {
                    let mut out = vec![0.0; data.all.shape().len()];
                    if let Err(error) = data.all.read(&[0], &mut out) {
                        assert!(error.to_string().contains("finite"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn configurations_in_files() {
        assert_eq!(serde_json::from_str::<DataConfig>("{}").unwrap(), DataConfig::default());
        let config = DataConfig { patch: Some(Pair([8, 9])), count: Some(5), ..DataConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<DataConfig>(&text).unwrap(), config);
        assert!(serde_json::from_str::<DataConfig>(r#"{"sources": "mnist"}"#).is_err());
    }

    #[test]
    fn parts_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        fs::write(&path, idx::tests::idx(&[10, 1, 1], &[0; 10])).unwrap();
        let data = open(&DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }).unwrap();
        let len = |split| data.split(split).len();
        assert_eq!((len(Split::Train), len(Split::Test), len(Split::All)), (9, 1, 10));
    }
}
