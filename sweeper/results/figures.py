"""A comparison as Plotly figures, for the page and for notebooks. One function draws one figure from the store."""

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweeper.results.comparison import (
    ChosenCurve,
    Comparison,
    LearningCurve,
    chosen_curves,
    learning_curves,
    over_alpha,
)
from trainables.shapes import GeneratorShape

NAMES = {"fid": "FID", "is": "Inception Score", "kid": "KID", "sharpness": "sharpness"}
BETTER = {"fid": "lower is better", "is": "higher is better"}
COLOURS = {"teacher": "#d55e00", "student": "#0072b2", "control": "#7f8c8d"}  # told apart by shape, too
_SYMBOLS = {"teacher": "star", "student": "circle", "control": "square"}
# A colour per d, dark to light; tells neighbours apart on white and on black.
_PER_D = ["#5e4fa2", "#3288bd", "#39a591", "#7fbf5a", "#d8a528", "#f46d43", "#d53e4f", "#9e0142"]
_FATE = {"pruned": "pruned", "speculative": "pruned", "diverged": "diverged"}  # else it went on, or may
_FATES = {"": "circle", "pruned": "x", "diverged": "triangle-up"}  # how a line ends


def pareto(comparison: Comparison, score: str, latency: Mapping[str, float] | None = None) -> go.Figure:
    """A score over the generator's size: students, controls and the teacher, and who is beaten by nobody.

    score: fid or is. latency: a shape's label → seconds per image on a CPU. With it the x axis can be switched to it.
    """
    points = _final_points(comparison, score)
    figure = go.Figure()
    sizes = {"parameters": "parameters", "macs": "multiply-accumulates per image"}
    values = {"parameters": [p["parameters"] for p in points], "macs": [p["macs"] for p in points]}
    if latency:
        sizes["latency"] = "CPU latency, ms per image"
        values["latency"] = [1000 * latency[p["label"]] for p in points]
    kinds = [kind for kind in ("control", "student", "teacher") if any(p["kind"] == kind for p in points)]
    for kind in kinds:
        of_kind = [i for i, p in enumerate(points) if p["kind"] == kind]
        figure.add_scatter(
            x=[values["parameters"][i] for i in of_kind],
            y=[points[i]["mean"] for i in of_kind],
            error_y={"type": "data", "array": [points[i]["std"] or 0 for i in of_kind]},
            text=[points[i]["label"] for i in of_kind],
            textposition="bottom center" if kind == "control" else "top center",
            mode="lines+markers+text" if len(of_kind) > 1 else "markers+text",
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
            annotation_text=f"within {limit.tolerance:.0%} of the teacher: from {limit.label}, {limit.ratio:.1f}:1",
            annotation_position="bottom left",
            annotation_y=math.log10(bound) if score == "fid" else bound,  # Plotly's annotations are in decades there
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
    return _finished(figure)


def _final_points(comparison: Comparison, score: str) -> list[dict[str, Any]]:
    """What the table prints, by size."""
    entries = [("teacher", comparison.table.teacher)]
    entries += [pair for row in comparison.table.rows for pair in (("student", row.student), ("control", row.control))]
    points: list[dict[str, Any]] = []
    for kind, entry in entries:
        if entry and (value := entry.scores[score]):
            size = {"label": entry.label, "parameters": entry.parameters, "macs": entry.macs}
            points.append(size | {"kind": kind, "mean": value["mean"], "std": value["std"]})
    return sorted(points, key=lambda p: (p["parameters"], p["kind"]))


def _front(points: list[tuple[float, dict[str, Any]]], score: str) -> list[tuple[float, dict[str, Any]]]:
    """Those for which nothing is both as small and better."""
    sign, found = (1 if score == "fid" else -1), []
    least = float("inf")
    for x, point in sorted(points, key=lambda item: (item[0], sign * item[1]["mean"])):
        if sign * point["mean"] < least:
            least = sign * point["mean"]
            found.append((x, point))
    return found


def alpha(comparison: Comparison, score: str) -> go.Figure:
    """A score over alpha, a line per d, at the highest rung that all the points of its d have reached."""
    figure = go.Figure()
    of_d = over_alpha(comparison.distilled) if comparison.distilled else []
    colours = _colours(comparison)
    for line in of_d:
        missing = f"; alpha={', '.join(f'{a:g}' for a in line.missing)} has no score" if line.missing else ""
        figure.add_scatter(
            x=[f"{a:g}" for a, _ in line.points],
            y=[scores.get(score) for _, scores in line.points],
            mode="lines+markers",
            line={"color": colours[line.shape]},
            name=f"{line.shape.label}, at {line.updates:,} updates{missing}",
            hovertemplate="alpha=%{x}: %{y:.4g}<extra>" + line.shape.label + "</extra>",
        )
    every = sorted({a for line in of_d for a, _ in line.points})
    figure.update_xaxes(
        title="alpha (0 is MSE alone)", type="category", categoryorder="array", categoryarray=[f"{a:g}" for a in every]
    )
    figure.update_yaxes(title=f"{NAMES[score]} ({BETTER[score]})", type="log" if score == "fid" else "linear")
    return _finished(figure)


def rungs(comparison: Comparison, role: str) -> go.Figure:
    """FID over updates of every configuration of the sweep of a role: a pruned one ends with a cross, one that diverged
    with a triangle where it was last scored."""
    sweep = comparison.distilled if role == "student" else comparison.controls
    figure = go.Figure()
    if sweep is None:
        return _finished(figure)
    colours = _colours(comparison)
    found = [curve for curve in learning_curves(sweep) if curve.points]
    for shape in sweep.strata:
        for fate, symbol in _FATES.items():
            lines = [curve for curve in found if curve.shape == shape and _FATE.get(curve.state, "") == fate]
            if lines:
                width = 1 if fate else 2.5
                figure.add_scatter(**_joined(lines, fate, symbol), line={"color": colours[shape], "width": width})
    figure.update_xaxes(title="updates", type="log", tickvals=sweep.manifest.rungs)
    figure.update_yaxes(title="FID of the rung's latents (lower is better)", type="log")
    return _finished(figure)


def _joined(lines: list[LearningCurve], fate: str, symbol: str) -> dict[str, Any]:
    """Many lines as one trace, with gaps between them: a browser draws ten of these, and not a thousand."""
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
        "opacity": 0.55 if fate else 1.0,
        "marker": {"symbol": symbols, "size": 8},
        "legendgroup": lines[0].shape.label,
        "name": lines[0].shape.label + (f", {fate}" if fate else ""),
        "hovertemplate": "%{text}<br>FID %{y:.1f} at %{x:,} updates<extra></extra>",
    }


