//! `mlcsc train`.

use super::coding::{not_converged_by, not_converged_json};
use super::data::{DataArgs, open_configured, pair, told_outliers};
use super::flags::Given;
use super::inputs::Inputs;
use super::interrupt;
use super::output::{self, Summary, number, or_dash, shown};
use super::page::{self, origin_of_run};
use super::progress::{PER_CENT, Progress};
use super::rival::Chosen;
use super::{DeviceArgs, configuration, flags};
use crate::baselines::{MAX_UNITS, RivalConfig, one_layer};
use crate::data::{DataConfig, Dataset, Source, has_own_units, sample, wanted_shape};
use crate::device::guarded;
use crate::error::{Error, Result};
use crate::export::model::{export_model, files_of};
use crate::export::report::{self, REPORT};
use crate::files;
use crate::geometry::{LayerShape, Overlapping, Pair, SignalShape};
use crate::learn::collective::Exchanged;
use crate::learn::config::{GradientMode, LearningConfig, Schedule, TrainConfig, UpdateRule};
use crate::learn::metrics;
use crate::learn::run::{BatchMeasures, EpochMeasures, parse_config};
use crate::learn::{HeldOut, Observer, Outcome, Ranks, Record, Run, RunFolder, TrainingState};
use crate::model::normalization::Normalization;
use crate::model::preset::Preset;
use crate::model::{CodingDefaults, Mlcsc, ModelConfig};
use crate::pursuit::BasisPursuitConfig;
use burn::tensor::Device;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Folder of the runs whose folder was not named.
const RUNS: &str = "runs";

/// How long processes that say nothing of a failure wait for the one that does.
const UNHEARD: Duration = Duration::from_millis(300);

/// What a run writes, besides pictures and what lies in a folder of checkpoints.
const RUN_FILES: [&str; 5] = ["config.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors", REPORT];

/// Values that the size of signals is measured by, at most.
const MEASURED: usize = 1 << 22;

/// Signals of a step with --atoms on vectors, and non-zeros that λ is steered to, a quarter of the dimensions at most.
const VECTORS_PER_STEP: usize = 1024;
const USUAL_NONZEROS: f32 = 32.0;

/// Windows of a step of training to take noise off, where signals are their patches.
const WINDOWS_PER_STEP: usize = 32;

/// Learning rate of such a training, of the dictionaries and of what the encoder has of its own.
const RATE_OF_WINDOWS: f64 = 0.006;

/// Part by which a number of non-zeros may miss its target before that is said.
const FAR_FROM_TARGET: f64 = 0.1;

/// Time between two lines about progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Learn a model's dictionaries from signals
///
/// Without arguments: digits drawn by a generator, a small model. The run's folder holds config.json, metrics.jsonl, a checkpoint
/// to resume from, model.safetensors, pictures of the filters and report.html, a page about all of it.
///
/// Started by mpirun or srun, a program with the feature mpi shares the coding among its processes, by the methods pursuit and gradient:
/// the model is that of one process. All have to see the same data and the same folder; RAYON_NUM_THREADS says how many cores each may
/// use.
#[derive(Debug, Args)]
#[command(after_long_help = configuration::help())]
pub struct TrainArgs {
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    data: DataArgs,
    /// Geometry and settings; natural and natural-colour are for photographs, and --patch may make their patches larger, or smaller down
    /// to what their kernels need.
    /// Default: small
    #[arg(long, value_name = "NAME", value_parser = flags::names::<Preset>(), conflicts_with = "config")]
    preset: Option<Preset>,
    /// Geometry and settings as a JSON file; a run's config.json is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Atoms of D_1,…,D_L, for a geometry that follows from the signals: 4096 or 1024,8192 for vectors, with --kernel for signals in time
    /// and pictures. Unless told otherwise codes are non-negative, the mean of every channel is subtracted, but for pictures of 1 or 3
    /// channels, and λ is the root mean square of the values; of vectors it is steered to a quarter as many non-zeros as there are atoms or
    /// values, 32 at most (--method unrolled steers nothing, and needs --lambda there)
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["preset", "config", "from", "model"])]
    atoms: Vec<usize>,
    /// Kernels of --atoms, one for each layer: 25 samples of a signal in time, 8 or 8x6 pixels. Default: 1 for vectors
    #[arg(long, value_name = "K,…", value_delimiter = ',', value_parser = pair, requires = "atoms",
        conflicts_with_all = ["preset", "config", "from", "model", "resume"])]
    kernel: Vec<Pair>,
    /// Strides of --atoms, one for each layer. Default: 1
    #[arg(long, value_name = "S,…", value_delimiter = ',', value_parser = pair, requires = "atoms",
        conflicts_with_all = ["preset", "config", "from", "model", "resume"])]
    stride: Vec<Pair>,
    /// What is done to signals before they are coded: center and contrast by the mean (and deviation) of each signal itself, high-pass by a
    /// smooth component; mean, mean-and-scale and standardise by the training signals' mean (and scale), which the model stores. Default:
    /// mean with --atoms on vectors, else the preset's or none
    #[arg(long, value_name = "NAME", value_parser = flags::names::<Normalization>(), conflicts_with_all = ["from", "model"])]
    normalization: Option<Normalization>,
    /// How the dictionaries are learned; gradient is the paper's online update, unrolled goes end to end through the layers of an
    /// unrolled pursuit. Default: pursuit, or what --config says
    #[arg(long, value_name = "NAME", value_parser = flags::names::<UpdateRule>())]
    method: Option<UpdateRule>,
    /// How gradients reach the dictionaries with --method unrolled: at exact codes (envelope, implicit), through all iterations
    /// (unrolled) or through the last (truncated). Default: envelope
    #[arg(long, value_name = "NAME", value_parser = flags::names::<GradientMode>())]
    gradient: Option<GradientMode>,
    /// Iterations of the pursuit that --method unrolled unrolls: the layers of the encoder. Default: 10
    #[arg(long, value_name = "T")]
    unrolled_iterations: Option<usize>,
    /// What --method unrolled is for: to reconstruct signals, or to denoise them, by the codes of what has --noise; `mlcsc restore --method
    /// network` runs the model, on sound as an array [channels, 1, samples]. Gradients then go through all iterations, and λ begins at
    /// the noise. Default: reconstruct
    #[arg(long, value_name = "NAME", value_parser = ["reconstruct", "denoise"])]
    task: Option<String>,
    /// Standard deviation of the noise for --task denoise, or the range that it is drawn from: of 0 to 255 in pictures, in the own units
    /// of arrays and sound
    #[arg(long, value_name = "SIGMA|LOW-HIGH", value_parser = noise_range, requires = "task")]
    noise: Option<NoiseRange>,
    /// Height and width of windows for --task denoise, whose overlapping patches of the size --patch are averaged, as `mlcsc restore` averages
    /// them, before they are compared with what has no noise: the patch and a multiple of the step, which is a quarter of it rounded up
    /// (3 for 9: 27). Default: patches are compared one by one
    #[arg(long, value_name = "HxW|N", value_parser = pair, requires = "task")]
    window: Option<Pair>,
    /// Learning rate of --method unrolled and of --model. Default: 0.02 (with --window 0.006) and 0.001
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Go on from the dictionaries of a model file or of a run's folder, by whatever method they were learned; their geometry is taken over,
    /// and, unless --preset or --config says otherwise, λ and sign
    #[arg(long, value_name = "FILE", value_parser = super::model_path())]
    from: Option<PathBuf>,
    /// Train one of the model's rivals instead; or a floor: dictionary (one layer), or pca, which is measured and leaves a picture alone
    #[arg(long, value_name = "NAME", value_parser = rivals(),
        conflicts_with_all = ["preset", "config", "method", "gradient", "unrolled_iterations", "from"])]
    model: Option<String>,
    /// Hidden units of --model or of a rival's --config, in every layer. Default: what its authors used
    #[arg(long, value_name = "N")]
    units: Option<usize>,
    /// Follow --method unrolled or --model on burn's dashboard
    #[cfg(feature = "tui")]
    #[arg(long)]
    tui: bool,
    /// Folder of the run. Default: a new one below runs/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training signals; with --resume the new end of the run
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Signals per step; where positions share no sample (1x1 kernels, patches side by side), positions per step
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Weight λ of the ℓ1 norm. Default: the preset's, made for pixels in [0, 1]; with --atoms and --model dictionary as said of --atoms
    #[arg(long, value_name = "X")]
    lambda: Option<f32>,
    /// Steer λ, while training, to this mean number of non-zeros; the λ reached is stored in the model
    #[arg(long, value_name = "N", conflicts_with_all = ["lambda", "nonzeros"])]
    target_nonzeros: Option<f32>,
    /// Codes while training: basis pursuit (bp), or orthogonal matching pursuit (omp) with exactly --nonzeros. Default: bp
    #[arg(long, value_name = "NAME", value_parser = ["bp", "omp"])]
    pursuit: Option<String>,
    /// Non-zeros of every code with --pursuit omp; values of a code that --model top-k and k-sparse keep
    #[arg(long, value_name = "K", conflicts_with = "lambda")]
    nonzeros: Option<usize>,
    /// Keep γ_L ≥ 0. Default: what --preset or --config says, which mostly is so
    #[arg(long, conflicts_with = "signed")]
    nonnegative: bool,
    /// Let γ_L have both signs
    #[arg(long)]
    signed: bool,
    /// Keep atoms from being alike, by this strength ≥ 0; features that fire together then get atoms of their own. Default: 0
    #[arg(long, value_name = "X")]
    incoherence: Option<f32>,
    /// Seed of all randomness, of the data's too unless --data-seed is given
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Go on with the run in --out; without --out with the latest one below runs/. With --data: from the same signals, where they lie
    /// by now
    #[arg(long, conflicts_with_all = ["preset", "config", "method", "gradient", "unrolled_iterations", "task", "noise", "window", "learning_rate", "from", "model",
        "units", "batch_size", "lambda", "seed", "atoms", "normalization", "target_nonzeros", "pursuit", "nonzeros", "nonnegative", "signed",
        "incoherence", "count", "patch", "patches", "grey", "layout", "tensor", "layer", "data_seed"])]
    resume: bool,
    /// Print the whole configuration that the other flags make, as JSON for --config, instead of training
    #[arg(long, conflicts_with_all = ["resume", "out", "json"])]
    print_config: bool,
    /// Print the JSON schema of such a configuration instead of training: every key, what it means, its default
    #[arg(long, conflicts_with_all = ["resume", "out", "json", "print_config"])]
    print_schema: bool,
    /// Write no report.html, the page about the run, into its folder
    #[arg(long)]
    no_report: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Parses the name of a rival or of a floor.
