"""The adapter to Tune: thin, deaf to broken watchers, and never raising into Tune."""

from pathlib import Path

import pytest
from ray.tune.search import Searcher

from sweeper.launch import JobQueue
from sweeper.resources import Machine, Slots
from sweeper.store import RungRecord, Store
from sweeper.sweep import Job, Sweep
from tests.sweeper import made


def queue_of(folder: Path, machine: Machine, watchers: list[object] | None = None) -> JobQueue:
    store = Store(folder)
    store.create()
    specs = [made.teacher(d, lr=0.001 * n) for d in (2, 64) for n in (1, 2, 3)]
    for spec in specs:
        store.add(spec)
    sweep = Sweep.read(made.sweep(store, "teacher", [spec.signature for spec in specs]), store)
    return JobQueue(sweep, store, Slots(machine, None), watchers or [])  # type: ignore[arg-type]


def finish(queue: JobQueue, tune_id: str, fid: float) -> None:
    job = queue.running[tune_id]
    spec = queue.sweep.records[job.signature].spec
    queue.store.add(spec, rung=RungRecord(job.updates, 1.0, {}, made.scores(fid, 1.0, "rung"), False))
    queue.on_trial_complete(tune_id, {"done": True})


def test_it_suggests_while_there_are_slots_and_the_expensive_first(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Machine(cpus=2, gpus=0))
    first, second = queue.suggest("a"), queue.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert queue.sweep.records[first["signature"]].spec.d == 64
    assert queue.suggest("c") is None, "two slots"
    finish(queue, "a", 5.0)
    assert isinstance(queue.suggest("c"), dict)


def test_a_spoiled_record_ends_the_sweep_after_what_runs_and_is_raised_by_us(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Machine(cpus=2, gpus=0))
    first = queue.suggest("a")
    assert isinstance(first, dict)
    queue.suggest("b")
    (queue.store.root / "trials" / first["signature"] / "record.json").write_text("{")
    queue.on_trial_complete("a", {"done": True})
    assert queue.suggest("c") is None, "b still runs"
    finish(queue, "b", 5.0)
    assert queue.suggest("c") == Searcher.FINISHED
    assert "is spoiled" in str(queue.error)


def test_a_job_without_its_score_failed_for_this_command_and_its_rivals_go_on(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Machine(cpus=1, gpus=0))
    queue.suggest("a")
    job = queue.running["a"]
    queue.on_trial_complete("a", {"done": True, "failure": "out of luck", "exit_code": 5})
    assert queue.sweep.failed[job.signature].reason == "out of luck"
    assert queue.sweep.states()[job.signature] == "failed"
    done: list[Job] = []
    for number in range(20):
        if queue.suggest(f"{number}") == Searcher.FINISHED:
            break
        done.append(queue.running[f"{number}"])
        finish(queue, f"{number}", float(number))
    assert job not in done
    assert {queue.sweep.records[job.signature].spec.d for job in done if job.updates == 30} == {2, 64}


def test_a_watcher_that_breaks_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def started(self, sweep: Sweep, job: Job) -> None:
            raise ZeroDivisionError("dark")

    queue = queue_of(tmp_path, Machine(cpus=2, gpus=0), [Broken()])
    assert isinstance(queue.suggest("a"), dict)
    assert isinstance(queue.suggest("b"), dict)
    assert capsys.readouterr().err == "Broken stopped: ZeroDivisionError: dark\n"
