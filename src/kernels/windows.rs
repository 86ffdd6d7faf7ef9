//! Signals as batches of windows, where the positions of a code share no sample.
//!
//! A layer that is disjoint ([`LayerGeometry::is_disjoint`]) is one matrix on every position's window: a batch
//! `[n, channels, height, width]` is `n` times as many signals as there are positions, each with a code of one position. Feature
//! maps under 1×1 kernels are the best known case: every pixel is a vector of its channels.

use crate::geometry::{LayerGeometry, SignalShape};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// How signals and codes of a disjoint layer are cut into windows and put together again.
///
/// Windows lie one after the other: signal by signal, then by rows and columns of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    layer: LayerGeometry,
    /// Samples from one window to the next, per axis.
    step: [usize; 2],
}

impl Windows {
    /// The windows of a layer; `None` where it is not disjoint or has only one position.
    pub fn of(layer: &LayerGeometry) -> Option<Self> {
        if !layer.is_disjoint() || layer.code.is_single_position() {
            return None;
        }
        let positions = [layer.code.height, layer.code.width];
        // The stride between positions of which there is but one may be less than the kernel, and is of no importance.
        let step =
            std::array::from_fn(|axis| if positions[axis] == 1 { layer.kernel[axis] } else { layer.stride[axis] });
        Some(Self { layer: layer.clone(), step })
    }

    /// The layer.
    pub fn layer(&self) -> &LayerGeometry {
        &self.layer
    }

    /// The layer on one window.
    pub fn window(&self) -> LayerGeometry {
        let LayerGeometry { signal, code, kernel: [height, width], .. } = self.layer;
        LayerGeometry {
            signal: SignalShape { height, width, ..signal },
            code: SignalShape { height: 1, width: 1, ..code },
            output_padding: [0, 0],
            ..self.layer.clone()
        }
    }

    /// The layer on one window whose values are taken for a line: as many code values as atoms, each of one line.
    #[cfg(feature = "flex")]
    pub(crate) fn flat(&self) -> LayerGeometry {
        let len = self.layer.atom_len();
        LayerGeometry {
            signal: SignalShape::new(1, 1, len),
            code: SignalShape::new(self.layer.code.channels, 1, 1),
            kernel: [1, len],
            stride: [1, 1],
            padding: [0, 0],
            output_padding: [0, 0],
        }
    }

    /// Windows of one signal.
    pub fn positions(&self) -> usize {
        self.layer.code.height * self.layer.code.width
    }

    /// Whether every sample is in some window.
    pub fn cover(&self) -> bool {
        self.positions() * self.layer.atom_len() == self.layer.signal.len()
    }

    /// The windows of signals.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`; out: `[n · positions, channels, kernel height, kernel width]`.
    pub fn cut(&self, signals: Tensor<4>) -> Tensor<4> {
        let [count, channels, height, width] = signals.dims();
        let [rows, columns] = [self.layer.code.height, self.layer.code.width];
        let [kernel_height, kernel_width] = self.layer.kernel;
        let out = [count * rows * columns, channels, kernel_height, kernel_width];
        if count == 0 {
            return Tensor::zeros(out, &signals.device());
        }
        let [down, across] = self.step;
        let whole = [rows * down, columns * across];
        // The last window's gap may be missing in part; what is beyond it is of no interest.
        let inside = [height.min(whole[0]), width.min(whole[1])];
        let signals = match inside == [height, width] {
            true => signals,
            false => signals.slice([0..count, 0..channels, 0..inside[0], 0..inside[1]]),
        };
        let signals = match inside == whole {
            true => signals,
            false => Tensor::zeros([count, channels, whole[0], whole[1]], &signals.device())
                .slice_assign([0..count, 0..channels, 0..inside[0], 0..inside[1]], signals),
        };
        if self.layer.kernel == [1, 1] && self.step == [1, 1] {
            return signals.reshape([count, channels, rows * columns]).swap_dims(1, 2).reshape(out);
        }
        signals
            .reshape([count, channels, rows, down, columns, across])
            .slice([0..count, 0..channels, 0..rows, 0..kernel_height, 0..columns, 0..kernel_width])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape(out)
    }

