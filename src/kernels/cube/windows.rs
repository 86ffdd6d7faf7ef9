//! Convolutions as exact products with the windows that a code's positions see.
//!
//! A backend's own convolutions round their factors where a device has tensor cores, whatever is asked for. Here the windows are laid side by side by one
//! kernel, `[n, values of a window, positions]`, so that analysis, synthesis and the gradient of the filters are products of matrices, which are
//! as exact as [`crate::device::Precision`] says; another kernel adds windows up where they overlap, each sample by one unit in a fixed order. What does not fit into a
//! buffer is done some signals, or some rows of one, at a time.

use super::{room, zeros};
use crate::geometry::{LayerGeometry, SignalShape};
use crate::kernels::dictionary::{
    DictionaryOps, by_windows, has_few_windows, matrix_analysis, matrix_gradient, matrix_synthesis,
};
use crate::kernels::product::ProductOps;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use std::ops::Range;

/// Values of windows, or of codes, that are held at once.
const HELD: usize = 1 << 26;

/// What a kernel knows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cut {
    channels: usize,
    height: usize,
    width: usize,
    kernel_height: usize,
    kernel_width: usize,
    down: usize,
    across: usize,
    above: usize,
    before: usize,
    columns: usize,
}

impl Cut {
    fn of(layer: &LayerGeometry) -> Self {
        let &LayerGeometry { signal, code, kernel, stride, padding, .. } = layer;
        let SignalShape { channels, height, width } = signal;
        Self {
            channels,
            height,
            width,
            kernel_height: kernel[0],
            kernel_width: kernel[1],
            down: stride[0],
            across: stride[1],
            above: padding[0],
            before: padding[1],
            columns: code.width,
        }
    }

    fn window_len(&self) -> usize {
        self.channels * self.kernel_height * self.kernel_width
    }
}

/// Some signals, and some rows of their codes.
struct Part {
    signals: Range<usize>,
    rows: Range<usize>,
}

impl Part {
    /// All signals and rows, in parts whose windows and codes a buffer holds, and `each` values more for every signal.
    fn all(count: usize, layer: &LayerGeometry, each: usize, like: &CubeTensor) -> Vec<Self> {
        let most = HELD.min((like.client.properties().memory.max_page_size / 4) as usize);
        let row = layer.code.width * layer.atom_len().max(layer.code.channels);
        let rows = layer.code.height;
        if row * rows > most {
            let at_once = (most / row).max(1);
            let of_one = move |signal: usize| {
                (0..rows)
                    .step_by(at_once)
                    .map(move |first| Self { signals: signal..signal + 1, rows: first..rows.min(first + at_once) })
            };
            return (0..count).flat_map(of_one).collect();
        }
        let at_once = (most / (row * rows).max(each).max(1)).max(1);
        let some = |first: usize| Self { signals: first..count.min(first + at_once), rows: 0..rows };
        (0..count).step_by(at_once).map(some).collect()
    }

    fn positions(&self, layer: &LayerGeometry) -> usize {
        self.rows.len() * layer.code.width
    }

    /// The part's codes as matrices, `[signals, atoms, positions]`.
    fn of_codes(&self, codes: CubeTensor, layer: &LayerGeometry) -> CubeTensor {
        let SignalShape { channels, width, .. } = layer.code;
        let places = [self.signals.clone(), 0..channels, self.rows.clone(), 0..width].map(Slice::from);
        let some = CubeBackend::float_slice(codes, &places);
        CubeBackend::float_reshape(some, Shape::new([self.signals.len(), channels, self.positions(layer)]))
    }
}

/// A matrix for each of some signals, which is the same for all.
fn for_each(matrix: CubeTensor, dims: [usize; 2], count: usize) -> CubeTensor {
    let matrix = CubeBackend::float_reshape(matrix, Shape::new([1, dims[0], dims[1]]));
    CubeBackend::float_expand(matrix, Shape::new([count, dims[0], dims[1]]))
}

/// The windows that positions of a part see, `[signals, values of a window, positions]`.
fn cut(signals: &CubeTensor, layer: &LayerGeometry, part: &Part) -> CubeTensor {
    let cut = Cut::of(layer);
    let out = room(signals, [part.signals.len(), cut.window_len(), part.positions(layer)]);
    let values = out.meta.shape().num_elements();
    let dim = CubeDim::new(&out.client, values);
    // SAFETY: units beyond the last value end at once, and samples outside of the signal are not read.
    unsafe {
        cut_kernel::launch_unchecked(
            &out.client,
            calculate_cube_count_elemwise(&out.client, values, dim),
            dim,
            signals.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            part.signals.start,
            part.rows.start,
            part.rows.len(),
            cut,
        );
    }
    out
}

