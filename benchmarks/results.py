"""Write docs/results.md and its charts from the JSON files of docs/results, one per comparison.

python benchmarks/results.py keep NAME --store STORE [--sweep SWEEP] [--alphas D]   # a finished comparison → NAME.json
python benchmarks/results.py                                                        # all of docs/results → the page
"""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

from sweeper.results.difference import welch

FOLDER = Path(__file__).parent.parent / "docs" / "results"
PAGE, IMAGES = FOLDER.with_suffix(".md"), FOLDER.parent / "images"
BASELINES = ("mse", "joint")  # kept as NAME-mse… and NAME-joint…: the paper's losses, at equal multiply-accumulates
COLOURS = {"student": "#0072b2", "control": "#7f8c8d", "teacher": "#d55e00"}


def kept(store: Path, sweep: str | None) -> dict[str, Any]:
    """Return a comparison as plain numbers: its table, its GANs over d, alphas, latent space, commands and costs."""
    from latent_space import errors

    from sweeper.results.comparison import Comparison, alpha_curves
    from sweeper.store import Store

    comparison = Comparison.read(Store(store), None, sweep)
    controls = comparison.controls
    gans = []
    for shape in controls.strata:
        if trials := controls.best(shape):
            final = controls.final(trials[0])
            assert final is not None
            scores = {name: final.selection[name]["mean"] for name in ("is", "fid") if name in final.selection}
            gans.append({"d": shape.d, **scores})
    return {
        "table": comparison.table.as_json(),
        "gans": gans,
        "alphas": [
            {"d": curve.shape.d, "updates": curve.updates, "points": [[a, scores] for a, scores in curve.points]}
            for curve in (alpha_curves(comparison.distilled) if comparison.distilled else [])
        ],
        "latent_space": errors(comparison),
        "sweeps": [
            {
                "name": each.manifest.name,
                "command": _portable(each.manifest.command),
                "trials": len(each.records),
                "updates": each.manifest.updates,
                "core_hours": sum(r.seconds for record in each.records.values() for r in record.rungs) / 3600,
            }
            for each in reversed(comparison.sweeps)
        ],
    }


def _portable(command: str) -> str:
    """Return a command without the options of the machine that ran it."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in ("--data-root", "--store", "--slots", "--wandb"):
            next(words)
        else:
            kept.append(word)
    return shlex.join(kept)


def read(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return record


def cell(entry: dict[str, Any] | None, name: str) -> str:
    """Return `58.4 ± 2.1`, or — for what does not exist."""
    score = entry["scores"][name] if entry else None
    if not score:
        return "—"
    digits = 2 if name == "is" else 1
    spread = f" ± {score['std']:.{digits}f}" if score["std"] is not None else ""
    return f"{score['mean']:.{digits}f}{spread}"


def interval(difference: dict[str, float] | None, name: str) -> str:
    """Return the interval of a difference, in bold if it excludes zero in the first side's favour."""
    if difference is None:
        return "—"
    digits = 2 if name == "is" else 1
    text = f"{difference['low']:+.{digits}f} … {difference['high']:+.{digits}f}"
    better = difference["low"] > 0 if name == "is" else difference["high"] < 0
    return f"**{text}**" if better else text


def markdown(heads: list[str], rows: list[list[str]], left: int = 0) -> str:
    """Return a table. left: the number of its last columns that are words."""
    marks = ["--:"] * (len(heads) - left) + ["---"] * left
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, marks, *rows])


def table_of(name: str) -> str:
    """Return the compression table, with the interval of each difference."""
    table = read(name)["table"]
    names = [score for score in ("fid", "is") if table["teacher"]["scores"][score]]
    heads = ["d", "parameters", "ratio"]
    heads += [f"{score.upper()}, {side}" for score in names for side in ("student", "control", "difference")]
    rows = []
    for row in table["rows"]:
        line = [str(row["d"]), f"{row['parameters']:,}", f"{row['ratio']:.1f}:1"]
        for score in names:
            student, control = cell(row["student"], score), cell(row["control"], score)
            line += [student, control, interval(row["differences"][score], score)]
        rows.append([*line, training(row["student"])])
    teacher = table["teacher"]
    scores = [text for score in names for text in ("—", cell(teacher, score), "—")]
    rows.append([str(teacher["d"]), f"{teacher['parameters']:,}", "1:1", *scores, "teacher"])
    return markdown([*heads, "student"], rows, left=1)


