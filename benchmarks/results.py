"""Write docs/results.md from the JSON files of docs/results, one per comparison.

python benchmarks/results.py keep NAME --store STORE [--sweep SWEEP]   # a finished comparison → docs/results/NAME.json
python benchmarks/results.py                                          # all of docs/results → docs/results.md
"""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "results"
PAGE = FOLDER.with_suffix(".md")


def kept(store: Path, sweep: str | None) -> dict[str, Any]:
    """Return a comparison as plain numbers: its table, its GANs over d, commands and costs."""
    from sweeper.results.comparison import Comparison
    from sweeper.store import Store

    comparison = Comparison.read(Store(store), None, sweep)
    controls = comparison.controls
    gans = []
    for shape in controls.strata:
        if trials := controls.best(shape):
            final = controls.final(trials[0])
            assert final is not None
            gans.append({"d": shape.d, **{name: final.selection[name]["mean"] for name in ("is", "fid")}})
    return {
        "table": comparison.table.as_json(),
        "gans": gans,
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


def table_of(comparison: dict[str, Any]) -> str:
    """Return the compression table as Markdown, with the interval of each difference."""
    names = ("fid", "is")
    heads = ["d", "parameters", "ratio"]
    heads += [f"{name.upper()}, {side}" for name in names for side in ("student", "control", "difference")]
    lines = [heads, ["--:"] * len(heads)]
    table = comparison["table"]
    for row in table["rows"]:
        line = [str(row["d"]), f"{row['parameters']:,}", f"{row['ratio']:.1f}:1"]
        for name in names:
            line += [cell(row["student"], name), cell(row["control"], name), interval(row["differences"][name], name)]
        lines.append([*line, training(row["student"])])
    lines[0].append("student")
    lines[1].append("---")
    teacher = table["teacher"]
    scores = [text for name in names for text in ("—", cell(teacher, name), "—")]
    lines.append([str(teacher["d"]), f"{teacher['parameters']:,}", "1:1", *scores, "teacher"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "—"
    return entry["loss"] if entry["alpha"] is None else f"{entry['loss']} α = {entry['alpha']:g}"


def gans_of(comparison: dict[str, Any]) -> str:
    """Return the best GAN of each d as Markdown: the paper's Figure 2. The teacher is in bold."""
    lines = ["| d | IS | FID |", "|--:|--:|--:|"]
    for gan in sorted(comparison["gans"], key=lambda gan: int(gan["d"])):
        numbers = f"{gan['d']}", f"{gan['is']:.2f}", f"{gan['fid']:.1f}"
        is_teacher = gan["d"] == comparison["table"]["teacher"]["d"]
        lines.append(f"| {' | '.join(f'**{n}**' if is_teacher else n for n in numbers)} |")
    return "\n".join(lines)


def costs_of(comparison: dict[str, Any]) -> str:
    lines = [f"    {sweep['command']}" for sweep in comparison["sweeps"]]
    costs = [
        f"{sweep['trials']} trials, {sweep['core_hours']:.1f} hours of one core of training"
        for sweep in comparison["sweeps"]
    ]
    return "\n".join([*lines, "", f"Teachers: {costs[0]}. Students: {costs[-1]}."])


PARTS = {"table": table_of, "gans": gans_of, "costs": costs_of}


def render(page: str) -> str:
    """Replace what stands between `<!-- NAME PART -->` and `<!-- end -->` by the part made from NAME.json."""

    def part(match: re.Match[str]) -> str:
        comparison = json.loads((FOLDER / f"{match[1]}.json").read_text())
        return f"<!-- {match[1]} {match[2]} -->\n{PARTS[match[2]](comparison)}\n<!-- end -->"

    return re.sub(r"<!-- ([\w-]+) (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    keep = actions.add_parser("keep")
    keep.add_argument("name")
    keep.add_argument("--store", type=Path, required=True)
    keep.add_argument("--sweep")
    options = parser.parse_args()
    if options.action == "keep":
        comparison = kept(options.store, options.sweep)
        (FOLDER / f"{options.name}.json").write_text(json.dumps(comparison, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(render(PAGE.read_text()))


if __name__ == "__main__":
    main()
