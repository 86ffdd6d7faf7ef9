//! Pages about runs and about what commands found: every one is an HTML file that needs nothing from elsewhere.
//!
//! All pages are templates over one base, which has their looks, how they scroll, sort and print, and how they came about.

mod classification;
mod comparison;
mod diagnosis;
mod plot;
mod run;
mod sheet;

pub use classification::{Classification, Mistakes};
pub use comparison::PursuitComparison;
pub use diagnosis::{Diagnosed, Diagnosis};
#[cfg(feature = "train")]
pub use run::write_rival;
pub use run::{check, compare, write};

use crate::error::{Error, Result};
use crate::files;
use minijinja::{AutoEscape, Environment};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the page in a folder.
pub const REPORT: &str = "report.html";

/// The version that `Cargo.toml` pins.
const BURN: &str = "0.22.1";

/// Templates by their names.
const TEMPLATES: [(&str, &str); 6] = [
    ("base", include_str!("base.html")),
    ("parts", include_str!("parts.html")),
    ("run", include_str!("run.html")),
    ("diagnosis", include_str!("diagnosis.html")),
    ("comparison", include_str!("comparison.html")),
    ("classification", include_str!("classification.html")),
];

/// How a page came about, so that it can be made again.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Commands by what they do, as they are typed.
    pub commands: Vec<(String, String)>,
    /// What was asked for, by name.
    pub settings: Vec<(String, String)>,
    /// Seeds, by what they decide.
    pub seeds: Vec<(String, u64)>,
    /// Name of the device.
    pub device: String,
}

impl Origin {
    /// The rows of a page.
    fn rows(&self) -> Value {
        let seeds: Vec<String> = self.seeds.iter().map(|(name, seed)| format!("{name} {seed}")).collect();
        let device = if self.device.is_empty() { String::new() } else { format!(", device {}", self.device) };
        let versions = format!("mlcsc {}, burn {BURN}{device}", env!("CARGO_PKG_VERSION"));
        let mut rows = self.commands.clone();
        rows.extend((!seeds.is_empty()).then(|| ("seeds".into(), seeds.join(", "))));
        rows.push(("versions".into(), versions));
        pairs(&rows)
    }
}

/// What stands at the beginning of a page about what a command found.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Lines about what was done.
    pub lead: Vec<String>,
    /// What a reader must not overlook.
    pub warnings: Vec<String>,
    /// Results in rows, the first one being the heading.
    pub table: Vec<Vec<String>>,
}

impl Head {
    /// A page's context with nothing of its own yet.
    fn context(&self, title: &str, origin: &Origin) -> Value {
        json!({
            "title": format!("{title} – mlcsc"),
            "lead": self.lead,
            "warnings": self.warnings,
            "table": self.table,
            "sheets": [],
            "settings": pairs(&origin.settings),
            "reproduce": origin.rows(),
        })
    }
}

/// Names and values as templates take them.
fn pairs(rows: &[(String, String)]) -> Value {
    rows.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// Renders a template and writes the page whole or not at all.
fn write_page(path: &Path, template: &str, context: &Value) -> Result<()> {
    files::write_bytes(path, render(template, context)?.as_bytes())
}

fn render(template: &str, context: &Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let failed = |error: minijinja::Error| Error::format(Path::new(REPORT), error.to_string());
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(failed)?;
    }
    environment.get_template(template).and_then(|template| template.render(context)).map_err(failed)
}

/// Numbers as pages show them.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if value.fract() == 0.0 && size < 1e6 => format!("{value}"),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.3}"),
        size if size >= 1e-3 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_pinned_one() {
        assert!(include_str!("../../../Cargo.toml").contains(&format!("\"={BURN}\"")));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 12345.6, 0.25, -3.0, 1e-9].map(shown), ["0", "12346", "0.2500", "-3", "1.0e-9"]);
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let head = Head { lead: vec!["<b>&".into()], warnings: vec!["<i>".into()], table: vec![vec!["<u>".into()]] };
        let origin = Origin { commands: vec![("again".into(), "mlcsc '<script>'".into())], ..Origin::default() };
        let page = render("comparison", &head.context("<title>", &origin)).unwrap();
        for part in ["<b>", "<i>", "<u>", "'<script>'", "{{", "{%"] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("&lt;b&gt;&amp;") && page.contains("versions"));
    }
}
