"""A trial's sample grid."""

from pathlib import Path

import numpy as np
import pytest

from sweeper.execution.samples import load_samples, save_samples
from tests.trainables.test_tensors import KINDS, instead
from trainables import notes


@pytest.mark.parametrize("what", KINDS)
def test_a_damaged_grid_is_left_out(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "notes", [])
    path = tmp_path / "samples-8.png"
    save_samples(path, np.random.default_rng(0).integers(0, 255, (32, 1, 32, 32), dtype=np.uint8))
    assert len(load_samples(path, 12)) == 12
    instead(path, what)
    assert load_samples(path, 12) == []
    if what in ("half of it", "nothing", "a text", "zeros"):
        assert notes.notes == [f"{path} is damaged; its samples are left out"]
