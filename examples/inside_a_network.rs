//! An unrolled pursuit between a convolution and a linear head: `cargo run --release --example inside_a_network`.
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::{optim, prelude::*};
use mlcsc::prelude::*;

#[derive(Module, Debug)]
struct Network {
    convolution: Conv2d,
    pursuit: UnrolledEncoder,
    head: Linear,
}

fn main() -> Result<()> {
    let device = device::named(None)?.autodiff();
    let geometry = ModelConfig::new(SignalShape::new(4, 12, 12), vec![LayerShape::new(32, 12, 1)]);
    let pursuit = UnrolledEncoderConfig::new(geometry).with_iterations(5).with_lambda(0.1).init(&device)?;
    let (convolution, head) = (Conv2dConfig::new([1, 4], [5, 5]), LinearConfig::new(32, 1));
    let mut network = Network { convolution: convolution.init(&device), pursuit, head: head.init(&device) };
    let mut optimizer = optim::AdamConfig::new().init();
    let wanted: Tensor<2> = Tensor::ones([8, 1], &device).cumsum(0) / 8; // what each signal is filled with
    let signals: Tensor<4> = wanted.clone().reshape([8, 1, 1, 1]).expand([8, 1, 16, 16]);
    for step in 0..100 {
        let codes = network.pursuit.forward(network.convolution.forward(signals.clone()));
        let loss = (network.head.forward(codes.flatten(1, 3)) - wanted.clone()).square().mean();
        println!("step {step}: {:.5}", loss.clone().into_scalar::<f32>());
        network = optimizer.step(3e-3, network.clone(), optim::GradientsParams::from_grads(loss.backward(), &network));
    }
    Ok(())
}
