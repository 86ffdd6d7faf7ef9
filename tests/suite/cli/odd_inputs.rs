//! The program on inputs that are seldom met: pipes, other encodings, names of files for folders, numbers at the ends of single
//! precision, limits of files; and that what is not as asked for is said by every command.

use crate::common::program::Program;
use mlcsc::export::arrays::write_npy;
use serde_json::{Value, json};
use std::fs;

/// Numbers without a pattern in [−1, 1).
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|place| (place as f32 * 12.9898).sin() * 43_758.547 % 1.0).collect()
}

/// A folder with `model.safetensors`, two layers on 1x12x12, made of `w1.npy` and `w2.npy`; and `signals.npy`, five signals for it.
fn bench() -> Program {
    let program = Program::new();
    let values = noise(36 + 180 + 720);
    write_npy(&program.path("w1.npy"), &[4, 1, 3, 3], &values[..36]).unwrap();
    write_npy(&program.path("w2.npy"), &[5, 4, 3, 3], &values[36..216]).unwrap();
    write_npy(&program.path("signals.npy"), &[5, 12, 12], &values[216..]).unwrap();
    program.works("import --filters w1.npy w2.npy --strides 2,1 --input-shape 1x12x12 --out model.safetensors");
    program
}

fn json_of(output: &[u8]) -> Value {
    serde_json::from_slice(output).unwrap()
}

/// Whatever is read may come through a pipe, which gives its content once.
#[cfg(unix)]
#[test]
fn everything_is_read_through_pipes() {
    use std::process::{Command, Stdio};
    let program = bench();
    let works = |arguments: &str, input: &str| {
        let mut cat = Command::new("cat").arg(program.path(input)).stdout(Stdio::piped()).spawn().unwrap();
        let output = program.command(arguments).stdin(cat.stdout.take().unwrap()).output().unwrap();
        cat.wait().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let same =
        |a: &str, b: &str| assert!(fs::read(program.path(a)).unwrap() == fs::read(program.path(b)).unwrap(), "{b}");
    write_npy(&program.path("lambda.npy"), &[5], &[0.1, 0.2, 0.3, 0.4, 0.5]).unwrap();
    program.works("reconstruct --model model.safetensors --data signals.npy --lambda-file lambda.npy --out known.npy");
    let reconstruct = "reconstruct --out found.npy --model";
    for (arguments, input) in [
        ("/dev/stdin --data signals.npy --lambda-file lambda.npy", "model.safetensors"),
        ("model.safetensors --data /dev/stdin --lambda-file lambda.npy", "signals.npy"),
        ("model.safetensors --data signals.npy --lambda-file /dev/stdin", "lambda.npy"),
    ] {
        works(&format!("{reconstruct} {arguments}"), input);
        same("known.npy", "found.npy");
    }
    for ending in ["npz", "safetensors"] {
        let codes = format!("codes.{ending}");
        program.works(&format!(
            "encode --model model.safetensors --data signals.npy --lambda-file lambda.npy --out {codes}"
        ));
        works("reconstruct --out found.npy --model model.safetensors --codes /dev/stdin", &codes);
        same("known.npy", "found.npy");
    }
    works("import --filters /dev/stdin w2.npy --strides 2,1 --input-shape 1x12x12 --out again.safetensors", "w1.npy");
    same("model.safetensors", "again.safetensors");
    // Pictures, IDX files compressed or not.
    let picture = image::GrayImage::from_fn(12, 12, |x, y| image::Luma([(13 * x + 5 * y) as u8]));
    picture.save(program.path("picture.png")).unwrap();
    fs::write(
        program.path("signals.idx"),
        [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 12][..], &picture].concat(),
    )
    .unwrap();
    program.works("reconstruct --model model.safetensors --data picture.png --out known.npy");
    for input in ["picture.png", "signals.idx"] {
        works("reconstruct --model model.safetensors --data /dev/stdin --out found.npy", input);
        // An IDX file has no axis of channels.
        let values = |name: &str| mlcsc::data::npy::read_array(&program.path(name)).unwrap().values;
        assert!(values("known.npy") == values("found.npy"), "{input}");
    }
    let message = program.fails("encode --model model.safetensors --data /dev/null --out codes.npz", 1);
    assert!(message.contains("a file, a folder or a pipe"), "{message}");
}

