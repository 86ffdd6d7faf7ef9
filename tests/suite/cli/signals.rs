//! Signals of every kind through the program: layouts, tensors, shards, recordings, labels; how much memory large sets take.

use crate::common::program::Program;
use mlcsc::device;
use mlcsc::export::arrays::write_npy;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::{Mlcsc, ModelConfig};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use burn::tensor::Tensor;

/// A folder with `m.safetensors`, which leaves vectors of eight values as they are.
fn bench() -> Program {
    let bench = Program::new();
    let device = device::named(None).unwrap();
    let config = ModelConfig::new(SignalShape::new(8, 1, 1), vec![LayerShape::new(8, 1, 1)]);
    let model = Mlcsc::from_filters(config, vec![Tensor::<2>::eye(8, &device).reshape([8, 8, 1, 1])]).unwrap();
    model.save(&bench.path("m.safetensors"), CodingDefaults::default()).unwrap();
    bench
}

fn numbers(count: usize) -> Vec<f32> {
    (1..=count).map(|value| value as f32).collect()
}

/// A safetensors file of `f32`.
fn write_tensors(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            name.to_string(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap(),
        )
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn vectors_come_back_from_every_kind_of_file() {
    let bench = bench();
    let reconstruct = "reconstruct --model m.safetensors --lambda 0 --signed --gap 1e-6 --out r.npy --data";
    let check = |source: &str, expected: &[f32]| {
        bench.works(&format!("{reconstruct} {source}"));
        let found = mlcsc::data::npy::read_array(&bench.path("r.npy")).unwrap();
        // As vectors come in.
        assert_eq!(found.shape, [expected.len() / 8, 8], "{source}");
        for (found, expected) in found.values.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs(), "{source}: {found} for {expected}");
        }
    };
    let values = numbers(48);
    write_npy(&bench.path("v.npy"), &[6, 8], &values).unwrap();
    check("v.npy", &values);
    write_npy(&bench.path("i.npy"), &[6, 2, 4], &values).unwrap();
    check("i.npy --layout vectors", &values);
    write_npy(&bench.path("one.npy"), &[8], &values[..8]).unwrap();
    check("one.npy", &values[..8]);
    write_tensors(&bench.path("t.safetensors"), &[("a", &[2, 8], &values[..16]), ("b", &[1, 8], &values[16..24])]);
    check("t.safetensors --tensor b", &values[16..24]);
    fs::create_dir(bench.path("shards")).unwrap();
    for (shard, values) in ["s9.npy", "s10.npy", "s11.npy"].iter().zip(values.chunks(16)) {
        write_npy(&bench.path(&format!("shards/{shard}")), &[2, 8], values).unwrap();
    }
    check("shards", &values);
    fs::create_dir(bench.path("tensors")).unwrap();
    for (shard, values) in ["s9.safetensors", "s10.safetensors"].iter().zip(values.chunks(24)) {
        write_tensors(&bench.path(&format!("tensors/{shard}")), &[("acts", &[3, 8], values), ("other", &[1], &[0.0])]);
    }
    check("tensors --tensor acts", &values);
}

/// An archive with one array, given as a `.npy` file.
fn write_archive(path: &std::path::Path, name: &str, array: &[u8]) {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(array).unwrap();
    archive.finish().unwrap();
}

