"""Plotly figures of a comparison, for the page and for notebooks: one function per figure."""

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweeper.results.comparison import (
    ChosenCurve,
    Comparison,
    LearningCurve,
    alpha_curves,
    chosen_curves,
    learning_curves,
)
from trainables.shapes import GeneratorShape

NAMES = {"fid": "FID", "is": "Inception Score", "kid": "KID", "sharpness": "sharpness"}
BETTER = {"fid": "lower is better", "is": "higher is better"}
COLOURS = {"teacher": "#d55e00", "student": "#0072b2", "control": "#7f8c8d"}  # the symbols differ, too
_SYMBOLS = {"teacher": "star", "student": "circle", "control": "square"}
# Colours of the shapes in ascending order; neighbours are distinct on white and on black.
_PALETTE = ["#5e4fa2", "#3288bd", "#39a591", "#7fbf5a", "#d8a528", "#f46d43", "#d53e4f", "#9e0142"]
_ENDINGS = {"pruned": "pruned", "speculative": "pruned", "diverged": "diverged"}  # by state; none for other states
_END_SYMBOLS = {"": "circle", "pruned": "x", "diverged": "triangle-up"}  # ending → symbol of the last point


def pareto(comparison: Comparison, score: str, latency: Mapping[str, float] | None = None) -> go.Figure:
    """Plot a score over the generator's size: students, controls, the teacher, and the Pareto front.

    score: fid or is. latency: label of a shape, such as d=8, → seconds per image on a CPU. If given, it is one more
    choice for the x axis.
    """
    points = [point for point in _final_points(comparison, score) if point["parameters"] is not None]
    figure = go.Figure()
    sizes = {"parameters": "parameters", "macs": "multiply-accumulates per image"}
    values: dict[str, list[float | None]]  # None: not known
    values = {"parameters": [p["parameters"] for p in points], "macs": [p["macs"] for p in points]}
    if latency:
        sizes["latency"] = "CPU latency, ms per image"
        values["latency"] = [1000 * latency[p["label"]] if p["label"] in latency else None for p in points]
    kinds = [kind for kind in ("control", "student", "teacher") if any(p["kind"] == kind for p in points)]
    for kind in kinds:
        indices = [i for i, p in enumerate(points) if p["kind"] == kind]
        figure.add_scatter(
            x=[values["parameters"][i] for i in indices],
            y=[points[i]["mean"] for i in indices],
            error_y={"type": "data", "array": [points[i]["std"] or 0 for i in indices]},
            text=[points[i]["label"] for i in indices],
            textposition="bottom center" if kind == "control" else "top center",
            mode="lines+markers+text" if len(indices) > 1 else "markers+text",
            marker={"size": 16 if kind == "teacher" else 11, "symbol": _SYMBOLS[kind]},
            line={"color": COLOURS[kind], "dash": "dot" if kind == "control" else "solid"},
            name=kind,
            hovertemplate="%{text}: %{y:.4g} at %{x:,.4g}<extra>" + kind + "</extra>",
        )
    fronts = {size: _front(list(zip(xs, points, strict=True)), score) for size, xs in values.items()}
    figure.add_scatter(
        x=[x for x, _ in fronts["parameters"]],
        y=[p["mean"] for _, p in fronts["parameters"]],
        mode="lines",
        line={"color": "#c0392b", "width": 1, "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )
    limit, teacher = comparison.table.limit, comparison.table.teacher
    if limit and teacher and limit.metric == score and (goal := teacher.scores[score]):
        bound = goal["mean"] * (1 - limit.tolerance if score == "is" else 1 + limit.tolerance)
        figure.add_hline(
            y=bound,
            line={"dash": "dash", "width": 1, "color": COLOURS["teacher"]},
            annotation_text=f"within {limit.tolerance:.0%} of the teacher: from {limit.text}",
            annotation_position="bottom left",
            annotation_y=math.log10(bound) if score == "fid" else bound,  # on a logarithmic axis Plotly takes log10
        )
    figure.update_xaxes(title=sizes["parameters"], type="log")
    figure.update_yaxes(title=f"{NAMES[score]} ({BETTER[score]})", type="log" if score == "fid" else "linear")
    buttons = []
    for size, title in sizes.items():
        xs = [[values[size][i] for i, p in enumerate(points) if p["kind"] == kind] for kind in kinds]
        ys = [[p["mean"] for p in points if p["kind"] == kind] for kind in kinds]
        front = [x for x, _ in fronts[size]], [p["mean"] for _, p in fronts[size]]
        buttons.append(
            {
                "label": size,
                "method": "update",
                "args": [{"x": [*xs, front[0]], "y": [*ys, front[1]]}, {"xaxis.title.text": title}],
            }
        )
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "type": "buttons",
                "direction": "right",
                "x": 1,
                "xanchor": "right",
                "y": 1.2,
                "yanchor": "top",
            }
        ]
    )
    return _with_layout(figure)


