//! Networks that classify, whose layers are a pursuit's iterations: trained with labels, from end to end.
//!
//! J. Sulam, A. Aberdam, A. Beck and M. Elad ("On Multi-Layer Basis Pursuit, Efficient Algorithms and Convolutional Neural
//! Networks", IEEE TPAMI 42(8), 2020, section 5) put a linear classifier on the deepest codes γ_L of a non-negative pursuit and train
//! dictionaries, biases (minus the thresholds) and steps c_i with it. With γ_0 = y, the signal, and φ(x) = max(x, 0):
//!
//! | [`NetworkPursuit`] | layers |
//! |---|---|
//! | `Thresholding` | γ_i = φ(D_iᵀγ_{i−1} + b_i): the plain convolutional network |
//! | `MlIsta` | T times, from γ_L = 0: γ̃_{i−1} = D_i γ̃_i downwards from γ̃_L = γ_L, then γ_i = φ(γ̃_i − c_i D_iᵀ(γ̃_{i−1} − γ_{i−1}) + b_i) upwards |
//! | `MlFista` | the same from γ̃_L = γ_L plus momentum |
//! | `MlLista` | as `MlIsta`, with free weights A_i in place of D_iᵀ |
//! | `LayeredBasisPursuit` | layer by layer, T times each, from γ_i = 0: γ_i ← φ(γ_i − c_i D_iᵀ(D_i γ_i − γ_{i−1}) + b_i) |
//!
//! All but `MlLista` have the plain network's number of parameters, and L steps.

use crate::autoencoder::{Autoencoder, Coded, Outcome, Trainable, TrainingBatch, check_batch};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, LayerGeometry, LayerShape, MAX_TENSOR_LEN, SignalShape, checked_len};
use crate::model::{Dictionary, ModelConfig, Operator, OperatorForm, effective_filters};
use crate::random::{Purpose, stream, uniform};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Most iterations that are unrolled (2¹⁰).
pub const MAX_ITERATIONS: usize = 1 << 10;

/// Most classes: labels are bytes.
pub const MAX_CLASSES: usize = 256;

/// Norm of a network's filters before training.
pub const INITIAL_NORM: f32 = 0.1;

/// What the layers of a [`PursuitNetwork`] do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum NetworkPursuit {
    /// One thresholding a layer: a plain convolutional network.
    #[strum(serialize = "cnn")]
    #[serde(rename = "cnn", alias = "thresholding")]
    Thresholding,
    /// Steps through all layers. The default.
    #[default]
    MlIsta,
    /// Steps through all layers, accelerated.
    MlFista,
    /// Steps through all layers, analysis by weights of its own.
    MlLista,
    /// Every layer's basis pursuit, one after the other.
    #[strum(serialize = "layered-bp")]
    #[serde(rename = "layered-bp", alias = "layered-basis-pursuit")]
    LayeredBasisPursuit,
}

/// Configuration of a [`PursuitNetwork`].
#[derive(Config, Debug, PartialEq)]
pub struct PursuitNetworkConfig {
    /// Geometry of D_1 … D_L, and the normalisation of signals.
    pub model: ModelConfig,
    /// Number of classes, from 2 to [`MAX_CLASSES`].
    pub classes: usize,
    /// What the layers do.
    #[config(default = "NetworkPursuit::MlIsta")]
    pub pursuit: NetworkPursuit,
    /// Iterations T, from 1 to [`MAX_ITERATIONS`]; `Thresholding` has one whatever stands here.
    #[config(default = 6)]
    pub iterations: usize,
}

