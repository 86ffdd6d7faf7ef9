//! `mlcsc certify`: what is proven about codes.

use super::coding::{Batch, Chosen, Coder, CodingArgs, LambdaArgs, PursuitArgs, SolverArgs};
use super::data::{InputArgs, Signals};
use super::output::{counted, number, table};
use super::{flags, interrupt, output};
use crate::error::{Error, Result};
use crate::evaluate::trial::{self, Trial, TrialSignal};
use crate::kernels::sparse::to_host;
use crate::model::Operator;
use crate::model::normalization::Normalizer;
use crate::model::sample::{add_noise, generator};
use crate::pursuit::PursuitName;
use crate::theory::certificate::{Certificate, Uniqueness, median};
use crate::theory::{
    Bound, ColumnPair, DictionaryProfile, LayerLevels, Levels, ModelProfile, Noise, Promise, Theorem, Unmet,
};
use burn::tensor::Tensor;
use clap::Args;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How an interruption leaves things.
const UNFINISHED: &str = "nothing was certified";

/// Code signals and say what is proven about their codes
///
/// Of every representation γ_i found: whether it is provably the only one as sparse, and how far those of a signal within --noise
/// of the coded one can be from it at most; where the residual exceeds --noise there may be no such signal, and that is said. Of every
/// theorem: the noise within which it holds for such representations, and the error that it promises in every layer. Theorems speak
/// of the reconstruction with fresh noise, not of the noise in the data: with --noise, noise of that length is added to the
/// reconstructions, each theorem's own pursuit is run, told the noise's length and then its length on every patch as well, and the
/// errors are measured. A promise that the zero code would keep is called vacuous. Of every dictionary: its coherence, the two columns
/// that have it, copies and zero columns. Numbers are rounded so that what is stated is true of the model's filters as they are.
/// Units are those of the signals after the model's normalisation; atoms are counted from 0.
#[derive(Debug, Args)]
pub(super) struct CertifyArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Length E ≥ 0 of the noise; omp and projection stop at residuals of that length
    #[arg(long, value_name = "E")]
    noise: Option<f32>,
    /// The pursuit, as of `mlcsc encode`
    #[arg(long, value_name = "NAME", default_value = "bp", value_parser = flags::names::<PursuitName>())]
    pursuit: PursuitName,
    /// Most non-zeros of γ_L for omp and projection
    #[arg(long, value_name = "K")]
    nonzeros: Option<usize>,
    /// Most non-zeros in a stripe of γ_1,…,γ_L for projection
    #[arg(long, value_name = "N1,…,NL", value_delimiter = ',')]
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

/// One signal's certificate, with what was measured.
struct Certified {
    certificate: Certificate,
    drawn: Option<Drawn>,
}

/// Noise that was drawn and added to a reconstruction.
struct Drawn {
    noise: Noise,
    /// For every theorem, told no more than the length.
    of_length: Vec<Trial>,
    /// For every theorem, told the length on every patch.
    of_patches: Vec<Trial>,
}

/// Certifies batch by batch.
struct Certifier<'a> {
    profile: &'a ModelProfile,
    normalizer: Normalizer,
    /// Length of the noise.
    noise: f32,
    rng: ChaCha8Rng,
    certified: Vec<Certified>,
}

