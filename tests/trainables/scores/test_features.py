"""Features: the digits' classifier, and Inception's loading code."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pytorch_fid import inception as reference

from trainables.errors import EnvironmentUserError
from trainables.images import Images
from trainables.networks import Generator
from trainables.scores.features import Classifier, Inception, classifier, inception_weights
from trainables.scores.scorer import Scorer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="module")
def scorer(digits: Images, cache: Path) -> Scorer:
    """Trains the classifier: about 15 s."""
    return Scorer(digits, cache)


def test_the_classifier_knows_held_out_digits(scorer: Scorer) -> None:
    assert isinstance(scorer.features, Classifier)
    assert scorer.features.accuracy > 0.96
    assert scorer.real_is is not None
    assert 9.3 < scorer.real_is < 10


def test_the_classifier_is_cached(scorer: Scorer, digits: Images, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.scores.features._fit", None)
    again = Scorer(digits, cache)
    assert again.features.name == scorer.features.name


def test_real_digits_score_better_than_noise_and_noise_than_nothing(scorer: Scorer, digits: Images) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (500, 1, 32, 32), dtype=np.uint8)
    real = scorer.of_images(digits.pixels[::10])
    assert real["fid"] < 10 < scorer.of_images(noise)["fid"]
    assert real["is"] > 9
    assert scorer.of_images(np.zeros_like(noise))["is"] == pytest.approx(1, abs=1e-6)


def test_scores_carry_their_protocol_and_purposes_never_share_one(scorer: Scorer) -> None:
    generator = Generator(1, 32, 1)
    scores = [scorer(generator, purpose, 50)["fid"] for purpose in ("rung", "selection", "report")]
    assert len({score["protocol"] for score in scores}) == 3
    assert [score["std"] is None for score in scores] == [True, True, False]
    assert scores[0]["mean"] != scores[1]["mean"]


def test_a_score_is_repeatable(scorer: Scorer) -> None:
    generator = Generator(1, 32, 1, seed=3)
    assert scorer(generator, "rung", 50) == scorer(generator, "rung", 50)


def test_missing_inception_weights_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EnvironmentUserError, match=r"put the file pt_inception-2015-12-05-6726825d\.pth"):
        Inception()


def test_inception_loads_pytorch_fid_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded random weights stand in for the file: what is tested is the loading, not the numbers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    inception_weights().parent.mkdir(parents=True)
    torch.manual_seed(0)
    with (
        patch.object(reference, "load_state_dict_from_url", return_value={}),
        patch.object(torch.nn.Module, "load_state_dict"),
    ):
        network = reference.fid_inception_v3()
    torch.save(network.state_dict(), inception_weights())
    features, logits = Inception()(np.zeros((2, 1, 32, 32), dtype=np.uint8))
    assert features.shape == (2, 2048)
    assert logits is None


def test_a_classifier_s_weights_are_deterministic(digits: Images, scorer: Scorer, tmp_path: Path) -> None:
    """Another process on another machine must give the same protocol. Trains again: about 15 s."""
    assert classifier(digits, tmp_path).name == scorer.features.name
