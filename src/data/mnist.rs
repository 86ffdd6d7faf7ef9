//! MNIST from the user's cache folder, downloaded there by burn where it is missing.

use super::idx::Folder;
use super::pictures::Collection;
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
use burn::data::dataset::vision::MnistDataset;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One half of the data set, as burn divides it into folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Test,
}

impl Part {
    /// The files that burn's download creates.
    fn files(self, folder: &Path) -> [PathBuf; 2] {
        let (subfolder, stem) = match self {
            Self::Train => ("train", "train"),
            Self::Test => ("test", "t10k"),
        };
        ["images-idx3", "labels-idx1"].map(|kind| folder.join(subfolder).join(format!("{stem}-{kind}-ubyte")))
    }
}

/// Opens MNIST in burn's cache folder; what is missing is downloaded first.
pub(super) fn open() -> Result<Collection> {
    open_in(cache_folder(), download)
}

fn open_in(folder: Option<PathBuf>, download: impl Fn(Part) -> Result<(), String>) -> Result<Collection> {
    let folder = folder.ok_or_else(|| {
        Error::Download("cannot download MNIST: no cache folder is known; name a folder with its files (--data)".into())
    })?;
    let unavailable = |reason: &str| {
        Error::Download(format!(
            "cannot download MNIST ({reason}); put train-images-idx3-ubyte and t10k-images-idx3-ubyte, gzipped or not, \
             into {} or name a folder that holds them (--data)",
            folder.display()
        ))
    };
    for part in [Part::Train, Part::Test] {
        let files = part.files(&folder);
        // A download that was killed leaves empty files, which burn would take for the real ones.
        for file in &files {
            if std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
                std::fs::remove_file(file).map_err(Error::write(file))?;
            }
        }
        let found = Folder::find(&folder);
        if (part == Part::Train && found.train.is_some()) || (part == Part::Test && found.test.is_some()) {
            continue;
        }
        let missing: Vec<&PathBuf> = files.iter().filter(|file| !file.exists()).collect();
        if let Err(reason) = download(part) {
            // Half a file must not be there at the next attempt; one that was never created cannot be removed.
            missing.iter().for_each(|file| drop(std::fs::remove_file(file)));
            return Err(unavailable(&reason));
        }
    }
    let found = Folder::find(&folder);
    if found.train.is_none() || found.test.is_none() {
        return Err(unavailable("the files are not where they were expected"));
    }
    let collection = found.open().map_err(|error| match error {
        Error::Format { path, reason } => {
            Error::Format { path, reason: format!("{reason}; remove the file to have it downloaded again") }
        }
        error => error,
    })?;
    let collection = collection.ok_or_else(|| unavailable("the files vanished"))?;
    let expected = SignalShape::new(1, 28, 28);
    for index in [0, collection.pictures.count() - 1] {
        let shape = collection.pictures.shape(index);
        if shape != expected {
            return Err(Error::shape(collection.pictures.name(index), expected, shape));
        }
    }
    Ok(collection)
}

/// Where burn keeps MNIST: `burn-dataset/mnist` in the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = if cfg!(target_os = "windows") {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        std::env::home_dir().map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
    };
    cache.map(|cache| cache.join("burn-dataset").join("mnist"))
}

/// Has burn download one part into its cache folder.
fn download(part: Part) -> Result<(), String> {
    quietly(|| {
        match part {
            Part::Train => MnistDataset::train(),
            Part::Test => MnistDataset::test(),
        };
    })
}

