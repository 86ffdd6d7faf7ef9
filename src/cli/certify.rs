//! `mlcsc certify`: what is proven about codes.

use super::coding::{Coder, CodingArgs, LambdaArgs, PursuitArgs, SolverArgs};
use super::data::{InputArgs, Signals};
use super::output;
use super::output::{counted, number, table};
use crate::error::{Error, Result};
use crate::model::sample::{add_noise, generator};
use crate::pursuit::PursuitName;
use crate::theory::certificate::{Certificate, bound_json, median};
use crate::theory::{Bound, Levels, ModelProfile, Noise, Theorem, Unmet};
use crate::trial::{self, Known, Trial};
use clap::Args;
use serde_json::{Value, json};

/// Code signals and say what is proven about their codes
///
/// Of every representation γ_i found: whether it is provably the only one as sparse, and how far those of a signal within --noise
/// of the coded one can be from it at most. Of every theorem: the noise within which it holds for such representations, and the
/// error that it promises in every layer. With --noise, the reconstructions are taken for signals, noise of that length is added,
/// each theorem's own pursuit is run, and the errors are measured. A promise that the zero code would keep is called vacuous.
/// Units are those of the signals after the model's normalisation.
#[derive(Debug, Args)]
pub(super) struct CertifyArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Length E ≥ 0 of the noise; omp and projection stop at residuals of that length
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    noise: Option<f32>,
    /// The pursuit, as `mlcsc encode --pursuit` names it
    #[arg(long, value_name = "NAME", default_value = "bp")]
    pursuit: PursuitName,
    /// Most non-zeros of γ_L for omp and projection
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    nonzeros: Option<usize>,
    /// Most non-zeros in a stripe of γ_1,…,γ_L for projection
    #[arg(long, value_name = "N1,…,NL", value_delimiter = ',', allow_negative_numbers = true)]
    stripe_limits: Option<Vec<usize>>,
    /// Seed of the noise
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lambda: LambdaArgs,
    #[command(flatten)]
    solver: SolverArgs,
}

/// One signal's certificate, with what was measured for each theorem.
struct Certified {
    certificate: Certificate,
    trials: Vec<Trial>,
}

impl CertifyArgs {
    fn coding(&self) -> CodingArgs {
        let greedy = matches!(self.pursuit, PursuitName::OrthogonalMatchingPursuit | PursuitName::Projection);
        CodingArgs {
            pursuit: PursuitArgs {
                name: self.pursuit,
                algorithm: None,
                nonzeros: self.nonzeros.map(|nonzeros| vec![nonzeros]),
                noise: self.noise.filter(|_| greedy),
                stripe_limits: self.stripe_limits.clone(),
                layer_weights: None,
                threshold: None,
                convex: false,
                debias: false,
            },
            lambda: self.lambda.clone(),
            solver: self.solver.clone(),
        }
    }

