"""Any folder of images, at 32×32, with a small budget. Copy this file, edit the copy, and name it with --space."""

from typing import Any

from sweeper.spaces import Space

# Rungs at 1,000 and 4,000 updates; two of six configurations per d are promoted: 6 × 1,000 + 2 × 3,000 = 12,000 updates
# instead of 24,000, and 3 × 4,000 with fresh seeds.
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

# 4 values of d × (4 + 2) + 2 = 26 trials.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16],
            "d_discriminator": 8,
            "lr": [0.002, 0.004],
            "lr_discriminator": [0.001, 0.002],
            "ema": 0.99,
        },
        {"d": [2, 4, 8, 16], "d_discriminator": 16, "lr": [0.002, 0.004], "lr_discriminator": 0.001, "ema": 0.99},
        {"d": 32, "d_discriminator": 16, "lr": [0.001, 0.002], "lr_discriminator": 0.001, "ema": 0.99},
    ],
    **SCHEDULE,
)

# 4 values of d × (1 + 2 + 3) = 24 trials. Some sets need the perceptual loss after a warm-up and with a pixel term,
# some need it without: docs/results.md.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16], "loss": "perceptual", "lr": 0.004, "ema": 0.99, "latents": 20_000},
        {
            "d": [2, 4, 8, 16],
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": [0.004, 0.008],
            "ema": 0.99,
            "latents": 20_000,
        },
        {
            "d": [2, 4, 8, 16],
            "loss": "joint",
            "alpha": [0.02, 0.1, 0.5],
            "warmup": 300,
            "discriminator_start": "teacher",
            "lr": 0.004,
            "lr_discriminator": 0.001,
            "ema": 0.99,
            "latents": 20_000,
        },
    ],
    **SCHEDULE,
)
