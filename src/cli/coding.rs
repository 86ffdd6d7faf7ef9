//! Coding a set of signals batch by batch, with the flags that say how: what `encode` and `reconstruct` share.

use super::data::{ShardArgs, Signals};
use super::output::{Summary, counted, number};
use super::progress::Progress;
use super::{flags, interrupt, output};
pub use crate::coder::Batch;
pub(super) use crate::coder::default_batch;
use crate::coder::{CoderConfig, default_lambda};
use crate::data::{Part, Places, Shard, check_channels, digest, npy};
use crate::error::{Error, Result};
use crate::evaluate::comparison::Parameters;
use crate::export::arrays;
use crate::export::codes::{FILTERS, digest_of_filters};
use crate::files;
use crate::geometry::SignalShape;
use crate::kernels::sparse::{energy, to_host};
use crate::model::file::CodingDefaults;
use crate::model::{Mlcsc, Operator, OperatorForm};
use crate::names::{IntoEnumIterator, VariantNames};
use crate::pursuit::recipe::check_weights;
use crate::pursuit::{
    Algorithm, BasisPursuitConfig, Convergence, Lambda, PursuitConfig, PursuitName, Recipe, SignalReport, StopReason,
    Threshold,
};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How an interruption leaves things.
const UNFINISHED: &str = "not all signals were coded";

/// How signals are coded, after the model's normalisation. D^(L) is used exactly as it is stored.
#[derive(Debug, Clone, Args)]
pub struct CodingArgs {
    #[command(flatten)]
    pub pursuit: PursuitArgs,
    #[command(flatten)]
    pub lambda: LambdaArgs,
    #[command(flatten)]
    pub solver: SolverArgs,
}

/// Which pursuit, and what only some of them are told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pursuit")]
pub struct PursuitArgs {
    /// The pursuit. bp is the minimum of ½‖y − D^(L)γ‖² + λ‖γ‖₁ by --algorithm; the next four are the same by the algorithm of that
    /// name; encoder is that of an imported auto-encoder. Default: bp, or omp where the model was learned with it, or encoder where it has
    /// one of others
    #[arg(id = "pursuit", long, value_name = "NAME", value_parser = chosen())]
    pub name: Option<Chosen>,
    /// Algorithm for bp, layered-bp and projection --convex. Default: auto
    #[arg(long, value_name = "NAME", value_parser = flags::names::<Algorithm>())]
    pub algorithm: Option<Algorithm>,
    /// Most non-zeros of γ_L for omp, ols and projection; for holistic those of γ_1,…,γ_{L−1}, as far as more than zero is left
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub nonzeros: Option<Vec<usize>>,
    /// Length ≥ 0 of the residual at which omp, ols and projection stop
    #[arg(long, value_name = "E")]
    pub noise: Option<f32>,
    /// Most non-zeros in a stripe of γ_1,…,γ_L for projection. Default: no limits
    #[arg(long, value_name = "N1,…,NL", value_delimiter = ',')]
    pub stripe_limits: Option<Vec<usize>>,
    /// w_1,…,w_L ≥ 0: the penalty of layer i is w_i·λ, for layered-*, ml-* and holistic. Default: 1,…,1 for layered-*, else
    /// 0,…,0,1. The λ of reports and of files is that of the deepest layer, w_L included
    #[arg(long, value_name = "W1,…,WL", value_delimiter = ',')]
    pub layer_weights: Option<Vec<f32>>,
    /// Kind of layered-thresholding. Default: nonnegative where codes are kept so, else soft
    #[arg(
        long,
        value_name = "KIND",
        value_parser = flags::names::<Threshold>(),
        conflicts_with_all = ["nonnegative", "signed"]
    )]
    pub threshold: Option<Threshold>,
    /// Project by basis pursuit, with λ raised until all limits are kept, instead of greedily
    #[arg(long)]
    pub convex: bool,
    /// Replace coefficients of a convex projection by those of least squares on their support
    #[arg(long)]
    pub debias: bool,
}

/// What `--pursuit` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The encoder of an auto-encoder of others.
    Encoder,
    /// A pursuit of ours.
    Pursuit(PursuitName),
}

/// Its name.
const ENCODER: &str = "encoder";

/// Parses a [`Chosen`] by its name; help and errors list all names.
fn chosen() -> impl TypedValueParser<Value = Chosen> {
    let names = PursuitName::VARIANTS.iter().copied().chain([ENCODER]);
    PossibleValuesParser::new(names).try_map(|name| match name.as_str() {
        ENCODER => Ok(Chosen::Encoder),
        name => name.parse().map(Chosen::Pursuit),
    })
}

/// The weight of the ℓ1 norm.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pursuit")]
pub struct LambdaArgs {
    /// λ ≥ 0 of ½‖y − D^(L)γ‖² + λ‖γ‖₁. Default: the model's, else 0.1 of each signal's λ_max
    #[arg(long, value_name = "X", conflicts_with_all = ["lambda_relative", "lambda_file"])]
    pub lambda: Option<f32>,
    /// λ as a fraction in [0, 1] of each signal's λ_max, from which on its code is zero (for layered-*: of every layer's); with
    /// --layer-weights λ_max is that of a weight of 1 on the deepest layer alone
    #[arg(long, value_name = "X", conflicts_with = "lambda_file")]
    pub lambda_relative: Option<f32>,
    /// One λ for each signal, as a .npy file
    #[arg(long, value_name = "F.npy")]
    pub lambda_file: Option<PathBuf>,
    /// Keep γ_L ≥ 0. Default: as the model was trained
    #[arg(long, conflicts_with = "signed")]
    pub nonnegative: bool,
    /// Let γ_L have both signs
    #[arg(long)]
    pub signed: bool,
}

/// How long and by what means.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pursuit")]
pub struct SolverArgs {
    /// How D^(L) is applied
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = flags::names::<OperatorForm>())]
    pub application: OperatorForm,
    /// Relative duality gap at which a signal is finished, in (0, 1). Default: 1e-4
    #[arg(long, value_name = "G")]
    pub gap: Option<f32>,
    /// Iterations after which a signal is finished at the latest. Default: 10000
    #[arg(long, value_name = "N")]
    pub max_iterations: Option<usize>,
    /// Signals coded at once. Default: as many as 64 MiB of codes hold, at most 512
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
}

