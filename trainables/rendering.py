"""Render uint8 images from a generator and latents. All generated images come from `render`."""

import numpy as np
import torch
from torch import Tensor, nn

from trainables.errors import NotFiniteError
from trainables.precision import exact_float32


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 [N, C, H, W] to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Convert [-1, 1] to uint8 by rounding and clamping, so that scores equal those of saved PNGs."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


_BATCH = {"cpu": 250, "cuda": 500}  # images per forward pass


def render(generator: nn.Module, z: np.ndarray, batch_size: int | None = None) -> np.ndarray:
    """Render z [N, latent_size] to uint8 [N, C, H, W], in eval mode and float32 without TF32.

    Raises NotFiniteError if an image is NaN or infinite.
    """
    return render_on_device(generator, z, batch_size).cpu().numpy()


@torch.inference_mode()
def render_on_device(generator: nn.Module, z: np.ndarray, batch_size: int | None = None) -> Tensor:
    """Render as `render` does, and leave the images on the generator's device."""
    # Call the method of the class: Accelerate has wrapped the forward of the instance in autocast.
    generate = getattr(type(generator), "generate", type(generator).forward)
    was_training = generator.training
    generator.eval()
    device = next(generator.parameters()).device
    batch_size = batch_size or _BATCH[device.type]
    batches, finite = [], []
    with exact_float32():
        for start in range(0, len(z), batch_size):
            images = generate(generator, torch.from_numpy(z[start : start + batch_size]).to(device))
            finite.append(images.isfinite().all())
            batches.append(to_uint8(images))
    generator.train(was_training)
    # Read once: on a GPU each reading waits for it.
    if not bool(torch.stack(finite).all()):
        raise NotFiniteError("the generator's images are not finite: it has diverged; try a smaller lr")
    return torch.cat(batches)
