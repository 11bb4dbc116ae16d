"""The data of table, page and notebook, from stores with made-up scores."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.records import RungRecord, Teacher
from sweeper.results.comparison import AlphaCurve, Comparison, alpha_curves, chosen_curves, learning_curves, samples
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.sweeper.stores import scores, student, sweep, teacher, trial
from trainables.spec import TrialSpec

FINAL = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}


def joint(alpha: float, **fields: float) -> TrialSpec:
    return student(2, loss="joint", alpha=alpha, d_discriminator=4, **fields)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a teacher of d = 16, and a control and students of d = 2.

    mse and alpha = 0.1 are pruned at the first rung; alpha = 0.2 is done.
    """
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (21.0, 9.1)})
    control = trial(store, teacher(2), 40.0, {"selection": (90.0, 5.0), "report": (91.0, 5.1)})
    sweep(store, "teacher", [best, control])
    trials = [trial(store, student(2), 90.0), trial(store, joint(0.1), 50.0), trial(store, joint(0.2), 30.0, FINAL)]
    sweep(store, "student", trials, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    return store


def distilled(store: Store) -> Sweep:
    sweep = Comparison.read(store, None, None).distilled
    assert sweep is not None
    return sweep


def test_alphas_are_compared_at_the_highest_rung_that_all_of_them_reached(store: Store) -> None:
    (curve,) = alpha_curves(distilled(store))
    assert (curve.shape.d, curve.updates, curve.missing) == (2, 10, [])
    assert [(alpha, scores["fid"]) for alpha, scores in curve.points] == [(0.0, 90.0), (0.1, 50.0), (0.2, 30.0)]


def test_a_diverged_alpha_is_listed_as_missing_and_does_not_limit_the_others(store: Store) -> None:
    diverged = joint(0.5)
    store.add(diverged, rung=RungRecord(10, 1.0, {}, {}, diverged=True))
    manifest = store.sweep("mnist5k-students")
    assert manifest is not None
    sweep(store, "student", [*manifest.signatures, diverged.signature], manifest.teacher)
    (curve,) = alpha_curves(distilled(store))
    assert curve.missing == [0.5]
    assert [alpha for alpha, _ in curve.points] == [0.0, 0.1, 0.2]


def test_an_alpha_has_the_scores_of_its_best_configuration(store: Store) -> None:
    better = trial(store, joint(0.1, lr=0.5), 45.0)
    manifest = store.sweep("mnist5k-students")
    assert manifest is not None
    sweep(store, "student", [*manifest.signatures, better], manifest.teacher)
    (curve,) = alpha_curves(distilled(store))
    assert dict(curve.points)[0.1]["fid"] == 45.0


def test_a_single_alpha_has_no_curve(tmp_path: Path) -> None:
    store = Store(tmp_path)
    curves: list[AlphaCurve] = alpha_curves(Sweep.read(sweep(store, "student", [trial(store, student(2), 9.0)]), store))
    assert curves == []


def test_a_learning_curve_ends_at_the_last_rung_that_all_seeds_reached(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seeds = [trial(store, student(2, seed=s), 10.0 + 2 * s) for s in (0, 1)]
    store.add(student(2), rung=RungRecord(30, 1.0, {}, scores(5.0, 1.0, "rung"), False))
    (curve,) = learning_curves(Sweep.read(sweep(store, "student", seeds), store))
    assert [(updates, means["fid"]) for updates, means in curve.points] == [(10, 11.0)]


def test_samples_are_of_teacher_mse_joint_and_control_and_state_the_updates_of_pruned_ones(store: Store) -> None:
    shown = [(s.kind, s.name, s.updates, s.finished, s.chosen) for s in samples(Comparison.read(store, None, None))]
    assert shown == [
        ("teacher", "d=16", 30, True, True),
        ("mse student", "d=2", 10, False, False),
        ("joint student", "d=2", 30, True, True),
        ("control", "d=2", 30, True, True),
    ]


def test_a_configuration_with_a_diverged_seed_has_diverged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seeds = [trial(store, student(2, seed=s), 10.0) for s in (0, 1)]
    store.add(student(2, seed=1), rung=RungRecord(30, 1.0, {}, {}, diverged=True))
    (curve,) = learning_curves(Sweep.read(sweep(store, "student", seeds), store))
    assert curve.state == "diverged"


def test_with_different_rung_protocols_only_the_students_have_curves(store: Store) -> None:
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    store.save_sweep(replace(manifest, protocols=manifest.protocols | {"rung": "other"}))
    assert {line.kind for line in chosen_curves(Comparison.read(store, None, None))} == {"student"}


def test_a_student_of_the_teacher_s_width_is_not_the_limit_of_compression(tmp_path: Path) -> None:
    store = Store(tmp_path)
    best = trial(store, teacher(4), 1.0, FINAL)
    sweep(store, "teacher", [best])
    sweep(store, "student", [trial(store, student(4), 1.0, FINAL)], Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    comparison = Comparison.read(store, None, None)
    assert comparison.table.limit is None
    assert [sample.kind for sample in samples(comparison)] == ["teacher", "mse student"]


def test_chosen_curves_are_of_the_trials_in_the_table(store: Store) -> None:
    curves = [
        (line.kind, line.shape.d, [r.updates for r in line.rungs])
        for line in chosen_curves(Comparison.read(store, None, None))
    ]
    assert curves == [("teacher", 16, [10, 30]), ("student", 2, [10, 30]), ("control", 2, [10, 30])]
