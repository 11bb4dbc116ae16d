"""Kernel Inception Distance (Bińkowski et al., arXiv 1801.01401): unbiased, so that it does not move with n."""

import numpy as np

SAMPLE = 10_000  # at most so many images of each side: the kernel is quadratic in them
_ROWS = 1_000


def kid(generated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """(MMD² with the kernel (x·y / D + 1)³, its standard error) of features [n, D] and [m, D].

    The full-sample U-statistic, not a mean over subsets. Its standard error is the first-order one: from the variance
    of each sample's own part. Needs n ≥ 2 and m ≥ 2.
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
    """Σ_j k(a_i, b_j), in blocks of rows."""
    sums = [((a[i : i + _ROWS] @ b.T / a.shape[1] + 1) ** 3).sum(axis=1) for i in range(0, len(a), _ROWS)]
    return np.concatenate(sums)


def _kernel_diagonal(a: np.ndarray) -> np.ndarray:
    return np.asarray((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3)
