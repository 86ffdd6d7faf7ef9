//! Settings in a file of others: every one is taken, known to be harmless, or refused.

use crate::error::{Error, Result};
use crate::files;
use crate::text::beginning;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The fields of a JSON object that were not taken yet.
pub(super) struct Settings {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Settings {
    /// Reads an object.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_whole(path)?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(fields)) => Ok(Self { path: path.into(), fields }),
            Ok(other) => {
                Err(Error::format(path, format!("expected a JSON object of settings, found {}", shown(&other))))
            }
            Err(error) if text.is_empty() => {
                Err(Error::format(path, format!("expected JSON settings, found nothing ({error})")))
            }
            Err(error) => {
                let reason = format!("expected JSON settings, found {} ({error})", beginning(&text));
                Err(Error::format(path, reason))
            }
        }
    }

    /// Takes a field of another name, where this one is not there.
    pub fn rename(&mut self, old: &str, new: &str) {
        if let Some(value) = self.fields.remove(old) {
            self.fields.entry(new).or_insert(value);
        }
    }

    /// Takes a field; `null` is none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// A field of the object `metadata`, which stays.
    pub fn metadata(&self, name: &str) -> Option<Value> {
        self.fields.get("metadata")?.get(name).cloned()
    }

    /// The fields of an object, which stays; none where it is something else.
    pub fn object(&self, name: &str) -> Map<String, Value> {
        self.fields.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// Takes a name.
    ///
    /// # Errors
    /// Something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.refuse(name, &other, "a name")),
        }
    }

    /// Takes a switch.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(other) => Err(self.refuse(name, &other, "true or false")),
        }
    }

    /// Takes a number of things, be it written as 32 or 32.0.
    ///
    /// # Errors
    /// Something else.
    pub fn count(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number))
                .map(|number| number as u64)
        });
        match whole.and_then(|number| usize::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(name, &value, "a whole number")),
        }
    }

    /// Takes a number.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(name, &value, "a number")),
        }
    }

    /// What stands there and cannot be.
    pub fn refuse(&self, name: &str, found: &Value, expected: &str) -> Error {
        self.wrong(name, shown(found), expected)
    }

    /// The same with what stands there in words.
    pub fn wrong(&self, name: &str, found: impl std::fmt::Display, expected: &str) -> Error {
        Error::format(&self.path, format!("`{name}` = {found}: expected {expected}"))
    }

    /// A field that is needed and not there.
    pub fn missing(&self, name: &str, expected: &str) -> Error {
        Error::format(&self.path, format!("`{name}` is missing: expected {expected}"))
    }

    /// Names a mistake by its file.
    pub fn named(&self, error: Error) -> Error {
        match error {
            Error::Parameter { parameter, value, expected } => self.wrong(&parameter, value, &expected),
            other => other,
        }
    }

    /// Refuses what was not taken, unless it changes no numbers.
    ///
    /// # Errors
    /// The first field of an unknown name.
    pub fn finish(self, harmless: &[&str]) -> Result<()> {
        match self.fields.iter().find(|(name, value)| !harmless.contains(&name.as_str()) && !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => {
                let expected = "no setting of that name, which may change the codes";
                Err(self.refuse(name, value, expected))
            }
        }
    }
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
