"""A sweep's report on W&B, as code: made once, then brought up to date in its place. It needs the runs to be there."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from sweeper.results.comparison import Comparison, find
from sweeper.results.formats import caption
from sweeper.results.table import flat
from sweeper.store import Manifest, Store
from sweeper.tracking.payload import FIRST_FID, sent_sweeps
from sweeper.tracking.project import Project, UploadError, reason, wandb_environment
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import read_json, write_json
from trainables.shapes import GeneratorShape

_WIDE = 24  # columns of W&B's grid


def save(store: Store, sweep: Manifest, project: Project) -> str:
    """Make or update the report of a sweep, a student sweep if there is one; its URL. Raises UploadError."""
    kept = store.root / "wandb" / f"report-{sweep.name}.json"
    ids: dict[str, str] = read_json(kept) if kept.exists() else {}
    try:
        report = build(store, sweep, project)
        known = ids.get(project.key)
        if known is not None and known in project.reports():  # else someone has deleted it there
            report.id = known
        report.save()
        url = str(report.url)
    except UploadError:
        raise
    except Exception as error:  # as in Project: a dozen kinds
        raise UploadError(reason(error)) from error
    write_json(kept, ids | {project.key: report.id})
    return url


def build(store: Store, sweep: Manifest, project: Project) -> Any:
    """A wandb_workspaces report; nothing of it is saved."""
    wr: Any = import_module("wandb_workspaces.reports.v2")  # it exports by *, which no type checker follows
    teachers = store.sweep(sweep.teacher.sweep) if sweep.teacher else sweep
    assert teachers is not None
    built = Comparison.of(store, teachers, sweep if sweep.teacher else None).table
    numbers = flat(built)
    students = f"Group = '{sweep.name}' and JobType = 'student'"
    controls = f"Group = '{teachers.name}' and JobType = 'teacher'"

    def runs(name: str, filters: str) -> Any:
        return wr.Runset(entity="", project=project.name, name=name, filters=filters)

    def of(signatures: list[str]) -> str:
        return f"ID in {[f'{store.id}-{signature}' for signature in signatures]}"

    def wide(height: int) -> Any:
        return wr.Layout(w=_WIDE, h=height)

    named = {who: [line[f"{who}_signature"] for line in numbers] for who in ("student", "control")}
    shown = {who: [signature for signature in found if signature] for who, found in named.items()}
    teacher = [built.teacher.signature] if built.teacher else []
    sets = [runs("students", students)] if sweep.teacher else []
    sets.append(runs("controls", controls))
    if teacher:
        sets.append(runs("teacher", of(teacher)))
    fid, parameters = wr.SummaryMetric("report/fid"), wr.Config("parameters")
    blocks = [
        wr.P(caption(built)),
        wr.H2("Compression table"),
        wr.PanelGrid(
            runsets=[runs("table", of([f"table-{sweep.name}"]))],
            panels=[wr.WeavePanelSummaryTable(table_name="compression", layout=wide(12))],
        ),
        wr.H2("FID over parameters"),
        wr.PanelGrid(
            runsets=sets,
            panels=[wr.ScatterPlot(x=parameters, y=fid, log_x=True, log_y=True, layout=wide(12))],
        ),
    ]
    if shapes := _shapes_with_alpha(store, sweep):
        per_d = [
            runs(s.label, f"{students} and Config('family') = '{s.family}' and Config('d') = {s.d}") for s in shapes
        ]
        alpha = wr.ScatterPlot(x=wr.Config("alpha"), y=wr.SummaryMetric(FIRST_FID), log_y=True, layout=wide(12))
        blocks += [
            wr.H2("FID over alpha (0: MSE), per d, at the first rung"),
            wr.PanelGrid(runsets=per_d, panels=[alpha]),
        ]
    curves = wr.LinePlot(
        x="Step", y=["rung/fid"], title_x="updates", title_y="rung/fid", log_y=True, max_runs_to_show=1000,
        layout=wide(12),
    )  # fmt: skip
    pictured = [runs(f"{who}s", of(found)) for who, found in shown.items() if found]
    if teacher:
        pictured.append(runs("teacher", of(teacher)))
    blocks += [
        wr.H2("FID at the rungs, pruned trials included"),
        wr.PanelGrid(runsets=sets, panels=[curves]),
        wr.H2("The same latents through teacher, students and controls"),
        wr.PanelGrid(
            runsets=pictured, panels=[wr.MediaBrowser(media_keys=["samples"], num_columns=2, layout=wide(20))]
        ),
    ]
    title = f"Compression table of {sweep.name}"[:128]
    return wr.Report(entity=project.entity, project=project.name, title=title, blocks=blocks, width="fluid")


def _shapes_with_alpha(store: Store, sweep: Manifest) -> list[GeneratorShape]:
    """Return the shapes of trials that differ in alpha."""
    specs = [store.require(signature).spec for signature in sweep.signatures]
    return sorted({spec.generator for spec in specs if spec.alpha is not None})


def run(folder: Path, dataset: str | None, name: str | None) -> str:
    """What `sweeper wandb report` does; the URL. Raises UserError, EnvironmentUserError."""
    store = Store(folder)
    teachers, students = find(store, dataset, name)
    sweep = students or teachers
    for of_both in (teachers, sweep):
        sent_sweeps(store, of_both.name)  # raises for one that is never sent
    os.environ.update(wandb_environment(store.root))
    try:
        project = Project()
        if not project.listed([sweep.name]):
            raise UserError(f"no run of {sweep.name} is at {project.url}; type `sweeper wandb sync` first")
        return save(store, sweep, project)
    except UploadError as trouble:
        raise EnvironmentUserError(f"W&B: {trouble}; type `sweeper wandb report` again") from None
