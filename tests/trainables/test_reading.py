"""Reading of JSON files: a wrong file is one error that names it, and nothing waits."""

import os
from pathlib import Path
from typing import Any

import pytest

from sweeper.records import Manifest
from trainables.errors import UserError, printable
from trainables.reading import Name, Number, is_name, read_record

WRONG = [b"", b"{", b"[]", b"null", b'{"a": "1"}', b'{"a": true}', b'{"a": NaN}', b'{"a": 1e400}', b'{"a": 1e300}']
WRONG += [b'{"\xff": 1}', b'\xef\xbb\xbf{"a": 1}', '{"a": 1}'.encode("utf-16"), b'{"a": ' + b"9" * 9_999]
WRONG += [b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.parametrize("content", WRONG, ids=lambda content: repr(content[:12]))
def test_wrong_content_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is corrupt \(.+\); restore it from a backup, or delete it$"):
        read_record(tmp_path / "x.json", dict[str, Number])


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(10**9)
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{path.name} cannot be read"):
            read_record(path, dict[str, Number])
    assert read_record(tmp_path / "missing", dict[str, Number]) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\n", "a b", "\x00", "x" * 200])
def test_a_part_of_a_path_is_no_name(name: str, tmp_path: Path) -> None:
    assert not is_name(name)
    (tmp_path / "x.json").write_text(f'["{name}"]'.replace("\n", "\\n").replace("\x00", "\\u0000"))
    with pytest.raises(UserError, match="is corrupt"):
        read_record(tmp_path / "x.json", list[Name])


def test_names_that_the_tool_gives_are_names() -> None:
    assert all(map(is_name, ["mnist5k-students", "mnist.1a2b3c4d", "foto_é-1a2b3c4d", "mine-1a2b3c4d", "_x"]))


def test_a_message_is_one_line_without_control_characters() -> None:
    assert printable("a\nb\x1b[2J\udcff é\u2028") == "a\\nb\\x1b[2J\\udcff é\\u2028"


def test_a_manifest_is_consistent() -> None:
    good: dict[str, Any] = {"name": "x", "dataset": "d", "image_size": 32, "metric": "fid", "features": "f"}
    good |= {
        "real": {},
        "real_bytes": 0,
        "eta": 3,
        "n": {},
        "protocols": {},
        "role": "teacher",
        "updates": 9,
        "rungs": [3, 9],
    }
    good["signatures"] = ["a", "b"]
    Manifest(**good)
    for wrong in ({"rungs": []}, {"rungs": [9, 3]}, {"rungs": [3]}, {"signatures": ["a", "a"]}, {"role": "student"}):
        with pytest.raises(ValueError, match=r".+"):
            Manifest(**{**good, **wrong})
