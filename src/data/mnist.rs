//! MNIST from the user's cache folder, downloaded there where it is missing.

use super::idx::Folder;
use super::pictures::Collection;
use crate::error::{Error, Result};
#[cfg(feature = "download")]
use crate::files;
use crate::geometry::SignalShape;
#[cfg(feature = "download")]
use indicatif::{ProgressBar, ProgressStyle};
#[cfg(feature = "download")]
use std::io::Read;
use std::path::{Path, PathBuf};
#[cfg(feature = "download")]
use std::time::Duration;
#[cfg(feature = "download")]
use ureq::Agent;

/// Where a copy of the four files is kept, gzipped.
#[cfg(feature = "download")]
const ADDRESS: &str = "https://storage.googleapis.com/cvdf-datasets/mnist";

/// More than any of the files has.
#[cfg(feature = "download")]
const MAX_BYTES: u64 = 1 << 26;

/// One half of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Test,
}

impl Part {
    /// Images and labels, in a folder of their own.
    fn files(self, folder: &Path) -> [PathBuf; 2] {
        let (subfolder, stem) = match self {
            Self::Train => ("train", "train"),
            Self::Test => ("test", "t10k"),
        };
        ["images-idx3", "labels-idx1"].map(|kind| folder.join(subfolder).join(format!("{stem}-{kind}-ubyte.gz")))
    }
}

/// Opens MNIST in the cache folder; what is missing is downloaded first.
pub(super) fn open() -> Result<Collection> {
    open_in(cache_folder(), by_network())
}

/// What gets a file of MNIST's.
#[cfg(feature = "download")]
fn by_network() -> impl Fn(&Path) -> Result<(), String> {
    let agent = Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(Duration::from_secs(600)))
        .build()
        .new_agent();
    move |file| download(&agent, ADDRESS, file)
}

/// What gets a file of MNIST's.
#[cfg(not(feature = "download"))]
fn by_network() -> impl Fn(&Path) -> Result<(), String> {
    |_| Err("built without the feature download".into())
}

