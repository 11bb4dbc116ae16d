"""One store, four ways to look at it: the page, the terminal's JSON, W&B's table and the DataFrame say the same."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from playwright.sync_api import Browser

import sweeper as package
from sweeper.results.comparison import Comparison
from sweeper.results.formats import cells
from sweeper.results.table import flat
from sweeper.store import Store, dump
from tests.conftest import Done
from tests.wandb_server import Server

SCORES = [f"{who}_{name}" for name in ("is", "fid") for who in ("student", "control")]  # as digits are chosen by IS


def numbers(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, float | None]]:
    """Rows with what is missing as None, whatever each of the four calls it."""
    return [{name: None if pd.isna(row[name]) else float(row[name]) for name in names} for row in rows]


def test_page_json_wandb_and_dataframe_show_equal_numbers(
    finished: Path, sweeper: Callable[..., Done], browser: Browser, wandb_server: Server, tmp_path: Path
) -> None:
    # The terminal's CSV: plain numbers. Its JSON has the same table.
    built = Comparison.read(Store(finished / "runs"), None, None).table
    assert json.loads(sweeper("table", "--format", "json", cwd=finished).out) == json.loads(dump(built.as_json()))
    terminal = flat(built)
    every = [name for name, value in terminal[0].items() if name == "ratio" or isinstance(value, int | float)]
    every = [name for name in every if name != "teacher"]
    expected = numbers(terminal, every)
    assert {"d", "parameters", "ratio", *SCORES, "student_fid_std", "control_kid"} <= set(every)

    # The DataFrame.
    frame = package.open(finished / "runs").table("mnist5k")
    assert numbers(frame.to_dict("records"), every) == expected

    # W&B's table.
    assert sweeper("wandb", "sync", cwd=finished, **wandb_server.environment).code == 0
    (artifact,) = [a for a in wandb_server.project().artifacts if "students" in a.name]
    logged = json.loads(artifact.files["compression.table.json"])
    rows = [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    assert numbers(rows, every) == expected

    # The page: what its cells are sorted by, and what they show.
    page_file = tmp_path / "page.html"
    assert sweeper("report", "-o", str(page_file), cwd=finished).code == 0
    page = browser.new_page()
    page.goto(page_file.as_uri())
    shown = page.locator("#compression tbody tr").evaluate_all(
        "all => all.map(tr => [...tr.cells].map(td => [td.textContent, td.dataset.value ?? null]))"
    )
    page.close()
    names = ["d", "parameters", "ratio", *SCORES]
    of_page = [{name: math.nan if v is None else v for name, (_, v) in zip(names, row, strict=False)} for row in shown]
    assert numbers(of_page, names) == numbers(terminal, names)
    assert [[text for text, _ in row] for row in shown] == cells(built)
