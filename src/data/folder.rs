//! What a folder holds: files of one kind that are read, and what is passed over.

use crate::error::{Error, Result};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// Names that a line on what was skipped gives at most, of every kind.
const NAMED: usize = 3;

/// Endings of the names of image files, in lower case.
const IMAGES: [&str; 14] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "pgm", "ppm", "pnm", "pbm", "pam", "tif", "tiff", "bmp", "webp"];

/// Kinds of files, by the endings of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Images,
    /// `.npy`.
    Arrays,
    /// `.safetensors`.
    Tensors,
    /// `.wav`.
    Recordings,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Images, Self::Arrays, Self::Tensors, Self::Recordings];

    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "npy" => Some(Self::Arrays),
            "safetensors" => Some(Self::Tensors),
            "wav" => Some(Self::Recordings),
            other => IMAGES.contains(&other).then_some(Self::Images),
        }
    }
}

/// The name of the file of labels beside arrays.
pub(super) const LABELS: &str = "labels.npy";

/// The files of a folder that are read.
pub(super) struct Listing {
    /// The kind of which there are most; the first of [`Kind::ALL`] of those of which there are equally many. `None` where there are none.
    pub kind: Option<Kind>,
    /// They, images in the order of their names, others in natural order: `act_2` before `act_10`.
    pub paths: Vec<PathBuf>,
    /// `labels.npy`, where there are other arrays; else the `X_labels.npy` of every `X.npy`, in their order.
    pub labels: Vec<PathBuf>,
    pub skipped: Skipped,
}

impl Listing {
    /// Looks through a folder, without its subfolders and hidden files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of(folder: &Path) -> Result<Self> {
        let Files { mut found, mut labels, own_labels, mut skipped } = Files::of(folder)?;
        let [_, (_, arrays), (_, tensors), _] = &mut found;
        if arrays.is_empty() && tensors.is_empty() {
            arrays.extend(labels.take());
        }
        let most = found.iter().map(|(_, paths)| paths.len()).max().unwrap_or(0);
        let chosen = found.iter().position(|(_, paths)| paths.len() == most && most > 0);
        let (mut kind, mut chosen_paths) = (None, Vec::new());
        for (index, (of, paths)) in found.into_iter().enumerate() {
            if Some(index) == chosen {
                (kind, chosen_paths) = (Some(of), paths);
            } else {
                skipped.fewer.extend(paths.iter().map(|path| name_of(path)));
            }
        }
        match kind {
            Some(Kind::Arrays | Kind::Tensors) => {
                chosen_paths.sort_by(|a, b| natural(&name_of(a), &name_of(b)));
            }
            _ => {
                chosen_paths.sort();
                skipped.fewer.extend(labels.take().map(|path| name_of(&path)));
            }
        }
        let has_labels = matches!(kind, Some(Kind::Arrays | Kind::Tensors));
        let own = chosen_paths.iter().filter(|_| has_labels).filter_map(|path| own_label_of(path, &own_labels));
        let own: Vec<PathBuf> = own.collect();
        let labels: Vec<PathBuf> = match labels {
            Some(labels) => vec![labels],
            None if has_labels && own.len() == chosen_paths.len() => own,
            None => Vec::new(),
        };
        let is_unused = |path: &&PathBuf| !labels.contains(path);
        skipped.labels.extend(own_labels.iter().filter(is_unused).map(|path| name_of(path)));
        Ok(Self { kind, paths: chosen_paths, labels, skipped })
    }
}

/// Pictures and arrays of a folder, without its subfolders and hidden files, in the order of their names, and a line about what is passed
/// over, where there is something.
///
/// # Errors
/// A folder that cannot be read.
pub fn pictures_and_arrays(folder: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let Files { found, labels, own_labels, mut skipped } = Files::of(folder)?;
    let [(_, images), (_, mut arrays), (_, tensors), (_, recordings)] = found;
    if arrays.is_empty() {
        arrays.extend(labels);
    }
    skipped.others.extend(tensors.iter().chain(&recordings).map(|path| name_of(path)));
    skipped.labels.extend(own_labels.iter().map(|path| name_of(path)));
    let mut paths = [images, arrays].concat();
    paths.sort();
    Ok((paths, skipped.describe(folder)))
}

/// The files of a folder by their kinds.
struct Files {
    found: [(Kind, Vec<PathBuf>); 4],
    /// `labels.npy`.
    labels: Option<PathBuf>,
    /// Each `X_labels.npy` beside an `X.npy` or `X.safetensors`.
    own_labels: Vec<PathBuf>,
    skipped: Skipped,
}

/// The file of labels of a file of arrays, if it is among some.
fn own_label_of(path: &Path, own_labels: &[PathBuf]) -> Option<PathBuf> {
    let wanted = path.with_file_name(format!("{}_{LABELS}", path.file_stem()?.to_str()?));
    own_labels.contains(&wanted).then_some(wanted)
}

impl Files {
    fn of(folder: &Path) -> Result<Self> {
        let mut skipped = Skipped::default();
        let mut found = Kind::ALL.map(|kind| (kind, Vec::new()));
        let mut labels = None;
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let name = name_of(&path);
            if name.starts_with('.') {
                // Among them the companions that macOS puts beside files, `._a.png` beside `a.png`.
                skipped.hidden.push(name);
            } else if path.is_dir() {
                skipped.folders.push(name);
            } else if !path.is_file() {
                skipped.no_files.push(name);
            } else if name == LABELS {
                labels = Some(path);
            } else if let Some((_, paths)) = found.iter_mut().find(|(kind, _)| Kind::of(&path) == Some(*kind)) {
                paths.push(path);
            } else {
                skipped.others.push(name);
            }
        }
        let [_, (_, arrays), ..] = &mut found;
        let owner = |path: &Path| {
            let stem = name_of(path).strip_suffix(LABELS)?.strip_suffix('_')?.to_owned();
            ["npy", "safetensors"]
                .map(|ending| path.with_file_name(format!("{stem}.{ending}")))
                .into_iter()
                .find(|path| path.is_file())
        };
        let own_labels: Vec<PathBuf> = arrays.extract_if(.., |path| owner(path).is_some()).collect();
        Ok(Self { found, labels, own_labels, skipped })
    }
}

