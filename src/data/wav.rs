//! Recordings: `.wav` files of integer samples of 8 to 32 bits or of floating-point ones, read where they lie.

use super::arrays::check_values;
use super::folder::{Skipped, name_of};
use super::pictures::{Pictures, Window};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::geometry::{MAX_TENSOR_LEN, SignalShape};
use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};

/// Whether a file that begins with those bytes is one.
pub(super) fn is_beginning(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE")
}

/// A file: c channels of t samples.
struct Recording {
    path: PathBuf,
    spec: WavSpec,
    frames: u32,
}

/// Recordings of as many channels and of one sampling rate, each of a length of its own.
pub(super) struct Recordings {
    path: PathBuf,
    recordings: Vec<Recording>,
    skipped: Option<String>,
}

impl Recordings {
    /// Looks at the headers of files; what lies beside them was `skipped`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for damaged files and kinds that are not read; [`Error::Shape`] for recordings of other channels
    /// or sampling rates than the first.
    pub fn open(path: &Path, files: &[PathBuf], skipped: Skipped) -> Result<Self> {
        let recordings = files.iter().map(|file| Recording::open(file)).collect::<Result<Vec<_>>>()?;
        let kind = |recording: &Recording| (recording.spec.channels, recording.spec.sample_rate);
        if let Some(other) = recordings.iter().find(|other| kind(other) != kind(&recordings[0])) {
            let [first, other] = [&recordings[0], other].map(|recording| {
                let (channels, rate) = kind(recording);
                format!("{} ({channels} channels, {rate} Hz)", name_of(&recording.path))
            });
            let expected = "as many channels and samples a second in all of them";
            return Err(Error::shape(
                format!("recordings of {}", path.display()),
                expected,
                format!("{first} and {other}"),
            ));
        }
        Ok(Self { path: path.into(), recordings, skipped: skipped.describe(path) })
    }
}

fn reader(path: &Path) -> Result<WavReader<BufReader<File>>> {
    let (file, _) = open_with_length(path)?;
    WavReader::new(BufReader::new(file)).map_err(|error| wrong(path, error))
}

/// Samples a second of a recording, `None` of what is none.
pub fn sampling_rate(path: &Path) -> Option<u32> {
    reader(path).ok().map(|reader| reader.spec().sample_rate)
}

/// A file of floating-point samples of 32 bits, of values `[channels, 1, samples]`.
///
/// # Errors
/// More samples or channels than such a file can hold; `path` is named.
///
/// # Panics
/// If there are fewer values than the shape says.
pub fn encode_recording(path: &Path, shape: SignalShape, values: &[f32], sample_rate: u32) -> Result<Vec<u8>> {
    let unwritable =
        |error: hound::Error| Error::format(path, format!("expected a recording that a .wav file holds: {error}"));
    let spec = WavSpec {
        channels: u16::try_from(shape.channels).map_err(|_| unwritable(hound::Error::TooWide))?,
        sample_rate,
        bits_per_sample: 32,
        sample_format: SampleFormat::Float,
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).map_err(unwritable)?;
    let frames = shape.height * shape.width;
    for at in 0..frames * shape.channels {
        writer.write_sample(values[at % shape.channels * frames + at / shape.channels]).map_err(unwritable)?;
    }
    writer.finalize().map_err(unwritable)?;
    Ok(file.into_inner())
}

/// What hound says of floating-point samples of 64 bits, and of headers that leave the length open, as programs write them that cannot go back.
const OTHERS: [(&str, &str); 2] = [
    ("bits per sample is not 32", "floating-point samples of another width: those of 32 bits are read"),
    (
        "data chunk length is not a multiple of sample size",
        "a length that is no whole number of samples, as headers of streams have it",
    ),
];

fn wrong(path: &Path, error: hound::Error) -> Error {
    let reason = match error {
        hound::Error::IoError(error) if error.raw_os_error().is_some() => return Error::read(path)(error),
        // The crate's own: there are too few bytes.
        hound::Error::IoError(_) => "one that is cut short".into(),
        hound::Error::Unsupported => "samples of a kind that is not read".into(),
        other => {
            let said = other.to_string().replace('\n', " ");
            let known = OTHERS.iter().find(|(of, _)| said.contains(of));
            known.map_or_else(|| format!("a damaged one ({said})"), |(_, reason)| (*reason).to_owned())
        }
    };
    Error::format(path, format!("expected a .wav file of PCM or floating-point samples, found {reason}"))
}

