"""Learning curves: what trials would do if they were trained to the end. Of a store, of a file, or shuffled."""

import json
import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeper.scheduling.successive_halving import Configurations
from sweeper.scheduling.sweep import Sweep
from trainables.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one trial would do if it were trained to the end of its points."""

    stratum: str
    trial: str
    configuration: str  # trials of one configuration differ in their seed alone
    seconds_per_update: float
    points: Sequence[tuple[int, float]]  # (updates, FID), ascending
    share: float = 1.0  # of a slot
    seconds_per_rung: float = 0.0  # scoring at a rung
    seconds_at_end: float = 0.0  # what the budget's rung takes beyond that

    def reaches(self, updates: int) -> bool:
        """Whether its score there is known; that of a diverged trial is, for ever."""
        return self.points[-1][0] >= updates or self.points[-1][1] == math.inf

    def score(self, updates: int) -> float:
        """The FID there, on a straight line between two points. Raises UserError outside them."""
        if updates < self.points[0][0]:
            raise UserError(
                f"the curve of {self.trial} begins at {self.points[0][0]} updates and {updates} are asked for; "
                f"simulate with --first-rung {self.points[0][0]} or more"
            )
        if not self.reaches(updates):
            raise UserError(
                f"the curve of {self.trial} ends at {self.points[-1][0]} updates and {updates} are asked for; "
                "record it with `sweeper run … --no-pruning`, or simulate fewer --updates"
            )
        place = min(bisect_left(self.points, (updates, -math.inf)), len(self.points) - 1)
        right, after = self.points[place]
        if right <= updates or place == 0:
            return after
        left, before = self.points[place - 1]
        return before + (after - before) * (updates - left) / (right - left)


def configurations(curves: Iterable[Curve]) -> dict[str, Configurations]:
    """stratum → configuration → its trials."""
    found: dict[str, dict[str, list[str]]] = {}
    for curve in curves:
        found.setdefault(curve.stratum, {}).setdefault(curve.configuration, []).append(curve.trial)
    return dict(found)


def true_best(curves: Sequence[Curve], budget: int) -> dict[str, float]:
    """stratum → the best score that any configuration reaches at the budget."""
    of = {curve.trial: curve for curve in curves}
    return {
        stratum: min(fmean(of[trial].score(budget) for trial in trials) for trials in members.values())
        for stratum, members in configurations(curves).items()
    }


def shuffled(curves: Sequence[Curve], seed: int) -> list[Curve]:
    """The same curves in another order, and under names that sort in that order."""
    order = list(curves)
    random.Random(seed).shuffle(order)
    numbers = {name: f"{n:06}" for n, name in enumerate(dict.fromkeys(curve.configuration for curve in order))}
    return [
        replace(curve, configuration=numbers[curve.configuration], trial=f"{numbers[curve.configuration]}/{n:06}")
        for n, curve in enumerate(order)
    ]


def read_curves(file: Path) -> list[Curve]:
    """JSON lines of stratum, trial, seconds_per_update, points [[updates, fid], …]; configuration and share if they
    differ from the trial and 1. A FID that is null or NaN is a trial that diverged. Raises UserError."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text ({error}); name a file of JSON lines") from None
    curves: dict[str, Curve] = {}
    for number, line in enumerate(lines, 1):
        try:
            curve = _curve(json.loads(line))
            if curve.trial in curves:
                raise ValueError(f"a second curve of trial {curve.trial}")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{file}, line {number}: {error}; each line is a JSON object with stratum, trial, "
                "seconds_per_update and points [[updates, fid], …]"
            ) from None
        curves[curve.trial] = curve
    if not curves:
        raise UserError(f"{file} holds no curve; each line is one trial's")
    return list(curves.values())


def _curve(fields: dict[str, Any]) -> Curve:
    """Raises what Python raises for a line that is no curve."""
    names = {name: fields.get(name, fields["trial"]) for name in ("stratum", "trial", "configuration")}
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError("stratum, trial and configuration are text")
    points: list[tuple[int, float]] = []
    for updates, fid in sorted(fields["points"], key=lambda point: int(point[0])):
        value = math.nan if fid is None else float(fid)
        points.append((int(updates), value if math.isfinite(value) else math.inf))
        if value != points[-1][1]:
            break  # it diverged: what comes after says nothing
    curve = Curve(**{**fields, **names, "points": points})
    if not points or points[0][0] < 1 or len({updates for updates, _ in points}) < len(points):
        raise ValueError("points need ascending updates from 1")
    if not 0 < curve.seconds_per_update < math.inf or not 0 < curve.share < math.inf:
        raise ValueError("seconds_per_update and share are positive and finite")
    return curve


def write_curves(curves: Iterable[Curve], file: Path) -> None:
    with file.open("w") as out:
        for curve in curves:
            points = [[updates, fid if math.isfinite(fid) else None] for updates, fid in curve.points]
            fields = {"stratum": curve.stratum, "trial": curve.trial, "configuration": curve.configuration}
            rest = {"seconds_per_update": curve.seconds_per_update, "points": points}
            print(json.dumps(fields | rest), file=out)


def curves_of(sweep: Sweep) -> list[Curve]:
    """The curves that a sweep in the store has recorded, as far as each trial came."""
    curves = []
    for signature, record in sweep.records.items():
        numbers = sorted({rung.updates for rung in record.rungs})
        found = [record.rung(updates, sweep.manifest.protocols["rung"]) for updates in numbers]
        rungs = [rung for rung in found if rung]
        if rungs:
            curves.append(
                Curve(
                    stratum=record.spec.generator.label,
                    trial=signature,
                    configuration=record.spec.configuration,
                    seconds_per_update=sum(r.seconds for r in rungs) / rungs[-1].updates,
                    points=[(r.updates, math.inf if r.diverged else r.scores["fid"]["mean"]) for r in rungs],
                )
            )
    return curves
