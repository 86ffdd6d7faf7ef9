//! Holistic pursuit against projection in the setting of A. Aberdam, J. Sulam, M. Elad, "Multi-Layer Sparse Coding: The Holistic Way",
//! SIAM J. Mathematics of Data Science 1(1), 2019: dense dictionaries, n = 50, m_1 = 100, m_2 = 50, noise of σ = 0.1 at 25 dB.
//!
//! The zeros of γ_1 are linear equations that γ_2 satisfies. A projection does not use them, so that its error does not depend on how
//! many there are; who uses them estimates s − ℓ numbers in place of s, and ‖x̂ − x‖² falls from σ²s to σ²(s − ℓ).
//!
//! ```text
//! cargo run --release --example holistic
//! ```
//!
//! Writes `README.md`, `results.json` and `error_against_zeros.svg` into `--out`.

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use mlcsc::error::Result;
use mlcsc::evaluate::plot::{self, Axis, Curve, Line, Panel};
use mlcsc::files;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::sample::generator;
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    BasisPursuitConfig, ConvexProjectionConfig, HolisticPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig,
    Problem, Pursuit,
};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Trials for every number of zeros
    #[arg(long, default_value_t = 1000)]
    trials: usize,
    /// Non-zeros of γ_2
    #[arg(long, default_value_t = 10)]
    nonzeros: usize,
    /// λ of BP and of holistic pursuit's first estimate, as a multiple of σ√(2 ln m_2)
    #[arg(long, default_value_t = 1.0)]
    lambda: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the results
    #[arg(long, default_value = "experiments/holistic")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

const SIGNAL: usize = 50;
const FIRST: usize = 100;
const SECOND: usize = 50;
const DEVIATION: f64 = 0.1;
const DECIBELS: f64 = 25.0;

/// Least magnitude of the non-zeros of γ_2, as a part of their root mean square.
const LEAST: f64 = 0.4;

/// Trials that share their dictionaries.
const GROUP: usize = 20;

/// λ on coefficients of unit atoms, as a multiple of σ√(2 ln m_2).
fn lambda(factor: f64) -> f64 {
    factor * DEVIATION * (2.0 * (SECOND as f64).ln()).sqrt()
}

const NAMES: [&str; 6] = [
    "projection, true support",
    "holistic, true supports",
    "projection by OMP",
    "projection by BP, de-biased",
    "holistic pursuit",
    "BP's support, true zeros",
];

