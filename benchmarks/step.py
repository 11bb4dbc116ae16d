"""Measure milliseconds per update of train() in turn: torch's layers and Adam, then narrow.py and Adam's kernel alone.

python benchmarks/step.py [--seconds 10] [--only mse,joint,gan]

One thread. CPU time of the thread, so that other processes count less. Medians of many turns, and minima in brackets.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trainables import descent, networks
from trainables.bank import Bank
from trainables.spec import TrialSpec
from trainables.teacher_images import TeacherImages
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
UPDATES = 30  # in a turn
OURS = networks.is_narrow, descent._is_plain_adam


def never(*arguments: Any) -> bool:
    """Replace the rules of OURS: no network is narrow, and torch's optimiser does its whole step."""
    return False


TORCH = never, never


def turns(spec: TrialSpec) -> Iterator[Rung]:
    """Return a trial on random images that yields after every turn."""
    shape = (256, spec.channels, spec.image_size, spec.image_size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    bank = Bank(None, len(pixels), TeacherImages(lambda z: pixels))
    return train(spec, range(UPDATES, 1_000_000, UPDATES), pixels=pixels, bank=bank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="per case")
    parser.add_argument("--only", default="mse,joint,gan")
    options = parser.parse_args()
    print("| loss | images | d | torch's | ours | ratio |\n|---|---|--:|--:|--:|--:|")
    for loss, size, channels, widths in CASES:
        for d in widths if loss in options.only.split(",") else ():
            spec = TrialSpec(dataset="random", d=d, image_size=size, channels=channels, **FIELDS[loss])
            trials = {TORCH: turns(spec), OURS: turns(spec)}
            times: dict[tuple[Callable[..., bool], ...], list[float]] = {rules: [] for rules in trials}
            begun = time.monotonic()
            while len(times[TORCH]) < 5 or time.monotonic() - begun < options.seconds:
                for rules, trial in trials.items():
                    networks.is_narrow, descent._is_plain_adam = rules
                    before = time.thread_time()
                    next(trial)
                    times[rules].append((time.thread_time() - before) / UPDATES * 1000)
            (theirs, their_least), (ours, our_least) = (
                (statistics.median(each[2:]), min(each[2:])) for each in (times[TORCH], times[OURS])
            )
            cells = f"{theirs:.2f} ({their_least:.2f}) | {ours:.2f} ({our_least:.2f}) | {theirs / ours:.2f}"
            print(f"| {loss} | {size}×{size}×{channels} | {d} | {cells} ({their_least / our_least:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
