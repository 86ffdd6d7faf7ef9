//! Pursuits side by side on MNIST's test digits with a model that was learned from the training digits: what `mlcsc compare`
//! computes, kept as a page.
//!
//! ```text
//! cargo run --release --example compare_pursuits -- --model M.safetensors --data FOLDER
//! ```
//!
//! Writes `README.md`, `results.json` and `error_against_nonzeros.svg` into `--out`.

use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use mlcsc::data::{self, DataConfig};
use mlcsc::error::Result;
use mlcsc::evaluate::comparison::{Comparison, Loaded, Row};
use mlcsc::evaluate::plot;
use mlcsc::files;
use mlcsc::model::{Mlcsc, OperatorForm};
use mlcsc::pursuit::{BasisPursuitConfig, Lambda, PursuitName};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Args {
    /// Model file
    #[arg(long)]
    model: PathBuf,
    /// Folder of MNIST's IDX files, or any other source of signals
    #[arg(long)]
    data: String,
    /// Test signals
    #[arg(long, default_value_t = 200)]
    limit: usize,
    /// λ of the table as a fraction of each signal's λ_max
    #[arg(long, default_value_t = 0.1)]
    lambda_relative: f32,
    /// Compare multi-layer basis pursuit too, which takes far longer where codes are large
    #[arg(long)]
    multi_layer: bool,
    /// Folder of the results
    #[arg(long, default_value = "experiments/compare_pursuits")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Penalty of the shallower layers of multi-layer pursuits, as a part of λ.
const SHALLOWER: f32 = 0.01;

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let (model, _) = Mlcsc::load(&args.model, &device)?;
    let digits = data::open(&DataConfig { source: args.data.clone(), ..DataConfig::default() })?;
    let source = if digits.has_test_set { &digits.test } else { &digits.train };
    let operator = model.operator(source.shape(), OperatorForm::Auto)?;
    let count = args.limit.clamp(1, source.len());
    let mut values = vec![0.0; count * source.shape().len()];
    source.read(&(0..count).collect::<Vec<_>>(), &mut values)?;
    let signals = Tensor::from_data(TensorData::new(values, source.shape().batched(count)), &device);
    let signals = Loaded { signals: model.config().normalizer().apply(signals).0, batch_size: 100 };

    let plain = Comparison {
        pursuits: vec![
            PursuitName::BasisPursuit,
            PursuitName::OrthogonalMatchingPursuit,
            PursuitName::LayeredThresholding,
            PursuitName::LayeredBasisPursuit,
        ],
        nonzeros: Vec::new(),
        lambda: Lambda::Relative(args.lambda_relative),
        layer_weights: None,
        stripe_limits: None,
        shallower_nonzeros: Vec::new(),
        basis: BasisPursuitConfig { gap: 1e-3, max_iterations: 1000, nonnegative: false },
    };
    let mut weights = vec![SHALLOWER; model.depth()];
    weights[model.depth() - 1] = 1.0;
    let multi_layer = Comparison {
        pursuits: vec![PursuitName::MlFista, PursuitName::MlBasisPursuit],
        layer_weights: Some(weights),
        ..plain.clone()
    };
    let (mut table, mut curves) = (Vec::new(), Vec::new());
    for comparison in [Some(&plain), args.multi_layer.then_some(&multi_layer)].into_iter().flatten() {
        comparison.check(&operator, true)?;
        table.extend(comparison.table(&operator, &signals)?);
        curves.extend(comparison.curves(&operator, &signals)?);
    }

    let part = if digits.has_test_set { ", test" } else { "" };
    // The data's own name: where it lies on this machine does not belong here.
    let name =
        Path::new(&args.data).file_name().map_or_else(|| args.data.clone(), |name| name.to_string_lossy().into());
    let described = format!("{name}{part}");
    files::create_folder(&args.out)?;
    plot::error_against_nonzeros(&args.out.join("error_against_nonzeros.svg"), &curves)?;
    let results = json!({
        "source": described,
        "signals": count,
        "lambda_relative": args.lambda_relative,
        "shallower_weight": args.multi_layer.then_some(SHALLOWER),
        "rows": table.iter().map(Row::json).collect::<Value>(),
        "curves": curves.iter().map(|rows| rows.iter().map(Row::json).collect::<Value>()).collect::<Value>(),
    });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(&args, count, &described, &table);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn page(args: &Args, count: usize, source: &str, table: &[Row]) -> String {
    let list = |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ");
    let shallower = match args.multi_layer {
        true => format!(", on the shallower layers of ml-* {SHALLOWER} times that"),
        false => String::new(),
    };
    let mut page = format!(
        "# Pursuits side by side\n\n{count} signals ({source}), λ at {} of each signal's λ_max (for layered-* of every \
         layer's){shallower}, {} non-zeros for omp. All numbers are means over the signals.\n\n\
         | pursuit | ‖y − D^(L)γ_L‖ | ‖y − D_1γ_1‖ | non-zeros of γ_1 … γ_L | stripe norms | ‖γ_(i−1) − D_iγ_i‖ | signals/s |\n\
         |---|---|---|---|---|---|---|\n",
        args.lambda_relative,
        Comparison::DEFAULT_NONZEROS,
    );
    for Row { pursuit, measures, .. } in table {
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "| {pursuit} | {:.3} | {:.3} | {} | {} | {} | {:.0} |",
            measures.residual,
            measures.first_layer_residual,
            list(&measures.nonzeros),
            list(&measures.stripe_norms),
            measures.inconsistency.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(", "),
            measures.signals_per_second,
        );
    }
    page.push_str("\n![error against non-zeros](error_against_nonzeros.svg)\n");
    page
}
