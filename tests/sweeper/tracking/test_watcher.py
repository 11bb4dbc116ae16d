"""Uploads to W&B while a sweep runs: a slow or failing server delays neither the driver nor the user."""

import os
import shutil
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
from tests import faults
from tests.conftest import STUDENTS, TEACHERS, Done
from tests.sweeper.sent import differences, server_content, store_with_samples
from tests.wandb_server import Server

CALLBACK_SECONDS = 0.005


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_with_samples(tmp_path / "runs", learning_rates=(0.1,))


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait at the end of a sweep."""
    monkeypatch.setattr(tracking, "SECONDS_AT_THE_END", 3.0)
    monkeypatch.setattr(tracking, "SECONDS_IF_FAILING", 0.5)


def use_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment variables that make wandb use the stand-in."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def report_all(tracked: UploadWatcher, sweep: Sweep, times: int) -> list[float]:
    """Call the callbacks for every trial, repeatedly. Return the seconds of each call, longest first."""
    durations = []
    for _ in range(times):
        for signature, record in sweep.records.items():
            for call in (
                lambda s=signature, r=record: tracked.reached(sweep, Job(s, 30), r.rungs[-1]),
                lambda s=signature: tracked.failed(sweep, Job(s, 30), "its process died\nand more"),
            ):
                start = time.perf_counter()
                call()
                durations.append(time.perf_counter() - start)
    return sorted(durations, reverse=True)


def quick(durations: list[float]) -> bool:
    """Return whether no call waited for the server or a full pipe, which takes seconds.

    The stand-in shares this process, and other tests share the machine, so a few calls may take longer than
    CALLBACK_SECONDS. benchmarks/wandb_callbacks.py runs the stand-in in another process.
    """
    return durations[len(durations) // 1000] < CALLBACK_SECONDS and durations[0] < 0.25


def test_the_uploader_runs_no_module_of_the_current_folder(
    store: Store, wandb_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_server(wandb_server, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "argparse.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    uploader = tracking.UploaderProcess(store, ["mnist5k-teachers"], False, lambda message: None)
    try:
        assert uploader.wait(60)
    finally:
        uploader.kill()
    assert not (tmp_path / "imported").exists()


def test_the_check_for_a_key_stops_its_wandb_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploader would share it, and the runs of a killed uploader would stay "in use" in it."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracking._require_key()
    assert "WANDB_SERVICE" not in os.environ


def read(store: Store, name: str) -> Sweep:
    manifest = store.sweep(name)
    assert manifest is not None
    return Sweep.read(manifest, store)


def test_trials_are_uploaded_during_the_sweep_and_table_and_report_at_its_end(
    store: Store,
    wandb_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    sweeper: Callable[..., Done],
) -> None:
    use_server(wandb_server, monkeypatch)
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
    printed = capfd.readouterr().err
    assert "W&B: 3 runs are at" in printed
    assert "W&B: 2 runs are at" in printed
    assert "report: http" in printed
    online = server_content(wandb_server, store)
    other = store_with_samples(store.root.parent / "other" / "runs", learning_rates=(0.1,))
    with Server() as second:
        assert sweeper("wandb", "sync", cwd=store.root.parent / "other", **second.environment).code == 0
        assert not differences(server_content(second, other), online)


@pytest.mark.parametrize(
    "mode",
    ["500", "hang", pytest.param("429", marks=pytest.mark.long), pytest.param("gone", marks=pytest.mark.long)],
)
def test_a_failing_server_delays_nothing_and_is_reported_once(
    mode: str,
    store: Store,
    wandb_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    short_waits: None,
    sweeper: Callable[..., Done],
) -> None:
    use_server(wandb_server, monkeypatch)
    wandb_server.fail(mode)
    sweep = read(store, "mnist5k-students")
    with UploadWatcher("mnist5k-students", store, "") as tracked:
        first = report_all(tracked, sweep, 2000)  # more than the pipe holds
        time.sleep(3)
        later = report_all(tracked, sweep, 1000)
        end = time.monotonic()
    assert quick(first)
    assert quick(later)
    assert time.monotonic() - end < 7
    warnings = [
        line
        for line in capfd.readouterr().err.splitlines()
        if "upload what is missing with `sweeper wandb sync`" in line
    ]
    assert len(warnings) == 1, warnings
    wandb_server.fail("ok")
    assert sweeper("wandb", "sync", cwd=store.root.parent).code == 0
    assert len(wandb_server.project().runs) == 5


def test_an_uploader_that_dies_is_reported_once_and_delays_nothing(
    store: Store, wandb_server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use_server(wandb_server, monkeypatch)
    sweep = read(store, "mnist5k-students")
    with UploadWatcher("mnist5k-students", store, " --store there") as tracked:
        tracked.uploader.kill()
        assert quick(report_all(tracked, sweep, 1000))
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    assert "uploading.log" in printed
    assert "upload what is missing with `sweeper wandb sync --store there`" in printed


def test_an_uploader_ends_if_its_command_was_killed(
    store: Store, wandb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(wandb_server, monkeypatch)
    monkeypatch.setattr("os.getpid", lambda: 1 << 22)  # the id of no process
    uploader = tracking.UploaderProcess(store, ["mnist5k-students"], True, lambda message: None)
    assert uploader.process.stdin is not None
    uploader.process.stdin.close()
    assert uploader.wait(20)
    assert not wandb_server.project().runs


def test_online_without_a_key_fails_before_training(fresh: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper(
        *["run", "teachers", "--dataset", "mnist5k", "--wandb", "online", "--set", "d=1", "--set", "updates=8"],
        cwd=fresh,
        WANDB_BASE_URL="http://127.0.0.1:9",
        NETRC=str(fresh / "no-netrc"),
    )
    assert done.code == 5
    assert "--wandb online needs an API key; run `wandb login`, or use --wandb offline" in done.err


def test_changing_the_wandb_mode_of_a_finished_sweep_does_not_import_torch(
    finished: Path, sweeper: Callable[..., Done]
) -> None:
    """Nothing is scored again, so the command is quick."""
    done = sweeper(*STUDENTS, "--wandb", "disabled", cwd=finished, PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 0
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert sweeper(*STUDENTS, cwd=finished).code == 0


@pytest.mark.long
def test_a_killed_and_continued_sweep_uploads_what_sync_uploads_of_an_offline_one(
    fresh: Path, finished: Path, tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    """Run the teachers three times and kill the first two, then the students."""
    command = [Path(sys.executable).with_name("sweeper"), *TEACHERS, "--wandb", "online"]
    for runs in (1, 3):
        process = subprocess.Popen(
            command, cwd=fresh, env={**os.environ, **wandb_server.environment}, start_new_session=True
        )
        while len(wandb_server.project().runs) < runs:
            assert process.poll() is None, "the sweep ended before it was killed"
            time.sleep(0.02)
        faults.kill(process, group=True)
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
        expected = server_content(second, Store(offline / "runs"))
        assert not second.unknown, second.unknown[0]
    assert not differences(without_seconds(server_content(wandb_server, store)), without_seconds(expected))
    assert len(expected["views"]) == 1


def without_seconds(content: dict[str, Any]) -> dict[str, Any]:
    """Return a server's content without the training times."""
    for run in content["runs"].values():
        for row in (*run["rows"], run["summary"]):
            row.pop("seconds", None)
    return content


@pytest.mark.long
def test_fresh_seeds_are_uploaded_as_they_are_trained(
    finished: Path, tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    """They are not known when the upload begins."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    command = [*STUDENTS, "--set", "confirm=2", "--wandb", "online"]
    done = sweeper(*command, cwd=folder, **wandb_server.environment)
    assert done.code == 0, done.err
    assert "runs are at http" in done.err
    manifest = Store(folder / "runs").sweep("mnist5k-students")
    assert manifest is not None
    assert len(manifest.confirming) == 2
    identifier = Store(folder / "runs").id
    assert {f"{identifier}-{signature}" for signature in manifest.members} <= set(wandb_server.project().runs)
    again = sweeper("status", "--trial", manifest.confirming[0], cwd=folder)
    assert "trains the selected configuration again, with a fresh seed" in again.out
    simulated = sweeper("simulate", "--name", "mnist5k-students", cwd=folder)
    assert simulated.code == 0, simulated.err
