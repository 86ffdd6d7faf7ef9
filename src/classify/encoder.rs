//! What turns signals into the codes that features are pooled from.
//!
//! [`SignalEncoder`] codes whole signals and offers any of γ_1 … γ_L as the pursuit found them; [`NetworkEncoder`] does what an
//! auto-encoder does. [`WindowEncoder`] codes the window of every position by itself, over the effective dictionary D^(i) that ends at
//! the layer, whose atoms have the window's size.
//! Normalised by itself, a window is coded for its shape and not for its contrast, and every position competes with none but
//! itself: what A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011,
//! found to matter most for one layer, here for every layer of a cascade. [`DeskewingEncoder`] offers the codes of signals set
//! upright beside any of these.

use super::features::{Features, PoolingConfig};
use crate::autoencoder::Autoencoder;
use crate::data::deskew::deskew;
use crate::data::{Source, check_channels};
use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::kernels::sparse::to_host;
use crate::model::normalization::Normalizer;
use crate::model::{Mlcsc, Operator, OperatorForm};
use crate::pursuit::convergence::{Convergence, Tally};
use crate::pursuit::{BasisPursuitConfig, Lambda, Observer, Problem, Pursuit, Recipe, solve_in_parts};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// Codes of one kind, for every signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Shape of one signal's codes.
    pub shape: SignalShape,
    /// Whether they are never negative.
    pub nonnegative: bool,
}

/// Turns signals into codes.
pub trait Encoder {
    /// What [`Self::encode`] returns for every signal.
    fn maps(&self) -> Vec<Map>;

    /// The device that signals are to be on.
    fn device(&self) -> Device;

    /// Codes a batch of signals; `observer`, where there is one, may end a pursuit.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n, channels, height, width]` as [`Self::maps`] says, one tensor per map.
    ///
    /// # Errors
    /// Signals that the encoder cannot take; [`Error::Interrupted`] where the observer ended it.
    fn encode(&self, signals: Tensor<4>, observer: Option<&dyn Observer>) -> Result<Vec<Tensor<4>>>;

    /// How many of the signals (with [`WindowEncoder`]: of the windows) coded so far came to the gap that was asked for. Default: none
    /// was coded by a pursuit that is told one.
    fn convergence(&self) -> Convergence {
        Convergence::default()
    }
}

/// Values of a batch's largest codes: 64 MiB.
const BATCH_VALUES: usize = 1 << 24;

/// Most signals of a batch.
const LARGEST_BATCH: usize = 512;

/// Features that are held at most: 16 GiB.
const MAX_FEATURES: u64 = 1 << 32;

/// Features of the first `count` signals of a source; `progress` is told how many are done and ends it, with `None`, by `false`;
/// `observer`, where there is one, may end the pursuit on a batch.
///
/// # Errors
/// Signals that cannot be read or coded; more than 2³² features; [`Error::Interrupted`] where the observer ended it.
pub fn extract(
    source: &dyn Source,
    count: usize,
    encoder: &dyn Encoder,
    pooling: &PoolingConfig,
    observer: Option<&dyn Observer>,
    mut progress: impl FnMut(usize) -> bool,
) -> Result<Option<Features>> {
    pooling.check()?;
    let (maps, shape) = (encoder.maps(), source.shape());
    let lens: Vec<usize> = maps.iter().map(|map| pooling.len(map.shape, map.nonnegative)).collect();
    let columns: usize = lens.iter().sum();
    if count.checked_mul(columns).is_none_or(|features| features as u64 > MAX_FEATURES) {
        let expected =
            format!("so few cells that {count} signals have at most {MAX_FEATURES} features, not {columns} each");
        return Err(Error::parameter("grids", format!("{:?}", pooling.grids), expected));
    }
    let largest = maps.iter().map(|map| map.shape.len()).chain([shape.len()]).max().unwrap_or(1);
    let batch = (BATCH_VALUES / largest).clamp(1, LARGEST_BATCH);
    let mut values = vec![0.0f32; count * columns];
    for start in (0..count).step_by(batch) {
        let indices: Vec<usize> = (start..(start + batch).min(count)).collect();
        let mut pixels = vec![0.0; indices.len() * shape.len()];
        source.read(&indices, &mut pixels)?;
        let signals = Tensor::from_data(TensorData::new(pixels, shape.batched(indices.len())), &encoder.device());
        let codes: Vec<Vec<f32>> = encoder.encode(signals, observer)?.into_iter().map(to_host).collect();
        let out = &mut values[start * columns..][..indices.len() * columns];
        out.par_chunks_mut(columns).enumerate().for_each(|(index, mut out)| {
            for ((map, codes), &len) in maps.iter().zip(&codes).zip(&lens) {
                let (own, rest) = out.split_at_mut(len);
                let code = &codes[index * map.shape.len()..][..map.shape.len()];
                pooling.pool(code, map.shape, map.nonnegative, own);
                out = rest;
            }
        });
        if !progress(start + indices.len()) {
            return Ok(None);
        }
    }
    Features::new(values, columns).map(Some)
}

