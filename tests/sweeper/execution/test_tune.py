"""The adapter to Tune: thin, deaf to broken watchers, and never raising into Tune."""

from pathlib import Path

import pytest
import ray
import torch
from ray.tune.search import Searcher

from sweeper.execution import tune
from sweeper.execution.resources import Machine, Slots
from sweeper.execution.tune import JobSearcher
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import RungRecord, Store
from tests.sweeper import replay, stores


def queue_of(folder: Path, machine: Machine, watchers: list[object] | None = None) -> JobSearcher:
    store = Store(folder)
    store.create()
    specs = [stores.teacher(d, lr=0.001 * n) for d in (2, 64) for n in (1, 2, 3)]
    for spec in specs:
        store.add(spec)
    sweep = Sweep.read(stores.sweep(store, "teacher", [spec.signature for spec in specs]), store)
    return JobSearcher(sweep, store, Slots(machine, None), watchers or [])  # type: ignore[arg-type]


def finish(queue: JobSearcher, tune_id: str, fid: float) -> None:
    job = queue.running[tune_id]
    spec = queue.sweep.records[job.signature].spec
    queue.store.add(spec, rung=RungRecord(job.updates, 1.0, {}, stores.scores(fid, 1.0, "rung"), False))
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


class Greedy(replay.Replay):
    """Runs out of memory on less than half a GPU, if it is wide."""

    def work(self) -> None:
        if self.store.require(self.job.signature).spec.d == 64 and self.share["gpu"] < 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        super().work()


@pytest.mark.long
def test_out_of_memory_doubles_the_share_until_it_fits_and_is_remembered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On Ray's logical GPUs."""
    queue = queue_of(tmp_path, Machine(cpus=2, gpus=1))
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        order = replay.Order()
        tune.run(queue.sweep, queue.store, Machine(cpus=2, gpus=1), None, [order], actor=Greedy)
    finally:
        ray.shutdown()
    assert queue.sweep.finished()
    assert not queue.sweep.failed
    assert {len(names) for names in queue.sweep.finishers().values()} == {1}
    assert queue.store.least_shares() == {"d=64": 0.5}
    told = capfd.readouterr().err
    assert "d=64 ran out of memory on 0.125 of a GPU; again on 0.25" in told
    assert "d=64 ran out of memory on 0.25 of a GPU; again on 0.5" in told
    tries = [job for job in order.jobs if queue.sweep.records[job.signature].spec.d == 2]
    assert len(tries) == len(set(tries)), "narrow trials ran once"
    again = JobSearcher(Sweep.read(queue.sweep.manifest, queue.store), queue.store, queue.slots, [])
    assert again.least == {"d=64": 0.5}


def test_out_of_memory_on_a_whole_gpu_is_a_failure_that_says_what_to_try(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Machine(cpus=2, gpus=1))
    queue.least["d=64"] = 1.0
    assert isinstance(queue.suggest("a"), dict)
    job = queue.running["a"]
    queue.on_trial_complete("a", {"done": True, "out_of_memory": True, "failure": "out of memory on a whole GPU"})
    assert queue.sweep.failed[job.signature].reason == "out of memory on a whole GPU"
