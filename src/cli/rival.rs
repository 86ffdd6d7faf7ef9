//! `mlcsc train --model …`: the model's rivals.

use super::data::DataArgs;
use burn::tensor::Device;
use std::path::Path;
use std::time::Instant;

#[cfg(feature = "train")]
pub use trained::{holds_rival, is_rival_file, resume, train};
#[cfg(not(feature = "train"))]
pub use untrained::{holds_rival, is_rival_file, resume, train};

/// What the flags say.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "nothing is trained"))]
pub struct Wishes<'a> {
    /// A rival by name, or a configuration that has one.
    pub rival: std::result::Result<&'a str, &'a Path>,
    pub units: Option<usize>,
    pub epochs: Option<usize>,
    pub batch_size: Option<usize>,
    pub learning_rate: Option<f64>,
    pub seed: Option<u64>,
    pub data: &'a DataArgs,
}

/// Where results go, and what is said of them.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "nothing is trained"))]
pub struct Screen<'a> {
    pub device: &'a Device,
    pub name: String,
    pub json: bool,
    pub started: Instant,
}

#[cfg(feature = "train")]
mod trained {
    use super::super::interrupt;
    use super::super::output::{self, Summary, number};
    use super::super::progress::Progress;
    use super::super::usage_of_flag;
    use super::{Screen, Wishes};
    use crate::autoencoder::diagnostics::diagnose;
    use crate::autoencoder::{Autoencoder, Diagnostics};
    use crate::baselines::{PrincipalComponentsConfig, RivalConfig};
    use crate::data::{self, DataConfig, Dataset};
    use crate::error::{Error, Result};
    use crate::export::mosaic;
    use crate::files;
    use crate::learn::Outcome;
    use crate::learn::rivals::{self, RivalObserver, RivalRecord, RivalRun, RivalTrainConfig};
    use serde_json::{Value, json};
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    /// Time between two lines about progress where there is no terminal.
    const LINE_EVERY: Duration = Duration::from_secs(15);

    /// Whether a folder holds a rival's run.
    pub fn holds_rival(folder: &Path) -> bool {
        rivals::is_rival(folder)
    }

    /// Whether a configuration is a rival's.
    pub fn is_rival_file(path: &Path) -> bool {
        rivals::is_rival_file(path)
    }

    /// A new run.
    pub fn train(folder: &Path, wishes: &Wishes, dashboard: bool, screen: &Screen) -> Result<()> {
        let mut config = match wishes.rival {
            Ok("pca") => return principal_components(folder, wishes, screen),
            Ok(name) => {
                let known = RivalConfig::named(name).map_err(|_| {
                    let expected = format!("one of {}, pca, dictionary", RivalConfig::NAMES.join(", "));
                    Error::parameter("--model", format!("{name:?}"), expected)
                })?;
                RivalTrainConfig::new(known)
            }
            Err(path) => rivals::read_config_file(path)?,
        };
        config.data.seed = wishes.seed.unwrap_or(config.data.seed);
        config.data = wishes.data.apply(config.data)?;
        if let Some(units) = wishes.units {
            config.rival = config.rival.with_units(units);
        }
        config.epochs = wishes.epochs.unwrap_or(config.epochs);
        config.batch_size = wishes.batch_size.unwrap_or(config.batch_size);
        config.seed = wishes.seed.unwrap_or(config.seed);
        config.optimization.learning_rate = wishes.learning_rate.unwrap_or(config.optimization.learning_rate);
        config.check().map_err(usage_of_flag)?;
        let data = super::super::data::open(&config.data)?;
        let run = RivalRun::create(folder, &config, &data, screen.device).map_err(usage_of_flag)?;
        follow(folder, &config, (run, dashboard), &data, screen)
    }

    /// Goes on with a run.
    pub fn resume(folder: &Path, epochs: Option<usize>, dashboard: bool, screen: &Screen) -> Result<()> {
        let mut config = rivals::read_config(folder)?;
        config.epochs = epochs.unwrap_or(config.epochs);
        config.check().map_err(usage_of_flag)?;
        let data = data::open(&config.data)?;
        let run = RivalRun::resume(folder, &config, &data, screen.device).map_err(usage_of_flag)?;
        follow(folder, &config, (run, dashboard), &data, screen)
    }

