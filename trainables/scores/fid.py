"""Fréchet distance between two sets of features, from streaming float64 sums; no matrix square root at run time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class Moments:
    """Sums of features, fed in batches of any size; merging two is addition."""

    def __init__(self, dims: int) -> None:
        self.n = 0
        self._sum = np.zeros(dims)
        self._outer = np.zeros((dims, dims))

    def add(self, features: np.ndarray) -> Moments:
        """features: [N, dims]."""
        exact = features.astype(np.float64)
        self.n += len(exact)
        self._sum += exact.sum(axis=0)
        self._outer += exact.T @ exact
        return self

    def merge(self, other: Moments) -> Moments:
        self.n += other.n
        self._sum += other._sum
        self._outer += other._outer
        return self

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self._sum / self.n)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, as np.cov. Needs n ≥ 2."""
        mean = self.mean
        return np.asarray((self._outer - self.n * np.outer(mean, mean)) / (self.n - 1))


@dataclass(frozen=True)
class RealStatistics:
    """Mean [D] and covariance [D, D] of the real images' features, and the covariance's symmetric root."""

    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, moments: Moments) -> RealStatistics:
        covariance = moments.covariance
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return cls(moments.mean, covariance, root)


def fid(features: np.ndarray, real: RealStatistics) -> float:
    """‖m − m_r‖² + tr(S + S_r − 2 (S_r S)^½) for generated features [n, D] (Heusel et al., arXiv 1706.08500).

    tr (S_r S)^½ is the sum of the roots of the eigenvalues of S_r^½ S S_r^½ or, for n ≤ D, of the n × n matrix
    X S_r Xᵀ / (n − 1) with X the centred features: the same non-zero eigenvalues. Needs n ≥ 2.
    """
    exact = features.astype(np.float64)
    n, dims = exact.shape
    mean = exact.mean(axis=0)
    centred = exact - mean
    trace = float(np.square(centred).sum() / (n - 1))
    if n <= dims:
        inner = centred @ real.covariance @ centred.T
    else:
        projected = centred @ real.root
        inner = projected.T @ projected
    roots = np.sqrt(np.linalg.eigvalsh(inner / (n - 1)).clip(min=0)).sum()
    return float(np.square(mean - real.mean).sum() + trace + np.trace(real.covariance) - 2 * roots)
