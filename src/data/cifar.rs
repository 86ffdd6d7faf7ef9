//! CIFAR-10 and CIFAR-100 in their binary form: records of one label or two (coarse, fine), then 3x32x32 pixels.
//!
//! A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Files have no headers and are known by their names.

use super::arrays::{Arrays, Shard, map, view_of};
use super::folder::{name_of, natural};
use super::layout::Layout;
use super::pictures::Collection;
use super::stored::{Element, Kind, Strided};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Values of an image.
const VALUES: usize = 3 * 32 * 32;

/// One of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cifar {
    Ten,
    Hundred,
}

impl Cifar {
    /// Whose file a path is by its name and, where the name says little, its length.
    pub fn of_file(path: &Path) -> Option<Self> {
        let name = name_of(path);
        let batch = name.strip_prefix("data_batch_").and_then(|rest| rest.strip_suffix(".bin"));
        if name == "test_batch.bin" || batch.is_some_and(|number| number.parse::<u32>().is_ok()) {
            return Some(Self::Ten);
        }
        let named = ["train.bin", "test.bin"].contains(&name.as_str());
        let len = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file())?.len();
        (named && len > 0 && len.is_multiple_of(Self::Hundred.record() as u64)).then_some(Self::Hundred)
    }

    /// Bytes of a record.
    fn record(self) -> usize {
        self.labels() + VALUES
    }

    /// Labels of a record; the last one is read.
    fn labels(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn classes(self) -> u8 {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }

    /// The images of some files, with their labels.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that holds no whole records or labels that are none.
    pub fn open(self, path: &Path, files: &[PathBuf], layout: Option<Layout>) -> Result<Arrays> {
        let mut labels = Vec::new();
        let record = self.record();
        let shards = files.iter().map(|file| {
            let bytes = map(file)?;
            if !bytes.len().is_multiple_of(record) {
                let expected = format!("expected CIFAR-{}'s records of {record} bytes", self.classes());
                return Err(Error::format(file, format!("{expected}, found {} bytes", bytes.len())));
            }
            for (at, record) in bytes.chunks_exact(record).enumerate() {
                let label = record[self.labels() - 1];
                if label >= self.classes() {
                    let expected = format!("expected labels of CIFAR-{0} less than {0}", self.classes());
                    return Err(Error::format(file, format!("{expected}, found {label} in record {at}")));
                }
                labels.push(label);
            }
            let array = Strided {
                offset: self.labels(),
                element: Element::little(Kind::Pixel, 1),
                extents: vec![bytes.len() / record, 3, 32, 32],
                steps: vec![record, 32 * 32, 32, 1],
            };
            Ok(Shard { path: file.clone(), array, len: bytes.len() })
        });
        let images = Arrays::shards(path, shards, |path, extents| view_of(path, extents, layout), None)?;
        Ok(images.labelled(labels))
    }

    /// What a folder holds of either set, if anything: the test set is its own.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_folder(folder: &Path, layout: Option<Layout>) -> Result<Option<Collection>> {
        let is_file = |name: &str| folder.join(name).is_file();
        let mut batches = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            if name_of(&path).starts_with("data_batch_") && Self::of_file(&path).is_some() && path.is_file() {
                batches.push(path);
            }
        }
        batches.sort_by(|a, b| natural(&name_of(a), &name_of(b)));
        let one = |name: &str, set: Self| {
            let sure = is_file("fine_label_names.txt") || Self::of_file(&folder.join(name)) == Some(set);
            if is_file(name) && sure { vec![folder.join(name)] } else { Vec::new() }
        };
        let (set, train, test) = match (!batches.is_empty(), is_file("test_batch.bin")) {
            (false, false) => (Self::Hundred, one("train.bin", Self::Hundred), one("test.bin", Self::Hundred)),
            _ => (Self::Ten, batches, one("test_batch.bin", Self::Ten)),
        };
        Ok(match (train.is_empty(), test.is_empty()) {
            (true, true) => None,
            (false, false) => Some(Collection::with_test_set(
                Arc::new(set.open(folder, &train, layout)?),
                Arc::new(set.open(folder, &test, layout)?),
            )),
            _ => Some(Collection::of(set.open(folder, &[train, test].concat(), layout)?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, open};
    use crate::geometry::SignalShape;

    fn config(path: &Path) -> DataConfig {
        DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
    }

    /// Records whose pixels are the label, the label + 1, … modulo 256.
    fn records(labels: &[u8], coarse: bool) -> Vec<u8> {
        let record = |&label: &u8| {
            let head = if coarse { vec![19, label] } else { vec![label] };
            head.into_iter().chain((0..VALUES).map(move |at| label.wrapping_add(at as u8)))
        };
        labels.iter().flat_map(record).collect()
    }

    #[test]
    fn folders_and_files_of_both_sets() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("data_batch_2.bin", records(&[3, 4], false));
        put("data_batch_1.bin", records(&[0, 9, 2], false));
        put("test_batch.bin", records(&[7], false));
        put("batches.meta.txt", b"airplane\n".to_vec());
        let data = open(&config(folder.path())).unwrap();
        assert!(data.has_test_set);
        assert_eq!(data.train.labels().unwrap(), [0, 9, 2, 3, 4]);
        assert_eq!((data.test.labels().unwrap(), data.test.shape()), (&[7][..], SignalShape::new(3, 32, 32)));
        let mut out = vec![0.0; VALUES];
        data.train.read(&[3], &mut out).unwrap();
        assert!(out.iter().enumerate().all(|(at, &value)| value == f32::from(3u8.wrapping_add(at as u8)) / 255.0));
        let one = open(&config(&folder.path().join("data_batch_1.bin"))).unwrap();
        assert_eq!(one.all.labels().unwrap(), [0, 9, 2]);
        let layout = Some(Layout::Vectors);
        let flat = open(&DataConfig { layout, ..config(folder.path()) }).unwrap();
        assert_eq!(flat.all.shape(), SignalShape::new(VALUES, 1, 1));

        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("train.bin", records(&[99, 0, 50], true));
        put("test.bin", records(&[1], true));
        let data = open(&config(folder.path())).unwrap();
        assert_eq!((data.train.labels().unwrap(), data.test.labels().unwrap()), (&[99, 0, 50][..], &[1][..]));
    }

    #[test]
    fn damaged_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("test_batch.bin", &records(&[1, 2], false)[..3072 + 3000]);
        let message = open(&config(folder.path())).err().unwrap().to_string();
        assert!(
            message.contains("test_batch.bin") && message.contains("records of 3073 bytes, found 6072"),
            "{message}"
        );
        put("test_batch.bin", &records(&[1, 10], false));
        let message = open(&config(folder.path())).err().unwrap().to_string();
        assert!(message.contains("less than 10, found 10 in record 1"), "{message}");
        put("test_batch.bin", &[]);
        assert!(open(&config(folder.path())).err().unwrap().to_string().contains("empty file"));
    }
}
