//! Dictionaries to start from, taken from the data layer by layer.
//!
//! The atoms of D_1 start as windows of training signals and learn for a few steps on such windows alone. With them fixed in
//! shape, atoms of D_2 start as sparse codes, over D_1, of larger windows, and learn (D_1 with them) on such windows; and so on.
//! The deepest layer starts from codes of real samples and is left to the training itself. So a stage is a small dictionary
//! learning problem of its own, by the same update. Where atoms of a stage overlap, it learns on windows some atoms wide, of which
//! every code position can be active: an atom that explains a sample wherever it lies needs no copies of itself at other places of
//! its kernel, and can lie in the middle of it (see `alignment`).

use super::alignment::{self, Explained};
use super::cascade::Cascade;
use super::config::TrainConfig;
use super::reseeding::Fresh;
use super::statistics::Statistics;
use super::surrogate::{SurrogateUpdate, windows};
use crate::data::Source;
use crate::error::Result;
use crate::geometry::{Geometry, LayerGeometry, LayerShape, SignalShape, reach_within};
use crate::kernels::sparse::{HostFilters, norm, to_host};
use crate::model::ModelConfig;
use crate::pursuit::{Algorithm, BasisPursuitConfig, Lambda};
use crate::random::{Purpose, stream};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

/// Windows looked at for every one that is taken; the more energetic ones are.
const CANDIDATES: usize = 4;

/// Relative duality gap of codes during initialisation.
const GAP: f32 = 1e-2;

/// Windows that a step may look at however few signals there are, since a signal can have many.
const LEAST_BATCH: usize = 256;

/// Extent of the windows of a stage whose atoms overlap, in kernels.
const WIDE: usize = 3;

/// Windows of several positions that a step looks at, at least.
const LEAST_WIDE: usize = 32;

/// Part of the atoms that are updated in a step of a stage whose atoms overlap: there each has a system of its own to be solved.
const ATOMS_OF_WIDE: f32 = 0.5;

/// Steps between two searches for atoms that start again, part of the mean energy of codes below which one does, and part of the steps
/// after which none do, so that new ones can settle.
const REPLACE_EVERY: usize = 10;
const UNUSED: f32 = 1e-2;
const REPLACE_UNTIL: f32 = 0.8;

/// Inner products of overlapping atoms up to which a stage takes windows of several positions.
const MAX_OVERLAPS: usize = 1 << 24;

/// Initial dictionaries for a configuration from training signals.
///
/// `progress` is called with the layer (1-based) and the part of its steps that is done.
///
/// # Errors
/// Signals that cannot be read; whatever `progress` ends it by.
pub fn initialize(
    config: &TrainConfig,
    geometry: &Geometry,
    source: &dyn Source,
    device: &Device,
    mut progress: impl FnMut(usize, f32) -> Result<()>,
) -> Result<Cascade> {
    let learning = &config.learning;
    let nonzeros = learning.nonzeros(geometry);
    let mut filters: Vec<HostFilters> = Vec::new();
    for (layer, shape) in geometry.layers().iter().enumerate() {
        let depth = layer + 1;
        let windows_of = geometry.windows(depth);
        let deepest = depth == geometry.depth();
        let wide = if deepest { windows_of.clone() } else { wide(&windows_of) };
        let stage = ModelConfig {
            signal: SignalShape::new(wide.signal.channels, wide.kernel[0], wide.kernel[1]),
            layers: config.model.layers[..depth]
                .iter()
                .map(|layer| LayerShape { padding: 0.into(), ..layer.clone() })
                .collect(),
            ..config.model.clone()
        };
        let sampler = Sampler { source, config, device };
        let mut generator = stream(learning.seed, Purpose::Seeds, layer as u64);
        let targets = sampler.draw(&windows_of, shape.code.channels, &mut generator)?;
        filters.push(HostFilters::zeros(shape.filter_dims()));
        let mut cascade = Cascade::new(stage, filters);
        let update = SurrogateUpdate::new(learning, nonzeros[..depth].to_vec(), device);
        let all: Vec<usize> = (0..shape.code.channels).collect();
        update.seed(&all, &targets, &mut cascade);
        cascade.normalize(learning.atom_norm);
        if !deepest {
            learn_stage(config, &mut cascade, &update, (&sampler, &wide), |part| progress(depth, part))?;
        }
        filters = cascade.into_filters();
    }
    let mut cascade = Cascade::new(config.model.clone(), filters);
    cascade.normalize(learning.atom_norm);
    Ok(cascade)
}

