"""What is read from samples is read only where it is clear."""

import numpy as np
import pytest

from sweeper.adding.measuring import measured_law, measured_range
from trainables.errors import UserError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (0, 255)])
def test_a_range_that_its_images_fill_is_read(low: float, high: float) -> None:
    assert measured_range(None, RNG.uniform(low, high, (9, 3, 8, 8)).astype(np.float32)) == (low, high)


@pytest.mark.parametrize(("low", "high"), [(-0.05, 0.9), (0, 0.1), (-3, 3), (0, 5), (-1, 2), (0, 300)])
def test_a_range_that_is_unclear_is_asked_for(low: float, high: float) -> None:
    images = RNG.uniform(low, high, (9, 3, 8, 8)).astype(np.float32)
    with pytest.raises(UserError, match="say their range"):
        measured_range(None, images)


@pytest.mark.parametrize(("given", "low", "high"), [("-1,1", -1.4, 1.3), ("0,1", -0.05, 0.9), ("0,255", 0, 250)])
def test_a_given_range_counts_if_the_images_are_about_in_it(given: str, low: float, high: float) -> None:
    images = RNG.uniform(low, high, (9, 3, 8, 8)).astype(np.float32)
    assert measured_range(given, images) == tuple(map(float, given.split(",")))


@pytest.mark.parametrize(
    ("given", "low", "high"), [("0,1", -1, 1), ("0,255", -1, 1), ("0,255", 0, 1), ("-1,1", 0, 255)]
)
def test_a_given_range_that_the_images_contradict_is_refused(given: str, low: float, high: float) -> None:
    images = RNG.uniform(low, high, (9, 3, 8, 8)).astype(np.float32)
    with pytest.raises(UserError, match=f"--range {given}: the values of its images are from .*; name the range"):
        measured_range(given, images)


def test_bytes_have_the_range_of_bytes() -> None:
    assert measured_range(None, np.zeros((2, 1, 4, 4), dtype=np.uint8)) == (0, 255)


def test_the_law_of_pairs_is_read_if_their_latents_are_clearly_of_it() -> None:
    normal, uniform = RNG.standard_normal((500, 64)), RNG.uniform(-1, 1, (500, 64))
    assert measured_law(None, None, 64, normal).name == "normal"
    assert measured_law(None, None, 64, uniform).name == "uniform"
    for other in (normal.clip(-2, 2), 2 * uniform, uniform[:9], normal + 1):
        with pytest.raises(UserError, match="the law of its latents cannot be read"):
            measured_law(None, None, 64, other)
    with pytest.raises(UserError, match="beyond ±2"):
        measured_law("truncated", 2.0, 64, normal)
