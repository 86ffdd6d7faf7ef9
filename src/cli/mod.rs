//! The command line: one file a subcommand, no mathematics in it.
//!
//! Results go to stdout, as aligned text or, with `--json`, as one JSON document; everything else goes to stderr. Errors take
//! one or two lines. Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted.

mod certify;
mod classify;
pub mod coding;
mod compare;
mod configuration;
pub mod data;
mod diagnose;
mod diagnosis_parts;
mod encode;
mod export;
pub mod flags;
mod foreign;
mod import;
mod inputs;
mod inspect;
pub mod interrupt;
mod merge;
pub mod output;
mod page;
pub mod progress;
mod reconstruct;
mod report;
mod restore;
mod rival;
mod sample;
mod train;

use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::learn::collective::launched;
use burn::tensor::Device;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

/// Multi-Layer Convolutional Sparse Coding: nested sparse representations of signals.
#[derive(Debug, Parser)]
#[command(name = "mlcsc", version = version(), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Encode(encode::EncodeArgs),
    Compare(compare::CompareArgs),
    Classify(classify::ClassifyArgs),
    Certify(certify::CertifyArgs),
    Diagnose(diagnose::DiagnoseArgs),
    Report(report::ReportArgs),
    Sample(sample::SampleArgs),
    Reconstruct(reconstruct::ReconstructArgs),
    Restore(restore::RestoreArgs),
    Inspect(inspect::InspectArgs),
    Merge(merge::MergeArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
}

impl Command {
    /// Says so, once, where a launcher of MPI has started several processes that all do the same: only `train` shares work among them.
    fn note_copies(&self) {
        let shares_work = match self {
            Self::Train(_) => true,
            Self::Encode(args) => args.shares_work(),
            Self::Diagnose(args) => args.shares_work(),
            _ => false,
        };
        if let Some((0, count @ 2..)) = launched().filter(|_| !shares_work) {
            output::complain(&format!(
                "note: {count} processes were started together, and each does all of this; `train` alone shares work among them (encode, diagnose: --shard)"
            ));
        }
    }

