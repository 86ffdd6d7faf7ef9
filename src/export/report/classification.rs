//! The page about what codes say about classes.

use super::plot::{Line, Plot, Point, Scale, plain};
use super::sheet::{Sheet, Sheets, are_bounded, can_be_drawn};
use super::{Head, Origin, write_page};
use crate::classify::{Confusion, Evaluation};
use crate::error::Result;
use crate::text::counted;
use burn::tensor::Tensor;
use serde_json::{Value, json};
use std::path::Path;

/// Darkest shade of a cell: text stays readable on it.
const DARKEST: f64 = 0.65;

/// Signals that were given a wrong class.
#[derive(Debug, Clone)]
pub struct Mistakes {
    /// Some of them, `[n, channels, height, width]`.
    pub signals: Tensor<4>,
    /// What is said of each.
    pub texts: Vec<String>,
    /// How many there are in all.
    pub of: usize,
}

impl Mistakes {
    /// Most that a page shows.
    pub const SHOWN: usize = 40;
}

/// What the page tells.
#[derive(Debug, Clone)]
pub struct Classification<'a> {
    /// Its beginning.
    pub head: Head,
    /// With all labels first, then with fewer.
    pub evaluations: &'a [Evaluation],
    /// What the classes are called, in the order of the confusion matrix.
    pub class_names: &'a [String],
    /// Mistakes of the first evaluation, if there are any.
    pub mistakes: Option<Mistakes>,
}

impl Classification<'_> {
    /// Writes the page: the table, the confusion matrix, mistakes where signals are pictures, penalties and their errors.
    ///
    /// # Errors
    /// A page that cannot be written.
    pub fn write(&self, path: &Path, origin: &Origin) -> Result<()> {
        let mut context = self.head.context("Codes classified", origin);
        if let Some(evaluation) = self.evaluations.first() {
            context["labels"] = json!(self.class_names);
            context["confusion"] = confusion(&evaluation.confusion, self.class_names);
        }
        if let Some(mistakes) = self.mistakes.as_ref().filter(|mistakes| can_be_drawn(mistakes.signals.dims())) {
            let mut sheets = Sheets::default();
            context["mistakes"] = mistakes.draw(&mut sheets)?;
            let [count, ..] = mistakes.signals.dims();
            context["mistakes_text"] = json!(format!(
                "The first {count} of {}: number of the test signal, its class, the class that it was given.",
                counted(mistakes.of, "mistake")
            ));
            context["sheets"] = json!(sheets.0);
        }
        context["curves"] = json!(self.curve().into_iter().collect::<Vec<_>>());
        context["fits"] = self.evaluations.iter().map(fit).collect();
        write_page(path, "classification", &context)
    }

    /// Held-out error against the penalty.
    fn curve(&self) -> Option<Value> {
        let line = |evaluation: &Evaluation| {
            let mut points: Vec<Point> = evaluation
                .candidates
                .iter()
                .map(|candidate| Point {
                    x: candidate.penalty,
                    y: 100.0 * candidate.error,
                    note: if candidate.penalty == evaluation.penalty { "chosen".into() } else { String::new() },
                })
                .collect();
            points.sort_by(|left, right| left.x.total_cmp(&right.x));
            Line { name: counted(evaluation.labels, "label"), points }
        };
        let scales = [Scale::Logarithmic, Scale::Linear];
        let plot = Plot { title: "held-out error in per cent, against the penalty", across: "penalty", scales };
        plot.draw(self.evaluations.iter().map(line).collect())
    }
}

impl Mistakes {
    fn draw(&self, sheets: &mut Sheets) -> Result<Value> {
        let sheet = sheets.add(Sheet::new(self.signals.clone(), are_bounded(&self.signals))?);
        let tile =
            |(index, text): (usize, &String)| json!({ "tile": sheets.tile(sheet, index, text.clone()), "text": text });
        Ok(self.texts.iter().enumerate().map(tile).collect())
    }
}

/// The matrix with a shade for every cell, and the name of every class.
fn confusion(found: &Confusion, class_names: &[String]) -> Value {
    let wrong = |row: usize| found.counts[row].iter().enumerate().filter(move |(column, _)| *column != row);
    let most_wrong = (0..found.counts.len()).flat_map(wrong).map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let row = |(row, label): (usize, &String)| {
        let total: usize = found.counts[row].iter().sum();
        let cell = |(column, &count): (usize, &usize)| {
            let (kind, of) = if column == row { ("right", total.max(1)) } else { ("wrong", most_wrong) };
            json!({
                "count": count,
                "kind": kind,
                "shade": format!("{:.2}", DARKEST * count as f64 / of as f64),
                "title": format!("{count} of {total} of class {label} were given {}", class_names[column]),
            })
        };
        let errors: usize = wrong(row).map(|(_, count)| count).sum();
        json!({
            "label": label,
            "cells": found.counts[row].iter().enumerate().map(cell).collect::<Value>(),
            "error": format!("{:.1}%", 100.0 * errors as f64 / total.max(1) as f64),
        })
    };
    class_names.iter().enumerate().map(row).collect()
}

/// The penalties that were tried with so many labels.
fn fit(evaluation: &Evaluation) -> Value {
    let row = |candidate: &crate::classify::Candidate| {
        let chosen = if candidate.penalty == evaluation.penalty { "chosen" } else { "" };
        let error = format!("{:.2}%", 100.0 * candidate.error);
        vec![plain(candidate.penalty), error, candidate.iterations.to_string(), chosen.to_owned()]
    };
    let heading = ["penalty", "held-out error", "iterations", ""].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(evaluation.candidates.iter().map(row)).collect();
    json!({ "name": format!("With {}", counted(evaluation.labels, "label")), "rows": rows })
}
