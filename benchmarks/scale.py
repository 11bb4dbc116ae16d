"""Measure seconds per trial and the driver's memory for 10 to 1,000 trials that do nothing, and time `sweeper status`.

python benchmarks/scale.py
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fixed_cost import SLOTS, add_sweep, run_sweeper

from sweeper.execution import tune
from sweeper.records import RungRecord
from sweeper.store import Store
from tests.sweeper import stores

SIZES = (10, 100, 1_000)
LISTED = 10_000


def time_status(folder: Path) -> float:
    """Return the seconds of `sweeper status` on a store of LISTED trials with one rung each."""
    add_sweep(Store(folder), LISTED, RungRecord(10, 1.0, {}, stores.scores(50.0, 5.0, "rung"), diverged=False))
    command = [str(Path(sys.executable).with_name("sweeper")), "status", "--store", str(folder)]
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def main() -> None:
    print("| trials | seconds | per trial | driver's memory, MB |\n|--:|--:|--:|--:|")
    with tune.session(SLOTS) as cluster, tempfile.TemporaryDirectory() as folder:
        run_sweeper(Path(folder) / "first", cluster, SLOTS)  # the first actors import torch
        for trials in SIZES:
            begun = time.monotonic()
            run_sweeper(Path(folder) / str(trials), cluster, trials)
            seconds = time.monotonic() - begun
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"| {trials:,} | {seconds:.1f} | {seconds / trials:.3f} | {memory:,.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"\n`sweeper status` on a store of {LISTED:,} trials: {time_status(Path(folder)):.2f} s")


if __name__ == "__main__":
    main()
