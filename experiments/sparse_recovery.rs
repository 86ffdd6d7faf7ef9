//! Sparse recovery under noise: the errors of γ_1 … γ_L by pursuits layer by layer and by projections, with the theorems' bounds.
//!
//! ```text
//! cargo run --release --example sparse_recovery
//! cargo run --release --example sparse_recovery -- --model M.safetensors --out FOLDER
//! ```
//!
//! Without `--model` a model is designed on which the bounds hold; on a learned one they may not, and there is then nothing to draw.
//! Writes `README.md`, `results.json`, `error_by_depth.svg` and `error_by_noise.svg` into `--out`.

use burn::tensor::Tensor;
use clap::Parser;
use mlcsc::error::Result;
use mlcsc::evaluate::plot::{self, Axis, Curve, Line, Panel};
use mlcsc::evaluate::trial::{self, TrialSignal};
use mlcsc::files;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::design::DesignConfig;
use mlcsc::model::sample::{SampleConfig, generator, relative_noise};
use mlcsc::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
use mlcsc::pursuit::{
    Acceleration, BasisPursuitConfig, HolisticPursuitConfig, Lambda, LayeredBasisPursuitConfig, LayeredThresholding,
    MultiLayerProximalGradientConfig, Problem, Pursued, Pursuit, Threshold,
};
use mlcsc::theory::{Errors, ModelProfile, Noise, Theorem};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Model file. Default: a model designed to have low coherence
    #[arg(long)]
    model: Option<PathBuf>,
    /// Signals at every noise level
    #[arg(long, default_value_t = 100)]
    signals: usize,
    /// Non-zeros of γ_L
    #[arg(long, default_value_t = 1)]
    nonzeros: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the results
    #[arg(long, default_value = "experiments/sparse_recovery")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Noise as a part of the signals' length.
const LEVELS: [f32; 7] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// Least and largest amplitude: thresholding bears little difference.
const AMPLITUDES: [f32; 2] = [1.0, 1.25];

/// The level of the picture by depth.
const SHOWN: usize = 2;

/// Penalties as a part of every layer's λ_max, where the theorem's condition fails and prescribes none.
const RELATIVE: f32 = 0.1;

/// Penalty of the shallower layers of ML-FISTA and holistic pursuit, as a part of λ.
const SHALLOWER: f32 = 0.01;

/// A pursuit with the theorem that bounds its error, if there is one.
const PURSUITS: [(&str, Option<Theorem>); 6] = [
    ("layered thresholding", Some(Theorem::LayeredThresholding { soft: true, thresholds: None })),
    ("layered BP", Some(Theorem::LayeredBasisPursuit { penalties: None })),
    ("ML-FISTA", None),
    ("projection by OMP", Some(Theorem::GreedyProjection)),
    ("projection by BP", Some(Theorem::ConvexProjection { penalty: None })),
    ("holistic", None),
];