/// The flags of [`CodingArgs`] that say how codes are found; they make no sense where codes are given.
pub const PURSUIT_FLAGS: [&str; 16] = [
    "pursuit",
    "algorithm",
    "nonzeros",
    "noise",
    "stripe_limits",
    "layer_weights",
    "threshold",
    "convex",
    "debias",
    "lambda",
    "lambda_relative",
    "lambda_file",
    "nonnegative",
    "signed",
    "gap",
    "max_iterations",
];

/// A flag that only some pursuits take.
#[derive(Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "kebab-case", prefix = "--")]
enum Flag {
    Algorithm,
    Nonzeros,
    Noise,
    StripeLimits,
    LayerWeights,
    Threshold,
    Convex,
    Debias,
    Lambda,
    LambdaRelative,
    LambdaFile,
    Nonnegative,
    Signed,
    Gap,
    MaxIterations,
}

impl LambdaArgs {
    /// What was asked for, in words.
    pub fn said(&self) -> String {
        match (self.lambda, self.lambda_relative, &self.lambda_file) {
            (Some(lambda), ..) => lambda.to_string(),
            (_, Some(part), _) => format!("{part} of each signal's λ_max"),
            (_, _, Some(path)) => format!("of each signal in {}", path.display()),
            _ => "the model's, else 0.1 of each signal's λ_max".into(),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Numbers out of range.
    pub fn check(&self) -> Result<()> {
        let given = [self.lambda.map(Lambda::Absolute), self.lambda_relative.map(Lambda::Relative)];
        given.iter().flatten().try_for_each(Lambda::check).map_err(flags::named::<Self>)
    }

    /// λ for `signals` signals, and whether codes are non-negative; what the flags leave open is what the model was trained with.
    ///
    /// # Errors
    /// A λ file that cannot be read, with another number of values than signals, or with values that are no λ.
    pub fn resolve(&self, defaults: &CodingDefaults, signals: usize) -> Result<(Lambda, bool)> {
        let lambda = match (self.lambda, self.lambda_relative, &self.lambda_file) {
            (Some(value), ..) => Lambda::Absolute(value),
            (_, Some(fraction), _) => Lambda::Relative(fraction),
            (.., Some(path)) => read_lambda(path, signals)?,
            _ => default_lambda(defaults),
        };
        Ok((lambda, !self.signed && (self.nonnegative || defaults.nonnegative)))
    }
}

impl SolverArgs {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Numbers out of range.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == Some(0) {
            return Err(Error::parameter("--batch-size", 0, "at least 1"));
        }
        self.basis(false).check().map_err(flags::named::<Self>)
    }

    /// Gap, iterations and sign.
    pub fn basis(&self, nonnegative: bool) -> BasisPursuitConfig {
        let default = BasisPursuitConfig::default();
        BasisPursuitConfig {
            gap: self.gap.unwrap_or(default.gap),
            max_iterations: self.max_iterations.unwrap_or(default.max_iterations),
            nonnegative,
        }
    }
}

impl PursuitArgs {
    /// The pursuit that is asked for, bp where none is.
    pub fn name(&self) -> PursuitName {
        match self.name {
            Some(Chosen::Pursuit(name)) => name,
            _ => PursuitName::BasisPursuit,
        }
    }

    /// Whether an auto-encoder's own encoder is asked for.
    pub fn is_encoder(&self) -> bool {
        self.name == Some(Chosen::Encoder)
    }

    /// Whether codes are found without λ.
    fn is_greedy(&self) -> bool {
        self.name().is_greedy() || (self.name() == PursuitName::Projection && !self.convex)
    }

    /// Whether the pursuit takes a flag.
    fn takes(&self, flag: Flag) -> bool {
        use PursuitName::*;
        if self.is_encoder() {
            return false;
        }
        let (greedy, projects) = (self.is_greedy(), self.name() == Projection);
        match flag {
            Flag::Algorithm => matches!(self.name(), BasisPursuit | LayeredBasisPursuit) || (projects && self.convex),
            Flag::Nonzeros => greedy || self.name() == Holistic,
            Flag::Noise => greedy,
            Flag::StripeLimits | Flag::Convex => projects,
            Flag::Debias => projects && self.convex,
            Flag::LayerWeights => self.name().takes_layer_weights(),
            Flag::Threshold => self.name() == LayeredThresholding,
            Flag::Nonnegative => self.name() != Holistic,
            Flag::Gap | Flag::MaxIterations => !greedy && self.name() != LayeredThresholding,
            Flag::Lambda | Flag::LambdaRelative | Flag::LambdaFile => !greedy,
            Flag::Signed => true,
        }
    }

    /// The pursuits that take a flag.
    fn pursuits_with(&self, flag: Flag) -> String {
        let takes = |name, convex| Self { name: Some(Chosen::Pursuit(name)), convex, ..self.clone() }.takes(flag);
        let called = |name: PursuitName| match takes(name, self.convex) {
            true => Some(name.to_string()),
            false => takes(name, true).then(|| format!("{name} --convex")),
        };
        PursuitName::iter().filter_map(called).collect::<Vec<_>>().join(", ")
    }

