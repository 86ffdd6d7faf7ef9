//! What a pursuit is asked: signals, a model, and what weighs on the codes.

use super::observer::{Observer, Work};
use super::{Lambda, scale_rows, take_rows, to_host};
use crate::device;
use crate::error::{Error, Result};
use crate::kernels::sparse::energy;
use crate::model::Operator;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::ops::Range;

/// Signals to be coded, with everything that every pursuit may be told.
///
/// The data term is ½‖M(y − x)‖², M being the mask (all ones where none is given), and the penalty of layer i is
/// λ_i Σ_j w_ij |γ_ij| with one λ_i for each signal and one weight w_i for each atom of the layer. Which of these a pursuit takes
/// stands in its documentation; what it does not take it refuses, but for λ of the deepest layer, which greedy pursuits do without.
#[derive(Debug, Clone)]
pub struct Problem<'a> {
    operator: &'a Operator,
    signals: Tensor<4>,
    lambda: Option<Lambda>,
    shallower: Vec<Lambda>,
    weights: Vec<Option<Vec<f32>>>,
    mask: Option<Tensor<2>>,
    start: Option<Tensor<4>>,
    observer: Option<&'a dyn Observer>,
    /// The number of the first signal, for messages.
    first: usize,
}

impl<'a> Problem<'a> {
    /// A batch of signals, without penalties, with all samples known.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]` as `operator.signal()`.
    ///
    /// # Errors
    /// Signals of another shape.
    pub fn new(operator: &'a Operator, signals: Tensor<4>) -> Result<Self> {
        let [count, channels, height, width] = signals.dims();
        if operator.signal().batched(count) != signals.dims() {
            return Err(Error::shape("signals", operator.signal(), format!("{channels}x{height}x{width}")));
        }
        let weights = vec![None; operator.geometry().depth()];
        Ok(Self {
            operator,
            signals,
            lambda: None,
            shallower: Vec::new(),
            weights,
            mask: None,
            start: None,
            observer: None,
            first: 0,
        })
    }

