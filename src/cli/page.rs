//! Pages about what commands found, and the folders that they are written into.

use super::DeviceArgs;
use super::inputs::Inputs;
use super::output::{self, shortened, shown};
use crate::error::{Error, Result};
use crate::export::report::{Origin, REPORT};
use crate::files;
use crate::learn::RunFolder;
use clap::Args;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where results go besides stdout.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// Folder for the results: as one JSON document, and as report.html, a page about them that needs nothing from elsewhere
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Write no report.html into --out; one of an earlier document there is removed
    #[arg(long, requires = "out")]
    pub no_report: bool,
}

impl FolderArgs {
    /// Refuses a folder that cannot be written, or in which a file of `inputs` would be written over, before anything is computed.
    ///
    /// # Errors
    /// [`Error::Parameter`] of `--out`; as [`files::check_writable_folder`].
    pub fn check(&self, inputs: &Inputs, document: &str) -> Result<()> {
        self.out.as_deref().map_or(Ok(()), |out| check_folder(out, inputs, document))
    }

    /// Writes the document and, unless it is not wanted, the page; what was written is put into the document, which is then what
    /// `--json` prints.
    ///
    /// # Errors
    /// Files that cannot be written; errors of `page`.
    pub fn write(&self, document: &mut Value, name: &str, page: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let report = (!self.no_report).then(|| out.join(REPORT));
        document["out"] = json!(shown(out));
        document["report"] = json!(report.as_deref().map(shown));
        shortened(document);
        // The document says that there is a page: the page comes first.
        report.as_deref().map_or(Ok(()), page)?;
        // A page beside an earlier document would be about something else than this one.
        let earlier = self.no_report && out.join(name).exists();
        files::write_bytes(&out.join(name), format!("{document:#}\n").as_bytes())?;
        match earlier.then(|| std::fs::remove_file(out.join(REPORT))) {
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(Error::write(&out.join(REPORT))(error)),
            _ => Ok(()),
        }
    }

    /// What was written, as a line; `None` where nothing was.
    pub fn written(&self, name: &str) -> Option<String> {
        let out = self.out.as_ref()?;
        let files = [Some(name), (!self.no_report).then_some(REPORT)];
        Some(written(&files.into_iter().flatten().map(|name| out.join(name)).collect::<Vec<_>>()))
    }
}

/// Refuses a folder for a page and another file that cannot be written, or in which a file of `inputs` would be written over.
///
/// # Errors
/// [`Error::Parameter`] of `--out`; as [`files::check_writable_folder`].
pub fn check_folder(out: &Path, inputs: &Inputs, other: &str) -> Result<()> {
    output::check_folder_name(out, "a folder, into which several files are written")?;
    if RunFolder::new(out).holds_run() {
        let expected = format!("a folder without a run in it, whose {REPORT} would be written over");
        return Err(Error::parameter("--out", out.display(), expected));
    }
    files::check_writable_folder(out)?;
    inputs.refuse_in("--out", out, [other, REPORT])?;
    let names = [other, REPORT].map(|name| out.join(name));
    names.iter().filter(|path| path.exists()).try_for_each(|path| files::check_writable(path))
}

/// Files that were written, as a line.
pub fn written(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("  written  {}", paths.join(", "))
}

/// How a page about a command's results came about.
pub fn origin(settings: Vec<(&str, String)>, seeds: Vec<(&str, u64)>, device: &DeviceArgs) -> Origin {
    Origin {
        commands: vec![("the same again".into(), command_line(std::env::args_os().skip(1)))],
        settings: named(settings),
        seeds: named(seeds),
        device: device.name(),
    }
}

/// The command that goes on with the run in a folder.
pub fn resume(folder: &Path) -> String {
    train(["--resume"], "--out", folder)
}

/// A command to train, the last flag being one that takes a path.
fn train<const N: usize>(flags: [&str; N], flag: &str, path: &Path) -> String {
    // A name that begins with a dash would be taken for a flag.
    let dash = path.as_os_str().to_string_lossy().starts_with('-');
    let mut words: Vec<OsString> = std::iter::once("train").chain(flags).map(Into::into).collect();
    if dash {
        words.push(format!("{flag}={}", path.display()).into());
    } else {
        words.extend([flag.into(), path.into()]);
    }
    command_line(words.into_iter())
}

/// How the page about the run in a folder came about.
pub fn origin_of_run(folder: &Path, seed: u64, data_seed: u64, device: String) -> Origin {
    let commands = vec![
        ("to go on", resume(folder)),
        ("from the beginning, with the epochs as they are now", train([], "--config", &folder.join("config.json"))),
    ];
    let seeds = named(vec![("of the run", seed), ("of the data", data_seed)]);
    Origin { commands: named(commands), settings: Vec::new(), seeds, device }
}

fn named<T>(rows: Vec<(&str, T)>) -> Vec<(String, T)> {
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The program's name and arguments as a shell takes them.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let words = arguments.map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once("mlcsc".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word in quotes where a shell would take it apart.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,+%@".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_together() {
        let words = ["diagnose", "--out", "two words", "it's", ""].map(Into::into);
        assert_eq!(command_line(words.into_iter()), r"mlcsc diagnose --out 'two words' 'it'\''s' ''");
    }

    #[test]
    fn a_run_can_be_made_again() {
        let origin = origin_of_run(Path::new("runs/a b"), 1, 2, "flex".into());
        assert_eq!(origin.commands[0].1, "mlcsc train --resume --out 'runs/a b'");
        assert_eq!(origin.seeds[1], ("of the data".to_owned(), 2));
        assert_eq!(resume(Path::new("-q")), "mlcsc train --resume --out=-q");
    }
}
