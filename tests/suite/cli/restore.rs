//! Pictures restored by the program: types and depths kept, numbers said, mistakes in one line.

use crate::common;

use common::program::{Program, noise};
use image::{DynamicImage, ImageBuffer, LumaA, Rgb};
use mlcsc::data::npy::read_array;
use mlcsc::export::arrays::write_npy;
use mlcsc::restore::{Blur, Observation, Picture};
use serde_json::{Value, json};
use std::fs;

/// Stripes at an angle on a ramp, 40 rows of 48.
fn clean() -> Vec<f32> {
    let value = |row: f32, column: f32| 60.0 + row + if (row + 2.0 * column) % 20.0 < 10.0 { 90.0 } else { 0.0 };
    (0..40 * 48).map(|at| value((at / 48) as f32, (at % 48) as f32)).collect()
}

/// The same with noise of standard deviation 20, uniform.
fn noisy() -> Vec<f32> {
    clean().iter().zip(noise(1, 40 * 48)).map(|(value, noise)| value + 69.28 * (noise - 0.5)).collect()
}

fn bench() -> Program {
    let program = Program::new();
    write_npy(&program.path("clean.npy"), &[40, 48], &clean()).unwrap();
    write_npy(&program.path("noisy.npy"), &[40, 48], &noisy()).unwrap();
    program
}

