"""Build networks from shapes. The DCGAN of width d has the parameter counts of the paper's Table 1."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.utils import _python_dispatch

from trainables import narrow
from trainables.narrow_layers import RunningStatistics
from trainables.shapes import DEFAULT_FAMILY, FAMILIES, DiscriminatorShape, GeneratorShape, hidden_widths


class _Layers(nn.Sequential):
    """A sequence of layers. A slice is a plain nn.Sequential, which a loss can use as a feature map."""

    def __getitem__(self, index: int | slice) -> Any:
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else list(self)[index]


class NormBias(nn.Module):
    """Batch normalisation without affine parameters, then the layer's bias, which the normalisation would cancel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x)
        return normalised + self.bias


def build(shape: GeneratorShape | DiscriminatorShape, seed: int = 0) -> nn.Module:
    """Return a network of this shape. Its initial weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(shape, DiscriminatorShape):
            return Discriminator(shape, seed)
        return FAMILIES[shape.family].build(shape, seed)


def memory_format(
    shape: GeneratorShape | DiscriminatorShape, device: torch.device, precision: str = "no"
) -> torch.memory_format:
    """Return the faster memory format. precision: of the training.

    It is measured on a CPU (docs/performance.md) and on a GPU (docs/gpu.md), whose tensor cores compute convolutions in
    channels_last: a contiguous one is converted before and after. Exact float32 products do not use them. In bf16
    and TF32 the rule is at most 10% slower than its opposite (mse, d = 2 at 32×32). fp16 was not measured.
    """
    if device.type == "cuda":
        faster = precision != "no" and (precision != "tf32" or shape.image_size >= 64)
    else:
        faster = shape.d >= 8
    is_dcgan = isinstance(shape, DiscriminatorShape) or shape.family == DEFAULT_FAMILY
    return torch.channels_last if is_dcgan and faster else torch.contiguous_format


def is_narrow(shape: GeneratorShape | DiscriminatorShape, batch: int, device: torch.device) -> bool:
    """Return whether narrow.py computes a network of this shape: where it is faster (benchmarks/step.py).

    Images above 64×64 were not measured.
    """
    if device.type != "cpu" or shape.image_size > 64:
        return False
    if isinstance(shape, DiscriminatorShape):
        return shape.d <= {32: 16, 64: 8}[shape.image_size] and batch >= 64
    return shape.family == DEFAULT_FAMILY and shape.d <= {32: 24, 64: 12}[shape.image_size]


def _needs_torch(x: Tensor) -> bool:
    """Return whether torch's own layers compute x: in another type, and if torch compiles, casts, counts or fakes."""
    return (
        x.dtype != torch.float32
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or _python_dispatch._get_current_dispatch_mode() is not None
    )


def _statistics(network: nn.Sequential) -> RunningStatistics:
    return RunningStatistics([layer.norm for layer in network if isinstance(layer, NormBias)])


def _parameters(network: nn.Sequential) -> list[Tensor]:
    """Return the weights and biases in turn, in the order of the layers."""
    return [value for layer in network for value in layer._parameters.values() if value is not None]


