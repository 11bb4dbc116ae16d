"""Narrow networks on a CPU: the computation of torch's layers, with the batch innermost in memory.

The generator's maps are [C, H, W, N]. torch's kernels fill a vector register with channels, of which a narrow network
has 1 to 32. With the batch innermost, a register holds one channel of several images. Convolutions are matrix products.
The discriminator keeps torch's convolutions, in channels_last; its normalisation and the gradient of its input are
computed here. Backward passes are written by hand. Parameters and buffers are those of the modules in networks.py,
whose rule is_narrow decides where this file is used.

There is no second derivative. A gradient penalty uses torch's layers.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu_

_tanh_backward = torch.ops.aten.tanh_backward.default
_threshold_backward = torch.ops.aten.threshold_backward.default
_leaky_relu_backward = torch.ops.aten.leaky_relu_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default

BLOCK = 1024 * 1024  # bytes that a matrix product reads and writes, so that they stay in a core's L2 cache
IMAGES = 128  # latents per block of `generate`
SLOPE = 0.2  # of the discriminator's LeakyReLU

# Raise the size from which glibc returns freed memory to the system, by freeing one large block. Otherwise each update
# faults its pages in again. The block is never written, so it costs nothing.
torch.empty(30 * 2**20, dtype=torch.uint8)


class GeneratorFunction(torch.autograd.Function):
    """Map z [N, latent_size] to images [N, C, H, W] in training mode. Norms and parameters are in layer order."""

    @staticmethod
    def forward(ctx: Any, norms: Sequence[nn.BatchNorm2d], z: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, statistics = parameters[::2], parameters[1::2], _Statistics()
        hidden = _project(z, weights[0])
        ctx.layers = []
        for norm, bias, weight in zip(norms, biases, weights[1:], strict=False):
            scale = _normalise(hidden, _Rows(hidden), norm.eps, statistics)
            active = (hidden + bias.unsqueeze(3)).relu_()
            ctx.layers.append((hidden, scale, active))
            hidden = _transposed_convolution(active, weight if weight is not weights[-1] else 2 * weight)
        images = _tanh_of_half(hidden.add_(2 * biases[-1].view(-1, 1, 1, 1)))
        statistics.update(norms)
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
            normalised, scale, active = ctx.layers[depth]
            weight, inputs = weights[depth + 1], active.flatten(1)
            matrix, into_inputs = weight.flatten(1), torch.empty_like(inputs)
            into_weight = torch.zeros_like(matrix)
            for place, patches in _patches(back):
                torch.mm(matrix, patches, out=into_inputs[:, place])
                into_weight.addmm_(inputs[:, place], patches.t())
            back = _threshold_backward(into_inputs.view_as(active), active, 0)
            total = _normalise_backward(back, normalised, scale, _Rows(back))
            gradients[2 * depth + 1] = total.view(-1, 1, 1)
            gradients[2 * depth + 2] = into_weight.view(weight.shape)
        first = back.view(-1, len(z))
        gradients[0] = (z.t() @ first.t()).view(weights[0].shape)
        into_z = (weights[0].flatten(1) @ first).t() if ctx.needs_input_grad[1] else None
        return None, into_z, *gradients


class DiscriminatorFunction(torch.autograd.Function):
    """Map images [N, C, H, W] to logits [N] in training mode. Norms and parameters are in the order of layers.

    groups: parts of the batch, of equal size. Each is normalised by its own statistics.
    """

    @staticmethod
    def forward(ctx: Any, norms: Sequence[nn.BatchNorm2d], groups: int, images: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, statistics = parameters[::2], parameters[1::2], _Statistics()
        pixels, scale = _pixels(outermost(images)), None
        # With one channel both memory formats have equal strides; torch recognises channels_last only in this form.
        inputs = pixels.flatten().view(pixels.shape).permute(0, 3, 1, 2)
        ctx.layers, ctx.groups, ctx.innermost = [], groups, images.stride(0) == 1
        for depth, weight in enumerate(weights[:-1]):
            hidden = _channels_last(conv2d(inputs, weight, None if depth else biases[0], 2, 1))
            active = hidden
            if depth:
                scale = _normalise(hidden, _Columns(hidden, groups), norms[depth - 1].eps, statistics)
                active = hidden + biases[depth]
            leaky_relu_(active, SLOPE)
            ctx.layers.append((inputs, hidden, scale, active))
            inputs = active
        statistics.update(norms)
        ctx.save_for_backward(*parameters)
        return (_pixels(active).flatten(1) @ _pixels(weights[-1]).flatten()).add_(biases[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        parameters, (_, _, into_images, *learn) = ctx.saved_tensors, ctx.needs_input_grad
        weights, learns = parameters[::2], any(learn)
        gradients: list[Tensor | None] = [None] * len(parameters)
        active = ctx.layers[-1][-1]
        if learns:
            into_last = gradient @ _pixels(active).flatten(1)
            gradients[-2] = into_last.view(1, *active.shape[2:], -1).permute(0, 3, 1, 2)
            gradients[-1] = gradient.sum().view(1)
        back = gradient.view(-1, 1, 1, 1) * _channels_last(weights[-1])
        for depth in reversed(range(len(ctx.layers))):
            inputs, normalised, scale, active = ctx.layers[depth]
            back = _channels_last(_leaky_relu_backward(back, active, SLOPE, True))
            columns = _Columns(back, ctx.groups)
            if depth:
                total = _normalise_backward(back, normalised, scale, columns)
            else:
                total = columns.sum(columns.matrix(back))
            if learns:
                gradients[2 * depth + 1] = total.sum(0).view(parameters[2 * depth + 1].shape)
                gradients[2 * depth] = _convolution_backward(
                    back, inputs, weights[depth], None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )[1]
            if depth:
                back = _transposed_convolution_channels_last(back, weights[depth])
        if not into_images:
            return None, None, None, *gradients
        pixels = _pixels(back)
        maps = pixels.flatten(1).t().contiguous().view(*pixels.shape[1:], -1).permute(2, 0, 1, 3)
        into = _transposed_convolution(maps, weights[0]).permute(3, 0, 1, 2)
        return None, None, into if ctx.innermost else outermost(into), *gradients


def _refuse_second_derivatives() -> None:
    """Raise RuntimeError in a backward pass with create_graph. Its gradients would silently be missing."""
    if torch.is_grad_enabled():
        raise RuntimeError("narrow.py has no second derivative; call nn.Sequential.forward(network, x) for one")


def generate(norms: Sequence[nn.BatchNorm2d], z: Tensor, *parameters: Tensor) -> Tensor:
    """Map z [N, latent_size] to images [N, C, H, W] in eval mode, without gradients.

    Blocks have IMAGES latents each, and the last is padded. Matrix products of one shape compute every column alike, so
    an image depends neither on its batch nor on its position in it.
    """
    blocks = torch.constant_pad_nd(z, (0, 0, 0, -len(z) % IMAGES)).split(IMAGES)
    return torch.cat([outermost(_generate(norms, block, parameters)) for block in blocks])[: len(z)]


def _generate(norms: Sequence[nn.BatchNorm2d], z: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    weights, biases = parameters[::2], parameters[1::2]
    hidden = _project(z, weights[0])
    for norm, bias, weight in zip(norms, biases, weights[1:], strict=False):
        mean, variance = _running(norm)
        scale = (variance + norm.eps).rsqrt_().view(-1, 1, 1, 1)
        active = hidden.mul_(scale).add_(bias.unsqueeze(3) - mean.view(-1, 1, 1, 1) * scale).relu_()
        hidden = _transposed_convolution(active, weight if weight is not weights[-1] else 2 * weight)
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


def _pixels(x: Tensor) -> Tensor:
    """View [N, C, H, W] as [N, H, W, C]."""
    return x.permute(0, 2, 3, 1)


def _transposed_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Map x [I, H, W, N] by weight [I, O, 4, 4] to [O, 2H, 2W, N], with stride 2 and padding 1.

    Four output pixels meet at each corner between inputs. They depend on the 2×2 inputs around the corner alone, so one
    matrix product computes them. The rows of pixels around corner (i, j) are 2i − 1 and 2i.
    """
    inputs, outputs = weight.shape[:2]
    _, height, width, batch = x.shape
    kernel = weight.flatten().index_select(0, torch.from_numpy(_corner_order(inputs, outputs)))
    kernel, row = kernel.view(4 * outputs, 4 * inputs), (width + 1) * batch
    # The output has a border, which is cut off at the end: one row of pixels above and one below.
    out, frame = x.new_empty(outputs, height + 1, 2, width, 2, batch), torch.constant_pad_nd(x, (0, 0, 1, 1, 1, 1))
    for start, stop in _blocks(height + 1, 16 * (inputs + outputs) * row):
        corners = kernel @ _windows(frame[:, start : stop + 1], 2, 1)
        plane = (stop - start) * row  # the pixels at one side of their corners
        out[:, start:stop] = corners.as_strided(
            (outputs, stop - start, 2, width, 2, batch), (4 * plane, row, 2 * plane, batch, plane + batch, 1)
        )
    return out.view(outputs, 2 * height + 2, 2 * width, batch)[:, 1:-1]


