//! What every kind of input boils down to: pictures that can be read whole or by window, and the two ways to make
//! signals of them, whole or as random patches.

use super::folder::Classes;
use super::indices::{Indices, Marks};
use super::{DataConfig, Dataset, Group, Layout, Places, Source, Split, first};
use crate::error::{Error, Result};
use crate::geometry::{Overlapping, SignalShape};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Patches that are cut where the configuration does not say how many.
const DEFAULT_PATCHES: usize = 20_000;
/// Streams of the seed that draw the split and the patches; the digits use streams from 0 up and from 2⁶³ up.
const SPLIT_STREAM: u64 = u64::MAX;
const PATCH_STREAM: u64 = u64::MAX - 1;

/// A rectangle of a picture, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// Pictures, read by index and window; of one or of several shapes.
pub(super) trait Pictures: Send + Sync {
    /// Number of pictures, at least 1.
    fn count(&self) -> usize;

    /// Shape of one picture.
    fn shape(&self, index: usize) -> SignalShape;

    /// The shape of all pictures where it is known without looking at each.
    fn common_shape(&self) -> Option<SignalShape> {
        None
    }

    /// What one picture is called in messages.
    fn name(&self, index: usize) -> String;

    /// Reads a window of all channels into `out`, laid out as `[channels, window.height, window.width]`.
    ///
    /// Index and window are in range and `out` has the right length.
    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()>;

    /// Class labels, one per picture.
    fn labels(&self) -> Option<&[u8]> {
        None
    }

    /// Names of the classes, from label 0 on, where they have some.
    fn class_names(&self) -> Option<&[String]> {
        None
    }

    /// The file that holds one picture and nothing else, where there is one.
    fn file(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// What was passed over and why, in one line, if anything was.
    fn skipped(&self) -> Option<&str> {
        None
    }

    /// Samples a second of recordings.
    fn sampling_rate(&self) -> Option<u32> {
        None
    }

    /// Whether there is an axis of channels.
    fn has_channel_axis(&self) -> bool {
        true
    }

    /// The whole set's name for messages.
    fn describe(&self) -> String;
}

/// Pictures and, where the input itself says so, which of them are the test set (sorted indices, neither none nor all).
pub(super) struct Collection {
    pub pictures: Arc<dyn Pictures>,
    pub test: Option<Indices>,
}

impl Collection {
    /// Pictures without a test set of their own.
    pub fn of(pictures: impl Pictures + 'static) -> Self {
        Self { pictures: Arc::new(pictures), test: None }
    }

    /// Training pictures followed by a test set.
    pub fn with_test_set(train: Arc<dyn Pictures>, test: Arc<dyn Pictures>) -> Self {
        let indices = Indices::Range(train.count()..train.count() + test.count());
        Self { pictures: Arc::new(Joined::new(train, test)), test: Some(indices) }
    }

    /// Signals of a source whose layout is `own`, as the configuration wants them: as they are, or flattened.
    ///
    /// # Errors
    /// [`Error::Parameter`]: another layout.
    pub fn laid_out(self, wanted: Option<Layout>, own: Layout) -> Result<Self> {
        match wanted {
            Some(Layout::Vectors) if own != Layout::Vectors => Ok(self.changed(Change::Flattened)),
            Some(other) if other != own => {
                let flat = if own == Layout::Vectors { "" } else { " or vectors" };
                let expected = format!("{own}{flat}, for {}", self.pictures.describe());
                Err(Error::parameter("layout", other, expected))
            }
            _ => Ok(self),
        }
    }

    /// With classes, one for each picture, where they are known.
    pub fn labelled(self, classes: Option<Classes>) -> Self {
        match classes {
            Some(classes) => self.changed(Change::Labelled(classes)),
            None => self,
        }
    }

    /// With the pictures from `first` on as the test set, where there are some.
    pub fn tested_from(self, first: usize) -> Self {
        let count = self.pictures.count();
        let test = (first < count).then_some(Indices::Range(first..count));
        Self { test, ..self }
    }

