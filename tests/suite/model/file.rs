//! Model files: what is written comes back, and nothing that is read is trusted.

use crate::common;

use common::{Case, host, on_every_device};
use mlcsc::Error;
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::Mlcsc;
use mlcsc::model::file::CodingDefaults;
use mlcsc::model::normalization::Normalization;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const CODING: CodingDefaults = CodingDefaults { lambda: Some(0.1), nonnegative: true, nonzeros: None };

/// Name, shape, values.
type NamedTensor = (String, Vec<usize>, Vec<f32>);

fn case() -> Case {
    let layers = vec![
        LayerShape::new(4, Pair([3, 2]), Pair([2, 1])).with_padding(Pair([1, 0])),
        LayerShape::new(5, Pair([2, 3]), 1),
    ];
    let mut case = Case::random(SignalShape::new(2, 9, 8), layers, 1);
    case.config.normalization = Normalization::Contrast;
    // Values that a text format would lose.
    case.filters[0][0] = f32::MIN_POSITIVE / 2.0;
    case.filters[0][1] = -0.0;
    case
}

fn model() -> Mlcsc {
    case().model(&common::devices()[0].device)
}

fn load(path: &Path) -> mlcsc::Result<(Mlcsc, CodingDefaults)> {
    Mlcsc::load(path, &common::devices()[0].device)
}

fn bits(model: &Mlcsc) -> Vec<Vec<u32>> {
    model.filters().into_iter().map(|filters| host(filters).into_iter().map(f32::to_bits).collect()).collect()
}

/// Asserts that these bytes are refused in one line that names the file and says `word`.
fn assert_refused(bytes: &[u8], word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    fs::write(&path, bytes).unwrap();
    let message = load(&path).err().unwrap_or_else(|| panic!("accepted where {word:?} was expected")).to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains(word) && !message.contains('\n'), "expected {word:?}: {message}");
}

/// A valid file's metadata of ours and its tensors.
fn parts() -> (Value, Vec<NamedTensor>) {
    let bytes = model().to_bytes(CODING).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = serde_json::from_str(&header.metadata().as_ref().unwrap()["mlcsc"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.iter().map(|(name, view)| {
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (name.to_string(), view.shape().to_vec(), values)
    });
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    (metadata, tensors)
}

/// A safetensors file by the plain crate.
fn assemble(metadata: Option<&str>, tensors: &[NamedTensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let metadata = metadata.map(|text| HashMap::from([("mlcsc".to_string(), text.to_string())]));
    serialize(views, metadata).unwrap()
}

#[test]
fn what_is_saved_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    on_every_device(|device| {
        let path = folder.path().join("models/first.safetensors");
        let model = case().model(&device.device);
        for coding in [CODING, CodingDefaults::default()] {
            model.save(&path, coding).unwrap();
            let (loaded, loaded_coding) = Mlcsc::load(&path, &device.device).unwrap();
            assert_eq!(bits(&loaded), bits(&model));
            assert_eq!((loaded.config(), loaded_coding), (model.config(), coding));
            for (loaded, saved) in loaded.layers.iter().zip(&model.layers) {
                assert_eq!((loaded.stride(), loaded.padding()), (saved.stride(), saved.padding()));
            }
        }
    });
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let bytes = model().to_bytes(CODING).unwrap();
    for _ in 0..4 {
        assert!(model().to_bytes(CODING).unwrap() == bytes);
    }
    // And after a round trip.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model().save(&path, CODING).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    assert!(load(&path).unwrap().0.to_bytes(CODING).unwrap() == bytes);
}

#[test]
fn plain_safetensors_opens_it() {
    let (metadata, tensors) = parts();
    assert_eq!(metadata["format_version"], 1);
    assert_eq!(metadata["model"]["signal"], json!({"channels": 2, "height": 9, "width": 8}));
    let names: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.as_str(), shape.clone())).collect();
    assert_eq!(names, [("layers.0.filters", vec![4, 2, 3, 2]), ("layers.1.filters", vec![5, 4, 2, 3])]);
    // A file that the plain crate wrote is as good.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, assemble(Some(&metadata.to_string()), &tensors)).unwrap();
    assert_eq!(bits(&load(&path).unwrap().0), bits(&model()));
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let valid = model().to_bytes(CODING).unwrap();
    assert_refused(b"", "header");
    assert_refused(b"This is a text file, not a model.\n", "header");
    assert_refused(&[0; 64], "header");
    for length in [u64::MAX, 1 << 30, valid.len() as u64, u64::from(u32::MAX)] {
        let mut bytes = valid.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert_refused(&bytes, "header");
    }
    for length in [1, 7, 8, 9, 100, valid.len() / 2, valid.len() - 1] {
        assert_refused(&valid[..length], "expected an mlcsc model");
    }
    assert_refused(&[valid.as_slice(), &[0; 4]].concat(), "expected an mlcsc model");
}

