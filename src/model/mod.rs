//! The Multi-Layer Convolutional Sparse Coding model: dictionaries, their cascade, the effective dictionary.
//!
//! A signal is x = D_1 γ_1 with γ_1 = D_2 γ_2, …, γ_{L−1} = D_L γ_L and every γ_i sparse, hence x = D^(L) γ_L with the
//! *effective dictionary* D^(L) = D_1 D_2 … D_L (J. Sulam, V. Papyan, Y. Romano, M. Elad, "Multi-Layer Convolutional Sparse
//! Modeling: Pursuit and Dictionary Learning", IEEE Trans. Signal Processing 66(15), 2018).

pub(crate) mod config;
pub mod design;
pub(crate) mod dictionary;
pub mod file;
pub mod normalization;
pub(crate) mod operator;
pub mod preset;
pub mod sample;
pub mod stripe;

pub use config::ModelConfig;
pub use dictionary::Dictionary;
pub use file::CodingDefaults;
pub use operator::{Costs, Operator, OperatorForm};

use crate::error::{Error, Result};
use crate::geometry::{LayerGeometry, SignalShape};
use crate::random;
use crate::text::counted;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

/// An ML-CSC model: the dictionaries D_1 … D_L.
#[derive(Module, Debug)]
pub struct Mlcsc {
    /// The dictionaries, D_1 first.
    pub layers: Vec<Dictionary>,
    #[module(skip)]
    config: ModelConfig,
}

impl ModelConfig {
    /// A model whose filters are all zero, to be filled by learning or loading.
    ///
    /// # Errors
    /// As [`ModelConfig::geometry`].
    pub fn init(&self, device: &Device) -> Result<Mlcsc> {
        let geometry = self.geometry()?;
        let layers = geometry.layers().iter().map(|layer| Dictionary::zeros(layer, device)).collect();
        Ok(Mlcsc { layers, config: self.clone() })
    }

    /// A model with random filters, the same for the same seed: normal values, filters of unit norm, and effective atoms of unit norm.
    ///
    /// # Errors
    /// As [`ModelConfig::geometry`].
    pub fn init_random(&self, seed: u64, device: &Device) -> Result<Mlcsc> {
        let geometry = self.geometry()?;
        let mut generator = sample::generator(seed);
        let filters: Vec<Tensor<4>> = geometry
            .layers()
            .iter()
            .map(|layer| {
                let dims = layer.filter_dims();
                let values = random::normal(&mut generator, dims.iter().product());
                let filters: Tensor<4> = Tensor::from_data(TensorData::new(values, dims), device);
                unit_norm(filters.clone(), filters)
            })
            .collect();
        let strides: Vec<[usize; 2]> = self.layers.iter().map(|layer| layer.stride.0).collect();
        Mlcsc::from_filters(self.clone(), with_unit_atoms(filters, &strides))
    }
}

