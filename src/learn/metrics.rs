//! What is measured while dictionaries are learned.

use super::cascade::Cascade;
use crate::autoencoder::diagnostics::{DENSE, DENSITY_BINS, density_histogram, hoyer};
use crate::data::quality::Quality;
use crate::geometry::Geometry;
use crate::kernels::sparse::{SparseDictionary, to_host};
use crate::model::normalization::Undo;
use crate::pursuit::{Convergence, Pursued};
use crate::theory::coherence::mutual_coherence;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Wall time by what it was spent on, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Reading and normalising signals.
    pub reading: f64,
    /// The pursuit, the effective dictionary's matrices included.
    pub coding: f64,
    /// Metrics.
    pub measuring: f64,
    /// Statistics of codes and signals.
    pub statistics: f64,
    /// Changing the dictionaries.
    pub dictionaries: f64,
}

impl Phases {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.values().iter().sum()
    }

    fn values(&self) -> [f64; 5] {
        [self.reading, self.coding, self.measuring, self.statistics, self.dictionaries]
    }

    fn from_values([reading, coding, measuring, statistics, dictionaries]: [f64; 5]) -> Self {
        Self { reading, coding, measuring, statistics, dictionaries }
    }

    fn plus(&self, other: &Self) -> Self {
        let (own, other) = (self.values(), other.values());
        Self::from_values(std::array::from_fn(|index| own[index] + other[index]))
    }
}

/// The state that is kept of a run that trains by gradients of a loss: that of the least held-out loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Epochs that it had; 0 for what the run started with.
    pub epoch: usize,
    /// Its held-out loss.
    pub loss: f64,
    /// Whether it is what it is to be in the end; see `Trainable::is_admissible`.
    pub admissible: bool,
}

impl Kept {
    /// What is kept once there is `next`: the less held-out loss of two states of the same kind, the earlier one of equal ones. A state
    /// that is not admissible stays only until there is a later one.
    pub fn better(kept: Option<Self>, next: Self) -> Self {
        match kept {
            // Nothing is less than, and everything less than, a loss that is no number.
            Some(kept) if kept.admissible && !(next.admissible && next.loss.total_cmp(&kept.loss).is_lt()) => kept,
            _ => next,
        }
    }
}

/// Measures phases one after the other.
#[derive(Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the last lap to `phase`.
    pub(super) fn lap(&mut self, phase: &mut f64) {
        let now = Instant::now();
        *phase += (now - self.0).as_secs_f64();
        self.0 = now;
    }
}

/// Sums over some signals, from which means follow; those of two batches can be added.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSums {
    /// Wall time spent on them.
    pub seconds: Phases,
    quality: Quality,
    lambda: f64,
    objective: f64,
    data_term: f64,
    gap: f64,
    convergence: Convergence,
    /// Non-zeros of γ_1 … γ_L.
    nonzeros: Vec<f64>,
    /// Non-zeros of every deepest atom.
    usage: Vec<f64>,
    /// Positions of a code.
    positions: f64,
    /// Whether signals are vectors.
    vectors: bool,
    /// Hoyer's sparsity of the codes that are not zero, and how many these are.
    hoyer: [f64; 2],
    /// Cosines between signals and reconstructions, and of how many signals.
    cosine: [f64; 2],
}

/// Means over some signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of signals.
    pub signals: usize,
    /// λ, the mean where it changed.
    pub lambda: f64,
    /// Mean of ½‖y − D^(L)γ‖² + λ‖γ‖₁.
    pub objective: f64,
    /// Mean of ½‖y − D^(L)γ‖².
    pub data_term: f64,
    /// Mean relative duality gap.
    pub gap: f64,
    /// How many of them were coded to the gap asked for; where training is end to end none is asked for.
    #[serde(default)]
    pub convergence: Convergence,
    /// Mean over signals of 10·log₁₀(1/mean squared error) in dB, in the signals' own scale with peak 1; `None` of vectors, whose values
    /// have no peak, and where a value is far beyond it.
    pub psnr: Option<f64>,
    /// Fraction of variance unexplained: Σ‖y − D^(L)γ‖² / Σ‖y − ȳ‖², ȳ the mean signal; `None` where signals don't vary, as a single
    /// one.
    pub fvu: Option<f64>,
    /// Mean ‖γ_i‖₀ of every layer.
    pub nonzeros: Vec<f64>,
    /// Mean cosine between a signal, normalised as the model says, and its reconstruction; 0 where either is zero. `None` where it was
    /// not measured: it is on held-out signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Mean Hoyer sparsity of the codes that are not zero; see [`Diagnostics::hoyer`](crate::autoencoder::Diagnostics::hoyer).
    #[serde(default)]
    pub hoyer: Option<f64>,
    /// Atoms of the deepest layer that no signal used.
    pub dead_atoms: usize,
    /// Atoms of the deepest layer that are used at a tenth or more of all positions of all signals.
    #[serde(default)]
    pub dense_atoms: usize,
    /// Number of atoms by how often they fire; see [`Diagnostics::density`](crate::autoencoder::Diagnostics::density).
    #[serde(default)]
    pub density: [usize; DENSITY_BINS],
    /// Signals per second, everything included.
    pub signals_per_second: f64,
    /// What the time was spent on.
    pub seconds: Phases,
}

