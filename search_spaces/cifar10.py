"""CIFAR-10 at 64×64 (the paper's network), d = 2 … 64, WGAN, FID (the middle part of the paper's Table 1).

For GPUs; needs Inception's weights. Not yet run as a whole.
"""

from typing import Any

from sweeper.spaces import Space

# 90,000 updates of batch 64 are 115 epochs of 50,000 images. Rungs at 10,000, 30,000 and 90,000.
SCHEDULE: dict[str, Any] = {"updates": 90_000, "first_rung": 10_000, "eta": 3, "confirm": 5}

# 7 values of d × 6 rates = 42 trials; per d 6 × 10,000 + 2 × 20,000 + 1 × 60,000 updates instead of 540,000, and with
# fresh seeds 5 × 90,000 more for each control.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 48, 64],
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

# 6 values of d × (1 + 1 + 4) = 36 trials, as many per d as controls.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32, 48], "loss": "perceptual", "lr": 0.004, "ema": 0.999, "latents": 100_000},
        {
            "d": [2, 4, 8, 16, 32, 48],
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": 0.004,
            "ema": 0.999,
            "latents": 100_000,
        },
        {
            "d": [2, 4, 8, 16, 32, 48],
            "loss": "joint",
            "alpha": [0.0001, 0.01, 0.1, 0.5],
            "warmup": 5_000,
            "d_discriminator": 64,
            "objective": "wgan",
            "lr": 0.0005,
            "lr_discriminator": 0.00005,
            "ema": 0.999,
            "latents": 100_000,
        },
    ],
    **SCHEDULE,
)
