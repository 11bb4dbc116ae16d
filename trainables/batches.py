"""Batches of real images and of latents, as pure functions of (seed, step).

On a GPU the images are kept on it, and the indices of many batches are copied at a time, so that a step copies nothing.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainables import networks
from trainables.arithmetic import bank_bytes
from trainables.bank import Bank
from trainables.latents import Order, latents
from trainables.narrow import innermost
from trainables.objectives import Part
from trainables.rendering import to_float
from trainables.resident import Tensors, copied, lives_on, resident
from trainables.spec import TrialSpec

WINDOW = 65_536  # items whose indices or latents are copied at a time: 0.5 MB of indices, 26 MB of latents
AHEAD = 2**20  # bytes of images that the host reads at a time: 16 batches of 64 at 32×32 in one channel


class Window:
    """The indices or latents of the next batches, in a tensor on the device whose address a CUDA graph may keep.

    rows: batches per window, a multiple of n_critic, so that no update needs two windows.
    """

    def __init__(self, make: Callable[[int, int], np.ndarray], spec: TrialSpec, device: torch.device) -> None:
        """make: (number of the window, rows) → [rows, batch_size, …]."""
        self.make, self.device = make, device
        self.rows = spec.n_critic * max(1, WINDOW // (spec.batch_size * spec.n_critic))
        self.number, self.table = -1, torch.empty(0, device=device)

    def turn(self, step: int) -> int:
        """Load the window of this batch, if it is not loaded. Return the batch's row in it."""
        number, row = divmod(step, self.rows)
        if number != self.number:
            loaded = _to_device(self.make(number, self.rows), self.device)
            if self.number < 0:
                self.table = torch.empty_like(loaded)
            self.table.copy_(loaded)
            self.number = number
        return row


class _ReadAhead:
    """Batches on the host. Several batches are read at once, which is faster than one by one."""

    def __init__(self, order: Order, read: Callable[[np.ndarray], tuple[Tensor, ...]], spec: TrialSpec) -> None:
        """read: item numbers [rows, batch_size] → tensors [rows, batch_size, …] of these items."""
        self.order, self.read, self.spec = order, read, spec
        self.rows = max(1, AHEAD // (spec.batch_size * spec.channels * spec.image_size**2))
        self.number, self.tensors = -1, tuple[Tensor, ...]()

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """Return the tensors [batch_size, …] of batch `step`."""
        number, row = divmod(step, self.rows)
        if number != self.number:
            self.tensors = self.read(_items(self.order, number, self.rows, self.spec))
            self.number = number
        return tuple(tensor[row] for tensor in self.tensors)


class RealBatches:
    """Batches of the data set, in an order that depends only on (seed, step). The set is kept on a GPU if it fits."""

    def __init__(self, pixels: np.ndarray | None, spec: TrialSpec, device: torch.device) -> None:
        self.device = device
        order = Order(f"real/{spec.seed}", len(pixels) if pixels is not None else 0)
        self.tensors: Tensors = ()
        self.window: Window | None = None
        self.on_host = (
            _ReadAhead(order, lambda items: (torch.from_numpy(pixels[items]),), spec) if pixels is not None else None
        )
        if pixels is not None and lives_on(device) and Part.REAL in spec.loads:
            images = pixels
            found = resident(pixels, device, images.nbytes, lambda: (copied([images], len(images), device),))
            self.tensors = found or ()
            if found:
                self.window = Window(lambda number, rows: _items(order, number, rows, spec), spec, device)

    def batch(self, step: int) -> Tensor:
        """Return images [batch_size, C, H, W] in [-1, 1]."""
        assert self.on_host is not None, "this loss needs real images"
        if self.window is not None:
            row = self.window.turn(step)
            return self._select(self.window.table[row])
        (pixels,) = self.on_host(step)
        return to_float(_moved(pixels, self.device))

    def at(self, row: Tensor) -> Tensor:
        """Return the same for a row [1] of the window, which is read on the device."""
        assert self.window is not None
        return self._select(self.window.table.index_select(0, row)[0])

    def _select(self, items: Tensor) -> Tensor:
        return to_float(self.tensors[0].index_select(0, items))


class BankBatches:
    """Batches of latents: those of the bank with the teacher's images, or the endless stream of a GAN."""

    def __init__(self, bank: Bank | None, spec: TrialSpec, device: torch.device, beside: Tensors = ()) -> None:
        """beside: tensors that the trial keeps on the device already."""
        uses_bank = Part.BANK in spec.loads
        assert bank is not None or not uses_bank, "a loss that compares with the teacher's images needs the bank"
        self.bank = bank if uses_bank else None
        self.batch_size, self.device, self.law = spec.batch_size, device, spec.law
        self.stream = f"training/{spec.seed}"
        is_plain = spec.precision == "no" and not spec.compile
        self.is_narrow = is_plain and networks.is_narrow(spec.generator, spec.batch_size, device)
        order = Order(f"bank/{spec.seed}", self.bank.count if self.bank else 0)
        self.on_host = _ReadAhead(order, self._read, spec) if self.bank else None
        self.tensors: Tensors = ()
        self.window: Window | None = None
        if not lives_on(device):
            return
        if self.bank is None:
            self.window = Window(self._latents, spec, device)
        elif found := resident(self.bank, device, bank_bytes(spec), self._copied, beside):
            self.tensors = found
            self.window = Window(lambda number, rows: _items(order, number, rows, spec), spec, device)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return z [batch_size, latent_size] and the teacher's images [batch_size, C, H, W] in [-1, 1], or None."""
        if self.window is not None:
            row = self.window.turn(step)
            return self._select(self.window.table[row])
        if self.on_host is None:
            z = latents(self.stream, step * self.batch_size, self.batch_size, self.law)
            return _to_device(z, self.device), None
        chosen, images = (_moved(tensor, self.device) for tensor in self.on_host(step))
        return chosen, to_float(images)

    def at(self, row: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the same for a row [1] of the window, which is read on the device."""
        assert self.window is not None
        return self._select(self.window.table.index_select(0, row)[0])

    def _select(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.bank is None:
            return items, None
        z, images = self.tensors
        return z.index_select(0, items), to_float(images.index_select(0, items))

    def _read(self, items: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return z and images [rows, batch_size, …], the images in the order in memory of the generator's."""
        assert self.bank is not None
        z, images = (torch.from_numpy(array).unflatten(0, items.shape) for array in self.bank(items.ravel()))
        return z, innermost(images) if self.is_narrow else images

    def _copied(self) -> Tensors:
        assert self.bank is not None
        count = self.bank.count
        return copied([self.bank.z], count, self.device), copied(self.bank.shards(), count, self.device)

    def _latents(self, number: int, rows: int) -> np.ndarray:
        found = latents(self.stream, number * rows * self.batch_size, rows * self.batch_size, self.law)
        return found.reshape(rows, self.batch_size, self.law.size)


def _items(order: Order, number: int, rows: int, spec: TrialSpec) -> np.ndarray:
    """Return the indices of a window's batches: int64 [rows, batch_size]."""
    return order.batch(number, rows * spec.batch_size).reshape(rows, spec.batch_size)


def _to_device(batch: np.ndarray, device: torch.device) -> Tensor:
    return _moved(torch.from_numpy(batch), device)


def _moved(host: Tensor, device: torch.device) -> Tensor:
    # Only a copy from pinned memory is asynchronous.
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
