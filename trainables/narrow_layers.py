"""The layers of narrow networks: transposed convolutions as matrix products, and normalisation, with gradients.

The time of a small operation is that of calling it. So there are few calls, and views of memory that lives longer than
an update are made once. All is float32 on the CPU.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

BLOCK = 1024 * 1024  # bytes that a matrix product reads and writes, so that they stay in a core's L2 cache
SHAPES = 16  # of layers whose views a thread keeps; a generator at 64×64 has 4 in training and 4 in rendering


def _floats(*shape: int) -> Tensor:
    """Return memory that training can write: what is made in inference mode it cannot."""
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=torch.float32, device="cpu")


class _Scratch(threading.local):
    """Memory of a thread that each layer overwrites. A fresh tensor would lie outside the caches.

    Larger memory is new memory: views of the old one stay valid.
    """

    def __init__(self) -> None:
        self.memory = _floats(BLOCK // 4)

    def __call__(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        if size > len(self.memory):
            self.memory = _floats(size)
        return self.memory[:size].view(shape)


_window_memory, _corner_memory, _map_memory = _Scratch(), _Scratch(), _Scratch()


def pixels(x: Tensor) -> Tensor:
    """View [N, C, H, W] as [N, H, W, C]."""
    return x.permute(0, 2, 3, 1)


class _Windows:
    """The square windows of a part of a frame, as a matrix."""

    def __init__(self, frame: Tensor, side: int, stride: int) -> None:
        """frame: [C, H, W, N]. The matrix is [C·side², ·]."""
        channels, height, width, batch = frame.shape
        plane, row, column, _ = frame.stride()
        shape = (channels, side, side, (height - side) // stride + 1, (width - side) // stride + 1, batch)
        self.source = frame.as_strided(shape, (plane, row, column, stride * row, stride * column, 1))
        self.windows = _window_memory(*shape)
        self.matrix = self.windows.flatten(0, 2).flatten(1)
        self.transposed = self.matrix.t()

    def load(self) -> Tensor:
        """Copy the windows into the matrix. Return it, until another one is loaded."""
        self.windows.copy_(self.source)
        return self.matrix


def _frame(channels: int, height: int, width: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return memory [C, H + 2, W + 2, N] with a border of zeros, and its inside as maps [1, C, H, W·N]."""
    frame = _floats(channels, height + 2, width + 2, batch).zero_()
    return frame, frame[:, 1:-1, 1:-1].flatten(2).unsqueeze(0)


