"""Fashion-MNIST at 32×32: 60,000 garments in ten classes. For one GPU. Not yet run as a whole."""

from typing import Any

from sweeper.spaces import Space

# 27,000 updates of batch 64 are 29 epochs. Rungs at 3,000, 9,000 and 27,000.
SCHEDULE: dict[str, Any] = {"updates": 27_000, "first_rung": 3_000, "eta": 3}

# 6 values of d × 3 rates = 18 trials; per d 3 × 3,000 + 1 × 24,000 = 33,000 updates instead of 81,000.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 64],
            "d_discriminator": 32,
            "lr": [0.0005, 0.001, 0.004],
            "lr_discriminator": 0.0005,
        }
    ],
    **SCHEDULE,
)

# 5 values of d × (1 + 2) = 15 trials.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32], "loss": "mse", "lr": 0.002, "latents": 60_000},
        {
            "d": [2, 4, 8, 16, 32],
            "loss": "joint",
            "alpha": [0.01, 0.05],
            "warmup": 1_500,
            "d_discriminator": 32,
            "lr": 0.002,
            "lr_discriminator": 0.0005,
            "latents": 60_000,
        },
    ],
    **SCHEDULE,
)
