"""Failures of jobs: tried again, counted only without progress, never held against a trial if the machine fails."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from sweeper.execution import pulse, searcher, tune
from sweeper.execution.failures import ALIKE, DEATHS, ERRORS, UnexpectedError
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine
from sweeper.execution.searcher import JobSearcher, Stopped
from sweeper.scheduling.sweep import Job
from sweeper.store import Store
from tests.sweeper import replay, stores
from tests.sweeper.execution.test_tune import actor_of, finish, make_searcher
from trainables.errors import FULL, DiskError, EnvironmentUserError, Interrupted, LostClaimError


def raised(place: str = "card.py:1", reason: str = "RuntimeError: CUDA error") -> RayTaskError:
    """What Tune gets from an actor that has raised."""
    cause = UnexpectedError(reason, place)
    return RayTaskError("step", "a traceback", cause)


def start(jobs: JobSearcher, name: str) -> Job:
    assert isinstance(jobs.suggest(name), dict)
    jobs.on_start(name)
    return jobs.running[name]


def lose(jobs: JobSearcher, name: str, error: Exception) -> None:
    """End a job as Tune does after an error: without a result."""
    jobs.on_trial_complete(name, error=True)
    jobs.on_error(name, error)


def write_checkpoint(store: Store, job: Job, updates: int) -> None:
    path = store.checkpoint(job.signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.stem}-{updates}.safetensors").touch()


def test_jobs_that_fail_alike_end_the_command_and_none_is_marked(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    lost = []
    for number in range(ALIKE):
        lost.append(start(jobs, f"{number}").signature)
        lose(jobs, f"{number}", raised())
    assert len(set(lost)) == ALIKE, "the job that failed came first again, and met the same machine"
    assert isinstance(jobs.error, EnvironmentUserError)
    assert "3 trials stopped by one error, RuntimeError: CUDA error; none is marked as failed" in str(jobs.error)
    assert not jobs.sweep.failed


def lack(error: EnvironmentUserError) -> RayTaskError:
    return RayTaskError("step", "a traceback", UnexpectedError.of(error))


@pytest.mark.parametrize("number", sorted(FULL))
def test_the_first_job_that_finds_a_full_disk_ends_the_command(number: int, tmp_path: Path) -> None:
    jobs, full = make_searcher(tmp_path, Machine(cpus=1, gpus=0)), DiskError(number, os.strerror(number), "runs")
    start(jobs, "a")
    lose(jobs, "a", lack(full))
    assert isinstance(jobs.error, EnvironmentUserError)
    assert str(jobs.error) == str(full)
    assert not jobs.sweep.failed


def test_what_a_machine_lacks_is_tried_again_and_ends_the_command_if_several_jobs_lack_it(tmp_path: Path) -> None:
    """A disk that cannot be written is one lack, whatever the file is."""
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    for number in range(ALIKE):
        assert jobs.error is None
        start(jobs, f"{number}")
        lose(jobs, f"{number}", lack(DiskError(errno.EIO, os.strerror(errno.EIO), f"runs/{number}")))
    assert isinstance(jobs.error, EnvironmentUserError)
    assert str(jobs.error).startswith(f"runs/{ALIKE - 1}: Input/output error; ")
    assert not jobs.sweep.failed


def test_a_job_raises_what_the_machine_lacks_so_that_its_process_ends(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))

    def fill() -> None:
        raise DiskError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs")

    with pytest.raises(UnexpectedError, match="No space left on device") as raised_by_step:
        actor_of(jobs, fill).step()
    copy = pickle.loads(pickle.dumps(raised_by_step.value))
    assert copy.is_full
    assert copy.advises


def test_errors_of_different_places_do_not_end_the_command(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    for number in range(ALIKE):
        start(jobs, f"{number}")
        lose(jobs, f"{number}", raised(place=f"loss.py:{number}"))
    assert jobs.error is None


def test_a_job_that_raised_is_tried_again_once_another_has_succeeded(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    job = start(jobs, "a")
    lose(jobs, "a", raised())
    assert start(jobs, "b") != job
    finish(jobs, "b", 5.0)
    assert start(jobs, "c") == job
    assert not jobs.sweep.failed


@pytest.mark.parametrize(
    ("error", "code"), [(raised(), 1), (lack(EnvironmentUserError("RuntimeError: CUDA error")), 5)]
)
def test_a_job_that_raises_again_and_again_fails_its_trial_alone(
    error: RayTaskError, code: int, tmp_path: Path
) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    job = start(jobs, "0")
    for number in range(1, ERRORS):
        lose(jobs, f"{number - 1}", error)
        jobs._retry_delayed()
        assert start(jobs, f"{number}") == job
    lose(jobs, f"{ERRORS - 1}", error)
    failure = jobs.sweep.failed[job.signature]
    assert (failure.reason, failure.exit_code) == ("RuntimeError: CUDA error", code)
    assert jobs.error is None


def test_a_process_that_dies_counts_only_without_a_newer_checkpoint(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    for number in range(2 * DEATHS):
        job = start(jobs, f"{number}")
        write_checkpoint(jobs.store, job, 1 + number)
        lose(jobs, f"{number}", ActorDiedError())
    assert not jobs.sweep.failed
    for number in range(DEATHS - 1):
        assert start(jobs, f"again {number}") == job
        lose(jobs, f"again {number}", ActorDiedError())
    assert "its process died 5 times without a newer checkpoint" in jobs.sweep.failed[job.signature].reason


def test_a_lost_node_never_counts(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))
    error = ActorDiedError()
    error.error_msg = "The actor is dead because its node has died. Node Id: 00"
    for number in range(3 * DEATHS):
        start(jobs, f"{number}")
        lose(jobs, f"{number}", error)
    assert not jobs.sweep.failed
    assert jobs.error is None


def test_a_job_that_raises_keeps_its_traceback_and_ends_its_process(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))

    def work() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(UnexpectedError) as caught:
        actor_of(jobs, work).step()  # Tune reuses a process after a result, and not after an exception
    assert caught.value.reason == "OSError: [Errno 5] Input/output error"
    assert Path(__file__).name in caught.value.place
    (job,) = jobs.running.values()
    assert "Input/output error" in jobs.store.traceback(job.signature).read_text()


def test_a_job_that_was_told_to_stop_is_neither_done_nor_failed(tmp_path: Path) -> None:
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0))

    def work() -> None:
        raise Interrupted

    result = actor_of(jobs, work).step()
    (job,) = jobs.running.values()
    jobs.on_trial_complete("a", result)
    assert not jobs.sweep.failed
    assert jobs.sweep.next() == job


def test_an_error_of_the_searcher_is_said_at_once_and_stops_the_running_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(pulse, "stop_jobs", lambda: asked.append(True))
    monkeypatch.setattr(pulse, "updates_of", lambda signatures: dict.fromkeys(signatures, 7))
    jobs = make_searcher(tmp_path, Machine(cpus=2, gpus=0))
    start(jobs, "a")
    start(jobs, "b")
    (jobs.store.root / "trials" / jobs.running["a"].signature / "record.json").write_text("{")
    jobs.on_trial_complete("a", {"done": True})
    jobs.on_step()
    assert "is corrupt" in capsys.readouterr().err
    jobs.on_trial_complete("b", {"done": True, "interrupted": True})
    with pytest.raises(Stopped):
        jobs.on_step()
    assert asked == [True]


def test_an_interruption_waits_for_the_jobs_that_have_trained_and_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "stop_jobs", lambda: None)
    monkeypatch.setattr(pulse, "updates_of", lambda signatures: dict.fromkeys(signatures, 7))
    jobs = make_searcher(tmp_path, Machine(cpus=2, gpus=0))
    start(jobs, "a")
    jobs.interrupted = lambda: True
    jobs.on_step()
    monkeypatch.setattr(searcher, "SECONDS_TO_STOP", 0.0)
    with pytest.raises(Stopped):
        jobs.on_step()


def test_a_command_that_has_lost_its_store_leaves_its_jobs_no_time_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(pulse, "stop_jobs", lambda: asked.append(True))
    monkeypatch.setattr(pulse, "updates_of", lambda signatures: {})
    monkeypatch.setattr(searcher, "SECONDS_BETWEEN_LOOKS", 0.0)
    jobs = make_searcher(tmp_path, Machine(cpus=2, gpus=0))
    with jobs.store.lock():
        start(jobs, "a")
        jobs.on_step()
        (jobs.store.root / "driver.claim").unlink()
        with pytest.raises(Stopped):
            jobs.on_step()
    assert isinstance(jobs.error, LostClaimError)
    assert not asked


def test_a_job_runs_once_its_process_has_started_and_waits_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Job] = []

    class Watching:
        def started(self, sweep: object, job: Job) -> None:
            started.append(job)

        def trained(self, sweep: object, updates: object) -> None:
            pass

    monkeypatch.setattr(pulse, "updates_of", lambda signatures: {})
    monkeypatch.setattr(searcher, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(searcher, "SECONDS_TO_START", 0.0)
    jobs = make_searcher(tmp_path, Machine(cpus=1, gpus=0), watchers=[Watching()])
    jobs.suggest("a")
    assert not started
    for _ in range(3):
        jobs.on_step()
    assert capsys.readouterr().err.count("d=64 gan has waited 0 s for a slot: it needs 1 CPUs on one node") == 1
    jobs.on_start("a")
    assert started == [jobs.running["a"]]


def test_the_keys_of_a_cloud_are_back_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    with tune._without_keys():
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "canary"


class Faulty(replay.Replay):
    """Raises in the first try of one job, and dies in the first try of another. Notes the process of each try."""

    def work(self) -> None:
        spec = self.store.require(self.job.signature).spec
        with open(self.store.root / "tries", "a+") as tries:
            tries.write(f"{self.job.signature} {os.getpid()}\n")
            tries.seek(0)
            first = tries.read().count(self.job.signature) == 1
        if first and self.job.updates == stores.RUNGS[0] and spec.d == 64:
            if spec.lr == 0.001:
                raise RuntimeError("CUDA error (injected)")
            if spec.lr == 0.002:
                os._exit(1)
        super().work()


@pytest.mark.long
def test_a_process_is_not_used_again_after_an_error_and_the_sweep_finishes(tmp_path: Path) -> None:
    jobs, order = make_searcher(tmp_path, Machine(cpus=2, gpus=0)), replay.Order()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        tune.run(jobs.sweep, jobs.store, Cluster.of(Machine(cpus=2, gpus=0)), 2, [order], actor=Faulty)
    finally:
        ray.shutdown()
    assert jobs.sweep.finished()
    assert not order.failures
    tries = [line.split() for line in (jobs.store.root / "tries").read_text().splitlines()]
    for lr in (0.001, 0.002):
        signature = stores.teacher(64, lr=lr).signature
        first, second = [number for number, (trial, _) in enumerate(tries) if trial == signature][:2]
        assert tries[first][1] not in [process for _, process in tries[first + 1 :]], "the process ran another job"
        assert second > first
