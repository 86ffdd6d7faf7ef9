//! What convolutions and the coding of images cost: `cargo bench --bench convolution`.
//!
//! Random filters and images. One item is one multiplication and addition, or one pixel.

use burn::tensor::{Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mlcsc::geometry::{Geometry, LayerGeometry, LayerShape, SignalShape};
use mlcsc::kernels::convolution::{Convolution, filter_gradient_into};
use mlcsc::kernels::sparse::HostFilters;
use mlcsc::model::{Dictionary, Mlcsc, ModelConfig, OperatorForm};
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, Problem};

fn main() {
    divan::main();
}

/// Channels, side of the image, atoms, side of the kernel, stride.
const LAYERS: [[usize; 5]; 4] = [[1, 256, 32, 8, 1], [1, 256, 96, 11, 1], [24, 61, 48, 3, 1], [1, 128, 24, 8, 2]];

fn layer([channels, side, atoms, kernel, stride]: [usize; 5]) -> LayerGeometry {
    let shape = LayerShape::new(atoms, kernel, stride);
    Geometry::new(SignalShape::new(channels, side, side), &[shape]).expect("a layer that fits").layers()[0].clone()
}

/// Numbers in [-0.5, 0.5).
fn random(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..len).map(next).collect()
}

fn filters(layer: &LayerGeometry) -> HostFilters {
    HostFilters::new(layer.filter_dims(), random(layer.filter_dims().iter().product()))
}

#[divan::bench(args = LAYERS, sample_count = 10)]
fn analysis(bencher: Bencher, sizes: [usize; 5]) {
    let layer = layer(sizes);
    let (convolution, signal) = (Convolution::new(&filters(&layer), &layer), random(layer.signal.len()));
    let mut out = vec![0.0; layer.code.len()];
    bencher.counter(ItemsCount::new(layer.multiplications())).bench_local(|| {
        convolution.analyze_into(black_box(&signal), &mut out);
    });
}

#[divan::bench(args = LAYERS, sample_count = 10)]
fn synthesis(bencher: Bencher, sizes: [usize; 5]) {
    let layer = layer(sizes);
    let (convolution, code) = (Convolution::new(&filters(&layer), &layer), random(layer.code.len()));
    let mut out = vec![0.0; layer.signal.len()];
    bencher.counter(ItemsCount::new(layer.multiplications())).bench_local(|| {
        convolution.synthesize_into(black_box(&code), &mut out);
    });
}

#[divan::bench(args = LAYERS, sample_count = 10)]
fn filter_gradient(bencher: Bencher, sizes: [usize; 5]) {
    let layer = layer(sizes);
    let (residual, code) = (random(layer.signal.len()), random(layer.code.len()));
    let mut out = vec![0.0; layer.filter_dims().iter().product()];
    bencher.counter(ItemsCount::new(layer.multiplications())).bench_local(|| {
        filter_gradient_into(&layer, black_box(&residual), &code, &mut out);
    });
}

/// The same of layers that many small signals go through.
const SMALL_LAYERS: [[usize; 5]; 5] =
    [[1, 28, 32, 6, 2], [32, 12, 64, 6, 2], [64, 12, 128, 5, 1], [64, 6, 256, 5, 1], [1, 32, 64, 28, 1]];

/// Signals of a batch.
const BATCH: usize = 128;

/// A dictionary, and a batch of its signals or codes.
fn batch(sizes: [usize; 5], codes: bool) -> (Dictionary, LayerGeometry, Tensor<4>) {
    let layer = layer(sizes);
    let device = mlcsc::device::named(None).expect("a device");
    let dims = if codes { layer.code } else { layer.signal }.batched(BATCH);
    let values = Tensor::from_data(TensorData::new(random(dims.iter().product()), dims), &device);
    let shape = LayerShape::new(sizes[2], sizes[3], sizes[4]);
    (Dictionary::from_filters(filters(&layer).to_tensor(&device), &shape), layer, values)
}

#[divan::bench(args = SMALL_LAYERS, sample_count = 20)]
fn batch_analysis(bencher: Bencher, sizes: [usize; 5]) {
    let (dictionary, layer, signals) = batch(sizes, false);
    let count = ItemsCount::new(BATCH as u64 * layer.multiplications());
    bencher.counter(count).bench_local(|| dictionary.analyze(black_box(signals.clone()), &layer));
}

#[divan::bench(args = SMALL_LAYERS, sample_count = 20)]
fn batch_synthesis(bencher: Bencher, sizes: [usize; 5]) {
    let (dictionary, layer, codes) = batch(sizes, true);
    let count = ItemsCount::new(BATCH as u64 * layer.multiplications());
    bencher.counter(count).bench_local(|| dictionary.synthesize(black_box(codes.clone()), &layer));
}

/// Images coded at a time, side of the image, filters: where there is a choice of algorithms.
const SMALL: [[usize; 3]; 12] = [
    [1, 10, 16],
    [16, 10, 16],
    [16, 14, 16],
    [16, 14, 64],
    [1, 24, 16],
    [1, 32, 16],
    [1, 48, 16],
    [1, 64, 16],
    [16, 24, 16],
    [16, 32, 16],
    [16, 48, 16],
    [16, 32, 64],
];

/// Basis pursuit on images over filters of 8×8, λ a third of λ_max, to a relative gap of 1e-3.
fn coding(bencher: Bencher, [count, side, atoms]: [usize; 3], algorithm: Algorithm) {
    let device = mlcsc::device::named(None).expect("a device");
    let (image, layer) = (SignalShape::new(1, side, side), LayerShape::new(atoms, 8, 1));
    let filters = filters(&Geometry::new(image, std::slice::from_ref(&layer)).expect("a layer").layers()[0]);
    let model = Mlcsc::from_filters(ModelConfig::new(image, vec![layer]), vec![filters.to_tensor(&device)]);
    let operator = model.and_then(|model| model.operator(image, OperatorForm::Auto)).expect("a model");
    let basis = BasisPursuitConfig { gap: 1e-3, ..Default::default() };
    let pursuit = algorithm.init(&basis, &operator).expect("settings");
    // Smooth, as photographs are: sums of what is above and to the left.
    let mut values = random(count * image.len());
    for image in values.chunks_exact_mut(side * side) {
        for place in 0..image.len() {
            let left = if place % side == 0 { 0.0 } else { image[place - 1] };
            let above = if place < side { 0.0 } else { image[place - side] };
            image[place] = 0.3 * image[place] + 0.45 * (left + above);
        }
    }
    let signals = Tensor::<1>::from_floats(values.as_slice(), &device).reshape(image.batched(count));
    let problem = Problem::new(&operator, signals).and_then(|problem| problem.with_lambda(Lambda::Relative(0.33)));
    let problem = problem.expect("images that fit");
    bencher
        .counter(ItemsCount::new(count * side * side))
        .bench_local(|| black_box(pursuit.solve(&problem).expect("codes")));
}

/// What is chosen for the size.
#[divan::bench(args = [[1, 64, 16], [1, 128, 16], [1, 256, 16]], sample_count = 5)]
fn coding_auto(bencher: Bencher, images: [usize; 3]) {
    coding(bencher, images, Algorithm::Auto);
}

#[divan::bench(args = SMALL, sample_count = 5)]
fn coding_coordinate_descent(bencher: Bencher, images: [usize; 3]) {
    coding(bencher, images, Algorithm::CoordinateDescent);
}

#[divan::bench(args = SMALL, sample_count = 5)]
fn coding_residual_descent(bencher: Bencher, images: [usize; 3]) {
    coding(bencher, images, Algorithm::ResidualDescent);
}