fn rivals() -> PossibleValuesParser {
    PossibleValuesParser::new(RivalConfig::NAMES.into_iter().chain(["pca", "dictionary"]))
}

/// What there is to say of a run that was planned for other epochs when it began.
pub(super) fn planned_anew(planned: usize, epochs: usize) -> String {
    format!(
        "note: what changes over a run is planned for {} from here on, before it was for {planned}: a run of {epochs} from the \
         beginning may come to another model",
        output::counted(epochs, "epoch"),
    )
}

/// Smallest and largest standard deviation of noise.
#[derive(Debug, Clone, Copy)]
struct NoiseRange([f32; 2]);

fn noise_range(text: &str) -> std::result::Result<NoiseRange, String> {
    let number = |text: &str| text.parse::<f32>().ok().filter(|sigma| sigma.is_finite() && *sigma >= 0.0);
    // 1e-3 is a number.
    let range = match (number(text), text.split_once('-')) {
        (Some(sigma), _) => Some((sigma, sigma)),
        (None, Some((least, most))) => number(least).zip(number(most)),
        (None, None) => None,
    };
    match range {
        Some((least, most)) if least <= most && most > 0.0 => Ok(NoiseRange([least, most])),
        _ => Err("expected a standard deviation above 0, as 25, or the smaller and the larger of two, as 5-50".into()),
    }
}

/// Where a training computes.
struct Devices {
    first: Device,
    /// Those that share its batches.
    further: Vec<Device>,
}

