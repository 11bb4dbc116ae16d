"""Sweeps on several Ray nodes of this machine: equal tables, nodes that come and go, nodes that are wrong."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.conftest import TEACHERS, Done
from tests.faults.nodes import ENVIRONMENT, Nodes, autoscaling
from tests.sweeper import replay
from tests.sweeper.execution.test_replay import sets, table_of

PORT = 46_391  # of the head whose autoscaler is tested


def start(address: str, folder: Path, slots: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a replay that sleeps `seconds` per update. slots: 0 for as many as fit."""
    command = [sys.executable, "-m", "tests.sweeper.replay", str(folder), str(slots), str(seconds)]
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT, "RAY_ADDRESS": address})


def places(folder: Path) -> Counter[tuple[str, str]]:
    """Return how many jobs ended how (done, interrupted) on which node."""
    lines = (folder / "places").read_text().splitlines() if (folder / "places").exists() else []
    return Counter((node, end) for node, end in map(str.split, lines))


def wait_until(happened: Callable[[], object], driver: subprocess.Popen[bytes], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert driver.poll() is None, "the sweep has ended"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.2)


def drain(address: str, node: str) -> None:
    """Tell Ray that a node is to be shut down, as a cloud's notice does."""
    words = ["drain-node", "--address", address, "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", "600"]
    subprocess.run([Path(sys.executable).with_name("ray"), *words], check=True, env={**os.environ, **ENVIRONMENT})


@pytest.mark.long
def test_one_two_and_four_nodes_and_no_cluster_give_the_same_table(
    finished: Path, tmp_path: Path, sweeper: Callable[..., Done]
) -> None:
    """All of the store is made on the nodes: the data set, the classifier, the statistics. The head has no CPU."""
    expected = sweeper("table", "--name", "mnist5k-teachers", "--format", "json", cwd=finished)
    assert expected.code == 0, expected.err
    expected_sets = sets_of(finished / "runs")
    with Nodes() as nodes:
        for count in (1, 2, 4):
            while len(nodes.ids) < count:
                nodes.add(num_cpus=1, num_gpus=1)
            folder = tmp_path / str(count)
            folder.mkdir()
            script, environment = Path(sys.executable).with_name("sweeper"), {**os.environ, **ENVIRONMENT}
            command = [script, *TEACHERS, "--address", nodes.address]
            subprocess.run(command, cwd=folder, env=environment, check=True, timeout=1200)
            table = sweeper("table", "--format", "json", cwd=folder)
            assert table.out == expected.out
            assert sets_of(folder / "runs") == expected_sets


def sets_of(root: Path) -> dict[str, list[list[str]]]:
    """Return the sets S of a store's sweep of teachers."""
    store = Store(root)
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    return sets(Sweep.read(manifest, store))


@pytest.mark.long
def test_nodes_that_come_late_drain_and_are_cut_off_change_no_result(tmp_path: Path) -> None:
    """A GPU node joins a CPU node and is used; it is drained, and one after it is cut off."""
    with Nodes() as nodes:
        cpu = nodes.add(num_cpus=2)
        driver = start(nodes.address, tmp_path, 0, 0.1)
        wait_until(lambda: places(tmp_path)[cpu, "done"] >= 2, driver)
        first = nodes.add(num_cpus=2, num_gpus=1)
        wait_until(lambda: places(tmp_path)[first, "done"] >= 4, driver)
        second = nodes.add(num_cpus=2, num_gpus=1)
        drain(nodes.address, first)
        wait_until(lambda: places(tmp_path)[second, "done"] >= 4, driver)
        nodes.add(num_cpus=2, num_gpus=1)
        nodes.kill(2)
        assert driver.wait(timeout=400) == 0
    store, manifest = replay.create(tmp_path)
    local = tmp_path / "local"
    sweep, _ = replay.replay(local, 2)
    assert sets(Sweep.read(manifest, store)) == sets(sweep)
    assert table_of(tmp_path) == table_of(local)
    assert not list(tmp_path.glob("trials/*/error.txt"))


@pytest.mark.long
def test_eight_gpu_nodes_come_at_once_from_zero_and_go_when_nothing_is_left(tmp_path: Path) -> None:
    """The autoscaler is Ray's, with its fake provider. A trial needs a whole GPU."""
    with autoscaling(tmp_path, PORT, workers=8) as address:
        driver = start(address, tmp_path / "store", -8, 0.05)
        assert count(address, 8) == 8
        assert driver.wait(timeout=900) == 0
        assert count(address, 0) == 0


def count(address: str, goal: int) -> int:
    """Wait until a cluster has a number of GPU nodes, for minutes at most. Return the number."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, address, str(goal)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=400,
    )
    return int(done.stdout)


COUNT = """
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
def count():
    return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())
deadline = time.monotonic() + 240
while count() != int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(0.5)
print(count())
"""


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from one node")
def test_a_node_that_has_another_folder_in_the_place_of_the_store_is_named(
    fresh: Path, sweeper: Callable[..., Done]
) -> None:
    with Nodes() as nodes:
        nodes.add(num_cpus=1)
        with nodes.without(fresh):
            done = sweeper(*TEACHERS, "--address", nodes.address, cwd=fresh, **ENVIRONMENT)
    assert done.code == 5, done.err
    last = done.err.splitlines()[-1]
    assert "node " in last
    assert f"{fresh / 'runs'} is no store, and store" in last
    assert not list(fresh.glob("runs/trials/*/checkpoint*"))


@pytest.mark.long
def test_a_cluster_without_a_node_that_can_train_says_so_while_it_waits(
    fresh: Path, sweeper: Callable[..., Done]
) -> None:
    with Nodes() as nodes:
        words = [*TEACHERS, "--address", nodes.address]
        script, environment = Path(sys.executable).with_name("sweeper"), {**os.environ, **ENVIRONMENT}
        driver = subprocess.Popen([script, *words], cwd=fresh, env=environment, stderr=subprocess.PIPE, text=True)
        assert driver.stderr is not None
        line = next(line for line in driver.stderr if "waiting for a node" in line)
        assert "no node has come that can train" in line
        nodes.add(num_cpus=2)
        _, err = driver.communicate(timeout=280)
    assert driver.returncode == 0, err
