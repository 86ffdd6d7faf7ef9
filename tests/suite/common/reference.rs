//! Problems with solutions by other software; `tests/reference/README.md` says what each array is.

use super::{Case, tensor};
use burn::tensor::{Device, Tensor};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::ModelConfig;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Every problem's folder.
pub const NAMES: [&str; 5] = ["one_layer", "two_layer", "three_layer", "stride_two", "three_channel"];

/// What `meta.json` says, as far as it is tested.
#[derive(Debug, Deserialize)]
pub struct Meta {
    pub input_shape: [usize; 3],
    pub layers: Vec<LayerMeta>,
    pub signals: usize,
    pub omp_nonzeros: usize,
    pub spectral_norm_squared: f64,
    pub coherence_layer: Vec<f64>,
    pub coherence_effective: Vec<f64>,
    #[serde(rename = "true_l0inf_stripe_of_gamma_L")]
    pub true_stripe_norms: Vec<usize>,
}

/// One layer of `meta.json`.
#[derive(Debug, Deserialize)]
pub struct LayerMeta {
    pub atoms: usize,
    pub kernel: usize,
    pub stride: usize,
    pub code_shape: [usize; 3],
    pub effective_kernel: usize,
    pub effective_stride: usize,
}

/// An array as it stands in its file.
#[derive(Debug)]
pub struct Array {
    pub dims: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// The values in single precision.
    pub fn narrow(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// As a batch of four dimensions.
    pub fn batch(&self, device: &Device) -> Tensor<4> {
        tensor(&self.narrow(), self.dims[..].try_into().unwrap(), device)
    }

    /// Row `index` of the first dimension.
    pub fn row(&self, index: usize) -> &[f64] {
        let len = self.values.len() / self.dims[0];
        &self.values[index * len..][..len]
    }
}

/// One problem.
pub struct Reference {
    folder: PathBuf,
    pub name: &'static str,
    pub meta: Meta,
}

impl Reference {
    pub fn load(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
        let meta = std::fs::read_to_string(folder.join("meta.json")).unwrap();
        Self { folder, name, meta: serde_json::from_str(&meta).unwrap() }
    }

    /// All problems.
    pub fn all() -> Vec<Self> {
        NAMES.into_iter().map(Self::load).collect()
    }

    /// The array in `{name}.npy`.
    pub fn array(&self, name: &str) -> Array {
        let bytes = std::fs::read(self.folder.join(format!("{name}.npy"))).unwrap();
        let file = npyz::NpyFile::new(bytes.as_slice()).unwrap();
        assert_eq!(file.order(), npyz::Order::C, "{name}");
        Array { dims: file.shape().iter().map(|&extent| extent as usize).collect(), values: file.into_vec().unwrap() }
    }

    /// The model.
    pub fn case(&self) -> Case {
        let [channels, height, width] = self.meta.input_shape;
        let layers = self.meta.layers.iter().map(|layer| LayerShape::new(layer.atoms, layer.kernel, layer.stride));
        let config = ModelConfig::new(SignalShape::new(channels, height, width), layers.collect());
        let filters = (1..=self.meta.layers.len()).map(|layer| self.array(&format!("filters_{layer}")).narrow());
        Case { filters: filters.collect(), config, seed: 0 }
    }

    /// λ of every signal.
    pub fn lambda(&self) -> Vec<f32> {
        self.array("lambda").narrow()
    }
}
