"""Milliseconds of both networks by d: torch's layers in both memory formats, and ours. One thread, batch 64, in turn.

python benchmarks/networks.py [--repeats 15]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from dcgan import PlainDiscriminator, PlainGenerator, initialise
from torch import nn

from trainables.networks import build, memory_format
from trainables.shapes import DiscriminatorShape, GeneratorShape

WIDTHS = (2, 4, 8, 16, 32, 64)
BATCH = 64


def kinds(plain: type, shape: GeneratorShape | DiscriminatorShape) -> list[nn.Module]:
    """torch's layers, contiguous and channels_last; ours in the format that the table chooses."""
    built = [plain(shape.d, shape.image_size, shape.channels) for _ in range(2)]
    built.append(build(shape))
    for network in built[:2]:
        initialise(network)
    formats = (torch.contiguous_format, torch.channels_last, memory_format(shape, torch.device("cpu")))
    return [network.to(memory_format=form) for network, form in zip(built, formats, strict=True)]


def image(network: nn.Module, z: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return network(z)

    return call


def gradients(network: nn.Module, *inputs: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        network.zero_grad()
        sum(network(x).square().mean() for x in inputs).backward()  # type: ignore[union-attr]
        return None

    return call


def medians(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Milliseconds of each, in turn."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for call, times in zip(calls, found, strict=True):
            begun = time.perf_counter()
            call()
            times.append((time.perf_counter() - begun) * 1000)
    return [statistics.median(times) for times in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| images | d | what | torch's layers | channels_last | ours | ratio |\n|---|--:|---|--:|--:|--:|--:|")
    for size, channels in ((32, 1), (64, 3)):
        for d in WIDTHS:
            generators = kinds(PlainGenerator, GeneratorShape("dcgan", d, size, channels))
            discriminators = kinds(PlainDiscriminator, DiscriminatorShape(d, size, channels))
            z, real, fake = torch.randn(BATCH, 100), *torch.randn(2, BATCH, channels, size, size)
            fake.requires_grad_()
            for what, calls in (
                ("generator's images", [image(network, z) for network in generators]),
                ("generator's gradients", [gradients(network, z) for network in generators]),
                ("discriminator's, of real images", [gradients(network, real) for network in discriminators]),
                ("discriminator's, down to the images", [gradients(network, fake) for network in discriminators]),
            ):
                first, second, ours = medians(calls, options.repeats)
                cells = f"{first:.1f} | {second:.1f} | {ours:.1f} | {first / ours:.2f}"
                print(f"| {size}×{size}×{channels} | {d} | {what} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
