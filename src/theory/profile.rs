//! What the theorems need to know of a model: the numbers of every dictionary, own and effective.

use super::cascade::Cascade;
use super::coherence::{Coherence, welch_bound};
use super::columns::Columns;
use super::rounding::{accumulated, down, up};
use crate::error::Result;
use crate::geometry::{Geometry, LayerGeometry, SignalShape};
use crate::model::stripe::effective_radius;
use crate::model::{Mlcsc, ModelConfig};

/// The columns of one dictionary in numbers.
#[derive(Debug, Clone)]
pub struct DictionaryProfile {
    /// Its coherence at every shift.
    pub coherence: Coherence,
    /// The least mutual coherence that a dictionary of its geometry can have; see [`welch_bound`].
    pub welch: f64,
    /// Radius of its atoms' stripe, in code positions per axis.
    pub radius: [usize; 2],
    /// Norm of every column, in the order of the code's values, bounded from below and from above; columns that padding crops are as
    /// short as they are.
    pub norms: Vec<[f64; 2]>,
    mutual: f64,
    min_norm: f64,
    max_norm: f64,
}

impl DictionaryProfile {
    /// Of the columns of a cascade.
    fn new(cascade: &Cascade) -> Result<Self> {
        let (geometry, columns) = (cascade.geometry(), Columns::new(cascade)?);
        let depth = geometry.depth();
        let (coherence, norms) = (Coherence::of(&columns), columns.norms());
        Ok(Self {
            welch: welch_bound(&geometry.windows(depth)),
            radius: effective_radius(geometry, depth),
            mutual: coherence.mutual(),
            min_norm: norms.iter().fold(f64::INFINITY, |least, norm| least.min(norm[0])),
            max_norm: norms.iter().fold(0.0, |largest, norm| largest.max(norm[1])),
            coherence,
            norms,
        })
    }

    /// Mutual coherence μ, rounded up.
    pub fn mutual(&self) -> f64 {
        self.mutual
    }

    /// Norm of the shortest column, rounded down: 0 where one is zero, or may be.
    pub fn min_norm(&self) -> f64 {
        self.min_norm
    }

    /// Norm of the longest column, rounded up.
    pub fn max_norm(&self) -> f64 {
        self.max_norm
    }

    /// ½(1 + 1/μ), rounded down: below it a stripe norm makes a representation unique. Infinite for columns that share no entry; 0
    /// where a column is zero, for which no representation is unique.
    pub fn uniqueness_limit(&self) -> f64 {
        if self.min_norm > 0.0 { down(0.5 * (1.0 + 1.0 / self.mutual), 4).max(1.0) } else { 0.0 }
    }

    /// Places in the code whose columns are zero, as far as `f64` can tell.
    pub fn zero_columns(&self) -> Vec<usize> {
        (0..self.norms.len()).filter(|&place| self.norms[place][0] == 0.0).collect()
    }

    /// Norm of every column to the precision of a pursuit.
    pub(crate) fn lengths(&self) -> Vec<f32> {
        self.norms.iter().map(|norm| norm[1] as f32).collect()
    }
}

/// A model on signals of one shape, as far as the theorems are concerned.
#[derive(Debug, Clone)]
pub struct ModelProfile {
    /// D_1 … D_L.
    pub own: Vec<DictionaryProfile>,
    /// D^(1) … D^(L).
    pub effective: Vec<DictionaryProfile>,
    cascade: Cascade,
}

impl ModelProfile {
    /// Of a model on signals of that shape.
    ///
    /// # Errors
    /// As [`Coherence::of_columns`].
    pub fn new(model: &Mlcsc, signal: SignalShape) -> Result<Self> {
        let cascade = Cascade::new(model, model.config().geometry_on(signal)?)?;
        let layers = cascade.geometry().layers().iter().zip(&model.config().layers).enumerate();
        let own: Vec<DictionaryProfile> = layers
            .map(|(index, (layer, shape))| {
                let geometry = ModelConfig::new(layer.signal, vec![shape.clone()]).geometry()?;
                DictionaryProfile::new(&cascade.single(index, geometry))
            })
            .collect::<Result<_>>()?;
        let mut effective = own[..1].to_vec();
        for depth in 2..model.depth() {
            let geometry = model.truncated(depth, signal)?.config().geometry()?;
            effective.push(DictionaryProfile::new(&cascade.truncated(depth, geometry))?);
        }
        if model.depth() > 1 {
            effective.push(DictionaryProfile::new(&cascade)?);
        }
        Ok(Self { own, effective, cascade })
    }

    /// At least ‖y − D^(L)γ_L‖₂ for a signal and a code of the deepest layer.
    ///
    /// # Panics
    /// If their lengths are not those of the model's signals and codes.
    pub fn distance(&self, signal: &[f32], code: &[f32]) -> f64 {
        let geometry = self.geometry();
        assert_eq!([signal.len(), code.len()], [geometry.signal().len(), geometry.code().len()], "signal and code");
        let made = self.cascade.synthesize(code);
        let part = self.cascade.error(0);
        let energy: f64 = made
            .values
            .iter()
            .zip(&made.magnitudes)
            .zip(signal)
            .map(|((made, magnitude), &signal)| up((made - f64::from(signal)).abs() + part * magnitude, 4).powi(2))
            .sum();
        up(energy.sqrt() * (1.0 + accumulated(signal.len() + 2)), 4)
    }

    /// x = D^(L)γ_L, to the precision of `f64`.
    ///
    /// # Panics
    /// If the code's length is not that of the model's codes.
    pub fn synthesize(&self, code: &[f32]) -> Vec<f64> {
        assert_eq!(code.len(), self.geometry().code().len(), "values of a code");
        self.cascade.synthesize(code).values
    }

    /// The shapes of all layers.
    pub fn geometry(&self) -> &Geometry {
        self.cascade.geometry()
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.own.len()
    }

    pub(super) fn cascade(&self) -> &Cascade {
        &self.cascade
    }

    pub(super) fn layer(&self, depth: usize) -> &LayerGeometry {
        &self.geometry().layers()[depth - 1]
    }
}
