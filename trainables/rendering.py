"""From a generator and latents to uint8 images: the one way to make an image."""

import numpy as np
import torch
from torch import Tensor, nn

from trainables.errors import NotFiniteError
from trainables.precision import exact_float32


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] → float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """A generator's output in [-1, 1] → uint8, rounded and clamped, so that scores equal those of saved PNGs."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@torch.inference_mode()
def render(generator: nn.Module, z: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """The one way to make an image: eval mode, float32, TF32 off. z [N, 100] → uint8 [N, C, H, W].

    Raises NotFiniteError.
    """
    was_training = generator.training
    generator.eval()
    device = next(generator.parameters()).device
    batches = []
    with exact_float32():
        for start in range(0, len(z), batch_size):
            # The class's own forward: Accelerate has wrapped the instance's in autocast.
            images = type(generator).forward(generator, torch.from_numpy(z[start : start + batch_size]).to(device))
            if not bool(images.isfinite().all()):
                raise NotFiniteError("the generator's images are not finite: it has diverged; try a smaller lr")
            batches.append(to_uint8(images).cpu().numpy())
    generator.train(was_training)
    return np.concatenate(batches)