/// PowerShell writes what a program prints as UTF-16 with a byte order mark.
#[test]
fn configurations_in_utf_16() {
    let program = Program::new();
    let config = program.works("train --print-config --count 60 --epochs 3");
    let rival = program.works("train --print-config --model top-k --count 60 --epochs 3");
    let mark = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    for text in [&config, &rival] {
        for bytes in
            [mark(text, u16::to_le_bytes), mark(text, u16::to_be_bytes), [b"\xef\xbb\xbf", text.as_bytes()].concat()]
        {
            fs::write(program.path("config.json"), bytes).unwrap();
            assert_eq!(&program.works("train --print-config --config config.json"), text);
        }
    }
    fs::write(program.path("config.json"), [0xff, 0xfe]).unwrap();
    assert!(program.fails("train --config config.json", 1).contains("config.json: expected a training configuration"));
}

/// A folder that is called like a file was meant to be one.
#[test]
fn names_of_files_are_no_folders() {
    let program = bench();
    for command in [
        "reconstruct --model model.safetensors --data signals.npy --out",
        "export --model model.safetensors --out",
        "sample --model model.safetensors --count 2 --nonzeros 1 --out",
        "train --data signals.npy --from model.safetensors --epochs 1 --out",
        "train --data signals.npy --model top-k --epochs 1 --out",
    ] {
        for name in ["out.npz", "out.safetensors", "out.JPG", "out.json"] {
            let message = program.fails(&format!("{command} {name}"), 2);
            assert!(message.starts_with(&format!("error: --out = {name}: expected a folder")), "{command}: {message}");
            assert!(!program.path(name).exists(), "{command} {name}");
        }
    }
    // A folder that is there stays one.
    fs::create_dir(program.path("out.npz")).unwrap();
    program.works("export --model model.safetensors --out out.npz");
}

/// Squares of larger values, and of smaller ones, are not to be told from infinity and from zero.
#[test]
fn numbers_at_the_ends_of_single_precision() {
    let program = bench();
    let scaled = |factor: f32| -> Vec<f32> { noise(720).iter().map(|value| value * factor).collect() };
    for factor in [1e16, 1e30, 3e38] {
        write_npy(&program.path("large.npy"), &[5, 12, 12], &scaled(factor)).unwrap();
        for command in [
            "encode --out codes.npz --model model.safetensors",
            "train --out run --from model.safetensors",
            "diagnose --model model.safetensors",
        ] {
            let message = program.fails(&format!("{command} --data large.npy"), 1);
            assert!(message.contains("large.npy: expected values of at most 1e15 in magnitude"), "{message}");
        }
    }
    for factor in [1e-16, 1e-40, 0.0] {
        write_npy(&program.path("small.npy"), &[5, 12, 12], &scaled(factor)).unwrap();
        for model in ["--from model.safetensors", "--model top-k", "--model pca", "--model dictionary"] {
            let message = program.fails(&format!("train --data small.npy {model} --out run"), 1);
            let found = match factor {
                0.0 => "of more than 1e-15 in magnitude, found zeros only\n",
                _ => "(multiply the signals by a constant first)\n",
            };
            assert!(message.ends_with(found), "{message}");
        }
    }
}

/// A limit on the size of files is a full disk: nothing half-written stays, and it is said.
#[cfg(unix)]
#[test]
fn limits_of_files_are_told() {
    use std::process::Command;
    let program = bench();
    write_npy(&program.path("many.npy"), &[50, 12, 12], &noise(7200)).unwrap();
    // In blocks of 512 bytes or of 1024.
    for arguments in [
        "encode --model model.safetensors --data many.npy --out out",
        "reconstruct --model model.safetensors --data many.npy --out out",
    ] {
        let ending = if arguments.starts_with("encode") { "safetensors" } else { "npy" };
        let line = format!("ulimit -f 4 && exec {} {arguments}.{ending}", env!("CARGO_BIN_EXE_mlcsc"));
        let output = Command::new("sh").args(["-c", &line]).current_dir(program.folder()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.starts_with("error: cannot write out.") && errors.lines().count() == 1, "{errors}");
    }
    let names = ["many.npy", "model.safetensors", "signals.npy", "w1.npy", "w2.npy"];
    assert_eq!(program.names("."), names);
}

