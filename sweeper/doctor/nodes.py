"""Examine every node of a Ray cluster: one actor per node, pinned to it, that needs no CPU and no GPU."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.doctor.findings import Level, Node, of_node, raise_first
from sweeper.doctor.machine import PROBE_BYTES, Facts, examine, scratch_file
from sweeper.execution.nodes import Verdict, name_of
from trainables.errors import EnvironmentUserError

SECONDS_TO_ANSWER = 120.0


class Examiner:
    """Runs on a node."""

    def examine(self, store: Path, data_root: Path, probe: Path | None, quick: bool, has_gpus: bool) -> Facts:
        # Ray hides the GPUs from an actor that asks for none.
        if not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
            del os.environ["CUDA_VISIBLE_DEVICES"]
        return examine(store, data_root, probe, quick, has_gpus)

    def time(self) -> float:
        return time.time()


class Examination:
    """Nodes that are being examined. It holds a file in the store and an actor on each node until it is closed."""

    def __init__(self, store: Path, data_root: Path, nodes: list[dict[str, Any]], quick: bool) -> None:
        """nodes: those of ray.nodes(). Raises EnvironmentUserError if the driver cannot write the store."""
        self._probe = ExitStack()
        try:
            probe = self._probe.enter_context(_locked_probe(store, quick))
        except OSError as error:
            raise EnvironmentUserError(
                f"{store} cannot be written ({error.strerror}); use another --store, or correct its permissions"
            ) from None
        self._deadline = time.monotonic() + SECONDS_TO_ANSWER
        self._nodes = {node["NodeID"]: node for node in nodes}
        self._words = store, data_root, probe, quick
        self._actors: dict[str, Any] = {}
        self._crashed: set[str] = set()
        self.asked: dict[str, Any] = {}
        for one in self._nodes:
            self._ask(one)

    def _ask(self, one: str) -> None:
        self._actors[one] = _start(one)
        has_gpus = self._nodes[one]["Resources"].get("GPU", 0) > 0
        self.asked[one] = self._actors[one].examine.remote(*self._words, has_gpus)

    def answers(self) -> Iterator[tuple[str, Node]]:
        """Yield the answers that have come by now, each once, and those of nodes that have not answered in time.

        A node whose worker process crashed is asked once more: processes of Ray do so now and then.
        """
        late = time.monotonic() > self._deadline
        for one, asked in list(self.asked.items()):
            if late or ray.wait([asked], timeout=0)[0]:
                if one not in self._crashed and _has_crashed(asked):
                    self._crashed.add(one)
                    self._ask(one)
                    continue
                del self.asked[one]
                yield one, _answer(self._nodes[one], self._actors[one], asked)
        if not self.asked:
            self.close()

    def close(self) -> None:
        for one in self.asked:
            ray.kill(self._actors[one])
        self.asked.clear()
        self._probe.close()


def examine_nodes(store: Path, data_root: Path) -> tuple[Facts, list[Node]]:
    """Return the facts about the driver's machine, and every node's answer. Ray must be connected.

    Raises EnvironmentUserError if the driver cannot write the store.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with closing(Examination(store, data_root, nodes, quick=False)) as examination:
        driver = examine(store, data_root)
        answers = _wait(examination)
    return driver, [answers[node["NodeID"]] for node in nodes if node["NodeID"] in answers]


def _wait(examination: Examination) -> dict[str, Node]:
    """Return the answers by node. A node that was dead already, which Ray notices after 20 s, has none."""
    answers: dict[str, Node] = {}
    while examination.asked:
        answers |= dict(examination.answers())
        time.sleep(0.05)
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return {one: node for one, node in answers.items() if node.facts is not None or one in alive}


class NodeCheck:
    """The examination of nodes as they come: the part of it that takes seconds. For sweeper.execution.nodes."""

    def __init__(self, store: Path, data_root: Path) -> None:
        self.store, self.data_root = store, data_root
        self.driver = examine(store, data_root, quick=True)
        self._running: list[Examination] = []
        self._found: dict[str, Verdict] = {}

    def check_all(self) -> None:
        """Examine all nodes that are here, and wait for the answers.

        Raises EnvironmentUserError that names the first node that would stop a run, and the number of further ones.
        """
        nodes = [node for node in ray.nodes() if node["Alive"]]
        with closing(Examination(self.store, self.data_root, nodes, quick=True)) as examination:
            answers = _wait(examination)
        raise_first(self.driver, list(answers.values()))
        self._found |= {one: self._verdict(node) for one, node in answers.items()}

    def start(self, ids: Sequence[str]) -> None:
        """Start to examine the nodes of which nothing is known. Raises EnvironmentUserError as Examination does."""
        nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] in set(ids) - self._found.keys()]
        if nodes:
            self._running.append(Examination(self.store, self.data_root, nodes, quick=True))

    def verdicts(self) -> dict[str, Verdict]:
        """Return what has been found by now: node's id → verdict."""
        for examination in list(self._running):
            self._found |= {one: self._verdict(node) for one, node in examination.answers()}
            if not examination.asked:
                self._running.remove(examination)
        return self._found

    def close(self) -> None:
        for examination in self._running:
            examination.close()

    def _verdict(self, node: Node) -> Verdict:
        stops = [one.text for one in of_node(self.driver, node) if one.level is Level.STOP]
        if stops or node.facts is None:
            return Verdict(problem=stops[0])
        return Verdict("", *node.facts.card) if node.facts.card else Verdict()


def _start(node_id: str) -> Any:
    """Start the actor on a node. Its process ends with it, so that it reserves no memory of a GPU afterwards."""
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    remote: Any = ray.remote(Examiner)
    return remote.options(num_cpus=0, num_gpus=0, scheduling_strategy=pinned).remote()


def _answer(node: dict[str, Any], actor: Any, asked: Any) -> Node:
    name, gpus = name_of(node), node["Resources"].get("GPU", 0.0)
    try:
        facts = ray.get(asked, timeout=0.1)
        start = time.time()
        there = ray.get(actor.time.remote(), timeout=10)
        return Node(name, facts, "", there - (start + time.time()) / 2, gpus)
    except ray.exceptions.GetTimeoutError:
        return Node(name, None, f"no answer within {SECONDS_TO_ANSWER:.0f} s; see `ray status`", gpus=gpus)
    except ray.exceptions.RayError as error:
        return Node(name, None, _problem(error), gpus=gpus)
    finally:
        ray.kill(actor)


def _has_crashed(asked: Any) -> bool:
    """Return whether the process of the actor ended without an error of Python."""
    try:
        ray.get(asked, timeout=0)
    except ray.exceptions.ActorDiedError as error:
        return not error.actor_init_failed
    except ray.exceptions.RayError:
        pass
    return False


def _problem(error: Exception) -> str:
    """Return the line of an error of Ray that names its cause, and what to do."""
    told = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    lines = [line for line in told if not line.startswith("The actor never ran")]  # the cause is the line before
    causes = [line for line in lines if "Error:" in line and not line.startswith("ray.exceptions")]
    if causes:
        return f"{causes[-1]}; install the driver's version of sweeper there"
    line = lines[-1] if lines else type(error).__name__
    return f"{line.partition(' Some common causes')[0].rstrip('.')}; see the logs of Ray there"


@contextmanager
def _locked_probe(store: Path, quick: bool) -> Iterator[Path]:
    """Write and lock a file in the store's folder, which every node must see. Its name was never looked for before."""
    with scratch_file(store) as probe, open(probe, "wb") as file:
        file.write(os.urandom(1 if quick else PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_EX)
        yield probe