impl TrainArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Flags out of range; signals that cannot be read or do not fit the model; a folder that cannot be written; several processes
    /// where one has to do.
    pub fn run(&self) -> Result<()> {
        let ranks = Ranks::world()?;
        let (result, speaks) = ranks.conclude(guarded(|| self.run_on(&ranks)));
        output::silence(!speaks);
        if result.is_err() && !speaks {
            // Launchers end all processes when one fails: the one that says why has to come first.
            std::thread::sleep(UNHEARD);
        }
        result
    }

    fn run_on(&self, ranks: &Ranks) -> Result<()> {
        let (device, further) = self.device.open_all()?;
        let device = Devices { first: device, further };
        let started = Instant::now();
        let text = self.config.as_deref().map(files::read_whole).transpose()?;
        let file = self.config.as_deref().zip(text.as_deref());
        if let Some(chosen) = self.rival_of(file) {
            alone(ranks)?;
            return self.rival(chosen, &device, started);
        }
        if self.print_schema {
            return output::print_json(&configuration::schema_of::<TrainConfig>());
        }
        if self.resume {
            let folder = self.out.clone().map_or_else(latest_run, Ok)?;
            if super::rival::holds_rival(&folder) {
                alone(ranks)?;
                return self.resume_rival(&folder, &device, started);
            }
            let path = RunFolder::new(&folder).existing_config()?;
            let mut config = parse_config(&path, &files::read_whole(&path)?, None)?;
            config.learning.epochs = self.epochs.unwrap_or(config.learning.epochs);
            config.data.source = self.data.source.clone().unwrap_or(config.data.source);
            return self.train(&folder, &config, Some(&path), &device, started, ranks);
        }
        let path = self.config.as_deref();
        let mut config = self.configuration(file)?;
        if !self.atoms.is_empty() {
            let train = self.signals(&config, path)?.train;
            config.model = self.geometry(train.shape())?;
            self.suit(&mut config, Some(&*train))?;
        }
        if self.model.is_some() {
            // One layer of atoms as large as the signals, whatever those are.
            let train = self.signals(&config, path)?.train;
            config.model = one_layer(train.shape(), self.units.unwrap_or(1000)).map_err(flags::named::<Self>)?;
            self.suit(&mut config, Some(&*train))?;
        }
        if let Some(from) =
            self.from.as_ref().filter(|_| path.is_none() && self.preset.is_none() && self.noise.is_none())
        {
            let (_, coding) = Mlcsc::load(from, &device.first)?;
            self.take_over(&mut config, &coding)?;
        }
        if self.print_config {
            self.check(&config, path)?;
            return configuration::print(&config);
        }
        let folder = self.out.clone().unwrap_or_else(|| self.new_folder(&config));
        self.train(&folder, &config, path, &device, started, ranks)
    }

    /// The model of --atoms on signals of that shape.
    fn geometry(&self, signal: SignalShape) -> Result<ModelConfig> {
        let is_vector = [signal.height, signal.width] == [1, 1];
        let depth = self.atoms.len();
        if let Some(atoms) = self.atoms.iter().find(|atoms| !(1..=MAX_UNITS).contains(*atoms)) {
            return Err(Error::parameter("--atoms", atoms, format!("numbers from 1 to {MAX_UNITS}")));
        }
        let per_layer = |flag: &str, given: &[Pair]| match given.len() {
            0 => Ok(None),
            found if found == depth => Ok(Some(given.to_vec())),
            found => {
                let expected = format!("{depth}, one for each number of --atoms");
                Err(Error::parameter(flag, output::counted(found, "value"), expected))
            }
        };
        // Activations that were taken for pictures; what is in time was said to be so, or is a recording.
        let of_vectors = match signal.height > 1 && self.data.layout.is_none() {
            true => " (of arrays with vectors along the last axis: --layout tokens)",
            false => "",
        };
        if let Some(kernel) = self.kernel.iter().find(|kernel| is_vector && kernel.0 != [1, 1]) {
            let expected = format!(
                "1 for signals of {signal}; with --layout time an array [count, time] holds signals in time, with --layout images one [height, width] is an image"
            );
            return Err(Error::parameter("--kernel", kernel, expected));
        }
        let kernels = match per_layer("--kernel", &self.kernel)? {
            Some(kernels) => kernels.into_iter().map(|kernel| Pair(kernel.on_rows(signal.height))).collect(),
            None if is_vector => vec![Pair([1, 1]); depth],
            None => {
                return Err(Error::missing(
                    "--kernel",
                    format!("the size of atoms on signals of {signal}, one for each layer{of_vectors}"),
                ));
            }
        };
        let strides = per_layer("--stride", &self.stride)?.unwrap_or_else(|| vec![Pair([1, 1]); depth]);
        let layers = self.atoms.iter().zip(kernels).zip(strides).map(|((&atoms, kernel), stride)| {
            let stride = if kernel.0[0] == 1 { Pair([1, stride.0[1]]) } else { stride };
            LayerShape::new(atoms, kernel, stride)
        });
        let normalization = match self.normalization {
            Some(normalization) => normalization,
            // Pixels have their black; of everything else zero may lie anywhere.
            None if signal.height > 1 && matches!(signal.channels, 1 | 3) => Normalization::None,
            None => Normalization::Mean,
        };
        Ok(ModelConfig { normalization, ..ModelConfig::new(signal, layers.collect()) })
    }

    /// Settings that suit signals of any kind and unit, as far as flags don't say otherwise.
    ///
    /// # Errors
    /// No λ for vectors where training goes end to end; signals that cannot be read.
    fn suit(&self, config: &mut TrainConfig, train: Option<&dyn Source>) -> Result<()> {
        let SignalShape { channels, height, width } = config.model.signal;
        if [height, width] != [1, 1] {
            let free = self.lambda.is_none() && self.target_nonzeros.is_none() && self.nonzeros.is_none();
            if let Some(train) = train.filter(|_| free && self.noise.is_none())
                && let Some(size) = root_mean_square(config, train)?
            {
                config.learning.lambda = Schedule::constant(size);
            }
            return Ok(());
        }
        let learning = &mut config.learning;
        if self.batch_size.is_none() {
            learning.batch_size = VECTORS_PER_STEP;
        }
        if self.lambda.is_none() && self.target_nonzeros.is_none() && self.nonzeros.is_none() {
            if learning.update == UpdateRule::Unrolled {
                let expected = "the weight of the ℓ1 norm on these signals: training end to end steers it to no number of non-zeros";
                return Err(Error::missing("--lambda", expected));
            }
            let most = config.model.layers.last().map_or(1, |layer| layer.atoms).min(channels);
            learning.target_nonzeros = Some((most as f32 / 4.0).clamp(1.0, USUAL_NONZEROS));
        }
        Ok(())
    }

    /// What a model says of how its codes are computed, as far as flags don't say otherwise.
    ///
    /// # Errors
    /// As [`Self::suit`].
    fn take_over(&self, config: &mut TrainConfig, coding: &CodingDefaults) -> Result<()> {
        let learning = &mut config.learning;
        learning.nonnegative = (coding.nonnegative || self.nonnegative) && !self.signed;
        let greedy = self.pursuit.as_deref() == Some("omp");
        match coding {
            _ if self.lambda.is_some() || self.target_nonzeros.is_some() || greedy => {}
            CodingDefaults { nonzeros: Some(nonzeros), .. }
                if learning.update != UpdateRule::Unrolled && self.pursuit.is_none() =>
            {
                learning.code_nonzeros = Some(*nonzeros);
            }
            CodingDefaults { lambda: Some(lambda), .. } => learning.lambda = Schedule::constant(*lambda),
            _ => {
                let train = self.signals(config, None)?.train;
                return self.suit(config, Some(&*train));
            }
        }
        if config.model.signal.is_single_position() && self.batch_size.is_none() {
            config.learning.batch_size = VECTORS_PER_STEP;
        }
        Ok(())
    }

    /// Trains by a configuration that is complete, and reports. `file` is where it comes from, flags aside.
    fn train(
        &self,
        folder: &Path,
        config: &TrainConfig,
        file: Option<&Path>,
        device: &Devices,
        started: Instant,
        ranks: &Ranks,
    ) -> Result<()> {
        self.check(config, file)?;
        if config.learning.update != UpdateRule::Unrolled {
            self.device.refuse_several(&device.further)?;
        }
        if !self.resume {
            self.refuse_inputs(folder, &config.data.source, config.model.layers.len())?;
        }
        let data = self.signals(config, file)?;
        if !self.resume {
            self.check_shape(config, data.train.shape(), &data.train.describe())?;
        }
        let scaled = config.model.normalization == Normalization::Standardise;
        let (outliers, small) = match ranks.is_first() {
            true => (told_outliers(&*data.train, scaled)?, told_small_lambda(config, &*data.train)?),
            false => (None, None),
        };
        interrupt::watch();
        let mut observer = Screen::new(config, data.train.describe());
        observer.report = (!self.no_report && ranks.is_first()).then(|| Page {
            folder: folder.into(),
            held_out: data.test.clone(),
            device: self.device.name(),
        });
        let claim = ranks.is_first().then(|| RunFolder::new(folder).claim()).transpose();
        let _claim = claim.map_err(|error| self.named(error, file))?;
        let begun = self.resume && !RunFolder::new(folder).is_unstarted();
        let planned = file.filter(|_| begun).map(|path| parse_config(path, &files::read_whole(path)?, None));
        let planned = planned.transpose()?.map(|config| config.learning.epochs);
        let run = if begun {
            Run::resume_on(folder, config, &data, &device.first, ranks.clone())
        } else {
            let from = self.from.as_ref().map(|path| Mlcsc::load(path, &device.first)).transpose()?;
            let from = from.as_ref().map(|(model, _)| model);
            let run = Run::create_on(folder, config, from, &data, &device.first, &mut observer, ranks.clone());
            interrupt::named(
                run,
                &format!("initialising was not finished; it begins anew with: {}", page::resume(folder)),
            )
        };
        let run = run.map_err(|error| self.named(error, file))?;
        let epochs = config.learning.epochs;
        if let Some(planned) = planned.filter(|planned| *planned != epochs && ranks.is_first()) {
            output::complain(&planned_anew(planned, epochs));
        }
        let dashboard = self.dashboard()?;
        let mut run = run.with_dashboard(dashboard).with_further_devices(device.further.clone());
        if dashboard {
            // Lines would tear it.
            observer.finish();
        } else {
            observer.training(&run);
        }
        let outcome = run.train(&data, &interrupt::interrupted, &mut observer);
        let outcome = outcome.map_err(|error| {
            if matches!(error, Error::Io { .. }) {
                output::complain(&format!("note: the last checkpoint is kept; go on with: {}", page::resume(folder)));
            }
            self.named(error, file)
        })?;
        let exact = match outcome {
            Outcome::Finished => exact_codes(&run, &data, &mut observer)?,
            Outcome::Interrupted => None,
        };
        observer.finish();
        if outcome == Outcome::Interrupted {
            let state = format!(
                "{} of {} are done; go on with: {}",
                output::grouped(run.state().steps_done() as u64),
                output::counted(run.state().steps(), "step"),
                page::resume(folder)
            );
            return Err(Error::Interrupted(state));
        }
        if !ranks.is_first() {
            return Ok(());
        }
        let pictures = folder.join("pictures");
        let files = export_model(&run.state().model()?, &pictures)?;
        // Once more: what is kept may be an earlier state than the last epoch's.
        let page = observer.report.take().and_then(|page| page.write(run.state()));
        let seconds = started.elapsed().as_secs_f64();
        let written = Written { pictures, files, page, exchanged: ranks.exchanged() };
        self.report(
            &run,
            exact.as_ref(),
            &written,
            [data.all.skipped(), outliers.as_deref(), small.as_deref()],
            seconds,
        )
    }

    /// [`check_shape`], or the flag that is missing where none says what is to be learned.
    fn check_shape(&self, config: &TrainConfig, found: SignalShape, source: &str) -> Result<()> {
        let nothing = self.preset.is_none() && self.config.is_none() && self.from.is_none() && self.atoms.is_empty();
        let patches = config.data.patch.is_some() || (found.height > 1 && matches!(found.channels, 1 | 3));
        match check_shape(config, found, source) {
            Err(Error::Shape { .. }) if nothing && !patches => {
                let expected = format!(
                    "how many atoms are learned from the signals of {source}, {found} each; the default preset is for {}",
                    config.model.signal
                );
                Err(Error::missing("--atoms", expected))
            }
            checked => checked,
        }
    }

    /// Refuses a folder in which the run would write over what it reads, and one that is called like a file.
    fn refuse_inputs(&self, folder: &Path, source: &str, depth: usize) -> Result<()> {
        output::check_folder_name(folder, "a folder, in which a run keeps several files")?;
        let inputs = Inputs::default()
            .and("--config", self.config.as_deref())
            .and("--from", self.from.as_deref())
            .and_data(Some(source));
        inputs.refuse_in("--out", folder, RUN_FILES)?;
        let pictures = folder.join("pictures");
        // A folder of signals that pictures are written into would hold other signals the next time.
        inputs.refuse("--out", &pictures)?;
        inputs.refuse_in("--out", &pictures, files_of(depth).iter().map(String::as_str).chain(["atoms.png"]))
    }

    /// Checks a configuration that is complete.
    fn check(&self, config: &TrainConfig, file: Option<&Path>) -> Result<()> {
        config.check().map(drop).map_err(|error| match (&error, file) {
            (Error::Shape { .. }, Some(path)) => Error::format(path, error.to_string()),
            _ => self.named(error, file),
        })
    }

    /// The signals of a configuration.
    fn signals(&self, config: &TrainConfig, file: Option<&Path>) -> Result<Dataset> {
        if config.data.source.is_empty() {
            let expected = "`digits`, `mnist` or the path of a file or folder";
            if self.data.source.is_some() {
                return Err(Error::parameter("--data", "\"\"", expected));
            }
            if let Some(path) = file {
                return Err(Error::missing("--data", format!("{expected}, for {} names none", path.display())));
            }
            let of = self.preset.as_ref().map_or(String::new(), |preset| format!(" for the preset {preset}"));
            return Err(Error::missing("--data", format!("a folder of pictures or other signals{of}")));
        }
        open_configured(&config.data).map_err(|error| self.named(error, file))
    }

    /// A mistake named as the flag that it came by; else as the file that holds it; else as the flag that mends it.
    fn named(&self, error: Error, file: Option<&Path>) -> Error {
        let Error::Parameter { parameter, value, mut expected } = error else {
            // What is missing came by nothing; a flag says it.
            return if matches!(error, Error::Missing { .. }) { flags::named::<Self>(error) } else { error };
        };
        // Where the folder came by no flag, one was made up.
        let given = parameter == "out" || self.given.holds::<Self>(&parameter);
        if parameter == "data.source" && self.resume && !given {
            expected.push_str("; where they lie elsewhere by now: --data PATH");
        }
        let error = Error::Parameter { parameter, value, expected };
        match file {
            Some(path) if !given => Error::format(path, error.to_string()),
            _ => flags::named::<Self>(error),
        }
    }

    /// The rival that is asked for, if one is.
    fn rival_of<'a>(&'a self, file: Option<(&'a Path, &'a [u8])>) -> Option<Chosen<'a>> {
        match (self.model.as_deref(), file) {
            (Some("dictionary"), _) => None,
            (Some(name), _) => Some(Chosen::Named(name)),
            (None, Some((path, text))) if super::rival::is_rival_config(text) => Some(Chosen::Configured(path, text)),
            (None, _) => None,
        }
    }

    /// Whether burn's dashboard is wanted.
    fn dashboard(&self) -> Result<bool> {
        #[cfg(feature = "tui")]
        if self.tui {
            use std::io::IsTerminal;
            return match std::io::stdout().is_terminal() {
                true => Ok(true),
                false => Err(Error::missing("terminal for the dashboard of --tui", "stdout to be one")),
            };
        }
        Ok(false)
    }

    /// Trains a rival from the beginning.
    fn rival(&self, chosen: Chosen, device: &Devices, started: Instant) -> Result<()> {
        let refused: [(&str, Option<String>); 11] = [
            ("--task", self.task.clone()),
            ("--incoherence", self.incoherence.map(|strength| strength.to_string())),
            ("--target-nonzeros", self.target_nonzeros.map(|target| target.to_string())),
            ("--pursuit", self.pursuit.clone()),
            ("--signed", self.signed.then(|| "given".into())),
            ("--nonnegative", self.nonnegative.then(|| "given".into())),
            ("--lambda", self.lambda.map(|lambda| lambda.to_string())),
            ("--method", self.method.map(|method| method.to_string())),
            ("--gradient", self.gradient.map(|gradient| gradient.to_string())),
            ("--unrolled-iterations", self.unrolled_iterations.map(|iterations| iterations.to_string())),
            ("--from", self.from.as_ref().map(|path| path.display().to_string())),
        ];
        if let Some((flag, Some(value))) = refused.into_iter().find(|(_, value)| value.is_some()) {
            return Err(Error::parameter(
                flag,
                value,
                "none where one of the model's rivals is trained; its other settings belong in a file for --config",
            ));
        }
        let wishes = super::rival::RivalRequest {
            chosen,
            units: self.units,
            nonzeros: self.nonzeros,
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            seed: self.seed,
            data: &self.data,
        };
        let (name, file) = match chosen {
            Chosen::Named(name) => (name.to_owned(), None),
            Chosen::Configured(path, _) => (stem(&path.to_string_lossy()), Some(path)),
        };
        let screen = self.screen(device, started, file);
        if self.print_schema {
            return super::rival::print_schema(&wishes);
        }
        if self.print_config {
            return super::rival::print_config(&wishes, &screen);
        }
        let source = self.data.source.clone().unwrap_or_else(|| DataConfig::default().source);
        let folder = self.out.clone().unwrap_or_else(|| new_folder(&source, &name));
        self.refuse_inputs(&folder, &source, 0)?;
        super::rival::train(&folder, &wishes, self.dashboard()?, &screen)
    }

    /// Goes on with a rival's run.
    fn resume_rival(&self, folder: &Path, device: &Devices, started: Instant) -> Result<()> {
        let path = RunFolder::new(folder).existing_config()?;
        let screen = self.screen(device, started, Some(&path));
        super::rival::resume(folder, self.epochs, self.data.source.as_deref(), self.dashboard()?, &screen)
    }

    /// Where a rival's results go, `file` being the configuration's.
    fn screen<'a>(
        &'a self,
        device: &'a Devices,
        started: Instant,
        file: Option<&'a Path>,
    ) -> super::rival::RivalOutput<'a> {
        let named = Box::new(move |error| self.named(error, file));
        let report = !self.no_report;
        let Devices { first: device, further } = device;
        super::rival::RivalOutput { device, further, name: self.device.name(), json: self.json, report, started, named }
    }

    /// Preset or file, with what the flags say put over it.
    fn configuration(&self, file: Option<(&Path, &[u8])>) -> Result<TrainConfig> {
        // Its numbers are on the device that the run will have; here only the geometry is of interest.
        let from = self.from.as_ref().map(|path| Ok(Mlcsc::load(path, &self.device.open_all()?.0)?.0.config().clone()));
        let from = from.transpose()?;
        let mut config = match file {
            Some((path, text)) => parse_config(path, text, from.as_ref())?,
            None => {
                let preset = self.preset.unwrap_or(Preset::Small);
                let mut config = TrainConfig::preset(preset);
                if let Some(Pair([height, width])) = self.data.patch.filter(|_| preset.is_local()) {
                    config.model.signal = SignalShape { height, width, ..config.model.signal };
                    let fits = |size: usize| {
                        let signal = SignalShape { height: size, width: size, ..config.model.signal };
                        ModelConfig { signal, ..config.model.clone() }.geometry().is_ok()
                    };
                    if let Err(error) = config.model.geometry() {
                        let least = (1..=64).find(|&size| fits(size)).unwrap_or(64);
                        if height.min(width) >= least {
                            return Err(error);
                        }
                        let expected = format!("patches of at least {least}x{least} for the preset {preset}");
                        return Err(Error::parameter("--patch", Pair([height, width]), expected));
                    }
                }
                if config.data.patch.is_some() && self.data.source.is_none() {
                    // Patches are cut from pictures: from which, only the user knows.
                    config.data.source.clear();
                }
                config
            }
        };
        if let (Some(path), Some(model)) = (&self.from, from) {
            if let Some(preset) = self.preset.as_ref().filter(|_| config.model != model) {
                let expected = format!(
                    "a model of the preset {preset}'s geometry ({}), found {}; without --preset its own is taken over",
                    described(&config.model),
                    described(&model)
                );
                return Err(Error::parameter("--from", path.display(), expected));
            }
            config.model = model;
        }
        config.model.normalization = self.normalization.unwrap_or(config.model.normalization);
        if let Some(units) = self.units.filter(|_| self.model.is_none()) {
            return Err(Error::parameter("--units", units, "--model beside it"));
        }
        let learning = &mut config.learning;
        learning.update = self.method.unwrap_or(learning.update);
        let unrolled = learning.update == UpdateRule::Unrolled;
        if let Some(iterations) = self.unrolled_iterations {
            if !unrolled {
                return Err(Error::parameter("--unrolled-iterations", iterations, "--method unrolled beside it"));
            }
            learning.unrolled.iterations = iterations;
        }
        if let Some(gradient) = self.gradient {
            if !unrolled {
                return Err(Error::parameter("--gradient", gradient, "--method unrolled beside it"));
            }
            learning.unrolled.gradient = gradient;
        }
        if let Some(rate) = self.learning_rate {
            if !unrolled {
                return Err(Error::parameter("--learning-rate", rate, "--method unrolled or --model beside it"));
            }
            learning.unrolled.optimization.learning_rate = rate;
        }
        match (self.task.as_deref(), self.noise) {
            (None, _) => (),
            (Some(task), _) if !unrolled => {
                return Err(Error::parameter("--task", task, "--method unrolled beside it"));
            }
            (Some("denoise"), None) if learning.unrolled.denoises.is_none() => {
                return Err(Error::missing(
                    "--noise",
                    "the standard deviation of the noise that --task denoise takes off",
                ));
            }
            (Some("denoise"), noise) => {
                if let Some(NoiseRange(range)) = noise {
                    let source = self.data.source.as_deref().unwrap_or(&config.data.source);
                    let white = if has_own_units(Path::new(source)) { 1.0 } else { 255.0 };
                    learning.unrolled.denoises = Some(range.map(|sigma| sigma / white));
                    if file.is_none() {
                        learning.lambda = Schedule::constant((range[0] + range[1]) / (2.0 * white));
                        (learning.target_nonzeros, learning.code_nonzeros) = (None, None);
                    }
                }
                if self.gradient.is_none() && learning.unrolled.gradient.is_exact() {
                    learning.unrolled.gradient = GradientMode::Unrolled;
                }
            }
            (Some(task), Some(_)) => {
                return Err(Error::parameter("--noise", "given", format!("--task denoise beside it, not {task}")));
            }
            (Some(_), None) => learning.unrolled.denoises = None,
        }
        learning.epochs = self.epochs.unwrap_or(learning.epochs);
        learning.batch_size = self.batch_size.unwrap_or(learning.batch_size);
        if let Some(lambda) = self.lambda {
            learning.lambda = Schedule::constant(lambda);
            (learning.target_nonzeros, learning.code_nonzeros) = (None, None);
        }
        if self.target_nonzeros.is_some() {
            (learning.target_nonzeros, learning.code_nonzeros) = (self.target_nonzeros, None);
        }
        match (self.pursuit.as_deref(), self.nonzeros) {
            (Some("omp"), None) if learning.code_nonzeros.is_none() => {
                return Err(Error::missing("--nonzeros", "how many non-zeros --pursuit omp gives every code"));
            }
            (Some("omp"), nonzeros) => {
                if let Some(target) = self.target_nonzeros {
                    return Err(Error::parameter("--target-nonzeros", target, "--pursuit bp: it is λ that is steered"));
                }
                learning.code_nonzeros = nonzeros.or(learning.code_nonzeros);
                learning.target_nonzeros = None;
            }
            (_, Some(nonzeros)) => {
                return Err(Error::parameter(
                    "--nonzeros",
                    nonzeros,
                    "--pursuit omp beside it; with bp --target-nonzeros",
                ));
            }
            (Some(_), None) => learning.code_nonzeros = None,
            (None, None) => {}
        }
        learning.pursuit.incoherence = self.incoherence.unwrap_or(learning.pursuit.incoherence);
        learning.nonnegative = (learning.nonnegative || self.nonnegative) && !self.signed;
        learning.seed = self.seed.unwrap_or(learning.seed);
        config.data.seed = self.seed.unwrap_or(config.data.seed);
        config.data = self.data.complete(config.data)?;
        config.data.window = self.window.or(config.data.window);
        if let (Some(window), Some(patch), None) = (self.window, config.data.patch, file) {
            // One number is a length where signals have one row; otherwise it does not matter how many there are.
            let rows = if window.0[0] == 1 || patch.0[0] == 1 { 1 } else { 2 };
            let together = Overlapping::new(window.on_rows(rows), patch.on_rows(rows));
            let together = together.map_err(flags::named::<Self>)?.count();
            if self.batch_size.is_none() {
                config.learning.batch_size = WINDOWS_PER_STEP * together;
            }
            if self.learning_rate.is_none() {
                let unrolled = &mut config.learning.unrolled;
                unrolled.optimization.learning_rate = RATE_OF_WINDOWS;
                unrolled.encoder_rate = Some(RATE_OF_WINDOWS);
            }
        }
        Ok(config)
    }

    /// The first free name below `runs/`.
    fn new_folder(&self, config: &TrainConfig) -> PathBuf {
        let settings = match (&self.config, &self.preset) {
            (Some(path), _) => stem(&path.to_string_lossy()),
            (None, Some(preset)) => preset.to_string(),
            (None, None) if !self.atoms.is_empty() => {
                self.atoms.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
            }
            (None, None) => Preset::Small.to_string(),
        };
        let settings = self.model.clone().unwrap_or(settings);
        new_folder(&config.data.source, &settings)
    }

    fn report(
        &self,
        run: &Run,
        exact: Option<&metrics::Summary>,
        written: &Written,
        [skipped, outliers, small]: [Option<&str>; 3],
        seconds: f64,
    ) -> Result<()> {
        let Written { pictures, files, page, exchanged } = written;
        let is_drawn = |file: &&PathBuf| file.extension().is_some_and(|end| end == "png");
        let drawn: Vec<_> =
            files.iter().filter(is_drawn).filter_map(|file| Some(file.file_name()?.to_string_lossy())).collect();
        let model = run.model_path();
        let found = (run.last_epoch(), run.kept().and_then(|record| Some((record.kept(), record.held_out()?))));
        let (Some(Record::Epoch { epoch, train: EpochMeasures { train }, .. }), Some((kept, held_out))) = found else {
            // Its metrics were removed.
            return match self.json {
                true => output::print_json(&json!({ "run": shown(run.folder()), "model": shown(&model) })),
                false => output::print(&format!("model: {}", model.display())),
            };
        };
        // Nothing that a number of decibels would tell.
        let zeros = (train.nonzeros.last() == Some(&0.0)).then(|| {
            let lambda = number(run.state().lambda().into());
            format!("every code of the last epoch is zero: λ = {lambda} leaves nothing to learn from; lower --lambda")
        });
        let off_target = run.state().config().learning.target_nonzeros.filter(|_| zeros.is_none()).and_then(|target| {
            let (target, found) = (f64::from(target), *held_out.test.nonzeros.last()?);
            ((found / target - 1.0).abs() > FAR_FROM_TARGET).then(|| {
                let [found, target] = [found, target].map(number);
                format!("{found} non-zeros where {target} were the target: λ had not settled (raise --epochs), or no λ leaves so many")
            })
        });
        let worse = held_out.test.fvu.filter(|fvu| *fvu > 1.0 && zeros.is_none()).map(|unexplained| {
            let unexplained = number(100.0 * unexplained);
            format!("held-out signals are explained worse than by their mean: {unexplained}% of their variance is left")
        });
        let said: Vec<String> = [zeros, off_target, worse].into_iter().flatten().collect();
        let warning = (!said.is_empty()).then(|| said.join("; "));
        if let Some(warning) = &warning {
            output::complain(&format!("warning: {warning}"));
        }
        let HeldOut { test, dictionaries, loss, diagnostics } = held_out;
        let TrainConfig { learning, .. } = run.state().config();
        let LearningConfig { gap, max_iterations, .. } = *learning;
        let basis = BasisPursuitConfig { gap, max_iterations, ..BasisPursuitConfig::default() };
        if self.json {
            let mut document = json!({
                "run": shown(run.folder()),
                "model": shown(&model),
                "pictures": files.iter().filter(is_drawn).map(|file| shown(file)).collect::<Vec<_>>(),
                "report": page.as_deref().map(shown),
                "device": self.device.name(),
                "precision": crate::device::precision(),
                "seconds": seconds,
                "epochs": epoch,
                "skipped": skipped,
                "outliers": outliers,
                "small_lambda": small,
                "train": train,
                "test": test,
                "not_converged": {
                    "train": not_converged_json(&train.convergence, &basis),
                    "test": not_converged_json(&test.convergence, &basis),
                },
                "dictionaries": dictionaries,
            });
            if let Some(exchanged) = exchanged {
                document["exchanged"] = json!(exchanged);
            }
            if let Some(warning) = warning {
                document["warning"] = json!(warning);
            }
            if let (Some(loss), Some(diagnostics)) = (loss, diagnostics) {
                document["test_loss"] = json!(loss);
                document["diagnostics"] = json!(diagnostics);
            }
            if let Some(exact) = exact {
                document["exact"] = json!(exact);
                document["not_converged"]["exact"] = not_converged_json(&exact.convergence, &basis);
            }
            if let Some(kept) = kept {
                document["kept"] = json!(kept);
                document["start"] = json!(run.start().and_then(Record::held_out).map(|start| &start.test));
            }
            return output::print_json(&document);
        }
        let list = |values: &[f64]| values.iter().map(|&value| number(value)).collect::<Vec<_>>().join(", ");
        let percent =
            |values: &[f64]| values.iter().map(|value| format!("{:.1}%", 100.0 * value)).collect::<Vec<_>>().join(", ");
        let since = if self.resume { " since it was resumed" } else { "" };
        let mut summary = Summary::new(format!(
            "{} in {seconds:.0} s{since}; on {}:",
            output::counted(*epoch, "epoch"),
            output::counted(test.signals, "held-out signal")
        ));
        let cosine = test.cosine.or_else(|| diagnostics.as_ref().and_then(|diagnostics| diagnostics.cosine));
        let objective = exact.map_or_else(
            || number(test.objective),
            |exact| {
                let above = 100.0 * (test.objective / exact.objective - 1.0);
                let [own, exact] = [test.objective, exact.objective].map(number);
                format!("{own} with the encoder's codes, {above:.1}% above {exact} with exact ones")
            },
        );
        summary
            .row("objective", objective)
            .row("PSNR", output::decibels(test.psnr))
            .row("variance unexplained", output::unexplained(test.fvu))
            .row("cosine", or_dash(cosine, |cosine| format!("{cosine:.4}")))
            .row("λ", if run.state().coding().nonzeros.is_some() { "–".into() } else { number(test.lambda) })
            .row("non-zeros of γ_1 … γ_L", list(&test.nonzeros))
            .row("zeros in D_1 … D_L", percent(&dictionaries.zeros))
            .row(
                "dead, dense atoms",
                format!("{}, {} of {}", test.dead_atoms, test.dense_atoms, test.density.iter().sum::<usize>()),
            )
            .row(
                "atoms by density",
                format!(
                    "{} (below 10⁻⁵, then by powers of ten)",
                    test.density.map(|count| count.to_string()).join("/")
                ),
            );
        if let Some(diagnostics) = diagnostics {
            let short = |value| or_dash(value, |value| format!("{value:.3}"));
            summary
                .row(
                    "Hoyer sparsity, shrinkage",
                    format!("{}, {}", short(diagnostics.hoyer), short(diagnostics.shrinkage)),
                )
                .row("gap to the pursuit", number(test.gap));
        }
        if let Some(kept) = kept {
            let start = run.start().and_then(Record::held_out).and_then(|start| start.loss);
            summary.row("kept", output::kept(&kept, *epoch, start));
        }
        if let Some(Exchanged { ranks, bytes, seconds, .. }) = exchanged {
            let text =
                format!("{ranks}, which exchanged {} MB in {} s", number(*bytes as f64 * 1e-6), number(*seconds));
            summary.row("processes", text);
        }
        summary.row("model", model.display()).row("pictures", format!("{} ({})", pictures.display(), drawn.join(", ")));
        if let Some(page) = page {
            summary.row("report", page.display());
        }
        let names = ["learning.gap", "learning.max_iterations"];
        let held_out = exact.unwrap_or(test);
        let parts = [(&train.convergence, "training signal"), (&held_out.convergence, "held-out signal")];
        let ends = parts.into_iter().filter_map(|(tally, noun)| not_converged_by(tally, &basis, noun, names));
        let lines: Vec<String> = std::iter::once(summary.text()).chain(ends).collect();
        output::print(&lines.join("\n"))
    }
}

