"""The searcher: order of its suggestions, failures, broken watchers, and no exception inside Tune."""

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch
from ray.tune.search import Searcher

from sweeper.execution import tune
from sweeper.execution.experience import Experience
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine
from sweeper.execution.slots import Slots
from sweeper.execution.tune import JobSearcher
from sweeper.records import RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests.sweeper import replay, stores
from trainables.arithmetic import footprint


def make_searcher(folder: Path, *machines: Machine, watchers: list[object] | None = None) -> JobSearcher:
    store = Store(folder)
    store.create()
    specs = [stores.teacher(d, lr=0.001 * n) for d in (2, 64) for n in (1, 2, 3)]
    for spec in specs:
        store.add(spec)
    sweep = Sweep.read(stores.sweep(store, "teacher", [spec.signature for spec in specs]), store)
    return JobSearcher(sweep, store, Slots(Cluster.of(*machines), None), watchers or [])  # type: ignore[arg-type]


def finish(searcher: JobSearcher, tune_id: str, fid: float) -> None:
    job = searcher.running[tune_id]
    spec = searcher.sweep.records[job.signature].spec
    searcher.store.add(spec, rung=RungRecord(job.updates, 1.0, {}, stores.scores(fid, 1.0, "rung"), False))
    searcher.on_trial_complete(tune_id, {"done": True})


def test_it_suggests_the_most_expensive_job_first_while_slots_are_free(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, Machine(cpus=2, gpus=0))
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert searcher.sweep.records[first["signature"]].spec.d == 64
    assert searcher.suggest("c") is None, "two slots"
    finish(searcher, "a", 5.0)
    assert isinstance(searcher.suggest("c"), dict)


def test_a_corrupt_record_ends_the_sweep_after_the_running_jobs(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, Machine(cpus=2, gpus=0))
    first = searcher.suggest("a")
    assert isinstance(first, dict)
    searcher.suggest("b")
    (searcher.store.root / "trials" / first["signature"] / "record.json").write_text("{")
    searcher.on_trial_complete("a", {"done": True})
    assert searcher.suggest("c") is None, "b still runs"
    finish(searcher, "b", 5.0)
    assert searcher.suggest("c") == Searcher.FINISHED
    assert "is corrupt" in str(searcher.error)


