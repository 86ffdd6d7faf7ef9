//! Flags that say what signals to read.

use super::{DeviceArgs, flags, output};
use crate::data::{self, DataConfig, Dataset, Fingerprint, Group, Layout, Places, Shard, Source, Split, sample};
use crate::error::{Error, Result};
use crate::geometry::{Pair, SignalShape};
use crate::kernels::sparse::energy;
use crate::model::Mlcsc;
use crate::model::file::CodingDefaults;
use clap::Args;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What to read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Signals")]
pub struct DataArgs {
    /// `digits`, `mnist`, or the path of an IDX file, of a folder with MNIST's files, of an image (PNG, JPEG, PNM, TIFF, BMP,
    /// WebP), of a folder of images, of a .npy array, of a .npz archive, of a safetensors file, of a .wav file, of a
    /// folder of such files but archives, or of folders of them (classes of images or recordings, or train and test), of a folder with
    /// CIFAR's binary files or of one that saev wrote
    #[arg(long = "data", value_name = "SRC")]
    pub source: Option<String>,
    /// Signals to draw for `digits`
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Cut random patches of this size instead of taking images whole; windows of N samples from signals in time
    #[arg(long, value_name = "HxW|N", value_parser = pair)]
    pub patch: Option<Pair>,
    /// Number of random patches
    #[arg(long, value_name = "N")]
    pub patches: Option<usize>,
    /// Turn colour images grey, as Pillow's convert("L") does; those of arrays too
    #[arg(long)]
    pub grey: bool,
    /// What the axes of an array mean: vectors [n, d] or any row flattened, tokens
    /// […, d] (vectors along the last axis, as [batch, sequence, d]), time [n, t] or [n, c, t], images [n, h, w] or [n, c, h, w],
    /// maps [c, h, w] or [n, c, h, w], channels-last [h, w, c] or [n, h, w, c], time-channels-last [t, c] or [n, t, c]; images can be
    /// flattened by vectors. Default: by the number of axes, [n, d] being vectors and [n, h, w] images
    #[arg(long, value_name = "NAME", value_parser = flags::names::<Layout>())]
    pub layout: Option<Layout>,
    /// The tensor to read of a safetensors file, or array of a .npz archive, that has several
    #[arg(long, value_name = "NAME")]
    pub tensor: Option<String>,
    /// The layer to read of saev's activations that are of several
    #[arg(long, value_name = "N")]
    pub layer: Option<i64>,
    /// Seed of the generator, of the patches and of the split
    #[arg(long, value_name = "SEED")]
    pub data_seed: Option<u64>,
}

/// The source whose signals are drawn.
const DIGITS: &str = "digits";

impl DataArgs {
    /// The configuration, for a source that must have been named.
    ///
    /// # Errors
    /// No source; numbers out of range.
    pub fn config(&self) -> Result<DataConfig> {
        let source = self.source.clone().ok_or_else(|| Error::missing("--data", "a source of signals"))?;
        Ok(DataConfig { source, ..self.apply(DataConfig::default())? })
    }

    /// `config` with what the flags say put over it.
    ///
    /// # Errors
    /// Numbers out of range.
    pub fn apply(&self, config: DataConfig) -> Result<DataConfig> {
        let config = self.complete(config)?;
        config.check().map_err(flags::named::<DataArgs>)?;
        Ok(config)
    }

    /// [`Self::apply`] where ranges are checked later: they may be those of a file.
    ///
    /// # Errors
    /// Patches without a size.
    pub fn complete(&self, mut config: DataConfig) -> Result<DataConfig> {
        config.source = self.source.clone().unwrap_or(config.source);
        if let Some(count) = self.count.filter(|_| self.source.is_some() && config.source != DIGITS) {
            return Err(Error::parameter("--count", count, "--data digits beside it: only those are drawn"));
        }
        config.count = self.count.or(config.count);
        config.patch = self.patch.or(config.patch);
        config.patches = self.patches.or(config.patches);
        if let (Some(patches), None) = (self.patches, config.patch) {
            return Err(Error::parameter("--patches", patches, "--patch beside it, the patches' size"));
        }
        config.grey |= self.grey;
        config.layout = self.layout.or(config.layout);
        config.layer = self.layer.or(config.layer);
        config.tensor = self.tensor.clone().or(config.tensor);
        config.seed = self.data_seed.unwrap_or(config.seed);
        Ok(config)
    }
}

