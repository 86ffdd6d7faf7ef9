"""The judge: what every contender's codes are worth, in float64, by numpy alone and by nobody's solver.

Shapes as in the crate: atoms `[code values, signal values]`, signals `[n, signal values]`, codes `[n, code values]`; filters
`[m, 1, k, k]`, an image `[H, W]`, its codes `[m, H-k+1, W-k+1]`, the image being the full convolution of codes and filters.
"""

import numpy as np
import scipy.fft

CHUNK = 1000


def gap(residual_energy, penalty, code_correlation, largest, weight):
    """Duality gap of the lasso from the scaled residual, as min(1, weight / largest) times the residual is dual feasible."""
    scale = np.minimum(1.0, weight / np.maximum(largest, 1e-300))
    return 0.5 * (1 - scale) ** 2 * residual_energy + np.maximum(penalty - scale * code_correlation, 0.0)


def lasso(atoms, signals, weights, codes, nonnegative=False):
    """Objective 1/2 |y - D g|^2 + w |g|_1, relative duality gap and non-zeros of every signal."""
    atoms = np.asarray(atoms, np.float64)
    objectives, gaps, nonzeros = [], [], []
    for start in range(0, len(codes), CHUNK):
        part = slice(start, start + CHUNK)
        code, weight = np.asarray(codes[part], np.float64), np.asarray(weights[part], np.float64)
        if nonnegative and code.min(initial=0.0) < 0:
            raise ValueError("negative codes where none are allowed")
        residual = np.asarray(signals[part], np.float64) - code @ atoms
        correlation = residual @ atoms.T
        energy = (residual**2).sum(1)
        penalty = weight * np.abs(code).sum(1)
        largest = correlation.max(1) if nonnegative else np.abs(correlation).max(1)
        objective = 0.5 * energy + penalty
        objectives.append(objective)
        gaps.append(gap(energy, penalty, (code * correlation).sum(1), largest, weight) / objective)
        nonzeros.append((code != 0).sum(1))
    return np.concatenate(objectives), np.concatenate(gaps), np.concatenate(nonzeros)


def residuals(atoms, signals, codes):
    """1/2 |y - D g|^2 and non-zeros of every signal."""
    atoms = np.asarray(atoms, np.float64)
    data, nonzeros = [], []
    for start in range(0, len(codes), CHUNK):
        part = slice(start, min(start + CHUNK, len(codes)))
        code = np.asarray(codes[part], np.float64)
        data.append(0.5 * ((np.asarray(signals[part], np.float64) - code @ atoms) ** 2).sum(1))
        nonzeros.append((code != 0).sum(1))
    return np.concatenate(data), np.concatenate(nonzeros)


class Convolution:
    """The convolutional lasso of one image."""

    # Codes that are transformed at once, so that memory stays bounded.
    GROUP = 16

    def __init__(self, filters, image, weight):
        self.filters = np.asarray(filters, np.float64)[:, 0]
        self.image = np.asarray(image, np.float64)
        self.weight = float(weight)
        self.kernel = self.filters.shape[1:]
        # As large as the image: codes of H-k+1 and filters of k fill it without wrapping around.
        self.transformed = scipy.fft.rfft2(self.filters, self.image.shape, workers=2)

    def code_shape(self):
        return (len(self.filters), *(n - k + 1 for n, k in zip(self.image.shape, self.kernel)))

    def synthesize(self, codes):
        total = 0
        for start in range(0, len(codes), self.GROUP):
            part = slice(start, start + self.GROUP)
            codes_part = scipy.fft.rfft2(np.asarray(codes[part], np.float64), self.image.shape, workers=2)
            total = total + (codes_part * self.transformed[part]).sum(0)
        return scipy.fft.irfft2(total, self.image.shape, workers=2)

    def analyze(self, image):
        """Yields the correlations, a few filters at a time."""
        transformed = scipy.fft.rfft2(image, workers=2)
        _, rows, columns = self.code_shape()
        for start in range(0, len(self.filters), self.GROUP):
            part = slice(start, start + self.GROUP)
            correlated = scipy.fft.irfft2(transformed * np.conj(self.transformed[part]), self.image.shape, workers=2)
            yield part, correlated[:, :rows, :columns]

    def largest_weight(self):
        return max(np.abs(correlated).max() for _, correlated in self.analyze(self.image))

    def squared_norm(self):
        """An upper bound of |D|^2: the largest eigenvalue of the circular convolution that D is a part of."""
        return float((np.abs(self.transformed) ** 2).sum(0).max())

    def objective(self, codes):
        residual = self.image - self.synthesize(codes)
        return 0.5 * float((residual**2).sum()) + self.weight * float(np.abs(codes).sum(dtype=np.float64))

    def certify(self, codes):
        """Objective and duality gap."""
        residual = self.image - self.synthesize(codes)
        energy = float((residual**2).sum())
        penalty = self.weight * float(np.abs(codes).sum(dtype=np.float64))
        largest, correlation = 0.0, 0.0
        for part, correlated in self.analyze(residual):
            largest = max(largest, float(np.abs(correlated).max()))
            correlation += float((correlated * codes[part]).sum())
        return 0.5 * energy + penalty, float(gap(energy, penalty, correlation, largest, self.weight))


def code(atoms, signals, weight, relative_gap=1e-4, most=20000):
    """Non-negative lasso codes by FISTA with restart in float64: slow, but of nobody's making."""
    atoms, signals = np.asarray(atoms, np.float64), np.asarray(signals, np.float64)
    gram, correlations = atoms @ atoms.T, signals @ atoms.T
    step = 1.0 / np.linalg.eigvalsh(gram)[-1]
    codes = np.zeros_like(correlations)
    point, momentum = codes, np.ones((len(signals), 1))
    weights = np.full(len(signals), weight)
    for iteration in range(most):
        if iteration % 50 == 0 and lasso(atoms, signals, weights, codes, nonnegative=True)[1].max() <= relative_gap:
            break
        following = np.maximum(point - step * (point @ gram - correlations) - step * weight, 0.0)
        change = following - codes
        momentum[((point - following) * change).sum(1) > 0] = 1.0
        grown = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        point, codes, momentum = following + (momentum - 1) / grown * change, following, grown
    return codes


def unrolled(atoms, signals, weight, step, iterations):
    """Codes after that many iterations of FISTA without restart."""
    atoms, signals = np.asarray(atoms, np.float64), np.asarray(signals, np.float64)
    codes = np.zeros((len(signals), len(atoms)))
    point, momentum = codes, 1.0
    for _ in range(iterations):
        moved = point - step * ((point @ atoms - signals) @ atoms.T)
        following = moved - np.clip(moved, -step * weight, step * weight)
        grown = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        point, codes, momentum = following + (momentum - 1) / grown * (following - codes), following, grown
    return codes
