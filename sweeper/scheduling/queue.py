"""Which step comes next, over all strata: the one order that a sweep under Ray, a plan and a simulation follow.

1. What S demands: first what a promotion made possible, then what has not begun; within each the longest way to the
   budget first (by cost, not by updates), then by name. Expensive widths so begin early. The order is strict: a step
   that needs more than is free is waited for, and cannot starve.
2. Where S demands nothing that is not under way: speculation, in the same order.
"""

import heapq
from collections.abc import Callable, Iterable

from sweeper.scheduling.successive_halving import Step, Stratum

Left = Callable[[str, int], float]  # what a trial still costs to the budget when it sets out for a rung; in any unit


class Queue:
    """The open steps of a sweep. It is told what starts and what is reported; `next` says what follows."""

    def __init__(self, strata: Iterable[Stratum], left: Left, *, speculates: bool = True) -> None:
        self.strata, self.left, self.speculates = list(strata), left, speculates
        self.running: set[Step] = set()
        self._of = {trial: s for s in self.strata for trials in s.configurations.values() for trial in trials}
        self._open: list[tuple[bool, float, str, int]] = []
        for stratum in self.strata:
            self._add(stratum.wanted)

    def next(self) -> Step | None:
        """What comes next; None if nothing does before something is reported."""
        while self._open:
            _, _, trial, rung = self._open[0]
            if (trial, rung) in self._of[trial].wanted and (trial, rung) not in self.running:
                return trial, rung
            heapq.heappop(self._open)
        return self._speculation() if self.speculates else None

    def start(self, step: Step) -> None:
        self.running.add(step)

    def retry(self, step: Step) -> None:
        """What was started has to be started again."""
        self.running.discard(step)
        self._add([step])

    def report(self, trial: str, rung: int, score: float) -> None:
        """A score; +∞ for what diverged or failed."""
        self.running.discard((trial, rung))
        self._add(self._of[trial].report(trial, rung, score))

    def over(self) -> bool:
        """Whether S is trained. Speculation may still be under way."""
        return all(stratum.over() for stratum in self.strata)

    def _add(self, steps: Iterable[Step]) -> None:
        for trial, rung in steps:
            heapq.heappush(self._open, (rung == 0, -self.left(trial, rung), trial, rung))

    def _speculation(self) -> Step | None:
        if self.over():
            return None
        found = [step for s in self.strata for step in s.promotable() if step not in self.running]
        return min(found, key=lambda step: (-self.left(*step), step), default=None)
