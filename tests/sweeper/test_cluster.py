"""Clusters: a sweep runs on an existing cluster."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sweeper.execution import tune
from tests import faults
from tests.conftest import TINY, Done
from tests.faults.nodes import ENVIRONMENT, Nodes
from trainables.errors import EnvironmentUserError


@pytest.mark.parametrize("mode", [pytest.param("disabled", marks=pytest.mark.long), "token"])
def test_a_sweep_runs_on_logical_gpus_of_an_existing_cluster(
    sweeper: Callable[..., Done], fresh: Path, mode: str
) -> None:
    """Ray has two logical GPUs. The trials find no real ones, and train on the CPU. Starts a Ray cluster."""
    environment = {**ENVIRONMENT, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "5" * 64}
    space = ["--set", "d=1,2", "--set", "lr=0.004", "--set", "lr_discriminator=0.001", "--wandb", "disabled"]
    words = ["run", "teachers", "--dataset", "mnist5k", *TINY, *space]
    with Nodes(environment, num_cpus=2, num_gpus=2) as nodes:
        done = sweeper(*words, "--address", nodes.address, cwd=fresh, **environment)
    assert done.code == 0, done.err
    assert len(list(fresh.glob("runs/trials/*/generator-24.safetensors"))) == 2


def test_a_missing_cluster_is_an_error_of_one_line(sweeper: Callable[..., Done], fresh: Path) -> None:
    command = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1", "--address", "127.0.0.1:1"]
    done = sweeper(*command, cwd=fresh)
    assert done.code == 5
    assert "no Ray cluster at 127.0.0.1:1" in done.err.splitlines()[-1]


def test_a_ray_that_does_not_start_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is too busy: Ray then raises an Exception of no other type."""

    def give_up(**options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tune, "IS_CLOSED", True)
    monkeypatch.setattr(tune.ray, "init", give_up)
    line = "Ray does not start here: The current node timed out during startup; run the same command again"
    with pytest.raises(EnvironmentUserError, match=re.escape(line)), tune.session(1):
        pass


@pytest.mark.long
def test_a_silent_address_is_an_error_of_one_line_within_seconds(sweeper: Callable[..., Done], fresh: Path) -> None:
    """Ray itself would wait for over 100 s."""
    command = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1", "--address"]
    with faults.silent_port() as address:
        start = time.monotonic()
        with pytest.raises(OSError, match="it has not answered for 10 s"):
            tune._check_answers(address)
        assert time.monotonic() - start < 12
        done = sweeper(*command, address, cwd=fresh)
    assert done.code == 5
    assert f"no Ray cluster at {address}: it has not answered for 10 s" in done.err.splitlines()[-1]


STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "code ran").remote()))
"""
LOCAL = """
import os, sys
from sweeper.execution import tune
import ray
with tune.session(2):
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
"""


def connect(address: str, environment: dict[str, str]) -> str:
    """What another process prints that runs code in the session. Ray tries for minutes to connect: give it 40 s."""
    command = [sys.executable, "-c", STRANGER, address]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40).stdout
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode()


def test_a_local_session_listens_on_loopback_and_refuses_strangers(tmp_path: Path) -> None:
    """Also if the environment has settings for a cluster: no tokens, and other sockets."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    open_to_all = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    host = subprocess.Popen(
        [sys.executable, "-c", LOCAL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean | open_to_all
    )
    try:
        assert host.stdout is not None
        address, token = host.stdout.readline().split()
        family = [psutil.Process(host.pid), *psutil.Process(host.pid).children(recursive=True)]
        sockets = [connection for process in family for connection in process.net_connections("inet")]
        listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
        assert listening
        assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        here = clean | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback, like the session
        with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        assert "code ran" in connect(address, here | with_token), "the test cannot fail"
        assert "code ran" not in connect(address, here | {"RAY_AUTH_MODE": "disabled"})
        assert not (tmp_path / ".ray").exists(), "a token in the home directory"
    finally:
        host.communicate(timeout=60)


@pytest.mark.parametrize("of_environment", [False, True])
def test_local_is_no_address(of_environment: bool, fresh: Path, sweeper: Callable[..., Done]) -> None:
    """Ray would start a session of its own, without a token, on all interfaces."""
    words = ["run", "teachers", "--dataset", "mnist5k", *TINY]
    if of_environment:
        done = sweeper(*words, cwd=fresh, RAY_ADDRESS="local")
    else:
        done = sweeper(*words, "--address", "local", cwd=fresh)
    assert done.code == 2
    option = "RAY_ADDRESS=local" if of_environment else "--address local"
    assert done.err == f"error: {option} names no cluster; leave it out, and sweeper starts a session of its own\n"


def test_no_session_starts_in_a_process_that_had_ray_before(tmp_path: Path) -> None:
    """A token in the environment does not help: Ray has read its other settings already."""
    program = "import ray\nfrom sweeper.execution import tune\nwith tune.session(1): pass"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    command, environment = [sys.executable, "-c", program], clean | {"RAY_AUTH_TOKEN": "5" * 64}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "EnvironmentUserError: a file of yours imports ray when it is loaded" in done.stderr
