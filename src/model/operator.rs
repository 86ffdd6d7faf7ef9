//! The effective dictionary D^(L) as a linear operator, and the ways to apply it.
//!
//! The same operator can be applied as the cascade of L convolutions, as one convolution with the effective filters, as one
//! dense matrix, or, inside a gradient, through the Gram matrix. All give the same numbers; which is cheapest depends on
//! the geometry, is decided by counting, and can be overridden.

use super::dictionary;
use super::{Mlcsc, effective_filters, filters_as_codes, leaf};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerGeometry, MAX_TENSOR_LEN, SignalShape};
use crate::kernels::panels::Panels;
use crate::kernels::product::product;
use crate::kernels::sparse::to_host;
use crate::kernels::spectrum;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// A way to apply D^(L).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum OperatorForm {
    /// Whichever costs least on the geometry at hand; see [`Costs`].
    #[default]
    Auto,
    /// D_1 D_2 … D_L, one convolution after the other.
    Cascade,
    /// One convolution with the effective filters.
    Filters,
    /// One dense matrix.
    Matrix,
    /// The dense matrix, and its Gram matrix in gradients.
    Gram,
}

/// How many times dearer a multiplication inside a convolution is than one inside a large matrix product.
///
/// On two cores the convolutions reach a third to a half of what matrix products do; `cargo bench --bench convolution` measures.
const CONVOLUTION_PENALTY: u64 = 3;

/// Largest dense matrix that [`OperatorForm::Auto`] builds (2²⁶ values: 256 MiB).
const MAX_AUTO_MATRIX: usize = 1 << 26;

/// Multiplications of one pursuit iteration (one synthesis and one analysis) for one signal, for every way that the geometry
/// admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// The cascade of convolutions.
    pub cascade: u64,
    /// The effective filters; `None` where padding inside the cascade makes D^(L) differ from one convolution.
    pub filters: Option<u64>,
    /// The dense matrix; `None` where it would exceed 2³⁰ values.
    pub matrix: Option<u64>,
    /// The Gram matrix; `None` where it would exceed 2³⁰ values.
    pub gram: Option<u64>,
}

impl Costs {
    /// Counts for a geometry.
    pub fn new(geometry: &Geometry) -> Self {
        let (code, signal) = (geometry.code().len(), geometry.signal().len());
        let dense = |rows: usize, columns: usize| {
            rows.checked_mul(columns).filter(|&len| len <= MAX_TENSOR_LEN).map(|len| len as u64)
        };
        let matrix = dense(code, signal);
        Self {
            cascade: geometry.layers().iter().map(|layer| 2 * layer.multiplications()).sum(),
            filters: geometry.effective_layer().map(|layer| 2 * layer.multiplications()),
            matrix: matrix.map(|len| 2 * len),
            gram: matrix.and_then(|_| dense(code, code)),
        }
    }

    /// Multiplications of one way; `None` where it is not possible.
    pub fn of(&self, application: OperatorForm) -> Option<u64> {
        match application {
            OperatorForm::Auto => None,
            OperatorForm::Cascade => Some(self.cascade),
            OperatorForm::Filters => self.filters,
            OperatorForm::Matrix => self.matrix,
            OperatorForm::Gram => self.gram,
        }
    }
}

/// The cheapest way on a geometry: fewest multiplications, those inside convolutions weighted by what they cost more, dense
/// matrices only up to 2²⁶ values.
pub fn cheapest(geometry: &Geometry) -> OperatorForm {
    let costs = Costs::new(geometry);
    let convolution =
        |layer: &LayerGeometry| 2 * layer.multiplications() * if layer.is_matrix() { 1 } else { CONVOLUTION_PENALTY };
    let (code, signal) = (geometry.code().len(), geometry.signal().len());
    let fits = |rows: usize, columns: usize| rows.saturating_mul(columns) <= MAX_AUTO_MATRIX;
    let candidates = [
        (OperatorForm::Gram, costs.gram.filter(|_| fits(code, code) && fits(code, signal))),
        (OperatorForm::Matrix, costs.matrix.filter(|_| fits(code, signal))),
        (OperatorForm::Filters, geometry.effective_layer().as_ref().map(convolution)),
        (OperatorForm::Cascade, Some(geometry.layers().iter().map(convolution).sum())),
    ];
    let cheapest =
        candidates.into_iter().filter_map(|(way, cost)| cost.map(|cost| (way, cost))).min_by_key(|&(_, cost)| cost);
    cheapest.map_or(OperatorForm::Cascade, |(way, _)| way)
}

