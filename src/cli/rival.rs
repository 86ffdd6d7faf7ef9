//! `mlcsc train --model …`: the model's rivals.

use super::data::DataArgs;
use crate::error::Error;
use burn::tensor::Device;
use std::path::Path;
use std::time::Instant;

#[cfg(feature = "train")]
pub use trained::{holds_rival, is_rival_config, print_config, print_schema, resume, train};
#[cfg(not(feature = "train"))]
pub use untrained::{holds_rival, is_rival_config, print_config, print_schema, resume, train};

/// Which rival.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "nothing is trained"))]
pub enum Chosen<'a> {
    /// One by name.
    Named(&'a str),
    /// That of a configuration: its path and its text.
    Configured(&'a Path, &'a [u8]),
}

/// What the flags say.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "nothing is trained"))]
pub struct RivalRequest<'a> {
    pub chosen: Chosen<'a>,
    pub units: Option<usize>,
    pub nonzeros: Option<usize>,
    pub epochs: Option<usize>,
    pub batch_size: Option<usize>,
    pub learning_rate: Option<f64>,
    pub seed: Option<u64>,
    pub data: &'a DataArgs,
}

/// Where results go, and what is said of them.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "nothing is trained"))]
pub struct RivalOutput<'a> {
    pub device: &'a Device,
    /// Devices that share its batches.
    pub further: &'a [Device],
    pub name: String,
    pub json: bool,
    /// Whether a page is written.
    pub report: bool,
    pub started: Instant,
    /// Names a mistake by the flag or the file that it came by.
    pub named: Box<dyn Fn(Error) -> Error + 'a>,
}

#[cfg(feature = "train")]
mod trained {
    use super::super::data::{open, open_configured, told_outliers};
    use super::super::output::{self, Summary, number, or_dash};
    use super::super::page::{self, origin_of_run};
    use super::super::progress::Progress;
    use super::super::train::TrainArgs;
    use super::super::{configuration, flags, interrupt};
    use super::{Chosen, RivalOutput, RivalRequest};
    use crate::autoencoder::diagnostics::diagnose;
    use crate::autoencoder::{Autoencoder, Diagnostics};
    use crate::baselines::Rival;
    use crate::baselines::{PrincipalComponentsConfig, RivalConfig};
    use crate::data::{DataConfig, Dataset};
    use crate::error::{Error, Result};
    use crate::export::mosaic;
    use crate::export::report::{self, REPORT};
    use crate::files;
    use crate::learn::Outcome;
    use crate::learn::rivals::{self, RivalBatch, RivalEpoch, RivalHeldOut, RivalRecord, RivalRun, RivalTrainConfig};
    use crate::learn::run::check_content;
    use crate::learn::{Observer, RunFolder};
    use crate::model::normalization::Normalization;
    use serde_json::{Value, json};
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    /// Time between two lines about progress where there is no terminal.
    const LINE_EVERY: Duration = Duration::from_secs(15);

    /// Signals that principal components code at a time.
    const COMPONENTS_AT_ONCE: usize = 256;

    /// Whether a folder holds a rival's run.
    pub fn holds_rival(folder: &Path) -> bool {
        rivals::is_rival(folder)
    }

    /// Whether a configuration's text is a rival's.
    pub fn is_rival_config(text: &[u8]) -> bool {
        rivals::is_rival_config(text)
    }

    /// Prints the configuration that the flags make.
    pub fn print_config(wishes: &RivalRequest, screen: &RivalOutput) -> Result<()> {
        let config = complete(wishes)?;
        config.check().map_err(&screen.named)?;
        configuration::print(&config)
    }

    /// Prints what such a configuration may hold.
    pub fn print_schema(wishes: &RivalRequest) -> Result<()> {
        complete(wishes)?;
        output::print_json(&configuration::schema_of::<RivalTrainConfig>())
    }

