"""Fresh seeds of selected configurations: jobs of the sweep, computed from its records."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.records import FinalRecord, Manifest, RungRecord
from sweeper.scheduling.sweep import Failure, Job, State, Sweep
from sweeper.store import Store
from tests.sweeper import stores
from tests.sweeper.stores import scores
from trainables.spec import TrialSpec

LRS = [1e-3, 2e-3, 3e-3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def controls(store: Store, ds: tuple[int, ...] = (2,), confirm: int = 2, finished: bool = True) -> Manifest:
    """A teacher of d = 16, and controls of which those with a rate of 2e-3 are the best."""
    best = {"selection": (5.0, 9.0), "report": (5.0, 9.0)}
    signatures = [stores.trial(store, stores.teacher(16), rung_fid=5.0, final=best if finished else None)]
    for d in ds:
        for number, lr in enumerate(LRS):
            best = {"selection": (10.0, 8.0), "report": (10.0, 8.0)}
            final = best if finished and number == 1 else None
            signatures.append(
                stores.trial(store, stores.teacher(d, lr=lr), rung_fid=abs(number - 1) + 10.0, final=final)
            )
    return stores.sweep(store, "teacher", sorted(signatures), confirm=confirm)


def finish(store: Store, job: Job, diverged: bool = False) -> None:
    spec = store.require(job.signature).spec
    if not diverged:
        named = {purpose: scores(11.0, 5 + spec.d / 10, purpose) for purpose in ("selection", "report")}
        store.add(spec, final=FinalRecord(job.updates, "w", named["selection"], named["report"]))
    rung = RungRecord(job.updates, 1.0, {}, {} if diverged else scores(11.0, 7.5, "rung"), diverged)
    store.add(spec, rung=rung)


def confirming(sweep: Sweep) -> list[TrialSpec]:
    return [sweep.records[job.signature].spec for job in jobs(sweep)]


def jobs(sweep: Sweep) -> list[Job]:
    """Start every job that can start now."""
    found = []
    while job := sweep.next():
        sweep.start(job)
        found.append(job)
    return found


def test_the_selected_configuration_is_trained_again_with_fresh_seeds(store: Store) -> None:
    sweep = Sweep.read(controls(store), store)
    assert not sweep.finished()
    specs = confirming(sweep)
    assert {spec.lr for spec in specs} == {2e-3}
    assert sorted(spec.seed for spec in specs) == [1000, 1001]
    assert {job.updates for job in jobs(Sweep.read(sweep.manifest, store))} == {30}, "straight to the budget"


def test_a_seed_that_the_space_uses_is_not_fresh(store: Store) -> None:
    manifest = controls(store)
    other = stores.trial(store, stores.teacher(4, seed=1000), 10.0, {"selection": (9.0, 6.0), "report": (9.0, 6.0)})
    sweep = Sweep.read(replace(manifest, signatures=[*manifest.signatures, other]), store)
    assert {sweep.records[s].spec.seed for s in sweep.confirmations[stores.teacher(2).generator].configurations} == {
        1001,
        1002,
    }


def test_nothing_is_confirmed_before_the_selection(store: Store) -> None:
    sweep = Sweep.read(controls(store, finished=False), store)
    assert not sweep.confirmations
    assert {spec.seed for spec in confirming(sweep)} == {0}, "the promoted configurations are still to finish"


def test_every_student_s_shape_is_confirmed_as_soon_as_it_has_finished(store: Store) -> None:
    final = {"selection": (10.0, 8.0), "report": (10.0, 8.0)}
    trials = [stores.trial(store, stores.student(2), 1.0, final), stores.trial(store, stores.student(4), 1.0)]
    sweep = Sweep.read(stores.sweep(store, "student", trials, confirm=1), store)
    assert [shape.d for shape in sweep.confirmations] == [2]


def test_the_widest_shape_of_a_teacher_sweep_is_not_confirmed(store: Store) -> None:
    """It is the teacher. If a narrower one is, the others are still compared with students."""
    manifest = controls(store)
    wide = stores.trial(store, stores.teacher(32), 6.0, {"selection": (6.0, 8.5), "report": (6.0, 8.5)})
    sweep = Sweep.read(replace(manifest, signatures=[*manifest.signatures, wide]), store)
    assert [shape.d for shape in sweep.confirmations] == [2, 16]


def test_every_control_is_confirmed(store: Store) -> None:
    sweep = Sweep.read(controls(store, ds=(2, 4)), store)
    assert sorted((spec.d, spec.seed) for spec in confirming(sweep)) == [(2, 1000), (2, 1001), (4, 1000), (4, 1001)]


def test_the_sweep_finishes_with_its_last_fresh_seed_and_continues_from_the_store(store: Store) -> None:
    sweep = Sweep.read(controls(store), store)
    sweep.save(store)
    first, second = jobs(sweep)
    finish(store, first)
    assert sweep.report(first, store.require(first.signature))
    assert not sweep.finished()

    again = Sweep.read(store.sweep(sweep.manifest.name) or sweep.manifest, store)
    assert [job.signature for job in jobs(again)] == [second.signature]
    finish(store, second)
    again.report(second, store.require(second.signature))
    assert again.finished()
    assert sorted(again.confirmed(stores.teacher(2).generator)) == sorted([first.signature, second.signature])
    assert sorted(store.sweep(sweep.manifest.name).members) == sorted(again.records)  # type: ignore[union-attr]


def test_a_fresh_seed_that_diverges_stops_no_other(store: Store) -> None:
    sweep = Sweep.read(controls(store), store)
    sweep.save(store)
    first, second = jobs(sweep)
    finish(store, first, diverged=True)
    sweep.report(first, store.require(first.signature))
    finish(store, second)
    sweep.report(second, store.require(second.signature))
    assert sweep.finished()
    assert sweep.states()[first.signature] == State.DIVERGED
    assert sweep.confirmed(stores.teacher(2).generator) == [second.signature]


def test_a_shape_with_a_failed_trial_is_not_confirmed(store: Store) -> None:
    """The next command trains it again, and it may be the best."""
    sweep = Sweep.read(controls(store, ds=(2, 4), finished=False), store)
    while found := jobs(sweep):
        for job in found:
            if store.require(job.signature).spec.d == 2 and not sweep.failed:
                sweep.fail(job, Failure("out of memory", 1))
            else:
                finish(store, job)
                sweep.report(job, store.require(job.signature))
            sweep.save(store)
    assert sweep.best(stores.teacher(2).generator)
    assert list(sweep.confirmations) == [stores.teacher(4).generator]


def test_a_larger_number_of_seeds_keeps_the_earlier_ones(store: Store) -> None:
    manifest = controls(store)
    sweep = Sweep.read(manifest, store)
    sweep.save(store)
    for job in jobs(sweep):
        finish(store, job)
    grown = Sweep.read(replace(manifest, confirm=4), store)
    assert sorted(spec.seed for spec in confirming(grown)) == [1002, 1003]


def test_the_work_left_includes_the_fresh_seeds(store: Store) -> None:
    manifest = controls(store)
    without, with_seeds = (Sweep.read(replace(manifest, confirm=n), store).work_left() for n in (0, 2))
    assert without == (0, 0)
    one = with_seeds[1]
    assert with_seeds[0] == pytest.approx(2 * one)
    assert one > 0
