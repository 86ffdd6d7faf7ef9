"""PyTorch: what one would write in it for the same problems, eager or through `torch.compile`.

The formulas are those that make it fast: the Gram matrix instead of two products, the step and the soft threshold in one function
that the compiler can fuse, finished signals leaving the batch, momentum that restarts when it points uphill.
"""

import math
import os

# The compiler works in this process rather than in a pool of others, which would go on beside whoever comes next.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as functional

import evaluate

from .protocol import serve
from .tracing import trace

THREADS = len(os.sched_getaffinity(0))
torch.set_num_threads(THREADS)
# Where everything below happens; what is compared is single precision in earnest.
DEVICE = os.environ.get("PEERS_TORCH_DEVICE", "cpu")
torch.set_default_device(DEVICE)
torch.backends.cudnn.allow_tf32 = False


def load(path):
    return torch.from_numpy(np.ascontiguousarray(np.load(path), np.float32)).to(DEVICE)


def synchronize():
    """Work may still be under way on a GPU."""
    if DEVICE != "cpu":
        getattr(torch, DEVICE.split(":")[0]).synchronize()


def maybe_compiled(function, wanted):
    return torch.compile(function, dynamic=True) if wanted else function


# --- Lasso over a dense dictionary -------------------------------------------------------------------------------------------


def fista_step(point, codes, explained, correlations, thresholds, momentum, step, nonnegative: bool):
    """One iteration after the product with the Gram matrix."""
    moved = point - step * (explained - correlations)
    if nonnegative:
        following = torch.relu(moved - thresholds)
    else:
        following = moved - torch.clamp(moved, -thresholds, thresholds)
    change = following - codes
    uphill = ((point - following) * change).sum(1, keepdim=True) > 0
    momentum = torch.where(uphill, 1.0, momentum)
    grown = 0.5 * (1.0 + torch.sqrt(1.0 + 4.0 * momentum * momentum))
    return following + ((momentum - 1.0) / grown) * change, following, grown


class DenseLasso:
    """FISTA with the Gram matrix, signals in blocks, until every signal's relative duality gap is small enough."""

    def __init__(self, atoms, gap, nonnegative, check_every, compiled):
        self.atoms, self.gap, self.nonnegative, self.check_every = atoms, gap, nonnegative, check_every
        self.gram = atoms @ atoms.T
        self.step = 1.0 / float(torch.linalg.eigvalsh(self.gram.double())[-1])
        self.advance = maybe_compiled(fista_step, compiled)

    def gaps(self, signals, codes, weights):
        residuals = signals - codes @ self.atoms
        correlations = residuals @ self.atoms.T
        energy = residuals.square().sum(1)
        penalty = weights * codes.abs().sum(1)
        largest = correlations.amax(1) if self.nonnegative else correlations.abs().amax(1)
        scale = torch.clamp(weights / largest.clamp_min(1e-30), max=1.0)
        slack = (penalty - scale * (codes * correlations).sum(1)).clamp_min(0.0)
        return (0.5 * (1 - scale) ** 2 * energy + slack) / (0.5 * energy + penalty)

    def solve(self, signals, weights, most=20000):
        found = torch.zeros(len(signals), len(self.atoms))
        rows = torch.arange(len(signals))
        correlations = signals @ self.atoms.T
        codes, point = torch.zeros_like(correlations), torch.zeros_like(correlations)
        momentum, thresholds = torch.ones(len(signals), 1), (self.step * weights)[:, None]
        iteration = 0
        while True:
            for _ in range(self.check_every):
                point, codes, momentum = self.advance(
                    point, codes, point @ self.gram, correlations, thresholds, momentum, self.step, self.nonnegative
                )
            iteration += self.check_every
            done = self.gaps(signals, codes, weights) <= self.gap
            if iteration >= most or bool(done.all()):
                found[rows] = codes
                return found
            # Copying is worth it only now and then.
            if int(done.sum()) * 10 >= len(rows):
                found[rows[done]] = codes[done]
                left = ~done
                rows, signals, weights, codes, point = (
                    tensor[left] for tensor in (rows, signals, weights, codes, point)
                )
                correlations, momentum, thresholds = correlations[left], momentum[left], thresholds[left]


