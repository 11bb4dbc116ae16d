"""Compare the wall time of sweeps whose trials sleep with the simulator's prediction, on 1, 8 and 64 logical slots.

The store, the scheduling, Tune and the actors are real. The time counts from the start of the first job. The processes
share few cores while they start, so the trials sleep long where many slots are to be filled.

python benchmarks/replaying.py [--slots 8]
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sweeper.execution import tune  # isort: split

from sweeper.forecast.simulator import simulate
from sweeper.scheduling.sweep import Job, Sweep
from tests.sweeper import replay

SECONDS = {1: 0.5, 8: 4.0, 64: 16.0}  # slots → per update


class Clock(replay.Order):
    """Notes when the first job starts."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0.0

    def started(self, sweep: Sweep, job: Job) -> None:
        self.begun = self.begun or time.monotonic()
        super().started(sweep, job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=list(SECONDS), choices=list(SECONDS))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(replay.__file__).parents[2])  # where the workers find the actor
    print("| slots | seconds per update | trials | simulated, s | measured, s | ratio |\n|--:|--:|--:|--:|--:|--:|")
    for slots in options.slots:
        seconds = SECONDS[slots]
        curves = [dataclasses.replace(curve, seconds_per_update=seconds) for curve in replay.curves()]
        expected = simulate(curves, replay.LADDER, 3, slots)
        with tempfile.TemporaryDirectory() as folder, tune.session(slots) as cluster:
            store, manifest = replay.create(Path(folder))
            (store.root / "seconds").write_text(f"{seconds}")
            sweep, clock = Sweep.read(manifest, store), Clock()
            tune.run(sweep, store, cluster, slots, [clock], actor=replay.Sleeping)
            measured = time.monotonic() - clock.begun
        assert sweep.finished()
        ratio = measured / expected.makespan
        line = f"| {slots} | {seconds:g} | {len(curves)} | {expected.makespan:,.0f} | {measured:,.0f} | {ratio:.3f} |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
