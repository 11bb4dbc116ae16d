"""Discrete-event simulation of a sweep over learning curves, with the scheduling code of a real sweep."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sweeper.forecast.curves import Curve, configurations, shuffled, true_best
from sweeper.scheduling.queue import Queue
from sweeper.scheduling.successive_halving import Step, Stratum
from trainables.errors import UserError


@dataclass(kw_only=True)
class Outcome:
    """The result of a simulated sweep."""

    updates: int = 0
    makespan: float = 0.0  # seconds
    bound: float | None = None  # lower bound of the makespan of any schedule of the same S, in seconds
    speculative: int | None = None  # updates of steps outside the final S
    busy: float = 0.0  # slot-seconds
    best: dict[str, float] = field(default_factory=dict)  # stratum → best score at the budget; +∞ without a finisher
    sets: dict[str, list[list[str]]] = field(default_factory=dict)  # stratum → S_0, S_1, …
    steps: list[Step] = field(default_factory=list)  # in the order in which they started
    confirming: dict[str, str] = field(default_factory=dict)  # trial with a fresh seed → the trial that it repeats


def simulate(
    curves: Sequence[Curve],
    ladder: Sequence[int],
    eta: int,
    slots: float,
    *,
    speculates: bool = True,
    recorded: Mapping[Step, float] = MappingProxyType({}),
    max_concurrent: int | None = None,
    confirm: Mapping[str, int] = MappingProxyType({}),
) -> Outcome:
    """Simulate a sweep of these curves.

    ladder: the rungs in updates, the budget last. eta: 1 prunes nothing. slots: the sum of shares that fit at once.
    recorded: scores that the store holds before the sweep starts. max_concurrent: maximum number of running trials.
    confirm: stratum → number of fresh seeds with which its best trial is trained again, to the budget at once.
    Raises UserError if a share exceeds the slots, or a curve ends before its trial does.
    """
    by_trial, budget = {curve.trial: curve for curve in curves}, ladder[-1]
    _check_shares(curves, slots)
    strata = {name: Stratum(members, len(ladder), eta) for name, members in configurations(curves).items()}
    starts = {trial: [0, *ladder] for trial in by_trial}  # updates at which the steps of a trial begin and end

    def updates(trial: str, rung: int) -> int:
        return starts[trial][rung + 1] - starts[trial][rung]

    def training_seconds(trial: str, rung: int) -> float:
        return by_trial[trial].seconds_per_update * updates(trial, rung)

    def seconds(trial: str, rung: int) -> float:
        curve, last = by_trial[trial], starts[trial][rung + 1] == budget
        return training_seconds(trial, rung) + curve.seconds_per_rung + (curve.seconds_at_end if last else 0.0)

    def confirm_best(name: str) -> None:
        stratum, count = strata[name], confirm.get(name, 0)
        if not count or name in confirmed or not stratum.finished() or not stratum.finishers():
            return
        confirmed.add(name)
        best = by_trial[stratum.configurations[stratum.finishers()[0]][0]]
        copies = [replace(best, trial=f"{best.trial} {number}") for number in range(count)]
        by_trial.update({copy.trial: copy for copy in copies})
        starts.update({copy.trial: [0, budget] for copy in copies})
        outcome.confirming.update({copy.trial: best.trial for copy in copies})
        queue.add(Stratum({copy.trial: [copy.trial] for copy in copies}, rungs=1, eta=1))

    for (trial, rung), score in recorded.items():
        strata[by_trial[trial].stratum].report(trial, rung, score)
    queue, outcome = Queue(strata.values(), training_seconds, speculates=speculates), Outcome()
    clock, confirmed = _Clock(slots, max_concurrent), set[str]()
    for name in strata:
        confirm_best(name)
    while True:
        while (step := queue.next()) and clock.fits(by_trial[step[0]].share):
            queue.start(step)
            clock.start(step, seconds(*step), by_trial[step[0]].share)
            outcome.steps.append(step)
            outcome.updates += updates(*step)
            outcome.busy += seconds(*step) * by_trial[step[0]].share
        if not clock:
            break
        trial, rung = clock.tick()
        queue.report(trial, rung, by_trial[trial].score(starts[trial][rung + 1]))
        confirm_best(by_trial[trial].stratum)
    outcome.makespan = clock.now
    demanded: set[Step] = {(trial, 0) for trial in outcome.confirming}
    for name, stratum in strata.items():
        outcome.sets[name] = stratum.sets()
        finishers = [stratum.configurations[finisher] for finisher in stratum.finishers()]
        finals = (fmean(by_trial[trial].score(budget) for trial in trials) for trials in finishers)
        outcome.best[name] = min(finals, default=math.inf)
        for rung, members in enumerate(outcome.sets[name]):
            demanded.update((trial, rung) for member in members for trial in stratum.configurations[member])
    # Slot-seconds of S; its seconds, one step at a time; trial → seconds in sequence.
    work, total, outcome.speculative, chains = 0.0, 0.0, 0, dict[str, float]()
    for trial, rung in outcome.steps:
        if (trial, rung) in demanded:
            work += seconds(trial, rung) * by_trial[trial].share
            total += seconds(trial, rung)
            before = outcome.confirming.get(trial, trial)
            chains[trial] = chains.get(before, 0.0) + seconds(trial, rung)
        else:
            outcome.speculative += updates(trial, rung)
    outcome.bound = max(work / slots, total / (max_concurrent or math.inf), max(chains.values(), default=0.0))
    return outcome


def simulate_stop_only(curves: Sequence[Curve], ladder: Sequence[int], eta: int, slots: float) -> Outcome:
    """Simulate the same sweep under Ray Tune's ASHAScheduler, one per stratum, with trials in the order of `curves`.

    At each rung this scheduler stops a trial or lets it continue. It never pauses one.
    """
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    @dataclass(frozen=True)
    class Trial:
        trial_id: str

    by_trial, starts, budget = {curve.trial: curve for curve in curves}, [0, *ladder], ladder[-1]
    schedulers: dict[str, Any] = {
        stratum: ASHAScheduler(
            time_attr="updates", metric="fid", mode="min", max_t=budget, grace_period=ladder[0], reduction_factor=eta
        )
        for stratum in {curve.stratum for curve in curves}
    }
    outcome, clock, waiting = Outcome(best=dict.fromkeys(schedulers, math.inf)), _Clock(slots), list(reversed(curves))
    finished: dict[tuple[str, str], list[float]] = {}  # (stratum, configuration) → scores of its seeds at the budget
    while waiting or clock:
        while waiting and clock.fits(waiting[-1].share):
            curve = waiting.pop()
            schedulers[curve.stratum].on_trial_add(None, Trial(curve.trial))
            clock.start((curve.trial, 0), curve.seconds_per_update * ladder[0], curve.share)
        trial, rung = clock.tick()
        curve, score = by_trial[trial], by_trial[trial].score(ladder[rung])
        outcome.updates += starts[rung + 1] - starts[rung]
        outcome.steps.append((trial, rung))
        if rung + 1 == len(ladder):
            finished.setdefault((curve.stratum, curve.configuration), []).append(score)
            continue
        result = {"updates": ladder[rung], "fid": score}
        decision = schedulers[curve.stratum].on_trial_result(None, Trial(trial), result)
        if decision == TrialScheduler.CONTINUE:
            clock.start((trial, rung + 1), curve.seconds_per_update * (ladder[rung + 1] - ladder[rung]), curve.share)
    outcome.makespan = clock.now
    for (stratum, _), scores in finished.items():
        outcome.best[stratum] = min(outcome.best[stratum], fmean(scores))
    return outcome


def _check_shares(curves: Iterable[Curve], slots: float) -> None:
    for curve in curves:
        if curve.share > slots:
            raise UserError(f"trial {curve.trial} needs share {curve.share:g} of {slots:g} slots; use more --slots")


class _Clock:
    """The simulated time, and the steps that run on the slots."""

    def __init__(self, slots: float, max_concurrent: int | None = None) -> None:
        self.max_concurrent = math.inf if max_concurrent is None else max_concurrent
        self.slots, self.now, self.used, self.count = slots, 0.0, 0.0, 0
        self.steps: list[tuple[float, int, Step, float]] = []  # a heap of (end, start order, step, share)

    def __bool__(self) -> bool:
        return bool(self.steps)

    def fits(self, share: float) -> bool:
        return len(self.steps) < self.max_concurrent and self.used + share <= self.slots + 1e-9

    def start(self, step: Step, seconds: float, share: float) -> None:
        heapq.heappush(self.steps, (self.now + seconds, self.count, step, share))
        self.count, self.used = self.count + 1, self.used + share

    def tick(self) -> Step:
        """Advance the clock to the next step to finish, and return it."""
        self.now, _, step, share = heapq.heappop(self.steps)
        self.used -= share
        return step


@dataclass(frozen=True)
class Scenario:
    """The input of a simulation."""

    curves: list[Curve]
    ladder: list[int]
    eta: int
    slots: float
    orders: int  # number of repetitions, each with the curves in another order


def compare(scenario: Scenario) -> dict[str, Any]:
    """Compare sweeper's rule, no pruning and stop-only ASHA on the same curves. `sweeper simulate --json` prints this.

    Numbers are means over the orders. Without complete curves, sweeper's rule alone is simulated, without speculation.
    """
    s, budget = scenario, scenario.ladder[-1]
    orders = [s.curves] if s.orders == 1 else [shuffled(s.curves, number) for number in range(s.orders)]
    # The curves of trials that were pruned while recording end early: the other rules, and speculation, need more.
    complete = all(curve.reaches(budget) for curve in s.curves)
    rules = {"sweeper": [simulate(curves, s.ladder, s.eta, s.slots, speculates=complete) for curves in orders]}
    if complete:
        rules["no_pruning"] = [simulate(s.curves, s.ladder, 1, s.slots)]
        rules["stop_only"] = [simulate_stop_only(curves, s.ladder, s.eta, s.slots) for curves in orders]
    return {
        "schema": 1,
        "trials": len(s.curves),
        "slots": s.slots,
        "eta": s.eta,
        "rungs": s.ladder,
        "orders": s.orders,
        "true_best": {k: _finite(v) for k, v in true_best(s.curves, budget).items()} if complete else None,
        "rules": {name: _summary(outcomes) for name, outcomes in rules.items()},
    }


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "updates": fmean(outcome.updates for outcome in outcomes),
        "speculative_updates": _mean(outcome.speculative for outcome in outcomes),
        "makespan_seconds": fmean(outcome.makespan for outcome in outcomes),
        "lower_bound_seconds": _mean(outcome.bound for outcome in outcomes),
        "best": {
            stratum: _finite(fmean(outcome.best[stratum] for outcome in outcomes)) for stratum in outcomes[0].best
        },
    }


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
