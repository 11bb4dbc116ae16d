"""A latency is measured once per machine and conditions."""

import dataclasses
import errno
import platform
import re
from pathlib import Path

import pytest
import torch

from sweeper.results import latency
from sweeper.results.latency import DEFAULT, Conditions
from sweeper.store import Store
from tests.sweeper.stores import teacher
from trainables.errors import DiskError, EnvironmentUserError, UserError

SHAPE = teacher(1).generator
TORCH = Conditions(runtime="torch")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(latency, "_SECONDS", 0.0)
    monkeypatch.setattr(latency, "_here", [])
    return Store(tmp_path / "runs")


def test_a_latency_is_measured_once_for_each_shape_and_condition(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create()
    first = latency.measured(store, SHAPE, "torch", TORCH)
    assert first.milliseconds > 0
    assert first.bytes >= 4 * SHAPE.parameters
    assert re.fullmatch(r"torch [0-9.]+, 1 CPU thread, 1 image at a time", first.conditions)
    again = latency.measured(store, SHAPE, "torch", Conditions(runtime="torch", batch=3, threads=2))
    assert again.conditions.endswith(", 2 CPU threads, 3 images at a time")
    assert sorted(store.measurements(), key=str) == sorted([again, first], key=str)

    def fail(*_: object) -> None:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(latency, "_measure_torch", fail)
    monkeypatch.setattr(latency, "_here", [])  # as in another process
    assert latency.measured(store, SHAPE, "torch", TORCH) == first
    with pytest.raises(AssertionError):
        latency.measured(store, teacher(2).generator, "torch", TORCH)


def test_onnx_is_measured_in_the_asked_format(store: Store) -> None:
    store.create()
    int8 = latency.measured(store, SHAPE, "onnx-int8", DEFAULT)
    assert 0 < int8.bytes < 4 * SHAPE.parameters
    assert int8.conditions.startswith("onnxruntime ")
    assert store.measurements() == [int8]


def test_another_host_s_latency_is_shown_and_does_not_replace_a_measurement(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create()
    ours = latency.measured(store, SHAPE, "torch", TORCH)
    theirs = dataclasses.replace(ours, host="elsewhere", milliseconds=1e6)
    store.save_measurement(theirs)
    assert latency.known(store)(SHAPE, "torch", TORCH) == ours
    assert len(store.measurements()) == 2
    monkeypatch.setattr(platform, "node", lambda: "a third host")
    monkeypatch.setattr(latency, "_here", [])
    assert latency.known(store)(SHAPE, "torch", TORCH) == theirs, "the newest"
    assert latency.measured(store, SHAPE, "torch", TORCH).host == "a third host"


def test_a_latency_is_known_in_its_process_if_the_store_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DiskError(errno.EROFS, "Read-only file system", str(store.root))

    store.create()
    monkeypatch.setattr(Store, "save_measurement", fail)
    found = latency.measured(store, SHAPE, "torch", TORCH)
    assert latency.known(store)(SHAPE, "torch", TORCH) == found


def test_a_damaged_measurement_is_one_line(store: Store) -> None:
    store.create()
    latency.measured(store, SHAPE, "torch", TORCH)
    (file,) = (store.root / "measured").iterdir()
    file.write_text(file.read_text().replace('"bytes"', '"octets"'))
    with pytest.raises(UserError, match=r"measured/.*\.json is corrupt \(.*bytes"):
        store.measurements()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_without_a_gpu_a_latency_on_it_is_one_line(store: Store, runtime: str) -> None:
    with pytest.raises(EnvironmentUserError, match="no GPU here; leave out --device"):
        latency.measured(store, SHAPE, runtime, Conditions(runtime=runtime, device="cuda"))
