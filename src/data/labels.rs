//! Class labels beside signals: `labels.npy`, or a file of labels of each file of arrays, `X_labels.npy` beside `X.npy`.

use super::arrays::Found;
use super::{folder, npy};
use crate::error::{Error, Result};
use crate::text::counted;
use std::path::{Path, PathBuf};

/// The file of the labels of all signals of a folder.
pub(super) const FILE: &str = "labels.npy";

/// Labels that are looked at together.
const AT_A_TIME: usize = 1 << 16;

/// The file of labels that belongs to a file of signals, if there is one.
pub(super) fn beside(signals: &Path) -> Option<PathBuf> {
    let stem = signals.file_stem()?.to_str()?;
    let names = names_for(stem).into_iter().chain([FILE.to_string()]);
    names.map(|name| signals.with_file_name(name)).find(|path| path != signals && path.is_file())
}

/// What the file of the labels of `stem.npy` or `stem.safetensors` may be called: `stem_labels.npy`, or as pairs of files to learn from and
/// to test with are often named, `y_train.npy` beside `X_train.npy` and `train_labels.npy` beside `train_images.npy`.
pub(super) fn names_for(stem: &str) -> Vec<String> {
    let renamed = if folder::says_part(stem) { renamed(stem) } else { Vec::new() };
    [format!("{stem}_labels")].into_iter().chain(renamed).map(|name| format!("{name}.npy")).collect()
}

/// What the labels of an array may be called in an archive, where everything belongs together: `y` beside `X` as well, and `labels`.
pub(super) fn names_in_archive(name: &str) -> Vec<String> {
    [format!("{name}_labels")].into_iter().chain(renamed(name)).chain(["labels".into()]).collect()
}

/// A name with a word for labels in place of one for signals.
fn renamed(stem: &str) -> Vec<String> {
    let mut names = Vec::new();
    let words = || stem.split_inclusive(|sign: char| !sign.is_alphanumeric());
    let bare = |word: &str| word.trim_end_matches(|sign: char| !sign.is_alphanumeric()).to_ascii_lowercase();
    for (of_signals, of_labels) in PAIRS {
        if words().any(|word| bare(word) == of_signals) {
            let renamed = words().map(|word| match bare(word) == of_signals {
                true => format!("{of_labels}{}", &word[of_signals.len()..]),
                false => word.to_owned(),
            });
            names.push(renamed.collect());
        }
    }
    names
}

/// Words for signals in the names of files, and what stands in their place for labels.
const PAIRS: [(&str, &str); 7] = [
    ("x", "y"),
    ("x", "Y"),
    ("images", "labels"),
    ("data", "labels"),
    ("data", "target"),
    ("features", "labels"),
    ("signals", "labels"),
];

/// The labels of files, one after the other: each with the number of its signals and what they are called; or, in a line, why there are
/// none: most of what is done with signals needs no labels.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn read_all<'a>(
    files: impl Iterator<Item = (&'a Path, usize, &'a Path)>,
) -> Result<std::result::Result<Vec<u8>, String>> {
    match files.map(|(file, count, signals)| read(file, count, signals)).collect::<Result<Vec<_>>>() {
        Ok(parts) => Ok(Ok(parts.concat())),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => Ok(Err(none(&error))),
    }
}

/// Why there are no labels.
pub(super) fn none(error: &Error) -> String {
    format!("no class labels: {error}")
}

/// Reads labels, whole numbers from 0 to 255, one for each of the `count` signals of `signals`: `[count]` or `[count, 1]`.
///
/// # Errors
/// As [`npy::find`]; [`Error::Shape`] for labels that are fewer or more; [`Error::Format`] for one that is no such number.
fn read(path: &Path, count: usize, signals: &Path) -> Result<Vec<u8>> {
    read_found(npy::find(path)?, count, &signals.display().to_string())
}

