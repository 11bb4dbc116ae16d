"""Which of two versions of a file is newer. Records and manifests are compared by their content."""

import json
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from trainables.errors import UserError
from trainables.reading import checked


class Newer(Enum):
    """The side that has the newer version of a file."""

    SOURCE = auto()
    TARGET = auto()
    NEITHER = auto()  # equal in what matters
    DIVERGED = auto()  # each has results that the other lacks


def is_manifest(path: str) -> bool:
    return path.startswith("sweeps/")


def is_record(path: str) -> bool:
    return path.startswith("trials/") and path.endswith("/record.json")


def compare(path: str, source: bytes, target: bytes) -> Newer:
    """Compare two versions of a record or a manifest. Raises UserError if one is corrupt."""
    contents_of = _members if is_manifest(path) else _results
    ours, theirs = _parse(path, source, contents_of), _parse(path, target, contents_of)
    if ours == theirs:
        return Newer.NEITHER
    if ours > theirs:
        return Newer.SOURCE
    return Newer.TARGET if ours < theirs else Newer.DIVERGED


def _parse(path: str, text: bytes, contents_of: Callable[[Any], set[str]]) -> set[str]:
    try:
        return contents_of(checked(text, dict[str, Any]))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is corrupt on one side; restore it from a backup, or delete it") from None


def _results(record: dict[str, Any]) -> set[str]:
    """Return a trial's results. The seconds are left out: a trial that is trained twice has the same results."""
    entries = [*record["rungs"], *record["finals"]]
    return {json.dumps(entry | {"seconds": None}, sort_keys=True) for entry in entries}


def _members(manifest: dict[str, Any]) -> set[str]:
    return {*manifest["signatures"], *manifest["confirming"], *(f"{rung} updates" for rung in manifest["rungs"])}
