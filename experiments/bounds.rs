//! The theorems under fire: random signals of several models, noise of all sizes, every theorem's own pursuit, what is measured beside
//! what is promised. No bound may be exceeded where its condition holds; how much of it is used is its tightness.
//!
//! ```text
//! cargo run --release --example bounds
//! ```
//!
//! Writes `README.md`, `results.json` and `tightness.svg` into `--out`.

use burn::tensor::Device;
use clap::Parser;
use mlcsc::error::Result;
use mlcsc::evaluate::plot::{self, Axis, Curve, Line, Panel};
use mlcsc::evaluate::trial::{self, TrialSignal};
use mlcsc::files;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::design::DesignConfig;
use mlcsc::model::sample::{SampleConfig, add_noise, generator};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::theory::certificate::median;
use mlcsc::theory::{ModelProfile, Noise, Support, Theorem};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Signals of every model, at every noise level and number of non-zeros
    #[arg(long, default_value_t = 300)]
    signals: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the results
    #[arg(long, default_value = "experiments/bounds")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Noise as a part of the signal's length.
const LEVELS: [f32; 5] = [0.001, 0.01, 0.03, 0.1, 0.3];

/// Non-zeros of γ_L.
const NONZEROS: [usize; 4] = [1, 2, 3, 5];

/// What a measured error may exceed its bound by, relatively and absolutely: codes and noise are rounded to `f32`, and basis pursuits
/// stop at a duality gap of 1e-6.
const ROUNDING: (f64, f64) = (1e-3, 1e-4);

