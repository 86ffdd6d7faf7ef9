//! What is said of encoders beside pursuits, where it can be worked out: over orthonormal atoms every pursuit is a threshold.

use crate::common::host;
use burn::tensor::{Device, Tensor, TensorData};
use mlcsc::Result;
use mlcsc::autoencoder::doctor::{DoctorConfig, dictionary_of};
use mlcsc::autoencoder::{Autoencoder, Examination};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig};

const VALUES: usize = 8;

/// Keeps as many of the largest values as a signal's first value says, times a factor, over atoms of length 2.
struct Shrinking {
    factor: f32,
    kept: Box<dyn Fn(usize) -> usize>,
    device: Device,
}

impl Autoencoder for Shrinking {
    fn signal(&self) -> SignalShape {
        SignalShape::new(VALUES, 1, 1)
    }

    fn code(&self) -> SignalShape {
        SignalShape::new(VALUES, 1, 1)
    }

    fn encode(&self, signals: Tensor<4>) -> Result<Tensor<4>> {
        let (dims, mut values) = (signals.dims(), host(signals));
        for (row, code) in values.chunks_exact_mut(VALUES).enumerate() {
            let mut sorted = code.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let least = sorted[(self.kept)(row) - 1];
            code.iter_mut().for_each(|value| *value = if *value >= least { 0.5 * self.factor * *value } else { 0.0 });
        }
        Ok(Tensor::from_data(TensorData::new(values, dims), &self.device))
    }

    fn decode(&self, codes: Tensor<4>) -> Result<Tensor<4>> {
        Ok(codes * 2.0)
    }

    fn atoms(&self) -> Tensor<4> {
        (Tensor::<2>::eye(VALUES, &self.device) * 2.0).reshape([VALUES, VALUES, 1, 1])
    }

    fn ready(&self) -> Result<Box<dyn Autoencoder + '_>> {
        Ok(Box::new(self))
    }
}

/// Twenty signals of distinct positive values.
fn signals() -> Vec<f32> {
    (0..20 * VALUES).map(|at| 0.2 + ((at * 37) % 101) as f32 / 50.0).collect()
}

fn examine(factor: f32, kept: impl Fn(usize) -> usize + 'static, config: &DoctorConfig) -> Examination {
    let device = mlcsc::device::named(None).unwrap();
    let network = Shrinking { factor, kept: Box::new(kept), device: device.clone() };
    let model = ModelConfig::new(SignalShape::new(VALUES, 1, 1), vec![LayerShape::new(VALUES, 1, 1)]);
    let model = Mlcsc::from_filters(model, vec![network.atoms()]).unwrap();
    let dictionary = dictionary_of(&model).unwrap().unwrap();
    let signals = Tensor::from_data(TensorData::new(signals(), [20, VALUES, 1, 1]), &device);
    config.examine(&network, &dictionary, true, signals, &|| false).unwrap()
}

/// Σ‖y − x‖² over Σ‖y − ȳ‖² where all but the `kept` largest values are lost, and those times 1 − factor.
fn fvu(factor: f64, kept: impl Fn(usize) -> usize) -> f64 {
    let values: Vec<f64> = signals().into_iter().map(f64::from).collect();
    let rows: Vec<&[f64]> = values.chunks_exact(VALUES).collect();
    let mut error = 0.0;
    for (row, signal) in rows.iter().enumerate() {
        let mut sorted = signal.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let (large, small) = sorted.split_at(kept(row));
        error += small.iter().map(|value| value * value).sum::<f64>();
        error += large.iter().map(|value| ((1.0 - factor) * value).powi(2)).sum::<f64>();
    }
    let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64;
    let means: Vec<f64> = (0..VALUES).map(mean).collect();
    let variance: f64 =
        rows.iter().flat_map(|row| row.iter().zip(&means).map(|(value, mean)| (value - mean).powi(2))).sum();
    error / variance
}

