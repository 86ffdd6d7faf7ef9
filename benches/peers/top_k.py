"""A training step of a TopK sparse auto-encoder: this crate, PyTorch, and SAELens where it is installed.

    python3 benches/peers/top_k.py --program target/release/mlcsc --device cuda

768 values, 16,384 units of which 25 stay, this crate's default, 4096 signals a step, unless told otherwise; signals are drawn. This crate is run for one epoch and for
several: the difference, divided by the steps, is a step, reading and a ninth more signals that are held out included. PyTorch steps with Adam, TF32
off, on the device of the same kind; so does SAELens's trainer, with its own loss. One JSON document. Needs `pip install torch numpy`.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np


def ours(options, signals, folder):
    path = folder / "signals.npy"
    np.save(path, signals)
    seconds, steps = [], []
    for run, epochs in enumerate((1, 1 + options.epochs)):
        # The first one also warms up the device and the file.
        out = folder / f"run-{run}"
        command = [options.program, "train", "--model", "top-k", "--units", options.units, "--data", path, "--batch-size", options.batch,
                   "--epochs", epochs, "--device", options.device, "--no-report", "--out", out, "--json"]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{options.program} ended with exit code {done.returncode}")
        seconds.append(json.loads(done.stdout)["seconds"])
        lines = (out / "metrics.jsonl").read_text().splitlines()
        steps.append(max(json.loads(line).get("step", 0) for line in lines))
    return (seconds[1] - seconds[0]) / (steps[1] - steps[0])


def timed(step, device, torch, count):
    for _ in range(3):
        step()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return (time.perf_counter() - start) / count


def by_pytorch(options, signals, torch, device):
    torch.manual_seed(0)
    values = signals.shape[1]
    weights = torch.randn(options.units, values, device=device) / values**0.5
    encoder, decoder = weights.clone().requires_grad_(), weights.T.clone().requires_grad_()
    biases = [torch.zeros(size, device=device, requires_grad=True) for size in (options.units, values)]
    optimizer = torch.optim.Adam([encoder, decoder, *biases], lr=1e-3)
    batch = torch.from_numpy(signals[: options.batch]).to(device)

    def step():
        scores = torch.relu((batch - biases[1]) @ encoder.T + biases[0])
        best, places = scores.topk(options.kept, dim=1)
        codes = torch.zeros_like(scores).scatter(1, places, best)
        loss = (codes @ decoder.T + biases[1] - batch).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return timed(step, device, torch, options.steps)


def by_saelens(options, signals, torch, device):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    network = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=signals.shape[1], d_sae=options.units, k=options.kept, device=device))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batch = torch.from_numpy(signals[: options.batch]).to(device)
    idle = torch.zeros(options.units, dtype=torch.bool, device=device)

    def step():
        input = TrainStepInput(sae_in=batch, coefficients={}, dead_neuron_mask=idle, n_training_steps=0, is_logging_step=False)
        optimizer.zero_grad(set_to_none=True)
        network.training_forward_pass(input).loss.backward()
        optimizer.step()

    return timed(step, device, torch, options.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/mlcsc")
    parser.add_argument("--device", default="flex", help="device of this crate; PyTorch takes cuda for cuda, else the CPU")
    parser.add_argument("--values", type=int, default=768)
    parser.add_argument("--units", type=int, default=16384)
    parser.add_argument("--kept", type=int, default=25, help="non-zeros of the peers; default: as this crate's")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--signals", type=int, default=40960)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of the peers")
    options = parser.parse_args()
    signals = np.random.default_rng(0).standard_normal((options.signals, options.values)).astype(np.float32)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        found["mlcsc"] = ours(options, signals, Path(folder))
    for name, peer in (("PyTorch, eager", by_pytorch), ("SAELens", by_saelens)):
        try:
            import torch

            torch.backends.cuda.matmul.allow_tf32 = False
            device = "cuda" if options.device == "cuda" and torch.cuda.is_available() else "cpu"
            found[name] = peer(options, signals, torch, device)
        except Exception as error:  # What one peer lacks is no reason to lose the others.
            found[name] = f"left out: {error}"
    print(json.dumps({"seconds_a_step": found, "device": options.device, "units": options.units, "batch": options.batch}, indent=2))


if __name__ == "__main__":
    main()
