//! What users of sparse auto-encoders look at: how much is explained, by how much, by how few units, and whether the same units
//! come out again.
//!
//! The measures and their names are those of the field's tools: fraction of variance unexplained (FVU), ‖γ‖₀, dead and dense units
//! (L. Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024); sparsity as P. Hoyer has it ("Non-negative Matrix
//! Factorization with Sparseness Constraints", JMLR 5, 2004); shrinkage, the bias that an ℓ1 penalty leaves (B. Wright,
//! L. Sharkey, "Addressing Feature Suppression in SAEs", 2024); stability across seeds by matched cosines.

use super::{Autoencoder, Coded, SumTree, Sums};
use crate::data::Source;
use crate::data::quality::Quality;
use crate::error::{Error, Result};
use crate::kernels::product::product;
use crate::kernels::sparse::{energy, norm, to_host};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Bins of the histogram of densities: one a power of ten from 10⁻⁵ on, what lies below it and dead units in the first.
pub const DENSITY_BINS: usize = 6;

/// Sums over signals and codes, from which [`Diagnostics`] follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiagnosticsSums {
    quality: Quality,
    #[serde(with = "crate::exact::number")]
    nonzeros: f64,
    #[serde(with = "crate::exact::number")]
    hoyer: f64,
    /// Signals whose code is not zero.
    coded: usize,
    /// Code positions at which every unit is not zero.
    usage: Vec<u64>,
    positions: usize,
    /// Σ〈y, x〉 and Σ‖y‖².
    #[serde(with = "crate::exact::number")]
    inner: f64,
    #[serde(with = "crate::exact::number")]
    energy: f64,
    /// Σ〈y, x〉/(‖y‖‖x‖) of signals that are not zero, and their number.
    #[serde(with = "crate::exact::number")]
    cosines: f64,
    directed: usize,
    /// Whether signals are vectors.
    #[serde(default)]
    vectors: bool,
}

/// What was found on some signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Number of signals.
    pub signals: usize,
    /// Fraction of variance unexplained: Σ‖y − x‖² / Σ‖y − ȳ‖²; `None` where signals don't vary, as a single one.
    pub fvu: Option<f64>,
    /// Mean peak signal-to-noise ratio in dB, peak 1; `None` of vectors, whose values have no peak, and where a value is far
    /// beyond it.
    pub psnr: Option<f64>,
    /// Mean ‖γ‖₀.
    pub nonzeros: f64,
    /// Mean Hoyer sparsity of the codes that are not zero: (√n − ‖γ‖₁/‖γ‖₂)/(√n − 1), 0 for a flat code and 1 for one non-zero;
    /// `None` where all codes are zero.
    pub hoyer: Option<f64>,
    /// Σ〈y, x〉/Σ‖y‖²: 1 where reconstructions have the length that they should, less where a penalty shrinks them; `None` where
    /// all signals are zero.
    pub shrinkage: Option<f64>,
    /// Mean cosine of a signal and its reconstruction, 〈y, x〉/(‖y‖‖x‖), 0 where a reconstruction is zero; `None` where all signals are.
    #[serde(default)]
    pub cosine: Option<f64>,
    /// Units that no signal used.
    pub dead_units: usize,
    /// Units that are used at a tenth or more of all positions of all signals.
    pub dense_units: usize,
    /// Number of units by density, the part of all positions of all signals at which a unit is not zero: below 10⁻⁵ (dead ones
    /// included), then by powers of ten up to [0.1, 1].
    pub density: [usize; DENSITY_BINS],
}

impl DiagnosticsSums {
    /// For signals and codes of an auto-encoder.
    pub fn new(autoencoder: &dyn Autoencoder) -> Self {
        let code = autoencoder.code();
        Self {
            quality: Quality::new(autoencoder.signal().len()),
            nonzeros: 0.0,
            hoyer: 0.0,
            coded: 0,
            usage: vec![0; code.channels],
            positions: code.height * code.width,
            inner: 0.0,
            energy: 0.0,
            cosines: 0.0,
            directed: 0,
            vectors: autoencoder.signal().is_single_position(),
        }
    }

