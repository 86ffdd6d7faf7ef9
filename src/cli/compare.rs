//! `mlcsc compare`: pursuits side by side.

use super::coding::{self, LambdaArgs, SolverArgs};
use super::data::{InputArgs, Signals};
use super::inputs::Inputs;
use super::output::{counted, number, table};
use super::page;
use super::progress::Progress;
use super::{flags, interrupt, output};
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::evaluate::comparison::{Batches, Comparison, Row, Setting};
use crate::evaluate::plot;
use crate::export::report::{Head, Origin, PursuitComparison, REPORT};
use crate::files;
use crate::model::Operator;
use crate::model::normalization::Normalizer;
use crate::pursuit::recipe::check_weights;
use crate::pursuit::{BasisPursuitConfig, Convergence, Lambda, Observer, PursuitName};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

/// How an interruption leaves things.
const UNFINISHED: &str = "not all pursuits were compared";
const UNDRAWN: &str = "the picture was not finished; what was compared is on stdout";
const SOME: &str = "not all pursuits were compared; those that were are on stdout";

/// Compare pursuits on the same signals
///
/// One row for each pursuit (for omp and projection: for each number of non-zeros), all numbers means over the signals: the
/// residuals ‖y − D^(L)γ_L‖ and ‖y − D_1 γ_1‖, non-zeros and stripe norms of γ_1 … γ_L, and the inconsistencies
/// ‖γ_{i−1} − D_i γ_i‖ from the second layer on. With --out also a picture of the error against the non-zeros of γ_L: every
/// pursuit over a range of λ, or of non-zeros; in a folder with a page about all of it. Everything is in units of the signals after
/// the model's normalisation. Ctrl-C prints the rows that are finished.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Pursuits. Default: bp, omp, layered-thresholding and layered-bp; with
    /// --layer-weights ml-fista and ml-bp too, with --stripe-limits projection too
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = flags::names::<PursuitName>())]
    pursuits: Option<Vec<PursuitName>>,
    /// Non-zeros of γ_L for omp and projection. Default: 10 in the table, 1 to 55 in the picture
    #[arg(long, value_name = "K1,K2,…", value_delimiter = ',')]
    nonzeros: Option<Vec<usize>>,
    /// Most non-zeros of γ_1,…,γ_{L−1} for holistic
    #[arg(long, value_name = "N1,…", value_delimiter = ',')]
    shallower_nonzeros: Option<Vec<usize>>,
    /// Most non-zeros in a stripe of γ_1,…,γ_L for projection. Default: no limits
    #[arg(long, value_name = "N1,…,NL", value_delimiter = ',')]
    stripe_limits: Option<Vec<usize>>,
    /// w_1,…,w_L ≥ 0: the penalty of layer i is w_i·λ, for layered-*, ml-* and holistic. Default: 1,…,1 for layered-*, else
    /// 0,…,0,1
    #[arg(long, value_name = "W1,…,WL", value_delimiter = ',')]
    layer_weights: Option<Vec<f32>>,
    /// File for the picture, or a folder for compare.svg and report.html, a page about the comparison
    #[arg(long, value_name = "PICTURE.svg|FOLDER")]
    out: Option<PathBuf>,
    /// Write no report.html into --out
    #[arg(long, requires = "out")]
    no_report: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lambda: LambdaArgs,
    #[command(flatten)]
    solver: SolverArgs,
}