/// Held-out signals by the pursuit, where the run's encoder has parameters of its own and was measured by its own codes; `None`
/// too if Ctrl-C was pressed.
fn exact_codes(run: &Run, data: &Dataset, observer: &mut Screen) -> Result<Option<metrics::Summary>> {
    let TrainConfig { model, learning, .. } = run.state().config();
    let by_encoder = learning.update == UpdateRule::Unrolled
        && learning.unrolled.autoencoder(model, learning.lambda, learning.nonnegative)?.has_own();
    if !by_encoder {
        return Ok(None);
    }
    run.state().evaluate(&*data.test, |part| {
        observer.evaluating(part);
        !interrupt::interrupted()
    })
}

/// Root mean square of the values of signals as they are coded, of two digits, as λ is for pixels; `None` where they have no size.
///
/// # Errors
/// Signals that cannot be read.
fn root_mean_square(config: &TrainConfig, train: &dyn Source) -> Result<Option<f32>> {
    let shape = train.shape();
    let (channels, positions) = (shape.channels, shape.height * shape.width);
    // Of every channel sum and squares, of the signals less their own means where these are taken off.
    let own = matches!(config.model.normalization, Normalization::Center | Normalization::HighPass);
    let of_all = config.model.normalization == Normalization::Mean;
    if !own && !of_all && config.model.normalization != Normalization::None {
        // The others divide by the deviation.
        return Ok(Some(1.0));
    }
    let mut sums = vec![[0.0f64; 2]; channels];
    let mut count = 0usize;
    sample(train, MEASURED, |values| {
        for signal in values.chunks_exact(shape.len()) {
            let mean = match own {
                true => signal.iter().map(|&value| f64::from(value)).sum::<f64>() / signal.len() as f64,
                false => 0.0,
            };
            for (sums, channel) in sums.iter_mut().zip(signal.chunks_exact(positions)) {
                for value in channel.iter().map(|&value| f64::from(value) - mean) {
                    *sums = [sums[0] + value, sums[1] + value * value];
                }
            }
        }
        count += values.len() / channels;
    })?;
    let of_channel = count.max(1) as f64;
    let taken_off = |sum: f64| if of_all { sum * sum / of_channel } else { 0.0 };
    let squares: f64 = sums.iter().map(|[sum, square]| square - taken_off(*sum)).sum();
    let size = (squares / (of_channel * channels as f64)).sqrt();
    if size.is_nan() || size <= 0.0 {
        return Ok(None);
    }
    // More digits would say nothing.
    let unit = 10f64.powf(size.log10().floor() - 1.0);
    Ok(Some(((size / unit).round() * unit) as f32))
}

