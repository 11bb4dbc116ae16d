"""`sweeper wandb sync` against a stand-in of the W&B server (tests/wandb_server.py)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.records import RungRecord
from sweeper.results.comparison import Comparison
from sweeper.results.lines import flat
from sweeper.results.table_text import cells, columns
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from sweeper.tracking import project
from sweeper.tracking.uploader import Ledger
from tests import faults
from tests.conftest import Done
from tests.sweeper import stores
from tests.sweeper.sent import differences, save_samples, server_content, store_with_samples
from tests.wandb_server import Server


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> Iterator[tuple[Server, Store]]:
    """Return a server and a store whose runs are uploaded. Takes seconds: wandb-core is started."""
    folder = tmp_path_factory.mktemp("synced")
    store = store_with_samples(folder / "runs")
    with Server() as server:
        done = sweeper("wandb", "sync", cwd=folder, **server.environment)
        assert done.code == 0, done.err
        assert "6 runs are at" in done.out
        yield server, store
    assert not server.unknown, server.unknown[0]


def test_two_uploaders_keep_what_the_other_one_has_written(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.record("project", "a", "1")
    first.save()
    second.record("project", "b", "2")
    second.save()
    first.save()
    for ledger in (first, Ledger(tmp_path)):
        assert [ledger.get("project", run) for run in ("a", "b")] == ["1", "2"]


def test_there_is_one_run_per_trial_and_one_per_table(synced: tuple[Server, Store]) -> None:
    server, store = synced
    trials = {signature for manifest in store.sweeps() for signature in manifest.signatures}
    tables = {f"table-{manifest.name}" for manifest in store.sweeps()}
    assert set(server.project().runs) == {f"{store.id}-{name}" for name in trials | tables}


def test_a_run_has_the_trial_s_spec_state_and_scores(synced: tuple[Server, Store]) -> None:
    server, store = synced
    for manifest in store.sweeps():
        states = Sweep.read(manifest, store).states()
        for signature in manifest.signatures:
            run, record = server.project().runs[f"{store.id}-{signature}"], store.require(signature)
            fields = {"displayName": record.spec.label(), "groupName": manifest.name, "jobType": manifest.role}
            assert run.fields == fields
            config = {key: value["value"] for key, value in run.config.items()}
            assert {key: config[key] for key in record.spec.canonical()} == record.spec.canonical()
            assert config["d"] == record.spec.d
            assert config["parameters"] > 0
            assert (run.summary["state"], run.summary["diverged"]) == (states[signature], False)
            final = record.final(manifest.updates, manifest.protocols)
            assert run.summary.get("report/fid") == (final.report["fid"]["mean"] if final else None)
            assert run.summary.get("report/fid/std") == (final.report["fid"]["std"] if final else None)
            assert run.summary.get("report/protocol") == (final.report["fid"]["protocol"] if final else None)
            assert run.summary.get("report/weights") == (final.weights if final else None)
            assert run.state == "finished"


def test_each_rung_is_a_step_at_its_updates_with_its_samples(synced: tuple[Server, Store]) -> None:
    server, store = synced
    for manifest in store.sweeps():
        for signature in manifest.signatures:
            run = server.project().runs[f"{store.id}-{signature}"]
            logged = [(row["_step"], row["rung/fid"], row["seconds"]) for row in run.rows]
            rungs = store.require(signature).rungs
            assert logged == [(rung.updates, rung.scores["fid"]["mean"], rung.seconds) for rung in rungs]
            for row in run.rows:
                uploaded = run.files[row["samples"]["path"]]
                assert uploaded == store.samples(signature, row["_step"]).read_bytes()


def test_the_table_has_the_texts_and_numbers_of_the_printed_one(synced: tuple[Server, Store]) -> None:
    server, store = synced
    built = Comparison.read(store, None, None).table
    logged = logged_table(server, store)
    positions = {head: number for number, head in enumerate(logged["columns"])}
    assert len(positions) == len(logged["columns"])
    numbers = flat(built)
    assert [{name: row[positions[name]] for name in numbers[0]} for row in logged["data"]] == numbers
    texts = [name for name in columns(built) if name not in numbers[0]]
    printed = [dict(zip(columns(built), line, strict=True)) for line in cells(built)]
    assert [{name: row[positions[name]] for name in texts} for row in logged["data"]] == [
        {name: row[name] for name in texts} for row in printed
    ]


def test_the_table_has_samples_of_student_control_and_teacher(synced: tuple[Server, Store]) -> None:
    server, store = synced
    (artifact,) = [a for a in server.project().artifacts if "students" in a.name]
    logged = json.loads(artifact.files["compression.table.json"])
    position = logged["columns"].index
    numbers = flat(Comparison.read(store, None, None).table)
    for row, line in zip(logged["data"], numbers, strict=True):
        for kind in ("student", "control"):
            signature, cell = line[f"{kind}_signature"], row[position(kind)]
            assert (cell is None) == (signature is None)
            if cell:
                expected = store.samples(signature, line[f"{kind}_updates"]).read_bytes()
                assert artifact.files[cell["path"]] == expected


def test_wandb_writes_nothing_outside_the_store(synced: tuple[Server, Store]) -> None:
    _, store = synced
    assert [path.name for path in store.root.parent.iterdir()] == ["runs"]
    assert not list((store.root / "wandb").glob("run-*"))


def test_a_second_sync_uploads_nothing(synced: tuple[Server, Store], sweeper: Callable[..., Done]) -> None:
    server, store = synced
    before, first = server_content(server, store), len(server.requests)
    done = sweeper("wandb", "sync", cwd=store.root.parent, **server.environment)
    assert done.code == 0, done.err
    assert "6 runs are at" in done.out
    assert not differences(server_content(server, store), before)
    assert not [request for request in server.requests[first:] if "UpsertBucket" in request or "file_stream" in request]


def test_sync_adds_new_rungs_and_scores_to_existing_runs(
    tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    store = store_with_samples(tmp_path / "runs")
    assert sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment).code == 0
    students = store.sweep("mnist5k-students")
    assert students is not None
    extended = students.signatures[1]
    stores.trial(store, store.require(extended).spec, 31, {"selection": (20, 8.0), "report": (20.5, 8.0)})
    save_samples(store, extended, 30)
    store.save_sweep(replace(students, eta=1))
    done = sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment)
    assert done.code == 0, done.err
    run = wandb_server.project().runs[f"{store.id}-{extended}"]
    assert [row["_step"] for row in run.rows] == [10, 30]
    assert (run.summary["state"], run.summary["report/fid"]) == ("done", 20.5)
    tables = wandb_server.project().runs[f"{store.id}-table-mnist5k-students"]
    assert [row["_step"] for row in tables.rows] == [0, 1]
    assert logged_table(wandb_server, store)["data"][0][heads_of(wandb_server, store).index("student_fid")] == 20.5


@pytest.fixture(scope="module")
def expected_content(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> dict[str, Any]:
    """Return the server's content after one sync of the smallest store."""
    folder = tmp_path_factory.mktemp("expected")
    store = store_with_samples(folder / "runs", learning_rates=(0.1,))
    with Server() as server:
        assert sweeper("wandb", "sync", cwd=folder, **server.environment).code == 0
        return server_content(server, store)


