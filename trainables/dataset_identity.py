"""The identity of a data set: its name and, if it is read from files, a hash of their content."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainables.datasets import DATASETS
from trainables.decoding import image_files, is_turned
from trainables.errors import UserError
from trainables.files import file_hash, write_json
from trainables.reading import STRICT, Name, is_name, read_record


@dataclass(frozen=True)
class _Known:
    """A file of datasets/known/: the identity of a set, and the hash of a registered set's files."""

    name: Name
    content: str | None = None
    __pydantic_config__ = STRICT


def identify(name: str, cache: Path, data_root: Path | None = None, download: bool = False) -> str:
    """Return the identity of a data set.

    name: a registered name, the path of a folder, or an identity, which is returned unchanged. The identity of a
    registered set is NAME.HASH, with the hash of its files below data_root, or NAME if the data ships with a package or
    the files are missing. The identity of a folder is FOLDER-HASH. download: fetch missing files first.
    Raises UserError for an unknown name, and for a folder without images.
    """
    if name in DATASETS:
        return _registered_identity(name, cache, data_root, download)
    if is_name(name) and _record_path(name, cache).exists():
        return name
    folder = Path(os.path.expanduser(name))  # unchanged where there is no such user
    if not folder.is_dir():
        names = ", ".join(sorted(DATASETS))
        raise UserError(
            f"dataset {name!r} is unknown and no folder of that name exists; use a folder, or one of {names}"
        )
    files = image_files(folder)
    if listed := read_record(listing := _listing_path(folder, files, cache), _Known):
        return listed.name
    identity = f"{_stem(folder)}-{_content_hash(folder, files, images=True)}"
    if _record_path(identity, cache).exists():  # the files were copied or touched: do not read them all each time
        with suppress(OSError):  # a store that cannot be written works without
            write_json(listing, {"name": identity})
    return identity


def registered_name(identity: str) -> str:
    """Return the name in DATASETS of an identity, or the identity itself if it is that of a folder."""
    name = identity.partition(".")[0]
    return name if name in DATASETS else identity


def remember(identity: str, cache: Path, folder: Path | None, data_root: Path) -> None:
    """Record that a set is prepared. `identify` then accepts its identity and does not read its files again."""
    write_json(_record_path(identity, cache), {"name": identity})
    name = registered_name(identity)
    if name in DATASETS:
        files = _registered_files(name, data_root)
        if files:
            content = _registered_content(name, data_root, files)
            write_json(_record_path(name, cache), {"name": identity, "content": content})
    else:
        files = image_files(folder) if folder is not None else []
    below = _registered_folder(name, data_root) if name in DATASETS else folder
    if files and below is not None:
        write_json(_listing_path(below, files, cache), {"name": identity})


def _registered_identity(name: str, cache: Path, data_root: Path | None, download: bool) -> str:
    record = read_record(_record_path(name, cache), _Known)
    if DATASETS[name].folder is None:
        origin = DATASETS.origin(name)
        return f"{name}.{origin.rpartition('-')[2]}" if origin else name
    if data_root is None:
        return record.name if record else name
    if download and not _registered_files(name, data_root):
        DATASETS[name].load(data_root, True)
    files = _registered_files(name, data_root)
    if not files:
        return record.name if record else name
    if listed := read_record(_listing_path(_registered_folder(name, data_root), files, cache), _Known):
        return listed.name
    content = _registered_content(name, data_root, files)
    # Old stores did not record the content; assume that the files have not changed.
    if record and record.content in (None, content):
        return record.name
    return f"{name}.{content}"


def _registered_folder(name: str, data_root: Path) -> Path:
    return Path(os.path.expanduser(data_root)) / (DATASETS[name].folder or "")


def _registered_files(name: str, data_root: Path) -> list[Path]:
    """Return the files of a registered set, sorted by path; none if its data ships with a package."""
    if DATASETS[name].folder is None:
        return []
    return sorted(path for path in _registered_folder(name, data_root).rglob("*") if path.is_file())


def _registered_content(name: str, data_root: Path, files: list[Path]) -> str:
    """Return the hash of a registered set's files, and of the plug-in that loads them."""
    return _content_hash(_registered_folder(name, data_root), files, DATASETS.origin(name) or "")


def _content_hash(folder: Path, files: list[Path], origin: str = "", images: bool = False) -> str:
    """Return the hash of files. images: whether they are images, which are decoded upright. Raises UserError."""
    content = hashlib.sha256(origin.encode())
    for file in files:
        try:
            digest = file_hash(file)
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}); replace it or remove it from the folder"
            ) from None
        # A version that ignored EXIF decoded other pixels from the same file.
        upright = "\0upright" if images and is_turned(file) else ""
        content.update(os.fsencode(file.relative_to(folder).as_posix()) + f"\0{digest}{upright}\n".encode())
    return content.hexdigest()[:8]


def _stem(folder: Path) -> str:
    """Return the folder's name as the beginning of file names: letters, digits and _, at most 100 bytes."""
    name = "".join(c if c.isalnum() else "_" for c in folder.resolve().name)
    return os.fsencode(name)[:100].decode(errors="ignore") or "images"


def _record_path(name: str, cache: Path) -> Path:
    """Return the file that records that a set is prepared."""
    return cache / "known" / f"{name}.json"


def _listing_path(folder: Path, files: list[Path], cache: Path) -> Path:
    """Return the file that records the set of these files. It is named by their paths, sizes and times.

    The time of a change is among them: two files of one size and time that swap their names, or a file that keeps its
    time, as copies and archives do, are other images or other classes. No program can set that time.
    """
    listing = hashlib.sha256(os.fsencode(folder.resolve()))
    for file in files:
        stat = file.stat()
        facts = f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
        listing.update(os.fsencode(file.relative_to(folder)) + facts.encode())
    return cache / "known" / f"listing-{listing.hexdigest()[:16]}.json"