    /// The pursuit as flags call it.
    fn called(&self) -> String {
        if self.is_encoder() {
            return format!("--pursuit {ENCODER}");
        }
        let convex = if self.convex && self.takes(Flag::Convex) { " --convex" } else { "" };
        format!("--pursuit {}{convex}", self.name())
    }
}

impl CodingArgs {
    /// Checks all that can be checked before a file is opened.
    ///
    /// # Errors
    /// Numbers out of range; flags that the pursuit does not take; a pursuit that is told too little.
    pub fn check(&self) -> Result<()> {
        let Self { pursuit, lambda, solver } = self;
        lambda.check()?;
        solver.check()?;
        self.refuse_flags()?;
        if let Some(noise) = pursuit.noise.filter(|noise| !(noise.is_finite() && *noise >= 0.0)) {
            return Err(Error::parameter("--noise", noise, "a finite length ≥ 0"));
        }
        if let Some(weights) = &pursuit.layer_weights {
            check_weights(weights).map_err(flags::named::<PursuitArgs>)?;
        }
        let nonzeros = pursuit.nonzeros.as_deref();
        for (flag, values) in [("--nonzeros", nonzeros), ("--stripe-limits", pursuit.stripe_limits.as_deref())] {
            if values.is_some_and(|values| values.contains(&0)) {
                return Err(Error::parameter(flag, 0, "at least 1"));
            }
        }
        let told = nonzeros.is_some() || pursuit.noise.is_some();
        match pursuit.name() {
            PursuitName::Holistic if nonzeros.is_none() => {
                return Err(Error::missing("--nonzeros", "one number for each layer before the deepest"));
            }
            name if name.is_greedy() && !told => {
                return Err(Error::missing("--nonzeros", "a number of non-zeros, at least 1, or --noise"));
            }
            PursuitName::Projection if !told && pursuit.stripe_limits.is_none() => {
                let expected = "one limit for each layer, at least 1, or one of --nonzeros and --noise";
                return Err(Error::missing("--stripe-limits", expected));
            }
            _ => {}
        }
        if pursuit.is_greedy() && nonzeros.is_some_and(|nonzeros| nonzeros.len() != 1) {
            let expected = format!("one number with {}", pursuit.called());
            return Err(Error::parameter("--nonzeros", list(nonzeros.unwrap_or_default()), expected));
        }
        if pursuit.is_encoder() && solver.application != OperatorForm::Auto {
            return Err(Error::parameter(
                "--application",
                solver.application,
                format!("auto with {}", pursuit.called()),
            ));
        }
        if self.descends() && !matches!(solver.application, OperatorForm::Auto | OperatorForm::Gram) {
            let expected = "auto or gram with coordinate-descent";
            return Err(Error::parameter("--application", solver.application, expected));
        }
        Ok(())
    }

    /// The same for an imported auto-encoder, whose own encoder is the default.
    #[must_use]
    pub fn of_imported(&self) -> Self {
        let mut args = self.clone();
        args.pursuit.name = args.pursuit.name.or(Some(Chosen::Encoder));
        args
    }

    /// Whether a flag says what is minimised, or by which means.
    fn says_how(&self) -> bool {
        let Self { pursuit, lambda, solver } = self;
        let of_pursuit = pursuit.name.is_some() || pursuit.algorithm.is_some();
        let of_lambda = lambda.lambda.is_some() || lambda.lambda_relative.is_some() || lambda.lambda_file.is_some();
        of_pursuit || of_lambda || solver.gap.is_some() || solver.max_iterations.is_some()
    }

    /// Whether coordinate descent was asked for.
    fn descends(&self) -> bool {
        let bp = self.pursuit.name() == PursuitName::BasisPursuit;
        self.pursuit.name() == PursuitName::CoordinateDescent
            || (bp && self.pursuit.algorithm == Some(Algorithm::CoordinateDescent))
    }

    /// Flags that only some pursuits take, with the values that they were given.
    fn given(&self) -> [(Flag, Option<String>); 15] {
        let Self { pursuit, lambda, solver } = self;
        let switch = |on: bool| on.then(|| "given".to_owned());
        [
            (Flag::Algorithm, pursuit.algorithm.map(|algorithm| algorithm.to_string())),
            (Flag::Nonzeros, pursuit.nonzeros.as_deref().map(list)),
            (Flag::Noise, pursuit.noise.map(|noise| noise.to_string())),
            (Flag::StripeLimits, pursuit.stripe_limits.as_deref().map(list)),
            (Flag::LayerWeights, pursuit.layer_weights.as_deref().map(list)),
            (Flag::Threshold, pursuit.threshold.map(|threshold| threshold.to_string())),
            (Flag::Convex, switch(pursuit.convex)),
            (Flag::Debias, switch(pursuit.debias)),
            (Flag::Lambda, lambda.lambda.map(|value| value.to_string())),
            (Flag::LambdaRelative, lambda.lambda_relative.map(|value| value.to_string())),
            (Flag::LambdaFile, lambda.lambda_file.as_ref().map(|path| path.display().to_string())),
            (Flag::Nonnegative, switch(lambda.nonnegative)),
            (Flag::Signed, switch(lambda.signed)),
            (Flag::Gap, solver.gap.map(|gap| gap.to_string())),
            (Flag::MaxIterations, solver.max_iterations.map(|iterations| iterations.to_string())),
        ]
    }

    /// Refuses all that says how codes are found, for an auto-encoder that has its own way.
    ///
    /// # Errors
    /// A flag of a pursuit.
    pub fn refuse_all(&self) -> Result<()> {
        let Self { pursuit, solver, .. } = self;
        let name = pursuit.name.filter(|_| !pursuit.is_encoder()).map(|_| pursuit.name().to_string());
        let form = Some(solver.application).filter(|form| *form != OperatorForm::Auto).map(|form| form.to_string());
        let given = self.given().map(|(flag, value)| (flag.to_string(), value));
        let all = [("--pursuit".to_owned(), name), ("--application".to_owned(), form)].into_iter().chain(given);
        match all.into_iter().find_map(|(flag, value)| Some((flag, value?))) {
            Some((flag, value)) => {
                Err(Error::parameter(flag, value, "no such flag: the model's codes are those of its own encoder"))
            }
            None => Ok(()),
        }
    }

    fn refuse_flags(&self) -> Result<()> {
        let (pursuit, given) = (&self.pursuit, self.given());
        for (flag, value) in &given {
            if let Some(value) = value
                && !pursuit.takes(*flag)
            {
                let taken = given.iter().filter(|(flag, _)| pursuit.takes(*flag)).map(|(flag, _)| flag.to_string());
                let taken = taken.collect::<Vec<_>>().join(", ");
                let taken = if pursuit.is_encoder() { "none: --pursuit names another way".into() } else { taken };
                let expected = match pursuit.name {
                    // The default may be the model's own, which is not known yet.
                    None => format!("--pursuit beside it, one of {}", pursuit.pursuits_with(*flag)),
                    Some(_) => format!("no such flag with {}, which takes {taken}", pursuit.called()),
                };
                return Err(Error::parameter(flag.to_string(), value, expected));
            }
        }
        Ok(())
    }

