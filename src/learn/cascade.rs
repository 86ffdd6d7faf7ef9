//! The dictionaries under training, on the host, with the effective filters of every depth beside them.

use super::config::AtomNorm;
use crate::error::Result;
use crate::model::geometry::LayerGeometry;
use crate::model::sparse::{HostFilters, SparseDictionary, norm};
use crate::model::{Mlcsc, ModelConfig, filters_as_codes};
use burn::tensor::Device;
use rayon::prelude::*;

/// W_1 … W_L and the filters of D^(1) … D^(L), kept in agreement.
#[derive(Debug, Clone)]
pub struct Cascade {
    config: ModelConfig,
    filters: Vec<HostFilters>,
    effective: Vec<HostFilters>,
}

impl Cascade {
    /// From W_1 … W_L.
    pub fn new(config: ModelConfig, filters: Vec<HostFilters>) -> Self {
        let mut cascade = Self { config, effective: filters.clone(), filters };
        cascade.refresh(1);
        cascade
    }

    /// The configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.filters.len()
    }

    /// W_i with `layer` = i − 1.
    pub fn filters(&self, layer: usize) -> &HostFilters {
        &self.filters[layer]
    }

    /// W_1 … W_L.
    pub fn into_filters(self) -> Vec<HostFilters> {
        self.filters
    }

    /// Filters of D^(i) with `layer` = i − 1.
    pub fn effective(&self, layer: usize) -> &HostFilters {
        &self.effective[layer]
    }

    /// Filters of D^(L).
    pub fn atoms(&self) -> &HostFilters {
        &self.effective[self.depth() - 1]
    }

    /// Stride of D^(i) with `layer` = i − 1.
    pub fn stride(&self, layer: usize) -> [usize; 2] {
        self.config.layers[..=layer]
            .iter()
            .fold([1, 1], |product, shape| [product[0] * shape.stride.0[0], product[1] * shape.stride.0[1]])
    }

    /// The geometry in which the filters W_i, `layer` = i − 1 ≥ 1, are codes over D^(i−1) and those of D^(i) their signals.
    pub fn codes_below(&self, layer: usize) -> LayerGeometry {
        filters_as_codes(self.filters[layer].dims(), self.effective[layer - 1].dims(), self.stride(layer - 1))
    }

    /// Replaces W_i, `layer` = i − 1, and recomputes what depends on it.
    pub fn set_filters(&mut self, layer: usize, filters: HostFilters) {
        self.filters[layer] = filters;
        self.refresh(layer);
    }

    /// Replaces some atoms of the deepest layer, given one after the other, and gives them unit norm. One that paints nothing is
    /// left as it was.
    pub fn set_atoms(&mut self, atoms: &[usize], filters: &[f32], atom_norm: AtomNorm) {
        let layer = self.depth() - 1;
        let len = self.filters[layer].atom_len();
        let mut filters = filters.to_vec();
        let painted = self.paint(&filters);
        let effective_len = self.effective[layer].atom_len();
        for (values, painted) in filters.chunks_exact_mut(len).zip(painted.chunks_exact(effective_len)) {
            let norm = match atom_norm {
                AtomNorm::Effective => norm(painted),
                AtomNorm::Layer => norm(values),
            };
            values.iter_mut().for_each(|value| *value = if norm > 0.0 { *value / norm } else { 0.0 });
        }
        let painted = self.paint(&filters);
        let new = atoms.iter().zip(filters.chunks_exact(len)).zip(painted.chunks_exact(effective_len));
        for ((&atom, values), painted) in new {
            if painted.iter().any(|value| *value != 0.0) {
                self.filters[layer].atom_mut(atom).copy_from_slice(values);
                self.effective[layer].atom_mut(atom).copy_from_slice(painted);
            }
        }
    }

    /// What filters of the deepest layer are as effective atoms.
    fn paint(&self, filters: &[f32]) -> Vec<f32> {
        match self.depth() - 1 {
            0 => filters.to_vec(),
            layer => SparseDictionary::new(&self.effective[layer - 1], &self.codes_below(layer)).synthesize(filters),
        }
    }

    /// Effective filters from depth `layer` + 1 on.
    fn refresh(&mut self, layer: usize) {
        for layer in layer..self.depth() {
            self.effective[layer] = if layer == 0 {
                self.filters[0].clone()
            } else {
                let geometry = self.codes_below(layer);
                let dictionary = SparseDictionary::new(&self.effective[layer - 1], &geometry);
                let [atoms, ..] = self.filters[layer].dims();
                HostFilters::new(geometry.signal.batched(atoms), dictionary.synthesize(self.filters[layer].values()))
            };
        }
    }

    /// Sends a change of the filters of D^(i), `layer` = i − 1, through W_{i+1} … W_L: the change of D^(L).
    pub fn push_up(&self, layer: usize, change: &HostFilters) -> HostFilters {
        (layer + 1..self.depth()).fold(change.clone(), |below, above| {
            let geometry = self.codes_below(above);
            let dictionary = SparseDictionary::new(&below, &geometry);
            let [atoms, ..] = self.filters[above].dims();
            HostFilters::new(geometry.signal.batched(atoms), dictionary.synthesize(self.filters[above].values()))
        })
    }

    /// The gradient with respect to the filters of D^(i−1) from that with respect to the filters of D^(i), `layer` = i − 1 ≥ 1:
    /// the correlation of the gradient with the non-zeros of W_i.
    pub fn pull_down(&self, layer: usize, gradient: &HostFilters) -> HostFilters {
        let LayerGeometry { signal, code, stride, .. } = self.codes_below(layer);
        let (filters, below) = (&self.filters[layer], self.effective[layer - 1].dims());
        let [atoms, channels, rows, columns] = filters.dims();
        debug_assert_eq!(channels, code.channels);
        let mut out = HostFilters::zeros(below);
        let [_, signal_channels, height, width] = below;
        let positions = rows * columns;
        out.values_mut().par_chunks_exact_mut(signal_channels * height * width).enumerate().for_each(
            |(channel, sum)| {
                for atom in 0..atoms {
                    let weights = &filters.atom(atom)[channel * positions..][..positions];
                    for (position, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                        let (top, left) = (position / columns * stride[0], position % columns * stride[1]);
                        let source = gradient.atom(atom);
                        for line in 0..signal_channels * height {
                            let (plane, row) = (line / height, line % height);
                            let from = (plane * signal.height + top + row) * signal.width + left;
                            let source = &source[from..][..width];
                            for (sum, &value) in sum[line * width..][..width].iter_mut().zip(source) {
                                *sum += weight * value;
                            }
                        }
                    }
                }
            },
        );
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
                _ => self.filters[layer].norms(),
            };
            for (atom, &norm) in norms.iter().enumerate().filter(|(_, norm)| **norm > 0.0) {
                self.filters[layer].atom_mut(atom).iter_mut().for_each(|value| *value /= norm);
            }
            if !deepest {
                let above = &mut self.filters[layer + 1];
                let [_, channels, rows, columns] = above.dims();
                for map in above.values_mut().chunks_exact_mut(channels * rows * columns) {
                    for (values, &norm) in map.chunks_exact_mut(rows * columns).zip(&norms) {
                        if norm > 0.0 {
                            values.iter_mut().for_each(|value| *value *= norm);
                        }
                    }
                }
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
        let filters = self.filters.iter().map(|filters| filters.to_tensor(device)).collect();
        Mlcsc::from_filters(self.config.clone(), filters)
    }
}
