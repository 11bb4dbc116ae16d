"""The report on W&B: one per sweep, made as code, brought up to date in its place."""

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
from tests.sweeper.sent import pictured
from tests.wandb_server import Server


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> Iterator[tuple[Server, Store]]:
    """A store that was sent, with its report. Takes seconds: wandb is imported and wandb-core started."""
    folder = tmp_path_factory.mktemp("reported")
    store = pictured(folder / "runs")
    with Server() as server:
        done = sweeper("wandb", "sync", cwd=folder, **server.environment)
        assert done.code == 0, done.err
        yield server, store
    assert not server.unknown, server.unknown[0]


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


def test_sync_makes_it_with_table_parameters_alpha_rungs_and_pictures(reported: tuple[Server, Store]) -> None:
    server, _ = reported
    (view,) = server.views.values()
    assert view["displayName"] == "Compression table of mnist5k-students"
    found = panels(json.loads(view["spec"]))
    kinds = [panel["viewType"] for panel in found]
    assert kinds == ["Weave", "Scatter Plot", "Run History Line Plot", "Media Browser"]  # no trial here has an alpha
    assert "compression" in json.dumps(found[0])
    scatter = found[1]["config"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:parameters.value", "summary:report/fid")
    assert (scatter["xAxisLogScale"], scatter["yAxisLogScale"]) == (True, True)
    assert found[2]["config"]["metrics"] == ["rung/fid"]
    assert found[3]["config"]["mediaKeys"] == ["samples"]


def test_fid_is_drawn_over_alpha_at_the_rung_that_all_reach(tmp_path: Path) -> None:
    store = pictured(tmp_path / "runs")
    students = store.sweep("mnist5k-students")
    assert students is not None
    joint = [stores.student(2, loss="joint", alpha=a, d_discriminator=4) for a in (0.1, 0.2)]
    trials = [stores.trial(store, spec, 40.0) for spec in joint]
    sweep = stores.sweep(store, "student", [*students.signatures, *trials], students.teacher)
    built = report.build(store, sweep, SimpleNamespace(entity="us", name="faces"))
    (scatter,) = [panel for panel in panels(built._to_model().spec.model_dump(by_alias=True)) if "alpha" in str(panel)]
    axes = scatter["config"]
    assert (axes["xAxis"], axes["yAxis"]) == ("config:alpha.value", f"summary:{payload.FIRST_FID}")
    sent = {u.id: u for u in payload.everything(store, [sweep], {})}
    drawn = [
        (u.config.get("alpha"), u.summary.get(payload.FIRST_FID)) for u in sent.values() if u.job_type == "student"
    ]
    assert sorted(drawn) == [(0.0, 30), (0.0, 31), (0.1, 40.0), (0.2, 40.0)], "pruned ones and mse among them"


def test_the_same_report_is_updated_and_a_deleted_one_is_made_anew(
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
    anew = sweeper("wandb", "report", cwd=store.root.parent, **server.environment)
    assert anew.code == 0, anew.err
    (made,) = set(server.views) - {"another"}
    assert anew.out.strip().endswith(made)
    assert made != first


def test_without_runs_there_it_says_what_to_type(reported: tuple[Server, Store], sweeper: Callable[..., Done]) -> None:
    server, store = reported
    environment = {**server.environment, "WANDB_PROJECT": "empty"}
    done = sweeper("wandb", "report", cwd=store.root.parent, **environment)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "type `sweeper wandb sync` first" in done.err
