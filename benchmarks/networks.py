"""Time both networks by d: plain torch layers in both memory formats, and sweeper's. One thread, batch 64, in turn.

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


def variants(plain: type, shape: GeneratorShape | DiscriminatorShape) -> list[nn.Module]:
    """Return plain torch layers, contiguous and channels_last, and sweeper's network in its own memory format."""
    networks = [plain(shape.d, shape.image_size, shape.channels) for _ in range(2)]
    networks.append(build(shape))
    for network in networks[:2]:
        initialise(network)
    formats = (torch.contiguous_format, torch.channels_last, memory_format(shape, torch.device("cpu")))
    return [network.to(memory_format=form) for network, form in zip(networks, formats, strict=True)]


def forward_pass(network: nn.Module, z: torch.Tensor) -> Callable[[], object]:
    """Return a function that generates images without gradients."""

    def call() -> object:
        with torch.inference_mode():
            return network(z)

    return call


def backward_pass(network: nn.Module, *inputs: torch.Tensor) -> Callable[[], object]:
    """Return a function that runs forward and backward, down to the inputs if they require gradients."""

    def call() -> object:
        network.zero_grad()
        sum(network(x).square().mean() for x in inputs).backward()  # type: ignore[union-attr]
        return None

    return call


def medians(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median milliseconds of each call. The calls run in turn."""
    milliseconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for call, times in zip(calls, milliseconds, strict=True):
            begun = time.perf_counter()
            call()
            times.append((time.perf_counter() - begun) * 1000)
    return [statistics.median(times) for times in milliseconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| images | d | pass | torch's layers | channels_last | sweeper | ratio |\n|---|--:|---|--:|--:|--:|--:|")
    for size, channels in ((32, 1), (64, 3)):
        for d in WIDTHS:
            generators = variants(PlainGenerator, GeneratorShape("dcgan", d, size, channels))
            discriminators = variants(PlainDiscriminator, DiscriminatorShape(d, size, channels))
            z, real, fake = torch.randn(BATCH, 100), *torch.randn(2, BATCH, channels, size, size)
            fake.requires_grad_()
            for name, calls in (
                ("generator, forward", [forward_pass(network, z) for network in generators]),
                ("generator, forward and backward", [backward_pass(network, z) for network in generators]),
                ("discriminator, forward and backward", [backward_pass(network, real) for network in discriminators]),
                ("discriminator, backward to the images", [backward_pass(network, fake) for network in discriminators]),
            ):
                first, second, ours = medians(calls, options.repeats)
                cells = f"{first:.1f} | {second:.1f} | {ours:.1f} | {first / ours:.2f}"
                print(f"| {size}×{size}×{channels} | {d} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
