"""Join a teacher sweep with a student sweep of its teacher: the data of table, page and notebook."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from sweeper.added import SAMPLE_SHEET
from sweeper.records import Manifest, RungRecord
from sweeper.results.latency import Conditions
from sweeper.results.table import Table, build
from sweeper.scheduling.selection import control_sweep, controls_of
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from trainables.errors import NotYetError, UserError
from trainables.objectives import DISTILLATION, LOSSES
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec


@dataclass(frozen=True)
class Comparison:
    """A compression table, and the sweeps that it joins."""

    store: Store
    controls: Sweep | None  # a teacher sweep; the best of each d are the controls. None: the students have none
    distilled: Sweep | None  # the student sweep, if there is one
    table: Table

    @classmethod
    def read(cls, store: Store, dataset: str | None, name: str | None) -> "Comparison":
        """Read the comparison of a data set or sweep. Raises NotYetError for none, UserError for several."""
        return cls.of(store, *find(store, dataset, name))

    @classmethod
    def of(cls, store: Store, teachers: Manifest | None, students: Manifest | None) -> "Comparison":
        """Read the comparison of these sweeps. One of them may be None."""
        distilled = Sweep.read(students, store) if students else None
        finished, controls = distilled is None or distilled.finished(), None
        if teachers is not None:
            controls = controls_of(store, teachers, students)
            whole = controls if controls.manifest == teachers else Sweep.read(teachers, store)
            finished = finished and whole.finished()
        return cls(store, controls, distilled, build(store, controls, distilled, finished=finished))

    def with_latencies(self, conditions: Conditions) -> "Comparison":
        """Return the comparison with the latencies under these conditions, as far as the store has them."""
        table = build(self.store, self.controls, self.distilled, finished=self.table.finished, conditions=conditions)
        return replace(self, table=table)

    @property
    def manifest(self) -> Manifest:
        """Return the student sweep's manifest if there is one, else the teacher sweep's. It names the comparison."""
        return self.sweeps[0].manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def shapes(self) -> list[GeneratorShape]:
        """Return the shapes of the table's rows."""
        shapes = {shape for sweep in self.sweeps for shape in sweep.strata}
        return sorted(shape for shape in shapes if self.table.row(shape.label))

    @property
    def sweeps(self) -> list[Sweep]:
        """Return the student sweep and the teacher sweep, where there is one."""
        return [sweep for sweep in (self.distilled, self.controls) if sweep is not None]

    @property
    def commands(self) -> list[str]:
        """Return the commands that made the sweeps, in their order."""
        name = self.table.teacher.name if self.table.teacher else None
        added = self.store.teachers.find(name) if name else None
        return [*([added.command] if added else []), *(sweep.manifest.command for sweep in reversed(self.sweeps))]


Joined = tuple[Manifest | None, Manifest | None]  # teacher sweep, student sweep; one of them may be None


def find(store: Store, dataset: str | None, name: str | None) -> Joined:
    """Return the sweeps that a table joins. Raises NotYetError, UserError."""
    sweeps = [m for m in store.sweeps() if dataset in (None, m.dataset) and name in (None, m.name)]
    added = store.teachers.all()
    if not sweeps and added:
        raise NotYetError(
            f"{store.root} holds no such sweep; run `sweeper run students --teacher {added[0].name}` first"
        )
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no such sweep; run `sweeper run teachers --dataset {dataset or 'mnist5k'}` first"
        )
    students = [m for m in sweeps if m.role == "student"]
    if len(students) > 1 or (not students and len(sweeps) > 1):
        names = ", ".join(m.name for m in students or sweeps)
        raise UserError(f"there are several sweeps: {names}; name one with --name, or a data set with --dataset")
    return joined(store, (students or sweeps)[0])


def joined(store: Store, sweep: Manifest) -> Joined:
    """Return the sweeps that the comparison of a sweep joins."""
    return (sweep, None) if sweep.teacher is None else (control_sweep(store, sweep), sweep)


@dataclass(frozen=True)
class LearningCurve:
    """The scores of one configuration at the rungs."""

    shape: GeneratorShape
    label: str
    alpha: float | None  # 0 for mse; None for losses without alpha
    loss: str
    state: State
    trials: list[str]  # one per seed
    points: list[tuple[int, dict[str, float]]]  # (updates, scores on the rung latents: means over the seeds)


