//! The dictionaries under training, on the host, with the effective filters of every depth beside them.

use super::config::AtomNorm;
use crate::error::Result;
use crate::geometry::LayerGeometry;
use crate::kernels::sparse::{HostFilters, SparseDictionary, SparseFilters, gradient_of_nonzeros, norm};
use crate::model::operator::cheapest;
use crate::model::{Mlcsc, ModelConfig, Operator, OperatorForm, filters_as_codes};
use burn::tensor::{Device, Tensor, TensorData};
use std::borrow::Cow;
use std::sync::OnceLock;

/// W_1 … W_L and the filters of D^(1) … D^(L), kept in agreement. W_2 … W_L are kept by their non-zeros, which is what they cost.
#[derive(Debug, Clone)]
pub struct Cascade {
    config: ModelConfig,
    /// W_1.
    first: HostFilters,
    /// W_2 … W_L.
    deeper: Vec<SparseFilters>,
    effective: Vec<HostFilters>,
    /// Filters of D^(L) on a device, made when they are first needed there.
    atoms: OnceLock<Tensor<4>>,
}

/// New atoms of the deepest layer, one after the other: filters of D_L, and the effective atoms that they make.
pub(super) struct Candidates {
    filters: Vec<f32>,
    pub(super) effective: Vec<f32>,
}

