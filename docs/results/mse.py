"""The paper's MSE loss at d = 2 and 4, at the multiply-accumulates of the perceptual loss at d = 4 (docs/results.md).

At d = 4, 12 updates by mse cost one update by the perceptual loss, and 33 at d = 2: 48,000 updates beside 4,000 on
Fashion-MNIST, and --set updates=72000 --set first_rung=18000 beside 6,000 on the digits.
"""

from search_spaces import fashion_mnist
from sweeper.spaces import Space

STUDENTS = Space(
    grids=[{"d": [2, 4], "loss": "mse", "lr": [0.002, 0.004, 0.008], "ema": 0.998, "latents": 20_000}],
    **{**fashion_mnist.SCHEDULE, "updates": 48_000, "first_rung": 12_000},
)
