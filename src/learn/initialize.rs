//! Dictionaries to start from, taken from the data layer by layer.
//!
//! The atoms of D_1 start as windows of training signals and learn for a few steps on such windows alone. With them fixed in
//! shape, atoms of D_2 start as sparse codes, over D_1, of larger windows, and learn (D_1 with them) on such windows; and so on.
//! The deepest layer starts from codes of real samples and is left to the training itself. At every stage a window has a code
//! of one position, so that a stage is a small dictionary learning problem of its own, by the same update.

use super::cascade::Cascade;
use super::config::TrainConfig;
use super::statistics::Statistics;
use super::surrogate::{SurrogateUpdate, windows};
use crate::data::Source;
use crate::error::Result;
use crate::model::geometry::{Geometry, LayerShape, SignalShape};
use crate::model::operator::Application;
use crate::model::sparse::{HostFilters, norm, to_host};
use crate::model::{ModelConfig, Operator};
use crate::pursuit::{Algorithm, BasisPursuitConfig, Lambda};
use crate::random::{Purpose, stream};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Windows looked at for every one that is taken; the more energetic ones are.
const CANDIDATES: usize = 4;

/// Relative duality gap of codes during initialisation.
const GAP: f32 = 1e-2;

/// Windows that a step may look at however few signals there are, since a signal can have many.
const LEAST_BATCH: usize = 256;

/// Initial dictionaries for a configuration from training signals.
///
/// `progress` is called with the layer (1-based) and the part of its steps that is done.
///
/// # Errors
/// Signals that cannot be read.
pub fn initialize(
    config: &TrainConfig,
    geometry: &Geometry,
    source: &dyn Source,
    device: &Device,
    mut progress: impl FnMut(usize, f32),
) -> Result<Cascade> {
    let learning = &config.learning;
    let nonzeros = learning.nonzeros(geometry);
    let mut filters: Vec<HostFilters> = Vec::new();
    for (layer, shape) in geometry.layers().iter().enumerate() {
        let depth = layer + 1;
        let effective = geometry.effective(depth);
        let stage = ModelConfig {
            signal: SignalShape::new(effective.channels, effective.kernel[0], effective.kernel[1]),
            layers: config.model.layers[..depth]
                .iter()
                .map(|layer| LayerShape { padding: 0.into(), ..layer.clone() })
                .collect(),
            normalization: config.model.normalization,
        };
        let sampler = Sampler { source, geometry, depth, config, device };
        let mut generator = stream(learning.seed, Purpose::Seeds, layer as u64);
        let targets = sampler.draw(shape.code.channels, &mut generator)?;
        filters.push(HostFilters::zeros(shape.filter_dims()));
        let mut cascade = Cascade::new(stage, filters);
        let update = SurrogateUpdate::new(learning, nonzeros[..depth].to_vec(), device);
        let all: Vec<usize> = (0..shape.code.channels).collect();
        update.seed(&all, &targets, &mut cascade);
        cascade.normalize(learning.atom_norm);
        let deepest = depth == geometry.depth();
        if !deepest {
            learn_stage(config, &mut cascade, &update, &sampler, |part| progress(depth, part))?;
        }
        filters = cascade.into_filters();
    }
    let mut cascade = Cascade::new(config.model.clone(), filters);
    cascade.normalize(learning.atom_norm);
    Ok(cascade)
}

/// Learns the layers so far on windows.
fn learn_stage(
    config: &TrainConfig,
    cascade: &mut Cascade,
    update: &SurrogateUpdate,
    sampler: &Sampler,
    mut progress: impl FnMut(f32),
) -> Result<()> {
    let learning = &config.learning;
    // All atoms in every step: stages are small.
    let update = SurrogateUpdate { atoms_per_step: 1.0, lower_every: 1, ..update.clone() };
    let pursuit = BasisPursuitConfig { gap: GAP, max_iterations: learning.max_iterations, nonnegative: false };
    let operator = operator(cascade, sampler.device)?;
    let layer = operator.geometry().windows(cascade.depth());
    let mut statistics = Statistics::new(&layer);
    let steps = learning.initialization.steps;
    // A batch beyond all there is would only cost memory.
    let batch = learning.batch_size.min(sampler.source.len().max(LEAST_BATCH));
    for step in 0..steps {
        let number = (cascade.depth() * steps + step) as u64;
        let mut generator = stream(learning.seed, Purpose::Patches, number);
        let signals = sampler.draw(batch, &mut generator)?;
        let operator = self::operator(cascade, sampler.device)?;
        let tensor = TensorData::new(signals.clone(), operator.signal().batched(batch));
        let lambda = Lambda::Relative(learning.initialization.lambda_relative);
        let pursued = Algorithm::Auto.init(&pursuit, &operator)?.pursue(
            &operator,
            Tensor::from_data(tensor, sampler.device),
            &lambda,
        )?;
        let codes: Vec<f32> = to_host(pursued.codes);
        let weight = ((step + 1) as f32).powf(-learning.pursuit.forgetting);
        statistics.add(&signals, &codes, cascade.atoms(), weight, sampler.device);
        replace_unused(cascade, &update, &mut statistics, &signals, &pursued.reports, step);
        update.step(step, cascade, &statistics);
        progress((step + 1) as f32 / steps as f32);
    }
    Ok(())
}

