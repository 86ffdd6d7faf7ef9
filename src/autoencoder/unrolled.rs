//! The pursuit as an encoder, the cascade as a decoder.
//!
//! T iterations of a pursuit are T layers of a network: a linear map, a threshold. With the weights of the dictionaries this is the
//! pursuit cut short, whose gradients reach the dictionaries; with weights, steps and thresholds of its own it is the learned
//! encoder of K. Gregor and Y. LeCun ("Learning Fast Approximations of Sparse Coding", ICML 2010), for convolutions that of
//! H. Sreter and R. Giryes ("Learned Convolutional Sparse Coding", ICASSP 2018), and across layers that of J. Sulam, A. Aberdam,
//! A. Beck and M. Elad ("On Multi-Layer Basis Pursuit, Efficient Algorithms and Convolutional Neural Networks", IEEE TPAMI 42(8),
//! 2020). It can be a part of any other burn network:
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use mlcsc::autoencoder::{Autoencoder, SparseAutoencoder, SparseAutoencoderConfig};
//! use mlcsc::model::preset::Preset;
//!
//! /// Digits in, scores of ten classes out.
//! #[derive(Module, Debug)]
//! struct Classifier {
//!     features: SparseAutoencoder,
//!     head: Linear,
//! }
//!
//! impl Classifier {
//!     fn forward(&self, digits: Tensor<4>) -> mlcsc::Result<Tensor<2>> {
//!         Ok(self.head.forward(self.features.encode(digits)?.flatten(1, 3)))
//!     }
//! }
//!
//! # fn main() -> mlcsc::Result<()> {
//! let device = mlcsc::device::named(None)?;
//! # #[cfg(feature = "autodiff")]
//! let device = device.autodiff(); // only where it is trained
//! let config = SparseAutoencoderConfig::new(Preset::Small.model()).with_iterations(5);
//! let features = config.init(&device)?; // or `init_from` a model, or `SparseAutoencoder::load`
//! let head = LinearConfig::new(features.code().len(), 10).init(&device);
//! let frozen = Classifier { features: features.clone().no_grad(), head: head.clone() };
//! let tuned = Classifier { features, head };
//! let digits = Tensor::ones([2, 1, 28, 28], &device);
//! assert_eq!(frozen.forward(digits.clone())?.dims(), [2, 10]);
//! # #[cfg(feature = "autodiff")]
//! for (classifier, learns) in [(frozen, false), (tuned, true)] {
//!     let gradients = classifier.forward(digits.clone())?.square().sum().backward();
//!     let filters = classifier.features.layers[0].filters.val();
//!     assert_eq!(filters.grad(&gradients).is_some(), learns);
//!     assert!(classifier.head.weight.val().grad(&gradients).is_some());
//! }
//! # Ok(())
//! # }
//! ```

use super::config::{EncoderWeights, SparseAutoencoderConfig, UnrolledPursuit};
use super::{Autoencoder, Coded, check_batch};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SignalShape};
#[cfg(feature = "train")]
use crate::kernels::sparse::HostFilters;
use crate::model::normalization::Undo;
use crate::model::{Dictionary, Mlcsc, Operator, OperatorForm, effective_filters, leaf, unit_norm, with_unit_atoms};
use crate::pursuit::{Lambda, Learned, Problem, Unrolled};
use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor, TensorData};

/// An auto-encoder whose encoder is an unrolled pursuit and whose decoder is D_1 … D_L.
///
/// Its file is the file of its dictionaries, with what the encoder has of its own beside them: a model that was learned by the online
/// update is loaded by [`Self::load`] as a tied encoder, and one that was trained here by [`Mlcsc::load`].
#[derive(Module, Debug)]
pub struct SparseAutoencoder {
    /// The dictionaries D_1 … D_L.
    pub layers: Vec<Dictionary>,
    /// What the encoder has of its own.
    pub encoder: Encoder,
    #[module(skip)]
    config: SparseAutoencoderConfig,
}