/// Adds the windows of a part to the signals that they were cut from.
fn add(windows: CubeTensor, signals: &CubeTensor, layer: &LayerGeometry, part: &Part) {
    let windows = into_contiguous(windows);
    let values = part.signals.len() * layer.signal.len();
    let dim = CubeDim::new(&windows.client, values);
    // SAFETY: units beyond the part's last sample end at once; windows of other rows are not read.
    unsafe {
        add_kernel::launch_unchecked(
            &windows.client,
            calculate_cube_count_elemwise(&windows.client, values, dim),
            dim,
            windows.clone().into_buffer_arg(),
            signals.clone().into_buffer_arg(),
            values,
            part.signals.start,
            part.rows.start,
            part.rows.len(),
            Cut::of(layer),
        );
    }
}

#[cube(launch_unchecked)]
fn cut_kernel(
    signals: &[f32],
    out: &mut [f32],
    first_signal: usize,
    first_row: usize,
    rows: usize,
    #[comptime] of: Cut,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let positions = rows * of.columns;
    let position = at % positions;
    let rest = at / positions;
    let tap = rest % comptime!(of.window_len());
    let signal = first_signal + rest / comptime!(of.window_len());
    let channel = tap / comptime!(of.kernel_height * of.kernel_width);
    // Counted from the first row and column of the padding.
    let row = (first_row + position / of.columns) * of.down + tap / of.kernel_width % of.kernel_height;
    let column = position % of.columns * of.across + tap % of.kernel_width;
    let mut value = 0.0f32;
    if row >= of.above
        && row < comptime!(of.above + of.height)
        && column >= of.before
        && column < comptime!(of.before + of.width)
    {
        let line = (signal * of.channels + channel) * of.height + row - of.above;
        value = signals[line * of.width + column - of.before];
    }
    out[at] = value;
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    clippy::manual_is_multiple_of,
    reason = "a kernel's buffers, and what kernels can call"
)]
fn add_kernel(
    windows: &[f32],
    signals: &mut [f32],
    values: usize,
    first_signal: usize,
    first_row: usize,
    rows: usize,
    #[comptime] of: Cut,
) {
    let at = ABSOLUTE_POS;
    if at >= values {
        terminate!();
    }
    let line = at / of.width;
    // Counted from the first row and column of the padding.
    let column = at % of.width + of.before;
    let row = line % of.height + of.above;
    let plane = line / of.height;
    let place = first_signal * comptime!(of.channels * of.height * of.width) + at;
    let mut sum = signals[place];
    for down in 0..of.kernel_height {
        if row >= down && (row - down) % of.down == 0 {
            let from_row = (row - down) / of.down;
            if from_row >= first_row && from_row < first_row + rows {
                for across in 0..of.kernel_width {
                    if column >= across && (column - across) % of.across == 0 {
                        let from = (column - across) / of.across;
                        if from < of.columns {
                            // Channels of a window are its outermost places, as those of a signal.
                            let tap = (plane * of.kernel_height + down) * of.kernel_width + across;
                            sum += windows[(tap * rows + from_row - first_row) * of.columns + from];
                        }
                    }
                }
            }
        }
    }
    signals[place] = sum;
}

impl DictionaryOps for CubeBackend {
    fn dictionary_analysis(signals: CubeTensor, filters: CubeTensor, layer: LayerGeometry) -> CubeTensor {
        if layer.is_matrix() {
            return matrix_analysis::<Self>(signals, filters, &layer);
        }
        if has_few_windows(&layer) {
            return by_windows::<Self>(signals, filters, &layer);
        }
        let signals = into_contiguous(signals);
        let count = signals.meta.shape()[0];
        let (atoms, len) = (layer.code.channels, layer.atom_len());
        let parts = Part::all(count, &layer, 0, &signals);
        let of_one = parts.first().is_some_and(|part| part.rows.len() < layer.code.height);
        let products = parts.iter().map(|part| {
            let filters = for_each(filters.clone(), [atoms, len], part.signals.len());
            let products = Self::product(filters, cut(&signals, &layer, part));
            let shape = [part.signals.len(), atoms, part.rows.len(), layer.code.width];
            Self::float_reshape(products, Shape::new(shape))
        });
        let mut products: Vec<CubeTensor> = products.collect();
        if of_one {
            // Rows of each signal first.
            let each = products.len() / count.max(1);
            products = products.chunks(each).map(|rows| Self::float_cat(rows.to_vec(), 2)).collect();
        }
        match products.len() {
            1 => products.swap_remove(0),
            _ => Self::float_cat(products, 0),
        }
    }

