"""Bank: the teacher renders each shard once, also when the disk is full or a shard is corrupt."""

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import faults
from tests.trainables.test_tensors import KINDS, instead
from trainables import notes, tensors
from trainables.bank import SHARD, STREAM, Bank, missing, shard_path
from trainables.latents import latents
from trainables.teacher_images import TeacherImages


def teacher(z: np.ndarray) -> np.ndarray:
    """Return images [N, 1, 4, 4] that depend only on z."""
    return (np.abs(z[:, :16]) * 50).astype(np.uint8).reshape(-1, 1, 4, 4)


def random_indices(count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, size)


class CountingTeacher:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, z: np.ndarray) -> np.ndarray:
        self.calls.append(len(z))
        return teacher(z)


def test_each_shard_is_rendered_once_and_images_match_their_latents(tmp_path: Path) -> None:
    counting, count = CountingTeacher(), 3 * SHARD - 5
    for bank in (Bank(tmp_path, count, TeacherImages(counting)), Bank(tmp_path, count, TeacherImages(counting))):
        for seed in range(9):
            indices = random_indices(count, seed=seed)
            z, images = bank(indices)
            assert np.array_equal(z, latents(STREAM, 0, count)[indices])
            assert np.array_equal(images, teacher(z))
    assert counting.calls == [SHARD] * 3


def test_a_larger_bank_reuses_the_shards_of_a_smaller_one(tmp_path: Path) -> None:
    counting = CountingTeacher()
    Bank(tmp_path, 10, TeacherImages(counting))(np.arange(10))
    assert (missing(tmp_path, 10), missing(tmp_path, SHARD + 1)) == (0, SHARD)
    Bank(tmp_path, 2 * SHARD, TeacherImages(counting))(np.arange(2 * SHARD))
    assert counting.calls == [SHARD, SHARD]


@given(st.lists(st.integers(0, 2 * SHARD - 1), min_size=1, max_size=50))
@settings(max_examples=25, deadline=None)
def test_a_batch_holds_the_latents_and_images_of_its_indices(indices: list[int]) -> None:
    bank = Bank(Path(os.devnull) / "bank", 2 * SHARD, TeacherImages(teacher))
    z, images = bank(np.array(indices))
    assert np.array_equal(images, teacher(latents(STREAM, 0, 2 * SHARD)[indices]))
    images[:] = 0  # a batch is a copy: writing to it does not change the bank
    assert np.array_equal(bank(np.array(indices))[1], teacher(z))


def test_a_full_disk_is_reported_once_and_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "notes", [])
    counting = CountingTeacher()
    bank = Bank(tmp_path, 3 * SHARD, TeacherImages(counting))
    with faults.failing(np, "save", errno.ENOSPC):
        for seed in range(3):
            z, images = bank(random_indices(3 * SHARD, seed=seed))
            assert np.array_equal(images, teacher(z))
    assert counting.calls == [SHARD] * 3
    (message,) = notes.notes
    assert "No space left on device" in message
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*tmp"))


def test_a_bank_without_a_folder_stays_in_memory_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "notes", [])
    counting = CountingTeacher()
    bank = Bank(None, 100, TeacherImages(counting))
    for seed in range(2):
        bank(random_indices(100, seed=seed))
    assert counting.calls == [SHARD]
    assert not notes.notes


@pytest.mark.parametrize("what", [*KINDS, "another shape", "another bit"])
def test_a_damaged_shard_is_rendered_again_and_said_once(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "notes", [])
    Bank(tmp_path, 10, TeacherImages(teacher))(np.arange(10))
    path = shard_path(tmp_path, 0)
    if what == "another shape":
        np.save(path, np.zeros((SHARD, 1, 8, 8), dtype=np.uint8))
    elif what == "another bit":
        content = bytearray(path.read_bytes())
        content[5_000] ^= 1  # of an image
        path.write_bytes(content)
    else:
        instead(path, what)
    for _ in range(2):
        z, images = Bank(tmp_path, 10, TeacherImages(teacher), (1, 4, 4))(np.arange(10))
        assert np.array_equal(images, teacher(z))
    if what != "a link to nothing":
        (note,) = notes.notes
        assert "000000.npy is " in note
        assert "set aside as 000000.npy.spoiled; the teacher's images are rendered again" in note


def test_a_shard_of_an_older_version_has_no_checksum_and_is_used(tmp_path: Path) -> None:
    np.save(shard_path(tmp_path, 0), teacher(latents(STREAM, 0, SHARD)))
    counting = CountingTeacher()
    z, images = Bank(tmp_path, 10, TeacherImages(counting))(np.arange(10))
    assert np.array_equal(images, teacher(z))
    assert not counting.calls


def test_a_shard_is_verified_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bank(tmp_path, 10, TeacherImages(teacher))(np.arange(10))
    reads: list[Path] = []
    verify = tensors._digest

    def noting(file: BinaryIO, size: int) -> bytes:
        reads.append(Path(file.name))
        return verify(file, size)

    monkeypatch.setattr(tensors, "_digest", noting)
    bank = Bank(tmp_path, 10, TeacherImages(teacher))
    for _ in range(3):
        bank(np.arange(10))
    assert reads == [shard_path(tmp_path, 0)]


def test_a_deleted_shard_stays_mapped_where_it_is_open_and_is_rendered_again_elsewhere(tmp_path: Path) -> None:
    first = Bank(tmp_path, 10, TeacherImages(teacher))
    _, images = first(np.arange(10))
    shutil.rmtree(tmp_path)
    assert np.array_equal(first(np.arange(10))[1], images)
    assert np.array_equal(Bank(tmp_path, 10, TeacherImages(teacher))(np.arange(10))[1], images)


def slow_teacher(z: np.ndarray) -> np.ndarray:
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    return teacher(z)


def read_bank(folder: Path) -> None:
    bank = Bank(folder, 4 * SHARD, TeacherImages(slow_teacher))
    for seed in range(20):
        z, images = bank(random_indices(4 * SHARD, seed=seed))
        assert np.array_equal(images, teacher(z))


def test_processes_that_start_together_render_each_shard_once_and_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_bank, args=(tmp_path / "bank",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    renderers = (tmp_path / "calls").read_text().split()
    assert len(renderers) == 4
    assert len(set(renderers)) == 4, "a process waited instead of rendering another shard"
