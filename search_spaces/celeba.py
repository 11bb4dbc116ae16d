"""CelebA at 64×64, d = 2 … 128, the non-saturating GAN, FID (the lower part of the paper's Table 1).

For GPUs; needs Inception's weights. Not yet run as a whole.
"""

from typing import Any

from sweeper.spaces import Space

# 90,000 updates of batch 64 are 35 epochs of 162,770 faces. Rungs at 10,000, 30,000 and 90,000.
SCHEDULE: dict[str, Any] = {"updates": 90_000, "first_rung": 10_000, "eta": 3, "confirm": 5}

# 7 values of d × 6 rates = 42 trials; per d 6 × 10,000 + 2 × 20,000 + 1 × 60,000 updates instead of 540,000, and with
# fresh seeds 5 × 90,000 more for each control.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 64, 128],
            "image_size": 64,
            "lr": [0.0002, 0.001, 0.004],
            "lr_discriminator": [0.0002, 0.001],
            "d_discriminator": 64,
            "ema": 0.999,
        }
    ],
    **SCHEDULE,
)

# 6 values of d × (1 + 1 + 4) = 36 trials, as many per d as controls. alpha = 0.0001 is from the paper (Figure 11).
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32, 64], "loss": "perceptual", "lr": 0.004, "ema": 0.999, "latents": 100_000},
        {
            "d": [2, 4, 8, 16, 32, 64],
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": 0.004,
            "ema": 0.999,
            "latents": 100_000,
        },
        {
            "d": [2, 4, 8, 16, 32, 64],
            "loss": "joint",
            "alpha": [0.0001, 0.01, 0.1, 0.5],
            "warmup": 5_000,
            "d_discriminator": 64,
            "lr": 0.002,
            "lr_discriminator": 0.0002,
            "ema": 0.999,
            "latents": 100_000,
        },
    ],
    **SCHEDULE,
)
