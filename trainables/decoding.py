"""Find image files, and decode them into uint8 arrays."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from trainables.errors import UserError

# What Pillow thinks of an image is no message to the user. An image that it cannot read raises an error.
warnings.filterwarnings("ignore", module=r"PIL\.")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
_CONVERTIBLE = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "F", *_GREY)
EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path. Links to files and to folders are followed.

    Raises UserError if there are none, and for what would be left out: a folder that cannot be read, a link to a folder
    above it or to nothing, an image that is no regular file, and a subfolder whose files are all of other kinds.
    """
    files, kinds = sorted(Path(path) for path in _walk(str(folder), ())), " ".join(sorted(EXTENSIONS))
    if not files:
        raise UserError(
            f"{folder} holds no image; add images ({kinds}), in one subfolder per class if they have classes"
        )
    with_images = {file.relative_to(folder).parts[0] for file in files}
    for path in sorted(folder.iterdir()):
        is_class = path.name not in with_images and not path.name.startswith(".") and path.is_dir()
        if is_class and any(names for _, _, names in os.walk(path)):
            raise UserError(f"{path} has files, and none of them is an image ({kinds}); convert them, or move it away")
    return files


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the paths of images. above: (device, inode) of the folders that lead here."""
    try:
        status = os.stat(folder)
        if (here := (status.st_dev, status.st_ino)) in above:
            raise UserError(f"{folder} is a link to a folder above it, which has no end; remove it")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _walk(entry.path, (*above, here))
                elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                    if not entry.is_file():
                        what = "a link to nothing" if entry.is_symlink() else "not a regular file"
                        raise UserError(f"{entry.path} is {what}; replace it or remove it from the folder")
                    yield entry.path
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); correct its permissions or remove it") from None


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
            with _opened(image) as file:
                # Upright, and in a mode that is known to convert to grey and to RGB.
                upright = ImageOps.exif_transpose(file)
                loaded = upright if upright.mode in _CONVERTIBLE else upright.convert("RGB")
            yield loaded
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
    with _opened(path) as image:
        return image.size


def is_grey(path: Path) -> bool:
    with _opened(path) as image:
        return image.mode in _GREY


def is_turned(path: Path) -> bool:
    """Return whether the EXIF orientation of an image says that its pixels are to be rotated or mirrored."""
    with _opened(path) as image:
        if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
            return False  # Pillow would decode the image to look for it at the end
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image for the block. Raises UserError if it cannot be read, there or in the block."""
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow raises errors of twenty kinds for the files of strangers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); replace it or remove it from the folder") from None