/// Every command that codes says which signals ended above the gap asked for.
#[test]
fn what_has_not_converged_is_said() {
    let program = bench();
    let loose = "--data signals.npy --lambda 0.01 --gap 1e-6 --max-iterations 1 --model model.safetensors";
    for command in
        ["encode --out codes.npz", "reconstruct --out out.npy", "certify --noise 0.1", "compare --pursuits fista"]
    {
        let text = program.works(&format!("{command} {loose}"));
        let line = text.lines().last().unwrap();
        assert!(line.contains("not converged: 5 of 5 signals above the relative gap of 1.00e-6"), "{command}: {line}");
        let found = program.json(&format!("{command} {loose}"));
        let found = if command.starts_with("compare") { &found["rows"][0] } else { &found };
        assert_eq!(
            (&found["not_converged"]["above"], &found["not_converged"]["of"]),
            (&json!(5), &json!(5)),
            "{command}"
        );
        // Of those that have, nothing is said.
        let enough = loose.replace("--max-iterations 1", "--max-iterations 100000").replace("1e-6", "1e-2");
        let found = program.json(&format!("{command} {enough}"));
        let found = if command.starts_with("compare") { &found["rows"][0] } else { &found };
        assert_eq!(found["not_converged"], Value::Null, "{command}");
    }
    let mut config: Value = serde_json::from_str(
        &program.works("train --print-config --data signals.npy --from model.safetensors --epochs 1 --lambda 0.01"),
    )
    .unwrap();
    for (iterations, gap, above) in [(1, 1e-6, true), (100_000, 1e-2, false)] {
        (config["learning"]["max_iterations"], config["learning"]["gap"]) = (json!(iterations), json!(gap));
        fs::write(program.path("config.json"), config.to_string()).unwrap();
        let train = |out: &str| format!("train --config config.json --from model.safetensors --out {out}{iterations}");
        let output = program.run(&format!("{} --json", train("a")));
        let found = &json_of(&output.stdout)["not_converged"];
        assert_eq!(found["test"].is_null(), !above, "{found}");
        assert_eq!(found["train"].is_null(), !above, "{found}");
        let output = program.run(&train("b"));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("not converged: ")).collect();
        assert_eq!(lines.len(), if above { 2 } else { 0 }, "{text}");
        let told = "not converged: 1 of 1 held-out signal above the relative gap of 1.00e-6 asked for";
        assert!(!above || (lines[1].starts_with(told) && lines[1].contains("learning.max_iterations (1)")), "{text}");
    }
}

/// One of something is not several.
#[test]
fn one_is_one() {
    let program = bench();
    let text = program.works("compare --model model.safetensors --data signals.npy --pursuits omp --nonzeros 1,2");
    assert!(text.contains("  omp, 1 non-zero ") && text.contains("  omp, 2 non-zeros "), "{text}");
    fs::write(program.path("labels"), [0, 0, 8, 1, 0, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6]).unwrap();
    let message = program.fails("encode --model model.safetensors --data labels --out codes.npz", 1);
    assert!(message.contains("found unsigned bytes with 1 extent\n"), "{message}");
    write_npy(&program.path("many.npy"), &[2, 1, 1, 9], &noise(18)).unwrap();
    let message = program.fails("train --model pca --units 10 --data many.npy --out run", 2);
    assert!(message.starts_with("error: --units = 10: expected at most 9, the values of a signal"), "{message}");
    let classify = "classify --model model.safetensors --data digits --count 60 --stride 1,2";
    let message = program.fails(classify, 2);
    assert!(message.starts_with("error: --stride = 2 numbers: expected 1, one per layer"), "{message}");
}

/// What was passed over is in every document.
#[test]
fn what_was_skipped_is_in_every_document() {
    let program = bench();
    fs::create_dir(program.path("pictures")).unwrap();
    for seed in 0..6 {
        let picture = image::GrayImage::from_fn(12, 12, |x, y| image::Luma([(31 * x + 17 * y + 40 * seed) as u8]));
        picture.save(program.path(&format!("pictures/{seed}.png"))).unwrap();
    }
    fs::write(program.path("pictures/notes.txt"), "").unwrap();
    for command in [
        "encode --out codes.npz --model model.safetensors",
        "reconstruct --out out --model model.safetensors",
        "certify --model model.safetensors",
        "compare --model model.safetensors",
        "diagnose --model model.safetensors",
        "train --epochs 1 --from model.safetensors --out run",
        "train --epochs 1 --model top-k --units 9 --out rival",
        "train --model pca --units 3 --out pca",
    ] {
        let output = program.run(&format!("{command} --data pictures --json"));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let skipped = json_of(&output.stdout)["skipped"].clone();
        assert_eq!(skipped, "skipped in pictures: 1 file of a kind that is not read (notes.txt)", "{command}");
    }
}

