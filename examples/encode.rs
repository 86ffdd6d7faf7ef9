//! Codes a batch with a model's file, by default the one that `learn` writes: `cargo run --release --example encode -- MODEL.safetensors`.

use burn::tensor::{Distribution, Tensor};
use mlcsc::prelude::*;
use std::path::PathBuf;

fn main() -> Result<()> {
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "bars.safetensors".into()));
    let device = device::named(None)?;
    let (model, defaults) = Mlcsc::load(&path, &device)?;
    // λ and the sign as in training; signals are normalised as there.
    let coder = CoderConfig::new(&defaults).init(&model)?;
    let signals = Tensor::random(model.config().signal.batched(10), Distribution::Uniform(0.0, 1.0), &device);

    let codes = coder.encode(signals.clone())?;
    for (layer, representation) in codes.representations().iter().enumerate() {
        println!("γ_{}: {:?}", layer + 1, representation.dims());
    }
    for report in codes.reports().iter().take(3) {
        println!("{} non-zeros, at most {:.0e} above the minimum", report.nonzeros, report.relative_gap);
    }
    let reconstruction = coder.decode(&codes)?; // normalisation undone
    let error = (signals - reconstruction).square().mean().into_scalar::<f32>();
    println!("mean squared error {error:.4}");
    Ok(())
}