    /// How to code `signals` signals, what the flags leave open being what the model was trained with.
    ///
    /// # Errors
    /// As [`Self::check`] and [`LambdaArgs::resolve`].
    pub fn settings(&self, defaults: CodingDefaults, signals: usize) -> Result<Settings> {
        self.check()?;
        if self.pursuit.is_encoder() {
            let expected = "a pursuit: the model has no encoder that was imported with it";
            return Err(Error::parameter("--pursuit", ENCODER, expected));
        }
        let (lambda, nonnegative) = self.lambda.resolve(&defaults, signals)?;
        let mut args = self.clone();
        if let (Some(nonzeros), false) = (defaults.nonzeros, self.says_how()) {
            args.pursuit.name = Some(Chosen::Pursuit(PursuitName::OrthogonalMatchingPursuit));
            args.pursuit.nonzeros = Some(vec![nonzeros]);
        }
        Ok(Settings { args, lambda, nonnegative })
    }
}

fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// One λ for each of `signals` signals.
fn read_lambda(path: &Path, signals: usize) -> Result<Lambda> {
    let array = npy::read_array(path)?;
    if array.shape != [signals] {
        let expected = format!("[{signals}], one λ for each signal");
        return Err(Error::shape(format!("--lambda-file {}", path.display()), expected, format!("{:?}", array.shape)));
    }
    let lambda = Lambda::PerSignal(array.values);
    lambda.check().map_err(|error| match error {
        Error::Parameter { value, expected, .. } => {
            Error::parameter(format!("--lambda-file {}", path.display()), value, expected)
        }
        other => other,
    })?;
    Ok(lambda)
}

/// Checked settings of a coding.
#[derive(Debug, Clone)]
pub struct Settings {
    args: CodingArgs,
    lambda: Lambda,
    nonnegative: bool,
}

impl Settings {
    /// The same for those of the signals that stand at these places among all.
    fn part(&self, places: &Places) -> Self {
        let lambda = match &self.lambda {
            Lambda::PerSignal(values) => Lambda::PerSignal(places.iter().map(|place| values[place]).collect()),
            other => other.clone(),
        };
        Self { lambda, ..self.clone() }
    }

    /// The pursuit with its penalties, and whether it keeps γ_L non-negative.
    pub fn recipe_for(&self, operator: &Operator) -> (Recipe, bool) {
        (self.recipe(operator), self.keeps_nonnegative())
    }

    /// Whether the pursuit keeps γ_L non-negative: only some can.
    fn keeps_nonnegative(&self) -> bool {
        let args = &self.args.pursuit;
        let can = match args.name() {
            PursuitName::Holistic => false,
            PursuitName::LayeredThresholding => args.threshold.is_none_or(|kind| kind == Threshold::NonNegative),
            _ => true,
        };
        can && self.nonnegative
    }

    fn recipe(&self, operator: &Operator) -> Recipe {
        let args = &self.args.pursuit;
        let holistic = args.name() == PursuitName::Holistic;
        let nonzeros = args.nonzeros.clone().unwrap_or_default();
        let threshold = if self.nonnegative { Threshold::NonNegative } else { Threshold::Soft };
        let parameters = Parameters {
            algorithm: args.algorithm.unwrap_or_default(),
            basis: self.args.solver.basis(self.nonnegative),
            nonzeros: nonzeros.first().copied().filter(|_| !holistic),
            shallower_nonzeros: nonzeros,
            residual: args.noise.unwrap_or(0.0),
            stripe_limits: args.stripe_limits.clone(),
            threshold: args.threshold.unwrap_or(threshold),
            convex: args.convex,
            debias: args.debias,
        };
        Recipe {
            config: parameters.config(args.name(), operator),
            lambda: (!args.is_greedy()).then(|| self.lambda.clone()),
            layer_weights: args.layer_weights.clone(),
        }
    }
}

/// A model ready to code signals of one shape, as flags ask for it.
pub struct Coder {
    coder: crate::coder::Coder,
    settings: Settings,
    setup_seconds: f64,
}

/// What is known after coding.
#[derive(Default)]
pub struct Coded {
    /// One report for each signal.
    pub reports: Vec<SignalReport>,
    /// Seconds from signals in memory to codes.
    pub seconds: f64,
    /// Seconds for what does not depend on single signals.
    pub setup_seconds: f64,
    /// What there is to say of the signals' unit.
    units: Option<String>,
    /// Algorithm and application for each shape of signals.
    ways: Vec<(&'static str, OperatorForm)>,
}

/// Signals of one shape or several, with how they are coded: each shape has an operator of its own.
pub struct Coders {
    model: Mlcsc,
    groups: Vec<Signals>,
    /// Which signals of each group are coded: all, or those of a part.
    ranges: Vec<Range<usize>>,
    settings: Settings,
    first: Coder,
}

impl Coders {
    /// Prepares the first group and checks the others.
    ///
    /// # Errors
    /// As [`Coder::new`], for any of the groups; no group; more parts than batches.
    pub fn new(model: Mlcsc, groups: Vec<Signals>, settings: Settings, shard: &ShardArgs) -> Result<Self> {
        let Some(first) = groups.first() else {
            return Err(Error::parameter("--data", "no signals", "a source that has some"));
        };
        let named = |group: &Signals| match group.file(0) {
            // A picture with other channels may have them from another picture, with colours.
            Some(file) if groups.len() > 1 && group.shape().channels == model.config().signal.channels => {
                file.display().to_string()
            }
            _ => group.source(),
        };
        let mut batch_sizes = Vec::with_capacity(groups.len());
        for group in &groups[1..] {
            let operator = operator(&model, group.shape(), &named(group), settings.args.solver.application)?;
            settings.recipe(&operator).check(&operator).map_err(flags::named::<CodingArgs>)?;
            batch_sizes.push(settings.args.solver.batch_size.unwrap_or_else(|| default_batch(operator.geometry())));
        }
        let first = Coder::new(model.clone(), first.shape(), &named(first), settings.part(first.places()))?;
        batch_sizes.insert(0, first.coder.batch_size());
        let batches: Vec<usize> =
            groups.iter().zip(&batch_sizes).map(|(group, batch)| group.len().div_ceil(*batch)).collect();
        let own = shard.batches(batches.iter().sum())?;
        let mut before = 0;
        let ranges = groups.iter().zip(batches.iter().zip(batch_sizes)).map(|(group, (batches, batch_size))| {
            // Where the part's batches begin and end among the group's.
            let [from, to] =
                [own.start, own.end].map(|batch| (batch.clamp(before, before + batches) - before) * batch_size);
            before += batches;
            from.min(group.len())..to.min(group.len())
        });
        let ranges = ranges.collect();
        Ok(Self { model, groups, ranges, settings, first })
    }

