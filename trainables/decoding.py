"""Decode image files into uint8 arrays."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.errors import UserError

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path. Raises UserError if there are none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        kinds = " ".join(sorted(EXTENSIONS))
        raise UserError(
            f"{folder} holds no image; add images ({kinds}), in one subfolder per class if they have classes"
        )
    return files


def folder_batches(files: Sequence[Path], batch_size: int = 50) -> Iterator[np.ndarray]:
    """Yield images at their original sizes as RGB: uint8 [N, 3, H, W]. Consecutive images of one size form a batch.

    An alpha channel is dropped and greyscale becomes RGB, as in pytorch-fid.
    """
    batch: list[np.ndarray] = []
    for image in open_images(files):
        pixels = np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
        if batch and (batch[0].shape != pixels.shape or len(batch) == batch_size):
            yield np.stack(batch)
            batch = []
        batch.append(pixels)
    if batch:
        yield np.stack(batch)


def open_images(images: Sequence[Any], start: int = 0, end: int | None = None) -> Iterator[Image.Image]:
    """Yield paths, uint8 arrays or PIL images as PIL images. Raises UserError for a file that cannot be read."""
    for index in range(start, len(images) if end is None else end):
        image = images[index]
        if isinstance(image, Path):
            try:
                with Image.open(image) as file:
                    file.load()
                    yield file
            except (OSError, SyntaxError, ValueError) as error:
                raise UserError(f"{image} cannot be read ({error}); replace it or remove it from the folder") from None
        else:
            yield image if isinstance(image, Image.Image) else Image.fromarray(image)


def to_square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Crop the central square, resize it (bicubic), and return it as uint8 [channels, size, size].

    An image of 28×28 is first padded to 32×32 with the colour of its corner.
    """
    if image.mode.startswith("I"):  # 16-bit greyscale: keep the upper 8 bits
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size == (28, 28):
        padded = Image.new(image.mode, (32, 32), image.getpixel((0, 0)) or 0)
        padded.paste(image, (2, 2))
        image = padded
    side = min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header of a file."""
    return _header(path).size


def is_grey(path: Path) -> bool:
    return _header(path).mode in _GREY


def _header(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); replace it or remove it from the folder") from None
