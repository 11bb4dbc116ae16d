"""KID: it is unbiased, and its standard error is calibrated."""

import numpy as np
import pytest

from trainables.scores.fid import Moments, RealStatistics, fid_of_moments
from trainables.scores.kid import kid

DIMS = 8


def draw(generator: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return generator.standard_normal((n, DIMS)) + shift


def test_it_equals_the_u_statistic() -> None:
    generator = np.random.default_rng(0)
    x, y = draw(generator, 30), draw(generator, 40, 0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / DIMS + 1) ** 3)

    def within(a: np.ndarray) -> float:
        return float(np.mean([kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j]))

    across = np.mean([kernel(p, q) for p in x for q in y])
    assert kid(x, y)[0] == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-10)


def test_it_does_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    x, y = draw(generator, 57), draw(generator, 91, 0.5)
    whole = kid(x, y)
    monkeypatch.setattr("trainables.scores.kid._BLOCK", 10)
    assert kid(x, y) == pytest.approx(whole)


def test_its_expectation_does_not_depend_on_n_while_fid_s_does() -> None:
    generator = np.random.default_rng(2)
    means, errors, fids = [], [], []
    for n in (40, 400):
        values, distances = [], []
        for _ in range(60):
            x, y = draw(generator, n, 0.3), draw(generator, 400)
            values.append(kid(x, y)[0])
            moments = Moments(DIMS).add(x)
            real = RealStatistics.of(Moments(DIMS).add(y))
            distances.append(fid_of_moments(moments.mean, moments.covariance, real))
        means.append(np.mean(values))
        errors.append(np.std(values) / len(values) ** 0.5)
        fids.append(np.mean(distances))
    assert abs(means[0] - means[1]) < 4 * np.hypot(*errors)
    assert fids[0] > 1.2 * fids[1]


def test_equal_distributions_score_0_on_average() -> None:
    generator = np.random.default_rng(3)
    values = [kid(draw(generator, 50), draw(generator, 60))[0] for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    assert min(values) < 0  # an unbiased estimate can be negative


def test_its_standard_error_is_the_spread_over_repeated_draws() -> None:
    generator = np.random.default_rng(4)
    estimates = [kid(draw(generator, 200, 0.5), draw(generator, 300)) for _ in range(150)]
    spread = np.std([value for value, _ in estimates])
    assert np.mean([error for _, error in estimates]) == pytest.approx(spread, rel=0.25)