    /// Which signals of each group are coded, and which of all in a row.
    pub fn ranges(&self) -> (&[Range<usize>], Range<usize>) {
        let mut before = 0;
        let mut places = self.ranges.iter().zip(&self.groups).filter_map(|(range, group)| {
            let place = before + range.start..before + range.end;
            before += group.len();
            (!range.is_empty()).then_some(place)
        });
        let first = places.next().unwrap_or(0..0);
        let end = places.last().map_or(first.end, |last| last.end);
        (&self.ranges, first.start..end)
    }

    /// What a part of the codes says of itself; `model` is the model's file.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn part(&self, shard: Shard, model: &Path) -> Result<Part> {
        let lambda = match &self.settings.lambda {
            Lambda::PerSignal(values) => Some(digest(&arrays::little_endian(values))),
            _ => None,
        };
        let (_, signals) = self.ranges();
        Ok(Part { lambda, ..part(shard, model, &self.groups, signals)? })
    }

    /// The model that codes.
    pub fn model(&self) -> &Mlcsc {
        &self.model
    }

    /// The signals, one group for each shape.
    pub fn groups(&self) -> &[Signals] {
        &self.groups
    }

    /// The coder of the first group.
    pub fn first(&self) -> &Coder {
        &self.first
    }

    /// Number of signals that are coded.
    pub fn count(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Codes all groups and calls `visit` with one batch after the other, the number of its group and its coder. Reports come in
    /// the order of the groups. Ctrl-C ends it between two batches.
    ///
    /// # Errors
    /// As [`Coder::run`].
    pub fn run(&self, mut visit: impl FnMut(usize, &Coder, Batch) -> Result<()>) -> Result<Coded> {
        let progress = Progress::new("coding", "signals", self.count() as u64);
        let mut coded = Coded::default();
        for (index, (group, range)) in self.groups.iter().zip(&self.ranges).enumerate() {
            if range.is_empty() {
                continue;
            }
            if index == 0 {
                self.first.code(group, range, &progress, &mut coded, |batch| visit(0, &self.first, batch))?;
                continue;
            }
            let settings = self.settings.part(group.places());
            let coder = Coder::new(self.model.clone(), group.shape(), &group.source(), settings)?;
            coder.code(group, range, &progress, &mut coded, |batch| visit(index, &coder, batch))?;
        }
        Ok(coded)
    }

    /// Results as JSON.
    pub fn json(&self, coded: &Coded, device: &str) -> Value {
        let mut document = self.first.json(coded, device);
        let done = self.groups.iter().zip(&self.ranges).filter(|(_, range)| !range.is_empty());
        let shapes = done.zip(&coded.ways).map(|((group, range), (algorithm, application))| {
            json!({
                "shape": group.shape().to_string(),
                "signals": range.len(),
                "algorithm": algorithm,
                "application": application,
            })
        });
        document["shapes"] = shapes.collect();
        document["source"] = json!(self.groups[0].source());
        document["split"] = json!(self.groups[0].split());
        let layers = || self.first.operator().geometry().layers().iter().map(|layer| layer.code.to_string());
        document["code_shapes"] = json!((self.groups.len() == 1).then(|| layers().collect::<Vec<_>>()));
        document["code_values"] = json!((self.groups.len() == 1).then(|| self.first.operator().code().len()));
        document["skipped"] = json!(self.groups[0].skipped());
        document
    }

    /// The same as text; [`Coder::not_converged`] belongs below it.
    pub fn summary(&self, coded: &Coded, device: &str) -> Summary {
        let mut summary = self.first.summary(
            coded,
            &Signals::describe_all(&self.groups, self.count()),
            self.groups.len() == 1,
            device,
        );
        if self.groups.len() > 1 {
            let done = self.groups.iter().zip(&self.ranges).filter(|(_, range)| !range.is_empty());
            let sizes = done.map(|(group, range)| format!("{} ({})", group.shape(), range.len()));
            summary.row("sizes", sizes.collect::<Vec<_>>().join(", "));
        }
        summary
    }
}

/// What a part of results on some signals, those in `range` of all in a row, says of itself; `model` is the model's file.
///
/// # Errors
/// Files that cannot be read.
pub fn part(shard: Shard, model: &Path, groups: &[Signals], range: Range<usize>) -> Result<Part> {
    let data = groups.iter().map(Signals::fingerprint).collect::<Result<Vec<_>>>()?;
    Ok(Part {
        shard,
        signals: [range.start, range.end],
        of_signals: groups.iter().map(Signals::len).sum(),
        models: vec![digest(&files::read_whole(model)?)],
        data: data.join(", "),
        lambda: None,
        settings: Value::Null,
    })
}

/// How many signals ended above the gap that was asked for, as a line that belongs at the end; `None` where all have it. `noun`
/// is what one of them is called.
pub fn not_converged(tally: &Convergence, basis: &BasisPursuitConfig, noun: &str) -> Option<String> {
    not_converged_by(tally, basis, noun, ["--gap", "--max-iterations"])
}

/// What is said of ml-ista and ml-fista where codes stopped moving with a larger gap than rounding leaves.
const NO_MINIMUM: &str =
    "they had stopped moving beside the minimum, as ml-ista and ml-fista do: --pursuit ml-bp finds it";

/// Whether [`NO_MINIMUM`] is to be said of codes of one of the two.
fn ends_elsewhere(tally: &Convergence) -> bool {
    tally.used_up == 0 && tally.worst_gap > 0.01
}

/// [`not_converged`] of ml-ista and ml-fista, which a larger gap would not mend.
pub fn not_converged_layered(tally: &Convergence, basis: &BasisPursuitConfig, noun: &str) -> Option<String> {
    match ends_elsewhere(tally) {
        true => Some(above_gap(tally, basis, noun, NO_MINIMUM)),
        false => not_converged(tally, basis, noun),
    }
}

/// [`not_converged`] where gap and iterations are set by something else than these flags, of those names.
pub fn not_converged_by(
    tally: &Convergence,
    basis: &BasisPursuitConfig,
    noun: &str,
    [gap_name, iterations_name]: [&str; 2],
) -> Option<String> {
    if tally.above == 0 {
        return None;
    }
    let raise = match tally.used_up {
        0 => format!("they had stopped moving, more iterations would not have helped: raise {gap_name}"),
        _ => format!("raise {iterations_name} ({}) or {gap_name}", basis.max_iterations),
    };
    Some(above_gap(tally, basis, noun, &raise))
}

/// How many are above the gap, and what to do about it.
fn above_gap(tally: &Convergence, basis: &BasisPursuitConfig, noun: &str, advice: &str) -> String {
    let (of, gap, worst) = (counted(tally.of, noun), number(basis.gap.into()), number(tally.worst_gap.into()));
    format!(
        "not converged: {} of {of} above the relative gap of {gap} asked for, the worst at {worst}; {advice}",
        tally.above
    )
}

/// What is said where every code is zero.
pub const ALL_ZERO: &str = "every code is zero";

/// [`ALL_ZERO`] and why, if it is so.
pub fn all_zero(reports: &[SignalReport]) -> Option<String> {
    let is_empty = |report: &SignalReport| report.nonzeros == 0;
    if reports.is_empty() || !reports.iter().all(is_empty) {
        return None;
    }
    let lambda = reports.iter().map(|report| report.lambda).fold(f32::INFINITY, f32::min);
    Some(match (reports.iter().all(|report| report.data_term == 0.0), lambda > 0.0) {
        (true, _) => format!("{ALL_ZERO}, as every signal is after the model's normalisation"),
        (_, true) => {
            format!("{ALL_ZERO}: λ, {} or more, is too large for every signal; lower it", number(lambda.into()))
        }
        (_, false) => ALL_ZERO.into(),
    })
}

/// The same for JSON: `null` where all have their gap.
pub fn not_converged_json(tally: &Convergence, basis: &BasisPursuitConfig) -> Value {
    if tally.above == 0 {
        return Value::Null;
    }
    let mut document = json!(tally);
    document["gap"] = json!(basis.gap);
    document["max_iterations"] = json!(basis.max_iterations);
    document
}

/// Part of the size of signals below which a model's λ was made for other units.
const OTHER_UNITS: f64 = 4e-3;

impl Coder {
    /// Prepares everything that does not depend on single signals; `source` is named where they don't fit the model.
    ///
    /// # Errors
    /// Signals that the model cannot take; an application that their shape does not admit; numbers that don't fit the model's
    /// layers and codes.
    pub fn new(model: Mlcsc, signal: SignalShape, source: &str, settings: Settings) -> Result<Self> {
        let start = Instant::now();
        let solver = &settings.args.solver;
        let operator = operator(&model, signal, source, solver.application)?;
        let recipe = settings.recipe(&operator);
        let config = CoderConfig { recipe, application: solver.application, batch_size: solver.batch_size };
        let coder = config.init_on(model, operator).map_err(flags::named::<CodingArgs>)?;
        let setup_seconds = start.elapsed().as_secs_f64();
        Ok(Self { coder, settings, setup_seconds })
    }

