"""`sweeper report`: a comparison as one HTML page that needs no network, and the table as CSV, Markdown and LaTeX."""

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from sweeper import __version__
from sweeper.execution.job import load_generator
from sweeper.execution.samples import image_of, load_samples
from sweeper.results import figures, formats, latency
from sweeper.results.comparison import Comparison, samples
from sweeper.results.sheet import said
from sweeper.results.table import TOLERANCE, Table, flat
from sweeper.results.templates import fill
from sweeper.scheduling.sweep import State, Sweep
from trainables.errors import UserError
from trainables.files import replacing
from trainables.latents import latents
from trainables.rendering import render
from trainables.shapes import label

TILES = 12  # images in a row
BESIDE = {"csv": "csv", "md": "md", "latex": "tex"}  # format of the table → ending of its file


def write(comparison: Comparison, path: Path, command: str) -> list[Path]:
    """Write the page and its companions; returns their paths. Raises UserError for a page named like one of them."""
    if path.suffix.removeprefix(".") in BESIDE.values():
        raise UserError(f"-o {path} is where the table would be, beside the page; try -o {path.with_suffix('.html')}")
    written = [path, *(path.with_suffix(f".{ending}") for ending in BESIDE.values())]
    with replacing(path) as temporary:
        temporary.write_text(render_page(comparison, command), encoding="utf-8")
    for style, file in zip(BESIDE, written[1:], strict=True):
        with replacing(file) as temporary:
            temporary.write_text(formats.as_text(comparison.table, style) + "\n", encoding="utf-8")
    return written


def render_page(comparison: Comparison, command: str) -> str:
    """The page as text. Measures the generators' latency on this machine, which takes half a second per d."""
    shapes = sorted({shape for sweep in comparison.sweeps for shape in sweep.strata})
    seconds = {shape.label: latency.cpu_latency(shape) for shape in shapes}
    table = comparison.table
    return fill(
        "page.html.j2",
        html=True,
        comparison=comparison,
        table=table,
        heads=formats.columns(table),
        rows=_rows(table),
        caption=formats.caption(table),
        tolerance=TOLERANCE,
        texts=_json({style: formats.as_text(table, style) for style in BESIDE}),
        progress=[_progress(sweep) for sweep in comparison.sweeps],
        charts=_charts(comparison, seconds),
        strips=_strips(comparison),
        walks=_walks(comparison),
        protocols=_protocols(comparison),
        commands=[sweep.manifest.command for sweep in reversed(comparison.sweeps)] + [command],
        latencies=", ".join(f"{name}: {1000 * value:.2f} ms" for name, value in seconds.items()),
        machine=f"{latency.HOW}; {latency.machine()}",
        version=__version__,
        plotly=get_plotlyjs(),
    )


def _rows(table: Table) -> list[dict[str, Any]]:
    """Cells as the terminal shows them, each with the plain number that it is sorted by."""
    first, second = ("is", "fid") if table.metric == "is" else ("fid", "is")
    keys = [
        *(["family"] if "Family" in formats.columns(table) else []),
        "d",
        "parameters",
        "ratio",
        *(f"{who}_{name}" for name in (first, second) for who in ("student", "control")),
    ]
    limit = table.limit.label if table.limit else None
    return [
        {
            "cells": list(zip(texts, [line[key] for key in keys] + [None, None], strict=True)),
            "teacher": line["teacher"],
            "limit": label(line["family"], line["d"]) == limit and not line["teacher"],
        }
        for texts, line in zip(formats.cells(table), flat(table), strict=True)
    ]


def _progress(sweep: Sweep) -> dict[str, Any]:
    counts = Counter(sweep.states().values())
    return {
        "name": sweep.manifest.name,
        "shown": ", ".join(f"{counts[state]} {state}" for state in State if counts[state]),
        "finished": sweep.finished(),
        "command": sweep.manifest.command,
    }


