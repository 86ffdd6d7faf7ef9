//! What the program writes, and where: never over what it reads, through links, with the permissions that are there, each result
//! named after its picture, and what an end of coding says.

use crate::common;

use common::program::{Program, noise};
use image::{GrayImage, Luma};
use mlcsc::export::arrays::write_npy;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A folder with `model.safetensors`, two layers on 1x12x12 of that normalisation, and `signals.npy`, five signals for it.
fn bench(normalization: &str) -> Program {
    let program = Program::new();
    let centred = |seed, count| noise(seed, count).iter().map(|value| value - 0.5).collect::<Vec<_>>();
    write_npy(&program.path("w1.npy"), &[4, 1, 3, 3], &centred(1, 36)).unwrap();
    write_npy(&program.path("w2.npy"), &[5, 4, 3, 3], &centred(2, 180)).unwrap();
    write_npy(&program.path("signals.npy"), &[5, 12, 12], &noise(3, 720)).unwrap();
    program.works(&format!(
        "import --filters w1.npy w2.npy --strides 2,1 --input-shape 1x12x12 --normalization {normalization} --out model.safetensors"
    ));
    program
}

/// Pictures of several sizes in `pictures`: two of 14x12, one of 20x16.
fn pictures(program: &Program) {
    fs::create_dir(program.path("pictures")).unwrap();
    for (seed, (name, height, width)) in
        [("b.png", 14, 12), ("a.png", 20, 16), ("c.pgm", 14, 12)].into_iter().enumerate()
    {
        let values = noise(seed as u64, height * width);
        let pixel = |x: u32, y: u32| Luma([(255.0 * values[y as usize * width + x as usize]) as u8]);
        let picture = GrayImage::from_fn(width as u32, height as u32, pixel);
        picture.save(program.path("pictures").join(name)).unwrap();
    }
}

