//! What a training step of networks of unrolled pursuits costs: `cargo bench --bench network`.
//!
//! The paper's networks for MNIST on random signals: scores, cross-entropy and all gradients, without the optimizer. One item is one
//! signal. `benches/peers/network.py` times the same step in PyTorch.

use burn::tensor::{Int, Tensor, TensorData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mlcsc::classify::{NetworkPursuit, PursuitNetwork, PursuitNetworkConfig};

/// Signals of a step.
const SIGNALS: usize = 128;

fn main() {
    divan::main();
}

#[divan::bench(args = NetworkPursuit::ALL.map(|(_, name)| name), sample_count = 10)]
fn step(bencher: Bencher, name: &str) {
    let device = mlcsc::device::named(None).expect("a device").autodiff();
    let (pursuit, _) = NetworkPursuit::ALL.into_iter().find(|(_, known)| *known == name).expect("a network");
    let network = PursuitNetworkConfig::mnist(pursuit).init(0, &device).expect("a network");
    // Numbers in [0, 1).
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32
    };
    let values: Vec<f32> = (0..SIGNALS * 28 * 28).map(next).collect();
    let signals = Tensor::<4>::from_data(TensorData::new(values, [SIGNALS, 1, 28, 28]), &device);
    let labels: Vec<i32> = (0..SIGNALS as i32).map(|label| label % 10).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [SIGNALS]), &device);
    bencher.counter(ItemsCount::new(SIGNALS)).bench_local(|| {
        let scores = network.forward(black_box(signals.clone())).expect("signals that fit");
        PursuitNetwork::cross_entropy(scores, labels.clone()).mean().backward()
    });
}