def _final_points(comparison: Comparison, score: str) -> list[dict[str, Any]]:
    """Return the table's entries that have the score, by size."""
    entries = [("teacher", comparison.table.teacher)]
    entries += [pair for row in comparison.table.rows for pair in (("student", row.student), ("control", row.control))]
    points: list[dict[str, Any]] = []
    for kind, entry in entries:
        if entry and (value := entry.scores[score]):
            size = {"label": entry.label, "parameters": entry.parameters, "macs": entry.macs}
            points.append(size | {"kind": kind, "mean": value["mean"], "std": value["std"]})
    return sorted(points, key=lambda p: (p["parameters"] is None, p["parameters"], p["kind"]))


def _front(points: list[tuple[float | None, dict[str, Any]]], score: str) -> list[tuple[float, dict[str, Any]]]:
    """Return the Pareto front of (size, point): no other point is both at most as large and better."""
    sign, front = (1 if score == "fid" else -1), []
    best = float("inf")
    known = [(x, point) for x, point in points if x is not None]
    for x, point in sorted(known, key=lambda item: (item[0], sign * item[1]["mean"])):
        if sign * point["mean"] < best:
            best = sign * point["mean"]
            front.append((x, point))
    return front


def alpha(comparison: Comparison, score: str) -> go.Figure:
    """Plot a score over alpha: one line per shape, at the highest rung that all its alphas reached."""
    figure = go.Figure()
    lines = alpha_curves(comparison.distilled) if comparison.distilled else []
    colours = _colours(comparison)
    for line in lines:
        missing = f"; alpha={', '.join(f'{a:g}' for a in line.missing)} has no score" if line.missing else ""
        figure.add_scatter(
            x=[f"{a:g}" for a, _ in line.points],
            y=[scores.get(score) for _, scores in line.points],
            mode="lines+markers",
            line={"color": colours[line.shape]},
            name=f"{line.shape.label}, at {line.updates:,} updates{missing}",
            hovertemplate="alpha=%{x}: %{y:.4g}<extra>" + line.shape.label + "</extra>",
        )
    alphas = sorted({a for line in lines for a, _ in line.points})
    figure.update_xaxes(
        title="alpha (0 is MSE alone)", type="category", categoryorder="array", categoryarray=[f"{a:g}" for a in alphas]
    )
    figure.update_yaxes(title=f"{NAMES[score]} ({BETTER[score]})", type="log" if score == "fid" else "linear")
    return _with_layout(figure)


def rungs(comparison: Comparison, role: str) -> go.Figure:
    """Plot FID over updates for every configuration of a role's sweep.

    role: student or teacher. The line of a pruned configuration ends with a cross. The line of a diverged one ends with
    a triangle at its last score.
    """
    sweep = comparison.distilled if role == "student" else comparison.controls
    figure = go.Figure()
    if sweep is None:
        return _with_layout(figure)
    colours = _colours(comparison)
    scored = [curve for curve in learning_curves(sweep) if curve.points]
    for shape in sweep.strata:
        for ending, symbol in _END_SYMBOLS.items():
            lines = [curve for curve in scored if curve.shape == shape and _ENDINGS.get(curve.state, "") == ending]
            if lines:
                width = 1 if ending else 2.5
                figure.add_scatter(**_join(lines, ending, symbol), line={"color": colours[shape], "width": width})
    figure.update_xaxes(title="updates", type="log", tickvals=sweep.manifest.rungs)
    figure.update_yaxes(title="FID on the rung latents (lower is better)", type="log")
    return _with_layout(figure)


def _join(lines: list[LearningCurve], ending: str, symbol: str) -> dict[str, Any]:
    """Join lines into one trace, separated by gaps: browsers are slow with a thousand traces."""
    x: list[int | None] = []
    y: list[float | None] = []
    symbols: list[str] = []
    texts: list[str] = []
    for curve in lines:
        x += [*(updates for updates, _ in curve.points), None]
        y += [*(scores["fid"] for _, scores in curve.points), None]
        symbols += ["circle"] * (len(curve.points) - 1) + [symbol, "circle"]
        texts += [f"{curve.label} ({curve.state})"] * (len(curve.points) + 1)
    return {
        "x": x,
        "y": y,
        "text": texts,
        "mode": "lines+markers",
        "opacity": 0.55 if ending else 1.0,
        "marker": {"symbol": symbols, "size": 8},
        "legendgroup": lines[0].shape.label,
        "name": lines[0].shape.label + (f", {ending}" if ending else ""),
        "hovertemplate": "%{text}<br>FID %{y:.1f} at %{x:,} updates<extra></extra>",
    }