/// Parameters of the encoder beside the dictionaries; all empty where it is tied and nothing else is learned.
#[derive(Module, Debug)]
pub struct Encoder {
    /// In place of D_1 … D_L where the encoder synthesises; empty where it is tied.
    pub synthesis: Vec<Dictionary>,
    /// In place of D_1 … D_L where the encoder analyses, or in place of D^(L) in every iteration; empty where it is tied.
    pub analysis: Vec<Dictionary>,
    /// Logarithms of the factors on the certified steps, `[iterations, layers that are stepped in]`.
    pub steps: Option<Param<Tensor<2>>>,
    /// Logarithms of the factors on λ, for every layer that is stepped in `[iterations, m_i]`.
    pub thresholds: Vec<Param<Tensor<2>>>,
    /// Momentum, `[iterations, 1]`.
    pub momentum: Option<Param<Tensor<2>>>,
}

impl SparseAutoencoderConfig {
    /// With random filters: normal values, atoms of unit norm, the deepest ones as effective atoms.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, device: &Device) -> Result<SparseAutoencoder> {
        let geometry = self.check()?;
        let random = |dims: [usize; 4]| {
            let filters: Tensor<4> = Tensor::random(dims, Distribution::Normal(0.0, 1.0), device);
            unit_norm(filters.clone(), filters)
        };
        let filters = geometry.layers().iter().map(|layer| random(layer.filter_dims())).collect();
        let strides: Vec<[usize; 2]> = self.model.layers.iter().map(|layer| layer.stride.0).collect();
        self.assemble(with_unit_atoms(filters, &strides), &geometry, device)
    }

    /// With a model's dictionaries, on its device.
    ///
    /// # Errors
    /// As [`Self::check`]; a model of another configuration.
    pub fn init_from(&self, model: &Mlcsc) -> Result<SparseAutoencoder> {
        let geometry = self.check()?;
        if *model.config() != self.model {
            return Err(Error::shape("model of an auto-encoder", "the geometry of its configuration", "another one"));
        }
        self.assemble(model.filters(), &geometry, &model.device())
    }

    fn assemble(&self, filters: Vec<Tensor<4>>, geometry: &Geometry, device: &Device) -> Result<SparseAutoencoder> {
        let dictionaries = || -> Vec<Dictionary> {
            let shapes = self.model.layers.iter();
            // Leaves of their own, whatever the filters were computed from.
            filters
                .iter()
                .zip(shapes)
                .map(|(filters, shape)| Dictionary::from_filters(leaf(filters.clone()), shape))
                .collect()
        };
        let own = |wanted: bool| if wanted { dictionaries() } else { Vec::new() };
        let analysis = match (self.weights, geometry.as_one_layer()) {
            (EncoderWeights::PerIteration, Some(one)) => {
                let strides: Vec<[usize; 2]> = self.model.layers.iter().map(|layer| layer.stride.0).collect();
                let atoms = leaf(effective_filters(&filters, &strides));
                // Each a leaf of its own: of one that all share the gradients would be added up, and the first alone would take the step.
                (0..self.iterations).map(|_| Dictionary::of_layer(leaf(atoms.clone()), &one.layers()[0])).collect()
            }
            _ => own(self.weights == EncoderWeights::Free),
        };
        let zeros = |columns: usize| Param::from_tensor(Tensor::zeros([self.iterations, columns], device));
        let stepped = &geometry.layers()[geometry.depth() - self.stepped_layers()..];
        let thresholds = match self.learned_thresholds {
            true => stepped.iter().map(|layer| zeros(layer.code.channels)).collect(),
            false => Vec::new(),
        };
        let encoder = Encoder {
            synthesis: own(self.weights == EncoderWeights::Free),
            analysis,
            steps: self.learned_steps.then(|| zeros(stepped.len())),
            thresholds,
            momentum: self.learned_momentum.then(|| Param::from_tensor(self.first_momentum(device))),
        };
        Ok(SparseAutoencoder { layers: dictionaries(), encoder, config: self.clone() })
    }
}