/// Codes whole signals.
pub struct SignalEncoder {
    operator: Operator,
    normalizer: Normalizer,
    recipe: Recipe,
    pursuit: Box<dyn Pursuit>,
    layers: Vec<usize>,
    nonnegative: bool,
    tally: Tally,
}

impl SignalEncoder {
    /// Of the layers i in 1..=L that are named; `nonnegative` says whether the pursuit keeps γ_L so.
    ///
    /// # Errors
    /// No such layer; as [`Recipe::prepare`].
    pub fn new(
        model: &Mlcsc,
        operator: Operator,
        recipe: Recipe,
        layers: Vec<usize>,
        nonnegative: bool,
    ) -> Result<Self> {
        check_layers(&layers, model.depth())?;
        let pursuit = recipe.prepare(&operator)?;
        let (normalizer, tally) = (model.config().normalizer(), Tally::default());
        Ok(Self { operator, normalizer, recipe, pursuit, layers, nonnegative, tally })
    }
}

impl Encoder for SignalEncoder {
    fn maps(&self) -> Vec<Map> {
        let layers = self.operator.geometry().layers();
        let map = |&layer: &usize| Map {
            shape: layers[layer - 1].code,
            // γ_{i−1} = D_i γ_i has both signs whatever γ_i has.
            nonnegative: self.nonnegative && layer == layers.len(),
        };
        self.layers.iter().map(map).collect()
    }

    fn device(&self) -> Device {
        self.operator.device()
    }

    fn encode(&self, signals: Tensor<4>, observer: Option<&dyn Observer>) -> Result<Vec<Tensor<4>>> {
        let (signals, _) = self.normalizer.apply(signals);
        let problem = self.recipe.problem(&self.operator, signals, 0)?.watched_by(observer);
        let found = solve_in_parts(&*self.pursuit, &problem)?;
        self.tally.add(&found.reports);
        let representations = found.representations(&self.operator);
        Ok(self.layers.iter().map(|&layer| representations[layer - 1].clone()).collect())
    }

    fn convergence(&self) -> Convergence {
        self.tally.get()
    }
}

/// The codes of an auto-encoder.
pub struct NetworkEncoder<'a> {
    network: Box<dyn Autoencoder + 'a>,
    layers: Vec<usize>,
    device: Device,
}

impl<'a> NetworkEncoder<'a> {
    /// Of the layers of a network that are named, from 1, on that device; of the last one where none is.
    ///
    /// # Errors
    /// No such layer; as [`Autoencoder::ready`].
    pub fn new(network: &'a dyn Autoencoder, layers: Option<&[usize]>, device: &Device) -> Result<Self> {
        let network = network.ready()?;
        let depth = network.layers().len();
        let layers = layers.unwrap_or(&[depth]).to_vec();
        check_layers(&layers, depth)?;
        Ok(Self { network, layers, device: device.clone() })
    }
}

impl Encoder for NetworkEncoder<'_> {
    fn maps(&self) -> Vec<Map> {
        let shapes = self.network.layers();
        self.layers.iter().map(|&layer| Map { shape: shapes[layer - 1], nonnegative: false }).collect()
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn encode(&self, signals: Tensor<4>, _: Option<&dyn Observer>) -> Result<Vec<Tensor<4>>> {
        let codes = self.network.representations(signals)?;
        Ok(self.layers.iter().map(|&layer| codes[layer - 1].clone()).collect())
    }
}

/// How windows are coded.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowConfig {
    /// Layers i in 1..=L, each coded over its own D^(i).
    pub layers: Vec<usize>,
    /// λ of windows as large as the atoms of D^(L). Windows of other layers, of which the length of normalised ones goes by the
    /// square root of their size, get as large a part of it; one that is relative to λ_max is the same for all.
    pub lambda: Lambda,
    /// Zeros around the signal, so that windows may stick out.
    pub padding: usize,
    /// Distance of neighbouring windows of every such layer, at least 1.
    pub strides: Vec<usize>,
    /// Gap, iterations, sign.
    pub basis: BasisPursuitConfig,
}

