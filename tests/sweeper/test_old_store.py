"""A store that was made before families, plug-ins and packages is read as it was."""

import json
from pathlib import Path
from typing import Any

from sweeper.results.comparison import Comparison
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store

BEFORE = Path(__file__).with_name("store_before")


def without_family(value: Any) -> Any:
    """What was printed before families had names."""
    if isinstance(value, dict):
        return {key: without_family(inner) for key, inner in value.items() if key != "family"}
    return [without_family(inner) for inner in value] if isinstance(value, list) else value


def test_its_table_has_the_same_numbers() -> None:
    table = Comparison.read(Store(BEFORE / "store"), None, None).table
    assert without_family(json.loads(json.dumps(table.as_json()))) == json.loads((BEFORE / "table.json").read_text())
    assert {row.family for row in table.rows} == {"dcgan"}


def test_its_trials_are_those_that_the_same_command_would_train() -> None:
    store = Store(BEFORE / "store")
    for manifest in store.sweeps():
        sweep = Sweep.read(manifest, store)
        assert sweep.finished()
        assert [record.spec.signature for record in sweep.records.values()] == manifest.signatures
