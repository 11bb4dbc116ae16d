"""`sweeper clean`: it says what goes and what is lost, deletes that alone, and keeps what it does not know."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.clean import find, remove_temporary
from sweeper.records import Teacher
from sweeper.store import TUNE_FOLDER, Store
from tests.conftest import Done
from tests.sweeper.stores import student, sweep, teacher, trial
from trainables.files import owner_mark, write_json

Call = Callable[..., Done]
FINAL = {"selection": (20.0, 9.0), "report": (21.0, 9.0)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a finished sweep of three trials, one finished and two pruned, and other files."""
    store = Store(tmp_path / "runs")
    best = trial(store, teacher(2), 1.0, FINAL)
    pruned = [trial(store, teacher(2, lr=lr), 2.0 + lr) for lr in (0.1, 0.2)]
    sweep(store, "teacher", [best, *pruned], eta=3)
    unnamed = trial(store, teacher(4), 1.0, FINAL)
    for signature in (best, *pruned, unnamed):
        folder = store.root / "trials" / signature
        for name in ("checkpoint.safetensors", "checkpoint-rung-10.safetensors", "notes.txt"):
            (folder / name).write_bytes(bytes(1000))
    for bank in ("0123456789ab@30-aa", "holidays"):
        (store.root / "bank" / bank).mkdir(parents=True)
        (store.root / "bank" / bank / "000000.npy").write_bytes(bytes(500))
    return store


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sizes(store: Store) -> dict[str, int]:
    return {group.kind: group.size for group in find(store) if "temporary" not in group.kind}


def test_it_says_what_would_go_and_deletes_nothing(store: Store, sweeper: Call) -> None:
    before = tree(store.root)
    done = sweeper("clean", cwd=store.root.parent)
    assert done.code == 0, done.err
    assert "2.0 kB       2  checkpoints of finished trials; lost: a longer budget" in done.out
    assert "4.0 kB       4  checkpoints of pruned trials; lost: if they return" in done.out
    assert "500 bytes       1  teachers' images that no sweep uses" in done.out
    assert "trials that no sweep names; lost: their weights and scores" in done.out
    assert "`sweeper clean --yes`" in done.out
    assert tree(store.root) == before


def test_what_it_names_goes_and_what_it_does_not_know_stays(store: Store, sweeper: Call) -> None:
    before = tree(store.root)
    done = sweeper("clean", "--yes", cwd=store.root.parent)
    assert done.code == 0, done.err
    left = tree(store.root)
    gone = {name for name in before - left if not name.startswith("trials/")}
    assert gone == {"bank/0123456789ab@30-aa/000000.npy"}
    assert not (store.root / "bank" / "0123456789ab@30-aa").exists()
    assert sum(name.endswith("notes.txt") for name in left) == 4
    assert sum(name.endswith("record.json") for name in left) == 3
    assert not any("checkpoint" in name for name in left)
    assert len(store.sweeps()) == 1
    assert "nothing can go" in sweeper("clean", "--yes", cwd=store.root.parent).out


def test_damaged_files_go_wherever_they_were_set_aside(store: Store) -> None:
    trial_folder, bank = next(store.root.glob("trials/*")), next(store.root.glob("bank/*@*"))
    for folder in (store.datasets, store.scores, trial_folder, bank):
        folder.mkdir(exist_ok=True)
        (folder / "one.safetensors.spoiled").write_bytes(bytes(10))
        (folder / "mine.spoiled").write_bytes(bytes(10))
    assert sizes(store)["damaged files that were set aside"] == 40


def test_unfinished_preparations_go_once_nobody_goes_on_with_them(store: Store) -> None:
    store.datasets.mkdir()
    file = store.datasets / "photos-32.partial.npy"
    file.write_bytes(bytes(10))
    assert not [kind for kind in sizes(store) if "unfinished" in kind]
    os.utime(file, (0, 0))
    assert sizes(store)["unfinished data sets and statistics, a day old"] == 10


def test_nothing_goes_of_trials_that_a_sweep_still_trains(store: Store) -> None:
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    sweep(store, "teacher", manifest.signatures, name="longer", updates=90, rungs=[10, 90])
    assert not any(name.startswith("checkpoints of finished") for name in sizes(store))


def test_nothing_goes_while_a_sweep_trains_or_if_a_manifest_cannot_be_read(store: Store, sweeper: Call) -> None:
    before = tree(store.root)
    with store.lock():
        done = sweeper("clean", "--yes", cwd=store.root.parent)
    assert done.code == 2
    assert "is in use by process" in done.err
    (store.root / "sweeps" / "broken.json").write_text("{")
    assert sweeper("clean", "--yes", cwd=store.root.parent).code == 2
    assert tree(store.root) == before | {"sweeps/broken.json"}


def test_a_bank_in_use_and_those_of_other_stores_stay(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sizes(store)["teachers' images that no sweep uses"] == 500
    pinned = Teacher("0123456789ab", 30, "aa", "mnist5k-teachers", "best")
    sweep(store, "student", [trial(store, student(2), 9.0)], pinned)
    assert "teachers' images that no sweep uses" not in sizes(store)
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "scratch"))
    known = next(path.name for path in (store.root / "trials").iterdir())
    for signature in ("fedcba987654", known):
        folder = tmp_path / "scratch" / "bank" / f"{signature}@30-bb"
        folder.mkdir(parents=True)
        (folder / "000000.npy").write_bytes(bytes(700))
    assert sizes(store)["teachers' images that no sweep uses"] == 700, "that of another store stays"


KILLED = """
import os, signal, sys
from pathlib import Path
from trainables.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(bytes(100))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_of_killed_processes_go_at_the_next_start(store: Store) -> None:
    folder = next((store.root / "trials").iterdir())
    for path in (folder / "checkpoint.safetensors", store.root / "sweeps" / "a.json"):
        assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -signal.SIGKILL
    mine, other = folder / f".a.json.{owner_mark()}abcdef.tmp", folder / ".a.json.elsewhere-1-abcdef.tmp"
    for path in (mine, other):
        path.touch()
    assert len(list(store.root.rglob("*.tmp"))) == 4
    remove_temporary(store)
    assert set(store.root.rglob("*.tmp")) == {mine, other}, "those of running processes and of other hosts stay"
    os.utime(other, (1, 1))
    assert [group.files for group in find(store) if "temporary" in group.kind] == [[other]]


def test_tune_s_folders_of_dead_processes_are_temporary(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark = owner_mark()
    dead, alive = (tmp_path / f"{TUNE_FOLDER}{m}abcd1234" for m in (mark.replace(str(os.getpid()), "99999999"), mark))
    for folder in (dead, alive, tmp_path / f"{TUNE_FOLDER}of-an-older-version"):
        write_json(folder / "state" / "a.json", {})
    remove_temporary(store)
    assert not dead.exists()
    assert len(list(tmp_path.glob(f"{TUNE_FOLDER}*"))) == 2
