//! What the integration tests share: devices, random models, an independent model in `f64`, and reference problems.

pub mod explicit;
#[cfg(feature = "autodiff")]
pub mod page;
pub mod parameters;
pub mod patience;
pub mod program;
pub mod reference;
pub mod theorems;

use burn::tensor::{Device, Tensor, TensorData};
use explicit::Explicit;
use mlcsc::data::DataConfig;
use mlcsc::device;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::learn::config::{InitializationConfig, Schedule, UpdateRule};
use mlcsc::learn::{LearningConfig, TrainConfig};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::Value;
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// Names the devices to test, separated by commas. Default: flex.
pub const DEVICES: &str = "MLCSC_TEST_DEVICES";

/// The ways to apply D^(L), [`OperatorForm::Auto`] aside.
pub const WAYS: [OperatorForm; 4] =
    [OperatorForm::Cascade, OperatorForm::Filters, OperatorForm::Matrix, OperatorForm::Gram];

/// A device under test.
pub struct TestDevice {
    pub name: String,
    pub device: Device,
    /// Whether only small shapes are affordable: ndarray's transposed convolution is slow, and the GPU backends may run on a
    /// software driver.
    pub small: bool,
}

impl TestDevice {
    /// Whether a test of large shapes is left out here; says so.
    pub fn skips(&self) -> bool {
        if self.small {
            eprintln!("skipped on {}: too slow there", self.name);
        }
        self.small
    }

    /// Whether a part of a test is left out here; says so.
    pub fn skips_part(&self, part: impl Display) -> bool {
        if self.small {
            eprintln!("skipped on {}: {part}: too slow there", self.name);
        }
        self.small
    }
}

/// The devices to test: those named in the environment that are compiled in.
///
/// # Panics
/// If none of those named is compiled in: a suite that tests nothing must not pass.
pub fn devices() -> Vec<TestDevice> {
    let available = device::available();
    let default = if available.contains(&"flex") { "flex" } else { available.first().expect("a backend") };
    let names = std::env::var(DEVICES).unwrap_or_else(|_| default.into());
    let devices: Vec<_> = names
        .split(',')
        .map(str::trim)
        .filter(|name| available.contains(name))
        .map(|name| TestDevice {
            name: name.into(),
            device: device::named(Some(name)).unwrap(),
            small: !matches!(name, "flex" | "cuda" | "rocm" | "metal" | "tch"),
        })
        .collect();
    assert!(!devices.is_empty(), "{DEVICES}={names}: none is compiled in ({})", available.join(", "));
    devices
}

/// A configuration of three layers on 1×12×12, the last a matrix, on patches of drawn digits; an epoch takes a fraction of a second.
pub fn small_run(update: UpdateRule) -> TrainConfig {
    TrainConfig {
        model: ModelConfig::new(
            SignalShape::new(1, 12, 12),
            vec![LayerShape::new(6, 5, 1), LayerShape::new(8, 3, 1), LayerShape::new(24, 6, 1)],
        ),
        data: DataConfig {
            count: Some(60),
            patch: Some(Pair([12, 12])),
            patches: Some(240),
            seed: 3,
            ..DataConfig::default()
        },
        learning: LearningConfig {
            update,
            epochs: 2,
            batch_size: 50,
            lambda: Schedule::constant(0.2),
            initialization: InitializationConfig { steps: 4, ..InitializationConfig::default() },
            ..LearningConfig::default()
        },
    }
}

/// Runs a test on every device and says on which it failed.
pub fn on_every_device(test: impl Fn(&TestDevice)) {
    for device in devices() {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&device)));
        if let Err(panic) = outcome {
            eprintln!("failed on device {}", device.name);
            std::panic::resume_unwind(panic);
        }
    }
}

/// Random numbers that are the same on every platform.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Standard normal values.
pub fn normals(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| StandardNormal.sample(rng)).collect()
}

/// A tensor of these values.
pub fn tensor<const D: usize>(values: &[f32], dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), device)
}

/// The values of a tensor.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Values in double precision.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// A model on the host: configuration and filters.
#[derive(Debug, Clone)]
pub struct Case {
    pub config: ModelConfig,
    pub filters: Vec<Vec<f32>>,
    /// For whatever random numbers the test needs.
    pub seed: u64,
}

impl Case {
    /// Random filters of unit norm, the same for the same seed.
    pub fn random(signal: SignalShape, layers: Vec<LayerShape>, seed: u64) -> Self {
        let mut rng = rng(seed);
        let mut channels = signal.channels;
        let filters = layers
            .iter()
            .map(|layer| {
                let atom = channels * layer.kernel.0[0] * layer.kernel.0[1];
                channels = layer.atoms;
                let mut values = normals(&mut rng, layer.atoms * atom);
                for atom in values.chunks_exact_mut(atom) {
                    let norm = atom.iter().map(|value| value * value).sum::<f32>().sqrt();
                    atom.iter_mut().for_each(|value| *value /= norm);
                }
                values
            })
            .collect();
        Self { config: ModelConfig::new(signal, layers), filters, seed }
    }

