//! IDX files of unsigned bytes, gzipped or not: the format of MNIST and its relatives.
//!
//! An IDX file is `0, 0, type, rank`, the extents as big-endian `u32`, then the values. Files that are not compressed
//! stay on disk, mapped into memory; compressed ones are unpacked and held as bytes.

use super::arrays::{Arrays, Found, map};
use super::layout::Layout;
use super::pictures::{Collection, Pictures};
use super::stored::{Bytes, Element, Kind, Strided};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use crate::text::{beginning, counted};
use flate2::bufread::GzDecoder;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First bytes of a gzip file.
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of an IDX file of unsigned bytes; the rank follows.
pub(super) const IDX_MAGIC: [u8; 3] = [0, 0, 8];
/// Most bytes that a gzipped file is unpacked to: what is larger is better mapped than held.
const MAX_UNPACKED: u64 = 1 << 31;

/// Opens a file of signals, and the labels beside it where there are some.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for files that are damaged or of another kind; [`Error::Shape`] for extents that the layout does not
/// admit and for labels that are fewer or more.
pub(super) fn open(path: &Path, layout: Option<Layout>) -> Result<Arrays> {
    let (extents, bytes) = read(path, layout.map_or(2, |_| 1)..=4)?;
    let count = extents[0];
    let array = Strided::dense(header_len(extents.len()), Element::little(Kind::Pixel, 1), extents, false);
    let signals = Arrays::one(Found { path: path.into(), bytes, array }, layout)?;
    let Some(labels_path) = labels_beside(path) else { return Ok(signals) };
    let (extents, bytes) = read(&labels_path, 1..=1)?;
    if extents[0] != count {
        let expected = format!("{}, one for each image of {}", counted(count, "label"), path.display());
        return Err(Error::shape(labels_path.display().to_string(), expected, extents[0]));
    }
    if signals.count() != count {
        let expected = format!("one signal for each of the labels of {}", labels_path.display());
        return Err(Error::shape(path.display().to_string(), expected, counted(signals.count(), "signal")));
    }
    Ok(signals.labelled(bytes[header_len(1)..].to_vec()))
}

/// Numbers of extents.
type Ranks = RangeInclusive<usize>;

fn header_len(rank: usize) -> usize {
    4 + 4 * rank
}

/// Bytes of the header by its first four, once these are known to be one's.
fn len_of_header(path: &Path, ranks: &Ranks, bytes: &[u8]) -> Result<usize> {
    let Some(magic) = bytes.first_chunk::<4>() else { return Err(too_short(path, ranks, bytes.len() as u64)) };
    let rank = usize::from(magic[3]);
    if magic[..3] != IDX_MAGIC || !ranks.contains(&rank) {
        let found = match magic {
            [0, 0, 8, rank] => format!("unsigned bytes with {}", counted((*rank).into(), "extent")),
            [0, 0, kind @ 8..=14, _] => format!("an IDX file of another type (code {kind})"),
            _ => format!("a file that begins with {}", beginning(magic)),
        };
        let what = match ranks.end() {
            1 => "labels (1 extent)",
            _ => "signals (2 to 4 extents, or 1 with a `layout`)",
        };
        return Err(Error::format(path, format!("expected an IDX file of {what} of unsigned bytes, found {found}")));
    }
    if bytes.len() < header_len(rank) {
        return Err(too_short(path, &(rank..=rank), bytes.len() as u64));
    }
    Ok(header_len(rank))
}

/// Reads an IDX file of one of those numbers of extents: these, and all its bytes with the header.
fn read(path: &Path, ranks: Ranks) -> Result<(Vec<usize>, Bytes)> {
    let (file, _) = open_with_length(path)?;
    let mut reader = BufReader::new(&file);
    let mut magic = Vec::new();
    (&mut reader).take(2).read_to_end(&mut magic).map_err(Error::read(path))?;
    if magic == GZIP_MAGIC {
        return read_gzipped(path, &ranks, std::io::Cursor::new(magic).chain(reader));
    }
    let map = map(path)?;
    let header = len_of_header(path, &ranks, &map)?;
    let (extents, expected) = parse_header(path, &map[..header])?;
    if map.len() as u128 != expected {
        return Err(wrong_length(path, &extents, expected, &format!("{} bytes", map.len())));
    }
    Ok((extents, Bytes::Mapped(map)))
}

