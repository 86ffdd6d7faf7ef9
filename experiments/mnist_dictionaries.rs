//! Dictionaries for MNIST with the paper's geometry: what is learned, how fast, and where the time goes.
//!
//! ```text
//! cargo run --release --example mnist_dictionaries -- --data FOLDER
//! ```
//!
//! Trains the preset `mnist` (goes on with the run in `--run` if there is one), codes the 10,000 test digits, and writes pictures,
//! `results.json` and a table (`README.md`) into `--out`. The quality that counts is the mean of ½‖y − D^(3)γ‖² + 0.3‖γ‖₁ with
//! non-negative γ over the test digits, effective atoms having unit norm.

use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use mlcsc::data::{self, DataConfig};
use mlcsc::error::{Error, Result};
use mlcsc::export::mosaic;
use mlcsc::files;
use mlcsc::learn::config::UpdateRule;
use mlcsc::learn::metrics::{Phases, Summary};
use mlcsc::learn::run::read_config;
use mlcsc::learn::{HeldOut, Observer, Record, Run, RunFolder, TrainConfig, TrainingState};
use mlcsc::model::preset::Preset;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Folder of MNIST's IDX files
    #[arg(long)]
    data: String,
    /// Passes over the 60,000 training digits
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// The update rule: pursuit or gradient (the paper's)
    #[arg(long, default_value = "pursuit")]
    update: String,
    /// Folder of the training run
    #[arg(long, default_value = "runs/mnist_dictionaries")]
    run: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "experiments/mnist_dictionaries")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Atoms of D^(3) in the picture.
const PICTURED: usize = 256;

/// Relative duality gap of the codes that the results are computed from.
const GAP: f32 = 1e-5;

struct Lines;

impl Observer<Record, TrainingState> for Lines {
    fn record(&mut self, record: &Record, _: &TrainingState) -> Result<()> {
        match record {
            Record::Step { step, batch, .. } if step % 50 == 0 => {
                println!(
                    "step {step}: objective {:.3}, {:.0} signals/s",
                    batch.batch.objective, batch.batch.signals_per_second
                );
            }
            Record::Epoch { epoch, held_out: HeldOut { test, .. }, .. } => {
                println!(
                    "epoch {epoch}: test objective {:.4}, {:.2} dB",
                    test.objective,
                    test.psnr.unwrap_or(f64::NAN)
                );
            }
            Record::Step { .. } | Record::Start { .. } => {}
        }
        Ok(())
    }

    fn evaluating(&mut self, _: f32) {}
}

