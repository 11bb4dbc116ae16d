"""The nodes of a Ray cluster, read again as they come and go, and what its autoscaler is asked for.

The command imports sweeper.execution.tune before this module: it sets what Ray reads when it is imported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RaySystemError, RpcError

from sweeper.execution.demand import Demand
from sweeper.execution.nodes import Cluster, Examine, Node, Verdict, name_of
from sweeper.execution.resources import Machine, Share

SECONDS_BETWEEN_LOOKS = 2.0
# A node of an autoscaler that has not started yet: its shares of a GPU are those of a small card.
UNKNOWN = Machine(cpus=1, gpus=1)


class RayCluster(Cluster):
    """The nodes of a cluster that this command has joined.

    Trials run on GPUs once there is one, or once the autoscaler says that it can start one; else on CPUs.
    """

    shared = True

    def __init__(self, limit: int | None, improve: Callable[[Machine], Machine]) -> None:
        """limit: of concurrent trials. improve: adds the throughput of a named GPU."""
        super().__init__()
        self.limit, self.improve = limit, improve
        self.examine: Examine | None = None  # set once the store is known
        self.gpus = False  # whether a GPU has been here
        self._no_gpus = False  # whether the autoscaler has said that it has no node with a GPU
        self._verdicts: dict[str, Verdict] = {}
        self._examined: set[str] = set()
        self._looked = -SECONDS_BETWEEN_LOOKS
        self._scales = _has_autoscaler()
        self._demand = Demand()
        self._asked: tuple[int, list[dict[str, float]]] | None = None  # version that the autoscaler had seen, bundles

    @property
    def usable(self) -> tuple[Node, ...]:
        on_gpus = tuple(node for node in self.nodes if node.machine.gpus)
        return on_gpus if self.gpus or self._gpus_may_come else self.nodes

    @property
    def machine(self) -> Machine:
        return super().machine if self.usable else replace(UNKNOWN, cpus=0, gpus=0)

    @property
    def can_grow(self) -> bool:
        if not self._scales:  # nodes may come by hand, or by an autoscaler that does not say what it can start
            return self.limit is not None or not self.usable
        return not self._demand.hopeless

    @property
    def kind(self) -> Machine:
        """Return the kind of node that is asked for."""
        if self.usable:
            return super().kind
        return UNKNOWN if self._gpus_may_come else replace(UNKNOWN, gpus=0)

    @property
    def _gpus_may_come(self) -> bool:
        return self._scales and not self.gpus and not self._no_gpus

    def look(self) -> list[str]:
        now = time.monotonic()
        if now - self._looked < SECONDS_BETWEEN_LOOKS:
            return []
        self._looked = now
        with suppress(RaySystemError, RpcError):  # the head may be away for a moment
            return self._look()
        return []

    def _look(self) -> list[str]:
        here = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        self.leaving = set(_draining()) & here.keys()
        before = {node.id: node.name for node in self.nodes}
        said = self._examine(here)
        self.nodes = tuple(
            self._node(node, self._verdicts[one])
            for one, node in sorted(here.items())
            if one not in self.leaving and one in self._verdicts and not self._verdicts[one].problem
        )
        self.gpus |= any(node.machine.gpus for node in self.nodes)
        after = {node.id: node.name for node in self.nodes}
        if before:
            said += [f"node {after[one]} has come" for one in after.keys() - before.keys()]
        for one in before.keys() - after.keys():
            if one in self._verdicts and self._verdicts[one].problem:
                continue  # said when it was refused
            why = "is to be shut down; its trials save and go on elsewhere" if one in self.leaving else "is lost"
            said.append(f"node {before[one]} {why}")
        return said

    def _examine(self, here: Mapping[str, dict[str, Any]]) -> list[str]:
        """Start to examine new nodes. Return a line for each that no trial may use."""
        new = sorted(here.keys() - self._examined)
        self._examined |= set(new)
        if self.examine is None:
            self._verdicts |= {one: Verdict() for one in new}
            return []
        if new:
            self.examine.start(new)
        verdicts = {one: v for one, v in self.examine.verdicts().items() if one not in self._verdicts}
        self._verdicts |= verdicts
        bad = {one: verdict.problem for one, verdict in verdicts.items() if verdict.problem and one in here}
        return [f"node {name_of(here[one])} is not used: {problem}" for one, problem in bad.items()]

    def _node(self, node: dict[str, Any], verdict: Verdict) -> Node:
        cpus, gpus = (node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU"))
        machine = Machine(cpus, gpus, verdict.gpu_name, verdict.gpu_bytes)
        return Node(self.improve(machine) if gpus else machine, node["NodeID"], name_of(node))

    def refuse(self, node: str) -> None:
        super().refuse(node)
        self._verdicts[node] = replace(self._verdicts[node], problem="jobs fail on it")

    def ask(self, shares: Sequence[Share]) -> None:
        """Ask for the shares, or for as many as the autoscaler can give. The first of them is the most urgent."""
        if not self._scales and self.limit is None:
            return
        with suppress(RaySystemError, RpcError):
            if self._asked is not None and self._scales:
                self._hear(*self._asked)
            bundles = [_bundle(share) for share in shares[: self._demand.amount(len(shares))]]
            if self._asked is None or bundles != self._asked[1]:
                self._asked = _autoscaler()[0], bundles
                request_resources(bundles=bundles)

    def _hear(self, version: int, bundles: list[dict[str, float]]) -> None:
        """Take the autoscaler's answer, if it has one to the last request."""
        seen, impossible = _autoscaler()
        if seen >= version + 2 and bundles:
            self._demand.answer(len(bundles), possible=not impossible)
        if self._demand.hopeless and self._gpus_may_come:
            self._no_gpus, self._demand = True, Demand()

    def release(self) -> None:
        """Ask for nothing any more."""
        if self._asked is not None:
            with suppress(RaySystemError, RpcError):
                request_resources(bundles=[])


def _bundle(share: Share) -> dict[str, float]:
    return {"CPU": share.cpus, "GPU": share.gpus} if share.gpus else {"CPU": share.cpus}


def _draining() -> dict[str, int]:
    """Return the ids of the nodes that have been told to drain, with the time at which they end, in milliseconds."""
    return dict(ray._private.state.state.get_draining_nodes())


def _has_autoscaler() -> bool:
    """Return whether Ray's autoscaler (its second version) runs, which says what it cannot start."""
    return bool(is_autoscaler_v2(fetch_from_server=True))


def _autoscaler() -> tuple[int, bool]:
    """Return which state of the cluster the autoscaler has seen, and whether it cannot fulfil what is asked for."""
    worker, messages = cast(Any, ray._private.worker.global_worker), cast(Any, autoscaler_pb2)
    reply = messages.GetClusterStatusReply.FromString(worker.gcs_client.get_cluster_status(timeout_s=10))
    state = reply.autoscaling_state
    return state.last_seen_cluster_resource_state_version, bool(state.infeasible_cluster_resource_constraints)
