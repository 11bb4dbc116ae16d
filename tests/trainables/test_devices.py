"""The path of a GPU without one: tensors that are fake (shape and device alone) show where a step would wait or mix.

On fake CPU tensors a whole step runs, and what asks for a value fails: on a GPU it would make the host wait. On fake
CUDA tensors what mixes devices fails; their backward pass would need a card, so it is left out.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.trainables import built
from tests.trainables.test_training import JOINT, MSE, TEACHER, WGAN, spec_of
from trainables import batches as data
from trainables import networks, training
from trainables.bank import Bank
from trainables.rendering import render
from trainables.training import train

KINDS = [TEACHER, WGAN, MSE, {**JOINT, "ema": 0.9}]
STEPS = 5


class RungReached(Exception):
    """All updates are done: the loop waits for the device, as it may at a rung."""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    made = Bank(tmp_path_factory.mktemp("bank"), 50, lambda z: render(built.generator(1, seed=9), z))
    made(np.arange(50))  # the teacher runs before anything is fake
    return made


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches of latents that were taken."""
    taken: list[int] = []
    real = data.BankBatches.batch

    def batch(self: Any, step: int) -> Any:
        taken.append(step)
        return real(self, step)

    monkeypatch.setattr(data.BankBatches, "batch", batch)
    return taken


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Fake tensors from here on. Networks are built where they are to be: moving fake parameters is not supported."""
    monkeypatch.setattr(torch.nn.Module, "_apply", lambda self, function, recurse=True: self)
    monkeypatch.setattr(networks, "_initialise", lambda network, seed: None)
    monkeypatch.setattr(training, "deepcopy", lambda generator: training.build(built.shape(1)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield monkeypatch


@pytest.fixture
def card(fake: pytest.MonkeyPatch) -> None:
    """A fake card of 16 GB."""

    def reached(device: Any = None) -> None:
        raise RungReached

    def properties(device: Any) -> Any:
        return type("Card", (), {"total_memory": 16e9})

    fake.setattr(training, "build", build_on_card)
    fake.setattr(Accelerator, "device", property(lambda self: torch.device("cuda")))
    fake.setattr(Accelerator, "backward", lambda self, loss: None)
    fake.setattr(torch.cuda, "synchronize", reached)
    fake.setattr(torch.cuda, "get_device_properties", properties)
    fake.setattr(torch.Tensor, "pin_memory", lambda self: self)


def build_on_card(*arguments: Any) -> Any:
    with torch.device("cuda"):
        return networks.build(*arguments)


def pixels() -> np.ndarray:
    return np.zeros((20, 1, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("fields", KINDS)
def test_no_step_waits_for_a_value(fields: dict[str, Any], bank: Bank, batches: list[int], fake: Any) -> None:
    spec = spec_of(**fields)
    with pytest.raises(DataDependentOutputException) as caught:
        list(train(spec, [STEPS], pixels=pixels(), bank=bank))
    assert len(batches) == STEPS * spec.n_critic
    waited = [entry.name for entry in caught.traceback if entry.path.name == "training.py"][-1]
    assert waited == "means", "only at the rung"


@pytest.mark.parametrize("fields", KINDS)
def test_no_step_mixes_devices(fields: dict[str, Any], bank: Bank, batches: list[int], card: None) -> None:
    spec = spec_of(**fields)
    with pytest.raises(RungReached):
        list(train(spec, [STEPS], pixels=pixels(), bank=bank))
    assert len(batches) == STEPS * spec.n_critic


def test_a_batch_left_on_the_host_would_be_seen(bank: Bank, card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_moved", lambda batch, device: torch.from_numpy(batch))
    with pytest.raises(RuntimeError, match="device"):
        list(train(spec_of(**MSE), [STEPS], pixels=None, bank=bank))


def test_real_images_live_on_the_card_where_they_fit(card: None) -> None:
    device, spec = torch.device("cuda"), spec_of(**TEACHER)
    small = data.RealBatches(pixels(), spec, device)
    assert small.resident is not None
    assert small.resident.device.type == "cuda"
    large = data.RealBatches(np.broadcast_to(np.uint8(0), (5_000_000, 1, 32, 32)), spec, device)
    assert large.resident is None
    assert large.batch(0).shape == small.batch(0).shape == (8, 1, 32, 32)