    /// The model under test.
    pub fn model(&self, device: &Device) -> Mlcsc {
        let mut channels = self.config.signal.channels;
        let filters = self.config.layers.iter().zip(&self.filters).map(|(layer, values)| {
            let dims = [layer.atoms, channels, layer.kernel.0[0], layer.kernel.0[1]];
            channels = layer.atoms;
            tensor(values, dims, device)
        });
        Mlcsc::from_filters(self.config.clone(), filters.collect()).unwrap()
    }

    /// The same model by plain loops in `f64`.
    pub fn explicit(&self) -> Explicit {
        Explicit::new(&self.config, self.filters.iter().map(|filters| wide(filters)).collect())
    }

    /// Whether a layer after the first is padded, so that D^(L) is not one convolution.
    pub fn has_inner_padding(&self) -> bool {
        self.config.layers[1..].iter().any(|layer| layer.padding != Pair([0, 0]))
    }

    /// `count` random signals.
    pub fn signals(&self, count: usize) -> Vec<f32> {
        normals(&mut rng(self.seed ^ 0x5167), count * self.config.signal.len())
    }

    /// `count` random codes of the deepest layer.
    pub fn codes(&self, count: usize) -> Vec<f32> {
        let len = self.explicit().code().iter().product::<usize>();
        normals(&mut rng(self.seed ^ 0xc0de), count * len)
    }
}

/// An axis of one layer before it is fitted to its neighbours: kernel, stride, wish for padding, wish for a remainder.
type Axis = (usize, usize, usize, usize);

fn axis() -> impl Strategy<Value = Axis> {
    (1..=4usize, 1..=3usize, 0..=3usize, 0..=2usize)
}

/// Models of one to three layers that fit by construction: from the deepest code outwards, every signal is what its code, its
/// kernel, its padding and a remainder that the stride doesn't reach make it.
fn cases() -> impl Strategy<Value = Case> {
    let layers = proptest::collection::vec((1..=3usize, [axis(), axis()]), 1..=3);
    (1..=3usize, layers, [1..=4usize, 1..=4usize], any::<bool>(), 0..1_000_000u64).prop_map(
        |(channels, layers, mut extents, inner_padding, seed)| {
            let mut shapes = Vec::new();
            for (index, (atoms, axes)) in layers.into_iter().enumerate().rev() {
                let (mut kernel, mut stride, mut padding) = ([0; 2], [0; 2], [0; 2]);
                for (direction, (kernel_wish, stride_wish, padding_wish, remainder)) in axes.into_iter().enumerate() {
                    kernel[direction] = kernel_wish;
                    // Keeps explicit matrices small.
                    stride[direction] = if extents[direction] > 6 { 1 } else { stride_wish };
                    let covered = (extents[direction] - 1) * stride[direction]
                        + kernel_wish
                        + remainder.min(stride[direction] - 1);
                    if index == 0 || inner_padding {
                        padding[direction] = padding_wish.min(kernel_wish - 1).min((covered - 1) / 2);
                    }
                    extents[direction] = covered - 2 * padding[direction];
                }
                shapes.push(LayerShape::new(atoms, Pair(kernel), Pair(stride)).with_padding(Pair(padding)));
            }
            shapes.reverse();
            Case::random(SignalShape::new(channels, extents[0], extents[1]), shapes, seed)
        },
    )
}

/// Runs a test on random models, always the same ones; a failure is shrunk. Fewer where a slow device is tested.
pub fn on_random_models(count: u32, seed: u64, test: impl Fn(&Case, &TestDevice)) {
    let devices = devices();
    let count = if devices.iter().any(|device| device.small) { count.div_ceil(4) } else { count };
    let config =
        Config { cases: count, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&cases(), |case| {
        devices.iter().for_each(|device| test(&case, device));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// Asserts that values equal their expectation to `tolerance` times each entry's scale.
pub fn assert_close(found: &[f32], expected: &[f64], scale: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, ((&found, &expected), &scale)) in found.iter().zip(expected).zip(scale).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance * scale, "{what}[{index}]: found {found}, expected {expected}, scale {scale}");
    }
}

/// 〈a, b〉.
pub fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Euclidean norm.
pub fn norm(values: &[f64]) -> f64 {
    inner(values, values).sqrt()
}

/// Lines of `metrics.jsonl` without times.
pub fn metrics(folder: &Path) -> Vec<Value> {
    fn drop_times(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.remove("seconds");
            fields.remove("signals_per_second");
            fields.values_mut().for_each(drop_times);
        }
    }
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line = serde_json::from_str(line).unwrap();
        drop_times(&mut line);
        line
    });
    lines.collect()
}