    /// The first signal being that number of some larger set: what is said of one names it so.
    #[must_use]
    pub fn counted_from(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// λ of the deepest layer.
    ///
    /// # Errors
    /// As [`Lambda::check`]; a number of values that is not the number of signals.
    pub fn with_lambda(mut self, lambda: Lambda) -> Result<Self> {
        lambda.check_for(self.count())?;
        self.lambda = Some(lambda);
        Ok(self)
    }

    /// λ_1 … λ_{L−1} of the shallower layers. What a relative one is a fraction of depends on the pursuit.
    ///
    /// # Errors
    /// Not L − 1 of them; as [`Self::with_lambda`].
    pub fn with_shallower_lambda(mut self, lambda: Vec<Lambda>) -> Result<Self> {
        let expected = self.operator.geometry().depth() - 1;
        if lambda.len() != expected {
            return Err(Error::shape(
                "lambda of the shallower layers",
                format!("{expected}, one per layer before the deepest"),
                lambda.len(),
            ));
        }
        lambda.iter().try_for_each(|lambda| lambda.check_for(self.count()))?;
        self.shallower = lambda;
        Ok(self)
    }

    /// Weights w > 0 of the atoms of layer i = `layer` in 1..=L in that layer's ℓ1 norm; 1 where none are given.
    ///
    /// # Errors
    /// A layer outside 1..=L; not one weight for each atom; a weight that is not positive and finite.
    pub fn with_weights(mut self, layer: usize, weights: Vec<f32>) -> Result<Self> {
        let geometry = self.operator.geometry();
        if !(1..=geometry.depth()).contains(&layer) {
            return Err(Error::parameter("layer of the weights", layer, format!("1 to {}", geometry.depth())));
        }
        let atoms = geometry.layers()[layer - 1].code.channels;
        if weights.len() != atoms {
            return Err(Error::shape(
                format!("weights of layer {layer}"),
                format!("{atoms}, one per atom"),
                weights.len(),
            ));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(Error::parameter(format!("weight of layer {layer}"), weight, "a finite number > 0"));
        }
        self.weights[layer - 1] = Some(weights);
        Ok(self)
    }

    /// Which samples are known (1) and which are missing (0); what the signals hold where they are missing is ignored, be it NaN.
    ///
    /// # Shapes
    /// - mask: `[n, channels, height, width]`, or `[1, channels, height, width]` for all signals alike.
    ///
    /// # Errors
    /// Another shape; values other than 0 and 1.
    pub fn with_mask(mut self, mask: Tensor<4>) -> Result<Self> {
        let (count, dims) = (self.count(), mask.dims());
        if dims != self.operator.signal().batched(count) && dims != self.operator.signal().batched(1) {
            let expected = format!("{:?}, or 1 in place of {count}", self.operator.signal().batched(count));
            return Err(Error::shape("mask", expected, format!("{dims:?}")));
        }
        let values = crate::device::read(mask.clone());
        if let Some(value) = values.iter::<f32>().find(|&value| value != 0.0 && value != 1.0) {
            return Err(Error::parameter("mask", value, "0 (missing) or 1 (known)"));
        }
        let mask = self.operator.flat(mask);
        self.mask = Some(mask);
        Ok(self)
    }

    /// Codes to start from; the zero code where none are given.
    ///
    /// # Shapes
    /// - codes: γ_L as `[n, m_L, h_L, w_L]`.
    ///
    /// # Errors
    /// Another shape. Values that are not finite are refused where the problem is solved.
    pub fn with_start(mut self, codes: Tensor<4>) -> Result<Self> {
        let expected = self.operator.code().batched(self.count());
        if codes.dims() != expected {
            return Err(Error::shape("codes to start from", format!("{expected:?}"), format!("{:?}", codes.dims())));
        }
        self.start = Some(codes);
        Ok(self)
    }

    /// Who is told how far the pursuit has come, and may end it.
    #[must_use]
    pub fn with_observer(mut self, observer: &'a dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The effective dictionary.
    pub fn operator(&self) -> &'a Operator {
        self.operator
    }

    /// Number of signals n.
    pub fn count(&self) -> usize {
        self.signals.dims()[0]
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.operator.geometry().depth()
    }

    /// The signals, with zeros in place of missing samples.
    ///
    /// # Shapes
    /// - out: `[n, signal values]`.
    pub fn signals(&self) -> Tensor<2> {
        let signals = self.operator.flat(self.signals.clone());
        match self.mask() {
            // Filled rather than multiplied: a missing sample may be NaN.
            Some(mask) => signals.mask_fill(mask.equal_scalar(0.0), 0.0),
            None => signals,
        }
    }

    /// Refuses dictionaries beyond single precision, known samples that are not finite, and such that their squares are beyond single
    /// precision: an objective would be NaN or
    /// infinite, and its gap would say nothing.
    pub(crate) fn check_values(&self) -> Result<()> {
        self.operator.check_size()?;
        self.check_start()?;
        let signals = self.signals();
        let [count, len] = signals.dims();
        if count * len == 0 {
            return Ok(());
        }
        if is_fine_on_gpu(&signals, len) {
            return Ok(());
        }
        self.check_rows(&to_host(signals), 0)
    }

    /// Refuses codes to start from that are not finite, or too large to be squared.
    pub(super) fn check_start(&self) -> Result<()> {
        let Some(start) = self.start.as_ref().filter(|_| self.count() > 0) else { return Ok(()) };
        let len = self.operator.code().len();
        if is_fine_on_gpu(start, len) {
            return Ok(());
        }
        let named = |row: usize| format!("codes to start from of signal {}", self.first + row);
        check_squares(&to_host(start.clone()), len, named)
    }

    /// [`Self::check_values`] of some signals on the host, the first being that number of the problem's.
    pub(crate) fn check_rows(&self, values: &[f32], first: usize) -> Result<()> {
        check_squares(values, self.operator.signal().len(), |row| format!("signal {}", self.first + first + row))
    }

    /// The mask, `[n, signal values]`; `None` where all samples are known.
    pub fn mask(&self) -> Option<Tensor<2>> {
        let dims = [self.count(), self.operator.signal().len()];
        self.mask.clone().map(|mask| match dims[0] {
            0 => Tensor::zeros(dims, &mask.device()),
            _ => mask.expand(dims),
        })
    }

    /// The mask where it is the same for all signals, `[1, signal values]`.
    pub(crate) fn shared_mask(&self) -> Option<Tensor<2>> {
        self.mask.clone().filter(|mask| mask.dims()[0] == 1)
    }

    /// The codes to start from, `[n, code values]`; zeros where none were given.
    pub fn start(&self) -> Tensor<2> {
        match &self.start {
            Some(codes) => self.operator.flat(codes.clone()),
            None => Tensor::zeros([self.count(), self.operator.code().len()], &self.operator.device()),
        }
    }

    /// Whether codes to start from were given.
    pub fn has_start(&self) -> bool {
        self.start.is_some()
    }

    /// λ of the deepest layer.
    ///
    /// # Errors
    /// None was given.
    pub fn lambda(&self) -> Result<&Lambda> {
        self.lambda.as_ref().ok_or_else(|| Error::missing("lambda", "a weight of the penalty, at least 0"))
    }

    /// λ_1 … λ_L; those of shallower layers are 0 where none were given.
    ///
    /// # Errors
    /// As [`Self::lambda`].
    pub fn lambdas(&self) -> Result<Vec<Lambda>> {
        let mut all = match self.shallower.is_empty() {
            true => vec![Lambda::Absolute(0.0); self.depth() - 1],
            false => self.shallower.clone(),
        };
        all.push(self.lambda()?.clone());
        Ok(all)
    }

    /// Weights of layer i = `layer` in 1..=L as they lie on its code, `[1, values of γ_i]`; `None` where all are 1.
    pub fn weights(&self, layer: usize) -> Option<Tensor<2>> {
        let weights = self.weights[layer - 1].as_ref()?;
        let code = self.operator.geometry().layers()[layer - 1].code;
        let positions = code.height * code.width;
        let values: Vec<f32> = weights.iter().flat_map(|&weight| std::iter::repeat_n(weight, positions)).collect();
        Some(Tensor::from_data(TensorData::new(values, [1, code.len()]), &self.operator.device()))
    }

    /// Weights of the atoms of layer i = `layer` in 1..=L as they were given.
    pub(crate) fn atom_weights(&self, layer: usize) -> Option<&[f32]> {
        self.weights[layer - 1].as_deref()
    }

    /// Whether λ_1 … λ_{L−1} were given (or there are none to be given).
    pub(crate) fn has_shallower_lambda(&self) -> bool {
        self.depth() == 1 || !self.shallower.is_empty()
    }

    /// What is done of it, for its observer.
    pub(crate) fn work(&self) -> Work<'a> {
        Work::new(self.observer, self.count())
    }