impl SparseAutoencoderConfig {
    /// FISTA's momentum without restarts, `[iterations, 1]`; that of ISTA is none.
    fn first_momentum(&self, device: &Device) -> Tensor<2> {
        let mut momentum = vec![0.0f32; self.iterations];
        let mut t = 1.0f32;
        for value in momentum.iter_mut().skip(1).filter(|_| self.pursuit == UnrolledPursuit::Fista) {
            let next = ((4.0 * t * t + 1.0).sqrt() + 1.0) * 0.5;
            *value = (t - 1.0) / next;
            t = next;
        }
        Tensor::from_data(TensorData::new(momentum, [self.iterations, 1]), device)
    }
}

impl SparseAutoencoder {
    /// The configuration.
    pub fn config(&self) -> &SparseAutoencoderConfig {
        &self.config
    }

    /// The same parameters with another λ.
    ///
    /// # Errors
    /// As [`SparseAutoencoderConfig::check`].
    pub fn with_lambda(mut self, lambda: f32) -> Result<Self> {
        self.config.lambda = lambda;
        self.config.check()?;
        Ok(self)
    }

    /// The same encoder with other filters of the same shapes: those that `filters` gives for a layer, from 0, on its device.
    ///
    /// # Shapes
    /// - what `filters` gives: W_i as `[m_i, m_{i−1}, kernel height, kernel width]`.
    #[must_use]
    pub fn with_filters(mut self, filters: impl Fn(usize, &Device) -> Tensor<4>) -> Self {
        let layers = self.layers.into_iter().enumerate().map(|(layer, mut dictionary)| {
            dictionary.filters = dictionary.filters.map(|old| {
                let new = filters(layer, &old.device());
                if old.is_require_grad() { new.require_grad() } else { new }
            });
            dictionary
        });
        self.layers = layers.collect();
        self
    }

    /// The same with what `change` gives, on a device, added to the analyses that stand in place of D^(L) in every iteration, if there are any.
    ///
    /// # Shapes
    /// - what `change` gives: as the filters of D^(L), `[m_L, channels, height, width]`.
    #[cfg(feature = "train")]
    #[must_use]
    pub(crate) fn with_analyses_moved(mut self, change: impl Fn(&Device) -> Tensor<4>) -> Self {
        if self.config.weights == EncoderWeights::PerIteration {
            let change = change(&self.device());
            let moved = self.encoder.analysis.into_iter().map(|mut analysis| {
                analysis.filters = analysis.filters.map(|old| {
                    let tracked = old.is_require_grad();
                    let new = leaf(leaf(old) + change.clone());
                    if tracked { new.require_grad() } else { new }
                });
                analysis
            });
            self.encoder.analysis = moved.collect();
        }
        self
    }

    /// The same with some atoms of the deepest layer replaced by those of `filters`, in the dictionary and in what the encoder has of its
    /// own, and by what they synthesize, `synthesized`, where that is of the effective dictionary.
    ///
    /// # Shapes
    /// - filters: W_L as `[m_L, m_{L−1}, kernel height, kernel width]`; synthesized: those of D^(L). Only these atoms are taken.
    #[cfg(feature = "train")]
    #[must_use]
    pub(crate) fn with_atoms(mut self, atoms: &[usize], filters: &HostFilters, synthesized: &HostFilters) -> Self {
        let replaced = |mut dictionary: Dictionary, filters: &HostFilters| {
            dictionary.filters = dictionary.filters.map(|old| {
                let (tracked, device) = (old.is_require_grad(), old.device());
                let old = leaf(old);
                let chosen = |atom: usize| if atoms.contains(&atom) { 1.0 } else { 0.0 };
                let chosen: Vec<f32> = (0..old.dims()[0]).map(chosen).collect();
                let dims = [chosen.len(), 1, 1, 1];
                let chosen = Tensor::<4>::from_data(TensorData::new(chosen, dims), &device).greater_scalar(0.5);
                let chosen = chosen.expand(old.dims());
                let new = old.mask_where(chosen, filters.to_tensor(&device));
                if tracked { new.require_grad() } else { new }
            });
            dictionary
        };
        let Encoder { synthesis, analysis, .. } = &mut self.encoder;
        let mut layered = vec![&mut self.layers, synthesis];
        match self.config.weights {
            EncoderWeights::PerIteration => {
                *analysis = analysis.drain(..).map(|dictionary| replaced(dictionary, synthesized)).collect();
            }
            _ => layered.push(analysis),
        }
        for layers in layered {
            if let Some(deepest) = layers.pop() {
                layers.push(replaced(deepest, filters));
            }
        }
        self
    }