    /// The configuration of a rival by name or of a file, with what the flags say put over it; its ranges are still to be checked.
    fn complete(wishes: &RivalRequest) -> Result<RivalTrainConfig> {
        let mut config = match wishes.chosen {
            Chosen::Named("pca") => {
                return Err(Error::parameter("--model", "pca", "a rival with a configuration; it has --units alone"));
            }
            Chosen::Named(name) => RivalTrainConfig::new(RivalConfig::named(name).map_err(flags::named::<TrainArgs>)?),
            Chosen::Configured(path, text) => rivals::parse_config(path, text)?,
        };
        config.data.seed = wishes.seed.unwrap_or(config.data.seed);
        config.data = wishes.data.complete(config.data)?;
        if let Some(units) = wishes.units {
            if units == 0 {
                return Err(Error::parameter("--units", 0, "at least 1"));
            }
            config.rival = config.rival.with_units(units);
        }
        if let Some(nonzeros) = wishes.nonzeros {
            config.rival = config.rival.with_kept(nonzeros).map_err(flags::named::<TrainArgs>)?;
        } else if let (Chosen::Named(_), Some([units, kept])) = (wishes.chosen, config.rival.kept())
            && kept == units
            && units > 1
        {
            // To keep all values by default would be no choice.
            config.rival = config.rival.with_kept(units.div_ceil(4))?;
        }
        config.epochs = wishes.epochs.unwrap_or(config.epochs);
        config.batch_size = wishes.batch_size.unwrap_or(config.batch_size);
        config.seed = wishes.seed.unwrap_or(config.seed);
        config.optimization.learning_rate = wishes.learning_rate.unwrap_or(config.optimization.learning_rate);
        Ok(config)
    }

    /// A new run.
    pub fn train(folder: &Path, wishes: &RivalRequest, dashboard: bool, screen: &RivalOutput) -> Result<()> {
        if let Chosen::Named("pca") = wishes.chosen {
            if !screen.further.is_empty() {
                return Err(Error::parameter("--device", &screen.name, "one device for pca"));
            }
            return principal_components(folder, wishes, screen);
        }
        let config = complete(wishes)?;
        config.check().map_err(&screen.named)?;
        let data = open_configured(&config.data).map_err(&screen.named)?;
        interrupt::watch();
        let _claim = RunFolder::new(folder).claim().map_err(&screen.named)?;
        let run = RivalRun::create(folder, &config, &data, screen.device).map_err(&screen.named)?;
        follow(folder, &config, (run, dashboard), &data, screen)
    }

    /// Goes on with a run, from data that lie in `source` by now.
    pub fn resume(
        folder: &Path,
        epochs: Option<usize>,
        source: Option<&str>,
        dashboard: bool,
        screen: &RivalOutput,
    ) -> Result<()> {
        let path = RunFolder::new(folder).existing_config()?;
        let mut config = rivals::parse_config(&path, &files::read_whole(&path)?)?;
        let planned = config.epochs;
        config.epochs = epochs.unwrap_or(config.epochs);
        config.data.source = source.map_or(config.data.source, str::to_owned);
        config.check().map_err(&screen.named)?;
        let data = open_configured(&config.data).map_err(&screen.named)?;
        interrupt::watch();
        let _claim = RunFolder::new(folder).claim().map_err(&screen.named)?;
        let run = RivalRun::resume(folder, &config, &data, screen.device).map_err(&screen.named)?;
        if planned != config.epochs {
            output::complain(&super::super::train::planned_anew(planned, config.epochs));
        }
        follow(folder, &config, (run, dashboard), &data, screen)
    }

