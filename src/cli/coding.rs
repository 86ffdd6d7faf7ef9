//! Coding a set of signals batch by batch, with the flags that say how: what `encode` and `reconstruct` share.

use super::data::Signals;
use super::interrupt;
use super::output::{Summary, counted, number};
use super::progress::Progress;
use crate::data::npy;
use crate::error::{Error, Result};
use crate::model::file::CodingDefaults;
use crate::model::geometry::{Geometry, SignalShape};
use crate::model::normalization::Undo;
use crate::model::{Application, Mlcsc, Operator};
use crate::pursuit::{Algorithm, BasisPursuitConfig, Lambda, Pursuit, SignalReport, StopReason};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// λ as a fraction of λ_max where neither flags nor the model say anything.
const DEFAULT_RELATIVE_LAMBDA: f32 = 0.1;

/// Most signals that are coded at once unless a flag says so.
const LARGEST_BATCH: usize = 512;

/// Values that the largest representation of a batch has at most unless a flag says so: 64 MiB.
const BATCH_VALUES: usize = 1 << 24;

/// How an interruption leaves things.
const UNFINISHED: &str = "not all signals were coded";

/// How signals are coded: γ = argmin ½‖y − D^(L)γ‖² + λ‖γ‖₁ with D^(L) exactly as it is stored, after the model's
/// normalisation.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pursuit")]
pub struct CodingArgs {
    /// λ ≥ 0 of ½‖y − D^(L)γ‖² + λ‖γ‖₁. Default: the model's, else 0.1 of each signal's λ_max
    #[arg(long, value_name = "X", allow_negative_numbers = true, conflicts_with_all = ["lambda_relative", "lambda_file"])]
    pub lambda: Option<f32>,
    /// λ as a fraction in [0, 1] of each signal's λ_max, from which on its code is zero
    #[arg(long, value_name = "X", allow_negative_numbers = true, conflicts_with = "lambda_file")]
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
    /// auto, ista, fista or coordinate-descent
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub algorithm: Algorithm,
    /// How D^(L) is applied: auto, cascade, filters, matrix or gram
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub application: Application,
    /// Relative duality gap at which a signal is finished, in (0, 1)
    #[arg(long, value_name = "G", default_value_t = BasisPursuitConfig::default().gap, allow_negative_numbers = true)]
    pub gap: f32,
    /// Iterations after which a signal is finished at the latest
    #[arg(long, value_name = "N", default_value_t = BasisPursuitConfig::default().max_iterations)]
    pub max_iterations: usize,
    /// Signals coded at once. Default: as many as 64 MiB of codes hold, at most 512
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
}

/// The flags of [`CodingArgs`] that say how codes are found; they make no sense where codes are given.
pub const PURSUIT_FLAGS: [&str; 8] =
    ["lambda", "lambda_relative", "lambda_file", "nonnegative", "signed", "algorithm", "gap", "max_iterations"];

impl CodingArgs {
    /// Checks all that can be checked before a file is opened.
    ///
    /// # Errors
    /// Numbers out of range.
    pub fn check(&self) -> Result<()> {
        if let Some(value) = self.lambda {
            name_flag("--lambda", Lambda::Absolute(value).check())?;
        }
        if let Some(value) = self.lambda_relative {
            name_flag("--lambda-relative", Lambda::Relative(value).check())?;
        }
        if self.batch_size == Some(0) {
            return Err(Error::parameter("--batch-size", 0, "at least 1"));
        }
        if self.algorithm == Algorithm::CoordinateDescent
            && !matches!(self.application, Application::Auto | Application::Gram)
        {
            let expected = "auto or gram with --algorithm coordinate-descent";
            return Err(Error::parameter("--application", self.application, expected));
        }
        let basis = BasisPursuitConfig { gap: self.gap, max_iterations: self.max_iterations, nonnegative: false };
        let flag = if self.max_iterations == 0 { "--max-iterations" } else { "--gap" };
        name_flag(flag, basis.check())
    }

    /// How to code `signals` signals, what the flags leave open being what the model was trained with.
    ///
    /// # Errors
    /// As [`Self::check`]; a λ file that cannot be read, with another number of values than signals, or with values that are
    /// no λ.
    pub fn settings(&self, defaults: CodingDefaults, signals: usize) -> Result<Settings> {
        self.check()?;
        let lambda = match (self.lambda, self.lambda_relative, &self.lambda_file, defaults.lambda) {
            (Some(value), ..) => Lambda::Absolute(value),
            (_, Some(fraction), ..) => Lambda::Relative(fraction),
            (_, _, Some(path), _) => Lambda::PerSignal(read_lambda(path, signals)?),
            (.., Some(value)) => Lambda::Absolute(value),
            _ => Lambda::Relative(DEFAULT_RELATIVE_LAMBDA),
        };
        let nonnegative = !self.signed && (self.nonnegative || defaults.nonnegative);
        Ok(Settings {
            lambda,
            basis: BasisPursuitConfig { gap: self.gap, max_iterations: self.max_iterations, nonnegative },
            algorithm: self.algorithm,
            application: self.application,
            batch_size: self.batch_size,
        })
    }
}