/// Arrays come back with the axes that they came with; labels may lie beside every shard.
#[test]
fn axes_and_labels_of_arrays() {
    let bench = Program::new();
    write_npy(&bench.path("w.npy"), &[3, 3, 1, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]).unwrap();
    fs::create_dir(bench.path("shards")).unwrap();
    for (name, shape, layout, axes) in [
        ("pictures", &[2, 6, 7, 3][..], "channels-last", &[2, 6, 7, 3][..]),
        ("time", &[2, 3, 9], "time", &[2, 3, 9]),
        ("table", &[2, 9, 3], "time-channels-last", &[2, 9, 3]),
        ("one", &[6, 7, 3], "channels-last", &[1, 6, 7, 3]),
    ] {
        let input = if layout == "channels-last" { "3x6x7" } else { "3x1x9" };
        bench.works(&format!("import --filters w.npy --input-shape {input} --lambda 0 --out id.safetensors"));
        let values = numbers(shape.iter().product());
        write_npy(&bench.path("x.npy"), shape, &values).unwrap();
        let reconstruct = "reconstruct --model id.safetensors --data x.npy --out r.npy --signed --gap 1e-6";
        let told = bench.json(&format!("{reconstruct} --layout {layout}"));
        assert_eq!(told["axes"], serde_json::json!(axes), "{name}");
        let found = mlcsc::data::npy::read_array(&bench.path("r.npy")).unwrap();
        assert_eq!(found.shape, axes, "{name}");
        assert!(found.values.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-3 * b), "{name}");
    }
    // Without an axis of channels, and by way of codes, which know where they come from.
    write_npy(&bench.path("w1.npy"), &[1, 1, 1], &[1.0]).unwrap();
    for (shape, input, flags) in [(&[2, 6, 7][..], "1x6x7", ""), (&[2, 9], "1x1x9", "--layout time")] {
        bench.works(&format!("import --filters w1.npy --input-shape {input} --lambda 0 --out id.safetensors"));
        write_npy(&bench.path("x.npy"), shape, &numbers(shape.iter().product())).unwrap();
        let told = bench.json(&format!("encode --model id.safetensors --data x.npy --out c.npz --signed {flags}"));
        assert_eq!(told["code_shapes"], serde_json::json!([input]));
        assert_eq!(told["split"], "all");
        for from in ["--codes c.npz".to_owned(), format!("--data x.npy --signed {flags}")] {
            let told = bench.json(&format!("reconstruct --model id.safetensors --out r.npy {from}"));
            assert_eq!(told["axes"], serde_json::json!(shape), "{from}");
            assert_eq!(told["model"], "id.safetensors");
            assert_eq!(mlcsc::data::npy::read_array(&bench.path("r.npy")).unwrap().shape, shape, "{from}");
        }
    }
    // Codes that others made of vectors, and the model's own mean.
    write_npy(&bench.path("vectors.npy"), &[40, 3], &numbers(120)).unwrap();
    let train = "train --data vectors.npy --atoms 3 --normalization mean --lambda 34 --epochs 1 --no-report --out run";
    assert!(bench.run(train).status.success());
    write_npy(&bench.path("zeros.npy"), &[2, 3], &[0.0; 6]).unwrap();
    write_archive(&bench.path("zeros.npz"), "gamma_1", &fs::read(bench.path("zeros.npy")).unwrap());
    bench.works("reconstruct --model run --codes zeros.npz --out mean.npy");
    let mean = mlcsc::data::npy::read_array(&bench.path("mean.npy")).unwrap();
    assert_eq!((&mean.shape[..], mean.values[..3] == mean.values[3..]), (&[2, 3][..], true));
    assert!(mean.values.iter().all(|value| value.is_finite() && *value != 0.0), "{:?}", mean.values);
    // A matrix says what vectors are; atoms that are columns are told so.
    write_npy(&bench.path("atoms.npy"), &[5, 3], &numbers(15)).unwrap();
    assert_eq!(bench.json("import --filters atoms.npy --out vectors.safetensors")["signal"], "3x1x1");
    let message = bench.fails("import --filters atoms.npy --input-shape 5x1x1 --out columns.safetensors", 1);
    assert!(message.contains("transpose"), "{message}");
    let message = bench.fails("import --filters w1.npy --out pictures.safetensors", 2);
    assert!(message.contains("--input-shape"), "{message}");
    write_archive(&bench.path("atoms.npz"), "D", &fs::read(bench.path("atoms.npy")).unwrap());
    bench.works("import --filters atoms.npz --out again.safetensors");
    assert!(fs::read(bench.path("again.safetensors")).unwrap() == fs::read(bench.path("vectors.safetensors")).unwrap());
    for (shard, first) in ["a", "b"].iter().zip([0.0, 1.0]) {
        write_npy(&bench.path(&format!("shards/{shard}.npy")), &[6, 3], &numbers(18)).unwrap();
        let labels: Vec<f32> = (0..6).map(|at| if at % 2 == 0 { first } else { 1.0 - first }).collect();
        write_npy(&bench.path(&format!("shards/{shard}_labels.npy")), &[6], &labels).unwrap();
    }
    let source = bench.path("shards").display().to_string();
    let data = mlcsc::data::open(&mlcsc::data::DataConfig { source, ..Default::default() }).unwrap();
    assert_eq!(data.all.labels().unwrap(), [0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0]);
    // One that is missing leaves none.
    fs::remove_file(bench.path("shards/b_labels.npy")).unwrap();
    let source = bench.path("shards").display().to_string();
    let data = mlcsc::data::open(&mlcsc::data::DataConfig { source, ..Default::default() }).unwrap();
    assert!(data.all.labels().is_none() && data.all.skipped().unwrap().contains("a_labels.npy"));
}

