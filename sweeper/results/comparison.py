"""What a table, a page and a notebook are about: a teacher sweep, and the students of its teacher. From the store."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from sweeper.results.table import Table, build
from sweeper.scheduling.selection import best, controls_of
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Manifest, RungRecord, Store
from trainables.errors import NotYetError, UserError
from trainables.objectives import DISTILLATION, LOSSES
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec


@dataclass(frozen=True)
class Comparison:
    """A compression table, and the two sweeps that it joins."""

    store: Store
    controls: Sweep  # the teacher sweep: its best is the teacher, the best of each d a control
    distilled: Sweep | None  # the student sweep, if there is one
    table: Table

    @classmethod
    def read(cls, store: Store, dataset: str | None, name: str | None) -> "Comparison":
        """Raises NotYetError where there is nothing, UserError where there are several."""
        return cls.of(store, *find(store, dataset, name))

    @classmethod
    def of(cls, store: Store, teachers: Manifest, students: Manifest | None) -> "Comparison":
        """Read each record once."""
        controls = controls_of(store, teachers, students)
        distilled = Sweep.read(students, store) if students else None
        return cls(store, controls, distilled, build(store, controls, distilled))

    @property
    def manifest(self) -> Manifest:
        """The sweep that the comparison is named after: the students', else the teachers'."""
        return (self.distilled or self.controls).manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def shapes(self) -> list[GeneratorShape]:
        """Return the shapes of the table's rows."""
        shapes = {shape for sweep in self.sweeps for shape in sweep.strata}
        return sorted(shape for shape in shapes if self.table.row(shape.label))

    @property
    def sweeps(self) -> list[Sweep]:
        return [self.distilled, self.controls] if self.distilled else [self.controls]


def find(store: Store, dataset: str | None, name: str | None) -> tuple[Manifest, Manifest | None]:
    """Return the (teacher sweep, student sweep or None) that a table joins. Raises NotYetError, UserError."""
    sweeps = [m for m in store.sweeps() if dataset in (None, m.dataset) and name in (None, m.name)]
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no such sweep; run `sweeper run teachers --dataset {dataset or 'mnist5k'}` first"
        )
    students = [m for m in sweeps if m.role == "student"]
    if len(students) > 1 or (not students and len(sweeps) > 1):
        names = ", ".join(m.name for m in students or sweeps)
        raise UserError(f"there are several sweeps: {names}; name one with --name, or a data set with --dataset")
    if not students:
        return sweeps[0], None
    assert students[0].teacher is not None
    teachers = store.sweep(students[0].teacher.sweep)
    assert teachers is not None
    return teachers, students[0]


@dataclass(frozen=True)
class LearningCurve:
    """One configuration's way through the rungs."""

    shape: GeneratorShape
    label: str
    alpha: float | None  # 0 for mse, None where there is none
    loss: str
    state: State
    trials: list[str]  # one per seed
    points: list[tuple[int, dict[str, float]]]  # (updates, scores by the rung latents, means over the seeds)


def learning_curves(sweep: Sweep) -> list[LearningCurve]:
    """Every configuration of a sweep, with what it was scored at the rungs that all its seeds reached."""
    found, states = [], sweep.states()
    for shape, stratum in sweep.strata.items():
        for trials in stratum.configurations.values():
            spec = sweep.records[trials[0]].spec
            found.append(
                LearningCurve(
                    shape=shape,
                    label=spec.label(),
                    alpha=spec.position_on_alpha,
                    loss=spec.loss,
                    state=_state([states[trial] for trial in trials]),
                    trials=list(trials),
                    points=list(_points(sweep, list(trials))),
                )
            )
    return found


def _state(of_seeds: list[State]) -> State:
    """Seeds share one fate, but it is one of them that diverged."""
    return State.DIVERGED if State.DIVERGED in of_seeds else of_seeds[0]


