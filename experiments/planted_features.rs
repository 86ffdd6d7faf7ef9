//! Does it find what is there? Signals made of known features in superposition; how many of them dictionaries and auto-encoders find.
//!
//! ```text
//! cargo run --release --example planted_features
//! cargo run --release --example planted_features -- --data FOLDER --widths 512,768,1536 --out experiments/planted_features_saelens
//! ```
//!
//! FOLDER holds `train.npy` `[n, d]`, `test.npy` and `truth.safetensors` with `features` `[f, d]` and `test_codes` of the first test
//! signals. Without it signals are drawn here: unit features in random directions, fewer dimensions than features; they fire by Zipf's
//! law, in threes below a parent without which they don't, with magnitudes around 1, on top of a common offset.
//! Writes `README.md` and `results.json` into `--out`.

use burn::tensor::{Device, Tensor};
use clap::Parser;
use mlcsc::autoencoder::Autoencoder;
use mlcsc::baselines::{Rival, RivalConfig, TopKConfig};
use mlcsc::coder::CoderConfig;
use mlcsc::data::quality::Quality;
use mlcsc::data::{self, DataConfig, Dataset, InMemory, Source};
use mlcsc::error::{Error, Result};
use mlcsc::evaluate::recovery::{Recovery, recovery};
use mlcsc::files;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::learn::rivals::{RivalRecord, RivalRun, RivalTrainConfig};
use mlcsc::learn::{DictionaryLearner, Observer, TrainConfig};
use mlcsc::model::normalization::Normalization;
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm, sample};
use mlcsc::pursuit::{Algorithm, BasisPursuitConfig, Lambda, SignalReport};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Folder with train.npy, test.npy and truth.safetensors. Default: signals drawn here
    #[arg(long)]
    data: Option<PathBuf>,
    /// Atoms. Default: two thirds of the features, as many, twice as many
    #[arg(long, value_delimiter = ',')]
    widths: Vec<usize>,
    /// Mean non-zeros of a code
    #[arg(long, value_delimiter = ',', default_values_t = [8, 10, 12])]
    nonzeros: Vec<usize>,
    #[arg(long, default_value_t = 4)]
    epochs: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the results
    #[arg(long, default_value = "experiments/planted_features")]
    out: PathBuf,
    #[arg(long)]
    device: Option<String>,
}

/// Signals that are drawn: dimensions, features, training and test signals.
const DRAWN: [usize; 4] = [128, 384, 40_000, 4_096];

/// Parents, each of which has three children; the other features fire on their own.
const PARENTS: usize = 64;

/// How often the most and the least frequent features fire, children given their parent apart.
const PROBABILITIES: [f64; 2] = [0.3, 0.01];

/// Strength at which atoms are kept apart where they are.
const INCOHERENCE: f32 = 0.25;

/// Signals to learn from, to test on, and the truth of these.
struct Planted {
    name: String,
    train: InMemory,
    test: InMemory,
    features: Vec<f32>,
    codes: Vec<f32>,
}

impl Planted {
    fn read(folder: &std::path::Path) -> Result<Self> {
        let all = |name: &str, tensor: Option<&str>| -> Result<InMemory> {
            let source = folder.join(name).display().to_string();
            let config = DataConfig { source, tensor: tensor.map(Into::into), ..DataConfig::default() };
            let source = data::open(&config)?.all;
            let mut values = vec![0.0; source.len() * source.shape().len()];
            source.read(&(0..source.len()).collect::<Vec<_>>(), &mut values)?;
            InMemory::new(source.shape(), values)
        };
        let (train, test) = (all("train.npy", None)?, all("test.npy", None)?);
        let truth = "truth.safetensors";
        let (features, codes) = (all(truth, Some("features"))?, all(truth, Some("test_codes"))?);
        let device = mlcsc::device::named(Some("flex"))?;
        let host = |values: &InMemory| values.tensor(&device).into_data().iter::<f32>().collect::<Vec<f32>>();
        let test = host(&test)[..codes.len() * train.shape().len()].to_vec();
        Ok(Self {
            name: "the signals of FOLDER".into(),
            test: InMemory::new(train.shape(), test)?,
            train,
            features: host(&features),
            codes: host(&codes),
        })
    }

