"""A trial's sample grid: one PNG of images from the same latents for every trial."""

from pathlib import Path

import numpy as np
from PIL import Image

from trainables.files import replacing
from trainables.notes import note

SAMPLES = 32  # images in a grid
ACROSS = 8  # images in a row


def image_of(pixels: np.ndarray) -> Image.Image:
    """Convert uint8 [C, H, W] to a PIL image, grey if C = 1."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def save_samples(path: Path, images: np.ndarray) -> None:
    """Write uint8 [n, C, H, W] as one PNG, ACROSS images in a row, without gaps."""
    rows = [np.concatenate(list(images[start : start + ACROSS]), axis=-1) for start in range(0, len(images), ACROSS)]
    with replacing(path) as temporary:
        image_of(np.concatenate(rows, axis=-2)).save(temporary, format="PNG", optimize=True)


def load_samples(path: Path, count: int) -> list[Image.Image]:
    """Return the first `count` images of a grid. Empty if the file does not exist or, with a note, is damaged."""
    if not path.is_file():
        return []
    try:
        with Image.open(path) as grid:
            side = grid.width // ACROSS
            corners = [(i % ACROSS * side, i // ACROSS * side) for i in range(min(count, SAMPLES))]
            return [grid.crop((x, y, x + side, y + side)) for x, y in corners]
    except (OSError, SyntaxError, ValueError):
        note(f"{path} is damaged; its samples are left out")
        return []
