"""What a step sees: batches of real images and of latents, as functions of (seed, step) alone."""

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
    """Batches of the data set, in an order that depends on (seed, step) alone. On a GPU all of it, where it fits."""

    def __init__(self, pixels: np.ndarray | None, spec: TrialSpec, device: torch.device) -> None:
        self.pixels, self.batch_size, self.device = pixels, spec.batch_size, device
        self.order = Order(f"real/{spec.seed}", len(pixels) if pixels is not None else 0)
        self.resident: Tensor | None = None
        if pixels is not None and device.type == "cuda":
            whole = torch.cuda.get_device_properties(device).total_memory
            if resident_bytes(pixels.nbytes, whole):
                self.resident = torch.tensor(pixels, device=device)

    def batch(self, step: int) -> Tensor:
        """Images [batch_size, C, H, W] in [-1, 1]."""
        assert self.pixels is not None, "this loss needs real images"
        items = self.order.batch(step, self.batch_size)
        if self.resident is not None:
            return to_float(self.resident[torch.from_numpy(items).to(self.device, non_blocking=True)])
        return to_float(_moved(self.pixels[items], self.device))


class BankBatches:
    """Batches of latents: the bank's, with the teacher's images, or a GAN's own endless stream."""

    def __init__(self, bank: Bank | None, spec: TrialSpec, device: torch.device) -> None:
        wanted = Part.BANK in spec.rule.loads
        assert bank is not None or not wanted, "a loss that compares with the teacher's images needs the bank"
        self.bank = bank if wanted else None
        self.batch_size, self.seed, self.device = spec.batch_size, spec.seed, device
        self.order = Order(f"bank/{spec.seed}", self.bank.count if self.bank else 0)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """z [batch_size, 100], and the teacher's images of them, [batch_size, C, H, W] in [-1, 1], or None."""
        if self.bank is None:
            z = latents(f"training/{self.seed}", step * self.batch_size, self.batch_size)
            return _moved(z, self.device), None
        known, images = self.bank(self.order.batch(step, self.batch_size))
        return _moved(known, self.device), to_float(_moved(images, self.device))


def _moved(batch: np.ndarray, device: torch.device) -> Tensor:
    """To a GPU from pinned memory: from other memory the copy of a large batch waits for what the GPU is doing."""
    host = torch.from_numpy(batch)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
