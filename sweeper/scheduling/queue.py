"""The order of steps over all strata, shared by a sweep under Ray, `sweeper plan` and `sweeper simulate`.

1. Steps that S demands: promotions first, then trials that have not started. Within each of the two, the step with the
   highest remaining cost to the budget comes first, ties by name. Wide generators therefore begin early. The order is
   strict: a step whose share is not free blocks the steps behind it, so that it does not starve.
2. If every step that S demands is running: speculation, in the same order.
"""

import heapq
from collections.abc import Callable, Iterable

from sweeper.scheduling.successive_halving import Step, Stratum

RemainingCost = Callable[[str, int], float]  # (trial, rung) → cost from the rung before it to the budget, in any unit


class Queue:
    """The steps of a sweep that can start now. Callers report which steps start and which scores arrive."""

    def __init__(self, strata: Iterable[Stratum], remaining_cost: RemainingCost, *, speculates: bool = True) -> None:
        self.strata, self.remaining_cost, self.speculates = list(strata), remaining_cost, speculates
        self.running: set[Step] = set()
        self._stratum = {trial: s for s in self.strata for trials in s.configurations.values() for trial in trials}
        self._heap: list[tuple[bool, float, str, int]] = []
        for stratum in self.strata:
            self._push(stratum.wanted)

    def next(self) -> Step | None:
        """Return the next step to start. None if there is none before another score is reported."""
        while self._heap:
            _, _, trial, rung = self._heap[0]
            if (trial, rung) in self._stratum[trial].wanted and (trial, rung) not in self.running:
                return trial, rung
            heapq.heappop(self._heap)
        return self._speculative_step() if self.speculates else None

    def start(self, step: Step) -> None:
        self.running.add(step)

    def retry(self, step: Step) -> None:
        """Return a running step to the queue."""
        self.running.discard(step)
        self._push([step])

    def report(self, trial: str, rung: int, score: float) -> None:
        """Report a score; +∞ for a trial that diverged or failed."""
        self.running.discard((trial, rung))
        self._push(self._stratum[trial].report(trial, rung, score))

    def finished(self) -> bool:
        """Return whether every step that S demands has a score. Speculative steps may still be running."""
        return all(stratum.finished() for stratum in self.strata)

    def _push(self, steps: Iterable[Step]) -> None:
        for trial, rung in steps:
            heapq.heappush(self._heap, (rung == 0, -self.remaining_cost(trial, rung), trial, rung))

    def _speculative_step(self) -> Step | None:
        if self.finished():
            return None
        steps = [step for s in self.strata for step in s.promotable() if step not in self.running]
        return min(steps, key=lambda step: (-self.remaining_cost(*step), step), default=None)
