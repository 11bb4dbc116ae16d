"""Students of an added teacher, or of one with larger images. Copy this file, edit the copy, and name it with --space.

Such a teacher has no discriminator for the students' images, so that the perceptual loss, and discriminators that start
as the teacher's, are not here. The joint loss needs real images: a teacher that was added without a data set has none,
and joint is left out.
"""

from typing import Any

from sweeper.spaces import Space

# Rungs at 1,000 and 4,000 updates; one of four or five configurations per d is promoted, and trained again with three
# fresh seeds: 5 × 1,000 + 3,000 + 3 × 4,000 = 20,000 updates per d.
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

# 4 values of d × (2 + 3) = 20 trials.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16], "loss": "mse", "lr": [0.004, 0.008], "ema": 0.99, "latents": 20_000},
        {
            "d": [2, 4, 8, 16],
            "loss": "joint",
            "alpha": [0.02, 0.1, 0.5],
            "warmup": 300,
            "d_discriminator": 8,
            "lr": 0.004,
            "lr_discriminator": 0.001,
            "ema": 0.99,
            "latents": 20_000,
        },
    ],
    **SCHEDULE,
)