impl Recording {
    fn open(path: &Path) -> Result<Self> {
        let reader = reader(path)?;
        let (spec, frames) = (reader.spec(), reader.duration());
        if frames == 0 || spec.channels == 0 {
            return Err(Error::format(path, "expected a recording, found a .wav file without samples"));
        }
        if frames as usize * usize::from(spec.channels) > MAX_TENSOR_LEN {
            let found = format!("found {} channels of {frames}", spec.channels);
            return Err(Error::format(path, format!("expected at most {MAX_TENSOR_LEN} samples, {found}")));
        }
        let recording = Self { path: path.into(), spec, frames };
        // The header promises samples: the last ones are there.
        recording.read(frames - 1, 1, &mut vec![0.0; spec.channels.into()]).map_err(|error| match error {
            Error::Io { .. } => error,
            _ => Error::format(
                path,
                format!("expected {frames} samples, as its header says, found a file that is cut short"),
            ),
        })?;
        Ok(recording)
    }

    /// Copies some samples from one on into `out`, `[channels, count]`.
    fn read(&self, first: u32, count: usize, out: &mut [f32]) -> Result<()> {
        let mut reader = reader(&self.path)?;
        reader.seek(first).map_err(Error::read(&self.path))?;
        let channels = usize::from(self.spec.channels);
        let mut put = |at: usize, value: f32| out[at % channels * count + at / channels] = value;
        match self.spec.sample_format {
            SampleFormat::Float => {
                for (at, sample) in reader.samples::<f32>().take(channels * count).enumerate() {
                    put(at, sample.map_err(|error| wrong(&self.path, error))?);
                }
            }
            SampleFormat::Int => {
                let scale = 1.0 / (1u64 << (self.spec.bits_per_sample - 1)) as f32;
                for (at, sample) in reader.samples::<i32>().take(channels * count).enumerate() {
                    put(at, sample.map_err(|error| wrong(&self.path, error))? as f32 * scale);
                }
            }
        }
        Ok(())
    }
}

impl Pictures for Recordings {
    fn count(&self) -> usize {
        self.recordings.len()
    }

    fn shape(&self, index: usize) -> SignalShape {
        let Recording { spec, frames, .. } = &self.recordings[index];
        SignalShape::new(spec.channels.into(), 1, *frames as usize)
    }

    fn name(&self, index: usize) -> String {
        name_of(&self.recordings[index].path)
    }

    fn read(&self, index: usize, window: Window, out: &mut [f32]) -> Result<()> {
        let recording = &self.recordings[index];
        recording.read(window.left as u32, window.width, out)?;
        check_values(out, &recording.path, "it")
    }

    fn file(&self, index: usize) -> Option<&Path> {
        Some(&self.recordings[index].path)
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
    use super::*;
    use crate::data::{DataConfig, Dataset, Layout, open, open_by_size};
    use crate::geometry::Pair;

    fn spec(channels: u16, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate: 16_000, bits_per_sample, sample_format }
    }