#[test]
fn an_encoder_is_compared_at_its_own_non_zeros() {
    let kept = |row: usize| 2 + row % 3;
    for factor in [1.0f32, 0.5] {
        let found = examine(factor, kept, &DoctorConfig::default());
        assert_eq!((found.signals, found.nonnegative), (20, true));
        let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-5 * expected);
        close(found.encoder.fvu, fvu(factor.into(), kept));
        // As many non-zeros as the encoder of each signal, all of which keep the largest values.
        close(found.omp.fvu, fvu(1.0, kept));
        close(found.l1.fvu, fvu(1.0, kept));
        let mean = (0..20).map(kept).sum::<usize>() as f64 / 20.0;
        for reached in [found.encoder, found.omp, found.l1] {
            assert!((reached.nonzeros - mean).abs() < 1e-9, "{reached:?}");
            assert!((0.5..1.0).contains(&reached.cosine.unwrap()));
        }
        // The minimum of ½‖y − γ‖² + λ‖γ‖₁ is the soft threshold's.
        let objectives = found.objectives;
        let lambda = objectives.lambda;
        let huber = |value: f32| {
            let value = f64::from(value);
            if value < lambda { 0.5 * value * value } else { lambda * value - 0.5 * lambda * lambda }
        };
        let minimum = signals().into_iter().map(huber).sum::<f64>() / 20.0;
        assert!((objectives.pursuit - minimum).abs() < 1e-4 * minimum, "{objectives:?} {minimum}");
        assert!(objectives.bound <= minimum && objectives.bound > minimum * (1.0 - 2e-4), "{objectives:?} {minimum}");
        assert!(objectives.encoder > minimum && (objectives.nonzeros - mean).abs() < 0.3, "{objectives:?}");
        // A perfect encoder loses nothing on any signal; the other most on the largest part of energy.
        assert_eq!(found.worst.is_empty(), factor == 1.0, "{:?}", found.worst);
        let lost = |index: usize| found.worst[index].encoder - found.worst[index].omp;
        assert!((1..found.worst.len()).all(|index| lost(index) <= lost(index - 1)));
        for tradeoff in &found.tradeoffs {
            let falls = tradeoff.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1);
            assert!(tradeoff.points.len() > 1 && falls, "{tradeoff:?}");
        }
    }
}

#[test]
fn few_signals_are_enough() {
    let found = examine(0.5, |_| 3, &DoctorConfig { nonzeros: 51, worst: 1, ..DoctorConfig::default() });
    assert_eq!((found.signals, found.worst.len()), (17, 1));
    let found = examine(0.5, |_| 3, &DoctorConfig { nonzeros: 1, ..DoctorConfig::default() });
    assert_eq!(found.signals, 16);
    // Of codes that are not sparse pursuits take half as many as there are values.
    let found = examine(1.0, |_| VALUES, &DoctorConfig::default());
    assert!(found.encoder.fvu.unwrap() < 1e-9 && found.encoder.nonzeros == VALUES as f64, "{found:?}");
    for reached in [found.omp, found.l1] {
        assert!((reached.fvu.unwrap() - fvu(1.0, |_| VALUES / 2)).abs() < 1e-5, "{found:?}");
    }
}

#[test]
fn settings_are_checked() {
    let device = mlcsc::device::named(None).unwrap();
    let network = Shrinking { factor: 1.0, kept: Box::new(|_| 1), device: device.clone() };
    let model = |units: usize| {
        let config = ModelConfig::new(SignalShape::new(VALUES, 1, 1), vec![LayerShape::new(units, 1, 1)]);
        Mlcsc::from_filters(config, vec![Tensor::ones([units, VALUES, 1, 1], &device)]).unwrap()
    };
    let signals = |count: usize| Tensor::<4>::ones([count, VALUES, 1, 1], &device);
    let examine = |config: DoctorConfig, units: usize, signals: Tensor<4>, stops: bool| {
        config.examine(&network, &model(units), true, signals, &|| stops).map(|_| ()).unwrap_err().to_string()
    };
    let fine = DoctorConfig::default();
    let none = DoctorConfig { nonzeros: 0, ..fine.clone() };
    assert!(examine(none, VALUES, signals(3), false).contains("nonzeros = 0"));
    assert!(examine(DoctorConfig { gap: 1.0, ..fine.clone() }, VALUES, signals(3), false).contains("gap = 1"));
    assert!(examine(fine.clone(), VALUES, signals(0), false).contains("signals to examine"));
    assert!(examine(fine.clone(), 5, signals(3), false).contains("expected 8 atoms of one position"));
    assert!(examine(fine.clone(), VALUES, Tensor::ones([3, 5, 1, 1], &device), false).contains("signals"));
    assert!(examine(fine, VALUES, signals(3), true).contains("interrupted"));
    // Convolutions are no dictionaries of vectors.
    let config = ModelConfig::new(SignalShape::new(1, 8, 8), vec![LayerShape::new(3, 4, 2)]);
    assert!(dictionary_of(&config.init_random(1, &device).unwrap()).unwrap().is_none());
}