/// The content of a gzip file's members, one after the other. Zeros between and behind them are passed over: gzip, too, takes them
/// for filling, as tapes and block devices need it.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let Some(member) = self.0.take() else { break };
            let mut compressed = member.into_inner();
            self.0 = loop {
                let bytes = compressed.fill_buf()?;
                let (len, zeros) = (bytes.len(), bytes.iter().take_while(|&&byte| byte == 0).count());
                let next = bytes.get(zeros).copied();
                compressed.consume(zeros);
                if len == 0 {
                    break None;
                }
                if let Some(first) = next {
                    if first != GZIP_MAGIC[0] {
                        let reason = "behind its end comes what is neither another one nor zeros";
                        return Err(std::io::Error::new(ErrorKind::InvalidData, reason));
                    }
                    break Some(GzDecoder::new(compressed));
                }
            };
        }
        Ok(0)
    }
}

fn read_gzipped(path: &Path, ranks: &Ranks, compressed: impl BufRead) -> Result<(Vec<usize>, Bytes)> {
    let mut unpacked = Members(Some(GzDecoder::new(compressed)));
    let damaged = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::format(path, "expected a whole gzip stream, found one that is cut short"),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            Error::format(path, format!("expected a gzip stream, found a damaged one ({error})"))
        }
        _ => Error::read(path)(error),
    };
    let mut bytes = Vec::new();
    (&mut unpacked).take(header_len(*ranks.end()) as u64).read_to_end(&mut bytes).map_err(damaged)?;
    let header = len_of_header(path, ranks, &bytes)?;
    let (extents, expected) = parse_header(path, &bytes[..header])?;
    if expected > u128::from(MAX_UNPACKED) {
        let found = format!("{expected} bytes promised by the header; unpack larger files first");
        return Err(Error::format(
            path,
            format!("expected at most {MAX_UNPACKED} bytes in a gzipped file, found {found}"),
        ));
    }
    // The vector grows as bytes arrive: a header that lies costs nothing. One byte more shows what is too much.
    let rest = (expected as u64 + 1).saturating_sub(bytes.len() as u64);
    unpacked.take(rest).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u128 > expected {
        return Err(wrong_length(path, &extents, expected, "more"));
    }
    if (bytes.len() as u128) < expected {
        return Err(wrong_length(path, &extents, expected, &format!("{} bytes", bytes.len())));
    }
    bytes.shrink_to_fit();
    Ok((extents, Bytes::Held(bytes)))
}

/// The extents of a header, and the number of bytes that the whole file must have.
fn parse_header(path: &Path, header: &[u8]) -> Result<(Vec<usize>, u128)> {
    let extents: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|extent| extent.iter().fold(0, |value, &byte| (value << 8) | usize::from(byte)))
        .collect();
    if extents.contains(&0) {
        return Err(Error::format(path, format!("expected positive extents, found {}", product(&extents))));
    }
    let values = extents.iter().fold(1u128, |values, &extent| values.saturating_mul(extent as u128));
    Ok((extents, values.saturating_add(header.len() as u128)))
}

fn product(extents: &[usize]) -> String {
    extents.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

fn too_short(path: &Path, ranks: &Ranks, len: u64) -> Error {
    let expected = header_len(*ranks.start());
    Error::format(path, format!("expected an IDX header of at least {expected} bytes, found {len} bytes in all"))
}

fn wrong_length(path: &Path, extents: &[usize], expected: u128, found: &str) -> Error {
    let extents = product(extents);
    Error::format(path, format!("expected {expected} bytes, as its header says ({extents} values), found {found}"))
}

/// The file of labels that belongs to a file of images: `images` and `idx3` in its name become `labels` and `idx1`.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    if labels == name {
        return None;
    }
    [labels.clone(), labels + ".gz"].iter().map(|name| images.with_file_name(name)).find(|path| path.is_file())
}

