"""Narrow networks on a CPU: the computation of torch's layers, with the batch innermost in memory.

The generator's maps are [1, C, H, W·N], as if of one image whose rows hold the batch. torch's kernels fill a vector
register with channels, of which a narrow network has 1 to 32. With the batch innermost, a register holds one channel of
several images. Convolutions are matrix products.
The discriminator keeps torch's convolutions, in channels_last; its normalisation and the gradient of its input are
computed here. Backward passes are written by hand, of the layers in narrow_layers.py. Parameters and buffers are those
of the modules in networks.py, whose rule is_narrow decides where this file is used.

There is no second derivative. A gradient penalty uses torch's layers.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu_

from trainables.narrow_layers import (
    Columns,
    RunningStatistics,
    Sums,
    normalise_backward_unscaled,
    normalise_columns,
    normalise_columns_backward,
    patches_of,
    pixels,
    running,
    transposed_convolution,
    transposed_convolution_backward,
    transposed_convolution_channels_last,
)

_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.default
_leaky_relu_backward = torch.ops.aten.leaky_relu_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default

IMAGES = 128  # latents per block of `generate`
SLOPE = 0.2  # of the discriminator's LeakyReLU

# Raise the size from which glibc returns freed memory to the system, by freeing one large block. Otherwise each update
# faults its pages in again. The block is never written, so it costs nothing.
torch.empty(30 * 2**20, dtype=torch.uint8)


class GeneratorFunction(torch.autograd.Function):
    """Map z [N, latent_size] to images [N, C, H, W] in training mode. Parameters are in the order of the layers."""

    @staticmethod
    def forward(ctx: Any, statistics: RunningStatistics, z: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, batch = parameters[::2], parameters[1::2], z.shape[0]
        statistics.count_batches(1)
        hidden = _project(z, weights[0])
        ctx.layers = []
        for norm, (mean, variance), bias, weight in zip(
            statistics.norms, statistics.pairs, biases, weights[1:], strict=False
        ):
            normalised, _, scale = torch.native_batch_norm(
                hidden.contiguous(), None, None, mean, variance, True, norm.momentum or 0.0, norm.eps
            )
            active = (normalised + bias).relu_()
            ctx.layers.append((normalised, scale, active))
            hidden = transposed_convolution(active, weight, batch)
        images = (hidden + biases[-1].view(-1, 1, 1)).tanh_()
        ctx.save_for_backward(z, images, *parameters)
        return _outward(images, batch)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        z, images, *parameters = ctx.saved_tensors
        weights, gradients, batch = parameters[::2], list(parameters), z.shape[0]
        patches = patches_of(ctx.layers[-1][-1], weights[-1], batch)
        _tanh_backward(_inward(innermost(gradient)), images, grad_input=patches.inside)
        gradients[-1] = patches.inside.sum((0, 2, 3))
        for depth in reversed(range(len(ctx.layers))):
            normalised, scale, active = ctx.layers[depth]
            into_active, gradients[2 * depth + 2] = transposed_convolution_backward(patches, active, weights[depth + 1])
            back = _threshold_backward(into_active, active, 0)
            gradients[2 * depth + 1] = normalise_backward_unscaled(back, normalised).view(-1, 1, 1)
            into = back
            if depth:
                patches = patches_of(ctx.layers[depth - 1][-1], weights[depth], batch)
                into = patches.inside
            torch.mul(back, scale.view(-1, 1, 1), out=into)
        first = back.view(-1, batch)
        gradients[0] = (z.t() @ first.t()).view(weights[0].shape)
        into_z = (weights[0].flatten(1) @ first).t() if ctx.needs_input_grad[1] else None
        return None, into_z, *gradients


class DiscriminatorFunction(torch.autograd.Function):
    """Map images [N, C, H, W] to logits [N] in training mode. Parameters are in the order of the layers.

    groups: parts of the batch, of equal size. Each is normalised by its own statistics.
    """

    @staticmethod
    def forward(ctx: Any, statistics: RunningStatistics, groups: int, images: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, sums = parameters[::2], parameters[1::2], Sums()
        first, scale = pixels(outermost(images)), None
        # With one channel both memory formats have equal strides; torch recognises channels_last only in this form.
        inputs = first.flatten().view(first.shape).permute(0, 3, 1, 2)
        ctx.layers, ctx.groups, ctx.innermost = [], groups, images.stride(0) == 1
        for depth, weight in enumerate(weights[:-1]):
            hidden = _channels_last(conv2d(inputs, weight, None if depth else biases[0], 2, 1))
            active = hidden
            if depth:
                columns = Columns(hidden, groups)
                scale = normalise_columns(columns.matrix(hidden), columns, statistics.norms[depth - 1].eps, sums)
                active = hidden + biases[depth]
            leaky_relu_(active, SLOPE)
            ctx.layers.append((inputs, hidden, scale, active))
            inputs = active
        statistics.update(sums)
        ctx.save_for_backward(*parameters)
        return (pixels(active).flatten(1) @ pixels(weights[-1]).flatten()).add_(biases[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        parameters, (_, _, into_images, *learn) = ctx.saved_tensors, ctx.needs_input_grad
        weights, learns = parameters[::2], any(learn)
        gradients: list[Tensor | None] = [None] * len(parameters)
        active = ctx.layers[-1][-1]
        if learns:
            into_last = gradient @ pixels(active).flatten(1)
            gradients[-2] = into_last.view(1, *active.shape[2:], -1).permute(0, 3, 1, 2)
            gradients[-1] = gradient.sum().view(1)
        back = gradient.view(-1, 1, 1, 1) * _channels_last(weights[-1])
        for depth in reversed(range(len(ctx.layers))):
            inputs, normalised, scale, active = ctx.layers[depth]
            back = _channels_last(_leaky_relu_backward(back, active, SLOPE, True))
            columns = Columns(back, ctx.groups)
            matrix = columns.matrix(back)
            if depth:
                total = normalise_columns_backward(matrix, columns.matrix(normalised), scale, columns)
            else:
                total = columns.sum(matrix)
            if learns:
                gradients[2 * depth + 1] = total.sum(0).view(parameters[2 * depth + 1].shape)
                gradients[2 * depth] = _convolution_backward(
                    back, inputs, weights[depth], None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )[1]
            if depth:
                back = transposed_convolution_channels_last(back, weights[depth])
        if not into_images:
            return None, None, None, *gradients
        last, batch = pixels(back), len(back)
        maps = _transposed(last.flatten(1)).view(*last.shape[1:], -1).permute(2, 0, 1, 3).flatten(2).unsqueeze(0)
        into = _outward(transposed_convolution(maps, weights[0], batch).clone(), batch)
        return None, None, into if ctx.innermost else outermost(into), *gradients


class SquaredError(torch.autograd.Function):
    """Map images and targets [N, C, H, W] to the mean of their squared differences; only images have a gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, target: Tensor) -> Tensor:
        error = _inward(images) - _inward(innermost(target))
        ctx.save_for_backward(error)
        ctx.batch = images.shape[0]
        return error.square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _refuse_second_derivatives()
        (error,) = ctx.saved_tensors
        return _outward(error * (gradient * (2 / error.numel())), ctx.batch), None