impl Mlcsc {
    /// A model with these filters W_1 … W_L.
    ///
    /// # Shapes
    /// - filters: W_i as `[m_i, m_{i−1}, kernel height, kernel width]`.
    ///
    /// # Errors
    /// A number or a shape of filters that does not fit `config`; filters that are not finite; a `config` that does not fit itself.
    pub fn from_filters(config: ModelConfig, filters: Vec<Tensor<4>>) -> Result<Self> {
        let geometry = config.geometry()?;
        if filters.len() != geometry.depth() {
            return Err(Error::shape("filters of a model", counted(geometry.depth(), "layer"), filters.len()));
        }
        let layers = geometry
            .layers()
            .iter()
            .zip(&config.layers)
            .zip(filters)
            .enumerate()
            .map(|(index, ((layer, shape), filters))| {
                if filters.dims() != layer.filter_dims() {
                    return Err(Error::shape(
                        format!("filters of layer {}", index + 1),
                        format!("{:?}", layer.filter_dims()),
                        format!("{:?}", filters.dims()),
                    ));
                }
                if !crate::device::scalar::<1, _, bool>(filters.clone().is_finite().all()) {
                    let expected = "finite values";
                    return Err(Error::shape(
                        format!("filters of layer {}", index + 1),
                        expected,
                        "NaN or infinite ones",
                    ));
                }
                Ok(Dictionary::from_filters(filters, shape))
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, config })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The device that holds the filters.
    pub fn device(&self) -> Device {
        self.layers[0].filters.val().device()
    }

    /// The filters W_1 … W_L.
    ///
    /// # Shapes
    /// - out: W_i as `[m_i, m_{i−1}, kernel height, kernel width]`.
    pub fn filters(&self) -> Vec<Tensor<4>> {
        self.layers.iter().map(|layer| layer.filters.val()).collect()
    }

    /// The filters of the effective dictionary D^(i), with `depth` = i in 1..=L: what one coefficient of γ_i synthesises in the
    /// signal, borders aside.
    ///
    /// They are the filters of D_i sent through D_{i−1} … D_1 as if each were a code.
    ///
    /// # Shapes
    /// - out: `[m_i, channels of the signal, k^(i) height, k^(i) width]`.
    ///
    /// # Panics
    /// If `depth` is 0 or larger than the number of layers.
    pub fn effective_filters(&self, depth: usize) -> Tensor<4> {
        effective_filters(&self.filters()[..depth], &self.strides()[..depth])
    }

    /// The strides of all layers.
    pub(crate) fn strides(&self) -> Vec<[usize; 2]> {
        self.layers.iter().map(Dictionary::stride).collect()
    }

    /// The first `depth` layers alone, on signals of another shape.
    ///
    /// # Errors
    /// A depth outside 1..=L; a shape that the kernels don't fit.
    pub fn truncated(&self, depth: usize, signal: SignalShape) -> Result<Self> {
        if depth == 0 || depth > self.depth() {
            return Err(Error::parameter("depth", depth, format!("1 to {}", self.depth())));
        }
        let config = ModelConfig { signal, layers: self.config.layers[..depth].to_vec(), ..self.config.clone() };
        Self::from_filters(config, self.filters()[..depth].to_vec())
    }

    /// The first `depth` layers on one window as large as the atoms of D^(i), i = `depth`, so that γ_i has one position, with
    /// filters of layer i scaled so that those atoms have unit norm; atoms that are zero stay so.
    ///
    /// # Errors
    /// A depth outside 1..=L.
    pub fn with_unit_atoms(&self, depth: usize) -> Result<Self> {
        if depth == 0 || depth > self.depth() {
            return Err(Error::parameter("depth", depth, format!("1 to {}", self.depth())));
        }
        let atoms = self.effective_filters(depth);
        let [_, channels, height, width] = atoms.dims();
        let mut filters = self.filters()[..depth].to_vec();
        filters[depth - 1] = unit_norm(filters[depth - 1].clone(), atoms);
        let layers = self.config.layers[..depth].iter().map(|layer| layer.clone().with_padding(0)).collect();
        let signal = SignalShape::new(channels, height, width);
        Self::from_filters(ModelConfig { signal, layers, ..self.config.clone() }, filters)
    }

    /// The model on signals of that shape, ready to synthesise and analyse.
    ///
    /// # Errors
    /// Signals that the model cannot take; a way of application that this geometry does not admit.
    pub fn operator(&self, signal: SignalShape, application: OperatorForm) -> Result<Operator> {
        Operator::new(self, self.config.geometry_on(signal)?, application)
    }
}

/// The same values as a leaf of their own: no gradient goes back through them, and none is shared with where they come from.
pub(crate) fn leaf<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    match values.is_autodiff() {
        true => Tensor::from_inner(values.inner()),
        false => values,
    }
}

/// Filters divided by the norms of the atoms that they make; those that make nothing stay as they are.
///
/// # Shapes
/// - filters: `[m, channels, kernel height, kernel width]`; synthesized: `[m, …]`, for filters of the first layer themselves.
pub(crate) fn unit_norm(filters: Tensor<4>, synthesized: Tensor<4>) -> Tensor<4> {
    let norms = synthesized.square().sum_dims(&[1, 2, 3]).sqrt();
    let nothing = norms.clone().equal_scalar(0.0);
    filters / norms.mask_fill(nothing, 1.0)
}

/// Filters W_1 … W_L with those of the deepest layer divided by the norms of the effective atoms that they make.
///
/// # Shapes
/// - filters and out: W_i as `[m_i, m_{i−1}, kernel height, kernel width]`.
pub(crate) fn with_unit_atoms(mut filters: Vec<Tensor<4>>, strides: &[[usize; 2]]) -> Vec<Tensor<4>> {
    let atoms = effective_filters(&filters, strides);
    if let Some(deepest) = filters.pop() {
        filters.push(unit_norm(deepest, atoms));
    }
    filters
}

/// Geometry of layer i = `depth` when the filters of the layer above are its codes: nothing is cropped.
pub(crate) fn filters_as_codes(above: [usize; 4], filters: [usize; 4], stride: [usize; 2]) -> LayerGeometry {
    let [_, _, code_height, code_width] = above;
    let [atoms, channels, kernel_height, kernel_width] = filters;
    LayerGeometry {
        signal: SignalShape::new(
            channels,
            (code_height - 1) * stride[0] + kernel_height,
            (code_width - 1) * stride[1] + kernel_width,
        ),
        code: SignalShape::new(atoms, code_height, code_width),
        kernel: [kernel_height, kernel_width],
        stride,
        padding: [0, 0],
        output_padding: [0, 0],
    }
}

/// Filters of D_1 … D_i for the filters W_1 … W_i and their strides; see [`Mlcsc::effective_filters`].
///
/// From below: W_i are codes over the effective atoms below them, which have the signal's few channels. From above, as codes that go
/// down layer by layer, the same costs several times as much.
pub(crate) fn effective_filters(filters: &[Tensor<4>], strides: &[[usize; 2]]) -> Tensor<4> {
    let (first, above) = filters.split_first().expect("a model has at least one layer");
    let mut product = [1, 1];
    above.iter().zip(strides).fold(first.clone(), |effective, (codes, stride)| {
        product = std::array::from_fn(|axis| product[axis] * stride[axis]);
        let geometry = filters_as_codes(codes.dims(), effective.dims(), product);
        dictionary::synthesize(codes.clone(), effective, &geometry)
    })
}
