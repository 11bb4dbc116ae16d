"""The rule: who goes on does not depend on timing, and somebody always does."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.pruning import Standing, standing

ETA, RUNGS = 3, 3
SCORE = st.one_of(st.floats(0, 100), st.sampled_from([math.inf, math.nan, 1.0]))
STRATA = st.integers(1, 20).flatmap(
    lambda n: st.lists(st.tuples(*[st.lists(SCORE, min_size=RUNGS, max_size=RUNGS)] * 2), min_size=n, max_size=n)
)


def stratum(n: int, seeds: int = 2) -> dict[str, list[str]]:
    return {f"c{i:02}": [f"c{i:02}/{seed}" for seed in range(seeds)] for i in range(n)}


def play(curves: list[tuple[list[float], ...]], slots: int, order: random.Random) -> tuple[Standing, int]:
    """Run a stratum to its end with `slots` slots that finish in random order; the number of jobs that ran."""
    configurations = stratum(len(curves), len(curves[0]))
    scores: dict[tuple[str, int], float] = {}
    running: list[tuple[str, int]] = []
    jobs = 0
    while True:
        now = standing(configurations, scores, RUNGS, ETA)
        running += [job for job in now.wanted if job not in running][: slots - len(running)]
        if not running:
            return now, jobs
        trial, rung = running.pop(order.randrange(len(running)))
        number, seed = int(trial[1:3]), int(trial[4:])
        scores[trial, rung] = curves[number][seed][rung]
        jobs += 1


@given(STRATA, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_result_does_not_depend_on_slots_or_timing(curves: list[tuple[list[float], ...]], seed: int) -> None:
    alone, jobs = play(curves, 1, random.Random(0))
    many, jobs_many = play(curves, 7, random.Random(seed))
    assert alone.sets == many.sets
    assert alone.states == many.states
    assert jobs == jobs_many  # nothing ran twice, nothing was lost


@given(STRATA)
@settings(max_examples=60, deadline=None)
def test_a_stratum_ends_with_a_finisher_if_any_trial_can_finish(curves: list[tuple[list[float], ...]]) -> None:
    result, _ = play(curves, 2, random.Random(1))
    if all(math.isfinite(score) for seeds in curves for values in seeds for score in values):
        assert len(result.sets) == RUNGS
        assert "done" in result.states.values()
    assert not result.wanted


def test_the_best_third_goes_on_and_the_best_always() -> None:
    configurations = stratum(7, seeds=1)
    scores = {(f"c{i:02}/0", 0): float(i) for i in range(7)}
    assert standing(configurations, scores, 2, 3).sets[1] == ["c00", "c01"]
    assert standing(stratum(2, 1), scores, 2, 3).sets[1] == ["c00"]


def test_nothing_is_decided_while_a_score_is_missing() -> None:
    configurations = stratum(3, seeds=1)
    now = standing(configurations, {("c00/0", 0): 1.0, ("c01/0", 0): 2.0}, 2, 3)
    assert now.wanted == [("c02/0", 0)]
    assert now.states == {"c00/0": "paused", "c01/0": "paused", "c02/0": "waiting"}


def test_seeds_share_one_fate_by_their_mean() -> None:
    configurations = {"steady": ["s0", "s1"], "lucky": ["l0", "l1"]}
    scores = {("s0", 0): 5.0, ("s1", 0): 5.0, ("l0", 0): 1.0, ("l1", 0): 20.0}
    now = standing(configurations, scores, 2, 2)
    assert now.sets[1] == ["steady"]
    assert now.wanted == [("s0", 1), ("s1", 1)]


def test_a_diverged_seed_takes_its_configuration_out() -> None:
    configurations = {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    scores = {("a0", 0): 0.0, ("a1", 0): math.inf, ("b0", 0): 9.0, ("b1", 0): 9.0}
    assert standing(configurations, scores, 2, 2).sets[1] == ["b"]


def test_not_a_number_is_the_worst_score() -> None:
    scores = {("a", 0): math.nan, ("b", 0): 1e9}
    assert standing({"a": ["a"], "b": ["b"]}, scores, 2, 2).sets[1] == ["b"]


def test_ties_go_by_name() -> None:
    scores = {("a", 0): 1.0, ("b", 0): 1.0, ("c", 0): 1.0}
    assert standing({"c": ["c"], "b": ["b"], "a": ["a"]}, scores, 2, 3).sets[1] == ["a"]


def test_where_all_diverged_the_stratum_is_over() -> None:
    scores = {("a", 0): math.inf, ("b", 0): math.inf}
    now = standing({"a": ["a"], "b": ["b"]}, scores, 2, 2)
    assert (now.wanted, len(now.sets)) == ([], 1)


def test_eta_1_prunes_nothing() -> None:
    scores = {("a", 0): 1.0, ("b", 0): 2.0}
    assert standing({"a": ["a"], "b": ["b"]}, scores, 2, 1).sets[1] == ["a", "b"]