@pytest.mark.parametrize(
    "held",
    [
        "PUT /storage/run",  # the history is uploaded, the samples are not
        pytest.param("CommitArtifact", marks=pytest.mark.long),
        pytest.param("file_stream", marks=pytest.mark.long),
        pytest.param("UpsertBucket", marks=pytest.mark.long),
    ],
)
def test_sync_completes_the_upload_of_a_killed_uploader(
    held: str, tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done], expected_content: dict[str, Any]
) -> None:
    store = store_with_samples(tmp_path / "runs", learning_rates=(0.1,))
    wandb_server.held = lambda request: held in request
    uploader = start(store, wandb_server)
    wait_for(lambda: any(held in request for request in wandb_server.requests))
    time.sleep(0.5)  # for requests that are sent at the same time
    faults.kill(uploader)
    wandb_server.fail("ok")
    done = sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment)
    assert done.code == 0, done.err
    assert not differences(committed(server_content(wandb_server, store)), committed(expected_content))


def test_missing_samples_are_uploaded_again(
    tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done], expected_content: dict[str, Any]
) -> None:
    store = store_with_samples(tmp_path / "runs", learning_rates=(0.1,))
    assert sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment).code == 0
    for run in wandb_server.project().runs.values():
        for path in [name for name in run.files if name.startswith("media/images/")]:
            del run.files[path]
    (store.root / "wandb" / "uploaded.json").unlink()
    assert sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment).code == 0
    assert not differences(server_content(wandb_server, store), expected_content)


