"""Learning curves of trials: of a sweep in the store, of a file, or shuffled."""

import dataclasses
import json
import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import AllowInfNan, Field

from sweeper.scheduling.successive_halving import Configurations
from sweeper.scheduling.sweep import Sweep
from trainables.errors import UserError
from trainables.reading import STRICT, Count, Line, Seconds, checked, read_content

_LARGEST = 1e100  # FID: sums of these are finite


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The learning curve of one trial, and its cost."""

    stratum: str
    trial: str
    configuration: str  # trials of a configuration differ only in their seed
    seconds_per_update: float
    points: Sequence[tuple[int, float]]  # (updates, FID), ascending
    share: float = 1.0  # of a slot
    seconds_per_rung: float = 0.0  # of scoring at a rung
    seconds_at_end: float = 0.0  # of the final scores at the budget, in addition

    def reaches(self, updates: int) -> bool:
        """Return whether the curve has a score at `updates`. A diverged trial has one everywhere after it."""
        return self.points[-1][0] >= updates or self.points[-1][1] == math.inf

    def score(self, updates: int) -> float:
        """Return the FID at `updates`, interpolated linearly. Raises UserError outside the curve."""
        if updates < self.points[0][0]:
            raise UserError(
                f"the curve of {self.trial} begins at {self.points[0][0]} updates, after {updates}; "
                f"simulate with --first-rung {self.points[0][0]} or more"
            )
        if not self.reaches(updates):
            raise UserError(
                f"the curve of {self.trial} ends at {self.points[-1][0]} updates, before {updates}; "
                "record it with `sweeper run … --no-pruning`, or simulate fewer --updates"
            )
        index = min(bisect_left(self.points, (updates, -math.inf)), len(self.points) - 1)
        right, after = self.points[index]
        if right <= updates or index == 0:
            return after
        left, before = self.points[index - 1]
        return before + (after - before) * (updates - left) / (right - left)


def configurations(curves: Iterable[Curve]) -> dict[str, Configurations]:
    """Return stratum → configuration → its trials."""
    strata: dict[str, dict[str, list[str]]] = {}
    for curve in curves:
        strata.setdefault(curve.stratum, {}).setdefault(curve.configuration, []).append(curve.trial)
    return dict(strata)


def true_best(curves: Sequence[Curve], budget: int) -> dict[str, float]:
    """Return stratum → the best score of any configuration at the budget. Raises UserError if a curve ends earlier."""
    by_trial = {curve.trial: curve for curve in curves}
    return {
        stratum: min(fmean(by_trial[trial].score(budget) for trial in trials) for trials in members.values())
        for stratum, members in configurations(curves).items()
    }


def shuffled(curves: Sequence[Curve], seed: int) -> list[Curve]:
    """Return the curves in a random order, renamed so that their names sort in that order."""
    order = list(curves)
    random.Random(seed).shuffle(order)
    numbers = {name: f"{n:06}" for n, name in enumerate(dict.fromkeys(curve.configuration for curve in order))}
    return [
        replace(curve, configuration=numbers[curve.configuration], trial=f"{numbers[curve.configuration]}/{n:06}")
        for n, curve in enumerate(order)
    ]


@dataclass(frozen=True, kw_only=True)
class _CurveFields:
    """A line of a file of curves."""

    stratum: Line
    trial: Line
    configuration: Line | None = None  # by default the trial
    seconds_per_update: Annotated[Seconds, Field(gt=0)]
    points: Annotated[list[tuple[Count, Annotated[float, AllowInfNan()] | None]], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    seconds_per_rung: Seconds = 0.0
    seconds_at_end: Seconds = 0.0
    __pydantic_config__ = STRICT

    def curve(self) -> Curve:
        """Return the curve. It ends where it diverged: later points mean nothing."""
        points: list[tuple[int, float]] = []
        for updates, fid in sorted(self.points, key=lambda point: point[0]):
            if points and points[-1][0] == updates:
                raise ValueError(f"points: two at {updates} updates")
            diverged = fid is None or not math.isfinite(fid)
            if fid is not None and _LARGEST < abs(fid) < math.inf:
                raise ValueError(f"points: FID {fid:g}")
            points.append((updates, math.inf if fid is None or diverged else fid))
            if diverged:
                break
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Curve(**{**fields, "configuration": self.configuration or self.trial, "points": points})


def read_curves(file: Path) -> list[Curve]:
    """Read curves from JSON lines with stratum, trial, seconds_per_update, points [[updates, fid], …].

    configuration (default: trial) and share (default: 1) are optional. The trial diverged at a FID of null or NaN.
    Raises UserError for a wrong file, naming the line.
    """
    try:
        lines = read_content(file).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text ({error}); name a file of JSON lines") from None
    curves: dict[str, Curve] = {}
    for number, line in enumerate(lines, 1):
        try:
            curve = checked(line, _CurveFields).curve()
            if curve.trial in curves:
                raise ValueError(f"a second curve of trial {curve.trial}")
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}: {error}; each line is a JSON object with stratum, trial, "
                "seconds_per_update and points [[updates, fid], …]"
            ) from None
        curves[curve.trial] = curve
    if not curves:
        raise UserError(f"{file} holds no curve; write one JSON object per trial and line")
    return list(curves.values())


def write_curves(curves: Iterable[Curve], file: Path) -> None:
    """Write curves as JSON lines, without their shares and scoring times."""
    with file.open("w") as out:
        for curve in curves:
            points = [[updates, fid if math.isfinite(fid) else None] for updates, fid in curve.points]
            fields = {"stratum": curve.stratum, "trial": curve.trial, "configuration": curve.configuration}
            rest = {"seconds_per_update": curve.seconds_per_update, "points": points}
            print(json.dumps(fields | rest), file=out)


def curves_of(sweep: Sweep) -> list[Curve]:
    """Return the curve of every trial with a rung record, as far as the trial was trained."""
    curves = []
    for signature in sweep.manifest.signatures:  # without fresh seeds, which have no earlier rungs
        record = sweep.records[signature]
        protocol = sweep.manifest.protocols["rung"]
        steps = sorted({rung.updates for rung in record.rungs})
        rungs = [rung for updates in steps if (rung := record.rung(updates, protocol))]
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