    /// The same with filters of the deepest layer divided by the norms of the effective atoms that they make.
    #[must_use]
    pub fn with_unit_atoms(self) -> Self {
        let filters: Vec<Tensor<4>> = self.filters().into_iter().map(leaf).collect();
        let strides: Vec<[usize; 2]> = self.layers.iter().map(Dictionary::stride).collect();
        let filters = with_unit_atoms(filters, &strides);
        self.with_filters(|layer, _| filters[layer].clone())
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
        filters(&self.layers)
    }

    /// The dictionaries as a model.
    ///
    /// # Errors
    /// None for filters that fit the configuration.
    pub fn model(&self) -> Result<Mlcsc> {
        let filters = self.filters().into_iter().map(leaf).collect();
        Mlcsc::from_filters(self.config.model.clone(), filters)
    }

    /// Everything that does not depend on signals, computed once for signals of that shape. Gradients go through it to the
    /// parameters as they are now: prepare again after they have changed.
    ///
    /// # Errors
    /// A shape that the dictionaries cannot take.
    pub fn prepare(&self, signal: SignalShape) -> Result<Prepared> {
        self.prepare_from(self.filters(), signal)
    }

    /// [`Self::prepare`] with filters that were computed from those of the dictionaries in their place, through which gradients go as well.
    pub(crate) fn prepare_from(&self, filters: Vec<Tensor<4>>, signal: SignalShape) -> Result<Prepared> {
        let geometry = self.config.model.geometry_on(signal)?;
        let strides: Vec<[usize; 2]> = self.layers.iter().map(Dictionary::stride).collect();
        self.prepare_with(Operator::from_filters(filters, strides, geometry, OperatorForm::Auto)?)
    }

    /// [`Self::prepare`] with another decoder, and pursuit where the encoder is tied.
    pub(crate) fn prepare_with(&self, decoder: Operator) -> Result<Prepared> {
        let config = &self.config;
        let geometry = config.model.geometry_on(decoder.signal())?;
        let strides: Vec<[usize; 2]> = self.layers.iter().map(Dictionary::stride).collect();
        let free = |layers: &[Dictionary]| {
            let operator =
                || Operator::from_filters(filters(layers), strides.clone(), geometry.clone(), OperatorForm::Auto);
            (!layers.is_empty()).then(operator).transpose()
        };
        let exponential = |parameter: &Param<Tensor<2>>| parameter.val().exp();
        let own = &self.encoder.analysis;
        let (analysis, analyses) = match (config.weights, geometry.as_one_layer()) {
            (EncoderWeights::PerIteration, Some(one)) => {
                let stride = one.layers()[0].stride;
                let operator = |layer: &Dictionary| {
                    Operator::from_filters(vec![layer.filters.val()], vec![stride], one.clone(), OperatorForm::Auto)
                };
                (None, own.iter().map(operator).collect::<Result<_>>()?)
            }
            _ => (free(own)?, Vec::new()),
        };
        Ok(Prepared {
            synthesis: free(&self.encoder.synthesis)?,
            analysis,
            analyses,
            momentum: self.encoder.momentum.as_ref().map(|momentum| momentum.val()),
            steps: self.encoder.steps.as_ref().map(exponential),
            thresholds: self.encoder.thresholds.iter().map(exponential).collect(),
            pursuit: config.unrolled()?,
            gradients_through: None,
            config: config.clone(),
            decoder,
        })
    }

