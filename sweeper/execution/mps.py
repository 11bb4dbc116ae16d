"""NVIDIA's MPS: the processes that share a GPU compute at once. Without it the GPU runs one of them at a time."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OFF = "SWEEPER_MPS"  # its value 0 leaves MPS alone
CONTROL = "nvidia-cuda-mps-control"
_FOLDERS = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
_SECONDS = 20.0  # for the daemon and its server to start, and to end
_SET_PARENT_DEATH_SIGNAL = 1
# A process's context on a GPU is the first thing that needs the server. This asks the driver for one, without torch.
_CLIENT = """
import ctypes
driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert driver.cuInit(0) == 0 and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
"""


def is_installed() -> bool:
    return shutil.which(CONTROL) is not None


def runs() -> bool:
    """Return whether processes that start now find a daemon: a user's own, or one of this module."""
    return is_installed() and _ask("get_server_list", {}) is not None


@contextmanager
def shared_gpus() -> Iterator[None]:
    """Run a daemon of its own for the processes that start inside the block, if this machine has a GPU.

    Do nothing if SWEEPER_MPS is 0, if MPS is not installed, or if a daemon runs already. If it does not work here, say
    so in a note.
    """
    import torch

    if os.environ.get(OFF) == "0" or not is_installed() or not torch.cuda.is_available() or runs():
        yield
        return
    before = {name: os.environ[name] for name in _FOLDERS if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="sweeper-mps-") as folder:
        folders = dict.fromkeys(_FOLDERS, folder)
        daemon = _start(folders)
        try:
            if daemon is None or not _answers(daemon, Path(folder), folders):
                print("note: NVIDIA's MPS does not work here: trials that share a GPU run in turn", file=sys.stderr)
            else:
                os.environ.update(folders)
            yield
        finally:
            for name in _FOLDERS:
                os.environ.pop(name, None)
            os.environ.update(before)
            if daemon is not None:
                _end(daemon, folders)


def _start(folders: dict[str, str]) -> "subprocess.Popen[bytes] | None":
    # Each process names GPUs by their numbers on the machine, so that the server is to see all of them.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.Popen(
            [CONTROL, "-f"],
            env=environment | folders,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C reaches the command alone: trials save their checkpoints first
            preexec_fn=_end_with_parent,
        )
    return None


def _answers(daemon: "subprocess.Popen[bytes]", folder: Path, folders: dict[str, str]) -> bool:
    """Wait for the daemon, and return whether a process gets a context on a GPU through it."""
    until = time.monotonic() + _SECONDS
    while not (folder / "control").exists():
        if daemon.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired, OSError):
        command = [sys.executable, "-c", _CLIENT]
        return subprocess.run(command, env=os.environ | folders, capture_output=True, timeout=_SECONDS).returncode == 0
    return False


def _ask(request: str, folders: dict[str, str]) -> str | None:
    """Return a daemon's answer, or None if there is no daemon."""
    with suppress(subprocess.TimeoutExpired, OSError):
        done = subprocess.run(
            [CONTROL], input=f"{request}\n", env=os.environ | folders, capture_output=True, text=True, timeout=_SECONDS
        )
        return done.stdout if done.returncode == 0 else None
    return None


def _end(daemon: "subprocess.Popen[bytes]", folders: dict[str, str]) -> None:
    if daemon.poll() is None:
        _ask("quit", folders)
    try:
        daemon.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # its server, too
        daemon.wait()


def _end_with_parent() -> None:
    """Have the kernel end the daemon if this command is killed."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
