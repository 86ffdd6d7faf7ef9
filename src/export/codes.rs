//! Codes on disk: γ_1 … γ_L of a set of signals, with what the pursuit reports of each and what turns them into signals again.
//!
//! | array | shape | type | content |
//! |---|---|---|---|
//! | `gamma_1` … `gamma_L` | `[n, m_i, h_i, w_i]` | f32 | representations; γ_{i−1} = D_i γ_i, but for pursuits layer by layer |
//! | `signal_shape` | `[3]` | i32 | channels, height, width of the signals |
//! | `mean`, `scale` | `[n]` | f32 | undo the model's normalisation: x = `scale`·D^(L)γ_L + `mean`; 0 and 1 where there is none |
//! | `channel_mean`, `channel_scale` | `[channels]` | f32 | the same of the channels of all signals: x is then multiplied by the one and the other added; there for models with the normalisations `mean`, `mean-and-scale` and `standardise` only |
//! | `smooth` | `[n, channels, height, width]` | f32 | to be added as well; there for models with the normalisation `high-pass` only |
//! | `lambda` | `[n]` | f32 | λ of each signal |
//! | `iterations` | `[n]` | i32 | iterations (of coordinate descent: sweeps) |
//! | `relative_gap` | `[n]` | f32 | duality gap over objective; 1 where the pursuit proves nothing |
//! | `objective`, `data_term` | `[n]` | f32 | what the pursuit minimises, for basis pursuit ½‖y − D^(L)γ_L‖² + λ‖γ_L‖₁, and ½‖y − D^(L)γ_L‖² |
//! | `nonzeros` | `[n]` | i32 | non-zeros of γ_L |
//! | `stop_reason` | `[n]` | u8 | [`crate::pursuit::StopReason::number`]; 0: the gap was reached, 1: the iterations were used up, others as listed there |
//!
//! y, λ, objective and data term are those of the signals after the model's normalisation. Files also hold the model's configuration,
//! what tells its dictionaries from others ([`digest_of_filters`]), and the pursuit's settings, as JSON: safetensors in the metadata
//! under the key `mlcsc_codes`, npz archives as the bytes `mlcsc_codes`. Where signals came from an array, its layout and whether it has an axis of
//! channels are there, too ([`LAYOUT`]), so that an array made of codes has the same axes.
//!
//! Read are also files that others made: `gamma_L` alone, `[n, m_L]` for vectors, is enough; `channel_mean` and `channel_scale` are then the model's.
//!
//! A part of a set of codes, as `mlcsc encode --shard` writes it, says in its settings, under the key `shard`, which part it is
//! ([`crate::data::Part`]). [`merge`] joins all parts.
//!
//! Where signals are pictures of several sizes, every picture has these arrays for itself, `n` being 1, under names that begin with
//! its file's: `boat.png/gamma_1`, `boat.png/mean` and so on.
//!
//! # From codes to signals in Python
//!
//! With the filters `W_1.npy` from `mlcsc export`, and the first layer's stride and padding, vertical and horizontal, as
//! `mlcsc inspect` shows them. (D_1 γ_1 is D^(L)γ_L, but for pursuits layer by layer: there the same is done with γ_L and W_L, then
//! with the result and W_{L−1}, and so on.)
//!
//! ```python
//! import numpy as np
//!
//! def dictionary(gamma, W, shape, stride=(1, 1), padding=(0, 0)):     # D γ, for all signals
//!     height, width = shape[1] + 2 * padding[0], shape[2] + 2 * padding[1]
//!     x = np.zeros((len(gamma), W.shape[1], height, width), np.float32)
//!     for i in range(gamma.shape[2]):
//!         for j in range(gamma.shape[3]):
//!             top, left = i * stride[0], j * stride[1]
//!             x[:, :, top:top + W.shape[2], left:left + W.shape[3]] += np.tensordot(gamma[:, :, i, j], W, 1)
//!     return x[:, :, padding[0]:height - padding[0], padding[1]:width - padding[1]]
//!
//! codes = np.load("codes.npz")              # or safetensors.numpy.load_file("codes.safetensors")
//! x = dictionary(codes["gamma_1"], np.load("filters/W_1.npy"), codes["signal_shape"], stride=(2, 2))
//! x = codes["scale"][:, None, None, None] * x + codes["mean"][:, None, None, None]
//! if "smooth" in codes: x += codes["smooth"]
//! if "channel_mean" in codes:
//!     x = codes["channel_scale"][:, None, None] * x + codes["channel_mean"][:, None, None]
//! ```

mod merge;

pub use merge::{Merged, merge};

use super::arrays::{self, Content, Element, NamedArray, npz_entry};
use crate::data::digest;
use crate::error::{Error, Result};
use crate::files;
use crate::geometry::{SignalShape, checked_len};
use crate::kernels::sparse::to_host;
use crate::model::Mlcsc;
use crate::model::normalization::{ChannelStatistics, Normalization, Undo};
use crate::pursuit::SignalReport;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

/// Key of the safetensors metadata; not the one of model files, so that neither is taken for the other.
const METADATA_KEY: &str = "mlcsc_codes";

/// Key of the settings that tells the dictionaries that the codes are of from others, see [`digest_of_filters`].
pub const FILTERS: &str = "filters";

/// Key of the settings of the layout by which signals were read of an array, and of whether that has an axis of channels: arrays of what is
/// made of codes have the same axes.
pub const LAYOUT: &str = "layout";
/// See [`LAYOUT`].
pub const CHANNEL_AXIS: &str = "channel_axis";

/// Key of the settings under which a part says which it is.
pub const PART: &str = "shard";

/// Largest header of a safetensors file that is read, as in the safetensors crate.
const MAX_HEADER: u64 = 100_000_000;

/// The formats that codes come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodesFormat {
    /// `.safetensors`
    Safetensors,
    /// `.npz`, compressed
    Npz,
}

impl CodesFormat {
    /// The format that a file's name asks for; `flag` is what the name was given with.
    ///
    /// # Errors
    /// Another extension.
    pub fn of(path: &Path, flag: &str) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npz") => Ok(Self::Npz),
            _ => Err(Error::parameter(flag, path.display(), "a file name that ends in .safetensors or .npz")),
        }
    }

    /// The format of a file to read: that of its name, or of its content where it comes through a pipe.
    ///
    /// # Errors
    /// As [`Self::of`]; a pipe that cannot be read.
    pub fn of_existing(path: &Path, flag: &str) -> Result<Self> {
        if !files::is_pipe(path) {
            return Self::of(path, flag);
        }
        // An archive begins with its first file's header.
        let is_archive = files::read_whole(path)?.starts_with(b"PK");
        Ok(if is_archive { Self::Npz } else { Self::Safetensors })
    }
}