def _points(sweep: Sweep, trials: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    for updates in sweep.manifest.rungs:
        records = [r for trial in trials if (r := rung_of(sweep, trial, updates)) and not r.diverged]
        if len(records) == len(trials):
            names = records[0].scores
            yield updates, {name: fmean(r.scores[name]["mean"] for r in records) for name in names}


def rung_of(sweep: Sweep, trial: str, updates: int) -> RungRecord | None:
    """By the sweep's own protocol."""
    return sweep.records[trial].rung(updates, sweep.manifest.protocols["rung"])


@dataclass(frozen=True)
class Alphas:
    """Score over alpha at one shape: alpha = 0 is the mse student."""

    shape: GeneratorShape
    updates: int  # the highest rung that every alpha reached
    points: list[tuple[float, dict[str, float]]]  # the best configuration of each alpha there, by FID
    missing: list[float]  # alphas of which nothing has a score: all diverged, or not begun


def over_alpha(sweep: Sweep) -> list[Alphas]:
    """Per d with at least two values of alpha. Pruned ones stopped early, so all are compared where all have been."""
    found, every = [], learning_curves(sweep)
    for shape in sweep.strata:
        of_alpha: dict[float, list[LearningCurve]] = {}
        for curve in every:
            if curve.shape == shape and curve.alpha is not None:
                of_alpha.setdefault(curve.alpha, []).append(curve)
        reached = {a: {u for curve in of_a for u, _ in curve.points} for a, of_a in of_alpha.items()}
        scored = {a: updates for a, updates in reached.items() if updates}
        common = set.intersection(*scored.values()) if scored else set()
        if len(scored) < 2 or not common:
            continue
        rung = max(common)
        points = [
            (alpha, min((dict(c.points)[rung] for c in of_alpha[alpha] if rung in dict(c.points)), key=_fid))
            for alpha in sorted(scored)
        ]
        found.append(Alphas(shape, rung, points, sorted(set(of_alpha) - set(scored))))
    return found


def _fid(scores: dict[str, float]) -> float:
    return scores["fid"]


@dataclass(frozen=True)
class Sample:
    """A trial whose pictures are shown, and at how many updates."""

    kind: str  # teacher, mse student, joint student, control …
    shape: GeneratorShape
    signature: str
    updates: int
    finished: bool  # at its sweep's budget; else pruned, paused or on its way
    chosen: bool  # whether the table's scores are this one's


def samples(comparison: Comparison) -> list[Sample]:
    """The teacher; then per d the best student of each loss and the control. A loss none of whose configurations
    finished is shown at the furthest rung that its best one reached."""
    samples = []
    store, teacher, controls = comparison.store, comparison.table.teacher, comparison.controls
    students = learning_curves(comparison.distilled) if comparison.distilled else []
    if teacher:
        shape = store.require(teacher.signature).spec.generator
        samples.append(Sample("teacher", shape, teacher.signature, teacher.updates, True, True))
    for shape in comparison.shapes():
        if comparison.distilled and shape in comparison.distilled.strata:
            samples += _best_of_each_loss(comparison.distilled, shape, students)
        trials = best(controls, shape) if shape in controls.strata else None
        if trials and not (teacher and teacher.signature in trials):
            samples.append(Sample("control", shape, trials[0], controls.manifest.updates, True, True))
    return samples


def _best_of_each_loss(sweep: Sweep, shape: GeneratorShape, students: list[LearningCurve]) -> Iterator[Sample]:
    chosen = best(sweep, shape)
    of_loss: dict[str, list[LearningCurve]] = {}
    for curve in students:
        if curve.shape == shape and curve.points:
            of_loss.setdefault(curve.loss, []).append(curve)
    for loss in sorted(of_loss, key=lambda name: (LOSSES[name] is not DISTILLATION, name)):
        curve = min(
            of_loss[loss], key=lambda c: (c.trials != chosen, -c.points[-1][0], c.points[-1][1]["fid"], c.trials)
        )
        updates = curve.points[-1][0]
        kind = f"{loss} student"
        yield Sample(kind, shape, curve.trials[0], updates, updates == sweep.manifest.updates, curve.trials == chosen)


@dataclass(frozen=True)
class ChosenCurve:
    """A chosen trial's scores and losses at its rungs."""

    kind: str  # teacher, student, control
    shape: GeneratorShape
    label: str
    rungs: list[RungRecord]


def chosen_curves(comparison: Comparison) -> list[ChosenCurve]:
    """Of the teacher, and of each row's student and control (the first seed's), at the rungs of their sweep.

    Where the sweeps' rungs are scored by different protocols, of the students alone.
    """
    found = []
    rungs = {sweep.manifest.protocols["rung"] for sweep in comparison.sweeps}
    teacher = comparison.table.teacher if len(rungs) == 1 else None
    if teacher:
        record = comparison.store.require(teacher.signature)
        found.append(_chosen_curve("teacher", record.spec, comparison.controls, record.rungs))
    for row in comparison.table.rows:
        for kind, entry, sweep in (
            ("student", row.student, comparison.distilled),
            ("control", row.control, comparison.controls),
        ):
            if entry and sweep and (len(rungs) == 1 or sweep is comparison.distilled):
                record = sweep.records[entry.signature]
                found.append(_chosen_curve(kind, record.spec, sweep, record.rungs))
    return found


def _chosen_curve(kind: str, spec: TrialSpec, sweep: Sweep, rungs: list[RungRecord]) -> ChosenCurve:
    manifest = sweep.manifest
    of_sweep = [r for r in rungs if r.updates in manifest.rungs and not r.diverged]
    known = [r for r in of_sweep if r.scores["fid"]["protocol"] == manifest.protocols["rung"]]
    return ChosenCurve(kind, spec.generator, spec.label(), known)
