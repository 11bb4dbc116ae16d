"""Fréchet distance between two sets of features, in float64; no matrix square root at run time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class Moments:
    """Sums of features, fed in batches of any size; merging two is addition. Memory does not grow with n."""

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
        return cls.from_moments(moments.mean, moments.covariance)

    @classmethod
    def from_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> RealStatistics:
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return cls(mean, covariance, root)


def fid_of_moments(mean: np.ndarray, covariance: np.ndarray, real: RealStatistics) -> float:
    """‖m − m_r‖² + tr(S + S_r − 2 (S_r S)^½) (Heusel et al., arXiv 1706.08500).

    tr (S_r S)^½ is the sum of the roots of the eigenvalues of the symmetric R S R, with R = S_r^½.
    """
    return _fid(mean, float(np.trace(covariance)), real.root @ covariance @ real.root, real)


def fid_of_features(features: np.ndarray, real: RealStatistics) -> float:
    """The same of features [n, D] with 2 ≤ n ≤ D, where it is cheaper and more exact: X S_r Xᵀ / (n − 1), n × n with X
    the centred features, has the same non-zero eigenvalues."""
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    trace = float(np.square(centred).sum() / (len(exact) - 1))
    return _fid(mean, trace, centred @ real.covariance @ centred.T / (len(exact) - 1), real)


def _fid(mean: np.ndarray, trace: float, inner: np.ndarray, real: RealStatistics) -> float:
    roots = np.sqrt(np.linalg.eigvalsh(inner).clip(min=0)).sum()
    return float(np.square(mean - real.mean).sum() + trace + np.trace(real.covariance) - 2 * roots)
