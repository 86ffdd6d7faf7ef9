//! Sparse approximation of MNIST: reconstruction error against the number of non-zeros, the model beside its rivals.
//!
//! ```text
//! cargo run --release --example sparse_approximation -- --data FOLDER --model M.safetensors
//! ```
//!
//! All codes have about 1,000 values. The model (preset `mnist`, learned by `mnist_dictionaries`) is coded by orthogonal matching
//! pursuit with M non-zeros, and by basis pursuit with several λ. Auto-encoders whose training names a number of non-zeros are
//! trained for each; of the others' codes the M largest are kept. PCA keeps its M largest coefficients. The error is
//! Σ‖y − x‖²/Σ‖y‖² over test digits. Trained networks stay in the runs' folders; the command goes on where it was stopped.

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use mlcsc::autoencoder::Autoencoder;
use mlcsc::baselines::{KSparseConfig, PrincipalComponentsConfig, Rival, RivalConfig, TopKConfig};
use mlcsc::data::{self, DataConfig, Dataset};
use mlcsc::error::Result;
use mlcsc::evaluate::plot::{self, Curve};
use mlcsc::files;
use mlcsc::kernels::threshold::hard_threshold_rows;
use mlcsc::learn::Observer;
use mlcsc::learn::rivals::{self, RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::model::{Mlcsc, OperatorForm};
use mlcsc::pursuit::{BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Pursuit};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Folder of MNIST's IDX files
    #[arg(long)]
    data: String,
    /// A model of the preset `mnist`
    #[arg(long)]
    model: PathBuf,
    /// Passes over the training digits for every auto-encoder
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Test digits
    #[arg(long, default_value_t = 2000)]
    digits: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the training runs
    #[arg(long, default_value = "runs/sparse_approximation")]
    runs: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "experiments/sparse_approximation")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Non-zeros M.
const NONZEROS: [usize; 5] = [5, 10, 20, 40, 80];

/// λ of basis pursuit.
const LAMBDAS: [f32; 6] = [2.0, 1.0, 0.6, 0.3, 0.15, 0.07];

struct Lines;

impl Observer<RivalRecord, Rival> for Lines {
    fn record(&mut self, record: &RivalRecord, _: &Rival) -> Result<()> {
        if let RivalRecord::Epoch { epoch, train, held_out, .. } = record {
            let (train_loss, test) = (train.train_loss, &held_out.test);
            let fvu = test.fvu.map_or("–".into(), |fvu| format!("{fvu:.4}"));
            println!("  epoch {epoch}: loss {train_loss:.4}, FVU {fvu}, {:.1} non-zeros", test.nonzeros);
        }
        Ok(())
    }
}

/// The network of that name, trained, or gone on with where it is not finished.
fn trained(args: &Args, name: &str, rival: RivalConfig, digits: &Dataset, device: &Device) -> Result<Rival> {
    let folder = args.runs.join(name);
    let config = RivalTrainConfig {
        data: DataConfig { source: args.data.clone(), ..DataConfig::default() },
        epochs: args.epochs,
        seed: args.seed,
        ..RivalTrainConfig::new(rival)
    };
    println!("{name}");
    let mut run = match rivals::is_rival(&folder) {
        true => {
            let config = RivalTrainConfig { epochs: args.epochs, ..rivals::read_config(&folder)? };
            RivalRun::resume(&folder, &config, digits, device)?
        }
        false => RivalRun::create(&folder, &config, digits, device)?,
    };
    run.train(digits, &|| false, &mut Lines)?;
    Ok(run.rival().clone())
}

/// One point of a curve.
#[derive(Clone, Copy)]
struct Point {
    nonzeros: f64,
    error: f64,
}

/// Mean number of non-zeros, and Σ‖y − x‖²/Σ‖y‖².
fn point(signals: &Tensor<4>, codes: &Tensor<4>, made: Tensor<4>) -> Point {
    let number = |tensor: Tensor<4>| f64::from(tensor.sum().into_scalar::<f32>());
    let count = signals.dims()[0] as f64;
    Point {
        nonzeros: number(codes.clone().not_equal_scalar(0.0).float()) / count,
        error: number((signals.clone() - made).square()) / number(signals.clone().square()),
    }
}

/// Codes of which the M of largest magnitude are left.
fn largest(codes: &Tensor<4>, keep: usize) -> Tensor<4> {
    let dims = codes.dims();
    let mut values: Vec<f32> = codes.to_data().iter::<f32>().collect();
    hard_threshold_rows(&mut values, dims[1] * dims[2] * dims[3], keep);
    Tensor::from_data(TensorData::new(values, dims), &codes.device())
}