    fn draw(seed: u64) -> Result<Self> {
        let [dimensions, count, train, test] = DRAWN;
        let mut random = sample::generator(seed);
        let mut direction = || -> Vec<f32> {
            let values: Vec<f32> = (0..dimensions).map(|_| StandardNormal.sample(&mut random)).collect();
            let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.into_iter().map(|value| value / length).collect()
        };
        let features: Vec<f32> = (0..count).flat_map(|_| direction()).collect();
        let offset = direction();
        let probability = |feature: usize| (PROBABILITIES[0] / (feature + 1) as f64).max(PROBABILITIES[1]);
        let mut signals = |number: usize| {
            let (mut values, mut codes) = (Vec::with_capacity(number * dimensions), vec![0.0f32; number * count]);
            for code in codes.chunks_exact_mut(count) {
                let mut fires = |chance: f64| random.random::<f64>() < chance;
                let active: Vec<bool> = (0..PARENTS).map(|parent| fires(probability(parent).max(0.03))).collect();
                let on = |feature: usize, fires: &mut dyn FnMut(f64) -> bool| match feature {
                    parent if parent < PARENTS => active[parent],
                    child if child < 4 * PARENTS => active[(child - PARENTS) / 3] && fires(1.0 / 3.0),
                    other => fires(probability(other - 4 * PARENTS)),
                };
                let active: Vec<bool> = (0..count).map(|feature| on(feature, &mut fires)).collect();
                let mut signal = offset.clone();
                for (feature, _) in active.iter().enumerate().filter(|(_, active)| **active) {
                    let noise: f32 = StandardNormal.sample(&mut random);
                    code[feature] = (1.0 + 0.2 * noise).max(0.05);
                    let direction = &features[feature * dimensions..][..dimensions];
                    signal.iter_mut().zip(direction).for_each(|(value, entry)| *value += code[feature] * entry);
                }
                values.extend(signal);
            }
            (values, codes)
        };
        let shape = SignalShape::new(dimensions, 1, 1);
        let (train, (test, codes)) = (signals(train).0, signals(test));
        let name = format!("{count} features drawn in {dimensions} dimensions");
        Ok(Self { name, train: InMemory::new(shape, train)?, test: InMemory::new(shape, test)?, features, codes })
    }

    fn dimensions(&self) -> usize {
        self.train.shape().len()
    }

    /// What atoms `[m, d, 1, 1]` and codes `[n, m, 1, 1]` of the test signals are worth.
    fn judge(&self, atoms: Tensor<4>, codes: Tensor<4>, made: Tensor<4>) -> Result<(Recovery, f64)> {
        let host = |values: Tensor<4>| values.into_data().iter::<f32>().collect::<Vec<f32>>();
        let mut quality = Quality::new(self.dimensions());
        quality.add(&self.test.tensor(&made.device()), &made);
        let found = recovery(self.dimensions(), &host(atoms), &self.features, &host(codes), &self.codes)?;
        Ok((found, quality.variance_unexplained().unwrap_or(f64::NAN)))
    }
}

/// λ at which dictionaries are compared by the objective that learning makes small.
const LAMBDAS: [f32; 4] = [0.3, 0.1, 0.03, 0.01];

/// Test signals that they are compared on.
const COMPARED: usize = 1_000;

/// Mean objective ½‖y − Dγ‖² + λ‖γ‖₁ and mean non-zeros of the test signals less their offset, by these atoms `[m, d, 1, 1]` of unit
/// norm, for each of [`LAMBDAS`].
fn objectives(planted: &Planted, atoms: Tensor<4>) -> Result<Vec<[f64; 2]>> {
    let (dimensions, features, device) = (planted.dimensions(), planted.features.as_slice(), atoms.device());
    let count = COMPARED.min(planted.test.len());
    let signals = planted.test.tensor(&device).slice(0..count);
    let mut offset = signals.clone().slice(0..1).into_data().iter::<f32>().collect::<Vec<f32>>();
    for (feature, &value) in features.chunks_exact(dimensions).zip(&planted.codes) {
        offset.iter_mut().zip(feature).for_each(|(offset, entry)| *offset -= value * entry);
    }
    let signals = signals - Tensor::<1>::from_floats(offset.as_slice(), &device).reshape([1, dimensions, 1, 1]);
    let shape = planted.test.shape();
    let model = ModelConfig::new(shape, vec![LayerShape::new(atoms.dims()[0], 1, 1)]);
    let operator = Mlcsc::from_filters(model, vec![atoms])?.operator(shape, OperatorForm::Auto)?;
    let basis = BasisPursuitConfig { nonnegative: true, gap: 1e-4, ..BasisPursuitConfig::default() };
    let pursuit = Algorithm::Auto.init(&basis, &operator)?;
    let coded = LAMBDAS.iter().map(|&lambda| {
        let reports = pursuit.pursue(&operator, signals.clone(), &Lambda::Absolute(lambda))?.reports;
        let mean =
            |value: fn(&SignalReport) -> f64| reports.iter().map(value).sum::<f64>() / reports.len().max(1) as f64;
        Ok([mean(|report| f64::from(report.objective)), mean(|report| report.nonzeros as f64)])
    });
    coded.collect()
}

