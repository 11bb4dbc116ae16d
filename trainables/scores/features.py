"""What scores are computed on: a fixed network, and everything that happens to an image before it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainables.errors import EnvironmentUserError
from trainables.precision import exact_float32


@dataclass(frozen=True)
class Activations:
    """features: dimensions → [N, dimensions], all of one forward pass; logits: [N, K], or None without classes."""

    features: dict[int, np.ndarray]
    logits: np.ndarray | None = None


class Features(Protocol):
    """A fixed network. It takes uint8 [N, C, H, W] and owns greyscale → RGB, resizing and normalisation."""

    name: str  # network and hash of its weights: "classifier-3f2a91c0d4e5"
    dims: int  # what scores are computed on, unless others are asked for
    preprocessing: str  # in words; part of the protocol

    def __call__(self, images: np.ndarray) -> Activations: ...


class TorchFeatures:
    """What networks of torch share: device, memory format, folded normalisation, batches that fit."""

    def __init__(self, network: Any, name: str, dims: int, preprocessing: str, batch_size: int) -> None:
        self.name, self.dims, self.preprocessing, self.batch_size = name, dims, preprocessing, batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        """uint8 [N, C, H, W] on the device → features by dimensions, and logits."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def map(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] on the device → features [N, dims], with gradients to the images."""
        with exact_float32():
            features, _ = self.forward(images.add(1.0).mul(127.5))
        return features[self.dims]

    def __call__(self, images: np.ndarray) -> Activations:
        features: dict[int, list[np.ndarray]] = {}
        logits: list[np.ndarray] = []
        with torch.inference_mode(), exact_float32():
            for start in range(0, len(images), self.batch_size):
                batch = torch.tensor(images[start : start + self.batch_size], device=self.device)
                found, scores = self.forward(batch.contiguous(memory_format=torch.channels_last))
                for dims, values in found.items():
                    features.setdefault(dims, []).append(values.cpu().numpy())
                if scores is not None:
                    logits.append(scores.cpu().numpy())
        return Activations(
            {dims: np.concatenate(values) for dims, values in features.items()},
            np.concatenate(logits) if logits else None,
        )


def as_colour(images: Tensor) -> Tensor:
    """One channel becomes three equal ones."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def fold_normalisation(network: nn.Module, convolution: str, normalisation: str) -> None:
    """Fold each BatchNorm into the convolution before it, in every submodule that has both under these names.

    In float64: an error of a folded weight is the same in every image, and so would not average out of a score.
    """
    for module in network.modules():
        conv, norm = getattr(module, convolution, None), getattr(module, normalisation, None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(conv.double().eval(), norm.double().eval()).float()
            setattr(module, convolution, fused)
            setattr(module, normalisation, nn.Identity())


def needs_file(path: Path, what: str) -> Path:
    """Raise EnvironmentUserError unless a weights file is there."""
    if not path.exists():
        raise EnvironmentUserError(
            f"{what} is not at {path}: put it there, or use --features imagenet (pip install 'sweeper[imagenet]'), or "
            "sort the images into one subfolder per class and use --features classifier"
        )
    return path
