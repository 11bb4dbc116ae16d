"""Write a comparison as one HTML page without external resources, and its table as CSV, Markdown and LaTeX."""

import base64
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from html import unescape
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from sweeper import __version__
from sweeper.execution.generators import ONNX, load_generator, teacher_images
from sweeper.execution.samples import image_of, load_samples
from sweeper.results import figures, latency, table_text
from sweeper.results.comparison import Comparison, samples
from sweeper.results.lines import flat
from sweeper.results.sheet import sample_label
from sweeper.results.table import TOLERANCE, Entry, Table
from sweeper.results.templates import fill
from sweeper.scheduling.sweep import State, Sweep
from trainables.errors import UserError
from trainables.files import replacing
from trainables.latents import latents
from trainables.onnx_generator import OnnxGenerator
from trainables.reading import checked
from trainables.rendering import render
from trainables.scores.protocol import streams
from trainables.shapes import LatentLaw, label
from trainables.teacher_images import PairsError

TILES = 12  # images per row
TABLE_SUFFIXES = {"csv": "csv", "md": "md", "latex": "tex"}  # format of the table → suffix of its file


def write(comparison: Comparison, path: Path, command: str) -> list[Path]:
    """Write the page, and the table's files beside it. Return their paths.

    A table's file that no page wrote, or that was changed since, is left as it is. command: the command that writes the
    page; printed on it. Raises UserError if path is the name of a table's file, or of a file that is not a page.
    """
    if path.suffix.removeprefix(".") in TABLE_SUFFIXES.values():
        raise UserError(f"-o {path} is the name of the table's file; try -o {path.with_suffix('.html')}")
    if path.is_symlink() and (path.is_file() or not path.exists()):
        path = Path(os.path.realpath(path))  # the link stays
    earlier, tables = _tables_of(path), {}
    for style, suffix in TABLE_SUFFIXES.items():
        file, text = path.with_suffix(f".{suffix}"), table_text.as_text(comparison.table, style) + "\n"
        if not os.path.lexists(file) or (_is_plain(file) and _digest(file.read_bytes()) == earlier.get(file.name)):
            tables[file] = text
    listed = {file.name: _digest(text.encode()) for file, text in tables.items()}
    text = render_page(comparison, command, listed)
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_text(text, encoding="utf-8")
        return [path]
    for file, content in {path: text, **tables}.items():
        with replacing(file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [path, *tables]


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


_LISTED = re.compile(r'<meta name="sweeper-tables" content="([^"]*)">')


def _tables_of(path: Path) -> dict[str, str]:
    """Return the table's files that the page at `path` wrote, with their hashes. Raises UserError for another file."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    try:
        return checked(unescape(listed[1]) if (listed := _LISTED.search(head)) else "", dict[str, str])
    except ValueError:
        raise UserError(
            f"{path} is not a page of sweeper, or of an earlier version; name another file with -o"
        ) from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def render_page(comparison: Comparison, command: str, tables: Mapping[str, str]) -> str:
    """Return the page as text. tables: the table's files beside it, with their hashes.

    Measures the generators' latency on this machine if the store has none: half a second per shape.
    """
    shapes = sorted({shape for sweep in comparison.sweeps for shape in sweep.strata})
    by_torch = latency.Conditions(runtime="torch")
    measured = {shape.label: latency.measured(comparison.store, shape, "torch", by_torch) for shape in shapes}
    seconds = {name: found.milliseconds / 1000 for name, found in measured.items()} | _teacher_latency(comparison)
    table = comparison.table
    return fill(
        "page.html.j2",
        html=True,
        comparison=comparison,
        table=table,
        heads=table_text.columns(table),
        rows=_rows(table),
        caption=table_text.caption(table),
        tolerance=TOLERANCE,
        texts=_json({style: table_text.as_text(table, style) for style in TABLE_SUFFIXES}),
        progress=[_progress(sweep) for sweep in comparison.sweeps],
        charts=_charts(comparison, seconds),
        strips=_strips(comparison),
        interpolations=_interpolations(comparison),
        protocols=_protocols(comparison),
        commands=[*comparison.commands, command],
        latencies=", ".join(f"{name}: {1000 * value:.2f} ms" for name, value in seconds.items()),
        machine=f"{by_torch}; {latency.machine()}",
        version=__version__,
        listed=json.dumps(dict(tables)),
        plotly=get_plotlyjs(),
    )


def _teacher_latency(comparison: Comparison) -> dict[str, float]:
    """Return the name and latency of an added teacher, unless it consists of pairs."""
    teacher = comparison.table.teacher
    added = comparison.store.teachers.find(teacher.name) if teacher and teacher.name else None
    if added is None or added.pairs:
        return {}
    path = comparison.store.teachers.folder(added.name) / ONNX
    return {added.name: latency.onnx_latency(OnnxGenerator(path, added.label))}


def _rows(table: Table) -> list[dict[str, Any]]:
    """Return the table's rows: each cell as printed, with the number that sorts it."""
    keys = [
        *(["family"] if "Family" in table_text.columns(table) else []),
        "d",
        "parameters",
        "ratio",
        *(key for head, key in (("kB", "bytes"), ("ms", "ms")) if head in table_text.columns(table)),
        *(f"{kind}_{name}" for name in table_text.score_order(table) for kind in ("student", "control")),
    ]
    limit = table.limit.label if table.limit else None
    return [
        {
            "cells": list(zip_longest(texts, [line[key] for key in keys])),
            "teacher": line["teacher"],
            "limit": not (line["teacher"] or line["format"]) and label(line["family"], line["d"]) == limit,
        }
        for texts, line in zip(table_text.cells(table), flat(table), strict=True)
    ]


def _progress(sweep: Sweep) -> dict[str, Any]:
    counts = Counter(sweep.states().values())
    return {
        "name": sweep.manifest.name,
        "states": ", ".join(f"{counts[state]} {state}" for state in State if counts[state]),
        "finished": sweep.finished(),
        "command": sweep.manifest.command,
    }


def _charts(comparison: Comparison, seconds: dict[str, float]) -> dict[str, dict[str, str]]:
    """Return name → title, alt text and Plotly JSON of each chart."""
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
    if comparison.controls:
        drawn["rungs-controls"] = ("Rungs: teachers and controls", figures.rungs(comparison, "teacher"))
    drawn["curves"] = ("Learning curves", figures.curves(comparison))
    drawn["blur"] = ("Blur", figures.blur(comparison))
    return {
        name: {"title": title, "alt": _alt(title, f), "json": _json(f.to_dict())} for name, (title, f) in drawn.items()
    }


def _alt(title: str, figure: go.Figure) -> str:
    """Describe a chart in words: its lines with their first and last points."""
    lines = []
    for trace in figure.data:
        points = [(x, y) for x, y in zip(trace.x or (), trace.y or (), strict=False) if y is not None]
        if points and len(points) < len(trace.x):  # many lines in one trace, separated by gaps
            lines.append(
                f"{trace.name}: {len(trace.x) - len(points)} lines, the best at {min(y for _, y in points):.4g}"
            )
        elif points and trace.name and trace.showlegend is not False:
            ends = [f"{y:.4g} at {x}" for x, y in dict.fromkeys((points[0], points[-1]))]
            lines.append(f"{trace.name}: {' to '.join(ends)}")
    return f"{title}. {'; '.join(lines)}."


def _strips(comparison: Comparison) -> list[dict[str, Any]]:
    """Return rows of samples from the same latents: the teacher's, then those of each d."""
    strips = []
    for sample in samples(comparison):
        tiles = load_samples(sample.picture, TILES)
        if tiles:
            name = sample_label(sample)
            strips.append(
                {
                    "label": name,
                    "chosen": sample.chosen,
                    "alt": f"{len(tiles)} samples of the {name}",
                    "uri": _data_uri(tiles),
                }
            )
    return strips


def _interpolations(comparison: Comparison) -> list[dict[str, str]]:
    """Return rows of TILES images between two latents: the teacher, and a student and control of one shape.

    The shape is the limit of compression, or the last row that has a student.
    """
    limit, rows = comparison.table.limit, [row for row in comparison.table.rows if row.student]
    row = next((row for row in rows if limit and row.label == limit.label), rows[-1] if rows else None)
    entries = [("teacher", comparison.table.teacher)]
    entries += [("student", row.student), ("control", row.control)] if row else []
    strips = []
    for kind, entry in entries:
        if entry:
            name = f"{kind}, {entry.label}"
            try:
                strip = _data_uri(map(image_of, _between(comparison, entry)))
            except UserError:  # the store was copied without its weights
                strips.append({"label": f"{name}: its weights are missing or damaged", "alt": "", "uri": ""})
                continue
            except PairsError:
                strips.append({"label": f"{name}: pairs have no image between two latents", "alt": "", "uri": ""})
                continue
            strips.append({"label": name, "alt": f"interpolation by the {name}", "uri": strip})
    return strips


def _between(comparison: Comparison, entry: Entry) -> np.ndarray:
    """Return the images of TILES latents between two: uint8 [TILES, C, H, W]. Raises UserError, PairsError."""
    store, students = comparison.store, comparison.distilled
    if entry.name and students and students.manifest.teacher:
        images = teacher_images(store, students.manifest.teacher, students.manifest.image_size)
        return images.render(_interpolate(images.latents("picture", 0, 2), TILES, images.law))
    law = store.require(entry.signature).spec.law
    z = _interpolate(latents("picture", 0, 2, law), TILES, law)
    return render(load_generator(store, entry.signature, entry.updates), z)


def _interpolate(ends: np.ndarray, steps: int, law: LatentLaw) -> np.ndarray:
    """Interpolate between two latents: [2, law.size] → float32 [steps, law.size].

    Between normal ones spherically, which preserves their norm; between others on a line, which stays within bounds.
    """
    if law.name != "normal":
        return np.linspace(ends[0], ends[1], steps, dtype=np.float32)
    first, last = ends
    angle = np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return np.asarray((np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle), dtype=np.float32)


def _data_uri(tiles: Any) -> str:
    """Encode images in a row as the data URI of a WebP."""
    row = list(tiles)
    strip = Image.new(row[0].mode, (sum(t.width for t in row), row[0].height))
    for number, tile in enumerate(row):
        strip.paste(tile, (number * tile.width, 0))
    out = io.BytesIO()
    strip.save(out, format="WEBP", quality=90, method=6)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _protocols(comparison: Comparison) -> list[dict[str, Any]]:
    uses = {
        "rung": "pruning at the rungs; charts over updates and over alpha",
        "selection": "choice of the teacher, and of each row's student and control",
        "report": "the table; charts over size and of blur",
    }
    lines: list[dict[str, Any]] = []
    for sweep in comparison.sweeps:
        for name, use in uses.items():
            n, protocol = sweep.manifest.n[name], sweep.manifest.protocols[name]
            if protocol not in [line["protocol"] for line in lines]:
                suffix = f" ({sweep.manifest.name})" if sweep is not comparison.sweeps[0] else ""
                lines.append({"use": use + suffix, "n": n, "sets": len(streams(name)), "protocol": protocol})
    return lines


def _json(value: Any) -> str:
    """Encode for a script element. Escapes `<`, so that no value can close the element."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
