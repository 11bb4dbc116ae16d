"""Choose by a budget: the rows of a table whose generators fit, and the smallest student that is near the teacher."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sweeper.records import ONNX_FORMATS
from sweeper.results.comparison import Comparison
from sweeper.results.exported import FLOAT32
from sweeper.results.latency import DEFAULT, Conditions, measured
from sweeper.results.table import TOLERANCE, Entry, Row, limit_of
from trainables.errors import UserError
from trainables.shapes import GeneratorShape


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a generator may take at most; None is no bound. within: how near the teacher's score a student has to be to
    be the limit of compression, as a part of that score.
    """

    params: int | None = None
    macs: float | None = None  # per image
    ms: float | None = None  # milliseconds per image on this machine
    bytes: int | None = None  # of the file of its weights
    within: float = TOLERANCE
    conditions: Conditions = DEFAULT  # of ms
    formats: tuple[str, ...] = ("safetensors",)  # files that are to fit: safetensors and ONNX_FORMATS

    @property
    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set, by the names of their options without --max-."""
        values = {name: getattr(self, name) for name in ("params", "macs", "ms", "bytes")}
        return {name: value for name, value in values.items() if value is not None}


def narrowed(comparison: Comparison, budget: Budget) -> Comparison:
    """Return the comparison with the rows and exports that fit the budget, and the limit of compression among them.

    A row whose exports alone fit does not fit. Raises UserError if nothing fits; the message names the nearest.
    """
    if budget.conditions != DEFAULT:
        comparison = comparison.with_latencies(budget.conditions)
    bounds = budget.bounds
    if bounds:
        taken = {row.label: _taken(comparison, row, budget) for row in comparison.table.rows}
        comparison = comparison.with_latencies(budget.conditions)  # with those that were measured just now
        _check(taken, bounds)
        rows = [_fitting(row, taken[row.label], bounds) for row in comparison.table.rows]
        rows = [row for row in rows if row.fits or row.exports]
        comparison = replace(comparison, table=replace(comparison.table, rows=rows))
    table = comparison.table
    limit = limit_of(table.rows, table.teacher, table.metric, budget.within)
    return replace(comparison, table=replace(table, limit=limit))


Taken = dict[str, dict[str, float]]  # format, or "" for the row itself → bound → what is taken


def _check(taken: dict[str, Taken], bounds: dict[str, float]) -> None:
    """Raise UserError if nothing fits."""
    candidates = {
        f"{label}{', ' * bool(name)}{name}": takes for label, each in taken.items() for name, takes in each.items()
    }
    if not candidates or any(_fits(takes, bounds) for takes in candidates.values()):
        return
    nearest = min(candidates, key=lambda name: max(candidates[name][b] / bound for b, bound in bounds.items()))
    wanted = " ".join(f"--max-{name} {bound:g}" for name, bound in bounds.items())
    needs = ", ".join(f"{name} {candidates[nearest][name]:.4g}" for name in bounds)
    raise UserError(f"{wanted}: no generator fits; the nearest is {nearest} with {needs}")


def _fits(takes: dict[str, float], bounds: dict[str, float]) -> bool:
    return all(takes[name] <= bound for name, bound in bounds.items())


def _fitting(row: Row, taken: Taken, bounds: dict[str, float]) -> Row:
    """Return a row with those of its exports that fit. fits: whether it fits itself."""

    def fitting(entry: Entry | None) -> Entry | None:
        if entry is None:
            return None
        return replace(
            entry, exports=[e for e in entry.exports if e.format in taken and _fits(taken[e.format], bounds)]
        )

    return replace(row, student=fitting(row.student), control=fitting(row.control), fits=_fits(taken[""], bounds))


def _taken(comparison: Comparison, row: Row, budget: Budget) -> Taken:
    """Return what a row's generator and its exports take, for each bound. What is not bounded is not measured."""
    (shape,) = (shape for shape in comparison.shapes() if shape.label == row.label)

    def take(formats: tuple[str, ...], size: Callable[[], float]) -> dict[str, float]:
        ways: dict[str, Callable[[], float]] = {
            "params": lambda: row.parameters,
            "macs": lambda: row.macs,
            "ms": lambda: max(_milliseconds(comparison, shape, name, budget.conditions) for name in formats),
            "bytes": size,
        }
        return {bound: ways[bound]() for bound in budget.bounds}

    taken = {"": take(budget.formats, lambda: max(_bytes(comparison, row, shape, name) for name in budget.formats))}
    if budget.conditions.runtime == "onnx":  # torch does not run exports
        taken |= {export.format: take((export.format,), partial(float, export.bytes)) for export in row.exports}
    return taken


def _milliseconds(comparison: Comparison, shape: GeneratorShape, name: str, conditions: Conditions) -> float:
    if conditions.runtime == "torch":
        name = "torch"
    elif name not in ONNX_FORMATS:
        name = FLOAT32
    return measured(comparison.store, shape, name, conditions).milliseconds


def _bytes(comparison: Comparison, row: Row, shape: GeneratorShape, name: str) -> float:
    if name in ONNX_FORMATS:
        return measured(comparison.store, shape, name, DEFAULT).bytes
    entry = row.student or row.control
    assert entry is not None
    path = comparison.store.weights(entry.signature, "generator", entry.updates)
    if not path.exists():
        raise UserError(f"--max-bytes: {path} is missing; restore it from a backup, or use --max-params")
    return path.stat().st_size
