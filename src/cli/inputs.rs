//! The files that a command reads, so that it never writes over them.

use crate::data::files_read;
use crate::error::{Error, Result};
use crate::files::{self, Identity};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Endings of files that are never signals of a folder, be they there: what the program itself writes beside pictures.
const NO_SIGNALS: [&str; 7] = ["npz", "npy", "safetensors", "svg", "json", "jsonl", "html"];

/// Files and folders that a command reads, known by what they are and not by what they are called: links, relative paths and hard
/// links lead to the same file.
#[derive(Debug, Default)]
pub struct Inputs(HashMap<Identity, (&'static str, PathBuf)>);

impl Inputs {
    /// Of a model file; of a run's folder its model.
    pub fn of_model(path: &Path) -> Self {
        let mut inputs = Self::default();
        inputs.add("--model", path);
        inputs.add("--model", &path.join("model.safetensors"));
        inputs
    }

    /// And the file that a flag names, if it was given.
    #[must_use]
    pub fn and<'a>(mut self, flag: &'static str, path: impl Into<Option<&'a Path>>) -> Self {
        if let Some(path) = path.into() {
            self.add(flag, path);
        }
        self
    }

    /// And the source of signals: a file, or a folder with the files in it and those that are read in its subfolders.
    #[must_use]
    pub fn and_data(mut self, source: Option<&str>) -> Self {
        let Some(source) = source.filter(|source| !["digits", "mnist"].contains(source)) else { return self };
        self.add("--data", Path::new(source));
        for entry in std::fs::read_dir(source).into_iter().flatten().flatten() {
            let path = entry.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if !NO_SIGNALS.contains(&ending) {
                self.add("--data", &path);
            }
        }
        let below = files_read(Path::new(source)).into_iter().filter(|path| path.parent() != Some(Path::new(source)));
        below.for_each(|path| self.add("--data", &path));
        self
    }

    /// What is not there is not written over; that it is missing is reported elsewhere.
    fn add(&mut self, flag: &'static str, path: &Path) {
        if let Some(identity) = files::identity(path) {
            self.0.entry(identity).or_insert_with(|| (flag, path.into()));
        }
    }

    /// Refuses an output that is one of these.
    ///
    /// # Errors
    /// [`Error::Parameter`] that names both.
    pub fn refuse(&self, flag: &str, out: &Path) -> Result<()> {
        match files::identity(out).and_then(|identity| self.0.get(&identity)) {
            None => Ok(()),
            Some((read_by, path)) => {
                let expected = format!("a place other than {}, which {read_by} reads", path.display());
                Err(Error::parameter(flag, out.display(), expected))
            }
        }
    }

    /// Refuses a folder into which files of these names will be written, if one of them is one of these.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub fn refuse_in(
        &self,
        flag: &str,
        folder: &Path,
        names: impl IntoIterator<Item = impl AsRef<Path>>,
    ) -> Result<()> {
        if !folder.exists() {
            return Ok(());
        }
        names.into_iter().try_for_each(|name| self.refuse(flag, &folder.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_same_file_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "model.safetensors",
            "other.npz",
            "pictures/a.png",
            "pictures/codes.npz",
            "parts/test/cat/1.png",
            "parts/train/cat/1.png",
            "parts/README.txt",
        ] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), name).unwrap();
        }
        let data = path("pictures");
        let inputs = Inputs::of_model(&path("model.safetensors"))
            .and("--lambda-file", path("missing.npy").as_path())
            .and_data(data.to_str());
        let refused = |name: &str| inputs.refuse("--out", &path(name)).map_err(|error| error.to_string());
        for (name, flag) in [
            ("model.safetensors", "--model"),
            ("pictures/../model.safetensors", "--model"),
            ("pictures/a.png", "--data"),
            ("pictures", "--data"),
            ("./pictures/.", "--data"),
        ] {
            let message = refused(name).unwrap_err();
            assert!(message.starts_with("--out = ") && message.contains(flag) && message.contains(name), "{message}");
        }
        for name in ["other.npz", "new.npz", "pictures/codes.npz", "pictures/b.png", "missing.npy", "digits"] {
            refused(name).unwrap();
        }
        assert!(inputs.refuse_in("--out", folder.path(), ["new", "model.safetensors"]).is_err());
        assert!(inputs.refuse_in("--out", &data, ["model.safetensors"]).is_ok());
        let in_parts = Inputs::default().and_data(path("parts").to_str());
        assert!(in_parts.refuse("--out", &path("parts/test/cat/1.png")).is_err());
        // A run's folder stands for its model.
        assert!(Inputs::of_model(folder.path()).refuse("--out", &path("model.safetensors")).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("model.safetensors", path("link.npz")).unwrap();
            fs::hard_link(path("pictures/a.png"), path("twin.png")).unwrap();
            assert!(refused("link.npz").unwrap_err().contains("--model"));
            assert!(refused("twin.png").unwrap_err().contains("--data"));
        }
        assert!(Inputs::default().and_data(Some("digits")).0.is_empty());
    }
}
