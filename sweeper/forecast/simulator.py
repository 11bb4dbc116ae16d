"""A sweep without training: the real rule in the real order, driven by a discrete-event clock over learning curves."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sweeper.forecast.curves import Curve, configurations, shuffled, true_best
from sweeper.scheduling.queue import Queue
from sweeper.scheduling.successive_halving import Step, Stratum
from trainables.errors import UserError


@dataclass(kw_only=True)
class Outcome:
    """What a simulated sweep came to."""

    updates: int = 0  # spent
    makespan: float = 0.0  # seconds
    bound: float | None = None  # seconds: no schedule of the same S is shorter
    speculative: int | None = None  # updates outside S, as it ended
    busy: float = 0.0  # slot-seconds
    best: dict[str, float] = field(default_factory=dict)  # stratum → score at the budget; +∞ if nobody got there
    sets: dict[str, list[list[str]]] = field(default_factory=dict)  # stratum → S_0, S_1, …
    steps: list[Step] = field(default_factory=list)  # in the order in which they began


def simulate(
    curves: Sequence[Curve],
    ladder: Sequence[int],
    eta: int,
    slots: float,
    *,
    speculates: bool = True,
    known: Mapping[Step, float] = MappingProxyType({}),
    at_a_time: int | None = None,
) -> Outcome:
    """Run a sweep of these curves on slots that shares add up to. eta = 1 is no pruning. known: scores that are there
    before it starts. at_a_time: at most so many trials, whatever their shares. Raises UserError if a share is larger
    than all slots."""
    of, before, budget = {curve.trial: curve for curve in curves}, [0, *ladder], ladder[-1]
    _check_shares(curves, slots)
    strata = {name: Stratum(members, len(ladder), eta) for name, members in configurations(curves).items()}

    def left(trial: str, rung: int) -> float:
        return of[trial].seconds_per_update * (budget - before[rung])

    def seconds(trial: str, rung: int) -> float:
        curve, last = of[trial], rung == len(ladder) - 1
        training = curve.seconds_per_update * (before[rung + 1] - before[rung])
        return training + curve.seconds_per_rung + (curve.seconds_at_end if last else 0.0)

    for (trial, rung), score in known.items():
        strata[of[trial].stratum].report(trial, rung, score)
    queue, outcome = Queue(strata.values(), left, speculates=speculates), Outcome()
    clock = _Clock(slots, at_a_time)
    while True:
        while (step := queue.next()) and clock.fits(of[step[0]].share):
            queue.start(step)
            clock.start(step, seconds(*step), of[step[0]].share)
            outcome.steps.append(step)
            outcome.updates += before[step[1] + 1] - before[step[1]]
            outcome.busy += seconds(*step) * of[step[0]].share
        if not clock:
            break
        trial, rung = clock.tick()
        queue.report(trial, rung, of[trial].score(ladder[rung]))
    outcome.makespan = clock.now
    demanded: set[Step] = set()
    for name, stratum in strata.items():
        outcome.sets[name] = stratum.sets()
        finishers = [stratum.configurations[finisher] for finisher in stratum.finishers()]
        outcome.best[name] = min((fmean(of[t].score(budget) for t in trials) for trials in finishers), default=math.inf)
        for rung, members in enumerate(outcome.sets[name]):
            demanded.update((trial, rung) for member in members for trial in stratum.configurations[member])
    work, outcome.speculative, chains = 0.0, 0, dict[str, float]()
    for trial, rung in outcome.steps:
        if (trial, rung) in demanded:
            work += seconds(trial, rung) * of[trial].share
            chains[trial] = chains.get(trial, 0.0) + seconds(trial, rung)
        else:
            outcome.speculative += before[rung + 1] - before[rung]
    outcome.bound = max(work / slots, max(chains.values(), default=0.0))
    return outcome


def simulate_stop_only(curves: Sequence[Curve], ladder: Sequence[int], eta: int, slots: float) -> Outcome:
    """The same by Ray Tune's own ASHAScheduler, one per stratum, trials in the order given: it stops or goes on."""
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    @dataclass(frozen=True)
    class Trial:
        trial_id: str

    of, before, budget = {curve.trial: curve for curve in curves}, [0, *ladder], ladder[-1]
    schedulers: dict[str, Any] = {
        stratum: ASHAScheduler(
            time_attr="updates", metric="fid", mode="min", max_t=budget, grace_period=ladder[0], reduction_factor=eta
        )
        for stratum in {curve.stratum for curve in curves}
    }
    outcome, clock, waiting = Outcome(best=dict.fromkeys(schedulers, math.inf)), _Clock(slots), list(reversed(curves))
    finished: dict[tuple[str, str], list[float]] = {}  # seeds that got to the end; Tune knows no configurations
    while waiting or clock:
        while waiting and clock.fits(waiting[-1].share):
            curve = waiting.pop()
            schedulers[curve.stratum].on_trial_add(None, Trial(curve.trial))
            clock.start((curve.trial, 0), curve.seconds_per_update * ladder[0], curve.share)
        trial, rung = clock.tick()
        curve, score = of[trial], of[trial].score(ladder[rung])
        outcome.updates += before[rung + 1] - before[rung]
        outcome.steps.append((trial, rung))
        if rung + 1 == len(ladder):
            finished.setdefault((curve.stratum, curve.configuration), []).append(score)
            continue
        result = {"updates": ladder[rung], "fid": score}
        verdict = schedulers[curve.stratum].on_trial_result(None, Trial(trial), result)
        if verdict == TrialScheduler.CONTINUE:
            clock.start((trial, rung + 1), curve.seconds_per_update * (ladder[rung + 1] - ladder[rung]), curve.share)
    outcome.makespan = clock.now
    for (stratum, _), scores in finished.items():
        outcome.best[stratum] = min(outcome.best[stratum], fmean(scores))
    return outcome


