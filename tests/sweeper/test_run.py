"""Whole sweeps on real digits under Ray: finished, repeated, killed, resumed."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweeper.records import Manifest
from sweeper.results.comparison import Comparison, samples
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests import faults
from tests.conftest import STUDENTS, TEACHERS, TINY, Done

Call = Callable[..., Done]


def read_sweep(folder: Path, name: str) -> tuple[Sweep, Manifest]:
    store = Store(folder / "runs")
    manifest = store.sweep(name)
    assert manifest is not None
    return Sweep.read(manifest, store), manifest


def read_table(sweeper: Call, folder: Path) -> dict[str, object]:
    """Return the table without what exports add to a store: other tests export from the shared one."""
    done = sweeper("table", "--format", "json", cwd=folder)
    assert done.code == 0, done.err
    return dict(json.loads(done.out, object_hook=_without_exports))


def _without_exports(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in ("exports", "latency")}


def write_times(folder: Path) -> dict[str, int]:
    """Return signature → when the trial's record was written, in nanoseconds."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/trials/*/record.json")}


def test_a_sweep_prunes_within_each_d_and_has_a_finisher_in_each(finished: Path) -> None:
    sweep, _ = read_sweep(finished, "mnist5k-teachers")
    for stratum in sweep.strata.values():
        states = [sweep.states()[trial] for trials in stratum.configurations.values() for trial in trials]
        assert sorted(states) == ["done", "pruned", "pruned"]


def test_the_table_joins_both_sweeps(finished: Path, sweeper: Call) -> None:
    table = read_table(sweeper, finished)
    assert table["schema"] == 1
    (row,) = [row for row in table["rows"] if row["d"] == 1]  # type: ignore[attr-defined]
    assert row["student"]["scores"]["fid"]["n"] == 64
    assert row["student"]["scores"]["fid"]["protocol"] == table["teacher"]["scores"]["fid"]["protocol"]  # type: ignore[index]


