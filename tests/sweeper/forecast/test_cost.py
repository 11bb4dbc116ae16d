"""The budget of the timings of a plan, and what is extrapolated beyond it. A fake clock, and nothing is trained."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.forecast import timing
from sweeper.forecast.cost import BUDGET, TimedCosts, extrapolate
from sweeper.forecast.timing import Cost
from tests.sweeper.stores import teacher
from trainables.arithmetic import update_launches, update_macs
from trainables.spec import TrialSpec

WIDTHS = [2, 4, 8, 16, 32, 64, 128, 256]


class Machine:
    """A fake clock, and timings at a number of multiply-accumulates per second."""

    def __init__(self, rate: float) -> None:
        self.rate, self.now, self.timed = rate, 0.0, list[TrialSpec]()

    def clock(self) -> float:
        return self.now

    def time_trial(self, spec: TrialSpec, teacher: TrialSpec | None) -> Cost:
        seconds = 0.001 + update_macs(spec, teacher) / self.rate
        self.now += max(2 * seconds, 4 * timing.SECONDS)
        self.timed.append(spec)
        return Cost(seconds, spec.generator.macs / self.rate, 0.0, 0.1)

    def costs(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> TimedCosts:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        return TimedCosts(lambda message: None, None, time_trial=self.time_trial, clock=self.clock)


def paper(d: int) -> TrialSpec:
    return teacher(d, image_size=64, d_discriminator=64)


@pytest.mark.parametrize("rate", [2e9, 1e10, 2e10, 1e11, 1e13])
def test_the_timings_of_a_plan_keep_their_budget(rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(rate)
    costs, specs = machine.costs(tmp_path, monkeypatch), [paper(d) for d in WIDTHS]
    costs.calibrate(specs)
    first = 2 * update_macs(machine.timed[0], None) / rate
    assert machine.now <= max(BUDGET, first) * 1.05, "nothing but the first timing can exceed it"
    assert costs.extrapolated == len(set(specs) - set(machine.timed))
    assert f"{costs.extrapolated} of 8" in costs.basis or costs.extrapolated == 0
    seconds = [costs.cost(spec, 1.0).seconds_per_update for spec in specs]
    images = [costs.cost(spec, 1.0).seconds_per_image for spec in specs]
    assert seconds == sorted(seconds)
    assert images == sorted(images)
    assert machine.timed == sorted(machine.timed, key=lambda spec: update_macs(spec, None))


def test_a_kind_that_is_too_wide_for_the_budget_is_extrapolated_from_a_narrower_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, widest = Machine(4e10), teacher(256, image_size=64, d_discriminator=256)
    costs = machine.costs(tmp_path, monkeypatch)
    costs.calibrate([widest])
    assert machine.now <= BUDGET
    assert (len(machine.timed), costs.extrapolated) == (1, 1)
    expected = update_macs(widest, None) / 4e10
    assert costs.cost(widest, 1.0).seconds_per_update == pytest.approx(expected, rel=0.01)


def test_each_loss_is_timed_twice_before_any_is_timed_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(1e13)
    specs = [teacher(d, objective=game, lr=1e-4) for game in ("gan", "wgan") for d in (2, 4, 8)]
    machine.costs(tmp_path, monkeypatch).calibrate(specs)
    assert sorted((spec.objective, spec.d) for spec in machine.timed[:4]) == [
        ("gan", 2),
        ("gan", 4),
        ("wgan", 2),
        ("wgan", 4),
    ]


def test_the_next_plan_times_what_the_budget_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs, left = [paper(d) for d in WIDTHS], []
    for _ in range(3):
        costs = Machine(2e10).costs(tmp_path, monkeypatch)
        costs.calibrate(specs)
        left.append(costs.extrapolated)
    assert left[0] > left[1] >= left[2], left


@given(
    st.lists(st.tuples(st.floats(1, 1e12), st.floats(1e-4, 1e3)), min_size=1, max_size=8),
    st.floats(1e6, 1e14),
    st.lists(st.floats(0, 1e13), min_size=2, max_size=20),
)
def test_extrapolated_seconds_never_decrease_with_multiply_accumulates(
    points: list[tuple[float, float]], rate: float, macs: list[float]
) -> None:
    seconds = [extrapolate(points, rate, value) for value in sorted(macs)]
    assert all(before <= after * (1 + 1e-9) for before, after in pairwise(seconds))


@pytest.mark.parametrize(
    ("spec", "counted"),
    [
        (teacher(8), 149),
        (teacher(8, objective="wgan", n_critic=5, clip=0.01), 574),
        (teacher(8, image_size=64), 186),
        (teacher(8, image_size=64, objective="wgan", n_critic=5, clip=0.01), 721),
    ],
)
def test_launches_agree_with_those_of_the_training_loop(spec: TrialSpec, counted: int) -> None:
    assert update_launches(spec) == pytest.approx(counted, rel=0.11)
