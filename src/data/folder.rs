//! What a folder holds: files of one kind that are read, which of them are for tests and of which classes they are by their names, and
//! what is passed over.

use super::labels;
use crate::error::{Error, Result};
use crate::files::name_in;
use crate::text::counted;
use std::cmp::Ordering;
use std::collections::HashSet;
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

    fn plural(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Arrays => ".npy files",
            Self::Tensors => ".safetensors files",
            Self::Recordings => ".wav files",
        }
    }
}

/// Names of a part of the files: those to learn from, and those to test with, of which the first that is there counts.
const TRAIN: [&str; 2] = ["train", "training"];
const TEST: [&str; 5] = ["test", "testing", "val", "valid", "validation"];

/// Whether a name says that it is one of a part.
pub(super) fn says_part(name: &str) -> bool {
    words(name).any(|word| TRAIN.iter().chain(&TEST).any(|part| word.eq_ignore_ascii_case(part)))
}

/// The words of a name: letters between other signs, without digits at their ends.
fn words(stem: &str) -> impl Iterator<Item = &str> {
    stem.split(|sign: char| !sign.is_alphanumeric())
        .map(|word| word.trim_end_matches(|sign: char| sign.is_ascii_digit()))
}

/// Files beside folders named `train` and `test` that are no set of their own.
const STRAY: usize = 1;

/// Most classes that labels tell apart.
const MOST_CLASSES: usize = 256;

/// Which class each of some files is of, as the folders say that they lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// Names of the classes, from label 0 on; empty where the folders' names are the labels.
    pub names: Vec<String>,
    /// The label of each file.
    pub of_files: Vec<u8>,
}

impl Classes {
    /// By the names of the folders of the files: names that all are whole numbers from 0 to 255 are the labels, others are numbered in
    /// natural order. `None` for more names than there are labels.
    fn of(folders: &[&str]) -> Option<Self> {
        let numbers = folders.iter().map(|name| name.parse::<u8>().ok().filter(|label| label.to_string() == **name));
        if let Some(of_files) = numbers.collect::<Option<Vec<u8>>>() {
            return Some(Self { names: Vec::new(), of_files });
        }
        let mut names: Vec<&str> = folders.to_vec();
        names.sort_by(|a, b| natural(a, b));
        names.dedup();
        let place = |name: &&str| names.binary_search_by(|other| natural(other, name)).unwrap_or_default() as u8;
        let of_files = folders.iter().map(place).collect();
        (names.len() <= MOST_CLASSES).then(|| Self { names: names.iter().map(ToString::to_string).collect(), of_files })
    }
}

/// The files of a folder that are read.
pub(super) struct Listing {
    /// The kind of which there are most; the first of [`Kind::ALL`] of those of which there are equally many. `None` where there are none.
    pub kind: Option<Kind>,
    /// They, images in the order of their names, others in natural order: `act_2` before `act_10`; those of a test set last.
    pub paths: Vec<PathBuf>,
    /// How many of them, the last ones, are for tests, as their names or folders say; 0 where nothing does.
    pub test: usize,
    /// Files of labels, each with the number of files that it is for, one after the other; none where some files have no labels.
    pub labels: Vec<(PathBuf, usize)>,
    /// Their classes by their folders.
    pub classes: Option<Classes>,
    pub skipped: Skipped,
}

impl Listing {
    /// Looks through a folder, without hidden files. Where no file in it is read, its subfolders are looked through: `train` and `test`
    /// (or by another of their names) are the parts that they say, others are classes of images or recordings.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for parts of different kinds.
    pub fn of(folder: &Path) -> Result<Self> {
        let files = Self::of_files(folder)?;
        let own = files.signals();
        if own > STRAY {
            return Ok(files);
        }
        let below = match Self::of_parts(folder)? {
            // A picture beside them is no set.
            Some(parts) if parts.paths.len() > own => Some(parts),
            None if own == 0 => Self::of_classes(folder)?,
            _ => None,
        };
        let Some(mut below) = below else { return Ok(files) };
        below.skipped.neither.extend(files.paths.iter().map(|path| name_of(path)));
        below.skipped.beside(files.skipped);
        Ok(below)
    }