/// An IDX file of images and one of labels in a folder, as MNIST's; labels alternate between 1 and 60.
fn labelled(program: &Program, pixel: impl Fn(usize) -> u8) {
    fs::create_dir_all(program.path("labelled")).unwrap();
    for (stem, count) in [("train", 20u8), ("t10k", 10)] {
        let images: Vec<u8> = (0..usize::from(count) * 144).map(&pixel).collect();
        let labels: Vec<u8> = (0..count).map(|place| if place % 2 == 0 { 1 } else { 60 }).collect();
        let header = [0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 12, 0, 0, 0, 12];
        fs::write(program.path(&format!("labelled/{stem}-images-idx3-ubyte")), [&header[..], &images].concat())
            .unwrap();
        let header = [0, 0, 8, 1, 0, 0, 0, count];
        fs::write(program.path(&format!("labelled/{stem}-labels-idx1-ubyte")), [&header[..], &labels].concat())
            .unwrap();
    }
}

/// A classifier of nothing is not judged without a word.
#[test]
fn features_that_tell_nothing_apart_are_said() {
    let program = bench();
    let classify = "classify --model model.safetensors --data labelled --grid 1 --penalties 0.1";
    for (blank, warned) in [(true, true), (false, false)] {
        labelled(&program, |place| if blank { 0 } else { (place * place) as u8 });
        let output = program.run(&format!("{classify} --json"));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.starts_with("warning: all training signals have the same features"), warned, "{errors}");
        let document = json_of(&output.stdout);
        assert_eq!((document["warning"].is_string(), &document["skipped"]), (warned, &Value::Null));
    }
    fs::remove_file(program.path("labelled/t10k-labels-idx1-ubyte")).unwrap();
    let message = program.fails(classify, 2);
    assert!(message.starts_with("error: --data = labelled: expected signals with labels"), "{message}");
}