def learning_curves(sweep: Sweep) -> list[LearningCurve]:
    """Return a curve per configuration, with the rungs that all its seeds reached."""
    curves, states = [], sweep.states()
    for shape, stratum in sweep.strata.items():
        for trials in stratum.configurations.values():
            spec = sweep.records[trials[0]].spec
            curves.append(
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
    return curves


def _state(seeds: list[State]) -> State:
    """Return the state of a configuration from those of its seeds, which differ only where some diverged."""
    return State.DIVERGED if State.DIVERGED in seeds else seeds[0]


def _points(sweep: Sweep, trials: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    for updates in sweep.manifest.rungs:
        records = [r for trial in trials if (r := rung_of(sweep, trial, updates)) and not r.diverged]
        if len(records) == len(trials):
            names = records[0].scores
            yield updates, {name: fmean(r.scores[name]["mean"] for r in records) for name in names}


def rung_of(sweep: Sweep, trial: str, updates: int) -> RungRecord | None:
    """Return the trial's record at a rung, scored by the sweep's protocol, or None."""
    return sweep.records[trial].rung(updates, sweep.manifest.protocols["rung"])


@dataclass(frozen=True)
class AlphaCurve:
    """Scores over alpha of one shape. alpha = 0 is the mse student."""

    shape: GeneratorShape
    updates: int  # the highest rung that every alpha reached
    points: list[tuple[float, dict[str, float]]]  # (alpha, scores of its best configuration by FID)
    missing: list[float]  # alphas without a score: all diverged, or not started


def alpha_curves(sweep: Sweep) -> list[AlphaCurve]:
    """Return a curve per shape with at least two scored alphas, at the highest rung that all of them reached.

    Pruned configurations have no scores at later rungs.
    """
    curves, learning = [], learning_curves(sweep)
    for shape in sweep.strata:
        by_alpha: dict[float, list[LearningCurve]] = {}
        for curve in learning:
            if curve.shape == shape and curve.alpha is not None:
                by_alpha.setdefault(curve.alpha, []).append(curve)
        reached = {a: {u for curve in of_alpha for u, _ in curve.points} for a, of_alpha in by_alpha.items()}
        scored = {a: updates for a, updates in reached.items() if updates}
        common = set.intersection(*scored.values()) if scored else set()
        if len(scored) < 2 or not common:
            continue
        rung = max(common)
        points = [
            (alpha, min((dict(c.points)[rung] for c in by_alpha[alpha] if rung in dict(c.points)), key=_fid))
            for alpha in sorted(scored)
        ]
        curves.append(AlphaCurve(shape, rung, points, sorted(set(by_alpha) - set(scored))))
    return curves


def _fid(scores: dict[str, float]) -> float:
    return scores["fid"]


@dataclass(frozen=True)
class Sample:
    """A trial or an added teacher whose samples are shown, and the updates at which they were drawn."""

    kind: str  # teacher, mse student, joint student, control …
    name: str  # of its shape, or of an added teacher
    picture: Path
    updates: int
    finished: bool  # at its sweep's budget; else pruned, paused or running
    chosen: bool  # whether the table shows this trial's scores


def samples(comparison: Comparison) -> list[Sample]:
    """Return the teacher, then per shape the best student of each loss and the control.

    If no configuration of a loss finished, its best one is taken at its last rung.
    """
    chosen = []
    store, teacher, controls = comparison.store, comparison.table.teacher, comparison.controls
    students = learning_curves(comparison.distilled) if comparison.distilled else []
    if teacher:
        added = store.teachers.folder(teacher.name) / SAMPLE_SHEET if teacher.name else None
        picture = added or store.samples(teacher.signature, teacher.updates)
        chosen.append(Sample("teacher", teacher.label, picture, teacher.updates, True, True))
    for shape in comparison.shapes():
        if comparison.distilled and shape in comparison.distilled.strata:
            chosen += _best_of_each_loss(store, comparison.distilled, shape, students)
        trials = controls.best(shape) if controls and shape in controls.strata else None
        if controls and trials and not (teacher and teacher.signature in trials):
            updates = controls.manifest.updates
            chosen.append(Sample("control", shape.label, store.samples(trials[0], updates), updates, True, True))
    return chosen


def _best_of_each_loss(
    store: Store, sweep: Sweep, shape: GeneratorShape, students: list[LearningCurve]
) -> Iterator[Sample]:
    chosen = sweep.best(shape)
    by_loss: dict[str, list[LearningCurve]] = {}
    for curve in students:
        if curve.shape == shape and curve.points:
            by_loss.setdefault(curve.loss, []).append(curve)
    for loss in sorted(by_loss, key=lambda name: (LOSSES[name] is not DISTILLATION, name)):
        curve = min(
            by_loss[loss], key=lambda c: (c.trials != chosen, -c.points[-1][0], c.points[-1][1]["fid"], c.trials)
        )
        updates = curve.points[-1][0]
        finished, picture = updates == sweep.manifest.updates, store.samples(curve.trials[0], updates)
        yield Sample(f"{loss} student", shape.label, picture, updates, finished, curve.trials == chosen)


@dataclass(frozen=True)
class ChosenCurve:
    """A chosen trial's scores and losses at its rungs."""

    kind: str  # teacher, student, control
    shape: GeneratorShape
    label: str
    rungs: list[RungRecord]


def chosen_curves(comparison: Comparison) -> list[ChosenCurve]:
    """Return the curves of the teacher, and of each row's student and control (of several seeds the first).

    If the sweeps' rungs are scored by different protocols, return the students' curves only.
    """
    curves = []
    protocols = {sweep.manifest.protocols["rung"] for sweep in comparison.sweeps}
    teacher = comparison.table.teacher if len(protocols) == 1 else None
    if teacher and comparison.controls and (record := comparison.store.trial(teacher.signature)):
        curves.append(_chosen_curve("teacher", record.spec, comparison.controls, record.rungs))
    for row in comparison.table.rows:
        for kind, entry, sweep in (
            ("student", row.student, comparison.distilled),
            ("control", row.control, comparison.controls),
        ):
            if entry and sweep and (len(protocols) == 1 or sweep is comparison.distilled):
                record = sweep.records[entry.signature]
                curves.append(_chosen_curve(kind, record.spec, sweep, record.rungs))
    return curves


def _chosen_curve(kind: str, spec: TrialSpec, sweep: Sweep, rungs: list[RungRecord]) -> ChosenCurve:
    manifest = sweep.manifest
    at_rungs = [r for r in rungs if r.updates in manifest.rungs and not r.diverged]
    scored = [r for r in at_rungs if r.scores["fid"]["protocol"] == manifest.protocols["rung"]]
    return ChosenCurve(kind, spec.generator, spec.label(), scored)
