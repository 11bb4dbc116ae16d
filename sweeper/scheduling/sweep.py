"""The state and the decisions of a sweep, computed from its manifest and the records of its trials."""

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
    """State of a trial. Displays list the states in this order."""

    WAITING = "waiting"  # for a slot to train it to its next rung
    RUNNING = "running"  # only the driver reports it
    PAUSED = "paused"  # at a rung whose promotions are undecided
    PRUNED = "pruned"
    SPECULATIVE = "speculative"  # pruned, but speculation has trained it beyond the rung
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """Train a trial to a rung, given in updates, and score it there."""

    signature: str
    updates: int


@dataclass(frozen=True)
class Failure:
    """Why a trial failed, in one line, and the exit code for that kind of error."""

    reason: str
    exit_code: int


class Sweep:
    """A sweep's queue and state. Everything here follows from the store's records."""

    def __init__(
        self, manifest: Manifest, records: Mapping[str, TrialRecord], teacher: TrialSpec | None = None
    ) -> None:
        """teacher: spec of the students' teacher. None for a teacher sweep."""
        self.manifest, self.records, self.teacher = manifest, dict(records), teacher
        self.failed: dict[str, Failure] = {}  # in this command; the next command retries these trials
        self._cost = {signature: update_macs(record.spec, teacher) for signature, record in records.items()}
        members: dict[GeneratorShape, dict[str, list[str]]] = {}
        for signature in sorted(records, key=lambda s: (records[s].spec.generator, s)):
            spec = records[signature].spec
            members.setdefault(spec.generator, {}).setdefault(spec.configuration, []).append(signature)
        self.strata = {shape: Stratum(m, len(manifest.rungs), manifest.eta) for shape, m in members.items()}
        self._typical: dict[
            GeneratorShape, tuple[float, float]
        ] = {}  # mean seeds per configuration and cost per update
        for shape, configurations in members.items():
            trials = list(chain.from_iterable(configurations.values()))
            self._typical[shape] = len(trials) / len(configurations), fmean(self._cost[trial] for trial in trials)
        for signature, record in self.records.items():
            for number, score in self._scores(record):
                self.strata[record.spec.generator].report(signature, number, score)
        self.queue = Queue(self.strata.values(), self._step_cost)

    @classmethod
    def read(cls, manifest: Manifest, store: Store) -> "Sweep":
        """Read a sweep's records. Raises UserError if a trial's record is missing or corrupt."""
        teacher = store.trial(manifest.teacher.signature) if manifest.teacher else None
        records = {signature: store.require(signature) for signature in manifest.signatures}
        return cls(manifest, records, teacher.spec if teacher else None)

    # Scheduling.

    def next(self) -> Job | None:
        """Return the next job for a free slot. None if there is none before another job reports."""
        step = self.queue.next()
        return Job(step[0], self.manifest.rungs[step[1]]) if step else None

    def start(self, job: Job) -> None:
        self.queue.start((job.signature, self.manifest.rungs.index(job.updates)))

    def report(self, job: Job, record: TrialRecord) -> bool:
        """Report the trial's record after a job. Return False, and change nothing, if it lacks the job's score."""
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
        """Return whether every step that S demands has a score."""
        return self.queue.finished()

    # State.

    def states(self) -> dict[str, State]:
        """Return signature → state. Running trials count as waiting: only the driver knows them."""
        states: dict[str, State] = {}
        for stratum in self.strata.values():
            states.update({trial: State(state) for trial, state in stratum.states().items()})
        for signature, record in self.records.items():
            if any(rung.diverged for rung in record.rungs):
                states[signature] = State.DIVERGED
        return states | dict.fromkeys(self.failed, State.FAILED)

    def finishers(self) -> dict[GeneratorShape, dict[str, list[str]]]:
        """Return shape → configuration → trials of the last S. Only these can be selected."""
        finishers = {shape: {n: list(s.configurations[n]) for n in s.finishers()} for shape, s in self.strata.items()}
        return {shape: configurations for shape, configurations in finishers.items() if configurations}

    def final(self, signature: str) -> FinalRecord | None:
        return self.records[signature].final(self.manifest.updates, self.manifest.protocols)

    def leader(self, shape: GeneratorShape) -> RungRecord | None:
        """Return the record of a stratum's best configuration (its first seed) at the highest rung with a score."""
        leader = self.strata[shape].leader()
        if leader is None:
            return None
        name, rung = leader
        trials = self.strata[shape].configurations[name]
        return self.records[trials[0]].rung(self.manifest.rungs[rung], self.manifest.protocols["rung"])

    # Cost, in multiply-accumulates.

    def work(self, signature: str, updates: int) -> float:
        return updates * self._cost[signature]

    def work_left(self) -> tuple[float, float]:
        """Return (remaining work of S, its longest chain of dependent steps, which no number of slots shortens).

        Both are estimates while promotions are undecided.
        """
        total, longest = 0.0, 0.0
        segments = [after - before for before, after in pairwise([0, *self.manifest.rungs])]
        for shape, stratum in self.strata.items():
            remaining = [(updates, n) for updates, n in zip(segments, stratum.unreported(), strict=True) if n]
            seeds, per_update = self._typical[shape]
            total += sum(updates * n for updates, n in remaining) * seeds * per_update
            longest = max(longest, sum(updates for updates, _ in remaining) * per_update)
        return total, longest

    def _step_cost(self, signature: str, rung: int) -> float:
        begin, end = [0, *self.manifest.rungs][rung : rung + 2]
        return self.work(signature, end - begin)

    def _scores(self, record: TrialRecord) -> list[tuple[int, float]]:
        """Return (rung number, FID by the sweep's protocol) pairs; +∞ from the rung where the trial diverged.

        The score at the budget counts only with the final scores.
        """
        m, scores = self.manifest, []
        diverged = min((r.updates for r in record.rungs if r.diverged), default=math.inf)
        for number, updates in enumerate(m.rungs):
            rung = record.rung(updates, m.protocols["rung"])
            if diverged <= updates:
                scores.append((number, math.inf))
            elif rung is not None and (updates < m.updates or record.final(m.updates, m.protocols)):
                scores.append((number, rung.scores["fid"]["mean"]))
        return scores