/// Files of the program's own that are no models are called what they are.
#[test]
fn other_files_of_the_program_are_no_models() {
    let program = bench();
    program.works("encode --model model.safetensors --data signals.npy --out codes.safetensors");
    for arguments in ["--from model.safetensors --out run", "--model top-k --units 7 --out rival"] {
        let output = program.run(&format!("train --data signals.npy --epochs 1 {arguments}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for (file, found) in [
        ("codes.safetensors", "found codes, which"),
        ("run/checkpoint.safetensors", "found a run's checkpoint; its model is model.safetensors beside it"),
        ("rival", "found one of the model's rivals, which `mlcsc diagnose` and `mlcsc classify`"),
    ] {
        for command in ["inspect", "encode --data signals.npy --out out.npz", "export --out out"] {
            let message = program.fails(&format!("{command} --model {file}"), 1);
            assert!(message.contains(found), "{command}: {message}");
        }
    }
}

/// A column that vanishes through the layers is named as zero, and is nobody's copy.
#[test]
fn columns_that_cancel_are_no_copies() {
    let program = Program::new();
    // D_1 has one atom twice; atom 0 of D_2 takes the one from the other, atoms 1 and 2 differ.
    write_npy(&program.path("w1.npy"), &[3, 1, 1, 2], &[0.3, 0.7, 0.3, 0.7, 0.9, -0.4]).unwrap();
    write_npy(&program.path("w2.npy"), &[3, 3, 1, 1], &[1.0, -1.0, 0.0, 0.5, 0.2, 0.3, 0.1, 0.1, 0.9]).unwrap();
    write_npy(&program.path("x.npy"), &[1, 1, 1, 4], &[0.1, 0.5, -0.2, 0.4]).unwrap();
    program.works("import --filters w1.npy w2.npy --input-shape 1x1x4 --out model.safetensors");
    let certify = "certify --model model.safetensors --data x.npy --pursuit omp --nonzeros 1";
    let found = program.json(certify);
    let deepest = &found["effective"][1];
    assert_eq!(deepest["zero_columns"], json!([{ "atom": 0, "columns": 3, "of": 3 }]));
    assert_eq!(deepest["copies"], json!({ "pairs": 0, "named": [] }));
    // Nothing better than 1 is known beside a column that may be zero, and nothing is unique.
    assert_eq!((&deepest["coherence"], &deepest["uniqueness_limit"]), (&json!(1.0), &json!(0.0)));
    assert_eq!(found["own"][0]["copies"]["pairs"], 1);
    let text = program.works(certify);
    assert!(text.contains("zero columns in D^(2): atom 0") && !text.contains("copies in D^(2)"), "{text}");
}

/// What codes that are all zero, and reconstructions that a picture cannot hold, have to say for themselves.
#[test]
fn nothing_is_left_out_in_silence() {
    let program = Program::new();
    write_npy(&program.path("w.npy"), &[4, 6], &noise(24)).unwrap();
    program.works("import --filters w.npy --input-shape 6x1x1 --out m.safetensors");
    write_npy(&program.path("x.npy"), &[5, 6], &noise(30)).unwrap();
    let base = "--model m.safetensors --data x.npy";
    let told = program.json(&format!("encode {base} --lambda 1e6 --out codes.npz"));
    assert!(told["warning"].as_str().unwrap().contains("every code is zero"), "{told}");
    for command in ["encode --out codes.npz", "reconstruct --out out.npy", "compare --pursuits bp"] {
        let text = program.works(&format!("{command} {base} --lambda 1e6"));
        assert!(text.contains("every code is zero"), "{command}: {text}");
    }
    let told = program.json(&format!("encode {base} --lambda-relative 0.1 --out codes.npz"));
    assert!(told["warning"].is_null() && told["converged"] == 5, "{told}");
    // Without a penalty signals are met exactly: what rounding leaves is no gap.
    write_npy(&program.path("unit.npy"), &[2, 2], &[1.0, 0.0, 0.6, 0.8]).unwrap();
    program.works("import --filters unit.npy --input-shape 2x1x1 --out unit.safetensors");
    write_npy(&program.path("two.npy"), &[3, 2], &noise(6)).unwrap();
    let told = program.json("encode --model unit.safetensors --data two.npy --signed --lambda 0 --out codes.npz");
    assert!(told["converged"] == 3 && told["max_gap"].as_f64() < Some(1e-4), "{told}");
    let told = program.json(&format!("encode {base} --pursuit omp --nonzeros 2 --out codes.npz"));
    assert!(told["converged"].is_null() && told["max_gap"].is_null(), "{told}");
    // Atoms without values are said; nothing but them is no dictionary.
    write_npy(&program.path("half.npy"), &[2, 6], &[[1.0; 6], [0.0; 6]].concat()).unwrap();
    let output = program.run("import --filters half.npy --input-shape 6x1x1 --out half.safetensors");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.contains("half.npy: 1 of 2 atoms without values"), "{errors}");
    write_npy(&program.path("zeros.npy"), &[2, 6], &[0.0; 12]).unwrap();
    let message = program.fails("import --filters zeros.npy --input-shape 6x1x1 --out zeros.safetensors", 1);
    assert!(message.contains("zeros.npy") && !program.path("zeros.safetensors").exists(), "{message}");
    // Pictures hold 0 to 1.
    write_npy(&program.path("f.npy"), &[1, 1, 1, 1], &[1.0]).unwrap();
    program.works("import --filters f.npy --input-shape 1x2x2 --lambda 0 --out one.safetensors");
    write_npy(&program.path("i.npy"), &[1, 1, 2, 2], &[-1.0, 0.5, 2.0, 1.0]).unwrap();
    let told = program.json("reconstruct --model one.safetensors --data i.npy --out pictures");
    assert_eq!(told["clipped"], 2, "{told}");
    let text = program.works("reconstruct --model one.safetensors --data i.npy --out pictures");
    assert!(text.contains("2 of 4 values are not from 0 to 1"), "{text}");
}

/// Recordings come back as recordings, of the same rate.
#[test]
fn recordings_are_reconstructed_as_such() {
    let program = Program::new();
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    fs::create_dir(program.path("in")).unwrap();
    for (name, frames) in [("a", 60i16), ("b", 40)] {
        let mut writer = hound::WavWriter::create(program.path(&format!("in/{name}.wav")), spec).unwrap();
        (0..frames)
            .for_each(|at| [at * 300 - 9000, -at * 200].iter().for_each(|value| writer.write_sample(*value).unwrap()));
        writer.finalize().unwrap();
    }
    write_npy(&program.path("w.npy"), &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 1.0]).unwrap();
    program.works("import --filters w.npy --input-shape 2x1x8 --lambda 0 --out m.safetensors");
    let base = "reconstruct --model m.safetensors";
    program.works(&format!("{base} --data in --out out"));
    program.works(&format!("{base} --data in/a.wav --out a.wav"));
    for path in ["out/a.wav", "a.wav"] {
        let mut reader = hound::WavReader::open(program.path(path)).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate, reader.duration()), (2, 8_000, 60));
        let samples: Vec<f32> = reader.samples().map(Result::unwrap).collect();
        let expected = |at: usize| [at as f32 * 300.0 - 9000.0, -(at as f32) * 200.0].map(|value| value / 32768.0);
        let apart = samples
            .chunks(2)
            .enumerate()
            .map(|(at, pair)| pair.iter().zip(expected(at)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max));
        assert!(apart.fold(0.0, f32::max) < 1e-5);
    }
    program.works("encode --model m.safetensors --data in --out codes.safetensors");
    for (arguments, part) in [
        ("--data in/a.wav --out a.png", ".wav"),
        ("--data in --out all.wav", "a folder"),
        ("--codes codes.safetensors --out other", "--data in place of --codes"),
    ] {
        let message = program.fails(&format!("{base} {arguments}"), 2);
        assert!(message.contains("--out") && message.contains(part), "{arguments}: {message}");
    }
    write_npy(&program.path("x.npy"), &[1, 2, 1, 8], &noise(16)).unwrap();
    let message = program.fails(&format!("{base} --data x.npy --out x.wav"), 2);
    assert!(message.contains("samples a second"), "{message}");
}