    pub(super) fn run(&self) -> Result<()> {
        let coding = self.coding();
        if let Some(noise) = self.noise.filter(|noise| !(noise.is_finite() && *noise >= 0.0)) {
            return Err(Error::parameter("--noise", noise, "a finite length ≥ 0"));
        }
        coding.check()?;
        self.input.check()?;
        let (model, defaults) = self.input.load()?;
        let signals = self.input.signals()?;
        let settings = coding.settings(defaults, signals.len())?;
        let shape = signals.shape();
        let coder = Coder::new(model.clone(), shape, &signals.source(), settings)?;
        let profile = ModelProfile::new(&model, shape)?;
        let mut rng = generator(self.seed);
        let mut certified = Vec::with_capacity(signals.len());
        coder.run(&signals, |batch| {
            let operator = coder.operator();
            let representations = operator.propagate(batch.pursued.codes.clone());
            let levels = Levels::of(&profile, &representations)?;
            let noise = f64::from(self.noise.unwrap_or(0.0));
            let mut trials: Vec<Vec<Trial>> = levels.iter().map(|_| Vec::new()).collect();
            if let Some(length) = self.noise.filter(|noise| *noise > 0.0) {
                let clean = operator.synthesize(batch.pursued.codes.clone());
                let noisy = add_noise(clean.clone(), length, &mut rng);
                let told = |_: &[f32]| Noise::of_length(noise);
                let known = Known::of(&profile, &clean, &noisy, &representations, told)?;
                for theorem in Theorem::all() {
                    let measured = trial::run(&theorem, &profile, operator, &known)?;
                    trials.iter_mut().zip(measured).for_each(|(trials, trial)| trials.push(trial));
                }
            }
            for ((levels, report), trials) in levels.into_iter().zip(&batch.pursued.reports).zip(trials) {
                let residual = (2.0 * f64::from(report.data_term)).sqrt();
                let certificate = Certificate::new(&profile, levels, residual, noise, &Theorem::all());
                certified.push(Certified { certificate, trials });
            }
            Ok(())
        })?;
        if self.json {
            return output::print_json(&self.document(&profile, &signals, &certified));
        }
        output::print(&text(&profile, &signals, &certified, self.noise))
    }

    fn document(&self, profile: &ModelProfile, signals: &Signals, certified: &[Certified]) -> Value {
        let dictionary = |own: &crate::theory::DictionaryProfile| {
            json!({
                "coherence": own.mutual(),
                "welch_bound": own.welch,
                "min_norm": own.min_norm(),
                "max_norm": own.max_norm(),
                "stripe_radius": own.radius,
                "uniqueness_limit": Some(own.uniqueness_limit()).filter(|limit| limit.is_finite()),
            })
        };
        json!({
            "model": self.input.model.display().to_string(),
            "signals": signals.len(),
            "source": signals.source(),
            "skipped": signals.skipped(),
            "pursuit": self.pursuit.name(),
            "noise": self.noise,
            "device": self.input.device.name(),
            "own": profile.own.iter().map(dictionary).collect::<Value>(),
            "effective": profile.effective.iter().map(dictionary).collect::<Value>(),
            "certificates": certified.iter().map(document_of).collect::<Value>(),
        })
    }
}

fn document_of(certified: &Certified) -> Value {
    let mut document = certified.certificate.json();
    for (index, trial) in certified.trials.iter().enumerate() {
        document["theorems"][index]["measured"] = json!(trial.errors);
        let norms = certified.certificate.levels.layers.iter().map(|level| level.norm);
        document["theorems"][index]["layers"] =
            trial.promise.layers.iter().zip(norms).map(|(bound, norm)| bound_json(bound, norm)).collect();
    }
    document
}

