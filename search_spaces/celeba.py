"""CelebA at 64×64, d = 2 … 128, the non-saturating GAN, FID (the lower part of the paper's Table 1).

For GPUs; needs Inception's weights. Not yet run as a whole.
"""

from typing import Any

from sweeper.spaces import Space

# 90,000 updates of batch 64 are 35 epochs of 162,770 faces. Rungs at 10,000, 30,000 and 90,000.
SCHEDULE: dict[str, Any] = {"updates": 90_000, "first_rung": 10_000, "eta": 3}

# 7 values of d × 3 rates = 21 trials; per d 3 × 10,000 + 1 × 80,000 updates instead of 270,000.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 64, 128],
            "image_size": 64,
            "lr": [0.0002, 0.001, 0.004],
            "lr_discriminator": 0.0002,
            "d_discriminator": 64,
        }
    ],
    **SCHEDULE,
)

# 6 values of d × (1 + 2) = 18 trials; alpha = 0.0001 is from the paper (Figure 11).
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32, 64], "loss": "mse", "lr": 0.002, "latents": 100_000},
        {
            "d": [2, 4, 8, 16, 32, 64],
            "loss": "joint",
            "alpha": [0.0001, 0.01],
            "warmup": 5_000,
            "d_discriminator": 64,
            "lr": 0.002,
            "lr_discriminator": 0.0002,
            "latents": 100_000,
        },
    ],
    **SCHEDULE,
)