    fn changed(self, change: Change) -> Self {
        Self { pictures: Arc::new(Changed { pictures: self.pictures, change }), ..self }
    }

    /// Colour pictures of an array turned grey.
    ///
    /// # Errors
    /// [`Error::Parameter`]: signals that are no pictures.
    pub fn turned_grey(self) -> Result<Self> {
        let shape = common_shape(&*self.pictures)?;
        if !matches!(shape.channels, 1 | 3) || shape.height == 1 {
            let expected =
                format!("pictures of 1 or 3 channels and several rows, for {} has {shape}", self.pictures.describe());
            return Err(Error::parameter("grey", true, expected));
        }
        Ok(self.changed(Change::Grey))
    }

    /// Which pictures are signals to learn from and which are held out.
    fn parts(&self, config: &DataConfig) -> Parts {
        let count = self.pictures.count();
        // A single picture cannot be divided: it is everything.
        if count == 1 {
            let one = Indices::Range(0..1);
            return Parts { train: one.clone(), test: one.clone(), all: one };
        }
        let all = Indices::Range(0..count);
        match &self.test {
            None => {
                let [test, train] = divided(count, config.held_out, config.seed);
                Parts { train, test, all }
            }
            // Behind the others, where they are all together.
            Some(Indices::Range(test)) if test.end == count => {
                Parts { train: Indices::Range(0..test.start), test: Indices::Range(test.clone()), all }
            }
            Some(test) => {
                let mut of_test = test.iter().peekable();
                let train: Vec<usize> = (0..count).filter(|index| of_test.next_if_eq(index).is_none()).collect();
                let all: Vec<usize> = train.iter().copied().chain(test.iter()).collect();
                Parts { train: Indices::Listed(train.into()), test: test.clone(), all: Indices::Listed(all.into()) }
            }
        }
    }

    /// The pictures of a part (default: the test set where the input has one, else all), those of one shape together.
    /// Groups stand in the order of their first pictures.
    pub fn into_groups(self, config: &DataConfig, split: Option<Split>, limit: usize) -> Result<(Split, Vec<Group>)> {
        let split = split.unwrap_or(if self.test.is_some() { Split::Test } else { Split::All });
        if config.patch.is_some() {
            let source = first(self.into_dataset(config)?.split(split).clone(), limit);
            let places = Places::All(source.len());
            return Ok((split, vec![Group { source, places }]));
        }
        // Where nothing is held out nothing is drawn.
        let chosen = match split {
            Split::All if self.test.is_none() => Indices::Range(0..self.pictures.count()),
            Split::Train => self.parts(config).train,
            Split::Test => self.parts(config).test,
            Split::All => self.parts(config).all,
        };
        let chosen = chosen.first(limit);
        if let (Some(shape), true) = (self.pictures.common_shape(), chosen.len() > 0) {
            let places = Places::All(chosen.len());
            return Ok((split, vec![Group { source: Arc::new(Whole::new(self.pictures, shape, chosen)), places }]));
        }
        let mut by_shape: HashMap<SignalShape, usize> = HashMap::new();
        let mut groups: Vec<(SignalShape, Vec<usize>, Vec<usize>)> = Vec::new();
        for (place, index) in chosen.iter().enumerate() {
            let shape = self.pictures.shape(index);
            let group = *by_shape.entry(shape).or_insert(groups.len());
            if group == groups.len() {
                groups.push((shape, Vec::new(), Vec::new()));
            }
            groups[group].1.push(index);
            groups[group].2.push(place);
        }
        let only = groups.len() == 1;
        let group = |(shape, indices, places): (_, Vec<usize>, Vec<usize>)| Group {
            places: if only { Places::All(places.len()) } else { Places::Listed(places) },
            source: Arc::new(Whole::new(self.pictures.clone(), shape, Indices::Listed(indices.into()))),
        };
        Ok((split, groups.into_iter().map(group).collect()))
    }

