"""A cluster that loses a node in the middle of a sweep. The short sibling is in execution/test_failures.py."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import faults
from tests.conftest import STUDENTS, TEACHERS, Done
from tests.sweeper import counted
from tests.sweeper.test_run import read_table

Call = Callable[..., Done]
# Prints the address and the id of the second node. Kills that node, with all its processes, after a line of input.
CLUSTER = """
import sys
import psutil
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print("ready", cluster.address, second._node_id, flush=True)
sys.stdin.readline()
roots = [psutil.Process(info.process.pid) for infos in second.all_processes.values() for info in infos]
for process in [child for root in roots for child in root.children(recursive=True)] + roots:
    try:
        process.kill()
    except psutil.Error:
        pass
print("killed", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def two_nodes(environment: dict[str, str]) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Start a Ray cluster. Yield its address, the id of its second node, and a function that kills that node."""
    host = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert host.stdin is not None
    assert host.stdout is not None
    pipe, lines = host.stdin, host.stdout

    def kill() -> None:
        print(file=pipe, flush=True)
        assert any(line == "killed\n" for line in lines)

    try:
        _, address, node = next(line for line in lines if line.startswith("ready ")).split()
        yield address, node, kill
    finally:
        host.communicate(timeout=60)


def beginnings(folder: Path) -> dict[str, list[int]]:
    """Return signature → the updates that a trial had done when it began, and whenever it did not simply go on."""
    found: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for signature, updates, _ in counted.notes(folder):
        if updates != last.get(signature, -2) + 1:
            found.setdefault(signature, []).append(updates)
        last[signature] = updates
    return found


@pytest.mark.long
def test_a_node_that_dies_in_the_middle_of_a_sweep_changes_no_number_and_costs_no_trial(
    finished: Path, fresh: Path, sweeper: Call
) -> None:
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}
    with two_nodes(environment) as (address, node, kill):
        (fresh / "runs" / "victim").write_text(node)
        words = [*TEACHERS, "--address", address]
        program = [sys.executable, "-c", counted.RUN]
        with faults.Command(words, fresh, program=program, **environment) as command:
            hanging = fresh / "runs" / counted.HANGING
            assert command.wait_until(hanging.exists)
            kill()
            code, err = command.wait()
        assert code == 0, err
        assert "failed" not in err
        done = sweeper(*STUDENTS, "--address", address, cwd=fresh, **environment)
        assert done.code == 0, done.err
    assert read_table(sweeper, fresh) == read_table(sweeper, finished)
    found = beginnings(fresh)
    assert found.pop(hanging.read_text()) == [0, 8], "it goes on from its checkpoint of the first rung"
    assert all(updates == [0] for updates in found.values()), found
