//! Codes and reconstructions are those of the software that the files come from: of the small files in `tests/reference/saelens`, which
//! `benches/peers/saelens_round_trip.py` makes, and of trained ones where they are at hand.

use crate::common::on_every_device;
use burn::tensor::{Device, Tensor, TensorData};
use mlcsc::autoencoder::Autoencoder;
use mlcsc::foreign::{self, ForeignAutoencoder};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Every small file's folder.
const NAMES: [&str; 17] = [
    "abstopk",
    "batchtopk",
    "gated",
    "gemma_scope",
    "jumprelu",
    "matching_pursuit",
    "matching_pursuit_repeating",
    "sparsify_groupmax",
    "sparsify_topk",
    "standard",
    "standard_bfloat16",
    "standard_layer_norm",
    "standard_scaled",
    "standard_uncentred",
    "topk",
    "topk_by_norm",
    "topk_constant_norm",
];

/// Of those that hold the trained ones.
const TRAINED: [&str; 4] = ["jumprelu", "matching_pursuit", "standard", "topk"];

/// Rounding of sums in single precision in another order, as a part of the largest value. Measured: 7e-7 on the small files.
const ROUNDING: f32 = 1e-5;

pub fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/saelens").join(name)
}

/// Signals, codes and reconstructions.
fn reference(folder: &Path, device: &Device) -> [Tensor<2>; 3] {
    let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    ["x", "codes", "decoded"].map(|name| {
        let tensor = tensors.tensor(name).unwrap();
        let values: Vec<f32> =
            tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Tensor::from_data(TensorData::new(values, tensor.shape().to_vec()), device)
    })
}

fn largest(values: Tensor<2>) -> f32 {
    values.abs().max().into_scalar::<f32>()
}

/// Largest differences of codes and reconstructions, as parts of the largest code and the largest value.
fn differences(found: &ForeignAutoencoder, [signals, codes, decoded]: [Tensor<2>; 3]) -> [f32; 2] {
    let [count, inputs] = signals.dims();
    let coded = found.reconstruct(signals.reshape([count, inputs, 1, 1])).unwrap();
    assert_eq!(coded.codes.dims(), [count, codes.dims()[1], 1, 1]);
    let encoded = coded.codes.flatten::<2>(1, 3);
    let nonzeros = |codes: Tensor<2>| codes.not_equal_scalar(0.0).int().sum().into_scalar::<i64>();
    assert_eq!(nonzeros(encoded.clone()), nonzeros(codes.clone()));
    let reconstruction = coded.reconstruction.flatten::<2>(1, 3);
    [(encoded, codes), (reconstruction, decoded)]
        .map(|(found, expected)| largest(found - expected.clone()) / largest(expected))
}

#[test]
fn codes_are_those_of_their_own_software() {
    on_every_device(|on| {
        let device = &on.device;
        for name in NAMES {
            let folder = small(name);
            let found = foreign::read(&folder, device).unwrap();
            let reference = reference(&folder, device);
            // Something is coded, and something is not.
            let part = reference[1].clone().not_equal_scalar(0.0).float().mean().into_scalar::<f32>();
            assert!((0.05..0.95).contains(&part), "{name}: {part}");
            let [codes, decoded] = differences(&found, reference.clone());
            assert!(codes < ROUNDING && decoded < ROUNDING, "{name}: {codes:e} {decoded:e}");
            // As a file of ours it is the same to the last bit.
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("m.safetensors");
            found.save(&path).unwrap();
            assert!(foreign::is_foreign(&path).unwrap());
            let again = ForeignAutoencoder::load(&path, device).unwrap();
            assert_eq!(again.config(), found.config());
            assert_eq!(differences(&again, reference), [codes, decoded], "{name}");
        }
    });
}

/// A batch is coded as its signals are one by one, and a signal of zeros is no trouble.
#[test]
fn signals_are_coded_alone_as_in_a_batch() {
    let device = mlcsc::device::named(None).unwrap();
    for name in NAMES {
        let found = foreign::read(&small(name), &device).unwrap();
        let [signals, ..] = reference(&small(name), &device);
        let signals = Tensor::cat(vec![signals.zeros_like().narrow(0, 0, 1), signals], 0);
        let shaped = |signals: Tensor<2>| {
            let [count, inputs] = signals.dims();
            found.reconstruct(signals.reshape([count, inputs, 1, 1])).unwrap()
        };
        let whole = shaped(signals.clone());
        assert!(largest(whole.reconstruction.clone().flatten(1, 3)).is_finite(), "{name}");
        for row in [0, 5] {
            let one = shaped(signals.clone().narrow(0, row, 1));
            let difference = largest((one.codes - whole.codes.clone().narrow(0, row, 1)).flatten(1, 3));
            assert!(difference < 1e-5, "{name}: {difference:e}");
        }
    }
}

#[test]
fn trained_ones_are_coded_as_by_their_own_software() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/saelens");
    let device = mlcsc::device::named(None).unwrap();
    for name in TRAINED {
        let folder = shared.join(name);
        if !folder.is_dir() {
            println!("skipped: {} is not there", folder.display());
            continue;
        }
        let found = foreign::read(&folder, &device).unwrap();
        let [codes, decoded] = differences(&found, reference(&folder, &device));
        println!("{name}: codes {codes:e}, reconstructions {decoded:e}");
        assert!(codes < ROUNDING && decoded < ROUNDING, "{name}: {codes:e} {decoded:e}");
    }
}