def curves(comparison: Comparison) -> go.Figure:
    """FID, IS and the generator's loss over updates: the teacher, and each row's student and control."""
    found = chosen_curves(comparison)
    rows = {what: [(line, points) for line in found if (points := _points(line, what))] for what in _LEARNED}
    rows = {what: lines for what, lines in rows.items() if lines}
    figure = make_subplots(rows=max(1, len(rows)), shared_xaxes=True, vertical_spacing=0.06)
    colours, named = _colours(comparison), set()
    for number, (what, lines) in enumerate(rows.items(), start=1):
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
                showlegend=name not in named,
                hovertemplate=line.label + "<br>%{y:.4g} at %{x:,} updates<extra>" + line.kind + "</extra>",
                row=number,
                col=1,
            )
            named.add(name)
        figure.update_yaxes(title=_LEARNED[what], type="log" if what == "fid" else "linear", row=number, col=1)
    figure.update_xaxes(title="updates", row=max(1, len(rows)), col=1)
    return _finished(figure).update_layout(height=240 + 200 * len(rows), legend_y=-0.1)


# Losses of students and of GANs are not on one scale.
_LEARNED = {"fid": "FID", "is": "IS", "student": "students' loss", "gan": "GANs' loss"}


def _points(line: ChosenCurve, what: str) -> list[tuple[int, float]]:
    """(updates, value) of a score, or of the generator's loss if the line is of that kind."""
    if what in ("fid", "is"):
        return [(r.updates, r.scores[what]["mean"]) for r in line.rungs if what in r.scores]
    if (what == "student") != (line.kind == "student"):
        return []
    return [(r.updates, r.losses["generator"]) for r in line.rungs if "generator" in r.losses]


def blur(comparison: Comparison) -> go.Figure:
    """Variance of the Laplacian of students and controls per d, beside the teacher's and the real images'."""
    points = _final_points(comparison, "sharpness")
    figure = go.Figure()
    for kind in ("student", "control"):
        of_kind = [p for p in points if p["kind"] == kind]
        figure.add_bar(
            x=[p["label"] for p in of_kind],
            y=[p["mean"] for p in of_kind],
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
    return _finished(figure)


def _colours(comparison: Comparison) -> dict[GeneratorShape, str]:
    """Return the colour of each shape in every chart."""
    shapes = sorted({shape for sweep in comparison.sweeps for shape in sweep.strata})
    last = max(1, len(shapes) - 1)
    return {shape: _PER_D[round(i * (len(_PER_D) - 1) / last)] for i, shape in enumerate(shapes)}


def _fewer_ticks(axis: Any) -> None:
    if axis.type == "log" and axis.tickvals is None:
        axis.dtick = "D2"  # 1, 2, 5, 10, …


def _finished(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 56, "b": 56},
        legend={"orientation": "h", "y": -0.22},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="closest",
    )
    figure.for_each_xaxis(_fewer_ticks)
    figure.for_each_yaxis(_fewer_ticks)
    return figure
