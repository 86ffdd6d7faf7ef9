//! NumPy's archives, `.npz`: arrays by name. Those that are stored as they are stay where they lie, and are read like `.npy` files, without their
//! checksums, which would take a pass over all of them; compressed ones are inflated to disk.

use super::arrays::{Arrays, Found, map, view_of};
use super::folder::{divided_by_name, natural};
use super::npy::{self, Array};
use super::pictures::Collection;
use super::stored::Bytes;
use super::{DataConfig, labels};
use crate::error::{Error, Result};
use crate::files::open_with_length;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

/// First bytes of an archive with something in it.
pub(super) const MAGIC: [u8; 4] = *b"PK\x03\x04";

/// Largest size of an archive's entry beside that in the archive: more than deflate can do.
const MOST_INFLATED: u64 = 1100;

/// An archive that was opened.
pub(crate) struct Archive {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    names: Vec<String>,
}

impl Archive {
    /// Opens an archive and reads what is in it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is damaged or none, and for entries that are no arrays.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = open_with_length(path)?;
        let mut archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| broken(path, format!("a broken archive: {error}")))?;
        let mut names = Vec::with_capacity(archive.len());
        for index in 0..archive.len() {
            let entry =
                archive.by_index_raw(index).map_err(|error| broken(path, format!("a broken entry: {error}")))?;
            let name = entry.name().map_err(|error| broken(path, format!("an entry without a name: {error}")))?;
            match name.strip_suffix(".npy") {
                Some(array) => names.push(array.to_owned()),
                None => return Err(broken(path, format!("an entry {name:?} that is no .npy array"))),
            }
        }
        names.sort_by(|a, b| natural(a, b));
        Ok(Self { path: path.into(), archive, names })
    }

    /// The names of all arrays, in natural order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An array, read whole.
    ///
    /// # Errors
    /// As [`npy::read_array`]; no array of that name.
    pub fn read(&mut self, name: &str) -> Result<Array> {
        let of_archive = self.path.clone();
        let found = self.find(name)?;
        found.whole().map(|(array, _)| array).map_err(|error| within(&of_archive, name, error))
    }

    /// Where an array's values lie.
    fn find(&mut self, name: &str) -> Result<Found> {
        let path = &self.path;
        let unreadable = |error: String| broken(path, format!("an entry {name}.npy that cannot be read: {error}"));
        let mut entry = self.archive.by_name(&format!("{name}.npy")).map_err(|error| match error {
            ZipError::FileNotFound => broken(path, format!("no array {name}")),
            other => unreadable(other.to_string()),
        })?;
        let size = entry.size();
        let place =
            entry.data_start().filter(|_| entry.compression() == CompressionMethod::Stored && !entry.encrypted());
        let (bytes, from, end) = match place {
            Some(start) => (Bytes::Mapped(map(path)?), start, start.saturating_add(size)),
            None => {
                // The archive's word for the size is not trusted: no more is read than that, and no more than deflate can make.
                let most = size.min(entry.compressed_size().saturating_mul(MOST_INFLATED));
                let whole = inflated(&mut entry.by_ref().take(most)).map_err(|error| match error {
                    Inflating::Reading(error) => unreadable(error.to_string()),
                    Inflating::Writing(error) => Error::write(&std::env::temp_dir())(error),
                })?;
                // The file goes when the map does.
                let map = map(whole.path()).map_err(|error| within(path, name, error))?;
                let end = map.len() as u64;
                (Bytes::Mapped(map), 0, end)
            }
        };
        let named = PathBuf::from(format!("{}:{name}", path.display()));
        if end > bytes.len() as u64 {
            return Err(unreadable(format!("it ends at byte {end} of {}", bytes.len())));
        }
        npy::find_in(&named, bytes, from as usize..end as usize).map_err(|error| within(path, name, error))
    }
}

/// Why an entry could not be inflated.
enum Inflating {
    Reading(io::Error),
    Writing(io::Error),
}

/// A temporary file with everything that a reader gives.
fn inflated(entry: &mut impl Read) -> std::result::Result<tempfile::NamedTempFile, Inflating> {
    let mut whole = tempfile::NamedTempFile::new().map_err(Inflating::Writing)?;
    let mut piece = vec![0; 1 << 16];
    loop {
        match entry.read(&mut piece).map_err(Inflating::Reading)? {
            0 => return Ok(whole),
            len => whole.write_all(&piece[..len]).map_err(Inflating::Writing)?,
        }
    }
}

fn broken(path: &Path, found: String) -> Error {
    Error::format(path, format!("expected a NumPy archive (.npz), found {found}"))
}

/// Names an archive in what is wrong with an array in it.
fn within(path: &Path, name: &str, error: Error) -> Error {
    match error {
        Error::Format { reason, .. } => broken(path, format!("{name}.npy: {reason}")),
        other => other,
    }
}