/// A model of recordings knows their rate: others are refused, and codes alone become recordings again.
#[test]
fn recordings_of_another_rate_are_refused() {
    let program = Program::new();
    for rate in [8_000, 16_000] {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(program.path(&format!("{rate}.wav")), spec).unwrap();
        noise(400).iter().for_each(|value| writer.write_sample((8e3 * value) as i16).unwrap());
        writer.finalize().unwrap();
    }
    program
        .run("train --data 8000.wav --patch 1x16 --patches 60 --atoms 4 --kernel 1x8 --epochs 1 --no-report --out run");
    assert!(program.works("inspect --model run").contains("sampling rate"));
    let expected = "recordings of 8000 samples a second, which the model is for, found 16000";
    for command in ["encode --out c.npz", "reconstruct --out r.wav", "compare", "certify"] {
        let message = program.fails(&format!("{command} --model run --data 16000.wav"), 2);
        assert!(message.starts_with("error: --data = 16000.wav") && message.contains(expected), "{message}");
    }
    let message =
        program.fails("train --from run --data 16000.wav --patch 1x16 --patches 60 --epochs 1 --out other", 1);
    assert!(message.contains("8000 samples a second"), "{message}");
    program.works("encode --model run --data 8000.wav --out codes.npz");
    program.works("reconstruct --model run --codes codes.npz --out back.wav");
    let reader = hound::WavReader::open(program.path("back.wav")).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.duration()), (8_000, 400));
    // Codes know the names of their recordings; arrays and windows get the model's rate.
    program.works("reconstruct --model run --codes codes.npz --out named");
    assert_eq!(program.names("named"), ["8000.wav"]);
    write_npy(&program.path("x.npy"), &[2, 50], &noise(100)).unwrap();
    program.works("reconstruct --model run --data x.npy --layout time --out arrays");
    program.works("reconstruct --model run --data 8000.wav --patch 20 --patches 3 --out windows");
    assert_eq!(program.names("arrays"), ["000000.wav", "000001.wav"]);
    let reader = hound::WavReader::open(program.path("windows/000002.wav")).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.duration()), (8_000, 20));
    // What has rows is no signal in time, and vectors are none without a word.
    write_npy(&program.path("rows.npy"), &[2, 3, 50], &noise(300)).unwrap();
    for data in ["x.npy", "rows.npy"] {
        let message = program.fails(&format!("encode --model run --data {data} --out c.npz"), 1);
        assert!(message.contains("--layout time"), "{message}");
    }
    let message = program.fails("diagnose --model run --data 8000.wav", 1);
    assert!(message.contains("--patch 16"), "{message}");
}