/// A network whose codes are cut to M values.
fn cut(network: &dyn Autoencoder, signals: &Tensor<4>) -> Result<Vec<Point>> {
    let ready = network.ready()?;
    let codes = ready.encode(signals.clone())?;
    let at = |&keep: &usize| {
        let codes = largest(&codes, keep);
        Ok(point(signals, &codes, ready.decode(codes.clone())?))
    };
    NONZEROS.iter().map(at).collect()
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let digits = data::open(&DataConfig { source: args.data.clone(), ..DataConfig::default() })?;
    let count = args.digits.min(digits.test.len());
    let mut values = vec![0.0; count * digits.test.shape().len()];
    digits.test.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
    let signals: Tensor<4> = Tensor::from_data(TensorData::new(values, digits.test.shape().batched(count)), &device);
    let mut curves: Vec<(String, Vec<Point>)> = Vec::new();

    let (model, _) = Mlcsc::load(&args.model, &device)?;
    let operator = model.operator(digits.test.shape(), OperatorForm::Auto)?;
    let of = |pursuit: &dyn Pursuit, lambda: f32| -> Result<Point> {
        let codes = pursuit.pursue(&operator, signals.clone(), &Lambda::Absolute(lambda))?.codes;
        Ok(point(&signals, &codes, operator.synthesize(codes.clone())))
    };
    let greedy = NONZEROS.iter().map(|&keep| of(&OrthogonalMatchingPursuitConfig::new(keep).init()?, 0.0));
    curves.push(("ML-CSC, OMP".into(), greedy.collect::<Result<_>>()?));
    let basis = BasisPursuitConfig { nonnegative: true, ..BasisPursuitConfig::default() }.init_for(&operator)?;
    let convex = LAMBDAS.iter().map(|&lambda| of(basis.as_ref(), lambda));
    curves.push(("ML-CSC, BP".into(), convex.collect::<Result<_>>()?));

    for (name, family) in [
        (
            "k-sparse",
            &(|k| RivalConfig::KSparse(KSparseConfig { k, ..KSparseConfig::default() }))
                as &dyn Fn(usize) -> RivalConfig,
        ),
        ("top-k", &|k| RivalConfig::TopK(TopKConfig { k, ..TopKConfig::default() })),
    ] {
        let mut points = Vec::new();
        for k in NONZEROS {
            let rival = trained(&args, &format!("{name}-{k}"), family(k), &digits, &device)?;
            let coded = rival.ready()?.reconstruct(signals.clone())?;
            points.push(point(&signals, &coded.codes, coded.reconstruction));
        }
        curves.push((format!("{name}, trained for every M"), points));
    }
    for (name, title) in [("sae", "sparse auto-encoder (ℓ1)"), ("fc-wta", "winner-take-all")] {
        let rival = trained(&args, name, RivalConfig::named(name)?, &digits, &device)?;
        curves.push((format!("{title}, M largest"), cut(&rival, &signals)?));
    }
    let components = PrincipalComponentsConfig { units: digits.test.shape().len() }.fit(&*digits.train, &device)?;
    curves.push(("PCA, M largest".into(), cut(&components, &signals)?));

    files::create_folder(&args.out)?;
    let lines: Vec<Curve> = curves
        .iter()
        .map(|(name, points)| Curve {
            name: name.clone(),
            points: points.iter().map(|point| (point.nonzeros, point.error)).collect(),
        })
        .collect();
    plot::curves(&args.out.join("error.svg"), "non-zeros of the code", "Σ‖y − x‖² / Σ‖y‖²", &lines)?;
    let results = json!({
        "epochs": args.epochs,
        "digits": count,
        "seed": args.seed,
        "curves": curves.iter().map(|(name, points)| json!({
            "name": name,
            "nonzeros": points.iter().map(|point| point.nonzeros).collect::<Vec<_>>(),
            "errors": points.iter().map(|point| point.error).collect::<Vec<_>>(),
        })).collect::<Value>(),
    });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(&args, count, &curves);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn page(args: &Args, count: usize, curves: &[(String, Vec<Point>)]) -> String {
    let mut page = format!(
        "# Sparse approximation of MNIST\n\n\
         `cargo run --release --example sparse_approximation -- --data FOLDER --model M.safetensors --epochs {}`\n\n\
         Σ‖y − x‖²/Σ‖y‖² over {count} test digits, in per cent, with the mean number of non-zeros that the code really has. Codes have \
         1024 values for ML-CSC, 1000 to 2000 for the auto-encoders; auto-encoders were trained for {} epochs.\n\n| | | | | | | |\n\
         |---|---|---|---|---|---|---|\n",
        args.epochs, args.epochs
    );
    for (name, points) in curves {
        let cells: Vec<String> =
            points.iter().map(|point| format!("{:.2}% ({:.1})", 100.0 * point.error, point.nonzeros)).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(page, "| {name} | {} |", cells.join(" | "));
    }
    page.push_str("\n![Error against non-zeros](error.svg)\n");
    page
}
