//! What goes to stdout and stderr.

use crate::error::{Error, Result};
use crate::learn::metrics::Kept;
pub use crate::text::{counted, grouped};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process has been told to be silent: of several that share the work one speaks.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Keeps this process from printing anything, or lets it speak again.
pub fn silence(silent: bool) {
    SILENT.store(silent, Ordering::Relaxed);
}

/// Whether this process is to print nothing.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Prints to stdout. A reader that closed its end of the pipe has read what it wanted: no error.
///
/// # Errors
/// A full disk behind stdout.
pub fn print(text: &str) -> Result<()> {
    if is_silent() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::write(Path::new("stdout"))(error)),
        _ => Ok(()),
    }
}

/// Prints one JSON document to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_json(document: &Value) -> Result<()> {
    let mut document = document.clone();
    note_device(&mut document);
    shortened(&mut document);
    print_json_exactly(&document)
}

/// The same of a document that is read again, whose numbers stay as they are.
///
/// # Errors
/// As [`print()`].
pub fn print_json_exactly(document: &Value) -> Result<()> {
    print(&format!("{document:#}"))
}

/// A path as documents have it: names need not be UTF-8, JSON's texts are.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Numbers in single precision with as many digits as tell them apart, in place of those that they have in double precision: 0.3, not
/// 0.30000001192092896.
pub fn shortened(document: &mut Value) {
    match document {
        Value::Array(values) => values.iter_mut().for_each(shortened),
        Value::Object(values) => values.values_mut().for_each(shortened),
        Value::Number(number) if number.is_f64() => {
            // Whole numbers have no digits to spare.
            let value = number.as_f64().filter(|value| value.fract() != 0.0);
            let single = value.map(|value| value as f32).filter(|single| Some(f64::from(*single)) == value);
            let shorter = single.and_then(|single| format!("{single:e}").parse().ok());
            if let Some(shorter) = shorter.and_then(serde_json::Number::from_f64) {
                *number = shorter;
            }
        }
        _ => {}
    }
}

/// Adds what a GPU did not do to a document, if there is something: work that was `left_to_host`, and the fewest `signals_at_a_time`.
pub fn note_device(document: &mut Value) {
    let Some(document) = document.as_object_mut() else { return };
    let left = crate::device::left_to_the_host();
    if !left.is_empty() {
        document.insert("left_to_host".into(), left.into());
    }
    if let Some(signals) = crate::device::fewest_at_a_time() {
        document.insert("signals_at_a_time".into(), signals.into());
    }
}

/// Prints a line to stderr; a failure of that is ignored.
pub fn complain(line: &str) {
    if !is_silent() {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// A heading with aligned pairs of names and values below it.
#[derive(Debug, Default)]
pub struct Summary {
    heading: String,
    rows: Vec<(String, String)>,
}

impl Summary {
    /// With that heading.
    pub fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), rows: Vec::new() }
    }

    /// Adds a line.
    pub fn row(&mut self, name: impl Into<String>, value: impl ToString) -> &mut Self {
        self.rows.push((name.into(), value.to_string()));
        self
    }

    /// The text, without a line break at its end.
    pub fn text(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        self.rows.iter().fold(self.heading.clone(), |mut text, (name, value)| {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n  {name:<width$}  {value}");
            text
        })
    }
}