impl BatchSums {
    pub(super) fn new(
        cascade: &Cascade,
        geometry: &Geometry,
        signals: &Tensor<4>,
        pursued: &Pursued,
        undo: &Undo,
        lambda: f32,
    ) -> Self {
        let values: Vec<f32> = to_host(signals.clone());
        let len = geometry.signal().len();
        let count = pursued.reports.len();
        let total = |value: fn(&crate::pursuit::SignalReport) -> f32| -> f64 {
            pursued.reports.iter().map(|report| f64::from(value(report))).sum()
        };
        let mut quality = Quality::new(len);
        let reports = pursued.reports.iter().zip(undo.error_scales(count));
        for (signal, (report, scale)) in values.chunks_exact(len).zip(reports) {
            let error = 2.0 * f64::from(report.data_term);
            quality.add_error(signal.iter().map(|&value| f64::from(value)), error, f64::from(scale));
        }
        let codes: Vec<f32> = to_host(pursued.codes.clone());
        let positions = geometry.code().height * geometry.code().width;
        let mut usage = vec![0.0; geometry.code().channels];
        let mut sparsity = [0.0; 2];
        for code in codes.chunks_exact(geometry.code().len()) {
            if let Some(hoyer) = hoyer(code) {
                sparsity[0] += hoyer;
                sparsity[1] += 1.0;
            }
            for (count, map) in usage.iter_mut().zip(code.chunks_exact(positions)) {
                *count += map.iter().filter(|value| **value != 0.0).count() as f64;
            }
        }
        Self {
            seconds: Phases::default(),
            quality,
            lambda: f64::from(lambda) * count as f64,
            objective: total(|report| report.objective),
            data_term: total(|report| report.data_term),
            gap: total(|report| report.relative_gap),
            convergence: Convergence::of(&pursued.reports),
            nonzeros: nonzeros_of_layers(cascade, geometry, codes),
            usage,
            positions: positions as f64,
            vectors: geometry.signal().is_single_position(),
            hoyer: sparsity,
            cosine: [0.0; 2],
        }
    }

    /// Measures the cosines between signals and their reconstructions.
    ///
    /// # Shapes
    /// - signals, reconstructions: `[n, channels, height, width]`.
    pub(super) fn compare(&mut self, signals: &Tensor<4>, reconstructions: Tensor<4>) {
        let count = signals.dims()[0].max(1);
        let (signals, reconstructions) = (to_host(signals.clone()), to_host(reconstructions));
        let len = (signals.len() / count).max(1);
        for (signal, reconstruction) in signals.chunks_exact(len).zip(reconstructions.chunks_exact(len)) {
            let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let lengths = (inner(signal, signal) * inner(reconstruction, reconstruction)).sqrt();
            self.cosine[0] += if lengths > 0.0 { inner(signal, reconstruction) / lengths } else { 0.0 };
            self.cosine[1] += 1.0;
        }
    }

    /// The same of a pursuit that was told no gap.
    #[cfg(feature = "train")]
    #[must_use]
    pub(super) fn without_gap(self) -> Self {
        Self { convergence: Convergence::default(), ..self }
    }

    /// Non-zeros of every deepest atom.
    pub(super) fn usage(&self) -> &[f64] {
        &self.usage
    }