    /// Takes a batch into account.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; coded: what became of them.
    ///
    /// # Panics
    /// If shapes are not those of the auto-encoder.
    pub fn add(&mut self, signals: &Tensor<4>, coded: &Coded) {
        self.quality.add(signals, &coded.reconstruction);
        let (signals, synthesized) = (to_host(signals.clone()), to_host(coded.reconstruction.clone()));
        let values = (signals.len() / coded.codes.dims()[0].max(1)).max(1);
        for (signal, synthesized) in signals.chunks_exact(values).zip(synthesized.chunks_exact(values)) {
            let inner: f64 = signal.iter().zip(synthesized).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let (of_signal, of_synthesized) = (energy(signal), energy(synthesized));
            self.inner += inner;
            self.energy += of_signal;
            if of_signal > 0.0 {
                self.directed += 1;
                self.cosines += if of_synthesized > 0.0 { inner / (of_signal * of_synthesized).sqrt() } else { 0.0 };
            }
        }
        let codes = to_host(coded.codes.clone());
        let len = self.usage.len() * self.positions;
        assert_eq!(codes.len() % len, 0, "values of whole codes");
        for code in codes.chunks_exact(len) {
            let count = code.iter().filter(|value| **value != 0.0).count();
            self.nonzeros += count as f64;
            if let Some(hoyer) = hoyer(code) {
                self.hoyer += hoyer;
                self.coded += 1;
            }
            for (usage, map) in self.usage.iter_mut().zip(code.chunks_exact(self.positions)) {
                *usage += map.iter().filter(|value| **value != 0.0).count() as u64;
            }
        }
    }

    /// Whether both are of the same numbers of units, positions and values of a signal.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let shape = |sums: &Self| (sums.usage.len(), sums.positions, sums.quality.values());
        shape(self) == shape(other)
    }

    /// Of every unit the part of all positions of all signals at which it is not zero.
    pub fn densities(&self) -> Vec<f64> {
        let places = (self.quality.signals() * self.positions).max(1) as f64;
        self.usage.iter().map(|&count| count as f64 / places).collect()
    }

    /// The results; means are zero where there were no signals.
    pub fn finish(&self) -> Diagnostics {
        let signals = self.quality.signals();
        Diagnostics {
            signals,
            fvu: self.quality.variance_unexplained(),
            psnr: self.quality.psnr().filter(|_| !self.vectors),
            nonzeros: self.nonzeros / signals.max(1) as f64,
            hoyer: (self.coded > 0).then(|| self.hoyer / self.coded as f64),
            shrinkage: (self.energy > 0.0).then(|| self.inner / self.energy),
            cosine: (self.directed > 0).then(|| self.cosines / self.directed as f64),
            dead_units: self.usage.iter().filter(|count| **count == 0).count(),
            dense_units: self.densities().iter().filter(|density| **density >= DENSE).count(),
            density: density_histogram(self.densities()),
        }
    }
}

impl Sums for DiagnosticsSums {
    fn merge(&mut self, later: &Self) {
        let Self { quality, nonzeros, hoyer, coded, usage, positions: _, inner, energy, cosines, directed, vectors: _ } =
            later;
        self.quality.merge(quality);
        self.nonzeros += nonzeros;
        self.hoyer += hoyer;
        self.coded += coded;
        self.usage.iter_mut().zip(usage).for_each(|(own, later)| *own += later);
        self.inner += inner;
        self.energy += energy;
        self.cosines += cosines;
        self.directed += directed;
    }
}

/// Number of units by density; see [`Diagnostics::density`].
pub(crate) fn density_histogram(densities: impl IntoIterator<Item = f64>) -> [usize; DENSITY_BINS] {
    let mut histogram = [0; DENSITY_BINS];
    for part in densities {
        let bin = (0..DENSITY_BINS - 1).rev().find(|&bin| part >= 10f64.powi(bin as i32 - 5));
        histogram[bin.map_or(0, |bin| bin + 1)] += 1;
    }
    histogram
}