    fn run(&self) -> Result<()> {
        match self {
            Self::Train(args) => args.run(),
            Self::Encode(args) => args.run(),
            Self::Compare(args) => args.run(),
            Self::Classify(args) => args.run(),
            Self::Certify(args) => args.run(),
            Self::Diagnose(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Sample(args) => args.run(),
            Self::Reconstruct(args) => args.run(),
            Self::Restore(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Merge(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Import(args) => args.run(),
        }
    }
}

/// The program: parses the command line, runs the command, prints its error.
pub fn main() -> ExitCode {
    files::report_size_limits();
    quiet_display();
    interrupt::handle();
    let cli = match parsed() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Of several processes that MPI's launcher started together one speaks; which, is settled before there is MPI.
    output::silence(launched().is_some_and(|(rank, _)| rank > 0) && matches!(cli.command, Command::Train(_)));
    cli.command.note_copies();
    let ended = crate::device::guarded(|| cli.command.run());
    if let Some(signals) = crate::device::fewest_at_a_time() {
        let signals = output::counted(signals, "signal");
        output::complain(&format!("note: the device had no memory for whole batches: {signals} at a time"));
    }
    for work in crate::device::left_to_the_host() {
        output::complain(&format!("note: done by the host, not by the GPU: {work}"));
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line whatever a file's name or a library's message holds.
            let message = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            output::complain(&format!("error: {}", flags::in_text(&message)));
            match error {
                Error::Interrupted(_) => ExitCode::from(interrupt::EXIT_CODE),
                error if error.is_usage() => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Names a folder in XDG_RUNTIME_DIR where a GPU is used and the variable is not set, as on machines without a display: libraries that wgpu
/// loads would print warnings to stderr.
#[cfg(all(unix, any(feature = "wgpu", feature = "vulkan")))]
fn quiet_display() {
    const FOLDER: &str = "XDG_RUNTIME_DIR";
    let is_meant = |name: &str| ["wgpu", "vulkan"].iter().any(|kind| name.contains(kind));
    let by_variable = std::env::var(crate::device::VARIABLE).is_ok_and(|name| is_meant(&name));
    let used = by_variable
        || std::env::args_os().any(|argument| is_meant(&argument.to_string_lossy()))
        || is_meant(crate::device::available()[0]);
    if used && std::env::var_os(FOLDER).is_none() {
        // SAFETY: the program has no other thread yet that could read the environment.
        unsafe { std::env::set_var(FOLDER, std::env::temp_dir()) };
    }
}

/// Nothing of that kind is asked elsewhere.
#[cfg(not(all(unix, any(feature = "wgpu", feature = "vulkan"))))]
fn quiet_display() {}

/// The command line.
///
/// # Errors
/// clap's, and requests for help.
fn parsed() -> std::result::Result<Cli, clap::Error> {
    let mut command = with_negative_numbers(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Lets every flag have a number below 0, so that the range is what is wrong with it, and not that there is no flag of that name.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// Help and version as they are; of clap's errors what is wrong, and below it a hint, if there is one.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // A closed pipe is no failure.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.render().to_string();
    let paragraphs: Vec<String> =
        text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let wrong = &paragraphs[0];
    let tip = paragraphs.iter().skip(1).find(|paragraph| paragraph.starts_with("tip:"));
    let hint = match (tip, error.kind()) {
        (Some(tip), _) => Some(tip.as_str()),
        (None, ErrorKind::ArgumentConflict) if wrong.contains("--resume") => {
            Some("tip: --resume keeps the settings of the run; to change them, start a new run with --from")
        }
        // What is wrong says what was expected.
        (None, ErrorKind::ValueValidation | ErrorKind::InvalidValue) => None,
        (None, _) => Some("For more information, try '--help'."),
    };
    output::complain(wrong);
    if let Some(hint) = hint {
        output::complain(&format!("  {hint}"));
    }
    ExitCode::from(2)
}

/// Version and compiled-in devices.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let devices = match device::available() {
            devices if devices.is_empty() => "none".into(),
            devices => devices.join(", "),
        };
        format!("{} (devices: {devices})", env!("CARGO_PKG_VERSION"))
    });
    VERSION.as_str()
}

/// The flag that chooses the device.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// Device to compute on, one of those that `mlcsc --version` lists; one of several discrete GPUs by its number, as in cuda:1; for
    /// training end to end several that share every batch, as in cuda:0,cuda:1. Default: BURN_DEVICE,
    /// else the first of them
    #[arg(long = "device", value_name = "NAME")]
    name: Option<String>,
    /// How GPUs with tensor cores round the factors of matrix products: exact, not at all; fast, to ten bits, and duality gaps are then
    /// only as accurate. Hosts are always exact
    #[arg(long, value_name = "PRECISION", default_value = "exact", value_parser = flags::names::<device::Precision>())]
    precision: device::Precision,
}

impl DeviceArgs {
    /// The device.
    ///
    /// # Errors
    /// As [`device::named`]; several.
    pub fn open(&self) -> Result<Device> {
        if self.name().contains(',') {
            return Err(self.several());
        }
        Ok(self.open_all()?.0)
    }

    /// The first device and, where several are named, the others.
    ///
    /// # Errors
    /// As [`device::named`]; devices of different kinds, one twice.
    pub fn open_all(&self) -> Result<(Device, Vec<Device>)> {
        let all = self.name();
        let names: Vec<&str> = all.split(',').map(str::trim).collect();
        let kind = |name: &&str| name.split(':').next().unwrap_or_default().to_owned();
        let refused = || Error::parameter(self.named_by(), &all, "devices of one kind, each once");
        if names.iter().any(|name| kind(name) != kind(&names[0])) {
            return Err(refused());
        }
        let named = |name: &&str| device::named(Some(*name).filter(|_| !all.is_empty()));
        let mut devices = names.iter().map(named).collect::<Result<Vec<_>>>()?;
        if devices.iter().enumerate().any(|(at, device)| devices[..at].contains(device)) {
            return Err(refused());
        }
        let device = devices.remove(0);
        let further = devices;
        // Results say what was: hosts round nothing.
        device::set_precision(if device::is_host(&device) { device::Precision::Exact } else { self.precision });
        Ok((device, further))
    }

    /// Refuses devices beside the first one, where they are of no use.
    ///
    /// # Errors
    /// That there are some.
    pub fn refuse_several(&self, further: &[Device]) -> Result<()> {
        match further {
            [] => Ok(()),
            _ => Err(self.several()),
        }
    }

    fn several(&self) -> Error {
        let expected =
            "one device: several share the batches of training end to end (train --method unrolled, or a rival)";
        Error::parameter(self.named_by(), self.name(), expected)
    }

    /// What has named the device.
    fn named_by(&self) -> &'static str {
        if self.name.is_some() { "--device" } else { device::VARIABLE }
    }

    /// Tries out a device that was named, for work that is done by the host whatever it is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check(&self) -> Result<()> {
        match self.name {
            Some(_) => self.open().map(drop),
            None => Ok(()),
        }
    }

    /// The name of the device that [`Self::open`] opens.
    pub fn name(&self) -> String {
        device::chosen(self.name.as_deref()).unwrap_or_default()
    }
}

/// Parses the path of a model's file; the folder of a run stands for the model in it.
pub(crate) fn model_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if !path.is_dir() {
            return Ok(path);
        }
        let model = crate::learn::RunFolder::new(&path).model();
        let others = ["cfg.json", "params.npz"].iter().any(|name| path.join(name).exists());
        match others && !model.exists() {
            true => Err("an auto-encoder of others; `mlcsc import --sae` makes a model of it"),
            false => Ok(model),
        }
    })
}

/// Diagnostics of an auto-encoder as lines of a summary.
#[cfg(feature = "train")]
pub(crate) fn diagnostics_rows(found: &crate::autoencoder::Diagnostics) -> [(&'static str, String); 8] {
    let density = found.density.map(|count| count.to_string()).join("/");
    [
        ("variance unexplained", output::unexplained(found.fvu)),
        ("PSNR", output::decibels(found.psnr)),
        ("non-zeros", output::number(found.nonzeros)),
        ("Hoyer sparsity", output::or_dash(found.hoyer, |hoyer| format!("{hoyer:.3}"))),
        ("shrinkage", output::or_dash(found.shrinkage, |shrinkage| format!("{shrinkage:.3}"))),
        ("dead units", found.dead_units.to_string()),
        ("dense units", found.dense_units.to_string()),
        ("units by density", format!("{density} (below 10⁻⁵, then by powers of ten)")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        with_negative_numbers(Cli::command()).debug_assert();
    }
}