/// The certificates of all signals as two tables and the reasons.
fn text(profile: &ModelProfile, signals: &Signals, certified: &[Certified], noise: Option<f32>) -> String {
    let count = certified.len();
    let cells = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<String>>();
    let limit = |limit: f64| if limit.is_finite() { number(limit) } else { "∞".into() };
    let mut layers = vec![cells(&[
        "layer",
        "own stripe",
        "limit",
        "effective stripe",
        "limit",
        "only one as sparse",
        "within E",
        "vacuous",
    ])];
    for index in 0..profile.depth() {
        let level = |certified: &Certified| certified.certificate.levels.layers[index].clone();
        let most = |value: fn(&crate::theory::LayerLevels) -> usize| {
            certified.iter().map(|certified| value(&level(certified))).max().unwrap_or(0).to_string()
        };
        let unique = |certified: &&Certified| {
            certified.certificate.uniqueness[index] != crate::theory::certificate::Uniqueness::Unproven
        };
        let bounds: Vec<(&Result<Bound, Unmet>, f64)> = certified
            .iter()
            .map(|certified| (&certified.certificate.stability[index], level(certified).norm))
            .collect();
        let (within, vacuous) = described(&bounds);
        layers.push(vec![
            (index + 1).to_string(),
            most(|level| level.own_stripe),
            limit(profile.own[index].uniqueness_limit()),
            most(|level| level.effective_stripe),
            limit(profile.effective[index].uniqueness_limit()),
            format!("{} of {count}", certified.iter().filter(unique).count()),
            within,
            vacuous,
        ]);
    }
    let measured_too = noise.is_some_and(|noise| noise > 0.0);
    let mut heading = cells(&["theorem", "holds", "noise radius"]);
    heading.extend((1..=profile.depth()).map(|layer| format!("γ_{layer} within")));
    heading.push("vacuous".into());
    if measured_too {
        heading.extend((1..=profile.depth()).map(|layer| format!("γ_{layer} measured")));
    }
    let (mut rows, mut reasons) = (vec![heading], Vec::new());
    for (index, theorem) in Theorem::all().iter().enumerate() {
        let reports: Vec<_> = certified.iter().map(|certified| &certified.certificate.theorems[index]).collect();
        let radii: Vec<f64> = reports.iter().filter_map(|report| report.radius).collect();
        let holds = reports.iter().filter(|report| report.promise.holds()).count();
        let mut row =
            vec![theorem.name().to_owned(), format!("{holds} of {count}"), median(&radii).map_or("–".into(), limit)];
        let promise = |place: usize| match certified[place].trials.get(index) {
            Some(trial) => &trial.promise,
            None => &certified[place].certificate.theorems[index].promise,
        };
        let mut all_vacuous = 0;
        for layer in 0..profile.depth() {
            let bounds: Vec<_> = (0..count)
                .map(|place| (&promise(place).layers[layer], certified[place].certificate.levels.layers[layer].norm))
                .collect();
            let (within, _) = described(&bounds);
            all_vacuous +=
                bounds.iter().filter(|(bound, norm)| bound.as_ref().is_ok_and(|bound| bound.is_vacuous(*norm))).count();
            row.push(within);
        }
        row.push(if holds == 0 { "–".into() } else { format!("{all_vacuous} of {}", holds * profile.depth()) });
        if measured_too {
            for layer in 0..profile.depth() {
                let errors: Vec<f64> = certified
                    .iter()
                    .filter_map(|certified| Some(certified.trials.get(index)?.errors.as_ref()?[layer].global))
                    .collect();
                row.push(median(&errors).map_or("–".into(), number));
            }
        }
        rows.push(row);
        if let Some(unmet) = reports.iter().find_map(|report| report.promise.unmet()) {
            reasons.push(format!("  {}: {unmet}", theorem.name()));
        }
    }
    let mut text = format!(
        "certified {}, E = {}\n{}\n\n{}\n  (medians over the signals that have a number; limits are ½(1 + 1/μ))",
        signals.describe(),
        noise.map_or("0".into(), |noise| number(noise.into())),
        table(&layers),
        table(&rows)
    );
    if !reasons.is_empty() {
        text.push_str(&format!(
            "\n\nno guarantee, for the first of {} that has none\n{}",
            counted(count, "signal"),
            reasons.join("\n")
        ));
    }
    text
}

/// The median of what is promised, and how much of it is vacuous.
fn described(bounds: &[(&Result<Bound, Unmet>, f64)]) -> (String, String) {
    let kept: Vec<(f64, bool)> = bounds
        .iter()
        .filter_map(|(bound, norm)| bound.as_ref().ok().map(|bound| (bound.global, bound.is_vacuous(*norm))))
        .collect();
    let values: Vec<f64> = kept.iter().map(|(value, _)| *value).collect();
    match median(&values) {
        None => ("no guarantee".into(), "–".into()),
        Some(value) => {
            let vacuous = kept.iter().filter(|(_, vacuous)| *vacuous).count();
            (number(value), format!("{vacuous} of {}", kept.len()))
        }
    }
}
