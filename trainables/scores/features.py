"""Features for scores: a fixed network with its preprocessing."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainables.precision import exact_float32


@dataclass(frozen=True)
class Activations:
    """features: [N, D] by D, from one forward pass; logits: [N, K], or None without classes."""

    features: dict[int, np.ndarray]
    logits: np.ndarray | None = None


class Features(Protocol):
    """A fixed network for uint8 [N, C, H, W]. It converts greyscale to RGB, resizes and normalises."""

    name: str  # of the network, with a hash of its weights: "classifier-3f2a91c0d4e5"
    dims: int  # default number of features
    preprocessing: str  # a description; part of the protocol

    def __call__(self, images: np.ndarray) -> Activations: ...


class TorchFeatures:
    """Base class for torch networks: device, memory format and batch size."""

    def __init__(
        self, network: Any, name: str, dims: int, preprocessing: str, batch_size: int, on_cpu: int | None = None
    ) -> None:
        """batch_size, on_cpu: images per forward pass on a GPU and on a CPU.

        On an H100 200 at once gave Inception 18% more images per second than 50, and EfficientNet took 5 GB for them.
        On a CPU glibc returns each block above 32 MB to the system, and its pages are faulted in again: 50 images at
        224×224 took EfficientNet 22.9 ms each, half of it faults, and 4 at once 9.8.
        """
        self.name, self.dims, self.preprocessing = name, dims, preprocessing
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = on_cpu if on_cpu and self.device.type == "cpu" else batch_size
        self.network = network.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        """Map uint8 [N, C, H, W] on the device to features by dimension, and logits or None."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def map(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1] on the device to features [N, dims], with gradients to the images."""
        with exact_float32():
            features, _ = self.forward(images.add(1.0).mul(127.5))
        return features[self.dims]

    def on_device(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        """Return features by dimension, and logits or None, of uint8 images [N, C, H, W]. All are on the device."""
        features: dict[int, list[Tensor]] = {}
        logits: list[Tensor] = []
        with torch.inference_mode(), exact_float32():
            for batch in images.split(self.batch_size):
                found, scores = self.forward(batch.contiguous(memory_format=torch.channels_last))
                for dims, values in found.items():
                    features.setdefault(dims, []).append(values)
                if scores is not None:
                    logits.append(scores)
        return {dims: torch.cat(values) for dims, values in features.items()}, torch.cat(logits) if logits else None

    def __call__(self, images: np.ndarray) -> Activations:
        features: dict[int, list[np.ndarray]] = {}
        logits: list[np.ndarray] = []
        with torch.inference_mode(), exact_float32():
            for start in range(0, len(images), self.batch_size):
                batch = torch.tensor(images[start : start + self.batch_size], device=self.device)
                batch_features, batch_logits = self.forward(batch.contiguous(memory_format=torch.channels_last))
                for dims, values in batch_features.items():
                    features.setdefault(dims, []).append(values.cpu().numpy())
                if batch_logits is not None:
                    logits.append(batch_logits.cpu().numpy())
        return Activations(
            {dims: np.concatenate(values) for dims, values in features.items()},
            np.concatenate(logits) if logits else None,
        )


def as_colour(images: Tensor) -> Tensor:
    """Expand one channel to three."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def fold_normalisation(network: nn.Module, convolution: str, normalisation: str) -> None:
    """Fold each BatchNorm into the convolution before it, in every submodule that has both under these names.

    The fusion is in float64: a rounding error of a weight is the same for all images and would bias a score.
    """
    for module in network.modules():
        conv, norm = getattr(module, convolution, None), getattr(module, normalisation, None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(conv.double().eval(), norm.double().eval()).float()
            setattr(module, convolution, fused)
            setattr(module, normalisation, nn.Identity())
