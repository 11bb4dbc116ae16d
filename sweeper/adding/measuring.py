"""Read from samples what a file does not say: the range of a generator's values, and the law of its latents."""

from typing import Any

import numpy as np

from trainables.errors import UserError
from trainables.onnx_generator import OnnxGenerator
from trainables.shapes import LatentLaw

RANGES = ("-1,1", "0,1", "0,255")
_OUTSIDE, _FILLED = 0.25, 0.02  # of a range's width: how far beyond it values may lie, and how much they must fill
_ENOUGH = 10_000  # numbers of latents that tell one law from another


def measured_range(given: str | None, images: np.ndarray) -> tuple[float, float]:
    """Return (low, high): the given range, else that of the images [n, C, H, W].

    Raises UserError if it is unclear, and if the images lie outside the given one or fill next to nothing of it.
    """
    if given is not None and given not in RANGES:
        raise UserError(f"--range {given}: it is one of {', '.join(RANGES)}; write --range=-1,1")
    low, high = float(images.min()), float(images.max())
    found = given
    if found is None and images.dtype.kind in "ui":
        found = "0,255"
    if found is None and low < -0.1 and low >= -1.1 and high <= 1.1:
        found = "-1,1"
    if found is None and low >= 0 and 0.2 < high <= 1:
        found = "0,1"
    if found is None and low >= -1 and 20 < high <= 256:
        found = "0,255"
    if found is None:
        raise UserError(
            f"the values of its images are from {low:.3g} to {high:.3g}; say their range with --range=-1,1, "
            "--range 0,1 or --range 0,255"
        )
    first, last = (float(word) for word in found.split(","))
    width = last - first
    outside = low < first - _OUTSIDE * width or high > last + _OUTSIDE * width
    if given is not None and (outside or high - low < _FILLED * width):
        values = f"the values of its images are from {low:.3g} to {high:.3g}"
        raise UserError(f"--range {found}: {values}; name the range that they fill, one of {', '.join(RANGES)}")
    return first, last


def measured_law(given: str | None, bound: float | None, size: int, z: np.ndarray | None) -> LatentLaw:
    """Return the law of latents: the given one, else that of z [n, size], if there is a z. Raises UserError."""
    if given is None:
        given = _law_of(z) if z is not None else None
    if given is None:
        raise UserError(
            "the law of its latents cannot be read; say --latent-law normal, --latent-law uniform (in [-1, 1]), or "
            "--latent-law truncated --latent-bound 2"
        )
    if (given == "truncated") != (bound is not None):
        raise UserError(f"--latent-law {given}: --latent-bound is for truncated latents, which need it")
    limit = {"uniform": 1.0, "truncated": bound}.get(given)
    if z is not None and limit is not None and (largest := float(np.abs(z).max())) > limit * (1 + 1e-6):
        raise UserError(f"--latent-law {given}: z.npy has {largest:.3g}, beyond ±{limit:g}")
    return LatentLaw(size, given, bound)


def _law_of(z: np.ndarray) -> str | None:
    """Return uniform or normal if the numbers are clearly of that law."""
    largest, spread = float(np.abs(z).max()), float(z.std())
    if z.size < _ENOUGH or abs(float(z.mean())) > 0.05:
        return None
    if largest <= 1 and abs(spread - 3**-0.5) < 0.02:
        return "uniform"
    return "normal" if largest > 3.3 and abs(spread - 1) < 0.05 else None


def check_images(name: str, images: Any, sizes: tuple[int, ...]) -> None:
    """Raise UserError unless images [n, C, H, W] are square, of one or three channels, and can be averaged."""
    channels, height, width = images.shape[1:]
    if channels not in (1, 3):
        raise UserError(f"{name} makes images of {channels} channels; students have 1 or 3")
    if height != width or all(height % size for size in sizes):
        raise UserError(
            f"{name} makes images of {width}×{height}; students learn from square ones whose side is a multiple of "
            f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]}"
        )


def check_repeats(name: str, generator: OnnxGenerator, z: np.ndarray, images: np.ndarray) -> None:
    """Raise UserError unless each image depends on its latent alone. images: of z, in one batch."""
    scale = float(np.abs(images).max()) or 1.0
    if not np.abs(generator(z[:3]) - images[:3]).max() <= 0.01 * scale:
        raise UserError(
            f"{name} makes other images of the same latents in another batch; export it in eval mode and without noise"
        )