    /// Makes signals of the pictures and says which are held out.
    pub fn into_dataset(self, config: &DataConfig) -> Result<Dataset> {
        let Parts { train, test, all } = self.parts(config);
        let Self { pictures, test: own_test } = self;
        let has_test_set = own_test.is_some();
        let (train, test, all): (Arc<dyn Source>, Arc<dyn Source>, Arc<dyn Source>) = match config.patch {
            None => {
                let shape = common_shape(&*pictures)?;
                let whole = |indices: Indices| Arc::new(Whole::new(pictures.clone(), shape, indices));
                (whole(train), whole(test), whole(all))
            }
            Some(patch) => {
                let first = pictures.shape(0);
                let of = |[height, width]: [usize; 2]| SignalShape::new(first.channels, height, width);
                let (patch, window) = (patch.on_rows(first.height), config.window.map(|it| it.on_rows(first.height)));
                let overlapping = match window {
                    Some(window) => Overlapping::new(window, patch)?,
                    None => Overlapping { patch, step: [1, 1], counts: [1, 1] },
                };
                let (shape, patches_of) = (of(patch), of(overlapping.window()));
                check_patch(&*pictures, if window.is_some() { "window" } else { "patch" }, patches_of)?;
                let together = overlapping.count();
                let total = config.patches.unwrap_or(DEFAULT_PATCHES).div_ceil(together);
                // One window to learn from and one that is held out, however few patches were asked for.
                let total = if window.is_some() { total.max(2) } else { total };
                let held_out = held_out_count(total, config.held_out);
                let mut random = ChaCha8Rng::seed_from_u64(config.seed);
                random.set_stream(PATCH_STREAM);
                let mut draw = |part: &Indices, count: usize| -> Vec<Place> {
                    let windows = draw_places(&*pictures, part, patches_of, count, &mut random);
                    windows.into_iter().flat_map(|window| window.patches(&overlapping)).collect()
                };
                let train = draw(&train, total - held_out);
                let test = match held_out {
                    0 => train.clone(),
                    _ => draw(&test, held_out),
                };
                let all = if held_out == 0 { train.clone() } else { [&train[..], &test].concat() };
                let patches = |places| Arc::new(Patches { pictures: pictures.clone(), shape, places, together });
                (patches(train), patches(test), patches(all))
            }
        };
        Ok(Dataset { train, test, all, has_test_set })
    }
}

/// Indices of pictures: to learn from, held out, both.
struct Parts {
    train: Indices,
    test: Indices,
    all: Indices,
}

/// How many of `count` signals are held out: the nearest to the fraction that leaves both parts with one signal at
/// least.
fn held_out_count(count: usize, fraction: f32) -> usize {
    let wanted = (count as f64 * f64::from(fraction)).round() as usize;
    if count < 2 { 0 } else { wanted.clamp(1, count - 1) }
}

/// A random subset of the indices below `count`, every one of that size being equally likely, and the others.
pub(super) fn divided(count: usize, part: f32, seed: u64) -> [Indices; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(SPLIT_STREAM);
    let mut wanted = held_out_count(count, part) as u64;
    let is_chosen = |index: usize| {
        let chosen = random.random_range(0..(count - index) as u64) < wanted;
        wanted -= u64::from(chosen);
        chosen
    };
    Marks::new(count, (0..count).map(is_chosen)).parts()
}

/// The one shape of all pictures.
fn common_shape(pictures: &dyn Pictures) -> Result<SignalShape> {
    if let Some(shape) = pictures.common_shape() {
        return Ok(shape);
    }
    let shape = pictures.shape(0);
    match (1..pictures.count()).find(|&index| pictures.shape(index) != shape) {
        None => Ok(shape),
        Some(other) => Err(Error::shape(
            pictures.describe(),
            "signals of one shape, or `patch`, which cuts patches of one shape from them",
            format!("{} {shape} and {} {}", pictures.name(0), pictures.name(other), pictures.shape(other)),
        )),
    }
}

fn check_patch(pictures: &dyn Pictures, name: &str, patch: SignalShape) -> Result<()> {
    let shapes = if pictures.common_shape().is_some() { 1 } else { pictures.count() };
    for index in 0..shapes {
        let shape = pictures.shape(index);
        if patch.height > shape.height || patch.width > shape.width {
            return Err(Error::parameter(
                name,
                format!("{}x{}", patch.height, patch.width),
                format!(
                    "at most the size of every picture; {} is {}x{}",
                    pictures.name(index),
                    shape.height,
                    shape.width
                ),
            ));
        }
    }
    Ok(())
}

/// Two sets of pictures, one after the other.
struct Joined {
    first: Arc<dyn Pictures>,
    second: Arc<dyn Pictures>,
    labels: Option<Vec<u8>>,
}

impl Joined {
    fn new(first: Arc<dyn Pictures>, second: Arc<dyn Pictures>) -> Self {
        let labels = first.labels().zip(second.labels()).map(|(first, second)| [first, second].concat());
        Self { first, second, labels }
    }