    /// The operator that codes are found with.
    pub fn operator(&self) -> &Operator {
        self.coder.operator()
    }

    /// Codes all signals and calls `visit` with one batch after the other. Ctrl-C ends it at once.
    ///
    /// # Errors
    /// Signals that cannot be read; an interruption; errors of `visit`.
    pub fn run(&self, signals: &Signals, visit: impl FnMut(Batch) -> Result<()>) -> Result<Coded> {
        let progress = Progress::new("coding", "signals", signals.len() as u64);
        let mut coded = Coded::default();
        self.code(signals, &(0..signals.len()), &progress, &mut coded, visit)?;
        Ok(coded)
    }

    fn code(
        &self,
        signals: &Signals,
        range: &Range<usize>,
        progress: &Progress,
        coded: &mut Coded,
        mut visit: impl FnMut(Batch) -> Result<()>,
    ) -> Result<()> {
        let batch_size = self.coder.batch_size();
        coded.setup_seconds += self.setup_seconds;
        coded.ways.push((self.coder.algorithm(), self.operator().application()));
        let device = self.operator().device();
        interrupt::watch();
        for start in range.clone().step_by(batch_size) {
            interrupt::check(UNFINISHED)?;
            let size = batch_size.min(range.end - start);
            let values = signals.read(start, size)?;
            let read = Tensor::from_data(TensorData::new(values, signals.shape().batched(size)), &device);
            if coded.reports.is_empty() {
                coded.units = self.other_units(&read);
                coded.units.iter().for_each(|told| output::complain(&format!("warning: {told}")));
            }
            let clock = Instant::now();
            let batch = interrupt::named(self.coder.encode_batch(read, start, Some(progress)), UNFINISHED)?;
            coded.seconds += clock.elapsed().as_secs_f64();
            coded.reports.extend_from_slice(&batch.pursued.reports);
            visit(batch)?;
            progress.advance(size as u64);
        }
        // An interruption that comes now is too late to matter: everything is coded.
        Ok(())
    }

    /// What there is to say where signals have another unit than those that the model's λ was made for. It takes less than what training
    /// remarks on: a λ that was steered to many non-zeros is meant.
    fn other_units(&self, signals: &Tensor<4>) -> Option<String> {
        let given = self.settings.args.lambda.lambda;
        let &Lambda::Absolute(lambda) = self.coder.recipe().lambda.as_ref()? else { return None };
        if given.is_some() || lambda <= 0.0 {
            return None;
        }
        let (normalized, _) = self.coder.model().config().normalizer().apply(signals.clone());
        let values = to_host(normalized);
        let len = self.operator().signal().len().max(1);
        // That of the median signal: a few that are far larger than all others change nothing for them.
        let mut sizes: Vec<f64> = values.chunks_exact(len).map(|signal| (energy(signal) / len as f64).sqrt()).collect();
        if sizes.is_empty() {
            return None;
        }
        let middle = (sizes.len() - 1) / 2;
        let size = *sizes.select_nth_unstable_by(middle, f64::total_cmp).1;
        (f64::from(lambda) < OTHER_UNITS * size).then(|| {
            let [lambda, size] = [lambda.into(), size].map(number);
            format!(
                "the model's λ = {lambda} is next to nothing beside these signals, whose root mean square is {size}: codes will be dense, \
                 and take long; --lambda-relative 0.1 suits every unit"
            )
        })
    }

