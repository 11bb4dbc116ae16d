"""5,000 real MNIST digits at 32×32, for a laptop: about six minutes on two cores for both sweeps.

Teachers and controls are one sweep: the best trial is the teacher, the best of each d is the control. Students and
controls are treated alike: four configurations per d, 2,000 updates, a discriminator of d = 8, averaged weights. The
best of each d is trained again with two fresh seeds, which the table shows. The learning rates were searched equally
for both. With 0.0002, DCGAN's default, a control of d = 2 learns nothing in 2,000 updates, which would flatter the
students.
"""

from typing import Any

from sweeper.spaces import Space

# Rungs at 600 and 2,000 updates; one of four configurations per d is promoted (eta = 3).
# 4 × 600 + 1 × 1,400 = 3,800 updates per d, instead of 4 × 2,000 = 8,000 without pruning.
# confirm: fresh seeds of the best configuration: 2 × 2,000 updates more per d.
# n_rung, n_selection, n_report: images per score at a rung, for selection and in the report (three sets).
SCHEDULE: dict[str, Any] = {
    "updates": 2_000,
    "first_rung": 600,
    "rungs": 1,
    "eta": 3,
    "confirm": 2,
    "n_rung": 1_000,
    "n_selection": 5_000,
    "n_report": 10_000,
}

# 3 values of d × 4 = 12 trials, 11,400 updates, and 8,000 with fresh seeds at d = 2 and 4; 13 ms each at d = 2 and 4,
# 22 ms at d = 16: 5 minutes of one core.
TEACHERS = Space(
    grids=[
        {
            "d": [2, 4, 16],
            "d_discriminator": 8,
            "lr": [0.004, 0.008],
            "lr_discriminator": [0.001, 0.002],
            "ema": 0.99,
        }
    ],
    **SCHEDULE,
)

# 2 values of d × (1 + 2 + 1) = 8 trials, 7,600 updates, and 8,000 with fresh seeds; 3 ms each by mse, 10 ms by the
# perceptual loss, 13 ms by the joint loss: 3 minutes of one core.
# The perceptual loss and the joint loss start with 300 updates by mse alone: the features of empty images hardly
# change, and against noise the discriminator wins at once.
STUDENTS = Space(
    grids=[
        {"d": [2, 4], "loss": "mse", "lr": 0.008, "ema": 0.99, "latents": 10_000},
        {
            "d": [2, 4],
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": [0.004, 0.008],
            "ema": 0.99,
            "latents": 10_000,
        },
        {
            "d": [2, 4],
            "loss": "joint",
            "alpha": 0.05,
            "warmup": 300,
            "d_discriminator": 8,
            "lr": 0.008,
            "lr_discriminator": 0.002,
            "ema": 0.99,
            "latents": 10_000,
        },
    ],
    **SCHEDULE,
)
