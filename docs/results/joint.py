"""The paper's joint loss at d = 2 and 4, at the multiply-accumulates of the perceptual loss (docs/results.md).

An update of the joint loss with a discriminator of 8 costs 0.77 of one of the perceptual loss, so the budget is 1.3
times as many updates: 5,200 beside 4,000 on Fashion-MNIST, and --set updates=7800 --set first_rung=1950 beside 6,000 on
the digits. Ten configurations per d, twice as many as the perceptual loss has in the other spaces.
"""

from search_spaces import fashion_mnist
from sweeper.spaces import Space

STUDENTS = Space(
    grids=[
        {
            "d": [2, 4],
            "loss": "joint",
            "alpha": [0.02, 0.05, 0.1, 0.2, 0.5],
            "warmup": 300,
            "d_discriminator": 8,
            "lr": [0.002, 0.004],
            "lr_discriminator": 0.001,
            "ema": 0.99,
            "latents": 20_000,
        }
    ],
    **{**fashion_mnist.SCHEDULE, "updates": 5_200, "first_rung": 1_300},
)
