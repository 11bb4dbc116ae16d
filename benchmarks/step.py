"""Measure milliseconds per update, by d and loss: medians over repeats in turn.

python benchmarks/step.py [--repeats 5] [--updates 20]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from trainables.bank import Bank
from trainables.images import prepare
from trainables.networks import build
from trainables.rendering import render
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec
from trainables.training import train

LOSSES = {
    "gan": {"role": "teacher", "d_discriminator": 8},
    "mse": {"role": "student", "loss": "mse", "teacher": "t", "latents": 256},
    "joint": {"role": "student", "loss": "joint", "alpha": 0.02, "d_discriminator": 8, "teacher": "t", "latents": 256},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pixels = prepare("mnist5k", 32, Path(folder)).pixels
        bank = Bank(Path(folder) / "bank", 256, lambda z: render(build(GeneratorShape("dcgan", 4, 32, 1)), z))
        print("| d | " + " | ".join(LOSSES) + " |\n|--:|" + "--:|" * len(LOSSES))
        for d in (2, 4, 8, 16):
            seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
            for _ in range(options.repeats):
                for name, fields in LOSSES.items():
                    spec = TrialSpec(**{"dataset": "mnist5k", "d": d, "channels": 1, **fields})  # type: ignore[arg-type]
                    *_, last = train(spec, [3, 3 + options.updates], pixels=pixels, bank=bank)
                    seconds[name].append(last.seconds / options.updates)
            cells = " | ".join(f"{statistics.median(seconds[name]) * 1000:.1f}" for name in LOSSES)
            print(f"| {d} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
