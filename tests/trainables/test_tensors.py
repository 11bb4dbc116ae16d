"""The reader of tensor files: whatever is wrong, it is one line, and nothing is opened that is no regular file."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainables.errors import SpoiledError
from trainables.files import file_hash
from trainables.tensors import check_finite, map_array, read_tensors, write_tensors

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), dtype=np.int64)}


def instead(path: Path, what: str) -> None:
    """Put something else in the place of a file."""
    content = path.read_bytes()
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a link to nothing":
        path.symlink_to("nothing")
    elif what == "half of it":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes({"nothing": b"", "a text": b"hello\n" * 99, "zeros": bytes(len(content))}[what])


KINDS = ["a folder", "a pipe", "a link to nothing", "half of it", "nothing", "a text", "zeros"]


@pytest.mark.parametrize("what", KINDS)
def test_anything_else_in_the_place_of_a_file_is_one_error(what: str, tmp_path: Path) -> None:
    readers: list[tuple[Path, Callable[[Path], object]]] = [
        (tmp_path / "weights.safetensors", read_tensors),
        (tmp_path / "images.npy", lambda path: map_array(path, np.uint8, 4)),
    ]
    write_tensors(readers[0][0], ARRAYS)
    np.save(readers[1][0], np.zeros((3, 1, 4, 4), dtype=np.uint8))
    for path, read in readers:
        read(path)
        instead(path, what)
        with pytest.raises(SpoiledError, match=rf"{path.name} is (missing|not a regular file|damaged)") as raised:
            read(path)
        assert "\n" not in str(raised.value)


def test_tensors_round_trip(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {"updates": "3"})
    arrays, metadata = read_tensors(tmp_path / "a.safetensors", like=ARRAYS)
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert metadata["updates"] == "3"


@pytest.mark.parametrize(
    ("like", "difference"),
    [
        ({"a": ARRAYS["a"]}, "b is unknown"),
        ({**ARRAYS, "c": ARRAYS["a"]}, "c is missing"),
        ({**ARRAYS, "a": ARRAYS["a"].T}, r"a is \[2, 3\] float32, not \[3, 2\] float32"),
        ({**ARRAYS, "a": ARRAYS["a"].astype(np.float64)}, "a is .* float32, not .* float64"),
    ],
)
def test_names_shapes_and_types_must_be_the_expected_ones(
    like: dict[str, np.ndarray], difference: str, tmp_path: Path
) -> None:
    write_tensors(tmp_path / "a.safetensors", ARRAYS)
    with pytest.raises(SpoiledError, match=f"is not of this network: {difference}"):
        read_tensors(tmp_path / "a.safetensors", like=like)


def test_another_file_than_the_recorded_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS, path)
    recorded = file_hash(path)
    assert read_tensors(path, recorded=recorded)[0].keys() == ARRAYS.keys()
    save_file({**ARRAYS, "a": ARRAYS["a"] + 1}, path)
    with pytest.raises(SpoiledError, match=f"is not the file that was recorded .*, not {recorded}"):
        read_tensors(path, recorded=recorded)


@pytest.mark.parametrize("position", range(0, 300, 7))
def test_a_changed_bit_is_noticed(position: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS, {"updates": "3"})
    content = bytearray(path.read_bytes())
    content[-1 - position % len(content)] ^= 4
    path.write_bytes(content)
    try:
        arrays, metadata = read_tensors(path)
    except SpoiledError:
        return
    # Only the name of the checksum itself may change: what is read is what was written.
    assert "checksum" not in metadata
    assert metadata["updates"] == "3"
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


def test_an_array_of_another_type_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4)))
    with pytest.raises(SpoiledError, match=r"has type float64 and shape \[3, 4, 4\]"):
        map_array(tmp_path / "a.npy", np.uint8, 4)
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(SpoiledError, match="is damaged"):
        map_array(tmp_path / "b.npy", np.uint8, 1)


def test_values_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(SpoiledError, match="a has values that are NaN or infinite"):
        check_finite(tmp_path, {"a": np.array([1.0, np.inf])})
