"""A budget leaves out what does not fit, and moves the limit of compression."""

from pathlib import Path

import pytest

from sweeper.records import Teacher
from sweeper.results import choice
from sweeper.results.budget import Budget, narrowed
from sweeper.results.comparison import Comparison
from sweeper.results.latency import Conditions
from sweeper.store import Store
from tests.sweeper.stores import student, sweep, teacher, trial
from trainables.errors import UserError

IS = {2: 5.0, 4: 8.7, 8: 8.9}  # of the students; the teacher's is 9


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (21.0, 9.0)})
    sweep(store, "teacher", [best])
    trials = [trial(store, student(d), 9.0, {"selection": (20.0, i), "report": (21.0, i)}) for d, i in IS.items()]
    sweep(store, "student", trials, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    for number, row in enumerate(Comparison.read(store, None, None).table.rows):
        assert row.student is not None
        store.weights(row.student.signature, "generator", 30).write_bytes(bytes(100 * (number + 1)))
    return Comparison.read(store, None, None)


@pytest.mark.parametrize(
    ("budget", "fitting"),
    [
        (Budget(), [2, 4, 8]),
        (Budget(params=28_253), [2, 4]),  # d = 4 has exactly as many
        (Budget(params=28_252), [2]),
        (Budget(macs=1e5), [2]),
        (Budget(bytes=250), [2, 4]),
        (Budget(params=28_253, bytes=100), [2]),
        (Budget(ms=1e6, conditions=Conditions(runtime="torch")), [2, 4, 8]),
    ],
)
def test_rows_that_do_not_fit_are_left_out(comparison: Comparison, budget: Budget, fitting: list[int]) -> None:
    assert [row.d for row in narrowed(comparison, budget).table.rows] == fitting


@pytest.mark.parametrize(("within", "d"), [(0.5, 2), (0.1, 4), (0.02, 8), (0.001, None)])
def test_the_limit_of_compression_follows_the_tolerance(comparison: Comparison, within: float, d: int | None) -> None:
    limit = narrowed(comparison, Budget(within=within)).table.limit
    assert (limit.d if limit else None) == d


def test_the_export_is_the_best_that_fits_and_not_the_limit(comparison: Comparison) -> None:
    fitting = narrowed(comparison, Budget(params=70_000))
    assert fitting.table.limit is not None
    assert fitting.table.limit.d == 4
    assert choice.choose(fitting, None, best=True).spec.d == 8


def test_a_budget_that_nothing_fits_names_the_nearest(comparison: Comparison) -> None:
    with pytest.raises(UserError, match="no generator fits; the nearest is d=2 with params"):
        narrowed(comparison, Budget(params=9))