    /// Gap, iterations and sign.
    pub fn basis(&self) -> BasisPursuitConfig {
        self.settings.args.solver.basis(self.settings.nonnegative)
    }

    /// The line on signals that ended above the gap asked for, if there are any, and on codes that are all zero.
    pub fn not_converged(&self, coded: &Coded) -> Option<String> {
        let tally = Convergence::of(&coded.reports);
        let line = if self.is_layered_gradient() { not_converged_layered } else { not_converged };
        let above = line(&tally, &self.basis(), "signal").map(|told| match self.unbounded() {
            // They had stopped moving.
            Some(reason) if tally.used_up == 0 => {
                let (above, of) = (tally.above, counted(tally.of, "signal"));
                format!("not certified: {above} of {of}; {reason}, so that codes may be as good as there are")
            }
            Some(reason) => format!("{told}; {reason}"),
            None => told,
        });
        let lines = [above, self.warning(coded).map(|line| format!("warning: {line}"))];
        lines.into_iter().flatten().reduce(|lines, line| format!("{lines}\n{line}"))
    }

    /// [`Self::not_converged`] for JSON: `null` where all have their gap.
    pub fn not_converged_json(&self, reports: &[SignalReport]) -> Value {
        let tally = Convergence::of(reports);
        let mut document = not_converged_json(&tally, &self.basis());
        let beside = (self.is_layered_gradient() && ends_elsewhere(&tally)).then_some(NO_MINIMUM);
        if let Some(reason) = self.unbounded().or(beside).filter(|_| !document.is_null()) {
            document["reason"] = json!(reason);
        }
        document
    }

    /// Whether the pursuit is ml-ista or ml-fista.
    fn is_layered_gradient(&self) -> bool {
        matches!(self.coder.recipe().config, PursuitConfig::MultiLayerProximalGradient(_))
    }

    /// Why no duality gap can become small, where that is so: it is measured at what the deepest layer's penalty allows.
    fn unbounded(&self) -> Option<&'static str> {
        let recipe = self.coder.recipe();
        let is_deepest_free =
            recipe.layer_weights.as_ref().and_then(|weights| weights.last()).is_some_and(|weight| *weight == 0.0);
        let is_free = match &recipe.lambda {
            Some(Lambda::Absolute(lambda) | Lambda::Relative(lambda)) => *lambda == 0.0,
            Some(Lambda::PerSignal(all)) => all.iter().all(|lambda| *lambda == 0.0),
            None => false,
        };
        match is_free {
            true => Some("at λ = 0 a duality gap says nothing"),
            _ if is_deepest_free => Some("without a penalty on the deepest layer a duality gap says nothing"),
            _ => None,
        }
    }

    /// What must not be overlooked: that codes are all zero, or have more non-zeros than they should.
    pub fn warning(&self, coded: &Coded) -> Option<String> {
        let is_over = |report: &&SignalReport| report.stop == StopReason::Exhausted;
        let over = match self.settings.args.pursuit.name() {
            PursuitName::Holistic => coded.reports.iter().filter(is_over).count(),
            _ => 0,
        };
        let over = (over > 0).then(|| {
            let of = counted(coded.reports.len(), "signal");
            format!("{over} of {of} have more non-zeros in the shallower layers than --nonzeros: with fewer nothing but zero would be left")
        });
        all_zero(&coded.reports).or(over)
    }

    /// What the codes of a file were computed with.
    pub fn describe(&self, source: &str) -> Value {
        let lambda = match &self.coder.recipe().lambda {
            Some(Lambda::PerSignal(_)) => json!("per-signal"),
            lambda => json!(lambda),
        };
        let basis = self.basis();
        json!({
            "format_version": 1,
            "model": self.coder.model().config(),
            FILTERS: digest_of_filters(self.coder.model()),
            "signals": source,
            "pursuit": {
                "name": self.settings.args.pursuit.name(),
                "parameters": self.coder.recipe().config,
                "layer_weights": self.coder.recipe().layer_weights,
                "algorithm": self.coder.algorithm(),
                "application": self.operator().application(),
                "lambda": lambda,
                "gap": basis.gap,
                "max_iterations": basis.max_iterations,
                "nonnegative": self.settings.keeps_nonnegative(),
            },
        })
    }

    /// Whether the pursuit is told a duality gap to reach.
    fn has_gap(&self) -> bool {
        let args = &self.settings.args.pursuit;
        args.takes(Flag::Gap) && args.name() != PursuitName::Holistic
    }

    /// Results as JSON; of a pursuit without a duality gap what is said of that is `null`.
    pub fn json(&self, coded: &Coded, device: &str) -> Value {
        let reports = &coded.reports;
        let largest_gap = reports.iter().map(|report| report.relative_gap).fold(0.0, f32::max);
        let has_gap = self.has_gap();
        json!({
            "signals": reports.len(),
            "seconds": coded.seconds,
            "setup_seconds": coded.setup_seconds,
            "signals_per_second": reports.len() as f64 / coded.seconds,
            "mean_lambda": mean(reports, |report| report.lambda.into()),
            "mean_objective": mean(reports, |report| report.objective.into()),
            "mean_data_term": mean(reports, |report| report.data_term.into()),
            "mean_nonzeros": mean(reports, |report| report.nonzeros as f64),
            "mean_iterations": mean(reports, |report| report.iterations as f64),
            "mean_gap": has_gap.then(|| mean(reports, |report| report.relative_gap.into())),
            "max_gap": has_gap.then_some(largest_gap),
            "converged": has_gap.then(|| converged(reports)),
            "not_converged": self.not_converged_json(reports),
            "handed_over": handed_over(reports).into_iter().map(|(to, count)| (to, json!(count))).collect::<Value>(),
            "stops": stops(reports).into_iter().map(|(stop, count)| (stop, json!(count))).collect::<Value>(),
            "nonnegative": self.settings.keeps_nonnegative(),
            "pursuit": self.settings.args.pursuit.name(),
            "layer_weights": self.coder.recipe().layer_weights,
            "algorithm": self.coder.algorithm(),
            "application": self.operator().application(),
            "device": device,
            "precision": crate::device::precision(),
            "warning": self.warning(coded),
            "other_units": coded.units,
        })
    }

