"""The command line: exit codes, one line per mistake, nothing half-written."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import TINY, Done
from trainables.files import write_json

Call = Callable[..., Done]


def mistake(done: Done, code: int, *said: str) -> None:
    assert (done.code, done.out) == (code, ""), done
    assert len(done.err.strip().splitlines()) == 1, done.err
    for text in said:
        assert text in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "students"], 4, ["run `sweeper run teachers --dataset mnist5k` first"]),
        (["run", "teachers"], 2, ["needs a data set", "--dataset mnist5k"]),
        (["run", "teachers", "--dataset", "nmist"], 2, ["'nmist'", "mnist5k"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "d=3.5"], 2, ["d=3.5", "--set d=2,4,8"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "lr=abc"], 2, ["lr=abc", "--set lr="]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "widht=3"], 2, ["'widht'", "the keys are"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "batch_size=0"], 2, ["batch_size=0"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "image_size=32,64"], 2, ["image_size=", "one size"]),
        (["run", "teachers", "--dataset", "mnist5k", "--space", "no.py"], 2, ["no.py"]),
        (["run", "teachers", "--dataset", "celeba"], 5, ["data", "--download"]),
        (["table"], 4, ["sweeper run teachers"]),
        (["run", "teachers", "--dataset", "mnist5k", "--name", "a/b"], 2, ["--name a/b"]),
        (["run", "teachers", "--dataset", "mnist5k", "--store", "/proc/x"], 2, ["/proc/x cannot be made", "--store"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "rungs=-1"], 2, ["rungs=-1"]),
        (["score", "nope", "--against", "mnist5k"], 2, ["nope is no folder"]),
    ],
)
def test_a_mistake_is_one_line_with_the_value_and_what_to_type(
    words: list[str], code: int, said: list[str], sweeper: Call, tmp_path: Path
) -> None:
    mistake(sweeper(*words, cwd=tmp_path), code, *said)
    assert not list(tmp_path.glob("runs/*/*")), "nothing half-written"


def test_alpha_outside_0_to_1_is_one_line(sweeper: Call, finished: Path) -> None:
    mistake(
        sweeper("run", "students", "--set", "alpha=2", "--name", "new", cwd=finished), 2, "alpha=2 is outside [0, 1]"
    )
    assert not (finished / "runs" / "sweeps" / "new.json").exists()


def test_an_empty_folder_and_a_broken_image_are_one_line(sweeper: Call, tmp_path: Path, colour_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    mistake(sweeper("run", "teachers", "--dataset", "empty", cwd=tmp_path), 2, "empty holds no image")
    broken = colour_folder / "class0" / "3.png"
    broken.write_bytes(broken.read_bytes()[:150])
    mistake(sweeper("run", "teachers", "--dataset", "photos", cwd=tmp_path), 2, "3.png cannot be read")
    assert not list(tmp_path.glob("runs/datasets/*")), "nothing half-written"
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_images_without_classes_name_the_weights_file(sweeper: Call, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    done = sweeper("run", "teachers", "--dataset", "flat", cwd=tmp_path, TORCH_HOME=str(tmp_path / "torch"))
    mistake(done, 5, str(tmp_path / "torch"), "pt_inception-2015-12-05-6726825d.pth")
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_a_store_of_another_version_is_one_line(sweeper: Call, tmp_path: Path) -> None:
    write_json(tmp_path / "runs" / "store.json", {"version": 99})
    for words in (["run", "teachers", "--dataset", "mnist5k"], ["table"], ["status"]):
        mistake(sweeper(*words, cwd=tmp_path), 2, "version 99", "--store")


def test_help_is_quick_and_loads_neither_torch_nor_ray(sweeper: Call, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert sweeper("--help", cwd=tmp_path).code == 0
    assert time.monotonic() - begun < 1.5  # half a second is the goal; other tests may run beside this one
    code = "import sys, sweeper.cli, sweeper.run; print([m for m in ('torch', 'ray', 'wandb') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_a_space_of_one_s_own_is_used(sweeper: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sweeper.spaces import Space\nTEACHERS = Space(grids=[{'d': [1], 'lr': -1}], updates=1, first_rung=1)\n"
    )
    done = sweeper("run", "teachers", "--dataset", "mnist5k", "--space", "mine.py", *TINY, cwd=tmp_path)
    mistake(done, 2, "lr=-1")
