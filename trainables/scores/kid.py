"""Kernel Inception Distance (Bińkowski et al., arXiv 1801.01401): unbiased, so its expectation does not depend on n."""

import numpy as np

SAMPLE = 10_000  # maximum number of images per set; the cost is quadratic
_ROWS = 1_000  # rows per block of the kernel matrix


def kid(generated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Return KID and its standard error for features [n, D] and [m, D]. Needs n ≥ 2 and m ≥ 2.

    KID is MMD² with the kernel (x·y / D + 1)³, as the full-sample U-statistic, not as a mean over subsets. The standard
    error is of first order: from the variance of the contribution of each sample.
    """
    x, y = generated.astype(np.float64), real.astype(np.float64)
    n, m = len(x), len(y)
    within_x = (_row_sums(x, x) - _kernel_diagonal(x)) / (n - 1)
    within_y = (_row_sums(y, y) - _kernel_diagonal(y)) / (m - 1)
    across_x, across_y = _row_sums(x, y) / m, _row_sums(y, x) / n
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    variance = 4 * (within_x - across_x).var() / n + 4 * (within_y - across_y).var() / m
    return float(value), float(np.sqrt(variance))


def _row_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Σ_j k(a_i, b_j) for each i, computed in blocks of rows."""
    sums = [((a[i : i + _ROWS] @ b.T / a.shape[1] + 1) ** 3).sum(axis=1) for i in range(0, len(a), _ROWS)]
    return np.concatenate(sums)


def _kernel_diagonal(a: np.ndarray) -> np.ndarray:
    return np.asarray((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3)