/// Training and test images in a folder, under the names that MNIST made common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    pub train: Option<PathBuf>,
    pub test: Option<PathBuf>,
}

impl Folder {
    /// Looks in `folder` itself and in its subfolders `train` and `test`.
    pub fn find(folder: &Path) -> Self {
        let find = |stem: &str, subfolder: &str| {
            let names = ["-", "."].map(|separator| format!("{stem}-images{separator}idx3-ubyte"));
            let places = [folder.to_path_buf(), folder.join(subfolder)];
            let names = names.iter().flat_map(|name| [name.clone(), format!("{name}.gz")]);
            names.flat_map(|name| places.clone().map(|place| place.join(&name))).find(|path| path.is_file())
        };
        Self { train: find("train", "train"), test: find("t10k", "test") }
    }

    /// Opens what was found; `None` where that is nothing.
    pub fn open(&self) -> Result<Option<Collection>> {
        Ok(match (&self.train, &self.test) {
            (Some(train), Some(test)) => {
                Some(Collection::with_test_set(Arc::new(open(train, None)?), Arc::new(open(test, None)?)))
            }
            (Some(only), None) | (None, Some(only)) => Some(Collection::of(open(only, None)?)),
            (None, None) => None,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::{DataConfig, Dataset, open};
    use crate::geometry::SignalShape;
    use std::io::Write;

    /// An IDX file of unsigned bytes.
    pub fn idx(extents: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, extents.len() as u8];
        bytes.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn values(count: usize, first: u8) -> Vec<u8> {
        (0..count * 6).map(|value| first.wrapping_add(value as u8)).collect()
    }

    fn open_path(path: &Path) -> Result<Dataset> {
        open(&DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() })
    }

    #[test]
    fn plain_and_gzipped_files_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = idx(&[5, 2, 3], &values(5, 250));
        for (name, bytes) in [("plain.dat", bytes.clone()), ("zipped", gzip(&bytes))] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let data = open_path(&path).unwrap();
            assert_eq!((data.all.len(), data.train.len(), data.test.len()), (5, 4, 1));
            assert_eq!(data.all.shape(), SignalShape::new(1, 2, 3));
            assert!(!data.has_test_set && data.all.labels().is_none());
            let mut out = [0.0; 12];
            data.all.read(&[1, 0], &mut out).unwrap();
            let expected: Vec<f32> = [0u8, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255]
                .iter()
                .map(|&byte| f32::from(byte) / 255.0)
                .collect();
            assert_eq!(out[..], expected);
        }
    }

