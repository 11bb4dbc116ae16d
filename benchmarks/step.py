"""Measure milliseconds per update of train(): torch's layers and narrow.py in turn, on one thread.

python benchmarks/step.py [--seconds 10] [--only mse,joint,gan]

CPU time of the thread, so that other processes count less. Medians of many turns, and minima in brackets.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainables import networks
from trainables.bank import Bank
from trainables.spec import TrialSpec
from trainables.training import Rung, train

FIELDS: dict[str, dict[str, Any]] = {
    "mse": {"role": "student", "loss": "mse", "teacher": "t", "latents": 256},
    "joint": {"role": "student", "loss": "joint", "alpha": 0.02, "d_discriminator": 8, "teacher": "t", "latents": 256},
    "gan": {"role": "teacher", "d_discriminator": 8},
}
# Loss, image size, channels, widths.
CASES = [
    ("mse", 32, 1, (2, 4, 6, 8, 16)),
    ("joint", 32, 1, (2, 4, 8)),
    ("gan", 32, 1, (2, 4, 8)),
    ("mse", 64, 1, (2, 4)),
    ("mse", 64, 3, (2, 4)),
]
UPDATES = 10  # in a turn
NARROW: Callable[..., bool] = networks.is_narrow


def plain(*arguments: Any) -> bool:
    """Replace networks.is_narrow: no network is narrow."""
    return False


def turns(spec: TrialSpec) -> Iterator[Rung]:
    """Return a trial on random images that yields after every turn."""
    shape = (256, spec.channels, spec.image_size, spec.image_size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    bank = Bank(Path(os.devnull), len(pixels), lambda z: pixels)  # not a folder, so that the bank stays in memory
    return train(spec, range(UPDATES, 1_000_000, UPDATES), pixels=pixels, bank=bank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="per case")
    parser.add_argument("--only", default="mse,joint,gan")
    options = parser.parse_args()
    print("| loss | images | d | torch's layers | narrow.py | ratio |\n|---|---|--:|--:|--:|--:|")
    for loss, size, channels, widths in CASES:
        for d in widths if loss in options.only.split(",") else ():
            spec = TrialSpec(dataset="random", d=d, image_size=size, channels=channels, **FIELDS[loss])
            trials = {plain: turns(spec), NARROW: turns(spec)}
            times: dict[Callable[..., bool], list[float]] = {rule: [] for rule in trials}
            begun = time.monotonic()
            while len(times[plain]) < 5 or time.monotonic() - begun < options.seconds:
                for rule, trial in trials.items():
                    networks.is_narrow = rule
                    before = time.thread_time()
                    next(trial)
                    times[rule].append((time.thread_time() - before) / UPDATES * 1000)
            (theirs, their_least), (ours, our_least) = (
                (statistics.median(each[2:]), min(each[2:])) for each in (times[plain], times[NARROW])
            )
            cells = f"{theirs:.2f} ({their_least:.2f}) | {ours:.2f} ({our_least:.2f}) | {theirs / ours:.2f}"
            print(f"| {loss} | {size}×{size}×{channels} | {d} | {cells} ({their_least / our_least:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
