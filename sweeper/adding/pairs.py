"""Read a folder of pairs: z.npy, and the images of its rows as images.npy or as image files named by row."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainables.decoding import image_files, image_size, is_grey, open_images
from trainables.errors import SpoiledError, UserError
from trainables.tensors import check_finite, map_file

Z, IMAGES = "z.npy", "images.npy"
CHUNK = 256  # images at a time


def read_latents(folder: Path) -> np.ndarray:
    """Return z: float32 [n, k]. Raises UserError."""
    try:
        z = map_file(folder / Z)
        if z.ndim < 2 or z.dtype.kind != "f" or set(z.shape[2:]) - {1}:
            raise SpoiledError(folder / Z, f"holds {z.dtype} {list(z.shape)}, not floats [n, k]")
        latents = np.asarray(z, dtype=np.float32).reshape(len(z), -1)
        check_finite(folder / Z, {"z": latents})
    except SpoiledError as error:
        raise UserError(f"{error}; a folder of pairs has {Z} and {IMAGES}, or image files named by row") from None
    return latents


def read_images(folder: Path, rows: int) -> np.ndarray | list[Path]:
    """Return the images of the rows: an array [n, C, H, W], or one file per row. Raises UserError."""
    if (folder / IMAGES).exists():
        try:
            images = map_file(folder / IMAGES)
        except SpoiledError as error:
            raise UserError(str(error)) from None
        if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype.kind not in "fu":
            raise UserError(
                f"{folder / IMAGES} holds {images.dtype} {list(images.shape)}, not images [n, 1 or 3, H, W]"
            )
        _check_count(folder, len(images), rows)
        return images
    files = image_files(folder)
    named = {int(file.stem): file for file in files if file.stem.isdecimal()}
    _check_count(folder, len(files), rows)
    if sorted(named) != list(range(rows)):
        raise UserError(f"{folder}: the image files are not named by the rows of {Z}: 0 to {rows - 1}, each once")
    return [named[row] for row in range(rows)]


def chunks(images: np.ndarray | list[Path]) -> Iterator[np.ndarray]:
    """Yield all images, [n, C, H, W], in the order of their rows: files as uint8. Raises UserError."""
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        if isinstance(part, np.ndarray):
            check_finite(Path(IMAGES), {"images": part})
            yield part
        else:
            yield _decoded(part, images[0])


def _decoded(files: list[Path], first: Path) -> np.ndarray:
    """Decode files to the colour and size of the first one."""
    size, mode = image_size(first), "L" if is_grey(first) else "RGB"
    pixels = [np.asarray(image.convert(mode), dtype=np.uint8) for image in open_images(files)]
    for file, image in zip(files, pixels, strict=True):
        if image.shape[1::-1] != size:
            raise UserError(f"{file} is {image.shape[1]}×{image.shape[0]}, and {first} is {size[0]}×{size[1]}")
    array = np.stack(pixels)
    return array[:, None] if mode == "L" else array.transpose(0, 3, 1, 2)


def _check_count(folder: Path, images: int, rows: int) -> None:
    if images != rows:
        raise UserError(f"{folder} has {rows} latents in {Z} and {images} images; each latent needs its image")
