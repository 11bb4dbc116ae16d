"""The simulator and a real Ray sweep of the same curves agree; a killed driver decides as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweeper.forecast.simulator import Outcome, simulate
from sweeper.results import table
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests.sweeper import replay as replays


def sets(sweep: Sweep) -> dict[str, list[list[str]]]:
    return {str(d): stratum.sets() for d, stratum in sweep.strata.items()}


def table_of(folder: Path) -> dict[str, Any]:
    store = Store(folder)
    return table.build(store, *table.find(store, "mnist5k", None))


@pytest.fixture(scope="module")
def simulated() -> Outcome:
    return simulate(replays.curves(), replays.LADDER, 3, 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, simulated: Outcome) -> Path:
    """A replay on one slot; it takes the simulator's decisions in the simulator's order."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep, order = replays.replay(folder, 1)
    assert order.jobs == [Job(trial, replays.LADDER[rung]) for trial, rung in simulated.steps]
    assert sets(sweep) == simulated.sets
    assert not order.failures
    return folder


@pytest.mark.parametrize("slots", [pytest.param(2, marks=pytest.mark.long), 8])
def test_with_more_slots_it_ends_with_the_same_sets_and_the_same_table(
    slots: int, undisturbed: Path, simulated: Outcome, tmp_path: Path
) -> None:
    sweep, order = replays.replay(tmp_path, slots)
    assert sets(sweep) == simulated.sets == simulate(replays.curves(), replays.LADDER, 3, slots).sets
    assert table_of(tmp_path) == table_of(undisturbed)
    assert not order.failures
    assert len(order.jobs) == len(set(order.jobs)) >= len(simulated.steps)


@pytest.mark.long
@pytest.mark.parametrize(("slots", "kills"), [(1, 20), (4, 20)])
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    slots: int, kills: int, undisturbed: Path, simulated: Outcome, tmp_path: Path
) -> None:
    """Each time Ray starts anew: the driver is killed while it starts, or after a few of its jobs."""
    moments, done = random.Random(slots), 0
    for _ in range(kills):
        before = reached(tmp_path)
        driver = start(tmp_path, slots)
        goal = before + moments.randint(0, len(simulated.steps) // kills)
        while driver.poll() is None and reached(tmp_path) < goal:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.2)
        if driver.poll() is None:
            done += 1
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert done >= kills // 2, "most kills came before the end"
    assert start(tmp_path, slots).wait(timeout=300) == 0
    store, manifest = replays.begin(tmp_path)
    assert sets(Sweep.read(manifest, store)) == simulated.sets
    assert table_of(tmp_path) == table_of(undisturbed)


def start(folder: Path, slots: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.sweeper.replay", str(folder), str(slots)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def reached(folder: Path) -> int:
    """Rung records in the store."""
    return sum(path.read_text().count('"diverged"') for path in folder.glob("trials/*/record.json"))
