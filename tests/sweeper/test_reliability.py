"""Whatever dies or is interrupted: what was trained stays trained, nothing stays behind, the table is the same.

The kills are random. A failure prints its seed; SWEEPER_KILL_SEED=N replays it.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import faults
from tests.conftest import STUDENTS, TEACHERS, TINY, Done
from tests.sweeper import counted
from tests.sweeper.test_run import read_sweep, read_table

Call = Callable[..., Done]
# A sweep that no test waits for.
LONG = [*TINY, "--set", "updates=100000", "--set", "first_rung=50000", "--set", "d=2", "--set", "lr=0.002"]
ENDLESS = ["run", "teachers", "--dataset", "mnist5k", *LONG, "--set", "lr_discriminator=0.001"]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "SOME_PASSWORD")
# Modules that the command and its processes import. One in the current folder is not theirs.
MODULES = ("accelerate", "argparse", "torch", "psutil", "sweeper")


def trained(folder: Path) -> bool:
    """Return whether a job has said how many updates it has done."""
    try:
        live = json.loads((folder / "runs" / "live" / "mnist5k-teachers.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(live["updates"])


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Return a folder for Ray's session. Its path is short, because sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        yield Path(folder)


def files_with(folder: Path, word: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def interrupted(command: faults.Command, number: signal.Signals, to_group: bool = False, seconds: float = 15) -> str:
    """Send a signal. Check that the command ends in time with one line, and leaves no process. Return its stderr."""
    sent = time.monotonic()
    command.send(number, to_group)
    code, err = command.wait()
    assert time.monotonic() - sent < seconds
    assert code == 130, err
    assert err.splitlines()[-1].startswith("interrupted; continue with `sweeper run teachers"), err
    assert "Traceback" not in err
    assert not command.wait_until_gone(3)
    return err


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_saves_checkpoints_and_leaves_no_process_and_no_secret(
    number: signal.Signals, fresh: Path, ray_folder: Path
) -> None:
    """The signal goes to the whole group, as from a terminal or Slurm."""
    for module in MODULES:
        (fresh / f"{module}.py").write_text(f"open({str(fresh / 'imported')!r}, 'a').write(__file__)\n")
    secret = "canary-of-the-test"
    with faults.Command(ENDLESS, fresh, RAY_TMPDIR=str(ray_folder), **dict.fromkeys(KEYS, secret)) as command:
        assert command.wait_until(lambda: trained(fresh))
        sent = time.time()
        err = interrupted(command, number, to_group=True)
    (checkpoint,) = fresh.glob("runs/trials/*/checkpoint-*.safetensors")
    assert checkpoint.stat().st_mtime > sent
    assert not (fresh / "imported").exists()
    assert secret not in err
    assert not files_with(fresh / "runs", secret)
    assert not files_with(ray_folder, secret)


@pytest.mark.parametrize("moment", ["driver.claim", "gcs_server"])
def test_a_signal_in_the_first_seconds_ends_the_command_with_one_line(moment: str, fresh: Path) -> None:
    """While data are prepared, and while Ray starts."""
    with faults.Command(ENDLESS, fresh) as command:
        assert command.wait_until(lambda: (fresh / "runs" / moment).exists() or command.processes(moment))
        interrupted(command, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported_is_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """From the moment on at which the command is at work, which is before it has loaded its command line."""
    for seconds in (0.15, 0.25, 0.4, 0.6, 0.9):
        with faults.Command(ENDLESS, tmp_path) as command:
            assert command.wait_until(lambda: signal_is_handled(command.process.pid))
            time.sleep(seconds - 0.15)
            interrupted(command, number)


def signal_is_handled(process: int) -> bool:
    """Return whether a process has a handler for SIGTERM, as Linux says."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_second_signal_ends_the_command_at_once(fresh: Path) -> None:
    with faults.Command(ENDLESS, fresh) as command:
        assert command.wait_until(lambda: trained(fresh))
        command.send(signal.SIGINT)
        time.sleep(0.05)
        interrupted(command, signal.SIGINT, seconds=2)


def test_a_command_that_is_killed_leaves_no_process_that_trains_on(fresh: Path) -> None:
    with faults.Command(ENDLESS, fresh) as command:
        assert command.wait_until(lambda: trained(fresh))
        command.kill()
        assert not (left := command.wait_until_gone(60)), left