    /// Signals as the auto-encoder reconstructs them: encoded, decoded, brought back to their own scale.
    ///
    /// # Shapes
    /// - signals and out: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn forward(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.reconstruct(signals)?.reconstruction)
    }

    /// [`Self::prepare`] for the signals of a batch, which may be larger than those that the model was made for.
    fn prepare_for(&self, signals: &Tensor<4>) -> Result<Prepared> {
        let [_, channels, height, width] = signals.dims();
        self.prepare(SignalShape::new(channels, height, width))
    }
}

fn filters(layers: &[Dictionary]) -> Vec<Tensor<4>> {
    layers.iter().map(|layer| layer.filters.val()).collect()
}

impl Autoencoder for SparseAutoencoder {
    fn signal(&self) -> SignalShape {
        self.config.model.signal
    }

    fn code(&self) -> SignalShape {
        // The configuration was checked when the module was made.
        self.config.model.geometry().map_or(self.config.model.signal, |geometry| geometry.code())
    }

    /// The deepest codes γ_L. Signals are normalised as the model says, and may have another height and width than those that
    /// it was made for.
    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        self.prepare_for(&signals)?.encode(signals)
    }

    /// D_1 … D_L γ_L, in the scale of normalised signals.
    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        self.prepare(self.signal())?.decode(codes)
    }

    fn atoms(&self) -> Tensor<4> {
        effective_filters(&self.filters(), &self.layers.iter().map(Dictionary::stride).collect::<Vec<_>>())
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self.prepare(self.signal())?))
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        self.prepare_for(&signals)?.reconstruct(signals)
    }
}

/// A [`SparseAutoencoder`] on signals of one shape, with its operators at hand.
pub struct Prepared {
    decoder: Operator,
    synthesis: Option<Operator>,
    analysis: Option<Operator>,
    analyses: Vec<Operator>,
    momentum: Option<Tensor<2>>,
    steps: Option<Tensor<2>>,
    thresholds: Vec<Tensor<2>>,
    pursuit: Box<dyn Unrolled>,
    gradients_through: Option<usize>,
    config: SparseAutoencoderConfig,
}

impl Prepared {
    /// The same with gradients that go through the last iterations of the pursuit alone; `None`: all of them.
    #[must_use]
    pub fn with_gradients_through(self, last: Option<usize>) -> Self {
        Self { gradients_through: last, ..self }
    }

    /// D^(L) of the decoder.
    pub fn operator(&self) -> &Operator {
        &self.decoder
    }

    /// γ_L of signals that are normalised already.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// Signals of another shape.
    pub fn pursue(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let config = &self.config;
        let mut problem = Problem::new(self.synthesis.as_ref().unwrap_or(&self.decoder), signals)?
            .with_lambda(Lambda::Absolute(config.lambda))?;
        if !config.shallower_lambda.is_empty() {
            let shallower = config.shallower_lambda.iter().map(|&lambda| Lambda::Absolute(lambda)).collect();
            problem = problem.with_shallower_lambda(shallower)?;
        }
        let learned = Learned {
            analysis: self.analysis.as_ref(),
            analyses: self.analyses.iter().collect(),
            momentum: self.momentum.clone(),
            steps: self.steps.clone(),
            thresholds: self.thresholds.clone(),
            gradients_through: self.gradients_through,
        };
        self.pursuit.unrolled_with(&problem, config.iterations, &learned)
    }

