"""Select a teacher by selection scores, and the controls of a student sweep."""

import dataclasses

from sweeper.records import Manifest, Teacher
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from trainables.errors import MissingPluginError, NotYetError, UserError


def control_sweep(store: Store, students: Manifest) -> Manifest | None:
    """Return the teacher sweep whose trials are the controls of a student sweep: that of its teacher.

    If the teacher was added, or its images are larger than its students', return a sweep with the students' latents
    that is scored by their protocol: one of equal budget if there is one, ties by name. None without such a sweep.
    """
    assert students.teacher is not None
    own = store.require_sweep(students.teacher.sweep) if students.teacher.sweep else None
    if own is not None and own.image_size == students.image_size:
        return own
    report, law = students.protocols["report"], store.taught_by(students.teacher).law
    scored = [m for m in store.sweeps() if m.role == "teacher" and m.protocols["report"] == report]
    alike = [m for m in scored if store.require(m.signatures[0]).spec.law == law]
    return min(alike, key=lambda m: (m.updates != students.updates, m.name), default=None)


def controls_of(store: Store, teachers: Manifest, students: Manifest | None) -> Sweep:
    """Return the teacher sweep cut at the students' budget, if it has finishers there; else the whole sweep.

    Controls and students then have equal updates.
    """
    if students is None or students.updates == teachers.updates:
        return Sweep.read(teachers, store)
    rungs = [rung for rung in teachers.rungs if rung < students.updates]
    manifest = dataclasses.replace(teachers, updates=students.updates, rungs=[*rungs, students.updates])
    at_budget = Sweep.read(manifest, store)
    return at_budget if at_budget.finishers() else Sweep.read(teachers, store)


def resolve_teacher(store: Store, by: str, dataset: str | None) -> tuple[Teacher, Manifest]:
    """Return the teacher that `best`, `d=N` or the start of a signature selects, and its sweep.

    Raises NotYetError without a finished teacher sweep, UserError if no teacher matches or their scores cannot be
    compared.
    """
    sweeps = [m for m in store.sweeps() if m.role == "teacher" and dataset in (None, m.dataset)]
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no teacher sweep{f' of {dataset}' if dataset else ''}; "
            f"run `sweeper run teachers --dataset {dataset or 'mnist5k'}` first{_or_added(store)}"
        )
    datasets = sorted({m.dataset for m in sweeps})
    if len(datasets) > 1 and _is_by_score(by):
        raise UserError(f"--teacher {by}: there are teachers of {', '.join(datasets)}; add --dataset {datasets[0]}")
    readable, missing_plugin = [], None
    for manifest in sweeps:
        try:
            readable.append(Sweep.read(manifest, store))
        except MissingPluginError as error:  # other sweeps may not need that plug-in
            missing_plugin = error
    finished = [sweep for sweep in readable if sweep.finished()]
    if not finished and missing_plugin:
        raise missing_plugin
    if not finished:
        raise NotYetError(f"teacher sweep {sweeps[0].name} is not finished; run `{sweeps[0].command}` first")
    ds = sorted({shape.d for sweep in finished for shape in sweep.finishers()})
    if not ds:
        raise NotYetError(
            f"all teachers of {finished[0].manifest.name} diverged; run its command again with a smaller lr"
        )
    candidates = [(sweep, trial) for sweep in finished for trial in _candidates(sweep, by)]
    if not candidates:
        raise UserError(
            f"--teacher {by}: no finished teacher matches; use best, d=N (N in {ds}), a signature or "
            f"the name of an added teacher"
        )
    if _is_by_score(by) and len({sweep.manifest.protocols["selection"] for sweep, _ in candidates}) > 1:
        raise UserError(f"--teacher {by}: the teacher sweeps were scored by different protocols; name a signature")
    sweep, trial = min(candidates, key=lambda c: (-c[0].quality([c[1]]), c[1]))
    final = sweep.final(trial)
    assert final is not None
    return Teacher(trial, final.updates, final.weights, sweep.manifest.name, by), sweep.manifest


def _or_added(store: Store) -> str:
    """Name the teachers that were added, for messages."""
    names = " or ".join(f"--teacher {teacher.name}" for teacher in store.teachers.all())
    return f", or name an added teacher with {names}" if names else ""


def _is_by_score(by: str) -> bool:
    """Return whether `by` compares teachers by their scores."""
    return by == "best" or by.startswith("d=")


def _candidates(sweep: Sweep, by: str) -> list[str]:
    """Return the trials of the sweep that `by` selects."""
    finishers = sweep.finishers()
    if by == "best":
        ranked = [
            (-sweep.quality(trials), name, trials) for members in finishers.values() for name, trials in members.items()
        ]
        return min(ranked)[2] if ranked else []
    if by.startswith("d="):
        best_of_d = [trials for shape in finishers if f"d={shape.d}" == by and (trials := sweep.best(shape))]
        return max(best_of_d, key=sweep.quality, default=[])
    signatures = [trial for members in finishers.values() for trials in members.values() for trial in trials]
    return [signature for signature in signatures if len(by) > 3 and signature.startswith(by)]
