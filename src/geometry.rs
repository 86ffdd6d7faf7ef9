//! All shape arithmetic of the crate: kernels, strides, paddings, code sizes, effective kernels, operation counts.
//!
//! Layer indices in messages and pictures are 1-based, as in the paper.

use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest number of values that any tensor described by a configuration may have (2³⁰: 4 GiB of `f32`).
///
/// A configuration comes from a file; this keeps a mistyped number from becoming an allocation.
pub const MAX_TENSOR_LEN: usize = 1 << 30;

/// Shape of one signal or of one code: channels × height × width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalShape {
    /// Number of channels, at least 1 (1 for grey images, the number of atoms for codes).
    pub channels: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Columns, at least 1.
    pub width: usize,
}

impl SignalShape {
    /// A shape from its three extents.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Number of values in one signal.
    pub const fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether a signal has no value at all.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimensions of a tensor of `count` such signals: `[count, channels, height, width]`.
    pub const fn batched(&self, count: usize) -> [usize; 4] {
        [count, self.channels, self.height, self.width]
    }

    /// Whether the signal is a single position (every code value has its own whole-signal atom).
    pub const fn is_single_position(&self) -> bool {
        self.height == 1 && self.width == 1
    }

    /// Whether the signal is one in time: one row of several samples a channel.
    pub const fn is_in_time(&self) -> bool {
        self.height == 1 && self.width > 1
    }
}

impl fmt::Display for SignalShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

impl std::str::FromStr for SignalShape {
    type Err = String;

    /// Parses `CxHxW`, as `1x28x28`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let extents: Vec<usize> = text
            .split('x')
            .map(|part| {
                part.trim().parse().map_err(|_| format!("expected CHANNELSxHEIGHTxWIDTH, as 1x28x28, found {text:?}"))
            })
            .collect::<std::result::Result<_, _>>()?;
        match extents[..] {
            [channels, height, width] if channels > 0 && height > 0 && width > 0 => {
                Ok(Self { channels, height, width })
            }
            _ => Err(format!("expected three positive numbers CHANNELSxHEIGHTxWIDTH, as 1x28x28, found {text:?}")),
        }
    }
}

/// A pair (vertical, horizontal), written in configuration files as one number where both agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PairText", into = "PairText")]
pub struct Pair(pub [usize; 2]);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a whole number or a pair of them: [vertical, horizontal]")]
enum PairText {
    Both(usize),
    Each([usize; 2]),
}

impl Pair {
    /// Height and width on signals of so many rows: on those in time, which have one, the same number twice is a length.
    pub fn on_rows(self, rows: usize) -> [usize; 2] {
        let [height, width] = self.0;
        [if rows == 1 && height == width { 1 } else { height }, width]
    }
}

impl From<PairText> for Pair {
    fn from(text: PairText) -> Self {
        match text {
            PairText::Both(value) => Self([value; 2]),
            PairText::Each(values) => Self(values),
        }
    }
}

impl From<Pair> for PairText {
    fn from(pair: Pair) -> Self {
        if pair.0[0] == pair.0[1] { Self::Both(pair.0[0]) } else { Self::Each(pair.0) }
    }
}

impl From<usize> for Pair {
    fn from(value: usize) -> Self {
        Self([value; 2])
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.0[0], self.0[1])
    }
}

/// One convolutional dictionary: number of atoms, kernel, stride, padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerShape {
    /// Number of atoms (filters) m_i, at least 1.
    pub atoms: usize,
    /// Kernel height and width, at least 1.
    pub kernel: Pair,
    /// Vertical and horizontal stride, at least 1. Default 1.
    #[serde(default = "one")]
    pub stride: Pair,
    /// Zero padding of the analysis (equally: rows and columns cropped from the synthesis), less than the kernel. Default 0.
    #[serde(default = "zero")]
    pub padding: Pair,
}

fn one() -> Pair {
    Pair([1, 1])
}

fn zero() -> Pair {
    Pair([0, 0])
}

impl LayerShape {
    /// A layer without padding.
    pub fn new(atoms: usize, kernel: impl Into<Pair>, stride: impl Into<Pair>) -> Self {
        Self { atoms, kernel: kernel.into(), stride: stride.into(), padding: zero() }
    }

