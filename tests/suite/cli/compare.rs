//! The program's pursuits from outside: every one by its name against other software's solutions, and side by side.

use crate::common;

use burn::tensor::Tensor;
use common::page::Page;
use common::program::Program;
use common::reference::Reference;
use common::{norm, wide};
use mlcsc::evaluate::comparison::{Batches, Comparison, Loaded, Row};
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::OperatorForm;
use mlcsc::pursuit::{BasisPursuitConfig, Lambda, PursuitName};
use mlcsc::{Error, Result};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::fs;

/// A folder with the model and the signals of a reference problem.
struct Bench {
    program: Program,
    problem: Reference,
}

impl std::ops::Deref for Bench {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Bench {
    fn new(name: &'static str) -> Self {
        let problem = Reference::load(name);
        let bench = Self { program: Program::new(), problem };
        let layers = &bench.problem.meta.layers;
        let filters: Vec<String> = (1..=layers.len()).map(|layer| bench.array(&format!("filters_{layer}"))).collect();
        let strides: Vec<String> = layers.iter().map(|layer| layer.stride.to_string()).collect();
        let [channels, height, width] = bench.problem.meta.input_shape;
        bench.works(&format!(
            "import --filters {} --strides {} --input-shape {channels}x{height}x{width} --out model.safetensors",
            filters.join(" "),
            strides.join(",")
        ));
        bench
    }

    /// The path of one of the problem's arrays.
    fn array(&self, name: &str) -> String {
        format!("{}/tests/reference/{}/{name}.npy", env!("CARGO_MANIFEST_DIR"), self.problem.name)
    }

    fn depth(&self) -> usize {
        self.problem.meta.layers.len()
    }

    /// Runs what must be refused as wrong usage in one line (and a hint) that holds all of `words`, leaving nothing behind.
    fn refuses(&self, arguments: &str, words: &[&str]) {
        let before = self.names(".");
        let errors = self.fails(arguments, 2);
        assert!(words.iter().all(|word| errors.contains(word)), "{arguments}: {words:?} in {errors}");
        assert_eq!(self.names("."), before, "{arguments}");
    }

    fn data(&self) -> String {
        format!("--model model.safetensors --data {}", self.array("signals"))
    }

    fn encode(&self, flags: &str) -> Value {
        self.json(&format!("encode {} --out codes.safetensors {flags}", self.data()))
    }

