//! Writing files so that a kill, a full disk or a second reader never meets half a file.

use crate::error::{Error, Result};
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Beginning and end of the names of temporary files.
const PREFIX: &str = ".mlcsc-";
const SUFFIX: &str = ".part";

/// Removes the temporary files that a program left in a folder when it was killed. Nobody else may be writing there.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            // One that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file whole or not at all.
///
/// `fill` writes into a temporary file beside `path`, which is then flushed to disk and renamed over `path`; on any error
/// the temporary file is removed and an existing `path` stays as it was. Parent folders are created.
///
/// # Errors
/// [`Error::Io`] with `path`, whatever step failed; errors of `fill` pass through.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&fs::File>) -> Result<()>) -> Result<()> {
    let folder = parent(path);
    create_folder(folder)?;
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(PREFIX).suffix(SUFFIX);
    // The permissions that a plain create would give; the crate's own default is readable by the owner alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = temporary.tempfile_in(folder).map_err(Error::write(path))?;
    {
        let mut writer = BufWriter::new(temporary.as_file());
        fill(&mut writer)?;
        writer.flush().map_err(Error::write(path))?;
    }
    temporary.as_file().sync_all().map_err(Error::write(path))?;
    temporary.persist(path).map_err(|error| Error::Io { action: "write", path: path.into(), source: error.error })?;
    Ok(())
}

/// [`write_atomically`] for content that is already in memory.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |writer| writer.write_all(bytes).map_err(Error::write(path)))
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
    if path.is_dir() {
        return Err(Error::write(path)(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
    }
    check_parent(path, parent(path))
}

/// [`check_writable`] for a folder that files will be written into; it may or may not exist.
///
/// # Errors
/// As [`check_writable`].
pub fn check_writable_folder(folder: &Path) -> Result<()> {
    check_parent(folder, folder)
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
    fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create folder", path: folder.into(), source })
}

/// Opens a file for reading and says how long it is, so that no header has to be trusted.
///
/// # Errors
/// [`Error::Io`]; a folder is refused with [`Error::Format`].
pub fn open_with_length(path: &Path) -> Result<(fs::File, u64)> {
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
