"""Build the uploads to W&B from the store's records: a run per trial, and a run per finished sweep for its table."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweeper.records import Manifest, TrialRecord
from sweeper.results.comparison import Comparison, joined
from sweeper.results.lines import flat
from sweeper.results.table_text import caption, cells, columns
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from trainables.errors import UserError
from trainables.spec import irrelevant

FIRST_FID = "fid at the first rung"  # which every trial reaches, so it can be plotted over alpha
DISABLED = "disabled"  # --wandb of a sweep that is never uploaded


@dataclass(frozen=True)
class Step:
    """One row of a run's history."""

    updates: int
    values: dict[str, Any]
    picture: Path | None  # samples at this rung, if there are any


@dataclass(frozen=True)
class Table:
    """The content of a wandb.Table. A cell that is a Path is an image file."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The content of one run."""

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
        """Return a hash of the content. It covers a picture's name and size: trial and rung determine its pixels."""
        return _digest(asdict(self))


def sent_sweeps(store: Store, name: str | None = None) -> list[Manifest]:
    """Return the sweeps whose runs go to W&B: all, or the named one, without those run with `--wandb disabled`.

    Raises UserError if the named sweep does not exist or is disabled.
    """
    sweeps = [m for m in store.sweeps() if name in (None, m.name)]
    if name is not None and not sweeps:
        raise UserError(f"--name {name}: {store.root} holds no such sweep; list its sweeps with `sweeper status`")
    allowed = [m for m in sweeps if m.wandb != DISABLED]
    if name is not None and not allowed:
        raise UserError(f"{name} was run with --wandb disabled; run its command with --wandb offline to allow uploads")
    return allowed


def owners(store: Store) -> dict[str, Manifest]:
    """Return signature → the sweep that determines its run's group and its final scores' protocols.

    Of several sweeps it is the one with the largest budget.
    """
    ordered = sorted(sent_sweeps(store), key=lambda m: (m.updates, m.name))
    return {signature: manifest for manifest in ordered for signature in manifest.members}


def all_uploads(store: Store, sweeps: Iterable[Manifest], failures: Mapping[str, str]) -> list[Upload]:
    """Return the runs of these sweeps: trials that have reached a rung or failed, and tables of finished sweeps.

    failures: signature → why the trial failed.
    """
    owner, cache, uploads = owners(store), dict[str, Sweep](), dict[str, Upload]()

    def read(manifest: Manifest) -> Sweep:
        if manifest.name not in cache:
            cache[manifest.name] = Sweep.read(manifest, store)
        return cache[manifest.name]

    for manifest in sweeps:
        by_owner: dict[str, list[str]] = {}
        for signature in manifest.members:
            by_owner.setdefault(owner[signature].name, []).append(signature)
        for signatures in by_owner.values():
            sweep = read(owner[signatures[0]])
            states = sweep.states()
            for signature in signatures:
                record = sweep.records.get(signature)
                if record is None:  # a fresh seed of a configuration that is no longer the best
                    continue
                if record.rungs or signature in failures:
                    upload = trial(store, sweep.manifest, record, states[signature], failures.get(signature))
                    uploads[upload.id] = upload
        if read(manifest).finished() and (table_upload := table(store, manifest)):
            uploads[table_upload.id] = table_upload
    return list(uploads.values())


def trial(store: Store, sweep: Manifest, record: TrialRecord, state: State, failure: str | None = None) -> Upload:
    """Return a trial's run. state: as in Sweep.states. failure: why the trial failed in this command, if it did."""
    spec, signature = record.spec, record.spec.signature
    fields = {k: v for k, v in asdict(spec).items() if v is not None and k not in irrelevant(spec.loss, spec.objective)}
    steps = _steps(store, sweep, record)
    last = {**steps[-1].values, "_step": steps[-1].updates} if steps else {}
    first = steps[0].values if steps and steps[0].updates == sweep.rungs[0] else {}
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
            **({FIRST_FID: first["rung/fid"]} if "rung/fid" in first else {}),
            "state": (State.FAILED if failure else state).value,  # wandb would store an enum
            "diverged": any(rung.diverged for rung in record.rungs),
            "failure": failure or "",
            **_final(sweep, record),
        },
        steps=steps,
    )


def _steps(store: Store, sweep: Manifest, record: TrialRecord) -> list[Step]:
    steps = []
    for updates in sorted({rung.updates for rung in record.rungs}):
        rung = record.rung(updates, sweep.protocols["rung"])
        if rung is None:  # scored by another protocol, before the sweep's was changed
            continue
        values: dict[str, Any] = {f"rung/{name}": score["mean"] for name, score in rung.scores.items()}
        values |= {f"loss/{name}": value for name, value in rung.losses.items()}
        values |= {"seconds": rung.seconds, "updates": updates, "diverged": rung.diverged}
        picture = store.samples(record.spec.signature, updates)
        steps.append(Step(updates, values, picture if picture.exists() else None))
    return steps


def _final(sweep: Manifest, record: TrialRecord) -> dict[str, Any]:
    """Return the table's scores of a trial, with their protocol, number of images, updates and weights."""
    final = record.final(sweep.updates, sweep.protocols)
    if final is None:
        return {}
    values: dict[str, Any] = {}
    for name, score in final.report.items():
        values |= {f"report/{name}": score["mean"], f"report/{name}/std": score["std"]}
    fid = final.report["fid"]
    values |= {"report/protocol": fid["protocol"], "report/n": fid["n"]}
    values |= {"report/updates": final.updates, "report/weights": final.weights}
    return {key: value for key, value in values.items() if value is not None}


def table(store: Store, sweep: Manifest) -> Upload | None:
    """Return the run with a sweep's table (plain numbers, printed cells, pictures), or None if there is no table."""
    teachers, students = joined(store, sweep)
    if DISABLED in (teachers.wandb if teachers else None, sweep.wandb):  # the table shows scores of both sweeps
        return None
    try:
        built = Comparison.of(store, teachers, students).table
    except UserError:  # its teacher has no scores by its protocol any more
        return None
    if not built.rows and not built.teacher:
        return None
    numbers = flat(built)
    heads = [head for head in columns(built) if head not in numbers[0]]
    positions = [number for number, head in enumerate(columns(built)) if head in heads]
    rows = []
    for texts, line in zip(cells(built), numbers, strict=True):
        pictures = [_picture(store, line, kind) for kind in ("student", "control")]
        rows.append([*line.values(), *(texts[number] for number in positions), *pictures])
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


def _picture(store: Store, line: Mapping[str, Any], kind: str) -> Path | None:
    if line[f"{kind}_signature"] is None:
        return None
    path = store.samples(line[f"{kind}_signature"], line[f"{kind}_updates"])
    return path if path.exists() else None


def _digest(content: Any) -> str:
    def plain(path: Path) -> list[Any]:
        return [path.parent.name, path.name, path.stat().st_size]

    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()[:16]
