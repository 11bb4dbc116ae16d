"""The added teachers of a store: a folder each, with the record, the generator or the pairs, and samples."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sweeper.records import AddedTeacher
from trainables.errors import UserError
from trainables.files import write_json
from trainables.reading import is_name, read_record

SAMPLE_SHEET = "samples.png"  # in the folder of a teacher


class AddedTeachers:
    """Reads and writes the records of added teachers."""

    def __init__(self, root: Path, check_claim: Callable[[], None]) -> None:
        """root: the folder of their folders. check_claim: raises an error if this process may not write."""
        self.root, self._check_claim = root, check_claim

    def folder(self, name: str) -> Path:
        return self.root / name

    def find(self, name: str) -> AddedTeacher | None:
        """Return the teacher of a name. None if there is none."""
        path = self.folder(name) / "record.json"
        record = read_record(path, AddedTeacher) if is_name(name) else None
        if record is not None and record.name != name:
            raise UserError(f"{path} holds the teacher {record.name}; restore it from a backup, or delete its folder")
        return record

    def all(self) -> list[AddedTeacher]:
        names = sorted(path.parent.name for path in self.root.glob("*/record.json"))
        return [teacher for name in names if (teacher := self.find(name))]

    def save(self, teacher: AddedTeacher) -> None:
        self._check_claim()
        write_json(self.folder(teacher.name) / "record.json", dataclasses.asdict(teacher))

    def place(self, folder: Path, teacher: AddedTeacher) -> None:
        """Give a folder with a teacher's files its record and its place, at once. folder: on the store's disk."""
        self._check_claim()
        write_json(folder / "record.json", dataclasses.asdict(teacher))
        folder.replace(self.folder(teacher.name))