/// Part of all positions of all signals from which on a unit that is used counts as dense.
pub(crate) const DENSE: f64 = 0.1;

/// Hoyer's sparsity of a code; `None` for zero, of which it says nothing.
pub fn hoyer(code: &[f32]) -> Option<f64> {
    let one: f64 = code.iter().map(|value| f64::from(value.abs())).sum();
    let two = f64::from(norm(code));
    let root = (code.len() as f64).sqrt();
    match two > 0.0 && code.len() > 1 {
        true => Some(((root - one / two) / (root - 1.0)).clamp(0.0, 1.0)),
        false => None,
    }
}

/// Diagnostics of an auto-encoder on all signals of a source. `progress` is told the part that is done and ends it, with `None`, by
/// `false`.
///
/// # Errors
/// Signals of another shape, or that cannot be read; no signals.
pub fn diagnose(
    autoencoder: &dyn Autoencoder,
    source: &dyn Source,
    batch: usize,
    device: &Device,
    mut progress: impl FnMut(f32) -> bool,
) -> Result<Option<Diagnostics>> {
    if source.is_empty() {
        return Err(Error::shape(format!("signals of {}", source.describe()), "at least one", 0));
    }
    let ready = autoencoder.ready()?;
    let shape = source.shape();
    let mut tree = SumTree::default();
    for start in (0..source.len()).step_by(batch.max(1)) {
        let indices: Vec<usize> = (start..(start + batch.max(1)).min(source.len())).collect();
        let mut values = vec![0.0; indices.len() * shape.len()];
        source.read(&indices, &mut values)?;
        let signals = Tensor::from_data(TensorData::new(values, shape.batched(indices.len())), device);
        let coded = ready.reconstruct(signals.clone())?;
        let mut sums = DiagnosticsSums::new(autoencoder);
        sums.add(&signals, &coded);
        tree.push(start / batch.max(1), sums);
        if !progress((start + indices.len()) as f32 / source.len() as f32) {
            return Ok(None);
        }
    }
    Ok(tree.total().map(|sums| sums.finish()))
}

/// How well the atoms of two networks match, say of two seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Mean |cosine| over pairs of a one-to-one matching.
    pub mean_cosine: f64,
    /// Part of the pairs whose |cosine| is at least 0.9.
    pub matched: f64,
}

