"""Sparse auto-encoders of others and ours, each read by the other side.

    python3 benches/peers/saelens_round_trip.py fixtures tests/reference/saelens
    python3 benches/peers/saelens_round_trip.py trip --program target/release/mlcsc

`fixtures` writes small auto-encoders as SAELens, sparsify and Gemma Scope save them, each with signals, codes and reconstructions
as its own classes compute them (`reference.safetensors`): what the Rust tests compare with. Weights and signals are drawn here.

`trip` trains models with the program, exports them, loads each folder in SAELens and compares codes and reconstructions with
the program's own.

Needs `pip install sae-lens==6.54.12 eai-sparsify`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

INPUTS, UNITS, SIGNALS = 16, 24, 12


def drawn(seed):
    """Non-negative codes over unit atoms of random directions, around a mean that is not zero."""
    generator = np.random.default_rng(seed)
    atoms = generator.standard_normal((UNITS, INPUTS))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = generator.exponential(1.0, (SIGNALS, UNITS)) * (generator.random((SIGNALS, UNITS)) < 0.2)
    mean = generator.standard_normal(INPUTS)
    signals = codes @ atoms + mean + 0.02 * generator.standard_normal((SIGNALS, INPUTS))
    return generator, atoms, mean, signals.astype(np.float32)


def fill(sae, seed, unit=False):
    """Weights that make sense for the signals, without being symmetric."""
    generator, atoms, mean, signals = drawn(seed)
    norms = np.ones(UNITS) if unit else generator.uniform(0.5, 2.0, UNITS)
    values = {
        "W_dec": atoms * norms[:, None],
        "W_enc": (atoms / norms[:, None]).T + 0.05 * generator.standard_normal((INPUTS, UNITS)),
        "b_dec": mean + 0.1 * generator.standard_normal(INPUTS),
        "b_enc": -0.1 * generator.random(UNITS),
        "threshold": generator.uniform(0.1, 0.6, UNITS),
        "b_gate": 0.2 * generator.standard_normal(UNITS),
        "b_mag": 0.1 * generator.standard_normal(UNITS),
        "r_mag": 0.3 * generator.standard_normal(UNITS),
        "topk_threshold": np.array(0.43),
    }
    state = sae.state_dict()
    for name, value in state.items():
        value.copy_(torch.tensor(values[name]).to(value.dtype))
    return signals


def write_reference(folder, signals, codes, decoded):
    arrays = {"x": signals, "codes": codes, "decoded": decoded}
    arrays = {name: np.ascontiguousarray(np.asarray(value, dtype=np.float32)) for name, value in arrays.items()}
    assert all(np.isfinite(value).all() for value in arrays.values()), folder
    save_file(arrays, folder / "reference.safetensors")


@torch.no_grad()
def fixtures(out):
    from sae_lens import SAE
    from sae_lens.saes import (
        AbsTopKSAE, AbsTopKSAEConfig, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, GatedSAE, GatedSAEConfig,
        JumpReLUSAE, JumpReLUSAEConfig, MatchingPursuitSAE, MatchingPursuitSAEConfig, StandardSAE, StandardSAEConfig,
        TopKSAE, TopKSAEConfig,
    )

    size = {"d_in": INPUTS, "d_sae": UNITS}
    named = {
        "standard": (StandardSAE, StandardSAEConfig(**size)),
        "standard_uncentred": (StandardSAE, StandardSAEConfig(**size, apply_b_dec_to_input=False)),
        "standard_layer_norm": (StandardSAE, StandardSAEConfig(**size, normalize_activations="layer_norm")),
        "standard_bfloat16": (StandardSAE, StandardSAEConfig(**size)),
        "topk": (TopKSAE, TopKSAEConfig(**size, k=4)),
        "topk_by_norm": (TopKSAE, TopKSAEConfig(**size, k=4, rescale_acts_by_decoder_norm=True)),
        "topk_constant_norm": (TopKSAE, TopKSAEConfig(**size, k=3, normalize_activations="constant_norm_rescale")),
        "abstopk": (AbsTopKSAE, AbsTopKSAEConfig(**size, k=4)),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig(**size)),
        "gated": (GatedSAE, GatedSAEConfig(**size)),
        "matching_pursuit": (
            MatchingPursuitSAE,
            MatchingPursuitSAEConfig(**size, max_iterations=8, residual_threshold=0.3),
        ),
        "matching_pursuit_repeating": (
            MatchingPursuitSAE,
            MatchingPursuitSAEConfig(
                **size, max_iterations=40, residual_threshold=0.0, stop_on_duplicate_support=False,
                apply_b_dec_to_input=False,
            ),
        ),
    }
    for seed, (name, (kind, config)) in enumerate(named.items()):
        folder = fresh(out / name)
        sae = kind(config)
        signals = torch.tensor(fill(sae, seed, unit=name.startswith("matching")))
        if name.endswith("bfloat16"):
            # Weights of sixteen bits that are computed with in single precision.
            for value in sae.state_dict().values():
                value.copy_(value.to(torch.bfloat16))
        codes = sae.encode(signals)
        write_reference(folder, signals, codes, sae.decode(codes))
        sae.save_model(folder)
        if name.endswith("bfloat16"):
            from safetensors.torch import save_file as save_tensors

            weights = {key: value.to(torch.bfloat16) for key, value in sae.state_dict().items()}
            save_tensors(weights, folder / "sae_weights.safetensors")

    # A checkpoint of training whose factor on signals has not been folded in yet.
    folder = fresh(out / "standard_scaled")
    sae = StandardSAE(StandardSAEConfig(**size, normalize_activations="expected_average_only_in"))
    signals = torch.tensor(fill(sae, 20))
    codes = sae.encode(0.37 * signals)
    write_reference(folder, signals, codes, sae.decode(codes) / 0.37)
    sae.save_model(folder)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.37}))

    # Another, with a threshold in place of k; saved for inference it is jumprelu.
    folder = fresh(out / "batchtopk")
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**size, k=4))
    signals = torch.tensor(fill(sae, 21))
    sae.save_model(folder)
    with tempfile.TemporaryDirectory() as inference:
        sae.save_inference_model(inference)
        loaded = SAE.load_from_disk(inference)
        codes = loaded.encode(signals)
        write_reference(folder, signals, codes, loaded.decode(codes))

    for seed, activation in ((22, "topk"), (23, "groupmax")):
        sparsify(out, seed, activation)

    # As its authors' notebook computes it.
    folder = fresh(out / "gemma_scope")
    generator, atoms, mean, signals = drawn(24)
    arrays = {
        "W_enc": atoms.T + 0.05 * generator.standard_normal((INPUTS, UNITS)),
        "W_dec": atoms,
        "b_enc": -(atoms @ mean) - 0.1 * generator.random(UNITS),
        "b_dec": mean,
        "threshold": generator.uniform(0.1, 0.6, UNITS),
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    np.savez(folder / "params.npz", **arrays)
    before = signals @ arrays["W_enc"] + arrays["b_enc"]
    codes = np.maximum(before, 0) * (before > arrays["threshold"])
    write_reference(folder, signals, codes, codes @ arrays["W_dec"] + arrays["b_dec"])


@torch.no_grad()
def sparsify(out, seed, activation):
    # On processors.
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    folder = fresh(out / f"sparsify_{activation}")
    generator, atoms, mean, signals = drawn(seed)
    coder = SparseCoder(INPUTS, SparseCoderConfig(num_latents=UNITS, k=4, activation=activation))
    coder.W_dec.copy_(torch.tensor(atoms))
    coder.encoder.weight.copy_(torch.tensor(atoms + 0.05 * generator.standard_normal((UNITS, INPUTS))))
    coder.encoder.bias.copy_(torch.tensor(-0.1 * generator.random(UNITS)))
    coder.b_dec.copy_(torch.tensor(mean))
    coder.save_to_disk(folder)
    found = coder.encode(torch.tensor(signals))
    codes = torch.zeros(SIGNALS, UNITS).scatter(1, found.top_indices, found.top_acts)
    write_reference(folder, signals, codes, coder.decode(found.top_acts, found.top_indices))


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixtures").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "fixtures":
        fixtures(arguments.out)


if __name__ == "__main__":
    main()