    /// With that padding.
    pub fn with_padding(mut self, padding: impl Into<Pair>) -> Self {
        self.padding = padding.into();
        self
    }

    fn check(&self, layer: usize) -> Result<()> {
        let field = |name: &str| format!("{name} of layer {layer}");
        if self.atoms == 0 {
            return Err(Error::parameter(field("atoms"), self.atoms, "at least 1"));
        }
        for axis in 0..2 {
            // The upper limits keep sums and products of extents from overflowing.
            for (name, pair) in [("kernel", self.kernel), ("stride", self.stride)] {
                if !(1..=MAX_TENSOR_LEN).contains(&pair.0[axis]) {
                    let expected = format!("1 to {MAX_TENSOR_LEN} in both directions");
                    return Err(Error::parameter(field(name), pair, expected));
                }
            }
            if self.padding.0[axis] >= self.kernel.0[axis] {
                return Err(Error::parameter(
                    field("padding"),
                    self.padding,
                    format!("less than the kernel {}", self.kernel),
                ));
            }
        }
        Ok(())
    }
}

/// One layer between its signal γ_{i−1} and its code γ_i, with everything that both directions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGeometry {
    /// Shape of γ_{i−1}.
    pub signal: SignalShape,
    /// Shape of γ_i.
    pub code: SignalShape,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Padding.
    pub padding: [usize; 2],
    /// Rows and columns of the signal that the strides don't reach; the synthesis leaves them zero.
    pub output_padding: [usize; 2],
}

impl LayerGeometry {
    fn new(layer: usize, shape: &LayerShape, signal: SignalShape) -> Result<Self> {
        shape.check(layer)?;
        let extents = [signal.height, signal.width];
        let mut code = [0; 2];
        let mut output_padding = [0; 2];
        for axis in 0..2 {
            let (kernel, stride, padding) = (shape.kernel.0[axis], shape.stride.0[axis], shape.padding.0[axis]);
            let room = (extents[axis] + 2 * padding).checked_sub(kernel).ok_or_else(|| {
                let input = if layer == 1 { "signal".into() } else { format!("code of layer {}", layer - 1) };
                Error::shape(
                    format!("kernel of layer {layer}"),
                    format!(
                        "at most {}x{} (its input, the {input}, with padding)",
                        extents[0] + 2 * shape.padding.0[0],
                        extents[1] + 2 * shape.padding.0[1]
                    ),
                    shape.kernel,
                )
            })?;
            code[axis] = room / stride + 1;
            output_padding[axis] = room % stride;
        }
        let geometry = Self {
            signal,
            code: SignalShape::new(shape.atoms, code[0], code[1]),
            kernel: shape.kernel.0,
            stride: shape.stride.0,
            padding: shape.padding.0,
            output_padding,
        };
        for (what, extents) in [
            ("code", [1, geometry.code.channels, geometry.code.height, geometry.code.width]),
            ("filters", geometry.filter_dims()),
        ] {
            checked_len(&extents).ok_or_else(|| {
                Error::parameter(
                    format!("size of the {what} of layer {layer}"),
                    format!("{extents:?}"),
                    format!("at most {MAX_TENSOR_LEN} values"),
                )
            })?;
        }
        Ok(geometry)
    }

    /// Dimensions of the filter tensor W_i: `[m_i, m_{i−1}, kernel height, kernel width]`.
    pub fn filter_dims(&self) -> [usize; 4] {
        [self.code.channels, self.signal.channels, self.kernel[0], self.kernel[1]]
    }

    /// Atom, row and column of a value of the code.
    #[inline(always)]
    pub fn place(&self, index: usize) -> [usize; 3] {
        let SignalShape { height, width, .. } = self.code;
        [index / (height * width), index / width % height, index % width]
    }

    /// Atom of a value of the code, and the upper left corner of what it synthesises, as row and column of the padded signal.
    #[inline(always)]
    pub fn corner(&self, index: usize) -> [usize; 3] {
        let [atom, row, column] = self.place(index);
        [atom, row * self.stride[0], column * self.stride[1]]
    }

    /// Code positions by which two columns can be apart and still overlap, per axis.
    pub fn reach(&self) -> [usize; 2] {
        reach_within(self.kernel, self.stride, [self.code.height, self.code.width])
    }

