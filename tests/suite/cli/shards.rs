//! Work shared by several processes: parts, joined, are what one process writes.

use crate::common;

use common::program::{Program, noise};
use image::{GrayImage, Luma};
use mlcsc::export::arrays::write_npy;
use std::fs;

/// A folder with models of two layers on 1x12x12 and 23 signals for them, a λ of each, and pictures of two sizes.
fn bench() -> Program {
    let program = Program::new();
    let centred = |seed, count| noise(seed, count).iter().map(|value| value - 0.5).collect::<Vec<_>>();
    write_npy(&program.path("w1.npy"), &[4, 1, 3, 3], &centred(1, 36)).unwrap();
    write_npy(&program.path("w2.npy"), &[5, 4, 3, 3], &centred(2, 180)).unwrap();
    write_npy(&program.path("signals.npy"), &[23, 12, 12], &noise(3, 23 * 144)).unwrap();
    let lambda: Vec<f32> = (0..23).map(|signal| 0.05 + 0.01 * signal as f32).collect();
    write_npy(&program.path("lambda.npy"), &[23], &lambda).unwrap();
    write_npy(&program.path("shifted.npy"), &[23], &lambda.iter().map(|value| value + 0.1).collect::<Vec<_>>())
        .unwrap();
    for normalization in ["contrast", "high-pass"] {
        program.works(&format!(
            "import --filters w1.npy w2.npy --strides 2,1 --input-shape 1x12x12 --normalization {normalization} --out {normalization}.safetensors"
        ));
    }
    fs::create_dir(program.path("pictures")).unwrap();
    for (seed, (name, height, width)) in
        [("b.png", 14, 12), ("a.png", 20, 16), ("c.pgm", 14, 12), ("d.png", 14, 12)].into_iter().enumerate()
    {
        let values = noise(seed as u64, height * width);
        let pixel = |x: u32, y: u32| Luma([(255.0 * values[y as usize * width + x as usize]) as u8]);
        GrayImage::from_fn(width as u32, height as u32, pixel).save(program.path("pictures").join(name)).unwrap();
    }
    program
}

#[test]
fn parts_of_codes_are_joined_bit_for_bit() {
    let program = bench();
    for (input, parts) in [
        ("--model contrast.safetensors --data signals.npy --batch-size 3 --lambda-file lambda.npy", 4),
        ("--model high-pass.safetensors --data signals.npy --batch-size 5 --limit 12 --lambda-relative 0.1", 2),
        ("--model contrast.safetensors --data signals.npy --pursuit omp --nonzeros 4", 1),
        ("--model high-pass.safetensors --data pictures --batch-size 2 --lambda-relative 0.2", 3),
    ] {
        for ending in ["safetensors", "npz"] {
            program.works(&format!("encode {input} --out whole.{ending}"));
            let mut files = Vec::new();
            for part in 1..=parts {
                let file = format!("part{part}.{ending}");
                let found = program.json(&format!("encode {input} --shard {part}/{parts} --out {file}"));
                assert_eq!(found["shard"]["shard"], serde_json::json!([part, parts]));
                // In any order.
                files.insert(files.len() / 2, file);
            }
            let found = program.json(&format!("merge {} --out merged.{ending}", files.join(" ")));
            assert_eq!(found["parts"], parts);
            let [whole, merged] =
                ["whole", "merged"].map(|name| fs::read(program.path(&format!("{name}.{ending}"))).unwrap());
            assert!(whole == merged, "{input} {ending}: {} and {} bytes", whole.len(), merged.len());
        }
    }
    assert!(program.works("merge part1.npz part2.npz part3.npz --out again.npz").contains("joined 3 parts"));
    // A part is a file of codes as any other.
    program.works("encode --model contrast.safetensors --data signals.npy --batch-size 3 --shard 2/4 --out part.npz");
    program.works("reconstruct --model contrast.safetensors --codes part.npz --out back.npy");
    let back = npyz::NpyFile::new(fs::File::open(program.path("back.npy")).unwrap()).unwrap();
    assert_eq!(back.shape(), [6, 12, 12]);
}

