"""Whatever a folder of images holds: it is decoded, or one error names what is wrong. A failure prints its seed."""

import random
from pathlib import Path

import pytest

from tests.fuzz.images import fill
from trainables.dataset_identity import identify
from trainables.decoding import folder_batches, image_files
from trainables.errors import UserError
from trainables.images import prepare

CASES = 600
SHORT = 60  # of them in `make test`
SEEDS = [pytest.param(range(SHORT), id="short"), pytest.param(range(SHORT, CASES), id="all", marks=pytest.mark.long)]


def error_of(folder: Path, cache: Path) -> str | None:
    """Decode a folder as `run` does, and read it as `score` does. Return the error, or None."""
    try:
        images = prepare(identify(str(folder), cache), 32, cache, folder=folder)
        assert images.pixels.shape[2:] == (32, 32)
        assert sum(map(len, folder_batches(image_files(folder)))) == len(images.pixels)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_folder_of_images_is_decoded_or_refused_in_one_line(seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        folder = tmp_path / str(seed) / "photos"
        refused = fill(folder, random.Random(seed))
        try:
            error = error_of(folder, tmp_path / str(seed) / "cache")
        except Exception as raised:
            raise AssertionError(f"seed {seed}") from raised
        assert error or not refused, f"seed {seed} was decoded"
        assert len((error or "").splitlines()) <= 3, f"seed {seed}: {error}"
        assert {path.name for path in folder.parent.iterdir()} <= {"photos", "cache"}, f"seed {seed}"
