"""Measure the memory that ten trials on one node take for one memory-mapped array of images.

python benchmarks/sharing.py
"""

import multiprocessing
import os
import re
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from trainables.spec import TrialSpec
from trainables.training import train

TRIALS, IMAGES, SIZE = 10, 40_000, 64


def mapped_memory(path: Path) -> tuple[float, float]:
    """Return the MB of this process's mappings of a file: PSS (a page of k processes counts 1/k), and private."""
    kilobytes = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    inside = False
    for line in Path(f"/proc/{os.getpid()}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and (name := line.partition(":")[0]) in kilobytes:
            kilobytes[name] += int(line.split()[1])
    return kilobytes["Pss"] / 1024, (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1024


def trial(path: Path, seed: int, ready: Connection) -> None:
    """Train one update, read every image, wait for the other processes, and send the mapped memory."""
    pixels = np.asarray(np.load(path, mmap_mode="r"))
    spec = TrialSpec(
        role="teacher", dataset="random", d=2, channels=3, image_size=SIZE, d_discriminator=2, batch_size=8, seed=seed
    )
    list(train(spec, [1], pixels=pixels, bank=None))
    assert int(pixels.max()) == 255
    ready.send(None)
    ready.recv()
    ready.send(mapped_memory(path))
    ready.recv()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        random = np.random.default_rng(0)
        np.save(path, random.integers(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=np.uint8))
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(TRIALS)]
        children = [context.Process(target=trial, args=(path, n, pipes[n][1])) for n in range(TRIALS)]
        for child in children:
            child.start()
        parent_ends = [pipe for pipe, _ in pipes]
        for pipe in parent_ends:
            pipe.recv()
        for pipe in parent_ends:
            pipe.send(None)
        memory = [pipe.recv() for pipe in parent_ends]
        for pipe, child in zip(parent_ends, children, strict=True):
            pipe.send(None)
            child.join()
        size = path.stat().st_size / 2**20
    print("| array, MB | trials | sum of PSS, MB | sum of private, MB |\n|--:|--:|--:|--:|")
    pss, private = (sum(column) for column in zip(*memory, strict=True))
    print(f"| {size:.0f} | {TRIALS} | {pss:.0f} | {private:.1f} |")


if __name__ == "__main__":
    main()