impl PursuitNetworkConfig {
    /// The paper's network for MNIST: 32, 64 and 512 filters of 6×6, 6×6 and 4×4 with strides 2, 2 and 1.
    pub fn mnist(pursuit: NetworkPursuit) -> Self {
        let layers = vec![LayerShape::new(32, 6, 2), LayerShape::new(64, 6, 2), LayerShape::new(512, 4, 1)];
        Self::new(ModelConfig::new(SignalShape::new(1, 28, 28), layers), 10).with_pursuit(pursuit)
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// As [`ModelConfig::geometry`]; the first setting that is out of range, by name.
    pub fn check(&self) -> Result<Geometry> {
        let geometry = self.model.geometry()?;
        if !(1..=MAX_ITERATIONS).contains(&self.iterations) {
            let expected = format!("a number from 1 to {MAX_ITERATIONS}");
            return Err(Error::parameter("iterations", self.iterations, expected));
        }
        if !(2..=MAX_CLASSES).contains(&self.classes) {
            return Err(Error::parameter("classes", self.classes, format!("a number from 2 to {MAX_CLASSES}")));
        }
        if checked_len(&[geometry.code().len(), self.classes]).is_none() {
            let expected = format!("at most {MAX_TENSOR_LEN} weights for codes of {}", geometry.code());
            return Err(Error::parameter("classes", self.classes, expected));
        }
        Ok(geometry)
    }

    /// With random weights that follow from the seed alone: filters of norm [`INITIAL_NORM`] on the average, as the paper's authors
    /// begin, or smaller where a dictionary's norm would exceed 1, up to which steps of 1 are certain to converge; biases of zero.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, seed: u64, device: &Device) -> Result<PursuitNetwork> {
        let geometry = self.check()?;
        let strides: Vec<[usize; 2]> = self.model.layers.iter().map(|layer| layer.stride.0).collect();
        let random = |dims: [usize; 4], number: u64| -> Tensor<4> {
            let [_, channels, height, width] = dims;
            // Uniform in [−l, l] has variance l²/3.
            let limit = INITIAL_NORM * (3.0 / (channels * height * width) as f32).sqrt();
            let values = uniform(&mut stream(seed, Purpose::Weights, number), dims.iter().product(), limit);
            Tensor::from_data(TensorData::new(values, dims), device)
        };
        let depth = geometry.depth() as u64;
        let filters = geometry.layers().iter().zip(0..).map(|(layer, number)| random(layer.filter_dims(), number));
        let operator = Operator::from_filters(filters.collect(), strides, geometry.clone(), OperatorForm::Cascade)?;
        let dictionaries = || -> Vec<Dictionary> {
            let layers = operator.layers().iter().zip(&self.model.layers);
            let contraction = |(layer, shape): (&Operator, &LayerShape)| {
                let norm = layer.squared_norm_bound().sqrt().max(1.0) as f32;
                Dictionary::from_filters(layer.effective_filters() / norm, shape)
            };
            layers.map(contraction).collect()
        };
        let inputs = geometry.code().len();
        let limit = 1.0 / (inputs as f32).sqrt();
        let head = uniform(&mut stream(seed, Purpose::Weights, depth), inputs * self.classes, limit);
        let zeros = |len: usize| Param::from_tensor(Tensor::zeros([len], device));
        Ok(PursuitNetwork {
            layers: dictionaries(),
            analysis: if self.pursuit == NetworkPursuit::MlLista { dictionaries() } else { Vec::new() },
            steps: (self.pursuit != NetworkPursuit::Thresholding)
                .then(|| Param::from_tensor(Tensor::ones([geometry.depth()], device))),
            biases: self.model.layers.iter().map(|layer| zeros(layer.atoms)).collect(),
            head: Linear {
                weight: Param::from_tensor(Tensor::from_data(TensorData::new(head, [inputs, self.classes]), device)),
                bias: Some(zeros(self.classes)),
            },
            config: self.clone(),
        })
    }
}

/// A linear classifier on the codes of an unrolled pursuit.
///
/// As an [`Autoencoder`] it codes signals by γ_L and reconstructs them by D_1 … D_L, which nothing in its training asks to be alike.
#[derive(Module, Debug)]
pub struct PursuitNetwork {
    /// The dictionaries D_1 … D_L.
    pub layers: Vec<Dictionary>,
    /// A_1 … A_L as filters; empty where the analysis is D_iᵀ.
    pub analysis: Vec<Dictionary>,
    /// The steps c_1 … c_L, `[L]`; none where no layer steps twice.
    pub steps: Option<Param<Tensor<1>>>,
    /// The biases b_i, `[m_i]`.
    pub biases: Vec<Param<Tensor<1>>>,
    /// The classifier.
    pub head: Linear,
    #[module(skip)]
    config: PursuitNetworkConfig,
}

impl PursuitNetwork {
    /// The configuration.
    pub fn config(&self) -> &PursuitNetworkConfig {
        &self.config
    }

    /// Scores of all classes; the largest says which.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n, classes]`.
    ///
    /// # Errors
    /// Signals of another shape.
    pub fn forward(&self, signals: Tensor<4>) -> Result<Tensor<2>> {
        Ok(self.scores(self.encode(signals)?))
    }

    /// Scores for codes.
    ///
    /// # Shapes
    /// - codes: `[n, m_L, h_L, w_L]`; out: `[n, classes]`.
    pub fn scores(&self, codes: Tensor<4>) -> Tensor<2> {
        self.head.forward(codes.flatten(1, 3))
    }

    /// The cross-entropy of every signal, `[n]`.
    ///
    /// # Shapes
    /// - scores: `[n, classes]`; labels: `[n]`, below the number of classes.
    pub fn cross_entropy(scores: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
        log_softmax(scores, 1).gather(1, labels.unsqueeze_dim(1)).neg().squeeze_dim(1)
    }

    fn geometry(&self) -> Result<Geometry> {
        self.config.model.geometry()
    }

