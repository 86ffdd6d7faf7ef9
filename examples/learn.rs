//! Learns a model of two layers from signals in memory, and saves it: `cargo run --release --example learn`.

use mlcsc::prelude::*;
use std::path::Path;

fn main() -> Result<()> {
    // 500 signals of 16×16: a bar of random place and direction in each.
    let mut values = vec![0.0; 500 * 256];
    for (index, signal) in values.chunks_exact_mut(256).enumerate() {
        let (place, upright) = (2 + (7 * index) % 12, index % 2 == 0);
        (3..13).for_each(|along| signal[if upright { 16 * along + place } else { 16 * place + along }] = 1.0);
    }
    let shape = SignalShape::new(1, 16, 16); // channels, height, width
    let signals = InMemory::new(shape, values)?; // or `InMemory::from_tensor`

    let mut config = TrainConfig::new(ModelConfig::new(
        shape,
        vec![LayerShape::new(8, 5, 1), LayerShape::new(16, 8, 1)], // atoms, kernel, stride
    ));
    config.learning.epochs = 4;
    let (model, coding) = config.fit_coded(signals, &device::named(None)?, |_| true)?;
    println!("atoms of D^(2): {:?}", model.effective_filters(2).dims());
    model.save(Path::new("bars.safetensors"), coding)
}