/// D^(L) of a model on signals of one shape.
///
/// Codes and signals are tensors of one row per signal in the pursuits (`[n, code values]`, `[n, signal values]`) and of four
/// dimensions at the doors; both are the same numbers in the same order.
#[derive(Debug, Clone)]
pub struct Operator {
    geometry: Geometry,
    application: OperatorForm,
    filters: Vec<Tensor<4>>,
    strides: Vec<[usize; 2]>,
    effective: OnceLock<Tensor<4>>,
    matrix: OnceLock<DenseMatrix>,
    gram: OnceLock<Tensor<2>>,
    squared_norm: OnceLock<f64>,
    /// What [`Self::check_size`] found: of which filters (0 for those of D^(L)), and their largest magnitude.
    beyond: OnceLock<Option<(usize, f32)>>,
    layers: OnceLock<Vec<Operator>>,
    window: OnceLock<Option<Box<Operator>>>,
    /// The effective filters on the host.
    host_filters: OnceLock<Vec<f32>>,
    /// The matrix on the host.
    host_atoms: OnceLock<Vec<f32>>,
    /// The Gram matrix on the host.
    host_gram: OnceLock<Vec<f32>>,
    /// The matrix on the host, for signals that are mostly zero.
    panels: OnceLock<Panels>,
}

/// The matrix both ways round, each contiguous: a product with a transposed view costs three times as much.
#[derive(Debug, Clone)]
struct DenseMatrix {
    /// `[code values, signal values]`: row j is the effective atom of code value j.
    atoms: Tensor<2>,
    /// `[signal values, code values]`.
    transposed: Tensor<2>,
}

/// What an operator is given has its shape: a mistake of the program that calls it.
fn expect_shape(what: &str, found: &Tensor<4>, expected: SignalShape) {
    let dims = found.dims();
    assert!(dims == expected.batched(dims[0]), "{what} of shape {dims:?}, expected [n, {expected}]");
}

impl Operator {
    pub(super) fn new(model: &Mlcsc, geometry: Geometry, application: OperatorForm) -> Result<Self> {
        Self::from_filters(model.filters(), model.strides(), geometry, application)
    }

    /// D_1 … D_L with these filters, which may be those of a module under training.
    pub(crate) fn from_filters(
        filters: Vec<Tensor<4>>,
        strides: Vec<[usize; 2]>,
        geometry: Geometry,
        application: OperatorForm,
    ) -> Result<Self> {
        let application = if application == OperatorForm::Auto { cheapest(&geometry) } else { application };
        if Costs::new(&geometry).of(application).is_none() {
            let expected = match application {
                OperatorForm::Filters => "a way that allows padding in a layer after the first (cascade, matrix, gram)",
                _ => "a way that needs no dense matrix of more than 2^30 values (cascade, filters)",
            };
            return Err(Error::parameter("application", application, expected));
        }
        Ok(Self::assemble(filters, strides, geometry, application))
    }

    fn assemble(
        filters: Vec<Tensor<4>>,
        strides: Vec<[usize; 2]>,
        geometry: Geometry,
        application: OperatorForm,
    ) -> Self {
        Self {
            geometry,
            application,
            filters,
            strides,
            effective: OnceLock::new(),
            matrix: OnceLock::new(),
            gram: OnceLock::new(),
            squared_norm: OnceLock::new(),
            beyond: OnceLock::new(),
            layers: OnceLock::new(),
            window: OnceLock::new(),
            host_filters: OnceLock::new(),
            host_atoms: OnceLock::new(),
            host_gram: OnceLock::new(),
            panels: OnceLock::new(),
        }
    }

