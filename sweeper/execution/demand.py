"""How many of the shares that a sweep could use an autoscaler can give at once. Needs no Ray."""


class Demand:
    """Finds the most shares that fit on the largest cluster that may be.

    Ray's autoscaler starts nothing for a request that it cannot fulfil as a whole. So the request is halved until it
    can, and grows again by bisection.
    """

    def __init__(self) -> None:
        self._possible = 0  # the most that was possible
        self._impossible: int | None = None  # the least that was not

    def amount(self, wanted: int) -> int:
        """Return how many of the wanted shares to ask for next."""
        if self._impossible is None or wanted < self._impossible:
            return wanted
        return (self._possible + self._impossible) // 2 if self._impossible - self._possible > 1 else self._possible

    def answer(self, amount: int, possible: bool) -> None:
        """Take the answer to a request."""
        if possible:
            self._possible = max(self._possible, amount)
            if self._impossible is not None and self._impossible <= amount:
                self._impossible = None  # the shares have become smaller
        elif amount:
            self._impossible = amount
            self._possible = min(self._possible, amount - 1)

    @property
    def hopeless(self) -> bool:
        """Return whether not even one share can be given."""
        return self._impossible == 1
