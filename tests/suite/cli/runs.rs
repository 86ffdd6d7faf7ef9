//! `mlcsc train` from outside: signals that are ignored, files completed by flags, data that moved, whole configurations, messages.

use crate::common::program::Program;
use mlcsc::data::{DataConfig, Fingerprint, open};
use mlcsc::export::arrays::write_npy;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder with `x.npy`, forty signals of 1x12x12, and `small.json`, a configuration that learns from them in a second.
fn bench() -> Program {
    let bench = Program::new();
    signals(&bench, "x.npy", 0.0);
    write(&bench, "small.json", &configuration());
    bench
}

fn signals(bench: &Program, name: &str, phase: f32) {
    let values: Vec<f32> = (0..40 * 144).map(|value| (value as f32 * 0.37 + phase).sin().abs()).collect();
    write_npy(&bench.path(name), &[40, 12, 12], &values).unwrap();
}

fn configuration() -> Value {
    json!({
        "model": {
            "signal": {"channels": 1, "height": 12, "width": 12},
            "layers": [{"atoms": 6, "kernel": 5}, {"atoms": 8, "kernel": 3}, {"atoms": 12, "kernel": 6}],
        },
        "data": {"source": "x.npy"},
        "learning": {"epochs": 1, "batch_size": 10, "lambda": 0.2, "gap": 1e-2, "initialization": {"steps": 4}},
    })
}

fn write(bench: &Program, name: &str, document: &Value) {
    fs::write(bench.path(name), document.to_string()).unwrap();
}

