//! Everyday inputs from outside: folders with all sorts of files, colours for a grey model, arrays of Python 2, models through pipes,
//! labels that do not begin at zero, variances that are zero.

use crate::common;

use burn::tensor::Tensor;
use common::program::Program;
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use mlcsc::device;
use mlcsc::geometry::{LayerShape, SignalShape};
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::{Mlcsc, ModelConfig};
use std::fs;

/// A folder with a model of one atom of one pixel, which leaves signals as they are.
fn bench() -> Program {
    let bench = Program::new();
    let config = ModelConfig::new(SignalShape::new(1, 8, 8), vec![LayerShape::new(1, 1, 1)]);
    let filters = Tensor::ones([1, 1, 1, 1], &device::named(None).unwrap());
    let model = Mlcsc::from_filters(config, vec![filters]).unwrap();
    model.save(&bench.path("m.safetensors"), CodingDefaults::default()).unwrap();
    bench
}

fn grey(height: u32, width: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| Luma([(20 * y + 3 * x) as u8]))
}

#[test]
fn what_a_folder_holds_beside_pictures_is_said_in_a_line() {
    let bench = bench();
    fs::create_dir_all(bench.path("p/results")).unwrap();
    let formats = [
        ("1.png", ImageFormat::Png),
        ("2.jfif", ImageFormat::Jpeg),
        ("3.JPE", ImageFormat::Jpeg),
        ("4.tif", ImageFormat::Tiff),
        ("5.TIFF", ImageFormat::Tiff),
        ("6.bmp", ImageFormat::Bmp),
        ("7.webp", ImageFormat::WebP),
    ];
    for (name, format) in formats {
        grey(8, 8).save_with_format(bench.path(&format!("p/{name}")), format).unwrap();
    }
    let encode = "encode --model m.safetensors --data p --out c.npz --json";
    // The folder `results` alone.
    let output = bench.run(encode);
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), "skipped in p: 1 folder (results)");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["signals"], 7);
    for name in ["._1.png", ".DS_Store", "notes.txt", "a.gif", "b.gif", "c.gif"] {
        fs::write(bench.path(&format!("p/{name}")), "\0\x05\x16\x07").unwrap();
    }
    let output = bench.run(encode);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).trim_end(),
        "skipped in p: 2 hidden files (.DS_Store, ._1.png); 1 folder (results); 4 files of a kind that is not read (a.gif, \
         b.gif, c.gif, …)"
    );
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["signals"], 7);
    // Nothing but what is skipped.
    fs::create_dir(bench.path("q")).unwrap();
    fs::write(bench.path("q/._1.png"), "").unwrap();
    let message = bench.fails("encode --model m.safetensors --data q --out c.npz", 1);
    assert!(message.contains("found none of them") && message.contains("1 hidden file (._1.png)"), "{message}");
}

#[test]
fn colours_for_a_grey_model_need_a_flag() {
    let bench = bench();
    RgbImage::from_pixel(8, 8, Rgb([255, 0, 51])).save(bench.path("c.png")).unwrap();
    for command in [
        "encode --model m.safetensors --out c.npz",
        "reconstruct --model m.safetensors --out r.npy",
        "diagnose --model m.safetensors",
        "train --preset small --out run",
    ] {
        let message = bench.fails(&format!("{command} --data c.png"), 1);
        assert!(message.contains("--grey turns colour"), "{message}");
    }
    bench.works("reconstruct --model m.safetensors --data c.png --grey --lambda 0 --signed --out r.npy");
    let array = mlcsc::data::npy::read_array(&bench.path("r.npy")).unwrap();
    // 0.299·255 + 0.114·51 = 82.06.
    assert!(array.values.iter().all(|value| (value * 255.0 - 82.0).abs() < 1e-3), "{:?}", array.values);
}

#[test]
fn truncated_pictures_are_refused_and_nothing_is_written() {
    let bench = bench();
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.tif", ImageFormat::Tiff),
        ("a.bmp", ImageFormat::Bmp),
        ("a.webp", ImageFormat::WebP),
    ] {
        grey(64, 64).save_with_format(bench.path(name), format).unwrap();
        let bytes = fs::read(bench.path(name)).unwrap();
        fs::write(bench.path(name), &bytes[..bytes.len() * 7 / 10]).unwrap();
        let message = bench.fails(&format!("encode --model m.safetensors --data {name} --out c.npz"), 1);
        assert!(message.contains(name), "{message}");
    }
    assert!(!bench.path("c.npz").exists());
}