def test_the_sheet_of_samples_has_a_row_per_network(finished: Path) -> None:
    with Image.open(finished / "runs" / "pictures" / "mnist5k-students.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    rows = samples(Comparison.read(Store(finished / "runs"), None, None))
    assert {"teacher", "mse student", "perceptual student", "joint student", "control"} == {row.kind for row in rows}
    assert pixels.shape[0] == len(rows) * (64 + 4)
    assert pixels.std() > 10


def test_the_output_names_the_next_command_and_hides_ray_s_own(finished: Path, sweeper: Call) -> None:
    done = sweeper(*STUDENTS, cwd=finished)
    assert done.code == 0
    assert done.err.splitlines()[-1] == "mnist5k-students is finished; next: `sweeper table`"
    assert not any(word in done.err for word in ("ray", "WARNING", "Warning", "tune", "wandb"))


def test_the_same_command_again_trains_nothing_and_is_fast(finished: Path, sweeper: Call) -> None:
    before, start = write_times(finished), time.monotonic()
    for command in (TEACHERS, STUDENTS):
        assert sweeper(*command, cwd=finished).code == 0
    assert write_times(finished) == before
    assert time.monotonic() - start < 20


@pytest.mark.long
def test_a_finished_sweep_is_recognised_without_importing_torch(finished: Path, sweeper: Call) -> None:
    done = sweeper(*STUDENTS, cwd=finished, PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 0
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines() if line.startswith("import time")}
    assert "sweeper.run" in imported
    assert not imported & {"torch", "ray", "wandb"}


@pytest.mark.long
def test_a_changed_space_trains_only_new_trials_and_keeps_the_records_of_old_ones(
    finished: Path, sweeper: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = write_times(folder)
    done = sweeper(
        "run",
        "teachers",
        "--dataset",
        "mnist5k",
        *TINY,
        "--set",
        "d=1,3",
        "--set",
        "lr=0.002",
        "--set",
        "lr_discriminator=0.001",
        "--replace",
        cwd=folder,
    )
    assert done.code == 0, done.err
    assert "2 trials (" in done.err
    assert "1 new, 5 leave" in done.err
    after = write_times(folder)
    assert {name: after[name] for name in before} == before, "an old trial was trained again"
    assert len(after) == len(before) + 1
    sweep, _ = read_sweep(folder, "mnist5k-teachers")
    assert {shape.d for shape in sweep.strata} == {1, 3}


def test_no_trial_leaves_a_sweep_and_no_teacher_changes_unless_it_is_meant(finished: Path, sweeper: Call) -> None:
    before = (finished / "runs" / "sweeps" / "mnist5k-teachers.json").read_bytes()
    done = sweeper(*TEACHERS, "--set", "d=1", cwd=finished)
    assert done.code == 2
    assert "mnist5k-teachers has 3 trials that this command leaves out; for a new sweep add --name" in done.err
    assert (finished / "runs" / "sweeps" / "mnist5k-teachers.json").read_bytes() == before
    pinned = Store(finished / "runs").sweep("mnist5k-students").teacher
    d = 3 - Store(finished / "runs").require(pinned.signature).spec.d  # the other of 1 and 2
    other = sweeper(*STUDENTS, "--teacher", f"d={d}", cwd=finished)
    assert other.code == 2
    assert "mnist5k-students has the teacher" in other.err


def test_fresh_seeds_do_not_leave_a_sweep_unless_it_is_meant(finished: Path, sweeper: Call, tmp_path: Path) -> None:
    shutil.copytree(finished, folder := tmp_path / "copy")
    store = Store(folder / "runs")
    manifest = store.require_sweep("mnist5k-teachers")
    again = dataclasses.replace(store.require(manifest.signatures[0]).spec, seed=1000)
    store.add(again)
    store.save_sweep(dataclasses.replace(manifest, confirm=2, confirming=[again.signature]))
    done = sweeper(*TEACHERS, cwd=folder)
    assert done.code == 2
    assert "mnist5k-teachers has 2 fresh seeds per configuration, and this command 0; for a new sweep" in done.err


@pytest.mark.long
def test_pruned_trials_return_without_pruning(finished: Path, sweeper: Call, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    done = sweeper(*TEACHERS, "--no-pruning", "--set", "d=1", "--replace", cwd=folder)
    assert done.code == 0, done.err
    assert "3 trials (1 done, 2 return, 0 new, 3 leave)" in done.err
    sweep, _ = read_sweep(folder, "mnist5k-teachers")
    assert set(sweep.states().values()) == {"done"}


@pytest.mark.long
def test_a_longer_budget_resumes_the_trials_of_a_shorter_one(finished: Path, sweeper: Call, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before, _ = read_sweep(folder, "mnist5k-teachers")
    done = sweeper(*[w.replace("updates=24", "updates=72") for w in TEACHERS], cwd=folder)
    assert done.code == 0, done.err
    after, manifest = read_sweep(folder, "mnist5k-teachers")
    assert manifest.rungs == [8, 72]
    assert "6 trials (0 done, 0 new)" in done.err
    assert before.records.keys() == after.records.keys()
    for signature, record in before.records.items():
        assert after.records[signature].rungs[: len(record.rungs)] == record.rungs


def trials_at(folder: Path, updates: int) -> list[str]:
    """Return the signatures of the trials with a record at a rung."""
    store = Store(folder / "runs")
    signatures = [path.parent.name for path in folder.glob("runs/trials/*/record.json")]
    return [s for s in signatures if any(rung.updates == updates for rung in store.require(s).rungs)]


@pytest.mark.long
@pytest.mark.parametrize("kills", [[(24, 1)], [(8, 2), (24, 1)]])
def test_a_killed_sweep_resumes_to_the_same_table(
    finished: Path, sweeper: Call, fresh: Path, kills: list[tuple[int, int]]
) -> None:
    """Kill the driver, Ray and every actor. kills: (rung in updates, number of trials with a record there) pairs."""
    script = Path(sys.executable).with_name("sweeper")
    finished_before: dict[str, int] = {}
    for rung, records in kills:
        process = subprocess.Popen([script, *TEACHERS], cwd=fresh, start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(trials_at(fresh, rung)) < records:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        faults.kill(process, group=True)
        after = write_times(fresh)
        assert {t: after[t] for t in finished_before} == finished_before, "a finished rung was trained again"
        finished_before |= {t: after[t] for t in trials_at(fresh, 24)}
    assert finished_before
    for command in (TEACHERS, STUDENTS):
        assert sweeper(*command, cwd=fresh).code == 0
    after = write_times(fresh)
    assert {t: after[t] for t in finished_before} == finished_before, "a finished trial was trained again"
    assert read_table(sweeper, fresh) == read_table(sweeper, finished)


def test_a_sweep_on_a_folder_of_colour_images(colour_folder: Path, tmp_path: Path, sweeper: Call) -> None:
    """The images have mixed sizes, one subfolder per class, and a text file among them. FID uses their classifier."""
    command = [
        "run",
        "teachers",
        "--dataset",
        "photos",
        *TINY,
        "--set",
        "d=1",
        "--set",
        "lr=0.004",
        "--wandb",
        "disabled",
    ]
    done = sweeper(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    sweep, manifest = read_sweep(tmp_path, next(tmp_path.glob("runs/sweeps/*.json")).stem)
    assert manifest.metric == "fid"
    assert manifest.protocols["report"].startswith("classifier-")
    assert next(iter(sweep.records.values())).spec.channels == 3
    assert sweeper("table", "--dataset", "photos", cwd=tmp_path).code == 0


def test_a_second_command_on_the_same_store_is_refused(finished: Path, sweeper: Call) -> None:
    with Store(finished / "runs").lock():
        done = sweeper(*TEACHERS, cwd=finished)
    assert done.code == 2
    assert f"in use by process {os.getpid()} on" in done.err


@pytest.mark.long
def test_no_pruning_trains_every_trial_and_divergence_is_not_a_failure(sweeper: Call, fresh: Path) -> None:
    space = ["--set", "d=1", "--set", "lr=0.004,1e30", "--set", "lr_discriminator=0.001", "--no-pruning"]
    command = ["run", "teachers", "--dataset", "mnist5k", *TINY, *space, "--wandb", "disabled"]
    done = sweeper(*command, cwd=fresh)
    assert done.code == 0, done.err
    assert "diverged" in done.err
    sweep, manifest = read_sweep(fresh, "mnist5k-teachers")
    assert manifest.rungs == [8, 24]
    assert sorted(sweep.states().values()) == ["diverged", "done"]
    assert sweeper(*command, cwd=fresh).code == 0


@pytest.mark.long
def test_a_precision_that_the_machine_lacks_is_an_environment_error(sweeper: Call, fresh: Path) -> None:
    space = ["--set", "d=1", "--set", "lr=0.004", "--set", "lr_discriminator=0.001", "--wandb", "disabled"]
    done = sweeper("run", "teachers", "--dataset", "mnist5k", *TINY, *space, "--precision", "fp16", cwd=fresh)
    assert done.code == 5, done.err
    assert "precision=fp16 needs a GPU" in done.err


def scored_by_another_network(folder: Path) -> None:
    """Write into the records of the teachers that another classifier scored them."""
    records = [path for path in folder.glob("runs/trials/*/record.json") if '"role": "teacher"' in path.read_text()]
    for path in [*records, folder / "runs" / "sweeps" / "mnist5k-teachers.json"]:
        path.write_text(re.sub("classifier-[0-9a-f]{12}", "classifier-000000000000", path.read_text()))


@pytest.mark.long
def test_students_stop_before_they_train_if_their_teacher_was_scored_otherwise(
    finished: Path, sweeper: Call, tmp_path: Path
) -> None:
    """The command that the error names scores the teachers again, without training, and then the students go on."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    table = read_table(sweeper, folder)
    scored_by_another_network(folder)
    before = write_times(folder)
    done = sweeper(*STUDENTS, "--set", "seed=0,1", cwd=folder)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "the teacher's scores are by classifier-000000000000" in line
    assert f"run `{shlex.join(['sweeper', *TEACHERS])}` first: it scores the teachers again" in line
    assert write_times(folder) == before
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("runs/trials/*/*.safetensors")}
    assert sweeper(*TEACHERS, cwd=folder).code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/trials/*/*.safetensors")} == checkpoints
    assert read_table(sweeper, folder) == table


@pytest.mark.long
def test_a_trial_whose_weights_are_lost_is_trained_again_to_the_same_table(
    finished: Path, sweeper: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    store = Store(folder / "runs")
    pinned = store.sweep("mnist5k-students").teacher
    lost = store.weights(pinned.signature, "generator", pinned.updates)
    lost.write_bytes(lost.read_bytes()[:-1] + b"x")
    done = sweeper(*STUDENTS, "--set", "seed=0,1", cwd=folder)
    assert done.code == 2
    assert f"{lost} is not the file that was recorded" in done.err
    assert f"train the trial again with `{shlex.join(['sweeper', *TEACHERS])}`" in done.err
    done = sweeper(*TEACHERS, cwd=folder)
    assert done.code == 0, done.err
    assert f"{lost} is not the file that was recorded" in done.err
    assert "the trial is trained again" in done.err
    assert sweeper(*STUDENTS, cwd=folder).code == 0
    assert read_table(sweeper, folder) == read_table(sweeper, finished)
