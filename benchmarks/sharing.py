"""Ten trials on one node map one array: the memory that each adds for the images, as the kernel counts it.

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


def proportional(path: Path) -> tuple[float, float]:
    """MB of this process's mappings of a file: (PSS, in which a page that k processes map counts 1/k; private)."""
    found = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    inside = False
    for line in Path(f"/proc/{os.getpid()}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and (name := line.partition(":")[0]) in found:
            found[name] += int(line.split()[1])
    return found["Pss"] / 1024, (found["Private_Clean"] + found["Private_Dirty"]) / 1024


def trial(path: Path, seed: int, ready: Connection) -> None:
    """Train an update, read every image once, as an epoch does, wait until all have, and count."""
    pixels = np.asarray(np.load(path, mmap_mode="r"))
    spec = TrialSpec(
        role="teacher", dataset="random", d=2, channels=3, image_size=SIZE, d_discriminator=2, batch_size=8, seed=seed
    )
    list(train(spec, [1], pixels=pixels, bank=None))
    assert int(pixels.max()) == 255
    ready.send(None)
    ready.recv()
    ready.send(proportional(path))
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
        ours = [pipe for pipe, _ in pipes]
        for pipe in ours:
            pipe.recv()
        for pipe in ours:
            pipe.send(None)
        found = [pipe.recv() for pipe in ours]
        for pipe, child in zip(ours, children, strict=True):
            pipe.send(None)
            child.join()
        size = path.stat().st_size / 2**20
    print("| the array, MB | trials | PSS of all, MB | private of all, MB |\n|--:|--:|--:|--:|")
    print(f"| {size:.0f} | {TRIALS} | {sum(pss for pss, _ in found):.0f} | {sum(own for _, own in found):.1f} |")


if __name__ == "__main__":
    main()
