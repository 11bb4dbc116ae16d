"""Successive halving as a function of rung scores alone: no Ray, no clock, no store. docs/pruning.md describes it.

Configurations compete inside their stratum (one sweep, role and generator shape). S_0 is all of them; S_{k+1} is the
best max(1, ⌊|S_k|/η⌋) of S_k by their score at rung k (lower is better), ties by name. A configuration's score is the
mean over its seeds, which are promoted or pruned together. A diverged or failed seed makes it +∞, and no configuration
at +∞ is promoted.

If no member of the last S is left, S is computed again without the configurations that diverged. A stratum therefore
has a finisher if any of its configurations can finish.

S does not depend on the order in which scores arrive. A configuration is wanted at the next rung as soon as no
outstanding score can keep it out. Until then it is paused, and only speculation may promote it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Configurations = Mapping[str, Sequence[str]]  # name → its trials, one per seed
Step = tuple[str, int]  # a trial, and the number of the rung to train it to


@dataclass
class _Rung:
    """What is decided about S_k so far, and the scores of its members."""

    min_size: int = 0  # bounds of |S_k|
    max_size: int = 0
    members: set[str] = field(default_factory=set)  # configurations that are certain to be in S_k
    reported: int = 0  # members with the scores of all their seeds
    ranked: list[tuple[float, str]] = field(default_factory=list)  # their finite means, best first
    promoted: int = 0  # the first `promoted` of `ranked` are certain to be in S_{k+1}

    @property
    def unreported(self) -> int:
        """Number of configurations that may still report."""
        return self.max_size - self.reported


class Stratum:
    """The state of one stratum: a function of the set of reported scores, in whatever order they arrive."""

    def __init__(self, configurations: Configurations, rungs: int, eta: int) -> None:
        """rungs: their number, the budget included. eta = 1 prunes nothing."""
        self.configurations, self.rungs, self.eta = configurations, rungs, eta
        self.scores: dict[Step, float] = {}
        self.wanted: set[Step] = set()  # steps that S demands and that have no score yet
        self._newly_wanted: list[Step] = []
        self._name = {trial: name for name, trials in configurations.items() for trial in trials}
        self._rungs = [_Rung() for _ in range(rungs)]
        self._restart(configurations)
        self._newly_wanted.clear()

    def report(self, trial: str, rung: int, score: float) -> list[Step]:
        """Record the first score of a step; NaN counts as +∞. Return the steps that are newly wanted.

        A score from outside S (of speculation, or of a larger sweep before) counts once its configuration is in S.
        """
        if (trial, rung) in self.scores:
            return []
        self.scores[trial, rung] = score if math.isfinite(score) else math.inf
        if (trial, rung) in self.wanted:
            self.wanted.remove((trial, rung))
            self._rank(rung, self._name[trial])
            self._promote(rung)
            while self.finished() and not self.finishers() and (survivors := self._survivors()):
                self._restart(survivors)
        steps, self._newly_wanted = self._newly_wanted, []
        return steps

    def promotable(self) -> Iterator[Step]:
        """Yield the steps that ASHA's asynchronous rule would promote now and S does not demand yet.

        These are the best ⌊n/η⌋ of the n configurations that have reported at a rung. Highest rung first, best first.
        """
        for k in range(len(self._rungs) - 2, -1, -1):
            rung = self._rungs[k]
            for _, name in rung.ranked[rung.promoted : rung.reported // self.eta]:
                yield from ((t, k + 1) for t in self.configurations[name] if (t, k + 1) not in self.scores)

    def sets(self) -> list[list[str]]:
        """Return S_0, S_1, … as far as they are decided and not empty, each sorted by name."""
        decided = (r for r in self._rungs if r.min_size == r.max_size == len(r.members) > 0)
        return [sorted(rung.members) for rung in decided]

    def finishers(self) -> list[str]:
        """Return the configurations of the last S that have their final scores, best first."""
        return [name for _, name in self._rungs[-1].ranked]

    def leader(self) -> tuple[str, int] | None:
        """Return the best configuration at the highest rung with a score, and the number of that rung."""
        for k in range(len(self._rungs) - 1, -1, -1):
            if self._rungs[k].ranked:
                return self._rungs[k].ranked[0][1], k
        return None

    def reported(self) -> list[int]:
        """Return, per rung, how many configurations of S have reported."""
        return [rung.reported for rung in self._rungs]

    def unreported(self) -> list[int]:
        """Return, per rung, how many configurations are still to report if no more of them diverge."""
        return [rung.unreported for rung in self._rungs]

    def ranks(self, trial: str) -> list[tuple[int, int, int]]:
        """Return (rank from 1, number ranked, number promoted) of a trial's configuration at each rung that ranks it.

        The number promoted is an upper bound until the rung is decided, and 0 at the budget.
        """
        name, ranks = self._name[trial], []
        for k, rung in enumerate(self._rungs):
            mean = self._mean_score(k, name)
            if name in rung.members and mean is not None and mean < math.inf:
                promoted = self._quota(rung.max_size) if k < len(self._rungs) - 1 else 0
                ranks.append((1 + bisect_left(rung.ranked, (mean, name)), len(rung.ranked), promoted))
        return ranks

    def finished(self) -> bool:
        """Return whether every step that S demands has a score."""
        return all(rung.unreported == 0 for rung in self._rungs)

    def states(self) -> dict[str, str]:
        """Return trial → state: waiting (for a step), paused (undecided), pruned, done, or speculative.

        A speculative trial is pruned, but speculation has trained it beyond the rung.
        """
        states = dict.fromkeys(self._name, "pruned")  # configurations that a restart of S left out
        for k, rung in enumerate(self._rungs):
            for name in rung.members:
                eliminated = self._is_eliminated(k, name)
                for trial in self.configurations[name]:
                    if (trial, k) in self.wanted:
                        states[trial] = "waiting"
                    elif (trial, k) not in self.scores:
                        states[trial] = "pruned"  # another seed of its configuration diverged
                    elif k == len(self._rungs) - 1:
                        states[trial] = "pruned" if eliminated else "done"
                    elif not eliminated:
                        states[trial] = "paused"
                    else:
                        states[trial] = "speculative" if (trial, k + 1) in self.scores else "pruned"
        return states

    def _restart(self, names: Iterable[str]) -> None:
        """Compute S from S_0 = names and all recorded scores."""
        self._rungs = [_Rung() for _ in self._rungs]
        first = list(names)
        self._rungs[0].min_size = self._rungs[0].max_size = len(first)
        for name in first:
            self._add_member(0, name)
        self._promote(0)

    def _survivors(self) -> list[str]:
        """Return the members of S_0 that did not diverge at a rung of S. Empty if none diverged."""
        diverged = {
            name for k, rung in enumerate(self._rungs) for name in rung.members if self._mean_score(k, name) == math.inf
        }
        return [name for name in self._rungs[0].members if name not in diverged] if diverged else []

    def _add_member(self, k: int, name: str) -> None:
        """Add a configuration to S_k, and want the steps of its seeds that have no score."""
        self._rungs[k].members.add(name)
        missing = [(t, k) for t in self.configurations[name] if (t, k) not in self.scores]
        self.wanted.update(missing)
        self._newly_wanted.extend(missing)
        self._rank(k, name)

    def _rank(self, k: int, name: str) -> None:
        """Rank a member of S_k once it has the scores of all its seeds."""
        mean, rung = self._mean_score(k, name), self._rungs[k]
        if mean is None:
            return
        rung.reported += 1
        if mean == math.inf:  # the scores of its other seeds cannot change that
            self.wanted.difference_update((trial, k) for trial in self.configurations[name])
        else:
            rank = bisect_left(rung.ranked, (mean, name))
            rung.ranked.insert(rank, (mean, name))
            if rank < rung.promoted:  # those behind it move down by one, but one score less is outstanding
                rung.promoted += 1
                self._add_member(k + 1, name)

    def _promote(self, k: int) -> None:
        """Promote the configurations that no outstanding score can keep out, from rung k upwards."""
        for number in range(k, len(self._rungs) - 1):
            rung, following = self._rungs[number], self._rungs[number + 1]
            # Count with the quota of the largest possible S_k: if S_k is smaller by one, one score less is
            # outstanding, and the quota is smaller by at most one.
            certain = min(len(rung.ranked), self._quota(rung.max_size) - rung.unreported)
            while rung.promoted < certain:
                rung.promoted += 1
                self._add_member(number + 1, rung.ranked[rung.promoted - 1][1])
            following.min_size = min(self._quota(rung.min_size), len(rung.ranked))
            following.max_size = min(self._quota(rung.max_size), len(rung.ranked) + rung.unreported)

    def _quota(self, size: int) -> int:
        return max(1, size // self.eta) if size else 0

    def _mean_score(self, k: int, name: str) -> float | None:
        """Return the mean over the seeds: +∞ if any seed's is, else None until all seeds have a score."""
        values = [self.scores[t, k] for t in self.configurations[name] if (t, k) in self.scores]
        if math.inf in values:
            return math.inf
        return sum(values) / len(values) if len(values) == len(self.configurations[name]) else None

    def _is_eliminated(self, k: int, name: str) -> bool:
        """Return whether a member of S_k is certain not to be in S_{k+1}."""
        mean, rung = self._mean_score(k, name), self._rungs[k]
        if mean is None:
            return False
        last = k == len(self._rungs) - 1
        return mean == math.inf or (not last and bisect_left(rung.ranked, (mean, name)) >= self._quota(rung.max_size))