/// What came of one theorem on one model.
#[derive(Default)]
struct Tally {
    /// Signals for which it was asked.
    asked: usize,
    /// Of these, those with a bound for every layer.
    promised: usize,
    /// Of these, those on which its pursuit was run and found what the theorem speaks of.
    measured: usize,
    /// Bounds exceeded by more than rounding, supports other than promised.
    broken: usize,
    /// Bounds no smaller than the representation itself.
    vacuous: usize,
    /// Measured over promised ‖γ̂_i − γ_i‖₂, layer by layer.
    ratios: Vec<Vec<f64>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let models = models(&device)?;
    let theorems = Theorem::all();
    let mut tallies: Vec<Vec<Tally>> = Vec::new();
    let mut profiles = Vec::new();
    for (number, (name, model)) in models.iter().enumerate() {
        let signal = model.config().signal;
        let profile = ModelProfile::new(model, signal)?;
        let operator = model.operator(signal, OperatorForm::Auto)?;
        let mut own: Vec<Tally> =
            theorems.iter().map(|_| Tally { ratios: vec![Vec::new(); model.depth()], ..Tally::default() }).collect();
        for (round, (&level, &nonzeros)) in
            LEVELS.iter().flat_map(|level| NONZEROS.iter().map(move |nonzeros| (level, nonzeros))).enumerate()
        {
            let mut rng = generator(args.seed.wrapping_mul(1009).wrapping_add((number * 100 + round) as u64));
            let sampler = SampleConfig::new(nonzeros).init(&operator)?;
            let samples = sampler.sample(args.signals, &mut rng)?;
            // Relative to the mean length, so that one call adds it.
            let energy: f32 = samples.signals.clone().square().sum().into_scalar();
            let length = level * (energy / args.signals as f32).sqrt();
            let noisy = add_noise(samples.signals.clone(), length, &mut rng);
            let told = |noise: &[f32]| Noise::measured(profile.geometry(), noise);
            let known = TrialSignal::of(&profile, &noisy, &samples.representations, told)?;
            for (theorem, tally) in theorems.iter().zip(&mut own) {
                let trials = trial::run(theorem, &profile, &operator, &known)?;
                trials.iter().zip(&known).for_each(|(trial, known)| tally.add(trial, known));
            }
        }
        let measured: usize = own.iter().map(|tally| tally.measured).sum();
        eprintln!(
            "{name}: {measured} promises measured, {} broken",
            own.iter().map(|tally| tally.broken).sum::<usize>()
        );
        tallies.push(own);
        profiles.push(profile);
    }
    files::create_folder(&args.out)?;
    plot::panels(&args.out.join("tightness.svg"), &[picture(&theorems, &tallies)])?;
    let results: Vec<_> = models
        .iter()
        .zip(&tallies)
        .zip(&profiles)
        .map(|(((name, model), tallies), profile)| {
            json!({
                "model": name,
                "geometry": model.config(),
                "coherence": profile.own.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
                "effective_coherence": profile.effective.iter().map(|own| own.mutual()).collect::<Vec<_>>(),
                "welch": profile.own.iter().map(|own| own.welch).collect::<Vec<_>>(),
                "theorems": theorems.iter().zip(tallies).map(|(theorem, tally)| tally.json(theorem)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let document =
        json!({ "signals": args.signals, "seed": args.seed, "noise": LEVELS, "nonzeros": NONZEROS, "models": results });
    files::write_bytes(&args.out.join("results.json"), format!("{document:#}\n").as_bytes())?;
    let page = page(&args, &models, &profiles, &theorems, &tallies);
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    println!("{page}");
    Ok(())
}

/// Models on which the theorems have something to say: strides, channels, rectangles, padding, atoms that are not of unit norm.
fn models(device: &Device) -> Result<Vec<(&'static str, Mlcsc)>> {
    let padded = |atoms, kernel: usize, stride: usize, padding: usize| {
        LayerShape::new(atoms, kernel, stride).with_padding(padding)
    };
    let design = |signal: [usize; 3], layers: Vec<LayerShape>, nonzeros: &[usize]| {
        let [channels, height, width] = signal;
        let config = ModelConfig::new(SignalShape::new(channels, height, width), layers);
        DesignConfig::new(config, nonzeros.to_vec()).init(device)
    };
    let three = vec![LayerShape::new(8, 8, 3), LayerShape::new(12, 3, 2), LayerShape::new(24, 4, 1)];
    let two = vec![LayerShape::new(6, Pair([5, 7]), Pair([2, 3])), LayerShape::new(10, 3, 1)];
    let overcomplete = vec![LayerShape::new(6, 9, 2)];
    let cropped = vec![padded(4, 8, 4, 1), LayerShape::new(6, 3, 2)];
    let cropped_inside = vec![LayerShape::new(8, 8, 4), padded(6, 3, 1, 1)];
    let uneven = design([1, 32, 32], vec![LayerShape::new(8, 8, 4), LayerShape::new(12, 2, 1)], &[2])?;
    let filters = uneven.filters();
    let lengths: Vec<f32> = (0..12).map(|atom| 0.6 + 0.07 * atom as f32).collect();
    let lengths = burn::tensor::Tensor::<1>::from_floats(lengths.as_slice(), device).reshape([12, 1, 1, 1]);
    let uneven = Mlcsc::from_filters(uneven.config().clone(), vec![filters[0].clone(), filters[1].clone() * lengths])?;
    Ok(vec![
        ("three layers", design([1, 38, 38], three, &[2, 2])?),
        ("two layers, colour, rectangles", design([3, 25, 31], two, &[2])?),
        ("one layer, overcomplete", design([1, 31, 31], overcomplete, &[])?),
        ("two layers, the first padded", design([1, 34, 34], cropped, &[1])?),
        ("two layers, padded inside", design([1, 32, 32], cropped_inside, &[16])?),
        ("two layers, atoms of other lengths", uneven),
    ])
}

impl Tally {
    fn add(&mut self, trial: &trial::Trial, known: &TrialSignal) {
        self.asked += 1;
        if !trial.promise.holds() {
            return;
        }
        self.promised += 1;
        let bounds: Vec<_> = trial.promise.layers.iter().flatten().collect();
        let norms = known.levels.layers.iter().map(|level| level.norm);
        self.vacuous += bounds.iter().zip(norms).filter(|(bound, norm)| bound.is_vacuous(*norm)).count();
        let Ok(errors) = &trial.errors else { return };
        self.measured += 1;
        for ((bound, error), ratios) in bounds.iter().zip(errors).zip(&mut self.ratios) {
            let within = |found: f64, promised: f64| found <= promised * (1.0 + ROUNDING.0) + ROUNDING.1;
            let kept = within(error.global, bound.global)
                && within(error.local, bound.local)
                && within(error.largest, bound.largest);
            self.broken += usize::from(!kept);
            if bound.global > 0.0 {
                ratios.push(error.global / bound.global);
            }
        }
        let deepest = &errors[errors.len() - 1];
        self.broken += usize::from(match trial.promise.support {
            Support::Equal => !deepest.equal,
            Support::Contained => !deepest.contained,
            Support::Unknown => false,
        });
    }

    fn largest(&self) -> f64 {
        self.ratios.iter().flatten().fold(0.0, |largest, &ratio| largest.max(ratio))
    }

    fn json(&self, theorem: &Theorem) -> serde_json::Value {
        json!({
            "theorem": theorem.name(),
            "asked": self.asked,
            "promised": self.promised,
            "measured": self.measured,
            "broken": self.broken,
            "vacuous_bounds": self.vacuous,
            "largest_ratio": self.largest(),
            "median_ratio": self.ratios.iter().map(|ratios| median(ratios)).collect::<Vec<_>>(),
        })
    }
}

/// Which part of the bounds is used by which part of the measurements.
fn picture(theorems: &[Theorem], tallies: &[Vec<Tally>]) -> Panel {
    let line = |(index, theorem): (usize, &Theorem)| {
        let mut ratios: Vec<f64> =
            tallies.iter().flat_map(|tallies| tallies[index].ratios.iter().flatten().copied()).collect();
        ratios.sort_by(f64::total_cmp);
        let points = (1..=100).filter_map(|percent| {
            let place = (percent * ratios.len()).div_ceil(100).checked_sub(1)?;
            Some((ratios[place], percent as f64))
        });
        Line { curve: Curve { name: theorem.name().into(), points: points.collect() }, colour: index, dashed: false }
    };
    Panel {
        title: String::new(),
        horizontal: Axis::logarithmic("measured ‖γ̂ − γ‖ as a part of its bound"),
        vertical: Axis::linear("percent of measurements up to there"),
        lines: theorems.iter().enumerate().map(line).collect(),
    }
}

fn page(
    args: &Args,
    models: &[(&str, Mlcsc)],
    profiles: &[ModelProfile],
    theorems: &[Theorem],
    tallies: &[Vec<Tally>],
) -> String {
    let total = |value: fn(&Tally) -> usize| tallies.iter().flatten().map(value).sum::<usize>();
    let mut page = format!(
        "# The theorems under fire\n\n{} signals for every model, noise level ({}) and number of non-zeros of γ_L ({}). A theorem is \
         *asked* about every signal, with the noise of every patch measured; *promised* are those for which its conditions hold in every \
         layer, *measured* those of them on which its own pursuit was run and found what the theorem speaks of.\n\n\
         **{} promises measured, {} broken.**\n\n",
        args.signals,
        LEVELS.map(|level| level.to_string()).join(", "),
        NONZEROS.map(|nonzeros| nonzeros.to_string()).join(", "),
        total(|tally| tally.measured),
        total(|tally| tally.broken),
    );
    page.push_str("| model | μ(D_i) | least possible | μ(D^(i)) |\n|---|---|---|---|\n");
    let list = |values: Vec<f64>| values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(", ");
    for ((name, _), profile) in models.iter().zip(profiles) {
        // Writing into a string cannot fail.
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} |",
            list(profile.own.iter().map(|own| own.mutual()).collect()),
            list(profile.own.iter().map(|own| own.welch).collect()),
            list(profile.effective.iter().map(|own| own.mutual()).collect()),
        );
    }
    page.push_str(
        "\nMeasured over promised, ‖γ̂_i − γ_i‖₂: the median layer by layer, and the largest of all. *Vacuous*: bounds no smaller \
         than ‖γ_i‖₂.\n\n\
         | model | theorem | asked | promised | measured | broken | vacuous | median used | most used |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((name, model), tallies) in models.iter().zip(tallies) {
        for (theorem, tally) in theorems.iter().zip(tallies) {
            let used =
                tally.ratios.iter().map(|ratios| median(ratios).map_or("–".into(), |value| format!("{value:.3}")));
            let _ = writeln!(
                page,
                "| {name} | {} | {} | {} | {} | {} | {:.0}% | {} | {:.3} |",
                theorem.name(),
                tally.asked,
                tally.promised,
                tally.measured,
                tally.broken,
                100.0 * tally.vacuous as f64 / (tally.promised * model.depth()).max(1) as f64,
                used.collect::<Vec<_>>().join(", "),
                tally.largest(),
            );
        }
    }
    page.push_str("\n![tightness](tightness.svg)\n");
    page
}