    /// [`Self::cut`] on the host.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub(crate) fn cut_into(&self, signals: &[f32], out: &mut [f32]) {
        let (kernel, len) = (self.layer.kernel[1], self.positions() * self.layer.atom_len());
        assert_eq!(signals.len() / self.layer.signal.len(), out.len() / len, "as many signals");
        let signals = signals.par_chunks_exact(self.layer.signal.len());
        out.par_chunks_exact_mut(len).zip(signals).for_each(|(out, signal)| {
            self.for_each_line(|place, sample| {
                out[place..place + kernel].copy_from_slice(&signal[sample..sample + kernel]);
            });
        });
    }

    /// The inverse of [`Self::cut_into`]; samples that no window holds are left as they are.
    ///
    /// # Panics
    /// As there.
    #[cfg(feature = "flex")]
    pub(crate) fn join_into(&self, windows: &[f32], out: &mut [f32]) {
        let (kernel, len) = (self.layer.kernel[1], self.positions() * self.layer.atom_len());
        assert_eq!(windows.len() / len, out.len() / self.layer.signal.len(), "as many signals");
        let signals = out.par_chunks_exact_mut(self.layer.signal.len());
        windows.par_chunks_exact(len).zip(signals).for_each(|(windows, signal)| {
            self.for_each_line(|place, sample| {
                signal[sample..sample + kernel].copy_from_slice(&windows[place..place + kernel]);
            });
        });
    }

    /// Calls `line` for every line of every window of a signal: its place among the windows' values, and among the signal's.
    fn for_each_line(&self, mut line: impl FnMut(usize, usize)) {
        let LayerGeometry { signal, code, kernel: [height, width], .. } = &self.layer;
        for channel in 0..signal.channels {
            for row in 0..code.height * height {
                let (position, row) = (row / height, row % height);
                let sample = (channel * signal.height + position * self.step[0] + row) * signal.width;
                let place = position * code.width * self.layer.atom_len() + (channel * height + row) * width;
                for column in 0..code.width {
                    line(place + column * self.layer.atom_len(), sample + column * self.step[1]);
                }
            }
        }
    }

    /// [`Self::cut_codes`] on the host.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub(crate) fn cut_codes_into(&self, codes: &[f32], out: &mut [f32]) {
        transpose_each(codes, [self.layer.code.channels, self.positions()], out);
    }

    /// [`Self::join_codes`] on the host.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    #[cfg(feature = "flex")]
    pub(crate) fn join_codes_into(&self, codes: &[f32], out: &mut [f32]) {
        transpose_each(codes, [self.positions(), self.layer.code.channels], out);
    }

    /// The codes of the windows, of the codes of signals.
    ///
    /// # Shapes
    /// - codes: `[n, atoms, code height, code width]`; out: `[n · positions, atoms, 1, 1]`.
    pub fn cut_codes(&self, codes: Tensor<4>) -> Tensor<4> {
        let [count, atoms, _, _] = codes.dims();
        let out = [count * self.positions(), atoms, 1, 1];
        match count {
            0 => Tensor::zeros(out, &codes.device()),
            _ => codes.reshape([count, atoms, self.positions()]).swap_dims(1, 2).reshape(out),
        }
    }

    /// The codes of signals, of the codes of their windows.
    ///
    /// # Shapes
    /// - codes: `[n · positions, atoms, 1, 1]`; out: `[n, atoms, code height, code width]`.
    pub fn join_codes(&self, codes: Tensor<4>) -> Tensor<4> {
        let atoms = codes.dims()[1];
        let count = codes.dims()[0] / self.positions();
        let out = [count, atoms, self.layer.code.height, self.layer.code.width];
        match count {
            0 => Tensor::zeros(out, &codes.device()),
            _ => codes.reshape([count, self.positions(), atoms]).swap_dims(1, 2).reshape(out),
        }
    }
}

