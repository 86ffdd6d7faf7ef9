"""scikit-learn: lasso by LARS and by coordinate descent, orthogonal matching pursuit; all in float64, signals over all cores.

Signals are divided by their weights, as for SPAMS: scikit-learn too takes one weight for all.
"""

import os
import warnings

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, orthogonal_mp_gram

from .protocol import serve

THREADS = len(os.sched_getaffinity(0))


class Inputs:
    def __init__(self, request):
        count = request["count"]
        self.atoms = np.load(request["atoms"]).astype(np.float64)
        signals = np.load(request["signals"])[:count].reshape(count, -1).astype(np.float64)
        self.weights = np.load(request["lambda"])[:count].astype(np.float64) if "lambda" in request else np.ones(count)
        self.signals = signals / self.weights[:, None]
        self.gram = self.atoms @ self.atoms.T
        # One process a core: much of the work holds Python's lock.
        self.parallel = joblib.Parallel(n_jobs=THREADS)
        self.parallel.__enter__()
        self.chunks = np.array_split(np.arange(count), min(count, 4 * THREADS))

    def over_cores(self, function, *arguments):
        parts = self.parallel(
            joblib.delayed(function)(self.atoms, self.gram, self.signals[chunk], *arguments) for chunk in self.chunks
        )
        return np.concatenate(parts)

    def write(self, path, codes):
        np.save(path, (codes * self.weights[:, None]).astype(np.float32))


def lars(atoms, gram, signals):
    from sklearn.decomposition import sparse_encode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sparse_encode(signals, atoms, gram=gram, algorithm="lasso_lars", alpha=1.0, max_iter=5000)


def coordinate_descent(atoms, gram, signals, tolerance):
    # The weight is per sample in scikit-learn's objective.
    model = Lasso(
        alpha=1.0 / atoms.shape[1], fit_intercept=False, precompute=gram, tol=tolerance, max_iter=100000, copy_X=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.atleast_2d(model.fit(np.asfortranarray(atoms.T), signals.T).coef_)


def matching_pursuit(atoms, gram, signals, nonzeros):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return orthogonal_mp_gram(gram, atoms @ signals.T, n_nonzero_coefs=nonzeros).T


class Lars:
    def __init__(self, request):
        self.inputs = Inputs(request)

    def run(self, settings):
        self.codes = self.inputs.over_cores(lars)

    def write(self, path):
        self.inputs.write(path, self.codes)


class CoordinateDescent(Lars):
    def run(self, settings):
        self.codes = self.inputs.over_cores(coordinate_descent, settings["tolerance"])


class OrthogonalMatchingPursuit(Lars):
    def __init__(self, request):
        super().__init__(request)
        self.nonzeros = request["nonzeros"]

    def run(self, settings):
        self.codes = self.inputs.over_cores(matching_pursuit, self.nonzeros)


if __name__ == "__main__":
    # Under its module's name, so that workers find its functions.
    from contenders import scikit_learn

    tasks = {
        "lars": scikit_learn.Lars,
        "coordinate-descent": scikit_learn.CoordinateDescent,
        "omp": scikit_learn.OrthogonalMatchingPursuit,
    }
    serve(tasks, {"scikit-learn": sklearn.__version__}, THREADS)