    /// Vectors, images of channels and, where it is said what they are, bytes without labels' names.
    #[test]
    fn files_of_every_rank() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signals");
        for (extents, layout, count, shape) in [
            (vec![4, 6], None, 4, SignalShape::new(6, 1, 1)),
            (vec![2, 2, 2, 3], None, 2, SignalShape::new(2, 2, 3)),
            (vec![2, 2, 6], Some(Layout::Time), 2, SignalShape::new(2, 1, 6)),
            (vec![24], Some(Layout::Vectors), 1, SignalShape::new(24, 1, 1)),
            (vec![2, 3, 4], Some(Layout::Vectors), 2, SignalShape::new(12, 1, 1)),
        ] {
            for zipped in [false, true] {
                let bytes = idx(&extents, &values(4, 0));
                std::fs::write(&path, if zipped { gzip(&bytes) } else { bytes }).unwrap();
                let config = DataConfig { source: path.to_str().unwrap().into(), layout, ..DataConfig::default() };
                let data = open(&config).unwrap();
                assert_eq!((data.all.len(), data.all.shape()), (count, shape));
                let mut out = [0.0; 24];
                data.all.read(&(0..count).collect::<Vec<_>>(), &mut out).unwrap();
                assert_eq!(out[..], (0..24).map(|value| value as f32 / 255.0).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn gzip_files_of_several_members_and_with_padding() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zipped");
        let bytes = idx(&[3, 2, 3], &values(3, 7));
        let (first, second) = bytes.split_at(20);
        let zeros = |count| vec![0u8; count];
        for file in [
            [gzip(&bytes), zeros(512)].concat(),
            [gzip(&bytes), zeros(1)].concat(),
            [gzip(&bytes), zeros(100_000)].concat(),
            [gzip(first), gzip(second)].concat(),
            [gzip(&bytes[..2]), zeros(3), gzip(&bytes[2..]), zeros(9)].concat(),
        ] {
            std::fs::write(&path, file).unwrap();
            let data = open_path(&path).unwrap();
            let mut out = [0.0; 18];
            data.all.read(&[0, 1, 2], &mut out).unwrap();
            assert_eq!(out[..], values(3, 7).iter().map(|&byte| f32::from(byte) / 255.0).collect::<Vec<_>>());
        }
        for (file, part) in [
            ([gzip(&bytes), zeros(3), b"other things".to_vec()].concat(), "neither another one nor zeros"),
            ([gzip(&bytes), b"xyz".to_vec()].concat(), "neither another one nor zeros"),
            ([gzip(&bytes), gzip(&[1])].concat(), "found more"),
            ([gzip(first), zeros(8)].concat(), "found 20 bytes"),
            ([gzip(first), gzip(second)[..15].to_vec()].concat(), "cut short"),
        ] {
            std::fs::write(&path, file).unwrap();
            let message = open_path(&path).err().unwrap().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_folder_with_a_test_set_and_labels() {
        for (separator, ending, unpack) in [("-", "", false), (".", ".gz", true)] {
            let folder = tempfile::tempdir().unwrap();
            let write = |stem: &str, kind: &str, bytes: Vec<u8>| {
                let rank = bytes[3];
                let path = folder.path().join(format!("{stem}-{kind}{separator}idx{rank}-ubyte{ending}"));
                std::fs::write(path, if unpack { gzip(&bytes) } else { bytes }).unwrap();
            };
            write("train", "images", idx(&[4, 2, 3], &values(4, 0)));
            write("t10k", "images", idx(&[2, 2, 3], &values(2, 100)));
            write("train", "labels", idx(&[4], &[3, 1, 4, 1]));
            write("t10k", "labels", idx(&[2], &[5, 9]));
            let data = open_path(folder.path()).unwrap();
            assert!(data.has_test_set);
            assert_eq!(data.train.labels().unwrap(), [3, 1, 4, 1]);
            assert_eq!(data.test.labels().unwrap(), [5, 9]);
            assert_eq!(data.all.labels().unwrap(), [3, 1, 4, 1, 5, 9]);
            let mut out = [0.0; 6];
            data.all.read(&[4], &mut out).unwrap();
            assert_eq!(out[0], 100.0 / 255.0);
            let mut again = [0.0; 6];
            data.test.read(&[0], &mut again).unwrap();
            assert_eq!(out, again);
        }
    }

    #[test]
    fn one_half_of_a_folder_is_split() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), idx(&[20, 2, 3], &values(20, 0))).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[20], &[7; 20])).unwrap();
        let data = open_path(folder.path()).unwrap();
        assert!(!data.has_test_set);
        assert_eq!((data.all.len(), data.train.len(), data.test.len()), (20, 18, 2));
        assert_eq!(data.test.labels().unwrap(), [7, 7]);
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[19], &[7; 19])).unwrap();
        let message = open_path(folder.path()).err().unwrap().to_string();
        assert!(message.contains("20 labels") && message.contains("found 19"), "{message}");
    }

    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let whole = idx(&[3, 2, 3], &values(3, 0));
        let short = &whole[..whole.len() - 1];
        let long = [&whole[..], &[0]].concat();
        let promise = idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 64]);
        let zipped = gzip(&whole);
        let mut flipped = zipped.clone();
        let end = flipped.len() - 6;
        flipped[end] ^= 0xff;
        let bomb = gzip(&idx(&[1, 2, 3], &vec![0; 1 << 22]));
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            ("empty", vec![], &["empty"]),
            ("header", whole[..10].to_vec(), &["16 bytes", "found 10 bytes"]),
            ("short", short.to_vec(), &["expected 34 bytes", "3x2x3", "found 33 bytes"]),
            ("long", long.clone(), &["expected 34 bytes", "found 35 bytes"]),
            ("promise", promise.clone(), &["79228162458924105385300197391 bytes"]),
            ("zero", idx(&[0, 2, 3], &[]), &["positive extents", "0x2x3"]),
            ("labels", idx(&[40], &[1; 40]), &["signals (2 to 4 extents", "with 1 extent"]),
            ("rank-five", idx(&[1, 1, 1, 2, 3], &[0; 6]), &["signals (2 to 4 extents", "with 5 extents"]),
            ("promise-of-four", idx(&[u32::MAX; 4], &[0; 64]), &["expected 3402823666040258135"]),
            ("floats", [&[0, 0, 13, 3], &whole[4..]].concat(), &["unsigned bytes", "code 13"]),
            ("zipped-cut", zipped[..zipped.len() - 9].to_vec(), &["gzip", "cut short"]),
            ("zipped-header-cut", zipped[..12].to_vec(), &["gzip", "cut short"]),
            ("zipped-checksum", flipped, &["gzip", "damaged"]),
            ("zipped-garbage", [&zipped[..], b"garbage after the stream"].concat(), &["gzip"]),
            ("zipped-short", gzip(short), &["expected 34 bytes", "found 33 bytes"]),
            ("zipped-long", gzip(&long), &["expected 34 bytes", "found more"]),
            ("zipped-promise", gzip(&promise), &["at most 2147483648 bytes"]),
            ("zipped-magic", gzip(b"something else than an IDX file"), &["begins with \"some\""]),
            ("zipped-tiny", gzip(&whole[..7]), &["16 bytes", "found 7 bytes"]),
            ("zipped-short-magic", gzip(&whole[..3]), &["12 bytes", "found 3 bytes"]),
            ("bomb", bomb, &["expected 22 bytes", "found more"]),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, parts) in cases {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let message = open_path(&path).err().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(!message.contains('\n'), "{message}");
            for part in parts.iter().chain(&[path.to_str().unwrap()]) {
                assert!(message.contains(part), "{name}: {message}");
            }
        }
    }

    #[test]
    fn a_gzipped_promise_within_the_limit_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("promise");
        std::fs::write(&path, gzip(&idx(&[2, 1 << 15, 1 << 14], &[0; 64]))).unwrap();
        let message = open_path(&path).err().unwrap().to_string();
        assert!(message.contains("found 80 bytes"), "{message}");
    }

    #[test]
    fn real_mnist() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mnist");
        if !folder.is_dir() {
            println!("skipped: no MNIST in {}", folder.display());
            return;
        }
        let data = open_path(&folder).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.len()), (60_000, 10_000, 70_000));
        assert_eq!(data.train.shape(), SignalShape::new(1, 28, 28));
        // The well-known first labels, and the mean that everybody normalises by.
        assert_eq!(data.train.labels().unwrap()[..5], [5, 0, 4, 1, 9]);
        assert_eq!(data.test.labels().unwrap()[..5], [7, 2, 1, 0, 4]);
        let indices: Vec<usize> = (0..60_000).collect();
        let mut out = vec![0.0; 60_000 * 784];
        data.train.read(&indices, &mut out).unwrap();
        let mean = out.iter().map(|&value| f64::from(value)).sum::<f64>() / out.len() as f64;
        assert!((mean - 0.1307).abs() < 5e-5, "{mean}");
    }
}
