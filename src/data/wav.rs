//! Recordings: `.wav` files of integer samples of 8 to 32 bits or of floating-point ones of 32 or 64, read where they lie.
//!
//! Files come from many programs: with notes of odd lengths before the samples, from pipes with a length that was left open, as RF64, in
//! double precision. The libraries for `.wav` refuse some of these, so that chunks are walked here; one of them writes.

use super::arrays::check_values;
use super::folder::{Skipped, name_below};
use super::pictures::{Pictures, Window};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::geometry::{MAX_TENSOR_LEN, SignalShape};
use crate::text::counted;
use hound::{SampleFormat, WavSpec, WavWriter};
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Whether a file that begins with those bytes is one.
pub(super) fn is_beginning(bytes: &[u8]) -> bool {
    [b"RIFF", b"RF64"].iter().any(|magic| bytes.starts_with(*magic)) && bytes.get(8..12) == Some(b"WAVE")
}

/// How a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sample {
    /// Little-endian, of so many bytes, the upper ones of which hold it; a single byte has no sign.
    Integer(usize),
    /// 24 bits in the lower bytes of four.
    Padded24,
    Float32,
    Float64,
}

impl Sample {
    /// What a header's tag, bits and bytes stand for.
    fn of(tag: u16, bits: u16, bytes: usize) -> Option<Self> {
        match (tag, bits, bytes) {
            (PCM, 24, 4) => Some(Self::Padded24),
            (PCM, 1.., 1..=4) if usize::from(bits).div_ceil(8) == bytes => Some(Self::Integer(bytes)),
            (FLOAT, 32, 4) => Some(Self::Float32),
            (FLOAT, 64, 8) => Some(Self::Float64),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Integer(bytes) => bytes,
            Self::Padded24 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// Its value: integers in parts of the largest one. As long as [`Self::bytes`] says.
    fn value(self, bytes: &[u8]) -> f32 {
        let four = |from: usize, bytes: &[u8]| {
            let mut four = [0; 4];
            four[from..][..bytes.len()].copy_from_slice(bytes);
            four
        };
        // Moved up to 32 bits, whatever they were.
        let integer = |four: [u8; 4]| i32::from_le_bytes(four) as f32 / (1u64 << 31) as f32;
        match self {
            Self::Integer(1) => integer([0, 0, 0, bytes[0] ^ 0x80]),
            Self::Integer(len) => integer(four(4 - len, bytes)),
            Self::Padded24 => integer(four(1, &bytes[..3])),
            Self::Float32 => f32::from_le_bytes(four(0, bytes)),
            Self::Float64 => {
                let mut eight = [0; 8];
                eight.copy_from_slice(bytes);
                f64::from_le_bytes(eight) as f32
            }
        }
    }
}

/// Samples of every channel that are read together.
const AT_A_TIME: usize = 1 << 16;

/// Tags of kinds of samples, and of a header that has its kind further on.
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;

/// Lengths from which one that goes beyond the end of the file was left open by a program that could not go back.
const OPEN: u32 = 0x7fff_f000;

/// A file: c channels of t samples.
struct Recording {
    path: PathBuf,
    channels: u16,
    sample_rate: u32,
    sample: Sample,
    /// Where the samples begin.
    start: u64,
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
        let kind = |recording: &Recording| (recording.channels, recording.sample_rate);
        if let Some(other) = recordings.iter().find(|other| kind(other) != kind(&recordings[0])) {
            let [first, other] = [&recordings[0], other].map(|recording| {
                let (channels, rate) = kind(recording);
                format!("{} ({}, {rate} Hz)", name_below(&recording.path, path), counted(channels.into(), "channel"))
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

/// Samples a second of a recording, `None` of what is none.
pub fn sampling_rate(path: &Path) -> Option<u32> {
    Recording::open(path).ok().map(|recording| recording.sample_rate)
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

impl Recording {
    fn open(path: &Path) -> Result<Self> {
        let (file, length) = open_with_length(path)?;
        let mut file = BufReader::new(file);
        let cut = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => wrong(path, "one that is cut short"),
            _ => Error::read(path)(error),
        };
        let mut start = [0; 12];
        file.read_exact(&mut start).map_err(cut)?;
        if !is_beginning(&start) {
            return Err(wrong(path, "something else"));
        }
        let (mut format, mut large) = (None, None);
        let mut at = 12;
        loop {
            let mut head = [0; 8];
            file.read_exact(&mut head).map_err(cut)?;
            let (id, size) = (&head[..4], u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            at += 8;
            let mut read = 0;
            if id == b"data" {
                let (channels, sample_rate, sample) =
                    format.ok_or_else(|| wrong(path, "samples before their format"))?;
                let rest = length.saturating_sub(at);
                let recording = Self { path: path.into(), channels, sample_rate, sample, start: at, frames: 0 };
                if let Some(size) = large {
                    return recording.with_samples(size, rest, false);
                }
                // The length of the whole file stands at the beginning; a program that left that at 0 left this, too.
                let beyond = size == u32::MAX || (size >= OPEN && u64::from(size) > rest);
                let is_open = beyond || (size == 0 && start[4..8] == [0; 4]);
                return recording.with_samples(if is_open { rest } else { size.into() }, rest, is_open);
            }
            if id == b"ds64" {
                // Lengths of files with more than 4 GiB: of all, of the samples.
                let mut values = [0; 16];
                file.read_exact(&mut values).map_err(cut)?;
                read = values.len();
                let mut own = [0; 8];
                own.copy_from_slice(&values[8..]);
                large = Some(u64::from_le_bytes(own)).filter(|_| start.starts_with(b"RF64"));
            }
            if id == b"fmt " {
                let mut values = vec![0; size.min(40) as usize];
                file.read_exact(&mut values).map_err(cut)?;
                read = values.len();
                format = Some(format_of(path, &values)?);
            }
            // Chunks begin at even places.
            let length = u64::from(size) + u64::from(size % 2);
            at += length;
            // Within the buffer, however many chunks there are.
            file.seek_relative(length as i64 - read as i64).map_err(Error::read(path))?;
        }
    }

    /// With so many bytes of samples, of which `rest` are there.
    fn with_samples(self, bytes: u64, rest: u64, is_open: bool) -> Result<Self> {
        let path = &self.path;
        let frame = self.frame() as u64;
        if !is_open && !bytes.is_multiple_of(frame) {
            return Err(wrong(path, "a damaged one: its length is no whole number of samples"));
        }
        let frames = bytes / frame;
        if frames == 0 {
            return Err(Error::format(path, "expected a recording, found a .wav file without samples"));
        }
        let most = MAX_TENSOR_LEN as u64;
        let frames = match u32::try_from(frames) {
            Ok(len) if frames.saturating_mul(self.channels.into()) <= most => len,
            _ => {
                let found = format!("found {} of {frames}", counted(self.channels.into(), "channel"));
                return Err(Error::format(path, format!("expected at most {most} samples, {found}")));
            }
        };
        if bytes > rest {
            let reason = format!("expected {frames} samples, as its header says, found a file that is cut short");
            return Err(Error::format(path, reason));
        }
        Ok(Self { frames, ..self })
    }

    /// Bytes of one sample of all channels.
    fn frame(&self) -> usize {
        usize::from(self.channels) * self.sample.bytes()
    }

    /// Copies some samples from one on into `out`, `[channels, count]`.
    fn read(&self, first: u32, count: usize, out: &mut [f32]) -> Result<()> {
        let (frame, len) = (self.frame(), self.sample.bytes());
        let (mut file, _) = open_with_length(&self.path)?;
        let start = self.start + u64::from(first) * frame as u64;
        file.seek(SeekFrom::Start(start)).map_err(Error::read(&self.path))?;
        let mut bytes = vec![0; frame * count.min(AT_A_TIME)];
        for done in (0..count).step_by(AT_A_TIME) {
            let bytes = &mut bytes[..frame * AT_A_TIME.min(count - done)];
            file.read_exact(bytes).map_err(Error::read(&self.path))?;
            for (at, sample) in bytes.chunks_exact(len).enumerate() {
                let (place, channel) = (at / usize::from(self.channels), at % usize::from(self.channels));
                out[channel * count + done + place] = self.sample.value(sample);
            }
        }
        Ok(())
    }
}

fn wrong(path: &Path, found: &str) -> Error {
    let expected = "expected a .wav file of PCM or floating-point samples, found";
    Error::format(path, format!("{expected} {found}"))
}

/// Channels, samples a second and kind of samples by the chunk that tells them.
fn format_of(path: &Path, values: &[u8]) -> Result<(u16, u32, Sample)> {
    let damaged = || wrong(path, "a damaged one: its format is not told");
    let number = |at: usize| values.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]])).ok_or_else(damaged);
    let (channels, rate, block, bits) = (number(2)?, [number(4)?, number(6)?], number(12)?, number(14)?);
    let tag = match number(0)? {
        EXTENSIBLE => number(24)?,
        tag => tag,
    };
    let bytes = usize::from(block) / usize::from(channels).max(1);
    if channels == 0 || bytes == 0 || usize::from(block) != bytes * usize::from(channels) {
        return Err(wrong(path, "a damaged one: channels and bytes of a sample do not fit together"));
    }
    let sample = Sample::of(tag, bits, bytes).ok_or_else(|| wrong(path, "samples of a kind that is not read"))?;
    let rate = u32::from(rate[0]) | u32::from(rate[1]) << 16;
    match rate {
        0 => Err(wrong(path, "a damaged one: no samples a second")),
        _ => Ok((channels, rate, sample)),
    }
}

impl Pictures for Recordings {
    fn count(&self) -> usize {
        self.recordings.len()
    }

    fn shape(&self, index: usize) -> SignalShape {
        let Recording { channels, frames, .. } = &self.recordings[index];
        SignalShape::new((*channels).into(), 1, *frames as usize)
    }

    fn name(&self, index: usize) -> String {
        name_below(&self.recordings[index].path, &self.path)
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

    fn sampling_rate(&self) -> Option<u32> {
        self.recordings.first().map(|recording| recording.sample_rate)
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

    /// The chunk that tells of samples of that kind, and chunks of so many bytes after it.
    fn file_of(tag: u16, bits: u16, notes: &[usize], samples: &[u8], length: u32) -> Vec<u8> {
        let bytes = bits / 8;
        let mut file = [b"RIFF".as_slice(), &[0xff; 4], b"WAVEfmt ", &16u32.to_le_bytes()].concat();
        for number in [tag, 1] {
            file.extend(number.to_le_bytes());
        }
        file.extend(8_000u32.to_le_bytes());
        file.extend((8_000 * u32::from(bytes)).to_le_bytes());
        for number in [bytes, bits] {
            file.extend(number.to_le_bytes());
        }
        for &note in notes {
            file.extend(b"LIST");
            file.extend((note as u32).to_le_bytes());
            file.extend(vec![7; note.next_multiple_of(2)]);
        }
        file.extend(b"data");
        file.extend(length.to_le_bytes());
        file.extend(samples);
        file
    }

    /// 6 bytes of samples whose length stands in a chunk of its own, and a note after them.
    fn rf64(samples: &[u8]) -> Vec<u8> {
        let plain = file_of(PCM, 16, &[], samples, u32::MAX);
        let lengths =
            [&b"ds64"[..], &28u32.to_le_bytes(), &100u64.to_le_bytes(), &6u64.to_le_bytes(), &[0; 12]].concat();
        [b"RF64", &plain[4..12], &lengths, &plain[12..], b"LIST\x02\0\0\0ab"].concat()
    }

    /// 24 bits in four bytes, by the header that has its kind further on.
    fn padded() -> Vec<u8> {
        let samples: Vec<u8> = [0i32, 0x40_0000, -0x80_0000].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut file = [b"RIFF".as_slice(), &[0; 4], b"WAVEfmt ", &40u32.to_le_bytes()].concat();
        file.extend([0xfe, 0xff, 1, 0]);
        file.extend([8_000u32, 32_000].iter().flat_map(|number| number.to_le_bytes()));
        file.extend([4, 0, 24, 0, 22, 0, 24, 0, 0, 0, 0, 0, 1, 0]);
        file.extend([0; 14]);
        file.extend(b"data");
        file.extend(12u32.to_le_bytes());
        file.extend(samples);
        file
    }

    /// Files as they come from pipes, from programs that take notes, and in double precision.
    #[test]
    fn files_of_all_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let sixteen: Vec<u8> = [0i16, 0x4000, -0x8000].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let double: Vec<u8> = [0.0f64, 0.5, -1.0].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let half = [&sixteen[..], &[1]].concat();
        for file in [
            file_of(PCM, 16, &[5], &sixteen, 6),
            file_of(PCM, 16, &[4, 7, 1], &sixteen, 6),
            file_of(PCM, 16, &[], &sixteen, u32::MAX),
            file_of(PCM, 16, &[3], &half, OPEN),
            file_of(FLOAT, 64, &[], &double, 24),
            // What follows the samples is no sound.
            [&file_of(PCM, 16, &[], &sixteen, 6)[..], b"LIST\x02\0\0\0ab"].concat(),
            rf64(&sixteen),
            padded(),
        ] {
            std::fs::write(&path, file).unwrap();
            assert_eq!(values(&open(&config(&path)).unwrap()), [0.0, 0.5, -1.0]);
            assert_eq!(sampling_rate(&path), Some(8_000));
        }
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
        assert!(message.contains("a.wav (2 channels, 16000 Hz) and c.wav (1 channel, 16000 Hz)"), "{message}");
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
            ("endless", with(40, &0x6fff_fffeu32.to_le_bytes()), "samples, as its header says"),
            ("odd", with(40, &199u32.to_le_bytes()), "no whole number of samples"),
            ("no format", [&whole[..12], &whole[36..]].concat(), "samples before their format"),
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
