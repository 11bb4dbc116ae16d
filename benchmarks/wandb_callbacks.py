"""How long `--wandb online` holds the driver at a rung, whatever the server does.

The stand-in of the server (tests/wandb_server.py) runs in another process and answers, answers 500 or 429, hangs, or is
gone. Beside each call one that writes a line to /dev/null is timed: what the machine itself does to a call.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from sweeper.scheduling.sweep import Job, Sweep
from sweeper.tracking import watcher as tracking
from sweeper.tracking.watcher import UploadWatcher
from tests.sweeper.sent import pictured
from tests.wandb_server import Server

CALLS = 20_000
MODES = ("ok", "500", "429", "hang", "gone")


def serve(mode: str, line: Connection) -> None:
    with Server() as server:
        line.send(server.environment)
        server.fail(mode)
        line.recv()


def measure(mode: str, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of every call, and of every line to nowhere."""
    store = pictured(folder / mode)
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    sweep = Sweep.read(manifest, store)
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(mode, theirs), daemon=True)
    server.start()
    os.environ.update(mine.recv())
    tracking.SECONDS_AT_THE_END = tracking.SECONDS_IN_TROUBLE = 1.0
    calls, nothing = [], []
    with UploadWatcher(manifest.name, store, "") as tracked, open(os.devnull, "wb", buffering=0) as nowhere:
        for number in range(CALLS):
            signature, record = list(sweep.records.items())[number % len(sweep.records)]
            begun = time.perf_counter()
            tracked.reached(sweep, Job(signature, 30), record.rungs[-1])
            between = time.perf_counter()
            os.write(nowhere.fileno(), f"{signature}\n".encode())
            nothing.append(time.perf_counter() - between)
            calls.append(between - begun)
            time.sleep(0.0005)
    mine.send("enough")
    server.join(10)
    return calls, nothing


if __name__ == "__main__":
    print("| server | median, ms | longest, ms | longest line to /dev/null, ms |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            calls, nothing = measure(mode, Path(folder))
            print(f"| {mode} | {1000 * median(calls):.3f} | {1000 * max(calls):.2f} | {1000 * max(nothing):.2f} |")
