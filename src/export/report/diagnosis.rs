//! The page about models diagnosed side by side.

use super::plot::{Line, Plot, Scale, bars};
use super::sheet::{Gallery, Quantity, SHOWN, Sheet, Sheets, are_bounded, can_be_drawn};
use super::{Head, Origin, shown, write_page};
use crate::autoencoder::diagnostics::DENSITY_BINS;
use crate::autoencoder::{Diagnostics, Examination};
use crate::error::Result;
use burn::tensor::Tensor;
use serde_json::{Value, json};
use std::path::Path;

/// Names of the bins of [`Diagnostics::density`].
const BINS: [&str; DENSITY_BINS] = ["< 1e-5", "to 1e-4", "to 1e-3", "to 0.01", "to 0.1", "to 1"];

/// A model that was diagnosed.
#[derive(Debug, Clone)]
pub struct Diagnosed {
    /// What it is called.
    pub name: String,
    /// What was found.
    pub diagnostics: Diagnostics,
    /// Of every unit the part of all positions of all signals at which it is not zero.
    pub densities: Vec<f64>,
    /// `[units, channels, height, width]`.
    pub atoms: Tensor<4>,
    /// What its encoder leaves on the table, where it has one.
    pub examination: Option<Examination>,
    /// What it makes of [`Diagnosis::signals`], in their order.
    pub reconstructions: Tensor<4>,
}

/// What the page tells.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// Its beginning.
    pub head: Head,
    /// The models, in the order of the table.
    pub models: Vec<Diagnosed>,
    /// The first of the signals, `[n, channels, height, width]`.
    pub signals: Tensor<4>,
    /// What was found of encoders beside pursuits, in rows, the first one being the heading.
    pub examined: Vec<Vec<String>>,
}

impl Diagnosis {
    /// Writes the page: the table, units by density, signals beside their reconstructions, and atoms where they are pictures.
    ///
    /// # Errors
    /// A page that cannot be written.
    pub fn write(&self, path: &Path, origin: &Origin) -> Result<()> {
        let mut sheets = Sheets::default();
        let mut context = self.head.context("Models diagnosed", origin);
        context["several"] = json!(self.models.len() > 1);
        let pictures = can_be_drawn(self.signals.dims());
        if pictures {
            context["examples"] = examples(&mut sheets, &self.signals, &self.signals, "signal")?;
        }
        let models = self.models.iter().enumerate().map(|(index, model)| {
            let mut found = model.context(index, &mut sheets)?;
            if pictures {
                found["examples"] = examples(&mut sheets, &self.signals, &model.reconstructions, "reconstruction")?;
            }
            Ok(found)
        });
        context["models"] = json!(models.collect::<Result<Vec<Value>>>()?);
        context["sheets"] = json!(sheets.0);
        if self.examined.len() > 1 {
            context["examined"] = json!(self.examined);
            let plots = self.models.iter().filter_map(Diagnosed::plot);
            context["tradeoffs"] = plots.collect();
        }
        write_page(path, "diagnosis", &context)
    }
}

impl Diagnosed {
    /// FVU against non-zeros.
    fn plot(&self) -> Option<Value> {
        let found = self.examination.as_ref()?;
        let lines = found.tradeoffs.iter();
        let lines = lines.map(|tradeoff| Line::new(tradeoff.name.clone(), tradeoff.points.clone()));
        Plot {
            title: &format!("FVU of {}", found.title(&self.name)),
            across: "non-zeros",
            scales: [Scale::Logarithmic; 2],
        }
        .draw(lines.collect())
    }

    fn context(&self, index: usize, sheets: &mut Sheets) -> Result<Value> {
        let counts: Vec<_> = BINS.iter().map(ToString::to_string).zip(self.diagnostics.density).collect();
        let mut context = json!({ "name": self.name, "density": bars(&counts) });
        if can_be_drawn(self.atoms.dims()) {
            let sheet = sheets.add(Gallery::sheet(&self.atoms)?);
            context["gallery"] = self.gallery(index).draw(sheets, sheet);
        } else {
            let [count, channels, height, width] = self.atoms.dims();
            context["no_gallery"] = json!(format!("{count} atoms of {channels}×{height}×{width}: no pictures."));
        }
        Ok(context)
    }

    fn gallery(&self, index: usize) -> Gallery<'_> {
        let density = Quantity {
            name: "density",
            values: self.densities.clone(),
            said: |density| format!("density {}", shown(density)),
        };
        Gallery {
            id: format!("atoms-{}", index + 1),
            heading: format!("Atoms of {}", self.name),
            atoms: &self.atoms,
            quantities: vec![density],
        }
    }
}

/// Tiles of the images that are shown; values are scaled as those of the signals are.
fn examples(sheets: &mut Sheets, signals: &Tensor<4>, images: &Tensor<4>, what: &str) -> Result<Value> {
    let count = SHOWN.min(images.dims()[0]);
    let images = images.clone().narrow(0, 0, count);
    let sheet = sheets.add(Sheet::new(images, are_bounded(signals))?);
    Ok((0..count).map(|index| sheets.tile(sheet, index, format!("{what} {}", index + 1))).collect())
}