/// Means over the signals of one pursuit at one noise level, layer by layer, relative to ‖γ_i‖₂.
struct Row {
    errors: Vec<f64>,
    /// Where every signal has a bound for every layer.
    bounds: Option<Vec<f64>>,
    /// Signals for which the theorem's condition holds.
    promised: usize,
    /// Largest error over bound.
    tightest: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let model = match &args.model {
        Some(path) => Mlcsc::load(path, &device)?.0,
        None => {
            let layers = vec![LayerShape::new(8, 10, 4), LayerShape::new(16, 3, 2), LayerShape::new(32, 4, 1)];
            let config = ModelConfig::new(SignalShape::new(1, 42, 42), layers);
            DesignConfig { seed: args.seed, steps: 1600, ..DesignConfig::new(config, vec![2, 2]) }.init(&device)?
        }
    };
    let signal = model.config().signal;
    let profile = ModelProfile::new(&model, signal)?;
    let operator = model.operator(signal, OperatorForm::Auto)?;
    let sampler = SampleConfig { amplitudes: AMPLITUDES, ..SampleConfig::new(args.nonzeros) }.init(&operator)?;
    let mut rows: Vec<Vec<Row>> = Vec::new();
    for level in LEVELS {
        // The same signals and noise at every level, but for its length.
        let mut rng = generator(args.seed + 1);
        let samples = sampler.sample(args.signals, &mut rng)?;
        let noisy = samples.signals.clone() + relative_noise(&samples.signals, level, &mut rng);
        let told = |noise: &[f32]| Noise::measured(profile.geometry(), noise);
        let known = TrialSignal::of(&profile, &noisy, &samples.representations, told)?;
        let of_level: Vec<Row> = PURSUITS
            .iter()
            .map(|(name, theorem)| row(name, theorem.as_ref(), &profile, &operator, &known, &noisy))
            .collect::<Result<_>>()?;
        eprintln!(
            "noise {level}: {}",
            of_level.iter().map(|row| format!("{:.4}", row.errors[model.depth() - 1])).collect::<Vec<_>>().join(" ")
        );
        rows.push(of_level);
    }
    files::create_folder(&args.out)?;
    draw(&args, &rows, model.depth())?;
    let results = json!({
        "model": args.model.as_ref().map_or("designed".into(), |path| path.file_name().unwrap_or_default().to_string_lossy()),
        "geometry": model.config(),
        "signals": args.signals,
        "nonzeros": args.nonzeros,
        "seed": args.seed,
        "coherence": profile.own.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
        "effective_coherence": profile.effective.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
        "levels": LEVELS.iter().zip(&rows).map(|(level, rows)| json!({
            "noise": level,
            "pursuits": PURSUITS.iter().zip(rows).map(|((name, _), row)| json!({
                "pursuit": name, "errors": row.errors, "bounds": row.bounds, "promised": row.promised, "largest_ratio": row.tightest,
            })).collect::<Value>(),
        })).collect::<Value>(),
    });
    files::write_bytes(&args.out.join("results.json"), format!("{results:#}\n").as_bytes())?;
    let page = page(&args, &profile, &rows);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

fn row(
    name: &str,
    theorem: Option<&Theorem>,
    profile: &ModelProfile,
    operator: &Operator,
    known: &[TrialSignal],
    noisy: &Tensor<4>,
) -> Result<Row> {
    let trials = match theorem {
        Some(theorem) => trial::run(theorem, profile, operator, known)?,
        None => Vec::new(),
    };
    let promised = trials.iter().filter(|trial| trial.promise.holds()).count();
    let all = promised == known.len();
    let errors: Vec<Vec<Errors>> =
        match trials.iter().map(|trial| trial.errors.clone().ok()).collect::<Option<Vec<_>>>() {
            Some(errors) if all => errors,
            _ => otherwise(name, profile, operator, known, noisy)?
                .iter()
                .zip(known)
                .map(|(estimates, known)| Errors::of(profile, estimates, &known.representations))
                .collect(),
        };
    let mean = |value: &dyn Fn(usize, usize) -> f64, layer: usize| {
        (0..known.len()).map(|row| value(row, layer) / known[row].levels.layers[layer].norm).sum::<f64>()
            / known.len() as f64
    };
    let layers = 0..profile.depth();
    let bound = |row: usize, layer: usize| {
        trials[row].promise.layers[layer].as_ref().map_or(f64::INFINITY, |bound| bound.global)
    };
    let error = |row: usize, layer: usize| errors[row][layer].global;
    let ratios = (0..known.len()).flat_map(|row| layers.clone().map(move |layer| (row, layer)));
    Ok(Row {
        errors: layers.clone().map(|layer| mean(&error, layer)).collect(),
        bounds: all.then(|| layers.clone().map(|layer| mean(&bound, layer)).collect()),
        promised,
        tightest: if all {
            ratios.map(|(row, layer)| error(row, layer) / bound(row, layer)).fold(0.0, f64::max)
        } else {
            0.0
        },
    })
}

/// Pursuits without a theorem, or whose theorem has nothing to say: with as much knowledge as a user could have.
fn otherwise(
    name: &str,
    profile: &ModelProfile,
    operator: &Operator,
    known: &[TrialSignal],
    noisy: &Tensor<4>,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let depth = profile.depth();
    let basis = BasisPursuitConfig { gap: 1e-5, max_iterations: 3000, ..BasisPursuitConfig::default() };
    let most = |layer: usize| known.iter().map(|known| known.levels.layers[layer].nonzeros).max().unwrap_or(1);
    let problem = Problem::new(operator, noisy.clone())?;
    let relative = |factor: f32| vec![Lambda::Relative(factor * RELATIVE); depth - 1];
    let layered = || problem.clone().with_lambda(Lambda::Relative(RELATIVE))?.with_shallower_lambda(relative(1.0));
    // Twice what the noise can do to an atom, which is what a projection would need.
    let lambda: Vec<f32> = known.iter().map(|known| 2.0 * known.noise.effective_patch as f32).collect();
    let shallower = vec![Lambda::PerSignal(lambda.iter().map(|value| SHALLOWER * value).collect()); depth - 1];
    let penalised = || problem.clone().with_lambda(Lambda::PerSignal(lambda.clone()));
    let pursued: Pursued = match name {
        "layered thresholding" => LayeredThresholding::new(Threshold::Soft).solve(&layered()?)?,
        "layered BP" => LayeredBasisPursuitConfig { basis, ..Default::default() }.init()?.solve(&layered()?)?,
        "ML-FISTA" => {
            let config = MultiLayerProximalGradientConfig {
                basis,
                ..MultiLayerProximalGradientConfig::new(Acceleration::Fista)
            };
            config.init()?.solve(&penalised()?.with_shallower_lambda(shallower)?)?
        }
        "projection by OMP" => {
            mlcsc::pursuit::OrthogonalMatchingPursuitConfig::new(most(depth - 1)).init()?.solve(&problem)?
        }
        "holistic" => {
            let nonzeros = (0..depth - 1).map(most).collect();
            // The splitting is slow where codes are large, and its first estimate need not be exact.
            let basis = BasisPursuitConfig { gap: 1e-3, max_iterations: 200, nonnegative: false };
            let config = HolisticPursuitConfig { basis, iterations: 50, ..HolisticPursuitConfig::new(nonzeros) };
            config.init()?.solve(&penalised()?.with_shallower_lambda(shallower)?)?
        }
        _ => basis.init_for(operator)?.solve(&penalised()?)?,
    };
    let layers: Vec<Vec<f32>> =
        pursued.representations(operator).into_iter().map(|gamma| gamma.into_data().iter::<f32>().collect()).collect();
    let part = |values: &Vec<f32>, row: usize| {
        let len = values.len() / known.len();
        values[row * len..][..len].to_vec()
    };
    Ok((0..known.len()).map(|row| layers.iter().map(|values| part(values, row)).collect()).collect())
}

fn draw(args: &Args, rows: &[Vec<Row>], depth: usize) -> Result<()> {
    // Along some levels and layers, with their places to the right.
    let lines = |along: &[(f64, usize, usize)]| {
        let mut lines = Vec::new();
        for (colour, (name, _)) in PURSUITS.iter().enumerate() {
            let errors = along.iter().map(|&(place, level, layer)| (place, rows[level][colour].errors[layer]));
            let bounds = along.iter().filter_map(|&(place, level, layer)| {
                rows[level][colour].bounds.as_ref().map(|bounds| (place, bounds[layer]))
            });
            for (name, points, dashed) in [(*name, errors.collect(), false), ("", bounds.collect(), true)] {
                lines.push(Line { curve: Curve { name: name.into(), points }, colour, dashed });
            }
        }
        lines
    };
    let any = rows.iter().flatten().any(|row| row.bounds.is_some());
    let bounded = if any { "; dashed: bounds" } else { "" };
    let by_depth: Vec<_> = (0..depth).map(|layer| (layer as f64 + 1.0, SHOWN, layer)).collect();
    let panel = Panel {
        title: format!("noise {} of the signal{bounded}", LEVELS[SHOWN]),
        horizontal: Axis::whole("layer i"),
        vertical: Axis::logarithmic("mean ‖γ̂_i − γ_i‖ / ‖γ_i‖"),
        lines: lines(&by_depth),
    };
    plot::panels(&args.out.join("error_by_depth.svg"), &[panel])?;
    let panels: Vec<Panel> = (0..depth)
        .map(|layer| Panel {
            title: format!("γ_{}{bounded}", layer + 1),
            horizontal: Axis::logarithmic("noise, as a part of the signal"),
            vertical: Axis::logarithmic("mean ‖γ̂_i − γ_i‖ / ‖γ_i‖"),
            lines: lines(
                &LEVELS.iter().enumerate().map(|(index, &level)| (level.into(), index, layer)).collect::<Vec<_>>(),
            ),
        })
        .collect();
    plot::panels(&args.out.join("error_by_noise.svg"), &panels)
}

fn page(args: &Args, profile: &ModelProfile, rows: &[Vec<Row>]) -> String {
    let list = |values: &[f64]| values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ");
    let coherences = |profiles: &[mlcsc::theory::DictionaryProfile]| {
        profiles.iter().map(|own| format!("{:.3}", own.mutual())).collect::<Vec<_>>().join(", ")
    };
    let mut page = format!(
        "# Sparse recovery under noise\n\n{} signals with {} of γ_{}, amplitudes {} to {}; {}. μ(D_i): {}; μ(D^(i)): {}. \
         Errors are mean ‖γ̂_i − γ_i‖₂/‖γ_i‖₂ of γ_1 … γ_{}, bounds (of the theorem with the noise of every patch known) the same.\n\n\
         Where a theorem holds for all signals, its pursuit is run as it prescribes; else layered pursuits take λ_i at {RELATIVE} of every \
         layer's λ_max, the others λ = 2ε_0, and OMP the number of non-zeros.\n\n\
         | noise | pursuit | errors | bounds | condition holds for | largest error/bound |\n|---|---|---|---|---|---|\n",
        args.signals,
        mlcsc::cli::output::counted(args.nonzeros, "non-zero"),
        profile.depth(),
        AMPLITUDES[0],
        AMPLITUDES[1],
        args.model.as_ref().map_or("a designed model".into(), |path| format!(
            "model {}",
            path.file_name().unwrap_or_default().to_string_lossy()
        )),
        coherences(&profile.own),
        coherences(&profile.effective),
        profile.depth(),
    );
    for (level, rows) in LEVELS.iter().zip(rows) {
        for ((name, theorem), row) in PURSUITS.iter().zip(rows) {
            let (bounds, ratio) = match &row.bounds {
                Some(bounds) => (list(bounds), format!("{:.3}", row.tightest)),
                None => ("no guarantee".into(), "–".into()),
            };
            let holds =
                if theorem.is_some() { format!("{} of {}", row.promised, args.signals) } else { "no theorem".into() };
            // Writing into a string cannot fail.
            let _ = writeln!(page, "| {level} | {name} | {} | {bounds} | {holds} | {ratio} |", list(&row.errors));
        }
    }
    page.push_str("\n![error by depth](error_by_depth.svg)\n\n![error by noise](error_by_noise.svg)\n");
    page
}