#[test]
fn files_that_do_not_fit_themselves_are_refused() {
    let (metadata, tensors) = parts();
    assert_refused(&assemble(None, &tensors), "without mlcsc's metadata");
    assert_refused(&assemble(Some("no json"), &tensors), "metadata");
    assert_refused(&assemble(Some("{}"), &tensors), "format_version");
    let with = |pointer: &str, value: Value| {
        let mut changed = metadata.clone();
        match changed.pointer_mut(pointer) {
            Some(field) => *field = value,
            None => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                changed.pointer_mut(parent).unwrap()[key] = value;
            }
        }
        assemble(Some(&changed.to_string()), &tensors)
    };
    assert_refused(&with("/format_version", json!(2)), "version 2");
    assert_refused(&with("/surprise", json!(1)), "surprise");
    assert_refused(&with("/model/surprise", json!(1)), "surprise");
    assert_refused(&with("/model/layers", json!([])), "layer");
    assert_refused(&with("/model/signal/height", json!(1)), "kernel of layer 2");
    assert_refused(&with("/model/signal/height", json!(0)), "signal");
    assert_refused(&with("/model/signal/height", json!(-1)), "metadata");
    // Numbers whose products overflow.
    let (huge, half) = (usize::MAX, usize::MAX / 2);
    for (pointer, values) in [
        ("/model/signal", json!({"channels": 2, "height": half + 2, "width": 8})),
        ("/model/signal", json!({"channels": huge, "height": huge, "width": huge})),
    ] {
        assert_refused(&with(pointer, values), "signal");
    }
    let layer = |atoms: usize, kernel: usize, stride: usize, padding: usize| json!({"atoms": atoms, "kernel": kernel, "stride": stride, "padding": padding});
    for first in [layer(4, huge, 1, half), layer(4, huge, 1, huge - 1), layer(huge, 3, 1, 0), layer(4, 3, 1, 3)] {
        assert_refused(&with("/model/layers/0", first), "expected");
    }
    // Strides that are harmless alone, since the code has a single position.
    let column = json!([{"atoms": 1, "kernel": 1, "stride": half}, {"atoms": 1, "kernel": 1, "stride": half}]);
    assert_refused(&with("/model/layers", column), "stride");

    let tensors_with = |change: &dyn Fn(&mut Vec<NamedTensor>)| {
        let mut changed = tensors.clone();
        change(&mut changed);
        assemble(Some(&metadata.to_string()), &changed)
    };
    assert_refused(&tensors_with(&|tensors| tensors.truncate(1)), "layers.1.filters");
    assert_refused(&tensors_with(&|tensors| tensors[0].1 = vec![4, 2, 2, 3]), "[4, 2, 2, 3]");
    assert_refused(&tensors_with(&|tensors| tensors[0].1 = vec![48]), "[48]");
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_refused(&tensors_with(&|tensors| tensors[1].2[7] = value), "layer 2");
    }
    let halves = vec![0; tensors[0].2.len() * 2];
    let view = TensorView::new(Dtype::F16, tensors[0].1.clone(), &halves).unwrap();
    let text = HashMap::from([("mlcsc".to_string(), metadata.to_string())]);
    assert_refused(&serialize([(tensors[0].0.clone(), view)], Some(text)).unwrap(), "F16");
}

