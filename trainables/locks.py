"""Locks between processes and hosts: flock, and a lease on a file system that has no flock."""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, OwnerRecord, SoftFileLease, Timeout

from trainables.errors import naming
from trainables.existence import exists

LEASE = 30.0  # seconds without a sign of life after which a holder on another host is taken for dead
HEARTBEAT = 5.0  # seconds between two signs of life
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[bool]:
    """Hold a lock on a file for the block. Yield False if another process holds it for that many seconds.

    A negative number of seconds waits as long as it takes. The lock of a process that died is free.
    Raises DiskError if the folder cannot be written.
    """
    lock: FileLock | SoftFileLease = FileLock(path, fallback_to_soft=False)
    try:
        with naming(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=seconds)
            except OSError as error:  # a Timeout is one, too
                if error.errno not in _NO_FLOCK:
                    raise
                lock = _lease(path.with_name(f"{path.name}.lease"))
                lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def made_once(path: Path) -> Iterator[bool]:
    """Yield whether the block has to make a file. Of several processes one makes it, and the others wait for that.

    Raises DiskError if the folder cannot be written and the file does not exist.
    """
    if exists(path):
        yield False
        return
    with locked(path.with_suffix(".lock")):
        yield not exists(path)


class Claim:
    """A claim of a folder for days: a file with host, process and start of its holder, which renews its time.

    A dead holder on this host loses the claim at once, one on another host after LEASE seconds. So does a holder that
    was suspended: it asks `loss` before it writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease = _lease(path)

    def take(self, tell: Callable[[str], None] = lambda holder: None) -> bool:
        """Take the claim. Return False if its holder is alive.

        A holder on another host is watched until it gives a sign of life, for at most LEASE seconds. tell: is called
        before that with its process and host. Raises OSError if the file cannot be written.
        """
        seen, owner = _renewed(self.path), self._lease.owner
        is_odd = owner is not None and owner.lease_duration != LEASE  # filelock raises an error about it
        # filelock takes a claim of another boot at once: it expects that this host has started again.
        if is_odd or _is_of_another_boot(owner):
            tell(self.holder())
            deadline = time.monotonic() + LEASE + HEARTBEAT
            while time.monotonic() < deadline:
                if _renewed(self.path) != seen:
                    return False
                time.sleep(0.1)
            if is_odd:
                self._lease.force_break()
        with suppress(Timeout):
            self._lease.acquire(timeout=0.2)
            return True
        if _is_on_this_host(self._lease.owner):
            return False  # it would have been taken from a dead process
        tell(self.holder())
        with suppress(Timeout):
            self._lease.acquire(timeout=LEASE + HEARTBEAT, cancel_check=lambda: _renewed(self.path) != seen)
            return True
        return False

    def release(self) -> None:
        self._lease.release()

    @property
    def token(self) -> str | None:
        """Random hex digits in the file of this hold. None before `take` and after `release`."""
        return self._lease.token

    def loss(self) -> str | None:
        """Return how this process has lost the claim. None if it has it."""
        if self._lease.compromise is not None and self._lease.compromise.reason == "refresh-failed":
            return f"its file could not be renewed for {LEASE:.0f} s"
        return loss(self.path, self.token)

    def holder(self) -> str:
        """Return the process and host that have the claim, as far as their file says."""
        return _named(self._lease.owner)


def holder(path: Path) -> str | None:
    """Return the process and host that have a claim and seem to be alive. None if there are none. Write nothing."""
    renewed, owner = _renewed(path), _lease(path).owner
    if renewed is None or time.time() - renewed / 1e9 > LEASE:
        return None
    if owner and _is_on_this_host(owner) and not is_alive(owner.pid):
        return None
    return _named(owner)


def loss(path: Path, token: str | None) -> str | None:
    """Return how the hold with a token has lost a claim. None if it has it."""
    owner = _lease(path).owner
    if owner is None:
        return "its file is gone or cannot be read"
    return None if owner.token == token else f"{_named(owner)} has it now"


def is_alive(process: int) -> bool:
    """Return whether a process of this id runs on this host."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _lease(path: Path) -> SoftFileLease:
    return SoftFileLease(path, lease_duration=LEASE, heartbeat_interval=HEARTBEAT, thread_local=False)


def _named(owner: OwnerRecord | None) -> str:
    """Return process and host, without the process namespace that filelock adds in a container."""
    return f"process {owner.pid} on {owner.hostname.partition('?')[0]}" if owner else "another process"


def _is_on_this_host(owner: OwnerRecord | None) -> bool:
    """Return whether a holder runs on this host, and in no container: their processes cannot be seen from here."""
    return owner is not None and owner.hostname == socket.gethostname() and not _is_of_another_boot(owner)


def _is_of_another_boot(owner: OwnerRecord | None) -> bool:
    """Return whether a holder began before this host started, or runs on another host of the same name."""
    if owner is None or owner.start is None:
        return False
    boot, here = owner.start >> 64, _boot()
    return 0 not in (boot, here) and boot != here


@cache
def _boot() -> int:
    """Return the number of this start of the host, as filelock writes it above a process's start time. 0: unknown."""
    try:
        return int(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""), 16)
    except (OSError, ValueError):
        return 0


def _renewed(path: Path) -> int | None:
    """Return when a claim was last renewed, in nanoseconds. None if there is no claim."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
