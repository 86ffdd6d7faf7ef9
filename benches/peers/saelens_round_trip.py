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


@torch.no_grad()
def trip(program, width):
    from sae_lens import SAE

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generator = np.random.default_rng(3)
        atoms = generator.standard_normal((3 * width, width))
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        codes = generator.exponential(1.0, (4000, 3 * width)) * (generator.random((4000, 3 * width)) < 2 / width)
        signals = codes @ atoms + generator.standard_normal(width) + 0.02 * generator.standard_normal((4000, width))
        np.save(folder / "x.npy", signals.astype(np.float32))
        test = signals[:500].astype(np.float32)
        np.save(folder / "test.npy", test)

        def run(arguments, **options):
            command = [str(program), *arguments.split()]
            return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, **options).stdout

        # Two dictionaries, and rivals whose k the command line does not set.
        train = "train --data x.npy --epochs 2 --no-report"
        models = {
            "dictionary": f"{train} --atoms {2 * width} --normalization mean",
            "two layers": f"{train} --atoms {2 * width},{3 * width} --normalization mean",
            "sae": f"{train} --model sae --units {2 * width}",
        }
        config = json.loads(run(f"{train} --model top-k --units {2 * width} --print-config"))
        next(part for part in objects(config) if "k" in part)["k"] = 4
        (folder / "top-k.json").write_text(json.dumps(config))
        models["top-k"] = "train --config top-k.json --no-report"

        rows, worst = [], 0.0
        for number, (name, command) in enumerate(models.items()):
            run(f"{command} --out run{number}")
            run(f"export --model run{number} --format saelens --out theirs{number}")
            run(f"import --sae theirs{number} --out m{number}.safetensors")
            run(f"encode --model m{number}.safetensors --data test.npy --out codes{number}.safetensors")
            run(f"reconstruct --model m{number}.safetensors --data test.npy --out back{number}.npy")
            ours = load_file(folder / f"codes{number}.safetensors")["gamma_1"].reshape(len(test), -1)
            back = np.load(folder / f"back{number}.npy").reshape(len(test), -1)
            sae = SAE.load_from_disk(folder / f"theirs{number}")
            found = sae.encode(torch.tensor(test))
            decoded = sae.decode(found).numpy()
            found = found.numpy()
            difference = [np.abs(a - b).max() / np.abs(b).max() for a, b in ((ours, found), (back, decoded))]
            variance = ((test - test.mean(0)) ** 2).sum()
            fvu = ((test - decoded) ** 2).sum() / variance
            own = json.loads(run(f"diagnose --model run{number} --data test.npy --doctor-signals 0 --json"))
            own = own["models"][0]["diagnostics"]["fvu"]
            same = ((ours != 0) == (found != 0)).mean()
            architecture = sae.cfg.architecture()
            rows.append((name, architecture, (found != 0).sum(1).mean(), *difference, same, fvu, own))
            worst = max(worst, *difference)
        print("| model | there | L0 | codes differ by | reconstructions by | same support | FVU there | FVU of the model itself |")
        print("|---|---|---|---|---|---|---|---|")
        for name, architecture, l0, codes, back, same, fvu, own in rows:
            print(f"| {name} | {architecture} | {l0:.2f} | {codes:.1e} | {back:.1e} | {100 * same:.3f}% | {fvu:.4f} | {own:.4f} |")
        if worst > 1e-5:
            sys.exit(f"expected differences of at most 1e-5 of the largest value, found {worst:.1e}")


def objects(value):
    """All objects in a JSON document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixtures").add_argument("out", type=Path)
    command = commands.add_parser("trip")
    command.add_argument("--program", type=Path, required=True, help="the mlcsc binary")
    command.add_argument("--width", type=int, default=32, help="values of a signal")
    arguments = parser.parse_args()
    if arguments.command == "fixtures":
        fixtures(arguments.out)
    else:
        trip(arguments.program.resolve(), arguments.width)


if __name__ == "__main__":
    main()
