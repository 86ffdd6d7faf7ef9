//! Networks of unrolled pursuits, trained with labels: does it pay to iterate?
//!
//! ```text
//! cargo run --release --example supervised_classification -- --data FOLDER
//! ```
//!
//! The networks, the geometry and the optimizer are those of J. Sulam, A. Aberdam, A. Beck, M. Elad, IEEE TPAMI 2020, section 5: 32, 64
//! and 512 filters, 6 iterations, stochastic gradient descent with momentum; all with the same seed and order of digits. Of the
//! paper's 100 epochs only the first eight are run: on two cores some 20 minutes for an unrolled network. The command goes on where it was
//! stopped.

use burn::tensor::Device;
use clap::Parser;
use mlcsc::autoencoder::{NetworkPursuit, PursuitNetwork, PursuitNetworkConfig};
use mlcsc::autoencoder::{Outcome, TrainingBatch};
use mlcsc::data::{self, DataConfig, Dataset};
use mlcsc::error::{Error, Result};
use mlcsc::export::mosaic;
use mlcsc::files;
use mlcsc::learn::end_to_end::{EndToEnd, Watcher, last_checkpoint};
use mlcsc::learn::optimization::{LearningRateSchedule, OptimizationConfig, Optimizer};
use mlcsc::names::named;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Folder of MNIST's IDX files
    #[arg(long)]
    data: String,
    /// Networks to train
    #[arg(long, value_delimiter = ',', default_value = "cnn,ml-ista,ml-fista,ml-lista,layered-bp")]
    networks: Vec<String>,
    /// Passes over the training digits
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Take the first N training digits only
    #[arg(long, default_value_t = 60_000)]
    train: usize,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value_t = 0.002)]
    learning_rate: f64,
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Folder of the training runs
    #[arg(long, default_value = "runs/supervised_classification")]
    runs: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "experiments/supervised_classification")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// One network with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Found {
    network: String,
    seed: u64,
    train: usize,
    epochs: usize,
    batch_size: usize,
    /// What it was computed on.
    device: String,
    /// Test error after every epoch of this command.
    test_errors: Vec<f64>,
    seconds: f64,
}

impl Found {
    /// What results have in common that are averaged.
    fn setting(&self) -> (&str, usize, usize, usize, &str) {
        (&self.network, self.train, self.epochs, self.batch_size, &self.device)
    }
}

/// Counts test digits that are told wrong.
struct Errors {
    wrong: usize,
    all: usize,
    since: Instant,
    steps: usize,
    errors: Vec<f64>,
}

impl Watcher<PursuitNetwork> for Errors {
    fn begin(&mut self, _: &PursuitNetwork) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, step: usize, _: &TrainingBatch, outcome: &Outcome, _: &PursuitNetwork) -> Result<bool> {
        let loss: f32 = outcome.loss.clone().mean().into_scalar();
        if !loss.is_finite() {
            return Err(Error::parameter("--learning-rate", "given", "one so small that the loss stays finite"));
        }
        if self.since.elapsed().as_secs() >= 20 {
            self.since = Instant::now();
            println!("  step {step}/{}: cross-entropy {loss:.4}", self.steps);
        }
        Ok(true)
    }

    fn held_out(&mut self, batch: &TrainingBatch, outcome: &Outcome, network: &PursuitNetwork) -> Result<bool> {
        let Some(labels) = batch.labels.clone() else { return Ok(true) };
        let told = network.scores(outcome.coded.codes.clone()).argmax(1).squeeze_dim::<1>(1);
        self.all += labels.dims()[0];
        self.wrong += told.not_equal(labels).int().sum().into_scalar::<i64>() as usize;
        Ok(true)
    }

    fn epoch(&mut self, epoch: usize, loss: f64, _: &PursuitNetwork) -> Result<()> {
        let error = self.wrong as f64 / self.all.max(1) as f64;
        (self.wrong, self.all) = (0, 0);
        println!("  epoch {epoch}: test cross-entropy {loss:.4}, test error {:.2}%", 100.0 * error);
        self.errors.push(error);
        Ok(())
    }
}