    /// Numbers of relative shifts, per axis, at which two columns can overlap: 2r + 1 with r = [`Self::reach`].
    pub fn shifts(&self) -> [usize; 2] {
        self.reach().map(|reach| 2 * reach + 1)
    }

    /// Most code positions, per axis, whose atoms touch a window of `extent` samples of the signal, wherever the window lies:
    /// ⌊(e + k − 2)/s⌋ + 1, and no more than there are.
    pub fn touching(&self, extent: [usize; 2]) -> [usize; 2] {
        let positions = [self.code.height, self.code.width];
        std::array::from_fn(|axis| {
            ((extent[axis] + self.kernel[axis]).saturating_sub(2) / self.stride[axis] + 1).min(positions[axis])
        })
    }

    /// The layer whose atoms cover the windows of so many neighbouring positions of this one: what these positions see.
    ///
    /// # Panics
    /// If `positions` is 0 or more than there are.
    pub fn neighbouring(&self, positions: [usize; 2]) -> Self {
        let SignalShape { channels, height, width } = self.code;
        Self {
            kernel: std::array::from_fn(|axis| self.kernel[axis] + (positions[axis] - 1) * self.stride[axis]),
            code: SignalShape::new(channels, height + 1 - positions[0], width + 1 - positions[1]),
            ..self.clone()
        }
    }

    /// The same atoms on a signal in which one of them lies in the middle, with every shift at which another can overlap it, and no more.
    pub fn around_one(&self) -> Self {
        let (SignalShape { channels, .. }, [rows, columns]) = (self.code, self.shifts());
        let code = SignalShape::new(channels, rows, columns);
        let extent = |axis: usize, shifts: usize| self.kernel[axis] + (shifts - 1) * self.stride[axis];
        let signal = SignalShape::new(self.signal.channels, extent(0, rows), extent(1, columns));
        Self { signal, code, padding: [0, 0], output_padding: [0, 0], ..*self }
    }

    /// The same positions with kernels that are one stride longer on every side.
    pub fn surrounded(&self) -> Self {
        Self {
            kernel: std::array::from_fn(|axis| self.kernel[axis] + 2 * self.stride[axis]),
            padding: std::array::from_fn(|axis| self.padding[axis] + self.stride[axis]),
            ..self.clone()
        }
    }

    /// Number of values of one atom.
    pub fn atom_len(&self) -> usize {
        self.signal.channels * self.kernel[0] * self.kernel[1]
    }

    /// Whether the code is one position whose atoms cover the whole signal, so that the layer is a plain matrix.
    pub fn is_matrix(&self) -> bool {
        self.code.is_single_position()
            && self.padding == [0, 0]
            && self.kernel == [self.signal.height, self.signal.width]
    }

    /// Whether no two positions share a sample and no atom is cropped: kernels no larger than strides (or one position) in both
    /// directions, no padding. D is then one matrix on every position's window of the signal.
    pub fn is_disjoint(&self) -> bool {
        self.padding == [0, 0] && self.reach() == [0, 0]
    }

    /// Multiplications of one synthesis (equally: one analysis) of one signal.
    pub fn multiplications(&self) -> u64 {
        self.code.len() as u64 * self.atom_len() as u64
    }
}

/// Code positions by which two atoms can be apart and still overlap, per axis: ⌈k/s⌉ − 1.
pub fn reach(kernel: [usize; 2], stride: [usize; 2]) -> [usize; 2] {
    std::array::from_fn(|axis| kernel[axis].div_ceil(stride[axis]) - 1)
}

/// [`reach`] between two of `positions` code positions, which may not be as many.
///
/// # Panics
/// If there is no position.
pub fn reach_within(kernel: [usize; 2], stride: [usize; 2], positions: [usize; 2]) -> [usize; 2] {
    let overlap = reach(kernel, stride);
    std::array::from_fn(|axis| overlap[axis].min(positions[axis] - 1))
}

/// Product of extents, unless it exceeds [`MAX_TENSOR_LEN`].
pub fn checked_len(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)).filter(|&len| len <= MAX_TENSOR_LEN)
}

/// The patches of a window that begin at multiples of a step, a quarter of a patch rounded up, and how those that overlap are averaged.
///
/// Training to take noise off and restoring pictures cut and average alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlapping {
    /// Height and width of a patch.
    pub patch: [usize; 2],
    /// Rows and columns from one patch to the next.
    pub step: [usize; 2],
    /// Patches down and across.
    pub counts: [usize; 2],
}

