//! Codes on disk: γ_1 … γ_L of a set of signals, with what the pursuit reports of each.
//!
//! | array | shape | type | content |
//! |---|---|---|---|
//! | `gamma_1` … `gamma_L` | `[n, m_i, h_i, w_i]` | f32 | representations; γ_{i−1} = D_i γ_i, but for pursuits layer by layer |
//! | `signal_shape` | `[3]` | i32 | channels, height, width of the signals |
//! | `lambda` | `[n]` | f32 | λ of each signal |
//! | `iterations` | `[n]` | i32 | iterations (of coordinate descent: sweeps) |
//! | `relative_gap` | `[n]` | f32 | duality gap over objective; 1 where the pursuit proves nothing |
//! | `objective`, `data_term` | `[n]` | f32 | what the pursuit minimises, for basis pursuit ½‖y − D^(L)γ_L‖² + λ‖γ_L‖₁, and ½‖y − D^(L)γ_L‖² |
//! | `nonzeros` | `[n]` | i32 | non-zeros of γ_L |
//! | `stop_reason` | `[n]` | u8 | [`crate::pursuit::StopReason::number`]; 0: the gap was reached, 1: the iterations were used up, others as listed there |
//!
//! Safetensors files also hold the model's configuration and the pursuit's settings, as JSON in the metadata under the key
//! `mlcsc_codes`.

use super::arrays::{self, Content, Element, NamedArray};
use crate::error::{Error, Result};
use crate::files;
use crate::model::geometry::{SignalShape, checked_len};
use crate::model::sparse::to_host;
use crate::pursuit::SignalReport;
use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, Metadata};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Key of the safetensors metadata; not the one of model files, so that neither is taken for the other.
const METADATA_KEY: &str = "mlcsc_codes";

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
}

/// Writes the codes of a set of signals batch by batch.
///
/// Until [`Self::finish`] they lie in unnamed temporary files in the target's folder, which vanish with the program however it
/// ends; memory does not grow with the number of signals.
#[derive(Debug)]
pub struct CodesWriter {
    path: PathBuf,
    format: CodesFormat,
    signal: SignalShape,
    codes: Vec<SignalShape>,
    spools: Vec<BufWriter<File>>,
    signals: usize,
    written: usize,
}

impl CodesWriter {
    /// For `signals` signals of shape `signal` with representations γ_1 … γ_L of shapes `codes`.
    ///
    /// # Errors
    /// An extension that is none of the formats'; a folder that cannot be written into.
    pub fn create(path: &Path, signal: SignalShape, codes: &[SignalShape], signals: usize) -> Result<Self> {
        let format = CodesFormat::of(path, "out")?;
        files::check_writable(path)?;
        let folder = files::parent(path);
        files::create_folder(folder)?;
        let spool = |_: &SignalShape| Ok(BufWriter::new(tempfile::tempfile_in(folder).map_err(Error::write(path))?));
        let spools = codes.iter().map(spool).collect::<Result<_>>()?;
        Ok(Self { path: path.into(), format, signal, codes: codes.to_vec(), spools, signals, written: 0 })
    }

    /// Adds a batch: γ_1 … γ_L of the next signals.
    ///
    /// # Shapes
    /// - representations: L tensors, γ_i as `[n, m_i, h_i, w_i]`.
    ///
    /// # Errors
    /// Other shapes, more signals than announced, a full disk.
    pub fn append(&mut self, representations: &[Tensor<4>]) -> Result<()> {
        let count = representations.first().map_or(0, |codes| codes.dims()[0]);
        let dims: Vec<[usize; 4]> = representations.iter().map(Tensor::dims).collect();
        let expected: Vec<[usize; 4]> = self.codes.iter().map(|shape| shape.batched(count)).collect();
        if dims != expected || count > self.signals - self.written {
            let expected = format!("at most {} of {expected:?}", self.signals - self.written);
            return Err(Error::shape("codes to write", expected, format!("{dims:?}")));
        }
        for (spool, codes) in self.spools.iter_mut().zip(representations) {
            let values = to_host(codes.clone());
            spool.write_all(&arrays::little_endian(&values)).map_err(Error::write(&self.path))?;
        }
        self.written += count;
        Ok(())
    }