#[test]
fn mistakes_are_one_line_with_file_and_flag() {
    let bench = bench();
    let fails = |source: &str, code: i32, parts: &[&str]| {
        let message = bench.fails(&format!("encode --model m.safetensors --out c.npz --data {source}"), code);
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
        assert!(!bench.path("c.npz").exists(), "{source}");
    };
    write_npy(&bench.path("v.npy"), &[6, 8], &numbers(48)).unwrap();
    fails("v.npy --layout maps", 1, &["v.npy", "--layout maps", "[6, 8]"]);
    fails("digits --layout time", 2, &["--layout = time: expected images or vectors, for digits"]);
    fails("v.npy --tensor a", 2, &["--tensor = \"a\"", "v.npy"]);
    fails("v.npy --layer 3", 2, &["--layer = 3", "v.npy"]);
    let values = numbers(16);
    write_tensors(&bench.path("t.safetensors"), &[("a", &[2, 8], &values), ("b.c", &[1, 2, 8], &values)]);
    fails("t.safetensors", 2, &["--tensor is missing", "t.safetensors", "\"a\" [2, 8], \"b.c\" [1, 2, 8]"]);
    fails("t.safetensors --tensor x", 2, &["--tensor = \"x\"", "\"b.c\" [1, 2, 8]"]);
    fails("t.safetensors --tensor b.c --layout time", 1, &["expected", "found 2x1x8"]);
    write_tensors(&bench.path("deep.safetensors"), &[("a", &[1, 1, 1, 2, 8], &values)]);
    fails("deep.safetensors", 1, &["deep.safetensors", "[1, 1, 1, 2, 8]"]);
    let whole = fs::read(bench.path("t.safetensors")).unwrap();
    fs::write(bench.path("cut.safetensors"), &whole[..whole.len() - 3]).unwrap();
    fails("cut.safetensors", 1, &["cut.safetensors", "of the length that its header says"]);
    // Shards.
    fs::create_dir(bench.path("shards")).unwrap();
    for shard in 0..9 {
        let mut values = numbers(16);
        if shard == 7 {
            values[11] = f32::NAN;
        }
        write_npy(&bench.path(&format!("shards/a{shard}.npy")), &[2, 8], &values).unwrap();
    }
    fails("shards", 1, &["a7.npy", "found NaN in signal 1"]);
    write_npy(&bench.path("shards/a3.npy"), &[2, 4], &numbers(8)).unwrap();
    fails("shards", 1, &["a0.npy [2, 8] and a3.npy [2, 4]"]);
    fs::create_dir(bench.path("names")).unwrap();
    write_tensors(&bench.path("names/1.safetensors"), &[("a", &[2, 8], &values)]);
    write_tensors(&bench.path("names/2.safetensors"), &[("b", &[2, 8], &values)]);
    fails("names", 1, &["\"a\" in names/1.safetensors", "\"b\" in names/2.safetensors"]);
    // Labels.
    write_npy(&bench.path("labels.npy"), &[5], &numbers(5)).unwrap();
    let output = bench.run("encode --model m.safetensors --out labels.npz --data v.npy");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("no class labels: labels.npy: expected 6 labels, one for each signal of v.npy, found 5"),
        "{told}"
    );
    assert!(output.status.success() && bench.path("labels.npz").exists(), "{told}");
    let output = bench.run("classify --model m.safetensors --data v.npy");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("found 5") && told.contains("there are none for"), "{told}");
    // saev.
    fs::create_dir(bench.path("saev")).unwrap();
    fs::write(bench.path("saev/acts000000.bin"), [0; 2 * 3 * 4 * 8 * 4]).unwrap();
    fs::write(bench.path("saev/shards.json"), r#"[{"name": "acts000000.bin", "n_examples": 2}]"#).unwrap();
    let metadata =
        r#"{"layers": [3, -1, 7], "content_tokens_per_example": 4, "cls_token": false, "d_model": 8, "n_examples": 2}"#;
    fs::write(bench.path("saev/metadata.json"), metadata).unwrap();
    fails("saev", 2, &["--layer is missing", "3, -1, 7"]);
    fails("saev --layer 2", 2, &["--layer = 2", "3, -1, 7"]);
    assert_eq!(bench.json("encode --model m.safetensors --out c.npz --data saev --layer -1")["signals"], 8);
}

