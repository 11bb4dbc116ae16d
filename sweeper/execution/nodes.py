"""The nodes that trials may use. Needs no Ray."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sweeper.execution.resources import GPU_BYTES, NOTHING, Machine, Share


@dataclass(frozen=True)
class Node:
    """A machine of a session. id: Ray's, empty for the one machine of a local session. name: for messages."""

    machine: Machine
    id: str = ""
    name: str = "this machine"

    def holds(self, share: Share, used: Share = NOTHING) -> bool:
        """Return whether a share fits beside what is used."""
        cpus, gpus = self.machine.cpus - used.cpus, self.machine.gpus - used.gpus
        return share.cpus <= cpus + 1e-6 and share.gpus <= gpus + 1e-6


@dataclass(frozen=True)
class Verdict:
    """What an examination of a node has found. problem: why no trial may run there, and what to do; empty if none."""

    problem: str = ""
    gpu_name: str = ""  # empty where torch sees no GPU
    gpu_bytes: float = GPU_BYTES


class Examine(Protocol):
    """Starts to examine nodes, and says what is known by now: node's id → verdict."""

    def start(self, ids: Sequence[str]) -> None: ...

    def verdicts(self) -> dict[str, Verdict]: ...


class Cluster:
    """The nodes of a local session: one machine, which never changes."""

    shared = False  # whether nodes come and go

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.leaving: set[str] = set()  # ids of nodes that will be shut down

    @classmethod
    def of(cls, *machines: Machine) -> "Cluster":
        """Return a cluster of machines that are given. The ids of several are their numbers."""
        ids = [""] if len(machines) == 1 else [str(number) for number in range(len(machines))]
        return cls(Node(machine, one, f"node {one}") for machine, one in zip(machines, ids, strict=True))

    @property
    def usable(self) -> tuple[Node, ...]:
        """Return the nodes that train: those with GPUs, if there are any."""
        return tuple(node for node in self.nodes if node.machine.gpus) or self.nodes

    @property
    def machine(self) -> Machine:
        """Return all that the usable nodes have, with the largest of their GPUs."""
        if not self.usable:
            return Machine(cpus=0, gpus=0)
        cpus, gpus = (sum(getattr(node.machine, name) for node in self.usable) for name in ("cpus", "gpus"))
        return replace(self.kind, cpus=cpus, gpus=gpus)

    @property
    def can_grow(self) -> bool:
        """Return whether a node may come that is larger than those that are here."""
        return False

    @property
    def kind(self) -> Machine:
        """Return the largest kind of usable node."""
        return max((node.machine for node in self.usable), key=lambda machine: (machine.gpu_bytes, machine.cpus))

    def look(self) -> list[str]:
        """Read the nodes again, if some seconds have passed. Return what is to be said about them, once."""
        return []

    def has(self, node: str) -> bool:
        """Return whether a node is here and stays."""
        return any(one.id == node for one in self.nodes)

    def refuse(self, node: str) -> None:
        """Use a node no more: jobs fail on it."""
        self.nodes = tuple(one for one in self.nodes if one.id != node)

    def ask(self, shares: Sequence[Share]) -> None:
        """Ask for nodes that hold these shares at once. What is not asked for any more may go."""

    def text(self) -> str:
        """Return the usable nodes and their sizes in words, for messages."""
        named = [f"{node.name} has {node.machine.text()}" for node in self.usable]
        more = f", and {len(named) - 3} more nodes" if len(named) > 3 else ""
        return "; ".join(named[:3]) + more if named else "no node has come that can train"


def name_of(node: Mapping[str, Any]) -> str:
    """Return how messages name a node of ray.nodes(): its address, and its host."""
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
