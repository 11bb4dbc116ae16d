"""The page, the terminal's JSON, W&B's table and the DataFrame of one store have equal numbers."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser

import sweeper as package
from sweeper.results import latency
from sweeper.results.comparison import Comparison
from sweeper.results.lines import flat
from sweeper.results.table_text import cells, columns
from sweeper.store import Store, dump
from tests.conftest import Done
from tests.wandb_server import Server

SCORES = [f"{kind}_{name}" for name in ("is", "fid") for kind in ("student", "control")]  # IS first, the digits' metric


def numbers(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, float | None]]:
    """Return rows with floats, and None for each of the four's missing values."""
    return [{name: None if pd.isna(row[name]) else float(row[name]) for name in names} for row in rows]


def test_page_json_wandb_and_dataframe_show_equal_numbers(
    finished: Path,
    sweeper: Callable[..., Done],
    browser: Browser,
    wandb_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latency, "_here", [])  # what other tests measured in this process is not in the store
    # The terminal's JSON, and the plain numbers of its CSV.
    built = Comparison.read(Store(finished / "runs"), None, None).table
    assert json.loads(sweeper("table", "--format", "json", cwd=finished).out) == json.loads(dump(built.as_json()))
    terminal = flat(built)
    numeric = [name for name, value in terminal[0].items() if name == "ratio" or isinstance(value, int | float)]
    numeric = [name for name in numeric if name != "teacher"]
    expected = numbers(terminal, numeric)
    assert {"d", "parameters", "ratio", *SCORES, "student_fid_std", "control_kid"} <= set(numeric)

    # The DataFrame.
    frame = package.open(finished / "runs").table("mnist5k")
    assert numbers(frame.to_dict("records"), numeric) == expected

    # W&B's table.
    shutil.copytree(finished, copy := tmp_path / "copy")  # W&B leaves files in the store
    assert sweeper("wandb", "sync", cwd=copy, **wandb_server.environment).code == 0
    (artifact,) = [a for a in wandb_server.project().artifacts if "students" in a.name]
    logged = json.loads(artifact.files["compression.table.json"])
    rows = [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    assert numbers(rows, numeric) == expected

    # The page: the sort keys and texts of its cells.
    page_file = tmp_path / "page.html"
    assert sweeper("report", "-o", str(page_file), cwd=finished).code == 0
    page = browser.new_page()
    page.goto(page_file.as_uri())
    cells_of_page = page.locator("#compression tbody tr").evaluate_all(
        "all => all.map(tr => [...tr.cells].map(td => [td.textContent, td.dataset.value ?? null]))"
    )
    page.close()
    first_scores = columns(built).index("IS (Stu.)")  # sizes of exports stand before the scores, where there are any
    places = [0, 1, 2, *range(first_scores, first_scores + len(SCORES))]
    names = ["d", "parameters", "ratio", *SCORES]
    values = [[math.nan if row[place][1] is None else row[place][1] for place in places] for row in cells_of_page]
    sort_keys = [dict(zip(names, row, strict=True)) for row in values]
    assert numbers(sort_keys, names) == numbers(terminal, names)
    assert [[text for text, _ in row] for row in cells_of_page] == cells(built)
