"""Updates by graphs are those of the plain loop. No card has captured one: a capture is replaced by what it records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import built
from tests.trainables.test_training import JOINT, MSE, PERCEPTUAL, TEACHER, WGAN, run, same, spec_of, weights
from trainables import batches, graphs, resident
from trainables.bank import Bank
from trainables.batches import BankBatches, RealBatches
from trainables.graphs import WARM_UP, is_capturable
from trainables.images import Images
from trainables.rendering import render
from trainables.teacher_images import TeacherImages

KINDS = [TEACHER, {**WGAN, "n_critic": 3}, MSE, {**MSE, "ema": 0.9}, {**JOINT, "ema": 0.9}, {**TEACHER, "d": 8}]
KINDS += [{**TEACHER, "precision": "bf16"}, {**PERCEPTUAL, "fade": 4}]
UPDATES = 9  # a warmup of 3, the warm-up of either phase, and replays of both


class Captures:
    """Captures and replays of graphs, counted."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def capture(self, body: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            body()

        return replay


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(tmp_path_factory.mktemp("bank"), 50, TeacherImages(lambda z: render(built.generator(1, seed=9), z)))


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    """The path of a GPU on a CPU, without streams and graphs. Windows hold few batches, so that they turn."""
    found = Captures()
    monkeypatch.setattr(graphs, "has_graphs", lambda device: True)
    monkeypatch.setattr(graphs, "_aside", lambda body: body())
    monkeypatch.setattr(graphs, "_captured", found.capture)
    monkeypatch.setattr(batches, "lives_on", lambda device: True)
    monkeypatch.setattr(batches, "WINDOW", 40)
    monkeypatch.setattr(resident, "_device_bytes", lambda device: 1e9)
    return found


@pytest.mark.parametrize("fields", KINDS, ids=lambda fields: " ".join(str(value) for value in fields.values()))
def test_updates_by_graphs_are_those_of_the_plain_loop(
    fields: dict[str, Any], digits: Images, bank: Bank, captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, rungs = spec_of(**fields), [4, UPDATES]
    by_graphs = run(spec, rungs, digits, bank)
    assert captures.captured == 1, "the warmup ends before its graph would pay"
    assert captures.replayed == UPDATES - spec.warmup - WARM_UP
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "has_graphs", lambda device: False)
        plain = run(spec, rungs, digits, bank)
    assert same(weights(by_graphs[-1]), weights(plain[-1]))
    assert [rung.losses for rung in by_graphs] == [rung.losses for rung in plain]


def test_a_warmup_has_a_graph_of_its_own(digits: Images, bank: Bank, captures: Captures) -> None:
    run(spec_of(**{**JOINT, "warmup": 5}), [10], digits, bank)
    assert (captures.captured, captures.replayed) == (2, 10 - 2 * WARM_UP)


@pytest.mark.parametrize("fields", [TEACHER, {**WGAN, "n_critic": 3}, {**JOINT, "ema": 0.9}])
@pytest.mark.parametrize("stop", [2, 5])
def test_resumed_equals_uninterrupted(
    fields: dict[str, Any], stop: int, digits: Images, bank: Bank, tmp_path: Path, captures: Captures
) -> None:
    spec, path = spec_of(**fields), tmp_path / "checkpoint.safetensors"
    whole = weights(run(spec, [UPDATES], digits, bank)[-1])
    run(spec, [stop], digits, bank, path)
    assert same(weights(run(spec, [UPDATES], digits, bank, path)[-1]), whole)


def test_a_timed_checkpoint_lies_between_replays(
    digits: Images, bank: Bank, tmp_path: Path, captures: Captures
) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    whole = weights(run(spec, [UPDATES], digits, bank)[-1])
    found = run(spec, [UPDATES], digits, bank, path, checkpoint_seconds=0.0)
    assert same(weights(found[-1]), whole)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (TEACHER, True),
        ({**TEACHER, "precision": "tf32"}, True),
        ({**TEACHER, "precision": "bf16"}, True),
        ({**TEACHER, "precision": "fp16"}, False),
        ({**TEACHER, "compile": True}, False),
        ({**TEACHER, "plugin": "mine-1a2b3c4d"}, False),
        (JOINT, True),
    ],
)
def test_a_trial_has_graphs_by_its_spec_alone(
    fields: dict[str, Any], expected: bool, digits: Images, bank: Bank, captures: Captures
) -> None:
    spec, device = spec_of(**fields), torch.device("cpu")
    real, latent = RealBatches(digits.pixels, spec, device), BankBatches(bank, spec, device)
    assert is_capturable(spec, device, real, latent) == expected


def test_images_that_stay_on_the_host_are_in_no_graph(
    digits: Images, captures: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_device_bytes", lambda device: 1e5)
    spec, device = spec_of(**TEACHER), torch.device("cpu")
    real, latent = RealBatches(digits.pixels, spec, device), BankBatches(None, spec, device)
    assert real.window is None
    assert not is_capturable(spec, device, real, latent)


def test_on_a_cpu_nothing_is_captured() -> None:
    assert not graphs.has_graphs(torch.device("cpu"))
    assert graphs.has_graphs(torch.device("cuda"))
