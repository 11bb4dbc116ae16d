"""Create and update a sweep's report on W&B. The runs that it shows must be uploaded before."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from sweeper.records import Manifest
from sweeper.results.comparison import Comparison, find, joined
from sweeper.results.lines import flat
from sweeper.results.table_text import caption
from sweeper.store import Store
from sweeper.tracking.payload import FIRST_FID, sent_sweeps
from sweeper.tracking.project import Project, UploadError, reason, wandb_environment
from trainables.errors import EnvironmentUserError, UserError
from trainables.extras import require
from trainables.files import write_json
from trainables.reading import read_record
from trainables.shapes import GeneratorShape

_FULL_WIDTH = 24  # columns of W&B's grid


def save(store: Store, sweep: Manifest, project: Project) -> str:
    """Create or update the report of a sweep, and return its URL. Raises UploadError."""
    path = store.root / "wandb" / f"report-{sweep.name}.json"
    ids = read_record(path, dict[str, str]) or {}
    try:
        report = build(store, sweep, project)
        existing = ids.get(project.key)
        if existing is not None and existing in project.reports():  # it may have been deleted on the server
            report.id = existing
        report.save()
        url = str(report.url)
    except UploadError:
        raise
    except Exception as error:  # wandb raises many types
        raise UploadError(reason(error)) from error
    write_json(path, ids | {project.key: report.id})
    return url


def build(store: Store, sweep: Manifest, project: Project) -> Any:
    """Return a wandb_workspaces report, not saved yet."""
    wr: Any = import_module("wandb_workspaces.reports.v2")  # its exports by * are invisible to type checkers
    teachers, with_students = joined(store, sweep)
    table = Comparison.of(store, teachers, with_students).table
    numbers = flat(table)
    students = f"Group = '{sweep.name}' and JobType = 'student'"

    def runs(name: str, filters: str) -> Any:
        return wr.Runset(entity="", project=project.name, name=name, filters=filters)

    def ids_of(signatures: list[str]) -> str:
        return f"ID in {[f'{store.id}-{signature}' for signature in signatures]}"

    def full_width(height: int) -> Any:
        return wr.Layout(w=_FULL_WIDTH, h=height)

    in_rows = {kind: [line[f"{kind}_signature"] for line in numbers] for kind in ("student", "control")}
    chosen = {kind: [signature for signature in column if signature] for kind, column in in_rows.items()}
    teacher = [table.teacher.signature] if table.teacher and not table.teacher.name else []
    sets = [runs("students", students)] if sweep.teacher else []
    if teachers:
        sets.append(runs("controls", f"Group = '{teachers.name}' and JobType = 'teacher'"))
    if teacher:
        sets.append(runs("teacher", ids_of(teacher)))
    fid, parameters = wr.SummaryMetric("report/fid"), wr.Config("parameters")
    blocks = [
        wr.P(caption(table)),
        wr.H2("Compression table"),
        wr.PanelGrid(
            runsets=[runs("table", ids_of([f"table-{sweep.name}"]))],
            panels=[wr.WeavePanelSummaryTable(table_name="compression", layout=full_width(12))],
        ),
        wr.H2("FID over parameters"),
        wr.PanelGrid(
            runsets=sets,
            panels=[wr.ScatterPlot(x=parameters, y=fid, log_x=True, log_y=True, layout=full_width(12))],
        ),
    ]
    if shapes := _shapes_with_alpha(store, sweep):
        per_d = [
            runs(s.label, f"{students} and Config('family') = '{s.family}' and Config('d') = {s.d}") for s in shapes
        ]
        alpha = wr.ScatterPlot(x=wr.Config("alpha"), y=wr.SummaryMetric(FIRST_FID), log_y=True, layout=full_width(12))
        blocks += [
            wr.H2("FID over alpha (0: MSE), per d, at the first rung"),
            wr.PanelGrid(runsets=per_d, panels=[alpha]),
        ]
    curves = wr.LinePlot(
        x="Step", y=["rung/fid"], title_x="updates", title_y="rung/fid", log_y=True, max_runs_to_show=1000,
        layout=full_width(12),
    )  # fmt: skip
    with_samples = [runs(f"{kind}s", ids_of(signatures)) for kind, signatures in chosen.items() if signatures]
    if teacher:
        with_samples.append(runs("teacher", ids_of(teacher)))
    blocks += [
        wr.H2("FID at the rungs, including pruned trials"),
        wr.PanelGrid(runsets=sets, panels=[curves]),
        wr.H2("Samples of teacher, students and controls from the same latents"),
        wr.PanelGrid(
            runsets=with_samples, panels=[wr.MediaBrowser(media_keys=["samples"], num_columns=2, layout=full_width(20))]
        ),
    ]
    title = f"Compression table of {sweep.name}"[:128]
    return wr.Report(entity=project.entity, project=project.name, title=title, blocks=blocks, width="fluid")


def _shapes_with_alpha(store: Store, sweep: Manifest) -> list[GeneratorShape]:
    """Return the shapes of the trials that have an alpha."""
    specs = [store.require(signature).spec for signature in sweep.signatures]
    return sorted({spec.generator for spec in specs if spec.alpha is not None})


def run(folder: Path, dataset: str | None, name: str | None) -> str:
    """Create or update the report that `sweeper wandb report` selects, and return its URL.

    Raises UserError, and EnvironmentUserError without wandb, and if W&B fails.
    """
    require("wandb", "sweeper wandb report")
    store = Store(folder)
    teachers, students = find(store, dataset, name)
    manifests = [manifest for manifest in (students, teachers) if manifest is not None]
    for manifest in manifests:
        sent_sweeps(store, manifest.name)  # raises UserError for a disabled sweep
    sweep = manifests[0]
    os.environ.update(wandb_environment(store.root))
    try:
        project = Project()
        if not project.listed([sweep.name]):
            raise UserError(f"{project.url} has no run of {sweep.name}; run `sweeper wandb sync` first")
        return save(store, sweep, project)
    except UploadError as error:
        raise EnvironmentUserError(f"W&B: {error}; try again with `sweeper wandb report`") from None