/// Part of the size of signals below which λ is remarked on; presets on pixels in [0, 1] have a tenth of it or more.
const SMALL_LAMBDA: f32 = 0.005;

/// What there is to say of a λ that leaves nearly every coefficient, which is said on stderr as well.
///
/// # Errors
/// Signals that cannot be read.
fn told_small_lambda(config: &TrainConfig, train: &dyn Source) -> Result<Option<String>> {
    let learning = &config.learning;
    let lambda = learning.lambda.at(1.0);
    if learning.target_nonzeros.is_some() || learning.code_nonzeros.is_some() || lambda <= 0.0 {
        return Ok(None);
    }
    let Some(size) = root_mean_square(config, train)?.filter(|size| lambda < SMALL_LAMBDA * size) else {
        return Ok(None);
    };
    let told = format!(
        "λ = {} is next to nothing beside the values of {}, whose root mean square is {}, so that codes will be dense: bring them to [0, 1], or --lambda {}",
        number(lambda.into()),
        train.describe(),
        number(size.into()),
        number(size.into()),
    );
    output::complain(&format!("warning: {told}"));
    Ok(Some(told))
}

/// Whether signals are those that the model is made for; if not, what would make them so.
fn check_shape(config: &TrainConfig, found: SignalShape, source: &str) -> Result<()> {
    let expected = config.model.signal;
    if found == expected {
        return Ok(());
    }
    let wanted = wanted_shape(format!("{expected}, as the model's"), expected, found);
    Err(Error::shape(format!("signals of {source}"), wanted, found))
}