    /// Number of files of signals; a `labels.npy` alone counts as none.
    fn signals(&self) -> usize {
        match &self.paths[..] {
            [path] if name_of(path) == labels::FILE => 0,
            paths => paths.len(),
        }
    }

    /// The files of `train` and those of `test`, where there are such folders and they hold something; of `train` alone where there is no other.
    fn of_parts(folder: &Path) -> Result<Option<Self>> {
        let folders = Files::of(folder)?.folders;
        let named = |name: &str| folders.iter().find(|path| name_of(path).eq_ignore_ascii_case(name));
        let Some(train) = TRAIN.iter().find_map(|name| named(name)) else { return Ok(None) };
        let part = |path: &Path| -> Result<Option<(Kind, Self)>> {
            let files = Self::of_files(path)?;
            let listing = if files.signals() > 0 { Some(files) } else { Self::of_classes(path)? };
            Ok(listing.and_then(|listing| listing.kind.map(|kind| (kind, listing))))
        };
        let Some((kind, mut first)) = part(train)? else { return Ok(None) };
        let others = |but: &[&PathBuf]| -> Vec<String> {
            folders.iter().filter(|path| !but.contains(path)).map(|path| name_of(path)).collect()
        };
        let mut second = None;
        for test in TEST.iter().filter_map(|name| named(name)) {
            if let Some((other, listing)) = part(test)? {
                second = Some((test, other, listing));
                break;
            }
        }
        let Some((test, other, second)) = second else {
            first.skipped =
                Skipped { folders: others(&[train]), ..Skipped::default() }.with(&name_of(train), first.skipped);
            return Ok(Some(first));
        };
        if kind != other {
            let found = format!("{} in {} and {} in {}", kind.plural(), name_of(train), other.plural(), name_of(test));
            return Err(Error::format(
                folder,
                format!("expected files of one kind to learn from and to test with, found {found}"),
            ));
        }
        let mut skipped = Skipped { folders: others(&[train, test]), ..Skipped::default() };
        let test_files = second.paths.len();
        let mut classes = None;
        match (first.class_folders(), second.class_folders()) {
            (Some(first), Some(second)) => {
                let folders: Vec<&str> = first.iter().chain(&second).map(String::as_str).collect();
                classes = Classes::of(&folders);
                skipped.notes.extend(classes.is_none().then(|| too_many_classes(&folders)));
            }
            (None, Some(_)) => skipped.notes.push(unlabelled(train)),
            (Some(_), None) => skipped.notes.push(unlabelled(test)),
            (None, None) => {}
        }
        let without = [(&first, train), (&second, test)].into_iter().find(|(part, _)| part.labels.is_empty());
        let labelled = first.labels.first().or(second.labels.first());
        if let (Some((_, part)), Some((path, _))) = (without, labelled) {
            let part = name_of(part);
            skipped.notes.push(format!("no class labels: {part} has no file of labels, as {} is one", path.display()));
        }
        let labels = if without.is_some() { Vec::new() } else { [first.labels, second.labels].concat() };
        for (part, of_part) in [(train, first.skipped), (test, second.skipped)] {
            skipped = skipped.with(&name_of(part), of_part);
        }
        let paths = [first.paths, second.paths].concat();
        Ok(Some(Self { kind: Some(kind), paths, test: test_files, labels, classes, skipped }))
    }

    /// The names of the folders of all files, where these say classes.
    fn class_folders(&self) -> Option<Vec<String>> {
        self.classes.as_ref()?;
        Some(self.paths.iter().map(|path| path.parent().map_or(String::new(), name_of)).collect())
    }

