"""Features: the digits' classifier, Inception from pytorch-fid's file, a network from a package, a custom network."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pytorch_fid import inception as reference

from tests.trainables import built
from trainables.errors import EnvironmentUserError, UserError
from trainables.images import Images
from trainables.scores.classifier import Classifier, classifier
from trainables.scores.features import Activations
from trainables.scores.inception import Inception, inception_weights
from trainables.scores.loading import FEATURES, download_weights, feature_network, load_features
from trainables.scores.scorer import Scorer
from trainables.scores.tally import Tally


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="module")
def scorer(digits: Images, cache: Path) -> Scorer:
    """Train the classifier, in about 10 s."""
    return Scorer(digits, cache)


def scores_of(scorer: Scorer, images: np.ndarray) -> dict[str, float]:
    tally = Tally(scorer.features, len(images)).add(images)
    dims = scorer.features.dims
    return {"fid": tally.fid(scorer.reference, dims), "is": tally.inception_score.value, "sharpness": tally.sharpness}


def test_the_classifier_is_accurate_on_held_out_digits(scorer: Scorer) -> None:
    assert isinstance(scorer.features, Classifier)
    assert scorer.features.accuracy > 0.96
    real_is = scorer.real["is"]
    assert real_is is not None
    assert 9.3 < real_is < 10


def test_the_classifier_is_cached(scorer: Scorer, digits: Images, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.scores.classifier._fit", None)
    cached = Scorer(digits, cache)
    assert cached.features.name == scorer.features.name
    assert cached.real == scorer.real


def test_a_classifier_s_weights_are_deterministic(digits: Images, scorer: Scorer, tmp_path: Path) -> None:
    """The protocol is the same in every process and on every machine. Trains again, in about 10 s."""
    assert classifier(digits, tmp_path).name == scorer.features.name


def test_real_digits_score_better_than_noise_and_a_collapsed_generator_scores_1(scorer: Scorer, digits: Images) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (500, 1, 32, 32), dtype=np.uint8)
    real, collapsed = scores_of(scorer, digits.pixels[::10]), scores_of(scorer, np.zeros_like(noise))
    assert real["fid"] < 10 < scores_of(scorer, noise)["fid"]
    assert real["is"] > 9
    assert collapsed["is"] == pytest.approx(1, abs=1e-6)
    assert np.isfinite(collapsed["fid"])
    assert collapsed["sharpness"] == 0


def test_scores_have_a_protocol_that_differs_by_purpose(scorer: Scorer) -> None:
    network = built.generator(1)
    scores = [scorer(network, purpose, 50) for purpose in ("rung", "selection", "report")]
    assert len({score["fid"]["protocol"] for score in scores}) == 3
    assert [score["fid"]["std"] is None for score in scores] == [True, True, False]
    assert scores[0]["fid"]["mean"] != scores[1]["fid"]["mean"]
    assert "kid" in scores[2]
    assert scorer.features.preprocessing in scores[0]["fid"]["protocol"]


def test_a_score_is_repeatable(scorer: Scorer) -> None:
    network = built.generator(1, seed=3)
    assert scorer(network, "rung", 50) == scorer(network, "rung", 50)


def test_missing_inception_weights_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EnvironmentUserError, match=r"pt_inception-2015-12-05-6726825d\.pth; add --download"):
        Inception()


def test_a_damaged_file_of_inception_s_weights_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    inception_weights().parent.mkdir(parents=True)
    inception_weights().write_bytes(b"PK half")
    with pytest.raises(EnvironmentUserError, match=r"does not load .* if it is not pytorch-fid's weights file"):
        Inception()


@contextmanager
def release(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a file in place of pytorch-fid's release, under a name with the hash of b"weights"."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        name = f"pt_inception-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
        monkeypatch.setattr(reference, "FID_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/{name}")
        yield
        server.shutdown()


def test_inception_s_weights_are_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with release(b"weights", monkeypatch):
        download_weights(["classifier", None])
        assert not inception_weights().exists()
        download_weights(["inception"])
        assert inception_weights().read_bytes() == b"weights"
    download_weights(["inception"])  # nobody answers any more


@pytest.mark.parametrize("content", [b"weight", b"", b"<html>"])
def test_a_download_with_another_hash_is_not_kept(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with (
        release(content, monkeypatch),
        pytest.raises(EnvironmentUserError, match=r"cannot be downloaded from http.*invalid hash value"),
    ):
        download_weights(["inception"])
    assert not list(tmp_path.rglob("*.p*"))


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with release(b"weights", monkeypatch):
        pass
    with pytest.raises(EnvironmentUserError, match="Connection refused") as caught:
        download_weights(["inception"])
    assert str(inception_weights()) in str(caught.value)
    assert "\n" not in str(caught.value)


def save_random_weights(path: Path) -> None:
    """Save pytorch-fid's network with seeded random weights as a weights file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with (
        patch.object(reference, "load_state_dict_from_url", return_value={}),
        patch.object(torch.nn.Module, "load_state_dict"),
    ):
        network = reference.fid_inception_v3()
    torch.save(network.state_dict(), path)