/// A geometry in a few words.
fn described(model: &ModelConfig) -> String {
    let layers = model.layers.iter().map(|layer| format!("{} of {}", layer.atoms, layer.kernel));
    format!("{} with atoms {}", model.signal, layers.collect::<Vec<_>>().join(", "))
}

/// A path's name without its ending.
fn stem(text: &str) -> String {
    let name = Path::new(text).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "data".into())
}

/// The first free name below `runs/` for a source and what is learned from it.
fn new_folder(source: &str, settings: &str) -> PathBuf {
    let base = format!("{}-{settings}", stem(source));
    (1..)
        .map(|number| if number == 1 { base.clone() } else { format!("{base}-{number}") })
        .map(|name| Path::new(RUNS).join(name))
        .find(|folder| !folder.exists())
        .unwrap_or_else(|| Path::new(RUNS).join(&base))
}

/// The run below `runs/` that was worked on last.
fn latest_run() -> Result<PathBuf> {
    let root = Path::new(RUNS);
    let changed = |folder: &PathBuf| {
        let files = ["checkpoint.safetensors", "config.json", "metrics.jsonl"].map(|name| folder.join(name));
        files.iter().filter_map(|file| file.metadata().ok()?.modified().ok()).max()
    };
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|folder| RunFolder::new(folder.as_path()).holds_run()).max_by_key(changed).ok_or_else(|| {
        Error::missing("--out", format!("the folder of the run to --resume; there is none below {RUNS}/"))
    })
}

