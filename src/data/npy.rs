//! NumPy's `.npy` files: where their values lie, and small arrays read whole.
//!
//! The header is parsed here rather than by a library, because it is not to be trusted: its extents are multiplied with
//! care and compared with the length of the file before anything is sized by them.

use super::arrays::{Found, map};
pub use super::stored::NumberType;
use super::stored::{Bytes, Element, Kind, Strided};
use crate::error::{Error, Result};
use crate::geometry::MAX_TENSOR_LEN;
use crate::text::beginning;
use std::ops::Range;
use std::path::Path;

/// First bytes of a `.npy` file.
pub(super) const NPY_MAGIC: [u8; 6] = *b"\x93NUMPY";

/// An array read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extents, slowest first; empty for a single number.
    pub shape: Vec<usize>,
    /// Values in C order (the last index runs fastest), whatever the order in the file.
    pub values: Vec<f32>,
}

impl Array {
    /// Checks that every value is finite; `path` is named if one is not.
    ///
    /// # Errors
    /// [`Error::Format`] with the position of the first value that is infinite or not a number.
    pub fn check_finite(&self, path: &Path) -> Result<()> {
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let mut rest = at;
                let mut index: Vec<usize> = Vec::with_capacity(self.shape.len());
                for &extent in self.shape.iter().rev() {
                    index.push(rest % extent);
                    rest /= extent;
                }
                index.reverse();
                Err(Error::format(path, format!("expected finite values, found {} at {index:?}", self.values[at])))
            }
        }
    }
}

/// Reads a whole `.npy` array of any rank, of at most [`MAX_TENSOR_LEN`] values.
///
/// Elements may be `f16`, `f32`, `f64`, `bool` or integers of 8 to 64 bits, signed or not, in either byte order, in C or
/// Fortran order. They are rounded to `f32`; values need not be finite ([`Array::check_finite`]).
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for another element type, an extent of zero, or a file whose length is not what its
/// header says.
pub fn read_array(path: &Path) -> Result<Array> {
    read_typed_array(path).map(|(array, _)| array)
}

/// [`read_array`], and the type of the numbers in the file.
///
/// # Errors
/// As [`read_array`].
pub fn read_typed_array(path: &Path) -> Result<(Array, NumberType)> {
    find(path)?.whole()
}

impl Found {
    /// All values, and the type of the numbers in the file.
    ///
    /// # Errors
    /// More values than are held.
    pub fn whole(self) -> Result<(Array, NumberType)> {
        let Self { path, bytes, array } = self;
        let len = array.extents.iter().product();
        if len > MAX_TENSOR_LEN {
            return Err(Error::format(&path, format!("expected at most {MAX_TENSOR_LEN} values, found {len}")));
        }
        let mut values = vec![0.0; len];
        array.read_block(&bytes, &vec![0; array.extents.len()], &array.extents, &mut values);
        Ok((Array { shape: array.extents, values }, NumberType(array.element)))
    }
}

/// Parses NumPy's type string, as `<f4`.
fn element_of(text: &str) -> Option<Element> {
    let (order, kind, size) = match text.as_bytes() {
        [order, kind, size] => (order, kind, size),
        // Without an order it is the machine's.
        [kind, size] => (&b'=', kind, size),
        _ => return None,
    };
    let size = usize::from(size.checked_sub(b'0')?);
    let kind = match (kind, size) {
        (b'b', 1) => Kind::Bool,
        (b'u', 1 | 2 | 4 | 8) => Kind::Unsigned,
        (b'i', 1 | 2 | 4 | 8) => Kind::Signed,
        (b'f', 2 | 4 | 8) => Kind::Float,
        _ => return None,
    };
    let big_endian = match order {
        b'<' => false,
        b'>' => true,
        b'|' if size == 1 => false,
        b'=' => cfg!(target_endian = "big"),
        _ => return None,
    };
    Some(Element { kind, size, big_endian })
}

/// Maps a file whose header agrees with its length.
pub(super) fn find(path: &Path) -> Result<Found> {
    let map = map(path)?;
    let all = 0..map.len();
    find_in(path, Bytes::Mapped(map), all)
}

