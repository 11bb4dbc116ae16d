"""Fréchet distance between two sets of features, in float64, without a matrix square root per evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class Moments:
    """Sums of features and of their outer products, from batches of any size. Memory does not grow with n."""

    def __init__(self, dims: int) -> None:
        self.n = 0
        self._sum = np.zeros(dims)
        self._outer = np.zeros((dims, dims))

    def add(self, features: np.ndarray) -> Moments:
        """Add features [N, dims]. Return self."""
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

    def state(self) -> dict[str, np.ndarray]:
        """Return the sums by name."""
        return {"sum": self._sum, "outer": self._outer}

    def restore(self, n: int, total: np.ndarray, outer: np.ndarray) -> None:
        """Take the sums of n features, as `state` returned them."""
        self.n, self._sum, self._outer = n, total, outer

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self._sum / self.n)

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, as in np.cov. Needs n ≥ 2."""
        mean = self.mean
        return np.asarray((self._outer - self.n * np.outer(mean, mean)) / (self.n - 1))


@dataclass(frozen=True)
class RealStatistics:
    """Mean [D], covariance [D, D] and symmetric root of the covariance, of the real images' features."""

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
    """Return ‖m − m_r‖² + tr(S + S_r − 2 (S_r S)^½) (Heusel et al., arXiv 1706.08500).

    tr (S_r S)^½ is the sum of the roots of the eigenvalues of the symmetric R S R, with R = S_r^½.
    """
    return _fid(mean, float(np.trace(covariance)), real.root @ covariance @ real.root, real)


def fid_of_features(features: np.ndarray, real: RealStatistics) -> float:
    """Return the same distance from features [n, D] with 2 ≤ n ≤ D, where this form is cheaper and more exact.

    X S_r Xᵀ / (n − 1), with X the centred features, is n × n and has the same non-zero eigenvalues as R S R.
    """
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    trace = float(np.square(centred).sum() / (len(exact) - 1))
    return _fid(mean, trace, centred @ real.covariance @ centred.T / (len(exact) - 1), real)


def _fid(mean: np.ndarray, trace: float, inner: np.ndarray, real: RealStatistics) -> float:
    roots = np.sqrt(np.linalg.eigvalsh(inner).clip(min=0)).sum()
    return float(np.square(mean - real.mean).sum() + trace + np.trace(real.covariance) - 2 * roots)
