"""A training step of the networks of `benches/network.rs` in PyTorch: `python benches/peers/network.py [--threads 2]`.

Prints the median time of a step (scores, cross-entropy, all gradients) on 128 signals, and signals per second.
"""

import argparse
import math
import statistics
import time

import torch
import torch.nn.functional as F

SIGNALS, ITERATIONS = 128, 6
SHAPES = [(32, 1, 6, 6), (64, 32, 6, 6), (512, 64, 4, 4)]
STRIDES = [2, 2, 1]


class Network(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

        def filters():
            return torch.nn.ParameterList(
                [torch.nn.Parameter(0.1 / math.sqrt(s[1] * s[2] * s[3]) * torch.randn(s)) for s in SHAPES])

        self.dictionaries = filters()
        self.analysis = filters() if kind == "ml-lista" else self.dictionaries
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1, s[0], 1, 1)) for s in SHAPES])
        self.steps = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1)) for _ in SHAPES])
        self.head = torch.nn.Linear(512, 10)

    def analyze(self, layer, below):
        moved = F.conv2d(below, self.analysis[layer], stride=STRIDES[layer])
        return moved if self.kind == "cnn" else self.steps[layer] * moved

    def synthesize(self, layer, codes):
        return F.conv_transpose2d(codes, self.dictionaries[layer], stride=STRIDES[layer])

    def step(self, layer, below, codes=None):
        if codes is None:
            return F.relu(self.analyze(layer, below) + self.biases[layer])
        residual = below - self.synthesize(layer, codes)
        return F.relu(codes + self.analyze(layer, residual) + self.biases[layer])

    def forward(self, signals):
        codes = signals
        if self.kind == "layered-bp":
            for layer in range(3):
                below, codes = codes, self.step(layer, codes)
                for _ in range(1, ITERATIONS):
                    codes = self.step(layer, below, codes)
            return self.head(codes.flatten(1))
        for layer in range(3):
            codes = self.step(layer, codes)
        before, momentum = codes, 1.0
        for _ in range(1, 1 if self.kind == "cnn" else ITERATIONS):
            point = codes
            if self.kind == "ml-fista":
                following = 0.5 * (1 + math.sqrt(1 + 4 * momentum * momentum))
                point = codes + (momentum - 1) / following * (codes - before)
                momentum = following
            painted = [point]
            for layer in (2, 1):
                painted.insert(0, self.synthesize(layer, painted[0]))
            below = signals
            for layer in range(3):
                below = self.step(layer, below, painted[layer])
            before, codes = codes, below
        return self.head(codes.flatten(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    signals, labels = torch.rand(SIGNALS, 1, 28, 28), torch.arange(SIGNALS) % 10
    for kind in ["cnn", "ml-ista", "ml-fista", "ml-lista", "layered-bp"]:
        network = Network(kind)
        seconds = []
        for repetition in range(args.repetitions + 2):
            began = time.perf_counter()
            network.zero_grad()
            F.cross_entropy(network(signals), labels).backward()
            # The first two make ready what is made once.
            if repetition >= 2:
                seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        print(f"{kind}: {1e3 * median:.1f} ms, {SIGNALS / median:.0f} signals/s")


if __name__ == "__main__":
    main()
