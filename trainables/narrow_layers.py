"""The layers of narrow networks: transposed convolutions as matrix products, and normalisation, with gradients.

The time of a small operation is that of calling it. So there are few calls, and views of memory that lives longer than
an update are made once. All is float32 on the CPU.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

BLOCK = 1024 * 1024  # bytes that a matrix product reads and writes, so that they stay in a core's L2 cache
FRAMES = 32  # that a thread keeps; a generator has one per layer and one more, in training and in rendering


def _floats(*shape: int) -> Tensor:
    """Return memory that training can write: what is made in inference mode it cannot."""
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=torch.float32, device="cpu")


class _Scratch(threading.local):
    """Memory of a thread that each product overwrites. A fresh tensor would lie outside the caches."""

    def __init__(self, views: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.make_views, self.memory = views, _floats(0)
        self.views: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Return the views of the memory in this shape."""
        if shape not in self.views:
            size = math.prod(shape)
            if size > len(self.memory):
                self.memory = _floats(size)
                self.views.clear()
            with torch.inference_mode(False):
                self.views[shape] = self.make_views(self.memory[:size].view(shape))
        return self.views[shape]


class _Frames(threading.local):
    """Maps of a thread with a border of zeros. Each call overwrites the frame of the one before of its shape."""

    def __init__(self) -> None:
        self.frames: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, maps: Tensor) -> Tensor:
        """Copy maps [C, H, W, N] into a frame [C, H + 2, W + 2, N]."""
        if maps.shape not in self.frames:
            if len(self.frames) == FRAMES:
                self.frames.clear()
            channels, height, width, batch = maps.shape
            frame = _floats(channels, height + 2, width + 2, batch).zero_()
            self.frames[maps.shape] = frame, frame[:, 1:-1, 1:-1]
        frame, inside = self.frames[maps.shape]
        inside.copy_(maps)
        return frame


_framed = _Frames()


def pixels(x: Tensor) -> Tensor:
    """View [N, C, H, W] as [N, H, W, C]."""
    return x.permute(0, 2, 3, 1)


def transposed_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Map x [I, H, W, N] by weight [I, O, 4, 4] to [O, 2H, 2W, N], with stride 2 and padding 1.

    Four output pixels meet at each corner between inputs. They depend on the 2×2 inputs around the corner alone, so one
    matrix product computes them. The rows of pixels around corner (i, j) are 2i − 1 and 2i.
    """
    inputs, outputs = weight.shape[:2]
    _, height, width, batch = x.shape
    kernel = weight.take(_corner_order(inputs, outputs))
    # The output has a border, which is cut off at the end: one row of pixels above and one below.
    out, frame = x.new_empty(outputs, height + 1, 2, width, 2, batch), _framed(x)
    for start, stop in _blocks(height + 1, 16 * (inputs + outputs) * (width + 1) * batch):
        corners, corners_pixels = _corners(4 * outputs, stop - start, width + 1, batch)
        torch.mm(kernel, _windows(frame[:, start : stop + 1], 2, 1), out=corners)
        out[:, start:stop] = corners_pixels
    return out.view(outputs, 2 * height + 2, 2 * width, batch)[:, 1:-1]


def _as_pixels(corners: Tensor) -> tuple[Tensor, Tensor]:
    """View corners [4·O, rows, W + 1, N] as a matrix [4·O, ·] and as pixels [O, rows, 2, W, 2, N]."""
    outputs, rows, columns, batch = corners.shape
    row, plane = columns * batch, rows * columns * batch  # a plane: the pixels at one side of their corners
    return corners.flatten(1), corners.as_strided(
        (outputs // 4, rows, 2, columns - 1, 2, batch), (4 * plane, row, 2 * plane, batch, plane + batch, 1)
    )


_corners = _Scratch(_as_pixels)


def transposed_convolution_channels_last(x: Tensor, weight: Tensor) -> Tensor:
    """Do the same by a 2×2 convolution: x [N, I, H, W] to [N, O, 2H, 2W], both in channels_last."""
    inputs, outputs = weight.shape[:2]
    batch, _, height, width = x.shape
    kernel = weight.take(_corner_order(inputs, outputs, channels_last=True))
    corners = pixels(conv2d(x, kernel.permute(0, 3, 1, 2), None, 1, 1))
    out = x.new_empty(batch, height + 1, 2, width + 1, 2 * outputs)
    out.copy_(corners.unflatten(3, (2, -1)).transpose(2, 3))
    return out.view(batch, 2 * height + 2, 2 * width + 2, outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


@cache
def _corner_order(inputs: int, outputs: int, channels_last: bool = False) -> Tensor:
    """Return the positions of a corner kernel's entries in the weight of its transposed convolution."""
    # The row of a weight is 2 · (input's side) + (corner's side); farther inputs have smaller rows.
    places = np.arange(inputs * outputs * 16).reshape(inputs, outputs, 2, 2, 2, 2)[:, :, ::-1, :, ::-1]
    if channels_last:
        return torch.from_numpy(places.transpose(3, 5, 1, 2, 4, 0).reshape(4 * outputs, 2, 2, inputs))
    return torch.from_numpy(places[..., ::-1].transpose(1, 3, 5, 0, 2, 4).reshape(4 * outputs, 4 * inputs))