/// Matches the atoms of two networks one to one, the most alike first, and says how alike they are. Atoms that are zero match with
/// nothing: their cosine is 0. Where the numbers differ, the smaller one counts.
///
/// # Shapes
/// - first, second: `[atoms, channels, height, width]`, the same but for the number of atoms.
///
/// # Errors
/// Atoms of different shapes.
pub fn stability(first: Tensor<4>, second: Tensor<4>) -> Result<Stability> {
    let ([rows, channels, height, width], dims) = (first.dims(), second.dims());
    if [channels, height, width] != dims[1..] {
        let expected = format!("[n, {channels}, {height}, {width}]");
        return Err(Error::shape("atoms to compare with", expected, format!("{dims:?}")));
    }
    let columns = dims[0];
    let unit = |atoms: Tensor<4>| {
        let atoms = atoms.detach().flatten::<2>(1, 3);
        let norms = atoms.clone().square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
        atoms / norms
    };
    let cosines = to_host(product(unit(first), unit(second).transpose()).abs());
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
    let (mut used_rows, mut used_columns) = (vec![false; rows], vec![false; columns]);
    let mut pairs = Vec::with_capacity(rows.min(columns));
    for index in order {
        let (row, column) = (index / columns, index % columns);
        if !used_rows[row] && !used_columns[column] {
            (used_rows[row], used_columns[column]) = (true, true);
            pairs.push(f64::from(cosines[index]));
        }
    }
    let count = pairs.len().max(1) as f64;
    Ok(Stability {
        mean_cosine: pairs.iter().sum::<f64>() / count,
        matched: pairs.iter().filter(|cosine| **cosine >= 0.9).count() as f64 / count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::SignalShape;

    /// Codes are the signals' values, thinned out; reconstructions are half the signals.
    struct Half;

    impl Autoencoder for Half {
        fn signal(&self) -> SignalShape {
            SignalShape::new(4, 1, 1)
        }

        fn code(&self) -> SignalShape {
            SignalShape::new(4, 1, 1)
        }

        fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
            Ok(signals)
        }

        fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
            Ok(codes * 0.5)
        }

        fn atoms(&self) -> Tensor<4> {
            Tensor::<2>::eye(4, &crate::device::named(None).unwrap()).reshape([4, 4, 1, 1])
        }

        fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
            Ok(Box::new(Half))
        }
    }

    #[test]
    fn numbers_follow_their_definitions() {
        let device = crate::device::named(None).unwrap();
        let values = vec![1.0f32, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let signals = Tensor::from_data(TensorData::new(values, [2, 4, 1, 1]), &device);
        let mut sums = DiagnosticsSums::new(&Half);
        sums.add(&signals, &Half.reconstruct(signals.clone()).unwrap());
        let found = sums.finish();
        assert_eq!(sums.densities(), [1.0, 0.5, 0.0, 0.0]);
        assert_eq!((found.signals, found.nonzeros, found.dead_units, found.dense_units), (2, 1.5, 2, 2));
        assert!((found.shrinkage.unwrap() - 0.5).abs() < 1e-12);
        // One non-zero: 1. Two equal ones of four: (2 − √2)/(2 − 1).
        assert!((found.hoyer.unwrap() - 0.5 * (1.0 + 2.0 - 2f64.sqrt())).abs() < 1e-6);
        // Squared errors 0.25 and 0.5; the variance is that of the second value alone, 2·0.5².
        assert!((found.fvu.unwrap() - 0.75 / 0.5).abs() < 1e-9);
        assert_eq!(found.density, [2, 0, 0, 0, 0, 2]);
        assert_eq!(hoyer(&[0.0, 0.0]), None);
    }

    #[test]
    fn what_is_undefined_is_null() {
        let device = crate::device::named(None).unwrap();
        let of = |values: [f32; 8]| {
            let signals = Tensor::from_data(TensorData::new(values.to_vec(), [2, 4, 1, 1]), &device);
            let mut sums = DiagnosticsSums::new(&Half);
            sums.add(&signals, &Half.reconstruct(signals.clone()).unwrap());
            sums.finish()
        };
        let same = of([1e4, 0.3, 0.0, 0.1, 1e4, 0.3, 0.0, 0.1]);
        assert_eq!(same.fvu, None);
        assert!((same.shrinkage.unwrap() - 0.5).abs() < 1e-12 && same.hoyer.is_some());
        let document = serde_json::to_value(&same).unwrap();
        assert!(document["fvu"].is_null() && document["shrinkage"].is_number());
        assert_eq!(serde_json::from_value::<Diagnostics>(document).unwrap(), same);
        let zero = of([0.0; 8]);
        assert_eq!((zero.fvu, zero.hoyer, zero.shrinkage), (None, None, None));
    }

    #[test]
    fn atoms_match_whatever_their_order_sign_and_length() {
        let device = crate::device::named(None).unwrap();
        let tensor = |values: [f32; 6]| Tensor::from_data(TensorData::new(values.to_vec(), [3, 2, 1, 1]), &device);
        let first = tensor([1.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
        let same = stability(first.clone(), tensor([-3.0, -3.0, 0.0, 1.0, -5.0, 0.0])).unwrap();
        assert!((same.mean_cosine - 1.0).abs() < 1e-6 && same.matched == 1.0, "{same:?}");
        // Only one of the three can have the one that is alike; zero is like nothing.
        let other = stability(first, tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])).unwrap();
        assert!((other.mean_cosine - 1.0 / 3.0).abs() < 1e-6, "{other:?}");
        assert!(stability(Tensor::zeros([1, 2, 1, 1], &device), Tensor::zeros([1, 1, 2, 1], &device)).is_err());
    }
}
