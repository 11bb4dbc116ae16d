"""Two hosts and one store: one of them trains, and the other one takes over once the first is silent.

The other host has another name and another network, on the same kernel.
"""

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.store import Store
from tests import faults
from tests.conftest import TEACHERS, Done
from tests.sweeper import counted
from tests.sweeper.test_run import read_sweep

Call = Callable[..., Done]


def results(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the finishers of the teachers, and the scores of all trials without times."""
    sweep, manifest = read_sweep(folder, "mnist5k-teachers")
    records = {signature: Store(folder / "runs").require(signature) for signature in manifest.signatures}
    rungs = {s: [dataclasses.replace(r, seconds=0.0) for r in record.rungs] for s, record in records.items()}
    return sweep.finishers(), {s: (rungs[s], record.finals) for s, record in records.items()}


def trained(folder: Path) -> bool:
    """Return whether a trial has reached a rung."""
    return any('"fid"' in path.read_text() for path in folder.glob("runs/trials/*/record.json"))


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["suspended", "killed"])
def test_a_second_host_is_refused_while_the_first_trains_and_takes_over_after_that(
    how: signal.Signals, finished: Path, fresh: Path, sweeper: Call
) -> None:
    faults.require_another_host()
    pace = fresh / "runs" / counted.PACE
    pace.write_text("1")
    slow = [sys.executable, "-c", counted.RUN]
    with faults.Command(TEACHERS, fresh, prefix=faults.ELSEWHERE, program=slow) as first:
        assert first.wait_until(lambda: trained(fresh))
        refused = sweeper(*TEACHERS, cwd=fresh)
        assert refused.code == 2
        driver = f"process {first.process.pid} on elsewhere"
        looking, message = refused.err.splitlines()
        assert f"looking for a sign of life of {driver}, for 35 s" in looking
        assert f"is in use by {driver}; wait for it, or use another --store" in message

        everything = first.processes()
        for process in everything:
            faults.with_suppressed(process.suspend if how == signal.SIGSTOP else process.kill)
        pace.unlink()
        if how == signal.SIGKILL:
            first.wait()
        with faults.Command(TEACHERS, fresh) as second:
            claim = fresh / "runs" / "driver.claim"
            assert second.wait_until(lambda: f"pid={second.process.pid}\n" in claim.read_text(), seconds=60)
            if how == signal.SIGSTOP:
                for process in everything:
                    faults.with_suppressed(process.resume)
                begun = time.monotonic()
                code, err = first.wait(60)
                assert code == 2, err
                lost = [line for line in err.splitlines() if "has lost" in line]
                assert f"process {second.process.pid} on" in lost[-1], err
                assert "nothing more is written" in lost[-1]
                assert "Traceback" not in err
                assert time.monotonic() - begun < 30
                assert not first.wait_until_gone(10)
            code, err = second.wait()
            assert code == 0, err
        assert not first.wait_until_gone(0)
    assert results(fresh) == results(finished)