/// How a dictionary is learned.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    incoherence: f32,
    greedy: bool,
    /// Whether the atoms are made of those of a first layer, four at most each.
    two_layers: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "ℓ1", incoherence: 0.0, greedy: false, two_layers: false },
    Way { name: "ℓ1, atoms kept apart", incoherence: INCOHERENCE, greedy: false, two_layers: false },
    Way { name: "OMP, atoms kept apart", incoherence: INCOHERENCE, greedy: true, two_layers: false },
    Way { name: "ℓ1, two layers", incoherence: 0.0, greedy: false, two_layers: true },
];

fn learn(
    args: &Args,
    planted: &Planted,
    way: Way,
    width: usize,
    nonzeros: usize,
    device: &Device,
) -> Result<((Recovery, f64), Tensor<4>)> {
    let signal = planted.train.shape();
    let layers = match way.two_layers {
        true => vec![LayerShape::new(width, 1, 1), LayerShape::new(width, 1, 1)],
        false => vec![LayerShape::new(width, 1, 1)],
    };
    let model = ModelConfig { normalization: Normalization::Mean, ..ModelConfig::new(signal, layers) };
    let mut config = TrainConfig::new(model);
    let learning = &mut config.learning;
    (learning.epochs, learning.batch_size, learning.seed) = (args.epochs, 1024, args.seed);
    learning.pursuit.incoherence = way.incoherence;
    learning.zeros = way.two_layers.then(|| vec![1.0 - 4.0 / width as f32]);
    match way.greedy {
        true => learning.code_nonzeros = Some(nonzeros),
        false => learning.target_nonzeros = Some(nonzeros as f32),
    }
    let mut learner = DictionaryLearner::start(&config, &planted.train, device, |_, _| Ok(()))?;
    while learner.steps_done() < learner.steps() {
        learner.step(&planted.train)?;
    }
    let model = learner.model()?;
    let coder = CoderConfig::new(&learner.coding()).init(&model)?;
    let codes = coder.encode(planted.test.tensor(device))?;
    let atoms = model.effective_filters(model.depth());
    Ok((planted.judge(atoms.clone(), codes.deepest().clone(), coder.decode(&codes)?)?, atoms))
}

struct Silent;

impl Observer<RivalRecord, Rival> for Silent {
    fn record(&mut self, _: &RivalRecord, _: &Rival) -> Result<()> {
        Ok(())
    }
}