/// Sums of squared errors of x, γ_1 and γ_2, relative to the energies of γ_1 and γ_2.
#[derive(Default, Clone, Copy)]
struct Sums {
    signal: f64,
    first: f64,
    second: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let most = args.nonzeros.saturating_sub(2);
    let zeros: Vec<usize> = (0..=6).map(|step| step * most / 6).collect();
    let mut sums = vec![[Sums::default(); NAMES.len()]; zeros.len()];
    let groups = args.trials.div_ceil(GROUP);
    for group in 0..groups {
        let mut rng = generator(args.seed.wrapping_mul(1_000_003).wrapping_add(group as u64));
        let dictionaries = Dictionaries::random(&mut rng);
        let operator = dictionaries.operator(&device)?;
        for (&zeros, sums) in zeros.iter().zip(&mut sums) {
            let trials: Vec<Trial> =
                (0..GROUP).map(|_| Trial::random(&dictionaries, args.nonzeros, zeros, &mut rng)).collect();
            for (sums, estimates) in
                sums.iter_mut().zip(estimates(&dictionaries, &operator, &trials, zeros, args.lambda)?)
            {
                for (trial, estimate) in trials.iter().zip(estimates) {
                    sums.add(&dictionaries, trial, &estimate);
                }
            }
        }
        if (group + 1) % 5 == 0 || group + 1 == groups {
            eprintln!("{} of {} trials", (group + 1) * GROUP, groups * GROUP);
        }
    }
    let count = (groups * GROUP) as f64;
    let mean = |value: f64| value / count;
    files::create_folder(&args.out)?;
    let theory = |zeros: usize| DEVIATION * DEVIATION * (args.nonzeros - zeros) as f64;
    let line = |name: &str, points: Vec<(f64, f64)>, colour, dashed| Line {
        curve: Curve { name: name.into(), points },
        colour,
        dashed,
    };
    let mut lines: Vec<Line> = NAMES
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let points = zeros.iter().zip(&sums).map(|(&zeros, sums)| (zeros as f64, mean(sums[index].signal)));
            line(name, points.collect(), index, false)
        })
        .collect();
    let flat = zeros.iter().map(|&zeros| (zeros as f64, theory(0))).collect();
    lines.push(line("σ²s", flat, 0, true));
    lines.push(line("σ²(s − ℓ)", zeros.iter().map(|&zeros| (zeros as f64, theory(zeros))).collect(), 1, true));
    let panel = Panel {
        title: String::new(),
        horizontal: Axis::linear("zeros of γ_1"),
        vertical: Axis::logarithmic("mean ‖x̂ − x‖²"),
        lines,
    };
    plot::panels(&args.out.join("error_against_zeros.svg"), &[panel])?;
    let rows: Vec<_> = zeros
        .iter()
        .zip(&sums)
        .map(|(zeros, sums)| {
            let errors: Vec<_> = NAMES
                .iter()
                .zip(sums)
                .map(|(name, sums)| {
                    json!({
                        "estimator": name,
                        "signal": mean(sums.signal),
                        "gamma_1_relative": mean(sums.first),
                        "gamma_2_relative": mean(sums.second),
                    })
                })
                .collect();
            json!({ "zeros": zeros, "predicted": [theory(0), theory(*zeros)], "errors": errors })
        })
        .collect();
    let results = json!({
        "trials": groups * GROUP, "nonzeros": args.nonzeros, "seed": args.seed, "sigma": DEVIATION,
        "decibels": DECIBELS, "lambda": lambda(args.lambda), "rows": rows,
    });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(&args, groups * GROUP, &zeros, &sums, count);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn page(args: &Args, trials: usize, zeros: &[usize], sums: &[[Sums; NAMES.len()]], count: f64) -> String {
    let mut page = format!(
        "# Holistic pursuit against projection\n\nDense dictionaries, n = {SIGNAL}, m_1 = {FIRST}, m_2 = {SECOND}, {} non-zeros of γ_2 (Gaussian, none below {LEAST} of their root mean square), \
         noise of σ = {DEVIATION} at {DECIBELS} dB; {trials} trials for every number of zeros of γ_1. λ = {} σ√(2 ln m_2) on \
         normalised coefficients; holistic pursuit is told how many zeros there are. Mean ‖x̂ − x‖²; in brackets mean \
         ‖γ̂_2 − γ_2‖²/‖γ_2‖².\n\n| zeros of γ_1 | {} | σ²s | σ²(s − ℓ) |\n|---|{}---|---|\n",
        args.nonzeros,
        args.lambda,
        NAMES.join(" | "),
        "---|".repeat(NAMES.len()),
    );
    for (zeros, sums) in zeros.iter().zip(sums) {
        let cells = sums.map(|sums| format!("{:.4} ({:.4})", sums.signal / count, sums.second / count)).join(" | ");
        let energy = |dimensions: usize| DEVIATION * DEVIATION * dimensions as f64;
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "| {zeros} | {cells} | {:.4} | {:.4} |",
            energy(args.nonzeros),
            energy(args.nonzeros - zeros)
        );
    }
    page.push_str(
        "\nWith the true support and the true zeros the errors are what they are predicted to be: every zero is worth a dimension. \
         On the support that BP finds the true zeros are worth as much. Holistic pursuit has to find the zeros among noisy entries \
         of γ̂_1: compare its column with that of BP, from which it starts.\n\n![error against zeros](error_against_zeros.svg)\n",
    );
    page
}

/// Two dense dictionaries by columns.
struct Dictionaries {
    /// D_1, [m_1][n].
    first: Vec<Vec<f64>>,
    /// D_2, [m_2][m_1].
    second: Vec<Vec<f64>>,
    /// D_1 D_2, [m_2][n].
    effective: Vec<Vec<f64>>,
}

