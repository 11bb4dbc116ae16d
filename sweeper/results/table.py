"""The compression table as data: per shape the student's and the control's scores, and the ratio to the teacher."""

from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from sweeper.records import SCORES, AddedTeacher, FinalRecord, Manifest, TeacherScores
from sweeper.results.difference import Difference, welch
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

    signature: str  # of the first seed; of an added teacher its id
    family: str  # of an added teacher: onnx, torch or pairs
    d: int | None  # None, as the counts below, for an added teacher: it has none, or it is not known
    parameters: int | None
    macs: int | None
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
    name: str | None = None  # of an added teacher

    @property
    def label(self) -> str:
        return self.name or label(self.family, self.d or 0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """The student and the control of one shape."""

    family: str
    d: int
    parameters: int
    macs: int
    ratio: float | None  # the teacher's parameters over this shape's; None if they are not known
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
    ratio: float | None
    tolerance: float
    metric: str

    @property
    def label(self) -> str:
        return label(self.family, self.d)

    @property
    def text(self) -> str:
        """Return the size, and the ratio if it is known: `d=4, 5.1:1`."""
        return self.label if self.ratio is None else f"{self.label}, {self.ratio:.1f}:1"


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
    reference: int | None = None  # images of the teacher's own that stand for real ones; None: real images
    pairs: int | None = None  # of which the teacher consists, if it does
    no_controls: str | None = None  # why there are none
    control_settings: str | None = None  # with which `sweeper run teachers` trains them

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
    controls: Sweep | None,
    distilled: Sweep | None,
    *,
    finished: bool,
    conditions: Conditions = DEFAULT,
) -> Table:
    """Join a teacher sweep, which holds the controls, with a student sweep; one of them may be None.

    finished: whether both are. conditions: of the latencies that are shown, as far as the store has them.
    """
    manifest = (controls or distilled).manifest  # type: ignore[union-attr] # one of them is there
    metric, exports = manifest.metric, Exports(store, conditions)
    pinned = distilled.manifest.teacher if distilled else None
    added = store.teachers.find(pinned.by) if pinned and pinned.sweep is None else None
    teacher = _teacher(store, controls, distilled, exports)
    shapes = set(distilled.strata) if distilled else set()
    if controls:
        shapes |= {shape for shape in controls.strata if teacher is None or shape.label != teacher.label}
    rows = [_row(shape, controls, distilled, teacher, exports) for shape in sorted(shapes)]
    own = added.own if added else 0
    no_controls = None if controls else "no real images" if own else "none trained"
    settings = _settings(store, distilled.manifest) if distilled and no_controls and not own else None
    return Table(
        dataset=manifest.dataset,
        metric=metric,
        real=manifest.real,
        teacher=teacher,
        rows=rows,
        limit=limit_of(rows, teacher, metric, TOLERANCE),
        finished=finished,
        latency=exports.latency,
        reference=own or None,
        pairs=(added.pairs if added else 0) or None,
        no_controls=no_controls,
        control_settings=settings,
    )


def _settings(store: Store, students: Manifest) -> str:
    """Return what the trials of a control sweep have in common with the students."""
    assert students.teacher is not None
    law = store.taught_by(students.teacher).law
    settings = [f"image_size={students.image_size}", f"n_report={students.n['report']}", f"latent_size={law.size}"]
    settings += [f"latent_law={law.name}"] + ([f"latent_bound={law.bound:g}"] if law.bound is not None else [])
    return " ".join([f"--features {students.features}", *(f"--set {setting}" for setting in settings)])


def _row(
    shape: GeneratorShape, controls: Sweep | None, distilled: Sweep | None, teacher: Entry | None, exports: Exports
) -> Row:
    student = _entry_of(distilled, shape, exports) if distilled else None
    control = _entry_of(controls, shape, exports) if controls else None
    comparable(fid for entry in (student, control, teacher) if entry and (fid := entry.scores["fid"]))
    return Row(
        family=shape.family,
        d=shape.d,
        parameters=shape.parameters,
        macs=shape.macs,
        ratio=teacher.parameters / shape.parameters if teacher and teacher.parameters else None,
        student=student,
        control=control,
        differences={name: _difference(student, control, name) for name in SCORES},
    )


def _difference(student: Entry | None, control: Entry | None, name: str) -> Difference | None:
    if student is None or control is None or student.fresh != control.fresh:
        return None
    ours, theirs = student.scores[name], control.scores[name]
    return welch(ours, student.seeds, theirs, control.seeds) if ours and theirs else None


def _teacher(store: Store, controls: Sweep | None, distilled: Sweep | None, exports: Exports) -> Entry | None:
    """Return the teacher that the student sweep pins; without students the best trial by selection scores."""
    if distilled is not None and distilled.manifest.teacher is not None:
        students, pinned = distilled.manifest, distilled.manifest.teacher
        known, report = store.taught_by(pinned), students.protocols["report"]
        if isinstance(known, AddedTeacher) and (scores := known.scores_by(report)):
            return _added(known, scores)
        scored = []
        if isinstance(known, TrialSpec):
            finals = store.require(pinned.signature).finals
            own = [f for f in finals if f.updates == pinned.updates and f.weights == pinned.weights]
            scored = [f for f in own if f.report["fid"]["protocol"] == report]
        if not scored or isinstance(known, AddedTeacher):
            raise NotYetError(
                f"the teacher {pinned.name} has no scores by its students' protocol; run `{students.command}`"
            )
        of_it = exports.of(known.generator, [(pinned.signature, scored[0])])
        return replace(_entry(known, scored), exports=of_it)
    if controls is None:
        return None
    ranked = [trials for shape in controls.finishers() if (trials := controls.best(shape))]
    if not ranked:
        return None
    best = min(max(ranked, key=controls.quality), key=lambda trial: (-controls.quality([trial]), trial))
    spec, finals = _of(controls, [best])  # one network, as the pinned one
    return replace(_entry(spec, finals), exports=exports.of(spec.generator, [(best, finals[0])]))


def _added(teacher: AddedTeacher, scores: TeacherScores) -> Entry:
    return Entry(
        signature=teacher.id,
        family=teacher.kind,
        d=None,
        parameters=teacher.parameters,
        macs=teacher.macs,
        updates=0,
        loss="added",
        alpha=None,
        d_discriminator=None,
        discriminator_parameters=None,
        seeds=1,
        fresh=False,
        diverged=0,
        conditions={},
        scores={name: scores.report.get(name) for name in SCORES},
        name=teacher.name,
    )


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
    """Return the student with the fewest parameters, less than the teacher's if they are known, that is near enough."""
    target = teacher.scores[metric] if teacher else None
    if teacher is None or target is None:
        return None
    for row in sorted(rows, key=lambda row: row.parameters):
        score = row.student.scores[metric] if row.student else None
        if not row.fits or score is None or (teacher.parameters is not None and row.parameters >= teacher.parameters):
            continue
        if metric == "is":
            within = score["mean"] >= target["mean"] * (1 - tolerance)
        else:
            within = score["mean"] <= target["mean"] * (1 + tolerance)
        if within:
            return Limit(family=row.family, d=row.d, ratio=row.ratio, tolerance=tolerance, metric=metric)
    return None
