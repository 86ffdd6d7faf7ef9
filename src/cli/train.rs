//! `mlcsc train`.

use super::data::DataArgs;
use super::interrupt;
use super::output::{self, Summary, number};
use super::progress::Progress;
use super::{DeviceArgs, usage_of_flag};
use crate::baselines::one_layer;
use crate::data::{self, DataConfig};
use crate::error::{Error, Result};
use crate::export::model::export_model;
use crate::learn::config::{Schedule, TrainConfig, UpdateRule};
use crate::learn::run::{HeldOut, holds_run, is_unstarted, read_config, read_config_file};
use crate::learn::{Learner, Observer, Outcome, Record, Run};
use crate::model::Mlcsc;
use crate::model::preset::Preset;
use burn::tensor::Device;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Folder of the runs whose folder was not named.
const RUNS: &str = "runs";

/// Time between two lines about progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Learn a model's dictionaries from signals
///
/// Without arguments: digits drawn by a generator, a small model. The run's folder holds config.json, metrics.jsonl, a checkpoint
/// to resume from, model.safetensors and pictures of the filters.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Geometry and settings: small, mnist or natural. Default: small
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// Geometry and settings as a JSON file; a run's config.json is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the dictionaries are learned: pursuit, gradient (the paper's online update) or unrolled (end to end, through the
    /// layers of an unrolled pursuit). Default: pursuit, or what --config says
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Iterations of the pursuit that --method unrolled unrolls. Default: 30
    #[arg(long, value_name = "T")]
    unrolled_iterations: Option<usize>,
    /// Learning rate of --method unrolled and of --model. Default: 0.003 and 0.001
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// Go on from the dictionaries of a model file, by whatever method they were learned; their geometry is taken over
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Train one of the model's rivals instead: sae, k-sparse, top-k, fc-wta, stacked-wta, conv-wta or sdae; or a floor: pca,
    /// or dictionary (one layer)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["preset", "config", "method", "unrolled_iterations", "from"])]
    model: Option<String>,
    /// Hidden units of --model, in every layer. Default: what its authors used
    #[arg(long, value_name = "N", requires = "model")]
    units: Option<usize>,
    /// Follow --method unrolled or --model on burn's dashboard
    #[cfg(feature = "tui")]
    #[arg(long)]
    tui: bool,
    /// Folder of the run. Default: a new one below runs/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training signals
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Signals per step
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Weight λ of the ℓ1 norm
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lambda: Option<f32>,
    /// Seed of all randomness, of the data's too unless --data-seed is given
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Go on with the run in --out; without --out with the latest one below runs/
    #[arg(long, conflicts_with_all = ["preset", "config", "method", "unrolled_iterations", "learning_rate", "from", "model",
        "units", "batch_size", "lambda", "seed", "source", "count", "patch", "patches", "grey", "data_seed"])]
    resume: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