/// Any byte of the header may be wrong: that is an error or another valid model, never a panic.
#[test]
fn flipped_header_bytes_never_panic() {
    let valid = model().to_bytes(CODING).unwrap();
    let header = 8 + u64::from_le_bytes(valid[..8].try_into().unwrap()) as usize;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.safetensors");
    for index in 0..header {
        let mut bytes = valid.clone();
        bytes[index] ^= 1 << (index % 8);
        fs::write(&path, &bytes).unwrap();
        if let Err(error) = load(&path) {
            let message = error.to_string();
            assert!(message.contains("flipped.safetensors") && !message.contains('\n'), "{message:?}");
        }
    }
}

#[test]
fn missing_files_and_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.safetensors");
    assert!(matches!(load(&missing).unwrap_err(), Error::Io { action: "read", path, .. } if path == missing));
    let message = load(folder.path()).unwrap_err().to_string();
    assert!(message.contains("folder") && message.contains(&folder.path().display().to_string()), "{message}");
}

/// Names of everything in a folder.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_save_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be.
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    let message = model().save(&file.join("model.safetensors"), CODING).unwrap_err().to_string();
    assert!(message.contains(&file.display().to_string()) && !message.contains('\n'), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    // A folder where the file should be.
    let target = folder.path().join("folder");
    fs::create_dir_all(target.join("inner")).unwrap();
    let message = model().save(&target, CODING).unwrap_err().to_string();
    assert!(message.contains(&target.display().to_string()) && !message.contains('\n'), "{message}");
    assert_eq!(listing(folder.path()), ["file", "folder"]);
}

/// Names the file that [`saves_where_a_parent_says`] writes.
const SAVE_TO: &str = "MLCSC_TEST_SAVE_TO";

/// Not a test by itself: what [`a_full_disk_leaves_the_previous_model`] runs in another process.
#[test]
fn saves_where_a_parent_says() {
    let Some(path) = std::env::var_os(SAVE_TO) else { return };
    // 256 KiB of filters.
    let large = Case::random(SignalShape::new(1, 16, 16), vec![LayerShape::new(256, 16, 1)], 2);
    let error = large.model(&common::devices()[0].device).save(Path::new(&path), CODING).unwrap_err();
    println!("refused: {error}");
}

/// A limit on the size of files stands for the full disk: the write fails half way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_previous_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model().save(&path, CODING).unwrap();
    let before = fs::read(&path).unwrap();
    // 32 blocks are 16 or 32 KiB. With the signal ignored the write returns an error; without, the process is killed.
    for (prologue, survives) in [("trap '' XFSZ; ", true), ("", false)] {
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "{prologue}ulimit -c 0; ulimit -f 32; exec \"$0\" --exact model::file::saves_where_a_parent_says --nocapture"
            ))
            .arg(std::env::current_exe().unwrap())
            .env(SAVE_TO, &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), survives, "{said}");
        assert!(fs::read(&path).unwrap() == before, "{said}");
        if survives {
            assert!(said.contains("refused: cannot write") && said.contains("model.safetensors"), "{said}");
            assert_eq!(listing(folder.path()), ["model.safetensors"]);
        }
    }
    assert_eq!(bits(&load(&path).unwrap().0), bits(&model()));
}

/// Nothing is written that could not be read: neither filters nor numbers for coding that are no numbers.
#[test]
fn what_is_no_number_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for coding in [
        CodingDefaults { lambda: Some(f32::NAN), ..CODING },
        CodingDefaults { lambda: Some(-1.0), ..CODING },
        CodingDefaults { nonzeros: Some(0), ..CODING },
    ] {
        assert!(model().save(&path, coding).is_err() && !path.exists(), "{coding:?}");
    }
    let case = case();
    let mut filters = model().filters();
    filters[1] = filters[1].clone() * f32::NAN;
    let message = Mlcsc::from_filters(case.config, filters).unwrap_err().to_string();
    assert!(message.contains("filters of layer 2: expected finite values"), "{message}");
}
