"""How well students follow their teacher: on the latents of the bank, on fresh ones, and elsewhere in the latent space.

python benchmarks/latent_space.py STORE [--sweep SWEEP]
"""

import argparse
import json
from pathlib import Path

import numpy as np

from sweeper.execution.generators import load_generator
from sweeper.results.comparison import Comparison
from sweeper.store import Store
from trainables.latents import latents
from trainables.rendering import render

COUNT = 2_000


def places() -> dict[str, np.ndarray]:
    """Return latents by where they lie: float32 [COUNT, 100] each."""
    fresh, other = latents("latent-space", 0, COUNT), latents("latent-space", COUNT, COUNT)
    return {
        "bank": latents("bank", 0, COUNT),
        "fresh": fresh,
        "midpoints": (fresh + other) / 2,
        "norm × 0.5": 0.5 * fresh,
        "norm × 2": 2 * fresh,
    }


def errors(comparison: Comparison) -> list[dict[str, float]]:
    """Return per student of the table its error by place: the mean squared error of pixels against the teacher's images
    of the same latents, divided by the variance of these images. 1 is the error of their mean image.
    """
    store, teacher = comparison.store, comparison.table.teacher
    assert teacher is not None
    assert comparison.distilled is not None
    generator = load_generator(store, teacher.signature, teacher.updates)
    targets = {place: render(generator, z).astype(np.float64) for place, z in places().items()}
    rows: list[dict[str, float]] = []
    for row in comparison.table.rows:
        if row.student:
            student = load_generator(store, row.student.signature, comparison.distilled.manifest.updates)
            entry: dict[str, float] = {"d": row.d}
            for place, z in places().items():
                target = targets[place]
                variance = float(np.mean((target - target.mean(axis=0)) ** 2))
                entry[place] = float(np.mean((render(student, z) - target) ** 2)) / variance
            rows.append(entry)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--sweep")
    options = parser.parse_args()
    print(json.dumps(errors(Comparison.read(Store(options.store), None, options.sweep)), indent=1))


if __name__ == "__main__":
    main()