/// An array's name as that of a file, and back: what files' names say arrays' names say, too.
fn as_file(name: &String) -> PathBuf {
    PathBuf::from(format!("{name}.npy"))
}

fn name_of(file: &Path) -> String {
    let name = file.to_string_lossy();
    name.strip_suffix(".npy").unwrap_or(&name).to_owned()
}

/// The signals of an archive: of the array that is named, of the only one, or of those whose names say `train` and `test`. Arrays of labels, as
/// `y` beside `X`, belong to theirs.
///
/// # Errors
/// As [`Archive::open`]; [`Error::Missing`] and [`Error::Parameter`] where names do not tell which array; arrays that a layout does not admit.
pub(super) fn open(path: &Path, config: &DataConfig) -> Result<Collection> {
    let mut archive = Archive::open(path)?;
    let names = archive.names().to_vec();
    let listed = || names.join(", ");
    let labels_of =
        |name: &str| labels::names_in_archive(name).into_iter().find(|labels| labels != name && names.contains(labels));
    let is_labels = |name: &String| names.iter().any(|other| labels_of(other).as_ref() == Some(name));
    let signals: Vec<PathBuf> = names.iter().filter(|name| !is_labels(name)).map(as_file).collect();
    let (train, test, others) = match (&config.tensor, &signals[..]) {
        (Some(wanted), _) if names.contains(wanted) => (vec![as_file(wanted)], Vec::new(), Vec::new()),
        (Some(wanted), _) => {
            let expected = format!("an array of {}: {}", path.display(), listed());
            return Err(Error::parameter("tensor", format!("{wanted:?}"), expected));
        }
        (None, []) => return Err(broken(path, "none with arrays in it".into())),
        (None, [one]) => (vec![one.clone()], Vec::new(), Vec::new()),
        (None, several) => divided_by_name(several).ok_or_else(|| {
            let expected = format!("the name of one of the {} arrays of {}: {}", names.len(), path.display(), listed());
            Error::missing("tensor", expected)
        })?,
    };
    let chosen: Vec<String> = train.iter().chain(&test).map(|file| name_of(file)).collect();
    let found = chosen.iter().map(|name| archive.find(name)).collect::<Result<Vec<_>>>()?;
    let others = others.iter().map(|file| name_of(file)).collect::<Vec<_>>().join(", ");
    let skipped = (!others.is_empty()).then(|| format!("skipped in {}: {others}", path.display()));
    let arrays = Arrays::held(path, found, |array, extents| view_of(array, extents, config.layout), skipped)?;
    let first = arrays.first_of(train.len());
    let of_all: Option<Vec<String>> = chosen.iter().map(|name| labels_of(name)).collect();
    let arrays = match of_all {
        None => match chosen.iter().find_map(|name| labels_of(name)) {
            None => arrays,
            Some(some) => {
                arrays.noted(format!("no class labels: not every array has some, as {some} of {}", path.display()))
            }
        },
        Some(of_all) => {
            let read = of_all.iter().enumerate().map(|(part, name)| {
                let count = arrays.first_of(part + 1) - arrays.first_of(part);
                labels::read_found(archive.find(name)?, count, &format!("{} of {}", chosen[part], path.display()))
            });
            match read.collect::<Result<Vec<_>>>() {
                Ok(parts) => arrays.labelled(parts.concat()),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => arrays.noted(labels::none(&error)),
            }
        }
    };
    Ok(Collection::of(arrays).tested_from(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Layout};
    use crate::export::arrays::{NamedArray, write_npz};
    use crate::geometry::SignalShape;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    fn open_with(path: &Path, tensor: Option<&str>, layout: Option<Layout>) -> Result<Dataset> {
        let tensor = tensor.map(str::to_owned);
        crate::data::open(&DataConfig {
            source: path.to_str().unwrap().into(),
            tensor,
            layout,
            ..DataConfig::default()
        })
    }

    /// An archive of arrays of floats, stored as they are, as `numpy.savez` does, or compressed.
    fn write(path: &Path, arrays: &[(&str, &[usize], &[f32])], compressed: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = ZipWriter::new(File::create(path).unwrap());
        let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        for (name, dims, values) in arrays {
            let file = folder.path().join("array.npy");
            crate::export::arrays::write_npy(&file, dims, values).unwrap();
            archive.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
            archive.write_all(&std::fs::read(&file).unwrap()).unwrap();
        }
        archive.finish().unwrap();
    }

    fn values(source: &dyn crate::data::Source) -> Vec<f32> {
        let mut out = vec![0.0; source.len() * source.shape().len()];
        source.read(&(0..source.len()).collect::<Vec<_>>(), &mut out).unwrap();
        out
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|value| value as f32).collect()
    }

    #[test]
    fn one_array_with_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let all = numbers(24);
        for compressed in [false, true] {
            write(&path, &[("X", &[4, 6], &all), ("y", &[4], &[3.0, 0.0, 9.0, 3.0])], compressed);
            let data = open_with(&path, None, None).unwrap();
            assert_eq!((data.all.len(), data.all.shape()), (4, SignalShape::new(6, 1, 1)));
            assert_eq!(values(&*data.all), all);
            assert_eq!(data.all.labels(), Some(&[3, 0, 9, 3][..]));
            let data = open_with(&path, Some("X"), Some(Layout::Time)).unwrap();
            assert_eq!(data.all.shape(), SignalShape::new(1, 1, 6));
            assert_eq!(open_with(&path, Some("y"), None).unwrap().all.shape(), SignalShape::new(4, 1, 1));
            let message = open_with(&path, Some("z"), None).unwrap_err().to_string();
            assert!(message.contains("\"z\"") && message.contains("X, y"), "{message}");
        }
        // Labels that do not fit are left out.
        write(&path, &[("X", &[4, 6], &all), ("labels", &[3], &[0.0; 3])], true);
        let data = open_with(&path, None, None).unwrap();
        let told = data.all.skipped().unwrap();
        assert!(data.all.labels().is_none() && told.contains("expected 4 labels") && told.contains("labels"), "{told}");
        // What this program writes is read as well.
        write_npz(&path, vec![NamedArray::floats("codes", &[3, 8], &numbers(24))]).unwrap();
        assert_eq!(values(&*open_with(&path, None, None).unwrap().all), numbers(24));
    }

    #[test]
    fn parts_by_the_names_of_arrays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let arrays: &[(&str, &[usize], &[f32])] = &[
            ("x_test", &[1, 2, 3], &[50.0; 6]),
            ("x_train", &[2, 2, 3], &numbers(12)),
            ("y_test", &[1, 1], &[7.0]),
            ("y_train", &[2, 1], &[1.0, 2.0]),
        ];
        for compressed in [false, true] {
            write(&path, arrays, compressed);
            let data = open_with(&path, None, None).unwrap();
            assert!(data.has_test_set);
            assert_eq!((data.train.len(), data.test.len(), data.all.shape()), (2, 1, SignalShape::new(1, 2, 3)));
            assert_eq!((values(&*data.train), values(&*data.test)), (numbers(12), vec![50.0; 6]));
            assert_eq!((data.train.labels(), data.test.labels()), (Some(&[1, 2][..]), Some(&[7][..])));
        }
        write(
            &path,
            &[("X.train", &[2, 3], &[1.0; 6]), ("X.test", &[1, 3], &[2.0; 3]), ("y.train", &[2], &[0.0; 2])],
            false,
        );
        let data = open_with(&path, None, None).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (2, 1));
        assert!(data.train.labels().is_none() && data.all.skipped().unwrap().contains("y.train"));
        write(&path, &[("a", &[2, 3], &[0.0; 6]), ("b", &[2, 3], &[0.0; 6])], false);
        let message = open_with(&path, None, None).unwrap_err().to_string();
        assert!(message.contains("one of the 2 arrays") && message.contains("a, b"), "{message}");
        write(&path, &[("x_train", &[2, 3], &[0.0; 6]), ("x_test", &[2, 4], &[0.0; 8])], false);
        let message = open_with(&path, None, None).unwrap_err().to_string();
        assert!(message.contains("x_train") && message.contains("x_test"), "{message}");
    }

    #[test]
    fn what_is_damaged_is_refused_in_one_line() {
        use rand::{RngExt, SeedableRng};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for compressed in [false, true] {
            write(&path, &[("X", &[4, 6], &numbers(24)), ("y", &[4], &[0.0; 4])], compressed);
            let whole = std::fs::read(&path).unwrap();
            for _ in 0..200 {
                let mut bytes = whole.clone();
                for _ in 0..random.random_range(0..4) {
                    let place = random.random_range(0..bytes.len());
                    bytes[place] = random.random();
                }
                if random.random() {
                    bytes.truncate(random.random_range(0..bytes.len()));
                }
                std::fs::write(&path, &bytes).unwrap();
                match open_with(&path, None, None) {
                    Ok(data) => drop(data.all.read(&[0], &mut vec![0.0; data.all.shape().len()])),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(!message.contains('\n') && message.contains("set.npz"), "{message}");
                    }
                }
            }
        }
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        archive.start_file("notes.txt", SimpleFileOptions::default()).unwrap();
        archive.write_all(b"abc").unwrap();
        archive.finish().unwrap();
        let message = open_with(&path, None, None).unwrap_err().to_string();
        assert!(message.contains("notes.txt") && message.contains("set.npz"), "{message}");
    }
}