    /// Who watches.
    pub(crate) fn observer(&self) -> Option<&'a dyn Observer> {
        self.observer
    }

    /// [`Self::with_observer`] where there is one.
    pub(crate) fn watched_by(mut self, observer: Option<&'a dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Takes the observer of another problem.
    pub(crate) fn with_observer_of(mut self, other: &Self) -> Self {
        self.observer = other.observer;
        self
    }

    /// Takes the mask of a problem with the same signals.
    pub(crate) fn with_mask_of(mut self, other: &Self) -> Self {
        self.mask = other.mask.clone();
        self
    }

    /// Some of the signals, with another λ for the deepest layer; those of shallower layers are dropped.
    pub(crate) fn part(&self, rows: &[usize], lambda: Lambda) -> Result<Self> {
        let operator = self.operator;
        let signals = operator.signal_shaped(take_rows(&operator.flat(self.signals.clone()), rows));
        let mut part = Self::new(operator, signals)?.with_lambda(lambda)?;
        part.observer = self.observer;
        part.weights = self.weights.clone();
        part.mask = match &self.mask {
            Some(mask) if mask.dims()[0] > 1 => Some(take_rows(mask, rows)),
            mask => mask.clone(),
        };
        part.start =
            self.start.as_ref().map(|codes| operator.code_shaped(take_rows(&operator.flat(codes.clone()), rows)));
        Ok(part)
    }

    /// Some of the signals in a row, with all that belongs to them.
    pub(crate) fn rows(&self, range: Range<usize>) -> Result<Self> {
        let of = |lambda: &Lambda| match lambda {
            Lambda::PerSignal(values) => Lambda::PerSignal(values[range.clone()].to_vec()),
            other => other.clone(),
        };
        let mut part = self.part(&range.clone().collect::<Vec<_>>(), Lambda::Absolute(0.0))?;
        part.lambda = self.lambda.as_ref().map(of);
        part.shallower = self.shallower.iter().map(of).collect();
        part.first = self.first + range.start;
        Ok(part)
    }

    /// The same problem with every signal, its weights of penalties and its code to start from times its factor.
    pub(crate) fn scaled(&self, factors: &[f32]) -> Self {
        Self {
            signals: scale_rows(self.signals.clone(), factors),
            start: self.start.clone().map(|codes| scale_rows(codes, factors)),
            lambda: self.lambda.as_ref().map(|lambda| lambda.times(factors)),
            shallower: self.shallower.iter().map(|lambda| lambda.times(factors)).collect(),
            ..self.clone()
        }
    }

    /// Whether samples are missing.
    pub(crate) fn has_mask(&self) -> bool {
        self.mask.is_some()
    }

    /// Whether every signal has a mask of its own.
    pub(crate) fn has_separate_masks(&self) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.dims()[0] != 1)
    }

    /// Whether there are neither weights nor masks.
    pub(crate) fn is_plain(&self) -> bool {
        self.mask.is_none() && self.weights.iter().all(Option::is_none)
    }

    /// Refuses penalties of shallower layers, for pursuits that would not heed them.
    pub(crate) fn refuse_shallower(&self, pursuit: &str) -> Result<()> {
        if !self.shallower.is_empty() {
            let expected = format!("none: {pursuit} penalises the deepest codes only");
            return Err(Error::parameter("lambda of the shallower layers", self.shallower.len(), expected));
        }
        match self.weights[..self.depth() - 1].iter().position(Option::is_some) {
            Some(layer) => {
                let expected = format!("none: {pursuit} weighs the atoms of the deepest layer only");
                Err(Error::parameter("weights of layer", layer + 1, expected))
            }
            None => Ok(()),
        }
    }

    /// Refuses codes to start from, for pursuits that build theirs up from nothing.
    pub(crate) fn refuse_start(&self, pursuit: &str) -> Result<()> {
        match self.start {
            Some(_) => Err(Error::parameter("codes to start from", "given", format!("none with {pursuit}"))),
            None => Ok(()),
        }
    }

    /// Refuses masks that differ between signals.
    pub(crate) fn refuse_separate_masks(&self, pursuit: &str) -> Result<()> {
        match self.has_separate_masks() {
            true => Err(Error::parameter("mask", "one per signal", format!("one for all signals with {pursuit}"))),
            false => Ok(()),
        }
    }

    /// Refuses weights of atoms.
    pub(crate) fn refuse_weights(&self, pursuit: &str) -> Result<()> {
        match self.weights.iter().position(Option::is_some) {
            Some(layer) => Err(Error::parameter("weights of layer", layer + 1, format!("no weights with {pursuit}"))),
            None => Ok(()),
        }
    }
}