def _initialise(network: nn.Module, seed: int) -> None:
    """Initialise as DCGAN does: weights from N(0, 0.02), biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, 0.0, 0.02, generator=generator)
        else:
            nn.init.zeros_(parameter)


class Projection(nn.ConvTranspose2d):
    """Map z [N, latent_size] to the first feature map [N, width, 4, 4].

    A transposed convolution of one pixel, computed as a matrix product: 3–8 times faster on CPU, with the same weights.
    """

    def __init__(self, latent_size: int, width: int) -> None:
        super().__init__(latent_size, width, 4, bias=False)

    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override] # without output_size
        first: Tensor = (z @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        return first


class DCGANGenerator(_Layers):
    """Map z [N, latent_size] to images [N, channels, image_size, image_size] in [-1, 1].

    Parameters: 672·d² + 12,831·d + 1 at 64×64 and one channel (paper, Table 1), 160·d² + 6,423·d + 1 at 32×32.
    """

    def __init__(self, shape: GeneratorShape, seed: int) -> None:
        super().__init__(*self.layers(shape))
        self.shape, self.statistics = shape, _statistics(self)
        _initialise(self, seed)

    def forward(self, z: Tensor) -> Tensor:
        if self.training and is_narrow(self.shape, len(z), z.device) and not _needs_torch(z):
            trained: Tensor = narrow.GeneratorFunction.apply(self.statistics, z, *_parameters(self))
            return trained
        images: Tensor = super().forward(z)
        return images

    def generate(self, z: Tensor) -> Tensor:
        """Return images in eval mode, without gradients. Each depends on its latent alone."""
        if is_narrow(self.shape, len(z), z.device) and not _needs_torch(z):
            return narrow.generate(self.statistics, z, *_parameters(self))
        images: Tensor = super().forward(z)
        return images

    @staticmethod
    def layers(shape: GeneratorShape) -> list[nn.Module]:
        widths = hidden_widths(shape.d, shape.image_size)
        first = Projection(shape.latent_size, widths[0])
        layers: list[nn.Module] = [first, NormBias(widths[0]), nn.ReLU(inplace=True)]
        for previous, width in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(previous, width, 4, 2, 1, bias=False),
                NormBias(width),
                nn.ReLU(inplace=True),
            ]
        return [*layers, nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1), nn.Tanh()]


class Discriminator(_Layers):
    """Map images [N, channels, image_size, image_size] in [-1, 1] to logits [N] (for WGAN: the critic's values)."""

    def __init__(self, shape: DiscriminatorShape, seed: int) -> None:
        layers: list[nn.Module] = []
        previous = shape.channels
        for depth, width in enumerate(reversed(hidden_widths(shape.d, shape.image_size))):
            layers.append(nn.Conv2d(previous, width, 4, 2, 1, bias=depth == 0))
            if depth > 0:
                layers.append(NormBias(width))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            previous = width
        layers += [nn.Conv2d(previous, 1, 4, 1, 0), nn.Flatten(0)]
        super().__init__(*layers)
        self.shape, self.statistics = shape, _statistics(self)
        _initialise(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Given images [groups, N, C, H, W], return logits [groups, N]; normalise each group by its own statistics."""
        groups = images.shape[:-4]
        # narrow.py has no second derivative. Images that are a leaf with a gradient are those of a gradient penalty.
        penalised = images.requires_grad and images.is_leaf
        narrow_enough = is_narrow(self.shape, images.shape[-4], images.device)
        if self.training and narrow_enough and not penalised and not _needs_torch(images):
            batch = images.flatten(0, 1) if groups else images
            parameters = _parameters(self)
            trained: Tensor = narrow.DiscriminatorFunction.apply(self.statistics, groups.numel(), batch, *parameters)
            return trained.view(*groups, -1)
        if groups:
            return torch.stack([super(Discriminator, self).forward(group) for group in images])
        logits: Tensor = super().forward(narrow.outermost(images))
        return logits


class HiddenMaps(nn.Module):
    """Map images [N, channels, image_size, image_size] to a discriminator's activations in eval mode.

    There is one map [N, width, side, side] per hidden layer. Normalisation is folded into the weights.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        convolutions: list[nn.Conv2d] = []
        for layer in list(discriminator.children())[:-2]:  # without the last convolution, and the flattening after it
            if isinstance(layer, nn.Conv2d):
                convolutions.append(deepcopy(layer).requires_grad_(False))
            elif isinstance(layer, NormBias):
                folded, norm = convolutions[-1], layer.norm
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = (norm.running_var + norm.eps).rsqrt()
                folded.weight.mul_(scale.view(-1, 1, 1, 1))
                folded.bias = nn.Parameter(layer.bias.detach().flatten() - norm.running_mean * scale, False)
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, x = [], narrow.outermost(images)
        for convolution in self.convolutions:
            x = leaky_relu(convolution(x), narrow.SLOPE)
            maps.append(x)
        return maps
