"""clusters/local.yaml on three hosts with SSH: up, a sweep as a job, a host lost in the middle, the table, down.

The hosts are namespaces of this machine. The figures in docs/how-to/cluster.md are what this test prints.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.hosts import SHARED, SSH, Host, hosts, missing

LOCAL = Path(ROOT) / "clusters" / "local.yaml"
SWEEP = ["--set", "updates=600", "--set", "first_rung=200", "--set", "batch_size=16", "--set", "confirm=0"]
SWEEP += ["--set", "n_rung=64", "--set", "n_selection=64", "--set", "n_report=64"]
TEACHERS = ["run", "teachers", "--dataset", "mnist5k", *SWEEP, "--set", "d=1,2,4", "--set", "lr=0.002,0.008"]
STUDENTS = ["run", "students", *SWEEP, "--set", "d=1,2", "--set", "latents=64", "--set", "warmup=100"]
ON_CLUSTER = ["--address", "auto", "--store", f"{SHARED}/runs"]


def start(*words: str, folder: Path) -> "subprocess.Popen[str]":
    """Start Ray's command line as the launcher. Its files and those of SSH stay in the folder."""
    own = {"HOME": str(folder), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([f"{sys.prefix}/bin/ray", *words], env={**os.environ, **own}, **pipes)


def ray(*words: str, folder: Path) -> str:
    """Run Ray's command line as the launcher. Return its output."""
    return output(start(*words, folder=folder))


def output(command: "subprocess.Popen[str]") -> str:
    printed, _ = command.communicate(timeout=900)
    assert command.returncode == 0, f"{command.args}: {printed}"
    return printed


@contextmanager
def tunnel(head: Host, key: Path) -> Iterator[str]:
    """Yield the address of the head's dashboard, which listens on the head's loopback alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["ssh", *SSH, "-i", str(key), "-N", "-L", f"{port}:127.0.0.1:8265", f"root@{head.address}"]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def until(holds: Callable[[], bool], job: "subprocess.Popen[str] | None" = None) -> float:
    """Wait while the job runs. Return the seconds that it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < 600
        assert job is None or job.poll() is None, output(job)
        time.sleep(0.2)
    return time.monotonic() - started


def running(store: Path) -> dict[str, int]:
    """Return the updates of the trials that run."""
    try:
        live = json.loads((store / "live" / "mnist5k-teachers.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {signature: live["updates"].get(signature, 0) for signature in live["running"]}


def table(store: Path) -> str:
    command = [sys.executable, "-m", "sweeper", "table", "--format", "json", "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
@pytest.mark.skipif(missing() is not None, reason=f"{missing()}")
def test_a_sweep_on_three_hosts_that_loses_one_has_the_table_of_one_machine(tmp_path: Path) -> None:
    shared, folder, alone = tmp_path / "shared", tmp_path / "hosts", tmp_path / "alone"
    shared.mkdir()
    folder.mkdir()
    store, said = shared / "runs", {}
    with hosts(["sw-head", "sw-one", "sw-two"], folder, shared) as (head, *workers):
        text = LOCAL.read_text().replace("head.REPLACE", head.address).replace("ssh_user: REPLACE", "ssh_user: root")
        for number, worker in enumerate(workers, 1):
            text = text.replace(f"worker{number}.REPLACE", worker.address)
        text = text.replace("~/.ssh/id_ed25519", str(folder / "key"))
        (cluster := folder / "cluster.yaml").write_text(text)

        started = time.monotonic()
        ray("up", "--yes", "--no-config-cache", str(cluster), folder=folder)
        nodes = f"{len(workers) + 1} nodes"
        status = ["exec", str(cluster), "ray status"]
        until(lambda: f"{len(workers) + 1} local.cluster.node" in ray(*status, folder=folder))
        said[f"ray up, until {nodes} are there"] = time.monotonic() - started

        with tunnel(head, folder / "key") as address:
            until(lambda: bool(head.processes("dashboard")))
            submit = ["job", "submit", "--address", address, "--", "sweeper"]
            job = start(*submit, *TEACHERS, *ON_CLUSTER, folder=folder)
            said["from submission to the first update of 6 trials"] = until(
                lambda: len([updates for updates in running(store).values() if updates]) == 6, job
            )
            until(lambda: any(updates > 50 for updates in running(store).values()), job)
            workers[0].cut()
            print(output(job))
            print(ray(*submit, *STUDENTS, *ON_CLUSTER, folder=folder))
        started = time.monotonic()
        ray("down", "--yes", str(cluster), folder=folder)
        said["ray down"] = time.monotonic() - started
        until(lambda: not any(host.processes("raylet") or host.processes("gcs_server") for host in (head, workers[1])))
        said["ray down, until no process of Ray is left"] = time.monotonic() - started

    for command in (TEACHERS, STUDENTS):
        words = [sys.executable, "-m", "sweeper", *command, "--store", str(alone)]
        subprocess.run(words, check=True, capture_output=True)
    assert table(store) == table(alone)
    for what, seconds in said.items():
        print(f"{what}: {seconds:.0f} s")