fn error(found: &[f32]) -> f64 {
    found.iter().zip(clean()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / found.len() as f64
}

#[test]
fn noise_is_taken_off_arrays() {
    let program = bench();
    let told =
        program.json("restore --data noisy.npy --noise 20 --reference clean.npy --residual taken.npy --out out.npy");
    let found = read_array(&program.path("out.npy")).unwrap();
    assert_eq!(found.shape, [40, 48]);
    // Noise has an energy of 400; measured 90.
    assert!(error(&found.values) < 130.0, "{}", error(&found.values));
    let row = &told["pictures"][0];
    assert!(row["psnr"].as_f64().unwrap() > row["psnr_before"].as_f64().unwrap() + 4.0, "{row}");
    assert!(row["ssim"].as_f64().unwrap() > row["ssim_before"].as_f64().unwrap(), "{row}");
    assert_eq!((row["sigma"].as_f64(), row["measured"].as_bool()), (Some(20.0), Some(false)), "{row}");
    // What was taken off is about the noise, and it is what the array holds.
    assert!((0.7..1.1).contains(&row["taken_off_in_sigmas"].as_f64().unwrap()), "{row}");
    let taken = read_array(&program.path("taken.npy")).unwrap();
    let pairs = noisy().into_iter().zip(&found.values).zip(&taken.values);
    assert!(pairs.into_iter().all(|((noisy, found), taken)| ((noisy - found) / 20.0 - taken).abs() < 1e-4));
    // In other units it is the same picture.
    for unit in [1e-25f32, 1e25] {
        let scaled: Vec<f32> = noisy().iter().map(|value| unit * value).collect();
        write_npy(&program.path("scaled.npy"), &[40, 48], &scaled).unwrap();
        program.works(&format!("restore --data scaled.npy --noise {} --out of_scaled.npy", 20.0 * unit));
        let other = read_array(&program.path("of_scaled.npy")).unwrap().values;
        // Rounding may move an atom where two are nearly as good: in the mean a tenth of a grey level.
        let apart: f32 = other.iter().zip(&found.values).map(|(other, value)| (other / unit - value).abs()).sum();
        assert!(apart / 1920.0 < 0.1, "{unit}: {apart}");
    }
    // A second run gives the same bits, and noise that is measured is said to be.
    program.works("restore --data noisy.npy --noise 20 --out again.npy");
    assert_eq!(fs::read(program.path("out.npy")).unwrap(), fs::read(program.path("again.npy")).unwrap());
    let told = program.json("restore --data noisy.npy --out measured.npy");
    assert_eq!(told["pictures"][0]["measured"], true);
    assert!(program.works("restore --data noisy.npy --out measured.npy").contains("measured"));
}

#[test]
fn missing_pixels_are_not_read() {
    let program = bench();
    let known: Vec<f32> = noise(2, 40 * 48).iter().map(|value| if *value < 0.5 { 1.0 } else { 0.0 }).collect();
    write_npy(&program.path("mask.npy"), &[40, 48], &known).unwrap();
    let mut outcomes = Vec::new();
    for (name, other) in [("nan", f32::NAN), ("seven", 7.0), ("huge", 1e30)] {
        let holes: Vec<f32> =
            clean().iter().zip(&known).map(|(value, known)| if *known > 0.0 { *value } else { other }).collect();
        write_npy(&program.path(&format!("{name}.npy")), &[40, 48], &holes).unwrap();
        program.works(&format!("restore --data {name}.npy --mask mask.npy --out of_{name}.npy"));
        outcomes.push(fs::read(program.path(&format!("of_{name}.npy"))).unwrap());
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
    // The same by the value that stands for what is missing.
    program.works("restore --data nan.npy --missing nan --out by_value.npy");
    assert_eq!(fs::read(program.path("by_value.npy")).unwrap(), outcomes[0]);
    let found = read_array(&program.path("of_nan.npy")).unwrap().values;
    let known_ones = found.iter().zip(clean()).zip(&known).filter(|(_, known)| **known > 0.0);
    assert!(known_ones.into_iter().all(|((found, clean), _)| *found == clean));
    // Of a picture with an energy of 2,000 about its mean, half of it known; measured 177.
    assert!(error(&found) < 230.0, "{}", error(&found));
}

/// Blur and loss of size are undone by what the library says that they do.
#[test]
fn blur_and_loss_of_size_are_undone() {
    let program = bench();
    let clean = Picture::new(1, 40, 48, clean()).unwrap();
    let kernel = [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0];
    write_npy(&program.path("kernel.npy"), &[3, 3], &kernel).unwrap();
    let kinds =
        [("gaussian:1.2", Blur::gaussian(1.2).unwrap(), 2.0), ("kernel.npy", Blur::new([3, 3], &kernel).unwrap(), 4.0)];
    for (flag, blur, sigma) in kinds {
        let seen = Observation::default().blurred(blur).seen(&clean).unwrap();
        write_npy(&program.path("seen.npy"), &[40, 48], &seen.values).unwrap();
        let command =
            format!("restore --data seen.npy --blur {flag} --noise {sigma} --reference clean.npy --out sharp.npy");
        let told = program.json(&command);
        let found = read_array(&program.path("sharp.npy")).unwrap().values;
        // Stripes with edges as sharp as these are beyond the blur; measured 0.30 and 0.51 of the blurred picture's error.
        assert!(error(&found) < 0.6 * error(&seen.values), "{flag}: {} {}", error(&found), error(&seen.values));
        let row = &told["pictures"][0];
        assert!(row["psnr"].as_f64() > row["psnr_before"].as_f64().map(|before| before + 2.0), "{told}");
        assert_eq!(row["blur"], flag);
    }
    let observation = Observation::default().reduced_by(2);
    let seen = observation.seen(&clean).unwrap();
    write_npy(&program.path("small.npy"), &[20, 24], &seen.values).unwrap();
    let told =
        program.json("restore --data small.npy --upscale 2 --reference clean.npy --residual left.npy --out large.npy");
    let found = read_array(&program.path("large.npy")).unwrap();
    assert_eq!(found.shape, [40, 48]);
    let repeated: Vec<f32> = (0..40 * 48).map(|at| seen.values[at / 96 * 24 + at % 48 / 2]).collect();
    assert!(error(&found.values) < 0.6 * error(&repeated), "{} {}", error(&found.values), error(&repeated));
    assert_eq!(told["pictures"][0]["upscale"], 2);
    // What is left is what was seen without what the result would look like.
    let again = observation.seen(&Picture::new(1, 40, 48, found.values).unwrap()).unwrap().values;
    let left = read_array(&program.path("left.npy")).unwrap();
    assert_eq!(left.shape, [20, 24]);
    let pairs = seen.values.iter().zip(&again).zip(&left.values);
    assert!(pairs.into_iter().all(|((seen, again), left)| (seen - again - left).abs() < 1e-3));
}

/// Patches alone, and the pursuit of the whole picture, by a model of cosines; groups are better.
#[test]
fn there_are_several_ways() {
    let program = bench();
    let wave = |order: usize, place: usize| {
        let scale = if order == 0 { 0.125f32.sqrt() } else { 0.5 };
        scale * (std::f32::consts::PI * (place as f32 + 0.5) * order as f32 / 8.0).cos()
    };
    let cosines: Vec<f32> = (0..64 * 64).map(|at| wave(at / 512, at % 64 / 8) * wave(at / 64 % 8, at % 8)).collect();
    write_npy(&program.path("w.npy"), &[64, 1, 8, 8], &cosines).unwrap();
    program.works(
        "import --filters w.npy --strides 8 --input-shape 1x8x8 --normalization center --out cosines.safetensors",
    );
    let mut errors = Vec::new();
    for way in ["groups", "patches --model cosines.safetensors", "pursuit --model cosines.safetensors"] {
        let told = program.json(&format!("restore --data noisy.npy --noise 20 --method {way} --out out.npy"));
        errors.push(error(&read_array(&program.path("out.npy")).unwrap().values));
        assert_eq!(told["method"], way.split(' ').next().unwrap());
    }
    // Of an energy of noise of 400; a penalty shrinks stripes as it does noise: measured 51, 200 and 369.
    assert!(errors.iter().all(|error| *error < 390.0) && errors[0] < errors[1], "{errors:?}");
    assert_eq!(program.json("restore --data noisy.npy --noise 20 --out out.npy")["method"], "groups");
}

/// Hardly any noise on smooth pictures, where covariances are all but singular: nothing is lost.
#[test]
fn clean_pictures_stay_what_they_are() {
    let program = Program::new();
    let sine: Vec<f32> = (0..32 * 32).map(|at| 128.0 + 80.0 * ((at / 32 + at % 32) as f32 / 7.0).sin()).collect();
    write_npy(&program.path("sine.npy"), &[32, 32], &sine).unwrap();
    for sigma in ["auto", "1e-5", "1e-3", "0.05", "0.3"] {
        program.works(&format!("restore --data sine.npy --noise {sigma} --out out.npy"));
        let found = read_array(&program.path("out.npy")).unwrap().values;
        let apart = found.iter().zip(&sine).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // NaN is not below anything.
        assert!(apart < 1.0, "{sigma}: {apart}");
    }
    let deep = ImageBuffer::from_fn(32, 32, |x, y| image::Luma([(257.0 * sine[(y * 32 + x) as usize]) as u16]));
    DynamicImage::ImageLuma16(deep.clone()).save(program.path("deep.png")).unwrap();
    let told = program.json("restore --data deep.png --out out.png");
    assert_eq!(told["pictures"][0]["clipped"], 0);
    let found = image::open(program.path("out.png")).unwrap().to_luma16();
    let apart = found.pixels().zip(deep.pixels()).map(|(a, b)| a.0[0].abs_diff(b.0[0])).max();
    assert!(apart < Some(60), "{apart:?} {told}");
}

/// Atoms of three channels code red, green and blue, as they were learned.
#[test]
fn colour_atoms_code_colours() {
    let program = Program::new();
    let wave = |order: usize, place: usize| {
        let scale = if order == 0 { 0.125f32.sqrt() } else { 0.5 };
        scale * (std::f32::consts::PI * (place as f32 + 0.5) * order as f32 / 8.0).cos()
    };
    // Cosines in red alone.
    let red: Vec<f32> = (0..64 * 192)
        .map(|at| {
            let (atom, channel, pixel) = (at / 192, at % 192 / 64, at % 64);
            if channel == 0 { wave(atom / 8, pixel / 8) * wave(atom % 8, pixel % 8) } else { 0.0 }
        })
        .collect();
    write_npy(&program.path("w.npy"), &[64, 3, 8, 8], &red).unwrap();
    program
        .works("import --filters w.npy --strides 8 --input-shape 3x8x8 --normalization center --out red.safetensors");
    let clean: Vec<f32> = clean().into_iter().chain(vec![100.0; 2 * 40 * 48]).collect();
    let noisy: Vec<f32> =
        clean.iter().zip(noise(8, 3 * 40 * 48)).map(|(value, noise)| value + 69.28 * (noise - 0.5)).collect();
    write_npy(&program.path("noisy.npy"), &[3, 40, 48], &noisy).unwrap();
    let error =
        |found: &[f32]| found.iter().zip(&clean).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / found.len() as f32;
    for method in ["pursuit", "patches", "groups"] {
        let command =
            format!("restore --data noisy.npy --noise 20 --model red.safetensors --method {method} --out out.npy");
        program.works(&command);
        let found = read_array(&program.path("out.npy")).unwrap().values;
        // Of 400; on rotated colours stripes in red are beyond these atoms.
        assert!(error(&found) < 200.0, "{method}: {}", error(&found));
    }
}

/// A network learns to take noise off pictures like those that it is shown, and says which noise it knows.
#[test]
fn a_network_is_trained_to_take_noise_off() {
    let program = bench();
    fs::create_dir(program.path("in")).unwrap();
    // Other cut-outs of the same stripes, on other grounds.
    for index in 0..8u32 {
        let value = |x: u32, y: u32| 40 + 8 * index + if (2 * x + y + 3 * index) % 20 < 10 { 90 } else { 0 };
        ImageBuffer::from_fn(40, 40, |x, y| image::Luma([value(x, y) as u8]))
            .save(program.path(&format!("in/{index}.png")))
            .unwrap();
    }
    let train = "train --data in --patch 8 --patches 600 --atoms 48 --kernel 8 --normalization center --signed \
        --method unrolled --unrolled-iterations 3 --epochs 12 --batch-size 64 --seed 1";
    // It tells of its epochs on stderr.
    let trained = |arguments: &str| -> serde_json::Value {
        let output = program.run(&format!("{train} {arguments} --json"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let told = trained("--task denoise --noise 10-30 --out run");
    let kept = &told["kept"];
    assert!(kept["epoch"].as_u64() > Some(0), "{kept}");
    let told = program
        .json("restore --data noisy.npy --noise 20 --method network --model run --out out.npy --reference clean.npy");
    let found = read_array(&program.path("out.npy")).unwrap().values;
    assert!(error(&found) < 250.0, "{}", error(&found));
    // An array of 0 to 255 is brought to what pictures are learned as.
    let scaled = told["pictures"][0]["scaled"].as_f64().unwrap();
    assert!((scaled - 30.0 / 255.0 / 20.0).abs() < 1e-6, "{told}");
    let picture =
        ImageBuffer::from_fn(48, 40, |x, y| image::Luma([noisy()[(y * 48 + x) as usize].clamp(0.0, 255.0) as u8]));
    picture.save(program.path("noisy.png")).unwrap();
    let told = program.json("restore --data noisy.png --noise 20 --method network --model run --out out.png");
    assert_eq!(told["pictures"][0]["scaled"], 1.0);
    // The same seed gives the same model, and an interrupted reader of flags none.
    trained("--task denoise --noise 10-30 --out again");
    let model = |run: &str| fs::read(program.path(&format!("{run}/model.safetensors"))).unwrap();
    assert_eq!(model("run"), model("again"));
    // Whole windows of overlapping patches, compared once they are averaged.
    let windows = train.replace("--batch-size 64", "");
    let output = program.run(&format!("{windows} --task denoise --noise 20 --window 14 --batch-size 48 --out windows"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program.works("restore --data noisy.npy --noise 20 --method network --model windows --out out.npy");
    let found = read_array(&program.path("out.npy")).unwrap().values;
    assert!(error(&found) < 250.0, "{}", error(&found));
    for (arguments, parts) in [
        ("--window 13 --batch-size 63", ["--window", "8 + a multiple of 2"]),
        ("--window 12", ["--window", "at least 14"]),
        ("--window 9000000000000000000", ["--window", "values"]),
        ("--window 14 --batch-size 63", ["--batch-size", "a multiple of 16"]),
        ("--window 48", ["--window", "size of every picture"]),
    ] {
        let message = program.fails(&format!("{windows} --task denoise --noise 20 {arguments} --out wrong"), 2);
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments}: {message}");
        assert!(!program.path("wrong").exists(), "{arguments}");
    }
    for (arguments, code, parts) in [
        ("--task denoise", 2, ["--noise", "standard deviation"]),
        ("--task denoise --noise 30-10", 2, ["--noise", "5-50"]),
        ("--task denoise --noise 0", 2, ["--noise", "above 0"]),
        ("--task denoise --noise 10 --gradient envelope", 2, ["--gradient", "unrolled"]),
        ("--task reconstruct --noise 10", 2, ["--noise", "--task denoise"]),
        ("--noise 10", 2, ["--task", "not provided"]),
    ] {
        let message = program.fails(&format!("{train} {arguments} --out wrong"), code);
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments}: {message}");
    }
    // Numbers with exponents, and a stray array among pictures, which has no say in their units.
    write_npy(&program.path("in/labels.npy"), &[2], &[0.0, 1.0]).unwrap();
    write_npy(&program.path("in/stray.npy"), &[2, 2], &[0.0; 4]).unwrap();
    let printed = program.run(&format!("{train} --task denoise --noise 5.1e-1 --print-config")).stdout;
    let config: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    let denoises = config["learning"]["unrolled"]["denoises"][0].as_f64().unwrap();
    assert!((denoises - 0.002).abs() < 1e-6, "{config}");
    let message = program.fails("train --data in --task denoise --noise 5 --out wrong", 2);
    assert!(message.contains("--method unrolled"), "{message}");
    trained("--out plain");
    for model in ["plain", "cosines.safetensors"] {
        write_npy(&program.path("w.npy"), &[1, 1, 2, 2], &[1.0, 1.0, -1.0, -1.0]).unwrap();
        program.works("import --filters w.npy --input-shape 1x2x2 --out cosines.safetensors");
        let message =
            program.fails(&format!("restore --data noisy.npy --method network --model {model} --out o.npy"), 1);
        assert!(message.contains("--task denoise"), "{message}");
    }
}

#[test]
fn pictures_keep_their_type_and_depth() {
    let program = Program::new();
    let (clean, noise) = (clean(), noise(3, 3 * 40 * 48));
    let sample = |x: u32, y: u32, channel: usize| {
        let at = (y * 48 + x) as usize;
        clean[at] + 34.64 * (noise[3 * at + channel] - 0.5)
    };
    let grey = ImageBuffer::from_fn(48, 40, |x, y| LumaA([sample(x, y, 0) as u8, (x * 5) as u8]));
    let deep =
        ImageBuffer::from_fn(48, 40, |x, y| Rgb([0, 1, 2].map(|channel| (257.0 * sample(x, y, channel)) as u16)));
    fs::create_dir(program.path("in")).unwrap();
    DynamicImage::ImageLumaA8(grey).save(program.path("in/a.png")).unwrap();
    DynamicImage::ImageRgb16(deep).save(program.path("in/b.tiff")).unwrap();
    fs::write(program.path("in/notes.txt"), "no picture").unwrap();
    // What macOS leaves beside files, and hidden pictures, are none of the folder's.
    fs::write(program.path("in/._a.png"), "\0\u{5}\u{16}\u{7}").unwrap();
    let output = program.run("restore --data in --noise auto --out out --json");
    let skipped = "skipped in in: 1 hidden file (._a.png); 1 file of a kind that is not read (notes.txt)";
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), skipped);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["skipped"], skipped);
    assert_eq!(told["pictures"].as_array().unwrap().len(), 2);
    let sigma = |index: usize| told["pictures"][index]["sigma"].as_f64().unwrap();
    // Ten grey levels of noise, in 8 and in 16 bits; stripes add to what is measured.
    assert!((8.0..20.0).contains(&sigma(0)) && (8.0 * 257.0..20.0 * 257.0).contains(&sigma(1)), "{told}");
    let open = |name: &str| image::open(program.path(name)).unwrap();
    // Told the noise's true strength: stripes as narrow as these look like noise.
    program.works("restore --data in/a.png --noise 10 --out a.png");
    let (before, after) = (open("in/a.png"), open("a.png"));
    assert_eq!(after.color(), before.color());
    let alpha = |image: &DynamicImage| image.to_luma_alpha8().pixels().map(|pixel| pixel.0[1]).collect::<Vec<_>>();
    assert_eq!(alpha(&before), alpha(&after));
    let errors = |image: &DynamicImage| {
        let luma = image.to_luma8();
        luma.pixels().zip(&clean).map(|(pixel, clean)| (f32::from(pixel.0[0]) - clean).powi(2)).sum::<f32>()
    };
    assert!(errors(&after) < 0.7 * errors(&before), "{} {}", errors(&after), errors(&before));
    assert_eq!(open("out/a.png").color(), before.color());
    assert_eq!(open("out/b.tiff").color(), open("in/b.tiff").color());
    assert!(!program.path("out/notes.txt").exists() && !program.path("out/._a.png").exists());
    // One that is damaged is found out before any is restored.
    let whole = fs::read(program.path("in/a.png")).unwrap();
    fs::create_dir(program.path("cut")).unwrap();
    fs::write(program.path("cut/a.png"), &whole).unwrap();
    fs::write(program.path("cut/z.png"), &whole[..whole.len() - 20]).unwrap();
    assert!(program.fails("restore --data cut --noise 10 --out none", 1).contains("z.png"));
    assert!(!program.path("none").exists());
    // A larger picture keeps it, too.
    program.works("restore --data in/a.png --upscale 2 --noise 10 --out larger.png");
    let larger = open("larger.png");
    assert_eq!((larger.color(), larger.width(), larger.height()), (before.color(), 96, 80));
}

/// Maps are written as their names say, and what a file says of its colours stays with it.
#[test]
fn formats_and_profiles_are_kept() {
    use image::ImageEncoder;
    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
    use image::{ExtendedColorType, GrayImage, ImageDecoder, ImageReader, RgbImage};
    let program = Program::new();
    let value = |x: u32, y: u32| (40 + 3 * x + 2 * y) as u8;
    let grey = GrayImage::from_fn(24, 20, |x, y| image::Luma([value(x, y)]));
    let colour = RgbImage::from_fn(24, 20, |x, y| Rgb([value(x, y), value(y, x), 90]));
    let deep = ImageBuffer::from_fn(24, 20, |x, y| image::Luma([257 * u16::from(value(x, y)) + 5]));
    DynamicImage::ImageLuma8(grey).save(program.path("g.png")).unwrap();
    DynamicImage::ImageRgb8(colour.clone()).save(program.path("c.png")).unwrap();
    DynamicImage::ImageLuma16(deep).save(program.path("d.png")).unwrap();
    let deep_colour = ImageBuffer::from_fn(24, 20, |x, y| Rgb([700 * x as u16, 900 * y as u16, 40_000]));
    DynamicImage::ImageRgb16(deep_colour).save(program.path("e.png")).unwrap();
    for (source, out, magic) in [
        ("e", "e.ppm", "P6"),
        ("e", "e.pam", "P7"),
        ("g", "g.pgm", "P5"),
        ("c", "c.ppm", "P6"),
        ("c", "c.pnm", "P6"),
        ("d", "d.pgm", "P5"),
        ("g", "g.pam", "P7"),
        ("g", "g.ppm", "P6"),
        ("d", "d.ppm", "P6"),
    ] {
        program.works(&format!("restore --data {source}.png --noise 0 --out {out}"));
        let bytes = fs::read(program.path(out)).unwrap();
        assert!(bytes.starts_with(magic.as_bytes()), "{out}: {:?}", &bytes[..2]);
        let [before, after] =
            [format!("{source}.png"), out.into()].map(|name| image::open(program.path(&name)).unwrap());
        assert_eq!(before.to_rgb16(), after.to_rgb16(), "{out}");
    }
    let profile = b"a profile".repeat(20);
    let pixels = colour.as_raw();
    for ending in ["png", "jpg", "webp"] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        fn write(mut encoder: impl ImageEncoder, profile: &[u8], pixels: &[u8]) {
            encoder.set_icc_profile(profile.to_vec()).unwrap();
            encoder.write_image(pixels, 24, 20, ExtendedColorType::Rgb8).unwrap();
        }
        match ending {
            "png" => write(PngEncoder::new(&mut bytes), &profile, pixels),
            "jpg" => write(JpegEncoder::new(&mut bytes), &profile, pixels),
            _ => write(WebPEncoder::new_lossless(&mut bytes), &profile, pixels),
        }
        fs::write(program.path(&format!("p.{ending}")), bytes.into_inner()).unwrap();
        program.works(&format!("restore --data p.{ending} --noise 2 --out q.{ending}"));
        let decoder = ImageReader::open(program.path(&format!("q.{ending}"))).unwrap().into_decoder();
        assert_eq!(decoder.unwrap().icc_profile().unwrap(), Some(profile.clone()), "{ending}");
    }
}

/// A blur that is next to none is no reason to smooth more than noise asks for.
#[test]
fn a_slight_blur_costs_little() {
    let program = bench();
    let with = |flags: &str| {
        let told =
            program.json(&format!("restore --data noisy.npy --noise 20 --reference clean.npy --out o.npy{flags}"));
        told["pictures"][0]["psnr"].as_f64().unwrap()
    };
    let (plain, slight) = (with(""), with(" --blur gaussian:0.1"));
    // Measured: 1.2 dB less.
    assert!(slight > plain - 1.5, "{slight} dB, without a blur {plain} dB");
}

#[test]
fn salt_and_pepper_are_found() {
    let program = Program::new();
    let spoilt = |at: usize, value: f32, chance: f32| match chance {
        low if low < 0.1 => 0.0,
        high if high > 0.9 => 255.0,
        _ => {
            if at < 96 {
                255.0
            } else {
                value
            }
        }
    };
    let chances = noise(4, 40 * 48);
    let picture = ImageBuffer::from_fn(48, 40, |x, y| {
        let at = (y * 48 + x) as usize;
        image::Luma([spoilt(at, clean()[at], chances[at]) as u8])
    });
    picture.save(program.path("spoilt.png")).unwrap();
    let told = program.json("restore --data spoilt.png --salt-and-pepper --out out.png");
    let missing = told["pictures"][0]["missing"].as_f64().unwrap() / (40.0 * 48.0);
    // A fifth, and little of the white rows above.
    assert!((0.18..0.24).contains(&missing), "{told}");
    let found = image::open(program.path("out.png")).unwrap().to_luma8();
    let found: Vec<f32> = found.pixels().map(|pixel| f32::from(pixel.0[0])).collect();
    let below = found.iter().zip(clean()).skip(4 * 48).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / (36.0 * 48.0);
    assert!(below < 60.0, "{below}");
}

/// Channels with noise of strengths of their own, pixels that cannot be seen, folders of references.
#[test]
fn noise_is_measured_where_it_is() {
    let program = Program::new();
    let grains = noise(7, 3 * 40 * 48);
    let value =
        |channel: usize, at: usize| clean()[at] + [10.0, 100.0, 10.0][channel] * (grains[3 * at + channel] - 0.5);
    let picture = |value: &dyn Fn(usize, usize) -> f32| {
        ImageBuffer::from_fn(48, 40, |x, y| Rgb([0, 1, 2].map(|channel| value(channel, (y * 48 + x) as usize) as u8)))
    };
    for folder in ["in", "true"] {
        fs::create_dir(program.path(folder)).unwrap();
    }
    picture(&value).save(program.path("in/a.png")).unwrap();
    picture(&|_, at| clean()[at]).save(program.path("true/a.png")).unwrap();
    let told = program.json("restore --data in --out out --noise 2.9,28.9,2.9 --reference true");
    let row = &told["pictures"][0];
    assert_eq!(row["sigmas"].as_array().map(Vec::len), Some(3), "{told}");
    // One strength for all leaves one channel as it is and makes the others smooth.
    let pooled = program.json("restore --data in --out out --noise 16.8 --reference true");
    let psnr = |told: &Value| told["pictures"][0]["psnr"].as_f64().unwrap();
    assert!(psnr(&told) > psnr(&pooled) + 1.0, "{} {}", psnr(&told), psnr(&pooled));
    let measured = program.json("restore --data in/a.png --out a.png");
    let sigmas = measured["pictures"][0]["sigmas"].as_array().unwrap();
    // Narrow stripes look like noise, too.
    assert!(sigmas[1].as_f64() > sigmas[0].as_f64().map(|sigma| 1.5 * sigma), "{measured}");
    let message = program.fails("restore --data in/a.png --noise 1,2 --out a.png", 2);
    assert!(message.contains("--noise") && message.contains("3, as the channels"), "{message}");
    let message = program.fails("restore --data in --noise 1 --reference true --out true", 2);
    assert!(message.contains("--out") && message.contains("--reference"), "{message}");
    let message = program.fails("restore --data in --noise 1 --reference true/a.png --out o", 2);
    assert!(message.contains("--reference") && message.contains("folder"), "{message}");
    let message = program.fails("restore --data in/a.png --noise 1 --reference true --out o.png", 2);
    assert!(message.contains("--reference") && message.contains("a picture"), "{message}");
    fs::copy(program.path("in/a.png"), program.path("in/b.png")).unwrap();
    let message = program.fails("restore --data in --noise 1 --reference true --out nothing", 1);
    assert!(message.contains("b.png") && !program.path("nothing").exists(), "{message}");
    // What is behind transparent pixels has no noise.
    let seen = |hidden: u32| {
        ImageBuffer::from_fn(48, 40, |x, y| match y < hidden {
            true => LumaA([0, 0]),
            false => {
                LumaA([(clean()[(y * 48 + x) as usize] + 69.28 * (grains[(y * 48 + x) as usize] - 0.5)) as u8, 255])
            }
        })
    };
    let mut found = Vec::new();
    for (name, hidden) in [("whole", 0), ("half", 24)] {
        seen(hidden).save(program.path(&format!("{name}.png"))).unwrap();
        let told = program.json(&format!("restore --data {name}.png --out {name}_out.png"));
        found.push(told["pictures"][0]["sigma"].as_f64().unwrap());
    }
    assert!(found[1] > 0.7 * found[0], "{found:?}");
}

#[test]
fn mistakes_take_one_line() {
    let program = bench();
    write_npy(&program.path("small.npy"), &[4, 4], &[1.0; 16]).unwrap();
    write_npy(&program.path("none.npy"), &[40, 48], &[0.0; 40 * 48]).unwrap();
    write_npy(&program.path("five.npy"), &[5, 9, 9], &[1.0; 405]).unwrap();
    write_npy(&program.path("w.npy"), &[4, 3, 5, 5], &noise(5, 300)).unwrap();
    program.works("import --filters w.npy --input-shape 3x5x5 --out colour.safetensors");
    write_npy(&program.path("g.npy"), &[4, 1, 5, 5], &noise(6, 100)).unwrap();
    program.works("import --filters g.npy --input-shape 1x5x5 --out grey.safetensors");
    image::GrayImage::new(4, 4).save(program.path("small.png")).unwrap();
    let whole = fs::read(program.path("small.png")).unwrap();
    fs::write(program.path("cut.png"), &whole[..whole.len() - 20]).unwrap();
    write_npy(&program.path("nan.npy"), &[40, 48], &[f32::NAN; 40 * 48]).unwrap();
    image::GrayAlphaImage::new(4, 4).save(program.path("alpha.png")).unwrap();
    image::RgbImage::new(4, 4).save(program.path("colour.png")).unwrap();
    ImageBuffer::<image::Luma<u16>, _>::new(4, 4).save(program.path("deep.png")).unwrap();
    fs::create_dir(program.path("empty")).unwrap();
    // The same picture with its channels first and last.
    let last = noise(7, 189);
    let first: Vec<f32> = (0..189).map(|at| last[at % 63 * 3 + at / 63]).collect();
    write_npy(&program.path("hwc.npy"), &[9, 7, 3], &last).unwrap();
    write_npy(&program.path("chw.npy"), &[3, 9, 7], &first).unwrap();
    let mask: Vec<f32> = (0..189).map(|at| f32::from(u8::from(at % 3 > 0))).collect();
    write_npy(&program.path("hwc_mask.npy"), &[9, 7, 3], &mask).unwrap();
    fs::write(program.path("some.npz"), b"PK\x03\x04").unwrap();
    let floats = ImageBuffer::<Rgb<f32>, _>::new(4, 4);
    DynamicImage::ImageRgb32F(floats).save(program.path("float.tiff")).unwrap();
    for (arguments, code, parts) in [
        ("--data noisy.npy --mask small.npy --out o.npy", 1, ["--mask", "40x48"]),
        ("--data chw.npy --mask hwc_mask.npy --out o.npy", 1, ["--mask", "channels agree"]),
        ("--data noisy.npy --mask none.npy --out o.npy", 1, ["--mask", "at least one known pixel"]),
        ("--data noisy.npy --noise -1 --out o.npy", 2, ["--noise", "≥ 0"]),
        ("--data noisy.npy --model colour.safetensors --out o.npy", 1, ["channels", "3"]),
        ("--data noisy.npy --out o.png", 2, ["--out", "F.npy"]),
        ("--data small.png --out o.gif", 2, ["--out", "PNG"]),
        ("--data small.png --out o.pbm", 2, ["--out", ".pgm"]),
        ("--data alpha.png --out o.jpg", 2, ["--out", "transparency"]),
        ("--data alpha.png --out o.pgm", 2, ["--out", "transparency"]),
        ("--data alpha.png --out o.bmp", 2, ["--out", "transparency"]),
        ("--data colour.png --out o.pgm", 2, ["--out", ".ppm"]),
        ("--data deep.png --out o.webp", 2, ["--out", "16 bits"]),
        ("--data noisy.npy --mask nan.npy --out o.npy", 1, ["nan.npy", "finite"]),
        ("--data small.png --mask alpha.png --out o.png", 1, ["alpha.png", "transparency"]),
        ("--data small.png --missing 300 --out o.png", 2, ["--missing", "0 to 255"]),
        ("--data small.png --missing nan --out o.png", 2, ["--missing", "0 to 255"]),
        ("--data cut.png --out o.png", 1, ["cut.png", "PNG"]),
        ("--data gone.png --out o.png", 1, ["gone.png", "No such file"]),
        ("--data empty --out out", 1, ["empty", "pictures"]),
        ("--data noisy.npy --out noisy.npy", 2, ["--out", "--data"]),
        ("--data noisy.npy --reference small.npy --out o.npy", 2, ["--reference", "[1, 40, 48]"]),
        ("--data noisy.npy --upscale 2 --reference noisy.npy --out o.npy", 2, ["--reference", "[1, 80, 96]"]),
        ("--data noisy.npy --upscale 5 --out o.npy", 2, ["--upscale", "2..=4"]),
        ("--data small.npy --blur five.npy --out o.npy", 1, ["five.npy", "[height, width]"]),
        ("--data small.npy --blur clean.npy --out o.npy", 1, ["--blur", "no larger than the picture"]),
        ("--data noisy.npy --blur none.npy --out o.npy", 1, ["none.npy", "sum above 0"]),
        ("--data noisy.npy --blur gaussian:x --out o.npy", 2, ["--blur", "gaussian:S"]),
        ("--data noisy.npy --blur gaussian:-1 --out o.npy", 2, ["--blur", "above 0"]),
        ("--data noisy.npy --blur kernel.png --out o.npy", 2, ["--blur", "KERNEL.npy"]),
        ("--data noisy.npy --blur gone.npy --out o.npy", 1, ["gone.npy", "No such file"]),
        ("--data noisy.npy --method network --out o.npy", 2, ["--model", "network"]),
        ("--data noisy.npy --method patches --blur gaussian:1 --out o.npy", 2, ["--blur", "noise alone"]),
        ("--data noisy.npy --method patches --joint-colours --out o.npy", 2, ["--joint-colours", "noise alone"]),
        ("--data noisy.npy --residual o.npy --out o.npy", 2, ["--residual", "another file"]),
        ("--data noisy.npy --residual r.png --out o.npy", 2, ["--residual", "F.npy"]),
        ("--data noisy.npy --missing nan --mask clean.npy --out o.npy", 2, ["--missing", "--mask"]),
        ("--data none.npy --missing 0 --out o.npy", 2, ["--missing", "some pixels"]),
        (
            "--data noisy.npy --method pursuit --model grey.safetensors --missing 0 --out o.npy",
            2,
            ["--missing", "noise alone"],
        ),
        ("--data noisy.npy --method pursuit --model colour.safetensors --out o.npy", 1, ["channels", "3"]),
        ("--data some.npz --out o.npy", 2, ["some.npz", "np.save"]),
        ("--data float.tiff --out o.png", 1, ["float.tiff", "bits"]),
        ("--data noisy.npy --noise 1,x --out o.npy", 2, ["--noise", "one for each channel"]),
    ] {
        let message = program.fails(&format!("restore {arguments}"), code);
        assert!(message.lines().count() <= 2, "{arguments}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments}: {message}");
        assert!(!program.path("o.npy").exists() && !program.path("o.png").exists(), "{arguments}");
    }
    // The kernel is looked at before noise is measured and remarked on.
    let message = program.fails("restore --data small.npy --blur clean.npy --noise 900 --out o.npy", 1);
    assert!(message.starts_with("error: small.npy: --blur") && message.lines().count() == 1, "{message}");
    // Five channels are coded one by one; a picture smaller than a patch is restored, too.
    program.works("restore --data five.npy --noise 1 --out of_five.npy");
    program.works("restore --data small.npy --noise 1 --out of_small.npy");
    assert_eq!(read_array(&program.path("of_small.npy")).unwrap().values.len(), 16);
    for picture in ["hwc", "chw"] {
        program.works(&format!("restore --data {picture}.npy --noise 1 --out of_{picture}.npy"));
    }
    let [last, first] = ["hwc", "chw"].map(|name| read_array(&program.path(&format!("of_{name}.npy"))).unwrap());
    assert_eq!((&last.shape[..], &first.shape[..]), (&[9, 7, 3][..], &[3, 9, 7][..]));
    assert!((0..189).all(|at| first.values[at] == last.values[at % 63 * 3 + at / 63]));
}

/// 8 bits beside 16 mean the same white; a strength in other units is remarked on; what cannot be measured is left out of a folder by name.
#[test]
fn units_and_depths() {
    let program = bench();
    let grey = |values: &[f32]| {
        ImageBuffer::from_fn(48, 40, |x, y| image::Luma([values[(y * 48 + x) as usize].clamp(0.0, 255.0) as u8]))
    };
    let deep = |values: &[f32]| {
        ImageBuffer::from_fn(48, 40, |x, y| {
            image::Luma([(257.0 * values[(y * 48 + x) as usize].clamp(0.0, 255.0).floor()) as u16])
        })
    };
    DynamicImage::ImageLuma8(grey(&clean())).save(program.path("clean8.png")).unwrap();
    DynamicImage::ImageLuma16(deep(&clean())).save(program.path("clean16.png")).unwrap();
    DynamicImage::ImageLuma16(deep(&noisy())).save(program.path("noisy16.png")).unwrap();
    let psnr = |reference: &str| {
        let told = program.json(&format!("restore --data noisy16.png --reference {reference} --out out.png"));
        [told["pictures"][0]["psnr_before"].as_f64().unwrap(), told["pictures"][0]["psnr"].as_f64().unwrap()]
    };
    let (of_eight, of_sixteen) = (psnr("clean8.png"), psnr("clean16.png"));
    assert!(of_eight.iter().zip(of_sixteen).all(|(a, b)| (a - b).abs() < 1e-3), "{of_eight:?} {of_sixteen:?}");
    let output = program.run("restore --data noisy16.png --noise 20 --out out.png --json");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("warning: noisy16.png: --noise says σ 20, and σ ") && errors.lines().count() == 1);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["pictures"][0]["warning"].as_str().unwrap().contains("(white is 65535)"), "{told}");
    fs::create_dir(program.path("folder")).unwrap();
    DynamicImage::ImageLuma8(grey(&noisy())).save(program.path("folder/b.png")).unwrap();
    let row: ImageBuffer<image::Luma<u8>, Vec<u8>> = ImageBuffer::from_fn(48, 1, |x, _| image::Luma([x as u8]));
    DynamicImage::ImageLuma8(row).save(program.path("folder/a.png")).unwrap();
    let output = program.run("restore --data folder --out restored --json");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["skipped"].as_str().unwrap().contains("a.png: --noise auto needs at least 3 rows"), "{told}");
    assert_eq!((program.names("restored"), told["pictures"].as_array().unwrap().len()), (vec!["b.png".into()], 1));
}