/// Writes the codes of a set of signals batch by batch.
///
/// Until [`Self::finish`] they lie in unnamed temporary files in the target's folder, which vanish with the program however it
/// ends; memory does not grow with the size of the codes.
#[derive(Debug)]
pub struct CodesWriter {
    path: PathBuf,
    format: CodesFormat,
    /// γ_i of all groups, one after the other.
    spools: Vec<BufWriter<File>>,
    /// Smooth components of all groups that have them, one after the other.
    smooth: BufWriter<File>,
    groups: Vec<Group>,
}

/// Signals of one shape, whose arrays have a common beginning of their names.
#[derive(Debug)]
struct Group {
    name: String,
    signal: SignalShape,
    codes: Vec<SignalShape>,
    /// Where γ_i begin in their spools.
    starts: Vec<u64>,
    signals: usize,
    reports: Vec<SignalReport>,
    means: Vec<f32>,
    scales: Vec<f32>,
    /// Where smooth components begin in their spool, and of how many signals there are some: of all or of none.
    smooth_start: u64,
    smooth: usize,
    /// What all signals were normalised by.
    channels: Option<ChannelStatistics>,
}

impl Group {
    /// The name of one of its arrays.
    fn array(&self, name: &str) -> String {
        array_name(&self.name, name)
    }

    /// Bytes of γ_i, counted from 0.
    fn bytes(&self, layer: usize) -> u64 {
        (self.signals * self.codes[layer].len() * Element::F32.size()) as u64
    }

    /// Bytes of its smooth components.
    fn smooth_bytes(&self) -> u64 {
        (self.smooth * self.signal.len() * Element::F32.size()) as u64
    }

    /// All of its arrays.
    fn arrays(self, spools: &[Arc<File>], smooth: &Arc<File>) -> Vec<NamedArray> {
        let codes = spools.iter().enumerate().map(|(index, spool)| NamedArray {
            name: self.array(&format!("gamma_{}", index + 1)),
            element: Element::F32,
            shape: self.codes[index].batched(self.signals).to_vec(),
            content: Content::File(spool.clone(), self.starts[index]),
        });
        let SignalShape { channels, height, width } = self.signal;
        // Extents are at most 2³⁰.
        let extents = [channels, height, width].map(|extent| extent as i32);
        let own = |name: &str, values: &[f32]| NamedArray::floats(self.array(name), &[values.len()], values);
        let floats = |name: &str, value: fn(&SignalReport) -> f32| {
            own(name, &self.reports.iter().map(value).collect::<Vec<_>>())
        };
        let integers = |name: &str, value: fn(&SignalReport) -> usize| {
            let value = |report| i32::try_from(value(report)).unwrap_or(i32::MAX);
            NamedArray::integers(self.array(name), &self.reports.iter().map(value).collect::<Vec<_>>())
        };
        let stops = self.reports.iter().map(|report| report.stop.number()).collect();
        let smooth = (self.smooth > 0).then(|| NamedArray {
            name: self.array("smooth"),
            element: Element::F32,
            shape: self.signal.batched(self.smooth).to_vec(),
            content: Content::File(smooth.clone(), self.smooth_start),
        });
        let channels = self
            .channels
            .iter()
            .flat_map(|statistics| [own("channel_mean", &statistics.mean), own("channel_scale", &statistics.scale)]);
        codes
            .chain(smooth)
            .chain(channels)
            .chain([
                NamedArray::integers(self.array("signal_shape"), &extents),
                own("mean", &self.means),
                own("scale", &self.scales),
                floats("lambda", |report| report.lambda),
                integers("iterations", |report| report.iterations),
                floats("relative_gap", |report| report.relative_gap),
                floats("objective", |report| report.objective),
                floats("data_term", |report| report.data_term),
                integers("nonzeros", |report| report.nonzeros),
                NamedArray::bytes(self.array("stop_reason"), stops),
            ])
            .collect()
    }
}

/// The name of an array of a group; the group of all signals has no name.
fn array_name(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") }
}

impl CodesWriter {
    /// For representations γ_1 … γ_L, L being `depth`. [`Self::begin`] says of what.
    ///
    /// # Errors
    /// An unknown extension; no layers; a folder that cannot be written into.
    pub fn create(path: &Path, depth: usize) -> Result<Self> {
        if depth == 0 {
            return Err(Error::parameter("depth", 0, "at least 1 layer"));
        }
        let format = CodesFormat::of(path, "out")?;
        files::check_writable(path)?;
        let target = files::target(path)?;
        let folder = files::parent(&target);
        files::create_folder(folder)?;
        let spool = || Ok(BufWriter::new(tempfile::tempfile_in(folder).map_err(Error::write(path))?));
        let spools = (0..depth).map(|_| spool()).collect::<Result<_>>()?;
        Ok(Self { path: path.into(), format, spools, smooth: spool()?, groups: Vec::new() })
    }

    /// What follows are `signals` signals of shape `signal` with representations γ_1 … γ_L of shapes `codes`. Where there is more
    /// than one group, each has a name of its own, that of the picture.
    ///
    /// # Errors
    /// The group before is not complete; another number of layers; a name that is taken.
    pub fn begin(&mut self, name: &str, signal: SignalShape, codes: &[SignalShape], signals: usize) -> Result<()> {
        self.check_complete()?;
        if codes.len() != self.spools.len() {
            return Err(Error::shape("layers of codes to write", self.spools.len(), codes.len()));
        }
        if self.groups.iter().any(|group| group.name == name || group.name.is_empty()) {
            return Err(Error::parameter("signals", format!("{name:?}"), "a name that no other signals have"));
        }
        let starts = match self.groups.last() {
            Some(last) => last.starts.iter().enumerate().map(|(layer, start)| start + last.bytes(layer)).collect(),
            None => vec![0; codes.len()],
        };
        let smooth_start = self.groups.last().map_or(0, |last| last.smooth_start + last.smooth_bytes());
        self.groups.push(Group {
            name: name.to_owned(),
            signal,
            codes: codes.to_vec(),
            starts,
            signals,
            reports: Vec::new(),
            means: Vec::new(),
            scales: Vec::new(),
            smooth_start,
            smooth: 0,
            channels: None,
        });
        Ok(())
    }