fn top_k(args: &Args, planted: &Planted, width: usize, k: usize, device: &Device) -> Result<(Recovery, f64)> {
    let folder = tempfile::tempdir().map_err(Error::write(&args.out))?;
    let rival = RivalConfig::TopK(TopKConfig { units: width, k, ..TopKConfig::default() });
    let config =
        RivalTrainConfig { epochs: 5 * args.epochs, batch_size: 512, seed: args.seed, ..RivalTrainConfig::new(rival) };
    let data = Dataset::divided(planted.train.clone(), 0.02, args.seed)?;
    let mut run = RivalRun::create(&folder.path().join("run"), &config, &data, device)?;
    run.train(&data, &|| false, &mut Silent)?;
    let network = run.rival();
    let coded = network.reconstruct(planted.test.tensor(device))?;
    planted.judge(network.atoms(), coded.codes, coded.reconstruction)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = mlcsc::device::named(args.device.as_deref())?;
    let planted = match &args.data {
        Some(folder) => Planted::read(folder)?,
        None => Planted::draw(args.seed)?,
    };
    let features = planted.features.len() / planted.dimensions();
    let widths = match args.widths.is_empty() {
        true => vec![features * 2 / 3, features, 2 * features],
        false => args.widths.clone(),
    };
    let active = planted.codes.iter().filter(|value| **value != 0.0).count();
    let truth = active as f64 * features as f64 / planted.codes.len() as f64;
    let mut table = String::new();
    let mut rows: Vec<Value> = Vec::new();
    let mut tell = |name: &str, width: usize, asked: usize, found: (Recovery, f64), seconds: f64| {
        let (Recovery { mcc, uniqueness, precision, recall, f1, nonzeros }, fvu) = found;
        let line = format!(
            "| {width} | {name} | {nonzeros:.1} | {:.1}% | {mcc:.3} | {uniqueness:.3} | {precision:.3} | {recall:.3} | {f1:.3} | {seconds:.0} |",
            100.0 * fvu
        );
        println!("{line}");
        table.push_str(&format!("{line}\n"));
        rows.push(json!({
            "atoms": width, "method": name, "asked": asked, "recovery": found.0, "fvu": fvu, "seconds": seconds
        }));
    };
    println!("{}: {truth:.1} features a signal", planted.name);
    let unit = |feature: &[f32]| {
        let length = feature.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        feature.iter().map(|value| value / length).collect::<Vec<f32>>()
    };
    let true_atoms: Vec<f32> = planted.features.chunks_exact(planted.dimensions()).flat_map(unit).collect();
    let true_atoms =
        Tensor::<1>::from_floats(true_atoms.as_slice(), &device).reshape([features, planted.dimensions(), 1, 1]);
    let mut compared = vec![("the planted features", objectives(&planted, true_atoms)?)];
    // The middle number says enough of what is slow or worse.
    let middle = args.nonzeros[args.nonzeros.len() / 2];
    for &width in &widths {
        for &nonzeros in &args.nonzeros {
            for way in WAYS {
                if (way.greedy || way.two_layers) && nonzeros != middle {
                    continue;
                }
                let clock = Instant::now();
                let (found, atoms) = learn(&args, &planted, way, width, nonzeros, &device)?;
                if width == features && nonzeros == middle && !way.greedy {
                    compared.push((way.name, objectives(&planted, atoms)?));
                }
                tell(way.name, width, nonzeros, found, clock.elapsed().as_secs_f64());
            }
        }
        let clock = Instant::now();
        let found = top_k(&args, &planted, width, middle, &device)?;
        tell("TopK auto-encoder of this crate", width, middle, found, clock.elapsed().as_secs_f64());
    }
    files::create_folder(&args.out)?;
    let heading = "| atoms | learned by | non-zeros | FVU | MCC | uniqueness | precision | recall | F1 | seconds |\n|---|---|---|---|---|---|---|---|---|---|\n";
    let mut objectives = String::new();
    for (name, values) in &compared {
        let cells = values.iter().map(|[objective, nonzeros]| format!(" {objective:.3}, {nonzeros:.1} |"));
        objectives.push_str(&format!("| {name} |{}\n", cells.collect::<String>()));
    }
    println!("objective and non-zeros at λ {LAMBDAS:?}:\n{objectives}");
    let columns = LAMBDAS.map(|lambda| format!(" λ = {lambda} |")).concat();
    let page = format!(
        "# Does it find what is there?\n\n{} ({features} of them; {truth:.1} active in a signal), {} signals to learn from, {} to test on. Dictionaries learn for {} epochs, the TopK \
         auto-encoder for {}. MCC, uniqueness, precision, recall and F1 as SAELens computes them on synthetic data.\n\n{heading}{table}\n\
         ## What the objective prefers\n\n\
         Mean of ½‖y − Dγ‖² + λ‖γ‖₁, and non-zeros, over {} test signals less their offset, by {features} atoms. Where the learned atoms have \
         the smaller objective, one atom that holds features which fire together costs less than the features themselves: learning does \
         what it is asked to, and what it is asked to is not to find them.\n\n| atoms |{columns}\n|---|{}\n{objectives}",
        planted.name,
        planted.train.len(),
        planted.test.len(),
        args.epochs,
        5 * args.epochs,
        COMPARED.min(planted.test.len()),
        "---|".repeat(LAMBDAS.len())
    );
    files::write_bytes(&args.out.join("README.md"), page.as_bytes())?;
    let document = json!({ "signals": planted.name, "features": features, "active": truth, "epochs": args.epochs, "seed": args.seed, "rows": rows,
        "lambdas": LAMBDAS, "objective_and_nonzeros": compared });
    files::write_bytes(&args.out.join("results.json"), format!("{document:#}\n").as_bytes())
}