def test_a_deleted_run_stays_deleted_and_is_counted(
    tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    store = store_with_samples(tmp_path / "runs", learning_rates=(0.1,))
    assert sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment).code == 0
    students = store.sweep("mnist5k-students")
    assert students is not None
    wandb_server.delete(f"{store.id}-{students.signatures[0]}")
    for _ in range(2):
        done = sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment)
        assert (done.code, "deleted on W&B: 1" in done.out) == (0, True), done.err
    assert len(wandb_server.project().runs) == 4


def test_entity_and_project_are_respected_and_disabled_sweeps_are_not_uploaded(
    tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    store = store_with_samples(tmp_path / "runs", learning_rates=(0.1,), wandb="disabled")
    environment = {**wandb_server.environment, "WANDB_ENTITY": "team", "WANDB_PROJECT": "faces"}
    done = sweeper("wandb", "sync", cwd=tmp_path, **environment)
    assert done.code == 0, done.err
    students = store.sweep("mnist5k-students")
    assert students is not None
    expected = {f"{store.id}-{name}" for name in students.signatures}  # no table: it would show the teachers' scores
    assert set(wandb_server.project("team", "faces").runs) == expected
    assert set(wandb_server.projects) == {("team", "faces")}
    refused = sweeper("wandb", "sync", "--name", "mnist5k-teachers", cwd=tmp_path, **environment)
    assert refused.code == 2
    assert "mnist5k-teachers was run with --wandb disabled" in refused.err
    assert sweeper("wandb", "report", cwd=tmp_path, **environment).code == 2


def test_a_rung_before_the_last_uploaded_one_is_skipped(
    tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    store = store_with_samples(tmp_path / "runs", learning_rates=(0.1,))
    assert sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment).code == 0
    spec = stores.teacher(8, lr=0.1)
    store.add(spec, rung=RungRecord(3, 1.0, {}, stores.scores(99.0, 1.0, "rung"), False))
    done = sweeper("wandb", "sync", cwd=tmp_path, **wandb_server.environment)
    assert done.code == 0, done.err
    run = wandb_server.project().runs[f"{store.id}-{spec.signature}"]
    assert [row["_step"] for row in run.rows] == [10, 30]


@pytest.mark.parametrize(("mode", "reason"), [("500", "answers HTTP 500"), ("ok", "refuses the API key")])
def test_a_failed_sync_prints_the_reason_in_one_line(
    mode: str, reason: str, tmp_path: Path, wandb_server: Server, sweeper: Callable[..., Done]
) -> None:
    store_with_samples(tmp_path / "runs", learning_rates=(0.1,))
    wandb_server.fail(mode)
    key = {"WANDB_API_KEY": "1" * 40} if mode == "ok" else {}
    done = sweeper("wandb", "sync", cwd=tmp_path, **{**wandb_server.environment, **key})
    assert done.code == 5
    assert done.err.count("\n") == 1
    assert f"5 of 5 runs are not uploaded (the server {reason}" in done.err
    assert "try again with `sweeper wandb sync`" in done.err


def test_a_store_with_nothing_to_upload_is_an_error(tmp_path: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper("wandb", "sync", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "holds nothing to upload" in done.err


def logged_table(server: Server, store: Store) -> dict[str, Any]:
    run = server.project().runs[f"{store.id}-table-mnist5k-students"]
    return dict(json.loads(run.files[run.rows[-1]["compression"]["path"]]))


def heads_of(server: Server, store: Store) -> list[str]:
    return list(logged_table(server, store)["columns"])


def start(store: Store, server: Server) -> "subprocess.Popen[bytes]":
    """Start the uploader as `sweeper wandb sync` does."""
    (store.root / "wandb").mkdir(exist_ok=True)
    sweeps = [manifest.name for manifest in store.sweeps()]
    module = "sweeper.tracking.uploader"
    command = [sys.executable, "-m", module, str(store.root), *sweeps, "--parent", str(os.getpid())]
    environment = {**os.environ, **server.environment}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def committed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content without artifact versions that were not committed."""
    artifacts = {
        (name, json.dumps(files, sort_keys=True))
        for name, _, status, files in content["artifacts"]
        if status == "COMMITTED"
    }
    return {**content, "artifacts": sorted(artifacts)}


def test_settings_that_this_wandb_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(project._SETTINGS)
    monkeypatch.setitem(project._SETTINGS, "x_of_another_version", True)
    settings = project._settings()
    assert {name: getattr(settings, name) for name in known} == known
    assert not hasattr(settings, "x_of_another_version")
