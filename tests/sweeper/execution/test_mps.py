"""NVIDIA's MPS for the trials of a command, with a stand-in for its daemon. benchmarks/gpu.py runs the real one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sweeper.execution import tune  # isort: split

import pytest
import torch

from sweeper.execution import mps
from sweeper.session import Session

# It answers while its file is there, as the real one answers on its pipe. BROKEN: it ends at once.
STAND_IN = """#!{python}
import os, signal, sys, time
folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "{default}")
control, quits = os.path.join(folder, "control"), os.path.join(folder, "quit")
if "-f" in sys.argv:
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    if os.environ.get("BROKEN"):
        sys.exit(1)
    open("{log}", "a").write(f"{{os.getpid()}}\\n")
    open(control, "w").close()
    while not os.path.exists(quits):
        time.sleep(0.02)
    os.remove(control)
    sys.exit()
if not os.path.exists(control):
    sys.exit(1)
if sys.stdin.read().strip() == "quit":
    open(quits, "w").close()
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the stand-in, with a GPU. Return the file to which each daemon adds its process."""
    (tmp_path / "default").mkdir()
    log, program = tmp_path / "daemons", tmp_path / mps.CONTROL
    program.write_text(STAND_IN.format(python=sys.executable, default=tmp_path / "default", log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in mps._FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mps, "_CLIENT", "")
    log.touch()
    return log


def test_processes_of_the_block_find_a_daemon_and_it_ends_with_the_block(started: Path) -> None:
    with mps.shared_gpus():
        folder = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert mps.runs()
    assert not mps.runs()
    assert not folder.exists()
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert len(started.read_text().split()) == 1


def test_a_folder_of_the_user_s_without_a_daemon_is_kept(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(started.parent / "mine"))
    with mps.shared_gpus():
        assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] != str(started.parent / "mine")
    assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == str(started.parent / "mine")


def test_a_daemon_of_the_user_s_own_is_used(started: Path) -> None:
    (started.parent / "default" / "control").touch()
    with mps.shared_gpus():
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert (started.parent / "default" / "control").exists()
    assert not started.read_text(), "no other was started"


@pytest.mark.parametrize("broken", ["daemon", "client"])
def test_without_a_working_mps_the_command_goes_on_and_says_so(
    broken: str, started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if broken == "daemon":
        monkeypatch.setenv("BROKEN", "1")
    else:
        monkeypatch.setattr(mps, "_CLIENT", "raise SystemExit(1)")
    with mps.shared_gpus():
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert capsys.readouterr().err == "note: NVIDIA's MPS does not work here: trials that share a GPU run in turn\n"


def test_without_a_gpu_nothing_is_started(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with mps.shared_gpus():
        assert not mps.runs()
    assert not started.read_text()


def test_a_user_can_leave_mps_alone(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mps.OFF, "0")
    with mps.shared_gpus():
        assert not mps.runs()
    assert not started.read_text()


@pytest.mark.parametrize(("address", "entered"), [(None, ["mps", "ray"]), ("10.0.0.1:6379", ["ray"])])
def test_a_local_session_starts_it_before_ray_and_a_cluster_s_does_not(
    address: str | None, entered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    log: list[str] = []

    @contextmanager
    def opened(name: str) -> Iterator[None]:
        log.append(name)
        yield

    monkeypatch.setattr(mps, "shared_gpus", lambda: opened("mps"))
    monkeypatch.setattr(tune, "session", lambda slots, improve: opened("ray"))
    request = SimpleNamespace(address=None, slots=None)
    with ExitStack() as stack:
        Session(cast(Any, request), cast(Any, None), stack)._open(stack)
    assert log == entered


@pytest.mark.skipif(sys.platform != "linux", reason="MPS is on Linux")
def test_a_killed_command_leaves_no_daemon(started: Path) -> None:
    command = (
        "import time, torch; from sweeper.execution import mps; torch.cuda.is_available = lambda: True; "
        "mps._CLIENT = ''; block = mps.shared_gpus(); block.__enter__(); print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGKILL)
    (daemon,) = (int(pid) for pid in started.read_text().split())
    until = time.monotonic() + 10
    while Path(f"/proc/{daemon}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{daemon}").exists()
