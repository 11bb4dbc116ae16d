"""The paper's MSE loss, at the multiply-accumulates of the perceptual loss (docs/results.md).

At d = 4, 12 updates by mse cost one update by the perceptual loss: 48,000 beside 4,000 on Fashion-MNIST. At d = 2 they
are 33: --set d=2 --set updates=132000 --set first_rung=33000. On the digits half as many again.
"""

from search_spaces import fashion_mnist
from sweeper.spaces import Space

STUDENTS = Space(
    grids=[{"d": 4, "loss": "mse", "lr": [0.002, 0.004, 0.008], "ema": 0.998, "latents": 20_000}],
    **{**fashion_mnist.SCHEDULE, "updates": 48_000, "first_rung": 12_000},
)
