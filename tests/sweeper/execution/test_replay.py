"""The simulator agrees with a real Ray sweep of the same curves, also if the driver is killed and restarted."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper.forecast.simulator import Outcome, simulate
from sweeper.results.comparison import Comparison
from sweeper.results.table import Table
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests import faults
from tests.sweeper import replay as replays


def sets(sweep: Sweep) -> dict[str, list[list[str]]]:
    return {str(shape.d): stratum.sets() for shape, stratum in sweep.strata.items()}


def table_of(folder: Path) -> Table:
    return Comparison.read(Store(folder), "mnist5k", None).table


@pytest.fixture(scope="module")
def simulated() -> Outcome:
    return simulate(replays.curves(), replays.LADDER, 3, 1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, simulated: Outcome) -> Path:
    """Run a replay on one slot. It makes the simulator's decisions in the simulator's order."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    sweep, order = replays.replay(folder, 1)
    assert order.jobs == [Job(trial, replays.LADDER[rung]) for trial, rung in simulated.steps]
    assert sets(sweep) == simulated.sets
    assert not order.failures
    return folder


@pytest.mark.long
@pytest.mark.parametrize("slots", [2, 8])
def test_more_slots_give_the_same_sets_and_the_same_table(
    slots: int, uninterrupted: Path, simulated: Outcome, tmp_path: Path
) -> None:
    sweep, order = replays.replay(tmp_path, slots)
    assert sets(sweep) == simulated.sets == simulate(replays.curves(), replays.LADDER, 3, slots).sets
    assert table_of(tmp_path) == table_of(uninterrupted)
    assert not order.failures
    assert len(order.jobs) == len(set(order.jobs)) >= len(simulated.steps)


@pytest.mark.long
@pytest.mark.parametrize(("slots", "kills"), [(1, 20), (4, 20)])
def test_a_sweep_killed_at_random_moments_gives_the_same_sets_and_the_same_table(
    slots: int, kills: int, uninterrupted: Path, simulated: Outcome, tmp_path: Path
) -> None:
    """Each driver starts its own Ray. It is killed while it starts, or after a few jobs."""
    rng, killed = random.Random(slots), 0
    for _ in range(kills):
        records = count_records(tmp_path)
        driver = start(tmp_path, slots)
        goal = records + rng.randint(0, len(simulated.steps) // kills)
        while driver.poll() is None and count_records(tmp_path) < goal:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        if driver.poll() is None:
            killed += 1
            faults.kill(driver, group=True)
        driver.wait()
    assert killed >= kills // 2, "most drivers finished before the kill"
    assert start(tmp_path, slots).wait(timeout=300) == 0
    store, manifest = replays.create(tmp_path)
    assert sets(Sweep.read(manifest, store)) == simulated.sets
    assert table_of(tmp_path) == table_of(uninterrupted)


def start(folder: Path, slots: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.sweeper.replay", str(folder), str(slots)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count_records(folder: Path) -> int:
    """Return the number of rung records in the store."""
    return sum(path.read_text().count('"diverged"') for path in folder.glob("trials/*/record.json"))
