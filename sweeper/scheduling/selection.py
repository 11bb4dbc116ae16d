"""Best teacher, best student per row: from final scores by the selection latents, never from those that pruned."""

import dataclasses
from collections.abc import Iterable
from statistics import fmean

from sweeper.scheduling.sweep import Sweep
from sweeper.store import Manifest, Store, Teacher
from trainables.errors import MissingPluginError, NotYetError, UserError
from trainables.scores.protocol import comparable
from trainables.shapes import GeneratorShape


def quality(sweep: Sweep, trials: Iterable[str], metric: str) -> float:
    """A configuration's selection score, the mean over its seeds, turned so that higher is better."""
    finals = [final for trial in trials if (final := sweep.final(trial))]
    mean = fmean(score["mean"] for score in comparable(final.selection[metric] for final in finals))
    return mean if metric == "is" else -mean


def best(sweep: Sweep, shape: GeneratorShape) -> list[str] | None:
    """The trials (one per seed) of the best finisher of a stratum by the sweep's metric; ties by name."""
    finishers = sweep.finishers().get(shape)
    if not finishers:
        return None
    name = min(finishers, key=lambda n: (-quality(sweep, finishers[n], sweep.manifest.metric), n))
    return finishers[name]


def controls_of(store: Store, teachers: Manifest, students: Manifest | None) -> Sweep:
    """The teacher sweep, as it stood at the students' budget if it was ever there: equal updates on both sides."""
    if students is None or students.updates == teachers.updates:
        return Sweep.read(teachers, store)
    rungs = [rung for rung in teachers.rungs if rung < students.updates]
    then = dataclasses.replace(teachers, updates=students.updates, rungs=[*rungs, students.updates])
    at_budget = Sweep.read(then, store)
    return at_budget if at_budget.finishers() else Sweep.read(teachers, store)


def resolve_teacher(store: Store, by: str, dataset: str | None) -> tuple[Teacher, Manifest]:
    """The teacher that `best`, `d=N` or a signature names, and the sweep that it is from.

    Raises NotYetError without a finished teacher sweep, UserError when the choice is not one teacher.
    """
    sweeps = [m for m in store.sweeps() if m.role == "teacher" and dataset in (None, m.dataset)]
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no teacher sweep{f' of {dataset}' if dataset else ''}; "
            f"run `sweeper run teachers --dataset {dataset or 'mnist5k'}` first"
        )
    names = sorted({m.dataset for m in sweeps})
    if len(names) > 1 and _is_relative(by):
        raise UserError(f"--teacher {by}: there are teachers of {', '.join(names)}; add --dataset {names[0]}")
    read, missing = [], None
    for manifest in sweeps:
        try:
            read.append(Sweep.read(manifest, store))
        except MissingPluginError as error:  # one sweep's plug-in does not hide the others
            missing = error
    finished = [sweep for sweep in read if sweep.finished()]
    if not finished and missing:
        raise missing
    if not finished:
        raise NotYetError(f"teacher sweep {sweeps[0].name} is not finished; run `{sweeps[0].command}` first")
    ds = sorted({shape.d for sweep in finished for shape in sweep.finishers()})
    if not ds:
        raise NotYetError(f"no teacher of {sweeps[0].name} is left: all diverged; run its command with a smaller lr")
    found = [(sweep, trial) for sweep in finished for trial in _candidates(sweep, by)]
    if not found:
        raise UserError(f"--teacher {by}: no finished teacher of that name; use best, d=N (N in {ds}) or a signature")
    if _is_relative(by) and len({sweep.manifest.protocols["selection"] for sweep, _ in found}) > 1:
        raise UserError(f"--teacher {by}: the teacher sweeps were scored by different protocols; name a signature")
    sweep, trial = min(found, key=lambda item: (-quality(item[0], [item[1]], item[0].manifest.metric), item[1]))
    final = sweep.final(trial)
    assert final is not None
    return Teacher(trial, final.updates, final.weights, sweep.manifest.name, by), sweep.manifest


def _is_relative(by: str) -> bool:
    return by == "best" or by.startswith("d=")


def _candidates(sweep: Sweep, by: str) -> list[str]:
    finishers = sweep.finishers()
    if by == "best":
        every = [
            (-quality(sweep, t, sweep.manifest.metric), n, t) for found in finishers.values() for n, t in found.items()
        ]
        return min(every)[2] if every else []
    if by.startswith("d="):
        of_d = [trials for shape in finishers if f"d={shape.d}" == by and (trials := best(sweep, shape))]
        return max(of_d, key=lambda trials: quality(sweep, trials, sweep.manifest.metric), default=[])
    return [
        t
        for found in finishers.values()
        for trials in found.values()
        for t in trials
        if len(by) > 3 and t.startswith(by)
    ]