/// Windows some kernels wide in place of those of one position, as far as signals have them; where atoms do not overlap, or too many
/// would, the same as before.
fn wide(windows_of: &LayerGeometry) -> LayerGeometry {
    let LayerGeometry { kernel, stride, code, .. } = *windows_of;
    let positions = |axis: usize, extent: usize| ((WIDE - 1) * kernel[axis] / stride[axis] + 1).min(extent);
    let positions = [positions(0, code.height), positions(1, code.width)];
    let reach = reach_within(kernel, stride, positions);
    let overlaps =
        reach.iter().try_fold(code.channels * code.channels, |product, reach| product.checked_mul(2 * reach + 1));
    if reach == [0, 0] || overlaps.is_none_or(|overlaps| overlaps > MAX_OVERLAPS) {
        return windows_of.clone();
    }
    windows_of.neighbouring(positions)
}

/// Learns the layers so far on windows.
fn learn_stage(
    config: &TrainConfig,
    cascade: &mut Cascade,
    update: &SurrogateUpdate,
    (sampler, windows_of): (&Sampler, &LayerGeometry),
    mut progress: impl FnMut(f32) -> Result<()>,
) -> Result<()> {
    let learning = &config.learning;
    let operator = cascade.operator(sampler.device)?;
    let positions = operator.code().height * operator.code().width;
    // All atoms in every step where that is little work.
    let atoms_per_step = if positions > 1 { ATOMS_OF_WIDE } else { 1.0 };
    let update = SurrogateUpdate { atoms_per_step, lower_every: 1, ..update.clone() };
    let pursuit = BasisPursuitConfig { gap: GAP, max_iterations: learning.max_iterations, nonnegative: false };
    let layer = cascade.config().geometry()?.windows(cascade.depth());
    let mut statistics = Statistics::new(&layer, sampler.device);
    let steps = learning.initialization.steps;
    // A batch beyond all there is would only cost memory.
    let batch = learning.batch_size.min(sampler.source.len().max(LEAST_BATCH));
    let batch = batch.min((4 * batch / positions).max(LEAST_WIDE));
    for step in 0..steps {
        let number = (cascade.depth() * steps + step) as u64;
        let mut generator = stream(learning.seed, Purpose::Patches, number);
        let signals = sampler.draw(windows_of, batch, &mut generator)?;
        let operator = cascade.operator(sampler.device)?;
        let data = TensorData::new(signals.clone(), operator.signal().batched(batch));
        let tensor = Tensor::from_data(data, sampler.device);
        let lambda = Lambda::Relative(learning.initialization.lambda_relative);
        let pursued = Algorithm::Auto.init(&pursuit, &operator)?.pursue(&operator, tensor.clone(), &lambda)?;
        let weight = ((step + 1) as f32).powf(-learning.pursuit.forgetting);
        statistics.add(&tensor, &pursued.codes, cascade.atoms(), weight);
        if step % REPLACE_EVERY == REPLACE_EVERY - 1 && (step as f32) < REPLACE_UNTIL * steps as f32 {
            let codes = to_host(pursued.codes.clone());
            let residuals = to_host(tensor - operator.synthesize(pursued.codes));
            let generator = stream(learning.seed, Purpose::Reseeding, number);
            let explained = Explained { codes: &codes, residuals: &residuals };
            replace(cascade, &update, &mut statistics, &signals, explained, generator)?;
        }
        update.step(step, cascade, &statistics);
        progress((step + 1) as f32 / steps as f32)?;
    }
    Ok(())
}