fn read(bench: &Program, name: &str) -> Vec<u8> {
    fs::read(bench.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Trains, which says on stderr how it goes, and returns stdout.
fn trains(bench: &Program, arguments: &str) -> String {
    let output = bench.run(&format!("train {arguments}"));
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs what must fail with that code and one line that holds all of `words`.
fn refuses(bench: &Program, arguments: &str, code: i32, words: &[&str]) -> String {
    let errors = bench.fails(arguments, code);
    assert!(words.iter().all(|word| errors.contains(word)), "{arguments}: {words:?} in {errors}");
    errors
}

/// The configuration that the flags make, as the program prints it.
fn printed(bench: &Program, arguments: &str) -> Value {
    serde_json::from_str(&bench.works(&format!("train --print-config {arguments}"))).unwrap()
}

// Signals.

fn steps(bench: &Program) -> usize {
    fs::read_to_string(bench.path("run/metrics.jsonl")).unwrap_or_default().matches(r#""kind":"step""#).count()
}

fn wait_for(bench: &Program, child: &mut Child, count: usize) {
    let started = Instant::now();
    while steps(bench) < count {
        assert!(started.elapsed() < Duration::from_secs(120), "no {count} steps");
        assert!(child.try_wait().unwrap().is_none(), "it ended before {count} steps");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Signals that were ignored when the program started change nothing; others end it at a step's boundary.
#[cfg(unix)]
#[test]
fn ignored_signals_stay_ignored() {
    for (ignored, other) in [("HUP", "TERM"), ("INT", "HUP"), ("TERM", "INT")] {
        let bench = bench();
        let script = format!("trap '' {ignored}; exec \"$0\" train --config small.json --epochs 100000 --out run");
        let mut child = Command::new("sh")
            .current_dir(bench.folder())
            .args(["-c", &script, env!("CARGO_BIN_EXE_mlcsc")])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let kill = |name: &str, child: &Child| {
            let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
            assert!(status.success());
        };
        wait_for(&bench, &mut child, 3);
        // Twice, for the second one would end the program at once.
        kill(ignored, &child);
        kill(ignored, &child);
        let done = steps(&bench);
        wait_for(&bench, &mut child, done + 3);
        kill(other, &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{ignored}, {other}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted: "), "{ignored}, {other}");
    }
}

// Files that flags complete.

/// Every flag is put over the file before the file is checked.
#[test]
fn flags_mend_what_is_wrong_in_a_file() {
    let bench = bench();
    trains(&bench, "--config small.json --out whole");
    let mut cases = vec![
        ("/learning/epochs", json!(0), "--epochs 2", "learning.epochs = 0"),
        ("/learning/batch_size", json!(0), "--batch-size 5", "learning.batch_size = 0"),
        ("/learning/lambda", json!(-1.0), "--lambda 0.3", "learning.lambda = -1"),
        ("/model/layers/1/padding", json!(1), "--method gradient", "--method gradient"),
        ("/model/layers/1/kernel", json!(99), "--from whole", "kernel of layer 2"),
        ("/data/count", json!(1), "--count 60", "data.count = 1"),
        ("/data/patch", json!(0), "--patch 12", "data.patch = 0x0"),
        ("/data/patches", json!(0), "--patch 12 --patches 20", "data.patches = 0"),
    ];
    if cfg!(feature = "train") {
        cases.push((
            "/learning/unrolled/iterations",
            json!(0),
            "--unrolled-iterations 3",
            "learning.unrolled.iterations = 0",
        ));
        cases.push((
            "/learning/unrolled/optimization/learning_rate",
            json!(7.0),
            "--learning-rate 0.1",
            "learning.unrolled.optimization.learning_rate = 7",
        ));
    }
    for (field, wrong, flag, message) in cases {
        let mut document = configuration();
        if field.contains("unrolled") {
            document["learning"]["update"] = json!("unrolled");
            document["learning"]["unrolled"] = json!({"optimization": {}});
        }
        let (parent, name) = field.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = wrong;
        write(&bench, "wrong.json", &document);
        let errors = refuses(&bench, "train --config wrong.json --out run", 1, &["wrong.json", message]);
        assert!(!errors.contains("--config"), "{errors}");
        printed(&bench, &format!("--config wrong.json {flag}"));
    }
    // As the message says.
    let mut document = configuration();
    document["model"]["layers"][2]["padding"] = json!(1);
    write(&bench, "padded.json", &document);
    trains(&bench, "--config padded.json --method gradient --out padded");
    // What the file does not say, flags may.
    document.as_object_mut().unwrap().remove("model");
    write(&bench, "none.json", &document);
    refuses(&bench, "train --config none.json --out run", 1, &["none.json", "model"]);
    assert_eq!(printed(&bench, "--config none.json --from whole")["model"], configuration_of(&bench, "whole")["model"]);
    // What a flag says wrongly is the flag's mistake, whatever the file says.
    refuses(&bench, "train --config small.json --epochs 0 --out run", 2, &["--epochs = 0"]);
    refuses(&bench, "train --config small.json --patch 99 --out run", 2, &["--patch = 99x99"]);
    refuses(&bench, "train --config small.json --data none.npy --out run", 2, &["--data", "none.npy", "no such path"]);
    document = configuration();
    document["data"]["source"] = json!("none.npy");
    write(&bench, "nowhere.json", &document);
    refuses(&bench, "train --config nowhere.json --out run", 1, &["nowhere.json", "source", "none.npy"]);
    trains(&bench, "--config nowhere.json --data x.npy --out somewhere");
    assert!(!bench.path("run").exists());
}

fn configuration_of(bench: &Program, folder: &str) -> Value {
    serde_json::from_slice(&read(bench, &format!("{folder}/config.json"))).unwrap()
}

#[cfg(feature = "train")]
#[test]
fn flags_mend_what_is_wrong_in_a_rivals_file() {
    let bench = bench();
    for (field, wrong, flag, message) in [
        ("/epochs", json!(0), "--epochs 2", "epochs = 0"),
        ("/batch_size", json!(0), "--batch-size 5", "batch_size = 0"),
        ("/rival/units", json!(0), "--units 20", "units = 0"),
        ("/rival/k", json!(500), "--units 20", "k = 500"),
        ("/optimization/learning_rate", json!(7.0), "--learning-rate 0.1", "learning_rate = 7"),
        ("/data/count", json!(1), "--count 60", "count = 1"),
    ] {
        let mut document = json!({
            "rival": {"model": "k-sparse", "units": 30, "k": 5, "initial_k": 5}, "data": {}, "optimization": {},
        });
        let (parent, name) = field.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = wrong;
        if name == "k" {
            document["rival"]["initial_k"] = json!(500);
        }
        write(&bench, "rival.json", &document);
        refuses(&bench, "train --config rival.json --out run", 1, &["rival.json", message]);
        printed(&bench, &format!("--config rival.json {flag}"));
    }
    refuses(&bench, "train --config small.json --units 5 --out run", 2, &["--units = 5", "--model"]);
    refuses(&bench, "train --model pca --data x.npy --batch-size 0 --out run", 2, &["--batch-size = 0"]);
}

// Data that moved.

fn fingerprint(bench: &Program, name: &str) -> Fingerprint {
    let source = bench.path(name).to_str().unwrap().into();
    Fingerprint::of(&open(&DataConfig { source, ..DataConfig::default() }).unwrap()).unwrap()
}

#[test]
fn a_fingerprint_tells_signals_and_not_paths() {
    let bench = bench();
    let first = fingerprint(&bench, "x.npy");
    fs::create_dir(bench.path("elsewhere")).unwrap();
    fs::copy(bench.path("x.npy"), bench.path("elsewhere/y.npy")).unwrap();
    assert_eq!(fingerprint(&bench, "elsewhere/y.npy"), first);
    assert!(first.to_string().starts_with("36+4x1x12x12-"), "{first}");
    let bytes = read(&bench, "x.npy");
    let header = bytes.len() - 40 * 144 * 4;
    // The lowest byte of any value, the first and the last too.
    for value in [0, 1234, 40 * 144 - 1] {
        let mut bytes = bytes.clone();
        bytes[header + 4 * value] ^= 1;
        fs::write(bench.path("y.npy"), &bytes).unwrap();
        assert_ne!(fingerprint(&bench, "y.npy"), first, "{value}");
    }
    // The same signals in another order.
    let mut bytes = bytes;
    bytes[header..].rotate_left(144 * 4);
    fs::write(bench.path("y.npy"), &bytes).unwrap();
    assert_ne!(fingerprint(&bench, "y.npy"), first);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy_folder(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// A run goes on from the same signals at another place, and from no others.
#[test]
fn runs_follow_their_data() {
    let rules = ["--config small.json", "--config small.json --method gradient"];
    let gradients = ["--config small.json --method unrolled", "--model sae --units 9 --batch-size 10 --data x.npy"];
    let rules: Vec<_> = rules.into_iter().chain(gradients.into_iter().filter(|_| cfg!(feature = "train"))).collect();
    for rule in rules {
        let bench = bench();
        // The same run with its data at their place; what comes after an epoch depends on how many are planned.
        trains(&bench, &format!("{rule} --epochs 1 --out run"));
        copy_folder(&bench.path("run"), &bench.path("whole"));
        trains(&bench, "--resume --epochs 2 --out whole");
        fs::create_dir(bench.path("elsewhere")).unwrap();
        fs::rename(bench.path("x.npy"), bench.path("elsewhere/y.npy")).unwrap();
        signals(&bench, "other.npy", 0.5);
        let files = ["config.json", "metrics.jsonl", "model.safetensors"].map(|name| format!("run/{name}"));
        let before = files.clone().map(|name| read(&bench, &name));
        // Lost, and others.
        refuses(&bench, "train --resume --epochs 2 --out run", 1, &["run/config.json", "x.npy", "--data"]);
        let other = "train --resume --epochs 2 --out run --data other.npy";
        refuses(&bench, other, 2, &["--data = \"other.npy\"", "the run began with"]);
        fs::copy(bench.path("other.npy"), bench.path("x.npy")).unwrap();
        refuses(&bench, "train --resume --epochs 2 --out run", 1, &["run/config.json", "the run began with", "--data"]);
        bench.fails("train --resume --out run --data digits", if rule.contains("--model") { 2 } else { 1 });
        assert_eq!(files.map(|name| read(&bench, &name)), before, "{rule}");
        // Found again; from now on the run knows.
        trains(&bench, "--resume --epochs 2 --out run --data elsewhere/y.npy");
        assert!(read(&bench, "run/model.safetensors") == read(&bench, "whole/model.safetensors"), "{rule}");
        assert_eq!(configuration_of(&bench, "run")["data"]["source"], "elsewhere/y.npy");
        trains(&bench, "--resume --epochs 3 --out run");
        // A finished run too, and by hand.
        fs::rename(bench.path("elsewhere/y.npy"), bench.path("z.npy")).unwrap();
        trains(&bench, "--resume --out run --data z.npy");
        let mut config = configuration_of(&bench, "run");
        assert_eq!(config["data"]["source"], "z.npy");
        fs::rename(bench.path("z.npy"), bench.path("last.npy")).unwrap();
        config["data"]["source"] = json!("last.npy");
        write(&bench, "run/config.json", &config);
        trains(&bench, "--resume --out run");
    }
}

// Whole configurations.

/// What is printed is accepted, is complete, and gives the same run.
#[test]
fn printed_configurations_give_the_same_run() {
    let bench = bench();
    let mut kinds = vec!["--config small.json", "--config small.json --method gradient --lambda 0.1 --seed 3"];
    if cfg!(feature = "train") {
        kinds.push("--config small.json --method unrolled --unrolled-iterations 3");
        kinds.push("--model k-sparse --units 9 --epochs 1 --data x.npy");
        kinds.push("--model conv-wta --units 4 --epochs 1 --data x.npy");
    }
    kinds.push("--model dictionary --units 9 --epochs 1 --data x.npy");
    for kind in kinds {
        let text = bench.works(&format!("train --print-config {kind}"));
        fs::write(bench.path("printed.json"), &text).unwrap();
        for (arguments, folder) in [(kind, "flags"), ("--config printed.json", "file")] {
            trains(&bench, &format!("{arguments} --out {folder}"));
        }
        assert_eq!(text.as_bytes().trim_ascii(), read(&bench, "flags/config.json").trim_ascii(), "{kind}");
        for name in ["config.json", "model.safetensors"] {
            assert!(read(&bench, &format!("flags/{name}")) == read(&bench, &format!("file/{name}")), "{kind}: {name}");
        }
        assert_eq!(bench.works("train --print-config --config printed.json"), text);
        for folder in ["flags", "file"] {
            fs::remove_dir_all(bench.path(folder)).unwrap();
        }
    }
}

#[test]
fn configurations_of_every_preset_and_model() {
    let bench = bench();
    let mut kinds = vec!["--preset small", "--preset mnist", "--preset natural", "--preset small --method gradient"];
    kinds.extend(["--preset natural-colour", "--preset natural --patch 40x32"]);
    if cfg!(feature = "train") {
        let rivals = ["sae", "k-sparse", "top-k", "fc-wta", "stacked-wta", "conv-wta", "sdae"];
        kinds.extend(["--method unrolled"]);
        kinds.extend(rivals.map(|name| Box::leak(format!("--model {name}").into_boxed_str()) as &str));
        refuses(&bench, "train --print-config --model pca", 2, &["--model = pca"]);
    }
    for kind in kinds {
        let config = printed(&bench, kind);
        write(&bench, "printed.json", &config);
        assert_eq!(printed(&bench, "--config printed.json"), config, "{kind}");
        let schema = bench.works(&format!("train --print-schema {kind}"));
        let schema: Value = serde_json::from_str(&schema).unwrap();
        for (key, value) in config.as_object().unwrap() {
            let described = &schema["properties"][key];
            assert!(described["description"].is_string(), "{kind}: {key} in {schema}");
            assert!(!value.is_null(), "{kind}: {key}");
        }
    }
    // Atoms of photographs fit patches of any size.
    let signal = printed(&bench, "--preset natural --patch 40x32")["model"]["signal"].clone();
    assert_eq!(signal, json!({ "channels": 1, "height": 40, "width": 32 }));
    // Which pictures, only the user knows.
    refuses(&bench, "train --preset natural --out run", 2, &["--data is missing"]);
    write(&bench, "natural.json", &printed(&bench, "--preset natural"));
    refuses(&bench, "train --config natural.json --out run", 2, &["--data is missing"]);
    let help = bench.works("train --help");
    for key in ["learning.lambda\n", "data.held_out\n", "model.layers[].stride\n"] {
        assert!(help.contains(&format!("  {key}")), "{key} in {help}");
    }
    assert!(!bench.works("train -h").contains("data.held_out"));
}

// Messages.

#[test]
fn mistakes_name_what_mends_them() {
    let bench = bench();
    refuses(&bench, "train --data x.npy --epochs 1 --out run", 1, &["x.npy", "1x28x28", "1x12x12"]);
    let values: Vec<f32> = (0..6 * 32 * 30).map(|value| value as f32 % 7.0).collect();
    write_npy(&bench.path("large.npy"), &[6, 32, 30], &values).unwrap();
    refuses(&bench, "train --data large.npy --out run", 1, &["large.npy", "--patch 28x28"]);
    write_npy(&bench.path("colour.npy"), &[2, 3, 32, 30], &values).unwrap();
    refuses(&bench, "train --data colour.npy --out run", 1, &["colour.npy", "--grey", "--patch 28x28"]);
    assert_eq!(bench.fails("train --resume", 2).matches("--out is missing").count(), 1);
    assert_eq!(bench.fails("encode --model x.npy --out y.npz", 2).matches("--data is missing").count(), 1);
    // Two geometries.
    trains(&bench, "--config small.json --out whole");
    let errors =
        refuses(&bench, "train --from whole --preset mnist --out run", 2, &["--from", "preset mnist", "1x12x12"]);
    assert!(errors.contains("1x28x28"), "{errors}");
    // Files of other kinds.
    fs::write(bench.path("README.md"), "# text\n").unwrap();
    let encode = "encode --model whole --out y.npz --data";
    refuses(&bench, &format!("{encode} README.md"), 1, &["README.md", r##"begins with "# text\n""##]);
    fs::write(bench.path("binary"), [0xff, 0xfe, 0, 1]).unwrap();
    refuses(&bench, &format!("{encode} binary"), 1, &["binary", "begins with 0xfffe0001"]);
    // Layers of a model that is imported.
    write_npy(&bench.path("w.npy"), &[2, 1, 3, 3], &[0.5; 18]).unwrap();
    let import = "import --filters w.npy --input-shape 1x8x8 --out w.safetensors";
    refuses(&bench, &format!("{import} --paddings 3"), 2, &["--paddings of layer 1 = 3x3"]);
    refuses(&bench, &format!("{import} --strides 4294967296"), 2, &["--strides of layer 1"]);
}

/// A number below 0 is out of the flag's range, and not a flag of that name; keys are named with their place.
#[test]
fn numbers_and_keys_are_named() {
    let bench = bench();
    for flag in ["--epochs", "--seed", "--batch-size", "--units"] {
        refuses(&bench, &format!("train --data x.npy {flag} -1 --out run"), 2, &[&format!("'{flag} <"), "'-1'"]);
    }
    refuses(&bench, "train --data x.npy --incoherence -1 --out run", 2, &["--incoherence = -1"]);
    let mut document = configuration();
    document["model"]["layers"][1]["kernel"] = json!("wide");
    write(&bench, "wide.json", &document);
    let words = ["wide.json", "model.layers[1].kernel: expected a whole number or a pair"];
    refuses(&bench, "train --config wide.json --out run", 1, &words);
    document["model"] = json!([{"channels": 1}]);
    write(&bench, "list.json", &document);
    refuses(&bench, "train --config list.json --out run", 1, &["model: expected an object in braces, found a list"]);
    let mut document = configuration();
    document["data"]["limit"] = json!(3);
    write(&bench, "limit.json", &document);
    let message = refuses(
        &bench,
        "train --config limit.json --out run",
        1,
        &["data.limit: unknown key limit, expected one of source, count"],
    );
    assert!(!message.contains("--data"), "{message}");
}

/// The folder of a run stands for its model, in every command.
#[test]
fn a_run_stands_for_its_model() {
    let bench = bench();
    trains(&bench, "--config small.json --out whole");
    let small = "--data x.npy --limit 3";
    bench.works(&format!("encode --model whole {small} --out codes.npz"));
    for command in [
        "inspect --model whole",
        "export --model whole/ --out pictures",
        "sample --model whole --count 2 --nonzeros 2 --out samples",
        "certify --model whole --data x.npy --limit 2 --noise 0.1 --pursuit omp --nonzeros 3",
        "reconstruct --model whole --data x.npy --limit 2 --out back.npy",
        "compare --model whole --data x.npy --limit 2",
        "diagnose --model whole whole/model.safetensors --data x.npy --limit 3",
    ] {
        let output = bench.run(command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(bench.json("inspect --model whole"), bench.json("inspect --model whole/model.safetensors"));
    trains(&bench, "--config small.json --from whole --out further");
    fs::create_dir(bench.path("empty")).unwrap();
    refuses(&bench, "inspect --model empty", 1, &["cannot read empty/model.safetensors"]);
}

/// A finished run whose model was lost writes it again; what a kill left in folders within is removed.
#[test]
fn what_was_lost_is_written_again() {
    let bench = bench();
    trains(&bench, "--config small.json --out run");
    let model = read(&bench, "run/model.safetensors");
    fs::remove_file(bench.path("run/model.safetensors")).unwrap();
    fs::write(bench.path("run/pictures/.mlcsc-x.part"), b"half").unwrap();
    let text = trains(&bench, "--resume --out run");
    assert!(text.contains("since it was resumed"), "{text}");
    assert_eq!(read(&bench, "run/model.safetensors"), model);
    assert!(!bench.path("run/pictures/.mlcsc-x.part").exists());
}

/// A rival's run goes on with the settings that it began with.
#[cfg(feature = "train")]
#[test]
fn a_rivals_changed_settings_are_refused() {
    let bench = bench();
    let output = bench.run("train --data x.npy --model top-k --units 20 --nonzeros 5 --epochs 1 --out run");
    assert!(String::from_utf8_lossy(&output.stderr).contains("5 of 20 units a code"));
    let config = fs::read_to_string(bench.path("run/config.json")).unwrap();
    for (from, to, key) in
        [("\"k\": 5", "\"k\": 3", "rival.k: expected 5"), ("\"seed\": 0", "\"seed\": 1", "seed: expected 0")]
    {
        fs::write(bench.path("run/config.json"), config.replace(from, to)).unwrap();
        refuses(
            &bench,
            "train --resume --out run --epochs 2",
            1,
            &["run/config.json", key, "with which the run began"],
        );
    }
    fs::write(bench.path("run/config.json"), config).unwrap();
    let output = bench.run("train --resume --out run --epochs 2");
    let lines = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && lines.contains("before it was for 1"), "{lines}");
    for flags in ["--kernel 3", "--stride 2"] {
        refuses(&bench, &format!("train --data x.npy --model top-k {flags} --out other"), 2, &["cannot be used with"]);
    }
    let page = fs::read_to_string(bench.path("run/report.html")).unwrap();
    assert!(page.contains("rival.units") && page.contains("rival.model"));
}

#[test]
fn one_of_a_kind() {
    let bench = bench();
    let text = trains(&bench, "--config small.json --out run");
    assert!(text.contains("1 epoch in ") && text.contains("on 4 held-out signals"), "{text}");
    let output = bench.run("train --config small.json --batch-size 99 --out once");
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(lines.contains(": 1 epoch of 1 step\n"), "{lines}");
}

/// There is nothing to learn from zeros, nor from flat signals whose mean is taken off.
#[test]
fn nothing_to_learn_from() {
    let bench = bench();
    let fill = |name: &str, at: &dyn Fn(usize) -> f32| {
        let values: Vec<f32> = (0..40 * 144).map(at).collect();
        write_npy(&bench.path(name), &[40, 12, 12], &values).unwrap();
    };
    fill("zeros.npy", &|_| 0.0);
    fill("flat.npy", &|index| (index / 144) as f32);
    let mut centred = configuration();
    centred["model"]["normalization"] = json!("center");
    write(&bench, "centred.json", &centred);
    refuses(&bench, "train --config small.json --data zeros.npy --out run", 1, &["zeros.npy", "zeros only"]);
    refuses(&bench, "train --config centred.json --data flat.npy --out run", 1, &["flat.npy", "flat signals only"]);
    if cfg!(feature = "train") {
        for model in ["sae", "pca"] {
            let arguments = format!("train --model {model} --units 5 --data zeros.npy --out run");
            refuses(&bench, &arguments, 1, &["zeros.npy", "zeros only"]);
        }
    }
    assert!(!bench.path("run").exists());
    // One signal that is not is enough to go on.
    fill("one.npy", &|index| f32::from(u8::from(index / 144 == 3)) * 0.5);
    trains(&bench, "--config small.json --data one.npy --out one");
    // Nothing is learned either where the penalty leaves no code.
    let output = bench.run("train --config small.json --lambda 1e6 --out none");
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        errors.lines().filter(|line| line.starts_with("warning: ") && line.contains("--lambda")).count(),
        1,
        "{errors}"
    );
    let document: Value =
        serde_json::from_str(&trains(&bench, "--config small.json --lambda 1e6 --out silent --json")).unwrap();
    assert!(document["warning"].as_str().unwrap().contains("zero"));
}

// The terminal.

/// What the program writes to a terminal of 100 columns as its stderr.
#[cfg(unix)]
fn on_a_terminal(bench: &Program, arguments: &str) -> String {
    use std::io::Read;
    use std::os::fd::FromRawFd;
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both numbers are written before they are read, and nobody else owns what they stand for.
    let (mut master, slave) = unsafe {
        let (name, settings) = (std::ptr::null_mut(), std::ptr::null());
        assert_eq!(libc::openpty(&mut master, &mut slave, name, settings, &size), 0);
        (fs::File::from_raw_fd(master), fs::File::from_raw_fd(slave))
    };
    let mut command = bench.command(arguments);
    command.env("TERM", "xterm").stdout(Stdio::null()).stderr(slave);
    let mut child = command.spawn().unwrap();
    // The terminal is closed when the last writer is gone.
    drop(command);
    let mut bytes = Vec::new();
    // A terminal without writers is an error on Linux, and the end elsewhere.
    let _ = master.read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success(), "{arguments}: {}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

#[cfg(unix)]
#[test]
fn bars_come_at_once_and_go() {
    let bench = bench();
    let shown = on_a_terminal(&bench, "train --config small.json --out run");
    let [last, next] = [shown.rfind("initialising [").unwrap(), shown.find("training on x.npy").unwrap()];
    // The line of the first bar is cleared before the next one's begins.
    assert!(last < next && shown[last..next].contains("\u{1b}[2K"), "{shown:?}");
    assert!(shown[shown.rfind("training [").unwrap()..].contains("\u{1b}[2K"), "{shown:?}");
    let shown = on_a_terminal(&bench, "encode --model run --data x.npy --limit 1 --out codes.npz");
    assert!(shown.contains("0/1 signals · 0s"), "{shown:?}");
}
