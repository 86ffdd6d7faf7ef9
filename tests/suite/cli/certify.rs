//! `mlcsc sample` and `mlcsc certify` from outside: what is drawn is in the model, what cannot be drawn is refused, and certificates say
//! what is known of drawn signals.

use crate::common;

use common::program::Program;
use mlcsc::device;
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::design::DesignConfig;
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::{Mlcsc, ModelConfig};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;

/// A folder with a model on which the theorems have something to say.
struct Bench {
    program: Program,
    model: Mlcsc,
}

impl std::ops::Deref for Bench {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Bench {
    fn new(atom_nonzeros: usize) -> Self {
        let layers = vec![LayerShape::new(4, 6, 3), LayerShape::new(6, 2, 2)];
        let config = ModelConfig::new(SignalShape::new(1, 24, 24), layers);
        let config = DesignConfig { steps: 100, ..DesignConfig::new(config, vec![atom_nonzeros]) };
        let model = config.init(&device::named(None).unwrap()).unwrap();
        let bench = Self { program: Program::new(), model };
        bench.model.save(&bench.path("model.safetensors"), CodingDefaults::default()).unwrap();
        bench
    }

    fn npy(&self, name: &str) -> Vec<f32> {
        let bytes = fs::read(self.path(name)).unwrap();
        npyz::NpyFile::new(bytes.as_slice()).unwrap().into_vec::<f32>().unwrap()
    }