    /// γ_1 … γ_L of every signal, as the last [`Self::encode`] wrote them.
    fn codes(&self) -> Vec<Vec<Vec<f64>>> {
        let bytes = fs::read(self.path("codes.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let count = self.problem.meta.signals;
        let layer = |layer: usize| {
            let tensor = tensors.tensor(&format!("gamma_{layer}")).unwrap();
            let bytes = tensor.data().chunks_exact(4);
            let values: Vec<f32> = bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            wide(&values).chunks(values.len() / count).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        let layers: Vec<Vec<Vec<f64>>> = (1..=self.depth()).map(layer).collect();
        (0..count).map(|row| layers.iter().map(|layer| layer[row].clone()).collect()).collect()
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn count(code: &[f64]) -> f64 {
    code.iter().filter(|value| **value != 0.0).count() as f64
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn assert_near(found: &Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-4 * expected.abs() + 1e-4, "{what}: {found}, expected {expected}");
}

const NAMES: [&str; 5] = common::reference::NAMES;

#[test]
fn orthogonal_matching_pursuit_equals_the_reference() {
    for bench in NAMES.map(Bench::new) {
        let nonzeros = bench.problem.meta.omp_nonzeros;
        let document = bench.encode(&format!("--pursuit omp --nonzeros {nonzeros} --batch-size 4"));
        assert_eq!(document["pursuit"], "omp");
        assert_eq!(document["stops"]["nonzeros"], bench.problem.meta.signals);
        assert_eq!(document["mean_nonzeros"], nonzeros as f64);
        let expected = bench.problem.array("omp_gamma_L");
        for (row, codes) in bench.codes().iter().enumerate() {
            for (found, expected) in codes[bench.depth() - 1].iter().zip(expected.row(row)) {
                assert!((found - expected).abs() <= 1e-4, "{} {row}: {found} {expected}", bench.problem.name);
            }
        }
    }
}

#[test]
fn multi_layer_basis_pursuit_equals_the_reference() {
    for bench in NAMES.map(Bench::new) {
        let depth = bench.depth();
        let weights: Vec<&str> = (1..=depth).map(|layer| if layer == depth { "1" } else { "0.25" }).collect();
        let document = bench.encode(&format!(
            "--pursuit ml-bp --layer-weights {} --lambda-file {} --gap 2e-5 --batch-size 5",
            weights.join(","),
            bench.array("lambda")
        ));
        assert_eq!(document["pursuit"], "ml-bp");
        assert_eq!(document["converged"], bench.problem.meta.signals, "{document}");
        let (signals, lambda) = (bench.problem.array("signals"), bench.problem.array("lambda"));
        let optima = bench.problem.array("mlbp_objective");
        let explicit = bench.problem.case().explicit();
        for (row, codes) in bench.codes().iter().enumerate() {
            let penalty: f64 = codes
                .iter()
                .enumerate()
                .map(|(index, code)| {
                    let weight = if index + 1 == depth { 1.0 } else { 0.25 };
                    weight * lambda.values[row] * code.iter().map(|value| value.abs()).sum::<f64>()
                })
                .sum();
            let residual = difference(signals.row(row), &explicit.synthesize(&codes[depth - 1]));
            let (objective, optimum) = (0.5 * norm(&residual).powi(2) + penalty, optima.values[row]);
            let what = format!("{} signal {row}", bench.problem.name);
            assert!((objective - optimum).abs() <= 1e-5 * optimum, "{what}: {objective} of {optimum}");
        }
    }
}

#[test]
fn every_pursuit_codes_by_its_name() {
    let bench = Bench::new("two_layer");
    let data = bench.array("lambda");
    let optimum = mean(bench.problem.array("bp_objective").values.iter().copied());
    for flags in
        ["", "--algorithm fista", "--pursuit bp", "--pursuit ista", "--pursuit fista", "--pursuit coordinate-descent"]
    {
        let document = bench.encode(&format!("{flags} --lambda-file {data} --gap 1e-5"));
        let found = document["mean_objective"].as_f64().unwrap();
        assert!((found - optimum).abs() <= 2e-5 * optimum, "{flags}: {document}");
    }
    // No penalty on the first layer is basis pursuit; exactly for ml-bp.
    for name in ["ml-ista", "ml-fista", "ml-bp"] {
        let document = bench.encode(&format!("--pursuit {name} --lambda-file {data} --gap 1e-4"));
        let found = document["mean_objective"].as_f64().unwrap();
        assert!(found >= optimum * (1.0 - 1e-5) && found <= optimum * 1.01, "{name}: {document} {optimum}");
    }
    for (flags, stop) in [
        ("omp --noise 0.3", "residual"),
        ("projection --stripe-limits 200,4", "limit"),
        ("projection --nonzeros 3", "nonzeros"),
        ("projection --convex --lambda-relative 0.2 --debias --stripe-limits 400,30", ""),
        ("layered-bp --lambda-relative 0.3", ""),
        ("layered-bp --lambda-relative 0.3 --layer-weights 0.5,1 --algorithm ista --nonnegative", ""),
        ("holistic --nonzeros 60 --lambda-relative 0.1 --max-iterations 500", ""),
    ] {
        let document = bench.encode(&format!("--pursuit {flags}"));
        assert_eq!(document["pursuit"], flags.split(' ').next().unwrap());
        assert!(stop.is_empty() || document["stops"][stop].as_u64() > Some(0), "{flags}: {document}");
        let settings = bench.codes();
        assert!(settings.iter().any(|codes| count(&codes[1]) > 0.0), "{flags}");
    }
    assert!(bench.works(&format!("encode {} --out c.npz --pursuit omp --nonzeros 2", bench.data())).contains("omp"));
    bench.works(&format!("reconstruct {} --out x.npy --pursuit projection --nonzeros 2", bench.data()));
}

/// Their own representations are written, which are no propagations of the deepest.
#[test]
fn layered_thresholding_is_a_forward_pass() {
    let bench = Bench::new("stride_two");
    let explicit = bench.problem.case().explicit();
    let signals = bench.problem.array("signals");
    for kind in ["soft", "hard", "nonnegative"] {
        bench.encode(&format!("--pursuit layered-thresholding --threshold {kind} --lambda 0.2 --layer-weights 0.5,2"));
        for (row, codes) in bench.codes().iter().enumerate() {
            let mut below = signals.row(row).to_vec();
            for ((layer, code), threshold) in explicit.layers.iter().zip(codes).zip([0.1, 0.4]) {
                let expected = layer.analyze(&below).into_iter().map(|value| match kind {
                    "soft" => value.signum() * (value.abs() - threshold).max(0.0),
                    "hard" => {
                        if value.abs() > threshold {
                            value
                        } else {
                            0.0
                        }
                    }
                    _ => (value - threshold).max(0.0),
                });
                for (found, expected) in code.iter().zip(expected) {
                    let jumped = kind == "hard" && (found.abs().max(expected.abs()) - threshold).abs() < 1e-4;
                    assert!((found - expected).abs() <= 1e-4 || jumped, "{kind} {row}: {found} {expected}");
                }
                below = code.clone();
            }
        }
    }
}

#[test]
fn wrong_flags_of_pursuits() {
    let bench = Bench::new("two_layer");
    let encode = format!("encode {} --out new.npz", bench.data());
    for (flags, words) in [
        (
            "--pursuit lars",
            &["'lars' for '--pursuit <NAME>' [possible values: bp, ista,", "ml-bp, holistic, encoder]"][..],
        ),
        ("--pursuit holistik", &["'holistik'", "tip: a similar value exists: 'holistic'"]),
        ("--pursuit omp", &["--nonzeros", "at least 1"]),
        ("--pursuit omp --nonzeros 0", &["--nonzeros = 0", "at least 1"]),
        ("--pursuit omp --nonzeros -3", &["--nonzeros", "-3"]),
        ("--pursuit omp --nonzeros 100000", &["--nonzeros = 100000", "1 to "]),
        ("--pursuit omp --nonzeros 3,4", &["--nonzeros = 3,4", "one number"]),
        ("--pursuit omp --noise -1", &["--noise = -1", "≥ 0"]),
        ("--pursuit omp --noise nan", &["--noise", "≥ 0"]),
        ("--pursuit omp --nonzeros 3 --lambda 1", &["--lambda = 1", "omp", "--nonzeros"]),
        ("--pursuit omp --nonzeros 3 --gap 1e-3", &["--gap", "omp"]),
        ("--pursuit omp --nonzeros 3 --nonnegative --signed", &["--nonnegative", "--signed"]),
        ("--pursuit projection", &["--stripe-limits", "--nonzeros"]),
        ("--pursuit projection --stripe-limits 3", &["--stripe-limits = 1 number", "2, one per layer"]),
        ("--pursuit projection --stripe-limits 3,0", &["--stripe-limits = 0", "at least 1"]),
        ("--pursuit projection --nonzeros 100000", &["--nonzeros = 100000", "1 to "]),
        ("--pursuit projection --stripe-limits 3,3 --debias", &["--debias", "projection"]),
        ("--pursuit projection --convex --nonzeros 3 --stripe-limits 3,3", &["--nonzeros", "--convex"]),
        ("--pursuit ml-bp --layer-weights 1", &["--layer-weights = 1 number", "2, one per layer"]),
        ("--pursuit ml-bp --layer-weights 1,-1", &["--layer-weights = -1", "≥ 0"]),
        ("--pursuit ml-bp --lambda-relative 0.5 --layer-weights 3,1", &["--layer-weights = 3", "at most 2"]),
        ("--pursuit ml-bp --threshold soft", &["--threshold = soft", "ml-bp"]),
        ("--pursuit layered-thresholding --threshold firm", &["--threshold", "nonnegative"]),
        ("--pursuit layered-thresholding --threshold soft --signed", &["--threshold", "--signed"]),
        ("--pursuit layered-thresholding --gap 0.1", &["--gap = 0.1", "layered-thresholding"]),
        ("--pursuit holistic", &["--nonzeros", "one number for each layer before the deepest"]),
        ("--pursuit holistic --nonzeros 3,3", &["--nonzeros = 2 numbers", "1, one per layer"]),
        ("--pursuit holistic --nonzeros 100000", &["--nonzeros, nonzeros of layer 1 = 100000", "1 to "]),
        ("--pursuit ista --algorithm fista", &["--algorithm = fista", "ista"]),
        ("--pursuit coordinate-descent --application cascade", &["--application", "gram"]),
        ("--nonzeros 3", &["--nonzeros = 3", "--pursuit beside it, one of omp, ols"]),
        ("--layer-weights 0,1", &["--layer-weights = 0,1", "--pursuit beside it", "ml-bp"]),
        ("--noise 0.1", &["--noise = 0.1", "one of omp, ols, projection"]),
        ("--stripe-limits 3,3", &["--stripe-limits = 3,3", "one of projection"]),
        ("--convex", &["--convex", "--pursuit beside it, one of projection"]),
        ("--debias", &["--debias", "one of projection --convex"]),
    ] {
        bench.refuses(&format!("{encode} {flags}"), words);
    }
    let one = Bench::new("one_layer");
    one.refuses(
        &format!("encode {} --out new.npz --pursuit holistic --nonzeros 3", one.data()),
        &["--pursuit, number of layers = 1", "at least 2 with holistic pursuit"],
    );
    bench.refuses(
        "reconstruct --model model.safetensors --codes c.npz --out x --pursuit omp",
        &["--codes", "--pursuit"],
    );
}

/// The table's numbers against the codes that `encode` writes, by plain loops.
#[test]
fn tables_agree_with_the_codes() {
    let bench = Bench::new("two_layer");
    let explicit = bench.problem.case().explicit();
    let signals = bench.problem.array("signals");
    let flags = "--lambda-relative 0.2 --layer-weights 0.5,1";
    let pursuits = "--pursuits layered-thresholding,omp,ml-bp --nonzeros 3,5";
    let document = bench.json(&format!("compare {} {flags} {pursuits} --batch-size 4", bench.data()));
    let rows = document["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["pursuit"].as_str().unwrap()).collect();
    assert_eq!(names, ["layered-thresholding", "omp", "omp", "ml-bp"]);
    assert!(document.get("curves").is_none());
    for (row, encode) in rows.iter().zip([
        format!("layered-thresholding {flags}"),
        "omp --nonzeros 3".into(),
        "omp --nonzeros 5".into(),
        format!("ml-bp {flags}"),
    ]) {
        bench.encode(&format!("--pursuit {encode}"));
        let codes = bench.codes();
        assert_eq!(row["signals"], codes.len());
        let of_codes = |value: &dyn Fn(usize, &[Vec<f64>]) -> f64| {
            mean(codes.iter().enumerate().map(|(index, codes)| value(index, codes)))
        };
        let deepest =
            |index: usize, codes: &[Vec<f64>]| norm(&difference(signals.row(index), &explicit.synthesize(&codes[1])));
        let first = |index: usize, codes: &[Vec<f64>]| {
            norm(&difference(signals.row(index), &explicit.layers[0].synthesize(&codes[0])))
        };
        let between =
            |_: usize, codes: &[Vec<f64>]| norm(&difference(&codes[0], &explicit.layers[1].synthesize(&codes[1])));
        assert_near(&row["residual"], of_codes(&deepest), &encode);
        assert_near(&row["first_layer_residual"], of_codes(&first), &encode);
        assert_near(&row["inconsistency"][0], of_codes(&between), &encode);
        for layer in 0..2 {
            assert_near(&row["nonzeros"][layer], of_codes(&|_, codes| count(&codes[layer])), &encode);
            let [channels, height, width] = bench.problem.meta.layers[layer].code_shape;
            let common::reference::LayerMeta { kernel, stride, .. } = &bench.problem.meta.layers[layer];
            let radius = kernel.div_ceil(*stride) - 1;
            let stripe = |code: &[f64]| {
                let nonzero = |c: usize, y: usize, x: usize| code[(c * height + y) * width + x] != 0.0;
                let near = |a: usize, b: usize| a.abs_diff(b) <= radius;
                let window = |y: usize, x: usize| {
                    let places = (0..channels * height * width).filter(|place| {
                        let (c, row, column) = (place / (height * width), place / width % height, place % width);
                        near(row, y) && near(column, x) && nonzero(c, row, column)
                    });
                    places.count()
                };
                (0..height * width).map(|place| window(place / width, place % width)).max().unwrap() as f64
            };
            assert_near(&row["stripe_norms"][layer], of_codes(&|_, codes| stripe(&codes[layer])), &encode);
        }
        assert!(row["signals_per_second"].as_f64() > Some(0.0));
    }
    let layered = rows[0]["inconsistency"][0].as_f64().unwrap();
    assert!(layered > 1e-2 && rows[1]["inconsistency"][0].as_f64() < Some(1e-4), "{document}");
}

#[test]
fn pictures_of_comparisons() {
    let bench = Bench::new("two_layer");
    let compare = format!("compare {} --limit 2 --gap 1e-2 --max-iterations 100", bench.data());
    let document = bench.json(&format!("{compare} --out new/picture.svg --stripe-limits 100,10"));
    let curves = document["curves"].as_array().unwrap();
    let names: Vec<&str> = curves.iter().map(|curve| curve[0]["pursuit"].as_str().unwrap()).collect();
    assert_eq!(names, ["bp", "omp", "projection", "layered-thresholding", "layered-bp"]);
    let svg = fs::read_to_string(bench.path("new/picture.svg")).unwrap();
    assert!(names.iter().all(|name| svg.contains(name)) && svg.contains("non-zeros") && svg.contains("<polyline"));
    // More non-zeros, less error.
    let residuals: Vec<f64> =
        curves[1].as_array().unwrap().iter().map(|row| row["residual"].as_f64().unwrap()).collect();
    assert!(residuals.len() > 3 && residuals.windows(2).all(|pair| pair[1] < pair[0]), "{residuals:?}");
    assert_eq!(curves[0][0]["setting"]["lambda"]["relative"].as_f64().map(|value| value as f32), Some(0.8));
    let text = bench.works(&format!("{compare} --pursuits omp,holistic --shallower-nonzeros 60 --nonzeros 2"));
    assert!(text.contains("omp, 2 non-zeros") && text.contains("holistic") && text.contains("inconsistency"), "{text}");
}

#[test]
fn pages_of_comparisons() {
    let bench = Bench::new("two_layer");
    let compare = format!("compare {} --limit 2 --gap 1e-2 --max-iterations 100 --data-seed 5", bench.data());
    let document = bench.json(&format!("{compare} --out new/folder"));
    assert_eq!(bench.names("new/folder"), ["compare.svg", "report.html"]);
    for (key, name) in [("out", ""), ("picture", "/compare.svg"), ("report", "/report.html")] {
        assert_eq!(document[key], format!("new/folder{name}"));
    }
    let page = Page::read(&bench.path("new/folder/report.html"));
    page.holds(&["omp, 10 non-zeros", "layered-bp", "inconsistency", "--out new/folder --json", "of the data 5"]);
    // A line for every pursuit in the plots of error and of time, with a point for every row.
    let curves = document["curves"].as_array().unwrap();
    let points: usize = curves.iter().map(|curve| curve.as_array().unwrap().len()).sum();
    assert!(page.count("<polyline") >= 2 * curves.len() && page.count("<circle") >= 2 * points, "{points}");
    assert!(page.text.contains(&format!("{points} points")));
    // What it says of times aside it is the table that is printed.
    let text = bench.works(&format!("{compare} --pursuits bp,layered-bp --out printed"));
    assert!(text.contains("printed/compare.svg, printed/report.html"), "{text}");
    let page = Page::read(&bench.path("printed/report.html"));
    for line in text.lines().filter(|line| line.starts_with("  bp ") || line.starts_with("  layered-bp ")) {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert!(cells.len() > 5, "{line}");
        cells.iter().for_each(|cell| page.holds(&[&format!(">{cell}</td>")]));
    }
    for line in text.lines().filter(|line| line.contains("not converged")) {
        page.holds(&[line]);
    }
    bench.works(&format!("{compare} --pursuits bp --out silent --no-report"));
    assert_eq!(bench.names("silent"), ["compare.svg"]);
    fs::write(bench.path("file"), "").unwrap();
    for (flags, code, words) in [
        ("--no-report", 2, &["--out"][..]),
        ("--out .", 2, &["--out = .", "without a run"]),
        ("--out file", 1, &["file", "not a folder"]),
        ("--out file/below", 1, &["file/below", "not a folder"]),
    ] {
        let errors = bench.fails(&format!("{compare} {flags}"), code);
        assert!(words.iter().all(|word| errors.contains(word)), "{flags}: {errors}");
    }
}

#[test]
fn wrong_flags_of_comparisons() {
    let bench = Bench::new("two_layer");
    for (flags, words) in [
        ("--pursuits lars", &["--pursuits", "ml-fista"][..]),
        ("--pursuits omp,omp", &["--pursuits = omp", "once"]),
        ("--pursuits holistic", &["--pursuits = holistic", "--shallower-nonzeros"]),
        (
            "--pursuits holistic --shallower-nonzeros 100000",
            &["--shallower-nonzeros, nonzeros of layer 1 = 100000", "1 to "],
        ),
        ("--pursuits holistic --shallower-nonzeros 3,3", &["--shallower-nonzeros = 2 numbers"]),
        ("--shallower-nonzeros 3", &["--shallower-nonzeros", "holistic"]),
        ("--pursuits bp --nonzeros 3", &["--nonzeros", "omp"]),
        ("--pursuits omp --lambda 0.1", &["--lambda", "a pursuit with a penalty"]),
        ("--pursuits omp,layered-thresholding --gap 0.1", &["--gap", "duality gap"]),
        ("--nonzeros 0,3", &["--nonzeros = 0", "at least 1"]),
        ("--nonzeros 3,100000", &["--nonzeros = 100000", "1 to "]),
        ("--stripe-limits 3", &["--stripe-limits = 1 number", "2, one per layer"]),
        ("--layer-weights 1", &["--layer-weights = 1 number", "2, one per layer"]),
        ("--layer-weights 0.5,-1", &["--layer-weights = -1", "≥ 0"]),
        ("--pursuits bp --layer-weights 0.5,1", &["--layer-weights", "--pursuits"]),
        ("--layer-weights 2,1 --out x.svg", &["--layer-weights = 2", "at most"]),
        ("--lambda -1", &["--lambda = -1", "≥ 0"]),
        ("--gap 2", &["--gap = 2", "(0, 1)"]),
        ("--limit 0", &["--limit = 0", "at least 1"]),
        ("--batch-size 0", &["--batch-size = 0", "at least 1"]),
        ("--out x.png", &["--out = x.png", ".svg"]),
    ] {
        bench.refuses(&format!("compare {} {flags}", bench.data()), words);
    }
}

/// Signals of which only so many are coded.
struct Few {
    all: Loaded,
    left: Cell<usize>,
    rows: RefCell<Vec<PursuitName>>,
}

impl Batches for Few {
    fn count(&self) -> usize {
        self.all.count()
    }

    fn batch_size(&self) -> usize {
        self.all.batch_size()
    }

    fn read(&self, start: usize, count: usize) -> Result<Tensor<4>> {
        self.all.read(start, count)
    }

    fn advance(&self, count: usize) -> Result<()> {
        let left = self.left.get().checked_sub(count).ok_or_else(|| Error::Interrupted("enough".into()))?;
        self.left.set(left);
        Ok(())
    }

    fn measured(&self, row: &Row) {
        self.rows.borrow_mut().push(row.pursuit);
    }
}

/// What is known when a comparison is ended was told.
#[test]
fn finished_rows_are_told_before_the_end() {
    let device = common::devices().remove(0).device;
    let case = common::Case::random(SignalShape::new(1, 6, 6), vec![LayerShape::new(5, 3, 1)], 1);
    let operator = case.model(&device).operator(SignalShape::new(1, 6, 6), OperatorForm::Auto).unwrap();
    let signals = common::tensor(&case.signals(4), [4, 1, 6, 6], &device);
    let comparison = Comparison {
        pursuits: vec![PursuitName::OrthogonalMatchingPursuit, PursuitName::BasisPursuit, PursuitName::Fista],
        nonzeros: vec![3],
        lambda: Lambda::Relative(0.3),
        layer_weights: None,
        stripe_limits: None,
        shallower_nonzeros: Vec::new(),
        basis: BasisPursuitConfig::default(),
    };
    for (left, expected) in [(3, 0), (4, 1), (11, 2), (12, 3)] {
        let all = Loaded { signals: signals.clone(), batch_size: 2 };
        let few = Few { all, left: Cell::new(left), rows: RefCell::default() };
        let ended = comparison.table(&operator, &few);
        assert_eq!(ended.is_ok(), expected == 3, "{left}");
        assert_eq!(*few.rows.borrow(), comparison.pursuits[..expected]);
    }
}
