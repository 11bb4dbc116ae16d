"""Disks that are full or read-only, for tests. They are file systems in memory, which only root can mount."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount an empty disk of a size such as 2m at a folder for the block. Skip the test without the permission."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() or not sys.platform.startswith("linux"):
        pytest.skip("only root on Linux can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a small disk: `size=64m`, `ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Write a file that leaves so many bytes free on a disk. Delete it to free them."""
    path = folder / "filler.bin"
    with open(path, "wb", buffering=0) as file:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        os.posix_fallocate(file.fileno(), 0, max(free - leave, 1))
    return path
