//! Pictures on a page: many tiles on one sheet, which is in the page itself.

use super::{REPORT, shown};
use crate::error::{Error, Result};
use crate::export::mosaic::{are_curves, curves, dims_of_curves};
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use base64::Engine;
use burn::tensor::Tensor;
use image::{ImageFormat, RgbImage};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::Cursor;
use std::path::Path;

/// Atoms of one dictionary that are shown, at most, and samples that they have together.
const ATOMS: usize = 2048;
const SAMPLES: usize = 1 << 22;

/// Pixels that a tile has at most on the page, where its samples are few.
const TILE: usize = 56;

/// Signals that are shown.
pub(super) const SHOWN: usize = 8;

/// Tiles on one picture.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sheet {
    width: usize,
    height: usize,
    sheet_width: usize,
    sheet_height: usize,
    png: String,
    #[serde(skip)]
    columns: usize,
}

impl Sheet {
    /// Every image scaled by its own largest magnitude with mid-grey for 0, or, where values are `bounded`, from [0, 1]; those of one row
    /// as curves.
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]`.
    pub fn new(images: Tensor<4>, bounded: bool) -> Result<Self> {
        if are_curves(images.dims()) {
            return Self::new(curves(images, None), false);
        }
        let [count, channels, height, width] = images.dims();
        let values = to_host(images);
        // Three channels are colours; any other number lie side by side.
        let [across, colours] = if channels == 3 { [width, 3] } else { [width * channels, 1] };
        let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
        let mut picture = RgbImage::new((columns * across) as u32, (count.div_ceil(columns) * height).max(1) as u32);
        for (index, image) in values.chunks_exact(channels * height * width).enumerate() {
            let largest = image.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let byte = |value: f32| {
                let part = match (bounded, largest > 0.0) {
                    (true, _) => value,
                    (false, true) => 0.5 + 0.5 * value / largest,
                    (false, false) => 0.5,
                };
                (255.0 * part.clamp(0.0, 1.0)).round() as u8
            };
            let [left, top] = [index % columns * across, index / columns * height];
            for row in 0..height {
                for column in 0..across {
                    let at = |colour: usize| {
                        let (channel, column) =
                            if colours == 3 { (colour, column) } else { (column / width, column % width) };
                        byte(image[(channel * height + row) * width + column])
                    };
                    let pixel = if colours == 3 { [at(0), at(1), at(2)] } else { [at(0); 3] };
                    picture.put_pixel((left + column) as u32, (top + row) as u32, image::Rgb(pixel));
                }
            }
        }
        let mut png = Cursor::new(Vec::new());
        let (wide, tall) = picture.dimensions();
        let picture = image::DynamicImage::from(picture);
        let picture = if colours == 3 { picture } else { picture.to_luma8().into() };
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::format(Path::new(REPORT), error.to_string()))?;
        let zoom = (TILE / height.max(across)).max(1);
        Ok(Self {
            width: zoom * across,
            height: zoom * height,
            sheet_width: zoom * wide as usize,
            sheet_height: zoom * tall as usize,
            png: base64::engine::general_purpose::STANDARD.encode(png.into_inner()),
            columns,
        })
    }

    /// Signals, and what was made of them: as they are where all values of the signals lie in [0, 1], else each scaled by itself; those of
    /// one row as curves on the signal's scale.
    ///
    /// # Shapes
    /// - signals, made: `[n, channels, height, width]`.
    pub fn of_pair(signals: Tensor<4>, made: Tensor<4>) -> Result<[Self; 2]> {
        if are_curves(signals.dims()) {
            let made = curves(made, Some(&signals));
            return Ok([Self::new(curves(signals, None), false)?, Self::new(made, false)?]);
        }
        let bounded = are_bounded(&signals);
        Ok([Self::new(signals, bounded)?, Self::new(made, bounded)?])
    }

    /// Where a tile lies.
    pub fn place(&self, index: usize) -> [usize; 2] {
        [index % self.columns * self.width, index / self.columns * self.height]
    }
}

/// The sheets of a page.
#[derive(Default)]
pub(super) struct Sheets(pub Vec<Sheet>);

impl Sheets {
    pub fn add(&mut self, sheet: Sheet) -> usize {
        self.0.push(sheet);
        self.0.len() - 1
    }

    pub fn tile(&self, sheet: usize, index: usize, title: String) -> Value {
        let [x, y] = self.0[sheet].place(index);
        json!({ "sheet": sheet, "x": x, "y": y, "title": title })
    }
}

/// How the atoms of one layer are used by some codes.
pub(super) struct Usage {
    /// Part of the signals that use it.
    pub share: Vec<f64>,
    /// Mean energy of its coefficients a signal.
    pub energy: Vec<f64>,
}

impl Usage {
    pub fn of(codes: &Tensor<4>) -> Self {
        let [count, atoms, height, width] = codes.dims();
        let values = to_host(codes.clone());
        let (mut share, mut energy) = (vec![0.0; atoms], vec![0.0; atoms]);
        for signal in values.chunks_exact(atoms * height * width) {
            for (atom, map) in signal.chunks_exact(height * width).enumerate() {
                share[atom] += if map.iter().any(|value| *value != 0.0) { 1.0 } else { 0.0 };
                energy[atom] += map.iter().map(|value| f64::from(value * value)).sum::<f64>();
            }
        }
        share.iter_mut().chain(&mut energy).for_each(|value| *value /= count.max(1) as f64);
        Self { share, energy }
    }
}

/// How many atoms of these shapes are shown: no more than a page can hold.
///
/// # Shapes
/// - dims: `[atoms, channels, height, width]`.
pub(super) fn shown_of(dims: [usize; 4]) -> usize {
    let [count, channels, height, width] = if are_curves(dims) { dims_of_curves(dims) } else { dims };
    count.min(ATOMS).min((SAMPLES / (channels * height * width).max(1)).max(1))
}

/// Whether all values lie in [0, 1].
pub(super) fn are_bounded(signals: &Tensor<4>) -> bool {
    to_host(signals.clone()).iter().all(|value| (0.0..=1.0).contains(value))
}

/// Whether atoms or signals can be looked at: as pictures or as curves.
pub(super) fn can_be_drawn(dims: [usize; 4]) -> bool {
    let [_, _, height, width] = dims;
    height.min(width) > 1 || are_curves(dims)
}

/// Something that is known of every atom: by what name atoms are sorted by it, and its values.
pub(super) struct Quantity {
    pub name: &'static str,
    pub values: Vec<f64>,
    /// A value in words.
    pub said: fn(f64) -> String,
}

/// Atoms on a sheet to look at and to sort.
pub(super) struct Gallery<'a> {
    /// Its name among all of a page.
    pub id: String,
    pub heading: String,
    pub atoms: &'a Tensor<4>,
    pub quantities: Vec<Quantity>,
}

impl Gallery<'_> {
    /// The sheet of some atoms, those that are shown.
    pub fn sheet(atoms: &Tensor<4>) -> Result<Sheet> {
        Sheet::new(atoms.clone().narrow(0, 0, shown_of(atoms.dims())), false)
    }

    /// What a page is told of it.
    pub fn draw(self, sheets: &Sheets, sheet: usize) -> Value {
        let [count, channels, height, width] = self.atoms.dims();
        let shown_atoms = shown_of(self.atoms.dims());
        let mut quantities = self.quantities;
        quantities.push(Quantity {
            name: "coherence",
            values: coherences(self.atoms),
            said: |value| format!("coherence {value:.2}"),
        });
        let tile = |atom: usize| {
            let [x, y] = sheets.0[sheet].place(atom);
            let said: Vec<String> = quantities.iter().map(|quantity| (quantity.said)(quantity.values[atom])).collect();
            let mut sorts = Map::from_iter([("number".to_owned(), json!(atom))]);
            sorts.extend(quantities.iter().map(|quantity| (quantity.name.to_owned(), json!(quantity.values[atom]))));
            json!({ "x": x, "y": y, "sorts": sorts, "title": format!("atom {}: {}", atom + 1, said.join(", ")) })
        };
        let more = if count > shown_atoms { format!(", the first {shown_atoms} of them") } else { String::new() };
        json!({
            "id": self.id,
            "heading": self.heading,
            "sheet": sheet,
            "text": format!(
                "{count} atoms of {channels}×{height}×{width}{more}, counted from 1, each {}.",
                if are_curves(self.atoms.dims()) { "a curve on its own scale" } else { "scaled by itself, grey for 0" },
            ),
            "keys": std::iter::once("number").chain(quantities.iter().map(|quantity| quantity.name)).collect::<Vec<_>>(),
            "atoms": (0..shown_atoms).map(tile).collect::<Value>(),
        })
    }
}

/// How atoms are used, as quantities to sort them by.
impl From<Usage> for Vec<Quantity> {
    fn from(usage: Usage) -> Self {
        vec![
            Quantity {
                name: "use",
                values: usage.share,
                said: |share| format!("used by {:.1}% of the signals", 100.0 * share),
            },
            Quantity { name: "energy", values: usage.energy, said: |energy| format!("energy {}", shown(energy)) },
        ]
    }
}

/// Of every atom that is shown the largest correlation with another of its layer, both where they lie.
fn coherences(atoms: &Tensor<4>) -> Vec<f64> {
    let [count, ..] = atoms.dims();
    let rows = atoms.clone().reshape([count as i32, -1]);
    let norms = rows.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
    let rows = rows / norms;
    // Of those that are shown with all: never as many products as a large layer has pairs.
    let products = to_host(product(rows.clone().narrow(0, 0, shown_of(atoms.dims())), rows.transpose()));
    let of = |(atom, row): (usize, &[f32])| {
        let others = row.iter().enumerate().filter(|(other, _)| *other != atom);
        f64::from(others.fold(0.0f32, |largest, (_, value)| largest.max(value.abs())))
    };
    products.chunks_exact(count).enumerate().map(of).collect()
}
