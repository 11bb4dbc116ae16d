"""The compression table as data: per shape the student's and the control's scores, and the ratio to the teacher."""

import math
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from sweeper.records import SCORES, FinalRecord, Manifest
from sweeper.results.exported import Export, Exports
from sweeper.results.latency import DEFAULT, Conditions
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from trainables.errors import NotYetError
from trainables.scores.protocol import Score, comparable
from trainables.shapes import GeneratorShape, label
from trainables.spec import TrialSpec

TOLERANCE = 0.10  # of the teacher's score; the limit of compression is the smallest student within it


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One configuration: the teacher, or a row's student or control."""

    signature: str  # of the first seed
    family: str
    d: int
    parameters: int
    macs: int
    updates: int
    loss: str  # the game of a regularly trained GAN
    alpha: float | None
    d_discriminator: int | None
    discriminator_parameters: int | None
    seeds: int  # trainings behind the scores
    fresh: bool  # whether their seeds took no part in the selection
    diverged: int  # fresh seeds that diverged
    conditions: dict[str, int | float | str]  # what should be equal in a row; empty for the teacher
    scores: dict[str, Score | None]  # on the report latents; of several seeds their mean and standard deviation
    exports: list[Export] = field(default_factory=list)  # of its trials, in fewer bits

    @property
    def label(self) -> str:
        return label(self.family, self.d)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The student's mean score minus the control's, with Welch's 95% confidence interval over seeds."""

    mean: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        """Return whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """The student and the control of one shape."""

    family: str
    d: int
    parameters: int
    macs: int
    ratio: float | None  # the teacher's parameters over this shape's
    student: Entry | None
    control: Entry | None
    differences: dict[str, Difference | None]  # by score; None unless both sides have two seeds or more, fresh or not
    fits: bool = True  # in the budget; else only its exports do
    ms: float | None = None  # milliseconds per image, if the budget bounds them

    @property
    def label(self) -> str:
        return label(self.family, self.d)

    @property
    def exports(self) -> list[Export]:
        """Return the exports of both sides."""
        return [export for entry in (self.student, self.control) if entry for export in entry.exports]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The smallest student whose score is within the tolerance of the teacher's."""

    family: str
    d: int
    ratio: float
    tolerance: float
    metric: str

    @property
    def label(self) -> str:
        return label(self.family, self.d)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A compression table."""

    dataset: str
    metric: str  # "is" or "fid": the score that selects the best
    real: dict[str, float | None]  # scores of the real images
    teacher: Entry | None
    rows: list[Row]  # ascending by family and d; the teacher's shape only if it has a student
    limit: Limit | None
    finished: bool  # whether both sweeps are; else scores may still change
    latency: str | None = None  # how latencies were measured, and where

    def as_json(self) -> dict[str, Any]:
        """Return what `sweeper table --format json` prints."""
        return {"schema": 1, **asdict(self)}

    def beyond(self, score: str) -> tuple[int, int]:
        """Return (rows whose student is better beyond the interval, rows with an interval) by a score: is or fid."""
        found = [difference for row in self.rows if (difference := row.differences[score])]
        return sum(d.beyond and (d.mean > 0) == (score == "is") for d in found), len(found)

    def row(self, shape_label: str) -> Row | None:
        """Return the row of a shape, by its label, or None."""
        return next((row for row in self.rows if row.label == shape_label), None)


def build(
    store: Store,
    controls: Sweep,
    distilled: Sweep | None,
    *,
    finished: bool,
    conditions: Conditions = DEFAULT,
) -> Table:
    """Join a teacher sweep, which holds the controls, with a student sweep.

    finished: whether both are. conditions: of the latencies that are shown, as far as the store has them.
    """
    metric, exports = controls.manifest.metric, Exports(store, conditions)
    teacher = _teacher(store, controls, distilled.manifest if distilled else None, exports)
    shapes = {shape for shape in controls.strata if teacher is None or shape.label != teacher.label}
    shapes |= set(distilled.strata) if distilled else set()
    rows = [_row(shape, controls, distilled, teacher, exports) for shape in sorted(shapes)]
    return Table(
        dataset=controls.manifest.dataset,
        metric=metric,
        real=controls.manifest.real,
        teacher=teacher,
        rows=rows,
        limit=limit_of(rows, teacher, metric, TOLERANCE),
        finished=finished,
        latency=exports.latency,
    )


def _row(
    shape: GeneratorShape, controls: Sweep, distilled: Sweep | None, teacher: Entry | None, exports: Exports
) -> Row:
    student = _entry_of(distilled, shape, exports) if distilled else None
    control = _entry_of(controls, shape, exports)
    comparable(fid for entry in (student, control, teacher) if entry and (fid := entry.scores["fid"]))
    return Row(
        family=shape.family,
        d=shape.d,
        parameters=shape.parameters,
        macs=shape.macs,
        ratio=teacher.parameters / shape.parameters if teacher else None,
        student=student,
        control=control,
        differences={name: _difference(student, control, name) for name in SCORES},
    )


def _difference(student: Entry | None, control: Entry | None, name: str) -> Difference | None:
    if student is None or control is None or student.fresh != control.fresh:
        return None
    ours, theirs = student.scores[name], control.scores[name]
    return welch(ours, student.seeds, theirs, control.seeds) if ours and theirs else None


def welch(ours: Score, our_seeds: int, theirs: Score, their_seeds: int) -> Difference | None:
    """Return the difference of two means over seeds, with Welch's interval. None with fewer than two seeds a side."""
    from scipy.stats import t  # here, because it takes longer to import than a small table to build

    if min(our_seeds, their_seeds) < 2 or ours["std"] is None or theirs["std"] is None:
        return None
    sides = ((ours["std"] ** 2 / our_seeds, our_seeds), (theirs["std"] ** 2 / their_seeds, their_seeds))
    squared = sum(error for error, _ in sides)  # the variance of the difference
    freedom = sum(error**2 / (seeds - 1) for error, seeds in sides)
    degrees = squared**2 / freedom if squared else math.inf
    mean, margin = ours["mean"] - theirs["mean"], float(t.ppf(0.975, degrees)) * math.sqrt(squared)
    return Difference(mean=mean, low=mean - margin, high=mean + margin)