/// Atoms of a stage that start again from windows that are represented badly: those that codes make next to no use of, and such as
/// say the same as others. The others move to the middle of their kernels.
fn replace(
    cascade: &mut Cascade,
    update: &SurrogateUpdate,
    statistics: &mut Statistics,
    signals: &[f32],
    explained: Explained,
    generator: ChaCha8Rng,
) -> Result<()> {
    let geometry = cascade.config().geometry()?;
    let windows_of = geometry.windows(geometry.depth());
    let energies = statistics.energies();
    let mean = energies.iter().sum::<f32>() / energies.len() as f32;
    let mut replaced: Vec<usize> = (0..energies.len()).filter(|&atom| energies[atom] < UNUSED * mean).collect();
    let aligning = statistics.overlap();
    if aligning {
        replaced.extend(alignment::twins(cascade, &energies, &windows_of, &update.device));
    }
    replaced.sort_unstable();
    replaced.dedup();
    Fresh::find(cascade, &windows_of, signals, explained, (&replaced, aligning), generator).seed(
        update,
        Some(statistics),
        cascade,
    );
    Ok(())
}

/// Draws windows of training signals.
struct Sampler<'a> {
    source: &'a dyn Source,
    config: &'a TrainConfig,
    device: &'a Device,
}

impl Sampler<'_> {
    /// `count` windows, one after the other, of signals that are normalised as the model says.
    fn draw(&self, windows_of: &LayerGeometry, count: usize, generator: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        let len = self.source.shape().len();
        let mut found: Vec<f32> = Vec::with_capacity(count * windows_of.atom_len());
        // In chunks, so that memory does not depend on the size of the signals.
        const CHUNK: usize = 64;
        let positions = [windows_of.code.height, windows_of.code.width];
        let mut taken = HashSet::new();
        while found.len() < count * windows_of.atom_len() {
            let wanted = (count - found.len() / windows_of.atom_len()).min(CHUNK);
            // Where a window is the whole signal every sample is as good as another; where it is a part, dull ones abound.
            let candidates = if windows_of.code.is_single_position() { wanted } else { wanted * CANDIDATES };
            let mut indices: Vec<usize> = (0..wanted).map(|_| generator.random_range(0..self.source.len())).collect();
            if windows_of.code.is_single_position() && windows_of.signal == self.source.shape() {
                // Of a signal that was drawn before the window would be the same, and an atom a copy of another: the next one in its place.
                for index in &mut indices {
                    while taken.len() < self.source.len() && !taken.insert(*index) {
                        *index = (*index + 1) % self.source.len();
                    }
                }
            }
            let mut signals = vec![0.0; wanted * len];
            self.source.read(&indices, &mut signals)?;
            let tensor = TensorData::new(signals, self.source.shape().batched(wanted));
            let (tensor, _) = self.config.model.normalizer().apply(Tensor::from_data(tensor, self.device));
            let signals: Vec<f32> = to_host(tensor);
            let places: Vec<(&[f32], [usize; 2])> = (0..candidates)
                .map(|candidate| {
                    let signal = &signals[candidate % wanted * len..][..len];
                    (signal, positions.map(|extent| generator.random_range(0..extent)))
                })
                .collect();
            let drawn = windows(windows_of, places);
            let mut order: Vec<&[f32]> = drawn.chunks_exact(windows_of.atom_len()).collect();
            order.sort_by(|a, b| norm(b).total_cmp(&norm(a)));
            // The upper half by energy, every other one: energetic, not only the most energetic.
            let step = if candidates > wanted { CANDIDATES / 2 } else { 1 };
            order.iter().step_by(step).take(wanted).for_each(|window| found.extend_from_slice(window));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, open};
    use crate::learn::config::LearningConfig;

    /// Of as many signals as atoms each is taken: two atoms from one signal would be the same, and stay so.
    #[test]
    fn atoms_start_from_different_signals() {
        let data = DataConfig { count: Some(60), ..DataConfig::default() };
        let train = open(&data).unwrap().train;
        let layer = LayerShape::new(train.len(), 28, 1);
        let model = ModelConfig::new(train.shape(), vec![layer]);
        let config = TrainConfig { model, data, learning: LearningConfig::default() };
        let device = crate::device::named(None).unwrap();
        let geometry = config.model.geometry().unwrap();
        let cascade = initialize(&config, &geometry, &*train, &device, |_, _| Ok(())).unwrap();
        let atoms: Vec<Vec<f32>> = cascade.filters(0).values().chunks_exact(784).map(<[f32]>::to_vec).collect();
        assert_eq!(atoms.len(), 50);
        for (index, atom) in atoms.iter().enumerate() {
            assert!(!atoms[..index].contains(atom), "atom {index}");
        }
    }
}
