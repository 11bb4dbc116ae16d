"""Families of generators beside the paper's DCGAN, with counts in trainables.shapes.

Widths are those of a DCGAN of the same d: 4d, 2d, d at 32×32. Initial weights are torch's defaults.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainables.networks import NormBias, Projection
from trainables.shapes import GeneratorShape, hidden_widths


class _Block(nn.Module):
    """Double the side of a map, and change its width: two 3×3 convolutions, with a 1×1 convolution around them."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(width, next_width, 1, bias=False)
        self.first = nn.Conv2d(width, next_width, 3, padding=1, bias=False)
        self.first_norm = NormBias(next_width)
        self.second = nn.Conv2d(next_width, next_width, 3, padding=1, bias=False)
        self.second_norm = NormBias(next_width)

    def forward(self, x: Tensor) -> Tensor:
        around = _upsampled(self.shortcut(x))
        inner = self.second(self.first_norm(self.first(_upsampled(x))).relu_())
        summed: Tensor = self.second_norm(inner + around)
        return summed.relu_()


class ResidualGenerator(nn.Sequential):
    """Map z [N, latent_size] to images [N, channels, image_size, image_size] in [-1, 1] by residual blocks.

    Nearest upsampling and 3×3 convolutions, as in the generators of SNGAN (arXiv 1802.05957).
    """

    def __init__(self, shape: GeneratorShape, seed: int) -> None:
        widths = hidden_widths(shape.d, shape.image_size)
        super().__init__(
            Projection(shape.latent_size, widths[0]),
            NormBias(widths[0]),
            nn.ReLU(inplace=True),
            *(_Block(width, next_width) for width, next_width in pairwise(widths)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(widths[-1], shape.channels, 3, padding=1),
            nn.Tanh(),
        )


class _SeparableProjection(nn.Module):
    """Map z [N, latent_size] to the first map [N, width, 4, 4]: a value per channel, times the channel's 4×4 map."""

    def __init__(self, latent_size: int, width: int) -> None:
        super().__init__()
        self.values = nn.Linear(latent_size, width, bias=False)
        self.maps = nn.Parameter(torch.randn(width, 4, 4))

    def forward(self, z: Tensor) -> Tensor:
        first: Tensor = self.values(z)[:, :, None, None] * self.maps
        return first


class SeparableGenerator(nn.Sequential):
    """Map z [N, latent_size] to images [N, channels, image_size, image_size] in [-1, 1] by separable layers.

    A layer is a 1×1 convolution, nearest upsampling, and a 3×3 convolution of each channel alone, as in MobileNet
    (arXiv 1704.04861). The first layer separates channel and position, too: in a small DCGAN it has most of the
    parameters.
    """

    def __init__(self, shape: GeneratorShape, seed: int) -> None:
        widths = hidden_widths(shape.d, shape.image_size)
        layers: list[nn.Module] = [_SeparableProjection(shape.latent_size, widths[0]), NormBias(widths[0])]
        for width, next_width in pairwise(widths):
            layers += [
                nn.ReLU(inplace=True),
                nn.Conv2d(width, next_width, 1, bias=False),
                NormBias(next_width),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(next_width, next_width, 3, padding=1, groups=next_width, bias=False),
                NormBias(next_width),
            ]
        super().__init__(
            *layers,
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(widths[-1], shape.channels, 3, padding=1),
            nn.Tanh(),
        )


def _upsampled(x: Tensor) -> Tensor:
    doubled: Tensor = interpolate(x, scale_factor=2)
    return doubled
