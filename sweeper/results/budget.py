"""Choose by a budget: the rows of a table whose generators fit, and the smallest student that is near the teacher."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sweeper.results.comparison import Comparison
from sweeper.results.table import TOLERANCE, Row, limit_of
from trainables.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a generator may take at most; None is no bound. within: how near the teacher's score a student has to be to
    be the limit of compression, as a part of that score.
    """

    params: int | None = None
    macs: float | None = None  # per image
    ms: float | None = None  # milliseconds per image on this machine's CPU, measured as in sweeper.results.latency
    bytes: int | None = None  # of the file of its weights
    within: float = TOLERANCE

    @property
    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set, by the names of their options without --max-."""
        values = {name: getattr(self, name) for name in ("params", "macs", "ms", "bytes")}
        return {name: value for name, value in values.items() if value is not None}


def narrowed(comparison: Comparison, budget: Budget) -> Comparison:
    """Return the comparison with the rows that fit the budget, and with the limit of compression among them.

    Raises UserError if no row fits; the message names the nearest.
    """
    table, bounds = comparison.table, budget.bounds
    taken = {row.label: _taken(comparison, row, bounds) for row in table.rows}
    rows = [row for row in table.rows if all(taken[row.label][name] <= bound for name, bound in bounds.items())]
    if table.rows and not rows:
        nearest = min(table.rows, key=lambda row: max(taken[row.label][name] / bounds[name] for name in bounds))
        wanted = " ".join(f"--max-{name} {bound:g}" for name, bound in bounds.items())
        needs = ", ".join(f"{name} {taken[nearest.label][name]:.4g}" for name in bounds)
        raise UserError(f"{wanted}: no generator fits; the nearest is {nearest.label} with {needs}")
    limit = limit_of(rows, table.teacher, table.metric, budget.within)
    return replace(comparison, table=replace(table, rows=rows, limit=limit))


def _taken(comparison: Comparison, row: Row, bounds: dict[str, float]) -> dict[str, float]:
    """Return what a row's generator takes, for each bound. Latency is measured only if it is bounded."""
    measures: dict[str, Callable[[], float]] = {
        "params": lambda: row.parameters,
        "macs": lambda: row.macs,
        "ms": lambda: 1000 * _latency(comparison, row),
        "bytes": lambda: _file_size(comparison, row),
    }
    return {name: measures[name]() for name in bounds}


def _latency(comparison: Comparison, row: Row) -> float:
    from sweeper.results.latency import cpu_latency

    (shape,) = (shape for shape in comparison.shapes() if shape.label == row.label)
    return cpu_latency(shape)


def _file_size(comparison: Comparison, row: Row) -> float:
    entry = row.student or row.control
    assert entry is not None
    path = comparison.store.weights(entry.signature, "generator", entry.updates)
    if not path.exists():
        raise UserError(f"--max-bytes: {path} is missing; restore it from a backup, or use --max-params")
    return path.stat().st_size