    fn locate(&self, index: usize) -> (&dyn Pictures, usize) {
        match index.checked_sub(self.first.count()) {
            None => (&*self.first, index),
            Some(index) => (&*self.second, index),
        }
    }
}

impl Pictures for Joined {
    fn count(&self) -> usize {
        self.first.count() + self.second.count()
    }

    fn shape(&self, index: usize) -> SignalShape {
        let (pictures, index) = self.locate(index);
        pictures.shape(index)
    }

    fn common_shape(&self) -> Option<SignalShape> {
        self.first.common_shape().filter(|shape| self.second.common_shape() == Some(*shape))
    }

    fn name(&self, index: usize) -> String {
        let (pictures, index) = self.locate(index);
        pictures.name(index)
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let (pictures, index) = self.locate(index);
        pictures.read(index, window, out)
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn class_names(&self) -> Option<&[String]> {
        self.first.class_names()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        let (pictures, index) = self.locate(index);
        pictures.file(index)
    }

    fn skipped(&self) -> Option<&str> {
        self.first.skipped().or(self.second.skipped())
    }

    fn sampling_rate(&self) -> Option<u32> {
        self.first.sampling_rate().or(self.second.sampling_rate())
    }

    fn has_channel_axis(&self) -> bool {
        self.first.has_channel_axis() || self.second.has_channel_axis()
    }

    fn describe(&self) -> String {
        format!("{} and {}", self.first.describe(), self.second.describe())
    }
}

/// Pictures of which something else is made, each by itself.
struct Changed {
    pictures: Arc<dyn Pictures>,
    change: Change,
}

/// What is made of pictures.
#[derive(Debug, Clone)]
enum Change {
    /// Vectors: the columns of a row, the rows of a channel, the channels one after the other.
    Flattened,
    /// Grey pictures, of those of three channels.
    Grey,
    /// The same pictures, with classes.
    Labelled(Classes),
}

/// Weights of red, green and blue in what is seen as brightness, of ITU-R BT.601.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl Change {
    fn shape(&self, shape: SignalShape) -> SignalShape {
        match self {
            Self::Flattened => SignalShape::new(shape.len(), 1, 1),
            Self::Grey => SignalShape { channels: 1, ..shape },
            Self::Labelled(_) => shape,
        }
    }
}

impl Pictures for Changed {
    fn count(&self) -> usize {
        self.pictures.count()
    }

    fn shape(&self, index: usize) -> SignalShape {
        self.change.shape(self.pictures.shape(index))
    }

    fn common_shape(&self) -> Option<SignalShape> {
        self.pictures.common_shape().map(|shape| self.change.shape(shape))
    }