    fn follow(
        folder: &Path,
        config: &RivalTrainConfig,
        (run, dashboard): (RivalRun, bool),
        data: &Dataset,
        screen: &Screen,
    ) -> Result<()> {
        interrupt::watch();
        let mut run = run.with_dashboard(dashboard);
        // Lines would tear a dashboard.
        let progress = (!dashboard).then(|| Progress::new("training", "steps", run.steps() as u64));
        if let Some(progress) = &progress {
            progress.start_at(run.steps_done() as u64);
            progress.line(&format!(
                "training {} on {} in {}: {} epochs of {} steps",
                config.rival.name(),
                data.train.describe(),
                folder.display(),
                config.epochs,
                run.steps_per_epoch()
            ));
        }
        let mut observer = Lines {
            progress,
            epochs: config.epochs,
            steps: run.steps(),
            first: run.steps_done(),
            started: Instant::now(),
            last: Instant::now(),
        };
        let outcome = run.train(data, &interrupt::interrupted, &mut observer).map_err(usage_of_flag)?;
        drop(observer);
        if outcome == Outcome::Interrupted {
            return Err(Error::Interrupted(format!(
                "{} of {} steps are kept; go on with: mlcsc train --resume --out {}",
                run.steps_done(),
                run.steps(),
                folder.display()
            )));
        }
        let picture = paint(run.rival(), folder)?;
        let seconds = screen.started.elapsed().as_secs_f64();
        let found = (run.last_epoch(), run.best().and_then(RivalRecord::held_out));
        let (Some(RivalRecord::Epoch { epoch, train_loss, .. }), Some((test_loss, test, kept))) = found else {
            return output::print(&format!("model: {}", run.model_path().display()));
        };
        let document = json!({
            "run": folder,
            "model": run.model_path(),
            "pictures": [picture],
            "device": screen.name,
            "seconds": seconds,
            "epochs": epoch,
            "train_loss": train_loss,
            "test_loss": test_loss,
            "test": test,
            "kept": kept,
            "start": run.start().and_then(RivalRecord::held_out).map(|(_, test, _)| test),
        });
        // Of layers that take turns the start's loss is another one.
        let start = run.start().and_then(RivalRecord::held_out).filter(|(.., kept)| kept.admissible);
        let start = start.map(|(loss, ..)| loss);
        let heading = format!(
            "{}: {epoch} epochs in {seconds:.0} s; on {} held-out signals:",
            config.rival.name(),
            output::grouped(test.signals as u64)
        );
        let rows = [
            ("loss (training)", format!("{} ({})", number(test_loss), number(*train_loss))),
            ("kept", output::kept(&kept, *epoch, start)),
            ("model", run.model_path().display().to_string()),
            ("picture", picture.display().to_string()),
        ];
        print(&heading, test, &rows, &document, screen.json)
    }

    /// Fits principal components, which takes no steps.
    fn principal_components(folder: &Path, wishes: &Wishes, screen: &Screen) -> Result<()> {
        if let Some(epochs) = wishes.epochs {
            return Err(Error::parameter("--epochs", epochs, "none with --model pca"));
        }
        if let Some(rate) = wishes.learning_rate {
            return Err(Error::parameter("--learning-rate", rate, "none with --model pca"));
        }
        let mut config = PrincipalComponentsConfig::default();
        config.units = wishes.units.unwrap_or(config.units);
        if folder.exists() && crate::learn::run::holds_run(folder) {
            return Err(Error::parameter("--out", folder.display(), "a folder without a run in it"));
        }
        files::check_writable_folder(folder)?;
        let sources = DataConfig { seed: wishes.seed.unwrap_or(0), ..DataConfig::default() };
        let data = super::super::data::open(&wishes.data.apply(sources)?)?;
        let found = config.fit(&*data.train, screen.device).map_err(usage_of_flag)?;
        let batch = wishes.batch_size.unwrap_or(256);
        let Some(test) = diagnose(&found, &*data.test, batch, screen.device, |_| true)? else { return Ok(()) };
        let picture = paint(&found, folder)?;
        let seconds = screen.started.elapsed().as_secs_f64();
        let document = json!({
            "pictures": [picture],
            "device": screen.name,
            "seconds": seconds,
            "units": found.code().channels,
            "test": test,
        });
        let heading = format!(
            "{} principal components in {seconds:.0} s; on {} held-out signals:",
            found.code().channels,
            output::grouped(test.signals as u64)
        );
        print(&heading, &test, &[("picture", picture.display().to_string())], &document, screen.json)
    }

