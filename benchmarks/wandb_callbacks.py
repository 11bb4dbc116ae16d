"""Measure how long `--wandb online` blocks the driver at a rung, for each behaviour of the server.

The stand-in for the server (tests/wandb_server.py) runs in another process. It answers, returns 500 or 429, hangs, or
is gone. After each call, writing a line to /dev/null is timed, as the noise of the machine.

python benchmarks/wandb_callbacks.py
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
from tests.sweeper.sent import store_with_samples
from tests.wandb_server import Server

CALLS = 20_000
MODES = ("ok", "500", "429", "hang", "gone")


def serve(mode: str, connection: Connection) -> None:
    """Run the server until the parent sends a message."""
    with Server() as server:
        connection.send(server.environment)
        server.fail(mode)
        connection.recv()


def measure(mode: str, folder: Path) -> tuple[list[float], list[float]]:
    """Return the seconds of each call, and of each line to /dev/null."""
    store = store_with_samples(folder / mode)
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    sweep = Sweep.read(manifest, store)
    parent, child = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(mode, child), daemon=True)
    server.start()
    os.environ.update(parent.recv())
    tracking.SECONDS_AT_THE_END = tracking.SECONDS_IF_FAILING = 1.0
    calls, noise = [], []
    with UploadWatcher(manifest.name, store, "") as watcher, open(os.devnull, "wb", buffering=0) as null:
        for number in range(CALLS):
            signature, record = list(sweep.records.items())[number % len(sweep.records)]
            begun = time.perf_counter()
            watcher.reached(sweep, Job(signature, 30), record.rungs[-1])
            between = time.perf_counter()
            os.write(null.fileno(), f"{signature}\n".encode())
            noise.append(time.perf_counter() - between)
            calls.append(between - begun)
            time.sleep(0.0005)
    parent.send("stop")
    server.join(10)
    return calls, noise


if __name__ == "__main__":
    print("| server | median, ms | longest, ms | longest line to /dev/null, ms |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            calls, noise = measure(mode, Path(folder))
            print(f"| {mode} | {1000 * median(calls):.3f} | {1000 * max(calls):.2f} | {1000 * max(noise):.2f} |")