class Lasso:
    @torch.inference_mode()
    def __init__(self, request):
        count = request["count"]
        self.signals = load(request["signals"])[:count].reshape(count, -1)
        self.weights = load(request["lambda"])[:count]
        self.block = min(request["block"] or count, count)
        self.solver = DenseLasso(
            load(request["atoms"]), request["gap"], False, request["check_every"], request["compiled"]
        )
        if request["compiled"]:
            # Compilation, for whole blocks and for what is left of them, is not timed.
            for size in {self.block, max(self.block // 2, 2), max(self.block // 3, 2)}:
                self.solver.solve(self.signals[:size], self.weights[:size], most=1)

    @torch.inference_mode()
    def run(self, settings):
        blocks = range(0, len(self.signals), self.block)
        self.codes = torch.cat(
            [
                self.solver.solve(self.signals[start : start + self.block], self.weights[start : start + self.block])
                for start in blocks
            ]
        )

    def write(self, path):
        np.save(path, self.codes.cpu().numpy())


# --- Convolutional lasso ------------------------------------------------------------------------------------------------------


class Convolution:
    """FISTA with restart for one image; variants differ in how they convolve.

    - `contiguous`, `channels-last`: conv2d for correlations, conv_transpose2d for synthesis
    - `two-convolutions`: synthesis too as conv2d, with flipped filters and padding
    - `fft`: both in the Fourier domain
    """

    def __init__(self, request):
        self.filters = load(request["filters"])
        self.image = load(request["image"])[None, None]
        self.weight, self.way = request["weight"], request["way"]
        self.judge = evaluate.Convolution(self.filters.cpu().numpy(), self.image[0, 0].cpu().numpy(), self.weight)
        self.step = 1.0 / self.judge.squared_norm()
        self.advance = maybe_compiled(self.threshold_and_extrapolate, request["compiled"])
        kernel = self.filters.shape[-1]
        self.padding = kernel - 1
        self.layout = torch.channels_last if self.way == "channels-last" else torch.contiguous_format
        self.filters = self.filters.contiguous(memory_format=self.layout)
        self.flipped = self.filters.flip(2, 3).transpose(0, 1).contiguous()
        if self.way == "fft":
            self.size = self.image.shape[-2:]
            self.transformed = torch.fft.rfft2(self.filters[:, 0], s=self.size)
            self.image_transformed = torch.fft.rfft2(self.image[0, 0])
        if request["compiled"]:
            self.iterate(3)

    def synthesize(self, codes):
        if self.way == "two-convolutions":
            return functional.conv2d(codes, self.flipped, padding=self.padding)
        return functional.conv_transpose2d(codes, self.filters)

    def gradient(self, point):
        if self.way != "fft":
            return functional.conv2d(self.synthesize(point) - self.image, self.filters)
        transformed = torch.fft.rfft2(point[0], s=self.size)
        residual = (transformed * self.transformed).sum(0) - self.image_transformed
        correlated = torch.fft.irfft2(residual * self.transformed.conj(), s=self.size)
        return correlated[None, :, : point.shape[2], : point.shape[3]]

    @staticmethod
    def threshold_and_extrapolate(point, codes, gradient, step, threshold, momentum):
        moved = point - step * gradient
        following = moved - torch.clamp(moved, -threshold, threshold)
        change = following - codes
        momentum = torch.where(((point - following) * change).sum() > 0, 1.0, momentum)
        grown = 0.5 * (1.0 + torch.sqrt(1.0 + 4.0 * momentum * momentum))
        return following + ((momentum - 1.0) / grown) * change, following, grown

    @torch.inference_mode()
    def iterate(self, iterations, look=None):
        codes = torch.zeros(1, *self.judge.code_shape()).contiguous(memory_format=self.layout)
        point, momentum = codes, torch.tensor(1.0)
        for iteration in range(1, iterations + 1):
            point, codes, momentum = self.advance(
                point, codes, self.gradient(point), self.step, self.step * self.weight, momentum
            )
            if look and look(iteration, lambda: codes[0].cpu().numpy()):
                break
        return codes

    def run(self, settings):
        self.codes = self.iterate(settings["iterations"])

    def trace(self, request):
        return trace(self.judge, self.iterate, request)

    def write(self, path):
        np.save(path, self.codes.cpu().numpy().reshape(1, -1))


# --- Learning ----------------------------------------------------------------------------------------------------------------


class OnlineLearning:
    """Online dictionary learning (Mairal et al. 2010) of a dense dictionary: non-negative codes of a batch by FISTA, statistics that
    forget, a part of the atoms renewed by block coordinate descent, in turn."""

    @torch.inference_mode()
    def __init__(self, request):
        signals = load(request["signals"])
        self.signals = signals.reshape(len(signals), -1)
        self.atoms = load(request["atoms"])
        self.weight, self.batch, self.gap = request["weight"], request["batch"], request["gap"]
        self.forgetting, self.part = request["forgetting"], request["part"]
        count, length = self.atoms.shape
        self.second, self.first = torch.zeros(count, count), torch.zeros(count, length)
        self.done = 0
        self.order = torch.randperm(len(self.signals), generator=torch.Generator(DEVICE).manual_seed(0))

    @torch.inference_mode()
    def run(self, settings):
        for _ in range(settings["steps"]):
            self.one_step()
        return {"steps": settings["steps"]}

    def one_step(self):
        start = self.done * self.batch % max(len(self.order) - self.batch, 1)
        signals = self.signals[self.order[start : start + self.batch]]
        coder = DenseLasso(self.atoms, self.gap, True, 10, False)
        codes = coder.solve(signals, torch.full((len(signals),), self.weight), most=1000)
        weight = (self.done + 1) ** -self.forgetting
        self.second.mul_(1 - weight).addmm_(codes.T, codes, alpha=weight / len(signals))
        self.first.mul_(1 - weight).addmm_(codes.T, signals, alpha=weight / len(signals))
        count = len(self.atoms)
        renewed = max(1, int(self.part * count))
        for index in range(renewed):
            atom = (self.done * renewed + index) % count
            used = float(self.second[atom, atom])
            if used > 1e-10:
                moved = self.atoms[atom] + (self.first[atom] - self.second[atom] @ self.atoms) / used
                self.atoms[atom] = moved / moved.norm().clamp_min(1e-12)
        self.done += 1

    def write(self, path):
        np.save(path, self.atoms.cpu().numpy())


# --- Unrolled pursuits of the cascade ----------------------------------------------------------------------------------------


def synthesize(codes, filters, stride, size):
    """conv_transpose2d onto a signal of that size, whose last rows and columns no atom may reach."""
    synthesized = functional.conv_transpose2d(codes, filters, stride=stride)
    below, right = size[0] - synthesized.shape[-2], size[1] - synthesized.shape[-1]
    return functional.pad(synthesized, (0, right, 0, below)) if below or right else synthesized


def effective_filters(filters, strides, order):
    """From `above`, W_L sent down layer by layer; or from `below`, every W_i as codes over the effective atoms below it."""
    if order == "above":
        codes = filters[-1]
        for below, stride in zip(reversed(filters[:-1]), reversed(strides[:-1])):
            codes = functional.conv_transpose2d(codes, below, stride=stride)
        return codes
    effective, product = filters[0], (1, 1)
    for codes, stride in zip(filters[1:], strides[:-1]):
        product = (product[0] * stride[0], product[1] * stride[1])
        effective = functional.conv_transpose2d(codes, effective, stride=product)
    return effective


class Cascade:
    """D = D_1 ... D_L; variants `matrix` and `gram` (dense), `filters` (one convolution), `cascade` (one after the other), and the
    order in which effective filters are made."""

    def __init__(self, request):
        self.filters = [load(path) for path in request["filters"]]
        self.strides = request["strides"]
        self.stride = tuple(math.prod(strides) for strides in zip(*self.strides))
        self.signals = load(request["signals"])[: request.get("count")]
        self.weight, self.way, self.order = request["weight"], request["way"], request.get("order", "below")
        self.code_shape = request["code"][1:]
        self.sizes = request["sizes"]

    def dense(self, filters):
        """Atoms `[code values, signal values]`: every effective filter at each of its places."""
        effective = effective_filters(filters, self.strides, self.order)
        count, rows, columns = self.code_shape
        height, width = self.signals.shape[-2:]
        kernel_height, kernel_width = effective.shape[-2:]
        placed = [
            functional.pad(effective, (x, width - kernel_width - x, y, height - kernel_height - y))
            for y in range(0, rows * self.stride[0], self.stride[0])
            for x in range(0, columns * self.stride[1], self.stride[1])
        ]
        return torch.stack(placed, 1).flatten(0, 1).flatten(1)

    def operator(self, filters):
        """Dᵀ(Dz - y) as a function of z, and the shape of the codes."""
        signals = self.signals
        if self.way in ("matrix", "gram"):
            atoms = self.dense(filters)
            rows = signals.flatten(1)
            transposed = atoms.T.contiguous()
            if self.way == "matrix":
                return lambda codes: (codes @ atoms - rows) @ transposed, (len(rows), len(atoms))
            gram, correlations = atoms @ transposed, rows @ transposed
            return lambda codes: codes @ gram - correlations, (len(rows), len(atoms))
        shape = (len(signals), *self.code_shape)
        if self.way == "filters":
            effective = effective_filters(filters, self.strides, self.order)
            return lambda codes: functional.conv2d(
                synthesize(codes, effective, self.stride, self.sizes[0]) - signals,
                effective,
                stride=self.stride,
            ), shape

        def through_layers(codes):
            for layer, stride, size in zip(reversed(filters), reversed(self.strides), reversed(self.sizes)):
                codes = synthesize(codes, layer, stride, size)
            below = codes - signals
            for layer, stride in zip(filters, self.strides):
                below = functional.conv2d(below, layer, stride=stride)
            return below

        return through_layers, shape


def unrolled_step(point, codes, gradient, step: float, threshold: float, extrapolation: float):
    moved = point - step * gradient
    following = moved - torch.clamp(moved, -threshold, threshold)
    return following + extrapolation * (following - codes), following


class Unrolled(Cascade):
    """FISTA without restart, a given number of iterations, forwards or with the gradients of 1/2 |codes|^2."""

    def __init__(self, request):
        super().__init__(request)
        self.iterations, self.step, self.with_gradient = request["iterations"], request["step"], request["gradient"]
        self.advance = maybe_compiled(unrolled_step, request["compiled"] == "step")
        self.forward = maybe_compiled(self.iterate, request["compiled"] == "whole")
        self.extrapolations, momentum = [], 1.0
        for _ in range(self.iterations):
            grown = 0.5 * (1 + math.sqrt(1 + 4 * momentum * momentum))
            self.extrapolations.append((momentum - 1) / grown)
            momentum = grown
        if self.with_gradient:
            self.filters = [filters.requires_grad_() for filters in self.filters]
        else:
            with torch.inference_mode():
                self.kept = self.operator(self.filters)
        self.run({})

    def iterate(self, gradient, shape):
        codes = torch.zeros(shape)
        point = codes
        for extrapolation in self.extrapolations:
            point, codes = self.advance(
                point, codes, gradient(point), self.step, self.step * self.weight, extrapolation
            )
        return codes

    def run(self, settings):
        if not self.with_gradient:
            with torch.inference_mode():
                self.found = [self.forward(*self.kept)]
            return
        codes = self.forward(*self.operator(self.filters))
        loss = 0.5 * codes.square().sum()
        self.found = [codes.detach(), *torch.autograd.grad(loss, self.filters)]

    def write(self, path):
        codes, *gradients = self.found
        np.save(path, codes.reshape(len(codes), *self.code_shape).cpu().numpy())
        for layer, gradient in enumerate(gradients, 1):
            np.save(path.removesuffix(".npy") + f".W_{layer}.npy", gradient.cpu().numpy())


class UnrolledLearning(Cascade):
    """The cascade trained by autograd through 20 iterations of FISTA: Adam on the mean lasso objective, signals as targets."""

    def __init__(self, request):
        super().__init__({**request, "way": "gram"})
        self.batch, self.all = request["batch"], self.signals
        self.filters = [torch.nn.Parameter(filters) for filters in self.filters]
        self.optimizer = torch.optim.Adam(self.filters, lr=1e-4)
        self.iterations, self.done = request["iterations"], 0
        self.advance = maybe_compiled(unrolled_step, request["compiled"])

    def run(self, settings):
        for _ in range(settings["steps"]):
            self.one_step()
        return {"steps": settings["steps"]}

    def one_step(self):
        start = self.done * self.batch % max(len(self.all) - self.batch, 1)
        rows = self.all[start : start + self.batch].flatten(1)
        atoms = self.dense(self.filters)
        transposed = atoms.T.contiguous()
        gram, correlations = atoms @ transposed, rows @ transposed
        with torch.no_grad():
            # A few steps of the power method; the last of them, one step on, would find little more.
            vector = torch.ones(len(gram), 1)
            for _ in range(10):
                vector = gram @ vector
                norm = vector.norm()
                vector = vector / norm
            step = 1.0 / (1.05 * float(norm))
        codes = torch.zeros(len(rows), len(atoms))
        point, momentum = codes, 1.0
        for _ in range(self.iterations):
            grown = 0.5 * (1 + math.sqrt(1 + 4 * momentum * momentum))
            point, codes = self.advance(
                point, codes, point @ gram - correlations, step, step * self.weight, (momentum - 1) / grown
            )
            momentum = grown
        loss = (0.5 * (rows - codes @ atoms).square().sum() + self.weight * codes.abs().sum()) / len(rows)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1

    def write(self, path):
        with torch.no_grad():
            np.save(path, self.dense(self.filters).cpu().numpy())


# --- Rates of the machine ----------------------------------------------------------------------------------------------------


class MatrixProduct:
    def __init__(self, request):
        self.pair = [torch.rand(request["size"], request["size"]) for _ in range(2)]

    @torch.inference_mode()
    def run(self, settings):
        self.found = self.pair[0] @ self.pair[1]


class NumpyMatrixProduct:
    def __init__(self, request):
        self.pair = [np.random.default_rng(0).random((request["size"],) * 2, np.float32) for _ in range(2)]

    def run(self, settings):
        self.found = self.pair[0] @ self.pair[1]


class Triad:
    def __init__(self, request):
        self.left, self.right = torch.ones(request["len"]), torch.ones(request["len"])
        self.sum = torch.zeros(request["len"])

    @torch.inference_mode()
    def run(self, settings):
        torch.add(self.left, self.right, alpha=3.0, out=self.sum)


if __name__ == "__main__":
    tasks = {
        "lasso": Lasso,
        "convolution": Convolution,
        "online-learning": OnlineLearning,
        "unrolled": Unrolled,
        "unrolled-learning": UnrolledLearning,
        "matrix-product": MatrixProduct,
        "numpy-matrix-product": NumpyMatrixProduct,
        "triad": Triad,
    }
    serve(tasks, {"torch": torch.__version__, "numpy": np.__version__}, THREADS, synchronize)
