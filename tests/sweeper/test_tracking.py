"""W&B: one offline run per trial, with what the store says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sweeper import table
from sweeper.store import Store


def runs_of(store: Path) -> dict[str, list[Path]]:
    """Run id → its folders."""
    found: dict[str, list[Path]] = {}
    for folder in (store / "wandb").glob("offline-run-*"):
        found.setdefault(folder.name.split("-", 3)[3], []).append(folder)
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """An offline run's steps, read back with W&B's own reader."""
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run([wandb, "leet", "inspect", "--json", folder], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [line["history"]["item"] for line in lines if line["type"] == "history"]


def test_there_is_one_run_per_trial_and_one_for_the_table(finished: Path) -> None:
    store = Store(finished / "runs")
    trials = {signature for manifest in store.sweeps() for signature in manifest.signatures}
    found = runs_of(store.root)
    assert set(found) == {f"{store.id}-{t}" for t in trials} | {f"{store.id}-table-mnist5k-students"}
    assert all(len(folders) == 1 for folders in found.values())


def test_steps_are_updates_and_scores_are_the_store_s(finished: Path) -> None:
    store = Store(finished / "runs")
    manifest = store.sweep("mnist5k-students")
    assert manifest is not None
    for signature in manifest.signatures:
        (folder,) = runs_of(store.root)[f"{store.id}-{signature}"]
        logged = [(step["_step"], step["rung/fid"]) for step in history(folder)]
        assert logged == [(r.updates, r.scores["fid"]["mean"]) for r in store.need(signature).rungs]


def test_the_table_is_logged_as_a_table(finished: Path) -> None:
    store = Store(finished / "runs")
    (folder,) = runs_of(store.root)[f"{store.id}-table-mnist5k-students"]
    (file,) = folder.glob("files/media/table/*.table.json")
    logged = json.loads(file.read_text())
    assert logged["columns"][0] == "d"
    built = table.build(store, *table.find(store, None, None))
    assert logged["data"] == table.cells(built)


def test_nothing_of_wandb_is_written_outside_the_store(finished: Path) -> None:
    assert not (finished / "wandb").exists()