    fn name(&self, index: usize) -> String {
        self.pictures.name(index)
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let SignalShape { channels, height, width } = self.pictures.shape(index);
        match &self.change {
            // Of one position there is one window.
            Change::Flattened => self.pictures.read(index, Window { top: 0, left: 0, height, width }, out),
            Change::Labelled(_) => self.pictures.read(index, window, out),
            Change::Grey if channels == 1 => self.pictures.read(index, window, out),
            Change::Grey => {
                let mut colours = vec![0.0; LUMA.len() * out.len()];
                self.pictures.read(index, window, &mut colours)?;
                out.fill(0.0);
                for (weight, colour) in LUMA.iter().zip(colours.chunks_exact(out.len())) {
                    out.iter_mut().zip(colour).for_each(|(out, value)| *out += weight * value);
                }
                Ok(())
            }
        }
    }

    fn labels(&self) -> Option<&[u8]> {
        match &self.change {
            Change::Labelled(classes) => Some(&classes.of_files),
            _ => self.pictures.labels(),
        }
    }

    fn class_names(&self) -> Option<&[String]> {
        match &self.change {
            Change::Labelled(classes) => Some(&classes.names[..]).filter(|names| !names.is_empty()),
            _ => self.pictures.class_names(),
        }
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.pictures.file(index)
    }

    fn skipped(&self) -> Option<&str> {
        self.pictures.skipped()
    }

    fn sampling_rate(&self) -> Option<u32> {
        self.pictures.sampling_rate()
    }

    fn has_channel_axis(&self) -> bool {
        self.pictures.has_channel_axis()
    }

    fn describe(&self) -> String {
        self.pictures.describe()
    }
}

/// Some of the pictures, each a signal.
struct Whole {
    pictures: Arc<dyn Pictures>,
    shape: SignalShape,
    indices: Indices,
    labels: Option<Vec<u8>>,
}

impl Whole {
    fn new(pictures: Arc<dyn Pictures>, shape: SignalShape, indices: Indices) -> Self {
        let labels = pictures.labels().map(|labels| indices.iter().map(|index| labels[index]).collect());
        Self { pictures, shape, indices, labels }
    }
}

impl Source for Whole {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> SignalShape {
        self.shape
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let window = Window { top: 0, left: 0, height: self.shape.height, width: self.shape.width };
        read_each(indices, self.shape, out, |index, out| self.pictures.read(self.indices.get(index), window, out))
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn class_names(&self) -> Option<&[String]> {
        self.pictures.class_names()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.pictures.file(self.indices.get(index))
    }

    fn skipped(&self) -> Option<&str> {
        self.pictures.skipped()
    }

    fn sampling_rate(&self) -> Option<u32> {
        self.pictures.sampling_rate()
    }

    fn has_channel_axis(&self) -> bool {
        self.pictures.has_channel_axis()
    }

    fn describe(&self) -> String {
        self.pictures.describe()
    }
}

/// Where a patch is cut.
#[derive(Clone, Copy)]
struct Place {
    picture: usize,
    top: u32,
    left: u32,
}

impl Place {
    /// Where the patches of a window are that is cut here.
    fn patches(self, overlapping: &Overlapping) -> impl Iterator<Item = Self> {
        let Self { picture, top, left } = self;
        overlapping.places().map(move |[down, across]| Self {
            picture,
            top: top + down as u32,
            left: left + across as u32,
        })
    }
}

/// Draws a picture uniformly among `chosen`, then a place uniformly in it.
fn draw_places(
    pictures: &dyn Pictures,
    chosen: &Indices,
    patch: SignalShape,
    count: usize,
    random: &mut ChaCha8Rng,
) -> Vec<Place> {
    // Drawn as u64, because ranges of usize give other numbers on 32-bit machines.
    let mut below = |bound: usize| random.random_range(0..bound as u64) as usize;
    (0..count)
        .map(|_| {
            let picture = chosen.get(below(chosen.len()));
            let shape = pictures.shape(picture);
            let top = below(shape.height - patch.height + 1);
            let left = below(shape.width - patch.width + 1);
            Place { picture, top: top as u32, left: left as u32 }
        })
        .collect()
}

/// Rectangles cut from pictures, each a signal.
struct Patches {
    pictures: Arc<dyn Pictures>,
    shape: SignalShape,
    places: Vec<Place>,
    together: usize,
}

impl Source for Patches {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn shape(&self) -> SignalShape {
        self.shape
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        read_each(indices, self.shape, out, |index, out| {
            let Place { picture, top, left } = self.places[index];
            let (top, left) = (top as usize, left as usize);
            let window = Window { top, left, height: self.shape.height, width: self.shape.width };
            self.pictures.read(picture, window, out)
        })
    }

