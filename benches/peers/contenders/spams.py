"""SPAMS (J. Mairal, F. Bach, J. Ponce, G. Sapiro: "Online learning for matrix factorization and sparse coding", JMLR 11, 2010).

Its solvers take one weight for all signals. The lasso is homogeneous: the codes of y with the weight w are w times those of
y / w with the weight 1, so each signal is divided by its weight beforehand. The relative duality gap stays the same.
"""

import time
from importlib.metadata import version

import numpy as np
import scipy.sparse
import spams

from .protocol import serve


class Inputs:
    """Signals and atoms as columns, signals divided by their weights."""

    def __init__(self, request, dtype):
        atoms = np.load(request["atoms"])
        signals = np.load(request["signals"])[: request["count"]].reshape(request["count"], -1)
        self.weights = np.load(request["lambda"])[: request["count"]] if "lambda" in request else np.ones(len(signals))
        self.atoms = np.asfortranarray(atoms.T, dtype)
        self.signals = np.asfortranarray((signals / self.weights[:, None]).T, dtype)

    @staticmethod
    def timed(solve):
        """Codes and seconds. SPAMS hands out views of memory of its own, which are copied before anything else is asked of it."""
        started = time.perf_counter()
        codes = solve()
        seconds = time.perf_counter() - started
        return codes.copy(), {"seconds": seconds}

    def write(self, path, codes):
        np.save(path, (codes.toarray().T * self.weights[:, None]).astype(np.float32))


class Lars:
    """Homotopy: exact but for rounding.

    With the Cholesky factor or the inverse of the active atoms' Gram matrix; with the products of atoms and signals made by numpy
    (one large product) or by SPAMS (one signal after the other).
    """

    def __init__(self, request):
        self.inputs = Inputs(request, np.dtype(request["dtype"]))
        self.cholesky, self.products = request["cholesky"], request["products"]

    def run(self, settings):
        self.codes, answer = Inputs.timed(self.solve)
        return answer

    def solve(self):
        signals, atoms = self.inputs.signals, self.inputs.atoms
        given = {"D": atoms}
        if self.products == "numpy":
            given = {"Q": np.asfortranarray(atoms.T @ atoms), "q": np.asfortranarray(atoms.T @ signals)}
        return spams.lasso(signals, **given, lambda1=1.0, mode=2, cholesky=self.cholesky, numThreads=-1)

    def write(self, path):
        self.inputs.write(path, self.codes)


class CoordinateDescent:
    """`spams.cd` from zero; stops on a relative duality gap of its own making, so the caller looks for the tolerance."""

    def __init__(self, request):
        self.inputs = Inputs(request, np.dtype(request["dtype"]))
        shape = (self.inputs.atoms.shape[1], self.inputs.signals.shape[1])
        self.zeros = scipy.sparse.csc_matrix(shape, dtype=self.inputs.atoms.dtype)

    def run(self, settings):
        def solve():
            return spams.cd(
                self.inputs.signals,
                self.inputs.atoms,
                self.zeros,
                lambda1=1.0,
                mode=2,
                itermax=100000,
                tol=settings["tolerance"],
                numThreads=-1,
            )

        self.codes, answer = Inputs.timed(solve)
        return answer

    def write(self, path):
        self.inputs.write(path, self.codes)


class OrthogonalMatchingPursuit:
    """Its rule is that of order-recursive matching pursuit: the atom that leaves the shortest residual, not the one that is most
    correlated with it, so data terms come out a little lower."""

    def __init__(self, request):
        self.nonzeros = request["nonzeros"]
        self.inputs = Inputs(request, np.dtype(request["dtype"]))

    def run(self, settings):
        signals, atoms = self.inputs.signals, self.inputs.atoms
        self.codes, answer = Inputs.timed(lambda: spams.omp(signals, atoms, L=self.nonzeros, numThreads=-1))
        return answer

    def write(self, path):
        self.inputs.write(path, self.codes)


class Learning:
    """`spams.trainDL`: online dictionary learning of a dense dictionary, non-negative codes by LARS, goes on from the atoms given."""

    def __init__(self, request):
        signals = np.load(request["signals"])
        self.signals = np.asfortranarray(signals.reshape(len(signals), -1).T, np.float32)
        self.atoms = np.asfortranarray(np.load(request["atoms"]).T, np.float32)
        self.weight, self.batch = request["weight"], request["batch"]
        self.model = None
        self.generator = np.random.default_rng(0)

    def run(self, settings):
        steps = settings["steps"]
        # It draws batches from what it is given; copying that is no part of the work.
        chosen = self.generator.integers(0, self.signals.shape[1], steps * self.batch)
        signals = np.asfortranarray(self.signals[:, chosen])
        started = time.perf_counter()
        self.atoms, self.model = spams.trainDL(
            signals,
            return_model=True,
            model=self.model,
            D=self.atoms,
            batchsize=self.batch,
            lambda1=self.weight,
            iter=steps,
            mode=2,
            posAlpha=True,
            numThreads=-1,
            verbose=False,
        )
        return {"seconds": time.perf_counter() - started, "steps": steps}

    def write(self, path):
        np.save(path, np.ascontiguousarray(self.atoms.T))


if __name__ == "__main__":
    tasks = {
        "lars": Lars,
        "coordinate-descent": CoordinateDescent,
        "omp": OrthogonalMatchingPursuit,
        "learning": Learning,
    }
    serve(tasks, {"spams-bin": version("spams-bin")}, "all (OpenMP)")
