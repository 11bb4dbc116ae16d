"""A store's files in a folder or an object store, with their hashes."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from pyarrow import fs

from sweeper.store import VERSION
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import replacing
from trainables.reading import checked, read_content

INDEX = "transfers.json"
# What moves. The bank is a cache: the teacher renders it again. live/ and driver.claim belong to a running command, and
# wandb/ to a machine.
FOLDERS = ("datasets", "scores", "sweeps", "trials", "teachers", "plugins", "measured", "pictures", "reports")
FILES = ("shares.json", "memory.json")
_UNFINISHED = re.compile(r"\.tmp$|\.lock(\.lease)?$|\.partial\.")  # of trainables.files, .locks and .images
_CHUNK = 4 << 20
# Write small objects by one request; try for seconds, not for a quarter of an hour.
_OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=20"}


class InterruptedTransferError(Exception):
    """The transfer was interrupted between two chunks of a file."""


@dataclass(frozen=True)
class Entry:
    """A file's hash, and what identifies its version: size and time of the last write in this place."""

    size: int  # in bytes
    written: int  # in nanoseconds since 1970
    sha256: str
    modified: int  # when this content was first written, in the place that it came from; in nanoseconds since 1970


class Place:
    """One side of a transfer.

    A hash is kept in the index with the size and the time of its file, and computed again if these have changed.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, label: str) -> None:
        """label: the place in messages, without credentials. Raises EnvironmentUserError if it cannot be read."""
        self.filesystem, self.root, self.label = filesystem, root.rstrip("/"), label
        self.folder = Path(self.root or "/") if isinstance(filesystem, fs.LocalFileSystem) else None
        self._index: dict[str, Entry] = {}
        self.agreed: dict[str, dict[str, str]] = {}  # other place → path → SHA-256
        with errors_of(self):
            self._read_index()
        self._new: set[str] = set()  # written here; their times are not known yet

    @staticmethod
    def at(url: str) -> "Place":
        """Raises EnvironmentUserError for a URL that names no file system."""
        if "://" not in url:
            return Place.local(Path(url).expanduser())
        shown = _without_credentials(url)
        try:
            filesystem, root = fs.FileSystem.from_uri(_with_options(url))
        except (OSError, ValueError) as error:
            raise EnvironmentUserError(
                f"{shown}: {_first_line(error)}; use s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH or a folder"
            ) from None
        if not root:
            raise EnvironmentUserError(f"{shown} names no bucket; use s3://BUCKET/PATH")
        return Place(filesystem, root, shown)

    @staticmethod
    def local(folder: Path) -> "Place":
        return Place(fs.LocalFileSystem(), str(folder.resolve()), str(folder.resolve()))

    def store_id(self) -> str | None:
        """Return the id of the store here. None if there is none.

        Raises UserError for a store of another version, EnvironmentUserError if its file is corrupt.
        """
        try:
            record = checked(self.read("store.json"), dict[str, Any])
            version, identity = record["version"], str(record["id"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):
            raise EnvironmentUserError(f"{self.label}/store.json is corrupt; name another place") from None
        if version != VERSION:
            raise UserError(
                f"{self.label} is a store of version {version}, and this sweeper reads version {VERSION}; use the "
                "sweeper that wrote it"
            )
        return identity

    def has_other_files(self) -> bool:
        """Return whether something else than a store is here."""
        selector = fs.FileSelector(self.root or "/", allow_not_found=True)
        names = {info.base_name for info in self.filesystem.get_file_info(selector)}
        return any(not name.startswith(".") for name in names - {*FOLDERS, *FILES, INDEX, "driver.claim"})

    def files(self, *folders: str) -> dict[str, fs.FileInfo]:
        """Return the finished files below these folders, by their path in the store."""
        found: dict[str, fs.FileInfo] = {}
        for folder in folders:
            selector = fs.FileSelector(self._full(folder), allow_not_found=True, recursive=True)
            for info in self.filesystem.get_file_info(selector):
                path = PurePosixPath(info.path[len(self.root) + 1 :])
                hidden = any(part.startswith(".") for part in path.parts)  # also excludes ..
                if info.is_file and not hidden and not _UNFINISHED.search(path.name):
                    found[str(path)] = info
        return found

    def all_files(self) -> dict[str, fs.FileInfo]:
        """Return every finished file of the store but store.json."""
        single = self.filesystem.get_file_info([self._full(name) for name in FILES])
        found = {info.base_name: info for info in single if info.is_file}
        return found | self.files(*FOLDERS)

    def known(self, path: str, info: fs.FileInfo) -> Entry | None:
        """Return a file's entry, if the index has this version of it."""
        entry = self._index.get(path)
        return entry if entry and (entry.size, entry.written) == (info.size, info.mtime_ns) else None

    def entry(self, path: str, info: fs.FileInfo) -> Entry:
        """Return a file's entry. Read the file if the index does not have this version of it."""
        if known := self.known(path, info):
            return known
        content = hashlib.sha256()
        with self.filesystem.open_input_file(self._full(path)) as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        return self._remember(path, info, content.hexdigest(), info.mtime_ns)

    def exists(self, path: str) -> bool:
        return bool(self.filesystem.get_file_info(self._full(path)).type != fs.FileType.NotFound)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file. Raises OSError, in a folder also for a pipe, which could wait for ever."""
        if self.folder is not None:
            return read_content(self.folder / path)
        with self.filesystem.open_input_file(self._full(path)) as file:
            return bytes(file.read())

    def write(self, path: str, content: bytes, modified: int) -> str:
        """Write a file. Return its SHA-256. modified: as in Entry."""
        with self._writing(path, modified) as file:
            file.write(content)
        return self._remember_new(path, len(content), hashlib.sha256(content).hexdigest(), modified)

    def copy_from(self, source: "Place", path: str, info: fs.FileInfo, stop: threading.Event) -> tuple[int, str]:
        """Copy a file of another place. Return its size in bytes and its SHA-256.

        Raises InterruptedTransferError once `stop` is set.
        """
        known = source.known(path, info)
        modified = known.modified if known else info.mtime_ns
        content = hashlib.sha256()
        with source.filesystem.open_input_file(source._full(path)) as reader, self._writing(path, modified) as file:
            while chunk := reader.read(_CHUNK):
                if stop.is_set():
                    raise InterruptedTransferError
                content.update(chunk)
                file.write(chunk)
            size = int(reader.tell())
            if size != reader.size():
                raise OSError(f"{source.label}/{path}: {size} of {reader.size()} bytes were read")
        source._remember(path, info, content.hexdigest(), modified)
        return size, self._remember_new(path, size, content.hexdigest(), modified)

    @contextmanager
    def _writing(self, path: str, modified: int | None = None) -> Iterator[IO[bytes]]:
        """Yield a file that appears under its name when it is complete. After an error nothing is left."""
        if self.folder is not None:
            target = self.folder / path
            with replacing(target) as temporary, open(temporary, "wb") as file:
                yield file
            if modified is not None:  # Store.latest compares the times of manifests
                os.utime(target, ns=(modified, modified))
            return
        stream = self.filesystem.open_output_stream(self._full(path), compression=None)
        try:
            yield stream
        except BaseException:
            # pyarrow cannot abort an upload: closing completes it. The next transfer writes the whole file.
            with suppress(OSError):
                stream.close()
                self.filesystem.delete_file(self._full(path))
            raise
        stream.close()

    def _remember(self, path: str, info: fs.FileInfo, sha256: str, modified: int) -> Entry:
        # info was read before the content. If the file was replaced in between, the times differ at the next look.
        entry = self._index[path] = Entry(info.size, info.mtime_ns, sha256, modified)
        return entry

    def _remember_new(self, path: str, size: int, sha256: str, modified: int) -> str:
        self._index[path] = Entry(size, 0, sha256, modified)
        self._new.add(path)
        return sha256

    def save_index(self) -> None:
        """Write the index, with the times of the files that were written here."""
        new, self._new = self._new, set()
        if new:
            for path, info in self.all_files().items():
                if path in new:
                    entry = self._index[path]
                    self._index[path] = Entry(entry.size, info.mtime_ns, entry.sha256, entry.modified)
        files = {
            path: (entry.size, entry.written, entry.sha256, entry.modified)
            for path, entry in dict(self._index).items()
            if entry.written
        }
        record = {"files": files} | ({"agreed": self.agreed} if self.agreed else {})
        with self._writing(INDEX) as file:
            file.write(json.dumps(record).encode())

    def _read_index(self) -> None:
        """Read the index. A corrupt one counts as missing: hashes are computed again."""
        try:
            record = checked(self.read(INDEX), dict[str, Any])
            index = {str(path): Entry(*values) for path, values in record["files"].items()}
            agreed = {str(place): dict(hashes) for place, hashes in record.get("agreed", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._index, self.agreed = index, agreed

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"


@contextmanager
def errors_of(place: Place) -> Iterator[None]:
    """Report an error of the file system of a place in one line. Raises EnvironmentUserError."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # of a file on this machine
            raise EnvironmentUserError(
                f"{error.filename} cannot be used ({error.strerror}); correct that, and run the command again"
            ) from None
        raise EnvironmentUserError(
            f"{place.label}: {_first_line(error)}; check the URL, your credentials and that the bucket exists"
        ) from None


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r" \(Request ID: .*?\)", "", line)[:400]


def _with_options(url: str) -> str:
    options = _OPTIONS.get(urlsplit(url).scheme)
    return f"{url}{'&' if '?' in url else '?'}{options}" if options and options.partition("=")[0] not in url else url


def _without_credentials(url: str) -> str:
    """Return a URL without user, password and options, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
