"""A full disk and a read-only store: one line that names the folder, nothing is lost, and the same command goes on."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sweeper.store import RungRecord, Store
from tests import faults
from tests.conftest import STUDENTS, TINY, Done
from tests.faults.disks import fill, remount, small_disk
from tests.sweeper.test_store import SPEC, rung
from tests.trainables.test_bank import teacher
from tests.trainables.test_training import run, same, spec_of, weights
from trainables.bank import SHARD, Bank
from trainables.datasets import DATASETS, Dataset, Source
from trainables.errors import DiskError
from trainables.images import Images, prepare
from trainables.teacher_images import TeacherImages

Call = Callable[..., Done]
FULL = r"{}.*: No space left on device; free some space"


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a data set of 3,000 grey images of 32×32, which are 3 MB, and return its name."""

    def load(data_root: Path, download: bool) -> Source:
        return Source(np.random.default_rng(0).integers(0, 255, (3000, 32, 32), dtype=np.uint8), None)

    monkeypatch.setitem(DATASETS, "noise", Dataset(load, 1, "fid", "inception", None))
    return "noise"


def test_a_data_set_on_a_full_disk(tmp_path: Path, noise: str) -> None:
    """Its array is memory-mapped: without reserved space, a full disk would end the process."""
    whole = prepare(noise, 32, tmp_path / "datasets")
    with small_disk(tmp_path / "disk", "2m") as disk:
        with pytest.raises(DiskError, match=FULL.format(disk)):
            prepare(noise, 32, disk / "datasets")
        assert not list(disk.glob("datasets/*.npy"))
        remount(disk, "size=32m")
        assert prepare(noise, 32, disk / "datasets").hash == whole.hash


def test_a_disk_that_is_full_in_the_middle_keeps_what_is_decoded(tmp_path: Path, noise: str) -> None:
    whole = prepare(noise, 32, tmp_path / "datasets")
    with small_disk(tmp_path / "disk", "3200k") as disk:
        filler = Path()

        def fill_up(done: int, total: int) -> None:
            nonlocal filler
            filler = fill(disk) if done == 2048 else filler

        with pytest.raises(DiskError, match=FULL.format(disk)):
            prepare(noise, 32, disk / "datasets", tell=fill_up)
        filler.unlink()
        decoded: list[int] = []
        images = prepare(noise, 32, disk / "datasets", tell=lambda done, total: decoded.append(done))
        assert images.hash == whole.hash
        assert decoded[0] > 2048


def test_a_shard_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        filler = fill(disk, leave=20_000)
        _, images = Bank(disk / "bank", SHARD, TeacherImages(teacher))(np.arange(SHARD))
        assert not list(disk.glob("bank/*.npy"))
        assert not list(disk.glob("bank/.*.tmp"))
        filler.unlink()
        assert np.array_equal(Bank(disk / "bank", SHARD, TeacherImages(teacher))(np.arange(SHARD))[1], images)
        assert list(disk.glob("bank/*.npy"))


def test_a_checkpoint_on_a_full_disk(tmp_path: Path, digits: Images) -> None:
    """The trial goes on from the checkpoint before, bit for bit."""
    spec = spec_of(role="teacher", d_discriminator=2)
    bank = Bank(tmp_path / "bank", 50, TeacherImages(teacher))
    whole = weights(run(spec, [12], digits, bank)[0])
    with small_disk(tmp_path / "disk", "8m") as disk:
        path = disk / "trial" / "checkpoint.safetensors"
        run(spec, [4], digits, bank, path)
        before = {file: file.read_bytes() for file in path.parent.iterdir()}
        filler = fill(disk, leave=20_000)
        with pytest.raises(DiskError, match=FULL.format(path.parent)):
            run(spec, [12], digits, bank, path)
        assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
        filler.unlink()
        (resumed,) = run(spec, [12], digits, bank, path)
        assert same(weights(resumed), whole)


def test_a_record_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        store = Store(disk / "runs")
        store.add(SPEC, rung=rung(10))
        filler = fill(disk)
        long = RungRecord(20, 0.5, {str(n): float(n) for n in range(2000)}, rung(20).scores, False)
        with pytest.raises(DiskError, match=FULL.format(store.root)):
            store.add(SPEC, rung=long)
        assert [record.updates for record in store.require(SPEC.signature).rungs] == [10]
        assert not list(store.root.rglob("*.tmp"))
        filler.unlink()
        store.add(SPEC, rung=long)
        assert [record.updates for record in store.require(SPEC.signature).rungs] == [10, 20]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_every_error_of_the_disk_names_the_folder(number: int, tmp_path: Path) -> None:
    store, line = Store(tmp_path), rf"{tmp_path}/trials/.*: {os.strerror(number)}; "
    with faults.failing(os, "replace", number), pytest.raises(DiskError, match=line) as raised:
        store.add(SPEC)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.long