    fn dictionary_synthesis(codes: CubeTensor, filters: CubeTensor, layer: LayerGeometry) -> CubeTensor {
        if layer.is_matrix() {
            return matrix_synthesis::<Self>(codes, filters, &layer);
        }
        let count = codes.meta.shape()[0];
        let (atoms, len) = (layer.code.channels, layer.atom_len());
        let out = zeros(&codes, layer.signal.batched(count));
        let filters = Self::float_transpose(Self::float_reshape(filters, Shape::new([atoms, len])));
        for part in Part::all(count, &layer, 0, &out) {
            let filters = for_each(into_contiguous(filters.clone()), [len, atoms], part.signals.len());
            let windows = Self::product(filters, part.of_codes(codes.clone(), &layer));
            add(windows, &out, &layer, &part);
        }
        out
    }

    fn dictionary_gradient(
        residuals: CubeTensor,
        codes: CubeTensor,
        filters: CubeTensor,
        layer: LayerGeometry,
    ) -> CubeTensor {
        if layer.is_matrix() {
            return matrix_gradient::<Self>(residuals, codes, &layer);
        }
        let residuals = into_contiguous(residuals);
        let each = layer.code.channels * layer.atom_len();
        let parts = Part::all(residuals.meta.shape()[0], &layer, each, &residuals).into_iter().map(|part| {
            let windows = Self::float_swap_dims(cut(&residuals, &layer, &part), 1, 2);
            let products = Self::product(part.of_codes(codes.clone(), &layer), windows);
            Self::float_reshape(Self::float_sum_dim(products, 0), filters.meta.shape().clone())
        });
        let sum = parts.reduce(Self::float_add);
        sum.unwrap_or_else(|| zeros(&residuals, layer.filter_dims()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, LayerShape, Pair};
    use crate::kernels::cube::taken;
    use crate::kernels::cube::testing::{device, there};
    use crate::kernels::dictionary::{analysis, gradient, synthesis};
    use burn::tensor::{Distribution, Tensor};

    /// With strides, padding, channels and samples beyond the last window: what the host computes.
    #[test]
    fn convolutions_are_those_of_the_host() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        for (signal, kernel, stride, padding) in [
            (SignalShape::new(1, 20, 23), [5, 4], [1, 1], [0, 0]),
            (SignalShape::new(3, 31, 40), [7, 7], [2, 3], [0, 0]),
            (SignalShape::new(2, 17, 19), [3, 5], [1, 2], [1, 2]),
            (SignalShape::new(2, 1, 200), [1, 16], [1, 2], [0, 0]),
        ] {
            let mut shape = LayerShape::new(6, Pair(kernel), Pair(stride));
            shape.padding = Pair(padding);
            let layer = Geometry::new(signal, &[shape]).unwrap().layers()[0].clone();
            assert!(!has_few_windows(&layer));
            let random = |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &host);
            let (signals, codes, filters) =
                (random(signal.batched(3)), random(layer.code.batched(3)), random(layer.filter_dims()));
            let on = |tensor: &Tensor<4>| tensor.clone().to_device(&device);
            let close = |found: Tensor<4>, expected: Tensor<4>| {
                assert_eq!(found.dims(), expected.dims());
                let scale: f32 = expected.clone().abs().max().into_scalar();
                let difference: f32 = (there(found) - expected).abs().max().into_scalar();
                assert!(difference < 2e-6 * scale, "{layer:?}: {difference} of {scale}");
            };
            close(analysis(on(&signals), on(&filters), &layer), analysis(signals.clone(), filters.clone(), &layer));
            close(synthesis(on(&codes), on(&filters), &layer), synthesis(codes.clone(), filters.clone(), &layer));
            close(
                gradient(on(&signals), on(&codes), on(&filters), &layer),
                gradient(signals.clone(), codes.clone(), filters.clone(), &layer),
            );
        }
    }

    /// Rows of one signal at a time, and signals some at a time, are all of them once.
    #[test]
    fn parts_are_all() {
        let Some(device) = device() else { return };
        let like = taken(Tensor::<1>::zeros([1], &device)).unwrap();
        let layer = |height: usize, width: usize| {
            let layer = LayerShape::new(96, 11, 1);
            Geometry::new(SignalShape::new(1, height, width), &[layer]).unwrap().layers()[0].clone()
        };
        for (count, layer) in [(3, layer(3000, 2000)), (2000, layer(28, 28)), (1, layer(40, 40))] {
            let parts = Part::all(count, &layer, 0, &like);
            let seen: usize = parts.iter().map(|part| part.signals.len() * part.rows.len()).sum();
            assert_eq!(seen, count * layer.code.height);
            assert!(parts.iter().all(|part| part.signals.len() * part.positions(&layer) * 121 <= HELD));
            assert!(parts.windows(2).all(|pair| {
                let next = (pair[1].signals.start, pair[1].rows.start);
                next == (pair[0].signals.start, pair[0].rows.end) || next == (pair[0].signals.end, 0)
            }));
        }
    }
}
