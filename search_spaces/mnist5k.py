"""5,000 real MNIST digits at 32×32, for a laptop: two cores, about seven minutes for both sweeps.

Teachers and controls are one sweep: the best of all is the teacher, the best of each d its control. Students get what
controls get: four configurations per d, 2,000 updates, one seed, a discriminator of d = 8, an average of the weights.
The rates were searched for the controls as hard as for the students: at 0.0002, DCGAN's own, a control of d = 2 has
learned nothing after 2,000 updates, and any student would look good beside it.
"""

from typing import Any

from sweeper.spaces import Space

# Rungs at 600 and 2,000 updates; of four configurations per d one goes on (eta = 3).
# 4 × 600 + 1 × 1,400 = 3,800 updates per d, instead of 4 × 2,000 = 8,000 without pruning.
# Images in the scores that prune, that choose, and that are printed (three sets of the last).
SCHEDULE: dict[str, Any] = {
    "updates": 2_000,
    "first_rung": 600,
    "rungs": 1,
    "eta": 3,
    "n_rung": 1_000,
    "n_selection": 5_000,
    "n_report": 10_000,
}

# 3 values of d × 4 = 12 trials, 11,400 updates; 30 ms each at d = 2 and 4, 55 ms at d = 16: 7 minutes of one core.
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

# 2 values of d × (1 + 3) = 8 trials, 7,600 updates; 12 ms each by mse, 30 ms by the joint loss: 3 minutes of one core.
# The joint loss begins with 300 updates by mse alone: a discriminator that starts against noise wins at once.
STUDENTS = Space(
    grids=[
        {"d": [2, 4], "loss": "mse", "lr": 0.008, "ema": 0.99, "latents": 10_000},
        {
            "d": [2, 4],
            "loss": "joint",
            "alpha": [0.01, 0.02, 0.05],
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