impl TrainArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Flags out of range; signals that cannot be read or do not fit the model; a folder that cannot be written.
    pub fn run(&self) -> Result<()> {
        let device = self.device.open()?;
        let started = Instant::now();
        if let Some(name) = self.model.as_deref().filter(|name| *name != "dictionary") {
            return self.rival(Ok(name), &device, started);
        }
        if let Some(path) = self.config.as_deref().filter(|path| super::rival::is_rival_file(path)) {
            return self.rival(Err(path), &device, started);
        }
        let (folder, config) = if self.resume {
            let folder = match &self.out {
                Some(folder) => folder.clone(),
                None => latest_run()?,
            };
            if super::rival::holds_rival(&folder) {
                return self.resume_rival(&folder, &device, started);
            }
            let mut config = read_config(&folder)?;
            config.learning.epochs = self.epochs.unwrap_or(config.learning.epochs);
            (folder, config)
        } else {
            let mut config = self.configuration()?;
            if self.model.is_some() {
                // One layer of atoms as large as the signals, whatever those are.
                let shape = super::data::open(&config.data)?.train.shape();
                config.model = one_layer(shape, self.units.unwrap_or(1000)).map_err(usage_of_flag)?;
            }
            let folder = self.out.clone().unwrap_or_else(|| self.new_folder(&config));
            (folder, config)
        };
        config.check().map_err(usage_of_flag)?;
        // What no flag said stands in a file.
        let flagged = self.data.source.is_some() || self.data.patch.is_some();
        let data = if flagged { super::data::open } else { data::open }(&config.data)?;
        interrupt::watch();
        let mut observer = Screen::new(&config, data.train.describe());
        let run = if self.resume && !is_unstarted(&folder) {
            Run::resume(&folder, &config, &data, &device)?
        } else {
            let from = self.from.as_ref().map(|path| Mlcsc::load(path, &device)).transpose()?;
            let from = from.as_ref().map(|(model, _)| model);
            Run::create_from(&folder, &config, from, &data, &device, &mut observer).map_err(usage_of_flag)?
        };
        let dashboard = self.dashboard()?;
        let mut run = run.with_dashboard(dashboard);
        if dashboard {
            // Lines would tear it.
            observer.finish();
        } else {
            observer.training(&run);
        }
        let outcome = run.train(&data, &interrupt::interrupted, &mut observer).map_err(usage_of_flag)?;
        observer.finish();
        if outcome == Outcome::Interrupted {
            let state = format!(
                "{} of {} steps are done; go on with: mlcsc train --resume --out {}",
                run.learner().steps_done(),
                run.learner().steps(),
                folder.display()
            );
            return Err(Error::Interrupted(state));
        }
        let pictures = folder.join("pictures");
        let files = export_model(&run.learner().model()?, &pictures)?;
        self.report(&run, &pictures, &files, started.elapsed().as_secs_f64())
    }

    /// Whether burn's dashboard is wanted.
    fn dashboard(&self) -> Result<bool> {
        #[cfg(feature = "tui")]
        if self.tui {
            use std::io::IsTerminal;
            return match std::io::stdout().is_terminal() {
                true => Ok(true),
                false => Err(Error::parameter("--tui", "given", "a terminal for the dashboard")),
            };
        }
        Ok(false)
    }

    /// Trains a rival from the beginning.
    fn rival(&self, rival: std::result::Result<&str, &Path>, device: &Device, started: Instant) -> Result<()> {
        let refused: [(&str, Option<String>); 4] = [
            ("--lambda", self.lambda.map(|lambda| lambda.to_string())),
            ("--method", self.method.clone()),
            ("--unrolled-iterations", self.unrolled_iterations.map(|iterations| iterations.to_string())),
            ("--from", self.from.as_ref().map(|path| path.display().to_string())),
        ];
        if let Some((flag, Some(value))) = refused.into_iter().find(|(_, value)| value.is_some()) {
            return Err(Error::parameter(flag, value, "none where one of the model's rivals is trained"));
        }
        let wishes = super::rival::Wishes {
            rival,
            units: self.units,
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            seed: self.seed,
            data: &self.data,
        };
        let name = rival.map_or_else(|path| stem(&path.to_string_lossy()), str::to_owned);
        let source = self.data.source.clone().unwrap_or_else(|| DataConfig::default().source);
        let folder = self.out.clone().unwrap_or_else(|| new_folder(&source, &name));
        let screen = super::rival::Screen { device, name: self.device.name(), json: self.json, started };
        super::rival::train(&folder, &wishes, self.dashboard()?, &screen)
    }

    /// Goes on with a rival's run.
    fn resume_rival(&self, folder: &Path, device: &Device, started: Instant) -> Result<()> {
        let screen = super::rival::Screen { device, name: self.device.name(), json: self.json, started };
        super::rival::resume(folder, self.epochs, self.dashboard()?, &screen)
    }

    /// Preset or file, with what the flags say put over it.
    fn configuration(&self) -> Result<TrainConfig> {
        let mut config = match &self.config {
            Some(path) => read_config_file(path)?,
            None => {
                let preset = Preset::named(self.preset.as_deref().unwrap_or("small")).map_err(usage_of_flag)?;
                if preset == Preset::Natural && self.data.source.is_none() {
                    return Err(Error::parameter("--data", "nothing", "a folder of images for the preset natural"));
                }
                TrainConfig::preset(preset)
            }
        };
        if let Some(path) = &self.from {
            // Its numbers are on the device that the run will have; here only the geometry is of interest.
            config.model = Mlcsc::load(path, &self.device.open()?)?.0.config().clone();
        }
        let learning = &mut config.learning;
        if let Some(method) = &self.method {
            learning.update = UpdateRule::named(method).map_err(usage_of_flag)?;
        }
        let unrolled = learning.update == UpdateRule::Unrolled;
        if let Some(iterations) = self.unrolled_iterations {
            if !unrolled {
                return Err(Error::parameter("--unrolled-iterations", iterations, "--method unrolled beside it"));
            }
            learning.unrolled.iterations = iterations;
        }
        if let Some(rate) = self.learning_rate {
            if !unrolled {
                return Err(Error::parameter("--learning-rate", rate, "--method unrolled or --model beside it"));
            }
            learning.unrolled.optimization.learning_rate = rate;
        }
        learning.epochs = self.epochs.unwrap_or(learning.epochs);
        learning.batch_size = self.batch_size.unwrap_or(learning.batch_size);
        learning.lambda = self.lambda.map_or(learning.lambda, Schedule::constant);
        learning.seed = self.seed.unwrap_or(learning.seed);
        config.data.seed = self.seed.unwrap_or(config.data.seed);
        config.data = self.data.apply(config.data)?;
        Ok(config)
    }

    /// The first free name below `runs/`.
    fn new_folder(&self, config: &TrainConfig) -> PathBuf {
        let settings = match (&self.config, &self.preset) {
            (Some(path), _) => stem(&path.to_string_lossy()),
            (None, preset) => preset.clone().unwrap_or_else(|| "small".into()),
        };
        let settings = self.model.clone().unwrap_or(settings);
        new_folder(&config.data.source, &settings)
    }

    fn report(&self, run: &Run, pictures: &Path, files: &[PathBuf], seconds: f64) -> Result<()> {
        let model = run.model_path();
        let found = (run.last_epoch(), run.kept().and_then(|record| Some((record.kept(), record.held_out()?))));
        let (Some(Record::Epoch { epoch, train, .. }), Some((kept, held_out))) = found else {
            // Its metrics were removed.
            return match self.json {
                true => output::print_json(&json!({ "run": run.folder(), "model": model })),
                false => output::print(&format!("model: {}", model.display())),
            };
        };
        let HeldOut { test, dictionaries, loss, diagnostics } = held_out;
        if self.json {
            let mut document = json!({
                "run": run.folder(),
                "model": model,
                "pictures": files.iter().filter(|file| file.extension().is_some_and(|end| end == "png")).collect::<Vec<_>>(),
                "device": self.device.name(),
                "seconds": seconds,
                "epochs": epoch,
                "train": train,
                "test": test,
                "dictionaries": dictionaries,
            });
            if let (Some(loss), Some(diagnostics)) = (loss, diagnostics) {
                document["test_loss"] = json!(loss);
                document["diagnostics"] = json!(diagnostics);
            }
            if let Some(kept) = kept {
                document["kept"] = json!(kept);
                document["start"] = json!(run.start().and_then(Record::held_out).map(|start| start.test));
            }
            return output::print_json(&document);
        }
        let list = |values: &[f64]| values.iter().map(|&value| number(value)).collect::<Vec<_>>().join(", ");
        let percent =
            |values: &[f64]| values.iter().map(|value| format!("{:.1}%", 100.0 * value)).collect::<Vec<_>>().join(", ");
        let mut summary = Summary::new(format!(
            "{epoch} epochs in {seconds:.0} s; on {} held-out signals:",
            output::grouped(test.signals as u64)
        ));
        summary
            .row("objective", number(test.objective))
            .row("PSNR", format!("{:.2} dB", test.psnr))
            .row("variance unexplained", format!("{:.1}%", 100.0 * test.fvu))
            .row("non-zeros of γ_1 … γ_L", list(&test.nonzeros))
            .row("zeros in D_1 … D_L", percent(&dictionaries.zeros))
            .row("dead atoms", test.dead_atoms);
        if let Some(diagnostics) = diagnostics {
            summary
                .row("Hoyer sparsity, shrinkage", format!("{:.3}, {:.3}", diagnostics.hoyer, diagnostics.shrinkage))
                .row("gap to the pursuit", number(test.gap));
        }
        if let Some(kept) = kept {
            let start = run.start().and_then(Record::held_out).and_then(|start| start.loss);
            summary.row("kept", output::kept(&kept, *epoch, start));
        }
        summary
            .row("model", model.display())
            .row("pictures", format!("{} (filters_1.png, effective_*.png)", pictures.display()));
        output::print(&summary.text())
    }
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
    entries
        .filter(|folder| holds_run(folder))
        .max_by_key(changed)
        .ok_or_else(|| Error::parameter("--resume", "no --out", format!("a run below {RUNS}/, or --out DIR")))
}