    fn write<S: hound::Sample + Copy>(path: &Path, spec: WavSpec, samples: &[S]) {
        let mut writer = WavWriter::create(path, spec).unwrap();
        samples.iter().for_each(|&sample| writer.write_sample(sample).unwrap());
        writer.finalize().unwrap();
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
    fn every_kind_of_samples_and_channels_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound");
        for bits in [8, 16, 24, 32] {
            let unit = 1i64 << (bits - 2);
            let samples = [-2 * unit, unit, 0, -unit, 2 * unit - 1, 1].map(|value| value as i32);
            write(&path, spec(2, bits, SampleFormat::Int), &samples);
            let data = open(&config(&path)).unwrap();
            assert_eq!(data.all.shape(), SignalShape::new(2, 1, 3));
            let full = (2 * unit) as f32;
            let expected = [-1.0, 0.0, (2 * unit - 1) as f32 / full, 0.5, -0.5, 1.0 / full];
            assert_eq!(values(&data), expected, "{bits}");
        }
        write(&path, spec(1, 32, SampleFormat::Float), &[0.25f32, -1.5, 3.0]);
        let data = open(&config(&path)).unwrap();
        assert_eq!((data.all.shape(), values(&data)), (SignalShape::new(1, 1, 3), vec![0.25, -1.5, 3.0]));
        write(&path, spec(1, 32, SampleFormat::Float), &[0.25f32, f32::NAN]);
        let message = open(&config(&path)).unwrap().all.read(&[0], &mut [0.0; 2]).unwrap_err().to_string();
        assert!(message.contains("sound") && message.contains("found NaN"), "{message}");
        write(&path, spec(2, 16, SampleFormat::Int), &[1i16, 2, 3, 4]);
        let layout = Some(Layout::Vectors);
        assert_eq!(open(&DataConfig { layout, ..config(&path) }).unwrap().all.shape(), SignalShape::new(4, 1, 1));
        let layout = Some(Layout::Images);
        let message = open(&DataConfig { layout, ..config(&path) }).err().unwrap().to_string();
        assert!(message.contains("layout = images: expected time or vectors"), "{message}");
    }

    /// Windows of recordings of several lengths, by one number or two.
    #[test]
    fn windows_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (name, length) in [("a.wav", 50i16), ("b.WAV", 20)] {
            let samples: Vec<i16> = (0..length).flat_map(|at| [at, -at]).collect();
            write(&folder.path().join(name), spec(2, 16, SampleFormat::Int), &samples);
        }
        let message = open(&config(folder.path())).err().unwrap().to_string();
        assert!(message.contains("a.wav 2x1x50 and b.WAV 2x1x20"), "{message}");
        let (_, groups) = open_by_size(&config(folder.path()), None, usize::MAX).unwrap();
        assert_eq!(groups.len(), 2);
        for patch in [Pair([8, 8]), Pair([1, 8])] {
            let patched = DataConfig { patch: Some(patch), patches: Some(30), ..config(folder.path()) };
            let data = open(&patched).unwrap();
            assert_eq!((data.all.len(), data.all.shape()), (30, SignalShape::new(2, 1, 8)));
            for window in values(&data).chunks(16) {
                let step = 1.0 / 32768.0;
                assert!(window[..8].windows(2).all(|pair| (pair[1] - pair[0] - step).abs() < 1e-9));
                assert!(window[..8].iter().zip(&window[8..]).all(|(left, right)| *left == -*right));
            }
        }
        let patched = DataConfig { patch: Some(Pair([21, 21])), ..config(folder.path()) };
        let message = open(&patched).err().unwrap().to_string();
        assert!(message.contains("patch = 1x21") && message.contains("b.WAV is 1x20"), "{message}");
        write(&folder.path().join("c.wav"), spec(1, 16, SampleFormat::Int), &[0i16; 50]);
        let message = open(&config(folder.path())).err().unwrap().to_string();
        assert!(message.contains("a.wav (2 channels, 16000 Hz) and c.wav (1 channels, 16000 Hz)"), "{message}");
    }

    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        write(&path, spec(1, 16, SampleFormat::Int), &[5i16; 100]);
        let whole = std::fs::read(&path).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = whole.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        for (name, bytes, part) in [
            ("cut", whole[..whole.len() - 1].to_vec(), "100 samples, as its header says"),
            ("header cut", whole[..30].to_vec(), "cut short"),
            ("magic alone", whole[..12].to_vec(), "cut short"),
            ("no samples", [&with(40, &[0; 4])[..44]].concat(), "without samples"),
            ("endless", with(40, &0xffff_fffeu32.to_le_bytes()), "at most"),
            ("no channels", with(22, &[0, 0]), "damaged"),
            ("law", with(20, &[7, 0]), "not read"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = open(&config(&path)).err().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(message.contains(part) && message.contains("sound.wav"), "{name}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
        // Any byte of a header may be wrong.
        for at in 0..44 {
            for byte in [0, 1, 3, 16, 0x7f, 0xff] {
                std::fs::write(&path, with(at, &[byte])).unwrap();
                if let Ok(data) = open(&config(&path)) {
                    let _ = data.all.read(&[0], &mut vec![0.0; data.all.shape().len()]);
                }
            }
        }
    }
}
