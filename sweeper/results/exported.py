"""Exported generators of the table's trials: their scores, bytes and latency, and what is worse than in float32."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeper.records import ONNX_FORMATS, SCORES, ExportRecord, FinalRecord, Measurement
from sweeper.results.latency import Conditions, known
from sweeper.store import Store
from trainables.scores.protocol import Score
from trainables.shapes import GeneratorShape

FLOAT32 = ONNX_FORMATS[0]
_BETTER = {"fid": -1, "is": 1}  # the sign of an improvement


@dataclass(frozen=True, kw_only=True)
class Export:
    """A trial's generator as an ONNX file in one format."""

    format: str  # of ONNX_FORMATS
    signature: str
    bytes: int
    ms: float | None  # milliseconds per image; None if it was not measured
    scores: dict[str, Score | None]  # on the report latents
    worse: list[str]  # what is worse, slower or not smaller than in float32


class Exports:
    """The exports of a store's trials, with latencies under some conditions: this host's, else the newest."""

    def __init__(self, store: Store, conditions: Conditions) -> None:
        self.store, self.wanted, self._find = store, conditions, known(store)
        self._shown: list[Measurement] = []

    def of(self, shape: GeneratorShape, finals: Iterable[tuple[str, FinalRecord]]) -> list[Export]:
        """Return the exports of trials of one shape that have the weights and protocol of these final records.

        There are none if all are in float32: their scores are those of the trial.
        """
        found: list[Export] = []
        for signature, final in finals:
            records = [record for record in self.store.exports(signature) if is_of(record, final)]
            measured = [m for record in records if (m := self._find(shape, record.format, self.wanted))]
            self._shown += measured
            milliseconds = {m.format: m.milliseconds for m in measured}
            found += exports_of(signature, records, final, milliseconds)
        return found if any(export.format != FLOAT32 for export in found) else []

    @property
    def latency(self) -> str | None:
        """Return how the latencies were measured, and where. None if there are none."""
        return " and ".join(dict.fromkeys(f"{m.conditions}; {m.machine}" for m in self._shown)) or None


def is_of(record: ExportRecord, final: FinalRecord) -> bool:
    """Return whether an export has the weights of a final record, and was scored by its protocol."""
    scored_alike = record.report["fid"]["protocol"] == final.report["fid"]["protocol"]
    return scored_alike and (record.updates, record.weights) == (final.updates, final.weights)


def exports_of(
    signature: str, records: Iterable[ExportRecord], final: FinalRecord, milliseconds: Mapping[str, float]
) -> list[Export]:
    """Return the exports of a trial, each compared with float32. milliseconds: by format, as far as known."""
    by_format = {record.format: record for record in records}
    base, base_ms = by_format.get(FLOAT32), milliseconds.get(FLOAT32)
    found = []
    for name, record in by_format.items():
        ms, worse = milliseconds.get(name), _worse(record.report, final.report)
        if ms and base_ms and ms > base_ms:
            worse.append(f"{ms:.3g} ms against {base_ms:.3g}: slower")
        if base and base is not record and record.bytes >= base.bytes:
            worse.append(f"{record.bytes:,} bytes against {base.bytes:,}: not smaller")
        scores = {score: record.report.get(score) for score in SCORES}
        found.append(Export(format=name, signature=signature, bytes=record.bytes, ms=ms, scores=scores, worse=worse))
    return found


def _worse(ours: Mapping[str, Score], theirs: Mapping[str, Score]) -> list[str]:
    """Return the scores that are worse than in float32: `FID 26.13 against 25.30: worse`."""
    both = [(name, ours[name]["mean"], theirs[name]["mean"]) for name in _BETTER if name in ours and name in theirs]
    return [f"{name.upper()} {a:.2f} against {b:.2f}: worse" for name, a, b in both if _BETTER[name] * (a - b) < 0]