fn trained(
    args: &Args,
    pursuit: NetworkPursuit,
    seed: u64,
    digits: &Dataset,
    (device, computed_on): (&Device, &str),
) -> Result<Found> {
    let (name, started) = (pursuit.into_str(), Instant::now());
    // A run is gone on with by the same settings only.
    let settings = format!("{}-{}-{}-{}", args.train, args.epochs, args.batch_size, args.learning_rate);
    let folder = args.runs.join(format!("{name}-{seed}-{settings}"));
    files::create_folder(&folder)?;
    let training = EndToEnd {
        train: digits.train.clone(),
        test: digits.test.clone(),
        epochs: args.epochs,
        batch_size: args.batch_size,
        seed,
        shuffle_buffer: mlcsc::data::SHUFFLE_BUFFER,
        optimization: OptimizationConfig {
            optimizer: Optimizer::Sgd,
            learning_rate: args.learning_rate,
            // The paper's falls to a fifth every 30 epochs.
            schedule: LearningRateSchedule::Constant,
            momentum: 0.9,
            weight_decay: 1e-5,
            ..OptimizationConfig::default()
        },
        device: device.clone(),
        further_devices: Vec::new(),
        resume: last_checkpoint(&folder),
        folder: Some(folder.clone()),
        measure_start: false,
        reseeding: None,
        losses: Vec::new(),
        dashboard: false,
    };
    println!("{name} (seed {seed})");
    let steps = args.epochs * training.steps_per_epoch();
    let mut errors = Errors { wrong: 0, all: 0, since: Instant::now(), steps, errors: Vec::new() };
    let network = PursuitNetworkConfig::mnist(pursuit).init(seed, device)?;
    if training.resume == Some(args.epochs) {
        // Stopped between the last epoch and the table: its error is not known any more.
        let what = format!("all {} epochs are done; remove the folder to measure again", args.epochs);
        return Err(Error::parameter("--runs", folder.display(), what));
    }
    let (network, _) = training.run(network, &mut errors)?;
    files::create_folder(&args.out)?;
    let filters = mosaic::filters(network.layers[0].filters.val(), None);
    mosaic::save(&filters, &args.out.join(format!("{name}.png")))?;
    Ok(Found {
        network: name.into(),
        seed,
        train: digits.train.len(),
        epochs: args.epochs,
        batch_size: args.batch_size,
        device: computed_on.into(),
        test_errors: errors.errors,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let computed_on = mlcsc::device::chosen(args.device.as_deref()).unwrap_or_default();
    let mut digits = data::open(&DataConfig { source: args.data.clone(), ..DataConfig::default() })?;
    digits.train = data::first(digits.train, args.train);
    let path = args.out.join("results.json");
    let mut results: Vec<Found> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::format(&path, error.to_string()))?,
        Err(_) => Vec::new(),
    };
    for &seed in &args.seeds {
        for name in &args.networks {
            let pursuit = named("--networks", name)?;
            let key = (name.as_str(), digits.train.len(), args.epochs, args.batch_size, computed_on.as_str());
            let same = |found: &Found| found.seed == seed && found.setting() == key;
            if results.iter().any(same) {
                continue;
            }
            results.push(trained(&args, pursuit, seed, &digits, (&device, &computed_on))?);
            let text = serde_json::to_vec_pretty(&results).map_err(|error| Error::format(&path, error.to_string()))?;
            files::write_bytes(&path, &text)?;
        }
    }
    let page = page(&results);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

/// Test accuracies of the authors, per cent: after 100 epochs, in the paper (that of ML-LISTA in their repository, jsulam/ml-ista), and
/// after each of the first ten, read off the curves there, of which the part below 97 is cut off.
fn published(network: &str) -> Option<(f64, [f64; 10])> {
    Some(match network {
        "cnn" => (98.74, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 97.26, 97.54, 97.97, 98.04]),
        "ml-ista" => (99.11, [0.0, 97.25, 97.91, 98.15, 98.34, 98.76, 98.62, 98.66, 98.81, 98.80]),
        "ml-fista" => (99.16, [0.0, 97.16, 98.25, 98.23, 98.71, 98.77, 98.70, 99.02, 98.97, 99.02]),
        "ml-lista" => (98.81, [0.0, 0.0, 0.0, 97.20, 97.88, 97.89, 98.07, 98.35, 98.30, 98.55]),
        "layered-bp" => (99.19, [98.05, 98.53, 98.48, 98.78, 99.09, 99.08, 99.04, 99.14, 99.15, 99.08]),
        _ => return None,
    })
}

fn page(results: &[Found]) -> String {
    let mut page = String::from(
        "# Networks of unrolled pursuits, trained with labels\n\n\
         `cargo run --release --example supervised_classification -- --data FOLDER`\n\n\
         32, 64 and 512 filters of 6×6, 6×6 and 4×4 with strides 2, 2 and 1 and a linear classifier on γ_3; 6 iterations; stochastic \
         gradient descent, learning rate 0.002, momentum 0.9, weight decay 0.00001. Accuracy on MNIST's 10,000 test digits after the \
         last epoch, mean over the seeds, beside what J. Sulam et al. (IEEE TPAMI 2020) have: after as many epochs (read off the curves \
         in their repository, jsulam/ml-ista) and after 100.\n\n\
         | network | digits × epochs | batch | accuracy | seeds | device | theirs | theirs, 100 epochs |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut curves = String::new();
    let mut seen = Vec::new();
    for first in results {
        let key = first.setting();
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let same = |found: &&Found| found.setting() == key;
        let accuracy = |error: &f64| 100.0 * (1.0 - error);
        let accuracies: Vec<f64> =
            results.iter().filter(same).filter_map(|found| found.test_errors.last()).map(accuracy).collect();
        let mean = accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64;
        let list = |values: &mut dyn Iterator<Item = f64>| {
            values.map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(", ")
        };
        let published = published(&first.network);
        let after = |epochs: usize| {
            let (_, curve) = published?;
            let value = *curve.get(epochs.checked_sub(1)?)?;
            Some(if value > 0.0 { format!("{value:.2}%") } else { "below 97%".into() })
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} × {} | {} | {mean:.2}% | {} | {} | {} | {} |",
            first.network,
            first.train,
            first.epochs,
            first.batch_size,
            list(&mut accuracies.iter().copied()),
            first.device,
            if first.train == 60_000 { after(first.epochs).unwrap_or_default() } else { String::new() },
            published.map_or(String::new(), |(last, _)| format!("{last:.2}%")),
        );
        for found in results.iter().filter(same) {
            let errors = list(&mut found.test_errors.iter().map(accuracy));
            let _ = writeln!(
                curves,
                "- {}, {} × {}, seed {}: {errors}",
                found.network, found.train, found.epochs, found.seed
            );
        }
    }
    let _ = writeln!(page, "\nAfter every epoch:\n\n{curves}");
    page.push_str("The first layer's filters:\n\n");
    let mut synthesized: Vec<&str> = Vec::new();
    for Found { network, .. } in results {
        if !synthesized.contains(&network.as_str()) {
            synthesized.push(network);
            let _ = writeln!(page, "![{network}]({network}.png)");
        }
    }
    page
}