/// What a run leaves to look at.
struct Written {
    pictures: PathBuf,
    files: Vec<PathBuf>,
    page: Option<PathBuf>,
    /// What the processes told each other, where there are several.
    exchanged: Option<Exchanged>,
}

/// Refuses several processes where gradients would have to be shared.
fn alone(ranks: &Ranks) -> Result<()> {
    match ranks.is_alone() {
        true => Ok(()),
        false => {
            let expected = "1: a rival is trained by one process, only --method pursuit and gradient are shared";
            Err(Error::parameter("number of processes", ranks.size(), expected))
        }
    }
}

/// The page about the run, rewritten at every epoch's end.
struct Page {
    folder: PathBuf,
    held_out: Arc<dyn Source>,
    device: String,
}

impl Page {
    /// The page's path. A page that cannot be written does not end a training: it is said.
    fn write(&self, learner: &TrainingState) -> Option<PathBuf> {
        let path = self.folder.join(REPORT);
        let config = learner.config();
        let coding = learner.coding();
        let origin = origin_of_run(&self.folder, config.learning.seed, config.data.seed, self.device.clone());
        let written = learner
            .model()
            .and_then(|model| report::write(&path, &self.folder, &model, &coding, Some(&*self.held_out), &origin));
        match written {
            Ok(()) => Some(path),
            Err(error) => {
                output::complain(&format!("warning: no report: {error}"));
                None
            }
        }
    }
}