/// Opens a source; its mistakes are named by their flags.
///
/// # Errors
/// As [`data::open`].
pub fn open(config: &DataConfig) -> Result<Dataset> {
    open_configured(config).map_err(flags::named::<DataArgs>)
}

/// [`open`] where not all was said by flags: mistakes are named by their keys.
///
/// # Errors
/// As [`data::open`].
pub fn open_configured(config: &DataConfig) -> Result<Dataset> {
    let data = data::open(config).map_err(Error::within("data"))?;
    tell_skipped(&*data.all);
    Ok(data)
}

/// How many times as long as the median one a vector may be before that is remarked on.
const OUTLIER: f64 = 100.0;

/// Signals and values that outliers are looked for among at most; of larger sets signals at even distances stand for all.
const MOST_SIGNALS: usize = 1 << 18;
const MOST_VALUES: usize = 1 << 26;

/// Part of the variance of all values of vectors that one of them may have before that is remarked on, and values of a vector from which on
/// it is.
const ALL_VARIANCE: f64 = 0.99;
const FEW_VALUES: usize = 8;

/// Sums over vectors, value by value: of what is beyond the first vector, and of its squares.
#[derive(Default)]
struct Spread {
    first: Vec<f32>,
    sums: Vec<[f64; 2]>,
    count: usize,
}

impl Spread {
    fn add(&mut self, vector: &[f32]) {
        if self.count == 0 {
            (self.first, self.sums) = (vector.to_vec(), vec![[0.0; 2]; vector.len()]);
        }
        for ((sums, value), first) in self.sums.iter_mut().zip(vector).zip(&self.first) {
            let beyond = f64::from(*value) - f64::from(*first);
            *sums = [sums[0] + beyond, sums[1] + beyond * beyond];
        }
        self.count += 1;
    }

    /// The value of most variance, and its part of the variance of all; `None` where nothing varies.
    fn largest(&self) -> Option<(usize, f64)> {
        let count = self.count as f64;
        let variance = |[sum, square]: &[f64; 2]| (square / count - (sum / count).powi(2)).max(0.0);
        let variances: Vec<f64> = self.sums.iter().map(variance).collect();
        let all: f64 = variances.iter().sum();
        let (place, largest) = variances.into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
        (all > 0.0).then(|| (place, largest / all))
    }
}

/// What there is to say of vectors that are so much longer than others, or of a value that varies so much more than others, that squared
/// errors are about them alone. The latter is of no matter where values are `scaled` each by itself.
///
/// # Errors
/// Signals that cannot be read.
fn outliers(source: &dyn Source, scaled: bool) -> Result<Option<String>> {
    if !source.shape().is_single_position() || source.is_empty() {
        return Ok(None);
    }
    let len = source.shape().len();
    let (mut energies, mut spread) = (Vec::new(), Spread::default());
    let most = MOST_VALUES.min(MOST_SIGNALS.saturating_mul(len));
    sample(source, most, |values| {
        energies.extend(values.chunks_exact(len).map(energy));
        values.chunks_exact(len).for_each(|vector| spread.add(vector));
    })?;
    let mut sorted = energies.clone();
    let median = *sorted.select_nth_unstable_by(energies.len() / 2, f64::total_cmp).1;
    let count = energies.iter().filter(|energy| **energy > OUTLIER * OUTLIER * median).count();
    if count == 0 || median == 0.0 {
        let largest = spread.largest().filter(|(_, part)| *part > ALL_VARIANCE && len >= FEW_VALUES && !scaled);
        return Ok(largest.map(|(place, part)| {
            format!(
                "value {place} (from 0) has {:.2}% of the variance of all {len} values of {}, so that squared errors are about little else: leave it out, or divide every value by its standard deviation (dictionaries: --normalization standardise)",
                100.0 * part,
                source.describe()
            )
        }));
    }
    let largest = energies.iter().copied().fold(0.0, f64::max);
    let times = output::number((largest / median).sqrt());
    let which = if count == 1 { "one signal is".into() } else { format!("{count} signals are up to") };
    Ok(Some(format!(
        "{which} {times} times as long as the median one of {}, so that squared errors are about little else: leave out or scale what is so long",
        source.describe()
    )))
}

/// What there is to say of vectors and values that outweigh all others, which is said on stderr as well; of values nothing where they are
/// `scaled` each by itself.
///
/// # Errors
/// Signals that cannot be read.
pub fn told_outliers(source: &dyn Source, scaled: bool) -> Result<Option<String>> {
    let found = outliers(source, scaled)?;
    if let Some(outliers) = &found {
        output::complain(&format!("warning: {outliers}"));
    }
    Ok(found)
}

