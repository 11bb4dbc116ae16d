"""The statistics of scores in float64 on a GPU, where the features are. Images are not copied to the host.

The definitions are those of fid, kid and sharpness, whose numpy code runs on CPU. The order of sums differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainables.rendering import render_on_device
from trainables.scores.features import Features, TorchFeatures
from trainables.scores.fid import Moments
from trainables.scores.sharpness import LUMA
from trainables.scores.tally import Reference, Tally

_ROWS = 1_000  # rows of the kernel matrix at a time: 80 MB for 10,000 columns


def make_tally(features: Features, n: int, dims: Sequence[int] = ()) -> Tally:
    """Return a tally on the device of the features. dims: as for Tally."""
    if isinstance(features, TorchFeatures) and features.device.type == "cuda":
        return DeviceTally(features, n, dims)
    return Tally(features, n, dims)


class DeviceTally(Tally):
    """A Tally whose images, features and sums stay on the device of its features."""

    def __init__(self, features: TorchFeatures, n: int, dims: Sequence[int] = ()) -> None:
        super().__init__(features, n, dims)
        self.network, self.device = features, features.device
        self.sums = {d: DeviceMoments(d, self.device) for d in self.dims}
        self.moments = dict(self.sums)
        self._in_sample_here = torch.from_numpy(self._in_sample).to(self.device)
        self._features: dict[int, list[Tensor]] = {d: [] for d in self.dims}

    def add_rendered(self, generator: nn.Module, z: np.ndarray) -> DeviceTally:
        return self._add(render_on_device(generator, z).to(self.device))

    def add(self, images: np.ndarray) -> DeviceTally:
        return self._add(torch.tensor(images, device=self.device))

    @torch.inference_mode()
    def _add(self, here: Tensor) -> DeviceTally:
        self._check_size(here.shape)
        found, logits = self.network.on_device(here)
        self._check_dims(found)
        in_sample = self._in_sample_here[self._added : self._added + len(here)]
        for d in self.dims:
            self.sums[d].add_tensor(found[d])
            self._features[d].append(found[d][in_sample])
        if logits is not None:
            self.inception_score.add(logits.cpu().numpy())
        self.sharpness += float(sharpness(here).sum()) / self.n
        self._added += len(here)
        return self

    def _add_sample(self, dims: int, features: np.ndarray) -> None:
        self._features[dims].append(torch.from_numpy(features).to(self.device))

    def sample(self, dims: int) -> np.ndarray:
        return torch.cat(self._features[dims]).cpu().numpy()

    def kid(self, real: Reference, dims: int) -> tuple[float, float]:
        return kid(torch.cat(self._features[dims]), torch.from_numpy(real.samples[dims]).to(self.device))


class DeviceMoments(Moments):
    """Moments whose sums stay on a device until they are read."""

    def __init__(self, dims: int, device: torch.device) -> None:
        super().__init__(0)
        self.total = torch.zeros(dims, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dims, dims, dtype=torch.float64, device=device)

    def add_tensor(self, features: Tensor) -> None:
        """Add features [N, dims] on the device."""
        exact = features.double()
        self.n += len(exact)
        self.total += exact.sum(0)
        self.outer += exact.T @ exact

    def state(self) -> dict[str, np.ndarray]:
        return {"sum": self.total.cpu().numpy(), "outer": self.outer.cpu().numpy()}

    def restore(self, n: int, total: np.ndarray, outer: np.ndarray) -> None:
        self.n = n
        self.total.copy_(torch.from_numpy(total))
        self.outer.copy_(torch.from_numpy(outer))

    @property
    def mean(self) -> np.ndarray:
        self._sum = self.total.cpu().numpy()
        return super().mean

    @property
    def covariance(self) -> np.ndarray:
        self._outer = self.outer.cpu().numpy()
        return super().covariance


@torch.inference_mode()
def sharpness(images: Tensor) -> Tensor:
    """Return what scores.sharpness does, of uint8 [n, C, H, W]: float64 [n]."""
    x = images.double()
    grey = x[:, 0] if x.shape[1] == 1 else torch.einsum("nchw,c->nhw", x, torch.from_numpy(LUMA).to(x.device))
    centre = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * centre
    return laplacian.var((1, 2), correction=0)


@torch.inference_mode()
def kid(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Return what scores.kid does, of features [n, D] and [m, D] on one device."""
    x, y = generated.double(), real.double()
    n, m = len(x), len(y)
    within_x = (_row_sums(x, x) - _kernel_diagonal(x)) / (n - 1)
    within_y = (_row_sums(y, y) - _kernel_diagonal(y)) / (m - 1)
    across_x, across_y = _row_sums(x, y) / m, _row_sums(y, x) / n
    value = within_x.mean() + within_y.mean() - 2 * across_x.mean()
    variance = 4 * (within_x - across_x).var(correction=0) / n + 4 * (within_y - across_y).var(correction=0) / m
    return float(value), float(variance.sqrt())


def _row_sums(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([(block @ b.T / a.shape[1] + 1).pow(3).sum(1) for block in a.split(_ROWS)])


def _kernel_diagonal(a: Tensor) -> Tensor:
    return (a.square().sum(1) / a.shape[1] + 1).pow(3)
