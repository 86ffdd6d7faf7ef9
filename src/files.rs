//! Writing files so that a kill, a full disk or a second reader never meets half a file.

use crate::error::{Error, Result};
use std::fs;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// From here on, writing past the size that the system allows a file (`ulimit -f`) fails as a full disk does: one line is printed and
/// nothing is left half-written. Otherwise the system would end the program.
pub fn report_size_limits() {
    #[cfg(unix)]
    // SAFETY: no function is given that could run at a bad moment.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Beginning and end of the names of temporary files.
const PREFIX: &str = ".mlcsc-";
const SUFFIX: &str = ".part";

/// Removes the temporary files that a program left in a folder when it was killed. No other program may be writing there.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            // One that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Temporary files that are being written.
static BEING_WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the temporary files that are being written: for a program that ends at once. From then on no file is begun and none finished:
/// whoever writes one waits for the end.
pub fn abandon() {
    let files = BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    files.iter().for_each(|file| drop(fs::remove_file(file)));
    std::mem::forget(files);
}

/// The temporary file, if there is one by now, that [`abandon`] is to know of.
#[derive(Default)]
struct BeingWritten(Option<PathBuf>);

impl BeingWritten {
    /// Makes a file, which is known from its first moment on.
    fn begin(
        &mut self,
        make: impl FnOnce() -> io::Result<tempfile::NamedTempFile>,
    ) -> io::Result<tempfile::NamedTempFile> {
        let mut files = BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let file = make()?;
        files.push(file.path().into());
        self.0 = Some(file.path().into());
        Ok(file)
    }
}

impl Drop for BeingWritten {
    fn drop(&mut self) {
        let mut files = BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| Some(file) != self.0.as_ref());
    }
}

/// Most symbolic links that are followed one after the other, as on Linux.
const MOST_LINKS: usize = 40;

/// The file or folder that a path stands for once its last name is no symbolic link any more; it need not exist.
///
/// # Errors
/// [`Error::Io`] with `path`: links that go round in circles.
pub fn target(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(Error::write(path)(io::Error::other("too many symbolic links")))
}

/// Writes a file whole or not at all.
///
/// `fill` writes into a temporary file beside `path`, which is then flushed to disk and renamed over `path`; on any error
/// the temporary file is removed and an existing `path` stays as it was. Parent folders are created.
///
/// Where `path` is a symbolic link, it stays one and the file that it points to is written. An existing file keeps its
/// permissions, a new one gets those that the umask leaves. A file that the user may not write is refused, though its folder
/// would let it be replaced. Other names of the same file (hard links) keep what it held. What is no regular file, such as a
/// pipe or `/dev/null`, is written to when everything is there.
///
/// # Errors
/// [`Error::Io`] with `path`, whatever step failed; errors of `fill` pass through.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&fs::File>) -> Result<()>) -> Result<()> {
    let target = target(path)?;
    let existing = existing(path, &target)?;
    let special = existing.as_ref().is_some_and(|metadata| !metadata.is_file());
    let folder = if special { std::env::temp_dir() } else { parent(&target).to_path_buf() };
    create_folder(&folder)?;
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(PREFIX).suffix(SUFFIX);
    // The permissions that a plain create would give; the crate's own default, readable by the owner alone, is right until the
    // content has those of the file that it replaces.
    #[cfg(unix)]
    if existing.is_none() {
        use std::os::unix::fs::PermissionsExt;
        temporary.permissions(fs::Permissions::from_mode(0o666));
    }
    // The name of the temporary file, which the error would tell, is of no use to anybody.
    // Dropped after the file, which is known until it is gone or has its name.
    let mut known = BeingWritten::default();
    let temporary = known.begin(|| temporary.tempfile_in(folder));
    let temporary = temporary.map_err(|error| Error::write(path)(error.kind().into()))?;
    {
        let mut writer = BufWriter::new(temporary.as_file());
        fill(&mut writer)?;
        writer.flush().map_err(Error::write(path))?;
    }
    if special {
        let mut content = temporary.reopen().map_err(Error::write(path))?;
        let mut out = fs::OpenOptions::new().write(true).open(&target).map_err(Error::write(path))?;
        return io::copy(&mut content, &mut out).map(drop).map_err(Error::write(path));
    }
    if let Some(metadata) = existing {
        keep_owner(temporary.as_file(), &metadata);
        temporary.as_file().set_permissions(metadata.permissions()).map_err(Error::write(path))?;
    }
    temporary.as_file().sync_all().map_err(Error::write(path))?;
    temporary.persist(&target).map_err(|error| Error::Io {
        action: "write",
        path: path.into(),
        source: error.error,
    })?;
    Ok(())
}

