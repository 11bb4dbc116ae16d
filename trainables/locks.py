"""Locks between processes and hosts: flock, and a lease on a file system that has no flock."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout

from trainables.errors import naming

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
    if path.exists():
        yield False
        return
    with locked(path.with_suffix(".lock")):
        yield not path.exists()


class Claim:
    """A claim of a folder for days: a file with host, process and start of its holder, which renews its time.

    A dead holder on this host loses the claim at once, one on another host after LEASE seconds. So does a holder that
    was suspended: it asks `lost` before it writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease = _lease(path)

    def take(self) -> bool:
        """Take the claim. Return False if its holder is alive.

        A holder on another host is watched until it gives a sign of life, for at most LEASE seconds.
        Raises OSError if the file cannot be written.
        """
        with suppress(Timeout):
            self._lease.acquire(timeout=0.2)
            return True
        seen = _renewed(self.path)
        if _is_on_this_host(self._lease):
            return False  # it would have been taken from a dead process
        with suppress(Timeout):
            self._lease.acquire(timeout=LEASE + HEARTBEAT, cancel_check=lambda: _renewed(self.path) != seen)
            return True
        return False

    def release(self) -> None:
        self._lease.release()

    def lost(self) -> bool:
        """Return whether another process has the claim, or nobody."""
        return not self._lease.is_lock_held_by_us

    def holder(self) -> str:
        """Return the process and host that have the claim, as far as their file says."""
        owner = self._lease.owner
        return f"process {owner.pid} on {_host(owner.hostname)}" if owner else "another process"


def holder(path: Path) -> str | None:
    """Return the process and host that have a claim and seem to be alive. None if there are none. Write nothing."""
    claim = Claim(path)
    renewed, owner = _renewed(path), claim._lease.owner
    if renewed is None or time.time() - renewed / 1e9 > LEASE:
        return None
    if owner and _is_on_this_host(claim._lease) and not is_alive(owner.pid):
        return None
    return claim.holder()


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


def _host(name: str) -> str:
    """Return a host's name without the process namespace that filelock adds in a container."""
    return name.partition("?")[0]


def _is_on_this_host(lease: SoftFileLease) -> bool:
    """Return whether the holder runs on this host, and in no container: their processes cannot be seen from here."""
    owner = lease.owner
    return owner is not None and owner.hostname == socket.gethostname()


def _renewed(path: Path) -> int | None:
    """Return when a claim was last renewed, in nanoseconds. None if there is no claim."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