    /// Adds the sums of other signals.
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.plus(&other.seconds);
        self.quality.merge(&other.quality);
        self.lambda += other.lambda;
        self.objective += other.objective;
        self.data_term += other.data_term;
        self.gap += other.gap;
        self.convergence.merge(&other.convergence);
        let sums = [
            (&mut self.nonzeros[..], &other.nonzeros[..]),
            (&mut self.usage, &other.usage),
            (&mut self.hoyer, &other.hoyer),
            (&mut self.cosine, &other.cosine),
        ];
        for (own, other) in sums {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
    }

    /// The means.
    pub fn summary(&self) -> Summary {
        let signals = self.quality.signals();
        let count = signals.max(1) as f64;
        Summary {
            signals,
            lambda: self.lambda / count,
            objective: self.objective / count,
            data_term: self.data_term / count,
            gap: self.gap / count,
            convergence: self.convergence,
            psnr: self.quality.psnr().filter(|_| !self.vectors),
            fvu: self.quality.variance_unexplained(),
            nonzeros: self.nonzeros.iter().map(|sum| sum / count).collect(),
            cosine: (self.cosine[1] > 0.0).then(|| self.cosine[0] / self.cosine[1]),
            hoyer: (self.hoyer[1] > 0.0).then(|| self.hoyer[0] / self.hoyer[1]),
            dead_atoms: self.usage.iter().filter(|count| **count == 0.0).count(),
            dense_atoms: self.usage.iter().filter(|uses| **uses / (count * self.positions) >= DENSE).count(),
            density: density_histogram(self.usage.iter().map(|uses| uses / (count * self.positions))),
            signals_per_second: signals as f64 / self.seconds.total().max(f64::MIN_POSITIVE),
            seconds: self.seconds,
        }
    }

    /// All sums as numbers in a row, for a checkpoint.
    pub(super) fn to_values(&self) -> Vec<f64> {
        let scalars = [self.lambda, self.objective, self.data_term, self.gap];
        let Convergence { above, of, worst_gap, used_up } = self.convergence;
        let convergence = [above as f64, of as f64, worst_gap.into(), used_up as f64];
        let quality = self.quality.to_values();
        let codes = [self.hoyer, self.cosine].concat();
        let largest = [self.quality.largest()];
        let all = [
            &scalars[..],
            &self.seconds.values(),
            &self.nonzeros,
            &self.usage,
            &quality,
            &convergence,
            &codes,
            &largest,
        ];
        all.concat()
    }

    /// The inverse of [`Self::to_values`]; `None` where the number of values does not fit the geometry.
    pub(super) fn from_values(values: &[f64], geometry: &Geometry) -> Option<Self> {
        let (&[lambda, objective, data_term, gap], rest) = values.split_first_chunk()?;
        let (&seconds, rest) = rest.split_first_chunk()?;
        let (nonzeros, rest) = rest.split_at_checked(geometry.depth())?;
        let (usage, rest) = rest.split_at_checked(geometry.code().channels)?;
        let of_quality = Quality::new(geometry.signal().len()).to_values().len();
        let (quality, rest) = rest.split_at_checked(of_quality)?;
        // Older checkpoints tell less.
        let (convergence, codes, largest) = match *rest {
            [] => ([0.0; 4], [0.0; 4], 0.0),
            [above, of, worst, used_up] => ([above, of, worst, used_up], [0.0; 4], 0.0),
            [above, of, worst, used_up, ref codes @ ..] => {
                let (codes, largest) = codes.split_first_chunk()?;
                let largest = match *largest {
                    [] => 0.0,
                    [largest] => largest,
                    _ => return None,
                };
                ([above, of, worst, used_up], *codes, largest)
            }
            _ => return None,
        };
        let [above, of, worst_gap, used_up] = convergence;
        let [above, of, used_up] = [above, of, used_up].map(|count| count as usize);
        let convergence = Convergence { above, of, worst_gap: worst_gap as f32, used_up };
        let [hoyer, coded, cosine, compared] = codes;
        Some(Self {
            seconds: Phases::from_values(seconds),
            quality: Quality::from_values(quality)?.with_largest(largest),
            lambda,
            objective,
            data_term,
            gap,
            convergence,
            nonzeros: nonzeros.to_vec(),
            usage: usage.to_vec(),
            positions: (geometry.code().height * geometry.code().width) as f64,
            vectors: geometry.signal().is_single_position(),
            hoyer: [hoyer, coded],
            cosine: [cosine, compared],
        })
    }
}

