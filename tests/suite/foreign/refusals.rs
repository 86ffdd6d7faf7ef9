//! What cannot be read as it was meant is refused in one line that names file, field and what was expected.

use super::references::small;
use mlcsc::foreign;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A copy of a small file's folder.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(small(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn fails(folder: &Path) -> String {
    let device = mlcsc::device::named(None).unwrap();
    let error = foreign::read(folder, &device).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// Changes the settings of a folder.
fn set(folder: &Path, changes: &Value) {
    let path = folder.join("cfg.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::String(text) if text == "REMOVED" => drop(settings.as_object_mut().unwrap().remove(name)),
            value => settings[name] = value.clone(),
        }
    }
    fs::write(path, settings.to_string()).unwrap();
}

type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Changes the tensors of a folder.
fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Tensors)) {
    let path = folder.join(file);
    let bytes = fs::read(&path).unwrap();
    let found = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = found
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()))
        .collect();
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

#[test]
fn settings_are_obeyed_or_refused() {
    for (name, changes, expected) in [
        (
            "topk",
            json!({"architecture": "transcoder"}),
            "cfg.json: `architecture` = \"transcoder\": expected standard, topk",
        ),
        ("topk", json!({"architecture": 3}), "`architecture` = 3: expected a name"),
        ("topk", json!({"k": 0}), "`k` = 0: expected a number from 1 to 24"),
        ("topk", json!({"k": 25}), "`k` = 25: expected a number from 1 to 24"),
        ("topk", json!({"k": 2.5}), "`k` = 2.5: expected a whole number"),
        ("topk", json!({"k": "REMOVED"}), "`k` is missing: expected a number from 1 to 24"),
        ("topk", json!({"d_in": "REMOVED"}), "`d_in` is missing"),
        ("topk", json!({"d_in": 0}), "`inputs` = 0: expected at least 1"),
        ("topk", json!({"d_sae": 1u64 << 60}), "`units` = 1152921504606846976: expected at most"),
        ("topk", json!({"d_sae": 23}), "tensor W_dec: expected shape [23, 16], found shape [24, 16]"),
        ("topk", json!({"dtype": "int8"}), "`dtype` = \"int8\": expected float32"),
        ("topk", json!({"apply_b_dec_to_input": "yes"}), "`apply_b_dec_to_input` = \"yes\": expected true or false"),
        (
            "topk",
            json!({"normalize_activations": "covariance_whitening"}),
            "`normalize_activations` = \"covariance_whitening\"",
        ),
        ("topk", json!({"normalize_activations": "expected_average_only_in"}), "in activation_scaler.json beside it"),
        ("topk", json!({"reshape_activations": "fold"}), "`reshape_activations` = \"fold\""),
        ("topk", json!({"activation_fn": "tanh-relu"}), "`activation_fn` = \"tanh-relu\": expected relu or topk"),
        (
            "topk",
            json!({"post_scale": 2.0}),
            "`post_scale` = 2.0: expected no setting of that name, which may change the codes",
        ),
        (
            "topk",
            json!({"activation_fn_kwargs": {"k": 4, "postact_fn": "abs"}}),
            "`activation_fn_kwargs.postact_fn` = \"abs\": expected k alone",
        ),
        (
            "standard",
            json!({"rescale_acts_by_decoder_norm": true}),
            "`rescale_acts_by_decoder_norm` = true: expected false",
        ),
        ("matching_pursuit", json!({"max_iterations": 0}), "`max_iterations` = 0: expected at least 1"),
        ("matching_pursuit", json!({"residual_threshold": "low"}), "`residual_threshold` = \"low\": expected a number"),
        (
            "sparsify_topk",
            json!({"transcode": true}),
            "`transcode` = true: expected false: a transcoder is no auto-encoder",
        ),
        ("sparsify_topk", json!({"skip_connection": true}), "`skip_connection` = true"),
        ("sparsify_topk", json!({"signed": true}), "`signed` = true: expected false"),
        ("sparsify_topk", json!({"activation": "relu"}), "`activation` = \"relu\": expected topk or groupmax"),
        ("sparsify_groupmax", json!({"k": 7}), "`k` = 7: expected a divisor of 24"),
    ] {
        let folder = copy(name);
        set(folder.path(), &changes);
        let error = fails(folder.path());
        assert!(
            error.contains(expected) && error.contains("cfg.json") | error.contains("tensor"),
            "{changes}: {error}"
        );
    }
    // What says nothing of the codes is passed over.
    let folder = copy("topk");
    set(
        folder.path(),
        &json!({"metadata": {"anything": [1]}, "device": "cuda:7", "lr": 3e-4, "hook_name": "blocks.3.hook_z"}),
    );
    let found = foreign::read(folder.path(), &mlcsc::device::named(None).unwrap()).unwrap();
    assert_eq!(found.config().hook.as_deref(), Some("blocks.3.hook_z"));
}

