"""Bank: the teacher runs once."""

from pathlib import Path

import numpy as np

from trainables.bank import Bank


def test_the_teacher_runs_once_and_images_match_their_latents(tmp_path: Path) -> None:
    calls = []

    def teacher(z: np.ndarray) -> np.ndarray:
        calls.append(len(z))
        return (np.abs(z[:, :16]) * 50).astype(np.uint8).reshape(-1, 1, 4, 4)

    first, second = Bank(tmp_path, 40, teacher), Bank(tmp_path, 40, teacher)
    assert calls == [40]
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(second.images[7], teacher(second.z[7:8])[0])