/// Whether a GPU says, in three numbers, that there is nothing to look for in rows of `len` values.
fn is_fine_on_gpu<const RANK: usize>(values: &Tensor<RANK>, len: usize) -> bool {
    if device::is_host(&values.device()) {
        return false;
    }
    let all = [values.clone().sum(), values.clone().min(), values.clone().max()];
    let found = to_host(Tensor::cat(all.to_vec(), 0));
    let most = (f32::MAX / len as f32).sqrt();
    found[0].is_finite() && found[1..].iter().all(|value| value.abs() <= most)
}

/// Refuses rows of `len` values that are not finite, or whose squares are beyond single precision, by the name of the first.
pub(crate) fn check_squares(values: &[f32], len: usize, named: impl Fn(usize) -> String) -> Result<()> {
    // NaN is not below anything.
    let holds = |row: &[f32]| energy(row) <= f64::from(f32::MAX);
    let beyond = |(_, row): &(usize, &[f32])| !holds(row);
    let Some((index, row)) = values.par_chunks_exact(len.max(1)).enumerate().find_first(beyond) else { return Ok(()) };
    if let Some(value) = row.iter().find(|value| !value.is_finite()) {
        return Err(Error::parameter(named(index), value, "finite values"));
    }
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    Err(Error::shape(named(index), "values whose squares single precision can add up", format!("{largest:.1e}")))
}
