//! Importing, coding, exporting and diagnosing auto-encoders of others from outside.

use super::references::small;
use crate::common::program::Program;
use mlcsc::export::arrays::write_npy;
use mlcsc::foreign;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// An array of a safetensors file.
fn array(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let values = tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    (tensor.shape().to_vec(), values)
}

/// A folder with the signals of an auto-encoder's reference, and itself as `m.safetensors`.
fn imported(name: &str) -> (Program, Value) {
    let program = Program::new();
    let (shape, signals) = array(&small(name).join("reference.safetensors"), "x");
    write_npy(&program.path("x.npy"), &shape, &signals).unwrap();
    let document = program.json(&format!("import --sae {} --out m.safetensors", small(name).display()));
    (program, document)
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn codes_are_in_their_units_whoever_finds_them() {
    for name in ["standard", "topk_by_norm", "topk_constant_norm", "abstopk", "gemma_scope", "matching_pursuit"] {
        let (program, document) = imported(name);
        assert_eq!(document["autoencoder"]["units"], 24, "{document}");
        let reference = small(name).join("reference.safetensors");
        let (_, codes) = array(&reference, "codes");
        let (_, decoded) = array(&reference, "decoded");
        let found = program.json("encode --model m.safetensors --data x.npy --out codes.safetensors --batch-size 5");
        assert_eq!((found["pursuit"].as_str(), found["signals"].as_u64()), (Some("encoder"), Some(12)));
        assert!(distance(&array(&program.path("codes.safetensors"), "gamma_1").1, &codes) < 1e-5, "{name}");
        // From codes and from signals the reconstructions are theirs.
        for input in ["--codes codes.safetensors", "--data x.npy", "--data x.npy --pursuit encoder"] {
            program.works(&format!("reconstruct --model m.safetensors {input} --out back.npy"));
            let back = mlcsc::data::npy::read_array(&program.path("back.npy")).unwrap();
            assert!(distance(&back.values, &decoded) < 1e-5, "{name} {input}");
        }
        let omp = "--data x.npy --pursuit omp --nonzeros 4";
        if name == "topk_constant_norm" {
            let errors = program.fails(&format!("encode --model m.safetensors {omp} --out omp.safetensors"), 2);
            assert!(errors.contains("constant-norm") && errors.contains("scales every signal"), "{errors}");
            let errors = program.fails("inspect --model m.safetensors", 1);
            assert!(errors.contains("an imported auto-encoder that scales every signal"), "{errors}");
            continue;
        }
        // A pursuit's codes synthesise the same signals from the decoder as it stands as by the pursuit's own atoms.
        program.works(&format!("encode --model m.safetensors {omp} --out omp.safetensors"));
        program.works("reconstruct --model m.safetensors --codes omp.safetensors --out one.npy");
        program.works(&format!("reconstruct --model m.safetensors {omp} --out two.npy"));
        let read = |name: &str| mlcsc::data::npy::read_array(&program.path(name)).unwrap().values;
        assert!(distance(&read("one.npy"), &read("two.npy")) < 1e-5, "{name}");
        let (_, pursued) = array(&program.path("omp.safetensors"), "gamma_1");
        assert!(pursued.chunks_exact(24).all(|code| code.iter().filter(|value| **value != 0.0).count() <= 4));
        // Non-negative but where theirs are not.
        assert_eq!(pursued.iter().any(|value| *value < 0.0), name == "abstopk", "{name}");
        // It is a model too.
        let text = program.works("inspect --model m.safetensors");
        assert!(text.contains("encoder") && text.contains("mean"), "{text}");
        program.works("export --model m.safetensors --out arrays");
        let exported = mlcsc::data::npy::read_array(&program.path("arrays/W_1.npy")).unwrap();
        assert_eq!(exported.shape, [24, 16, 1, 1]);
    }
}

#[test]
fn what_is_exported_is_read_again() {
    let device = mlcsc::device::named(None).unwrap();
    for name in ["standard", "topk", "abstopk", "jumprelu", "gated", "matching_pursuit", "sparsify_topk", "gemma_scope"]
    {
        let (program, _) = imported(name);
        program.works("export --model m.safetensors --format saelens --out theirs");
        assert_eq!(program.names("theirs"), ["cfg.json", "sae_weights.safetensors"]);
        let again = foreign::read(&program.path("theirs"), &device).unwrap();
        let before = foreign::read(&small(name), &device).unwrap();
        assert_eq!(again.config().activation, before.config().activation);
        assert_eq!(again.config().centred, before.config().centred, "{name}");
        program.works("import --sae theirs --out again.safetensors");
        program.works("encode --model again.safetensors --data x.npy --out again-codes.safetensors");
        program.works("encode --model m.safetensors --data x.npy --out codes.safetensors");
        let codes = |file: &str| array(&program.path(file), "gamma_1").1;
        assert_eq!(codes("again-codes.safetensors"), codes("codes.safetensors"), "{name}");
        // Settings of a pursuit are for dictionaries.
        let errors = program.fails("export --model m.safetensors --format saelens --out theirs --picks 3", 2);
        assert!(errors.contains("--picks = 3"), "{errors}");
    }
    let (program, _) = imported("sparsify_groupmax");
    let errors = program.fails("export --model m.safetensors --format saelens --out theirs", 2);
    assert!(errors.contains("it keeps no largest of groups"), "{errors}");
    assert!(!program.path("theirs").exists());
}

/// Dictionaries of vectors, of one layer and of two, become matching pursuits over unit atoms.
#[test]
fn dictionaries_become_matching_pursuits() {
    let program = Program::new();
    let (shape, signals) = array(&small("standard").join("reference.safetensors"), "x");
    write_npy(&program.path("x.npy"), &shape, &signals).unwrap();
    let values = |count: usize| -> Vec<f32> { (0..count).map(|at| ((at * 29) % 97) as f32 / 40.0 - 1.2).collect() };
    write_npy(&program.path("w1.npy"), &[20, 16, 1, 1], &values(20 * 16)).unwrap();
    write_npy(&program.path("w2.npy"), &[30, 20, 1, 1], &values(30 * 20)).unwrap();
    for (filters, atoms) in [("w1.npy", 20), ("w1.npy w2.npy", 30)] {
        program.works(&format!("import --filters {filters} --input-shape 16x1x1 --out m.safetensors"));
        let export = "export --model m.safetensors --format saelens --out theirs --picks 5 --residual 0.25";
        let told = program.run(&format!("{export} --json"));
        // The dictionary's codes have both signs.
        assert!(String::from_utf8(told.stderr).unwrap().contains("--both-signs"));
        let found: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert!(found["warning"].is_string(), "{found}");
        assert_eq!(found["files"].as_array().unwrap().len(), 2, "{found}");
        let settings: Value = serde_json::from_slice(&fs::read(program.path("theirs/cfg.json")).unwrap()).unwrap();
        assert_eq!(settings["architecture"], "matching_pursuit");
        assert_eq!(
            (settings["max_iterations"].as_u64(), settings["residual_threshold"].as_f64()),
            (Some(5), Some(0.25))
        );
        let (shape, rows) = array(&program.path("theirs/sae_weights.safetensors"), "W_dec");
        assert_eq!(shape, [atoms, 16]);
        let norm = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(rows.chunks_exact(16).all(|row| (norm(row) - 1.0).abs() < 1e-5));
        program.works(&format!("{export} --both-signs"));
        let (shape, both) = array(&program.path("theirs/sae_weights.safetensors"), "W_dec");
        assert_eq!(shape, [2 * atoms, 16]);
        assert!(both[..atoms * 16] == rows && both[atoms * 16..].iter().zip(&rows).all(|(a, b)| *a == -b));
        program.run(export);
        program.works("import --sae theirs --out theirs.safetensors");
        program.works("encode --model theirs.safetensors --data x.npy --out codes.safetensors");
        let (_, codes) = array(&program.path("codes.safetensors"), "gamma_1");
        assert!(codes.chunks_exact(atoms).all(|code| (1..=5).contains(&code.iter().filter(|v| **v != 0.0).count())));
    }
    for (flags, words) in [
        ("--picks 0", "--picks = 0: expected 1 to 16"),
        ("--picks 17", "--picks = 17: expected 1 to 16"),
        ("--residual -1", "--residual = -1"),
    ] {
        let errors = program.fails(&format!("export --model m.safetensors --format saelens --out new {flags}"), 2);
        assert!(errors.contains(words), "{errors}");
    }
    let errors = program.fails("export --model m.safetensors --picks 3 --out new", 2);
    assert!(errors.contains("--format saelens"), "{errors}");
    // Convolutions and contrasts are nothing that SAELens has.
    write_npy(&program.path("k.npy"), &[3, 1, 4, 4], &values(48)).unwrap();
    program.works("import --filters k.npy --input-shape 1x8x8 --out c.safetensors");
    let errors = program.fails("export --model c.safetensors --format saelens --out new", 1);
    assert!(errors.contains("a dictionary of vectors"), "{errors}");
    program.works("import --filters w1.npy --input-shape 16x1x1 --normalization contrast --out c.safetensors");
    let errors = program.fails("export --model c.safetensors --format saelens --out new", 1);
    assert!(errors.contains("normalization of c.safetensors for SAELens"), "{errors}");
    assert!(!program.path("new").exists());
}

#[test]
fn mistakes_are_named() {
    let (program, _) = imported("topk");
    for (arguments, code, words) in [
        ("import --sae nowhere --out n.safetensors", 1, "nowhere"),
        (
            "import --sae . --out n.safetensors",
            1,
            "expected a sparse auto-encoder, found none of sae_weights.safetensors",
        ),
        ("import --out n.safetensors", 2, "--filters"),
        ("import --sae . --input-shape 3x1x1 --out n.safetensors", 2, "--input-shape"),
        ("encode --model m.safetensors --data x.npy --nonzeros 3 --out c.npz", 2, "--pursuit"),
        ("encode --model m.safetensors --data x.npy --lambda 0.1 --out c.npz", 2, "--lambda = 0.1"),
        ("encode --model m.safetensors --data x.npy --pursuit encoder --gap 0.1 --out c.npz", 2, "--gap = 0.1"),
        ("encode --model m.safetensors --data digits --count 3 --out c.npz", 1, "16x1x1"),
        ("encode --model m.safetensors --data x.npy --out m.safetensors", 2, "--model reads"),
        ("certify --model m.safetensors --data x.npy --pursuit encoder", 2, "--pursuit"),
    ] {
        let errors = program.fails(arguments, code);
        assert!(errors.contains(words), "{arguments}: {errors}");
    }
    // Without an encoder of others there is none to be asked for.
    let values: Vec<f32> = (0..20 * 16).map(|at| (at % 7) as f32 - 3.0).collect();
    write_npy(&program.path("w.npy"), &[20, 16, 1, 1], &values).unwrap();
    program.works("import --filters w.npy --input-shape 16x1x1 --out d.safetensors");
    let errors = program.fails("encode --model d.safetensors --data x.npy --pursuit encoder --out c.npz", 2);
    assert!(errors.contains("--pursuit = encoder"), "{errors}");
    assert_eq!(program.names("."), ["d.safetensors", "m.safetensors", "w.npy", "x.npy"]);
    // What it reads is not written over.
    let theirs = small("topk");
    fs::copy(theirs.join("cfg.json"), program.path("cfg.json")).unwrap();
    fs::copy(theirs.join("sae_weights.safetensors"), program.path("sae_weights.safetensors")).unwrap();
    let errors = program.fails("import --sae . --out sae_weights.safetensors", 2);
    assert!(errors.contains("--sae reads"), "{errors}");
}

#[test]
fn encoders_are_diagnosed_beside_pursuits() {
    let (program, _) = imported("topk");
    program.works(&format!("import --sae {} --out n.safetensors", small("topk_constant_norm").display()));
    let values: Vec<f32> = (0..20 * 16).map(|at| ((at * 29) % 97) as f32 / 40.0 - 1.2).collect();
    write_npy(&program.path("w.npy"), &[20, 16, 1, 1], &values).unwrap();
    program.works("import --filters w.npy --input-shape 16x1x1 --out d.safetensors");
    let models = "diagnose --model m.safetensors n.safetensors d.safetensors --data x.npy";
    let document = program.json(&format!("{models} --plot p.svg --out page"));
    let found = &document["models"][0]["doctor"];
    let number = |path: &str| found.pointer(path).unwrap().as_f64().unwrap_or_else(|| panic!("{path} of {found}"));
    assert_eq!((number("/signals"), number("/encoder/nonzeros")), (12.0, 4.0));
    // Least squares on as many atoms, chosen by the residual, beats one pass.
    assert!(number("/omp/fvu") < number("/encoder/fvu") && number("/l1/fvu") < number("/encoder/fvu"));
    assert!((number("/encoder/fvu") - document["models"][0]["diagnostics"]["fvu"].as_f64().unwrap()).abs() < 1e-6);
    assert!(number("/objectives/bound") <= number("/objectives/pursuit"));
    assert!(number("/objectives/pursuit") < number("/objectives/encoder"));
    assert!(found["worst"].as_array().unwrap().iter().all(|worst| worst["signal"].as_u64().unwrap() < 12));
    for (index, reason) in [(1, "its signals are scaled one by one"), (2, "its encoder is the pursuit")] {
        let model = &document["models"][index];
        assert!(model["doctor"].is_null() && model["not_examined"].as_str().unwrap().contains(reason), "{model}");
    }
    assert!(fs::read_to_string(program.path("p.svg")).unwrap().contains("OMP"));
    let page = fs::read_to_string(program.path("page/report.html")).unwrap();
    assert!(page.contains("What encoders leave on the table") && page.contains("FVU of m.safetensors"));
    let text = program.works(models);
    assert!(text.contains("what encoders leave on the table") && text.contains("most is lost on signals"), "{text}");
    assert!(text.contains("d.safetensors: not examined: its encoder is the pursuit"), "{text}");
    // Not asked for.
    let without = program.json(&format!("{models} --doctor-signals 0"));
    assert!(without["models"][0]["doctor"].is_null() && without["models"][0].get("not_examined").is_none());
    assert!(!program.works(&format!("{models} --doctor-signals 0")).contains("on the table"));
    let errors = program.fails(&format!("{models} --doctor-signals 0 --plot q.svg"), 2);
    assert!(errors.contains("--doctor-signals = 0"), "{errors}");
    let errors = program.fails("diagnose --model d.safetensors --data x.npy --plot q.svg", 2);
    assert!(errors.contains("--plot = q.svg") && !program.path("q.svg").exists(), "{errors}");
    let few = program.json("diagnose --model m.safetensors --data x.npy --doctor-signals 5");
    assert_eq!(few["models"][0]["doctor"]["signals"], 5);
}
