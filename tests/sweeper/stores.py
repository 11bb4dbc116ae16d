"""Stores with made-up scores, for tests of code that reads nothing but scores."""

from typing import Any

from sweeper.records import FinalRecord, Manifest, RungRecord, Teacher
from sweeper.store import Store
from trainables.scores.protocol import Score
from trainables.spec import TrialSpec

RUNGS = [10, 30]
PROTOCOLS = {"rung": "p/rung", "selection": "p/selection", "report": "p/report"}


def score(mean: float, purpose: str) -> Score:
    return Score(mean=mean, std=0.1 if purpose == "report" else None, n=5, protocol=PROTOCOLS[purpose])


def scores(fid: float, inception: float, purpose: str) -> dict[str, Score]:
    return {name: score(value, purpose) for name, value in (("fid", fid), ("is", inception), ("sharpness", 3.0))}


def trial(store: Store, spec: TrialSpec, rung_fid: float, final: dict[str, tuple[float, float]] | None = None) -> str:
    """Add a trial to the store, and return its signature. final: purpose → (FID, IS), independent per purpose."""
    store.add(spec, rung=RungRecord(10, 1.0, {}, scores(rung_fid, 1.0, "rung"), False))
    if final:
        store.add(spec, rung=RungRecord(30, 1.0, {}, scores(rung_fid, 1.0, "rung"), False))
        named = {purpose: scores(*final[purpose], purpose) for purpose in ("selection", "report")}
        store.add(spec, final=FinalRecord(30, "w", named["selection"], named["report"]))
    return spec.signature


def teacher(d: int, **fields: Any) -> TrialSpec:
    return TrialSpec(**{"role": "teacher", "dataset": "mnist5k", "d": d, "channels": 1, "d_discriminator": 8, **fields})


def student(d: int, **fields: Any) -> TrialSpec:
    base = {"role": "student", "dataset": "mnist5k", "d": d, "channels": 1, "loss": "mse", "teacher": "t", "latents": 9}
    return TrialSpec(**{**base, **fields})


def sweep(store: Store, role: str, signatures: list[str], pinned: Teacher | None = None, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": f"mnist5k-{role}s",
        "role": role,
        "dataset": "mnist5k",
        "image_size": 32,
        "metric": "is",
        "features": "classifier",
        "real": {"is": 9.5, "sharpness": 100.0},
        "real_bytes": 5_120_000,
        "updates": 30,
        "rungs": RUNGS,
        "eta": 3,
        "n": dict.fromkeys(PROTOCOLS, 5),
        "protocols": PROTOCOLS,
        "signatures": signatures,
        "teacher": pinned or (Teacher("t", 30, "w", "mnist5k-teachers", "best") if role == "student" else None),
        "command": f"sweeper run {role}s",
        **changes,
    }
    manifest = Manifest(**fields)
    store.create()
    store.save_sweep(manifest)
    return manifest
