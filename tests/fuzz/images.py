"""Folders of images for the fuzz: files that Pillow reads, files that it does not, and what is no file."""

import os
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tiff": "TIFF", "ppm": "PPM"}
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "GIF": ["L", "P", "RGB"],
    "BMP": ["1", "L", "P", "RGB"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I", "I;16"],
    "PPM": ["1", "L", "RGB", "I"],
}


def encoded(rng: random.Random) -> tuple[str, bytes]:
    """Return a suffix and the bytes of an image of a random format, mode, size and orientation."""
    suffix, kind = rng.choice(list(FORMATS.items()))
    size = (rng.choice([1, 2, 28, 40, 200]), rng.choice([1, 3, 28, 50]))
    image = Image.new(rng.choice(MODES[kind]), size)
    more: dict[str, object] = {}
    if kind in ("GIF", "WEBP") and rng.random() < 0.3:
        more = {"save_all": True, "append_images": [image.copy() for _ in range(3)]}
    elif kind in ("JPEG", "TIFF", "PNG") and rng.random() < 0.5:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = rng.choice([0, 1, 2, 3, 6, 8, 9, 60_000])
        more = {"exif": exif}
    file = BytesIO()
    image.save(file, kind, **more)
    return suffix, file.getvalue()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes that are cut, changed, doubled, empty or no image."""
    which = rng.randrange(6)
    if which == 0:
        return content[: rng.randrange(len(content))]
    if which in (1, 2):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if which == 3:
        return content + content
    if which == 4:
        return b""
    return rng.randbytes(rng.choice([1, 100, 5000]))


def bomb(rng: random.Random) -> bytes:
    """Return a PNG whose header declares more pixels than any memory holds."""
    side = rng.choice([20_000, 60_000, 2**31 - 1])
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\x01IDAT"
    )


def fill(folder: Path, rng: random.Random) -> bool:
    """Write a folder of images with one thing that is odd. Return whether a command must refuse the folder."""
    for number in range(3):
        suffix, content = encoded(rng)
        place = folder / rng.choice([".", "a", "b"])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.{suffix}").write_bytes(content)
    odd, refused = folder / "odd.png", True
    kind = rng.choice(["none", "damaged", "bomb", "fifo", "folder", "link", "loop", "dangling", "name", "device"])
    if kind == "damaged":
        suffix, content = encoded(rng)
        (folder / f"odd.{suffix}").write_bytes(damaged(content, rng))
        refused = False  # Pillow may read it
    elif kind == "bomb":
        odd.write_bytes(bomb(rng))
    elif kind == "fifo":
        os.mkfifo(odd)
    elif kind == "loop":
        (folder / "again").symlink_to(folder)
    elif kind == "dangling":
        odd.symlink_to("nothing.png")
    elif kind == "device":
        odd.symlink_to(rng.choice(["/dev/zero", "/dev/null"]))
    else:
        refused = False
        if kind == "folder":
            odd.mkdir()
        elif kind == "link":
            (folder / "c").symlink_to(next(path for path in folder.iterdir() if path.is_dir() or path.suffix))
        elif kind == "name":
            suffix, content = encoded(rng)
            with open(os.fsencode(folder) + b"/\xff\n[red] odd." + suffix.encode(), "wb") as file:
                file.write(content)
    return refused