/// One λ for each of `signals` signals.
fn read_lambda(path: &Path, signals: usize) -> Result<Vec<f32>> {
    let array = npy::read_array(path)?;
    if array.shape != [signals] {
        let expected = format!("[{signals}], one λ for each signal");
        return Err(Error::shape(format!("--lambda-file {}", path.display()), expected, format!("{:?}", array.shape)));
    }
    name_flag(&format!("--lambda-file {}", path.display()), Lambda::PerSignal(array.values.clone()).check())?;
    Ok(array.values)
}

/// Puts a flag's name in place of a parameter's.
pub(super) fn name_flag(flag: &str, checked: Result<()>) -> Result<()> {
    checked.map_err(|error| match error {
        Error::Parameter { value, expected, .. } => Error::Parameter { parameter: flag.into(), value, expected },
        other => other,
    })
}

/// Checked settings of a coding.
#[derive(Debug, Clone)]
pub struct Settings {
    /// λ.
    pub lambda: Lambda,
    /// Gap, iterations, sign.
    pub basis: BasisPursuitConfig,
    /// Algorithm, possibly auto.
    pub algorithm: Algorithm,
    /// Application, possibly auto.
    pub application: Application,
    /// Signals at once, where a flag says so.
    pub batch_size: Option<usize>,
}

/// A model ready to code signals of one shape.
pub struct Coder {
    model: Mlcsc,
    operator: Operator,
    pursuit: Box<dyn Pursuit>,
    settings: Settings,
    setup_seconds: f64,
}

/// One coded batch.
pub struct Batch {
    /// The signals as they were read.
    pub signals: Tensor<4>,
    /// Their deepest codes.
    pub codes: Tensor<4>,
    /// Undoes the normalisation.
    pub undo: Undo,
}

/// What is known after coding.
pub struct Coded {
    /// One report for each signal.
    pub reports: Vec<SignalReport>,
    /// Seconds from signals in memory to codes.
    pub seconds: f64,
}

impl Coder {
    /// Prepares everything that does not depend on single signals; `source` is named where they don't fit the model.
    ///
    /// # Errors
    /// Signals that the model cannot take; an application that their shape does not admit.
    pub fn new(model: Mlcsc, signal: SignalShape, source: &str, settings: Settings) -> Result<Self> {
        // Coordinate descent computes on the Gram matrix in any case; asked for openly, its size is checked.
        let application = match settings.algorithm {
            Algorithm::CoordinateDescent => Application::Gram,
            _ => settings.application,
        };
        let start = Instant::now();
        let operator = operator(&model, signal, source, application)?;
        let pursuit = settings.algorithm.init(&settings.basis, &operator)?;
        if operator.application() == Application::Gram {
            operator.gram();
        }
        if pursuit.name() != "coordinate-descent" {
            operator.squared_norm_bound();
        }
        let setup_seconds = start.elapsed().as_secs_f64();
        Ok(Self { model, operator, pursuit, settings, setup_seconds })
    }

    /// The operator that codes are found with.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Codes all signals and calls `visit` with one batch after the other. Ctrl-C ends it between two batches.
    ///
    /// # Errors
    /// Signals that cannot be read; an interruption; errors of `visit`.
    pub fn run(&self, signals: &Signals, mut visit: impl FnMut(Batch) -> Result<()>) -> Result<Coded> {
        let count = signals.len();
        let batch_size = self.settings.batch_size.unwrap_or_else(|| default_batch(self.operator.geometry()));
        let device = self.operator.device();
        let mut coded = Coded { reports: Vec::with_capacity(count), seconds: 0.0 };
        let progress = Progress::new("coding", "signals", count as u64);
        interrupt::watch();
        for start in (0..count).step_by(batch_size) {
            interrupt::check(UNFINISHED)?;
            let size = batch_size.min(count - start);
            let values = signals.read(start, size)?;
            let clock = Instant::now();
            let read = Tensor::from_data(TensorData::new(values, signals.shape().batched(size)), &device);
            let (normalized, undo) = self.model.config().normalization.apply(read.clone());
            let lambda = self.settings.lambda.batch(start, size);
            let pursued = self.pursuit.pursue(&self.operator, normalized, &lambda)?;
            coded.seconds += clock.elapsed().as_secs_f64();
            coded.reports.extend(pursued.reports);
            visit(Batch { signals: read, codes: pursued.codes, undo })?;
            progress.advance(size as u64);
        }
        interrupt::check(UNFINISHED)?;
        Ok(coded)
    }

    /// What the codes of a file were computed with.
    pub fn describe(&self, source: &str) -> Value {
        let lambda = match &self.settings.lambda {
            Lambda::PerSignal(_) => json!("per-signal"),
            lambda => json!(lambda),
        };
        json!({
            "format_version": 1,
            "model": self.model.config(),
            "signals": source,
            "pursuit": {
                "algorithm": self.pursuit.name(),
                "application": self.operator.application(),
                "lambda": lambda,
                "gap": self.settings.basis.gap,
                "max_iterations": self.settings.basis.max_iterations,
                "nonnegative": self.settings.basis.nonnegative,
            },
        })
    }