impl WindowConfig {
    /// The encoder for signals of that shape.
    ///
    /// # Errors
    /// No such layer; not one λ for each layer; numbers out of range; windows larger than the signals.
    pub fn init(&self, model: &Mlcsc, signal: SignalShape) -> Result<WindowEncoder> {
        check_layers(&self.layers, model.depth())?;
        self.lambda.check()?;
        if self.strides.len() != self.layers.len() {
            let expected = format!("{}, one per layer that is named", self.layers.len());
            return Err(Error::shape("strides of windows", expected, self.strides.len()));
        }
        if self.strides.contains(&0) {
            return Err(Error::parameter("stride", 0, "at least 1"));
        }
        if self.padding > signal.height.max(signal.width) {
            let expected = format!("no more than the signal's {}x{}", signal.height, signal.width);
            return Err(Error::parameter("padding", self.padding, expected));
        }
        check_channels(model.config().signal, signal, "signals")?;
        let geometry = model.config().geometry()?;
        let pixels = |layer: usize| geometry.effective(layer).kernel.iter().product::<usize>() as f32;
        let stages = self.layers.iter().zip(&self.strides).map(|(&layer, &stride)| {
            let lambda = match &self.lambda {
                Lambda::Relative(part) => Lambda::Relative(*part),
                lambda => lambda.scaled((pixels(layer) / pixels(model.depth())).sqrt()),
            };
            let unit = model.with_unit_atoms(layer)?;
            let window = unit.config().signal;
            let positions = |extent: usize, window: usize| {
                let spare = (extent + 2 * self.padding).checked_sub(window);
                spare.map(|spare| spare / stride + 1).ok_or_else(|| {
                    let expected = format!("at least {window}x{window} with padding, as the atoms of layer {layer}");
                    Error::shape("signals", expected, signal)
                })
            };
            let positions = [positions(signal.height, window.height)?, positions(signal.width, window.width)?];
            let operator = unit.operator(window, OperatorForm::Auto)?;
            let pursuit = self.basis.init_for(&operator)?;
            let atoms = operator.code().channels;
            let map = SignalShape::new(atoms, positions[0], positions[1]);
            Ok(Stage { operator, pursuit, lambda, stride, map })
        });
        Ok(WindowEncoder {
            stages: stages.collect::<Result<_>>()?,
            normalizer: model.config().normalizer(),
            signal,
            padding: self.padding,
            nonnegative: self.basis.nonnegative,
            tally: Tally::default(),
        })
    }
}

/// Codes the window of every position by itself.
pub struct WindowEncoder {
    stages: Vec<Stage>,
    normalizer: Normalizer,
    signal: SignalShape,
    padding: usize,
    nonnegative: bool,
    tally: Tally,
}

struct Stage {
    /// D^(i) on one window, with atoms of unit norm.
    operator: Operator,
    pursuit: Box<dyn Pursuit>,
    lambda: Lambda,
    stride: usize,
    map: SignalShape,
}

impl WindowEncoder {
    /// The windows of a stage, signal after signal, row after row.
    fn windows(&self, stage: &Stage, signals: &[f32]) -> Vec<f32> {
        let (signal, window) = (self.signal, stage.operator.signal());
        let [down, across] = [stage.map.height, stage.map.width];
        let count = signals.len() / signal.len();
        let mut windows = vec![0.0f32; count * down * across * window.len()];
        windows.par_chunks_mut(window.len()).enumerate().for_each(|(index, out)| {
            let (of_signal, position) = (index / (down * across), index % (down * across));
            let values = &signals[of_signal * signal.len()..][..signal.len()];
            let (top, left) = (position / across * stage.stride, position % across * stage.stride);
            // Columns of the window that lie inside the signal.
            let first = self.padding.saturating_sub(left);
            let end = window.width.min((signal.width + self.padding).saturating_sub(left));
            for (line, out) in out.chunks_exact_mut(window.width).enumerate() {
                let (channel, row) = (line / window.height, top + line % window.height);
                let Some(row) = row.checked_sub(self.padding).filter(|&row| row < signal.height) else { continue };
                if first < end {
                    let from = (channel * signal.height + row) * signal.width + left + first - self.padding;
                    out[first..end].copy_from_slice(&values[from..from + end - first]);
                }
            }
        });
        windows
    }
}

impl Encoder for WindowEncoder {
    fn maps(&self) -> Vec<Map> {
        self.stages.iter().map(|stage| Map { shape: stage.map, nonnegative: self.nonnegative }).collect()
    }

    fn device(&self) -> Device {
        self.stages[0].operator.device()
    }

