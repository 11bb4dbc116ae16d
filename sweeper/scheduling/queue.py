"""The order of steps over all strata, shared by a sweep under Ray, `sweeper plan` and `sweeper simulate`.

1. Steps that S demands, by critical path: the step with the highest cost to the budget comes first, ties by name. That
   cost is the cost of the step itself plus the mean cost of the later rungs in its stratum. A cheap step that an
   expensive stratum waits for therefore starts early, and so does a stratum with a long way to the budget. The order is
   strict: a step whose share is not free blocks the steps behind it, so that it does not starve.
2. If every step that S demands is running: speculation, in the same order.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from statistics import fmean

from sweeper.scheduling.successive_halving import Step, Stratum

StepCost = Callable[[str, int], float]  # (trial, rung) → cost from the rung before it to the rung, in any unit


class Queue:
    """The steps of a sweep that can start now. Callers report which steps start and which scores arrive."""

    def __init__(self, strata: Iterable[Stratum], step_cost: StepCost, *, speculates: bool = True) -> None:
        self.strata: list[Stratum] = []
        self.step_cost, self.speculates = step_cost, speculates
        self.running: set[Step] = set()
        self._stratum: dict[str, Stratum] = {}  # by trial
        self._mean_cost_after: dict[int, list[float]] = {}
        self._heap: list[tuple[float, str, int]] = []
        for stratum in strata:
            self.add(stratum)

    def add(self, stratum: Stratum) -> None:
        """Add a stratum, and the steps that it wants."""
        self.strata.append(stratum)
        self._stratum |= {trial: stratum for trials in stratum.configurations.values() for trial in trials}
        self._mean_cost_after[id(stratum)] = self._mean_costs(stratum)
        self._push(stratum.wanted)

    def next(self) -> Step | None:
        """Return the next step to start. None if there is none before another score is reported."""
        while self._heap:
            _, trial, rung = self._heap[0]
            if (trial, rung) in self._stratum[trial].wanted and (trial, rung) not in self.running:
                return trial, rung
            heapq.heappop(self._heap)
        return self._speculative_step() if self.speculates else None

    def waiting(self) -> Iterator[Step]:
        """Yield the steps that S demands and that could start now, in any order."""
        return (step for stratum in self.strata for step in stratum.wanted if step not in self.running)

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
            heapq.heappush(self._heap, (-self._cost_to_budget((trial, rung)), trial, rung))

    def _mean_costs(self, stratum: Stratum) -> list[float]:
        """Return the mean cost of a trial from each rung to the budget. Which trials are promoted is unknown."""
        trials = [trial for trials in stratum.configurations.values() for trial in trials]
        steps = [fmean(self.step_cost(trial, rung) for trial in trials) for rung in range(1, stratum.rungs)]
        return [*accumulate(reversed(steps), initial=0.0)][::-1]

    def _cost_to_budget(self, step: Step) -> float:
        trial, rung = step
        return self.step_cost(trial, rung) + self._mean_cost_after[id(self._stratum[trial])][rung]

    def _speculative_step(self) -> Step | None:
        if self.finished():
            return None
        steps = [step for s in self.strata for step in s.promotable() if step not in self.running]
        return min(steps, key=lambda step: (-self._cost_to_budget(step), step), default=None)
