"""The compression table as text: for a terminal, Markdown, CSV, LaTeX, JSON."""

import csv
import io

from sweeper.results.exported import FLOAT32, Export
from sweeper.results.lines import Line, flat, lines
from sweeper.results.table import Entry, Row, Table
from sweeper.store import dump
from trainables.scores.protocol import REPORT_SETS
from trainables.shapes import DEFAULT_FAMILY

STYLES = ("md", "csv", "latex", "json")
_LATEX = str.maketrans({"±": r"$\pm$", "α": r"$\alpha$", "≠": r"$\neq$", "—": "--", "_": r"\_", "%": r"\%"})


def columns(table: Table) -> list[str]:
    """Return the headings.

    Stu. and Reg. are the paper's abbreviations. D: widths of the discriminators, student's/control's. Family is left
    out if every generator is of the default family, kB and ms if there are no exports.
    """
    scores = [f"{name.upper()} ({kind})" for name in score_order(table) for kind in ("Stu.", "Reg.")]
    sizes = [*(["kB"] if _has_exports(table) else []), *(["ms"] if _has_latencies(table) else [])]
    return [*(["Family"] if _has_families(table) else []), "d", "Params", "Ratio", *sizes, *scores, "Student", "D"]


def cells(table: Table) -> list[list[str]]:
    """Return the lines of the table under `columns`."""
    return [_cells(table, line) for line in lines(table)]


def _cells(table: Table, line: Line) -> list[str]:
    export, known = line.export, line.size.parameters
    parameters = "—" if known is None else f"{known:,}"
    sizes = [*([line.size.family] if _has_families(table) else []), str(line.size.d or "—"), parameters]
    ratio = "—" if known is None or not line.ratio else "1:1" if line.is_teacher else f"{line.ratio:.1f}:1"
    kilobytes = [f"{export.bytes / 1000:,.0f}" if export else "—"] if _has_exports(table) else []
    milliseconds = [f"{line.ms:.{3 if line.ms < 1 else 1}f}" if line.ms else "—"] if _has_latencies(table) else []
    scores = [text for name in score_order(table) for text in _pair(table, line, name)]
    if export:
        last = [_export_name(line, export), "—"]
    elif line.is_teacher:
        teacher = line.control
        name = f"teacher {teacher.name}" if teacher and teacher.name else "teacher"
        last = [name, str((teacher and teacher.d_discriminator) or "—")]
    else:
        last = [_training(line.student), _discriminators(line.student, line.control)]
    return [*sizes, ratio, *kilobytes, *milliseconds, *scores, *last]


def _export_name(line: Line, export: Export) -> str:
    """Return the format, and the trial if the line's entry has several."""
    entry = line.student or line.control
    assert entry is not None
    several = len({other.signature for other in entry.exports}) > 1
    return f"{export.format} {export.signature[:6]}" if several else export.format


def _pair(table: Table, line: Line, name: str) -> tuple[str, str]:
    """Return the student's and the control's score. A star marks the one that is better beyond the interval."""
    student, control = _score(line.student, name), _score(line.control, name)
    if table.no_controls and line.control is None:
        return student, table.no_controls
    difference = line.differences.get(name)
    if difference is None or not difference.beyond:
        return student, control
    return (f"{student}*", control) if (difference.mean > 0) == (name == "is") else (student, f"{control}*")


def score_order(table: Table) -> tuple[str, str]:
    """Return the names of the scores that are shown, the one that chooses first."""
    return ("is", "fid") if table.metric == "is" else ("fid", "is")


def _has_families(table: Table) -> bool:
    sizes: list[Row | Entry] = [*table.rows, *([table.teacher] if table.teacher else [])]
    return any(size.family != DEFAULT_FAMILY for size in sizes)


def _has_exports(table: Table) -> bool:
    return any(line.export for line in lines(table))


def _has_latencies(table: Table) -> bool:
    return any(line.ms for line in lines(table))


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
    """Return the widths of both discriminators, flagged with ≠ if they differ: the comparison is then unequal."""
    first, second = (entry.d_discriminator if entry else None for entry in (student, control))
    flag = " ≠" if first is not None and second is not None and first != second else ""
    return f"{first or '—'}/{second or '—'}{flag}"


