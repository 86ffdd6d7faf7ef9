//! The page about pursuits side by side.

use super::plot::{Line, Plot, Point, Scale};
use super::{Head, Origin, shown, write_page};
use crate::error::Result;
use crate::evaluate::comparison::{Measures, Row, Setting};
use crate::pursuit::Lambda;
use crate::text::counted;
use serde_json::{Value, json};
use std::path::Path;

/// What the page tells.
#[derive(Debug, Clone)]
pub struct PursuitComparison {
    /// Its beginning.
    pub head: Head,
    /// Every pursuit at its settings.
    pub rows: Vec<Row>,
    /// Every pursuit over a range of settings.
    pub curves: Vec<Vec<Row>>,
}

impl PursuitComparison {
    /// Writes the page: the table, curves of error, consistency and time against non-zeros, times, and the curves' numbers.
    ///
    /// # Errors
    /// A page that cannot be written.
    pub fn write(&self, path: &Path, origin: &Origin) -> Result<()> {
        let mut context = self.head.context("Pursuits compared", origin);
        context["curves"] = json!(self.plots());
        context["times"] = json!(times(&self.rows));
        if !self.curves.is_empty() {
            context["points"] = json!(points(&self.curves));
        }
        write_page(path, "comparison", &context)
    }

    fn plots(&self) -> Vec<Value> {
        let depth = self.curves.iter().flatten().map(|row| row.measures.nonzeros.len()).max().unwrap_or(0);
        let logarithmic = [Scale::Logarithmic; 2];
        let mut plots = vec![self.plot("error, ‖y − D^(L)γ_L‖", logarithmic, |measures| measures.residual)];
        for layer in 2..=depth {
            let title = format!("inconsistency, ‖γ_{} − D_{layer} γ_{layer}‖", layer - 1);
            let scales = [Scale::Logarithmic, Scale::Linear];
            plots.push(self.plot(&title, scales, |measures| measures.inconsistency[layer - 2]));
        }
        plots.push(self.plot("milliseconds a signal", logarithmic, milliseconds));
        plots.into_iter().flatten().collect()
    }

    /// Something of all curves against the non-zeros of the deepest codes.
    fn plot(&self, title: &str, scales: [Scale; 2], of: impl Fn(&Measures) -> f64) -> Option<Value> {
        let point = |row: &Row| Point { x: deepest(&row.measures), y: of(&row.measures), note: setting(&row.setting) };
        let line = |rows: &Vec<Row>| {
            Some(Line { name: rows.first()?.pursuit.to_string(), points: rows.iter().map(point).collect() })
        };
        let title = format!("{title}, against non-zeros of γ_L");
        Plot { title: &title, across: "non-zeros", scales }.draw(self.curves.iter().filter_map(line).collect())
    }
}

fn deepest(measures: &Measures) -> f64 {
    measures.nonzeros.last().copied().unwrap_or(0.0)
}

fn milliseconds(measures: &Measures) -> f64 {
    1e3 * measures.seconds / measures.signals.max(1) as f64
}

/// What a pursuit was told, in words.
fn setting(setting: &Setting) -> String {
    match setting {
        Setting::Nonzeros(nonzeros) => counted(*nonzeros, "non-zero"),
        Setting::Lambda(Lambda::Absolute(lambda)) => format!("λ = {lambda}"),
        Setting::Lambda(Lambda::Relative(part)) => format!("λ = {part} λ_max"),
        Setting::Lambda(Lambda::PerSignal(_)) => "λ of each signal".into(),
    }
}

fn texts<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// How long every pursuit took.
fn times(rows: &[Row]) -> Vec<Vec<String>> {
    let row = |row: &Row| {
        let measures = &row.measures;
        let per_signal = shown(milliseconds(measures));
        let rate = shown(measures.signals_per_second);
        vec![row.pursuit.to_string(), setting(&row.setting), shown(measures.seconds), per_signal, rate]
    };
    let heading = texts(["pursuit", "setting", "seconds", "ms a signal", "signals a second"]);
    std::iter::once(heading).chain(rows.iter().map(row)).collect()
}

/// The numbers of all curves.
fn points(curves: &[Vec<Row>]) -> Vec<Vec<String>> {
    let list = |values: &[f64]| values.iter().map(|value| shown(*value)).collect::<Vec<_>>().join(" ");
    let row = |row: &Row| {
        let measures = &row.measures;
        let mut cells = vec![row.pursuit.to_string(), setting(&row.setting), list(&measures.nonzeros)];
        cells.extend([measures.residual, measures.first_layer_residual].map(shown));
        cells.extend([list(&measures.inconsistency), shown(milliseconds(measures))]);
        cells
    };
    let heading = ["pursuit", "setting", "non-zeros", "‖y − Dγ_L‖", "‖y − D_1γ_1‖", "inconsistency", "ms a signal"];
    std::iter::once(texts(heading)).chain(curves.iter().flatten().map(row)).collect()
}
