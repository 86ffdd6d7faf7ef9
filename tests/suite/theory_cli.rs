//! `mlcsc sample` and `mlcsc certify` from outside: what is drawn is in the model, what cannot be drawn is refused, and certificates say
//! what is known of drawn signals.

use crate::common;

use common::program::Program;
use mlcsc::device;
use mlcsc::model::design::DesignConfig;
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::geometry::{LayerShape, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig};
use safetensors::SafeTensors;
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
    bench.works("reconstruct --model model.safetensors --codes drawn/codes.safetensors --out painted.npy");
    assert!(bench.npy("painted.npy").iter().zip(&clean).all(|(a, b)| (a - b).abs() < 1e-5));
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
    for word in ["certified 6 signals", "6 of 6", "noise radius", "omp-projection", "γ_2 measured"] {
        assert!(text.contains(word), "{word} in {text}");
    }
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
