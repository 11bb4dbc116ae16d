"""Latents and orders are pure functions of (stream, index)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, truncnorm

from trainables.latents import Order, latents
from trainables.shapes import LatentLaw

LAWS = [LatentLaw(), LatentLaw(7), LatentLaw(30, "uniform"), LatentLaw(30, "truncated", 0.8)]


@given(st.integers(0, 5000), st.integers(0, 300), st.integers(0, 300), st.sampled_from(LAWS))
@settings(max_examples=30)
def test_a_range_is_the_concatenation_of_its_parts(first: int, left: int, right: int, law: LatentLaw) -> None:
    whole = latents("s", first, left + right, law)
    parts = np.concatenate([latents("s", first, left, law), latents("s", first + left, right, law)])
    assert np.array_equal(whole, parts)
    assert whole.shape == (left + right, law.size)


def test_streams_share_no_latent() -> None:
    streams = ["rung", "selection", "report/0", "report/1", "report/2", "bank", "training/0", "training/1", "picture"]
    drawn = np.concatenate([latents(stream, 0, 500) for stream in streams])
    assert len(np.unique(drawn[:, 0])) == len(drawn)


def test_latents_are_standard_normal() -> None:
    z = latents("s", 0, 20_000)
    assert z.shape == (20_000, 100)
    assert z.dtype == np.float32
    assert abs(z.mean()) < 0.005
    assert abs(z.std() - 1) < 0.005


def test_latents_follow_their_law() -> None:
    uniform = latents("s", 0, 20_000, LatentLaw(10, "uniform"))
    assert kstest(uniform.ravel(), "uniform", (-1, 2)).pvalue > 0.01
    truncated = latents("s", 0, 20_000, LatentLaw(10, "truncated", 1.5))
    assert kstest(truncated.ravel(), truncnorm(-1.5, 1.5).cdf).pvalue > 0.01
    assert uniform.dtype == truncated.dtype == np.float32


def test_latents_are_the_same_everywhere() -> None:
    # A golden value: stored scores and banks depend on it.
    assert np.allclose(latents("rung", 0, 1)[0, :3], [1.86377, -0.31846, 0.53943], atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 64), st.integers(0, 20))
@settings(max_examples=50)
def test_a_batch_does_not_depend_on_earlier_draws(size: int, batch: int, index: int) -> None:
    order = Order("s", size)
    for before in range(index):
        order.batch(before, batch)
    assert np.array_equal(order.batch(index, batch), Order("s", size).batch(index, batch))


@given(st.integers(1, 40), st.integers(1, 64))
@settings(max_examples=50)
def test_every_epoch_visits_every_item_once(size: int, batch: int) -> None:
    order = Order("s", size)
    batches = -(-2 * size // batch)
    drawn = np.concatenate([order.batch(i, batch) for i in range(batches)])
    assert sorted(drawn[:size]) == sorted(drawn[size : 2 * size]) == list(range(size))
