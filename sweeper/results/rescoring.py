"""Score an exported generator by the protocol of its trial, and keep the scores in the store."""

import sys
from pathlib import Path

from sweeper.execution.job import scorer_of
from sweeper.records import ExportRecord, FinalRecord, Manifest
from sweeper.results.exported import FLOAT32, is_of
from sweeper.results.onnx_file import OnnxGenerator
from sweeper.store import Store
from trainables.errors import DiskError, NotFiniteError, UserError
from trainables.files import file_hash
from trainables.notes import note
from trainables.scores.protocol import REPORT_SETS, Score
from trainables.spec import TrialSpec


def rescored(store: Store, sweep: Manifest, spec: TrialSpec, final: FinalRecord, name: str, path: Path) -> ExportRecord:
    """Return the record of a trial's ONNX file with its report scores. name: its format.

    A file that was scored before is not scored again. In float32 the scores are the trial's: its output equals torch's.
    Raises UserError if the feature network's weights have changed since the sweep began, or if images are not finite.
    """
    file = file_hash(path)
    for record in store.exports(spec.signature):
        if (record.format, record.file) == (name, file) and is_of(record, final):
            return record
    report = final.report if name == FLOAT32 else _report(store, sweep, spec, name, path)
    size = path.stat().st_size
    return ExportRecord(name, final.updates, weights=final.weights, file=file, bytes=size, report=report)


def keep(store: Store, signature: str, record: ExportRecord) -> None:
    """Write the record of a trial's export to the store. A store that cannot be written costs a note."""
    try:
        store.save_export(signature, record)
    except DiskError as error:
        note(f"the scores of {record.format} are not kept: {error}")


def _report(store: Store, sweep: Manifest, spec: TrialSpec, name: str, path: Path) -> dict[str, Score]:
    n = sweep.n["report"]
    print(f"{name}: scoring {n:,} images × {REPORT_SETS} sets of latents", file=sys.stderr)
    scorer = scorer_of(sweep.dataset, sweep.image_size, sweep.features, store.root)
    if scorer.protocol("report", n) != sweep.protocols["report"]:
        raise UserError(f"the weights of {sweep.features} have changed since {sweep.name} began; run its command again")
    try:
        return scorer(OnnxGenerator(path), "report", n, spec.law)
    except NotFiniteError:
        raise UserError(f"{name}: images are not finite in so few bits; use --format onnx") from None
