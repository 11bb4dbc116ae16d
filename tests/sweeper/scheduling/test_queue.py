"""The order of steps: laws of list scheduling, and the makespans of docs/performance.md."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pruning import makespans
from sweeper.forecast.curves import Curve
from sweeper.forecast.simulator import simulate

LADDER = [1, 3, 9, 27]
ROWS = st.tuples(st.sampled_from(["2", "4", "8"]), st.floats(0.1, 9), st.floats(0.1, 50))


def curve(name: str, stratum: str, seconds: float, level: float = 1.0) -> Curve:
    points = [(updates, level / updates) for updates in LADDER]
    return Curve(stratum=stratum, trial=name, configuration=name, seconds_per_update=seconds, points=points)


def curves_of_rows(rows: list[tuple[str, float, float]]) -> list[Curve]:
    return [curve(f"{n:02}", stratum, seconds, level) for n, (stratum, level, seconds) in enumerate(rows)]


@given(st.lists(ROWS, min_size=1, max_size=25).map(curves_of_rows), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_no_slot_is_idle_while_a_demanded_step_can_start(curves: list[Curve], slots: int) -> None:
    """Graham's bound: work / slots plus the longest chain, in which each rung may wait for the whole stratum."""
    outcome = simulate(curves, LADDER, 3, slots, speculates=False)
    of = {one.trial: one for one in curves}
    segments = [after - before for before, after in zip([0, *LADDER], LADDER, strict=False)]
    work = sum(of[trial].seconds_per_update * segments[rung] for trial, rung in outcome.steps)
    chains = [
        sum(segments[rung] * max(of[t].seconds_per_update for t in members) for rung, members in enumerate(sets))
        for sets in outcome.sets.values()
    ]
    assert outcome.makespan <= (work / slots + max(chains)) * (1 + 1e-9)


@given(st.lists(ROWS, min_size=1, max_size=25).map(curves_of_rows), st.integers(-20, 20))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_cost_changes_nothing(curves: list[Curve], exponent: int) -> None:
    """A sweep orders by multiply-accumulates, a simulation by seconds."""
    scaled = [replace(one, seconds_per_update=one.seconds_per_update * 2.0**exponent) for one in curves]
    assert simulate(scaled, LADDER, 3, 1).steps == simulate(curves, LADDER, 3, 1).steps


def test_a_cheap_step_that_an_expensive_stratum_waits_for_begins_early() -> None:
    expensive = [curve("cheap", "8", 0.01), curve("costly", "8", 10.0)]
    others = [curve(f"other{n}", "4", 2.0) for n in range(6)]
    names = [trial for trial, _ in simulate([*others, *expensive], LADDER, 3, 1).steps]
    assert names[:2] == ["costly", "cheap"]


def test_a_narrow_stratum_begins_before_the_wide_ones_end() -> None:
    """Otherwise its chain of rungs comes last and leaves slots idle."""
    wide, narrow = ([curve(f"{d}/{n}", d, seconds) for n in range(9)] for d, seconds in (("8", 1.2), ("2", 1.0)))
    steps = simulate([*wide, *narrow], LADDER, 3, 2).steps
    last_of_wide = max(n for n, (trial, _) in enumerate(steps) if trial.startswith("8"))
    assert all(steps.index((one.trial, 0)) < last_of_wide for one in narrow)


@pytest.mark.parametrize("seed", ["", "0"])
def test_makespans_of_the_paper_s_sweeps_are_within_1_05_of_the_bound(seed: str) -> None:
    """Takes two seconds: 12 schedules of up to 384 trials."""
    ratios = {(name, rungs, gpus): o.makespan / o.bound for name, _, rungs, gpus, o in makespans(seed) if o.bound}
    assert len(ratios) == 12
    assert max(ratios.values()) <= 1.05, ratios
