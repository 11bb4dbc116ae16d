"""The scores' sums on a device are those of numpy, to rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.trainables import built
from trainables.errors import UserError
from trainables.images import Images
from trainables.latents import latents
from trainables.rendering import render
from trainables.scores import kid as on_host
from trainables.scores import on_device, tally
from trainables.scores.features import TorchFeatures
from trainables.scores.fid import Moments
from trainables.scores.on_device import DeviceMoments, DeviceTally, make_tally
from trainables.scores.sharpness import sharpness
from trainables.scores.tally import Reference, Tally

RANDOM = np.random.default_rng(0)
EXACT = {"rel": 1e-9, "abs": 1e-12}


class Pooled(TorchFeatures):
    """16 features and 3 logits: patches of the image, multiplied."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 3), "pooled", 16, "none", batch_size=70)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        patches = nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).mean(1).flatten(1)
        return {16: patches, 4: patches[:, :4].square()}, self.network(patches)


@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_is_that_of_numpy(channels: int) -> None:
    images = RANDOM.integers(0, 256, (20, channels, 9, 7), dtype=np.uint8)
    found = on_device.sharpness(torch.from_numpy(images)).numpy()
    assert found == pytest.approx(sharpness(images), rel=1e-12)


def test_moments_are_those_of_numpy() -> None:
    features = RANDOM.standard_normal((50, 6)).astype(np.float32)
    here, there = Moments(6), DeviceMoments(6, torch.device("cpu"))
    for part in (features[:20], features[20:]):
        here.add(part)
        there.add_tensor(torch.from_numpy(part))
    assert there.n == here.n
    assert there.mean == pytest.approx(here.mean, **EXACT)
    assert there.covariance == pytest.approx(here.covariance, **EXACT)


def test_kid_and_its_error_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "_ROWS", 7)
    x, y = (RANDOM.standard_normal((n, 5)).astype(np.float32) for n in (30, 40))
    assert on_device.kid(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(on_host.kid(x, y), **EXACT)


@pytest.mark.parametrize("n", [10, 200])
def test_all_scores_of_a_generator_are_those_of_the_host(n: int, digits: Images) -> None:
    features, generator, z = Pooled(), built.generator(2), latents("rung", 0, n)
    real = Reference.of(Tally(features, 300).add_all([digits.pixels[:300]]))
    here = Tally(features, n).add_rendered(generator, z[:4]).add_rendered(generator, z[4:])
    there = DeviceTally(features, n).add_rendered(generator, z[:4]).add(render(generator, z[4:]))
    assert there.fid(real, 16) == pytest.approx(here.fid(real, 16), **EXACT)
    assert there.kid(real, 16) == pytest.approx(here.kid(real, 16), **EXACT)
    assert there.sharpness == pytest.approx(here.sharpness, **EXACT)
    assert there.inception_score.value == pytest.approx(here.inception_score.value, **EXACT)
    assert np.array_equal(there.sample(16), here.sample(16))


def test_the_reference_of_the_device_is_that_of_the_host(digits: Images) -> None:
    pixels = digits.pixels[:100]
    here, there = (Reference.of(kind(Pooled(), 100, [16, 4]).add(pixels)) for kind in (Tally, DeviceTally))
    for d in (16, 4):
        assert there.statistics[d].covariance == pytest.approx(here.statistics[d].covariance, **EXACT)


def test_a_wrong_image_is_refused_as_on_the_host() -> None:
    with pytest.raises(UserError, match="too small to score"):
        DeviceTally(Pooled(), 2).add(np.zeros((2, 1, 2, 2), dtype=np.uint8))
    with pytest.raises(UserError, match="dims=5: pooled has no such features"):
        DeviceTally(Pooled(), 2, [5]).add(np.zeros((2, 1, 8, 8), dtype=np.uint8))


def test_the_device_of_the_features_decides() -> None:
    features = Pooled()
    assert type(make_tally(features, 5)) is Tally
    with FakeTensorMode():
        features.device = torch.device("cuda")
        assert type(make_tally(features, 5)) is DeviceTally


def test_nothing_is_copied_to_the_host_before_it_is_read() -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        moments = DeviceMoments(4, device)
        moments.add_tensor(torch.empty(3, 4, device=device))
        assert moments.outer.device.type == "cuda"
        assert on_device.sharpness(torch.empty(3, 3, 8, 8, dtype=torch.uint8, device=device)).device.type == "cuda"


class Stopping(Pooled):
    """Stops after two batches, once."""

    stops, batches = True, 0

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        self.batches += 1
        if self.stops and self.batches > 2:
            raise KeyboardInterrupt
        return super().forward(images)


@pytest.mark.parametrize("kind", [Tally, DeviceTally])
def test_statistics_that_are_interrupted_resume_bit_for_bit(
    kind: type[Tally], digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "PART_SECONDS", -1.0)
    pixels = digits.pixels[:50]
    batches = [pixels[start : start + 10] for start in range(0, 50, 10)]
    network, told = Stopping(), list[int]()
    monkeypatch.setattr(Stopping, "stops", False)
    Reference.cached(tmp_path / "whole.safetensors", kind(network, 50), batches)
    network.batches = 0
    monkeypatch.setattr(Stopping, "stops", True)
    with pytest.raises(KeyboardInterrupt):
        Reference.cached(tmp_path / "real.safetensors", kind(network, 50), batches)
    monkeypatch.setattr(Stopping, "stops", False)
    Reference.cached(tmp_path / "real.safetensors", kind(network, 50), batches, lambda done, _: told.append(done))
    assert told == [30, 40, 50], "the first two batches were not computed again"
    assert (tmp_path / "real.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_a_damaged_part_of_the_statistics_is_not_used(digits: Images, tmp_path: Path) -> None:
    pixels = digits.pixels[:20]
    (tmp_path / "real.partial.safetensors").write_bytes(b"damaged")
    found = Reference.cached(tmp_path / "real.safetensors", Tally(Pooled(), 20), [pixels])
    assert found.sharpness == Reference.of(Tally(Pooled(), 20).add(pixels)).sharpness