    /// φ(γ̃_i − c_i A_i(…) + b_i) for the tensor A_i(…) = A_i `residual`, `layer` = i − 1; γ̃_i = 0 where there is none.
    fn step(&self, layer: usize, from: Option<Tensor<4>>, residual: Tensor<4>, geometry: &LayerGeometry) -> Tensor<4> {
        let analysis = self.analysis.get(layer).unwrap_or(&self.layers[layer]);
        let mut move_by = analysis.analyze(residual, geometry);
        if let Some(steps) = &self.steps {
            move_by = move_by * steps.val().narrow(0, layer, 1).reshape([1, 1, 1, 1]);
        }
        let moved = match from {
            Some(from) => from + move_by,
            None => move_by,
        };
        let bias = self.biases[layer].val();
        let atoms = bias.dims()[0];
        relu(moved + bias.reshape([1, atoms, 1, 1]))
    }

    /// Through all layers from γ_L = 0.
    fn feed_forward(&self, signals: Tensor<4>, layers: &[LayerGeometry]) -> Tensor<4> {
        layers.iter().enumerate().fold(signals, |below, (index, layer)| self.step(index, None, below, layer))
    }

    fn multi_layer(&self, signals: Tensor<4>, layers: &[LayerGeometry], accelerated: bool) -> Tensor<4> {
        let mut codes = self.feed_forward(signals.clone(), layers);
        let mut before = codes.clone();
        let mut momentum = 1.0f64;
        for _ in 1..self.config.iterations {
            let mut point = codes.clone();
            if accelerated {
                let next = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt());
                point = point + (codes.clone() - before) * ((momentum - 1.0) / next);
                momentum = next;
            }
            // γ̃_L … γ̃_0.
            let mut synthesized = vec![point];
            for (dictionary, layer) in self.layers.iter().zip(layers).rev() {
                synthesized.push(dictionary.synthesize(synthesized[synthesized.len() - 1].clone(), layer));
            }
            synthesized.reverse();
            let next = layers.iter().enumerate().fold(signals.clone(), |below, (index, layer)| {
                self.step(index, Some(synthesized[index + 1].clone()), below - synthesized[index].clone(), layer)
            });
            before = std::mem::replace(&mut codes, next);
        }
        codes
    }

    fn layer_by_layer(&self, signals: Tensor<4>, layers: &[LayerGeometry]) -> Tensor<4> {
        layers.iter().enumerate().fold(signals, |below, (index, layer)| {
            let mut codes = self.step(index, None, below.clone(), layer);
            for _ in 1..self.config.iterations {
                let residual = below.clone() - self.layers[index].synthesize(codes.clone(), layer);
                codes = self.step(index, Some(codes), residual, layer);
            }
            codes
        })
    }
}

impl Autoencoder for PursuitNetwork {
    fn signal(&self) -> SignalShape {
        self.config.model.signal
    }

    fn code(&self) -> SignalShape {
        // The configuration was checked when the network was made.
        self.geometry().map_or(self.config.model.signal, |geometry| geometry.code())
    }

    /// γ_L. Signals are normalised as the model says.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("signals", self.signal(), &signals)?;
        let geometry = self.geometry()?;
        let (signals, _) = self.config.model.normalizer().apply(signals);
        let layers = geometry.layers();
        Ok(match self.config.pursuit {
            NetworkPursuit::Thresholding => self.feed_forward(signals, layers),
            NetworkPursuit::MlIsta | NetworkPursuit::MlLista => self.multi_layer(signals, layers, false),
            NetworkPursuit::MlFista => self.multi_layer(signals, layers, true),
            NetworkPursuit::LayeredBasisPursuit => self.layer_by_layer(signals, layers),
        })
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("codes", self.code(), &codes)?;
        let geometry = self.geometry()?;
        let layers = self.layers.iter().zip(geometry.layers()).rev();
        Ok(layers.fold(codes, |codes, (dictionary, layer)| dictionary.synthesize(codes, layer)))
    }

    fn atoms(&self) -> Tensor<4> {
        let filters: Vec<Tensor<4>> = self.layers.iter().map(|layer| layer.filters.val()).collect();
        effective_filters(&filters, &self.layers.iter().map(Dictionary::stride).collect::<Vec<_>>())
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

impl Trainable for PursuitNetwork {
    fn needs_labels(&self) -> Option<usize> {
        Some(self.config.classes)
    }

    /// Cross-entropy.
    fn training(&self, batch: &TrainingBatch) -> Result<Outcome> {
        let labels = batch.labels.clone().ok_or_else(|| Error::shape("labels", "one per signal", "none"))?;
        let codes = self.encode(batch.signals.clone())?;
        let loss = Self::cross_entropy(self.scores(codes.clone()), labels);
        let reconstruction = self.decode(codes.clone().detach())?;
        Ok(Outcome { loss, coded: Coded { codes, reconstruction } })
    }
}
