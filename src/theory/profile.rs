//! What the theorems need to know of a model: the numbers of every dictionary, own and effective.

use super::coherence::{Coherence, representative, welch_bound};
use crate::error::Result;
use crate::model::geometry::{Geometry, LayerGeometry, SignalShape};
use crate::model::sparse::to_host;
use crate::model::stripe::effective_radius;
use crate::model::{Application, Mlcsc, ModelConfig, Operator};
use burn::tensor::Tensor;

/// The columns of one dictionary in numbers.
#[derive(Debug, Clone)]
pub struct DictionaryProfile {
    /// Its coherence at every shift.
    pub coherence: Coherence,
    /// The least mutual coherence that a dictionary of its geometry can have; see [`welch_bound`].
    pub welch: f64,
    /// Radius of its atoms' stripe, in code positions per axis.
    pub radius: [usize; 2],
    /// Norm of every column, in the order of the code's values; columns that padding crops are as short as they are.
    pub norms: Vec<f32>,
}

impl DictionaryProfile {
    /// Of D_1 … D_L of a model on signals of that shape.
    fn new(model: &Mlcsc, signal: SignalShape) -> Result<Self> {
        let geometry = model.config().geometry_on(signal)?;
        let depth = model.depth();
        Ok(Self {
            coherence: Coherence::of_columns(model, signal)?,
            welch: welch_bound(&geometry.windows(depth)),
            radius: effective_radius(&geometry, depth),
            norms: norms(model, &geometry)?,
        })
    }

    /// Mutual coherence μ.
    pub fn mutual(&self) -> f64 {
        self.coherence.mutual()
    }

    /// Norm of the shortest column.
    pub fn min_norm(&self) -> f64 {
        self.norms.iter().fold(f64::INFINITY, |least, &norm| least.min(norm.into()))
    }

    /// Norm of the longest column.
    pub fn max_norm(&self) -> f64 {
        self.norms.iter().fold(0.0, |largest, &norm| largest.max(norm.into()))
    }

    /// ½(1 + 1/μ): below it a stripe norm makes a representation unique. Infinite for orthogonal columns; 0 where a column is zero,
    /// for which no representation is unique.
    pub fn uniqueness_limit(&self) -> f64 {
        if self.min_norm() > 0.0 { 0.5 * (1.0 + 1.0 / self.mutual()) } else { 0.0 }
    }
}

/// Norms of the columns of D_1 … D_L: those of a signal that is no larger than it takes, put where they belong.
fn norms(model: &Mlcsc, geometry: &Geometry) -> Result<Vec<f32>> {
    let depth = model.depth();
    let small = representative(model, geometry.signal(), [0, 0])?;
    let energies: Vec<f32> = to_host(small.atom_energies(None));
    let (code, few, border) = (geometry.code(), small.code(), geometry.border(depth));
    let place = |position: usize, all: usize, few: usize, border: usize| {
        // Whole atoms are alike.
        if position < border { position } else { border.max((position + few).saturating_sub(all)).min(few - 1) }
    };
    let mut norms = Vec::with_capacity(code.len());
    for atom in 0..code.channels {
        for row in 0..code.height {
            let row = place(row, code.height, few.height, border[0]);
            norms.extend((0..code.width).map(|column| {
                let column = place(column, code.width, few.width, border[1]);
                energies[(atom * few.height + row) * few.width + column].max(0.0).sqrt()
            }));
        }
    }
    Ok(norms)
}

/// A model on signals of one shape, as far as the theorems are concerned.
#[derive(Debug)]
pub struct ModelProfile {
    /// D_1 … D_L.
    pub own: Vec<DictionaryProfile>,
    /// D^(1) … D^(L).
    pub effective: Vec<DictionaryProfile>,
    geometry: Geometry,
    /// The cascade of the filters' magnitudes: what it makes non-zero, some choice of signs and amplitudes makes non-zero.
    magnitudes: Operator,
}

impl ModelProfile {
    /// Of a model on signals of that shape.
    ///
    /// # Errors
    /// As [`Coherence::of_columns`].
    pub fn new(model: &Mlcsc, signal: SignalShape) -> Result<Self> {
        let geometry = model.config().geometry_on(signal)?;
        let own: Vec<DictionaryProfile> = geometry
            .layers()
            .iter()
            .zip(model.filters())
            .zip(&model.config().layers)
            .map(|((layer, filters), shape)| {
                let config = ModelConfig::new(layer.signal, vec![shape.clone()]);
                DictionaryProfile::new(&Mlcsc::from_filters(config, vec![filters])?, layer.signal)
            })
            .collect::<Result<_>>()?;
        let mut effective = own[..1].to_vec();
        for depth in 2..=model.depth() {
            effective.push(DictionaryProfile::new(&model.truncated(depth, signal)?, signal)?);
        }
        let magnitudes = model.filters().into_iter().map(Tensor::abs).collect();
        let config = ModelConfig { signal, ..model.config().clone() };
        let magnitudes = Mlcsc::from_filters(config, magnitudes)?.operator(signal, Application::Cascade)?;
        Ok(Self { own, effective, geometry, magnitudes })
    }

    /// The shapes of all layers.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.own.len()
    }

    pub(super) fn magnitudes(&self) -> &Operator {
        &self.magnitudes
    }

    pub(super) fn layer(&self, depth: usize) -> &LayerGeometry {
        &self.geometry.layers()[depth - 1]
    }
}
