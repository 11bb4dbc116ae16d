"""Build networks of the paper's family."""

from torch import nn

from trainables.networks import build
from trainables.shapes import DiscriminatorShape, GeneratorShape


def shape(d: int, image_size: int = 32, channels: int = 1) -> GeneratorShape:
    return GeneratorShape("dcgan", d, image_size, channels)


def generator(d: int, image_size: int = 32, channels: int = 1, seed: int = 0) -> nn.Module:
    return build(shape(d, image_size, channels), seed)


def discriminator(d: int, image_size: int = 32, channels: int = 1, seed: int = 0) -> nn.Module:
    return build(DiscriminatorShape(d, image_size, channels), seed)
