"""The networks of `trainables.networks` from plain torch layers: the same parameters under the same names."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainables.shapes import LATENT_SIZE, hidden_widths


class NormBias(nn.Module):
    """BatchNorm without affine part, then a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.bias


class PlainGenerator(nn.Sequential):
    """z [N, 100] → images [N, channels, image_size, image_size] in [-1, 1]."""

    def __init__(self, d: int, image_size: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for depth, (previous, width) in enumerate(pairwise([LATENT_SIZE, *hidden_widths(d, image_size)])):
            stride, padding = (1, 0) if depth == 0 else (2, 1)
            layers.append(nn.ConvTranspose2d(previous, width, 4, stride, padding, bias=False))
            layers += [NormBias(width), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[:, :, None, None])


class PlainDiscriminator(nn.Sequential):
    """Images [N, channels, image_size, image_size] in [-1, 1] → logits [N]."""

    def __init__(self, d: int, image_size: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for depth, (previous, width) in enumerate(pairwise([channels, *reversed(hidden_widths(d, image_size))])):
            layers.append(nn.Conv2d(previous, width, 4, 2, 1, bias=depth == 0))
            if depth > 0:
                layers.append(NormBias(width))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        super().__init__(*layers, nn.Conv2d(width, 1, 4, 1, 0), nn.Flatten(0))


def initialise(network: nn.Module) -> None:
    """Initialise as DCGAN: weights from N(0, 0.02), biases 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, 0.0, 0.02)
        else:
            nn.init.zeros_(parameter)
