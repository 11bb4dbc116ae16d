"""The state and the decisions of a sweep, computed from its manifest and the records of its trials."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, count, islice, pairwise
from statistics import fmean

from sweeper.records import FinalRecord, Manifest, RungRecord, TrialRecord
from sweeper.scheduling.queue import Queue
from sweeper.scheduling.successive_halving import Step, Stratum
from sweeper.store import Store
from trainables.arithmetic import update_macs
from trainables.errors import UserError
from trainables.scores.protocol import comparable
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec

FIRST_FRESH_SEED = 1_000  # of trials that confirm a selected configuration


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
        self,
        manifest: Manifest,
        records: Mapping[str, TrialRecord],
        teacher: TrialSpec | None = None,
        find: Callable[[str], TrialRecord | None] = lambda signature: None,
    ) -> None:
        """teacher: spec of the students' teacher. None for a teacher sweep. find: reads the record of a trial."""
        self.manifest, self.records, self.teacher, self._find = manifest, dict(records), teacher, find
        self.confirmations: dict[GeneratorShape, Stratum] = {}  # the best configuration with fresh seeds, once known
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
        self._confirm()

    @classmethod
    def read(cls, manifest: Manifest, store: Store) -> "Sweep":
        """Read a sweep's records. Raises UserError if a trial's record is missing, corrupt or of another sweep."""
        teacher = store.trial(manifest.teacher.signature) if manifest.teacher else None
        records = {signature: store.require(signature) for signature in manifest.signatures}
        for record in records.values():
            _check_member(record, manifest)
        return cls(manifest, records, teacher.spec if teacher else None, store.trial)

    def save(self, store: Store) -> None:
        """Write the manifest, and register the trials that confirm."""
        for trial in self.confirming:
            if store.trial(trial) is None:
                store.add(self.records[trial].spec)
        self.manifest = dataclasses.replace(self.manifest, confirming=self.confirming)
        store.save_sweep(self.manifest)

    @property
    def confirming(self) -> list[str]:
        """Return the trials that train a selected configuration again."""
        return [trial for stratum in self.confirmations.values() for trial in stratum.configurations]

    # Scheduling.

    def next(self) -> Job | None:
        """Return the next job for a free slot. None if there is none before another job reports."""
        step = self.queue.next()
        return Job(step[0], self._rungs(step[0])[step[1]]) if step else None

    def waiting(self) -> Iterator[str]:
        """Yield the trials that S demands and that could run now, in any order."""
        return (trial for trial, _ in self.queue.waiting())

    def start(self, job: Job) -> None:
        self.queue.start(self._step(job))

    def report(self, job: Job, record: TrialRecord) -> bool:
        """Report the trial's record after a job. Return False, and change nothing, if it lacks the job's score."""
        scores = dict(self._scores(record))
        if self._step(job)[1] not in scores:
            return False
        self.records[job.signature] = record
        for number, score in scores.items():
            self.queue.report(job.signature, number, score)
        self._confirm()
        return True

    def retry(self, job: Job) -> None:
        self.queue.retry(self._step(job))

    def fail(self, job: Job, failure: Failure) -> None:
        self.failed[job.signature] = failure
        self.queue.report(*self._step(job), math.inf)
        self._confirm()

    def finished(self) -> bool:
        """Return whether every step that S demands has a score."""
        return self.queue.finished()

    # State.

    def states(self) -> dict[str, State]:
        """Return signature → state. Running trials count as waiting: only the driver knows them."""
        states: dict[str, State] = {}
        for stratum in chain(self.strata.values(), self.confirmations.values()):
            states.update({trial: State(state) for trial, state in stratum.states().items()})
        for signature, record in self.records.items():
            if any(rung.diverged for rung in record.rungs):
                states[signature] = State.DIVERGED
        return states | dict.fromkeys(self.failed, State.FAILED)

    def finishers(self) -> dict[GeneratorShape, dict[str, list[str]]]:
        """Return shape → configuration → trials of the last S. Only these can be selected."""
        finishers = {shape: {n: list(s.configurations[n]) for n in s.finishers()} for shape, s in self.strata.items()}
        return {shape: configurations for shape, configurations in finishers.items() if configurations}

    def quality(self, trials: Iterable[str]) -> float:
        """Return a configuration's selection score: the mean over its seeds, negated for FID: higher is better."""
        metric, finals = self.manifest.metric, [final for trial in trials if (final := self.final(trial))]
        mean = fmean(score["mean"] for score in comparable(final.selection[metric] for final in finals))
        return mean if metric == "is" else -mean

    def best(self, shape: GeneratorShape) -> list[str] | None:
        """Return the trials (one per seed) of a stratum's best finisher by selection score, ties by name."""
        stratum = self.strata.get(shape)
        finishers = {name: list(stratum.configurations[name]) for name in stratum.finishers()} if stratum else {}
        if not finishers:
            return None
        return finishers[min(finishers, key=lambda name: (-self.quality(finishers[name]), name))]

    def confirmed(self, shape: GeneratorShape) -> list[str]:
        """Return the trials with fresh seeds of a stratum's best configuration that have finished."""
        stratum = self.confirmations.get(shape)
        return [trial for trial in stratum.configurations if self.final(trial)] if stratum else []

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
            again = self.fresh_left(shape)
            total += again * self.manifest.updates * per_update
            longest = max(longest, (sum(u for u, _ in remaining) + bool(again) * self.manifest.updates) * per_update)
        return total, longest

    def _confirm(self) -> None:
        """Train the best configurations of finished strata again, with seeds that took no part in the selection.

        In a teacher sweep the widest shape is left out: it is the teacher that nothing is compared with.
        """
        if not self.manifest.confirm:
            return
        for shape in self.compared:
            if shape in self.confirmations or not self.strata[shape].finished():
                continue
            best = self.best(shape)
            # If a trial has failed, another may be the best once the next command has tried it again.
            if best and not self._has_failures(shape):
                self._train_again(shape, best[0])

    @property
    def compared(self) -> list[GeneratorShape]:
        """Return the shapes whose best configuration is confirmed."""
        shapes = sorted(self.strata, key=lambda shape: (shape.parameters, shape))
        return shapes if self.manifest.role == "student" else shapes[:-1]

    def _has_failures(self, shape: GeneratorShape) -> bool:
        return any(self.records[trial].spec.generator == shape for trial in self.failed)

    def fresh_left(self, shape: GeneratorShape) -> int:
        """Return how many fresh seeds of a shape are still to train. An estimate before the selection."""
        if shape in self.confirmations:
            return self.confirmations[shape].unreported()[0]
        if self.queue.finished() or shape not in self.compared:
            return 0
        return self.manifest.confirm

    def _train_again(self, shape: GeneratorShape, best: str) -> None:
        own = set(self.manifest.signatures)
        used = {record.spec.seed for signature, record in self.records.items() if signature in own}
        spec, seeds = self.records[best].spec, self.manifest.confirm
        specs = [dataclasses.replace(spec, seed=seed) for seed in islice(_fresh(used), seeds)]
        for again in specs:
            self.records[again.signature] = self._find(again.signature) or TrialRecord(again)
            self._cost[again.signature] = update_macs(again, self.teacher)
        trials = [again.signature for again in specs]
        self.confirmations[shape] = Stratum({trial: [trial] for trial in trials}, rungs=1, eta=1)
        for trial in trials:
            for number, score in self._scores(self.records[trial]):
                self.confirmations[shape].report(trial, number, score)
        self.queue.add(self.confirmations[shape])

    def _rungs(self, signature: str) -> list[int]:
        """Return the rungs of a trial. One that confirms is trained to the budget at once."""
        confirms = any(signature in stratum.configurations for stratum in self.confirmations.values())
        return [self.manifest.updates] if confirms else self.manifest.rungs

    def _step(self, job: Job) -> Step:
        return job.signature, self._rungs(job.signature).index(job.updates)

    def _step_cost(self, signature: str, rung: int) -> float:
        begin, end = [0, *self._rungs(signature)][rung : rung + 2]
        return self.work(signature, end - begin)

    def _scores(self, record: TrialRecord) -> list[tuple[int, float]]:
        """Return (rung number, FID by the sweep's protocol) pairs; +∞ from the rung where the trial diverged.

        The score at the budget counts only with the final scores.
        """
        m, scores = self.manifest, []
        diverged = min((r.updates for r in record.rungs if r.diverged), default=math.inf)
        for number, updates in enumerate(self._rungs(record.spec.signature)):
            rung = record.rung(updates, m.protocols["rung"])
            if diverged <= updates:
                scores.append((number, math.inf))
            elif rung is not None and (updates < m.updates or record.final(m.updates, m.protocols)):
                scores.append((number, rung.scores["fid"]["mean"]))
        return scores


def _check_member(record: TrialRecord, manifest: Manifest) -> None:
    """Raise UserError if a trial cannot be one of the sweep's."""
    spec, where = record.spec, f"sweeps/{manifest.name}.json"
    if (spec.role, spec.dataset, spec.image_size) != (manifest.role, manifest.dataset, manifest.image_size):
        raise UserError(f"{where} lists the trial {spec.signature}, which is not its own; restore it from a backup")
    final = record.final(manifest.updates, manifest.protocols)
    if final and not {manifest.metric} <= set(final.selection) & set(final.report):
        raise UserError(f"{where} selects by {manifest.metric}, and trial {spec.signature} has none; restore both")


def _fresh(used: set[int]) -> Iterator[int]:
    """Yield seeds that no trial uses."""
    return (seed for seed in count(FIRST_FRESH_SEED) if seed not in used)
