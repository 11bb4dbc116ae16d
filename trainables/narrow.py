"""Narrow networks on a CPU: the computation of torch's layers, with the batch innermost in memory.

The generator's maps are [C, H, W, N]. torch's kernels fill a vector register with channels, of which a narrow network
has 1 to 32. With the batch innermost, a register holds one channel of several images. Convolutions are matrix products.
The discriminator keeps torch's convolutions, in channels_last; its normalisation and the gradient of its input are
computed here. Backward passes are written by hand, of the layers in narrow_layers.py. Parameters and buffers are those
of the modules in networks.py, whose rule is_narrow decides where this file is used.

There is no second derivative. A gradient penalty uses torch's layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu_

from trainables.narrow_layers import (
    Columns,
    Rows,
    RunningStatistics,
    Sums,
    normalise,
    normalise_backward,
    patches,
    pixels,
    running,
    transposed_convolution,
    transposed_convolution_channels_last,
)

_tanh_backward = torch.ops.aten.tanh_backward.default
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
        weights, biases, sums = parameters[::2], parameters[1::2], Sums(Rows.channels)
        hidden = _project(z, weights[0])
        ctx.layers = []
        for norm, bias, weight in zip(statistics.norms, biases, weights[1:], strict=False):
            normalised = hidden.view(len(hidden), -1)
            scale = normalise(normalised, Rows(normalised), norm.eps, sums)
            active = (normalised + bias.view(-1, 1)).relu_()
            ctx.layers.append((normalised, scale, active, hidden.shape))
            hidden = transposed_convolution(
                active.view(hidden.shape), weight if weight is not weights[-1] else 2 * weight
            )
        images = _tanh_of_half(hidden.add_(2 * biases[-1].view(-1, 1, 1, 1)))
        statistics.update(sums)
        ctx.save_for_backward(z, images, *parameters)
        return images.permute(3, 0, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        z, images, *parameters = ctx.saved_tensors
        weights, gradients = parameters[::2], list(parameters)
        back = _tanh_backward(innermost(gradient).permute(1, 2, 3, 0), images)
        gradients[-1] = back.flatten(1).sum(1)
        for depth in reversed(range(len(ctx.layers))):
            normalised, scale, active, shape = ctx.layers[depth]
            weight = weights[depth + 1]
            matrix, into_active = weight.flatten(1), torch.empty_like(active)
            into_weight = torch.zeros_like(matrix)
            for place, windows in patches(back):
                torch.mm(matrix, windows, out=into_active[:, place])
                into_weight.addmm_(active[:, place], windows.t())
            back = _threshold_backward(into_active, active, 0)
            total = normalise_backward(back, normalised, scale, Rows(back))
            back = back.view(shape)
            gradients[2 * depth + 1] = total.view(-1, 1, 1)
            gradients[2 * depth + 2] = into_weight.view(weight.shape)
        first = back.view(-1, len(z))
        gradients[0] = (z.t() @ first.t()).view(weights[0].shape)
        into_z = (weights[0].flatten(1) @ first).t() if ctx.needs_input_grad[1] else None
        return None, into_z, *gradients


class DiscriminatorFunction(torch.autograd.Function):
    """Map images [N, C, H, W] to logits [N] in training mode. Parameters are in the order of the layers.

    groups: parts of the batch, of equal size. Each is normalised by its own statistics.
    """

    @staticmethod
    def forward(ctx: Any, statistics: RunningStatistics, groups: int, images: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, sums = parameters[::2], parameters[1::2], Sums(Columns.channels)
        first, scale = pixels(outermost(images)), None
        # With one channel both memory formats have equal strides; torch recognises channels_last only in this form.
        inputs = first.flatten().view(first.shape).permute(0, 3, 1, 2)
        ctx.layers, ctx.groups, ctx.innermost = [], groups, images.stride(0) == 1
        for depth, weight in enumerate(weights[:-1]):
            hidden = _channels_last(conv2d(inputs, weight, None if depth else biases[0], 2, 1))
            active = hidden
            if depth:
                columns = Columns(hidden, groups)
                scale = normalise(columns.matrix(hidden), columns, statistics.norms[depth - 1].eps, sums)
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
                total = normalise_backward(matrix, columns.matrix(normalised), scale, columns)
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
        last = pixels(back)
        maps = last.flatten(1).t().contiguous().view(*last.shape[1:], -1).permute(2, 0, 1, 3)
        into = transposed_convolution(maps, weights[0]).permute(3, 0, 1, 2)
        return None, None, into if ctx.innermost else outermost(into), *gradients


class SquaredError(torch.autograd.Function):
    """Map images and targets [N, C, H, W] to the mean of their squared differences; only images have a gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, target: Tensor) -> Tensor:
        error = (images.permute(1, 2, 3, 0) - innermost(target).permute(1, 2, 3, 0)).flatten()
        ctx.save_for_backward(error)
        ctx.shape = images.shape
        return error.square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _refuse_second_derivatives()
        (error,) = ctx.saved_tensors
        back = error.mul(2 / len(error)).mul_(gradient)
        return back.view(*ctx.shape[1:], -1).permute(3, 0, 1, 2), None


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
        scale = (variance + norm.eps).rsqrt_().view(-1, 1, 1, 1)
        active = hidden.mul_(scale).add_(bias.unsqueeze(3) - mean.view(-1, 1, 1, 1) * scale).relu_()
        hidden = transposed_convolution(active, weight if weight is not weights[-1] else 2 * weight)
    return _tanh_of_half(hidden.add_(2 * biases[-1].view(-1, 1, 1, 1))).permute(3, 0, 1, 2)


def innermost(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] with N innermost in memory. torch transposes a matrix faster than it permutes axes."""
    if images.stride(0) == 1:
        return images
    return images.flatten(1).t().contiguous().view(*images.shape[1:], -1).permute(3, 0, 1, 2)


def outermost(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] with N outermost in memory."""
    if images.stride(0) != 1:
        return images
    return images.permute(1, 2, 3, 0).flatten(0, 2).t().contiguous().view(images.shape)


def _project(z: Tensor, weight: Tensor) -> Tensor:
    """Map z [N, latent_size] by weight [latent_size, C, 4, 4] to [C, 4, 4, N]."""
    return (weight.flatten(1).t() @ z.t()).view(*weight.shape[1:], -1)


def _tanh_of_half(x: Tensor) -> Tensor:
    """Compute tanh(x / 2) in place, by torch's sigmoid, which is faster than its tanh."""
    return x.sigmoid_().mul_(2).sub_(1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
