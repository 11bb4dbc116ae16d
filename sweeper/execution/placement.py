"""Finds a node for each job, waits for one that may come, and asks a cluster for what the sweep can use. No Ray."""

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from sweeper.execution.experience import Experience
from sweeper.execution.nodes import Node
from sweeper.execution.resources import Machine, Share, fits_card, needed_bytes, share_of
from sweeper.execution.slots import Needs, Slots
from sweeper.scheduling.sweep import Job, Sweep
from trainables.errors import EnvironmentUserError

SECONDS_FOR_A_NODE = 900.0  # how long a job waits for a node that can hold it
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LINES = 60.0
MOST_ASKED = 256  # shares that a sweep without --slots asks for
ERRORS_OF_A_NODE = 2  # unexpected errors of different jobs in a row on one node, after which it is not used


class Placement:
    """The nodes of the jobs of one command."""

    def __init__(self, sweep: Sweep, slots: Slots, experience: Experience, say: Callable[[str], None]) -> None:
        self.sweep, self.slots, self.cluster, self.experience, self.say = sweep, slots, slots.cluster, experience, say
        self._checked = False
        self._waiting: Job | None = None  # a job for which no node is large enough
        self._since = self._said = self._looked = 0.0
        self._errors: dict[str, list[str]] = {}  # node's id → trials that raised there, in a row

    def place(self, trial_id: str, job: Job) -> tuple[Node, Share] | None:
        """Reserve a node's share for a job. Return None if it has to wait.

        Raises EnvironmentUserError if no node can hold it, and none can come or has come that could.
        """
        needs = self._needs(job.signature)
        if self.cluster.shared and self.cluster.usable and not self._checked:
            self._checked = True
            self._check_all()
        placed = self.slots.place(trial_id, needs)
        if placed is not None or self.slots.fits(needs):
            self._waiting = None
            return placed
        if not self.cluster.can_grow:
            raise EnvironmentUserError(self._explain(job.signature))
        self._wait(job)
        return None

    def look(self, running: Mapping[str, Job], waiting: Iterable[str]) -> tuple[set[str], set[str]]:
        """Read the nodes again, and ask for what the sweep needs, if some seconds have passed.

        running: Tune's id → job. waiting: the ids of those that have no process yet. Return the ids of the waiting
        jobs whose node is gone, and the nodes that are to be shut down and have jobs.
        """
        now = time.monotonic()
        if not self.cluster.shared or now - self._looked < SECONDS_BETWEEN_LOOKS:
            return set(), set()
        self._looked = now
        for line in self.cluster.look():
            self.say(line)
        self.cluster.ask(self._shares(running))
        nodes = {trial_id: node.id for trial_id in running if (node := self.slots.node_of(trial_id))}
        stranded = {trial_id for trial_id in waiting if not self.cluster.has(nodes[trial_id])}
        return stranded, self.cluster.leaving & set(nodes.values())

    def raised(self, node: Node | None, job: Job, reason: str) -> bool:
        """Note that a job raised an unexpected error on a node. Return whether the node is at fault: it is not used.

        The last node is never at fault.
        """
        if node is None or len(self.cluster.usable) < 2:
            return False
        trials = self._errors.setdefault(node.id, [])
        trials.append(job.signature)
        if len(set(trials)) < ERRORS_OF_A_NODE:
            return False
        self.cluster.refuse(node.id)
        self.say(f"node {node.name} is not used any more: {len(set(trials))} trials in a row stopped there, {reason}")
        return True

    def succeeded(self, node: Node | None) -> None:
        """Note that a job has succeeded on a node."""
        if node is not None:
            self._errors.pop(node.id, None)

    def _needs(self, signature: str) -> Needs:
        def needs(machine: Machine) -> Share | None:
            if self.cluster.shared and not fits_card(self.sweep, signature, machine, self.experience):
                return None
            return share_of(self.sweep, signature, machine, self.experience)

        return needs

    def _shares(self, running: Mapping[str, Job]) -> list[Share]:
        """Return what the sweep could use at once: for the job that waits, the running ones, and those that could."""
        most = self.slots.limit or max(MOST_ASKED, len(running))
        first = [self._waiting.signature] if self._waiting else []
        own = [job.signature for job in running.values()]
        others = islice((trial for trial in self.sweep.waiting() if trial not in first), max(0, most - len(own)))
        kind = self.cluster.kind
        return [share_of(self.sweep, one, kind, self.experience) for one in [*first, *own, *others]][:most]

    def _check_all(self) -> None:
        """Raise EnvironmentUserError before the first trial if a later one will find no node."""
        if self.cluster.can_grow:
            return
        for signature in self.sweep.waiting():
            if not self.slots.fits(self._needs(signature)):
                raise EnvironmentUserError(self._explain(signature))

    def _wait(self, job: Job) -> None:
        now = time.monotonic()
        if self._waiting is None:
            self._since = self._said = now
            self.say(f"waiting for a node: {self._explain(job.signature).rpartition('; ')[0]}")
        self._waiting = job
        if now - self._since > SECONDS_FOR_A_NODE:
            raise EnvironmentUserError(
                f"no node has come within {SECONDS_FOR_A_NODE / 60:.0f} minutes: {self._explain(job.signature)}"
            )
        if now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            self.say(f"still waiting for a node, for {(now - self._since) / 60:.0f} min; `ray status` says why")

    def _explain(self, signature: str) -> str:
        """Return what a trial needs and what the nodes have, with what to do."""
        record = self.sweep.records[signature]
        label, machine = f"{record.spec.generator.label} {record.spec.kind}", self.cluster.kind
        if self.cluster.usable and not fits_card(self.sweep, signature, machine, self.experience):
            size = needed_bytes(
                record.spec, self.sweep.teacher, machine, self.sweep.manifest.real_bytes, self.experience
            )
            advice = "start Ray on a node with a larger GPU, or use a smaller --set batch_size"
            return f"{label} needs {size / 1e9:.0f} GB on one GPU, and {self.cluster.text()}; {advice}"
        needed = share_of(self.sweep, signature, machine, self.experience)
        advice = "start Ray on a larger node, or use fewer --set threads"
        return f"{label} needs {needed.text()} on one node, and {self.cluster.text()}; {advice}"