impl Cascade {
    /// From W_1 … W_L.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(config: ModelConfig, filters: Vec<HostFilters>) -> Self {
        let mut filters = filters.into_iter();
        let first = filters.next().expect("a model has layers");
        let deeper: Vec<SparseFilters> = filters.map(|filters| SparseFilters::new(&filters)).collect();
        let mut cascade = Self { config, effective: vec![first.clone()], first, deeper, atoms: OnceLock::new() };
        cascade.refresh(1);
        cascade
    }

    /// The configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        1 + self.deeper.len()
    }

    /// W_i with `layer` = i − 1; those of deeper layers than the first are written out.
    pub fn filters(&self, layer: usize) -> Cow<'_, HostFilters> {
        match layer {
            0 => Cow::Borrowed(&self.first),
            _ => Cow::Owned(self.nonzeros(layer).to_dense()),
        }
    }

    /// W_i by its non-zeros, `layer` = i − 1 ≥ 1.
    pub fn nonzeros(&self, layer: usize) -> &SparseFilters {
        &self.deeper[layer - 1]
    }

    /// Dimensions of W_i, `layer` = i − 1.
    pub fn dims(&self, layer: usize) -> [usize; 4] {
        if layer == 0 { self.first.dims() } else { self.nonzeros(layer).dims() }
    }

    /// Part of zeros in W_i, `layer` = i − 1.
    pub fn zeros_fraction(&self, layer: usize) -> f64 {
        if layer == 0 { self.first.zeros_fraction() } else { self.nonzeros(layer).zeros_fraction() }
    }

    /// W_1 … W_L.
    pub fn into_filters(self) -> Vec<HostFilters> {
        (0..self.depth()).map(|layer| self.filters(layer).into_owned()).collect()
    }

    /// All filters and all effective ones, for whoever compares them with another process's.
    pub(super) fn parts(&self) -> Vec<HostFilters> {
        let filters = (0..self.depth()).map(|layer| self.filters(layer).into_owned());
        filters.chain(self.effective.iter().cloned()).collect()
    }

    /// Puts in their places what [`Self::parts`] gave to another process.
    pub(super) fn set_parts(&mut self, mut parts: Vec<HostFilters>) {
        self.effective = parts.split_off(self.depth());
        self.deeper = parts.split_off(1).iter().map(SparseFilters::new).collect();
        parts.into_iter().for_each(|first| self.first = first);
        self.atoms.take();
    }

    /// Filters of D^(i) with `layer` = i − 1.
    pub fn effective(&self, layer: usize) -> &HostFilters {
        &self.effective[layer]
    }

    /// Filters of D^(L).
    pub fn atoms(&self) -> &HostFilters {
        &self.effective[self.depth() - 1]
    }

    /// Filters of D^(L) on a device, to which atoms are sent as they change.
    pub fn atoms_on(&self, device: &Device) -> Tensor<4> {
        let atoms = self.atoms.get_or_init(|| self.atoms().to_tensor(device));
        // Learning stays on one device.
        if atoms.device() == *device { atoms.clone() } else { self.atoms().to_tensor(device) }
    }

    /// Stride of D^(i) with `layer` = i − 1.
    pub fn stride(&self, layer: usize) -> [usize; 2] {
        self.config.layers[..=layer]
            .iter()
            .fold([1, 1], |product, shape| [product[0] * shape.stride.0[0], product[1] * shape.stride.0[1]])
    }

    /// The geometry in which the filters W_i, `layer` = i − 1 ≥ 1, are codes over D^(i−1) and those of D^(i) their signals.
    pub fn codes_below(&self, layer: usize) -> LayerGeometry {
        filters_as_codes(self.dims(layer), self.effective[layer - 1].dims(), self.stride(layer - 1))
    }

    /// Replaces W_i, `layer` = i − 1, and recomputes what depends on it.
    pub fn set_filters(&mut self, layer: usize, filters: HostFilters) {
        match layer {
            0 => self.first = filters,
            _ => self.deeper[layer - 1] = SparseFilters::new(&filters),
        }
        self.refresh(layer);
    }

    /// Replaces some atoms of the deepest layer, given one after the other, and gives them unit norm. One that makes nothing is
    /// left as it was.
    pub fn set_atoms(&mut self, atoms: &[usize], filters: &[f32], atom_norm: AtomNorm) {
        let candidates = self.candidates(atoms, filters, atom_norm);
        self.put_atoms(atoms, &candidates);
    }

    /// Some atoms of the deepest layer as [`Self::set_atoms`] would make them.
    pub(super) fn candidates(&self, atoms: &[usize], filters: &[f32], atom_norm: AtomNorm) -> Candidates {
        let layer = self.depth() - 1;
        let len = self.dims(layer)[1..].iter().product();
        let mut filters = filters.to_vec();
        let below = (layer > 0).then(|| SparseDictionary::new(&self.effective[layer - 1], &self.codes_below(layer)));
        let synthesize = |filters: &[f32]| match &below {
            None => filters.to_vec(),
            Some(below) => below.synthesize(filters),
        };
        let synthesized = synthesize(&filters);
        let effective_len = self.effective[layer].atom_len();
        for (values, synthesized) in filters.chunks_exact_mut(len).zip(synthesized.chunks_exact(effective_len)) {
            let norm = match atom_norm {
                AtomNorm::Effective => norm(synthesized),
                AtomNorm::Layer => norm(values),
            };
            values.iter_mut().for_each(|value| *value = if norm > 0.0 { *value / norm } else { 0.0 });
        }
        let mut effective = synthesize(&filters);
        let new = atoms.iter().zip(filters.chunks_exact_mut(len)).zip(effective.chunks_exact_mut(effective_len));
        for ((&atom, values), effective) in new {
            if effective.iter().all(|value| *value == 0.0) {
                match layer {
                    0 => values.copy_from_slice(self.first.atom(atom)),
                    _ => values.copy_from_slice(&self.nonzeros(layer).dense_atom(atom)),
                }
                effective.copy_from_slice(self.effective[layer].atom(atom));
            }
        }
        Candidates { filters, effective }
    }

    /// Puts atoms that [`Self::candidates`] made in their places.
    pub(super) fn put_atoms(&mut self, atoms: &[usize], candidates: &Candidates) {
        let layer = self.depth() - 1;
        let (len, effective_len) = (self.dims(layer)[1..].iter().product(), self.effective[layer].atom_len());
        let Candidates { filters, effective } = candidates;
        let new = atoms.iter().zip(filters.chunks_exact(len)).zip(effective.chunks_exact(effective_len));
        for ((&atom, values), effective) in new {
            match layer {
                0 => self.first.atom_mut(atom).copy_from_slice(values),
                _ => self.deeper[layer - 1].set_atom(atom, values),
            }
            self.effective[layer].atom_mut(atom).copy_from_slice(effective);
        }
        let (first, last) = (atoms.iter().min(), atoms.iter().max());
        if let Some((there, (&first, &last))) = self.atoms.take().zip(first.zip(last)) {
            let [_, channels, height, width] = self.atoms().dims();
            let range = first..last + 1;
            let values = self.atoms().values()[first * effective_len..(last + 1) * effective_len].to_vec();
            let values = TensorData::new(values, [range.len(), channels, height, width]);
            let values = Tensor::from_data(values, &there.device());
            let there = there.slice_assign([range, 0..channels, 0..height, 0..width], values);
            self.atoms = OnceLock::from(there);
        }
    }

    /// Effective filters from depth `layer` + 1 on.
    fn refresh(&mut self, layer: usize) {
        self.atoms.take();
        for layer in layer..self.depth() {
            self.effective.truncate(layer);
            let effective = match layer {
                0 => self.first.clone(),
                _ => self.times(layer, &self.effective[layer - 1]),
            };
            self.effective.push(effective);
        }
    }

    /// W_i, `layer` = i − 1 ≥ 1, composed with filters of the depth below: each filter of W_i is a code, and the result is what it synthesises.
    fn times(&self, layer: usize, below: &HostFilters) -> HostFilters {
        let (geometry, filters) = (self.codes_below(layer), self.nonzeros(layer));
        let synthesized = SparseDictionary::new(below, &geometry).synthesize_nonzeros(filters);
        HostFilters::new(geometry.signal.batched(filters.atoms()), synthesized)
    }

    /// Sends a change of the filters of D^(i), `layer` = i − 1, through W_{i+1} … W_L: the change of D^(L).
    pub fn push_up(&self, layer: usize, change: &HostFilters) -> HostFilters {
        (layer + 1..self.depth()).fold(change.clone(), |below, above| self.times(above, &below))
    }

    /// The gradient with respect to the filters of D^(i−1) from that with respect to the filters of D^(i), `layer` = i − 1 ≥ 1:
    /// the correlation of the gradient with the non-zeros of W_i.
    pub fn pull_down(&self, layer: usize, gradient: &HostFilters) -> HostFilters {
        let mut out = HostFilters::zeros(self.effective[layer - 1].dims());
        gradient_of_nonzeros(&self.codes_below(layer), gradient.values(), self.nonzeros(layer), out.values_mut());
        out
    }

    /// Gives all atoms unit norm without changing what the layers below the deepest do together: what an atom loses its
    /// coefficients in the layer above gain. In the deepest layer `norm` says which atoms are meant. Atoms that are all zero
    /// stay so.
    pub fn normalize(&mut self, atom_norm: AtomNorm) {
        for layer in 0..self.depth() {
            let deepest = layer + 1 == self.depth();
            let norms = match atom_norm {
                AtomNorm::Effective if deepest => self.effective[layer].norms(),
                _ if layer == 0 => self.first.norms(),
                _ => self.nonzeros(layer).norms(),
            };
            // Those that are zero stay so.
            let norms: Vec<f32> = norms.into_iter().map(|norm| if norm > 0.0 { norm } else { 1.0 }).collect();
            match layer {
                0 => {
                    let len = self.first.atom_len();
                    let atoms = self.first.values_mut().chunks_exact_mut(len).zip(&norms);
                    atoms.for_each(|(atom, norm)| atom.iter_mut().for_each(|value| *value /= norm));
                }
                _ => self.deeper[layer - 1].change(|atom, _, value| value / norms[atom]),
            }
            if let Some(above) = self.deeper.get_mut(layer) {
                above.change(|_, channel, value| value * norms[channel]);
            }
        }
        // Recomputed rather than scaled: what a resumed run computes from the filters alone must be the same to the last bit.
        self.refresh(0);
    }

    /// The model on a device.
    ///
    /// # Errors
    /// None for filters that came from a model.
    pub fn model(&self, device: &Device) -> Result<Mlcsc> {
        let filters = (0..self.depth()).map(|layer| self.filters(layer).to_tensor(device)).collect();
        Mlcsc::from_filters(self.config.clone(), filters)
    }

    /// D^(L) on the signals that the model is configured for. Where it is applied by its effective filters it is made of these, as one
    /// layer: W_1 … W_L are not needed.
    ///
    /// # Errors
    /// None for filters that came from a model.
    pub(super) fn operator(&self, device: &Device) -> Result<Operator> {
        let geometry = self.config.geometry()?;
        match (cheapest(&geometry), geometry.as_one_layer()) {
            (OperatorForm::Cascade, _) | (_, None) => {
                let operator = self.model(device)?.operator(self.config.signal, OperatorForm::Auto)?;
                Ok(operator.with_effective_filters(self.atoms_on(device)))
            }
            (application, Some(one)) => {
                let strides = one.layers().iter().map(|layer| layer.stride).collect();
                Operator::from_filters(vec![self.atoms_on(device)], strides, one, application)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient::filter_gradients;
    use super::super::statistics::{Statistics, inner};
    use super::super::surrogate::SurrogateUpdate;
    use super::super::testing::{
        assert_close, bits, cascade, configs, device, filters, in_pools, sparse, tensor, wide,
    };
    use super::*;
    use crate::kernels::sparse::to_host;
    use crate::model::OperatorForm;

    const NORMS: [AtomNorm; 2] = [AtomNorm::Effective, AtomNorm::Layer];

    /// Asserts that the filters alone give the same bits, which is what a resumed run relies on.
    fn assert_recomputed(cascade: &Cascade) {
        let again = Cascade::new(cascade.config().clone(), cascade.clone().into_filters());
        for layer in 0..cascade.depth() {
            assert_eq!(bits(cascade.effective(layer).values()), bits(again.effective(layer).values()), "{layer}");
        }
        assert_eq!(bits(&to_host(cascade.atoms_on(&device()))), bits(again.atoms().values()));
    }

    /// Statistics of random codes on random signals.
    fn statistics(cascade: &Cascade) -> Statistics {
        let geometry = cascade.config().geometry().unwrap().effective_layer().unwrap();
        let mut statistics = Statistics::new(&geometry, &device());
        let signals = sparse(51, 30 * geometry.signal.len(), 1.0);
        let codes = sparse(52, 30 * geometry.code.len(), 0.3);
        statistics.add(&tensor(&signals, geometry.signal), &tensor(&codes, geometry.code), cascade.atoms(), 1.0);
        statistics
    }

    fn update(cascade: &Cascade, atom_norm: AtomNorm) -> SurrogateUpdate {
        SurrogateUpdate {
            nonzeros: (0..cascade.depth())
                .map(|layer| {
                    let len = cascade.filters(layer).atom_len();
                    if layer == 0 { len } else { len / 4 }
                })
                .collect(),
            atom_norm,
            atoms_per_step: 0.5,
            lower_every: 1,
            exchange: 0.5,
            incoherence: 0.0,
            device: device(),
        }
    }

    #[test]
    fn effective_filters_are_the_models() {
        for config in configs() {
            let cascade = cascade(config);
            let model = cascade.model(&device()).unwrap();
            for layer in 0..cascade.depth() {
                let expected = HostFilters::from_tensor(model.effective_filters(layer + 1));
                assert_eq!(cascade.effective(layer).dims(), expected.dims());
                assert_close(cascade.effective(layer).values(), &wide(expected.values()), 1e-6, "effective filters");
                assert_eq!(cascade.stride(layer), cascade.config().geometry().unwrap().effective(layer + 1).stride);
            }
        }
    }

    #[test]
    fn down_is_the_adjoint_of_up() {
        for config in configs() {
            let cascade = cascade(config);
            let gradient = filters(61, cascade.atoms().dims(), 1.0);
            let mut pulled = gradient.clone();
            for layer in (0..cascade.depth()).rev() {
                let change = filters(62, cascade.effective(layer).dims(), 1.0);
                let pushed = cascade.push_up(layer, &change);
                let (up, down) = (inner(pushed.values(), gradient.values()), inner(change.values(), pulled.values()));
                let scale = inner(pushed.values(), pushed.values()) * inner(gradient.values(), gradient.values());
                assert!((up - down).abs() <= 1e-6 * scale.sqrt(), "layer {layer}: {up} {down}");
                if layer > 0 {
                    pulled = cascade.pull_down(layer, &pulled);
                }
            }
        }
    }

    /// The surrogate's gradient, pulled down, is the gradient of the data term with respect to the filters.
    #[test]
    fn gradients_agree_with_those_through_the_layers() {
        const COUNT: usize = 6;
        for config in configs() {
            let mut cascade = cascade(config);
            // So that no layer's numbers drown in another's.
            cascade.normalize(AtomNorm::Effective);
            let model = cascade.model(&device()).unwrap();
            let operator = model.operator(cascade.config().signal, OperatorForm::Auto).unwrap();
            let geometry = operator.geometry().effective_layer().unwrap();
            let signals = sparse(71, COUNT * geometry.signal.len(), 1.0);
            let codes = sparse(72, COUNT * geometry.code.len(), 0.3);
            let mut statistics = Statistics::new(&geometry, &device());
            let (signals, codes) = (tensor(&signals, geometry.signal), tensor(&codes, geometry.code));
            statistics.add(&signals, &codes, cascade.atoms(), 1.0);
            let residuals = operator.synthesize(codes.clone()) - signals;
            let expected = filter_gradients(&model, &operator, residuals, codes);
            let atoms = cascade.atoms().atoms();
            let gradient = statistics.gradient(0..atoms, cascade.atoms_on(&device()));
            let mut pulled = HostFilters::new(cascade.atoms().dims(), gradient);
            for layer in (1..cascade.depth()).rev() {
                pulled = cascade.pull_down(layer, &pulled);
            }
            let expected = HostFilters::from_tensor(expected[0].clone());
            let mean: Vec<f64> = wide(expected.values()).iter().map(|value| value / COUNT as f64).collect();
            assert_close(pulled.values(), &mean, 1e-5, "gradient");
        }
    }

    #[test]
    fn normalizing_changes_lengths_alone() {
        for (config, atom_norm) in configs().into_iter().flat_map(|config| NORMS.map(|norm| (config.clone(), norm))) {
            let before = cascade(config);
            let mut after = before.clone();
            after.normalize(atom_norm);
            let deepest = after.depth() - 1;
            for layer in 0..=deepest {
                let norms = match atom_norm {
                    AtomNorm::Effective if layer == deepest => after.effective(layer).norms(),
                    _ => after.filters(layer).norms(),
                };
                assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-5), "{atom_norm:?} {layer}: {norms:?}");
                for atom in 0..after.filters(layer).atoms() {
                    let (old, new) = (before.effective(layer).atom(atom), after.effective(layer).atom(atom));
                    let cosine = inner(old, new) / f64::from(norm(old) * norm(new));
                    assert!(cosine > 1.0 - 1e-5, "{atom_norm:?} {layer}: {cosine}");
                }
                let zeros = |cascade: &Cascade| -> Vec<bool> {
                    cascade.filters(layer).values().iter().map(|value| *value == 0.0).collect()
                };
                assert_eq!(zeros(&before), zeros(&after));
            }
        }
    }

    #[test]
    fn atoms_that_are_zero_stay_so() {
        for atom_norm in NORMS {
            let mut cascade = cascade(configs().remove(1));
            for layer in [1, 2] {
                let mut filters = cascade.filters(layer).into_owned();
                filters.atom_mut(0).fill(0.0);
                cascade.set_filters(layer, filters);
            }
            cascade.normalize(atom_norm);
            for layer in 0..3 {
                assert!(cascade.effective(layer).values().iter().all(|value| value.is_finite()));
                assert_eq!(cascade.filters(layer).atom(0).iter().all(|value| *value == 0.0), layer > 0);
            }
        }
    }

    #[test]
    fn set_atoms_have_unit_norm_and_empty_ones_change_nothing() {
        for (config, atom_norm) in configs().into_iter().flat_map(|config| NORMS.map(|norm| (config.clone(), norm))) {
            let mut cascade = cascade(config);
            let deepest = cascade.depth() - 1;
            let before = cascade.clone();
            let len = cascade.filters(deepest).atom_len();
            let new = [sparse(81, len, 0.3), vec![0.0; len], sparse(82, len, 0.3)].concat();
            cascade.set_atoms(&[5, 1, 2], &new, atom_norm);
            for atom in 0..cascade.atoms().atoms() {
                let same = bits(cascade.atoms().atom(atom)) == bits(before.atoms().atom(atom));
                assert_eq!(same, ![5, 2].contains(&atom), "{atom}");
            }
            for (atom, values) in [(5, &new[..len]), (2, &new[2 * len..])] {
                let length = match atom_norm {
                    AtomNorm::Effective => norm(cascade.atoms().atom(atom)),
                    AtomNorm::Layer => norm(cascade.filters(deepest).atom(atom)),
                };
                assert!((length - 1.0).abs() < 1e-5, "{length}");
                let scale = f64::from(norm(cascade.filters(deepest).atom(atom)) / norm(values));
                let expected: Vec<f64> = wide(values).iter().map(|value| scale * value).collect();
                assert_close(cascade.filters(deepest).atom(atom), &expected, 1e-5, "filters");
            }
            assert_recomputed(&cascade);
        }
    }

    #[test]
    fn the_filters_alone_say_everything() {
        for (config, atom_norm) in configs().into_iter().flat_map(|config| NORMS.map(|norm| (config.clone(), norm))) {
            let mut cascade = cascade(config);
            cascade.normalize(atom_norm);
            assert_recomputed(&cascade);
            for layer in 0..cascade.depth() {
                let new = filters(91 + layer as u64, cascade.filters(layer).dims(), 0.5);
                cascade.set_filters(layer, new);
                assert_recomputed(&cascade);
            }
            cascade.normalize(atom_norm);
            let (statistics, update) = (statistics(&cascade), update(&cascade, atom_norm));
            let before = cascade.clone();
            for step in 0..6 {
                update.step(step, &mut cascade, &statistics);
                assert_recomputed(&cascade);
            }
            for layer in 0..cascade.depth() {
                assert!(cascade.filters(layer).values() != before.filters(layer).values(), "layer {layer} never moved");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        for config in configs() {
            let [one, two, three] = in_pools(|| {
                let mut cascade = cascade(config.clone());
                cascade.normalize(AtomNorm::Effective);
                let (statistics, update) = (statistics(&cascade), update(&cascade, AtomNorm::Effective));
                (0..4).for_each(|step| update.step(step, &mut cascade, &statistics));
                let filters: Vec<_> = cascade.into_filters().iter().map(|filters| bits(filters.values())).collect();
                filters
            });
            assert!(one == two && two == three);
        }
    }
}