impl CompareArgs {
    fn check(&self) -> Result<()> {
        self.lambda.check()?;
        self.solver.check()?;
        self.input.check()?;
        for (flag, values) in [
            ("--nonzeros", &self.nonzeros),
            ("--shallower-nonzeros", &self.shallower_nonzeros),
            ("--stripe-limits", &self.stripe_limits),
        ] {
            if values.as_ref().is_some_and(|values| values.contains(&0)) {
                return Err(Error::parameter(flag, 0, "at least 1"));
            }
        }
        if let Some(weights) = &self.layer_weights {
            check_weights(weights).map_err(flags::named::<Self>)?;
        }
        self.check_out()?;
        let pursuits = self.pursuits();
        let compared = |name| pursuits.contains(&name);
        let penalised = |name: &PursuitName| !Comparison::counts(*name);
        let has_penalty = pursuits.iter().any(penalised);
        let iterates = pursuits.iter().any(|name| penalised(name) && *name != PursuitName::LayeredThresholding);
        const PENALISED: &str = "a pursuit with a penalty among --pursuits";
        const ITERATIVE: &str = "a pursuit that ends by its duality gap among --pursuits";
        let needs: [(&str, bool, bool, &str); 10] = [
            ("--lambda", self.lambda.lambda.is_some(), has_penalty, PENALISED),
            ("--lambda-relative", self.lambda.lambda_relative.is_some(), has_penalty, PENALISED),
            ("--lambda-file", self.lambda.lambda_file.is_some(), has_penalty, PENALISED),
            ("--gap", self.solver.gap.is_some(), iterates, ITERATIVE),
            ("--max-iterations", self.solver.max_iterations.is_some(), iterates, ITERATIVE),
            (
                "--shallower-nonzeros",
                self.shallower_nonzeros.is_some(),
                compared(PursuitName::Holistic),
                "holistic among --pursuits",
            ),
            (
                "--stripe-limits",
                self.stripe_limits.is_some(),
                compared(PursuitName::Projection),
                "projection among --pursuits",
            ),
            (
                "--nonzeros",
                self.nonzeros.is_some(),
                pursuits.iter().any(|name| Comparison::counts(*name)),
                "omp, ols or projection among --pursuits",
            ),
            (
                "--layer-weights",
                self.layer_weights.is_some(),
                pursuits.iter().any(|name| name.takes_layer_weights()),
                "a pursuit with penalties of its own for every layer among --pursuits",
            ),
            ("--pursuits", compared(PursuitName::Holistic), self.shallower_nonzeros.is_some(), ""),
        ];
        for (flag, given, fits, expected) in needs {
            if given && !fits {
                return Err(match expected {
                    "" => Error::parameter(flag, "holistic", "--shallower-nonzeros beside it"),
                    expected => Error::parameter(flag, "given", expected),
                });
            }
        }
        Ok(())
    }