def _charts(comparison: Comparison, seconds: dict[str, float]) -> dict[str, dict[str, str]]:
    """name → title, alt text, JSON."""
    has_is = bool(comparison.table.real["is"])
    drawn: dict[str, tuple[str, go.Figure]] = {
        "pareto-fid": ("FID over size", figures.pareto(comparison, "fid", seconds)),
    }
    if has_is:
        drawn["pareto-is"] = ("Inception Score over size", figures.pareto(comparison, "is", seconds))
    if comparison.distilled:
        alpha = figures.alpha(comparison, "fid")
        if alpha.data:
            drawn["alpha-fid"] = ("FID over alpha", alpha)
            if has_is:
                drawn["alpha-is"] = ("Inception Score over alpha", figures.alpha(comparison, "is"))
        drawn["rungs-students"] = ("Rungs: students", figures.rungs(comparison, "student"))
    drawn["rungs-controls"] = ("Rungs: teachers and controls", figures.rungs(comparison, "teacher"))
    drawn["curves"] = ("Learning curves", figures.curves(comparison))
    drawn["blur"] = ("Blur", figures.blur(comparison))
    return {
        name: {"title": title, "alt": _alt(title, f), "json": _json(f.to_dict())} for name, (title, f) in drawn.items()
    }


def _alt(title: str, figure: go.Figure) -> str:
    """The chart in words: its lines with their first and last points."""
    lines = []
    for trace in figure.data:
        points = [(x, y) for x, y in zip(trace.x or (), trace.y or (), strict=False) if y is not None]
        if points and len(points) < len(trace.x):  # many lines in one, with gaps between them
            lines.append(
                f"{trace.name}: {len(trace.x) - len(points)} lines, the best at {min(y for _, y in points):.4g}"
            )
        elif points and trace.name and trace.showlegend is not False:
            ends = [f"{y:.4g} at {x}" for x, y in dict.fromkeys((points[0], points[-1]))]
            lines.append(f"{trace.name}: {' to '.join(ends)}")
    return f"{title}. {'; '.join(lines)}."


def _strips(comparison: Comparison) -> list[dict[str, Any]]:
    """Samples from the same latents: the teacher's row, then those of each d."""
    found = []
    for sample in samples(comparison):
        tiles = load_samples(comparison.store.samples(sample.signature, sample.updates), TILES)
        if tiles:
            name = said(sample)
            found.append(
                {
                    "label": name,
                    "chosen": sample.chosen,
                    "alt": f"{len(tiles)} samples of the {name}",
                    "uri": _uri(tiles),
                }
            )
    return found


def _walks(comparison: Comparison) -> list[dict[str, str]]:
    """From one latent to another in TILES steps: the teacher, and student and control of one d."""
    limit, rows = comparison.table.limit, [row for row in comparison.table.rows if row.student]
    row = next((row for row in rows if limit and row.label == limit.label), rows[-1] if rows else None)
    entries = [("teacher", comparison.table.teacher)]
    entries += [("student", row.student), ("control", row.control)] if row else []
    z = _between(latents("picture", 0, 2), TILES)
    found = []
    for kind, entry in entries:
        if entry:
            name = f"{kind}, {entry.label}"
            try:
                generator = load_generator(comparison.store, entry.signature, entry.updates)
            except UserError:  # a store that was copied without its weights
                found.append({"label": f"{name}: its weights are not in the store", "alt": "", "uri": ""})
                continue
            strip = _uri(map(image_of, render(generator, z)))
            found.append({"label": name, "alt": f"interpolation by the {name}", "uri": strip})
    return found


def _between(ends: np.ndarray, steps: int) -> np.ndarray:
    """Along the arc from one latent to another, [2, 100] → float32 [steps, 100], all about equally likely."""
    first, last = ends
    angle = np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return np.asarray((np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle), dtype=np.float32)


def _uri(tiles: Any) -> str:
    """Pictures in a row, as a data URI."""
    row = list(tiles)
    strip = Image.new(row[0].mode, (sum(t.width for t in row), row[0].height))
    for number, tile in enumerate(row):
        strip.paste(tile, (number * tile.width, 0))
    out = io.BytesIO()
    strip.save(out, format="WEBP", quality=90, method=6)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _protocols(comparison: Comparison) -> list[dict[str, Any]]:
    uses = {
        "rung": "decide who goes on at a rung; the charts over updates and over alpha",
        "selection": "choose the teacher, and each row's student and control",
        "report": "are printed in the table; the charts over size and of blur",
    }
    found: list[dict[str, Any]] = []
    for sweep in comparison.sweeps:
        for name, use in uses.items():
            n, protocol = sweep.manifest.n[name], sweep.manifest.protocols[name]
            if protocol not in [line["protocol"] for line in found]:
                whose = f" ({sweep.manifest.name})" if sweep is not comparison.sweeps[0] else ""
                found.append({"name": name, "use": use + whose, "n": n, "protocol": protocol})
    return found


def _json(value: Any) -> str:
    """For a script element: nothing in it can close the element."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
