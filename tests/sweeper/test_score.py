"""`sweeper score`: folders against folders and data sets, on the command line and from Python."""

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
    """Return a folder with a store and two folders of 32×32 grey PNGs: a (digits, and a text file), b (inverted)."""
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
    result = json.loads(done.out)
    assert (result["schema"], result["n"]) == (1, 80)
    for name in ("fid", "kid", "is", "sharpness"):
        assert result[name]["n"] == 80
        assert result[name]["protocol"] == result["protocol"]
    assert result["is"]["mean"] > 8
    assert result["kid"]["std"] > 0
    text = sweeper("score", "a", "--against", "mnist5k", cwd=folders)
    assert text.out.count(result["protocol"]) == 4


def test_folders_of_different_n_are_not_compared(folders: Path, sweeper: Call) -> None:
    done = sweeper("score", "a", "b", "--against", "mnist5k", cwd=folders)
    assert (done.code, done.out) == (2, "")
    assert "scores of different protocols are not compared" in done.err
    done = sweeper("score", "a", "b", "--against", "mnist5k", "--n", "70", "--json", cwd=folders)
    assert done.code == 0, done.err
    a, b = json.loads(done.out)["scores"]
    assert a["fid"]["mean"] < b["fid"]["mean"]


@pytest.mark.long
def test_fid_equals_that_of_pytorch_fid_on_the_same_folders(folders: Path, sweeper: Call, tmp_path: Path) -> None:
    """Compare with `python -m pytorch_fid` at 64 dimensions.

    More dimensions need more images than that: `benchmarks/scores.py parity` compares those.
    """
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
    ours = sweeper("score", "a", "--against", "b", "--dims", "64", "--json", cwd=folders, TORCH_HOME=str(tmp_path))
    assert ours.code == 0, ours.err
    assert json.loads(ours.out)["fid"]["mean"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a", "--against", "nope"], 2, "'nope' is unknown"),
        (["a", "--against", "mnist5k", "--n", "81"], 2, "fewer than n=81"),
        (["a", "--against", "b", "--features", "imagenet", "--dims", "7"], 2, "dims=7"),
        (["a", "--against", "b", "--dims", "x"], 2, "--dims x: not whole numbers"),
        (["a", "--against", "b", "--features", "classifier"], 2, "needs classes"),
        (["a", "--against", "b", "--features", "vgg"], 2, "features=vgg is unknown"),
        (["a", "--against", "b"], 5, "pt_inception-2015-12-05-6726825d.pth"),
        (["one", "--against", "a", "--features", "imagenet"], 2, "at least 2 images, not 1"),
        (["empty", "--against", "a", "--features", "imagenet"], 2, "holds no image"),
        (["tiny", "--against", "a", "--features", "imagenet"], 2, "2×2 are too small"),
        (["mixed", "--against", "mnist5k"], 2, "make them square and of one size"),
    ],
)
def test_images_that_cannot_be_scored_are_an_error_of_one_line(
    folders: Path, words: list[str], code: int, message: str, sweeper: Call, tmp_path: Path
) -> None:
    for name, sizes in (("one", [32]), ("empty", []), ("tiny", [2, 2]), ("mixed", [32, 40])):
        (folders / name).mkdir(exist_ok=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", (size, size)).save(folders / name / f"{number}.png")
    done = sweeper("score", *words, cwd=folders, TORCH_HOME=str(tmp_path))
    assert (done.code, done.out) == (code, ""), done
    assert len(done.err.strip().splitlines()) == 1
    assert message in done.err


@pytest.mark.long
def test_arrays_and_tensors_score_like_files_of_the_same_images(folders: Path, digits: Images) -> None:
    network, real = ImageNet(), image_set(folders / "b")
    levels = np.stack([digits.pixels[60 * number] for number in range(80)])
    of_folder = score(image_set(folders / "a"), real, network)
    of_array = score(image_set(levels), real, network)
    of_floats = score(image_set(torch.from_numpy(levels).float() / 127.5 - 1), real, network)
    for name in ("fid", "kid", "sharpness"):
        assert of_array[name]["mean"] == pytest.approx(of_folder[name]["mean"], rel=1e-6)
        assert of_floats[name]["mean"] == of_array[name]["mean"]


def test_alpha_channels_mixed_sizes_and_identical_images_can_be_scored(tmp_path: Path, folders: Path) -> None:
    (tmp_path / "odd").mkdir()
    for number, size in enumerate([(20, 30), (40, 40), (40, 40)]):
        Image.new("RGBA", size, (200, 10, 10, 128)).save(tmp_path / "odd" / f"{number}.png")
    scores = score(image_set(tmp_path / "odd"), image_set(folders / "a"), ImageNet())
    assert all(np.isfinite(value["mean"]) for value in scores.values())
    assert scores["sharpness"]["mean"] == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((4, 1, 8, 8), float("nan")), "contain NaN"),
        (torch.zeros(4, 8, 8), r"shape \[4, 8, 8\]"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), "torch.int64"),
    ],
)
def test_tensors_that_are_not_images_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        image_set(images)
