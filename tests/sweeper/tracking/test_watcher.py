"""W&B while a sweep runs: nothing that a server does or does not do holds the driver or the user up."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from sweeper.tracking import watcher as tracking
from sweeper.tracking.watcher import UploadWatcher
from tests.conftest import STUDENTS, TEACHERS, Done
from tests.sweeper.sent import differences, pictured, standing
from tests.wandb_server import Server

CALLBACK_SECONDS = 0.005


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return pictured(tmp_path / "runs", learning_rates=(0.1,))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user waits for at the end, cut short."""
    monkeypatch.setattr(tracking, "SECONDS_AT_THE_END", 3.0)
    monkeypatch.setattr(tracking, "SECONDS_IN_TROUBLE", 0.5)


def point(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def report_all(tracked: UploadWatcher, sweep: Sweep, times: int) -> list[float]:
    """Tell again and again that every trial has reached every rung and failed; what the calls took, longest first."""
    taken = []
    for _ in range(times):
        for signature, record in sweep.records.items():
            for call in (
                lambda s=signature, r=record: tracked.reached(sweep, Job(s, 30), r.rungs[-1]),
                lambda s=signature: tracked.failed(sweep, Job(s, 30), "its process died\nand more"),
            ):
                begun = time.perf_counter()
                call()
                taken.append(time.perf_counter() - begun)
    return sorted(taken, reverse=True)


def quick(taken: list[float]) -> bool:
    """What waits for a server or for a full pipe waits for seconds. A few calls are held up by the stand-in, which
    shares this process, and by other tests: benchmarks/wandb_callbacks.py has it in a process of its own."""
    return taken[len(taken) // 1000] < CALLBACK_SECONDS and taken[0] < 0.25


def test_the_key_is_looked_for_without_leaving_a_wandb_core_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploader would use it, and a killed uploader's runs would stay "in use" in it."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracking._need_key()
    assert "WANDB_SERVICE" not in os.environ


def read(store: Store, name: str) -> Sweep:
    manifest = store.sweep(name)
    assert manifest is not None
    return Sweep.read(manifest, store)


def test_trials_are_sent_as_they_come_and_the_table_and_the_report_at_the_end(
    store: Store,
    wandb_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    sweeper: Callable[..., Done],
) -> None:
    point(wandb_server, monkeypatch)
    for name in ("mnist5k-teachers", "mnist5k-students"):
        sweep = read(store, name)
        with UploadWatcher(name, store, "") as tracked:
            for signature, record in sweep.records.items():
                tracked.reached(sweep, Job(signature, 30), record.rungs[-1])
            until = time.monotonic() + 30
            while not any(f"{store.id}-{s}" in wandb_server.project().runs for s in sweep.records):
                assert time.monotonic() < until
                time.sleep(0.05)
            assert f"{store.id}-table-{name}" not in wandb_server.project().runs
    said = capfd.readouterr().err
    assert "W&B: 3 runs are at" in said
    assert "W&B: 2 runs are at" in said
    assert "report: http" in said
    online = standing(wandb_server, store)
    other = pictured(store.root.parent / "other" / "runs", learning_rates=(0.1,))
    with Server() as second:
        assert sweeper("wandb", "sync", cwd=store.root.parent / "other", **second.environment).code == 0
        assert not differences(standing(second, other), online)


@pytest.mark.parametrize(
    "mode",
    ["500", "hang", pytest.param("429", marks=pytest.mark.long), pytest.param("gone", marks=pytest.mark.long)],
)
def test_a_server_that_fails_holds_nobody_up_and_is_named_once(
    mode: str,
    store: Store,
    wandb_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    impatient: None,
    sweeper: Callable[..., Done],
) -> None:
    point(wandb_server, monkeypatch)
    wandb_server.fail(mode)
    sweep = read(store, "mnist5k-students")
    with UploadWatcher("mnist5k-students", store, "") as tracked:
        first = report_all(tracked, sweep, 2000)  # more than the pipe holds
        time.sleep(3)
        later = report_all(tracked, sweep, 1000)
        begun = time.monotonic()
    assert quick(first)
    assert quick(later)
    assert time.monotonic() - begun < 7
    said = [
        line for line in capfd.readouterr().err.splitlines() if "`sweeper wandb sync` sends what is missing" in line
    ]
    assert len(said) == 1, said
    wandb_server.fail("ok")
    assert sweeper("wandb", "sync", cwd=store.root.parent).code == 0
    assert len(wandb_server.project().runs) == 5


def test_an_uploader_that_dies_is_named_once_and_nothing_else_happens(
    store: Store, wandb_server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    point(wandb_server, monkeypatch)
    sweep = read(store, "mnist5k-students")
    with UploadWatcher("mnist5k-students", store, " --store there") as tracked:
        tracked.uploader.kill()
        assert quick(report_all(tracked, sweep, 1000))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "uploading.log" in said
    assert "`sweeper wandb sync --store there` sends what is missing" in said


def test_an_uploader_whose_driver_was_killed_ends_by_itself(
    store: Store, wandb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    point(wandb_server, monkeypatch)
    monkeypatch.setattr("os.getpid", lambda: 1 << 22)  # a command that is not there
    uploader = tracking.UploaderProcess(store, ["mnist5k-students"], True, lambda message: None)
    assert uploader.process.stdin is not None
    uploader.process.stdin.close()
    assert uploader.wait(20)
    assert not wandb_server.project().runs


def test_online_without_a_key_ends_before_training(fresh: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper(
        *["run", "teachers", "--dataset", "mnist5k", "--wandb", "online", "--set", "d=1", "--set", "updates=8"],
        cwd=fresh,
        WANDB_BASE_URL="http://127.0.0.1:9",
        NETRC=str(fresh / "no-netrc"),
    )
    assert done.code == 5
    assert "--wandb online needs an API key: type `wandb login`, or use offline" in done.err


def test_another_wandb_mode_does_not_score_anew(finished: Path, sweeper: Callable[..., Done]) -> None:
    """Which would need torch: the command on a finished sweep stays quick."""
    done = sweeper(*STUDENTS, "--wandb", "disabled", cwd=finished, PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 0
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert sweeper(*STUDENTS, cwd=finished).code == 0


def test_a_killed_and_continued_sweep_leaves_what_an_offline_one_leaves_after_sync(
    fresh: Path, finished: Path, tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    """Three starts of Ray for the teachers, of which two are killed, one for the students."""
    command = [Path(sys.executable).with_name("sweeper"), *TEACHERS, "--wandb", "online"]
    for runs in (1, 3):
        process = subprocess.Popen(
            command, cwd=fresh, env={**os.environ, **wandb_server.environment}, start_new_session=True
        )
        while len(wandb_server.project().runs) < runs:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for words in (TEACHERS, STUDENTS):
        done = sweeper(*words, "--wandb", "online", cwd=fresh, **wandb_server.environment)
        assert done.code == 0, done.err
        assert "runs are at http" in done.err
    store = Store(fresh / "runs")
    runs = wandb_server.project().runs
    trials = [signature for manifest in store.sweeps() for signature in manifest.signatures]
    assert set(runs) == {f"{store.id}-{s}" for s in trials} | {f"{store.id}-table-{m.name}" for m in store.sweeps()}
    for signature in trials:
        rows = runs[f"{store.id}-{signature}"].rows
        assert [row["_step"] for row in rows] == [rung.updates for rung in store.require(signature).rungs]
    offline = tmp_path / "offline"
    shutil.copytree(finished, offline)
    with Server() as second:
        done = sweeper("wandb", "sync", cwd=offline, **second.environment)
        assert done.code == 0, done.err
        expected = standing(second, Store(offline / "runs"))
        assert not second.unknown, second.unknown[0]
    assert not differences(of_results(standing(wandb_server, store)), of_results(expected))
    assert len(expected["views"]) == 1


def of_results(state: dict[str, Any]) -> dict[str, Any]:
    """Without how long it took."""
    for run in state["runs"].values():
        for row in (*run["rows"], run["summary"]):
            row.pop("seconds", None)
    return state