/// Transposes matrices `[rows, columns]` that lie one after the other.
fn transpose_each(matrices: &[f32], [rows, columns]: [usize; 2], out: &mut [f32]) {
    /// Columns that are read together, so that what is read and what is written stay in the cache.
    const TILE: usize = 16;
    assert_eq!(matrices.len(), out.len(), "as many values");
    let matrices = matrices.par_chunks_exact(rows * columns);
    out.par_chunks_exact_mut(rows * columns).zip(matrices).for_each(|(out, matrix)| {
        for (tile, out) in out.chunks_mut(TILE * rows).enumerate() {
            for (row, values) in matrix.chunks_exact(columns).enumerate() {
                let values = &values[tile * TILE..];
                out.iter_mut().skip(row).step_by(rows).zip(values).for_each(|(out, value)| *out = *value);
            }
        }
    });
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};
    use crate::kernels::sparse::to_host;
    use burn::tensor::TensorData;

    /// By the definition: sample (y, x) of the window at (row, column) is sample (row·s + y, column·s + x) of the signal.
    #[test]
    fn windows_lie_where_their_positions_are() {
        let device = crate::device::named(None).unwrap();
        let cases = [
            (SignalShape::new(3, 4, 5), LayerShape::new(2, 1, 1)),
            (SignalShape::new(2, 6, 8), LayerShape::new(2, Pair([3, 2]), Pair([3, 2]))),
            // Gaps between windows, of which the last is missing or goes on; samples beyond.
            (SignalShape::new(2, 9, 17), LayerShape::new(2, Pair([2, 3]), Pair([4, 5]))),
            (SignalShape::new(1, 5, 9), LayerShape::new(2, 1, 2)),
            (SignalShape::new(2, 5, 8), LayerShape::new(3, Pair([5, 2]), Pair([1, 3]))),
        ];
        for (signal, shape) in cases {
            let layer = Geometry::new(signal, &[shape]).unwrap().layers()[0].clone();
            let (windows, count) = (Windows::of(&layer).unwrap(), 3);
            let values: Vec<f32> = (0..count * signal.len()).map(|value| value as f32).collect();
            let tensor = Tensor::<4>::from_data(TensorData::new(values.clone(), signal.batched(count)), &device);
            let found = to_host(windows.cut(tensor));
            let mut on_host = vec![0.0; found.len()];
            windows.cut_into(&values, &mut on_host);
            assert_eq!(on_host, found);
            let mut back = vec![-1.0; values.len()];
            windows.join_into(&on_host, &mut back);
            let joined = |(back, value): (&f32, &f32)| back == value || !on_host.contains(value) && *back == -1.0;
            assert!(back.iter().zip(&values).all(joined));
            let mut expected = Vec::new();
            for window in 0..count * windows.positions() {
                let (image, position) = (window / windows.positions(), window % windows.positions());
                let (row, column) = (position / layer.code.width, position % layer.code.width);
                for channel in 0..signal.channels {
                    for y in 0..layer.kernel[0] {
                        for x in 0..layer.kernel[1] {
                            let (y, x) = (row * layer.stride[0] + y, column * layer.stride[1] + x);
                            let place = (channel * signal.height + y) * signal.width + x;
                            expected.push((image * signal.len() + place) as f32);
                        }
                    }
                }
            }
            assert_eq!(found, expected, "{layer:?}");
            assert_eq!(windows.cover(), signal.height != 9 && signal.height != 5, "{layer:?}");
            assert_eq!(windows.window().filter_dims(), layer.filter_dims());
            let values: Vec<f32> = (0..count * layer.code.len()).map(|value| value as f32).collect();
            let codes = Tensor::<4>::from_data(TensorData::new(values.clone(), layer.code.batched(count)), &device);
            let cut = windows.cut_codes(codes);
            let mut on_host = vec![0.0; values.len()];
            windows.cut_codes_into(&values, &mut on_host);
            assert_eq!(on_host, to_host(cut.clone()));
            let mut back = vec![0.0; values.len()];
            windows.join_codes_into(&on_host, &mut back);
            assert_eq!(back, values);
            let (positions, atoms) = (windows.positions(), layer.code.channels);
            let of_first: Vec<f32> = (0..atoms).map(|atom| (atom * positions) as f32).collect();
            assert_eq!(to_host(cut.clone())[..atoms], of_first);
            assert_eq!(to_host(windows.join_codes(cut)), values);
        }
    }

    #[test]
    fn overlap_and_single_positions_have_no_windows() {
        for (side, shape) in
            [(8, LayerShape::new(2, 3, 2)), (8, LayerShape::new(2, 8, 1)), (9, LayerShape::new(2, 5, 8))]
        {
            let layer = Geometry::new(SignalShape::new(1, side, side), &[shape]).unwrap().layers()[0].clone();
            assert_eq!(Windows::of(&layer), None);
        }
    }

    #[test]
    fn no_signals_have_no_windows() {
        let device = crate::device::named(None).unwrap();
        let layer = Geometry::new(SignalShape::new(2, 6, 6), &[LayerShape::new(5, 3, 3)]).unwrap().layers()[0].clone();
        let windows = Windows::of(&layer).unwrap();
        assert_eq!(windows.cut(Tensor::zeros([0, 2, 6, 6], &device)).dims(), [0, 2, 3, 3]);
        assert_eq!(windows.cut_codes(Tensor::zeros([0, 5, 2, 2], &device)).dims(), [0, 5, 1, 1]);
        assert_eq!(windows.join_codes(Tensor::zeros([0, 5, 1, 1], &device)).dims(), [0, 5, 2, 2]);
    }
}