/// What is known of the file that will be replaced, `None` where there is none.
///
/// # Errors
/// [`Error::Io`] with `path`: a folder, or a file that may not be written.
fn existing(path: &Path, target: &Path) -> Result<Option<fs::Metadata>> {
    let metadata = match fs::metadata(target) {
        Ok(metadata) => metadata,
        // Whatever else is wrong shows when the file is made.
        Err(_) => return Ok(None),
    };
    if metadata.is_dir() {
        return Err(Error::write(path)(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
    }
    if metadata.is_file() {
        fs::OpenOptions::new().append(true).open(target).map(drop).map_err(Error::write(path))?;
    }
    Ok(Some(metadata))
}

/// Gives a file the owner and group of the one that it replaces, where the system lets us.
#[cfg(unix)]
fn keep_owner(file: &fs::File, replaced: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let [owner, group] = [replaced.uid(), replaced.gid()];
    if file.metadata().is_ok_and(|metadata| [metadata.uid(), metadata.gid()] != [owner, group]) {
        // Not permitted but to the administrator (owner) and to members (group); the file is ours then.
        let _ = fchown(file, Some(owner), Some(group));
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &fs::File, _: &fs::Metadata) {}

/// What tells whether two paths are the same file or folder, be it through links, relative paths or hard links.
#[cfg(unix)]
pub type Identity = (u64, u64);

/// What tells whether two paths are the same file or folder, be it through links or relative paths.
#[cfg(not(unix))]
pub type Identity = PathBuf;

/// The [`Identity`] of a file or folder; `None` where there is none.
pub fn identity(path: &Path) -> Option<Identity> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    fs::canonicalize(path).ok()
}

/// [`write_atomically`] for content that is already in memory.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |writer| writer.write_all(bytes).map_err(Error::write(path)))
}

/// The folder that all files lie in, be it in its subfolders; an empty path where there is none.
pub fn common_folder<'a>(mut files: impl Iterator<Item = &'a Path>) -> &'a Path {
    let first = files.next().and_then(Path::parent).unwrap_or(Path::new(""));
    files
        .fold(first, |common, file| common.ancestors().find(|folder| file.starts_with(folder)).unwrap_or(Path::new("")))
}

/// A file's name, with the folders from `folder` on before it, where it lies in one, as `folder/name`.
pub fn name_in(file: &Path, folder: &Path) -> String {
    let parts = file.strip_prefix(folder).unwrap_or(file).components();
    let names = parts.filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    names.collect::<Vec<_>>().join("/")
}

/// The folder that a file lies in or would lie in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Finds out whether a file could be written, without leaving anything behind, so that hours of work don't end at a mistyped
/// path.
///
/// # Errors
/// [`Error::Io`] with `path`: a folder of that name, a parent that is a file, missing permissions, a read-only disk.
pub fn check_writable(path: &Path) -> Result<()> {
    let target = target(path)?;
    match existing(path, &target)? {
        Some(metadata) if !metadata.is_file() => Ok(()),
        _ => check_parent(path, parent(&target)),
    }
}

/// [`check_writable`] for a folder that files will be written into; it may or may not exist.
///
/// # Errors
/// As [`check_writable`].
pub fn check_writable_folder(folder: &Path) -> Result<()> {
    check_parent(folder, &target(folder)?)
}

/// Whether files can be made in the closest ancestor of `folder` that exists.
fn check_parent(path: &Path, folder: &Path) -> Result<()> {
    let mut ancestors =
        folder.ancestors().map(|ancestor| if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor });
    let existing = ancestors.find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        let reason = format!("{} is not a folder", existing.display());
        return Err(Error::write(path)(io::Error::new(io::ErrorKind::NotADirectory, reason)));
    }
    tempfile::tempfile_in(existing).map(drop).map_err(Error::write(path))
}

/// Creates a folder and its parents; one that exists is fine.
///
/// # Errors
/// [`Error::Io`] with the folder's path.
pub fn create_folder(folder: &Path) -> Result<()> {
    // Of a link that points nowhere yet, its target is made.
    fs::create_dir_all(target(folder)?).map_err(|source| Error::Io {
        action: "create folder",
        path: folder.into(),
        source,
    })
}

