"""The 5,000 digits of mnist5k with a teacher of d = 64: the search space behind docs/results.md."""

from typing import Any

from search_spaces import fashion_mnist
from sweeper.spaces import Space

# As Fashion-MNIST's, with rungs at 1,500 and 6,000: 28,500 updates per d, and 5 × 6,000 with fresh seeds.
SCHEDULE: dict[str, Any] = {**fashion_mnist.SCHEDULE, "updates": 6_000, "first_rung": 1_500}
TEACHER = {"d": 64, "d_discriminator": 16, "lr": 0.002, "lr_discriminator": 0.001, "ema": 0.99}

TEACHERS = Space(grids=[*fashion_mnist.TEACHERS.grids[:2], TEACHER], **SCHEDULE)
STUDENTS = Space(grids=fashion_mnist.STUDENTS.grids, **SCHEDULE)