impl Dictionaries {
    fn random(rng: &mut impl Rng) -> Self {
        let mut columns = |count: usize, len: usize| -> Vec<Vec<f64>> {
            (0..count)
                .map(|_| {
                    // As the model holds them.
                    let column: Vec<f64> = normals(rng, len);
                    let length = norm(&column);
                    column.iter().map(|value| f64::from((value / length) as f32)).collect()
                })
                .collect()
        };
        let (first, second) = (columns(FIRST, SIGNAL), columns(SECOND, FIRST));
        let effective = second.iter().map(|atom| combine(&first, atom)).collect();
        Self { first, second, effective }
    }

    fn operator(&self, device: &Device) -> Result<Operator> {
        let config = ModelConfig::new(
            SignalShape::new(SIGNAL, 1, 1),
            vec![LayerShape::new(FIRST, 1, 1), LayerShape::new(SECOND, 1, 1)],
        );
        let filters = [&self.first, &self.second].map(|columns| {
            let values: Vec<f32> = columns.iter().flatten().map(|&value| value as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [columns.len(), columns[0].len(), 1, 1]), device)
        });
        Mlcsc::from_filters(config, filters.to_vec())?.operator(SignalShape::new(SIGNAL, 1, 1), OperatorForm::Matrix)
    }
}

/// One signal in the model, with noise.
struct Trial {
    support: Vec<usize>,
    zeros: Vec<usize>,
    second: Vec<f64>,
    noisy: Vec<f64>,
}

impl Trial {
    fn random(dictionaries: &Dictionaries, nonzeros: usize, zeros: usize, rng: &mut impl Rng) -> Self {
        let (support, zeros, values) = loop {
            let support = rand::seq::index::sample(rng, SECOND, nonzeros).into_vec();
            let zeros = rand::seq::index::sample(rng, FIRST, zeros).into_vec();
            let basis = orthonormal(equations(dictionaries, &support, &zeros));
            let values = without(&normals(rng, nonzeros), &basis);
            // None so small that no pursuit could tell it from noise; some null spaces have no other.
            let floor = LEAST * norm(&values) / (nonzeros as f64).sqrt();
            if values.iter().all(|value| value.abs() >= floor) {
                break (support, zeros, values);
            }
        };
        let mut second = vec![0.0; SECOND];
        support.iter().zip(&values).for_each(|(&place, &value)| second[place] = value);
        let clean = combine(&dictionaries.effective, &second);
        // 10 log₁₀(‖x‖²/(nσ²)) decibels.
        let scale = DEVIATION * (SIGNAL as f64 * 10f64.powf(DECIBELS / 10.0)).sqrt() / norm(&clean);
        second.iter_mut().for_each(|value| *value *= scale);
        let noise: Vec<f64> = normals(rng, SIGNAL);
        let noisy = clean.iter().zip(&noise).map(|(clean, noise)| scale * clean + DEVIATION * noise).collect();
        Self { support, zeros, second, noisy }
    }

    /// Least squares on a support, within the null space of the true zeros where those are used.
    fn fitted(&self, dictionaries: &Dictionaries, support: &[usize], holistic: bool) -> Vec<f64> {
        let size = support.len();
        let rows = if holistic { orthonormal(equations(dictionaries, support, &self.zeros)) } else { Vec::new() };
        let units = (0..size).map(|index| (0..size).map(|other| f64::from(u8::from(index == other))).collect());
        let free = orthonormal(units.map(|unit: Vec<f64>| without(&unit, &rows)).collect());
        let columns: Vec<Vec<f64>> = support.iter().map(|&place| dictionaries.effective[place].clone()).collect();
        let directions: Vec<Vec<f64>> = free.iter().map(|direction| combine(&columns, direction)).collect();
        let parts = least_squares(&directions, &self.noisy);
        let values = combine(&free, &parts);
        let mut code = vec![0.0; SECOND];
        support.iter().zip(values).for_each(|(&place, value)| code[place] = value);
        code
    }
}

/// Rows of D_2 that are to be zero, on a support.
fn equations(dictionaries: &Dictionaries, support: &[usize], zeros: &[usize]) -> Vec<Vec<f64>> {
    let row = |&zero: &usize| support.iter().map(|&place| dictionaries.second[place][zero]).collect();
    zeros.iter().map(row).collect()
}