    fn encode(&self, signals: Tensor<4>, observer: Option<&dyn Observer>) -> Result<Vec<Tensor<4>>> {
        let dims = signals.dims();
        if dims != self.signal.batched(dims[0]) {
            return Err(Error::shape("signals", self.signal, format!("{dims:?}")));
        }
        let values = to_host(signals);
        let codes = self.stages.iter().map(|stage| {
            let windows = self.windows(stage, &values);
            let shape = stage.operator.signal();
            let count = windows.len() / shape.len();
            let windows = Tensor::from_data(TensorData::new(windows, shape.batched(count)), &self.device());
            let (windows, _) = self.normalizer.apply(windows);
            let problem = Problem::new(&stage.operator, windows)?.with_lambda(stage.lambda.batch(0, count))?;
            let found = solve_in_parts(&*stage.pursuit, &problem.watched_by(observer))?;
            self.tally.add(&found.reports);
            let codes = found.codes;
            // From one row per position to one map per atom.
            let SignalShape { channels, height, width } = stage.map;
            let by_position = codes.reshape([dims[0], height * width, channels]);
            Ok(by_position.swap_dims(1, 2).reshape([dims[0], channels, height, width]))
        });
        codes.collect()
    }

    fn convergence(&self) -> Convergence {
        self.tally.get()
    }
}

/// Codes signals as they come and deskewed: the maps of another encoder twice, those of [`deskew`]ed signals last.
pub struct DeskewingEncoder<'a> {
    encoder: Box<dyn Encoder + 'a>,
}

impl<'a> DeskewingEncoder<'a> {
    /// Of signals that `encoder` codes.
    pub fn new(encoder: Box<dyn Encoder + 'a>) -> Self {
        Self { encoder }
    }
}

impl Encoder for DeskewingEncoder<'_> {
    fn maps(&self) -> Vec<Map> {
        self.encoder.maps().repeat(2)
    }

    fn device(&self) -> Device {
        self.encoder.device()
    }

    fn encode(&self, signals: Tensor<4>, observer: Option<&dyn Observer>) -> Result<Vec<Tensor<4>>> {
        let dims = signals.dims();
        let [_, channels, height, width] = dims;
        let mut upright = to_host(signals.clone());
        deskew(&mut upright, SignalShape::new(channels, height, width));
        let upright = Tensor::from_data(TensorData::new(upright, dims), &self.device());
        let mut codes = self.encoder.encode(signals, observer)?;
        codes.extend(self.encoder.encode(upright, observer)?);
        Ok(codes)
    }

    fn convergence(&self) -> Convergence {
        self.encoder.convergence()
    }
}