/// GFLOP/s of a product of two 2048 × 2048 matrices, the median of seven.
fn matrix_product_rate(device: &Device) -> f64 {
    const SIZE: usize = 2048;
    let matrix = || Tensor::<2>::random([SIZE, SIZE], Distribution::Default, device);
    let (a, b) = (matrix(), matrix());
    let mut rates: Vec<f64> = (0..7)
        .map(|_| {
            let started = Instant::now();
            let _: f32 = a.clone().matmul(b.clone()).slice([0..1, 0..1]).into_scalar();
            2.0 * (SIZE as f64).powi(3) / started.elapsed().as_secs_f64() / 1e9
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn epochs_of(run: &Path) -> Result<Vec<(Summary, Summary)>> {
    let path = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
    let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    Ok(records
        .filter_map(|record| match record {
            Record::Epoch { train, held_out, .. } => Some((train.train, held_out.test)),
            Record::Step { .. } | Record::Start { .. } => None,
        })
        .collect())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let rate = matrix_product_rate(&device);
    println!("matrix products: {rate:.0} GFLOP/s");
    let mut config = if RunFolder::new(&args.run).holds_run() {
        read_config(&args.run)?
    } else {
        let mut config = TrainConfig::preset(Preset::Mnist);
        config.data = DataConfig { source: args.data.clone(), ..config.data };
        config.learning.update = if args.update == "gradient" { UpdateRule::Gradient } else { UpdateRule::Pursuit };
        config
    };
    config.learning.epochs = args.epochs;
    let data = data::open(&config.data)?;
    let mut run = if RunFolder::new(&args.run).holds_run() {
        Run::resume(&args.run, &config, &data, &device)?
    } else {
        Run::create(&args.run, &config, &data, &device, &mut Lines)?
    };
    run.train(&data, &|| false, &mut Lines)?;

    let model = run.state().model()?;
    let mut evaluation = config.clone();
    evaluation.learning.gap = GAP;
    let fine = TrainingState::from_model(&evaluation, &model, &*data.train, &device)?;
    let Some(test) = fine.evaluate(&*data.test, |_| true)? else { return Ok(()) };
    let dictionaries = run.state().dictionaries(true);
    let epochs = epochs_of(&args.run)?;

    for depth in 1..=model.depth() {
        let filters = model.effective_filters(depth);
        let atoms = filters.dims()[0];
        let order: Vec<usize> = (0..atoms.min(PICTURED)).map(|index| index * atoms / atoms.min(PICTURED)).collect();
        let picture = mosaic::filters(filters, Some(&order));
        mosaic::save(&picture, &args.out.join(format!("effective_{depth}.png")))?;
    }
    let rule = config.learning.update;
    // The data's own name: where it lies on this machine does not belong here.
    if let Some(name) = Path::new(&config.data.source).file_name() {
        config.data.source = name.to_string_lossy().into_owned();
    }
    let results = json!({
        "config": config,
        "matrix_product_gflops": rate,
        "epochs": epochs.iter().map(|(train, test)| json!({"train": train, "test": test})).collect::<Vec<_>>(),
        "test": test,
        "test_gap": GAP,
        "dictionaries": dictionaries,
    });
    let text = serde_json::to_string_pretty(&results).map_err(|error| Error::format(&args.out, error.to_string()))?;
    files::write_bytes(&args.out.join("results.json"), text.as_bytes())?;

    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(
        page,
        "# MNIST, the paper's geometry\n\n\
         `cargo run --release --example mnist_dictionaries -- --data FOLDER --epochs {}{}`\n\n\
         The 10,000 test digits, λ = 0.3, non-negative codes, effective atoms of unit norm, relative duality gap {GAP:.0e}; \
         update rule `{}`:\n\n\
         | | |\n|---|---|\n\
         | mean ½‖y − D^(3)γ‖² + λ‖γ‖₁ | {:.4} |\n| PSNR | {:.2} dB |\n| variance unexplained | {} |\n\
         | non-zeros of γ_1, γ_2, γ_3 | {:.0}, {:.0}, {:.1} |\n| zeros in D_2, D_3 | {:.2}%, {:.2}% |\n\
         | atoms of D_3 that no test digit uses | {} of {} |\n| coherence of D_1, D_2, D_3 | {} |\n\
         | coherence of D^(1), D^(2), D^(3) | {} |\n",
        args.epochs,
        if rule == UpdateRule::Gradient { " --update gradient" } else { "" },
        if rule == UpdateRule::Gradient { "gradient" } else { "pursuit" },
        test.objective,
        test.psnr.unwrap_or(f64::NAN),
        test.fvu.map_or("–".into(), |fvu| format!("{:.2}%", 100.0 * fvu)),
        test.nonzeros[0],
        test.nonzeros[1],
        test.nonzeros[2],
        100.0 * dictionaries.zeros[1],
        100.0 * dictionaries.zeros[2],
        test.dead_atoms,
        model.config().layers[2].atoms,
        listed(&dictionaries.coherence),
        listed(&dictionaries.effective_coherence),
    );
    let _ = writeln!(
        page,
        "Epoch by epoch (codes to a gap of 1e-3; times on a machine whose matrix products reach {rate:.0} GFLOP/s in this program, \
         {} cores):\n\n\
         | epoch | test objective | PSNR | non-zeros of γ_3 | training signals/s | seconds: coding | statistics | dictionaries | \
         metrics | reading |\n|---|---|---|---|---|---|---|---|---|---|",
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    for (index, (train, test)) in epochs.iter().enumerate() {
        let Phases { reading, coding, measuring, statistics, dictionaries } = train.seconds;
        let _ = writeln!(
            page,
            "| {} | {:.4} | {:.2} dB | {:.1} | {:.0} | {coding:.1} | {statistics:.1} | {dictionaries:.1} | {measuring:.1} | \
             {reading:.1} |",
            index + 1,
            test.objective,
            test.psnr.unwrap_or(f64::NAN),
            test.nonzeros[2],
            train.signals_per_second
        );
    }
    let _ = writeln!(
        page,
        "\nD_1: strokes and edges.\n\n![filters of D_1](effective_1.png)\n\nD^(2): parts of digits.\n\n\
         ![atoms of the effective dictionary of two layers](effective_2.png)\n\nD^(3): whole digits (every fourth atom).\n\n\
         ![atoms of the effective dictionary of three layers](effective_3.png)"
    );
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn listed(values: &Option<Vec<f32>>) -> String {
    values.iter().flatten().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(", ")
}