/// Progress on the terminal, or lines now and then.
struct Screen {
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
        let learner = run.learner();
        let progress = Progress::new("training", "steps", learner.steps() as u64);
        progress.start_at(learner.steps_done() as u64);
        progress.line(&format!(
            "training on {} in {}: {} epochs of {} steps",
            self.source,
            run.folder().display(),
            self.epochs,
            learner.steps_per_epoch()
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

impl Observer for Screen {
    fn initializing(&mut self, layer: usize, part: f32) {
        let progress = self
            .progress
            .get_or_insert_with(|| Progress::new("initialising", "%", 100 * (self.layers.max(2) - 1) as u64));
        let position = 100 * (layer - 1) as u64 + (100.0 * part) as u64;
        progress.start_at(position);
    }

    fn record(&mut self, record: &Record, learner: &Learner) -> Result<()> {
        let Some(progress) = &self.progress else { return Ok(()) };
        match record {
            Record::Start { test, .. } => progress.line(&format!(
                "start  objective {:.3}  {:.2} dB  FVU {:.3}  dead {}",
                test.objective, test.psnr, test.fvu, test.dead_atoms,
            )),
            Record::Step { epoch, step, batch, .. } => {
                progress.advance(1);
                let text = format!(
                    "objective {:.3}  {:.2} dB  {} signals/s",
                    batch.objective,
                    batch.psnr,
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
            Record::Epoch { epoch, train, test, dictionaries, .. } => {
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
                    "epoch {epoch}/{}  objective {:.3} (training {:.3})  {:.2} dB  FVU {:.3}  non-zeros {}  zeros {}  dead {}  \
                     coherence {}",
                    self.epochs,
                    test.objective,
                    train.objective,
                    test.psnr,
                    test.fvu,
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