def _teacher(store: Store, controls: Sweep, students: Manifest | None, exports: Exports) -> Entry | None:
    """Return the teacher that the student sweep pins; without students the best trial by selection scores."""
    if students is not None and students.teacher is not None:
        pinned = students.teacher
        record = store.require(pinned.signature)
        finals = [f for f in record.finals if f.updates == pinned.updates and f.weights == pinned.weights]
        scored = [f for f in finals if f.report["fid"]["protocol"] == students.protocols["report"]]
        if not scored:
            raise NotYetError(
                f"the teacher {pinned.name} has no scores by its students' protocol; run `{students.command}`"
            )
        of_it = exports.of(record.spec.generator, [(pinned.signature, scored[0])])
        return replace(_entry(record.spec, scored), exports=of_it)
    ranked = [trials for shape in controls.finishers() if (trials := controls.best(shape))]
    if not ranked:
        return None
    trials = max(ranked, key=controls.quality)
    spec, finals = _of(controls, trials)
    return replace(_entry(spec, finals), exports=exports.of(spec.generator, zip(trials, finals, strict=True)))


def _entry_of(sweep: Sweep, shape: GeneratorShape, exports: Exports) -> Entry | None:
    """Return the best configuration of a shape, with the scores of its fresh seeds if there are any."""
    trials, fresh = sweep.best(shape), sweep.confirmed(shape)
    if trials is None:
        return None
    spec, finals = _of(sweep, fresh or trials)
    states = sweep.states()
    again = sweep.confirmations[shape].configurations if shape in sweep.confirmations else ()
    of_it = [(t, final) for t in [*trials, *fresh] if (final := sweep.final(t))]
    entry = _entry(
        sweep.records[trials[0]].spec,
        finals,
        {**_conditions(sweep, spec, finals), "fresh seeds": "yes" if fresh else "no"},
        fresh=bool(fresh),
        diverged=sum(states[trial] == State.DIVERGED for trial in again),
    )
    return replace(entry, exports=exports.of(shape, of_it))


def _of(sweep: Sweep, trials: list[str]) -> tuple[TrialSpec, list[FinalRecord]]:
    return sweep.records[trials[0]].spec, [final for trial in trials if (final := sweep.final(trial))]


def _conditions(sweep: Sweep, spec: TrialSpec, finals: list[FinalRecord]) -> dict[str, int | float | str]:
    return {
        "updates": finals[0].updates,
        "configurations": len(sweep.strata[spec.generator].configurations),
        "seeds": len(finals),
        "rungs": ", ".join(map(str, sweep.manifest.rungs[:-1])) or "none",
        "eta": sweep.manifest.eta,
        "batch_size": spec.batch_size,
        "ema": spec.ema,
        "precision": spec.precision,
    }


def _entry(
    spec: TrialSpec,
    finals: list[FinalRecord],
    conditions: dict[str, int | float | str] | None = None,
    *,
    fresh: bool = False,
    diverged: int = 0,
) -> Entry:
    reports = [final.report for final in finals]
    discriminator = spec.discriminator
    return Entry(
        signature=spec.signature,
        family=spec.family,
        d=spec.d,
        parameters=spec.generator.parameters,
        macs=spec.generator.macs,
        updates=finals[0].updates,
        loss=spec.kind,
        alpha=spec.alpha,
        d_discriminator=spec.d_discriminator,
        discriminator_parameters=discriminator.parameters if discriminator else None,
        seeds=len(finals),
        fresh=fresh,
        diverged=diverged,
        conditions=conditions or {},
        scores={name: _over_seeds([r[name] for r in reports]) if name in reports[0] else None for name in SCORES},
    )


def _over_seeds(scores: list[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    means = [score["mean"] for score in comparable(scores)]
    return Score(mean=fmean(means), std=stdev(means), n=scores[0]["n"], protocol=scores[0]["protocol"])


def limit_of(rows: list[Row], teacher: Entry | None, metric: str, tolerance: float) -> Limit | None:
    """Return the student with the fewest parameters, less than the teacher's, whose score is near enough to its."""
    target = teacher.scores[metric] if teacher else None
    if teacher is None or target is None:
        return None
    for row in sorted(rows, key=lambda row: row.parameters):
        score = row.student.scores[metric] if row.student else None
        if not row.fits or score is None or row.ratio is None or row.parameters >= teacher.parameters:
            continue
        if metric == "is":
            within = score["mean"] >= target["mean"] * (1 - tolerance)
        else:
            within = score["mean"] <= target["mean"] * (1 + tolerance)
        if within:
            return Limit(family=row.family, d=row.d, ratio=row.ratio, tolerance=tolerance, metric=metric)
    return None