    fn together(&self) -> usize {
        self.together
    }

    fn skipped(&self) -> Option<&str> {
        self.pictures.skipped()
    }

    fn sampling_rate(&self) -> Option<u32> {
        self.pictures.sampling_rate()
    }

    fn has_channel_axis(&self) -> bool {
        self.pictures.has_channel_axis()
    }

    fn describe(&self) -> String {
        format!("{}x{} patches of {}", self.shape.height, self.shape.width, self.pictures.describe())
    }
}

/// Reads signals into their places of `out`, over the cores.
fn read_each(
    indices: &[usize],
    shape: SignalShape,
    out: &mut [f32],
    read: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    assert_eq!(out.len(), indices.len() * shape.len(), "{} signals of {shape}", indices.len());
    // Signals are small: a handful at a time is worth handing to another core.
    out.par_chunks_mut(shape.len()).zip(indices).with_min_len(8).try_for_each(|(out, &index)| read(index, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures whose pixel is 10,000·picture + 100·row + column.
    struct Ramps(Vec<[usize; 2]>);

    impl Pictures for Ramps {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn shape(&self, index: usize) -> SignalShape {
            SignalShape::new(1, self.0[index][0], self.0[index][1])
        }
        fn name(&self, index: usize) -> String {
            format!("ramp {index}")
        }
        fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
            for (at, out) in out.iter_mut().enumerate() {
                let (row, column) = (window.top + at / window.width, window.left + at % window.width);
                *out = (10_000 * index + 100 * row + column) as f32;
            }
            Ok(())
        }
        fn describe(&self) -> String {
            "ramps".into()
        }
    }

    fn all_of(source: &dyn Source) -> Vec<f32> {
        let indices: Vec<usize> = (0..source.len()).collect();
        let mut out = vec![0.0; source.len() * source.shape().len()];
        source.read(&indices, &mut out).unwrap();
        out
    }

    #[test]
    fn a_random_part_is_held_out() {
        let config = DataConfig { held_out: 0.2, seed: 3, ..DataConfig::default() };
        let data = Collection::of(Ramps(vec![[1, 1]; 50])).into_dataset(&config).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (40, 10, 50));
        assert!(!data.has_test_set);
        let (train, test, all) = (all_of(&*data.train), all_of(&*data.test), all_of(&*data.all));
        assert!(train.is_sorted() && test.is_sorted() && all.is_sorted());
        let mut union = [train, test.clone()].concat();
        union.sort_by(f32::total_cmp);
        assert_eq!(union, all);
        let again = Collection::of(Ramps(vec![[1, 1]; 50])).into_dataset(&config).unwrap();
        assert_eq!(all_of(&*again.test), test);
        let other = DataConfig { seed: 4, ..config };
        let other = Collection::of(Ramps(vec![[1, 1]; 50])).into_dataset(&other).unwrap();
        assert_ne!(all_of(&*other.test), test);
    }

    #[test]
    fn both_parts_have_a_signal() {
        for (count, fraction, train, test) in [(1, 0.1, 1, 1), (2, 0.0, 1, 1), (2, 0.99, 1, 1), (3, 0.9, 1, 2)] {
            let config = DataConfig { held_out: fraction, ..DataConfig::default() };
            let data = Collection::of(Ramps(vec![[2, 3]; count])).into_dataset(&config).unwrap();
            assert_eq!((data.train.len(), data.test.len(), data.all.len()), (train, test, count));
        }
    }

    #[test]
    fn patches_are_cut_at_places_of_the_right_pictures() {
        let sizes = vec![[5, 4], [3, 9], [6, 6], [3, 4]];
        let config = DataConfig {
            patch: Some(crate::geometry::Pair([3, 4])),
            patches: Some(400),
            held_out: 0.25,
            ..DataConfig::default()
        };
        let data = Collection::of(Ramps(sizes.clone())).into_dataset(&config).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (300, 100, 400));
        let pictures = |source: &dyn Source| {
            let values = all_of(source);
            let mut seen = std::collections::BTreeSet::new();
            for patch in values.chunks(12) {
                let corner = patch[0] as usize;
                let (picture, top, left) = (corner / 10_000, corner / 100 % 100, corner % 100);
                assert!(top + 3 <= sizes[picture][0] && left + 4 <= sizes[picture][1]);
                for (at, &value) in patch.iter().enumerate() {
                    assert_eq!(value as usize, corner + 100 * (at / 4) + at % 4);
                }
                seen.insert(picture);
            }
            seen
        };
        let (train, test) = (pictures(&*data.train), pictures(&*data.test));
        assert_eq!((train.len(), test.len()), (3, 1));
        assert!(train.is_disjoint(&test));
        assert_eq!([all_of(&*data.train), all_of(&*data.test)].concat(), all_of(&*data.all));
    }