/// Rows of cells as aligned columns, the first row being the heading; numbers and their headings to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = (0..columns).map(|column| {
            let (cell, width) = (cell(row, column), widths[column]);
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A number with four significant digits, in powers of ten where that is shorter.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e5).contains(&magnitude) {
        format!("{value:.2e}")
    } else {
        let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// A number as `format` writes it, or a dash where it is undefined.
pub fn or_dash(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or("–".into(), format)
}

/// Decibels below a peak of 1, which pictures and recordings have; values of vectors have no such peak.
pub fn decibels(psnr: Option<f64>) -> String {
    or_dash(psnr, |psnr| format!("{psnr:.2} dB"))
}

/// [`decibels`] with the space that follows on a line; nothing of vectors.
pub fn spaced_decibels(psnr: Option<f64>) -> String {
    psnr.map_or(String::new(), |psnr| format!("{}  ", decibels(Some(psnr))))
}

/// A fraction of variance unexplained in per cent.
pub fn unexplained(fraction: Option<f64>) -> String {
    or_dash(fraction, |fraction| format!("{}%", number(100.0 * fraction)))
}

/// What is said of values beyond those that a picture's file holds; of none nothing.
pub fn clipped(clipped: usize, values: usize) -> Option<String> {
    let of = || format!("{} of {} are not from 0 to 1", grouped(clipped as u64), counted(values, "value"));
    (clipped > 0).then(of)
}

/// Which state of a run of so many epochs is kept, and why; `start` is the held-out loss before the first epoch.
pub fn kept(kept: &Kept, epochs: usize, start: Option<f64>) -> String {
    let loss = number(kept.loss);
    match (kept.epoch, start) {
        (0, _) => format!("the start: no epoch had a lower held-out loss than {loss}"),
        (epoch, _) if !kept.admissible => {
            format!("epoch {epoch} of {epochs}, the last one: none is yet what the schedule ends with")
        }
        (epoch, Some(start)) => {
            format!("epoch {epoch} of {epochs}, of the lowest held-out loss: {loss}, at the start {}", number(start))
        }
        (epoch, None) => format!("epoch {epoch} of {epochs}, of the lowest held-out loss: {loss}"),
    }
}

/// Endings of files. No folder is to be called so.
const FILES: [&str; 36] = [
    "png",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "tif",
    "tiff",
    "bmp",
    "webp",
    "gif",
    "pgm",
    "ppm",
    "pnm",
    "pbm",
    "pam",
    "svg",
    "flac",
    "mp3",
    "ogg",
    "m4a",
    "aif",
    "aiff",
    "jp2",
    "avif",
    "heic",
    "npy",
    "npz",
    "safetensors",
    "mat",
    "h5",
    "pt",
    "pkl",
    "json",
    "csv",
    "txt",
    "pdf",
];

/// Refuses a path for a folder that is called like a file, unless it is a folder; `expected` says what would be taken.
///
/// # Errors
/// [`Error::Parameter`] of `--out`.
pub fn check_folder_name(out: &Path, expected: &str) -> Result<()> {
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match FILES.contains(&ending.as_str()) && !out.is_dir() {
        true => Err(Error::parameter("--out", out.display(), expected)),
        false => Ok(()),
    }
}

/// How many numbers came by a flag, as an error of the library counts them.
pub fn numbers(found: &str) -> String {
    found.parse().map_or_else(|_| format!("{found} numbers"), |count| counted(count, "number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_single_precision_have_their_own_digits() {
        let mut document = serde_json::json!({
            "single": [0.3f32, 1e-4f32, -2.5e-8f32, f32::MAX, 0.0f32],
            "double": [0.1f64 + 0.2, 1.0 / 3.0, 1_099_511_627_776.0f64],
            "whole": [7, -1],
            "none": null,
        });
        shortened(&mut document);
        let text = document.to_string();
        for part in [
            "[0.3,0.0001,-2.5e-8,3.4028234663852886e+38,0.0]",
            "[0.30000000000000004,0.3333333333333333,1099511627776.0]",
            "[7,-1]",
            "null",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1.0, 0.1, 12.3456, 1234.56, 99_999.0, 123_456.0, 1e-5, -0.25].map(number);
        assert_eq!(texts, ["0", "1", "0.1", "12.35", "1235", "99999", "1.23e5", "1.00e-5", "-0.25"]);
    }

    #[test]
    fn columns_line_up() {
        let mut summary = Summary::new("heading");
        summary.row("a", 1).row("λ of it", "x");
        assert_eq!(summary.text(), "heading\n  a        1\n  λ of it  x");
        let rows = [vec!["layer".into(), "μ".into()], vec!["1".into(), "0.25".into()]];
        assert_eq!(table(&rows), "  layer     μ\n  1      0.25");
    }
}
