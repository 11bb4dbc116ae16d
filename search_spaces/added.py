"""Students of an added teacher, or of one with larger images. Copy this file, edit the copy, and name it with --space.

Such a teacher has no discriminator for the students' images, so that the perceptual loss, and discriminators that start
as the teacher's, are not here. The joint loss needs real images: a teacher that was added without a data set has none,
and joint is left out. Imitation shows its discriminator the teacher's images instead.
"""

from typing import Any

from sweeper.spaces import Space

# Rungs at 1,000 and 4,000 updates; two of seven configurations per d are promoted, and the best is trained again with
# three fresh seeds: 7 × 1,000 + 2 × 3,000 + 3 × 4,000 = 25,000 updates per d.
SCHEDULE: dict[str, Any] = {
    "updates": 4_000,
    "first_rung": 1_000,
    "rungs": 1,
    "eta": 3,
    "confirm": 3,
    "n_rung": 1_000,
    "n_selection": 5_000,
    "n_report": 10_000,
}

ADVERSARY: dict[str, Any] = {"warmup": 300, "d_discriminator": 8, "lr": 0.004, "lr_discriminator": 0.001}
ADVERSARY |= {"ema": 0.99, "latents": 20_000}

# 4 values of d × (2 + 3 + 2) = 28 trials.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16], "loss": "mse", "lr": [0.004, 0.008], "ema": 0.99, "latents": 20_000},
        {"d": [2, 4, 8, 16], "loss": "joint", "alpha": [0.02, 0.1, 0.5], **ADVERSARY},
        {"d": [2, 4, 8, 16], "loss": "imitation", "alpha": [0.1, 0.5], **ADVERSARY},
    ],
    **SCHEDULE,
)
