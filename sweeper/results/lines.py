"""The lines of a compression table: its rows, the teacher, and their exports below them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sweeper.records import SCORES
from sweeper.results.difference import Difference
from sweeper.results.exported import Export
from sweeper.results.table import Entry, Row, Table


@dataclass(frozen=True)
class Line:
    """A line of the printed table: a row, the teacher, or an export of one of their entries below it."""

    size: Row | Entry
    ratio: float | None
    student: Entry | None
    control: Entry | None  # the teacher, too: it was trained as a regular GAN
    differences: dict[str, Difference | None]
    is_teacher: bool = False
    export: Export | None = None

    @property
    def ms(self) -> float | None:
        """Return the milliseconds per image."""
        if self.export:
            return self.export.ms
        return self.size.ms if isinstance(self.size, Row) else None


def lines(table: Table) -> Iterator[Line]:
    """Yield the lines: each row and the exports of its student and control, the teacher and its exports last."""
    for row in table.rows:
        line = Line(row, row.ratio, row.student, row.control, row.differences)
        yield from _with_exports(line, row.fits)
    if table.teacher:
        yield from _with_exports(Line(table.teacher, 1.0, None, table.teacher, {}, is_teacher=True), True)


def _with_exports(line: Line, fits: bool) -> Iterator[Line]:
    if fits:
        yield line
    for entry in (line.student, line.control):
        for export in entry.exports if entry else []:
            assert entry is not None
            scored = replace(entry, signature=export.signature, scores=export.scores, seeds=1)
            student, control = (scored, None) if entry is line.student else (None, scored)
            yield replace(line, student=student, control=control, differences={}, export=export)


def flat(table: Table) -> list[dict[str, Any]]:
    """Return a dict per line with plain numbers, None for missing ones: the lines of CSV, DataFrame and W&B's table.

    The teacher's scores are under the controls' keys. format, bytes and ms are of exported generators. finished:
    whether the sweeps are; else scores may change.
    """
    return [_flat(line) | _intervals(line.differences) | {"finished": table.finished} for line in lines(table)]


def _intervals(differences: dict[str, Difference | None]) -> dict[str, float | None]:
    return {
        f"difference_{name}{suffix}": getattr(difference, end) if (difference := differences.get(name)) else None
        for name in SCORES
        for suffix, end in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }


def _flat(line: Line) -> dict[str, Any]:
    size, export = line.size, line.export
    found: dict[str, Any] = {"family": size.family, "d": size.d, "parameters": size.parameters, "macs": size.macs}
    found |= {"ratio": line.ratio, "teacher": line.is_teacher}
    found |= {name: getattr(export, name) if export else None for name in ("format", "bytes")}
    found["ms"] = line.ms
    for kind, entry in (("student", line.student), ("control", line.control)):
        for name in ("signature", "loss", "alpha", "seeds", "updates", "d_discriminator"):
            found[f"{kind}_{name}"] = getattr(entry, name) if entry else None
        for name in SCORES:
            score = entry.scores[name] if entry else None
            found[f"{kind}_{name}"] = score["mean"] if score else None
            found[f"{kind}_{name}_std"] = score["std"] if score else None
    return found
