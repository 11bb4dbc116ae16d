"""The compression table: d, parameters, ratio, student's scores, control's scores, as data and as text."""

import csv
import io
from statistics import fmean, stdev
from typing import Any

from sweeper.scheduling.selection import best, controls_of, quality
from sweeper.scheduling.sweep import Sweep
from sweeper.store import FinalRecord, Manifest, Store, dump
from trainables.errors import NotYetError, UserError
from trainables.scores.protocol import Score, comparable
from trainables.sizes import discriminator_parameters, generator_macs, generator_parameters
from trainables.spec import TrialSpec

SCORES = ("is", "fid", "kid", "sharpness")
TOLERANCE = 0.10  # of the teacher's score: the limit of compression is the smallest student within it


def find(store: Store, dataset: str | None, name: str | None) -> tuple[Manifest, Manifest | None]:
    """The (teacher sweep, student sweep or None) that a table joins. Raises NotYetError, UserError."""
    sweeps = [m for m in store.sweeps() if dataset in (None, m.dataset) and name in (None, m.name)]
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no such sweep; run `sweeper run teachers --dataset {dataset or 'mnist5k'}` first"
        )
    students = [m for m in sweeps if m.role == "student"]
    if len(students) > 1 or (not students and len(sweeps) > 1):
        names = ", ".join(m.name for m in students or sweeps)
        raise UserError(f"there are several sweeps: {names}; name one with --name, or a data set with --dataset")
    if not students:
        return sweeps[0], None
    assert students[0].teacher is not None
    teachers = store.sweep(students[0].teacher.sweep)
    assert teachers is not None
    return teachers, students[0]


def build(store: Store, teachers: Manifest, students: Manifest | None) -> dict[str, Any]:
    """The table as data, in the schema that `--format json` prints. Every score is by the report latents."""
    controls = controls_of(store, teachers, students)
    distilled = Sweep.read(students, store) if students else None
    teacher = _teacher(store, controls, students)
    widths = set(controls.strata) - ({teacher["d"]} if teacher else set())
    widths |= set(distilled.strata) if distilled else set()
    rows = [_row(d, controls, distilled, teacher) for d in sorted(widths)]
    return {
        "schema": 1,
        "dataset": teachers.dataset,
        "metric": teachers.metric,
        "real": teachers.real,
        "teacher": teacher,
        "rows": rows,
        "limit": _limit(rows, teacher, teachers.metric),
    }


def _row(d: int, controls: Sweep, distilled: Sweep | None, teacher: dict[str, Any] | None) -> dict[str, Any]:
    spec = next(iter(controls.records.values())).spec
    parameters = generator_parameters(d, spec.image_size, spec.channels)
    student_trials = best(distilled, d) if distilled else None
    control_trials = best(controls, d)
    student = _of(distilled, student_trials) if distilled and student_trials else None
    control = _of(controls, control_trials) if control_trials else None
    comparable([entry["scores"]["fid"] for entry in (student, control, teacher) if entry])
    return {
        "d": d,
        "parameters": parameters,
        "macs": generator_macs(d, spec.image_size, spec.channels),
        "ratio": teacher["parameters"] / parameters if teacher else None,
        "student": student,
        "control": control,
    }


def _teacher(store: Store, controls: Sweep, students: Manifest | None) -> dict[str, Any] | None:
    """The students' own teacher, as it was pinned; without students the best by the selection scores."""
    if students is not None and students.teacher is not None:
        pinned = students.teacher
        record = store.require(pinned.signature)
        finals = [f for f in record.finals if f.updates == pinned.updates and f.weights == pinned.weights]
        named = [f for f in finals if f.report["fid"]["protocol"] == students.protocols["report"]]
        if not named:
            raise NotYetError(f"the teacher {pinned.name} has no scores like its students'; run `{students.command}`")
        return _entry([record.spec], named)
    ranked = [trials for d in controls.finishers() if (trials := best(controls, d))]
    if not ranked:
        return None
    return _of(controls, max(ranked, key=lambda trials: quality(controls, trials, controls.manifest.metric)))