def _refuse_second_derivatives() -> None:
    """Raise RuntimeError in a backward pass with create_graph. Its gradients would silently be missing."""
    if torch.is_grad_enabled():
        raise RuntimeError("narrow.py has no second derivative; call nn.Sequential.forward(network, x) for one")


@torch.no_grad()
def generate(statistics: RunningStatistics, z: Tensor, *parameters: Tensor) -> Tensor:
    """Map z [N, latent_size] to images [N, C, H, W] in eval mode, without gradients.

    Blocks have IMAGES latents each, and the last is padded. Matrix products of one shape compute every column alike, so
    an image depends neither on its batch nor on its position in it.
    """
    blocks = torch.constant_pad_nd(z, (0, 0, 0, -len(z) % IMAGES)).split(IMAGES)
    return torch.cat([outermost(_generate(statistics, block, parameters)) for block in blocks])[: len(z)]


def _generate(statistics: RunningStatistics, z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    weights, biases = parameters[::2], parameters[1::2]
    hidden = _project(z, weights[0])
    for norm, bias, weight in zip(statistics.norms, biases, weights[1:], strict=False):
        mean, variance = running(norm)
        active = torch.native_batch_norm(
            hidden.contiguous(), None, bias.flatten(), mean, variance, False, 0.0, norm.eps
        )[0]
        hidden = transposed_convolution(active.relu_(), weight, len(z))
    return _outward((hidden + biases[-1].view(-1, 1, 1)).tanh_(), len(z))


def innermost(images: Tensor) -> Tensor:
    """Return images [..., N, C, H, W] with N innermost in memory."""
    if images.stride(-4) == 1:
        return images
    *before, batch, channels, height, width = images.shape
    return _transposed(images.flatten(-3)).view(*before, channels, height, width, batch).movedim(-1, -4)


def outermost(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] with N outermost in memory."""
    if images.stride(0) != 1:
        return images
    return _transposed(images.permute(1, 2, 3, 0).flatten(0, 2)).view(images.shape)


def _transposed(matrices: Tensor) -> Tensor:
    """Return the transposes of matrices [..., a, b] in new memory.

    torch's fastest kernel for it shuffles channels in channels_last, whose strides are stated: one pixel has them all.
    """
    *before, rows, columns = matrices.shape
    size = rows * columns
    channels = matrices.contiguous().as_strided((math.prod(before), size, 1, 1), (size, 1, size, size))
    return torch.channel_shuffle(channels, rows).view(*before, columns, rows)


def _inward(images: Tensor) -> Tensor:
    """View images [N, C, H, W], with N innermost in memory, as maps [1, C, H, W·N]."""
    return images.permute(1, 2, 3, 0).flatten(2).unsqueeze(0)


def _outward(maps: Tensor, batch: int) -> Tensor:
    """View maps [1, C, H, W·N] as images [N, C, H, W]."""
    _, channels, height, row = maps.shape
    return maps.view(channels, height, row // batch, batch).permute(3, 0, 1, 2)


def _project(z: Tensor, weight: Tensor) -> Tensor:
    """Map z [N, latent_size] by weight [latent_size, C, 4, 4] to [1, C, 4, 4·N]."""
    return (weight.flatten(1).t() @ z.t()).view(1, weight.shape[1], weight.shape[2], -1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
