//! How often the support of γ_L is found exactly, against its non-zeros, and from where on the theorems still promise it.
//!
//! ```text
//! cargo run --release --example phase_transition
//! ```
//!
//! Writes `README.md`, `results.json` and `recovery.svg` into `--out`.

use burn::tensor::Tensor;
use clap::Parser;
use mlcsc::error::Result;
use mlcsc::evaluate::plot::{self, Axis, Curve, Line, Panel};
use mlcsc::files;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::design::DesignConfig;
use mlcsc::model::sample::{SampleConfig, generator, relative_noise};
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    BasisPursuitConfig, Lambda, LayeredBasisPursuitConfig, LayeredThresholding, OrthogonalMatchingPursuitConfig,
    Problem, Pursuit, Threshold,
};
use mlcsc::theory::{Levels, ModelProfile, Noise, Theorem};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Model file. Default: a model designed to have low coherence
    #[arg(long)]
    model: Option<PathBuf>,
    /// Trials for every number of non-zeros
    #[arg(long, default_value_t = 200)]
    trials: usize,
    /// Noise as a part of the signal's length
    #[arg(long, default_value_t = 0.01)]
    noise: f32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the results
    #[arg(long, default_value = "experiments/phase_transition")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Numbers of non-zeros of γ_L, as far as it has places.
const NONZEROS: [usize; 18] = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 65, 90, 120, 160, 210, 280];

/// Entries below this part of the least planted amplitude are taken for zero: basis pursuit shrinks what it finds.
const FLOOR: f32 = 0.5;

/// Penalties as a part of every layer's λ_max.
const RELATIVE: f32 = 0.05;

/// A pursuit with the theorem that promises its support.
const PURSUITS: [(&str, Theorem); 4] = [
    ("projection by OMP", Theorem::GreedyProjection),
    ("projection by BP", Theorem::ConvexProjection { penalty: None }),
    ("layered BP", Theorem::LayeredBasisPursuit { penalties: None }),
    ("layered thresholding", Theorem::LayeredThresholding { soft: true, thresholds: None }),
];

