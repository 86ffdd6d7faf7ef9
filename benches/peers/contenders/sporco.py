"""SPORCO (B. Wohlberg, "SPORCO: A Python package for standard and convolutional sparse representations", SciPy 2017).

Its convolutions are circular. With codes that would wrap around kept at zero, which it has an option for, the problem is the one
that the others solve; what comes out is judged like theirs.
"""

from importlib.metadata import version

import numpy as np
import sporco.fft
from sporco.admm import cbpdn as admm
from sporco.pgm import cbpdn as pgm
from sporco.pgm.backtrack import BacktrackStandard

import evaluate

from .protocol import serve
from .tracing import trace


class Convolution:
    def __init__(self, request):
        self.filters = np.load(request["filters"]).astype(np.float32)
        self.image = np.load(request["image"]).astype(np.float32)
        self.weight, self.options, self.method = np.float32(request["weight"]), request["options"], request["method"]
        self.judge = evaluate.Convolution(self.filters, self.image, request["weight"])
        # Height, width, filter.
        self.dictionary = np.ascontiguousarray(self.filters[:, 0].transpose(1, 2, 0))
        self.bound = self.judge.squared_norm()
        # Plans of transforms are made once and kept.
        self.solver(2).solve()

    def solver(self, iterations, callback=None):
        common = {
            "Verbose": False,
            "FastSolve": True,
            "MaxMainIter": iterations,
            "RelStopTol": 0.0,
            "DataType": np.float32,
            "NoBndryCross": True,
            "Callback": callback,
        }
        if self.method == "admm":
            options = admm.ConvBPDN.Options({**common, "HighMemSolve": True, **self.options})
            return admm.ConvBPDN(self.dictionary, self.image, self.weight, options, dimK=0)
        # Its gradient in the Fourier domain is scaled as in the signal domain, so that the step is 1 / |D|^2.
        special = {"L": self.bound}
        if self.options.get("backtracking"):
            special = {"L": self.bound / 10, "Backtrack": BacktrackStandard()}
        return pgm.ConvBPDN(self.dictionary, self.image, self.weight, pgm.ConvBPDN.Options({**common, **special}), dimK=0)

    def codes_of(self, solver):
        rows, columns = self.judge.code_shape()[1:]
        codes = solver.getcoef().reshape(*self.image.shape, len(self.filters)).transpose(2, 0, 1)
        return codes[:, :rows, :columns]

    def run(self, settings):
        # Made here, so that all of it starts anew; its making counts little.
        self.finished = self.solver(settings["iterations"])
        self.finished.solve()

    def trace(self, request):
        def iterate(iterations, look):
            return self.solver(
                iterations, lambda solver: look(solver.k + 1, lambda: self.codes_of(solver))
            ).solve()

        return trace(self.judge, iterate, request)

    def write(self, path):
        np.save(path, np.ascontiguousarray(self.codes_of(self.finished)).reshape(1, -1))


if __name__ == "__main__":
    serve({"convolution": Convolution}, {"sporco": version("sporco")}, sporco.fft.pyfftw_threads)