/// Says what was passed over, once for every source however often it is opened.
fn tell_skipped(source: &dyn Source) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(skipped) = source.skipped() else { return };
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(skipped.into()) {
        output::complain(skipped);
    }
}

/// Which of the signals to take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Signals")]
pub struct SelectionArgs {
    /// Part of the signals. Default: test where the source comes with a test set, else all
    #[arg(long, value_name = "PART", value_parser = flags::names::<Split>())]
    pub split: Option<Split>,
    /// Take the first N signals only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Which of several processes this one is, that share the work.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Signals")]
pub struct ShardArgs {
    /// Take part I of N of the signals, counted from 1, in whole batches; `mlcsc merge` joins the parts. GNU parallel:
    /// --shard {#}/8; Slurm with --array=1-8: --shard $SLURM_ARRAY_TASK_ID/8
    #[arg(long, value_name = "I/N", value_parser = str::parse::<Shard>)]
    pub shard: Option<Shard>,
}

impl ShardArgs {
    /// Which of `count` batches to take; all where it was not asked for a part.
    ///
    /// # Errors
    /// More parts than batches.
    pub fn batches(&self, count: usize) -> Result<Range<usize>> {
        match self.shard {
            None => Ok(0..count),
            Some(shard) if shard.of() > count => {
                let batches = output::counted(count, "batch");
                let parts = output::counted(count, "part");
                let expected = format!("at most {parts}: the signals are {batches}, see --batch-size");
                Err(Error::parameter("--shard", shard, expected))
            }
            Some(shard) => Ok(shard.range(count)),
        }
    }
}

/// A model, and the signals that it is to work on.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Model file, or the folder of a run; models of rivals are for diagnose, classify and export --format saelens
    #[arg(long, value_name = "M.safetensors", value_parser = super::model_path())]
    pub model: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
}

impl InputArgs {
    /// The model, on its device, with how its signals are best coded.
    ///
    /// # Errors
    /// As [`Mlcsc::load`]; a device that is not there.
    pub fn load(&self) -> Result<(Mlcsc, CodingDefaults)> {
        Mlcsc::load(&self.model, &self.device.open()?)
    }

    /// Checks what says which signals, before anything is opened.
    ///
    /// # Errors
    /// No source; numbers out of range.
    pub fn check(&self) -> Result<()> {
        self.selection.check()?;
        self.data.config().map(drop)
    }

    /// The signals.
    ///
    /// # Errors
    /// As [`Self::check`]; as [`open`].
    pub fn signals(&self) -> Result<Signals> {
        self.selection.select(&open(&self.data.config()?)?)
    }

    /// [`Self::signals`] for a model.
    ///
    /// # Errors
    /// Recordings of another sampling rate than the model's, too.
    pub fn signals_for(&self, model: &Mlcsc) -> Result<Signals> {
        let signals = self.signals()?;
        signals.check_for(model)?;
        Ok(signals)
    }

    /// The signals, those of one shape together: pictures may have different sizes. There is at least one group; each is
    /// to be worked on with an operator of its own shape. [`Signals::places`] says where a group's signals stand among all.
    ///
    /// # Errors
    /// As [`Self::signals_for`], except for pictures of different sizes.
    pub fn groups_for(&self, model: &Mlcsc) -> Result<Vec<Signals>> {
        self.selection.check()?;
        let config = self.data.config()?;
        let limit = self.selection.limit.unwrap_or(usize::MAX);
        let (part, groups) =
            data::open_by_size(&config, self.selection.split, limit).map_err(flags::named::<DataArgs>)?;
        if let Some(group) = groups.first() {
            tell_skipped(&*group.source);
            check_sampling_rate(model, &*group.source)?;
        }
        Ok(groups
            .into_iter()
            .map(|Group { source, places }| Signals { count: source.len(), source, places, part })
            .collect())
    }
}

/// Checks that recordings have the sampling rate that a model is for.
///
/// # Errors
/// Another one.
pub fn check_sampling_rate(model: &Mlcsc, source: &dyn Source) -> Result<()> {
    let checked = model.config().check_sampling_rate(source.sampling_rate());
    checked.map_err(|error| match error {
        Error::Shape { expected, found, .. } => {
            Error::parameter("--data", source.describe(), format!("recordings of {expected}, found {found}"))
        }
        other => other,
    })
}

