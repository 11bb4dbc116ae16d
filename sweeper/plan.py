"""What a sweep has come to, what is still to do, and in which order."""

import math
from dataclasses import dataclass
from statistics import fmean

from sweeper.pruning import Standing, standing
from sweeper.store import FinalRecord, Manifest, RungRecord, Store, TrialRecord
from trainables.sizes import generator_macs
from trainables.spec import TrialSpec

STATES = ("waiting", "running", "paused", "pruned", "done", "diverged", "failed")


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
    """A manifest with the records of its trials: what every decision is computed from."""

    def __init__(self, manifest: Manifest, records: dict[str, TrialRecord]) -> None:
        self.manifest, self.records = manifest, records
        self.failed: dict[str, Failure] = {}  # a failed trial is tried again by the next command
        self.strata: dict[int, dict[str, list[str]]] = {}  # d → configuration → its trials, one per seed
        for signature in sorted(records, key=lambda s: (records[s].spec.d, s)):
            spec = records[signature].spec
            self.strata.setdefault(spec.d, {}).setdefault(spec.configuration, []).append(signature)

    @classmethod
    def read(cls, manifest: Manifest, store: Store) -> "Sweep":
        return cls(manifest, {signature: store.need(signature) for signature in manifest.signatures})

    def standings(self) -> dict[int, Standing]:
        """d → where its stratum stands."""
        m = self.manifest
        return {d: standing(c, self._scores(d), len(m.rungs), m.eta) for d, c in self.strata.items()}

    def jobs(self) -> list[Job]:
        """Every job that is certain to be needed: furthest rung first, then the most expensive, then by name."""
        rungs, found = self.manifest.rungs, []
        for stand in self.standings().values():
            for signature, number in stand.wanted:
                found.append((-number, -self.work(signature, rungs[number]), signature))
        return [Job(signature, rungs[-minus]) for minus, _, signature in sorted(found)]

    def states(self) -> dict[str, str]:
        """signature → one of STATES, but for running, which only the driver knows."""
        states: dict[str, str] = {}
        for stand in self.standings().values():
            states.update(stand.states)
        for signature, record in self.records.items():
            if any(rung.diverged for rung in record.rungs):
                states[signature] = "diverged"
        return states | dict.fromkeys(self.failed, "failed")

    def finishers(self) -> dict[int, dict[str, list[str]]]:
        """d → configurations in the last S whose every seed has its final scores: the only ones that are selected."""
        found: dict[int, dict[str, list[str]]] = {}
        for d, stand in self.standings().items():
            names = stand.sets[-1] if len(stand.sets) == len(self.manifest.rungs) else []
            done = {n: self.strata[d][n] for n in names if all(self.final(s) for s in self.strata[d][n])}
            if done:
                found[d] = done
        return found

    def final(self, signature: str) -> FinalRecord | None:
        return self.records[signature].final(self.manifest.updates, self.manifest.protocols)

    def finished(self) -> bool:
        return not self.jobs()

    def best_rung(self, d: int) -> RungRecord | None:
        """The best record of a stratum's furthest rung: what a live view shows."""
        trials = [self.records[s] for seeds in self.strata[d].values() for s in seeds]
        for updates in reversed(self.manifest.rungs):
            reached = [
                rung for t in trials if (rung := t.rung(updates, self.manifest.protocols["rung"])) and rung.scores
            ]
            if reached:
                return min(reached, key=lambda rung: rung.scores["fid"]["mean"])
        return None

    def work(self, signature: str, updates: int) -> float:
        """An estimate of a trial's work up to a number of updates, in multiply-accumulates."""
        return updates * update_macs(self.records[signature].spec)

    def work_left(self) -> tuple[float, float]:
        """(all that the sweep will still do, the longest chain in it, which more slots do not shorten)."""
        m, total, longest = self.manifest, 0.0, 0.0
        for d, configurations in self.strata.items():
            trials = [trial for seeds in configurations.values() for trial in seeds]
            per_update = fmean(update_macs(self.records[trial].spec) for trial in trials)
            scores, size, previous, chain = self._scores(d), len(configurations), 0, 0.0
            for number, updates in enumerate(m.rungs):
                missing = size * len(trials) / len(configurations) - sum((t, number) in scores for t in trials)
                if missing > 0:
                    total += missing * (updates - previous) * per_update
                    chain += (updates - previous) * per_update
                previous, size = updates, max(1, size // m.eta)
            longest = max(longest, chain)
        return total, longest

    def _scores(self, d: int) -> dict[tuple[str, int], float]:
        """(trial, rung number) → FID by the sweep's own protocol; +∞ from where it diverged or failed."""
        m, found = self.manifest, {}
        for signature in (s for trials in self.strata[d].values() for s in trials):
            record = self.records[signature]
            diverged = min((r.updates for r in record.rungs if r.diverged), default=math.inf)
            for number, updates in enumerate(m.rungs):
                rung = record.rung(updates, m.protocols["rung"])
                if diverged <= updates or (rung is None and signature in self.failed):
                    found[signature, number] = math.inf
                elif rung is not None and (updates < m.updates or self.final(signature)):
                    found[signature, number] = rung.scores["fid"]["mean"]
        return found


def update_macs(spec: TrialSpec) -> float:
    """Multiply-accumulates of one update: a forward and a backward pass (twice a forward) of the generator, and for
    the discriminator those on real and on generated images, and once more through it to the generator."""
    generator = generator_macs(spec.d, spec.image_size, spec.channels)
    if spec.d_discriminator is None:
        return float(spec.batch_size * 3 * generator)
    discriminator = generator_macs(spec.d_discriminator, spec.image_size, spec.channels)
    return float(spec.batch_size * ((2 + spec.n_critic) * generator + (6 * spec.n_critic + 2) * discriminator))