    /// The objective of every signal: ½‖y − D^(L)γ_L‖² + Σ_i λ_i‖γ_i‖₁, the shallower layers where they have a penalty.
    ///
    /// # Shapes
    /// - signals, normalised, and codes: as of [`Self::pursue`]; out: `[n]`.
    ///
    /// # Errors
    /// Signals or codes of another shape.
    pub fn objective(&self, signals: Tensor<4>, codes: Tensor<4>) -> Result<Tensor<1>> {
        check_batch("signals", self.decoder.signal(), &signals)?;
        check_batch("codes", self.decoder.code(), &codes)?;
        let synthesized = self.decoder.synthesize(codes.clone());
        Ok(self.objective_with(signals, codes, synthesized))
    }

    /// [`Self::objective`] where D^(L)γ_L is at hand.
    fn objective_with(&self, signals: Tensor<4>, codes: Tensor<4>, synthesized: Tensor<4>) -> Tensor<1> {
        let sum = |values: Tensor<4>| values.flatten::<2>(1, 3).sum_dim(1).squeeze_dim::<1>(1);
        let error = sum((signals - synthesized).square()) * 0.5;
        let mut objective = error + sum(codes.clone().abs()) * self.config.lambda;
        if self.config.shallower_lambda.iter().any(|&lambda| lambda > 0.0) {
            let shallower = self.decoder.propagate(codes);
            for (codes, &lambda) in shallower.into_iter().zip(&self.config.shallower_lambda) {
                objective = objective + sum(codes.abs()) * lambda;
            }
        }
        objective
    }

    /// Codes and reconstruction of signals as they come, with the objective of every signal, `[n]`.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// Signals of another shape.
    pub fn coded_with_objective(&self, signals: Tensor<4>) -> Result<(Coded, Tensor<1>)> {
        check_batch("signals", self.signal(), &signals)?;
        let (signals, undo) = self.config.model.normalizer().apply(signals);
        let codes = self.pursue(signals.clone())?;
        Ok(self.synthesized_with_objective(signals, &undo, codes))
    }

    /// Codes, whoever found them, with what they synthesise of signals that are normalised already and with the objective of every signal, `[n]`.
    pub(crate) fn synthesized_with_objective(
        &self,
        signals: Tensor<4>,
        undo: &Undo,
        codes: Tensor<4>,
    ) -> (Coded, Tensor<1>) {
        let synthesized = self.decoder.synthesize(codes.clone());
        let objective = self.objective_with(signals, codes.clone(), synthesized.clone());
        (Coded { codes, reconstruction: undo.undo(synthesized) }, objective)
    }
}

impl Autoencoder for Prepared {
    fn signal(&self) -> SignalShape {
        self.decoder.signal()
    }

    fn code(&self) -> SignalShape {
        self.decoder.code()
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("signals", self.signal(), &signals)?;
        self.pursue(self.config.model.normalizer().apply(signals).0)
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        check_batch("codes", self.code(), &codes)?;
        Ok(self.decoder.synthesize(codes))
    }

    fn atoms(&self) -> Tensor<4> {
        self.decoder.effective_filters()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        check_batch("signals", self.signal(), &signals)?;
        let (signals, undo) = self.config.model.normalizer().apply(signals);
        let codes = self.pursue(signals)?;
        let reconstruction = undo.undo(self.decoder.synthesize(codes.clone()));
        Ok(Coded { codes, reconstruction })
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

/// A reference codes as what it refers to.
impl<A: Autoencoder + ?Sized> Autoencoder for &A {
    fn signal(&self) -> SignalShape {
        (**self).signal()
    }

    fn code(&self) -> SignalShape {
        (**self).code()
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        (**self).encode(signals)
    }

    fn layers(&self) -> Vec<SignalShape> {
        (**self).layers()
    }

    fn representations(&self, signals: Tensor<4>) -> Result<Vec<Tensor<4>>> {
        (**self).representations(signals)
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        (**self).decode(codes)
    }

    fn atoms(&self) -> Tensor<4> {
        (**self).atoms()
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        (**self).ready()
    }

    fn convergence(&self) -> crate::pursuit::Convergence {
        (**self).convergence()
    }

    fn reconstruct(&self, signals: Tensor<4>) -> Result<Coded> {
        (**self).reconstruct(signals)
    }
}