fn open_in(folder: Option<PathBuf>, download: impl Fn(&Path) -> Result<(), String>) -> Result<Collection> {
    let folder = folder.ok_or_else(|| {
        Error::Download(
            "cannot download MNIST: no cache folder is known; name a folder with its files as `source`".into(),
        )
    })?;
    let unavailable = |reason: &str| {
        Error::Download(format!(
            "cannot download MNIST ({reason}); put train-images-idx3-ubyte and t10k-images-idx3-ubyte, gzipped or not, \
             into {} or name a folder that holds them as `source`",
            folder.display()
        ))
    };
    for part in [Part::Train, Part::Test] {
        let found = Folder::find(&folder);
        if (part == Part::Train && found.train.is_some()) || (part == Part::Test && found.test.is_some()) {
            continue;
        }
        // Labels first: once the images are there nothing more is looked for.
        for file in part.files(&folder).iter().rev().filter(|file| !file.exists()) {
            download(file).map_err(|reason| unavailable(&reason))?;
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

/// `burn-dataset/mnist` in the user's cache folder, where burn keeps it too.
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

/// Gets the file of that name from an address; there is a whole file afterwards, or none.
#[cfg(feature = "download")]
fn download(agent: &Agent, address: &str, file: &Path) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let url = format!("{address}/{name}");
    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let mut response = agent.get(&url).call().map_err(|error| failed(&error))?;
    let body = response.body_mut();
    // Not shown without a terminal.
    let bar =
        body.content_length().map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(name.to_string());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut bytes = Vec::new();
    bar.wrap_read(body.with_config().limit(MAX_BYTES).reader())
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    bar.finish_and_clear();
    files::write_bytes(file, &bytes).map_err(|error| error.to_string())
}

#[cfg(all(test, feature = "download"))]
mod tests {
    use super::*;
    use crate::data::idx::tests::{gzip, idx};
    use std::cell::RefCell;
    use std::io::Write;
    use std::net::TcpListener;
    use std::process::Command;

    fn images(count: u32) -> Vec<u8> {
        idx(&[count, 28, 28], &vec![7; count as usize * 784])
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes what a file should hold, gzipped.
    fn successful(file: &Path) -> Result<(), String> {
        assert!(!file.exists());
        let name = file.file_name().unwrap().to_str().unwrap();
        let bytes = if name.contains("images") { images(3) } else { idx(&[3], &[1, 2, 3]) };
        write(file, &gzip(&bytes));
        Ok(())
    }

    #[test]
    fn what_is_missing_is_downloaded_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("burn-dataset/mnist");
        let asked = RefCell::new(Vec::new());
        let download = |file: &Path| {
            asked.borrow_mut().push(file.file_name().unwrap().to_str().unwrap().to_string());
            successful(file)
        };
        let collection = open_in(Some(cache.clone()), download).unwrap();
        assert_eq!(collection.pictures.labels().unwrap(), [1, 2, 3, 1, 2, 3]);
        assert_eq!(collection.test.unwrap().iter().collect::<Vec<_>>(), [3, 4, 5]);
        std::fs::remove_dir_all(cache.join("test")).unwrap();
        open_in(Some(cache.clone()), download).unwrap();
        open_in(Some(cache.clone()), download).unwrap();
        let test = ["t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"];
        let all = ["train-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"].into_iter().chain(test).chain(test);
        assert_eq!(*asked.borrow(), all.collect::<Vec<_>>());
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
    fn a_failed_download_is_one_line_and_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("mnist");
        let failing = |file: &Path| match file.to_str().unwrap().contains("images") {
            true => Err("the line is dead".to_string()),
            false => successful(file),
        };
        let message = open_in(Some(cache.clone()), failing).err().unwrap().to_string();
        assert!(!message.contains('\n'), "{message}");
        for part in ["the line is dead", cache.to_str().unwrap(), "`source`", "t10k-images-idx3-ubyte"] {
            assert!(message.contains(part), "{message}");
        }
        open_in(Some(cache.clone()), successful).unwrap();
        let message = open_in(None, failing).err().unwrap().to_string();
        assert!(message.contains("no cache folder"), "{message}");
    }

    /// A server's address, which answers one request after the other.
    fn server(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(&answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn files_come_whole_or_not_at_all() {
        let bytes = gzip(&images(3));
        let answer = |status: &str, len: usize| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
            [head.as_bytes(), &bytes].concat()
        };
        let len = bytes.len();
        let address = server(vec![answer("200 OK", len + 1), answer("404 Not Found", len), answer("200 OK", len)]);
        let agent = Agent::config_builder().proxy(None).build().new_agent();
        let folder = tempfile::tempdir().unwrap();
        let file = &Part::Train.files(folder.path())[0];
        for expected in ["disconnected", "404"] {
            let reason = download(&agent, &address, file).unwrap_err();
            println!("{reason}");
            assert!(reason.starts_with(&format!("{address}/train-images-idx3-ubyte.gz: ")), "{reason}");
            assert!(reason.contains(expected) && !reason.contains('\n') && !file.exists(), "{reason}");
        }
        download(&agent, &address, file).unwrap();
        assert_eq!(std::fs::read(file).unwrap(), bytes);
        let names = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn a_damaged_cache_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().to_path_buf();
        for file in [Part::Train, Part::Test].into_iter().flat_map(|part| part.files(&cache)) {
            successful(&file).unwrap();
        }
        let file = &Part::Train.files(&cache)[0];
        write(file, &images(3)[..500]);
        let message = open_in(Some(cache.clone()), |_| panic!("not missing")).err().unwrap().to_string();
        assert!(message.contains(file.to_str().unwrap()) && message.contains("remove the file"), "{message}");
        write(file, &idx(&[3, 2, 2], &[0; 12]));
        let message = open_in(Some(cache.clone()), |_| panic!("not missing")).err().unwrap().to_string();
        assert!(message.contains("expected 1x28x28, found 1x2x2"), "{message}");
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
