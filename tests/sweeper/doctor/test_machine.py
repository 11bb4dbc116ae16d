"""The facts about this machine, in folders that a test prepares."""

import fcntl
import os
from pathlib import Path

import pytest

from sweeper.doctor.machine import examine, scratch_file
from sweeper.store import Store


def test_a_quick_look_writes_nothing_that_stays(tmp_path: Path) -> None:
    facts = examine(tmp_path / "new" / "runs", tmp_path, quick=True)
    assert facts.store.problem is None
    assert facts.store.lockable
    assert facts.store.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_the_id_and_the_driver_of_a_store_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    with store.lock():
        facts = examine(store.root, tmp_path, quick=True)
        assert facts.store.id == store.id
        assert facts.store.driver == f"process {os.getpid()} on {os.uname().nodename}"
    assert examine(store.root, tmp_path, quick=True).store.driver is None


@pytest.mark.parametrize("name", ["thesis.tex", "store.json"])
def test_a_folder_that_is_no_store_is_a_problem(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    problem = examine(tmp_path, tmp_path, quick=True).store.problem
    assert problem is not None
    assert "store" in problem


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = examine(tmp_path / "file" / "runs", tmp_path, quick=True).store.problem
    assert problem is not None
    assert "Not a directory" in problem


def test_a_probe_that_another_process_has_locked_is_seen_as_such(tmp_path: Path) -> None:
    with scratch_file(tmp_path / "runs") as probe:
        assert examine(tmp_path / "runs", tmp_path, probe, quick=True).store.sees_probe is False
        with open(probe, "wb") as file:
            assert examine(tmp_path / "runs", tmp_path, probe, quick=True).store.sees_lock is False
            fcntl.flock(file, fcntl.LOCK_EX)  # of another open file: as if of another process
            facts = examine(tmp_path / "runs", tmp_path, probe, quick=True)
        assert (facts.store.sees_probe, facts.store.sees_lock) == (True, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value", "found"), [("LOCAL_RANK", "0", True), ("LOCAL_RANK", "-1", False)])
def test_variables_of_launchers_are_found(name: str, value: str, found: bool, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(name, value)
        assert (name in examine(tmp_path / "runs", tmp_path, quick=True).launcher) is found


@pytest.mark.parametrize(("value", "found"), [("1", False), ("4", True)])
def test_a_world_of_several_processes_is_found(value: str, found: bool, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WORLD_SIZE", value)
        assert bool(examine(tmp_path / "runs", tmp_path, quick=True).launcher) is found
