"""Any folder of images, at 32×32, with a small budget. Copy this file, edit the copy, and name it with --space."""

from typing import Any

from sweeper.spaces import Space

# Rungs at 1,000, 3,000 and 9,000 updates; per d 3 × 1,000 + 1 × 8,000 = 11,000 instead of 27,000.
SCHEDULE: dict[str, Any] = {
    "updates": 9_000,
    "first_rung": 1_000,
    "eta": 3,
    "n_rung": 1_000,
    "n_selection": 5_000,
    "n_report": 10_000,
}

# 5 values of d × 3 rates = 15 trials.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32],
            "d_discriminator": 16,
            "lr": [0.0005, 0.001, 0.004],
            "lr_discriminator": 0.0005,
        }
    ],
    **SCHEDULE,
)

# 4 values of d × (1 + 2) = 12 trials.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16], "loss": "mse", "lr": 0.004, "latents": 20_000},
        {
            "d": [2, 4, 8, 16],
            "loss": "joint",
            "alpha": [0.01, 0.05],
            "warmup": 500,
            "d_discriminator": 16,
            "lr": 0.004,
            "lr_discriminator": 0.0005,
            "latents": 20_000,
        },
    ],
    **SCHEDULE,
)
