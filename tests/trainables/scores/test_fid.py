"""FID: closed forms, invariants, and pytorch-fid's function as the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance

from trainables.scores.fid import Moments, RealStatistics, fid_of_features, fid_of_moments


def normal(seed: int, n: int, dims: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, dims)) @ generator.standard_normal((dims, dims)) * scale + shift


def real(features: np.ndarray) -> RealStatistics:
    return RealStatistics.of(Moments(features.shape[1]).add(features))


def fid(features: np.ndarray, against: RealStatistics) -> float:
    """Use the form that `Tally` uses: the Gram form for n ≤ D, else the symmetric form."""
    if len(features) <= features.shape[1]:
        return fid_of_features(features, against)
    moments = Moments(features.shape[1]).add(features)
    return fid_of_moments(moments.mean, moments.covariance, against)


@pytest.mark.parametrize(("n", "dims"), [(500, 20), (20, 50)])
def test_the_distance_of_a_set_from_itself_is_0(n: int, dims: int) -> None:
    features = normal(0, n, dims)
    assert fid(features, real(features)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("n", [500, 10])
def test_equal_covariances_give_the_squared_distance_of_the_means(n: int) -> None:
    features = normal(1, n, 20)
    shift = np.linspace(-1, 1, 20)
    assert fid(features + shift, real(features)) == pytest.approx(np.square(shift).sum(), abs=1e-3)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_distance_is_symmetric(seed: int) -> None:
    a, b = normal(seed, 60, 8), normal(seed + 1, 90, 8, scale=2, shift=0.3)
    assert fid(a, real(b)) == pytest.approx(fid(b, real(a)), rel=1e-8)


@pytest.mark.parametrize(("n", "tolerance"), [(300, 1e-8), (30, 5e-6)])
def test_agrees_with_pytorch_fid(n: int, tolerance: float) -> None:
    a, b = normal(2, n, 64), normal(3, 2000, 64, shift=0.2)
    reference = calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert fid(a, real(b)) == pytest.approx(reference, rel=tolerance)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_merged_moments_are_those_of_the_whole(left: int, right: int) -> None:
    features = normal(4, left + right, 5)
    whole = Moments(5).add(features)
    merged = Moments(5).add(features[:left]).merge(Moments(5).add(features[left:]))
    assert merged.n == whole.n
    assert np.allclose(merged.mean, whole.mean)
    assert np.allclose(merged.covariance, whole.covariance)
    assert np.allclose(whole.covariance, np.cov(features, rowvar=False))


@pytest.mark.parametrize("n", [10, 40])
def test_both_forms_agree(n: int) -> None:
    a, b = normal(6, n, 40), normal(7, 500, 40)
    moments = Moments(40).add(a)
    by_moments = fid_of_moments(moments.mean, moments.covariance, real(b))
    assert fid_of_features(a, real(b)) == pytest.approx(by_moments, rel=5e-6)


def test_agrees_with_pytorch_fid_on_equal_means_and_covariances() -> None:
    a, b = normal(8, 400, 64), normal(9, 500, 64, shift=0.1)
    mean, covariance = a.mean(0), np.cov(a, rowvar=False)
    against = RealStatistics.from_moments(b.mean(0), np.cov(b, rowvar=False))
    reference = calculate_frechet_distance(mean, covariance, against.mean, against.covariance)
    assert fid_of_moments(mean, covariance, against) == pytest.approx(reference, rel=1e-8)


def test_a_collapsed_generator_has_a_finite_distance() -> None:
    assert np.isfinite(fid(np.ones((100, 8)), real(normal(5, 100, 8))))