    /// The shapes of all layers on these signals.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The way in which D^(L) is applied; never [`OperatorForm::Auto`].
    pub fn application(&self) -> OperatorForm {
        self.application
    }

    /// Shape of the signals.
    pub fn signal(&self) -> SignalShape {
        self.geometry.signal()
    }

    /// Shape of the deepest codes γ_L.
    pub fn code(&self) -> SignalShape {
        self.geometry.code()
    }

    /// The device of the filters.
    pub fn device(&self) -> Device {
        self.filters[0].device()
    }

    /// The filters that it was made of, layer by layer, and their strides.
    #[cfg(feature = "train")]
    pub(crate) fn filters(&self) -> &[Tensor<4>] {
        &self.filters
    }

    /// See [`Self::filters`].
    #[cfg(feature = "train")]
    pub(crate) fn strides(&self) -> &[[usize; 2]] {
        &self.strides
    }

    /// Takes the filters of D^(L) from someone who has computed them already.
    pub(crate) fn with_effective_filters(mut self, filters: Tensor<4>) -> Self {
        self.effective = OnceLock::from(filters);
        self
    }

    /// Filters of D^(L), `[m_L, channels, k^(L) height, k^(L) width]`.
    pub fn effective_filters(&self) -> Tensor<4> {
        self.effective.get_or_init(|| effective_filters(&self.filters, &self.strides)).clone()
    }

    /// D^(L)ᵀ as a matrix whose row j is the effective atom of code value j, cropped to the signal as it is there.
    ///
    /// # Shapes
    /// - out: `[code values, signal values]`.
    pub fn atoms(&self) -> Tensor<2> {
        self.dense().atoms.clone()
    }

    /// The Gram matrix D^(L)ᵀ D^(L), `[code values, code values]`.
    pub fn gram(&self) -> Tensor<2> {
        self.gram.get_or_init(|| self.product_of_atoms()).clone()
    }

    /// [`Self::atoms`] on the host, copied there once.
    pub(crate) fn host_atoms(&self) -> &[f32] {
        self.host_atoms.get_or_init(|| to_host(self.atoms()))
    }

    /// [`Self::gram`] on the host, copied there once. It is not kept on the device for that.
    pub(crate) fn host_gram(&self) -> &[f32] {
        self.host_gram.get_or_init(|| match self.gram.get() {
            Some(gram) => to_host(gram.clone()),
            None => to_host(self.product_of_atoms()),
        })
    }

    /// [`Self::atoms`] on the host, as signals that are mostly zero are multiplied by.
    pub(crate) fn panels(&self) -> &Panels {
        self.panels.get_or_init(|| {
            let signal_len = self.signal().len();
            match self.host_atoms.get() {
                Some(atoms) => Panels::of_transposed(atoms, signal_len),
                None => Panels::of_transposed(&to_host(self.atoms()), signal_len),
            }
        })
    }

    fn product_of_atoms(&self) -> Tensor<2> {
        let dense = self.dense();
        product(dense.atoms.clone(), dense.transposed.clone())
    }

    /// An upper bound of ‖D^(L)‖², certified by powers of a Gram matrix or by Fourier, so that 1/bound is a safe step.
    pub fn squared_norm_bound(&self) -> f64 {
        *self.squared_norm.get_or_init(|| squared_norm_bound(self))
    }

