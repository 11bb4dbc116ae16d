"""Inception Score: its bounds, its standard form, invariance to a constant, and merging."""

import numpy as np
import pytest

from trainables.scores.inception_score import InceptionScore


def inception_score(logits: np.ndarray) -> float:
    return InceptionScore().add(logits).value


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_certain_and_uniform_predictions_score_the_number_of_classes(classes: int) -> None:
    assert inception_score(np.eye(classes).repeat(3, axis=0) * 1000) == pytest.approx(classes)


def test_constant_predictions_score_1() -> None:
    assert inception_score(np.tile(np.arange(10.0), (50, 1))) == pytest.approx(1)
    assert inception_score(np.tile([1000.0, 0, 0], (50, 1))) == pytest.approx(1)


def test_a_constant_added_to_the_logits_of_an_image_has_no_effect() -> None:
    logits = np.random.default_rng(0).standard_normal((40, 10)) * 3
    assert inception_score(logits + np.arange(40)[:, None] * 100) == pytest.approx(inception_score(logits))


def test_it_equals_the_standard_form() -> None:
    logits = np.random.default_rng(1).standard_normal((40, 10))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.exp(np.mean([(row * np.log(row / p.mean(0))).sum() for row in p]))
    assert inception_score(logits) == pytest.approx(expected)


def test_merged_scores_are_those_of_the_whole() -> None:
    logits = np.random.default_rng(2).standard_normal((40, 10))
    merged = InceptionScore().add(logits[:13]).merge(InceptionScore().add(logits[13:]))
    assert merged.value == pytest.approx(inception_score(logits), rel=1e-12)
