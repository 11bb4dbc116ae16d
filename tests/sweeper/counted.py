"""The command of `sweeper`, whose trials note each update and its time: `python -c "{RUN}" run teachers …`.

A file `victim` in the store holds the id of a node. On it a trial stops in the middle, after its first rung, and waits
to be killed with its node. No other trial passes its first rung before that. While there is a file `pace`, each update
takes as many seconds as it says.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from sweeper.__main__ import main
from sweeper.execution import job as jobs
from sweeper.execution import tune

RUN = "from tests.sweeper.counted import run; run()"
NOTES, HANGING, PACE = "updates.txt", "hanging.txt", "pace"
MIDDLE = 12  # updates, between the two rungs of TINY
SECONDS = 300  # that a trial waits for its end, or for that of the victim


class Counted(tune.TrialActor):
    """Notes updates in the store."""

    def work(self) -> None:
        jobs.run(self.job, self.sweep, self.store, self.note)

    def note(self, updates: int) -> bool:
        node = tune.ray.get_runtime_context().get_node_id()  # tune is imported before ray, as in the command
        with open(self.store.root / NOTES, "a") as file:
            file.write(f"{self.job.signature} {updates} {time.time()}\n")
        if updates == MIDDLE and (victim := self.store.root / "victim").exists():
            hanging = self.store.root / HANGING
            deadline = time.monotonic() + SECONDS
            if node == victim.read_text() and not hanging.exists():
                hanging.write_text(self.job.signature)
                time.sleep(SECONDS)
            while not hanging.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        with suppress(FileNotFoundError):
            time.sleep(float((self.store.root / PACE).read_text()))
        return self.pulse(updates)


def notes(folder: Path) -> list[tuple[str, int, float]]:
    """Return (signature, updates that were done, Unix time) of each update that a trial has begun, in order."""
    lines = [line.split() for line in (folder / "runs" / NOTES).read_text().splitlines()]
    return [(signature, int(updates), float(moment)) for signature, updates, moment in lines]


def run() -> None:
    tune.TrialActor = Counted  # type: ignore[misc]
    sys.argv[0] = "sweeper"
    main()