def test_inception_s_features_of_all_four_dims_are_pytorch_fid_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Images
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    save_random_weights(inception_weights())
    activations = Inception()(digits.pixels[:3])
    assert sorted(activations.features) == [64, 192, 768, 2048]
    network = reference.InceptionV3([0, 1, 2, 3]).eval()
    with torch.no_grad():
        blocks = network(torch.tensor(digits.pixels[:3]).repeat(1, 3, 1, 1).float() / 255)
    for block in blocks:
        features, expected = activations.features[block.shape[1]], block.mean((2, 3)).numpy()
        assert np.abs(features - expected).max() <= 2e-5 * np.abs(expected).max()


def test_the_network_of_the_optional_packages_separates_digits(digits: Images, tmp_path: Path) -> None:
    network = load_features("imagenet", None, tmp_path)
    features = network(digits.pixels[[0, 1, 2500]]).features[1280]
    assert features.shape == (3, 1280)
    near, far = np.square(features[0] - features[1]).sum(), np.square(features[0] - features[2]).sum()
    assert near < far  # two zeros are closer to each other than to a five


class Mean:
    """A custom network: the mean of each channel, as three dimensions."""

    name, dims, preprocessing = "mean-1", 3, "none"

    def __call__(self, images: np.ndarray) -> Activations:
        return Activations({3: np.repeat(images.mean((2, 3)), 3 // images.shape[1], axis=1).astype(np.float32)})


def test_a_custom_network_can_be_registered(tmp_path: Path) -> None:
    feature_network(macs=1.0)(mean)
    try:
        assert load_features("mean", None, tmp_path).name == "mean-1"
    finally:
        del FEATURES["mean"]


def mean(images: Images | None, cache: Path) -> Mean:
    return Mean()


def test_an_unknown_or_incomplete_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="features=vgg is unknown; it is one of classifier, inception, imagenet"):
        load_features("vgg", None, tmp_path)
    monkeypatch.delattr(Mean, "name")
    feature_network(macs=1.0)(mean)
    try:
        with pytest.raises(UserError, match="features=mean has no name"):
            load_features("mean", None, tmp_path)
    finally:
        del FEATURES["mean"]


def test_the_classifier_needs_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs classes"):
        load_features("classifier", None, tmp_path)


def test_statistics_do_not_depend_on_the_batches(digits: Images) -> None:
    whole = Tally(Mean(), 50).add(digits.pixels[:50])
    parts = Tally(Mean(), 50).add_all([digits.pixels[:7], digits.pixels[7:50]])
    assert np.allclose(whole.moments[3].covariance, parts.moments[3].covariance)
    assert np.array_equal(whole.sample(3), parts.sample(3))
    assert whole.sharpness == pytest.approx(parts.sharpness)


def test_a_fixed_random_sample_of_many_images_is_kept(digits: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.scores.tally.SAMPLE", 10)
    pixels = digits.pixels[:200]
    sample = Tally(Mean(), 200).add_all([pixels[:150], pixels[150:]]).sample(3)
    assert len(sample) == 10
    assert np.array_equal(sample, Tally(Mean(), 200).add(pixels).sample(3))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_are_refused(n: int) -> None:
    with pytest.raises(UserError, match=f"at least 2 images, not {n}"):
        Tally(Mean(), n)


def test_dims_that_a_network_does_not_have_are_refused(digits: Images) -> None:
    with pytest.raises(UserError, match="dims=5: mean-1 has no such features; it has 3"):
        Tally(Mean(), 2, [5]).add(digits.pixels[:2])


def test_images_too_small_are_refused() -> None:
    with pytest.raises(UserError, match="2×2 are too small"):
        Tally(Mean(), 2).add(np.zeros((2, 1, 2, 2), dtype=np.uint8))
