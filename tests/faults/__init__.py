"""Faults for tests: processes that are killed, other hosts, calls that fail, ports that stay silent.

Disks, Ray nodes and hosts with SSH are in modules of their own. The tests that inject faults use this package.

Processes of one test are found by a variable of their environment, which children inherit, those of Ray included.
"""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

_MARK = "SWEEPER_TEST_MARK"
# Runs a command, with the same process id, where the host's name is "elsewhere" and its network is another one.
ELSEWHERE = ["unshare", "--uts", "--net", "sh", "-c", 'hostname elsewhere; ip link set lo up; exec "$@"', "sh"]


class Command:
    """A `sweeper` command in a session of its own, and everything that it starts."""

    def __init__(
        self,
        words: list[str],
        cwd: Path,
        prefix: Sequence[str] = (),
        program: Sequence[str] = (str(Path(sys.executable).with_name("sweeper")),),
        **environment: str,
    ) -> None:
        """prefix: a command that runs it, such as ELSEWHERE. program: what runs in the place of `sweeper`."""
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [*prefix, *program, *words],
            cwd=cwd,
            env={**os.environ, **environment, _MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
        )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave nothing behind, whatever the test has found."""
        for process in self.processes():
            with_suppressed(process.kill)

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Return the living processes of the command whose command line contains `title`."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:  # it has ended, or belongs to another user
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        return self.processes("ray::ResourceTrainable")  # Tune's name for the actor

    def send(self, number: signal.Signals, to_group: bool = False) -> None:
        """Send a signal to the command; to its whole group, as a terminal and Slurm do."""
        (os.killpg if to_group else os.kill)(self.process.pid, number)

    def kill(self, driver: bool = True, workers: bool = False) -> None:
        """Send SIGKILL."""
        for process in self.workers() if workers else []:
            with_suppressed(process.kill)
        if driver:
            self.process.kill()

    def wait(self, seconds: float = 300) -> tuple[int, str]:
        """Return the exit code and what was printed on stderr."""
        _, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, err

    def wait_until(self, happened: Callable[[], object], seconds: float = 300) -> bool:
        """Wait for an event. Return False if the command ended before."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.05)
        return True

    def wait_until_gone(self, seconds: float) -> list[str]:
        """Wait until no process of the command is left. Return those that are."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [str(process) for process in left]


def with_suppressed(call: Callable[[], object]) -> None:
    """Call, and ignore that the process has ended."""
    try:
        call()
    except psutil.Error:
        return


def kill_at_random(command: Command, rng: random.Random, longest: float) -> str:
    """Kill the driver, a worker or both at a random moment. Return what was killed; empty if the command was faster."""
    what = rng.choice(["driver", "worker", "both"])
    moment = time.monotonic() + rng.uniform(0, longest)
    if not command.wait_until(lambda: time.monotonic() > moment and (what == "driver" or command.workers())):
        return ""
    command.kill(driver=what != "worker", workers=what != "driver")
    return what


def require_another_host() -> None:
    """Skip the test where ELSEWHERE cannot be used."""
    if subprocess.run([*ELSEWHERE, "true"], capture_output=True).returncode:
        pytest.skip("only root on Linux can make another host")


def kill(process: subprocess.Popen[Any], group: bool = False) -> None:
    """Kill a process, or its whole group, and wait for its end."""
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


@contextmanager
def failing(owner: Any, name: str, number: int, when: Callable[..., bool] = lambda *_, **__: True) -> Iterator[None]:
    """Have a function raise an error of the operating system in the block. when: for which arguments."""
    original = getattr(owner, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        if not when(*arguments, **options):
            return original(*arguments, **options)
        raise OSError(number, os.strerror(number))

    with mock.patch.object(owner, name, fail):
        yield


@contextmanager
def killed_after(owner: Any, name: str, calls: int) -> Iterator[None]:
    """End the block as by a kill, once a function has been called so many times. Check that it came to this."""
    original, called = getattr(owner, name), 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal called
        if called == calls:
            raise SystemExit("killed")
        called += 1
        return original(*arguments, **options)

    with mock.patch.object(owner, name, fail), pytest.raises(SystemExit, match="killed"):
        yield


@contextmanager
def negative_cache(mount: Path) -> Iterator[None]:
    """Have a folder behave in the block as a client of NFS does, for os.stat, os.open and os.scandir.

    A name that was missing stays missing, whatever other hosts write, until its folder is opened.
    """
    missing: set[str] = set()
    stat, opened, scandir = os.stat, os.open, os.scandir

    def look_up(path: Any) -> None:
        text = os.path.abspath(os.fspath(path))
        names = [str(name) for name in (Path(text), *Path(text).parents) if name.is_relative_to(mount)]
        if missing.intersection(names):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
        if gone := [name for name in names if not os.path.lexists(name)]:
            missing.add(gone[-1])

    def asked_by_name(path: Any) -> bool:
        return isinstance(path, str | os.PathLike)

    def stat_by_memory(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if asked_by_name(path):
            look_up(path)
        return stat(path, *args, **options)

    def open_by_memory(path: Any, flags: int, *args: Any, **options: Any) -> int:
        look_up(path)
        descriptor = opened(path, flags, *args, **options)
        if flags & os.O_DIRECTORY:
            forget(path)
        return descriptor

    def scandir_by_memory(path: Any = ".") -> Any:
        if asked_by_name(path):
            look_up(path)
            forget(path)
        return scandir(path)

    def forget(folder: Any) -> None:
        text = os.path.abspath(os.fspath(folder))
        missing.difference_update([name for name in missing if os.path.dirname(name) == text])

    with (
        mock.patch.object(os, "stat", stat_by_memory),
        mock.patch.object(os, "open", open_by_memory),
        mock.patch.object(os, "scandir", scandir_by_memory),
    ):
        yield


@contextmanager
def silent_port() -> Iterator[str]:
    """Listen on a port, and never answer. Yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def family(process: int) -> list[int]:
    """Return a process and all below it, the deepest last."""
    try:
        return [process, *(child.pid for child in psutil.Process(process).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def wait_for_port(host: str, port: int, seconds: float = 120) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.2)
