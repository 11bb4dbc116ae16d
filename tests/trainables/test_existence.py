"""What another host has written is seen at once, although this host looked for it before."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests import faults
from trainables import checkpoint
from trainables.bank import Bank
from trainables.existence import exists
from trainables.locks import made_once
from trainables.reading import read_record
from trainables.teacher_images import TeacherImages
from trainables.tensors import read_file


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """Return a folder of a network file system. What the tests create there is written by another host."""
    folder = tmp_path / "mount"
    folder.mkdir()
    with faults.negative_cache(folder):
        yield folder


def test_the_cache_of_these_tests_hides_what_another_host_writes(mount: Path) -> None:
    path = mount / "a" / "b.json"
    assert not path.exists()
    path.parent.mkdir()
    path.write_text("{}")
    assert not path.exists()
    assert not path.parent.exists()


def test_a_file_exists_as_soon_as_it_was_written(mount: Path) -> None:
    path = mount / "a" / "b" / "c.json"
    assert not exists(path)
    path.parent.mkdir(parents=True)
    assert not exists(path)
    path.write_text("{}")
    assert exists(path)


def test_a_record_is_read_as_soon_as_it_was_written(mount: Path) -> None:
    path = mount / "trials" / "x" / "record.json"
    assert read_record(path, dict[str, int]) is None
    path.parent.mkdir(parents=True)
    path.write_text('{"a": 1}')
    assert read_record(path, dict[str, int]) == {"a": 1}


def test_what_another_host_has_made_is_not_made_again(mount: Path) -> None:
    path = mount / "facts.json"
    assert not path.exists()
    path.write_text("{}")
    with made_once(path) as needed:
        assert not needed


def test_a_trial_goes_on_from_the_checkpoint_of_another_host(mount: Path) -> None:
    network, path = nn.Linear(1, 1), mount / "trials" / "x" / "checkpoint.safetensors"
    assert checkpoint.updates(path) == 0
    checkpoint.save(mount.parent / "other" / path.name, {"network": network}, 8, at_rung=True)
    path.parent.parent.mkdir()
    (mount.parent / "other").rename(path.parent)
    assert checkpoint.load(path, {"network": network}, at_most=24) == 8


def test_weights_are_read_as_soon_as_they_were_written(mount: Path) -> None:
    path = mount / "generator-24.safetensors"
    assert not path.exists()
    path.write_bytes(b"weights")
    assert read_file(path) == b"weights"


def test_a_shard_of_another_host_is_not_rendered_again(mount: Path) -> None:
    def teacher(z: np.ndarray) -> np.ndarray:
        return np.zeros((len(z), 1, 4, 4), dtype=np.uint8)

    def rendered_again(z: np.ndarray) -> np.ndarray:
        raise AssertionError("it was rendered again")

    assert not (mount / "bank").exists()
    Bank(mount.parent / "other", 10, TeacherImages(teacher))(np.arange(10))
    (mount.parent / "other").rename(mount / "bank")
    Bank(mount / "bank", 10, TeacherImages(rendered_again))(np.arange(10))