@pytest.mark.long
def test_a_killed_trial_loses_the_updates_since_its_checkpoint_of_the_last_minute(fresh: Path) -> None:
    """Prints how long the restart took and what was lost: they are in docs/reliability.md."""
    program = [sys.executable, "-c", counted.RUN]
    with faults.Command([*ENDLESS, "--slots", "1"], fresh, program=program) as command:
        assert command.wait_until(lambda: list(fresh.glob("runs/trials/*/checkpoint-[0-9]*")))
        time.sleep(random.uniform(0, 60))
        command.kill(workers=True)
        killed = time.time()
        command.wait()
        assert not (left := command.wait_until_gone(60)), left
    before = counted.notes(fresh)
    (checkpoint, *_) = sorted(fresh.glob("runs/trials/*/checkpoint-[0-9]*"), key=lambda path: -path.stat().st_mtime)
    saved, kept = checkpoint.stat().st_mtime, int(checkpoint.stem.rpartition("-")[2])
    begun = time.time()
    with faults.Command([*ENDLESS, "--slots", "1"], fresh, program=program) as command:
        assert command.wait_until(lambda: len(counted.notes(fresh)) > len(before))
        _, first, moment = counted.notes(fresh)[len(before)]
        interrupted(command, signal.SIGTERM)
    print(f"{moment - begun:.1f} s to the first update; lost {before[-1][1] - kept} updates, {killed - saved:.1f} s")
    assert first == kept
    assert killed - saved < 65, "a checkpoint is saved once a minute"


def kill_and_restart(folder: Path, rng: random.Random, kills: int, longest: float) -> int:
    """Run teachers, then students, and kill up to `kills` times within `longest` seconds. Return how often."""
    killed = 0
    for words in (TEACHERS, STUDENTS):
        while True:
            with faults.Command(words, folder) as command:
                what = faults.kill_at_random(command, rng, longest) if killed < kills else ""
                killed += bool(what)
                code, err = command.wait(1_200)
                ended = time.monotonic()
                # Ray's agents wait up to a minute for the rest of Ray, if that was killed while it started.
                assert not (left := command.wait_until_gone(150)), f"an orphan stays: {left}"
                gone = f"exit {code}, all gone after {time.monotonic() - ended:.0f} s"
                print(f"kill {killed} of {kills}: {what or 'none, it has finished'}; {gone}", flush=True)
            assert "Traceback" not in err, err
            if code == 0:
                break
            assert code == -signal.SIGKILL, err
    return killed


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_random_moments_the_sweep_ends_with_the_same_table_and_the_same_finishers(
    kills: int, finished: Path, fresh: Path, sweeper: Call, tmp_path: Path
) -> None:
    """Kill the driver, its workers or both. A sweep ends after some kills; the next one starts with no trial."""
    seed = int(os.environ.get("SWEEPER_KILL_SEED") or random.randrange(10**6))
    print(f"SWEEPER_KILL_SEED={seed}")
    rng, killed, rounds, longest = random.Random(seed), 0, 0, 10.0
    if kills > 5:  # on a slow machine, too, kills are to hit training and scoring, and not the start alone
        shutil.copytree(fresh / "runs", tmp_path / "undisturbed" / "runs")
        begun = time.monotonic()
        kill_and_restart(tmp_path / "undisturbed", rng, 0, 0)
        longest = max(longest, (time.monotonic() - begun) / 2)
        print(f"an undisturbed sweep takes {longest:.0f} s")
    while killed < kills and rounds < kills:
        rounds += 1
        folder = tmp_path / f"round-{rounds}"
        if kills == 5 or rounds % 2:  # the other rounds make the data set, the classifier and the statistics, too
            shutil.copytree(fresh / "runs", folder / "runs")
        else:
            folder.mkdir()
        killed += kill_and_restart(folder, rng, kills - killed, longest)
        assert read_table(sweeper, folder) == read_table(sweeper, finished)
        for name in ("mnist5k-teachers", "mnist5k-students"):
            (after, _), (before, _) = read_sweep(folder, name), read_sweep(finished, name)
            assert after.finishers() == before.finishers()
            assert {s: t.sets() for s, t in after.strata.items()} == {s: t.sets() for s, t in before.strata.items()}
    assert killed >= kills // 2, "most commands finished before the kill"
