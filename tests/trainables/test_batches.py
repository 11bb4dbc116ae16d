"""Batches on a device are those of the host; what lives there lives there once."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.test_training import JOINT, TEACHER, WGAN, spec_of
from trainables import bank as banks
from trainables import batches, resident
from trainables.bank import Bank
from trainables.batches import BankBatches, RealBatches
from trainables.networks import build
from trainables.teacher_images import TeacherImages

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (30, 1, 32, 32), dtype=np.uint8)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The path of a GPU, on a CPU of 4 MB; windows of a few batches."""
    monkeypatch.setattr(batches, "lives_on", lambda device: True)
    monkeypatch.setattr(resident, "_device_bytes", lambda device: 4e6)
    monkeypatch.setattr(batches, "WINDOW", 40)
    monkeypatch.setattr(resident, "_kept", type(resident._kept)())
    return monkeypatch


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.setattr(banks, "SHARD", 16)
    return Bank(
        tmp_path / "bank",
        50,
        TeacherImages(lambda z: (z[:, :1, None, None] * 40 % 256).astype(np.uint8).repeat(4, axis=3)),
    )


@pytest.mark.parametrize("fields", [TEACHER, WGAN, {**JOINT, "latents": 50}])
def test_batches_on_a_device_are_those_of_the_host(fields: dict[str, Any], bank: Bank, on_device: Any) -> None:
    spec = spec_of(**fields)
    with on_device.context() as host:
        host.setattr(batches, "lives_on", lambda device: False)
        here = RealBatches(PIXELS, spec, CPU), BankBatches(bank, spec, CPU)
    there = RealBatches(PIXELS, spec, CPU), BankBatches(bank, spec, CPU)
    assert there[0].window is not None
    assert there[1].window is not None
    for step in [*range(12), 3, 40]:  # across windows and epochs, and back
        z, target = there[1].batch(step)
        expected_z, expected_target = here[1].batch(step)
        assert torch.equal(z, expected_z)
        assert (target is None) == (expected_target is None)
        assert target is None or expected_target is None or torch.equal(target, expected_target)
        assert torch.equal(there[0].batch(step), here[0].batch(step))
        row = torch.tensor([there[0].window.turn(step)])
        assert torch.equal(there[0].at(row), here[0].batch(step))
        assert torch.equal(there[1].at(row)[0], expected_z)


def test_a_batch_does_not_depend_on_how_many_are_read_at_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on the order of the steps. Batches that are read together are one read."""
    spec, reads, whole = spec_of(**{**JOINT, "latents": 50}), [], Bank.__call__

    def read(bank: Bank, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reads.append(len(indices))
        return whole(bank, indices)

    monkeypatch.setattr(Bank, "__call__", read)
    found = []
    for together in (1, 3):
        monkeypatch.setattr(batches, "AHEAD", together * spec.batch_size * 32 * 32)
        latent, real = BankBatches(bank, spec, CPU), RealBatches(PIXELS, spec, CPU)
        found.append([(*latent.batch(step), real.batch(step)) for step in (0, 1, 2, 3, 4, 1, 40)])
    assert reads == [spec.batch_size] * 7 + [3 * spec.batch_size] * 4
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("fields", "is_inside"),
    [({}, True), ({"family": "residual"}, False), ({"precision": "bf16"}, False), ({"d": 64}, False)],
)
def test_targets_have_the_order_in_memory_of_the_generator_s_images(
    fields: dict[str, Any], is_inside: bool, bank: Bank
) -> None:
    spec = spec_of(**{**JOINT, **fields})
    z, target = BankBatches(bank, spec, CPU).batch(0)
    assert target is not None
    assert (target.stride(0) == 1) == is_inside
    if spec.precision == "no":
        assert (build(spec.generator)(z).stride(0) == 1) == is_inside


def test_a_window_stays_in_its_place_and_holds_whole_updates(on_device: Any) -> None:
    batch = RealBatches(PIXELS, spec_of(**WGAN), CPU)
    assert batch.window is not None
    batch.batch(0)
    place = batch.window.table.data_ptr()
    batch.batch(batch.window.rows)
    assert batch.window.table.data_ptr() == place
    assert batch.window.rows % spec_of(**WGAN).n_critic == 0


def test_trials_of_one_process_share_what_lives_on_the_device(bank: Bank, on_device: Any) -> None:
    spec = spec_of(**{**JOINT, "latents": 50})
    first, second = (RealBatches(PIXELS, s, CPU) for s in (spec, spec_of(**TEACHER, seed=4)))
    assert first.tensors[0] is second.tensors[0]
    assert BankBatches(bank, spec, CPU).tensors[0] is BankBatches(bank, spec, CPU).tensors[0]


def owner_of(size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.uint8)


def kept(owner: np.ndarray, beside: resident.Tensors = ()) -> resident.Tensors | None:
    return resident.resident(
        owner, CPU, owner.nbytes, lambda: (resident.copied([owner], len(owner), CPU),), beside=beside
    )


def test_what_was_used_least_recently_leaves_first(on_device: Any) -> None:
    owners = [owner_of(400_000) for _ in range(3)]
    first, second = kept(owners[0]), kept(owners[1])
    assert kept(owners[0]) is first
    kept(owners[2])
    assert kept(owners[0]) is first
    assert kept(owners[1]) is not second


def test_what_the_trial_itself_uses_stays(on_device: Any) -> None:
    owners = [owner_of(400_000) for _ in range(3)]
    first = kept(owners[0])
    assert first is not None
    kept(owners[1])
    kept(owners[2], beside=first)
    assert kept(owners[0]) is first
    assert kept(owner_of(700_000), beside=first) is None, "together more than a quarter"


def test_more_than_a_quarter_of_the_device_stays_on_the_host(on_device: Any) -> None:
    assert kept(owner_of(1_000_001)) is None
    assert RealBatches(np.zeros((1_000, 1, 32, 32), dtype=np.uint8), spec_of(**TEACHER), CPU).window is None


def test_what_lives_on_the_device_leaves_with_its_owner(on_device: Any) -> None:
    owner = owner_of(10)
    kept(owner)
    assert len(resident._kept) == 1
    del owner
    gc.collect()
    assert not resident._kept
