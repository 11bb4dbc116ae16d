"""Which files a transfer moves: those that the target lacks, and those whose version at the source is newer."""

from dataclasses import dataclass

from pyarrow.fs import FileInfo

from sweeper.transfer.comparing import Newer, compare, is_manifest, is_record
from sweeper.transfer.place import Entry, Place
from trainables.errors import UserError
from trainables.reading import MAX_BYTES


@dataclass(frozen=True)
class Text:
    """A record or a manifest, as it was read for the plan. modified: as in Entry."""

    content: bytes
    modified: int


class Plan:
    """What a transfer moves.

    Manifests are read first, then records, then the list of files. A running sweep writes in the opposite order, so
    that what is read later has everything that was named earlier.
    """

    def __init__(self, source: Place, target: Place, agreed: dict[str, str]) -> None:
        """agreed: path → SHA-256 of what both places had after the last transfer. Raises UserError, OSError."""
        self.source, self.target, self._agreed = source, target, agreed
        self.files: dict[str, FileInfo] = {}
        self.records: dict[str, Text] = {}
        self.manifests: dict[str, Text] = {}
        self.same: dict[str, str] = {}  # path → SHA-256
        self.kept: list[str] = []  # newer at the target
        self.diverged: list[str] = []
        self._there = target.all_files()
        for path, info in source.files("sweeps").items():
            self._add_text(self.manifests, path, info)
        for path, info in source.files("trials").items():
            if is_record(path):
                self._add_text(self.records, path, info)
        for path, info in source.all_files().items():
            if not is_record(path) and not is_manifest(path):
                self._add_file(path, info)

    @property
    def bytes(self) -> int:
        texts = [*self.records.values(), *self.manifests.values()]
        return sum(int(info.size) for info in self.files.values()) + sum(len(text.content) for text in texts)

    def _add_text(self, texts: dict[str, Text], path: str, info: FileInfo) -> None:
        self._check_size(path, info)
        ours, theirs = self.source.entry(path, info), self._entry_there(path)
        newer = self._newer(path, ours, theirs)
        if newer is Newer.DIVERGED:
            newer = compare(path, self.source.read(path), self.target.read(path))
        if newer is Newer.NEITHER:
            newer = _later(ours, theirs)
        if newer is Newer.SOURCE:
            texts[path] = Text(self.source.read(path), ours.modified)
        elif newer is not None:
            (self.diverged if newer is Newer.DIVERGED else self.kept).append(path)

    def _add_file(self, path: str, info: FileInfo) -> None:
        """Add any other file. If both sides have changed it, a trial's files follow its record."""
        if path not in self._there:  # its hash is computed while it is copied
            self.files[path] = info
            return
        if path.endswith(".json"):
            self._check_size(path, info)
        try:
            ours, theirs = self.source.entry(path, info), self._entry_there(path)
        except FileNotFoundError:  # deleted since it was listed
            return
        newer = self._newer(path, ours, theirs)
        if newer is Newer.DIVERGED:
            record = f"{path.rpartition('/')[0]}/record.json"
            newer = Newer.TARGET if record in self.kept else Newer.SOURCE if record in self.records else None
            newer = newer or _later(ours, theirs)
        if newer is Newer.SOURCE:
            self.files[path] = info
        elif newer is Newer.TARGET:
            self.kept.append(path)

    def _check_size(self, path: str, info: FileInfo) -> None:
        """Raise UserError for a JSON file that is too large to be one, on either side: hashing it could take hours."""
        for place, found in ((self.source, info), (self.target, self._there.get(path))):
            if found is not None and found.size > MAX_BYTES:
                raise UserError(
                    f"{place.label}/{path} has {found.size:,} bytes; restore it from a backup, or delete it"
                )

    def _entry_there(self, path: str) -> Entry | None:
        return self.target.entry(path, self._there[path]) if path in self._there else None

    def _newer(self, path: str, ours: Entry, theirs: Entry | None) -> Newer | None:
        """Return the side that has changed since the last transfer. None if they are equal, DIVERGED if both have."""
        if theirs is None:
            return Newer.SOURCE
        if ours.sha256 == theirs.sha256:
            self.same[path] = ours.sha256
            return None
        agreed = self._agreed.get(path)
        if agreed == theirs.sha256:
            return Newer.SOURCE
        return Newer.TARGET if agreed == ours.sha256 else Newer.DIVERGED


def _later(ours: Entry, theirs: Entry | None) -> Newer:
    return Newer.SOURCE if theirs is None or ours.modified > theirs.modified else Newer.TARGET