/// Arrays are written in the type that they came in, into a folder if one is named.
#[test]
fn arrays_keep_their_type() {
    let program = bench();
    fs::create_dir(program.path("into")).unwrap();
    let noisy: Vec<f32> = noisy().iter().map(|value| value.round().clamp(0.0, 255.0)).collect();
    let bytes: Vec<u8> = noisy.iter().map(|value| *value as u8).collect();
    let write = |descr: &str, body: Vec<u8>| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (40, 48), }}");
        let padded = format!("{header:<117}\n");
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(padded.bytes());
        file.extend(body);
        fs::write(program.path("typed.npy"), file).unwrap();
    };
    let descr = |file: &[u8]| {
        let header = String::from_utf8_lossy(&file[10..128]).into_owned();
        header.split('\'').nth(3).unwrap().to_owned()
    };
    write_npy(&program.path("single.npy"), &[40, 48], &noisy).unwrap();
    program.works("restore --data single.npy --noise 20 --out into");
    let expected = read_array(&program.path("into/single.npy")).unwrap().values;
    for (name, body) in [
        ("|u1", bytes.clone()),
        ("<f8", noisy.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect()),
        (">f4", noisy.iter().flat_map(|value| value.to_be_bytes()).collect()),
        (">i2", bytes.iter().flat_map(|value| i16::from(*value).to_be_bytes()).collect()),
        ("<u4", bytes.iter().flat_map(|value| u32::from(*value).to_le_bytes()).collect()),
        ("<f2", noisy.iter().flat_map(|value| burn::tensor::f16::from_f32(*value).to_le_bytes()).collect()),
    ] {
        write(name, body);
        let told = program.json("restore --data typed.npy --noise 20 --out into");
        assert_eq!(
            (&told["pictures"][0]["out"], &told["pictures"][0]["may_be_texture"]),
            (&json!("into/typed.npy"), &json!(false))
        );
        assert_eq!(descr(&fs::read(program.path("into/typed.npy")).unwrap()), name);
        let found = read_array(&program.path("into/typed.npy")).unwrap().values;
        let rounds = if name.contains('f') { 0.1 } else { 0.5 };
        let [low, high] = if name == "|u1" { [0.0, 255.0] } else { [f32::MIN, f32::MAX] };
        let low = if name == "<u4" { 0.0 } else { low };
        let near = found.iter().zip(&expected).all(|(found, value)| (found - value.clamp(low, high)).abs() <= rounds);
        assert!(near, "{name}");
    }
    // What a type cannot hold is said.
    let edge: Vec<u8> = (0..40 * 48).map(|at| if at % 48 < 24 { 0 } else { 255 }).collect();
    write("|u1", edge);
    let told = program.json("restore --data typed.npy --noise 0 --blur gaussian:1 --out into");
    assert!(told["pictures"][0]["clipped"].as_u64().unwrap() > 0, "{told}");
}

