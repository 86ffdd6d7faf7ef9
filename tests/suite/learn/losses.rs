//! Training end to end: the losses of the first steps are the same on every device.

use crate::common::{Case, metrics, on_every_device, small_run};

use burn::tensor::Device;
use mlcsc::autoencoder::EncoderWeights;
use mlcsc::data;
use mlcsc::learn::config::{GradientMode, UnrolledUpdateConfig, UpdateRule};
use mlcsc::learn::{Observer, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::Mlcsc;
use mlcsc::{Result, device};

/// Says nothing.
struct Silent;

impl Observer<Record, TrainingState> for Silent {
    fn record(&mut self, _: &Record, _: &TrainingState) -> Result<()> {
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

/// The objectives of the first ten batches.
fn losses(config: &TrainConfig, start: &Mlcsc, device: &Device) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("run");
    let data = data::open(&config.data).unwrap();
    let mut run = Run::create_from(&folder, config, Some(start), &data, device, &mut Silent).unwrap();
    run.train(&data, &|| false, &mut Silent).unwrap();
    let steps = metrics(&folder).into_iter().filter(|line| line["kind"] == "step");
    steps.map(|line| line["batch"]["objective"].as_f64().unwrap()).take(10).collect()
}

/// Beside the host, from the same dictionaries. These are random: where two atoms are nearly the same, as they can be when signals have
/// begun them, codes are not unique, and gradients follow the one that was found. Without atoms that start again, which chooses signals.
#[test]
fn ten_steps_have_the_same_losses() {
    let host = device::named(Some(device::available()[0])).unwrap();
    let ways = [
        (EncoderWeights::Tied, GradientMode::Envelope),
        (EncoderWeights::Tied, GradientMode::Implicit),
        (EncoderWeights::PerIteration, GradientMode::Envelope),
        (EncoderWeights::PerIteration, GradientMode::Unrolled),
    ];
    for (weights, gradient) in ways {
        let mut config = small_run(UpdateRule::Unrolled);
        let weights = Some(weights);
        config.learning.unrolled =
            UnrolledUpdateConfig { weights, gradient, iterations: 5, ..UnrolledUpdateConfig::default() };
        config.learning.epochs = 3;
        config.learning.gap = 1e-6;
        config.learning.max_iterations = 10_000;
        config.learning.reseed_until = 0.0;
        let start = Case::random(config.model.signal, config.model.layers.clone(), 1).model(&host);
        let expected = losses(&config, &start, &host);
        assert_eq!(expected.len(), 10);
        assert!(expected[9] < expected[0], "{weights:?}, {gradient:?}: {expected:?}");
        on_every_device(|device| {
            let filters = start.filters().into_iter().map(|filters| filters.to_device(&device.device)).collect();
            let start = Mlcsc::from_filters(config.model.clone(), filters).unwrap();
            let found = losses(&config, &start, &device.device);
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let distance = (found / expected - 1.0).abs();
                println!("{weights:?}, {gradient:?}, step {step}: {distance:.1e}");
                assert!(distance <= 1e-4, "{weights:?}, {gradient:?}, step {step}: {found} {expected}");
            }
        });
    }
}