    /// Adds a batch: γ_1 … γ_L of the next signals, a report on each, and what undoes their normalisation.
    ///
    /// # Shapes
    /// - representations: L tensors, γ_i as `[n, m_i, h_i, w_i]`.
    ///
    /// # Errors
    /// Other shapes, more signals than announced, another number of reports than signals, a full disk.
    pub fn append(&mut self, representations: &[Tensor<4>], reports: &[SignalReport], undo: &Undo) -> Result<()> {
        let count = representations.first().map_or(0, |codes| codes.dims()[0]);
        let dims: Vec<[usize; 4]> = representations.iter().map(Tensor::dims).collect();
        let Some(group) = self.groups.last_mut() else {
            return Err(Error::shape("codes to write", "none before their shapes", format!("{dims:?}")));
        };
        let expected: Vec<[usize; 4]> = group.codes.iter().map(|shape| shape.batched(count)).collect();
        let left = group.signals - group.reports.len();
        if dims != expected || count > left {
            return Err(Error::shape("codes to write", format!("at most {left} of {expected:?}"), format!("{dims:?}")));
        }
        let (means, scales, smooth) = (undo.means(count), undo.scales(count), undo.smooth());
        let so_far = if smooth.is_some() { group.smooth } else { 0 };
        if smooth
            .as_ref()
            .is_some_and(|smooth| smooth.dims() != group.signal.batched(count) || so_far != group.reports.len())
            || (smooth.is_none() && group.smooth > 0)
        {
            return Err(Error::shape("signals to write", "smooth components of all of them or of none", "others"));
        }
        let channels = undo.channels();
        if !group.reports.is_empty() && group.channels.as_ref() != channels {
            return Err(Error::shape("signals to write", "the same statistics of channels for all of them", "others"));
        }
        group.channels = channels.cloned();
        if [reports.len(), means.len(), scales.len()] != [count; 3] {
            let found = format!("{} reports, {} means, {} scales", reports.len(), means.len(), scales.len());
            return Err(Error::shape("signals to write", format!("{count} of each"), found));
        }
        for (spool, codes) in self.spools.iter_mut().zip(representations) {
            let values = to_host(codes.clone());
            spool.write_all(&arrays::little_endian(&values)).map_err(Error::write(&self.path))?;
        }
        if let Some(smooth) = smooth {
            self.smooth.write_all(&arrays::little_endian(&to_host(smooth))).map_err(Error::write(&self.path))?;
            group.smooth += count;
        }
        group.reports.extend_from_slice(reports);
        group.means.extend(means);
        group.scales.extend(scales);
        Ok(())
    }

    fn check_complete(&self) -> Result<()> {
        match self.groups.last() {
            Some(group) if group.reports.len() != group.signals => {
                Err(Error::shape("signals to write", group.signals, group.reports.len()))
            }
            _ => Ok(()),
        }
    }

    /// Writes the final file, whole or not at all. `settings` is JSON that says how the codes were computed.
    ///
    /// # Errors
    /// Fewer signals than announced; a full disk.
    pub fn finish(self, settings: &serde_json::Value) -> Result<()> {
        self.check_complete()?;
        let whole = |spool: BufWriter<File>| {
            spool.into_inner().map(Arc::new).map_err(|error| Error::write(&self.path)(error.into_error()))
        };
        let spools = self.spools.into_iter().map(whole).collect::<Result<Vec<_>>>()?;
        let smooth = whole(self.smooth)?;
        let all: Vec<NamedArray> = self.groups.into_iter().flat_map(|group| group.arrays(&spools, &smooth)).collect();
        match self.format {
            CodesFormat::Safetensors => {
                arrays::write_safetensors(&self.path, Some((METADATA_KEY, settings.to_string())), all)
            }
            CodesFormat::Npz => arrays::write_npz(&self.path, all.into_iter().chain([told(settings)]).collect()),
        }
    }
}

/// Settings as an array of an npz archive.
fn told(settings: &serde_json::Value) -> NamedArray {
    NamedArray::bytes(METADATA_KEY, settings.to_string().into_bytes())
}

/// The settings that a file of codes was written with, where it is one and holds some.
pub fn settings(path: &Path) -> Option<serde_json::Value> {
    let text = match CodesFormat::of_existing(path, "codes").ok()? {
        CodesFormat::Safetensors => SafetensorsFile::open(path).ok()?.settings(),
        CodesFormat::Npz => NpzFile::open(path).ok()?.settings().ok()?,
    };
    serde_json::from_str(&text?).ok()
}

impl SafetensorsFile {
    /// The text of the settings.
    fn settings(&self) -> Option<String> {
        self.header.metadata().as_ref()?.get(METADATA_KEY).cloned()
    }
}

impl NpzFile {
    /// The text of the settings.
    ///
    /// # Errors
    /// A damaged file; more than a header may hold.
    fn settings(&mut self) -> Result<Option<String>> {
        let told = self.header(METADATA_KEY)?.filter(|array| array.element == Some(Stored::U8));
        let read = |array: ArrayHeader| match checked_len(&array.shape).map(|len| len as u64) {
            Some(len) if len <= MAX_HEADER => self.values(&array, len),
            _ => Err(self.broken(format!("{METADATA_KEY} of shape {:?}", array.shape))),
        };
        let bytes = told.map(read).transpose()?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }
}

/// What tells a model's dictionaries from others, as [`FILTERS`] holds it.
pub fn digest_of_filters(model: &Mlcsc) -> String {
    let values = model.filters().into_iter().flat_map(to_host);
    digest(&values.flat_map(f32::to_le_bytes).collect::<Vec<_>>())
}

/// Where in a file the deepest codes are.
#[derive(Debug)]
enum Place {
    /// Safetensors: position of the first value.
    At(u64),
    /// An npz archive's entry.
    Entry,
}

/// The deepest codes γ_L of signals of one shape in a file, read in batches.
///
/// The file may come from [`CodesWriter`] or from anywhere else, as long as `gamma_L` is in it as f32 or f64.
#[derive(Debug)]
pub struct CodesReader {
    path: PathBuf,
    /// The group of the file that they are, empty where there is but one.
    group: String,
    deepest: BatchedArray,
    count: usize,
    codes: SignalShape,
    signal: Option<SignalShape>,
    undo: Option<(Vec<f32>, Vec<f32>)>,
    /// Smooth components of the signals.
    smooth: Option<BatchedArray>,
    /// What all signals were normalised by.
    channels: Option<ChannelStatistics>,
}

