//! The program from outside: every command on tiny models, and what it says to bad input.

use crate::common;

use common::program::{self, Program};
use mlcsc::export::arrays::write_npy;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A folder to run the program in.
struct Bench {
    program: Program,
}

impl std::ops::Deref for Bench {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Bench {
    fn new() -> Self {
        Self { program: Program::new() }
    }

    fn npy(&self, name: &str, shape: &[usize], values: &[f32]) {
        write_npy(&self.path(name), shape, values).unwrap();
    }

    /// Runs what must fail with that code and one or two lines that hold all of `words`.
    fn fails(&self, arguments: &str, code: i32, words: &[&str]) {
        let errors = self.program.fails(arguments, code);
        assert!(words.iter().all(|word| errors.contains(word)), "{arguments}: {words:?} in {errors}");
    }

    /// `model.safetensors`: three layers on 1x12x12, the last a matrix; `signals.npy`: seven signals for it.
    fn with_model() -> Self {
        let bench = Self::new();
        bench.npy("w1.npy", &[4, 1, 5, 5], &noise(1, 100));
        bench.npy("w2.npy", &[6, 4, 4, 4], &noise(2, 384));
        bench.npy("w3.npy", &[8, 6, 5, 5], &noise(3, 1200));
        bench.npy("signals.npy", &[7, 12, 12], &noise(4, 7 * 144));
        bench.works("import --filters w1.npy w2.npy w3.npy --input-shape 1x12x12 --out model.safetensors");
        bench
    }

    /// `identity.safetensors`: one atom that is a single 1, so that codes are thresholded signals; `signals.npy`: two of 1×3.
    fn with_identity(import_flags: &str) -> Self {
        let bench = Self::new();
        bench.npy("one.npy", &[1, 1, 1, 1], &[1.0]);
        bench.npy("signals.npy", &[2, 1, 1, 3], &SIGNALS);
        bench.works(&format!("import --filters one.npy --input-shape 1x1x3 --out identity.safetensors {import_flags}"));
        bench
    }