/// Every few steps of a stage, atoms that codes make next to no use of start again from the worst coded windows.
fn replace_unused(
    cascade: &mut Cascade,
    update: &SurrogateUpdate,
    statistics: &mut Statistics,
    signals: &[f32],
    reports: &[crate::pursuit::SignalReport],
    step: usize,
) {
    const EVERY: usize = 10;
    const UNUSED: f32 = 1e-2;
    if step % EVERY != EVERY - 1 {
        return;
    }
    let energies = statistics.energies();
    let mean = energies.iter().sum::<f32>() / energies.len() as f32;
    let unused: Vec<usize> = (0..energies.len()).filter(|&atom| energies[atom] < UNUSED * mean).collect();
    let mut worst: Vec<usize> = (0..reports.len()).collect();
    worst.sort_by(|&a, &b| reports[b].data_term.total_cmp(&reports[a].data_term));
    let count = unused.len().min(worst.len());
    let len = cascade.atoms().atom_len();
    let targets: Vec<f32> = worst[..count].iter().flat_map(|&index| &signals[index * len..][..len]).copied().collect();
    statistics.forget(&unused[..count]);
    update.seed(&unused[..count], &targets, cascade);
}

/// The operator of a cascade on the signals that it is configured for, without computing anything twice.
pub(super) fn operator(cascade: &Cascade, device: &Device) -> Result<Operator> {
    let operator = cascade.model(device)?.operator(cascade.config().signal, Application::Auto)?;
    Ok(operator.with_effective_filters(cascade.atoms().to_tensor(device)))
}

/// Draws windows of training signals.
struct Sampler<'a> {
    source: &'a dyn Source,
    geometry: &'a Geometry,
    depth: usize,
    config: &'a TrainConfig,
    device: &'a Device,
}

impl Sampler<'_> {
    /// `count` windows as large as effective atoms of this depth, one after the other, normalised as the model says.
    fn draw(&self, count: usize, generator: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        let windows_of = self.geometry.windows(self.depth);
        let len = self.source.shape().len();
        let mut found: Vec<f32> = Vec::with_capacity(count * windows_of.atom_len());
        // In chunks, so that memory does not depend on the size of the signals.
        const CHUNK: usize = 64;
        let positions = [windows_of.code.height, windows_of.code.width];
        while found.len() < count * windows_of.atom_len() {
            let wanted = (count - found.len() / windows_of.atom_len()).min(CHUNK);
            // Where a window is the whole signal every sample is as good as another; where it is a part, dull ones abound.
            let candidates = if windows_of.code.is_single_position() { wanted } else { wanted * CANDIDATES };
            let indices: Vec<usize> = (0..wanted).map(|_| generator.random_range(0..self.source.len())).collect();
            let mut signals = vec![0.0; wanted * len];
            self.source.read(&indices, &mut signals)?;
            let tensor = TensorData::new(signals, self.source.shape().batched(wanted));
            let (tensor, _) = self.config.model.normalization.apply(Tensor::from_data(tensor, self.device));
            let signals: Vec<f32> = to_host(tensor);
            let places: Vec<(&[f32], [usize; 2])> = (0..candidates)
                .map(|candidate| {
                    let signal = &signals[candidate % wanted * len..][..len];
                    (signal, positions.map(|extent| generator.random_range(0..extent)))
                })
                .collect();
            let drawn = windows(&windows_of, places);
            let mut order: Vec<&[f32]> = drawn.chunks_exact(windows_of.atom_len()).collect();
            order.sort_by(|a, b| norm(b).total_cmp(&norm(a)));
            // The upper half by energy, every other one: energetic, not only the most energetic.
            let step = if candidates > wanted { CANDIDATES / 2 } else { 1 };
            order.iter().step_by(step).take(wanted).for_each(|window| found.extend_from_slice(window));
        }
        Ok(found)
    }
}
