"""Shapes of networks, with their parameters and multiply-accumulates. Needs no torch.

To add a family of generators, write one function under `@family`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

from trainables.registry import Registry

if TYPE_CHECKING:
    from torch import nn

DEFAULT_FAMILY = "dcgan"  # the paper's
LATENT_SIZE = 100  # the paper's
LATENT_LAWS = ("normal", "uniform", "truncated")


@dataclass(frozen=True)
class LatentLaw:
    """How latents are drawn: independent numbers, by default the paper's 100 standard normal ones."""

    size: int = LATENT_SIZE
    name: str = "normal"  # normal; uniform in [-1, 1]; truncated: standard normal, within [-bound, bound]
    bound: float | None = None

    def __str__(self) -> str:
        """Return a description: `100 numbers, standard normal`."""
        kind = "uniform in [-1, 1]" if self.name == "uniform" else "standard normal"
        return f"{self.size} numbers, {kind}{'' if self.bound is None else f' within ±{self.bound:g}'}"


@dataclass(frozen=True, order=True)
class GeneratorShape:
    """A generator: z [N, latent_size] → images [N, channels, image_size, image_size] in [-1, 1]."""

    family: str  # a name in FAMILIES
    d: int  # the width, the paper's depth scale factor
    image_size: int
    channels: int
    latent_size: int = LATENT_SIZE

    @property
    def parameters(self) -> int:
        return FAMILIES[self.family].parameters(self)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return FAMILIES[self.family].macs(self)

    @property
    def saved(self) -> int:
        """Numbers per image that the forward pass saves for the backward pass, without weights.

        Exact for the paper's family: each hidden map before and after its normalisation, and the image.
        """
        return 2 * sum(_map_sizes(self.d, self.image_size)) + self.channels * self.image_size**2

    @property
    def label(self) -> str:
        return label(self.family, self.d)


@dataclass(frozen=True, order=True)
class DiscriminatorShape:
    """A discriminator: images [N, channels, image_size, image_size] in [-1, 1] → logits [N]."""

    d: int
    image_size: int
    channels: int

    @property
    def parameters(self) -> int:
        widths = [self.channels, *reversed(hidden_widths(self.d, self.image_size))]
        return sum(16 * a * b + b for a, b in pairwise(widths)) + 16 * widths[-1] + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image, counted as those of a generator of this width: its layers are mirrored."""
        return _dcgan_macs(GeneratorShape(DEFAULT_FAMILY, self.d, self.image_size, self.channels))

    @property
    def saved(self) -> int:
        """Numbers per image that the forward pass saves for the backward pass. The first map is not normalised."""
        maps = _map_sizes(self.d, self.image_size)
        return 2 * sum(maps) - maps[-1] + self.channels * self.image_size**2


def label(family: str, d: int) -> str:
    """Return a readable size: `d=8`, or `residual d=8` for a family other than the paper's."""
    return f"d={d}" if family == DEFAULT_FAMILY else f"{family} d={d}"


def hidden_widths(d: int, image_size: int) -> list[int]:
    """Return the channels of the hidden layers, from the 4×4 map on: 8d, 4d, 2d, d at 64×64; 4d, 2d, d at 32×32.

    Each doubling of the image size adds a layer. image_size: a power of two of at least 16.
    """
    return [d * 2**depth for depth in reversed(range(image_size.bit_length() - 3))]


Build = Callable[[GeneratorShape, int], "nn.Module"]
Count = Callable[[GeneratorShape], int]


def _map_sizes(d: int, image_size: int) -> list[int]:
    """Return the numbers in each hidden map of one image, from the 4×4 map outwards."""
    return [width * (4 * 2**k) ** 2 for k, width in enumerate(hidden_widths(d, image_size))]