    #[test]
    fn patches_of_a_single_picture() {
        let patch = Some(crate::geometry::Pair([2, 2]));
        let config = DataConfig { patch, patches: Some(10), ..DataConfig::default() };
        let data = Collection::of(Ramps(vec![[4, 4]])).into_dataset(&config).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (9, 1, 10));
        let config = DataConfig { patches: Some(1), ..config };
        let data = Collection::of(Ramps(vec![[4, 4]])).into_dataset(&config).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (1, 1, 1));
        let config = DataConfig { patch: Some(5.into()), ..config };
        let message = Collection::of(Ramps(vec![[4, 4]])).into_dataset(&config).err().unwrap().to_string();
        assert!(message.contains("patch = 5x5") && message.contains("ramp 0 is 4x4"), "{message}");
    }

    /// The split of a set is the one that it always had: runs go on from checkpoints of earlier versions.
    #[test]
    fn the_split_of_a_seed_stays() {
        for (count, part, seed) in [(2, 0.1, 0), (20, 0.1, 0), (1000, 0.25, 7), (5000, 0.9, 1), (70_000, 0.1, 3)] {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(SPLIT_STREAM);
            let mut wanted = held_out_count(count, part) as u64;
            let (mut test, mut train) = (Vec::new(), Vec::new());
            for index in 0..count {
                let chosen = random.random_range(0..(count - index) as u64) < wanted;
                wanted -= u64::from(chosen);
                if chosen { &mut test } else { &mut train }.push(index);
            }
            assert_eq!(divided(count, part, seed).map(|indices| indices.iter().collect::<Vec<_>>()), [test, train]);
        }
        let [test, train] = divided(20, 0.25, 0);
        assert_eq!(test.iter().collect::<Vec<_>>(), [0, 2, 10, 11, 13]);
        assert_eq!(train.len(), 15);
    }

    #[test]
    fn several_shapes_come_in_groups() {
        let sizes = vec![[4, 4], [4, 5], [4, 4], [6, 2], [4, 5]];
        let groups = |config: &DataConfig, split, limit| {
            Collection::of(Ramps(sizes.clone())).into_groups(config, split, limit).unwrap()
        };
        let places = |group: &Group| group.places.iter().collect::<Vec<_>>();
        let config = DataConfig { held_out: 0.4, ..DataConfig::default() };
        let (split, all) = groups(&config, None, usize::MAX);
        assert_eq!(split, Split::All);
        let found: Vec<_> = all.iter().map(|group| (group.source.shape(), places(group))).collect();
        let shape = |height, width| SignalShape::new(1, height, width);
        assert_eq!(found, [(shape(4, 4), vec![0, 2]), (shape(4, 5), vec![1, 4]), (shape(6, 2), vec![3])]);
        for group in &all {
            let len = group.source.shape().len();
            let corners: Vec<usize> =
                all_of(&*group.source).chunks(len).map(|values| values[0] as usize / 10_000).collect();
            assert_eq!(corners, places(group));
        }
        let (_, few) = groups(&config, Some(Split::All), 2);
        assert_eq!(few.iter().map(places).collect::<Vec<_>>(), [[0], [1]]);
        // The parts are those that signals of one shape would have.
        let split_of = |split| -> Vec<usize> {
            let mut pictures: Vec<usize> = groups(&config, Some(split), usize::MAX)
                .1
                .iter()
                .flat_map(|group| {
                    let len = group.source.shape().len();
                    all_of(&*group.source).chunks(len).map(|values| values[0] as usize / 10_000).collect::<Vec<_>>()
                })
                .collect();
            pictures.sort_unstable();
            pictures
        };
        let same = Collection::of(Ramps(vec![[1, 1]; 5])).into_dataset(&config).unwrap();
        let first =
            |source: &dyn Source| all_of(source).iter().map(|value| *value as usize / 10_000).collect::<Vec<_>>();
        assert_eq!(split_of(Split::Train), first(&*same.train));
        assert_eq!(split_of(Split::Test), first(&*same.test));
        let config = DataConfig { patch: Some(2.into()), patches: Some(10), ..config };
        let (_, patches) = groups(&config, None, 7);
        assert_eq!((patches.len(), &patches[0].places), (1, &Places::All(7)));
    }

    #[test]
    fn several_shapes_need_patches() {
        let config = DataConfig::default();
        let message = Collection::of(Ramps(vec![[4, 4], [4, 5]])).into_dataset(&config).err().unwrap().to_string();
        for part in ["ramp 0 1x4x4", "ramp 1 1x4x5", "`patch`"] {
            assert!(message.contains(part), "{message}");
        }
    }

    /// Patches of windows come window by window, in the order in which they lie there, whoever holds the source.
    #[test]
    fn patches_of_a_window_lie_together() {
        let config =
            DataConfig { patch: Some(8.into()), window: Some(14.into()), patches: Some(70), ..DataConfig::default() };
        let pictures = || Collection::of(Ramps(vec![[20, 25], [14, 14], [30, 16]]));
        let data = pictures().into_dataset(&config).unwrap();
        let held: Arc<dyn Source> = Arc::new(data.train.clone());
        assert_eq!((held.together(), held.len() % 16, data.all.len()), (16, 0, 80));
        let mut patches = vec![0.0; held.len() * 64];
        held.read(&(0..held.len()).collect::<Vec<_>>(), &mut patches).unwrap();
        for window in patches.chunks_exact(16 * 64) {
            for (at, patch) in window.chunks_exact(64).enumerate() {
                assert_eq!(patch[0] - window[0], (at / 4 * 200 + at % 4 * 2) as f32);
            }
        }
        for (wrong, flag) in [
            (DataConfig { window: Some(13.into()), ..config.clone() }, "window"),
            (DataConfig { window: Some(12.into()), ..config.clone() }, "window"),
            (DataConfig { window: Some(16.into()), ..config.clone() }, "window"),
            (DataConfig { patch: None, ..config }, "patch"),
        ] {
            let found = wrong.check().and_then(|()| pictures().into_dataset(&wrong).map(drop));
            assert!(found.unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
