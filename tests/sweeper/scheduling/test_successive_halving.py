"""Successive halving: S does not depend on timing, and a stratum has a finisher if any trial can finish."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sweeper.scheduling.queue import Queue
from sweeper.scheduling.successive_halving import Step, Stratum

ETA, RUNGS = 3, 3
SCORE = st.one_of(st.floats(0, 100), st.sampled_from([math.inf, math.nan, 1.0]))
CURVE = st.tuples(*[st.lists(SCORE, min_size=RUNGS, max_size=RUNGS)] * 2)
Curves = list[tuple[list[float], ...]]


def names(n: int, seeds: int = 2) -> dict[str, list[str]]:
    return {f"c{i:02}": [f"c{i:02}/{seed}" for seed in range(seeds)] for i in range(n)}


def make_stratum(
    configurations: dict[str, list[str]], scores: dict[Step, float], rungs: int = 2, eta: int = ETA
) -> Stratum:
    result = Stratum(configurations, rungs, eta)
    for (trial, rung), score in scores.items():
        result.report(trial, rung, score)
    return result


def by_definition(curves: Curves, eta: int) -> list[list[str]]:
    """Return S_0, S_1, … by their definition in docs/pruning.md, from all scores.

    S is computed again without the configurations that diverged in it, until one finishes.
    """
    means = [[sum(seed[k] for seed in seeds) / len(seeds) for seeds in curves] for k in range(RUNGS)]
    alive = list(range(len(curves)))
    while True:
        sets = [alive]
        for k in range(RUNGS - 1):
            ranked = sorted((means[k][i], i) for i in sets[-1] if math.isfinite(means[k][i]))
            sets.append([i for _, i in ranked[: max(1, len(sets[-1]) // eta)]])
        diverged = {i for k, members in enumerate(sets) for i in members if not math.isfinite(means[k][i])}
        survivors = [i for i in alive if i not in diverged]
        if any(math.isfinite(means[-1][i]) for i in sets[-1]) or not survivors or not diverged:
            return [[f"c{i:02}" for i in sorted(members)] for members in sets if members]
        alive = survivors


def simulate(curves: Curves, slots: int, order: random.Random, eta: int = ETA) -> tuple[Stratum, list[Step]]:
    """Run a stratum on slots that finish in random order. Return it, and the steps that ran."""
    played = Stratum(names(len(curves), len(curves[0])), RUNGS, eta)
    queue = Queue([played], lambda trial, rung: RUNGS - rung)
    ran: list[Step] = []
    while True:
        while len(queue.running) < slots and (step := queue.next()):
            queue.start(step)
            ran.append(step)
        if not queue.running:
            return played, ran
        trial, rung = order.choice(sorted(queue.running))
        queue.report(trial, rung, curves[int(trial[1:3])][int(trial[4:])][rung])


@given(st.lists(CURVE, min_size=1, max_size=20), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_s_agrees_with_its_definition_for_any_slots_and_timing(curves: Curves, slots: int, eta: int, seed: int) -> None:
    played, ran = simulate(curves, slots, random.Random(seed), eta)
    assert played.finished()
    assert played.sets() == by_definition(curves, eta)
    assert len(ran) == len(set(ran)), "a step ran twice"
    finite = all(math.isfinite(score) for seeds in curves for values in seeds for score in values)
    if slots == 1 and finite:
        demanded = {
            (t, k) for k, members in enumerate(played.sets()) for n in members for t in played.configurations[n]
        }
        assert set(ran) == demanded, "one slot never speculates"


@given(st.lists(CURVE, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_state_is_a_function_of_the_set_of_scores(curves: Curves, order: random.Random) -> None:
    """A restarted driver computes the same state from the scores in the store, in whatever order they arrived."""
    scores = {(f"c{i:02}/{s}", k): curves[i][s][k] for i in range(len(curves)) for s in range(2) for k in range(RUNGS)}
    some = order.sample(sorted(scores), order.randint(0, len(scores)))
    first = make_stratum(names(len(curves)), {step: scores[step] for step in some}, RUNGS)
    order.shuffle(some)
    second = make_stratum(names(len(curves)), {step: scores[step] for step in some}, RUNGS)
    assert (first.wanted, first.states(), first.sets()) == (second.wanted, second.states(), second.sets())


class DrivenQueue(RuleBasedStateMachine):
    """Scores, divergence and slot counts in any order, over two strata of unequal cost."""

    @initialize(sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), seeds=st.integers(1, 3), eta=st.integers(2, 4))
    def begin(self, sizes: tuple[int, int], seeds: int, eta: int) -> None:
        self.strata = [
            Stratum({f"{s}/{n}": [f"{s}/{n}/{i}" for i in range(seeds)] for n in range(size)}, RUNGS, eta)
            for s, size in enumerate(sizes)
        ]
        self.queue = Queue(self.strata, lambda trial, rung: (RUNGS - rung) * (10 if trial[0] == "1" else 1))
        self.slots, self.ran, self.diverged = 1, set[Step](), set[str]()

    @rule(slots=st.integers(1, 12))
    def resize(self, slots: int) -> None:
        self.slots = slots

    @precondition(lambda self: len(self.queue.running) < self.slots and self.queue.next() is not None)
    @rule()
    def start(self) -> None:
        step = self.queue.next()
        assert step is not None
        assert step not in self.ran, "a step ran twice"
        self.queue.start(step)
        self.ran.add(step)

    @precondition(lambda self: self.queue.running)
    @rule(data=st.data(), score=SCORE)
    def finish(self, data: st.DataObject, score: float) -> None:
        trial, rung = data.draw(st.sampled_from(sorted(self.queue.running)))
        if not math.isfinite(score):
            self.diverged.add(trial.rpartition("/")[0])
        self.queue.report(trial, rung, score)

    @invariant()
    def wanted_steps_run(self) -> None:
        """Every wanted step is running, or a wanted step is next."""
        if hasattr(self, "queue"):
            wanted = {step for s in self.strata for step in s.wanted}
            assert wanted <= self.queue.running or self.queue.next() in wanted
            assert self.queue.finished() == (not wanted)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        while (step := self.queue.next()) or self.queue.running:
            if step is not None:
                assert step not in self.ran
                self.ran.add(step)
                self.queue.start(step)
            else:
                self.queue.report(*min(self.queue.running), 1.0)
        for each in self.strata:
            assert each.finished(), "every sweep ends"
            assert each.finishers() or set(each.configurations) <= self.diverged, "a finisher if any can finish"


TestDrivenQueue = DrivenQueue.TestCase
TestDrivenQueue.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


def test_the_best_third_is_promoted_and_at_least_one() -> None:
    scores = {(f"c{i:02}/0", 0): float(i) for i in range(7)}
    assert make_stratum(names(7, 1), scores).sets()[1] == ["c00", "c01"]
    assert make_stratum(names(2, 1), dict(list(scores.items())[:2])).sets()[1] == ["c00"]


def test_a_configuration_that_no_outstanding_score_can_keep_out_is_promoted_at_once() -> None:
    scores = {(f"c{i:02}/0", 0): float(i) for i in range(8)}  # of nine configurations, so that three are promoted
    stratum = make_stratum(names(9, 1), scores)
    assert stratum.wanted == {("c08/0", 0), ("c00/0", 1), ("c01/0", 1)}
    states = stratum.states()
    assert (states["c02/0"], states["c03/0"], states["c08/0"]) == ("paused", "pruned", "waiting")


def test_speculation_promotes_by_the_asynchronous_rule() -> None:
    stratum = make_stratum(names(9, 1), {(f"c{i:02}/0", 0): float(i) for i in range(6)})
    assert list(stratum.promotable()) == [("c00/0", 1), ("c01/0", 1)]
    assert not any(rung for _, rung in stratum.wanted)


def test_a_trial_promoted_by_speculation_alone_is_never_a_finisher() -> None:
    scores = {("a", 0): 2.0, ("b", 0): 1.0, ("a", 1): 0.0, ("b", 1): 9.0}
    stratum = make_stratum({"a": ["a"], "b": ["b"]}, scores)
    assert stratum.finishers() == ["b"]
    assert stratum.states() == {"a": "speculative", "b": "done"}


def test_seeds_are_promoted_together_by_their_mean() -> None:
    configurations = {"steady": ["s0", "s1"], "lucky": ["l0", "l1"]}
    scores = {("s0", 0): 5.0, ("s1", 0): 5.0, ("l0", 0): 1.0, ("l1", 0): 20.0}
    stratum = make_stratum(configurations, scores)
    assert stratum.sets()[1] == ["steady"]
    assert stratum.wanted == {("s0", 1), ("s1", 1)}


def test_a_diverged_seed_prunes_its_configuration() -> None:
    configurations = {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    scores = {("a0", 0): 0.0, ("a1", 0): math.inf, ("b0", 0): 9.0, ("b1", 0): 9.0}
    assert make_stratum(configurations, scores).sets()[1] == ["b"]


def test_nan_is_the_worst_score() -> None:
    scores = {("a", 0): math.nan, ("b", 0): 1e9}
    assert make_stratum({"a": ["a"], "b": ["b"]}, scores).sets()[1] == ["b"]


def test_ties_are_broken_by_name() -> None:
    scores = {("a", 0): 1.0, ("b", 0): 1.0, ("c", 0): 1.0}
    assert make_stratum({"c": ["c"], "b": ["b"], "a": ["a"]}, scores).sets()[1] == ["a"]


def test_a_stratum_where_all_diverged_is_finished_without_a_finisher() -> None:
    stratum = make_stratum({"a": ["a"], "b": ["b"]}, {("a", 0): math.inf, ("b", 0): math.inf})
    assert (stratum.finished(), stratum.wanted, stratum.finishers(), len(stratum.sets())) == (True, set(), [], 1)


def test_if_the_only_promoted_configuration_diverges_the_others_compete_again() -> None:
    scores = {("a", 0): 1.0, ("b", 0): 2.0, ("c", 0): 3.0, ("a", 1): math.inf}
    stratum = make_stratum({name: [name] for name in "abc"}, scores)
    assert (stratum.wanted, stratum.finished()) == ({("b", 1)}, False)
    assert stratum.states() == {"a": "pruned", "b": "waiting", "c": "pruned"}


def test_the_other_seeds_of_a_diverged_configuration_are_not_trained() -> None:
    stratum = make_stratum({"a": ["a0", "a1"], "b": ["b0", "b1"]}, {("a0", 0): math.inf, ("b0", 0): 1.0})
    assert stratum.wanted == {("b1", 0)}
    assert stratum.states()["a1"] == "pruned"


def test_a_stratum_of_one_is_trained_to_every_rung() -> None:
    stratum = make_stratum({"a": ["a"]}, {("a", 0): 1.0, ("a", 1): 1.0}, rungs=3)
    assert stratum.wanted == {("a", 2)}


def test_eta_1_promotes_without_waiting() -> None:
    stratum = make_stratum(names(3, 1), {("c00/0", 0): 1.0, ("c01/0", 0): 2.0, ("c00/0", 1): 5.0}, rungs=3, eta=1)
    assert stratum.wanted == {("c02/0", 0), ("c00/0", 2), ("c01/0", 1)}


def test_eta_1_prunes_nothing() -> None:
    stratum = make_stratum({"a": ["a"], "b": ["b"]}, {("a", 0): 1.0, ("b", 0): 2.0}, eta=1)
    assert stratum.sets()[1] == ["a", "b"]


def test_a_pruned_configuration_is_promoted_when_the_sweep_grows() -> None:
    scores = {(f"c{i:02}/0", 0): float(i) for i in range(5)}
    assert make_stratum(names(5, 1), scores).states()["c01/0"] == "pruned"
    assert make_stratum(names(6, 1), scores | {("c05/0", 0): 9.0}).wanted == {("c00/0", 1), ("c01/0", 1)}