/// Whether a path is a pipe, such as `/dev/stdin` behind another program or a shell's `<(…)`: its content comes once, and ends.
pub fn is_pipe(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Opens a file for reading and says how long it is, so that no header has to be trusted. What comes through a pipe is put into a
/// file without a name first, so that it can be sought and mapped like any other.
///
/// # Errors
/// [`Error::Io`]; a folder is refused with [`Error::Format`]; as [`read_whole`].
pub fn open_with_length(path: &Path) -> Result<(fs::File, u64)> {
    if is_pipe(path) {
        let bytes = read_whole(path)?;
        let mut file = tempfile::tempfile().map_err(Error::read(path))?;
        file.write_all(&bytes).and_then(|()| file.rewind()).map_err(Error::read(path))?;
        return Ok((file, bytes.len() as u64));
    }
    let file = fs::File::open(path).map_err(Error::read(path))?;
    let metadata = file.metadata().map_err(Error::read(path))?;
    if metadata.is_dir() {
        return Err(Error::format(path, "expected a file, found a folder"));
    }
    Ok((file, metadata.len()))
}

/// Most bytes that are read from a pipe.
const MAX_PIPED: u64 = 1 << 32;

/// Reads a file whole, be it a regular one or a pipe such as `/dev/stdin` or a shell's `<(…)`.
///
/// A pipe gives its content once: it is kept for those who read the same path again.
///
/// # Errors
/// As [`open_with_length`]; a pipe of more than 4 GiB.
pub fn read_whole(path: &Path) -> Result<Vec<u8>> {
    static PIPED: Mutex<Vec<(PathBuf, Vec<u8>)>> = Mutex::new(Vec::new());
    let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    if !is_special {
        let (file, length) = open_with_length(path)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(Error::read(path))?;
        return Ok(bytes);
    }
    // Held while reading, so that two readers do not share out one content.
    let mut piped = PIPED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, bytes)) = piped.iter().find(|(known, _)| known == path) {
        return Ok(bytes.clone());
    }
    let file = fs::File::open(path).map_err(Error::read(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_PIPED + 1).read_to_end(&mut bytes).map_err(Error::read(path))?;
    if bytes.len() as u64 > MAX_PIPED {
        return Err(Error::format(path, format!("expected at most {MAX_PIPED} bytes from a pipe, found more")));
    }
    piped.push((path.into(), bytes.clone()));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_bytes(&path, b"old").unwrap();
        assert!(write_atomically(&path, |_| Err(Error::format(&path, "no"))).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_bytes(folder.path(), b"new").unwrap_err().to_string().contains("it is a folder"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_written_through() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("elsewhere")).unwrap();
        write_bytes(&path("elsewhere/file"), b"old").unwrap();
        // A chain of relative links, a link that points nowhere yet, and one to a folder.
        symlink("elsewhere/file", path("near")).unwrap();
        symlink("near", path("far")).unwrap();
        symlink("elsewhere/new", path("dangling")).unwrap();
        symlink("elsewhere", path("folder")).unwrap();
        for (name, file) in
            [("far", "elsewhere/file"), ("dangling", "elsewhere/new"), ("folder/more", "elsewhere/more")]
        {
            check_writable(&path(name)).unwrap();
            write_bytes(&path(name), name.as_bytes()).unwrap();
            assert_eq!(fs::read(path(file)).unwrap(), name.as_bytes());
        }
        for link in ["near", "far", "dangling", "folder"] {
            assert!(path(link).symlink_metadata().unwrap().is_symlink(), "{link}");
        }
        symlink("made", path("to-make")).unwrap();
        create_folder(&path("to-make")).unwrap();
        create_folder(&path("to-make/below")).unwrap();
        assert!(path("made/below").is_dir());
        symlink("round", path("round")).unwrap();
        for error in [write_bytes(&path("round"), b""), check_writable(&path("round"))] {
            assert!(error.unwrap_err().to_string().contains("too many symbolic links"));
        }
        symlink("/dev/null", path("nothing")).unwrap();
        check_writable(&path("nothing")).unwrap();
        write_bytes(&path("nothing"), b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(identity(&path("far")), identity(&path("elsewhere/file")));
        assert_eq!(identity(&path("missing")), None);
        fs::hard_link(path("elsewhere/file"), path("twin")).unwrap();
        assert_eq!(identity(&path("twin")), identity(&path("near")));
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        symlink(&path, folder.path().join("link")).unwrap();
        // What a plain create gives under the umask that the tests run with.
        fs::write(folder.path().join("plain"), "").unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("plain")));
        for kept in [0o600, 0o640, 0o666, 0o755] {
            fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
            write_bytes(&path, b"again").unwrap();
            assert_eq!(mode(&path), kept);
            write_bytes(&folder.path().join("link"), b"through the link").unwrap();
            assert_eq!(mode(&path), kept);
        }
        // Write protection holds, but for the administrator, for whom there is none.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        if fs::OpenOptions::new().append(true).open(&path).is_err() {
            assert!(check_writable(&path).unwrap_err().to_string().contains("file"));
            assert!(write_bytes(&path, b"refused").is_err());
        }
    }
}
