"""`sweeper store push` and `pull`: the same store arrives, whatever happened before."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.store import RungRecord, Store
from sweeper.transfer.moving import pull, push
from sweeper.transfer.place import FILES, FOLDERS, Place
from tests import faults
from tests.conftest import Done
from tests.sweeper.transfer.conftest import CREDENTIALS, contents, rung, save_sweep, score, spec, start_s3, train
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import file_hash, write_json

Said = Callable[[], str]


def moved(said: Said) -> dict[str, int]:
    record = json.loads(said())
    return {key: record[key] for key in ("files", "unchanged", "kept")}


def test_a_pulled_store_is_the_pushed_one(store: Store, url: str, tmp_path: Path, said: Said) -> None:
    push(store.root, url, True)
    assert moved(said) == {"files": 7, "unchanged": 0, "kept": 0}
    pull(tmp_path / "new", url, True)
    assert contents(tmp_path / "new") == contents(store.root)
    assert Store(tmp_path / "new").id == store.id


def test_only_what_changed_is_moved_again(store: Store, url: str, tmp_path: Path, said: Said) -> None:
    push(store.root, url, True)
    pull(tmp_path / "new", url, True)
    said()
    train(store, 1, 20, b"v")  # its checkpoint has the size of the old one
    push(store.root, url, True)
    assert moved(said) == {"files": 3, "unchanged": 5, "kept": 0}
    pull(tmp_path / "new", url, True)
    assert moved(said) == {"files": 3, "unchanged": 5, "kept": 0}
    assert contents(tmp_path / "new") == contents(store.root)


def test_nothing_is_read_again_that_did_not_change(
    store: Store, url: str, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(store.root, url, True)
    monkeypatch.setattr(Place, "_remember", lambda *values: pytest.fail(f"{values[1]} was read"))
    push(store.root, url, True)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": []}', '{"files": {"a": [1]}}', '{"files": {"a": 1}}'])
def test_a_transfer_without_its_index_moves_nothing_twice(text: str, store: Store, tmp_path: Path, said: Said) -> None:
    url = str(tmp_path / "there")
    push(store.root, url, True)
    for place in (store.root, tmp_path / "there"):
        (place / "transfers.json").write_text(text)
    said()
    push(store.root, url, True)
    assert moved(said) == {"files": 0, "unchanged": 7, "kept": 0}


def test_every_file_of_a_store_is_moved_or_left_out_by_name(finished: Path, tmp_path: Path) -> None:
    """Fails if the store gets a part that FOLDERS and FILES lack. Starts Ray twice."""
    left_out = {"bank", "live", "wandb", "driver.claim", "transfers.json", "store.json"}
    assert {path.name for path in (finished / "runs").iterdir()} <= {*FOLDERS, *FILES, *left_out}
    push(finished / "runs", str(tmp_path / "there"), True)
    pull(tmp_path / "new", str(tmp_path / "there"), True)
    assert contents(tmp_path / "new") == contents(finished / "runs")


def test_unfinished_files_and_locks_stay_behind(store: Store, tmp_path: Path) -> None:
    trial = store.checkpoint(spec(1).signature).parent
    for name in (".record.json.host-1-abc.tmp", "claim.lock", "images.partial.npy"):
        (trial / name).write_text("unfinished")
    for folder in ("live", "bank", "wandb"):
        (store.root / folder).mkdir()
        (store.root / folder / "x.json").write_text("{}")
    (store.root / "driver.claim").write_text("process 1")
    push(store.root, str(tmp_path / "there"), True)
    names = {path.name for path in (tmp_path / "there").rglob("*")}
    assert names.isdisjoint({"claim.lock", "images.partial.npy", "live", "bank", "wandb", "driver.claim"})
    assert not any(name.endswith(".tmp") for name in names)


def check_complete(root: Path) -> int:
    """Assert that what manifests and records name is there. Return the number of trials that manifests name."""
    store, count = Store(root), 0
    for manifest in store.sweeps():
        for signature in manifest.signatures:
            count += 1
            for final in store.require(signature).finals:
                assert file_hash(store.weights(signature, "generator", final.updates)) == final.weights
    return count


def test_a_push_while_a_sweep_writes_names_nothing_that_is_missing(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        signatures, d = [], 3
        while not stop.is_set():
            signatures.append(train(store, d, 10))
            save_sweep(store, "growing", signatures)
            d += 1

    writer = threading.Thread(target=sweep)
    writer.start()
    try:
        for _ in range(8):
            push(store.root, str(tmp_path / "there"), True)
            check_complete(tmp_path / "there")
    finally:
        stop.set()
        writer.join()
    push(store.root, str(tmp_path / "there"), True)
    assert check_complete(tmp_path / "there") > 2
    assert contents(tmp_path / "there") == contents(store.root)


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_killed_transfer_that_is_repeated_gives_the_same_store(
    command: str, store: Store, url: str, tmp_path: Path
) -> None:
    for d in range(3, 43):
        train(store, d, 10, os.urandom(100))
    if command == "pull":
        push(store.root, url, True)
    new = tmp_path / "new"
    words = [sys.executable, "-m", "sweeper", "store", command, url, "--store", str(store.root)]
    words[-1] = str(store.root if command == "push" else new)
    for seconds in (0.9, 1.1, 1.3):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        faults.kill(process)
        if command == "push":
            train(store, 3, 10 + int(10 * seconds), os.urandom(100))  # the sweep goes on between the attempts
    if command == "push":
        push(store.root, url, True)
    pull(new, url, True)
    assert contents(new) == contents(store.root)
    assert check_complete(new) == 2


def test_an_upload_that_fails_leaves_no_part_of_a_file(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(threading.Event):
        def is_set(self) -> bool:
            raise OSError("the disk broke")

    with monkeypatch.context() as patched:
        patched.setattr("sweeper.transfer.moving.threading.Event", Broken)
        with pytest.raises(EnvironmentUserError, match="the disk broke"):
            push(store.root, url, True)
    assert not [path for path in Place.at(url).all_files() if path.endswith(".safetensors")]


def test_the_sweep_that_was_written_last_is_the_last_one_after_a_pull(store: Store, url: str, tmp_path: Path) -> None:
    for name in ("b", "a", "c", "aa"):
        save_sweep(store, name, [spec(1).signature])
    push(store.root, url, True)
    pull(tmp_path / "new", url, True)
    latest = Store(tmp_path / "new").latest()
    assert latest is not None
    assert latest.name == "aa"


def test_a_pull_keeps_what_is_newer_here(store: Store, url: str, tmp_path: Path, said: Said) -> None:
    push(store.root, url, True)
    train(store, 1, 20, b"v")
    after = contents(store.root)
    said()
    pull(store.root, url, True)
    assert moved(said) == {"files": 0, "unchanged": 5, "kept": 2}
    assert contents(store.root) == after


def test_a_record_that_has_more_results_is_newer_without_a_common_history(
    store: Store, tmp_path: Path, said: Said
) -> None:
    shutil.copytree(store.root, tmp_path / "copy")
    other = Store(tmp_path / "copy")
    signature = train(other, 1, 20, b"v")
    os.utime(other.checkpoint(signature), ns=(0, 0))  # as a wrong clock would
    there = str(tmp_path / "there")
    push(store.root, there, True)
    push(other.root, there, True)
    pull(store.root, there, True)
    assert contents(store.root) == contents(other.root)


def test_stores_that_have_diverged_are_refused_and_left_as_they_are(store: Store, url: str, tmp_path: Path) -> None:
    push(store.root, url, True)
    pull(tmp_path / "other", url, True)
    other = Store(tmp_path / "other")
    train(other, 1, 30, b"v")
    push(other.root, url, True)
    train(store, 1, 20, b"u")
    before = contents(store.root)
    for command in (push, pull):
        with pytest.raises(UserError, match=rf"have diverged: each has results of trials/{spec(1).signature}/record"):
            command(store.root, url, True)
    assert contents(store.root) == before
    pull(tmp_path / "third", url, True)
    assert contents(tmp_path / "third") == contents(other.root)


def test_a_trial_that_was_trained_twice_has_not_diverged(store: Store, tmp_path: Path) -> None:
    """A trial whose checkpoint was lost repeats its results in another time."""
    shutil.copytree(store.root, tmp_path / "there")
    store.add(spec(1), rung=RungRecord(10, 77.0, {}, score("rung"), False))
    push(store.root, str(tmp_path / "there"), True)
    assert Store(tmp_path / "there").require(spec(1).signature).rungs[0].seconds == 77.0


def test_another_score_of_the_same_rung_is_a_divergence(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "there")
    store.add(spec(1), rung=rung(10, fid=2.0))
    with pytest.raises(UserError, match="have diverged"):
        push(store.root, str(tmp_path / "there"), True)


def test_another_store_is_refused_by_its_id(store: Store, url: str, tmp_path: Path) -> None:
    push(store.root, url, True)
    other = Store(tmp_path / "other")
    other.create()
    for command in (push, pull):
        with pytest.raises(UserError, match=f"holds store {store.id}, and .* is store {other.id}"):
            command(other.root, url, True)


def test_a_store_of_another_version_is_not_pulled(store: Store, tmp_path: Path) -> None:
    push(store.root, str(tmp_path / "there"), True)
    write_json(tmp_path / "there" / "store.json", {"version": 99, "id": store.id})
    with pytest.raises(UserError, match="is a store of version 99, and this sweeper reads version 1"):
        pull(tmp_path / "new", str(tmp_path / "there"), True)
    assert not (tmp_path / "new").exists()


def test_a_corrupt_record_is_an_error_of_one_line(store: Store, tmp_path: Path) -> None:
    push(store.root, str(tmp_path / "there"), True)
    record = store.checkpoint(spec(1).signature).with_name("record.json")
    for folder in (store.root, tmp_path / "there"):
        (folder / record.relative_to(store.root)).write_text(f'{{"of": "{folder}"')
    with pytest.raises(UserError, match=r"record\.json is corrupt on one side"):
        push(store.root, str(tmp_path / "there"), True)


def test_a_pull_into_a_store_in_use_is_refused(store: Store, tmp_path: Path) -> None:
    push(store.root, str(tmp_path / "there"), True)
    with store.lock(), pytest.raises(UserError, match="is in use by process"):
        pull(store.root, str(tmp_path / "there"), True)


def test_a_folder_of_other_files_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files; name a new folder below it"):
        push(store.root, str(tmp_path / "there"), True)
    with pytest.raises(UserError, match="is the store itself"):
        push(store.root, str(store.root), True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/x", "Unrecognized filesystem type"),
        ("s3://", "names no bucket"),
        ("file://host/x", "Unsupported hostname"),
        ("/proc/nowhere/x", "/proc/nowhere"),
        ("s3://user:secret@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1", "Could not connect"),
    ],
)
def test_a_wrong_url_is_an_error_of_one_line(
    url: str, message: str, store: Store, sweeper: Callable[..., Done], tmp_path: Path
) -> None:
    done = sweeper("store", "push", url, "--store", str(store.root), cwd=tmp_path, **CREDENTIALS)
    assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
    assert message in done.err
    assert "secret" not in done.err


def test_a_missing_bucket_is_an_error_of_one_line(
    store: Store, s3_options: str, sweeper: Callable[..., Done], tmp_path: Path
) -> None:
    done = sweeper(
        "store", "push", f"s3://nobody/x{s3_options}", "--store", str(store.root), cwd=tmp_path, **CREDENTIALS
    )
    assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
    assert "NO_SUCH_BUCKET" in done.err
    done = sweeper("store", "pull", f"s3://nobody/x{s3_options}", "--store", "new", cwd=tmp_path, **CREDENTIALS)
    assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
    assert not (tmp_path / "new").exists()


def test_wrong_credentials_are_an_error_of_one_line(store: Store, sweeper: Callable[..., Done], tmp_path: Path) -> None:
    """The server checks credentials after its first request, which creates the bucket."""
    server, options = start_s3(INITIAL_NO_AUTH_ACTION_COUNT="1")
    try:
        url = f"s3://bucket/x{options}"
        done = sweeper("store", "push", url, "--store", str(store.root), cwd=tmp_path, **CREDENTIALS)
        assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
        assert "check the URL, your credentials" in done.err
    finally:
        server.communicate(timeout=20)


def test_credentials_of_a_url_are_not_kept(store: Store, s3_options: str, said: Said) -> None:
    push(store.root, f"s3://some:secretkey@bucket/kept{s3_options}", False)
    assert "secretkey" not in said()
    assert "secretkey" not in (store.root / "transfers.json").read_text()
