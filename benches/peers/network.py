"""A training step of the networks of `benches/network.rs` in PyTorch: `python benches/peers/network.py [--threads 2]`.

Prints the median time of a step (scores, cross-entropy, all gradients) on 128 signals, and signals per second; then the same of training a
sparse auto-encoder end to end on 256 signals through 20 unrolled iterations of FISTA: with one dictionary of 1024 atoms as large as the signals (two
products an iteration), and with the three dictionaries of the preset `mnist` one after the other.
"""

import argparse
import math
import statistics
import time

import torch
import torch.nn.functional as F

SIGNALS, BATCH, ITERATIONS = 128, 256, 6
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
            synthesized = [point]
            for layer in (2, 1):
                synthesized.insert(0, self.synthesize(layer, synthesized[0]))
            below = signals
            for layer in range(3):
                below = self.step(layer, below, synthesized[layer])
            before, codes = codes, below
        return self.head(codes.flatten(1))


class Unrolled(torch.nn.Module):
    """½‖y − Dγ‖² + λ‖γ‖₁ of the codes γ ≥ 0 of some iterations of FISTA."""

    SHAPES, STRIDES, LEFT = [(32, 1, 7, 7), (128, 32, 5, 5), (1024, 128, 7, 7)], [2, 1, 1], [1, 0, 0]

    def __init__(self, cascade, iterations=20, penalty=0.3):
        super().__init__()
        self.cascade, self.iterations, self.penalty = cascade, iterations, penalty
        shapes = self.SHAPES if cascade else [(1024, 784)]
        draws = [torch.randn(shape) for shape in shapes]
        self.filters = torch.nn.ParameterList([torch.nn.Parameter(draw / draw.flatten(1).norm(dim=1).view(-1, *[1] * (draw.dim() - 1))) for draw in draws])
        with torch.no_grad():
            codes = torch.randn(1, *self.shape())
            for _ in range(30):
                codes = self.analyze(self.synthesize(codes))
                self.length = codes.norm().item()
                codes /= self.length

    def shape(self):
        return (1024, 1, 1) if self.cascade else (1024,)

    def synthesize(self, codes):
        if not self.cascade:
            return codes @ self.filters[0]
        for layer in (2, 1, 0):
            codes = F.conv_transpose2d(
                codes, self.filters[layer], stride=self.STRIDES[layer], output_padding=self.LEFT[layer])
        return codes

    def analyze(self, signals):
        if not self.cascade:
            return signals @ self.filters[0].T
        for layer in range(3):
            signals = F.conv2d(signals, self.filters[layer], stride=self.STRIDES[layer])
        return signals

    def forward(self, signals):
        signals = signals if self.cascade else signals.flatten(1)
        codes = point = torch.zeros(len(signals), *self.shape())
        momentum = 1.0
        for _ in range(self.iterations):
            moved = point + self.analyze(signals - self.synthesize(point)) / self.length
            following = 0.5 * (1 + math.sqrt(1 + 4 * momentum * momentum))
            before, codes = codes, F.relu(moved - self.penalty / self.length)
            point = codes + (momentum - 1) / following * (codes - before)
            momentum = following
        residual = (signals - self.synthesize(codes)).flatten(1)
        return (0.5 * residual.square().sum(1) + self.penalty * codes.flatten(1).sum(1)).mean()


def timed(step, repetitions):
    """The median of so many, without the first two, which make ready what is made once."""
    seconds = []
    for _ in range(repetitions + 2):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


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

        def step():
            network.zero_grad()
            F.cross_entropy(network(signals), labels).backward()

        median = timed(step, args.repetitions)
        print(f"{kind}: {1e3 * median:.1f} ms, {SIGNALS / median:.0f} signals/s")
    signals = torch.rand(BATCH, 1, 28, 28)
    for name, cascade in [("20 iterations, one dictionary", False), ("20 iterations, three dictionaries", True)]:
        network = Unrolled(cascade)

        def step():
            network.zero_grad()
            network(signals).backward()

        median = timed(step, args.repetitions)
        print(f"{name}: {1e3 * median:.1f} ms, {BATCH / median:.0f} signals/s")


if __name__ == "__main__":
    main()