    /// Results as JSON.
    pub fn json(&self, coded: &Coded, device: &str) -> Value {
        let reports = &coded.reports;
        let largest_gap = reports.iter().map(|report| report.relative_gap).fold(0.0, f32::max);
        json!({
            "signals": reports.len(),
            "seconds": coded.seconds,
            "setup_seconds": self.setup_seconds,
            "signals_per_second": reports.len() as f64 / coded.seconds,
            "mean_lambda": mean(reports, |report| report.lambda.into()),
            "mean_objective": mean(reports, |report| report.objective.into()),
            "mean_data_term": mean(reports, |report| report.data_term.into()),
            "mean_nonzeros": mean(reports, |report| report.nonzeros as f64),
            "mean_iterations": mean(reports, |report| report.iterations as f64),
            "mean_gap": mean(reports, |report| report.relative_gap.into()),
            "max_gap": largest_gap,
            "converged": converged(reports),
            "nonnegative": self.settings.basis.nonnegative,
            "algorithm": self.pursuit.name(),
            "application": self.operator.application(),
            "device": device,
        })
    }

    /// The same as text.
    pub fn summary(&self, coded: &Coded, signals: &Signals, device: &str) -> Summary {
        let reports = &coded.reports;
        let mut summary = Summary::new(format!("coded {}", signals.describe()));
        let lambda = match self.settings.lambda {
            Lambda::Absolute(value) => number(value.into()),
            Lambda::Relative(fraction) => format!(
                "{} of λ_max, mean {}",
                number(fraction.into()),
                number(mean(reports, |report| report.lambda.into()))
            ),
            Lambda::PerSignal(_) => {
                format!("per signal, mean {}", number(mean(reports, |report| report.lambda.into())))
            }
        };
        let largest_gap = reports.iter().map(|report| report.relative_gap).fold(0.0, f32::max);
        let sign = if self.settings.basis.nonnegative { ", γ ≥ 0" } else { "" };
        summary
            .row("pursuit", format!("{}, {}, {device}", self.pursuit.name(), self.operator.application()))
            .row("λ", format!("{lambda}{sign}"))
            .row(
                "objective",
                format!(
                    "mean {}, of which ½‖y − Dγ‖² {}",
                    number(mean(reports, |report| report.objective.into())),
                    number(mean(reports, |report| report.data_term.into()))
                ),
            )
            .row(
                "relative gap",
                format!(
                    "mean {}, largest {}; {} of {} converged",
                    number(mean(reports, |report| report.relative_gap.into())),
                    number(largest_gap.into()),
                    converged(reports),
                    reports.len()
                ),
            )
            .row(
                "non-zeros",
                format!(
                    "mean {} of {}",
                    number(mean(reports, |report| report.nonzeros as f64)),
                    self.operator.code().len()
                ),
            )
            .row("iterations", format!("mean {}", number(mean(reports, |report| report.iterations as f64))))
            .row(
                "time",
                format!(
                    "{} s ({} signals/s), set-up {} s",
                    number(coded.seconds),
                    number(reports.len() as f64 / coded.seconds),
                    number(self.setup_seconds)
                ),
            );
        summary
    }
}

/// The model on signals from `source`.
///
/// # Errors
/// Signals that the model cannot take, named by their source; an application that their shape does not admit.
pub fn operator(model: &Mlcsc, signal: SignalShape, source: &str, application: Application) -> Result<Operator> {
    let channels = model.config().signal.channels;
    if signal.channels != channels {
        let expected = format!("{}, as the model's", counted(channels, "channel"));
        return Err(Error::shape(format!("signals of {source}"), expected, format!("{signal}")));
    }
    model.operator(signal, application).map_err(|error| match error {
        Error::Shape { what, expected, found } => {
            Error::Shape { what: format!("{what} on signals of {source} ({signal})"), expected, found }
        }
        Error::Parameter { parameter, value, expected } if parameter == "application" => {
            Error::Parameter { parameter: "--application".into(), value, expected }
        }
        other => other,
    })
}

/// Signals at once so that no representation of theirs outgrows 64 MiB.
pub fn default_batch(geometry: &Geometry) -> usize {
    let largest = geometry.layers().iter().map(|layer| layer.code.len().max(layer.signal.len())).max().unwrap_or(1);
    (BATCH_VALUES / largest).clamp(1, LARGEST_BATCH)
}

fn mean(reports: &[SignalReport], value: fn(&SignalReport) -> f64) -> f64 {
    reports.iter().map(value).sum::<f64>() / reports.len().max(1) as f64
}

fn converged(reports: &[SignalReport]) -> usize {
    reports.iter().filter(|report| report.stop == StopReason::DualityGap).count()
}
