"""A store from before families, plug-ins and packages yields the same table and the same trials."""

import json
from pathlib import Path
from typing import Any

from sweeper.results.comparison import Comparison
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store

OLD = Path(__file__).with_name("store_before")


ADDED = {"conditions", "family", "fresh", "diverged", "differences", "finished", "exports", "fits", "ms", "latency"}
ADDED |= {"name", "reference", "pairs", "no_controls", "control_settings"}


def without_added(value: Any) -> Any:
    """Return the table without the fields that it had not then."""
    if isinstance(value, dict):
        return {key: without_added(inner) for key, inner in value.items() if key not in ADDED}
    return [without_added(inner) for inner in value] if isinstance(value, list) else value


def test_the_table_has_the_same_numbers() -> None:
    table = Comparison.read(Store(OLD / "store"), None, None).table
    assert without_added(json.loads(json.dumps(table.as_json()))) == json.loads((OLD / "table.json").read_text())
    assert {row.family for row in table.rows} == {"dcgan"}


def test_the_signatures_are_unchanged() -> None:
    store = Store(OLD / "store")
    for manifest in store.sweeps():
        sweep = Sweep.read(manifest, store)
        assert sweep.finished()
        assert [record.spec.signature for record in sweep.records.values()] == manifest.signatures
