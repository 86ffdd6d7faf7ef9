//! Filters that were learned elsewhere, as arrays: `cargo run --release --example own_dictionary`.

use burn::tensor::{Tensor, TensorData};
use mlcsc::prelude::*;

fn main() -> Result<()> {
    let device = device::named(None)?;
    // Two layers: three filters of 3 samples; two atoms that are sums of them, 4 positions wide.
    let first = TensorData::new(vec![1.0f32, 2.0, 1.0, -1.0, 0.0, 1.0, 1.0, -2.0, 1.0], [3, 1, 1, 3]);
    let mut second = vec![0.0f32; 2 * 3 * 4];
    second[..4].copy_from_slice(&[1.0, 0.0, 0.0, 1.0]); // atom 1: the first filter twice
    second[16..20].copy_from_slice(&[1.0, -1.0, 0.0, 0.0]); // atom 2: the second filter, there and back
    let second = TensorData::new(second, [2, 3, 1, 4]);

    let signal = SignalShape::new(1, 1, 40); // signals in time: one channel, 40 samples
    let layers = vec![LayerShape::new(3, Pair([1, 3]), 1), LayerShape::new(2, Pair([1, 4]), 1)];
    let filters = [first, second].map(|filters| Tensor::from_data(filters, &device)).into();
    let model = Mlcsc::from_filters(ModelConfig::new(signal, layers), filters)?;

    let mut code = vec![0.0f32; 2 * 35]; // positions: 40 samples less the kernels, 40 − 2 − 3
    (code[4], code[35 + 20]) = (1.0, 0.5); // each atom once
    let planted = Tensor::from_data(TensorData::new(code, [1, 2, 1, 35]), &device);
    let signals = model.operator(signal, OperatorForm::Auto)?.synthesize(planted);
    let coder = CoderConfig::new(&CodingDefaults::default()).with_lambda(Lambda::Relative(0.01)).init(&model)?;
    let codes = coder.encode(signals)?;
    let found: Vec<f32> = codes.deepest().to_data().iter().collect();
    (0..70).filter(|&i| found[i] != 0.0).for_each(|i| println!("atom {} at {}: {:.3}", i / 35 + 1, i % 35, found[i]));
    Ok(())
}