/// Signals to run through, in order.
pub struct Signals {
    source: Arc<dyn Source>,
    count: usize,
    places: Places,
    part: Split,
}

impl SelectionArgs {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn check(&self) -> Result<()> {
        if self.limit == Some(0) {
            return Err(Error::parameter("--limit", 0, "at least 1"));
        }
        Ok(())
    }

    /// The signals chosen from a data set.
    ///
    /// # Errors
    /// As [`Self::check`]; a part without signals.
    pub fn select(&self, data: &Dataset) -> Result<Signals> {
        self.check()?;
        let part = self.split.unwrap_or(if data.has_test_set { Split::Test } else { Split::All });
        let source = data.split(part);
        if source.is_empty() {
            let expected = format!("a part of {} that has signals", source.describe());
            return Err(Error::parameter("--split", part, expected));
        }
        let count = self.limit.unwrap_or(usize::MAX).min(source.len());
        Ok(Signals { source: source.clone(), count, places: Places::All(count), part })
    }
}

impl Signals {
    /// Number of signals.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no signal; there always is one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Checks that recordings have the sampling rate that a model is for.
    ///
    /// # Errors
    /// Another one.
    pub fn check_for(&self, model: &Mlcsc) -> Result<()> {
        check_sampling_rate(model, &*self.source)
    }

    /// Shape of every signal.
    pub fn shape(&self) -> SignalShape {
        self.source.shape()
    }

    /// Where each signal stands among all that were asked for, from 0, ascending: 0, 1, 2, … unless others have other sizes.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The picture's file that a signal is, where it is one: what results are named after.
    ///
    /// # Panics
    /// If there is no such signal.
    pub fn file(&self, index: usize) -> Option<&Path> {
        self.source.file(index)
    }

    /// What was passed over when the source was opened and why, in one line, if anything was.
    pub fn skipped(&self) -> Option<&str> {
        self.source.skipped()
    }

    /// Where they come from.
    pub fn source(&self) -> String {
        self.source.describe()
    }

    /// Which part of the source they are.
    pub fn split(&self) -> Split {
        self.part
    }

    /// [`Source::has_channel_axis`].
    pub fn has_channel_axis(&self) -> bool {
        self.source.has_channel_axis()
    }

    /// What tells them from others.
    ///
    /// # Errors
    /// Signals that cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let part = if self.part == Split::All { String::new() } else { format!(" {}", self.part) };
        Ok(format!("{}{part}", Fingerprint::of_source(&*self.source)?))
    }

    /// For summaries: number, source and part.
    pub fn describe(&self) -> String {
        Self::describe_all(std::slice::from_ref(self), self.count)
    }

    /// [`Self::describe`] for `count` signals of all groups of a source together.
    pub fn describe_all(groups: &[Self], count: usize) -> String {
        let Some(first) = groups.first() else { return output::counted(0, "signal") };
        let part = if first.part == Split::All { String::new() } else { format!(", {}", first.part) };
        format!("{} ({}{part})", output::counted(count, "signal"), first.source.describe())
    }

    /// Reads `count` signals from `start` on, as `[count, channels, height, width]`.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read(&self, start: usize, count: usize) -> Result<Vec<f32>> {
        let indices: Vec<usize> = (start..start + count).collect();
        let mut values = vec![0.0; count * self.shape().len()];
        self.source.read(&indices, &mut values)?;
        Ok(values)
    }
}

/// Parses `HxW` or one number for both; extents of at least 1.
pub fn pair(text: &str) -> std::result::Result<Pair, String> {
    positive_pair(text, 1)
}

/// As [`pair`], 0 allowed.
pub fn pair_or_zero(text: &str) -> std::result::Result<Pair, String> {
    positive_pair(text, 0)
}

fn positive_pair(text: &str, least: usize) -> std::result::Result<Pair, String> {
    let extents: Option<Vec<usize>> =
        text.split('x').map(|part| part.trim().parse().ok().filter(|&extent| extent >= least)).collect();
    match extents.as_deref() {
        Some(&[both]) => Ok(Pair([both; 2])),
        Some(&[vertical, horizontal]) => Ok(Pair([vertical, horizontal])),
        _ => Err(format!("expected a number of at least {least}, or two as 3x5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(pair("8"), Ok(Pair([8, 8])));
        assert_eq!(pair("3x5"), Ok(Pair([3, 5])));
        assert_eq!(pair_or_zero("0"), Ok(Pair([0, 0])));
        for wrong in ["0", "3x", "x", "3x4x5", "-1", "a", ""] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }
}
