"""Kernel Inception Distance (Bińkowski et al., arXiv 1801.01401): unbiased, so its expectation does not depend on n."""

import numpy as np

SAMPLE = 10_000  # maximum number of images per set; the cost is quadratic
_BLOCK = 512  # rows and columns of a block of the kernel matrix: 2 MB, which the caches hold


def kid(generated: np.ndarray, real: np.ndarray, within_real: np.ndarray | None = None) -> tuple[float, float]:
    """Return KID and its standard error for features [n, D] and [m, D]. Needs n ≥ 2 and m ≥ 2.

    KID is MMD² with the kernel (x·y / D + 1)³, as the full-sample U-statistic, not as a mean over subsets. The standard
    error is of first order: from the variance of the contribution of each sample. within_real: `within(real)`, if it is
    known.
    """
    x, y = generated.astype(np.float64), real.astype(np.float64)
    n, m = len(x), len(y)
    within_x, within_y = within(x), within(y) if within_real is None else within_real
    rows, columns = _sums(x, y)
    across_x, across_y = rows / m, columns / n
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    variance = 4 * (within_x - across_x).var() / n + 4 * (within_y - across_y).var() / m
    return float(value), float(np.sqrt(variance))


def within(features: np.ndarray) -> np.ndarray:
    """Return the mean kernel of each sample with the others: float64 [n]."""
    a = features.astype(np.float64)
    diagonal = (np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3
    return np.asarray((_sums(a, a)[0] - diagonal) / (len(a) - 1))


def _sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Σ_j k(a_i, b_j) for each i, and Σ_i k(a_i, b_j) for each j, computed in blocks."""
    rows, columns = np.zeros(len(a)), np.zeros(len(b))
    for row in range(0, len(a), _BLOCK):
        here = slice(row, row + _BLOCK)
        scaled = a[here] / a.shape[1]
        for column in range(0, len(b), _BLOCK):
            there = slice(column, column + _BLOCK)
            kernel = scaled @ b[there].T
            kernel += 1
            cube = kernel * kernel  # a power is slower by a factor of five
            cube *= kernel
            rows[here] += cube.sum(axis=1)
            columns[there] += cube.sum(axis=0)
    return rows, columns