/// The array that some of the bytes of a file are.
pub(super) fn find_in(path: &Path, bytes: Bytes, part: Range<usize>) -> Result<Found> {
    let map = &bytes[part.clone()];
    if map.len() < 10 {
        let found = format!("found {} bytes, too few for its header", map.len());
        return Err(Error::format(path, format!("expected a .npy array, {found}")));
    }
    let (offset, header) = split_header(map).map_err(|reason| Error::format(path, reason))?;
    let Header { element, fortran_order, extents } =
        Header::parse(header).map_err(|reason| Error::format(path, reason))?;
    let shown = format!("{extents:?}");
    if extents.contains(&0) {
        return Err(Error::format(path, format!("expected positive extents, found shape {shown}")));
    }
    let wanted = extents.iter().try_fold(element.size as u64, |bytes, &extent| bytes.checked_mul(extent));
    let found = (map.len() - offset) as u64;
    if wanted != Some(found) {
        let expected = wanted.map_or("far more".to_string(), |bytes| bytes.to_string());
        let reason = format!("expected {expected} bytes of values, as its header says (shape {shown}), found {found}");
        return Err(Error::format(path, reason));
    }
    // The file is as long as their product, so each of them fits.
    let extents: Vec<usize> = extents.iter().map(|&extent| extent as usize).collect();
    let array = Strided::dense(part.start + offset, element, extents, fortran_order);
    Ok(Found { path: path.into(), bytes, array })
}

/// Where the values begin, and the header's text.
fn split_header(bytes: &[u8]) -> Result<(usize, &str), String> {
    if !bytes.starts_with(&NPY_MAGIC) {
        return Err(format!("expected a .npy array, found a file that begins with {}", beginning(bytes)));
    }
    let start = match bytes[6] {
        1 => 10,
        2 | 3 => 12,
        version => return Err(format!("expected a .npy file of version 1 to 3, found version {version}")),
    };
    let length = bytes.get(8..start).unwrap_or_default();
    let length = length.iter().rev().fold(0u64, |value, &byte| (value << 8) | u64::from(byte));
    let end = start as u64 + length;
    if end > bytes.len() as u64 {
        return Err(format!("expected a header that ends at byte {end}, found {} bytes in all", bytes.len()));
    }
    let end = end as usize;
    let header = bytes.get(start..end).and_then(|header| std::str::from_utf8(header).ok());
    header.map(|header| (end, header)).ok_or_else(|| "expected a .npy header of text, found other bytes".into())
}

/// What a header says.
struct Header {
    element: Element,
    fortran_order: bool,
    extents: Vec<u64>,
}

