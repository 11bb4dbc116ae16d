"""Atomic writes."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainables import files
from trainables.files import replacing, write_json


def test_others_can_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """safetensors alone would write files for their owner only."""
    with replacing(tmp_path / "weights.safetensors") as temporary:
        save_file({"a": np.ones(3)}, temporary)
    write_json(tmp_path / "record.json", {})
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode & 0o777}
    mask = os.umask(0o027)
    try:
        assert files._mode() == 0o640
    finally:
        os.umask(mask)


def test_a_failed_write_leaves_the_earlier_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