    /// The weights λ of the codes, where there are any.
    fn told_lambda(&self, reports: &[SignalReport]) -> Option<String> {
        let lambda = self.coder.recipe().lambda.as_ref()?;
        // Reports have that of the deepest layer, its weight included.
        let mean = number(mean(reports, |report| report.lambda.into()));
        let (told, mean) = match lambda {
            Lambda::Absolute(value) => (number((*value).into()), None),
            Lambda::Relative(fraction) => (format!("{} of λ_max", number((*fraction).into())), Some(mean)),
            Lambda::PerSignal(_) => ("per signal".into(), Some(mean)),
        };
        Some(match (self.coder.recipe().layer_weights.as_deref(), mean) {
            (Some(weights), mean) => {
                let mean = mean.map_or(String::new(), |mean| format!(", there mean {mean}"));
                format!("{told} times {} from the first layer to the deepest{mean}", list(weights))
            }
            (None, Some(mean)) => format!("{told}, mean {mean}"),
            (None, None) => told,
        })
    }

    /// How codes were found, in a few words.
    pub fn told_way(&self, reports: &[SignalReport]) -> String {
        let lambda = self.told_lambda(reports).map_or(String::new(), |lambda| format!(", λ {lambda}"));
        let sign = if self.settings.keeps_nonnegative() { ", γ ≥ 0" } else { "" };
        format!("{}{lambda}{sign}", self.settings.args.pursuit.name())
    }

    /// The same as text.
    fn summary(&self, coded: &Coded, signals: &str, of_one_shape: bool, device: &str) -> Summary {
        let reports = &coded.reports;
        let mut summary = Summary::new(format!("coded {signals}"));
        let args = &self.settings.args.pursuit;
        let mut ways: Vec<String> =
            coded.ways.iter().map(|(algorithm, application)| format!("({algorithm}), {application}")).collect();
        ways.sort();
        ways.dedup();
        summary.row("pursuit", format!("{} {}, {device}", args.name(), ways.join(" and ")));
        for (to, count) in handed_over(reports) {
            summary.row("handed over", format!("{} that stalled, to {to}", counted(count, "signal")));
        }
        if let Some(lambda) = self.told_lambda(reports) {
            let sign = if self.settings.keeps_nonnegative() { ", γ ≥ 0" } else { "" };
            summary.row("λ", format!("{lambda}{sign}"));
        } else if self.settings.keeps_nonnegative() {
            summary.row("sign", "γ ≥ 0");
        }
        summary.row(
            "objective",
            format!(
                "mean {}{} ½‖y − Dγ‖² {}",
                number(mean(reports, |report| report.objective.into())),
                // Layer by layer other residuals are minimised than that of the signal.
                match self.settings.args.pursuit.name() {
                    PursuitName::LayeredBasisPursuit => ";",
                    PursuitName::LayeredThresholding | PursuitName::Holistic => " without the penalty,",
                    PursuitName::Projection if self.settings.args.pursuit.debias => " without the penalty,",
                    _ => ", of which",
                },
                number(mean(reports, |report| report.data_term.into()))
            ),
        );
        if self.has_gap() {
            let largest_gap = reports.iter().map(|report| report.relative_gap).fold(0.0, f32::max);
            summary.row(
                "relative gap",
                format!(
                    "mean {}, largest {}; {} of {} converged",
                    number(mean(reports, |report| report.relative_gap.into())),
                    number(largest_gap.into()),
                    converged(reports),
                    reports.len()
                ),
            );
        }
        let stops = stops(reports).into_iter().map(|(stop, count)| format!("{stop} {count}"));
        summary
            .row("ended by", stops.collect::<Vec<_>>().join(", "))
            .row(
                "non-zeros",
                format!(
                    "mean {}{}",
                    number(mean(reports, |report| report.nonzeros as f64)),
                    if of_one_shape { format!(" of {}", self.operator().code().len()) } else { String::new() }
                ),
            )
            .row("iterations", format!("mean {}", number(mean(reports, |report| report.iterations as f64))))
            .row(
                "time",
                format!(
                    "{} s ({} signals/s), set-up {} s",
                    number(coded.seconds),
                    number(reports.len() as f64 / coded.seconds),
                    number(coded.setup_seconds)
                ),
            );
        summary
    }
}

/// The model on signals from `source`.
///
/// # Errors
/// Signals that the model cannot take, named by their source; an application that their shape does not admit.
pub fn operator(model: &Mlcsc, signal: SignalShape, source: &str, application: OperatorForm) -> Result<Operator> {
    check_channels(model.config().signal, signal, &format!("signals of {source}"))?;
    model.operator(signal, application).map_err(|error| match error {
        Error::Shape { what, expected, found } => {
            Error::Shape { what: format!("{what} on signals of {source} ({signal})"), expected, found }
        }
        other => flags::named::<SolverArgs>(other),
    })
}

fn mean(reports: &[SignalReport], value: fn(&SignalReport) -> f64) -> f64 {
    reports.iter().map(value).sum::<f64>() / reports.len().max(1) as f64
}

/// How many signals were finished by which other algorithm.
fn handed_over(reports: &[SignalReport]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    reports
        .iter()
        .filter_map(|report| report.finished_by)
        .for_each(|to| *counts.entry(to.into_str()).or_default() += 1);
    counts
}

/// How often every reason ended a pursuit, those that did.
fn stops(reports: &[SignalReport]) -> Vec<(&'static str, usize)> {
    let count = |stop: StopReason| reports.iter().filter(|report| report.stop == stop).count();
    StopReason::iter().map(|stop| (stop.into_str(), count(stop))).filter(|(_, count)| *count > 0).collect()
}

fn converged(reports: &[SignalReport]) -> usize {
    reports.iter().filter(|report| report.stop == StopReason::DualityGap).count()
}
