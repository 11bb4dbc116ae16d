"""`sweeper score`: folders against folders and data sets, as a user types it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.conftest import Done
from tests.trainables.scores.test_features import save_random_weights
from trainables.errors import UserError
from trainables.images import Images
from trainables.scores.comparing import image_set, score
from trainables.scores.imagenet import ImageNet

Call = Callable[..., Done]


@pytest.fixture(scope="module")
def folders(digits: Images, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a: digits, with a text file among them; b: inverted digits, fewer; both 32×32 grey PNGs. And a store."""
    folder = tmp_path_factory.mktemp("folders")
    shutil.copytree(finished / "runs", folder / "runs")
    for name, start, n in (("a", 0, 80), ("b", 1, 70)):
        (folder / name).mkdir()
        for number in range(n):
            picture = Image.fromarray(digits.pixels[start + 60 * number, 0])
            (ImageOps.invert(picture) if name == "b" else picture).save(folder / name / f"{number:03}.png")
    (folder / "a" / "notes.txt").write_text("no image")
    return folder


def test_scores_come_with_n_and_protocol(folders: Path, sweeper: Call) -> None:
    done = sweeper("score", "a", "--against", "mnist5k", "--json", cwd=folders)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["schema"], found["n"]) == (1, 80)
    for name in ("fid", "kid", "is", "sharpness"):
        assert found[name]["n"] == 80
        assert found[name]["protocol"] == found["protocol"]
    assert found["is"]["mean"] > 8
    assert found["kid"]["std"] > 0
    people = sweeper("score", "a", "--against", "mnist5k", cwd=folders)
    assert people.out.count(found["protocol"]) == 4


def test_folders_of_different_n_are_not_compared(folders: Path, sweeper: Call) -> None:
    done = sweeper("score", "a", "b", "--against", "mnist5k", cwd=folders)
    assert (done.code, done.out) == (2, "")
    assert "scores of different protocols are not compared" in done.err
    done = sweeper("score", "a", "b", "--against", "mnist5k", "--n", "70", "--json", cwd=folders)
    assert done.code == 0, done.err
    mine, theirs = json.loads(done.out)["scores"]
    assert mine["fid"]["mean"] < theirs["fid"]["mean"]


@pytest.mark.long
def test_it_is_pytorch_fid_s_number_on_the_same_folders(folders: Path, sweeper: Call, tmp_path: Path) -> None:
    """The real pytorch-fid as its users run it, at 64 dimensions; wider ones need more images than they have
    dimensions: `benchmarks/scores.py parity`."""
    save_random_weights(tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth")
    done = subprocess.run(
        [sys.executable, "-m", "pytorch_fid", "a", "b", "--dims", "64", "--num-workers", "0"],
        cwd=folders,
        env={"PATH": "", "TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = float(done.stdout.split("FID:")[-1])
    mine = sweeper("score", "a", "--against", "b", "--dims", "64", "--json", cwd=folders, TORCH_HOME=str(tmp_path))
    assert mine.code == 0, mine.err
    assert json.loads(mine.out)["fid"]["mean"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a", "--against", "nope"], 2, "'nope' is unknown"),
        (["a", "--against", "mnist5k", "--n", "81"], 2, "fewer than n=81"),
        (["a", "--against", "b", "--features", "imagenet", "--dims", "7"], 2, "dims=7"),
        (["a", "--against", "b", "--dims", "x"], 2, "--dims x: not whole numbers"),
        (["a", "--against", "b", "--features", "classifier"], 2, "needs classes"),
        (["a", "--against", "b", "--features", "vgg"], 2, "features=vgg is unknown"),
        (["a", "--against", "b"], 5, "pt_inception-2015-12-05-6726825d.pth"),
        (["one", "--against", "a", "--features", "imagenet"], 2, "at least 2 images, and here is 1"),
        (["empty", "--against", "a", "--features", "imagenet"], 2, "holds no image"),
        (["tiny", "--against", "a", "--features", "imagenet"], 2, "2×2 are too small"),
        (["mixed", "--against", "mnist5k"], 2, "make them square and of one size"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    folders: Path, words: list[str], code: int, said: str, sweeper: Call, tmp_path: Path
) -> None:
    for name, sizes in (("one", [32]), ("empty", []), ("tiny", [2, 2]), ("mixed", [32, 40])):
        (folders / name).mkdir(exist_ok=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", (size, size)).save(folders / name / f"{number}.png")
    done = sweeper("score", *words, cwd=folders, TORCH_HOME=str(tmp_path))
    assert (done.code, done.out) == (code, ""), done
    assert len(done.err.strip().splitlines()) == 1
    assert said in done.err


def test_from_python_tensors_score_as_their_pictures_do(folders: Path, digits: Images) -> None:
    network, real = ImageNet(), image_set(folders / "b")
    levels = np.stack([digits.pixels[60 * number] for number in range(80)])
    by_folder = score(image_set(folders / "a"), real, network)
    by_array = score(image_set(levels), real, network)
    by_floats = score(image_set(torch.from_numpy(levels).float() / 127.5 - 1), real, network)
    for name in ("fid", "kid", "sharpness"):
        assert by_array[name]["mean"] == pytest.approx(by_folder[name]["mean"], rel=1e-6)
        assert by_floats[name]["mean"] == by_array[name]["mean"]


def test_alpha_channels_and_mixed_sizes_and_identical_images_have_an_answer(tmp_path: Path, folders: Path) -> None:
    (tmp_path / "odd").mkdir()
    for number, size in enumerate([(20, 30), (40, 40), (40, 40)]):
        Image.new("RGBA", size, (200, 10, 10, 128)).save(tmp_path / "odd" / f"{number}.png")
    found = score(image_set(tmp_path / "odd"), image_set(folders / "a"), ImageNet())
    assert all(np.isfinite(value["mean"]) for value in found.values())
    assert found["sharpness"]["mean"] == 0


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.full((4, 1, 8, 8), float("nan")), "hold NaN"),
        (torch.zeros(4, 8, 8), r"shape \[4, 8, 8\]"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), "torch.int64"),
    ],
)
def test_tensors_that_are_no_images_are_refused(images: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError, match=said):
        image_set(images)