/// An array of floats in a file that is read some signals at a time.
#[derive(Debug)]
struct BatchedArray {
    name: String,
    place: Place,
    double: bool,
    /// Values of one signal.
    len: usize,
}

impl CodesReader {
    /// Opens the codes `gamma_{depth}` of a file, `depth` being the model's number of layers: one reader where all signals have
    /// one shape, else one for every picture, in the order of their names.
    ///
    /// # Errors
    /// A file that cannot be read or is neither safetensors nor npz; no array of that name, or one of another type or number
    /// of dimensions.
    pub fn open(path: &Path, depth: usize) -> Result<Vec<Self>> {
        let name = format!("gamma_{depth}");
        match CodesFormat::of_existing(path, "codes")? {
            CodesFormat::Safetensors => {
                SafetensorsFile::open(path).and_then(|mut file| Self::all(path, &name, &mut file))
            }
            CodesFormat::Npz => NpzFile::open(path).and_then(|mut file| Self::all(path, &name, &mut file)),
        }
    }

    fn all(path: &Path, name: &str, file: &mut impl Archive) -> Result<Vec<Self>> {
        let mut groups: Vec<String> = file.names().iter().filter_map(|array| group_of(array, name)).collect();
        groups.sort();
        if groups.is_empty() {
            return Err(missing(path, name, file.names()));
        }
        groups.into_iter().map(|group| Self::one(path, group, name, file)).collect()
    }

    fn one(path: &Path, group: String, name: &str, file: &mut impl Archive) -> Result<Self> {
        let name = array_name(&group, name);
        let codes = file.header(&name)?.ok_or_else(|| missing(path, &name, Vec::new()))?;
        let (count, shape) = dimensions(path, &name, &codes.shape)?;
        let deepest = BatchedArray::new(codes, shape.len(), file)?;
        let signal = match file.header(&array_name(&group, "signal_shape"))? {
            Some(array) if array.element == Some(Stored::I32) && array.shape == [3] => {
                let bytes = file.values(&array, 12)?;
                let (words, _) = bytes.as_chunks::<4>();
                signal_shape(words.iter().map(|word| i32::from_le_bytes(*word)))
            }
            _ => None,
        };
        let mut numbers = |name: &str| Self::per_signal(file, &array_name(&group, name), count);
        let undo = match (numbers("mean")?, numbers("scale")?) {
            (None, None) => None,
            (mean, scale) => Some((mean.unwrap_or(vec![0.0; count]), scale.unwrap_or(vec![1.0; count]))),
        };
        let smooth = match (file.header(&array_name(&group, "smooth"))?, signal) {
            (Some(array), Some(signal)) if array.shape == signal.batched(count) => {
                Some(BatchedArray::new(array, signal.len(), file)?)
            }
            (Some(array), _) => {
                let expected =
                    signal.map_or("signal_shape beside it".into(), |signal| format!("{:?}", signal.batched(count)));
                return Err(
                    file.broken(format!("{} of shape {:?} where {expected} is needed", array.name, array.shape))
                );
            }
            (None, _) => None,
        };
        let channels = match signal {
            Some(signal) => {
                let mut numbers = |name: &str| Self::per_signal(file, &array_name(&group, name), signal.channels);
                match (numbers("channel_mean")?, numbers("channel_scale")?) {
                    (None, None) => None,
                    (mean, scale) => {
                        let mean = mean.unwrap_or(vec![0.0; signal.channels]);
                        Some(ChannelStatistics { scale: scale.unwrap_or(vec![1.0; mean.len()]), mean })
                    }
                }
            }
            None => None,
        };
        Ok(Self { path: path.into(), group, deepest, count, codes: shape, signal, undo, smooth, channels })
    }

    /// One number for each of `count` signals or channels, where the file has such an array.
    fn per_signal(file: &mut impl Archive, name: &str, count: usize) -> Result<Option<Vec<f32>>> {
        let Some(array) = file.header(name)? else { return Ok(None) };
        let width = match array.element {
            Some(Stored::F32) => 4,
            Some(Stored::F64) => 8,
            _ => return Err(file.broken(format!("{name} of type {} where floats are needed", array.typed))),
        };
        if array.shape != [count] {
            return Err(file.broken(format!("{name} of shape {:?} where [{count}] is needed", array.shape)));
        }
        let values = floats(&file.values(&array, (count * width) as u64)?, width == 8);
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(file.broken(format!("{value} in {name}"))),
            None => Ok(Some(values)),
        }
    }

    /// The name of the picture that they belong to, where every picture of the file is for itself.
    pub fn picture(&self) -> Option<&str> {
        Some(self.group.as_str()).filter(|group| !group.is_empty())
    }

    /// Whether the file holds what undoes that normalisation of its signals.
    pub fn undoes(&self, normalization: Normalization) -> bool {
        match normalization {
            Normalization::None => true,
            Normalization::Center | Normalization::Contrast => self.undo.is_some(),
            // Signals that were drawn never were normalised, and have means of zero alone.
            Normalization::HighPass => self.smooth.is_some() || self.undo.is_some(),
            Normalization::Mean | Normalization::MeanAndScale | Normalization::Standardise => {
                self.channels.is_some() || self.undo.is_some()
            }
        }
    }

    /// With what all signals were normalised by, where the file does not say it.
    #[must_use]
    pub fn normalised_by(self, statistics: Option<ChannelStatistics>) -> Self {
        let known = self.channels.is_some() || self.undo.is_some();
        Self { channels: if known { self.channels } else { statistics }, ..self }
    }

    /// Number of signals.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no signal.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Shape of the signals that were coded, where the file says so.
    pub fn signal(&self) -> Option<SignalShape> {
        self.signal
    }

    /// Refuses codes of another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] that names file and array.
    pub fn check(&self, expected: SignalShape) -> Result<()> {
        if self.codes == expected {
            return Ok(());
        }
        let what = format!("{} of {}", self.deepest.name, self.path.display());
        Err(Error::shape(what, format!("{expected}, as the model's codes"), self.codes))
    }

    /// Calls `visit` with one batch of at most `batch` signals after the other: their codes, laid out as `[n, m_L, h_L, w_L]`, and
    /// what undoes their normalisation, where the file holds it.
    ///
    /// # Errors
    /// A file that ends early or cannot be read, values that are not finite; errors of `visit`.
    pub fn for_each(
        &self,
        batch: usize,
        device: &Device,
        mut visit: impl FnMut(Vec<f32>, Option<Undo>) -> Result<()>,
    ) -> Result<()> {
        let mut batches = |codes: &mut dyn Read, mut smooth: Option<&mut dyn Read>| -> Result<()> {
            for start in (0..self.count).step_by(batch.max(1)) {
                let count = batch.max(1).min(self.count - start);
                let values = self.deepest.read(codes, count, &self.path)?;
                let components = match (&self.smooth, &mut smooth, self.signal) {
                    (Some(array), Some(reader), Some(signal)) => {
                        let values = array.read(&mut **reader, count, &self.path)?;
                        Some(Tensor::from_data(TensorData::new(values, signal.batched(count)), device))
                    }
                    _ => None,
                };
                let part = |values: &[f32]| values[start..start + count].to_vec();
                let (means, scales) = match &self.undo {
                    Some((means, scales)) => (part(means), part(scales)),
                    None => (vec![0.0; count], vec![1.0; count]),
                };
                let is_known = self.undo.is_some() || components.is_some();
                let undo = match &self.channels {
                    Some(channels) => Some(Undo::from_channels(channels.clone())),
                    None => is_known.then(|| Undo::from_parts(means, scales, components, device)).transpose()?,
                };
                visit(values, undo)?;
            }
            Ok(())
        };
        self.deepest.open(&self.path, |codes| match &self.smooth {
            None => batches(codes, None),
            Some(array) => array.open(&self.path, |smooth| batches(codes, Some(smooth))),
        })
    }
}

