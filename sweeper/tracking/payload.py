"""What W&B is sent, from the store's records alone: one run per trial, and one per finished sweep for its table."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweeper.results.comparison import Comparison
from sweeper.results.formats import caption, cells, columns
from sweeper.results.table import flat
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Manifest, Store, TrialRecord
from trainables.errors import UserError
from trainables.spec import irrelevant

FIRST_FID = "fid at the first rung"  # which every trial reaches: so it can be drawn over alpha
DISABLED = "disabled"  # the --wandb of a sweep that is never sent


@dataclass(frozen=True)
class Step:
    """One row of a run's history."""

    updates: int
    values: dict[str, Any]
    picture: Path | None  # samples at that rung, where there are any


@dataclass(frozen=True)
class Table:
    """A wandb.Table: a cell that is a path is a picture."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One run, as it is to stand on the server."""

    id: str
    name: str
    group: str
    job_type: str
    config: dict[str, Any]
    summary: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    table: Table | None = None

    @property
    def digest(self) -> str:
        """What tells whether the server has it as it is now. A picture counts by its name and size: its content
        follows from the trial and the rung."""
        return _digest(asdict(self))


def sent_sweeps(store: Store, name: str | None = None) -> list[Manifest]:
    """The sweeps whose runs go to W&B: all, or the named one, but none that was run with `--wandb disabled`."""
    found = [m for m in store.sweeps() if name in (None, m.name)]
    if name is not None and not found:
        raise UserError(f"--name {name}: {store.root} holds no such sweep; `sweeper status` lists them")
    sent = [m for m in found if m.wandb != DISABLED]
    if name is not None and not sent:
        raise UserError(f"{name} was run with --wandb disabled; type its command with --wandb offline to allow it")
    return sent


def owners(store: Store) -> dict[str, Manifest]:
    """signature → the sweep whose group its run is in and by whose protocols its final scores are: of several, the one
    that trains it furthest."""
    ordered = sorted(sent_sweeps(store), key=lambda m: (m.updates, m.name))
    return {signature: manifest for manifest in ordered for signature in manifest.signatures}


def everything(store: Store, sweeps: Iterable[Manifest], failures: Mapping[str, str]) -> list[Upload]:
    """Every run of these sweeps: trials that have reached a rung or failed, and the tables of finished sweeps."""
    owner, read, found = owners(store), dict[str, Sweep](), dict[str, Upload]()

    def opened(manifest: Manifest) -> Sweep:
        if manifest.name not in read:
            read[manifest.name] = Sweep.read(manifest, store)
        return read[manifest.name]

    for manifest in sweeps:
        by_owner: dict[str, list[str]] = {}
        for signature in manifest.signatures:
            by_owner.setdefault(owner[signature].name, []).append(signature)
        for signatures in by_owner.values():
            sweep = opened(owner[signatures[0]])
            states = sweep.states()
            for signature in signatures:
                record = sweep.records[signature]
                if record.rungs or signature in failures:
                    upload = trial(store, sweep.manifest, record, states[signature], failures.get(signature))
                    found[upload.id] = upload
        if opened(manifest).finished() and (made := table(store, manifest)):
            found[made.id] = made
    return list(found.values())


def trial(store: Store, sweep: Manifest, record: TrialRecord, state: State, failure: str | None = None) -> Upload:
    """A trial's run. state: as in Sweep.states; failure: why it failed, if it did just now."""
    spec, signature = record.spec, record.spec.signature
    fields = {k: v for k, v in asdict(spec).items() if v is not None and k not in irrelevant(spec.loss, spec.objective)}
    steps = _steps(store, sweep, record)
    last = {**steps[-1].values, "_step": steps[-1].updates} if steps else {}
    return Upload(
        id=f"{store.id}-{signature}",
        name=spec.label(),
        group=sweep.name,
        job_type=spec.role,
        config={
            **fields,
            **({} if spec.position_on_alpha is None else {"alpha": spec.position_on_alpha}),
            "signature": signature,
            "configuration": spec.configuration,
            "parameters": spec.generator.parameters,
            "macs": spec.generator.macs,
        },
        summary={
            **last,
            **({FIRST_FID: steps[0].values["rung/fid"]} if steps and "rung/fid" in steps[0].values else {}),
            "state": (State.FAILED if failure else state).value,  # wandb writes an enum otherwise
            "diverged": any(rung.diverged for rung in record.rungs),
            "failure": failure or "",
            **_final(sweep, record),
        },
        steps=steps,
    )


def _steps(store: Store, sweep: Manifest, record: TrialRecord) -> list[Step]:
    found = []
    for updates in sorted({rung.updates for rung in record.rungs}):
        rung = record.rung(updates, sweep.protocols["rung"])
        if rung is None:  # it was scored by another protocol, before the sweep's own was changed
            continue
        values: dict[str, Any] = {f"rung/{name}": score["mean"] for name, score in rung.scores.items()}
        values |= {f"loss/{name}": value for name, value in rung.losses.items()}
        values |= {"seconds": rung.seconds, "updates": updates, "diverged": rung.diverged}
        picture = store.samples(record.spec.signature, updates)
        found.append(Step(updates, values, picture if picture.exists() else None))
    return found


def _final(sweep: Manifest, record: TrialRecord) -> dict[str, Any]:
    """The scores of the table, and where they come from."""
    final = record.final(sweep.updates, sweep.protocols)
    if final is None:
        return {}
    found: dict[str, Any] = {}
    for name, score in final.report.items():
        found |= {f"report/{name}": score["mean"], f"report/{name}/std": score["std"]}
    fid = final.report["fid"]
    found |= {"report/protocol": fid["protocol"], "report/n": fid["n"]}
    found |= {"report/updates": final.updates, "report/weights": final.weights}
    return {key: value for key, value in found.items() if value is not None}


def table(store: Store, sweep: Manifest) -> Upload | None:
    """The run that holds a sweep's compression table: as it is printed, as plain numbers, and with pictures."""
    teachers, students = (sweep, None) if sweep.teacher is None else (store.sweep(sweep.teacher.sweep), sweep)
    if teachers is None or DISABLED in (teachers.wandb, sweep.wandb):  # its rows would show what is never sent
        return None
    try:
        built = Comparison.of(store, teachers, students).table
    except UserError:  # its teacher has no scores like its own any more
        return None
    if not built.rows and not built.teacher:
        return None
    numbers = flat(built)
    heads = [head for head in columns(built) if head not in numbers[0]]
    kept = [number for number, head in enumerate(columns(built)) if head in heads]
    rows = []
    for texts, line in zip(cells(built), numbers, strict=True):
        pictures = [_picture(store, line, who) for who in ("student", "control")]
        rows.append([*line.values(), *(texts[number] for number in kept), *pictures])
    content = Table([*numbers[0], *heads, "student", "control"], rows)
    return Upload(
        id=f"{store.id}-table-{sweep.name}",
        name=f"{sweep.name}: compression table",
        group=sweep.name,
        job_type="table",
        config={"dataset": sweep.dataset, "metric": sweep.metric, "role": "table"},
        summary={"content": _digest(asdict(content)), "caption": caption(built)},
        table=content,
    )


def _picture(store: Store, line: Mapping[str, Any], who: str) -> Path | None:
    if line[f"{who}_signature"] is None:
        return None
    path = store.samples(line[f"{who}_signature"], line[f"{who}_updates"])
    return path if path.exists() else None


def _digest(content: Any) -> str:
    def plain(path: Path) -> list[Any]:
        return [path.parent.name, path.name, path.stat().st_size]

    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()[:16]
