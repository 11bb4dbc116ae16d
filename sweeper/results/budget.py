"""Choose by a budget: the rows of a table whose generators fit, and the smallest student that is near the teacher."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sweeper.records import ONNX_FORMATS
from sweeper.results.comparison import Comparison
from sweeper.results.exported import FLOAT32
from sweeper.results.latency import DEFAULT, Conditions, machine, measured
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
    exports: bool = True  # whether what was exported before may fit, too

    @property
    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set, by the names of their options without --max-."""
        values = {name: getattr(self, name) for name in ("params", "macs", "ms", "bytes")}
        return {name: value for name, value in values.items() if value is not None}


def narrowed(comparison: Comparison, budget: Budget) -> Comparison:
    """Return the comparison with the rows and exports that fit the budget, and the limit of compression among them.

    A row whose exports alone fit does not fit. Raises UserError if nothing fits; the message names the nearest.
    """
    bounds, conditions = budget.bounds, budget.conditions
    taken = {row.label: _taken(comparison, row, budget) for row in comparison.table.rows} if bounds else {}
    comparison = comparison.with_latencies(conditions)  # with those that were measured just now
    if taken:
        _check(taken, bounds)
        rows = [_fitting(row, taken[row.label], bounds) for row in comparison.table.rows]
        rows = [row for row in rows if row.fits or row.exports]
        comparison = replace(comparison, table=replace(comparison.table, rows=rows))
    if budget.ms is not None:
        latency = f"{conditions}; {machine(conditions.device)}"
        comparison = replace(comparison, table=replace(comparison.table, latency=latency))
    table = comparison.table
    limit = limit_of(table.rows, table.teacher, table.metric, budget.within)
    return replace(comparison, table=replace(table, limit=limit))


Taken = dict[tuple[str, str], dict[str, float]]  # format and signature of an export → bound → what is taken
_ITSELF = ("", "")  # in place of format and signature: the row's generator


def _check(taken: dict[str, Taken], bounds: dict[str, float]) -> None:
    """Raise UserError if nothing fits."""
    candidates = [
        (f"{row}{', ' * bool(name)}{name}", takes) for row, each in taken.items() for (name, _), takes in each.items()
    ]
    if any(_fits(takes, bounds) for _, takes in candidates):
        return
    nearest, takes = min(candidates, key=lambda pair: max(pair[1][name] / bound for name, bound in bounds.items()))
    wanted = " ".join(f"--max-{name} {bound:g}" for name, bound in bounds.items())
    needs = ", ".join(f"{name} {takes[name]:{',.0f' if takes[name] >= 1000 else '.3g'}}" for name in bounds)
    raise UserError(f"{wanted}: no generator fits; the nearest is {nearest} with {needs}")


def _fits(takes: dict[str, float], bounds: dict[str, float]) -> bool:
    return all(takes[name] <= bound for name, bound in bounds.items())


def _fitting(row: Row, taken: Taken, bounds: dict[str, float]) -> Row:
    """Return a row with those of its exports that fit. fits: whether it fits itself."""

    def fitting(entry: Entry | None) -> Entry | None:
        if entry is None:
            return None
        ways = [(export, taken.get((export.format, export.signature))) for export in entry.exports]
        return replace(entry, exports=[export for export, takes in ways if takes and _fits(takes, bounds)])

    itself = taken[_ITSELF]
    fits, ms = _fits(itself, bounds), itself.get("ms")
    return replace(row, student=fitting(row.student), control=fitting(row.control), fits=fits, ms=ms)


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

    size = partial(_largest, comparison, row, shape, budget.formats)
    taken = {_ITSELF: take(budget.formats, size)}
    if budget.exports and budget.conditions.runtime == "onnx":  # torch does not run exports
        for export in row.exports:
            taken[export.format, export.signature] = take((export.format,), partial(float, export.bytes))
    return taken


def _milliseconds(comparison: Comparison, shape: GeneratorShape, name: str, conditions: Conditions) -> float:
    if conditions.runtime == "torch":
        name = "torch"
    elif name not in ONNX_FORMATS:
        name = FLOAT32
    return measured(comparison.store, shape, name, conditions).milliseconds


def _largest(comparison: Comparison, row: Row, shape: GeneratorShape, formats: tuple[str, ...]) -> float:
    """Return the bytes of the largest file of these formats. Raises UserError if the row's weights are missing."""
    sizes = [measured(comparison.store, shape, name, DEFAULT).bytes for name in formats if name in ONNX_FORMATS]
    if "safetensors" in formats:
        entry = row.student or row.control
        assert entry is not None
        path = comparison.store.weights(entry.signature, "generator", entry.updates)
        if not path.exists():
            raise UserError(f"--max-bytes: {path} is missing; restore it from a backup, or use --max-params")
        sizes.append(path.stat().st_size)
    return max(sizes)