impl BatchedArray {
    fn new(array: ArrayHeader, len: usize, file: &impl Archive) -> Result<Self> {
        let double = match array.element {
            Some(Stored::F32) => false,
            Some(Stored::F64) => true,
            _ => {
                let reason = format!(
                    "{} of type {} where little-endian floats of 32 or 64 bits are needed (in NumPy .astype('<f4'))",
                    array.name, array.typed
                );
                return Err(file.broken(reason));
            }
        };
        Ok(Self { name: array.name, place: array.place, double, len })
    }

    /// Gives its values, from the first one on, to `visit`.
    fn open(&self, path: &Path, visit: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<()> {
        match self.place {
            Place::At(position) => {
                let (mut file, _) = files::open_with_length(path)?;
                file.seek(SeekFrom::Start(position)).map_err(Error::read(path))?;
                visit(&mut BufReader::new(file))
            }
            Place::Entry => {
                let broken = |error: io::Error| Error::format(path, error.to_string());
                let (file, _) = files::open_with_length(path)?;
                let mut archive = ZipArchive::new(BufReader::new(file)).map_err(io::Error::from).map_err(broken)?;
                let entry = npz_values(&mut archive, &self.name, path)?;
                visit(&mut BufReader::new(entry))
            }
        }
    }

    /// The values of the next `count` signals.
    fn read(&self, reader: &mut dyn Read, count: usize, path: &Path) -> Result<Vec<f32>> {
        let len = count * self.len * if self.double { 8 } else { 4 };
        let mut bytes = Vec::new();
        // Grows with what is really there, not with what the header says.
        let read = reader.take(len as u64).read_to_end(&mut bytes).map_err(Error::read(path))?;
        if read != len {
            return Err(Error::format(path, format!("{} ends early", self.name)));
        }
        let values = floats(&bytes, self.double);
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::format(path, format!("{} holds NaN or infinite values", self.name)));
        }
        Ok(values)
    }
}

/// Little-endian floats of 64 or 32 bits.
fn floats(bytes: &[u8], double: bool) -> Vec<f32> {
    if double {
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|word| f64::from_le_bytes(*word) as f32).collect()
    } else {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}

/// The group that an array of that name belongs to, if it is the array `name` of one.
fn group_of(array: &str, name: &str) -> Option<String> {
    let group = array.strip_suffix(name)?;
    if group.is_empty() { Some(String::new()) } else { group.strip_suffix('/').map(str::to_owned) }
}

/// Types of arrays that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    F32,
    F64,
    I32,
    U8,
}

/// What a file says of one of its arrays.
struct ArrayHeader {
    name: String,
    /// `None` for a type that is not read.
    element: Option<Stored>,
    /// The type as the file has it.
    typed: String,
    shape: Vec<usize>,
    place: Place,
}

/// A file of named arrays.
trait Archive {
    /// Names of all arrays.
    fn names(&self) -> Vec<String>;

    /// What is said of an array, borne out by the file's length; `None` where there is none of that name.
    fn header(&mut self, name: &str) -> Result<Option<ArrayHeader>>;

    /// The first `len` bytes of an array's values.
    fn values(&mut self, array: &ArrayHeader, len: u64) -> Result<Vec<u8>>;

    /// The error that such a file is broken, `reason` being what was found.
    fn broken(&self, reason: String) -> Error;
}

struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where values begin.
    values: u64,
}

impl SafetensorsFile {
    fn open(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::format(path, format!("expected codes (safetensors), found {reason}"));
        let (mut file, length) = files::open_with_length(path)?;
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| broken("a file of less than 8 bytes".into()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length - 8 {
            return Err(broken(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(size).read_to_end(&mut header).map_err(Error::read(path))?;
        // Checks offsets against shapes and each other.
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| broken(format!("a broken header: {error}")))?;
        let values = 8 + size;
        if header.data_len() as u64 != length - values {
            return Err(broken(format!(
                "{} bytes of values where the header says {}",
                length - values,
                header.data_len()
            )));
        }
        Ok(Self { path: path.into(), file, header, values })
    }
}

impl Archive for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    fn header(&mut self, name: &str) -> Result<Option<ArrayHeader>> {
        let Some(info) = self.header.info(name) else { return Ok(None) };
        let element = match info.dtype {
            Dtype::F32 => Some(Stored::F32),
            Dtype::F64 => Some(Stored::F64),
            Dtype::I32 => Some(Stored::I32),
            Dtype::U8 => Some(Stored::U8),
            _ => None,
        };
        let place = Place::At(self.values + info.data_offsets.0 as u64);
        let (typed, shape) = (format!("{:?}", info.dtype), info.shape.clone());
        Ok(Some(ArrayHeader { name: name.into(), element, typed, shape, place }))
    }

    fn values(&mut self, array: &ArrayHeader, len: u64) -> Result<Vec<u8>> {
        let Place::At(position) = array.place else { return Err(self.broken(format!("no {}", array.name))) };
        let mut bytes = Vec::new();
        self.file
            .seek(SeekFrom::Start(position))
            .and_then(|_| Read::by_ref(&mut self.file).take(len).read_to_end(&mut bytes))
            .map_err(Error::read(&self.path))?;
        if bytes.len() as u64 != len {
            return Err(Error::format(&self.path, format!("{} ends early", array.name)));
        }
        Ok(bytes)
    }

    fn broken(&self, reason: String) -> Error {
        Error::format(&self.path, format!("expected codes (safetensors), found {reason}"))
    }
}

/// A reader of an archive's array that stands at its values.
fn npz_values<'a>(
    archive: &'a mut ZipArchive<BufReader<File>>,
    name: &str,
    path: &Path,
) -> Result<ZipFile<'a, BufReader<File>>> {
    let mut entry = archive.by_name(&npz_entry(name)).map_err(|error| match error {
        ZipError::FileNotFound => missing(path, name, Vec::new()),
        other => Error::format(path, format!("{name} that cannot be read: {other}")),
    })?;
    npyz::NpyHeader::from_reader(&mut entry).map_err(|error| Error::format(path, error.to_string()))?;
    Ok(entry)
}

