"""Fashion-MNIST at 32×32: 60,000 garments in ten classes. About an hour and a half on two cores (docs/results.md).

Students and controls are treated alike: ten configurations per d, 4,000 updates, averaged weights. The best of each d
is trained again with five fresh seeds, which the table shows. The teacher is d = 32.
"""

from typing import Any

from sweeper.spaces import Space

# 4,000 updates of batch 64 are 4 epochs. Rungs at 1,000 and 4,000; three of ten configurations per d are promoted.
# 10 × 1,000 + 3 × 3,000 = 19,000 updates per d instead of 40,000, and 5 × 4,000 with fresh seeds.
SCHEDULE: dict[str, Any] = {
    "updates": 4_000,
    "first_rung": 1_000,
    "rungs": 1,
    "eta": 3,
    "confirm": 5,
    "n_rung": 2_000,
    "n_selection": 5_000,
    "n_report": 10_000,
}
WIDTHS = [2, 4, 8, 16]

# 4 values of d × (8 + 2) + 2 = 42 trials. 13 ms an update at d = 2, 23 ms at d = 16, and 11 to 13 ms more with the
# wider discriminator; 48 ms at d = 32.
TEACHERS = Space(
    grids=[
        {
            "d": WIDTHS,
            "d_discriminator": 8,
            "lr": [0.002, 0.004],
            "lr_discriminator": [0.001, 0.002],
            "ema": [0.99, 0.998],
        },
        {"d": WIDTHS, "d_discriminator": 16, "lr": [0.002, 0.004], "lr_discriminator": 0.001, "ema": 0.99},
        {"d": 32, "d_discriminator": 16, "lr": [0.001, 0.002], "lr_discriminator": 0.001, "ema": 0.99},
    ],
    **SCHEDULE,
)

# 4 values of d × (2 + 4 + 4) = 40 trials. 13 ms an update by the perceptual loss at d = 2, 23 ms at d = 16. The joint
# loss with the teacher's discriminator of 16 takes 19 ms at d = 2, 33 ms at d = 16. Some sets need the perceptual loss
# after a warm-up and with a pixel term, some need it without: docs/results.md.
STUDENTS = Space(
    grids=[
        {"d": WIDTHS, "loss": "perceptual", "lr": [0.004, 0.008], "ema": 0.99, "latents": 20_000},
        {
            "d": WIDTHS,
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": [0.004, 0.008],
            "ema": [0.99, 0.998],
            "latents": 20_000,
        },
        {
            "d": WIDTHS,
            "loss": "joint",
            "alpha": [0.02, 0.05, 0.2, 0.5],
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