/// The same of an array that was found already.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Format`] as of [`read`].
pub(super) fn read_found(found: Found, count: usize, signals: &str) -> Result<Vec<u8>> {
    let Found { path, bytes, array } = found;
    if !matches!(array.extents[..], [found] | [found, 1] if found == count) {
        let expected = format!("{}, one for each signal of {signals}", counted(count, "label"));
        let found = match array.extents[..] {
            [found] => found.to_string(),
            _ => format!("shape {:?}", array.extents),
        };
        return Err(Error::shape(path.display().to_string(), expected, found));
    }
    let mut labels = Vec::with_capacity(count);
    let mut values = Vec::new();
    for start in (0..count).step_by(AT_A_TIME) {
        values.resize(AT_A_TIME.min(count - start), 0.0);
        let size = values.len();
        let (at, block) = ([start, 0], [size, 1]);
        let rank = array.extents.len();
        array.read_block(&bytes, &at[..rank], &block[..rank], &mut values);
        for &value in &values {
            let label = value as u8;
            if f32::from(label) != value {
                let found = format!("found {value} at {}", labels.len());
                return Err(Error::format(
                    &path,
                    format!("expected labels that are whole numbers from 0 to 255, {found}"),
                ));
            }
            labels.push(label);
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use crate::data::{DataConfig, open};
    use crate::export::arrays::write_npy;
    use std::path::Path;

    fn config(path: &Path) -> DataConfig {
        DataConfig { source: path.to_str().unwrap().into(), ..DataConfig::default() }
    }

    #[test]
    fn labels_beside_arrays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let labels = |name: &str| open(&config(&path(name))).unwrap().all.labels().map(<[u8]>::to_vec);
        write_npy(&path("x.npy"), &[4, 2], &[0.0; 8]).unwrap();
        assert_eq!(labels("x.npy"), None);
        write_npy(&path("labels.npy"), &[4], &[3.0, 255.0, 0.0, 3.0]).unwrap();
        assert_eq!(labels("x.npy"), Some(vec![3, 255, 0, 3]));
        // A file of labels of its own goes before; labels have no labels.
        write_npy(&path("x_labels.npy"), &[4], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(labels("x.npy"), Some(vec![1, 2, 3, 4]));
        assert_eq!(labels("labels.npy"), None);
        std::fs::remove_file(path("x_labels.npy")).unwrap();
        for (labels, part) in [
            (&[1.0, 2.0][..], "expected 4 labels, one for each signal of"),
            (&[1.0, 2.0, 3.0, 256.0], "found 256 at 3"),
            (&[1.0, -1.0, 3.0, 6.0], "found -1 at 1"),
            (&[1.0, 0.5, 3.0, 6.0], "found 0.5 at 1"),
            (&[f32::NAN, 0.0, 3.0, 6.0], "found NaN at 0"),
        ] {
            write_npy(&path("labels.npy"), &[labels.len()], labels).unwrap();
            let all = open(&config(&path("x.npy"))).unwrap().all;
            let message = all.skipped().unwrap();
            assert!(all.labels().is_none() && message.starts_with("no class labels: "), "{message}");
            assert!(message.contains(part) && message.contains("labels.npy"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        write_npy(&path("labels.npy"), &[4, 1], &[5.0, 1.0, 0.0, 2.0]).unwrap();
        assert_eq!(labels("x.npy"), Some(vec![5, 1, 0, 2]));
        write_npy(&path("labels.npy"), &[2, 2], &[0.0; 4]).unwrap();
        assert!(open(&config(&path("x.npy"))).unwrap().all.skipped().unwrap().contains("found shape [2, 2]"));
    }

    #[test]
    fn labels_of_shards() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, shape: &[usize], values: &[f32]| {
            write_npy(&folder.path().join(name), shape, values).unwrap();
        };
        write("a1.npy", &[2, 2], &[0.0; 4]);
        write("a2.npy", &[1, 2], &[0.0; 2]);
        write("labels.npy", &[3], &[7.0, 8.0, 9.0]);
        let data = open(&config(folder.path())).unwrap();
        assert_eq!((data.all.len(), data.all.labels()), (3, Some(&[7, 8, 9][..])));
        write("labels.npy", &[2], &[7.0, 8.0]);
        let all = open(&config(folder.path())).unwrap().all;
        let message = all.skipped().unwrap();
        assert!(
            all.labels().is_none() && message.contains("expected 3 labels") && message.contains("found 2"),
            "{message}"
        );
    }
}