    /// Writes the final file, whole or not at all. `settings` is JSON that says how the codes were computed.
    ///
    /// # Errors
    /// Fewer signals or another number of reports than announced; a full disk.
    pub fn finish(self, reports: &[SignalReport], settings: &serde_json::Value) -> Result<()> {
        if (self.written, reports.len()) != (self.signals, self.signals) {
            let found = format!("{} and {}", self.written, reports.len());
            return Err(Error::shape("signals and reports to write", self.signals, found));
        }
        let mut all = Vec::new();
        for (index, (spool, shape)) in self.spools.into_iter().zip(&self.codes).enumerate() {
            let file = spool.into_inner().map_err(|error| Error::write(&self.path)(error.into_error()))?;
            all.push(NamedArray {
                name: format!("gamma_{}", index + 1),
                element: Element::F32,
                shape: shape.batched(self.signals).to_vec(),
                content: Content::File(file),
            });
        }
        let SignalShape { channels, height, width } = self.signal;
        // Extents are at most 2³⁰.
        all.push(NamedArray::integers("signal_shape", &[channels, height, width].map(|extent| extent as i32)));
        let floats = |name: &str, value: fn(&SignalReport) -> f32| {
            NamedArray::floats(name, &[reports.len()], &reports.iter().map(value).collect::<Vec<_>>())
        };
        let integers = |name: &str, value: fn(&SignalReport) -> usize| {
            let value = |report| i32::try_from(value(report)).unwrap_or(i32::MAX);
            NamedArray::integers(name, &reports.iter().map(value).collect::<Vec<_>>())
        };
        let stop = |report: &SignalReport| report.stop.number();
        all.extend([
            floats("lambda", |report| report.lambda),
            integers("iterations", |report| report.iterations),
            floats("relative_gap", |report| report.relative_gap),
            floats("objective", |report| report.objective),
            floats("data_term", |report| report.data_term),
            integers("nonzeros", |report| report.nonzeros),
            NamedArray::bytes("stop_reason", reports.iter().map(stop).collect()),
        ]);
        match self.format {
            CodesFormat::Safetensors => {
                arrays::write_safetensors(&self.path, Some((METADATA_KEY, settings.to_string())), all)
            }
            CodesFormat::Npz => arrays::write_npz(&self.path, all),
        }
    }
}

/// Where in a file the deepest codes are.
#[derive(Debug)]
enum Place {
    /// Safetensors: position of the first value.
    At(u64),
    /// An npz archive's entry.
    Entry,
}

/// The deepest codes γ_L of a file, read in batches.
///
/// The file may come from [`CodesWriter`] or from anywhere else, as long as `gamma_L` is in it as f32 or f64.
#[derive(Debug)]
pub struct CodesReader {
    path: PathBuf,
    name: String,
    place: Place,
    double: bool,
    count: usize,
    codes: SignalShape,
    signal: Option<SignalShape>,
}

impl CodesReader {
    /// Opens the codes `gamma_{depth}` of a file, `depth` being the model's number of layers.
    ///
    /// # Errors
    /// A file that cannot be read or is neither safetensors nor npz; no array of that name, or one of another type or number
    /// of dimensions.
    pub fn open(path: &Path, depth: usize) -> Result<Self> {
        let name = format!("gamma_{depth}");
        match CodesFormat::of(path, "codes")? {
            CodesFormat::Safetensors => Self::open_safetensors(path, name),
            CodesFormat::Npz => Self::open_npz(path, name),
        }
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
        let what = format!("{} of {}", self.name, self.path.display());
        Err(Error::shape(what, format!("{expected}, as the model's codes"), self.codes))
    }

