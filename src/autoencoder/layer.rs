//! An unrolled pursuit as a layer of a network.

use super::unrolled::{Prepared, SparseAutoencoder};
use super::{EncoderWeights, SparseAutoencoderConfig, UnrolledPursuit};
use crate::error::Result;
use crate::geometry::SignalShape;
use crate::model::{Mlcsc, ModelConfig};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// Settings of an [`UnrolledEncoder`].
///
/// | setting | default | range |
/// |---|---|---|
/// | `iterations` | 20 | 1 to 4096: T iterations are T layers |
/// | `lambda` | 0.3 | ≥ 0 |
/// | `nonnegative` | yes | |
/// | `pursuit` | FISTA | see [`UnrolledPursuit`] |
/// | `weights` | tied: those of the dictionaries | see [`EncoderWeights`] |
#[derive(Debug, Clone, PartialEq)]
pub struct UnrolledEncoderConfig {
    /// Geometry, pursuit and what is learned, as of a whole auto-encoder.
    pub autoencoder: SparseAutoencoderConfig,
}

impl UnrolledEncoderConfig {
    /// The defaults for a geometry.
    pub fn new(model: ModelConfig) -> Self {
        Self { autoencoder: SparseAutoencoderConfig::new(model) }
    }

    /// With so many iterations.
    #[must_use]
    pub fn with_iterations(self, iterations: usize) -> Self {
        Self { autoencoder: self.autoencoder.with_iterations(iterations) }
    }

    /// With another λ.
    #[must_use]
    pub fn with_lambda(self, lambda: f32) -> Self {
        Self { autoencoder: self.autoencoder.with_lambda(lambda) }
    }

    /// With codes of one sign or both.
    #[must_use]
    pub fn with_nonnegative(self, nonnegative: bool) -> Self {
        Self { autoencoder: self.autoencoder.with_nonnegative(nonnegative) }
    }

    /// With another pursuit.
    #[must_use]
    pub fn with_pursuit(mut self, pursuit: UnrolledPursuit) -> Self {
        self.autoencoder.pursuit = pursuit;
        self
    }

    /// With other weights.
    #[must_use]
    pub fn with_weights(mut self, weights: EncoderWeights) -> Self {
        self.autoencoder.weights = weights;
        self
    }

    /// With random filters; see [`SparseAutoencoderConfig::init`].
    ///
    /// # Errors
    /// Settings out of range; a geometry that does not fit itself.
    pub fn init(&self, device: &Device) -> Result<UnrolledEncoder> {
        self.layer(self.autoencoder.init(device)?)
    }

    /// With a model's dictionaries, on its device.
    ///
    /// # Errors
    /// As [`Self::init`]; a model of another geometry.
    pub fn init_from(&self, model: &Mlcsc) -> Result<UnrolledEncoder> {
        self.layer(self.autoencoder.init_from(model)?)
    }

    fn layer(&self, autoencoder: SparseAutoencoder) -> Result<UnrolledEncoder> {
        // Whatever could not be prepared would be known now.
        autoencoder.prepare(self.autoencoder.model.signal)?;
        Ok(UnrolledEncoder { autoencoder, ready: Ready::default() })
    }
}

/// T iterations of a pursuit as an ordinary burn module: signals in, codes out.
///
/// While weights stand still and no gradient is asked for, what depends on them alone is computed once.
#[derive(Module, Debug)]
pub struct UnrolledEncoder {
    autoencoder: SparseAutoencoder,
    #[module(skip)]
    ready: Ready,
}

impl UnrolledEncoder {
    /// Shape of the signals.
    pub fn signal(&self) -> SignalShape {
        self.autoencoder.config().model.signal
    }

    /// Codes γ_L of signals.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as [`Self::signal`];
    /// - out: `[n, m_L, h_L, w_L]`.
    ///
    /// # Panics
    /// If signals have another shape, as burn's modules do.
    pub fn forward(&self, signals: Tensor<4>) -> Tensor<4> {
        let codes =
            self.ready.with(&self.autoencoder, &signals, |ready| super::Autoencoder::encode(ready, signals.clone()));
        codes.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The dictionaries as a model.
    ///
    /// # Errors
    /// None for an encoder that was made.
    pub fn model(&self) -> Result<Mlcsc> {
        self.autoencoder.model()
    }

    /// The auto-encoder whose encoder this is.
    pub fn into_autoencoder(self) -> SparseAutoencoder {
        self.autoencoder
    }
}

/// What was prepared last, and of which parameters. A copy of a module prepares for itself.
#[derive(Debug, Default)]
struct Ready(Mutex<Option<(Vec<Tensor<1>>, Arc<Prepared>)>>);

impl Clone for Ready {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Ready {
    fn with<T>(
        &self,
        autoencoder: &SparseAutoencoder,
        signals: &Tensor<4>,
        then: impl FnOnce(&Prepared) -> Result<T>,
    ) -> Result<T> {
        let signal = autoencoder.config().model.signal;
        let mut parameters = Parameters(Vec::new());
        autoencoder.visit(&mut parameters);
        let Parameters(parameters) = parameters;
        if signals.is_autodiff() || parameters.iter().any(Tensor::is_autodiff) {
            return then(&autoencoder.prepare(signal)?);
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.as_ref().filter(|(known, _)| same(known, &parameters)).map(|(_, ready)| ready.clone());
        let ready = match known {
            Some(ready) => ready,
            None => {
                let ready = Arc::new(autoencoder.prepare(signal)?);
                *kept = Some((parameters, ready.clone()));
                ready
            }
        };
        drop(kept);
        then(&ready)
    }
}

/// Whether values are the same, on the same device.
fn same(these: &[Tensor<1>], others: &[Tensor<1>]) -> bool {
    these.len() == others.len()
        && these.iter().zip(others).all(|(this, other)| {
            this.device() == other.device()
                && this.dims() == other.dims()
                && crate::device::scalar::<1, _, bool>(this.clone().equal(other.clone()).all())
        })
}

struct Parameters(Vec<Tensor<1>>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().reshape([-1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoencoder::Autoencoder;
    use crate::model::preset::Preset;
    use burn::module::ModuleMapper;

    struct Doubled;

    impl ModuleMapper for Doubled {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|values| values * 2.0)
        }
    }

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    /// Also after weights have changed in place of those that were prepared.
    #[test]
    fn codes_are_those_of_the_auto_encoder() {
        let device = crate::device::named(None).unwrap();
        let model = Preset::Small.model().init_random(3, &device).unwrap();
        let layer = UnrolledEncoderConfig::new(model.config().clone()).with_iterations(4).init_from(&model).unwrap();
        let signals = Tensor::ones([2, 1, 28, 28], &device);
        let expected = |layer: &UnrolledEncoder| values(layer.autoencoder.encode(signals.clone()).unwrap());
        let first = values(layer.forward(signals.clone()));
        assert_eq!(first, expected(&layer));
        assert_eq!(first, values(layer.forward(signals.clone())));
        let changed = layer.map(&mut Doubled);
        let second = values(changed.forward(signals.clone()));
        assert_eq!(second, expected(&changed));
        assert_ne!(second, first);
    }

    #[test]
    #[should_panic(expected = "1x28x28")]
    fn signals_of_another_shape_are_refused() {
        let device = crate::device::named(None).unwrap();
        let layer = UnrolledEncoderConfig::new(Preset::Small.model()).init(&device).unwrap();
        layer.forward(Tensor::ones([1, 1, 27, 28], &device));
    }
}
