"""Students of three families at about equal parameters, 13,400 and 28,000 (docs/results.md)."""

from search_spaces import mnist5k
from sweeper.spaces import Space

SIZES = {"dcgan": [2, 4], "residual": [2, 4], "separable": [19, 33]}

# Rungs at 1,000 and 3,000 updates; the better of two learning rates is promoted, and trained with five fresh seeds.
STUDENTS = Space(
    grids=[
        {
            "family": family,
            "d": d,
            "loss": "perceptual",
            "warmup": 300,
            "fade": 500,
            "lr": [0.004, 0.008],
            "ema": 0.99,
            "latents": 20_000,
        }
        for family, d in SIZES.items()
    ],
    **{**mnist5k.SCHEDULE, "updates": 3_000, "first_rung": 1_000, "eta": 2, "confirm": 5},
)