/// Progress on the terminal, or lines now and then.
struct Screen {
    report: Option<Page>,
    epochs: usize,
    source: String,
    progress: Option<Progress>,
    last_line: Instant,
    started: Instant,
    first_step: usize,
    layers: usize,
}

impl Screen {
    fn new(config: &TrainConfig, source: String) -> Self {
        Self {
            report: None,
            epochs: config.learning.epochs,
            source,
            progress: None,
            last_line: Instant::now(),
            started: Instant::now(),
            first_step: 0,
            layers: config.model.layers.len(),
        }
    }

    /// The steps begin.
    fn training(&mut self, run: &Run) {
        let learner = run.state();
        // The bar of the initialisation goes before the next one comes.
        self.finish();
        let progress = Progress::new("training", "steps", learner.steps() as u64);
        progress.start_at(learner.steps_done() as u64);
        progress.line(&format!(
            "training on {} in {}: {} of {}",
            self.source,
            run.folder().display(),
            output::counted(self.epochs, "epoch"),
            output::counted(learner.steps_per_epoch(), "step")
        ));
        self.progress = Some(progress);
        self.first_step = learner.steps_done();
        self.started = Instant::now();
        self.last_line = Instant::now();
    }

    fn finish(&mut self) {
        self.progress = None;
    }
}

/// The loss that chooses the state to keep, where it is another number than the objective, as it is of a training to denoise.
fn told_loss(held_out: &HeldOut) -> String {
    let objective = held_out.test.objective;
    let loss = held_out.loss.filter(|loss| (loss - objective).abs() > 1e-3 * objective.abs());
    loss.map_or(String::new(), |loss| format!("loss {}  ", number(loss)))
}

impl Observer<Record, TrainingState> for Screen {
    fn initializing(&mut self, layer: usize, part: f32) -> Result<()> {
        let progress = self.progress.get_or_insert_with(|| Progress::new("initialising", PER_CENT, 100));
        let done = ((layer - 1) as f32 + part) / (self.layers.max(2) - 1) as f32;
        progress.set((100.0 * done) as u64);
        interrupt::check("initialising was not finished")
    }

    fn coding(&mut self, part: f32) {
        let Some(progress) = self.progress.as_ref().filter(|_| part < 1.0) else { return };
        let text = format!("this step's batch: {:.0}% coded", 100.0 * part);
        if !progress.is_visible() && self.last_line.elapsed() > LINE_EVERY {
            self.last_line = Instant::now();
            progress.line(&text);
        }
        progress.message(text);
    }

    fn record(&mut self, record: &Record, learner: &TrainingState) -> Result<()> {
        if let (Record::Epoch { epoch, .. }, Some(page)) = (record, &self.report) {
            // The last one follows the end of the run.
            if *epoch < self.epochs {
                page.write(learner);
            }
        }
        let Some(progress) = &self.progress else { return Ok(()) };
        match record {
            Record::Start { held_out, .. } => {
                let test = &held_out.test;
                progress.line(&format!(
                    "start  {}objective {}  {}FVU {}  dead {}",
                    told_loss(held_out),
                    number(test.objective),
                    output::spaced_decibels(test.psnr),
                    or_dash(test.fvu, |fvu| format!("{fvu:.3}")),
                    test.dead_atoms,
                ));
            }
            Record::Step { epoch, step, batch: BatchMeasures { batch, .. } } => {
                progress.advance(1);
                let text = format!(
                    "objective {}  {}{} signals/s",
                    number(batch.objective),
                    output::spaced_decibels(batch.psnr),
                    number(batch.signals_per_second)
                );
                if !progress.is_visible() && self.last_line.elapsed() > LINE_EVERY {
                    self.last_line = Instant::now();
                    let done = (step - self.first_step) as f64;
                    let left = self.started.elapsed().as_secs_f64() / done * (learner.steps() - step) as f64;
                    progress.line(&format!(
                        "epoch {epoch}/{}  step {step}/{}  {text}  {left:.0} s left",
                        self.epochs,
                        learner.steps()
                    ));
                }
                progress.message(text);
            }
            Record::Epoch { epoch, train: EpochMeasures { train }, held_out, .. } => {
                let HeldOut { test, dictionaries, .. } = held_out;
                let loss = told_loss(held_out);
                let zeros: Vec<String> =
                    dictionaries.zeros.iter().map(|part| format!("{:.1}%", 100.0 * part)).collect();
                let nonzeros: Vec<String> = test.nonzeros.iter().map(|&count| number(count)).collect();
                let coherence: Vec<String> = dictionaries
                    .effective_coherence
                    .iter()
                    .flatten()
                    .map(|&coherence| format!("{coherence:.2}"))
                    .collect();
                progress.line(&format!(
                    "epoch {epoch}/{}  {loss}objective {} (training {})  {}FVU {}  non-zeros {}  zeros {}  dead {}  \
                     coherence {}",
                    self.epochs,
                    number(test.objective),
                    number(train.objective),
                    output::spaced_decibels(test.psnr),
                    or_dash(test.fvu, |fvu| format!("{fvu:.3}")),
                    nonzeros.join("/"),
                    zeros.join("/"),
                    test.dead_atoms,
                    coherence.join("/"),
                ));
            }
        }
        Ok(())
    }

    fn evaluating(&mut self, part: f32) {
        if let Some(progress) = &self.progress {
            progress.message(format!("held-out signals: {:.0}%", 100.0 * part));
        }
    }
}
