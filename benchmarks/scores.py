"""Compare scores with pytorch-fid on the same input, in turn. Print the tables of docs/scores.md.

python benchmarks/scores.py frechet      # the Fréchet step alone, 2048-d
python benchmarks/scores.py inception    # images per second through Inception
python benchmarks/scores.py memory       # peak memory by n
python benchmarks/scores.py parity       # FID of folders of PNGs, by both command lines; about half an hour

Inception has seeded random weights, in a file where pytorch-fid looks for it: the programs are compared, not images.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_fid import inception as reference
from pytorch_fid.fid_score import calculate_frechet_distance

from trainables.images import prepare
from trainables.scores.features import Activations
from trainables.scores.fid import Moments, RealStatistics, fid_of_features, fid_of_moments
from trainables.scores.inception import Inception, inception_weights
from trainables.scores.tally import Reference, Tally


def frechet(repeats: int) -> None:
    """Time the Fréchet distance to real statistics of 20,000 samples. Their matrix root is cached, as in a sweep."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((2048, 2048)) / 2048**0.5

    def draw(n: int, shift: float) -> np.ndarray:
        return np.maximum(generator.standard_normal((n, 2048)) @ mixing + shift, 0)

    moments = Moments(2048).add(draw(20_000, 0.0))
    real = RealStatistics.of(moments)
    print("| n | pytorch-fid, s | sweeper, s | ratio | relative difference |\n|--:|--:|--:|--:|--:|")
    for n in (1_000, 5_000):
        features = draw(n, 0.1)
        mean, covariance = features.mean(0), np.cov(features, rowvar=False)

        def theirs(mean: np.ndarray = mean, covariance: np.ndarray = covariance) -> float:
            return float(calculate_frechet_distance(mean, covariance, real.mean, real.covariance))

        def ours(
            features: np.ndarray = features, mean: np.ndarray = mean, covariance: np.ndarray = covariance
        ) -> float:
            if len(features) <= 2048:
                return fid_of_features(features, real)
            return fid_of_moments(mean, covariance, real)

        (slow, expected), (fast, distance) = in_turn(theirs, ours, repeats)
        difference = abs(distance - expected) / expected
        print(f"| {n:,} | {slow:.2f} | {fast:.3f} | {slow / fast:.0f}× | {difference:.1e} |", flush=True)


def inception(repeats: int) -> None:
    """Time the whole network on 100 digits of 32×32, in batches of 50, pytorch-fid's default."""
    with tempfile.TemporaryDirectory() as folder:
        random_weights(Path(folder))
        pixels = prepare("mnist5k", 32, Path(folder)).pixels[:100].repeat(3, axis=1)
        network, features = reference.InceptionV3([3]).eval(), Inception()

        def theirs() -> float:
            with torch.no_grad():
                for start in range(0, len(pixels), 50):
                    network(torch.tensor(pixels[start : start + 50]).float() / 255)
            return 0.0

        def ours() -> float:
            features(pixels)
            return 0.0

        (slow, _), (fast, _) = in_turn(theirs, ours, repeats)
    print("| | images per second |\n|---|--:|")
    print(
        f"| pytorch-fid | {len(pixels) / slow:.2f} |\n| sweeper | {len(pixels) / fast:.2f} |\n"
        f"| ratio | {slow / fast:.2f}× |"
    )


class Pooled:
    """2048 features of negligible cost, so that memory that grows with n belongs to the scores."""

    name, dims, preprocessing = "pooled", 2048, "none"

    def __call__(self, images: np.ndarray) -> Activations:
        return Activations({2048: images.reshape(len(images), -1)[:, :2048].astype(np.float32)})


def memory(n: int | None) -> None:
    """Print the peak memory in MB of a process that scores n images. Without n, run a process for each of several n."""
    if n is not None:
        tally = Tally(Pooled(), n)
        for start in range(0, n, 1_000):
            generator = np.random.default_rng(start)
            tally.add(generator.integers(0, 256, (min(1_000, n - start), 3, 32, 32), dtype=np.uint8))
        tally.fid(Reference.of(tally), 2048)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    print("| n | peak memory, MB |\n|--:|--:|")
    for count in (12_500, 25_000, 50_000, 100_000):
        command = [sys.executable, __file__, "memory", "--n", str(count)]
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {count:,} | {completed.stdout.strip()} |", flush=True)


def parity() -> None:
    """Print the FID of digits against inverted digits, with more images than dimensions."""
    scripts = Path(sys.executable).parent
    print("| dimensions | n | pytorch-fid | sweeper score | relative difference |\n|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        random_weights(root)
        pixels = prepare("mnist5k", 32, root).pixels
        for dims, n in ((64, 300), (192, 300), (768, 850), (2048, 2_100)):
            for name, start in (("a", 0), ("b", 1)):
                (root / f"{name}{dims}").mkdir()
                for number in range(n):
                    picture = Image.fromarray(pixels[(2 * number + start) % 5_000, 0])
                    if name == "b":
                        picture = ImageOps.invert(picture)
                    picture.save(root / f"{name}{dims}" / f"{number:05}.png")
            pair = [str(root / f"a{dims}"), str(root / f"b{dims}")]
            # pytorch-fid prints the whole float.
            theirs = run([sys.executable, "-m", "pytorch_fid", *pair, "--dims", str(dims), "--num-workers", "0"])
            expected = float(theirs.split("FID:")[-1])
            ours = run([str(scripts / "sweeper"), "score", pair[0], "--against", pair[1], "--features", "inception",
                        "--dims", str(dims), "--json", "--store", str(root / "store")])  # fmt: skip
            fid = float(json.loads(ours)["fid"]["mean"])
            print(f"| {dims} | {n:,} | {expected} | {fid} | {abs(fid - expected) / abs(expected):.1e} |", flush=True)


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout


def random_weights(folder: Path) -> None:
    """Save pytorch-fid's network with seeded random weights where this and child processes look for it.

    Its normalisations have the statistics of one batch of digits, so that activations are of order 1 in every layer, as
    in a trained network.
    """
    os.environ["TORCH_HOME"] = str(folder / "torch")
    inception_weights().parent.mkdir(parents=True)
    torch.manual_seed(0)
    with (
        patch.object(reference, "load_state_dict_from_url", return_value={}),
        patch.object(torch.nn.Module, "load_state_dict"),
    ):
        network = reference.fid_inception_v3()
    with patch.object(reference, "fid_inception_v3", return_value=network):
        layers = reference.InceptionV3([3]).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    pixels = prepare("mnist5k", 32, folder).pixels[::300].repeat(3, axis=1)
    layers(torch.from_numpy(pixels).float() / 255)
    torch.save(network.state_dict(), inception_weights())


def in_turn(
    first: Callable[[], float], second: Callable[[], float], repeats: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (median seconds, result) of each function. They run in turn, A B A B …"""
    seconds: tuple[list[float], list[float]] = ([], [])
    results = [0.0, 0.0]
    for _ in range(repeats):
        for index, function in enumerate((first, second)):
            begun = time.perf_counter()
            results[index] = function()
            seconds[index].append(time.perf_counter() - begun)
    return (statistics.median(seconds[0]), results[0]), (statistics.median(seconds[1]), results[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["frechet", "inception", "memory", "parity"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "frechet":
        frechet(options.repeats)
    elif options.what == "inception":
        inception(options.repeats)
    elif options.what == "memory":
        memory(options.n)
    else:
        parity()


if __name__ == "__main__":
    main()