/// As many shards as there are, few files are open.
#[cfg(unix)]
#[test]
fn shards_need_no_open_files() {
    let bench = bench();
    fs::create_dir(bench.path("shards")).unwrap();
    for shard in 0..1200 {
        write_npy(&bench.path(&format!("shards/{shard}.npy")), &[1, 8], &numbers(8)).unwrap();
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mlcsc")])
        .args("encode --model m.safetensors --data shards --out c.npz --json".split(' '))
        .current_dir(bench.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["signals"], 1200);
}

/// An array `[count, 8]` of half precision without a pattern, the same every 65,536 signals.
#[cfg(target_os = "linux")]
fn write_many(path: &Path, count: usize) {
    use std::io::Write;
    let header = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({count}, 8), }}");
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    // Between 0.5 and 2 in magnitude.
    let value = |at: u32| (at.wrapping_mul(2_654_435_761) >> 16) as u16 & 0x87ff | 0x3800;
    let block: Vec<u8> = (0..8 << 16).flat_map(|at| value(at).to_le_bytes()).collect();
    for start in (0..count).step_by(1 << 16) {
        file.write_all(&block[..16 * (count - start).min(1 << 16)]).unwrap();
    }
    file.flush().unwrap();
}

/// Most memory of its own, in KiB, that a program had until it ended, or until `enough`, when it is ended. Pages of mapped files, which
/// the system takes back as it likes, do not count.
#[cfg(target_os = "linux")]
fn most_memory(mut command: Command, enough: impl Fn() -> bool) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(kibibytes.unwrap_or(0));
        if enough() {
            child.kill().unwrap();
            child.wait().unwrap();
            return most;
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut errors).unwrap();
    assert!(status.success(), "{errors}");
    most
}

/// Ten million signals take no more memory than a hundred thousand: neither to code the first of them nor for steps of learning.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_signals() {
    let bench = bench();
    let config = r#"{"model": {"signal": {"channels": 8, "height": 1, "width": 1}, "layers": [{"atoms": 12, "kernel": 1}]},
        "learning": {"epochs": 1, "max_iterations": 50}}"#;
    fs::write(bench.path("config.json"), config).unwrap();
    let most = [("few", 100_000), ("many", 10_000_000)].map(|(name, count)| {
        write_many(&bench.path(&format!("{name}.npy")), count);
        let encode = format!("encode --model m.safetensors --data {name}.npy --limit 2000 --out {name}.npz");
        let coding = most_memory(bench.command(&encode), || false);
        let train = format!("train --config config.json --data {name}.npy --out {name} --no-report");
        let metrics = bench.path(&format!("{name}/metrics.jsonl"));
        let steps = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        let learning = most_memory(bench.command(&train), || steps() >= 5);
        assert!(steps() >= 5);
        [coding, learning]
    });
    println!("KiB of anonymous memory, coding and learning: {most:?}");
    // A number for every signal would take 76 MiB more, one bit 1.2 MiB, the numbers of a buffer 1.2 MiB.
    for (few, many) in most[0].iter().zip(most[1]) {
        assert!(many < few + 24 * 1024, "{most:?}");
    }
}
