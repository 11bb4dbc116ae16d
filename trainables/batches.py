"""Batches of real images and of latents, as pure functions of (seed, step)."""

import numpy as np
import torch
from torch import Tensor

from trainables.arithmetic import resident_bytes
from trainables.bank import Bank
from trainables.latents import Order, latents
from trainables.objectives import Part
from trainables.rendering import to_float
from trainables.spec import TrialSpec


class RealBatches:
    """Batches of the data set, in an order that depends only on (seed, step). The set is kept on a GPU if it fits."""

    def __init__(self, pixels: np.ndarray | None, spec: TrialSpec, device: torch.device) -> None:
        self.pixels, self.batch_size, self.device = pixels, spec.batch_size, device
        self.order = Order(f"real/{spec.seed}", len(pixels) if pixels is not None else 0)
        self.resident: Tensor | None = None
        if pixels is not None and device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory
            if resident_bytes(pixels.nbytes, memory):
                self.resident = torch.tensor(pixels, device=device)

    def batch(self, step: int) -> Tensor:
        """Return images [batch_size, C, H, W] in [-1, 1]."""
        assert self.pixels is not None, "this loss needs real images"
        items = self.order.batch(step, self.batch_size)
        if self.resident is not None:
            return to_float(self.resident[torch.from_numpy(items).to(self.device, non_blocking=True)])
        return to_float(_to_device(self.pixels[items], self.device))


class BankBatches:
    """Batches of latents: those of the bank with the teacher's images, or the endless stream of a GAN."""

    def __init__(self, bank: Bank | None, spec: TrialSpec, device: torch.device) -> None:
        uses_bank = Part.BANK in spec.rule.loads
        assert bank is not None or not uses_bank, "a loss that compares with the teacher's images needs the bank"
        self.bank = bank if uses_bank else None
        self.batch_size, self.seed, self.device = spec.batch_size, spec.seed, device
        self.order = Order(f"bank/{spec.seed}", self.bank.count if self.bank else 0)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return z [batch_size, 100] and the teacher's images [batch_size, C, H, W] in [-1, 1], or None."""
        if self.bank is None:
            z = latents(f"training/{self.seed}", step * self.batch_size, self.batch_size)
            return _to_device(z, self.device), None
        z, images = self.bank(self.order.batch(step, self.batch_size))
        return _to_device(z, self.device), to_float(_to_device(images, self.device))


def _to_device(batch: np.ndarray, device: torch.device) -> Tensor:
    # Only a copy from pinned memory is asynchronous.
    host = torch.from_numpy(batch)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