def test_a_sweep_on_a_full_disk_is_finished_by_the_same_command_when_there_is_room(
    fresh: Path, sweeper: Call, tmp_path: Path
) -> None:
    """The first of six trials that finds the disk full ends the command, and none is marked as failed."""
    command = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=4", "--set", "lr=0.002,0.004,0.008"]
    command += [
        "--set",
        "lr_discriminator=0.001,0.002",
        "--wandb",
        "disabled",
        "--store",
        str(tmp_path / "disk" / "runs"),
    ]
    with small_disk(tmp_path / "disk", "32m") as disk:
        shutil.copytree(fresh / "runs", disk / "runs")
        filler = fill(disk, leave=300_000)
        done = sweeper(*command, cwd=tmp_path)
        assert done.code == 5, done.err
        assert f"{disk}/runs" in done.err
        assert "No space left on device" in done.err
        assert "Traceback" not in done.err
        assert "failed" not in done.err
        assert len([line for line in done.err.splitlines() if "No space left" in line]) <= 2, done.err
        filler.unlink()
        done = sweeper(*command, cwd=tmp_path)
        assert done.code == 0, done.err


@pytest.fixture
def read_only(finished: Path, tmp_path: Path) -> Path:
    """Yield a folder whose store `runs` is on a disk that cannot be written."""
    with small_disk(tmp_path / "shared", "64m") as disk:
        shutil.copytree(finished / "runs", disk / "runs")
        remount(disk, "ro")
        yield disk


def test_a_read_only_store_can_be_looked_at_and_exported_from(read_only: Path, sweeper: Call, tmp_path: Path) -> None:
    store = ["--store", str(read_only / "runs")]
    assert "mnist5k-students" in sweeper("status", *store, cwd=tmp_path).out
    assert sweeper("table", "--format", "csv", *store, cwd=tmp_path).code == 0
    done = sweeper("export", "--d", "1", "--format", "safetensors", "-o", "student", *store, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "student" / "generator.safetensors").exists()
    assert sweeper("report", "-o", "page.html", *store, cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (STUDENTS, 2),
        (["report"], 5),
        (["wandb", "sync"], 5),
        (["score", "images", "--against", "mnist5k"], 5),
        (["clean", "--yes"], 2),
    ],
)
def test_what_has_to_write_into_a_read_only_store_is_one_line(
    words: list[str], code: int, read_only: Path, sweeper: Call, tmp_path: Path, digits: Images
) -> None:
    from sweeper.execution.samples import image_of

    (tmp_path / "images").mkdir()
    for number in range(20):
        image_of(digits.pixels[number]).save(tmp_path / "images" / f"{number}.png")
    done = sweeper(*words, "--store", str(read_only / "runs"), cwd=tmp_path)
    assert done.code == code, done
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert f"{read_only}/runs" in done.err
    assert "Read-only file system" in done.err


def as_colleague(*words: str, cwd: Path) -> Done:
    """Run a command without root's right to read and write the files of others."""
    rights = ",".join(f"-{name}" for name in ("dac_override", "dac_read_search", "fowner"))
    command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, sys.executable, "-m", "sweeper", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_colleague_can_export_from_a_store_and_is_told_what_cannot_be_read(finished: Path, tmp_path: Path) -> None:
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root can give files to another user")
    store = tmp_path / "runs"
    shutil.copytree(finished / "runs", store)
    for path in (store, *store.rglob("*")):
        shutil.chown(path, 65534, 65534)
    words = ["export", "--d", "1", "--format", "safetensors", "--store", str(store), "-o", "mine"]
    done = as_colleague(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "mine" / "generator.safetensors").exists()
    done = as_colleague("report", "--store", str(store), cwd=tmp_path)
    assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
    assert f"{store}/reports: Permission denied" in done.err
    for weights_file in store.glob("trials/*/generator-*.safetensors"):
        weights_file.chmod(0o600)
    done = as_colleague(*words, cwd=tmp_path)
    assert (done.code, len(done.err.splitlines())) == (5, 1), done.err
    assert "generator-24.safetensors: Permission denied" in done.err