    /// Refuses dictionaries, of a layer or effective, so small or so large that squares and products of what they synthesise leave single
    /// precision: codes would be NaN or zero. A dictionary of zeros alone passes.
    ///
    /// # Errors
    /// [`Error::Shape`]: the largest magnitude of filters is not from 1e-8 to 1e8.
    pub fn check_size(&self) -> Result<()> {
        let found = self.beyond.get_or_init(|| {
            let largest = |filters: &Tensor<4>| to_host(filters.clone().detach().abs().max())[0];
            let is_beyond = |largest: &f32| *largest != 0.0 && !SIZES.contains(largest);
            let layers = self.filters.iter().map(largest).enumerate().map(|(index, largest)| (index + 1, largest));
            let effective = std::iter::once_with(|| (0, largest(&self.effective_filters())));
            layers.chain(effective).find(|(_, largest)| is_beyond(largest))
        });
        let Some((layer, largest)) = found else { return Ok(()) };
        let of = match layer {
            0 => format!("the effective dictionary of layer {}", self.filters.len()),
            layer => format!("the dictionary of layer {layer}"),
        };
        let expected = format!("one from {:.0e} to {:.0e}; scale the atoms", SIZES.start(), SIZES.end());
        Err(Error::shape(format!("largest magnitude in {of}"), expected, format!("{largest:.1e}")))
    }

    /// D_1 … D_L as operators of their own, D_i from γ_i to γ_{i−1}, each applied in the way that is cheapest for it.
    pub fn layers(&self) -> &[Self] {
        self.layers.get_or_init(|| {
            self.geometry
                .single_layers()
                .zip(self.filters.iter().zip(&self.strides))
                .map(|(geometry, (filters, &stride))| {
                    let application = cheapest(&geometry);
                    Self::assemble(vec![filters.clone()], vec![stride], geometry, application)
                })
                .collect()
        })
    }

    /// D^(L) on the window of one position, applied in the way that is cheapest for it, where positions share no sample
    /// ([`Geometry::window`]).
    pub fn window(&self) -> Option<&Self> {
        let window = self.window.get_or_init(|| {
            let geometry = self.geometry.window()?;
            let application = cheapest(&geometry);
            let window = Self::assemble(self.filters.clone(), self.strides.clone(), geometry, application);
            Some(Box::new(window.with_effective_filters(self.effective_filters())))
        });
        window.as_deref()
    }