def _of(sweep: Sweep, trials: list[str]) -> dict[str, Any]:
    finals = [final for trial in trials if (final := sweep.final(trial))]
    return _entry([sweep.records[trial].spec for trial in trials], finals)


def _entry(specs: list[TrialSpec], finals: list[FinalRecord]) -> dict[str, Any]:
    """One configuration: its scores are those of its one seed, or mean and standard deviation over its seeds."""
    spec, reports = specs[0], [final.report for final in finals]
    width = spec.d_discriminator
    return {
        "signature": spec.signature,
        "d": spec.d,
        "parameters": generator_parameters(spec.d, spec.image_size, spec.channels),
        "macs": generator_macs(spec.d, spec.image_size, spec.channels),
        "updates": finals[0].updates,
        "loss": spec.objective if spec.loss == "adversarial" else spec.loss,
        "alpha": spec.alpha,
        "d_discriminator": width,
        "discriminator_parameters": discriminator_parameters(width, spec.image_size, spec.channels) if width else None,
        "seeds": len(specs),
        "scores": {name: _over_seeds([r[name] for r in reports]) if name in reports[0] else None for name in SCORES},
    }


def _over_seeds(scores: list[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    means = [score["mean"] for score in comparable(scores)]
    return Score(mean=fmean(means), std=stdev(means), n=scores[0]["n"], protocol=scores[0]["protocol"])


def _limit(rows: list[dict[str, Any]], teacher: dict[str, Any] | None, metric: str) -> dict[str, Any] | None:
    """The smallest d below the teacher's whose student's score is within TOLERANCE of the teacher's."""
    if teacher is None:
        return None
    goal = teacher["scores"][metric]["mean"]
    for row in rows:
        if row["student"] and row["d"] < teacher["d"]:
            reached = row["student"]["scores"][metric]["mean"]
            if reached >= goal * (1 - TOLERANCE) if metric == "is" else reached <= goal * (1 + TOLERANCE):
                return {"d": row["d"], "ratio": row["ratio"], "tolerance": TOLERANCE, "metric": metric}
    return None


def flat(table: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict per row with plain numbers, None where there is nothing: what CSV, DataFrame and W&B's table hold.

    The teacher is the last row; it was trained regularly, so that its scores stand where the controls' do.
    """
    lines = [_flat(row, row["student"], row["control"], False) for row in table["rows"]]
    teacher = table["teacher"]
    return [*lines, _flat({**teacher, "ratio": 1.0}, None, teacher, True)] if teacher else lines


def _flat(
    row: dict[str, Any], student: dict[str, Any] | None, control: dict[str, Any] | None, is_teacher: bool
) -> dict[str, Any]:
    line: dict[str, Any] = {name: row[name] for name in ("d", "parameters", "macs", "ratio")} | {"teacher": is_teacher}
    for who, entry in (("student", student), ("control", control)):
        for name in ("signature", "loss", "alpha", "seeds", "updates", "d_discriminator"):
            line[f"{who}_{name}"] = entry[name] if entry else None
        for name in SCORES:
            score = entry["scores"][name] if entry else None
            line[f"{who}_{name}"] = score["mean"] if score else None
            line[f"{who}_{name}_std"] = score["std"] if score else None
    return line


# As text.

_LATEX = str.maketrans({"±": r"$\pm$", "α": r"$\alpha$", "≠": r"$\neq$", "—": "--", "_": r"\_", "%": r"\%"})


def columns(metric: str) -> list[str]:
    """Headings; Stu. and Reg. are the paper's words. D: widths of the discriminators, student's/control's."""
    first, second = ("IS", "FID") if metric == "is" else ("FID", "IS")
    scores = [f"{name} ({who})" for name in (first, second) for who in ("Stu.", "Reg.")]
    return ["d", "Params", "Ratio", *scores, "Student", "D"]


def cells(table: dict[str, Any]) -> list[list[str]]:
    """The rows under `columns`, the teacher's own last."""
    order = ("is", "fid") if table["metric"] == "is" else ("fid", "is")
    lines = []
    for row in table["rows"]:
        student, control = row["student"], row["control"]
        scores = [_shown(entry, name) for name in order for entry in (student, control)]
        how = (
            "—"
            if not student
            else student["loss"] + (f" α={student['alpha']:g}" if student["alpha"] is not None else "")
        )
        ratio = f"{row['ratio']:.1f}:1" if row["ratio"] else "—"
        lines.append([str(row["d"]), f"{row['parameters']:,}", ratio, *scores, how, _discriminators(student, control)])
    if table["teacher"]:
        teacher = table["teacher"]
        scores = [text for name in order for text in ("—", _shown(teacher, name))]
        width = str(teacher["d_discriminator"])
        lines.append([str(teacher["d"]), f"{teacher['parameters']:,}", "1:1", *scores, "teacher", width])
    return lines


def _shown(entry: dict[str, Any] | None, name: str) -> str:
    score = entry["scores"][name] if entry else None
    if not score:
        return "—"
    digits = 2 if name == "is" else 1
    spread = f"±{score['std']:.{digits}f}" if score["std"] is not None else ""
    return f"{score['mean']:.{digits}f}{spread}"


def _discriminators(student: dict[str, Any] | None, control: dict[str, Any] | None) -> str:
    """Widths of both discriminators; ≠ where they differ, because a weak control flatters the student."""
    mine, theirs = (entry["d_discriminator"] if entry else None for entry in (student, control))
    flag = " ≠" if mine is not None and theirs is not None and mine != theirs else ""
    return f"{mine or '—'}/{theirs or '—'}{flag}"


def caption(table: dict[str, Any]) -> str:
    """What the numbers are."""
    parts = [f"{table['dataset']}: student (Stu.) against a regularly trained GAN of the same d (Reg.)"]
    score = table["teacher"]["scores"]["fid"] if table["teacher"] else None
    if score:
        parts.append(f"scores of {score['n']:,} images × 3 sets of fresh latents, mean ± std; {score['protocol']}")
    if table["real"]["is"]:
        parts.append(f"IS of held-out real images {table['real']['is']:.2f}")
    unequal = [
        f"d={row['d']}: {row['student']['updates']:,} updates against {row['control']['updates']:,} ≠"
        for row in table["rows"]
        if row["student"] and row["control"] and row["student"]["updates"] != row["control"]["updates"]
    ]
    parts += unequal
    limit = table["limit"]
    if limit:
        parts.append(
            f"limit of compression (within {limit['tolerance']:.0%} of the teacher): "
            f"d={limit['d']}, {limit['ratio']:.1f}:1"
        )
    return "; ".join(parts)


def as_text(table: dict[str, Any], style: str) -> str:
    """style: md, csv, latex or json."""
    heads, rows = columns(table["metric"]), cells(table)
    if style == "json":
        return dump(table)
    if style == "csv":
        out, plain = io.StringIO(), flat(table)
        writer = csv.DictWriter(out, list(plain[0]) if plain else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        return out.getvalue().rstrip("\n")
    if style == "latex":
        body = [" & ".join(row).translate(_LATEX) + r" \\" for row in [heads, *rows]]
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{'r' * len(heads)}}}",
                r"\hline",
                body[0],
                r"\hline",
                *body[1:],
                r"\hline",
                r"\end{tabular}",
            ]
        )
    lines = ["| " + " | ".join(row) + " |" for row in [heads, ["--:"] * len(heads), *rows]]
    return "\n".join([*lines, "", caption(table)])


def show(table: dict[str, Any]) -> None:
    """Print for people, on stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in columns(table["metric"]):
        drawn.add_column(heading, justify="right", overflow="fold")
    for row in cells(table):
        drawn.add_row(*row)
    console = Console(highlight=False)
    console.print(drawn, Padding(caption(table), (0, 1)), width=None if console.is_terminal else 110)
