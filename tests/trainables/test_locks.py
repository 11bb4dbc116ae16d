"""Locks: one process at a time on every file system, and a dead one frees what it held."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainables import locks
from trainables.locks import Claim, holder, locked, made_once

WITHOUT_FLOCK = """
import fcntl
def flock(*_): raise OSError({number}, "no locks available")
fcntl.flock = flock
"""
HOLD = """
import sys, time
from pathlib import Path
from trainables.locks import Claim, locked
if sys.argv[1] == "claim":
    claim = Claim(Path(sys.argv[2]))
    assert claim.take()
    print("held", flush=True)
    time.sleep(100)
with locked(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(100)
"""


@contextmanager
def held_elsewhere(path: Path, what: str = "lock", before: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a lock or a claim."""
    command = [sys.executable, "-c", before + HOLD, what, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_lock_holds_with_and_without_flock_until_its_holder_dies(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ""
    if number is not None:

        def flock(*_: object) -> None:
            raise OSError(number, "no locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
        before = WITHOUT_FLOCK.format(number=number)
    with held_elsewhere(tmp_path / "a.lock", before=before) as process:
        with locked(tmp_path / "a.lock", seconds=0) as acquired:
            assert not acquired
        kill(process)
        begun = time.monotonic()
        with locked(tmp_path / "a.lock", seconds=2) as acquired:
            assert acquired
        assert time.monotonic() - begun < 1


def test_a_file_is_made_once_and_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    with made_once(tmp_path / "a.json") as needed:
        assert needed
        (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.lock").unlink()
    with made_once(tmp_path / "a.json") as needed:
        assert not needed
    assert not (tmp_path / "a.lock").exists(), "reading needs no lock"


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claim")
    with held_elsewhere(claim.path, "claim") as process:
        assert not claim.take()
        assert claim.holder() == holder(claim.path) == f"process {process.pid} on {os.uname().nodename}"
        kill(process)
        assert holder(claim.path) is None
        begun = time.monotonic()
        assert claim.take()
        assert time.monotonic() - begun < 1
    assert not claim.lost()
    claim.release()
    assert holder(claim.path) is None


def held_on_another_host(path: Path) -> None:
    """Rewrite a claim as if another host had it."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join("host=elsewhere" if line.startswith("host=") else line for line in lines) + "\n")


def test_a_claim_on_another_host_is_taken_only_without_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE", 2.0)
    monkeypatch.setattr(locks, "HEARTBEAT", 0.2)
    other, claim = Claim(tmp_path / "claim"), Claim(tmp_path / "claim")
    assert other.take()
    held_on_another_host(other.path)  # its thread goes on to renew it
    begun = time.monotonic()
    assert not claim.take()
    assert time.monotonic() - begun < 1.5
    assert claim.holder() == f"process {os.getpid()} on elsewhere"
    other._lease._stop_heartbeat()  # as if that host had lost its power
    begun = time.monotonic()
    assert claim.take()
    assert 1.5 < time.monotonic() - begun < 5
    claim.release()


def test_a_holder_knows_that_another_process_took_its_claim(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claim")
    assert claim.take()
    assert not claim.lost()
    held_on_another_host(claim.path)
    assert claim.lost()
    claim.path.unlink()
    assert claim.lost()
