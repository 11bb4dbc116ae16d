"""Examine every node of a Ray cluster: one actor per node, pinned to it, that needs no CPU and no GPU."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.doctor.findings import Node
from sweeper.doctor.machine import PROBE_BYTES, Facts, examine, scratch_file
from trainables.errors import EnvironmentUserError

SECONDS_TO_ANSWER = 120.0


class Examiner:
    """Runs on a node."""

    def examine(self, store: Path, data_root: Path, probe: Path | None, quick: bool) -> Facts:
        # Ray hides the GPUs from an actor that asks for none.
        if not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
            del os.environ["CUDA_VISIBLE_DEVICES"]
        return examine(store, data_root, probe, quick)

    def time(self) -> float:
        return time.time()


def examine_nodes(store: Path, data_root: Path, quick: bool = False) -> tuple[Facts, list[Node]]:
    """Return the facts about the driver's machine, and every node's answer. Ray must be connected.

    Raises EnvironmentUserError if the driver cannot write the store.
    """
    try:
        with _locked_probe(store, quick) as probe:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            actors = {node["NodeID"]: _start(node["NodeID"]) for node in nodes}
            asked = {one: actor.examine.remote(store, data_root, probe, quick) for one, actor in actors.items()}
            driver = examine(store, data_root, quick=quick)
            deadline = time.monotonic() + SECONDS_TO_ANSWER
            return driver, [_answer(node, actors[node["NodeID"]], asked[node["NodeID"]], deadline) for node in nodes]
    except OSError as error:
        raise EnvironmentUserError(
            f"{store} cannot be written ({error.strerror}); use another --store, or correct its permissions"
        ) from None


def _start(node_id: str) -> Any:
    """Start the actor on a node. Its process ends with it, so that it reserves no memory of a GPU afterwards."""
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    remote: Any = ray.remote(Examiner)
    return remote.options(num_cpus=0, num_gpus=0, scheduling_strategy=pinned).remote()


def _answer(node: dict[str, Any], actor: Any, asked: Any, deadline: float) -> Node:
    address, host = node["NodeManagerAddress"], node["NodeManagerHostname"]
    name, gpus = f"{address} ({host})", node["Resources"].get("GPU", 0.0)
    try:
        facts = ray.get(asked, timeout=max(1.0, deadline - time.monotonic()))
        start = time.time()
        there = ray.get(actor.time.remote(), timeout=10)
        return Node(name, facts, "", there - (start + time.time()) / 2, gpus)
    except ray.exceptions.GetTimeoutError:
        return Node(name, None, f"no answer within {SECONDS_TO_ANSWER:.0f} s; see `ray status`", gpus=gpus)
    except ray.exceptions.RayError as error:
        return Node(name, None, f"{_reason(error)}; install the driver's version of sweeper there", gpus=gpus)
    finally:
        ray.kill(actor)


def _reason(error: Exception) -> str:
    """Return the line of an error of Ray that names its cause."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    causes = [line for line in lines if "Error:" in line and not line.startswith("ray.exceptions")]
    return (causes or lines or [type(error).__name__])[-1]


@contextmanager
def _locked_probe(store: Path, quick: bool) -> Iterator[Path]:
    """Write and lock a file in the store's folder, which every node must see. Its name was never looked for before."""
    with scratch_file(store) as probe, open(probe, "wb") as file:
        file.write(os.urandom(1 if quick else PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_EX)
        yield probe