class _Upsampling:
    """The views of memory that a transposed convolution from [1, I, H, W·N] to [1, O, 2H, 2W·N] needs."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int, batch: int) -> None:
        frame, self.inside = _frame(inputs, height, width, batch)
        # The output has a border, which is cut off at the end: one row of pixels above and one below.
        out = _map_memory(outputs, height + 1, 2, width, 2, batch)
        self.cut = out.view(1, outputs, 2 * height + 2, -1)[:, :, 1:-1]
        self.blocks = []
        for start, stop in _blocks(height + 1, 16 * (inputs + outputs) * (width + 1) * batch):
            corners, corners_pixels = _corners(outputs, stop - start, width, batch)
            windows = _Windows(frame[:, start : stop + 1], 2, 1)
            self.blocks.append((windows, corners, corners_pixels, out[:, start:stop]))


class Patches:
    """The views of memory for the input windows of a convolution (4×4, stride 2, padding 1) of [1, C, 2H, 2W·N]."""

    def __init__(self, channels: int, height: int, width: int, batch: int) -> None:
        frame, self.inside = _frame(channels, 2 * height, 2 * width, batch)
        rows = list(_blocks(height, 64 * channels * width * batch))
        self.blocks = [_Windows(frame[:, 2 * start : 2 * stop + 2], 4, 2) for start, stop in rows]
        self.sizes = [(stop - start) * width * batch for start, stop in rows]


def _blocks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each block. A row takes `size` bytes."""
    step = max(1, BLOCK // size)
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _corners(outputs: int, rows: int, width: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return memory for corners as a matrix [4·O, rows·(W + 1)·N], and as pixels [O, rows, 2, W, 2, N]."""
    memory = _corner_memory(4 * outputs, rows * (width + 1) * batch)
    row, plane = (width + 1) * batch, rows * (width + 1) * batch  # a plane: the pixels at one side of their corners
    return memory, memory.as_strided(
        (outputs, rows, 2, width, 2, batch), (4 * plane, row, 2 * plane, batch, plane + batch, 1)
    )


V = TypeVar("V")


class _Views(threading.local, Generic[V]):
    """The views of a thread, by the sizes that they are made from."""

    def __init__(self, make: Callable[..., V]) -> None:
        self.make, self.made = make, dict[tuple[int, ...], V]()

    def __call__(self, *sizes: int) -> V:
        if sizes not in self.made:
            if len(self.made) == SHAPES:
                self.made.clear()
            with torch.inference_mode(False):
                self.made[sizes] = self.make(*sizes)
        return self.made[sizes]


_upsampling, _patches = _Views(_Upsampling), _Views(Patches)


def transposed_convolution(x: Tensor, weight: Tensor, batch: int) -> Tensor:
    """Map x [1, I, H, W·N] by weight [I, O, 4, 4] to [1, O, 2H, 2W·N], with stride 2 and padding 1.

    The next call of the thread overwrites the result. Four output pixels meet at each corner between inputs. They
    depend on the 2×2 inputs around the corner alone, so one matrix product computes them. The rows of pixels around
    corner (i, j) are 2i − 1 and 2i.
    """
    inputs, outputs = weight.shape[:2]
    _, _, height, row = x.shape
    views = _upsampling(inputs, outputs, height, row // batch, batch)
    kernel = _corner_kernel(weight)
    views.inside.copy_(x)
    for windows, corners, corners_pixels, out in views.blocks:
        torch.mm(kernel, windows.load(), out=corners)
        out.copy_(corners_pixels)
    return views.cut


def patches_of(x: Tensor, weight: Tensor, batch: int) -> Patches:
    """Return the patches of the output of transposed_convolution. The next layer of this shape overwrites them."""
    _, _, height, row = x.shape
    return _patches(weight.shape[1], height, row // batch, batch)


def transposed_convolution_backward(back: Patches, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x [1, I, H, W·N] and of weight.

    back: patches_of(x, weight, N), with the gradient of the output in its `inside`.
    """
    inputs = x.shape[1]
    matrix, into_x, into_weight = weight.flatten(1), torch.empty_like(x), list[Tensor]()
    x_blocks = x.view(inputs, -1).split_with_sizes(back.sizes, 1)
    into_blocks = into_x.view(inputs, -1).split_with_sizes(back.sizes, 1)
    for windows, x_block, into_block in zip(back.blocks, x_blocks, into_blocks, strict=True):
        torch.mm(matrix, windows.load(), out=into_block)
        into_weight.append(torch.mm(x_block, windows.transposed))
    return into_x, reduce(Tensor.add_, into_weight).view(weight.shape)


def transposed_convolution_channels_last(x: Tensor, weight: Tensor) -> Tensor:
    """Compute transposed_convolution by a 2×2 convolution: x [N, I, H, W] to [N, O, 2H, 2W], both in channels_last."""
    batch, _, height, width = x.shape
    outputs, kernel = weight.shape[1], _corner_kernel(weight, channels_last=True)
    corners = pixels(conv2d(x, kernel.permute(0, 3, 1, 2), None, 1, 1))
    out = x.new_empty(batch, height + 1, 2, width + 1, 2 * outputs)
    out.copy_(corners.unflatten(3, (2, -1)).transpose(2, 3))
    return out.view(batch, 2 * height + 2, 2 * width + 2, outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _corner_kernel(weight: Tensor, channels_last: bool = False) -> Tensor:
    """Return the kernel [4·O, 4·I] of corners from weight [I, O, 4, 4]; in channels_last [4·O, 2, 2, I]."""
    inputs, outputs = weight.shape[:2]
    # torch takes entries of a tensor that is not contiguous three times as slowly.
    return weight.contiguous().take(_corner_order(inputs, outputs, channels_last))


@cache
def _corner_order(inputs: int, outputs: int, channels_last: bool) -> Tensor:
    """Return the positions of a corner kernel's entries in the weight of its transposed convolution."""
    # The row of a weight is 2 · (input's side) + (corner's side); farther inputs have smaller rows.
    places = np.arange(inputs * outputs * 16).reshape(inputs, outputs, 2, 2, 2, 2)[:, :, ::-1, :, ::-1]
    if channels_last:
        return torch.from_numpy(places.transpose(3, 5, 1, 2, 4, 0).reshape(4 * outputs, 2, 2, inputs))
    return torch.from_numpy(places[..., ::-1].transpose(1, 3, 5, 0, 2, 4).reshape(4 * outputs, 4 * inputs))


class Columns:
    """The layout of maps [N, C, H, W] in channels_last as [groups, ·, H·W·C]: sums [groups, C]."""

    def __init__(self, maps: Tensor, groups: int) -> None:
        batch, self.width, height, width = maps.shape
        self.groups, self.pixels = groups, height * width
        self.count = batch // groups * self.pixels  # values in a sum

    def matrix(self, maps: Tensor) -> Tensor:
        return pixels(maps).view(self.groups, -1, self.pixels * self.width)

    def sum(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1).view(self.groups, -1, self.width).sum(1)

    def spread(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1).expand(-1, self.pixels, -1).reshape(self.groups, 1, -1)


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
        self.pairs = list(zip(views, views[len(means) :], strict=False))  # means and variances, by layer
        for norm, (mean, variance), batches in zip(self.norms, self.pairs, self.batches, strict=True):
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches

    def count_batches(self, batches: int) -> None:
        """Call it before `pairs` is used."""
        mean = self.norms[0]._buffers["running_mean"]
        if mean is None or mean.data_ptr() != self.values.data_ptr():
            self._join()  # the network was moved to another device or type, or pickled
        self.batches.add_(batches)

    def update(self, sums: "Sums") -> None:
        """Update as torch does, group by group: the running variance averages the unbiased variance."""
        self.count_batches(sums.totals[0].shape[0])
        groups = torch.cat(sums.totals + sums.squares, 1)
        for group in groups.div_(_divisors(tuple(self.widths), tuple(sums.counts))).unbind():
            self.values.lerp_(group, self.norms[0].momentum or 0.0)


class Sums:
    """The sums per channel [groups, C] of a forward pass, layer by layer."""

    def __init__(self) -> None:
        self.totals: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.counts: list[int] = []  # of values in a sum

    def add(self, total: Tensor, squares: Tensor, count: int) -> None:
        self.totals.append(total)
        self.squares.append(squares)
        self.counts.append(count)


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


def normalise_backward_unscaled(back: Tensor, normalised: Tensor) -> Tensor:
    """Turn the output's gradient of normalisation and bias [1, C, H, W·N] into the input's less its factor, in place.

    The factor is the reciprocal of the deviation. Return the sums per channel. torch's own kernel sums so roughly that
    gradients of weights at 64×64 are up to 4e-6 from float64.
    """
    share = normalised.shape[1] / normalised.numel()
    total = back.sum((0, 2, 3), keepdim=True)
    along = (back * normalised).sum((0, 2, 3), keepdim=True)
    back.addcmul_(normalised, along, value=-share).sub_(total, alpha=share)
    return total


def normalise_columns(matrix: Tensor, columns: Columns, eps: float, sums: Sums) -> Tensor:
    """Normalise each channel of each group in place. Return the factors, in the layout of the matrix."""
    total, count = columns.sum(matrix), columns.count
    matrix.sub_(columns.spread(total), alpha=1 / count)
    squares = columns.sum(matrix * matrix)
    scale = columns.spread(squares.div(count).add_(eps).rsqrt_())
    matrix.mul_(scale)
    sums.add(total, squares, count)
    return scale


def normalise_columns_backward(gradient: Tensor, normalised: Tensor, scale: Tensor, columns: Columns) -> Tensor:
    """Turn the output's gradient of normalisation and bias into the input's, in place. Return its sums per channel."""
    total, along, count = columns.sum(gradient), columns.sum(gradient * normalised), columns.count
    gradient.addcmul_(normalised, columns.spread(along), value=-1 / count)
    gradient.sub_(columns.spread(total), alpha=1 / count).mul_(scale)
    return total