impl Header {
    /// Parses a Python dictionary with the keys `descr`, `fortran_order` and `shape`. Python 2 may have written `u'<f4'` and
    /// `5L`.
    fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            let missing = || format!("expected a .npy header with the key {key:?}, found none");
            let after = |quote: char| text.split_once(&format!("{quote}{key}{quote}")).map(|(_, rest)| rest);
            let rest = after('\'').or_else(|| after('"')).ok_or_else(missing)?;
            rest.trim_start().strip_prefix(':').map(str::trim_start).ok_or_else(missing)
        };
        let types = "elements of type f2, f4, f8, bool or integers of 1 to 8 bytes";
        let description = value("descr")?;
        let unprefixed = description.strip_prefix(['u', 'b']).unwrap_or(description);
        let quoted = unprefixed.strip_prefix(['\'', '"']).and_then(|rest| rest.split(['\'', '"']).next());
        let name = quoted.ok_or_else(|| format!("expected {types}, found a structured type"))?;
        let element = element_of(name)
            .ok_or_else(|| format!("expected {types}, found {:?}", name.chars().take(20).collect::<String>()))?;
        let order = value("fortran_order")?;
        let fortran_order = match (order.starts_with("True"), order.starts_with("False")) {
            (true, _) => true,
            (_, true) => false,
            _ => return Err("expected True or False as fortran_order".into()),
        };
        let shape = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(shape, _)| shape);
        let shape = shape.ok_or("expected a tuple as shape")?;
        let extents: Vec<&str> = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty()).collect();
        // NumPy's own limit; also keeps the recursion over the axes shallow.
        if extents.len() > 64 {
            return Err(format!("expected at most 64 extents, found {}", extents.len()));
        }
        let extents = extents
            .iter()
            .map(|extent| extent.strip_suffix(['L', 'l']).unwrap_or(extent).parse::<u64>())
            .collect::<Result<_, _>>();
        let extents = extents.map_err(|_| {
            format!("expected a shape of whole numbers, found ({})", shape.chars().take(60).collect::<String>())
        })?;
        Ok(Self { element, fortran_order, extents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, Dataset, Layout, open};
    use crate::geometry::SignalShape;
    use npyz::WriterBuilder;

    /// A version 1 file with that header text.
    fn npy(header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    /// A file written by another implementation of the format.
    fn write<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], order: npyz::Order, values: &[T]) {
        let mut file = std::fs::File::create(path).unwrap();
        let options = npyz::WriteOptions::new().default_dtype().shape(shape).order(order).writer(&mut file);
        let mut writer = options.begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
    }

    fn open_path(path: &Path) -> Result<Dataset> {
        open(&DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() })
    }

    #[test]
    fn every_element_type_in_both_orders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        macro_rules! check {
            ($($type:ty),*) => {$(
                let values: Vec<$type> = (0..24u8).map(|value| value as $type).collect();
                write(&path, &[2, 3, 4], npyz::Order::C, &values);
                let array = read_array(&path).unwrap();
                assert_eq!(array.shape, [2, 3, 4]);
                assert_eq!(array.values, (0..24u8).map(f32::from).collect::<Vec<_>>());
                write(&path, &[2, 3, 4], npyz::Order::Fortran, &values);
                let array = read_array(&path).unwrap();
                let expected = |i, j, k| (i + 2 * j + 6 * k) as f32;
                let expected: Vec<f32> =
                    (0..24).map(|at| expected(at / 12, at / 4 % 3, at % 4)).collect();
                assert_eq!(array.values, expected);
            )*};
        }
        check!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);
        write(&path, &[3], npyz::Order::C, &[true, false, true]);
        assert_eq!(read_array(&path).unwrap().values, [1.0, 0.0, 1.0]);
        write(&path, &[2], npyz::Order::C, &[-3i16, 1.5 as i16]);
        assert_eq!(read_array(&path).unwrap().values, [-3.0, 1.0]);
        write::<f64>(&path, &[], npyz::Order::C, &[0.1]);
        let (array, stored) = read_typed_array(&path).unwrap();
        assert_eq!((array, stored.numpy()), (Array { shape: vec![], values: vec![0.1] }, "<f8".to_owned()));
    }

    #[test]
    fn big_endian_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let values: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
        std::fs::write(&path, npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }\n", &values)).unwrap();
        assert_eq!(read_array(&path).unwrap().values, [1.5, -2.0]);
        let values: Vec<u8> = [258i64, -7].iter().flat_map(|value| value.to_be_bytes()).collect();
        std::fs::write(&path, npy("{\"shape\":(2,),\"descr\":\">i8\",\"fortran_order\":True}", &values)).unwrap();
        assert_eq!(read_array(&path).unwrap().values, [258.0, -7.0]);
    }

    #[test]
    fn half_precision_and_headers_of_python_2() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        // 1, −2, the largest number, the smallest one and 1/3, rounded.
        let halves = [0x3c00u16, 0xc000, 0x7bff, 0x0001, 0x3555];
        let expected = [1.0, -2.0, 65504.0, 2f32.powi(-24), 0.333_251_95];
        for (order, bytes) in [('<', halves.map(u16::to_le_bytes)), ('>', halves.map(u16::to_be_bytes))] {
            let header = format!("{{'descr': '{order}f2', 'fortran_order': False, 'shape': (5L,), }}\n");
            std::fs::write(&path, npy(&header, bytes.as_flattened())).unwrap();
            assert_eq!(read_array(&path).unwrap(), Array { shape: vec![5], values: expected.to_vec() });
        }
        let values: Vec<u8> = (0..12u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        let header = "{u'descr': u'<f4', u'fortran_order': False, u'shape': (1L, 3L, 4L)}";
        std::fs::write(&path, npy(header, &values)).unwrap();
        assert_eq!(open_path(&path).unwrap().all.shape(), SignalShape::new(1, 3, 4));
        assert_eq!(read_array(&path).unwrap().values, (0..12u8).map(f32::from).collect::<Vec<_>>());
    }

    #[test]
    fn signals_of_three_and_four_extents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        // In Fortran order the first index runs fastest: value = n + 5·(c + 2·(h + 3·w)).
        let values: Vec<f64> = (0..5 * 2 * 3 * 4).map(f64::from).collect();
        write(&path, &[5, 2, 3, 4], npyz::Order::Fortran, &values);
        let data = open_path(&path).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(2, 3, 4));
        let mut out = [0.0; 48];
        data.all.read(&[3, 1], &mut out).unwrap();
        for (at, &value) in out.iter().enumerate() {
            let (n, c, h, w) = ([3, 1][at / 24], at / 12 % 2, at / 4 % 3, at % 4);
            assert_eq!(value, (n + 5 * (c + 2 * (h + 3 * w))) as f32);
        }
        write(&path, &[5, 4, 6], npyz::Order::C, &values);
        let data = open_path(&path).unwrap();
        assert_eq!(data.all.shape(), SignalShape::new(1, 4, 6));
        let mut out = [0.0; 24];
        data.all.read(&[2], &mut out).unwrap();
        assert_eq!(out[..3], [48.0, 49.0, 50.0]);
        write(&path, &[1, 2, 3, 4, 5], npyz::Order::C, &values);
        let message = open_path(&path).err().unwrap().to_string();
        assert!(message.contains("[count, height, width]") && message.contains("[1, 2, 3, 4, 5]"), "{message}");
    }

    /// Every rank and layout gives the signals whose values the indices say, in C and in Fortran order.
    #[test]
    fn signals_of_every_rank_and_layout() {
        use Layout::{Images, Maps, Time, Vectors};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let values: Vec<i16> = (0..120).collect();
        for (layout, extents, count, shape) in [
            (None, vec![120], 1, [120, 1, 1]),
            (None, vec![6, 20], 6, [20, 1, 1]),
            (Some(Vectors), vec![120], 1, [120, 1, 1]),
            (Some(Vectors), vec![2, 5, 12], 2, [60, 1, 1]),
            (Some(Vectors), vec![2, 5, 3, 4], 2, [60, 1, 1]),
            (Some(Vectors), vec![2, 5, 3, 2, 2], 2, [60, 1, 1]),
            (Some(Time), vec![120], 1, [1, 1, 120]),
            (Some(Time), vec![4, 30], 4, [1, 1, 30]),
            (Some(Time), vec![4, 3, 10], 4, [3, 1, 10]),
            (Some(Images), vec![10, 12], 1, [1, 10, 12]),
            (Some(Images), vec![5, 4, 6], 5, [1, 4, 6]),
            (Some(Images), vec![5, 2, 3, 4], 5, [2, 3, 4]),
            (Some(Maps), vec![5, 4, 6], 1, [5, 4, 6]),
            (Some(Maps), vec![5, 2, 3, 4], 5, [2, 3, 4]),
        ] {
            let shape = SignalShape::new(shape[0], shape[1], shape[2]);
            let config = DataConfig { source: path.to_str().unwrap().into(), layout, ..DataConfig::default() };
            for order in [npyz::Order::C, npyz::Order::Fortran] {
                let shape_in_file: Vec<u64> = extents.iter().map(|&extent| extent as u64).collect();
                write(&path, &shape_in_file, order, &values);
                let data = open(&config).unwrap();
                assert_eq!((data.all.len(), data.all.shape()), (count, shape), "{layout:?} {extents:?}");
                let mut out = vec![0.0; 120];
                data.all.read(&(0..count).collect::<Vec<_>>(), &mut out).unwrap();
                // What is read in C order is the array in C order.
                assert_eq!(out, read_array(&path).unwrap().values, "{layout:?} {extents:?}");
            }
        }
        write(&path, &[4, 30], npyz::Order::C, &values);
        for (layout, part) in [(Maps, "[channels, height, width]"), (Maps, "`layout` maps"), (Maps, "[4, 30]")] {
            let config =
                DataConfig { source: path.to_str().unwrap().into(), layout: Some(layout), ..DataConfig::default() };
            let message = open(&config).err().unwrap().to_string();
            assert!(message.contains(part) && message.contains("array.npy"), "{message}");
        }
    }

    #[test]
    fn patches_of_an_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let values: Vec<i32> = (0..4 * 2 * 10 * 10).collect();
        write(&path, &[4, 2, 10, 10], npyz::Order::C, &values);
        let config = DataConfig {
            source: path.to_str().unwrap().into(),
            patch: Some(crate::geometry::Pair([3, 5])),
            patches: Some(50),
            ..DataConfig::default()
        };
        let data = open(&config).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.all.shape()), (45, 5, SignalShape::new(2, 3, 5)));
        let mut out = [0.0; 30];
        data.train.read(&[7], &mut out).unwrap();
        for (at, &value) in out.iter().enumerate() {
            assert_eq!(value, out[0] + (100 * (at / 15) + 10 * (at / 5 % 3) + at % 5) as f32);
        }
    }

    #[test]
    fn values_that_are_not_finite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let mut values = [0.0f64; 12];
        values[10] = 1e300;
        write(&path, &[3, 2, 2], npyz::Order::C, &values);
        let data = open_path(&path).unwrap();
        let mut out = [0.0; 4];
        data.all.read(&[1], &mut out).unwrap();
        let message = data.all.read(&[2], &mut out).unwrap_err().to_string();
        assert!(message.contains("found inf in signal 2"), "{message}");
        let message = read_array(&path).unwrap().check_finite(&path).unwrap_err().to_string();
        assert!(message.contains("found inf at [2, 1, 0]"), "{message}");
        write(&path, &[3, 2, 2], npyz::Order::C, &[1.0f32; 12]);
        read_array(&path).unwrap().check_finite(&path).unwrap();
    }

    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let header =
            |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}");
        let good = header("'<f4'", "(1, 2, 2)");
        let largest = u64::MAX;
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            ("empty.npy", vec![], &["empty"]),
            ("tiny.npy", b"\x93NUMPY\x01".to_vec(), &["7 bytes"]),
            ("short.npy", npy(&good, &[0; 15]), &["expected 16 bytes", "[1, 2, 2]", "found 15"]),
            ("long.npy", npy(&good, &[0; 17]), &["expected 16 bytes", "found 17"]),
            ("none.npy", npy(&header("'<f4'", "(0, 2, 2)"), &[]), &["positive extents", "[0, 2, 2]"]),
            ("large.npy", npy(&header("'<f8'", &format!("({largest}, {largest}, 3)")), &[0; 16]), &["far more"]),
            ("larger.npy", npy(&header("'<f8'", "(99999999999999999999,)"), &[0; 16]), &["whole numbers"]),
            ("negative.npy", npy(&header("'<f8'", "(-1, 2)"), &[0; 16]), &["whole numbers", "-1, 2"]),
            ("deep.npy", npy(&header("'<f8'", &format!("({})", "1,".repeat(9000))), &[0; 8]), &["at most 64"]),
            ("brackets.npy", npy(&format!("{{'descr': {}", "(".repeat(60_000)), &[0; 8]), &["structured"]),
            ("complex.npy", npy(&header("'<c8'", "(1, 2, 2)"), &[0; 32]), &["elements of type", "<c8"]),
            ("quadruple.npy", npy(&header("'<f16'", "(1, 2, 2)"), &[0; 64]), &["elements of type", "<f16"]),
            ("letters.npy", npy(&header("'<f4'", "(1, 2L2, 2)"), &[0; 64]), &["whole numbers", "2L2"]),
            ("object.npy", npy(&header("'|O'", "(1, 2, 2)"), &[0; 8]), &["elements of type", "|O"]),
            ("fields.npy", npy(&header("[('a', '<f4')]", "(1, 2, 2)"), &[0; 16]), &["structured"]),
            ("keys.npy", npy("{'descr': '<f4', 'shape': (1, 2, 2)}", &[0; 16]), &["fortran_order"]),
            ("version.npy", b"\x93NUMPY\x09\x00\x00\x00\x00\x00".to_vec(), &["version 9"]),
            ("header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(), &["ends at byte 4294967307", "14 bytes"]),
            ("header-cut.npy", b"\x93NUMPY\x02\x00\xff\xff".to_vec(), &["10 bytes in all"]),
            ("bytes.npy", [&npy("", &[])[..8], &[2, 0, 0xff, 0xfe]].concat(), &["header of text"]),
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
        let path = folder.path().join("text.npy");
        std::fs::write(&path, "something else").unwrap();
        assert!(read_array(&path).unwrap_err().to_string().contains("expected a .npy array"));
    }
}