/// Dictionaries beyond single precision are refused before NaN is called a code.
#[test]
fn dictionaries_of_absurd_sizes_are_refused() {
    let program = Program::new();
    let atoms: Vec<f32> = noise(24).iter().map(|value| value - 0.5).collect();
    write_npy(&program.path("x.npy"), &[3, 4], &noise(12)).unwrap();
    for (name, scale) in [("small", 1e-12), ("large", 1e10)] {
        let scaled: Vec<f32> = atoms.iter().map(|value| value * scale).collect();
        write_npy(&program.path("f.npy"), &[6, 4], &scaled).unwrap();
        let output = program.run(&format!("import --filters f.npy --input-shape 4x1x1 --out {name}.safetensors"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("scale the atoms"));
        for pursuit in ["fista", "ista", "ml-fista", "ml-bp", "omp --nonzeros 2"] {
            let encode = format!("encode --out c.npz --pursuit {pursuit}");
            let message = program.fails(&format!("{encode} --model {name}.safetensors --data x.npy"), 1);
            assert!(message.contains("dictionary of layer 1") && message.contains("from 1e-8 to 1e8"), "{message}");
        }
    }
}

/// By coordinates such are coded as long as there is an objective of them.
#[test]
fn objectives_that_are_no_numbers_are_refused() {
    let program = Program::new();
    let atoms: Vec<f32> = noise(24).iter().map(|value| (value - 0.5) * 1e30).collect();
    write_npy(&program.path("x.npy"), &[3, 4], &noise(12)).unwrap();
    write_npy(&program.path("f.npy"), &[6, 4], &atoms).unwrap();
    assert!(program.run("import --filters f.npy --out huge.safetensors").status.success());
    for pursuit in ["bp", "bp --algorithm coordinate-descent"] {
        let encode = format!(
            "encode --model huge.safetensors --data x.npy --lambda-relative 0.1 --out c.npz --pursuit {pursuit}"
        );
        let message = program.fails(&encode, 1);
        assert!(message.contains("from 1e-8 to 1e8"), "{message}");
    }
    assert!(!program.path("c.npz").exists());
}

/// Names of files need not be UTF-8, and what is said of them is.
#[cfg(unix)]
#[test]
fn paths_that_are_no_texts_are_told() {
    use std::os::unix::ffi::OsStrExt;
    let program = Program::new();
    write_npy(&program.path("x.npy"), &[40, 4], &noise(160)).unwrap();
    let folder = std::ffi::OsStr::from_bytes(b"bad\xff");
    let train = "train --data x.npy --atoms 4 --epochs 1 --no-report --json --out";
    let output = program.command(train).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(json_of(&output.stdout)["run"].as_str().unwrap().starts_with("bad"));
    let output = program.command("report --json").arg(folder).output().unwrap();
    assert!(output.status.success() && json_of(&output.stdout)["report"].is_string());
}

/// Vectors along the last axis, whatever the others; one that outweighs all others is remarked on.
#[test]
fn activations_of_sequences() {
    let program = Program::new();
    let mut values = noise(6 * 10 * 8);
    write_npy(&program.path("flat.npy"), &[60, 8], &values).unwrap();
    write_npy(&program.path("batch.npy"), &[6, 10, 8], &values).unwrap();
    let train = "train --atoms 12 --epochs 1 --target-nonzeros 2 --no-report --json";
    let [flat, batch] = ["--data flat.npy", "--data batch.npy --layout tokens"].map(|data| {
        let name = data.split_whitespace().nth(1).unwrap();
        let output = program.run(&format!("{train} {data} --out {name}.run"));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["outliers"], serde_json::Value::Null);
        told["test"]["objective"].as_f64().unwrap()
    });
    assert_eq!(flat, batch);
    let message = program.fails("train --data batch.npy --atoms 12 --out run", 2);
    assert!(message.contains("--layout tokens"), "{message}");
    let message = program.fails("encode --model flat.npy.run --data batch.npy --out c.npz", 1);
    assert!(message.contains("layout tokens the last axis"), "{message}");
    values[7 * 8..8 * 8].iter_mut().for_each(|value| *value *= 1e4);
    write_npy(&program.path("outlier.npy"), &[60, 8], &values).unwrap();
    let output = program.run(&format!("{train} --data outlier.npy --out outlier.run"));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["outliers"].as_str().is_some_and(|text| text.contains("times as long as the median one")), "{told}");
    // The sign is the model's unless another is asked for.
    for (flag, nonnegative) in [("", true), ("--signed", false)] {
        let told = program.json(&format!("sample --model flat.npy.run --count 20 --nonzeros 3 --out drawn {flag}"));
        assert_eq!(told["nonnegative"], nonnegative);
    }
}
