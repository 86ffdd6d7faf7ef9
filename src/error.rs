//! The one error type of the library.
//!
//! Every variant says what was expected, what came, and which file, flag or parameter is meant, in one line.

use std::path::{Path, PathBuf};

/// Result of the library's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong through input from outside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter, flag or configuration field is outside its range.
    #[error("{parameter} {}: expected {expected}", said(value))]
    Parameter {
        /// Name of the parameter, flag or configuration field.
        parameter: String,
        /// The value that came; `given` where what came is no matter.
        value: String,
        /// The range or the set of values that would have been accepted.
        expected: String,
    },
    /// A parameter, flag or configuration field that is needed was not given.
    #[error("{parameter} is missing: expected {expected}")]
    Missing {
        /// Name of the parameter, flag or configuration field.
        parameter: String,
        /// What would have been accepted.
        expected: String,
    },
    /// Two things that must fit each other do not.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What has the wrong shape, with the file where there is one.
        what: String,
        /// The shape that would have fitted.
        expected: String,
        /// The shape that came.
        found: String,
    },
    /// The operating system refused to read or write a file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write", "create folder".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file's content is not what its format or its use demands.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// A data source that has to be downloaded could not be.
    #[error("{0}")]
    Download(String),
    /// The user ended the program before it was done.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// Another of the processes that share the work has failed, and says why.
    #[error("rank {rank} has failed")]
    Elsewhere {
        /// Its number, from 0.
        rank: usize,
        /// Whether the way the program was called is at fault.
        usage: bool,
    },
    /// A device that is unknown, not compiled in, or not usable on this machine.
    #[error("device {name:?}: {reason}")]
    Device {
        /// The name that was asked for.
        name: String,
        /// Why it cannot be had, and what can.
        reason: String,
    },
    /// A device that could not do what it was asked: for want of memory, or because it was lost. Functions that return no result end their
    /// thread instead.
    #[error("the device {device} failed: {reason}")]
    DeviceFailed {
        /// The device.
        device: String,
        /// What it says.
        reason: String,
    },
}

/// A value after its parameter's name.
fn said(value: &str) -> String {
    match value {
        "given" => "is given".into(),
        value => format!("= {value}"),
    }
}

impl Error {
    /// A [`Error::Parameter`].
    pub fn parameter(parameter: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Parameter { parameter: parameter.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A [`Error::Missing`].
    pub fn missing(parameter: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Missing { parameter: parameter.into(), expected: expected.into() }
    }

    /// Names a mistake of a part of a configuration by the key that it has in the whole: `epochs` of `learning` is `learning.epochs`.
    pub(crate) fn within(part: &str) -> impl FnOnce(Self) -> Self + '_ {
        move |error| match error {
            Self::Parameter { parameter, value, expected } => {
                Self::Parameter { parameter: format!("{part}.{parameter}"), value, expected }
            }
            other => other,
        }
    }

    /// A [`Error::Shape`].
    pub fn shape(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    /// A [`Error::Io`] for reading `path`; made to be used with `map_err`.
    pub fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "read", path: path.into(), source }
    }

    /// A [`Error::Io`] for writing `path`; made to be used with `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "write", path: path.into(), source }
    }

    /// A [`Error::Format`].
    pub fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.into(), reason: reason.into() }
    }

    /// Whether the way the program was called is at fault (exit code 2) rather than a file or the machine (exit code 1).
    pub fn is_usage(&self) -> bool {
        use Error::{Device, Elsewhere, Missing, Parameter};
        matches!(self, Parameter { .. } | Missing { .. } | Device { .. } | Elsewhere { usage: true, .. })
    }
}