    fn gamma(&self, name: &str, layer: usize) -> Vec<f32> {
        let bytes = fs::read(self.path(name)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(&format!("gamma_{layer}")).unwrap();
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

#[test]
fn drawn_signals_are_in_the_model() {
    let bench = Bench::new(2);
    let printed =
        bench.json("sample --model model.safetensors --count 5 --nonzeros 2 --noise 0.25 --seed 3 --out drawn");
    assert_eq!(printed["mean_nonzeros"][1], 2.0);
    assert_eq!(printed["images"], 5);
    let (noisy, clean) = (bench.npy("drawn/signals.npy"), bench.npy("drawn/clean.npy"));
    let (first, second) = (bench.gamma("drawn/codes.safetensors", 1), bench.gamma("drawn/codes.safetensors", 2));
    let filters = bench.model.filters().into_iter().map(|filters| common::wide(&common::host(filters)));
    let explicit = common::explicit::Explicit::new(bench.model.config(), filters.collect());
    for index in 0..5 {
        let part = |values: &[f32]| common::wide(&values[index * values.len() / 5..(index + 1) * values.len() / 5]);
        let near = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&part(&first), &explicit.propagate(&part(&second))[0]));
        assert!(near(&part(&clean), &explicit.synthesize(&part(&second))));
        let noise: Vec<f64> = part(&noisy).iter().zip(part(&clean)).map(|(noisy, clean)| noisy - clean).collect();
        assert!((common::norm(&noise) - 0.25).abs() < 1e-5);
        assert!(bench.path(&format!("drawn/{index:06}.png")).is_file());
    }
    // The same seed draws the same, another does not; without noise there is no second array.
    bench.works("sample --model model.safetensors --count 5 --nonzeros 2 --noise 0.25 --seed 3 --out again");
    assert_eq!(bench.npy("again/signals.npy"), noisy);
    bench.works("sample --model model.safetensors --count 5 --nonzeros 2 --seed 4 --out other");
    assert_ne!(bench.gamma("other/codes.safetensors", 2), second);
    assert!(!bench.path("other/clean.npy").exists());
    // Limits of every layer, and whether the condition makes them certain.
    let limited = bench.json("sample --model model.safetensors --count 4 --stripe-limit 8,2 --out limited");
    assert_eq!(limited["stripe_norms"][1], 2);
    assert!(limited["stripe_norms"][0].as_u64().unwrap() <= 8);
    assert_eq!(limited["sparsity_conditions"][0]["atom_nonzeros"], 2);
    let text = bench.works("sample --model model.safetensors --count 4 --stripe-limit 2 --nonnegative --out text");
    assert!(text.starts_with("drew 4 signals of 1x24x24") && text.contains("codes.safetensors"), "{text}");
    assert!(bench.gamma("text/codes.safetensors", 2).iter().all(|value| *value >= 0.0));
    // The codes are read by the other commands.
    bench.works("reconstruct --model model.safetensors --codes drawn/codes.safetensors --out synthesized.npy");
    assert!(bench.npy("synthesized.npy").iter().zip(&clean).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn what_cannot_be_drawn_is_refused_and_nothing_written() {
    let bench = Bench::new(16);
    let sample = "sample --model model.safetensors --count 2 --out none";
    let refusal = bench.fails(&format!("{sample} --stripe-limit 3,1"), 2);
    assert!(refusal.contains("--stripe-limit, limit of layer 1 = 3") && refusal.contains("at least"), "{refusal}");
    assert!(!bench.path("none").exists());
    for (arguments, words) in [
        ("--nonzeros 100000", "1 to"),
        ("--nonzeros 0", "1 to"),
        ("--stripe-limit 1,2,3", "2, one per layer"),
        ("--stripe-limit 0", "layer 2"),
        ("--nonzeros 1 --noise -1", "--noise"),
        ("--nonzeros 50 --stripe-limit 1", "room"),
        ("", "--nonzeros"),
    ] {
        let error = bench.fails(&format!("{sample} {arguments}"), 2);
        assert!(error.contains(words), "{arguments}: {error}");
    }
    assert!(bench.fails("sample --model model.safetensors --count 0 --nonzeros 1 --out none", 2).contains("--count"));
    assert!(!bench.path("none").exists());
}

#[test]
fn certificates_know_what_was_planted() {
    let bench = Bench::new(2);
    bench.works("sample --model model.safetensors --count 6 --nonzeros 1 --seed 1 --out drawn");
    let certify = "certify --model model.safetensors --data drawn/signals.npy";
    let document = bench.json(&format!("{certify} --pursuit omp --nonzeros 1 --noise 0.05 --seed 2"));
    assert_eq!(document["certificates"].as_array().unwrap().len(), 6);
    for side in ["own", "effective"] {
        for dictionary in document[side].as_array().unwrap() {
            assert!(dictionary["welch_bound"].as_f64().unwrap() <= dictionary["coherence"].as_f64().unwrap() + 1e-6);
        }
    }
    let mut measured = 0;
    for certificate in document["certificates"].as_array().unwrap() {
        assert_eq!(certificate["layers"][1]["nonzeros"], 1);
        assert_eq!(certificate["uniqueness"][1], "effective");
        assert!(certificate["residual"].as_f64().unwrap() < 1e-3);
        let bound = certificate["stability"][1]["bound"]["global"].as_f64().unwrap();
        // E and a residual of nothing: E/√(1 − μ), not twice that.
        assert!((0.05..0.06).contains(&bound), "{bound}");
        for theorem in certificate["theorems"].as_array().unwrap() {
            let Some(errors) = theorem["measured"].as_array() else { continue };
            for (error, layer) in errors.iter().zip(theorem["layers"].as_array().unwrap()) {
                let (error, bound) = (error["global"].as_f64().unwrap(), layer["bound"]["global"].as_f64().unwrap());
                assert!(error <= bound * 1.001 + 1e-4, "{theorem}");
                measured += 1;
            }
        }
    }
    assert!(measured >= 6 * 2 * 2, "{measured}");
    let text = bench.works(&format!("{certify} --pursuit omp --nonzeros 1 --noise 0.05"));
    for word in [
        "certified 6 signals",
        "6 of 6",
        "noise radius",
        "omp-projection",
        "γ_2 measured",
        "fresh noise, not of the noise in the data",
        "for the fresh noise that was drawn",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains("copies") && !text.contains("zero columns") && !text.contains("exceeds E"), "{text}");
    // So much noise that bounds are vacuous or conditions fail, and that is what is said.
    let loud = bench.json(&format!("{certify} --pursuit omp --nonzeros 1 --noise 0.9"));
    let (mut vacuous, mut refused) = (0, 0);
    for certificate in loud["certificates"].as_array().unwrap() {
        let theorems = certificate["theorems"].as_array().unwrap();
        let named = |name: &str| theorems.iter().find(|theorem| theorem["theorem"] == name).unwrap();
        let norm = certificate["layers"][1]["norm"].as_f64().unwrap();
        let projection = &named("model-projection")["layers"][1];
        assert_eq!(named("model-projection")["radius"], "unbounded");
        assert_eq!(projection["vacuous"], projection["bound"]["global"].as_f64().unwrap() >= norm);
        vacuous += usize::from(projection["vacuous"] == true);
        let greedy = named("omp-projection");
        let holds = greedy["radius"].as_f64().unwrap() > 0.9;
        assert_eq!(greedy["layers"][1]["bound"].is_object(), holds);
        assert_eq!(greedy["holds"], holds);
        if !holds {
            assert!(greedy["layers"][1]["reason"].as_str().unwrap().contains("ε_0"));
            refused += 1;
        }
    }
    assert!(vacuous > 0 && refused > 0, "{vacuous} {refused}");
    // Codes that are too full for any theorem.
    bench.works("sample --model model.safetensors --count 6 --nonzeros 40 --noise 2 --out full");
    let full = bench
        .works("certify --model model.safetensors --data full/signals.npy --pursuit omp --nonzeros 50 --noise 0.1");
    assert!(full.contains("no guarantee") && full.contains("0 of 6"), "{full}");
    assert!(bench.fails(&format!("{certify} --noise -1"), 2).contains("--noise"));
    assert!(bench.fails(&format!("{certify} --pursuit omp"), 2).contains("--nonzeros"));
    // Basis pursuit by default.
    assert_eq!(bench.json(certify)["pursuit"], "bp");
}

/// A folder with a model of these filters.
fn with_model(config: ModelConfig, filters: &[Vec<f32>]) -> Program {
    let case = common::Case { config, filters: filters.to_vec(), seed: 0 };
    let program = Program::new();
    let model = case.model(&device::named(None).unwrap());
    model.save(&program.path("model.safetensors"), CodingDefaults::default()).unwrap();
    program
}

/// Two corners of the tetrahedron are the other two with their signs turned: nothing is certified. One is.
#[test]
fn nothing_with_a_twin_is_certified() {
    let config = ModelConfig::new(SignalShape::new(3, 1, 1), vec![LayerShape::new(4, 1, 1)]);
    let corners = vec![1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
    let program = with_model(config, &[corners]);
    write_npy(&program.path("x.npy"), &[2, 3, 1, 1], &[2.0, 0.0, 0.0, -1.5, 1.5, -1.5]).unwrap();
    let found = program.json("certify --model model.safetensors --data x.npy --pursuit omp --nonzeros 2");
    assert!(found["own"][0]["coherence"].as_f64().unwrap() > 1.0 / 3.0);
    assert_eq!(found["certificates"][0]["uniqueness"][0], "unproven");
    assert!(found["certificates"][0]["stability"][0]["no_guarantee"].is_object());
    assert_eq!(found["certificates"][1]["uniqueness"][0], "effective");
}

/// Copies and zero columns are named, and the pair of columns that is most alike.
#[test]
fn faults_of_dictionaries_are_named() {
    let config = ModelConfig::new(SignalShape::new(1, 1, 8), vec![LayerShape::new(4, Pair([1, 3]), 1)]);
    // Atom 2 is atom 0 moved by one and turned; atom 3 is zero.
    let filters = vec![0.6, 0.8, 0.0, 1.0, 0.0, 1.0, 0.0, -0.6, -0.8, 0.0, 0.0, 0.0];
    let program = with_model(config.clone(), &[filters]);
    write_npy(&program.path("x.npy"), &[1, 1, 1, 8], &[0.6, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let certify = "certify --model model.safetensors --data x.npy --pursuit omp --nonzeros 1";
    let found = program.json(certify);
    let dictionary = &found["own"][0];
    assert_eq!(dictionary["coherence"], 1.0);
    assert_eq!(dictionary["copies"]["pairs"], 1);
    assert_eq!(dictionary["copies"]["named"][0]["atoms"], serde_json::json!([2, 0]));
    assert_eq!(dictionary["copies"]["named"][0]["shift"], serde_json::json!([0, 1]));
    assert_eq!(dictionary["attained_by"], dictionary["copies"]["named"][0]);
    assert_eq!(dictionary["zero_columns"], serde_json::json!([{ "atom": 3, "columns": 6, "of": 6 }]));
    assert_eq!(found["certificates"][0]["uniqueness"][0], "unproven");
    let text = program.works(certify);
    for words in ["copies in D_1: atoms 2 and 0, moved by [0, 1]", "zero columns in D_1: atom 3", "within E: layer 1"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    // Without them only the pair that is most alike is named: 0.8/√(1 + 0.05²).
    let config = ModelConfig::new(SignalShape::new(1, 1, 8), vec![LayerShape::new(2, Pair([1, 3]), 1)]);
    let program = with_model(config, &[vec![0.6, 0.8, 0.0, 0.0, 1.0, 0.05]]);
    write_npy(&program.path("x.npy"), &[1, 1, 1, 8], &[0.6, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let text = program.works(certify);
    assert!(text.contains("0.799  atoms 0 and 1"), "{text}");
    assert!(!text.contains("copies") && !text.contains("zero columns"), "{text}");
}

/// A residual beyond the noise that was stated is said, one within is not.
#[test]
fn residuals_beyond_the_stated_noise_are_said() {
    let bench = Bench::new(2);
    bench.works("sample --model model.safetensors --count 3 --nonzeros 2 --seed 4 --noise 0.5 --out drawn");
    let certify = "certify --model model.safetensors --data drawn/signals.npy --pursuit omp --nonzeros 2";
    let exceeds = |document: &Value| {
        let certificates = document["certificates"].as_array().unwrap();
        let each = certificates.iter().map(|certificate| {
            let (residual, noise) = (certificate["residual"].as_f64().unwrap(), certificate["noise"].as_f64().unwrap());
            assert_eq!(certificate["residual_exceeds_noise"], residual > noise);
            residual > noise
        });
        each.filter(|exceeds| *exceeds).count()
    };
    assert_eq!(exceeds(&bench.json(&format!("{certify} --noise 0.01"))), 3);
    let text = bench.works(&format!("{certify} --noise 0.01"));
    assert!(text.contains("the residual of 3 of 3 signals exceeds E = 0.01"), "{text}");
    assert_eq!(exceeds(&bench.json(&format!("{certify} --noise 0.7"))), 0);
    assert!(!bench.works(&format!("{certify} --noise 0.7")).contains("exceeds E"));
}

/// Where padding crops columns, what is said of one theorem is said of one penalty: holds, support, radius, bounds and errors agree.
#[test]
fn what_is_said_of_a_theorem_agrees_where_columns_are_cropped() {
    let layers = vec![LayerShape::new(3, 3, 1).with_padding(1), LayerShape::new(2, 2, 1)];
    let config = ModelConfig::new(SignalShape::new(3, 6, 6), layers);
    // In the middle of every atom of D_1 a one on a channel of its own, and in a corner, which padding crops, something on another.
    let mut filters = vec![vec![0.0f32; 3 * 3 * 9], vec![0.0; 2 * 3 * 4]];
    for atom in 0..3 {
        filters[0][(atom * 3 + atom) * 9 + 4] = 1.0;
        filters[0][(atom * 3 + (atom + 1) % 3) * 9 + 2 * atom] = 0.3;
    }
    (filters[1][0], filters[1][11]) = (1.0, 0.2);
    (filters[1][12 + 5], filters[1][12 + 3]) = (0.9, -0.2);
    let program = with_model(config, &filters);
    let (mut held, mut refused, mut measured) = (0, 0, 0);
    for nonzeros in [1, 2] {
        program
            .works(&format!("sample --model model.safetensors --count 4 --nonzeros {nonzeros} --out drawn{nonzeros}"));
        let certify = format!(
            "certify --model model.safetensors --data drawn{nonzeros}/signals.npy --pursuit omp --nonzeros {nonzeros}"
        );
        for noise in ["", " --noise 0.01", " --noise 0.1"] {
            let found = program.json(&format!("{certify}{noise}"));
            let length = found["noise"].as_f64().unwrap_or(0.0);
            for certificate in found["certificates"].as_array().unwrap() {
                for theorem in certificate["theorems"].as_array().unwrap() {
                    let bounded = |document: &Value| {
                        document["layers"].as_array().unwrap().iter().all(|layer| layer["bound"].is_object())
                    };
                    let holds = theorem["holds"].as_bool().unwrap();
                    assert_eq!(holds, bounded(theorem), "{theorem}");
                    assert_eq!(holds, !theorem["support"].is_null(), "{theorem}");
                    let radius = match &theorem["radius"] {
                        Value::String(_) => Some(f64::INFINITY),
                        radius => radius.as_f64(),
                    };
                    assert_eq!(holds, radius.is_some_and(|radius| radius >= length), "{theorem}");
                    held += usize::from(holds);
                    refused += usize::from(!holds);
                    for document in [theorem, &theorem["known_patches"]] {
                        if document.is_null() {
                            continue;
                        }
                        // Known patches can only help.
                        assert!(bounded(document) || !holds);
                        let Some(errors) = document["measured"].as_array() else { continue };
                        for (error, layer) in errors.iter().zip(document["layers"].as_array().unwrap()) {
                            for norm in ["global", "local", "largest"] {
                                let bound = layer["bound"][norm].as_f64().unwrap();
                                assert!(error[norm].as_f64().unwrap() <= bound * 1.001 + 1e-5, "{document}");
                                measured += 1;
                            }
                        }
                    }
                }
            }
            let text = program.works(&format!("{certify}{noise}"));
            for line in text.lines().filter(|line| line.starts_with("  ") && line.contains("no guarantee")) {
                let name = line.split_whitespace().next().unwrap();
                let reason = match name.parse::<usize>() {
                    Ok(layer) => format!("  within E: layer {layer}"),
                    Err(_) => format!("  {name}"),
                };
                assert!(
                    text.lines().any(|line| line.starts_with(&reason) && line.contains(" fails: ")),
                    "{name} in {text}"
                );
            }
        }
    }
    assert!(held >= 20 && refused >= 4 && measured >= 100, "{held} {refused} {measured}");
}