/// Runs code that panics on failure and returns what it had to say, printing nothing.
///
/// The hook that reports panics belongs to the whole process: other threads' panics are reported as before.
fn quietly(run: impl FnOnce()) -> Result<(), String> {
    let previous = Arc::new(std::panic::take_hook());
    let this_thread = std::thread::current().id();
    let others = previous.clone();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != this_thread {
            others(info);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    drop(std::panic::take_hook());
    std::panic::set_hook(match Arc::try_unwrap(previous) {
        Ok(previous) => previous,
        Err(shared) => Box::new(move |info| shared(info)),
    });
    outcome.map_err(|payload| reason(&*payload))
}

/// The message of a panic in one short line.
fn reason(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("unknown reason").replace('\n', " ");
    // An unwrapped error is printed as nested structures, of which the quoted texts are what a person can read.
    let quoted: Vec<&str> = text.split('"').skip(1).step_by(2).filter(|text| !text.is_empty()).collect();
    let text = if quoted.is_empty() { text.clone() } else { quoted.join(": ") };
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::idx::tests::{gzip, idx};
    use std::cell::RefCell;
    use std::process::Command;

    fn images(count: u32) -> Vec<u8> {
        idx(&[count, 28, 28], &vec![7; count as usize * 784])
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn successful(folder: &Path) -> impl Fn(Part) -> Result<(), String> {
        move |part| {
            let [images_file, labels_file] = part.files(folder);
            assert!(!images_file.exists() && !labels_file.exists());
            write(&images_file, &images(3));
            write(&labels_file, &idx(&[3], &[1, 2, 3]));
            Ok(())
        }
    }

    #[test]
    fn what_is_missing_is_downloaded_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("burn-dataset/mnist");
        let parts = RefCell::new(Vec::new());
        let download = |part| {
            parts.borrow_mut().push(part);
            successful(&cache)(part)
        };
        let collection = open_in(Some(cache.clone()), download).unwrap();
        assert_eq!(collection.pictures.labels().unwrap(), [1, 2, 3, 1, 2, 3]);
        assert_eq!(collection.test.unwrap(), [3, 4, 5]);
        std::fs::remove_dir_all(cache.join("test")).unwrap();
        open_in(Some(cache.clone()), download).unwrap();
        open_in(Some(cache.clone()), download).unwrap();
        assert_eq!(*parts.borrow(), [Part::Train, Part::Test, Part::Test]);
    }

    #[test]
    fn files_put_there_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("train-images-idx3-ubyte.gz"), &gzip(&images(2)));
        write(&folder.path().join("t10k-images-idx3-ubyte"), &images(1));
        let collection = open_in(Some(folder.path().into()), |_| panic!("nothing to download")).unwrap();
        assert_eq!((collection.pictures.count(), collection.pictures.labels()), (3, None));
    }

    #[test]
    fn a_failed_download_leaves_nothing_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("mnist");
        let failing = |part: Part| {
            write(&part.files(&cache)[0], &images(3)[..500]);
            Err("the line is dead".to_string())
        };
        let message = open_in(Some(cache.clone()), failing).err().unwrap().to_string();
        assert!(!message.contains('\n'), "{message}");
        for part in ["the line is dead", cache.to_str().unwrap(), "--data", "t10k-images-idx3-ubyte"] {
            assert!(message.contains(part), "{message}");
        }
        // Another program's kill in the middle leaves an empty file.
        write(&Part::Test.files(&cache)[1], &[]);
        open_in(Some(cache.clone()), successful(&cache)).unwrap();
        let message = open_in(None, failing).err().unwrap().to_string();
        assert!(message.contains("no cache folder"), "{message}");
    }

    #[test]
    fn a_damaged_cache_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().to_path_buf();
        for part in [Part::Train, Part::Test] {
            successful(&cache)(part).unwrap();
        }
        let file = &Part::Train.files(&cache)[0];
        write(file, &images(3)[..500]);
        let message = open_in(Some(cache.clone()), |_| panic!("not missing")).err().unwrap().to_string();
        assert!(message.contains(file.to_str().unwrap()) && message.contains("remove the file"), "{message}");
        write(file, &idx(&[3, 2, 2], &[0; 12]));
        let message = open_in(Some(cache.clone()), |_| panic!("not missing")).err().unwrap().to_string();
        assert!(message.contains("expected 1x28x28, found 1x2x2"), "{message}");
    }

    #[test]
    fn panics_become_reasons() {
        assert_eq!(quietly(|| ()), Ok(()));
        assert_eq!(quietly(|| panic!("no\nroute")), Err("no route".into()));
        let failing = || -> Result<()> { Err(Error::Download("a closed port".into())) };
        assert_eq!(quietly(|| failing().unwrap()), Err("a closed port".into()));
        // The hook is restored: a panic is reported again.
        let reported = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = reported.clone();
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |_| flag.store(true, std::sync::atomic::Ordering::SeqCst)));
        quietly(|| panic!("unheard")).unwrap_err();
        assert!(!reported.load(std::sync::atomic::Ordering::SeqCst));
        catch_unwind(|| panic!("heard")).unwrap_err();
        assert!(reported.load(std::sync::atomic::Ordering::SeqCst));
        std::panic::set_hook(previous);
    }

    /// Run by the test below in a process of its own, whose environment it changes.
    #[test]
    #[ignore = "needs the environment that another test sets"]
    fn open_without_a_network() {
        println!("outcome: {}", open().err().unwrap());
    }

    #[test]
    fn no_network_is_one_line_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "data::mnist::tests::open_without_a_network", "--ignored", "--nocapture"]);
        // A proxy that does not exist keeps the child off the network wherever the test runs.
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(name, "http://127.0.0.1:9");
        }
        for name in ["NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        command.env("XDG_CACHE_HOME", folder.path()).env("LOCALAPPDATA", folder.path()).env("HOME", folder.path());
        let start = std::time::Instant::now();
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        assert!(start.elapsed().as_secs() < 60);
        assert!(!err.contains("panicked"), "{err}");
        let line = out.lines().find_map(|line| line.split_once("outcome: ")).unwrap_or_else(|| panic!("{out}")).1;
        assert!(line.starts_with("cannot download MNIST (https://"), "{line}");
        assert!(line.contains("burn-dataset"), "{line}");
        println!("{line}");
    }
}
