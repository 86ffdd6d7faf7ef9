//! Where signals come from: files, folders of images, MNIST, and digits drawn by a generator.
//!
//! Everything that can be read is a [`Source`]: a number of signals of one shape, read by index into a caller's
//! buffer, so that nothing but raw bytes is ever held for the whole set.

mod arrays;
mod burn;
pub mod deskew;
pub mod digits;
mod fingerprint;
mod idx;
mod images;
mod integrity;
mod jpeg;
mod layout;
mod memory;
mod mnist;
pub mod npy;
mod pictures;
pub mod quality;
mod shard;
mod stored;

pub use burn::{SignalBatcher, SignalDataset};
pub use fingerprint::Fingerprint;
pub(crate) use fingerprint::{digest, spread};
pub use layout::Layout;
pub use memory::{InMemory, first};
pub use shard::{Part, Shard};

use crate::error::{Error, Result};
use crate::files::{is_pipe, open_with_length};
use crate::geometry::{MAX_TENSOR_LEN, Pair, SignalShape, checked_len};
use crate::text::beginning;
use arrays::Arrays;
use pictures::Collection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
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

    /// The file that holds one signal and nothing else, where there is one: a picture of its own.
    fn file(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// What was passed over when the source was opened and why, in one line, if anything was.
    fn skipped(&self) -> Option<&str> {
        None
    }

    /// What this is, for messages: a path, or a name with its settings.
    fn describe(&self) -> String;
}

/// What to read and how; stored in run folders, so that a resumed run reads the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `digits`, `mnist`, or the path of an IDX file, of a folder with MNIST's IDX files, of an image, of a folder of
    /// images or of a `.npy` array. Default `digits`.
    #[serde(default = "default_source")]
    pub source: String,
    /// Signals to draw for `digits`, from 2 to 2²⁴. Default 12,000. Of every six one is held out. Ignored
    /// by other sources.
    #[serde(default)]
    pub count: Option<usize>,
    /// Height and width of random patches to cut from the signals instead of using them whole, at least 1. Default:
    /// whole.
    #[serde(default)]
    pub patch: Option<Pair>,
    /// Number of random patches, from 1 to 2²⁴. Default 20,000. Ignored without `patch`.
    #[serde(default)]
    pub patches: Option<usize>,
    /// Whether colour images are turned grey, as Pillow's `convert("L")` does: (19595 R + 38470 G + 7471 B + 2¹⁵) / 2¹⁶ rounded
    /// down, the luma of ITU-R BT.601. Default: they stay as they are; grey ones among colour ones become colour. Transparency
    /// is dropped. Of formats that do not say whether a picture is grey (WebP, palettes) those are of which all pixels are.
    /// Ignored by other sources.
    #[serde(default)]
    pub grey: bool,
    /// What the axes of an array mean: `vectors` (d×1×1; whatever a row holds is flattened), `time` (c×1×t), `images` (c×h×w) or `maps`
    /// (c×h×w). Default: by the rank, `[d]` and `[n, d]` being vectors, `[n, h, w]` and `[n, c, h, w]` images. Images of other sources
    /// can be flattened by `vectors`; other layouts than their own are refused.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Part of the signals, in [0, 1), that is held out where a source does not come with a test set. Default 0.1, at
    /// least one signal where there are two.
    #[serde(default = "default_held_out")]
    pub held_out: f32,
    /// Seed of the generator, of the patches and of the split. Default 0.
    #[serde(default)]
    pub seed: u64,
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
            grey: false,
            layout: None,
            held_out: default_held_out(),
            seed: 0,
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
    pub places: Vec<usize>,
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
/// | IDX file of unsigned bytes `[count, height, width]`, gzipped or not | its images | a random part |
/// | folder of PNG, JPEG, PNM, TIFF, BMP or WebP files | images in the order of names | a random part |
/// | file of one of these formats | one image | the same |
/// | `.npy` array of rank 1 to 4, or any with `layout` vectors | its values as they are, see [`Layout`] | a random part |
///
/// Files are recognised by their content, those in a folder of images by their ending (`png`, `jpg`, `jpeg`, `jpe`, `jfif`,
/// `pgm`, `ppm`, `pnm`, `pbm`, `pam`, `tif`, `tiff`, `bmp`, `webp`); its hidden files, subfolders and other files are skipped,
/// as [`Source::skipped`] says. Of a file of several pages, frames or pictures the first is read. Images come as viewers show
/// them, turned as their EXIF data say; one whose data are less or more than its size asks for is refused. A file named `digits` or `mnist`
/// is reached as `./digits`. With [`DataConfig::patch`] the signals are patches of all that: held-out ones are cut from
/// held-out signals, unless there is only one.
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

/// What to say is expected of signals that have another shape than `wanted`, with the way out where colours are the only matter.
pub(crate) fn wanted_shape(wanted: impl ToString, channels: usize, found: SignalShape) -> String {
    let way = if channels == 1 && found.channels == 3 { " (`grey` turns colour pictures grey)" } else { "" };
    format!("{}{way}", wanted.to_string())
}

fn collection(config: &DataConfig) -> Result<Collection> {
    config.check()?;
    match config.source.as_str() {
        "digits" => digits::open(config.count, config.seed).laid_out(config.layout, Layout::Images),
        "mnist" => mnist::open()?.laid_out(config.layout, Layout::Images),
        path => open_path(Path::new(path), config),
    }
}

fn open_path(path: &Path, config: &DataConfig) -> Result<Collection> {
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
    if start.starts_with(&npy::NPY_MAGIC) {
        Ok(Collection::of(Arrays::one(npy::find(path)?, config.layout)?))
    } else if start.starts_with(&idx::GZIP_MAGIC) || start.starts_with(&idx::IDX_MAGIC[..2]) {
        Collection::of(idx::Idx::open(path)?).laid_out(config.layout, Layout::Images)
    } else if images::format_of(&start).is_some() {
        Collection::of(images::Images::open_file(path, config.grey)?).laid_out(config.layout, Layout::Images)
    } else {
        let expected = format!("expected an IDX file (gzipped or not), a {} image, or a .npy array", images::FORMATS);
        let found = format!("found a file that begins with {}", beginning(&start));
        Err(Error::format(path, format!("{expected}, {found}")))
    }
}

fn open_folder(folder: &Path, config: &DataConfig) -> Result<Collection> {
    if let Some(collection) = idx::Folder::find(folder).open()? {
        return collection.laid_out(config.layout, Layout::Images);
    }
    Collection::of(images::Images::open_folder(folder, config.grey)?).laid_out(config.layout, Layout::Images)
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
            (DataConfig { held_out: -0.1, ..default() }, "held_out = -0.1:"),
            (DataConfig { held_out: f32::NAN, ..default() }, "held_out = NaN:"),
        ] {
            let message = message(config);
            assert!(message.starts_with(field), "{message}");
        }
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
        assert!(message(source(path)).contains("found neither"));
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