    fn check_out(&self) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let inputs = Inputs::of_model(&self.input.model)
            .and("--lambda-file", self.lambda.lambda_file.as_deref())
            .and_data(self.input.data.source.as_deref());
        if is_picture(out) {
            files::check_writable(out)?;
            return inputs.refuse("--out", out);
        }
        output::check_folder_name(out, "a file name that ends in .svg, or a folder")?;
        page::check_folder(out, &inputs, PICTURE)
    }

    /// The picture's file.
    fn picture(&self) -> Option<PathBuf> {
        self.out.as_ref().map(|out| if is_picture(out) { out.clone() } else { out.join(PICTURE) })
    }

    /// The page's file, where one is written.
    fn page(&self) -> Option<PathBuf> {
        let folder = self.out.as_ref().filter(|out| !is_picture(out) && !self.no_report)?;
        Some(folder.join(REPORT))
    }

    fn pursuits(&self) -> Vec<PursuitName> {
        use PursuitName::*;
        self.pursuits.clone().unwrap_or_else(|| {
            let mut all = vec![BasisPursuit, OrthogonalMatchingPursuit];
            all.extend(self.stripe_limits.is_some().then_some(Projection));
            all.extend([LayeredThresholding, LayeredBasisPursuit]);
            all.extend(self.layer_weights.iter().flat_map(|_| [MlFista, MlBasisPursuit]));
            all
        })
    }

    pub(super) fn run(&self) -> Result<()> {
        self.check()?;
        let (model, defaults) = self.input.load()?;
        let signals = self.input.signals_for(&model)?;
        let (lambda, nonnegative) = self.lambda.resolve(&defaults, signals.len())?;
        let operator = coding::operator(&model, signals.shape(), &signals.source(), self.solver.application)?;
        let comparison = Comparison {
            pursuits: self.pursuits(),
            nonzeros: self.nonzeros.clone().unwrap_or_default(),
            lambda,
            layer_weights: self.layer_weights.clone(),
            stripe_limits: self.stripe_limits.clone(),
            shallower_nonzeros: self.shallower_nonzeros.clone().unwrap_or_default(),
            basis: self.solver.basis(nonnegative),
        };
        comparison.check(&operator, self.out.is_some()).map_err(flags::named::<Self>)?;
        let work = comparison.work(&operator, signals.len(), self.out.is_some());
        let batches = Read {
            batch_size: self.solver.batch_size.unwrap_or_else(|| coding::default_batch(operator.geometry())),
            normalizer: model.config().normalizer(),
            operator: &operator,
            signals: &signals,
            left: Cell::new(work),
            rows: RefCell::new(Vec::new()),
            progress: Progress::new("comparing", "codes", work as u64),
        };
        interrupt::watch();
        let basis = self.solver.basis(nonnegative);
        let table = comparison.table(&operator, &batches);
        let curves = match (&table, &self.out) {
            (Ok(_), Some(_)) => comparison.curves(&operator, &batches),
            _ => Ok(Vec::new()),
        };
        let Read { progress, rows, .. } = batches;
        progress.finish();
        let state = if table.is_ok() { UNDRAWN } else { SOME };
        let (rows, curves) = match table.and_then(|rows| Ok((rows, curves?))) {
            Ok(all) => all,
            Err(error) => {
                let mut rows = rows.into_inner();
                if !matches!(error, Error::Interrupted(_)) || rows.is_empty() {
                    return interrupt::named(Err(error), UNFINISHED);
                }
                // Those of the picture come after those of the table.
                rows.truncate(comparison.work(&operator, 1, false));
                match self.json {
                    true => {
                        let mut document = self.document(&rows, &signals, &basis);
                        document["interrupted"] = true.into();
                        output::print_json(&document)?;
                    }
                    false => output::print(&text_of(&rows, &[], &signals, &basis, None))?,
                }
                return Err(Error::Interrupted(state.into()));
            }
        };
        if let Some(picture) = self.picture() {
            plot::error_against_nonzeros(&picture, &curves)?;
        }
        if let Some(page) = self.page() {
            let lead = vec![format!("Compared on {}.", signals.describe())];
            let warnings = ends(&rows, &curves, &basis);
            let head = Head { lead, warnings, table: cells(&rows) };
            let origin = self.origin(&comparison, &signals);
            PursuitComparison { head, rows: rows.clone(), curves: curves.clone() }.write(&page, &origin)?;
        }
        if self.json {
            let mut document = self.document(&rows, &signals, &basis);
            if let Some(out) = &self.out {
                document["curves"] = curves.iter().map(|rows| json_of(rows, &basis)).collect();
                document["out"] = out.display().to_string().into();
                if !is_picture(out) {
                    document["picture"] = json!(self.picture().as_deref().map(output::shown));
                    document["report"] = json!(self.page().as_deref().map(output::shown));
                }
            }
            return output::print_json(&document);
        }
        let written = self.picture().map(|picture| {
            let paths: Vec<PathBuf> = std::iter::once(picture).chain(self.page()).collect();
            page::written(&paths)
        });
        output::print(&text_of(&rows, &curves, &signals, &basis, written))
    }

    /// The table as JSON.
    fn document(&self, rows: &[Row], signals: &Signals, basis: &BasisPursuitConfig) -> Value {
        json!({
            "model": output::shown(&self.input.model),
            "signals": signals.len(),
            "source": signals.source(),
            "split": signals.split(),
            "skipped": signals.skipped(),
            "device": self.input.device.name(),
            "precision": crate::device::precision(),
            "nonnegative": basis.nonnegative,
            "layer_weights": self.layer_weights,
            "rows": json_of(rows, basis),
            "interrupted": false,
        })
    }

    /// What the page says of how it came about.
    fn origin(&self, comparison: &Comparison, signals: &Signals) -> Origin {
        let list = |values: &[usize]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let pursuits = comparison.pursuits.iter().map(ToString::to_string).collect::<Vec<_>>();
        let lambda = match &comparison.lambda {
            Lambda::Absolute(lambda) => lambda.to_string(),
            Lambda::Relative(part) => format!("{part} of each signal's λ_max"),
            Lambda::PerSignal(_) => "one for each signal".into(),
        };
        let basis = &comparison.basis;
        let mut settings = vec![
            ("model", self.input.model.display().to_string()),
            ("signals", signals.describe()),
            ("pursuits", pursuits.join(", ")),
            ("λ in the table", lambda),
            ("non-negative codes", if basis.nonnegative { "yes".into() } else { "no".into() }),
            ("relative gap asked for", number(basis.gap.into())),
            ("most iterations", basis.max_iterations.to_string()),
        ];
        let nonzeros = self.nonzeros.iter().map(|values| ("non-zeros", list(values)));
        let stripes = self.stripe_limits.iter().map(|values| ("limits of stripes", list(values)));
        let shallower = self.shallower_nonzeros.iter().map(|values| ("non-zeros of shallower layers", list(values)));
        let weights = self.layer_weights.iter().map(|values| ("weights of layers", format!("{values:?}")));
        settings.extend(nonzeros.chain(stripes).chain(shallower).chain(weights));
        page::origin(
            settings,
            vec![("of the data", self.input.data.data_seed.unwrap_or(DataConfig::default().seed))],
            &self.input.device,
        )
    }
}

/// The picture in a folder.
const PICTURE: &str = "compare.svg";

