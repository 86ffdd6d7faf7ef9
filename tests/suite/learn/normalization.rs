//! Normalisations that are fitted to the training signals: found, stored, undone.

use crate::common;

use common::{devices, host, normals, rng};
use mlcsc::coder::CoderConfig;
use mlcsc::data::{Dataset, InMemory};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::learn::{Observer, Outcome, Record, Run, TrainConfig, TrainingState};
use mlcsc::model::normalization::Normalization;
use mlcsc::model::{Mlcsc, ModelConfig};
use mlcsc::pursuit::Lambda;

struct Silent;

impl Observer<Record, TrainingState> for Silent {
    fn record(&mut self, _: &Record, _: &TrainingState) -> mlcsc::Result<()> {
        Ok(())
    }
}

/// Vectors of 12 values far from zero, of which the last never varies.
fn vectors(count: usize) -> InMemory {
    let mut rng = rng(3);
    let values: Vec<f32> = normals(&mut rng, count * 12)
        .chunks_exact(12)
        .flat_map(|row| {
            let row: Vec<f32> = row
                .iter()
                .enumerate()
                .map(|(at, value)| if at == 11 { 7.0 } else { 50.0 + at as f32 + value })
                .collect();
            row
        })
        .collect();
    InMemory::new(SignalShape::new(12, 1, 1), values).unwrap()
}

fn config(normalization: Normalization) -> TrainConfig {
    let model = ModelConfig::new(SignalShape::new(12, 1, 1), vec![LayerShape::new(20, 1, 1)]);
    let mut config = TrainConfig::new(ModelConfig { normalization, ..model });
    (config.learning.epochs, config.learning.batch_size) = (2, 64);
    config
}

/// The model of a run has the statistics of its training signals; codes by it come back as signals; a resumed run ends at the same bits.
#[test]
fn statistics_are_found_and_stored_and_undone() {
    let device = devices().remove(0).device;
    for normalization in [Normalization::Mean, Normalization::MeanAndScale, Normalization::Standardise] {
        let data = Dataset::divided(vectors(400), 0.1, 0).unwrap();
        let config = config(normalization);
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (name, stops) in [("whole", vec![]), ("parts", vec![3])] {
            let path = folder.path().join(name);
            let mut run = Run::create(&path, &config, &data, &device, &mut Silent).unwrap();
            for stop in stops {
                let taken = std::cell::Cell::new(0);
                let stop = || taken.replace(taken.get() + 1) >= stop;
                assert_eq!(run.train(&data, &stop, &mut Silent).unwrap(), Outcome::Interrupted);
                run = Run::resume(&path, &config, &data, &device).unwrap();
            }
            assert_eq!(run.train(&data, &|| false, &mut Silent).unwrap(), Outcome::Finished);
            files.push(std::fs::read(run.model_path()).unwrap());
        }
        assert!(files[0] == files[1], "{normalization}: a resumed run ends elsewhere");
        let (model, _) = Mlcsc::load(&folder.path().join("whole/model.safetensors"), &device).unwrap();
        let statistics = model.config().statistics.clone().unwrap();
        // Of 360 signals the mean is certain to 1/√360; measured: within 0.15 of 50 + place.
        assert!((0..11).all(|at| (statistics.mean[at] - 50.0 - at as f32).abs() < 0.3), "{statistics:?}");
        assert!((statistics.mean[11] - 7.0).abs() < 1e-5);
        let wanted = match normalization {
            Normalization::Mean => 1.0,
            Normalization::MeanAndScale => (11f32 / 12.0).sqrt(),
            _ => 1.0,
        };
        assert!(statistics.scale[..11].iter().all(|scale| (scale - wanted).abs() < 0.15), "{statistics:?}");
        let coder = CoderConfig::new(&Default::default()).with_lambda(Lambda::Relative(1e-3)).init(&model).unwrap();
        let signals = vectors(30).tensor(&device);
        let codes = coder.encode(signals.clone()).unwrap();
        let back = host(coder.decode(&codes).unwrap());
        let error = back.iter().zip(host(signals)).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / back.len() as f32;
        // Measured: below 1e-3 for all three.
        assert!(error < 1e-2, "{normalization}: {error}");
    }
}

/// Signals that are all alike leave nothing to learn from once their mean is gone.
#[test]
fn one_signal_throughout_is_refused() {
    let device = devices().remove(0).device;
    let same = InMemory::new(SignalShape::new(12, 1, 1), vec![0.5; 12 * 40]).unwrap();
    let data = Dataset::divided(same, 0.1, 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = config(Normalization::Mean);
    let error = Run::create(&folder.path().join("run"), &config, &data, &device, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("one signal throughout") && !error.contains('\n'), "{error}");
}