    /// Images or recordings in the subfolders of a folder, whichever are more, with the subfolders as their classes.
    fn of_classes(folder: &Path) -> Result<Option<Self>> {
        let mut folders = Files::of(folder)?.folders;
        // Parts are no classes.
        if folders.iter().all(|path| says_part(&name_of(path))) {
            return Ok(None);
        }
        folders.sort_by(|a, b| natural(&name_of(a), &name_of(b)));
        let all = folders.iter().map(|path| Files::of(path)).collect::<Result<Vec<_>>>()?;
        let count = |kind: Kind| all.iter().map(|files| files.of_kind(kind).len()).sum::<usize>();
        let kind = match (count(Kind::Images), count(Kind::Recordings)) {
            (0, 0) => return Ok(None),
            (images, recordings) if images >= recordings => Kind::Images,
            _ => Kind::Recordings,
        };
        let (mut paths, mut of_files, mut skipped) = (Vec::new(), Vec::new(), Skipped::default());
        for (class, mut files) in folders.iter().zip(all) {
            let name = name_of(class);
            let taken = files.found.iter_mut().find(|(of, _)| *of == kind);
            let mut own = taken.map(|(_, paths)| std::mem::take(paths)).unwrap_or_default();
            if own.is_empty() {
                skipped.folders.push(name);
                continue;
            }
            own.sort();
            of_files.extend(own.iter().map(|_| name.clone()));
            paths.extend(own);
            skipped = skipped.with(&name, files.into_skipped());
        }
        let names: Vec<&str> = of_files.iter().map(String::as_str).collect();
        let classes = Classes::of(&names);
        skipped.notes.extend(classes.is_none().then(|| too_many_classes(&names)));
        Ok(Some(Self { kind: Some(kind), paths, test: 0, labels: Vec::new(), classes, skipped }))
    }

    /// The files of a folder itself.
    fn of_files(folder: &Path) -> Result<Self> {
        let Files { mut found, folders, mut labels, own_labels, mut skipped } = Files::of(folder)?;
        skipped.folders.extend(folders.iter().map(|path| name_of(path)));
        if found.iter().all(|(_, paths)| paths.is_empty()) {
            let [_, (_, arrays), ..] = &mut found;
            arrays.extend(labels.take());
        }
        let [_, (_, arrays), (_, tensors), _] = &found;
        let has_arrays = !arrays.is_empty() || !tensors.is_empty();
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
        let are_arrays = matches!(kind, Some(Kind::Arrays | Kind::Tensors));
        let mut test = 0;
        if are_arrays {
            chosen_paths.sort_by(|a, b| natural(&name_of(a), &name_of(b)));
            if let Some((train, of_test, others)) = divided_by_name(&chosen_paths) {
                test = of_test.len();
                skipped.neither.extend(others.iter().map(|path| name_of(path)));
                chosen_paths = [train, of_test].concat();
                // Whose labels these are cannot be told.
                skipped.labels.extend(labels.take().map(|path| name_of(&path)));
            }
        } else {
            chosen_paths.sort();
            if has_arrays {
                // They are those of the arrays.
                skipped.fewer.extend(labels.take().map(|path| name_of(&path)));
            }
            // Whoever made the labels may have ordered the files by their numbers, or by their names as text.
            let pairs = chosen_paths.windows(2).map(|pair| [name_of(&pair[0]), name_of(&pair[1])]);
            let twisted = labels.as_ref().zip(
                pairs.filter(|_| labels.is_some()).find(|[first, second]| natural(first, second) == Ordering::Greater),
            );
            if let Some((path, [first, second])) = twisted {
                let path = path.display();
                let reason = format!(
                    "{path}: expected files whose order by number is that of their names, found {first} and {second}"
                );
                skipped.notes.push(format!("no class labels: {reason} (write all numbers with as many digits, or sort the files into a folder for each class)"));
                labels = None;
            }
        }
        let own = chosen_paths.iter().filter(|_| are_arrays).filter_map(|path| own_label_of(path, &own_labels));
        let own: Vec<PathBuf> = own.collect();
        let labels: Vec<(PathBuf, usize)> = match labels {
            Some(labels) => vec![(labels, chosen_paths.len())],
            None if are_arrays && own.len() == chosen_paths.len() => own.into_iter().map(|path| (path, 1)).collect(),
            None => Vec::new(),
        };
        let is_unused = |path: &&PathBuf| !labels.iter().any(|(used, _)| used == *path);
        skipped.labels.extend(own_labels.iter().filter(is_unused).map(|path| name_of(path)));
        Ok(Self { kind, paths: chosen_paths, test, labels, classes: None, skipped })
    }
}