impl Overlapping {
    /// The step between patches.
    pub fn step_of(patch: [usize; 2]) -> [usize; 2] {
        patch.map(|extent| extent.div_ceil(4))
    }

    /// The patches of a window.
    ///
    /// # Errors
    /// A window that they do not fill, so small that no pixel lies in as many of them as in a picture, or of more than
    /// [`MAX_TENSOR_LEN`] values in all of them; a patch without pixels.
    pub fn new(window: [usize; 2], patch: [usize; 2]) -> Result<Self> {
        let step = Self::step_of(patch);
        // Some pixel has to lie in all patches that it could.
        let least: [usize; 2] = std::array::from_fn(|axis| patch[axis].saturating_mul(2).saturating_sub(step[axis]));
        let counts: [Option<usize>; 2] = std::array::from_fn(|axis| {
            let beyond = window[axis].checked_sub(patch[axis]).filter(|_| window[axis] >= least[axis])?;
            (step[axis] > 0 && beyond.is_multiple_of(step[axis])).then(|| beyond / step[axis] + 1)
        });
        let named = || format!("{}x{}", window[0], window[1]);
        match counts {
            [Some(down), Some(across)] if checked_len(&[down, across, patch[0], patch[1]]).is_some() => {
                Ok(Self { patch, step, counts: [down, across] })
            }
            [Some(_), Some(_)] => {
                let expected = format!("one whose patches have at most {MAX_TENSOR_LEN} values");
                Err(Error::parameter("window", named(), expected))
            }
            _ => {
                let [height, width] = [0, 1]
                    .map(|axis| format!("{} + a multiple of {}, at least {}", patch[axis], step[axis], least[axis]));
                let expected = match height == width {
                    true => format!("{height}, in height and width for patches of {}x{}", patch[0], patch[1]),
                    false => format!("a height of {height}; a width of {width}"),
                };
                Err(Error::parameter("window", named(), expected))
            }
        }
    }

    /// Patches of a window.
    pub fn count(&self) -> usize {
        self.counts[0] * self.counts[1]
    }

    /// Height and width of the window.
    pub fn window(&self) -> [usize; 2] {
        std::array::from_fn(|axis| self.patch[axis] + (self.counts[axis] - 1) * self.step[axis])
    }

    /// Where patches begin in their window, row by row.
    pub fn places(&self) -> impl Iterator<Item = [usize; 2]> {
        let (Self { step, counts, .. }, all) = (*self, self.count());
        (0..all).map(move |at| [at / counts[1] * step[0], at % counts[1] * step[1]])
    }

    /// Weight of each place of a patch along an axis of that extent, which vanishes at its borders.
    pub fn weights(extent: usize) -> Vec<f32> {
        let angle = |place: usize| std::f32::consts::PI * (place as f32 + 0.5) / extent as f32;
        (0..extent).map(|place| angle(place).sin().powi(2)).collect()
    }
}

/// Kernel and stride of an effective dictionary D^(i) = D_1 … D_i.
///
/// k^(i) = k^(i−1) + (k_i − 1)·s^(i−1) and s^(i) = s^(i−1)·s_i (paper, section on the multi-layer model).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectiveShape {
    /// Number of atoms m_i.
    pub atoms: usize,
    /// Channels of the signal.
    pub channels: usize,
    /// Kernel height and width in samples of the signal.
    pub kernel: [usize; 2],
    /// Stride in samples of the signal.
    pub stride: [usize; 2],
}

/// The shapes of a whole cascade on signals of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    layers: Vec<LayerGeometry>,
}

