"""Checkpoints: a damaged one costs only the updates since the one before, and earlier rungs need no training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainables import checkpoint, notes
from trainables.checkpoint import load, save


@pytest.fixture(autouse=True)
def no_notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(notes, "notes", [])
    return notes.notes


def parts_of(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"generator": network, "optimizer": optimizer}


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def weight(parts: dict[str, Any]) -> torch.Tensor:
    return parts["generator"].weight.detach().clone()


def test_the_newest_two_and_those_of_rungs_stay(tmp_path: Path) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", parts_of(0)
    for updates, at_rung in [(2, False), (4, True), (5, False), (6, False), (7, False), (8, True)]:
        save(path, parts, updates, at_rung=at_rung)
    assert names(path) == [f"checkpoint-{name}.safetensors" for name in ("7", "rung-4", "rung-8")]
    assert checkpoint.updates(path) == 8


def test_a_trial_that_repeats_an_earlier_part_saves_there_and_keeps_its_later_checkpoints(tmp_path: Path) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", parts_of(0)
    for updates, at_rung in [(9, True), (2, False), (3, False), (4, False), (5, True)]:
        save(path, parts, updates, at_rung=at_rung)
    assert names(path) == [f"checkpoint-{name}.safetensors" for name in ("4", "rung-5", "rung-9")]
    assert load(path, parts_of(1), at_most=8) == 5
    assert load(path, parts_of(1), at_most=1) == 0


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES = {
    "a value is changed": lambda content: flip(content, len(content) - 3),
    "the header is changed": lambda content: flip(content, content.index(b"updates") + 11),
    "it is cut": lambda content: content[:-5],
    "it is empty": lambda content: b"",
    "it is something else": lambda content: b"\x93NUMPY" * 50,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_set_aside_with_a_note_and_the_one_before_is_used(
    damage: str, tmp_path: Path, no_notes: list[str]
) -> None:
    path, first, second = tmp_path / "checkpoint.safetensors", parts_of(1), parts_of(2)
    save(path, first, 10, at_rung=True)
    save(path, second, 15, at_rung=False)
    newest = tmp_path / "checkpoint-15.safetensors"
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    restored = parts_of(3)
    assert load(path, restored, at_most=20) == 10
    assert torch.equal(weight(restored), weight(first))
    assert names(path) == ["checkpoint-15.safetensors.spoiled", "checkpoint-rung-10.safetensors"]
    (note,) = no_notes
    assert f"{newest} is damaged" in note
    assert "set aside as checkpoint-15.safetensors.spoiled; the trial goes on from 10 updates" in note
    assert load(path, restored, at_most=20) == 10
    assert len(no_notes) == 1


def test_without_another_one_the_trial_starts_again(tmp_path: Path, no_notes: list[str]) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", parts_of(1)
    (tmp_path / "checkpoint-rung-10.safetensors").mkdir()
    before = weight(parts)
    assert load(path, parts, at_most=20) == 0
    assert torch.equal(weight(parts), before), "nothing was restored"
    assert "is not a regular file; it is set aside" in no_notes[0]
    assert "goes on from 0 updates" in no_notes[0]


def test_one_of_another_network_restores_nothing(tmp_path: Path, no_notes: list[str]) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", parts_of(1)
    save(
        path,
        {"generator": nn.Linear(3, 2), "optimizer": torch.optim.Adam(nn.Linear(4, 2).parameters())},
        9,
        at_rung=True,
    )
    wrong = {"generator": nn.Linear(4, 2), "optimizer": parts["optimizer"]}
    before = weight(wrong)
    assert load(path, wrong, at_most=20) == 0
    assert torch.equal(weight(wrong), before)
    assert "is not of this trial: its generator has another shape" in no_notes[0]


def test_the_checkpoint_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It was one file, without a checksum."""
    path, parts = tmp_path / "checkpoint.safetensors", parts_of(1)
    save(path, parts, 10, at_rung=True)
    new = tmp_path / "checkpoint-rung-10.safetensors"
    arrays, metadata = checkpoint.read_tensors(new)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_file(tensors, path, metadata={key: value for key, value in metadata.items() if key != "checksum"})
    new.unlink()
    restored = parts_of(3)
    assert load(path, restored, at_most=10) == 10
    assert torch.equal(weight(restored), weight(parts))
    assert names(path) == ["checkpoint-rung-10.safetensors"]