/// Recovered and promised parts of the trials with one number of non-zeros, pursuit by pursuit.
struct Row {
    nonzeros: usize,
    recovered: Vec<f64>,
    promised: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let model = match &args.model {
        Some(path) => Mlcsc::load(path, &device)?.0,
        None => {
            let layers = vec![LayerShape::new(16, 8, 2), LayerShape::new(392, 7, 1)];
            let config = ModelConfig::new(SignalShape::new(1, 20, 20), layers);
            DesignConfig { seed: args.seed, ..DesignConfig::new(config, vec![2]) }.init(&device)?
        }
    };
    let profile = ModelProfile::new(&model, model.config().signal)?;
    let operator = model.operator(model.config().signal, OperatorForm::Auto)?;
    let places = operator.code().len();
    let mut rows = Vec::new();
    for nonzeros in NONZEROS.into_iter().filter(|&nonzeros| nonzeros <= places) {
        rows.push(row(&args, &profile, &operator, nonzeros)?);
        eprintln!("{nonzeros} non-zeros done");
    }
    files::create_folder(&args.out)?;
    plot::panels(&args.out.join("recovery.svg"), &[picture(&rows)])?;
    let results = json!({
        "model": args.model.as_ref().map_or("designed".into(), |path| path.file_name().unwrap_or_default().to_string_lossy()),
        "geometry": model.config(),
        "trials": args.trials,
        "noise": args.noise,
        "seed": args.seed,
        "coherence": profile.own.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
        "effective_coherence": profile.effective.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
        "rows": rows.iter().map(|row| json!({
            "nonzeros": row.nonzeros,
            "pursuits": PURSUITS.iter().zip(&row.recovered).zip(&row.promised).map(|(((name, _), recovered), promised)| {
                json!({ "pursuit": name, "recovered": recovered, "promised": promised })
            }).collect::<Value>(),
        })).collect::<Value>(),
    });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(&args, &profile, &rows);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn row(args: &Args, profile: &ModelProfile, operator: &Operator, nonzeros: usize) -> Result<Row> {
    let mut rng = generator(args.seed.wrapping_mul(1009).wrapping_add(nonzeros as u64));
    let samples = SampleConfig::new(nonzeros).init(operator)?.sample(args.trials, &mut rng)?;
    let noise = relative_noise(&samples.signals, args.noise, &mut rng);
    let levels = Levels::of(profile, &samples.representations)?;
    let host = |tensor: Tensor<4>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
    let values = host(noise.clone());
    let noises: Vec<Noise> =
        values.chunks_exact(operator.signal().len()).map(|noise| Noise::measured(profile.geometry(), noise)).collect();
    let problem = Problem::new(operator, samples.signals.clone() + noise)?;
    let depth = profile.depth();
    let basis = BasisPursuitConfig { gap: 1e-5, max_iterations: 2000, ..BasisPursuitConfig::default() };
    let relative = || problem.clone().with_lambda(Lambda::Relative(RELATIVE));
    let layered = || relative()?.with_shallower_lambda(vec![Lambda::Relative(RELATIVE); depth - 1]);
    let pursued = [
        OrthogonalMatchingPursuitConfig::new(nonzeros.min(operator.signal().len())).init()?.solve(&problem)?,
        basis.init_for(operator)?.solve(&relative()?)?,
        LayeredBasisPursuitConfig { basis, ..Default::default() }.init()?.solve(&layered()?)?,
        LayeredThresholding::new(Threshold::Soft).solve(&layered()?)?,
    ];
    let truth = host(samples.representations[depth - 1].clone());
    let len = operator.code().len();
    let part = |count: usize| count as f64 / args.trials as f64;
    let recovered = pursued.into_iter().enumerate().map(|(index, pursued)| {
        let found = host(pursued.codes);
        // What greedy pursuit picks it has picked; thresholding scales what it finds by nothing that one knows.
        let floor = |row: &[f32]| match index {
            0 => 0.0,
            1 => FLOOR,
            _ => FLOOR * row.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 2.0,
        };
        let rows = found.chunks_exact(len).zip(truth.chunks_exact(len));
        let same = |(found, truth): &(&[f32], &[f32])| {
            let floor = floor(found);
            found.iter().zip(*truth).all(|(found, truth)| (found.abs() > floor) == (*truth != 0.0))
        };
        part(rows.filter(same).count())
    });
    let recovered: Vec<f64> = recovered.collect();
    let promised = PURSUITS.iter().map(|(_, theorem)| {
        let holds = |(levels, noise): &(&Levels, &Noise)| theorem.promise(profile, levels, noise).holds();
        part(levels.iter().zip(&noises).filter(holds).count())
    });
    Ok(Row { nonzeros, recovered, promised: promised.collect() })
}

fn picture(rows: &[Row]) -> Panel {
    let line = |name: String, colour: usize, dashed: bool, value: &dyn Fn(&Row) -> f64| Line {
        curve: Curve { name, points: rows.iter().map(|row| (row.nonzeros as f64, value(row))).collect() },
        colour,
        dashed,
    };
    let mut lines = Vec::new();
    for (index, (name, _)) in PURSUITS.iter().enumerate() {
        lines.push(line((*name).into(), index, false, &|row| row.recovered[index]));
        lines.push(line(format!("{name}: promised"), index, true, &|row| row.promised[index]));
    }
    Panel {
        title: String::new(),
        horizontal: Axis::logarithmic("non-zeros of γ_L"),
        vertical: Axis::linear("part of the trials with the exact support"),
        lines,
    }
}

fn page(args: &Args, profile: &ModelProfile, rows: &[Row]) -> String {
    let deepest = &profile.effective[profile.depth() - 1];
    let coherences: Vec<String> = profile.own.iter().map(|own| format!("{:.3}", own.mutual())).collect();
    let names: Vec<&str> = PURSUITS.iter().map(|(name, _)| *name).collect();
    let mut page = format!(
        "# Phase transition\n\n{} trials for every number of non-zeros of γ_L (amplitudes 1 to 2), noise {} of the signal's length. \
         μ(D_i): {}; μ(D^(L)) = {:.3}, so that ½(1 + 1/μ(D^(L))) = {:.2}: with fewer non-zeros in a stripe the code is the only one as \
         sparse. BP and layered pursuits with λ at {RELATIVE} of (every layer's) λ_max; of what they find, BP's entries below {FLOOR} and those \
         of layered pursuits below half of {FLOOR} of the largest count as zero. In brackets the part of the trials for which the \
         theorem's conditions hold.\n\n| non-zeros | {} |\n|---|{}\n",
        args.trials,
        args.noise,
        coherences.join(", "),
        deepest.mutual(),
        deepest.uniqueness_limit(),
        names.join(" | "),
        "---|".repeat(names.len()),
    );
    for row in rows {
        let cells: Vec<String> = row
            .recovered
            .iter()
            .zip(&row.promised)
            .map(|(recovered, promised)| format!("{:.1}% ({:.0}%)", 100.0 * recovered, 100.0 * promised))
            .collect();
        // Writing into a string cannot fail.
        let _ = writeln!(page, "| {} | {} |", row.nonzeros, cells.join(" | "));
    }
    page.push_str("\n![recovery](recovery.svg)\n");
    page
}