/// Why files of such folders have no classes.
fn too_many_classes(folders: &[&str]) -> String {
    let found = counted(folders.iter().collect::<HashSet<_>>().len(), "folder");
    format!("no class labels: expected at most {MOST_CLASSES} classes, found {found}")
}

/// Why the other part's classes are of no use.
fn unlabelled(part: &Path) -> String {
    format!("no class labels: the files of {} lie in no folders of classes", name_of(part))
}

/// Arrays whose names say that they are to learn from (`train.npy`, `X_train_1.npy`), those to test with, and the others; `None` where
/// there are not both.
pub(super) fn divided_by_name(paths: &[PathBuf]) -> Option<(Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>)> {
    let says = |path: &Path, names: &[&str]| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        words(&stem).any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
    };
    let (train, rest): (Vec<PathBuf>, Vec<PathBuf>) = paths.iter().cloned().partition(|path| says(path, &TRAIN));
    let name = TEST.iter().find(|name| rest.iter().any(|path| says(path, &[name])))?;
    let (test, others): (Vec<PathBuf>, Vec<PathBuf>) = rest.into_iter().partition(|path| says(path, &[name]));
    (!train.is_empty()).then_some((train, test, others))
}

/// Pictures and arrays of a folder, without its subfolders and hidden files, in the order of their names, and a line about what is passed
/// over, where there is something.
///
/// # Errors
/// A folder that cannot be read.
pub fn pictures_and_arrays(folder: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let Files { found, folders, mut labels, own_labels, mut skipped } = Files::of(folder)?;
    let [(_, images), (_, mut arrays), (_, tensors), (_, recordings)] = found;
    if arrays.is_empty() && images.is_empty() {
        arrays.extend(labels.take());
    }
    skipped.folders.extend(folders.iter().map(|path| name_of(path)));
    skipped.others.extend(tensors.iter().chain(&recordings).map(|path| name_of(path)));
    skipped.others.extend(own_labels.iter().chain(&labels).map(|path| name_of(path)));
    let mut paths = [images, arrays].concat();
    paths.sort();
    Ok((paths, skipped.describe(folder)))
}

/// The files of a folder by their kinds.
struct Files {
    found: [(Kind, Vec<PathBuf>); 4],
    folders: Vec<PathBuf>,
    /// `labels.npy`.
    labels: Option<PathBuf>,
    /// The files of labels of single files of arrays.
    own_labels: Vec<PathBuf>,
    skipped: Skipped,
}

/// The file of labels of a file of arrays, if it is among some.
fn own_label_of(path: &Path, own_labels: &[PathBuf]) -> Option<PathBuf> {
    let mut names = labels::names_for(path.file_stem()?.to_str()?).into_iter();
    names.find_map(|name| own_labels.iter().find(|labels| **labels == path.with_file_name(&name))).cloned()
}

impl Files {
    fn of(folder: &Path) -> Result<Self> {
        let mut skipped = Skipped::default();
        let mut found = Kind::ALL.map(|kind| (kind, Vec::new()));
        let (mut folders, mut labels) = (Vec::new(), None);
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let name = name_of(&path);
            if name.starts_with('.') {
                // Among them the companions that macOS puts beside files, `._a.png` beside `a.png`.
                skipped.hidden.push(name);
            } else if path.is_dir() {
                folders.push(path);
            } else if !path.is_file() {
                skipped.no_files.push(name);
            } else if name == labels::FILE {
                labels = Some(path);
            } else if let Some((_, paths)) = found.iter_mut().find(|(kind, _)| Kind::of(&path) == Some(*kind)) {
                paths.push(path);
            } else {
                skipped.others.push(name);
            }
        }
        let [_, (_, arrays), (_, tensors), _] = &mut found;
        let stems = arrays.iter().chain(&*tensors).filter_map(|path| path.file_stem()?.to_str());
        let wanted: HashSet<String> = stems.flat_map(labels::names_for).collect();
        let own_labels: Vec<PathBuf> = arrays.extract_if(.., |path| wanted.contains(&name_of(path))).collect();
        Ok(Self { found, folders, labels, own_labels, skipped })
    }

    fn of_kind(&self, kind: Kind) -> &[PathBuf] {
        self.found.iter().find(|(of, _)| *of == kind).map_or(&[], |(_, paths)| paths)
    }

    /// What is passed over where images or recordings have been taken out of it.
    fn into_skipped(self) -> Skipped {
        let Self { found, folders, labels, own_labels, mut skipped } = self;
        skipped.folders.extend(folders.iter().map(|path| name_of(path)));
        let fewer = found.iter().flat_map(|(_, paths)| paths).chain(&labels).chain(&own_labels);
        skipped.fewer.extend(fewer.map(|path| name_of(path)));
        skipped
    }
}