def _transposed_convolution_channels_last(x: Tensor, weight: Tensor) -> Tensor:
    """Do the same by a 2×2 convolution: x [N, I, H, W] to [N, O, 2H, 2W], both in channels_last."""
    inputs, outputs = weight.shape[:2]
    batch, _, height, width = x.shape
    kernel = weight.flatten().index_select(0, torch.from_numpy(_corner_order(inputs, outputs, channels_last=True)))
    corners = _pixels(conv2d(x, kernel.view(4 * outputs, 2, 2, inputs).permute(0, 3, 1, 2), None, 1, 1))
    out = x.new_empty(batch, height + 1, 2, width + 1, 2 * outputs)
    out.copy_(corners.unflatten(3, (2, -1)).transpose(2, 3))
    return out.view(batch, 2 * height + 2, 2 * width + 2, outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


@cache
def _corner_order(inputs: int, outputs: int, channels_last: bool = False) -> np.ndarray:
    """Return the positions of a corner kernel's entries in the weight of its transposed convolution."""
    # The row of a weight is 2 · (input's side) + (corner's side); farther inputs have smaller rows.
    places = np.arange(inputs * outputs * 16).reshape(inputs, outputs, 2, 2, 2, 2)[:, :, ::-1, :, ::-1]
    if channels_last:
        return places.transpose(3, 5, 1, 2, 4, 0).flatten()
    return places[..., ::-1].transpose(1, 3, 5, 0, 2, 4).flatten()


def _patches(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the input windows of a convolution (4×4, stride 2, padding 1) of x [C, 2H, 2W, N].

    In blocks [16C, ·], each with its position in H·W·N.
    """
    channels, height, width, batch = x.shape
    frame, step = torch.constant_pad_nd(x, (0, 0, 1, 1, 1, 1)), width // 2 * batch
    for start, stop in _blocks(height // 2, 64 * channels * step):
        yield slice(start * step, stop * step), _windows(frame[:, 2 * start : 2 * stop + 2], 4, 2)


def _blocks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each block. A row takes `size` bytes."""
    step = max(1, BLOCK // size)
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _windows(x: Tensor, side: int, stride: int) -> Tensor:
    """Return the square windows of x [C, H, W, N] as a matrix [C·side², ·]."""
    channels, height, width, batch = x.shape
    plane, row, column, _ = x.stride()
    return x.as_strided(
        (channels, side, side, (height - side) // stride + 1, (width - side) // stride + 1, batch),
        (plane, row, column, stride * row, stride * column, 1),
    ).reshape(channels * side**2, -1)


class _Rows:
    """Sums per channel of maps [C, …] as a matrix [C, ·], and values per channel in its layout."""

    def __init__(self, maps: Tensor) -> None:
        self.count = maps[0].numel()  # values in a sum

    def matrix(self, maps: Tensor) -> Tensor:
        return maps.view(len(maps), -1)

    def sum(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(a * b)

    def spread(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1)


class _Columns(_Rows):
    """The same per group and channel of maps [N, C, H, W] in channels_last, as a matrix [groups, ·, H·W·C]."""

    def __init__(self, maps: Tensor, groups: int) -> None:
        batch, self.channels, height, width = maps.shape
        self.groups, self.pixels = groups, height * width
        self.count = batch // groups * self.pixels

    def matrix(self, maps: Tensor) -> Tensor:
        return _pixels(maps).view(self.groups, -1, self.pixels * self.channels)

    def sum(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1).view(self.groups, -1, self.channels).sum(1)

    def spread(self, values: Tensor) -> Tensor:
        return values.repeat(1, self.pixels).unsqueeze(1)


class _Statistics:
    """Sums of a forward pass, from which the running statistics of all layers are updated at once."""

    def __init__(self) -> None:
        self.totals: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.counts: list[float] = []  # of values in a sum

    def update(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        """Update as torch does, group by group: the running variance averages the unbiased variance."""
        means, variances = zip(*(_running(norm) for norm in norms), strict=True)
        counts = self.counts + [count - 1 for count in self.counts]
        found = [sums.view(-1, len(to)) for sums, to in zip(self.totals + self.squares, means * 2, strict=True)]
        for group in zip(*torch._foreach_div(found, counts), strict=True):
            torch._foreach_lerp_([*means, *variances], group, norms[0].momentum or 0.0)
            torch._foreach_add_([norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None], 1)


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _normalise(maps: Tensor, layout: _Rows, eps: float, statistics: _Statistics) -> Tensor:
    """Normalise each channel in place. Return the factors, in the layout of the matrix."""
    matrix, count = layout.matrix(maps), layout.count
    total = layout.sum(matrix)
    matrix.sub_(layout.spread(total), alpha=1 / count)
    squares = layout.dot(matrix, matrix)
    scale = layout.spread(squares.div(count).add_(eps).rsqrt_())
    matrix.mul_(scale)
    statistics.totals.append(total)
    statistics.squares.append(squares)
    statistics.counts.append(count)
    return scale


def _normalise_backward(back: Tensor, normalised: Tensor, scale: Tensor, layout: _Rows) -> Tensor:
    """Turn the output's gradient of normalisation and bias into the input's, in place. Return its sums per channel."""
    gradient, normalised, count = layout.matrix(back), layout.matrix(normalised), layout.count
    total, along = layout.sum(gradient), layout.dot(gradient, normalised)
    gradient.addcmul_(normalised, layout.spread(along), value=-1 / count)
    gradient.sub_(layout.spread(total), alpha=1 / count).mul_(scale)
    return total
