"""Sharpness: the variance of the Laplacian."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from trainables.images import Images
from trainables.scores.sharpness import sharpness as sharpness_per_image


def sharpness(images: np.ndarray) -> float:
    return float(sharpness_per_image(images).mean())


def test_the_sharpness_of_a_flat_image_is_0() -> None:
    assert sharpness(np.full((3, 1, 16, 16), 99, dtype=np.uint8)) == 0


def test_the_sharpness_of_a_ramp_is_0() -> None:
    ramp = np.tile(np.arange(16, dtype=np.uint8) * 10, (1, 1, 16, 1))
    assert sharpness(ramp) == 0


def test_a_checkerboard_has_the_closed_form() -> None:
    """Each interior Laplacian of a 0/v checkerboard is ±4v, in equal numbers: the variance is 16 v²."""
    board = (np.indices((18, 18)).sum(0) % 2 * 10).astype(np.uint8)[None, None]
    assert sharpness(board) == pytest.approx(16 * 10**2)


def test_blur_lowers_sharpness(digits: Images) -> None:
    sharp = digits.pixels[:50]
    blurred = np.stack([np.asarray(Image.fromarray(x[0]).filter(ImageFilter.GaussianBlur(1)))[None] for x in sharp])
    assert sharpness(blurred) < 0.5 * sharpness(sharp)


def test_greyscale_as_rgb_has_the_same_sharpness(digits: Images) -> None:
    grey = digits.pixels[:20]
    assert sharpness(grey.repeat(3, axis=1)) == pytest.approx(sharpness(grey))
