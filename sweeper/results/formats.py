"""The compression table as text: for a terminal, Markdown, CSV, LaTeX, JSON."""

import csv
import io

from sweeper.results.table import Entry, Row, Table, flat
from sweeper.store import dump
from trainables.scores.protocol import REPORT_SETS
from trainables.shapes import DEFAULT_FAMILY

STYLES = ("md", "csv", "latex", "json")
_LATEX = str.maketrans({"±": r"$\pm$", "α": r"$\alpha$", "≠": r"$\neq$", "—": "--", "_": r"\_", "%": r"\%"})


def columns(table: Table) -> list[str]:
    """Return the headings.

    Stu. and Reg. are the paper's words. D: widths of the discriminators, student's/control's. Family is shown where a
    generator is not of the paper's.
    """
    scores = [f"{name.upper()} ({who})" for name in _order(table) for who in ("Stu.", "Reg.")]
    return [*(["Family"] if _has_families(table) else []), "d", "Params", "Ratio", *scores, "Student", "D"]


def cells(table: Table) -> list[list[str]]:
    """Return the rows under `columns`, the teacher's own last."""
    lines = []
    for row in table.rows:
        ratio = f"{row.ratio:.1f}:1" if row.ratio else "—"
        widths = _discriminators(row.student, row.control)
        lines.append(_line(table, row, ratio, row.student, row.control, _training(row.student), widths))
    if teacher := table.teacher:
        lines.append(_line(table, teacher, "1:1", None, teacher, "teacher", str(teacher.d_discriminator)))
    return lines


def _line(
    table: Table,
    size: Row | Entry,
    ratio: str,
    student: Entry | None,
    control: Entry | None,
    training: str,
    widths: str,
) -> list[str]:
    scores = [_score(entry, name) for name in _order(table) for entry in (student, control)]
    family = [size.family] if _has_families(table) else []
    return [*family, str(size.d), f"{size.parameters:,}", ratio, *scores, training, widths]


def _order(table: Table) -> tuple[str, str]:
    return ("is", "fid") if table.metric == "is" else ("fid", "is")


def _has_families(table: Table) -> bool:
    sizes: list[Row | Entry] = [*table.rows, *([table.teacher] if table.teacher else [])]
    return any(size.family != DEFAULT_FAMILY for size in sizes)


def _training(student: Entry | None) -> str:
    if student is None:
        return "—"
    return student.loss if student.alpha is None else f"{student.loss} α={student.alpha:g}"


def _score(entry: Entry | None, name: str) -> str:
    score = entry.scores[name] if entry else None
    if not score:
        return "—"
    digits = 2 if name == "is" else 1
    spread = f"±{score['std']:.{digits}f}" if score["std"] is not None else ""
    return f"{score['mean']:.{digits}f}{spread}"


def _discriminators(student: Entry | None, control: Entry | None) -> str:
    """Widths of both discriminators; ≠ where they differ, because a weak control flatters the student."""
    mine, theirs = (entry.d_discriminator if entry else None for entry in (student, control))
    flag = " ≠" if mine is not None and theirs is not None and mine != theirs else ""
    return f"{mine or '—'}/{theirs or '—'}{flag}"


def caption(table: Table) -> str:
    """Return what the numbers are, in one line."""
    parts = [f"{table.dataset}: student (Stu.) against a regularly trained GAN of the same d (Reg.)"]
    score = table.teacher.scores["fid"] if table.teacher else None
    if score:
        sets = f"{score['n']:,} images × {REPORT_SETS} sets of fresh latents"
        parts.append(f"scores of {sets}, mean ± std; {score['protocol']}")
    if table.real["is"]:
        parts.append(f"IS of held-out real images {table.real['is']:.2f}")
    parts += [
        f"{row.label}: {row.student.updates:,} updates against {row.control.updates:,} ≠"
        for row in table.rows
        if row.student and row.control and row.student.updates != row.control.updates
    ]
    if limit := table.limit:
        parts.append(
            f"limit of compression (within {limit.tolerance:.0%} of the teacher): {limit.label}, {limit.ratio:.1f}:1"
        )
    return "; ".join(parts)


def as_text(table: Table, style: str) -> str:
    """Return the table in one of STYLES."""
    heads, rows = columns(table), cells(table)
    if style == "json":
        return dump(table.as_json())
    if style == "csv":
        out, plain = io.StringIO(), flat(table)
        writer = csv.DictWriter(out, list(plain[0]) if plain else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        return out.getvalue().rstrip("\n")
    if style == "latex":
        body = [" & ".join(row).translate(_LATEX) + r" \\" for row in [heads, *rows]]
        frame = [rf"\begin{{tabular}}{{{'r' * len(heads)}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline"]
        return "\n".join([*frame, r"\end{tabular}"])
    lines = ["| " + " | ".join(row) + " |" for row in [heads, ["--:"] * len(heads), *rows]]
    return "\n".join([*lines, "", caption(table)])


def show(table: Table) -> None:
    """Print for people, on stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table as Drawn

    drawn = Drawn(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in columns(table):
        drawn.add_column(heading, justify="right", overflow="fold", no_wrap=heading == "Family")
    for row in cells(table):
        drawn.add_row(*row)
    console = Console(highlight=False)
    console.print(drawn, Padding(caption(table), (0, 1)), width=None if console.is_terminal else 110)