/// Sums over a batch of ‖γ_i‖₀ for every layer, by the non-zeros of codes and dictionaries.
fn nonzeros_of_layers(cascade: &Cascade, geometry: &Geometry, codes: Vec<f32>) -> Vec<f64> {
    let count = |codes: &[f32]| codes.iter().filter(|value| **value != 0.0).count() as f64;
    let mut counts = vec![count(&codes)];
    let mut codes = codes;
    for layer in (1..cascade.depth()).rev() {
        codes = SparseDictionary::of_nonzeros(cascade.nonzeros(layer), &geometry.layers()[layer]).synthesize(&codes);
        counts.push(count(&codes));
    }
    counts.reverse();
    counts
}

/// What can be said of dictionaries without signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dictionaries {
    /// Part of zeros in W_1 … W_L.
    pub zeros: Vec<f64>,
    /// Mutual coherence of D_1 … D_L.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coherence: Option<Vec<f32>>,
    /// Mutual coherence of D^(1) … D^(L).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective_coherence: Option<Vec<f32>>,
}

impl Dictionaries {
    pub(super) fn of(cascade: &Cascade, geometry: &Geometry, coherence: bool, device: &Device) -> Self {
        let layers = 0..cascade.depth();
        let of_layers = || {
            let layers = layers.clone().zip(geometry.layers());
            layers.map(|(layer, shape)| mutual_coherence(cascade.filters(layer).to_tensor(device), shape)).collect()
        };
        let of_effective = || {
            let layers = layers.clone();
            layers
                .map(|layer| mutual_coherence(cascade.effective(layer).to_tensor(device), &geometry.windows(layer + 1)))
                .collect()
        };
        Self {
            zeros: layers.clone().map(|layer| cascade.zeros_fraction(layer)).collect(),
            coherence: coherence.then(of_layers),
            effective_coherence: coherence.then(of_effective),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{LayerShape, SignalShape};
    use crate::model::ModelConfig;

    /// Losses are read from a run's records as they were written. Parsers that round twice miss one in ten of these.
    #[test]
    fn losses_are_read_as_they_were_written() {
        let mut state = 88_172_645_463_325_252u64;
        for _ in 0..1000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let kept = Kept { epoch: 1, loss: 60.0 * (state >> 11) as f64 / (1u64 << 53) as f64, admissible: true };
            let text = serde_json::to_string(&kept).unwrap();
            assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
        }
    }

    /// Sums come back from a checkpoint as they were; from an older one without how many signals converged.
    #[test]
    fn sums_are_kept_to_the_last_bit() {
        let config =
            ModelConfig::new(SignalShape::new(1, 2, 3), vec![LayerShape::new(5, 2, 1), LayerShape::new(4, 1, 1)]);
        let geometry = config.geometry().unwrap();
        let mut quality = Quality::new(6);
        quality.add_error([0.1, 0.7, 0.3, 0.2, 0.9, 0.4].into_iter(), 0.3, 1.0);
        let sums = BatchSums {
            seconds: Phases { reading: 0.1, coding: 0.2, measuring: 0.3, statistics: 0.4, dictionaries: 0.5 },
            quality,
            lambda: 0.7,
            objective: 1.0 / 3.0,
            data_term: 0.1,
            gap: 1e-3,
            convergence: Convergence { above: 2, of: 9, worst_gap: 0.25, used_up: 1 },
            nonzeros: vec![3.0, 2.0],
            usage: vec![1.0, 0.0, 2.0, 5.0],
            positions: 2.0,
            vectors: false,
            hoyer: [0.6, 2.0],
            cosine: [0.9, 1.0],
        };
        let values = sums.to_values();
        assert_eq!(BatchSums::from_values(&values, &geometry), Some(sums.clone()));
        let old = BatchSums { quality: sums.quality.clone().with_largest(0.0), ..sums };
        assert_eq!(BatchSums::from_values(&values[..values.len() - 1], &geometry), Some(old.clone()));
        let older = BatchSums { hoyer: [0.0; 2], cosine: [0.0; 2], ..old };
        assert_eq!(BatchSums::from_values(&values[..values.len() - 5], &geometry), Some(older.clone()));
        let oldest = BatchSums { convergence: Convergence::default(), ..older };
        assert_eq!(BatchSums::from_values(&values[..values.len() - 9], &geometry), Some(oldest));
        for wrong in [&values[..values.len() - 2], &values[..9], &[values.clone(), vec![0.0]].concat()] {
            assert_eq!(BatchSums::from_values(wrong, &geometry), None);
        }
    }
}