    /// The values of an array of a codes file.
    fn floats(&self, file: &str, name: &str) -> Vec<f32> {
        let bytes = fs::read(self.path(file)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        floats(tensors.tensor(name).unwrap().data())
    }
}

const SIGNALS: [f32; 6] = [1.0, -0.25, 0.5, -1.0, 0.75, 0.25];

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn read_npy(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(fs::File::open(path).unwrap()).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// Numbers in [−0.5, 0.5) without a pattern.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    program::noise(seed, count).into_iter().map(|value| value - 0.5).collect()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest <= tolerance, "{largest}: {found:?} where {expected:?}");
}

fn soft(value: f32, lambda: f32) -> f32 {
    value.signum() * (value.abs() - lambda).max(0.0)
}

#[test]
fn version_and_help() {
    let bench = Bench::new();
    assert!(bench.works("--version").contains(mlcsc::device::available()[0]));
    for command in ["encode", "reconstruct", "inspect", "export", "import"] {
        assert!(bench.works("--help").contains(command));
        assert!(bench.works(&format!("{command} --help")).contains("Usage"));
    }
    assert_eq!(bench.run("").status.code(), Some(2));
    let help = |command: &str| {
        let help = bench.works(&format!("{command} --help"));
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (command, names) in [
        ("encode", "[default: auto] [possible values: auto, cascade, filters, matrix, gram]"),
        ("encode", "[possible values: soft, hard, nonnegative]"),
        ("classify", "[default: svm] [possible values: logistic, svm]"),
        ("train", "[possible values: small, mnist, natural, natural-colour]"),
        ("train", "sdae, pca, dictionary]"),
    ] {
        assert!(help(command).contains(names), "{names} in {}", help(command));
    }
}

#[test]
fn codes_of_the_identity_are_thresholded_signals() {
    let bench = Bench::with_identity("");
    let encode = "encode --model identity.safetensors --data signals.npy --out codes.safetensors";
    for flags in ["", "--algorithm ista", "--algorithm fista --application cascade", "--batch-size 1"] {
        let document = bench.json(&format!("{encode} --lambda 0.5 --gap 1e-6 {flags}"));
        // A gap of 1e-6 of an objective around 1 leaves codes within √(2e-6).
        close(&bench.floats("codes.safetensors", "gamma_1"), &SIGNALS.map(|value| soft(value, 0.5)), 2e-3);
        assert_eq!((document["signals"].as_u64(), document["converged"].as_u64()), (Some(2), Some(2)));
        assert_eq!(document["mean_nonzeros"].as_f64(), Some(1.5));
        assert!(document["max_gap"].as_f64().unwrap() <= 1e-6);
    }
    // Each signal with its own λ, kept in the report.
    bench.npy("lambda.npy", &[2], &[0.25, 0.5]);
    bench.json(&format!("{encode} --lambda-file lambda.npy --batch-size 1"));
    let expected: Vec<f32> =
        SIGNALS.iter().enumerate().map(|(index, &value)| soft(value, if index < 3 { 0.25 } else { 0.5 })).collect();
    close(&bench.floats("codes.safetensors", "gamma_1"), &expected, 2e-2);
    assert_eq!(bench.floats("codes.safetensors", "lambda"), [0.25, 0.5]);
    // A fraction of each signal's largest correlation, which is 1 for both; non-negative, where it is 0.75 for the second.
    bench.json(&format!("{encode} --lambda-relative 0.5"));
    assert_eq!(bench.floats("codes.safetensors", "lambda"), [0.5, 0.5]);
    bench.json(&format!("{encode} --lambda-relative 0.5 --nonnegative"));
    assert_eq!(bench.floats("codes.safetensors", "lambda"), [0.5, 0.375]);
    // Neither flags nor model: a tenth.
    bench.json(encode);
    close(&bench.floats("codes.safetensors", "lambda"), &[0.1, 0.1], 1e-6);
}

#[test]
fn what_the_model_stores_is_the_default() {
    let bench = Bench::with_identity("--lambda 0.25 --nonnegative --normalization center");
    let encode = "encode --model identity.safetensors --data signals.npy --gap 1e-6 --out codes.safetensors";
    let means = [1.25 / 3.0, 0.0];
    let centred: Vec<f32> = SIGNALS.iter().enumerate().map(|(index, value)| value - means[index / 3]).collect();
    bench.works(encode);
    let expected: Vec<f32> = centred.iter().map(|value| (value - 0.25).max(0.0)).collect();
    close(&bench.floats("codes.safetensors", "gamma_1"), &expected, 2e-3);
    bench.works(&format!("{encode} --signed --lambda 0.125"));
    let expected: Vec<f32> = centred.iter().map(|&value| soft(value, 0.125)).collect();
    close(&bench.floats("codes.safetensors", "gamma_1"), &expected, 2e-3);
    // The mean comes back, from signals and from codes.
    let document = bench.json(
        "reconstruct --model identity.safetensors --data signals.npy --gap 1e-6 --signed --lambda 0.125 --out x.npy",
    );
    let restored: Vec<f32> = expected.iter().enumerate().map(|(index, value)| value + means[index / 3]).collect();
    close(&read_npy(&bench.path("x.npy")).1, &restored, 2e-3);
    let errors: Vec<f32> = SIGNALS.iter().zip(&restored).map(|(y, x)| (y - x).powi(2)).collect();
    let psnr = errors.chunks(3).map(|errors| -10.0 * (errors.iter().sum::<f32>() / 3.0).log10()).sum::<f32>() / 2.0;
    // Measured: 6e-7. A gap of 1e-6 leaves about a thousandth of a coefficient.
    assert!((document["psnr"].as_f64().unwrap() - f64::from(psnr)).abs() < 0.01, "{document} {psnr}");
    bench.works("reconstruct --model identity.safetensors --codes codes.safetensors --out y.npy");
    close(&read_npy(&bench.path("y.npy")).1, &restored, 2e-3);
}

#[test]
fn algorithms_and_applications_agree() {
    let bench = Bench::with_model();
    let ways = ["auto", "cascade", "filters", "matrix", "gram"].map(|way| format!("--application {way}"));
    let algorithms = ["--algorithm fista".into(), "--algorithm coordinate-descent".into()];
    for lambda in ["--lambda 2", "--lambda-relative 0.2 --nonnegative"] {
        let objectives: Vec<f64> = ways
            .iter()
            .chain(&algorithms)
            .map(|way| {
                let flags = format!("--gap 1e-5 {lambda} {way}");
                let document =
                    bench.json(&format!("encode --model model.safetensors --data signals.npy --out c.npz {flags}"));
                assert_eq!(document["converged"], 7, "{flags}: {document}");
                document["mean_objective"].as_f64().unwrap()
            })
            .collect();
        // All are within 1e-5 of the same minimum.
        assert!(objectives.iter().all(|value| (value - objectives[0]).abs() <= 3e-5 * objectives[0]), "{objectives:?}");
    }
}

#[test]
fn codes_go_through_files_of_both_formats() {
    let bench = Bench::with_model();
    let flags = "--model model.safetensors --data signals.npy --lambda-relative 0.1 --batch-size 3";
    bench.works(&format!("reconstruct {flags} --out direct.npy"));
    let (shape, direct) = read_npy(&bench.path("direct.npy"));
    assert_eq!(shape, [7, 12, 12]);
    for file in ["codes.safetensors", "codes.npz"] {
        let document = bench.json(&format!("encode {flags} --out {file}"));
        assert_eq!(document["out"], file);
        bench.works(&format!("reconstruct --model model.safetensors --codes {file} --out again.npy --batch-size 2"));
        let (shape, again) = read_npy(&bench.path("again.npy"));
        assert_eq!(shape, [7, 12, 12]);
        close(&again, &direct, 1e-4);
    }
    // γ_1 and γ_2 belong to γ_3; non-zeros are counted right.
    let bytes = fs::read(bench.path("codes.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shapes = [vec![7, 4, 8, 8], vec![7, 6, 5, 5], vec![7, 8, 1, 1]];
    for (index, shape) in shapes.iter().enumerate() {
        assert_eq!(tensors.tensor(&format!("gamma_{}", index + 1)).unwrap().shape(), shape);
    }
    let codes = floats(tensors.tensor("gamma_3").unwrap().data());
    let counted: Vec<i32> =
        codes.chunks(8).map(|code| code.iter().filter(|value| **value != 0.0).count() as i32).collect();
    let stored = tensors.tensor("nonzeros").unwrap();
    let stored: Vec<i32> = stored.data().chunks(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(stored, counted);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let settings: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["mlcsc_codes"]).unwrap();
    assert_eq!(settings["pursuit"]["lambda"]["relative"].as_f64().map(|value| value as f32), Some(0.1));
    assert_eq!(settings["model"]["signal"]["height"], 12);
}

#[test]
fn signals_of_another_size_and_parts_of_a_set() {
    let bench = Bench::new();
    bench.npy("w.npy", &[5, 1, 4, 4], &noise(1, 80));
    bench.npy("signals.npy", &[20, 1, 9, 14], &noise(2, 20 * 126));
    bench.works("import --filters w.npy --strides 2 --paddings 1x2 --input-shape 1x8x8 --out model.safetensors");
    let encode = "encode --model model.safetensors --data signals.npy --out codes.safetensors";
    for (flags, count) in [("", 20), ("--limit 3", 3), ("--split train", 18), ("--split test", 2), ("--limit 99", 20)] {
        assert_eq!(bench.json(&format!("{encode} {flags}"))["signals"], count, "{flags}");
    }
    // The file knows the signals' shape, which the codes' alone does not tell.
    let document = bench.json("reconstruct --model model.safetensors --codes codes.safetensors --out x.npy");
    assert_eq!(document["signals"], 20);
    assert_eq!(read_npy(&bench.path("x.npy")).0, [20, 1, 9, 14]);
    let codes = "reconstruct --model model.safetensors --codes codes.safetensors --out y.npy";
    bench.fails(&format!("{codes} --input-shape 1x8x8"), 1, &["codes.safetensors", "gamma_1"]);
    bench.works("reconstruct --model model.safetensors --data signals.npy --patch 8 --patches 6 --out patches");
    assert_eq!(fs::read_dir(bench.path("patches")).unwrap().count(), 6);
}

#[test]
fn reconstructions_as_images() {
    let bench = Bench::with_model();
    let text = bench.works("reconstruct --model model.safetensors --data signals.npy --limit 3 --out images/here");
    assert!(text.contains("PSNR") && text.contains("3 images"), "{text}");
    for index in 0..3 {
        let image = image::open(bench.path(&format!("images/here/00000{index}.png"))).unwrap();
        assert_eq!((image.width(), image.height()), (12, 12));
    }
    assert_eq!(fs::read_dir(bench.path("images/here")).unwrap().count(), 3);
}

#[test]
fn inspecting_shows_what_is_there() {
    let bench = Bench::with_model();
    let document = bench.json("inspect --model model.safetensors");
    assert_eq!(document["parameters"], 100 + 384 + 1200);
    assert_eq!(document["layers"][2]["code"], "8x1x1");
    assert_eq!(document["layers"][2]["effective"]["kernel"], serde_json::json!([12, 12]));
    assert_eq!(document["application"], "gram");
    assert_eq!(document["multiplications"]["gram"], 64);
    let filters = noise(1, 100);
    let norms = filters.chunks(25).map(|atom| atom.iter().map(|value| value * value).sum::<f32>().sqrt());
    let largest = f64::from(norms.fold(0.0, f32::max));
    assert!((document["layers"][0]["filters"]["max_norm"].as_f64().unwrap() - largest).abs() < 1e-5);
    let text = bench.works("inspect --model model.safetensors --input-shape 1x20x12");
    assert!(text.contains("8x9x1") && text.contains("← auto") && text.contains("coherence"), "{text}");
}

#[test]
fn exporting_writes_filters_as_they_are() {
    let bench = Bench::with_model();
    let document = bench.json("export --model model.safetensors --out a/b");
    let files = document["files"].as_array().unwrap();
    assert_eq!(files.len(), 3 + 2 + 3 + 1);
    assert!(files.iter().all(|file| bench.path(file.as_str().unwrap()).is_file()));
    assert_eq!(read_npy(&bench.path("a/b/W_2.npy")), (vec![6, 4, 4, 4], noise(2, 384)));
    assert_eq!(read_npy(&bench.path("a/b/effective_3.npy")).0, [8, 1, 12, 12]);
    assert!(bench.works("export --model model.safetensors --out a/b").contains("effective_3.png"));
}

#[test]
fn usage_errors() {
    let bench = Bench::with_model();
    let encode = "encode --model model.safetensors --data signals.npy --out out.npz";
    bench.npy("three.npy", &[3], &[0.1; 3]);
    let before = bench.names(".");
    for (flags, words) in [
        ("--lambda -1", ["--lambda", "-1"]),
        ("--lambda nan", ["--lambda", "NaN"]),
        ("--lambda-relative 1.5", ["--lambda-relative", "1.5"]),
        ("--lambda 1 --lambda-relative 0.5", ["--lambda", "--lambda-relative"]),
        ("--nonnegative --signed", ["--nonnegative", "--signed"]),
        ("--gap 0", ["--gap", "0"]),
        ("--gap 1", ["--gap", "1"]),
        ("--max-iterations 0", ["--max-iterations", "0"]),
        ("--batch-size 0", ["--batch-size", "0"]),
        ("--batch-size two", ["--batch-size", "two"]),
        ("--limit 0", ["--limit", "0"]),
        ("--count 0", ["--count", "0"]),
        ("--patch 0", ["--patch", "0"]),
        ("--split half", ["--split", "half"]),
        ("--algorithm newton", ["--algorithm", "coordinate-descent"]),
        ("--application magic", ["--application", "cascade"]),
        ("--algorithm coordinate-descent --application cascade", ["--application", "cascade"]),
        ("--device abacus", ["abacus", "flex"]),
        ("--what", ["--what", "--help"]),
    ] {
        bench.fails(&format!("{encode} {flags}"), 2, &words);
    }
    let output = bench.command(encode).env("BURN_DEVICE", "abacus").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("abacus"));
    bench.fails("encode --model model.safetensors --data signals.npy --out out.txt", 2, &["--out", "out.txt"]);
    bench.fails("encode --model model.safetensors --out out.npz", 2, &["--data"]);
    bench.fails("encode", 2, &["--model", "--out"]);
    bench.fails("decode", 2, &["decode"]);
    bench.fails("reconstruct --model model.safetensors --out x.npy", 2, &["--codes"]);
    let codes = "reconstruct --model model.safetensors --codes c.npz --out x.npy";
    bench.fails(&format!("{codes} --lambda 1"), 2, &["--codes", "--lambda"]);
    bench.fails(&format!("{codes} --data signals.npy"), 2, &["--codes", "--data"]);
    bench.fails("inspect --model model.safetensors --input-shape 12", 2, &["--input-shape", "12"]);
    let import = "import --filters w1.npy w2.npy --input-shape 1x12x12 --out new.safetensors";
    bench.fails(&format!("{import} --strides 1"), 2, &["--strides"]);
    bench.fails(&format!("{import} --strides 1,0"), 2, &["--strides", "0"]);
    bench.fails(&format!("{import} --paddings 1,1,1"), 2, &["--paddings"]);
    bench.fails(&format!("{import} --lambda -2"), 2, &["--lambda"]);
    bench.fails(&format!("{encode} --lambda-file three.npy"), 1, &["three.npy", "[7]", "[3]"]);
    bench.npy("three.npy", &[7], &[-0.1; 7]);
    bench.fails(&format!("{encode} --lambda-file three.npy"), 2, &["three.npy", "-0.1"]);
    assert_eq!(bench.names("."), before);
}

#[test]
fn files_that_are_no_models() {
    let bench = Bench::with_model();
    let model = fs::read(bench.path("model.safetensors")).unwrap();
    let mut absurd = model.clone();
    absurd[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    bench.works("encode --model model.safetensors --data signals.npy --out codes.safetensors");
    let other = fs::read(bench.path("codes.safetensors")).unwrap();
    let nan = {
        let mut bytes = model.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let broken: [&[u8]; 8] =
        [b"", b"text, no model", &model[..7], &model[..200], &model[..model.len() - 1], &absurd, &other, &nan];
    let before = bench.names(".");
    for bytes in broken {
        fs::write(bench.path("bad.safetensors"), bytes).unwrap();
        for command in [
            "encode --model bad.safetensors --data signals.npy --out out.npz",
            "reconstruct --model bad.safetensors --data signals.npy --out out",
            "inspect --model bad.safetensors",
            "export --model bad.safetensors --out out",
        ] {
            bench.fails(command, 1, &["bad.safetensors"]);
        }
    }
    fs::remove_file(bench.path("bad.safetensors")).unwrap();
    bench.fails("inspect --model missing.safetensors", 1, &["missing.safetensors"]);
    fs::create_dir(bench.path("folder")).unwrap();
    bench.fails("inspect --model folder", 1, &["folder"]);
    fs::remove_dir(bench.path("folder")).unwrap();
    assert_eq!(bench.names("."), before);
}

#[test]
fn signals_and_codes_that_do_not_fit() {
    let bench = Bench::with_model();
    bench.npy("colour.npy", &[2, 3, 12, 12], &noise(1, 864));
    bench.npy("small.npy", &[2, 4, 4], &noise(1, 32));
    bench.npy("nan.npy", &[1, 12, 12], &[f32::NAN; 144]);
    fs::write(bench.path("text.npy"), "text").unwrap();
    bench.npy("one.npy", &[2, 1, 1, 1], &[1.0; 2]);
    bench.works("import --filters one.npy --input-shape 1x3x3 --out other.safetensors");
    bench.npy("nine.npy", &[1, 3, 3], &[0.5; 9]);
    bench.works("encode --model other.safetensors --data nine.npy --out other.npz");
    bench.works("encode --model model.safetensors --data signals.npy --out codes.npz");
    let codes = fs::read(bench.path("codes.npz")).unwrap();
    fs::write(bench.path("cut.npz"), &codes[..codes.len() / 2]).unwrap();
    let before = bench.names(".");
    for data in ["colour.npy", "small.npy", "nan.npy", "text.npy"] {
        for command in ["encode --out out.npz", "reconstruct --out out.npy"] {
            bench.fails(&format!("{command} --model model.safetensors --data {data}"), 1, &[data]);
        }
    }
    bench.fails("encode --out out.npz --model model.safetensors --data missing.npy", 2, &["--data", "missing.npy"]);
    for codes in ["other.npz", "cut.npz", "missing.npz"] {
        bench.fails(&format!("reconstruct --model model.safetensors --codes {codes} --out out"), 1, &[codes]);
    }
    bench.fails("reconstruct --model other.safetensors --codes codes.npz --out out", 1, &["codes.npz", "2x12x12"]);
    bench.fails("reconstruct --model model.safetensors --codes nine.npy --out out", 2, &["--codes", "nine.npy"]);
    assert_eq!(bench.names("."), before);
}

/// Codes over other dictionaries of the same shape would make other signals; arrays of one's own are taken as they are.
#[test]
fn codes_belong_to_their_dictionaries() {
    let bench = Bench::with_model();
    bench.npy("w3.npy", &[8, 6, 5, 5], &noise(30, 1200));
    bench.works("import --filters w1.npy w2.npy w3.npy --input-shape 1x12x12 --out like.safetensors");
    for codes in ["codes.npz", "codes.safetensors"] {
        bench.works(&format!("encode --model model.safetensors --data signals.npy --out {codes}"));
        bench.works(&format!("reconstruct --model model.safetensors --codes {codes} --out signals-again.npy"));
        let command = format!("reconstruct --model like.safetensors --codes {codes} --out none.npy");
        bench.fails(&command, 1, &[codes, "over the dictionaries of like.safetensors"]);
        assert!(!bench.path("none.npy").exists());
    }
}

/// One value of vectors that has all variance is told, in text and JSON; not where values are scaled one by one.
#[test]
fn a_value_that_outweighs_all_others_is_told() {
    let bench = Bench::new();
    let values: Vec<f32> = noise(5, 64 * 16)
        .into_iter()
        .enumerate()
        .map(|(at, value)| if at % 16 == 3 { 1e4 * value } else { value })
        .collect();
    bench.npy("vectors.npy", &[64, 16], &values);
    let told = |flags: &str| {
        let output = bench.run(&format!("train --data vectors.npy --atoms 8 --epochs 1 --json {flags}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap().contains("value 3 (from 0) has");
        assert_eq!(said, found["outliers"].is_string(), "{found}");
        said
    };
    assert!(told("--out plain"));
    assert!(!told("--normalization standardise --out scaled"));
}

/// A model says how its codes are computed; flags say otherwise.
#[test]
fn a_model_that_is_trained_further_keeps_lambda_and_sign() {
    let bench = Bench::with_model();
    let import = "import --filters w1.npy w2.npy w3.npy --input-shape 1x12x12";
    bench.works(&format!("{import} --lambda 0.07 --nonnegative --out positive.safetensors"));
    bench.works(&format!("{import} --lambda 0.05 --out signed.safetensors"));
    let lambda = |flags: &str| {
        let printed = bench.works(&format!("train --print-config --data signals.npy {flags}"));
        let config: Value = serde_json::from_str(&printed).unwrap();
        (config["learning"]["lambda"].clone(), config["learning"]["nonnegative"].as_bool().unwrap_or(false))
    };
    let of = |value: f32, nonnegative: bool| (serde_json::json!(value), nonnegative);
    for (flags, expected) in [
        ("--from positive.safetensors", of(0.07, true)),
        ("--from positive.safetensors --pursuit bp", of(0.07, true)),
        ("--from positive.safetensors --signed", of(0.07, false)),
        ("--from signed.safetensors", of(0.05, false)),
        ("--from signed.safetensors --lambda 0.25 --nonnegative", of(0.25, true)),
    ] {
        let (found, nonnegative) = lambda(flags);
        let close = (found.as_f64().unwrap() - expected.0.as_f64().unwrap()).abs() < 1e-6;
        assert!(close && nonnegative == expected.1, "{flags}: {found}, {nonnegative}");
    }
    // Without λ it follows from the signals, whatever their unit.
    let size = lambda("--from model.safetensors").0.as_f64().unwrap();
    bench.npy("signals.npy", &[7, 12, 12], &noise(4, 7 * 144).iter().map(|value| 1000.0 * value).collect::<Vec<_>>());
    let large = lambda("--from model.safetensors").0.as_f64().unwrap();
    assert!(size > 0.0 && (large / size - 1000.0).abs() < 1.0, "{size}, {large}");
}

#[test]
fn filters_that_are_no_dictionary() {
    let bench = Bench::with_model();
    bench.npy("nan.npy", &[1, 1, 2, 2], &[1.0, f32::NAN, 0.0, 0.0]);
    bench.npy("flat.npy", &[4], &[1.0; 4]);
    let before = bench.names(".");
    let out = "--input-shape 1x12x12 --out new.safetensors";
    bench.fails(&format!("import --filters nan.npy {out}"), 1, &["nan.npy"]);
    bench.fails(&format!("import --filters flat.npy {out}"), 1, &["flat.npy"]);
    bench.fails(&format!("import --filters w1.npy w3.npy {out}"), 1, &["w3.npy", "4 channels"]);
    bench.fails(&format!("import --filters missing.npy {out}"), 1, &["missing.npy"]);
    bench.fails("import --filters w1.npy --input-shape 1x4x4 --out new.safetensors", 1, &["kernel of layer 1"]);
    bench.fails(&format!("import --filters w1.npy --paddings 5 {out}"), 2, &["padding"]);
    assert_eq!(bench.names("."), before);
}

#[test]
fn places_that_cannot_be_written() {
    let bench = Bench::with_model();
    bench.works("encode --model model.safetensors --data signals.npy --out codes.npz");
    let before = bench.names(".");
    for (command, out) in [
        ("encode --model model.safetensors --data signals.npy", "w1.npy/below/out.npz"),
        ("reconstruct --model model.safetensors --data signals.npy", "w1.npy/below"),
        ("reconstruct --model model.safetensors --data signals.npy", "w1.npy/out.npy"),
        ("export --model model.safetensors", "w1.npy/out"),
        ("import --filters w1.npy --input-shape 1x12x12", "w1.npy/new.safetensors"),
    ] {
        bench.fails(&format!("{command} --out {out}"), 1, &[out]);
    }
    let onto_model = "reconstruct --model model.safetensors --codes codes.npz --out model.safetensors";
    bench.fails(onto_model, 2, &["--out = model.safetensors"]);
    assert_eq!(bench.names("."), before);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let bench = Bench::with_model();
    let mut child = bench
        .command("inspect --model model.safetensors")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Signals end the program without leaving anything behind.
#[cfg(unix)]
#[test]
fn interruptions_leave_nothing() {
    let bench = Bench::with_model();
    let before = bench.names(".");
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        // Far more iterations than the test has time for, in many batches.
        bench.npy("signals.npy", &[20_000, 12, 12], &noise(4, 20_000 * 144));
        let slow =
            "--algorithm ista --gap 1e-9 --lambda 1e-4 --max-iterations 2000 --batch-size 1 --application cascade";
        let mut child = bench
            .command(&format!("encode --model model.safetensors --data signals.npy --out out.npz {slow}"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(child.try_wait().unwrap().is_none(), "the command ended before it could be interrupted");
        assert_eq!(bench.names("."), before);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{output:?}");
        assert_eq!(bench.names("."), before);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.lines().count() <= 1 && !errors.contains("panicked"), "{errors}");
    }
}

/// What the model was trained with is the default of greedy pursuits too, and flags undo it.
#[test]
fn greedy_codes_have_the_sign_that_was_asked_for() {
    for (stored, flags, sign) in [
        ("", "", false),
        ("", "--nonnegative", true),
        ("--nonnegative", "", true),
        ("--nonnegative", "--signed", false),
    ] {
        let bench = Bench::with_identity(stored);
        for pursuit in ["omp --nonzeros 3", "projection --stripe-limits 3"] {
            let encode = "encode --model identity.safetensors --data signals.npy --out codes.safetensors";
            let document = bench.json(&format!("{encode} --pursuit {pursuit} {flags}"));
            assert_eq!(document["nonnegative"], sign, "{document}");
            let expected: Vec<f32> = SIGNALS.iter().map(|&value| if sign { value.max(0.0) } else { value }).collect();
            close(&bench.floats("codes.safetensors", "gamma_1"), &expected, 1e-6);
        }
        let text = bench.works(&format!(
            "encode --model identity.safetensors --data signals.npy --out codes.safetensors --pursuit omp --nonzeros 3 {flags}"
        ));
        assert_eq!(text.contains("γ ≥ 0"), sign, "{text}");
    }
}