    fn paint(autoencoder: &dyn Autoencoder, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("pictures").join("atoms.png");
        mosaic::save(&mosaic::filters(autoencoder.atoms(), None), &path)?;
        Ok(path)
    }

    fn print(heading: &str, test: &Diagnostics, rows: &[(&str, String)], document: &Value, json: bool) -> Result<()> {
        if json {
            return output::print_json(document);
        }
        let mut summary = Summary::new(heading);
        for (name, value) in super::super::diagnostics_rows(test) {
            summary.row(name, value);
        }
        for (name, value) in rows {
            summary.row(*name, value);
        }
        output::print(&summary.text())
    }

    /// Progress on the terminal, or lines now and then.
    struct Lines {
        progress: Option<Progress>,
        epochs: usize,
        steps: usize,
        first: usize,
        started: Instant,
        last: Instant,
    }

    impl RivalObserver for Lines {
        fn record(&mut self, record: &RivalRecord) -> Result<()> {
            let Some(progress) = &self.progress else { return Ok(()) };
            match record {
                RivalRecord::Start { test_loss, test, .. } => progress.line(&format!(
                    "start  loss {}  {:.2} dB  FVU {:.3}  dead {}",
                    number(*test_loss),
                    test.psnr,
                    test.fvu,
                    test.dead_units,
                )),
                RivalRecord::Step { epoch, step, loss, signals_per_second } => {
                    progress.advance(1);
                    let text = format!("loss {}  {} signals/s", number(*loss), number(*signals_per_second));
                    if !progress.is_visible() && self.last.elapsed() > LINE_EVERY {
                        self.last = Instant::now();
                        let done = (step - self.first).max(1) as f64;
                        let left = self.started.elapsed().as_secs_f64() / done * (self.steps - step) as f64;
                        let (epochs, steps) = (self.epochs, self.steps);
                        progress
                            .line(&format!("epoch {epoch}/{epochs}  step {step}/{steps}  {text}  {left:.0} s left"));
                    }
                    progress.message(text);
                }
                RivalRecord::Epoch { epoch, train_loss, test_loss, test, .. } => progress.line(&format!(
                    "epoch {epoch}/{}  loss {} (training {})  {:.2} dB  FVU {:.3}  non-zeros {}  dead {}",
                    self.epochs,
                    number(*test_loss),
                    number(*train_loss),
                    test.psnr,
                    test.fvu,
                    number(test.nonzeros),
                    test.dead_units,
                )),
            }
            Ok(())
        }
    }
}

#[cfg(not(feature = "train"))]
mod untrained {
    use super::{Screen, Wishes};
    use crate::error::{Error, Result};
    use std::path::Path;

    /// Nothing can be told without the code for it.
    pub fn holds_rival(_: &Path) -> bool {
        false
    }

    /// Nothing can be told without the code for it.
    pub fn is_rival_file(_: &Path) -> bool {
        false
    }

    /// Refused.
    pub fn train(_: &Path, wishes: &Wishes, _: bool, _: &Screen) -> Result<()> {
        let name = wishes.rival.map_or_else(|path| path.display().to_string(), str::to_owned);
        Err(Error::parameter("--model", name, "a program built with the feature train"))
    }

    /// Refused.
    pub fn resume(folder: &Path, _: Option<usize>, _: bool, _: &Screen) -> Result<()> {
        Err(Error::parameter("--resume", folder.display(), "a program built with the feature train"))
    }
}
