"""Locks: one process at a time on every file system, and a dead one frees what it held."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import faults
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
    sys.stdin.readline()
    print(claim.loss(), flush=True)
with locked(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(100)
"""


@contextmanager
def held_by_another(
    path: Path, what: str = "lock", before: str = "", prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a lock or a claim. After a line of input it says how it has lost the claim."""
    command = [*prefix, sys.executable, "-c", before + HOLD, what, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        faults.kill(process)


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
    with held_by_another(tmp_path / "a.lock", before=before) as process:
        with locked(tmp_path / "a.lock", seconds=0) as acquired:
            assert not acquired
        faults.kill(process)
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
    with held_by_another(claim.path, "claim") as process:
        assert not claim.take()
        assert claim.holder() == holder(claim.path) == f"process {process.pid} on {os.uname().nodename}"
        faults.kill(process)
        assert holder(claim.path) is None
        begun = time.monotonic()
        assert claim.take()
        assert time.monotonic() - begun < 1
    assert claim.loss() is None
    claim.release()
    assert holder(claim.path) is None


def rewrite(path: Path, **fields: str) -> None:
    """Rewrite fields of a claim's file in place: the thread of its holder goes on to renew it."""
    lines = [line.partition("=") for line in path.read_text().splitlines()]
    path.write_text("".join(f"{key}{sign}{fields.get(key, value)}\n" for key, sign, value in lines))


@pytest.mark.parametrize(
    "another", [{"host": "elsewhere"}, {"pid": "4194304", "start": f"{(1 << 100) + 5}"}, {"duration": "7.0"}]
)
def test_a_claim_on_another_host_is_taken_only_without_a_sign_of_life(
    another: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host is one of another name, or one of the same name that started at another time.

    So is a claim of another version, which counts on another number of seconds.
    """
    monkeypatch.setattr(locks, "LEASE", 2.0)
    monkeypatch.setattr(locks, "HEARTBEAT", 0.2)
    other, claim = Claim(tmp_path / "claim"), Claim(tmp_path / "claim")
    assert other.take()
    rewrite(other.path, **another)
    begun = time.monotonic()
    assert not claim.take()
    assert time.monotonic() - begun < 1.5
    assert holder(claim.path) == claim.holder()
    other._lease._stop_heartbeat()  # as if that host had lost its power
    begun = time.monotonic()
    assert claim.take()
    assert 1.5 < time.monotonic() - begun < 5
    claim.release()


def test_a_holder_knows_that_another_process_took_its_claim(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claim")
    assert claim.take()
    assert claim.loss() is None
    rewrite(claim.path, host="elsewhere", token="ab")
    assert claim.loss() == f"process {os.getpid()} on elsewhere has it now"
    claim.path.unlink()
    assert claim.loss() == "its file is gone or cannot be read"


def test_a_holder_knows_that_its_claim_could_not_be_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails for longer than the lease, and nobody has taken the claim yet."""
    monkeypatch.setattr(locks, "LEASE", 0.4)
    monkeypatch.setattr(locks, "HEARTBEAT", 0.1)
    claim = Claim(tmp_path / "claim")
    assert claim.take()
    with faults.failing(os, "utime", errno.EIO):
        deadline = time.monotonic() + 5
        while claim.loss() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    assert claim.loss() == "its file could not be renewed for 0 s"


@pytest.mark.parametrize("how", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_a_claim_on_another_host_is_taken_once_that_host_is_silent(
    how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other host is real: its name and network are others. A holder that goes on learns who has its claim."""
    faults.require_another_host()
    monkeypatch.setattr(locks, "LEASE", 1.5)
    monkeypatch.setattr(locks, "HEARTBEAT", 0.3)
    before = "from trainables import locks\nlocks.LEASE, locks.HEARTBEAT = 1.5, 0.3\n"
    claim, told = Claim(tmp_path / "claim"), list[str]()
    with held_by_another(claim.path, "claim", before, faults.ELSEWHERE) as process:
        assert not claim.take(told.append)
        assert told == [f"process {process.pid} on elsewhere"]
        process.send_signal(how)
        assert claim.take() or claim.take(), "the signal may have come after one more sign of life"
        process.send_signal(signal.SIGCONT)
        if how != signal.SIGKILL:
            out, _ = process.communicate("\n", timeout=10)
            assert out == f"process {os.getpid()} on {os.uname().nodename} has it now\n"
    assert claim.loss() is None
    claim.release()
