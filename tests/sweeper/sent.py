"""Helpers of the W&B tests: made-up stores with samples, and the content of a server in comparable form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweeper.records import Teacher
from sweeper.store import Store
from tests.sweeper import stores
from tests.wandb_server import Server
from tests.wandb_state import ENTITY


def store_with_samples(root: Path, learning_rates: tuple[float, ...] = (0.1, 0.2), **changes: Any) -> Store:
    """Return a store with a finished sweep of two teachers, and one of a student of d = 2 per learning rate.

    Every rung has samples. changes: fields of the teacher sweep's manifest.
    """
    store = Store(root)
    store.create()
    finals = {"selection": (5.0, 9.0), "report": (5.5, 9.0)}
    teachers = [stores.trial(store, stores.teacher(8, lr=0.1), 5, finals)]
    teachers.append(
        stores.trial(store, stores.teacher(2, lr=0.1), 50, {"selection": (50, 6.0), "report": (50.5, 6.25)})
    )
    pinned = Teacher(teachers[0], 30, "w", "mnist5k-teachers", "best")
    stores.sweep(store, "teacher", teachers, **changes)
    students = [
        stores.trial(
            store,
            stores.student(2, lr=lr, teacher=pinned.name),
            30 + number,
            {"selection": (30, 7.0), "report": (30.5, 7.125)} if number == 0 else None,
        )
        for number, lr in enumerate(learning_rates)
    ]
    stores.sweep(store, "student", students, pinned, eta=len(learning_rates))
    for signature in teachers + students:
        for rung in store.require(signature).rungs:
            save_samples(store, signature, rung.updates)
    return store


def save_samples(store: Store, signature: str, updates: int) -> None:
    """Save random samples of a rung, different for each trial and rung."""
    pixels = np.random.default_rng([int(signature, 16), updates]).integers(0, 256, (16, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(store.samples(signature, updates))


def server_content(server: Server, store: Store, entity: str = ENTITY, project: str = "sweeper") -> dict[str, Any]:
    """Return what the server holds of a store, without the store's id and values that differ between uploads."""
    content = server.project(entity, project)
    runs = {}
    for run in content.runs.values():
        pictures = {name: data for name, data in run.files.items() if name.startswith("media/images/")}
        runs[run.id] = {
            "fields": run.fields,
            "config": {key: value["value"] for key, value in run.config.items() if key != "_wandb"},
            "rows": [_without_times(row) for row in run.rows],
            "summary": _without_times(run.summary),
            "pictures": sorted(data.hex() for data in pictures.values()),
            "state": run.state,
        }
    artifacts = [
        (a.name, a.version, a.state, {name: data.hex() for name, data in a.files.items() if name.endswith(".png")})
        for a in content.artifacts
    ]
    views = [view | {"name": "", "spec": _without_ids(json.loads(view["spec"]))} for view in server.views.values()]
    text = json.dumps({"runs": runs, "artifacts": sorted(artifacts), "views": views})
    return dict(json.loads(text.replace(store.id, "STORE")))


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    constant = {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime", "_wandb")}
    return {key: value["sha256"] if isinstance(value, dict) else value for key, value in constant.items()}


def _without_ids(spec: Any) -> Any:
    """Return a report without the ids of its blocks, which differ between uploads."""
    if isinstance(spec, list):
        return [_without_ids(item) for item in spec]
    if isinstance(spec, dict):
        return {key: _without_ids(value) for key, value in spec.items() if key not in ("id", "__id__")}
    return spec


def differences(actual: Any, expected: Any, path: str = "") -> list[str]:
    """Return the differences between two contents, one per line."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        keys = sorted({*actual, *expected})
        return [line for key in keys for line in differences(actual.get(key), expected.get(key), f"{path}/{key}")]
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        pairs = enumerate(zip(actual, expected, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{path}/{number}")]
    return [] if actual == expected else [f"{path}: {str(actual)[:120]} | {str(expected)[:120]}"]