fn check_layers(layers: &[usize], depth: usize) -> Result<()> {
    if layers.is_empty() {
        return Err(Error::parameter("layers", "nothing", format!("some of 1 to {depth}")));
    }
    match layers.iter().find(|layer| !(1..=depth).contains(*layer)) {
        Some(layer) => Err(Error::parameter("layers", layer, format!("layers from 1 to {depth}, the model's"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::geometry::LayerShape;
    use crate::model::ModelConfig;
    use crate::model::normalization::Normalization;
    use burn::tensor::Distribution;

    fn model() -> Mlcsc {
        let device = device::named(None).unwrap();
        let config = ModelConfig {
            normalization: Normalization::Contrast,
            ..ModelConfig::new(SignalShape::new(1, 8, 8), vec![LayerShape::new(6, 3, 1), LayerShape::new(9, 3, 1)])
        };
        let filters = [[6, 1, 3, 3], [9, 6, 3, 3]]
            .map(|dims| Tensor::random(dims, Distribution::Normal(0.0, 1.0), &device))
            .to_vec();
        Mlcsc::from_filters(config, filters).unwrap()
    }

    /// Every position's code is what coding that window alone gives, over atoms of unit norm; outside the signal there are zeros.
    #[test]
    fn windows_are_coded_by_themselves() {
        let model = model();
        let config = WindowConfig {
            layers: vec![2, 1],
            lambda: Lambda::Absolute(0.8),
            padding: 2,
            strides: vec![2, 2],
            basis: BasisPursuitConfig { nonnegative: true, gap: 1e-5, ..BasisPursuitConfig::default() },
        };
        let shape = SignalShape::new(1, 8, 7);
        let encoder = config.init(&model, shape).unwrap();
        let shapes: Vec<_> = encoder.maps().iter().map(|map| map.shape).collect();
        assert_eq!(shapes, [SignalShape::new(9, 4, 4), SignalShape::new(6, 5, 5)]);
        let signals: Tensor<4> = Tensor::random(shape.batched(3), Distribution::Default, &model.device());
        let codes = encoder.encode(signals.clone(), None).unwrap();
        for (codes, layer, lambda) in codes
            .into_iter()
            .zip([(2, 0.8), (1, 0.8 * 3.0 / 5.0)])
            .map(|(codes, (layer, lambda))| (codes, layer, Lambda::Absolute(lambda)))
        {
            let size = 2 * layer + 1;
            let unit = model.with_unit_atoms(layer).unwrap();
            let operator = unit.operator(SignalShape::new(1, size, size), OperatorForm::Auto).unwrap();
            for energy in operator.atom_energies(None).into_data().iter::<f32>() {
                assert!((energy - 1.0).abs() < 1e-5, "{energy}");
            }
            let [_, atoms, down, across] = codes.dims();
            for (number, row, column) in [(0, 0, 0), (1, 1, 2), (2, down - 1, across - 1)] {
                let mut window = vec![0.0f32; size * size];
                for y in 0..size {
                    for x in 0..size {
                        let (y_there, x_there) = ((2 * row + y).wrapping_sub(2), (2 * column + x).wrapping_sub(2));
                        if y_there < 8 && x_there < 7 {
                            let value = signals.clone().slice([
                                number..number + 1,
                                0..1,
                                y_there..y_there + 1,
                                x_there..x_there + 1,
                            ]);
                            window[y * size + x] = value.into_scalar();
                        }
                    }
                }
                let window = Tensor::from_data(TensorData::new(window, [1, 1, size, size]), &model.device());
                let (window, _) = model.config().normalizer().apply(window);
                let alone = config.basis.init_for(&operator).unwrap().pursue(&operator, window, &lambda).unwrap();
                let there = codes.clone().slice([number..number + 1, 0..atoms, row..row + 1, column..column + 1]);
                let error: f32 = (alone.codes - there).abs().max().into_scalar();
                assert!(error < 1e-3, "layer {layer}: {error}");
            }
        }
    }

    /// The first half of the maps are the codes of signals, the second half those of the same signals deskewed.
    #[test]
    fn signals_are_also_coded_deskewed() {
        let model = model();
        let shape = SignalShape::new(1, 8, 8);
        let config = WindowConfig {
            layers: vec![1, 2],
            lambda: Lambda::Absolute(0.5),
            padding: 0,
            strides: vec![1, 2],
            basis: BasisPursuitConfig { nonnegative: true, ..BasisPursuitConfig::default() },
        };
        let alone = config.init(&model, shape).unwrap();
        let both = DeskewingEncoder::new(Box::new(config.init(&model, shape).unwrap()));
        assert_eq!(both.maps(), [alone.maps(), alone.maps()].concat());
        let signals: Tensor<4> = Tensor::random(shape.batched(3), Distribution::Default, &model.device());
        let mut upright = to_host(signals.clone());
        deskew(&mut upright, shape);
        assert!(upright != to_host(signals.clone()));
        let upright = Tensor::from_data(TensorData::new(upright, shape.batched(3)), &model.device());
        let expected = [alone.encode(signals.clone(), None).unwrap(), alone.encode(upright, None).unwrap()].concat();
        let found = both.encode(signals, None).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            assert_eq!(to_host(found), to_host(expected));
        }
    }

    #[test]
    fn mistakes_are_errors() {
        let model = model();
        let config = |layers: Vec<usize>| WindowConfig {
            lambda: Lambda::Absolute(0.1),
            strides: vec![1; layers.len()],
            layers,
            padding: 0,
            basis: BasisPursuitConfig::default(),
        };
        let shape = SignalShape::new(1, 8, 8);
        let error = |config: WindowConfig, shape| config.init(&model, shape).err().map(|error| error.to_string());
        assert!(error(config(vec![]), shape).is_some_and(|error| error.starts_with("layers = nothing")));
        assert!(error(config(vec![3]), shape).is_some_and(|error| error.starts_with("layers = 3")));
        assert!(error(WindowConfig { strides: vec![0], ..config(vec![1]) }, shape).is_some());
        assert!(error(WindowConfig { padding: 9, ..config(vec![1]) }, shape).is_some());
        assert!(error(WindowConfig { lambda: Lambda::Absolute(-1.0), ..config(vec![1]) }, shape).is_some());
        assert!(error(WindowConfig { strides: vec![1, 1], ..config(vec![1]) }, shape).is_some());
        assert!(error(config(vec![2]), SignalShape::new(1, 4, 8)).is_some_and(|error| error.contains("5x5")));
        assert!(error(config(vec![2]), SignalShape::new(2, 8, 8)).is_some_and(|error| error.contains("1 channel")));
        assert!(error(config(vec![1, 2]), shape).is_none());
    }
}