#[test]
fn parts_that_do_not_make_up_a_whole_are_refused() {
    let program = bench();
    let input = "--model contrast.safetensors --data signals.npy --batch-size 4";
    for (said, shard) in [("counted from 1", "0/3"), ("1/3, …, 3/3", "4/3"), ("part I of N", "a"), ("N ≥ 1", "1/0")]
    {
        let error = program.fails(&format!("encode {input} --shard {shard} --out part.npz"), 2);
        assert!(error.contains("--shard") && error.contains(said), "{error}");
    }
    let error = program.fails(&format!("encode {input} --shard 1/7 --out part.npz"), 2);
    assert!(error.contains("--shard = 1/7: expected at most 6 parts"), "{error}");
    let part = |name: &str, shard: &str, flags: &str| {
        program.works(&format!("encode {input} {flags} --shard {shard} --out {name}.safetensors"));
    };
    part("one", "1/2", "");
    part("two", "2/2", "");
    part("of_three", "3/3", "");
    part("other_lambda", "2/2", "--lambda 0.5");
    part("lambda_file", "2/2", "--lambda-file lambda.npy");
    part("shifted", "1/2", "--lambda-file shifted.npy");
    part("fewer", "2/2", "--limit 20");
    program.works(
        "encode --model high-pass.safetensors --data signals.npy --batch-size 4 --shard 2/2 --out model.safetensors",
    );
    write_npy(&program.path("signals.npy"), &[23, 12, 12], &noise(4, 23 * 144)).unwrap();
    part("other_data", "2/2", "");
    program.works(&format!("encode {input} --out whole.safetensors"));
    program.works(&format!("encode {input} --out whole.npz"));
    fs::write(program.path("text.safetensors"), "none").unwrap();
    let bytes = fs::read(program.path("two.safetensors")).unwrap();
    fs::write(program.path("cut.safetensors"), &bytes[..bytes.len() - 40]).unwrap();
    for (parts, said) in [
        ("one", "part 2 of 2 is missing"),
        ("two", "part 1 of 2 is missing"),
        ("one two one", "one.safetensors and one.safetensors are the same"),
        ("one of_three", "number of parts of of_three.safetensors: expected 2"),
        ("one model", "model of model.safetensors"),
        ("one other_data", "signals of other_data.safetensors"),
        ("one fewer", "number of all signals of fewer.safetensors: expected 23"),
        ("one other_lambda", "`pursuit.lambda.absolute` of other_lambda.safetensors"),
        ("shifted lambda_file", "λ of each signal of lambda_file.safetensors"),
        ("one whole", "whole.safetensors: expected a part of a set of codes"),
        ("one text", "text.safetensors: expected codes (safetensors)"),
        ("one cut", "cut.safetensors: expected codes (safetensors)"),
        ("contrast", "contrast.safetensors: expected a part"),
        ("one nowhere", "nowhere.safetensors"),
    ] {
        let files: Vec<String> = parts.split(' ').map(|name| format!("{name}.safetensors")).collect();
        let output = program.run(&format!("merge {} --out merged.safetensors", files.join(" ")));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)) && error.lines().count() == 1, "{error}");
        assert!(error.contains(said), "{parts}: {error}");
        assert!(!program.path("merged.safetensors").exists());
    }
    assert!(program.fails("merge whole.npz --out merged.npz", 1).contains("expected a part"));
    assert!(program.fails("merge one.safetensors two.safetensors --out merged.npz", 2).contains("format"));
    assert!(
        program.fails("merge one.safetensors two.safetensors --out one.safetensors", 2).contains("a place other than")
    );
    assert!(program.fails("merge one.safetensors --out merged.txt", 2).contains("--out"));
}

/// Diagnoses of a dictionary and of a second one, on signals in parts: the numbers of one process to the last bit.
#[test]
fn parts_of_a_diagnosis_are_joined_bit_for_bit() {
    let program = bench();
    let input = "--model contrast.safetensors high-pass.safetensors --data signals.npy --batch-size 2";
    let whole = program.json(&format!("diagnose {input}"));
    for parts in [1, 3, 5] {
        let mut files = Vec::new();
        for part in (1..=parts).rev() {
            let found = program.json(&format!("diagnose {input} --shard {part}/{parts}"));
            assert_eq!(found["shard"]["shard"], serde_json::json!([part, parts]));
            let file = format!("part{part}.json");
            fs::write(program.path(&file), found.to_string()).unwrap();
            files.push(file);
        }
        let files = files.join(" ");
        let merged = program.json(&format!("merge {files} --out merged.json"));
        assert_eq!(merged, whole, "{parts}");
        assert_eq!(merged.to_string(), whole.to_string());
        let written: serde_json::Value =
            serde_json::from_slice(&fs::read(program.path("merged.json")).unwrap()).unwrap();
        assert_eq!(written, whole);
        let [text, expected] = [format!("merge {files}"), format!("diagnose {input}")].map(|line| program.works(&line));
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), expected.lines().skip(1).collect::<Vec<_>>());
    }
    // A folder holds the same as --json prints, and no page.
    let text = program.works(&format!("diagnose {input} --shard 2/5 --out folder"));
    assert!(text.contains("part 2/5: signals 4 to 7 of 23"), "{text}");
    assert_eq!(program.names("folder"), ["diagnose.json"]);
    let [one, other] = ["folder/diagnose.json", "part2.json"].map(|name| fs::read(program.path(name)).unwrap());
    let [one, other]: [serde_json::Value; 2] = [one, other].map(|bytes| serde_json::from_slice(&bytes).unwrap());
    assert_eq!(one, other);

    assert!(program.fails(&format!("diagnose {input} --shard 2/5"), 2).contains("--json or --out"));
    assert!(program.fails(&format!("diagnose {input} --shard 2/13 --json"), 2).contains("at most 12 parts"));
    assert!(program.fails("merge part1.json part2.json part4.json part5.json", 2).contains("part 3 of 5 is missing"));
    assert!(program.fails("merge part1.json part1.json", 2).contains("every part once"));
    assert!(program.fails("merge part1.json --out merged.npz", 2).contains(".json"));
    assert!(program.fails("merge merged.json", 1).contains("expected a part"));
    let other = program.json(&format!("diagnose {} --shard 2/5", input.replace("--batch-size 2", "--batch-size 3")));
    fs::write(program.path("part2.json"), other.to_string()).unwrap();
    let error = program.fails("merge part1.json part2.json part3.json part4.json part5.json", 1);
    assert!(error.contains("`batch_size` of part2.json: expected 2, as part1.json, found 3"), "{error}");
    let broken = other.to_string().replace("\"level\":0", "\"level\":70");
    fs::write(program.path("part2.json"), broken.replace("\"batch_size\":3", "\"batch_size\":2")).unwrap();
    program.fails("merge part1.json part2.json part3.json part4.json part5.json", 1);
}