/// A model of vectors has no atoms of several pixels.
#[test]
fn models_of_vectors_are_refused() {
    let program = bench();
    write_npy(&program.path("w.npy"), &[12, 8, 1, 1], &noise(2, 96)).unwrap();
    program.works("import --filters w.npy --input-shape 8x1x1 --out vectors.safetensors");
    for method in ["auto", "patches", "pursuit"] {
        let command = format!("restore --data noisy.npy --model vectors.safetensors --method {method} --out out.npy");
        let output = program.run(&command);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)) && errors.lines().count() == 1, "{method}: {errors}");
        assert!(!program.path("out.npy").exists());
    }
}

/// By the library: what is no picture, and what is no number, is an error.
#[test]
fn pictures_are_checked() {
    use mlcsc::model::preset::Preset;
    use mlcsc::restore::{PatchDictionary, RestoreConfig, by_pursuit, noise, restore};
    let picture = Picture::new(1, 16, 16, vec![1.0; 256]).unwrap();
    let short = Picture { values: vec![1.0; 10], ..picture.clone() };
    let none = Picture { height: 0, width: 0, values: Vec::new(), ..picture.clone() };
    let mut nan = picture.clone();
    nan.values[17] = f32::NAN;
    let device = mlcsc::device::named(None).unwrap();
    let model = Preset::Natural.model().init_random(0, &device).unwrap();
    let (dictionary, config) = (PatchDictionary::photographs(), RestoreConfig { sigma: 5.0, ..Default::default() });
    for wrong in [&short, &none, &nan] {
        assert!(restore(wrong, &Observation::default(), &dictionary, &config, |_| true).is_err());
        assert!(by_pursuit(wrong, &model, 0.1, false, |_| true).is_err());
    }
    assert!(Observation::default().seen(&none).is_err() && Observation::default().seen(&short).is_err());
    for (sigma, named) in [(0.5, "range = "), (5.0, "sigma = ")] {
        let tiny = RestoreConfig { range: 1e-36, sigma, ..Default::default() };
        let message = restore(&picture, &Observation::default(), &dictionary, &tiny, |_| true).unwrap_err().to_string();
        assert!(message.starts_with(named), "{message}");
    }
    for sigma in [-1.0, f32::NAN] {
        let message = by_pursuit(&picture, &model, sigma, false, |_| true).unwrap_err().to_string();
        assert!(message.starts_with("sigma = "), "{message}");
    }
    assert_eq!((noise::estimate(&short, None), noise::estimate(&picture, Some(&[true; 3]))), (None, None));
}