/// Whether a path is that of the picture alone, and not of a folder.
fn is_picture(out: &Path) -> bool {
    plot::check_name(out, "").is_ok()
}

/// What is said of a pursuit that leaves nothing of any signal.
fn warning(row: &Row) -> Option<String> {
    let is_empty = matches!(row.setting, Setting::Lambda(_)) && row.measures.nonzeros.last() == Some(&0.0);
    let way = if row.measures.residual == 0.0 { ", as every signal is" } else { "; lower its λ" };
    is_empty.then(|| format!("{}: every code is zero{way}", name_of(row)))
}

/// What ended above the gap asked for, in the table and in the picture.
fn ends(rows: &[Row], curves: &[Vec<Row>], basis: &BasisPursuitConfig) -> Vec<String> {
    let of = |row: &Row| {
        let line = match row.pursuit {
            PursuitName::MlIsta | PursuitName::MlFista => coding::not_converged_layered,
            _ => coding::not_converged,
        };
        Some(format!("{}: {}", name_of(row), line(&row.measures.convergence, basis, "signal")?))
    };
    let mut points = Convergence::default();
    curves.iter().flatten().for_each(|row| points.merge(&row.measures.convergence));
    let zeros = rows.iter().filter_map(warning).map(|line| format!("warning: {line}"));
    let picture = coding::not_converged(&points, basis, "code").map(|line| format!("the picture: {line}"));
    rows.iter().filter_map(of).chain(zeros).chain(picture).collect()
}

/// The signals as a comparison reads them.
struct Read<'a> {
    batch_size: usize,
    normalizer: Normalizer,
    operator: &'a Operator,
    signals: &'a Signals,
    /// Codes that are still to be found.
    left: Cell<usize>,
    /// What is known by now.
    rows: RefCell<Vec<Row>>,
    progress: Progress,
}

impl Batches for Read<'_> {
    fn count(&self) -> usize {
        self.signals.len()
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor<4>> {
        let data = TensorData::new(self.signals.read(start, count)?, self.signals.shape().batched(count));
        Ok(self.normalizer.apply(Tensor::from_data(data, &self.operator.device())).0)
    }

    fn advance(&self, count: usize) -> Result<()> {
        self.progress.advance(count as u64);
        self.left.set(self.left.get().saturating_sub(count));
        // After the last one an interruption is too late to matter.
        if self.left.get() == 0 { Ok(()) } else { interrupt::check(UNFINISHED) }
    }

    fn observer(&self) -> Option<&dyn Observer> {
        Some(&self.progress)
    }

    fn measured(&self, row: &Row) {
        self.rows.borrow_mut().push(row.clone());
    }
}

/// A pursuit at a setting, as the table calls it.
fn name_of(row: &Row) -> String {
    match row.setting {
        Setting::Nonzeros(nonzeros) => format!("{}, {}", row.pursuit, counted(nonzeros, "non-zero")),
        Setting::Lambda(_) => row.pursuit.to_string(),
    }
}

/// All that is printed: the table, the files that were `written`, what ended above the gap.
fn text_of(
    rows: &[Row],
    curves: &[Vec<Row>],
    signals: &Signals,
    basis: &BasisPursuitConfig,
    written: Option<String>,
) -> String {
    let lines = [format!("compared on {}", signals.describe()), table(&cells(rows))];
    lines.into_iter().chain(written).chain(ends(rows, curves, basis)).collect::<Vec<_>>().join("\n")
}

/// Rows as JSON, with what ended above the gap.
fn json_of(rows: &[Row], basis: &BasisPursuitConfig) -> Value {
    let one = |row: &Row| {
        let mut document = row.json();
        document["not_converged"] = coding::not_converged_json(&row.measures.convergence, basis);
        document["warning"] = json!(warning(row));
        document
    };
    rows.iter().map(one).collect()
}

/// The table, its first row being the heading.
fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let list = |values: &[f64]| values.iter().map(|&value| number(value)).collect::<Vec<_>>().join(" ");
    let heading = ["pursuit", "‖y − Dγ_L‖", "‖y − D_1γ_1‖", "non-zeros", "stripe norms", "inconsistency", "signals/s"];
    let mut cells: Vec<Vec<String>> = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let measures = &row.measures;
        vec![
            name_of(row),
            number(measures.residual),
            number(measures.first_layer_residual),
            list(&measures.nonzeros),
            list(&measures.stripe_norms),
            if measures.inconsistency.is_empty() { "–".into() } else { list(&measures.inconsistency) },
            number(measures.signals_per_second),
        ]
    }));
    cells
}