def curves(comparison: Comparison) -> go.Figure:
    """Plot FID, IS and the generator's loss over updates: the teacher, and each row's student and control."""
    chosen = chosen_curves(comparison)
    rows = {name: [(line, points) for line in chosen if (points := _points(line, name))] for name in _QUANTITIES}
    rows = {name: lines for name, lines in rows.items() if lines}
    figure = make_subplots(rows=max(1, len(rows)), shared_xaxes=True, vertical_spacing=0.06)
    colours, in_legend = _colours(comparison), set()
    for number, (quantity, lines) in enumerate(rows.items(), start=1):
        for line, points in lines:
            name = f"{line.kind}, {line.shape.label}"
            figure.add_scatter(
                x=[x for x, _ in points],
                y=[y for _, y in points],
                mode="lines+markers",
                line={"color": colours[line.shape], "dash": "dot" if line.kind == "control" else "solid"},
                marker={"symbol": _SYMBOLS[line.kind]},
                name=name,
                legendgroup=name,
                showlegend=name not in in_legend,
                hovertemplate=line.label + "<br>%{y:.4g} at %{x:,} updates<extra>" + line.kind + "</extra>",
                row=number,
                col=1,
            )
            in_legend.add(name)
        figure.update_yaxes(
            title=_QUANTITIES[quantity], type="log" if quantity == "fid" else "linear", row=number, col=1
        )
    figure.update_xaxes(title="updates", row=max(1, len(rows)), col=1)
    return _with_layout(figure).update_layout(height=240 + 200 * len(rows), legend_y=-0.1)


# Losses of students and of GANs differ in scale.
_QUANTITIES = {"fid": "FID", "is": "IS", "student": "students' loss", "gan": "GANs' loss"}


def _points(line: ChosenCurve, quantity: str) -> list[tuple[int, float]]:
    """Return (updates, value) of a score, or of the generator's loss if the line is of that kind."""
    if quantity in ("fid", "is"):
        return [(r.updates, r.scores[quantity]["mean"]) for r in line.rungs if quantity in r.scores]
    if (quantity == "student") != (line.kind == "student"):
        return []
    return [(r.updates, r.losses["generator"]) for r in line.rungs if "generator" in r.losses]


def blur(comparison: Comparison) -> go.Figure:
    """Plot the variance of the Laplacian per shape: students and controls, with the teacher's and the real images'."""
    points = _final_points(comparison, "sharpness")
    figure = go.Figure()
    for kind in ("student", "control"):
        bars = [p for p in points if p["kind"] == kind]
        figure.add_bar(
            x=[p["label"] for p in bars],
            y=[p["mean"] for p in bars],
            name=kind,
            marker={"color": COLOURS[kind], "pattern": {"shape": "/" if kind == "control" else ""}},
            hovertemplate="%{x}: %{y:,.0f}<extra>" + kind + "</extra>",
        )
    levels = [("left", f"teacher, {p['label']}", p["mean"]) for p in points if p["kind"] == "teacher"]
    if comparison.manifest.real["sharpness"]:
        levels.append(("right", "real images", comparison.manifest.real["sharpness"]))
    for side, label, level in levels:
        colour = COLOURS["teacher" if side == "left" else "control"]
        figure.add_hline(
            y=level, line={"color": colour, "dash": "dash"}, annotation_text=label, annotation_position=f"top {side}"
        )
    figure.update_xaxes(categoryorder="array", categoryarray=list(dict.fromkeys(p["label"] for p in points)))
    figure.update_yaxes(title="variance of the Laplacian (lower is blurrier)", rangemode="tozero")
    return _with_layout(figure)


def _colours(comparison: Comparison) -> dict[GeneratorShape, str]:
    """Return the colour of each shape in every chart."""
    shapes = sorted({shape for sweep in comparison.sweeps for shape in sweep.strata})
    last = max(1, len(shapes) - 1)
    return {shape: _PALETTE[round(i * (len(_PALETTE) - 1) / last)] for i, shape in enumerate(shapes)}


def _set_ticks(axis: Any) -> None:
    if axis.type == "log" and axis.tickvals is None:
        axis.dtick = "D2"  # 1, 2, 5, 10, …


def _with_layout(figure: go.Figure) -> go.Figure:
    """Apply the layout that all figures share, and return the figure."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 56, "b": 56},
        legend={"orientation": "h", "y": -0.22},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="closest",
    )
    figure.for_each_xaxis(_set_ticks)
    figure.for_each_yaxis(_set_ticks)
    return figure
