"""`sweeper doctor` on this machine, and on a cluster of two nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sweeper.execution.tune  # noqa: F401, it comes before Ray
from sweeper.doctor.nodes import _problem
from tests.conftest import Done
from tests.faults.nodes import ENVIRONMENT, Nodes

# What a node says whose sweeper lacks the class: the driver sends a reference to its module, not its code.
STRANGER = """
import sys, types
import ray
from pathlib import Path
module = types.ModuleType("only_here")
exec("class Examiner:\\n    def examine(self, *words): pass", module.__dict__)
sys.modules["only_here"] = module
from sweeper.doctor import nodes
from sweeper.doctor.findings import of_node
nodes.Examiner = module.Examiner
ray.init(address=sys.argv[1], log_to_driver=False)
driver, answers = nodes.examine_nodes(Path(sys.argv[2]), Path("data"))
for answer in answers:
    print(*of_node(driver, answer))
"""

# Nodes whose processes end without a word: the first one alone, or each.
CRASHES = """
import os, signal, sys
from pathlib import Path
import ray
from sweeper.doctor import nodes
from sweeper.doctor.findings import of_node
class Examiner(nodes.Examiner):
    def examine(self, store, *words):
        mark = store.parent / ray.get_runtime_context().get_node_id()
        if always or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().examine(store, *words)
nodes.Examiner, store = Examiner, Path(sys.argv[2])
ray.init(address=sys.argv[1], log_to_driver=False)
for always in (False, True):
    driver, answers = nodes.examine_nodes(store, Path("data"))
    for answer in answers:
        print("NODE", answer.error or "answers")
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start two Ray nodes, the second with a logical GPU. Yield their address."""
    with Nodes(num_cpus=1) as nodes:
        nodes.add(num_cpus=1, num_gpus=1)
        yield nodes.address


def _drive(code: str, address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a driver, with the address and a store."""
    return subprocess.run(
        [sys.executable, "-c", code, address, str(folder / "runs")],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_problem_of_an_actor_that_never_ran_is_its_cause() -> None:
    told = "The actor died.\n\tclass_name: Examiner\nIts node was lost.\nThe actor never ran - it was cancelled."
    assert _problem(RuntimeError(told)) == "Its node was lost; see the logs of Ray there"


def test_a_machine_is_examined(sweeper: Callable[..., Done], tmp_path: Path) -> None:
    done = sweeper("doctor", cwd=tmp_path, HOME=str(tmp_path), WANDB_API_KEY="")
    assert done.code == 0, done.out + done.err
    assert "no store yet, writable" in done.out
    assert "W&B has no API key" in done.out
    assert "data sets: mnist5k" in done.out
    assert list(tmp_path.glob("runs")) == []
    assert sweeper("doctor", cwd=tmp_path, LOCAL_RANK="0").code == 5


def test_every_node_of_a_cluster_is_examined(sweeper: Callable[..., Done], address: str, tmp_path: Path) -> None:
    done = sweeper("doctor", "--address", address, "--json", cwd=tmp_path, **ENVIRONMENT)
    assert done.code == 0, done.out + done.err
    record = json.loads(done.out)
    assert record["ok"]
    assert len(record["nodes"]) == 2
    assert sorted(node["gpus"] for node in record["nodes"]) == [0.0, 1.0]
    for node in record["nodes"]:
        assert node["facts"]["versions"] == record["machine"]["versions"]
        assert node["facts"]["store"]["sees_probe"]
        assert node["facts"]["store"]["sees_lock"]
        assert node["facts"]["store"]["write_bytes_per_second"] > 0
        assert abs(node["skew_seconds"]) < 2
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_this_sweeper_is_named(address: str, tmp_path: Path) -> None:
    done = _drive(STRANGER, address, tmp_path)
    assert done.stdout.count("No module named 'only_here'; install the driver's version of sweeper there") == 2, done
    assert all(line.startswith("stop node ") for line in done.stdout.splitlines() if "only_here" in line)


def test_a_node_whose_process_crashes_is_asked_once_more(address: str, tmp_path: Path) -> None:
    done = _drive(CRASHES, address, tmp_path)
    told = [line.removeprefix("NODE ") for line in done.stdout.splitlines() if line.startswith("NODE ")]
    assert len(told) == 4, done
    assert told[:2] == ["answers", "answers"]
    for line in told[2:]:
        assert line.startswith("The actor is dead because its worker process has died. ")
        assert line.endswith("; see the logs of Ray there")


@pytest.mark.long
def test_a_run_checks_the_nodes_before_the_first_trial(sweeper: Callable[..., Done], address: str, fresh: Path) -> None:
    """The nodes have LOCAL_RANK from nowhere: the driver's copy of the check is told so."""
    from tests.conftest import TINY

    code = (
        "import sys\n"
        "from dataclasses import replace; from sweeper.doctor import findings\n"
        "of_node = findings.of_node\n"
        "findings.of_node = lambda driver, node: of_node(driver, replace(node, error='', facts=replace(node.facts, "
        "launcher={'LOCAL_RANK': '0'})))\n"
        "from sweeper.__main__ import main; sys.argv[0] = 'sweeper'; main()"
    )
    words = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1", "--address", address]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=fresh,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 5, done.stderr
    assert "LOCAL_RANK=0" in done.stderr.splitlines()[-1]
    assert not list(fresh.glob("runs/trials/*/checkpoint*"))


def test_a_missing_cluster_is_an_error_of_one_line(sweeper: Callable[..., Done], tmp_path: Path) -> None:
    done = sweeper("doctor", "--address", "127.0.0.1:1", cwd=tmp_path)
    assert (done.code, len(done.err.splitlines())) == (5, 1)
    assert "no Ray cluster at 127.0.0.1:1" in done.err