    /// Calls `visit` with one batch of at most `batch` signals after the other, laid out as `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// A file that ends early or cannot be read, values that are not finite; errors of `visit`.
    pub fn for_each(&self, batch: usize, mut visit: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
        match self.place {
            Place::At(position) => {
                let mut file = File::open(&self.path).map_err(Error::read(&self.path))?;
                file.seek(SeekFrom::Start(position)).map_err(Error::read(&self.path))?;
                self.read_batches(BufReader::new(file), batch, &mut visit)
            }
            Place::Entry => {
                let broken = |error: io::Error| Error::format(&self.path, error.to_string());
                let mut archive = npyz::npz::NpzArchive::open(&self.path).map_err(broken)?;
                let entry = archive.by_name(&self.name).map_err(broken)?;
                let entry = entry.ok_or_else(|| self.missing())?;
                self.read_batches(BufReader::new(entry.into_inner()), batch, &mut visit)
            }
        }
    }

    fn read_batches(
        &self,
        mut reader: impl Read,
        batch: usize,
        visit: &mut impl FnMut(Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let width = if self.double { 8 } else { 4 };
        let mut bytes = Vec::new();
        for start in (0..self.count).step_by(batch.max(1)) {
            let count = batch.min(self.count - start);
            let len = count * self.codes.len() * width;
            bytes.clear();
            // Grows with what is really there, not with what the header says.
            let read = reader.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(Error::read(&self.path))?;
            if read != len {
                return Err(Error::format(&self.path, format!("{} ends early", self.name)));
            }
            let values: Vec<f32> = if self.double {
                let (words, _) = bytes.as_chunks::<8>();
                words.iter().map(|word| f64::from_le_bytes(*word) as f32).collect()
            } else {
                let (words, _) = bytes.as_chunks::<4>();
                words.iter().map(|word| f32::from_le_bytes(*word)).collect()
            };
            if !values.iter().all(|value| value.is_finite()) {
                return Err(Error::format(&self.path, format!("{} holds NaN or infinite values", self.name)));
            }
            visit(values)?;
        }
        Ok(())
    }

    fn open_safetensors(path: &Path, name: String) -> Result<Self> {
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
        let info = header.info(&name).ok_or_else(|| missing(path, &name, header.offset_keys()))?;
        let double = match info.dtype {
            Dtype::F32 => false,
            Dtype::F64 => true,
            other => return Err(broken(format!("{name} of type {other:?} where F32 or F64 is needed"))),
        };
        let place = Place::At(values + info.data_offsets.0 as u64);
        let signal = match header.info("signal_shape") {
            Some(info) if info.dtype == Dtype::I32 && info.shape == [3] => {
                let mut bytes = [0; 12];
                file.seek(SeekFrom::Start(values + info.data_offsets.0 as u64))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(Error::read(path))?;
                let (words, _) = bytes.as_chunks::<4>();
                signal_shape(words.iter().map(|word| i32::from_le_bytes(*word)))
            }
            _ => None,
        };
        let (count, codes) = dimensions(path, &name, &info.shape)?;
        Ok(Self { path: path.into(), name, place, double, count, codes, signal })
    }

    fn open_npz(path: &Path, name: String) -> Result<Self> {
        let broken = |reason: String| Error::format(path, format!("expected codes (npz), found {reason}"));
        files::open_with_length(path)?;
        let mut archive = npyz::npz::NpzArchive::open(path).map_err(|error| broken(format!("no archive: {error}")))?;
        let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
        let mut header = |name: &str| -> Result<Option<(npyz::NpyHeader, Vec<u8>)>> {
            let entry = archive.zip_archive().by_name(&npyz::npz::file_name_from_array_name(name));
            let Ok(mut entry) = entry else { return Ok(None) };
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
            let rest = start.split_off(cursor.position() as usize);
            Ok(Some((header, rest)))
        };
        let (array, _) = header(&name)?.ok_or_else(|| missing(path, &name, names))?;
        let double = match array.dtype().descr().as_str() {
            "'<f4'" => false,
            "'<f8'" => true,
            other => return Err(broken(format!("{name} of type {other} where '<f4' or '<f8' is needed"))),
        };
        if array.order() != npyz::Order::C {
            return Err(broken(format!("{name} in Fortran order where C order is needed")));
        }
        let shape: Vec<usize> =
            array.shape().iter().map(|&extent| usize::try_from(extent).unwrap_or(usize::MAX)).collect();
        let (count, codes) = dimensions(path, &name, &shape)?;
        let signal = match header("signal_shape")? {
            Some((array, bytes)) if array.dtype().descr() == "'<i4'" && array.shape() == [3] => {
                let (words, _) = bytes.as_chunks::<4>();
                signal_shape(words.iter().map(|word| i32::from_le_bytes(*word)))
            }
            _ => None,
        };
        Ok(Self { path: path.into(), name, place: Place::Entry, double, count, codes, signal })
    }

    fn missing(&self) -> Error {
        missing(&self.path, &self.name, Vec::new())
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
        _ => {
            let what = format!("{name} of {}", path.display());
            Err(Error::shape(what, "four dimensions [signals, atoms, height, width]", format!("{shape:?}")))
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
    use burn::tensor::TensorData;

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

    fn write(path: &Path) {
        let mut writer = CodesWriter::create(path, SIGNAL, &CODES, 3).unwrap();
        for (start, count) in [(0, 2), (2, 1)] {
            writer.append(&CODES.map(|shape| batch(shape, start, count))).unwrap();
        }
        let reports: Vec<_> = (0..3).map(report).collect();
        writer.finish(&reports, &serde_json::json!({"gap": 0.5})).unwrap();
    }

    #[test]
    fn what_is_written_reads_back_in_other_batches() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["codes.safetensors", "codes.npz"] {
            let path = folder.path().join("below").join(name);
            write(&path);
            for depth in 1..=2 {
                let reader = CodesReader::open(&path, depth).unwrap();
                assert_eq!((reader.len(), reader.signal()), (3, Some(SIGNAL)));
                reader.check(CODES[depth - 1]).unwrap();
                assert!(reader.check(SIGNAL).unwrap_err().to_string().contains(name));
                let (mut values, mut sizes) = (Vec::new(), Vec::new());
                let visit = |batch: Vec<f32>| {
                    sizes.push(batch.len());
                    values.extend(batch);
                    Ok(())
                };
                reader.for_each(2, visit).unwrap();
                let len = CODES[depth - 1].len();
                assert_eq!(sizes, [2 * len, len]);
                assert!(values.iter().enumerate().all(|(index, &value)| value == index as f32));
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
        let mut writer = CodesWriter::create(&path, SIGNAL, &CODES, 3).unwrap();
        writer.append(&CODES.map(|shape| batch(shape, 0, 2))).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Too many, another order, too few.
        assert!(writer.append(&CODES.map(|shape| batch(shape, 0, 2))).is_err());
        let [first, second] = CODES;
        assert!(writer.append(&[batch(second, 0, 1), batch(first, 0, 1)]).is_err());
        assert!(writer.finish(&[report(0), report(1)], &serde_json::Value::Null).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(CodesWriter::create(&folder.path().join("codes.txt"), SIGNAL, &CODES, 3).is_err());
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
                let message = match CodesReader::open(&path, 1) {
                    Err(error) => error.to_string(),
                    // An archive is read from its end: damage at the start shows when values are read.
                    Ok(reader) => reader.for_each(1, |_| Ok(())).unwrap_err().to_string(),
                };
                assert!(message.contains(name) && !message.contains('\n'), "{message}");
            }
        }
        let path = folder.path().join("nan.safetensors");
        let array = NamedArray::floats("gamma_1", &[1, 1, 1, 1], &[f32::NAN]);
        arrays::write_safetensors(&path, None, vec![array]).unwrap();
        let error = CodesReader::open(&path, 1).unwrap().for_each(1, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("NaN"));
    }
}
