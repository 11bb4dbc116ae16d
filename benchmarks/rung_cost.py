"""Compare the scoring at a rung with the training before it, by d: classifier features, default ladders, one thread.

python benchmarks/rung_cost.py [--updates 20] [--repeats 3]
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch

from sweeper.spaces import expand, load_space
from trainables.bank import Bank
from trainables.images import prepare
from trainables.networks import build
from trainables.rendering import render
from trainables.scores.scorer import Scorer
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec
from trainables.teacher_images import TeacherImages
from trainables.training import train

WIDTHS = (2, 4, 8, 16, 32, 64)
SPACES = ("mnist5k", "mnist")


def cheapest(name: str, role: str) -> tuple[TrialSpec, int, int]:
    """Return a trial without discriminator if the space has one, the updates to the first rung, and n at a rung."""
    space = load_space(name, role, None)
    specs = expand(space, role=role, dataset="mnist5k", channels=1, teacher="t", fixed={"image_size": 32})
    spec = min(specs, key=lambda each: each.rule.needs_discriminator)
    return spec, space.ladder()[0], space.n_rung


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = prepare("mnist5k", 32, Path(folder))
        scorer = Scorer(images, Path(folder))
        bank = Bank(
            Path(folder) / "bank", 2_048, TeacherImages(lambda z: render(build(GeneratorShape("dcgan", 4, 32, 1)), z))
        )
        print("| space | trial | d | training to the first rung, s | scoring, s | ratio |\n|---|---|--:|--:|--:|--:|")
        for space in SPACES:
            for role in ("teacher", "student"):
                spec, first, n = cheapest(space, role)
                for d in WIDTHS:
                    one = dataclasses.replace(spec, d=d, latents=2_048 if spec.latents else None)
                    training, scoring = [], []
                    for _ in range(options.repeats):
                        *_, rung = train(one, [3, 3 + options.updates], pixels=images.pixels, bank=bank)
                        training.append(rung.seconds / options.updates * first)
                        begun = time.monotonic()
                        scorer(rung.generator, "rung", n)
                        scoring.append(time.monotonic() - begun)
                    whole, score = statistics.median(training), statistics.median(scoring)
                    kind = one.loss if role == "student" else one.objective
                    print(f"| {space} | {kind} | {d} | {whole:.1f} | {score:.2f} | {score / whole:.1%} |", flush=True)


if __name__ == "__main__":
    main()
