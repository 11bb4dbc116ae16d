"""Which node a trial runs on, and how many run at once. Needs no Ray."""

from collections.abc import Callable

from sweeper.execution.nodes import Cluster, Node
from sweeper.execution.resources import NOTHING, Machine, Share

Needs = Callable[[Machine], Share | None]  # what a trial needs on a kind of node; None if it cannot run there


class Slots:
    """The shares that running trials have reserved on the nodes of a cluster, and at most `limit` trials at once."""

    def __init__(self, cluster: Cluster, limit: int | None) -> None:
        self.cluster, self.limit = cluster, limit
        self._placed: dict[str, tuple[Node, Share]] = {}
        self._used: dict[str, Share] = {}  # node's id → the sum of its shares, kept because every suggestion reads it

    def __len__(self) -> int:
        return len(self._placed)

    def fits(self, needs: Needs) -> bool:
        """Return whether a node can hold a trial when nothing else runs there."""
        shares = {machine: needs(machine) for machine in {node.machine for node in self.cluster.usable}}
        return any((share := shares[node.machine]) is not None and node.holds(share) for node in self.cluster.usable)

    def place(self, trial: str, needs: Needs) -> tuple[Node, Share] | None:
        """Reserve a trial's share on the fullest node that has room for it. Return None if there is none.

        Trials are packed, so that a node of a cluster that shrinks becomes free.
        """
        if self.limit is not None and len(self._placed) >= self.limit:
            return None
        shares: dict[Machine, Share | None] = {}
        found: tuple[tuple[float, float], Node, Share] | None = None
        for node in self.cluster.usable:
            if node.machine not in shares:
                shares[node.machine] = needs(node.machine)
            share, used = shares[node.machine], self._used.get(node.id, NOTHING)
            if share is None or not node.holds(share, used):
                continue
            free = (node.machine.gpus - used.gpus, node.machine.cpus - used.cpus)
            if found is None or free < found[0]:
                found = free, node, share
        if found is None:
            return None
        _, node, share = found
        self._placed[trial] = node, share
        self._add(node, share, 1)
        return node, share

    def node_of(self, trial: str) -> Node | None:
        """Return the node on which a trial has its share."""
        return self._placed[trial][0] if trial in self._placed else None

    def release(self, trial: str) -> Share:
        """Release the share of a trial, and return it."""
        node, share = self._placed.pop(trial)
        self._add(node, share, -1)
        return share

    def _add(self, node: Node, share: Share, sign: int) -> None:
        used = self._used.get(node.id, NOTHING)
        self._used[node.id] = Share(used.cpus + sign * share.cpus, used.gpus + sign * share.gpus)
