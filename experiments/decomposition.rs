//! Digits decomposed in the atoms of every layer.
//!
//! ```text
//! cargo run --release --example decomposition -- --data FOLDER --model M.safetensors
//! ```
//!
//! One test digit of every class is coded by non-negative basis pursuit over D^(L); γ_{i−1} = D_i γ_i are the codes of the shallower
//! layers. A picture for every layer i shows, line by line, a digit, what its codes synthesise, and the ten terms of D^(i)γ_i = Σ_j γ_{i,j}
//! d_j of largest norm in their places; a table has the non-zeros of all layers (J. Sulam et al., IEEE TSP 2018, figure 5).

use burn::tensor::{Tensor, TensorData};
use clap::Parser;
use mlcsc::data::{self, DataConfig};
use mlcsc::error::{Error, Result};
use mlcsc::export::mosaic;
use mlcsc::files;
use mlcsc::model::{Mlcsc, OperatorForm};
use mlcsc::pursuit::{BasisPursuitConfig, Lambda};
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
    /// Weight of the ℓ1 norm. Default: that which the model was learned with
    #[arg(long)]
    lambda: Option<f32>,
    /// Folder of the results
    #[arg(long, default_value = "experiments/decomposition")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Terms that are shown.
const TERMS: usize = 10;

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let digits = data::open(&DataConfig { source: args.data.clone(), ..DataConfig::default() })?;
    let (model, coding) = Mlcsc::load(&args.model, &device)?;
    let lambda = args.lambda.or(coding.lambda).unwrap_or(0.3);
    let labels = digits.test.labels().ok_or_else(|| Error::parameter("--data", &args.data, "digits with labels"))?;
    let chosen: Vec<usize> =
        (0..10).filter_map(|class| labels.iter().position(|&label| usize::from(label) == class)).collect();
    if chosen.is_empty() {
        return Err(Error::parameter("--data", &args.data, "labels from 0 to 9"));
    }
    let shape = digits.test.shape();
    let mut pixels = vec![0.0; chosen.len() * shape.len()];
    digits.test.read(&chosen, &mut pixels)?;
    let signals: Tensor<4> = Tensor::from_data(TensorData::new(pixels, shape.batched(chosen.len())), &device);
    let (signals, _) = model.config().normalizer().apply(signals);

    let operator = model.operator(shape, OperatorForm::Auto)?;
    let basis = BasisPursuitConfig { nonnegative: true, ..BasisPursuitConfig::default() }.init_for(&operator)?;
    let pursued = basis.pursue(&operator, signals.clone(), &Lambda::Absolute(lambda))?;
    let synthesized = operator.synthesize(pursued.codes.clone());
    let all = operator.propagate(pursued.codes.clone());
    let depth = model.depth();
    let errors = rows_of((signals.clone() - synthesized.clone()).square());
    let energies = rows_of(signals.clone().square());
    files::create_folder(&args.out)?;
    let mut nonzeros = vec![vec![0; depth]; chosen.len()];
    for layer in 1..=depth {
        let codes = if layer == depth { pursued.codes.clone() } else { all[layer - 1].clone() };
        let atoms = model.truncated(layer, shape)?.operator(shape, OperatorForm::Auto)?;
        let [_, channels, height, width] = codes.dims();
        let len = channels * height * width;
        let codes: Vec<f32> = codes.into_data().iter::<f32>().collect();
        let mut tiles = Vec::new();
        for (digit, code) in codes.chunks_exact(len).enumerate() {
            let places: Vec<usize> = (0..len).filter(|&place| code[place] != 0.0).collect();
            nonzeros[digit][layer - 1] = places.len();
            let one = |tensor: &Tensor<4>| tensor.clone().narrow(0, digit, 1);
            tiles.extend([one(&signals), one(&synthesized)]);
            tiles.push(largest_terms(&atoms, code, &places));
        }
        mosaic::save(&mosaic::table(Tensor::cat(tiles, 0), TERMS + 2), &args.out.join(format!("layer_{layer}.png")))?;
    }
    let digits: Vec<Value> = (0..chosen.len())
        .map(|digit| {
            let error = f64::from(errors[digit]) / f64::from(energies[digit]);
            json!({ "digit": labels[chosen[digit]], "index": chosen[digit], "nonzeros": nonzeros[digit], "error": error })
        })
        .collect();
    let results = json!({ "lambda": lambda, "digits": digits });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(lambda, depth, &digits);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

/// The terms of largest norm as images, grey images where they are fewer.
fn largest_terms(atoms: &mlcsc::model::Operator, code: &[f32], places: &[usize]) -> Tensor<4> {
    let columns = atoms.columns(places);
    let norms = rows_of(atoms.signal_shaped(columns.clone()).square());
    let mut order: Vec<usize> = (0..places.len()).collect();
    let size = |index: &usize| code[places[*index]].abs() * norms[*index].sqrt();
    order.sort_by(|left, right| size(right).total_cmp(&size(left)).then(left.cmp(right)));
    order.truncate(TERMS);
    let device = atoms.device();
    let mut rows: Vec<Tensor<2>> =
        order.iter().map(|&index| columns.clone().narrow(0, index, 1) * code[places[index]]).collect();
    if rows.len() < TERMS {
        rows.push(Tensor::zeros([TERMS - rows.len(), atoms.signal().len()], &device));
    }
    atoms.signal_shaped(Tensor::cat(rows, 0))
}

/// Sums over everything but the first dimension.
fn rows_of(values: Tensor<4>) -> Vec<f32> {
    values.flatten::<2>(1, 3).sum_dim(1).into_data().iter::<f32>().collect()
}

fn page(lambda: f32, depth: usize, digits: &[Value]) -> String {
    let layers: Vec<String> = (1..=depth).rev().map(|layer| format!("‖γ_{layer}‖₀")).collect();
    let mut page = format!(
        "# Digits in the atoms of every layer\n\n\
         `cargo run --release --example decomposition -- --data FOLDER --model M.safetensors`\n\n\
         The first test digit of every class, coded by non-negative basis pursuit (λ = {lambda}). Every line of a picture: the digit, \
         what its codes synthesise, and the {TERMS} largest terms γ_(i,j) d_j of D^(i)γ_i, each in its place and scaled by itself.\n\n\
         | digit | {} | ‖y − x‖² / ‖y‖² |\n|---|{}---|\n",
        layers.join(" | "),
        "---|".repeat(depth)
    );
    for digit in digits {
        let nonzeros: Vec<String> =
            digit["nonzeros"].as_array().into_iter().flatten().rev().map(Value::to_string).collect();
        let error = 100.0 * digit["error"].as_f64().unwrap_or(f64::NAN);
        // Writing into a string cannot fail.
        let _ = writeln!(page, "| {} | {} | {error:.1}% |", digit["digit"], nonzeros.join(" | "));
    }
    for layer in (1..=depth).rev() {
        let _ = write!(page, "\nTerms of layer {layer}:\n\n![layer {layer}](layer_{layer}.png)\n");
    }
    page
}