def training(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "—"
    return entry["loss"] if entry["alpha"] is None else f"{entry['loss']} α = {entry['alpha']:g}"


def gans_of(name: str) -> str:
    """Return the best GAN of each d: the paper's Figure 2. The teacher is in bold."""
    comparison, rows = read(name), []
    for gan in sorted(comparison["gans"], key=lambda gan: int(gan["d"])):
        numbers = f"{gan['d']}", f"{gan['is']:.2f}", f"{gan['fid']:.1f}"
        is_teacher = gan["d"] == comparison["table"]["teacher"]["d"]
        rows.append([f"**{n}**" if is_teacher else n for n in numbers])
    return markdown(["d", "IS", "FID"], rows)


def costs_of(name: str) -> str:
    sweeps = read(name)["sweeps"]
    lines = [f"    {sweep['command']}" for sweep in sweeps]
    costs = [f"{sweep['trials']} trials, {sweep['core_hours']:.1f} hours of one core of training" for sweep in sweeps]
    return "\n".join([*lines, "", f"Teachers: {costs[0]}. Students: {costs[-1]}."])


def alphas_of(name: str) -> str:
    """Return FID and sharpness over alpha, per d, at a rung that all alphas reached."""
    comparison = read(name)
    curves, real = comparison["alphas"], comparison["table"]["real"]["sharpness"]
    alphas = sorted({alpha for curve in curves for alpha, _ in curve["points"]})
    rows = []
    for curve in curves:
        points = {alpha: f"{scores['fid']:.0f} / {scores['sharpness'] / real:.2f}" for alpha, scores in curve["points"]}
        cells = [points.get(alpha, "—") for alpha in alphas]
        rows.append([str(curve["d"]), f"{curve['updates']:,}", *cells])
    return markdown(["d", "updates", *(f"α = {alpha:g}" for alpha in alphas)], rows)


def limits_of(name: str) -> str:
    """Return the Inception Scores as parts of the teacher's, with their standard deviations over seeds."""
    table = read(name)["table"]
    goal = table["teacher"]["scores"]["is"]["mean"]

    def part(entry: dict[str, Any] | None) -> str:
        score = entry["scores"]["is"] if entry else None
        return f"{score['mean'] / goal:.1%} ± {score['std'] / goal:.1%}" if score and score["std"] is not None else "—"

    rows = [[str(r["d"]), f"{r['ratio']:.0f}:1", part(r["student"]), part(r["control"])] for r in table["rows"]]
    return markdown(["d", "ratio", "student", "control"], rows)


def latents_of(name: str) -> str:
    """Return the students' errors in the latent space."""
    rows = read(name)["latent_space"]
    places = [head for head in rows[0] if head != "d"]
    return markdown(["d", *places], [[str(row["d"]), *(f"{row[place]:.2f}" for place in places)] for row in rows])


def losses_of(name: str) -> str:
    """Return the table's students beside those by the paper's losses, with the interval of each difference."""
    ours, theirs = _students(name), {loss: _students(f"{name}-{loss}*") for loss in BASELINES}
    heads = ["d", "student", "FID"]
    heads += [f"{loss}, {what}" for loss in BASELINES for what in ("FID", "difference")]
    rows = []
    for d, student in ours.items():
        if any(d in students for students in theirs.values()):
            line = [str(d), training(student), cell(student, "fid")]
            for students in theirs.values():
                line += [cell(students.get(d), "fid"), _between(student, students.get(d))]
            rows.append(line)
    return markdown(heads, rows)


def families_of(name: str) -> str:
    """Return the students by family and size, each with the interval of its difference from the paper's family."""
    rows = [row for row in read(name)["table"]["rows"] if row["student"]]
    paper = [row for row in rows if row["family"] == "dcgan"]
    lines = []
    for row in sorted(rows, key=lambda row: (round(row["parameters"], -4), row["family"])):
        near = min(paper, key=lambda other: abs(int(other["parameters"]) - int(row["parameters"])))
        line = [row["family"], str(row["d"]), f"{row['parameters']:,}", f"{row['macs']:,}"]
        for score in ("fid", "is"):
            line.append(cell(row["student"], score))
            line.append("—" if near is row else _between(row["student"], near["student"], score))
        lines.append(line)
    heads = ["family", "d", "parameters", "MACs", "FID", "difference from dcgan", "IS", "difference from dcgan"]
    return markdown(heads, lines)


def _students(pattern: str) -> dict[int, dict[str, Any]]:
    """Return the students by d of the comparisons whose names match."""
    tables = [json.loads(path.read_text())["table"] for path in sorted(FOLDER.glob(f"{pattern}.json"))]
    return {row["d"]: row["student"] for table in tables for row in table["rows"] if row["student"]}


def _between(ours: dict[str, Any], theirs: dict[str, Any] | None, score: str = "fid") -> str:
    if theirs is None:
        return "—"
    difference = welch(ours["scores"][score], ours["seeds"], theirs["scores"][score], theirs["seeds"])
    return interval(vars(difference), score) if difference else "—"


def draw_alphas(store: Path, sweep: str | None, name: str, d: int) -> None:
    """Write the paper's Figure 11 as images/NAME-alphas.png: the teacher, and joint students by alpha at one rung."""
    from sweeper.execution.samples import load_samples
    from sweeper.results.comparison import Comparison, alpha_curves, learning_curves
    from sweeper.results.sheet import COLUMNS, sheet
    from sweeper.store import Store

    comparison = Comparison.read(Store(store), None, sweep)
    assert comparison.distilled
    assert comparison.table.teacher
    teacher, kept = comparison.table.teacher, comparison.store
    (curve,) = (curve for curve in alpha_curves(comparison.distilled) if curve.shape.d == d)
    rows = [("teacher", kept.samples(teacher.signature, teacher.updates))]
    for alpha, scores in curve.points:
        same = (c for c in learning_curves(comparison.distilled) if c.alpha == alpha)
        trial = next(c.trials[0] for c in same if (curve.updates, scores) in c.points)
        rows.append((f"joint, alpha = {alpha:g}", kept.samples(trial, curve.updates)))
    sheet([(label, load_samples(path, COLUMNS)) for label, path in rows]).save(IMAGES / f"{name}-alphas.png")


def draw(name: str) -> None:
    """Write IS and FID over parameters as images/NAME-scores.svg: students, controls, and the teacher as a star."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "sweeper", "font.size": 11}
    from matplotlib import pyplot

    table = read(name)["table"]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, score, title in zip(axes, ("is", "fid"), ("Inception Score", "FID"), strict=True):
        for side, marker in (("student", "o"), ("control", "s")):
            rows = [row for row in table["rows"] if row[side]]
            scores = [row[side]["scores"][score] for row in rows]
            sizes, means = [row["parameters"] for row in rows], [s["mean"] for s in scores]
            spread = [s["std"] or 0 for s in scores]
            axis.errorbar(sizes, means, spread, marker=marker, capsize=3, color=COLOURS[side], label=side)
        teacher = table["teacher"]
        mean = teacher["scores"][score]["mean"]
        axis.plot(teacher["parameters"], mean, marker="*", ms=14, ls="", color=COLOURS["teacher"], label="teacher")
        shapes = sorted((entry["parameters"], entry["d"]) for entry in [*table["rows"], teacher])
        axis.set(xscale="log", xlabel="d, at its parameters", title=title)
        axis.set_xticks([size for size, _ in shapes], [str(d) for _, d in shapes])
        axis.minorticks_off()
        if score == "fid":
            axis.set_yscale("log", subs=(2, 5))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.grid(which="both", alpha=0.3)
    axes[0].legend()
    figure.savefig(IMAGES / f"{name}-scores.svg", metadata={"Date": None})


PARTS = {
    "table": table_of,
    "gans": gans_of,
    "costs": costs_of,
    "alphas": alphas_of,
    "latents": latents_of,
    "limits": limits_of,
    "losses": losses_of,
    "families": families_of,
}


def render(page: str) -> str:
    """Replace what stands between `<!-- NAME PART -->` and `<!-- end -->` by the part made from NAME.json."""

    def part(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} {match[2]} -->\n{PARTS[match[2]](match[1])}\n<!-- end -->"

    return re.sub(r"<!-- ([\w-]+) (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    keep = actions.add_parser("keep")
    keep.add_argument("name")
    keep.add_argument("--store", type=Path, required=True)
    keep.add_argument("--sweep")
    keep.add_argument("--alphas", type=int, metavar="D", help="draw the students of this d over alpha, too")
    options = parser.parse_args()
    if options.action == "keep":
        comparison = kept(options.store, options.sweep)
        (FOLDER / f"{options.name}.json").write_text(json.dumps(comparison, indent=1, sort_keys=True) + "\n")
        if options.alphas:
            draw_alphas(options.store, options.sweep, options.name, options.alphas)
    page = PAGE.read_text()
    PAGE.write_text(render(page))
    for name in sorted(set(re.findall(r"images/([\w-]+)-scores\.svg", page))):
        draw(name)


if __name__ == "__main__":
    main()
