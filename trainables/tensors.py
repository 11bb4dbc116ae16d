"""The one reader of files of tensors and arrays. Whatever is wrong with a file, it is one SpoiledError."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from trainables.errors import SpoiledError
from trainables.existence import exists
from trainables.files import replacing

CHECKSUM = "checksum"  # key in the header of a safetensors file
_DIGEST_BYTES = hashlib.sha256().digest_size  # after the array of an npy file


def read_file(path: Path, recorded: str | None = None) -> bytes:
    """Return the content of a file. recorded: its hash (files.file_hash), if there is a record of it.

    Raises SpoiledError if it is missing, no regular file or not the recorded one; OSError if it cannot be read.
    """
    _check_regular(path)
    content = path.read_bytes()
    if recorded is not None:
        found = hashlib.sha256(content).hexdigest()[: len(recorded)]
        if found != recorded:
            raise SpoiledError(path, f"is not the file that was recorded (its hash is {found}, not {recorded})")
    return content


def read_tensors(
    path: Path, *, like: Mapping[str, Any] | None = None, recorded: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file. A checksum in the header is verified.

    like: the expected tensors or arrays by name; names, shapes and types must be equal. recorded: as for `read_file`.
    Raises SpoiledError, and OSError if the file cannot be read.
    """
    content = read_file(path, recorded)
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(header.get("__metadata__") or {})
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SpoiledError(path, "is damaged: it is no complete safetensors file") from None
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(arrays, metadata):
        raise SpoiledError(path, "is damaged: its content does not match its checksum")
    if like is not None and (difference := _difference(arrays, like)):
        raise SpoiledError(path, f"is not of this network: {difference}")
    return arrays, metadata


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with a checksum in its header: file and checksum replace the earlier ones at once."""
    values = dict(metadata or {})
    with replacing(path) as temporary:
        save_file(dict(arrays), temporary, metadata={**values, CHECKSUM: _checksum(arrays, values)})


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an npy file that ends with the SHA-256 of its content. numpy ignores what follows the array."""
    with replacing(path) as temporary, open(temporary, "w+b") as file:
        np.save(file, array)
        size = file.tell()
        digest = _digest(file, size)
        file.seek(size)
        file.write(digest)


def map_array(path: Path, dtype: type[np.generic], ndim: int) -> np.ndarray:
    """Memory-map an npy file, read-only. Raises SpoiledError, and OSError if the file cannot be read."""
    array = map_file(path)
    if array.dtype != dtype or array.ndim != ndim:
        raise SpoiledError(path, f"is damaged: it has type {array.dtype} and shape {list(array.shape)}")
    return array


def map_file(path: Path) -> np.ndarray:
    """Memory-map an npy file, read-only. If it ends with its SHA-256, the whole file is read once to verify it.

    Raises SpoiledError, and OSError if the file cannot be read.
    """
    _check_regular(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, MemoryError):
        raise
    except Exception:  # numpy raises errors of many types for a damaged header
        raise SpoiledError(path, "is damaged: it is no complete npy file") from None
    size, found = array.offset + array.nbytes, path.stat().st_size
    if found == size + _DIGEST_BYTES:
        with open(path, "rb") as file:
            if _digest(file, size) != file.read():
                raise SpoiledError(path, "is damaged: its content does not match its checksum")
    elif found != size:
        raise SpoiledError(path, "is damaged: its size is not that of its array")
    return np.asarray(array)


def write_images(path: Path, shape: tuple[int, int, int, int], chunks: Iterable[np.ndarray]) -> None:
    """Write uint8 images [n, C, H, W] as an npy file of this shape, a chunk at a time."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=np.uint8).data)


def check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise SpoiledError if a value is NaN or infinite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise SpoiledError(path, f"is damaged: {name} has values that are NaN or infinite")


def set_aside(error: SpoiledError) -> str:
    """Rename a damaged file to NAME.spoiled, so that it is made again. Return what was wrong and what was done.

    Raises OSError if it cannot be renamed.
    """
    aside = error.path.with_name(f"{error.path.name}.spoiled")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)  # of an earlier time; a folder cannot be replaced
    try:
        error.path.replace(aside)
    except FileNotFoundError:
        return str(error)
    return f"{error}; it is set aside as {aside.name}"


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the first bytes of a file, and leave the file after them. A short file has another one."""
    file.seek(0)
    digest, left = hashlib.sha256(), size
    while left and (block := file.read(min(left, 2**20))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _check_regular(path: Path) -> None:
    """Raise SpoiledError for a missing file, and for a folder, pipe or device, which must not be opened."""
    if not path.is_file() and not (exists(path) and path.is_file()):
        raise SpoiledError(path, "is not a regular file" if path.exists() else "is missing")


def _difference(arrays: Mapping[str, Any], like: Mapping[str, Any]) -> str | None:
    """Return the first difference in names, shapes or types."""
    if odd := sorted(arrays.keys() ^ like.keys()):
        return f"{odd[0]} is {'missing' if odd[0] in like else 'unknown'}"
    for name, expected in like.items():
        found, wanted = (f"{list(a.shape)} {str(a.dtype).removeprefix('torch.')}" for a in (arrays[name], expected))
        if found != wanted:
            return f"{name} is {found}, not {wanted}"
    return None


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of the tensors with their names, shapes and types, and of the other metadata."""
    values = {key: value for key, value in metadata.items() if key != CHECKSUM}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {list(array.shape)}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