def patches(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the input windows of a convolution (4×4, stride 2, padding 1) of x [C, 2H, 2W, N].

    In blocks [16C, ·], each with its position in H·W·N.
    """
    channels, height, width, batch = x.shape
    frame, step = _framed(x), width // 2 * batch
    for start, stop in _blocks(height // 2, 64 * channels * step):
        yield slice(start * step, stop * step), _windows(frame[:, 2 * start : 2 * stop + 2], 4, 2)


def _blocks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each block. A row takes `size` bytes."""
    step = max(1, BLOCK // size)
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _windows(x: Tensor, side: int, stride: int) -> Tensor:
    """Return the square windows of x [C, H, W, N] as a matrix [C·side², ·], until the next call."""
    channels, height, width, batch = x.shape
    plane, row, column, _ = x.stride()
    shape = (channels, side, side, (height - side) // stride + 1, (width - side) // stride + 1, batch)
    windows, matrix = _patches(*shape)
    windows.copy_(x.as_strided(shape, (plane, row, column, stride * row, stride * column, 1)))
    return matrix


_patches = _Scratch(lambda windows: (windows, windows.flatten(0, 2).flatten(1)))


class Rows:
    """The layout of maps as a matrix [C, ·]: sums per channel [C, 1], and how values per channel spread over it."""

    channels = 0  # the dimension of channels in a sum

    def __init__(self, matrix: Tensor) -> None:
        self.count = matrix.shape[1]  # values in a sum

    def sum(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1, keepdim=True)

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(a * b)

    def spread(self, values: Tensor) -> Tensor:
        return values


class Columns(Rows):
    """The layout of maps [N, C, H, W] in channels_last as [groups, ·, H·W·C]: sums [groups, C]."""

    channels = 1

    def __init__(self, maps: Tensor, groups: int) -> None:
        batch, self.width, height, width = maps.shape
        self.groups, self.pixels = groups, height * width
        self.count = batch // groups * self.pixels

    def matrix(self, maps: Tensor) -> Tensor:
        return pixels(maps).view(self.groups, -1, self.pixels * self.width)

    def sum(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1).view(self.groups, -1, self.width).sum(1)

    def spread(self, values: Tensor) -> Tensor:
        return values.repeat(1, self.pixels).unsqueeze(1)


class RunningStatistics:
    """The running means and variances of a network's normalisations, in one tensor that is updated at once."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self.norms, self.widths = norms, [norm.num_features for norm in norms]
        self._join()

    @torch.inference_mode(False)
    def _join(self) -> None:
        """Make the buffers of the normalisations views of two tensors."""
        means, variances = zip(*(running(norm) for norm in self.norms), strict=True)
        self.values = torch.cat([*means, *variances])
        self.batches = torch.stack(
            [norm.num_batches_tracked for norm in self.norms if norm.num_batches_tracked is not None]
        )
        views = self.values.split(self.widths * 2)
        for norm, mean, variance, batches in zip(self.norms, views, views[len(means) :], self.batches, strict=False):
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches

    def update(self, sums: "Sums") -> None:
        """Update as torch does, group by group: the running variance averages the unbiased variance."""
        if running(self.norms[0])[0].data_ptr() != self.values.data_ptr():
            self._join()  # the network was moved to another device or type
        found = torch.cat(sums.totals + sums.squares, sums.channels)
        groups = found if sums.channels else found.t()
        for group in groups.div_(_divisors(tuple(self.widths), tuple(sums.counts))).unbind():
            self.values.lerp_(group, self.norms[0].momentum or 0.0)
        self.batches.add_(len(groups))


class Sums:
    """The sums per channel of a forward pass, layer by layer."""

    def __init__(self, channels: int) -> None:
        """channels: as in the layout of the layers."""
        self.channels = channels
        self.totals: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.counts: list[int] = []  # of values in a sum


@cache
def _divisors(widths: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
    """Return what the sums of all layers are divided by: the totals by the count, the squares by one less."""
    values = [count - less for less in (0, 1) for count in counts]
    with torch.inference_mode(False):
        counts_of_all = torch.tensor(values, dtype=torch.float32, device="cpu")
        return counts_of_all.repeat_interleave(torch.tensor(widths * 2, device="cpu"))


def running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def normalise(matrix: Tensor, layout: Rows, eps: float, sums: Sums) -> Tensor:
    """Normalise each channel in place. Return the factors, in the layout of the matrix."""
    total, count = layout.sum(matrix), layout.count
    matrix.sub_(layout.spread(total), alpha=1 / count)
    squares = layout.dot(matrix, matrix)
    scale = layout.spread(squares.div(count).add_(eps).rsqrt_())
    matrix.mul_(scale)
    sums.totals.append(total)
    sums.squares.append(squares)
    sums.counts.append(count)
    return scale


def normalise_backward(gradient: Tensor, normalised: Tensor, scale: Tensor, layout: Rows) -> Tensor:
    """Turn the output's gradient of normalisation and bias into the input's, in place. Return its sums per channel."""
    total, along, count = layout.sum(gradient), layout.dot(gradient, normalised), layout.count
    gradient.addcmul_(normalised, layout.spread(along), value=-1 / count)
    gradient.sub_(layout.spread(total), alpha=1 / count).mul_(scale)
    return total