/// Whether the signals of a file or of most files of a folder have units of their own, as arrays and recordings do; values of pictures
/// become 0 to 1.
pub fn has_own_units(path: &Path) -> bool {
    let kind = match path.is_dir() {
        true => Listing::of(path).ok().and_then(|listing| listing.kind),
        false => Kind::of(path),
    };
    matches!(kind, Some(Kind::Arrays | Kind::Tensors | Kind::Recordings))
}

/// The last name of a path.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Names in the order in which people count: runs of digits are compared as numbers.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
        match (digits(left), digits(right)) {
            (0, 0) | (0, _) | (_, 0) => {
                let (first, second) = (left.chars().next(), right.chars().next());
                let (Some(first), Some(second)) = (first, second) else {
                    // Numbers that differ in leading zeros alone are told apart by them.
                    return first.cmp(&second).then(a.cmp(b));
                };
                if first != second {
                    return first.cmp(&second);
                }
                (left, right) = (&left[first.len_utf8()..], &right[second.len_utf8()..]);
            }
            (of_left, of_right) => {
                let [first, second] = [&left[..of_left], &right[..of_right]].map(|run| run.trim_start_matches('0'));
                let order = first.len().cmp(&second.len()).then(first.cmp(second));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (&left[of_left..], &right[of_right..]);
            }
        }
    }
}

/// What a folder holds beside the files that are read.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    hidden: Vec<String>,
    folders: Vec<String>,
    /// Links that lead nowhere, pipes and the like.
    no_files: Vec<String>,
    others: Vec<String>,
    /// Files of kinds of which there are fewer.
    fewer: Vec<String>,
    /// Labels of single files of arrays.
    labels: Vec<String>,
    /// Parts of files: pages, frames and pictures behind the first one, tokens.
    pub rests: Vec<String>,
}

impl Skipped {
    /// One line, if there is anything to say.
    pub fn describe(self, path: &Path) -> Option<String> {
        let Self { hidden, folders, no_files, others, fewer, labels, rests } = self;
        let kinds = [
            (hidden, ["hidden file", "hidden files"], ""),
            (folders, ["folder", "folders"], ""),
            (no_files, ["link or pipe", "links or pipes"], " without a file behind"),
            (others, ["file", "files"], " of a kind that is not read"),
            (fewer, ["file", "files"], " of another kind than most"),
            (labels, ["file", "files"], " of labels (some arrays have none, or labels.npy goes before them)"),
        ];
        let list = |mut names: Vec<String>| {
            names.sort();
            let more = if names.len() > NAMED { ", …" } else { "" };
            names.truncate(NAMED);
            format!("{}{more}", names.join(", "))
        };
        let counted = kinds.into_iter().filter(|(names, ..)| !names.is_empty()).map(|(names, nouns, which)| {
            let noun = nouns[usize::from(names.len() > 1)];
            format!("{} {noun}{which} ({})", names.len(), list(names))
        });
        let mut parts: Vec<String> = counted.collect();
        if !rests.is_empty() {
            parts.push(list(rests));
        }
        (!parts.is_empty()).then(|| format!("skipped in {}: {}", path.display(), parts.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_people_count() {
        let mut names =
            ["act_10", "act_9", "act_009", "b", "act_2", "act_2b", "act_1_10", "act_1_9", "a", "", "é2", "é10"];
        names.sort_by(|a, b| natural(a, b));
        let expected =
            ["", "a", "act_1_9", "act_1_10", "act_2", "act_2b", "act_009", "act_9", "act_10", "b", "é2", "é10"];
        assert_eq!(names, expected);
        let large = ["1".repeat(50), "2".repeat(49)];
        assert_eq!(natural(&large[0], &large[1]), Ordering::Greater);
    }

    #[test]
    fn the_kind_of_which_there_are_most_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        let names = |listing: &Listing| listing.paths.iter().map(|path| name_of(path)).collect::<Vec<_>>();
        put("labels.npy");
        let listing = Listing::of(folder.path()).unwrap();
        assert_eq!((listing.kind, names(&listing)), (Some(Kind::Arrays), vec!["labels.npy".to_string()]));
        ["a10.npy", "a9.npy", "plot.png", "notes.txt"].into_iter().for_each(put);
        let listing = Listing::of(folder.path()).unwrap();
        assert_eq!((listing.kind, names(&listing)), (Some(Kind::Arrays), vec!["a9.npy".into(), "a10.npy".into()]));
        assert_eq!(name_of(&listing.labels[0]), "labels.npy");
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(
            skipped.ends_with(
                "1 file of a kind that is not read (notes.txt); 1 file of another kind than most (plot.png)"
            )
        );
        ["b10.PNG", "b9.jpg"].into_iter().for_each(put);
        let listing = Listing::of(folder.path()).unwrap();
        assert_eq!((listing.kind, listing.paths.len(), listing.labels), (Some(Kind::Images), 3, vec![]));
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(skipped.contains("3 files of another kind than most (a10.npy, a9.npy, labels.npy)"), "{skipped}");
    }
}
