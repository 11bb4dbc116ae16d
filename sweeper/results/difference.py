"""The difference of two mean scores over seeds, with its confidence interval."""

import math
from dataclasses import dataclass

from trainables.scores.protocol import Score


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The student's mean score minus the control's, with Welch's 95% confidence interval over seeds."""

    mean: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def welch(ours: Score, our_seeds: int, theirs: Score, their_seeds: int) -> Difference | None:
    """Return the difference of two means over seeds, with Welch's interval. None with fewer than two seeds a side."""
    from scipy.stats import t  # here, because it takes longer to import than a small table to build

    if min(our_seeds, their_seeds) < 2 or ours["std"] is None or theirs["std"] is None:
        return None
    sides = ((ours["std"] ** 2 / our_seeds, our_seeds), (theirs["std"] ** 2 / their_seeds, their_seeds))
    squared = sum(error for error, _ in sides)  # the variance of the difference
    freedom = sum(error**2 / (seeds - 1) for error, seeds in sides)
    degrees = squared**2 / freedom if squared else math.inf
    mean, margin = ours["mean"] - theirs["mean"], float(t.ppf(0.975, degrees)) * math.sqrt(squared)
    return Difference(mean=mean, low=mean - margin, high=mean + margin)
