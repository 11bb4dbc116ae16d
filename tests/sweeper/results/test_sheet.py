"""A sheet shows every label whole, beside tiles whose columns are aligned."""

import numpy as np
from PIL import Image

from sweeper.results.sheet import COLUMNS, sheet


def test_a_long_label_is_not_cut() -> None:
    tiles = [Image.new("RGB", (32, 32), "red")] * COLUMNS
    short, long = "teacher", "imitation student, residual d=16, at 200,000 updates"
    picture = np.asarray(sheet([(short, tiles), (long, tiles)]).convert("RGB")).astype(int)
    half = len(picture) // 2
    red = (picture == [255, 0, 0]).all(axis=2)
    left = int(red.any(axis=0).argmax())
    assert (red[:half].any(axis=0) == red[half:].any(axis=0)).all()
    ink = (picture.sum(axis=2) < 300).any(axis=0)[:left]
    assert not ink[-4:].any(), "the label ends before the tiles"
    assert ink.sum() > 5 * len(long) / 2