#[test]
fn files_are_whole_and_complete() {
    let folder = copy("topk");
    let (settings, weights) = (folder.path().join("cfg.json"), folder.path().join("sae_weights.safetensors"));
    let (whole, tensors) = (fs::read(&settings).unwrap(), fs::read(&weights).unwrap());
    for (text, expected) in [
        (&whole[..40], "cfg.json: expected JSON settings"),
        (&b""[..], "cfg.json: expected JSON settings, found nothing"),
        (&b"[1, 2]"[..], "cfg.json: expected a JSON object of settings, found [1,2]"),
        (&b"{\"k\": NaN}"[..], "cfg.json: expected JSON settings"),
    ] {
        fs::write(&settings, text).unwrap();
        assert!(fails(folder.path()).contains(expected), "{}", fails(folder.path()));
    }
    fs::write(&settings, &whole).unwrap();
    for length in [0, 7, 100, tensors.len() - 1] {
        fs::write(&weights, &tensors[..length]).unwrap();
        let error = fails(folder.path());
        assert!(error.contains("sae_weights.safetensors: expected a safetensors file"), "{length}: {error}");
    }
    fs::remove_file(&weights).unwrap();
    assert!(fails(folder.path()).contains("expected a sparse auto-encoder, found none of sae_weights.safetensors"));
    assert!(fails(&folder.path().join("nowhere")).contains("cannot read"));
    // Several in one folder, as sparsify writes the places of one network.
    let several = tempfile::tempdir().unwrap();
    for hook in ["layers.0", "layers.1"] {
        fs::create_dir(several.path().join(hook)).unwrap();
        fs::copy(small("sparsify_topk").join("sae.safetensors"), several.path().join(hook).join("sae.safetensors"))
            .unwrap();
    }
    assert!(fails(several.path()).contains("name one of layers.0, layers.1"), "{}", fails(several.path()));
}

#[test]
fn tensors_are_what_they_should_be() {
    let weights = "sae_weights.safetensors";
    let refused = |name: &str, file: &str, change: &dyn Fn(&mut Tensors)| {
        let folder = copy(name);
        edit(folder.path(), file, change);
        fails(folder.path())
    };
    let error = refused("topk", weights, &|tensors| drop(tensors.remove("b_enc")));
    assert!(
        error.contains("tensor b_enc is missing: expected one of shape [24], found only W_dec, W_enc, b_dec"),
        "{error}"
    );
    let error = refused("topk", weights, &|tensors| {
        tensors.insert("W_skip".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    assert!(error.contains("tensor W_skip: expected W_dec, W_enc, b_dec, b_enc alone with these settings"), "{error}");
    // Sixteen bits of another rank.
    let error = refused("standard_bfloat16", weights, &|tensors| {
        tensors.get_mut("b_dec").unwrap().1 = vec![4, 4];
    });
    assert!(error.contains("tensor b_dec: expected shape [16], found shape [4, 4]"), "{error}");
    let error = refused("topk", weights, &|tensors| {
        let tensor = tensors.get_mut("b_enc").unwrap();
        (tensor.0, tensor.2) = (Dtype::I32, vec![0; 24 * 4]);
    });
    assert!(error.contains("tensor b_enc: expected values of type F16, BF16, F32 or F64, found I32"), "{error}");
    for value in [f32::NAN, f32::INFINITY] {
        let error = refused("topk", weights, &|tensors| {
            tensors.get_mut("W_enc").unwrap().2[4 * 24..][..4].copy_from_slice(&value.to_le_bytes());
        });
        let expected = format!("tensor W_enc: expected finite values, found {value} at [1, 0]");
        assert!(error.contains(&expected), "{error}");
    }
    // A factor on units that no current version reads; ones are what it drops.
    for (factor, works) in [(1.0f32, true), (1.5, false)] {
        let folder = copy("standard");
        edit(folder.path(), weights, |tensors| {
            let factors: Vec<u8> = [factor; 24].iter().flat_map(|factor| factor.to_le_bytes()).collect();
            tensors.insert("scaling_factor".into(), (Dtype::F32, vec![24], factors));
        });
        match works {
            true => drop(foreign::read(folder.path(), &mlcsc::device::named(None).unwrap()).unwrap()),
            false => assert!(fails(folder.path()).contains("tensor scaling_factor: expected ones, found 1.5")),
        }
    }
}

#[test]
fn archives_are_whole_and_complete() {
    let folder = copy("gemma_scope");
    let path = folder.path().join("params.npz");
    let whole = fs::read(&path).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 30] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = fails(folder.path());
        assert!(error.contains("params.npz: expected a NumPy archive (.npz), found"), "{length}: {error}");
    }
}
