"""The report on W&B: one per sweep, created and updated."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.store import Store
from sweeper.tracking import payload, report
from tests.conftest import Done
from tests.sweeper import stores
from tests.sweeper.sent import store_with_samples
from tests.wandb_server import Server


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> Iterator[tuple[Server, Store]]:
    """Return a server and a store whose runs and report are uploaded. Takes seconds: wandb-core is started."""
    folder = tmp_path_factory.mktemp("reported")
    store = store_with_samples(folder / "runs")
    with Server() as server:
        done = sweeper("wandb", "sync", cwd=folder, **server.environment)
        assert done.code == 0, done.err
        yield server, store
    assert not server.unknown, server.unknown[0]


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


def test_sync_creates_a_report_with_table_parameters_rungs_and_samples(reported: tuple[Server, Store]) -> None:
    server, _ = reported
    (view,) = server.views.values()
    assert view["displayName"] == "Compression table of mnist5k-students"
    shown = panels(json.loads(view["spec"]))
    kinds = [panel["viewType"] for panel in shown]
    assert kinds == ["Weave", "Scatter Plot", "Run History Line Plot", "Media Browser"]  # the trials have no alpha
    assert "compression" in json.dumps(shown[0])
    scatter = shown[1]["config"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:parameters.value", "summary:report/fid")
    assert (scatter["xAxisLogScale"], scatter["yAxisLogScale"]) == (True, True)
    assert shown[2]["config"]["metrics"] == ["rung/fid"]
    assert shown[3]["config"]["mediaKeys"] == ["samples"]


def test_the_plot_over_alpha_has_the_fid_at_the_first_rung(tmp_path: Path) -> None:
    store = store_with_samples(tmp_path / "runs")
    students = store.sweep("mnist5k-students")
    assert students is not None
    joint = [stores.student(2, loss="joint", alpha=a, d_discriminator=4) for a in (0.1, 0.2)]
    trials = [stores.trial(store, spec, 40.0) for spec in joint]
    sweep = stores.sweep(store, "student", [*students.signatures, *trials], students.teacher)
    built = report.build(store, sweep, SimpleNamespace(entity="us", name="faces"))
    (scatter,) = [panel for panel in panels(built._to_model().spec.model_dump(by_alias=True)) if "alpha" in str(panel)]
    axes = scatter["config"]
    assert (axes["xAxis"], axes["yAxis"]) == ("config:alpha.value", f"summary:{payload.FIRST_FID}")
    uploads = {u.id: u for u in payload.all_uploads(store, [sweep], {})}
    points = [
        (u.config.get("alpha"), u.summary.get(payload.FIRST_FID)) for u in uploads.values() if u.job_type == "student"
    ]
    assert sorted(points) == [(0.0, 30), (0.0, 31), (0.1, 40.0), (0.2, 40.0)], "pruned trials and mse are included"


def test_a_second_report_updates_the_first_and_a_deleted_one_is_created_again(
    reported: tuple[Server, Store], sweeper: Callable[..., Done]
) -> None:
    server, store = reported
    (first,) = server.views
    again = sweeper("wandb", "report", cwd=store.root.parent, **server.environment)
    assert again.code == 0, again.err
    assert set(server.views) == {first}
    assert again.out.strip().endswith(first)
    server.views.clear()
    server.views["another"] = {"entityName": "else", "projectName": "where"}
    after_deletion = sweeper("wandb", "report", cwd=store.root.parent, **server.environment)
    assert after_deletion.code == 0, after_deletion.err
    (second,) = set(server.views) - {"another"}
    assert after_deletion.out.strip().endswith(second)
    assert second != first


def test_without_uploaded_runs_the_error_names_the_command_to_run(
    reported: tuple[Server, Store], sweeper: Callable[..., Done]
) -> None:
    server, store = reported
    environment = {**server.environment, "WANDB_PROJECT": "empty"}
    done = sweeper("wandb", "report", cwd=store.root.parent, **environment)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "run `sweeper wandb sync` first" in done.err
