"""The arithmetic of the networks: widths, parameters, multiply-accumulates. Needs no torch."""

from itertools import pairwise

from trainables.latents import LATENT_SIZE


def hidden_widths(d: int, image_size: int) -> list[int]:
    """Channels of the hidden layers from the 4×4 map outwards: 8d, 4d, 2d, d at 64×64; 4d, 2d, d at 32×32."""
    return {64: [8 * d, 4 * d, 2 * d, d], 32: [4 * d, 2 * d, d]}[image_size]


def generator_parameters(d: int, image_size: int, channels: int) -> int:
    """672·d² + 12,831·d + 1 at 64×64 and one channel (paper, Table 1); 160·d² + 6,423·d + 1 at 32×32."""
    widths = [LATENT_SIZE, *hidden_widths(d, image_size)]
    hidden = sum(16 * a * b + b for a, b in pairwise(widths))
    return hidden + 16 * widths[-1] * channels + channels


def discriminator_parameters(d: int, image_size: int, channels: int) -> int:
    widths = [channels, *reversed(hidden_widths(d, image_size))]
    return sum(16 * a * b + b for a, b in pairwise(widths)) + 16 * widths[-1] + 1


def resident_bytes(data: int, device: float) -> int:
    """Bytes of a set of real images that live on a GPU of so many: all of it up to a quarter of the card, or none."""
    return data if 4 * data <= device else 0


def generator_macs(d: int, image_size: int, channels: int) -> int:
    """Multiply-accumulates of one image: each weight is used once per position of its layer's input.

    A discriminator of the same width costs the same but for the layer at the latent.
    """
    widths = [LATENT_SIZE, *hidden_widths(d, image_size), channels]
    sides = [1, *(4 * 2**k for k in range(len(widths) - 2))]
    return sum(16 * a * b * side * side for a, b, side in zip(widths, widths[1:], sides, strict=False))