impl Certifier<'_> {
    fn add(&mut self, operator: &Operator, batch: Batch) -> Result<()> {
        let Batch { signals, pursued, .. } = batch;
        let representations = operator.propagate(pursued.codes.clone());
        let levels = Levels::of(self.profile, &representations)?;
        let drawn: Vec<Option<Drawn>> = match self.noise > 0.0 {
            true => self.draw(operator, &pursued.codes, &representations)?.into_iter().map(Some).collect(),
            false => levels.iter().map(|_| None).collect(),
        };
        let normalised = to_host(self.normalizer.apply(signals).0);
        let normalised = normalised.chunks_exact(operator.signal().len());
        let codes = to_host(pursued.codes);
        let codes = codes.chunks_exact(operator.code().len());
        for ((levels, drawn), (signal, code)) in levels.into_iter().zip(drawn).zip(normalised.zip(codes)) {
            interrupt::check(UNFINISHED)?;
            let residual = self.profile.distance(signal, code);
            let certificate = Certificate::new(self.profile, levels, residual, self.noise.into(), &Theorem::all())?;
            self.certified.push(Certified { certificate, drawn });
        }
        Ok(())
    }

    /// Adds noise to the reconstructions and runs every theorem's pursuit, told its length and then its length on every patch as well.
    fn draw(&mut self, operator: &Operator, codes: &Tensor<4>, representations: &[Tensor<4>]) -> Result<Vec<Drawn>> {
        let (profile, length) = (self.profile, self.noise);
        let noisy = add_noise(operator.synthesize(codes.clone()), length, &mut self.rng);
        let of_length = TrialSignal::of(profile, &noisy, representations, |_| Noise::of_length(length.into()))?;
        let measured = |noise: &[f32]| Noise::measured(profile.geometry(), noise);
        let of_patches = TrialSignal::of(profile, &noisy, representations, measured)?;
        let mut drawn: Vec<Drawn> = of_patches
            .iter()
            .map(|known| Drawn { noise: known.noise, of_length: Vec::new(), of_patches: Vec::new() })
            .collect();
        for theorem in Theorem::all() {
            let run = |known: &[TrialSignal]| {
                let watched = trial::run_watched(&theorem, profile, operator, known, &interrupt::Unseen);
                interrupt::named(watched, UNFINISHED)
            };
            let trials = run(&of_length)?.into_iter().zip(run(&of_patches)?);
            for (drawn, (of_length, of_patches)) in drawn.iter_mut().zip(trials) {
                drawn.of_length.push(of_length);
                drawn.of_patches.push(of_patches);
            }
        }
        Ok(drawn)
    }
}

/// What theorems speak of.
const CONCERN: &str = "theorems speak of each reconstruction with fresh noise, not of the noise in the data";

