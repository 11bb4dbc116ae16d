"""Selection is by selection scores, among finishers, and never by rung scores."""

from pathlib import Path

import pytest

from sweeper.scheduling.selection import resolve_teacher
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.sweeper.stores import student, sweep, teacher, trial
from tests.trainables.built import shape
from trainables.errors import NotYetError, UserError


def final(inception: float, fid: float = 50.0, report: float = 1.0) -> dict[str, tuple[float, float]]:
    return {"selection": (fid, inception), "report": (fid, report)}


def test_the_best_is_selected_by_the_selection_score_not_by_the_rung_or_report_score(tmp_path: Path) -> None:
    store = Store(tmp_path)
    low = trial(store, teacher(2), rung_fid=1.0, final=final(5.0, report=9.0))
    high = trial(store, teacher(4), rung_fid=99.0, final=final(7.0, report=2.0))
    sweep(store, "teacher", [low, high])
    assert resolve_teacher(store, "best", None)[0].signature == high


def test_a_lower_fid_is_better(tmp_path: Path) -> None:
    store = Store(tmp_path)
    low = trial(store, teacher(2), 1.0, final(9.0, fid=80.0))
    high = trial(store, teacher(4), 1.0, final(1.0, fid=20.0))
    sweep(store, "teacher", [low, high], metric="fid")
    assert resolve_teacher(store, "best", None)[0].signature == high


def test_a_trial_that_is_pruned_but_has_final_scores_is_not_selected(tmp_path: Path) -> None:
    """Only finishers in S are selected. Scores from outside S stay in the store."""
    store = Store(tmp_path)
    inside = trial(store, teacher(2, lr=0.1), 1.0, final(5.0))
    outside = trial(store, teacher(2, lr=0.2), 9.0, final(8.0))
    third = trial(store, teacher(2, lr=0.3), 8.0)
    manifest = sweep(store, "teacher", [inside, outside, third])
    assert Sweep.read(manifest, store).best(shape(2)) == [inside]


def test_a_teacher_is_selected_by_width_or_by_the_start_of_its_signature(tmp_path: Path) -> None:
    store = Store(tmp_path)
    two, four = trial(store, teacher(2), 1.0, final(5.0)), trial(store, teacher(4), 1.0, final(7.0))
    sweep(store, "teacher", [two, four])
    assert resolve_teacher(store, "d=2", None)[0].signature == two
    assert resolve_teacher(store, two[:6], None)[0].signature == two
    for wrong in ("d=3", "d=x", "zzzzzz", "bset"):
        with pytest.raises(UserError, match=f"--teacher {wrong}: no finished teacher"):
            resolve_teacher(store, wrong, None)


def test_without_a_teacher_sweep_the_error_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(NotYetError, match="run `sweeper run teachers --dataset mnist5k` first"):
        resolve_teacher(Store(tmp_path), "best", None)


def test_no_teacher_is_selected_from_an_unfinished_sweep(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 1.0, final(5.0)), trial(store, teacher(4), 1.0)])
    with pytest.raises(NotYetError, match="mnist5k-teachers is not finished; run `sweeper run teachers`"):
        resolve_teacher(store, "best", None)


def test_an_abandoned_sweep_does_not_hide_a_finished_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = trial(store, teacher(2), 1.0, final(5.0))
    sweep(store, "teacher", [done])
    sweep(store, "teacher", [done, trial(store, teacher(4), 1.0)], name="abandoned")
    assert resolve_teacher(store, "best", None)[0].signature == done


def test_an_ambiguous_data_set_is_an_error_that_names_both(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 1.0, final(5.0))])
    other = trial(store, teacher(4, dataset="mnist"), 1.0, final(5.0))
    sweep(store, "teacher", [other], name="other", dataset="mnist")
    with pytest.raises(UserError, match="teachers of mnist, mnist5k; add --dataset mnist"):
        resolve_teacher(store, "best", None)
    assert resolve_teacher(store, "best", "mnist")[1].name == "other"


def test_the_best_student_is_selected_by_the_mean_over_its_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    steady = [trial(store, student(2, lr=0.1, seed=s), 1.0, final(6.0)) for s in (0, 1)]
    lucky = [trial(store, student(2, lr=0.2, seed=s), 1.0, final(v)) for s, v in ((0, 9.0), (1, 1.0))]
    manifest = sweep(store, "student", [*steady, *lucky], eta=1)
    assert sorted(Sweep.read(manifest, store).best(shape(2)) or []) == sorted(steady)