#[cfg(unix)]
#[test]
fn models_come_through_pipes() {
    let bench = bench();
    grey(8, 8).save(bench.path("g.png")).unwrap();
    for arguments in [
        "encode --model /dev/stdin --data g.png --out c.npz",
        "diagnose --model /dev/stdin --data g.png",
        "inspect --model /dev/stdin",
    ] {
        let mut command = bench.command(arguments);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let model = fs::read(bench.path("m.safetensors")).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &model));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// An IDX file of bytes.
fn idx(extents: &[u32], values: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, extents.len() as u8].into_iter();
    header.chain(extents.iter().flat_map(|extent| extent.to_be_bytes())).chain(values.iter().copied()).collect()
}

#[test]
fn classes_are_the_labels_that_occur() {
    let bench = bench();
    let mut random = common::rng(5);
    for (part, count) in [("train", 100), ("t10k", 40)] {
        let labels: Vec<u8> = (0..count).map(|index| [1, 60, 255][index % 3]).collect();
        let noise = common::normals(&mut random, count * 64);
        let image = |index: usize| (index % 64 / 16, labels[index / 64]);
        // Every class has two bright rows of its own.
        let bright = |index: usize| matches!(image(index), (0, 1) | (1, 60) | (2, 255));
        let values: Vec<u8> = noise
            .iter()
            .enumerate()
            .map(|(index, noise)| (if bright(index) { 200.0 } else { 60.0 } + 20.0 * noise) as u8)
            .collect();
        fs::write(bench.path(&format!("{part}-images-idx3-ubyte")), idx(&[count as u32, 8, 8], &values)).unwrap();
        fs::write(bench.path(&format!("{part}-labels-idx1-ubyte")), idx(&[count as u32], &labels)).unwrap();
    }
    let classify = "classify --model m.safetensors --data . --lambda 0.01";
    let found = bench.json(classify);
    assert_eq!(found["classes"], 3);
    assert_eq!(found["class_labels"], serde_json::json!([1, 60, 255]));
    assert_eq!(found["test_error"], 0.0);
    assert_eq!(found["confusion"], serde_json::json!([[14, 0, 0], [0, 13, 0], [0, 0, 13]]));
    let text = bench.works(classify);
    assert!(text.contains("3 classes"), "{text}");
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[3]), ["true", "\\", "found", "1", "60", "255"]);
    assert_eq!(words(lines[1]), ["60", "0", "13", "0"]);
    // Too few signals are called that; a flag is blamed where it was given.
    let message = bench.fails(&format!("{classify} --train-limit 5"), 1);
    assert!(message.contains("training signals: expected at least 6"), "{message}");
    let message = bench.fails(&format!("{classify} --labels 5"), 2);
    assert!(message.contains("--labels = 5"), "{message}");
    fs::write(bench.path("t10k-labels-idx1-ubyte"), idx(&[40], &[2; 40])).unwrap();
    let message = bench.fails(classify, 2);
    assert!(message.contains("(1, 60, 255), found 2"), "{message}");
}

#[test]
fn an_undefined_fvu_is_null_and_a_dash() {
    let bench = bench();
    grey(8, 8).save(bench.path("one.png")).unwrap();
    let found = bench.json("diagnose --model m.safetensors --data one.png");
    assert!(found["models"][0]["diagnostics"]["fvu"].is_null(), "{found}");
    let text = bench.works("diagnose --model m.safetensors --data one.png");
    assert_eq!(text.lines().last().unwrap().split_whitespace().nth(1), Some("–"), "{text}");
    let found = bench.json("reconstruct --model m.safetensors --data one.png --out r.npy");
    assert!(found["variance_unexplained"].is_null(), "{found}");
    // Learned from pictures that are all alike.
    fs::create_dir(bench.path("same")).unwrap();
    for index in 0..6 {
        grey(8, 8).save(bench.path(&format!("same/{index}.png"))).unwrap();
    }
    #[cfg(feature = "train")]
    for model in ["sae --units 4 --epochs 1", "pca --units 2", "dictionary --units 4 --epochs 1"] {
        let name = model.split(' ').next().unwrap();
        let output = bench.run(&format!("train --model {model} --data same --out {name}"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find(|line| line.contains("variance unexplained"));
        assert_eq!(line.and_then(|line| line.split_whitespace().last()), Some("–"), "{text}");
    }
}
