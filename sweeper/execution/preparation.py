"""Prepares a data set and its scores on a worker of a cluster, so that the head needs neither hours nor a GPU.

The command imports sweeper.execution.tune before this module: it sets what Ray reads when it is imported.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.execution import pulse
from sweeper.execution.cluster import RayCluster
from sweeper.execution.nodes import Node
from sweeper.execution.resources import Share
from trainables import plugins
from trainables.errors import EnvironmentUserError, UserError
from trainables.images import Images, prepare
from trainables.notes import notes

SECONDS_FOR_A_NODE = 900.0
SECONDS_BETWEEN_LOOKS = 1.0
TRIES = 5  # on nodes that are lost meanwhile
Tell = Callable[[str, int, int], None]  # takes what is done (decoded or scored), images done, images in total


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be prepared. features: a feature network, or empty for that of the data set."""

    dataset: str
    size: int
    features: str
    store: Path
    folder: Path | None
    data_root: Path
    download: bool
    plugins: Sequence[tuple[str, str]]  # references and identities, as the store has them

    def images(self, tell: Tell) -> Images:
        """Decode the data set, unless the store has it."""
        return prepare(
            self.dataset,
            self.size,
            self.store / "datasets",
            folder=self.folder,
            data_root=self.data_root,
            download=self.download,
            tell=lambda done, total: tell("decoded", done, total),
        )


class Preparer:
    """Runs on a worker."""

    def prepare(self, task: Task, threads: int) -> list[str]:
        """Make the files of the store that the task names. Return notes to the user. Raises UserError."""
        import torch

        from trainables.scores.scorer import Scorer

        torch.set_num_threads(threads)
        for reference, identity in task.plugins:
            plugins.load(reference, expected=identity)
        said = 0.0

        def tell(what: str, done: int, total: int) -> None:
            nonlocal said
            if done == total or time.monotonic() - said > SECONDS_BETWEEN_LOOKS:
                said = time.monotonic()
                pulse.say_prepared(f"{what} {done} {total}")

        images = task.images(tell)
        scores = task.store / "scores"
        Scorer(images, scores, task.features or images.features, lambda done, total: tell("scored", done, total))
        return list(notes)


def prepare_on_worker(cluster: RayCluster, task: Task, tell: Tell, say: Callable[[str], None]) -> None:
    """Have a worker make what is missing, and wait for it. It goes on from the last part after an interruption.

    Raises EnvironmentUserError if no node comes, UserError as the preparation itself.
    """
    for _ in range(TRIES):
        node = _wait_for_node(cluster, say)
        try:
            for line in _run(node, task, tell):
                say(f"note: {line}")
            return
        except (RayActorError, ActorUnschedulableError):
            say(f"node {node.name} is lost, or the process there has died; the preparation goes on from its last part")
            cluster.look()
    raise EnvironmentUserError(
        f"{task.dataset} was not prepared: the process has died {TRIES} times; does a node have enough memory? "
        "`ray logs` has its last lines"
    )


def _run(node: Node, task: Task, tell: Tell) -> list[str]:
    pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
    cpus, gpus = node.machine.cpus, min(1, int(node.machine.gpus))
    remote: Any = ray.remote(Preparer)
    # It uses all CPUs, and reserves one: others may have reserved the rest.
    actor = remote.options(num_cpus=min(1, cpus), num_gpus=gpus, scheduling_strategy=pinned).remote()
    try:
        asked = actor.prepare.remote(task, max(1, int(cpus)))
        told: str | None = None
        while not ray.wait([asked], timeout=SECONDS_BETWEEN_LOOKS)[0]:
            before, told = told, pulse.prepared()
            if told is not None and told != before:
                what, done, total = told.split()
                tell(what, int(done), int(total))
        return list(ray.get(asked))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    finally:
        ray.kill(actor)


def _wait_for_node(cluster: RayCluster, say: Callable[[str], None]) -> Node:
    """Return the largest node that can train. Ask for one, and wait, if there is none."""
    begun, said = time.monotonic(), False
    while True:
        for line in cluster.look():
            say(line)
        if cluster.usable:
            return max(cluster.usable, key=_strength)
        cluster.ask([Share(1, 1 if cluster.kind.gpus else 0)])
        if not said:
            said = True
            say("waiting for a node that prepares the data set: none has come that can train")
        waited = time.monotonic() - begun
        if not cluster.can_grow or waited > SECONDS_FOR_A_NODE:
            raise EnvironmentUserError(
                f"no node that can train has come within {waited / 60:.0f} minutes, and the data set is not prepared; "
                "`ray status` says what the autoscaler waits for"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _strength(node: Node) -> tuple[bool, float, float]:
    machine = node.machine
    return machine.gpus > 0, machine.gpu_bytes, machine.cpus
