"""MNIST at 64×64, the paper's comparison: d = 2 … 256, WGAN, Inception Score (the upper part of its Table 1).

For GPUs. Not yet run as a whole.
"""

from typing import Any

from sweeper.spaces import Space

# 45,000 updates of batch 64 are 48 epochs of 60,000 digits. Rungs at 5,000, 15,000 and 45,000.
SCHEDULE: dict[str, Any] = {"updates": 45_000, "first_rung": 5_000, "eta": 3, "confirm": 5}

# 8 values of d × 6 rates = 48 trials; per d 6 × 5,000 + 2 × 10,000 + 1 × 30,000 updates of the generator, and five
# times as many of the critic; with fresh seeds 5 × 45,000 more for each control. d = 256 takes 85% of the
# multiply-accumulates.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 64, 128, 256],
            "image_size": 64,
            "objective": "wgan",
            "lr": [0.00005, 0.0002, 0.0005],
            "lr_discriminator": [0.00005, 0.0002],
            "d_discriminator": 64,
            "ema": 0.999,
        }
    ],
    **SCHEDULE,
)

# 7 values of d × (1 + 1 + 4) = 42 trials, as many per d as controls.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32, 64, 128], "loss": "perceptual", "lr": 0.004, "ema": 0.999, "latents": 60_000},
        {
            "d": [2, 4, 8, 16, 32, 64, 128],
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": 0.004,
            "ema": 0.999,
            "latents": 60_000,
        },
        {
            "d": [2, 4, 8, 16, 32, 64, 128],
            "loss": "joint",
            "alpha": [0.0001, 0.01, 0.1, 0.5],
            "warmup": 2_500,
            "d_discriminator": 64,
            "objective": "wgan",
            "lr": 0.0005,
            "lr_discriminator": 0.00005,
            "ema": 0.999,
            "latents": 60_000,
        },
    ],
    **SCHEDULE,
)
