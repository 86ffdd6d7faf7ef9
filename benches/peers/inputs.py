"""The arrays that every contender reads, written once per case."""

from pathlib import Path

import numpy as np

import evaluate


def digits(contender, source, split, count, path):
    """Digits of a source as `[n, 1, 28, 28]`, read by this crate's reader."""
    if not path.exists():
        contender.ask(
            {"command": "export-signals", "source": source, "split": split, "count": count, "path": str(path)}
        )
    return path


def images(folder):
    """Greyscale images of a folder by name, in [0, 1]."""
    from PIL import Image

    suffixes = {".png", ".jpg", ".jpeg", ".pgm", ".ppm"}
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in suffixes:
            found[path.stem] = np.asarray(Image.open(path).convert("L"), np.float32) / 255
    return found


def mosaic(digits, size):
    """An image of drawn digits side by side, for those who have no photographs."""
    across = -(-size // digits.shape[-1])
    tiles = digits[np.arange(across * across) % len(digits), 0].reshape(across, across, *digits.shape[-2:])
    return tiles.transpose(0, 2, 1, 3).reshape(across * digits.shape[-2], -1)[:size, :size]


def gabor(count, kernel):
    """Filters of unit norm: waves under a bell, of drawn orientations and lengths, for those who have nothing to learn from."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:kernel, :kernel] - (kernel - 1) / 2
    filters = []
    for _ in range(count):
        angle, phase = generator.uniform(0, np.pi), generator.uniform(0, 2 * np.pi)
        length, width = generator.uniform(2.5, kernel), generator.uniform(kernel / 6, kernel / 2.5)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        bell = np.exp(-(along**2 + (across / 1.5) ** 2) / (2 * width**2))
        filters.append(np.cos(2 * np.pi * along / length + phase) * bell)
    filters = np.stack(filters)
    return (filters / np.sqrt((filters**2).sum((1, 2), keepdims=True)))[:, None].astype(np.float32)


def relative_weights(atoms, signals, fraction):
    """A fraction of the smallest weight at which a signal's code is zero."""
    flat = signals.reshape(len(signals), -1).astype(np.float64)
    parts = [np.abs(flat[start : start + evaluate.CHUNK] @ atoms.T.astype(np.float64)).max(1)
             for start in range(0, len(flat), evaluate.CHUNK)]
    return (fraction * np.concatenate(parts)).astype(np.float32)


def saved(path, array):
    """Writes an array and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array))
    return path
