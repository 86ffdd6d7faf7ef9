//! What the unit tests of learning share: random filters, and the data term by plain loops in `f64`.

use super::cascade::Cascade;
use crate::geometry::{Geometry, LayerGeometry, LayerShape, Pair, SignalShape};
use crate::kernels::sparse::HostFilters;
use crate::model::ModelConfig;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

pub(super) fn device() -> Device {
    crate::device::named(None).unwrap()
}

/// Signals or codes of a shape, one after the other.
pub(super) fn tensor(values: &[f32], shape: SignalShape) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape.batched(values.len() / shape.len())), &device())
}

/// Normal values of which the part `density` is not zero.
pub(super) fn sparse(seed: u64, len: usize, density: f32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..len)
        .map(|_| {
            let value: f32 = StandardNormal.sample(&mut random);
            if random.random::<f32>() < density { value } else { 0.0 }
        })
        .collect()
}

pub(super) fn filters(seed: u64, dims: [usize; 4], density: f32) -> HostFilters {
    HostFilters::new(dims, sparse(seed, dims.iter().product(), density))
}

/// The geometry of one layer.
pub(super) fn layer(signal: [usize; 3], shape: LayerShape) -> LayerGeometry {
    let [channels, height, width] = signal;
    Geometry::new(SignalShape::new(channels, height, width), &[shape]).unwrap().layers()[0].clone()
}

/// A cascade of random filters, D_1 dense, the others with three quarters of zeros.
pub(super) fn cascade(config: ModelConfig) -> Cascade {
    let geometry = config.geometry().unwrap();
    let layers = geometry.layers().iter().enumerate();
    let filters = layers
        .map(|(index, layer)| filters(index as u64, layer.filter_dims(), if index == 0 { 1.0 } else { 0.25 }))
        .collect();
    Cascade::new(config, filters)
}

/// Cascades of one and three layers: a matrix at the end, strides, rectangles, positions, padding in the first layer.
pub(super) fn configs() -> Vec<ModelConfig> {
    vec![
        ModelConfig::new(SignalShape::new(1, 5, 4), vec![LayerShape::new(7, Pair([5, 4]), 1)]),
        ModelConfig::new(
            SignalShape::new(1, 12, 12),
            vec![LayerShape::new(6, 5, 1), LayerShape::new(8, 3, 1), LayerShape::new(24, 6, 1)],
        ),
        ModelConfig::new(
            SignalShape::new(2, 14, 11),
            vec![
                LayerShape::new(4, Pair([3, 4]), Pair([2, 1])).with_padding(Pair([1, 2])),
                LayerShape::new(5, Pair([2, 3]), Pair([1, 2])),
                LayerShape::new(9, Pair([3, 2]), 1),
            ],
        ),
    ]
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// D times one code, by the definition.
pub(super) fn synthesis(geometry: &LayerGeometry, filters: &[f64], code: &[f64]) -> Vec<f64> {
    let LayerGeometry { signal, code: shape, kernel, stride, padding, .. } = geometry;
    let mut out = vec![0.0; signal.len()];
    for (index, &value) in code.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        let (atom, place) = (index / (shape.height * shape.width), index % (shape.height * shape.width));
        let position = [place / shape.width, place % shape.width];
        for channel in 0..signal.channels {
            for row in 0..kernel[0] {
                for column in 0..kernel[1] {
                    let y = (position[0] * stride[0] + row).checked_sub(padding[0]).filter(|&y| y < signal.height);
                    let x = (position[1] * stride[1] + column).checked_sub(padding[1]).filter(|&x| x < signal.width);
                    if let (Some(y), Some(x)) = (y, x) {
                        let from = ((atom * signal.channels + channel) * kernel[0] + row) * kernel[1] + column;
                        out[(channel * signal.height + y) * signal.width + x] += value * filters[from];
                    }
                }
            }
        }
    }
    out
}

/// Mean of ½‖y − Dγ‖² over signals, codes fixed.
pub(super) fn data_term(geometry: &LayerGeometry, filters: &[f64], signals: &[f32], codes: &[f32]) -> f64 {
    let pairs = signals.chunks_exact(geometry.signal.len()).zip(codes.chunks_exact(geometry.code.len()));
    let count = pairs.len() as f64;
    let terms = pairs.map(|(signal, code)| {
        let synthesized = synthesis(geometry, filters, &wide(code));
        synthesized
            .iter()
            .zip(signal)
            .map(|(synthesized, &value)| (synthesized - f64::from(value)).powi(2))
            .sum::<f64>()
            / 2.0
    });
    terms.sum::<f64>() / count
}

/// Asserts that values agree to `tolerance` times the largest expected magnitude.
pub(super) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance * scale, "{what}[{index}]: {found} where {expected} of scale {scale}");
    }
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Results of `compute` in pools of one, two and three threads.
pub(super) fn in_pools<T: Send>(compute: impl Fn() -> T + Sync) -> [T; 3] {
    [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&compute)
    })
}
