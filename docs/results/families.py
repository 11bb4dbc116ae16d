"""Students of three families at about equal parameters: 13,400 and 28,000."""

from search_spaces import mnist5k
from sweeper.spaces import Space

SIZES = {"dcgan": [2, 4], "residual": [2, 4], "separable": [19, 33]}

# Rungs at 1,000 and 3,000 updates; the better of two learning rates is promoted, and trained with five fresh seeds.
STUDENTS = Space(
    grids=[
        {**grid, "family": family, "d": d, "latents": 20_000}
        for grid in mnist5k.STUDENTS.grids
        if grid["loss"] == "perceptual"
        for family, d in SIZES.items()
    ],
    **{**mnist5k.SCHEDULE, "updates": 3_000, "first_rung": 1_000, "eta": 2, "confirm": 5},
)