fn values(path: &Path) -> Vec<f32> {
    npyz::NpyFile::new(fs::File::open(path).unwrap()).unwrap().into_vec().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn codes_bring_normalised_signals_back() {
    for normalization in ["none", "center", "contrast", "high-pass"] {
        let program = bench(normalization);
        let input = "--model model.safetensors --data signals.npy --lambda-relative 0.1 --batch-size 2";
        program.works(&format!("reconstruct {input} --out direct.npy"));
        let direct = values(&program.path("direct.npy"));
        for codes in ["codes.safetensors", "codes.npz"] {
            program.works(&format!("encode {input} --out {codes}"));
            let back = format!("reconstruct --model model.safetensors --codes {codes} --out back.npy --batch-size 3");
            assert_eq!(program.json(&back)["normalization"], normalization);
            assert!(largest_difference(&values(&program.path("back.npy")), &direct) < 1e-5, "{normalization} {codes}");
        }
        // What Python finds: the documented formula, D_1 γ_1 with stride 2 times scale plus mean.
        let bytes = fs::read(program.path("codes.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let bytes = tensors.tensor(name).unwrap().data().chunks_exact(4);
            bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
        };
        let (gamma, filters) = (floats("gamma_1"), values(&program.path("w1.npy")));
        let [mean, scale] = ["mean", "scale"].map(floats);
        let smooth = tensors.tensor("smooth").is_ok().then(|| floats("smooth"));
        assert_eq!(smooth.is_some(), normalization == "high-pass");
        let shape = tensors.tensor("gamma_1").unwrap().shape().to_vec();
        let [count, atoms, rows, columns] = shape[..] else { panic!("{shape:?}") };
        let mut found = vec![0.0; count * 144];
        for (index, &value) in gamma.iter().enumerate() {
            let (signal, atom) = (index / (atoms * rows * columns), index / (rows * columns) % atoms);
            let (row, column) = (index / columns % rows, index % columns);
            for (place, filter) in filters[9 * atom..][..9].iter().enumerate() {
                found[144 * signal + 12 * (2 * row + place / 3) + 2 * column + place % 3] += value * filter;
            }
        }
        for (index, value) in found.iter_mut().enumerate() {
            let smooth = smooth.as_ref().map_or(0.0, |smooth| smooth[index]);
            *value = scale[index / 144] * *value + mean[index / 144] + smooth;
        }
        assert!(largest_difference(&found, &direct) < 1e-5, "{normalization}");
    }
}

/// Codes of elsewhere, without what undoes the normalisation, serve models that have none and are refused by others.
#[test]
fn codes_without_means_are_read_where_there_are_none() {
    let strip = |program: &Program| {
        program.works("encode --model model.safetensors --data signals.npy --out codes.safetensors");
        let bytes = fs::read(program.path("codes.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let gamma = [("gamma_2", tensors.tensor("gamma_2").unwrap())];
        safetensors::serialize_to_file(gamma, None, &program.path("old.safetensors")).unwrap();
    };
    let reconstruct =
        "reconstruct --model model.safetensors --codes old.safetensors --input-shape 1x12x12 --out old.npy";
    let plain = bench("none");
    strip(&plain);
    plain.works(reconstruct);
    plain.works("reconstruct --model model.safetensors --codes codes.safetensors --out new.npy");
    assert_eq!(values(&plain.path("old.npy")), values(&plain.path("new.npy")));
    for (normalization, arrays) in
        [("center", "mean and scale"), ("contrast", "mean and scale"), ("high-pass", "smooth")]
    {
        let program = bench(normalization);
        strip(&program);
        let message = program.fails(reconstruct, 1);
        assert!(["old.safetensors", arrays, normalization].iter().all(|word| message.contains(word)), "{message}");
        assert!(!program.path("old.npy").exists());
    }
}

/// Drawn signals never were normalised: their codes give just them.
#[test]
fn codes_of_drawn_signals_give_the_signals() {
    for normalization in ["contrast", "high-pass"] {
        let program = bench(normalization);
        program.works("sample --model model.safetensors --count 3 --nonzeros 4 --out drawn");
        program.works("reconstruct --model model.safetensors --codes drawn/codes.safetensors --out back.npy");
        let [drawn, back] = ["drawn/signals.npy", "back.npy"].map(|name| values(&program.path(name)));
        assert!(largest_difference(&drawn, &back) < 1e-6);
    }
}

#[test]
fn nothing_is_written_over_what_is_read() {
    let program = bench("none");
    pictures(&program);
    write_npy(&program.path("lambda.npy"), &[5], &[0.1; 5]).unwrap();
    program.works("encode --model model.safetensors --data signals.npy --out codes.safetensors");
    assert!(program.run("train --count 60 --epochs 1 --out run").status.success());
    fs::create_dir(program.path("given")).unwrap();
    fs::copy(program.path("run/config.json"), program.path("given/config.json")).unwrap();
    fs::copy(program.path("model.safetensors"), program.path("given/atoms.safetensors")).unwrap();
    fs::copy(program.path("model.safetensors"), program.path("given/codes.safetensors")).unwrap();
    fs::create_dir(program.path("one")).unwrap();
    fs::copy(program.path("pictures/a.png"), program.path("one/a.png")).unwrap();
    let mut links = Vec::new();
    #[cfg(unix)]
    {
        for (file, link) in
            [("model.safetensors", "link.npz"), ("signals.npy", "link.svg"), ("signals.npy", "other.npy")]
        {
            std::os::unix::fs::symlink(file, program.path(link)).unwrap();
        }
        fs::hard_link(program.path("signals.npy"), program.path("hard.npz")).unwrap();
        fs::hard_link(program.path("pictures/b.png"), program.path("hard.png")).unwrap();
        std::os::unix::fs::symlink("pictures", program.path("same")).unwrap();
        links.extend([
            ("encode --model model.safetensors --data signals.npy --out link.npz", "--model"),
            ("encode --model model.safetensors --data signals.npy --out hard.npz", "--data"),
            ("compare --model model.safetensors --data signals.npy --out link.svg", "--data"),
            ("reconstruct --model model.safetensors --data signals.npy --out other.npy", "--data"),
            ("reconstruct --model model.safetensors --data pictures/b.png --out hard.png", "--data"),
            ("reconstruct --model model.safetensors --data pictures --out same", "--data"),
        ]);
    }
    let snapshot = || -> Vec<(String, Vec<u8>)> {
        let files = ["model.safetensors", "signals.npy", "lambda.npy", "w1.npy", "w2.npy", "codes.safetensors"];
        let more = ["pictures/a.png", "pictures/b.png", "pictures/c.pgm", "one/a.png", "given/config.json"];
        let more = more.into_iter().chain(["given/atoms.safetensors", "given/codes.safetensors"]);
        let read = |name: &str| (name.to_owned(), fs::read(program.path(name)).unwrap());
        files.into_iter().chain(more).map(read).collect()
    };
    let before = (snapshot(), program.names("."), program.names("pictures"), program.names("given"));
    for (command, flag) in [
        ("encode --model model.safetensors --data signals.npy --out model.safetensors", "--model"),
        ("encode --model ./model.safetensors --data signals.npy --out pictures/../model.safetensors", "--model"),
        ("reconstruct --model model.safetensors --data signals.npy --out ./signals.npy", "--data"),
        (
            "reconstruct --model model.safetensors --data signals.npy --lambda-file lambda.npy --out lambda.npy",
            "--lambda-file",
        ),
        ("reconstruct --model model.safetensors --data pictures --out pictures", "--data"),
        ("reconstruct --model model.safetensors --data pictures --out pictures/../pictures/", "--data"),
        ("reconstruct --model model.safetensors --data one/a.png --out one", "--data"),
        ("reconstruct --model model.safetensors --data one/a.png --out one/a.png", "--data"),
        ("import --filters w1.npy w2.npy --input-shape 1x12x12 --out w2.npy", "--filters"),
        ("export --model given/atoms.safetensors --out given", "--model"),
        ("sample --model given/codes.safetensors --count 2 --nonzeros 3 --out given", "--model"),
        ("train --config given/config.json --out given", "--config"),
    ]
    .into_iter()
    .chain(links)
    {
        let message = program.fails(command, 2);
        assert!(message.contains("--out") && message.contains(flag), "{command}: {message}");
        let after = (snapshot(), program.names("."), program.names("pictures"), program.names("given"));
        assert_eq!(before, after, "{command}");
    }
    // Beside what is read there is place enough.
    program.works("encode --model model.safetensors --data pictures --out pictures/codes.npz");
    // The second time the codes are passed over, with a word.
    assert!(program.run("encode --model model.safetensors --data pictures --out pictures/codes.npz").status.success());
    fs::remove_file(program.path("pictures/codes.npz")).unwrap();
    program.works("reconstruct --model model.safetensors --data pictures --out pictures/results");
    program.works("reconstruct --model model.safetensors --data pictures/c.pgm --out one");
}

#[cfg(unix)]
#[test]
fn links_stay_and_permissions_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let program = bench("none");
    let mode = |name: &str| fs::metadata(program.path(name)).unwrap().permissions().mode() & 0o777;
    fs::create_dir(program.path("elsewhere")).unwrap();
    let encode = "encode --model model.safetensors --data signals.npy --out";
    for (name, file) in [("link.npz", "target.npz"), ("new.safetensors", "elsewhere/new.safetensors")] {
        symlink(file, program.path(name)).unwrap();
        program.works(&format!("{encode} {name}"));
        assert!(fs::symlink_metadata(program.path(name)).unwrap().is_symlink());
        assert!(fs::symlink_metadata(program.path(file)).unwrap().is_file());
    }
    fs::write(program.path("plain"), "").unwrap();
    assert_eq!(mode("target.npz"), mode("plain"));
    fs::write(program.path("private.npz"), "").unwrap();
    fs::set_permissions(program.path("private.npz"), fs::Permissions::from_mode(0o600)).unwrap();
    program.works(&format!("{encode} private.npz"));
    assert_eq!(mode("private.npz"), 0o600);
    symlink("elsewhere", program.path("results")).unwrap();
    program.works("reconstruct --model model.safetensors --data signals.npy --limit 1 --out results");
    assert!(program.path("elsewhere/000000.png").is_file());
    symlink("round.npz", program.path("round.npz")).unwrap();
    assert!(program.fails(&format!("{encode} round.npz"), 1).contains("round.npz"));
}

#[test]
fn pictures_of_several_sizes_are_coded_each_in_its_own() {
    let program = bench("center");
    pictures(&program);
    let input = "--model model.safetensors --data pictures --lambda-relative 0.1";
    let document = program.json(&format!("reconstruct {input} --out results"));
    assert_eq!((document["signals"].as_u64(), document["shapes"].as_array().unwrap().len()), (Some(3), 2));
    assert_eq!(program.names("results"), ["a.png", "b.png", "c.png"]);
    let size = |name: &str| {
        let picture = image::open(program.path(name)).unwrap();
        (picture.height(), picture.width())
    };
    assert_eq!(["a", "b", "c"].map(|name| size(&format!("results/{name}.png"))), [(20, 16), (14, 12), (14, 12)]);
    // As each by itself, from signals and from codes.
    for (picture, name) in [("a.png", "a"), ("b.png", "b"), ("c.pgm", "c")] {
        program.works(&format!(
            "reconstruct --model model.safetensors --lambda-relative 0.1 --data pictures/{picture} --out x.png"
        ));
        let [alone, together] = ["x.png".to_owned(), format!("results/{name}.png")]
            .map(|name| image::open(program.path(&name)).unwrap().into_luma8().into_raw());
        assert!(alone.iter().zip(&together).all(|(a, b)| a.abs_diff(*b) <= 1), "{picture}");
    }
    for codes in ["codes.npz", "codes.safetensors"] {
        let document = program.json(&format!("encode {input} --out {codes}"));
        assert_eq!(document["pictures"], serde_json::json!(["a.png", "b.png", "c.pgm"]));
        program.works(&format!("reconstruct --model model.safetensors --codes {codes} --out back"));
        for name in ["a", "b", "c"] {
            let [direct, back] = ["results", "back"].map(|folder| {
                image::open(program.path(&format!("{folder}/{name}.png"))).unwrap().into_luma8().into_raw()
            });
            assert!(direct.iter().zip(&back).all(|(a, b)| a.abs_diff(*b) <= 1), "{codes} {name}");
        }
        fs::remove_dir_all(program.path("back")).unwrap();
    }
    let bytes = fs::read(program.path("codes.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("a.png/gamma_1").unwrap().shape(), [1, 4, 9, 7]);
    assert_eq!(tensors.tensor("c.pgm/mean").unwrap().shape(), [1]);
    // One λ for each, in the order of their names.
    write_npy(&program.path("lambda.npy"), &[3], &[0.1, 0.2, 0.3]).unwrap();
    program.works("encode --model model.safetensors --data pictures --lambda-file lambda.npy --out codes.safetensors");
    let bytes = fs::read(program.path("codes.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let lambdas = ["a.png", "b.png", "c.pgm"]
        .map(|name| f32::from_le_bytes(tensors.tensor(&format!("{name}/lambda")).unwrap().data().try_into().unwrap()));
    assert_eq!(lambdas, [0.1, 0.2, 0.3]);
    // One of them is too small: nothing is written.
    GrayImage::new(2, 2).save(program.path("pictures/tiny.png")).unwrap();
    fs::remove_dir_all(program.path("results")).unwrap();
    assert!(program.fails(&format!("reconstruct {input} --out results"), 1).contains("tiny.png"));
    assert!(!program.path("results").exists());
}

#[test]
fn one_picture_becomes_one_file() {
    let program = bench("none");
    pictures(&program);
    let reconstruct = "reconstruct --model model.safetensors";
    program.works(&format!("{reconstruct} --data pictures/b.png --out new/x.png"));
    assert_eq!(program.names("new"), ["x.png"]);
    assert!(program.path("new/x.png").is_file());
    program.works(&format!("{reconstruct} --data signals.npy --limit 1 --out y.png"));
    assert!(program.path("y.png").is_file());
    let before = program.names(".");
    for (data, out, word) in [
        ("signals.npy", "many.png", "5 pictures"),
        ("pictures", "many.png", "3 pictures"),
        ("pictures", "sizes.npy", "several sizes"),
        ("pictures/b.png", "x.jpg", ".png"),
        ("pictures/b.png", "x.TIF", ".png"),
    ] {
        let message = program.fails(&format!("{reconstruct} --data {data} --out {out}"), 2);
        assert!(message.contains("--out") && message.contains(word), "{message}");
    }
    assert_eq!(program.names("."), before);
}

#[test]
fn what_an_earlier_run_left() {
    let program = bench("none");
    pictures(&program);
    let reconstruct = "reconstruct --model model.safetensors --out results --data";
    program.works(&format!("{reconstruct} signals.npy"));
    // Not the program's own.
    GrayImage::new(2, 2).save(program.path("results/000009.png")).unwrap();
    let text = program.works(&format!("{reconstruct} signals.npy --limit 2"));
    assert!(text.contains("3 numbered images of an earlier run"), "{text}");
    assert_eq!(program.names("results"), ["000000.png", "000001.png", "000009.png"]);
    // Results of several pictures gather in a folder, one run after the other.
    program.works(&format!("{reconstruct} pictures/a.png"));
    let document = program.json(&format!("{reconstruct} pictures/b.png"));
    assert_eq!(document["earlier_pictures"], serde_json::json!({ "removed": 0, "kept": 3 }));
    assert_eq!(program.names("results"), ["000000.png", "000001.png", "000009.png", "a.png", "b.png"]);
    let sample = "sample --model model.safetensors --nonzeros 3 --out drawn";
    program.works(&format!("{sample} --count 3 --noise 0.1"));
    assert!(program.path("drawn/clean.npy").exists());
    program.works(&format!("{sample} --count 2"));
    assert_eq!(program.names("drawn"), ["000000.png", "000001.png", "codes.safetensors", "signals.npy"]);
}

#[test]
fn codes_short_of_their_gap_are_told() {
    let program = bench("none");
    let input = "--model model.safetensors --data signals.npy --lambda-relative 0.01 --gap 1e-6";
    let short = "--pursuit ista --max-iterations 2";
    let last = |text: String| text.lines().last().unwrap_or_default().to_owned();
    for command in ["encode --out codes.npz", "reconstruct --out back.npy"] {
        let line = last(program.works(&format!("{command} {input} {short}")));
        let words = ["not converged: 5 of 5 signals", "1.00e-6", "the worst at", "--max-iterations (2)", "--gap"];
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
        let told = &program.json(&format!("{command} {input} {short}"))["not_converged"];
        assert_eq!(
            (told["above"].as_u64(), told["of"].as_u64(), told["max_iterations"].as_u64()),
            (Some(5), Some(5), Some(2))
        );
        assert!(told["worst_gap"].as_f64().unwrap() > 1e-6);
        // Where all have their gap, or none was asked for, there is no such line.
        for enough in ["--pursuit bp --gap 1e-3", "--pursuit omp --nonzeros 2"] {
            let input = "--model model.safetensors --data signals.npy";
            assert!(!program.works(&format!("{command} {input} {enough}")).contains("not converged"), "{enough}");
            assert_eq!(program.json(&format!("{command} {input} {enough}"))["not_converged"], Value::Null);
        }
    }
    let compare = format!("compare {input} --max-iterations 1 --pursuits fista,omp");
    let text = program.works(&compare);
    assert!(last(text.clone()).starts_with("fista: not converged: 5 of 5 signals"), "{text}");
    let rows = &program.json(&compare)["rows"];
    assert_eq!((rows[0]["not_converged"]["above"].as_u64(), &rows[1]["not_converged"]), (Some(5), &Value::Null));
}

/// Ctrl-C while the last batch is coded comes too late: everything is written, and that is success.
#[cfg(unix)]
#[test]
fn an_interruption_after_the_last_signal_is_success() {
    use std::process::{Command, Stdio};
    let program = bench("none");
    write_npy(&program.path("large.npy"), &[1, 600, 600], &noise(7, 360_000)).unwrap();
    let command = "encode --model model.safetensors --data large.npy --pursuit ista --gap 1e-9 --lambda 1e-4 --out out.npz \
                   --application cascade --max-iterations";
    // So many iterations that the signal arrives while they run.
    let mut iterations = 200;
    for _ in 0..6 {
        let mut child = program
            .command(&format!("{command} {iterations}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        if child.try_wait().unwrap().is_some() {
            // What it wrote must not be taken for what the next one writes.
            let _ = std::fs::remove_file(program.path("out.npz"));
            iterations *= 4;
            continue;
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        // Either the pursuit itself was interrupted, and nothing is there, or everything is.
        let whole = program.path("out.npz").exists();
        assert_eq!(output.status.code(), Some(if whole { 0 } else { 130 }), "{output:?}");
        return;
    }
    panic!("the command always ended before it could be interrupted");
}