/// The files of signals that are read of a folder; none of what is no folder, or cannot be read.
#[cfg(feature = "cli")]
pub(crate) fn files_read(folder: &Path) -> Vec<PathBuf> {
    match folder.is_dir() {
        true => Listing::of(folder).map_or(Vec::new(), |listing| listing.paths),
        false => Vec::new(),
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

/// A file's name, with the folders below `folder` that it lies in.
pub(super) fn name_below(file: &Path, folder: &Path) -> String {
    match file == folder {
        true => name_of(file),
        false => name_in(file, folder),
    }
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
    /// Files beside those whose names say training or test.
    neither: Vec<String>,
    /// Files of labels.
    labels: Vec<String>,
    /// Parts of files: pages, frames and pictures behind the first one, tokens.
    pub rests: Vec<String>,
    /// What else there is to say, each for itself.
    pub notes: Vec<String>,
}

impl Skipped {
    /// With what was passed over in a subfolder.
    fn with(mut self, folder: &str, other: Self) -> Self {
        let Self { hidden, folders, no_files, others, fewer, neither, labels, rests, notes } = other;
        let named = |names: Vec<String>| names.into_iter().map(|name| format!("{folder}/{name}")).collect::<Vec<_>>();
        self.hidden.extend(named(hidden));
        self.folders.extend(named(folders));
        self.no_files.extend(named(no_files));
        self.others.extend(named(others));
        self.fewer.extend(named(fewer));
        self.neither.extend(named(neither));
        self.labels.extend(named(labels));
        self.rests.extend(rests);
        self.notes.extend(notes);
        self
    }

    /// Adds the files that were passed over beside the folders that are read.
    fn beside(&mut self, other: Self) {
        self.hidden.extend(other.hidden);
        self.no_files.extend(other.no_files);
        self.others.extend(other.others);
        self.fewer.extend(other.fewer);
        self.labels.extend(other.labels);
    }

    /// One line, if there is anything to say.
    pub fn describe(self, path: &Path) -> Option<String> {
        let Self { hidden, folders, no_files, others, fewer, neither, labels, rests, notes } = self;
        let kinds = [
            (hidden, ["hidden file", "hidden files"], ""),
            (folders, ["folder", "folders"], ""),
            (no_files, ["link or pipe", "links or pipes"], " without a file behind"),
            (others, ["file", "files"], " of a kind that is not read"),
            (fewer, ["file", "files"], " of another kind than most"),
            (neither, ["file", "files"], " beside those that are read"),
            (labels, ["file", "files"], " of labels (some arrays have none, or others go before them)"),
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
        let told = (!parts.is_empty()).then(|| format!("skipped in {}: {}", path.display(), parts.join("; ")));
        let lines: Vec<String> = told.into_iter().chain(notes).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
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
        assert_eq!((name_of(&listing.labels[0].0), listing.labels[0].1), ("labels.npy".into(), 2));
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

    fn put(folder: &Path, names: &[&str]) {
        for name in names {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), "").unwrap();
        }
    }

    /// Paths below a folder, with `/`.
    fn below(folder: &Path, paths: &[PathBuf]) -> Vec<String> {
        let name = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
        paths.iter().map(name).collect()
    }

    #[test]
    fn subfolders_are_classes() {
        let folder = tempfile::tempdir().unwrap();
        let of = |names: &[&str]| {
            put(folder.path(), names);
            Listing::of(folder.path()).unwrap()
        };
        let listing = of(&["dog/b.png", "dog/a.jpg", "cat/1.png", "notes/a.txt", "cat/old/2.png", "cat/x.npy"]);
        assert_eq!(below(folder.path(), &listing.paths), ["cat/1.png", "dog/a.jpg", "dog/b.png"]);
        let classes = listing.classes.unwrap();
        assert_eq!((classes.names, classes.of_files), (vec!["cat".into(), "dog".into()], vec![0, 1, 1]));
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(skipped.contains("2 folders (cat/old, notes)") && skipped.contains("(cat/x.npy)"), "{skipped}");
        // Parts, each with its classes; a class of one part alone keeps its place among all.
        let listing = of(&["train/b/1.wav", "train/a/1.wav", "val/c/1.wav", "test/a/2.wav", "test/c/3.wav"]);
        assert_eq!(listing.kind, Some(Kind::Recordings));
        let expected = ["train/a/1.wav", "train/b/1.wav", "test/a/2.wav", "test/c/3.wav"];
        assert_eq!((below(folder.path(), &listing.paths), listing.test), (expected.map(String::from).to_vec(), 2));
        assert_eq!(listing.classes.unwrap().of_files, [0, 1, 0, 2]);
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(skipped.contains("4 folders (cat, dog, notes, …)"), "{skipped}");
        let kaggle = tempfile::tempdir().unwrap();
        put(kaggle.path(), &["train/b/1.png", "train/a/1.png", "test/1.png"]);
        let listing = Listing::of(kaggle.path()).unwrap();
        assert_eq!((listing.paths.len(), listing.test, listing.classes), (3, 1, None));
        let skipped = listing.skipped.describe(kaggle.path()).unwrap();
        assert_eq!(skipped, "no class labels: the files of test lie in no folders of classes");
        // A file in the folder itself goes before.
        let listing = of(&["c.png", "labels.npy"]);
        assert_eq!((listing.paths.len(), listing.test), (4, 2));
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(skipped.contains("(c.png)"), "{skipped}");
        let listing = of(&["d.png"]);
        assert_eq!(below(folder.path(), &listing.paths), ["c.png", "d.png"]);
        assert_eq!((listing.test, listing.labels.len()), (0, 1));
        // Labels alone are no signals where there are folders; files of `train` alone are divided at random.
        let classes = tempfile::tempdir().unwrap();
        put(classes.path(), &["b/1.png", "a/1.png", "labels.npy", "notes.txt"]);
        let listing = Listing::of(classes.path()).unwrap();
        assert_eq!((listing.paths.len(), listing.classes.map(|classes| classes.of_files)), (2, Some(vec![0, 1])));
        let skipped = listing.skipped.describe(classes.path()).unwrap();
        assert!(skipped.contains("(labels.npy)") && skipped.contains("(notes.txt)"), "{skipped}");
        let alone = tempfile::tempdir().unwrap();
        put(alone.path(), &["train/b/1.png", "train/a/1.png"]);
        // Labels in a part are no signals; files beside parts are read where they are several, whatever the parts hold.
        put(alone.path(), &["train/labels.npy", "val/a/2.png", "test/notes.txt"]);
        let listing = Listing::of(alone.path()).unwrap();
        assert_eq!((listing.kind, listing.paths.len(), listing.test), (Some(Kind::Images), 3, 1));
        put(alone.path(), &["train/x.npy", "train/y.npy", "1.png", "2.png"]);
        assert_eq!(below(alone.path(), &Listing::of(alone.path()).unwrap().paths), ["1.png", "2.png"]);
        let parts = tempfile::tempdir().unwrap();
        put(parts.path(), &["val/1.png", "test/1.png"]);
        assert!(Listing::of(parts.path()).unwrap().kind.is_none());
    }

    #[test]
    fn training_files_alone() {
        let alone = tempfile::tempdir().unwrap();
        put(alone.path(), &["train/b/1.png", "train/a/1.png"]);
        let listing = Listing::of(alone.path()).unwrap();
        assert_eq!(
            (below(alone.path(), &listing.paths), listing.test),
            (vec!["train/a/1.png".into(), "train/b/1.png".into()], 0)
        );
    }

    #[test]
    fn labels_of_files_whose_order_is_not_clear() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &["p1.png", "p2.png", "labels.npy"]);
        assert_eq!(Listing::of(folder.path()).unwrap().labels.len(), 1);
        put(folder.path(), &["p10.png"]);
        let listing = Listing::of(folder.path()).unwrap();
        assert_eq!(
            (below(folder.path(), &listing.paths), listing.labels),
            (["p1.png", "p10.png", "p2.png"].map(String::from).to_vec(), vec![])
        );
        let skipped = listing.skipped.describe(folder.path()).unwrap();
        assert!(skipped.starts_with("no class labels: ") && skipped.contains("p10.png and p2.png"), "{skipped}");
    }

    #[test]
    fn classes_by_numbers_and_too_many() {
        let numbered = Classes::of(&["10", "7", "10"]).unwrap();
        assert_eq!((numbered.names.len(), numbered.of_files), (0, vec![10, 7, 10]));
        assert_eq!(Classes::of(&["c10", "c9", "07"]).unwrap().of_files, [2, 1, 0]);
        assert_eq!(Classes::of(&["1", "256"]).unwrap().names, ["1", "256"]);
        let names: Vec<String> = (0..257).map(|class| format!("class {class}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(Classes::of(&names).is_none() && Classes::of(&names[1..]).is_some());
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| put(folder.path(), &[&format!("{name}/1.png")]));
        let listing = Listing::of(folder.path()).unwrap();
        assert_eq!((listing.paths.len(), listing.classes), (257, None));
        assert_eq!(
            listing.skipped.describe(folder.path()).unwrap(),
            "no class labels: expected at most 256 classes, found 257 folders"
        );
    }

    #[test]
    fn arrays_named_train_and_test() {
        for (names, train, test, labels) in [
            (&["train.npy", "test.npy"][..], &["train.npy"][..], &["test.npy"][..], &[][..]),
            (
                &["X_train.npy", "y_train.npy", "X_test.npy", "y_test.npy"],
                &["X_train.npy"],
                &["X_test.npy"],
                &["y_train.npy", "y_test.npy"],
            ),
            (
                &["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"],
                &["train_images.npy"],
                &["test_images.npy"],
                &["train_labels.npy", "test_labels.npy"],
            ),
            (
                &["train-10.npy", "train-9.npy", "validation0.npy", "other.npy"],
                &["train-9.npy", "train-10.npy"],
                &["validation0.npy"],
                &[],
            ),
            (&["train.npy", "val.npy", "test.npy"], &["train.npy"], &["test.npy"], &[]),
            (
                &["train/a.npy", "train/labels.npy", "test/b.npy", "test/b_labels.npy"],
                &["train/a.npy"],
                &["test/b.npy"],
                &["labels.npy", "b_labels.npy"],
            ),
            (
                &["X_train1.npy", "X_train2.npy", "y_train1.npy", "y_train2.npy", "X test.npy", "y test.npy"],
                &["X_train1.npy", "X_train2.npy"],
                &["X test.npy"],
                &["y_train1.npy", "y_train2.npy", "y test.npy"],
            ),
            (&["train_1.npy", "train_2.npy"], &["train_1.npy", "train_2.npy"], &[], &[]),
            (&["x.npy", "y.npy"], &["x.npy", "y.npy"], &[], &[]),
            (&["latest.npy", "strain.npy"], &["latest.npy", "strain.npy"], &[], &[]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            put(folder.path(), names);
            let listing = Listing::of(folder.path()).unwrap();
            let found = below(folder.path(), &listing.paths);
            let (of_train, of_test) = found.split_at(found.len() - listing.test);
            assert_eq!(
                (of_train, of_test),
                (
                    &train.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                    &test.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
                )
            );
            let found: Vec<String> = listing.labels.iter().map(|(path, _)| name_of(path)).collect();
            assert_eq!(found, labels, "{names:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &["train.npy", "test.npy", "old.npy", "labels.npy"]);
        let skipped = Listing::of(folder.path()).unwrap().skipped.describe(folder.path()).unwrap();
        assert!(skipped.contains("1 file beside those that are read (old.npy); 1 file of labels"), "{skipped}");
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &["train/a.npy", "test/a.png"]);
        let message = Listing::of(folder.path()).err().unwrap().to_string();
        assert!(message.contains("found .npy files in train and images in test"), "{message}");
    }
}
