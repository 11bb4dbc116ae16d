"""The interface for notebooks."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import sweeper
from sweeper.records import Teacher
from sweeper.results.notebook import Runs
from sweeper.store import Store
from tests.sweeper.stores import student, sweep, teacher, trial
from trainables.errors import UserError

FINAL = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, FINAL)
    sweep(store, "teacher", [best, trial(store, teacher(2), 40.0, {**FINAL, "report": (91.0, 5.1)})])
    students = [trial(store, student(2), 9.0, FINAL), trial(store, student(2, lr=0.1), 90.0)]
    sweep(store, "student", students, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    return sweeper.open(tmp_path)


def test_the_table_is_a_dataframe_with_plain_numbers(runs: Runs) -> None:
    table = runs.table("mnist5k")
    assert isinstance(table, pd.DataFrame)
    assert table.set_index("d").loc[2, "student_fid"] == 21.0
    assert table.set_index("d").loc[2, "control_fid"] == 91.0
    assert table.equals(runs.table())
    assert table.equals(runs.table("mnist5k-students"))


def test_trials_have_a_row_per_rung(runs: Runs) -> None:
    trials = runs.trials("mnist5k-students")
    assert sorted(trials["updates"]) == [10, 10, 30]
    assert set(trials["state"]) == {"done", "pruned"}
    assert set(trials["seed"]) == {0}, "fields with default values are included"
    assert set(trials["loss"]) == {"mse"}
    assert len(runs.trials("mnist5k")) == 3 + 4


@pytest.mark.parametrize("figure", ["pareto", "alpha", "rungs", "curves", "blur"])
def test_figures_are_plotly_figures_with_the_table_s_numbers(runs: Runs, figure: str) -> None:
    drawn = getattr(runs, figure)("mnist5k")
    assert type(drawn).__name__ == "Figure"
    if figure == "pareto":
        students = next(trace for trace in drawn.data if trace.name == "student")
        assert list(students.y) == [21.0]


def test_the_error_for_an_unknown_name_lists_the_valid_ones(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"'celeba' is not a data set or sweep of .*; it has mnist5k, mnist5k-students"):
        runs.table("celeba")
    with pytest.raises(UserError, match=r"score=kid is not plotted; use fid or is"):
        runs.pareto(score="kid")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        sweeper.open(tmp_path / "nowhere")


def test_a_table_imports_neither_torch_nor_ray(runs: Runs) -> None:
    program = "import sys, sweeper; sweeper.open(sys.argv[1]).table(); print({'torch', 'ray'} & set(sys.modules))"
    command = [sys.executable, "-c", program, str(runs.store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
