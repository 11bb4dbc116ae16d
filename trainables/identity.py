"""The identity of a data set: its name, with the hash of its content where files can be replaced."""

import hashlib
from pathlib import Path

from trainables.datasets import DATASETS
from trainables.decoding import image_files
from trainables.errors import UserError
from trainables.files import file_hash, read_json, write_json


def identify(name: str, cache: Path, data_root: Path | None = None, download: bool = False) -> str:
    """Return the name under which a set is known. Writes nothing but what `download` fetches.

    A registered set: NAME.HASH, where the hash is of its files below data_root; NAME alone where its content comes
    with a package, or while its files are not there. A folder: FOLDER-HASH. An identity is its own.
    Raises UserError when there is no such set or no image in the folder.
    """
    if name in DATASETS:
        return _identify_registered(name, cache, data_root, download)
    if name == Path(name).name and _mark(name, cache).exists():
        return name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        known = ", ".join(sorted(DATASETS))
        raise UserError(
            f"dataset {name!r} is unknown and no folder of that name exists; use a folder, or one of {known}"
        )
    files = image_files(folder)
    if (seen := _listing(files, cache)).exists():
        return str(read_json(seen)["name"])
    stem = "".join(c if c.isalnum() else "_" for c in folder.resolve().name)
    return f"{stem}-{_content(folder, files)}"


def registered_name(identity: str) -> str:
    """Return the name in DATASETS that an identity begins with; of a folder's identity the identity itself."""
    name = identity.partition(".")[0]
    return name if name in DATASETS else identity


def remember(identity: str, cache: Path, folder: Path | None, data_root: Path) -> None:
    """Note that a set is prepared: later commands name it without its path, and need not read its files again."""
    write_json(_mark(identity, cache), {"name": identity})
    name = registered_name(identity)
    if name in DATASETS:
        files = _files_of(name, data_root)
        if files:
            content = _content(_folder_of(name, data_root), files)
            write_json(_mark(name, cache), {"name": identity, "content": content})
    else:
        files = image_files(folder) if folder is not None else []
    if files:
        write_json(_listing(files, cache), {"name": identity})


def _identify_registered(name: str, cache: Path, data_root: Path | None, download: bool) -> str:
    seen = read_json(mark) if (mark := _mark(name, cache)).exists() else {}
    if DATASETS[name].folder is None:
        origin = DATASETS.origin(name)
        return f"{name}.{origin.rpartition('-')[2]}" if origin else name
    if data_root is None:
        return str(seen.get("name", name))
    if download and not _files_of(name, data_root):
        DATASETS[name].load(data_root, True)
    files = _files_of(name, data_root)
    if not files:
        return str(seen.get("name", name))
    if (listing := _listing(files, cache)).exists():
        return str(read_json(listing)["name"])
    content = _content(_folder_of(name, data_root), files)
    # A store from before contents were noted: its set is taken for the one that is there now.
    if seen and seen.get("content") in (None, content):
        return str(seen["name"])
    return f"{name}.{content}"


def _folder_of(name: str, data_root: Path) -> Path:
    return data_root.expanduser() / (DATASETS[name].folder or "")


def _files_of(name: str, data_root: Path) -> list[Path]:
    """The files of a registered set, in order of their paths; none where its content comes with a package."""
    if DATASETS[name].folder is None:
        return []
    return sorted(path for path in _folder_of(name, data_root).rglob("*") if path.is_file())


def _content(folder: Path, files: list[Path]) -> str:
    content = hashlib.sha256()
    for file in files:
        content.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    return content.hexdigest()[:8]


def _mark(name: str, cache: Path) -> Path:
    """The note that a set is prepared."""
    return cache / "known" / f"{name}.json"


def _listing(files: list[Path], cache: Path) -> Path:
    """The note of files as they were when their set was prepared: paths, sizes and times."""
    listing = hashlib.sha256()
    for file in files:
        facts = file.stat()
        listing.update(f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return cache / "known" / f"listing-{listing.hexdigest()[:16]}.json"
