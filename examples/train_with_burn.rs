//! A sparse auto-encoder trained by burn's own learner: `cargo run --release --example train_with_burn`.

use burn::data::dataloader::DataLoaderBuilder;
use burn::optim::AdamConfig;
use burn::train::metric::LossMetric;
use burn::train::{Learner, SupervisedTraining};
use mlcsc::data::SignalDataset;
use mlcsc::prelude::*;

fn main() -> Result<()> {
    let device = device::named(None)?;
    let digits = data::open(&DataConfig { count: Some(2400), ..DataConfig::default() })?; // drawn digits
    let loader = |source, device| {
        let signals = SignalDataset::new(source);
        DataLoaderBuilder::new(signals.batcher()).batch_size(100).shuffle(0).set_device(device).build(signals)
    };
    let config = SparseAutoencoderConfig::new(Preset::Small.model()).with_iterations(10).with_lambda(0.3);
    let autoencoder = config.init(&device.clone().autodiff())?;
    let folder = std::env::temp_dir().join("mlcsc-train-with-burn");
    let training = SupervisedTraining::new(
        &folder,
        loader(digits.train.clone(), device.clone().autodiff()),
        loader(digits.test.clone(), device),
    );
    let training = training.metrics((LossMetric::new(),)).num_epochs(3).summary();
    let trained = training.launch(Learner::new(autoencoder, AdamConfig::new().init(), 1e-2)).model;
    println!("{}", folder.join("model.safetensors").display());
    trained.save(&folder.join("model.safetensors"))
}