impl Geometry {
    /// Follows a signal through the layers.
    ///
    /// # Errors
    /// No layer; a zero among the extents; a kernel larger than its (padded) input; sizes beyond [`MAX_TENSOR_LEN`].
    pub fn new(signal: SignalShape, layers: &[LayerShape]) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::parameter("layers", "[]", "at least one layer"));
        }
        if checked_len(&signal.batched(1)).is_none_or(|len| len == 0) {
            return Err(Error::parameter(
                "signal shape",
                signal,
                format!("positive extents and at most {MAX_TENSOR_LEN} values"),
            ));
        }
        let mut input = signal;
        let mut effective_stride = [1, 1];
        let mut geometries = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let geometry = LayerGeometry::new(index + 1, layer, input)?;
            for (product, stride) in effective_stride.iter_mut().zip(geometry.stride) {
                *product = checked_len(&[*product, stride]).ok_or_else(|| {
                    Error::parameter(
                        format!("stride of layer {}", index + 1),
                        layer.stride,
                        format!("a product of the strides of all layers of at most {MAX_TENSOR_LEN}"),
                    )
                })?;
            }
            input = geometry.code;
            geometries.push(geometry);
        }
        let geometry = Self { layers: geometries };
        for depth in 1..=geometry.depth() {
            let EffectiveShape { atoms, channels, kernel, .. } = geometry.effective(depth);
            let dims = [atoms, channels, kernel[0], kernel[1]];
            checked_len(&dims).ok_or_else(|| {
                Error::parameter(
                    format!("size of the effective filters of {depth} layers"),
                    format!("{dims:?}"),
                    format!("at most {MAX_TENSOR_LEN} values"),
                )
            })?;
        }
        Ok(geometry)
    }

    /// The layers, from the signal's side to the deepest.
    pub fn layers(&self) -> &[LayerGeometry] {
        &self.layers
    }

    /// Number of layers L.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Every layer as a cascade of its own.
    pub(super) fn single_layers(&self) -> impl Iterator<Item = Self> + '_ {
        self.layers.iter().map(|layer| Self { layers: vec![layer.clone()] })
    }

    /// D^(L) as a single layer, where it is one convolution ([`Self::effective_layer`]).
    pub(crate) fn as_one_layer(&self) -> Option<Self> {
        self.effective_layer().map(|layer| Self { layers: vec![layer] })
    }

    /// Shape of the signal.
    pub fn signal(&self) -> SignalShape {
        self.layers[0].signal
    }

    /// Shape of the deepest code γ_L.
    pub fn code(&self) -> SignalShape {
        self.layers[self.depth() - 1].code
    }

    /// Kernel and stride of D^(i) for `depth` = i in 1..=L.
    ///
    /// # Panics
    /// If `depth` is 0 or larger than the number of layers.
    pub fn effective(&self, depth: usize) -> EffectiveShape {
        effective_shape(
            self.layers[..depth].iter().map(|layer| (layer.code.channels, layer.kernel, layer.stride)),
            self.signal().channels,
        )
    }

    /// The windows of the signal that the codes of layer i = `depth` see: the layer of the effective atoms of D^(i) as if padding
    /// inside the cascade cropped the signal alone.
    ///
    /// # Panics
    /// If `depth` is 0 or larger than the number of layers.
    pub fn windows(&self, depth: usize) -> LayerGeometry {
        let effective = self.effective(depth);
        let mut padding = [0, 0];
        let mut stride = [1, 1];
        for layer in &self.layers[..depth] {
            for axis in 0..2 {
                padding[axis] += layer.padding[axis] * stride[axis];
                stride[axis] *= layer.stride[axis];
            }
        }
        LayerGeometry {
            signal: self.signal(),
            code: self.layers[depth - 1].code,
            kernel: effective.kernel,
            stride: effective.stride,
            padding,
            output_padding: [0, 0],
        }
    }

    /// The same layers on the window of the signal that one position of γ_L sees, where γ_L has several and D^(L) is disjoint
    /// ([`LayerGeometry::is_disjoint`]): a signal is then so many signals of that geometry, each with a code of one position. `None`
    /// elsewhere.
    pub fn window(&self) -> Option<Self> {
        let layer = self.effective_layer().filter(|layer| layer.is_disjoint() && !layer.code.is_single_position())?;
        let signal = SignalShape::new(layer.signal.channels, layer.kernel[0], layer.kernel[1]);
        let layers = self.layers.iter().map(|layer| LayerShape {
            atoms: layer.code.channels,
            kernel: Pair(layer.kernel),
            stride: Pair(layer.stride),
            padding: Pair(layer.padding),
        });
        Self::new(signal, &layers.collect::<Vec<_>>()).ok()
    }

    /// Code positions of layer i = `depth`, counted from every border, at which padding may crop the effective atom of D^(i):
    /// b^(i) = ⌈(b^(i−1) + p_i)/s_i⌉. All others hold the same atoms, moved.
    ///
    /// # Panics
    /// If `depth` is larger than the number of layers.
    pub fn border(&self, depth: usize) -> [usize; 2] {
        self.layers[..depth].iter().fold([0, 0], |border, layer| {
            std::array::from_fn(|axis| (border[axis] + layer.padding[axis]).div_ceil(layer.stride[axis]))
        })
    }

    /// Whether D^(L) is exactly one convolution with the effective filters, at the borders too.
    ///
    /// Padding of the first layer crops signals, which an effective filter's padding does as well. Padding of a deeper layer
    /// crops an intermediate code, so that atoms at the border differ from those inside.
    pub fn effective_is_convolution(&self) -> bool {
        self.layers[1..].iter().all(|layer| layer.padding == [0, 0])
    }

    /// D^(L) as one layer: the geometry of the convolution with the effective filters.
    ///
    /// `None` where [`Self::effective_is_convolution`] does not hold.
    pub fn effective_layer(&self) -> Option<LayerGeometry> {
        if !self.effective_is_convolution() {
            return None;
        }
        let effective = self.effective(self.depth());
        let (signal, code, padding) = (self.signal(), self.code(), self.layers[0].padding);
        let extents = [signal.height, signal.width];
        let positions = [code.height, code.width];
        let output_padding = std::array::from_fn(|axis| {
            extents[axis] + 2 * padding[axis] - effective.kernel[axis] - (positions[axis] - 1) * effective.stride[axis]
        });
        Some(LayerGeometry {
            signal,
            code,
            kernel: effective.kernel,
            stride: effective.stride,
            padding,
            output_padding,
        })
    }
}