    fn follow(
        folder: &Path,
        config: &RivalTrainConfig,
        (run, dashboard): (RivalRun, bool),
        data: &Dataset,
        screen: &RivalOutput,
    ) -> Result<()> {
        let outliers = told_outliers(&*data.train, false)?;
        let mut run = run.with_dashboard(dashboard).with_further_devices(screen.further.to_vec());
        let since = if run.steps_done() > 0 { " since it was resumed" } else { "" };
        // Lines would tear a dashboard.
        let progress = (!dashboard).then(|| Progress::new("training", "steps", run.steps() as u64));
        if let Some(progress) = &progress {
            progress.start_at(run.steps_done() as u64);
            let kept =
                config.rival.kept().map_or(String::new(), |[units, kept]| format!(", {kept} of {units} units a code,"));
            progress.line(&format!(
                "training {}{kept} on {} ({}) in {}: {} of {}",
                config.rival.name(),
                data.train.describe(),
                data.train.shape(),
                folder.display(),
                output::counted(config.epochs, "epoch"),
                output::counted(run.steps_per_epoch(), "step")
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
        let outcome = run.train(data, &interrupt::interrupted, &mut observer).map_err(&screen.named)?;
        drop(observer);
        if outcome == Outcome::Interrupted {
            return Err(Error::Interrupted(format!(
                "{} of {} are kept; go on with: {}",
                output::grouped(run.steps_done() as u64),
                output::counted(run.steps(), "step"),
                page::resume(folder)
            )));
        }
        let picture = paint(run.rival(), folder)?;
        let page = page(&run, config, folder, data, screen);
        let seconds = screen.started.elapsed().as_secs_f64();
        let found = (run.last_epoch(), run.best().and_then(|record| Some((record.kept()?, record.held_out()?))));
        let (Some(RivalRecord::Epoch { epoch, train: RivalEpoch { train_loss }, .. }), Some((kept, held_out))) = found
        else {
            return output::print(&format!("model: {}", run.model_path().display()));
        };
        let RivalHeldOut { test_loss, test } = held_out;
        let document = json!({
            "run": output::shown(folder),
            "model": output::shown(&run.model_path()),
            "pictures": [output::shown(&picture)],
            "report": page.as_deref().map(output::shown),
            "device": screen.name,
            "precision": crate::device::precision(),
            "seconds": seconds,
            "epochs": epoch,
            "skipped": data.all.skipped(),
            "outliers": outliers,
            "train_loss": train_loss,
            "test_loss": test_loss,
            "test": test,
            "kept": kept,
            "start": run.start().and_then(RivalRecord::held_out).map(|start| &start.test),
            "start_loss": run.start().and_then(RivalRecord::held_out).map(|start| start.test_loss),
        });
        // Of layers that take turns the start's loss is another one.
        let start = run.start().filter(|start| start.kept().is_some_and(|kept| kept.admissible));
        let start = start.and_then(RivalRecord::held_out).map(|start| start.test_loss);
        let heading = format!(
            "{}: {} in {seconds:.0} s{since}; on {}:",
            config.rival.name(),
            output::counted(*epoch, "epoch"),
            output::counted(test.signals, "held-out signal")
        );
        let mut rows = vec![
            ("loss (training)", format!("{} ({})", number(*test_loss), number(*train_loss))),
            ("kept", output::kept(&kept, *epoch, start)),
            ("model", run.model_path().display().to_string()),
            ("picture", picture.display().to_string()),
        ];
        rows.extend(page.map(|page| ("report", page.display().to_string())));
        print(&heading, test, &rows, &document, screen.json)
    }

    /// Fits principal components, which takes no steps.
    fn principal_components(folder: &Path, wishes: &RivalRequest, screen: &RivalOutput) -> Result<()> {
        if let Some(epochs) = wishes.epochs {
            return Err(Error::parameter("--epochs", epochs, "none with --model pca"));
        }
        if let Some(rate) = wishes.learning_rate {
            return Err(Error::parameter("--learning-rate", rate, "none with --model pca"));
        }
        if let Some(size) = wishes.batch_size {
            return Err(Error::parameter("--batch-size", size, "none with --model pca"));
        }
        if let Some(nonzeros) = wishes.nonzeros {
            return Err(Error::parameter("--nonzeros", nonzeros, "none with --model pca"));
        }
        let mut config = PrincipalComponentsConfig::default();
        config.units = wishes.units.unwrap_or(config.units);
        if RunFolder::new(folder).holds_run() {
            return Err(Error::parameter("--out", folder.display(), "a folder without a run in it"));
        }
        files::check_writable_folder(folder)?;
        let _claim = RunFolder::new(folder).claim().map_err(&screen.named)?;
        let sources = DataConfig { seed: wishes.seed.unwrap_or(0), ..DataConfig::default() };
        let data = open(&wishes.data.apply(sources)?)?;
        check_content(&*data.train, Normalization::None)?;
        let most = data.train.shape().len();
        if let Some(units) = wishes.units.filter(|&units| units > most) {
            return Err(Error::parameter("--units", units, format!("at most {most}, the values of a signal")));
        }
        let outliers = told_outliers(&*data.train, false)?;
        let found = config.fit(&*data.train, screen.device).map_err(flags::named::<TrainArgs>)?;
        let Some(test) = diagnose(&found, &*data.test, COMPONENTS_AT_ONCE, screen.device, |_| true)? else {
            return Ok(());
        };
        let picture = paint(&found, folder)?;
        let seconds = screen.started.elapsed().as_secs_f64();
        let document = json!({
            "pictures": [picture],
            "device": screen.name,
            "precision": crate::device::precision(),
            "seconds": seconds,
            "skipped": data.all.skipped(),
            "outliers": outliers,
            "units": found.code().channels,
            "test": test,
        });
        let heading = format!(
            "{} in {seconds:.0} s; on {}:",
            output::counted(found.code().channels, "principal component"),
            output::counted(test.signals, "held-out signal")
        );
        print(&heading, &test, &[("picture", picture.display().to_string())], &document, screen.json)
    }

    /// The page about a run, if it is wanted. One that cannot be written does not end a training: it is said.
    fn page(
        run: &RivalRun,
        config: &RivalTrainConfig,
        folder: &Path,
        data: &Dataset,
        screen: &RivalOutput,
    ) -> Option<PathBuf> {
        let path = screen.report.then(|| folder.join(REPORT))?;
        let origin = origin_of_run(folder, config.seed, config.data.seed, screen.name.clone());
        match report::write_rival(&path, folder, run.rival(), Some((&*data.test, screen.device)), &origin) {
            Ok(()) => Some(path),
            Err(error) => {
                output::complain(&format!("warning: no report: {error}"));
                None
            }
        }
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

    impl Observer<RivalRecord, Rival> for Lines {
        fn record(&mut self, record: &RivalRecord, _: &Rival) -> Result<()> {
            let Some(progress) = &self.progress else { return Ok(()) };
            match record {
                RivalRecord::Start { held_out: RivalHeldOut { test_loss, test }, .. } => progress.line(&format!(
                    "start  loss {}  {}FVU {}  dead {}",
                    number(*test_loss),
                    output::spaced_decibels(test.psnr),
                    or_dash(test.fvu, |fvu| format!("{fvu:.3}")),
                    test.dead_units,
                )),
                RivalRecord::Step { epoch, step, batch: RivalBatch { loss, signals_per_second } } => {
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
                RivalRecord::Epoch { epoch, train: RivalEpoch { train_loss }, held_out, .. } => {
                    progress.line(&format!(
                        "epoch {epoch}/{}  loss {} (training {})  {}FVU {}  non-zeros {}  dead {}",
                        self.epochs,
                        number(held_out.test_loss),
                        number(*train_loss),
                        output::spaced_decibels(held_out.test.psnr),
                        or_dash(held_out.test.fvu, |fvu| format!("{fvu:.3}")),
                        number(held_out.test.nonzeros),
                        held_out.test.dead_units,
                    ))
                }
            }
            Ok(())
        }
    }
}

#[cfg(not(feature = "train"))]
mod untrained {
    use super::{Chosen, RivalOutput, RivalRequest};
    use crate::error::{Error, Result};
    use std::path::Path;

    /// Nothing can be told without the code for it.
    pub fn holds_rival(_: &Path) -> bool {
        false
    }

    /// Nothing can be told without the code for it.
    pub fn is_rival_config(_: &[u8]) -> bool {
        false
    }

    fn refused(wishes: &RivalRequest) -> Error {
        let name = match wishes.chosen {
            Chosen::Named(name) => name.to_owned(),
            Chosen::Configured(path, _) => path.display().to_string(),
        };
        Error::parameter("--model", name, "a program built with the feature train")
    }

    /// Refused.
    pub fn train(_: &Path, wishes: &RivalRequest, _: bool, _: &RivalOutput) -> Result<()> {
        Err(refused(wishes))
    }

    /// Refused.
    pub fn print_config(wishes: &RivalRequest, _: &RivalOutput) -> Result<()> {
        Err(refused(wishes))
    }

    /// Refused.
    pub fn print_schema(wishes: &RivalRequest) -> Result<()> {
        Err(refused(wishes))
    }

    /// Refused.
    pub fn resume(folder: &Path, _: Option<usize>, _: Option<&str>, _: bool, _: &RivalOutput) -> Result<()> {
        Err(Error::parameter("--resume", folder.display(), "a program built with the feature train"))
    }
}