def caption(table: Table) -> str:
    """Return the data set, protocol, flags and limit of compression, in one line."""
    parts = [f"{table.dataset}: student (Stu.) against a regularly trained GAN of the same d (Reg.)"]
    if table.reference:
        parts.append(
            f"scores compare with {table.reference:,} images of the teacher's own, of latents that nothing else uses: "
            "there are no real images"
        )
    elif table.no_controls:
        parts.append(
            f"no controls: `sweeper run teachers` on the same data set with {table.control_settings} trains them"
        )
    if table.pairs:
        parts.append(f"the teacher is {table.pairs:,} pairs, and its scores are of these images")
    if not table.finished:
        parts.append("unfinished: trials are still to be trained, and scores may change")
    score = table.teacher.scores["fid"] if table.teacher else None
    if score:
        sets = f"{score['n']:,} images × {REPORT_SETS} sets of fresh latents"
        parts.append(f"scores of {sets}, {_spread(table)}; {score['protocol']}")
    if table.real["is"]:
        parts.append(f"IS of held-out real images {table.real['is']:.2f}")
    if accuracy := table.real.get("accuracy"):  # older sweeps have none
        parts.append(f"the classifier's accuracy on them {accuracy:.1%}")
    parts += [f"{row.label}: {'; '.join(unequal)} ≠" for row in table.rows if (unequal := inequalities(row))]
    compared = {name: counts for name in score_order(table) if (counts := table.beyond(name))[1]}
    if compared:
        won = " and ".join(f"in {better} of {rows} rows by {name.upper()}" for name, (better, rows) in compared.items())
        parts.append(f"* better beyond the 95% interval of the difference: the student {won}")
    parts += [
        f"{row.label}: {entry.diverged} fresh seeds of the {kind} diverged"
        for row in table.rows
        for kind, entry in (("student", row.student), ("control", row.control))
        if entry and entry.diverged
    ]
    exported = [(line, line.export) for line in lines(table) if line.export]
    for line, export in exported:
        kind = "teacher" if line.is_teacher else "student" if line.student else "control"
        if export.format != FLOAT32 and export.worse:
            parts.append(f"{line.size.label}, {kind}, {_export_name(line, export)}: {', '.join(export.worse)}")
    if exported:
        parts.append("onnx: the ONNX files of one training, in float32 and in fewer bits")
    if table.latency:
        parts.append(f"ms per image: {table.latency}")
    if limit := table.limit:
        parts.append(f"limit of compression (within {limit.tolerance:.0%} of the teacher): {limit.text}")
    return "; ".join(parts)


def inequalities(row: Row) -> list[str]:
    """Return what differs between the conditions of a row's student and control: `updates 2000 against 4000`."""
    if row.student is None or row.control is None:
        return []
    pairs = [(name, value, row.control.conditions[name]) for name, value in row.student.conditions.items()]
    return [f"{name} {ours} against {theirs}" for name, ours, theirs in pairs if ours != theirs]


def _spread(table: Table) -> str:
    """Say what ± is of, for each side of the table."""
    students = [row.student for row in table.rows if row.student]
    controls = [row.control for row in table.rows if row.control]
    if not any(entry.seeds > 1 for entry in [*students, *controls]):
        return "mean ± std over latents, which is not the spread over trainings; add --set confirm=5 for that"
    sides = [("Stu.", students), ("Reg.", controls), ("the teacher", [table.teacher] if table.teacher else [])]
    return "mean ± std: " + ", ".join(f"{name} {_spread_of(entries)}" for name, entries in sides if entries)


def _spread_of(entries: list[Entry]) -> str:
    counts = sorted({entry.seeds for entry in entries})
    if counts == [1]:
        return "over latents"
    kind = "fresh seeds" if all(entry.fresh for entry in entries) else "seeds"
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"over {several} {kind}" + (" (1: over latents)" if counts[0] == 1 else "")


def as_text(table: Table, style: str) -> str:
    """Return the table as text. style: one of STYLES."""
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
        notes = [f"% {part}" for part in caption(table).split("; ")]
        return "\n".join([*notes, *frame, r"\end{tabular}"])
    lines = ["| " + " | ".join(row) + " |" for row in [heads, ["--:"] * len(heads), *rows]]
    return "\n".join([*lines, "", caption(table)])


def show(table: Table) -> None:
    """Print the table on stdout, as a terminal table with its caption. On a narrow terminal ± starts a line."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.padding import Padding
    from rich.table import Table as TextTable

    def laid_out(line_end: str) -> TextTable:
        text = TextTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        lines = [
            [cell.replace("±", f"{line_end}±").replace("onnx-", f"onnx-{line_end}") for cell in row]
            for row in cells(table)
        ]
        for index, heading in enumerate(columns(table)):
            words = [word for line in lines for word in line[index].split()]
            text.add_column(heading, justify="right", min_width=max(map(len, words), default=1))
        for line in lines:
            text.add_row(*line)
        return text

    console = Console(highlight=False)
    if not console.is_terminal:  # nobody scrolls: a cell that is cut is lost
        needed = Measurement.get(console, console.options.update(width=1000), laid_out("\n")).maximum
        console = Console(highlight=False, width=max(min(110, console.width), needed))
    width = console.width
    natural = Measurement.get(console, console.options.update(width=1000), laid_out("")).maximum
    text = laid_out("" if natural <= width else "\n")
    console.print(text, Padding(caption(table), (0, 1)), width=width)