def test_a_failed_job_fails_its_trial_and_the_others_continue(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    searcher.suggest("a")
    job = searcher.running["a"]
    searcher.on_trial_complete("a", {"done": True, "failure": "out of luck", "exit_code": 5})
    assert searcher.sweep.failed[job.signature].reason == "out of luck"
    assert searcher.sweep.states()[job.signature] == "failed"
    done: list[Job] = []
    for number in range(20):
        if searcher.suggest(f"{number}") == Searcher.FINISHED:
            break
        done.append(searcher.running[f"{number}"])
        finish(searcher, f"{number}", float(number))
    assert job not in done
    assert {searcher.sweep.records[job.signature].spec.d for job in done if job.updates == 30} == {2, 64}


def test_a_watcher_that_raises_is_reported_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def started(self, sweep: Sweep, job: Job) -> None:
            raise ZeroDivisionError("dark")

    searcher = make_searcher(tmp_path, Machine(cpus=2, gpus=0), watchers=[Broken()])
    for name in ("a", "b"):
        assert isinstance(searcher.suggest(name), dict)
        searcher.on_start(name)
    assert capsys.readouterr().err == "Broken stopped: ZeroDivisionError: dark\n"


class Greedy(replay.Replay):
    """Raises OutOfMemoryError for a wide trial on less than half a GPU."""

    def work(self) -> None:
        if self.store.require(self.job.signature).spec.d == 64 and self.share["gpu"] < 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        super().work()


@pytest.mark.long
def test_out_of_memory_doubles_the_share_until_it_fits_and_stores_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The GPUs are logical resources of Ray, and so fast that memory alone decides."""
    machine = Machine(cpus=2, gpus=1, macs_per_second=1e15)
    searcher = make_searcher(tmp_path, machine)
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        order = replay.Order()
        tune.run(searcher.sweep, searcher.store, Cluster.of(machine), None, [order], actor=Greedy)
    finally:
        ray.shutdown()
    assert searcher.sweep.finished()
    assert not searcher.sweep.failed
    assert {len(names) for names in searcher.sweep.finishers().values()} == {1}
    key = f"{footprint(stores.teacher(64))}@"  # the GPU has no name
    assert Experience.read(searcher.store).min_shares == {key: 0.5}
    printed = capfd.readouterr().err
    assert "d=64 gan ran out of memory on 0.125 of a GPU; retrying on 0.25" in printed
    assert "d=64 gan ran out of memory on 0.25 of a GPU; retrying on 0.5" in printed
    narrow = [job for job in order.jobs if searcher.sweep.records[job.signature].spec.d == 2]
    assert len(narrow) == len(set(narrow)), "a narrow trial ran twice"
    restarted = JobSearcher(Sweep.read(searcher.sweep.manifest, searcher.store), searcher.store, searcher.slots, [])
    assert restarted.experience.min_shares == {key: 0.5}


def test_out_of_memory_on_a_whole_gpu_fails_the_trial(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, Machine(cpus=2, gpus=1))
    searcher.experience.min_shares["d=64"] = 1.0
    assert isinstance(searcher.suggest("a"), dict)
    job = searcher.running["a"]
    searcher.on_trial_complete("a", {"done": True, "out_of_memory": True, "failure": "out of memory on a whole GPU"})
    assert searcher.sweep.failed[job.signature].reason == "out of memory on a whole GPU"


def test_the_memory_of_a_job_is_stored_by_its_footprint(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, Machine(cpus=2, gpus=1, gpu_name="H100"))
    assert isinstance(searcher.suggest("a"), dict)
    key = footprint(searcher.sweep.records[searcher.running["a"].signature].spec)
    searcher.on_trial_complete("a", {"done": True, "gpu_name": "H100", "gpu_bytes": 7e9})
    assert Experience.read(searcher.store).by_gpu == searcher.experience.by_gpu == {"H100": {key: 7e9}}


class Card:
    """Records the calls of torch.cuda. tensor: one that the job made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, used: bool) -> None:
        self.calls: list[str] = []
        self.tensor: weakref.ref[torch.Tensor] | None = None
        numbers = {"max_memory_allocated": 3, "max_memory_reserved": 5, "get_device_name": "H100"}
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: self.calls.append("reset"))
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty)
        for name, value in numbers.items():
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)

    def empty(self) -> None:
        assert self.tensor is None or self.tensor() is None, "the cache cannot release a tensor that is alive"
        self.calls.append("empty")


def actor_of(searcher: JobSearcher, work: Callable[[], None]) -> tune.TrialActor:
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    actor = object.__new__(tune.TrialActor)
    actor.setup(config)
    actor.work = work  # type: ignore[method-assign]
    return actor


@pytest.mark.parametrize("fails", [True, False])
def test_memory_is_released_once_nothing_holds_it(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, used=True)

    def work() -> None:
        tensor = torch.zeros(1)
        tensor.itself = tensor  # type: ignore[attr-defined] # a cycle, as Accelerate makes of a network
        card.tensor = weakref.ref(tensor)
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    result = actor_of(make_searcher(tmp_path, Machine(cpus=2, gpus=1)), work).step()
    assert card.calls == ["reset", "empty"]
    assert (result["gpu_name"], result["gpu_bytes"]) == ("H100", 5 + 1e9)
    assert ("out_of_memory" in result) == fails


def test_a_job_without_a_gpu_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, used=False)
    result = actor_of(make_searcher(tmp_path, Machine(cpus=2, gpus=0)), lambda: None).step()
    assert not card.calls
    assert "gpu_name" not in result


def test_a_gpu_that_ray_does_not_count_prints_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    properties = type("Properties", (), {"name": "NVIDIA H100 80GB HBM3", "total_memory": 80e9})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    tune._this_machine()
    assert capsys.readouterr().err.count("note: torch sees a GPU and Ray counts none") == 1
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    machine = tune._this_machine()
    assert capsys.readouterr().err == ""
    assert (machine.gpu_name, machine.gpu_bytes) == ("NVIDIA H100 80GB HBM3", 80e9)


def test_ray_copies_no_folder_to_the_workers_under_uv_run() -> None:
    code = "import sweeper.execution.tune; from ray._private import ray_constants as read; "
    code += "print(read.RAY_ENABLE_UV_RUN_RUNTIME_ENV)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
