"""MNIST at 64×64, the paper's comparison: d = 2 … 256, WGAN, Inception Score (the upper part of its Table 1).

For GPUs. Not yet run as a whole.
"""

from typing import Any

from sweeper.spaces import Space

# 45,000 updates of batch 64 are 48 epochs of 60,000 digits. Rungs at 5,000, 15,000 and 45,000.
SCHEDULE: dict[str, Any] = {"updates": 45_000, "first_rung": 5_000, "eta": 3}

# 8 values of d × 3 rates = 24 trials; per d 3 × 5,000 + 1 × 40,000 updates of the generator, and five times as many
# of the critic. d = 256 takes 85% of the multiply-accumulates.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 8, 16, 32, 64, 128, 256],
            "image_size": 64,
            "objective": "wgan",
            "lr": [0.00005, 0.0002, 0.0005],
            "lr_discriminator": 0.00005,
            "d_discriminator": 64,
        }
    ],
    **SCHEDULE,
)

# 7 values of d × (1 + 2) = 21 trials.
STUDENTS = Space(
    grids=[
        {"d": [2, 4, 8, 16, 32, 64, 128], "loss": "mse", "lr": 0.002, "latents": 60_000},
        {
            "d": [2, 4, 8, 16, 32, 64, 128],
            "loss": "joint",
            "alpha": [0.0001, 0.01],
            "warmup": 2_500,
            "d_discriminator": 64,
            "objective": "wgan",
            "lr": 0.0005,
            "lr_discriminator": 0.00005,
            "latents": 60_000,
        },
    ],
    **SCHEDULE,
)
