"""Atomic writes. Weights are safetensors and records are JSON, so reading a file never executes code."""

import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.errors import naming
from trainables.locks import is_alive


def _mode() -> int:
    """Return the permissions of a new file. Only setting the mask returns it."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _host() -> str:
    """Return the name of this host and, on Linux, of its process namespace: containers count processes separately."""
    try:
        return f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return socket.gethostname()


_MODE = _mode()  # safetensors would write files that only their owner can read
_HOST = _host()
_OWNED_HERE = re.compile(re.escape(_HOST) + r"-([0-9]+)-[0-9a-z_]{6,8}(\.tmp)?$")


def owner_mark() -> str:
    """Return the mark of this process for the name of a temporary file or folder: random characters follow it."""
    return f"{_HOST}-{os.getpid()}-"


def is_abandoned(name: str) -> bool:
    """Return whether the name of a temporary file or folder has the mark of a process that ended on this host."""
    owner = _OWNED_HERE.search(name)
    return owner is not None and not is_alive(int(owner[1]))


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path, and move it to `path` if the block raises no error. durable: call fsync first.

    Raises DiskError if the disk is full or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{owner_mark()}{uuid.uuid4().hex[:6]}.tmp")
    with naming(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.chmod(_MODE)
            if durable:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Give an existing file its final size on the disk, so that writing to a memory map of it cannot fail.

    A write to a map that finds the disk full ends the process. Raises DiskError.
    """
    with naming(path.parent), open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
            return
        done, zeros = file.seek(0, os.SEEK_END), bytes(2**20)
        while done < size:
            done += file.write(zeros[: size - done])
        os.fsync(file.fileno())


def write_json(path: Path, record: Any, durable: bool = True) -> None:
    with replacing(path, durable) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def file_hash(path: Path) -> str:
    """Return the first 12 hex digits of the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