def _check_shares(curves: Iterable[Curve], slots: float) -> None:
    for curve in curves:
        if curve.share > slots:
            raise UserError(f"trial {curve.trial} takes share {curve.share:g} of {slots:g} slots; give more --slots")


class _Clock:
    """Steps under way on a number of slots."""

    def __init__(self, slots: float, at_a_time: int | None = None) -> None:
        self.at_a_time = math.inf if at_a_time is None else at_a_time
        self.slots, self.now, self.used, self.count = slots, 0.0, 0.0, 0
        self.steps: list[tuple[float, int, Step, float]] = []

    def __bool__(self) -> bool:
        return bool(self.steps)

    def fits(self, share: float) -> bool:
        return len(self.steps) < self.at_a_time and self.used + share <= self.slots + 1e-9

    def start(self, step: Step, seconds: float, share: float) -> None:
        heapq.heappush(self.steps, (self.now + seconds, self.count, step, share))
        self.count, self.used = self.count + 1, self.used + share

    def tick(self) -> Step:
        """The step that ends next; it is then."""
        self.now, _, step, share = heapq.heappop(self.steps)
        self.used -= share
        return step


@dataclass(frozen=True)
class Scenario:
    """What is simulated."""

    curves: list[Curve]
    ladder: list[int]
    eta: int
    slots: float
    orders: int  # how many times, each in another order


def compare(scenario: Scenario) -> dict[str, Any]:
    """Our rule, no pruning and stop-only ASHA on the same curves: what `sweeper simulate --json` prints.

    Numbers are means over the orders. A rule that needs more of a curve than was recorded is left out.
    """
    s, budget = scenario, scenario.ladder[-1]
    orders = [s.curves] if s.orders == 1 else [shuffled(s.curves, number) for number in range(s.orders)]
    # What was pruned when the curves were recorded cannot be followed further: no comparison then, no speculation.
    whole = all(curve.reaches(budget) for curve in s.curves)
    rules = {"sweeper": [simulate(curves, s.ladder, s.eta, s.slots, speculates=whole) for curves in orders]}
    if whole:
        rules["no_pruning"] = [simulate(s.curves, s.ladder, 1, s.slots)]
        rules["stop_only"] = [simulate_stop_only(curves, s.ladder, s.eta, s.slots) for curves in orders]
    return {
        "schema": 1,
        "trials": len(s.curves),
        "slots": s.slots,
        "eta": s.eta,
        "rungs": s.ladder,
        "orders": s.orders,
        "true_best": {k: _finite(v) for k, v in true_best(s.curves, budget).items()} if whole else None,
        "rules": {name: _summary(outcomes) for name, outcomes in rules.items()},
    }


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "updates": fmean(outcome.updates for outcome in outcomes),
        "speculative_updates": _known_mean(outcome.speculative for outcome in outcomes),
        "makespan_seconds": fmean(outcome.makespan for outcome in outcomes),
        "lower_bound_seconds": _known_mean(outcome.bound for outcome in outcomes),
        "best": {
            stratum: _finite(fmean(outcome.best[stratum] for outcome in outcomes)) for stratum in outcomes[0].best
        },
    }


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