/// Kernel and stride after a chain of layers given as (atoms, kernel, stride), over `channels` channels.
fn effective_shape(layers: impl Iterator<Item = (usize, [usize; 2], [usize; 2])>, channels: usize) -> EffectiveShape {
    let start = EffectiveShape { atoms: channels, channels, kernel: [1, 1], stride: [1, 1] };
    layers.fold(start, |below, (atoms, kernel, stride)| EffectiveShape {
        atoms,
        channels,
        kernel: std::array::from_fn(|axis| below.kernel[axis] + (kernel[axis] - 1) * below.stride[axis]),
        stride: std::array::from_fn(|axis| below.stride[axis] * stride[axis]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mnist() -> Vec<LayerShape> {
        vec![LayerShape::new(32, 7, 2), LayerShape::new(128, 5, 1), LayerShape::new(1024, 7, 1)]
    }

    #[test]
    fn the_papers_geometry() {
        let geometry = Geometry::new(SignalShape::new(1, 28, 28), &mnist()).unwrap();
        let codes: Vec<String> = geometry.layers().iter().map(|layer| layer.code.to_string()).collect();
        assert_eq!(codes, ["32x11x11", "128x7x7", "1024x1x1"]);
        // 28 = (11 − 1)·2 + 7 + 1: one row and one column are out of the strides' reach.
        assert_eq!(geometry.layers()[0].output_padding, [1, 1]);
        assert_eq!(geometry.effective(2).kernel, [15, 15]);
        assert_eq!(geometry.effective(3).kernel, [27, 27]);
        assert_eq!(geometry.effective(3).stride, [2, 2]);
        assert_eq!(geometry.effective_layer().unwrap().output_padding, [1, 1]);
        assert!(geometry.layers()[2].is_matrix());
    }

    #[test]
    fn rectangles_and_paddings() {
        let layers = [
            LayerShape::new(4, Pair([3, 5]), Pair([2, 3])).with_padding(Pair([1, 2])),
            LayerShape::new(6, Pair([2, 3]), 1),
        ];
        let geometry = Geometry::new(SignalShape::new(3, 10, 17), &layers).unwrap();
        assert_eq!(geometry.layers()[0].code, SignalShape::new(4, 5, 6));
        assert_eq!(geometry.code(), SignalShape::new(6, 4, 4));
        assert_eq!(geometry.effective(2), EffectiveShape { atoms: 6, channels: 3, kernel: [5, 11], stride: [2, 3] });
        let effective = geometry.effective_layer().unwrap();
        for axis in 0..2 {
            let extent = [10, 17][axis];
            let code = [4, 4][axis];
            let covered = (code - 1) * effective.stride[axis] + effective.kernel[axis] + effective.output_padding[axis];
            assert_eq!(covered, extent + 2 * effective.padding[axis]);
        }
    }

    #[test]
    fn windows_of_disjoint_positions() {
        let window = |signal: SignalShape, layers: &[LayerShape]| Geometry::new(signal, layers).unwrap().window();
        let maps = window(SignalShape::new(64, 8, 8), &[LayerShape::new(128, 1, 1)]).unwrap();
        assert_eq!((maps.signal(), maps.code()), (SignalShape::new(64, 1, 1), SignalShape::new(128, 1, 1)));
        // Gaps between windows, samples beyond the last one.
        let gaps = window(SignalShape::new(1, 20, 33), &[LayerShape::new(9, Pair([4, 5]), Pair([5, 7]))]).unwrap();
        assert_eq!((gaps.signal(), gaps.code()), (SignalShape::new(1, 4, 5), SignalShape::new(9, 1, 1)));
        // One row of positions: the vertical stride does not matter.
        let row = window(SignalShape::new(2, 6, 12), &[LayerShape::new(3, Pair([6, 4]), Pair([1, 4]))]).unwrap();
        assert_eq!(row.signal(), SignalShape::new(2, 6, 4));
        // Two layers that overlap, or not, below a deepest one that does not.
        let layers = [LayerShape::new(4, 3, 1), LayerShape::new(8, 2, 4)];
        let deep = window(SignalShape::new(1, 12, 12), &layers).unwrap();
        assert_eq!((deep.signal(), deep.layers()[0].code), (SignalShape::new(1, 4, 4), SignalShape::new(4, 2, 2)));
        assert_eq!(deep.code(), SignalShape::new(8, 1, 1));
        let none = [
            // Overlap, padding in either layer, and one position, which is no case of its own.
            (SignalShape::new(1, 20, 20), vec![LayerShape::new(9, 4, 3)]),
            (SignalShape::new(1, 20, 20), vec![LayerShape::new(9, 4, 4).with_padding(1)]),
            (SignalShape::new(1, 12, 12), vec![LayerShape::new(4, 3, 1), LayerShape::new(8, 2, 4).with_padding(1)]),
            (SignalShape::new(1, 12, 12), vec![LayerShape::new(4, 3, 1), LayerShape::new(8, 2, 3)]),
            (SignalShape::new(1, 8, 8), vec![LayerShape::new(9, 8, 8)]),
        ];
        for (signal, layers) in none {
            assert_eq!(window(signal, &layers), None, "{layers:?}");
        }
    }

    #[test]
    fn mistakes_name_the_layer() {
        let too_large = Geometry::new(SignalShape::new(1, 8, 8), &[LayerShape::new(4, 3, 2), LayerShape::new(4, 5, 1)]);
        let message = too_large.unwrap_err().to_string();
        assert!(message.contains("kernel of layer 2") && message.contains("5x5"), "{message}");
        for (layer, word) in [
            (LayerShape::new(0, 3, 1), "atoms"),
            (LayerShape::new(4, 0, 1), "kernel"),
            (LayerShape::new(4, 3, 0), "stride"),
            (LayerShape::new(4, 3, 1).with_padding(3), "padding"),
            (LayerShape::new(usize::MAX / 2, 3, 1), "layer 1"),
        ] {
            let message = Geometry::new(SignalShape::new(1, 8, 8), &[layer]).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(Geometry::new(SignalShape::new(1, 8, 8), &[]).is_err());
        assert!(Geometry::new(SignalShape::new(0, 8, 8), &mnist()).is_err());
    }

    #[test]
    fn pairs_in_configurations() {
        let layer: LayerShape = serde_json::from_str(r#"{"atoms": 3, "kernel": [5, 7], "stride": 2}"#).unwrap();
        assert_eq!(layer, LayerShape::new(3, Pair([5, 7]), 2));
        assert_eq!(serde_json::to_string(&layer).unwrap(), r#"{"atoms":3,"kernel":[5,7],"stride":2,"padding":0}"#);
        assert!(serde_json::from_str::<LayerShape>(r#"{"atoms": 3, "kernel": 5, "strides": 2}"#).is_err());
        assert_eq!("1x28x28".parse(), Ok(SignalShape::new(1, 28, 28)));
        assert!("28x28".parse::<SignalShape>().is_err());
    }
}