/// γ_2 by every estimator, in the order of [`NAMES`].
fn estimates(
    dictionaries: &Dictionaries,
    operator: &Operator,
    trials: &[Trial],
    zeros: usize,
    factor: f64,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let values: Vec<f32> = trials.iter().flat_map(|trial| trial.noisy.iter().map(|&value| value as f32)).collect();
    let signals =
        Tensor::from_data(TensorData::new(values, operator.signal().batched(trials.len())), &operator.device());
    let nonzeros = trials[0].support.len();
    let weights: Vec<f32> = dictionaries.effective.iter().map(|atom| norm(atom) as f32).collect();
    let plain = Problem::new(operator, signals)?;
    let weighted = plain.clone().with_lambda(Lambda::Absolute(lambda(factor) as f32))?.with_weights(2, weights)?;
    let basis = BasisPursuitConfig { gap: 1e-4, ..BasisPursuitConfig::default() };
    let convex = ConvexProjectionConfig {
        debias: true,
        basis: basis.clone(),
        ..ConvexProjectionConfig::new(vec![FIRST, SECOND])
    };
    let holistic = HolisticPursuitConfig { basis, ..HolisticPursuitConfig::new(vec![FIRST - zeros]) };
    let pursued = [
        OrthogonalMatchingPursuitConfig::new(nonzeros).init()?.solve(&plain)?,
        convex.init()?.solve(&weighted)?,
        holistic.init()?.solve(&weighted)?,
    ];
    let oracle = |holistic| trials.iter().map(|trial| trial.fitted(dictionaries, &trial.support, holistic)).collect();
    let mut all: Vec<Vec<Vec<f64>>> = vec![oracle(false), oracle(true)];
    all.extend(pursued.map(|pursued| {
        let values: Vec<f64> = pursued.codes.into_data().iter::<f32>().map(f64::from).collect();
        values.chunks_exact(SECOND).map(<[f64]>::to_vec).collect()
    }));
    let on_found = all[3].iter().zip(trials).map(|(code, trial)| {
        let support: Vec<usize> = (0..SECOND).filter(|&place| code[place] != 0.0).collect();
        trial.fitted(dictionaries, &support, true)
    });
    all.push(on_found.collect());
    Ok(all)
}

impl Sums {
    fn add(&mut self, dictionaries: &Dictionaries, trial: &Trial, estimate: &[f64]) {
        let difference: Vec<f64> = estimate.iter().zip(&trial.second).map(|(found, value)| found - value).collect();
        let energy = |values: &[f64]| norm(values).powi(2);
        self.signal += energy(&combine(&dictionaries.effective, &difference));
        self.first +=
            energy(&combine(&dictionaries.second, &difference)) / energy(&combine(&dictionaries.second, &trial.second));
        self.second += energy(&difference) / energy(&trial.second);
    }
}

fn normals(rng: &mut impl Rng, len: usize) -> Vec<f64> {
    (0..len).map(|_| StandardNormal.sample(rng)).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn inner(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Σ weights_j columns_j.
fn combine(columns: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; columns.first().map_or(0, Vec::len)];
    for (column, weight) in columns.iter().zip(weights) {
        sum.iter_mut().zip(column).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

/// What is left of a vector when its parts along orthonormal directions are taken away, twice for the sake of rounding.
fn without(vector: &[f64], basis: &[Vec<f64>]) -> Vec<f64> {
    let mut rest = vector.to_vec();
    for direction in basis.iter().chain(basis) {
        let part = inner(&rest, direction);
        rest.iter_mut().zip(direction).for_each(|(value, entry)| *value -= part * entry);
    }
    rest
}

/// An orthonormal basis of the span.
fn orthonormal(vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for vector in vectors {
        let rest = without(&vector, &basis);
        let length = norm(&rest);
        if length > 1e-9 {
            basis.push(rest.into_iter().map(|value| value / length).collect());
        }
    }
    basis
}

/// Coefficients of the projection of a signal onto independent columns, by Gram-Schmidt and back substitution.
fn least_squares(columns: &[Vec<f64>], signal: &[f64]) -> Vec<f64> {
    let basis = orthonormal(columns.to_vec());
    let mut values: Vec<f64> = basis.iter().map(|direction| inner(direction, signal)).collect();
    for last in (0..columns.len()).rev() {
        values[last] /= inner(&basis[last], &columns[last]);
        for earlier in 0..last {
            values[earlier] -= inner(&basis[earlier], &columns[last]) * values[last];
        }
    }
    values
}
