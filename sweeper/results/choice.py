"""Choose the trial to export: by its signature, by its width, or from the table."""

import math
from dataclasses import dataclass

from sweeper.records import FinalRecord
from sweeper.results.comparison import Comparison, joined
from sweeper.results.table import Row
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from trainables.errors import NotYetError, UserError
from trainables.shapes import DEFAULT_FAMILY
from trainables.spec import TrialSpec


@dataclass(frozen=True)
class ExportTarget:
    """A finished trial, and the comparison that it belongs to."""

    comparison: Comparison
    sweep: Sweep
    spec: TrialSpec
    final: FinalRecord

    @property
    def kind(self) -> str:
        """Return student, or gan for a regularly trained generator."""
        return "student" if self.spec.role == "student" else "gan"

    @property
    def name(self) -> str:
        """Return the name of the generator and of its folder, such as mnist5k-student-d4."""
        family = "" if self.spec.family == DEFAULT_FAMILY else f"{self.spec.family}-"
        return f"{self.comparison.manifest.dataset}-{self.kind}-{family}d{self.spec.d}"


def find(store: Store, trial: str) -> ExportTarget:
    """Return the trial whose signature begins with `trial`.

    Raises UserError unless one trial matches, NotYetError if it has not finished.
    """
    matches = {s: m for m in store.sweeps() for s in m.members if s.startswith(trial)}
    if len(matches) != 1:
        raise UserError(
            f"--trial {trial} matches {len(matches)} trials of {store.root}; list its sweeps with `sweeper status`"
        )
    ((signature, manifest),) = matches.items()
    comparison = Comparison.of(store, *joined(store, manifest))
    return _target(comparison, Sweep.read(manifest, store), signature)


def choose(comparison: Comparison, d: int | None, *, best: bool = False) -> ExportTarget:
    """Return the table's student of width d, by default the limit of compression, or the best one of the table. Of
    several seeds, take the best by selection scores.

    Raises UserError if there is no such student, NotYetError if no student has finished.
    """
    return _target(comparison, *_find_student(comparison, d, best))


def _target(comparison: Comparison, sweep: Sweep, signature: str) -> ExportTarget:
    final = sweep.final(signature)
    if final is None:
        raise NotYetError(f"trial {signature} has not finished, it is {sweep.states()[signature]}; name a finished one")
    return ExportTarget(comparison, sweep, sweep.records[signature].spec, final)


def _next(comparison: Comparison) -> str:
    return comparison.manifest.command if comparison.distilled else "sweeper run students --teacher best"


def _find_student(comparison: Comparison, d: int | None, best: bool) -> tuple[Sweep, str]:
    sweep = comparison.distilled
    if sweep is None or not sweep.finishers():
        raise NotYetError(f"{comparison.name} has no finished student; run `{_next(comparison)}` first")
    rows, limit = [row for row in comparison.table.rows if row.student and row.fits], comparison.table.limit
    labels = ", ".join(row.label for row in rows)
    if not rows:
        raise UserError("no finished student fits the budget; allow more")
    if d is None and best:
        rows = sorted(rows, key=lambda row: _quality(comparison, row), reverse=True)[:1]
    elif d is None:
        if limit is None:
            raise UserError(
                f"no student is within the tolerance of the teacher; add --d {rows[-1].d} (finished: {labels})"
            )
        rows = [row for row in rows if row.label == limit.label]
    else:
        rows = [row for row in rows if row.d == d]
    if not rows:
        raise UserError(f"--d {d}: no student of this width has finished; finished: {labels}")
    if len(rows) > 1:
        choices = " or ".join(f"--trial {row.student.signature} ({row.label})" for row in rows if row.student)
        raise UserError(f"--d {d} matches several students; choose one with {choices}")
    assert rows[0].student is not None
    spec = sweep.records[rows[0].student.signature].spec
    trials = sweep.finishers()[spec.generator][spec.configuration]
    return sweep, max(trials, key=lambda t: (sweep.quality([t]), t))


def _quality(comparison: Comparison, row: Row) -> float:
    """Return a number that is larger for a better student."""
    score = row.student.scores[comparison.table.metric] if row.student else None
    if score is None:
        return -math.inf
    return score["mean"] if comparison.table.metric == "is" else -score["mean"]