@dataclass(frozen=True)
class Family:
    """A kind of generator: how it is built, its parameters and its multiply-accumulates."""

    builder: Build | str  # (shape, seed) → generator, or its MODULE:NAME, imported on the first build
    parameters: Count
    macs: Count

    def build(self, shape: GeneratorShape, seed: int) -> nn.Module:
        if not isinstance(self.builder, str):
            return self.builder(shape, seed)
        module, _, name = self.builder.partition(":")
        generator: nn.Module = getattr(import_module(module), name)(shape, seed)
        return generator


FAMILIES: Registry[Family] = Registry("generator family")


def family(*, parameters: Count, macs: Count) -> Callable[[Build], Build]:
    """Register a function (shape, seed) → generator under its name.

    torch's global random state is seeded with `seed` before the call, so that torch's default initialisation is
    reproducible. parameters: number of parameters of a shape. macs: its multiply-accumulates per image.
    """

    def register(build: Build) -> Build:
        FAMILIES[build.__name__] = Family(build, parameters, macs)
        return build

    return register


def _dcgan_parameters(shape: GeneratorShape) -> int:
    """Return 672·d² + 12,831·d + 1 at 64×64 and one channel (paper, Table 1); 160·d² + 6,423·d + 1 at 32×32."""
    widths = [shape.latent_size, *hidden_widths(shape.d, shape.image_size)]
    hidden = sum(16 * a * b + b for a, b in pairwise(widths))
    return hidden + 16 * widths[-1] * shape.channels + shape.channels


def _dcgan_macs(shape: GeneratorShape) -> int:
    # Each weight is used once per position of its layer's input.
    widths = [shape.latent_size, *hidden_widths(shape.d, shape.image_size), shape.channels]
    sides = [1, *(4 * 2**k for k in range(len(widths) - 2))]
    return sum(16 * a * b * side * side for a, b, side in zip(widths, widths[1:], sides, strict=False))


def _residual_parameters(shape: GeneratorShape) -> int:
    widths = hidden_widths(shape.d, shape.image_size)
    first = 16 * shape.latent_size * widths[0] + widths[0]
    blocks = sum(9 * a * b + b + 9 * b * b + b + a * b for a, b in pairwise(widths))
    return first + blocks + 9 * widths[-1] * shape.channels + shape.channels


def _residual_macs(shape: GeneratorShape) -> int:
    widths = hidden_widths(shape.d, shape.image_size)
    # A block's 3×3 convolutions are computed after its upsampling, its 1×1 convolution before it.
    blocks = sum(
        (9 * a * b + 9 * b * b) * (2 * side) ** 2 + a * b * side**2
        for (a, b), side in zip(pairwise(widths), _sides(widths), strict=False)
    )
    last = 9 * widths[-1] * shape.channels * shape.image_size**2
    return 16 * shape.latent_size * widths[0] + blocks + last


def _separable_parameters(shape: GeneratorShape) -> int:
    widths = hidden_widths(shape.d, shape.image_size)
    first = shape.latent_size * widths[0] + 16 * widths[0] + widths[0]
    blocks = sum(a * b + b + 9 * b + b for a, b in pairwise(widths))
    return first + blocks + 9 * widths[-1] * shape.channels + shape.channels


def _separable_macs(shape: GeneratorShape) -> int:
    widths = hidden_widths(shape.d, shape.image_size)
    blocks = sum(
        a * b * side**2 + 9 * b * (2 * side) ** 2
        for (a, b), side in zip(pairwise(widths), _sides(widths), strict=False)
    )
    last = 9 * widths[-1] * shape.channels * shape.image_size**2
    return shape.latent_size * widths[0] + blocks + last


def _sides(widths: list[int]) -> list[int]:
    """Return the side of each hidden map in pixels."""
    return [4 * 2**depth for depth in range(len(widths))]


FAMILIES[DEFAULT_FAMILY] = Family("trainables.networks:DCGANGenerator", _dcgan_parameters, _dcgan_macs)
FAMILIES["residual"] = Family("trainables.families:ResidualGenerator", _residual_parameters, _residual_macs)
FAMILIES["separable"] = Family("trainables.families:SeparableGenerator", _separable_parameters, _separable_macs)
