"""A sweep: its manifest with the records of its trials, and what follows from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise
from statistics import fmean

from sweeper.scheduling.queue import Queue
from sweeper.scheduling.successive_halving import Stratum
from sweeper.store import FinalRecord, Manifest, RungRecord, Store, TrialRecord
from trainables.arithmetic import update_macs
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec


class State(StrEnum):
    """Where a trial stands. The order is that of the displays."""

    WAITING = "waiting"  # to reach a rung
    RUNNING = "running"  # known to the driver alone
    PAUSED = "paused"  # at a rung where it is not decided who goes on
    PRUNED = "pruned"
    SPECULATIVE = "speculative"  # pruned, and yet trained beyond the rung
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """Train a trial up to a number of updates, a rung, and score it there."""

    signature: str
    updates: int


@dataclass(frozen=True)
class Failure:
    """Why a trial failed, in one line, and the exit code of that kind of error."""

    reason: str
    exit_code: int


class Sweep:
    """Everything that is decided about a sweep is computed here from the store's records, and from nothing else."""

    def __init__(
        self, manifest: Manifest, records: Mapping[str, TrialRecord], teacher: TrialSpec | None = None
    ) -> None:
        """teacher: the students' teacher."""
        self.manifest, self.records, self.teacher = manifest, dict(records), teacher
        self.failed: dict[str, Failure] = {}  # a failed trial is tried again by the next command
        self._cost = {signature: update_macs(record.spec, teacher) for signature, record in records.items()}
        members: dict[GeneratorShape, dict[str, list[str]]] = {}
        for signature in sorted(records, key=lambda s: (records[s].spec.generator, s)):
            spec = records[signature].spec
            members.setdefault(spec.generator, {}).setdefault(spec.configuration, []).append(signature)
        self.strata = {shape: Stratum(m, len(manifest.rungs), manifest.eta) for shape, m in members.items()}
        self._typical: dict[GeneratorShape, tuple[float, float]] = {}  # seeds of a configuration, cost of an update
        for shape, configurations in members.items():
            trials = list(chain.from_iterable(configurations.values()))
            self._typical[shape] = len(trials) / len(configurations), fmean(self._cost[trial] for trial in trials)
        for signature, record in self.records.items():
            for number, score in self._scores(record):
                self.strata[record.spec.generator].report(signature, number, score)
        self.queue = Queue(self.strata.values(), self._left)

    @classmethod
    def read(cls, manifest: Manifest, store: Store) -> "Sweep":
        teacher = store.trial(manifest.teacher.signature) if manifest.teacher else None
        records = {signature: store.require(signature) for signature in manifest.signatures}
        return cls(manifest, records, teacher.spec if teacher else None)

    # What comes next.

    def next(self) -> Job | None:
        """The next job for a free slot; None if there is none before another job is reported."""
        step = self.queue.next()
        return Job(step[0], self.manifest.rungs[step[1]]) if step else None

    def start(self, job: Job) -> None:
        self.queue.start((job.signature, self.manifest.rungs.index(job.updates)))

    def reached(self, job: Job, record: TrialRecord) -> bool:
        """Whether this record of the job's trial has what the job was for; the sweep then goes on from it."""
        scores = dict(self._scores(record))
        if self.manifest.rungs.index(job.updates) not in scores:
            return False
        self.records[job.signature] = record
        for number, score in scores.items():
            self.queue.report(job.signature, number, score)
        return True

    def retry(self, job: Job) -> None:
        self.queue.retry((job.signature, self.manifest.rungs.index(job.updates)))

    def fail(self, job: Job, failure: Failure) -> None:
        self.failed[job.signature] = failure
        self.queue.report(job.signature, self.manifest.rungs.index(job.updates), math.inf)

    def finished(self) -> bool:
        """Whether everything that S demands is trained."""
        return self.queue.over()

    # What it has come to.

    def states(self) -> dict[str, State]:
        """Return the state of each trial by signature. RUNNING is not among them: only the driver knows."""
        states: dict[str, State] = {}
        for stratum in self.strata.values():
            states.update({trial: State(state) for trial, state in stratum.states().items()})
        for signature, record in self.records.items():
            if any(rung.diverged for rung in record.rungs):
                states[signature] = State.DIVERGED
        return states | dict.fromkeys(self.failed, State.FAILED)

    def finishers(self) -> dict[GeneratorShape, dict[str, list[str]]]:
        """Return the configurations of the last S with all their final scores: the only ones that are selected."""
        finishers = {shape: {n: list(s.configurations[n]) for n in s.finishers()} for shape, s in self.strata.items()}
        return {shape: configurations for shape, configurations in finishers.items() if configurations}

    def final(self, signature: str) -> FinalRecord | None:
        return self.records[signature].final(self.manifest.updates, self.manifest.protocols)

    def leader(self, shape: GeneratorShape) -> RungRecord | None:
        """The best configuration's record (its first seed's) at the furthest rung of a stratum: for a live view."""
        found = self.strata[shape].leader()
        if found is None:
            return None
        trials = self.strata[shape].configurations[found[0]]
        return self.records[trials[0]].rung(self.manifest.rungs[found[1]], self.manifest.protocols["rung"])

    # What it costs, in multiply-accumulates.

    def work(self, signature: str, updates: int) -> float:
        return updates * self._cost[signature]

    def work_left(self) -> tuple[float, float]:
        """(all that S still demands, the longest chain in it, which more slots do not shorten): estimates, as long as
        it is open who goes on."""
        total, longest = 0.0, 0.0
        segments = [after - before for before, after in pairwise([0, *self.manifest.rungs])]
        for shape, stratum in self.strata.items():
            left = [(updates, number) for updates, number in zip(segments, stratum.expected(), strict=True) if number]
            seeds, per_update = self._typical[shape]
            total += sum(updates * number for updates, number in left) * seeds * per_update
            longest = max(longest, sum(updates for updates, _ in left) * per_update)
        return total, longest

    def _left(self, signature: str, rung: int) -> float:
        return self.work(signature, self.manifest.updates - [0, *self.manifest.rungs][rung])

    def _scores(self, record: TrialRecord) -> list[tuple[int, float]]:
        """(rung number, FID by the sweep's own protocol); +∞ from where it diverged. The budget's counts only with the
        final scores."""
        m, found = self.manifest, []
        diverged = min((r.updates for r in record.rungs if r.diverged), default=math.inf)
        for number, updates in enumerate(m.rungs):
            rung = record.rung(updates, m.protocols["rung"])
            if diverged <= updates:
                found.append((number, math.inf))
            elif rung is not None and (updates < m.updates or record.final(m.updates, m.protocols)):
                found.append((number, rung.scores["fid"]["mean"]))
        return found