    /// Effective atoms as signals, cropped as they are in their places.
    ///
    /// # Shapes
    /// - places: indices into a code; out: `[places, signal values]`.
    ///
    /// # Panics
    /// If a place is outside the code.
    pub fn columns(&self, places: &[usize]) -> Tensor<2> {
        let (device, len) = (self.device(), self.code().len());
        assert!(places.iter().all(|&place| place < len), "places in a code of {len} values: {places:?}");
        if places.is_empty() {
            return Tensor::zeros([0, self.signal().len()], &device);
        }
        if matches!(self.application, OperatorForm::Matrix | OperatorForm::Gram) {
            let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
            return self.atoms().select(0, Tensor::<1, Int>::from_data(places.as_slice(), &device));
        }
        if let Some(layer) = self.geometry.effective_layer() {
            // Each atom is a filter at its place: no need to synthesise a whole signal for it.
            let filters = self.host_filters.get_or_init(|| to_host(self.effective_filters()));
            let mut columns = vec![0.0f32; places.len() * layer.signal.len()];
            for (column, &place) in columns.chunks_exact_mut(layer.signal.len()).zip(places) {
                synthesize(filters, &layer, place, column);
            }
            return Tensor::from_data(TensorData::new(columns, [places.len(), layer.signal.len()]), &device);
        }
        let chunk = (MAX_AUTO_MATRIX / 4 / len).max(1);
        let parts = places.chunks(chunk).map(|places| {
            let mut impulses = vec![0.0f32; places.len() * len];
            places.iter().enumerate().for_each(|(row, &place)| impulses[row * len + place] = 1.0);
            self.synthesize_rows(Tensor::from_data(TensorData::new(impulses, [places.len(), len]), &device))
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// Squared norms of the effective atoms in their places, of what a mask leaves of them.
    ///
    /// Where padding inside the cascade makes atoms differ at the borders and no dense matrix is used, every atom is synthesised
    /// once.
    ///
    /// # Shapes
    /// - mask: `[n, signal values]` of zeros and ones; out: `[n, code values]`, or `[1, code values]` without a mask.
    pub fn atom_energies(&self, mask: Option<Tensor<2>>) -> Tensor<2> {
        let mask = mask.unwrap_or_else(|| Tensor::ones([1, self.signal().len()], &self.device()));
        match (self.application, self.geometry.effective_layer()) {
            (OperatorForm::Matrix | OperatorForm::Gram, _) => product(mask, self.atoms().square().transpose()),
            (_, Some(layer)) => {
                let squares = self.effective_filters().square();
                self.flat(dictionary::analyze(self.signal_shaped(mask), squares, &layer))
            }
            _ => {
                let len = self.code().len();
                let chunk = (MAX_AUTO_MATRIX / 4 / len.max(self.signal().len())).clamp(1, len);
                let parts = (0..len).step_by(chunk).map(|start| {
                    let places: Vec<usize> = (start..(start + chunk).min(len)).collect();
                    product(mask.clone(), self.columns(&places).square().transpose())
                });
                Tensor::cat(parts.collect(), 1)
            }
        }
    }

    pub(super) fn layer_filters(&self) -> &[Tensor<4>] {
        &self.filters
    }

    /// Signals x = D^(L) γ.
    ///
    /// # Shapes
    /// - codes: `[n, code values]`; out: `[n, signal values]`.
    pub fn synthesize_rows(&self, codes: Tensor<2>) -> Tensor<2> {
        match self.application {
            OperatorForm::Matrix | OperatorForm::Gram => product(codes, self.dense().atoms.clone()),
            _ => self.flat(self.synthesize(self.code_shaped(codes))),
        }
    }

    /// Correlations β = D^(L)ᵀ x.
    ///
    /// # Shapes
    /// - signals: `[n, signal values]`; out: `[n, code values]`.
    pub fn analyze_rows(&self, signals: Tensor<2>) -> Tensor<2> {
        match self.application {
            OperatorForm::Matrix | OperatorForm::Gram => product(signals, self.dense().transposed.clone()),
            _ => self.flat(self.analyze(self.signal_shaped(signals))),
        }
    }

    /// D^(L)ᵀ D^(L) γ: one product where the Gram matrix is used, else a synthesis and an analysis.
    ///
    /// # Shapes
    /// - codes and out: `[n, code values]`.
    pub fn gram_rows(&self, codes: Tensor<2>) -> Tensor<2> {
        match self.application {
            // The Gram matrix is symmetric: no transposed copy is needed.
            OperatorForm::Gram => product(codes, self.gram()),
            _ => self.analyze_rows(self.synthesize_rows(codes)),
        }
    }

    /// Signals x = D^(L) γ.
    ///
    /// # Shapes
    /// - codes: `[n, m_L, h_L, w_L]`; out: `[n, channels, height, width]`.
    ///
    /// # Panics
    /// If codes have another shape.
    pub fn synthesize(&self, codes: Tensor<4>) -> Tensor<4> {
        expect_shape("codes", &codes, self.code());
        match (self.application, self.geometry.effective_layer()) {
            (OperatorForm::Matrix | OperatorForm::Gram, _) => {
                self.signal_shaped(self.synthesize_rows(self.flat(codes)))
            }
            (OperatorForm::Filters, Some(layer)) => dictionary::synthesize(codes, self.effective_filters(), &layer),
            _ => self.through_layers(codes),
        }
    }

    /// Correlations β = D^(L)ᵀ x.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n, m_L, h_L, w_L]`.
    ///
    /// # Panics
    /// If signals have another shape.
    pub fn analyze(&self, signals: Tensor<4>) -> Tensor<4> {
        expect_shape("signals", &signals, self.signal());
        match (self.application, self.geometry.effective_layer()) {
            (OperatorForm::Matrix | OperatorForm::Gram, _) => self.code_shaped(self.analyze_rows(self.flat(signals))),
            (OperatorForm::Filters, Some(layer)) => dictionary::analyze(signals, self.effective_filters(), &layer),
            _ => self
                .filters
                .iter()
                .zip(self.geometry.layers())
                .fold(signals, |below, (filters, layer)| dictionary::analyze(below, filters.clone(), layer)),
        }
    }

    /// Codes of a basis pursuit as functions of their correlations Dᵀ(y − Dγ), 0 on the support but for λ and its sign: the codes
    /// themselves, with the derivative (D_SᵀD_S)⁻¹ on their support S. Filters and support are constants.
    ///
    /// # Shapes
    /// - codes, correlations and out: `[n, m_L, h_L, w_L]`.
    pub(crate) fn follow(&self, codes: Tensor<4>, correlations: Tensor<4>) -> Tensor<4> {
        if let Some(layer) = self.geometry.effective_layer() {
            return dictionary::follow(codes, correlations, leaf(self.effective_filters()), &layer);
        }
        let (code, signal) = (self.code().len(), self.signal().len());
        let layer = filters_as_codes([1; 4], [code, 1, 1, signal], [1, 1]);
        let shape = codes.dims();
        let [codes, correlations] = [codes, correlations].map(|values| values.reshape([shape[0], code, 1, 1]));
        let filters = leaf(self.atoms()).reshape(layer.filter_dims());
        dictionary::follow(codes, correlations, filters, &layer).reshape(shape)
    }

    /// All representations that γ_L determines: γ_1 … γ_L with γ_{i−1} = D_i γ_i.
    ///
    /// # Shapes
    /// - codes: γ_L as `[n, m_L, h_L, w_L]`; out: L tensors, γ_i as `[n, m_i, h_i, w_i]`.
    ///
    /// # Panics
    /// If codes have another shape.
    pub fn propagate(&self, codes: Tensor<4>) -> Vec<Tensor<4>> {
        expect_shape("codes", &codes, self.code());
        let mut representations = vec![codes];
        for (filters, layer) in self.filters.iter().zip(self.geometry.layers()).skip(1).rev() {
            let above = representations[representations.len() - 1].clone();
            representations.push(dictionary::synthesize(above, filters.clone(), layer));
        }
        representations.reverse();
        representations
    }

    /// Rows of signals as images.
    pub fn signal_shaped(&self, rows: Tensor<2>) -> Tensor<4> {
        let count = rows.dims()[0];
        rows.reshape(self.signal().batched(count))
    }

    /// Rows of codes as maps.
    pub fn code_shaped(&self, rows: Tensor<2>) -> Tensor<4> {
        let count = rows.dims()[0];
        rows.reshape(self.code().batched(count))
    }

    /// Images or maps as rows.
    pub fn flat(&self, maps: Tensor<4>) -> Tensor<2> {
        let [count, channels, height, width] = maps.dims();
        maps.reshape([count, channels * height * width])
    }

    fn through_layers(&self, codes: Tensor<4>) -> Tensor<4> {
        self.filters
            .iter()
            .zip(self.geometry.layers())
            .rev()
            .fold(codes, |above, (filters, layer)| dictionary::synthesize(above, filters.clone(), layer))
    }

    fn dense(&self) -> &DenseMatrix {
        self.matrix.get_or_init(|| {
            let atoms = self.atoms_by_impulses();
            let transposed = contiguous_transpose(atoms.clone());
            DenseMatrix { atoms, transposed }
        })
    }

    /// The atoms, read off by sending every unit impulse through the cascade, a few at a time to bound memory.
    fn atoms_by_impulses(&self) -> Tensor<2> {
        let (code, signal) = (self.code(), self.signal());
        if code.is_single_position()
            && self.geometry.effective_is_convolution()
            && self.geometry.layers()[0].padding == [0, 0]
        {
            // Every filter is a whole atom: embed it in the signal.
            let filters = self.effective_filters();
            let [atoms, channels, height, width] = filters.dims();
            if [height, width] == [signal.height, signal.width] {
                return self.flat(filters);
            }
            let canvas = Tensor::zeros(signal.batched(atoms), &self.device());
            return self.flat(canvas.slice_assign([0..atoms, 0..channels, 0..height, 0..width], filters));
        }
        let widest =
            self.geometry.layers().iter().map(|layer| layer.code.len().max(layer.signal.len())).max().unwrap_or(1);
        let chunk = (MAX_AUTO_MATRIX / 4 / widest).clamp(1, code.len());
        let identity = |start: usize, end: usize| {
            let values: Vec<f32> =
                (start..end).flat_map(|row| (0..code.len()).map(move |column| f32::from(row == column))).collect();
            Tensor::<1>::from_floats(values.as_slice(), &self.device()).reshape(code.batched(end - start))
        };
        let starts = (0..code.len()).step_by(chunk);
        let rows = starts.map(|start| self.flat(self.through_layers(identity(start, (start + chunk).min(code.len())))));
        Tensor::cat(rows.collect(), 0)
    }
}

/// Writes the atom of code value `place` into a signal of zeros.
fn synthesize(filters: &[f32], layer: &LayerGeometry, place: usize, signal: &mut [f32]) {
    let SignalShape { channels, height, width } = layer.signal;
    let [rows, columns] = layer.kernel;
    let positions = layer.code.height * layer.code.width;
    let (top, left) = (place / layer.code.width % layer.code.height, place % layer.code.width);
    let atom = &filters[place / positions * layer.atom_len()..][..layer.atom_len()];
    for channel in 0..channels {
        for row in 0..rows {
            let y = (top * layer.stride[0] + row).wrapping_sub(layer.padding[0]);
            for column in 0..columns {
                let x = (left * layer.stride[1] + column).wrapping_sub(layer.padding[1]);
                // What padding crops wraps around to a place beyond the signal.
                if y < height && x < width {
                    signal[(channel * height + y) * width + x] = atom[(channel * rows + row) * columns + column];
                }
            }
        }
    }
}

/// The transpose as a tensor of its own.
fn contiguous_transpose(matrix: Tensor<2>) -> Tensor<2> {
    // Adding zero copies the transposed view into its own memory on every backend.
    matrix.transpose() + 0.0
}

/// Magnitudes of filters whose squares, and the inverses of these, stay far from the ends of single precision.
const SIZES: RangeInclusive<f32> = 1e-8..=1e8;

/// Dense matrices up to this size (2²⁰ values: 4 MiB) are built for the sake of their norm.
const MAX_SMALL_MATRIX: usize = 1 << 20;

/// An upper bound of ‖D^(L)‖², within a few per cent of it for single convolutions on signals much larger than their kernels,
/// for small dictionaries and for matrices.
///
/// The bound by Fourier is that of a dictionary with atoms at every shift. Where few shifts exist it is far from the norm (by
/// a factor of 28 for 24 atoms as large as the signal), so that there the matrix is used whatever the way of application. With padding
/// inside the cascade the product of the layers' bounds is used, which may be looser.
fn squared_norm_bound(operator: &Operator) -> f64 {
    let (code, signal) = (operator.code(), operator.signal());
    if matches!(operator.application(), OperatorForm::Matrix | OperatorForm::Gram)
        || code.len().saturating_mul(signal.len())
            <= if code.is_single_position() { MAX_TENSOR_LEN } else { MAX_SMALL_MATRIX }
    {
        return of_matrix(operator);
    }
    if let Some(layer) = operator.geometry().effective_layer() {
        return spectrum::of_filters(operator.effective_filters(), layer.stride);
    }
    operator
        .layer_filters()
        .iter()
        .zip(operator.geometry().layers())
        .map(|(filters, layer)| spectrum::of_filters(filters.clone(), layer.stride))
        .product()
}

/// Bound by powers of the smaller of the two Gram matrices.
fn of_matrix(operator: &Operator) -> f64 {
    // A bound is a constant: no gradient goes through it.
    let atoms = operator.atoms().detach();
    let [code, signal] = atoms.dims();
    let gram = match (operator.application(), code <= signal) {
        (OperatorForm::Gram, true) => operator.gram().detach(),
        (_, true) => product(atoms.clone(), atoms.transpose()),
        (_, false) => product(atoms.clone().transpose(), atoms),
    };
    spectrum::power_bound(gram)
}
