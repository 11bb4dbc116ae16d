"""ASHA's rule, as a function of rung records alone: no Ray, no clock, no store.

Configurations compete inside their stratum (one sweep, role and d). S_0 is all of them; S_{k+1} is the best
max(1, ⌊|S_k|/η⌋) of S_k by their score at rung k (lower is better), ties by name. A configuration's score is the
mean over its seeds, which share its fate; a diverged or failed seed makes it +∞, and nothing at +∞ goes on.

If nobody of the last S is left, all over again without those that diverged: a stratum has a finisher if any of its
configurations can finish.

S does not depend on the order in which scores arrive. A configuration is wanted at the next rung as soon as no score
that may still come can keep it out; until then it is paused, and at most speculation (docs/pruning.md).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Configurations = Mapping[str, Sequence[str]]  # name → its trials, one per seed
Step = tuple[str, int]  # a trial, and the number of the rung that it is to reach


@dataclass
class _Rung:
    """S_k, as far as it is known, and the scores of its members."""

    least: int = 0  # bounds of |S_k|
    most: int = 0
    members: set[str] = field(default_factory=set)  # configurations that are certain to be in it
    reported: int = 0  # members that have the scores of all their seeds
    ranked: list[tuple[float, str]] = field(default_factory=list)  # of these the finite means, best first
    promoted: int = 0  # how many from the start of `ranked` are certain to be in S_{k+1}

    @property
    def unknown(self) -> int:
        """How many configurations may still report."""
        return self.most - self.reported


class Stratum:
    """Where a stratum stands. `report` takes scores in any order; what it comes to is a function of their set."""

    def __init__(self, configurations: Configurations, rungs: int, eta: int) -> None:
        """rungs: how many there are, the budget included. eta = 1 prunes nothing."""
        self.configurations, self.eta = configurations, eta
        self.scores: dict[Step, float] = {}
        self.wanted: set[Step] = set()  # to be reached whatever else comes, and not reached yet
        self._new: list[Step] = []
        self._name = {trial: name for name, trials in configurations.items() for trial in trials}
        self._rungs = [_Rung() for _ in range(rungs)]
        self._begin(configurations)
        self._new.clear()

    def report(self, trial: str, rung: int, score: float) -> list[Step]:
        """Take a score, once; NaN counts as +∞. Returns what is wanted now and was not before.

        One from outside S (of speculation, or of a sweep that was larger) is kept for when its configuration is in.
        """
        if (trial, rung) in self.scores:
            return []
        self.scores[trial, rung] = score if math.isfinite(score) else math.inf
        if (trial, rung) in self.wanted:
            self.wanted.remove((trial, rung))
            self._settle(rung, self._name[trial])
            self._advance(rung)
            while self.over() and not self.finishers() and (left := self._undiverged()):
                self._begin(left)
        new, self._new = self._new, []
        return new

    def promotable(self) -> Iterator[Step]:
        """What the paper's asynchronous rule would promote now and S does not demand yet: of the n that have reported
        at a rung the best ⌊n/η⌋. Furthest rung first, best first."""
        for k in range(len(self._rungs) - 2, -1, -1):
            rung = self._rungs[k]
            for _, name in rung.ranked[rung.promoted : rung.reported // self.eta]:
                yield from ((t, k + 1) for t in self.configurations[name] if (t, k + 1) not in self.scores)

    def sets(self) -> list[list[str]]:
        """S_0, S_1, … as far as they are decided and not empty, by name."""
        decided = (r for r in self._rungs if r.least == r.most == len(r.members) > 0)
        return [sorted(rung.members) for rung in decided]

    def finishers(self) -> list[str]:
        """Configurations of the last S that have their scores there, best first."""
        return [name for _, name in self._rungs[-1].ranked]

    def leader(self) -> tuple[str, int] | None:
        """The best configuration at the furthest rung that any has reached, and that rung's number."""
        for k in range(len(self._rungs) - 1, -1, -1):
            if self._rungs[k].ranked:
                return self._rungs[k].ranked[0][1], k
        return None

    def reached(self) -> list[int]:
        """Configurations of S that have reported, per rung."""
        return [rung.reported for rung in self._rungs]

    def expected(self) -> list[int]:
        """Configurations that are still to report, per rung, if nothing diverges from now on."""
        return [rung.unknown for rung in self._rungs]

    def places(self, trial: str) -> list[tuple[int, int, int]]:
        """Of the trial's configuration, at each rung where it is ranked: (its place from 1, how many are ranked, how
        many go on). At the budget nobody goes on."""
        name, found = self._name[trial], []
        for k, rung in enumerate(self._rungs):
            mean = self._mean(k, name)
            if name in rung.members and mean is not None and mean < math.inf:
                going_on = self._quota(rung.most) if k < len(self._rungs) - 1 else 0
                found.append((1 + bisect_left(rung.ranked, (mean, name)), len(rung.ranked), going_on))
        return found

    def over(self) -> bool:
        """Whether nothing of S is left to be trained."""
        return all(rung.unknown == 0 for rung in self._rungs)

    def states(self) -> dict[str, str]:
        """trial → waiting (to reach a rung), paused (undecided), pruned, done, or speculative (pruned, yet further)."""
        found = dict.fromkeys(self._name, "pruned")  # those that S was begun again without
        for k, rung in enumerate(self._rungs):
            for name in rung.members:
                out = self._is_out(k, name)
                for trial in self.configurations[name]:
                    if (trial, k) in self.wanted:
                        found[trial] = "waiting"
                    elif (trial, k) not in self.scores:
                        found[trial] = "pruned"  # another seed has diverged
                    elif k == len(self._rungs) - 1:
                        found[trial] = "pruned" if out else "done"
                    elif not out:
                        found[trial] = "paused"
                    else:
                        found[trial] = "speculative" if (trial, k + 1) in self.scores else "pruned"
        return found

    def _begin(self, names: Iterable[str]) -> None:
        """S_0 is these, and everything follows from the scores that are known."""
        self._rungs = [_Rung() for _ in self._rungs]
        known = list(names)
        self._rungs[0].least = self._rungs[0].most = len(known)
        for name in known:
            self._join(0, name)
        self._advance(0)

    def _undiverged(self) -> list[str]:
        """Configurations of S_0 that were not seen to diverge at a rung of S. Nobody else, when S came to nothing."""
        out = {name for k, rung in enumerate(self._rungs) for name in rung.members if self._mean(k, name) == math.inf}
        return [name for name in self._rungs[0].members if name not in out] if out else []

    def _join(self, k: int, name: str) -> None:
        """A configuration is certain to be in S_k."""
        self._rungs[k].members.add(name)
        missing = [(t, k) for t in self.configurations[name] if (t, k) not in self.scores]
        self.wanted.update(missing)
        self._new.extend(missing)
        self._settle(k, name)

    def _settle(self, k: int, name: str) -> None:
        """Rank a member of S_k, if it has the scores of all its seeds."""
        mean, rung = self._mean(k, name), self._rungs[k]
        if mean is None:
            return
        rung.reported += 1
        if mean == math.inf:  # what its other seeds come to changes nothing
            self.wanted.difference_update((trial, k) for trial in self.configurations[name])
        else:
            place = bisect_left(rung.ranked, (mean, name))
            rung.ranked.insert(place, (mean, name))
            if place < rung.promoted:  # those behind it move down by one, and one score less may come before them
                rung.promoted += 1
                self._join(k + 1, name)

    def _advance(self, k: int) -> None:
        """Promote whom nothing can keep out any more, from rung k upwards."""
        for number in range(k, len(self._rungs) - 1):
            rung, following = self._rungs[number], self._rungs[number + 1]
            # The quota of the most that S_k may be: for each one fewer, one score fewer may come, and at most one
            # place is lost.
            certain = min(len(rung.ranked), self._quota(rung.most) - rung.unknown)
            while rung.promoted < certain:
                rung.promoted += 1
                self._join(number + 1, rung.ranked[rung.promoted - 1][1])
            following.least = min(self._quota(rung.least), len(rung.ranked))
            following.most = min(self._quota(rung.most), len(rung.ranked) + rung.unknown)

    def _quota(self, size: int) -> int:
        return max(1, size // self.eta) if size else 0

    def _mean(self, k: int, name: str) -> float | None:
        """+∞ as soon as one seed's is; else None while a seed has no score."""
        values = [self.scores[t, k] for t in self.configurations[name] if (t, k) in self.scores]
        if math.inf in values:
            return math.inf
        return sum(values) / len(values) if len(values) == len(self.configurations[name]) else None

    def _is_out(self, k: int, name: str) -> bool:
        """Whether a member of S_k is certain not to be in S_{k+1}."""
        mean, rung = self._mean(k, name), self._rungs[k]
        if mean is None:
            return False
        last = k == len(self._rungs) - 1
        return mean == math.inf or (not last and bisect_left(rung.ranked, (mean, name)) >= self._quota(rung.most))
