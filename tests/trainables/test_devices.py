"""The GPU path, tested without a GPU: fake tensors have a shape and a device, but no values.

On fake CPU tensors a whole step runs, and reading a value fails: on a GPU it would make the host wait. On fake CUDA
tensors mixing devices fails. Their backward pass would need a GPU, so it is left out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.trainables import built
from tests.trainables.test_training import JOINT, MSE, TEACHER, WGAN, spec_of
from trainables import batches as data
from trainables import graphs, networks, resident, training
from trainables.bank import Bank
from trainables.rendering import render
from trainables.teacher_images import TeacherImages
from trainables.training import train

KINDS = [TEACHER, WGAN, MSE, {**JOINT, "ema": 0.9}]
STEPS = 5


class RungReached(Exception):
    """All updates are done, and the loop synchronises with the device, as it may at a rung."""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    bank = Bank(tmp_path_factory.mktemp("bank"), 50, TeacherImages(lambda z: render(built.generator(1, seed=9), z)))
    bank(np.arange(50))  # render before tensors are fake
    return bank


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the latent batches that are read, by the host or by a graph."""
    numbers: list[int] = []

    def record(name: str, real: Callable[[Any, Any], Any]) -> None:
        def batch(self: Any, step: Any) -> Any:
            numbers.append(len(numbers))
            return real(self, step)

        monkeypatch.setattr(data.BankBatches, name, batch)

    record("batch", data.BankBatches.batch)
    record("at", data.BankBatches.at)
    return numbers


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Make all tensors fake. Networks are not moved to a device: fake parameters do not support it."""
    monkeypatch.setattr(torch.nn.Module, "_apply", lambda self, function, recurse=True: self)
    monkeypatch.setattr(networks, "_initialise", lambda network, seed: None)
    monkeypatch.setattr(training, "deepcopy", lambda generator: training.build(built.shape(1)))
    monkeypatch.setattr(graphs, "_aside", lambda body: body())
    monkeypatch.setattr(graphs, "_captured", lambda body: body)
    monkeypatch.setattr(resident, "_kept", type(resident._kept)())
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield monkeypatch


@pytest.fixture
def gpu(fake: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulate a GPU of 16 GB."""

    def reached(device: Any = None) -> None:
        raise RungReached

    def properties(device: Any) -> Any:
        return type("Properties", (), {"total_memory": 16e9})

    fake.setattr(training, "build", build_on_gpu)
    fake.setattr(Accelerator, "device", property(lambda self: torch.device("cuda")))
    fake.setattr(torch.Tensor, "backward", lambda self: None)
    fake.setattr(torch.cuda, "synchronize", reached)
    fake.setattr(torch.cuda, "get_device_properties", properties)
    fake.setattr(torch.Tensor, "pin_memory", lambda self: self)
    return fake


def build_on_gpu(*arguments: Any) -> Any:
    with torch.device("cuda"):
        return networks.build(*arguments)


def pixels() -> np.ndarray:
    return np.zeros((20, 1, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("graphed", [False, True])
def test_no_step_waits_for_a_value(
    fields: dict[str, Any], graphed: bool, bank: Bank, batches: list[int], fake: pytest.MonkeyPatch
) -> None:
    spec = spec_of(**fields)
    if graphed:
        fake.setattr(graphs, "has_graphs", lambda device: True)
        fake.setattr(data, "lives_on", lambda device: True)
        fake.setattr(resident, "_device_bytes", lambda device: 16e9)
    with pytest.raises(DataDependentOutputException) as error:
        list(train(spec, [STEPS], pixels=pixels(), bank=bank))
    assert len(batches) == STEPS * spec.n_critic
    function = [entry.name for entry in error.traceback if entry.path.name == "training.py"][-1]
    assert function == "means", "a step reads a value; only a rung may"


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("graphed", [False, True])
def test_no_step_mixes_devices(
    fields: dict[str, Any], graphed: bool, bank: Bank, batches: list[int], gpu: pytest.MonkeyPatch
) -> None:
    spec = spec_of(**fields)
    gpu.setattr(graphs, "has_graphs", lambda device: graphed)
    with pytest.raises(RungReached):
        list(train(spec, [STEPS], pixels=pixels(), bank=bank))
    assert len(batches) == STEPS * spec.n_critic


def test_a_batch_left_on_the_host_is_detected(bank: Bank, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_to_device", lambda batch, device: torch.from_numpy(batch))
    with pytest.raises(RuntimeError, match="device"):
        list(train(spec_of(**MSE), [STEPS], pixels=None, bank=bank))


def test_real_images_are_kept_on_the_gpu_if_they_fit(gpu: None) -> None:
    device, spec = torch.device("cuda"), spec_of(**TEACHER)
    small = data.RealBatches(pixels(), spec, device)
    assert [tensor.device.type for tensor in small.tensors] == ["cuda"]
    large = data.RealBatches(np.broadcast_to(np.uint8(0), (5_000_000, 1, 32, 32)), spec, device)
    assert not large.tensors
    assert large.batch(0).shape == small.batch(0).shape == (8, 1, 32, 32)