struct NpzFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl NpzFile {
    fn open(path: &Path) -> Result<Self> {
        let (file, _) = files::open_with_length(path)?;
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| Error::format(path, format!("expected codes (npz), found no archive: {error}")))?;
        Ok(Self { path: path.into(), archive })
    }
}

impl Archive for NpzFile {
    fn names(&self) -> Vec<String> {
        self.archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect()
    }

    fn header(&mut self, name: &str) -> Result<Option<ArrayHeader>> {
        let path = self.path.clone();
        let broken = |reason: String| Error::format(&path, format!("expected codes (npz), found {reason}"));
        let entry = self.archive.by_name(&npz_entry(name));
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            // Such as one that is encrypted, or compressed by another method than deflate.
            Err(other) => return Err(broken(format!("{name} that cannot be read: {other}"))),
        };
        let size = entry.size();
        // Long headers are made up: what is read of one is bounded, whatever length it states.
        let mut start = Vec::new();
        let unreadable = |error: io::Error| broken(format!("{name} that cannot be read: {error}"));
        entry.by_ref().take(1 << 16).read_to_end(&mut start).map_err(unreadable)?;
        if start.len() < 12 || (start[6] > 1 && start[10..12] != [0, 0]) {
            return Err(broken(format!("{name} without a .npy header")));
        }
        let mut cursor = Cursor::new(&start);
        let header = npyz::NpyHeader::from_reader(&mut cursor).map_err(unreadable)?;
        let (values, item) = (size - cursor.position().min(size), header.dtype().num_bytes().unwrap_or(0) as u64);
        if header.shape().iter().try_fold(item, |len, &extent| len.checked_mul(extent)) != Some(values) {
            return Err(broken(format!("{name} of {values} bytes and shape {:?}", header.shape())));
        }
        if header.order() != npyz::Order::C {
            return Err(broken(format!(
                "{name} in Fortran order where C order is needed (numpy.ascontiguousarray gives it)"
            )));
        }
        let typed = header.dtype().descr();
        let element = match typed.as_str() {
            "'<f4'" => Some(Stored::F32),
            "'<f8'" => Some(Stored::F64),
            "'<i4'" => Some(Stored::I32),
            "'|u1'" => Some(Stored::U8),
            _ => None,
        };
        let shape = header.shape().iter().map(|&extent| usize::try_from(extent).unwrap_or(usize::MAX)).collect();
        Ok(Some(ArrayHeader { name: name.into(), element, typed, shape, place: Place::Entry }))
    }

    fn values(&mut self, array: &ArrayHeader, len: u64) -> Result<Vec<u8>> {
        let path = &self.path;
        let broken = |error: io::Error| Error::format(path, error.to_string());
        let entry = npz_values(&mut self.archive, &array.name, path)?;
        let mut bytes = Vec::new();
        entry.take(len).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 != len {
            return Err(Error::format(path, format!("{} ends early", array.name)));
        }
        Ok(bytes)
    }

    fn broken(&self, reason: String) -> Error {
        Error::format(&self.path, format!("expected codes (npz), found {reason}"))
    }
}

fn missing(path: &Path, name: &str, mut found: Vec<String>) -> Error {
    found.sort();
    let found = if found.is_empty() { "none".into() } else { found.join(", ") };
    Error::format(path, format!("expected codes under the name {name}, found {found}"))
}

/// Number of signals and shape of a signal's codes.
fn dimensions(path: &Path, name: &str, shape: &[usize]) -> Result<(usize, SignalShape)> {
    match *shape {
        [count, channels, height, width] if checked_len(&[channels, height, width]).is_some_and(|len| len > 0) => {
            Ok((count, SignalShape::new(channels, height, width)))
        }
        // Of vectors, as other programs have them.
        [count, atoms] if atoms > 0 && checked_len(&[atoms]).is_some() => Ok((count, SignalShape::new(atoms, 1, 1))),
        _ => {
            let what = format!("{name} of {}", path.display());
            Err(Error::shape(
                what,
                "four dimensions [signals, atoms, height, width], or [signals, atoms] of vectors",
                format!("{shape:?}"),
            ))
        }
    }
}

