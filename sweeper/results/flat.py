"""The compression table as lines of plain numbers."""

from typing import Any

from sweeper.results.table import SCORES, Difference, Entry, Row, Table


def flat(table: Table) -> list[dict[str, Any]]:
    """Return a dict per row with plain numbers, None for missing ones: the lines of CSV, DataFrame and W&B's table.

    The teacher is the last row. It was trained as a regular GAN, so its scores are under the controls' keys.
    """
    lines = [
        _flat(row, row.ratio, row.student, row.control, is_teacher=False) | _intervals(row.differences)
        for row in table.rows
    ]
    teacher = table.teacher
    if teacher is None:
        return lines
    return [*lines, _flat(teacher, 1.0, None, teacher, is_teacher=True) | _intervals({})]


def _intervals(differences: dict[str, Difference | None]) -> dict[str, float | None]:
    return {
        f"difference_{name}{suffix}": getattr(difference, field) if (difference := differences.get(name)) else None
        for name in SCORES
        for suffix, field in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }


def _flat(
    size: Row | Entry, ratio: float | None, student: Entry | None, control: Entry | None, *, is_teacher: bool
) -> dict[str, Any]:
    line: dict[str, Any] = {"family": size.family, "d": size.d, "parameters": size.parameters, "macs": size.macs}
    line |= {"ratio": ratio, "teacher": is_teacher}
    for kind, entry in (("student", student), ("control", control)):
        for name in ("signature", "loss", "alpha", "seeds", "updates", "d_discriminator"):
            line[f"{kind}_{name}"] = getattr(entry, name) if entry else None
        for name in SCORES:
            score = entry.scores[name] if entry else None
            line[f"{kind}_{name}"] = score["mean"] if score else None
            line[f"{kind}_{name}_std"] = score["std"] if score else None
    return line
