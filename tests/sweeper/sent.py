"""What tests of W&B share: made-up stores with pictures, and what a server holds in a form that can be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweeper.store import Store, Teacher
from tests.sweeper import stores
from tests.wandb_server import Server
from tests.wandb_state import ENTITY


def pictured(root: Path, learning_rates: tuple[float, ...] = (0.1, 0.2), **changes: Any) -> Store:
    """A finished sweep of two teachers and one of two students per d = 2 and learning rate, each with its samples."""
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
            draw(store, signature, rung.updates)
    return store


def draw(store: Store, signature: str, updates: int) -> None:
    """Samples, other ones for each trial and rung."""
    pixels = np.random.default_rng([int(signature, 16), updates]).integers(0, 256, (16, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(store.samples(signature, updates))


def standing(server: Server, store: Store, entity: str = ENTITY, project: str = "sweeper") -> dict[str, Any]:
    """All that the server holds of a store, without its id and without what changes from one upload to the next."""
    found = server.project(entity, project)
    runs = {}
    for run in found.runs.values():
        pictures = {name: data for name, data in run.files.items() if name.startswith("media/images/")}
        runs[run.id] = {
            "fields": run.fields,
            "config": {key: value["value"] for key, value in run.config.items() if key != "_wandb"},
            "rows": [_kept(row) for row in run.rows],
            "summary": _kept(run.summary),
            "pictures": sorted(data.hex() for data in pictures.values()),
            "state": run.state,
        }
    artifacts = [
        (a.name, a.version, a.state, {name: data.hex() for name, data in a.files.items() if name.endswith(".png")})
        for a in found.artifacts
    ]
    views = [view | {"name": "", "spec": _nameless(json.loads(view["spec"]))} for view in server.views.values()]
    text = json.dumps({"runs": runs, "artifacts": sorted(artifacts), "views": views})
    return dict(json.loads(text.replace(store.id, "STORE")))


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime", "_wandb")}
    return {key: value["sha256"] if isinstance(value, dict) else value for key, value in kept.items()}


def _nameless(spec: Any) -> Any:
    """A report without the ids that its blocks are given anew each time."""
    if isinstance(spec, list):
        return [_nameless(item) for item in spec]
    if isinstance(spec, dict):
        return {key: _nameless(value) for key, value in spec.items() if key not in ("id", "__id__")}
    return spec


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two such states differ, in lines that can be read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{path}/{number}")]
    return [] if one == other else [f"{path}: {str(one)[:120]} | {str(other)[:120]}"]