/// The shape from its three extents, unless one is none.
fn signal_shape(extents: impl Iterator<Item = i32>) -> Option<SignalShape> {
    let extents: Vec<usize> = extents.filter_map(|extent| usize::try_from(extent).ok()).collect();
    match extents[..] {
        [channels, height, width] if channels * height.min(width) > 0 => {
            Some(SignalShape::new(channels, height, width))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pursuit::StopReason;

    const SIGNAL: SignalShape = SignalShape::new(1, 4, 4);
    const CODES: [SignalShape; 2] = [SignalShape::new(2, 3, 3), SignalShape::new(5, 1, 2)];

    fn report(index: usize) -> SignalReport {
        SignalReport {
            lambda: 0.5 + index as f32,
            iterations: index,
            objective: 2.0,
            relative_gap: 1e-5,
            data_term: 1.0,
            nonzeros: 3,
            stop: if index == 1 { StopReason::MaxIterations } else { StopReason::DualityGap },
            finished_by: None,
        }
    }

    fn batch(shape: SignalShape, start: usize, count: usize) -> Tensor<4> {
        let values: Vec<f32> = (start * shape.len()..(start + count) * shape.len()).map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, shape.batched(count)), &crate::device::named(None).unwrap())
    }

    /// The means are 10 times the signals' numbers, the scales these plus 1.
    fn append(writer: &mut CodesWriter, codes: [SignalShape; 2], start: usize, count: usize) -> Result<()> {
        append_with(writer, codes, start, count, None)
    }

    fn append_with(
        writer: &mut CodesWriter,
        codes: [SignalShape; 2],
        start: usize,
        count: usize,
        smooth: Option<Tensor<4>>,
    ) -> Result<()> {
        let device = crate::device::named(None).unwrap();
        let numbers = start..start + count;
        let reports: Vec<_> = numbers.clone().map(report).collect();
        let means = numbers.clone().map(|index| 10.0 * index as f32).collect();
        let scales = numbers.map(|index| 1.0 + index as f32).collect();
        let undo = Undo::from_parts(means, scales, smooth, &device).unwrap();
        writer.append(&codes.map(|shape| batch(shape, start, count)), &reports, &undo)
    }

    fn open(path: &Path, depth: usize) -> Result<CodesReader> {
        CodesReader::open(path, depth).map(|mut readers| {
            assert_eq!(readers.len(), 1);
            readers.remove(0)
        })
    }

    fn write(path: &Path) {
        let mut writer = CodesWriter::create(path, 2).unwrap();
        writer.begin("", SIGNAL, &CODES, 3).unwrap();
        for (start, count) in [(0, 2), (2, 1)] {
            append(&mut writer, CODES, start, count).unwrap();
        }
        writer.finish(&serde_json::json!({"gap": 0.5})).unwrap();
    }

    #[test]
    fn what_is_written_reads_back_in_other_batches() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["codes.safetensors", "codes.npz"] {
            let path = folder.path().join("below").join(name);
            write(&path);
            for depth in 1..=2 {
                let reader = open(&path, depth).unwrap();
                assert_eq!((reader.len(), reader.signal()), (3, Some(SIGNAL)));
                reader.check(CODES[depth - 1]).unwrap();
                assert!(reader.check(SIGNAL).unwrap_err().to_string().contains(name));
                let (mut values, mut sizes) = (Vec::new(), Vec::new());
                let device = crate::device::named(None).unwrap();
                let mut undone = Vec::new();
                let visit = |batch: Vec<f32>, undo: Option<Undo>| {
                    sizes.push(batch.len());
                    let ones = Tensor::<4>::ones([batch.len() / CODES[depth - 1].len(), 1, 1, 1], &device);
                    undone.extend(to_host(undo.unwrap().undo(ones)));
                    values.extend(batch);
                    Ok(())
                };
                reader.for_each(2, &device, visit).unwrap();
                let len = CODES[depth - 1].len();
                assert_eq!(sizes, [2 * len, len]);
                assert!(values.iter().enumerate().all(|(index, &value)| value == index as f32));
                assert_eq!(reader.picture(), None);
                // 1·1 + 0, 2·1 + 10 and 3·1 + 20.
                assert_eq!(undone, [1.0, 12.0, 23.0]);
            }
            let message = CodesReader::open(&path, 3).unwrap_err().to_string();
            assert!(message.contains("gamma_3") && message.contains("gamma_1") && message.contains(name), "{message}");
        }
    }

    #[test]
    fn report_arrays_and_settings_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes.safetensors");
        write(&path);
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()[METADATA_KEY], r#"{"gap":0.5}"#);
        assert_eq!(settings(&path).unwrap()["gap"], 0.5);
        assert_eq!(settings(folder.path()), None);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("stop_reason").unwrap().data(), [0, 1, 0]);
        assert_eq!(tensors.tensor("lambda").unwrap().data(), arrays::little_endian(&[0.5, 1.5, 2.5]));
        let names = ["iterations", "relative_gap", "objective", "data_term", "nonzeros"];
        assert!(names.iter().all(|name| tensors.tensor(name).unwrap().shape() == [3]));
    }

    #[test]
    fn nothing_is_left_of_what_was_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes.npz");
        let mut writer = CodesWriter::create(&path, 2).unwrap();
        assert!(append(&mut writer, CODES, 0, 1).is_err());
        writer.begin("", SIGNAL, &CODES, 3).unwrap();
        append(&mut writer, CODES, 0, 2).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Too many, another order, one report for two, too few.
        assert!(append(&mut writer, CODES, 0, 2).is_err());
        let [first, second] = CODES;
        assert!(append(&mut writer, [second, first], 0, 1).is_err());
        assert!(writer.append(&CODES.map(|shape| batch(shape, 0, 1)), &[], &Undo::nothing()).is_err());
        assert!(writer.begin("more", SIGNAL, &CODES, 1).is_err());
        assert!(writer.finish(&serde_json::Value::Null).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(CodesWriter::create(&folder.path().join("codes.txt"), 2).is_err());
    }

    /// An archive whose arrays are there, compressed in a way that is not read, is not said to lack them; one made again is the same.
    #[test]
    fn archives_of_another_compression_are_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            let mut writer = CodesWriter::create(&path, 2).unwrap();
            writer.begin("", SIGNAL, &CODES, 1).unwrap();
            append(&mut writer, CODES, 0, 1).unwrap();
            writer.finish(&serde_json::Value::Null).unwrap();
            std::fs::read(path).unwrap()
        };
        let mut bytes = write("codes.npz");
        assert_eq!(bytes, write("again.npz"));
        // The method of every entry, in its own header and in the archive's list; 12 is bzip2.
        for at in 0..bytes.len() - 12 {
            match &bytes[at..at + 4] {
                b"PK\x03\x04" => bytes[at + 8] = 12,
                b"PK\x01\x02" => bytes[at + 10] = 12,
                _ => {}
            }
        }
        let path = folder.path().join("other.npz");
        std::fs::write(&path, bytes).unwrap();
        let message = CodesReader::open(&path, 2).unwrap_err().to_string();
        assert!(message.contains("gamma_2") && message.contains("compression"), "{message}");
        println!("{message}");
    }

    #[test]
    fn pictures_of_several_sizes_have_arrays_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["codes.safetensors", "codes.npz"] {
            let path = folder.path().join(name);
            let mut writer = CodesWriter::create(&path, 2).unwrap();
            let sizes = [("b.png", CODES), ("a/1.png", [SignalShape::new(2, 1, 1), SignalShape::new(5, 2, 2)])];
            for (index, (picture, codes)) in sizes.into_iter().enumerate() {
                writer.begin(picture, SIGNAL, &codes, 1).unwrap();
                append(&mut writer, codes, index, 1).unwrap();
            }
            assert!(writer.begin("b.png", SIGNAL, &CODES, 1).is_err());
            writer.finish(&serde_json::Value::Null).unwrap();
            let readers = CodesReader::open(&path, 2).unwrap();
            for (reader, (index, (picture, codes))) in readers.iter().zip(sizes.into_iter().enumerate().rev()) {
                assert_eq!((reader.picture(), reader.len()), (Some(picture), 1));
                reader.check(codes[1]).unwrap();
                let visit = |values: Vec<f32>, _: Option<Undo>| {
                    assert_eq!(values, to_host(batch(codes[1], index, 1)));
                    Ok(())
                };
                reader.for_each(5, &crate::device::named(None).unwrap(), visit).unwrap();
            }
            assert_eq!(readers.len(), 2);
        }
    }

    #[test]
    fn what_undoes_a_normalisation_is_optional_but_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes.safetensors");
        let device = crate::device::named(None).unwrap();
        let write = |mut more: Vec<NamedArray>| {
            more.push(NamedArray::floats("gamma_1", &[2, 1, 1, 1], &[1.0, 2.0]));
            arrays::write_safetensors(&path, None, more).unwrap();
            open(&path, 1)
        };
        let undone = |reader: CodesReader| {
            let mut undone = None;
            let visit = |_: Vec<f32>, undo: Option<Undo>| {
                undone = undo.map(|undo| to_host(undo.undo(Tensor::ones([2, 1, 1, 1], &device))));
                Ok(())
            };
            reader.for_each(2, &device, visit).unwrap();
            undone
        };
        assert_eq!(undone(write(vec![]).unwrap()), None);
        assert_eq!(undone(write(vec![NamedArray::floats("mean", &[2], &[3.0, 4.0])]).unwrap()), Some(vec![4.0, 5.0]));
        assert_eq!(undone(write(vec![NamedArray::floats("scale", &[2], &[3.0, 4.0])]).unwrap()), Some(vec![3.0, 4.0]));
        for (array, word) in [
            (NamedArray::floats("mean", &[1], &[3.0]), "[1]"),
            (NamedArray::floats("scale", &[2], &[f32::NAN, 1.0]), "NaN"),
            (NamedArray::integers("mean", &[1, 2]), "I32"),
        ] {
            let message = write(vec![array]).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("codes.safetensors"), "{message}");
        }
    }

    #[test]
    fn smooth_components_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let device = crate::device::named(None).unwrap();
        for name in ["codes.safetensors", "codes.npz"] {
            let path = folder.path().join(name);
            let mut writer = CodesWriter::create(&path, 2).unwrap();
            // Two pictures, so that the second one's begin further on.
            for (index, picture) in ["a.png", "b.png"].into_iter().enumerate() {
                writer.begin(picture, SIGNAL, &CODES, 3).unwrap();
                let smooth = |start, count| Some(batch(SIGNAL, 3 * index + start, count));
                append_with(&mut writer, CODES, 0, 2, smooth(0, 2)).unwrap();
                assert!(append(&mut writer, CODES, 2, 1).is_err());
                append_with(&mut writer, CODES, 2, 1, smooth(2, 1)).unwrap();
            }
            writer.begin("c.png", SIGNAL, &CODES, 2).unwrap();
            append(&mut writer, CODES, 0, 1).unwrap();
            assert!(append_with(&mut writer, CODES, 1, 1, Some(batch(SIGNAL, 0, 1))).is_err());
            append(&mut writer, CODES, 1, 1).unwrap();
            writer.finish(&serde_json::Value::Null).unwrap();
            let readers = CodesReader::open(&path, 1).unwrap();
            let has: Vec<bool> = readers.iter().map(|reader| reader.undoes(Normalization::HighPass)).collect();
            assert_eq!(has, [true; 3]);
            for (index, reader) in readers[..2].iter().enumerate() {
                let (mut undone, mut wanted) = (Vec::new(), Vec::new());
                let visit = |values: Vec<f32>, undo: Option<Undo>| {
                    let count = values.len() / CODES[0].len();
                    undone.extend(to_host(undo.unwrap().undo(Tensor::ones(SIGNAL.batched(count), &device))));
                    Ok(())
                };
                reader.for_each(2, &device, visit).unwrap();
                for signal in 0..3 {
                    // scale·1 + mean + smooth
                    let smooth = to_host(batch(SIGNAL, 3 * index + signal, 1));
                    wanted.extend(smooth.iter().map(|value| 1.0 + 11.0 * signal as f32 + value));
                }
                assert_eq!(undone, wanted, "{name}");
            }
        }
        // Of another shape.
        let path = folder.path().join("codes.safetensors");
        let all = vec![
            NamedArray::floats("gamma_1", &[2, 1, 1, 1], &[1.0, 2.0]),
            NamedArray::integers("signal_shape", &[1, 2, 2]),
            NamedArray::floats("smooth", &[2, 1, 1, 2], &[1.0; 4]),
        ];
        arrays::write_safetensors(&path, None, all).unwrap();
        let message = open(&path, 1).unwrap_err().to_string();
        assert!(message.contains("smooth") && message.contains("[2, 1, 2, 2]"), "{message}");
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["codes.safetensors", "codes.npz"] {
            let path = folder.path().join(name);
            write(&path);
            let bytes = std::fs::read(&path).unwrap();
            let mut absurd = bytes.clone();
            absurd[..8].fill(0xff);
            for damaged in [&bytes[..bytes.len() / 2], &bytes[..4], b"text, and nothing but text", &[], &absurd] {
                std::fs::write(&path, damaged).unwrap();
                let message = match open(&path, 1) {
                    Err(error) => error.to_string(),
                    // An archive is read from its end: damage at the start shows when values are read.
                    Ok(reader) => {
                        reader.for_each(1, &crate::device::named(None).unwrap(), |_, _| Ok(())).unwrap_err().to_string()
                    }
                };
                assert!(message.contains(name) && !message.contains('\n'), "{message}");
            }
        }
        let path = folder.path().join("nan.safetensors");
        let array = NamedArray::floats("gamma_1", &[1, 1, 1, 1], &[f32::NAN]);
        arrays::write_safetensors(&path, None, vec![array]).unwrap();
        let error =
            open(&path, 1).unwrap().for_each(1, &crate::device::named(None).unwrap(), |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("NaN"));
    }
}