impl CertifyArgs {
    fn coding(&self) -> CodingArgs {
        let greedy = self.pursuit.is_greedy() || self.pursuit == PursuitName::Projection;
        CodingArgs {
            pursuit: PursuitArgs {
                name: Some(Chosen::Pursuit(self.pursuit)),
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
        let signals = self.input.signals_for(&model)?;
        let settings = coding.settings(defaults, signals.len())?;
        let shape = signals.shape();
        let coder = Coder::new(model.clone(), shape, &signals.source(), settings)?;
        let profile = ModelProfile::new(&model, shape)?;
        let mut certifier = Certifier {
            profile: &profile,
            normalizer: model.config().normalizer(),
            noise: self.noise.unwrap_or(0.0),
            rng: generator(self.seed),
            certified: Vec::with_capacity(signals.len()),
        };
        let coded = coder.run(&signals, |batch| certifier.add(coder.operator(), batch))?;
        let certified = certifier.certified;
        if self.json {
            let mut document = self.document(&profile, &signals, &certified);
            document["codes"] = json!(coder.told_way(&coded.reports));
            document["not_converged"] = coder.not_converged_json(&coded.reports);
            document["warning"] = json!(coder.warning(&coded));
            return output::print_json(&document);
        }
        let way = coder.told_way(&coded.reports);
        let mut text = text(&profile, &signals, &way, &certified, self.noise);
        if let Some(line) = coder.not_converged(&coded) {
            text.push_str(&format!("\n\n{line}"));
        }
        output::print(&text)
    }

    fn document(&self, profile: &ModelProfile, signals: &Signals, certified: &[Certified]) -> Value {
        json!({
            "model": self.input.model.display().to_string(),
            "signals": signals.len(),
            "source": signals.source(),
            "skipped": signals.skipped(),
            "pursuit": self.pursuit,
            "noise": self.noise,
            "device": self.input.device.name(),
            "precision": crate::device::precision(),
            "theorems_concern": CONCERN,
            "own": dictionaries_json(profile, &profile.own),
            "effective": dictionaries_json(profile, &profile.effective),
            "certificates": certified.iter().map(document_of).collect::<Value>(),
        })
    }
}

fn document_of(certified: &Certified) -> Value {
    let mut document = certified.certificate.json();
    document["fresh_noise"] = json!(certified.drawn.as_ref().map(|drawn| drawn.noise));
    let Some(drawn) = &certified.drawn else { return document };
    for (index, (of_length, of_patches)) in drawn.of_length.iter().zip(&drawn.of_patches).enumerate() {
        let theorem = &mut document["theorems"][index];
        measured_json(theorem, of_length);
        let mut known = certified.certificate.promise_json(&of_patches.promise);
        measured_json(&mut known, of_patches);
        theorem["known_patches"] = known;
    }
    document
}

/// Errors, or why there are none.
fn measured_json(document: &mut Value, trial: &Trial) {
    document["measured"] = json!(trial.errors.as_ref().ok());
    if let Err(reason) = &trial.errors {
        document["unmeasured"] = json!(reason.to_string());
    }
    document["gap_missed"] = json!(trial.gap_missed);
}

fn dictionaries_json(profile: &ModelProfile, dictionaries: &[DictionaryProfile]) -> Value {
    let of_layer = |(index, dictionary): (usize, &DictionaryProfile)| {
        let pair =
            |pair: &ColumnPair| json!({ "atoms": pair.atoms, "positions": pair.positions, "shift": shift(pair) });
        let zero: Vec<Value> = zero_atoms(profile, dictionary, index)
            .into_iter()
            .map(|(atom, [columns, all])| json!({ "atom": atom, "columns": columns, "of": all }))
            .collect();
        json!({
            "coherence": dictionary.mutual(),
            "attained_by": dictionary.coherence.attained().as_ref().map(pair),
            "copies": {
                "pairs": dictionary.coherence.copies_count(),
                "named": dictionary.coherence.copies().iter().map(pair).collect::<Vec<Value>>(),
            },
            "zero_columns": zero,
            "welch_bound": dictionary.welch,
            "min_norm": dictionary.min_norm(),
            "max_norm": dictionary.max_norm(),
            "stripe_radius": dictionary.radius,
            "uniqueness_limit": Some(dictionary.uniqueness_limit()).filter(|limit| limit.is_finite()),
        })
    };
    dictionaries.iter().enumerate().map(of_layer).collect()
}

/// Rows and columns from the first to the second.
fn shift(pair: &ColumnPair) -> [isize; 2] {
    let [first, second] = pair.positions;
    std::array::from_fn(|axis| second[axis] as isize - first[axis] as isize)
}

/// Atoms with columns that are zero: how many of how many.
fn zero_atoms(profile: &ModelProfile, dictionary: &DictionaryProfile, index: usize) -> BTreeMap<usize, [usize; 2]> {
    let code = profile.geometry().layers()[index].code;
    let positions = code.height * code.width;
    let mut atoms = BTreeMap::new();
    for place in dictionary.zero_columns() {
        atoms.entry(place / positions).or_insert([0, positions])[0] += 1;
    }
    atoms
}

/// The certificates of all signals as tables, the reasons where there is no bound, and what else has to be known.
fn text(profile: &ModelProfile, signals: &Signals, way: &str, certified: &[Certified], noise: Option<f32>) -> String {
    let count = certified.len();
    let mut reasons = Vec::new();
    let mut text = format!(
        "certified {}, E = {}\n  of their codes by {way}\n{}\n  (limits are ½(1 + 1/μ))\n\n{}",
        signals.describe(),
        noise.map_or("0, no --noise being stated".into(), |noise| number(noise.into())),
        table(&layers(profile, certified, &mut reasons)),
        table(&dictionaries(profile)),
    );
    let of_length = by_theorem(certified, |certified, index| {
        let report = &certified.certificate.theorems[index];
        let trial = certified.drawn.as_ref().map(|drawn| &drawn.of_length[index]);
        Stated { promise: &report.promise, radius: Some(report.radius), trial }
    });
    text.push_str("\n\nfor any fresh noise of length E\n");
    text.push_str(&table(&theorems(profile, certified, &of_length, &mut reasons)));
    let drawn: Vec<&Drawn> = certified.iter().filter_map(|certified| certified.drawn.as_ref()).collect();
    if !drawn.is_empty() {
        let of_patches = by_theorem(&drawn, |drawn, index| {
            let trial = &drawn.of_patches[index];
            Stated { promise: &trial.promise, radius: None, trial: Some(trial) }
        });
        let middle = |value: fn(&Noise) -> f64| {
            let values: Vec<f64> = drawn.iter().map(|drawn| value(&drawn.noise)).collect();
            median(&values).map_or("–".into(), number)
        };
        text.push_str(&format!(
            "\n\nfor the fresh noise that was drawn: at most {} on a patch of D_1, {} on one of D^({})\n{}",
            middle(|noise| noise.first_patch),
            middle(|noise| noise.effective_patch),
            profile.depth(),
            table(&theorems(profile, certified, &of_patches, &mut reasons))
        ));
    }
    text.push_str(&format!("\n  (medians over the signals that have a number; {CONCERN})"));
    if !reasons.is_empty() {
        text.push_str(&format!(
            "\n\nno guarantee, for the first of {} that has none\n{}",
            counted(count, "signal"),
            reasons.join("\n")
        ));
    }
    let mut notes = faults(profile);
    notes.extend(exceeded(certified, noise));
    notes.extend(gaps_missed(&drawn));
    if !notes.is_empty() {
        text.push_str(&format!("\n\n{}", notes.join("\n")));
    }
    text
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

fn limit(limit: f64) -> String {
    if limit.is_finite() { number(limit) } else { "∞".into() }
}

/// What is certain of the representations found.
fn layers(profile: &ModelProfile, certified: &[Certified], reasons: &mut Vec<String>) -> Vec<Vec<String>> {
    let mut rows = vec![cells(&[
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
        let most = |value: fn(&LayerLevels) -> usize| {
            certified.iter().map(|certified| value(&level(certified))).max().unwrap_or(0).to_string()
        };
        let unique = |certified: &&Certified| certified.certificate.uniqueness[index] != Uniqueness::Unproven;
        let bounds: Vec<(&Result<Bound, Unmet>, f64)> = certified
            .iter()
            .map(|certified| (&certified.certificate.stability[index], level(certified).norm))
            .collect();
        if let Some(unmet) = bounds.iter().find_map(|(bound, _)| bound.as_ref().err()) {
            reasons.push(format!("  within E: {unmet}"));
        }
        let (within, vacuous) = described(&bounds);
        rows.push(vec![
            (index + 1).to_string(),
            most(|level| level.own_stripe),
            limit(profile.own[index].uniqueness_limit()),
            most(|level| level.effective_stripe),
            limit(profile.effective[index].uniqueness_limit()),
            format!("{} of {}", certified.iter().filter(unique).count(), certified.len()),
            within,
            vacuous,
        ]);
    }
    rows
}

/// Every dictionary by its name: D_1 … D_L, then D^(2) … D^(L).
fn named(profile: &ModelProfile) -> impl Iterator<Item = (String, usize, &DictionaryProfile)> {
    let own = profile.own.iter().enumerate().map(|(index, own)| (format!("D_{}", index + 1), index, own));
    let effective = profile.effective.iter().enumerate().skip(1);
    own.chain(effective.map(|(index, effective)| (format!("D^({})", index + 1), index, effective)))
}

/// Coherences, and the columns that have them.
fn dictionaries(profile: &ModelProfile) -> Vec<Vec<String>> {
    let mut rows = vec![cells(&["dictionary", "coherence", "between"])];
    rows.extend(named(profile).map(|(name, _, dictionary)| {
        let pair = dictionary.coherence.attained().map_or("–".into(), |found| pair(profile, &found));
        vec![name, number(dictionary.mutual()), pair]
    }));
    rows
}

/// Two columns by name, with their place where columns are cropped.
fn pair(profile: &ModelProfile, pair: &ColumnPair) -> String {
    let [first, second] = pair.atoms;
    let [down, across] = shift(pair);
    let cropped = profile.geometry().layers().iter().any(|layer| layer.padding != [0, 0]);
    let [row, column] = pair.positions[0];
    let place = if cropped { format!(", the first at [{row}, {column}]") } else { String::new() };
    match [down, across] {
        [0, 0] => format!("atoms {first} and {second}{place}"),
        _ => format!("atoms {first} and {second}, moved by [{down}, {across}]{place}"),
    }
}

/// Copies and zero columns, in a line for each dictionary that has any.
fn faults(profile: &ModelProfile) -> Vec<String> {
    /// Pairs and atoms that are named in a line.
    const NAMED: usize = 3;
    let mut lines = Vec::new();
    for (name, index, dictionary) in named(profile) {
        let (coherence, zero) = (&dictionary.coherence, zero_atoms(profile, dictionary, index));
        let list = |names: Vec<String>, all: usize| {
            let more = if all > NAMED { format!("; {} more", all - NAMED) } else { String::new() };
            format!("{}{more}", names.join("; "))
        };
        if coherence.copies_count() > 0 {
            let names = coherence.copies().iter().take(NAMED).map(|copies| pair(profile, copies)).collect();
            lines.push(format!("copies in {name}: {}", list(names, coherence.copies_count())));
        }
        if !zero.is_empty() {
            let names = zero.iter().take(NAMED).map(|(atom, [columns, all])| match columns == all {
                true => format!("atom {atom}"),
                false => format!("atom {atom} at {columns} of {all} positions"),
            });
            lines.push(format!("zero columns in {name}: {}", list(names.collect(), zero.len())));
        }
    }
    lines
}

/// Says where there may be no signal of which stability could speak.
fn exceeded(certified: &[Certified], noise: Option<f32>) -> Option<String> {
    let noise = noise?;
    let residuals: Vec<f64> = certified
        .iter()
        .filter(|certified| certified.certificate.residual_exceeds_noise())
        .map(|certified| certified.certificate.residual)
        .collect();
    let largest = residuals.iter().copied().reduce(f64::max)?;
    Some(format!(
        "the residual of {} of {} exceeds E = {} (the largest is {}): there may be no signal as sparse within E of them",
        residuals.len(),
        counted(certified.len(), "signal"),
        number(noise.into()),
        number(largest)
    ))
}

/// Says how many of the errors measured may be those of a solver.
fn gaps_missed(drawn: &[&Drawn]) -> Option<String> {
    let trials = || drawn.iter().flat_map(|drawn| drawn.of_length.iter().chain(&drawn.of_patches));
    let measured = trials().filter(|trial| trial.errors.is_ok()).count();
    let missed: Vec<f32> = trials().filter(|trial| trial.errors.is_ok()).filter_map(|trial| trial.gap_missed).collect();
    let worst = missed.iter().copied().reduce(f32::max)?;
    Some(format!(
        "of {} measured {} of basis pursuits that ended above their relative gap of {}, the worst at {}: part of it is the solver's",
        counted(measured, "error"),
        if missed.len() == 1 { "1 is".into() } else { format!("{} are", missed.len()) },
        number(trial::GAP.into()),
        number(worst.into())
    ))
}

/// What a theorem says about one signal.
struct Stated<'a> {
    promise: &'a Promise,
    /// See [`Theorem::radius`]; `None` where it was not asked for.
    radius: Option<Option<f64>>,
    trial: Option<&'a Trial>,
}

/// For every theorem, by its number, what it states of all signals.
fn by_theorem<'a, T>(signals: &'a [T], state: impl Fn(&'a T, usize) -> Stated<'a>) -> Vec<Vec<Stated<'a>>> {
    (0..Theorem::all().len()).map(|index| signals.iter().map(|signal| state(signal, index)).collect()).collect()
}

/// What every theorem says about all signals.
fn theorems(
    profile: &ModelProfile,
    certified: &[Certified],
    stated: &[Vec<Stated>],
    reasons: &mut Vec<String>,
) -> Vec<Vec<String>> {
    let has = |test: fn(&Stated) -> bool| stated.iter().flatten().any(test);
    let (radii, measured) = (has(|stated| stated.radius.is_some()), has(|stated| stated.trial.is_some()));
    let mut heading = cells(&["theorem", "holds"]);
    heading.extend(radii.then(|| "noise radius".into()));
    heading.extend((1..=profile.depth()).map(|layer| format!("γ_{layer} within")));
    heading.push("vacuous".into());
    if measured {
        heading.extend((1..=profile.depth()).map(|layer| format!("γ_{layer} measured")));
    }
    let mut rows = vec![heading];
    for (theorem, stated) in Theorem::all().iter().zip(stated) {
        let holds = stated.iter().filter(|stated| stated.promise.holds()).count();
        let mut row = vec![theorem.name().to_owned(), format!("{holds} of {}", stated.len())];
        if radii {
            let radii: Vec<f64> = stated.iter().filter_map(|stated| stated.radius.flatten()).collect();
            row.push(median(&radii).map_or("–".into(), limit));
        }
        let (mut all_vacuous, mut all) = (0, 0);
        for layer in 0..profile.depth() {
            let bounds: Vec<_> = stated
                .iter()
                .zip(certified)
                .map(|(stated, certified)| {
                    (&stated.promise.layers[layer], certified.certificate.levels.layers[layer].norm)
                })
                .collect();
            let promised = bounds.iter().filter_map(|(bound, norm)| Some((bound.as_ref().ok()?, norm)));
            all += promised.clone().count();
            all_vacuous += promised.filter(|(bound, norm)| bound.is_vacuous(**norm)).count();
            row.push(described(&bounds).0);
        }
        row.push(if all == 0 { "–".into() } else { format!("{all_vacuous} of {all}") });
        if measured {
            let errors = |layer: usize| -> Vec<f64> {
                let errors = stated.iter().filter_map(|stated| stated.trial?.errors.as_ref().ok());
                errors.map(|errors| errors[layer].global).collect()
            };
            row.extend((0..profile.depth()).map(|layer| median(&errors(layer)).map_or("–".into(), number)));
        }
        rows.push(row);
        add_reasons(theorem, stated, radii, reasons);
    }
    rows
}

/// Says why a theorem promises nothing, or why what it promises was not measured. `any_noise` says that no noise was drawn.
fn add_reasons(theorem: &Theorem, stated: &[Stated], any_noise: bool, reasons: &mut Vec<String>) {
    if let Some(unmet) = stated.iter().find_map(|stated| stated.promise.unmet()) {
        let told = if any_noise { "" } else { ", noise drawn" };
        // Said once where it does not depend on what is known of the noise.
        let same = |reason: &String| {
            reason.starts_with(&format!("  {}: ", theorem.name())) && reason.contains(&unmet.condition)
        };
        if !reasons.iter().any(same) {
            reasons.push(format!("  {}{told}: {unmet}", theorem.name()));
        }
    }
    let unmeasured = stated.iter().filter(|stated| stated.promise.holds());
    if let Some(reason) = unmeasured.filter_map(|stated| stated.trial?.errors.as_ref().err()).next() {
        reasons.push(format!("  {}, not measured: {reason}", theorem.name()));
    }
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
