//! What is proven about a code: `cargo run --release --example certify`.

use burn::tensor::Tensor;
use mlcsc::model::design::DesignConfig;
use mlcsc::prelude::*;
use mlcsc::theory::{Certificate, Levels, ModelProfile, Theorem};

fn main() -> Result<()> {
    let device = device::named(None)?;
    let signal = SignalShape::new(1, 16, 16);
    let layers = vec![LayerShape::new(4, 4, 2), LayerShape::new(8, 3, 1)];
    // Of low coherence, so that there is something to prove; atoms of D_2 have two non-zeros.
    let model = DesignConfig::new(ModelConfig::new(signal, layers), vec![2]).init(&device)?;
    let operator = model.operator(signal, OperatorForm::Auto)?;
    let code = Tensor::zeros(operator.code().batched(1), &device).slice_fill([0..1, 1..2, 2..3, 2..3], 1.0); // one atom
    let signals = operator.synthesize(code);

    let greedy = PursuitConfig::OrthogonalMatchingPursuit(OrthogonalMatchingPursuitConfig::new(1));
    let coder = CoderConfig::new(&CodingDefaults::default()).with_pursuit(greedy).init(&model)?;
    let codes = coder.encode(signals)?;
    let profile = ModelProfile::new(&model, signal)?; // norms and coherences
    let levels = Levels::of(&profile, codes.representations())?.remove(0);
    let certificate = Certificate::new(&profile, levels, 0.0, 0.01, &Theorem::all())?;
    println!("the only representations as sparse: {}", certificate.is_unique());
    for (layer, bound) in certificate.stability.iter().enumerate() {
        let bound = bound.as_ref().map_or("no bound".into(), |bound| format!("at most {:.4} off", bound.global));
        println!("γ_{} with noise of length 0.01: {bound}", layer + 1);
    }
    Ok(())
}
